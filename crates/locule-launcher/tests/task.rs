//! A job as a task: its outcomes, its abort, its panic.
#![expect(clippy::unwrap_used, reason = "a test's helpers may panic like the tests")]

use std::sync::Arc;
use std::time::Duration;

use locule_launcher::{
    FailureKind, JobFailure, JobHandle, JobOutcome, JobStart, LaunchError, Launcher, MAX_REASON, TaskLauncher,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const GRACE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_job_that_returns_is_completed_or_failed() {
    let launcher: Arc<dyn Launcher> = Arc::new(TaskLauncher::new(|start: JobStart, _| async move {
        match start.job_id.as_str() {
            "good" => Ok(()),
            _ => Err(JobFailure::new(FailureKind::Config, "no executor")),
        }
    }));
    assert_eq!(launcher.start(job("good")).unwrap().wait().await, JobOutcome::Completed);

    let bad = launcher.start(job("bad")).unwrap();
    let outcome = bad.wait().await;
    assert_eq!((outcome.code(), outcome.reason().as_deref()), (103, Some("no executor")));
    assert_eq!(bad.wait().await, outcome, "an outcome can be asked for again");
    assert_eq!(bad.outcome(), Some(outcome));
}

#[tokio::test]
async fn a_panic_ends_one_job_and_is_reported() {
    let launcher = TaskLauncher::new(|start: JobStart, _| {
        assert!(start.job_id != "early", "in the function");
        async move {
            assert!(start.job_id == "good", "in job {}", start.job_id);
            Ok(())
        }
    });
    let panicked = |message: &str| JobOutcome::Panicked { message: message.into() };
    assert_eq!(launcher.start(job("early")).unwrap().wait().await, panicked("in the function"));
    let late = launcher.start(job("late")).unwrap().wait().await;
    assert_eq!((late.code(), late.reason()), (101, Some("the job panicked: in job late".into())));
    assert_eq!(launcher.start(job("good")).unwrap().wait().await, JobOutcome::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_heeds_an_abort_is_aborted_whatever_it_returns() {
    let launcher =
        TaskLauncher::new(|start: JobStart, abort: tokio_util::sync::CancellationToken| async move {
            abort.cancelled().await;
            match start.job_id.as_str() {
                "ok" => Ok(()),
                _ => Err(JobFailure::new(FailureKind::Exception, "interrupted")),
            }
        });
    let began = Instant::now();
    for name in ["ok", "error"] {
        let outcome = launcher.start(job(name)).unwrap().abort(GRACE).await;
        assert_eq!((outcome.code(), outcome), (9, JobOutcome::Aborted));
    }
    assert_eq!(began.elapsed(), Duration::ZERO, "nobody waited for the grace");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_does_not_stop_is_killed_when_the_grace_is_over() {
    let began = Instant::now();
    let outcome = stubborn().abort(GRACE).await;
    assert_eq!((outcome.code(), outcome), (9, JobOutcome::Killed));
    assert_eq!(began.elapsed(), GRACE);
}

#[tokio::test(start_paused = true)]
async fn a_job_without_a_grace_is_not_asked() {
    let asked = Arc::new(Notify::new());
    let launcher = TaskLauncher::new({
        let asked = asked.clone();
        move |_, abort: CancellationToken| {
            let asked = asked.clone();
            async move {
                abort.cancelled().await;
                asked.notify_one();
                Ok(())
            }
        }
    });
    let outcome = launcher.start(job("suspended")).unwrap().abort(Duration::ZERO).await;
    assert_eq!(outcome, JobOutcome::Killed);
    assert!(tokio::time::timeout(GRACE, asked.notified()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_second_abort_can_only_shorten_the_grace() {
    let began = Instant::now();
    let job = stubborn();
    job.request_abort(Duration::MAX);
    job.request_abort(GRACE);
    job.request_abort(GRACE * 2);
    assert_eq!(job.wait().await, JobOutcome::Killed);
    assert_eq!(began.elapsed(), GRACE);
}

#[tokio::test]
async fn an_abort_after_the_end_changes_nothing() {
    let launcher = TaskLauncher::new(|_, _| async { Ok(()) });
    let job = launcher.start(job("done")).unwrap();
    job.wait().await;
    assert_eq!(job.abort(Duration::ZERO).await, JobOutcome::Completed);
}

#[tokio::test]
async fn a_job_goes_on_when_its_handles_are_dropped() {
    let done = Arc::new(Notify::new());
    let launcher = TaskLauncher::new({
        let done = done.clone();
        move |_, _| {
            let done = done.clone();
            async move {
                tokio::task::yield_now().await;
                done.notify_one();
                Ok(())
            }
        }
    });
    drop(launcher.start(job("orphan")).unwrap());
    done.notified().await;
}

#[tokio::test]
async fn a_launcher_that_vanishes_fails_the_job() {
    let (handle, report) = JobHandle::new("lost");
    assert_eq!(handle.outcome(), None);
    drop(report);
    assert_eq!(handle.wait().await.code(), 104);
    assert_eq!(handle.outcome(), Some(handle.wait().await));
}

#[test]
fn a_task_needs_a_runtime() {
    let launcher = TaskLauncher::new(|_, _| async { Ok(()) });
    assert!(matches!(launcher.start(job("x")), Err(LaunchError::NoRuntime)));
}

#[test]
fn a_reason_is_cut_at_a_character() {
    let failure = JobFailure::new(FailureKind::Exception, format!("x{}", "ü".repeat(MAX_REASON)));
    assert_eq!(failure.reason().len(), MAX_REASON - 1);
}

fn job(job_id: &str) -> JobStart {
    JobStart::new(job_id, format!("site-1.{job_id}"), job_id, "mem://site-1")
}

fn stubborn() -> JobHandle {
    let launcher = TaskLauncher::new(|_, _| std::future::pending());
    launcher.start(job("stubborn")).unwrap()
}
