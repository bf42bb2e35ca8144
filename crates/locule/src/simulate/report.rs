//! What a simulation has to say at its end, for a person and for a script.

use std::collections::BTreeMap;
use std::path::PathBuf;

use comfy_table::{CellAlignment, Table};
use locule_protocol::Refusal;
use locule_server::JobRecord;
use serde::Serialize;

use super::course::{Seen, SiteFailure, means};
use super::picture;
use super::scene::Scene;
use crate::exit::Failure;
use crate::table;

/// The result; with `--output json` this is all that standard output gets.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) job: String,
    pub(super) status: String,
    pub(super) seed: u64,
    pub(super) rounds: Vec<RoundReport>,
    pub(super) sites: Vec<SiteReport>,
    /// Results that did not count, in the order in which they came.
    pub(super) failures: Vec<SiteFailure>,
    pub(super) refusals: Vec<Refusal>,
    /// Bytes over the server's links to the sites, in and out.
    pub(super) bytes_moved: u64,
    /// From the start of the server to the end of the job.
    pub(super) seconds: f64,
    pub(super) dir: PathBuf,
    /// What the workflows saved last.
    pub(super) result: Option<PathBuf>,
    /// Every metric over the rounds; absent if nothing was measured.
    pub(super) plot: Option<PathBuf>,
    pub(super) log: PathBuf,
}

/// A round that is over.
#[derive(Debug, Serialize)]
pub(super) struct RoundReport {
    /// Counted from 1.
    pub(super) round: u64,
    /// Sites whose results count.
    pub(super) sites: usize,
    /// Means over them.
    pub(super) metrics: BTreeMap<String, f64>,
}

/// A site's part.
#[derive(Debug, Serialize)]
pub(super) struct SiteReport {
    pub(super) name: String,
    /// Tasks whose results the server took.
    pub(super) tasks: u64,
    /// What it measured in the last round that it took part in.
    pub(super) metrics: BTreeMap<String, f64>,
    /// How its half ended: 0 is well.
    pub(super) code: Option<i64>,
    pub(super) reason: Option<String>,
}

impl Report {
    /// What came of it.
    pub(super) fn of(scene: &Scene, record: &JobRecord, seen: &Seen, seed: u64) -> Result<Self, Failure> {
        let last = |site: &str| {
            let of_site = |sites: &'_ [(String, Vec<(String, f64)>)]| {
                sites.iter().find(|(name, _)| name == site).map(|(_, metrics)| metrics.clone())
            };
            seen.rounds.iter().rev().find_map(|round| of_site(&round.sites)).unwrap_or_default()
        };
        let sites = scene.site_names().into_iter().map(|name| {
            let outcome = record.outcomes.get(&name);
            SiteReport {
                tasks: outcome.map_or(0, |outcome| outcome.tasks_done),
                metrics: last(&name).into_iter().collect(),
                code: outcome.map(|outcome| outcome.code),
                reason: outcome.and_then(|outcome| outcome.reason.clone()),
                name,
            }
        });
        let rounds = seen.rounds.iter().map(|round| RoundReport {
            round: round.round,
            sites: round.sites.len(),
            metrics: means(&round.sites).into_iter().collect(),
        });
        let dir = scene.folder.path().to_owned();
        Ok(Self {
            job: scene.job_name.clone(),
            status: record.status().as_str().to_owned(),
            seed,
            rounds: rounds.collect(),
            sites: sites.collect(),
            failures: seen.failures.clone(),
            refusals: record.refusals().cloned().collect(),
            bytes_moved: seen.bytes_moved,
            seconds: seen.seconds,
            result: seen.result.as_ref().map(|file| scene.cleared(file, &record.job_id)),
            plot: picture::draw(&dir, &scene.job_name, &seen.rounds)?,
            log: dir.join("simulate.log"),
            dir,
        })
    }

    /// One JSON object.
    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has only text keys and finite numbers")
    }

    /// The table and places, for a person.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{}\n\n{}: {} rounds at {} sites, seed {}, {:.1} s\n",
            self.table(),
            self.status,
            self.rounds.len(),
            self.sites.len(),
            self.seed,
            self.seconds
        );
        let (log, all) = (Some(self.log.clone()), Some(self.dir.clone()));
        for (what, place) in [("result", &self.result), ("plot", &self.plot), ("log", &log), ("all", &all)] {
            if let Some(place) = place {
                text.push_str(&format!("  {what:6}  {}\n", place.display()));
            }
        }
        text
    }

    fn table(&self) -> Table {
        let mut names: Vec<&String> = self.sites.iter().flat_map(|site| site.metrics.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let head = ["site", "tasks"].into_iter().chain(names.iter().map(|name| name.as_str()));
        let mut table = table::with_head(head.chain(["end"]));
        let cell = |value: Option<&f64>| value.map_or_else(String::new, |value| format!("{value:.4}"));
        for site in &self.sites {
            let failed = self.failures.iter().filter(|failure| failure.site == site.name).count();
            let end = match (site.code, failed) {
                (Some(0), 0) => "finished".to_owned(),
                (Some(0), failed) => format!("finished, failed {failed} time(s)"),
                (Some(_), _) => site.reason.clone().unwrap_or_else(|| "stopped".to_owned()),
                (None, _) => "not heard of".to_owned(),
            };
            let metrics = names.iter().map(|name| cell(site.metrics.get(*name)));
            let row = [site.name.clone(), site.tasks.to_string()].into_iter().chain(metrics);
            table.add_row(row.chain([end]));
        }
        if let Some(round) = self.rounds.last().filter(|round| !round.metrics.is_empty()) {
            let metrics = names.iter().map(|name| cell(round.metrics.get(*name)));
            let row = ["mean of the last round".to_owned(), String::new()].into_iter().chain(metrics);
            table.add_row(row.chain([String::new()]));
        }
        for column in table.column_iter_mut().skip(1).take(names.len() + 1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}
