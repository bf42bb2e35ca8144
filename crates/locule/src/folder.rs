//! The folder that a demo or a simulation works in.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context as _, anyhow};

use crate::exit::{Code, Failure, OrExit as _};

/// A folder that was asked for, or a fresh one that goes away with this value unless it is kept.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    fresh: Option<tempfile::TempDir>,
}

impl Folder {
    /// The folder that was asked for, under the name `option`, if nothing is in it; or a fresh one.
    pub(crate) fn empty(wanted: Option<&Path>, option: &str, prefix: &str) -> Result<Self, Failure> {
        let Some(dir) = wanted else {
            let fresh = tempfile::Builder::new().prefix(prefix).tempdir();
            let fresh = fresh.context("cannot make a temporary folder").or_exit(Code::CannotCreate)?;
            return Ok(Self { path: fresh.path().to_owned(), fresh: Some(fresh) });
        };
        let is_empty = match fs::read_dir(dir) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => {
                let error = anyhow!(error).context(format!("{} cannot be used as a folder", dir.display()));
                return Err(Failure::new(Code::CannotCreate, error));
            }
        };
        if !is_empty {
            let error =
                anyhow!("{} is not empty: give a new or an empty folder with {option}", dir.display());
            return Err(Failure::new(Code::CannotCreate, error));
        }
        fs::create_dir_all(dir).with_context(|| cannot_write(dir)).or_exit(Code::CannotCreate)?;
        let path = dir.canonicalize().with_context(|| cannot_write(dir)).or_exit(Code::CannotCreate)?;
        Ok(Self { path, fresh: None })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it where it is, for a person to look into.
    pub(crate) fn keep(&mut self) {
        if let Some(fresh) = self.fresh.take() {
            self.path = fresh.keep();
        }
    }
}

/// What to say when a file or folder cannot be written.
pub(crate) fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}
