//! What a server runs: workflows, and the board on which they put tasks up.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_core::future::BoxFuture;
use locule_fobs::{Map, Shareable};

use crate::Event;

/// Conducts a job: which tasks the sites get, in which order, and what becomes of the results.
///
/// A run can be broken off at any moment, by a power cut for instance, and is then begun anew: with the same
/// arguments, the state of the last [checkpoint](TaskBoard::checkpoint), and, for every task put up since, the results
/// that had been accepted. A workflow that is a function of these goes on to the same end; one without checkpoints is
/// repeated from its beginning, with the results that are there.
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
    /// Ends when all of them have answered, or, once enough usable results are in, after the grace. A site whose
    /// result is on its way when the grace is over is waited for as long as its transfer moves; one that leaves
    /// counts as missing, and takes part again from the next task on.
    ///
    /// # Errors
    /// [`WorkflowError::TooFewResults`] when not enough sites can answer any more, and
    /// [`WorkflowError::Aborted`].
    fn broadcast<'a>(
        &'a self,
        task: OutgoingTask,
        sink: &'a mut (dyn ResultSink + 'a),
    ) -> BoxFuture<'a, Result<Gathered, WorkflowError>>;

    /// Keeps a state from which [`run`](Workflow::run) can go on, in place of the one before; it is durable when this
    /// returns, and what came before it is not asked for again. To be called between tasks, where a step is whole.
    ///
    /// A board whose runs end with their process keeps nothing.
    ///
    /// # Errors
    /// [`WorkflowError::File`] if it cannot be written.
    fn checkpoint<'a>(&'a self, state: Map) -> BoxFuture<'a, Result<(), WorkflowError>> {
        let _ = state;
        Box::pin(async { Ok(()) })
    }

    /// The state of this workflow's last checkpoint, if its run had been broken off after one. To be called once, before
    /// the first task.
    ///
    /// # Errors
    /// [`WorkflowError::File`] if it cannot be read.
    fn restore<'a>(&'a self) -> BoxFuture<'a, Result<Option<Map>, WorkflowError>> {
        Box::pin(async { Ok(None) })
    }

    /// Tells whoever watches the job how far it is. After a run was broken off, the same may be told again.
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
    /// [`Unusable`] says why the result does not count; the site is then missing, and nothing of it was taken.
    fn accept(&mut self, site: &str, result: &Shareable) -> Result<(), Unusable>;

    /// Takes the result of an earlier task of the same name that came too late for it; called after all others,
    /// in the order of the sites' names, and only for tasks that [fold](Late::Fold) such results.
    ///
    /// # Errors
    /// As [`accept`](Self::accept); without an implementation of its own, a sink refuses it.
    fn accept_late(&mut self, site: &str, result: &Shareable) -> Result<(), Unusable> {
        let _ = (site, result);
        Err(Unusable::new(Fault::Late, "it is late"))
    }
}

/// Why a site's result does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unusable {
    /// What sort of mistake it is.
    pub fault: Fault,
    /// The same for a person, with what of it is the site's; one line.
    pub reason: String,
}

impl Unusable {
    /// With this reason.
    pub fn new(fault: Fault, reason: impl Into<String>) -> Unusable {
        Unusable { fault, reason: reason.into() }
    }
}

impl From<String> for Unusable {
    /// Of no particular sort.
    fn from(reason: String) -> Unusable {
        Unusable::new(Fault::Content, reason)
    }
}

/// The sorts of results that do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// The site gave no answer while it was waited for, or takes no part any more.
    Absent,
    /// The site says that it failed.
    Failed,
    /// A filter of the job does not let it pass.
    Filtered,
    /// It came after its round, and is not folded.
    Late,
    /// It belongs to another round.
    Round,
    /// It holds something else than the task asks for.
    Content,
    /// An array that the model has is not in it.
    Missing,
    /// It holds an array that the model does not have.
    Unexpected,
    /// An array has another shape.
    Shape,
    /// An array has another dtype.
    Dtype,
    /// A number is infinite or none.
    NotFinite,
    /// Its weight makes no sense.
    Weight,
}

impl Fault {
    /// Every sort.
    pub const ALL: [Fault; 12] = [
        Fault::Absent,
        Fault::Failed,
        Fault::Filtered,
        Fault::Late,
        Fault::Round,
        Fault::Content,
        Fault::Missing,
        Fault::Unexpected,
        Fault::Shape,
        Fault::Dtype,
        Fault::NotFinite,
        Fault::Weight,
    ];

    /// The code under which records and messages know it.
    pub fn code(self) -> &'static str {
        match self {
            Fault::Absent => "ABSENT",
            Fault::Failed => "FAILED",
            Fault::Filtered => "FILTERED",
            Fault::Late => "LATE",
            Fault::Round => "WRONG_ROUND",
            Fault::Content => "WRONG_CONTENT",
            Fault::Missing => "MISSING_NAME",
            Fault::Unexpected => "UNEXPECTED_NAME",
            Fault::Shape => "WRONG_SHAPE",
            Fault::Dtype => "WRONG_DTYPE",
            Fault::NotFinite => "NOT_FINITE",
            Fault::Weight => "WRONG_WEIGHT",
        }
    }
}

/// A task to offer to sites.
#[derive(Debug, Clone, Default)]
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
    /// How long to wait for sites at all, however few have answered; none means as long as they are there. A result
    /// on its way is waited for. A board without a clock waits.
    pub limit: Option<Duration>,
    /// What becomes of results that come after the task has ended.
    pub late: Late,
}

/// What becomes of a result that comes too late for its task.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Late {
    /// Nobody sees it.
    #[default]
    Drop,
    /// The sink of the task of the same name that stands when it comes, or of the next one, gets it. Of a site's late
    /// results the last one counts.
    Fold,
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
    /// Sites that gave no usable result, and why.
    pub missing: Vec<(String, Unusable)>,
    /// Sites whose late results of an earlier task the sink took as well, in the order taken.
    pub late: Vec<String>,
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
    /// A site's result does not count. Told by the board, and not by workflows.
    ResultUnusable {
        /// Name of the site.
        site: String,
        /// Name of the task.
        task: String,
        /// Counted from 0, if the task belongs to a round.
        round: Option<u64>,
        /// Why.
        fault: Unusable,
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
    #[error("task `{task}`{} has {accepted} of {needed} usable results{}", of_round(*.round), reasons(.missing))]
    TooFewResults {
        /// Name of the task.
        task: String,
        /// The round that it belongs to.
        round: Option<u64>,
        /// Usable results.
        accepted: usize,
        /// How many were needed.
        needed: usize,
        /// Sites without a usable result, and why.
        missing: Vec<(String, Unusable)>,
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

fn of_round(round: Option<u64>) -> String {
    round.map(|round| format!(" of round {round}")).unwrap_or_default()
}

fn reasons(missing: &[(String, Unusable)]) -> String {
    let reasons: Vec<String> = missing.iter().map(|(site, unusable)| format!("{site}: {unusable}")).collect();
    if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) }
}
