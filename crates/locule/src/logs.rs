//! Where logs go, and how much of them: `RUST_LOG`, or else the number of `-v`.

use std::io::IsTerminal as _;
#[cfg(feature = "simulate")]
use std::{fs::File, path::Path, sync::Mutex};

#[cfg(feature = "simulate")]
use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

#[cfg(feature = "simulate")]
use crate::exit::{Code, Failure, OrExit as _};

/// What is logged without a `-v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Default {
    /// What a person would tell a colleague; for a server or a site.
    Info,
    /// What went wrong.
    Warn,
}

/// Logs to standard error from now on.
pub(crate) fn to_stderr(default: Default, verbose: u8) {
    let ansi = std::io::stderr().is_terminal();
    let logs = tracing_subscriber::fmt().with_env_filter(filter(default, verbose)).with_ansi(ansi);
    logs.with_writer(std::io::stderr).init();
}

/// Logs to a new file from now on.
#[cfg(feature = "simulate")]
pub(crate) fn to_file(path: &Path, default: Default, verbose: u8) -> Result<(), Failure> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()));
    let file = file.or_exit(Code::CannotCreate)?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter(default, verbose)).with_ansi(false);
    logs.with_writer(Mutex::new(file)).init();
    Ok(())
}

/// Other people's crates say only what went wrong: theirs is per frame what ours is per request.
fn filter(default: Default, verbose: u8) -> EnvFilter {
    let level = match (verbose, default) {
        (0, Default::Info) | (1, _) => "info",
        (0, Default::Warn) => "warn",
        (2, _) => "debug",
        (3.., _) => "trace",
    };
    let by_count = || EnvFilter::new(format!("warn,locule={level}"));
    EnvFilter::try_from_default_env().unwrap_or_else(|_| by_count())
}
