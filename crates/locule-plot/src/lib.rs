//! Draws what was measured over the rounds of a run, as SVG.
//!
//! A picture is a title and [`Panel`]s above each other, which share the axis of the rounds; a panel is a few named
//! [`Line`]s. The crate writes no file and knows nothing of models: what to draw is for the caller to say.
//!
//! ```
//! use locule_plot::{Line, Panel, Style, svg};
//!
//! let mut panel = Panel::new("loss");
//! panel.lines.push(Line::new("mean", Style::Main, [(1, 0.7), (2, 0.4), (3, 0.3)]));
//! let picture = svg("Three rounds", &[panel])?;
//! assert!(picture.starts_with("<svg"));
//! # Ok::<(), locule_plot::PlotError>(())
//! ```
//!
//! Start with [`svg`] and [`Panel`].

mod draw;

use std::ops::Range;

use thiserror::Error;

/// Measured numbers of one kind over the rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// What is measured, with its unit.
    pub label: String,
    /// Digits behind the point on the axis.
    pub digits: usize,
    /// Numbers from here to there are shown; all if absent.
    pub range: Option<Range<f64>>,
    /// What is drawn, the later over the earlier.
    pub lines: Vec<Line>,
}

impl Panel {
    /// An empty panel that shows all of the lines that it will have.
    pub fn new(label: impl Into<String>) -> Panel {
        Panel { label: label.into(), digits: 3, range: None, lines: Vec::new() }
    }
}

/// One number over the rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// What stands at its right end; nothing if empty.
    pub name: String,
    /// How it looks.
    pub style: Style,
    /// Rounds, counted from 1, and numbers; those that are not finite are left out.
    pub points: Vec<(u64, f64)>,
}

impl Line {
    /// A line through these points.
    pub fn new(name: impl Into<String>, style: Style, points: impl IntoIterator<Item = (u64, f64)>) -> Line {
        Line { name: name.into(), style, points: points.into_iter().collect() }
    }

    /// The number of the last round that has one.
    pub fn last(&self) -> Option<f64> {
        self.points.iter().rev().map(|(_, number)| *number).find(|number| number.is_finite())
    }
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Style {
    /// What the picture is about: thick, with a mark at every round.
    Main,
    /// What it is compared with.
    Reference,
    /// One of several to compare with: dashed.
    Dashed,
    /// One of many: thin and pale.
    Faint,
}

/// Draws panels above each other; they share the axis of the rounds.
///
/// # Errors
/// [`PlotError`] when there is no finite number to draw.
pub fn svg(title: &str, panels: &[Panel]) -> Result<String, PlotError> {
    let is_drawable = |panel: &Panel| panel.lines.iter().any(|line| line.last().is_some());
    let drawable: Vec<&Panel> = panels.iter().filter(|panel| is_drawable(panel)).collect();
    if drawable.is_empty() {
        return Err(PlotError::NoRounds);
    }
    draw::svg(title, &drawable).map_err(|error| PlotError::Drawing(error.to_string()))
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(label: &str, lines: Vec<Line>) -> Panel {
        Panel { lines, ..Panel::new(label) }
    }

    #[test]
    fn the_picture_names_what_it_shows() {
        let loss = Line::new("mean: 0.3", Style::Main, [(1, 0.7), (2, 0.4), (3, 0.3)]);
        let faint = (0..100).map(|site| Line::new("", Style::Faint, [(1, f64::from(site)), (2, 0.1)]));
        let auc = Line::new("site-3 <&>", Style::Dashed, [(1, 0.5), (3, 0.5)]);
        let lines = faint.chain([loss]).collect();
        let svg = svg("A run", &[panel("loss, nats", lines), panel("AUC", vec![auc])]).unwrap();
        for text in ["A run", "loss, nats", "mean: 0.3", "AUC", "site-3 &lt;&amp;&gt;", "round"] {
            assert!(svg.contains(text), "{text} is not in {svg}");
        }
        assert_eq!(svg.matches("<circle").count(), 3);
    }

    #[test]
    fn what_lies_outside_of_the_range_is_not_drawn() {
        let line = Line::new("", Style::Main, [(0, 0.5), (1, 0.99), (2, 0.995)]);
        let panel = Panel { range: Some(0.9..1.0), ..panel("AUC", vec![line]) };
        assert_eq!(svg("A run", &[panel]).unwrap().matches("<circle").count(), 2);
    }

    #[test]
    fn nothing_is_not_drawn() {
        assert!(matches!(svg("A run", &[]), Err(PlotError::NoRounds)));
        let broken = panel("loss", vec![Line::new("", Style::Main, [(1, f64::NAN)])]);
        assert!(matches!(svg("A run", &[broken]), Err(PlotError::NoRounds)));
    }

    #[test]
    fn one_round_is_enough_and_many_are_not_too_many() {
        let one = |points: Vec<(u64, f64)>| {
            svg("A run", &[panel("loss", vec![Line::new("x", Style::Main, points)])])
        };
        assert!(one(vec![(1, 0.0)]).is_ok());
        assert!(one((1..2_000).map(|round| (round, 0.1)).collect()).is_ok());
        assert!(one(vec![(1, 1e300), (2, -1e300)]).is_ok());
    }
}
