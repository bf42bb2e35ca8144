//! Programs that run while the cases go on, and end with us.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

use crate::python::Python;

/// How long a program that was told to end may take.
const LEAVE: Duration = Duration::from_secs(30);

/// What is run, and how it is kept from outliving us.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program<'p> {
    /// The program of a stock kit, as its owner would run it: by the start script in it.
    Stock(&'p Python),
    /// Whatever a kit's `start.sh` starts, until the kit's `stop_fl.sh`.
    Script(&'p Python),
    /// Our own, by this word of its command line.
    Locule(&'static str),
}

/// A program that runs from a kit, and ends when its standard input does: at the latest when we end.
#[derive(Debug)]
pub(crate) struct Process {
    /// To start it again.
    command: Command,
    kit: PathBuf,
    log: PathBuf,
    child: Child,
    stdin: Option<ChildStdin>,
    said: watch::Receiver<String>,
}

impl Process {
    /// Runs what is in the folder `kit`; what it prints goes to the end of `log`.
    pub(crate) fn start(program: Program<'_>, kit: &Path, log: &Path) -> anyhow::Result<Self> {
        let mut command = match program {
            Program::Stock(python) | Program::Script(python) => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let path = std::iter::once(python.bin().to_owned()).chain(std::env::split_paths(&path));
                let mut command = python.script("launch.py");
                command.env("PATH", std::env::join_paths(path)?).env("LOCULE", e2e::binary_with_wasm());
                command
            }
            Program::Locule(_) => Command::new(e2e::binary_with_wasm()),
        };
        match program {
            Program::Stock(_) => command.arg("bash").arg(kit.join("startup/sub_start.sh")).arg("--once"),
            Program::Script(_) => command.args(["--stay", "bash"]).arg(kit.join("startup/start.sh")),
            Program::Locule(verb) => command.arg(verb).arg(kit).args(["-v", "--stop-with-stdin"]),
        };
        command.current_dir(kit).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (child, stdin, said) = spawn(&mut command, log)?;
        Ok(Self { command, kit: kit.to_owned(), log: log.to_owned(), child, stdin, said })
    }

    /// Kills it, as if the power had gone, and starts it again at once.
    pub(crate) async fn kill_and_start_again(&mut self) -> anyhow::Result<()> {
        if self.command.as_std().get_program() == e2e::binary_with_wasm() {
            self.child.kill().await.context("kill a program")?;
        } else {
            self.end().await?; // what was launched is killed then
        }
        (self.child, self.stdin, self.said) = spawn(&mut self.command, &self.log)?;
        Ok(())
    }

    /// Has the kit's `stop_fl.sh` end it.
    pub(crate) async fn stop(&mut self, patience: Duration) -> anyhow::Result<()> {
        let script = Command::new("bash").arg(self.kit.join("startup/stop_fl.sh")).output().await?;
        ensure!(script.status.success(), "stop_fl.sh: {}", String::from_utf8_lossy(&script.stdout));
        self.ended(patience).await.map(drop)
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

type Spawned = (Child, Option<ChildStdin>, watch::Receiver<String>);

fn spawn(command: &mut Command, log: &Path) -> anyhow::Result<Spawned> {
    let mut child = command.spawn().with_context(|| format!("start {:?}", command.as_std().get_program()))?;
    let log = File::options().create(true).append(true).open(log).context("open a log")?;
    let (say, said) = watch::channel(String::new());
    let both = (child.stdout.take(), child.stderr.take());
    let (Some(out), Some(err)) = both else { bail!("its output is piped") };
    tokio::spawn(follow(out, log.try_clone()?, say.clone()));
    tokio::spawn(follow(err, log, say));
    let stdin = child.stdin.take();
    Ok((child, stdin, said))
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
