//! Filters: what changes task data and results on their way.

use std::collections::BTreeMap;
use std::fmt;

use locule_fobs::Shareable;

use crate::Context;

/// Changes, checks or withholds a payload between the wire and an executor or workflow.
pub trait TaskFilter: Send {
    /// Takes the payload and gives back what goes on in its place.
    ///
    /// # Errors
    /// An error stops the payload: nothing of it travels on, and the other side is told the code that
    /// [`FilterError::return_code`] names.
    fn apply(&mut self, data: Shareable, cx: &FilterCx<'_>) -> Result<Shareable, FilterError>;
}

/// What a filter may know besides the payload.
#[derive(Debug, Clone, Copy)]
pub struct FilterCx<'a> {
    /// Name of the site, or `server`.
    pub site: &'a str,
    /// The job that the payload belongs to.
    pub job_id: &'a str,
    /// Name of the task.
    pub task: &'a str,
    /// Task data or task result.
    pub chain: Chain,
    /// Arriving here or leaving here.
    pub direction: Direction,
    /// Properties of the run.
    pub context: &'a Context,
}

/// Which of the two payloads of a task a filter sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Chain {
    /// What the server sends with a task.
    TaskData,
    /// What a site sends back.
    TaskResult,
}

impl Chain {
    /// The configuration key that lists filters of this chain.
    pub fn key(self) -> &'static str {
        match self {
            Chain::TaskData => "task_data_filters",
            Chain::TaskResult => "task_result_filters",
        }
    }
}

/// Which way a payload goes, seen from where the filter runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Arriving.
    In,
    /// Leaving.
    Out,
}

impl Direction {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::In => "in",
            Direction::Out => "out",
        }
    }
}

/// The filters of a job at one side, found by task, chain and direction.
#[derive(Default)]
pub struct FilterChains {
    filters: Vec<Box<dyn TaskFilter>>,
    /// Those of the participant, for every task; they come first.
    every_task: BTreeMap<(Chain, Direction), Vec<usize>>,
    chains: BTreeMap<(Chain, Direction, String), Vec<usize>>,
}

impl FilterChains {
    /// No filters.
    pub fn new() -> Self {
        FilterChains::default()
    }

    /// Appends filters, in order, to the chain of every task named, in every direction named.
    pub fn append(
        &mut self,
        chain: Chain,
        directions: &[Direction],
        tasks: &[String],
        filters: Vec<Box<dyn TaskFilter>>,
    ) {
        let added = self.filters.len()..self.filters.len() + filters.len();
        self.filters.extend(filters);
        for direction in directions {
            for task in tasks {
                self.chains.entry((chain, *direction, task.clone())).or_default().extend(added.clone());
            }
        }
    }

    /// Appends a filter to those that come before the chain of whatever task, in every direction named.
    pub fn append_for_every_task(
        &mut self,
        chain: Chain,
        directions: &[Direction],
        filter: Box<dyn TaskFilter>,
    ) {
        for direction in directions {
            self.every_task.entry((chain, *direction)).or_default().push(self.filters.len());
        }
        self.filters.push(filter);
    }

    /// Passes a payload through the filters for every task and then through its chain; as it is when there are none.
    ///
    /// # Errors
    /// That of the first filter that stops it.
    pub fn apply(&mut self, data: Shareable, cx: &FilterCx<'_>) -> Result<Shareable, FilterError> {
        let first = self.every_task.get(&(cx.chain, cx.direction));
        let then = self.chains.get(&(cx.chain, cx.direction, cx.task.to_owned()));
        first.into_iter().chain(then).flatten().try_fold(data, |data, index| {
            match self.filters.get_mut(*index) {
                Some(filter) => filter.apply(data, cx),
                None => Err(FilterError::Failed("the chain names a filter that is not there".to_owned())),
            }
        })
    }
}

impl fmt::Debug for FilterChains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilterChains")
            .field("every_task", &self.every_task)
            .field("chains", &self.chains)
            .finish()
    }
}

/// Why a filter stopped a payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// The payload holds something that may not pass.
    #[error("blocked: {0}")]
    Blocked(String),
    /// The filter could not do its work.
    #[error("{0}")]
    Failed(String),
    /// The filter judges the whole job to be unsafe.
    #[error("the job is unsafe: {0}")]
    Unsafe(String),
}

impl FilterError {
    /// The return code that the other side is told.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.apis.fl_constant.ReturnCode`.
    pub fn return_code(&self, chain: Chain) -> &'static str {
        match (self, chain) {
            (FilterError::Unsafe(_), _) => "UNSAFE_JOB",
            (FilterError::Blocked(_) | FilterError::Failed(_), Chain::TaskData) => "TASK_DATA_FILTER_ERROR",
            (FilterError::Blocked(_) | FilterError::Failed(_), Chain::TaskResult) => {
                "TASK_RESULT_FILTER_ERROR"
            }
        }
    }
}
