//! What is left of a server that ends in the middle of something.

use locule_fobs::Map;
use locule_journal::Journal as _;
use locule_protocol::outcome;
use locule_server::{JobStatus, ServerEvent, read_records};
use serde_json::json;

use crate::scene::{Disk, SECOND, Scene, reason, signer};
use crate::site::{Answer, Order, Site, result};

/// The next server of the same kit, if this one is killed now; a second later.
async fn restarted(scene: &Scene) -> Scene {
    let next = Scene::with(scene.kit.snapshot(), |_| {}).await;
    tokio::time::sleep(SECOND).await;
    next
}

/// Waits until a server's half has put a task up.
async fn at_work(scene: &mut Scene) {
    scene.until(|event| matches!(event, ServerEvent::RoundStarted { .. }).then_some(())).await;
}

/// A site that has found the next server, and has said nothing there yet.
async fn found(mut site: Site, scene: &Scene) -> Site {
    let cell = scene.linked(&site.name, &site.name).await;
    cell.add_stamp(site.stamp.clone());
    site.move_to(cell);
    site
}

const RESUMED: (JobStatus, &str) = (JobStatus::Running, "resumed after a restart of the server");

#[tokio::test(start_paused = true)]
async fn a_job_that_ran_when_its_server_was_killed_or_stopped_goes_on_with_the_sites_that_hold_it() {
    for stopped in [false, true] {
        let mut scene = Scene::start().await;
        let mut site = Site::join(&scene, "site-1").await;
        let done = scene.submit(json!({}), json!({})).await;
        site.work(&scene, 1).await;
        let before = scene.finished(&done).await;
        let running = scene.submit(json!({}), json!({})).await;
        scene.running(&running).await;
        let waiting = scene.submit(json!({ "deploy_map": { "app": ["server", "site-3"] } }), json!({})).await;
        site.orders();

        if stopped {
            scene.server.shutdown().await;
        }
        let mut scene = restarted(&scene).await;
        assert_eq!(scene.server.record(&done).unwrap(), before);
        scene.running(&running).await;
        let record = scene.server.record(&running).unwrap();
        assert_eq!((record.status(), reason(&record)), RESUMED);
        assert_eq!(scene.server.record(&waiting).unwrap().status(), JobStatus::Submitted);

        let mut site = found(site, &scene).await;
        assert!(site.beat(&[&running]).await.is_empty(), "it goes on");
        at_work(&mut scene).await;
        let half = site.job(&scene, &running).await;
        let task = half.pull().await.unwrap();
        half.submit(&task, result(7)).await;
        assert!(half.pull().await.is_none());
        site.report_code(&running, outcome::DONE, "").await;
        let record = scene.finished(&running).await;
        assert_eq!((record.status(), record.rounds_done), (JobStatus::Completed, 1), "{}", reason(&record));
        assert!(site.orders().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_site_that_comes_back_without_the_job_is_given_it_again() {
    for server_too in [false, true] {
        let mut scene = Scene::start().await;
        let one = Site::join(&scene, "site-1").await;
        let job = scene.submit(json!({}), json!({})).await;
        scene.running(&job).await;
        one.cell.shutdown(SECOND).await;
        tokio::time::sleep(SECOND).await;
        if server_too {
            scene = restarted(&scene).await;
        }
        let mut one = Site::register(&scene, "site-1").await;
        let has_lost_all = std::sync::atomic::AtomicBool::new(true);
        one.answers(move |order| match order {
            Order::Start(_) if has_lost_all.swap(false, std::sync::atomic::Ordering::Relaxed) => {
                Answer::No("it is not deployed here")
            }
            Order::CheckResource(_)
            | Order::CancelResource(_)
            | Order::Check
            | Order::Deploy(_)
            | Order::Start(_)
            | Order::Abort(_) => Answer::Yes,
        });
        one.beat(&[]).await;
        assert_eq!(one.started().await, job);
        one.work(&scene, 1).await;
        let record = scene.finished(&job).await;
        assert_eq!(record.status(), JobStatus::Completed, "{}", reason(&record));
        assert!(one.orders().is_empty(), "it is given the job once");
    }
}

/// `site-1` is started again, is given the job, and does its part.
async fn comes_back_and_completes(scene: &mut Scene, job: &str) {
    let mut one = Site::register(scene, "site-1").await;
    one.beat(&[]).await;
    one.work(scene, 1).await;
    let record = scene.finished(job).await;
    assert_eq!(record.status(), JobStatus::Completed, "{}", reason(&record));
}

#[tokio::test(start_paused = true)]
async fn a_site_that_is_killed_while_it_is_given_the_job_is_waited_for() {
    for at_start in [false, true] {
        for comes_back in [true, false] {
            let mut scene = Scene::start().await;
            let mut one = Site::join(&scene, "site-1").await;
            let is_last = move |order: &Order| match at_start {
                true => matches!(order, Order::Start(_)),
                false => matches!(order, Order::Deploy(_)),
            };
            one.answers(move |order| if is_last(order) { Answer::Never } else { Answer::Yes });
            let job = scene.submit(json!({}), json!({})).await;
            while !is_last(&one.ordered().await) {}
            one.cell.shutdown(SECOND).await;
            scene.running(&job).await;
            if comes_back {
                tokio::time::sleep(30 * SECOND).await;
                comes_back_and_completes(&mut scene, &job).await;
            } else {
                let record = scene.finished(&job).await;
                assert_eq!(record.status(), JobStatus::ExecutionException);
                assert!(reason(&record).contains("site-1: "), "{}", reason(&record));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_site_that_says_good_bye_and_comes_back_in_time_was_never_lost() {
    for in_time in [true, false] {
        let mut scene = Scene::start().await;
        let one = Site::join(&scene, "site-1").await;
        let job = scene.submit(json!({}), json!({})).await;
        scene.running(&job).await;
        one.quit().await;
        one.cell.shutdown(SECOND).await;
        if in_time {
            tokio::time::sleep(50 * SECOND).await;
            comes_back_and_completes(&mut scene, &job).await;
        } else {
            let before = tokio::time::Instant::now();
            let record = scene.finished(&job).await;
            assert_eq!(record.status(), JobStatus::ExecutionException);
            assert!(reason(&record).contains("site-1: quit"), "{}", reason(&record));
            assert!((59 * SECOND..70 * SECOND).contains(&before.elapsed()), "{:?}", before.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_being_started_when_its_server_was_killed_is_started() {
    let mut scene = Scene::start().await;
    let one = Site::join(&scene, "site-1").await;
    one.answers(|order| if matches!(order, Order::Start(_)) { Answer::Never } else { Answer::Yes });
    let job = scene.submit(json!({}), json!({})).await;
    let dispatched = |event: &ServerEvent| {
        matches!(event, ServerEvent::JobStatus { status: JobStatus::Dispatched, .. }).then_some(())
    };
    scene.until(dispatched).await;

    let mut scene = restarted(&scene).await;
    one.answers(|_| Answer::Yes);
    let mut one = found(one, &scene).await;
    one.beat(&[]).await;
    one.work(&scene, 1).await;
    let record = scene.finished(&job).await;
    let states: Vec<_> = record.history.iter().map(|change| change.status).collect();
    use JobStatus::{Completed, Dispatched, Running, Submitted};
    assert_eq!(states, [Submitted, Dispatched, Dispatched, Running, Completed], "{}", reason(&record));
}

#[tokio::test(start_paused = true)]
async fn a_site_that_does_not_come_back_after_a_restart_is_lost_in_time() {
    let mut scene = Scene::start().await;
    let _site = Site::join(&scene, "site-1").await;
    let job = scene.submit(json!({}), json!({})).await;
    scene.running(&job).await;
    let mut scene = restarted(&scene).await;
    let record = scene.finished(&job).await;
    assert_eq!(record.status(), JobStatus::ExecutionException);
    assert!(reason(&record).contains("site-1: no heartbeat"), "{}", reason(&record));
}

#[tokio::test(start_paused = true)]
async fn what_was_aborted_or_over_when_the_server_was_killed_stays_so_and_its_sites_hear_of_it() {
    let mut scene = Scene::start().await;
    let mut site = Site::join(&scene, "site-1").await;
    site.answers(|order| if matches!(order, Order::Abort(_)) { Answer::Never } else { Answer::Yes });
    let job = scene.submit(json!({}), json!({})).await;
    scene.running(&job).await;
    assert!(scene.server.abort(&job, "changed my mind").await);
    while site.ordered().await != Order::Abort(job.clone()) {}
    assert_eq!(scene.server.record(&job).unwrap().status(), JobStatus::Running, "its site has not stopped");

    let mut scene = restarted(&scene).await;
    let record = scene.finished(&job).await;
    assert_eq!((record.status(), reason(&record)), (JobStatus::Aborted, "changed my mind"));
    let site = found(site, &scene).await;
    assert_eq!(site.beat(&[&job]).await, std::slice::from_ref(&job));
    scene.server.delete(&job).await.unwrap();
    assert_eq!(site.beat(&[&job]).await, std::slice::from_ref(&job));

    let scene = restarted(&scene).await;
    assert_eq!(scene.server.record(&job), None);
    let site = found(site, &scene).await;
    assert_eq!(site.beat(&[&job]).await, [job]);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_counts_once_however_often_it_is_told_and_decides_after_a_restart() {
    let mut scene = Scene::start().await;
    let one = Site::join(&scene, "site-1").await;
    let two = Site::join(&scene, "site-2").await;
    let job = scene.submit(json!({ "min_clients": 2 }), json!({ "min_results": 1 })).await;
    scene.running(&job).await;
    one.report_code(&job, outcome::DONE, "").await;
    let told = scene.server.record(&job).unwrap().outcomes["site-1"].clone();

    let mut scene = restarted(&scene).await;
    scene.running(&job).await;
    let (one, two) = (found(one, &scene).await, found(two, &scene).await);
    one.report_code(&job, outcome::EXCEPTION, "once more").await;
    two.beat(&[&job]).await;
    at_work(&mut scene).await;
    let half = two.job(&scene, &job).await;
    let task = half.pull().await.unwrap();
    half.submit(&task, result(7)).await;
    assert!(half.pull().await.is_none());
    two.report_code(&job, outcome::EXCEPTION, "out of beds").await;
    let record = scene.finished(&job).await;
    assert_eq!(record.outcomes["site-1"], told);
    assert_eq!((record.status(), reason(&record)), (JobStatus::ExecutionException, "site-2: out of beds"));
    let after = restarted(&scene).await.server.record(&job).unwrap();
    assert_eq!(after, record);
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_is_submitted_again_after_a_restart_is_the_same_job() {
    let scene = Scene::start().await;
    let folder = scene.folder(json!({}), json!([{ "id": "sum", "path": "test.Sum", "args": {} }]));
    locule_job::sign_folder(&folder, &*signer("lead")).unwrap();
    let job = scene.server.submit(&folder).await.unwrap();
    let other = scene.server.submit(&folder).await.unwrap();
    assert_ne!(job, other, "one server may have it twice");

    let next = restarted(&scene).await;
    let mut again = [next.server.submit(&folder).await.unwrap(), next.server.submit(&folder).await.unwrap()];
    again.sort();
    let mut both = [job, other];
    both.sort();
    assert_eq!(again, both);
    assert!(!both.contains(&next.server.submit(&folder).await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_token_outlives_the_server_and_stray_jobs_are_ended() {
    let scene = Scene::start().await;
    let site = Site::join(&scene, "site-1").await;
    let scene = restarted(&scene).await;
    let site = found(site, &scene).await;
    assert_eq!(site.beat(&["stray"]).await, ["stray"]);
}

#[tokio::test(start_paused = true)]
async fn that_a_site_is_older_is_known_after_a_restart() {
    let scene = Scene::start().await;
    let site = Site::join_older(&scene, "site-1", Some(Map::new())).await;
    let mut scene = restarted(&scene).await;
    let mut site = found(site, &scene).await;
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
    disk.append(br#"{"entry":"from the future"}"#).unwrap();
    let error = read_records(Box::new(disk)).unwrap_err();
    assert!(error.to_string().contains("record 0"), "{error}");
}

#[test]
fn a_journal_of_a_newer_version_is_refused_by_its_number() {
    let mut disk = Disk::default();
    disk.append(br#"{"entry":"format","version":2}"#).unwrap();
    disk.append(br#"{"entry":"hologram"}"#).unwrap();
    let error = read_records(Box::new(disk)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "journal of jobs has format 2, and this version knows those up to 1; use a newer one"
    );
}
