//! A site's parent: obeys its server, listens to its jobs, reports how they ended.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use locule_assembly::{Approval, AssemblyError, approve_start, review_app};
use locule_cell::{Cell, HandlerError, Incoming, LinkSecurity, Reply, Request};
use locule_communicator::{Communicator, JobKeeper, SayError};
use locule_component::{
    Event, JobFacts, Phase, Question as GateQuestion, Requester, RunContext, with_causes,
};
use locule_event::Attendants;
use locule_launcher::{JobFailure, JobHandle, JobOutcome, JobStart, Launcher};
use locule_message::{Fqcn, Payload, ReturnCode};
use locule_protocol::{
    AdminBody, AdminCommand, AdminContext, AdminReply, AdminRequest, JobStatus, NVFLARE_VERSION,
    OutcomeReport, Person, Refusal, channel,
};
use locule_transport::Endpoint;
use serde_json::{Value as Json, json};
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::book::JobBook;
use crate::check::{self, Answer, CheckLimit, Question};
use crate::event::SiteEvent;
use crate::folder::{DeployError, RunFolders};
use crate::job::{CANNOT_JUDGE, SiteJobHost, failure, infrastructure, read_meta};
use crate::{meta, news};

/// Deployments that are checked and unpacked at a time.
pub(crate) const DEPLOYMENTS: usize = 2;

/// How often a job whose process died before it got a task done is started again within [`RESTARTS_WITHIN`]; after that
/// it fails.
const RESTARTS: usize = 4;
const RESTARTS_WITHIN: Duration = Duration::from_secs(600);

/// How a server tells that a start failed: the return code alone does not make it give up.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.defs`, `nvflare.private.fed.server.admin`.
pub(crate) const ERROR_PREFIX: &str = "NVFLARE_ERROR";

/// Most bytes of a job's log that the server is sent: the last ones.
const LOG: u64 = 1 << 20;

/// How long that may take.
const LOG_SENT: Duration = Duration::from_secs(10);

/// Everything that the site's handlers and tasks share.
pub(crate) struct Parent {
    pub(crate) site: String,
    pub(crate) cell: Cell,
    pub(crate) communicator: Communicator,
    pub(crate) folders: RunFolders,
    /// What apps are reviewed with.
    pub(crate) host: Arc<SiteJobHost>,
    /// Whether, and how often, it says what its checkers would say of a job.
    pub(crate) answer_checks: bool,
    pub(crate) checks: CheckLimit,
    /// Whether the server is sent logs of jobs.
    pub(crate) send_logs: bool,
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) internal: Endpoint,
    pub(crate) book: JobBook,
    pub(crate) abort_grace: Duration,
    pub(crate) deployments: Semaphore,
    pub(crate) events: broadcast::Sender<SiteEvent>,
    /// One task a job, from its start until its outcome is taken.
    pub(crate) supervisors: TaskTracker,
    /// The site is to stop.
    pub(crate) stop: CancellationToken,
    /// Its server said so: its jobs are over.
    pub(crate) is_dismissed: AtomicBool,
    /// There is no more time for reports.
    pub(crate) no_more_time: CancellationToken,
    /// A job has come to its end, and the server has heard of it.
    pub(crate) job_over: Notify,
    /// The server does not know the site any more.
    pub(crate) unknown_there: Notify,
    /// Who hears of what happens here, and may say no to it.
    pub(crate) attendants: Attendants,
    pub(crate) context: RunContext,
}

impl Parent {
    /// Tells the site's observers.
    pub(crate) fn notice(&self, event: &Event<'_>) {
        self.attendants.events.fire(event, &self.context.open());
    }

    /// Takes orders from the server and news from jobs from now on.
    pub(crate) fn open(self: &Arc<Self>) {
        let (this, cell) = (Arc::clone(self), &self.cell);
        cell.handle(AdminRequest::CHANNEL, AdminRequest::TOPIC, move |incoming: Incoming| {
            let this = Arc::clone(&this);
            async move { this.take_order(incoming).await }
        });
        let this = Arc::clone(self);
        cell.handle(AdminRequest::CHANNEL, AdminRequest::NOTIFY_TOPIC, move |incoming: Incoming| {
            let noted = this.note_status(&incoming);
            async move { noted }
        });
        let this = Arc::clone(self);
        cell.handle(news::CHANNEL, "*", move |incoming: Incoming| {
            let noted = this.note_news(&incoming);
            async move { noted }
        });
    }

    /// Orders count only if they come from the server, and not by way of one of our own jobs.
    async fn take_order(self: Arc<Self>, incoming: Incoming) -> Result<Reply, HandlerError> {
        let through_a_job = self.cell.name().contains(&incoming.link.peer);
        if incoming.origin != Fqcn::server() || through_a_job {
            tracing::debug!(peer = %incoming.origin, "order does not come from the server");
            return Err(HandlerError::new(ReturnCode::Unauthenticated, "orders come from the server only"));
        }
        let order = AdminRequest::from_parts(&incoming.headers, &incoming.payload());
        let order = order.map_err(|error| HandlerError::invalid_request(error.to_string()))?;
        let mut reply = order.reply(true, AdminBody::Text(String::new()));
        let permitted = match self.permit(&order.context).await {
            Ok(()) => self.authorize(&order.context).await,
            Err(reason) => Err(reason),
        };
        if let (Ok(()), AdminCommand::CheckJob { job_id, meta, zip, .. }) = (&permitted, &order.command) {
            let (meta, asker, archive) = (meta::to_json(meta), order.context.user.clone(), zip.clone());
            match self.check_job(Question { job_id: job_id.clone(), meta, archive, asker }).await {
                Ok(Answer { document, refusals }) => {
                    reply.body = AdminBody::json(&document);
                    reply.refusals = refusals;
                }
                Err(reason) => (reply.ok, reply.body) = (false, AdminBody::Text(reason)),
            }
            return answer(&reply);
        }
        let obeyed = match permitted {
            Ok(()) => self.obey(order.command, &order.context.submitter).await,
            Err(reason) => Err(No::from(reason)),
        };
        match obeyed {
            Ok(body) => reply.body = body,
            Err(No { reason, refusals }) => {
                reply.ok = false;
                reply.body = AdminBody::Text(reason);
                reply.refusals = refusals;
            }
        }
        answer(&reply)
    }

    /// Whether the site's gates let an order pass that a console's command stands behind.
    async fn authorize(&self, order: &AdminContext) -> Result<(), String> {
        let Some(command) = &order.admin_command else { return Ok(()) };
        self.notice(&Event::AuthorizeCommandCheck { command });
        let (user, submitter) = (requester(&order.user), requester(&order.submitter));
        let question = GateQuestion::AuthorizeCommand { command: command.clone(), user, submitter };
        self.attendants.gates.ask(question).await.map_err(|no| no.to_string())
    }

    async fn obey(self: &Arc<Self>, command: AdminCommand, submitter: &Person) -> Result<AdminBody, No> {
        match command {
            AdminCommand::CheckResource { job_id, meta, spec } => {
                self.notice(&Event::BeforeCheckResources { job_id: &job_id });
                let job = Box::new(facts(&job_id, meta::to_json(&meta), submitter));
                match self.attendants.gates.ask(GateQuestion::CheckResources { job }).await {
                    Ok(()) => Ok(self.check_resource(&job_id, &spec)),
                    // The server keeps what stands in place of the token in the job's history.
                    Err(no) => Ok(AdminBody::no_room(no.to_string(), None)),
                }
            }
            AdminCommand::CancelResource { token, .. } => {
                self.book.cancel(&token);
                Ok(AdminBody::Code("OK".into()))
            }
            AdminCommand::Deploy { job_id, app_name, meta, zip } => {
                self.deploy(job_id, app_name, meta::to_json(&meta), zip).await
            }
            AdminCommand::StartJob { job_id, meta, token, .. } => {
                let started = self.start_job(job_id, meta::to_json(&meta), &token).await;
                Ok(started.map_err(|reason| format!("{ERROR_PREFIX}: {reason}"))?)
            }
            AdminCommand::Abort { job_id } => Ok(AdminBody::Text(self.abort_by_order(&job_id).into())),
            AdminCommand::CheckStatus => Ok(AdminBody::json(&self.status())),
            AdminCommand::Shutdown => {
                tracing::info!(site = self.site, "server tells the site to shut down");
                self.is_dismissed.store(true, Ordering::Relaxed);
                self.stop.cancel();
                Ok(AdminBody::Text("the site shuts down".into()))
            }
            AdminCommand::ShowStats { job_id } => {
                let status = self.standing(&job_id).ok_or("the site does not hold the job")?;
                Ok(AdminBody::json(&json!({ "ClientRunner": { "job_id": job_id, "status": status } })))
            }
            AdminCommand::ShowErrors { job_id } => {
                // A job that has failed is over, and its outcome says why.
                self.standing(&job_id).ok_or("the site does not hold the job")?;
                Ok(AdminBody::json(&json!({})))
            }
            AdminCommand::Other { topic } if topic == "train.get_scopes" => {
                self.scopes().await.map_err(No::from)
            }
            AdminCommand::Other { topic } if topic == "resource_manager.report_resources" => {
                Ok(AdminBody::json(&self.book.report_resources(Instant::now())))
            }
            AdminCommand::Other { topic } if topic == "sys.report_version" => {
                let locule = env!("CARGO_PKG_VERSION");
                Ok(AdminBody::json(&json!({ "version": NVFLARE_VERSION, "locule": locule })))
            }
            AdminCommand::NotifyJobStatus { .. }
            | AdminCommand::CheckJob { .. }
            | AdminCommand::Other { .. } => Err("invalid_request".into()),
        }
    }

    fn check_resource(&self, job_id: &str, spec: &locule_fobs::Map) -> AdminBody {
        if let Err(error) = self.folders.kit.run_dir(job_id) {
            return AdminBody::no_room(error.to_string(), None);
        }
        match self.book.reserve(job_id, spec, Instant::now()) {
            Ok(token) => AdminBody::room(token),
            Err(why) => AdminBody::no_room(why.to_string(), why.shortage()),
        }
    }

    async fn deploy(
        self: &Arc<Self>,
        job_id: String,
        app: String,
        meta: Json,
        archive: Bytes,
    ) -> Result<AdminBody, No> {
        let this = Arc::clone(self);
        let permit = self.deployments.acquire().await.map_err(|error| error.to_string())?;
        let deployed = tokio::task::spawn_blocking(move || {
            let _deploying = this.book.begin_deploy(&job_id).map_err(|error| error.to_string())?;
            let review = |run_dir: &Path, app_dir: &Path, meta: &Json| {
                reviewed(&this.host, &job_id, run_dir, app_dir, meta)
            };
            let done = this.folders.deploy(&job_id, &app, meta, &archive, review);
            Ok((done.map(|_| app), job_id))
        })
        .await;
        drop(permit);
        let (done, job) =
            deployed.map_err(|_| "the deployment broke off".to_owned()).and_then(|done| done)?;
        match done {
            Ok(app) => {
                tracing::info!(site = self.site, job, app, "job deployed");
                let text = format!("deployed {app} to {}", self.site);
                self.events.send(SiteEvent::JobDeployed { job, app }).ok();
                Ok(AdminBody::Text(text))
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::warn!(site = self.site, job, reason, "deployment refused");
                let DeployError::Refused(refusals) = error else { return Err(reason.into()) };
                self.events.send(SiteEvent::JobRefused { job, refusals: refusals.clone() }).ok();
                Err(No { reason, refusals })
            }
        }
    }

    /// Says what the checkers would say of a job.
    async fn check_job(self: &Arc<Self>, question: Question) -> Result<Answer, String> {
        if !self.answer_checks {
            return Err("the site does not say beforehand what it would refuse".into());
        }
        if !self.checks.admit(Instant::now()) {
            return Err("the site was asked too often; ask again in a minute".into());
        }
        tracing::info!(site = self.site, user = question.asker.name, "job is checked");
        let this = Arc::clone(self);
        let permit = self.deployments.acquire().await.map_err(|error| error.to_string())?;
        let answered = tokio::task::spawn_blocking(move || check::answer(&this.host, question)).await;
        drop(permit);
        answered.map_err(|_| "the check broke off".to_owned())?
    }

    async fn start_job(
        self: &Arc<Self>,
        job_id: String,
        meta: Json,
        token: &str,
    ) -> Result<AdminBody, String> {
        self.folders.kit.run_dir(&job_id).map_err(|error| error.to_string())?;
        self.book.enter(&job_id, token, Instant::now()).map_err(|error| error.to_string())?;
        match self.launch(&job_id, meta).await {
            Ok((app, handle)) => {
                if self.book.started(&job_id, app, handle.clone()) {
                    handle.request_abort(self.abort_grace);
                }
                tracing::info!(site = self.site, job = job_id, "job started");
                self.events.send(SiteEvent::JobStarted { job: job_id.clone() }).ok();
                self.supervisors.spawn(Arc::clone(self).supervise(job_id, handle));
                Ok(AdminBody::Text("Start the client app...".into()))
            }
            Err(reason) => {
                tracing::warn!(site = self.site, job = job_id, reason, "job not started");
                self.book.withdraw(&job_id);
                Err(reason)
            }
        }
    }

    async fn launch(self: &Arc<Self>, job_id: &str, meta: Json) -> Result<(String, JobHandle), String> {
        let (this, job) = (Arc::clone(self), job_id.to_owned());
        let prepared = tokio::task::spawn_blocking(move || this.folders.prepare(&job, meta)).await;
        let prepared = prepared.map_err(|_| "the preparation broke off".to_owned())?;
        let (run_dir, app) = prepared.map_err(|error| error.to_string())?;
        Ok((app, self.launch_half(job_id, run_dir).await?))
    }

    /// Starts a job whose folder is complete. One that the site does not let start has ended when it begins.
    async fn launch_half(self: &Arc<Self>, job_id: &str, run_dir: PathBuf) -> Result<JobHandle, String> {
        let cell = self.cell.name().child(job_id).map_err(|error| error.to_string())?;
        self.notice(&Event::BeforeJobLaunch { job_id });
        let handle = match self.approve(job_id, &run_dir).await? {
            Ok(plan) => {
                let start = JobStart::new(job_id, cell.as_str(), run_dir, self.internal.to_string());
                let start = start.approved(plan).environment(self.book.environment(job_id));
                self.launcher.start(start).map_err(|error| error.to_string())?
            }
            Err(failure) => {
                let (handle, report) = JobHandle::new(job_id);
                report.finish(JobOutcome::Failed(failure));
                handle
            }
        };
        self.notice(&Event::AfterJobLaunch { job_id });
        Ok(handle)
    }

    /// Asks whether an app is still what was approved when it was deployed, or the checkers once more; the digest of
    /// the plan that may be built. It is done here, where the log of verdicts is written, and not in the job.
    async fn approve(
        self: &Arc<Self>,
        job_id: &str,
        run_dir: &Path,
    ) -> Result<Result<String, JobFailure>, String> {
        let (host, job, folder) = (Arc::clone(&self.host), job_id.to_owned(), run_dir.to_owned());
        let judge = move || {
            let meta = read_meta(&folder).map_err(|reason| NotApproved::from(infrastructure(&reason)))?;
            let deployed = host.deployed(&job, &folder, meta);
            approve_start(&deployed, host.program()).map_err(|error| {
                let refused = if let AssemblyError::Refused(refusal) = &error { Some(refusal) } else { None };
                let refusals = refused.map(|refusal| refusal.for_submitter(&deployed.participant));
                let refusals = refusals.unwrap_or_default();
                NotApproved { failure: failure(&job, &folder, &error), refusals }
            })
        };
        let judged = tokio::task::spawn_blocking(judge).await;
        let judged = judged.map_err(|_| "the comparison with what was approved broke off".to_owned())?;
        Ok(match judged {
            Ok(plan) => Ok(plan.to_string()),
            Err(NotApproved { failure, refusals }) => {
                self.book.note_refusals(job_id, refusals);
                Err(failure)
            }
        })
    }

    fn abort_by_order(&self, job_id: &str) -> &'static str {
        if self.abort_job(job_id) { "the job is being aborted" } else { "the job does not run here" }
    }

    /// Asks a job to stop: by message, for one in another process, and through its launcher, which ends it when
    /// the grace is over. False when it does not run here.
    fn abort_job(&self, job_id: &str) -> bool {
        let Some(handle) = self.book.to_abort(job_id) else { return false };
        if let Ok(job) = self.cell.name().child(job_id) {
            let cell = self.cell.clone();
            self.supervisors.spawn(async move {
                let notice = Request::new(channel::CLIENT_COMMAND, "abort", Payload::none()).optional();
                cell.notify(&job, notice).await.ok();
            });
        }
        if let Some(handle) = handle {
            handle.request_abort(self.abort_grace);
        }
        true
    }

    /// How a job stands that this site holds.
    fn standing(&self, job_id: &str) -> Option<&'static str> {
        let jobs = self.book.standings();
        jobs.iter().find(|job| job.job_id == job_id).map(|job| word(job.status))
    }

    fn status(&self) -> Json {
        let jobs = self.book.standings().into_iter();
        let jobs: Vec<Json> = jobs
            .map(|job| json!({ "app_name": job.app, "job_id": job.job_id, "status": word(job.status) }))
            .collect();
        json!({ "client_name": self.site, "running_jobs": jobs })
    }

    /// Waits for a job to end and tells the server how, until the server has taken it.
    async fn supervise(self: Arc<Self>, job_id: String, handle: JobHandle) {
        let outcome = self.outcome(&job_id, handle).await;
        let was_stopped = self.stop.is_cancelled() && !self.is_dismissed.load(Ordering::Relaxed);
        if was_stopped && matches!(outcome, JobOutcome::Killed | JobOutcome::Aborted) {
            tracing::info!(
                site = self.site,
                job = job_id,
                "job is left: the site's next start may be given it again"
            );
            return;
        }
        let report = self.book.end(&job_id, outcome.code(), outcome.reason());
        self.notice(&Event::JobCompleted { job_id: &job_id });
        tracing::info!(
            site = self.site,
            job = job_id,
            code = report.code,
            tasks = report.tasks_done,
            reason = report.reason,
            "job ended"
        );
        for Refusal { component, file, path, code, reason, .. } in &report.refusals {
            tracing::info!(job = job_id, ?component, ?file, ?path, ?code, ?reason, "component refused");
        }
        self.send_log(&job_id).await;
        let (code, reason, refusals) = (report.code, report.reason.clone(), report.refusals.clone());
        self.events.send(SiteEvent::JobEnded { job: job_id.clone(), code, reason, refusals }).ok();
        tokio::select! {
            () = self.report(&report) => {
                self.book.forget(&job_id);
                self.job_over.notify_one();
                self.events.send(SiteEvent::OutcomeTaken { job: job_id }).ok();
            }
            () = self.no_more_time.cancelled() => {
                tracing::warn!(site = self.site, job = job_id, "server has not taken the job's outcome");
            }
        }
    }

    /// Sends the server the end of what the job has printed here, before the server hears that it is over.
    async fn send_log(&self, job_id: &str) {
        let Some(run_dir) = self.folders.kit.run_dir(job_id).ok().filter(|_| self.send_logs) else { return };
        let path = run_dir.path().join("log.txt");
        let sending = async {
            let read = tokio::task::spawn_blocking(move || end_of(&path, LOG)).await;
            let log = read.ok().and_then(Result::ok).filter(|log| !log.is_empty())?;
            match self.communicator.send_log(job_id, "log.txt", &log.into()).await {
                Ok(true) => {}
                Ok(false) => tracing::debug!(job = job_id, "server takes no logs"),
                Err(error) => tracing::debug!(job = job_id, %error, "log not sent"),
            }
            Some(())
        };
        tokio::select! {
            sent = tokio::time::timeout(LOG_SENT, sending) => if sent.is_err() {
                tracing::warn!(site = self.site, job = job_id, "server has not taken all of the job's log in time");
            },
            () = self.no_more_time.cancelled() => {}
        }
    }

    /// Waits for a job's end. One whose process died is started again, on the task that it had, as often as
    /// [`RESTARTS`] allows.
    async fn outcome(self: &Arc<Self>, job_id: &str, mut handle: JobHandle) -> JobOutcome {
        let mut deaths: Vec<Instant> = Vec::new();
        loop {
            let outcome = handle.wait().await;
            let JobOutcome::Died(failure) = &outcome else { return outcome };
            if self.book.is_to_end(job_id) {
                return outcome;
            }
            let now = Instant::now();
            let got_on = self.book.died(job_id);
            deaths.retain(|death| !got_on && now.duration_since(*death) < RESTARTS_WITHIN);
            deaths.push(now);
            let reason = failure.reason();
            if deaths.len() > RESTARTS {
                let times = deaths.len();
                let reason =
                    format!("{reason}; that was the {times}th time in ten minutes without a task done");
                return JobOutcome::Failed(JobFailure::new(failure.kind(), reason));
            }
            tracing::warn!(site = self.site, job = job_id, reason, "job's process died; starting it again");
            let restarted = match self.folders.kit.run_dir(job_id) {
                Ok(run_dir) => self.launch_half(job_id, run_dir.path().to_owned()).await,
                Err(error) => Err(error.to_string()),
            };
            match restarted {
                Ok(restarted) => {
                    if self.book.restarted(job_id, restarted.clone()) {
                        restarted.request_abort(self.abort_grace);
                    }
                    let (job, reason) = (job_id.to_owned(), reason.to_owned());
                    self.events.send(SiteEvent::JobRestarted { job, reason }).ok();
                    handle = restarted;
                }
                Err(error) => {
                    let reason = format!("{reason}; it could not be started again: {error}");
                    return JobOutcome::Failed(JobFailure::new(failure.kind(), reason));
                }
            }
        }
    }

    async fn report(&self, report: &OutcomeReport) {
        while let Err(error) = self.communicator.report_outcome(report).await {
            tracing::warn!(job = report.job_id, %error, "outcome not taken; telling it again");
            if is_unknown_there(&error) {
                self.unknown_there.notify_one();
            }
            tokio::time::sleep(self.communicator.settings().heartbeat_retry).await;
        }
    }

    fn note_status(&self, incoming: &Incoming) -> Result<Reply, HandlerError> {
        let job_id = self.job_of(incoming)?;
        let request = AdminRequest::from_parts(&incoming.headers, &incoming.payload());
        let request = request.map_err(|error| HandlerError::invalid_request(error.to_string()))?;
        let AdminCommand::NotifyJobStatus { job_id: named, status } = &request.command else {
            return Err(HandlerError::invalid_request("a job tells its status and nothing else"));
        };
        if named != job_id {
            return Err(HandlerError::invalid_request("a job tells its own status only"));
        }
        self.book.note_status(job_id, *status);
        answer(&request.reply(true, AdminBody::Text(String::new())))
    }

    fn note_news(&self, incoming: &Incoming) -> Result<Reply, HandlerError> {
        let job_id = self.job_of(incoming)?;
        let body = incoming.body.clone();
        let not_understood = |_| HandlerError::invalid_request("news of a job are not understood");
        if body.len() > news::MAX_BODY {
            return Err(HandlerError::invalid_request("news of a job are too long"));
        }
        let noted = match incoming.topic.as_str() {
            news::REFUSED => {
                let mut refusals: Vec<Refusal> = serde_json::from_slice(&body).map_err(not_understood)?;
                refusals.truncate(OutcomeReport::MAX_REFUSALS);
                refusals.iter_mut().for_each(|refusal| refusal.site.clone_from(&self.site));
                self.book.note_refusals(job_id, refusals)
            }
            news::DONE => {
                let done: Json = serde_json::from_slice(&body).map_err(not_understood)?;
                self.book.note_tasks(job_id, done["tasks_done"].as_u64().unwrap_or_default())
            }
            _ => return Err(HandlerError::invalid_request("there is no such news")),
        };
        if noted { Ok(Reply::ok(Payload::none())) } else { Err(HandlerError::invalid_request("no such job")) }
    }

    /// The job that a message comes from: a child of this cell, over its own link, which crosses no network.
    fn job_of<'a>(&self, incoming: &'a Incoming) -> Result<&'a str, HandlerError> {
        let Incoming { origin, link, .. } = incoming;
        let own = origin.parent().as_ref() == Some(self.cell.name());
        if own && link.security == LinkSecurity::Internal && link.peer == *origin {
            return Ok(origin.leaf());
        }
        Err(HandlerError::new(ReturnCode::Unauthenticated, "only a job of this site may say so"))
    }
}

impl JobKeeper for Parent {
    fn job_ids(&self) -> Vec<String> {
        self.book.job_ids()
    }

    fn abort(&self, job_id: &str) {
        self.abort_job(job_id);
    }
}

impl fmt::Debug for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parent").field("site", &self.site).finish_non_exhaustive()
    }
}

/// Why an app does not start.
struct NotApproved {
    failure: JobFailure,
    refusals: Vec<Refusal>,
}

impl From<JobFailure> for NotApproved {
    fn from(failure: JobFailure) -> Self {
        Self { failure, refusals: Vec::new() }
    }
}

/// Why an order was not carried out, and which components the site refuses, if that is why.
#[derive(Debug)]
struct No {
    reason: String,
    refusals: Vec<Refusal>,
}

impl From<String> for No {
    fn from(reason: String) -> Self {
        Self { reason, refusals: Vec::new() }
    }
}

impl From<&str> for No {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

/// Asks the site's checkers about an app that arrives. Blocking.
///
/// What has mistakes cannot be judged and is deployed without an approval: its start tells them as such.
fn reviewed(
    host: &SiteJobHost,
    job_id: &str,
    run_dir: &Path,
    app_dir: &Path,
    meta: &Json,
) -> Result<Option<Approval>, Vec<Refusal>> {
    let deployed = host.deployed(job_id, run_dir, meta.clone());
    match review_app(&deployed, app_dir, Phase::Deploy, host.program()) {
        Ok(approval) => Ok(Some(approval)),
        Err(AssemblyError::Refused(refusal)) => Err(refusal.for_submitter(&deployed.participant)),
        Err(
            error @ (AssemblyError::Kit(_)
            | AssemblyError::Policy(_)
            | AssemblyError::PolicyFile { .. }
            | AssemblyError::Audit(_)),
        ) => {
            tracing::error!(job = job_id, error = with_causes(&error), "site cannot judge jobs");
            let (site, reason) = (deployed.participant, CANNOT_JUDGE.to_owned());
            let code = "site-cannot-judge".to_owned();
            Err(vec![Refusal { site, code, reason, ..Refusal::default() }])
        }
        Err(error) => {
            tracing::info!(job = job_id, %error, "app has mistakes and was not reviewed");
            Ok(None)
        }
    }
}

/// Whether the server refuses because it does not know the site's token.
pub(crate) fn is_unknown_there(error: &SayError) -> bool {
    matches!(error, SayError::Request(error) if error.code() == ReturnCode::Unauthenticated)
}

fn requester(person: &Person) -> Requester {
    Requester { name: person.name.clone(), org: person.org.clone(), role: person.role.clone() }
}

/// What gates are told of a job. Its meta says who submitted it; a server that leaves that out may say so with the
/// order.
fn facts(job_id: &str, meta: Json, submitter: &Person) -> JobFacts {
    let text = |key: &str, otherwise: &str| meta[key].as_str().unwrap_or(otherwise).to_owned();
    JobFacts {
        job_id: job_id.to_owned(),
        name: text("name", ""),
        submitter_name: text("submitter_name", &submitter.name),
        submitter_org: text("submitter_org", &submitter.org),
        submitter_role: text("submitter_role", &submitter.role),
        byoc: meta["byoc"].as_bool().unwrap_or_default(),
        meta,
        files: Vec::new(),
    }
}

/// How a job stands, for people.
fn word(status: JobStatus) -> &'static str {
    match status {
        JobStatus::NotStarted => "not started",
        JobStatus::Starting => "starting",
        JobStatus::Started => "started",
        JobStatus::Stopped => "stopped",
        JobStatus::Exception => "exception",
    }
}

fn answer(reply: &AdminReply) -> Result<Reply, HandlerError> {
    match reply.to_parts() {
        Ok(parts) => {
            let mut answer = Reply::ok(parts.payload);
            answer.headers = parts.headers;
            Ok(answer)
        }
        Err(error) => Err(HandlerError::failed(error.to_string())),
    }
}

fn end_of(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
