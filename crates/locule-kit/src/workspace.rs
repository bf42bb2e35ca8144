//! Where things lie in the workspace of a participant, which is the folder of its kit.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The folder of a kit, and the names in it.
///
/// # Source
/// nvflare 2.9.0, `nvflare.apis.workspace`; the `state` folder is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Workspace {
        Workspace { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What provisioning made: certificates, keys, `fed_*.json`.
    pub fn startup(&self) -> PathBuf {
        self.root.join("startup")
    }

    /// What the operator of this participant may change.
    pub fn local(&self) -> PathBuf {
        self.root.join("local")
    }

    /// Files that come and go by admin commands.
    pub fn transfer(&self) -> PathBuf {
        self.root.join("transfer")
    }

    /// Another root for the TLS of peers, if the kit has one.
    pub(crate) fn custom_ca(&self) -> Option<PathBuf> {
        Some(self.startup().join("customRootCA.pem")).filter(|file| file.exists())
    }

    /// What must outlive the process: journals and spools.
    pub fn state_dir(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Makes the state folder, open to its owner only, and gives its path.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn make_state_dir(&self) -> io::Result<PathBuf> {
        let folder = self.state_dir();
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(&folder)?;
        Ok(folder)
    }

    /// The run folder of a job.
    ///
    /// A job's identifier comes from a peer, so it is checked here, where it becomes a path.
    ///
    /// # Errors
    /// [`InvalidJobId`] if it is not a plain name, or is the name of a folder of the kit.
    pub fn run_dir(&self, job_id: &str) -> Result<RunDir, InvalidJobId> {
        let first = job_id.bytes().next().ok_or(InvalidJobId)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let taken =
            ["startup", "local", "transfer", "state"].iter().any(|name| job_id.eq_ignore_ascii_case(name));
        if taken || job_id.len() > 128 || !first.is_ascii_alphanumeric() || !job_id.bytes().all(plain) {
            return Err(InvalidJobId);
        }
        Ok(RunDir { path: self.root.join(job_id) })
    }
}

/// A job's identifier cannot be the name of a folder.
///
/// The identifier itself is left out, since a peer chose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a job's identifier must begin with a letter or digit, hold only letters, digits, `.`, `_` and `-`, \
     have at most 128 characters and not be the name of a folder of the kit"
)]
pub struct InvalidJobId;

/// The folder of one job in a workspace.
///
/// # Source
/// nvflare 2.9.0, `nvflare.apis.workspace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The unpacked app of a site, `app_<site>`; of the server with the name `server`.
    pub fn app(&self, participant: &str) -> PathBuf {
        self.path.join(format!("app_{participant}"))
    }

    /// Holds the name of the app.
    pub fn app_name_file(&self) -> PathBuf {
        self.path.join("fl_app.txt")
    }

    /// The job's meta.
    pub fn meta_file(&self) -> PathBuf {
        self.path.join("meta.json")
    }

    /// The job's log.
    pub fn log_file(&self) -> PathBuf {
        self.path.join("log.txt")
    }
}
