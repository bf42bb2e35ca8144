//! Our own console, `locule job`, at a server of nvflare's and at ours.

use anyhow::{Context as _, ensure};
use locule_fobs::Array;
use serde_json::Value;
use tokio::process::Command;

use super::{Checking, Crew, Fleet, Locule, Running, Stock, find, job, sites_leave, sites_register};
use crate::cells::OLDER;
use crate::project::ADMIN;
use crate::run::{Check, Run};

type Step = fn(&mut Fleet) -> Checking<'_>;

pub(super) fn suites(run: &Run) -> Vec<Running<'_>> {
    let steps = |of: [(&'static str, Step); 4]| {
        let steps = of.into_iter().map(|(name, step)| Check::new(name, step).within(150));
        [sites_register()].into_iter().chain(steps).chain([sites_leave()]).collect::<Vec<_>>()
    };
    let aborts: (&str, Step) =
        ("job abort of one that runs, watch says so; job delete", |fleet| Box::pin(abort(fleet)));
    let refuses: (&str, Step) = ("what is not there is refused as such", |fleet| Box::pin(refuse(fleet)));
    let newest = |crew: Crew| {
        let submits: (&str, Step) =
            ("job submit --watch: COMPLETED; again with its token: the same job", |fleet| {
                Box::pin(submit_twice(fleet))
            });
        let fetches: (&str, Step) = ("job list, show, logs; job download: the model is numpy's", |fleet| {
            Box::pin(look_and_fetch(fleet))
        });
        crew.run(run, crew.suite("console", false), steps([submits, fetches, aborts, refuses]))
    };
    // There are no tokens of submissions, and logs stay where they are.
    let older = |version| {
        let crew = Crew::new(Stock, [Stock, Stock]).of(version);
        let submits: (&str, Step) =
            ("job submit --watch: COMPLETED", |fleet| Box::pin(async { submit(fleet, &[]).await.map(drop) }));
        let fetches: (&str, Step) =
            ("job list, show; job download: the model is numpy's", |fleet| Box::pin(fetch(fleet)));
        crew.run(run, crew.suite("console", true), steps([submits, fetches, aborts, refuses]))
    };
    let crews = [Crew::new(Stock, [Stock, Stock]), Crew::new(Locule, [Stock, Stock])];
    crews.into_iter().map(newest).chain(OLDER.into_iter().map(older)).collect()
}

/// Runs `locule job` as the administrator: the exit code, and what it prints.
async fn console(fleet: &Fleet, arguments: &[&str]) -> anyhow::Result<(Option<i32>, String, String)> {
    let mut command = Command::new(e2e::binary());
    command.arg("job").args(arguments).arg("--kit").arg(fleet.project.kit(ADMIN));
    let output =
        command.current_dir(&fleet.folder).kill_on_drop(true).output().await.context("locule job")?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((output.status.code(), text(output.stdout), text(output.stderr)))
}

/// The same, for a command that must succeed; the last document that it prints.
async fn ask(fleet: &Fleet, arguments: &[&str]) -> anyhow::Result<Value> {
    let all = [arguments, &["--output", "json"]].concat();
    let (code, out, said) = console(fleet, &all).await?;
    ensure!(code == Some(0), "{arguments:?} ended with {code:?}: {said}");
    let last = out.lines().last().with_context(|| format!("{arguments:?} prints nothing"))?;
    serde_json::from_str(last).with_context(|| format!("{arguments:?}: {last}"))
}

/// Submits the job and follows it to its end; its folder.
async fn submit(fleet: &mut Fleet, more: &[&str]) -> anyhow::Result<String> {
    let folder = fleet.folder.join("console-job");
    job::write(&folder, job::SMALL)?;
    let folder = folder.to_str().context("the folder's name")?.to_owned();
    let told = ask(fleet, &[&["submit", &folder, "--watch"], more].concat()).await?;
    ensure!(told["status"] == "FINISHED:COMPLETED" && told["submitter"]["name"] == ADMIN, "{told}");
    fleet.job = told["id"].as_str().map(str::to_owned);
    Ok(folder)
}

async fn submit_twice(fleet: &mut Fleet) -> anyhow::Result<()> {
    let folder = submit(fleet, &["--submit-token", "one"]).await?;
    let again = ask(fleet, &["submit", &folder, "--submit-token", "one"]).await?;
    ensure!(again["job_id"].as_str() == fleet.job.as_deref(), "{again}");
    Ok(())
}

async fn look_and_fetch(fleet: &mut Fleet) -> anyhow::Result<()> {
    let id = fleet.job.clone().context("no job has completed")?;
    let logs = ask(fleet, &["logs", &id, "--site", "server"]).await?;
    ensure!(logs["logs"]["server"].as_str().is_some_and(|log| !log.is_empty()), "{logs}");
    fetch(fleet).await
}

async fn fetch(fleet: &mut Fleet) -> anyhow::Result<()> {
    let id = fleet.job.clone().context("no job has completed")?;
    let listed = ask(fleet, &["list"]).await?;
    ensure!(listed.as_array().map(Vec::len) == Some(1) && listed[0]["id"] == id, "{listed}");
    let shown = ask(fleet, &["show", &id[..8]]).await?;
    ensure!(shown["meta"]["job_id"] == id, "{shown}");

    fleet.fetch_result().await?; // by then the server has stored it
    let into = fleet.folder.join("console-result");
    ask(fleet, &["download", &id, "--dir", into.to_str().context("the folder's name")?]).await?;
    ensure!(into.join("job/console-job/meta.json").exists() && into.join("meta.json").exists());
    let models = find(&into, "server.npy");
    let [path] = &models[..] else { anyhow::bail!("there are {} models", models.len()) };
    job::check(&Array::from_npy(std::fs::read(path)?.into())?, job::SMALL)
}

async fn abort(fleet: &mut Fleet) -> anyhow::Result<()> {
    let folder = fleet.folder.join("console-long-job");
    job::write_long(&folder)?;
    let told = ask(fleet, &["submit", folder.to_str().context("the folder's name")?]).await?;
    let id = told["job_id"].as_str().context("the job has an id")?.to_owned();
    fleet.api.ask("wait_running", serde_json::json!({ "job": id })).await?;
    let (code, _, said) = console(fleet, &["delete", &id]).await?;
    ensure!(code == Some(1) && said.contains("locule job watch"), "{code:?}: {said}");
    ask(fleet, &["abort", &id]).await?;
    let (code, out, said) = console(fleet, &["watch", &id]).await?;
    ensure!(code == Some(1) && said.contains("FINISHED:ABORTED"), "{code:?}: {out}{said}");
    ask(fleet, &["delete", &id]).await?;
    Ok(())
}

async fn refuse(fleet: &mut Fleet) -> anyhow::Result<()> {
    for id in ["3e2d9f0e-1111-4222-8333-444455556666", "ffffffff"] {
        let (code, _, said) = console(fleet, &["show", id]).await?;
        ensure!(
            code == Some(66) && said.contains("no such job") | said.contains("no job"),
            "{code:?}: {said}"
        );
    }
    Ok(())
}
