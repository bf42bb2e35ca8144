//! How a job comes to its turn: it waits for its sites and for the others, and asks its sites for what it needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use locule_component::{Event, Question};
use locule_message::Fqcn;
use tokio::sync::OwnedSemaphorePermit;

use crate::event::ServerEvent;
use crate::intake::Intake;
use crate::life::Ending;
use crate::orders::{Orders, to_map};
use crate::record::JobStatus;
use crate::server::Shared;

/// A job on its way to its turn. What has to be undone when that is broken off belongs to its life.
pub(crate) struct Scheduling<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) intake: &'a Intake,
    pub(crate) orders: &'a Orders,
    /// The right to be one of the jobs that run.
    pub(crate) slot: &'a mut Option<OwnedSemaphorePermit>,
    /// What sites have set aside for the job and have not begun to use.
    pub(crate) reservations: &'a mut BTreeMap<String, Reservation>,
}

/// What a site has set aside.
pub(crate) struct Reservation {
    pub(crate) cell: Fqcn,
    pub(crate) token: String,
}

impl Scheduling<'_> {
    /// Waits for enough sites and asks them for what the job needs; those that take part.
    pub(crate) async fn run(mut self) -> Result<BTreeMap<String, Fqcn>, Ending> {
        let mut why = String::new();
        for attempt in 0..self.shared.settings.schedule_tries {
            if attempt > 0 {
                *self.slot = None;
                tokio::time::sleep(self.shared.settings.schedule_pause).await;
            }
            let candidates = self.wait_for_turn().await?;
            self.shared.notice(&Event::BeforeCheckClientResources { job_id: &self.intake.job_id });
            let job = Box::new(self.intake.facts());
            let question =
                Question::CheckClientResources { job, sites: candidates.keys().cloned().collect() };
            let unwilling = match self.shared.attendants.gates.ask(question).await {
                Ok(()) => self.ask(&candidates).await,
                Err(no) => vec![format!("server: {no}")],
            };
            self.shared.notice(&Event::AfterCheckClientResources { job_id: &self.intake.job_id });
            if self.intake.is_enough(self.reservations.keys()) {
                let willing = candidates.into_iter().filter(|(site, _)| self.reservations.contains_key(site));
                return Ok(willing.collect());
            }
            self.give_back().await;
            why = unwilling.join("; ");
            self.waits(&format!("too few sites are ready: {why}"));
        }
        Err((JobStatus::CannotSchedule, format!("too few sites are ready: {why}")))
    }

    /// Waits until enough of its sites are there and the job is among those that may run. A job that waits for
    /// a site keeps no other job from running.
    async fn wait_for_turn(&mut self) -> Result<BTreeMap<String, Fqcn>, Ending> {
        loop {
            self.wait_for_sites().await;
            let slots = Arc::clone(&self.shared.slots);
            if slots.available_permits() == 0 {
                self.waits("as many jobs as the server runs at one time are running");
            }
            let slot = slots.acquire_owned().await;
            *self.slot = Some(slot.map_err(|_| (JobStatus::Aborted, "server shuts down".to_owned()))?);
            let candidates = self.candidates();
            if self.intake.is_enough(candidates.keys()) {
                return Ok(candidates);
            }
            *self.slot = None;
        }
    }

    async fn wait_for_sites(&self) {
        let mut presence = self.shared.presence.subscribe();
        let mut said = String::new();
        loop {
            presence.borrow_and_update();
            let there = self.candidates();
            if self.intake.is_enough(there.keys()) {
                return;
            }
            let waits = match self.intake.listed() {
                Some(mut listed) => {
                    listed.retain(|site| !there.contains_key(site));
                    format!("waiting for {}", listed.join(", "))
                }
                None => {
                    format!("waiting for {} more site(s)", self.intake.needed().saturating_sub(there.len()))
                }
            };
            if waits != said {
                self.waits(&waits);
                said = waits;
            }
            // The other end lives as long as the server, of which this is a part.
            presence.changed().await.ok();
        }
    }

    /// Tells why the job does not begin.
    fn waits(&self, reason: &str) {
        let job = self.intake.job_id.clone();
        tracing::info!(job, reason, "job waits");
        self.shared.tell(ServerEvent::JobWaits { job, reason: reason.to_owned() });
    }

    /// Sites of the job that are there.
    fn candidates(&self) -> BTreeMap<String, Fqcn> {
        let mut sites = self.shared.sites();
        sites.retain(|site, _| self.intake.app_of(site).is_some());
        sites
    }

    /// Asks every candidate for the job's resources, and keeps the reservations; why the others have none.
    async fn ask(&mut self, candidates: &BTreeMap<String, Fqcn>) -> Vec<String> {
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
                Err(error) => unwilling.push(format!("{site}: {error}")),
            }
        }
        unwilling.sort();
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
