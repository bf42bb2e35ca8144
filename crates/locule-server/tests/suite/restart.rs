//! What is left of a server that ends in the middle of something.

use locule_fobs::Map;
use locule_server::{JobStatus, read_records};
use serde_json::json;

use crate::scene::{Disk, Kit, SECOND, Scene, reason};
use crate::site::{Site, result};

/// The kit as it would be found after the process was killed.
fn killed(scene: Scene) -> Kit {
    let Scene { kit, .. } = scene;
    let copy = |disk: &Disk| disk.snapshot();
    Kit { jobs: copy(&kit.jobs), ledger: copy(&kit.ledger), dir: kit.dir }
}

#[tokio::test(start_paused = true)]
async fn jobs_that_a_server_left_open_are_closed_by_the_next() {
    let mut scene = Scene::start().await;
    let mut site = Site::join(&scene, "site-1").await;
    let done = scene.submit(json!({}), json!({})).await;
    site.work(&scene, 1).await;
    let before = scene.finished(&done).await;
    let running = scene.submit(json!({}), json!({})).await;
    scene.running(&running).await;
    let waiting = scene.submit(json!({ "deploy_map": { "app": ["server", "site-3"] } }), json!({})).await;

    let kit = killed(scene);
    let scene = Scene::with(kit, |_| {}).await;
    for job in [&running, &waiting] {
        let record = scene.server.record(job).unwrap();
        assert_eq!((record.status(), reason(&record)), (JobStatus::Abnormal, "server restarted"));
        assert!(!scene.server.abort(job, "no").await);
    }
    assert_eq!(scene.server.record(&done).unwrap(), before);
    let written = read_records(Box::new(scene.kit.jobs.clone())).unwrap();
    assert!(written.values().all(|record| record.status().is_final()));
}

#[tokio::test(start_paused = true)]
async fn a_token_outlives_the_server_and_stray_jobs_are_ended() {
    let mut scene = Scene::start().await;
    let mut site = Site::join(&scene, "site-1").await;
    let job = scene.submit(json!({}), json!({})).await;
    scene.running(&job).await;
    site.orders();

    let scene = Scene::with(killed(scene), |_| {}).await;
    let cell = scene.linked("site-1", "site-1").await;
    cell.add_stamp(site.stamp.clone());
    site.cell = cell;
    assert_eq!(site.beat(&[&job]).await, [job]);
}

#[tokio::test(start_paused = true)]
async fn that_a_site_is_older_is_known_after_a_restart() {
    let scene = Scene::start().await;
    let mut site = Site::join_older(&scene, "site-1", Some(Map::new())).await;
    let mut scene = Scene::with(killed(scene), |_| {}).await;
    let cell = scene.linked("site-1", "site-1").await;
    cell.add_stamp(site.stamp.clone());
    site.move_to(cell);
    site.beat(&[]).await;
    let job = scene.submit(json!({ "min_clients": 1 }), json!({ "min_results": 1 })).await;
    assert_eq!(site.started().await, job);
    let half = site.job(&scene, &job).await;
    let task = half.pull().await.unwrap();
    half.submit(&task, result(5)).await;
    assert!(half.pull().await.is_none());
    tokio::time::advance(5 * SECOND).await;
    site.beat(&[]).await;
    let record = scene.finished(&job).await;
    assert_eq!(record.status(), JobStatus::Completed, "{}", reason(&record));
}

#[test]
fn a_book_that_is_not_understood_is_an_error_that_names_the_record() {
    let mut disk = Disk::default();
    locule_journal::Journal::append(&mut disk, br#"{"entry":"from the future"}"#).unwrap();
    let error = read_records(Box::new(disk)).unwrap_err();
    assert!(error.to_string().contains("record 0"), "{error}");
}
