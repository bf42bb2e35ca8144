//! The course of a demo: follows what happens, judges every round's model, reports.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use locule_demo::{Judgement, Model, RoundPoint, rounds_svg, train_alone, train_pooled};
use locule_server::{JobRecord, JobStatus, ServerEvent};
use tokio::sync::mpsc;

use super::Federation;
use super::report::{Quality, Report, SiteReport};
use super::scene::Scene;
use super::screen::{Score, Screen};
use crate::arguments::Demo;
use crate::exit::{Code, Failure, OrExit as _};
use crate::federation::Happening;

/// A demo as far as it has come.
#[derive(Debug)]
pub(super) struct Course<'a> {
    scene: &'a Scene,
    screen: &'a Screen,
    started: Instant,
    rounds: Vec<RoundPoint>,
    model: Option<(PathBuf, Judgement)>,
    bytes_moved: u64,
    seconds: f64,
}

impl<'a> Course<'a> {
    /// Nothing has happened yet.
    pub(super) fn begin(scene: &'a Scene, screen: &'a Screen) -> Self {
        let (rounds, model) = (vec![RoundPoint::UNTRAINED], None);
        Self { scene, screen, started: Instant::now(), rounds, model, bytes_moved: 0, seconds: 0.0 }
    }

    /// Starts the federation and follows it to the end of its job; the server's record of that.
    pub(super) async fn follow(
        &mut self,
        federation: &mut Federation,
        happenings: &mut mpsc::Receiver<Happening>,
    ) -> Result<JobRecord, Failure> {
        federation.start_server(self.scene).await?;
        while let Some(happening) = happenings.recv().await {
            match happening {
                Happening::Server(event) => {
                    if let ServerEvent::Listening { .. } = *event {
                        federation.start_sites(self.scene).await?;
                    } else if let ServerEvent::JobFinished { record, bytes_moved } = *event {
                        self.bytes_moved = bytes_moved;
                        self.seconds = self.started.elapsed().as_secs_f64();
                        self.note_ends(&record);
                        return Ok(record);
                    } else {
                        self.see(&event)?;
                    }
                }
                Happening::Ended { how } => return Err(Failure::new(Code::Unavailable, anyhow!(how))),
            }
        }
        Err(Failure::new(Code::Software, anyhow!("nothing happens any more")))
    }

    fn see(&mut self, event: &ServerEvent) -> Result<(), Failure> {
        match event {
            ServerEvent::SiteJoined { site } => self.screen.note(site, "joined"),
            ServerEvent::SiteLeft { site, reason } => self.screen.note(site, &format!("left: {reason}")),
            ServerEvent::JobStatus { status: JobStatus::Running, .. } => {
                self.all_sites("computing means and variances")
            }
            ServerEvent::RoundStarted { round, .. } => {
                self.all_sites(&format!("training, round {}", round + 1))
            }
            ServerEvent::RoundFinished { round, rounds, sites, model, .. } => {
                for (site, metrics) in sites {
                    self.screen.site(site, &trained(round + 1, metrics));
                }
                self.judge(round + 1, *rounds, model).or_exit(Code::Data)?;
            }
            ServerEvent::Listening { .. }
            | ServerEvent::JobStatus { .. }
            | ServerEvent::JobRestarted { .. }
            | ServerEvent::ResultSaved { .. }
            | ServerEvent::JobFinished { .. }
            | _ => {}
        }
        Ok(())
    }

    /// The demo judges, not the server: it alone has the held-out rows.
    fn judge(&mut self, round: u64, rounds: u64, path: &Path) -> anyhow::Result<()> {
        let model = Model::read(path, &path.with_file_name(STANDARDISATION))?;
        let judgement = model.judge(&self.scene.split.held_out);
        let Judgement { auc, loss, .. } = judgement;
        self.rounds.push(RoundPoint { round, loss, auc });
        self.model = Some((path.to_owned(), judgement));
        self.screen.round(round, rounds, Score { loss, auc });
        Ok(())
    }

    fn all_sites(&self, doing: &str) {
        for (site, _) in &self.scene.sites {
            self.screen.site(site, doing);
        }
    }

    fn note_ends(&self, record: &JobRecord) {
        for (site, outcome) in &record.outcomes {
            let how = match (outcome.code, outcome.refusals.first()) {
                (0, _) => "finished".to_owned(),
                (_, Some(refusal)) => format!("refused {}: {}", refusal.component, refusal.reason),
                (_, None) => outcome.reason.clone().unwrap_or_else(|| "stopped".to_owned()),
            };
            self.screen.note(site, &how);
        }
    }

    /// What came of it, beside what each site would have reached alone; writes the plot and the model.
    pub(super) fn report(&self, record: &JobRecord, arguments: &Demo) -> Result<Report, Failure> {
        let Scene { dir, split, training, logs, .. } = self.scene;
        let rounds = u64::from(arguments.rounds);
        let pooled = Quality::from(train_pooled(split, training, rounds).judge(&split.held_out));
        let alone = self.scene.sites.iter().zip(&split.sites).map(|((name, _), rows)| {
            let alone = train_alone(name, rows, training, rounds).judge(&split.held_out).into();
            SiteReport { name: name.clone(), samples: rows.len(), alone }
        });
        let sites: Vec<SiteReport> = alone.collect();
        let (mut model, mut plot) = (None, None);
        if let Some((path, _)) = &self.model {
            let alone: Vec<_> = sites.iter().map(|site| (site.name.clone(), site.alone.auc)).collect();
            let svg = dir.join("rounds.svg");
            rounds_svg(&svg, &self.rounds, pooled.auc, &alone).or_exit(Code::CannotCreate)?;
            plot = Some(svg);
            copy(&path.with_file_name(STANDARDISATION), &dir.join(STANDARDISATION))?;
            model = Some(copy(path, &dir.join("model.npz"))?);
        }
        Ok(Report {
            rounds: record.rounds_done,
            transport: arguments.transport.scheme(),
            federated: self.model.as_ref().map(|(_, judgement)| Quality::from(*judgement)),
            pooled,
            sites,
            refusals: record.refusals().cloned().collect(),
            bytes_moved: self.bytes_moved,
            seconds: self.seconds,
            dir: dir.clone(),
            status: record.status().as_str().to_owned(),
            model,
            plot,
            logs: logs.clone(),
        })
    }
}

/// The file beside every model that says how its features are made comparable.
const STANDARDISATION: &str = "standardisation.npz";

fn copy(from: &Path, to: &Path) -> Result<PathBuf, Failure> {
    let copied =
        fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()));
    copied.or_exit(Code::CannotCreate).map(|_| to.to_owned())
}

/// What a site did in a round, in its own numbers.
fn trained(round: u64, metrics: &[(String, f64)]) -> String {
    let metrics = metrics.iter().map(|(name, value)| format!("  {name} {value:.4}"));
    format!("trained, round {round}{}", metrics.collect::<String>())
}
