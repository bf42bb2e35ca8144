//! A job's life at the server: assemble, take results in, say how it ended.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use locule_assembly::{
    AssemblyError, CheckerFiles, Deployed, Program, approve_start, assemble, assemble_approved, review_app,
};
use locule_auth::ServerStamp;
use locule_cell::{Cell, CellConfig, Request, RequestError};
use locule_component::{
    Assembled, Event, Flags, Phase, Progress, Registry, RunContext, Side, TaskBoard as _, Workflow,
    WorkflowError, with_causes,
};
use locule_event::Herald;
use locule_fobs::Value;
use locule_kit::Workspace;
use locule_launcher::{FailureKind, JobFailure, JobStart};
use locule_message::{Fqcn, Payload};
use locule_protocol::{AuxRequest, Refusal, aux_topic, prop, to_props};
use locule_transport::{Endpoint, Transports};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::board::{Board, BoardOf};
use super::desk::{self, Desk, Participants};
use super::log::{FOLDER, RunLog};
use super::report::{JobReport, RunEnd, Told};
use super::spool;
use super::tracking::Tracking;
use crate::record::SERVER;
use crate::site_logs::SiteLogs;

/// Progress reports that may wait to be sent.
const REPORTS: usize = 1024;

/// How long the parent may take to answer.
const PARENT: Duration = Duration::from_secs(30);

/// How long to let the last answers out when the job's cell closes.
const DRAIN: Duration = Duration::from_secs(2);

/// What every job of a server has in common; a job learns the rest from its run folder.
#[derive(Clone)]
pub struct JobHost {
    /// Components that jobs may name.
    pub registry: Arc<Registry>,
    /// Opens the server's checkers that are files.
    pub checkers: Arc<dyn CheckerFiles>,
    /// Carriers; the parent's internal endpoint is reached over one of them.
    pub transports: Transports,
    /// The server's kit.
    pub kit: Workspace,
    /// Name of the project, which is the job's identity towards its sites.
    pub project: String,
    /// The server's organisation.
    pub org: String,
    /// What stamps messages of the server's own.
    pub stamp: Arc<ServerStamp>,
    /// Whether no clock ends a task: all sites are waited for that are there, whatever the job says. For runs that can
    /// be repeated.
    pub patient: bool,
}

impl JobHost {
    /// Asks the server's checkers about its half of a job, and keeps beside the app what they approve. Blocking.
    ///
    /// # Errors
    /// The refusals. What has mistakes cannot be judged and passes without an approval: its start tells them as such.
    pub(crate) fn review(
        &self,
        job_id: &str,
        run_dir: &Path,
        meta: serde_json::Value,
    ) -> Result<(), Vec<Refusal>> {
        let deployed = self.deployed(job_id, run_dir, meta);
        let reviewed = review_app(&deployed, &deployed.app_dir, Phase::Deploy, self.program());
        let cannot = |error: &dyn std::error::Error| {
            tracing::error!(job = job_id, error = with_causes(error), "server cannot judge jobs");
            let reason =
                "the server's own configuration cannot be used; its operator can read why in its log";
            let (site, code) = (SERVER.to_owned(), "site-cannot-judge".to_owned());
            vec![Refusal { site, code, reason: reason.to_owned(), ..Refusal::default() }]
        };
        match reviewed {
            Ok(approval) => approval.write(run_dir).map_err(|error| cannot(&error)),
            Err(AssemblyError::Refused(refusal)) => Err(refusal.for_submitter(SERVER)),
            Err(error @ (AssemblyError::PolicyFile { .. } | AssemblyError::Audit(_))) => Err(cannot(&error)),
            Err(error) => {
                tracing::info!(job = job_id, %error, "server's half was not reviewed");
                Ok(())
            }
        }
    }

    /// What the server's checkers would say of its half of a job that lies in `app_dir`: a verdict in a word, a text,
    /// and what they refuse. Blocking.
    pub(crate) fn check(
        &self,
        job_id: &str,
        app_dir: &Path,
        meta: serde_json::Value,
    ) -> (&'static str, String, Vec<Refusal>) {
        let deployed = Deployed { app_dir: app_dir.to_owned(), ..self.deployed(job_id, app_dir, meta) };
        match review_app(&deployed, app_dir, Phase::Submit, self.program()) {
            Ok(_) => ("allowed", String::new(), Vec::new()),
            Err(AssemblyError::Refused(refusal)) => {
                let refusals = refusal.for_submitter(SERVER);
                ("refused", Refusal::sentence(&refusals), refusals)
            }
            Err(error @ (AssemblyError::Config(_) | AssemblyError::Read { .. })) => {
                ("mistakes", with_causes(&error), Vec::new())
            }
            Err(error) => {
                tracing::error!(job = job_id, error = with_causes(&error), "server cannot judge jobs");
                ("cannot-judge", "the server's own configuration cannot be used".to_owned(), Vec::new())
            }
        }
    }

    /// Asks whether the server's half of a job is still what was approved when it was deployed, or the checkers once
    /// more; the digest of the plan that may be built. Blocking.
    ///
    /// # Errors
    /// The failure of the job, and what is refused, if that is why.
    pub(crate) fn approve_start(
        &self,
        job_id: &str,
        run_dir: &Path,
        meta: serde_json::Value,
    ) -> Result<String, (JobFailure, Vec<Refusal>)> {
        let approved = approve_start(&self.deployed(job_id, run_dir, meta), self.program());
        approved.map(|plan| plan.to_string()).map_err(|error| {
            let failure = JobFailure::new(kind_of(&error), with_causes(&error));
            let AssemblyError::Refused(refusal) = error else { return (failure, Vec::new()) };
            (failure, refusal.for_submitter(SERVER))
        })
    }

    fn deployed(&self, job_id: &str, run_dir: &Path, meta: serde_json::Value) -> Deployed {
        Deployed {
            side: Side::Server,
            participant: SERVER.into(),
            org: self.org.clone(),
            job_id: job_id.to_owned(),
            kit: self.kit.clone(),
            app_dir: run_dir.join("app_server"),
            meta,
        }
    }

    fn program(&self) -> Program<'_> {
        Program { registry: &self.registry, checkers: &*self.checkers }
    }
}

impl fmt::Debug for JobHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobHost").field("project", &self.project).finish_non_exhaustive()
    }
}

/// Runs a server job to its end, in a cell of its own that is linked to its parent only.
///
/// This is what a launcher starts. The job reads its app and meta from `start.run_dir`, and tells its parent
/// by messages how it gets on. After its workflows it goes on answering sites until `abort` says that they
/// have all reported.
///
/// # Errors
/// [`JobFailure`] with the kind and reason that the parent records.
pub async fn run_job(
    host: Arc<JobHost>,
    start: JobStart,
    abort: CancellationToken,
) -> Result<(), JobFailure> {
    let job = tokio::select! {
        job = Job::open(host, &start, &abort) => job?,
        () = abort.cancelled() => return Ok(()),
    };
    let ended = job.run_workflows().await;
    job.finish(&ended, &abort).await;
    ended
}

struct Job {
    host: Arc<JobHost>,
    job_id: String,
    cell: Cell,
    board: Arc<Board>,
    run: RunContext,
    herald: Herald,
    tracking: Arc<Tracking>,
    workflows: tokio::sync::Mutex<Vec<(String, Box<dyn Workflow>)>>,
    workflow: watch::Sender<String>,
    participants: Participants,
    /// Aborted with the job, lest it keep the cell of a job that was killed.
    reporting: AbortOnDropHandle<()>,
}

impl Job {
    /// Links to the parent, assembles the app, opens the desk and says so.
    async fn open(
        host: Arc<JobHost>,
        start: &JobStart,
        abort: &CancellationToken,
    ) -> Result<Self, JobFailure> {
        let cell = link(&host, start).await.map_err(infrastructure)?;
        let opened = Self::assemble(host, cell.clone(), start, abort).await;
        if opened.is_err() {
            cell.shutdown(DRAIN).await;
        }
        opened
    }

    async fn assemble(
        host: Arc<JobHost>,
        cell: Cell,
        start: &JobStart,
        abort: &CancellationToken,
    ) -> Result<Self, JobFailure> {
        let meta = read_meta(start).map_err(infrastructure)?;
        let participants = participants(&meta, &start.job_id).map_err(infrastructure)?;
        let mut assembled = match assemble_app(&host, start, meta).await? {
            Ok(assembled) => assembled,
            Err(error) => return Err(not_assembled(&cell, &start.job_id, error).await),
        };

        let sites = site_order(&participants);
        let participants = Participants::new(participants);
        let (progress, reports) = mpsc::channel(REPORTS);
        let run = RunContext::new(host.project.clone(), start.job_id.clone());
        let instance = Value::from(Uuid::from_u128(rand::random()).to_string());
        run.open().set(prop::INSTANCE, instance, Flags::PUBLIC_STICKY).ok(); // nobody has set it before
        let (run_dir, filters) = (start.run_dir.clone(), std::mem::take(&mut assembled.filters));
        let herald = Herald::new(assembled.observers, run.clone());
        let (log, restored) = RunLog::take_over(run_dir.join(FOLDER))
            .await
            .map_err(|error| infrastructure(with_causes(&error)))?;
        let tracking = Arc::new(Tracking::open(&start.job_id, &run_dir, &sites));
        let (herald_of_board, abort) = (herald.clone(), abort.clone());
        let job =
            BoardOf { run: run.clone(), run_dir, sites, filters, progress, herald: herald_of_board, abort };
        let board = Arc::new(Board::new(job, log, restored).patient(host.patient));
        let (workflow, current) = watch::channel(String::new());
        let desk = Desk {
            cell: cell.clone(),
            job_id: start.job_id.clone(),
            participants: participants.clone(),
            board: Arc::clone(&board),
            run: run.clone(),
            herald: herald.clone(),
            workflow: current.clone(),
            tracking: Arc::clone(&tracking),
            logs: SiteLogs::default(),
            run_dir: start.run_dir.clone(),
            turns: Semaphore::new(desk::IN_MEMORY),
        };
        desk::open(&cell, Arc::new(desk));
        let kept = Arc::clone(&tracking);
        let reporting = tokio::spawn(forward(cell.clone(), start.job_id.clone(), reports, current, kept));
        tell(&cell, &start.job_id, &JobReport::Ready)
            .await
            .map_err(|error| infrastructure(error.to_string()))?;
        Ok(Self {
            host,
            job_id: start.job_id.clone(),
            cell,
            board,
            run,
            herald,
            tracking,
            workflows: tokio::sync::Mutex::new(assembled.workflows),
            workflow,
            participants,
            reporting: AbortOnDropHandle::new(reporting),
        })
    }

    async fn run_workflows(&self) -> Result<(), JobFailure> {
        let first = match self.board.resumes_at() {
            Ok(first) => first,
            Err(RunEnd { failed: None }) => return Ok(()),
            Err(RunEnd { failed: Some(reason) }) => {
                return Err(JobFailure::new(FailureKind::Exception, reason));
            }
        };
        self.herald.tell(&Event::StartRun).await;
        self.tracking.begin(self.herald.clone());
        let mut ended = Ok(());
        for (index, (id, workflow)) in self.workflows.lock().await.iter_mut().enumerate().skip(first) {
            self.workflow.send_replace(id.clone());
            ended = match self.board.begin(index).await {
                Ok(()) => self.run_workflow(id, &mut **workflow).await,
                Err(error) => Err(failure(id, &error)),
            };
            if ended.is_err() {
                break;
            }
        }
        self.herald.tell(&Event::AboutToEndRun).await;
        ended
    }

    async fn run_workflow(&self, id: &str, workflow: &mut dyn Workflow) -> Result<(), JobFailure> {
        let mut ended = workflow.prepare(&*self.board).await;
        if ended.is_ok() {
            self.herald.tell(&Event::StartWorkflow { workflow: id }).await;
            ended = workflow.run(&*self.board).await;
        }
        let failure = ended.as_ref().err().map(|error| failure(id, error));
        if let Some(failure) = failure.as_ref().filter(|_| !self.board.is_aborted()) {
            self.herald.tell(&Event::FatalSystemError { reason: failure.reason() }).await;
        }
        self.herald.tell(&Event::EndWorkflow { workflow: id }).await;
        failure.map_or(Ok(()), Err)
    }

    /// Tells the parent how the run ended, ends it for the sites, and answers on until all have reported.
    async fn finish(self, ended: &Result<(), JobFailure>, abort: &CancellationToken) {
        // Every report that a workflow made goes out before the word that it has ended, and that word before
        // the sites hear of it: a site's outcome that comes after it is that of a whole run.
        let Self {
            host, job_id, cell, board, run, herald, tracking, workflows, participants, reporting, ..
        } = self;
        drop(workflows);
        board.close_reports();
        reporting.await.ok();
        let end = RunEnd { failed: ended.as_ref().err().map(|failure| failure.reason().to_owned()) };
        if !board.is_aborted()
            && let Err(error) = board.run_ended(end.clone()).await
        {
            tracing::warn!(job = job_id, %error, "the log of the run does not take its end");
        }
        if let Err(error) = tell(&cell, &job_id, &JobReport::Ended(end)).await {
            tracing::warn!(job = job_id, %error, "parent was not told that the run ended");
        }
        board.end();
        let end_run = AuxRequest::new(aux_topic::END_RUN, to_props(&run.open().peer_context()));
        for site in &participants.cells() {
            if let Ok(parts) = end_run.to_parts() {
                let request = Request::new(AuxRequest::CHANNEL, aux_topic::END_RUN, parts.payload);
                cell.notify(site, request.optional()).await.ok();
            }
        }
        tracking.settle().await;
        herald.await_readiness(!abort.is_cancelled()).await;
        herald.tell(&Event::EndRun).await;
        tracing::debug!(job = job_id, project = host.project, late = board.late(), "run ended");
        abort.cancelled().await;
        cell.shutdown(DRAIN).await;
    }
}

async fn link(host: &JobHost, start: &JobStart) -> Result<Cell, String> {
    let name = Fqcn::parse(&start.cell).map_err(|error| error.to_string())?;
    let parent = Endpoint::parse(&start.parent).map_err(|error| error.to_string())?;
    let mut config = CellConfig::new(name);
    config.streams.spools = spool::spools(start.run_dir.clone());
    let cell = Cell::builder(config).transports(host.transports.clone()).stamp(host.stamp.clone()).start();
    cell.connect(parent);
    if cell.wait_linked(&Fqcn::server(), PARENT).await {
        Ok(cell)
    } else {
        Err(format!("job has no link to its parent at {}", start.parent))
    }
}

async fn assemble_app(
    host: &Arc<JobHost>,
    start: &JobStart,
    meta: serde_json::Value,
) -> Result<Result<Assembled, AssemblyError>, JobFailure> {
    let deployed = host.deployed(&start.job_id, &start.run_dir, meta);
    let (host, approved) = (Arc::clone(host), start.approved_plan.clone());
    let work = move || match approved {
        Some(plan) => assemble_approved(&deployed, host.program(), &plan),
        None => assemble(&deployed, host.program()),
    };
    let assembled = tokio::task::spawn_blocking(work).await;
    assembled.map_err(|error| JobFailure::new(FailureKind::Exception, error.to_string()))
}

/// The failure of a job that was not assembled. What the server's checkers refuse is reported first.
async fn not_assembled(cell: &Cell, job_id: &str, error: AssemblyError) -> JobFailure {
    if let AssemblyError::Refused(refusal) = &error {
        let report =
            JobReport::Refused { reason: error.to_string(), refusals: refusal.for_submitter(SERVER) };
        if let Err(error) = tell(cell, job_id, &report).await {
            tracing::warn!(job = job_id, %error, "parent was not told of a refusal");
        }
    }
    JobFailure::new(kind_of(&error), with_causes(&error))
}

fn infrastructure(reason: String) -> JobFailure {
    JobFailure::new(FailureKind::Infrastructure, reason)
}

/// The kind of failure that an assembly error is recorded as.
fn kind_of(error: &AssemblyError) -> FailureKind {
    match error {
        AssemblyError::Refused(_) => FailureKind::UnsafeComponent,
        AssemblyError::Config(_)
        | AssemblyError::Read { .. }
        | AssemblyError::Policy(_)
        | AssemblyError::Scope(_)
        | AssemblyError::Privacy(_)
        | AssemblyError::Build(_) => FailureKind::Config,
        AssemblyError::Kit(_) | AssemblyError::Setting(_) | _ => FailureKind::Infrastructure,
    }
}

fn read_meta(start: &JobStart) -> Result<serde_json::Value, String> {
    let file: PathBuf = start.run_dir.join("meta.json");
    let text =
        std::fs::read_to_string(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{} is not JSON: {error}", file.display()))
}

/// The sites of `job_clients`, by the name of their job's cell.
fn participants(meta: &serde_json::Value, job_id: &str) -> Result<BTreeMap<Fqcn, String>, String> {
    let clients = meta["job_clients"].as_array().ok_or("meta.json has no job_clients")?;
    let mut participants = BTreeMap::new();
    for client in clients {
        let name = client["name"].as_str().ok_or("an entry of job_clients has no name")?;
        let fqcn = client["fqcn"].as_str().unwrap_or(name);
        let cell =
            Fqcn::parse(fqcn).and_then(|fqcn| fqcn.child(job_id)).map_err(|error| error.to_string())?;
        participants.insert(cell, name.to_owned());
    }
    Ok(participants)
}

/// Site order: by name, so that sums do not depend on who came first.
fn site_order(participants: &BTreeMap<Fqcn, String>) -> Vec<String> {
    let mut sites: Vec<String> = participants.values().cloned().collect();
    sites.sort();
    sites
}

fn failure(workflow: &str, error: &WorkflowError) -> JobFailure {
    JobFailure::new(FailureKind::Exception, format!("workflow `{workflow}`: {error}"))
}

/// Keeps what rounds measured, and sends progress to the parent, in order, until the board closes.
async fn forward(
    cell: Cell,
    job_id: String,
    mut reports: mpsc::Receiver<Progress>,
    workflow: watch::Receiver<String>,
    tracking: Arc<Tracking>,
) {
    while let Some(progress) = reports.recv().await {
        if let Progress::RoundFinished { round, sites, .. } = &progress {
            tracking.take_round(&workflow.borrow(), *round, sites);
        }
        let Some(report) = JobReport::of(progress) else { continue };
        if let Err(error) = tell(&cell, &job_id, &report).await {
            tracing::warn!(job = job_id, %error, "parent did not take a report");
        }
    }
}

async fn tell(cell: &Cell, job_id: &str, report: &JobReport) -> Result<(), RequestError> {
    // The half is linked to its parent only, by which all goes that it tells its sites and hears of them.
    let stats = cell.stats();
    let told = Told { bytes_moved: stats.bytes_in + stats.bytes_out, report };
    let body = serde_json::to_vec(&told).expect("a report has only text keys");
    let request = Request::new(JobReport::CHANNEL, JobReport::TOPIC, Payload::bytes(body.into()))
        .header("job_id", job_id)
        .timeout(PARENT);
    cell.request(&Fqcn::server(), request).await?.into_ok().map(|_| ())
}
