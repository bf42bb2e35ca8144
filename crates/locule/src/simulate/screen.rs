//! What a person sees while a simulation runs.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use locule_site::Turns;

/// Progress on standard error: bars on a terminal, plain lines elsewhere.
#[derive(Debug)]
pub(super) struct Screen {
    all: MultiProgress,
    sites: ProgressBar,
    rounds: ProgressBar,
    is_plain: bool,
}

impl Screen {
    /// For so many sites, which take `turns` at working.
    pub(super) fn new(sites: usize, turns: Turns) -> Self {
        let is_plain = !std::io::stderr().is_terminal();
        let target = if is_plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let all = MultiProgress::with_draw_target(target);
        let line = all.add(ProgressBar::new(sites.try_into().unwrap_or(u64::MAX)));
        let template = "{spinner:.cyan} {pos:>3}/{len} sites joined  {work}";
        line.set_style(style(template).with_key(
            "work",
            move |_: &ProgressState, w: &mut dyn std::fmt::Write| {
                write!(w, "{} at work, {} tasks done", turns.working(), turns.done()).ok();
            },
        ));
        line.enable_steady_tick(Duration::from_millis(120));
        let rounds = all.add(ProgressBar::new(0));
        rounds.set_style(style("  {bar:30.green/dim} {pos:>3}/{len} rounds  {msg}"));
        Self { all, sites: line, rounds, is_plain }
    }

    /// A site is there.
    pub(super) fn joined(&self) {
        self.sites.inc(1);
    }

    /// A round begins, counted from 1.
    pub(super) fn round_begins(&self, round: u64, rounds: u64) {
        self.rounds.set_length(rounds);
        self.rounds.set_position(round.saturating_sub(1));
        self.plain(&format!("round {round}/{rounds} began"));
    }

    /// A round is over, with the means of what its sites measured.
    pub(super) fn round_ends(&self, round: u64, rounds: u64, means: &[(String, f64)]) {
        let text: String = means.iter().map(|(name, value)| format!("  {name} {value:.4}")).collect();
        self.rounds.set_position(round);
        self.rounds.set_message(text.trim_start().to_owned());
        self.plain(&format!("round {round}/{rounds}{text}"));
    }

    /// Something that a person should read now.
    pub(super) fn note(&self, text: &str) {
        self.all.println(text).ok();
        self.plain(text);
    }

    /// Leaves the last state standing.
    pub(super) fn finish(&self) {
        self.sites.abandon();
        self.rounds.abandon();
    }

    fn plain(&self, line: &str) {
        if self.is_plain {
            // Who reads may have gone; the simulation goes on.
            writeln!(std::io::stderr(), "{line}").ok();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant")
}
