//! A job for two sites: federated averaging of a numpy array, to which each site adds a number of its own.

use std::path::Path;

use anyhow::{Context as _, ensure};
use locule_fobs::Array;
use serde_json::{Value, json};

/// What the sites' executor is called in the job: nvflare's, which the sites of ours have in Rust.
pub(super) const TRAINER: &str = "nvflare.app_common.np.np_trainer.NPTrainer";
/// The name of the one array.
pub(super) const KEY: &str = "numpy_key";

const ROUNDS: usize = 3;
/// The array that the job begins with: so many rows and columns of one number.
const SIDE: usize = 3;
const START: f32 = 0.1;
/// What each site adds.
const DELTAS: [f32; 2] = [0.1, 0.7];

/// Writes the job into `folder`; the server's half for nvflare, or for us.
pub(super) fn write(folder: &Path, ours: bool) -> anyhow::Result<()> {
    let start = [[START; SIDE]; SIDE];
    let mut controller = json!({ "num_clients": 2, "num_rounds": ROUNDS });
    let mut components = json!([]);
    if ours {
        controller["model"] = json!({ KEY: { "shape": [SIDE, SIDE], "dtype": "float32", "fill": START } });
    } else {
        let path = "nvflare.app_common.np.np_model_persistor.NPModelPersistor";
        controller["persistor_id"] = "persistor".into();
        components = json!([{ "id": "persistor", "path": path, "args": { "model": start } }]);
    }
    let path = "nvflare.app_common.workflows.fedavg.FedAvg";
    let workflow = json!({ "id": "controller", "path": path, "args": controller });
    let mut files = vec![
        (
            "meta.json".to_owned(),
            json!({
                "name": "numpy-fedavg", "resource_spec": {}, "min_clients": 2,
                "deploy_map": { "app_server": ["server"], "app_1": ["site-1"], "app_2": ["site-2"] },
            }),
        ),
        (
            "app_server/config/config_fed_server.json".to_owned(),
            json!({ "format_version": 2, "workflows": [workflow], "components": components }),
        ),
    ];
    for (number, delta) in (1..).zip(DELTAS) {
        let executor = json!({ "path": TRAINER, "args": { "delta": delta } });
        files.push((
            format!("app_{number}/config/config_fed_client.json"),
            json!({ "format_version": 2, "executors": [{ "tasks": ["train"], "executor": executor }] }),
        ));
    }
    files.iter().try_for_each(|(name, content)| write_json(&folder.join(name), content))
}

fn write_json(path: &Path, content: &Value) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, content.to_string()).with_context(|| format!("write {}", path.display()))
}

/// The model that the job must end with, in the arithmetic of numpy: 32 bits at every step.
fn expected() -> anyhow::Result<Array> {
    let round = |model: f32| {
        let sum = DELTAS.iter().map(|delta| model + delta).sum::<f32>();
        sum * (1.0 / DELTAS.len() as f32)
    };
    let last = (0..ROUNDS).fold(START, |model, _| round(model));
    Ok(Array::from_f32(&[SIDE, SIDE], &[last; SIDE * SIDE])?)
}

/// Whether `model` is what the job must end with, bit for bit.
pub(super) fn check(model: &Array) -> anyhow::Result<()> {
    let expected = expected()?;
    let is_same = model.dtype() == expected.dtype()
        && model.shape() == expected.shape()
        && model.bytes() == expected.bytes();
    ensure!(is_same, "the model is {:?} and not {:?}", model.to_f64(), expected.to_f64());
    Ok(())
}
