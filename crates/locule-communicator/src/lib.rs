//! The site's conversation with its server: register, pull tasks, submit results, heartbeat, quit.
//!
//! A [`Communicator`] speaks for the site as a whole; a [`JobCommunicator`] for one of its jobs. Both
//! say what the site wants over a running [`Cell`](locule_cell::Cell) and turn what comes back into
//! typed answers. They run no job, hold no key (a [`Signer`](locule_identity::Signer) is lent for the
//! time of a registration) and know no carrier. To run jobs, use `locule-site`.
//!
//! ```
//! use locule_communicator::Settings;
//! use std::time::Duration;
//!
//! let mut settings = Settings::new("ward-7", "hospital-a", "server.ward-7.org");
//! settings.heartbeat_interval = Duration::from_secs(5);
//! assert_eq!(settings.register_interval, Duration::from_secs(2));
//! ```
//!
//! Start with [`Settings`], [`Communicator::register`] and [`JobCommunicator::pull_task`].

mod address;
mod communicator;
mod conversation;
mod heartbeat;
mod job;
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
