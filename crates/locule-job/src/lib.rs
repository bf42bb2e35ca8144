//! Job folders: what a job says about itself, its signatures, and its way through zip archives.
//!
//! A job is a folder with a `meta.json` (or `.conf`, `.yml`, …) and one folder per app. [`JobFolder::read`] checks it the way
//! a server does before it takes a job; [`sign_folder`] and [`verify_folder`] put and check the
//! signatures by which sites know who wrote an app; [`pack_app`], [`pack_job`] and [`unpack`] carry
//! folders over the wire. Archives and folders come from peers: everything is bounded, links are
//! refused, nothing is written outside the target and nothing is left half written. [`Retention`] says
//! which folders go when jobs are over. What an app's configuration means is not known here; see
//! `locule-component`.
//!
//! ```
//! # let scratch = tempfile::tempdir()?; let here = scratch.path();
//! # std::fs::create_dir_all(here.join("hello/app/config"))?;
//! # std::fs::write(here.join("hello/app/config/config_fed_server.json"), "{}")?;
//! # std::fs::write(here.join("hello/app/config/config_fed_client.json"), "{}")?;
//! # std::fs::write(here.join("hello/meta.json"), r#"{"name": "hello", "deploy_map": {"app": ["@ALL"]}}"#)?;
//! use locule_job::{JobFolder, Limits, pack_app, unpack};
//!
//! let job = JobFolder::read(here.join("hello"))?;
//! let app = job.meta.app_of("site-1").expect("the app is for all");
//! let archive = pack_app(&job.app_dir(app))?;
//! unpack(&archive, &here.join("app_site-1"), &Limits::default())?;
//! assert!(here.join("app_site-1/config/config_fed_client.json").exists());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start with [`JobFolder`], [`JobMeta`] and [`unpack`].

mod archive;
mod folder;
mod meta;
mod retention;
mod signature;
mod tree;

pub use archive::{
    Limits, PackError, Packing, UnpackError, Unpacked, pack_app, pack_file, pack_job, unpack, unpack_file,
};
pub use folder::{JobError, JobFolder, has_custom_code};
pub use meta::{DeployTo, JobMeta};
pub use retention::{Remains, Retention};
pub use signature::{
    CERTIFICATE_FILE, FolderSignError, SIGNATURE_FILE, VerifyError, is_signed, sign_folder, verify_folder,
};
pub use tree::TreeError;

/// Codes of mistakes in a job's meta.
pub mod code {
    /// The deploy map is missing or makes no sense.
    pub const DEPLOY_MAP: &str = "E0501";
    /// An app of the deploy map is missing or not complete.
    pub const APP: &str = "E0502";
    /// The required numbers or names of clients make no sense.
    pub const CLIENTS: &str = "E0503";
    /// What the job wants of a site's resources or launcher is not well formed.
    pub const RESOURCES: &str = "E0504";
    /// Another field has a value that it cannot have.
    pub const FIELD: &str = "E0505";
}

/// A name that a peer chose, as it may appear in a message: escaped, and cut at 96 characters.
fn shown(name: &str) -> String {
    let name = if name.is_empty() { "." } else { name };
    let mut text: String = name.chars().take(96).flat_map(char::escape_debug).collect();
    if name.chars().nth(96).is_some() {
        text.push('…');
    }
    text
}
