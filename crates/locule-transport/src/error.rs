//! What can go wrong, one enum per verb.

use std::error::Error;
use std::io;
use std::time::Duration;

use crate::{Endpoint, UnknownScheme};

/// Why a link could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Nothing carries this scheme.
    #[error(transparent)]
    UnknownScheme(#[from] UnknownScheme),
    /// The endpoint or the carrier's configuration does not allow to dial it.
    #[error("{endpoint} cannot be dialled: {reason}")]
    Invalid {
        /// Where to.
        endpoint: Endpoint,
        /// What is wrong with it.
        reason: String,
    },
    /// The host's name has no address, now.
    #[error("host of {endpoint} is not known")]
    UnknownHost {
        /// Where to.
        endpoint: Endpoint,
        /// The resolver's answer.
        source: io::Error,
    },
    /// The host answers, but nobody listens at that endpoint.
    #[error("nobody listens at {endpoint}")]
    Refused {
        /// Where to.
        endpoint: Endpoint,
    },
    /// The host did not answer or the connection broke while it was made.
    #[error("{endpoint} cannot be reached")]
    Unreachable {
        /// Where to.
        endpoint: Endpoint,
        /// The carrier's reason.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The peer took too long.
    #[error("{endpoint} did not answer within {} s", after.as_secs_f32())]
    TimedOut {
        /// Where to.
        endpoint: Endpoint,
        /// How long it had.
        after: Duration,
    },
    /// One end did not accept the certificate or the TLS parameters of the other.
    #[error("no trust between us and {endpoint}")]
    Untrusted {
        /// Where to.
        endpoint: Endpoint,
        /// What TLS said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Something answers that does not speak this carrier's protocol.
    #[error("{endpoint} does not speak the protocol of its scheme: {reason}")]
    NotOurProtocol {
        /// Where to.
        endpoint: Endpoint,
        /// What it said instead.
        reason: String,
    },
}

impl DialError {
    /// An endpoint that cannot be dialled, and why.
    pub fn invalid(endpoint: &Endpoint, reason: impl Into<String>) -> Self {
        Self::Invalid { endpoint: endpoint.clone(), reason: reason.into() }
    }

    /// Sorts an operating system's error.
    pub fn from_io(endpoint: &Endpoint, error: io::Error) -> Self {
        let endpoint = endpoint.clone();
        if error.kind() == io::ErrorKind::ConnectionRefused {
            Self::Refused { endpoint }
        } else {
            Self::Unreachable { endpoint, source: error.into() }
        }
    }

    /// Whether the same call may succeed later without anybody changing anything here.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::UnknownHost { .. }
            | Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. } => true,
            Self::UnknownScheme(_)
            | Self::Invalid { .. }
            | Self::Untrusted { .. }
            | Self::NotOurProtocol { .. } => false,
        }
    }
}

/// Why an endpoint could not be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Nothing carries this scheme.
    #[error(transparent)]
    UnknownScheme(#[from] UnknownScheme),
    /// The endpoint or the carrier's configuration does not allow to listen there.
    #[error("cannot listen at {endpoint}: {reason}")]
    Invalid {
        /// Where.
        endpoint: Endpoint,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody listens there already.
    #[error("{endpoint} is already in use; stop what listens there, or choose another address")]
    AddressInUse {
        /// Where.
        endpoint: Endpoint,
    },
    /// The host is not one of this machine's addresses.
    #[error("{endpoint} is not an address of this machine; use host 0 to listen on all interfaces")]
    NotLocal {
        /// Where.
        endpoint: Endpoint,
    },
    /// The operating system forbids it.
    #[error("no permission to listen at {endpoint}; ports below 1024 need a privilege, choose a higher one")]
    Forbidden {
        /// Where.
        endpoint: Endpoint,
    },
    /// Anything else that the operating system said.
    #[error("cannot listen at {endpoint}")]
    Io {
        /// Where.
        endpoint: Endpoint,
        /// What it said.
        source: io::Error,
    },
}

impl ListenError {
    /// An endpoint that cannot be bound, and why.
    pub fn invalid(endpoint: &Endpoint, reason: impl Into<String>) -> Self {
        Self::Invalid { endpoint: endpoint.clone(), reason: reason.into() }
    }

    /// Sorts an operating system's error.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other kinds need no remedy of their own")]
    pub fn from_io(endpoint: &Endpoint, error: io::Error) -> Self {
        let endpoint = endpoint.clone();
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::AddressInUse { endpoint },
            io::ErrorKind::AddrNotAvailable => Self::NotLocal { endpoint },
            io::ErrorKind::PermissionDenied => Self::Forbidden { endpoint },
            _ => Self::Io { endpoint, source: error },
        }
    }
}

/// Why a listener has no next link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The listener is closed for good.
    #[error("the listener is closed")]
    Closed,
    /// The operating system is short of something; waiting a little may help.
    #[error("no link can be accepted at the moment")]
    Exhausted {
        /// What it said.
        source: io::Error,
    },
}

impl AcceptError {
    /// Whether it makes sense to call `accept` again, after a pause.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Closed => false,
            Self::Exhausted { .. } => true,
        }
    }
}

/// Why a frame could not be sent or received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer closed the link, or the other half of our end was dropped.
    #[error("the link is closed")]
    Closed,
    /// The frame is larger than the link carries.
    ///
    /// When sending, nothing was sent and the link goes on. When receiving, the link is closed.
    #[error("a frame of {len} bytes exceeds the limit of {max} bytes")]
    FrameTooLarge {
        /// Length of the frame, in bytes.
        len: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// The frame does not begin with its own length, by which this carrier would find its end.
    ///
    /// When sending only: nothing was sent and the link goes on.
    #[error("a frame of {len} bytes does not begin with its length")]
    LengthMismatch {
        /// Length of the frame, in bytes.
        len: usize,
    },
    /// The peer ended the link with a reason of its own.
    #[error("the peer refused the link: {reason}")]
    Refused {
        /// What the peer said, truncated and escaped.
        reason: String,
    },
    /// The peer sent something that this carrier's protocol does not allow.
    #[error("the peer broke the protocol: {reason}")]
    Protocol {
        /// What is wrong with it.
        reason: String,
    },
    /// The peer began a frame and then sent too little of it.
    #[error("the peer sent {received} bytes of a frame in {} s", window.as_secs_f32())]
    TooSlow {
        /// What arrived in the window, in bytes.
        received: usize,
        /// How long was waited.
        window: Duration,
    },
    /// The connection below broke.
    #[error("the connection broke")]
    Broken {
        /// The carrier's reason.
        source: Box<dyn Error + Send + Sync>,
    },
}
