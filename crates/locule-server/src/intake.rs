//! Takes a job folder in: checks it, stores the server's half, packs what the sites will get.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use locule_component::{Event, JobFacts, Question};
use locule_event::Refused;
use locule_fobs::Map;
use locule_job::{
    DeployTo, JobError, JobFolder, JobMeta, Limits, PackError, Packing, UnpackError, VerifyError, is_signed,
    pack_app, pack_file, unpack, unpack_file, verify_folder,
};
use locule_journal::AppendError;
use locule_kit::Workspace;
use serde_json::{Value, json};

use crate::book::{Entry, seconds};
use crate::digest::digest;
use crate::orders::to_map;
use crate::record::{JobRecord, Submission, Submitter};
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

/// A packed job, as an administrator sends it.
#[derive(Clone, Debug)]
pub struct Package {
    /// The archive, a zip; it is moved away. On the file system of the kit.
    pub file: PathBuf,
    /// The folder in it that is the job.
    pub folder: String,
    /// Who sends it.
    pub submitter: Submitter,
    /// Whether the sender may bring code.
    pub may_bring_code: bool,
    /// The job that it is a copy of.
    pub cloned_from: Option<String>,
    /// What the sender calls this submission: the same token stands for the same job.
    pub token: Option<String>,
}

/// What stays of a job that was handed in, beside its run folder: the whole of it, packed.
pub(crate) fn package_file(kit: &Workspace, job_id: &str) -> PathBuf {
    kit.state_dir().join("jobs").join(format!("{job_id}.zip"))
}

/// The packed job, unpacked for as long as this lives.
struct Opened(PathBuf);

impl Opened {
    fn new(shared: &Shared, job_id: &str, package: &Path) -> Result<Self, SubmitError> {
        let folder = package_file(&shared.kit, job_id).with_extension("open");
        fs::remove_dir_all(&folder).ok(); // of a run of the server that was killed
        make_shelf(&shared.kit).map_err(|source| SubmitError::Store { path: folder.clone(), source })?;
        unpack_file(package, &folder, &Limits::default())?;
        Ok(Self(folder))
    }

    fn job(&self, folder: &str) -> Result<JobFolder, SubmitError> {
        let plain = Path::new(folder).file_name().is_some_and(|name| name == folder);
        let path = self.0.join(folder);
        if !plain || !path.is_dir() {
            return Err(SubmitError::NoFolder { folder: folder.chars().take(96).collect() });
        }
        Ok(JobFolder::read(path)?)
    }

    /// The job of an archive that is sent, which holds nothing else: what is signed and reviewed is all that is kept.
    fn sent(&self, folder: &str) -> Result<JobFolder, SubmitError> {
        const SHOWN: usize = 8;
        let job = self.job(folder)?;
        let names = fs::read_dir(&self.0).and_then(|entries| {
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        });
        let mut names: Vec<String> =
            names.map_err(|source| SubmitError::Store { path: self.0.clone(), source })?;
        names.retain(|name| name != folder);
        if names.is_empty() {
            return Ok(job);
        }
        names.sort_unstable();
        let more = if names.len() > SHOWN { ", …" } else { "" };
        let named = names.iter().take(SHOWN).map(|name| {
            let name: String = name.chars().take(96).flat_map(char::escape_debug).collect();
            format!("`{name}`")
        });
        let others = named.collect::<Vec<_>>().join(", ") + more;
        Err(SubmitError::MoreThanAJob { folder: folder.chars().take(96).collect(), others })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // What is left is in nobody's way, and the next attempt removes it.
        fs::remove_dir_all(&self.0).ok();
    }
}

impl Intake {
    /// Takes a job folder in: checks it, and stores all that its life needs. Blocking.
    pub(crate) fn take(shared: &Shared, job_id: &str, folder: &Path) -> Result<Self, SubmitError> {
        let job = JobFolder::read(folder)?;
        let submitter = signer_of(shared, folder)?.unwrap_or_default();
        let apps = pack_apps(&job)?;
        let entry =
            Accepted { job: &job, submitter: &submitter, packed: false, cloned_from: None, submission: None };
        let store = |run_dir: &Path, kept: &Path| {
            store_app(run_dir, &job, &apps)?;
            let max_bytes = Limits::default().max_bytes;
            Ok(pack_file(folder, &job.folder_name, kept, Packing::Small, max_bytes)?)
        };
        let (run_dir, document) = entry.write(shared, job_id, store)?;
        Ok(Self { job_id: job_id.to_owned(), meta: job.meta, document, run_dir, apps, submitter })
    }

    /// Takes a packed job in: checks it and keeps it, and no more, for somebody waits for the answer. The rest
    /// is for [`prepare`](Self::prepare). Blocking.
    pub(crate) fn accept(shared: &Shared, job_id: &str, package: &Package) -> Result<(), SubmitError> {
        let opened = Opened::new(shared, job_id, &package.file)?;
        let job = opened.sent(&package.folder)?;
        signer_of(shared, &job.path)?;
        if job.byoc && !package.may_bring_code {
            return Err(SubmitError::CustomCode);
        }
        let Package { submitter, cloned_from, token, .. } = package;
        let submission =
            token.as_deref().map(|token| submission(shared, &job, submitter, token)).transpose()?;
        let cloned_from = cloned_from.as_deref();
        let entry = Accepted { job: &job, submitter, packed: true, cloned_from, submission };
        let keep = |_: &Path, kept: &Path| {
            let moved = fs::rename(&package.file, kept);
            moved.map_err(|source| SubmitError::Store { path: kept.to_owned(), source })
        };
        entry.write(shared, job_id, keep).map(|_| ())
    }

    /// Looks at a packed job that nobody submits: its meta as sites would get it, and the folders of its apps for as
    /// long as the second lives. Blocking.
    pub(crate) fn look(shared: &Shared, job_id: &str, package: &Package) -> Result<Looked, SubmitError> {
        let opened = Opened::new(shared, job_id, &package.file)?;
        let job = opened.sent(&package.folder)?;
        if job.byoc && !package.may_bring_code {
            return Err(SubmitError::CustomCode);
        }
        let (document, apps) = (document(&job, job_id, &package.submitter), pack_apps(&job)?);
        Ok(Looked { job, document, apps, _opened: opened })
    }

    /// Makes of a packed job that was accepted, perhaps by an earlier run of the server, what its life needs.
    /// Blocking.
    pub(crate) fn prepare(shared: &Shared, record: JobRecord) -> Result<Self, SubmitError> {
        let JobRecord { job_id, submitter, .. } = record;
        let run_dir = shared.kit.run_dir(&job_id).map_err(|_| SubmitError::JobId)?.path().to_owned();
        let mut document = read_meta(&run_dir)
            .map_err(|source| SubmitError::Store { path: run_dir.join("meta.json"), source })?;
        if let Some(fields) = document.as_object_mut() {
            fields.remove("job_clients"); // of a start
        }
        let opened = Opened::new(shared, &job_id, &package_file(&shared.kit, &job_id))?;
        let job = opened.job(document["job_folder_name"].as_str().unwrap_or_default())?;
        let apps = pack_apps(&job)?;
        store_app(&run_dir, &job, &apps)?;
        Ok(Self { job_id, meta: job.meta, document, run_dir, apps, submitter })
    }

    /// Whether a job that was taken in is what lies in this folder, whoever has signed it. Blocking.
    pub(crate) fn is_of(shared: &Shared, job_id: &str, folder: &Path) -> bool {
        let kept = package_file(&shared.kit, job_id);
        let Ok(given) = JobFolder::read(folder) else { return false };
        // Not where the job's life may be unpacking it at the same time.
        let Ok(opened) = Opened::new(shared, &format!("same-{job_id}"), &kept) else { return false };
        let Ok(job) = opened.job(&given.folder_name) else { return false };
        matches!((digest(&job.path), digest(&given.path)), (Ok(kept), Ok(given)) if kept == given)
    }

    /// What gates are told of the job.
    pub(crate) fn facts(&self) -> JobFacts {
        facts(&self.job_id, &self.submitter, &self.document)
    }

    /// The app that is meant for this site.
    pub(crate) fn app_of(&self, site: &str) -> Option<&str> {
        self.meta.app_of(site)
    }

    /// What the job needs of this site.
    pub(crate) fn resources(&self, site: &str) -> Map {
        to_map(&Value::Object(self.meta.resources_of(site)))
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

/// What a token stands for from now on, unless it stood for something before.
fn submission(
    shared: &Shared,
    job: &JobFolder,
    submitter: &Submitter,
    token: &str,
) -> Result<Submission, SubmitError> {
    let digest = digest(&job.path).map_err(|source| SubmitError::Store { path: job.path.clone(), source })?;
    let Some((record, deleted)) = shared.book.submitted(submitter, token) else {
        return Ok(Submission { token: token.to_owned(), digest });
    };
    let same = record.submission.is_some_and(|before| before.digest == digest);
    let job_id = record.job_id;
    Err(match (deleted, same) {
        (true, _) => SubmitError::SubmissionDeleted { job_id },
        (false, true) => SubmitError::SubmittedBefore { job_id },
        (false, false) => SubmitError::OtherSubmission { job_id },
    })
}

/// A packed job that was looked at.
pub(crate) struct Looked {
    pub(crate) job: JobFolder,
    pub(crate) document: Value,
    /// Packed apps by name.
    pub(crate) apps: BTreeMap<String, Bytes>,
    _opened: Opened,
}

fn facts(job_id: &str, submitter: &Submitter, document: &Value) -> JobFacts {
    JobFacts {
        job_id: job_id.to_owned(),
        name: document["name"].as_str().unwrap_or_default().to_owned(),
        submitter_name: submitter.name.clone(),
        submitter_org: submitter.org.clone(),
        submitter_role: submitter.role.clone(),
        byoc: document["byoc"].as_bool().unwrap_or_default(),
        meta: document.clone(),
        files: Vec::new(),
    }
}

fn pack_apps(job: &JobFolder) -> Result<BTreeMap<String, Bytes>, SubmitError> {
    let apps = job.meta.deploy_map.iter().map(|(app, _)| {
        let packed = pack_app(&job.app_dir(app))?;
        Ok((app.clone(), Bytes::from(packed)))
    });
    apps.collect()
}

/// Who signed a job; nobody where that need not be.
fn signer_of(shared: &Shared, folder: &Path) -> Result<Option<Submitter>, SubmitError> {
    if !is_signed(folder) && !shared.settings.require_signed_jobs {
        return Ok(None);
    }
    let signers = verify_folder(folder, &*shared.verifier, SystemTime::now())?;
    if let Some(other) = signers.iter().find(|signer| !signer.is_admin()) {
        return Err(SubmitError::NotAdministrator { signer: other.common_name.clone() });
    }
    Ok(signers.into_iter().next().map(Submitter::from))
}

fn document(job: &JobFolder, job_id: &str, submitter: &Submitter) -> Value {
    let mut document = job.meta.to_json(job.byoc);
    if let Some(fields) = document.as_object_mut() {
        fields.insert("job_id".into(), json!(job_id));
        fields.insert("job_folder_name".into(), json!(job.folder_name));
        fields.insert("submitter_name".into(), json!(submitter.name));
        fields.insert("submitter_org".into(), json!(submitter.org));
        fields.insert("submitter_role".into(), json!(submitter.role));
        fields.insert("study".into(), json!("default"));
        fields.insert("submit_time".into(), json!(seconds(SystemTime::now())));
        fields.insert("status".into(), json!("SUBMITTED"));
    }
    document
}

/// A job that was checked, as it goes into the book.
struct Accepted<'a> {
    job: &'a JobFolder,
    submitter: &'a Submitter,
    /// Whether an administrator sent it.
    packed: bool,
    cloned_from: Option<&'a str>,
    submission: Option<Submission>,
}

impl Accepted<'_> {
    /// Stores the meta in the run folder, and what `store` adds, given that folder and where the package is to
    /// be kept. All of it is on disk before the journal says so; nothing is left of what failed.
    fn write(
        self,
        shared: &Shared,
        job_id: &str,
        store: impl FnOnce(&Path, &Path) -> Result<(), SubmitError>,
    ) -> Result<(PathBuf, Value), SubmitError> {
        let Self { job, submitter, packed, cloned_from, submission } = self;
        if job.meta.app_of("server").is_none() {
            return Err(SubmitError::NoServerApp);
        }
        let run_dir = shared.kit.run_dir(job_id).map_err(|_| SubmitError::JobId)?.path().to_owned();
        let kept = package_file(&shared.kit, job_id);
        let mut document = document(job, job_id, submitter);
        if let Some(original) = cloned_from {
            document["cloned_from"] = json!(original);
        }
        shared.notice(&Event::SubmitJob { job_id });
        let facts = Box::new(facts(job_id, submitter, &document));
        shared.attendants.gates.ask_blocking(Question::SubmitJob { job: facts })?;
        let entry = Entry::Submitted {
            job: job_id.to_owned(),
            name: job.meta.name.clone(),
            time: seconds(SystemTime::now()),
            submitter: submitter.clone(),
            packed,
            submission,
        };
        let made = fs::create_dir_all(&run_dir)
            .and_then(|()| make_shelf(&shared.kit))
            .and_then(|()| write_meta(&run_dir, &document))
            .map_err(|source| SubmitError::Store { path: run_dir.clone(), source });
        let stored = made
            .and_then(|()| store(&run_dir, &kept))
            .and_then(|()| flush(&run_dir, &kept))
            .and_then(|()| shared.book.write(entry).map_err(SubmitError::Journal));
        if let Err(error) = stored {
            fs::remove_dir_all(&run_dir).ok();
            fs::remove_file(&kept).ok();
            return Err(error);
        }
        Ok((run_dir, document))
    }
}

/// Stores the server's app, unless it is there already.
fn store_app(run_dir: &Path, job: &JobFolder, apps: &BTreeMap<String, Bytes>) -> Result<(), SubmitError> {
    let name = job.meta.app_of("server").ok_or(SubmitError::NoServerApp)?;
    let (folder, new) = (run_dir.join("app_server"), run_dir.join("app_server.new"));
    if !folder.is_dir() {
        // Whole or not at all: a server that was killed meanwhile finds it missing.
        fs::remove_dir_all(&new).ok();
        unpack(&apps[name], &new, &Limits::default())?;
        fs::rename(&new, &folder).map_err(|source| SubmitError::Store { path: folder, source })?;
    }
    let file = run_dir.join("fl_app.txt");
    fs::write(&file, name).map_err(|source| SubmitError::Store { path: file, source })
}

/// Makes the folder of the packages.
fn make_shelf(kit: &Workspace) -> io::Result<()> {
    fs::create_dir_all(kit.make_state_dir()?.join("jobs"))
}

/// Writes `meta.json` whole or not at all.
pub(crate) fn write_meta(run_dir: &Path, document: &Value) -> io::Result<()> {
    let (file, new) = (run_dir.join("meta.json"), run_dir.join("meta.json.new"));
    fs::write(&new, serde_json::to_vec_pretty(document)?)?;
    fs::rename(new, file)
}

/// The meta of a job as it was stored.
pub(crate) fn read_meta(run_dir: &Path) -> io::Result<Value> {
    Ok(serde_json::from_slice(&fs::read(run_dir.join("meta.json"))?)?)
}

/// Makes sure that what was stored of a job is on disk.
fn flush(run_dir: &Path, package: &Path) -> Result<(), SubmitError> {
    let files = [run_dir.join("meta.json"), run_dir.to_owned(), package.to_owned()];
    let folders = [run_dir.parent(), package.parent()].into_iter().flatten().map(Path::to_owned);
    for path in files.into_iter().chain(folders) {
        let flushed = fs::File::open(&path).and_then(|file| file.sync_all());
        flushed.map_err(|source| SubmitError::Store { path, source })?;
    }
    Ok(())
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
    /// The archive does not hold the folder.
    #[error("the archive has no folder `{}`", folder.escape_debug())]
    NoFolder {
        /// The folder, shortened.
        folder: String,
    },
    /// The archive holds more than the folder.
    #[error("the archive holds {others} beside the job's folder `{}`; send that folder alone", folder.escape_debug())]
    MoreThanAJob {
        /// The folder, shortened.
        folder: String,
        /// What lies beside it, by names, some of them, fit to be shown.
        others: String,
    },
    /// It brings code, and its sender has no right to do so.
    #[error("the job brings code of its own, for which its submitter lacks the right `byoc`")]
    CustomCode,
    /// A gate of the server says no.
    #[error("the server does not take it: {0}")]
    Gate(#[from] Refused),
    /// The same submission came before, and made this job: its sender has what it wants.
    #[error("it was submitted before, as {job_id}")]
    SubmittedBefore {
        /// Id of the job.
        job_id: String,
    },
    /// The token stands for another job.
    #[error("the submission's token was used for another job, {job_id}")]
    OtherSubmission {
        /// Id of that job.
        job_id: String,
    },
    /// The token stands for a job that was deleted.
    #[error("the submission's token was used for {job_id}, which is deleted")]
    SubmissionDeleted {
        /// Id of that job.
        job_id: String,
    },
    /// No app is meant for the server.
    #[error("no app of the job is deployed to the server: add `server` or `@ALL` to deploy_map in meta.json")]
    NoServerApp,
    /// The job or an app of it cannot be packed.
    #[error("it cannot be packed")]
    Pack(#[from] PackError),
    /// The job or its app for the server cannot be unpacked.
    #[error("it cannot be unpacked")]
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
            | Self::NoFolder { .. }
            | Self::MoreThanAJob { .. }
            | Self::CustomCode
            | Self::Gate(_)
            | Self::SubmittedBefore { .. }
            | Self::OtherSubmission { .. }
            | Self::SubmissionDeleted { .. }
            | Self::NoServerApp
            | Self::Pack(_)
            | Self::Unpack(_) => true,
            Self::JobId | Self::Store { .. } | Self::Journal(_) | Self::Full | Self::Interrupted(_) => false,
        }
    }
}
