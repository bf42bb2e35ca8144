use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use locule_communicator::SyncError;
use locule_component::{ExecuteError, Metric};
use locule_executor::RunError;
use locule_fobs::{Shareable, Value};
use locule_message::{Payload, ReturnCode};
use locule_protocol::{AuxRequest, GetTask, SubmitUpdate, TaskReply, aux_topic, server_context};
use tokio::sync::oneshot;
use tokio::time::{Instant, advance};

use crate::support::{Job, ServerJob, aux, refusal, seconds, task};

fn trainer() -> Job {
    Job::with(|task, _| {
        let mut result = Shareable::new();
        result.fields.insert("trained", task.id.as_str());
        Ok(result)
    })
}

fn try_again(wait: u64) -> TaskReply {
    TaskReply::TryAgain { wait: seconds(wait), peer: server_context("ward-7", Some("job-1")) }
}

#[tokio::test(start_paused = true)]
async fn a_run_does_every_task_waits_as_told_and_ends_with_the_servers_word() {
    let server = ServerJob::start([try_again(60), task("task-1"), try_again(5), task("task-2")]).await;
    let job = trainer();
    let diary = job.diary.clone();
    let begun = Instant::now();
    let summary = server.task_loop(job).run().await.unwrap();

    assert_eq!(summary.tasks_done, 2);
    assert_eq!(begun.elapsed().as_secs(), 60 + 2 + 5 + 2);
    let submitted = server.submitted.lock().unwrap();
    for (update, id) in submitted.iter().zip(["task-1", "task-2"]) {
        assert_eq!((&*update.task_id, &*update.task_name, update.job_id()), (id, "train", "job-1"));
        assert_eq!(update.cookies.str("__task_id__"), Some(id));
        assert_eq!(update.result.fields.str("trained"), Some(id));
        assert_eq!(update.result.headers.int("current_round"), Some(3));
    }
    let pull = ["_before_pull_task", "_after_pull_task"];
    let work = [
        "_before_task_data_filter",
        "_after_task_data_filter",
        "_before_task_execution",
        "_after_task_execution",
        "_before_task_result_filter",
        "_after_task_result_filter",
        "_before_send_task_result",
        "_after_send_task_result",
    ];
    let one = [&pull[..], &pull[..], &work[..]].concat();
    let begin = ["_about_to_start_run", "_start_run"];
    let end = ["_about_to_end_run", "_check_end_run_readiness", "_end_run"];
    assert_eq!(diary.entries(), [&begin[..], &one, &one, &pull, &end].concat());
}

#[tokio::test(start_paused = true)]
async fn a_pull_names_the_task_done_last() {
    let server = ServerJob::start([]).await;
    let (asked, tasks) = (Arc::new(Mutex::new(Vec::new())), [task("task-1"), task("task-2")]);
    let heard = asked.clone();
    server.answer(GetTask::CHANNEL, GetTask::TOPIC, move |incoming| {
        let get = GetTask::from_parts(&incoming.headers, &incoming.payload()).unwrap();
        let mut heard = heard.lock().unwrap();
        heard.push(get.last_task_id);
        let over = || TaskReply::EndRun { peer: server_context("ward-7", Some("job-1")) };
        let answer = tasks.get(heard.len() - 1).cloned().unwrap_or_else(over);
        crate::support::reply(answer.to_parts().unwrap())
    });
    server.task_loop(trainer()).run().await.unwrap();
    assert_eq!(*asked.lock().unwrap(), [None, Some("task-1".into()), Some("task-2".into())]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_task_is_reported_and_the_run_goes_on() {
    let server = ServerJob::start([task("task-1"), task("task-2")]).await;
    let job = Job::with(|task, _| match task.id.as_str() {
        "task-1" => Err(ExecuteError::Failed("no rows".into())),
        _ => Ok(Shareable::new()),
    });
    assert_eq!(server.task_loop(job).run().await.unwrap().tasks_done, 2);
    let submitted = server.submitted.lock().unwrap();
    let codes: Vec<&str> = submitted.iter().map(|update| update.result.return_code()).collect();
    assert_eq!(codes, ["EXECUTION_EXCEPTION", "OK"]);
}

#[tokio::test(start_paused = true)]
async fn metrics_are_told_in_order_before_the_result_and_again_until_the_server_has_them() {
    let server = ServerJob::start([task("task-1")]).await;
    let (told, results) = (Arc::new(Mutex::new(Vec::new())), Arc::clone(&server.submitted));
    let hears = Arc::clone(&told);
    server.answer(AuxRequest::CHANNEL, aux_topic::FED_EVENT, move |incoming| {
        let event = AuxRequest::from_parts(&incoming.headers, &incoming.payload()).unwrap();
        let shareable = Shareable { headers: event.headers.clone(), fields: event.fields };
        let key = shareable.dxo().unwrap().unwrap().data.str("track_key").unwrap().to_owned();
        assert!(results.lock().unwrap().is_empty(), "{key} comes after the result");
        let mut told = hears.lock().unwrap();
        told.push((key, event.headers.str("_event_id").unwrap().to_owned()));
        if told.len() == 2 { refusal(ReturnCode::ServiceUnavailable) } else { aux("OK") }
    });
    let job = trainer();
    for key in ["a", "b", "c"] {
        job.metrics.lock().unwrap().push(Metric {
            key: key.into(),
            kind: "SCALAR".into(),
            value: 0.5.into(),
            step: Some(1),
            writer: None,
        });
    }
    assert_eq!(server.task_loop(job).run().await.unwrap().tasks_done, 1);
    let told = told.lock().unwrap();
    let keys: Vec<&str> = told.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["a", "b", "b", "c"]);
    assert_eq!(told[1].1, told[2].1, "the same event");
    assert_ne!(told[0].1, told[1].1);
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_server_never_gets_ready_does_not_begin() {
    let server = ServerJob::start([]).await;
    let sync = (AuxRequest::CHANNEL, aux_topic::SYNC_RUNNER);
    server.answer(sync.0, sync.1, |_| refusal(ReturnCode::ServiceUnavailable));
    let job = trainer();
    let diary = job.diary.clone();
    let begun = Instant::now();
    let ended = server.task_loop(job).run().await;
    assert!(matches!(ended, Err(RunError::Sync(SyncError::TooLate(_)))));
    assert_eq!(begun.elapsed().as_secs(), 60);
    assert!(diary.entries().is_empty());
}

/// A job whose executor says that it has begun, and then does not end before it is told to.
fn endless() -> (Job, oneshot::Receiver<()>) {
    let (begin, begun) = oneshot::channel();
    let mut begin = Some(begin);
    let job = Job::with(move |_, cx| {
        begin.take().unwrap().send(()).unwrap();
        while !cx.abort.is_raised() {
            std::thread::yield_now();
        }
        Ok(Shareable::new())
    });
    (job, begun)
}

#[tokio::test(start_paused = true)]
async fn cancelling_raises_the_abort_flag_and_the_run_ends_as_aborted() {
    let server = ServerJob::start([task("task-1")]).await;
    let (job, begun) = endless();
    let (diary, abort) = (job.diary.clone(), job.abort.clone());
    let running = tokio::spawn(server.task_loop(job).run());
    begun.await.unwrap();
    assert!(!abort.is_raised());
    server.cancel.cancel();
    assert!(matches!(running.await.unwrap(), Err(RunError::Aborted)));
    assert!(abort.is_raised());
    assert!(server.submitted.lock().unwrap().is_empty());
    let entries = diary.entries();
    let end = ["_abort_task", "_about_to_end_run", "_check_end_run_readiness", "_end_run"];
    assert!(entries.ends_with(&end.map(str::to_owned)), "{entries:?}");
}

#[tokio::test(start_paused = true)]
async fn cancelling_an_idle_run_ends_it_at_once_and_observers_hear_the_end() {
    let server = ServerJob::start([try_again(3600)]).await;
    let job = trainer();
    let diary = job.diary.clone();
    let running = tokio::spawn(server.task_loop(job).run());
    advance(seconds(100)).await;
    let cancelled = Instant::now();
    server.cancel.cancel();
    assert!(matches!(running.await.unwrap(), Err(RunError::Aborted)));
    assert_eq!(cancelled.elapsed(), seconds(0));
    assert_eq!((diary.count("_abort_task"), diary.count("_end_run")), (1, 1));
}

#[tokio::test]
async fn an_executor_that_does_not_stop_is_left_behind_and_observers_hear_the_end() {
    let server = ServerJob::start([task("task-1")]).await;
    let (begin, begun) = oneshot::channel();
    let (release, wait) = mpsc::channel::<()>();
    let mut begin = Some(begin);
    let job = Job::with(move |_, _| {
        begin.take().unwrap().send(()).unwrap();
        wait.recv().ok();
        Ok(Shareable::new())
    });
    let diary = job.diary.clone();
    let mut pace = locule_executor::Pace::default();
    pace.abort_grace = std::time::Duration::from_millis(10);
    let task_loop =
        locule_executor::TaskLoop::new(server.communicator(), job.bench(), pace, server.cancel.clone());
    let running = tokio::spawn(task_loop.run());
    begun.await.unwrap();
    server.cancel.cancel();
    assert!(matches!(running.await.unwrap(), Err(RunError::Stuck(grace)) if grace == pace.abort_grace));
    assert_eq!(diary.count("_end_run"), 1);
    drop(release);
}

#[tokio::test]
async fn a_long_task_sends_signs_of_life() {
    let server = ServerJob::start([task("task-1")]).await;
    let (alive, hear) = mpsc::channel();
    server.answer(AuxRequest::CHANNEL, aux_topic::JOB_HEARTBEAT, move |incoming| {
        assert!(!incoming.reply_expected);
        alive.send(()).ok();
        aux("OK")
    });
    let job = Job::with(move |_, _| {
        (0..3).for_each(|_| hear.recv().unwrap()); // ends with the third sign of life
        Ok(Shareable::new())
    });
    let mut pace = locule_executor::Pace::default();
    pace.heartbeat = std::time::Duration::from_millis(5);
    pace.shortest = std::time::Duration::from_millis(1);
    let task_loop =
        locule_executor::TaskLoop::new(server.communicator(), job.bench(), pace, server.cancel.clone());
    assert_eq!(task_loop.run().await.unwrap().tasks_done, 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_for_a_while_gets_the_result_when_it_is_back() {
    let server = ServerJob::start([task("task-1"), task("task-2")]).await;
    let faults = server.network.faults();
    let away = faults.clone();
    let job = Job::with(move |task, _| {
        if task.id == "task-1" {
            away.refuse();
            away.cut();
        }
        Ok(Shareable::new())
    });
    let diary = job.diary.clone();
    let running = tokio::spawn(server.task_loop(job).run());
    until(|| diary.count("_before_send_task_result") == 1).await;
    advance(seconds(600)).await;
    assert!(server.submitted_ids().is_empty() && !running.is_finished());
    faults.heal();
    assert_eq!(running.await.unwrap().unwrap().tasks_done, 2);
    assert_eq!(server.submitted_ids(), ["task-1", "task-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_between_tasks_is_asked_on() {
    let server = ServerJob::start([try_again(3), task("task-1")]).await;
    let faults = server.network.faults();
    let job = trainer();
    let diary = job.diary.clone();
    let running = tokio::spawn(server.task_loop(job).run());
    until(|| diary.count("_after_pull_task") == 1).await;
    faults.refuse();
    faults.cut();
    until_later(|| diary.count("_after_pull_task") > 1).await;
    assert_eq!(diary.count("_before_task_execution"), 0);
    faults.heal();
    assert_eq!(running.await.unwrap().unwrap().tasks_done, 1);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_not_wanted_any_more_is_dropped() {
    let server = ServerJob::start([task("task-1"), task("task-2")]).await;
    server.answer(AuxRequest::CHANNEL, aux_topic::TASK_CHECK, |incoming| {
        let check = AuxRequest::from_parts(&incoming.headers, &incoming.payload()).unwrap();
        aux(if check.task_id() == Some("task-1") { "TASK_UNKNOWN" } else { "OK" })
    });
    assert_eq!(server.task_loop(trainer()).run().await.unwrap().tasks_done, 1);
    assert_eq!(server.submitted_ids(), ["task-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_submission_that_failed_is_sent_again_after_another_check() {
    let server = ServerJob::start([task("task-1")]).await;
    let (checks, submissions) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (checked, submitted) = (checks.clone(), submissions.clone());
    server.answer(AuxRequest::CHANNEL, aux_topic::TASK_CHECK, move |_| {
        match checked.fetch_add(1, Ordering::Relaxed) {
            0 => aux("SERVER_NOT_READY"),
            _ => aux("OK"),
        }
    });
    server.answer(SubmitUpdate::CHANNEL, SubmitUpdate::TOPIC, move |_| {
        match submitted.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => refusal(ReturnCode::ProcessException),
            _ => Ok(locule_cell::Reply::ok(Payload::none())),
        }
    });
    let begun = Instant::now();
    assert_eq!(server.task_loop(trainer()).run().await.unwrap().tasks_done, 1);
    assert_eq!((checks.load(Ordering::Relaxed), submissions.load(Ordering::Relaxed)), (4, 3));
    assert_eq!(begun.elapsed().as_millis(), 250 + 500 + 1000 + 2000); // three pauses, then the task's own wait
}

#[tokio::test(start_paused = true)]
async fn a_submission_in_vain_can_be_cancelled() {
    let server = ServerJob::start([task("task-1")]).await;
    let submit = (SubmitUpdate::CHANNEL, SubmitUpdate::TOPIC);
    server.answer(submit.0, submit.1, |_| refusal(ReturnCode::CommError));
    let job = trainer();
    let diary = job.diary.clone();
    let running = tokio::spawn(server.task_loop(job).run());
    until(|| diary.count("_before_send_task_result") == 1).await;
    advance(seconds(31)).await;
    let cancelled = Instant::now();
    server.cancel.cancel();
    assert!(matches!(running.await.unwrap(), Err(RunError::Aborted)));
    assert_eq!(cancelled.elapsed(), seconds(0));
    assert_eq!((diary.count("_after_send_task_result"), diary.count("_end_run")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_result_that_cannot_be_sent_is_reported_as_such() {
    let server = ServerJob::start([task("task-1"), task("task-2")]).await;
    let job = Job::with(|task, _| {
        let mut result = Shareable::new();
        if task.id == "task-1" {
            let deep = (0..200).fold(Value::None, |deep, _| Value::List(vec![deep]));
            result.fields.insert("deep", deep);
        }
        Ok(result)
    });
    assert_eq!(server.task_loop(job).run().await.unwrap().tasks_done, 2);
    let submitted = server.submitted.lock().unwrap();
    let codes: Vec<&str> = submitted.iter().map(|update| update.result.return_code()).collect();
    assert_eq!(codes, ["EXECUTION_RESULT_ERROR", "OK"]);
}

#[tokio::test(start_paused = true)]
async fn a_result_of_an_earlier_session_is_dropped() {
    let server = ServerJob::start([task("task-1"), task("task-2")]).await;
    let communicator = server.communicator();
    let (site, sessions) = (communicator.clone(), AtomicUsize::new(0));
    let job = Job::with(move |_, _| {
        if sessions.fetch_add(1, Ordering::Relaxed) == 0 {
            site.renew(crate::support::session("second")); // the site registered anew meanwhile
        }
        Ok(Shareable::new())
    });
    let pace = locule_executor::Pace::default();
    let task_loop = locule_executor::TaskLoop::new(communicator, job.bench(), pace, server.cancel.clone());
    assert_eq!(task_loop.run().await.unwrap().tasks_done, 1);
    assert_eq!(server.submitted_ids(), ["task-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_own_cell_closes_is_aborted() {
    let server = ServerJob::start([try_again(1), try_again(1), try_again(60), task("task-1")]).await;
    let running = tokio::spawn(server.task_loop(trainer()).run());
    advance(seconds(5)).await;
    server.site.shutdown(seconds(1)).await;
    let ended = tokio::time::timeout(seconds(60), running).await.unwrap();
    assert!(matches!(ended.unwrap(), Err(RunError::Aborted)));
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_own_cell_closes_before_the_result_is_out_is_aborted() {
    let server = ServerJob::start([task("task-1")]).await;
    let submit = (SubmitUpdate::CHANNEL, SubmitUpdate::TOPIC);
    server.answer(submit.0, submit.1, |_| refusal(ReturnCode::CommError));
    let job = trainer();
    let diary = job.diary.clone();
    let running = tokio::spawn(server.task_loop(job).run());
    until(|| diary.count("_before_send_task_result") == 1).await;
    server.site.shutdown(seconds(1)).await;
    let ended = tokio::time::timeout(seconds(60), running).await.unwrap();
    assert!(matches!(ended.unwrap(), Err(RunError::Aborted)));
}

/// Lets tasks, threads and time run until `condition` holds. What an observer writes is seen before the loop that
/// told it goes on, so nobody can know when that will wait for the clock.
async fn until_later(condition: impl Fn() -> bool) {
    for _ in 0..1_000_000 {
        if condition() {
            return;
        }
        advance(seconds(1)).await;
    }
    panic!("never came true");
}

/// Lets tasks and threads run until `condition` holds; time passes only if nothing else can happen.
async fn until(condition: impl Fn() -> bool) {
    for _ in 0..1_000_000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never came true");
}
