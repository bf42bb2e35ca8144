//! Sites that refuse, fail, fall silent or vanish; jobs that fail or are aborted.

use std::sync::atomic::Ordering;

use locule_protocol::{OutcomeReport, Refusal, outcome};
use locule_server::{JobRecord, JobStatus, ServerSettings};
use serde_json::json;

use crate::scene::{Kit, SECOND, Scene, reason};
use crate::site::{Answer, Order, Site, result};
use crate::work::BUILT_REFUSED;

/// What site-2 says makes the job end; both halves of both sites run.
async fn ends_when_a_site_reports(report: OutcomeReport) -> (JobRecord, Vec<Order>) {
    let mut scene = Scene::start().await;
    let mut one = Site::join(&scene, "site-1").await;
    let mut two = Site::join(&scene, "site-2").await;
    let job = scene.submit(json!({ "min_clients": 2 }), json!({})).await;
    one.started().await;
    two.started().await;
    two.report(OutcomeReport { job_id: job.clone(), ..report }).await;
    let (record, _) = tokio::join!(scene.finished(&job), async {
        assert_eq!(one.ordered().await, Order::Abort(job.clone()));
        one.report_code(&job, outcome::ABORTED, "told to").await;
    });
    assert_eq!(record.outcomes["site-1"].code, outcome::ABORTED, "its outcome is waited for");
    (record, two.orders())
}

#[tokio::test(start_paused = true)]
async fn what_a_site_reports_decides_how_the_job_ends() {
    for (code, status) in [
        (outcome::ABORTED, JobStatus::Aborted),
        (outcome::EXCEPTION, JobStatus::ExecutionException),
        (outcome::UNSAFE_COMPONENT, JobStatus::Aborted),
        (outcome::CONFIG_ERROR, JobStatus::ExecutionException),
        (outcome::INFRASTRUCTURE_ERROR, JobStatus::Abnormal),
    ] {
        let report = OutcomeReport::new("", code, Some("the cat sat on it".into()));
        let (record, _) = ends_when_a_site_reports(report).await;
        assert_eq!((record.status(), reason(&record)), (status, "site-2: the cat sat on it"), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_travels_into_the_record_under_the_name_of_its_site() {
    let refusal = Refusal {
        site: "site-1".into(),
        component: "test.Trainer".into(),
        file: "config_fed_client.json".into(),
        path: "executors.#1.executor".into(),
        code: "component-refused".into(),
        reason: "x".repeat(100_000),
    };
    let mut report = OutcomeReport::new("", outcome::UNSAFE_COMPONENT, Some("refused".into()));
    report.refusals = vec![refusal];
    let (record, _) = ends_when_a_site_reports(report).await;
    let refusals: Vec<_> = record.refusals().collect();
    assert_eq!(refusals.len(), 1);
    assert_eq!(refusals[0].site, "site-2", "a site speaks for itself only");
    assert_eq!(refusals[0].path, "executors.#1.executor");
    assert_eq!(refusals[0].reason.len(), 4096);
}

/// So often that sites whose heartbeats nobody sends are still there at the end.
fn ask_often(settings: &mut ServerSettings) {
    settings.longest_schedule_pause = 10 * SECOND;
}

#[tokio::test(start_paused = true)]
async fn a_site_that_has_no_room_is_asked_again_until_the_job_is_given_up() {
    let mut scene = Scene::with(Kit::new(), ask_often).await;
    let mut one = Site::join(&scene, "site-1").await;
    let mut two = Site::join(&scene, "site-2").await;
    two.answers(|_| Answer::No("all beds are taken"));
    let job = scene.submit(json!({ "min_clients": 2 }), json!({})).await;
    let record = scene.finished(&job).await;
    assert_eq!(record.status(), JobStatus::CannotSchedule);
    assert_eq!(reason(&record), "too few sites are ready: site-2: all beds are taken");
    let asked = Order::CheckResource(job.clone());
    assert_eq!(two.orders().iter().filter(|order| **order == asked).count(), 10);
    let given_back = Order::CancelResource(job);
    let orders = one.orders();
    assert_eq!(orders.iter().filter(|order| **order == given_back).count(), 10, "{orders:?}");
}

#[tokio::test(start_paused = true)]
async fn a_site_that_does_not_take_the_app_fails_the_job_and_reservations_are_given_back() {
    let mut scene = Scene::start().await;
    let mut one = Site::join(&scene, "site-1").await;
    let two = Site::join(&scene, "site-2").await;
    let refusal = Answer::No("unsigned job rejected");
    two.answers(move |order| if matches!(order, Order::Deploy(_)) { refusal.clone() } else { Answer::Yes });
    let job = scene.submit(json!({ "min_clients": 2 }), json!({})).await;
    let record = scene.finished(&job).await;
    assert_eq!(record.status(), JobStatus::FailedToRun);
    assert_eq!(reason(&record), "deploy: 1 of 2 sites; site-2: unsigned job rejected");
    assert!(one.orders().contains(&Order::CancelResource(job)));
}

#[tokio::test(start_paused = true)]
async fn a_site_whose_checkers_refuse_at_deployment_ends_the_job_and_its_reasons_are_in_the_record() {
    let mut scene = Scene::start().await;
    let mut one = Site::join(&scene, "site-1").await;
    let mut two = Site::join(&scene, "site-2").await;
    let refusal = Refusal {
        site: "site-1".into(),
        component: "test.Trainer".into(),
        path: "executors.#1.executor".into(),
        code: "house-rule".into(),
        reason: "x".repeat(100_000),
        ..Refusal::default()
    };
    let refuses = Answer::Refuses(refusal);
    two.answers(move |order| if matches!(order, Order::Deploy(_)) { refuses.clone() } else { Answer::Yes });
    let job = scene.submit(json!({ "min_clients": 1 }), json!({})).await;
    let record = scene.finished(&job).await;
    assert_eq!((record.status(), reason(&record)), (JobStatus::Aborted, "site-2: refused: as it says"));
    let refusals: Vec<_> = record.refusals().collect();
    let [told] = refusals[..] else { panic!("{record:?}") };
    assert_eq!(
        (told.site.as_str(), told.code.as_str()),
        ("site-2", "house-rule"),
        "it speaks for itself only"
    );
    assert_eq!(told.reason.len(), 4096);
    assert_eq!(record.outcomes["site-2"].code, outcome::UNSAFE_COMPONENT);
    for site in [&mut one, &mut two] {
        let orders = site.orders();
        assert!(!orders.contains(&Order::Start(job.clone())), "{orders:?}");
        assert_eq!(orders.last(), Some(&Order::CancelResource(job.clone())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_site_that_the_job_can_do_without_is_left_out_and_told() {
    let mut scene = Scene::start().await;
    let mut one = Site::join(&scene, "site-1").await;
    let mut two = Site::join(&scene, "site-2").await;
    let mut three = Site::join(&scene, "site-3").await;
    two.answers(|order| if matches!(order, Order::Deploy(_)) { Answer::No("no") } else { Answer::Yes });
    three.answers(|order| if matches!(order, Order::Start(_)) { Answer::No("no") } else { Answer::Yes });
    let job = scene.submit(json!({ "min_clients": 1 }), json!({ "min_results": 1 })).await;
    one.work(&scene, 5).await;
    let record = scene.finished(&job).await;
    assert_eq!(
        (record.status(), record.sites.as_slice()),
        (JobStatus::Completed, &["site-1".to_owned()][..])
    );
    assert_eq!(two.orders().last(), Some(&Order::CancelResource(job.clone())));
    assert_eq!(three.orders().last(), Some(&Order::Abort(job.clone())), "it may have started");
    assert_eq!(two.beat(&[&job]).await, [job], "should it hold the job nevertheless");
}

#[tokio::test(start_paused = true)]
async fn a_site_that_does_not_start_fails_the_job_and_the_others_are_aborted() {
    let mut scene = Scene::start().await;
    let mut one = Site::join(&scene, "site-1").await;
    let two = Site::join(&scene, "site-2").await;
    two.answers(|order| if matches!(order, Order::Start(_)) { Answer::No("no python") } else { Answer::Yes });
    let job = scene.submit(json!({ "min_clients": 2 }), json!({})).await;
    one.started().await;
    let (record, _) = tokio::join!(scene.finished(&job), async {
        assert_eq!(one.ordered().await, Order::Abort(job.clone()));
        one.report_code(&job, outcome::ABORTED, "").await;
    });
    assert_eq!(record.status(), JobStatus::FailedToRun);
    assert_eq!(reason(&record), "start: 1 of 2 sites; site-2: no python");
}

#[tokio::test(start_paused = true)]
async fn a_site_that_never_answers_an_order_does_not_hang_the_job() {
    for silent_at in ["check", "deploy", "start"] {
        let mut scene = Scene::with(Kit::new(), ask_often).await;
        let _one = Site::join(&scene, "site-1").await;
        let two = Site::join(&scene, "site-2").await;
        two.answers(move |order| {
            let is_silent = match order {
                Order::CheckResource(_) => silent_at == "check",
                Order::Deploy(_) => silent_at == "deploy",
                Order::Start(_) | Order::Abort(_) => silent_at == "start",
                Order::CancelResource(_) | Order::Check => false,
            };
            if is_silent { Answer::Never } else { Answer::Yes }
        });
        let job = scene.submit(json!({ "min_clients": 2 }), json!({})).await;
        let record = scene.finished(&job).await;
        assert!(reason(&record).contains("site-2"), "{silent_at}: {}", reason(&record));
    }
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_comes_while_other_sites_still_start_is_heard() {
    let mut scene = Scene::start().await;
    let mut one = Site::join(&scene, "site-1").await;
    let two = Site::join(&scene, "site-2").await;
    two.answers(|order| if matches!(order, Order::Start(_)) { Answer::Never } else { Answer::Yes });
    let job = scene.submit(json!({ "min_clients": 1 }), json!({ "min_results": 1 })).await;
    one.started().await;
    one.report_code(&job, outcome::UNSAFE_COMPONENT, "too risky").await;
    let record = scene.finished(&job).await;
    assert_eq!((record.status(), reason(&record)), (JobStatus::Aborted, "site-1: too risky"));
}

#[tokio::test(start_paused = true)]
async fn a_site_that_leaves_while_the_job_starts_is_missed_at_once_or_by_its_silence() {
    let mut scene = Scene::start().await;
    let _one = Site::join(&scene, "site-1").await;
    let mut two = Site::join(&scene, "site-2").await;
    let job = scene.submit(json!({ "min_clients": 2 }), json!({})).await;
    while two.ordered().await != Order::Deploy(job.clone()) {}
    two.quit().await;
    let record = scene.finished(&job).await;
    assert_ne!(record.status(), JobStatus::Completed);
    assert!(reason(&record).contains("site-2"), "{}", reason(&record));
}

#[tokio::test(start_paused = true)]
async fn the_server_refuses_by_its_own_checkers_before_a_site_starts() {
    let kit = Kit::new();
    kit.write(
        "local/job_resources.json",
        &json!({ "format_version": 2, "components": [{
            "id": "no", "path": "locule.policy.RefuseComponents",
            "args": { "names": ["test.Refused"], "reason": "not at this university", "code": "house-rule" } }] }),
    );
    let mut scene = Scene::with(kit, |_| {}).await;
    let mut site = Site::join(&scene, "site-1").await;
    let workflows = json!([{ "id": "w", "path": "test.Refused", "args": {} }]);
    let job = scene.submit_workflows(json!({}), workflows).await;
    let record = scene.finished(&job).await;
    assert_eq!(record.status(), JobStatus::Aborted);
    assert!(reason(&record).contains("not at this university"), "{}", reason(&record));
    let refusals: Vec<_> = record.refusals().collect();
    assert_eq!(refusals.len(), 1);
    assert_eq!((refusals[0].site.as_str(), refusals[0].code.as_str()), ("server", "house-rule"));
    assert_eq!(
        (refusals[0].component.as_str(), refusals[0].file.as_str()),
        ("test.Refused", "config_fed_server.json")
    );
    assert_eq!(BUILT_REFUSED.load(Ordering::SeqCst), 0);
    let orders = site.orders();
    assert!(!orders.contains(&Order::Deploy(job.clone())), "{orders:?}");
    assert_eq!(orders.last(), Some(&Order::CancelResource(job)));
}

#[tokio::test(start_paused = true)]
async fn a_mistake_in_the_servers_half_ends_the_job_with_every_mistake_in_the_reason() {
    let mut scene = Scene::start().await;
    let _site = Site::join(&scene, "site-1").await;
    let workflows = json!([
        { "id": "a", "path": "test.Som", "args": {} },
        { "id": "b", "path": "test.Sum", "args": { "runds": 3 } }
    ]);
    let job = scene.submit_workflows(json!({}), workflows).await;
    let record = scene.finished(&job).await;
    assert_eq!(record.status(), JobStatus::ExecutionException);
    assert!(reason(&record).contains("test.Som") && reason(&record).contains("runds"), "{}", reason(&record));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_workflow_ends_its_job_and_nothing_else() {
    let mut scene = Scene::start().await;
    let mut site = Site::join(&scene, "site-1").await;
    let job =
        scene.submit_workflows(json!({}), json!([{ "id": "p", "path": "test.Panics", "args": {} }])).await;
    let (record, _) = tokio::join!(scene.finished(&job), async {
        while site.ordered().await != Order::Abort(job.clone()) {}
        site.report_code(&job, outcome::ABORTED, "").await;
    });
    assert_eq!(record.status(), JobStatus::ExecutionException);
    assert!(reason(&record).contains("seven is not a prime here"));
    let next = scene.submit(json!({}), json!({})).await;
    site.work(&scene, 1).await;
    assert_eq!(scene.finished(&next).await.status(), JobStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_site_lost_during_a_round_is_named_when_all_are_needed() {
    let mut scene = Scene::start().await;
    let mut one = Site::join(&scene, "site-1").await;
    let mut two = Site::join(&scene, "site-2").await;
    let job = scene.submit(json!({ "min_clients": 2 }), json!({})).await;
    let id = one.started().await;
    let half = one.job(&scene, &id).await;
    let task = half.pull().await.unwrap();
    half.submit(&task, result(1)).await;
    two.started().await;
    two.quit().await;
    one.report_code(&job, outcome::DONE, "").await;
    let record = scene.finished(&job).await;
    assert_eq!(record.status(), JobStatus::ExecutionException);
    let why = reason(&record);
    assert!(why.contains("has 1 of 2 usable results") && why.contains("site-2: quit"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_can_do_without_a_lost_site_completes_without_it() {
    let mut scene = Scene::start().await;
    let mut one = Site::join(&scene, "site-1").await;
    let mut two = Site::join(&scene, "site-2").await;
    let job = scene
        .submit(json!({ "min_clients": 1 }), json!({ "rounds": 2, "min_results": 1, "grace": 60 }))
        .await;
    two.started().await;
    two.quit().await;
    one.work(&scene, 1).await;
    let record = scene.finished(&job).await;
    assert_eq!(record.status(), JobStatus::Completed, "{}", reason(&record));
    assert_eq!(reason(&record), "all workflows ended, without site-2 (quit)");
}

#[tokio::test(start_paused = true)]
async fn a_site_whose_heartbeats_stop_is_lost_to_its_jobs() {
    let mut scene = Scene::start().await;
    let mut one = Site::join(&scene, "site-1").await;
    let mut two = Site::join(&scene, "site-2").await;
    let job = scene.submit(json!({ "min_clients": 2 }), json!({})).await;
    let id = one.started().await;
    two.started().await;
    let half = one.job(&scene, &id).await;
    let task = half.pull().await.unwrap();
    half.submit(&task, result(1)).await;
    for _ in 0..70 {
        tokio::time::sleep(10 * SECOND).await;
        one.beat(&[&job]).await;
    }
    one.report_code(&job, outcome::DONE, "").await;
    let record = scene.finished(&job).await;
    assert_eq!(record.status(), JobStatus::ExecutionException);
    assert!(reason(&record).contains("site-2: no heartbeat"), "{}", reason(&record));
}

#[tokio::test(start_paused = true)]
async fn a_site_that_loses_the_job_again_and_again_is_lost_to_it() {
    let mut scene = Scene::start().await;
    let mut site = Site::join(&scene, "site-1").await;
    let job = scene.submit(json!({}), json!({})).await;
    scene.running(&job).await;
    site.started().await;
    tokio::time::sleep(SECOND).await;
    assert!(site.beat(&[&job]).await.is_empty());
    for _ in 0..3 {
        site.beat(&[]).await;
        site.beat(&[]).await;
        assert_eq!(site.started().await, job, "it is given the job again");
        tokio::time::sleep(SECOND).await;
    }
    site.beat(&[]).await;
    site.beat(&[]).await;
    let record = scene.finished(&job).await;
    assert_eq!(record.status(), JobStatus::ExecutionException);
    assert!(reason(&record).contains("site-1: the site does not hold the job"), "{}", reason(&record));
}

#[tokio::test(start_paused = true)]
async fn a_site_that_does_not_take_the_job_back_is_lost_to_it_and_one_that_refuses_it_ends_it() {
    let refuses = || {
        let [site, component, path] = ["site-1", "test.Trainer", "executors.#1.executor"].map(str::to_owned);
        Answer::Refuses(Refusal { site, component, path, code: "house-rule".into(), ..Refusal::default() })
    };
    for refused in [false, true] {
        let mut scene = Scene::start().await;
        let site = Site::join(&scene, "site-1").await;
        let job = scene.submit(json!({}), json!({})).await;
        scene.running(&job).await;
        let answer = if refused { refuses() } else { Answer::No("no beds") };
        site.answers(move |order| match order {
            Order::Start(_) => Answer::No("it is not deployed here"),
            Order::Deploy(_) => answer.clone(),
            Order::CheckResource(_) | Order::CancelResource(_) | Order::Abort(_) | Order::Check => {
                Answer::Yes
            }
        });
        for _ in 0..8 {
            tokio::time::sleep(SECOND).await;
            site.beat(&[]).await;
        }
        let record = scene.finished(&job).await;
        let expected = match refused {
            true => (JobStatus::Aborted, "site-1: refused: as it says"),
            false => (JobStatus::ExecutionException, "the site does not hold the job"),
        };
        assert_eq!(record.status(), expected.0, "{}", reason(&record));
        assert!(reason(&record).contains(expected.1), "{}", reason(&record));
        assert_eq!(record.refusals().count(), usize::from(refused));
    }
}

#[tokio::test(start_paused = true)]
async fn a_site_that_comes_while_a_job_for_all_runs_joins_it() {
    let mut scene = Scene::start().await;
    let mut one = Site::join(&scene, "site-1").await;
    let job = scene.submit(json!({}), json!({ "rounds": 2 })).await;
    let id = one.started().await;
    scene.running(&job).await;
    let first = one.job(&scene, &id).await;
    let task = first.pull().await.unwrap();

    let unwilling = Site::register(&scene, "site-3").await;
    unwilling.answers(|_| Answer::No("no beds"));
    unwilling.beat(&[]).await;
    let mut two = Site::join(&scene, "site-2").await;
    assert_eq!(two.started().await, job);
    let second = two.job(&scene, &job).await;
    while !scene.server.record(&job).unwrap().sites.contains(&two.name) {
        tokio::time::sleep(SECOND).await;
    }
    assert!(two.beat(&[&job]).await.is_empty());
    first.submit(&task, result(1)).await;
    for (half, number) in [(&second, 20), (&first, 1)] {
        let task = half.pull().await.unwrap();
        half.submit(&task, result(number)).await;
    }
    assert!(first.pull().await.is_none() && second.pull().await.is_none());
    for site in [&one, &two] {
        site.report_code(&job, outcome::DONE, "").await;
    }
    let record = scene.finished(&job).await;
    assert_eq!(record.status(), JobStatus::Completed, "{}", reason(&record));
    assert_eq!(record.sites, ["site-1", "site-2"]);
    let sums = ["sum-0.txt", "sum-1.txt"]
        .map(|sum| std::fs::read_to_string(scene.kit.root().join(&job).join(sum)).unwrap());
    assert_eq!(sums, ["1", "21"], "from the next task on");
}

#[tokio::test(start_paused = true)]
async fn a_site_that_a_job_does_not_name_does_not_join_it() {
    let mut scene = Scene::start().await;
    let mut one = Site::join(&scene, "site-1").await;
    let meta = json!({ "deploy_map": { "app": ["server", "site-1"] } });
    let job = scene.submit(meta, json!({})).await;
    scene.running(&job).await;
    let mut two = Site::join(&scene, "site-2").await;
    one.work(&scene, 1).await;
    assert_eq!(scene.finished(&job).await.sites, ["site-1"]);
    assert!(two.orders().is_empty());
}

#[tokio::test(start_paused = true)]
async fn heartbeats_of_a_site_that_is_slow_to_start_do_not_count_against_it() {
    let mut scene = Scene::start().await;
    let mut one = Site::join(&scene, "site-1").await;
    let mut two = Site::join(&scene, "site-2").await;
    // Until site-2's time to answer is over, site-1 is known to be starting, no more.
    two.answers(|order| if matches!(order, Order::Start(_)) { Answer::Never } else { Answer::Yes });
    let job = scene.submit(json!({ "min_clients": 1 }), json!({ "min_results": 1 })).await;
    two.started().await;
    for _ in 0..10 {
        tokio::time::sleep(SECOND).await;
        one.beat(&[]).await;
    }
    one.work(&scene, 1).await;
    assert_eq!(scene.finished(&job).await.status(), JobStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_lost_site_that_comes_back_takes_part_again() {
    let mut scene = Scene::start().await;
    let mut one = Site::join(&scene, "site-1").await;
    let mut two = Site::join(&scene, "site-2").await;
    let sum = json!({ "rounds": 2, "min_results": 1, "grace": 1000 });
    let job = scene.submit(json!({ "min_clients": 1 }), sum).await;
    let id = one.started().await;
    two.started().await;
    let (first, second) = (one.job(&scene, &id).await, two.job(&scene, &id).await);
    let task = first.pull().await.unwrap();
    for _ in 0..62 {
        tokio::time::sleep(10 * SECOND).await;
        one.beat(&[&job]).await;
    }
    // site-2 was dropped meanwhile, so this round needs site-1 only; the next one both.
    two.beat(&[&job]).await;
    assert_eq!(second.check("anything").await, "TASK_UNKNOWN");
    first.submit(&task, result(1)).await;
    let again = second.pull().await.unwrap();
    let task = first.pull().await.unwrap();
    first.submit(&task, result(1)).await;
    second.submit(&again, result(20)).await;
    assert!(first.pull().await.is_none() && second.pull().await.is_none());
    one.report_code(&job, outcome::DONE, "").await;
    two.report_code(&job, outcome::DONE, "").await;
    let record = scene.finished(&job).await;
    assert_eq!(reason(&record), "all workflows ended and every site reported");
}

#[tokio::test(start_paused = true)]
async fn a_site_that_never_says_how_it_ended_makes_the_job_abnormal() {
    let mut scene = Scene::start().await;
    let mut site = Site::join(&scene, "site-1").await;
    let job = scene.submit(json!({}), json!({})).await;
    let id = site.started().await;
    let half = site.job(&scene, &id).await;
    let task = half.pull().await.unwrap();
    half.submit(&task, result(1)).await;
    assert!(half.pull().await.is_none());
    for _ in 0..91 {
        tokio::time::sleep(10 * SECOND).await;
        site.beat(&[&job]).await;
    }
    let record = scene.finished(&job).await;
    assert_eq!((record.status(), reason(&record)), (JobStatus::Abnormal, "no outcome from site-1"));
}

#[tokio::test(start_paused = true)]
async fn a_running_job_is_aborted_at_the_server_and_at_its_sites() {
    let mut scene = Scene::start().await;
    let mut site = Site::join(&scene, "site-1").await;
    let job = scene.submit(json!({}), json!({})).await;
    scene.running(&job).await;
    assert!(scene.server.abort(&job, "changed my mind").await);
    assert!(scene.server.abort(&job, "another reason").await);
    let (record, _) = tokio::join!(scene.finished(&job), async {
        while site.ordered().await != Order::Abort(job.clone()) {}
        site.report_code(&job, outcome::ABORTED, "").await;
    });
    assert_eq!((record.status(), reason(&record)), (JobStatus::Aborted, "changed my mind"));
    assert_eq!(record.outcomes["site-1"].code, outcome::ABORTED);
    assert!(!scene.server.abort(&job, "too late").await);
    assert_eq!(site.beat(&[&job]).await, [job]);
}

#[tokio::test(start_paused = true)]
async fn a_job_is_aborted_at_once_wherever_it_waits() {
    // For its sites.
    let mut scene = Scene::start().await;
    let job = scene.submit(json!({}), json!({})).await;
    let before = tokio::time::Instant::now();
    assert!(scene.server.abort(&job, "no").await);
    assert_eq!(scene.finished(&job).await.status(), JobStatus::Aborted);
    assert!(before.elapsed() < SECOND);

    // For an answer to an order.
    let mut site = Site::join(&scene, "site-1").await;
    site.answers(|order| if matches!(order, Order::Deploy(_)) { Answer::Never } else { Answer::Yes });
    let job = scene.submit(json!({}), json!({})).await;
    while site.ordered().await != Order::Deploy(job.clone()) {}
    let before = tokio::time::Instant::now();
    assert!(scene.server.abort(&job, "no").await);
    let record = scene.finished(&job).await;
    assert_eq!((record.status(), record.history.len()), (JobStatus::Aborted, 2));
    assert!(before.elapsed() < SECOND);
    assert_eq!(site.orders(), [Order::CancelResource(job)]);
}

#[tokio::test(start_paused = true)]
async fn when_the_server_shuts_down_its_jobs_stay_open_and_nothing_hangs() {
    let mut scene = Scene::start().await;
    let mut site = Site::join(&scene, "site-1").await;
    let _other = Site::join(&scene, "site-2").await;
    let job = scene.submit(json!({ "min_clients": 2 }), json!({})).await;
    let waiting = scene.submit(json!({ "deploy_map": { "app": ["server", "site-3"] } }), json!({})).await;
    scene.running(&job).await;
    let before = tokio::time::Instant::now();
    scene.server.shutdown().await;
    assert!(before.elapsed() < 30 * SECOND, "{:?}", before.elapsed());
    let status = |job| scene.server.record(job).unwrap().status();
    assert_eq!((status(&job), status(&waiting)), (JobStatus::Running, JobStatus::Submitted));
    assert!(!site.orders().contains(&Order::Abort(job)), "the site keeps its half");
    let folder = scene.folder(json!({}), json!([]));
    assert!(scene.server.submit(&folder).await.unwrap_err().to_string().contains("shuts down"));
}

#[tokio::test(start_paused = true)]
async fn a_job_goes_no_further_than_its_journal() {
    let mut scene = Scene::start().await;
    let mut site = Site::join(&scene, "site-1").await;
    let job = scene.submit(json!({}), json!({ "rounds": 2 })).await;
    let id = site.started().await;
    scene.running(&job).await;
    let half = site.job(&scene, &id).await;
    let task = half.pull().await.unwrap();
    scene.kit.jobs.fill();
    half.submit(&task, result(1)).await;
    let record = scene.finished(&job).await;
    assert_eq!((record.status(), record.rounds_done), (JobStatus::Abnormal, 0));
    assert!(reason(&record).contains("journal"), "{}", reason(&record));

    // An outcome is acknowledged when it is written, and not before.
    let report = OutcomeReport::new(&job, outcome::ABORTED, None).to_parts().unwrap();
    let answer = |parts| crate::site::ask(&site.cell, "task", OutcomeReport::TOPIC, parts);
    assert_eq!(answer(report.clone()).await.unwrap().code.as_str(), "process_exception");
    scene.kit.jobs.make_room();
    assert!(answer(report).await.unwrap().into_ok().is_ok());

    scene.kit.jobs.fill();
    let folder = scene.folder(json!({}), json!([{ "id": "sum", "path": "test.Sum", "args": {} }]));
    locule_job::sign_folder(&folder, &*crate::scene::signer("lead")).unwrap();
    assert!(!scene.server.submit(&folder).await.unwrap_err().is_the_jobs_fault());
}
