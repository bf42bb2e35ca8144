//! What a person sees while the demo runs: a line for each site, a bar over the rounds.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Loss and AUC of the global model on the held-out rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Score {
    pub(super) loss: f64,
    pub(super) auc: f64,
}

/// Progress on standard error; silent unless that is a terminal.
#[derive(Debug)]
pub(super) struct Screen {
    sites: BTreeMap<String, ProgressBar>,
    rounds: ProgressBar,
    all: MultiProgress,
}

impl Screen {
    /// A line for each of `sites` and a bar of `rounds`; nothing at all if `quiet`.
    pub(super) fn new(sites: &[String], rounds: u64, quiet: bool) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let all = MultiProgress::with_draw_target(target);
        let width = sites.iter().map(String::len).max().unwrap_or(0);
        let lines = sites.iter().map(|site| {
            let line = all.add(ProgressBar::new_spinner());
            line.set_style(style("{spinner:.cyan} {prefix:.bold}  {msg}"));
            line.set_prefix(format!("{site:width$}"));
            line.set_message("starting");
            line.enable_steady_tick(Duration::from_millis(120));
            (site.clone(), line)
        });
        let lines = lines.collect();
        let bar = all.add(ProgressBar::new(rounds));
        bar.set_style(style("  {bar:30.green/dim} {pos:>3}/{len} rounds  {msg}"));
        Self { sites: lines, rounds: bar, all }
    }

    /// What a site does now.
    pub(super) fn site(&self, site: &str, doing: &str) {
        if let Some(line) = self.sites.get(site) {
            line.set_message(doing.to_owned());
        }
    }

    /// A round is over.
    pub(super) fn round(&self, done: u64, score: Score) {
        self.rounds.set_position(done);
        self.rounds.set_message(format!("loss {:.4}  AUC {:.4}", score.loss, score.auc));
    }

    /// Leaves the last state of every line standing.
    pub(super) fn finish(&self) {
        for line in self.sites.values() {
            line.abandon();
        }
        self.rounds.abandon();
    }

    /// Removes every line.
    pub(super) fn clear(&self) {
        self.all.clear().ok();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant")
}
