//! Reads and checks startup kits, and knows where things lie in their workspaces.
//!
//! A kit is the folder that provisioning makes for one participant. [`SiteKit`], [`ServerKit`],
//! [`RelayKit`] and [`AdminKit`] each read one, merge its configuration files and refuse what must not run: a file
//! that is missing, a private key that others can read, a field that makes no sense. Every refusal
//! names the file and the remedy; mistakes in files are reported together, with line and column.
//! Kits made by nvflare 2.9.0 are read as they are. The crate writes nothing but the state folder,
//! opens no connection and does no cryptography: whether a certificate belongs to the root is asked
//! of a [`locule_identity::Verifier`] ([`KitFiles::identify`]).
//!
//! ```no_run
//! # fn run(verifier: &dyn locule_identity::Verifier) -> Result<(), locule_kit::KitError> {
//! use locule_identity::Usage;
//!
//! let kit = locule_kit::SiteKit::open("example_project/prod_00/site-1")?;
//! let site = kit.files.identify(verifier, Usage::Client, std::time::SystemTime::now())?;
//! // A kit does not say whose it is; the certificate does.
//! let message = format!("{} of {} dials {}", site.common_name, kit.project, kit.server);
//! # let _ = message; Ok(()) }
//! ```
//!
//! Start with [`SiteKit`], [`ServerKit`] and [`KitError`].
//!
//! # Source
//! nvflare 2.9.0, `nvflare.lighter.impl.static_file` and kits made by `nvflare provision`.

mod admin;
mod document;
mod fields;
mod files;
mod links;
mod older;
mod relay;
mod server;
mod site;
mod workspace;

pub use admin::{AdminKit, UidSource};
pub use document::{job_resources, privacy};
pub use files::KitFiles;
pub use links::{InternalListener, RelayLink};
pub use relay::RelayKit;
pub use server::ServerKit;
pub use site::{SiteKit, SiteTimeouts};
pub use workspace::{InvalidJobId, RunDir, Workspace};

use std::fmt;
use std::io;
use std::path::PathBuf;

use locule_config::Diagnostics;
use locule_identity::ChainError;

/// How links of a participant are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ConnectionSecurity {
    /// Both ends present certificates.
    #[default]
    Mtls,
    /// Only the server presents one.
    Tls,
    /// No TLS; peers prove who they are by message only.
    Clear,
}

impl ConnectionSecurity {
    /// The word for it in a kit.
    pub fn as_str(self) -> &'static str {
        match self {
            ConnectionSecurity::Mtls => "mtls",
            ConnectionSecurity::Tls => "tls",
            ConnectionSecurity::Clear => "clear",
        }
    }

    const ALL: [ConnectionSecurity; 3] =
        [ConnectionSecurity::Mtls, ConnectionSecurity::Tls, ConnectionSecurity::Clear];
}

/// Where to dial or listen; shown as `scheme://host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The carrier, such as `grpc`.
    pub scheme: String,
    /// A host name or an address; `0` to listen on all interfaces.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

/// Why a kit is not used. Each text names the file and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KitError {
    /// The folder is not the kit that was asked for.
    #[error("{} is not the startup kit of {wanted}: {found}", folder.display())]
    NotThisKit {
        /// The folder.
        folder: PathBuf,
        /// `a site`, `a server`, `a relay` or `an administrator`.
        wanted: &'static str,
        /// What it is instead, and what to do.
        found: String,
    },
    /// A file that every kit of this sort has is not there.
    #[error("{} is missing: copy the whole kit again, with its startup and local folders", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// The private key can be read or written by others than its owner.
    #[error("the private key {} is open to others (mode {mode:04o}): run `chmod 600 {}`", file.display(), file.display())]
    OpenKey {
        /// The key.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Anybody on this machine could change the file.
    #[error("{} can be changed by anybody on this machine (mode {mode:04o}): run `chmod o-w {}`", file.display(), file.display())]
    WritableByAnybody {
        /// The file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is there and cannot be read.
    #[error("cannot read {}: check that the user who runs this may read it", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A configuration file is not text.
    #[error("{} is not UTF-8 text: save it as UTF-8, or copy it again from the kit it came with", file.display())]
    NotText {
        /// The file.
        file: PathBuf,
    },
    /// Mistakes in the kit's configuration files, all of them, with their places.
    #[error("{}", configuration_text(folder, mistakes))]
    Configuration {
        /// The kit.
        folder: PathBuf,
        /// The mistakes; their files are named as seen from the kit.
        mistakes: Diagnostics,
    },
    /// The kit's own certificate is not accepted under the kit's root.
    #[error(
        "the certificate {} is not accepted under the root {}: take both from the same kit, or \
         provision again if they have expired",
        cert.display(), ca.display()
    )]
    Certificate {
        /// The certificate.
        cert: PathBuf,
        /// The root.
        ca: PathBuf,
        /// Why.
        source: ChainError,
    },
}

fn configuration_text(folder: &std::path::Path, mistakes: &Diagnostics) -> String {
    let count = match mistakes.len() {
        1 => "a mistake".to_owned(),
        many => format!("{many} mistakes"),
    };
    format!("{count} in the kit {}\n\n{mistakes}", folder.display())
}

/// Codes of mistakes in the files of a kit.
pub mod code {
    /// A field that has to be there is not.
    pub const MISSING_FIELD: &str = "E0601";
    /// A field has a value that it cannot have.
    pub const BAD_FIELD: &str = "E0602";
}
