//! Takes a job folder in: checks it, stores the server's half, packs what the sites will get.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use locule_fobs::Map;
use locule_identity::Identity;
use locule_job::{
    DeployTo, JobError, JobFolder, JobMeta, Limits, PackError, UnpackError, VerifyError, is_signed, pack_app,
    unpack, verify_folder,
};
use locule_journal::AppendError;
use serde_json::{Value, json};

use crate::book::{Entry, seconds};
use crate::orders::to_map;
use crate::server::Shared;

/// A job that was taken in: everything that its life needs.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) job_id: String,
    pub(crate) meta: JobMeta,
    /// The meta as it is stored and deployed, without `job_clients`.
    pub(crate) document: Value,
    pub(crate) run_dir: PathBuf,
    /// Packed apps by name.
    pub(crate) apps: BTreeMap<String, Bytes>,
    pub(crate) submitter: Submitter,
}

/// Who signed a job.
#[derive(Debug, Clone, Default)]
pub(crate) struct Submitter {
    pub(crate) name: String,
    pub(crate) org: String,
    pub(crate) role: String,
}

impl From<Identity> for Submitter {
    fn from(identity: Identity) -> Self {
        let Identity { common_name, organization, role, .. } = identity;
        Self { name: common_name, org: organization.unwrap_or_default(), role: role.unwrap_or_default() }
    }
}

impl Intake {
    /// Checks a job folder and stores it under `job_id`. Blocking.
    pub(crate) fn take(shared: &Shared, job_id: &str, folder: &Path) -> Result<Self, SubmitError> {
        let job = JobFolder::read(folder)?;
        let submitter = signer_of(shared, folder)?;
        let Some(server_app) = job.meta.app_of("server") else { return Err(SubmitError::NoServerApp) };
        let mut apps = BTreeMap::new();
        for (app, _) in &job.meta.deploy_map {
            apps.insert(app.clone(), Bytes::from(pack_app(&job.app_dir(app))?));
        }
        let run_dir = shared.kit.run_dir(job_id).map_err(|_| SubmitError::JobId)?.path().to_owned();
        let document = document(&job, job_id, &submitter);
        let stored = store(&run_dir, &apps[server_app], server_app, &document);
        let entry = Entry::Submitted {
            job: job_id.to_owned(),
            name: job.meta.name.clone(),
            time: seconds(SystemTime::now()),
        };
        let noted = stored.and_then(|()| shared.book.write(entry).map_err(SubmitError::Journal));
        if let Err(error) = noted {
            fs::remove_dir_all(&run_dir).ok();
            return Err(error);
        }
        let (job_id, meta) = (job_id.to_owned(), job.meta);
        Ok(Self { job_id, meta, document, run_dir, apps, submitter })
    }

    /// The app that is meant for this site.
    pub(crate) fn app_of(&self, site: &str) -> Option<&str> {
        self.meta.app_of(site)
    }

    /// What the job needs of this site.
    pub(crate) fn resources(&self, site: &str) -> Map {
        self.meta.resource_spec.get(site).map(to_map).unwrap_or_default()
    }

    /// Whether these sites are as many as must take part, and all that must.
    pub(crate) fn is_enough<'a>(&self, sites: impl IntoIterator<Item = &'a String>) -> bool {
        let sites: BTreeSet<&String> = sites.into_iter().collect();
        sites.len() >= self.needed() && self.meta.mandatory_clients.iter().all(|site| sites.contains(site))
    }

    /// How many sites must take part.
    pub(crate) fn needed(&self) -> usize {
        let listed = self.meta.clients().map_or(1, |clients| clients.len());
        self.meta.min_clients.unwrap_or(listed).max(1)
    }

    /// The sites that it names, unless it is for all.
    pub(crate) fn listed(&self) -> Option<Vec<String>> {
        let all = self.meta.deploy_map.iter().any(|(_, to)| *to == DeployTo::All);
        let clients = self.meta.clients().filter(|_| !all)?;
        Some(clients.into_iter().map(str::to_owned).collect())
    }
}

fn signer_of(shared: &Shared, folder: &Path) -> Result<Submitter, SubmitError> {
    if !is_signed(folder) && !shared.settings.require_signed_jobs {
        return Ok(Submitter::default());
    }
    let signers = verify_folder(folder, &*shared.verifier, SystemTime::now())?;
    if let Some(other) = signers.iter().find(|signer| !signer.is_admin()) {
        return Err(SubmitError::NotAdministrator { signer: other.common_name.clone() });
    }
    Ok(signers.into_iter().next().map(Submitter::from).unwrap_or_default())
}

fn document(job: &JobFolder, job_id: &str, submitter: &Submitter) -> Value {
    let mut document = job.meta.to_json(job.byoc);
    if let Some(fields) = document.as_object_mut() {
        fields.insert("job_id".into(), json!(job_id));
        fields.insert("job_folder_name".into(), json!(job.folder_name));
        fields.insert("submitter_name".into(), json!(submitter.name));
        fields.insert("submitter_org".into(), json!(submitter.org));
        fields.insert("submitter_role".into(), json!(submitter.role));
        fields.insert("submit_time".into(), json!(seconds(SystemTime::now())));
        fields.insert("status".into(), json!("SUBMITTED"));
    }
    document
}

fn store(run_dir: &Path, app: &[u8], app_name: &str, document: &Value) -> Result<(), SubmitError> {
    let write = |source| SubmitError::Store { path: run_dir.to_owned(), source };
    fs::create_dir_all(run_dir).map_err(write)?;
    unpack(app, &run_dir.join("app_server"), &Limits::default())?;
    fs::write(run_dir.join("fl_app.txt"), app_name).map_err(write)?;
    write_meta(run_dir, document).map_err(write)
}

/// Writes `meta.json` whole or not at all.
pub(crate) fn write_meta(run_dir: &Path, document: &Value) -> io::Result<()> {
    let (file, new) = (run_dir.join("meta.json"), run_dir.join("meta.json.new"));
    fs::write(&new, serde_json::to_vec_pretty(document)?)?;
    fs::rename(new, file)
}

/// Why a job was not taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The folder is not a job, or its meta has mistakes.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The signatures do not hold.
    #[error("the job's signatures do not hold; sign the folder with an administrator's key of this project")]
    Signature(#[from] VerifyError),
    /// Somebody signed it who may not submit jobs.
    #[error("the job is signed by {signer}, who is no administrator; sign it with an administrator's key")]
    NotAdministrator {
        /// Common name of the certificate.
        signer: String,
    },
    /// No app is meant for the server.
    #[error("no app of the job is deployed to the server: add `server` or `@ALL` to deploy_map in meta.json")]
    NoServerApp,
    /// An app cannot be packed.
    #[error("an app cannot be packed")]
    Pack(#[from] PackError),
    /// The server's app cannot be unpacked.
    #[error("the server's app cannot be unpacked")]
    Unpack(#[from] UnpackError),
    /// The id that was chosen cannot name a folder.
    #[error("the job's id cannot name a folder")]
    JobId,
    /// The job cannot be written to disk.
    #[error("cannot store the job in {}", path.display())]
    Store {
        /// Where it would lie.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The journal of jobs does not take it.
    #[error("the journal of jobs does not take it")]
    Journal(#[source] AppendError),
    /// As many jobs as the server keeps wait or run already.
    #[error("as many jobs as the server keeps wait or run already")]
    Full,
    /// The server stops, or stopped meanwhile.
    #[error("interrupted: {0}")]
    Interrupted(String),
}

impl SubmitError {
    /// Whether the job itself is at fault, rather than the server or its disk.
    #[must_use]
    pub fn is_the_jobs_fault(&self) -> bool {
        match self {
            Self::Job(_)
            | Self::Signature(_)
            | Self::NotAdministrator { .. }
            | Self::NoServerApp
            | Self::Pack(_)
            | Self::Unpack(_) => true,
            Self::JobId | Self::Store { .. } | Self::Journal(_) | Self::Full | Self::Interrupted(_) => false,
        }
    }
}
