//! The picture of a run: loss and AUC over the rounds.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::*;
use thiserror::Error;

const SIZE: (u32, u32) = (1120, 720);
/// Room for the names of the lines to the right of both charts, in pixels.
const NAMES: u32 = 270;
/// Between the names of two lines, in pixels.
const NAME_HEIGHT: i32 = 20;
const MARGIN: u32 = 12;
const Y_LABELS: u32 = 70;
const FONT: &str = "sans-serif";
const FEDERATED: RGBColor = RGBColor(0x1b, 0x5e, 0xa8);
const POOLED: RGBColor = RGBColor(0x2e, 0x7d, 0x32);
const ALONE: RGBColor = RGBColor(0xc6, 0x5d, 0x0e);
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const GRID: RGBColor = RGBColor(0xe2, 0xe2, 0xe2);

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
    let mut svg = String::new();
    draw(&mut svg, &rounds, pooled_auc, alone).map_err(|error| PlotError::Drawing(error.to_string()))?;
    fs::write(path, svg).map_err(|source| PlotError::File { path: path.to_owned(), source })
}

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn draw(svg: &mut String, rounds: &[RoundPoint], pooled_auc: f64, alone: &[(String, f64)]) -> Drawn {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.margin(10, 0, 0, 0).titled(
        "Federated averaging on the Wisconsin breast cancer data",
        (FONT, 26).into_font().color(&INK),
    )?;
    let (above, below) = root.split_vertically(390);
    draw_auc(&above, rounds, pooled_auc, alone)?;
    draw_loss(&below, rounds)?;
    root.present()
}

fn draw_auc(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    rounds: &[RoundPoint],
    pooled_auc: f64,
    alone: &[(String, f64)],
) -> Drawn {
    let x = round_axis(rounds);
    // A model before training (AUC one half) would press the rest into a line at the top; it stays outside.
    let trained = rounds.iter().filter(|point| point.round > 0).map(|point| point.auc);
    let lowest = trained.chain(alone.iter().map(|(_, auc)| *auc)).fold(pooled_auc, f64::min);
    let y = (lowest - (1.0 - lowest) * 0.15 - 0.001).max(0.0)..1.0 + (1.0 - lowest) * 0.03 + 0.0002;

    let mut chart = ChartBuilder::on(area)
        .margin(MARGIN)
        .margin_right(NAMES)
        .x_label_area_size(24)
        .y_label_area_size(Y_LABELS)
        .build_cartesian_2d(x.clone(), y.clone())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .label_style((FONT, 15).into_font().color(&INK))
        .axis_desc_style((FONT, 16).into_font().color(&INK))
        .x_labels(rounds.len().clamp(2, 11))
        .x_label_formatter(&whole_round)
        .y_label_formatter(&|auc| format!("{auc:.3}"))
        .y_desc("AUC, held-out patients")
        .draw()?;

    for (_, auc) in alone {
        chart.draw_series(DashedLineSeries::new(
            [(x.start, *auc), (x.end, *auc)],
            6,
            4,
            ALONE.stroke_width(2),
        ))?;
    }
    chart
        .draw_series(LineSeries::new([(x.start, pooled_auc), (x.end, pooled_auc)], POOLED.stroke_width(2)))?;
    let visible: Vec<(f64, f64)> = rounds
        .iter()
        .filter(|point| y.contains(&point.auc))
        .map(|point| (point.round as f64, point.auc))
        .collect();
    chart.draw_series(LineSeries::new(visible.iter().copied(), FEDERATED.stroke_width(3)))?;
    chart.draw_series(visible.into_iter().map(|at| Circle::new(at, 3, FEDERATED.filled())))?;

    let mut names = vec![(pooled_auc, format!("all data in one place: {pooled_auc:.4}"), POOLED)];
    names.extend(rounds.last().map(|last| (last.auc, format!("federated: {:.4}", last.auc), FEDERATED)));
    names.extend(alone.iter().map(|(site, auc)| (*auc, format!("{site} alone: {auc:.4}"), ALONE)));
    let origin = area.get_base_pixel();
    let lines: Vec<(Point, String, RGBColor)> = names
        .into_iter()
        .map(|(auc, name, color)| {
            let at = chart.backend_coord(&(x.end, auc));
            ((at.0 - origin.0, at.1 - origin.1), name, color)
        })
        .collect();
    name_lines(area, lines)
}

type Point = (i32, i32);

/// Writes a name at the right end of every line, as near to it as the other names allow.
fn name_lines(area: &DrawingArea<SVGBackend<'_>, Shift>, mut lines: Vec<(Point, String, RGBColor)>) -> Drawn {
    lines.sort_by_key(|(at, ..)| at.1);
    let mut next = i32::MIN;
    let mut heights: Vec<i32> = Vec::with_capacity(lines.len());
    for ((_, wanted), ..) in &lines {
        heights.push(next.max(*wanted));
        next = next.max(*wanted) + NAME_HEIGHT;
    }
    // What ran over the lower edge pushes the names above it up again.
    let mut limit = area.dim_in_pixel().1 as i32 - NAME_HEIGHT;
    for height in heights.iter_mut().rev() {
        *height = limit.min(*height);
        limit = *height - NAME_HEIGHT;
    }
    for ((at, name, color), height) in lines.into_iter().zip(heights) {
        area.draw(&PathElement::new([at, (at.0 + 14, height), (at.0 + 18, height)], color))?;
        area.draw(&Text::new(name, (at.0 + 24, height - 6), (FONT, 15).into_font().color(&color)))?;
    }
    Ok(())
}

fn draw_loss(area: &DrawingArea<SVGBackend<'_>, Shift>, rounds: &[RoundPoint]) -> Drawn {
    let highest = rounds.iter().map(|point| point.loss).fold(0.01, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(MARGIN)
        .margin_right(NAMES)
        .x_label_area_size(48)
        .y_label_area_size(Y_LABELS)
        .build_cartesian_2d(round_axis(rounds), 0.0..highest * 1.05)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .label_style((FONT, 15).into_font().color(&INK))
        .axis_desc_style((FONT, 16).into_font().color(&INK))
        .x_labels(rounds.len().clamp(2, 11))
        .x_label_formatter(&whole_round)
        .y_labels(6)
        .y_label_formatter(&|loss| format!("{loss:.2}"))
        .x_desc("round")
        .y_desc("log loss, nats")
        .draw()?;
    let line = rounds.iter().map(|point| (point.round as f64, point.loss));
    chart.draw_series(LineSeries::new(line.clone(), FEDERATED.stroke_width(3)))?;
    chart.draw_series(line.map(|at| Circle::new(at, 3, FEDERATED.filled())))?;
    Ok(())
}

/// From the first round to the last, never empty.
fn round_axis(rounds: &[RoundPoint]) -> Range<f64> {
    let first = rounds.iter().map(|point| point.round).min().unwrap_or(0) as f64;
    let last = rounds.iter().map(|point| point.round).max().unwrap_or(0) as f64;
    first..last.max(first + 1.0)
}

fn whole_round(round: &f64) -> String {
    if round.fract().abs() < 1e-9 { format!("{round:.0}") } else { String::new() }
}

/// No picture was drawn.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlotError {
    /// There is no round with finite numbers.
    #[error("no round to draw")]
    NoRounds,
    /// The drawing itself went wrong.
    #[error("cannot draw the rounds: {0}")]
    Drawing(String),
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
