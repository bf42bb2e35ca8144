//! The two ends of a running job: the handle its parent holds, the report its launcher writes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::{FailureKind, JobFailure, JobOutcome};

/// A running or ended job. Clones stand for the same job; dropping them all does not stop it.
#[derive(Clone, Debug)]
pub struct JobHandle {
    job_id: Arc<str>,
    /// When the job has to be gone; set by the first request to abort, only ever moved earlier.
    deadline: watch::Sender<Option<Instant>>,
    outcome: watch::Receiver<Option<JobOutcome>>,
}

impl JobHandle {
    /// A handle for a job that a launcher has just started, and the launcher's end of it.
    pub fn new(job_id: &str) -> (JobHandle, JobReport) {
        let (deadline, abort) = watch::channel(None);
        let (report, outcome) = watch::channel(None);
        (JobHandle { job_id: job_id.into(), deadline, outcome }, JobReport { abort, outcome: report })
    }

    /// The job's identifier.
    pub fn job_id(&self) -> &str {
        &self.job_id
    }

    /// How the job ended, or `None` while it runs.
    pub fn outcome(&self) -> Option<JobOutcome> {
        let outcome = self.outcome.borrow().clone();
        outcome.or_else(|| self.outcome.has_changed().is_err().then(lost))
    }

    /// Waits until the job has ended. Cancel-safe, and may be called any number of times.
    pub async fn wait(&self) -> JobOutcome {
        let mut outcome = self.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await;
        ended.ok().and_then(|ended| ended.clone()).unwrap_or_else(lost)
    }

    /// Asks the job to stop, and has it ended when `grace` is over; with no grace it is ended and not asked.
    /// Asking again can only shorten the grace.
    pub fn request_abort(&self, grace: Duration) {
        let now = Instant::now();
        let wanted = now.checked_add(grace).unwrap_or(now + A_YEAR);
        self.deadline.send_if_modified(|deadline| {
            let earlier = deadline.is_none_or(|set| wanted < set);
            if earlier {
                *deadline = Some(wanted);
            }
            earlier
        });
    }

    /// [`JobHandle::request_abort`], then waits. Dropping the future does not take the request back.
    pub async fn abort(&self, grace: Duration) -> JobOutcome {
        self.request_abort(grace);
        self.wait().await
    }
}

/// Stands in for a grace that overflows the clock.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The launcher's end of a [`JobHandle`]: hears requests to abort, tells the outcome.
///
/// Dropped without an outcome, it fails the job with [`FailureKind::Infrastructure`].
#[derive(Debug)]
pub struct JobReport {
    abort: watch::Receiver<Option<Instant>>,
    outcome: watch::Sender<Option<JobOutcome>>,
}

impl JobReport {
    /// Waits for a request to abort and gives the instant by which the job has to be gone. Called
    /// again, it waits for the next, earlier one. Never resolves if no request can come any more.
    /// Cancel-safe.
    pub async fn abort_requested(&mut self) -> Instant {
        loop {
            if self.abort.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(deadline) = *self.abort.borrow_and_update() {
                return deadline;
            }
        }
    }

    /// Tells how the job ended.
    pub fn finish(self, outcome: JobOutcome) {
        self.outcome.send_replace(Some(outcome));
    }
}

fn lost() -> JobOutcome {
    JobOutcome::Failed(JobFailure::new(FailureKind::Infrastructure, "the job's launcher is gone"))
}
