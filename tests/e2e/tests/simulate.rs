//! A job on one machine, as a person tries it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use e2e::{Running, run, said, text};
use serde_json::{Value, json};

/// A job whose sites run this executor, three rounds long.
fn job(dir: &Path, executor: &Value) -> PathBuf {
    let job = dir.join("job");
    let config = job.join("app/config");
    std::fs::create_dir_all(&config).unwrap();
    let server = json!({ "format_version": 2, "workflows": [{
        "id": "fed_avg", "path": "locule.workflow.FedAvg",
        "args": { "min_clients": 2, "num_rounds": 3, "model": { "numpy_key": { "shape": [2, 3] } } } }] });
    let client = json!({ "format_version": 2, "executors": [{ "tasks": ["train"], "executor": executor }],
        "task_result_filters": [{ "tasks": ["train"],
            "filters": [{ "path": "locule.filter.GaussianNoise", "args": { "sigma": 0.1 } }] }] });
    let meta = json!({ "name": "numbers", "min_clients": 2, "deploy_map": { "app": ["@ALL"] } });
    for (file, content) in [
        (job.join("meta.json"), meta),
        (config.join("config_fed_server.json"), server),
        (config.join("config_fed_client.json"), client),
    ] {
        std::fs::write(file, content.to_string()).unwrap();
    }
    job
}

/// One whose sites add to numbers, and noise to that.
fn numbers(dir: &Path) -> PathBuf {
    job(dir, &json!({ "path": "nvflare.app_common.np.np_trainer.NPTrainer", "args": {} }))
}

/// Simulates a job; exit code, report, and all that was said.
fn simulate(job: &Path, workspace: &Path, more: &[&str]) -> (i32, Value, String) {
    let mut arguments = vec!["simulate", text(job), "--workspace", text(workspace), "--output", "json"];
    arguments.extend(more);
    let output = run(&arguments);
    let out = String::from_utf8(output.stdout.clone()).unwrap();
    (output.status.code().unwrap(), serde_json::from_str(&out).unwrap_or_default(), said(&output))
}

fn model(report: &Value) -> Vec<u8> {
    std::fs::read(report["result"].as_str().unwrap()).unwrap()
}

#[test]
fn a_job_runs_on_one_machine_and_only_its_seed_decides_what_comes_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let job = numbers(dir.path());
    let run = |name: &str, more: &[&str]| {
        let (code, report, said) = simulate(&job, &dir.path().join(name), more);
        assert_eq!(code, 0, "{said}");
        report
    };
    let first = run("first", &["-n", "5", "--seed", "3"]);
    assert_eq!(first["status"], "FINISHED:COMPLETED");
    assert_eq!(first["rounds"].as_array().unwrap().len(), 3);
    let sites = first["sites"].as_array().unwrap();
    assert_eq!(sites.len(), 5);
    assert!(sites.iter().all(|site| site["tasks"] == 3 && site["code"] == 0), "{first}");
    let again = run("again", &["-n", "5", "--seed", "3", "-t", "1"]);
    assert_eq!(model(&first), model(&again), "whatever works at one time");
    let other = run("other", &["-n", "5", "--seed", "4"]);
    assert_ne!(model(&first), model(&other));
    let left: BTreeSet<String> = std::fs::read_dir(dir.path().join("first"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let left: Vec<&str> = left.iter().map(String::as_str).collect();
    assert_eq!(left, ["job", "server", "simulate.log", "sites"], "no kit and no key stays");
}

#[test]
fn a_hundred_sites_take_part_of_which_eight_work_at_one_time() {
    let dir = tempfile::tempdir().unwrap();
    let job = numbers(dir.path());
    let (code, report, said) = simulate(&job, &dir.path().join("out"), &["-n", "100", "-t", "8"]);
    assert_eq!(code, 0, "{said}");
    let sites = report["sites"].as_array().unwrap();
    assert_eq!(sites.len(), 100);
    assert!(sites.iter().all(|site| site["tasks"] == 3), "{report}");
    assert!(report["rounds"].as_array().unwrap().iter().all(|round| round["sites"] == 100), "{report}");
}

#[test]
fn what_sites_measure_is_drawn_and_their_files_are_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let demo = dir.path().join("demo");
    let output = run(&["demo", "--transport", "mem", "--rounds", "2", "--dir", text(&demo)]);
    assert!(output.status.success(), "{}", said(&output));
    // Whole kits, whose certificates and addresses are another federation's.
    let kits = demo.join("project/prod_00");
    let out = dir.path().join("out");
    let (code, report, said) = simulate(&demo.join("job"), &out, &["--files", text(&kits)]);
    assert_eq!(code, 0, "{said}");
    let round = &report["rounds"][1];
    assert!(
        round["metrics"]["loss"].as_f64().unwrap() < report["rounds"][0]["metrics"]["loss"].as_f64().unwrap()
    );
    assert!(report["sites"][2]["metrics"]["accuracy"].as_f64().unwrap() > 0.5, "{report}");
    let plot = std::fs::read_to_string(report["plot"].as_str().unwrap()).unwrap();
    assert!(plot.contains("loss") && plot.contains("mean of 3 sites"));
    assert_eq!(model(&report), std::fs::read(demo.join("model.npz")).unwrap(), "as in a federation");
}

#[test]
fn a_site_that_fails_is_named_at_once_with_what_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let demo = json!({ "path": "locule.demo.LogisticRegression", "args": {} });
    let job = job(dir.path(), &demo);
    let files = dir.path().join("files");
    for site in ["site-1", "site-2", "site-3"] {
        std::fs::create_dir_all(files.join(site)).unwrap();
        std::fs::write(files.join(site).join("data.csv"), "a,label\n1,0\n2,1\n").unwrap();
    }
    let (code, report, said) = simulate(&job, &dir.path().join("out"), &["-n", "3", "--files", text(&files)]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("site-2 failed at task train of round 1"), "{said}");
    assert!(said.contains("task `standardise` must come before `train`"), "{said}");
    assert_eq!(report["failures"].as_array().unwrap().len(), 3, "{report}");
    assert_ne!(report["status"], "FINISHED:COMPLETED");
}

#[test]
fn a_site_without_what_the_job_needs_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let demo = json!({ "path": "locule.demo.LogisticRegression", "args": {} });
    let (code, _, said) = simulate(&job(dir.path(), &demo), &dir.path().join("out"), &["-n", "2"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("site-1") && said.contains("cannot read `data.csv` in the site's kit"), "{said}");
}

#[test]
fn a_site_may_refuse_the_job_as_in_a_federation() {
    let dir = tempfile::tempdir().unwrap();
    let job = numbers(dir.path());
    let local = dir.path().join("files/site-2/local");
    std::fs::create_dir_all(&local).unwrap();
    let checker = json!({ "format_version": 2, "components": [{ "id": "board", "path": "locule.policy.RefuseComponents",
        "args": { "names": ["*NPTrainer"], "reason": "not agreed", "code": "not-agreed", "public": true } }] });
    std::fs::write(local.join("job_resources.json"), checker.to_string()).unwrap();
    let files = dir.path().join("files");
    let (code, report, said) = simulate(&job, &dir.path().join("out"), &["-n", "3", "--files", text(&files)]);
    assert_eq!(code, 1, "{said}");
    assert_eq!(report["refusals"][0]["site"], "site-2", "{report}");
    assert!(said.contains("site-2 refuses nvflare.app_common.np.np_trainer.NPTrainer"), "{said}");
}

#[test]
fn mistakes_in_a_job_are_shown_with_their_place_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let job = job(dir.path(), &json!({ "path": "nvflare.app_common.np.np_trainer.NPTrainr", "args": {} }));
    let (code, _, said) = simulate(&job, &dir.path().join("out"), &["-n", "2"]);
    assert_eq!(code, 65, "{said}");
    assert!(said.contains("config_fed_client.json:1:") && said.contains("did you mean"), "{said}");
    assert!(!dir.path().join("out").exists());
    let (code, _, said) = simulate(&numbers(dir.path()), &dir.path().join("out"), &["-n", "1"]);
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("needs 2 sites"), "{said}");
    let (code, _, said) = simulate(&dir.path().join("nowhere"), &dir.path().join("out"), &[]);
    assert_eq!(code, 66, "{said}");
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (temporary, job) = (dir.path().join("tmp"), dir.path().join("slow"));
    std::fs::create_dir_all(&temporary).unwrap();
    std::fs::create_dir_all(&job).unwrap();
    let trainer =
        json!({ "path": "nvflare.app_common.np.np_trainer.NPTrainer", "args": { "sleep_time": 600.0 } });
    let job = self::job(&job, &trainer);
    let with = [("TMPDIR", text(&temporary))];
    let mut simulation = Running::start_with(&["simulate", text(&job), "-n", "4"], &with);
    simulation.wait_for("round 1/3 began");
    simulation.signal("INT");
    let (code, _, said) = simulation.finish();
    assert_eq!(code, Some(130), "{said}");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
}
