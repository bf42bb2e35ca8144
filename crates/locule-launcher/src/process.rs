//! A job as a process of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::disk::disk_usage;
use crate::epitaph::{Epitaph, epitaph, lack};
use crate::log::{JobLog, LastLines};
use crate::wire::{self, Brief, MAX_LINE, Order, Word};
use crate::{
    FailureKind, JobFailure, JobHandle, JobOutcome, JobReport, JobStart, LaunchError, Launcher, Limits,
};

/// What is started for a job: a program that becomes a [`JobProcess`](crate::JobProcess), mostly the one that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments. Anybody on the machine can read them.
    pub args: Vec<OsString>,
}

/// Runs each job as a process of its own, so that a crash, a leak or an OOM kill of one touches no other.
///
/// The process gets an environment of what [`ProcessLauncher::environment`] and its [`JobStart`] name and nothing else,
/// a group of its own, its start and [`Brief`] through a pipe, and the [`Limits`]. What it prints goes to `log.txt` in
/// its run folder, at most 16 MiB of it. To stop, it is first asked; when half the grace is over its group gets SIGTERM,
/// and SIGKILL at the end. When a process has ended, whatever is left of its group is killed. When the launcher's
/// process ends, by whatever means, so do its jobs.
#[derive(Clone)]
pub struct ProcessLauncher {
    command: JobCommand,
    brief: watch::Receiver<Brief>,
    limits: Limits,
    environment: Arc<Environment>,
}

type Environment = dyn Fn() -> Vec<(OsString, OsString)> + Send + Sync;

/// Orders that wait to be read.
const ORDERS: usize = 16;
/// How long a process that has stopped may still have something to read in its streams.
const DRAIN: Duration = Duration::from_secs(1);
/// How long a process may take to stop that has passed a limit.
const LIMIT_GRACE: Duration = Duration::from_secs(10);
/// From one look at what a job takes up on disk to the next.
const DISK_LOOK: Duration = Duration::from_secs(10);
/// For glibc's allocator: a large block goes back to the system when it is let go, whatever was let go before. Blocks
/// of up to 32 MiB would stay with the process otherwise, those of a model among them.
const ALLOCATOR: [(&str, &str); 1] = [("MALLOC_MMAP_THRESHOLD_", "262144")];
/// Stands in for a time that overflows the clock.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

impl ProcessLauncher {
    /// A launcher whose jobs are runs of `command`. What changes in `brief` is told to every job that runs.
    pub fn new(command: JobCommand, brief: watch::Receiver<Brief>) -> ProcessLauncher {
        ProcessLauncher { command, brief, limits: Limits::default(), environment: Arc::new(Vec::new) }
    }

    /// The same with limits.
    #[must_use]
    pub fn limits(self, limits: Limits) -> ProcessLauncher {
        ProcessLauncher { limits, ..self }
    }

    /// The same with an environment, asked for at each start.
    #[must_use]
    pub fn environment(
        self,
        environment: impl Fn() -> Vec<(OsString, OsString)> + Send + Sync + 'static,
    ) -> ProcessLauncher {
        ProcessLauncher { environment: Arc::new(environment), ..self }
    }

    fn spawn(&self, own: &BTreeMap<String, String>) -> io::Result<Child> {
        let mut command = Command::new(&self.command.program);
        command.args(&self.command.args).env_clear().envs(ALLOCATOR);
        command.envs((self.environment)()).envs(own);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true).spawn()
    }
}

impl Launcher for ProcessLauncher {
    fn start(&self, job: JobStart) -> Result<JobHandle, LaunchError> {
        let runtime = Handle::try_current().map_err(|_| LaunchError::NoRuntime)?;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| LaunchError::Start {
            job_id: job.job_id.clone(),
            source,
        };
        let mut brief = self.brief.clone();
        let told = brief.borrow_and_update().clone();
        let begin = Order::Begin { start: Box::new(job.clone()), limits: self.limits, brief: told };
        let begin = wire::line(&begin).ok_or_else(|| failed("its start cannot be told".into()))?;
        let mut child = self.spawn(&job.environment).map_err(|error| failed(error.into()))?;
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = streams else {
            return Err(failed("no pipes".into()));
        };
        tracing::info!(job = job.job_id, pid = child.id(), "job has a process");
        let (handle, report) = JobHandle::new(&job.job_id);
        let (orders, wanted) = mpsc::channel(ORDERS);
        orders.try_send(begin).ok();
        runtime.spawn(pass_on(stdin, wanted));
        let watch = Watch {
            group: child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)),
            child,
            job_id: job.job_id.clone(),
            folder: job.run_dir.clone(),
            limits: self.limits,
            orders,
            brief,
            word: runtime.spawn(last_word(stdout)),
            log: runtime.spawn(JobLog::new(&job).keep(stderr)),
        };
        runtime.spawn(watch.over(report));
        Ok(handle)
    }
}

impl fmt::Debug for ProcessLauncher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessLauncher")
            .field("command", &self.command)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Writes orders; when there will be no more of them, standard input ends, and the process with it.
async fn pass_on(mut stdin: ChildStdin, mut orders: mpsc::Receiver<Vec<u8>>) {
    while let Some(order) = orders.recv().await {
        if stdin.write_all(&order).await.is_err() {
            return; // it has ended, and its end is noticed elsewhere
        }
    }
}

async fn last_word(stdout: ChildStdout) -> Option<Word> {
    let mut said = Vec::new();
    stdout.take(MAX_LINE as u64).read_to_end(&mut said).await.ok()?;
    serde_json::from_slice(&said).ok()
}

/// A process that runs, and what is known of it.
struct Watch {
    child: Child,
    group: Option<Pid>,
    job_id: String,
    folder: PathBuf,
    limits: Limits,
    orders: mpsc::Sender<Vec<u8>>,
    brief: watch::Receiver<Brief>,
    word: JoinHandle<Option<Word>>,
    log: JoinHandle<LastLines>,
}

/// How far the end of a process is.
#[derive(Default)]
struct Ending {
    aborted: bool,
    /// Which of its limits it has passed.
    passed: Option<String>,
    terminate: Option<Instant>,
    kill: Option<Instant>,
    /// It was ended from outside.
    forced: bool,
}

impl Watch {
    async fn over(mut self, mut report: JobReport) {
        let mut ending = Ending::default();
        let passes = passes(self.limits, self.folder.clone());
        tokio::pin!(passes);
        let status = loop {
            tokio::select! {
                biased; // a job that has ended has ended as it did, whoever wants it aborted by now
                status = self.child.wait() => break status,
                deadline = report.abort_requested() => {
                    ending.aborted = true;
                    self.ask_to_stop(&mut ending, deadline);
                }
                limit = &mut passes, if ending.passed.is_none() && !ending.aborted => {
                    ending.passed = Some(limit);
                    self.ask_to_stop(&mut ending, later(LIMIT_GRACE));
                }
                () = at(ending.terminate) => {
                    ending.terminate = None;
                    ending.forced = true;
                    self.signal(Signal::TERM);
                }
                () = at(ending.kill) => {
                    ending.kill = None;
                    ending.forced = true;
                    self.signal(Signal::KILL);
                }
                Ok(()) = self.brief.changed() => {
                    let brief = self.brief.borrow_and_update().clone();
                    self.order(&Order::Brief(brief));
                }
            }
        };
        // The group outlives its leader as long as somebody whom that one started does.
        self.signal(Signal::KILL);
        let outcome = self.outcome(status, &ending).await;
        report.finish(outcome);
    }

    fn ask_to_stop(&self, ending: &mut Ending, deadline: Instant) {
        let grace = deadline.saturating_duration_since(Instant::now());
        if grace.is_zero() {
            ending.terminate = None;
        } else {
            self.order(&Order::Abort);
            let half = deadline - grace / 2;
            if !ending.forced {
                ending.terminate = Some(ending.terminate.map_or(half, |set| set.min(half)));
            }
        }
        ending.kill = Some(ending.kill.map_or(deadline, |set| set.min(deadline)));
    }

    fn order(&self, order: &Order) {
        // One that is gone needs no orders, and one that reads none is ended by signals.
        if wire::line(order).is_none_or(|line| self.orders.try_send(line).is_err()) {
            tracing::debug!(job = self.job_id, "job's process takes no order");
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            kill_process_group(group, signal).ok();
        }
    }

    async fn outcome(self, status: io::Result<ExitStatus>, ending: &Ending) -> JobOutcome {
        // Somebody who left the group may hold the streams open for ever.
        let (log, word) = (self.log.abort_handle(), self.word.abort_handle());
        let lines = timeout(DRAIN, self.log).await.ok().and_then(Result::ok).unwrap_or_default();
        let word = timeout(DRAIN, async { (word, self.word.await) }).await;
        log.abort();
        let word = word.ok().and_then(|(_, word)| word.ok()).flatten();
        let exception = |reason| JobOutcome::Failed(JobFailure::new(FailureKind::Exception, reason));
        match (word, ending) {
            (_, Ending { aborted: true, forced: true, .. }) => JobOutcome::Killed,
            (_, Ending { aborted: true, .. }) => JobOutcome::Aborted,
            (_, Ending { passed: Some(limit), .. }) => exception(limit.clone()),
            (Some(Word::Completed), _) => JobOutcome::Completed,
            (Some(Word::Failed { kind, reason }), _) => {
                let reason = match lack(&reason, &self.limits) {
                    Some(lack) => format!("{lack}: {reason}"),
                    None => reason,
                };
                JobOutcome::Failed(JobFailure::new(kind, reason))
            }
            (Some(Word::Panicked { message }), _) => {
                JobOutcome::Panicked { message: crate::truncated(message) }
            }
            (None, _) => match epitaph(status, &lines, &self.limits) {
                Epitaph::Limit(reason) => exception(reason),
                Epitaph::Died(reason) => {
                    tracing::warn!(job = self.job_id, reason, "job's process died");
                    JobOutcome::Died(JobFailure::new(FailureKind::Infrastructure, reason))
                }
            },
        }
    }
}

/// Waits until a job passes a limit that no process can set on itself; which one.
async fn passes(limits: Limits, folder: PathBuf) -> String {
    let overdue = async {
        match limits.wall_seconds {
            Some(seconds) => {
                sleep(Duration::from_secs(seconds)).await;
                format!("it ran longer than the {seconds} s that it may")
            }
            None => std::future::pending().await,
        }
    };
    let outgrown = async {
        match limits.disk_mib {
            Some(mib) => outgrows(folder, mib).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        limit = overdue => limit,
        limit = outgrown => limit,
    }
}

async fn outgrows(folder: PathBuf, most: u64) -> String {
    loop {
        let look = folder.clone();
        let used = tokio::task::spawn_blocking(move || disk_usage(&look)).await.unwrap_or_default() >> 20;
        if used > most {
            return format!("its folder takes up {used} MiB on disk, and it may take up {most}");
        }
        sleep(DISK_LOOK).await;
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn later(by: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(by).unwrap_or(now + A_YEAR)
}
