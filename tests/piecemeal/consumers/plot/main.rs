//! Draws the loss of three rounds.

use std::error::Error;

use locule_plot::{Line, Panel, Style, svg};

fn main() -> Result<(), Box<dyn Error>> {
    let mut loss = Panel::new("loss, nats");
    loss.lines.push(Line::new("site-1", Style::Faint, [(1, 0.8), (2, 0.5), (3, 0.4)]));
    loss.lines.push(Line::new("mean", Style::Main, [(1, 0.7), (2, 0.4), (3, 0.3)]));
    let picture = svg("Three rounds", &[loss])?;
    assert!(picture.contains("loss, nats") && picture.contains("mean"));
    Ok(())
}
