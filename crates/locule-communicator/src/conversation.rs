//! One question and its answer, typed at both ends.

use std::time::Duration;

use locule_cell::{Cell, Reply, Request, RequestError};
use locule_message::Fqcn;
use locule_protocol::{DecodeError, EncodeError, Parts};

use crate::redact::redacted;

/// A cell that talks to one other cell.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    pub(crate) cell: Cell,
    pub(crate) with: Fqcn,
}

impl Conversation {
    pub(crate) fn new(cell: Cell, with: Fqcn) -> Self {
        Self { cell, with }
    }

    /// Sends a request; an answer with another code than `ok` is an error.
    pub(crate) async fn send(&self, request: Request) -> Result<Reply, RequestError> {
        self.ask(request).await?.into_ok()
    }

    /// Sends a request; the answer may have any code.
    pub(crate) async fn ask(&self, request: Request) -> Result<Reply, RequestError> {
        self.cell.request(&self.with, request).await
    }
}

/// A request to `channel` and `topic` with these parts.
pub(crate) fn request(channel: &str, topic: &str, parts: Parts, timeout: Duration) -> Request {
    let mut request = Request::new(channel, topic, parts.payload).timeout(timeout);
    request.headers = parts.headers;
    request
}

/// Why the server did not hear, or did not accept, what the site had to say. The text is fit for a log:
/// what the server said is in it, without secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SayError {
    /// The server could not be asked, or refused.
    #[error("server did not accept: {}", redacted(.0))]
    Request(RequestError),
    /// The answer made no sense.
    #[error("server's answer is not understood")]
    Answer(#[from] DecodeError),
    /// What was to be said cannot be put on the wire.
    #[error("message cannot be encoded")]
    Encode(#[from] EncodeError),
}

// No `#[from]`: it would make a source, and who prints sources prints what was not redacted.
impl From<RequestError> for SayError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}
