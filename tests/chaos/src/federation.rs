//! A federation of processes that can be killed one by one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

const SITES: [&str; 3] = ["site-1", "site-2", "site-3"];
const RELAY: &str = "relay-1";
const ADMIN: &str = "admin@locule.org";

/// From one look at the job to the next. Each is a visit of an administrator, of whom the server takes one a second.
pub(crate) const LOOK: Duration = Duration::from_millis(1500);

/// The shortest time that passes.
const MOMENT: Duration = Duration::from_millis(20);

/// Lines of each log that are shown when something went wrong.
const LAST_LINES: usize = 12;

/// A process that may be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The process of a server, relay or site, by its place.
    Daemon(usize),
    /// What it started for the job.
    Job(usize),
}

impl Target {
    pub(crate) const SORTS: [&'static str; 5] =
        ["server", "relay", "site", "job's process at the server", "job's process at a site"];

    pub(crate) fn sort(self) -> &'static str {
        let place = match self {
            Target::Daemon(0) => 0,
            Target::Daemon(1) => 1,
            Target::Daemon(_) => 2,
            Target::Job(0) => 3,
            Target::Job(_) => 4,
        };
        Target::SORTS[place]
    }
}

/// How far the job is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) rounds: u64,
    pub(crate) is_over: bool,
}

/// A server, a relay, three sites, and a job.
#[derive(Debug)]
pub(crate) struct Federation {
    folder: PathBuf,
    kits: PathBuf,
    /// The server, the relay, then the sites.
    daemons: Vec<Daemon>,
    job: String,
}

#[derive(Debug)]
struct Daemon {
    name: &'static str,
    command: Vec<String>,
    log: PathBuf,
    child: Child,
}

impl Federation {
    /// Makes kits and a job, starts everybody, and submits the job.
    pub(crate) fn start(folder: &Path, rounds: u64) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let kits = provision(folder)?;
        let job = write_job(folder, &kits, rounds)?;
        let mut federation =
            Self { folder: folder.to_owned(), kits, daemons: Vec::new(), job: String::new() };
        let heartbeat = ["--heartbeat", "1"];
        for (name, word, options) in [("server", "server", &[][..]), (RELAY, "relay", &[])]
            .into_iter()
            .chain(SITES.map(|site| (site, "site", &heartbeat[..])))
        {
            let kit = federation.kits.join(name);
            let mut command = vec![word.to_owned(), text(&kit)?];
            command.extend(["-v", "--stop-with-stdin"].map(str::to_owned));
            command.extend(options.iter().map(|option| (*option).to_owned()));
            let log = folder.join(format!("{name}.log"));
            let child = spawn(&command, &log)?;
            federation.daemons.push(Daemon { name, command, log, child });
        }
        let until = Instant::now() + e2e::PATIENCE;
        federation.job = loop {
            match federation.ask(&["submit", &text(&job)?]) {
                Ok(answer) => break answer["job_id"].as_str().context("a job has an id")?.to_owned(),
                Err(error) if Instant::now() > until => return Err(error).context(federation.last_words()),
                Err(_) => pause(LOOK),
            }
        };
        Ok(federation)
    }

    /// Everything that may be killed.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let all = 0..self.daemons.len();
        let jobs = all.clone().filter(|place| self.daemons[*place].name != RELAY).map(Target::Job);
        all.map(Target::Daemon).chain(jobs).collect()
    }

    pub(crate) fn name(&self, target: Target) -> String {
        match target {
            Target::Daemon(place) => self.daemons[place].name.to_owned(),
            Target::Job(place) => format!("the job's process at {}", self.daemons[place].name),
        }
    }

    /// Kills a process by signal 9, and starts it again if nobody else does; whether there was one.
    pub(crate) fn kill(&mut self, target: Target) -> anyhow::Result<bool> {
        match target {
            Target::Daemon(place) => {
                let daemon = &mut self.daemons[place];
                if let Some(status) = daemon.child.try_wait()? {
                    bail!("{} ended by itself: {status}", daemon.name);
                }
                daemon.child.kill()?;
                daemon.child.wait()?;
                daemon.child = spawn(&daemon.command, &daemon.log)?;
                Ok(true)
            }
            Target::Job(place) => {
                let Some(id) = e2e::children_of(self.daemons[place].child.id()).first().copied() else {
                    return Ok(false);
                };
                let killed =
                    Command::new("kill").args(["-KILL", &id.to_string()]).stderr(Stdio::null()).status()?;
                Ok(killed.success())
            }
        }
    }

    /// What the server says of the job, if it can be asked; an error if the job ended otherwise than it should.
    pub(crate) fn look(&self) -> anyhow::Result<Option<Progress>> {
        let Ok(record) = self.ask(&["show", &self.job]) else { return Ok(None) };
        let status = record["status"].as_str().unwrap_or_default();
        ensure!(
            !status.starts_with("FINISHED") || status == "FINISHED:COMPLETED",
            "the job ended: {record:#}"
        );
        let rounds = record["progress"]["rounds_done"].as_u64().unwrap_or_default();
        Ok(Some(Progress { rounds, is_over: status == "FINISHED:COMPLETED" }))
    }

    /// Waits for some time, or until so many rounds are done.
    pub(crate) fn wait_for_round(&self, round: u64, time: Duration) {
        let done = self.kits.join("server").join(&self.job).join(format!("models/round-{round:04}.npz"));
        let until = Instant::now() + time;
        while Instant::now() < until && !done.exists() {
            pause(MOMENT);
        }
    }

    /// Waits until the job has completed.
    pub(crate) fn wait_for_end(&self, patience: Duration) -> anyhow::Result<()> {
        let (mut last, mut since) = (None, Instant::now());
        loop {
            let look = self.look()?;
            match look {
                Some(Progress { is_over: true, .. }) => return Ok(()),
                Some(Progress { rounds, .. }) if last != Some(rounds) => {
                    (last, since) = (Some(rounds), Instant::now())
                }
                Some(_) | None if since.elapsed() > patience => {
                    bail!("the job makes no progress after {} rounds", last.unwrap_or_default());
                }
                Some(_) | None => {}
            }
            pause(LOOK);
        }
    }

    /// The model that the job has come to.
    pub(crate) fn model(&self) -> PathBuf {
        self.kits.join("server").join(&self.job).join("models/global.npz")
    }

    /// The ends of all logs.
    pub(crate) fn last_words(&self) -> String {
        let of = |daemon: &Daemon| {
            let log = fs::read_to_string(&daemon.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.len().saturating_sub(LAST_LINES);
            format!("--- {}\n{}\n", daemon.name, lines[last..].join("\n"))
        };
        let logs: String = self.daemons.iter().map(of).collect();
        format!("in {}\n{logs}", self.folder.display())
    }

    fn ask(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let kit = text(&self.kits.join(ADMIN))?;
        let output = e2e::locule(&["job"])
            .args(arguments)
            .args(["--kit", &kit, "--output", "json"])
            .output()
            .context("ask the server")?;
        ensure!(output.status.success(), "{}", e2e::said(&output));
        serde_json::from_slice(&output.stdout).context("an answer is JSON")
    }
}

impl Drop for Federation {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            daemon.child.kill().ok();
            daemon.child.wait().ok();
        }
    }
}

/// Lets time pass: that a moment is random is what this is about.
#[expect(clippy::disallowed_methods, reason = "there is nothing else to wait for")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn spawn(command: &[String], log: &Path) -> anyhow::Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    let child = Command::new(e2e::binary())
        .args(command)
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn();
    child.context("the binary starts")
}

fn provision(folder: &Path) -> anyhow::Result<PathBuf> {
    let mut participants = vec![
        json!({ "name": "server", "type": "server", "org": "locule", "default_host": "localhost",
            "fed_learn_port": e2e::free_port() }),
        json!({ "name": RELAY, "type": "relay", "org": "locule", "listening_host":
            { "default_host": "localhost", "port": e2e::free_port(), "scheme": "grpc", "connection_security": "mtls" } }),
        json!({ "name": ADMIN, "type": "admin", "org": "locule", "role": "project_admin" }),
    ];
    participants.extend(SITES.map(|site| json!({ "name": site, "type": "client", "org": "locule" })));
    if let Some(last) = participants.last_mut() {
        last["connect_to"] = json!({ "name": RELAY });
    }
    let project = json!({ "api_version": 3, "name": "chaos", "participants": participants });
    let file = folder.join("project.yml");
    fs::write(&file, project.to_string())?;
    succeeds(&["provision", &text(&file)?, "--workspace", &text(folder)?])?;
    Ok(folder.join("chaos/prod_00"))
}

/// The job and the rows of the demo, with this many rounds.
fn write_job(folder: &Path, kits: &Path, rounds: u64) -> anyhow::Result<PathBuf> {
    let demo = folder.join("demo");
    succeeds(&["demo", "--dir", &text(&demo)?, "--sites", "3", "--rounds", "1", "--transport", "mem"])?;
    for site in SITES {
        fs::copy(demo.join("project/prod_00").join(site).join("data.csv"), kits.join(site).join("data.csv"))?;
    }
    let job = demo.join("job");
    let file = job.join("app/config/config_fed_server.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
    config["workflows"][1]["args"]["num_rounds"] = rounds.into();
    fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
    succeeds(&["sign", &text(&job)?, "--kit", &text(&kits.join(ADMIN))?])?;
    Ok(job)
}

fn succeeds(arguments: &[&str]) -> anyhow::Result<()> {
    let output = e2e::run(arguments);
    ensure!(output.status.success(), "{arguments:?}: {}", e2e::said(&output));
    Ok(())
}

fn text(path: &Path) -> anyhow::Result<String> {
    path.to_str().map(str::to_owned).context("paths are UTF-8")
}
