//! What a site runs: executors, the tasks they are given, and how they stop.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use locule_fobs::{Shareable, Value};

use crate::Context;
use crate::pattern::glob_matches;

/// Does the work of a task at a site: trains, evaluates, counts.
///
/// Executors are synchronous and run on a thread of their own, so that they may compute for hours. One executor
/// sees one task at a time.
pub trait Executor: Send {
    /// Runs one task to its end and returns the result that goes back to the server.
    ///
    /// Look at [`TaskCx::abort`] between steps, and return [`ExecuteError::Aborted`] once it is raised.
    ///
    /// # Errors
    /// An error becomes the return code that [`ExecuteError::return_code`] names; the site stays in the job.
    fn execute(&mut self, task: &Task, cx: &TaskCx<'_>) -> Result<Shareable, ExecuteError>;

    /// What was measured since this was asked last, for the server's log of metrics. Asked after every task.
    fn take_metrics(&mut self) -> Vec<Metric> {
        Vec::new()
    }

    /// The run is over, or `aborted`: ends what the executor has started outside of its process. Called once, on a
    /// thread that may block.
    fn close(&mut self, aborted: bool) {
        let _ = aborted;
    }
}

/// A number, or something else, that was measured in the course of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its name.
    pub key: String,
    /// Of which kind, by nvflare's name: `SCALAR`, `METRICS`, ….
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.apis.analytix.AnalyticsDataType`.
    pub kind: String,
    /// What was measured.
    pub value: Value,
    /// The step that it was measured in.
    pub step: Option<i64>,
    /// The library that it was logged through, by nvflare's name: `TORCH_TB`, `MLFLOW`, ….
    pub writer: Option<String>,
}

/// A unit of work as the site received it, after the filters of task data.
#[derive(Debug, Clone)]
pub struct Task {
    /// What is to be done; executors are chosen by it.
    pub name: String,
    /// The server's identifier of this assignment.
    pub id: String,
    /// The input.
    pub data: Shareable,
}

/// What an executor may know besides its task.
#[derive(Debug, Clone, Copy)]
pub struct TaskCx<'a> {
    /// Name of the site.
    pub site: &'a str,
    /// The job that the task belongs to.
    pub job_id: &'a str,
    /// Raised when the result is no longer wanted.
    pub abort: &'a AbortFlag,
    /// Properties of the run.
    pub context: &'a Context,
}

/// Why a task gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError {
    /// The executor does not know this task.
    #[error("unknown task `{0}`")]
    UnknownTask(String),
    /// The input of the task is not what the executor needs.
    #[error("unusable task data: {0}")]
    BadTask(String),
    /// The task was aborted and its partial result dropped.
    #[error("the task was aborted")]
    Aborted,
    /// The work itself went wrong.
    #[error("{0}")]
    Failed(String),
    /// The executor judges the job to be unsafe; the site answers every later task of the job alike.
    #[error("the job is unsafe: {0}")]
    Unsafe(String),
}

impl ExecuteError {
    /// The return code that the reply carries for this error.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.apis.fl_constant.ReturnCode`.
    pub fn return_code(&self) -> &'static str {
        match self {
            ExecuteError::UnknownTask(_) => "TASK_UNKNOWN",
            ExecuteError::BadTask(_) => "BAD_TASK_DATA",
            ExecuteError::Aborted => "TASK_ABORTED",
            ExecuteError::Failed(_) => "EXECUTION_EXCEPTION",
            ExecuteError::Unsafe(_) => "UNSAFE_JOB",
        }
    }
}

/// Says that a task or a run is no longer wanted. Clones share one flag; once raised it stays raised.
#[derive(Debug, Clone, Default)]
pub struct AbortFlag(Arc<AtomicBool>);

impl AbortFlag {
    /// A flag that is not raised.
    pub fn new() -> Self {
        AbortFlag::default()
    }

    /// Raises the flag for every clone.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether somebody has raised the flag.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The executors of a job at one site, found by task name: exact names first, then patterns in file order.
#[derive(Default)]
pub struct ExecutorTable {
    executors: Vec<Box<dyn Executor>>,
    exact: BTreeMap<String, usize>,
    patterns: Vec<(String, usize)>,
}

impl ExecutorTable {
    /// A table without executors.
    pub fn new() -> Self {
        ExecutorTable::default()
    }

    /// Adds an executor for task names and shell-style patterns (`*`, `?`, `[…]`). A name or pattern that is
    /// taken already stays with the executor that came first.
    pub fn insert(&mut self, tasks: impl IntoIterator<Item = String>, executor: Box<dyn Executor>) {
        let index = self.executors.len();
        self.executors.push(executor);
        for task in tasks {
            if task.contains(['*', '?', '[']) {
                self.patterns.push((task, index));
            } else {
                self.exact.entry(task).or_insert(index);
            }
        }
    }

    /// The executor that answers for a task, or `None` when no entry matches.
    pub fn find(&mut self, task: &str) -> Option<&mut Box<dyn Executor>> {
        let index = self.exact.get(task).copied().or_else(|| {
            self.patterns.iter().find(|(pattern, _)| glob_matches(pattern, task)).map(|(_, index)| *index)
        })?;
        self.executors.get_mut(index)
    }

    /// Every executor, in the order in which they were added.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Box<dyn Executor>> {
        self.executors.iter_mut()
    }

    /// How many executors the table holds.
    pub fn len(&self) -> usize {
        self.executors.len()
    }

    /// Whether the table holds no executor.
    pub fn is_empty(&self) -> bool {
        self.executors.is_empty()
    }
}

impl fmt::Debug for ExecutorTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutorTable").field("exact", &self.exact).field("patterns", &self.patterns).finish()
    }
}
