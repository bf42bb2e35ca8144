//! The job that every fleet runs: federated averaging of a numpy array, to which each site adds a number of its own.

use std::path::Path;

use anyhow::{Context as _, ensure};
use locule_fobs::Array;
use serde_json::{Value, json};

const ROUNDS: usize = 3;
/// Rows and columns of the array, if it is to be read by people.
pub(super) const SMALL: usize = 3;
/// The same for 4 MB, which no message takes whole.
pub(super) const LARGE: usize = 1000;
/// What each site adds.
const DELTAS: [f32; 2] = [0.1, 0.7];
/// How long a task of the long job takes, in seconds: longer than any case.
const LONG: u32 = 3600;

/// Writes the job into `folder`; it begins with a model of this many rows and columns.
pub(super) fn write(folder: &Path, side: usize) -> anyhow::Result<()> {
    write_with(folder, side, 0)
}

/// Writes the same job into `folder`, whose first task does not end.
pub(super) fn write_long(folder: &Path) -> anyhow::Result<()> {
    write_with(folder, SMALL, LONG)
}

fn write_with(folder: &Path, side: usize, sleep: u32) -> anyhow::Result<()> {
    let meta = json!({
        "name": "numpy-fedavg", "resource_spec": {}, "min_clients": 2,
        "deploy_map": { "app_server": ["server"], "app_1": ["site-1"], "app_2": ["site-2"] },
    });
    let workflow = json!({
        "id": "controller", "path": "nvflare.app_common.workflows.fedavg.FedAvg",
        "args": { "num_clients": 2, "num_rounds": ROUNDS, "persistor_id": "persistor" },
    });
    let model = if side == SMALL {
        json!({ "model": start(side) })
    } else {
        let file = folder.with_extension("npy");
        std::fs::write(&file, Array::from_f32(&[side, side], &start(side).concat())?.to_npy())?;
        json!({ "source_ckpt_file_full_name": file })
    };
    let persistor = json!({
        "id": "persistor", "path": "nvflare.app_common.np.np_model_persistor.NPModelPersistor", "args": model,
    });
    write_json(&folder.join("meta.json"), &meta)?;
    let server = json!({ "format_version": 2, "workflows": [workflow], "components": [persistor] });
    write_json(&folder.join("app_server/config/config_fed_server.json"), &server)?;
    for (number, delta) in (1..).zip(DELTAS) {
        let trainer = json!({
            "path": "nvflare.app_common.np.np_trainer.NPTrainer",
            "args": { "delta": delta, "sleep_time": sleep },
        });
        let site = json!({ "format_version": 2, "executors": [{ "tasks": ["train"], "executor": trainer }] });
        write_json(&folder.join(format!("app_{number}/config/config_fed_client.json")), &site)?;
    }
    Ok(())
}

/// Writes a job of two workflows into `folder`: the model goes to site-2 and site-1 in two rounds, and then the sites
/// judge each other's models and the server's.
pub(super) fn write_others(folder: &Path) -> anyhow::Result<()> {
    let meta = json!({
        "name": "numpy-others", "resource_spec": {}, "min_clients": 2,
        "deploy_map": { "app_server": ["server"], "app_1": ["site-1"], "app_2": ["site-2"] },
    });
    let below = |name: &str| format!("nvflare.app_common.{name}");
    let cyclic = json!({
        "id": "cyclic", "path": below("workflows.cyclic_ctl.CyclicController"),
        "args": { "num_rounds": 2, "order": ["site-2", "site-1"] },
    });
    let evaluation = json!({
        "id": "evaluation", "path": below("workflows.cross_site_model_eval.CrossSiteModelEval"),
        "args": { "model_locator_id": "locator", "submit_model_timeout": 60, "validation_timeout": 60 },
    });
    let components = json!([
        { "id": "persistor", "path": below("np.np_model_persistor.NPModelPersistor"),
            "args": { "model": start(SMALL) } },
        { "id": "shareable_generator",
            "path": below("shareablegenerators.full_model_shareable_generator.FullModelShareableGenerator") },
        { "id": "locator", "path": below("np.np_model_locator.NPModelLocator") },
        { "id": "json", "path": below("widgets.validation_json_generator.ValidationJsonGenerator") },
    ]);
    write_json(&folder.join("meta.json"), &meta)?;
    let server = json!({ "format_version": 2, "workflows": [cyclic, evaluation], "components": components });
    write_json(&folder.join("app_server/config/config_fed_server.json"), &server)?;
    for (number, delta) in (1..).zip(DELTAS) {
        let trainer = json!({ "path": below("np.np_trainer.NPTrainer"),
            "args": { "delta": delta, "sleep_time": 0 } });
        let validator = json!({ "path": below("np.np_validator.NPValidator"), "args": { "sleep_time": 0 } });
        let site = json!({ "format_version": 2, "executors": [
            { "tasks": ["train", "submit_model"], "executor": trainer },
            { "tasks": ["validate"], "executor": validator },
        ] });
        write_json(&folder.join(format!("app_{number}/config/config_fed_client.json")), &site)?;
    }
    Ok(())
}

/// Whether `model` is what the model must be that went round, bit for bit.
pub(super) fn check_others(model: &Array) -> anyhow::Result<()> {
    let round = |x: f32| x + DELTAS[1] + DELTAS[0];
    let last: Vec<f32> = start(SMALL).concat().into_iter().map(|x| round(round(x))).collect();
    let expected = Array::from_f32(&[SMALL, SMALL], &last)?;
    ensure!(
        model.bytes() == expected.bytes(),
        "the model is {:?} and not {:?}",
        model.to_f64(),
        expected.to_f64()
    );
    Ok(())
}

fn write_json(path: &Path, content: &Value) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, content.to_string()).with_context(|| format!("write {}", path.display()))
}

/// The model that the job begins with: rows that count up from a tenth.
pub(super) fn start(side: usize) -> Vec<Vec<f32>> {
    let row = |row: usize| (0..side).map(|column| (row * side + column) as f32 + 0.1).collect();
    (0..side).map(row).collect()
}

/// The model that the job must end with, in the arithmetic of numpy: 32 bits at every step.
fn expected(side: usize) -> anyhow::Result<Array> {
    let round = |model: f32| {
        let sum = DELTAS.iter().map(|delta| model + delta).sum::<f32>();
        sum * (1.0 / DELTAS.len() as f32)
    };
    let last: Vec<_> = start(side)
        .concat()
        .into_iter()
        .map(|start| (0..ROUNDS).fold(start, |model, _| round(model)))
        .collect();
    Ok(Array::from_f32(&[side, side], &last)?)
}

/// Whether `model` is what the job must end with, bit for bit.
pub(super) fn check(model: &Array, side: usize) -> anyhow::Result<()> {
    let expected = expected(side)?;
    let is_same = model.dtype() == expected.dtype()
        && model.shape() == expected.shape()
        && model.bytes() == expected.bytes();
    let show = |array: &Array| array.to_f64().into_iter().take(SMALL * SMALL).collect::<Vec<_>>();
    ensure!(is_same, "the model is {:?} and not {:?}", show(model), show(&expected));
    Ok(())
}
