//! The server as a whole: starts, takes jobs in, tells what happens, stops.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use locule_auth::TokenLedger;
use locule_cell::{Cell, HandlerError};
use locule_identity::{Admission, AdmissionLimits, Party, Signer, Verifier};
use locule_journal::AppendError;
use locule_kit::Workspace;
use locule_launcher::Launcher;
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::admit;
use crate::book::{Book, BookError, Entry, seconds};
use crate::event::ServerEvent;
use crate::intake::{Intake, SubmitError};
use crate::life::{self, Signal};
use crate::record::{JobRecord, JobStatus};
use crate::settings::{ServerParts, ServerSettings};

/// Events that a slow watcher may fall behind before it loses some.
const EVENTS: usize = 4096;

/// Signals that may wait for a job.
const SIGNALS: usize = 1024;

/// From one look for silent sites to the next.
const SWEEP: Duration = Duration::from_secs(1);

/// Signatures made at the same time.
const SIGNERS: usize = 4;

/// A running server.
///
/// A handle; the last one dropped does not stop it, [`shutdown`](Self::shutdown) does.
#[derive(Clone, Debug)]
pub struct Server {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) settings: ServerSettings,
    pub(crate) cell: Cell,
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) verifier: Arc<dyn Verifier>,
    pub(crate) ledger: Arc<TokenLedger>,
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) internal: String,
    pub(crate) kit: Workspace,
    pub(crate) admission: Mutex<Admission>,
    pub(crate) signing: Arc<Semaphore>,
    pub(crate) slots: Arc<Semaphore>,
    /// Changes when a site joins or leaves.
    pub(crate) presence: watch::Sender<u64>,
    book: Mutex<Book>,
    jobs: Mutex<BTreeMap<String, mpsc::Sender<Signal>>>,
    events: broadcast::Sender<ServerEvent>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("project", &self.settings.project).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts to admit sites on the cell of `parts`. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`BookError`] if the journal of jobs cannot be read.
    pub fn start(settings: ServerSettings, parts: ServerParts) -> Result<Self, BookError> {
        let ServerParts { cell, signer, verifier, ledger, jobs, launcher, internal, kit } = parts;
        let admission = Admission::new(signer.identity().clone(), AdmissionLimits::default());
        let shared = Arc::new(Shared {
            slots: Arc::new(Semaphore::new(settings.max_jobs)),
            settings,
            cell,
            signer,
            verifier,
            ledger,
            launcher,
            internal,
            kit,
            admission: Mutex::new(admission),
            signing: Arc::new(Semaphore::new(SIGNERS)),
            presence: watch::channel(0).0,
            book: Mutex::new(Book::open(jobs)?),
            jobs: Mutex::default(),
            events: broadcast::channel(EVENTS).0,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        admit::open(&shared);
        shared.tasks.spawn(sweep(Arc::clone(&shared)));
        Ok(Self { shared })
    }

    /// Takes a job folder in and runs it once its sites are there; the job's id.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was stored.
    pub async fn submit(&self, folder: &Path) -> Result<String, SubmitError> {
        let job_id = Uuid::from_u128(rand::random()).to_string();
        let shared = Arc::clone(&self.shared);
        let (id, folder) = (job_id.clone(), folder.to_owned());
        let intake = tokio::task::spawn_blocking(move || Intake::take(&shared, &id, &folder)).await;
        let intake = intake.map_err(|error| SubmitError::Interrupted(error.to_string()))??;
        let (signals, receiver) = mpsc::channel(SIGNALS);
        lock(&self.shared.jobs).insert(job_id.clone(), signals);
        self.shared.tell(ServerEvent::JobStatus {
            job: job_id.clone(),
            status: JobStatus::Submitted,
            reason: "accepted".into(),
        });
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(life::run(shared, intake, receiver));
        Ok(job_id)
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<ServerEvent> {
        self.shared.events.subscribe()
    }

    /// The record of a job.
    #[must_use]
    pub fn record(&self, job_id: &str) -> Option<JobRecord> {
        lock(&self.shared.book).record(job_id).cloned()
    }

    /// Bytes over the cell's links so far, in and out.
    #[must_use]
    pub fn bytes_moved(&self) -> u64 {
        self.shared.bytes_moved()
    }

    /// Aborts a job; whether there is such a job that still runs.
    pub async fn abort(&self, job_id: &str, reason: &str) -> bool {
        self.shared.signal(job_id, Signal::Abort { reason: reason.to_owned() }).await
    }

    /// Aborts the jobs that still run, waits for their end, and closes the cell.
    pub async fn shutdown(&self) {
        let jobs: Vec<String> = lock(&self.shared.jobs).keys().cloned().collect();
        for job in jobs {
            self.abort(&job, "server shuts down").await;
        }
        self.shared.stop.cancel();
        self.shared.tasks.close();
        let limit = self.shared.settings.abort_grace * 3;
        if tokio::time::timeout(limit, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!("jobs did not end in time");
        }
        self.shared.cell.shutdown(Duration::from_secs(2)).await;
    }
}

impl Shared {
    pub(crate) fn tell(&self, event: ServerEvent) {
        // Nobody may be watching.
        self.events.send(event).ok();
    }

    pub(crate) fn bytes_moved(&self) -> u64 {
        let stats = self.cell.stats();
        stats.bytes_in + stats.bytes_out
    }

    /// Sends a signal to a job; whether it still runs.
    pub(crate) async fn signal(&self, job_id: &str, signal: Signal) -> bool {
        let sender = lock(&self.jobs).get(job_id).cloned();
        match sender {
            Some(sender) => sender.send(signal).await.is_ok(),
            None => false,
        }
    }

    /// Sends a signal to every job.
    pub(crate) async fn signal_all(&self, signal: impl Fn() -> Signal) {
        let jobs: Vec<_> = lock(&self.jobs).values().cloned().collect();
        for job in jobs {
            job.send(signal()).await.ok();
        }
    }

    /// Ids of the jobs that are not over.
    pub(crate) fn running(&self) -> Vec<String> {
        lock(&self.jobs).keys().cloned().collect()
    }

    pub(crate) fn forget(&self, job_id: &str) {
        lock(&self.jobs).remove(job_id);
    }

    pub(crate) fn record(&self, job_id: &str) -> Option<JobRecord> {
        lock(&self.book).record(job_id).cloned()
    }

    /// Writes an entry into the book of jobs; it is durable when this returns.
    pub(crate) async fn write(self: &Arc<Self>, entry: Entry) -> Result<Option<JobRecord>, AppendError> {
        let shared = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || shared.write_blocking(entry)).await;
        written.unwrap_or(Ok(None))
    }

    pub(crate) fn write_blocking(&self, entry: Entry) -> Result<Option<JobRecord>, AppendError> {
        lock(&self.book).write(entry)
    }

    /// Puts a job into a state: first in the book, then to whoever watches.
    pub(crate) async fn enter(self: &Arc<Self>, job: &str, status: JobStatus, reason: &str) {
        let (job, reason) = (job.to_owned(), reason.to_owned());
        let time = seconds(SystemTime::now());
        let entry = Entry::Status { job: job.clone(), status, time, reason: reason.clone() };
        if let Err(error) = self.write(entry).await {
            tracing::error!(job, %error, "journal of jobs does not take the state");
        }
        tracing::info!(job, status = status.as_str(), reason, "job state");
        self.tell(ServerEvent::JobStatus { job, status, reason });
    }

    /// Names and cells of the sites that are alive.
    pub(crate) fn sites(&self) -> BTreeMap<String, locule_message::Fqcn> {
        let holders = self.ledger.holders().into_iter();
        let sites = holders.filter(|holder| holder.alive && holder.party == Party::Site);
        sites.map(|holder| (holder.name.clone(), holder.origin.clone())).collect()
    }

    /// A site is there, or there again.
    pub(crate) fn joined(&self, site: &str) {
        self.presence.send_modify(|changes| *changes += 1);
        self.tell(ServerEvent::SiteJoined { site: site.to_owned() });
    }

    /// A site is gone: its jobs hear of it.
    pub(crate) async fn left(&self, site: &str, reason: &str) {
        tracing::info!(site, reason, "site left");
        self.presence.send_modify(|changes| *changes += 1);
        self.tell(ServerEvent::SiteLeft { site: site.to_owned(), reason: reason.to_owned() });
        let (site, reason) = (site.to_owned(), reason.to_owned());
        self.signal_all(|| Signal::SiteLost { site: site.clone(), reason: reason.clone() }).await;
    }

    /// Runs work with the server's key on a blocking thread, a few at a time.
    pub(crate) async fn sign<T, F>(self: &Arc<Self>, work: F) -> Result<T, HandlerError>
    where
        T: Send + 'static,
        F: FnOnce(&Shared) -> Result<T, HandlerError> + Send + 'static,
    {
        let busy =
            |_| HandlerError::new(locule_message::ReturnCode::ServiceUnavailable, "server is shutting down");
        let permit = Arc::clone(&self.signing).acquire_owned().await.map_err(busy)?;
        let shared = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&shared)
        });
        work.await.map_err(|error| HandlerError::failed(error.to_string()))?
    }
}

/// Looks for sites that fell silent or whose certificate has ended.
async fn sweep(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.stop.cancelled() => return,
        }
        for site in shared.ledger.drop_silent(shared.settings.heartbeat_timeout, Instant::now()) {
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

/// A panic under one of these locks leaves the state whole: each is changed in one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
