//! `cargo xtask chaos`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use indicatif::ProgressBar;

/// Kill processes of a federation at random moments of one job, and compare its model with that of a quiet run.
#[derive(Parser)]
struct Arguments {
    /// How many processes are killed.
    #[arg(long, default_value_t = 100)]
    kills: u64,
    /// Decides which, and when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds in a row, from that one on.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Keep logs and models in this folder.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[expect(clippy::print_stdout, reason = "the outcome is what a person and a script want")]
fn main() -> anyhow::Result<ExitCode> {
    let Arguments { kills, seed, seeds, dir } = Arguments::parse();
    let temporary = tempfile::tempdir()?;
    let dir = dir.unwrap_or_else(|| temporary.path().to_owned());
    let quiet = chaos::leave_in_peace(kills, &dir.join("quiet"))?;
    println!("left in peace: {} rounds in {:.1} s", quiet.rounds, quiet.took.as_secs_f64());
    let mut all_identical = true;
    for seed in seed..seed.saturating_add(seeds) {
        let progress = ProgressBar::new_spinner();
        let tell = |line: String| {
            if progress.is_hidden() {
                println!("{line}");
            } else {
                progress.set_message(line);
                progress.tick();
            }
        };
        let folder = dir.join(format!("seed-{seed}"));
        let outcome = chaos::storm(chaos::Plan { kills, seed }, &quiet, &folder, tell)?;
        progress.finish_and_clear();
        for (sort, count) in &outcome.killed {
            println!("{count:>5} × {sort}");
        }
        let is_identical = outcome.model == quiet.model;
        all_identical &= is_identical;
        let verdict = if is_identical { "identical" } else { "not identical" };
        println!("seed {seed}: {kills} kills in {:.1} s, models {verdict}", outcome.took.as_secs_f64());
    }
    Ok(if all_identical { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
