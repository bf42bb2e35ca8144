//! A job's task loop at a site: pull, filter, execute, filter, submit.
//!
//! A [`TaskLoop`] runs what a reviewed plan was built into, one task after another, until the server
//! ends the run or the site stops it. Executors and filters run on a blocking thread; a panic, an error
//! or an abort becomes a result with a return code, never silence. It reviews nothing and builds
//! nothing: that happened before. To supervise whole jobs, use `locule-site`.
//!
//! The work on one task needs no network:
//!
//! ```
//! use locule_component::{AbortFlag, Assembled, RunContext};
//! use locule_executor::Workbench;
//! use locule_fobs::Shareable;
//! use locule_protocol::{Assignment, server_context};
//!
//! let run = RunContext::new("hospital-a", "job-7");
//! let mut bench = Workbench::new("hospital-a", "job-7", run, Assembled::default(), AbortFlag::new());
//! let mut data = Shareable::default();
//! data.set_peer_context(server_context("ward-7", Some("job-7")));
//! let task = Assignment::new("train", "task-1", data);
//! assert_eq!(bench.perform(&task).return_code(), "TASK_UNKNOWN"); // there is no executor
//! ```
//!
//! Start with [`TaskLoop`], [`Workbench`] and [`RunSummary`].

mod task_loop;
mod tell;
mod turns;
mod workbench;

pub use task_loop::{Pace, RunError, RunSummary, TaskLoop};
pub use turns::Turns;
pub use workbench::Workbench;
