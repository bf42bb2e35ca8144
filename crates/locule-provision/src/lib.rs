//! Makes the startup kits of a project: certificates, keys, configuration and scripts.
//!
//! [`provision`] takes a [`Project`], which is plain data, and writes one folder per participant in
//! the layout of nvflare 2.9.0; stock processes run from the kits as they are. Participants keep
//! their keys when a project is provisioned again, by this crate or by `nvflare provision`. A
//! [`ProjectFile`] is a project read from nvflare's own project file, `project.yml`. The crate runs
//! nothing, and none of the Python classes that a project file may name.
//!
//! ```
//! use locule_provision::{ProjectFile, provision};
//! use std::{path::Path, time::SystemTime};
//!
//! let text = "
//! api_version: 3
//! name: example_project
//! participants:
//!   - {name: server.example.org, type: server, org: university}
//!   - {name: hospital-1, type: client, org: hospital}
//!   - {name: lead@university.edu, type: admin, org: university, role: lead}
//! ";
//! let file = ProjectFile::parse("project.yml", text, Path::new("."))?;
//! # let out = tempfile::tempdir()?;
//! let kits = provision(&file.project, out.path(), SystemTime::now())?;
//! assert!(kits.site_dirs[0].ends_with("example_project/prod_00/hospital-1"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start with [`ProjectFile`], [`Project`] and [`provision`].
//!
//! # Source
//! nvflare 2.9.0, `nvflare.lighter.provision`, `nvflare.lighter.entity` and `nvflare.lighter.impl`:
//! `workspace`, `static_file`, `cert`.

mod fields;
mod file;
mod kit;
mod ledger;
mod project;
mod rules;
mod script;
mod topology;

pub use file::{ProjectFile, ReadError, code};
pub use project::{
    Admin, Capacity, ConnectTo, ConnectionSecurity, ListeningHost, Project, Relay, Runtime, Server, Site,
    Study, StudyMembers,
};
pub use rules::{Part, ProjectMistake};

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use locule_identity::ChainError;
use locule_identity_openssl::{IssueError, LoadError};

use crate::kit::KitWriter;
use crate::ledger::Ledger;

/// Where the kits of a project were put.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Provisioned {
    /// The folder of this round of provisioning, `<out>/<project>/prod_NN`.
    pub root: PathBuf,
    /// The server's kit.
    pub server_dir: PathBuf,
    /// The relays' kits, in the order of the project.
    pub relay_dirs: Vec<PathBuf>,
    /// The sites' kits, in the order of the project.
    pub site_dirs: Vec<PathBuf>,
    /// The administrators' kits, in the order of the project.
    pub admin_dirs: Vec<PathBuf>,
}

/// Why there are no kits; what was there before is untouched, and nothing is half made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// The project makes no sense; all of its mistakes.
    #[error("the project cannot be provisioned: {}", mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Project {
        /// The mistakes, at least one.
        mistakes: Vec<ProjectMistake>,
    },
    /// The certificates and keys kept from earlier rounds cannot be used.
    #[error("{} is not usable: restore it from a backup, or move it away and give every participant a new kit", file.display())]
    Ledger {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The project's root has expired or is not valid yet.
    #[error("the root in {} is out of its time: move the file away and give every participant a new kit", file.display())]
    RootExpired {
        /// The file with the root.
        file: PathBuf,
    },
    /// A certificate could not be made.
    #[error("no certificate for {participant}")]
    Issue {
        /// For whom.
        participant: String,
        /// Why.
        #[source]
        source: IssueError,
    },
    /// A certificate that was made just now is not accepted.
    #[error("the certificate of {participant} does not stand up")]
    Unacceptable {
        /// Whose.
        participant: String,
        /// Why.
        #[source]
        source: ChainError,
    },
    /// A `custom_ca_cert` cannot be read.
    #[error("cannot read the custom_ca_cert {}", file.display())]
    CustomCa {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The root that was made just now cannot be read back.
    #[error("the root does not stand up")]
    Root(#[from] LoadError),
    /// The disk did not do it.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Makes the kits of a project in a new folder `<out>/<project>/prod_NN`, with `NN` counting up.
///
/// Certificates and keys are kept in `<out>/<project>/state/cert.json`, the root's private key among
/// them: whoever can read that file is the project. Provisioned again, participants keep what they
/// have, as long as it is valid at `now` and still says what the project says. Private keys get mode
/// 0600. The folder appears when it is complete, or not at all.
///
/// # Errors
/// [`ProvisionError`]; of mistakes in the project all are reported.
pub fn provision(project: &Project, out: &Path, now: SystemTime) -> Result<Provisioned, ProvisionError> {
    let mistakes = project.mistakes();
    if !mistakes.is_empty() {
        return Err(ProvisionError::Project { mistakes });
    }
    let home = out.join(&project.name);
    make_folder(&home)?;
    let mut ledger = Ledger::open(&home.join("state"), project, now)?;
    let credentials = ledger.credentials(project)?;
    ledger.save()?;

    let root = next_round(&home)?;
    let partial = home.join(".prod.partial");
    remove_if_any(&partial)?;
    make_folder(&partial)?;
    let writer = KitWriter { project, root_pem: ledger.root_pem(), credentials: &credentials };
    writer.server(&partial.join(&project.server.name))?;
    for relay in &project.relays {
        writer.relay(relay, &partial.join(&relay.name))?;
    }
    for site in &project.sites {
        writer.site(site, &partial.join(&site.name))?;
    }
    for admin in &project.admins {
        writer.admin(admin, &partial.join(&admin.name))?;
    }
    fs::rename(&partial, &root).map_err(|source| write_error(&root, source))?;
    Ok(Provisioned {
        server_dir: root.join(&project.server.name),
        relay_dirs: project.relays.iter().map(|relay| root.join(&relay.name)).collect(),
        site_dirs: project.sites.iter().map(|site| root.join(&site.name)).collect(),
        admin_dirs: project.admins.iter().map(|admin| root.join(&admin.name)).collect(),
        root,
    })
}

/// The folder after the last `prod_NN` that exists.
fn next_round(home: &Path) -> Result<PathBuf, ProvisionError> {
    let entries = fs::read_dir(home).map_err(|source| write_error(home, source))?;
    let last = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("prod_")?.parse::<u32>().ok())
        .max();
    let next = last.map_or(0, |last| last.saturating_add(1));
    Ok(home.join(format!("prod_{next:02}")))
}

fn remove_if_any(folder: &Path) -> Result<(), ProvisionError> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(write_error(folder, source)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn make_folder(folder: &Path) -> Result<(), ProvisionError> {
    fs::create_dir_all(folder).map_err(|source| write_error(folder, source))
}

/// Writes a new file with exactly this mode, however the process was set up.
fn write_file(file: &Path, bytes: &[u8], mode: u32) -> Result<(), ProvisionError> {
    let write = || {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        let mut open = options.open(file)?;
        #[cfg(unix)]
        open.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        io::Write::write_all(&mut open, bytes)?;
        open.sync_all()
    };
    write().map_err(|source| write_error(file, source))
}

fn write_error(path: &Path, source: io::Error) -> ProvisionError {
    ProvisionError::Write { path: path.to_owned(), source }
}
