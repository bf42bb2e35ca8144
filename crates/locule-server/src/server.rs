//! The server as a whole: starts, takes jobs in, tells what happens, stops.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::BoxFuture;
use locule_auth::TokenLedger;
use locule_cell::{Cell, HandlerError, Now};
use locule_component::{Event, RunContext};
use locule_event::Attendants;
use locule_identity::{Admission, AdmissionLimits, Party, Signer, Verifier};
use locule_journal::AppendError;
use locule_kit::Workspace;
use locule_launcher::Launcher;
use locule_message::{Fqcn, ReturnCode};
use locule_protocol::Dialect;
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admit;
use crate::book::{Book, BookError, Entry, seconds};
use crate::event::ServerEvent;
use crate::intake::{Intake, Package, SubmitError};
use crate::job::JobHost;
use crate::life::{self, Halt, Signal};
use crate::queue::Queue;
use crate::record::{JobRecord, JobStatus, SERVER};
use crate::retention;
use crate::settings::{ServerParts, ServerSettings};
use crate::site_logs::SiteLogs;

/// Events that a slow watcher may fall behind before it loses some.
const EVENTS: usize = 4096;

/// Signals that may wait for a job.
const SIGNALS: usize = 1024;

/// Jobs that may wait and run.
const JOBS: usize = 256;

/// What the end of a job is tried to be written, a second apart, before only the memory has it.
const LAST_WORDS: usize = 5;

/// From one look for silent sites to the next.
const SWEEP: Duration = Duration::from_secs(1);

/// How long observers may take to hear of the server's end.
const LAST_NOTICES: Duration = Duration::from_secs(2);

/// Signatures made at the same time.
const SIGNERS: usize = 4;

/// A running server.
///
/// A handle; the last one dropped does not stop it, [`shutdown`](Self::shutdown) does.
#[derive(Clone, Debug)]
pub struct Server {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) settings: ServerSettings,
    pub(crate) cell: Cell,
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) verifier: Arc<dyn Verifier>,
    pub(crate) ledger: Arc<TokenLedger>,
    pub(crate) host: Arc<JobHost>,
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) internal: String,
    pub(crate) kit: Workspace,
    pub(crate) attendants: Attendants,
    context: RunContext,
    pub(crate) admission: Mutex<Admission>,
    pub(crate) signing: Arc<Semaphore>,
    /// Jobs that wait for their turn, and those that have it.
    pub(crate) queue: watch::Sender<Queue>,
    /// The right to submit a job with a token.
    submissions: Arc<Semaphore>,
    /// Changes when a site joins or leaves.
    pub(crate) presence: watch::Sender<u64>,
    pub(crate) book: Book,
    pub(crate) site_logs: SiteLogs,
    /// Sites whose heartbeat was heard since they registered: only then do they have their token.
    ready: Mutex<BTreeSet<String>>,
    jobs: Mutex<BTreeMap<String, Line>>,
    /// Jobs of an earlier run of the server, until one is submitted again that is the same.
    inherited: Mutex<BTreeSet<String>>,
    events: broadcast::Sender<ServerEvent>,
    /// A job has come to its end.
    pub(crate) job_over: Notify,
    tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) started: SystemTime,
}

/// The way to a job that is not over.
#[derive(Debug)]
struct Line {
    /// Sites that take part; their signals concern the job.
    sites: BTreeSet<String>,
    signals: mpsc::Sender<Signal>,
    /// That the job is to stop; it hears of it whatever it does.
    halt: watch::Sender<Option<Halt>>,
    /// Bytes that the half which runs has moved, and those that died before it.
    moved: (u64, u64),
}

impl Line {
    /// Tells the job to stop, if nobody has: the first reason stays.
    fn halt(&self, why: Halt) {
        self.halt.send_if_modified(|said| {
            let first = said.is_none();
            said.get_or_insert(why);
            first
        });
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("project", &self.settings.project).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts to admit sites on the cell of `parts`. Must be called in a tokio runtime.
    ///
    /// Jobs that an earlier run of the server left open go on: those that had not begun, from their beginning; the
    /// others where they are, with the sites that hold them.
    ///
    /// # Errors
    /// [`BookError`] if the journal of jobs cannot be read.
    pub fn start(settings: ServerSettings, parts: ServerParts) -> Result<Self, BookError> {
        let ServerParts { cell, signer, verifier, ledger, jobs, host, launcher, internal, kit, attendants } =
            parts;
        let book = Book::open(jobs)?;
        let open = book.open_jobs();
        let admission = Admission::new(signer.identity().clone(), AdmissionLimits::default());
        let shared = Arc::new(Shared {
            queue: watch::channel(Queue::new(settings.queue())).0,
            submissions: Arc::new(Semaphore::new(1)),
            settings,
            cell,
            signer,
            verifier,
            ledger,
            host,
            launcher,
            internal,
            kit,
            attendants,
            context: RunContext::new(SERVER, ""),
            admission: Mutex::new(admission),
            signing: Arc::new(Semaphore::new(SIGNERS)),
            presence: watch::channel(0).0,
            book,
            site_logs: SiteLogs::default(),
            ready: Mutex::default(),
            jobs: Mutex::default(),
            inherited: Mutex::new(open.iter().map(|record| record.job_id.clone()).collect()),
            events: broadcast::channel(EVENTS).0,
            job_over: Notify::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            started: SystemTime::now(),
        });
        shared.notice(&Event::SystemStart);
        for record in open {
            let (receiver, halted) = shared.line(&record.job_id);
            // Before the first heartbeat of a site: what it holds of the job is its own.
            for site in record.sites.iter().filter(|_| record.has_begun() && record.ending.is_none()) {
                shared.count_on(&record.job_id, site, true);
            }
            shared.tasks.spawn(life::begin(Arc::clone(&shared), record, receiver, halted));
        }
        admit::open(&shared);
        shared.tasks.spawn(sweep(Arc::clone(&shared)));
        if !shared.settings.retention.keeps_all() {
            shared.tasks.spawn(retention::keep(Arc::clone(&shared)));
        }
        Ok(Self { shared })
    }

    /// Takes a job folder in and runs it once its sites are there; the job's id.
    ///
    /// A job of that very content that an earlier run of the server was given as a folder and left open is not made a
    /// second time: it goes on, and its id is the answer.
    ///
    /// A call that was begun is carried out, even if its future is dropped.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was stored.
    pub async fn submit(&self, folder: &Path) -> Result<String, SubmitError> {
        let folder = folder.to_owned();
        if let Some(job_id) = self.shared.inherited(&folder).await? {
            return Ok(job_id);
        }
        let take = move |shared: Arc<Shared>, job_id: String| async move {
            let (server, id) = (Arc::clone(&shared), job_id.clone());
            let intake = blocking(move || Intake::take(&server, &id, &folder)).await?;
            let (receiver, halted) = shared.line(&job_id);
            Ok(Box::pin(life::run(shared, intake, None, receiver, halted)) as BoxFuture<'static, ()>)
        };
        self.take_in(take).await
    }

    /// Takes a packed job in and runs it once its sites are there, be it after a restart of the server; the
    /// job's id. The job is on disk when this returns.
    ///
    /// A call that was begun is carried out, even if its future is dropped.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was stored.
    pub async fn submit_package(&self, package: Package) -> Result<String, SubmitError> {
        let take = move |shared: Arc<Shared>, job_id: String| async move {
            let (server, id) = (Arc::clone(&shared), job_id.clone());
            // One at a time, so that the second sees what the first has made.
            let _turn = match package.token {
                Some(_) => Arc::clone(&shared.submissions).acquire_owned().await.ok(),
                None => None,
            };
            blocking(move || Intake::accept(&server, &id, &package)).await?;
            let record = shared.book.record(&job_id);
            let record = record.ok_or_else(|| SubmitError::Interrupted("the job was deleted".into()))?;
            let (receiver, halted) = shared.line(&job_id);
            Ok(Box::pin(life::begin(shared, record, receiver, halted)) as BoxFuture<'static, ()>)
        };
        self.take_in(take).await
    }

    /// Takes a job in as `take` does, and runs the life that it gives.
    async fn take_in<F, R>(&self, take: F) -> Result<String, SubmitError>
    where
        F: FnOnce(Arc<Shared>, String) -> R + Send + 'static,
        R: Future<Output = Result<BoxFuture<'static, ()>, SubmitError>> + Send,
    {
        let shared = Arc::clone(&self.shared);
        let submitting = self.shared.tasks.spawn(async move { shared.submit(take).await });
        submitting.await.map_err(|error| SubmitError::Interrupted(error.to_string()))?
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<ServerEvent> {
        self.shared.events.subscribe()
    }

    /// The record of a job.
    #[must_use]
    pub fn record(&self, job_id: &str) -> Option<JobRecord> {
        self.shared.book.record(job_id)
    }

    /// Aborts a job; whether there is such a job that still runs.
    pub async fn abort(&self, job_id: &str, reason: &str) -> bool {
        if self.shared.has_started(job_id) {
            // Before anybody hears that the job is aborted; a restart of the server makes no other job of it.
            self.shared.decide(job_id, JobStatus::Aborted, reason).await;
        }
        let jobs = lock(&self.shared.jobs);
        let line = jobs.get(job_id);
        line.is_some_and(|line| {
            line.halt(Halt::Aborted(reason.to_owned()));
            true
        })
    }

    /// Stops where it is, and closes the cell. Jobs that are not over stay open: their sites are told nothing and
    /// keep their halves, and the next server of this kit takes the jobs up, as after a crash. Who wants them to end
    /// aborts them first.
    pub async fn shutdown(&self) {
        // Before the look at the jobs: one that is submitted meanwhile sees it, or is seen.
        self.shared.stop.cancel();
        for line in lock(&self.shared.jobs).values() {
            line.halt(Halt::Suspended);
        }
        self.shared.tasks.close();
        let limit = self.shared.settings.abort_grace * 3;
        if tokio::time::timeout(limit, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!("jobs did not end in time");
        }
        self.shared.notice(&Event::SystemEnd);
        let events = Arc::clone(&self.shared.attendants.events);
        tokio::task::spawn_blocking(move || events.settle(LAST_NOTICES)).await.ok();
        self.shared.cell.shutdown(Duration::from_secs(2)).await;
    }
}

impl Shared {
    /// Tells the server's observers.
    pub(crate) fn notice(&self, event: &Event<'_>) {
        self.attendants.events.fire(event, &self.context.open());
    }

    pub(crate) fn tell(&self, event: ServerEvent) {
        // Nobody may be watching.
        self.events.send(event).ok();
    }

    /// The half of a job says how many bytes it has moved since it was started.
    pub(crate) fn note_moved(&self, job_id: &str, so_far: u64) {
        if let Some(Line { moved: (now, before), .. }) = lock(&self.jobs).get_mut(job_id) {
            if so_far < *now {
                *before += *now; // another half
            }
            *now = so_far;
        }
    }

    /// Bytes that the halves of a job that is not over have moved, in and out.
    pub(crate) fn bytes_moved(&self, job_id: &str) -> u64 {
        lock(&self.jobs).get(job_id).map_or(0, |line| line.moved.0 + line.moved.1)
    }

    async fn submit<F, R>(self: Arc<Self>, take: F) -> Result<String, SubmitError>
    where
        F: FnOnce(Arc<Self>, String) -> R,
        R: Future<Output = Result<BoxFuture<'static, ()>, SubmitError>>,
    {
        if self.stop.is_cancelled() {
            return Err(SubmitError::Interrupted("server shuts down".into()));
        }
        if lock(&self.jobs).len() >= JOBS {
            return Err(SubmitError::Full);
        }
        // Stock consoles take no other version for the id of a job.
        let job_id = uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string();
        let life = take(Arc::clone(&self), job_id.clone()).await?;
        self.tell(ServerEvent::JobStatus {
            job: job_id.clone(),
            status: JobStatus::Submitted,
            reason: "accepted".into(),
        });
        self.tasks.spawn(life);
        Ok(job_id)
    }

    /// Opens the way to a job; its other ends.
    fn line(&self, job_id: &str) -> (mpsc::Receiver<Signal>, watch::Receiver<Option<Halt>>) {
        let (signals, receiver) = mpsc::channel(SIGNALS);
        let (halt, halted) = watch::channel(None);
        let line = Line { sites: BTreeSet::new(), signals, halt, moved: (0, 0) };
        let mut jobs = lock(&self.jobs);
        if self.stop.is_cancelled() {
            line.halt(Halt::Suspended);
        }
        jobs.insert(job_id.to_owned(), line);
        (receiver, halted)
    }

    /// Sends a signal to a job, if it is not over.
    pub(crate) async fn signal(&self, job_id: &str, signal: Signal) {
        let sender = lock(&self.jobs).get(job_id).map(|line| line.signals.clone());
        if let Some(sender) = sender {
            sender.send(signal).await.ok();
        }
    }

    /// Writes down which sites take part in a job. From then on it hears of them.
    pub(crate) async fn choose(
        self: &Arc<Self>,
        job_id: &str,
        sites: BTreeSet<String>,
    ) -> Result<(), AppendError> {
        let entry = Entry::Sites { job: job_id.to_owned(), sites: sites.iter().cloned().collect() };
        self.write(entry).await?;
        if let Some(line) = lock(&self.jobs).get_mut(job_id) {
            line.sites = sites;
        }
        Ok(())
    }

    /// From now on a site's signals concern a job, or do not any more.
    pub(crate) fn count_on(&self, job_id: &str, site: &str, on: bool) {
        if let Some(line) = lock(&self.jobs).get_mut(job_id) {
            match on {
                true => line.sites.insert(site.to_owned()),
                false => line.sites.remove(site),
            };
        }
    }

    /// Whether a job that is not over has been sent to sites.
    fn has_started(&self, job_id: &str) -> bool {
        self.is_open(job_id) && self.book.record(job_id).is_some_and(|record| record.has_begun())
    }

    /// Writes down how a job is to end. What the disk does not take, the end of the job says once more.
    pub(crate) async fn decide(self: &Arc<Self>, job: &str, status: JobStatus, reason: &str) {
        let (job, reason) = (job.to_owned(), reason.to_owned());
        if self.book.record(&job).is_some_and(|record| record.ending.is_some()) {
            return;
        }
        let entry = Entry::Ending { job, status, time: seconds(SystemTime::now()), reason };
        if let Err(error) = self.write(entry).await {
            tracing::error!(%error, "journal of jobs does not take how a job is to end");
        }
    }

    /// The job of an earlier run of the server that this folder is, if it is one.
    async fn inherited(self: &Arc<Self>, folder: &Path) -> Result<Option<String>, SubmitError> {
        let (shared, folder) = (Arc::clone(self), folder.to_owned());
        if lock(&shared.inherited).is_empty() {
            return Ok(None);
        }
        blocking(move || {
            let open: Vec<String> = lock(&shared.inherited).iter().cloned().collect();
            let mut same = open.into_iter().filter(|job_id| {
                let record = shared.book.record(job_id);
                record.is_some_and(|record| !record.packed && Intake::is_of(&shared, job_id, &folder))
            });
            Ok(same.next().filter(|job_id| lock(&shared.inherited).remove(job_id)))
        })
        .await
    }

    /// Tells the jobs of a site which of them it holds, and whether it says so for the first time; those of `held`
    /// that it should not.
    pub(crate) fn holds(&self, site: &str, mut held: Vec<String>, is_new: bool) -> Vec<String> {
        for (job, line) in lock(&self.jobs).iter().filter(|(_, line)| line.sites.contains(site)) {
            let holds = held.contains(job);
            held.retain(|other| other != job);
            // The next heartbeat says it again.
            let (site, at) = (site.to_owned(), tokio::time::Instant::now());
            line.signals.try_send(Signal::SiteHolds { site, holds, at, is_new }).ok();
        }
        held
    }

    /// Whether a job waits or runs.
    pub(crate) fn is_open(&self, job_id: &str) -> bool {
        lock(&self.jobs).contains_key(job_id)
    }

    pub(crate) fn forget(&self, job_id: &str) {
        lock(&self.jobs).remove(job_id);
    }

    /// Writes an entry into the book of jobs; it is durable when this returns.
    pub(crate) async fn write(self: &Arc<Self>, entry: Entry) -> Result<(), AppendError> {
        let shared = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || shared.book.write(entry)).await;
        written.unwrap_or_else(|error| Err(AppendError::Write(io::Error::other(error))))
    }

    /// Puts a job into a state: first in the book, then to whoever watches.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        job: &str,
        status: JobStatus,
        reason: &str,
    ) -> Result<(), AppendError> {
        self.write(entry_of(job, status, reason)).await?;
        self.told(job, status, reason);
        Ok(())
    }

    /// Puts a job into its last state. If the disk does not take it, at least the memory does; the next start
    /// of the server then closes the job once more.
    pub(crate) async fn end(self: &Arc<Self>, job: &str, status: JobStatus, reason: &str) {
        let entry = entry_of(job, status, reason);
        for _ in 0..LAST_WORDS {
            match self.write(entry.clone()).await {
                Ok(()) => return self.told(job, status, reason),
                Err(error) => {
                    tracing::error!(job, %error, "journal of jobs does not take how a job ended");
                    if !error.is_retryable() {
                        break;
                    }
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.book.note(entry);
        self.told(job, status, reason);
    }

    fn told(&self, job: &str, status: JobStatus, reason: &str) {
        tracing::info!(job, status = status.as_str(), reason, "job state");
        self.tell(ServerEvent::JobStatus { job: job.to_owned(), status, reason: reason.to_owned() });
    }

    /// Names and cells of the sites that are alive and have their token.
    pub(crate) fn sites(&self) -> BTreeMap<String, Fqcn> {
        let holders = self.ledger.holders();
        let ready = lock(&self.ready);
        let sites = holders
            .into_iter()
            .filter(|holder| holder.alive && holder.party == Party::Site && ready.contains(&holder.name));
        sites.map(|holder| (holder.name.clone(), holder.origin.clone())).collect()
    }

    /// What a site speaks.
    pub(crate) fn dialect(&self, site: &str) -> &'static Dialect {
        let holder = self.ledger.site(site);
        let older = holder.and_then(|holder| Dialect::named(holder.dialect.as_deref()?));
        older.unwrap_or(Dialect::NEWEST)
    }

    /// A site has registered. The answer with its token is still to go out, so no job counts on it yet.
    pub(crate) fn registered(&self, site: &str) {
        lock(&self.ready).remove(site);
        self.presence.send_modify(|changes| *changes += 1);
        self.tell(ServerEvent::SiteJoined { site: site.to_owned() });
    }

    /// A site's heartbeat, perhaps the first after it was dropped; whether it is the first of its daemon, or the first
    /// that this server hears.
    pub(crate) fn heard(&self, site: &str, back: bool) -> bool {
        if back {
            tracing::info!(site, "site is back");
            self.tell(ServerEvent::SiteJoined { site: site.to_owned() });
        }
        let newly = lock(&self.ready).insert(site.to_owned());
        if newly || back {
            self.presence.send_modify(|changes| *changes += 1);
        }
        newly
    }

    /// A site has said good-bye: its jobs wait a while whether it comes back.
    pub(crate) async fn quit(&self, site: &str) {
        self.leaves(site, "quit", true).await;
    }

    /// A site is gone: its jobs hear of it.
    pub(crate) async fn left(&self, site: &str, reason: &str) {
        self.leaves(site, reason, false).await;
    }

    async fn leaves(&self, site: &str, reason: &str, said_good_bye: bool) {
        tracing::info!(site, reason, "site left");
        lock(&self.ready).remove(site);
        self.presence.send_modify(|changes| *changes += 1);
        self.tell(ServerEvent::SiteLeft { site: site.to_owned(), reason: reason.to_owned() });
        let jobs: Vec<_> = {
            let jobs = lock(&self.jobs);
            jobs.values().filter(|line| line.sites.contains(site)).map(|line| line.signals.clone()).collect()
        };
        for job in jobs {
            let (site, reason) = (site.to_owned(), reason.to_owned());
            job.send(Signal::SiteLost { site, reason, said_good_bye }).await.ok();
        }
    }

    /// Runs work with the server's key on a blocking thread, a few at a time.
    pub(crate) async fn sign<T, F>(self: &Arc<Self>, work: F) -> Result<T, HandlerError>
    where
        T: Send + 'static,
        F: FnOnce(&Shared) -> Result<T, HandlerError> + Send + 'static,
    {
        let busy = |_| HandlerError::new(ReturnCode::ServiceUnavailable, "server is shutting down");
        let permit = Arc::clone(&self.signing).acquire_owned().await.map_err(busy)?;
        let shared = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&shared)
        });
        work.await.map_err(|error| HandlerError::failed(error.to_string()))?
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SubmitError> + Send + 'static,
) -> Result<T, SubmitError> {
    let work = tokio::task::spawn_blocking(work).await;
    work.unwrap_or_else(|error| Err(SubmitError::Interrupted(error.to_string())))
}

/// Looks for sites that fell silent or whose certificate has ended.
async fn sweep(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.stop.cancelled() => return,
        }
        for site in shared.ledger.drop_silent(shared.settings.heartbeat_timeout, now_instant()) {
            shared.left(&site, "no heartbeat").await;
        }
        match shared.ledger.drop_expired(SystemTime::now()) {
            Ok(expired) => {
                for site in expired {
                    shared.left(&site, "certificate has expired").await;
                }
            }
            Err(error) => tracing::error!(%error, "journal of tokens does not take a record"),
        }
    }
}

fn entry_of(job: &str, status: JobStatus, reason: &str) -> Entry {
    let time = seconds(SystemTime::now());
    Entry::Status { job: job.to_owned(), status, time, reason: reason.to_owned() }
}

/// The present, by tokio's clock, which tests can stop.
pub(crate) fn now() -> Now {
    Now { instant: now_instant(), wall: SystemTime::now() }
}

/// The present, by tokio's clock.
pub(crate) fn now_instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A panic under one of these locks leaves the state whole: each is changed in one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
