//! Sessions in which everything goes as it should.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use locule_admin::{COMMANDS, Item};
use locule_cell::{Cell, Request};
use locule_fobs::Map;
use locule_message::Fqcn;
use locule_protocol::{AuxReply, AuxRequest, log_stream, site_context, to_props};
use serde_json::json;

use crate::console::Console;
use crate::scene::{SECOND, Scene, site};

/// The file of this name in a zip.
fn unzipped(archive: &Path, name: &str) -> String {
    let into = archive.with_extension("d");
    if !into.exists() {
        locule_job::unpack_file(archive, &into, &locule_job::Limits::default()).unwrap();
    }
    let mut text = String::new();
    fs::File::open(into.join(name)).unwrap().read_to_string(&mut text).unwrap();
    text
}

/// A site sends the log of a job, in one piece.
async fn send_log(site: &Cell, job: &str, log: &'static [u8]) {
    let mut piece = AuxRequest::new(log_stream::REQUEST, to_props(&site_context("site-1", Some(job))));
    piece.headers.insert(log_stream::ID, "1");
    piece.headers.insert(log_stream::CHANNEL, log_stream::OF_LOGS);
    piece.headers.insert(log_stream::TOPIC, log_stream::LIVE);
    piece.headers.insert(log_stream::NUMBER, 0_i64);
    piece.headers.insert(log_stream::CONTEXT, Map::from_iter([(log_stream::FILE_NAME, "log.txt")]));
    piece.fields.insert(log_stream::DATA, bytes::Bytes::from_static(log));
    piece.fields.insert(log_stream::END, true);
    let request = Request::new(AuxRequest::CHANNEL, &piece.topic, piece.to_parts().unwrap().payload);
    let reply = site.request(&Fqcn::server(), request).await.unwrap().into_ok().unwrap();
    assert_eq!(AuxReply::from_parts(&reply.headers, &reply.payload).unwrap().code, "OK");
}

#[tokio::test(start_paused = true)]
async fn a_whole_session_from_login_to_logout() {
    let scene = Scene::start().await;
    let site = site(&scene).await;
    let ann = Console::log_in(&scene, "ann").await;

    let commands = ann.ask("_commands").await;
    let Item::Table(rows) = &commands.items[0] else { panic!("{commands:?}") };
    assert_eq!((rows.len(), &rows[0][1]), (COMMANDS.len() + 1, &json!("COMMAND")));

    let status = ann.ask("check_status server").await;
    assert_eq!((status.status_word(), &status.meta["server_status"]), (Some("ok"), &json!("stopped")));
    assert_eq!(status.meta["clients"][0]["client_name"], "site-1");
    assert!(status.meta["clients"][0]["client_last_conn_time"].as_f64().unwrap() > 1e9);
    assert!(status.meta["server_start_time"].as_f64().unwrap() > 1e9);
    let clients = ann.ask("check_status client site-1").await;
    assert_eq!(clients.meta["client_status"], json!([{ "client_name": "site-1", "status": "no_jobs" }]));
    assert_eq!(ann.ask("list_jobs").await.meta["jobs"], json!([]));

    let submitted = scene.ends(ann.submit(&scene.job("sum", "ann"))).await;
    assert_eq!(submitted.status_word(), Some("ok"), "{submitted:?}");
    let job = submitted.meta["job_id"].as_str().unwrap().to_owned();
    let meta = ann.ask(&format!("get_job_meta {job}")).await;
    let meta = &meta.meta["job_meta"];
    assert_eq!((&meta["status"], &meta["name"]), (&json!("FINISHED:COMPLETED"), &json!("sum")));
    let submitter = (&meta["submitter_name"], &meta["submitter_org"], &meta["submitter_role"]);
    assert_eq!(submitter, (&json!("ann"), &json!("ward"), &json!("lead")));
    let jobs = ann.ask("list_jobs -n SU").await;
    assert_eq!(
        (&jobs.meta["jobs"][0]["job_id"], &jobs.meta["jobs"][0]["study"]),
        (&json!(job), &json!("default"))
    );
    assert_eq!(ann.ask("list_jobs -n other").await.meta["jobs"], json!([]));
    assert_eq!(ann.ask("list_jobs -d -r -m 1").await.meta["jobs"][0]["submit_time"], meta["submit_time"]);

    let offer = ann.ask(&format!("job_mgmt.download_job {job}")).await;
    assert_eq!((&offer.meta["source_fqcn"], &offer.meta["folder_name"]), (&json!("server"), &json!(job)));
    assert_eq!(scene.spooled(), 1);
    let fetched = scene.dir.path().join("fetched");
    ann.fetch(&offer, &fetched).await;
    assert_eq!(scene.spooled(), 0, "what was fetched is removed");
    assert_eq!(unzipped(&fetched.join("workspace.zip"), "result.txt"), "42");
    assert!(unzipped(&fetched.join("job.zip"), "sum/meta.json").contains("deploy_map"));
    let meta: serde_json::Value =
        serde_json::from_slice(&fs::read(fetched.join("meta.json")).unwrap()).unwrap();
    assert_eq!(meta["status"], "FINISHED:COMPLETED");

    send_log(&site, &job, b"no such column: age\n").await;
    let log = ann.ask(&format!("get_job_log {job} all")).await;
    let Item::Dict(told) = &log.items[0] else { panic!("{log:?}") };
    let text = told["logs"]["site-1"].as_str().unwrap_or_default();
    assert!(text.ends_with("--- log.txt ---\nno such column: age\n"), "{told}");
    let mia = Console::log_in(&scene, "mia").await;
    let log = mia.ask(&format!("get_job_log {job} all")).await;
    let Item::Dict(told) = &log.items[0] else { panic!("{log:?}") };
    assert!(!told.to_string().contains("no such column"), "a member sees the course only: {told}");

    let cloned = scene.ends(ann.ask(&format!("clone_job {job}"))).await;
    let clone = cloned.meta["job_id"].as_str().unwrap().to_owned();
    let meta = ann.ask(&format!("get_job_meta {clone}")).await;
    assert_eq!(meta.meta["job_meta"]["cloned_from"], json!(job));
    assert_eq!(meta.meta["job_meta"]["status"], "FINISHED:COMPLETED");
    assert_eq!(ann.ask(&format!("delete_job {clone}")).await.meta["job_id"], json!(clone));
    assert_eq!(ann.refused(&format!("get_job_meta {clone}"), "invalid_job_id").await, clone);
    assert_eq!(scene.spooled(), 0);

    assert_eq!(ann.ask("_logout").await.items, [Item::Text("OK".into())]);
    assert_eq!(ann.refused("list_jobs", "error").await, "session_inactive");
}

#[tokio::test(start_paused = true)]
async fn a_job_without_sites_waits_and_is_aborted() {
    let scene = Scene::start().await;
    let ann = Console::log_in(&scene, "ann").await;
    let submitted = ann.submit(&scene.job("sum", "ann")).await;
    assert_eq!(submitted.status_word(), Some("ok"), "{submitted:?}");
    let job = submitted.meta["job_id"].as_str().unwrap().to_owned();
    assert_eq!(ann.refused(&format!("download_job {job}"), "job_running").await, job);
    assert_eq!(ann.refused(&format!("show_stats {job} all"), "job_not_running").await, job);
    let aborted = ann.ask(&format!("abort_job {job}")).await;
    assert_eq!(aborted.meta["info"], format!("Aborted the job {job} before running it."));
    let meta = ann.ask(&format!("get_job_meta {job}")).await;
    assert_eq!(meta.meta["job_meta"]["status"], "FINISHED:ABORTED");
    assert_eq!(meta.meta["job_meta"]["status_reason"], "aborted by ann");
    assert_eq!(ann.ask(&format!("abort_job {job}")).await.status_word(), Some("ok"));
    assert_eq!(ann.ask(&format!("delete_job {job}")).await.status_word(), Some("ok"));
}

#[tokio::test(start_paused = true)]
async fn a_submission_that_is_repeated_makes_no_second_job() {
    let scene = Scene::start().await;
    let ann = Console::log_in(&scene, "ann").await;
    let job = scene.job("sum", "ann");
    let submit = async |job: &std::path::Path, token: &str| {
        ann.push_with("submit_job", job, &["--submit-token", token]).await
    };
    let first = submit(&job, "t-1").await;
    assert_eq!(first.status_word(), Some("ok"), "{first:?}");
    let id = first.meta["job_id"].as_str().unwrap().to_owned();
    assert_eq!(submit(&job, "t-1").await.meta["job_id"], json!(id));
    let listed = ann.ask("list_jobs --submit-token t-1").await;
    assert_eq!(listed.meta["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(ann.ask("list_jobs --submit-token t-2").await.meta["jobs"], json!([]));
    assert_eq!(ann.ask("list_jobs").await.meta["jobs"].as_array().unwrap().len(), 1);

    let other = submit(&scene.job("product", "ann"), "t-1").await;
    assert_eq!((other.status_word(), &other.meta["job_id"]), (Some("submit_token_conflict"), &json!(id)));
    assert_eq!(submit(&job, "a/b").await.status_word(), Some("syntax_error"));
    let root = Console::log_in(&scene, "root").await;
    let theirs = root.push_with("submit_job", &scene.job("sum2", "root"), &["--submit-token", "t-1"]).await;
    assert_eq!(theirs.status_word(), Some("ok"), "another's token is another: {theirs:?}");

    ann.ask(&format!("abort_job {id}")).await;
    assert_eq!(ann.ask(&format!("delete_job {id}")).await.status_word(), Some("ok"));
    assert_eq!(submit(&job, "t-1").await.status_word(), Some("submit_token_job_deleted"));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_waits_says_why_and_its_course_is_told() {
    let scene = Scene::start().await;
    let ann = Console::log_in(&scene, "ann").await;
    let mut events = scene.server.events();
    let id = ann.submit(&scene.job("sum", "ann")).await.meta["job_id"].as_str().unwrap().to_owned();
    while !matches!(events.recv().await, Ok(locule_server::ServerEvent::JobWaits { .. })) {}
    // The desk has heard of it, too, when it answers another question.
    ann.ask("list_jobs").await;
    let meta = ann.ask(&format!("get_job_meta {id}")).await.meta["job_meta"].clone();
    assert!(meta["waits"].as_str().unwrap().starts_with("waiting for"), "{meta}");
    assert_eq!(meta["status_history"][0]["status"], "SUBMITTED");
    assert_eq!(meta["progress"]["rounds_done"], 0);
    ann.ask(&format!("abort_job {id}")).await;
    let meta = ann.ask(&format!("get_job_meta {id}")).await.meta["job_meta"].clone();
    assert!(meta.get("waits").is_none(), "it is over: {meta}");

    let log = ann.ask(&format!("get_job_log {id}")).await;
    let Item::Dict(told) = &log.items[0] else { panic!("{log:?}") };
    let course = told["logs"]["server"].as_str().unwrap();
    assert!(course.contains("SUBMITTED accepted") && course.contains("aborted by ann"), "{course}");
    let log = ann.ask(&format!("get_job_log {id} site-9 log.json")).await;
    let Item::Dict(told) = &log.items[0] else { panic!("{log:?}") };
    assert!(
        told["logs"].as_object().unwrap().is_empty() && told["unavailable"]["site-9"].is_string(),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_sites_track_is_told_in_full_and_the_last_numbers_with_the_job() {
    let scene = Scene::start().await;
    let ann = Console::log_in(&scene, "ann").await;
    let id = ann.submit(&scene.job("sum", "ann")).await.meta["job_id"].as_str().unwrap().to_owned();
    let none = ann.ask(&format!("get_job_metrics {id}")).await;
    assert_eq!(none.items, [Item::Dict(json!({ "lines": [], "next": 0 }))]);

    let files = scene.server.files(&id).unwrap();
    let line = |key: &str, value: f64| {
        json!({ "site": "site-1", "key": key, "type": "SCALAR", "step": 1, "value": value, "time": 2.5 })
            .to_string()
    };
    let text = format!("{}\n{}\n{{\"site\"", line("loss", 0.5), line("loss", 0.25));
    fs::create_dir_all(&files.run_dir).unwrap();
    fs::write(files.run_dir.join("metrics.jsonl"), &text).unwrap();
    let told = ann.ask(&format!("get_job_metrics {id}")).await;
    let Item::Dict(told) = &told.items[0] else { panic!("{told:?}") };
    let values: Vec<_> = told["lines"].as_array().unwrap().iter().map(|line| &line["value"]).collect();
    assert_eq!(values, [&json!(0.5), &json!(0.25)], "and not the line that is still being written");
    let more = ann.ask(&format!("get_job_metrics {id} {}", told["next"])).await;
    assert_eq!(more.items, [Item::Dict(json!({ "lines": [], "next": told["next"] }))]);
    let meta = ann.ask(&format!("get_job_meta {id}")).await.meta["job_meta"].clone();
    assert_eq!(meta["progress"]["tracked"], json!([{ "site": "site-1", "metrics": [["loss", 0.25]] }]));
    for wrong in ["-1", "0 0"] {
        let refused = ann.ask(&format!("get_job_metrics {id} {wrong}")).await;
        assert_eq!(refused.status_word(), Some("syntax_error"), "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn short_visits_do_not_push_out_who_stays() {
    let scene = Scene::start().await;
    let stays = Console::log_in(&scene, "ann").await;
    for _ in 0..12 {
        let visitor = Console::log_in(&scene, "ann").await;
        visitor.ask("_logout").await;
        let (cell, holders) = (visitor.cell.name().clone(), || scene.ledger.holders());
        assert!(holders().iter().any(|holder| holder.origin == cell), "it still gets its answer");
        visitor.cell.shutdown(SECOND).await;
        while holders().iter().any(|holder| holder.origin == cell) {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(stays.ask("list_jobs").await.status_word(), Some("ok"));
}

#[tokio::test(start_paused = true)]
async fn a_console_hears_that_its_session_is_over() {
    let scene = Scene::start().await;
    let mut ann = Console::log_in(&scene, "ann").await;
    tokio::time::sleep(1_700 * SECOND).await;
    assert_eq!(ann.ask("list_jobs").await.status_word(), Some("ok"));
    assert!(ann.expired.try_recv().is_err());
    tokio::time::timeout(1_900 * SECOND, ann.expired.recv()).await.expect("it never heard of it").unwrap();
    assert_eq!(ann.refused("list_jobs", "error").await, "session_inactive");
}

#[tokio::test(start_paused = true)]
async fn sites_are_asked_kept_out_and_let_in_again_and_the_server_is_stopped() {
    let scene = Scene::start().await;
    let site = site(&scene).await;
    let root = Console::log_in(&scene, "root").await;
    let versions = root.ask("report_version all").await;
    let Item::Dict(versions) = &versions.items[0] else { panic!("{versions:?}") };
    assert_eq!(
        (&versions["site-1"]["version"], &versions["server"]["version"]),
        (&json!("2.9.0"), &json!("2.9.0"))
    );
    let resources = root.ask("report_resources server").await;
    assert_eq!(
        resources.items,
        [Item::Table(vec![
            vec![json!("SITES"), json!("RESOURCES")],
            vec![json!("server"), json!("unlimited")],
        ])]
    );

    root.refused("shutdown server", "clients_running").await;
    root.refused("shutdown all", "error").await; // the site says no
    let disabled = root.ask("disable_client site-1").await;
    assert_eq!(disabled.items, [Item::Dict(json!({ "site-1": "disabled" }))]);
    assert!(scene.server.sites().is_empty());
    assert_eq!(root.refused("check_status client", "invalid_target").await, "no clients available");
    root.ask("enable_client site-1").await;
    site.shutdown(SECOND).await;

    let last = root.ask("shutdown server").await;
    assert!(last.items.contains(&Item::Shutdown("Goodbye!".into())), "{last:?}");
    assert!(scene.stop.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_job_is_checked_by_server_and_sites_and_not_submitted() {
    let scene = Scene::start().await;
    let _site = site(&scene).await;
    let ann = Console::log_in(&scene, "ann").await;
    let checked = ann.push("check_job", &scene.job("sum", "ann")).await;
    assert_eq!(checked.status_word(), Some("ok"), "{checked:?}");
    let allowed = |site: &str| json!({ "site": site, "verdict": "allowed", "text": "", "refusals": [] });
    assert_eq!(checked.meta["checks"], json!([allowed("server"), allowed("site-1")]));
    let Item::Table(rows) = &checked.items[0] else { panic!("{checked:?}") };
    assert_eq!((rows.len(), &rows[1][0]), (3, &json!("server")));
    assert_eq!(ann.ask("list_jobs").await.meta["jobs"], json!([]));
    assert_eq!(scene.spooled(), 0);
}
