//! The course of a simulation: starts everything, follows what happens.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use locule_component::Seed;
use locule_server::{JobRecord, JobStatus, ServerEvent};
use locule_site::Turns;
use serde::Serialize;
use tokio::sync::mpsc;

use super::scene::Scene;
use super::screen::Screen;
use crate::exit::{Code, Failure};
use crate::federation::{Federation, Happening};
use crate::wire::SiteChoices;

/// After so long without news, a person is told what a job that has not begun waits for.
const LONG: Duration = Duration::from_secs(10);

/// A simulation as far as it has come.
#[derive(Debug)]
pub(super) struct Course<'a> {
    scene: &'a Scene,
    screen: &'a Screen,
    turns: Turns,
    seed: Seed,
    started: Instant,
    /// Why the job does not begin, until it does.
    waits: Option<String>,
    seen: Seen,
}

/// What was seen of a job.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Every round that is over.
    pub(super) rounds: Vec<Round>,
    /// Every result that does not count.
    pub(super) failures: Vec<SiteFailure>,
    /// The model, or what else a workflow saved last.
    pub(super) result: Option<PathBuf>,
    pub(super) bytes_moved: u64,
    pub(super) seconds: f64,
}

/// A round that is over.
#[derive(Clone, Debug)]
pub(super) struct Round {
    /// Counted from 1.
    pub(super) round: u64,
    /// Each site's own metrics, by name, in site order.
    pub(super) sites: Vec<(String, Vec<(String, f64)>)>,
}

/// A site's result that does not count.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SiteFailure {
    pub(super) site: String,
    pub(super) task: String,
    /// Counted from 1.
    pub(super) round: Option<u64>,
    pub(super) code: String,
    pub(super) reason: String,
}

impl<'a> Course<'a> {
    /// Nothing has happened yet.
    pub(super) fn begin(scene: &'a Scene, screen: &'a Screen, turns: Turns, seed: Seed) -> Self {
        let (started, waits, seen) = (Instant::now(), Some("the server starts".to_owned()), Seen::default());
        Self { scene, screen, turns, seed, started, waits, seen }
    }

    /// What was seen so far.
    pub(super) fn seen(self) -> Seen {
        self.seen
    }

    /// Starts the federation and follows it to the end of its job; the server's record of that.
    pub(super) async fn follow(
        &mut self,
        federation: &mut Federation,
        happenings: &mut mpsc::Receiver<Happening>,
    ) -> Result<JobRecord, Failure> {
        let starting = start(self.scene, federation, self.turns.clone(), self.seed);
        tokio::pin!(starting);
        let mut has_started = false;
        loop {
            let happening = tokio::select! {
                started = &mut starting, if !has_started => {
                    started?;
                    has_started = true;
                    continue;
                }
                happening = happenings.recv() => happening,
                () = tokio::time::sleep(LONG), if self.waits.is_some() => {
                    self.tell_wait();
                    continue;
                }
            };
            match happening {
                Some(Happening::Server(event)) => {
                    if let ServerEvent::JobFinished { record, bytes_moved } = *event {
                        self.seen.bytes_moved = bytes_moved;
                        self.seen.seconds = self.started.elapsed().as_secs_f64();
                        return Ok(record);
                    }
                    self.see(*event);
                }
                Some(Happening::Ended { how }) => return Err(Failure::new(Code::Unavailable, anyhow!(how))),
                None => return Err(Failure::new(Code::Software, anyhow!("nothing happens any more"))),
            }
        }
    }

    /// Nothing happens, and the job has not begun.
    fn tell_wait(&self) {
        let (why, log) = (self.waits.as_deref().unwrap_or_default(), self.scene.log.display());
        let seconds = self.started.elapsed().as_secs();
        self.screen.note(&format!("the job has not begun after {seconds} s: {why}; more is in {log}"));
    }

    fn see(&mut self, event: ServerEvent) {
        match event {
            ServerEvent::SiteJoined { .. } => self.screen.joined(),
            ServerEvent::SiteLeft { site, reason } => self.screen.note(&format!("{site} left: {reason}")),
            ServerEvent::RoundStarted { round, rounds, .. } => self.screen.round_begins(round + 1, rounds),
            ServerEvent::RoundFinished { round, rounds, sites, model, .. } => {
                self.screen.round_ends(round + 1, rounds, &means(&sites));
                self.seen.result = Some(model);
                self.seen.rounds.push(Round { round: round + 1, sites });
            }
            ServerEvent::ResultUnusable { site, task, round, code, reason, .. } => {
                let round = round.map(|round| round + 1);
                let at = round.map_or_else(String::new, |round| format!(" of round {round}"));
                self.screen.note(&format!("{site} failed at task {task}{at}: {reason}"));
                self.seen.failures.push(SiteFailure { site, task, round, code, reason });
            }
            ServerEvent::ResultSaved { path, .. } => self.seen.result = Some(path),
            ServerEvent::JobWaits { reason, .. } => self.waits = Some(reason),
            ServerEvent::JobStatus { status: JobStatus::Running, .. } => self.waits = None,
            ServerEvent::Listening { .. }
            | ServerEvent::JobStatus { .. }
            | ServerEvent::JobFinished { .. }
            | _ => {}
        }
    }
}

/// Starts the server with its job, then one site after another.
async fn start(scene: &Scene, federation: &mut Federation, turns: Turns, seed: Seed) -> Result<(), Failure> {
    federation.start_server(&scene.server, &scene.job, Some(seed)).await?;
    for (name, kit) in &scene.sites {
        let choices = SiteChoices { turns: Some(turns.clone()), seed: Some(seed), ..SiteChoices::default() };
        federation.start_site(name, kit, choices).await?;
    }
    Ok(())
}

/// The mean over the sites of every metric, in the order in which they come.
pub(super) fn means(sites: &[(String, Vec<(String, f64)>)]) -> Vec<(String, f64)> {
    let mut sums: Vec<(String, f64, f64)> = Vec::new();
    for (name, value) in sites.iter().flat_map(|(_, metrics)| metrics) {
        match sums.iter_mut().find(|(known, ..)| known == name) {
            Some((_, sum, count)) => (*sum, *count) = (*sum + value, *count + 1.0),
            None => sums.push((name.clone(), *value, 1.0)),
        }
    }
    sums.into_iter().map(|(name, sum, count)| (name, sum / count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_averaged_over_the_sites_that_have_it() {
        let metrics = |values: &[(&str, f64)]| values.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect();
        let sites = [
            ("a".to_owned(), metrics(&[("loss", 1.0)])),
            ("b".to_owned(), metrics(&[("loss", 3.0), ("auc", 0.5)])),
        ];
        assert_eq!(means(&sites), metrics(&[("loss", 2.0), ("auc", 0.5)]));
        assert_eq!(means(&[]), []);
    }
}
