//! The seam that a carrier implements: endpoints, links, listeners.
//!
//! A cell exchanges *frames* with its neighbours and does not care what carries them. A carrier
//! (gRPC, memory, a socket, …) implements [`Transport`]: it dials and listens at [`Endpoint`]s and hands
//! out [`Link`]s. This crate opens no sockets, starts no tasks and never looks inside a frame; the
//! carriers are crates of their own, looked up by URL scheme in [`Transports`], so that one can be
//! added without changing anything here.
//!
//! A carrier that connects to an echo inside the process is this much:
//!
//! ```
//! use std::{collections::VecDeque, pin::Pin, sync::{Arc, Mutex}, task::{Context, Poll}};
//! use bytes::Bytes;
//! use futures_util::{Sink, SinkExt, Stream, StreamExt};
//! use locule_transport::*;
//!
//! #[derive(Debug)]
//! struct Echo;
//!
//! impl Transport for Echo {
//!     fn schemes(&self) -> &[&'static str] {
//!         &["echo"]
//!     }
//!     fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, Result<Link, DialError>> {
//!         Box::pin(async move {
//!             let loopback = Loop::default();
//!             let peer = PeerInfo::new(to.to_string(), Security::Internal);
//!             Ok(Link::new(Box::pin(loopback.clone()), Box::pin(loopback), peer, 1 << 20))
//!         })
//!     }
//!     fn listen<'a>(&'a self, on: &'a Endpoint) -> BoxFuture<'a, Result<Box<dyn Listener>, ListenError>> {
//!         Box::pin(async move { Err(ListenError::invalid(on, "an echo can only be dialled")) })
//!     }
//! }
//!
//! /// Both halves of the link are one queue. (A real carrier waits; this one ends when it is empty.)
//! #[derive(Clone, Default)]
//! struct Loop(Arc<Mutex<VecDeque<Bytes>>>);
//!
//! impl Sink<OutFrame> for Loop {
//!     type Error = LinkError;
//!     fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
//!         Poll::Ready(Ok(()))
//!     }
//!     fn start_send(self: Pin<&mut Self>, frame: OutFrame) -> Result<(), LinkError> {
//!         frame.check_len(1 << 20)?;
//!         self.0.lock().unwrap().push_back(frame.into_bytes());
//!         Ok(())
//!     }
//!     fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
//!         Poll::Ready(Ok(()))
//!     }
//!     fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
//!         Poll::Ready(Ok(()))
//!     }
//! }
//!
//! impl Stream for Loop {
//!     type Item = Result<Bytes, LinkError>;
//!     fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
//!         Poll::Ready(self.0.lock().unwrap().pop_front().map(Ok))
//!     }
//! }
//!
//! # futures_util::FutureExt::now_or_never(async {
//! let transports = Transports::new().with(Echo);
//! let mut link = transports.dial(&Endpoint::parse("echo://anyone")?).await?;
//! link.outgoing.send(OutFrame::from(Bytes::from_static(b"hello"))).await?;
//! assert_eq!(link.incoming.next().await.unwrap()?, "hello");
//!
//! // A scheme that nobody carries is refused with the list of those that are.
//! let unknown = transports.dial(&Endpoint::parse("pigeon://roof")?).await.unwrap_err();
//! assert_eq!(unknown.to_string(), "no transport for scheme \"pigeon\"; compiled in: echo");
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap().unwrap();
//! ```
//!
//! A carrier is done when it passes the suite in `tests/conformance`. Start reading at [`Transport`],
//! [`Link`] and [`Endpoint`].

mod endpoint;
mod error;
mod link;
mod registry;

pub use endpoint::{Endpoint, EndpointError};
pub use error::{AcceptError, DialError, LinkError, ListenError};
pub use futures_core::future::BoxFuture;
pub use link::{FrameSink, FrameStream, Link, OutFrame, PeerInfo, ReceiveLimit, Security};
pub use registry::{Transports, UnknownScheme};

use std::fmt;

/// A carrier of frames: dials and listens at endpoints of its schemes.
pub trait Transport: fmt::Debug + Send + Sync {
    /// URL schemes this carrier answers to, in lower case.
    fn schemes(&self) -> &[&'static str];

    /// Opens a link to a listener.
    ///
    /// Returns as soon as frames can be sent; it does not wait for the peer to send anything, since
    /// some peers stay silent until they are spoken to. Dropping the future gives up the attempt.
    ///
    /// # Errors
    /// [`DialError::is_retryable`] says whether the same call may succeed later.
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, Result<Link, DialError>>;

    /// Binds an endpoint. Port 0 takes any free port; [`Listener::local`] says which.
    ///
    /// # Errors
    /// [`ListenError`] names the endpoint and what to do about it.
    fn listen<'a>(&'a self, on: &'a Endpoint) -> BoxFuture<'a, Result<Box<dyn Listener>, ListenError>>;
}

/// A bound endpoint that hands out the links which peers open.
///
/// Dropping it frees the endpoint; links already accepted live on.
pub trait Listener: fmt::Debug + Send {
    /// The endpoint that is bound, with the real port.
    fn local(&self) -> Endpoint;

    /// Waits for the next link.
    ///
    /// A peer that fails its handshake is no error here: it is left to the carrier, and nobody else
    /// waits for it. Cancel-safe: dropping the future loses no link.
    ///
    /// # Errors
    /// [`AcceptError::is_retryable`] says whether it makes sense to call again.
    fn accept<'a>(&'a mut self) -> BoxFuture<'a, Result<Link, AcceptError>>;
}
