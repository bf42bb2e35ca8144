//! Optimisers, robust rules, choice of the best model, early stop and record, against numbers computed with numpy.
//!
//! The numbers are those of `python tests/golden/algorithms.py > tests/golden/algorithms.json` with numpy 2.4.6.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::task::Poll;

use locule_component::{
    BoxFuture, ExecuteError, Executor, Gathered, Late, OutgoingTask, Progress, ResultSink, Task, TaskBoard,
    TaskCx, Workflow as _, WorkflowError,
};
use locule_fobs::{Array, DataKind, Dtype, Dxo, Map, Shareable};
use locule_workflow::{
    CrossSiteEvaluation, Cyclic, FedAdagradArgs, FedAdamArgs, FedAvg, LocalBoard, Optimizer, Rule, Scaffold,
    UpdateSpool, load_npz,
};
use serde_json::{Value as Json, json};

fn golden() -> Json {
    serde_json::from_str(include_str!("golden/algorithms.json")).unwrap()
}

fn numbers(json: &Json) -> Vec<f64> {
    json.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn model(w: &[f64]) -> Map {
    Map::from_iter([("w", Array::from(w))])
}

fn values(model: &Map) -> Vec<f64> {
    model.get("w").unwrap().as_array().unwrap().to_f64()
}

#[track_caller]
fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1.0), "{found} is not {expected}");
    }
}

#[test]
fn optimizers_take_the_steps_that_numpy_takes() {
    let golden = golden();
    let adam = FedAdamArgs { learning_rate: 0.1, beta1: 0.9, beta2: 0.99, tau: 1e-3 };
    let adagrad = FedAdagradArgs { learning_rate: 0.1, beta1: 0.0, tau: 1e-3 };
    for (name, mut optimizer) in [
        ("momentum", Optimizer::momentum(0.5, 0.9)),
        ("adam", Optimizer::adam(adam)),
        ("yogi", Optimizer::yogi(adam)),
        ("adagrad", Optimizer::adagrad(adagrad)),
    ] {
        let mut x = model(&numbers(&golden["start"]));
        for (step, change) in golden["changes"].as_array().unwrap().iter().enumerate() {
            x = optimizer.step(&x, &model(&numbers(change))).unwrap();
            close(&values(&x), &numbers(&golden["optimizers"][name][step]));
        }
    }
}

#[test]
fn an_optimizer_keeps_the_dtype_and_refuses_what_does_not_fit() {
    let half = |x: f32| Map::from_iter([("w", Array::from(&[x][..]))]);
    let mut momentum = Optimizer::momentum(1.0, 0.5);
    let next = momentum.step(&half(1.0), &half(0.1)).unwrap();
    assert_eq!(next, half(1.0 + 0.1_f32));
    assert_eq!(next.get("w").unwrap().as_array().unwrap().dtype(), Dtype::F32);
    assert_eq!(momentum.step(&half(1.0), &Map::new()).unwrap_err(), "`w` is missing from the update");
    let huge = Optimizer::momentum(1e300, 0.0).step(&half(1.0), &half(1.0));
    assert_eq!(huge.unwrap_err(), "`w` leaves the range of its dtype");
}

fn spool(updates: &[Vec<f64>]) -> (tempfile::TempDir, UpdateSpool) {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = UpdateSpool::create(folder.path().join("updates")).unwrap();
    for update in updates {
        // Two arrays, of which one has another dtype, so that places in the file count.
        let pair = [("ones", Array::from(&[1.0_f32, 1.0, 1.0][..])), ("w", Array::from(&update[..]))];
        spool.add(&Map::from_iter(pair)).unwrap();
    }
    (folder, spool)
}

#[test]
fn robust_rules_give_what_numpy_gives() {
    let golden = golden();
    let updates: Vec<Vec<f64>> = golden["updates"].as_array().unwrap().iter().map(numbers).collect();
    let krum = |select| Rule::Krum { byzantine: 2, select };
    for (name, updates, rule) in [
        ("median", &updates[..], Rule::Median),
        ("median of six", &updates[..6], Rule::Median),
        ("trimmed", &updates[..], Rule::TrimmedMean { fraction: 0.3 }),
        ("krum", &updates[..], krum(1)),
        ("multi krum", &updates[..], krum(3)),
    ] {
        let (folder, spool) = spool(updates);
        let result = spool.finish(rule).unwrap();
        close(&values(&result), &numbers(&golden["rules"][name]));
        assert_eq!(
            result.get("ones").unwrap().as_array(),
            Some(&Array::from(&[1.0_f32, 1.0, 1.0][..])),
            "{name}"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file goes");
    }
}

/// More coordinates than are in memory at a time.
#[test]
fn blocks_do_not_show_in_the_result() {
    let len = 700_001;
    let folder = tempfile::tempdir().unwrap();
    let mut spool = UpdateSpool::create(folder.path().join("updates")).unwrap();
    for site in 0..5_u32 {
        let update: Vec<f64> = (0..len).map(|i| f64::from((i * 7 + site * 3) % 11)).collect();
        spool.add(&model(&update)).unwrap();
    }
    let median = values(&spool.finish(Rule::Median).unwrap());
    for i in [0, 1, 209_714, 209_715, 209_716, len - 1] {
        let mut column: Vec<u32> = (0..5).map(|site| (i * 7 + site * 3) % 11).collect();
        column.sort_unstable();
        assert_eq!(median[i as usize], f64::from(column[2]), "at {i}");
    }
}

#[test]
fn a_rule_says_what_it_lacks() {
    let krum = Rule::Krum { byzantine: 1, select: 1 };
    let refused = |count: usize, rule| spool(&vec![vec![1.0]; count]).1.finish(rule).unwrap_err();
    assert_eq!(refused(4, krum), "Krum against 1 needs 5 results and has 4");
    assert_eq!(refused(0, Rule::Median), "there are no results");
    let greedy = Rule::Krum { byzantine: 1, select: 5 };
    assert_eq!(refused(5, greedy), "Krum cannot select 5 of 5 results, 1 of them lies");
    let (_folder, mut spool) = spool(&[vec![1.0]]);
    let wide = Map::from_iter([("ones", Array::from(&[1.0_f32][..])), ("w", Array::from(&[1.0][..]))]);
    let unusable = spool.add(&wide).unwrap_err();
    assert_eq!(
        (unusable.fault.code(), &*unusable.reason),
        ("WRONG_SHAPE", "`ones` has shape [1] instead of [3]")
    );
    assert_eq!(spool.count(), 1);
}

struct Does<F>(F);

impl<F: FnMut(&Task) -> Shareable + Send> Executor for Does<F> {
    fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        Ok((self.0)(task))
    }
}

fn weight_of(task: &Task) -> f64 {
    values(&task.data.dxo().unwrap().unwrap().data)[0]
}

fn answer(w: f64, metrics: &[(&str, f64)]) -> Shareable {
    let mut dxo = Dxo::new(DataKind::Weights, model(&[w]));
    dxo.meta.insert("initial_metrics", metrics.iter().map(|(name, x)| (*name, *x)).collect::<Map>());
    Shareable::with_dxo(dxo)
}

/// A site that moves the weight by `step` and reports `-(w - 3)²` as its score.
fn moves(step: f64) -> Box<dyn Executor> {
    Box::new(Does(move |task: &Task| {
        let w = weight_of(task);
        answer(w + step, &[("score", -(w - 3.0) * (w - 3.0))])
    }))
}

fn fed_avg(mut args: Json) -> FedAvg {
    args["model"] = json!({ "w": { "shape": [1] } });
    FedAvg::new(serde_json::from_value(args).unwrap()).unwrap()
}

fn run(
    mut workflow: FedAvg,
    sites: Vec<Box<dyn Executor>>,
) -> (tempfile::TempDir, Result<(), WorkflowError>) {
    let folder = tempfile::tempdir().unwrap();
    let mut board = LocalBoard::new(folder.path());
    for (number, site) in sites.into_iter().enumerate() {
        board.add_site(format!("site-{number}"), site);
    }
    let ended = board.run(&mut workflow);
    (folder, ended)
}

fn saved(folder: &Path, name: &str) -> f64 {
    values(&load_npz(&folder.join("models").join(name)).unwrap())[0]
}

#[test]
fn a_lying_site_moves_the_mean_and_not_the_median() {
    let sites = || vec![moves(1.0), moves(1.0), moves(1e6)];
    let (folder, ended) = run(fed_avg(json!({ "num_rounds": 2 })).with_rule(Rule::Median), sites());
    ended.unwrap();
    assert_eq!(saved(folder.path(), "global.npz"), 2.0);
    let (folder, ended) = run(fed_avg(json!({ "num_rounds": 2 })), sites());
    ended.unwrap();
    assert!(saved(folder.path(), "global.npz") > 1e5);
}

/// With `v` 1 then 1.9 then 2.71 at the rate 1.
#[test]
fn the_optimizer_takes_the_step_of_the_round() {
    let workflow = fed_avg(json!({ "num_rounds": 3 })).with_optimizer(Optimizer::momentum(1.0, 0.9));
    let (folder, ended) = run(workflow, vec![moves(0.5), moves(1.5)]);
    ended.unwrap();
    close(&[saved(folder.path(), "global.npz")], &[5.61]);
}

#[test]
fn the_best_model_is_kept_and_the_run_stops_early() {
    let args = json!({ "num_rounds": 50, "best": { "metric": "score" },
        "stop": { "metric": "score", "patience": 3 } });
    let (folder, ended) = run(fed_avg(args), vec![moves(1.0), moves(1.0)]);
    ended.unwrap();
    assert_eq!(saved(folder.path(), "best.npz"), 3.0, "what the sites judged, not what they made of it");
    assert_eq!(saved(folder.path(), "global.npz"), 7.0, "three rounds went by after the best");
    let rounds: Json =
        serde_json::from_slice(&std::fs::read(folder.path().join("rounds.json")).unwrap()).unwrap();
    assert_eq!(rounds.as_array().unwrap().len(), 7);
    assert_eq!((&rounds[3]["best"], &rounds[4]["best"]), (&json!(true), &json!(false)));
    assert_eq!(rounds[6]["stopped"], "3 rounds without a better `score`");
    let csv = std::fs::read_to_string(folder.path().join("metrics.csv")).unwrap();
    assert_eq!(
        csv.lines().take(4).collect::<Vec<_>>(),
        ["round,site,metric,value", "0,site-0,score,-9", "0,site-1,score,-9", "0,,score,-9"]
    );
}

#[test]
fn the_record_names_who_did_not_count_and_why() {
    let args = json!({ "num_rounds": 2, "min_clients": 1 });
    let bad = |update: Map| -> Box<dyn Executor> {
        Box::new(Does(move |_: &Task| Shareable::with_dxo(Dxo::new(DataKind::Weights, update.clone()))))
    };
    let single = || Array::from(&[1.0_f32][..]);
    let double = || Array::from(&[1.0][..]);
    let sites = vec![
        moves(1.0),
        bad(model(&[f64::NAN])),
        bad(model(&[1.0, 2.0])),
        bad(Map::from_iter([("w", single())])),
        bad(Map::from_iter([("w", double()), ("x", double())])),
        bad(Map::from_iter([("x", double())])),
        Box::new(Does(|_: &Task| Shareable::with_return_code("EXECUTION_EXCEPTION"))),
        // Its dtype is right in the first round only.
        Box::new(Does(move |task: &Task| match task.data.headers.int("current_round") {
            Some(0) => answer(1.0, &[]),
            _ => Shareable::with_dxo(Dxo::new(DataKind::Weights, Map::from_iter([("w", single())]))),
        })),
    ];
    let (folder, ended) = run(fed_avg(args), sites);
    ended.unwrap();
    assert_eq!(saved(folder.path(), "global.npz"), 2.0);
    let rounds: Json =
        serde_json::from_slice(&std::fs::read(folder.path().join("rounds.json")).unwrap()).unwrap();
    let codes: Vec<(&str, &str)> = rounds[1]["missing"]
        .as_array()
        .unwrap()
        .iter()
        .map(|missing| (missing["site"].as_str().unwrap(), missing["code"].as_str().unwrap()))
        .collect();
    assert_eq!(
        codes,
        [
            ("site-1", "NOT_FINITE"),
            ("site-2", "WRONG_SHAPE"),
            ("site-3", "WRONG_DTYPE"),
            ("site-4", "UNEXPECTED_NAME"),
            ("site-5", "MISSING_NAME"),
            ("site-6", "FAILED"),
            ("site-7", "WRONG_DTYPE"),
        ]
    );
    assert_eq!(rounds[0]["missing"].as_array().unwrap().len(), 6);
    assert_eq!(rounds[1]["missing"][0]["reason"], "`w` is not finite at index 0");
}

#[test]
fn sites_find_the_proximal_coefficient_in_the_models_meta() {
    let site: Box<dyn Executor> = Box::new(Does(|task: &Task| {
        let mu = task.data.dxo().unwrap().unwrap().meta.float("fedprox_mu").unwrap();
        answer(mu, &[])
    }));
    let (folder, ended) = run(fed_avg(json!({ "num_rounds": 1, "fedprox_mu": 0.25 })), vec![site]);
    ended.unwrap();
    assert_eq!(saved(folder.path(), "global.npz"), 0.25);
}

/// One site of the SCAFFOLD of `algorithms.py`.
fn scaffold_site(target: f64, rows: i64) -> Box<dyn Executor> {
    let mut own = 0.0;
    Box::new(Does(move |task: &Task| {
        let dxo = task.data.dxo().unwrap().unwrap();
        let (x, c) = (weight_of(task), values(dxo.meta.map("scaffold_c_global").unwrap())[0]);
        let mut y = x;
        for _ in 0..2 {
            y -= 0.2 * ((y - target) - own + c);
        }
        let new = own - c + (x - y) / (2.0 * 0.2);
        let mut result = Dxo::new(DataKind::Weights, model(&[y]));
        result.meta.insert("NUM_STEPS_CURRENT_ROUND", rows);
        result.meta.insert("scaffold_c_diff", model(&[new - own]));
        own = new;
        Shareable::with_dxo(result)
    }))
}

#[test]
fn control_variates_are_those_of_numpy() {
    let args = json!({ "num_rounds": 4, "model": { "w": { "shape": [1], "fill": 0.5 } } });
    let workflow = Scaffold::workflow(serde_json::from_value(args).unwrap()).unwrap();
    let sites = vec![scaffold_site(1.0, 5), scaffold_site(4.0, 2), scaffold_site(-2.0, 3)];
    let (folder, ended) = run(workflow, sites);
    ended.unwrap();
    let golden = golden();
    for round in 0..4 {
        let expected = numbers(&golden["scaffold"][round]);
        close(&[saved(folder.path(), &format!("round-{:04}.npz", round + 1))], &expected[..1]);
        if round == 3 {
            close(&[saved(folder.path(), "controls.npz")], &expected[1..]);
        }
    }
}

#[test]
fn a_result_without_control_variates_is_not_usable() {
    let args = json!({ "num_rounds": 1, "min_clients": 1, "model": { "w": { "shape": [1] } } });
    let workflow = Scaffold::workflow(serde_json::from_value(args).unwrap()).unwrap();
    let (folder, ended) = run(workflow, vec![moves(1e6), scaffold_site(1.0, 1)]);
    ended.unwrap();
    let rounds = std::fs::read_to_string(folder.path().join("rounds.json")).unwrap();
    assert!(rounds.contains("its meta has no `scaffold_c_diff`"), "{rounds}");
    assert!(saved(folder.path(), "global.npz") < 1.0);
}

fn board(sites: Vec<(&str, Box<dyn Executor>)>) -> (tempfile::TempDir, LocalBoard) {
    let folder = tempfile::tempdir().unwrap();
    let mut board = LocalBoard::new(folder.path());
    sites.into_iter().for_each(|(name, site)| board.add_site(name, site));
    (folder, board)
}

/// From w to a·w + b at each site: what comes out depends on the order.
fn affine(a: f64, b: f64) -> Box<dyn Executor> {
    Box::new(Does(move |task: &Task| answer(a * weight_of(task) + b, &[])))
}

#[test]
fn the_model_goes_from_site_to_site_and_passes_over_one_that_fails() {
    let broken = || -> Box<dyn Executor> {
        Box::new(Does(|_: &Task| Shareable::with_return_code("EXECUTION_EXCEPTION")))
    };
    let args = |more: Json| {
        let mut args = json!({ "num_rounds": 2, "min_clients": 2, "model": { "w": { "shape": [1] } } });
        args.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Cyclic::new(serde_json::from_value(args).unwrap()).unwrap()
    };
    let sites = || vec![("a", affine(2.0, 1.0)), ("b", broken()), ("c", affine(3.0, -1.0))];
    let (folder, local) = board(sites());
    local.run(&mut args(json!({}))).unwrap();
    // 0 → 1 → 2, then 2 → 5 → 14
    assert_eq!(saved(folder.path(), "round-0001.npz"), 2.0);
    assert_eq!(saved(folder.path(), "global.npz"), 14.0);
    let rounds = std::fs::read_to_string(folder.path().join("rounds.json")).unwrap();
    assert!(rounds.contains("the site answered `EXECUTION_EXCEPTION`"), "{rounds}");

    let (folder, local) = board(sites());
    local.run(&mut args(json!({ "sites": ["c", "a"] }))).unwrap();
    // 0 → -1 → -1, then -1 → -4 → -7
    assert_eq!(saved(folder.path(), "global.npz"), -7.0);

    let (_folder, local) = board(sites());
    let error = local.run(&mut args(json!({ "min_clients": 3 }))).unwrap_err().to_string();
    assert!(error.contains("has 2 of 3 usable results (b: the site answered"), "{error}");
}

/// Its model is `own`, or none; the score of another is the distance to it.
fn judge(own: Option<f64>) -> Box<dyn Executor> {
    Box::new(Does(move |task: &Task| match (&*task.name, own) {
        ("submit_model", Some(own)) => {
            assert_eq!(task.data.headers.str("submit_model_name"), Some("best_model"));
            answer(own, &[])
        }
        ("submit_model", None) => Shareable::new(),
        _ => {
            assert!(task.data.headers.str("_model_owner_").is_some());
            let distance = (weight_of(task) - own.unwrap_or(0.0)).abs();
            Shareable::with_dxo(Dxo::new(DataKind::Metrics, Map::from_iter([("distance", distance)])))
        }
    }))
}

#[test]
fn every_site_judges_every_model_and_the_servers() {
    let (folder, local) = board(vec![("a", judge(Some(1.0))), ("b", judge(None)), ("c", judge(Some(5.0)))]);
    std::fs::create_dir_all(folder.path().join("models")).unwrap();
    locule_workflow::save_npz(&folder.path().join("models/global.npz"), &model(&[3.0])).unwrap();
    let args = json!({ "server_models": ["global", "best"], "min_clients": 3 });
    let mut workflow = CrossSiteEvaluation::new(serde_json::from_value(args).unwrap()).unwrap();
    local.run(&mut workflow).unwrap();
    let folder = folder.path().join("cross_site_val");
    let found: Json =
        serde_json::from_slice(&std::fs::read(folder.join("cross_val_results.json")).unwrap()).unwrap();
    let expected = |a: f64, c: f64, server: f64| json!({ "a": { "distance": a }, "c": { "distance": c }, "SRV_global": { "distance": server } });
    assert_eq!(
        found,
        json!({ "a": expected(0.0, 4.0, 2.0), "b": expected(1.0, 5.0, 3.0), "c": expected(4.0, 0.0, 2.0) })
    );
    let csv = std::fs::read_to_string(folder.join("metrics.csv")).unwrap();
    assert!(csv.contains("\nb,SRV_global,distance,3\n"), "{csv}");
}

#[test]
fn without_any_model_there_is_nothing_to_judge() {
    let (_folder, local) = board(vec![("a", judge(None))]);
    let mut workflow = CrossSiteEvaluation::new(serde_json::from_str("{}").unwrap()).unwrap();
    let error = local.run(&mut workflow).unwrap_err().to_string();
    assert_eq!(error, "no site submitted a model, and the server has none");
}

/// A board of one process where, in the second round, a result of the first comes too late for it.
struct WithLate {
    local: LocalBoard,
    late: Shareable,
}

impl TaskBoard for WithLate {
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
            let is_second = task.round == Some(1) && task.late == Late::Fold;
            let gathered = self.local.broadcast(task, sink).await?;
            if is_second {
                sink.accept_late("slow", &self.late)
                    .map_err(|unusable| WorkflowError::Failed(unusable.reason))?;
            }
            Ok(gathered)
        })
    }

    fn report(&self, progress: Progress) {
        self.local.report(progress);
    }

    fn is_aborted(&self) -> bool {
        false
    }
}

#[test]
fn a_late_result_counts_in_full_in_the_round_that_stands() {
    let late_of = |round: i64| {
        let mut late = answer(10.0, &[("score", 1.0)]);
        late.set_header("current_round", round);
        late
    };
    let go = |round: i64, rule: &str| {
        let (folder, local) = board(vec![("a", moves(1.0)), ("b", moves(1.0))]);
        let board = WithLate { local, late: late_of(round) };
        let mut workflow = fed_avg(json!({ "num_rounds": 2, "late": rule }));
        let mut run = std::pin::pin!(workflow.run(&board));
        let ended = run.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        let Poll::Ready(ended) = ended else { panic!("it waits") };
        (ended, folder)
    };
    let (ended, folder) = go(0, "fold");
    ended.unwrap();
    close(&[saved(folder.path(), "global.npz")], &[(2.0 + 2.0 + 10.0) / 3.0]);
    let rounds: Json =
        serde_json::from_slice(&std::fs::read(folder.path().join("rounds.json")).unwrap()).unwrap();
    assert_eq!((&rounds[0]["late"], &rounds[1]["late"]), (&json!([]), &json!(["slow"])));
    assert_eq!(rounds[1]["metrics"]["score"], -4.0, "it judged another model");
    assert_eq!(go(7, "fold").0.unwrap_err().to_string(), "it belongs to round 7, not 1");
    let (ended, folder) = go(0, "drop");
    ended.unwrap();
    assert_eq!(saved(folder.path(), "global.npz"), 2.0);
}

/// Rules and optimisers as a job writes them: components within the arguments of the workflow.
#[test]
fn a_job_names_rule_and_optimizer_as_components() {
    use locule_component::{BuildCx, ConstructionCount, Plan, Registry, Side};
    let mut registry = Registry::new();
    locule_workflow::register(&mut registry);
    let job = |rule: &str, optimizer: &str| {
        let text = format!(
            r#"{{ "format_version": 2, "workflows": [{{ "id": "rounds", "path": "locule.workflow.FedAvg", "args": {{
                "num_rounds": 2, "model": {{ "w": {{ "shape": [1] }} }},
                "rule": {rule}, "optimizer": {optimizer} }} }}] }}"#
        );
        let document = locule_config::Document::parse_json("config_fed_server.json", &text).unwrap();
        let plan = Plan::from_document(&document, Side::Server, &registry).unwrap();
        let (count, app) = (ConstructionCount::new(), Path::new("app"));
        let cx = BuildCx::new(Side::Server, "server", "job", Path::new("kit"), app, &count);
        plan.approve(Vec::new()).unwrap().build(&registry, &cx)
    };
    let krum = r#"{ "path": "locule.workflow.Krum", "args": { "byzantine": 1 } }"#;
    let momentum = r#"{ "path": "locule.workflow.FedAvgM", "args": { "momentum": 0.5 } }"#;
    let mut built = job(krum, momentum).unwrap();
    let sites = (0..5).map(|site| moves(if site == 2 { 1e9 } else { 1.0 }));
    let folder = tempfile::tempdir().unwrap();
    let mut local = LocalBoard::new(folder.path());
    sites.enumerate().for_each(|(number, site)| local.add_site(format!("site-{number}"), site));
    local.run(&mut *built.workflows[0].1).unwrap();
    assert_eq!(saved(folder.path(), "global.npz"), 2.5, "1, then one and a half");

    let error = format!("{:?}", job(momentum, momentum).err().unwrap());
    assert!(error.contains("expected one of `locule.workflow.Median`"), "{error}");
}
