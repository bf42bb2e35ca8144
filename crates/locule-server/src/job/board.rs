//! The board of a job: workflows put tasks up, sites take them and bring results.

use std::collections::BTreeMap;
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
use locule_fobs::{Map, Shareable, Value, header};
use locule_journal::AppendError;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::hold::{Held, digest};
use super::log::{FOLDER, Restored, ResultNote, RunLog, TaskNote};
use super::report::RunEnd;
use super::standing::{Assigned, Step, Submitted, Tasks};
use crate::admit::one_line;
use crate::server::now_instant as now;

/// Shareable codes with which a site says that the job itself is at fault.
const FATAL: [&str; 3] = ["UNSAFE_JOB", "RUN_MISMATCH", "TASK_UNKNOWN"];

/// More refusals than this are not written, lest a site fill the disk.
const MAX_REFUSALS: usize = 10_000;

/// Most characters of a text in one of them.
const MAX_REFUSAL_TEXT: usize = 256;

/// Where the tasks of one job stand.
///
/// The lock is held for a look or a change, never across an await; whoever waits is woken by a change.
#[derive(Debug)]
pub(super) struct Board {
    job_id: String,
    run_dir: PathBuf,
    tasks: Arc<Mutex<Tasks>>,
    changed: Notify,
    log: Arc<RunLog>,
    /// What the log says that has not been taken up again.
    restored: Mutex<Restored>,
    /// Tasks put up since the last checkpoint.
    number: Mutex<u64>,
    /// Refusals written so far.
    refusals: Mutex<usize>,
    filters: Mutex<FilterChains>,
    run: RunContext,
    progress: Mutex<Option<mpsc::Sender<Progress>>>,
    herald: Herald,
    abort: CancellationToken,
    patient: bool,
}

/// What a board is of.
pub(super) struct BoardOf {
    pub(super) run: RunContext,
    pub(super) run_dir: PathBuf,
    /// In site order.
    pub(super) sites: Vec<String>,
    pub(super) filters: FilterChains,
    pub(super) progress: mpsc::Sender<Progress>,
    pub(super) herald: Herald,
    pub(super) abort: CancellationToken,
}

impl Board {
    /// An empty board, or one with what an earlier process left in the log of the run.
    pub(super) fn new(job: BoardOf, log: RunLog, mut restored: Restored) -> Self {
        let BoardOf { run, run_dir, sites, filters, progress, herald, abort } = job;
        let mut tasks = Tasks::new(sites);
        for (ResultNote { site, id, task, digest, .. }, held) in std::mem::take(&mut restored.late) {
            tasks.restore_late(&site, &id, task, held, digest);
        }
        Self {
            job_id: run.open().job_id(),
            refusals: Mutex::new(0),
            run_dir,
            tasks: Arc::new(Mutex::new(tasks)),
            changed: Notify::new(),
            log: Arc::new(log),
            restored: Mutex::new(restored),
            number: Mutex::new(0),
            filters: Mutex::new(filters),
            run,
            progress: Mutex::new(Some(progress)),
            herald,
            abort,
            patient: false,
        }
    }

    /// The same, on which no clock ends a task if it is patient.
    pub(super) fn patient(self, patient: bool) -> Self {
        Self { patient, ..self }
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

    /// Whether it is known what is wanted.
    pub(super) fn has_begun(&self) -> bool {
        self.tasks().has_begun()
    }

    /// Whether a result of this task is still wanted from this site.
    pub(super) fn wants(&self, site: &str, id: &str) -> bool {
        self.tasks().wants(site, id)
    }

    /// A result that is wanted is on its way, until what this returns is dropped.
    pub(super) fn arrival(&self, site: &str, id: &str) -> Arrival<'_> {
        self.tasks().arrives(site, id, now());
        Arrival { board: self, site: site.to_owned(), id: id.to_owned() }
    }

    /// Tells that a site's result does not count, unless the news of rounds would find no room then.
    fn tell_unusable(&self, site: &str, task: &str, round: Option<u64>, fault: Unusable) {
        let (site, task) = (site.to_owned(), task.to_owned());
        if let Some(sender) = lock(&self.progress).as_ref()
            && sender.capacity() > sender.max_capacity() / 2
        {
            sender.try_send(Progress::ResultUnusable { site, task, round, fault }).ok();
        }
    }

    /// Takes a site's result in; it is on disk when this returns. One whose turn has not come waits there if it is
    /// large.
    ///
    /// # Errors
    /// The result cannot be written down, and was not taken.
    pub(super) async fn submit(
        &self,
        site: &str,
        id: &str,
        task: &str,
        result: Shareable,
    ) -> Result<Submitted, AppendError> {
        let (log, tasks) = (Arc::clone(&self.log), Arc::clone(&self.tasks));
        let failed = failure(&result).and_then(|fault| Some((fault, self.tasks().current()?)));
        let (site_name, id, task) = (site.to_owned(), id.to_owned(), task.to_owned());
        let work = move || {
            let digest = digest(&result);
            let is_next = lock(&tasks).is_next(&site_name);
            let settle = |held| lock(&tasks).submit(&site_name, &id, held, digest, now());
            let note = || {
                let late = match lock(&tasks).look(&site_name, &id, digest) {
                    Submitted::Accepted => false,
                    Submitted::Kept => true,
                    Submitted::Repeated | Submitted::Conflict | Submitted::Late | Submitted::Unknown => {
                        return None;
                    }
                };
                let digest = digest.unwrap_or_default();
                Some(ResultNote { site: site_name.clone(), id: id.clone(), task, late, digest })
            };
            log.take(result, is_next, note, settle)
        };
        let outcome = written(work).await;
        if let (Ok(Submitted::Accepted), Some((fault, (task, round)))) = (&outcome, failed) {
            // Its turn to be folded may come much later.
            self.tell_unusable(site, &task, round, fault);
        }
        self.changed.notify_waiters();
        outcome
    }

    /// The workflow with which the run goes on, by its place in the job; or how the run had ended.
    pub(super) fn resumes_at(&self) -> Result<usize, RunEnd> {
        let restored = lock(&self.restored);
        restored.ended.clone().map_or(Ok(restored.workflow), Err)
    }

    /// A workflow begins, or goes on.
    pub(super) async fn begin(&self, workflow: usize) -> Result<(), WorkflowError> {
        let goes_on = {
            let restored = lock(&self.restored);
            restored.is_resumed && restored.workflow == workflow
        };
        if goes_on {
            return Ok(());
        }
        *lock(&self.restored) = Restored::default();
        *lock(&self.number) = 0;
        let log = Arc::clone(&self.log);
        written(move || log.begin(workflow)).await.map_err(|error| self.not_logged(error))
    }

    /// The run has ended like this.
    pub(super) async fn run_ended(&self, end: RunEnd) -> Result<(), AppendError> {
        let log = Arc::clone(&self.log);
        written(move || log.end(&end)).await
    }

    fn not_logged(&self, error: AppendError) -> WorkflowError {
        WorkflowError::File { path: self.run_dir.join(FOLDER), source: std::io::Error::other(error) }
    }

    /// Puts a task up with the ids and results that the log has of it.
    async fn put_up(&self, task: OutgoingTask) -> Result<(), WorkflowError> {
        let number = {
            let mut number = lock(&self.number);
            *number += 1;
            *number - 1
        };
        let (name, round, sites) = (task.name.clone(), task.round, task.sites.clone());
        let mut note = TaskNote { number, name, round, sites, ids: BTreeMap::new() };
        let results = lock(&self.restored).resume(&mut note);
        let known = note.ids.len();
        for site in self.tasks().sites().iter().filter(|site| task.is_for(site)) {
            let id = || Uuid::from_u128(rand::random()).to_string();
            note.ids.entry(site.clone()).or_insert_with(id);
        }
        let ids = note.ids.clone();
        if note.ids.len() > known {
            let log = Arc::clone(&self.log);
            written(move || log.put_up(&note)).await.map_err(|error| self.not_logged(error))?;
        }
        let mut tasks = self.tasks();
        tasks.put_up(task, now(), |site| ids.get(site).cloned().unwrap_or_default());
        for (ResultNote { site, id, digest, .. }, held) in results {
            tasks.restore(&site, &id, held, digest, now());
        }
        Ok(())
    }

    /// Writes down in the run's folder that a result does not count, and why.
    pub(super) fn note_refusal(&self, site: &str, task: &str, round: Option<u64>, code: &str, reason: &str) {
        let mut written = lock(&self.refusals);
        if *written >= MAX_REFUSALS {
            return;
        }
        *written += 1;
        // A site chose the name, and perhaps a part of the reason.
        let short = |text: &str| text.chars().take(MAX_REFUSAL_TEXT).collect::<String>();
        let (task, reason) = (short(task), short(reason));
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

    /// A site takes part from the next task on.
    pub(super) fn add_site(&self, site: &str) {
        self.tasks().add_site(site);
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
                Step::Fold { site, result } => match self.read(task, &site, result).await {
                    Some(result) => {
                        let outcome = self.fold(task, &site, result, sink, false).await?;
                        self.tasks().folded(&site, outcome);
                    }
                    None => {
                        self.tasks().reopen(&site);
                        self.changed.notify_waiters();
                    }
                },
                Step::FoldLate { site, result } => {
                    if let Some(result) = self.read(task, &site, result).await
                        && self.fold(task, &site, result, sink, true).await?.is_ok()
                    {
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

    /// The result that waits here, unless it cannot be read.
    async fn read(&self, task: &str, site: &str, held: Held) -> Option<Box<Shareable>> {
        let opened = if held.blocks() {
            let opened = tokio::task::spawn_blocking(move || held.open()).await;
            opened.unwrap_or_else(|error| Err(std::io::Error::other(error)))
        } else {
            held.open()
        };
        opened.inspect_err(|error| tracing::error!(site, task, %error, "a result cannot be read again")).ok()
    }

    /// Folds one result; the outer error ends the job.
    async fn fold(
        &self,
        task: &str,
        site: &str,
        result: Box<Shareable>,
        sink: &mut (dyn ResultSink + '_),
        is_late: bool,
    ) -> Result<Result<(), Unusable>, WorkflowError> {
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
            if self.patient {
                (task.grace, task.limit) = (Duration::MAX, None);
            }
            self.put_up(task).await?;
            self.changed.notify_waiters();
            let gathered = self.gather(&name, sink).await;
            self.tasks().take_down();
            let Gathered { accepted, missing, late } = gathered?;
            for (site, unusable) in &missing {
                let Unusable { fault, reason } = unusable;
                self.note_refusal(site, &name, round, fault.code(), reason);
                if *fault != Fault::Failed {
                    self.tell_unusable(site, &name, round, unusable.clone());
                }
            }
            let needed = if min_results == 0 { accepted.len() + missing.len() } else { min_results };
            if accepted.len() < needed {
                let accepted = accepted.len();
                return Err(WorkflowError::TooFewResults { task: name, round, accepted, needed, missing });
            }
            Ok(Gathered { accepted, missing, late })
        })
    }

    fn checkpoint<'a>(&'a self, state: Map) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(async move {
            *lock(&self.number) = 0;
            lock(&self.restored).tasks.clear();
            let (log, tasks) = (Arc::clone(&self.log), Arc::clone(&self.tasks));
            let kept = written(move || log.checkpoint(state, || lock(&tasks).kept())).await;
            kept.map_err(|error| self.not_logged(error))
        })
    }

    fn restore<'a>(&'a self) -> BoxFuture<'a, Result<Option<Map>, WorkflowError>> {
        Box::pin(async move {
            let Some(body) = lock(&self.restored).state.take() else { return Ok(None) };
            let read = tokio::task::spawn_blocking(move || body.read()).await;
            let source = match read.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                Ok(Value::Map(state)) => return Ok(Some(state)),
                Ok(_) => std::io::Error::other("the state in the log of the run is none"),
                Err(error) => error,
            };
            Err(WorkflowError::File { path: self.run_dir.join(FOLDER), source })
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

/// Does what writes to the log, where blocking is allowed.
async fn written<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AppendError> + Send + 'static,
) -> Result<T, AppendError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(AppendError::Write(std::io::Error::other(error))))
}

/// What a site says of its own failure, if that is what its result is.
fn failure(result: &Shareable) -> Option<Unusable> {
    let code = result.return_code();
    if code == "OK" {
        return None;
    }
    let reason = match result.headers.str(header::ERROR) {
        Some(error) => format!("the site answered {}: {}", one_line(code), one_line(error)),
        None => format!("the site answered {}", one_line(code)),
    };
    Some(Unusable::new(Fault::Failed, reason))
}

/// A panic under one of these locks leaves the state whole: each is changed in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use locule_component::Late;
    use locule_fobs::{Array, DataKind, Dxo};

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

        fn accept_late(&mut self, site: &str, result: &Shareable) -> Result<(), Unusable> {
            self.accept(&format!("late {site}"), result)
        }
    }

    fn board(dir: &Path, sites: &[String]) -> Board {
        let run = RunContext::new("project", "job");
        let job = BoardOf {
            herald: Herald::new(Vec::new(), run.clone()),
            run,
            run_dir: dir.to_owned(),
            sites: sites.to_vec(),
            filters: FilterChains::default(),
            progress: mpsc::channel(1).0,
            abort: CancellationToken::new(),
        };
        let (log, restored) = RunLog::open(dir.join(FOLDER)).unwrap();
        Board::new(job, log, restored)
    }

    /// Bodies that lie in files.
    fn files(dir: &Path) -> usize {
        let names = std::fs::read_dir(dir.join(FOLDER)).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| !name.to_string_lossy().starts_with("run.journal")).count()
    }

    fn result(first: f64, len: usize) -> Shareable {
        let update = Map::from_iter([("w", Array::from(&vec![first; len][..]))]);
        Shareable::with_dxo(Dxo::new(DataKind::Weights, update))
    }

    fn train() -> OutgoingTask {
        OutgoingTask { name: "train".into(), ..OutgoingTask::default() }
    }

    async fn id_of(board: &Board, site: &str) -> String {
        match board.assign(site, Duration::from_secs(60)).await {
            Assigned::Task { id, .. } => id,
            other @ (Assigned::Nothing | Assigned::EndRun) => panic!("{site} got {other:?}"),
        }
    }

    /// The slowest site is the first in site order, so that all others wait for it, and none of them in memory.
    #[tokio::test]
    async fn large_results_that_wait_for_their_turn_are_not_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let sites: Vec<String> = (0..64).map(|site| format!("site-{site:02}")).collect();
        let board = board(dir.path(), &sites);
        let mut taken = Taken::default();
        let submitting = async {
            for (number, site) in sites.iter().enumerate().rev() {
                let id = id_of(&board, site).await;
                if number == 0 {
                    assert_eq!(files(dir.path()), 63);
                }
                let submitted = board.submit(site, &id, "train", result(number as f64, 200_000)).await;
                assert_eq!(submitted.unwrap(), Submitted::Accepted);
            }
        };
        let (gathered, ()) = tokio::join!(board.broadcast(train(), &mut taken), submitting);
        assert_eq!(gathered.unwrap().accepted, sites);
        let expected: Vec<(String, f64)> = sites.into_iter().zip((0..64).map(f64::from)).collect();
        assert_eq!(taken.0, expected);
        board.checkpoint(Map::new()).await.unwrap();
        assert_eq!(files(dir.path()), 0, "what came before a checkpoint is gone");
    }

    /// Puts a task up at which the first of two sites answers, and breaks off; what `len` numbers long result it gave.
    async fn broken_off(dir: &Path, sites: &[String], len: usize) -> String {
        let board = board(dir, sites);
        board.begin(0).await.unwrap();
        let mut state = Map::new();
        state.insert("round", 3);
        board.checkpoint(state).await.unwrap();
        let mut taken = Taken::default();
        let one_answers = async {
            let id = id_of(&board, "b").await;
            assert_eq!(board.submit("b", &id, "train", result(2.0, len)).await.unwrap(), Submitted::Accepted);
            id_of(&board, "a").await
        };
        tokio::select! {
            _ = board.broadcast(train(), &mut taken) => panic!("one site has not answered"),
            id = one_answers => id,
        }
    }

    #[tokio::test]
    async fn a_run_that_was_broken_off_goes_on_with_the_results_that_were_taken() {
        for len in [3, 100_000] {
            let dir = tempfile::tempdir().unwrap();
            let sites = ["a", "b"].map(str::to_owned);
            let open = broken_off(dir.path(), &sites, len).await;
            let board = board(dir.path(), &sites);
            assert_eq!(board.resumes_at(), Ok(0));
            board.begin(0).await.unwrap();
            let state = board.restore().await.unwrap().unwrap();
            assert_eq!(state.int("round"), Some(3));
            let mut taken = Taken::default();
            let submitting = async {
                let id = id_of(&board, "a").await;
                assert_eq!(id, open, "the site may hand in what it was at work on");
                assert!(matches!(board.assign("b", Duration::ZERO).await, Assigned::Nothing));
                board.submit("a", &id, "train", result(1.0, len)).await.unwrap()
            };
            let (gathered, submitted) = tokio::join!(board.broadcast(train(), &mut taken), submitting);
            assert_eq!(submitted, Submitted::Accepted);
            assert_eq!(gathered.unwrap().accepted, sites);
            assert_eq!(taken.0, [("a".to_owned(), 1.0), ("b".to_owned(), 2.0)]);
        }
    }

    #[tokio::test]
    async fn a_result_whose_file_is_damaged_is_asked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        let sites = ["a", "b"].map(str::to_owned);
        broken_off(dir.path(), &sites, 100_000).await;
        for entry in std::fs::read_dir(dir.path().join(FOLDER)).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap() != "run.journal" {
                let mut bytes = std::fs::read(&path).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
        }
        let board = board(dir.path(), &sites);
        let mut taken = Taken::default();
        let submitting = async {
            for (site, first) in [("a", 1.0), ("b", 2.5)] {
                let id = id_of(&board, site).await;
                board.submit(site, &id, "train", result(first, 3)).await.unwrap();
            }
        };
        let (gathered, ()) = tokio::join!(board.broadcast(train(), &mut taken), submitting);
        assert_eq!(gathered.unwrap().accepted, sites);
        assert_eq!(taken.0, [("a".to_owned(), 1.0), ("b".to_owned(), 2.5)]);
    }

    #[tokio::test]
    async fn a_run_that_takes_another_course_does_not_use_what_was_meant_for_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let sites = ["a", "b"].map(str::to_owned);
        broken_off(dir.path(), &sites, 3).await;
        let board = board(dir.path(), &sites);
        let mut taken = Taken::default();
        let task = OutgoingTask { name: "validate".into(), ..OutgoingTask::default() };
        let submitting = async {
            for site in &sites {
                let id = id_of(&board, site).await;
                board.submit(site, &id, "validate", result(9.0, 3)).await.unwrap();
            }
        };
        let (gathered, ()) = tokio::join!(board.broadcast(task, &mut taken), submitting);
        assert_eq!(gathered.unwrap().accepted, sites);
        assert_eq!(taken.0, [("a".to_owned(), 9.0), ("b".to_owned(), 9.0)]);
    }

    #[tokio::test]
    async fn a_late_result_that_waits_outlives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let sites = ["a", "b"].map(str::to_owned);
        let task = |min_results| OutgoingTask { min_results, late: Late::Fold, ..train() };
        {
            let board = board(dir.path(), &sites);
            board.begin(0).await.unwrap();
            let mut taken = Taken::default();
            let submitting = async {
                let late = id_of(&board, "a").await;
                let id = id_of(&board, "b").await;
                board.submit("b", &id, "train", result(2.0, 3)).await.unwrap();
                late
            };
            let (_, late) = tokio::join!(board.broadcast(task(1), &mut taken), submitting);
            assert_eq!(board.submit("a", &late, "train", result(1.0, 3)).await.unwrap(), Submitted::Kept);
            board.checkpoint(Map::new()).await.unwrap();
        }
        let board = board(dir.path(), &sites);
        let mut taken = Taken::default();
        let submitting = async {
            for site in &sites {
                let id = id_of(&board, site).await;
                board.submit(site, &id, "train", result(5.0, 3)).await.unwrap();
            }
        };
        let (gathered, ()) = tokio::join!(board.broadcast(task(0), &mut taken), submitting);
        assert_eq!(gathered.unwrap().late, ["a"]);
        assert_eq!(taken.0, [("a".to_owned(), 5.0), ("b".to_owned(), 5.0), ("late a".to_owned(), 1.0)]);
    }

    #[tokio::test]
    async fn a_run_that_had_ended_is_known_to_have() {
        let dir = tempfile::tempdir().unwrap();
        let end = RunEnd { failed: Some("no model".into()) };
        board(dir.path(), &[]).run_ended(end.clone()).await.unwrap();
        assert_eq!(board(dir.path(), &[]).resumes_at(), Err(end));
    }

    #[tokio::test(start_paused = true)]
    async fn on_a_patient_board_no_clock_ends_a_task() {
        for patient in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let sites = ["a", "b"].map(str::to_owned);
            let board = board(dir.path(), &sites).patient(patient);
            let mut taken = Taken::default();
            let second = Duration::from_secs(1);
            let task = OutgoingTask {
                name: "train".into(),
                min_results: 1,
                grace: second,
                limit: Some(second * 10),
                ..OutgoingTask::default()
            };
            let submitting = async {
                for site in &sites {
                    let Assigned::Task { id, .. } = board.assign(site, second).await else { return };
                    let update = Map::from_iter([("w", Array::from(&[1.0][..]))]);
                    let result = Shareable::with_dxo(Dxo::new(DataKind::Weights, update));
                    board.submit(site, &id, "train", result).await.unwrap();
                    tokio::time::advance(second * 60).await;
                    tokio::task::yield_now().await;
                }
            };
            let (gathered, ()) = tokio::join!(board.broadcast(task, &mut taken), submitting);
            assert_eq!(gathered.unwrap().accepted.len(), if patient { 2 } else { 1 });
        }
    }
}
