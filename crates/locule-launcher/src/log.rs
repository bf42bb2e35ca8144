//! What a job's process prints, in a file of its run folder.

use std::collections::VecDeque;
use std::path::PathBuf;

use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::ChildStderr;

use crate::JobStart;

/// Longest line, in bytes; a longer one is cut into several.
const MAX_LINE: u64 = 8 << 10;
/// What a log holds, in bytes; the rest is read and forgotten.
const MAX_LOG: u64 = 16 << 20;
/// Lines that are kept for whoever asks why the process ended.
const KEPT: usize = 20;

/// The last lines that a process printed, the newest at the end, without those of a backtrace in Rust: they would
/// hide what it is about.
#[derive(Debug, Default)]
pub(crate) struct LastLines(pub(crate) VecDeque<String>);

impl LastLines {
    fn push(&mut self, line: String) {
        if line.is_empty() || is_of_backtrace(&line) {
            return;
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }
}

fn is_of_backtrace(line: &str) -> bool {
    let rest = line.trim_start();
    let numbered = || rest.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(": ");
    line == "stack backtrace:"
        || line.starts_with("note: Some details are omitted")
        || line.starts_with("note: run with `RUST_BACKTRACE")
        || (rest.len() < line.len() && (rest.starts_with("at ") || numbered()))
}

/// Where the output of a job goes.
#[derive(Debug)]
pub(crate) struct JobLog {
    job_id: String,
    path: PathBuf,
}

impl JobLog {
    pub(crate) fn new(job: &JobStart) -> Self {
        Self { job_id: job.job_id.clone(), path: job.run_dir.join("log.txt") }
    }

    /// Appends what comes, until it ends.
    pub(crate) async fn keep(self, from: ChildStderr) -> LastLines {
        let mut file = self.open().await;
        let mut left = match &file {
            Some(file) => MAX_LOG.saturating_sub(file.metadata().await.map_or(0, |meta| meta.len())),
            None => 0,
        };
        let (mut from, mut lines, mut line) = (BufReader::new(from), LastLines::default(), Vec::new());
        while let Ok(1..) = (&mut from).take(MAX_LINE).read_until(b'\n', &mut line).await {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end().escape_debug().to_string();
            tracing::debug!(job = self.job_id, line = text, "job says");
            lines.push(text);
            if let Some(file) = file.as_mut().filter(|_| left > 0) {
                left = left.saturating_sub(line.len() as u64);
                file.write_all(&line).await.ok();
                if left == 0 {
                    file.write_all(b"(the log is full)\n").await.ok();
                    tracing::warn!(job = self.job_id, bytes = MAX_LOG, "job prints more than is kept");
                }
            }
            line.clear();
        }
        if let Some(mut file) = file {
            file.flush().await.ok();
        }
        lines
    }

    async fn open(&self) -> Option<File> {
        let file = OpenOptions::new().create(true).append(true).open(&self.path).await;
        let file = file.inspect_err(|error| {
            tracing::warn!(job = self.job_id, file = %self.path.display(), %error, "job has no log");
        });
        file.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_said_is_found_before_its_backtrace() {
        let mut lines = LastLines::default();
        let said = "memory allocation of 96 bytes failed\nstack backtrace:\n   0: alloc::handle\n             at \
                    /rustc/lib.rs:7:5\n  12: main\nnote: Some details are omitted, run with `RUST_BACKTRACE=full` for a \
                    verbose backtrace.";
        said.lines().for_each(|line| lines.push(line.to_owned()));
        assert_eq!(lines.0, ["memory allocation of 96 bytes failed"]);
        for line in 0..30 {
            lines.push(format!("line {line}: at noon"));
        }
        assert_eq!((lines.0.len(), lines.0[0].as_str()), (KEPT, "line 10: at noon"));
    }
}
