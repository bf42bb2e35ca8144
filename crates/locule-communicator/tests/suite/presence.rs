use std::sync::Mutex;
use std::sync::atomic::Ordering;

use locule_communicator::{JobKeeper, SayError};
use locule_message::ReturnCode;
use locule_protocol::{Heartbeat, HeartbeatReply, OutcomeReport, Quit, QuitReply, prop};
use tokio::time::{Instant, timeout};

use crate::support::{Federation, Log, TOKEN, nothing, refusal, reply, seconds, session, settings};

const HEARTBEAT: (&str, &str) = (Heartbeat::CHANNEL, Heartbeat::TOPIC);

/// A site with two jobs, and those it was told to abort.
#[derive(Default)]
struct Jobs(Mutex<Vec<String>>);

impl JobKeeper for Jobs {
    fn job_ids(&self) -> Vec<String> {
        vec!["job-1".into(), "job-2".into()]
    }

    fn abort(&self, job_id: &str) {
        self.0.lock().unwrap().push(job_id.into());
    }
}

fn unwanted(jobs: &[&str]) -> Result<locule_cell::Reply, locule_cell::HandlerError> {
    let jobs = jobs.iter().map(|job| (*job).to_owned()).collect();
    reply(HeartbeatReply::new(jobs).to_parts().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_names_the_jobs_and_brings_those_that_the_server_does_not_run() {
    let federation = Federation::of_parents().await;
    federation.stamp.set(session("NA"));
    federation.answer(HEARTBEAT.0, HEARTBEAT.1, |_, _| unwanted(&["job-2"]));
    let aborted = federation.communicator(settings()).heartbeat(Jobs::default().job_ids()).await.unwrap();
    assert_eq!(aborted, ["job-2"]);
    let heard = federation.heard(HEARTBEAT.0, HEARTBEAT.1).remove(0);
    let heard = Heartbeat::from_parts(&heard.headers, &heard.payload()).unwrap();
    assert_eq!((&*heard.project_name, heard.job_ids), ("ward-7", Jobs::default().job_ids()));
    assert_eq!(heard.peer.str(prop::IDENTITY), Some("site-1"));
}

#[tokio::test(start_paused = true)]
async fn heartbeats_abort_what_the_server_no_longer_runs_and_nothing_it_was_not_told_of() {
    let federation = Federation::of_parents().await;
    federation.answer(HEARTBEAT.0, HEARTBEAT.1, |before, _| match before {
        0 => unwanted(&["job-2", "job-9"]),
        _ => unwanted(&[]),
    });
    let (site, jobs) = (federation.communicator(settings()), Jobs::default());
    timeout(seconds(35), site.heartbeat_loop(&jobs)).await.unwrap_err();
    assert_eq!(*jobs.0.lock().unwrap(), ["job-2"]);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_begin_at_once_and_come_every_interval_with_events_around_them() {
    let federation = Federation::of_parents().await;
    let asked = federation.answer(HEARTBEAT.0, HEARTBEAT.1, |_, _| unwanted(&[]));
    let site = federation.communicator(settings());
    timeout(seconds(25), site.heartbeat_loop(&Jobs::default())).await.unwrap_err();
    assert_eq!(asked.load(Ordering::Relaxed), 3); // at 0, 10 and 20 s
    let around = ["_before_client_heartbeat", "_after_client_heartbeat"];
    assert_eq!(federation.notes.all(), [around; 3].concat());
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_failed_is_tried_again_after_a_shorter_pause_without_an_after_event() {
    let federation = Federation::of_parents().await;
    let asked = federation.answer(HEARTBEAT.0, HEARTBEAT.1, |before, _| match before {
        0 => refusal(ReturnCode::Unauthenticated, "unknown client"),
        1 => refusal(ReturnCode::CommError, "busy"),
        _ => unwanted(&[]),
    });
    let site = federation.communicator(settings());
    timeout(seconds(15), site.heartbeat_loop(&Jobs::default())).await.unwrap_err();
    assert_eq!(asked.load(Ordering::Relaxed), 3); // at 0, 5 and 10 s
    let (before, after) = ("_before_client_heartbeat", "_after_client_heartbeat");
    assert_eq!(federation.notes.all(), [before, before, before, after]);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_go_on_while_the_link_is_down() {
    let federation = Federation::of_parents().await;
    let asked = federation.answer(HEARTBEAT.0, HEARTBEAT.1, |_, _| unwanted(&[]));
    let site = federation.communicator(settings());
    let beating = tokio::spawn(async move { site.heartbeat_loop(&Jobs::default()).await });
    federation.network.faults().refuse();
    federation.network.faults().cut();
    tokio::time::advance(seconds(300)).await;
    federation.network.faults().heal();
    let before = asked.load(Ordering::Relaxed);
    timeout(seconds(60), beating).await.unwrap_err();
    assert!(asked.load(Ordering::Relaxed) >= before + 4);
}

#[tokio::test(start_paused = true)]
async fn in_a_simulation_heartbeats_abort_nothing_and_end_at_the_first_refusal() {
    let federation = Federation::of_parents().await;
    let asked = federation.answer(HEARTBEAT.0, HEARTBEAT.1, |before, _| match before {
        0 => unwanted(&["job-1"]),
        _ => refusal(ReturnCode::CommError, "simulation is over"),
    });
    let mut settings = settings();
    settings.simulate = true;
    let (site, jobs) = (federation.communicator(settings), Jobs::default());
    timeout(seconds(60), site.heartbeat_loop(&jobs)).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    assert!(jobs.0.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn cancellation_ends_the_heartbeats_at_once() {
    let federation = Federation::of_parents().await;
    federation.answer(HEARTBEAT.0, HEARTBEAT.1, |_, _| unwanted(&[]));
    let site = federation.communicator(settings());
    let beating = tokio::spawn(async move { site.heartbeat_loop(&Jobs::default()).await });
    tokio::time::advance(seconds(3)).await;
    federation.cancel.cancel();
    let begun = Instant::now();
    beating.await.unwrap();
    assert_eq!(begun.elapsed(), seconds(0));
}

#[tokio::test(start_paused = true)]
async fn quitting_gives_back_the_servers_message_even_when_all_else_is_cancelled() {
    let federation = Federation::of_parents().await;
    let farewell = QuitReply { message: "so long, 'site-1'".into() }.to_parts().unwrap();
    federation.answer(Quit::CHANNEL, Quit::TOPIC, move |_, _| reply(farewell.clone()));
    let site = federation.communicator(settings());
    federation.cancel.cancel();
    assert_eq!(site.quit().await.unwrap(), "so long, 'site-1'");
    let heard = federation.heard(Quit::CHANNEL, Quit::TOPIC).remove(0);
    assert_eq!(Quit::from_parts(&heard.headers, &heard.payload()).unwrap().project_name, "ward-7");
}

#[tokio::test(start_paused = true)]
async fn quitting_a_server_that_has_removed_the_site_is_no_failure() {
    let federation = Federation::of_parents().await;
    let reason = format!("Unknown client identity {TOKEN}");
    federation.answer(Quit::CHANNEL, Quit::TOPIC, move |_, _| refusal(ReturnCode::Unauthenticated, &reason));
    assert_eq!(federation.communicator(settings()).quit().await.unwrap(), "Unknown client identity …");
}

#[tokio::test(start_paused = true)]
async fn quitting_a_server_that_is_away_fails() {
    let federation = Federation::apart("server", "site-1");
    assert!(matches!(federation.communicator(settings()).quit().await, Err(SayError::Request(_))));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_report_arrives_or_says_why_not_without_secrets() {
    let federation = Federation::of_parents().await;
    let (channel, topic) = (OutcomeReport::CHANNEL, OutcomeReport::TOPIC);
    federation.answer(channel, topic, |before, _| match before {
        0 => refusal(ReturnCode::ProcessException, &format!("disk full, token={TOKEN}")),
        _ => nothing(),
    });
    let site = federation.communicator(settings());
    let report = OutcomeReport::new("job-1", 0, None);
    let error = site.report_outcome(&report).await.unwrap_err();
    assert!(error.to_string().contains("disk full, token=…"), "{error}");
    assert!(std::error::Error::source(&error).is_none(), "what prints sources would print the token");
    site.report_outcome(&report).await.unwrap();
    let heard = federation.heard(channel, topic).pop().unwrap();
    assert_eq!(OutcomeReport::from_parts(&heard.headers, &heard.payload()).unwrap().job_id, "job-1");
}

#[tokio::test(start_paused = true)]
async fn what_a_server_says_of_a_failed_heartbeat_is_logged_without_secrets() {
    let (log, _guard) = Log::start();
    let federation = Federation::of_parents().await;
    let reason = format!("unknown client\n{TOKEN} in a_file_with_a_long_name_of_2026_11_21.json");
    federation.answer(HEARTBEAT.0, HEARTBEAT.1, move |_, _| refusal(ReturnCode::Unauthenticated, &reason));
    let site = federation.communicator(settings());
    timeout(seconds(1), site.heartbeat_loop(&Jobs::default())).await.unwrap_err();
    let lines = log.lines_with("heartbeat failed");
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("a_file_with_a_long_name_of_2026_11_21.json"), "{}", lines[0]);
    assert!(lines[0].contains("unknown client") && log.lines_with(TOKEN).is_empty(), "{}", lines[0]);
}

#[tokio::test(start_paused = true)]
async fn compression_is_reported_once_as_without_effect() {
    let (log, _guard) = Log::start();
    let federation = Federation::of_parents().await;
    federation.answer(HEARTBEAT.0, HEARTBEAT.1, |_, _| unwanted(&[]));
    let mut settings = settings();
    settings.compression = Some("Gzip".into());
    let site = federation.communicator(settings);
    for _ in 0..3 {
        site.heartbeat(Vec::new()).await.unwrap();
    }
    let lines = log.lines_with("compression");
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("no effect") && lines[0].contains("Gzip"), "{}", lines[0]);
}
