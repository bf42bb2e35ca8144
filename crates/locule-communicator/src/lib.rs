//! The site's conversation with its server: register, pull tasks, submit results, heartbeat, quit.
//!
//! A [`Communicator`] speaks for the site as a whole; a [`JobCommunicator`] for one of its jobs. Both
//! say what the site wants over a running [`Cell`](locule_cell::Cell) and turn what comes back into
//! typed answers. They run no job, hold no key (a [`Signer`](locule_identity::Signer) is lent for the
//! time of a registration) and know no carrier. To run jobs, use `locule-site`.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use locule_cell::{Cell, CellConfig, Incoming, Reply};
//! use locule_communicator::{Communicator, Settings};
//! use locule_component::{EventBus, RunContext};
//! use locule_message::{Fqcn, Payload};
//! use locule_transport::{Endpoint, Transports};
//! use locule_transport_mem::MemTransport;
//! use tokio_util::sync::CancellationToken;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // a server that is content with every sign of life
//! let transports = Transports::new().with(MemTransport::new());
//! let endpoint = Endpoint::parse("mem://server")?;
//! let server = Cell::builder(CellConfig::new(Fqcn::server())).transports(transports.clone()).start();
//! server.handle("task", "heart_beat", |_: Incoming| async { Ok(Reply::ok(Payload::none())) });
//! server.listen(&endpoint).await?;
//!
//! let cell = Cell::builder(CellConfig::new("hospital-a".parse()?)).transports(transports).start();
//! cell.connect(endpoint);
//! assert!(cell.wait_linked(&Fqcn::server(), Duration::from_secs(10)).await);
//!
//! let settings = Settings::new("ward-7", "hospital-a", "server.ward-7.org");
//! let context = RunContext::new("hospital-a", "");
//! let (stamp, events) = (Arc::default(), Arc::new(EventBus::new(Vec::new())));
//! let site = Communicator::new(cell, settings, stamp, context, events, CancellationToken::new());
//! let unwanted = site.heartbeat(vec!["job-7".to_owned()]).await?;
//! assert!(unwanted.is_empty()); // the server still runs job-7
//! # Ok(())
//! # }
//! ```
//!
//! Start with [`Settings`], [`Communicator::register`] and [`JobCommunicator::pull_task`]. What a server says is
//! part of the errors' texts, cut, escaped and without secrets: they are fit for a log.

mod address;
mod communicator;
mod conversation;
mod heartbeat;
mod job;
mod patience;
mod redact;
mod register;
mod settings;
mod submission;

pub use communicator::Communicator;
pub use conversation::SayError;
pub use heartbeat::JobKeeper;
pub use job::{JobCommunicator, PullError, Pulled, SubmitError, SyncError};
pub use register::{Credentials, RegisterError};
pub use settings::Settings;
pub use submission::Submission;
