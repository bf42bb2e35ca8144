//! Whole federations: a server and two sites, each of them nvflare's or ours, and a job for them.

mod job;
mod rust_site;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use locule_fobs::Array;
use serde_json::json;

use self::rust_site::RustSite;
use crate::cells::VERSION;
use crate::process::Process;
use crate::project::{ADMIN, Project};
use crate::python::{Peer, Python};
use crate::run::{Check, Run, Suite};

/// How long a server or a site may take to start, and a site to be known.
const START: Duration = Duration::from_secs(40);
/// How long the job may take.
const JOB: Duration = Duration::from_secs(90);

const SITES: [&str; 2] = ["site-1", "site-2"];

/// Every case of whole federations.
pub(crate) async fn run(run: &mut Run) -> anyhow::Result<()> {
    let python = run.python(VERSION)?;
    let fleets = [
        (Who::Python, [Who::Python, Who::Python]),
        (Who::Python, [Who::Locule, Who::Locule]),
        (Who::Python, [Who::Locule, Who::Python]),
        (Who::Locule, [Who::Python, Who::Python]),
        (Who::Locule, [Who::Locule, Who::Python]),
    ];
    for (server, sites) in fleets {
        let fleet = Fleet { server, sites };
        let suite = Suite {
            group: "federation",
            carrier: "grpc".to_owned(),
            role: fleet.role(),
            version: VERSION.to_owned(),
            slow: false,
        };
        let set_up = async |folder: &Path| Federation::start(fleet, &python, folder).await;
        run.suite(&suite, checks(fleet), set_up).await?;
    }
    Ok(())
}

/// Whose program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Python,
    Locule,
}

/// Who runs what.
#[derive(Clone, Copy, Debug)]
struct Fleet {
    server: Who,
    sites: [Who; 2],
}

impl Fleet {
    fn role(self) -> String {
        let [first, second] = self.sites;
        let sites = if first == second { format!("{first:?} sites") } else { "sites of both".to_owned() };
        format!("{:?} server, {sites}", self.server)
    }
}

fn checks(fleet: Fleet) -> Vec<Check<Federation>> {
    let registered = Check::new("both sites register", |all| Box::pin(registered(all))).within(60);
    let mut rest = vec![
        Check::new("a job of three rounds completes", |all| Box::pin(job_completes(all))).within(120),
        Check::new("the model is numpy's, bit for bit", |all| Box::pin(model_is_exact(all))),
        Check::new("the sites leave", |all| Box::pin(sites_leave(all))).within(60),
    ];
    if fleet.server == Who::Locule || fleet.sites.contains(&Who::Locule) {
        let missing = "sites and servers of ours send no streams";
        rest = rest.into_iter().map(|check| check.pending(missing)).collect();
    }
    rest.insert(0, registered);
    rest
}

/// A server and two sites that run.
struct Federation {
    fleet: Fleet,
    python: Python,
    project: Project,
    folder: PathBuf,
    server: Option<Process>,
    theirs: Vec<Process>,
    ours: Vec<RustSite>,
    /// The FLARE API, with nvflare's server.
    api: Option<Peer>,
    job: Option<String>,
}

impl Federation {
    async fn start(fleet: Fleet, python: &Python, folder: &Path) -> anyhow::Result<Self> {
        let project = Project::provision(python, folder, "grpc", e2e::free_port())?;
        let mut federation = Self {
            fleet,
            python: python.clone(),
            project,
            folder: folder.to_owned(),
            server: None,
            theirs: Vec::new(),
            ours: Vec::new(),
            api: None,
            job: None,
        };
        federation.start_server().await?;
        for (name, who) in SITES.into_iter().zip(fleet.sites) {
            let kit = federation.project.kit(name);
            match who {
                Who::Locule => federation.ours.push(RustSite::start(&kit).await?),
                Who::Python => {
                    let log = folder.join(format!("{name}.log"));
                    federation.theirs.push(Process::stock(python, &kit, &log)?);
                }
            }
        }
        Ok(federation)
    }

    /// Ours is given the job at once: it has nobody else to take one from.
    async fn start_server(&mut self) -> anyhow::Result<()> {
        let (kit, log) = (self.project.kit_of("server"), self.folder.join("server.log"));
        let job = self.folder.join("job");
        let admin = self.project.kit(ADMIN);
        job::write(&job, self.fleet.server == Who::Locule)?;
        match self.fleet.server {
            Who::Python => {
                let mut server = Process::stock(&self.python, &kit, &log)?;
                server.wait_for("Server started", START).await?;
                self.server = Some(server);
                let api = Peer::start(&self.python, "flare_api.py", &[], &self.folder.join("api.log"))?;
                api.ask("connect", json!({ "user": ADMIN, "kit": admin })).await?;
                self.api = Some(api);
            }
            Who::Locule => {
                let signed = e2e::run(&["sign", e2e::text(&job), "--kit", e2e::text(&admin)]);
                ensure!(signed.status.success(), "locule sign: {}", e2e::said(&signed));
                let arguments = ["server", e2e::text(&kit), "--job", e2e::text(&job), "-v"];
                let mut server = Process::locule(&arguments, &log)?;
                server.wait_for("listening at", START).await?;
                self.server = Some(server);
            }
        }
        Ok(())
    }

    fn server(&mut self) -> anyhow::Result<&mut Process> {
        self.server.as_mut().context("there is no server")
    }

    fn api(&self) -> anyhow::Result<&Peer> {
        self.api.as_ref().context("there is no API")
    }

    fn job(&self) -> anyhow::Result<&str> {
        self.job.as_deref().context("no job has completed")
    }

    /// What the sites of ours have to say for themselves.
    fn stories(&mut self) -> String {
        self.ours.iter_mut().map(RustSite::story).collect()
    }
}

async fn registered(all: &mut Federation) -> anyhow::Result<()> {
    if let Some(api) = &all.api {
        api.ask("wait_sites", json!({ "names": SITES, "timeout": START.as_secs() })).await?;
        return Ok(());
    }
    for site in SITES {
        all.server()?.wait_for(&format!("{site} joined"), START).await?;
    }
    Ok(())
}

async fn job_completes(all: &mut Federation) -> anyhow::Result<()> {
    let completed = if all.api.is_some() { completes_by_api(all).await } else { completes(all).await };
    completed.with_context(|| all.stories())
}

async fn completes_by_api(all: &mut Federation) -> anyhow::Result<()> {
    let job = all.api()?.ask("submit", json!({ "folder": all.folder.join("job") })).await?;
    let timeout = json!({ "job": job, "timeout": JOB.as_secs() });
    let meta = all.api()?.ask("wait_job", timeout).await?;
    ensure!(meta["status"] == "FINISHED:COMPLETED", "the job ended as {}: {meta}", meta["status"]);
    all.job = job.as_str().map(str::to_owned);
    Ok(())
}

async fn completes(all: &mut Federation) -> anyhow::Result<()> {
    let ended = all.server()?.ended(JOB).await?;
    ensure!(ended.success(), "the server ended with {ended}");
    let said = all.server()?.said();
    let job = said.lines().find_map(|line| line.strip_prefix("job ")?.split_whitespace().next());
    all.job = job.map(str::to_owned);
    Ok(())
}

async fn model_is_exact(all: &mut Federation) -> anyhow::Result<()> {
    if all.api.is_none() {
        let models = find(&all.project.kit_of("server"), "global.npz");
        let [path] = &models[..] else { bail!("there are {} models", models.len()) };
        let model = locule_workflow::load_npz(path)?;
        return job::check(model.get(job::KEY).and_then(|value| value.as_array()).context("no array")?);
    }
    let job = all.job()?.to_owned();
    let result = all.api()?.ask("download", json!({ "job": job })).await?;
    let result = PathBuf::from(result.as_str().context("the API tells a folder")?);
    let models = find(&result, "server.npy");
    let [path] = &models[..] else { bail!("there are {} models in {}", models.len(), result.display()) };
    job::check(&Array::from_npy(std::fs::read(path)?.into())?)
}

/// By order of the administrator, or as our own program ends: the server hears of it.
async fn sites_leave(all: &mut Federation) -> anyhow::Result<()> {
    if all.api.is_none() {
        return Ok(()); // our server has ended with its job
    }
    for site in std::mem::take(&mut all.ours) {
        site.quit().await?;
    }
    if !all.theirs.is_empty() {
        all.api()?.ask("shutdown", json!({ "target": "client" })).await?;
    }
    for site in &mut all.theirs {
        site.ended(START).await?;
    }
    let api = all.api()?;
    api.ask("wait_sites", json!({ "names": [] })).await?;
    api.ask("close", json!({})).await?;
    let ended = all.server()?.end().await;
    ended.map(drop)
}

/// The files called `name` in a folder and below.
fn find(folder: &Path, name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(find(&path, name));
        } else if path.file_name().is_some_and(|file| file == name) {
            found.push(path);
        }
    }
    found
}
