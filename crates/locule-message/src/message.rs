use bytes::Bytes;

use crate::{Body, Fqcn, HeaderValue, Headers, ReturnCode, key};

/// The unit that travels end to end: headers and an opaque body.
///
/// The accessors read the headers that all messages have; what is absent or has the wrong type reads
/// as `None`, or as the default that the wire gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Who, where to, what about.
    pub headers: Headers,
    /// The body as it travels; [`payload`](Self::payload) says how it is encoded.
    pub body: Body,
}

impl Message {
    /// A message with this payload; sets its encoding and length in the headers.
    #[must_use]
    pub fn new(headers: Headers, payload: Payload) -> Self {
        let mut message = Self { headers, body: Body::new() };
        message.set_payload(payload);
        message
    }

    /// Request, reply or return; `None` when the header is missing, which makes a message void.
    #[must_use]
    pub fn kind(&self) -> Option<MessageKind> {
        self.headers.str(key::MSG_TYPE).map(MessageKind::from_wire)
    }

    /// The cell that made the message; `None` when absent or no valid name.
    #[must_use]
    pub fn origin(&self) -> Option<Fqcn> {
        self.name(key::ORIGIN)
    }

    /// The cell that is to handle it; `None` when absent or no valid name.
    #[must_use]
    pub fn destination(&self) -> Option<Fqcn> {
        self.name(key::DESTINATION)
    }

    /// The cell that sent this hop.
    #[must_use]
    pub fn from(&self) -> Option<Fqcn> {
        self.name(key::FROM_CELL)
    }

    /// The cell that this hop was sent to.
    #[must_use]
    pub fn to(&self) -> Option<Fqcn> {
        self.name(key::TO_CELL)
    }

    /// The channel; empty when absent.
    #[must_use]
    pub fn channel(&self) -> &str {
        self.headers.str(key::CHANNEL).unwrap_or_default()
    }

    /// The topic; empty when absent.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.headers.str(key::TOPIC).unwrap_or_default()
    }

    /// The ids of the request, or of the requests that this replies to. A request without one gives
    /// none.
    #[must_use]
    pub fn req_ids(&self) -> Vec<String> {
        self.headers.strings(key::REQ_ID).unwrap_or_default()
    }

    /// Whether the requester waits for a reply.
    #[must_use]
    pub fn reply_expected(&self) -> bool {
        self.headers.bool(key::REPLY_EXPECTED).unwrap_or_default()
    }

    /// The outcome; `None` when absent. A code that the wire does not have reads as
    /// [`ReturnCode::ProcessException`]: whatever it means, it is not success.
    #[must_use]
    pub fn return_code(&self) -> Option<ReturnCode> {
        let code = self.headers.get(key::RETURN_CODE)?;
        let known = code.as_str().and_then(|text| ReturnCode::parse(text).ok());
        Some(known.unwrap_or(ReturnCode::ProcessException))
    }

    /// The text to a return code. A peer controls it: escape it before showing it.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.headers.str(key::ERROR).filter(|text| !text.is_empty())
    }

    /// Whether failure is nothing to make noise about.
    #[must_use]
    pub fn optional(&self) -> bool {
        self.headers.bool(key::OPTIONAL).unwrap_or_default()
    }

    /// Whether end-to-end encryption was asked for.
    #[must_use]
    pub fn secure(&self) -> bool {
        self.headers.bool(key::SECURE).unwrap_or_default()
    }

    /// Whether the body is an encryption envelope: encryption was asked for, and done.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.secure() && self.headers.bool(key::ENCRYPTED).unwrap_or_default()
    }

    /// The cells that the message passed, with the unix time in seconds that each noted. Malformed
    /// entries are left out.
    #[must_use]
    pub fn route(&self) -> Vec<(String, f64)> {
        let Some(HeaderValue::Array(hops)) = self.headers.get(key::ROUTE) else { return Vec::new() };
        let hop = |hop: HeaderValue<'_>| {
            let HeaderValue::Array(pair) = hop else { return None };
            let [name, time] = pair.as_slice() else { return None };
            Some((name.as_str()?.to_owned(), time.as_f64()?))
        };
        hops.into_iter().filter_map(hop).collect()
    }

    /// The body with its encoding. An unknown or absent encoding is [`Encoding::Bytes`], as at the
    /// peer.
    #[must_use]
    pub fn payload(&self) -> Payload {
        let encoding = self.headers.str(key::PAYLOAD_ENCODING).map_or(Encoding::Bytes, Encoding::from_wire);
        Payload { encoding, body: self.body.clone() }
    }

    /// Replaces the body, and its encoding and length in the headers.
    pub fn set_payload(&mut self, payload: Payload) {
        self.headers.set(key::PAYLOAD_ENCODING, payload.encoding.as_str());
        self.headers.set(key::PAYLOAD_LEN, payload.body.len() as u64);
        self.body = payload.body;
    }

    /// White space around a name is no part of it, and a name checked here must be the name that the
    /// next cell reads: only the exact form counts.
    fn name(&self, key: &str) -> Option<Fqcn> {
        let text = self.headers.str(key)?;
        Fqcn::parse(text).ok().filter(|name| name.as_str() == text)
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// Asks for something.
    Request,
    /// Answers a request. Any text that is none of the other two counts as a reply, as at the peer.
    Reply,
    /// Bounced: a cell on the way could not forward the request.
    Return,
}

impl MessageKind {
    /// The kind as it stands in `cn__msg_type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "req",
            Self::Reply => "reply",
            Self::Return => "return",
        }
    }

    fn from_wire(text: &str) -> Self {
        match text {
            "req" => Self::Request,
            "return" => Self::Return,
            _ => Self::Reply,
        }
    }
}

/// A body and how it is encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// How to read the bytes.
    pub encoding: Encoding,
    /// The encoded bytes; empty for [`Encoding::None`].
    pub body: Body,
}

impl Payload {
    /// No payload, Python's `None`.
    #[must_use]
    pub fn none() -> Self {
        Self { encoding: Encoding::None, body: Body::new() }
    }

    /// An object in the FOBS format.
    #[must_use]
    pub fn fobs(bytes: Bytes) -> Self {
        Self { encoding: Encoding::Fobs, body: bytes.into() }
    }

    /// Plain bytes.
    #[must_use]
    pub fn bytes(bytes: Bytes) -> Self {
        Self { encoding: Encoding::Bytes, body: bytes.into() }
    }
}

/// How a body is encoded.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.cellnet.defs` (`Encoding`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// The object format of `locule-fobs`.
    Fobs,
    /// Plain bytes.
    Bytes,
    /// No payload.
    None,
}

impl Encoding {
    /// The encoding as it stands in `cn__payload_encoding`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fobs => "fobs",
            Self::Bytes => "bytes",
            Self::None => "none",
        }
    }

    /// The encoding that a text of the wire stands for; what is unknown is plain bytes, as at the peer.
    #[must_use]
    pub fn from_wire(text: &str) -> Self {
        match text {
            "fobs" => Self::Fobs,
            "none" => Self::None,
            _ => Self::Bytes,
        }
    }
}
