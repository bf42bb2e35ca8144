//! Whole federations of processes: a server, perhaps a relay, two sites, and an administrator's FLARE API.

mod admin;
mod console;
mod federation;
mod job;
mod kits;
mod marks;
mod refusals;
mod relays;
mod scripts;
mod simulation;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures_util::{StreamExt as _, stream};
use locule_fobs::Array;
use serde_json::{Value, json};

use crate::cells::VERSION;
use crate::process::{Process, Program};
use crate::project::{ADMIN, Plan, Project, Provisioner, RELAY, SERVER};
use crate::python::{Peer, Python};
use crate::run::{Check, Checking, Run, Suite};

/// How long a server or a site may take to start, and a site to be known.
const START: Duration = Duration::from_secs(60);
/// How long a job may take.
const JOB: Duration = Duration::from_secs(90);
/// How long a job that has completed may take to be stored.
const STORED: Duration = Duration::from_secs(20);
/// Fleets that run at the same time: they spend most of theirs waiting.
const AT_ONCE: usize = 5;

const SITES: [&str; 2] = ["site-1", "site-2"];

/// Every case of whole federations.
pub(crate) async fn run(run: &Run) -> anyhow::Result<()> {
    let mut suites = federation::suites(run);
    suites.extend(relays::suites(run));
    suites.extend(admin::suites(run));
    suites.extend(console::suites(run));
    suites.extend(kits::suites(run));
    suites.extend(scripts::suites(run));
    suites.push(simulation::suite(run));
    suites.push(marks::suite(run));
    let ended: Vec<_> = stream::iter(suites).buffered(AT_ONCE).collect().await;
    ended.into_iter().collect()
}

/// A suite that has not begun.
type Running<'r> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'r>>;

/// Whose program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Python,
    Locule,
}

use Who::{Locule, Python as Stock};

/// Who runs what, and how it is started.
#[derive(Clone, Copy, Debug)]
struct Crew {
    server: Who,
    /// What is between the server and all sites, or some.
    relay: Option<(Who, &'static [&'static str])>,
    sites: [Who; 2],
    scheme: &'static str,
    provisioner: Provisioner,
    /// By the kit's own `start.sh`, as a person would; otherwise so that it ends with us.
    by_script: bool,
    /// Of nvflare, whose provisioner, processes and FLARE API take part.
    version: &'static str,
}

impl Crew {
    const fn new(server: Who, sites: [Who; 2]) -> Self {
        let provisioner = Provisioner::Nvflare;
        let version = VERSION;
        Self { server, relay: None, sites, scheme: "grpc", provisioner, by_script: false, version }
    }

    /// The same, behind a relay.
    const fn behind(self, relay: Who) -> Self {
        Self { relay: Some((relay, &SITES)), ..self }
    }

    const fn over(self, scheme: &'static str) -> Self {
        Self { scheme, ..self }
    }

    /// The same with another version of nvflare.
    const fn of(self, version: &'static str) -> Self {
        Self { version, ..self }
    }

    fn role(self) -> String {
        let relay = self.relay.map_or_else(String::new, |(who, _)| format!("{who:?} relay, "));
        let [first, second] = self.sites;
        let sites = if first == second { format!("{first:?} sites") } else { "sites of both".to_owned() };
        format!("{:?} server, {relay}{sites}", self.server)
    }

    fn suite(self, group: &'static str, slow: bool) -> Suite {
        let (carrier, version) = (self.scheme.to_owned(), self.version.to_owned());
        Suite { group, carrier, role: self.role(), version, slow }
    }

    /// Runs checks in a fleet of this crew.
    fn run(self, run: &Run, suite: Suite, checks: Vec<Check<Fleet>>) -> Running<'_> {
        Box::pin(async move {
            let set_up = async |folder: &Path, python: &Python| Fleet::start(self, python, folder).await;
            run.suite(&suite, checks, set_up).await
        })
    }
}

/// A crew that runs.
struct Fleet {
    crew: Crew,
    python: Python,
    project: Project,
    folder: PathBuf,
    server: Process,
    relay: Option<Process>,
    sites: Vec<Process>,
    api: Peer,
    /// The job that completed last.
    job: Option<String>,
}

impl Fleet {
    async fn start(crew: Crew, python: &Python, folder: &Path) -> anyhow::Result<Self> {
        Self::start_prepared(crew, python, folder, |_| Ok(())).await
    }

    /// Starts it when `prepare` has changed the kits.
    async fn start_prepared(
        crew: Crew,
        python: &Python,
        folder: &Path,
        prepare: impl FnOnce(&Project) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let Crew { scheme, provisioner, .. } = crew;
        let relay = crew.relay.map(|(_, behind)| (e2e::free_port(), behind));
        let plan = Plan { scheme, provisioner, relay, ..Plan::default() };
        let project = Project::provision(python, folder, &plan).await?;
        prepare(&project)?;

        let begin = |who, verb, name: &str| {
            let program = match who {
                _ if crew.by_script => Program::Script(python),
                Stock => Program::Stock(python),
                Locule => Program::Locule(verb),
            };
            Process::start(program, &project.kit(name), &folder.join(format!("{name}.log")))
        };
        let mut server = begin(crew.server, "server", SERVER)?;
        let ready = if crew.server == Stock { "Server started" } else { "listening at" };
        server.wait_for(ready, START).await?;
        let relay = crew.relay.map(|(who, _)| begin(who, "relay", RELAY)).transpose()?;
        let sites = SITES.into_iter().zip(crew.sites).map(|(name, who)| begin(who, "site", name));
        let sites = sites.collect::<Result<_, _>>()?;
        let api = log_in(python, &project, ADMIN, folder).await?;
        let (python, folder) = (python.clone(), folder.to_owned());
        let mut fleet = Self { crew, python, project, folder, server, relay, sites, api, job: None };
        registered(&mut fleet).await?;
        Ok(fleet)
    }

    /// Has a job carried out; its id.
    async fn complete(&mut self, folder: &Path) -> anyhow::Result<()> {
        let job = self.api.ask("submit", json!({ "folder": folder })).await?;
        let wait = json!({ "job": job, "timeout": JOB.as_secs() });
        let meta = self.api.ask("wait_job", wait).await?;
        ensure!(meta["status"] == "FINISHED:COMPLETED", "the job ended as {}: {meta}", meta["status"]);
        self.job = job.as_str().map(str::to_owned);
        Ok(())
    }

    /// Whether the job that completed last left the model that it must, by way of its administrator.
    async fn check_result(&self, side: usize) -> anyhow::Result<()> {
        let result = self.fetch_result().await?;
        let models = find(&result, "server.npy");
        let [path] = &models[..] else { bail!("there are {} models in {}", models.len(), result.display()) };
        job::check(&Array::from_npy(std::fs::read(path)?.into())?, side)
    }

    /// The folder that the administrator gets. nvflare's server says that a job has completed a moment before it
    /// stores what came of it, so that who is quick gets the job without.
    async fn fetch_result(&self) -> anyhow::Result<PathBuf> {
        let job = self.job.as_ref().context("no job has completed")?;
        let ask = json!({ "job": job, "to": self.folder.join("results") });
        let mut again = tokio::time::interval(Duration::from_secs(1));
        for _ in 0..STORED.as_secs() {
            again.tick().await;
            let result = self.api.ask("download", ask.clone()).await?;
            let result = PathBuf::from(result.as_str().context("the API tells a folder")?);
            if result.join("workspace").exists() {
                return Ok(result);
            }
            std::fs::remove_dir_all(&result).with_context(|| format!("remove {}", result.display()))?;
        }
        bail!("what came of {job} is not stored after {STORED:?}")
    }
}

/// An administrator's session through the FLARE API.
async fn log_in(python: &Python, project: &Project, user: &str, folder: &Path) -> anyhow::Result<Peer> {
    let api = Peer::start(python, "flare_api.py", &[], &folder.join(format!("api-{user}.log")))?;
    api.ask("connect", json!({ "user": user, "kit": project.kit(user) })).await?;
    Ok(api)
}

fn sites_register() -> Check<Fleet> {
    Check::new("both sites register", |fleet| Box::pin(registered(fleet))).within(90)
}

fn job_completes() -> Check<Fleet> {
    let name = "a job of three rounds completes; its model is numpy's, bit for bit";
    Check::new(name, |fleet: &mut Fleet| Box::pin(complete_and_check(fleet, job::SMALL))).within(120)
}

fn sites_leave() -> Check<Fleet> {
    Check::new("the sites leave when they are told to", |fleet| Box::pin(leave(fleet))).within(90)
}

async fn registered(fleet: &mut Fleet) -> anyhow::Result<()> {
    fleet.api.ask("wait_sites", json!({ "names": SITES, "timeout": START.as_secs() })).await.map(drop)
}

async fn complete_and_check(fleet: &mut Fleet, side: usize) -> anyhow::Result<()> {
    let job = fleet.folder.join(format!("job-{side}"));
    job::write(&job, side)?;
    fleet.complete(&job).await?;
    fleet.check_result(side).await
}

async fn leave(fleet: &mut Fleet) -> anyhow::Result<()> {
    fleet.api.ask("shutdown", json!({ "target": "client" })).await?;
    for (site, who) in fleet.sites.iter_mut().zip(fleet.crew.sites) {
        let ended = site.ended(START).await?;
        // nvflare's own processes end themselves by signal 9 if a thread of theirs is still there.
        let by_itself = who == Stock && ended.code() == Some(128 + 9);
        ensure!(ended.success() || by_itself, "a site ended with {ended}");
    }
    let known = fleet.api.ask("sites", json!({})).await?;
    ensure!(known == Value::Array(vec![]), "the server still knows {known}");
    let after = fleet.api.ask("close", json!({})).await?;
    ensure!(after == "SessionClosed", "who has logged out is told {after}");
    fleet.server.end().await.map(drop)
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
