//! A job's run folder: made by a deployment, completed by a start.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use locule_assembly::{Approval, NotAdmitted};
use locule_identity::{Identity, Verifier};
use locule_job::{Limits, UnpackError, VerifyError, has_custom_code, is_signed, unpack, verify_folder};
use locule_kit::{InvalidJobId, Workspace};
use locule_protocol::Refusal;
use serde_json::Value as Json;

use crate::meta::difference;
use crate::parent::ERROR_PREFIX;

/// Longest name of an app, in bytes.
const MAX_APP_NAME: usize = 255;

/// Where run folders lie, and what may become one.
#[derive(Clone, Debug)]
pub(crate) struct RunFolders {
    pub(crate) kit: Workspace,
    pub(crate) site: String,
    /// What judges signatures, if the site can.
    pub(crate) verifier: Option<Arc<dyn Verifier>>,
    pub(crate) require_signed: bool,
    /// The site's organisation; empty if it has no certificate.
    pub(crate) org: String,
    pub(crate) most: usize,
}

impl RunFolders {
    /// Checks an app and puts it in place of whatever was deployed for that job before. Blocking.
    ///
    /// Everything is made beside the place and moved there when it is complete, its signatures hold and `review`,
    /// which is given the run folder to be, where the app lies until then, and the meta, approves it. So nothing of
    /// an app that is refused stays, and a crash leaves the old or the new.
    pub(crate) fn deploy(
        &self,
        job_id: &str,
        app: &str,
        mut meta: Json,
        archive: &Bytes,
        review: impl FnOnce(&Path, &Path, &Json) -> Result<Option<Approval>, Vec<Refusal>>,
    ) -> Result<PathBuf, DeployError> {
        if app.is_empty() || app.len() > MAX_APP_NAME || app.contains(char::is_control) {
            return Err(DeployError::AppName);
        }
        let run_dir = self.kit.run_dir(job_id)?;
        self.check_place(run_dir.path())?;
        let making = Making::create(run_dir.path())?;
        let app_dir = making.path.join(format!("app_{}", self.site));
        unpack(archive, &app_dir, &Limits::default())?;
        let signers = self.check_signatures(&app_dir)?;
        self.admit(&app_dir, &meta, &signers)?;
        meta["job_id"] = job_id.into();
        meta["byoc"] = has_custom_code(&app_dir).into();
        if let Some(approval) = review(run_dir.path(), &app_dir, &meta).map_err(DeployError::Refused)? {
            approval.write(&making.path)?;
        }
        write(&making.path.join("fl_app.txt"), app.as_bytes())?;
        write(&making.path.join("meta.json"), meta.to_string().as_bytes())?;
        making.complete(run_dir.path())?;
        Ok(run_dir.path().to_owned())
    }

    /// Compares the meta of a start with the deployed one and takes it over, with the participants in it.
    /// The run folder and the app's name. Blocking.
    pub(crate) fn prepare(&self, job_id: &str, mut meta: Json) -> Result<(PathBuf, String), PrepareError> {
        let run_dir = self.kit.run_dir(job_id)?;
        let not_deployed = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let text = match fs::read(run_dir.meta_file()) {
            Ok(text) => text,
            Err(error) if not_deployed(&error) => return Err(PrepareError::NotDeployed),
            Err(error) => return Err(PrepareError::Disk(error)),
        };
        let deployed: Json = serde_json::from_slice(&text).map_err(|_| PrepareError::NotDeployed)?;
        if let Some(field) = difference(&deployed, &meta) {
            return Err(PrepareError::OtherMeta { field });
        }
        meta["byoc"] = deployed.get("byoc").cloned().unwrap_or_default();
        let beside = run_dir.path().join(".meta.json");
        write(&beside, meta.to_string().as_bytes())?;
        fs::rename(&beside, run_dir.meta_file())?;
        let app = fs::read_to_string(run_dir.app_name_file())?;
        Ok((run_dir.path().to_owned(), app))
    }

    /// Who signed the app, if anybody did.
    fn check_signatures(&self, app_dir: &Path) -> Result<Vec<Identity>, DeployError> {
        if !is_signed(app_dir) && self.require_signed {
            return Err(DeployError::Unsigned);
        }
        let Some(verifier) = &self.verifier else {
            return if self.require_signed { Err(DeployError::CannotVerify) } else { Ok(Vec::new()) };
        };
        if !is_signed(app_dir) {
            return Ok(Vec::new());
        }
        let signers = verify_folder(app_dir, &**verifier, SystemTime::now())?;
        match signers.iter().find(|signer| !signer.is_admin()) {
            Some(signer) => {
                Err(DeployError::Signer { name: signer.common_name.escape_debug().take(96).collect() })
            }
            None => Ok(signers),
        }
    }

    /// A run folder may be replaced; anything else of that name is the operator's.
    fn check_place(&self, place: &Path) -> Result<(), DeployError> {
        if place.symlink_metadata().is_ok() {
            return if is_run_folder(place) { Ok(()) } else { Err(DeployError::Occupied) };
        }
        let entries = fs::read_dir(self.kit.root())?.filter_map(Result::ok);
        let held = entries.filter(|entry| is_run_folder(&entry.path())).take(self.most).count();
        if held < self.most { Ok(()) } else { Err(DeployError::TooMany { most: self.most }) }
    }
}

/// Whether a folder is what a deployment makes.
pub(crate) fn is_run_folder(path: &Path) -> bool {
    let is_folder = path.symlink_metadata().is_ok_and(|data| data.is_dir());
    is_folder && ["fl_app.txt", "meta.json"].iter().all(|file| path.join(file).is_file())
}

/// Why an app was not deployed. The server, and through it the submitter, reads the text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeployError {
    #[error(transparent)]
    JobId(#[from] InvalidJobId),
    #[error("the name of the app is empty, too long or has control characters")]
    AppName,
    #[error("the site has a folder of that name that is not a job's")]
    Occupied,
    #[error("the site holds {most} run folders and takes no more; its operator may remove old ones")]
    TooMany { most: usize },
    #[error("the app cannot be unpacked: {0}")]
    Unpack(#[from] UnpackError),
    #[error("unsigned job rejected - signed deploy is required")]
    Unsigned,
    #[error("the site requires signed jobs and has no root certificate to verify them with")]
    CannotVerify,
    #[error("the app's signature is not accepted: {0}")]
    Signature(#[from] VerifyError),
    #[error("the app is signed by {name}, who is no administrator")]
    Signer { name: String },
    #[error("{}", Refusal::sentence(.0))]
    Refused(Vec<Refusal>),
    /// The prefix is that of nvflare 2.9.0, `nvflare.private.fed.client.client_engine`.
    #[error("{ERROR_PREFIX}: {0}")]
    NotAdmitted(#[from] NotAdmitted),
    #[error("the site cannot store the app: {0}")]
    Disk(#[from] io::Error),
}

/// Why a job cannot be started from its folder. The server reads the text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    #[error(transparent)]
    JobId(#[from] InvalidJobId),
    #[error("the job is not deployed here")]
    NotDeployed,
    #[error("`{field}` is not what the job was deployed with")]
    OtherMeta { field: &'static str },
    #[error("the site cannot read or write the job's folder: {0}")]
    Disk(#[from] io::Error),
}

/// A run folder in the making, beside its place; removed unless completed.
struct Making {
    path: PathBuf,
}

impl Making {
    fn create(place: &Path) -> io::Result<Self> {
        let path = beside(place, "making");
        remove_if_any(&path)?;
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path)?;
        Ok(Self { path })
    }

    fn complete(self, place: &Path) -> io::Result<()> {
        let old = beside(place, "old");
        remove_if_any(&old)?;
        if place.symlink_metadata().is_ok() {
            fs::rename(place, &old)?;
        }
        fs::rename(&self.path, place)?;
        remove_if_any(&old)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // After `complete` there is nothing here any more; after a failure, nobody to tell.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn beside(place: &Path, what: &str) -> PathBuf {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    place.with_file_name(format!(".{name}.{what}"))
}

fn remove_if_any(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use locule_job::pack_app;
    use serde_json::json;

    fn folders(kit: &Path) -> RunFolders {
        RunFolders {
            kit: Workspace::new(kit),
            site: "site-1".into(),
            verifier: None,
            require_signed: false,
            org: "ward".into(),
            most: 2,
        }
    }

    fn unreviewed(_: &Path, _: &Path, _: &Json) -> Result<Option<Approval>, Vec<Refusal>> {
        Ok(None)
    }

    fn app(scratch: &Path, custom: bool) -> Bytes {
        let app = scratch.join("app");
        fs::create_dir_all(app.join("config")).unwrap();
        fs::write(app.join("config/config_fed_client.json"), "{}").unwrap();
        if custom {
            fs::create_dir_all(app.join("custom")).unwrap();
        }
        pack_app(&app).unwrap().into()
    }

    #[test]
    fn a_deployment_has_the_layout_of_the_peer_and_recomputes_byoc() {
        let (kit, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let archive = app(scratch.path(), true);
        let folder = folders(kit.path())
            .deploy("job-1", "app", json!({ "byoc": false }), &archive, unreviewed)
            .unwrap();
        assert_eq!(folder, kit.path().join("job-1"));
        assert!(folder.join("app_site-1/config/config_fed_client.json").is_file());
        assert_eq!(fs::read_to_string(folder.join("fl_app.txt")).unwrap(), "app");
        let meta: Json = serde_json::from_slice(&fs::read(folder.join("meta.json")).unwrap()).unwrap();
        assert_eq!(meta, json!({ "byoc": true, "job_id": "job-1" }));
        assert_eq!(fs::read_dir(kit.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_deployment_replaces_a_run_folder_and_nothing_else() {
        let (kit, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let archive = app(scratch.path(), false);
        let folders = folders(kit.path());
        let folder = folders.deploy("job-1", "app", json!({}), &archive, unreviewed).unwrap();
        fs::write(folder.join("result"), "old").unwrap();
        folders.deploy("job-1", "app", json!({}), &archive, unreviewed).unwrap();
        assert!(!folder.join("result").exists());

        fs::create_dir(kit.path().join("patients")).unwrap();
        for taken in ["patients", "startup"] {
            assert!(folders.deploy(taken, "app", json!({}), &archive, unreviewed).is_err());
        }
        assert!(kit.path().join("patients").is_dir());
    }

    #[test]
    fn run_folders_are_bounded() {
        let (kit, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let archive = app(scratch.path(), false);
        let folders = folders(kit.path());
        folders.deploy("job-1", "app", json!({}), &archive, unreviewed).unwrap();
        folders.deploy("job-2", "app", json!({}), &archive, unreviewed).unwrap();
        assert!(matches!(
            folders.deploy("job-3", "app", json!({}), &archive, unreviewed),
            Err(DeployError::TooMany { most: 2 })
        ));
        folders
            .deploy("job-2", "app", json!({}), &archive, unreviewed)
            .expect("replacing one needs no more room");
    }

    #[test]
    fn an_unsigned_app_is_refused_where_signatures_are_required() {
        let (kit, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let archive = app(scratch.path(), false);
        let folders = RunFolders { require_signed: true, ..folders(kit.path()) };
        let error = folders.deploy("job-1", "app", json!({}), &archive, unreviewed).unwrap_err();
        assert_eq!(error.to_string(), "unsigned job rejected - signed deploy is required");
        assert_eq!(fs::read_dir(kit.path()).unwrap().count(), 0, "nothing of it stays");
    }

    #[test]
    fn nothing_of_a_refused_app_stays_and_what_was_deployed_before_does() {
        let (kit, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let archive = app(scratch.path(), false);
        let folders = folders(kit.path());
        folders.deploy("job-1", "app", json!({}), &archive, unreviewed).unwrap();
        let refusal = Refusal { code: "house-rule".into(), reason: "not here".into(), ..Refusal::default() };
        let refuse =
            |job| folders.deploy(job, "other", json!({}), &archive, |_, _, _| Err(vec![refusal.clone()]));
        let error = refuse("job-2").unwrap_err();
        assert_eq!(error.to_string(), "refused: not here (house-rule)");
        assert!(!kit.path().join("job-2").exists());
        refuse("job-1").unwrap_err();
        assert_eq!(fs::read_to_string(kit.path().join("job-1/fl_app.txt")).unwrap(), "app");
        assert_eq!(fs::read_dir(kit.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_start_must_be_of_what_was_deployed() {
        let (kit, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let archive = app(scratch.path(), true);
        let folders = folders(kit.path());
        assert!(matches!(folders.prepare("job-1", json!({})), Err(PrepareError::NotDeployed)));
        folders.deploy("job-1", "app", json!({ "resource_spec": {} }), &archive, unreviewed).unwrap();
        let other = json!({ "job_id": "job-1", "resource_spec": { "gpu": 1 } });
        assert!(matches!(
            folders.prepare("job-1", other),
            Err(PrepareError::OtherMeta { field: "resource_spec" })
        ));
        let meta = json!({ "job_id": "job-1", "resource_spec": {}, "job_clients": [{ "name": "site-1" }], "byoc": false });
        let (folder, app) = folders.prepare("job-1", meta).unwrap();
        assert_eq!(app, "app");
        let meta: Json = serde_json::from_slice(&fs::read(folder.join("meta.json")).unwrap()).unwrap();
        assert_eq!(meta["job_clients"][0]["name"], "site-1");
        assert_eq!(meta["byoc"], true, "what is here counts, not what the server says");
    }
}
