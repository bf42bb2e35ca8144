use std::fmt;
use std::sync::Arc;

use locule_journal::Spool;
use locule_message::{Fqcn, Headers, Payload, ReturnCode};

/// A message that goes as a stream of chunks.
#[derive(Clone, Debug)]
pub struct Blob {
    /// The conversation it belongs to.
    pub channel: String,
    /// What it is about, within the channel.
    pub topic: String,
    /// Application headers; every chunk carries them.
    pub headers: Headers,
    /// The body.
    pub payload: Payload,
    /// Ties a reply to its request: in a request it asks for one.
    pub request_id: Option<String>,
    /// Whether chunks are repeated until they are acknowledged.
    pub reliable: bool,
    /// Whether failure is nothing to make noise about.
    pub optional: bool,
    /// Whether each chunk is encrypted end to end.
    pub secure: bool,
}

/// A blob that has arrived whole.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Who sent it.
    pub origin: Fqcn,
    /// The sender's number for it.
    pub id: StreamId,
    /// The blob; its headers are those of the first chunk, with all that the wire added.
    pub blob: Blob,
    /// Where its body is, if not in the blob: in what [`Spools`] gave for it.
    pub elsewhere: Option<Arc<dyn Spool>>,
}

/// Where bodies of more than one chunk are put while they arrive; in memory, unless it says otherwise.
#[derive(Clone, Default)]
pub struct Spools(Option<Arc<Open>>);

type Open = dyn Fn(&str, &str, u64) -> Option<Box<dyn Spool>> + Send + Sync;

impl Spools {
    /// Asks `open` for a place, with a blob's channel, topic and announced length in bytes, 0 when that is unknown.
    /// It must not wait for anything but a disk; `None` leaves the body in memory.
    pub fn new(open: impl Fn(&str, &str, u64) -> Option<Box<dyn Spool>> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(open)))
    }

    pub(crate) fn open(&self, channel: &str, topic: &str, len: u64) -> Option<Box<dyn Spool>> {
        self.0.as_ref().and_then(|open| open(channel, topic, len))
    }
}

impl fmt::Debug for Spools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spools").finish_non_exhaustive()
    }
}

/// Names one stream among those of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a blob did not arrive, as far as its sender knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The receiver gave the stream up.
    #[error("receiver gave up: {}", excerpt(.reason))]
    Rejected {
        /// Its code, if it is one that says so.
        code: Option<ReturnCode>,
        /// What it said; a peer controls it.
        reason: String,
    },
    /// The blob is larger than the receiver takes.
    #[error("too big for the receiver: {}", excerpt(.reason))]
    TooBig {
        /// What it said; a peer controls it.
        reason: String,
    },
    /// A cell on the way could not pass it on.
    #[error("returned by {by}: {}", excerpt(.reason))]
    Returned {
        /// That cell.
        by: Fqcn,
        /// Its code, if it is one that says so.
        code: Option<ReturnCode>,
        /// What it said; a peer controls it.
        reason: String,
    },
    /// No link leads to the target.
    #[error("no path to the target")]
    Unreachable,
    /// The link that it left by is gone.
    #[error("link lost")]
    LinkLost,
    /// Nothing moved for too long.
    #[error("no progress")]
    Stalled,
}

/// A peer's text as it may stand in an error: short and escaped.
fn excerpt(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}
