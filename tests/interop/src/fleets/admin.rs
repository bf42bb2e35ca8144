//! Every call of the FLARE API, at a server of ours.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{
    Checking, Crew, Fleet, Locule, Running, SITES, START, Stock, job, job_completes, sites_leave,
    sites_register,
};
use crate::run::{Check, Run};

type Call = fn(&mut Fleet) -> Checking<'_>;

pub(super) fn suites(run: &Run) -> Vec<Running<'_>> {
    let begin = |(crew, slow): (Crew, bool)| {
        let calls: [(&str, Call); _] = [
            ("get_system_info, check_status, report_version", |fleet| Box::pin(look_around(fleet))),
            ("submit_job, show_stats, show_errors while it runs", |fleet| Box::pin(look_at_job(fleet))),
            ("abort_job, monitor_job: FINISHED:ABORTED", |fleet| Box::pin(abort(fleet))),
            ("submit_job with a submit token, get_job_logs", |fleet| Box::pin(submit_once(fleet))),
            ("clone_job, delete_job", |fleet| Box::pin(clone_and_delete(fleet))),
            ("what is no job, or not there, is refused as such", |fleet| Box::pin(refuse(fleet))),
        ];
        let calls = calls.into_iter().map(|(name, call)| Check::new(name, call).within(90));
        let checks = [sites_register()].into_iter().chain(calls).chain([
            job_completes(),
            Check::new("list_jobs, get_job_meta tell of it", |fleet| Box::pin(list(fleet))),
            sites_leave(),
        ]);
        crew.run(run, crew.suite("admin", slow), checks.collect())
    };
    let crews = [
        (Crew::new(Locule, [Stock, Stock]), false),
        (Crew::new(Locule, [Locule, Locule]), false),
        // What sites of ours answer to what nvflare's server passes on.
        (Crew::new(Stock, [Locule, Locule]), true),
    ];
    crews.into_iter().map(begin).collect()
}

async fn look_around(fleet: &mut Fleet) -> anyhow::Result<()> {
    let info = fleet.api.ask("system_info", json!({})).await?;
    ensure!(
        info["server"] == "stopped" && info["sites"] == json!(SITES) && info["jobs"] == json!([]),
        "{info}"
    );
    let status = fleet.api.ask("status", json!({ "target": "all" })).await?;
    ensure!(status["status"] == "ok", "{status}");
    let versions = fleet.api.ask("version", json!({})).await?;
    ensure!(SITES.iter().all(|site| versions[site]["version"].is_string()), "{versions}");
    Ok(())
}

async fn look_at_job(fleet: &mut Fleet) -> anyhow::Result<()> {
    let folder = fleet.folder.join("long-job");
    job::write_long(&folder)?;
    let id = fleet.api.ask("submit", json!({ "folder": folder })).await?;
    fleet.job = id.as_str().map(str::to_owned);
    let named = json!({ "job": id });
    fleet.api.ask("wait_running", named.clone()).await?;
    let stats = fleet.api.ask("stats", named.clone()).await?;
    ensure!(SITES.iter().chain(&["server"]).all(|who| !stats[who].is_null()), "{stats}");
    fleet.api.ask("errors", named.clone()).await?;
    let info = fleet.api.ask("system_info", json!({})).await?;
    ensure!(info["jobs"] == json!([id]), "{info}");
    let to = fleet.folder.join("results");
    refused(fleet, "download", json!({ "job": id, "to": to }), "JobNotDone").await?;
    refused(fleet, "delete", named, "JobNotDone").await
}

async fn abort(fleet: &mut Fleet) -> anyhow::Result<()> {
    let named = json!({ "job": fleet.job.as_ref().context("no job runs")? });
    fleet.api.ask("abort", named.clone()).await?;
    let meta = fleet.api.ask("wait_job", named).await?;
    ensure!(meta["status"] == "FINISHED:ABORTED", "{meta}");
    Ok(())
}

async fn submit_once(fleet: &mut Fleet) -> anyhow::Result<()> {
    let folder = fleet.folder.join("once-job");
    job::write_long(&folder)?;
    let once = json!({ "folder": folder, "token": "once" });
    let job = fleet.api.ask("submit_once", once.clone()).await?;
    ensure!(fleet.api.ask("submit_once", once.clone()).await? == job, "there are two of it");
    let named = json!({ "job": job });
    fleet.api.ask("wait_running", named.clone()).await?;
    let logs = fleet.api.ask("logs", named.clone()).await?;
    // nvflare's server has a job's log only when the job is over.
    let told = match fleet.crew.server {
        Locule => logs["logs"]["server"].as_str().is_some_and(|log| !log.is_empty()),
        Stock => logs["unavailable"]["server"].is_string(),
    };
    ensure!(told, "{logs}");
    let other = fleet.folder.join("other-job");
    job::write(&other, job::SMALL)?;
    refused(fleet, "submit_once", json!({ "folder": other, "token": "once" }), "different job content")
        .await
        .or(refused(fleet, "submit_once", json!({ "folder": other, "token": "once" }), "another job").await)?;
    fleet.api.ask("abort", named.clone()).await?;
    fleet.api.ask("wait_job", named.clone()).await?;
    fleet.api.ask("delete", named).await?;
    refused(fleet, "submit_once", once, "deleted").await
}

async fn clone_and_delete(fleet: &mut Fleet) -> anyhow::Result<()> {
    let first = fleet.job.take().context("no job ran")?;
    let clone = fleet.api.ask("clone", json!({ "job": first })).await?;
    let meta = fleet.api.ask("meta", json!({ "job": clone })).await?;
    ensure!(meta["cloned_from"] == first.as_str(), "{meta}");
    fleet.api.ask("abort", json!({ "job": clone })).await?;
    fleet.api.ask("wait_job", json!({ "job": clone, "timeout": START.as_secs() })).await?;
    for job in [json!(first), clone] {
        fleet.api.ask("delete", json!({ "job": job })).await?;
        refused(fleet, "meta", json!({ "job": job }), "JobNotFound").await?;
    }
    let jobs = fleet.api.ask("jobs", json!({})).await?;
    ensure!(jobs == json!([]), "{jobs}");
    Ok(())
}

async fn refuse(fleet: &mut Fleet) -> anyhow::Result<()> {
    let unknown = json!({ "job": "3e2d9f0e-1111-4222-8333-444455556666" });
    for call in ["meta", "abort", "clone", "delete"] {
        refused(fleet, call, unknown.clone(), "JobNotFound").await?;
    }
    refused(fleet, "submit_nothing", json!({}), "InvalidJobDefinition").await
}

async fn list(fleet: &mut Fleet) -> anyhow::Result<()> {
    let jobs = fleet.api.ask("jobs", json!({})).await?;
    let [job] = jobs.as_array().map_or(&[][..], Vec::as_slice) else { anyhow::bail!("{jobs}") };
    let id = job["job_id"].as_str().context("the job has an id")?;
    let meta = fleet.api.ask("meta", json!({ "job": id })).await?;
    for (meta, name) in [(job, "job_name"), (&meta, "name")] {
        let told = (&meta[name], &meta["status"]);
        ensure!(told == (&json!("numpy-fedavg"), &json!("FINISHED:COMPLETED")), "{meta}");
    }
    for options in [json!({ "detailed": true, "reverse": true }), json!({ "id_prefix": &id[..8] })] {
        let again = fleet.api.ask("jobs", options.clone()).await?;
        ensure!(again[0]["job_id"] == id, "{options}: {again}");
    }
    let none = fleet.api.ask("jobs", json!({ "name_prefix": "other" })).await?;
    ensure!(none == json!([]), "{none}");
    Ok(())
}

/// Whether a call is refused by an exception of this name.
async fn refused(fleet: &Fleet, call: &str, arguments: Value, kind: &str) -> anyhow::Result<()> {
    let refused = fleet.api.ask(call, arguments).await;
    let refused = refused.err().with_context(|| format!("{call} is not refused"))?.to_string();
    ensure!(refused.contains(kind), "{call} is refused otherwise: {refused}");
    Ok(())
}
