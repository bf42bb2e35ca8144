use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use locule_communicator::{JobCommunicator, PullError, Pulled, SayError, SubmitError, SyncError};
use locule_component::{FilterCx, FilterError, RunContext, TaskFilter};
use locule_fobs::{Map, Shareable, Value};
use locule_message::{ReturnCode, key};
use locule_protocol::{
    Assignment, AuxReply, AuxRequest, GetTask, SubmitUpdate, TaskReply, aux_topic, prop, server_context,
};
use tokio::time::{Instant, advance};

use crate::support::{Federation, Log, TOKEN, nothing, refusal, reply, seconds, session};

const PULL: (&str, &str) = (GetTask::CHANNEL, GetTask::TOPIC);
const SUBMIT: (&str, &str) = (SubmitUpdate::CHANNEL, SubmitUpdate::TOPIC);

fn aux(code: &str) -> Result<locule_cell::Reply, locule_cell::HandlerError> {
    reply(AuxReply::new(code, server_context("ward-7", Some("job-1"))).to_parts().unwrap())
}

fn train() -> Assignment {
    let mut data = Shareable::new();
    data.set_peer_context(server_context("ward-7", Some("job-1")));
    data.fields.insert("weights", 7_i64);
    let cookies = Map::from_iter([("__workflow__", "fedavg")]);
    Assignment { cookies, wait: seconds(2), ..Assignment::new("train", "task-1", data) }
}

fn result() -> Shareable {
    let mut result = Shareable::new();
    result.fields.insert("weights", 8_i64);
    result
}

fn submitted(federation: &Federation) -> Vec<SubmitUpdate> {
    let heard = federation.heard(SUBMIT.0, SUBMIT.1);
    heard.iter().map(|m| SubmitUpdate::from_parts(&m.headers, &m.payload()).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_job_waits_until_the_servers_is_ready() {
    let federation = Federation::of_job().await;
    let asked = federation.answer(AuxRequest::CHANNEL, aux_topic::SYNC_RUNNER, |before, _| match before {
        0 => refusal(ReturnCode::ServiceUnavailable, "not started"),
        1 => aux("SERVER_NOT_READY"),
        _ => aux("OK"),
    });
    let begun = Instant::now();
    federation.job().sync(seconds(60)).await.unwrap();
    assert_eq!((asked.load(Ordering::Relaxed), begun.elapsed().as_millis()), (3, 1000));
    let heard = federation.heard(AuxRequest::CHANNEL, aux_topic::SYNC_RUNNER).remove(0);
    let heard = AuxRequest::from_parts(&heard.headers, &heard.payload()).unwrap();
    assert_eq!(heard.peer_props.str(prop::RUN_NUM), Some("job-1"));
}

#[tokio::test(start_paused = true)]
async fn a_job_does_not_wait_for_ever_and_not_when_it_is_cancelled() {
    let federation = Federation::of_job().await;
    let begun = Instant::now();
    assert!(matches!(federation.job().sync(seconds(60)).await, Err(SyncError::TooLate(_))));
    assert_eq!(begun.elapsed().as_secs(), 60);
    federation.cancel.cancel();
    assert!(matches!(federation.job().sync(seconds(60)).await, Err(SyncError::Cancelled)));
}

#[tokio::test(start_paused = true)]
async fn a_pull_brings_a_task_or_a_wait_or_the_end() {
    let federation = Federation::of_job().await;
    let peer = server_context("ward-7", Some("job-1"));
    let answers = [
        TaskReply::Task(Box::new(train())),
        TaskReply::TryAgain { wait: seconds(3), peer: peer.clone() },
        TaskReply::EndRun { peer },
    ];
    federation.answer(PULL.0, PULL.1, move |before, _| reply(answers[before].to_parts().unwrap()));
    let job = federation.job();

    let Pulled::Task(task) = job.pull_task(None).await.unwrap() else { panic!() };
    assert_eq!((&*task.name, &*task.id, task.wait), ("train", "task-1", seconds(2)));
    assert_eq!(task.data.fields.int("weights"), Some(7));
    assert_eq!(task.cookies.str("__workflow__"), Some("fedavg"));
    let pulled = job.pull_task(Some("task-1")).await.unwrap();
    assert!(matches!(pulled, Pulled::TryAgain { wait } if wait == seconds(3)));
    assert!(matches!(job.pull_task(Some("task-1")).await.unwrap(), Pulled::EndRun));

    let heard = federation.heard(PULL.0, PULL.1);
    let asked: Vec<GetTask> =
        heard.iter().map(|m| GetTask::from_parts(&m.headers, &m.payload()).unwrap()).collect();
    assert_eq!((&*asked[0].project_name, asked[0].job_id()), ("ward-7", "job-1"));
    assert_eq!((&asked[0].last_task_id, asked[1].last_task_id.as_deref()), (&None, Some("task-1")));
    assert!(heard[0].optional());
    assert_eq!(heard[0].headers.str(key::TOKEN), Some(TOKEN));
}

#[tokio::test(start_paused = true)]
async fn a_pull_whose_token_is_not_accepted_fails_after_a_pause() {
    let federation = Federation::of_job().await;
    federation.answer(PULL.0, PULL.1, |_, _| refusal(ReturnCode::AuthenticationError, "who are you?"));
    let begun = Instant::now();
    let error = federation.job().pull_task(None).await.unwrap_err();
    assert!(matches!(error, PullError::Authentication));
    assert_eq!(begun.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn cancellation_ends_that_pause() {
    let federation = Federation::of_job().await;
    federation.answer(PULL.0, PULL.1, |_, _| refusal(ReturnCode::AuthenticationError, "who are you?"));
    let job = federation.job();
    let begun = Instant::now();
    let pulling = tokio::spawn(async move { job.pull_task(None).await });
    advance(seconds(1)).await;
    federation.cancel.cancel();
    pulling.await.unwrap().unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_fails_otherwise_says_so_at_once_and_without_secrets() {
    let federation = Federation::of_job().await;
    let reason = format!("no idea, {TOKEN}");
    federation.answer(PULL.0, PULL.1, move |_, _| refusal(ReturnCode::ProcessException, &reason));
    let begun = Instant::now();
    let error = federation.job().pull_task(None).await.unwrap_err();
    assert!(matches!(error, PullError::Request(_)));
    assert!(error.to_string().contains("no idea, …"), "{error}");
    assert_eq!(begun.elapsed(), seconds(0));
}

#[tokio::test(start_paused = true)]
async fn a_pull_can_be_cancelled() {
    let federation = Federation::of_job().await;
    federation.network.faults().hold();
    let job = federation.job();
    let pulling = tokio::spawn(async move { job.pull_task(None).await });
    advance(seconds(1)).await;
    federation.cancel.cancel();
    assert!(matches!(pulling.await.unwrap(), Err(PullError::Cancelled)));
}

#[tokio::test(start_paused = true)]
async fn size_and_time_of_each_pull_and_submission_are_logged() {
    let (log, _guard) = Log::start();
    let federation = Federation::of_job().await;
    let parts = TaskReply::Task(Box::new(train())).to_parts().unwrap();
    let task_len = parts.payload.body.len();
    federation.answer(PULL.0, PULL.1, move |_, _| reply(parts.clone()));
    federation.answer(SUBMIT.0, SUBMIT.1, |_, _| nothing());
    federation.network.faults().delay(seconds(2)); // each way
    let job = federation.job();
    job.pull_task(None).await.unwrap();
    let submission = job.prepare(&train(), result()).await.unwrap();
    job.submit_update(&submission, "NA").await.unwrap();

    let expected = [("task pulled", task_len), ("result submitted", submission.len())];
    for (message, bytes) in expected {
        let lines = log.lines_with(message);
        assert_eq!(lines.len(), 1, "{message}");
        let fields = format!("task=\"train\" bytes={bytes} elapsed_ms=4000");
        assert!(lines[0].contains(&fields), "{} has no {fields}", lines[0]);
    }
    assert_eq!(federation.heard(SUBMIT.0, SUBMIT.1)[0].body.len(), submission.len());
    assert!(log.lines_with(TOKEN).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_submission_echoes_the_cookies_and_names_task_and_job() {
    let federation = Federation::of_job().await;
    federation.answer(SUBMIT.0, SUBMIT.1, |_, _| nothing());
    let job = federation.job();
    let submission = job.prepare(&train(), result()).await.unwrap();
    job.submit_update(&submission, "NA").await.unwrap();
    let submitted = submitted(&federation).remove(0);
    assert_eq!((&*submitted.task_name, &*submitted.task_id), ("train", "task-1"));
    assert_eq!(submitted.cookies.str("__workflow__"), Some("fedavg"));
    assert_eq!((submitted.job_id(), &*submitted.project_name), ("job-1", "ward-7"));
    assert_eq!(submitted.result.fields.int("weights"), Some(8));
    assert!(!federation.heard(SUBMIT.0, SUBMIT.1)[0].optional());
}

#[tokio::test(start_paused = true)]
async fn the_word_that_a_task_was_aborted_is_optional() {
    let federation = Federation::of_job().await;
    federation.answer(SUBMIT.0, SUBMIT.1, |_, _| nothing());
    let job = federation.job();
    let submission = job.prepare(&train(), Shareable::with_return_code("TASK_ABORTED")).await.unwrap();
    job.submit_update(&submission, "NA").await.unwrap();
    assert!(federation.heard(SUBMIT.0, SUBMIT.1)[0].optional());
    assert_eq!(submitted(&federation)[0].result.return_code(), "TASK_ABORTED");
}

#[tokio::test(start_paused = true)]
async fn a_result_of_another_session_is_not_submitted() {
    let federation = Federation::of_job().await;
    federation.answer(SUBMIT.0, SUBMIT.1, |_, _| nothing());
    let job = federation.job();
    let submission = job.prepare(&train(), result()).await.unwrap();
    let pulled_in = job.session().ssid().to_owned();
    job.clone().renew(session("second"));
    let error = job.submit_update(&submission, &pulled_in).await;
    assert!(matches!(error, Err(SubmitError::InvalidSession)));
    assert!(submitted(&federation).is_empty());
    job.submit_update(&submission, "second").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_submission_that_is_refused_says_why_without_secrets() {
    let federation = Federation::of_job().await;
    let reason = format!("busy with {TOKEN}");
    federation.answer(SUBMIT.0, SUBMIT.1, move |_, _| refusal(ReturnCode::CommError, &reason));
    let job = federation.job();
    let submission = job.prepare(&train(), result()).await.unwrap();
    let error = job.submit_update(&submission, "NA").await.unwrap_err();
    assert!(matches!(&error, SubmitError::Request(error) if error.code() == ReturnCode::CommError));
    assert!(error.to_string().contains("busy with …"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_task_check_tells_wanted_from_unwanted_from_not_ready() {
    let federation = Federation::of_job().await;
    let codes = ["OK", "TASK_UNKNOWN", "SERVER_NOT_READY", "COMMUNICATION_ERROR", "SOMETHING_NEW"];
    federation.answer(AuxRequest::CHANNEL, aux_topic::TASK_CHECK, move |before, _| aux(codes[before]));
    let job = federation.job();
    assert!(job.is_wanted("task-1").await.unwrap());
    assert!(!job.is_wanted("task-1").await.unwrap());
    for _ in 0..2 {
        assert!(
            matches!(job.is_wanted("task-1").await, Err(SayError::Request(error)) if error.is_retryable())
        );
    }
    assert!(job.is_wanted("task-1").await.unwrap());
    let heard = federation.heard(AuxRequest::CHANNEL, aux_topic::TASK_CHECK).remove(0);
    let heard = AuxRequest::from_parts(&heard.headers, &heard.payload()).unwrap();
    assert_eq!(heard.task_id(), Some("task-1"));
}

#[tokio::test(start_paused = true)]
async fn a_job_heartbeat_expects_no_answer() {
    let federation = Federation::of_job().await;
    let asked = federation.answer(AuxRequest::CHANNEL, aux_topic::JOB_HEARTBEAT, |_, incoming| {
        assert!(!incoming.reply_expected);
        nothing()
    });
    federation.job().job_heartbeat().await.unwrap();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert!(!federation.heard(AuxRequest::CHANNEL, aux_topic::JOB_HEARTBEAT)[0].reply_expected());
}

/// Appends its letter to what passes, and notes where it ran.
struct Letter(&'static str, Arc<Mutex<Vec<ThreadId>>>);

impl TaskFilter for Letter {
    fn apply(&mut self, mut data: Shareable, cx: &FilterCx<'_>) -> Result<Shareable, FilterError> {
        self.1.lock().unwrap().push(std::thread::current().id());
        assert_eq!((cx.site, cx.job_id, cx.task), ("site-1", "job-1", "train"));
        assert_eq!(cx.context.get("diagnosis"), None);
        let before = data.fields.str("letters").unwrap_or_default().to_owned();
        data.fields.insert("letters", before + self.0);
        Ok(data)
    }
}

fn with_processors(federation: &Federation, processors: Vec<Box<dyn TaskFilter>>) -> JobCommunicator {
    federation.job().with_state_processors(RunContext::new("site-1", "job-1"), processors)
}

#[tokio::test(start_paused = true)]
async fn state_processors_see_every_result_once_in_order_and_off_the_async_threads() {
    let federation = Federation::of_job().await;
    federation.answer(SUBMIT.0, SUBMIT.1, |before, _| match before {
        0 => refusal(ReturnCode::CommError, "again"),
        _ => nothing(),
    });
    let threads = Arc::new(Mutex::new(Vec::new()));
    let letter = |letter| Box::new(Letter(letter, threads.clone()));
    let job = with_processors(&federation, vec![letter("a"), letter("b")]);
    let submission = job.prepare(&train(), result()).await.unwrap();
    job.submit_update(&submission, "NA").await.unwrap_err();
    job.submit_update(&submission, "NA").await.unwrap();

    let submitted = submitted(&federation);
    assert_eq!(submitted.len(), 2);
    for submitted in submitted {
        assert_eq!(submitted.result.fields.str("letters"), Some("ab"));
        assert_eq!(submitted.result.fields.int("weights"), Some(8));
    }
    let threads = threads.lock().unwrap();
    assert_eq!(threads.len(), 2);
    assert!(!threads.contains(&std::thread::current().id()));
}

type Failure = fn() -> FilterError;

/// Does not let anything pass.
struct Stop(Failure);

impl TaskFilter for Stop {
    fn apply(&mut self, _: Shareable, _: &FilterCx<'_>) -> Result<Shareable, FilterError> {
        Err((self.0)())
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_passes_a_state_processor_that_stops_the_result() {
    let federation = Federation::of_job().await;
    federation.answer(SUBMIT.0, SUBMIT.1, |_, _| nothing());
    let stops: [(Failure, &str); 3] = [
        (|| FilterError::Blocked("too few samples".into()), "TASK_RESULT_FILTER_ERROR"),
        (|| FilterError::Unsafe("it is".into()), "UNSAFE_JOB"),
        (|| panic!("out of order"), "TASK_RESULT_FILTER_ERROR"),
    ];
    for (stop, code) in stops {
        let job = with_processors(&federation, vec![Box::new(Stop(stop))]);
        let submission = job.prepare(&train(), result()).await.unwrap();
        job.submit_update(&submission, "NA").await.unwrap();
        let submitted = submitted(&federation).pop().unwrap();
        assert_eq!(submitted.result.return_code(), code);
        assert!(submitted.result.fields.is_empty());
        assert_eq!(submitted.task_id, "task-1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_that_cannot_be_encoded_says_so() {
    let federation = Federation::of_job().await;
    let mut result = Shareable::new();
    let mut deep = Value::None;
    for _ in 0..200 {
        deep = Value::List(vec![deep]);
    }
    result.fields.insert("deep", deep);
    let error = federation.job().prepare(&train(), result).await.unwrap_err();
    assert!(matches!(error, SubmitError::Encode(_)));
}
