//! What a site hands in: filtered once, encoded once, sent as often as it takes.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use locule_component::{Chain, Direction, FilterCx, RunContext, TaskFilter, panic_text};
use locule_fobs::Shareable;
use locule_protocol::{EncodeError, Parts, SubmitUpdate};

/// A result as it will be sent, whatever the number of tries: a filter that adds noise adds it once.
#[derive(Clone)]
pub struct Submission {
    pub(crate) task: String,
    pub(crate) parts: Parts,
    /// The result only says that its task was aborted.
    pub(crate) aborted: bool,
}

impl Submission {
    /// Length of the payload, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.payload.body.len()
    }

    /// Whether the payload is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.payload.body.is_empty()
    }
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, aborted, .. } = self;
        f.debug_struct("Submission").field("task", task).field("aborted", aborted).finish_non_exhaustive()
    }
}

/// Filters of the site's own that every result of a job passes last.
#[derive(Default)]
pub(crate) struct StateProcessors {
    run: RunContext,
    filters: Mutex<Vec<Box<dyn TaskFilter>>>,
}

impl StateProcessors {
    pub(crate) fn new(run: RunContext, filters: Vec<Box<dyn TaskFilter>>) -> Self {
        Self { run, filters: Mutex::new(filters) }
    }

    /// Blocks for as long as the filters compute.
    pub(crate) fn prepare(
        &self,
        mut update: SubmitUpdate,
        site: &str,
        job_id: &str,
    ) -> Result<Submission, EncodeError> {
        let context = self.run.open();
        let (chain, direction) = (Chain::TaskResult, Direction::Out);
        let cx = FilterCx { site, job_id, task: &update.task_name, chain, direction, context: &context };
        update.result = self.apply(update.result, &cx);
        let aborted = update.result.return_code() == "TASK_ABORTED";
        Ok(Submission { parts: update.to_parts()?, task: update.task_name, aborted })
    }

    fn apply(&self, result: Shareable, cx: &FilterCx<'_>) -> Shareable {
        let mut filters = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        let apply = || filters.iter_mut().try_fold(result, |result, filter| filter.apply(result, cx));
        match catch_unwind(AssertUnwindSafe(apply)) {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => {
                tracing::warn!(job = cx.job_id, %error, "state processor stopped the result");
                Shareable::with_return_code(error.return_code(cx.chain))
            }
            Err(panic) => {
                tracing::error!(job = cx.job_id, error = panic_text(&*panic), "state processor panicked");
                Shareable::with_return_code("TASK_RESULT_FILTER_ERROR")
            }
        }
    }
}

impl fmt::Debug for StateProcessors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateProcessors").finish_non_exhaustive()
    }
}
