//! A site from its first registration to its good-bye.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use locule_auth::SessionStamp;
use locule_cell::Cell;
use locule_communicator::{Communicator, Credentials, JobKeeper as _, RegisterError, Settings};
use locule_component::Event;
use locule_event::Attendants;
use locule_identity::Session;
use locule_job::Retention;
use locule_kit::Workspace;
use locule_launcher::Launcher;
use locule_message::ReturnCode;
use locule_transport::{Endpoint, ListenError};
use tokio::sync::{Notify, Semaphore, broadcast, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::book::JobBook;
use crate::check::{self, CheckLimit};
use crate::context::run_context;
use crate::event::SiteEvent;
use crate::folder::RunFolders;
use crate::job::SiteJobHost;
use crate::parent::{DEPLOYMENTS, Parent, is_unknown_there};
use crate::resources::SiteResources;
use crate::retention;

/// Events that a slow watcher may lag behind.
const EVENTS: usize = 256;

/// How long the cell's last messages may take.
const DRAIN: Duration = Duration::from_secs(2);

/// How a site treats its jobs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SiteSettings {
    /// How it talks to its server, and its name.
    pub communicator: Settings,
    /// Whether an app must be signed by an administrator to be deployed here (true).
    pub require_signed_jobs: bool,
    /// Whether the site answers what its checkers would say of a job that nobody has submitted yet (true). An answer
    /// holds codes and what the policy marks public.
    pub answer_checks: bool,
    /// Whether the server is sent the end of a job's log when the job has ended here (true).
    pub send_logs: bool,
    /// Most jobs that run, or have room promised, at a time (8).
    pub max_jobs: usize,
    /// What there is for them (nothing: a job that wants something of it is refused).
    pub resources: SiteResources,
    /// Most run folders in the kit (1,000). When there are so many, nothing more is deployed.
    pub max_run_folders: usize,
    /// What is kept of jobs that are over (the folders of the last 500).
    pub retention: Retention,
    /// How long room stays promised to a job that does not start, unless the resources say otherwise (300 s).
    pub reservation: Duration,
    /// How long a job may take to stop when it is aborted (10 s).
    pub abort_grace: Duration,
    /// How long, when the site stops, the server may take for the last reports, and again for the good-bye (5 s).
    pub farewell: Duration,
}

impl SiteSettings {
    /// The defaults for a site that talks like this.
    #[must_use]
    pub fn new(communicator: Settings) -> Self {
        Self {
            communicator,
            require_signed_jobs: true,
            answer_checks: true,
            send_logs: true,
            max_jobs: 8,
            resources: SiteResources::default(),
            max_run_folders: 1000,
            retention: Retention { jobs: Some(500), ..Retention::default() },
            reservation: Duration::from_secs(300),
            abort_grace: Duration::from_secs(10),
            farewell: Duration::from_secs(5),
        }
    }
}

/// What a site is made of.
pub struct SiteParts {
    /// The site's cell, which dials the server. It is the site's from now on, and shut down with it.
    pub cell: Cell,
    /// The stamp of that cell.
    pub stamp: Arc<SessionStamp>,
    /// Where jobs read the session: the other end is in their [`SiteJobHost`](crate::SiteJobHost).
    pub session: watch::Sender<Option<Session>>,
    /// What the site proves itself with, and verifies apps with; may be absent outside of secure mode.
    pub credentials: Option<Credentials>,
    /// What apps are reviewed with when they arrive; jobs are started with the same.
    pub host: Arc<SiteJobHost>,
    /// Starts jobs.
    pub launcher: Arc<dyn Launcher>,
    /// Where the cell listens for its jobs; must be a carrier that crosses no network.
    pub internal: Endpoint,
    /// The site's kit; run folders are made in it.
    pub kit: Workspace,
    /// Who hears of what happens at the site, and may say no to it.
    pub attendants: Attendants,
}

impl fmt::Debug for SiteParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteParts").field("cell", &self.cell).field("kit", &self.kit).finish_non_exhaustive()
    }
}

/// A running site. Dropping it stops the site in the background; [`shutdown`](Self::shutdown) waits for that.
#[derive(Debug)]
pub struct Site {
    events: broadcast::Sender<SiteEvent>,
    ended: watch::Receiver<Option<Result<(), SiteError>>>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Site {
    /// Listens for jobs, takes orders, and begins to register; registering and everything after it goes on in
    /// the background.
    ///
    /// # Errors
    /// [`ListenError`] if the internal endpoint cannot be listened at.
    pub async fn start(settings: SiteSettings, parts: SiteParts) -> Result<Site, ListenError> {
        let internal = parts.cell.listen(&parts.internal).await?;
        let site = settings.communicator.site_name.clone();
        let stop = CancellationToken::new();
        let (events, _) = broadcast::channel(EVENTS);
        let context = run_context(&site, None);
        let communicator = Communicator::new(
            parts.cell.clone(),
            settings.communicator,
            parts.stamp,
            context.clone(),
            Arc::clone(&parts.attendants.events),
            stop.clone(),
        );
        let identity = parts.credentials.as_ref().map(|credentials| credentials.signer.identity());
        let organization = identity.and_then(|identity| identity.organization.clone());
        let folders = RunFolders {
            kit: parts.kit,
            site: site.clone(),
            verifier: parts.credentials.as_ref().map(|credentials| Arc::clone(&credentials.verifier)),
            require_signed: settings.require_signed_jobs,
            org: organization.unwrap_or_default(),
            most: settings.max_run_folders,
        };
        let reservation = settings.resources.reservation.unwrap_or(settings.reservation);
        let parent = Arc::new(Parent {
            site,
            cell: parts.cell,
            communicator,
            folders,
            host: parts.host,
            answer_checks: settings.answer_checks,
            send_logs: settings.send_logs,
            checks: CheckLimit::default(),
            launcher: parts.launcher,
            internal,
            book: JobBook::new(settings.max_jobs, settings.resources, reservation),
            abort_grace: settings.abort_grace,
            deployments: Semaphore::new(DEPLOYMENTS),
            events: events.clone(),
            supervisors: TaskTracker::new(),
            stop: stop.clone(),
            is_dismissed: AtomicBool::new(false),
            no_more_time: CancellationToken::new(),
            job_over: Notify::new(),
            unknown_there: Notify::new(),
            attendants: parts.attendants,
            context: context.clone(),
        });
        check::clear(&parent.host);
        parent.open();
        tokio::spawn(retention::keep(Arc::clone(&parent), settings.retention));
        let (end, ended) = watch::channel(None);
        let presence = Presence {
            parent,
            credentials: parts.credentials,
            session: parts.session,
            farewell: settings.farewell,
        };
        tokio::spawn(async move {
            let result = presence.live().await;
            end.send_replace(Some(result));
        });
        Ok(Site { events, ended, stop: stop.clone(), _stop_on_drop: stop.drop_guard() })
    }

    /// What happens at the site from now on. A watcher that lags loses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<SiteEvent> {
        self.events.subscribe()
    }

    /// Waits until the site has stopped: because its server or [`shutdown`](Self::shutdown) said so, or because
    /// it could not register. Cancel-safe.
    ///
    /// # Errors
    /// [`SiteError`] says why it stopped by itself.
    pub async fn wait(&self) -> Result<(), SiteError> {
        let mut ended = self.ended.clone();
        let ended = ended.wait_for(Option::is_some).await;
        ended.ok().and_then(|ended| ended.clone()).unwrap_or(Err(SiteError::Lost))
    }

    /// Stops the site: ends its jobs where they are, says good-bye, closes the cell. Jobs are not over by that: a site
    /// that is back soon is given them again. Only a site that its server shuts down aborts them and reports how they
    /// ended. Takes at most the abort's grace, twice the farewell, and 2 s. Dropping the future does not take it back.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub async fn shutdown(&self) -> Result<(), SiteError> {
        self.stop.cancel();
        self.wait().await
    }
}

/// Why a site stopped by itself.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SiteError {
    /// The server does not take it, or is not the server it should be.
    #[error("site could not register")]
    Register(#[source] Arc<RegisterError>),
    /// The task that runs the site is gone.
    #[error("site ended unexpectedly")]
    Lost,
}

/// The site's presence at its server: registered, heard of every few seconds, gone in good order.
struct Presence {
    parent: Arc<Parent>,
    credentials: Option<Credentials>,
    session: watch::Sender<Option<Session>>,
    farewell: Duration,
}

impl Presence {
    async fn live(self) -> Result<(), SiteError> {
        let registered = self.register().await;
        if matches!(registered, Ok(true)) {
            self.parent.notice(&Event::SystemStart);
            self.stay().await;
        }
        self.leave().await;
        registered.map(|_| ()).map_err(|error| SiteError::Register(Arc::new(error)))
    }

    /// Registers, again and again while the server may only be away. False when the site was stopped meanwhile.
    async fn register(&self) -> Result<bool, RegisterError> {
        loop {
            match self.parent.communicator.register(self.credentials.as_ref()).await {
                Ok(session) => {
                    self.session.send_replace(Some(session));
                    let site = &self.parent.site;
                    tracing::info!(site, "site registered");
                    self.parent.events.send(SiteEvent::Registered { site: site.clone() }).ok();
                    return Ok(true);
                }
                Err(RegisterError::Cancelled) => return Ok(false),
                Err(error) if may_pass(&error) => {
                    tracing::warn!(%error, "registration not answered; registering again");
                    self.pause(self.parent.communicator.settings().register_interval).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Registers anew after the server has forgotten the site. Whatever it says, the site asks again.
    async fn register_anew(&self) {
        while let Err(error) = self.register().await {
            tracing::warn!(%error, "server does not take the site back; registering again");
            self.pause(self.parent.communicator.settings().auth_error_pause).await;
        }
    }

    /// Sends signs of life until the site is to stop. A server that does not know the site any more is
    /// registered with anew, which a stock site does not do.
    async fn stay(&self) {
        let parent = &self.parent;
        let settings = parent.communicator.settings();
        while !parent.stop.is_cancelled() {
            self.parent.notice(&Event::BeforeClientHeartbeat);
            let answer = tokio::select! {
                answer = parent.communicator.heartbeat(parent.job_ids()) => answer,
                () = parent.stop.cancelled() => return,
            };
            self.parent.notice(&Event::AfterClientHeartbeat);
            let wait = match answer {
                Ok(unwanted) => {
                    unwanted.iter().for_each(|job_id| parent.abort(job_id));
                    settings.heartbeat_interval
                }
                Err(error) if settings.simulate => {
                    tracing::info!(%error, "simulation is over");
                    return parent.stop.cancel();
                }
                Err(error) => {
                    tracing::warn!(%error, "heartbeat failed; trying again");
                    if is_unknown_there(&error) {
                        parent.unknown_there.notify_one();
                    }
                    settings.heartbeat_retry
                }
            };
            tokio::select! {
                () = self.pause(wait) => {}
                () = parent.unknown_there.notified() => {
                    self.pause(settings.register_interval).await;
                    self.register_anew().await;
                    tokio::select! { // what was noticed before this registration is settled by it
                        biased;
                        () = parent.unknown_there.notified() => {}
                        () = std::future::ready(()) => {}
                    }
                }
            }
        }
    }

    /// Ends jobs, says good-bye. Only if it is dismissed are its jobs over, so that their outcomes are reported; else the
    /// server waits for the site to come back to them.
    async fn leave(&self) {
        let Parent { book, supervisors, communicator, no_more_time, .. } = &*self.parent;
        let is_dismissed = self.parent.is_dismissed.load(Ordering::Relaxed);
        for job in book.close() {
            job.request_abort(if is_dismissed { self.parent.abort_grace } else { Duration::ZERO });
        }
        supervisors.close();
        let patience = self.parent.abort_grace + self.farewell;
        let all_reported = tokio::time::timeout(patience, supervisors.wait()).await;
        no_more_time.cancel();
        if all_reported.is_err() {
            supervisors.wait().await;
        }
        if self.session.borrow().is_some() {
            match tokio::time::timeout(self.farewell, communicator.quit()).await {
                Ok(Ok(_)) => tracing::debug!("server has heard the good-bye"),
                Ok(Err(error)) => tracing::warn!(%error, "server has not heard the good-bye"),
                Err(_) => tracing::warn!("server has not answered the good-bye"),
            }
        }
        self.parent.notice(&Event::SystemEnd);
        let events = Arc::clone(&self.parent.attendants.events);
        tokio::task::spawn_blocking(move || events.settle(DRAIN)).await.ok();
        self.parent.cell.shutdown(DRAIN).await;
        tracing::info!(site = self.parent.site, "site stopped");
        self.parent.events.send(SiteEvent::Stopped).ok();
    }

    /// Waits, but not longer than until the site is to stop.
    async fn pause(&self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.parent.stop.cancelled() => {}
        }
    }
}

/// Whether the server may simply not be there yet.
fn may_pass(error: &RegisterError) -> bool {
    use ReturnCode::{CommError, ServiceUnavailable, TargetUnreachable, Timeout};
    matches!(
        error,
        RegisterError::Refused { code: CommError | ServiceUnavailable | TargetUnreachable | Timeout, .. }
    )
}
