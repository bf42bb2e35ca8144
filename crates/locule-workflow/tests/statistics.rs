//! Federated statistics, against numbers computed with numpy on all rows together.
//!
//! The numbers are those of `python tests/golden/statistics.py > tests/golden/statistics.json` with numpy 2.4.6.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fs;

use locule_component::{ExecuteError, Executor, Task, TaskCx, WorkflowError};
use locule_fobs::Shareable;
use locule_workflow::{LocalBoard, SiteStatistics, Statistics};
use serde_json::{Value as Json, json};

fn golden() -> Json {
    serde_json::from_str(include_str!("golden/statistics.json")).unwrap()
}

fn columns(json: &Json) -> BTreeMap<String, Vec<f64>> {
    serde_json::from_value(json.clone()).unwrap()
}

fn run(args: Json, sites: Vec<(&str, Box<dyn Executor>)>) -> Result<Json, WorkflowError> {
    let folder = tempfile::tempdir().unwrap();
    let mut board = LocalBoard::new(folder.path());
    sites.into_iter().for_each(|(name, site)| board.add_site(name, site));
    board.run(&mut Statistics::new(serde_json::from_value(args).unwrap()).unwrap())?;
    Ok(serde_json::from_slice(&fs::read(folder.path().join("statistics.json")).unwrap()).unwrap())
}

fn sites(golden: &Json) -> Vec<(&'static str, Box<dyn Executor>)> {
    ["a", "b", "c"]
        .map(|name| {
            let site = SiteStatistics::new("train", columns(&golden["sites"][name]));
            (name, Box::new(site) as Box<dyn Executor>)
        })
        .into()
}

#[track_caller]
fn close(found: &Json, expected: &Json) {
    match (found, expected) {
        (Json::Array(found), Json::Array(expected)) => {
            assert_eq!(found.len(), expected.len());
            found.iter().zip(expected).for_each(|(found, expected)| close(found, expected));
        }
        _ => {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{found} is not {expected}");
        }
    }
}

#[test]
fn figures_of_all_are_those_of_the_rows_together() {
    let golden = golden();
    let args = json!({
        "figures": ["count", "sum", "mean", "var", "stddev", "failure_count"],
        "histogram": { "age": { "bins": 6 }, "*": { "bins": 4, "range": [1, 5] } },
        "quantile": { "*": [0.1, 0.5, 0.9] },
    });
    let found = run(args, sites(&golden)).unwrap();
    for feature in ["age", "dose"] {
        let (found, expected) = (&found[feature], &golden["all"][feature]);
        for figure in ["count", "sum", "mean", "var", "stddev"] {
            close(&found[figure]["Global"]["train"], &expected[figure]);
        }
        let quantiles = &found["quantile"]["Global"]["train"];
        close(&json!([quantiles["0.1"], quantiles["0.5"], quantiles["0.9"]]), &expected["quantile"]);
    }
    close(&found["age"]["histogram"]["Global"]["train"], &golden["all"]["age"]["histogram"]);
    let dose = found["dose"]["histogram"]["Global"]["train"].as_array().unwrap();
    let counts: Vec<Json> = dose.iter().map(|bin| bin[2].clone()).collect();
    close(&counts.into(), &golden["all"]["dose"]["histogram from 1 to 5"]);
    assert_eq!(found["age"]["count"]["b"]["train"], 25);
}

#[test]
fn features_of_few_rows_or_sites_are_left_out() {
    let ages = |rows: &[f64]| BTreeMap::from([("age".to_owned(), rows.to_vec())]);
    let mut north = ages(&[1.0, 2.0, 3.0, 4.0]);
    north.insert("rare".to_owned(), vec![7.0; 9]);
    let sites = |north: &BTreeMap<String, Vec<f64>>| -> Vec<(&str, Box<dyn Executor>)> {
        vec![
            ("north", Box::new(SiteStatistics::new("train", north.clone()).min_count(3))),
            ("south", Box::new(SiteStatistics::new("train", ages(&[5.0, f64::NAN])).min_count(3))),
        ]
    };
    let args = json!({ "figures": ["count", "mean", "stddev"], "min_count": 3 });
    let found = run(args, sites(&north)).unwrap();
    assert_eq!(found["age"]["count"]["Global"], json!({ "train": 6 }));
    assert_eq!(found["age"]["mean"]["Global"], json!({ "train": 2.5 }), "of the one site that tells its sum");
    let args = json!({ "figures": ["count", "mean", "stddev"], "min_count": 3, "min_sites": 2 });
    let found = run(args, sites(&north)).unwrap();
    assert_eq!(found["age"]["mean"].get("Global"), None, "one site tells its sum");
    assert_eq!(found["age"]["mean"]["north"], json!({ "train": 2.5 }));
    assert_eq!(found["age"]["mean"].get("south"), None, "one row");
    assert_eq!(found["rare"]["mean"].get("Global"), None, "one site");
    assert_eq!(found["rare"]["mean"]["north"], json!({ "train": 7.0 }));
    let none = json!({ "figures": ["mean"], "min_count": 100, "per_site": false });
    assert_eq!(run(none, sites(&north)).unwrap(), json!({}));
}

/// Does what a site does, and fails in the second phase.
struct Leaves(SiteStatistics);

impl Executor for Leaves {
    fn execute(&mut self, task: &Task, cx: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        if task.data.fields.str("fed_stats_task_key") == Some("fed_stats_2nd_statistics") {
            return Err(ExecuteError::Failed("gone".to_owned()));
        }
        self.0.execute(task, cx)
    }
}

#[test]
fn a_site_that_leaves_between_the_phases_is_in_no_figure() {
    let ages =
        |rows: &[f64]| SiteStatistics::new("train", BTreeMap::from([("age".to_owned(), rows.to_vec())]));
    let sites = || -> Vec<(&str, Box<dyn Executor>)> {
        vec![
            ("a", Box::new(ages(&[2.0, 4.0]))),
            ("b", Box::new(Leaves(ages(&[1000.0])))),
            ("c", Box::new(ages(&[6.0]))),
        ]
    };
    let found = run(json!({ "figures": ["mean", "var"], "min_clients": 2 }), sites()).unwrap();
    assert_eq!(
        (&found["age"]["mean"]["Global"]["train"], &found["age"]["var"]["Global"]["train"]),
        (&json!(4.0), &json!(4.0))
    );
    let error = run(json!({ "figures": ["mean", "var"] }), sites()).unwrap_err().to_string();
    assert!(
        error.contains("has 2 of 3 usable results (b: the site answered `EXECUTION_EXCEPTION`"),
        "{error}"
    );
}
