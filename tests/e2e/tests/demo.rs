//! The demo as a person runs it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::Path;

use broker::Broker;
use e2e::{Running, is_gone, run, said, signal};
use serde_json::Value;

fn demo(more: &[&str], dir: &Path) -> (i32, Value, String) {
    let dir = dir.display().to_string();
    let mut arguments = vec!["demo", "--output", "json", "--dir", &dir];
    arguments.extend(more);
    let output = run(&arguments);
    let out = String::from_utf8(output.stdout.clone()).unwrap();
    let report = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}\n{}", said(&output)));
    (output.status.code().unwrap(), report, said(&output))
}

fn assert_good(report: &Value, transport: &str, rounds: u64) {
    assert_eq!(report["transport"], transport);
    assert_eq!(report["rounds"], rounds);
    let auc = |quality: &Value| quality["auc"].as_f64().unwrap();
    let (federated, pooled) = (auc(&report["federated"]), auc(&report["pooled"]));
    assert!((federated - pooled).abs() <= 0.01, "federated {federated}, pooled {pooled}");
    let sites = report["sites"].as_array().unwrap();
    let worst = sites.iter().map(auc).fold(1.0, f64::min);
    assert!(federated > worst, "federated {federated}, worst site alone {worst}");
    assert_eq!(report["refusals"].as_array().unwrap().len(), 0);
    assert!(report["bytes_moved"].as_u64().unwrap() > 10_000);
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn separate_processes_over_grpc_train_as_well_as_pooled_data() {
    let dir = tempfile::tempdir().unwrap();
    let (code, report, said) = demo(&[], dir.path());
    assert_eq!(code, 0, "{said}");
    assert_good(&report, "grpc", 20);
    assert_eq!(report["sites"].as_array().unwrap().len(), 3);
    let plot = std::fs::read_to_string(dir.path().join("rounds.svg")).unwrap();
    assert!(plot.starts_with("<svg"), "{}", &plot[..60.min(plot.len())]);
}

#[test]
fn every_transport_gives_the_same_model() {
    let broker = Broker::start().unwrap();
    let [grpc, others @ ..] = ["grpc", "tcp", "http", "nats", "uds", "mem"].map(|transport| {
        let dir = tempfile::tempdir().unwrap();
        let more = ["--transport", transport, "--broker", &broker.authority(), "--rounds", "4"];
        let (code, report, said) = demo(&more, dir.path());
        assert_eq!(code, 0, "{said}");
        assert_good(&report, transport, 4);
        std::fs::read(dir.path().join("model.npz")).unwrap()
    });
    assert!(others.iter().all(|other| *other == grpc));
}

#[test]
fn each_sites_rows_lie_in_its_own_kit_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let (code, report, said) = demo(&["--transport", "mem", "--rounds", "1"], dir.path());
    assert_eq!(code, 0, "{said}");
    let mut rows = 0;
    let is_table = |file: &&std::path::PathBuf| {
        file.extension().is_some_and(|e| e == "csv") && !file.ends_with("metrics.csv") // numbers of rounds
    };
    for file in files_below(dir.path()).iter().filter(is_table) {
        assert!(
            file.components().any(|part| part.as_os_str().to_string_lossy().starts_with("site-")),
            "{file:?}"
        );
        rows += std::fs::read_to_string(file).unwrap().lines().count();
    }
    let samples: u64 =
        report["sites"].as_array().unwrap().iter().map(|s| s["samples"].as_u64().unwrap()).sum();
    assert!(rows as u64 >= samples && rows as u64 <= samples + 3, "{rows} lines hold {samples} rows");
}

fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

#[test]
fn a_site_that_refuses_is_named_with_the_place_and_the_reason() {
    for transport in ["mem", "grpc"] {
        let dir = tempfile::tempdir().unwrap();
        let (code, report, said) = demo(&["--transport", transport, "--refuse", "site-2"], dir.path());
        assert_eq!(code, 1, "{said}");
        let refusals = report["refusals"].as_array().unwrap();
        assert_eq!(refusals.len(), 1, "{report}");
        let refusal = &refusals[0];
        assert_eq!(refusal["site"], "site-2");
        assert_eq!(refusal["path"], "executors.#1.executor");
        assert!(refusal["file"].as_str().unwrap().ends_with("config_fed_client.json"), "{refusal}");
        assert!(!refusal["reason"].as_str().unwrap().is_empty());
        assert!(refusal["component"].as_str().unwrap().contains("LogisticRegression"), "{refusal}");
        assert!(said.contains("site-2"), "{said}");
    }
}

/// Starts a long demo and waits until its first round is over.
fn running_demo(dir: &Path) -> Running {
    let dir = dir.display().to_string();
    let mut demo = Running::start(&["demo", "--rounds", "1000", "--dir", &dir]);
    demo.wait_for("round 1/");
    demo
}

#[test]
fn ctrl_c_leaves_no_process_behind() {
    let dir = tempfile::tempdir().unwrap();
    let demo = running_demo(dir.path());
    let children = demo.children();
    assert_eq!(children.len(), 4, "a server and three sites");
    demo.signal("INT");
    let (code, _, said) = demo.finish();
    assert_eq!(code, Some(130), "{said}");
    assert!(children.into_iter().all(is_gone));
}

#[test]
fn killing_the_demo_leaves_no_process_behind() {
    let dir = tempfile::tempdir().unwrap();
    let demo = running_demo(dir.path());
    let children = demo.children();
    assert_eq!(children.len(), 4, "a server and three sites");
    demo.signal("KILL");
    assert!(children.into_iter().all(is_gone));
}

#[test]
fn a_server_killed_during_the_demo_is_a_clear_failure() {
    let dir = tempfile::tempdir().unwrap();
    let demo = running_demo(dir.path());
    let children = demo.children();
    let server = children.iter().copied().find(|id| command_line(*id).contains("server")).unwrap();
    signal(server, "KILL");
    let (code, _, said) = demo.finish();
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("server ended with signal: 9"), "{said}");
    assert!(children.into_iter().all(is_gone));
}

#[test]
fn a_site_killed_during_the_demo_is_a_clear_failure() {
    let dir = tempfile::tempdir().unwrap();
    let demo = running_demo(dir.path());
    let children = demo.children();
    let site = children.iter().copied().find(|id| command_line(*id).contains("site-3")).unwrap();
    signal(site, "KILL");
    let (code, _, said) = demo.finish();
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("site-3 ended with signal: 9"), "{said}");
    assert!(children.into_iter().all(is_gone));
}

fn command_line(id: u32) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default())
        .replace('\0', " ")
}

#[test]
fn a_folder_that_is_not_empty_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("mine.txt"), "mine").unwrap();
    let output = run(&["demo", "--dir", &dir.path().display().to_string()]);
    assert_eq!(output.status.code(), Some(73), "{}", said(&output));
    assert!(said(&output).contains("not empty"), "{}", said(&output));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_site_to_refuse_that_takes_no_part_is_a_usage_error() {
    let output = run(&["demo", "--refuse", "site-9"]);
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    assert!(said(&output).contains("site-1, site-2, site-3"), "{}", said(&output));
}
