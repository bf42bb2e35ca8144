//! Jobs that go as they should, and the desk at which their sites pull and submit.

use std::fs;

use locule_fobs::Map;
use locule_message::{Fqcn, Payload, key};
use locule_protocol::{
    AuxReply, AuxRequest, GetTask, OutcomeReport, SubmitUpdate, TaskReply, aux_topic, log_stream, outcome,
    prop, site_context, to_props,
};
use locule_server::{JobStatus, ServerEvent};
use serde_json::json;

use crate::scene::{SECOND, Scene, reason, signer};
use crate::site::{Order, Site, result};

#[tokio::test(start_paused = true)]
async fn two_sites_and_a_server_add_numbers() {
    let mut scene = Scene::start().await;
    let mut one = Site::join(&scene, "site-1").await;
    let mut two = Site::join(&scene, "site-2").await;
    let job = scene.submit(json!({ "min_clients": 2 }), json!({ "rounds": 2 })).await;
    tokio::join!(two.work(&scene, 20), one.work(&scene, 1));
    let record = scene.finished(&job).await;

    let states: Vec<_> = record.history.iter().map(|change| change.status).collect();
    let expected = [JobStatus::Submitted, JobStatus::Dispatched, JobStatus::Running, JobStatus::Completed];
    assert_eq!(states, expected, "{}", reason(&record));
    assert_eq!((record.sites.as_slice(), record.rounds_done), (&["site-1".into(), "site-2".into()][..], 2));
    assert!(record.outcomes.values().all(|outcome| outcome.code == outcome::DONE && outcome.tasks_done == 1));
    assert_eq!(record.outcomes.len(), 2);
    assert_eq!(scene.server.record(&job).as_ref(), Some(&record));
    assert_eq!(fs::read_to_string(scene.kit.root().join(&job).join("sum-1.txt")).unwrap(), "21");
    assert_eq!(locule_server::read_records(Box::new(scene.kit.jobs.clone())).unwrap()[&job], record);
}

#[tokio::test(start_paused = true)]
async fn what_a_job_has_moved_is_its_own() {
    let mut scene = Scene::start().await;
    let mut site = Site::join(&scene, "site-1").await;
    let mut moved = Vec::new();
    for _ in 0..3 {
        scene.submit(json!({}), json!({})).await;
        site.work(&scene, 7).await;
        let over = |event: &ServerEvent| {
            let ServerEvent::JobFinished { bytes_moved, .. } = event else { return None };
            Some(*bytes_moved)
        };
        moved.push(scene.until(over).await);
    }
    assert!(moved[0] > 0 && moved[1..].iter().all(|more| *more < moved[0] + moved[0] / 2), "{moved:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_watches_sees_every_state_and_round() {
    let mut scene = Scene::start().await;
    let mut site = Site::join(&scene, "site-1").await;
    let job = scene.submit(json!({}), json!({})).await;
    site.work(&scene, 7).await;
    let mut seen = Vec::new();
    loop {
        match scene.events.recv().await.unwrap() {
            ServerEvent::JobStatus { status, .. } => seen.push(status.as_str().to_owned()),
            ServerEvent::RoundStarted { round, rounds, .. } => {
                seen.push(format!("round {round} of {rounds}"))
            }
            ServerEvent::RoundFinished { sites, bytes_moved, .. } => {
                assert!(bytes_moved > 0);
                let metrics = vec![("number".to_owned(), 7.0)];
                assert_eq!(sites, [("site-1".to_owned(), metrics)], "what is not a number is left out");
                seen.push("round finished".into());
            }
            ServerEvent::JobFinished { record, .. } => break assert_eq!(record.job_id, job),
            ServerEvent::SiteJoined { .. } | ServerEvent::SiteLeft { .. } => {}
            ServerEvent::Listening { .. } | ServerEvent::ResultSaved { .. } | _ => {
                panic!("nobody expects this")
            }
        }
    }
    let expected =
        ["SUBMITTED", "DISPATCHED", "RUNNING", "round 0 of 1", "round finished", "FINISHED:COMPLETED"];
    // A round may begin before the last site has started.
    let place = |what: &str| seen.iter().position(|state| state == what);
    assert!(expected.iter().all(|what| place(what).is_some()) && seen.len() == expected.len(), "{seen:?}");
    assert!(place("round 0 of 1") < place("round finished"), "{seen:?}");
    assert_eq!((seen.first(), seen.last()), (Some(&"SUBMITTED".into()), Some(&"FINISHED:COMPLETED".into())));
}

#[tokio::test(start_paused = true)]
async fn a_site_is_asked_only_after_its_first_heartbeat() {
    let scene = Scene::start().await;
    let mut site = Site::register(&scene, "site-1").await;
    let job = scene.submit(json!({}), json!({})).await;
    tokio::time::sleep(60 * SECOND).await;
    assert!(site.orders().is_empty(), "it may not have its token yet");
    site.beat(&[]).await;
    assert_eq!(site.ordered().await, Order::CheckResource(job));
}

#[tokio::test(start_paused = true)]
async fn orders_come_one_after_another_and_name_the_job() {
    let mut scene = Scene::start().await;
    let mut site = Site::join(&scene, "site-1").await;
    let job = scene.submit(json!({}), json!({})).await;
    scene.running(&job).await;
    let expected = [Order::CheckResource(job.clone()), Order::Deploy(job.clone()), Order::Start(job)];
    assert_eq!(site.orders(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_job_waits_for_the_sites_it_names() {
    let mut scene = Scene::start().await;
    let mut one = Site::join(&scene, "site-1").await;
    let meta = json!({ "deploy_map": { "app": ["server", "site-1", "site-3"] } });
    let job = scene.submit(meta, json!({})).await;
    let _two = Site::join(&scene, "site-2").await;
    tokio::time::sleep(300 * SECOND).await;
    assert!(one.orders().is_empty());
    let mut three = Site::join(&scene, "site-3").await;
    tokio::join!(one.work(&scene, 1), three.work(&scene, 3));
    let record = scene.finished(&job).await;
    assert_eq!((record.status(), record.sites.len()), (JobStatus::Completed, 2));
}

#[tokio::test(start_paused = true)]
async fn only_so_many_jobs_run_at_once() {
    let mut scene = Scene::with(crate::scene::Kit::new(), |settings| settings.max_jobs = 1).await;
    let mut site = Site::join(&scene, "site-1").await;
    let absent = json!({ "deploy_map": { "app": ["server", "site-2"] } });
    let waiting = scene.submit(absent, json!({})).await;
    let first = scene.submit(json!({}), json!({})).await;
    scene.running(&first).await;
    let second = scene.submit(json!({}), json!({})).await;
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(scene.server.record(&second).unwrap().status(), JobStatus::Submitted);

    site.work(&scene, 1).await;
    assert_eq!(scene.finished(&first).await.status(), JobStatus::Completed);
    site.work(&scene, 1).await;
    assert_eq!(scene.finished(&second).await.status(), JobStatus::Completed);
    assert_eq!(scene.server.record(&waiting).unwrap().status(), JobStatus::Submitted);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_submission_is_answered_and_counts_once() {
    let mut scene = Scene::start().await;
    let mut one = Site::join(&scene, "site-1").await;
    let mut two = Site::join(&scene, "site-2").await;
    let job = scene.submit(json!({ "min_clients": 2 }), json!({})).await;
    let id = one.started().await;
    let half = one.job(&scene, &id).await;
    let task = half.pull().await.unwrap();
    let mut said = Vec::new();
    for number in [1, 1, 100] {
        said.push(half.submit(&task, result(number)).await);
    }
    assert_eq!(said, ["ACCEPTED", "REPEATED", "CONFLICT"]);
    two.work(&scene, 20).await;
    assert!(half.pull().await.is_none());
    one.report_code(&job, outcome::DONE, "").await;
    assert_eq!(scene.finished(&job).await.status(), JobStatus::Completed);
    assert_eq!(fs::read_to_string(scene.kit.root().join(&job).join("sum-0.txt")).unwrap(), "21");
}

#[tokio::test(start_paused = true)]
async fn a_late_submission_is_answered_and_dropped() {
    let mut scene = Scene::start().await;
    let mut slow = Site::join(&scene, "site-1").await;
    let mut fast = Site::join(&scene, "site-2").await;
    let sum = json!({ "rounds": 2, "min_results": 1, "grace": 5 });
    let job = scene.submit(json!({ "min_clients": 2 }), sum).await;
    let id = slow.started().await;
    let half = slow.job(&scene, &id).await;
    let task = half.pull().await.unwrap();
    assert_eq!(half.check(&task.id).await, "OK");

    fast.work(&scene, 20).await;
    assert_eq!(half.check(&task.id).await, "TASK_UNKNOWN");
    assert_eq!(half.submit(&task, result(1)).await, "LATE");
    assert!(half.pull().await.is_none());
    slow.report_code(&job, outcome::DONE, "").await;
    let record = scene.finished(&job).await;
    assert_eq!((record.status(), record.rounds_done), (JobStatus::Completed, 2));
    let refused = fs::read_to_string(scene.kit.root().join(&job).join("refused.jsonl")).unwrap();
    let refused: Vec<serde_json::Value> =
        refused.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen = refused.iter().map(|line| (line["site"].as_str().unwrap(), line["code"].as_str().unwrap()));
    assert_eq!(seen.collect::<Vec<_>>(), [("site-1", "ABSENT"), ("site-1", "ABSENT"), ("site-1", "LATE")]);
    assert_eq!((&refused[0]["round"], &refused[0]["reason"]), (&json!(0), &json!("no answer in time")));
    assert_eq!(fs::read_to_string(scene.kit.root().join(&job).join("sum-0.txt")).unwrap(), "20");
}

#[tokio::test(start_paused = true)]
async fn a_late_submission_is_folded_into_the_next_round_where_the_job_says_so() {
    let mut scene = Scene::start().await;
    let mut slow = Site::join(&scene, "site-1").await;
    let mut fast = Site::join(&scene, "site-2").await;
    let sum = json!({ "rounds": 2, "min_results": 1, "grace": 5, "late": "fold" });
    let job = scene.submit(json!({ "min_clients": 2 }), sum).await;
    let id = slow.started().await;
    fast.started().await;
    let (half, other) = (slow.job(&scene, &id).await, fast.job(&scene, &id).await);
    let old = half.pull().await.unwrap();
    let task = other.pull().await.unwrap();
    assert_eq!(other.submit(&task, result(20)).await, "ACCEPTED");
    let task = other.pull().await.unwrap(); // of the second round: the first is over
    assert_eq!(half.check(&old.id).await, "OK", "it is still of use");
    assert_eq!(half.submit(&old, result(1)).await, "KEPT");
    assert_eq!(half.submit(&old, result(2)).await, "CONFLICT");
    let new = half.pull().await.unwrap();
    assert_eq!(half.submit(&new, result(300)).await, "ACCEPTED");
    assert_eq!(other.submit(&task, result(4000)).await, "ACCEPTED");
    assert!(half.pull().await.is_none() && other.pull().await.is_none());
    slow.report_code(&job, outcome::DONE, "").await;
    fast.report_code(&job, outcome::DONE, "").await;
    assert_eq!(scene.finished(&job).await.status(), JobStatus::Completed);
    let sums = [0, 1].map(|round| {
        fs::read_to_string(scene.kit.root().join(&job).join(format!("sum-{round}.txt"))).unwrap()
    });
    assert_eq!(sums, ["20", "4301"]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_task_is_not_wanted_and_its_result_changes_nothing() {
    let mut scene = Scene::start().await;
    let mut site = Site::join(&scene, "site-1").await;
    let job = scene.submit(json!({}), json!({})).await;
    let id = site.started().await;
    let half = site.job(&scene, &id).await;
    let task = half.pull().await.unwrap();
    assert_eq!(half.check("no-such-task").await, "TASK_UNKNOWN");
    let mut other = task.clone();
    other.id = "no-such-task".into();
    other.cookies.insert("__task_id__", "no-such-task");
    assert_eq!(half.submit(&other, result(100)).await, "UNKNOWN_TASK");
    half.submit(&task, result(1)).await;
    assert_eq!(half.check(&task.id).await, "TASK_UNKNOWN", "it was handed in");
    assert!(half.pull().await.is_none());
    site.report_code(&job, outcome::DONE, "").await;
    assert_eq!(scene.finished(&job).await.status(), JobStatus::Completed);
    assert_eq!(fs::read_to_string(scene.kit.root().join(&job).join("sum-0.txt")).unwrap(), "1");
}

#[tokio::test(start_paused = true)]
async fn the_desk_answers_sites_of_its_job_only() {
    let scene = Scene::start().await;
    let mut site = Site::join(&scene, "site-1").await;
    let stranger = Site::join(&scene, "site-2").await;
    let meta = json!({ "deploy_map": { "app": ["server", "site-1"] } });
    let job = scene.submit(meta, json!({})).await;
    let id = site.started().await;

    let outside = stranger.job(&scene, &id).await;
    for (channel, topic) in [
        ("server_command", "get_task"),
        ("server_command", "submit_update"),
        ("aux_communication", "__sync_runner__"),
    ] {
        let reply = outside.request(channel, topic, outside.question()).await.unwrap();
        assert_eq!(reply.code.as_str(), "authentication_error", "{topic}");
    }

    let half = site.job(&scene, &id).await;
    let mut lying = half.question();
    lying.headers.set(key::SSID, "another");
    site.stamp.clear();
    let stamped = |parts: locule_protocol::Parts| {
        let mut parts = parts;
        parts.headers.set(key::CLIENT_NAME, "site-1");
        parts.headers.set(key::TOKEN, site.session.token().expose());
        parts.headers.set(key::TOKEN_SIGNATURE, site.session.token_signature().expose());
        parts
    };
    let reply = half.request(GetTask::CHANNEL, GetTask::TOPIC, stamped(lying)).await.unwrap();
    assert_eq!(reply.code.as_str(), "authentication_error");
    assert_eq!(reply.error.as_deref(), Some("request from unknown client ssid"));
    let refused = half.request(GetTask::CHANNEL, GetTask::TOPIC, half.question()).await.unwrap_err();
    assert_eq!(refused.code().as_str(), "unauthenticated", "the gate is before the desk");

    // Nobody but the parent says who is lost.
    let lost = locule_protocol::Parts { payload: Payload::none(), ..stamped(half.question()) };
    let reply = half.request("server_command", "handle_dead_job", lost).await.unwrap();
    assert_eq!(reply.code.as_str(), "authentication_error");
    assert!(scene.server.abort(&job, "enough").await);
}

#[tokio::test(start_paused = true)]
async fn the_desk_answers_housekeeping_and_refuses_what_it_does_not_understand() {
    let scene = Scene::start().await;
    let mut site = Site::join(&scene, "site-1").await;
    scene.submit(json!({}), json!({})).await;
    let id = site.started().await;
    let half = site.job(&scene, &id).await;
    half.pull().await.unwrap(); // from here on it is known which tasks there are
    let props = || to_props(&site_context("site-1", Some(&id)));
    for (topic, code) in [
        (aux_topic::SYNC_RUNNER, "OK"),
        (aux_topic::JOB_HEARTBEAT, "OK"),
        (aux_topic::TASK_CHECK, "TASK_UNKNOWN"),
        ("fed.event", "BAD_REQUEST_DATA"),
        ("another", "TOPIC_UNKNOWN"),
    ] {
        assert_eq!(half.aux(AuxRequest::new(topic, props())).await, code, "{topic}");
    }
    for (channel, topic) in [
        (GetTask::CHANNEL, GetTask::TOPIC),
        (SubmitUpdate::CHANNEL, SubmitUpdate::TOPIC),
        (AuxRequest::CHANNEL, "x"),
    ] {
        let mut garbage = half.question();
        garbage.payload = Payload::fobs(bytes::Bytes::from_static(b"\xc1"));
        let reply = half.request(channel, topic, garbage).await.unwrap();
        assert_eq!(reply.code.as_str(), "invalid_request", "{topic}");
    }
    // A site of another run is told that its run is over.
    let mut peer = site_context("site-1", Some(&id));
    peer.set_public(prop::RUN_NUM, "another-job");
    let get = GetTask { project_name: String::new(), peer, last_task_id: None };
    let reply = half.request(GetTask::CHANNEL, GetTask::TOPIC, get.to_parts().unwrap()).await.unwrap();
    let reply = TaskReply::from_parts(&reply.headers, &reply.payload).unwrap();
    assert!(matches!(reply, TaskReply::EndRun { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_log_is_taken_from_sites_of_the_job_only_by_its_half_and_by_the_server() {
    let scene = Scene::start().await;
    let mut site = Site::join(&scene, "site-1").await;
    let stranger = Site::join(&scene, "site-2").await;
    let meta = json!({ "deploy_map": { "app": ["server", "site-1"] } });
    let job = scene.submit(meta, json!({})).await;
    let id = site.started().await;
    let piece = |site: &str, name: &str| {
        let props = to_props(&site_context(site, Some(&id)));
        let mut aux = AuxRequest::new(log_stream::REQUEST, props);
        aux.headers.insert(log_stream::ID, "1");
        aux.headers.insert(log_stream::CHANNEL, log_stream::OF_LOGS);
        aux.headers.insert(log_stream::TOPIC, log_stream::LIVE);
        aux.headers.insert(log_stream::NUMBER, 0_i64);
        aux.headers.insert(log_stream::CONTEXT, Map::from_iter([(log_stream::FILE_NAME, name)]));
        aux.fields.insert(log_stream::DATA, bytes::Bytes::from_static(b"why\n"));
        aux.fields.insert(log_stream::END, true);
        aux
    };
    let to_server = async |of: &Site, aux: AuxRequest| {
        let request =
            locule_cell::Request::new(AuxRequest::CHANNEL, &aux.topic, aux.to_parts().unwrap().payload);
        let reply = of.cell.request(&Fqcn::server(), request).await.unwrap().into_ok().unwrap();
        AuxReply::from_parts(&reply.headers, &reply.payload).unwrap().code
    };
    assert_eq!(site.job(&scene, &id).await.aux(piece("site-1", "error_log.txt")).await, "OK");
    assert_eq!(to_server(&site, piece("site-1", "log.txt")).await, "OK");
    assert_eq!(to_server(&stranger, piece("site-2", "log.txt")).await, "EXECUTION_EXCEPTION");
    assert_eq!(to_server(&stranger, piece("site-1", "log.txt")).await, "EXECUTION_EXCEPTION");
    let files = scene.server.files(&job).unwrap();
    let log = |name: &str| (name.to_owned(), "why\n".to_owned());
    assert_eq!(files.logs(Some("site-1"), 100), [log("error_log.txt"), log("log.txt")]);
    assert_eq!(files.logs(Some("site-2"), 100), []);
    assert!(scene.server.abort(&job, "enough").await);
}

#[tokio::test(start_paused = true)]
async fn reports_to_the_parent_are_taken_from_its_own_jobs_only() {
    let scene = Scene::start().await;
    let site = Site::join(&scene, "site-1").await;
    let report = Payload::bytes(bytes::Bytes::from_static(br#"{"report":"ended","failed":null}"#));
    let request = locule_cell::Request::new("server_parent_listener", "locule.report", report);
    let reply = site.cell.request(&Fqcn::server(), request).await.unwrap();
    assert_eq!(reply.code.as_str(), "authentication_error");
}

#[tokio::test(start_paused = true)]
async fn the_first_outcome_of_a_site_counts_and_every_report_is_acknowledged() {
    let mut scene = Scene::start().await;
    let mut one = Site::join(&scene, "site-1").await;
    let two = Site::join(&scene, "site-2").await;
    let meta = json!({ "deploy_map": { "app": ["server", "site-1"] } });
    let job = scene.submit(meta, json!({})).await;
    two.report_code(&job, 101, "not mine").await;
    two.report_code("no-such-job", 101, "not mine").await;
    one.work(&scene, 1).await;
    one.report(OutcomeReport::new(&job, 102, Some("too late".into()))).await;
    let record = scene.finished(&job).await;
    assert_eq!((record.status(), record.outcomes["site-1"].code), (JobStatus::Completed, 0));
    assert_eq!(record.outcomes.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_jobs_that_an_administrator_signed_and_nobody_changed_are_taken() {
    let scene = Scene::start().await;
    let workflows = json!([{ "id": "sum", "path": "test.Sum", "args": {} }]);
    let unsigned = scene.folder(json!({}), workflows.clone());
    let error = scene.server.submit(&unsigned).await.unwrap_err();
    assert!(error.is_the_jobs_fault() && error.to_string().contains("sign"), "{error}");

    locule_job::sign_folder(&unsigned, &*signer("site-1")).unwrap();
    let error = scene.server.submit(&unsigned).await.unwrap_err();
    assert!(error.to_string().contains("site-1, who is no administrator"), "{error}");

    locule_job::sign_folder(&unsigned, &*signer("stranger")).unwrap();
    assert!(scene.server.submit(&unsigned).await.unwrap_err().is_the_jobs_fault());

    let tampered = scene.folder(json!({}), workflows.clone());
    locule_job::sign_folder(&tampered, &*signer("lead")).unwrap();
    fs::write(tampered.join("app/config/config_fed_client.json"), "{}").unwrap();
    assert!(scene.server.submit(&tampered).await.unwrap_err().is_the_jobs_fault());

    let serverless = scene.folder(json!({ "deploy_map": { "app": ["@ALL"] } }), workflows);
    fs::remove_dir_all(serverless.join("app")).unwrap();
    locule_job::sign_folder(&serverless, &*signer("lead")).unwrap();
    assert!(scene.server.submit(&serverless).await.unwrap_err().is_the_jobs_fault());
    assert_eq!(scene.kit.jobs.records(), 1, "its format and nothing else");
    let left: Vec<_> =
        fs::read_dir(scene.kit.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "nothing half-written: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unsigned_job_is_taken_where_signatures_are_not_required() {
    let scene = Scene::with(crate::scene::Kit::new(), |settings| settings.require_signed_jobs = false).await;
    let workflows = json!([{ "id": "sum", "path": "test.Sum", "args": {} }]);
    let unsigned = scene.folder(json!({}), workflows);
    assert!(scene.server.submit(&unsigned).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_job_without_an_app_for_the_server_is_refused() {
    let scene = Scene::start().await;
    let folder = scene.folder(json!({ "deploy_map": { "app": ["site-1"] } }), json!([]));
    locule_job::sign_folder(&folder, &*signer("lead")).unwrap();
    let error = scene.server.submit(&folder).await.unwrap_err();
    assert!(error.is_the_jobs_fault() && error.to_string().contains("server"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_the_server_does_not_have_ends_the_job_before_its_sites_hear_of_it() {
    let kit = crate::scene::Kit::new();
    kit.write("local/privacy.json", &json!({ "scopes": [{ "name": "open" }] }));
    let mut scene = Scene::with(kit, |_| {}).await;
    let mut site = Site::join(&scene, "site-1").await;
    for (meta, asked) in [(json!({ "scope": "nosuch" }), "nosuch"), (json!({}), "")] {
        let job = scene.submit(meta, json!({})).await;
        let record = scene.finished(&job).await;
        assert_eq!(record.status(), JobStatus::FailedToRun);
        assert_eq!(reason(&record), format!("deploy: server: privacy scope '{asked}' is not allowed"));
        assert!(!site.orders().iter().any(|order| matches!(order, Order::Deploy(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn code_for_the_server_needs_the_right_to_it() {
    let kit = crate::scene::Kit::new();
    let policy = json!({ "format_version": "1.0", "permissions": { "lead": { "submit_job": "any" } } });
    kit.write("local/authorization.json", &policy);
    let mut scene = Scene::with(kit, |_| {}).await;
    let _site = Site::join(&scene, "site-1").await;
    let folder = scene.folder(json!({}), json!([{ "id": "sum", "path": "test.Sum", "args": {} }]));
    fs::create_dir(folder.join("app/custom")).unwrap();
    fs::write(folder.join("app/custom/trainer.py"), "print()").unwrap();
    locule_job::sign_folder(&folder, &*signer("lead")).unwrap();
    let job = scene.server.submit(&folder).await.unwrap();
    let record = scene.finished(&job).await;
    assert_eq!(reason(&record), "deploy: server: BYOC not permitted");
}
