//! Whole workflows over a board in one process.

#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

use std::path::Path;

use locule_component::{AbortFlag, ExecuteError, Executor, Progress, Task, TaskCx, WorkflowError};
use locule_fobs::{Array, DataKind, Dxo, Map, Shareable};
use locule_workflow::{FeatureMoments, FedAvg, LocalBoard, Moments, load_npz};
use serde_json::{Value as Json, json};

/// An executor that is a function.
struct Does<F>(F);

impl<F> Executor for Does<F>
where
    F: FnMut(&Task, &str) -> Result<Shareable, ExecuteError> + Send,
{
    fn execute(&mut self, task: &Task, cx: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        (self.0)(task, cx.site)
    }
}

fn does(f: impl FnMut(&Task, &str) -> Result<Shareable, ExecuteError> + Send + 'static) -> Box<dyn Executor> {
    Box::new(Does(f))
}

/// Returns the weight plus `step`, trained on `rows` rows.
fn adds(step: f64, rows: i64) -> Box<dyn Executor> {
    does(move |task, _| Ok(answer(DataKind::Weights, weight_of(task) + step, rows)))
}

fn answer(kind: DataKind, w: f64, rows: i64) -> Shareable {
    let mut dxo = Dxo::new(kind, Map::from_iter([("w", Array::from(&[w][..]))]));
    dxo.meta.insert("NUM_STEPS_CURRENT_ROUND", rows);
    dxo.meta.insert("initial_metrics", Map::from_iter([("loss", w), ("unusable", f64::NAN)]));
    Shareable::with_dxo(dxo)
}

fn weight_of(task: &Task) -> f64 {
    let dxo = task.data.dxo().unwrap().unwrap();
    assert_eq!(dxo.kind, DataKind::Weights);
    dxo.data.get("w").unwrap().as_array().unwrap().to_f64()[0]
}

fn fed_avg(args: Json) -> FedAvg {
    FedAvg::new(serde_json::from_value(args).unwrap()).unwrap()
}

fn saved(path: &Path) -> f64 {
    load_npz(path).unwrap().get("w").unwrap().as_array().unwrap().to_f64()[0]
}

struct Run {
    folder: tempfile::TempDir,
    board: LocalBoard,
}

impl Run {
    fn new(sites: impl IntoIterator<Item = (&'static str, Box<dyn Executor>)>) -> Run {
        let folder = tempfile::tempdir().unwrap();
        let mut board = LocalBoard::new(folder.path());
        sites.into_iter().for_each(|(name, executor)| board.add_site(name, executor));
        Run { folder, board }
    }

    fn model(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("models").join(name)
    }
}

/// The weights 7 (w + 1) and 3 (w + 10) gave w + 3.7 in a live run of nvflare 2.9.0.
#[test]
fn models_are_averaged_by_rows_and_saved_after_every_round() {
    let run = Run::new([("north", adds(1.0, 7)), ("south", adds(10.0, 3))]);
    run.board.run(&mut fed_avg(json!({ "num_rounds": 3, "model": { "w": { "shape": [1] } } }))).unwrap();

    for round in 1..=3 {
        assert!((saved(&run.model(&format!("round-000{round}.npz"))) - 3.7 * f64::from(round)).abs() < 1e-12);
    }
    assert_eq!(saved(&run.model("global.npz")), saved(&run.model("round-0003.npz")));

    let metrics = |w: f64| {
        [("north", w + 1.0), ("south", w + 10.0)]
            .map(|(site, w)| (site.to_owned(), vec![("loss".to_owned(), w)]))
            .to_vec()
    };
    let mut expected = Vec::new();
    for round in 0..3 {
        let before = if round == 0 { 0.0 } else { saved(&run.model(&format!("round-000{round}.npz"))) };
        let model = run.model(&format!("round-000{}.npz", round + 1));
        expected.push(Progress::RoundStarted { round, rounds: 3 });
        expected.push(Progress::RoundFinished { round, rounds: 3, sites: metrics(before), model });
    }
    expected.push(Progress::ModelSaved { path: run.model("global.npz") });
    assert_eq!(run.board.progress(), expected);
}

#[test]
fn sites_are_told_the_round() {
    let run = Run::new([(
        "north",
        does(|task, _| {
            let header = |name| task.data.headers.int(name).unwrap();
            let w = header("current_round") * 100 + header("num_rounds") * 10 + header("start_round");
            assert_eq!(task.name, "fit");
            Ok(answer(DataKind::Weights, w as f64, 1))
        }),
    )]);
    run.board.run(&mut fed_avg(json!({ "num_rounds": 2, "start_round": 5, "task_name": "fit" }))).unwrap();
    assert_eq!(saved(&run.model("round-0006.npz")), 525.0);
    assert_eq!(saved(&run.model("round-0007.npz")), 625.0);
}

#[test]
fn differences_are_added_to_the_model() {
    let diff = |d| does(move |_, _| Ok(answer(DataKind::WeightDiff, d, 1)));
    let run = Run::new([("north", diff(1.0)), ("south", diff(2.0))]);
    run.board
        .run(&mut fed_avg(json!({ "num_rounds": 2, "model": { "w": { "shape": [1], "fill": 10 } } })))
        .unwrap();
    assert_eq!(saved(&run.model("global.npz")), 13.0);
}

#[test]
fn a_configured_weight_multiplies_the_rows() {
    let run = Run::new([("north", adds(0.0, 1)), ("south", adds(8.0, 1))]);
    let args =
        json!({ "num_rounds": 1, "model": { "w": { "shape": [1] } }, "aggregation_weights": { "north": 3 } });
    run.board.run(&mut fed_avg(args)).unwrap();
    assert_eq!(saved(&run.model("global.npz")), 2.0);
}

#[test]
fn an_unusable_result_leaves_no_trace_when_the_others_suffice() {
    let broken = does(|_, _| Ok(answer(DataKind::Weights, f64::INFINITY, 1_000_000)));
    let fails = does(|_, _| Err(ExecuteError::Failed("out of memory".to_owned())));
    let run = Run::new([("east", broken), ("north", adds(1.0, 1)), ("south", fails), ("west", adds(3.0, 1))]);
    run.board
        .run(&mut fed_avg(json!({ "min_clients": 2, "num_rounds": 1, "model": { "w": { "shape": [1] } } })))
        .unwrap();
    assert_eq!(saved(&run.model("global.npz")), 2.0);
}

#[track_caller]
fn check_failure(bad: Box<dyn Executor>, reason: &str) {
    let run = Run::new([("north", adds(1.0, 1)), ("south", bad)]);
    let error = run
        .board
        .run(&mut fed_avg(json!({ "num_rounds": 1, "model": { "w": { "shape": [1] } } })))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("task `train` of round 0 has 1 of 2 usable results (south: {reason})")
    );
    assert!(!run.model("global.npz").exists());
}

#[test]
fn too_few_usable_results_fail_the_job_and_name_site_and_reason() {
    check_failure(
        does(|_, _| Err(ExecuteError::Failed("out of\nmemory".to_owned()))),
        "the site answered `EXECUTION_EXCEPTION`: `out of\\nmemory`",
    );
    check_failure(
        does(|_, _| Ok(Shareable::with_return_code("MISSING_PEER"))),
        "the site answered `MISSING_PEER`",
    );
    check_failure(does(|_, _| Ok(Shareable::new())), "it holds no DXO");
    check_failure(
        does(|_, _| Ok(answer(DataKind::Metrics, 0.0, 1))),
        "expected weights, found a DXO of kind METRICS",
    );
    check_failure(
        does(|_, _| Ok(answer(DataKind::WeightDiff, 0.0, 1))),
        "it is of kind WEIGHT_DIFF, but an earlier site of the round returned WEIGHTS",
    );
    check_failure(does(|_, _| Ok(answer(DataKind::Weights, f64::NAN, 1))), "`w` is not finite at index 0");
    check_failure(does(|_, _| Ok(answer(DataKind::Weights, 0.0, 0))), "weight 0 is not usable");
    check_failure(
        does(|_, _| {
            let mut dxo = answer(DataKind::Weights, 0.0, 1).dxo().unwrap().unwrap();
            dxo.meta.insert("NUM_STEPS_CURRENT_ROUND", "many");
            Ok(Shareable::with_dxo(dxo))
        }),
        "NUM_STEPS_CURRENT_ROUND is of type str, not a number",
    );
    check_failure(
        does(|_, _| {
            let mut stale = answer(DataKind::Weights, 0.0, 1);
            stale.set_header("current_round", 7_i64);
            Ok(stale)
        }),
        "it belongs to round 7, not 0",
    );
    check_failure(
        does(|_, _| {
            let wide = Map::from_iter([("w", Array::from(&[1.0, 2.0][..]))]);
            Ok(Shareable::with_dxo(Dxo::new(DataKind::Weights, wide)))
        }),
        "`w` has shape [2] instead of [1]",
    );
}

#[test]
fn a_difference_needs_a_model() {
    let run = Run::new([("north", does(|_, _| Ok(answer(DataKind::WeightDiff, 1.0, 1))))]);
    let error = run.board.run(&mut fed_avg(json!({}))).unwrap_err().to_string();
    assert!(error.contains("it is a difference, and there is no model yet to add it to"), "{error}");
}

#[test]
fn a_job_needs_its_sites() {
    let run = Run::new([("north", adds(1.0, 1))]);
    let error = run.board.run(&mut fed_avg(json!({ "num_clients": 2 }))).unwrap_err();
    assert_eq!(error.to_string(), "1 sites take part and 2 are needed");
    assert!(matches!(
        Run::new([]).board.run(&mut fed_avg(json!({}))),
        Err(WorkflowError::TooFewSites { .. })
    ));
}

#[test]
fn an_aborted_run_stops_between_rounds() {
    let folder = tempfile::tempdir().unwrap();
    let mut board = LocalBoard::new(folder.path());
    let abort: AbortFlag = board.abort_flag().clone();
    board.add_site(
        "north",
        does(move |task, _| {
            if task.data.headers.int("current_round") == Some(1) {
                abort.raise();
            }
            Ok(answer(DataKind::Weights, 1.0, 1))
        }),
    );
    let error = board.run(&mut fed_avg(json!({ "num_rounds": 5 }))).unwrap_err();
    assert!(matches!(error, WorkflowError::Aborted));
    assert!(!folder.path().join("models/round-0003.npz").exists());
}

#[test]
fn the_same_inputs_give_the_same_files() {
    let bytes = || {
        let run = Run::new([("north", adds(0.1, 7)), ("south", adds(0.3, 3))]);
        run.board.run(&mut fed_avg(json!({ "num_rounds": 4, "model": { "w": { "shape": [1] } } }))).unwrap();
        std::fs::read(run.model("global.npz")).unwrap()
    };
    assert_eq!(bytes(), bytes());
}

#[test]
fn senseless_arguments_are_named() {
    for (args, text) in [
        (json!({ "num_rounds": 0 }), "argument `num_rounds`: at least one round must run"),
        (json!({ "start_round": u64::MAX }), "argument `start_round`: the rounds cannot be counted"),
        (json!({ "task_name": "" }), "argument `task_name`: a task needs a name"),
        (json!({ "grace_seconds": -1 }), "argument `grace_seconds`: expected a number of seconds, 0 or more"),
        (
            json!({ "aggregation_weights": { "a": 0 } }),
            "argument `aggregation_weights.a`: expected a finite number above 0",
        ),
        (
            json!({ "model": { "w": { "shape": [u32::MAX, u32::MAX, 9] } } }),
            "argument `model.w`: the shape is too large",
        ),
        (
            json!({ "model": { "w": { "shape": [1], "dtype": "float32", "fill": 1e300 } } }),
            "argument `model.w`: `fill` must be a finite number of its dtype",
        ),
    ] {
        assert_eq!(FedAvg::new(serde_json::from_value(args).unwrap()).unwrap_err().to_string(), text);
    }
}

fn has_rows(rows: &'static [[f64; 2]]) -> Box<dyn Executor> {
    does(move |task, _| match task.name.as_str() {
        "moments" => {
            let mut moments = Moments::new(2);
            rows.iter().for_each(|row| moments.push(row));
            Ok(Shareable::with_dxo(moments.to_dxo()))
        }
        "standardise" => {
            let dxo = task.data.dxo().unwrap().unwrap();
            let of = |name| dxo.data.get(name).unwrap().as_array().unwrap().to_f64();
            assert_eq!((of("mean"), of("scale")), (vec![3.0, 5.0], vec![2.0, 1.0]));
            Ok(Shareable::new())
        }
        other => Err(ExecuteError::UnknownTask(other.to_owned())),
    })
}

fn feature_moments(args: Json) -> FeatureMoments {
    FeatureMoments::new(serde_json::from_value(args).unwrap()).unwrap()
}

#[test]
fn moments_of_all_sites_become_one_standardisation() {
    let run = Run::new([
        ("north", has_rows(&[[1.0, 5.0], [5.0, 5.0]])),
        ("south", has_rows(&[[5.0, 5.0], [1.0, 5.0]])),
    ]);
    run.board.run(&mut feature_moments(json!({}))).unwrap();
    let path = run.model("standardisation.npz");
    let saved = load_npz(&path).unwrap();
    assert_eq!(saved.get("mean").unwrap().as_array().unwrap().to_f64(), [3.0, 5.0]);
    assert_eq!(saved.get("scale").unwrap().as_array().unwrap().to_f64(), [2.0, 1.0]);
    assert_eq!(run.board.progress(), [Progress::ModelSaved { path }]);
}

#[test]
fn moments_that_do_not_fit_fail_the_job_and_name_the_site() {
    let narrow = does(|_, _| Ok(Shareable::with_dxo(Moments::new(1).to_dxo())));
    let run = Run::new([("north", has_rows(&[[1.0, 5.0]])), ("south", narrow)]);
    let error = run.board.run(&mut feature_moments(json!({}))).unwrap_err();
    let text = "task `moments` has 1 of 2 usable results (south: `count` is missing or not usable)";
    assert_eq!(error.to_string(), text);

    let mut one = Moments::new(1);
    one.push(&[1.0]);
    let narrow = does(move |_, _| Ok(Shareable::with_dxo(one.to_dxo())));
    let run = Run::new([("north", has_rows(&[[1.0, 5.0]])), ("south", narrow)]);
    let error = run.board.run(&mut feature_moments(json!({}))).unwrap_err();
    let text = "task `moments` has 1 of 2 usable results (south: expected 2 columns, found 1)";
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_site_without_a_standardisation_fails_the_job() {
    let mut moments = Moments::new(2);
    [[1.0, 5.0], [5.0, 5.0]].iter().for_each(|row| moments.push(row));
    let deaf = does(move |task, _| match task.name.as_str() {
        "moments" => Ok(Shareable::with_dxo(moments.to_dxo())),
        other => Err(ExecuteError::UnknownTask(other.to_owned())),
    });
    let run = Run::new([("north", has_rows(&[[1.0, 5.0], [5.0, 5.0]])), ("south", deaf)]);
    let error = run.board.run(&mut feature_moments(json!({ "min_clients": 2 }))).unwrap_err();
    let text = "task `standardise` has 1 of 2 usable results \
        (south: the site answered `TASK_UNKNOWN`: `unknown task `standardise``)";
    assert_eq!(error.to_string(), text);
}
