//! One word per habit of the project; each prints the plain commands that it runs.

mod codegen;
mod dist;
mod layers;
mod shell;
mod tidy;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Project habits, one word each.
#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    habit: Habit,
}

#[derive(Subcommand)]
enum Habit {
    /// Run every test of the workspace, doc tests included, and then `interop`, if there is a Python.
    Test {
        /// Also run the tests that are too long for every day.
        #[arg(long)]
        slow: bool,
        /// Run only tests whose name contains this text.
        filter: Option<String>,
    },
    /// Locule and real nvflare processes, against each other; makes its own Python environment.
    Interop {
        /// Run only cases whose row in the table contains this text.
        filter: Option<String>,
        /// Also run the cases that are too long for every day.
        #[arg(long)]
        slow: bool,
        /// `text` for a table, `json` for one line for each case.
        #[arg(long, default_value = "text")]
        output: String,
    },
    /// Damaged input for every decoder that a peer can reach; keeps what it finds.
    Fuzz {
        /// Run only this one of the targets.
        target: Option<String>,
        /// How long each runs, in minutes.
        #[arg(long, default_value = "1")]
        minutes: String,
        /// Draws the inputs.
        #[arg(long, default_value = "1")]
        seed: String,
    },
    /// Locule beside its peers, in one run of a release build; makes the environment of the peers itself.
    Bench {
        /// Run only rows whose name contains this text.
        filter: Option<String>,
        /// A few turns of each only.
        #[arg(long)]
        quick: bool,
        /// `text` for a table, `json` for one line for each row.
        #[arg(long, default_value = "text")]
        output: String,
    },
    /// Kill processes of a federation at random moments of one job, and compare its model with that of a quiet run.
    Chaos {
        /// How many processes are killed.
        #[arg(long, default_value = "100")]
        kills: String,
        /// Decides which, and when.
        #[arg(long, default_value = "1")]
        seed: String,
        /// How many seeds in a row, from that one on.
        #[arg(long, default_value = "1")]
        seeds: String,
    },
    /// What a change must pass: format, lints, tests.
    Ci,
    /// Check that every crate depends on lower layers only.
    Layers,
    /// Check what no compiler checks: crate docs, private generated code, paths, names of libraries.
    Tidy,
    /// Generate the code of `proto/` into the crate that uses it.
    Codegen {
        /// Compare instead of writing; fail if the committed code is stale.
        #[arg(long)]
        check: bool,
    },
    /// Make a throw-away federation: certificates and startup kits.
    Pki {
        /// Folder to write into.
        dir: PathBuf,
        /// How many sites.
        #[arg(long, default_value_t = 3)]
        sites: u32,
    },
    /// Build the binary with the chosen transports.
    Dist {
        /// Transports to compile in, separated by commas.
        #[arg(long, value_delimiter = ',', default_value = "grpc,mem,tcp,ws")]
        transports: Vec<String>,
        /// Leave the demo and its data out.
        #[arg(long)]
        without_demo: bool,
        /// Cargo profile.
        #[arg(long, default_value = "release")]
        profile: String,
        /// Where to put the binary.
        #[arg(long, default_value = "target/dist")]
        out: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().habit {
        Habit::Test { slow, filter } => test(slow, filter.as_deref()),
        Habit::Interop { filter, slow, output } => interop(filter.as_deref(), slow, &output),
        Habit::Fuzz { target, minutes, seed } => {
            let options =
                ["run", "--quiet", "--package", "fuzz", "--", "--minutes", &minutes, "--seed", &seed];
            shell::cargo(&options.into_iter().chain(target.as_deref()).collect::<Vec<_>>())
        }
        Habit::Bench { filter, quick, output } => {
            let mut arguments =
                vec!["run", "--quiet", "--release", "--package", "bench", "--features", "wasm", "--"];
            arguments.extend(["--output", &output]);
            arguments.extend(quick.then_some("--quick"));
            arguments.extend(filter.as_deref());
            shell::cargo(&arguments)
        }
        Habit::Chaos { kills, seed, seeds } => {
            let options = ["--kills", &kills, "--seed", &seed, "--seeds", &seeds];
            shell::cargo(&[&["run", "--quiet", "--package", "chaos", "--"], &options[..]].concat())
        }
        Habit::Ci => ci(),
        Habit::Layers => layers::run(),
        Habit::Tidy => tidy::run(),
        Habit::Codegen { check } => codegen::run(check),
        Habit::Pki { dir, sites } => pki(&dir, sites),
        Habit::Dist { transports, without_demo, profile, out } => {
            dist::run(&transports, without_demo, &profile, &out).map(|_| ())
        }
    }
}

/// What brings the runtime of checkers in WebAssembly into tests.
const WASM: &str = "locule-policy-wasm/runtime,checkers/wasm";

fn test(slow: bool, filter: Option<&str>) -> anyhow::Result<()> {
    let mut arguments = vec!["test", "--workspace"];
    arguments.extend(filter);
    if slow {
        arguments.extend(["--", "--include-ignored"]);
    }
    shell::cargo(&arguments)?;
    if filter.is_none() {
        // No other crate's feature: the runtime of WebAssembly is long to compile, and nothing else needs it.
        shell::cargo(&["test", "-p", "locule-policy-wasm", "-p", "checkers", "--features", WASM])?;
    }
    match filter {
        Some(_) => Ok(()),
        None if std::env::var_os("CI").is_none() && !shell::runs("python3", &["--version"]) => {
            shell::show("interop: skipped, there is no `python3`");
            Ok(())
        }
        None => interop(None, slow, "text"),
    }
}

fn interop(filter: Option<&str>, slow: bool, output: &str) -> anyhow::Result<()> {
    let mut arguments = vec!["run", "--quiet", "--package", "interop", "--", "--output", output];
    arguments.extend(slow.then_some("--slow"));
    arguments.extend(filter);
    shell::cargo(&arguments)
}

fn ci() -> anyhow::Result<()> {
    shell::cargo(&["fmt", "--all", "--check"])?;
    shell::cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])?;
    test(false, None)
}

fn pki(dir: &std::path::Path, sites: u32) -> anyhow::Result<()> {
    let (dir, sites) = (dir.display().to_string(), sites.to_string());
    shell::cargo(&["run", "--package", "locule", "--", "provision", "--sites", &sites, "--dir", &dir])
}
