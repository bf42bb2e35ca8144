//! Runs that are broken off at every step they have, and begun anew from what was kept.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use locule_component::{
    BoxFuture, ExecuteError, Executor, Gathered, OutgoingTask, Progress, ResultSink, Task, TaskBoard, TaskCx,
    Workflow, WorkflowError,
};
use locule_fobs::{Array, DataKind, Dxo, Map, Shareable, Value};
use locule_workflow::{Cyclic, FedAdamArgs, FedAvg, LocalBoard, Optimizer, Rule, Scaffold};
use serde_json::{Value as Json, json};

/// A site whose answers are functions of its tasks.
struct Site(f64);

impl Executor for Site {
    fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        let dxo = task.data.dxo().unwrap().unwrap();
        let w = dxo.data.get("w").unwrap().as_array().unwrap().to_f64();
        let next: Vec<f64> = w.iter().map(|w| w + 0.3 * (self.0 - w) + 0.01 / (1.0 + w * w)).collect();
        let change: Vec<f64> = w.iter().map(|w| 0.1 * (w - self.0)).collect();
        let model = |numbers: &[f64]| Map::from_iter([("w", Array::from(numbers))]);
        let mut result = Dxo::new(DataKind::Weights, model(&next));
        let score = -(w[0] - 1.3) * (w[0] - 1.3);
        result.meta.insert("initial_metrics", Map::from_iter([("score", score)]));
        result.meta.insert("NUM_STEPS_CURRENT_ROUND", 1 + self.0.abs() as i64);
        result.meta.insert("scaffold_c_diff", model(&change));
        Ok(Shareable::with_dxo(result))
    }
}

/// Where a run is broken off: before or after what its n-th step does.
#[derive(Clone, Copy, Debug)]
struct Break {
    step: usize,
    after: bool,
}

/// A board of one process that keeps states, in the bytes of a file, and breaks off.
struct Breaking {
    local: LocalBoard,
    kept: Mutex<Option<bytes::Bytes>>,
    step: Mutex<Cell<usize>>,
    at: Mutex<Option<Break>>,
}

impl Breaking {
    fn on(folder: &Path, kept: Option<bytes::Bytes>, at: Option<Break>) -> Breaking {
        let mut local = LocalBoard::new(folder);
        for (name, target) in [("a", 1.0), ("b", 4.0), ("c", -2.0)] {
            local.add_site(name, Box::new(Site(target)));
        }
        let (kept, step, at) = (Mutex::new(kept), Mutex::default(), Mutex::new(at));
        Breaking { local, kept, step, at }
    }

    /// Whether to break off before or after this step.
    fn breaks(&self) -> (bool, bool) {
        let step = self.step.lock().unwrap();
        step.set(step.get() + 1);
        let at = self.at.lock().unwrap().filter(|at| at.step == step.get());
        (at.is_some_and(|at| !at.after), at.is_some_and(|at| at.after))
    }
}

impl TaskBoard for Breaking {
    fn job_id(&self) -> &str {
        self.local.job_id()
    }

    fn sites(&self) -> Vec<String> {
        self.local.sites()
    }

    fn run_dir(&self) -> &Path {
        self.local.run_dir()
    }

    fn broadcast<'a>(
        &'a self,
        task: OutgoingTask,
        sink: &'a mut (dyn ResultSink + 'a),
    ) -> BoxFuture<'a, Result<Gathered, WorkflowError>> {
        Box::pin(async move {
            let (before, after) = self.breaks();
            if before {
                return Err(WorkflowError::Aborted);
            }
            let gathered = self.local.broadcast(task, sink).await?;
            if after { Err(WorkflowError::Aborted) } else { Ok(gathered) }
        })
    }

    fn checkpoint<'a>(&'a self, state: Map) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(async move {
            let (before, after) = self.breaks();
            if before {
                return Err(WorkflowError::Aborted);
            }
            *self.kept.lock().unwrap() = Some(locule_fobs::encode(&Value::Map(state)).unwrap());
            if after { Err(WorkflowError::Aborted) } else { Ok(()) }
        })
    }

    fn restore<'a>(&'a self) -> BoxFuture<'a, Result<Option<Map>, WorkflowError>> {
        Box::pin(async {
            let kept = self.kept.lock().unwrap().clone();
            Ok(kept.map(|bytes| locule_fobs::decode(bytes).unwrap().as_map().unwrap().clone()))
        })
    }

    fn report(&self, progress: Progress) {
        self.local.report(progress);
    }

    fn is_aborted(&self) -> bool {
        false
    }
}

fn run(board: &Breaking, workflow: &mut dyn Workflow) -> Result<(), WorkflowError> {
    let mut run = std::pin::pin!(workflow.run(board));
    match run.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ended) => ended,
        Poll::Pending => panic!("it waits"),
    }
}

/// All files of a run, by their names.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for folder in [folder.to_owned(), folder.join("models")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                files
                    .insert(path.file_name().unwrap().to_string_lossy().into(), std::fs::read(path).unwrap());
            }
        }
    }
    files
}

#[track_caller]
fn comes_to_the_same(name: &str, workflow: impl Fn() -> Box<dyn Workflow>) {
    let quiet = tempfile::tempdir().unwrap();
    let board = Breaking::on(quiet.path(), None, None);
    run(&board, &mut *workflow()).unwrap();
    let steps = board.step.lock().unwrap().get();
    let expected = files(quiet.path());
    for step in 1..=steps {
        for after in [false, true] {
            let at = Break { step, after };
            let folder = tempfile::tempdir().unwrap();
            let board = Breaking::on(folder.path(), None, Some(at));
            assert!(matches!(run(&board, &mut *workflow()), Err(WorkflowError::Aborted)), "{name} {at:?}");
            let kept = board.kept.into_inner().unwrap();
            run(&Breaking::on(folder.path(), kept, None), &mut *workflow()).unwrap();
            let files = files(folder.path());
            let differs =
                expected.keys().chain(files.keys()).find(|file| expected.get(*file) != files.get(*file));
            assert_eq!(differs, None, "{name} {at:?}");
        }
    }
    assert!(steps > 6, "{name} has {steps} steps only");
}

fn args<T: serde::de::DeserializeOwned>(mut json: Json) -> T {
    json["model"] = json!({ "w": { "shape": [2], "fill": 0.5 } });
    json["num_rounds"] = 4.into();
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_run_that_was_broken_off_comes_to_the_same_end_with_every_workflow_of_rounds() {
    let fed_avg = |json: Json| FedAvg::new(args(json)).unwrap();
    comes_to_the_same("mean", || Box::new(fed_avg(json!({}))));
    comes_to_the_same("momentum", || {
        Box::new(fed_avg(json!({})).with_optimizer(Optimizer::momentum(0.7, 0.9)))
    });
    let adam = FedAdamArgs { learning_rate: 0.1, beta1: 0.9, beta2: 0.99, tau: 1e-3 };
    comes_to_the_same("adam", || Box::new(fed_avg(json!({})).with_optimizer(Optimizer::adam(adam))));
    comes_to_the_same("median", || Box::new(fed_avg(json!({})).with_rule(Rule::Median)));
    comes_to_the_same("best model and early stop", || {
        let (metric, patience) = ("score", 1);
        let watch = json!({ "best": { "metric": metric },
            "stop": { "metric": metric, "patience": patience } });
        Box::new(fed_avg(watch))
    });
    comes_to_the_same("scaffold", || Box::new(Scaffold::workflow(args(json!({}))).unwrap()));
    comes_to_the_same("cyclic", || {
        let order = json!({ "order": "random_without_same_in_a_row", "seed": u64::MAX });
        Box::new(Cyclic::new(args(order)).unwrap())
    });
}

#[test]
fn a_state_of_another_workflow_is_refused_and_not_taken_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let kept = locule_fobs::encode(&Value::Map(Map::from_iter([("order", 3)]))).unwrap();
    let board = Breaking::on(folder.path(), Some(kept), None);
    let error = run(&board, &mut FedAvg::new(args(json!({}))).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "the state that was kept of the run is not one of this workflow");
}
