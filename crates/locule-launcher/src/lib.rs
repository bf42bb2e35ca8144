//! The seam at which a job is started, watched and ended.
//!
//! A [`Launcher`] turns a [`JobStart`], which is plain data, into a running job and a
//! [`JobHandle`]. [`ProcessLauncher`] gives each job a process of its own, which is a [`JobProcess`] at
//! the other end; [`TaskLauncher`] runs the job as a task of this process; a launcher that starts a
//! container implements the same trait with [`JobHandle::new`]. A launcher does not know what a job
//! computes, does not talk to it (a job speaks to its parent by messages over a link) and does not
//! decide whether it may run.
//!
//! ```
//! use std::time::Duration;
//! use locule_launcher::{JobOutcome, JobStart, Launcher, TaskLauncher};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), locule_launcher::LaunchError> {
//! let launcher = TaskLauncher::new(|start: JobStart, abort| async move {
//!     assert_eq!(start.job_id, "6d5a");
//!     abort.cancelled().await; // a real job works until it is done or asked to stop
//!     Ok(())
//! });
//! let job = launcher.start(JobStart::new("6d5a", "site-1.6d5a", "site-1/6d5a", "mem://site-1"))?;
//! assert_eq!(job.abort(Duration::from_secs(10)).await, JobOutcome::Aborted);
//! # Ok(()) }
//! ```
//!
//! Start with [`Launcher`], [`ProcessLauncher`] and [`JobOutcome`].

mod child;
mod disk;
mod epitaph;
mod handle;
mod limits;
mod log;
mod process;
mod task;
mod wire;

pub use child::{BeginError, JobProcess};
pub use disk::disk_usage;
pub use handle::{JobHandle, JobReport};
pub use limits::Limits;
pub use process::{JobCommand, ProcessLauncher};
pub use task::TaskLauncher;
pub use wire::Brief;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Starts jobs.
pub trait Launcher: fmt::Debug + Send + Sync {
    /// Starts a job and returns at once; how it goes on is told by the handle.
    ///
    /// # Errors
    /// [`LaunchError`] if the job did not start at all. Everything later is a [`JobOutcome`].
    fn start(&self, job: JobStart) -> Result<JobHandle, LaunchError>;
}

/// What a job has to be told when it starts; whatever else it needs, it reads from its run folder
/// or asks its parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct JobStart {
    /// The job's identifier, unique at its server.
    pub job_id: String,
    /// The name of the job's own cell, such as `site-1.<job_id>`.
    pub cell: String,
    /// The job's run folder, made by the deployment.
    pub run_dir: PathBuf,
    /// The URL at which the parent listens for its jobs.
    pub parent: String,
    /// Digest of the plan that the parent has approved for this start, and recorded; a job with another plan is not
    /// run. Without one the job asks the checkers itself.
    pub approved_plan: Option<String>,
    /// Variables that the job's process sees beside those of every job: the GPUs that it was given, say. A job that is
    /// a task sees its daemon's.
    pub environment: BTreeMap<String, String>,
}

impl JobStart {
    /// A start of `job_id` as cell `cell`, in `run_dir`, linked to `parent`.
    pub fn new(
        job_id: impl Into<String>,
        cell: impl Into<String>,
        run_dir: impl Into<PathBuf>,
        parent: impl Into<String>,
    ) -> JobStart {
        let (job_id, cell, run_dir, parent) = (job_id.into(), cell.into(), run_dir.into(), parent.into());
        JobStart { job_id, cell, run_dir, parent, approved_plan: None, environment: BTreeMap::new() }
    }

    /// The same of a plan that the parent has approved.
    #[must_use]
    pub fn approved(self, plan: impl Into<String>) -> JobStart {
        JobStart { approved_plan: Some(plan.into()), ..self }
    }

    /// The same with variables of its own.
    #[must_use]
    pub fn environment(self, environment: BTreeMap<String, String>) -> JobStart {
        JobStart { environment, ..self }
    }
}

/// Why a job did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// A launcher was used outside a tokio runtime.
    #[error("a job can be started only inside a tokio runtime")]
    NoRuntime,
    /// What the job was to run in could not be made.
    #[error("job {job_id} could not be started")]
    Start {
        /// The job.
        job_id: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobOutcome {
    /// It did what it was to do.
    Completed,
    /// It gave up.
    Failed(JobFailure),
    /// It panicked; the process it ran in goes on.
    Panicked {
        /// What the panic said, at most [`MAX_REASON`] bytes.
        message: String,
    },
    /// It was asked to stop and did so within the grace, whatever it returned.
    Aborted,
    /// It was asked to stop, did not, and was ended from outside when the grace was over.
    Killed,
    /// Its process ended without having said how the job ended; another start may do better.
    Died(JobFailure),
}

impl JobOutcome {
    /// The code of the outcome report that a site sends to its server.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.fuel.common.exit_codes` (`ProcessExitCode`).
    pub fn code(&self) -> i64 {
        match self {
            JobOutcome::Completed => 0,
            JobOutcome::Aborted | JobOutcome::Killed => 9,
            JobOutcome::Panicked { .. } => FailureKind::Exception.code(),
            JobOutcome::Failed(failure) | JobOutcome::Died(failure) => failure.kind.code(),
        }
    }

    /// One line for the outcome report; `None` for a job that completed.
    pub fn reason(&self) -> Option<String> {
        match self {
            JobOutcome::Completed => None,
            JobOutcome::Failed(failure) | JobOutcome::Died(failure) => Some(failure.reason.clone()),
            JobOutcome::Panicked { message } => Some(format!("the job panicked: {message}")),
            JobOutcome::Aborted => Some("the job was aborted".into()),
            JobOutcome::Killed => Some("the job was aborted and did not stop in time".into()),
        }
    }
}

/// Why a job gave up, as the job itself tells it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct JobFailure {
    kind: FailureKind,
    reason: String,
}

/// Longest reason of a failure or message of a panic, in bytes; the rest is cut off.
pub const MAX_REASON: usize = 4096;

impl JobFailure {
    /// A failure with its reason, cut at [`MAX_REASON`] bytes.
    pub fn new(kind: FailureKind, reason: impl Into<String>) -> JobFailure {
        JobFailure { kind, reason: truncated(reason.into()) }
    }

    /// Of which kind.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// In words.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// What the server does with a failed job depends on this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// Something the job ran reported an error.
    Exception,
    /// A checker of the site refused a component.
    UnsafeComponent,
    /// The job's configuration is wrong.
    Config,
    /// The place it ran in is at fault, not the job.
    Infrastructure,
}

impl FailureKind {
    /// The code of the outcome report.
    pub fn code(self) -> i64 {
        match self {
            FailureKind::Exception => 101,
            FailureKind::UnsafeComponent => 102,
            FailureKind::Config => 103,
            FailureKind::Infrastructure => 104,
        }
    }
}

fn truncated(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_REASON));
    text
}
