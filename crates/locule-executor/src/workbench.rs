//! The work on one task: check, filter, execute, filter.

use std::panic::{AssertUnwindSafe, catch_unwind};

use locule_component::{
    AbortFlag, Assembled, Chain, Context, Direction, Event, EventBus, ExecuteError, ExecutorTable,
    FilterChains, FilterCx, RunContext, Task, TaskCx, panic_text,
};
use locule_fobs::Shareable;
use locule_protocol::{Assignment, prop};

/// Everything that a job built at a site, ready to work on tasks.
///
/// The order of steps, events and error codes is that of nvflare 2.9.0,
/// `nvflare.private.fed.client.client_runner`.
#[derive(Debug)]
pub struct Workbench {
    site: String,
    job_id: String,
    run: RunContext,
    executors: ExecutorTable,
    filters: FilterChains,
    events: EventBus,
    abort: AbortFlag,
}

impl Workbench {
    /// A workbench for the job `job_id` at `site`, with what was built from its plan.
    #[must_use]
    pub fn new(site: &str, job_id: &str, run: RunContext, assembled: Assembled, abort: AbortFlag) -> Self {
        Self {
            site: site.to_owned(),
            job_id: job_id.to_owned(),
            run,
            executors: assembled.executors,
            filters: assembled.filters,
            events: EventBus::new(assembled.observers),
            abort,
        }
    }

    /// Tells the job's observers.
    pub fn fire(&self, event: &Event<'_>) {
        self.events.fire(event, &self.run.open());
    }

    /// What tells executors to stop.
    #[must_use]
    pub fn abort_flag(&self) -> &AbortFlag {
        &self.abort
    }

    /// Works on a task. The result carries a return code other than `OK` if it could not be done.
    ///
    /// Blocks for as long as the executor computes.
    pub fn perform(&mut self, assignment: &Assignment) -> Shareable {
        let mut context = self.run.open();
        let mut result = match self.work(assignment, &mut context) {
            Ok(result) => result,
            Err(code) => with_code(code),
        };
        for header in ["current_round", "start_round", "num_rounds"] {
            if let (None, Some(value)) = (result.header(header), assignment.data.header(header)) {
                result.set_header(header, value.clone());
            }
        }
        result
    }

    fn work(&mut self, assignment: &Assignment, context: &mut Context) -> Result<Shareable, &'static str> {
        let task = assignment.name.as_str();
        let peer = assignment.data.peer_context().ok_or("MISSING_PEER_CONTEXT")?;
        match peer.str(prop::RUN_NUM) {
            None => return Err("BAD_PEER_CONTEXT"),
            Some(run) if run != self.job_id => return Err("RUN_MISMATCH"),
            Some(_) => context.set_peer(peer.clone()),
        }
        if self.executors.find(task).is_none() {
            tracing::warn!(task, "no executor for this task");
            return Err("TASK_UNKNOWN");
        }
        self.events.fire(&Event::BeforeTaskDataFilter { task }, context);
        let data = self.filter(assignment.data.clone(), task, Chain::TaskData, Direction::In, context)?;
        self.events.fire(&Event::AfterTaskDataFilter { task }, context);

        self.events.fire(&Event::BeforeTaskExecution { task }, context);
        let result = self.execute(assignment, data, context)?;
        self.events.fire(&Event::AfterTaskExecution { task }, context);

        self.events.fire(&Event::BeforeTaskResultFilter { task }, context);
        let result = self.filter(result, task, Chain::TaskResult, Direction::Out, context)?;
        self.events.fire(&Event::AfterTaskResultFilter { task }, context);
        Ok(result)
    }

    fn execute(
        &mut self,
        assignment: &Assignment,
        data: Shareable,
        context: &Context,
    ) -> Result<Shareable, &'static str> {
        let task = Task { name: assignment.name.clone(), id: assignment.id.clone(), data };
        let cx = TaskCx { site: &self.site, job_id: &self.job_id, abort: &self.abort, context };
        let executor = self.executors.find(&task.name).ok_or("TASK_UNKNOWN")?;
        match catch_unwind(AssertUnwindSafe(|| executor.execute(&task, &cx))) {
            Ok(Ok(_)) if self.abort.is_raised() => Err(ExecuteError::Aborted.return_code()),
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => {
                tracing::warn!(task = task.name, %error, "task failed");
                Err(error.return_code())
            }
            Err(panic) => {
                tracing::error!(task = task.name, error = panic_text(&*panic), "executor panicked");
                Err("EXECUTION_EXCEPTION")
            }
        }
    }

    fn filter(
        &mut self,
        data: Shareable,
        task: &str,
        chain: Chain,
        direction: Direction,
        context: &Context,
    ) -> Result<Shareable, &'static str> {
        let cx = FilterCx { site: &self.site, job_id: &self.job_id, task, chain, direction, context };
        match catch_unwind(AssertUnwindSafe(|| self.filters.apply(data, &cx))) {
            Ok(Ok(data)) => Ok(data),
            Ok(Err(error)) => {
                tracing::warn!(task, %error, "filter stopped the payload");
                Err(error.return_code(chain))
            }
            Err(panic) => {
                tracing::error!(task, error = panic_text(&*panic), "filter panicked");
                Err(match chain {
                    Chain::TaskData => "TASK_DATA_FILTER_ERROR",
                    Chain::TaskResult => "TASK_RESULT_FILTER_ERROR",
                })
            }
        }
    }
}

fn with_code(code: &str) -> Shareable {
    let mut result = Shareable::default();
    result.set_return_code(code);
    result
}
