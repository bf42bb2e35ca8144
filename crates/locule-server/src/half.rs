//! The server's half of a job, and its next start when its process died.

use std::time::Duration;

use locule_launcher::{FailureKind, JobFailure, JobHandle, JobOutcome, JobStart, LaunchError, Launcher};
use tokio::time::Instant;

/// How often a half whose process died before it got a round done is started again within [`RESTARTS_WITHIN`]; after
/// that it fails.
const RESTARTS: usize = 4;
const RESTARTS_WITHIN: Duration = Duration::from_secs(600);

/// Pause before a half is tried again that may have found another at work.
const PAUSE: Duration = Duration::from_millis(250);

/// The half that runs, and what it was started with.
#[derive(Debug)]
pub(crate) struct Half {
    start: JobStart,
    pub(crate) handle: JobHandle,
    deaths: Vec<Instant>,
    /// Until then the half of an earlier run of the server may still be ending, and keep this one from beginning.
    left_over: Option<Instant>,
}

impl Half {
    pub(crate) fn start(
        launcher: &dyn Launcher,
        start: JobStart,
        left_over: Option<Instant>,
    ) -> Result<Self, LaunchError> {
        let handle = launcher.start(start.clone())?;
        Ok(Self { start, handle, deaths: Vec::new(), left_over })
    }

    /// It has got something done: earlier deaths are forgiven.
    pub(crate) fn got_on(&mut self) {
        self.deaths.clear();
    }

    /// Starts the half again, with what it was started with, if another start may do better; why.
    ///
    /// # Errors
    /// How it ended, if that is its end.
    pub(crate) async fn start_again(
        &mut self,
        launcher: &dyn Launcher,
        ended: JobOutcome,
    ) -> Result<String, JobOutcome> {
        let now = Instant::now();
        let failure = match &ended {
            JobOutcome::Died(failure) => failure,
            JobOutcome::Failed(failure)
                if failure.kind() == FailureKind::Infrastructure
                    && self.left_over.is_some_and(|until| now < until) =>
            {
                tokio::time::sleep(PAUSE).await;
                failure
            }
            JobOutcome::Completed
            | JobOutcome::Failed(_)
            | JobOutcome::Panicked { .. }
            | JobOutcome::Aborted
            | JobOutcome::Killed
            | _ => return Err(ended),
        };
        let reason = failure.reason().to_owned();
        if matches!(ended, JobOutcome::Died(_)) {
            self.deaths.retain(|death| now.duration_since(*death) < RESTARTS_WITHIN);
            self.deaths.push(now);
        }
        if self.deaths.len() > RESTARTS {
            let times = self.deaths.len();
            let reason = format!("{reason}; that was the {times}th time in ten minutes without a round done");
            return Err(JobOutcome::Failed(JobFailure::new(failure.kind(), reason)));
        }
        match launcher.start(self.start.clone()) {
            Ok(handle) => {
                self.handle = handle;
                Ok(reason)
            }
            Err(error) => {
                let reason = format!("{reason}; it could not be started again: {error}");
                Err(JobOutcome::Failed(JobFailure::new(failure.kind(), reason)))
            }
        }
    }
}
