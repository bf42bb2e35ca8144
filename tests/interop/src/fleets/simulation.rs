//! `locule simulate` with what nvflare's recipes export.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use locule_fobs::Array;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{Running, find, job};
use crate::cells::VERSION;
use crate::python::Python;
use crate::run::{Check, Run, Suite};

/// A folder, and an interpreter that has nvflare.
struct Bench {
    folder: PathBuf,
    python: Python,
}

pub(super) fn suite(run: &Run) -> Running<'_> {
    let checks = vec![
        Check::new("locule simulate runs a recipe's folder, with the same model", |bench| {
            Box::pin(runs_a_recipe(bench))
        })
        .within(120),
        Check::new(
            "locule simulate runs a scikit-learn recipe, with nvflare's model, metrics and curves",
            |bench| Box::pin(runs_scikit_learn(bench)),
        )
        .within(400),
    ];
    let suite = Suite {
        group: "simulation",
        carrier: "mem".to_owned(),
        role: "one process".to_owned(),
        version: VERSION.to_owned(),
        slow: false,
    };
    Box::pin(async move {
        let set_up = async |folder: &Path, python: &Python| {
            Ok(Bench { folder: folder.to_owned(), python: python.clone() })
        };
        run.suite(&suite, checks, set_up).await
    })
}

async fn runs_a_recipe(bench: &mut Bench) -> anyhow::Result<()> {
    let mut export = bench.python.script("export_recipe.py");
    export.arg(bench.folder.join("recipe")).arg(json!(job::start(job::SMALL)).to_string());
    let output = export.kill_on_drop(true).output().await.context("export a recipe")?;
    ensure!(output.status.success(), "no recipe: {}", String::from_utf8_lossy(&output.stderr));
    let recipe = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    let run = simulate(bench, &recipe, "out").await?;
    let models = find(&run, "server.npy");
    let [model] = &models[..] else { bail!("there are {} models", models.len()) };
    job::check(&Array::from_npy(std::fs::read(model)?.into())?, job::SMALL)
}

async fn runs_scikit_learn(bench: &mut Bench) -> anyhow::Result<()> {
    let mut export = bench.python.script("sklearn_recipe.py");
    export.arg("export").arg(&bench.folder);
    let output = export.kill_on_drop(true).output().await.context("export a recipe")?;
    ensure!(output.status.success(), "no recipe: {}", String::from_utf8_lossy(&output.stderr));
    let recipe = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    let run = simulate(bench, &recipe, "out-sklearn").await?;

    let mut compare = bench.python.script("sklearn_recipe.py");
    compare.arg("compare").arg(&bench.folder).arg(run);
    let output = compare.kill_on_drop(true).output().await.context("compare")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "not the same: {}", said.lines().next_back().unwrap_or_default());
    Ok(())
}

/// Runs a job; the server's run folder.
async fn simulate(bench: &Bench, recipe: &Path, out: &str) -> anyhow::Result<PathBuf> {
    let out = bench.folder.join(out);
    let mut simulate = Command::new(e2e::binary_with_wasm());
    simulate.arg("simulate").arg(recipe).arg("--python").arg(bench.python.program());
    simulate.args(["--threads", "1", "--output", "json", "--workspace"]).arg(&out);
    let output = simulate.kill_on_drop(true).output().await.context("simulate")?;
    ensure!(output.status.success(), "not simulated: {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["status"] == "FINISHED:COMPLETED", "{report}");
    Ok(out.join("server"))
}
