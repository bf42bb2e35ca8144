//! Admits sites, runs jobs, hands out tasks and collects results.
//!
//! A [`Server`] answers challenges and registrations on a running cell, keeps the ledger of tokens and the
//! book of jobs, and takes each job through its life: wait for its sites, deploy, start, watch, end. The
//! server's half of a job runs in a cell of its own ([`run_job`]), started by a launcher and linked to its
//! parent only. The crate opens no sockets and reads no kit; it aggregates nothing itself: workflows do.
//!
//! ```
//! use locule_server::{JobStatus, ServerEvent, ServerSettings};
//!
//! let mut settings = ServerSettings::new("ward-7");
//! settings.max_jobs = 1;
//!
//! let line = r#"{"event":"job_status","job":"4f1c","status":"RUNNING","reason":"started"}"#;
//! let event: ServerEvent = serde_json::from_str(line)?;
//! assert!(matches!(event, ServerEvent::JobStatus { status: JobStatus::Running, .. }));
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! Start with [`Server`], [`ServerEvent`] and [`JobRecord`].

mod admit;
mod book;
mod digest;
mod event;
mod half;
mod intake;
mod job;
mod life;
mod orders;
mod oversight;
mod permit;
mod queue;
mod record;
mod rehearsal;
mod rejoin;
mod retention;
mod schedule;
mod server;
mod settings;
mod site_logs;
mod watch;

pub use book::{BookError, read_records};
pub use event::ServerEvent;
pub use intake::{Package, SubmitError};
pub use job::{JobHost, LastTracked, ServerBrief, Tracked, run_job};
pub use locule_event::Attendants;
pub use oversight::{DeleteError, JobFiles, SiteThere};
pub use record::{JobRecord, JobStatus, SiteOutcome, StatusChange, Submission, Submitter, Waiting};
pub use rehearsal::JobCheck;
pub use server::Server;
pub use settings::{ServerParts, ServerSettings};
