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
use tokio_util::sync::CancellationToken;

use crate::federation::Happening;

/// How long a process may take to end after its standard input closed. Who waits for a peer that was killed
/// would take longer, in vain; whatever must last is on disk before.
const GRACE: Duration = Duration::from_secs(4);

/// Processes of this binary that end when their standard input closes, hence with this process.
#[derive(Debug)]
pub(super) struct Children {
    running: JoinSet<()>,
    stop: CancellationToken,
    happenings: mpsc::Sender<Happening>,
    logs: PathBuf,
    verbose: u8,
}

impl Children {
    /// None yet; what they do is told to `happenings`, what they log goes to files in `logs`.
    pub(super) fn new(happenings: mpsc::Sender<Happening>, logs: &Path, verbose: u8) -> Self {
        let stop = CancellationToken::new();
        Self { running: JoinSet::new(), stop, happenings, logs: logs.to_owned(), verbose }
    }

    /// Starts `locule` under this name with a subcommand, a kit and more arguments.
    pub(super) fn start(
        &mut self,
        name: &str,
        command: &str,
        kit: &Path,
        more: &[&str],
    ) -> anyhow::Result<()> {
        let log = self.logs.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let binary = std::env::current_exe().context("cannot find this binary")?;
        let mut child = Command::new(binary);
        child.arg(command).arg(kit).args(more).arg("--stop-with-stdin");
        child.args(std::iter::repeat_n("-v", self.verbose.into()));
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).kill_on_drop(true);
        // A Ctrl-C in the terminal is for the demo, which then ends its children in order.
        #[cfg(unix)]
        child.process_group(0);
        let child = child.spawn().with_context(|| format!("cannot start {name}"))?;
        self.running.spawn(watch_over(
            name.to_owned(),
            child,
            log,
            self.happenings.clone(),
            self.stop.clone(),
        ));
        Ok(())
    }

    /// Ends them all: by closing their standard input, and if that does not help, by killing them.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        while self.running.join_next().await.is_some() {}
    }
}

/// Tells what a child prints and how it ends; ends it when told to.
async fn watch_over(
    name: String,
    mut child: Child,
    log: PathBuf,
    happenings: mpsc::Sender<Happening>,
    stop: CancellationToken,
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
            () = stop.cancelled(), if stdin.is_some() => {
                drop(stdin.take());
                if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                    tracing::info!(name, "process does not end; killing it");
                    child.kill().await.ok();
                }
            }
        }
    };
    while let (true, Ok(Some(line))) = (open, lines.next_line().await) {
        tell(&happenings, &line).await;
    }
    let how = describe(&name, status, &log);
    happenings.send(Happening::Ended { how }).await.ok();
}

async fn tell(happenings: &mpsc::Sender<Happening>, line: &str) {
    if let Ok(event) = serde_json::from_str::<ServerEvent>(line) {
        happenings.send(Happening::Server(Box::new(event))).await.ok();
    }
}

/// How a process ended, with the last thing that it said.
fn describe(name: &str, status: Option<ExitStatus>, log: &Path) -> String {
    let status = status.map_or_else(|| "ended".to_owned(), |status| format!("ended with {status}"));
    let said = std::fs::read_to_string(log).unwrap_or_default();
    match said.lines().rev().find_map(|line| line.strip_prefix("locule: ")) {
        Some(reason) => format!("{name} {status}: {reason}"),
        None => format!("{name} {status}; see {}", log.display()),
    }
}
