//! Python processes that end with us.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

/// A Python with nvflare in it.
#[derive(Clone, Debug)]
pub(crate) struct Python {
    program: PathBuf,
}

impl Python {
    pub(crate) fn new(program: PathBuf) -> Self {
        Self { program }
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The folder of its programs.
    pub(crate) fn bin(&self) -> &Path {
        self.program.parent().unwrap_or(Path::new("."))
    }

    /// A script of ours; it ends with its standard input.
    pub(crate) fn script(&self, script: &str) -> Command {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
        let mut command = Command::new(&self.program);
        command.arg("-u").arg(path);
        command
    }
}

/// A Python script that is driven by JSON lines; killed when dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    commands: tokio::sync::Mutex<ChildStdin>,
    waiting: Arc<Waiting>,
    next: AtomicU64,
}

/// Who waits for which answer; none any more once the process has ended.
type Waiting = Mutex<Option<HashMap<u64, oneshot::Sender<Value>>>>;

impl Peer {
    /// Starts `script` with `environment`; what it prints goes to `log`.
    pub(crate) fn start(
        python: &Python,
        script: &str,
        environment: &[(&str, &str)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let log = File::options().create(true).append(true).open(log).context("open a log")?;
        let mut command = python.script(script);
        command.envs(environment.iter().copied()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().with_context(|| format!("start {script}"))?;
        let commands = child.stdin.take().context("standard input is piped")?;
        let answers = child.stdout.take().context("standard output is piped")?;
        let waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(take_answers(answers, Arc::clone(&waiting)));
        Ok(Self { child, commands: tokio::sync::Mutex::new(commands), waiting, next: AtomicU64::new(1) })
    }

    /// Has a command carried out; its result.
    pub(crate) async fn ask(&self, name: &str, mut command: Value) -> anyhow::Result<Value> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        command["id"] = number.into();
        command["do"] = name.into();
        let answer = self.wait_for(number)?;
        let line = format!("{command}\n");
        self.commands.lock().await.write_all(line.as_bytes()).await.map_err(|_| gone())?;
        let mut answer = answer.await.map_err(|_| gone())?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => bail!("the Python side, asked to {name}: {error}"),
            None => Ok(answer["ok"].take()),
        }
    }

    fn wait_for(&self, number: u64) -> anyhow::Result<oneshot::Receiver<Value>> {
        let (to, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.as_mut().ok_or_else(gone)?.insert(number, to);
        Ok(answer)
    }

    /// Kills it, as if the power had gone.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("kill a Python process")
    }
}

fn gone() -> anyhow::Error {
    anyhow!("the Python process is gone")
}

async fn take_answers(from: ChildStdout, waiting: Arc<Waiting>) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(answer) = serde_json::from_str::<Value>(&line) else { continue };
        let Some(number) = answer["id"].as_u64() else { continue };
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(to) = waiting.as_mut().and_then(|waiting| waiting.remove(&number)) {
            let _ = to.send(answer); // nobody waits any more
        }
    }
    *waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
}
