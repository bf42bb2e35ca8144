//! The work on one task: check, filter, execute, filter.

use std::panic::{AssertUnwindSafe, catch_unwind};

use locule_component::{
    AbortFlag, Assembled, Chain, Context, Direction, Event, ExecuteError, ExecutorTable, FilterChains,
    FilterCx, FilterError, Metric, RunContext, Task, TaskCx, panic_text,
};
use locule_event::Herald;
use locule_fobs::{Shareable, Value, header};
use locule_protocol::{Assignment, prop};

const ABORTED: &str = "TASK_ABORTED";
const UNSAFE: &str = "UNSAFE_JOB";

/// Longest reason that goes to the server with a code, in characters.
const MAX_REASON: usize = 2000;

/// Why there is no result: a return code, and what the executor said.
struct Excuse {
    code: &'static str,
    reason: Option<String>,
}

impl From<&'static str> for Excuse {
    fn from(code: &'static str) -> Self {
        Self { code, reason: None }
    }
}

/// What a workflow wants back with a result: taken over from the task where the executor does not say.
const ROUND_HEADERS: [&str; 3] = ["current_round", "start_round", "num_rounds"];

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
    herald: Herald,
    abort: AbortFlag,
    /// A component judged the job to be unsafe: nothing of it runs any more.
    unsafe_job: bool,
}

impl Workbench {
    /// A workbench for the job `job_id` at `site`, with what was built from its plan.
    #[must_use]
    pub fn new(site: &str, job_id: &str, run: RunContext, assembled: Assembled, abort: AbortFlag) -> Self {
        Self {
            site: site.to_owned(),
            job_id: job_id.to_owned(),
            herald: Herald::new(assembled.observers, run.clone()),
            run,
            executors: assembled.executors,
            filters: assembled.filters,
            abort,
            unsafe_job: false,
        }
    }

    /// Tells the job's observers, also while the workbench is at work elsewhere.
    #[must_use]
    pub fn herald(&self) -> &Herald {
        &self.herald
    }

    /// What tells executors to stop.
    #[must_use]
    pub fn abort_flag(&self) -> &AbortFlag {
        &self.abort
    }

    /// Has every executor end what it started.
    pub fn close(&mut self, aborted: bool) {
        for executor in self.executors.iter_mut() {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| executor.close(aborted))) {
                tracing::error!(error = panic_text(&*panic), "executor panicked at the end of the run");
            }
        }
    }

    /// What the executors measured since this was asked last.
    pub fn take_metrics(&mut self) -> Vec<Metric> {
        let taken = self
            .executors
            .iter_mut()
            .map(|executor| catch_unwind(AssertUnwindSafe(|| executor.take_metrics())).unwrap_or_default());
        taken.flatten().collect()
    }

    /// Works on a task. The result carries a return code other than `OK` if it could not be done.
    ///
    /// Once a component has judged the job to be unsafe, every later task is answered with `UNSAFE_JOB`.
    /// Blocks for as long as the executor computes.
    pub fn perform(&mut self, assignment: &Assignment) -> Shareable {
        let mut context = self.run.open();
        let result = if self.unsafe_job { Err(UNSAFE.into()) } else { self.work(assignment, &mut context) };
        let mut result = result.unwrap_or_else(|Excuse { code, reason }| {
            self.unsafe_job |= code == UNSAFE;
            let mut excuse = Shareable::with_return_code(code);
            if let Some(reason) = reason {
                excuse.set_header(header::ERROR, reason);
            }
            excuse
        });
        for name in ROUND_HEADERS {
            if let (None, Some(value)) = (result.header(name), assignment.data.header(name)) {
                result.set_header(name, value.clone());
            }
        }
        result
    }

    fn work(&mut self, assignment: &Assignment, context: &mut Context) -> Result<Shareable, Excuse> {
        let task = assignment.name.as_str();
        match assignment.data.header(header::PEER_CONTEXT) {
            None | Some(Value::None) => return Err("MISSING_PEER_CONTEXT".into()),
            Some(Value::Context(peer)) if peer.str(prop::RUN_NUM) == Some(&self.job_id) => {
                context.set_peer(peer.clone());
            }
            Some(Value::Context(_)) => return Err("RUN_MISMATCH".into()),
            Some(_) => return Err("BAD_PEER_CONTEXT".into()),
        }
        if self.executors.find(task).is_none() {
            tracing::warn!(task, "no executor for this task");
            return Err("TASK_UNKNOWN".into());
        }
        self.herald.tell_blocking(&Event::BeforeTaskDataFilter { task }, context);
        let data = self.filter(assignment.data.clone(), task, Chain::TaskData, Direction::In, context)?;
        self.herald.tell_blocking(&Event::AfterTaskDataFilter { task }, context);

        self.herald.tell_blocking(&Event::BeforeTaskExecution { task }, context);
        let result = self.execute(assignment, data, context)?;
        self.herald.tell_blocking(&Event::AfterTaskExecution { task }, context);

        self.herald.tell_blocking(&Event::BeforeTaskResultFilter { task }, context);
        let result = self.filter(result, task, Chain::TaskResult, Direction::Out, context)?;
        self.herald.tell_blocking(&Event::AfterTaskResultFilter { task }, context);
        Ok(result)
    }

    fn execute(
        &mut self,
        assignment: &Assignment,
        data: Shareable,
        context: &Context,
    ) -> Result<Shareable, Excuse> {
        let task = Task { name: assignment.name.clone(), id: assignment.id.clone(), data };
        let cx = TaskCx { site: &self.site, job_id: &self.job_id, abort: &self.abort, context };
        let executor = self.executors.find(&task.name).ok_or("TASK_UNKNOWN")?;
        match catch_unwind(AssertUnwindSafe(|| executor.execute(&task, &cx))) {
            Ok(Err(error @ ExecuteError::Unsafe(_))) => {
                tracing::error!(task = task.name, %error, "task failed");
                Err(error.return_code().into())
            }
            _ if self.abort.is_raised() => Err(ABORTED.into()), // whatever came of it is of no use
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => {
                tracing::warn!(task = task.name, %error, "task failed");
                let reason = error.to_string().chars().take(MAX_REASON).collect();
                Err(Excuse { code: error.return_code(), reason: Some(reason) })
            }
            Err(panic) => {
                tracing::error!(task = task.name, error = panic_text(&*panic), "executor panicked");
                Err("EXECUTION_EXCEPTION".into())
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
            Ok(Err(error @ FilterError::Unsafe(_))) => {
                tracing::error!(task, %error, "filter stopped the payload");
                Err(error.return_code(chain))
            }
            _ if self.abort.is_raised() => Err(ABORTED),
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
