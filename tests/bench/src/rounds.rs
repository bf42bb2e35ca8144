//! A whole job of federated averaging, from an empty folder to its result, with processes for the server, for every site,
//! and for the job's half at each.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::json;

use crate::compare::{Bench, Figures};
use crate::processes::{MARK, Watcher, family};

const SITES: u64 = 8;
const ROUNDS: u64 = 5;
const MB: u64 = 1_000_000;

/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// What is compared with, and how much better ours is to be, in all and for a round.
const PEERS: [(&str, &str, [f64; 2]); 2] =
    [("sim", "nvflare 2.9.0, simulator", [10.0, 3.5]), ("poc", "nvflare 2.9.0, processes", [20.0, 4.0])];

/// What a run came to.
struct Course {
    seconds: f64,
    /// The median of the times from one round to the next.
    round: f64,
    /// Of all its processes together, in bytes.
    memory: f64,
}

pub(crate) fn rows(bench: &mut Bench) -> anyhow::Result<()> {
    for megabytes in [10, 100] {
        let name = format!("{SITES} sites, {megabytes} MB, {ROUNDS} rounds");
        let peers: Vec<_> =
            PEERS.into_iter().filter(|(_, peer, _)| bench.wants(&format!("{name}: {peer}"))).collect();
        if peers.is_empty() {
            continue;
        }
        let binary = release_build()?;
        let mut ours = Vec::new();
        let mut theirs: Vec<Vec<Course>> = peers.iter().map(|_| Vec::new()).collect();
        for _ in 0..bench.few_turns() {
            ours.push(run_ours(&binary, megabytes * MB)?);
            for ((env, ..), courses) in peers.iter().zip(&mut theirs) {
                courses.push(run_peer(env, megabytes * MB)?);
            }
        }
        for ((_, peer, goals), theirs) in peers.iter().zip(&theirs) {
            let figures = |of: fn(&Course) -> f64| [&ours, theirs].map(|all| Figures::of(all.iter().map(of)));
            bench.figures(&format!("{name}: in all"), figures(|run| run.seconds), peer, "s", goals[0]);
            bench.figures(&format!("{name}: a round"), figures(|run| run.round), peer, "s", goals[1]);
            let memory = figures(|run| run.memory / MB as f64);
            bench.figures(&format!("{name}: memory of all processes"), memory, peer, "MB", 4.0);
        }
    }
    Ok(())
}

/// The program as it is given out.
fn release_build() -> anyhow::Result<PathBuf> {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--package", "locule", "--message-format", "json"])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(built.status.success(), "the release build failed");
    let messages = String::from_utf8(built.stdout)?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut built = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    built.next_back().context("cargo names no program")
}

fn run_ours(binary: &Path, bytes: u64) -> anyhow::Result<Course> {
    let folder = tempfile::tempdir()?;
    let run = folder.path().display().to_string();
    let watcher = Watcher::of(run.clone());
    let begin = Instant::now();
    let federation = Federation::start(binary, folder.path(), &run)?;
    let job = write_job(folder.path(), bytes)?;
    federation.complete(&job)?;
    let seconds = begin.elapsed().as_secs_f64();
    let rounds = federation.rounds()?;
    drop(federation);
    Ok(Course { seconds, round: median_gap(&rounds), memory: watcher.peak() as f64 })
}

/// A server and its sites; killed when dropped.
struct Federation {
    binary: PathBuf,
    kits: PathBuf,
    daemons: Vec<Child>,
}

impl Federation {
    fn start(binary: &Path, folder: &Path, run: &str) -> anyhow::Result<Self> {
        let port = e2e::free_port().to_string();
        let (dir, sites) = (folder.display().to_string(), SITES.to_string());
        succeeds(Command::new(binary).args([
            "provision",
            "--dir",
            &dir,
            "--sites",
            &sites,
            "--port",
            &port,
        ]))?;
        let kits = folder.join("project/prod_00");
        let mut federation = Self { binary: binary.to_owned(), kits, daemons: Vec::new() };
        let names = (1..=SITES).map(|site| ("site", format!("site-{site}")));
        for (word, name) in [("server", "server".to_owned())].into_iter().chain(names) {
            let log = File::create(folder.join(format!("{name}.log")))?;
            let child = Command::new(binary)
                .arg(word)
                .arg(federation.kits.join(&name))
                .env(MARK, run)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()?;
            federation.daemons.push(child);
        }
        Ok(federation)
    }

    /// Has a job carried out, as soon as the server listens.
    fn complete(&self, job: &Path) -> anyhow::Result<()> {
        let kit = self.kits.join("admin@locule.org");
        let submit = || {
            let mut command = Command::new(&self.binary);
            command.args(["job", "submit"]).arg(job).arg("--kit").arg(&kit).arg("--watch");
            command.output().context("submit")
        };
        let until = Instant::now() + PATIENCE;
        loop {
            let output = submit()?;
            if output.status.success() {
                return Ok(());
            }
            let said = said(&output);
            // The server may not listen yet.
            ensure!(said.contains("not reached") && Instant::now() < until, "the job failed: {said}");
        }
    }

    /// When the model of each round was there.
    fn rounds(&self) -> anyhow::Result<Vec<f64>> {
        for entry in fs::read_dir(self.kits.join("server"))? {
            let models = entry?.path().join("models");
            if models.is_dir() {
                let at = |round| {
                    let model = fs::metadata(models.join(format!("round-{round:04}.npz")))?.modified()?;
                    anyhow::Ok(model.duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64())
                };
                return (1..=ROUNDS).map(at).collect();
            }
        }
        bail!("the server keeps no models")
    }
}

impl Drop for Federation {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.kill(); // it may have ended by itself
            let _ = daemon.wait();
        }
    }
}

/// Averages arrays to which every site adds 1.
fn write_job(folder: &Path, bytes: u64) -> anyhow::Result<PathBuf> {
    let job = folder.join("job");
    let config = job.join("app/config");
    fs::create_dir_all(&config)?;
    let model = json!({ "numpy_key": { "shape": [bytes / 4], "dtype": "float32" } });
    let rounds = json!({ "num_rounds": ROUNDS, "min_clients": SITES, "model": model });
    let server = json!({ "format_version": 2,
        "workflows": [{ "id": "rounds", "path": "locule.workflow.FedAvg", "args": rounds }] });
    let trainer = "nvflare.app_common.np.np_trainer.NPTrainer";
    let site = json!({ "format_version": 2,
        "executors": [{ "tasks": ["train"], "executor": { "path": trainer, "args": {} } }] });
    let meta = json!({ "name": "bench", "resource_spec": {}, "min_clients": SITES, "deploy_map": { "app": ["@ALL"] } });
    fs::write(job.join("meta.json"), meta.to_string())?;
    fs::write(config.join("config_fed_server.json"), server.to_string())?;
    fs::write(config.join("config_fed_client.json"), site.to_string())?;
    Ok(job)
}

#[derive(Deserialize)]
struct Told {
    seconds: f64,
    rounds: Vec<f64>,
    status: String,
}

fn run_peer(env: &str, bytes: u64) -> anyhow::Result<Course> {
    let folder = tempfile::tempdir()?;
    let run = folder.path().display().to_string();
    let watcher = Watcher::of(run.clone());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/fed_avg_peer.py");
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &PATIENCE.as_secs().to_string()]);
    command.arg(interop::python_with_nvflare()?).arg(script).arg(env);
    command.args([SITES, bytes, ROUNDS].map(|number| number.to_string())).arg(folder.path());
    command.env(MARK, &run).env("HOME", folder.path()).env("OMP_NUM_THREADS", "1");
    let output =
        command.env("NVFLARE_POC_WORKSPACE", folder.path().join("poc")).stdin(Stdio::null()).output()?;
    for id in family(&run) {
        Command::new("kill").args(["-KILL", &id.to_string()]).status()?;
    }
    let log = || fs::read_to_string(folder.path().join("said.log")).unwrap_or_default();
    let told: Told = serde_json::from_slice(&output.stdout).with_context(log)?;
    ensure!(told.rounds.len() as u64 == ROUNDS - 1, "{}: {}", told.status, log());
    let mut gaps = told.rounds;
    gaps.sort_by(f64::total_cmp);
    Ok(Course { seconds: told.seconds, round: gaps[gaps.len() / 2], memory: watcher.peak() as f64 })
}

fn median_gap(times: &[f64]) -> f64 {
    let mut gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_by(f64::total_cmp);
    gaps.get(gaps.len() / 2).copied().unwrap_or_default()
}

fn succeeds(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", said(&output));
    Ok(())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
