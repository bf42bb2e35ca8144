//! The two halves of a link, and what they share.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use futures_sink::Sink;
use locule_transport::{Link, LinkError, OutFrame, PeerInfo, ReceiveLimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::wire::{Framing, Wire};

/// What a writer takes before it waits for the stream, in bytes, beside one frame.
const QUEUE_LEN: usize = 64 << 10;

/// The link that a byte stream is: it sends frames of up to `max_frame_len` bytes and receives what
/// `receive_limit` allows.
///
/// A frame within 16 KiB of stream is copied once when it arrives; a longer one is read into a buffer of
/// its own, which grows with the bytes that arrived. Inside a frame the peer must send 1 KiB/s. When the
/// link is dropped before its end, what was sent has five seconds to leave.
pub fn link<I, F>(
    io: I,
    framing: F,
    peer: PeerInfo,
    max_frame_len: usize,
    receive_limit: ReceiveLimit,
) -> Link
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Framing,
{
    let closed = CancellationToken::new();
    let shared = Arc::new(Shared { wire: Mutex::new(Some(Wire::new(io, framing))), closed: closed.clone() });
    let reader = Reader {
        shared: Arc::clone(&shared),
        closed: Box::pin(closed.clone().cancelled_owned()),
        limit: receive_limit.clone(),
        is_done: false,
    };
    let writer =
        Writer { shared, closed: Box::pin(closed.cancelled_owned()), max_frame_len, has_ended: false };
    Link { outgoing: Box::pin(writer), incoming: Box::pin(reader), peer, max_frame_len, receive_limit }
}

/// The stream, until either half gives it up.
struct Shared<I, F>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Framing,
{
    wire: Mutex<Option<Wire<I, F>>>,
    closed: CancellationToken,
}

impl<I, F> Shared<I, F>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Framing,
{
    fn wire(&self) -> MutexGuard<'_, Option<Wire<I, F>>> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is left of a link that failed is of no use.
    fn fail(&self) {
        drop(self.wire().take());
        self.closed.cancel();
    }

    /// The owner has no more use for the link; the peer is to have what was sent.
    fn leave(&self) {
        let wire = self.wire().take();
        self.closed.cancel();
        if let (Some(wire), Ok(runtime)) = (wire.filter(|wire| !wire.is_over()), Handle::try_current()) {
            runtime.spawn(wire.linger());
        }
    }
}

impl<I, F> Drop for Shared<I, F>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Framing,
{
    fn drop(&mut self) {
        self.leave();
    }
}

struct Reader<I, F>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Framing,
{
    shared: Arc<Shared<I, F>>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    limit: ReceiveLimit,
    is_done: bool,
}

impl<I, F> Stream for Reader<I, F>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Framing,
{
    type Item = Result<Bytes, LinkError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        let polled = match self.shared.wire().as_mut() {
            Some(wire) => wire.poll_frame(cx, &self.limit),
            None => Poll::Ready(Some(Err(LinkError::Closed))),
        };
        let outcome = match polled {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => {
                ready!(self.closed.as_mut().poll(cx));
                Some(Err(LinkError::Closed))
            }
        };
        self.is_done = !matches!(outcome, Some(Ok(_)));
        if matches!(outcome, Some(Err(_))) {
            self.shared.fail();
        }
        Poll::Ready(outcome)
    }
}

impl<I, F> Drop for Reader<I, F>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Framing,
{
    fn drop(&mut self) {
        if !self.is_done {
            self.shared.leave();
        }
    }
}

struct Writer<I, F>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Framing,
{
    shared: Arc<Shared<I, F>>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    max_frame_len: usize,
    has_ended: bool,
}

impl<I, F> Sink<OutFrame> for Writer<I, F>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Framing,
{
    type Error = LinkError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.poll(cx, |wire, cx| {
            if wire.is_ending() {
                return Poll::Ready(Err(LinkError::Closed));
            }
            if wire.queued() >= QUEUE_LEN { wire.poll_drain(cx) } else { Poll::Ready(Ok(())) }
        })
    }

    fn start_send(self: Pin<&mut Self>, frame: OutFrame) -> Result<(), LinkError> {
        frame.check_len(self.max_frame_len)?;
        match self.shared.wire().as_mut() {
            Some(wire) if !wire.is_ending() => wire.put(frame),
            Some(_) | None => Err(LinkError::Closed),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.poll(cx, Wire::poll_drain)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if !self.has_ended {
            ready!(self.poll(cx, Wire::poll_end))?;
            self.has_ended = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl<I, F> Writer<I, F>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Framing,
{
    /// Does what has to wait for the stream, or for the link's end.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        act: impl FnOnce(&mut Wire<I, F>, &mut Context<'_>) -> Poll<Result<(), LinkError>>,
    ) -> Poll<Result<(), LinkError>> {
        let polled = match self.shared.wire().as_mut() {
            Some(wire) => {
                let polled = act(wire, cx);
                wire.writer_waits = polled.is_pending();
                polled
            }
            None => Poll::Ready(Err(LinkError::Closed)),
        };
        match polled {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => {
                if !self.has_ended {
                    self.shared.fail();
                }
                Poll::Ready(Err(error))
            }
            Poll::Pending => self.closed.as_mut().poll(cx).map(|()| Err(LinkError::Closed)),
        }
    }
}

impl<I, F> Drop for Writer<I, F>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Framing,
{
    fn drop(&mut self) {
        if !self.has_ended {
            self.shared.leave();
        }
    }
}
