//! One child process: started confined, asked under a deadline, killed with all that it started.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::confine::Confinement;
use crate::wire::{Answer, MAX_ANSWER, MAX_REQUEST, Request, read_frame, write_frame};

/// How a child is started: a program that calls [`serve`](crate::serve()), and what stands before the arguments
/// that this crate adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckerCommand {
    /// The program: mostly the one that runs.
    pub program: PathBuf,
    /// Its first arguments.
    pub args: Vec<OsString>,
    /// Where `python3` is looked for, in the form of `PATH`.
    pub search_path: OsString,
}

/// Why a child gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("could not be started: {0}")]
    Start(#[source] std::io::Error),
    #[error("had no answer within {0:?}")]
    Deadline(Duration),
    #[error("{0}")]
    Died(String),
    #[error("answered with something that is no answer: {0}")]
    Malformed(String),
    #[error("the question has {0} bytes, more than {MAX_REQUEST}")]
    TooLong(usize),
}

/// A child that waits for the next question. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    questions: Sender<Vec<u8>>,
    answers: Receiver<std::io::Result<Option<Vec<u8>>>>,
}

impl Process {
    pub(crate) fn start(
        command: &CheckerCommand,
        confinement: &Confinement,
        id: &str,
        folder: &Path,
    ) -> Result<Self, AskError> {
        let mut child = Command::new(&command.program)
            .args(&command.args)
            .args(confinement.arguments())
            .env_clear()
            .current_dir(folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(AskError::Start)?;
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = streams else {
            return Err(AskError::Start(std::io::Error::other("no pipes")));
        };
        let (questions, asked) = channel();
        let (answered, answers) = sync_channel(1);
        let mut process = Self { child, questions, answers };
        let start = |name: &str, work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.to_owned()).spawn(work).map_err(AskError::Start)
        };
        let id = id.to_owned();
        let started = start("locule-checker-io", Box::new(move || talk(stdin, stdout, &asked, &answered)))
            .and_then(|_| start("locule-checker-log", Box::new(move || log(stderr, &id))));
        match started {
            Ok(_) => Ok(process),
            Err(error) => {
                process.kill();
                Err(error)
            }
        }
    }

    /// Asks, and waits for the answer. After any error the child is of no more use.
    pub(crate) fn ask(&mut self, question: &Request, deadline: Duration) -> Result<Answer, AskError> {
        let question =
            serde_json::to_vec(question).map_err(|error| AskError::Malformed(error.to_string()))?;
        if question.len() > MAX_REQUEST {
            return Err(AskError::TooLong(question.len()));
        }
        if self.questions.send(question).is_err() {
            return Err(AskError::Died(self.epitaph()));
        }
        match self.answers.recv_timeout(deadline) {
            Ok(Ok(Some(answer))) => {
                serde_json::from_slice(&answer).map_err(|error| AskError::Malformed(error.to_string()))
            }
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                Err(AskError::Malformed(error.to_string()))
            }
            Ok(Ok(None) | Err(_)) | Err(RecvTimeoutError::Disconnected) => {
                Err(AskError::Died(self.epitaph()))
            }
            Err(RecvTimeoutError::Timeout) => Err(AskError::Deadline(deadline)),
        }
    }

    /// Whether it is still there.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended. It closed its end of a pipe, so it has ended or is of no use.
    fn epitaph(&mut self) -> String {
        let ended = self.child.try_wait().ok().flatten();
        let own = ended.is_some();
        match ended.or_else(|| self.kill()) {
            Some(status) if own || status.signal() != Some(Signal::KILL.as_raw()) => manner(status),
            Some(_) | None => "ended before it answered".to_owned(),
        }
    }

    fn kill(&mut self) -> Option<ExitStatus> {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // The group outlives its leader as long as somebody whom that one started does.
        if let Some(group) = group {
            kill_process_group(group, Signal::KILL).ok();
        }
        self.child.kill().ok();
        self.child.wait().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn manner(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) if signal == Signal::XCPU.as_raw() => "used up its processor time".to_owned(),
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(code)) => format!("ended with code {code} before it answered"),
        (None, None) => "ended before it answered".to_owned(),
    }
}

/// Passes questions on and answers back until either side is gone.
fn talk(
    mut stdin: ChildStdin,
    mut stdout: ChildStdout,
    asked: &Receiver<Vec<u8>>,
    answered: &SyncSender<std::io::Result<Option<Vec<u8>>>>,
) {
    while let Ok(question) = asked.recv() {
        let answer = write_frame(&mut stdin, &question).and_then(|()| read_frame(&mut stdout, MAX_ANSWER));
        let is_last = !matches!(answer, Ok(Some(_)));
        if answered.send(answer).is_err() || is_last {
            return;
        }
    }
}

/// Longest line that goes to the log, in bytes.
const MAX_LINE: u64 = 1000;
/// How much of what a child says goes to the log, in bytes; the rest is read and forgotten.
const MAX_LOGGED: usize = 64 << 10;

/// Copies what a child writes on its standard error to the log, so much of it.
fn log(stderr: impl Read, id: &str) {
    let mut stderr = BufReader::new(stderr);
    let mut left = MAX_LOGGED;
    let mut line = Vec::new();
    loop {
        line.clear();
        match stderr.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(read) if left > 0 => {
                left = left.saturating_sub(read);
                let text = String::from_utf8_lossy(&line);
                tracing::info!(checker = id, line = %text.trim_end().escape_debug(), "checker says");
                if left == 0 {
                    tracing::warn!(checker = id, bytes = MAX_LOGGED, "checker says more than is kept");
                }
            }
            Ok(_) => {}
        }
    }
}
