//! A Python script that does its work once for each line of its standard input, and answers how long it took.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

/// The script, which runs; killed when dropped.
pub(crate) struct Peer {
    child: Child,
    stdin: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts a script of this package in an environment that has nvflare.
    pub(crate) fn start(script: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
        let mut child = Command::new(interop::python_with_nvflare()?)
            .arg(path)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {script}"))?;
        let stdin = child.stdin.take().context("standard input is piped")?;
        let answers = BufReader::new(child.stdout.take().context("standard output is piped")?);
        Ok(Self { child, stdin, answers })
    }

    /// Has it do its work once.
    pub(crate) fn turn(&mut self) -> anyhow::Result<Duration> {
        self.stdin.write_all(b"\n").context("the script is gone")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let seconds = line.trim().parse().with_context(|| format!("the script says {line:?}"))?;
        Ok(Duration::try_from_secs_f64(seconds)?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended by itself
        let _ = self.child.wait();
    }
}
