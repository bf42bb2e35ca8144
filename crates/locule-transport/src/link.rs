//! What a carrier hands out: an ordered duplex of frames, and who is at its other end.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_sink::Sink;

use crate::LinkError;

/// The sending half of a [`Link`].
pub type FrameSink = Pin<Box<dyn Sink<OutFrame, Error = LinkError> + Send>>;

/// The receiving half of a [`Link`].
pub type FrameStream = Pin<Box<dyn Stream<Item = Result<Bytes, LinkError>> + Send>>;

/// An ordered, reliable, frame-preserving duplex between two neighbours.
///
/// * Frames arrive whole and in order, and an empty frame is a frame; but a carrier of a bare byte stream
///   may ask that each begins with its own length ([`LinkError::LengthMismatch`]).
/// * The queue towards the peer is bounded: when the peer does not read, sending waits.
/// * Closing `outgoing` ends the peer's `incoming` after all that was sent before it (`None`); the
///   other direction lives on.
/// * Dropping either half, unless it has come to its end, closes the link. What was flushed before is
///   still delivered where the carrier can; to be sure, close first and drop when the peer has closed.
/// * After an error, `incoming` ends. After an error other than [`LinkError::FrameTooLarge`], so does
///   `outgoing`.
pub struct Link {
    /// Frames to the peer.
    pub outgoing: FrameSink,
    /// Frames from the peer.
    pub incoming: FrameStream,
    /// Who is at the other end, as far as the carrier knows.
    pub peer: PeerInfo,
    /// Largest frame that may be sent, in bytes; more is [`LinkError::FrameTooLarge`], never a truncation.
    pub max_frame_len: usize,
    /// Largest frame that is received, in bytes; adjustable while the link is in use.
    pub receive_limit: ReceiveLimit,
}

impl Link {
    /// A link whose receive limit nobody enforces below the carrier's own `max_frame_len`.
    ///
    /// A carrier that enforces one puts the [`ReceiveLimit`] that it watches into the field.
    pub fn new(outgoing: FrameSink, incoming: FrameStream, peer: PeerInfo, max_frame_len: usize) -> Self {
        Self { outgoing, incoming, peer, max_frame_len, receive_limit: ReceiveLimit::new(max_frame_len) }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("peer", &self.peer)
            .field("max_frame_len", &self.max_frame_len)
            .field("receive_limit", &self.receive_limit)
            .finish_non_exhaustive()
    }
}

/// A frame to send, in two parts that travel as one.
///
/// A forwarder puts its own prefix and headers into `head` and leaves the received payload untouched
/// in `body`, so that nothing is copied to join them.
#[derive(Clone, PartialEq, Eq)]
pub struct OutFrame {
    /// First part; may be empty.
    pub head: Bytes,
    /// Second part; may be empty.
    pub body: Bytes,
}

impl OutFrame {
    /// A frame of two parts.
    pub fn new(head: impl Into<Bytes>, body: impl Into<Bytes>) -> Self {
        Self { head: head.into(), body: body.into() }
    }

    /// Length of the whole frame, in bytes.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Whether the whole frame has no bytes.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.body.is_empty()
    }

    /// Refuses a frame above `max` bytes.
    ///
    /// # Errors
    /// [`LinkError::FrameTooLarge`].
    pub fn check_len(&self, max: usize) -> Result<(), LinkError> {
        let len = self.len();
        if len > max { Err(LinkError::FrameTooLarge { len, max }) } else { Ok(()) }
    }

    /// The frame in one piece; copies only when both parts have bytes.
    pub fn into_bytes(self) -> Bytes {
        if self.body.is_empty() {
            return self.head;
        }
        if self.head.is_empty() {
            return self.body;
        }
        let mut whole = BytesMut::with_capacity(self.len());
        whole.extend_from_slice(&self.head);
        whole.extend_from_slice(&self.body);
        whole.freeze()
    }
}

impl From<Bytes> for OutFrame {
    fn from(whole: Bytes) -> Self {
        Self { head: whole, body: Bytes::new() }
    }
}

impl fmt::Debug for OutFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutFrame").field("head", &self.head.len()).field("body", &self.body.len()).finish()
    }
}

/// Largest frame that a link receives, in bytes; clones share the value.
///
/// A peer that has not proved itself yet should not make us hold a large frame: lower the limit when
/// the link comes up and raise it when the peer is known. A frame above it ends the link with
/// [`LinkError::FrameTooLarge`], before it is held in memory.
#[derive(Clone, Debug)]
pub struct ReceiveLimit {
    ceiling: usize,
    current: Arc<AtomicUsize>,
}

impl ReceiveLimit {
    /// A limit that starts at `ceiling` bytes and never exceeds it.
    pub fn new(ceiling: usize) -> Self {
        Self { ceiling, current: Arc::new(AtomicUsize::new(ceiling)) }
    }

    /// The limit in force, in bytes.
    pub fn get(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Changes the limit, in bytes; more than the carrier's own maximum means that maximum.
    ///
    /// Applies from the next frame whose length the carrier learns.
    pub fn set(&self, bytes: usize) {
        self.current.store(bytes.min(self.ceiling), Ordering::Relaxed);
    }
}

/// Who is at the other end of a link, as far as the carrier knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Where the peer is, for a person to read: `203.0.113.7:51234`, `mem://hospital`.
    pub address: String,
    /// Certificate chain that the carrier verified, DER, leaf first; empty when there is none.
    pub certificates: Vec<Bytes>,
    /// Common name of the leaf's subject.
    pub common_name: Option<String>,
    /// How well the link is protected.
    pub security: Security,
}

impl PeerInfo {
    /// A peer without certificates.
    pub fn new(address: impl Into<String>, security: Security) -> Self {
        Self { address: address.into(), certificates: Vec::new(), common_name: None, security }
    }
}

/// How well a carrier protects a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// Encrypted, and both ends showed a certificate.
    Mutual,
    /// Encrypted, and only the listener showed a certificate.
    ServerOnly,
    /// Neither encrypted nor authenticated.
    Clear,
    /// Never leaves this process or host.
    Internal,
}
