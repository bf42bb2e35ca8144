//! One call as a link: its two halves, and what they share.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_core::Stream;
use futures_sink::Sink;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{Response, StatusCode, header};
use locule_transport::{Link, LinkError, OutFrame, PeerInfo, ReceiveLimit};
use tokio::time::{Instant, Sleep, sleep};

use crate::status::{self, Code, link_error, outcome, trailers};
use crate::wire::{Deframer, protocol, put_envelope};

/// Parts up to this are copied together; longer ones go to HTTP/2 as they are.
const COPY_LEN: usize = 8 << 10;
/// What a writer takes before it waits for HTTP/2, in bytes, beside one frame.
const QUEUE_LEN: usize = 64 << 10;
/// Inside a frame, a peer sends at least this in each window, or it is given up.
const WINDOW: Duration = Duration::from_secs(15);
const WINDOW_BYTES: u64 = 15 << 10;

/// What the peer sends, as far as it has been seen.
pub(crate) enum Incoming {
    /// We dialled, and the response may still be on its way.
    Response(ResponseFuture),
    /// The peer's messages.
    Body(RecvStream),
    /// Nothing any more.
    Ended,
}

/// Makes a link of a call. `guard` is dropped when the link is closed.
pub(crate) fn link(
    outgoing: SendStream<Piece>,
    incoming: Incoming,
    peer: PeerInfo,
    max_frame_len: usize,
    guard: impl Send + 'static,
) -> Link {
    let answers = matches!(incoming, Incoming::Body(_));
    let call = Arc::new(Call(Mutex::new(State {
        outgoing: Some(outgoing),
        incoming,
        answers,
        waiting: Vec::new(),
        _guard: Some(Box::new(guard)),
    })));
    let receive_limit = ReceiveLimit::new(max_frame_len);
    let reader = Reader {
        call: Arc::clone(&call),
        deframer: Deframer::default(),
        limit: receive_limit.clone(),
        window: None,
        done: false,
    };
    let writer = Writer {
        call,
        max_frame_len,
        seq: 0,
        small: BytesMut::new(),
        queue: VecDeque::new(),
        queue_len: 0,
        under_way: Arc::default(),
        end: End::Open,
    };
    Link { outgoing: Box::pin(writer), incoming: Box::pin(reader), peer, max_frame_len, receive_limit }
}

/// The call, shared by both halves so that dropping either closes it.
struct Call(Mutex<State>);

struct State {
    outgoing: Option<SendStream<Piece>>,
    incoming: Incoming,
    /// We are the listener: the call ends with our status.
    answers: bool,
    /// Halves to wake when the call is closed under them.
    waiting: Vec<Waker>,
    _guard: Option<Box<dyn Send>>,
}

impl Call {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives the call up: as a dialer by a reset, as a listener by a status.
    fn close(&mut self) {
        if let (Some(mut outgoing), true) = (self.outgoing.take(), self.answers) {
            // Fails only when the peer has ended the call before us.
            let _ = outgoing.send_trailers(trailers(Code::Cancelled, "service closed"));
        }
        self.incoming = Incoming::Ended;
        self.waiting.drain(..).for_each(Waker::wake);
        self._guard = None;
    }

    fn wake_on_close(&mut self, cx: &Context<'_>) {
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            // Two halves wait here; what a half left behind when it moved to another task goes first.
            if self.waiting.len() == 4 {
                self.waiting.remove(0).wake();
            }
            self.waiting.push(cx.waker().clone());
        }
    }
}

struct Reader {
    call: Arc<Call>,
    deframer: Deframer,
    limit: ReceiveLimit,
    window: Option<Window>,
    done: bool,
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
            this.call.lock().close();
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
            let piece = self.call.lock().poll_piece(cx);
            match piece {
                Poll::Ready(Ok(Some(piece))) => self.deframer.push(piece),
                Poll::Ready(Ok(None)) if self.deframer.is_inside() => {
                    return Poll::Ready(Some(Err(protocol("the call ended inside a frame"))));
                }
                Poll::Ready(Ok(None)) => return Poll::Ready(None),
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending if self.deframer.is_inside() => {
                    ready!(self.poll_too_slow(cx));
                    let received = self.deframer.received() - self.received_before();
                    return Poll::Ready(Some(Err(LinkError::TooSlow {
                        received: usize::try_from(received).unwrap_or(usize::MAX),
                        window: WINDOW,
                    })));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Ready when a window has ended without enough bytes.
    fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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
            if received - window.received_before < WINDOW_BYTES {
                return Poll::Ready(());
            }
            window.open(received);
        }
        Poll::Pending
    }

    fn received_before(&self) -> u64 {
        self.window.as_ref().map_or(0, |window| window.received_before)
    }
}

impl Window {
    fn open(&mut self, received: u64) {
        self.ends.as_mut().reset(Instant::now() + WINDOW);
        self.received_before = received;
        self.is_open = true;
    }
}

impl State {
    /// The next bytes of the peer, or its proper end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, LinkError>> {
        loop {
            self.wake_on_close(cx);
            match &mut self.incoming {
                Incoming::Response(response) => {
                    let response = ready!(Pin::new(response).poll(cx)).map_err(link_error)?;
                    check(&response)?;
                    self.incoming = Incoming::Body(response.into_body());
                }
                Incoming::Body(body) => match ready!(body.poll_data(cx)) {
                    Some(Ok(piece)) => {
                        // Fails only when the stream is gone, which the next poll says.
                        let _ = body.flow_control().release_capacity(piece.len());
                        return Poll::Ready(Ok(Some(piece)));
                    }
                    Some(Err(error)) => return Poll::Ready(Err(link_error(error))),
                    None if self.answers => {
                        self.incoming = Incoming::Ended;
                        return Poll::Ready(Ok(None));
                    }
                    None => {
                        let trailers = ready!(body.poll_trailers(cx)).map_err(link_error)?;
                        self.incoming = Incoming::Ended;
                        outcome(&trailers.unwrap_or_default())?;
                        return Poll::Ready(Ok(None));
                    }
                },
                Incoming::Ended => return Poll::Ready(Err(LinkError::Closed)),
            }
        }
    }
}

/// Whether a response opens the call.
fn check(response: &Response<RecvStream>) -> Result<(), LinkError> {
    let headers = response.headers();
    let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    if response.status() != StatusCode::OK {
        return Err(LinkError::Refused { reason: format!("http status {}", response.status().as_u16()) });
    }
    if !content_type.starts_with(b"application/grpc") {
        return Err(protocol(format!("an answer of type \"{}\"", status::escaped(content_type))));
    }
    if headers.contains_key("grpc-status") {
        return match outcome(headers) {
            Ok(()) => Err(LinkError::Closed),
            Err(error) => Err(error),
        };
    }
    Ok(())
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.done {
            self.call.lock().close();
        }
    }
}

struct Writer {
    call: Arc<Call>,
    max_frame_len: usize,
    seq: u32,
    /// Envelopes and short parts, to be one piece.
    small: BytesMut,
    queue: VecDeque<Bytes>,
    /// What `small` and `queue` hold, in bytes.
    queue_len: usize,
    under_way: Arc<UnderWay>,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Said,
    Done,
}

impl Sink<OutFrame> for Writer {
    type Error = LinkError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if self.queue_len >= QUEUE_LEN {
            return self.poll_drain(cx);
        }
        if self.call.lock().outgoing.is_none() {
            return Poll::Ready(Err(LinkError::Closed));
        }
        Poll::Ready(Ok(()))
    }

    fn start_send(mut self: Pin<&mut Self>, frame: OutFrame) -> Result<(), LinkError> {
        frame.check_len(self.max_frame_len)?;
        if self.end != End::Open {
            return Err(LinkError::Closed);
        }
        self.seq = if self.seq == i32::MAX as u32 { 1 } else { self.seq + 1 };
        let seq = self.seq;
        let small_before = self.small.len();
        put_envelope(&mut self.small, seq, frame.len());
        self.queue_len += self.small.len() - small_before + frame.len();
        self.put(frame.head);
        self.put(frame.body);
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.poll_drain(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if self.end == End::Open {
            ready!(self.poll_drain(cx))?;
            self.say_end()?;
            self.end = End::Said;
        }
        if self.end == End::Said {
            ready!(self.poll_sent(cx));
            self.end = End::Done;
        }
        Poll::Ready(Ok(()))
    }
}

impl Writer {
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

    /// Hands everything to HTTP/2, as its windows and its buffer allow.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.queue_small();
        let turn = ready!(tokio::task::coop::poll_proceed(cx));
        let mut state = self.call.lock();
        while let Some(front) = self.queue.front_mut() {
            let Some(outgoing) = &mut state.outgoing else { return Poll::Ready(Err(LinkError::Closed)) };
            let room = outgoing.capacity();
            if room == 0 {
                outgoing.reserve_capacity(self.queue_len);
                match outgoing.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => continue,
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(LinkError::Closed)),
                    Poll::Pending => {
                        state.wake_on_close(cx);
                        return Poll::Pending;
                    }
                }
            }
            let bytes = front.split_to(front.len().min(room));
            if front.is_empty() {
                self.queue.pop_front();
            }
            self.queue_len -= bytes.len();
            let piece = Piece::new(bytes, &self.under_way);
            outgoing.send_data(piece, false).map_err(ended)?;
        }
        if state.outgoing.is_none() {
            return Poll::Ready(Err(LinkError::Closed));
        }
        turn.made_progress();
        Poll::Ready(Ok(()))
    }

    fn say_end(&mut self) -> Result<(), LinkError> {
        let mut state = self.call.lock();
        let mut outgoing = state.outgoing.take().ok_or(LinkError::Closed)?;
        if state.answers {
            outgoing.send_trailers(trailers(Code::Ok, "")).map_err(ended)
        } else {
            outgoing.send_data(Piece::new(Bytes::new(), &self.under_way), true).map_err(ended)
        }
    }

    /// Ready when HTTP/2 has nothing of ours any more: a reset would discard what it has.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        *self.under_way.closing.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if self.under_way.pieces.load(Ordering::SeqCst) == 0 { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// HTTP/2 refuses to send only on a call that has ended.
fn ended(_: h2::Error) -> LinkError {
    LinkError::Closed
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.end == End::Open {
            self.call.lock().close();
        }
    }
}

/// Bytes on their way through HTTP/2, counted until it is done with them.
pub(crate) struct Piece {
    bytes: Bytes,
    under_way: Arc<UnderWay>,
}

#[derive(Default)]
struct UnderWay {
    pieces: AtomicUsize,
    closing: Mutex<Option<Waker>>,
}

impl Piece {
    fn new(bytes: Bytes, under_way: &Arc<UnderWay>) -> Self {
        under_way.pieces.fetch_add(1, Ordering::SeqCst);
        Self { bytes, under_way: Arc::clone(under_way) }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if self.under_way.pieces.fetch_sub(1, Ordering::SeqCst) == 1 {
            let closing = self.under_way.closing.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(waker) = closing {
                waker.wake();
            }
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{SinkExt, StreamExt};
    use http::Request;
    use locule_transport::Security;
    use tokio::io::duplex;

    /// A call over memory: the raw sending half of its dialer, and the listener's link.
    async fn call() -> (SendStream<Bytes>, ResponseFuture, Link) {
        let (near, far) = duplex(1 << 20);
        let (requests, connection) = h2::client::handshake(near).await.unwrap();
        tokio::spawn(connection);
        let (response, outgoing) =
            requests.ready().await.unwrap().send_request(Request::new(()), false).unwrap();
        let mut connection =
            h2::server::Builder::new().initial_window_size(1 << 20).handshake::<_, Piece>(far).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let answers = respond.send_response(Response::new(()), false).unwrap();
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        let peer = PeerInfo::new("memory", Security::Internal);
        (outgoing, response, link(answers, Incoming::Body(request.into_body()), peer, 1 << 20, ()))
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
