//! Virtual environments with a version of nvflare, made once.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::cells::VERSION;
use crate::python::Python;
use crate::run::progress;

/// Written last, with what was installed: an environment without it is one that was interrupted.
const MARKER: &str = "complete";
/// Beside nvflare itself: what its numpy workflows import.
const BESIDE: &[&str] = &["numpy"];
/// The same for the newest version, of which more recipes are run.
const BESIDE_NEWEST: &[&str] = &["numpy", "scikit-learn", "tensorboard"];

/// The environment in `folder`, made if it is not there yet.
pub(crate) fn make(folder: &Path, version: &str) -> anyhow::Result<Python> {
    let python = Python::new(folder.join("bin/python"));
    let lock = File::create(folder.with_extension("lock")).context("make a lock")?;
    lock.lock().context("wait for another run that makes the environment")?;
    let beside = if version == VERSION { BESIDE_NEWEST } else { BESIDE };
    let wanted = format!("nvflare=={version} {}", beside.join(" "));
    if std::fs::read_to_string(folder.join(MARKER)).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    progress(&format!("+ python3 -m venv {}", folder.display()));
    let venv = Command::new("python3").args(["-m", "venv"]).arg(folder).stdin(Stdio::null()).output();
    let venv = venv.context("there is no `python3`: install Python 3.10 or later and put it on the PATH")?;
    if !venv.status.success() {
        bail!(
            "`python3 -m venv` failed: install what it needs (on Debian and Ubuntu the package `python3-venv`)\n{}",
            String::from_utf8_lossy(if venv.stderr.is_empty() { &venv.stdout } else { &venv.stderr })
        );
    }
    progress(&format!("+ pip install {wanted}"));
    let pip = Command::new(python.program())
        .args(["-m", "pip", "install", "--quiet"])
        .args(wanted.split(' '))
        .stdin(Stdio::null())
        .output();
    let pip = pip.context("run pip of the new environment")?;
    if !pip.status.success() {
        bail!(
            "`pip install {wanted}` failed: it needs a package index, or PIP_FIND_LINKS and PIP_NO_INDEX for a \
             folder of wheels\n{}",
            String::from_utf8_lossy(&pip.stderr)
        );
    }
    std::fs::write(folder.join(MARKER), &wanted).context("mark the environment as complete")?;
    Ok(python)
}
