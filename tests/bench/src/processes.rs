//! What all processes of a run take together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// The variable in whose environment the first processes of a run have its name.
pub(crate) const MARK: &str = "LOCULE_BENCH_RUN";

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(100);

/// Watches all processes that are marked or stem from one that is, until it is asked.
pub(crate) struct Watcher {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<u64>,
}

impl Watcher {
    /// Watches those of the run of this name.
    pub(crate) fn of(run: String) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut peak = 0;
            while stopped.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
                peak = peak.max(family(&run).into_iter().map(memory).sum());
            }
            peak
        });
        Self { stop, thread }
    }

    /// The most memory that they had at one time, in bytes: anonymous and shared, no page cache.
    pub(crate) fn peak(self) -> u64 {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

/// The processes of a run.
pub(crate) fn family(run: &str) -> BTreeSet<u32> {
    let mark = format!("{MARK}={run}\0");
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut open = Vec::new();
    for id in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(id) = id.file_name().to_string_lossy().parse::<u32>() else { continue };
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        parent.into_iter().for_each(|parent| children.entry(parent).or_default().push(id));
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        if environment.windows(mark.len()).any(|window| window == mark.as_bytes()) {
            open.push(id);
        }
    }
    let mut family = BTreeSet::new();
    while let Some(id) = open.pop() {
        if family.insert(id) {
            open.extend(children.get(&id).into_iter().flatten());
        }
    }
    family
}

fn memory(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    1024 * (kib("RssAnon:").unwrap_or_default() + kib("RssShmem:").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_marked_process_and_what_it_starts_are_found() {
        let mut shell = Command::new("sh")
            .args(["-c", "env -i sleep 60 & cat"])
            .env(MARK, "a test")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("a shell starts");
        while family("a test").len() < 3 {}
        assert!(family("another").is_empty());
        for id in family("a test") {
            Command::new("kill").arg(id.to_string()).status().expect("kill runs");
        }
        shell.wait().expect("the shell ends");
    }
}
