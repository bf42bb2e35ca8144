//! Decides where messages go; performs no I/O.
//!
//! A [`Switch`] is the forwarding engine inside a cell. Feed it links, messages and the current time,
//! and it answers with [`Output`]s: deliver this to a handler, settle that request, read no more from
//! that link. What is to leave waits in bounded queues, one pair per link, until
//! [`poll_transmit`](Switch::poll_transmit) fetches it. The switch opens no sockets, reads no clock
//! and starts no tasks, so a network of a thousand cells can run in one test thread. To run it on
//! real links, use `locule-cell`.
//!
//! ```
//! use std::time::{Instant, SystemTime};
//!
//! use locule_message::{Fqcn, Headers, Message, Payload};
//! use locule_switch::{LinkFacts, LinkId, LinkSecurity, Now, Output, Reply, Request, Switch, SwitchConfig};
//! # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//!
//! let now = Now { instant: Instant::now(), wall: SystemTime::now() };
//! let mut site = Switch::new(SwitchConfig::new("site-1".parse()?), Box::new(ChaCha20Rng::seed_from_u64(1)));
//! let mut server = Switch::new(SwitchConfig::new(Fqcn::server()), Box::new(ChaCha20Rng::seed_from_u64(2)));
//! let link_to = |peer: &str| LinkFacts {
//!     link: LinkId(1),
//!     peer: peer.parse().unwrap(),
//!     common_name: None,
//!     security: LinkSecurity::Internal,
//!     accepted: peer != "server",
//!     ours: true,
//! };
//! site.link_up(now, link_to("server"), 1 << 20)?;
//! server.link_up(now, link_to("site-1"), 1 << 20)?;
//!
//! // the site asks, and the message crosses
//! site.request(now, &[Fqcn::server()], Request::new("task", "greet", Payload::none()));
//! let sent = site.poll_transmit(LinkId(1)).expect("a request waits");
//! let received = Message { headers: Headers::decode(sent.headers)?, body: sent.body.into() };
//! server.handle_message(now, LinkId(1), received);
//!
//! // the server delivers it to a handler, which answers
//! let Some(Output::Deliver(delivery)) = server.poll_output() else { panic!("nothing delivered") };
//! assert_eq!(delivery.origin.as_str(), "site-1");
//! let reply_to = delivery.reply_to.expect("the site waits");
//! server.reply(now, reply_to, Reply::ok(Payload::bytes("hello".into())));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it promises
//!
//! - Nothing is handled, forwarded or matched with a request before the gate ([`IncomingFilter`]).
//! - Each request settles exactly once at each of its targets, at the latest at its deadline.
//! - A reply goes to the neighbour that delivered the request, and to nobody else.
//! - What is forwarded keeps its body, and the headers that a forwarder does not own, byte by byte.
//! - Everything is bounded; [`Stats`] counts each time that a bound is hit.
//!
//! # Back-pressure
//!
//! Two lanes per link, control and bulk, hold a bounded number of bytes. A small request that finds its
//! lane full fails with [`RequestError::Congested`]; large ones and answers stand in line. A message of
//! others stands in line too, and its link is [`Output::Congested`] until it finds room: the driver
//! reads no more from that link, so that the neighbour's own queues fill in turn. A cell always reads
//! what is meant for itself, so in a tree of cells no circle of waiting can close; where links form a
//! circle, patience ([`SwitchConfig::patience`]) breaks it.
//!
//! Start with [`Switch`], [`Output`] and [`Request`].

mod filter;
mod link;
mod output;
mod pending;
mod queue;
mod receive;
mod request;
mod route;
mod send;
mod stats;
mod switch;

pub use filter::{IncomingFilter, LinkPolicy, MessageFilter, OutgoingFilter, Pass, Refusal};
pub use link::{LinkFacts, LinkId, LinkSecurity, Now};
pub use output::{CloseReason, Delivery, DropReason, Output, ReplyTo, Settled, Transmit};
pub use request::{Reply, Request, RequestError, RequestId};
pub use stats::Stats;
pub use switch::{LinkRefused, Switch, SwitchConfig};
