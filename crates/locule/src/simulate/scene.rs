//! What a simulation runs in: a folder with a signed copy of the job, and a throw-away federation for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, anyhow};
use locule_identity::Usage;
use locule_job::JobFolder;
use locule_kit::AdminKit;
use locule_provision::{ConnectionSecurity, Project, Provisioned};
use serde_json::{Value, json};

use crate::arguments::Simulate;
use crate::exit::{Code, Failure, OrExit as _};
use crate::folder::{Folder, cannot_write};
use crate::mistakes::{Sites, check_job};
use crate::wire;

/// Everything that is there before the server starts.
#[derive(Debug)]
pub(super) struct Scene {
    /// The folder that all of it is in.
    pub(super) folder: Folder,
    /// The server's kit.
    pub(super) server: PathBuf,
    /// Names and kits of the sites, in site order.
    pub(super) sites: Vec<(String, PathBuf)>,
    /// The signed copy of the job.
    pub(super) job: PathBuf,
    /// Its name.
    pub(super) job_name: String,
    /// The log of everything in this process.
    pub(super) log: PathBuf,
}

impl Scene {
    /// Makes it, in an empty folder. Blocking.
    pub(super) fn make(arguments: &Simulate) -> Result<Self, Failure> {
        let job = check_job(&arguments.job, Sites::Here)?;
        let names = names(arguments, &job)?;
        let folder = Folder::empty(arguments.workspace.as_deref(), "--workspace", "locule-simulate-")?;
        let kits = folder.path().join(KITS);
        let kits = locule_provision::provision(&project(&names), &kits, SystemTime::now())?;
        write_json(
            &kits.server_dir.join("local/resources.json"),
            &json!({ "format_version": 2, "servers": [{ "max_num_clients": names.len().max(100) }] }),
        )?;
        let sites: Vec<_> = names.into_iter().zip(kits.site_dirs.iter().cloned()).collect();
        for (name, kit) in &sites {
            write_json(&kit.join("local/resources.json"), &resources(arguments)?)?;
            if let Some(files) = &arguments.files {
                lay_in(&files.join(name), kit, OF_ANOTHER_FEDERATION)?;
            }
        }
        let copy = signed_copy(&job, folder.path(), sites.len(), &kits)?;
        let log = folder.path().join("simulate.log");
        Ok(Self { folder, server: kits.server_dir, sites, job: copy, job_name: job.meta.name, log })
    }

    /// Names of the sites, in their order.
    pub(super) fn site_names(&self) -> Vec<String> {
        self.sites.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Puts what the job left at the server into `server` and at the sites into `sites`, and removes the kits.
    pub(super) fn clear_up(&self, job_id: &str) -> Result<(), Failure> {
        let dir = self.folder.path();
        let of_sites = dir.join("sites");
        fs::create_dir_all(&of_sites).with_context(|| cannot_write(&of_sites)).or_exit(Code::CannotCreate)?;
        let sites = self.sites.iter().map(|(name, kit)| (kit, of_sites.join(name)));
        for (kit, to) in sites.chain([(&self.server, dir.join("server"))]) {
            let run = kit.join(job_id);
            if run.is_dir() {
                fs::rename(&run, &to).with_context(|| cannot_write(&to)).or_exit(Code::CannotCreate)?;
            }
        }
        self.remove_kits()
    }

    /// Removes the kits, with the keys.
    pub(super) fn remove_kits(&self) -> Result<(), Failure> {
        let kits = self.folder.path().join(KITS);
        fs::remove_dir_all(&kits)
            .with_context(|| format!("cannot remove {}", kits.display()))
            .or_exit(Code::CannotCreate)
    }

    /// Where a file of the server's run folder is after [`clear_up`](Self::clear_up).
    pub(super) fn cleared(&self, file: &Path, job_id: &str) -> PathBuf {
        let below = file.strip_prefix(self.server.join(job_id)).unwrap_or(file);
        self.folder.path().join("server").join(below)
    }
}

/// The folder of the kits, for as long as the simulation runs.
const KITS: &str = ".kits";

/// The sites: as the command line says, or else those that the job names, or as many as it needs.
fn names(arguments: &Simulate, job: &JobFolder) -> Result<Vec<String>, Failure> {
    let meta = &job.meta;
    let wrong = |text: String| Err(Failure::new(Code::Usage, anyhow!(text)));
    let named: Vec<String> = meta.clients().unwrap_or_default().into_iter().map(str::to_owned).collect();
    let numbered = |count: usize| (1..=count).map(|number| format!("site-{number}")).collect::<Vec<_>>();
    let names = match (arguments.number, &arguments.sites[..]) {
        (Some(number), _) => numbered(usize::try_from(number).unwrap_or(usize::MAX)),
        (None, [_, ..]) => arguments.sites.clone(),
        (None, []) if !named.is_empty() => named.clone(),
        (None, []) => numbered(meta.min_clients.unwrap_or(1)),
    };
    let there: BTreeSet<&String> = names.iter().collect();
    if there.len() < names.len() {
        return wrong("a site is named twice".to_owned());
    }
    if let Some(missing) = named.iter().chain(&meta.mandatory_clients).find(|name| !there.contains(name)) {
        return wrong(format!(
            "the job names the site {missing}, which is not among the sites: {}",
            names.join(", ")
        ));
    }
    if let Some(idle) = names.iter().find(|name| meta.app_of(name).is_none()) {
        return wrong(format!("the job has no app for {idle}; its `deploy_map` names {}", named.join(", ")));
    }
    if let Some(needed) = meta.min_clients.filter(|needed| *needed > names.len()) {
        return wrong(format!("the job needs {needed} sites (`min_clients`), and there are {}", names.len()));
    }
    Ok(names)
}

/// A federation that begins and ends with this process: real certificates, over one key for all sites, and no TLS where
/// no network is.
fn project(sites: &[String]) -> Project {
    let mut project =
        Project::new("simulation", "server", "simulation").admin(ADMIN, "simulation", "project_admin");
    project.scheme = "mem".into();
    project.server.host = Some("localhost".into());
    project.connection_security = ConnectionSecurity::Clear;
    project.one_client_key = true;
    for site in sites {
        project = project.site(site, "simulation");
    }
    project
}

/// Whoever simulates.
const ADMIN: &str = "simulate@locule.org";

/// What a site lets its jobs do: all that the user may who runs the simulation.
fn resources(arguments: &Simulate) -> Result<Value, Failure> {
    let mut python = json!({ "confine": false });
    if let Some(program) = &arguments.python {
        // not resolved: an environment's interpreter is a link to another one
        let program = std::path::absolute(program).or_exit(Code::NoInput)?;
        if !program.is_file() {
            return Err(Failure::new(Code::NoInput, anyhow!("there is no {}", program.display())));
        }
        python["interpreter"] = json!(program);
    }
    Ok(json!({ "format_version": 2, "python": python }))
}

/// Copies the job, says that all sites must take part, and signs it. What it asks of machines is left out: there is one.
fn signed_copy(job: &JobFolder, dir: &Path, sites: usize, kits: &Provisioned) -> Result<PathBuf, Failure> {
    let copy = dir.join("job");
    lay_in(&job.path, &copy, &[])?;
    for entry in fs::read_dir(&copy).or_exit(Code::NoInput)?.flatten() {
        let path = entry.path();
        if path.is_file() && path.file_stem().is_some_and(|stem| stem == "meta") {
            fs::remove_file(&path).with_context(|| cannot_write(&path)).or_exit(Code::CannotCreate)?;
        }
    }
    let mut meta = job.meta.document.clone();
    for elsewhere in ["resource_spec", "launcher_spec"] {
        meta.remove(elsewhere);
    }
    meta.insert("name".into(), job.meta.name.as_str().into());
    meta.insert("min_clients".into(), sites.into());
    write_json(&copy.join("meta.json"), &Value::Object(meta))?;
    let admin = AdminKit::open(&kits.admin_dirs[0])?;
    let (signer, _) = wire::credentials(&admin.files, Usage::Client)?;
    let signed = locule_job::sign_folder(&copy, &*signer);
    signed.with_context(|| format!("cannot sign {}", copy.display())).or_exit(Code::CannotCreate)?;
    Ok(copy)
}

/// What is not laid into a kit: with the certificates and addresses of another federation, a site would ask for a server
/// that is not there.
const OF_ANOTHER_FEDERATION: &[&str] = &["startup", "state"];

/// Copies what is in one folder into another, `but` for these; nothing if there is no such folder.
fn lay_in(from: &Path, into: &Path, but: &[&str]) -> Result<(), Failure> {
    fs::create_dir_all(into).with_context(|| cannot_write(into)).or_exit(Code::CannotCreate)?;
    if !from.is_dir() {
        return Ok(());
    }
    let unreadable = || format!("cannot read {}", from.display());
    for entry in fs::read_dir(from).with_context(unreadable).or_exit(Code::NoInput)? {
        let from = entry.with_context(unreadable).or_exit(Code::NoInput)?.path();
        let name = from.file_name().unwrap_or_default();
        if but.iter().any(|left_out| name == *left_out) {
            continue;
        }
        let to = into.join(name);
        if from.is_dir() {
            lay_in(&from, &to, &[])?;
        } else {
            let copied = fs::copy(&from, &to);
            copied
                .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
                .or_exit(Code::CannotCreate)?;
        }
    }
    Ok(())
}

fn write_json(file: &Path, value: &Value) -> Result<(), Failure> {
    fs::write(file, format!("{value:#}\n")).with_context(|| cannot_write(file)).or_exit(Code::CannotCreate)
}
