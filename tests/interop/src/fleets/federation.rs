//! The same jobs in every fleet: nvflare's server or ours, nvflare's sites or ours.

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use locule_fobs::Array;
use serde_json::{Value, json};

use super::sites_register;
use super::{Crew, Fleet, Locule, Running, SITES, Stock, find, job, job_completes, refusals, sites_leave};
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
        if crew.server == Locule
            && crew.sites == [Stock, Stock]
            && crew.scheme == "grpc"
            && crew.version == VERSION
        {
            let others = Check::new("a model goes round, and the sites judge each other's", |fleet| {
                Box::pin(others_complete(fleet))
            });
            checks.insert(2, others.within(120));
        }
        if crew.sites[0] == Locule && crew.scheme == "grpc" && crew.version == VERSION {
            let last = checks.len() - 1;
            checks.splice(last..last, refusals::checks());
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
pub(super) async fn recipe_completes(fleet: &mut Fleet) -> anyhow::Result<()> {
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

/// Cyclic transfer, and after it cross-site evaluation, by nvflare's trainers and validators.
async fn others_complete(fleet: &mut Fleet) -> anyhow::Result<()> {
    let folder = fleet.folder.join("others");
    job::write_others(&folder)?;
    fleet.complete(&folder).await?;
    let result = fleet.fetch_result().await?;
    let [model] = &find(&result, "server.npy")[..] else {
        bail!("there is not one model in {}", result.display())
    };
    job::check_others(&Array::from_npy(std::fs::read(model)?.into())?)?;
    let [judged] = &find(&result, "cross_val_results.json")[..] else { bail!("there are no judgements") };
    let judged: Value = serde_json::from_slice(&std::fs::read(judged)?)?;
    for site in SITES {
        for model in ["site-1", "site-2", "SRV_server"] {
            let accuracy = judged[site][model]["accuracy"].as_f64();
            ensure!(accuracy.is_some_and(f64::is_finite), "{site} has no accuracy of {model}: {judged}");
        }
    }
    Ok(())
}
