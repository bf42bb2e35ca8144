//! Two that take turns, and what is told of them.

#![expect(clippy::print_stdout, reason = "its results are what this program is for")]

use std::hint::black_box;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

/// Turns of each side.
const TURNS: usize = 31;
/// The same, where a glance is enough.
const QUICK_TURNS: usize = 5;

/// The same of what takes minutes.
const FEW_TURNS: usize = 3;

/// One line of the results; a ratio above 1 says that Locule is better.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    name: String,
    ours: f64,
    peer: f64,
    peer_name: String,
    unit: &'static str,
    ratio: f64,
    goal: f64,
    /// The quartiles of ours.
    quartiles: [f64; 2],
}

/// Which rows are wanted, and those that there are.
pub(crate) struct Bench {
    filter: Option<String>,
    turns: usize,
    json: bool,
    rows: Vec<Row>,
}

impl Bench {
    pub(crate) fn new(filter: Option<String>, quick: bool, json: bool) -> Self {
        Self { filter, turns: if quick { QUICK_TURNS } else { TURNS }, json, rows: Vec::new() }
    }

    /// Whether the row of this name is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.filter.as_deref().is_none_or(|filter| name.contains(filter))
    }

    /// Has both sides take turns after one that does not count; each says how long it took.
    pub(crate) fn take_turns(
        &self,
        mut ours: impl FnMut() -> anyhow::Result<Duration>,
        mut peer: impl FnMut() -> anyhow::Result<Duration>,
    ) -> anyhow::Result<[Samples; 2]> {
        let mut samples = [Samples::default(), Samples::default()];
        ours()?;
        peer()?;
        for turn in 0..self.turns {
            if std::io::stderr().is_terminal() {
                eprint_progress(turn + 1, self.turns);
            }
            samples[0].0.push(ours()?);
            samples[1].0.push(peer()?);
        }
        Ok(samples)
    }

    /// How often something takes its turn that takes minutes.
    pub(crate) fn few_turns(&self) -> usize {
        if self.turns == QUICK_TURNS { 1 } else { FEW_TURNS }
    }

    /// Notes a row of figures of which less is better: ours, and the peer's.
    pub(crate) fn figures(
        &mut self,
        name: &str,
        [ours, theirs]: [Figures; 2],
        peer: &str,
        unit: &'static str,
        goal: f64,
    ) {
        self.note(Row {
            name: name.to_owned(),
            ours: ours.quantile(1, 2),
            peer: theirs.quantile(1, 2),
            peer_name: peer.to_owned(),
            unit,
            ratio: theirs.quantile(1, 2) / ours.quantile(1, 2),
            goal,
            quartiles: [ours.quantile(1, 4), ours.quantile(3, 4)],
        });
    }

    fn note(&mut self, row: Row) {
        if self.json {
            println!("{}", serde_json::json!(row));
        }
        self.rows.push(row);
    }

    /// Notes a row of durations.
    pub(crate) fn durations(&mut self, name: &str, ours: &Samples, peer: &str, theirs: Duration, goal: f64) {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        self.note(Row {
            name: name.to_owned(),
            ours: ms(ours.median()),
            peer: ms(theirs),
            peer_name: peer.to_owned(),
            unit: "ms",
            ratio: theirs.as_secs_f64() / ours.median().as_secs_f64(),
            goal,
            quartiles: [ms(ours.quantile(1, 4)), ms(ours.quantile(3, 4))],
        });
    }

    /// Tells of all rows, and how much the machine's speed changed meanwhile.
    pub(crate) fn finish(self, noise: f64) {
        if self.json {
            return;
        }
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["", "Locule", "quartiles", "peer", "", "unit", "ratio", "goal"]);
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        for row in &self.rows {
            table.add_row([
                Cell::new(&row.name),
                right(format!("{:.2}", row.ours)),
                right(format!("{:.2}–{:.2}", row.quartiles[0], row.quartiles[1])),
                right(format!("{:.2}", row.peer)),
                Cell::new(&row.peer_name),
                Cell::new(row.unit),
                right(format!("{:.2}", row.ratio)),
                right(format!("{:.2}", row.goal)),
            ]);
        }
        println!("{table}");
        println!("the same arithmetic took between its quartiles {:.0} % more or less", noise * 100.0);
    }
}

/// How long one side took, each time.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn median(&self) -> Duration {
        self.quantile(1, 2)
    }

    fn quantile(&self, part: usize, of: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted.get((sorted.len().saturating_sub(1) * part).div_ceil(of)).copied().unwrap_or_default()
    }
}

/// What one side came to, each time.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    pub(crate) fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        Self(figures)
    }

    fn quantile(&self, part: usize, of: usize) -> f64 {
        self.0.get((self.0.len().saturating_sub(1) * part).div_ceil(of)).copied().unwrap_or_default()
    }
}

#[expect(clippy::print_stderr, reason = "progress is for whoever watches")]
fn eprint_progress(turn: usize, turns: usize) {
    eprint!("\rturn {turn} of {turns}{}", if turn == turns { "\r\x1b[K" } else { "" });
}

/// How far apart the quartiles of the same arithmetic lie, as a part of its median: what else the machine does.
pub(crate) fn noise() -> f64 {
    let mut samples = Samples::default();
    for _ in 0..TURNS {
        let begin = Instant::now();
        let sum = (0..20_000_000_u64).fold(0, |sum: u64, n| black_box(sum.wrapping_mul(31).wrapping_add(n)));
        black_box(sum);
        samples.0.push(begin.elapsed());
    }
    let spread = samples.quantile(3, 4) - samples.quantile(1, 4);
    spread.as_secs_f64() / samples.median().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_sampled() {
        let samples = Samples((1..=5).rev().map(Duration::from_secs).collect());
        assert_eq!(samples.median(), Duration::from_secs(3));
        assert_eq!([samples.quantile(1, 4), samples.quantile(3, 4)], [2, 4].map(Duration::from_secs));
        assert_eq!(Samples::default().median(), Duration::ZERO);
    }
}
