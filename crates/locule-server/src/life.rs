//! The life of a job: wait for its sites, deploy, start, watch, end. One task owns one job.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use locule_cell::Request;
use locule_launcher::{JobHandle, JobOutcome, JobStart};
use locule_message::{Fqcn, Payload};
use locule_protocol::{channel, outcome};
use serde_json::json;
use tokio::sync::mpsc;

use crate::book::Entry;
use crate::event::ServerEvent;
use crate::intake::{Intake, write_meta};
use crate::job::JobReport;
use crate::orders::{Orders, to_map};
use crate::record::{JobStatus, SiteOutcome};
use crate::server::Shared;

/// How long the server's half of a job may take to stop.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Something that concerns a job.
#[derive(Debug)]
pub(crate) enum Signal {
    /// A site reported how its half ended; the book has it already.
    Outcome { site: String, outcome: SiteOutcome },
    /// The server's half tells how it gets on.
    Report(JobReport),
    /// A site is gone.
    SiteLost { site: String, reason: String },
    /// A site says which of the server's jobs it holds.
    SiteHolds { site: String, jobs: Vec<String> },
    /// A person, or the server's end, stops the job.
    Abort { reason: String },
}

/// How a job ends: its last state and the reason.
type Ending = (JobStatus, String);

/// Runs a job from its intake to its last state.
pub(crate) async fn run(shared: Arc<Shared>, intake: Intake, signals: mpsc::Receiver<Signal>) {
    let job_id = intake.job_id.clone();
    let orders = Orders {
        cell: shared.cell.clone(),
        submitter: intake.submitter.clone(),
        timeout: shared.settings.order_timeout,
    };
    let mut life = Life { shared: Arc::clone(&shared), intake, signals, orders, sites: BTreeMap::new() };
    let (status, reason) = match life.live().await {
        Ok(ending) | Err(ending) => ending,
    };
    shared.enter(&job_id, status, &reason).await;
    shared.forget(&job_id);
    if let Some(record) = shared.record(&job_id) {
        shared.tell(ServerEvent::JobFinished { record, bytes_moved: shared.bytes_moved() });
    }
}

struct Life {
    shared: Arc<Shared>,
    intake: Intake,
    signals: mpsc::Receiver<Signal>,
    orders: Orders,
    /// Sites that take part, with the cells that they registered from.
    sites: BTreeMap<String, Fqcn>,
}

impl Life {
    async fn live(&mut self) -> Result<Ending, Ending> {
        let slots = Arc::clone(&self.shared.slots);
        let aborted = |reason| (JobStatus::Aborted, reason);
        let _slot = tokio::select! {
            slot = slots.acquire_owned() => slot.map_err(|_| aborted("server shuts down".to_owned()))?,
            reason = wait_for_abort(&mut self.signals) => return Err(aborted(reason)),
        };
        let reservations = self.schedule().await?;
        self.deploy().await?;
        self.shared.enter(&self.intake.job_id, JobStatus::Dispatched, "deployed to its sites").await;
        let handle = self.start(reservations).await?;
        self.shared.enter(&self.intake.job_id, JobStatus::Running, "started").await;
        let ending = self.watch(&handle).await;
        handle.abort(STOP_GRACE).await;
        Ok(ending)
    }

    /// Waits for enough sites and asks them for what the job needs.
    async fn schedule(&mut self) -> Result<BTreeMap<String, String>, Ending> {
        let mut why = String::new();
        for attempt in 0..self.shared.settings.schedule_tries {
            if attempt > 0 {
                let pause = tokio::time::sleep(self.shared.settings.schedule_pause);
                tokio::select! {
                    () = pause => {}
                    reason = wait_for_abort(&mut self.signals) => return Err((JobStatus::Aborted, reason)),
                }
            }
            let candidates = self.wait_for_sites().await?;
            let (willing, unwilling) = self.ask(&candidates).await;
            let enough = willing.len() >= self.intake.needed()
                && self.intake.meta.mandatory_clients.iter().all(|site| willing.contains_key(site));
            if enough {
                self.sites = candidates.into_iter().filter(|(site, _)| willing.contains_key(site)).collect();
                return Ok(willing);
            }
            for (site, token) in willing {
                self.orders.cancel_resource(&candidates[&site], &self.intake.job_id, token).await.ok();
            }
            why = unwilling
                .iter()
                .map(|(site, reason)| format!("{site}: {reason}"))
                .collect::<Vec<_>>()
                .join("; ");
            tracing::info!(job = self.intake.job_id, reason = why, "too few sites are ready");
        }
        Err((JobStatus::CannotSchedule, format!("too few sites are ready: {why}")))
    }

    /// Waits until enough of the sites that the job names are there.
    async fn wait_for_sites(&mut self) -> Result<BTreeMap<String, Fqcn>, Ending> {
        let mut presence = self.shared.presence.subscribe();
        let mut said = String::new();
        loop {
            presence.borrow_and_update();
            let there: BTreeMap<_, _> =
                self.shared.sites().into_iter().filter(|(site, _)| self.intake.is_for(site)).collect();
            let absent: Vec<_> =
                self.intake.meta.mandatory_clients.iter().filter(|s| !there.contains_key(*s)).collect();
            if there.len() >= self.intake.needed() && absent.is_empty() {
                return Ok(there);
            }
            let waits = match self.intake.listed() {
                Some(listed) => {
                    let absent: Vec<_> =
                        listed.into_iter().filter(|site| !there.contains_key(site)).collect();
                    format!("waiting for {}", absent.join(", "))
                }
                None => {
                    format!("waiting for {} more site(s)", self.intake.needed().saturating_sub(there.len()))
                }
            };
            if waits != said {
                tracing::info!(job = self.intake.job_id, reason = waits, "job waits");
                said = waits;
            }
            tokio::select! {
                changed = presence.changed() => {
                    changed.map_err(|_| (JobStatus::Aborted, "server shuts down".to_owned()))?;
                }
                reason = wait_for_abort(&mut self.signals) => return Err((JobStatus::Aborted, reason)),
            }
        }
    }

    /// Asks every candidate for the job's resources: reservations of those that have them, reasons of the others.
    async fn ask(
        &self,
        candidates: &BTreeMap<String, Fqcn>,
    ) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
        let meta = to_map(&self.intake.document);
        let asked = candidates.iter().map(async |(site, cell)| {
            let spec = self.resources(site);
            (site.clone(), self.orders.check_resource(cell, &self.intake.job_id, &meta, &spec).await)
        });
        let (mut willing, mut unwilling) = (BTreeMap::new(), BTreeMap::new());
        for (site, answer) in join_all(asked).await {
            match answer {
                Ok(token) => willing.insert(site, token),
                Err(error) => unwilling.insert(site, error.to_string()),
            };
        }
        (willing, unwilling)
    }

    fn resources(&self, site: &str) -> locule_fobs::Map {
        self.intake.meta.resource_spec.get(site).map(to_map).unwrap_or_default()
    }

    /// Gives every site its app; a site that does not take it is left out.
    async fn deploy(&mut self) -> Result<(), Ending> {
        let meta = to_map(&self.intake.document);
        let deployed = self.sites.iter().map(async |(site, cell)| {
            let app = self.intake.app_of(site).unwrap_or_default();
            let zip = self.intake.apps.get(app).cloned().unwrap_or_default();
            (site.clone(), self.orders.deploy(cell, &self.intake.job_id, app, &meta, zip).await)
        });
        let deployed = join_all(deployed).await;
        self.leave_out("deploy", deployed)
    }

    /// Takes the sites that failed a step out, and fails the job if too few are left.
    fn leave_out(
        &mut self,
        step: &str,
        results: Vec<(String, Result<(), crate::orders::OrderError>)>,
    ) -> Result<(), Ending> {
        let mut failed = Vec::new();
        for (site, result) in results {
            if let Err(error) = result {
                tracing::warn!(job = self.intake.job_id, site, step, %error, "site left out");
                self.sites.remove(&site);
                failed.push(format!("{site}: {error}"));
            }
        }
        let mandatory = self.intake.meta.mandatory_clients.iter().all(|site| self.sites.contains_key(site));
        if self.sites.len() >= self.intake.needed() && mandatory {
            return Ok(());
        }
        let (left, needed) = (self.sites.len(), self.intake.needed());
        let reason = format!("{step}: {left} of {needed} sites; {}", failed.join("; "));
        Err((JobStatus::FailedToRun, reason))
    }

    /// Starts the server's half, then the sites'.
    async fn start(&mut self, mut reservations: BTreeMap<String, String>) -> Result<JobHandle, Ending> {
        let failed = |reason: String| (JobStatus::FailedToRun, reason);
        let (job_id, run_dir) = (self.intake.job_id.clone(), self.intake.run_dir.clone());
        let sites = self.sites.keys().cloned().collect();
        let entry = Entry::Sites { job: job_id.clone(), sites };
        self.shared.write(entry).await.map_err(|error| failed(error.to_string()))?;
        let clients = self.sites.iter().map(|(site, cell)| match cell.as_str() == site {
            true => json!({ "name": site }),
            false => json!({ "name": site, "fqcn": cell.as_str() }),
        });
        let clients: Vec<_> = clients.collect();
        let mut document = self.intake.document.clone();
        document["job_clients"] = json!(clients);
        write_meta(&run_dir, &document)
            .map_err(|error| failed(format!("cannot write the job's meta: {error}")))?;

        let cell = format!("server.{job_id}");
        let start = JobStart::new(job_id.clone(), cell, run_dir, self.shared.internal.clone());
        let handle = self.shared.launcher.start(start).map_err(|error| failed(error.to_string()))?;
        let meta = to_map(&document);
        let started = self.sites.iter().map(async |(site, cell)| {
            let (spec, token) = (self.resources(site), reservations.get(site).cloned().unwrap_or_default());
            (site.clone(), self.orders.start(cell, &self.intake.job_id, &meta, &spec, token).await)
        });
        let started = join_all(started).await;
        reservations.clear();
        let lost: Vec<_> = started
            .iter()
            .filter_map(|(site, r)| r.as_ref().err().map(|e| (site.clone(), e.to_string())))
            .collect();
        if let Err(ending) = self.leave_out("start", started) {
            handle.abort(STOP_GRACE).await;
            self.abort_sites().await;
            return Err(ending);
        }
        for (site, reason) in lost {
            self.tell_lost(&site, &reason).await;
        }
        Ok(handle)
    }

    /// Listens to the sites and to the server's half until the job is over.
    async fn watch(&mut self, handle: &JobHandle) -> Ending {
        let mut watch = Watch {
            pending: self.sites.keys().cloned().collect(),
            held: BTreeSet::new(),
            run_ended: false,
            deadline: None,
        };
        loop {
            let overdue = async {
                match watch.deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let ending = tokio::select! {
                signal = self.signals.recv() => match signal {
                    Some(signal) => self.hear(&mut watch, signal).await,
                    None => Some((JobStatus::Aborted, "server shuts down".into())),
                },
                ended = handle.wait() => Some(ending_of(&ended)),
                () = overdue => {
                    let silent: Vec<_> = watch.pending.iter().cloned().collect();
                    Some((JobStatus::Abnormal, format!("no outcome from {}", silent.join(", "))))
                }
            };
            if let Some((status, reason)) = ending {
                if status != JobStatus::Completed {
                    self.sites.retain(|site, _| watch.pending.contains(site));
                    self.abort_sites().await;
                    self.collect_outcomes(&mut watch).await;
                }
                return (status, reason);
            }
            if watch.run_ended && watch.pending.is_empty() {
                return (JobStatus::Completed, "all workflows ended and every site reported".into());
            }
        }
    }

    async fn hear(&mut self, watch: &mut Watch, signal: Signal) -> Option<Ending> {
        match signal {
            Signal::Outcome { site, outcome } => {
                watch.pending.remove(&site);
                self.judge(&site, &outcome, watch.run_ended).await
            }
            Signal::Report(report) => self.report(watch, report).await,
            Signal::SiteLost { site, reason } if watch.pending.contains(&site) => {
                self.lose(watch, &site, &reason).await
            }
            Signal::SiteHolds { site, jobs } if watch.pending.contains(&site) => {
                if jobs.contains(&self.intake.job_id) {
                    watch.held.insert(site);
                    None
                } else if watch.held.contains(&site) {
                    self.lose(watch, &site, "the site no longer holds the job").await
                } else {
                    None
                }
            }
            Signal::SiteLost { .. } | Signal::SiteHolds { .. } => None,
            Signal::Abort { reason } => Some((JobStatus::Aborted, reason)),
        }
    }

    /// What a site's outcome means for the job.
    async fn judge(&self, site: &str, outcome: &SiteOutcome, run_ended: bool) -> Option<Ending> {
        let reason = outcome.reason.as_deref().unwrap_or("no reason given");
        tracing::info!(
            job = self.intake.job_id,
            site,
            code = outcome.code,
            reason,
            "site reported its outcome"
        );
        let ending = |status| Some((status, format!("{site}: {reason}")));
        match outcome.code {
            outcome::UNSAFE_COMPONENT => ending(JobStatus::Aborted),
            outcome::ABORTED => ending(JobStatus::Aborted),
            outcome::EXCEPTION | outcome::CONFIG_ERROR => ending(JobStatus::ExecutionException),
            outcome::INFRASTRUCTURE_ERROR => ending(JobStatus::Abnormal),
            _ => {
                if !run_ended {
                    self.tell_lost(site, "the site's half has ended").await;
                }
                None
            }
        }
    }

    async fn report(&mut self, watch: &mut Watch, report: JobReport) -> Option<Ending> {
        let (shared, job) = (&self.shared, self.intake.job_id.clone());
        match report {
            JobReport::RoundStarted { round, rounds } => {
                shared.tell(ServerEvent::RoundStarted { job, round, rounds })
            }
            JobReport::RoundFinished { round, rounds, sites, model } => {
                let entry = Entry::Round { job: job.clone(), done: round + 1 };
                if let Err(error) = shared.write(entry).await {
                    tracing::error!(job, %error, "journal of jobs does not take the round");
                }
                let bytes_moved = shared.bytes_moved();
                shared.tell(ServerEvent::RoundFinished { job, round, rounds, sites, model, bytes_moved });
            }
            JobReport::Saved { path } => shared.tell(ServerEvent::ResultSaved { job, path }),
            JobReport::Ended(end) => match end.failed {
                Some(reason) => return Some((JobStatus::ExecutionException, reason)),
                None => {
                    watch.run_ended = true;
                    watch.deadline = Some(tokio::time::Instant::now() + shared.settings.outcome_wait);
                }
            },
        }
        None
    }

    /// A site will not come back to this job.
    async fn lose(&self, watch: &mut Watch, site: &str, reason: &str) -> Option<Ending> {
        if watch.run_ended {
            watch.pending.remove(site);
            return Some((JobStatus::Abnormal, format!("{site}: {reason}, and its outcome is unknown")));
        }
        self.tell_lost(site, reason).await;
        None
    }

    /// Tells the server's half that a site takes no part any more.
    async fn tell_lost(&self, site: &str, reason: &str) {
        let Ok(job) = Fqcn::server().child(&self.intake.job_id) else { return };
        let request = Request::new(channel::SERVER_COMMAND, "handle_dead_job", Payload::none())
            .header("fl_client", site)
            .header("reason", reason)
            .timeout(self.shared.settings.order_timeout);
        if let Err(error) = self.shared.cell.request(&job, request).await {
            tracing::warn!(job = self.intake.job_id, site, %error, "job was not told of a lost site");
        }
    }

    async fn abort_sites(&self) {
        let aborts = self.sites.values().map(async |cell| self.orders.abort(cell, &self.intake.job_id).await);
        join_all(aborts).await;
    }

    /// Hears the outcomes of sites that were told to abort, for a while.
    async fn collect_outcomes(&mut self, watch: &mut Watch) {
        let reachable = self.shared.sites();
        watch.pending.retain(|site| reachable.contains_key(site));
        let collecting = async {
            while !watch.pending.is_empty() {
                match self.signals.recv().await {
                    Some(Signal::Outcome { site, .. } | Signal::SiteLost { site, .. }) => {
                        watch.pending.remove(&site);
                    }
                    Some(Signal::Report(_) | Signal::SiteHolds { .. } | Signal::Abort { .. }) => {}
                    None => return,
                }
            }
        };
        if tokio::time::timeout(self.shared.settings.abort_grace, collecting).await.is_err() {
            tracing::warn!(job = self.intake.job_id, "not every site said how it ended");
        }
    }
}

/// What is known of a running job.
struct Watch {
    /// Sites whose outcome is not known.
    pending: BTreeSet<String>,
    /// Sites that said they hold the job.
    held: BTreeSet<String>,
    run_ended: bool,
    /// When to give up waiting for outcomes.
    deadline: Option<tokio::time::Instant>,
}

/// Waits for somebody to abort the job; everything else that is signalled before it runs is of no concern.
async fn wait_for_abort(signals: &mut mpsc::Receiver<Signal>) -> String {
    loop {
        match signals.recv().await {
            Some(Signal::Abort { reason }) => return reason,
            Some(
                Signal::Outcome { .. }
                | Signal::Report(_)
                | Signal::SiteLost { .. }
                | Signal::SiteHolds { .. },
            ) => {}
            None => return "server shuts down".into(),
        }
    }
}

/// What it means that the server's half ended by itself, without saying that its run was over.
fn ending_of(ended: &JobOutcome) -> Ending {
    let reason = ended.reason().unwrap_or_else(|| "the server's half ended early".into());
    (JobStatus::ExecutionException, format!("server: {reason}"))
}
