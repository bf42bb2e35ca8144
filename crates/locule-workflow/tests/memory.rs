//! How much memory a round takes: that of some models, however many sites there are.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::sync::{Mutex, PoisonError};

use locule_component::{ExecuteError, Executor, Task, TaskCx};
use locule_fobs::{Array, DataKind, Dtype, Dxo, Map, Shareable};
use locule_workflow::{FedAvg, LocalBoard, Rule, load_npz};
use serde_json::json;

/// The peak is the process's, so that one measures at a time.
static ALONE: Mutex<()> = Mutex::new(());

const SITES: usize = 64;

/// A field of `/proc/self/status` that is a size, in bytes.
fn status(field: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Answers with a model of its own, of float32 and as large as the one that it gets, all of one number.
struct Constant(f32);

impl Executor for Constant {
    fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        let model = task.data.dxo().unwrap().unwrap().data;
        let elements = model.get("w").unwrap().as_array().unwrap().len();
        let bytes = self.0.to_le_bytes().repeat(elements);
        let array = Array::new(Dtype::F32, [elements], bytes.into()).unwrap();
        Ok(Shareable::with_dxo(Dxo::new(DataKind::Weights, Map::from_iter([("w", array)]))))
    }
}

/// Models' worth of memory that one round of 64 sites takes at most, and the first number of its model.
fn peak(model_bytes: usize, rule: Rule) -> (f64, f64) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let mut board = LocalBoard::new(folder.path());
    for site in 0..SITES {
        board.add_site(format!("site-{site:02}"), Box::new(Constant(site as f32)));
    }
    let args =
        json!({ "num_rounds": 1, "model": { "w": { "shape": [model_bytes / 4], "dtype": "float32" } } });
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS");
    let mut workflow = FedAvg::new(serde_json::from_value(args).unwrap()).unwrap().with_rule(rule);
    board.run(&mut workflow).unwrap();
    let taken = status("VmHWM").saturating_sub(before);
    let model = load_npz(&folder.path().join("models/global.npz")).unwrap();
    let first = model.get("w").unwrap().as_array().unwrap().to_f64()[0];
    (taken as f64 / model_bytes as f64, first)
}

#[test]
fn the_mean_of_64_sites_takes_the_memory_of_five_models() {
    let (models, mean) = peak(4 << 20, Rule::Mean);
    assert_eq!(mean, 31.5);
    assert!(models <= 5.0, "{models} models");
}

#[test]
#[ignore = "takes minutes: 64 results of 100 MB"]
fn the_mean_of_64_results_of_100_megabytes_takes_the_memory_of_five_models() {
    let (models, mean) = peak(100 << 20, Rule::Mean);
    assert_eq!(mean, 31.5);
    assert!(models <= 5.0, "{models} models");
}

/// All updates together are 128 MiB, of which 8 are in memory, or four models' worth; the rest are single models.
#[test]
fn the_trimmed_mean_of_64_sites_takes_the_memory_of_16_models() {
    let (models, mean) = peak(2 << 20, Rule::TrimmedMean { fraction: 0.1 });
    assert_eq!(mean, 31.5);
    assert!(models <= 16.0, "{models} models");
}
