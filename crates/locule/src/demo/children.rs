//! The demo's server and sites as processes of their own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use locule_server::ServerEvent;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Happening;

/// How long a process may take to end after its standard input closed.
const GRACE: Duration = Duration::from_secs(10);

/// Processes of this binary that end when their standard input closes, hence with this process.
#[derive(Debug)]
pub(super) struct Children {
    running: JoinSet<()>,
    stop: tokio::sync::watch::Sender<bool>,
    happenings: mpsc::Sender<Happening>,
    logs: PathBuf,
}

impl Children {
    /// None yet; what they do is told to `happenings`, what they log goes to files in `logs`.
    pub(super) fn new(happenings: mpsc::Sender<Happening>, logs: &Path) -> Self {
        let (stop, _) = tokio::sync::watch::channel(false);
        Self { running: JoinSet::new(), stop, happenings, logs: logs.to_owned() }
    }

    /// Starts `locule` with these arguments under this name.
    pub(super) fn start(&mut self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let log = self.logs.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let binary = std::env::current_exe().context("find this binary")?;
        let child = Command::new(binary)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        self.running.spawn(watch(name.to_owned(), child, log, self.happenings.clone(), self.stop.subscribe()));
        Ok(())
    }

    /// Ends them all: by closing their standard input, and if that does not help, by killing them.
    pub(super) async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.running.join_next().await.is_some() {}
    }
}

/// Tells what a child prints and how it ends; ends it when told to.
async fn watch(
    name: String,
    mut child: Child,
    log: PathBuf,
    happenings: mpsc::Sender<Happening>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) {
    let mut stdin = child.stdin.take();
    let stdout = child.stdout.take().expect("standard output is piped");
    let mut lines = BufReader::new(stdout).lines();
    let mut open = true;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.ok(),
            line = lines.next_line(), if open => match line {
                Ok(Some(line)) => tell(&happenings, &line).await,
                Ok(None) | Err(_) => open = false,
            },
            _ = stop.wait_for(|stop| *stop), if stdin.is_some() => {
                drop(stdin.take());
                if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                    child.kill().await.ok();
                }
            }
        }
    };
    while let (true, Ok(Some(line))) = (open, lines.next_line().await) {
        tell(&happenings, &line).await;
    }
    let how = describe(&name, status, &log);
    happenings.send(Happening::Ended { name, how }).await.ok();
}

async fn tell(happenings: &mpsc::Sender<Happening>, line: &str) {
    if let Ok(event) = serde_json::from_str::<ServerEvent>(line) {
        happenings.send(Happening::Server(event)).await.ok();
    }
}

/// How a process ended, with the last thing that it said.
fn describe(name: &str, status: Option<ExitStatus>, log: &Path) -> String {
    let status = status.map_or_else(|| "ended".to_owned(), |status| format!("ended with {status}"));
    let said = std::fs::read_to_string(log).unwrap_or_default();
    match said.lines().rev().find(|line| line.starts_with("locule: ")) {
        Some(line) => format!("{name} {status}: {}", &line["locule: ".len()..]),
        None => format!("{name} {status}; see {}", log.display()),
    }
}
