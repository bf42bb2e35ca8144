//! The running cell on tokio: links, switch, streams and handlers.
//!
//! A [`Cell`] listens, dials, and exchanges requests and replies with other cells by name, directly or
//! through relays. It runs a `locule-switch` over `locule-transport` links: one task owns the switch and
//! the streams, one task per link shakes hands and moves frames, handlers run beside them. It knows no
//! carrier, no cryptography and no token: carriers come in as
//! [`Transports`](locule_transport::Transports), proof of identity as a gate, stamps and a link policy, and
//! encryption end to end as a [`Cipher`](locule_identity::Cipher).
//!
//! ```
//! use std::time::Duration;
//!
//! use locule_cell::{Cell, CellConfig, Incoming, Reply, Request};
//! use locule_message::{Fqcn, Payload};
//! use locule_transport::{Endpoint, Transports};
//! use locule_transport_mem::MemTransport;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let transports = Transports::new().with(MemTransport::new());
//! let endpoint = Endpoint::parse("mem://server")?;
//!
//! let server = Cell::builder(CellConfig::new(Fqcn::server())).transports(transports.clone()).start();
//! server.handle("task", "greet", |incoming: Incoming| async move {
//!     Ok(Reply::ok(Payload::bytes(format!("hello, {}", incoming.origin).into())))
//! });
//! server.listen(&endpoint).await?;
//!
//! let site = Cell::builder(CellConfig::new("site-1".parse()?)).transports(transports).start();
//! site.connect(endpoint);
//! assert!(site.wait_linked(&Fqcn::server(), Duration::from_secs(5)).await);
//!
//! let reply = site.request(&Fqcn::server(), Request::new("task", "greet", Payload::none())).await?;
//! assert_eq!(reply.into_ok()?.payload.body, "hello, site-1");
//!
//! site.shutdown(Duration::from_secs(1)).await;
//! server.shutdown(Duration::from_secs(1)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Encryption end to end
//!
//! A link may be encrypted, and still every cell on the way reads what passes it. A [`Request`] that is
//! [`secure`](Request::secure) is sealed for the certificate of its target, whole or, on a streamed channel, chunk
//! by chunk, and so is its reply; both cells need a [`cipher`](CellBuilder::cipher). Certificates they ask of each
//! other when they first need them. A handler sees by [`Incoming::secure`] how a message came. What cannot be
//! opened is answered with `invalid_request`, and counted. Headers stay in clear.
//!
//! Start with [`Cell`], [`Request`] and [`Handler`].

mod bulk;
mod cell;
mod config;
mod connect;
mod driver;
mod envelope;
mod exchange;
mod handler;
mod link;
mod refusals;
mod stats;

pub use cell::{Cell, CellBuilder, CellLost};
pub use config::CellConfig;
pub use connect::{Connection, Dialing};
pub use handler::{Handler, HandlerError, Incoming};
pub use locule_stream::{Spools, StreamConfig, StreamStats};
pub use locule_switch::{
    IncomingFilter, LinkFacts, LinkId, LinkPolicy, LinkSecurity, MessageFilter, Now, OutgoingFilter, Pass,
    Refusal, Reply, Request, RequestError,
};
pub use stats::CellStats;

/// The present, by tokio's clock, which tests can stop.
fn now() -> Now {
    Now { instant: tokio::time::Instant::now().into_std(), wall: std::time::SystemTime::now() }
}
