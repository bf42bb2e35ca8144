//! Who hears of what happens at a site or server, and who may say no to it.
//!
//! Notices and gates are two types. An [`Observer`](locule_component::Observer) is told and can stop nothing; a
//! [`Gate`](locule_component::Gate) is asked and does nothing but answer. This crate runs both where foreign code
//! may be slow, panic or hang: it knows threads and clocks, and neither sockets nor jobs. What the events are and
//! when each is fired is said at [`Event`](locule_component::Event) and by the crates that fire them.
//!
//! - **A parent** (the daemon of a site or server) tells through a queue: [`queued`] makes a bus whose observers are
//!   told on one thread, in order, so that no observer holds the daemon up. The queue is bounded: what does not fit
//!   is dropped and counted, but for events that close something, which take the place of the oldest.
//! - **A job's half** is told by a [`Herald`]: one event after the other, on a blocking thread, and the half waits,
//!   since what its observers do belongs to its order. Beyond [`NOTICE_LIMIT`] it waits no longer.
//! - **Gates** are asked all at once, each on a thread of its own under a deadline: [`Gates`].
//! - The end is heard of also when a job is aborted or a daemon stops: closing events are fired in any case, and
//!   [`EventBus::settle`](locule_component::EventBus::settle) gives the queue a grace.
//!
//! ```
//! use std::path::Path;
//! use locule_component::{BuildCx, ConstructionCount, Question, Registry, Side};
//! use locule_config::Document;
//! use locule_event::{Attendants, Record};
//!
//! let mut registry = Registry::new();
//! registry.register::<Record>();
//! registry.register::<locule_policy::AdmitJobs>();
//!
//! let site = Document::parse_json("resources.json", r#"{ "components": [
//!     { "id": "events", "path": "locule.event.Record", "args": { "events": ["*job*"] } },
//!     { "id": "ours", "path": "locule.policy.AdmitJobs", "args": { "orgs": ["hospital-*"] } }] }"#)?;
//!
//! let (kit, count) = (tempfile::tempdir()?, ConstructionCount::new());
//! let cx = BuildCx::new(Side::Site, "hospital-1", "", kit.path(), kit.path(), &count);
//! let Attendants { events, gates } = Attendants::from_site_config(&site, &registry, &cx)?;
//!
//! let refused = gates.ask_blocking(Question::CheckResources { job: Box::default() }).unwrap_err();
//! assert_eq!(refused.to_string(), r#"hospital-1 runs no jobs of the organization """#);
//! assert!(!events.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attendants;
mod gates;
mod herald;
mod queue;
mod record;
mod watched;

pub use attendants::{Attendants, code};
pub use gates::{GATE_LIMIT, Gates, No, Refused};
pub use herald::Herald;
pub use queue::{MAX_WAITING, queued};
pub use record::{Record, RecordArgs};
pub use watched::NOTICE_LIMIT;
