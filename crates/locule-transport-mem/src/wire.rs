//! One link: two bounded queues of frames, and what its ends and the faults do to them.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_sink::Sink;
use locule_transport::{Link, LinkError, OutFrame, PeerInfo, ReceiveLimit};
use tokio::time::{Instant, Sleep, sleep_until};

/// Frames in a queue, whatever their length: empty ones take memory too.
const QUEUE_FRAMES: usize = 4096;

#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) max_frame_len: usize,
    pub(crate) queue_len: usize,
}

#[derive(Clone, Default)]
pub(crate) struct Rules {
    pub(crate) frames_left: Option<usize>,
    pub(crate) delay: Duration,
    pub(crate) held: bool,
    pub(crate) unreachable: bool,
}

pub(crate) struct Wire {
    bounds: Bounds,
    state: Mutex<State>,
}

struct State {
    /// Towards the listener, towards the dialer.
    lanes: [Lane; 2],
    rules: Rules,
    /// An end dropped a half: what is queued is delivered, nothing new is taken.
    closed: bool,
    /// A fault: what is queued is lost.
    cut: bool,
}

#[derive(Default)]
struct Lane {
    frames: VecDeque<(Bytes, Option<Instant>)>,
    /// Length of all frames, in bytes.
    len: usize,
    /// The writer said that there is no more.
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Wire {
    pub(crate) fn new(bounds: Bounds, rules: Rules) -> Arc<Self> {
        let state = State { lanes: Default::default(), rules, closed: false, cut: false };
        Arc::new(Self { bounds, state: Mutex::new(state) })
    }

    /// The dialer's end, which sees the listener, and the listener's end, which sees the dialer.
    pub(crate) fn ends(self: &Arc<Self>, listening: PeerInfo, dialling: PeerInfo) -> (Link, Link) {
        (self.end(0, 1, listening), self.end(1, 0, dialling))
    }

    fn end(self: &Arc<Self>, write: usize, read: usize, peer: PeerInfo) -> Link {
        let max_frame_len = self.bounds.max_frame_len;
        let receive_limit = ReceiveLimit::new(max_frame_len);
        let reader = Reader {
            wire: Arc::clone(self),
            lane: read,
            limit: receive_limit.clone(),
            done: false,
            timer: None,
        };
        let writer = Writer { wire: Arc::clone(self), lane: write };
        Link { outgoing: Box::pin(writer), incoming: Box::pin(reader), peer, max_frame_len, receive_limit }
    }

    pub(crate) fn cut(&self) {
        self.lock().cut();
    }

    pub(crate) fn change_rules(&self, change: impl FnOnce(&mut Rules)) {
        let mut state = self.lock();
        change(&mut state.rules);
        if state.rules.frames_left == Some(0) {
            state.cut();
        }
        state.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn cut(&mut self) {
        self.cut = true;
        for lane in &mut self.lanes {
            lane.frames.clear();
            lane.len = 0;
        }
        self.wake();
    }

    fn close(&mut self) {
        self.closed = true;
        self.wake();
    }

    fn wake(&mut self) {
        for lane in &mut self.lanes {
            lane.wake_reader();
            lane.wake_writer();
        }
    }

    /// Why nothing can be sent.
    fn check_open(&self, lane: usize) -> Result<(), LinkError> {
        if self.cut {
            Err(broken())
        } else if self.closed || self.lanes[lane].ended {
            Err(LinkError::Closed)
        } else {
            Ok(())
        }
    }
}

impl Lane {
    fn is_full(&self, bounds: Bounds) -> bool {
        self.len >= bounds.queue_len || self.frames.len() >= QUEUE_FRAMES
    }

    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

fn broken() -> LinkError {
    LinkError::Broken { source: io::Error::from(io::ErrorKind::ConnectionReset).into() }
}

struct Writer {
    wire: Arc<Wire>,
    lane: usize,
}

impl Sink<OutFrame> for Writer {
    type Error = LinkError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let mut state = self.wire.lock();
        state.check_open(self.lane)?;
        let lane = &mut state.lanes[self.lane];
        if lane.is_full(self.wire.bounds) {
            lane.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, frame: OutFrame) -> Result<(), LinkError> {
        frame.check_len(self.wire.bounds.max_frame_len)?;
        let mut state = self.wire.lock();
        state.check_open(self.lane)?;
        let due = (!state.rules.delay.is_zero()).then(|| Instant::now() + state.rules.delay);
        let frame = frame.into_bytes();
        let lane = &mut state.lanes[self.lane];
        lane.len += frame.len();
        lane.frames.push_back((frame, due));
        lane.wake_reader();
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        // Every frame is with the peer already. A link that ended since says so at the next frame.
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let mut state = self.wire.lock();
        let lane = &mut state.lanes[self.lane];
        lane.ended = true;
        lane.wake_reader();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.wire.lock();
        if !state.lanes[self.lane].ended {
            state.close();
        }
    }
}

struct Reader {
    wire: Arc<Wire>,
    lane: usize,
    limit: ReceiveLimit,
    done: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stream for Reader {
    type Item = Result<Bytes, LinkError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.done {
            return Poll::Ready(None);
        }
        let outcome = std::task::ready!(this.poll_frame(cx));
        this.done = !matches!(outcome, Some(Ok(_)));
        Poll::Ready(outcome)
    }
}

impl Reader {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, LinkError>>> {
        let mut state = self.wire.lock();
        if state.cut {
            return Poll::Ready(Some(Err(broken())));
        }
        let State { lanes, rules, closed, .. } = &mut *state;
        let lane = &mut lanes[self.lane];
        lane.reader = Some(cx.waker().clone());
        if rules.held {
            return Poll::Pending;
        }
        match lane.frames.front() {
            Some((_, Some(due))) if *due > Instant::now() => {
                let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(*due)));
                timer.as_mut().reset(*due);
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
            Some(_) => {}
            None if lane.ended => return Poll::Ready(None),
            None if *closed => return Poll::Ready(Some(Err(LinkError::Closed))),
            None => return Poll::Pending,
        }
        let Some((frame, _)) = lane.frames.pop_front() else { return Poll::Pending };
        lane.len -= frame.len();
        lane.wake_writer();
        let max = self.limit.get();
        if frame.len() > max {
            state.close();
            return Poll::Ready(Some(Err(LinkError::FrameTooLarge { len: frame.len(), max })));
        }
        if let Some(left) = &mut state.rules.frames_left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                state.cut();
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.done {
            self.wire.lock().close();
        }
    }
}
