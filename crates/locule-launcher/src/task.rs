//! A job as a task of this process.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{JobFailure, JobHandle, JobOutcome, JobReport, JobStart, LaunchError, Launcher, truncated};

/// Runs each job as a task on the current tokio runtime.
///
/// What a job does is the function given to [`TaskLauncher::new`]; it gets the [`JobStart`] and a
/// token that is cancelled when the job is asked to stop. A panic in it ends that job only. When the
/// grace of an abort is over, the task is cancelled at its next await; work that it put on a thread
/// of its own goes on until that work looks at the token, so it should.
pub struct TaskLauncher<F> {
    run: Arc<F>,
}

impl<F, Job> TaskLauncher<F>
where
    F: Fn(JobStart, CancellationToken) -> Job + Send + Sync + 'static,
    Job: Future<Output = Result<(), JobFailure>> + Send + 'static,
{
    /// A launcher whose jobs are calls of `run`.
    pub fn new(run: F) -> TaskLauncher<F> {
        TaskLauncher { run: Arc::new(run) }
    }
}

impl<F, Job> Launcher for TaskLauncher<F>
where
    F: Fn(JobStart, CancellationToken) -> Job + Send + Sync + 'static,
    Job: Future<Output = Result<(), JobFailure>> + Send + 'static,
{
    fn start(&self, job: JobStart) -> Result<JobHandle, LaunchError> {
        let runtime = Handle::try_current().map_err(|_| LaunchError::NoRuntime)?;
        let (handle, report) = JobHandle::new(&job.job_id);
        let abort = CancellationToken::new();
        let work = runtime.spawn({
            // The function itself is called inside the task, so that its panic is the job's too.
            let (run, abort) = (Arc::clone(&self.run), abort.clone());
            async move { run(job, abort).await }
        });
        runtime.spawn(supervise(work, abort, report));
        Ok(handle)
    }
}

impl<F> fmt::Debug for TaskLauncher<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskLauncher").finish_non_exhaustive()
    }
}

async fn supervise(
    mut work: JoinHandle<Result<(), JobFailure>>,
    abort: CancellationToken,
    mut report: JobReport,
) {
    let mut deadline = None;
    let outcome = loop {
        let grace_over = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased; // a job that has ended has ended as it did, whoever wants it aborted by now
            ended = &mut work => break outcome_of(ended, abort.is_cancelled()),
            earlier = report.abort_requested() => {
                if earlier > Instant::now() {
                    abort.cancel();
                }
                deadline = Some(earlier);
            }
            () = grace_over => {
                work.abort();
                // For what the job has put on threads; the job itself sees no more of it.
                abort.cancel();
                break JobOutcome::Killed;
            }
        }
    };
    report.finish(outcome);
}

pub(crate) fn outcome_of(ended: Result<Result<(), JobFailure>, JoinError>, aborted: bool) -> JobOutcome {
    match ended {
        Err(error) => match error.try_into_panic() {
            Ok(payload) => JobOutcome::Panicked { message: truncated(message_of(payload)) },
            Err(_cancelled) => JobOutcome::Killed,
        },
        Ok(_) if aborted => JobOutcome::Aborted,
        Ok(Ok(())) => JobOutcome::Completed,
        Ok(Err(failure)) => JobOutcome::Failed(failure),
    }
}

fn message_of(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().map_or("no message", |text| text).to_owned(),
    }
}
