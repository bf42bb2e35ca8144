//! One question and its answer, typed at both ends.

use std::time::Duration;

use locule_cell::{Cell, Reply, Request, RequestError};
use locule_message::Fqcn;
use locule_protocol::Parts;

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
        self.cell.request(&self.with, request).await?.into_ok()
    }
}

/// A request to `channel` and `topic` with these parts.
pub(crate) fn request(channel: &str, topic: &str, parts: Parts, timeout: Duration) -> Request {
    let mut request = Request::new(channel, topic, parts.payload).timeout(timeout);
    request.headers = parts.headers;
    request
}
