//! The board of a job: workflows put tasks up, sites take them and bring results.

use std::fs::File;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_core::future::BoxFuture;
use locule_component::{
    Chain, Direction, Event, Fault, FilterChains, FilterCx, Gathered, OutgoingTask, Progress, ResultSink,
    RunContext, TaskBoard, Unusable, WorkflowError, panic_text,
};
use locule_event::Herald;
use locule_fobs::Shareable;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::hold::{Held, Spool, size};
use super::standing::{Assigned, Step, Submitted, Tasks};
use crate::server::now_instant as now;

/// Shareable codes with which a site says that the job itself is at fault.
const FATAL: [&str; 3] = ["UNSAFE_JOB", "RUN_MISMATCH", "TASK_UNKNOWN"];

/// A result with more bytes than this is looked at on a thread for work that blocks.
const LARGE: usize = 1 << 20;

/// More refusals than this are not written, lest a site fill the disk.
const MAX_REFUSALS: usize = 10_000;

/// Where the tasks of one job stand.
///
/// The lock is held for a look or a change, never across an await; whoever waits is woken by a change.
#[derive(Debug)]
pub(super) struct Board {
    job_id: String,
    run_dir: PathBuf,
    tasks: Mutex<Tasks>,
    changed: Notify,
    spool: Arc<Spool>,
    /// Refusals written so far.
    refusals: Mutex<usize>,
    filters: Mutex<FilterChains>,
    run: RunContext,
    progress: Mutex<Option<mpsc::Sender<Progress>>>,
    herald: Herald,
    abort: CancellationToken,
}

impl Board {
    /// An empty board for these sites, in site order.
    pub(super) fn new(
        run: RunContext,
        run_dir: PathBuf,
        sites: Vec<String>,
        filters: FilterChains,
        progress: mpsc::Sender<Progress>,
        herald: Herald,
        abort: CancellationToken,
    ) -> Self {
        Self {
            job_id: run.open().job_id(),
            spool: Arc::new(Spool::new(run_dir.join("spool"))),
            refusals: Mutex::new(0),
            run_dir,
            tasks: Mutex::new(Tasks::new(sites)),
            changed: Notify::new(),
            filters: Mutex::new(filters),
            run,
            progress: Mutex::new(Some(progress)),
            herald,
            abort,
        }
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        lock(&self.tasks)
    }

    /// No more progress will be reported.
    pub(super) fn close_reports(&self) {
        lock(&self.progress).take();
    }

    /// Passes a payload through the job's filters.
    fn filter(
        &self,
        data: Shareable,
        task: &str,
        chain: Chain,
        direction: Direction,
    ) -> Result<Shareable, String> {
        let context = self.run.open();
        let cx = FilterCx { site: "server", job_id: &self.job_id, task, chain, direction, context: &context };
        let applied = catch_unwind(AssertUnwindSafe(|| lock(&self.filters).apply(data, &cx)));
        match applied {
            Ok(filtered) => filtered.map_err(|error| error.to_string()),
            Err(panic) => Err(format!("a filter panicked: {}", panic_text(&*panic))),
        }
    }

    /// A task for this site, waiting up to `hold` for one to come up.
    pub(super) async fn assign(&self, site: &str, hold: Duration) -> Assigned {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                match self.tasks().assign(site) {
                    Assigned::Nothing => {}
                    found @ (Assigned::Task { .. } | Assigned::EndRun) => return found,
                }
                changed.await;
            }
        };
        tokio::time::timeout(hold, waiting).await.unwrap_or(Assigned::Nothing)
    }

    /// Whether a result of this task is still wanted from this site.
    pub(super) fn wants(&self, site: &str, id: &str) -> bool {
        self.tasks().wants(site, id)
    }

    /// A result that is wanted is on its way, until what this returns is dropped.
    pub(super) fn arrival(&self, site: &str, id: &str) -> Arrival<'_> {
        self.tasks().arrives(site, id);
        Arrival { board: self, site: site.to_owned(), id: id.to_owned() }
    }

    /// Takes a site's result in. One whose turn has not come waits outside of memory if it is large.
    pub(super) async fn submit(&self, site: &str, id: &str, result: Shareable) -> Submitted {
        let is_next = self.tasks().is_next(site);
        let spool = Arc::clone(&self.spool);
        let hold = move |result: Shareable| {
            let digest = spool.digest(&result);
            let held = if is_next { Held::Memory(Box::new(result)) } else { spool.hold(result) };
            (digest, held)
        };
        let (digest, held) = if size(&result) > LARGE {
            match tokio::task::spawn_blocking(move || hold(result)).await {
                Ok(done) => done,
                Err(error) => {
                    tracing::warn!(job = self.job_id, site, %error, "a result was lost");
                    (None, Held::Memory(Box::new(Shareable::with_return_code("EXECUTION_RESULT_ERROR"))))
                }
            }
        } else {
            hold(result)
        };
        let outcome = self.tasks().submit(site, id, held, digest, now());
        self.changed.notify_waiters();
        outcome
    }

    /// Writes down in the run's folder that a result does not count, and why.
    pub(super) fn note_refusal(&self, site: &str, task: &str, round: Option<u64>, code: &str, reason: &str) {
        let mut written = lock(&self.refusals);
        if *written >= MAX_REFUSALS {
            return;
        }
        *written += 1;
        let refusal =
            serde_json::json!({ "site": site, "task": task, "round": round, "code": code, "reason": reason });
        let path = self.run_dir.join("refused.jsonl");
        let file = File::options().create(true).append(true).open(&path);
        if let Err(error) = file.and_then(|mut file| writeln!(file, "{refusal}")) {
            tracing::warn!(job = self.job_id, path = %path.display(), %error, "a refusal was not written");
        }
    }

    /// A site takes no part any more.
    pub(super) fn lose(&self, site: &str, reason: &str) {
        self.tasks().lose(site, reason);
        self.changed.notify_waiters();
    }

    /// A site shows a sign of life; whether it was lost.
    pub(super) fn find_again(&self, site: &str) -> bool {
        self.tasks().find_again(site)
    }

    /// The run is over: every site that asks is told so.
    pub(super) fn end(&self) {
        self.tasks().end();
        self.changed.notify_waiters();
    }

    /// Submissions that nobody waited for.
    pub(super) fn late(&self) -> u64 {
        self.tasks().late()
    }

    /// Waits until every site is settled and folds what they bring.
    async fn gather(&self, task: &str, sink: &mut (dyn ResultSink + '_)) -> Result<Gathered, WorkflowError> {
        let mut late = Vec::new();
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let step = self.tasks().step(now());
            match step {
                Step::Done { accepted, missing } => return Ok(Gathered { accepted, missing, late }),
                Step::Fold { site, result } => {
                    let outcome = self.fold(task, &site, result, sink, false).await?;
                    self.tasks().folded(&site, outcome);
                }
                Step::FoldLate { site, result } => {
                    if self.fold(task, &site, result, sink, true).await?.is_ok() {
                        late.push(site);
                    }
                }
                Step::Wait(deadline) => {
                    let expiry = async {
                        match deadline {
                            Some(at) => tokio::time::sleep_until(at.into()).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = changed => {}
                        () = expiry => {}
                        () = self.abort.cancelled() => return Err(WorkflowError::Aborted),
                    }
                }
            }
        }
    }

    /// Folds one result; the outer error ends the job.
    async fn fold(
        &self,
        task: &str,
        site: &str,
        held: Held,
        sink: &mut (dyn ResultSink + '_),
        is_late: bool,
    ) -> Result<Result<(), Unusable>, WorkflowError> {
        let opened = if held.is_file() {
            let opened = tokio::task::spawn_blocking(move || held.open()).await;
            opened.unwrap_or_else(|error| Err(std::io::Error::other(error)))
        } else {
            held.open()
        };
        let result = match opened {
            Ok(result) => result,
            Err(error) => {
                let reason = format!("the server cannot read it again: {error}");
                tracing::error!(site, task, reason, "result lost");
                return Ok(Err(Unusable::new(Fault::Absent, reason)));
            }
        };
        let code = result.return_code();
        if FATAL.contains(&code) {
            return Err(WorkflowError::Failed(format!("{site} answered task `{task}` with {code}")));
        }
        // A result counts as processed when it is folded, and not when it arrives.
        self.herald.tell(&Event::BeforeTaskResultFilter { task }).await;
        let result = if code == "OK" {
            let filtered = self.filter(*result, task, Chain::TaskResult, Direction::In);
            filtered.map_err(|reason| Unusable::new(Fault::Filtered, reason))
        } else {
            Ok(*result) // the sink says what is wrong with it
        };
        self.herald.tell(&Event::AfterTaskResultFilter { task }).await;
        self.herald.tell(&Event::BeforeProcessSubmission { site, task }).await;
        self.herald.tell(&Event::BeforeContributionAccept { site }).await;
        let outcome = result.and_then(|result| {
            if is_late { sink.accept_late(site, &result) } else { sink.accept(site, &result) }
        });
        self.herald.tell(&Event::AfterContributionAccept { site }).await;
        self.herald.tell(&Event::AfterProcessSubmission { site, task }).await;
        if let Err(Unusable { fault, reason }) = &outcome {
            tracing::warn!(site, task, code = fault.code(), reason, is_late, "result not usable");
        }
        Ok(outcome)
    }
}

/// The result of one site is on its way.
#[derive(Debug)]
pub(super) struct Arrival<'a> {
    board: &'a Board,
    site: String,
    id: String,
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        self.board.tasks().arrived(&self.site, &self.id);
        self.board.changed.notify_waiters();
    }
}

impl TaskBoard for Board {
    fn job_id(&self) -> &str {
        &self.job_id
    }

    fn sites(&self) -> Vec<String> {
        let tasks = self.tasks();
        let present = tasks.present();
        tasks.sites().iter().filter(|site| present.contains(site.as_str())).cloned().collect()
    }

    fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    fn broadcast<'a>(
        &'a self,
        mut task: OutgoingTask,
        sink: &'a mut (dyn ResultSink + 'a),
    ) -> BoxFuture<'a, Result<Gathered, WorkflowError>> {
        Box::pin(async move {
            if self.is_aborted() {
                return Err(WorkflowError::Aborted);
            }
            let (name, round, min_results) = (task.name.clone(), task.round, task.min_results);
            let data = std::mem::take(&mut task.data);
            self.herald.tell(&Event::BeforeTaskDataFilter { task: &name }).await;
            let data = self.filter(data, &name, Chain::TaskData, Direction::Out);
            self.herald.tell(&Event::AfterTaskDataFilter { task: &name }).await;
            task.data = data.map_err(|reason| WorkflowError::Failed(format!("task `{name}`: {reason}")))?;
            self.tasks().put_up(task, now(), || Uuid::from_u128(rand::random()).to_string());
            self.changed.notify_waiters();
            let gathered = self.gather(&name, sink).await;
            self.tasks().take_down();
            let Gathered { accepted, missing, late } = gathered?;
            for (site, Unusable { fault, reason }) in &missing {
                self.note_refusal(site, &name, round, fault.code(), reason);
            }
            let needed = if min_results == 0 { accepted.len() + missing.len() } else { min_results };
            if accepted.len() < needed {
                let accepted = accepted.len();
                return Err(WorkflowError::TooFewResults { task: name, round, accepted, needed, missing });
            }
            Ok(Gathered { accepted, missing, late })
        })
    }

    fn announce<'a>(&'a self, event: Event<'a>) -> BoxFuture<'a, ()> {
        Box::pin(async move { self.herald.tell(&event).await })
    }

    fn report(&self, progress: Progress) {
        let sent = lock(&self.progress).as_ref().map(|sender| sender.try_send(progress));
        if !matches!(sent, Some(Ok(()))) {
            tracing::warn!(job = self.job_id, "progress report dropped");
        }
    }

    fn is_aborted(&self) -> bool {
        self.abort.is_cancelled()
    }
}

/// A panic under one of these locks leaves the state whole: each is changed in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use locule_fobs::{Array, DataKind, Dxo, Map};

    use super::*;

    /// Remembers whose results it took, and their first number.
    #[derive(Default)]
    struct Taken(Vec<(String, f64)>);

    impl ResultSink for Taken {
        fn accept(&mut self, site: &str, result: &Shareable) -> Result<(), Unusable> {
            let dxo = result.dxo().unwrap().unwrap();
            let first = dxo.data.get("w").unwrap().as_array().unwrap().to_f64()[0];
            self.0.push((site.to_owned(), first));
            Ok(())
        }
    }

    fn board(dir: &std::path::Path, sites: &[String]) -> Board {
        let run = RunContext::new("project", "job");
        let (progress, _) = mpsc::channel(1);
        let herald = Herald::new(Vec::new(), run.clone());
        let filters = FilterChains::default();
        Board::new(run, dir.to_owned(), sites.to_vec(), filters, progress, herald, CancellationToken::new())
    }

    fn files(dir: &std::path::Path) -> usize {
        std::fs::read_dir(dir.join("spool")).map_or(0, Iterator::count)
    }

    /// The slowest site is the first in site order, so that all others wait for it, and none of them in memory.
    #[tokio::test]
    async fn large_results_that_wait_for_their_turn_are_not_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let sites: Vec<String> = (0..64).map(|site| format!("site-{site:02}")).collect();
        let board = board(dir.path(), &sites);
        let mut taken = Taken::default();
        let task = OutgoingTask { name: "train".into(), ..OutgoingTask::default() };
        let submitting = async {
            for (number, site) in sites.iter().enumerate().rev() {
                let Assigned::Task { id, .. } = board.assign(site, Duration::from_secs(60)).await else {
                    panic!("no task for {site}")
                };
                let update = Map::from_iter([("w", Array::from(&vec![number as f64; 200_000][..]))]);
                let result = Shareable::with_dxo(Dxo::new(DataKind::Weights, update));
                if number == 0 {
                    assert_eq!(files(dir.path()), 63);
                }
                assert_eq!(board.submit(site, &id, result).await, Submitted::Accepted);
            }
        };
        let (gathered, ()) = tokio::join!(board.broadcast(task, &mut taken), submitting);
        assert_eq!(gathered.unwrap().accepted, sites);
        let expected: Vec<(String, f64)> = sites.into_iter().zip((0..64).map(f64::from)).collect();
        assert_eq!(taken.0, expected);
        assert_eq!(files(dir.path()), 0);
    }
}
