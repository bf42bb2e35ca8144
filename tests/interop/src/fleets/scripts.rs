//! Training scripts of nvflare's Client API at sites of ours, in an interpreter that has the real nvflare.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::federation::recipe_completes;
use super::{Crew, Fleet, Locule, Running, SITES, START, Stock, job, sites_leave, sites_register};
use crate::project::{Project, SERVER};
use crate::python::Python;
use crate::run::{Check, Run};

const EXECUTOR: &str = "nvflare.app_common.executors.client_api_executor.ClientAPIExecutor";

pub(super) fn suites(run: &Run) -> Vec<Running<'_>> {
    let begin = |crew: Crew| {
        let ours = crew.server == Locule;
        let recipe =
            Check::new("a recipe's script runs in the site's interpreter, with the same model", |fleet| {
                Box::pin(recipe_completes(fleet))
            });
        let mut checks = vec![sites_register(), recipe.within(120)];
        if crew.sites == [Locule, Locule] {
            checks.push(
                Check::new("a command trains and logs metrics; the site keeps them", |fleet| {
                    Box::pin(command_completes(fleet))
                })
                .within(120),
            );
        }
        if ours && crew.sites == [Locule, Locule] {
            let name = "a script of our own package trains, without nvflare";
            checks.push(Check::new(name, |fleet| Box::pin(own_completes(fleet))).within(120));
            let name = "a script may be started for each task";
            checks.push(Check::new(name, |fleet| Box::pin(starts_for_each_task(fleet))).within(120));
            let failures: [(&str, &'static [&'static str], &'static str); 4] = [
                (
                    "what a script that fails says last is told to the submitter",
                    &["fail"],
                    "ValueError: no such column: age",
                ),
                ("a script that exits is told with its code", &["exit"], "the script ended with code 3"),
                ("a script that stands still is given up", &["hang"], "the script gives no sign of life"),
                ("a script with another's token gets no session", &["masked"], "launch token mismatch"),
            ];
            for (name, words, told) in failures {
                let check = Check::new(name, move |fleet| Box::pin(fails(fleet, words, told)));
                checks.push(check.within(90));
            }
            checks.push(
                Check::new(
                    "a script reaches neither the site's key nor its environment, files and process",
                    |fleet| Box::pin(is_confined(fleet)),
                )
                .within(90),
            );
            checks.push(
                Check::new("a script that floods its output fills no disk", |fleet| Box::pin(floods(fleet)))
                    .within(120),
            );
            checks.push(
                Check::new("an aborted job leaves no process of its script", |fleet| {
                    Box::pin(leaves_no_process(fleet))
                })
                .within(120),
            );
        }
        if ours && crew.sites == [Locule, Locule] {
            let name = "a site that is killed takes its script along";
            checks.push(Check::new(name, |fleet| Box::pin(dies_with_its_site(fleet))).within(120));
        }
        checks.push(sites_leave());
        let suite = crew.suite("scripts", false);
        let running: Running<'_> = Box::pin(async move {
            let set_up = async |folder: &Path, python: &Python| {
                let interpreter = python.program().to_owned();
                Fleet::start_prepared(crew, python, folder, |project| prepare(crew, project, &interpreter))
                    .await
            };
            run.suite(&suite, checks, set_up).await
        });
        running
    };
    [
        Crew::new(Locule, [Locule, Locule]),
        Crew::new(Stock, [Locule, Locule]),
        Crew::new(Locule, [Locule, Stock]),
        Crew::new(Stock, [Locule, Locule]).over("tcp"),
    ]
    .into_iter()
    .map(begin)
    .collect()
}

/// What an operator writes who lets a site run scripts: the interpreter, and the class on the list of allowed ones.
fn prepare(crew: Crew, project: &Project, interpreter: &Path) -> anyhow::Result<()> {
    for (site, who) in SITES.into_iter().zip(crew.sites) {
        if who != Locule {
            continue;
        }
        let local = project.kit(site).join("local");
        let text = std::fs::read(local.join("resources.json.default"))?;
        let mut resources: Value = serde_json::from_slice(&text)?;
        resources["python"] = json!({ "interpreter": interpreter, "max_log": 1_000_000 });
        if let Some(allowed) = resources["class_allow_list"].as_array_mut() {
            allowed.push(json!(EXECUTOR));
        }
        std::fs::write(local.join("resources.json"), resources.to_string())?;
    }
    Ok(())
}

/// A job whose sites run `client_script.py` with these words.
fn write(fleet: &Fleet, name: &str, words: &[&str]) -> anyhow::Result<PathBuf> {
    write_with(fleet, name, words, true)
}

/// The same, with one process for all tasks or one for each.
fn write_with(fleet: &Fleet, name: &str, words: &[&str], launch_once: bool) -> anyhow::Result<PathBuf> {
    let folder = fleet.folder.join(name);
    job::write(&folder, job::SMALL)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/client_script.py");
    let command: Vec<&str> =
        ["python3", "-u", "custom/client_script.py"].iter().chain(words).copied().collect();
    let executor = json!({ "path": EXECUTOR, "args": {
        "execution_mode": "external_process", "command": command, "heartbeat_interval": 1.0,
        "heartbeat_timeout": 4.0, "stop_grace_period": 1.0, "params_exchange_format": "numpy",
        "launch_once": launch_once,
    } });
    let config = json!({ "format_version": 2, "executors": [{ "tasks": ["*"], "executor": executor }] });
    for app in ["app_1", "app_2"] {
        let app = folder.join(app);
        std::fs::create_dir_all(app.join("custom"))?;
        std::fs::copy(&script, app.join("custom/client_script.py"))?;
        std::fs::write(app.join("config/config_fed_client.json"), config.to_string())?;
    }
    Ok(folder)
}

async fn command_completes(fleet: &mut Fleet) -> anyhow::Result<()> {
    let job = write(fleet, "command", &["train"])?;
    if fleet.crew.server == Stock {
        record_metrics(&job)?;
    }
    fleet.complete(&job).await?;
    let id = fleet.job.clone().context("a job has completed")?;
    for site in SITES {
        let kept = std::fs::read_to_string(fleet.project.kit(site).join(&id).join("metrics.jsonl"))?;
        let lines: Vec<Value> = kept.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let steps: Vec<_> = lines.iter().map(|line| (&line["key"], &line["step"])).collect();
        ensure!(
            steps == [(&json!("loss"), &json!(0)), (&json!("loss"), &json!(1)), (&json!("loss"), &json!(2))],
            "{kept}"
        );
    }
    if fleet.crew.server == Locule {
        let kept = std::fs::read_to_string(fleet.project.kit(SERVER).join(&id).join("metrics.jsonl"))?;
        for site in SITES {
            let lines = kept.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
            let logged = lines.iter().filter(|line| line["site"] == site && line["key"] == "loss");
            let told = logged.map(|line| &line["step"]);
            ensure!(told.eq([&json!(0), &json!(1), &json!(2)]), "at the server, of {site}: {kept}");
        }
    }
    if fleet.crew.server == Stock {
        let to = fleet.folder.join("recorded");
        let result = fleet.api.ask("download", json!({ "job": id, "to": to })).await?;
        let found =
            super::find(Path::new(result.as_str().context("the API tells a folder")?), "recorded.jsonl");
        let recorded = std::fs::read_to_string(found.first().context("no metric reached the server")?)?;
        let mut lines: Vec<&str> = recorded.lines().collect();
        lines.sort_unstable();
        let expected = SITES.map(|site| {
            [(0, "1.0"), (1, "0.5"), (2, "0.3333333333333333")].map(|(step, loss)| {
                format!("{site} loss AnalyticsDataType.SCALAR LogWriterName.TORCH_TB {step} {loss}")
            })
        });
        ensure!(lines == expected.concat(), "{recorded}");
    }
    Ok(())
}

/// The same model as that of the recipe's script, from one that imports Locule's package.
async fn own_completes(fleet: &mut Fleet) -> anyhow::Result<()> {
    let job = write(fleet, "own", &[])?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/own_script.py");
    for app in ["app_1", "app_2"] {
        std::fs::copy(&script, job.join(app).join("custom/client_script.py"))?;
    }
    fleet.complete(&job).await?;
    let id = fleet.job.clone().context("a job has completed")?;
    let kept = std::fs::read_to_string(fleet.project.kit(SERVER).join(&id).join("metrics.jsonl"))?;
    for site in SITES {
        let folder = fleet.project.kit(site).join(&id);
        let log = std::fs::read_to_string(folder.join("log.txt"))?;
        ensure!(log.contains("3 rounds, mapped: True, nvflare: False"), "{log}");
        let left = std::fs::read_dir(folder.join("script/arrays"))?.count();
        ensure!(left == 0, "{left} files of arrays are left");
        let told = kept.lines().filter(|line| line.contains(&format!("\"site\":\"{site}\""))).count();
        ensure!(told == 3, "at the server, of {site}: {kept}");
    }
    Ok(())
}

async fn starts_for_each_task(fleet: &mut Fleet) -> anyhow::Result<()> {
    let job = write_with(fleet, "for-each", &["train"], false)?;
    fleet.complete(&job).await?;
    let id = fleet.job.clone().context("a job has completed")?;
    for site in SITES {
        let log = std::fs::read_to_string(fleet.project.kit(site).join(&id).join("log.txt"))?;
        ensure!(log.contains("launch=3"), "it was not started for the third task: {log}");
    }
    Ok(())
}

/// Adds a component to the job's half at a stock server that writes down the metrics that reach it.
fn record_metrics(job: &Path) -> anyhow::Result<()> {
    let app = job.join("app_server");
    std::fs::create_dir_all(app.join("custom"))?;
    let recorder = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/metrics_recorder.py");
    std::fs::copy(recorder, app.join("custom/metrics_recorder.py"))?;
    let file = app.join("config/config_fed_server.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let components = config["components"].as_array_mut().context("the job has components")?;
    components.push(json!({ "id": "recorder", "path": "metrics_recorder.MetricsRecorder", "args": {} }));
    Ok(std::fs::write(file, config.to_string())?)
}

/// Has the job end, and gives what the submitter reads of it.
async fn failed(fleet: &mut Fleet, words: &[&str]) -> anyhow::Result<(String, String)> {
    let folder = write(fleet, words.first().context("a word")?, words)?;
    let id = fleet.api.ask("submit", json!({ "folder": folder })).await?;
    let meta = fleet.api.ask("wait_job", json!({ "job": id, "timeout": START.as_secs() })).await?;
    let status = meta["status"].as_str().unwrap_or_default();
    ensure!(status.starts_with("FINISHED:") && status != "FINISHED:COMPLETED", "{meta}");
    let reason = meta["status_reason"].as_str().unwrap_or_default().to_owned();
    Ok((id.as_str().unwrap_or_default().to_owned(), reason))
}

async fn fails(fleet: &mut Fleet, words: &'static [&'static str], told: &'static str) -> anyhow::Result<()> {
    let (id, reason) = failed(fleet, words).await?;
    ensure!(reason.contains(told) && SITES.iter().any(|site| reason.contains(site)), "{reason}");
    if words == ["fail"] {
        let folder = fleet.project.kit(SERVER).join(&id).join("site_logs");
        let logs = SITES.map(|site| std::fs::read_to_string(folder.join(site).join("log.txt")));
        let sent = logs.iter().flatten().any(|log| log.contains(told));
        ensure!(sent, "no site has sent why, into {}: {logs:?}", folder.display());
    }
    Ok(())
}

async fn is_confined(fleet: &mut Fleet) -> anyhow::Result<()> {
    let kit = fleet.project.kit("site-1").canonicalize()?;
    let (id, reason) = failed(fleet, &["bare", &kit.display().to_string()]).await?;
    ensure!(reason.contains("that was all"), "{reason}");
    let log = std::fs::read_to_string(kit.join(id).join("log.txt"))?;
    let seen = log.lines().find_map(|line| line.strip_prefix("seen:")).with_context(|| log.clone())?;
    let seen: Value = serde_json::from_str(seen)?;
    let denied = json!("PermissionError");
    for what in [
        "startup/client.key",
        "startup/rootCA.pem",
        "local/resources.json",
        "state",
        "environ",
        "mem",
        "shadow",
    ] {
        ensure!(seen[what] == denied, "{what}: {seen}");
    }
    for what in ["custom/new.py", "config/new.json", "../../new", "/tmp/new", "signal"] {
        ensure!(seen[what] == denied, "{what}: {seen}");
    }
    ensure!(seen["new"] == "written" && seen["files"] == json!([]) && seen["group"] == true, "{seen}");
    let environment = seen["environment"].to_string();
    ensure!(!environment.contains("CARGO") && environment.contains("NVFLARE_CLIENT_API_BOOTSTRAP"), "{seen}");
    Ok(())
}

async fn floods(fleet: &mut Fleet) -> anyhow::Result<()> {
    let job = write(fleet, "flood", &["flood"])?;
    fleet.complete(&job).await?;
    let id = fleet.job.clone().context("a job has completed")?;
    let log = std::fs::metadata(fleet.project.kit("site-1").join(id).join("log.txt"))?.len();
    ensure!((500_000..1_100_000).contains(&log), "the log has {log} bytes");
    Ok(())
}

async fn leaves_no_process(fleet: &mut Fleet) -> anyhow::Result<()> {
    let (id, processes) = linger(fleet, "aborted").await?;
    fleet.api.ask("abort", json!({ "job": id })).await?;
    fleet.api.ask("wait_job", json!({ "job": id })).await?;
    are_gone(processes.concat()).await
}

async fn dies_with_its_site(fleet: &mut Fleet) -> anyhow::Result<()> {
    let (id, [of_first, of_second]) = linger(fleet, "killed").await?;
    fleet.sites[0].kill_and_start_again().await?;
    are_gone(of_first).await?;
    fleet.api.ask("abort", json!({ "job": id })).await?;
    fleet.api.ask("wait_job", json!({ "job": id })).await?;
    are_gone(of_second).await
}

/// Starts a job whose scripts do not end when they are asked to; it and the processes of each site's script.
async fn linger(fleet: &mut Fleet, name: &str) -> anyhow::Result<(String, [Vec<String>; 2])> {
    let folder = write(fleet, name, &["linger", "pids"])?;
    let id = fleet.api.ask("submit", json!({ "folder": folder })).await?;
    fleet.api.ask("wait_running", json!({ "job": id })).await?;
    let id = id.as_str().context("the job has an id")?.to_owned();
    let mut all = [Vec::new(), Vec::new()];
    for (site, processes) in SITES.into_iter().zip(&mut all) {
        let file = fleet.project.kit(site).join(&id).join("script").join("work").join("pids");
        let read = || std::fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'));
        let told = until(START, read).await.with_context(|| format!("no script runs at {site}"))?;
        processes.extend(told.split_whitespace().map(str::to_owned));
        ensure!(processes.len() == 2, "{told}");
    }
    Ok((id, all))
}

async fn are_gone(processes: Vec<String>) -> anyhow::Result<()> {
    for process in processes {
        let gone = until(START, || {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        });
        gone.await.with_context(|| format!("process {process} is still there"))?;
    }
    Ok(())
}

/// What `look` finds, looked for again and again.
async fn until<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let searching = async {
        let mut again = tokio::time::interval(Duration::from_millis(50));
        loop {
            again.tick().await;
            if let Some(found) = look() {
                return found;
            }
        }
    };
    tokio::time::timeout(patience, searching).await.ok()
}
