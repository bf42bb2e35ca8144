//! nvflare's other workflows: what a job of theirs comes to, and which of their arguments are mistakes here.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use locule_component::{
    Assembled, BuildCx, ConstructionCount, ExecuteError, Executor, Plan, Registry, Side, Task, TaskCx,
};
use locule_config::Document;
use locule_fobs::{Array, DataKind, Dxo, Map, Shareable};
use locule_nvflare::NPTrainer;
use locule_workflow::{LocalBoard, SiteStatistics};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

const WORKFLOWS: &str = "nvflare.app_common.workflows";

/// Builds the server's half of a job with one workflow and these components beside it.
fn build(run_dir: &Path, workflow: &str, args: Json, components: Json) -> Result<Assembled, String> {
    let text = json!({ "format_version": 2, "components": components,
        "workflows": [{ "id": "w", "path": format!("{WORKFLOWS}.{workflow}"), "args": args }] });
    let document = Document::parse_json("config_fed_server.json", &text.to_string()).unwrap();
    let mut registry = Registry::new();
    locule_nvflare::register(&mut registry);
    let plan = Plan::from_document(&document, Side::Server, &registry).map_err(|error| error.to_string())?;
    let (count, app) = (ConstructionCount::new(), run_dir.join("app_server"));
    let cx = BuildCx::new(Side::Server, "server", "job-7", Path::new("kit"), &app, &count);
    plan.approve(Vec::new()).unwrap().build(&registry, &cx).map_err(|error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    })
}

fn run(
    workflow: &str,
    args: Json,
    components: Json,
    sites: Vec<(&str, Box<dyn Executor>)>,
) -> (Result<(), String>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut job = build(folder.path(), workflow, args, components).unwrap();
    let mut board = LocalBoard::new(folder.path());
    sites.into_iter().for_each(|(name, site)| board.add_site(name, site));
    struct Whole<'a>(&'a mut dyn locule_component::Workflow);
    impl locule_component::Workflow for Whole<'_> {
        fn run<'a>(
            &'a mut self,
            board: &'a dyn locule_component::TaskBoard,
        ) -> locule_component::BoxFuture<'a, Result<(), locule_component::WorkflowError>> {
            Box::pin(async move {
                self.0.prepare(board).await?;
                self.0.run(board).await
            })
        }
    }
    let ended = board.run(&mut Whole(&mut *job.workflows[0].1)).map_err(|error| error.to_string());
    (ended, folder)
}

fn persistor() -> Json {
    json!({ "id": "persistor", "path": "nvflare.app_common.np.np_model_persistor.NPModelPersistor",
        "args": { "model": [1, 2] } })
}

fn generator() -> Json {
    json!({ "id": "shareable_generator",
        "path": "nvflare.app_common.shareablegenerators.full_model_shareable_generator.FullModelShareableGenerator" })
}

fn saved(folder: &TempDir) -> Vec<f64> {
    Array::from_npy(fs::read(folder.path().join("models/server.npy")).unwrap().into()).unwrap().to_f64()
}

/// Two rounds of one and two more.
#[test]
fn the_cyclic_controller_hands_the_model_on_and_keeps_it() {
    for order in
        [json!("FIXED"), json!("RANDOM"), json!("RANDOM_WITHOUT_SAME_IN_A_ROW"), json!(["site-2", "site-1"])]
    {
        let dir = tempfile::tempdir().unwrap();
        let sites: Vec<(&str, Box<dyn Executor>)> = vec![
            ("site-1", Box::new(NPTrainer::adding(1, dir.path().join("site-1")))),
            ("site-2", Box::new(NPTrainer::adding(2, dir.path().join("site-2")))),
        ];
        let args = json!({ "num_rounds": 2, "order": order });
        let (ended, folder) =
            run("cyclic_ctl.CyclicController", args, json!([persistor(), generator()]), sites);
        ended.unwrap();
        assert_eq!(saved(&folder), [7.0, 8.0]);
    }
}

struct Does<F>(F);

impl<F: FnMut(&Task) -> Shareable + Send> Executor for Does<F> {
    fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        Ok((self.0)(task))
    }
}

fn array(map: &Map) -> Vec<f64> {
    map.get("numpy_key").unwrap().as_array().unwrap().to_f64()
}

fn map(elements: &[f64]) -> Map {
    let elements: Vec<f32> = elements.iter().map(|x| *x as f32).collect();
    Map::from_iter([("numpy_key", Array::from(&elements[..]))])
}

/// The site adds `step` to the model, and the control variates of all to a change of its own.
fn controlled(step: f64, change: f64) -> Box<dyn Executor> {
    Box::new(Does(move |task: &Task| {
        let dxo = task.data.dxo().unwrap().unwrap();
        let c = array(dxo.meta.map("scaffold_c_global").unwrap());
        let model: Vec<f64> = array(&dxo.data).iter().zip(c).map(|(x, c)| x + step + c).collect();
        let mut result = Dxo::new(DataKind::Weights, map(&model));
        result.meta.insert("scaffold_c_diff", map(&[change, change]));
        Shareable::with_dxo(result)
    }))
}

#[test]
fn scaffold_adds_the_mean_change_to_the_control_variates() {
    let sites = || vec![("a", controlled(1.0, 0.5)), ("b", controlled(3.0, 1.5))];
    let (ended, folder) = run("scaffold.Scaffold", json!({ "num_rounds": 2 }), json!([persistor()]), sites());
    ended.unwrap();
    // 1 → 1 + 2, and c is 1 then: 3 → 3 + 2 + 1
    assert_eq!(saved(&folder), [6.0, 7.0]);
    let args = json!({ "num_rounds": 2, "num_clients": 1 });
    let (ended, _folder) = run("scaffold.Scaffold", args, json!([persistor()]), sites());
    assert!(ended.unwrap_err().contains("2 sites take part, and of them `num_clients` would choose 1"));
}

/// Submits `own` and judges others by the difference of their first element.
fn judge(own: f64) -> Box<dyn Executor> {
    Box::new(Does(move |task: &Task| {
        if task.name == "submit_model" {
            return Shareable::with_dxo(Dxo::new(DataKind::Weights, map(&[own])));
        }
        let first = array(&task.data.dxo().unwrap().unwrap().data)[0];
        Shareable::with_dxo(Dxo::new(DataKind::Metrics, Map::from_iter([("difference", first - own)])))
    }))
}

#[test]
fn sites_judge_each_other_and_the_servers_model() {
    let locator = json!({ "id": "locator", "path": "nvflare.app_common.np.np_model_locator.NPModelLocator" });
    let folder = tempfile::tempdir().unwrap();
    let args = json!({ "model_locator_id": "locator" });
    let mut job =
        build(folder.path(), "cross_site_model_eval.CrossSiteModelEval", args, json!([locator])).unwrap();
    fs::create_dir_all(folder.path().join("models")).unwrap();
    fs::write(folder.path().join("models/server.npy"), Array::from(&[10.0_f32][..]).to_npy()).unwrap();
    let mut board = LocalBoard::new(folder.path());
    board.add_site("site-1", judge(1.0));
    board.add_site("site-2", judge(4.0));
    board.run(&mut *job.workflows[0].1).unwrap();
    let found = fs::read(folder.path().join("cross_site_val/cross_val_results.json")).unwrap();
    let found: Json = serde_json::from_slice(&found).unwrap();
    let judged = |one: f64, two: f64, server: f64| {
        json!({ "site-1": { "difference": one }, "site-2": { "difference": two },
            "SRV_server": { "difference": server } })
    };
    assert_eq!(found, json!({ "site-1": judged(0.0, 3.0, 9.0), "site-2": judged(-3.0, 0.0, 6.0) }));
}

#[test]
fn statistics_are_written_where_the_writer_says() {
    let site = |rows: &[f64]| -> Box<dyn Executor> {
        Box::new(SiteStatistics::new("train", BTreeMap::from([("Age".to_owned(), rows.to_vec())])))
    };
    let args = json!({ "writer_id": "writer", "precision": 2, "statistic_configs": {
        "count": {}, "mean": {}, "stddev": {},
        "histogram": { "*": { "bins": 2 }, "Age": { "bins": 3, "range": [0, 120] } } } });
    let writer = json!({ "id": "writer",
        "path": "nvflare.app_common.statistics.json_stats_file_persistor.JsonStatsFileWriter",
        "args": { "output_path": "statistics/adults_stats.json" } });
    let sites = vec![("site-1", site(&[20.0, 45.0, 70.0])), ("site-2", site(&[100.0]))];
    let (ended, folder) = run("statistics_controller.StatisticsController", args, json!([writer]), sites);
    ended.unwrap();
    let found: Json =
        serde_json::from_slice(&fs::read(folder.path().join("statistics/adults_stats.json")).unwrap())
            .unwrap();
    let global = |figure: &str| found["Age"][figure]["Global"]["train"].clone();
    assert_eq!((global("count"), global("mean"), global("stddev")), (json!(4), json!(58.75), json!(34.25)));
    assert_eq!(global("histogram"), json!([[0.0, 40.0, 1.0], [40.0, 80.0, 2.0], [80.0, 120.0, 1.0]]));
    assert_eq!(found["Age"]["count"]["site-1"]["train"], 3);
}

#[test]
fn an_argument_that_is_not_honoured_is_a_mistake() {
    let writer = json!([{ "id": "writer",
        "path": "nvflare.app_common.statistics.json_stats_file_persistor.JsonStatsFileWriter",
        "args": { "output_path": "stats.json" } }]);
    for (workflow, args, components, argument) in [
        (
            "cyclic_ctl.CyclicController",
            json!({ "task_assignment_timeout": 10 }),
            json!([persistor(), generator()]),
            "task_assignment_timeout",
        ),
        (
            "cyclic_ctl.CyclicController",
            json!({ "allow_early_termination": true }),
            json!([persistor(), generator()]),
            "allow_early_termination",
        ),
        (
            "cyclic_ctl.CyclicController",
            json!({ "order": "SORTED" }),
            json!([persistor(), generator()]),
            "order",
        ),
        ("cyclic_ctl.CyclicController", json!({}), json!([generator()]), "persistor_id"),
        (
            "cross_site_model_eval.CrossSiteModelEval",
            json!({ "formatter_id": "f" }),
            json!([]),
            "formatter_id",
        ),
        (
            "cross_site_model_eval.CrossSiteModelEval",
            json!({ "wait_for_clients_timeout": 300 }),
            json!([]),
            "wait_for_clients_timeout",
        ),
        ("cross_site_model_eval.CrossSiteModelEval", json!({ "cross_val_dir": "../x" }), json!([]), "folder"),
        ("scaffold.Scaffold", json!({}), json!([]), "persistor_id"),
        (
            "statistics_controller.StatisticsController",
            json!({ "writer_id": "writer", "statistic_configs": { "count": {} }, "result_wait_timeout": 10 }),
            writer.clone(),
            "result_wait_timeout",
        ),
        (
            "statistics_controller.StatisticsController",
            json!({ "writer_id": "other", "statistic_configs": { "count": {} } }),
            writer,
            "writer_id",
        ),
    ] {
        let error = build(Path::new("run"), workflow, args, components).err().unwrap();
        assert!(error.contains(&format!("argument `{argument}`: ")), "{argument}: {error}");
    }
}
