//! Runs Locule and real, unmodified nvflare processes against each other.
//!
//! A [`Run`] makes its own virtual environment with the nvflare that pip has, provisions with nvflare's own
//! tool, starts real Python processes on loopback, and notes one row for each case. [`all`] is the list of
//! cases: each group sets something up once and runs many checks in it, since a Python process takes a
//! second to start. What was started ends with the run, whatever happens.
//!
//! | group | what runs |
//! |---|---|
//! | `cells`, `streams` | single cells, linked: messages, blobs, arrays by reference |
//! | `federation` | servers and sites of either side, the same job in each fleet |
//! | `relays` | the same with a relay between, which is killed and comes back |
//! | `admin` | every call of the FLARE API at a server of ours |
//! | `kits` | kits of either provisioner, started as a person starts them |
//! | `marks` | what we say beyond the stock protocol |
//!
//! Every row says its version of nvflare: 2.9.0, and some of the same with those before it (`OLDER` in `cells`).
//!
//! A new case is a line in the list of its group; a new carrier is a line in `CARRIERS` in `cells`, and lines in
//! the lists of crews in `fleets`.

mod arrays;
mod cells;
mod fleets;
mod ours;
mod payload;
mod process;
mod project;
mod python;
mod run;
mod venv;

use std::path::PathBuf;

pub use run::{Options, Outcome, Row, Run};

/// The Python of an environment with nvflare 2.9.0, which is made if it is not there yet.
///
/// # Errors
/// When it cannot be made: without Python, or without a package index.
pub fn python_with_nvflare() -> anyhow::Result<PathBuf> {
    let python = venv::make(&run::kept()?.join(format!("venv-{}", cells::VERSION)), cells::VERSION)?;
    Ok(python.program().to_owned())
}

/// Runs every case that the options of `run` let through.
///
/// # Errors
/// When there is nothing to run them with, like no Python; a case that fails is a row of the run instead.
pub async fn all(run: &Run) -> anyhow::Result<()> {
    run::progress("+ cargo build --package locule --features wasm");
    e2e::binary_with_wasm(); // no case is to wait for it
    cells::run(run).await?;
    fleets::run(run).await
}
