//! What sites, administrators and server say to each other, as types: requests and replies, to and from the wire.
//!
//! Each type knows its channel and topic, and turns into [`Parts`] (headers and payload of a message)
//! and back. It sends nothing, waits for nothing, checks no signature and keeps no state: a cell
//! carries the parts, `locule-identity` makes and checks proofs, server and site decide.
//!
//! Reading is strict about what the conversation needs and forgiving about the rest: unknown headers
//! and fields are passed over, and what an older or newer peer leaves out has a default; what it does
//! otherwise says its [`Dialect`].
//!
//! ```
//! use locule_message::{Headers, Payload};
//! use locule_protocol::{Heartbeat, HeartbeatReply, Parts, site_context};
//!
//! let beat = Heartbeat {
//!     project_name: "hospitals".into(),
//!     job_ids: vec!["9fd1".into()],
//!     peer: site_context("site-1", None),
//! };
//! let Parts { headers, payload } = beat.to_parts()?;
//! assert_eq!((Heartbeat::CHANNEL, Heartbeat::TOPIC), ("task", "heart_beat"));
//! assert_eq!(Heartbeat::from_parts(&headers, &payload)?, beat);
//!
//! let reply = HeartbeatReply::from_parts(&Headers::new(), &Payload::none())?;
//! assert!(reply.abort_jobs.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start with [`RegisterRequest`], [`AdminRequest`] and [`TaskReply`].
//!
//! # Source
//! nvflare 2.9.0: `nvflare.private.fed.authenticator`, `nvflare.private.fed.client.communicator`,
//! `nvflare.private.fed.server.fed_server`, `nvflare.private.admin_defs`, `nvflare.private.aux_runner`;
//! vectors in `tests/vectors/registration.json` and `tests/vectors/download.json`.

mod admin;
mod aux_message;
mod console;
mod context;
mod dialect;
mod parts;
mod presence;
mod registration;
mod report;
mod task;
mod upload;

pub use admin::{
    AdminBody, AdminCommand, AdminContext, AdminReply, AdminRequest, JobStatus, Person, Shortage,
};
pub use aux_message::{AuxReply, AuxRequest, aux_topic, log_stream};
pub use console::{
    CommandDocument, DocumentError, Item, MAX_ANSWER, MAX_DOCUMENT, ReplyDocument, Status, command_line,
};
pub use context::{prop, server_context, site_context, to_props};
pub use dialect::{Dialect, Outcomes, UnspokenVersion};
pub use parts::{DecodeError, EncodeError, Parts};
pub use presence::{Heartbeat, HeartbeatReply, Quit, QuitReply};
pub use registration::{
    ChallengeReply, ChallengeRequest, ClientType, RegisterReply, RegisterRequest, RegistrationProof,
};
pub use report::{OutcomeReport, Refusal, outcome};
pub use task::{Assignment, GetTask, SubmitReply, SubmitUpdate, TaskReply};
pub use upload::UploadChunk;

/// The version of nvflare whose wire is spoken; what registrations say.
pub const NVFLARE_VERSION: &str = "2.9.0";

/// The channels of cell messages.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.defs` (`CellChannel`), `nvflare.fuel.f3.cellnet.defs`.
pub mod channel {
    /// A site's own affairs with the server: registration, heartbeat, quit, outcomes.
    pub const TASK: &str = "task";
    /// The server's orders to a site.
    pub const ADMIN: &str = "admin";
    /// A job's tasks and results.
    pub const SERVER_COMMAND: &str = "server_command";
    /// A site's orders to its own job.
    pub const CLIENT_COMMAND: &str = "client_command";
    /// A job's auxiliary messages.
    pub const AUX: &str = "aux_communication";
    /// Cells among themselves; topic `bye`.
    pub const CELLNET: &str = "cellnet.channel";
}
