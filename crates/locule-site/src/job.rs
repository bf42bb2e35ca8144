//! A job's life at a site: link to the parent, assemble, work on tasks, say how it ended.

use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use locule_assembly::{
    AssemblyError, CheckerFiles, Deployed, NoCheckerFiles, Program, assemble, assemble_approved,
};
use locule_auth::{CertificateLinkPolicy, SessionStamp};
use locule_cell::{Cell, CellConfig, HandlerError, Incoming, Reply, Request};
use locule_communicator::{JobCommunicator, Settings, SyncError};
use locule_component::{AbortFlag, Assembled, Registry, Side, with_causes};
use locule_executor::{Pace, RunError, RunSummary, TaskLoop, Turns, Workbench};
use locule_identity::Session;
use locule_kit::Workspace;
use locule_launcher::{FailureKind, JobFailure, JobStart};
use locule_message::{Fqcn, Payload, ReturnCode};
use locule_protocol::{AdminCommand, AdminRequest, AuxReply, AuxRequest, JobStatus, aux_topic, channel};
use locule_transport::{Endpoint, Transports};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::context::run_context;
use crate::end_of_run::EndOfRun;
use crate::news;

/// What others are told when the site's own checkers cannot be used, or its verdicts not recorded.
pub(crate) const CANNOT_JUDGE: &str =
    "the site's own configuration cannot be used; its operator can read why in its log";

/// How long the parent may take to be linked.
const LINK: Duration = Duration::from_secs(30);

/// How long the parent may take to answer.
const PARENT: Duration = Duration::from_secs(5);

/// How often the parent is told something until it has heard it.
const TRIES: usize = 3;

/// How long to let the last answers out when the job's cell closes.
const DRAIN: Duration = Duration::from_secs(2);

/// What every job of a site has in common; a job learns the rest from its run folder.
#[derive(Clone)]
#[non_exhaustive]
pub struct SiteJobHost {
    /// Components that jobs may name.
    pub registry: Arc<Registry>,
    /// Opens the site's checkers that are files; [`NoCheckerFiles`] unless it is set.
    pub checkers: Arc<dyn CheckerFiles>,
    /// Carriers; the parent's internal endpoint is reached over one of them.
    pub transports: Transports,
    /// The site's kit.
    pub kit: Workspace,
    /// The site's organisation; empty if nobody said.
    pub org: String,
    /// How the site talks to its server, and its name.
    pub settings: Settings,
    /// The session that the site has now; [`SiteParts::session`](crate::SiteParts::session) is the other end.
    pub session: watch::Receiver<Option<Session>>,
    /// Waits of the task loop.
    pub pace: Pace,
    /// Bounds how many sites of this process work at one time; no bound unless it is set.
    pub turns: Option<Turns>,
}

impl SiteJobHost {
    /// A host for the jobs of the site that `settings` name, with the default waits and no organisation.
    #[must_use]
    pub fn new(
        settings: Settings,
        kit: Workspace,
        registry: Arc<Registry>,
        transports: Transports,
        session: watch::Receiver<Option<Session>>,
    ) -> Self {
        let checkers = Arc::new(NoCheckerFiles);
        let (org, pace, turns) = (String::new(), Pace::default(), None);
        Self { registry, checkers, transports, kit, org, settings, session, pace, turns }
    }
}

impl SiteJobHost {
    /// A job's app in its run folder.
    pub(crate) fn deployed(&self, job_id: &str, run_dir: &Path, meta: serde_json::Value) -> Deployed {
        let site = &self.settings.site_name;
        Deployed {
            side: Side::Site,
            participant: site.clone(),
            org: self.org.clone(),
            job_id: job_id.to_owned(),
            kit: self.kit.clone(),
            app_dir: run_dir.join(format!("app_{site}")),
            meta,
        }
    }

    pub(crate) fn program(&self) -> Program<'_> {
        Program { registry: &self.registry, checkers: &*self.checkers }
    }
}

impl fmt::Debug for SiteJobHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteJobHost").field("site", &self.settings.site_name).finish_non_exhaustive()
    }
}

/// Runs a site job to its end, in a cell of its own that is linked to its parent only.
///
/// This is what a launcher starts. The job reads its app and meta from `start.run_dir`, builds nothing of a plan that
/// its parent has not approved (or, where the start says nothing of that, the site's checkers), works on the server's
/// tasks, and tells its parent by messages how it stands. It never sees the site's key.
///
/// # Errors
/// [`JobFailure`] with the kind and reason that the parent reports to the server.
pub async fn run_job(
    host: Arc<SiteJobHost>,
    start: JobStart,
    abort: CancellationToken,
) -> Result<(), JobFailure> {
    let job = tokio::select! {
        job = Job::open(host, start, abort.clone()) => job?,
        () = abort.cancelled() => return Err(aborted()),
    };
    let ended = job.run().await;
    job.close(&ended).await;
    ended
}

struct Job {
    host: Arc<SiteJobHost>,
    start: JobStart,
    parent: Fqcn,
    cell: Cell,
    stamp: Arc<SessionStamp>,
    session: Session,
    abort: CancellationToken,
}

impl Job {
    /// Links to the parent, with the site's session but without its key.
    async fn open(
        host: Arc<SiteJobHost>,
        start: JobStart,
        abort: CancellationToken,
    ) -> Result<Self, JobFailure> {
        let name = Fqcn::parse(&start.cell).map_err(|error| infrastructure(&error))?;
        let endpoint = Endpoint::parse(&start.parent).map_err(|error| infrastructure(&error))?;
        let parent = name.parent().ok_or_else(|| infrastructure(&"a job's cell has a parent"))?;
        let session = host.session.borrow().clone();
        let session = session.ok_or_else(|| infrastructure(&"the site has no session"))?;
        let stamp = Arc::new(SessionStamp::new());
        stamp.set(session.clone());
        let cell = Cell::builder(CellConfig::new(name.clone()))
            .transports(host.transports.clone())
            .stamp(stamp.clone())
            .link_policy(Arc::new(CertificateLinkPolicy::new(name)))
            .start();
        cell.connect(endpoint);
        if !cell.wait_linked(&parent, LINK).await {
            return Err(infrastructure(&"the job has no link to its parent"));
        }
        let job = Self { host, start, parent, cell, stamp, session, abort };
        job.obey_abort();
        Ok(job)
    }

    async fn run(&self) -> Result<(), JobFailure> {
        let mut assembled = tokio::select! {
            assembled = self.assemble() => assembled?,
            () = self.abort.cancelled() => return Err(aborted()),
        };
        let end = EndOfRun::new(&self.abort);
        assembled.observers.push((EndOfRun::ID.to_owned(), Box::new(end.observer())));
        let job_at_server =
            Fqcn::server().child(&self.start.job_id).map_err(|error| infrastructure(&error))?;
        self.hear_end_of_run(&end, job_at_server);
        let communicator = self.communicator(&end)?;
        let task_loop = self.task_loop(communicator.clone(), assembled, &end);
        self.tell_status(JobStatus::Started).await;
        let ended = tokio::select! {
            ended = Box::pin(task_loop.run()) => ended,
            never = end.stop_when_idle() => match never {},
            never = self.follow_session(&communicator) => match never {},
            never = self.tell_progress(&end) => match never {},
        };
        self.judge(ended, &end).await
    }

    async fn close(self, ended: &Result<(), JobFailure>) {
        let crashed = ended.as_ref().is_err_and(|failure| failure.kind() == FailureKind::Exception);
        self.tell_status(if crashed { JobStatus::Exception } else { JobStatus::Stopped }).await;
        self.cell.shutdown(DRAIN).await;
    }

    /// Reads, reviews and builds the app; what was refused is told to the parent first.
    async fn assemble(&self) -> Result<Assembled, JobFailure> {
        let (host, start) = (Arc::clone(&self.host), self.start.clone());
        let work = move || {
            let deployed = host.deployed(&start.job_id, &start.run_dir, read_meta(&start.run_dir)?);
            Ok::<_, String>(match &start.approved_plan {
                Some(plan) => assemble_approved(&deployed, host.program(), plan),
                None => assemble(&deployed, host.program()),
            })
        };
        let done = tokio::task::spawn_blocking(work).await;
        let done = done.map_err(|panic| JobFailure::new(FailureKind::Exception, panic.to_string()))?;
        let error = match done.map_err(|error| infrastructure(&error))? {
            Ok(assembled) => return Ok(assembled),
            Err(error) => error,
        };
        if let AssemblyError::Refused(refusal) = &error {
            let body = json!(refusal.for_submitter(&self.host.settings.site_name)).to_string();
            self.tell(news::CHANNEL, news::REFUSED, Payload::bytes(body.into())).await;
        }
        Err(failure(&self.start.job_id, &self.start.run_dir, &error))
    }

    fn communicator(&self, end: &EndOfRun) -> Result<JobCommunicator, JobFailure> {
        let (site, job_id) = (&self.host.settings.site_name, &self.start.job_id);
        let communicator = JobCommunicator::new(
            self.cell.clone(),
            self.host.settings.clone(),
            self.session.clone(),
            job_id,
            run_context(site, Some(job_id)).open().peer_context(),
            end.stop().clone(),
        );
        communicator.map_err(|error| infrastructure(&error))
    }

    fn task_loop(&self, communicator: JobCommunicator, assembled: Assembled, end: &EndOfRun) -> TaskLoop {
        let (site, job_id) = (&self.host.settings.site_name, &self.start.job_id);
        let run = run_context(site, Some(job_id));
        let pace = paced(self.host.pace, &assembled.settings);
        let bench = Workbench::new(site, job_id, run, assembled, AbortFlag::new());
        let task_loop = TaskLoop::new(communicator, bench, pace, end.stop().clone());
        match &self.host.turns {
            Some(turns) => task_loop.turns(turns.clone()),
            None => task_loop,
        }
    }

    async fn judge(&self, ended: Result<RunSummary, RunError>, end: &EndOfRun) -> Result<(), JobFailure> {
        let tasks_done = ended.as_ref().map_or(end.tasks_sent(), |summary| summary.tasks_done);
        let body = json!({ "tasks_done": tasks_done }).to_string();
        self.tell(news::CHANNEL, news::DONE, Payload::bytes(body.into())).await;
        match ended {
            Ok(_) => Ok(()),
            Err(RunError::Aborted | RunError::Sync(SyncError::Cancelled)) if self.abort.is_cancelled() => {
                Err(aborted())
            }
            // The server ended the run while this side was idle.
            Err(RunError::Aborted | RunError::Sync(SyncError::Cancelled)) => Ok(()),
            Err(error @ RunError::Sync(_)) => Err(infrastructure(&error)),
            Err(error) => Err(JobFailure::new(FailureKind::Exception, error.to_string())),
        }
    }

    /// The parent may end the job by message; it does so when it is of another process.
    fn obey_abort(&self) {
        let (parent, abort) = (self.parent.clone(), self.abort.clone());
        self.cell.handle(channel::CLIENT_COMMAND, "abort", move |incoming: Incoming| {
            let from_parent = incoming.origin == parent;
            if from_parent {
                abort.cancel();
            }
            async move { if from_parent { Ok(Reply::ok(Payload::none())) } else { Err(not_for_you()) } }
        });
    }

    /// The job at the server says that the run is over.
    fn hear_end_of_run(&self, end: &EndOfRun, job_at_server: Fqcn) {
        let peer = run_context(&self.host.settings.site_name, Some(&self.start.job_id)).open().peer_context();
        let end = end.clone();
        self.cell.handle(AuxRequest::CHANNEL, aux_topic::END_RUN, move |incoming: Incoming| {
            let from_job = incoming.origin == job_at_server;
            if from_job {
                end.announce();
            }
            let reply = AuxReply::new("OK", peer.clone()).to_parts();
            async move {
                match reply {
                    Ok(parts) if from_job => Ok(Reply::ok(parts.payload)),
                    Ok(_) => Err(not_for_you()),
                    Err(error) => Err(HandlerError::failed(error.to_string())),
                }
            }
        });
    }

    /// Tells the parent after each task how many there were: a process that gets something done may die more often.
    async fn tell_progress(&self, end: &EndOfRun) -> Infallible {
        let mut sent = end.follow();
        while sent.changed().await.is_ok() {
            let body = json!({ "tasks_done": *sent.borrow_and_update() }).to_string();
            let news = Request::new(news::CHANNEL, news::DONE, Payload::bytes(body.into()));
            self.cell.notify(&self.parent, news.optional()).await.ok();
        }
        std::future::pending().await
    }

    /// When the site registers anew, the job's messages carry the new token from then on.
    async fn follow_session(&self, communicator: &JobCommunicator) -> Infallible {
        let mut sessions = self.host.session.clone();
        while sessions.changed().await.is_ok() {
            if let Some(session) = sessions.borrow_and_update().clone() {
                communicator.renew(session.clone());
                self.stamp.set(session);
            }
        }
        std::future::pending().await
    }

    async fn tell_status(&self, status: JobStatus) {
        let job_id = self.start.job_id.clone();
        let command = AdminCommand::NotifyJobStatus { job_id, status };
        match AdminRequest::new(Uuid::new_v4().to_string(), command).to_parts() {
            Ok(parts) => self.tell(AdminRequest::CHANNEL, AdminRequest::NOTIFY_TOPIC, parts.payload).await,
            Err(error) => tracing::error!(job = self.start.job_id, %error, "status cannot be encoded"),
        }
    }

    async fn tell(&self, channel: &str, topic: &str, payload: Payload) {
        for _ in 0..TRIES {
            let request = Request::new(channel, topic, payload.clone()).timeout(PARENT);
            match self.cell.request(&self.parent, request).await.and_then(Reply::into_ok) {
                Ok(_) => return,
                Err(error) => tracing::warn!(job = self.start.job_id, topic, %error, "parent did not answer"),
            }
        }
    }
}

/// The waits that the job sets, as nvflare 2.9.0 does, `nvflare.private.fed.client.client_runner`; short ones within
/// reason, for they cost the site.
fn paced(mut pace: Pace, settings: &locule_component::Settings) -> Pace {
    const SHORTEST: Duration = Duration::from_millis(100);
    let set = |wait: &mut Duration, name| {
        if let Some(given) = settings.wait(name) {
            *wait = given.max(SHORTEST);
        }
    };
    set(&mut pace.sync_limit, "max_runner_sync_timeout");
    set(&mut pace.retry, "task_check_interval");
    set(&mut pace.heartbeat, "job_heartbeat_interval");
    pace
}

/// The failure that the server reads. What concerns only the site's operator stays in the site's log.
pub(crate) fn failure(job: &str, run_dir: &Path, error: &AssemblyError) -> JobFailure {
    match error {
        AssemblyError::Refused(_) => JobFailure::new(FailureKind::UnsafeComponent, error.to_string()),
        AssemblyError::Config(_) | AssemblyError::Build(_) | AssemblyError::Scope(_) => {
            JobFailure::new(FailureKind::Config, error.to_string())
        }
        AssemblyError::Read { file, source } => {
            let file = file.strip_prefix(run_dir).unwrap_or(file).display();
            JobFailure::new(FailureKind::Config, format!("cannot read {file}: {source}"))
        }
        AssemblyError::Kit(_)
        | AssemblyError::Policy(_)
        | AssemblyError::PolicyFile { .. }
        | AssemblyError::Privacy(_)
        | AssemblyError::Audit(_) => {
            tracing::error!(job, error = with_causes(error), "site cannot judge jobs");
            infrastructure(&CANNOT_JUDGE)
        }
        AssemblyError::Setting(_) | _ => infrastructure(error),
    }
}

pub(crate) fn read_meta(run_dir: &Path) -> Result<serde_json::Value, String> {
    let text = std::fs::read(run_dir.join("meta.json"));
    let text = text.map_err(|error| format!("the job's meta.json cannot be read: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| format!("the job's meta.json is not JSON: {error}"))
}

pub(crate) fn infrastructure(reason: &dyn fmt::Display) -> JobFailure {
    JobFailure::new(FailureKind::Infrastructure, reason.to_string())
}

fn aborted() -> JobFailure {
    JobFailure::new(FailureKind::Exception, "the job was aborted")
}

fn not_for_you() -> HandlerError {
    HandlerError::new(ReturnCode::Unauthenticated, "this is not yours to say")
}
