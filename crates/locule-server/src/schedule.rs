//! How a job comes to its turn: it waits in the queue, asks its sites for what it needs, and tells why it waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use locule_component::{Event, Question};
use locule_message::Fqcn;
use locule_protocol::Shortage;
use tokio::time::Instant;

use crate::book::{Entry, seconds};
use crate::event::ServerEvent;
use crate::intake::Intake;
use crate::life::Ending;
use crate::orders::{OrderError, Orders, to_map};
use crate::queue::{Demand, NAMED, Refusal, Turn};
use crate::record::JobStatus;
use crate::server::{Shared, now_instant};

/// A job on its way to its turn. What has to be undone when that is broken off belongs to its life.
pub(crate) struct Scheduling<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) intake: &'a Intake,
    pub(crate) orders: &'a Orders,
    pub(crate) place: &'a mut Option<Place>,
    /// What sites have set aside for the job and have not begun to use.
    pub(crate) reservations: &'a mut BTreeMap<String, Reservation>,
}

/// What a site has set aside.
pub(crate) struct Reservation {
    pub(crate) cell: Fqcn,
    pub(crate) token: String,
}

/// A job's place in the queue, and among the jobs that run. Whoever drops it makes room for others.
pub(crate) struct Place {
    shared: Arc<Shared>,
    job: String,
}

impl Place {
    fn enter(shared: &Arc<Shared>, job: &str, demand: Demand) -> Self {
        shared.queue.send_modify(|queue| queue.enter(job, demand));
        Self { shared: Arc::clone(shared), job: job.to_owned() }
    }

    /// The place of a job that runs on these sites already, however many others do.
    pub(crate) fn running(shared: &Arc<Shared>, job: &str, sites: BTreeSet<String>) -> Self {
        shared.queue.send_modify(|queue| queue.begins(job, sites));
        Self { shared: Arc::clone(shared), job: job.to_owned() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.queue.send_modify(|queue| queue.leave(&self.job));
    }
}

impl Scheduling<'_> {
    /// Waits for its turn and asks its sites for what the job needs, until enough have it; those that take part.
    pub(crate) async fn run(mut self) -> Result<BTreeMap<String, Fqcn>, Ending> {
        let (job, demand) = (&self.intake.job_id, self.demand());
        *self.place = Some(Place::enter(self.shared, job, demand.clone()));
        let mut said = None;
        loop {
            let candidates = self.turn(&mut said).await;
            let (refusal, never) = self.ask(&candidates).await;
            if self.intake.is_enough(self.reservations.keys()) {
                let sites: BTreeSet<String> = self.reservations.keys().cloned().collect();
                let willing = candidates.into_iter().filter(|(site, _)| sites.contains(site)).collect();
                self.shared.queue.send_modify(|queue| queue.begins(job, sites));
                return Ok(willing);
            }
            self.give_back().await;
            let reason = refusal.reason.clone();
            let mut stays = demand.is_possible_without(&never, &refusal.asked);
            if !stays {
                return Err((JobStatus::CannotSchedule, reason));
            }
            self.shared.queue.send_modify(|queue| stays = queue.refused(job, refusal, now_instant()));
            if !stays {
                return Err((JobStatus::CannotSchedule, reason));
            }
        }
    }

    /// What the job needs, as the queue is told.
    fn demand(&self) -> Demand {
        let Intake { meta, document, .. } = self.intake;
        Demand {
            priority: meta.priority,
            submitted: document["submit_time"].as_u64().unwrap_or_default(),
            sites: self.intake.listed().map(BTreeSet::from_iter),
            mandatory: meta.mandatory_clients.iter().cloned().collect(),
            needed: self.intake.needed(),
        }
    }

    /// Waits until it may ask its sites; those that are there. Why it waits is told unless it was `said` last.
    async fn turn(&self, said: &mut Option<String>) -> BTreeMap<String, Fqcn> {
        let (mut presence, mut queue) = (self.shared.presence.subscribe(), self.shared.queue.subscribe());
        loop {
            // What changes from here on is looked at again.
            presence.mark_unchanged();
            queue.mark_unchanged();
            let mut there = self.shared.sites();
            let present: BTreeSet<String> = there.keys().cloned().collect();
            let mut turn = None;
            self.shared.queue.send_if_modified(|queue| {
                let now = queue.turn(&self.intake.job_id, &present, now_instant());
                matches!(turn.insert(now), Turn::Ask(_))
            });
            let again = match turn {
                Some(Turn::Ask(sites)) => {
                    there.retain(|site, _| sites.contains(site));
                    return there;
                }
                Some(Turn::Wait { reason, again }) => {
                    if let Some(reason) = reason.filter(|reason| said.as_ref() != Some(reason)) {
                        self.waits(&reason);
                        *said = Some(reason);
                    }
                    again
                }
                None => None,
            };
            let due = async {
                match again {
                    Some(again) => tokio::time::sleep_until(Instant::from_std(again)).await,
                    None => std::future::pending().await,
                }
            };
            // The other ends live as long as the server, of which this is a part.
            tokio::select! {
                _ = presence.changed() => {}
                _ = queue.changed() => {}
                () = due => {}
            }
        }
    }

    /// Tells why the job does not begin.
    fn waits(&self, reason: &str) {
        let (job, reason) = (self.intake.job_id.clone(), reason.to_owned());
        tracing::info!(job, reason, "job waits");
        let time = seconds(SystemTime::now());
        self.shared.book.note(Entry::Waits { job: job.clone(), time, reason: reason.clone() });
        self.shared.tell(ServerEvent::JobWaits { job, reason });
    }

    /// Asks its gates, and then every candidate for the job's resources, and keeps the reservations; why the others
    /// have none, and those that never will.
    async fn ask(&mut self, candidates: &BTreeMap<String, Fqcn>) -> (Refusal, BTreeSet<String>) {
        let asked: BTreeSet<String> = candidates.keys().cloned().collect();
        self.shared.notice(&Event::BeforeCheckClientResources { job_id: &self.intake.job_id });
        let question = Question::CheckClientResources {
            job: Box::new(self.intake.facts()),
            sites: asked.iter().cloned().collect(),
        };
        let mut unwilling = match self.shared.attendants.gates.ask(question).await {
            Ok(()) => self.ask_sites(candidates).await,
            Err(no) => vec![("server", OrderError::Refused(no.to_string()))],
        };
        self.shared.notice(&Event::AfterCheckClientResources { job_id: &self.intake.job_id });
        unwilling.sort_by_key(|(site, _)| *site);
        let mut why: Vec<String> =
            unwilling.iter().take(NAMED).map(|(site, error)| format!("{site}: {error}")).collect();
        if unwilling.len() > NAMED {
            why.push(format!("and {} more", unwilling.len() - NAMED));
        }
        let of = |wanted: fn(&OrderError) -> bool| {
            let sites = unwilling.iter().filter(|(_, error)| wanted(error));
            sites.map(|(site, _)| (*site).to_owned()).collect::<BTreeSet<String>>()
        };
        let refusal = Refusal {
            reason: format!("too few sites are ready: {}", why.join("; ")),
            short: of(|error| matches!(error, OrderError::Short(..))),
            taken: unwilling
                .iter()
                .all(|(_, error)| matches!(error, OrderError::Short(_, Some(Shortage::Taken)))),
            asked,
        };
        (refusal, of(|error| matches!(error, OrderError::Short(_, Some(Shortage::Never)))))
    }

    async fn ask_sites<'s>(&mut self, candidates: &'s BTreeMap<String, Fqcn>) -> Vec<(&'s str, OrderError)> {
        let (orders, intake) = (self.orders, self.intake);
        let meta = &to_map(&intake.document);
        let asked = candidates.iter().map(|(site, cell)| async move {
            let spec = intake.resources(site);
            (site, cell, orders.check_resource(cell, &intake.job_id, meta, &spec).await)
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let mut unwilling = Vec::new();
        while let Some((site, cell, answer)) = asked.next().await {
            match answer {
                Ok(token) => {
                    let reservation = Reservation { cell: cell.clone(), token };
                    self.reservations.insert(site.clone(), reservation);
                }
                Err(error) => unwilling.push((site.as_str(), error)),
            }
        }
        unwilling
    }

    /// Gives back what was set aside.
    async fn give_back(&mut self) {
        let job = &self.intake.job_id;
        let cancelled = self.reservations.iter().map(async |(site, Reservation { cell, token })| {
            if let Err(error) = self.orders.cancel_resource(cell, job, token.clone()).await {
                tracing::debug!(job, site, %error, "site was not told that it takes no part"); // it expires
            }
        });
        join_all(cancelled).await;
        self.reservations.clear();
    }
}
