//! The picture of a simulation: every metric over the rounds, of each site and in the mean.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use locule_plot::{Line, Panel, Style};

use super::course::{Round, means};
use crate::exit::{Code, Failure, OrExit as _};
use crate::folder::cannot_write;

/// More metrics than this are not drawn.
const PANELS: usize = 6;
/// Up to so many sites have their name beside their line.
const NAMED: usize = 6;

/// Draws it into the folder `dir`; nothing if nothing was measured.
pub(super) fn draw(dir: &Path, job: &str, rounds: &[Round]) -> Result<Option<PathBuf>, Failure> {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in rounds.iter().flat_map(|round| means(&round.sites)) {
        if !names.contains(&name) && names.len() < PANELS {
            names.push(name);
        }
    }
    let panels: Vec<Panel> = names.iter().map(|name| panel(name, rounds)).collect();
    let Ok(svg) = locule_plot::svg(&format!("{job}: {} rounds", rounds.len()), &panels) else {
        return Ok(None);
    };
    let path = dir.join("rounds.svg");
    fs::write(&path, svg).with_context(|| cannot_write(&path)).or_exit(Code::CannotCreate)?;
    Ok(Some(path))
}

/// One metric: a pale line for each site, and over them the mean.
fn panel(metric: &str, rounds: &[Round]) -> Panel {
    let mut sites: Vec<&String> =
        rounds.iter().flat_map(|round| &round.sites).map(|(site, _)| site).collect();
    sites.sort_unstable();
    sites.dedup();
    let value =
        |metrics: &[(String, f64)]| metrics.iter().find(|(name, _)| name == metric).map(|(_, value)| *value);
    let of_site = |site: &String| {
        let points = rounds.iter().filter_map(|round| {
            let (_, metrics) = round.sites.iter().find(|(name, _)| name == site)?;
            Some((round.round, value(metrics)?))
        });
        let name = if sites.len() <= NAMED { site.clone() } else { String::new() };
        Line::new(name, Style::Faint, points)
    };
    let mut panel = Panel::new(metric);
    panel.lines.extend(sites.iter().map(|site| of_site(site)));
    let mut mean =
        Line::new("", Style::Main, rounds.iter().filter_map(|r| Some((r.round, value(&means(&r.sites))?))));
    mean.name =
        mean.last().map_or_else(String::new, |last| format!("mean of {} sites: {last:.4}", sites.len()));
    panel.lines.push(mean);
    panel
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(round: u64, losses: &[f64]) -> Round {
        let site = |(index, loss): (usize, &f64)| (format!("site-{index}"), vec![("loss".to_owned(), *loss)]);
        Round { round, sites: losses.iter().enumerate().map(site).collect() }
    }

    #[test]
    fn sites_and_their_mean_are_drawn_over_the_rounds() {
        let dir = tempfile::tempdir().unwrap();
        let rounds = [round(1, &[1.0, 3.0]), round(2, &[0.5, 0.75])];
        let path = draw(dir.path(), "a job", &rounds).unwrap().unwrap();
        let svg = fs::read_to_string(path).unwrap();
        for text in ["a job: 2 rounds", "loss", "site-0", "site-1", "mean of 2 sites: 0.6250"] {
            assert!(svg.contains(text), "{text} is not in {svg}");
        }
    }

    #[test]
    fn where_nothing_was_measured_there_is_no_picture() {
        let dir = tempfile::tempdir().unwrap();
        let silent = Round { round: 1, sites: vec![("site-1".to_owned(), Vec::new())] };
        assert!(draw(dir.path(), "a job", &[silent]).unwrap().is_none());
        assert!(draw(dir.path(), "a job", &[]).unwrap().is_none());
    }
}
