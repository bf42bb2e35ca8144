//! An administrator's end of a server's console protocol: submit, watch and fetch jobs.
//!
//! A [`Console`] logs in at a server of ours, or at nvflare's, over a running [`Cell`](locule_cell::Cell), and
//! speaks what nvflare's own console and FLARE API speak: commands, jobs that are sent, results that are fetched.
//! It knows no carrier, reads no kit and prints nothing; what a server says is cut, and escaped so that it can be
//! shown on a terminal, where a person reads it. The server's end is `locule-admin`.
//!
//! What a server tells of a job is read as far as it is understood:
//!
//! ```
//! use locule_console::Job;
//! use serde_json::json;
//!
//! let meta = json!({ "job_id": "3e2d9f0e-1111-4222-8333-444455556666", "name": "sum", "status": "RUNNING",
//!     "status_history": [{ "status": "RUNNING", "time": 1.8e9, "reason": "started" }],
//!     "progress": { "round": 2, "rounds": 5, "rounds_done": 2 } });
//! let job = Job::from_meta(meta.as_object().expect("a map"));
//! assert!(!job.is_over());
//! assert_eq!(job.progress.and_then(|progress| progress.rounds), Some(5));
//! ```
//!
//! Start with [`Console::log_in`], [`Parcel`] and [`Job`].
//!
//! # Source
//! nvflare 2.9.0, `nvflare.fuel.hci.client`, `nvflare.fuel.flare_api`.

mod commands;
mod console;
mod job;
mod parcel;
mod transfer;

pub use commands::{Check, FindError, Logs, SubmitError, Tracked};
pub use console::{AskError, Console, LogInError, Settings, cell_name};
pub use job::{Change, Job, Outcome, Person, Progress, Refused, SiteMetrics};
pub use parcel::{Parcel, ParcelError};
pub use transfer::{FetchError, Passed, SendError};
