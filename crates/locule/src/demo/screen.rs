//! What a person sees while the demo runs: a line for each site, a bar over the rounds.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Loss and AUC of the global model on the held-out rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Score {
    pub(super) loss: f64,
    pub(super) auc: f64,
}

/// Progress on standard error: lines that move on a terminal, plain lines elsewhere.
#[derive(Debug)]
pub(super) struct Screen {
    sites: BTreeMap<String, ProgressBar>,
    rounds: ProgressBar,
    all: MultiProgress,
    is_plain: bool,
}

impl Screen {
    /// A line for each of `sites` and a bar of `rounds`.
    pub(super) fn new(sites: &[String], rounds: u64) -> Self {
        let is_plain = !std::io::stderr().is_terminal();
        let target = if is_plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
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
        bar.tick();
        Self { sites: lines, rounds: bar, all, is_plain }
    }

    /// What a site does now, for as long as it does it.
    pub(super) fn site(&self, site: &str, doing: &str) {
        if let Some(line) = self.sites.get(site) {
            line.set_message(doing.to_owned());
        }
    }

    /// Something that is worth a line of its own where lines do not move.
    pub(super) fn note(&self, site: &str, happened: &str) {
        self.site(site, happened);
        self.plain(&format!("{site} {happened}"));
    }

    /// A round is over.
    pub(super) fn round(&self, done: u64, rounds: u64, score: Score) {
        let Score { loss, auc } = score;
        self.rounds.set_position(done);
        self.rounds.set_message(format!("loss {loss:.4}  AUC {auc:.4}"));
        self.plain(&format!("round {done}/{rounds}  loss {loss:.4}  AUC {auc:.4}"));
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

    fn plain(&self, line: &str) {
        if self.is_plain {
            // Who reads may have gone; the demo goes on.
            writeln!(std::io::stderr(), "{line}").ok();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant")
}
