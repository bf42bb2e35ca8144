//! A job's folder as its submitter made it.

use std::io;
use std::path::{Path, PathBuf};

use locule_config::{Diagnostic, Diagnostics, Document};
use locule_config_file::{ConfigFile, ReadConfigError};

use crate::{DeployTo, JobMeta, TreeError, code, tree};

/// A job that could be submitted: its meta makes sense and its apps are there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JobFolder {
    /// The folder.
    pub path: PathBuf,
    /// The folder's name, by which mistakes call the job.
    pub folder_name: String,
    /// What the job says about itself.
    pub meta: JobMeta,
    /// Whether an app brings code of its own, by its content.
    pub byoc: bool,
}

/// Why a folder is not a job.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The folder cannot be taken as it is; a symbolic link is such a reason.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// There is no meta.
    #[error("{} has no meta.json (nor meta.conf, meta.yml): give the folder of a job, which holds it and its apps", folder.display())]
    NoMeta {
        /// The folder.
        folder: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Mistakes in the meta or in what it refers to, all of them.
    #[error("{0}")]
    Mistakes(Diagnostics),
}

impl JobFolder {
    /// Reads and checks the job in `folder`.
    ///
    /// # Errors
    /// [`JobError`]; of mistakes in the meta all are reported, with the texts of the stock server.
    pub fn read(folder: impl AsRef<Path>) -> Result<JobFolder, JobError> {
        let path = folder.as_ref().to_owned();
        let resolved = path.canonicalize().map_err(|source| read_error(&path, source))?;
        let folder_name = resolved.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tree::walk(&path)?;
        let document = read_meta(&path)?;
        let mut mistakes = Diagnostics::new();
        let meta = match JobMeta::from_document(&document, &folder_name) {
            Ok(meta) => meta,
            Err(mistakes) => return Err(JobError::Mistakes(mistakes)),
        };
        for (app, to) in &meta.deploy_map {
            if let Some(message) = app_mistake(&path.join(app), app, to, &folder_name) {
                let place = document.root().find(&["deploy_map", app]).unwrap_or(document.root());
                mistakes.push(Diagnostic::at_key(place, code::APP, message));
            }
        }
        if !mistakes.is_empty() {
            return Err(JobError::Mistakes(mistakes));
        }
        let byoc = meta.deploy_map.iter().any(|(app, _)| has_custom_code(&path.join(app)));
        Ok(JobFolder { path, folder_name, meta, byoc })
    }

    /// The folder of one of the job's apps.
    pub fn app_dir(&self, app: &str) -> PathBuf {
        self.path.join(app)
    }
}

/// Whether an app brings code of its own: it has an entry `custom`.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.fed.app.default_app_validator`.
pub fn has_custom_code(app: &Path) -> bool {
    app.join("custom").symlink_metadata().is_ok()
}

fn read_meta(folder: &Path) -> Result<Document, JobError> {
    let found = ConfigFile::find_in(folder, "meta").map_err(|source| read_error(folder, source))?;
    let file = found.ok_or_else(|| JobError::NoMeta { folder: folder.to_owned() })?;
    file.read().map_err(|error| match error {
        ReadConfigError::Read { file, source } => JobError::Read { file, source },
        ReadConfigError::Mistakes(mistakes) => JobError::Mistakes(mistakes),
        error => read_error(&file.path, io::Error::other(error)),
    })
}

fn app_mistake(app_dir: &Path, app: &str, to: &DeployTo, job: &str) -> Option<String> {
    let config = app_dir.join("config");
    let has = |name: &str| matches!(ConfigFile::find_below(&[&config], name), Ok(Some(_)));
    if !config.is_dir() {
        Some(format!("App '{app}' in deploy_map doesn't exist for job {job}"))
    } else if to.has_server() && !has("config_fed_server") {
        Some(format!("App '{app}' will be deployed to server but server config is missing"))
    } else if to.has_sites() && !has("config_fed_client") {
        Some(format!("App '{app}' will be deployed to client but client config is missing"))
    } else {
        None
    }
}

fn read_error(file: &Path, source: io::Error) -> JobError {
    JobError::Read { file: file.to_owned(), source }
}
