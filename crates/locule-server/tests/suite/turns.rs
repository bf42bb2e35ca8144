//! Whose turn it is, and what a job that waits is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use locule_protocol::Shortage;
use locule_server::{JobStatus, ServerEvent};
use serde_json::json;

use crate::scene::{Kit, SECOND, Scene, reason};
use crate::site::{Answer, Order, Site};

impl Scene {
    /// Waits until a job is told that it waits for this.
    async fn waits(&mut self, job: &str, why: &str) {
        let told = |event: &ServerEvent| {
            let ServerEvent::JobWaits { job: which, reason } = event else { return None };
            (which == job && reason == why).then_some(())
        };
        self.until(told).await;
        assert_eq!(self.why(job).as_deref(), Some(why), "the record says it too");
    }

    /// What a job's record says that it waits for.
    fn why(&self, job: &str) -> Option<String> {
        self.server.record(job).unwrap().waiting.map(|waiting| waiting.reason)
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_of_a_higher_priority_overtakes_and_each_is_told_why_it_waits() {
    let mut scene = Scene::with(Kit::new(), |settings| settings.max_jobs = 1).await;
    let mut site = Site::join(&scene, "site-1").await;
    let first = scene.submit(json!({}), json!({})).await;
    scene.running(&first).await;
    let low = scene.submit(json!({ "priority": -1 }), json!({})).await;
    scene.waits(&low, "1 of 1 jobs are running").await;
    let high = scene.submit(json!({ "priority": 3 }), json!({})).await;
    scene.waits(&high, "1 of 1 jobs are running").await;
    assert_eq!(scene.why(&first), None, "it runs");

    site.work(&scene, 1).await;
    scene.running(&high).await;
    assert_eq!(scene.why(&high), None);
    assert_eq!(scene.server.record(&low).unwrap().status(), JobStatus::Submitted);
    site.work(&scene, 1).await;
    site.work(&scene, 1).await;
    assert_eq!(scene.finished(&low).await.status(), JobStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_resources_are_in_use_is_asked_about_when_another_job_ends() {
    let mut scene = Scene::start().await;
    let mut site = Site::join(&scene, "site-1").await;
    let first = scene.submit(json!({}), json!({})).await;
    scene.running(&first).await;
    let free = Arc::new(AtomicBool::new(false));
    let is_free = Arc::clone(&free);
    site.answers(move |order| {
        let asks = matches!(order, Order::CheckResource(_));
        match asks && !is_free.load(Ordering::Relaxed) {
            true => Answer::Short("0 of 1 GPUs are free", Shortage::Taken),
            false => Answer::Yes,
        }
    });
    let second = scene.submit(json!({}), json!({})).await;
    scene.waits(&second, "too few sites are ready: site-1: 0 of 1 GPUs are free").await;
    tokio::time::sleep(400 * SECOND).await;
    assert_eq!(scene.server.record(&second).unwrap().status(), JobStatus::Submitted, "it is not given up");

    free.store(true, Ordering::Relaxed);
    site.beat(&[&first]).await;
    site.work(&scene, 1).await;
    assert_eq!(scene.finished(&first).await.status(), JobStatus::Completed);
    let before = tokio::time::Instant::now();
    scene.running(&second).await;
    assert!(before.elapsed() < 10 * SECOND, "it asked again at once");
}

#[tokio::test(start_paused = true)]
async fn a_job_for_which_a_site_never_has_enough_is_refused_at_once_with_site_and_reason() {
    let mut scene = Scene::start().await;
    let mut one = Site::join(&scene, "site-1").await;
    let mut two = Site::join(&scene, "site-2").await;
    two.answers(|order| match matches!(order, Order::CheckResource(_)) {
        true => Answer::Short("it has 1 GPU, and 4 are wanted", Shortage::Never),
        false => Answer::Yes,
    });
    let both = json!({ "deploy_map": { "app": ["server", "site-1", "site-2"] } });
    let job = scene.submit(both.clone(), json!({})).await;
    let record = scene.finished(&job).await;
    assert_eq!(record.status(), JobStatus::CannotSchedule);
    assert_eq!(reason(&record), "too few sites are ready: site-2: it has 1 GPU, and 4 are wanted");
    assert_eq!(two.orders(), [Order::CheckResource(job.clone())], "it was asked once");
    assert_eq!(one.orders(), [Order::CheckResource(job.clone()), Order::CancelResource(job)]);

    let mut either = both;
    either["min_clients"] = json!(1);
    let job = scene.submit(either.clone(), json!({})).await;
    scene.running(&job).await;
    assert_eq!(scene.server.record(&job).unwrap().sites, ["site-1"], "one is enough");
    either["mandatory_clients"] = json!(["site-2"]);
    let job = scene.submit(either, json!({})).await;
    assert_eq!(scene.finished(&job).await.status(), JobStatus::CannotSchedule, "it must be that one");
}

#[tokio::test(start_paused = true)]
async fn a_mandatory_site_is_waited_for_though_there_are_enough() {
    let mut scene = Scene::start().await;
    let _one = Site::join(&scene, "site-1").await;
    let meta = json!({ "min_clients": 1, "mandatory_clients": ["site-3"] });
    let job = scene.submit(meta, json!({})).await;
    scene.waits(&job, "waiting for site-3: not connected").await;
    let _three = Site::join(&scene, "site-3").await;
    scene.running(&job).await;
    assert_eq!(scene.server.record(&job).unwrap().sites, ["site-1", "site-3"]);
}

#[tokio::test(start_paused = true)]
async fn an_aborted_job_leaves_the_queue() {
    let mut scene = Scene::with(Kit::new(), |settings| settings.max_jobs = 1).await;
    let mut site = Site::join(&scene, "site-1").await;
    let first = scene.submit(json!({}), json!({})).await;
    scene.running(&first).await;
    let second = scene.submit(json!({}), json!({})).await;
    let third = scene.submit(json!({}), json!({})).await;
    scene.waits(&third, "1 of 1 jobs are running, 1 ahead of it in the queue").await;
    scene.server.abort(&second, "changed my mind").await;
    assert_eq!(scene.finished(&second).await.status(), JobStatus::Aborted);
    scene.waits(&third, "1 of 1 jobs are running").await;
    site.work(&scene, 1).await;
    scene.running(&third).await;
}
