//! What is known of a running job, and what each news of it means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use locule_cell::Request;
use locule_launcher::{JobHandle, JobOutcome};
use locule_message::{Fqcn, Payload};
use locule_protocol::{Outcomes, channel, outcome};
use tokio::time::Instant;

use crate::book::Entry;
use crate::event::ServerEvent;
use crate::job::{JobReport, SITE_JOINS};
use crate::life::{Ending, Signal, ending_of};
use crate::record::{JobRecord, JobStatus, SERVER, SiteOutcome};
use crate::server::Shared;

/// After so many heartbeats without the job a site has lost it. One may have been on its way when the site
/// answered that it starts.
const MISSED: u32 = 2;

/// How often a site is given the job again without holding it once, before it is lost.
const GIVEN_AGAIN: u32 = 3;

/// How long a half that does not answer may take to be known as ended.
const DYING: Duration = Duration::from_secs(2);

/// How far the server's half is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// Until it says that it is ready, at first and after each restart of it.
    Starting,
    Ready,
    /// All its workflows have ended, and a restart begins none anew.
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
    /// Sites whose half has ended before the run did, and why. They do not come back.
    gone: BTreeMap<String, String>,
    /// Sites that joined, and those that came back from another cell, since the half's `meta.json` was written.
    moved: BTreeMap<String, Fqcn>,
    /// How many heartbeats of a site in a row were without the job.
    missed: BTreeMap<String, u32>,
    /// Sites that came back without the job: whoever owns this gives it to them.
    pub(crate) without_job: BTreeSet<String>,
    /// How often in a row a site was given the job again, without holding it.
    given: BTreeMap<String, u32>,
    /// When a site was given the job again.
    since: BTreeMap<String, Instant>,
    /// Sites that may come back, until when they have time, and why they would be lost then: those that said good-bye,
    /// and after a restart of the server those that were not heard of since.
    away: BTreeMap<String, (Instant, String)>,
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
            gone: BTreeMap::new(),
            moved: BTreeMap::new(),
            missed: BTreeMap::new(),
            without_job: BTreeSet::new(),
            given: BTreeMap::new(),
            since: BTreeMap::new(),
            away: BTreeMap::new(),
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

    /// A job that ran when the server ended goes on: with the outcomes that are in its record, and those of its sites
    /// that hold it. The ending, if the record says that the job has come to one.
    pub(crate) fn resume(&mut self, record: &JobRecord) -> Option<Ending> {
        let now = Instant::now();
        self.started = Some(now);
        let until = now + self.shared.settings.heartbeat_timeout;
        let away = self.pending.iter().map(|site| (site.clone(), (until, "no heartbeat".to_owned())));
        self.away = away.collect();
        let mut ending = None;
        for (site, outcome) in record.outcomes.iter().filter(|(site, _)| record.sites.contains(site)) {
            self.pending.remove(site);
            self.away.remove(site);
            ending = ending.or_else(|| self.judged(site, outcome));
        }
        ending
    }

    /// The half has to be started again: it knows nothing until it says that it is ready.
    pub(crate) fn restart(&mut self) {
        if self.course == Course::Ready {
            self.course = Course::Starting;
        }
    }

    /// Takes a site in that joins, or that came back from another cell; the ending, if the half does not answer.
    pub(crate) async fn take_in(&mut self, handle: &JobHandle, site: &str, cell: &Fqcn) -> Option<Ending> {
        if self.shared.dialect(site).outcomes == Outcomes::Failures {
            self.silent_when_well.insert(site.to_owned());
        }
        self.pending.insert(site.to_owned());
        self.moved.insert(site.to_owned(), cell.clone());
        if self.course == Course::Ready { self.tell_moved(handle, site, cell).await } else { None }
    }

    /// A site has been given the job again: what it said before tells nothing.
    pub(crate) fn given_again(&mut self, site: &str) {
        self.since.insert(site.to_owned(), Instant::now());
        self.missed.remove(site);
        self.lost.remove(site);
    }

    pub(crate) fn everybody_is_heard_or_lost(&self) -> bool {
        self.pending.iter().all(|site| self.lost.contains_key(site))
    }

    /// When there is something to give up.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let returns = self.away.values().map(|(until, _)| *until);
        self.deadline.into_iter().chain(returns).min()
    }

    /// Gives up what it is time to give up; the ending if that is one.
    pub(crate) async fn give_up(&mut self, handle: &JobHandle) -> Option<Ending> {
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return Some((JobStatus::Abnormal, format!("no outcome from {}", self.silent())));
        }
        let overdue = self.away.extract_if(.., |_, (until, _)| *until <= now).collect::<Vec<_>>();
        for (site, (_, reason)) in overdue {
            let ending = self.lose(handle, &site, &reason).await;
            if ending.is_some() {
                return ending;
            }
        }
        None
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
            Signal::SiteLost { site, reason, said_good_bye } if self.pending.contains(&site) => {
                if said_good_bye && !self.lost.contains_key(&site) {
                    self.await_return(site, reason);
                    return None;
                }
                self.away.remove(&site);
                self.lose(handle, &site, &reason).await
            }
            Signal::SiteHolds { site, holds: true, .. } => {
                self.away.remove(&site);
                self.missed.remove(&site);
                self.given.remove(&site);
                self.lost.remove(&site);
                None
            }
            Signal::SiteHolds { site, at, is_new, .. } if self.pending.contains(&site) => {
                self.away.remove(&site);
                self.miss(handle, &site, at, is_new).await
            }
            Signal::Outcome { .. } | Signal::SiteLost { .. } | Signal::SiteHolds { .. } => None,
        }
    }

    /// What a site's outcome means for the job.
    async fn judge(&mut self, handle: &JobHandle, site: &str, outcome: &SiteOutcome) -> Option<Ending> {
        let (job, code) = (&self.job_id, outcome.code);
        tracing::info!(job, site, code, reason = outcome.reason, "site reported its outcome");
        let ending = self.judged(site, outcome);
        let reason =
            self.gone.get(site).filter(|_| ending.is_none() && self.course == Course::Ready).cloned();
        match reason {
            Some(reason) => self.tell_lost(handle, site, &reason).await,
            None => ending,
        }
    }

    /// The ending that a site's outcome is. A site whose half has ended well before the run did takes no part any
    /// more.
    fn judged(&mut self, site: &str, outcome: &SiteOutcome) -> Option<Ending> {
        let reason = outcome.reason.as_deref().unwrap_or("no reason given");
        let ending = |status| Some((status, format!("{site}: {reason}")));
        match outcome.code {
            outcome::UNSAFE_COMPONENT | outcome::ABORTED => ending(JobStatus::Aborted),
            outcome::EXCEPTION | outcome::CONFIG_ERROR => ending(JobStatus::ExecutionException),
            outcome::INFRASTRUCTURE_ERROR => ending(JobStatus::Abnormal),
            _ => {
                if self.course != Course::RunEnded {
                    self.gone.insert(site.to_owned(), "the site's half has ended".to_owned());
                }
                None
            }
        }
    }

    async fn report(&mut self, handle: &JobHandle, report: JobReport) -> Option<Ending> {
        let job = self.job_id.clone();
        match report {
            JobReport::Ready if self.course == Course::RunEnded => {}
            JobReport::Ready => {
                self.course = Course::Ready;
                return self.tell_all(handle).await;
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
                let bytes_moved = self.shared.bytes_moved(&job);
                self.shared.tell(ServerEvent::RoundFinished {
                    job,
                    round,
                    rounds,
                    sites,
                    model,
                    bytes_moved,
                });
            }
            JobReport::Unusable { site, task, round, code, reason } => {
                self.shared.tell(ServerEvent::ResultUnusable { job, site, task, round, code, reason });
            }
            JobReport::Saved { path } => self.shared.tell(ServerEvent::ResultSaved { job, path }),
            JobReport::Ended(end) => match end.failed {
                Some(reason) => return Some((JobStatus::ExecutionException, reason)),
                None => {
                    self.course = Course::RunEnded;
                    let ended = *self.ended.get_or_insert_with(Instant::now);
                    self.deadline.get_or_insert(ended + self.shared.settings.outcome_wait);
                }
            },
        }
        None
    }

    /// Writes into the book what was promised to be there; without that the job cannot go on.
    pub(crate) async fn write(&self, entry: Entry) -> Option<Ending> {
        let error = self.shared.write(entry).await.err()?;
        Some((JobStatus::Abnormal, format!("journal of jobs does not take what happens: {error}")))
    }

    /// A site says that it does not hold the job. It is given it again: at once if its daemon is a new one, or the
    /// server is, and else when it has said so twice.
    async fn miss(&mut self, handle: &JobHandle, site: &str, at: Instant, is_new: bool) -> Option<Ending> {
        // What a site said before it had started tells nothing.
        let since = self.since.get(site).copied().max(self.started);
        if since.is_none_or(|since| at <= since) || self.without_job.contains(site) {
            return None;
        }
        if self.ended.is_some_and(|ended| at >= ended) && self.let_go(site) {
            return None;
        }
        let missed = self.missed.entry(site.to_owned()).or_default();
        *missed += 1;
        if *missed < MISSED && !is_new {
            return None;
        }
        let given = self.given.entry(site.to_owned()).or_default();
        // A daemon that has lived through the end of the run and has nothing to tell of it would have nothing again.
        if *given == GIVEN_AGAIN || (self.course == Course::RunEnded && !is_new) {
            return self.lose(handle, site, "the site does not hold the job").await;
        }
        *given += 1;
        tracing::info!(job = self.job_id, site, "site is back without the job, and is given it again");
        self.without_job.insert(site.to_owned());
        None
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

    /// A site has gone, and may only be starting again.
    pub(crate) fn await_return(&mut self, site: String, reason: String) {
        if self.course == Course::RunEnded && self.let_go(&site) {
            return;
        }
        let wait = self.shared.settings.return_wait;
        tracing::info!(job = self.job_id, site, ?wait, reason, "site is away; the job waits for its return");
        self.away.insert(site, (Instant::now() + wait, reason));
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

    /// Tells a half that has just become ready what is not in its `meta.json`.
    async fn tell_all(&self, handle: &JobHandle) -> Option<Ending> {
        for (site, cell) in &self.moved {
            let ending = self.tell_moved(handle, site, cell).await;
            if ending.is_some() {
                return ending;
            }
        }
        for (site, reason) in self.lost.iter().chain(&self.gone) {
            let ending = self.tell_lost(handle, site, reason).await;
            if ending.is_some() {
                return ending;
            }
        }
        None
    }

    /// Tells the server's half that a site takes no part any more.
    pub(crate) async fn tell_lost(&self, handle: &JobHandle, site: &str, reason: &str) -> Option<Ending> {
        tracing::warn!(job = self.job_id, site, reason, "site takes no part any more");
        let request = Request::new(channel::SERVER_COMMAND, "handle_dead_job", Payload::none())
            .header("fl_client", site)
            .header("reason", reason);
        self.command(handle, request).await
    }

    /// Tells the server's half that a site takes part from now on, in this cell.
    async fn tell_moved(&self, handle: &JobHandle, site: &str, cell: &Fqcn) -> Option<Ending> {
        let request = Request::new(channel::SERVER_COMMAND, SITE_JOINS, Payload::none())
            .header("fl_client", site)
            .header("fqcn", cell.as_str());
        self.command(handle, request).await
    }

    /// Gives the server's half an order. One that has died hears it when it is ready again; one that lives and does
    /// not answer would wait for that site for ever, so that is the end of the job.
    async fn command(&self, handle: &JobHandle, request: Request) -> Option<Ending> {
        let job = Fqcn::server().child(&self.job_id).ok()?;
        let answer =
            self.shared.cell.request(&job, request.timeout(self.shared.settings.order_timeout)).await;
        let error = answer.and_then(locule_cell::Reply::into_ok).err()?;
        match tokio::time::timeout(DYING, handle.wait()).await {
            Ok(JobOutcome::Died(_)) => None,
            Ok(ended) => Some(ending_of(&ended)),
            Err(_) => {
                let reason = format!("the server's half of the job does not answer: {error}");
                Some((JobStatus::Abnormal, reason))
            }
        }
    }
}
