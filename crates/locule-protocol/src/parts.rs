use locule_fobs::{EncodeOptions, Map, PeerContext, Shareable, Value};
use locule_message::{Encoding, Headers, Payload};

/// Headers and payload of a message, without those that a cell adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// The headers that belong to the request or reply.
    pub headers: Headers,
    /// The payload.
    pub payload: Payload,
}

impl Parts {
    pub(crate) fn new(headers: Headers, payload: impl Into<Value>) -> Result<Self, EncodeError> {
        let value = payload.into();
        let pieces = locule_fobs::encode_parts(&value, &EncodeOptions::default())?.into_pieces();
        Ok(Self {
            headers,
            payload: Payload { encoding: Encoding::Fobs, body: pieces.into_iter().collect() },
        })
    }

    pub(crate) fn only_headers(headers: Headers) -> Self {
        Self { headers, payload: Payload::none() }
    }
}

/// Why a request or reply cannot be put on the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The payload holds what the object format cannot carry.
    #[error("payload cannot be encoded")]
    Payload(#[from] locule_fobs::EncodeError),
}

/// Why a message is not the request or reply that its topic says. The sender is at fault: answer a
/// request with `invalid_request`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The payload is no value of the object format.
    #[error("payload cannot be decoded")]
    Payload(#[from] locule_fobs::DecodeError),
    /// The payload is a value of another kind.
    #[error("payload must be a {expected}, not a {found}")]
    Kind {
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A header or field that must be there is not, or has the wrong type.
    #[error("{0} is missing or has the wrong type")]
    Field(&'static str),
    /// A field has a value that it may not have.
    #[error("{field} may not be \"{value}\"")]
    Value {
        /// Which field.
        field: &'static str,
        /// Its value, shortened and escaped.
        value: String,
    },
    /// The peer speaks another protocol than this.
    #[error("version {protocol} of the protocol is not spoken here: peer is nvflare {software}")]
    Protocol {
        /// Its version of the protocol.
        protocol: u64,
        /// Its version of nvflare, shortened and escaped.
        software: String,
    },
}

impl DecodeError {
    pub(crate) fn value(field: &'static str, value: &str) -> Self {
        Self::Value { field, value: shown(value) }
    }
}

/// A peer's text, shortened and escaped.
pub(crate) fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let mut shown: String = chars.by_ref().take(64).flat_map(char::escape_debug).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// The payload as a value; plain bytes are bytes, none is none.
pub(crate) fn value(payload: &Payload) -> Result<Value, DecodeError> {
    Ok(match payload.encoding {
        Encoding::Fobs => locule_fobs::decode(payload.body.whole())?,
        Encoding::Bytes => Value::Bytes(payload.body.whole()),
        Encoding::None => Value::None,
    })
}

pub(crate) fn shareable(payload: &Payload) -> Result<Shareable, DecodeError> {
    let value = value(payload)?;
    let found = value.kind();
    if let Value::Shareable(shareable) = value {
        return Ok(shareable);
    }
    Err(DecodeError::Kind { expected: "shareable", found })
}

/// The peer context in a payload; an empty one where there is no payload or no context in it.
pub(crate) fn peer(payload: &Payload) -> Result<PeerContext, DecodeError> {
    if payload.encoding == Encoding::None {
        return Ok(PeerContext::new());
    }
    shareable(payload).map(|mut shareable| take_peer(&mut shareable))
}

/// Takes the peer context out of a shareable; an empty one where there is none.
pub(crate) fn take_peer(shareable: &mut Shareable) -> PeerContext {
    match shareable.headers.remove(locule_fobs::header::PEER_CONTEXT) {
        Some(Value::Context(context)) => context,
        Some(_) | None => PeerContext::new(),
    }
}

pub(crate) fn header(headers: &Headers, key: &'static str) -> Result<String, DecodeError> {
    headers.str(key).map(str::to_owned).ok_or(DecodeError::Field(key))
}

/// A list of texts; absent is empty.
pub(crate) fn header_list(headers: &Headers, key: &'static str) -> Result<Vec<String>, DecodeError> {
    if !headers.contains(key) {
        return Ok(Vec::new());
    }
    headers.strings(key).ok_or(DecodeError::Field(key))
}

pub(crate) fn text(map: &Map, key: &'static str) -> Result<String, DecodeError> {
    map.str(key).map(str::to_owned).ok_or(DecodeError::Field(key))
}

pub(crate) fn bytes(map: &Map, key: &'static str) -> Result<bytes::Bytes, DecodeError> {
    map.bytes(key).cloned().ok_or(DecodeError::Field(key))
}
