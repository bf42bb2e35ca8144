//! A site operator on the way from nothing to a policy in force.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use e2e::{Kits, provision, run, said, text};
use serde_json::{Value, json};

/// A site's kit with the policy that the program writes, and a job that it refuses.
struct Desk {
    dir: tempfile::TempDir,
    kits: Kits,
}

impl Desk {
    fn new() -> Desk {
        let dir = tempfile::tempdir().unwrap();
        let kits = provision(dir.path(), 1);
        let desk = Desk { dir, kits };
        assert!(desk.run(&["policy", "new", "--kit", text(desk.kit())]).status.success());
        let entry = json!({ "id": "comp_auth", "path": "comp_auth.rego" });
        let named = json!({ "format_version": 2, "components": [entry] });
        fs::write(desk.kit().join("local/job_resources.json"), named.to_string()).unwrap();
        desk
    }

    fn kit(&self) -> &Path {
        &self.kits.sites[0]
    }

    fn policy(&self) -> PathBuf {
        self.kit().join("local/custom/comp_auth.rego")
    }

    fn edit(&self, from: &str, to: &str) {
        let policy = fs::read_to_string(self.policy()).unwrap();
        assert!(policy.contains(from));
        fs::write(self.policy(), policy.replace(from, to)).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(arguments)
    }

    fn job(&self) -> PathBuf {
        let job = self.dir.path().join("job");
        fs::create_dir_all(job.join("app/config")).unwrap();
        let write = |file: &str, value: Value| fs::write(job.join(file), value.to_string()).unwrap();
        write("meta.json", json!({ "name": "hello", "deploy_map": { "app": ["@ALL"] } }));
        let executor = json!({ "path": "locule.demo.LogisticRegression", "args": {} });
        let site =
            json!({ "format_version": 2, "executors": [{ "tasks": ["train"], "executor": executor }] });
        write("app/config/config_fed_client.json", site);
        let server = json!({ "format_version": 2, "workflows": [{ "path": "locule.workflow.FedAvg" }] });
        write("app/config/config_fed_server.json", server);
        job
    }
}

fn shown(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

#[test]
fn a_new_policy_is_tested_checked_and_explained_as_it_stands() {
    let desk = Desk::new();
    let kit = text(desk.kit());
    let tested = desk.run(&["policy", "test", kit, "--output", "json"]);
    assert_eq!(tested.status.code(), Some(0), "{}", said(&tested));
    assert_eq!(shown(&tested)["policies"][0]["tests"].as_array().unwrap().len(), 3);
    let checked = shown(&desk.run(&["policy", "check", kit, "--output", "json"]));
    assert_eq!(checked["gates"][1]["id"], "comp_auth");
    assert_eq!((&checked["mistakes"], &checked["unused"]), (&json!([]), &json!([])));
    let explained = desk.run(&["policy", "explain", kit, "--job", text(&desk.job()), "--output", "json"]);
    assert_eq!(explained.status.code(), Some(1), "{}", said(&explained));
    let verdict = &shown(&explained)["gates"][1]["verdicts"][0];
    assert_eq!(
        (&verdict["decision"], &verdict["component"]),
        (&json!("deny"), &json!("executors.#1.executor"))
    );
    assert!(said(&explained).contains("locule.demo.LogisticRegression is not agreed here"));
    let nowhere = desk.run(&["policy", "explain", kit, "--job", text(&desk.job()), "executors.#2"]);
    assert_eq!(nowhere.status.code(), Some(64), "{}", said(&nowhere));
    desk.edit("locule.demo.", "locule.elsewhere.");
    let allowed = desk.run(&["policy", "explain", kit, "--job", text(&desk.job())]);
    assert_eq!(allowed.status.code(), Some(0), "{}", said(&allowed));
    let failing = desk.run(&["policy", "test", text(&desk.policy())]);
    assert_eq!(failing.status.code(), Some(1), "{}", said(&failing));
}

#[test]
fn a_new_policy_overwrites_nothing() {
    let desk = Desk::new();
    fs::write(desk.policy(), "mine").unwrap();
    let again = desk.run(&["policy", "new", "--kit", text(desk.kit())]);
    assert_eq!(again.status.code(), Some(73), "{}", said(&again));
    assert_eq!(fs::read_to_string(desk.policy()).unwrap(), "mine");
    let elsewhere = desk.run(&["policy", "new", "../mine", "--kit", text(desk.kit())]);
    assert_eq!(elsewhere.status.code(), Some(64));
}

#[test]
fn a_policy_with_a_rule_that_can_never_fire_is_shown_in_place_and_the_site_does_not_start() {
    let desk = Desk::new();
    desk.edit("input.components", "input.component");
    let kit = text(desk.kit());
    let checked = desk.run(&["policy", "check", kit]);
    assert_eq!(checked.status.code(), Some(78));
    for part in ["comp_auth.rego:13:26", "some component in input.component", "did you mean `components`?"] {
        assert!(said(&checked).contains(part), "{}", said(&checked));
    }
    let started = desk.run(&["site", kit]);
    assert_eq!(started.status.code(), Some(78));
    assert!(said(&started).contains("comp_auth.rego:13:26"), "{}", said(&started));
}

#[test]
fn a_checker_is_started_by_sites_only() {
    let output = run(&["checker"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(said(&output).contains("by nobody else"), "{}", said(&output));
    let help = run(&["--help"]);
    assert!(
        !String::from_utf8_lossy(&help.stdout).lines().any(|line| line.trim_start().starts_with("checker"))
    );
}
