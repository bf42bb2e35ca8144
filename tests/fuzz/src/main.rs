//! Runs targets for as long as one likes, and keeps what it finds; `cargo xtask fuzz` starts it.
#![expect(clippy::print_stdout, reason = "it reports to a person")]

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use comfy_table::Table;
use fuzz::{Campaign, Counting, Report, keep, target, targets};

#[global_allocator]
static COUNTING: Counting = Counting;

/// Damaged input for every decoder that a peer can reach.
#[derive(Parser)]
struct Arguments {
    /// Run only these targets.
    targets: Vec<String>,
    /// How long each runs, in minutes.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Draws the inputs; the same seed draws the same ones.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let chosen = match &arguments.targets[..] {
        [] => targets().iter().collect(),
        names => names
            .iter()
            .map(|name| {
                let known: Vec<_> = targets().iter().map(|target| target.name).collect();
                target(name).with_context(|| format!("no target {name:?}; there are {}", known.join(", ")))
            })
            .collect::<anyhow::Result<Vec<_>>>()?,
    };
    // the report says what a panic said
    std::panic::set_hook(Box::new(|_| {}));
    let time = Duration::try_from_secs_f64(arguments.minutes * 60.0)?;
    let mut table = Table::new();
    table.set_header(["target", "inputs", "outcomes", "bytes held", "allocations", "findings"]);
    let mut findings = 0;
    for target in chosen {
        println!("{}: {}", target.name, target.about);
        let mut told = Instant::now();
        let mut follow = |report: &Report| {
            if told.elapsed() >= Duration::from_secs(10) {
                told = Instant::now();
                println!("{}: {} inputs, {} findings", target.name, report.inputs, report.findings.len());
            }
        };
        let report = Campaign::new(target, arguments.seed).time(time).run(&mut follow);
        for finding in &report.findings {
            let file = keep(target.name, &finding.input).context("keep an input")?;
            let hex: String = finding.input.iter().take(4096).map(|byte| format!("{byte:02x}")).collect();
            println!("{}, seed {}: {}", target.name, arguments.seed, finding.what);
            println!("  {} bytes, kept as {}\n  {hex}", finding.input.len(), file.display());
        }
        findings += report.findings.len();
        table.add_row([
            target.name.to_owned(),
            report.inputs.to_string(),
            report.outcomes.to_string(),
            report.peak.to_string(),
            report.allocations.to_string(),
            report.findings.len().to_string(),
        ]);
    }
    println!("{table}");
    if findings > 0 {
        bail!("{findings} findings");
    }
    Ok(())
}
