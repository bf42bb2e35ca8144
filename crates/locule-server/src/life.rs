//! The life of a job: wait for its sites, deploy, start, watch, end. One task owns one job.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use locule_component::{Event, with_causes};
use locule_journal::AppendError;
use locule_launcher::{FailureKind, JobOutcome, JobStart};
use locule_message::Fqcn;
use locule_protocol::{Refusal, outcome};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::admit::refusals_of;
use crate::book::Entry;
use crate::event::ServerEvent;
use crate::half::Half;
use crate::intake::{Intake, SubmitError, write_meta};
use crate::job::JobReport;
use crate::orders::{OrderError, Orders, to_map};
use crate::permit::permit;
use crate::record::{JobRecord, JobStatus, SERVER, SiteOutcome};
use crate::rejoin::{Giving, change};
use crate::schedule::{Place, Reservation, Scheduling};
use crate::server::Shared;
use crate::watch::{Course, Watch};

/// How long the server's half of a job may take to stop.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// How long the server's half of a job may take to end after its daemon was killed.
const LEFT_OVER: Duration = Duration::from_secs(10);

/// Why a job is in the state that it was in.
const RESUMED: &str = "resumed after a restart of the server";

/// Something that concerns a job.
#[derive(Debug)]
pub(crate) enum Signal {
    /// A site reported how its half ended; the book has it already.
    Outcome { site: String, outcome: SiteOutcome },
    /// The server's half tells how it gets on.
    Report(JobReport),
    /// A site is gone. One that said good-bye may only be starting again, and is waited for a while.
    SiteLost { site: String, reason: String, said_good_bye: bool },
    /// A site said by a heartbeat at this time whether it holds the job; whether it was the first heartbeat since it
    /// registered, or since this server has it.
    SiteHolds { site: String, holds: bool, at: Instant, is_new: bool },
}

/// Why a life stops before the job is over.
#[derive(Clone, Debug)]
pub(crate) enum Halt {
    /// Somebody aborted the job, for this reason.
    Aborted(String),
    /// The server ends. The job stays open, for the next one to take up.
    Suspended,
}

/// How a job ends: its last state and the reason.
pub(crate) type Ending = (JobStatus, String);

/// Runs a job from its intake to its last state; with its record if it had begun when an earlier run of the server
/// ended.
pub(crate) async fn run(
    shared: Arc<Shared>,
    intake: Intake,
    begun: Option<JobRecord>,
    signals: mpsc::Receiver<Signal>,
    mut halted: watch::Receiver<Option<Halt>>,
) {
    let job_id = intake.job_id.clone();
    let orders = Orders { shared: Arc::clone(&shared), submitter: intake.submitter.clone() };
    let watch = Watch::new(Arc::clone(&shared), &job_id);
    let mut life = Life {
        shared: Arc::clone(&shared),
        intake: Arc::new(intake),
        signals,
        orders,
        watch,
        place: None,
        reservations: BTreeMap::new(),
        sites: BTreeMap::new(),
        started: BTreeSet::new(),
        absent: BTreeMap::new(),
        half: None,
        giving: Giving::default(),
    };
    let (status, reason) = tokio::select! {
        biased;
        halt = halt_of(&mut halted) => match halt {
            Halt::Aborted(reason) => (JobStatus::Aborted, reason),
            Halt::Suspended => return life.suspend().await,
        },
        ending = life.live(begun) => ending.unwrap_or_else(|ending| ending),
    };
    if !life.started.is_empty() {
        // It takes a while to stop it, and a restart of the server meanwhile must not make it run again.
        shared.decide(&job_id, status, &reason).await;
    }
    life.close(status).await;
    over(&shared, &job_id, status, &reason).await;
}

/// Runs a job that was accepted, perhaps by an earlier run of the server: from its beginning, or from where it is.
pub(crate) async fn begin(
    shared: Arc<Shared>,
    record: JobRecord,
    signals: mpsc::Receiver<Signal>,
    halted: watch::Receiver<Option<Halt>>,
) {
    let (job_id, server) = (record.job_id.clone(), Arc::clone(&shared));
    if let Some(ending) = &record.ending {
        return over(&shared, &job_id, ending.status, &ending.reason).await;
    }
    let begun = record.has_begun().then(|| record.clone());
    let intake = tokio::task::spawn_blocking(move || Intake::prepare(&server, record)).await;
    let intake = intake.unwrap_or_else(|error| Err(SubmitError::Interrupted(error.to_string())));
    match (intake, begun) {
        (Ok(intake), begun) => run(shared, intake, begun, signals, halted).await,
        (Err(error), None) => {
            let reason = format!("it cannot be prepared: {}", with_causes(&error));
            over(&shared, &job_id, JobStatus::FailedToRun, &reason).await;
        }
        (Err(error), Some(_)) => {
            let reason =
                format!("the server was restarted, and cannot take it up again: {}", with_causes(&error));
            over(&shared, &job_id, JobStatus::Abnormal, &reason).await;
        }
    }
}

async fn over(shared: &Arc<Shared>, job_id: &str, status: JobStatus, reason: &str) {
    shared.end(job_id, status, reason).await;
    if matches!(status, JobStatus::Aborted | JobStatus::FailedToRun) {
        shared.notice(&Event::JobAborted { job_id });
    }
    if !matches!(status, JobStatus::FailedToRun | JobStatus::CannotSchedule) {
        shared.notice(&Event::JobCompleted { job_id });
    }
    let bytes_moved = shared.bytes_moved(job_id);
    shared.forget(job_id);
    if let Some(record) = shared.book.record(job_id) {
        shared.tell(ServerEvent::JobFinished { record, bytes_moved });
    }
    shared.job_over.notify_one();
}

async fn halt_of(halted: &mut watch::Receiver<Option<Halt>>) -> Halt {
    match halted.wait_for(Option::is_some).await.ok().and_then(|halt| halt.clone()) {
        Some(halt) => halt,
        None => std::future::pending().await, // nobody is left who could stop it
    }
}

/// A job on its way. An abort drops [`Life::live`] wherever it is, so whatever has to be undone stands here.
pub(crate) struct Life {
    pub(crate) shared: Arc<Shared>,
    pub(crate) intake: Arc<Intake>,
    signals: mpsc::Receiver<Signal>,
    pub(crate) orders: Orders,
    pub(crate) watch: Watch,
    /// Its place in the queue and among the jobs that run.
    place: Option<Place>,
    /// What sites have set aside for the job and have not begun to use.
    reservations: BTreeMap<String, Reservation>,
    /// Sites that take part, with the cells that they registered from.
    pub(crate) sites: BTreeMap<String, Fqcn>,
    /// Those of them that were told to start, and those that are told to while the job runs.
    pub(crate) started: BTreeSet<String>,
    /// Those that were gone when they were given the job, and how that was noticed.
    absent: BTreeMap<String, String>,
    pub(crate) half: Option<Half>,
    /// Sites that are given the job while it runs.
    pub(crate) giving: Giving,
}

impl Life {
    async fn live(&mut self, begun: Option<JobRecord>) -> Result<Ending, Ending> {
        let is_resumed = begun.is_some();
        match begun {
            None => self.begin().await?,
            Some(record) => self.resume(&record).await?,
        }
        self.giving.follow(&self.shared, is_resumed);
        loop {
            if let Some(ending) = self.step().await {
                return Ok(ending);
            }
            if self.watch.course == Course::RunEnded && self.watch.everybody_is_heard_or_lost() {
                return Ok(self.completed());
            }
        }
    }

    async fn begin(&mut self) -> Result<(), Ending> {
        let job_id = self.intake.job_id.clone();
        self.schedule().await?;
        self.deploy().await?;
        let dispatched = self.shared.enter(&job_id, JobStatus::Dispatched, "deployed to its sites").await;
        dispatched.map_err(not_written)?;
        self.start().await?;
        self.shared.enter(&job_id, JobStatus::Running, "started").await.map_err(not_written)
    }

    /// Goes on with a job that had begun when an earlier run of the server ended. Its sites that hold it work on; those
    /// that do not are given it again.
    async fn resume(&mut self, record: &JobRecord) -> Result<(), Ending> {
        let job_id = self.intake.job_id.clone();
        let entered = self.shared.enter(&job_id, record.status(), RESUMED).await;
        entered.map_err(not_written)?;
        // It runs, however many others do.
        let sites = record.sites.iter().cloned().collect();
        self.place = Some(Place::running(&self.shared, &job_id, sites));
        self.sites = record.sites.iter().map(|site| (site.clone(), self.cell_of(site))).collect();
        self.started = self.sites.keys().cloned().collect();
        self.watch.expect(&self.started);
        if let Some(ending) = self.watch.resume(record) {
            return Err(ending);
        }
        self.start_half(Some(Instant::now() + LEFT_OVER)).await?;
        if record.status() == JobStatus::Dispatched {
            self.shared.enter(&job_id, JobStatus::Running, "started").await.map_err(not_written)?;
        }
        Ok(())
    }

    /// Waits for its turn, its sites and their resources.
    async fn schedule(&mut self) -> Result<(), Ending> {
        let Self { shared, intake, orders, place, reservations, .. } = self;
        self.sites = Scheduling { shared, intake, orders, place, reservations }.run().await?;
        self.choose().await
    }

    /// Gives every site its app, once the server's own policies and checkers have taken its half; else no site hears
    /// of the job. A site that does not take its app is left out; one whose checkers refuse it ends the job.
    async fn deploy(&mut self) -> Result<(), Ending> {
        let permitted = permit(&self.shared, &self.intake).await;
        permitted.map_err(|reason| (JobStatus::FailedToRun, format!("deploy: {SERVER}: {reason}")))?;
        self.review().await?;
        let meta = to_map(&self.intake.document);
        self.shared.notice(&Event::DeployJobToServer { job_id: &self.intake.job_id });
        self.shared.notice(&Event::DeployJobToClient { job_id: &self.intake.job_id });
        let deployed = self.sites.iter().map(async |(site, cell)| {
            let app = self.intake.app_of(site).unwrap_or_default();
            let zip = self.intake.apps.get(app).cloned().unwrap_or_default();
            (site.clone(), self.orders.deploy(cell, &self.intake.job_id, app, &meta, zip).await)
        });
        let deployed = join_all(deployed).await;
        let mut refused = None;
        for (site, result) in &deployed {
            if let Err(OrderError::Unsafe { reason, refusals }) = result {
                self.write_refused(site, reason, refusals.clone()).await?;
                refused.get_or_insert_with(|| format!("{site}: {reason}"));
            }
        }
        match refused {
            Some(reason) => return Err((JobStatus::Aborted, reason)),
            None => self.leave_out("deploy", deployed).await?,
        }
        self.shared.notice(&Event::JobDeployed { job_id: &self.intake.job_id });
        Ok(())
    }

    /// Asks the server's own checkers about its half.
    async fn review(&mut self) -> Result<(), Ending> {
        let (host, intake) = (Arc::clone(&self.shared.host), Arc::clone(&self.intake));
        let review = move || host.review(&intake.job_id, &intake.run_dir, intake.document.clone());
        let reviewed = tokio::task::spawn_blocking(review).await;
        let reviewed =
            reviewed.map_err(|error| (JobStatus::Abnormal, format!("review broke off: {error}")))?;
        let Err(refusals) = reviewed else { return Ok(()) };
        let reason = Refusal::sentence(&refusals);
        self.write_refused(SERVER, &reason, refusals).await?;
        Err((JobStatus::Aborted, format!("{SERVER}: {reason}")))
    }

    /// Writes down that a participant's checkers refuse the job.
    pub(crate) async fn write_refused(
        &self,
        site: &str,
        reason: &str,
        refusals: Vec<Refusal>,
    ) -> Result<(), Ending> {
        let job = self.intake.job_id.clone();
        let refusals = refusals_of(site, refusals);
        for Refusal { component, file, path, code, reason, .. } in &refusals {
            tracing::info!(job, site, ?component, ?file, ?path, ?code, ?reason, "component refused");
        }
        let (code, reason) = (outcome::UNSAFE_COMPONENT, Some(reason.to_owned()));
        let outcome = SiteOutcome { code, reason, refusals, tasks_done: 0 };
        let entry = Entry::Outcome { job, site: site.to_owned(), outcome };
        self.shared.write(entry).await.map_err(not_written)
    }

    /// Starts the server's half, and when that is ready the sites'.
    async fn start(&mut self) -> Result<(), Ending> {
        let document = self.start_half(None).await?;
        let meta = to_map(&document);
        self.started = self.sites.keys().cloned().collect();
        let there = self.sites.iter().filter(|(site, _)| !self.absent.contains_key(*site));
        let started = there.map(async |(site, cell)| {
            let token = self.reservations.get(site).map(|reservation| reservation.token.clone());
            let (spec, token) = (self.intake.resources(site), token.unwrap_or_default());
            (site.clone(), self.orders.start(cell, &self.intake.job_id, &meta, &spec, token).await)
        });
        let started = join_all(started).await;
        self.watch.started = Some(Instant::now());
        self.reservations.retain(|site, _| !self.started.contains(site));
        let failed: Vec<_> = started
            .iter()
            .filter_map(|(site, done)| Some((site.clone(), done.as_ref().err()?.to_string())))
            .collect();
        self.leave_out("start", started).await?;
        for (site, reason) in failed {
            // The server's half still counts on those that were left out.
            let Some(half) = self.half.as_ref().filter(|_| !self.sites.contains_key(&site)) else { continue };
            self.watch.tell_lost(&half.handle, &site, &reason).await.map_or(Ok(()), Err)?;
        }
        for (site, reason) in std::mem::take(&mut self.absent) {
            self.watch.await_return(site, reason);
        }
        self.shared.notice(&Event::JobStarted { job_id: &self.intake.job_id });
        Ok(())
    }

    /// Starts the server's half and waits until it is ready; the job's meta with its sites. A half that an earlier run
    /// of the server has left over may still be ending until `left_over`.
    async fn start_half(&mut self, left_over: Option<Instant>) -> Result<serde_json::Value, Ending> {
        let failed = |reason: String| (JobStatus::FailedToRun, reason);
        let (job_id, run_dir) = (self.intake.job_id.clone(), self.intake.run_dir.clone());
        let document = self.document_for(&self.sites);
        write_meta(&run_dir, &document)
            .map_err(|error| failed(format!("cannot write the job's meta: {error}")))?;

        self.shared.notice(&Event::BeforeJobLaunch { job_id: &job_id });
        let cell = format!("server.{job_id}");
        let plan = self.approve_start(&document).await?;
        let start = JobStart::new(job_id, cell, run_dir, self.shared.internal.clone()).approved(plan);
        let half = Half::start(&*self.shared.launcher, start, left_over);
        self.half = Some(half.map_err(|error| failed(error.to_string()))?);
        while self.watch.course == Course::Starting {
            if let Some(ending) = self.step().await {
                return Err(ending);
            }
        }
        Ok(document)
    }

    /// The job's meta with these sites in it.
    pub(crate) fn document_for(&self, sites: &BTreeMap<String, Fqcn>) -> serde_json::Value {
        let mut document = self.intake.document.clone();
        document["job_clients"] = sites.iter().map(|(site, cell)| client(site, cell)).collect();
        document
    }

    /// Where a site of a job that is resumed registered from.
    fn cell_of(&self, site: &str) -> Fqcn {
        let holder = self.shared.ledger.site(site);
        let plain = || Fqcn::parse(site).ok();
        // A name that is no cell's cannot have registered.
        holder.map(|holder| holder.origin.clone()).or_else(plain).unwrap_or_else(Fqcn::server)
    }

    /// Compares the server's half with what its checkers approved; the digest of the plan that may be built. It is
    /// done here, where the log of verdicts is written, and not in the job.
    async fn approve_start(&mut self, document: &serde_json::Value) -> Result<String, Ending> {
        let (host, intake) = (Arc::clone(&self.shared.host), Arc::clone(&self.intake));
        let meta = document.clone();
        let judge = move || host.approve_start(&intake.job_id, &intake.run_dir, meta);
        let judged = tokio::task::spawn_blocking(judge).await;
        let judged =
            judged.map_err(|error| (JobStatus::Abnormal, format!("comparison broke off: {error}")))?;
        let (failure, refusals) = match judged {
            Ok(plan) => return Ok(plan),
            Err(why) => why,
        };
        if !refusals.is_empty() {
            self.write_refused(SERVER, failure.reason(), refusals).await?;
        }
        Err(ending_of(&JobOutcome::Failed(failure)))
    }

    /// Takes the sites that failed a step out, and fails the job if too few are left. One that has just gone may be back
    /// soon, as later in the job: it stays in, and is waited for once the job runs.
    async fn leave_out(
        &mut self,
        step: &str,
        results: Vec<(String, Result<(), OrderError>)>,
    ) -> Result<(), Ending> {
        let mut failed = Vec::new();
        let mut left_out = BTreeMap::new();
        for (site, result) in results {
            if let Err(error) = result {
                if error.is_of_absence() {
                    self.absent.insert(site, error.to_string());
                    continue;
                }
                tracing::warn!(job = self.intake.job_id, site, step, %error, "site left out");
                failed.push(format!("{site}: {error}"));
                left_out.extend(self.sites.remove_entry(&site));
            }
        }
        if !self.intake.is_enough(self.sites.keys()) {
            let (left, needed) = (self.sites.len(), self.intake.needed());
            // They are told to stop with the others, but nobody waits for what they say.
            self.watch.pending.retain(|site| !left_out.contains_key(site));
            self.sites.extend(left_out);
            let reason = format!("{step}: {left} of {needed} sites; {}", failed.join("; "));
            return Err((JobStatus::FailedToRun, reason));
        }
        if !left_out.is_empty() {
            self.choose().await?;
            self.dismiss(&left_out).await;
        }
        Ok(())
    }

    /// Writes down who takes part.
    async fn choose(&mut self) -> Result<(), Ending> {
        let sites: BTreeSet<String> = self.sites.keys().cloned().collect();
        self.watch.expect(&sites);
        self.shared.choose(&self.intake.job_id, sites).await.map_err(not_written)
    }

    /// Hears one thing of the sites or the server's half; the ending if that is the end.
    async fn step(&mut self) -> Option<Ending> {
        let Some(half) = &self.half else { return std::future::pending().await };
        let handle = half.handle.clone();
        let deadline = self.watch.next_deadline();
        let overdue = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased; // what the server's half said counts before that it ended
            Some(signal) = self.signals.recv() => {
                if let (Signal::Report(JobReport::RoundFinished { .. }), Some(half)) = (&signal, &mut self.half) {
                    half.got_on();
                }
                let ending = self.watch.hear(&handle, signal).await;
                self.give();
                ending
            }
            Some(Ok(given)) = self.giving.under_way.join_next() => self.note_given(&handle, given).await,
            ended = handle.wait() => self.half_ended(ended).await,
            () = change(&mut self.giving.presence) => {
                self.giving.look = true;
                self.give();
                None
            }
            () = overdue => self.watch.give_up(&handle).await,
        }
    }

    /// A half whose process died is started again; every other end of it is that of the job.
    async fn half_ended(&mut self, ended: JobOutcome) -> Option<Ending> {
        let Some(half) = &mut self.half else { return Some(ending_of(&ended)) };
        match half.start_again(&*self.shared.launcher, ended).await {
            Ok(reason) => {
                self.watch.restart();
                let job = self.intake.job_id.clone();
                tracing::warn!(job, reason, "process of the server's half died; starting it again");
                self.shared.tell(ServerEvent::JobRestarted { job, reason });
                None
            }
            Err(ended) => Some(ending_of(&ended)),
        }
    }

    /// All workflows have ended, and every site has reported or was lost on the way.
    fn completed(&self) -> Ending {
        let heard = self.sites.keys().filter(|site| !self.watch.pending.contains(*site));
        let enough = self.intake.is_enough(heard);
        match (self.watch.pending.is_empty(), enough) {
            (true, _) => (JobStatus::Completed, "all workflows ended and every site reported".into()),
            (false, true) => {
                (JobStatus::Completed, format!("all workflows ended, without {}", self.watch.silent()))
            }
            (false, false) => (JobStatus::Abnormal, format!("no outcome from {}", self.watch.silent())),
        }
    }

    /// Leaves the job as it is for the next server of this kit. The server's half is ended at once and not asked to:
    /// it would tell the sites that the run is over.
    async fn suspend(&mut self) {
        self.giving.stop();
        if let Some(half) = self.half.take() {
            half.handle.abort(Duration::ZERO).await;
        }
        let reserved = tokio::time::timeout(self.shared.settings.abort_grace, self.give_back());
        if reserved.await.is_err() {
            tracing::debug!(job = self.intake.job_id, "not every site gave back what it has reserved");
        }
        tracing::info!(job = self.intake.job_id, "job stays open: the next start of the server takes it up");
        self.shared.forget(&self.intake.job_id);
    }

    /// Stops whatever was started and gives back whatever was reserved, within bounds.
    async fn close(&mut self, status: JobStatus) {
        self.giving.stop();
        let half = self.half.take();
        let server = async {
            if let Some(half) = half {
                half.handle.abort(STOP_GRACE).await;
            }
        };
        if status == JobStatus::Completed {
            return server.await;
        }
        let sites = tokio::time::timeout(self.shared.settings.abort_grace, self.stop_sites());
        let (_, stopped) = join(server, sites).await;
        if stopped.is_err() {
            tracing::warn!(
                job = self.intake.job_id,
                sites = self.watch.silent(),
                "not every site said how it ended"
            );
        }
    }

    async fn stop_sites(&mut self) {
        self.give_back().await;
        let mut sites = std::mem::take(&mut self.sites);
        sites.retain(|site, _| self.started.contains(site));
        self.dismiss(&sites).await;
        let reachable = self.shared.sites();
        self.watch.pending.retain(|site| sites.contains_key(site) && reachable.contains_key(site));
        while !self.watch.pending.is_empty() {
            match self.signals.recv().await {
                Some(
                    Signal::Outcome { site, .. }
                    | Signal::SiteLost { site, .. }
                    | Signal::SiteHolds { site, holds: false, .. },
                ) => {
                    self.watch.pending.remove(&site);
                }
                Some(Signal::Report(_) | Signal::SiteHolds { .. }) => {}
                None => return,
            }
        }
    }

    /// Tells sites that they take no part: those that were told to start, to stop; the others, to give back
    /// what they reserved.
    async fn dismiss(&mut self, sites: &BTreeMap<String, Fqcn>) {
        let job = &self.intake.job_id;
        let dismissed = sites.iter().map(async |(site, cell)| {
            let told = match self.reservations.get(site) {
                Some(Reservation { cell, token }) if !self.started.contains(site) => {
                    self.orders.cancel_resource(cell, job, token.clone()).await
                }
                Some(_) | None => self.orders.abort(cell, job).await,
            };
            if let Err(error) = told {
                // It hears by its next heartbeat that the job is not its own.
                tracing::debug!(job, site, %error, "site was not told that it takes no part");
            }
        });
        join_all(dismissed).await;
        self.reservations.retain(|site, _| !sites.contains_key(site));
    }

    /// Gives back all reservations that are not in use.
    async fn give_back(&mut self) {
        let sites = self.reservations.iter();
        let sites: BTreeMap<_, _> = sites.map(|(site, held)| (site.clone(), held.cell.clone())).collect();
        self.dismiss(&sites).await;
    }
}

/// A site in `job_clients`.
fn client(site: &str, cell: &Fqcn) -> serde_json::Value {
    if cell.as_str() == site {
        json!({ "name": site })
    } else {
        json!({ "name": site, "fqcn": cell.as_str() })
    }
}

pub(crate) fn not_written(error: AppendError) -> Ending {
    (JobStatus::FailedToRun, format!("journal of jobs does not take what happens: {error}"))
}

/// What it means that the server's half ended by itself, without saying that its run was over.
pub(crate) fn ending_of(ended: &JobOutcome) -> Ending {
    let reason = ended.reason().unwrap_or_else(|| "the server's half ended early".into());
    let infrastructure = matches!(
        ended,
        JobOutcome::Failed(failure) | JobOutcome::Died(failure) if failure.kind() == FailureKind::Infrastructure
    );
    let status = if infrastructure { JobStatus::Abnormal } else { JobStatus::ExecutionException };
    (status, format!("server: {reason}"))
}
