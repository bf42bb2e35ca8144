//! Files of a run, under names that a job chose.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Component as Part, Path, PathBuf};

use locule_component::{BuildCx, BuildError};

use crate::wrong;

/// A path below the folder of a run: relative, and without a way out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunFile(PathBuf);

impl RunFile {
    /// `name` in `folder`; `argument` is the argument that gives the name.
    pub(crate) fn new(folder: &str, name: &str, argument: &str) -> Result<RunFile, BuildError> {
        let path = Path::new(folder).join(name);
        let inside = path.components().all(|part| matches!(part, Part::Normal(_) | Part::CurDir));
        if inside && !name.is_empty() && Path::new(name).file_name().is_some() && !name.ends_with('/') {
            return Ok(RunFile(path));
        }
        Err(wrong(
            argument,
            format!(
                "`{}` is not a file inside the folder of the run",
                path.display().to_string().escape_debug()
            ),
        ))
    }

    /// Where it lies.
    pub(crate) fn in_run(&self, run_dir: &Path) -> PathBuf {
        run_dir.join(&self.0)
    }

    /// Replaces the file; at no moment it holds half of the bytes. Folders are made.
    pub(crate) fn write(&self, run_dir: &Path, bytes: &[u8]) -> Result<PathBuf, (PathBuf, io::Error)> {
        let path = self.in_run(run_dir);
        match replace(&path, bytes) {
            Ok(()) => Ok(path),
            Err(error) => Err((path, error)),
        }
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// The folder of the run that a component is built for: the one that the app lies in.
pub(crate) fn run_dir(cx: &BuildCx<'_>) -> PathBuf {
    cx.app_dir.parent().unwrap_or(cx.app_dir).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_run() {
        assert_eq!(
            RunFile::new("models", "server.npy", "model_name").unwrap().0,
            Path::new("models/server.npy")
        );
        for (folder, name) in
            [("..", "a"), ("models", "../../a"), ("/etc", "a"), ("models", "/etc/a"), ("a", "")]
        {
            let error = RunFile::new(folder, name, "model_name").unwrap_err().to_string();
            assert!(error.ends_with("is not a file inside the folder of the run"), "{error}");
        }
    }
}
