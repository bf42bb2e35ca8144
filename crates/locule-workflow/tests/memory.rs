//! How much memory a round takes: that of some models, however many sites there are.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::process::Command;

use locule_component::{ExecuteError, Executor, Task, TaskCx, Workflow};
use locule_fobs::{Array, DataKind, Dtype, Dxo, Map, Shareable};
use locule_workflow::{CrossSiteEvaluation, Cyclic, FedAvg, LocalBoard, Optimizer, Rule, Scaffold, load_npz};
use serde_json::{Value as Json, json};

const SITES: usize = 64;

/// A field of `/proc/self/status` that is a size, in bytes.
fn status(field: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Answers with models of its own, of float32, all of one number.
struct Constant {
    number: f32,
    elements: usize,
}

impl Constant {
    fn model(&self) -> Map {
        let bytes = self.number.to_le_bytes().repeat(self.elements);
        Map::from_iter([("w", Array::new(Dtype::F32, [self.elements], bytes.into()).unwrap())])
    }
}

impl Executor for Constant {
    fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        if task.name == "validate" {
            let metrics = Map::from_iter([("score", f64::from(self.number))]);
            return Ok(Shareable::with_dxo(Dxo::new(DataKind::Metrics, metrics)));
        }
        let mut result = Dxo::new(DataKind::Weights, self.model());
        if task.name == "controlled" {
            result.meta.insert("scaffold_c_diff", self.model());
        }
        Ok(Shareable::with_dxo(result))
    }
}

/// Models' worth of memory that a workflow of 64 sites takes at most, and where it ran.
fn peak(model_bytes: usize, workflow: &mut dyn Workflow) -> (f64, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut board = LocalBoard::new(folder.path());
    for site in 0..SITES {
        let executor = Constant { number: site as f32, elements: model_bytes / 4 };
        board.add_site(format!("site-{site:02}"), Box::new(executor));
    }
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS");
    board.run(workflow).unwrap();
    let taken = status("VmHWM").saturating_sub(before);
    (taken as f64 / model_bytes as f64, folder)
}

/// Arguments of one round over a model of this size.
fn one_round(model_bytes: usize, task: &str) -> Json {
    json!({ "num_rounds": 1, "task_name": task,
        "model": { "w": { "shape": [model_bytes / 4], "dtype": "float32" } } })
}

/// One round of FedAvg: models' worth of memory. The mean of the sites' numbers is 31.5, and so is the trimmed mean.
fn averaged(model_bytes: usize, change: impl FnOnce(FedAvg) -> FedAvg) -> f64 {
    let args = serde_json::from_value(one_round(model_bytes, "train")).unwrap();
    let (models, folder) = peak(model_bytes, &mut change(FedAvg::new(args).unwrap()));
    let model = load_npz(&folder.path().join("models/global.npz")).unwrap();
    assert_eq!(model.get("w").unwrap().as_array().unwrap().to_f64()[0], 31.5);
    models
}

/// Says in a process of its own how much a case takes: what another case left behind would not count again.
#[test]
#[ignore = "the other tests run it"]
fn measured() {
    let Ok(case) = std::env::var("MEMORY_CASE") else { return };
    let models = match &*case {
        "mean" => averaged(4 << 20, |mean| mean),
        "large mean" => averaged(100 << 20, |mean| mean),
        "momentum" => averaged(4 << 20, |mean| mean.with_optimizer(Optimizer::momentum(1.0, 0.0))),
        "trimmed" => averaged(2 << 20, |mean| mean.with_rule(Rule::TrimmedMean { fraction: 0.1 })),
        "scaffold" => {
            let args = serde_json::from_value(one_round(4 << 20, "controlled")).unwrap();
            peak(4 << 20, &mut Scaffold::workflow(args).unwrap()).0
        }
        "cyclic" => {
            let args = serde_json::from_value(one_round(4 << 20, "train")).unwrap();
            peak(4 << 20, &mut Cyclic::new(args).unwrap()).0
        }
        "cross-site" => {
            let workflow = CrossSiteEvaluation::new(serde_json::from_str("{}").unwrap());
            peak(4 << 20, &mut workflow.unwrap()).0
        }
        other => panic!("no case `{other}`"),
    };
    println!("\nmodels: {models}");
}

#[track_caller]
#[expect(clippy::print_stdout, reason = "a page shows these figures")]
fn check(case: &str, at_most: f64) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["measured", "--exact", "--ignored", "--nocapture"]).env("MEMORY_CASE", case);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let models = text.lines().find_map(|line| line.strip_prefix("models: "));
    let models: f64 = models.unwrap_or_else(|| panic!("{text}")).parse().unwrap();
    println!("{case}: {models:.1} models");
    assert!(models <= at_most, "{models} models");
    assert!(models > 1.5, "{models} models are too few to be true");
}

#[test]
fn the_mean_of_64_sites_takes_the_memory_of_five_models() {
    check("mean", 5.0);
}

#[test]
#[ignore = "takes minutes: 64 results of 100 MB"]
fn the_mean_of_64_results_of_100_megabytes_takes_the_memory_of_five_models() {
    check("large mean", 5.0);
}

/// All updates together are 128 MiB, of which 8 are in memory, or four models' worth; the rest are single models.
#[test]
fn the_trimmed_mean_of_64_sites_takes_the_memory_of_16_models() {
    check("trimmed", 16.0);
}

#[test]
fn an_optimizer_adds_what_it_remembers() {
    check("momentum", 12.0);
}

#[test]
fn control_variates_double_it() {
    check("scaffold", 10.0);
}

#[test]
fn a_model_that_goes_round_is_there_some_four_times() {
    check("cyclic", 5.0);
}

#[test]
fn models_that_are_judged_wait_in_files() {
    check("cross-site", 5.0);
}
