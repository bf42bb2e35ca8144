//! Programs that run while the cases go on, and end with us.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

use crate::python::Python;

/// How long a program that was told to end may take.
const LEAVE: Duration = Duration::from_secs(30);

/// A program that ends when its standard input does, which happens at the latest when we end.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    said: watch::Receiver<String>,
}

impl Process {
    /// Runs the program of a stock kit, as its owner would: by the start script in it.
    pub(crate) fn stock(python: &Python, kit: &Path, log: &Path) -> anyhow::Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(
            std::iter::once(python.bin().to_owned()).chain(std::env::split_paths(&path)),
        )?;
        let mut command = python.script("launch.py");
        command.arg("bash").arg(kit.join("startup/sub_start.sh")).arg("--once");
        command.current_dir(kit).env("PATH", path);
        Self::spawn(command, log)
    }

    /// Runs our own program.
    pub(crate) fn locule(arguments: &[&str], log: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(e2e::binary());
        command.args(arguments).arg("--stop-with-stdin");
        Self::spawn(command, log)
    }

    fn spawn(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().with_context(|| format!("start {:?}", command.as_std().get_program()))?;
        let log = File::options().create(true).append(true).open(log).context("open a log")?;
        let (say, said) = watch::channel(String::new());
        let both = (child.stdout.take(), child.stderr.take());
        let (Some(out), Some(err)) = both else { bail!("its output is piped") };
        tokio::spawn(follow(out, log.try_clone()?, say.clone()));
        tokio::spawn(follow(err, log, say));
        Ok(Self { stdin: child.stdin.take(), child, said })
    }

    /// Waits until it has said `text`.
    pub(crate) async fn wait_for(&mut self, text: &str, patience: Duration) -> anyhow::Result<()> {
        let said = self.said.wait_for(|said| said.contains(text));
        match tokio::time::timeout(patience, said).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => bail!("ended without saying {text:?}"),
            Err(_) => bail!("did not say {text:?} within {patience:?}"),
        }
    }

    /// Everything that it has said so far.
    pub(crate) fn said(&self) -> String {
        self.said.borrow().clone()
    }

    /// Waits for its own end.
    pub(crate) async fn ended(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let ended = tokio::time::timeout(patience, self.child.wait()).await;
        Ok(ended.with_context(|| format!("still runs after {patience:?}"))??)
    }

    /// Ends it.
    pub(crate) async fn end(&mut self) -> anyhow::Result<ExitStatus> {
        drop(self.stdin.take());
        self.ended(LEAVE).await
    }
}

/// Keeps what a program prints, line by line, as long as anybody may ask for it.
async fn follow(from: impl AsyncRead + Unpin, mut log: File, said: watch::Sender<String>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        let _ = log.write_all(&line); // a log that cannot be written shows in the case that needs it
        said.send_modify(|said| said.push_str(&String::from_utf8_lossy(&line)));
        line.clear();
    }
}
