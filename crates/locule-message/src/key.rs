//! The keys of message headers, as they stand on the wire.
//!
//! Application headers live in the same map, outside the `cn__` space.
//!
//! # Source
//! nvflare 2.9.0, `nvflare.fuel.f3.cellnet.defs` (`MessageHeaderKey`) and
//! `nvflare.apis.fl_constant` (`CellMessageAuthHeaderKey`).

/// `req`, `reply` or `return`; mandatory.
pub const MSG_TYPE: &str = "cn__msg_type";
/// Correlates a reply with its request: a text, or an array of texts when one reply answers several.
pub const REQ_ID: &str = "cn__req_id";
/// Bool: whether the requester waits. Absent means false.
pub const REPLY_EXPECTED: &str = "cn__reply_expected";
/// What the message is about, within its channel. Absent means empty.
pub const TOPIC: &str = "cn__topic";
/// The conversation the message belongs to. Absent means empty.
pub const CHANNEL: &str = "cn__channel";
/// Name of the cell that made the message; mandatory.
pub const ORIGIN: &str = "cn__origin";
/// Name of the cell that is to handle the message; mandatory.
pub const DESTINATION: &str = "cn__destination";
/// Name of the cell that sent this hop.
pub const FROM_CELL: &str = "cn__from";
/// Name of the cell that receives this hop.
pub const TO_CELL: &str = "cn__to";
/// URL of an ad-hoc listener that the sender offers.
pub const CONN_URL: &str = "cn__conn_url";
/// Outcome of a request; in replies and returns. See [`ReturnCode`](crate::ReturnCode).
pub const RETURN_CODE: &str = "cn__return_code";
/// Text to a return code; absent rather than empty.
pub const ERROR: &str = "cn__error";
/// How the body is encoded. See [`Encoding`](crate::Encoding).
pub const PAYLOAD_ENCODING: &str = "cn__payload_encoding";
/// Array of `[name, unix time in seconds]`, one entry appended by each forwarder.
pub const ROUTE: &str = "cn__route";
/// In a return: all headers of the request that could not be forwarded, as a map.
pub const ORIGINAL_HEADERS: &str = "cn__original_headers";
/// Unix time in seconds at which this hop was sent, as a float.
pub const SEND_TIME: &str = "cn__send_time";
/// In a return: `cant_forward` or `intercept`.
pub const RETURN_REASON: &str = "cn__return_reason";
/// Bool: whether the body is to be encrypted end to end.
pub const SECURE: &str = "cn__secure";
/// Length of the body in bytes as the sender of this hop sees it.
pub const PAYLOAD_LEN: &str = "cn__payload_len";
/// Length of the body in bytes before encryption; checked after decryption.
pub const CLEAR_PAYLOAD_LEN: &str = "cn__clear_payload_len";
/// Bool: whether the body is an encryption envelope.
pub const ENCRYPTED: &str = "cn__encrypted";
/// Bool: whether failure is nothing to make noise about.
pub const OPTIONAL: &str = "cn__optional";
/// Bool: whether the message must pass through the server.
pub const SERVER_TRANSIT_REQUIRED: &str = "cn__server_transit_required";
/// Identifier of the task that this and related messages serve.
pub const MSG_ROOT_ID: &str = "cn__msg_root_id";
/// How long, in seconds, what belongs to the root message may be downloaded.
pub const MSG_ROOT_TTL: &str = "cn__msg_root_ttl";
/// Bool: whether references in the body are passed on rather than resolved.
pub const PASS_THROUGH: &str = "cn__pass_through";

/// Name of the site that sends; stamped once it is registered.
pub const CLIENT_NAME: &str = "client_name";
/// The site's token; a secret.
pub const TOKEN: &str = "__token__";
/// The server's signature over the site's name and token; a secret.
pub const TOKEN_SIGNATURE: &str = "__token_signature__";
/// Identifier of the server's session.
pub const SSID: &str = "ssid";
