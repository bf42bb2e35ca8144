//! Lets administrators run jobs: the console protocol of a server.
//!
//! An [`Admin`] adds a desk to a running [`locule_server::Server`]: administrators log in, see sites and jobs,
//! send jobs in, stop them and fetch results. The FLARE API and the console of nvflare 2.9.0 work with it as
//! they are. Whoever logs in must come from a cell that registered with an administrator's certificate, so the
//! proof that a login carries, which the wire lets anybody replay, is worth nothing by itself; name,
//! organisation and role are those of the certificate, and [`Rights`] say what they may do. The crate opens no
//! sockets, and runs no jobs: the server does.
//!
//! The documents of the protocol can be used without a server:
//!
//! ```
//! use locule_admin::{CommandDocument, ReplyDocument, words};
//!
//! let sent = CommandDocument::new("list_jobs -n sum").to_text("2026-01-31 10:00");
//! let received = CommandDocument::parse(&sent)?;
//! assert_eq!(words(&received.command), ["list_jobs", "-n", "sum"]);
//!
//! let answer = ReplyDocument::new().meta("jobs", Vec::<serde_json::Value>::new()).success("");
//! assert_eq!(ReplyDocument::parse(&answer.to_text("2026-01-31 10:00"))?.status_word(), Some("ok"));
//! # Ok::<(), locule_admin::DocumentError>(())
//! ```
//!
//! Start with [`Admin`], [`Rights`] and [`COMMANDS`].
//!
//! # Source
//! nvflare 2.9.0, `nvflare.fuel.hci`, `nvflare.fuel.flare_api`.

mod admin;
mod command;
mod dates;
mod desk;
mod download;
mod jobs;
mod meta;
mod news;
mod orders;
mod session;
mod sites;
mod upload;

pub use admin::{Admin, AdminParts, AdminSettings};
pub use command::{COMMANDS, Command, words};
pub use download::{Answer, FileSource, Offer, SourceLimits, chunk};
pub use locule_protocol::{
    CommandDocument, DocumentError, Item, MAX_DOCUMENT, ReplyDocument, Status, command_line as line,
};
pub use locule_rights::{Rights, RightsError, Who};

/// Between consoles and the server.
pub const CHANNEL: &str = CommandDocument::CHANNEL;
/// The topic of commands.
pub const COMMAND_TOPIC: &str = CommandDocument::TOPIC;
/// The topic of the word that a session is over.
pub const EXPIRED_TOPIC: &str = CommandDocument::EXPIRED;
