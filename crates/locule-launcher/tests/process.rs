//! A job as a process: its outcomes, its limits, its end, and that nothing of it stays.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic like the tests")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use locule_launcher::{
    Brief, FailureKind, JobCommand, JobHandle, JobOutcome, JobStart, Launcher as _, Limits, ProcessLauncher,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

const GRACE: Duration = Duration::from_secs(60);

/// Examples are built beside the tests.
fn program() -> PathBuf {
    let mut program = std::env::current_exe().unwrap();
    program.pop();
    program.pop();
    program.join("examples/scripted_job")
}

struct Scene {
    dir: TempDir,
    launcher: ProcessLauncher,
    briefs: watch::Sender<Brief>,
}

impl Scene {
    fn new(limits: Limits) -> Scene {
        let (briefs, brief) = watch::channel(Brief::new("first-secret"));
        let command = JobCommand { program: program(), args: vec!["an-argument".into()] };
        let launcher = ProcessLauncher::new(command, brief)
            .limits(limits)
            .environment(|| vec![("PATH".into(), "/usr/bin:/bin".into())]);
        Scene { dir: tempfile::tempdir().unwrap(), launcher, briefs }
    }

    fn start(&self, script: &str) -> JobHandle {
        let start = JobStart::new(script, format!("site-1.{script}"), self.dir.path(), "uds://parent/x");
        let own = [("GPU".to_owned(), "1".to_owned())].into();
        self.launcher.start(start.environment(own)).unwrap()
    }

    async fn outcome(&self, script: &str) -> JobOutcome {
        self.start(script).wait().await
    }

    /// Where a job says that it is here.
    fn door(&self) -> UnixListener {
        door(self.dir.path())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log.txt")).unwrap()
    }
}

fn door(folder: &Path) -> UnixListener {
    UnixListener::bind(folder.join("here")).unwrap()
}

/// The job that comes through the door, and its process.
async fn arrival(door: UnixListener) -> (Pid, BufReader<UnixStream>) {
    spawn_blocking(move || {
        let mut here = BufReader::new(door.accept().unwrap().0);
        let mut line = String::new();
        here.read_line(&mut line).unwrap();
        (Pid::from_raw(line.trim().parse().unwrap()).unwrap(), here)
    })
    .await
    .unwrap()
}

/// What it still says until it and all who hold its end are gone.
async fn rest(mut here: BufReader<UnixStream>) -> String {
    spawn_blocking(move || {
        let mut rest = String::new();
        here.read_to_string(&mut rest).unwrap();
        rest
    })
    .await
    .unwrap()
}

fn limits(of: &str, most: u64) -> Limits {
    serde_json::from_value(serde_json::json!({ of: most })).unwrap()
}

fn reason(outcome: &JobOutcome) -> String {
    outcome.reason().unwrap_or_default()
}

#[tokio::test]
async fn a_job_has_the_last_word_on_how_it_ended() {
    let scene = Scene::new(Limits::default());
    assert_eq!(scene.outcome("good").await, JobOutcome::Completed);
    assert!(scene.log().contains("on standard output"), "{}", scene.log());
    let bad = scene.outcome("bad").await;
    assert_eq!((bad.code(), reason(&bad).as_str()), (103, "no executor"));
    assert_eq!(scene.outcome("panic").await, JobOutcome::Panicked { message: "at the job".into() });
}

#[tokio::test]
async fn a_process_that_dies_is_told_apart_with_code_or_signal() {
    let scene = Scene::new(Limits::default());
    let JobOutcome::Died(failure) = scene.outcome("exit").await else { panic!("it did not die") };
    assert_eq!(failure.reason(), "its process ended with exit code 3: no GPU here");
    assert_eq!(failure.kind(), FailureKind::Infrastructure);

    let door = scene.door();
    let job = scene.start("family");
    let (pid, here) = arrival(door).await;
    kill_process(pid, Signal::KILL).unwrap();
    let JobOutcome::Died(failure) = job.wait().await else { panic!("it did not die") };
    assert_eq!(failure.reason(), "its process was killed by signal 9 (out of memory?)");
    rest(here).await; // whom it had started is gone as well
}

#[tokio::test]
async fn a_job_that_heeds_an_abort_is_aborted() {
    let scene = Scene::new(Limits::default());
    assert_eq!(scene.start("patient").abort(GRACE).await, JobOutcome::Aborted);
}

#[tokio::test]
async fn a_deaf_job_is_killed_with_all_that_it_started() {
    let scene = Scene::new(Limits::default());
    let door = scene.door();
    let job = scene.start("deaf");
    let (_, here) = arrival(door).await;
    assert_eq!(job.abort(Duration::from_millis(200)).await, JobOutcome::Killed);
    rest(here).await;
}

#[tokio::test]
async fn who_takes_more_than_it_may_fails_with_the_limit_and_touches_no_other() {
    let scene = Scene::new(limits("memory_mib", 200));
    let other = scene.start("patient");
    let greedy = scene.outcome("greedy").await;
    assert!(matches!(greedy, JobOutcome::Failed(_)), "{greedy:?}");
    assert_eq!(reason(&greedy), "it used up the 200 MiB of memory that it may");
    assert_eq!(other.outcome(), None);
    assert_eq!(other.abort(GRACE).await, JobOutcome::Aborted);

    let busy = Scene::new(limits("cpu_seconds", 1)).outcome("busy").await;
    assert_eq!(reason(&busy), "it used up the 1 s of processor time that it may");
    let slow = Scene::new(limits("wall_seconds", 1)).outcome("patient").await;
    assert_eq!(reason(&slow), "it ran longer than the 1 s that it may");

    let scene = Scene::new(limits("disk_mib", 3));
    std::fs::write(scene.dir.path().join("model"), vec![7; 5 << 20]).unwrap();
    let large = scene.outcome("patient").await;
    assert_eq!(reason(&large), "its folder takes up 5 MiB on disk, and it may take up 3");
}

#[tokio::test]
async fn what_is_told_in_confidence_stands_nowhere_and_may_change() {
    let scene = Scene::new(limits("open_files", 32));
    let door = scene.door();
    let job = scene.start("open");
    let shown = rest(arrival(door).await.1).await;
    assert_eq!(job.wait().await, JobOutcome::Completed);
    assert!(!shown.contains("secret"), "{shown}");
    assert!(shown.contains("environ GPU=1 MALLOC_MMAP_THRESHOLD_=262144 PATH=/usr/bin:/bin \n"), "{shown}");
    assert!(shown.contains("scripted_job an-argument \n"), "{shown}");
    assert!(shown.contains("fd 0 /dev/null") && shown.contains("stdin \"\""), "{shown}");
    let of = |fd: &str| shown.lines().find_map(|line| line.strip_prefix(fd)).map(str::to_owned);
    assert_eq!(of("fd 1 "), of("fd 2 "));

    std::fs::remove_file(scene.dir.path().join("here")).unwrap();
    let door = scene.door();
    let job = scene.start("briefed");
    let (_, here) = arrival(door).await;
    scene.briefs.send_replace(Brief::new("second"));
    assert_eq!(rest(here).await, "heard\n");
    assert_eq!(job.wait().await, JobOutcome::Completed);
    assert_eq!(format!("{:?}", Brief::new("third-secret")), "Brief(…)");
}

#[tokio::test]
async fn when_the_launchers_process_is_killed_nothing_of_its_jobs_stays() {
    let dir = tempfile::tempdir().unwrap();
    let door = door(dir.path());
    let mut launcher =
        Command::new(program()).arg("--launch").arg(dir.path()).stdin(Stdio::null()).spawn().unwrap();
    let (_, here) = arrival(door).await;
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    rest(here).await;
}

#[test]
fn who_was_not_launched_is_no_job() {
    let output = Command::new(program()).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("NotLaunched"), "{output:?}");
}
