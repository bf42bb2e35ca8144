//! The order of events over a whole job, in the daemons and in the job's halves.
//!
//! The order is that of nvflare 2.9.0 (recorded there over a job of one site and one round), but for this:
//!
//! - The server filters the data of a task once, before it offers it, and not for each site that asks. So the two
//!   events of the data filter at the server come before the site's request is answered.
//! - A site's request waits at the server for a task, so `_before_process_task_request` may come before the round
//!   that the task is of.
//! - At the server a result is filtered and taken in when it is folded, in the order of the sites' names, and not
//!   when it arrives; the site may have its answer before.
//! - `_before_build_component` does not exist: a plan is reviewed as a whole, before anything is built.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::{Path, PathBuf};

use e2e::{Running, run, said, text};
use serde_json::{Value, json};

const RECORD: &str = "locule.event.Record";

/// Adds a recorder to the `components` of a configuration.
fn record_in(file: &Path) {
    edit(file, |config| {
        let components = config.as_object_mut().unwrap().entry("components").or_insert_with(|| json!([]));
        components.as_array_mut().unwrap().push(json!({ "id": "recorder", "path": RECORD }));
    });
}

/// The kit's own configuration, which is a default before somebody edits it.
fn record_in_kit(kit: &Path) {
    let file = kit.join("local/resources.json");
    if !file.exists() {
        fs::copy(kit.join("local/resources.json.default"), &file).unwrap();
    }
    record_in(&file);
}

/// The kits that a demo leaves, and its job for one site and one round.
fn demo(dir: &Path) -> PathBuf {
    let made = run(&["demo", "--dir", text(dir), "--sites", "2", "--rounds", "1"]);
    assert!(made.status.success(), "{}", said(&made));
    let job = dir.join("job");
    edit(&job.join("meta.json"), |meta| {
        meta["deploy_map"] = json!({ "app": ["server", "site-1"] });
        meta["min_clients"] = json!(1);
    });
    edit(&job.join("app/config/config_fed_server.json"), |config| {
        for workflow in config["workflows"].as_array_mut().unwrap() {
            workflow["args"]["min_clients"] = json!(1);
        }
    });
    sign(dir);
    dir.join("project/prod_00")
}

fn sign(dir: &Path) {
    let admin = dir.join("project/prod_00/scientist@university.org");
    let signed = run(&["sign", text(&dir.join("job")), "--kit", text(&admin)]);
    assert!(signed.status.success(), "{}", said(&signed));
}

fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut document = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    change(&mut document);
    fs::write(file, serde_json::to_vec_pretty(&document).unwrap()).unwrap();
}

fn events(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The names of events, without those of which there are as many as time allows.
fn names(events: &[Value], without: &[&str]) -> Vec<String> {
    let names = events.iter().map(|event| event["event"].as_str().unwrap().to_owned());
    names.filter(|name| !without.iter().any(|word| name.contains(word))).collect()
}

#[test]
fn events_of_a_whole_job_come_in_the_order_of_nvflare() {
    let dir = tempfile::tempdir().unwrap();
    let prod = demo(dir.path());
    let (server_kit, site_kit) = (prod.join("server"), prod.join("site-1"));
    record_in_kit(&server_kit);
    record_in_kit(&site_kit);
    let job = dir.path().join("job");
    for half in ["config_fed_server.json", "config_fed_client.json"] {
        record_in(&job.join("app/config").join(half));
    }
    sign(dir.path());

    let mut server = Running::start(&["server", text(&server_kit), "-v", "--job", text(&job)]);
    server.wait_for("listening at");
    let mut site = Running::start(&["site", text(&site_kit), "--heartbeat", "1", "--stop-with-stdin"]);
    site.wait_for("site-1 registered");
    let (code, out, said) = server.finish();
    assert_eq!(code, Some(0), "{out}{said}");
    site.close_stdin();
    assert_eq!(site.finish().0, Some(0));

    let recorded = events(&server_kit.join("state/events.jsonl"));
    let of_job = recorded.iter().find(|event| event["event"] == "_submit_job").unwrap();
    let job_id = of_job["job_id"].as_str().unwrap().to_owned();
    let of_sites = ["heartbeat", "_client_register", "_client_quit", "_system_"];
    assert_eq!(
        names(&recorded, &of_sites),
        [
            "_submit_job",
            "_before_check_client_resources",
            "_before_send_admin_command",
            "_after_check_client_resources",
            "_deploy_job_to_server",
            "_deploy_job_to_client",
            "_before_send_admin_command",
            "_job_deployed",
            "_before_job_launch",
            "_before_send_admin_command",
            "_job_started",
            "_job_completed",
        ]
    );
    let life = names(&recorded, &["_job", "heartbeat", "_resources", "_admin_command", "_quit"]);
    let life_of_server = [
        "_system_bootstrap",
        "_system_start",
        "_client_register_received",
        "_client_register_processed",
        "_system_end",
    ];
    assert_eq!(life, life_of_server);
    let beats = names(&recorded, &[]);
    let received = beats.iter().filter(|name| *name == "_client_heartbeat_received").count();
    let processed = beats.iter().filter(|name| *name == "_client_heartbeat_processed").count();
    assert!(received > 0 && received == processed);

    let recorded = events(&site_kit.join("state/events.jsonl"));
    assert_eq!(
        names(&recorded, &["heartbeat"]),
        [
            "_system_bootstrap",
            "_before_client_register",
            "_after_client_register",
            "_system_start",
            "_authorize_command_check",
            "_before_check_resource_manager",
            "_authorize_command_check",
            "_before_job_launch",
            "_after_job_launch",
            "_job_completed",
            "_system_end",
        ]
    );

    let at_site = names(&events(&site_kit.join(&job_id).join("events.jsonl")), &["_pull_task"]);
    let mut expected = vec!["_about_to_start_run", "_start_run"];
    let task = [
        "_before_task_data_filter",
        "_after_task_data_filter",
        "_before_task_execution",
        "_after_task_execution",
        "_before_task_result_filter",
        "_after_task_result_filter",
        "_before_send_task_result",
        "_after_send_task_result",
    ];
    expected.extend(task.repeat(3)); // two for the moments of the features, and the round
    expected.extend(["_about_to_end_run", "_check_end_run_readiness", "_end_run"]);
    assert_eq!(at_site, expected);

    let recorded = events(&server_kit.join(&job_id).join("events.jsonl"));
    let gathering = [
        "_before_task_result_filter",
        "_after_task_result_filter",
        "_before_process_submission",
        "_before_contribution_accept",
        "_after_contribution_accept",
        "_after_process_submission",
    ];
    let mut expected = vec!["_start_run", "_start_workflow"];
    for _ in ["their means", "their variances"] {
        expected.extend(["_before_task_data_filter", "_after_task_data_filter"]);
        expected.extend(gathering);
    }
    expected.extend(["_end_workflow", "_initial_model_loaded", "_start_workflow", "_training_started"]);
    expected.extend(["_round_started", "_before_task_data_filter", "_after_task_data_filter"]);
    expected.push("_before_train_task");
    expected.extend(gathering);
    expected.extend([
        "_before_aggregation",
        "_after_aggregation",
        "_before_model_update",
        "_after_model_update",
    ]);
    expected.extend(["_before_save_model", "_after_save_model", "_round_done"]);
    expected.extend(["_end_workflow", "_about_to_end_run", "_check_end_run_readiness", "_end_run"]);
    assert_eq!(names(&recorded, &["_process_task_request"]), expected);
    let requests = names(&recorded, &[]);
    let at = |name: &str| requests.iter().position(|one| one == name).unwrap();
    assert!(at("_before_process_task_request") < at("_before_train_task"));
    let answered = requests.iter().rposition(|one| one == "_after_process_task_request").unwrap();
    assert!(at("_before_train_task") < answered);
}

#[test]
fn a_gate_of_a_site_keeps_a_job_waiting_and_its_reason_reaches_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let prod = demo(dir.path());
    let site_kit = prod.join("site-1");
    let gate = json!({ "components": [
        { "id": "ours", "path": "locule.policy.AdmitJobs", "args": { "orgs": ["hospital*"] } }
    ] });
    fs::write(site_kit.join("local/job_resources.json"), gate.to_string()).unwrap();

    let (server_kit, job) = (prod.join("server"), dir.path().join("job"));
    let mut server = Running::start(&["server", text(&server_kit), "-v", "--job", text(&job)]);
    server.wait_for("listening at");
    let _site = Running::start(&["site", text(&site_kit), "--heartbeat", "1", "--stop-with-stdin"]);
    let why = server.wait_for("too few sites are ready");
    assert!(why.contains("site-1 runs no jobs of the organization"), "{why}");

    // The same at a server: it does not even take the job.
    drop(server);
    let dir = tempfile::tempdir().unwrap();
    let (server_kit, job) = (demo(dir.path()).join("server"), dir.path().join("job"));
    fs::write(server_kit.join("local/job_resources.json"), gate.to_string()).unwrap();
    let server = Running::start(&["server", text(&server_kit), "--job", text(&job)]);
    let (code, _, said) = server.finish();
    assert_ne!(code, Some(0));
    assert!(said.contains("server runs no jobs of the organization \"university\""), "{said}");
}
