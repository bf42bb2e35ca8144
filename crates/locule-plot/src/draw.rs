//! The drawing itself.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::{Line, Panel, Style};

const WIDTH: u32 = 1120;
/// Of the title, and of each panel, in pixels.
const TITLE_HEIGHT: u32 = 50;
const PANEL_HEIGHT: u32 = 335;
/// Room for the names of the lines to the right of the charts, in pixels.
const NAMES: u32 = 270;
/// Between the names of two lines, in pixels.
const NAME_HEIGHT: i32 = 20;
const MARGIN: u32 = 12;
const Y_LABELS: u32 = 70;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const GRID: RGBColor = RGBColor(0xe2, 0xe2, 0xe2);

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub(crate) fn svg(title: &str, panels: &[&Panel]) -> Result<String, DrawingAreaErrorKind<std::io::Error>> {
    let height = TITLE_HEIGHT + PANEL_HEIGHT.saturating_mul(u32::try_from(panels.len()).unwrap_or(u32::MAX));
    let mut svg = String::new();
    draw(&mut svg, (WIDTH, height), title, panels)?;
    Ok(svg)
}

fn draw(svg: &mut String, size: (u32, u32), title: &str, panels: &[&Panel]) -> Drawn {
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.margin(10, 0, 0, 0).titled(title, (FONT, 26).into_font().color(&INK))?;
    let rounds = rounds(panels);
    for (area, panel) in root.split_evenly((panels.len(), 1)).iter().zip(panels) {
        draw_panel(area, panel, rounds.clone())?;
    }
    root.present()
}

fn draw_panel(area: &Area<'_>, panel: &Panel, x: Range<f64>) -> Drawn {
    let y = panel.range.clone().unwrap_or_else(|| range(&panel.lines));
    let mut chart = ChartBuilder::on(area)
        .margin(MARGIN)
        .margin_right(NAMES)
        .x_label_area_size(44)
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
        .x_labels(11)
        .x_label_formatter(&whole_round)
        .y_labels(7)
        .y_label_formatter(&|number| format!("{number:.*}", panel.digits))
        .x_desc("round")
        .y_desc(panel.label.as_str())
        .draw()?;
    let mut names = Vec::new();
    let origin = area.get_base_pixel();
    for line in &panel.lines {
        let is_shown =
            |(_, number): &(f64, f64)| number.is_finite() && y.start <= *number && *number <= y.end;
        let points: Vec<(f64, f64)> =
            line.points.iter().map(|(round, number)| (*round as f64, *number)).filter(is_shown).collect();
        let color = color(line.style);
        match line.style {
            Style::Main => {
                chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(3)))?;
                chart.draw_series(points.iter().map(|at| Circle::new(*at, 3, color.filled())))?;
            }
            Style::Reference => {
                chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?;
            }
            Style::Dashed => {
                chart.draw_series(DashedLineSeries::new(points, 6, 4, color.stroke_width(2)))?;
            }
            Style::Faint => {
                chart.draw_series(LineSeries::new(points, color.stroke_width(1)))?;
            }
        }
        if let (Some(last), false) = (line.last(), line.name.is_empty()) {
            let at = chart.backend_coord(&(x.end, last.clamp(y.start, y.end)));
            names.push(((at.0 - origin.0, at.1 - origin.1), line.name.clone(), color));
        }
    }
    name_lines(area, names)
}

fn color(style: Style) -> RGBColor {
    match style {
        Style::Main => RGBColor(0x1b, 0x5e, 0xa8),
        Style::Reference => RGBColor(0x2e, 0x7d, 0x32),
        Style::Dashed => RGBColor(0xc6, 0x5d, 0x0e),
        Style::Faint => RGBColor(0xc9, 0xd3, 0xde),
    }
}

type Point = (i32, i32);

/// Writes a name at the right end of every line, as near to it as the other names allow.
fn name_lines(area: &Area<'_>, mut lines: Vec<(Point, String, RGBColor)>) -> Drawn {
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

/// From the first round to the last, never empty.
fn rounds(panels: &[&Panel]) -> Range<f64> {
    let all = || panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.points);
    let first = all().map(|(round, _)| *round).min().unwrap_or(0) as f64;
    let last = all().map(|(round, _)| *round).max().unwrap_or(0) as f64;
    first..last.max(first + 1.0)
}

/// All finite numbers, with a little room around them, never empty.
fn range(lines: &[Line]) -> Range<f64> {
    const MOST: f64 = 1e300; // of which a difference is finite
    let all =
        || lines.iter().flat_map(|line| &line.points).map(|(_, number)| *number).filter(|n| n.is_finite());
    let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    let room = ((most - least) * 0.05).max(most.abs() * 0.01).max(0.01);
    let from = if least >= 0.0 && least < (most - least) { 0.0 } else { least - room };
    from.max(-MOST)..(most + room).min(MOST)
}

fn whole_round(round: &f64) -> String {
    if round.fract().abs() < 1e-9 { format!("{round:.0}") } else { String::new() }
}
