//! What runs when a request arrives.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use locule_journal::{Spool, SpoolError};
use locule_message::{Encoding, Fqcn, Headers, Message, Payload, ReturnCode};
use locule_switch::{Delivery, LinkFacts, Reply};

/// Handles the requests and one-way messages of a channel and topic.
///
/// Any `Fn(Incoming)` that returns a future of `Result<Reply, HandlerError>` is one. Each message runs
/// as a task of its own, within the cell's limit; a panic ends that task only, and the requester gets
/// `process_exception`. The reply to a one-way message is discarded.
pub trait Handler: Send + Sync + 'static {
    /// Handles one message.
    ///
    /// # Errors
    /// The [`HandlerError`] becomes the reply.
    fn handle(&self, incoming: Incoming) -> BoxFuture<'static, Result<Reply, HandlerError>>;
}

impl<F, R> Handler for F
where
    F: Fn(Incoming) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Reply, HandlerError>> + Send + 'static,
{
    fn handle(&self, incoming: Incoming) -> BoxFuture<'static, Result<Reply, HandlerError>> {
        Box::pin(self(incoming))
    }
}

/// A message for a handler, which the gate has let through.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Incoming {
    /// The cell that made it.
    pub origin: Fqcn,
    /// The link that delivered it.
    pub link: Arc<LinkFacts>,
    /// Its channel.
    pub channel: String,
    /// Its topic.
    pub topic: String,
    /// All its headers.
    pub headers: Headers,
    /// How the body is encoded.
    pub encoding: Encoding,
    /// The body; empty if it is elsewhere.
    pub body: Bytes,
    /// The body, where this cell's [`Spools`](locule_stream::Spools) have it.
    pub elsewhere: Option<Arc<dyn Spool>>,
    /// Whether the origin waits for a reply.
    pub reply_expected: bool,
    /// Whether it came encrypted end to end, so that no cell but its origin knows the body; the reply will
    /// be too. The headers any cell on the way may have read, or changed.
    pub secure: bool,
}

impl Incoming {
    /// The body in memory, with its encoding.
    #[must_use]
    pub fn into_payload(self) -> Payload {
        Payload { encoding: self.encoding, body: self.body.into() }
    }

    /// The body in memory, with its encoding; shares the bytes.
    #[must_use]
    pub fn payload(&self) -> Payload {
        Payload { encoding: self.encoding, body: self.body.clone().into() }
    }

    /// The body with its encoding, wherever it is. It blocks if that is elsewhere.
    ///
    /// # Errors
    /// [`SpoolError`] if it cannot be read from there.
    pub fn read(&self) -> Result<Payload, SpoolError> {
        let body = match &self.elsewhere {
            Some(spool) => spool.read()?,
            None => self.body.clone(),
        };
        Ok(Payload { encoding: self.encoding, body: body.into() })
    }

    pub(crate) fn new(
        link: Arc<LinkFacts>,
        origin: Fqcn,
        channel: String,
        topic: String,
        message: Message,
        reply_expected: bool,
    ) -> Self {
        let Payload { encoding, body } = message.payload();
        let (secure, headers, body) = (message.secure(), message.headers, body.whole());
        let elsewhere = None;
        Self { origin, link, channel, topic, headers, encoding, body, elsewhere, reply_expected, secure }
    }

    pub(crate) fn from_delivery(delivery: Delivery) -> (Self, Option<locule_switch::ReplyTo>) {
        let Delivery { link, origin, message, reply_to } = delivery;
        let (channel, topic) = (message.channel().to_owned(), message.topic().to_owned());
        let incoming = Self::new(link, origin, channel, topic, message, reply_to.is_some());
        (incoming, reply_to)
    }
}

/// Why a handler has no result; becomes the reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {reason}")]
pub struct HandlerError {
    /// Code for the requester.
    pub code: ReturnCode,
    /// Reason for the requester; holds no secret.
    pub reason: String,
}

impl HandlerError {
    /// An error with `code`, for `reason`.
    pub fn new(code: ReturnCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// The request is not one that this handler accepts.
    pub fn invalid_request(reason: impl Into<String>) -> Self {
        Self::new(ReturnCode::InvalidRequest, reason)
    }

    /// The handler tried and failed.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self::new(ReturnCode::ProcessException, reason)
    }
}

impl From<HandlerError> for Reply {
    fn from(error: HandlerError) -> Self {
        Reply::error(error.code, error.reason)
    }
}

/// Who handles what. The most specific registration wins: channel and topic, then channel and `*`,
/// then `*` and `*`.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.cellnet.registry`.
#[derive(Default)]
pub(crate) struct Handlers {
    by_channel: RwLock<HashMap<String, ByTopic>>,
}

type ByTopic = HashMap<String, Arc<dyn Handler>>;

impl Handlers {
    pub(crate) fn insert(&self, channel: &str, topic: &str, handler: Arc<dyn Handler>) {
        let mut by_channel = self.by_channel.write().unwrap_or_else(PoisonError::into_inner);
        by_channel.entry(channel.to_owned()).or_default().insert(topic.to_owned(), handler);
    }

    pub(crate) fn find(&self, channel: &str, topic: &str) -> Option<Arc<dyn Handler>> {
        let by_channel = self.by_channel.read().unwrap_or_else(PoisonError::into_inner);
        [(channel, topic), (channel, "*"), ("*", "*")]
            .into_iter()
            .find_map(|(channel, topic)| by_channel.get(channel)?.get(topic))
            .cloned()
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers").finish_non_exhaustive()
    }
}
