//! What a server runs: workflows, and the board on which they put tasks up.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_core::future::BoxFuture;
use locule_fobs::Shareable;

use crate::Event;

/// Conducts a job: which tasks the sites get, in which order, and what becomes of the results.
pub trait Workflow: Send {
    /// Gets everything ready, before the workflow is said to have started: loads the model, say.
    ///
    /// # Errors
    /// As [`run`](Self::run), which is then not called.
    fn prepare<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        let _ = board;
        Box::pin(async { Ok(()) })
    }

    /// Runs to the end of the workflow.
    ///
    /// # Errors
    /// An error ends the job. [`WorkflowError::Aborted`] says that the run was stopped from outside.
    fn run<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>>;
}

/// A workflow's view of the job: its sites, its folder, and tasks to put up.
pub trait TaskBoard: Send + Sync {
    /// The job being run.
    fn job_id(&self) -> &str;

    /// Names of the sites that take part, sorted.
    fn sites(&self) -> Vec<String>;

    /// Where the run may keep its models and records.
    fn run_dir(&self) -> &Path;

    /// Offers one task to its sites and hands each result to `sink` in the order of the sites' names.
    ///
    /// Ends when all of them have answered, or, once enough usable results are in, after the grace.
    ///
    /// # Errors
    /// [`WorkflowError::TooFewResults`] when not enough sites can answer any more, and
    /// [`WorkflowError::Aborted`].
    fn broadcast<'a>(
        &'a self,
        task: OutgoingTask,
        sink: &'a mut (dyn ResultSink + 'a),
    ) -> BoxFuture<'a, Result<Gathered, WorkflowError>>;

    /// Tells whoever watches the job how far it is.
    fn report(&self, progress: Progress);

    /// Whether the run is to stop.
    fn is_aborted(&self) -> bool;

    /// Tells the job's observers of an event of the workflow. Those of tasks and contributions are the board's own.
    fn announce<'a>(&'a self, event: Event<'a>) -> BoxFuture<'a, ()> {
        let _ = event;
        Box::pin(async {})
    }
}

/// Takes results one at a time, so that a round never holds all of them in memory.
pub trait ResultSink: Send {
    /// Takes the result of one site. Called at most once for a site and task, in the order of the sites' names.
    ///
    /// # Errors
    /// The text says why the result is not usable; the site then counts as missing.
    fn accept(&mut self, site: &str, result: &Shareable) -> Result<(), String>;
}

/// A task to offer to sites.
#[derive(Debug, Clone)]
pub struct OutgoingTask {
    /// What the sites are to do.
    pub name: String,
    /// The input, the same for all.
    pub data: Shareable,
    /// Whom to offer it to; empty means every site of the job. Names of others count for nothing.
    pub sites: Vec<String>,
    /// How many usable results are enough; 0 means those of all sites that it is offered to.
    pub min_results: usize,
    /// How long to wait for the others once enough results are in.
    pub grace: Duration,
    /// The round that the task belongs to, counted from 0.
    pub round: Option<u64>,
}

impl OutgoingTask {
    /// Whether it is offered to this site.
    pub fn is_for(&self, site: &str) -> bool {
        self.sites.is_empty() || self.sites.iter().any(|one| one == site)
    }
}

/// How a broadcast ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gathered {
    /// Sites whose results the sink took, in the order taken.
    pub accepted: Vec<String>,
    /// Sites that gave no usable result.
    pub missing: Vec<String>,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Progress {
    /// A round begins.
    RoundStarted {
        /// Counted from 0.
        round: u64,
        /// How many there will be.
        rounds: u64,
    },
    /// A round is over and its model saved.
    RoundFinished {
        /// Counted from 0.
        round: u64,
        /// How many there will be.
        rounds: u64,
        /// For every accepted site its metrics, by name.
        sites: Vec<(String, Vec<(String, f64)>)>,
        /// The model after this round.
        model: PathBuf,
    },
    /// A model was written.
    ModelSaved {
        /// Where it lies.
        path: PathBuf,
    },
}

/// Why a workflow ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkflowError {
    /// The run was stopped from outside.
    #[error("the run was aborted")]
    Aborted,
    /// A task cannot get the results that it needs any more.
    #[error("task `{task}` has {accepted} usable results and needs {needed}")]
    TooFewResults {
        /// Name of the task.
        task: String,
        /// Usable results so far.
        accepted: usize,
        /// How many were needed.
        needed: usize,
    },
    /// Fewer sites take part than the workflow needs.
    #[error("{present} sites take part and {needed} are needed")]
    TooFewSites {
        /// Sites of the job.
        present: usize,
        /// How many are needed.
        needed: usize,
    },
    /// A file of the run could not be read or written.
    #[error("cannot access {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The results, or what was made of them, are not usable.
    #[error("{0}")]
    Failed(String),
}
