use std::{fmt, str::FromStr};

use crate::excerpt::Excerpt;

/// Outcome of a request, as it stands in `cn__return_code`.
///
/// The set is closed: it is the wire's.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.cellnet.defs` (`ReturnCode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReturnCode {
    /// The request was handled.
    Ok,
    /// No reply in time; made locally by the requester.
    Timeout,
    /// The destination is no valid name.
    InvalidTarget,
    /// There is no path to the destination.
    TargetUnreachable,
    /// A link failed, or a forwarder has no path.
    CommError,
    /// The message is larger than the sender allows.
    MsgTooBig,
    /// A filter refused the message.
    FilterError,
    /// The handler does not accept this request.
    InvalidRequest,
    /// The handler failed, or there is none.
    ProcessException,
    /// The handler could not authenticate the requester.
    AuthenticationError,
    /// The service is not ready, or no longer there.
    ServiceUnavailable,
    /// The session is not known.
    InvalidSession,
    /// The run is being aborted.
    AbortRun,
    /// The message carried no valid token.
    Unauthenticated,
}

impl ReturnCode {
    /// Every code.
    pub const ALL: [Self; 14] = [
        Self::Ok,
        Self::Timeout,
        Self::InvalidTarget,
        Self::TargetUnreachable,
        Self::CommError,
        Self::MsgTooBig,
        Self::FilterError,
        Self::InvalidRequest,
        Self::ProcessException,
        Self::AuthenticationError,
        Self::ServiceUnavailable,
        Self::InvalidSession,
        Self::AbortRun,
        Self::Unauthenticated,
    ];

    /// The code as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Timeout => "timeout",
            Self::InvalidTarget => "invalid_target",
            Self::TargetUnreachable => "target_unreachable",
            Self::CommError => "comm_error",
            Self::MsgTooBig => "msg_too_big",
            Self::FilterError => "filter_error",
            Self::InvalidRequest => "invalid_request",
            Self::ProcessException => "process_exception",
            Self::AuthenticationError => "authentication_error",
            Self::ServiceUnavailable => "service_unavailable",
            Self::InvalidSession => "invalid_session",
            Self::AbortRun => "abort_run",
            Self::Unauthenticated => "unauthenticated",
        }
    }

    /// Reads a code from the wire.
    ///
    /// # Errors
    /// [`UnknownReturnCode`] when the text is none of the codes.
    pub fn parse(text: &str) -> Result<Self, UnknownReturnCode> {
        Self::ALL
            .into_iter()
            .find(|code| code.as_str() == text)
            .ok_or_else(|| UnknownReturnCode { code: Excerpt::new(text).into() })
    }

    /// Whether this is [`ReturnCode::Ok`].
    #[must_use]
    pub fn is_ok(self) -> bool {
        self == Self::Ok
    }
}

/// A return code that the wire does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown return code \"{code}\"")]
pub struct UnknownReturnCode {
    /// The text, shortened and escaped.
    pub code: String,
}

impl FromStr for ReturnCode {
    type Err = UnknownReturnCode;

    fn from_str(text: &str) -> Result<Self, UnknownReturnCode> {
        Self::parse(text)
    }
}

impl fmt::Display for ReturnCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
