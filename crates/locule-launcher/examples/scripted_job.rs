//! A program whose jobs do what their name says: what the tests of processes run.
//!
//! With `--launch FOLDER` it is the launcher of one of them instead.

#![expect(clippy::unwrap_used, reason = "a test's program fails by panicking")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a job may print")]
#![expect(clippy::zombie_processes, reason = "a job may leave others behind")]

use std::error::Error;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use locule_launcher::{
    Brief, FailureKind, JobCommand, JobFailure, JobProcess, JobStart, Launcher as _, ProcessLauncher,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, folder] = &arguments[..]
        && flag == "--launch"
    {
        return launch(folder);
    }
    let job = JobProcess::begin()?;
    let brief = job.brief.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(job.run(|start, abort| act(start, brief, abort)))?;
    Ok(())
}

/// Starts a job that never ends, and never ends itself.
fn launch(folder: &str) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let command = JobCommand { program: std::env::current_exe()?, args: Vec::new() };
        let (_briefs, brief) = watch::channel(Brief::default());
        let launcher = ProcessLauncher::new(command, brief)
            .environment(|| vec![("PATH".into(), "/usr/bin:/bin".into())]);
        let job = launcher.start(JobStart::new("family", "site-1.family", folder, ""))?;
        job.wait().await;
        Ok(())
    })
}

async fn act(
    start: JobStart,
    mut brief: watch::Receiver<Brief>,
    abort: CancellationToken,
) -> Result<(), JobFailure> {
    match start.job_id.as_str() {
        "good" => println!("on standard output"),
        "bad" => return Err(JobFailure::new(FailureKind::Config, "no executor")),
        "panic" => panic!("at the job"),
        "exit" => {
            eprintln!("no GPU here");
            std::process::exit(3);
        }
        "greedy" => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(vec![1; 16 << 20]);
            }
        }
        "busy" => loop {
            std::hint::black_box(0);
        },
        "patient" => abort.cancelled().await,
        "deaf" => {
            let _deaf = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
            let _family = family(&start);
            std::future::pending().await
        }
        "family" => {
            let _family = family(&start);
            std::future::pending().await
        }
        "briefed" => {
            let mut here = here(&start);
            brief.wait_for(|brief| brief.expose() == "second").await.unwrap();
            writeln!(here, "heard").unwrap();
        }
        "open" => {
            let mut here = here(&start);
            for file in ["environ", "cmdline"] {
                let text = std::fs::read(format!("/proc/self/{file}")).unwrap();
                writeln!(here, "{file} {}", String::from_utf8(text).unwrap().replace('\0', " ")).unwrap();
            }
            for fd in std::fs::read_dir("/proc/self/fd").unwrap() {
                let fd = fd.unwrap();
                let target = std::fs::read_link(fd.path()).unwrap_or_default();
                writeln!(here, "fd {} {}", fd.file_name().display(), target.display()).unwrap();
            }
            let mut input = String::new();
            std::io::stdin().read_line(&mut input).unwrap();
            writeln!(here, "stdin {input:?}").unwrap();
        }
        other => panic!("no script {other}"),
    }
    Ok(())
}

/// Tells the test that it is here; the other end of this ends with this process.
fn here(start: &JobStart) -> UnixStream {
    let mut here = UnixStream::connect(start.run_dir.join("here")).unwrap();
    writeln!(here, "{}", std::process::id()).unwrap();
    here
}

/// [`here`], and somebody else who keeps it open.
fn family(start: &JobStart) -> UnixStream {
    let here = here(start);
    let held = OwnedFd::from(here.try_clone().unwrap());
    Command::new("sleep").arg("1000").stdout(Stdio::from(held)).spawn().unwrap();
    here
}
