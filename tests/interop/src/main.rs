//! `cargo xtask interop`: the cases, a table, and an exit code.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use interop::{Options, Run};

/// Locule and real nvflare processes, against each other.
#[derive(Parser)]
#[command(name = "interop", bin_name = "cargo xtask interop")]
struct Arguments {
    /// Run only cases whose row in the table contains this text.
    filter: Option<String>,
    /// Also run the cases that are too long for every day.
    #[arg(long)]
    slow: bool,
    /// A table for people, or one line of JSON for each case.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Arguments { filter, slow, output } = Arguments::parse();
    let run = Run::new(Options { filter, slow, json: matches!(output, Output::Json) })?;
    interop::all(&run).await?;
    Ok(if run.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
