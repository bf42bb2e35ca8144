//! How a call ends: gRPC statuses, HTTP/2 errors, and the [`LinkError`]s they mean.

use h2::Reason;
use http::{HeaderMap, HeaderValue};
use locule_transport::LinkError;

use crate::wire::protocol;

/// The gRPC codes that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Ok = 0,
    Cancelled = 1,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Unavailable = 14,
}

/// The headers that end a call.
pub(crate) fn trailers(code: Code, message: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from(code as u16));
    if !message.is_empty() {
        trailers.insert("grpc-message", HeaderValue::from_static(message));
    }
    trailers
}

/// What trailers (or headers that are trailers too) say: an end, or why not.
pub(crate) fn outcome(trailers: &HeaderMap) -> Result<(), LinkError> {
    let status = trailers.get("grpc-status").map(HeaderValue::as_bytes);
    match status {
        Some(b"0") => Ok(()),
        Some(b"1") => Err(LinkError::Closed),
        Some(code) => Err(LinkError::Refused {
            reason: format!(
                "grpc status {} {}",
                escaped(code),
                escaped(trailers.get("grpc-message").map_or(&b""[..], HeaderValue::as_bytes)),
            ),
        }),
        None => Err(protocol("the call ended without a grpc-status")),
    }
}

/// What receiving over HTTP/2 failed with.
pub(crate) fn link_error(error: h2::Error) -> LinkError {
    match error.reason() {
        Some(Reason::CANCEL | Reason::NO_ERROR) => LinkError::Closed,
        _ => LinkError::Broken { source: error.into() },
    }
}

/// What a peer said, fit to be shown.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(200)].escape_ascii().to_string()
}
