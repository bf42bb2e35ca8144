//! From the first pull to the end of the run.

use std::fmt;
use std::time::Duration;

use locule_cell::RequestError;
use locule_communicator::{JobCommunicator, PullError, Pulled, SayError, Submission, SubmitError, SyncError};
use locule_component::Event;
use locule_event::Herald;
use locule_fobs::Shareable;
use locule_protocol::Assignment;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::tell::Teller;
use crate::turns::{Turn, Turns};
use crate::workbench::Workbench;

/// Waits of a task loop.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Pace {
    /// How long the job at the server may take to become ready (60 s).
    pub sync_limit: Duration,
    /// Longest pause before a pull or submission that failed is tried again (2 s); the first is an eighth of it, and
    /// each one after that twice as long.
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
    #[error("executor did not stop within {} s", .0.as_secs_f64())]
    Stuck(Duration),
    /// The thread that executes tasks is gone.
    #[error("work on a task ended without a result")]
    Lost,
    /// Neither a result nor the word that there is none can be sent.
    #[error("result cannot be sent: {0}")]
    Unsendable(String),
}

/// Runs a job's tasks at a site until the server ends the run.
#[derive(Debug)]
pub struct TaskLoop {
    communicator: JobCommunicator,
    bench: Option<Workbench>,
    teller: Option<Teller>,
    herald: Herald,
    pace: Pace,
    turns: Option<Turns>,
    cancel: CancellationToken,
    last_task: Option<String>,
    tasks_done: u64,
    /// How often in a row the server did not answer: the operator is told once.
    failures: u32,
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
        let herald = bench.herald().clone();
        Self {
            communicator,
            bench: Some(bench),
            teller: None,
            herald,
            pace,
            turns: None,
            cancel,
            last_task: None,
            tasks_done: 0,
            failures: 0,
        }
    }

    /// The same, which works on a task only when it has a turn.
    #[must_use]
    pub fn turns(mut self, turns: Turns) -> Self {
        self.turns = Some(turns);
        self
    }

    /// Runs until the server says that the run is over.
    ///
    /// While the server is away the loop asks on. Observers hear `_end_run` also when the run is aborted. To
    /// stop it use its cancellation token: dropping the future leaves the executor at work and tells nobody.
    ///
    /// # Errors
    /// [`RunError`] says why it ended early.
    pub async fn run(mut self) -> Result<RunSummary, RunError> {
        self.communicator.sync(self.pace.sync_limit).await?;
        self.teller = Some(Teller::start(self.communicator.clone()));
        self.herald.tell(&Event::AboutToStartRun).await;
        self.herald.tell(&Event::StartRun).await;
        let ended = self.pull_until_the_end().await;
        if ended.is_err() {
            self.herald.tell(&Event::AbortTask).await;
        }
        if let Some(teller) = self.teller.take() {
            teller.finish().await;
        }
        self.herald.tell(&Event::AboutToEndRun).await;
        self.herald.await_readiness(ended.is_ok()).await;
        self.herald.tell(&Event::EndRun).await;
        if let Some(mut bench) = self.bench.take() {
            let aborted = ended.is_err();
            let closing = tokio::task::spawn_blocking(move || bench.close(aborted)).await;
            if let Err(error) = closing {
                tracing::error!(%error, "executors cannot be closed");
            }
        }
        ended.map(|()| RunSummary { tasks_done: self.tasks_done })
    }

    async fn pull_until_the_end(&mut self) -> Result<(), RunError> {
        loop {
            let turn = match self.turns.clone() {
                Some(turns) => match self.turn(&turns).await? {
                    Some(turn) => Some(turn),
                    None => continue,
                },
                None => None,
            };
            self.herald.tell(&Event::BeforePullTask).await;
            let pulled = self.communicator.pull_task(self.last_task.as_deref()).await;
            self.herald.tell(&Event::AfterPullTask).await;
            let wait = match pulled {
                Ok(Pulled::Task(task)) => {
                    self.failures = 0;
                    self.perform_and_submit(&task).await?;
                    self.last_task = Some(task.id.clone());
                    turn.iter().for_each(Turn::count);
                    task.wait
                }
                Ok(Pulled::TryAgain { wait }) => {
                    self.failures = 0;
                    wait
                }
                Ok(Pulled::EndRun) => return Ok(()),
                Err(PullError::Cancelled | PullError::Request(RequestError::Closed)) => {
                    return Err(RunError::Aborted);
                }
                Err(PullError::Replaced) => Duration::ZERO,
                Err(error) => {
                    self.note_failure(&error, "pull failed; trying again");
                    self.next_try()
                }
            };
            drop(turn);
            self.pause(wait.max(self.pace.shortest)).await?;
        }
    }

    async fn perform_and_submit(&mut self, task: &Assignment) -> Result<(), RunError> {
        let ssid = self.communicator.session().ssid().to_owned();
        let result = self.perform(task).await?;
        self.herald.tell(&Event::BeforeSendTaskResult { task: &task.name }).await;
        let cancel = self.cancel.clone();
        let sent = tokio::select! {
            sent = self.send(task, &ssid, result) => sent,
            () = cancel.cancelled() => Err(RunError::Aborted),
        };
        self.herald.tell(&Event::AfterSendTaskResult { task: &task.name }).await;
        sent
    }

    /// Waits for a turn, with signs of life to the server meanwhile; none if there is nothing to do in it.
    ///
    /// A site takes its turn before it gets its task, and has it until its result is out: so no more models are in
    /// memory than sites work. Nobody waits in a turn for what others do.
    async fn turn(&mut self, turns: &Turns) -> Result<Option<Turn>, RunError> {
        match self.communicator.await_task().await {
            Ok(true) => {}
            Ok(false) => {
                self.pause(self.pace.shortest).await?;
                return Ok(None);
            }
            Err(SayError::Request(RequestError::Closed)) => return Err(RunError::Aborted),
            Err(error) => {
                self.note_failure(&error, "no word of tasks; trying again");
                self.pause(self.pace.retry).await?;
                return Ok(None);
            }
        }
        let taking = turns.take();
        tokio::pin!(taking);
        let mut heartbeat = ticks(self.pace.heartbeat).await;
        loop {
            tokio::select! {
                turn = &mut taking => return Ok(Some(turn)),
                _ = heartbeat.tick() => tell_alive(&self.communicator).await,
                () = self.cancel.cancelled() => return Err(RunError::Aborted),
            }
        }
    }

    /// Executes on a blocking thread, with signs of life to the server meanwhile.
    async fn perform(&mut self, task: &Assignment) -> Result<Shareable, RunError> {
        let mut bench = self.bench.take().ok_or(RunError::Lost)?;
        let abort = bench.abort_flag().clone();
        let assignment = task.clone();
        let mut working = tokio::task::spawn_blocking(move || {
            let result = bench.perform(&assignment);
            let metrics = bench.take_metrics();
            (bench, result, metrics)
        });
        let mut heartbeat = ticks(self.pace.heartbeat).await;
        loop {
            tokio::select! {
                done = &mut working => {
                    let (bench, result, metrics) = done.map_err(|_| RunError::Lost)?;
                    self.bench = Some(bench);
                    if let Some(teller) = &self.teller {
                        teller.tell(metrics).await;
                    }
                    return Ok(result);
                }
                _ = heartbeat.tick() => tell_alive(&self.communicator).await,
                () = self.cancel.cancelled() => {
                    abort.raise();
                    let grace = self.pace.abort_grace;
                    let stopped = tokio::time::timeout(grace, working).await;
                    return Err(if stopped.is_ok() { RunError::Aborted } else { RunError::Stuck(grace) });
                }
            }
        }
    }

    /// Sends until the server took the result or does not want it any more.
    async fn send(&mut self, task: &Assignment, ssid: &str, result: Shareable) -> Result<(), RunError> {
        let mut submission = match self.communicator.prepare(task, result).await {
            Ok(submission) => submission,
            Err(error) => self.prepare_excuse(task, &error).await?,
        };
        let mut excused = false;
        loop {
            match self.communicator.is_wanted(&task.id).await {
                Ok(true) => match self.communicator.submit_update(&submission, ssid).await {
                    Ok(()) => {
                        self.failures = 0;
                        self.tasks_done += 1;
                        return Ok(());
                    }
                    Err(SubmitError::InvalidSession) => return Ok(()),
                    Err(SubmitError::Cancelled | SubmitError::Request(RequestError::Closed)) => {
                        return Err(RunError::Aborted);
                    }
                    Err(SubmitError::Replaced) => continue,
                    Err(error @ SubmitError::Request(RequestError::TooBig)) if !excused => {
                        submission = self.prepare_excuse(task, &error).await?;
                        excused = true;
                        continue;
                    }
                    Err(error) => self.note_failure(&error, "submission failed; trying again"),
                },
                Ok(false) => {
                    tracing::info!(task = task.name, "server does not want the result any more");
                    return Ok(());
                }
                Err(SayError::Request(RequestError::Closed)) => return Err(RunError::Aborted),
                Err(error) => self.note_failure(&error, "task check failed; trying again"),
            }
            tokio::time::sleep(self.next_try()).await;
        }
    }

    /// What is sent in place of a result that cannot be sent.
    async fn prepare_excuse(
        &mut self,
        task: &Assignment,
        error: &SubmitError,
    ) -> Result<Submission, RunError> {
        let gave_up = |error: &SubmitError| matches!(error, SubmitError::Cancelled);
        if gave_up(error) {
            return Err(RunError::Aborted);
        }
        tracing::error!(%error, task = task.name, "result cannot be sent; saying so instead");
        let excuse = Shareable::with_return_code("EXECUTION_RESULT_ERROR");
        self.communicator.prepare(task, excuse).await.map_err(|error| {
            if gave_up(&error) { RunError::Aborted } else { RunError::Unsendable(error.to_string()) }
        })
    }

    /// Says once aloud that the server is away.
    fn note_failure(&mut self, error: &dyn fmt::Display, what: &'static str) {
        self.failures = self.failures.saturating_add(1);
        if self.failures > 1 {
            tracing::debug!(%error, "{what}");
        } else {
            tracing::warn!(%error, "{what}");
        }
    }

    /// How long to wait after a failure: a server that is back within a second is found at once, and one that stays
    /// away is not pestered.
    fn next_try(&self) -> Duration {
        self.pace.retry / (1 << 3_u32.saturating_sub(self.failures.saturating_sub(1)))
    }

    async fn pause(&mut self, wait: Duration) -> Result<(), RunError> {
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = self.cancel.cancelled() => Err(RunError::Aborted),
        }
    }
}

/// Ticks every `period`, for the first time when one is over.
async fn ticks(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    ticks
}

async fn tell_alive(communicator: &JobCommunicator) {
    if let Err(error) = communicator.job_heartbeat().await {
        tracing::debug!(%error, "job heartbeat not sent");
    }
}
