//! What is known of a running job, and what each news of it means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use locule_cell::Request;
use locule_launcher::JobHandle;
use locule_message::{Fqcn, Payload};
use locule_protocol::{Outcomes, channel, outcome};
use tokio::time::Instant;

use crate::book::Entry;
use crate::event::ServerEvent;
use crate::job::JobReport;
use crate::life::{Ending, Signal, ending_of};
use crate::record::{JobStatus, SERVER, SiteOutcome};
use crate::server::Shared;

/// After so many heartbeats without the job a site has lost it. One may have been on its way when the site
/// answered that it starts.
const MISSED: u32 = 2;

/// How far the server's half is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    Starting,
    Ready,
    RunEnded,
}

pub(crate) struct Watch {
    shared: Arc<Shared>,
    job_id: String,
    pub(crate) course: Course,
    /// When the last site had answered the order to start.
    pub(crate) started: Option<Instant>,
    /// Sites whose outcome is not known.
    pub(crate) pending: BTreeSet<String>,
    /// Those of them that tell of failures only.
    silent_when_well: BTreeSet<String>,
    /// Sites that were lost, and why. They may come back.
    lost: BTreeMap<String, String>,
    /// How many heartbeats of a site in a row were without the job.
    missed: BTreeMap<String, u32>,
    /// When the server's half had ended well.
    ended: Option<Instant>,
    /// When to give up waiting for outcomes.
    pub(crate) deadline: Option<Instant>,
}

impl Watch {
    pub(crate) fn new(shared: Arc<Shared>, job_id: &str) -> Self {
        Self {
            shared,
            job_id: job_id.to_owned(),
            course: Course::Starting,
            started: None,
            pending: BTreeSet::new(),
            silent_when_well: BTreeSet::new(),
            lost: BTreeMap::new(),
            missed: BTreeMap::new(),
            ended: None,
            deadline: None,
        }
    }

    /// These take part: their outcomes are waited for.
    pub(crate) fn expect(&mut self, sites: &BTreeSet<String>) {
        self.pending.clone_from(sites);
        // Now, since a site that quits is forgotten.
        let silent = |site: &&String| self.shared.dialect(site).outcomes == Outcomes::Failures;
        self.silent_when_well = sites.iter().filter(silent).cloned().collect();
    }

    pub(crate) fn everybody_is_heard_or_lost(&self) -> bool {
        self.pending.iter().all(|site| self.lost.contains_key(site))
    }

    /// The sites whose outcome is not known, with the reason if they are lost.
    pub(crate) fn silent(&self) -> String {
        let named = self.pending.iter().map(|site| match self.lost.get(site) {
            Some(reason) => format!("{site} ({reason})"),
            None => site.clone(),
        });
        named.collect::<Vec<_>>().join(", ")
    }

    /// Takes news in; the ending if it is the last.
    pub(crate) async fn hear(&mut self, handle: &JobHandle, signal: Signal) -> Option<Ending> {
        match signal {
            Signal::Outcome { site, outcome } if self.pending.remove(&site) => {
                self.judge(handle, &site, &outcome).await
            }
            Signal::Report(report) => self.report(handle, report).await,
            Signal::SiteLost { site, reason } if self.pending.contains(&site) => {
                self.lose(handle, &site, &reason).await
            }
            Signal::SiteHolds { site, holds: true, .. } => {
                self.missed.remove(&site);
                self.lost.remove(&site);
                None
            }
            Signal::SiteHolds { site, at, .. } if self.pending.contains(&site) => {
                self.miss(handle, &site, at).await
            }
            Signal::Outcome { .. } | Signal::SiteLost { .. } | Signal::SiteHolds { .. } => None,
        }
    }

    /// What a site's outcome means for the job.
    async fn judge(&mut self, handle: &JobHandle, site: &str, outcome: &SiteOutcome) -> Option<Ending> {
        let (job, code) = (&self.job_id, outcome.code);
        let reason = outcome.reason.as_deref().unwrap_or("no reason given");
        tracing::info!(job, site, code, reason = outcome.reason, "site reported its outcome");
        let ending = |status| Some((status, format!("{site}: {reason}")));
        match code {
            outcome::UNSAFE_COMPONENT | outcome::ABORTED => ending(JobStatus::Aborted),
            outcome::EXCEPTION | outcome::CONFIG_ERROR => ending(JobStatus::ExecutionException),
            outcome::INFRASTRUCTURE_ERROR => ending(JobStatus::Abnormal),
            _ if self.course == Course::RunEnded => None,
            _ => self.tell_lost(handle, site, "the site's half has ended").await,
        }
    }

    async fn report(&mut self, handle: &JobHandle, report: JobReport) -> Option<Ending> {
        let job = self.job_id.clone();
        match report {
            JobReport::Ready => {
                self.course = Course::Ready;
                for (site, reason) in self.lost.clone() {
                    let ending = self.tell_lost(handle, &site, &reason).await;
                    if ending.is_some() {
                        return ending;
                    }
                }
            }
            JobReport::Refused { reason, refusals } => {
                let code = outcome::UNSAFE_COMPONENT;
                let outcome = SiteOutcome { code, reason: Some(reason), refusals, tasks_done: 0 };
                return self.write(Entry::Outcome { job, site: SERVER.into(), outcome }).await;
            }
            JobReport::RoundStarted { round, rounds } => {
                self.shared.tell(ServerEvent::RoundStarted { job, round, rounds });
            }
            JobReport::RoundFinished { round, rounds, sites, model } => {
                let ending = self.write(Entry::Round { job: job.clone(), done: round + 1 }).await;
                if ending.is_some() {
                    return ending;
                }
                let bytes_moved = self.shared.bytes_moved();
                self.shared.tell(ServerEvent::RoundFinished {
                    job,
                    round,
                    rounds,
                    sites,
                    model,
                    bytes_moved,
                });
            }
            JobReport::Saved { path } => self.shared.tell(ServerEvent::ResultSaved { job, path }),
            JobReport::Ended(end) => match end.failed {
                Some(reason) => return Some((JobStatus::ExecutionException, reason)),
                None => {
                    self.course = Course::RunEnded;
                    let now = Instant::now();
                    self.ended = Some(now);
                    self.deadline = Some(now + self.shared.settings.outcome_wait);
                }
            },
        }
        None
    }

    /// Writes into the book what was promised to be there; without that the job cannot go on.
    async fn write(&self, entry: Entry) -> Option<Ending> {
        let error = self.shared.write(entry).await.err()?;
        Some((JobStatus::Abnormal, format!("journal of jobs does not take what happens: {error}")))
    }

    async fn miss(&mut self, handle: &JobHandle, site: &str, at: Instant) -> Option<Ending> {
        // What a site said before it had started tells nothing.
        if self.started.is_none_or(|started| at <= started) {
            return None;
        }
        if self.ended.is_some_and(|ended| at >= ended) && self.let_go(site) {
            return None;
        }
        let missed = self.missed.entry(site.to_owned()).or_default();
        *missed += 1;
        if *missed < MISSED { None } else { self.lose(handle, site, "the site does not hold the job").await }
    }

    /// After the run has ended: whether a site has done its part that tells of failures only. It has none to
    /// tell, since a failure comes before the news that the site does not hold the job any more.
    fn let_go(&mut self, site: &str) -> bool {
        let done = self.silent_when_well.contains(site);
        if done {
            tracing::info!(job = self.job_id, site, "site has let go of the job, and told of no failure");
            self.pending.remove(site);
        }
        done
    }

    /// A site will not go on with this job.
    async fn lose(&mut self, handle: &JobHandle, site: &str, reason: &str) -> Option<Ending> {
        if self.course == Course::RunEnded && self.let_go(site) {
            return None;
        }
        let known = self.lost.insert(site.to_owned(), reason.to_owned()).is_some();
        match self.course {
            Course::RunEnded => {
                Some((JobStatus::Abnormal, format!("{site}: {reason}, and its outcome is unknown")))
            }
            Course::Ready if !known => self.tell_lost(handle, site, reason).await,
            Course::Ready | Course::Starting => None,
        }
    }

    /// Tells the server's half that a site takes no part any more. A half that cannot be told would wait for
    /// that site for ever, so that is the end of the job.
    pub(crate) async fn tell_lost(&self, handle: &JobHandle, site: &str, reason: &str) -> Option<Ending> {
        tracing::warn!(job = self.job_id, site, reason, "site takes no part any more");
        let job = Fqcn::server().child(&self.job_id).ok()?;
        let request = Request::new(channel::SERVER_COMMAND, "handle_dead_job", Payload::none())
            .header("fl_client", site)
            .header("reason", reason)
            .timeout(self.shared.settings.order_timeout);
        let answer = self.shared.cell.request(&job, request).await;
        let error = answer.and_then(locule_cell::Reply::into_ok).err()?;
        Some(match handle.outcome() {
            Some(ended) => ending_of(&ended),
            None => (JobStatus::Abnormal, format!("the server's half of the job does not answer: {error}")),
        })
    }
}
