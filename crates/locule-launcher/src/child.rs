//! The other end of a [`ProcessLauncher`](crate::ProcessLauncher): a process that is one job.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Pid, Signal, getpgrp, getpid, kill_process_group};
use rustix::stdio::{dup2_stdin, dup2_stdout};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::wire::{self, Brief, MAX_LINE, Order, Word};
use crate::{JobFailure, JobOutcome, JobStart, task};

/// The job that this process is.
///
/// A launcher started it and holds the other end of its standard input: when that ends, because the launcher or its
/// whole process has, this process and all that it started are killed at once.
#[derive(Debug)]
pub struct JobProcess {
    /// What the job was told.
    pub start: JobStart,
    /// What it was told in confidence, now and whenever it changes.
    pub brief: watch::Receiver<Brief>,
    /// Cancelled when it is to stop.
    pub abort: CancellationToken,
    last_word: File,
}

/// Why a process is no job.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BeginError {
    /// Nobody told it what to do.
    #[error("this process was not started by a launcher")]
    NotLaunched,
    /// Its limits could not be set.
    #[error("the limits of the job's process cannot be set")]
    Limits(#[source] io::Error),
    /// Its streams could not be arranged.
    #[error("the streams of the job's process cannot be used")]
    Streams(#[source] io::Error),
}

impl JobProcess {
    /// Hears what this process is to do, and confines it. Blocking; to be called before there is anything else in the
    /// process, such as a runtime.
    ///
    /// From now on standard input is empty and standard output is standard error, so that nothing that the job runs
    /// reads orders or speaks in its place.
    ///
    /// # Errors
    /// [`BeginError`].
    pub fn begin() -> Result<JobProcess, BeginError> {
        let (orders, last_word) = take_streams().map_err(BeginError::Streams)?;
        let mut orders = BufReader::new(orders);
        let Some(Order::Begin { start, limits, brief }) = next(&mut orders) else {
            return Err(BeginError::NotLaunched);
        };
        // Its end will be that of its whole group, which must be its own.
        if getpgrp() != getpid() {
            return Err(BeginError::NotLaunched);
        }
        limits.take_effect().map_err(BeginError::Limits)?;
        let (briefs, brief) = watch::channel(brief);
        let abort = CancellationToken::new();
        let stop = abort.clone();
        let obey = move || {
            while let Some(order) = next(&mut orders) {
                match order {
                    Order::Brief(brief) => drop(briefs.send_replace(brief)),
                    Order::Abort => stop.cancel(),
                    Order::Begin { .. } => break,
                }
            }
            end_with(getpgrp());
        };
        let thread = std::thread::Builder::new().name("locule-orders".to_owned()).spawn(obey);
        thread.map_err(BeginError::Streams)?;
        Ok(JobProcess { start: *start, brief, abort, last_word })
    }

    /// Runs the job to its end and tells the launcher how it ended. The process should end then.
    ///
    /// # Errors
    /// What the operating system says when the launcher cannot be told.
    pub async fn run<Job>(self, job: impl FnOnce(JobStart, CancellationToken) -> Job) -> io::Result<()>
    where
        Job: Future<Output = Result<(), JobFailure>> + Send + 'static,
    {
        let Self { start, abort, mut last_word, brief: _ } = self;
        let ended = tokio::spawn(job(start, abort)).await;
        let word = match task::outcome_of(ended, false) {
            JobOutcome::Completed => Word::Completed,
            JobOutcome::Failed(failure) => {
                Word::Failed { kind: failure.kind(), reason: failure.reason().to_owned() }
            }
            JobOutcome::Panicked { message } => Word::Panicked { message },
            JobOutcome::Aborted | JobOutcome::Killed | JobOutcome::Died(_) => {
                Word::Panicked { message: "its task was cancelled".to_owned() }
            }
        };
        let line = wire::line(&word).unwrap_or_default();
        last_word.write_all(&line)
    }
}

/// Standard input and output, for this crate alone.
fn take_streams() -> io::Result<(File, File)> {
    let orders = fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let last_word = fcntl_dupfd_cloexec(io::stdout(), 3)?;
    dup2_stdin(OpenOptions::new().read(true).open("/dev/null")?)?;
    dup2_stdout(io::stderr())?;
    Ok((orders.into(), last_word.into()))
}

/// The next order; nothing at their end, and at anything that is none.
fn next(orders: &mut BufReader<File>) -> Option<Order> {
    let mut line = Vec::new();
    orders.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line).ok()?;
    serde_json::from_slice(&line).ok()
}

/// Ends this process with its whole group.
fn end_with(group: Pid) {
    kill_process_group(group, Signal::KILL).ok();
}
