//! Runs commands from the root of the workspace and shows them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies below the root").to_path_buf()
}

/// Shows and runs `cargo` with these arguments; fails when it fails.
pub(crate) fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    show(&format!("+ cargo {}", arguments.join(" ")));
    let status = Command::new(program()).args(arguments).current_dir(root()).status().context("run cargo")?;
    if !status.success() {
        bail!("`cargo {}` ended with {status}", arguments.join(" "));
    }
    Ok(())
}

/// What `cargo` with these arguments writes to its standard output.
pub(crate) fn cargo_output(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program()).args(arguments).current_dir(root()).output().context("run cargo")?;
    if !output.status.success() {
        bail!("`cargo {}`: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Whether there is such a program, and it ends well.
pub(crate) fn runs(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

/// Tells a person what happens.
#[expect(clippy::print_stderr, reason = "a habit shows the plain command that it runs")]
pub(crate) fn show(text: &str) {
    eprintln!("{text}");
}

fn program() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}
