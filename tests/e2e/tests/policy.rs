//! Sites that say no, and what stays of it: checked before, refused at deployment, written down.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::{Path, PathBuf};

use e2e::{run, said, text};
use serde_json::Value;

/// A demo in memory in which site-2 refuses: its kits and its job.
fn refused_demo(dir: &Path) -> (PathBuf, PathBuf) {
    let demo = ["demo", "--transport", "mem", "--rounds", "1", "--refuse", "site-2", "--dir", text(dir)];
    let output = run(&demo);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    (dir.join("project/prod_00"), dir.join("job"))
}

fn json(arguments: &[&str]) -> (i32, Value) {
    let output = run(arguments);
    let out = String::from_utf8(output.stdout.clone()).unwrap();
    let report =
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{}", said(&output)));
    (output.status.code().unwrap(), report)
}

#[test]
fn every_verdict_is_in_the_audit_log_and_a_change_of_it_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (kits, _) = refused_demo(dir.path());
    for (kit, decision) in [("server", "allow"), ("site-1", "allow"), ("site-2", "deny"), ("site-3", "allow")]
    {
        let kit = kits.join(kit);
        let (code, seen) = json(&["audit", "verify", text(&kit), "--output", "json"]);
        assert_eq!((code, &seen["good"], &seen["records"]), (0, &Value::Bool(true), &Value::from(1)));
        let (code, shown) = json(&["audit", "show", text(&kit), "--output", "json"]);
        let review = &shown["review"];
        assert_eq!(
            (code, review["decision"].as_str(), review["phase"].as_str()),
            (0, Some(decision), Some("deploy"))
        );
        assert_eq!(review["plan"].as_str().unwrap().len(), 64);
        let job = review["job"].as_str().unwrap();
        let table = run(&["audit", "show", text(&kit), "--job", job]);
        assert!(String::from_utf8(table.stdout).unwrap().contains(job));

        let file = kit.join("state/audit.jsonl");
        let forged = fs::read_to_string(&file).unwrap().replace("\"deploy\"", "\"launch\"");
        fs::write(&file, forged).unwrap();
        let (code, seen) = json(&["audit", "verify", text(&kit), "--output", "json"]);
        assert_eq!(
            (code, &seen["fault"]["kind"], &seen["fault"]["line"]),
            (1, &Value::from("hash"), &Value::from(1))
        );
    }
}

#[test]
fn a_job_is_checked_against_kits_before_anybody_submits_it() {
    let dir = tempfile::tempdir().unwrap();
    let (kits, job) = refused_demo(dir.path());
    let [server, one, two] = ["server", "site-1", "site-2"].map(|kit| kits.join(kit));
    let check = |job: &Path, kits: &[&PathBuf]| {
        let mut arguments = vec!["job", "check", text(job), "--output", "json", "--kit"];
        arguments.extend(kits.iter().map(|kit| text(kit)));
        let (code, report) = json(&arguments);
        (code, report["found"].as_array().unwrap().clone())
    };
    let (code, found) = check(&job, &[&server, &one]);
    assert_eq!((code, found.len()), (0, 2), "{found:?}");
    assert!(found.iter().all(|one| one["verdict"] == "allowed"), "{found:?}");

    let before = fs::read(two.join("state/audit.jsonl")).unwrap();
    let (code, found) = check(&job, &[&one, &two]);
    let refused = found.iter().find(|one| one["verdict"] == "refused").unwrap();
    assert_eq!((code, refused["site"].as_str()), (1, Some("site-2")));
    assert_eq!(
        (refused["path"].as_str(), refused["code"].as_str()),
        (Some("executors.#1.executor"), Some("not-agreed"))
    );
    assert_eq!(fs::read(two.join("state/audit.jsonl")).unwrap(), before, "a rehearsal leaves no trace");

    for half in ["server", "client"] {
        let config = job.join(format!("app/config/config_fed_{half}.json"));
        let text = fs::read_to_string(&config).unwrap();
        fs::write(config, text.replace("locule.", "locul.")).unwrap();
    }
    let (code, found) = check(&job, &[&one]);
    let mistakes: Vec<_> = found.iter().filter(|one| one["verdict"] == "mistake").collect();
    assert_eq!((code, mistakes.len()), (65, 2), "both halves: {found:?}");
    assert!(mistakes.iter().all(|one| one["reason"].as_str().unwrap().contains("did you mean")), "{found:?}");
}

#[test]
fn a_changed_policy_is_asked_about_the_jobs_of_the_past() {
    let dir = tempfile::tempdir().unwrap();
    let (kits, _) = refused_demo(dir.path());
    let [one, two] = ["site-1", "site-2"].map(|kit| kits.join(kit));
    let replay = |kit: &Path, more: &[&str]| {
        let mut arguments = vec!["policy", "replay", text(kit), "--output", "json"];
        arguments.extend(more);
        json(&arguments)
    };
    let before = fs::read(one.join("state/audit.jsonl")).unwrap();
    let (code, report) = replay(&one, &[]);
    assert_eq!((code, &report["changed"]), (0, &Value::from(0)), "the policy is the same: {report}");
    let plan = &report["plans"][0];
    assert_eq!((plan["then"].as_str(), plan["now"].as_str()), (Some("allow"), Some("allow")), "{report}");

    let other = dir.path().join("other");
    fs::create_dir_all(&other).unwrap();
    fs::copy(two.join("local/job_resources.json"), other.join("job_resources.json")).unwrap();
    fs::write(other.join("resources.json"), r#"{ "class_allow_list": ["*"] }"#).unwrap();
    let (code, report) = replay(&one, &["--policy", text(&other)]);
    assert_eq!((code, &report["changed"]), (1, &Value::from(1)), "{report}");
    let components = report["plans"][0]["components"].as_array().unwrap();
    let changed: Vec<_> = components.iter().filter(|one| one["changed"] == true).collect();
    assert_eq!(changed.len(), 1, "{report}");
    assert_eq!(changed[0]["path"], "executors.#1.executor");
    assert_eq!(
        (&changed[0]["then"]["verdict"], &changed[0]["now"]["verdict"]),
        (&"allow".into(), &"deny".into())
    );
    assert_eq!(changed[0]["now"]["codes"][0], "not-agreed");
    let table = run(&["policy", "replay", text(&one), "--policy", text(&other)]);
    let table = String::from_utf8(table.stdout).unwrap();
    let row = table.lines().find(|line| line.contains("executors.#1.executor")).unwrap();
    assert!(row.contains("deny (not-agreed)") && row.ends_with("changed"), "{table}");

    fs::remove_file(two.join("local/job_resources.json")).unwrap();
    let (code, report) = replay(&two, &[]);
    let plan = &report["plans"][0];
    assert_eq!(
        (code, plan["then"].as_str(), plan["now"].as_str()),
        (1, Some("deny"), Some("allow")),
        "{report}"
    );

    let (code, report) = replay(&two, &["--since", "2999-01-01"]);
    assert_eq!((code, report["plans"].as_array().unwrap().len()), (0, 0), "{report}");
    fs::remove_dir_all(two.join("state/plans")).unwrap();
    let (code, report) = replay(&two, &[]);
    assert_eq!((code, report["lost"][0]["why"].as_str()), (0, Some("its plan was not kept")), "{report}");
    assert_eq!(fs::read(one.join("state/audit.jsonl")).unwrap(), before, "a replay leaves no trace");
}
