use std::fmt;
use std::time::Duration;

use locule_message::{Fqcn, HeaderValue, Headers, Message, Payload, ReturnCode};
use rand_core::RngCore;
use uuid::Uuid;

/// What a cell asks of others: everything but the names and ids, which the switch adds.
#[derive(Clone, Debug)]
pub struct Request {
    /// The conversation it belongs to.
    pub channel: String,
    /// What it is about, within the channel.
    pub topic: String,
    /// Application headers.
    pub headers: Headers,
    /// The body.
    pub payload: Payload,
    /// How long to wait for the reply, from the moment the request is handed over.
    pub timeout: Duration,
    /// Whether failure is nothing to make noise about.
    pub optional: bool,
    /// Whether it and its reply are to be encrypted end to end. The switch only says so in the headers:
    /// sealing is done by whoever drives it.
    pub secure: bool,
}

impl Request {
    /// How long a request waits for its reply unless told otherwise.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

    /// How long a request may wait at most; longer timeouts are cut to it.
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 3600);

    /// A request with no application headers and the default timeout.
    #[must_use]
    pub fn new(channel: impl Into<String>, topic: impl Into<String>, payload: Payload) -> Self {
        Self {
            channel: channel.into(),
            topic: topic.into(),
            headers: Headers::new(),
            payload,
            timeout: Self::DEFAULT_TIMEOUT,
            optional: false,
            secure: false,
        }
    }

    /// Adds an application header.
    #[must_use]
    pub fn header<'v>(mut self, key: &str, value: impl Into<HeaderValue<'v>>) -> Self {
        self.headers.set(key, value);
        self
    }

    /// Waits this long for the reply.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Marks the request as one whose failure is nothing to make noise about.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Asks for encryption end to end: no cell but the target reads the request, none but this one the
    /// reply. Headers stay readable.
    #[must_use]
    pub fn secure(mut self) -> Self {
        self.secure = true;
        self
    }
}

/// What came of a request at its target.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The outcome as the target sees it; not every reply is a success.
    pub code: ReturnCode,
    /// Text to the code. A peer controls it: escape it before showing it.
    pub error: Option<String>,
    /// Application headers, and in a received reply those of the wire too.
    pub headers: Headers,
    /// The body.
    pub payload: Payload,
}

impl Reply {
    /// A success.
    #[must_use]
    pub fn ok(payload: Payload) -> Self {
        Self { code: ReturnCode::Ok, error: None, headers: Headers::new(), payload }
    }

    /// A failure with a reason, without a body.
    #[must_use]
    pub fn error(code: ReturnCode, reason: impl Into<String>) -> Self {
        Self { code, error: Some(reason.into()), headers: Headers::new(), payload: Payload::none() }
    }

    /// Adds an application header.
    #[must_use]
    pub fn header<'v>(mut self, key: &str, value: impl Into<HeaderValue<'v>>) -> Self {
        self.headers.set(key, value);
        self
    }

    /// The reply, if its code says success.
    ///
    /// # Errors
    /// Any other code, as the [`RequestError`] that stands for it.
    pub fn into_ok(self) -> Result<Self, RequestError> {
        match self.code {
            ReturnCode::Ok => Ok(self),
            ReturnCode::Timeout
            | ReturnCode::InvalidTarget
            | ReturnCode::TargetUnreachable
            | ReturnCode::CommError
            | ReturnCode::MsgTooBig
            | ReturnCode::FilterError
            | ReturnCode::InvalidRequest
            | ReturnCode::ProcessException
            | ReturnCode::AuthenticationError
            | ReturnCode::ServiceUnavailable
            | ReturnCode::InvalidSession
            | ReturnCode::AbortRun
            | ReturnCode::Unauthenticated => {
                Err(RequestError::Refused { code: self.code, reason: self.error.unwrap_or_default() })
            }
        }
    }

    /// Reads the reply out of a received message. Without a code it counts as a success, as at the peer.
    pub(crate) fn from_message(message: Message) -> Self {
        Self {
            code: message.return_code().unwrap_or(ReturnCode::Ok),
            error: message.error().map(str::to_owned),
            payload: message.payload(),
            headers: message.headers,
        }
    }
}

/// Why a request has no reply, or could not be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No reply in time. The target may or may not have handled the request.
    #[error("no reply in time")]
    Timeout,
    /// No link leads to the target.
    #[error("no path to the target")]
    Unreachable,
    /// The target is no valid name, or not one that may be asked.
    #[error("invalid target")]
    InvalidTarget,
    /// The message is larger than this cell or the next link allows.
    #[error("message is too big")]
    TooBig,
    /// Somebody said no: a filter here, or the target in its reply.
    #[error("refused ({code}): {}", excerpt(.reason))]
    Refused {
        /// The code given.
        code: ReturnCode,
        /// The reason given. A peer may control it.
        reason: String,
    },
    /// A cell on the way could not pass the request on.
    #[error("returned by {by} ({code}): {}", excerpt(.reason))]
    Returned {
        /// The cell that sent it back.
        by: Fqcn,
        /// The code given.
        code: ReturnCode,
        /// The reason given. A peer controls it.
        reason: String,
    },
    /// It was to be encrypted end to end, and was not, or its reply was not. Nothing left in clear.
    #[error("not encrypted end to end: {}", excerpt(.reason))]
    Insecure {
        /// Why. A peer may control it.
        reason: String,
    },
    /// The link that the request left by is gone. The target may or may not have handled it.
    #[error("link lost")]
    LinkLost,
    /// The queue of the next link is full.
    #[error("link is congested")]
    Congested,
    /// More requests wait for replies than this cell allows.
    #[error("too many requests are waiting")]
    Overloaded,
    /// This cell is shutting down, or the request was given up.
    #[error("cell is closed")]
    Closed,
}

impl RequestError {
    /// The code that the wire has for this error.
    #[must_use]
    pub fn code(&self) -> ReturnCode {
        match self {
            Self::Timeout => ReturnCode::Timeout,
            Self::Unreachable => ReturnCode::TargetUnreachable,
            Self::InvalidTarget => ReturnCode::InvalidTarget,
            Self::TooBig => ReturnCode::MsgTooBig,
            Self::Refused { code, .. } | Self::Returned { code, .. } => *code,
            Self::LinkLost | Self::Congested | Self::Insecure { .. } => ReturnCode::CommError,
            Self::Overloaded | Self::Closed => ReturnCode::ServiceUnavailable,
        }
    }

    /// Whether the same request may succeed later without anybody changing anything.
    ///
    /// After [`Timeout`](Self::Timeout) and [`LinkLost`](Self::LinkLost) the target may have handled
    /// the request already: send again only what may be handled twice.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Timeout | Self::Unreachable | Self::LinkLost | Self::Congested | Self::Overloaded => true,
            Self::InvalidTarget | Self::TooBig | Self::Closed | Self::Insecure { .. } => false,
            Self::Refused { code, .. } | Self::Returned { code, .. } => {
                matches!(
                    code,
                    ReturnCode::Timeout
                        | ReturnCode::TargetUnreachable
                        | ReturnCode::CommError
                        | ReturnCode::ServiceUnavailable
                )
            }
        }
    }
}

/// Names one request of this cell, to one target or several; the wire's `cn__req_id`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(Uuid);

impl RequestId {
    pub(crate) fn random(rng: &mut dyn RngCore) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// Only the form in which ids leave this cell counts; a UUID has others.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let id = Uuid::try_parse(text).ok()?;
        let mut canonical = Uuid::encode_buffer();
        (id.hyphenated().encode_lower(&mut canonical) == text).then_some(Self(id))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A peer's text as it may stand in an error: short and escaped.
fn excerpt(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}
