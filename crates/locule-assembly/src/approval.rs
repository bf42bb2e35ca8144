//! What a review approved, kept beside the app, and whether a start is still of that.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use locule_component::{AppFile, JobFacts, PlanDigest, canonical_json};
use locule_config::Document;
use locule_kit::Workspace;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use crate::AssemblyError;

/// What was approved when an app was deployed: the plan, the site's policy, and the app's files.
///
/// It lies as [`Approval::FILE`] beside the app. A start whose app, plan, facts and policy are those of the approval
/// needs no second review.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    format: u32,
    /// The plan.
    pub plan: PlanDigest,
    /// Everything that the site's policy consisted of.
    pub policy: String,
    /// What checkers saw of the job beside the plan.
    pub facts: String,
    /// Every file of the app.
    pub files: Vec<AppFile>,
}

impl Approval {
    /// Its name beside the app.
    pub const FILE: &'static str = "approval.json";

    pub(crate) fn new(plan: &PlanDigest, policy: String, job: &JobFacts) -> Approval {
        Approval { format: 1, plan: plan.clone(), policy, facts: facts(job), files: job.files.clone() }
    }

    /// Puts the approval into the folder that the app lies in, whole or not at all.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let (file, new) = (folder.join(Self::FILE), folder.join(".approval.json"));
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(new, file)
    }

    /// The approval beside an app, if there is one.
    pub(crate) fn beside(app_dir: &Path) -> Result<Option<Approval>, AssemblyError> {
        let file = app_dir.with_file_name(Self::FILE);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(AssemblyError::Read { file, source }),
        };
        let approval: Result<Approval, _> = serde_json::from_slice(&text);
        match approval {
            Ok(approval) if approval.format == 1 => Ok(Some(approval)),
            Ok(_) | Err(_) => {
                let source = io::Error::new(io::ErrorKind::InvalidData, "it is not what a review wrote");
                Err(AssemblyError::Read { file, source })
            }
        }
    }

    /// What is not as it was approved in the files of the app, as a sentence.
    pub(crate) fn changed_files(&self, now: &[AppFile]) -> Option<String> {
        const SHOWN: usize = 5;
        let find = |files: &[AppFile], path: &str| files.iter().find(|file| file.path == path).cloned();
        let mut changed: Vec<String> = Vec::new();
        for file in &self.files {
            match find(now, &file.path) {
                None => changed.push(format!("`{}` is gone", file.path)),
                Some(other) if other.sha256 != file.sha256 => {
                    changed.push(format!("`{}` was edited", file.path));
                }
                Some(_) => {}
            }
        }
        let new = now.iter().filter(|file| find(&self.files, &file.path).is_none());
        changed.extend(new.map(|file| format!("`{}` is new", file.path)));
        let more = match changed.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        changed.truncate(SHOWN);
        let list = changed.join(", ");
        (!list.is_empty()).then(|| format!("the app was changed after it was approved: {list}{more}"))
    }

    /// What else differs, in a word for the log; nothing when a comparison is as good as a review.
    pub(crate) fn difference(&self, plan: &PlanDigest, policy: &str, job: &JobFacts) -> Option<&'static str> {
        if self.policy != policy {
            Some("the site's policy")
        } else if self.plan != *plan {
            Some("variables of the plan")
        } else if self.facts != facts(job) {
            Some("what is known of the job")
        } else {
            None
        }
    }
}

/// What a server writes into a job's meta on the job's way, and what no checker can have seen before the start.
///
/// # Source
/// nvflare 2.9.0, `nvflare.apis.job_def` (`JobMetaKey`).
const VOLATILE: [&str; 9] = [
    "job_clients",
    "status",
    "start_time",
    "duration",
    "job_deploy_detail",
    "schedule_count",
    "last_schedule_time",
    "schedule_history",
    "result_location",
];

/// Digest of what is known of a job beside its plan and files. A field that is null counts as absent.
fn facts(job: &JobFacts) -> String {
    let mut meta = job.meta.clone();
    if let Some(fields) = meta.as_object_mut() {
        fields.retain(|key, value| !value.is_null() && !VOLATILE.contains(&key.as_str()));
    }
    let JobFacts { job_id, name, submitter_name, submitter_org, submitter_role, byoc, .. } = job;
    digest(&json!([job_id, name, submitter_name, submitter_org, submitter_role, byoc, meta]))
}

/// Digest of everything that a site's policy consists of: its merged configuration, every file in `local` and below
/// `local/custom`, and the version of this program.
pub(crate) fn policy_digest(kit: &Workspace, site: &Document) -> Result<String, AssemblyError> {
    let (mut files, mut left) = (Vec::new(), MAX_POLICY_BYTES);
    add_files(&kit.local(), false, &mut left, &mut files)?;
    add_files(&kit.local().join("custom"), true, &mut left, &mut files)?;
    files.sort();
    Ok(digest(&json!([env!("CARGO_PKG_VERSION"), site.root().to_json(), files])))
}

/// Bytes that the files of a site's policy may have together.
const MAX_POLICY_BYTES: u64 = 1 << 30;

fn add_files(
    folder: &Path,
    deep: bool,
    left: &mut u64,
    found: &mut Vec<(PathBuf, String)>,
) -> Result<(), AssemblyError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(AssemblyError::PolicyFile { file: folder.to_owned(), source }),
    };
    for entry in entries {
        let failed = |source| AssemblyError::PolicyFile { file: folder.to_owned(), source };
        let entry = entry.map_err(failed)?;
        let (path, sort) = (entry.path(), entry.file_type().map_err(failed)?);
        if sort.is_dir() && deep {
            add_files(&path, deep, left, found)?;
        } else if sort.is_file() || (sort.is_symlink() && path.is_file()) {
            let failed = |source| AssemblyError::PolicyFile { file: path.clone(), source };
            let mut hash = Sha256::new();
            let mut file = fs::File::open(&path).map_err(failed)?.take(*left + 1);
            let size = io::copy(&mut file, &mut hash).map_err(failed)?;
            *left = left.checked_sub(size).ok_or_else(|| failed(io::Error::other("more than 1 GiB")))?;
            found.push((path, hex(&hash.finalize())));
        }
    }
    Ok(())
}

fn digest(value: &Json) -> String {
    hex(&Sha256::digest(canonical_json(value).as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
