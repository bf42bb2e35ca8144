//! One call as a link: its two halves, and the body that HTTP/2 sends for them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_sink::Sink;
use http::{HeaderMap, Response, StatusCode, header};
use http_body::{Body as _, Frame};
use locule_transport::{Link, LinkError, OutFrame, PeerInfo, ReceiveLimit};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, DropGuard, PollSender, WaitForCancellationFutureOwned};
use tonic::body::Body;
use tonic::transport::channel::ResponseFuture;
use tonic::{Code, Status};

use crate::wire::{Deframer, protocol, put_envelope};

/// Parts up to this are copied together; longer ones go to HTTP/2 as they are.
const COPY_LEN: usize = 8 << 10;
/// What a writer takes before it waits for HTTP/2, in bytes, beside one frame.
const QUEUE_LEN: usize = 64 << 10;
/// Pieces on their way from a writer to HTTP/2: the head of a frame and its body.
const PIECES: usize = 2;
/// Inside a frame, a peer sends at least this in each window, or it is given up.
const WINDOW: Duration = Duration::from_secs(15);
const WINDOW_BYTES: u64 = 15 << 10;

/// A call whose body is about to be sent, and that will be a link.
pub(crate) struct Call {
    pieces: mpsc::Sender<Bytes>,
    incoming: Arc<Mutex<Incoming>>,
    closed: CancellationToken,
    sent: CancellationToken,
}

/// What the peer sends, as far as it has been seen.
pub(crate) enum Incoming {
    /// We dialled, and the response may still be on its way.
    Awaited(ResponseFuture),
    /// We dialled: the peer's messages, and its status.
    Answer(Body),
    /// We listened: the peer's messages.
    Request(Body),
    /// Nothing any more.
    Ended,
}

impl Call {
    /// A call and the body to send in it, which ends with a status if we are the one who `answers`.
    pub(crate) fn new(answers: bool) -> (Self, Body) {
        let (pieces, queued) = mpsc::channel(PIECES);
        let incoming = Arc::new(Mutex::new(Incoming::Ended));
        let (closed, sent) = (CancellationToken::new(), CancellationToken::new());
        let outgoing = Outgoing {
            pieces: queued,
            incoming: Arc::clone(&incoming),
            closed: Closed::of(&closed),
            stage: Stage::Sending,
            status: answers.then(|| Status::ok("")),
            _sent: sent.clone().drop_guard(),
        };
        (Self { pieces, incoming, closed, sent }, Body::new(outgoing))
    }

    /// The link that it is; `guard` is dropped with its second half.
    pub(crate) fn link(
        self,
        incoming: Incoming,
        peer: PeerInfo,
        max_frame_len: usize,
        guard: impl Send + Sync + 'static,
    ) -> Link {
        let guard: Guard = Arc::new(guard);
        *lock(&self.incoming) = incoming;
        let receive_limit = ReceiveLimit::new(max_frame_len);
        let reader = Reader {
            incoming: self.incoming,
            closed: Closed::of(&self.closed),
            deframer: Deframer::default(),
            limit: receive_limit.clone(),
            window: None,
            done: false,
            _guard: Arc::clone(&guard),
        };
        let writer = Writer {
            pieces: PollSender::new(self.pieces),
            closed: Closed::of(&self.closed),
            max_frame_len,
            seq: 0,
            small: BytesMut::new(),
            queue: VecDeque::new(),
            queue_len: 0,
            sent: Box::pin(self.sent.cancelled_owned()),
            ended: false,
            _guard: guard,
        };
        Link { outgoing: Box::pin(writer), incoming: Box::pin(reader), peer, max_frame_len, receive_limit }
    }
}

type Guard = Arc<dyn Send + Sync>;

fn lock(incoming: &Mutex<Incoming>) -> MutexGuard<'_, Incoming> {
    incoming.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a half of the link was dropped before its end; each part of the call waits for it.
struct Closed(CancellationToken, Pin<Box<WaitForCancellationFutureOwned>>);

impl Closed {
    fn of(token: &CancellationToken) -> Self {
        Self(token.clone(), Box::pin(token.clone().cancelled_owned()))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.1.as_mut().poll(cx)
    }
}

struct Reader {
    incoming: Arc<Mutex<Incoming>>,
    closed: Closed,
    deframer: Deframer,
    limit: ReceiveLimit,
    window: Option<Window>,
    done: bool,
    _guard: Guard,
}

/// The time in which the rest of a frame, or enough of it, has to arrive.
struct Window {
    ends: Pin<Box<Sleep>>,
    received_before: u64,
    is_open: bool,
}

impl Stream for Reader {
    type Item = Result<Bytes, LinkError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.done {
            return Poll::Ready(None);
        }
        let turn = ready!(tokio::task::coop::poll_proceed(cx));
        let outcome = ready!(this.poll_frame(cx));
        turn.made_progress();
        this.done = !matches!(outcome, Some(Ok(_)));
        if matches!(outcome, Some(Err(_))) {
            this.closed.0.cancel();
        }
        Poll::Ready(outcome)
    }
}

impl Reader {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, LinkError>>> {
        loop {
            if let Some(frame) = self.deframer.next(self.limit.get())? {
                if let Some(window) = &mut self.window {
                    window.is_open = false;
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            let piece = lock(&self.incoming).poll_piece(cx);
            match piece {
                Poll::Ready(Ok(Some(piece))) => self.deframer.push(piece),
                Poll::Ready(Ok(None)) if self.deframer.is_inside() => {
                    return Poll::Ready(Some(Err(protocol("the call ended inside a frame"))));
                }
                Poll::Ready(Ok(None)) => return Poll::Ready(None),
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending if self.closed.poll(cx).is_ready() => {
                    return Poll::Ready(Some(Err(LinkError::Closed)));
                }
                Poll::Pending if self.deframer.is_inside() => {
                    let received = ready!(self.poll_too_slow(cx));
                    return Poll::Ready(Some(Err(LinkError::TooSlow { received, window: WINDOW })));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Ready with what arrived, when a window has ended without enough of it.
    fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let received = self.deframer.received();
        let window = self.window.get_or_insert_with(|| Window {
            ends: Box::pin(sleep(WINDOW)),
            received_before: received,
            is_open: true,
        });
        if !window.is_open {
            window.open(received);
        }
        while window.ends.as_mut().poll(cx).is_ready() {
            let arrived = received - window.received_before;
            if arrived < WINDOW_BYTES {
                return Poll::Ready(usize::try_from(arrived).unwrap_or(usize::MAX));
            }
            window.open(received);
        }
        Poll::Pending
    }
}

impl Window {
    fn open(&mut self, received: u64) {
        self.ends.as_mut().reset(Instant::now() + WINDOW);
        self.received_before = received;
        self.is_open = true;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.done {
            self.closed.0.cancel();
        }
    }
}

impl Incoming {
    /// The next bytes of the peer, or its proper end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, LinkError>> {
        if let Self::Awaited(response) = self {
            let response = ready!(Pin::new(response).poll(cx)).map_err(broken)?;
            check(&response)?;
            *self = Self::Answer(response.into_body());
        }
        let (Self::Answer(body) | Self::Request(body)) = self else {
            return Poll::Ready(Err(LinkError::Closed));
        };
        Poll::Ready(match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => match (frame.into_data(), self) {
                (Ok(piece), _) => Ok(Some(piece)),
                (Err(_), Self::Request(_)) => Ok(None),
                (Err(frame), _) => outcome(&frame.into_trailers().unwrap_or_default()).map(|()| None),
            },
            Some(Err(status)) if status.code() == Code::Cancelled => Err(LinkError::Closed),
            Some(Err(status)) => Err(broken(status)),
            // A peer that reset the call has sent no end of its stream.
            None if !body.is_end_stream() => Err(LinkError::Closed),
            None if matches!(self, Self::Request(_)) => Ok(None),
            None => outcome(&HeaderMap::new()).map(|()| None),
        })
    }
}

/// Whether a response opens the call.
fn check(response: &Response<Body>) -> Result<(), LinkError> {
    let headers = response.headers();
    let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    if response.status() != StatusCode::OK {
        return Err(LinkError::Refused { reason: format!("http status {}", response.status().as_u16()) });
    }
    if !content_type.starts_with(b"application/grpc") {
        return Err(protocol(format!("an answer of type \"{}\"", escaped(content_type))));
    }
    if headers.contains_key("grpc-status") {
        return outcome(headers).and(Err(LinkError::Closed));
    }
    Ok(())
}

/// What trailers (or headers that are trailers too) say: an end, or why not.
fn outcome(trailers: &HeaderMap) -> Result<(), LinkError> {
    let status =
        Status::from_header_map(trailers).ok_or_else(|| protocol("the call ended without a status"))?;
    if status.code() == Code::Ok {
        return Ok(());
    }
    if status.code() == Code::Cancelled {
        return Err(LinkError::Closed);
    }
    let message = escaped(status.message().as_bytes());
    Err(LinkError::Refused { reason: format!("grpc status {} {message}", status.code() as i32) })
}

fn broken(source: impl std::error::Error + Send + Sync + 'static) -> LinkError {
    LinkError::Broken { source: source.into() }
}

/// What a peer said, fit to be shown.
fn escaped(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(200)].escape_ascii().to_string()
}

struct Writer {
    pieces: PollSender<Bytes>,
    closed: Closed,
    max_frame_len: usize,
    seq: i32,
    /// Envelopes and short parts, to be one piece.
    small: BytesMut,
    queue: VecDeque<Bytes>,
    /// What `small` and `queue` hold, in bytes.
    queue_len: usize,
    /// HTTP/2 has sent the last piece.
    sent: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
    _guard: Guard,
}

impl Sink<OutFrame> for Writer {
    type Error = LinkError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if self.queue_len >= QUEUE_LEN { self.poll_drain(cx) } else { Poll::Ready(self.check_open()) }
    }

    fn start_send(mut self: Pin<&mut Self>, frame: OutFrame) -> Result<(), LinkError> {
        frame.check_len(self.max_frame_len)?;
        self.check_open()?;
        let this = &mut *self;
        this.seq = this.seq.checked_add(1).unwrap_or(1);
        let small_before = this.small.len();
        put_envelope(&mut this.small, this.seq, frame.len());
        this.queue_len += this.small.len() - small_before + frame.len();
        this.put(frame.head);
        this.put(frame.body);
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.poll_drain(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if !self.ended {
            ready!(self.poll_drain(cx))?;
            self.ended = true;
            self.pieces.close();
        }
        self.sent.as_mut().poll(cx).map(Ok)
    }
}

impl Writer {
    fn check_open(&self) -> Result<(), LinkError> {
        let nobody_takes = self.pieces.get_ref().is_none_or(mpsc::Sender::is_closed);
        if nobody_takes || self.closed.0.is_cancelled() { Err(LinkError::Closed) } else { Ok(()) }
    }

    fn put(&mut self, part: Bytes) {
        if part.len() <= COPY_LEN {
            self.small.extend_from_slice(&part);
        } else {
            self.queue_small();
            self.queue.push_back(part);
        }
    }

    fn queue_small(&mut self) {
        if !self.small.is_empty() {
            let piece = self.small.split().freeze();
            self.queue.push_back(piece);
        }
    }

    /// Hands everything to HTTP/2, as fast as it takes it.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.queue_small();
        self.check_open()?;
        while !self.queue.is_empty() {
            match self.pieces.poll_reserve(cx) {
                Poll::Ready(outcome) => outcome.map_err(|_| LinkError::Closed)?,
                Poll::Pending => {
                    ready!(self.closed.poll(cx));
                    return Poll::Ready(Err(LinkError::Closed));
                }
            }
            if let Some(piece) = self.queue.pop_front() {
                self.queue_len -= piece.len();
                self.pieces.send_item(piece).map_err(|_| LinkError::Closed)?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.ended {
            self.closed.0.cancel();
        }
    }
}

/// The body that HTTP/2 sends: a writer's pieces.
///
/// It keeps the peer's stream until all of them have been sent, since HTTP/2 discards what it has of a
/// call that nobody reads any more.
struct Outgoing {
    pieces: mpsc::Receiver<Bytes>,
    incoming: Arc<Mutex<Incoming>>,
    closed: Closed,
    stage: Stage,
    status: Option<Status>,
    _sent: DropGuard,
}

enum Stage {
    Sending,
    /// Until the last piece is dropped, which says that HTTP/2 has sent all before it.
    Leaving(oneshot::Receiver<()>),
    Ended,
}

/// A piece without bytes.
struct LastPiece(#[expect(dead_code, reason = "its drop is the message")] oneshot::Sender<()>);

impl AsRef<[u8]> for LastPiece {
    fn as_ref(&self) -> &[u8] {
        &[]
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            let this = &mut *self;
            match &mut this.stage {
                Stage::Sending => match this.pieces.poll_recv(cx) {
                    Poll::Ready(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                    Poll::Ready(None) => {
                        if this.closed.0.is_cancelled() && this.status.is_some() {
                            this.status = Some(Status::cancelled("service closed"));
                        }
                        let (last, left) = oneshot::channel();
                        this.stage = Stage::Leaving(left);
                        return Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(LastPiece(last))))));
                    }
                    Poll::Pending if this.pieces.is_closed() => return Poll::Pending,
                    Poll::Pending => {
                        ready!(this.closed.poll(cx));
                        this.pieces.close();
                    }
                },
                Stage::Leaving(left) => {
                    // Its sender is dropped, never used.
                    let _ = ready!(Pin::new(left).poll(cx));
                    this.stage = Stage::Ended;
                    if this.closed.0.is_cancelled() {
                        *lock(&this.incoming) = Incoming::Ended;
                    }
                }
                Stage::Ended => return Poll::Ready(this.status.take().map(|status| Ok(trailers(&status)))),
            }
        }
    }
}

fn trailers(status: &Status) -> Frame<Bytes> {
    let mut trailers = HeaderMap::with_capacity(2);
    status.add_header(&mut trailers).expect("our own messages fit into a header");
    Frame::trailers(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::tests::call;
    use futures_util::{SinkExt, StreamExt};
    use locule_transport::Security;
    use std::future::poll_fn;

    #[tokio::test]
    async fn a_large_body_is_sent_without_being_copied() {
        let (call, mut outgoing) = Call::new(true);
        let mut link = call.link(Incoming::Ended, PeerInfo::new("memory", Security::Internal), 1 << 20, ());
        let body = Bytes::from(vec![7; 100_000]);
        link.outgoing.send(OutFrame::new("head", body.clone())).await.unwrap();
        let mut pieces = Vec::new();
        for _ in 0..2 {
            let frame = poll_fn(|cx| Pin::new(&mut outgoing).poll_frame(cx)).await.unwrap().unwrap();
            pieces.push(frame.into_data().unwrap());
        }
        assert_eq!((pieces[1].as_ptr(), pieces[1].len()), (body.as_ptr(), body.len()));
    }

    fn message(len: usize) -> Bytes {
        let mut message = BytesMut::new();
        put_envelope(&mut message, 1, len);
        message.resize(message.len() + len, 7);
        message.freeze()
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_stops_inside_a_frame_is_given_up() {
        let (mut peer, _response, mut link) = call().await;
        let start = Instant::now();
        peer.send_data(message(100_000).slice(..50), false).unwrap();
        let outcome = link.incoming.next().await;
        assert!(matches!(outcome, Some(Err(LinkError::TooSlow { received: 0, .. }))), "{outcome:?}");
        assert_eq!(start.elapsed(), WINDOW);
        assert!(matches!(link.outgoing.send(Bytes::new().into()).await, Err(LinkError::Closed)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_that_goes_on_is_waited_for() {
        let (mut peer, _response, mut link) = call().await;
        let sending = tokio::spawn(async move {
            let message = message(100_000);
            for part in 0..10 {
                peer.send_data(message.slice(part * 10_000..(part + 1) * 10_000), false).unwrap();
                tokio::time::sleep(WINDOW / 4).await;
            }
            peer.send_data(message.slice(100_000..), false).unwrap();
            peer
        });
        assert_eq!(link.incoming.next().await.unwrap().unwrap().len(), 100_000);
        sending.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_peer_is_not_a_slow_one() {
        let (mut peer, _response, mut link) = call().await;
        let waiting = tokio::spawn(async move { link.incoming.next().await });
        tokio::time::sleep(WINDOW * 100).await;
        peer.send_data(message(3), false).unwrap();
        assert_eq!(waiting.await.unwrap().unwrap().unwrap(), &[7; 3][..]);
    }

    #[tokio::test]
    async fn a_call_that_ends_inside_a_frame_is_an_error() {
        let (mut peer, _response, mut link) = call().await;
        peer.send_data(message(100).slice(..50), true).unwrap();
        assert!(matches!(link.incoming.next().await, Some(Err(LinkError::Protocol { .. }))));
    }
}
