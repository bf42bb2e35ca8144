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
    let mut all_identical = true;
    for seed in seed..seed.saturating_add(seeds) {
        let temporary = tempfile::tempdir()?;
        let folder = dir.as_ref().map_or(temporary.path().to_owned(), |dir| dir.join(format!("seed-{seed}")));
        let progress = ProgressBar::new_spinner();
        let tell = |line: String| {
            if progress.is_hidden() {
                println!("{line}");
            } else {
                progress.set_message(line);
                progress.tick();
            }
        };
        let outcome = chaos::run(chaos::Plan { kills, seed }, &folder, tell)?;
        progress.finish_and_clear();
        for (sort, count) in &outcome.killed {
            println!("{count:>5} × {sort}");
        }
        let [quiet, stormy] = outcome.took.map(|took| took.as_secs_f64());
        println!("{:>5} rounds: {quiet:.1} s in peace, {stormy:.1} s with kills", outcome.rounds);
        let verdict = if outcome.is_identical() { "identical" } else { "not identical" };
        all_identical &= outcome.is_identical();
        println!("seed {seed}: {kills} kills, models {verdict}");
    }
    Ok(if all_identical { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
