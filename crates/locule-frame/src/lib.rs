//! Frames on a link between two cells: prefix, handshake, keep-alive; a state machine without I/O.
//!
//! A [`LinkProtocol`] is one end of one link. Feed it whole frames, the time and timeouts; it answers
//! with [`Event`]s and with frames to send. It opens no socket, reads no clock and cuts no stream into
//! frames: a carrier does that. Names are text here and headers are bytes: `locule-message` gives them
//! meaning, and whether a peer may bear the name it claims is for the cell to decide.
//!
//! ```
//! use std::time::{Instant, SystemTime};
//! use locule_frame::{Event, LinkConfig, LinkProtocol, Side};
//!
//! let (now, wall) = (Instant::now(), SystemTime::now());
//! let mut server = LinkProtocol::new(LinkConfig::new("server", Side::Listener), now, wall);
//! let mut site = LinkProtocol::new(LinkConfig::new("site-1", Side::Dialer), now, wall);
//!
//! let hello = site.poll_transmit(now).expect("a dialer speaks first");
//! let Some(Event::Established(peer)) = server.handle_frame(now, wall, hello)? else { panic!() };
//! assert_eq!(peer.endpoint_name, "site-1");
//!
//! let ready = server.poll_transmit(now).expect("a listener answers");
//! site.handle_frame(now, wall, ready)?;
//! let frame = site.data(b"\x80", "payload".into())?;
//! assert_eq!(frame.head.len(), 16 + 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start with [`LinkProtocol`], [`LinkConfig`] and [`Prefix`].

mod hello;
mod link;
mod prefix;

pub use hello::{Hello, HelloError};
pub use link::{Event, FrameError, LinkConfig, LinkDead, LinkProtocol, OutFrame, SendError, Side};
pub use prefix::{FrameKind, Prefix, PrefixError};
