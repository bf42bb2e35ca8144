//! One script's process as its site sees it: started, heard, ended.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use crate::serve::{ASK_TO_END, NOT_STARTED};

/// A script that runs. Dropped, it is killed with all that it started in its process group.
#[derive(Debug)]
pub(crate) struct Child {
    /// The keeper reads it, and kills the script when it is closed.
    lifeline: Option<ChildStdin>,
    ended: watch::Receiver<Option<ExitStatus>>,
    tail: Arc<Mutex<Tail>>,
}

impl Child {
    /// Starts the keeper of a script; what both say goes to the end of `log`, at most `max_log` bytes in all.
    pub(crate) fn start(mut command: Command, log: &Path, max_log: u64) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let written = file.metadata()?.len();
        let mut child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(lifeline), Some(stdout), Some(stderr)) = streams else {
            return Err(io::Error::other("no pipes"));
        };
        let tail = Arc::new(Mutex::new(Tail::default()));
        let log = Arc::new(Mutex::new(Log { file, left: max_log.saturating_sub(written), full: false }));
        let (say, ended) = watch::channel(None);
        let of_stderr = {
            let (log, tail) = (Arc::clone(&log), Arc::clone(&tail));
            spawn(move || follow(stderr, &log, Some(&tail)))?
        };
        let of_stdout = spawn(move || follow(stdout, &log, None))?;
        spawn(move || {
            let status = child.wait();
            // The last lines come before the news, unless somebody else holds the pipes open.
            let both = [of_stderr, of_stdout];
            let pause = Duration::from_millis(10);
            for _ in 0..LAST_WORDS {
                if both.iter().all(thread::JoinHandle::is_finished) {
                    break;
                }
                thread::park_timeout(pause);
            }
            say.send_replace(Some(status.unwrap_or_else(|_| ExitStatus::from_raw(0xff00))));
        })?;
        Ok(Self { lifeline: Some(lifeline), ended, tail })
    }

    /// Whether it has ended, and how.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        *self.ended.borrow()
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self) -> ExitStatus {
        let mut ended = self.ended.clone();
        let status = ended.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        status.unwrap_or_else(|| ExitStatus::from_raw(0xff00))
    }

    /// Asks it to end (`SIGTERM` to its process group) and kills it when `grace` is over.
    pub(crate) async fn stop(&mut self, grace: Duration) {
        if let Some(lifeline) = &mut self.lifeline {
            lifeline.write_all(&[ASK_TO_END]).ok(); // one byte into an empty pipe; an ended keeper needs none
        }
        if tokio::time::timeout(grace, self.ended()).await.is_err() {
            self.lifeline = None;
            if tokio::time::timeout(KILLED, self.ended()).await.is_err() {
                tracing::error!("a script's process group did not end when it was killed");
            }
        }
        self.lifeline = None;
    }

    /// How it ended, in words, with the last thing it said.
    pub(crate) fn epitaph(&self) -> String {
        let manner = match self.status() {
            None => "does not answer".to_owned(),
            Some(status) => match status.code() {
                Some(code) if code == i32::from(NOT_STARTED) => "was not started".to_owned(),
                Some(code @ 129..=192) => format!("was ended by signal {}", code - 128),
                Some(code) => format!("ended with code {code}"),
                None => "was killed".to_owned(),
            },
        };
        let said = self.last_words();
        if said.is_empty() { manner } else { format!("{manner}: {said}") }
    }

    /// The last lines of its standard error, the last one first.
    pub(crate) fn last_words(&self) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = tail.0.iter().rev();
        let last = lines.next().cloned().unwrap_or_default();
        let before: Vec<&str> = lines.take(SHOWN).map(String::as_str).collect();
        if before.is_empty() {
            return last;
        }
        let before: Vec<&str> = before.into_iter().rev().collect();
        format!("{last} (before it: {})", before.join(" | "))
    }
}

/// Hundredths of a second in which the last lines may arrive after the end.
const LAST_WORDS: u32 = 200;
/// How long a killed group may take to be gone.
const KILLED: Duration = Duration::from_secs(10);
/// Longest line that is kept in one piece, in bytes.
const MAX_LINE: u64 = 4096;
/// Lines of standard error that are remembered, and how long each may be, in characters.
const REMEMBERED: usize = 20;
const MAX_REMEMBERED: usize = 400;
/// How many of them are told beside the last.
const SHOWN: usize = 6;

#[derive(Debug, Default)]
struct Tail(VecDeque<String>);

impl Tail {
    fn push(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if text.trim().is_empty() {
            return;
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(printable(text.chars().take(MAX_REMEMBERED)));
    }
}

/// A script's text without what a terminal would obey.
pub(crate) fn printable(text: impl Iterator<Item = char>) -> String {
    let mut shown = String::new();
    for char in text {
        if char.is_control() { shown.extend(char.escape_debug()) } else { shown.push(char) }
    }
    shown
}

#[derive(Debug)]
struct Log {
    file: File,
    left: u64,
    full: bool,
}

impl Log {
    fn write(&mut self, line: &[u8]) {
        let fits = u64::try_from(line.len()).is_ok_and(|len| len <= self.left);
        if self.full {
            return;
        }
        if fits {
            self.left -= line.len() as u64;
            self.file.write_all(line).ok(); // a full disk is no reason to end the script
        } else {
            self.full = true;
            tracing::warn!("a script prints more than is kept");
            self.file.write_all(b"\n(the script prints more than is kept here)\n").ok();
        }
    }
}

fn follow(from: impl Read, log: &Mutex<Log>, tail: Option<&Mutex<Tail>>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                log.lock().unwrap_or_else(PoisonError::into_inner).write(&line);
                if let Some(tail) = tail {
                    tail.lock().unwrap_or_else(PoisonError::into_inner).push(&line);
                }
            }
        }
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("locule-script".to_owned()).spawn(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn what_a_script_prints_is_kept_up_to_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log.txt");
        let child =
            Child::start(shell("head -c 100000000 /dev/zero; echo why >&2; exit 3"), &log, 10_000).unwrap();
        child.ended().await;
        assert_eq!(child.epitaph(), "ended with code 3: why");
        let kept = std::fs::metadata(&log).unwrap().len();
        assert!((4096..10_100).contains(&kept), "{kept}");
    }

    #[tokio::test]
    async fn the_last_lines_of_standard_error_are_told_the_very_last_first() {
        let folder = tempfile::tempdir().unwrap();
        let script =
            "echo out; for n in 1 2 3; do echo line $n >&2; done; printf 'Bad\\033[2J\\n' >&2; exit 1";
        let child = Child::start(shell(script), &folder.path().join("log.txt"), 1000).unwrap();
        child.ended().await;
        let told = "ended with code 1: Bad\\u{1b}[2J (before it: line 1 | line 2 | line 3)";
        assert_eq!(child.epitaph(), told);
    }
}
