//! Sites that are given a job while it runs: those that came back without it, and those that are new.

use std::collections::BTreeSet;
use std::sync::Arc;

use locule_component::Question;
use locule_launcher::JobHandle;
use locule_message::Fqcn;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::book::Entry;
use crate::intake::{Intake, write_meta};
use crate::life::{Ending, Life};
use crate::orders::{OrderError, Orders, to_map};
use crate::record::JobStatus;
use crate::server::Shared;
use crate::watch::Course;

/// What is under way to the sites of one job.
#[derive(Default)]
pub(crate) struct Giving {
    pub(crate) under_way: JoinSet<Given>,
    /// The sites that it is under way to.
    sites: BTreeSet<String>,
    /// Changes when a site comes or goes.
    pub(crate) presence: Option<watch::Receiver<u64>>,
    /// Whether there may be sites that the job has not been offered to.
    pub(crate) look: bool,
    /// Sites that are there and take no part: they did not when the job began, or do not want it.
    declined: BTreeSet<String>,
}

/// What became of a job that was given to a site.
pub(crate) struct Given {
    site: String,
    cell: Fqcn,
    result: Result<(), OrderError>,
}

impl Giving {
    /// Follows who comes from now on. A job that begins has been offered to whoever is there.
    pub(crate) fn follow(&mut self, shared: &Shared, is_resumed: bool) {
        self.presence = Some(shared.presence.subscribe());
        self.look = is_resumed;
        if !is_resumed {
            self.declined = shared.sites().into_keys().collect();
        }
    }

    /// Gives nobody anything any more.
    pub(crate) fn stop(&mut self) {
        *self = Self::default();
    }
}

/// Waits until a site comes or goes.
pub(crate) async fn change(presence: &mut Option<watch::Receiver<u64>>) {
    let changed = match presence {
        Some(presence) => presence.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending::<()>().await;
    }
}

impl Life {
    /// Gives the job to sites that came back without it, and to new ones if it is for all.
    pub(crate) fn give(&mut self) {
        let waiting = self.watch.without_job.difference(&self.giving.sites);
        let mut to: Vec<String> = waiting.cloned().collect();
        let there = self.shared.sites();
        if self.giving.look && self.watch.course == Course::Ready {
            self.giving.look = false;
            self.giving.declined.retain(|site| there.contains_key(site));
            to.extend(there.keys().filter(|site| self.is_new(site)).cloned());
        }
        for site in to {
            let Some(cell) = there.get(&site) else {
                self.watch.without_job.remove(&site); // its next heartbeat asks again
                continue;
            };
            // Lest its heartbeat be answered that it holds a job that is not its own.
            self.shared.count_on(&self.intake.job_id, &site, true);
            let mut sites = self.sites.clone();
            sites.insert(site.clone(), cell.clone());
            let (orders, intake) = (self.orders.clone(), Arc::clone(&self.intake));
            let (document, cell) = (self.document_for(&sites), cell.clone());
            let may_have_it = self.sites.contains_key(&site);
            self.giving.sites.insert(site.clone());
            self.giving.under_way.spawn(async move {
                let result = give(&orders, &intake, &site, &cell, &document, may_have_it).await;
                Given { site, cell, result }
            });
        }
    }

    fn is_new(&self, site: &str) -> bool {
        let Giving { sites, declined, .. } = &self.giving;
        let is_for_all = self.intake.listed().is_none() && self.intake.app_of(site).is_some();
        is_for_all && !self.sites.contains_key(site) && !sites.contains(site) && !declined.contains(site)
    }

    /// What became of it; the ending if that is the end.
    pub(crate) async fn note_given(&mut self, handle: &JobHandle, given: Given) -> Option<Ending> {
        let Given { site, cell, result } = given;
        let job = self.intake.job_id.clone();
        self.giving.sites.remove(&site);
        self.watch.without_job.remove(&site);
        match result {
            Ok(()) => {
                tracing::info!(job, site, "site was given the job while it runs");
                self.watch.given_again(&site);
                self.started.insert(site.clone());
                if self.sites.get(&site) == Some(&cell) {
                    return None;
                }
                self.sites.insert(site.clone(), cell.clone());
                // On disk before the half hears of it: its next start reads it there.
                if let Err(error) = write_meta(&self.intake.run_dir, &self.document_for(&self.sites)) {
                    return Some((JobStatus::Abnormal, format!("cannot write the job's meta: {error}")));
                }
                let sites = self.sites.keys().cloned().collect();
                let ending = self.watch.write(Entry::Sites { job, sites }).await;
                if ending.is_some() {
                    return ending;
                }
                self.watch.take_in(handle, &site, &cell).await
            }
            Err(error) if !self.sites.contains_key(&site) => {
                tracing::info!(job, site, %error, "site does not join the job");
                self.shared.count_on(&job, &site, false);
                self.giving.declined.insert(site);
                None
            }
            Err(OrderError::Unsafe { reason, refusals }) => {
                let written = self.write_refused(&site, &reason, refusals).await;
                Some(written.err().unwrap_or_else(|| (JobStatus::Aborted, format!("{site}: {reason}"))))
            }
            Err(error) => {
                tracing::warn!(job, site, %error, "site did not take the job again");
                None // its next heartbeat asks again
            }
        }
    }
}

/// Asks the site for room and starts the job there; a site that does not have it still has it deployed before, as when
/// it began.
async fn give(
    orders: &Orders,
    intake: &Intake,
    site: &str,
    cell: &Fqcn,
    document: &Value,
    may_have_it: bool,
) -> Result<(), OrderError> {
    let question =
        Question::CheckClientResources { job: Box::new(intake.facts()), sites: vec![site.to_owned()] };
    let asked = orders.shared.attendants.gates.ask(question).await;
    asked.map_err(|no| OrderError::Refused(format!("server: {no}")))?;
    let (job, meta, spec) = (&intake.job_id, to_map(&intake.document), intake.resources(site));
    let start_meta = to_map(document);
    let start = async |token: &str| orders.start(cell, job, &start_meta, &spec, token.to_owned()).await;
    if may_have_it {
        // What it has saved of its work lies in the folder that a deployment replaces.
        let token = orders.check_resource(cell, job, &meta, &spec).await?;
        match start(&token).await {
            Err(OrderError::Refused(reason)) => tracing::debug!(job, site, reason, "it is deployed anew"),
            started => return started,
        }
    }
    let token = orders.check_resource(cell, job, &meta, &spec).await?;
    let app = intake.app_of(site).unwrap_or_default();
    let zip = intake.apps.get(app).cloned().unwrap_or_default();
    let given = match orders.deploy(cell, job, app, &meta, zip).await {
        Ok(()) => start(&token).await,
        Err(error) => Err(error),
    };
    if given.is_err() {
        orders.cancel_resource(cell, job, token).await.ok();
    }
    given
}
