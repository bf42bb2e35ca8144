//! The same jobs in every fleet: nvflare's server or ours, nvflare's sites or ours.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use serde_json::json;

use super::{Crew, Fleet, Locule, Running, START, Stock, job, job_completes, sites_leave, sites_register};
use crate::cells::{OLDER, VERSION};
use crate::run::{Check, Run};

pub(super) fn suites(run: &Run) -> Vec<Running<'_>> {
    let begin = |(crew, slow): (Crew, bool)| {
        let mut checks = vec![sites_register(), job_completes(), sites_leave()];
        if crew.sites == [Stock, Stock] && crew.scheme == "grpc" && crew.version == VERSION {
            let script =
                Check::new("a script job of the recipe API completes, with the same model", |fleet| {
                    Box::pin(recipe_completes(fleet))
                });
            checks.insert(2, script.within(120));
        }
        if crew.sites[0] == Locule && crew.scheme == "grpc" && crew.version == VERSION {
            let refusal =
                Check::new("what site-1 refuses at deployment stands in job_deploy_detail", |fleet| {
                    Box::pin(refusal_is_told(fleet))
                });
            checks.insert(checks.len() - 1, refusal.within(90));
        }
        crew.run(run, crew.suite("federation", slow), checks)
    };
    let ours_at_theirs = Crew::new(Stock, [Locule, Locule]);
    let theirs_at_ours = Crew::new(Locule, [Stock, Stock]);
    let crews = [
        (Crew::new(Stock, [Stock, Stock]), false),
        (ours_at_theirs, false),
        (Crew::new(Stock, [Locule, Stock]), false),
        (theirs_at_ours, false),
        (Crew::new(Locule, [Locule, Stock]), false),
        (ours_at_theirs.over("tcp"), false),
        (theirs_at_ours.over("tcp"), true),
        (ours_at_theirs.over("http"), true),
        (theirs_at_ours.over("http"), false),
    ];
    let older = OLDER.into_iter().flat_map(|version| {
        [
            (theirs_at_ours.of(version), false),
            (ours_at_theirs.of(version), false),
            (Crew::new(Locule, [Locule, Stock]).of(version), true),
            (Crew::new(Stock, [Locule, Stock]).of(version), true),
            (theirs_at_ours.of(version).over("http"), true),
            (ours_at_theirs.of(version).over("tcp"), true),
        ]
    });
    crews.into_iter().chain(older).map(begin).collect()
}

/// A job as a data scientist writes it today: a recipe, and a training script that knows of no controller.
async fn recipe_completes(fleet: &mut Fleet) -> anyhow::Result<()> {
    let folder = fleet.folder.join("recipe");
    let mut export = fleet.python.script("export_recipe.py");
    let output = export
        .arg(&folder)
        .arg(json!(job::start(job::SMALL)).to_string())
        .kill_on_drop(true)
        .output()
        .await
        .context("export a recipe")?;
    ensure!(output.status.success(), "no recipe: {}", String::from_utf8_lossy(&output.stderr));
    let job = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    fleet.complete(&job).await?;
    fleet.check_result(job::SMALL).await
}

/// A site of ours whose operator writes a policy refuses the next job, and the submitter reads why.
async fn refusal_is_told(fleet: &mut Fleet) -> anyhow::Result<()> {
    let policy = fleet.project.kit("site-1").join("local/job_resources.json");
    let before = std::fs::read(&policy).ok();
    let checker = json!({
        "id": "house-rules", "path": "locule.policy.RefuseComponents",
        "args": { "names": ["*.NPTrainer"], "reason": "not in this house", "code": "house-rule" },
    });
    std::fs::write(&policy, json!({ "format_version": 2, "components": [checker] }).to_string())?;
    let folder = fleet.folder.join("refused-job");
    job::write(&folder, job::SMALL)?;
    let job = fleet.api.ask("submit", json!({ "folder": folder })).await?;
    let meta = fleet.api.ask("wait_job", json!({ "job": job, "timeout": START.as_secs() })).await?;
    let status = meta["status"].as_str().unwrap_or_default();
    ensure!(status.starts_with("FINISHED:") && status != "FINISHED:COMPLETED", "{meta}");
    let detail = meta["job_deploy_detail"].as_array().context("the meta has no job_deploy_detail")?;
    let told = "site-1: refused: nvflare.app_common.np.np_trainer.NPTrainer at executors.#1.executor of \
                config_fed_client.json: not in this house (house-rule)";
    ensure!(detail.iter().any(|line| line == told), "{detail:?}");
    let log = std::fs::read_to_string(fleet.project.kit("site-1").join("state/audit.jsonl"))?;
    ensure!(log.contains("not in this house"), "the site's audit log does not say so");
    match before {
        Some(text) => std::fs::write(&policy, text)?,
        None => std::fs::remove_file(&policy)?,
    }
    Ok(())
}
