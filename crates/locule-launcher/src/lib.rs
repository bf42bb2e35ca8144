//! The seam at which a job is started, watched and ended.
//!
//! A [`Launcher`] turns a [`JobStart`], which is plain data, into a running job and a
//! [`JobHandle`]. [`TaskLauncher`] runs the job as a task of this process; a launcher that starts a
//! process or a container implements the same trait with [`JobHandle::new`]. A launcher does not
//! know what a job computes, does not talk to it (a job speaks to its parent by messages over a
//! link) and does not decide whether it may run.
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
//! Start with [`Launcher`], [`TaskLauncher`] and [`JobOutcome`].

mod handle;
mod task;

pub use handle::{JobHandle, JobReport};
pub use task::TaskLauncher;

use std::fmt;
use std::path::PathBuf;

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
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

impl JobStart {
    /// A start of `job_id` as cell `cell`, in `run_dir`, linked to `parent`.
    pub fn new(
        job_id: impl Into<String>,
        cell: impl Into<String>,
        run_dir: impl Into<PathBuf>,
        parent: impl Into<String>,
    ) -> JobStart {
        JobStart { job_id: job_id.into(), cell: cell.into(), run_dir: run_dir.into(), parent: parent.into() }
    }
}

/// Why a job did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// A [`TaskLauncher`] was used outside a tokio runtime.
    #[error("a job can be started as a task only inside a tokio runtime")]
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
            JobOutcome::Failed(failure) => failure.kind.code(),
        }
    }

    /// One line for the outcome report; `None` for a job that completed.
    pub fn reason(&self) -> Option<String> {
        match self {
            JobOutcome::Completed => None,
            JobOutcome::Failed(failure) => Some(failure.reason.clone()),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
