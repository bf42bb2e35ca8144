//! Stamps what goes out, gates what comes in, binds links to identities; does no I/O and holds no key.
//!
//! Five rules for a [`Switch`](locule_switch::Switch), and the table that they share:
//!
//! | type | at | does |
//! |---|---|---|
//! | [`SessionStamp`] | a site | puts the site's token on what it sends |
//! | [`ServerStamp`] | the server | puts the server's own token on what it sends |
//! | [`ServerGate`] | the server | lets in only what carries a token of the ledger, from where it was granted |
//! | [`RelayGate`] | a relay | lets through from below only what carries a token that the server signed |
//! | [`CertificateLinkPolicy`] | everywhere | lets a neighbour bear only the name that its certificate allows |
//! | [`TokenLedger`] | the server | which tokens are in force, for whom, from where; outlives the process |
//!
//! A token counts because the ledger issued it, not because somebody signed it: a signature made for
//! another purpose, or before a site quit or was removed, opens nothing. No rule needs a private key, so
//! whole networks with authentication run in a simulation.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::{Instant, SystemTime};
//!
//! use locule_auth::{LedgerLimits, ServerGate, SessionStamp, TokenLedger};
//! use locule_identity::{Grant, Session};
//! use locule_journal::MemoryJournal;
//! use locule_message::{Fqcn, Headers, Message, Payload, key};
//! use locule_switch::{IncomingFilter, LinkFacts, LinkId, LinkSecurity, Now, OutgoingFilter};
//! # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! # let mut rng = ChaCha20Rng::seed_from_u64(1);
//!
//! let now = Now { instant: Instant::now(), wall: SystemTime::now() };
//! let ledger = Arc::new(TokenLedger::open(Box::new(MemoryJournal::new()), LedgerLimits::default())?);
//! let gate = ServerGate::new(Fqcn::server(), Arc::clone(&ledger));
//! let stamp = SessionStamp::new();
//!
//! // A grant normally comes from `Proven::grant`; this one is of a federation without proofs.
//! let grant = Grant::unproven("site-1", "site-1", &mut rng)?;
//! ledger.issue(&grant, now)?;
//! stamp.set(Session::unproven("site-1", grant.to_token())?);
//!
//! let link = LinkFacts {
//!     link: LinkId(1),
//!     peer: "site-1".parse()?,
//!     common_name: Some("site-1".into()),
//!     security: LinkSecurity::Mutual,
//!     accepted: true,
//!     ours: true,
//! };
//! let mut headers = Headers::new();
//! for (key, value) in [(key::MSG_TYPE, "req"), (key::ORIGIN, "site-1"), (key::DESTINATION, "server")] {
//!     headers.set(key, value);
//! }
//! let mut message = Message::new(headers, Payload::none());
//! assert!(gate.check(now, &link, &message).is_err());
//! assert!(stamp.stamp(now, &mut message, &Fqcn::server()).is_ok());
//! assert!(gate.check(now, &link, &message).is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What the first handshake cannot stop
//!
//! A relay sees the tokens of the sites below it. The gate takes a token only from the cell it was
//! granted to and from below, over a link whose own name lies above or at that cell, so a relay can act
//! for the sites below it and for nobody else. Put relays where you would put the sites themselves.

mod gate;
mod ledger;
mod link;
mod record;
mod relay;
mod stamp;
mod state;

pub use gate::ServerGate;
pub use ledger::{IssueRefused, Issued, LedgerError, LedgerLimits, Pulse, TokenLedger, TokenRefused};
pub use link::CertificateLinkPolicy;
pub use relay::RelayGate;
pub use stamp::{ServerStamp, SessionStamp};
pub use state::Holder;
