//! What travels end to end through a network of cells: names, headers, return codes, messages.
//!
//! A [`Message`] is a map of [`Headers`] and an opaque body. This crate reads and writes the headers
//! and knows their keys; it does not frame messages for a link (`locule-frame`), does not look into
//! bodies (`locule-fobs`) and does not decide where a message goes (`locule-switch`).
//!
//! Headers stay the bytes they were received as: a header that nobody sets is sent on unchanged,
//! whether or not this crate knows its key.
//!
//! ```
//! use locule_message::{Fqcn, Headers, Message, MessageKind, Payload, key};
//!
//! let mut headers = Headers::new();
//! headers.set(key::MSG_TYPE, "req");
//! headers.set(key::ORIGIN, "site-1");
//! headers.set(key::DESTINATION, "server");
//! let message = Message::new(headers, Payload::bytes(b"hello".as_slice().into()));
//!
//! let wire = message.headers.encode()?;
//! let received = Message { headers: Headers::decode(wire)?, body: message.body.clone() };
//! assert_eq!(received.kind(), Some(MessageKind::Request));
//! assert_eq!(received.destination(), Some(Fqcn::server()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start with [`Fqcn`], [`Headers`] and [`Message`].

mod body;
mod excerpt;
mod fqcn;
mod headers;
pub mod key;
mod message;
mod return_code;
mod value;

pub use body::Body;
pub use fqcn::{Fqcn, FqcnError};
pub use headers::{Headers, HeadersError, HeadersTooLarge};
pub use message::{Encoding, Message, MessageKind, Payload};
pub use return_code::{ReturnCode, UnknownReturnCode};
pub use value::{HeaderValue, ValueError};
