//! From the first pull to the end of the run.

use std::time::Duration;

use locule_communicator::{JobCommunicator, PullError, Pulled, SubmitError, SyncError};
use locule_component::Event;
use locule_fobs::Shareable;
use locule_protocol::Assignment;
use tokio_util::sync::CancellationToken;

use crate::workbench::Workbench;

/// Waits of a task loop.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Pace {
    /// How long the job at the server may take to become ready (60 s).
    pub sync_limit: Duration,
    /// Pause before a pull or submission that failed is tried again (2 s).
    pub retry: Duration,
    /// Shortest pause between two pulls, whatever the server says (10 ms).
    pub shortest: Duration,
    /// From one sign of life to the next while a task takes long (10 s).
    pub heartbeat: Duration,
    /// How long an executor may take to stop once it was told to (10 s).
    pub abort_grace: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            sync_limit: Duration::from_secs(60),
            retry: Duration::from_secs(2),
            shortest: Duration::from_millis(10),
            heartbeat: Duration::from_secs(10),
            abort_grace: Duration::from_secs(10),
        }
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunSummary {
    /// Tasks whose result the server took.
    pub tasks_done: u64,
}

/// Why a run did not reach its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The job at the server did not become ready.
    #[error("run did not begin")]
    Sync(#[from] SyncError),
    /// The site, or the server, stopped it.
    #[error("run was aborted")]
    Aborted,
    /// An executor did not stop when it was told to.
    #[error("executor did not stop within {} s", .0.as_secs())]
    Stuck(Duration),
    /// The thread that executes tasks is gone.
    #[error("work on a task ended without a result")]
    Lost,
}

/// Runs a job's tasks at a site until the server ends the run.
#[derive(Debug)]
pub struct TaskLoop {
    communicator: JobCommunicator,
    bench: Option<Workbench>,
    pace: Pace,
    cancel: CancellationToken,
    last_task: Option<String>,
    tasks_done: u64,
}

impl TaskLoop {
    /// A loop that speaks with `communicator` and works on `bench`; `cancel` aborts it.
    #[must_use]
    pub fn new(
        communicator: JobCommunicator,
        bench: Workbench,
        pace: Pace,
        cancel: CancellationToken,
    ) -> Self {
        Self { communicator, bench: Some(bench), pace, cancel, last_task: None, tasks_done: 0 }
    }

    /// Runs until the server says that the run is over.
    ///
    /// Observers hear `_end_run` also when the run is aborted.
    ///
    /// # Errors
    /// [`RunError`] says why it ended early.
    pub async fn run(mut self) -> Result<RunSummary, RunError> {
        self.communicator.sync(self.pace.sync_limit).await?;
        self.fire(&Event::AboutToStartRun);
        self.fire(&Event::StartRun);
        let ended = self.pull_until_the_end().await;
        if ended.is_err() {
            self.fire(&Event::AbortTask);
        }
        self.fire(&Event::AboutToEndRun);
        self.fire(&Event::EndRun);
        ended.map(|()| RunSummary { tasks_done: self.tasks_done })
    }

    async fn pull_until_the_end(&mut self) -> Result<(), RunError> {
        loop {
            self.fire(&Event::BeforePullTask);
            let pulled = self.communicator.pull_task(self.last_task.as_deref()).await;
            self.fire(&Event::AfterPullTask);
            let wait = match pulled {
                Ok(Pulled::Task(task)) => {
                    self.perform_and_submit(&task).await?;
                    self.last_task = Some(task.id.clone());
                    task.wait
                }
                Ok(Pulled::TryAgain { wait }) => wait,
                Ok(Pulled::EndRun) => return Ok(()),
                Err(PullError::Cancelled) => return Err(RunError::Aborted),
                Err(error) => {
                    tracing::debug!(%error, "pull failed; trying again");
                    self.pace.retry
                }
                Ok(other) => {
                    tracing::debug!(?other, "pull brought something unknown");
                    self.pace.retry
                }
            };
            self.pause(wait.max(self.pace.shortest)).await?;
        }
    }

    async fn perform_and_submit(&mut self, task: &Assignment) -> Result<(), RunError> {
        let ssid = self.communicator.session().ssid().to_owned();
        let result = self.perform(task).await?;
        self.fire(&Event::BeforeSendTaskResult { task: &task.name });
        let sent = self.send(task, &ssid, result).await;
        self.fire(&Event::AfterSendTaskResult { task: &task.name });
        sent
    }

    /// Executes on a blocking thread, with signs of life to the server meanwhile.
    async fn perform(&mut self, task: &Assignment) -> Result<Shareable, RunError> {
        let mut bench = self.bench.take().ok_or(RunError::Lost)?;
        let abort = bench.abort_flag().clone();
        let assignment = task.clone();
        let mut working = tokio::task::spawn_blocking(move || {
            let result = bench.perform(&assignment);
            (bench, result)
        });
        let mut heartbeat = tokio::time::interval(self.pace.heartbeat);
        heartbeat.tick().await;
        loop {
            tokio::select! {
                done = &mut working => {
                    let (bench, result) = done.map_err(|_| RunError::Lost)?;
                    self.bench = Some(bench);
                    return Ok(result);
                }
                _ = heartbeat.tick() => {
                    if let Err(error) = self.communicator.job_heartbeat().await {
                        tracing::debug!(%error, "job heartbeat not sent");
                    }
                }
                () = self.cancel.cancelled() => {
                    abort.raise();
                    let grace = self.pace.abort_grace;
                    let done = tokio::time::timeout(grace, working).await.map_err(|_| RunError::Stuck(grace))?;
                    self.bench = done.ok().map(|(bench, _)| bench);
                    return Err(RunError::Aborted);
                }
            }
        }
    }

    /// Sends until the server took the result or does not want it any more.
    async fn send(&mut self, task: &Assignment, ssid: &str, mut result: Shareable) -> Result<(), RunError> {
        loop {
            match self.communicator.is_wanted(&task.id).await {
                Ok(true) => match self.communicator.submit_update(task, ssid, result.clone()).await {
                    Ok(()) => {
                        self.tasks_done += 1;
                        return Ok(());
                    }
                    Err(SubmitError::Cancelled) => return Err(RunError::Aborted),
                    Err(SubmitError::InvalidSession) => return Ok(()),
                    Err(SubmitError::Encode(error)) => {
                        tracing::error!(%error, task = task.name, "result cannot be sent; saying so instead");
                        result = Shareable::default();
                        result.set_return_code("EXECUTION_RESULT_ERROR");
                        continue;
                    }
                    Err(error) => tracing::warn!(%error, task = task.name, "submission failed; trying again"),
                },
                Ok(false) => {
                    tracing::info!(task = task.name, "server does not want the result any more");
                    return Ok(());
                }
                Err(error) => tracing::debug!(%error, "task check failed; trying again"),
            }
            self.pause(self.pace.retry).await?;
        }
    }

    async fn pause(&self, wait: Duration) -> Result<(), RunError> {
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = self.cancel.cancelled() => Err(RunError::Aborted),
        }
    }

    fn fire(&self, event: &Event<'_>) {
        if let Some(bench) = &self.bench {
            bench.fire(event);
        }
    }
}
