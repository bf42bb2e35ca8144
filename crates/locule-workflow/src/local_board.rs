//! A federation in one process.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll, Waker};

use locule_component::{
    AbortFlag, BoxFuture, ExecuteError, Executor, ExecutorTable, Gathered, OutgoingTask, Progress,
    ResultSink, RunContext, Task, TaskBoard, TaskCx, Workflow, WorkflowError,
};
use locule_fobs::{Shareable, header};

/// A board whose sites are executors in the same process: no network, no threads, no clock.
///
/// A task runs at one site after the other, in the order of their names. It serves simulations and tests:
/// a workflow and its executors run as they would in a federation, and the same inputs give the same
/// models.
pub struct LocalBoard {
    run_dir: PathBuf,
    sites: BTreeMap<String, Mutex<ExecutorTable>>,
    abort: AbortFlag,
    progress: Mutex<Vec<Progress>>,
}

impl LocalBoard {
    /// A board without sites yet, that keeps what it saves in `run_dir`.
    pub fn new(run_dir: impl Into<PathBuf>) -> LocalBoard {
        LocalBoard {
            run_dir: run_dir.into(),
            sites: BTreeMap::new(),
            abort: AbortFlag::new(),
            progress: Mutex::default(),
        }
    }

    /// Adds a site with one executor for every task.
    pub fn add_site(&mut self, name: impl Into<String>, executor: Box<dyn Executor>) {
        let mut executors = ExecutorTable::new();
        executors.insert(["*".to_owned()], executor);
        self.add_site_with(name, executors);
    }

    /// Adds a site, or gives one that is there other executors.
    pub fn add_site_with(&mut self, name: impl Into<String>, executors: ExecutorTable) {
        self.sites.insert(name.into(), Mutex::new(executors));
    }

    /// Runs a workflow to its end.
    ///
    /// # Errors
    /// What the workflow answers; [`WorkflowError::Failed`] also when it waits for anything but this board.
    pub fn run(&self, workflow: &mut dyn Workflow) -> Result<(), WorkflowError> {
        // Everything that this board hands out is ready at once, so that one poll is the whole run.
        let mut run = pin!(workflow.run(self));
        match run.as_mut().poll(&mut task::Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => {
                Err(WorkflowError::Failed("the workflow waits for something else than its board".into()))
            }
        }
    }

    /// Raising it stops executors and workflow.
    pub fn abort_flag(&self) -> &AbortFlag {
        &self.abort
    }

    /// What has been reported so far.
    pub fn progress(&self) -> Vec<Progress> {
        lock(&self.progress).clone()
    }

    fn ask(&self, site: &str, executors: &Mutex<ExecutorTable>, task: &OutgoingTask) -> Shareable {
        let context = RunContext::new(site, self.job_id()).open();
        let cx = TaskCx { site, job_id: self.job_id(), abort: &self.abort, context: &context };
        let task =
            Task { name: task.name.clone(), id: format!("{}-{site}", task.name), data: task.data.clone() };
        let outcome = match lock(executors).find(&task.name) {
            Some(executor) => executor.execute(&task, &cx),
            None => Err(ExecuteError::UnknownTask(task.name)),
        };
        outcome.unwrap_or_else(|error| {
            let mut result = Shareable::with_return_code(error.return_code());
            result.set_header(header::ERROR, error.to_string());
            result
        })
    }
}

impl TaskBoard for LocalBoard {
    fn job_id(&self) -> &str {
        "local"
    }

    fn sites(&self) -> Vec<String> {
        self.sites.keys().cloned().collect()
    }

    fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    fn broadcast<'a>(
        &'a self,
        task: OutgoingTask,
        sink: &'a mut (dyn ResultSink + 'a),
    ) -> BoxFuture<'a, Result<Gathered, WorkflowError>> {
        Box::pin(async move {
            let mut gathered = Gathered::default();
            for (site, executors) in self.sites.iter().filter(|(site, _)| task.is_for(site)) {
                if self.abort.is_raised() {
                    return Err(WorkflowError::Aborted);
                }
                let result = self.ask(site, executors, &task);
                match sink.accept(site, &result) {
                    Ok(()) => gathered.accepted.push(site.clone()),
                    Err(unusable) => gathered.missing.push((site.clone(), unusable)),
                }
            }
            let asked = gathered.accepted.len() + gathered.missing.len();
            let needed = if task.min_results == 0 { asked } else { task.min_results };
            if gathered.accepted.len() < needed {
                let (accepted, missing) = (gathered.accepted.len(), gathered.missing);
                let OutgoingTask { name: task, round, .. } = task;
                return Err(WorkflowError::TooFewResults { task, round, accepted, needed, missing });
            }
            Ok(gathered)
        })
    }

    fn report(&self, progress: Progress) {
        lock(&self.progress).push(progress);
    }

    fn is_aborted(&self) -> bool {
        self.abort.is_raised()
    }
}

impl fmt::Debug for LocalBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalBoard").field("run_dir", &self.run_dir).field("sites", &self.sites()).finish()
    }
}

/// What a panicking executor left behind is its own; the board goes on.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
