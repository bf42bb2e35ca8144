//! `cargo xtask bench`: Locule beside its peers, in one run, and how the two compare.
//!
//! Both sides of a row take turns, so that a machine that others use as well slows both; what is told is the median
//! of each. Run again as `bench checker`, this program is a site's checker, as `locule checker` is.

mod compare;
mod peer;
mod processes;
mod review;
mod rounds;

use std::io;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use locule_checker::{Backend, serve};

use crate::compare::{Bench, noise};

/// Locule beside its peers, in one run.
#[derive(Parser)]
#[command(name = "bench", bin_name = "cargo xtask bench")]
struct Arguments {
    /// Run only rows whose name contains this text.
    filter: Option<String>,
    /// A few turns of each only.
    #[arg(long)]
    quick: bool,
    /// A table for people, or one line of JSON for each row.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Default, PartialEq, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

const BACKENDS: &[&dyn Backend] = &[
    &locule_policy_rego::RegoBackend,
    #[cfg(feature = "wasm")]
    &locule_policy_wasm::WasmBackend,
];

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "checker") {
        serve(arguments, io::stdin().lock(), io::stdout().lock(), BACKENDS)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Arguments { filter, quick, output } = Arguments::parse();
    let mut bench = Bench::new(filter, quick, output == Output::Json);
    review::rows(&mut bench)?;
    rounds::rows(&mut bench)?;
    bench.finish(noise());
    Ok(ExitCode::SUCCESS)
}
