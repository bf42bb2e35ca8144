//! Plans that were reviewed, kept beside the log of verdicts, so that another policy can be asked about them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use locule_audit::{Judged, Review};
use locule_component::{
    BuildCx, CheckerOrigin, ConstructionCount, JobFacts, Phase, Plan, SiteFacts, canonical_json,
};
use locule_config::Document;
use locule_kit::{Workspace, job_resources};
use locule_policy::{DEADLINE, Occasion, ask_all, gates_from_site_config};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{AssemblyError, Program, kit_file};

/// What a plan was, and what was known when it was judged.
///
/// A participant keeps the plans that its checkers review, in `state/plans` of its kit, each as a file that is named by
/// the plan's digest and by that of the job's id: at most 1000 files and 64 MiB, and none beyond 1 MiB; the oldest go
/// first. A plan holds what its variables stood for, so that only the owner of the kit may read the files.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeptPlan {
    format: u32,
    /// Digest of the plan.
    pub plan: String,
    /// The whole configuration, substituted.
    pub config: serde_json::Value,
    /// The file that it was read from, for places in it.
    pub file: String,
    /// What was known of the job.
    pub job: JobFacts,
    /// Where it was to run.
    pub site: SiteFacts,
    /// At which point of its life it was judged.
    pub phase: Phase,
}

/// Most plans that a kit keeps.
const MOST_PLANS: usize = 1000;
/// Most bytes that they may have together.
const MOST_BYTES: u64 = 64 << 20;
/// Most bytes of one.
const LARGEST: u64 = 1 << 20;

impl KeptPlan {
    /// Every plan that a kit keeps and that can be read, in no order.
    ///
    /// # Errors
    /// When the folder cannot be read. That there is none is no error.
    pub fn all(kit: &Workspace) -> io::Result<Vec<KeptPlan>> {
        let read = |(file, _, _): (PathBuf, SystemTime, u64)| {
            let mut text = Vec::new();
            File::open(file).ok()?.take(LARGEST).read_to_end(&mut text).ok()?;
            serde_json::from_slice::<KeptPlan>(&text).ok().filter(|kept| kept.format == FORMAT)
        };
        Ok(files(&folder(kit))?.into_iter().filter_map(read).collect())
    }

    /// Asks every gate of `policy` about the plan, as it was asked about then; leaves no trace, and builds nothing.
    ///
    /// `policy` is a kit, of which only the policy is read.
    ///
    /// # Errors
    /// [`AssemblyError::Kit`] and [`AssemblyError::Policy`] for a policy that cannot be used; [`AssemblyError::Config`]
    /// and [`AssemblyError::OtherPlan`] if this program reads the configuration otherwise.
    pub fn replay<'a>(
        &self,
        policy: &Workspace,
        program: impl Into<Program<'a>>,
    ) -> Result<Review, AssemblyError> {
        let Program { registry, checkers } = program.into();
        let side = self.site.side;
        let site = job_resources(policy, kit_file(side))?;
        let document = Document::parse_json(&self.file, &self.config.to_string());
        let document = document.map_err(AssemblyError::Config)?;
        let plan = Plan::from_document(&document, side, registry).map_err(AssemblyError::Config)?;
        if plan.digest().as_str() != self.plan {
            return Err(AssemblyError::OtherPlan { plan: self.plan.clone() });
        }
        let uncounted = ConstructionCount::new(); // a site's own checkers are no part of the job
        let cx = BuildCx::new(side, &self.site.name, "", policy.root(), policy.root(), &uncounted);
        let gates = gates_from_site_config(&site, registry, checkers, &cx).map_err(AssemblyError::Policy)?;
        let occasion = Occasion { job: self.job.clone(), site: self.site.clone(), phase: self.phase };
        let reports = ask_all(&plan, &occasion, &gates, DEADLINE);
        let origins: Vec<CheckerOrigin> = gates.iter().map(|gate| gate.origin()).collect();
        let about: Vec<_> =
            origins.iter().map(|origin| (origin.back_end, origin.digest.as_deref())).collect();
        let Occasion { job, site, phase } = &occasion;
        let judged = Judged { plan: &plan, job, site, phase: *phase, policy: "" };
        Ok(Review::by_checkers(judged, &reports, &about))
    }
}

const FORMAT: u32 = 1;

/// Keeps a plan that was judged.
pub(crate) fn keep(kit: &Workspace, plan: &Plan, occasion: &Occasion) -> io::Result<()> {
    let Occasion { job, site, phase } = occasion.clone();
    let file = plan.components().first().map_or_else(String::new, |spec| spec.file.clone());
    let kept = KeptPlan {
        format: FORMAT,
        plan: plan.digest().to_string(),
        config: plan.config().clone(),
        file,
        job,
        site,
        phase,
    };
    let text = serde_json::to_vec(&kept)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 1 MiB"));
    }
    let folder = folder(kit);
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(&folder)?;
    let path = folder.join(format!("{}-{}.json", kept.plan, job_digest(&kept.job.job_id)));
    let partial = path.with_extension(format!("{:016x}.new", std::process::id()));
    write_private(&partial, &text)?;
    fs::rename(&partial, &path)?;
    make_room(&folder)
}

/// A job's id comes from a peer, and is no name of a file.
fn job_digest(job_id: &str) -> String {
    let id = canonical_json(&job_id.into());
    Sha256::digest(id.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn folder(kit: &Workspace) -> PathBuf {
    kit.state_dir().join("plans")
}

fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text)
}

/// Removes the oldest plans beyond what a kit keeps.
fn make_room(folder: &Path) -> io::Result<()> {
    let mut files = files(folder)?;
    files.sort_by_key(|(path, changed, _)| (std::cmp::Reverse(*changed), path.clone()));
    let mut bytes = 0;
    for (index, (path, _, size)) in files.iter().enumerate() {
        bytes += size;
        if index >= MOST_PLANS || bytes > MOST_BYTES {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The kept plans: where, since when, and how large.
fn files(folder: &Path) -> io::Result<Vec<(PathBuf, SystemTime, u64)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(meta) = entry.metadata() else { continue }; // another process made room
        if meta.is_file() && entry.path().extension().is_some_and(|ending| ending == "json") {
            files.push((entry.path(), meta.modified()?, meta.len()));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_oldest_plans_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let begin = SystemTime::UNIX_EPOCH;
        for number in 0..MOST_PLANS as u64 + 2 {
            let path = dir.path().join(format!("{number}.json"));
            write_private(&path, b"{}").unwrap();
            let changed = begin + std::time::Duration::from_secs(number);
            File::options().write(true).open(path).unwrap().set_modified(changed).unwrap();
        }
        make_room(dir.path()).unwrap();
        assert_eq!(files(dir.path()).unwrap().len(), MOST_PLANS);
        assert!(!dir.path().join("0.json").exists() && !dir.path().join("1.json").exists());
        assert!(dir.path().join("2.json").exists());
    }
}
