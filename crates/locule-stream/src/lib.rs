//! Large messages as streams of chunks; a state machine without I/O.
//!
//! On most channels a message does not go as one frame but as a *blob stream*: chunks of a mebibyte with
//! a window, acknowledgements and, for replies, repetition. [`Streams`] cuts blobs and puts them together
//! again. It sends nothing itself, reads no clock and keeps no task: feed it messages and the time, and
//! take [`Output`]s, and chunks whenever a link has room. What a reply belongs to, and who handles what,
//! is for its owner to know; `locule-cell` is one.
//!
//! ```
//! use std::time::Instant;
//!
//! use locule_message::{Fqcn, Headers, Message, Payload, key};
//! use locule_stream::{Blob, Output, StreamConfig, Streams, Way, CHANNEL};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (now, site, server) = (Instant::now(), "site-1".parse::<Fqcn>()?, Fqcn::server());
//! let mut sender = Streams::new(StreamConfig::default(), 1);
//! let mut receiver = Streams::new(StreamConfig::default(), 1);
//!
//! let blob = Blob {
//!     channel: "aux_communication".into(),
//!     topic: "model".into(),
//!     headers: Headers::new(),
//!     payload: Payload::bytes(vec![7; 3 << 20].into()),
//!     request_id: None,
//!     reliable: false,
//!     optional: false,
//!     secure: false,
//! };
//! sender.send(now, server, blob).expect("room for one stream");
//! while let Some((_, chunk)) = sender.poll_chunk(now, |_, _| Way::Open { link: 1 }) {
//!     let mut message = Message::new(chunk.headers, chunk.payload);
//!     message.headers.set(key::CHANNEL, CHANNEL);
//!     message.headers.set(key::TOPIC, chunk.topic);
//!     receiver.handle(now, &site, message);
//! }
//! let arrived = std::iter::from_fn(|| receiver.poll_output()).find_map(|output| match output {
//!     Output::Arrived(arrival) => Some(arrival.blob.payload.body.len()),
//!     _ => None,
//! });
//! assert_eq!(arrived, Some(3 << 20));
//! # Ok(())
//! # }
//! ```
//!
//! Start with [`Streams`], [`Blob`] and [`Output`].
//!
//! # Source
//! nvflare 2.9.0, `nvflare.fuel.f3.streaming`; vectors in `tests/vectors/streaming.json`.

mod blob;
mod dialect;
mod incoming;
mod outgoing;
mod share;
mod streams;
mod wire;

pub use blob::{Arrival, Blob, Spools, StreamError, StreamId};
pub use streams::{Output, StreamConfig, StreamStats, Streams, Way};
pub use wire::{ACK, CHANNEL, DATA, ERROR, Notice, REPLIES, is_streamed};
