//! How streams look on the wire.

use locule_message::{Fqcn, Headers, Payload};

/// Channel of everything that belongs to a stream.
pub const CHANNEL: &str = "sm__STREAM";
/// Topic of chunks.
pub const DATA: &str = "sm__DATA";
/// Topic of acknowledgements.
pub const ACK: &str = "sm__ACK";
/// Topic of what went wrong.
pub const ERROR: &str = "sm__ERROR";
/// Channel that replies to streamed requests name as their own.
pub const REPLIES: &str = "return_only";

/// Channels whose messages go as one frame each, whatever their size.
const PLAIN: [&str; 8] = [
    "admin",
    "task",
    "server_parent_listener",
    "client_command",
    "client_sub_worker_command",
    "multi_process_executor",
    "simulator_runner",
    REPLIES,
];

/// Whether requests of `channel` go as streams. It depends on nothing else: both ends must agree, and
/// neither knows the other's sizes.
///
/// ```
/// assert!(locule_stream::is_streamed("aux_communication"));
/// assert!(!locule_stream::is_streamed("task"));
/// ```
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.cellnet.cell`.
#[must_use]
pub fn is_streamed(channel: &str) -> bool {
    !channel.is_empty() && channel != CHANNEL && !PLAIN.contains(&channel)
}

/// Headers of stream messages.
pub(crate) mod key {
    pub(crate) const ID: &str = "sm__id";
    pub(crate) const KIND: &str = "sm__dt";
    pub(crate) const CHANNEL: &str = "sm__ch";
    pub(crate) const TOPIC: &str = "sm__tp";
    pub(crate) const SIZE: &str = "sm__sz";
    pub(crate) const SEQUENCE: &str = "sm__sq";
    pub(crate) const OFFSET: &str = "sm__os";
    pub(crate) const REQUEST: &str = "sm__ri";
    pub(crate) const ENCODING: &str = "sm__pe";
    pub(crate) const RELIABLE: &str = "sm__rs";
    pub(crate) const OPTIONAL: &str = "sm__op";
    pub(crate) const CHUNK_SIZE: &str = "sm__cs";
    pub(crate) const WINDOW_SIZE: &str = "sm__ws";
    pub(crate) const ACK_INTERVAL: &str = "sm__ai";
    pub(crate) const RETRY_WAIT: &str = "sm__rw";
    pub(crate) const RETRY_TIMEOUT: &str = "sm__rt";
    pub(crate) const ERROR: &str = "sm__em";
    pub(crate) const ERROR_KIND: &str = "sm__et";
    pub(crate) const UNREACHED: &str = "sm__fd";
}

/// What a stream message is, by its header `sm__dt`.
pub(crate) mod kind {
    pub(crate) const CHUNK: u64 = 1;
    pub(crate) const FINAL: u64 = 2;
    pub(crate) const ACK: u64 = 3;
    pub(crate) const ERROR: u64 = 6;
}

/// Names of errors, in the header `sm__et`.
pub(crate) mod fault {
    pub(crate) const GENERAL: &str = "StreamError";
    pub(crate) const TOO_BIG: &str = "BlobSizeError";
    pub(crate) const UNREACHABLE: &str = "StreamTargetUnreachable";
}

/// A one-way message of a stream, to be sent on [`CHANNEL`].
#[derive(Clone, Debug)]
pub struct Notice {
    /// Who gets it.
    pub target: Fqcn,
    /// [`DATA`], [`ACK`] or [`ERROR`].
    pub topic: &'static str,
    /// Its headers.
    pub headers: Headers,
    /// A chunk, or nothing.
    pub payload: Payload,
    /// Whether its loss is nothing to make noise about.
    pub optional: bool,
    /// Whether the payload must be sealed for the target. Only chunks ever are.
    pub secure: bool,
}
