//! The picture of a run: loss and AUC over the rounds.

use std::fs;
use std::path::{Path, PathBuf};

use locule_plot::{Line, Panel, Style};
use thiserror::Error;

/// How the global model did after one round, on the held-out rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoundPoint {
    /// Counted from 1; 0 is the model before the first round.
    pub round: u64,
    /// Mean log loss in nats.
    pub loss: f64,
    /// Area under the ROC curve, 0 to 1.
    pub auc: f64,
}

impl RoundPoint {
    /// The model before the first round: all zeros, which is as good as a coin.
    pub const UNTRAINED: RoundPoint = RoundPoint { round: 0, loss: std::f64::consts::LN_2, auc: 0.5 };
}

/// Draws the rounds into an SVG file: AUC above, with lines for the pooled model and for every site by
/// itself, and log loss below.
///
/// # Errors
/// [`PlotError`] when there is no round to draw or the file cannot be written.
pub fn rounds_svg(
    path: &Path,
    rounds: &[RoundPoint],
    pooled_auc: f64,
    alone: &[(String, f64)],
) -> Result<(), PlotError> {
    let rounds: Vec<RoundPoint> =
        rounds.iter().copied().filter(|point| point.loss.is_finite() && point.auc.is_finite()).collect();
    if rounds.is_empty() {
        return Err(PlotError::NoRounds);
    }
    let title = "Federated averaging on the Wisconsin breast cancer data";
    let svg = locule_plot::svg(title, &panels(&rounds, pooled_auc, alone))?;
    fs::write(path, svg).map_err(|source| PlotError::File { path: path.to_owned(), source })
}

fn panels(rounds: &[RoundPoint], pooled_auc: f64, alone: &[(String, f64)]) -> [Panel; 2] {
    let first = rounds.iter().map(|point| point.round).min().unwrap_or(0);
    let last = rounds.iter().map(|point| point.round).max().unwrap_or(0).max(first + 1);
    // A model before training (AUC one half) would press the rest into a line at the top; it stays outside.
    let trained = rounds.iter().filter(|point| point.round > 0).map(|point| point.auc);
    let lowest = trained.chain(alone.iter().map(|(_, auc)| *auc)).fold(pooled_auc, f64::min);
    let range = (lowest - (1.0 - lowest) * 0.15 - 0.001).max(0.0)..1.0 + (1.0 - lowest) * 0.03 + 0.0002;

    let level = |name, style, auc| Line::new(name, style, [(first, auc), (last, auc)]);
    let mut auc = Panel { range: Some(range), ..Panel::new("AUC, held-out patients") };
    auc.lines.extend(
        alone.iter().map(|(site, auc)| level(format!("{site} alone: {auc:.4}"), Style::Dashed, *auc)),
    );
    auc.lines.push(level(format!("all data in one place: {pooled_auc:.4}"), Style::Reference, pooled_auc));
    let federated = rounds.last().map_or_else(String::new, |last| format!("federated: {:.4}", last.auc));
    let of_rounds = |number: fn(&RoundPoint) -> f64| rounds.iter().map(move |p| (p.round, number(p)));
    auc.lines.push(Line::new(federated, Style::Main, of_rounds(|point| point.auc)));

    let highest = rounds.iter().map(|point| point.loss).fold(0.01, f64::max);
    let mut loss = Panel { digits: 2, range: Some(0.0..highest * 1.05), ..Panel::new("log loss, nats") };
    loss.lines.push(Line::new("", Style::Main, of_rounds(|point| point.loss)));
    [auc, loss]
}

/// No picture was drawn.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlotError {
    /// There is no round with finite numbers.
    #[error("no round to draw")]
    NoRounds,
    /// The drawing itself went wrong.
    #[error(transparent)]
    Drawing(#[from] locule_plot::PlotError),
    /// The file was not written.
    #[error("cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds() -> Vec<RoundPoint> {
        (0..=20)
            .map(|round| {
                let left = 0.7_f64.powi(round as i32);
                RoundPoint {
                    round,
                    loss: 0.08 + 0.61 * left,
                    auc: if round == 0 { 0.5 } else { 0.996 - 0.015 * left },
                }
            })
            .collect()
    }

    #[test]
    fn the_picture_names_what_it_shows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rounds.svg");
        let alone =
            [("site-1".to_owned(), 0.9953), ("site-2".to_owned(), 0.9921), ("site-3 <&>".to_owned(), 0.939)];
        rounds_svg(&path, &rounds(), 0.997, &alone).unwrap();
        let svg = fs::read_to_string(&path).unwrap();
        for text in [
            "Federated averaging on the Wisconsin breast cancer data",
            "AUC, held-out patients",
            "log loss, nats",
            "round",
            "federated: 0.9960",
            "all data in one place: 0.9970",
            "site-3 &lt;&amp;&gt; alone: 0.9390",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        assert_eq!(svg.matches("<circle").count(), 20 + 21, "the untrained model's AUC lies outside");
    }

    #[test]
    fn nothing_is_not_drawn() {
        let path = Path::new("never-written.svg");
        assert!(matches!(rounds_svg(path, &[], 0.9, &[]), Err(PlotError::NoRounds)));
        let broken = [RoundPoint { round: 1, loss: f64::NAN, auc: 0.9 }];
        assert!(matches!(rounds_svg(path, &broken, 0.9, &[]), Err(PlotError::NoRounds)));
        assert!(!path.exists());
    }

    #[test]
    fn one_round_is_enough_and_many_are_not_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rounds.svg");
        rounds_svg(&path, &[RoundPoint { round: 1, loss: 0.0, auc: 1.0 }], 1.0, &[]).unwrap();
        let many: Vec<_> = (1..2_000).map(|round| RoundPoint { round, loss: 0.1, auc: 0.99 }).collect();
        rounds_svg(&path, &many, 0.99, &[("a".to_owned(), 0.0)]).unwrap();
    }
}
