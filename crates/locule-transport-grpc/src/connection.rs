//! A byte stream that breaks when it is given up, whatever its user waits for.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt, maybe_done};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// The bytes below HTTP/2, and what the calls on them are told about them.
pub(crate) struct Connection<I, T> {
    io: I,
    about: T,
    given_up: BoxFuture<'static, ()>,
}

impl<I, T> Connection<I, T> {
    /// As soon as `given_up` is done, what waits fails.
    pub(crate) fn new(io: I, about: T, given_up: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { io, about, given_up: maybe_done(given_up).boxed() }
    }

    fn or_given_up<R>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if outcome.is_pending() && self.given_up.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        outcome
    }
}

impl<I, T: Clone + Send + Sync + 'static> Connected for Connection<I, T> {
    type ConnectInfo = T;

    fn connect_info(&self) -> T {
        self.about.clone()
    }
}

impl<I: AsyncRead + Unpin, T: Unpin> AsyncRead for Connection<I, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_read(cx, buf);
        self.or_given_up(cx, outcome)
    }
}

impl<I: AsyncWrite + Unpin, T: Unpin> AsyncWrite for Connection<I, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, buf);
        self.or_given_up(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.or_given_up(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(cx);
        self.or_given_up(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_shutdown(cx);
        self.or_given_up(cx, outcome)
    }
}
