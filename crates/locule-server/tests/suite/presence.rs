//! Heartbeats, good-byes, and sites that come back.

use locule_fobs::Map;
use locule_message::Fqcn;
use locule_protocol::{AuxReply, AuxRequest, Heartbeat, Quit, outcome, site_context, to_props};
use locule_server::{JobStatus, ServerEvent};
use serde_json::json;

use crate::scene::{NOT_IN_FORCE, PROJECT, SECOND, Scene, reason};
use crate::site::{Site, ask, refused, result};

#[tokio::test(start_paused = true)]
async fn a_site_that_quits_is_gone_with_its_token() {
    let mut scene = Scene::start().await;
    let site = Site::join(&scene, "site-1").await;
    assert_eq!(site.quit().await, "Removed client");
    let left = ServerEvent::SiteLeft { site: "site-1".into(), reason: "quit".into() };
    scene.until(|event| (*event == left).then_some(())).await;
    let why = refused(&site.cell, "task", Heartbeat::TOPIC, site.heartbeat(&[])).await;
    assert_eq!(why, NOT_IN_FORCE);
}

#[tokio::test(start_paused = true)]
async fn nobody_quits_from_another_project_or_another_cell() {
    let scene = Scene::start().await;
    let site = Site::join(&scene, "site-1").await;
    let peer = site_context("site-1", None);
    let other = Quit { project_name: "ward-8".into(), peer: peer.clone() };
    let why = refused(&site.cell, "task", Quit::TOPIC, other.to_parts().unwrap()).await;
    assert_eq!(why, "Requested task does not match the current server task");

    let job = site.job(&scene, "some-job").await;
    let quit = Quit { project_name: PROJECT.into(), peer };
    let why = refused(&job.cell, "task", Quit::TOPIC, quit.to_parts().unwrap()).await;
    assert_eq!(why, "Unknown client identity");
    assert!(site.beat(&[]).await.is_empty(), "the site is still there");
}

#[tokio::test(start_paused = true)]
async fn a_silent_site_is_dropped_and_comes_back_by_a_heartbeat_of_its_own_cell_only() {
    let mut scene = Scene::start().await;
    let site = Site::join(&scene, "site-1").await;
    let left = ServerEvent::SiteLeft { site: "site-1".into(), reason: "no heartbeat".into() };
    let before = tokio::time::Instant::now();
    scene.until(|event| (*event == left).then_some(())).await;
    assert!((600..=602).contains(&before.elapsed().as_secs()));

    let job = site.job(&scene, "some-job").await;
    let why = refused(&job.cell, "task", Heartbeat::TOPIC, site.heartbeat(&[])).await;
    assert_eq!(why, "heartbeat does not come from the cell that registered");
    assert!(scene.events.try_recv().is_err());

    assert!(site.beat(&[]).await.is_empty());
    assert_eq!(scene.events.try_recv().unwrap(), ServerEvent::SiteJoined { site: "site-1".into() });
}

#[tokio::test(start_paused = true)]
async fn a_site_that_sends_heartbeats_is_not_dropped() {
    let mut scene = Scene::start().await;
    let site = Site::join(&scene, "site-1").await;
    scene.events.try_recv().unwrap();
    for _ in 0..10 {
        tokio::time::sleep(400 * SECOND).await;
        site.beat(&[]).await;
    }
    assert!(scene.events.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn jobs_that_the_server_does_not_run_are_to_be_aborted() {
    let scene = Scene::start().await;
    let site = Site::join(&scene, "site-1").await;
    assert_eq!(site.beat(&["stray-1", "stray-2"]).await, ["stray-1", "stray-2"]);
}

#[tokio::test(start_paused = true)]
async fn an_auxiliary_message_to_the_server_itself_is_answered() {
    let scene = Scene::start().await;
    let site = Site::join(&scene, "site-1").await;
    for (topic, code) in [("another", "TOPIC_UNKNOWN"), ("ObjectStreamer.Request", "BAD_REQUEST_DATA")] {
        let request = AuxRequest::new(topic, to_props(&site_context("site-1", None)));
        let reply = ask(&site.cell, AuxRequest::CHANNEL, topic, request.to_parts().unwrap()).await;
        let reply = reply.unwrap().into_ok().unwrap();
        assert_eq!(AuxReply::from_parts(&reply.headers, &reply.payload).unwrap().code, code, "{topic}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decoded_is_answered() {
    let scene = Scene::start().await;
    let site = Site::join(&scene, "site-1").await;
    for topic in ["heart_beat", "quit", "report_job_failure", "register", "challenge"] {
        let garbage = locule_message::Payload::fobs(bytes::Bytes::from_static(b"\xc1\xc1"));
        let request = locule_cell::Request::new("task", topic, garbage)
            .header("cn", "site-1")
            .header("client_name", "site-1");
        let reply = site.cell.request(&Fqcn::server(), request).await.unwrap();
        assert_eq!(reply.code.as_str(), "invalid_request", "{topic}");
    }
}

/// Two sites of older versions with a job whose run has ended.
async fn older_sites_with_a_run_that_ended(scene: &mut Scene) -> (Site, Site, String) {
    let mut one = Site::join_older(scene, "site-1", None).await;
    let mut two = Site::join_older(scene, "site-2", Some(Map::new())).await;
    let job = scene.submit(json!({ "min_clients": 2 }), json!({})).await;
    for site in [&mut one, &mut two] {
        assert_eq!(site.started().await, job);
    }
    let halves = [one.job(scene, &job).await, two.job(scene, &job).await];
    for half in &halves {
        let task = half.pull().await.unwrap();
        half.submit(&task, result(5)).await;
    }
    for half in &halves {
        assert!(half.pull().await.is_none(), "the run has ended");
    }
    (one, two, job)
}

#[tokio::test(start_paused = true)]
async fn a_site_that_tells_of_failures_only_has_done_its_part_when_it_lets_the_job_go() {
    let mut scene = Scene::start().await;
    let (one, two, job) = older_sites_with_a_run_that_ended(&mut scene).await;
    tokio::time::advance(5 * SECOND).await;
    one.beat(&[&job]).await;
    two.beat(&[]).await;
    assert!(scene.server.record(&job).unwrap().status() == JobStatus::Running, "site-1 holds it");
    tokio::time::advance(10 * SECOND).await;
    one.beat(&[]).await;
    let record = scene.finished(&job).await;
    assert_eq!(record.status(), JobStatus::Completed, "{}", reason(&record));
    assert!(record.outcomes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_an_older_site_tells_of_counts() {
    let mut scene = Scene::start().await;
    let (one, two, job) = older_sites_with_a_run_that_ended(&mut scene).await;
    two.report_code(&job, outcome::EXCEPTION, "out of beds").await;
    tokio::time::advance(5 * SECOND).await;
    one.beat(&[]).await;
    two.beat(&[]).await;
    let record = scene.finished(&job).await;
    assert_eq!(record.status(), JobStatus::ExecutionException);
    assert_eq!(reason(&record), "site-2: out of beds");
}

#[tokio::test(start_paused = true)]
async fn an_older_site_that_quits_after_the_run_does_not_make_the_job_fail() {
    let mut scene = Scene::start().await;
    let (one, two, job) = older_sites_with_a_run_that_ended(&mut scene).await;
    one.quit().await;
    two.quit().await;
    let record = scene.finished(&job).await;
    assert_eq!(record.status(), JobStatus::Completed, "{}", reason(&record));
}
