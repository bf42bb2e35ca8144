//! FedAvg's rounds: what sites are told, who is asked, and what ends a run.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::sync::{Arc, Mutex};

use locule_component::{
    Assembled, BuildCx, ConstructionCount, ExecuteError, Executor, Plan, Progress, Registry, Side, Task,
    TaskCx, Workflow, WorkflowError,
};
use locule_config::Document;
use locule_fobs::{Array, DataKind, Dxo, Map, Shareable, Value};
use locule_nvflare::FedAvg;
use locule_workflow::{LocalBoard, load_npz};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

/// Adds one to `w`, reports its loss, and remembers what it was given.
#[derive(Clone, Default)]
struct Trainer {
    given: Arc<Mutex<Vec<Shareable>>>,
    code: Option<&'static str>,
    /// Of what kind its results are, if they are not weights.
    kind: Option<DataKind>,
}

impl Executor for Trainer {
    fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        self.given.lock().unwrap().push(task.data.clone());
        if let Some(code) = self.code {
            return Ok(Shareable::with_return_code(code));
        }
        let dxo = task.data.dxo().unwrap().unwrap();
        let w = dxo.data.get("w").and_then(Value::as_array).map_or(0.0, |w| w.to_f64()[0]);
        let kind = self.kind.unwrap_or(DataKind::Weights);
        let mut dxo = Dxo::new(kind, Map::from_iter([("w", Array::from(&[w + 1.0][..]))]));
        dxo.meta.insert("initial_metrics", Map::from_iter([("loss", w)]));
        Ok(Shareable::with_dxo(dxo))
    }
}

fn fed_avg(args: Json) -> FedAvg {
    FedAvg::new(serde_json::from_value(args).unwrap()).unwrap()
}

fn run(
    workflow: &mut dyn Workflow,
    sites: &[(&str, &Trainer)],
) -> (Result<(), WorkflowError>, LocalBoard, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut board = LocalBoard::new(folder.path());
    for (site, trainer) in sites {
        board.add_site(*site, Box::new((*trainer).clone()));
    }
    (board.run(workflow), board, folder)
}

#[test]
fn a_site_is_told_the_round_and_what_became_of_the_last_one() {
    let trainer = Trainer::default();
    let mut workflow =
        fed_avg(json!({ "num_rounds": 2, "start_round": 3, "fedprox_mu": 0.5, "persistor_id": "",
        "model": { "w": [7] } }));
    run(&mut workflow, &[("a", &trainer)]).0.unwrap();
    let given = trainer.given.lock().unwrap();
    for (index, data) in given.iter().enumerate() {
        let header = |name: &str| data.headers.int(name);
        assert_eq!(header("current_round"), Some(3 + i64::try_from(index).unwrap()));
        assert_eq!((header("num_rounds"), header("start_round")), (Some(2), Some(3)));
        let dxo = data.dxo().unwrap().unwrap();
        assert_eq!(dxo.kind, DataKind::Weights);
        assert_eq!(dxo.meta.float("fedprox_mu"), Some(0.5));
        if index == 0 {
            assert_eq!(dxo.meta.len(), 1);
        } else {
            assert_eq!((dxo.meta.int("nr_aggregated"), dxo.meta.int("current_round")), (Some(1), Some(3)));
            assert_eq!(dxo.meta.map("initial_metrics").unwrap().float("loss"), Some(7.0));
        }
    }
    assert_eq!(given.len(), 2);
}

#[test]
fn without_a_model_sites_begin_with_their_own() {
    let trainer = Trainer::default();
    let (outcome, _board, folder) =
        run(&mut fed_avg(json!({ "num_rounds": 1, "persistor_id": "" })), &[("a", &trainer)]);
    outcome.unwrap();
    assert!(trainer.given.lock().unwrap()[0].dxo().unwrap().unwrap().data.is_empty());
    let model = load_npz(&folder.path().join("models/global.npz")).unwrap();
    assert_eq!(model.get("w").unwrap().as_array().unwrap().to_f64(), [1.0]);
}

#[test]
fn of_more_sites_than_clients_some_are_asked() {
    let trainers: Vec<Trainer> = (0..5).map(|_| Trainer::default()).collect();
    let names = ["a", "b", "c", "d", "e"];
    let sites: Vec<(&str, &Trainer)> = names.into_iter().zip(&trainers).collect();
    let mut workflow = fed_avg(json!({ "num_rounds": 40, "num_clients": 2, "persistor_id": "" }));
    let (outcome, board, _folder) = run(&mut workflow, &sites);
    outcome.unwrap();
    let asked: Vec<usize> = trainers.iter().map(|trainer| trainer.given.lock().unwrap().len()).collect();
    assert_eq!(asked.iter().sum::<usize>(), 80);
    // A site is left out of all forty rounds once in 700 million runs.
    assert!(asked.iter().all(|times| (1..40).contains(times)), "{asked:?}");
    let finished = |progress| {
        let Progress::RoundFinished { sites, .. } = progress else { return None };
        Some(sites.len())
    };
    let mut rounds = board.progress().into_iter().filter_map(finished);
    assert!(rounds.all(|sites| sites == 2));
}

#[test]
fn a_site_that_fails_ends_the_run_unless_errors_are_ignored() {
    let (good, bad) =
        (Trainer::default(), Trainer { code: Some("EXECUTION_EXCEPTION"), ..Trainer::default() });
    let sites = [("a", &good), ("b", &bad)];
    let strict = run(&mut fed_avg(json!({ "num_rounds": 2, "persistor_id": "" })), &sites).0.unwrap_err();
    assert_eq!(strict.to_string(), "round 0: b: the site answered EXECUTION_EXCEPTION: ");
    let args = json!({ "num_rounds": 2, "persistor_id": "", "ignore_result_error": true });
    run(&mut fed_avg(args.clone()), &sites).0.unwrap();
    let none = run(&mut fed_avg(args), &[("b", &bad)]).0.unwrap_err().to_string();
    assert_eq!(none, "round 0: no result is usable (b: the site answered EXECUTION_EXCEPTION: )");
}

#[test]
fn a_job_without_sites_fails() {
    let outcome = run(&mut fed_avg(json!({})), &[]).0;
    assert!(matches!(outcome, Err(WorkflowError::TooFewSites { present: 0, needed: 1 })));
}

#[test]
fn a_persistor_without_its_array_fails_with_the_reason() {
    let text = json!({ "format_version": 2,
        "workflows": [{ "path": "nvflare.app_common.workflows.fedavg.FedAvg", "args": { "persistor_id": "keeper" } }],
        "components": [{ "id": "keeper", "path": "nvflare.app_common.np.np_model_persistor.NPModelPersistor" }] });
    let mut registry = Registry::new();
    locule_nvflare::register(&mut registry);
    let plan = plan(&text.to_string()).unwrap();
    let (here, count) = (Path::new("."), ConstructionCount::new());
    let cx = BuildCx::new(Side::Server, "server", "job-7", here, here, &count);
    let mut job = plan.approve(Vec::new()).unwrap().build(&registry, &cx).unwrap();
    let error = run(&mut *job.workflows[0].1, &[("a", &Trainer::default())]).0.unwrap_err();
    assert_eq!(error.to_string(), "the model has no array `numpy_key`, which its persistor saves");
}

/// A job of ScatterAndGather with these arguments, over those that name its parts.
fn scatter(workflow: Json, aggregator: Json) -> Result<Assembled, String> {
    const COMMON: &str = "nvflare.app_common.";
    let mut args = json!({ "min_clients": 2, "num_rounds": 1, "wait_time_after_min_received": 0 });
    args.as_object_mut().unwrap().extend(workflow.as_object().unwrap().clone());
    let workflow = format!("{COMMON}workflows.scatter_and_gather.ScatterAndGather");
    let folding = "aggregators.intime_accumulate_model_aggregator.InTimeAccumulateWeightedAggregator";
    let making = "shareablegenerators.full_model_shareable_generator.FullModelShareableGenerator";
    let text = json!({ "format_version": 2, "workflows": [{ "path": workflow, "args": args }],
        "components": [{ "id": "aggregator", "path": format!("{COMMON}{folding}"), "args": aggregator },
            { "id": "shareable_generator", "path": format!("{COMMON}{making}") }] });
    let mut registry = Registry::new();
    locule_nvflare::register(&mut registry);
    let (here, count) = (Path::new("."), ConstructionCount::new());
    let cx = BuildCx::new(Side::Server, "server", "job-7", here, here, &count);
    let built = plan(&text.to_string())?.approve(Vec::new()).unwrap().build(&registry, &cx);
    built.map_err(|error| std::error::Error::source(&error).unwrap().to_string())
}

#[test]
fn scatter_and_gather_bears_errors_as_long_as_enough_sites_are_left() {
    let weights = json!({ "expected_data_kind": "WEIGHTS" });
    let good = Trainer::default();
    let bad = Trainer { code: Some("EXECUTION_EXCEPTION"), ..Trainer::default() };
    let three = [("a", &good), ("b", &bad), ("c", &good)];
    let run_with = |args: Json, sites: &[(&str, &Trainer)]| {
        run(&mut *scatter(args, weights.clone()).unwrap().workflows[0].1, sites).0
    };
    run_with(json!({}), &three).unwrap();
    let error = run_with(json!({ "min_clients": 3 }), &three).unwrap_err().to_string();
    assert_eq!(error, "round 0: b: the site answered EXECUTION_EXCEPTION: ");
    run_with(json!({ "ignore_result_error": false }), &three).unwrap_err();
    run_with(json!({ "min_clients": 1000, "ignore_result_error": true }), &three).unwrap();
    let task = good.given.lock().unwrap()[0].clone();
    assert_eq!((task.headers.int("current_round"), task.headers.int("num_rounds")), (Some(0), Some(1)));
}

#[test]
fn scatter_and_gather_counts_answers_and_goes_on_with_what_is_usable_of_them() {
    let good = Trainer::default();
    let odd = Trainer { kind: Some(DataKind::WeightDiff), ..Trainer::default() };
    let weights = json!({ "expected_data_kind": "WEIGHTS" });
    let mut workflow = scatter(json!({ "min_clients": 2 }), weights.clone()).unwrap().workflows.remove(0).1;
    let (outcome, board, folder) = run(&mut *workflow, &[("a", &odd), ("b", &good), ("c", &odd)]);
    outcome.unwrap();
    let model = load_npz(&folder.path().join("models/global.npz")).unwrap();
    assert_eq!(model.get("w").unwrap().as_array().unwrap().to_f64(), [1.0]);
    let counted = board.progress().into_iter().find_map(|progress| {
        let Progress::RoundFinished { sites, .. } = progress else { return None };
        Some(sites.into_iter().map(|(site, _)| site).collect::<Vec<_>>())
    });
    assert_eq!(counted, Some(vec!["b".to_owned()]));
    let mut workflow = scatter(json!({}), weights).unwrap().workflows.remove(0).1;
    let error = run(&mut *workflow, &[("a", &odd), ("b", &odd), ("c", &odd)]).0.unwrap_err().to_string();
    assert!(error.starts_with("round 0: no result is usable (a: it is of kind WEIGHT_DIFF"), "{error}");
}

#[test]
fn scatter_and_gather_needs_its_parts_and_results_of_the_expected_kind() {
    let differences = scatter(json!({}), json!({})).unwrap();
    let error = run(&mut *{ differences }.workflows[0].1, &[("a", &Trainer::default())]).0.unwrap_err();
    let reason = "a: it is of kind WEIGHTS, and the aggregator expects WEIGHT_DIFF";
    assert_eq!(error.to_string(), format!("round 0: no result is usable ({reason})"));
    for (workflow, aggregator, argument) in [
        (json!({ "aggregator_id": "adder" }), json!({}), "aggregator_id"),
        (json!({ "shareable_generator_id": "aggregator" }), json!({}), "shareable_generator_id"),
        (json!({ "persistor_id": "keeper" }), json!({}), "persistor_id"),
        (json!({ "min_clients": 0 }), json!({}), "min_clients"),
        (json!({}), json!({ "expected_data_kind": "METRICS" }), "expected_data_kind"),
        (json!({}), json!({ "weigh_by_local_iter": false }), "weigh_by_local_iter"),
        (json!({}), json!({ "aggregation_weights": { "a": -1 } }), "aggregation_weights.a"),
    ] {
        let error = scatter(workflow, aggregator).unwrap_err();
        assert!(error.starts_with(&format!("argument `{argument}`: ")), "{error}");
    }
}

fn plan(text: &str) -> Result<Plan, String> {
    let mut registry = Registry::new();
    locule_nvflare::register(&mut registry);
    let document = Document::parse_json("config_fed_server.json", text).unwrap();
    Plan::from_document(&document, Side::Server, &registry).map_err(|mistakes| mistakes.to_string())
}

#[test]
fn what_is_misspelt_or_not_here_is_said_with_what_might_be_meant() {
    let job = |path: &str, argument: &str| {
        json!({ "format_version": 2, "workflows": [{ "path": path, "args": { argument: 2 } }] }).to_string()
    };
    let path = "nvflare.app_common.workflows.fedavg.FedAvg";
    let text = plan(&job(path, "num_round")).unwrap_err();
    assert!(text.contains("did you mean `num_rounds`?"), "{text}");
    let text = plan(&job("nvflare.app_common.workflows.fedavg.FedAvgg", "num_rounds")).unwrap_err();
    assert!(text.contains(&format!("did you mean `{path}`?")), "{text}");
    let text = plan(&job("nvflare.app_common.workflows.splitnn_workflow.SplitNNController", "num_rounds"))
        .unwrap_err();
    assert!(
        text.contains("unknown component `nvflare.app_common.workflows.splitnn_workflow.SplitNNController`"),
        "{text}"
    );
}

#[test]
fn arguments_that_make_no_sense_are_refused_by_name() {
    for (args, argument) in [
        (json!({ "stop_cond": "accuracy" }), "stop_cond"),
        (json!({ "exclude_vars": "(" }), "exclude_vars"),
        (json!({ "aggregation_weights": { "a": -1 } }), "aggregation_weights.a"),
        (json!({ "fedprox_mu": -0.5 }), "fedprox_mu"),
        (json!({ "model": { "w": [[1], 2] } }), "model.w"),
        (json!({ "task_name": "" }), "task_name"),
        (json!({ "start_round": u64::MAX }), "start_round"),
        (json!({ "task_check_period": 0 }), "task_check_period"),
    ] {
        let error = FedAvg::new(serde_json::from_value(args).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("argument `{argument}`: ")), "{error}");
    }
}
