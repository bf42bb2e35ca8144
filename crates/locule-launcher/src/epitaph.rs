//! Why a process ended that did not say so itself.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::process::Signal;

use crate::Limits;
use crate::log::LastLines;

/// Longest line that a reason repeats, in bytes.
const MAX_LINE: usize = 300;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Epitaph {
    /// It used up what it may; another try would do the same.
    Limit(String),
    /// Anything else.
    Died(String),
}

pub(crate) fn epitaph(status: io::Result<ExitStatus>, lines: &LastLines, limits: &Limits) -> Epitaph {
    let status = match status {
        Ok(status) => status,
        Err(error) => return Epitaph::Died(format!("its process was lost: {error}")),
    };
    let is = |signal: Signal| status.signal() == Some(signal.as_raw());
    let lacks_memory =
        !is(Signal::KILL) && !status.success() && lines.0.iter().any(|line| is_of_memory(line));
    if let (Some(mib), true) = (limits.memory_mib, lacks_memory) {
        return Epitaph::Limit(format!("it used up the {mib} MiB of memory that it may"));
    }
    if let Some(lack) = lines.0.iter().filter(|_| !is(Signal::KILL)).find_map(|line| lack(line, limits)) {
        return Epitaph::Limit(lack);
    }
    if let (Some(seconds), true) = (limits.cpu_seconds, is(Signal::XCPU)) {
        return Epitaph::Limit(format!("it used up the {seconds} s of processor time that it may"));
    }
    let how = match (status.signal(), status.code()) {
        (Some(signal), _) if is(Signal::KILL) => {
            format!("its process was killed by signal {signal} (out of memory?)")
        }
        (Some(signal), _) => format!("its process was killed by signal {signal}"),
        (None, Some(code)) => format!("its process ended with exit code {code}"),
        (None, None) => "its process ended".to_owned(),
    };
    Epitaph::Died(match lines.0.back() {
        Some(line) if !is(Signal::KILL) => {
            format!("{how}: {}", &line[..line.floor_char_boundary(MAX_LINE)])
        }
        Some(_) | None => how,
    })
}

/// Which limit it is that a program complains of; some get on without what they lack, so that it is no more than the
/// likely reason of an end.
pub(crate) fn lack(line: &str, limits: &Limits) -> Option<String> {
    if line.contains("Too many open files") {
        return limits.open_files.map(|most| format!("it ran out of the {most} open files that it may have"));
    }
    // The stack of a thread is memory, too.
    let limited = [("processes", limits.processes), ("MiB of memory", limits.memory_mib)];
    let limited = limited.into_iter().filter_map(|(what, most)| Some(format!("{} {what}", most?)));
    let limited: Vec<String> =
        limited.filter(|_| line.contains("Resource temporarily unavailable")).collect();
    (!limited.is_empty()).then(|| {
        format!(
            "it could start no other thread or process with the {} that it may have",
            limited.join(" and ")
        )
    })
}

/// What an allocator says last: Rust's, C++'s, Python's, the operating system's.
fn is_of_memory(line: &str) -> bool {
    let says = |text: &str| line.contains(text);
    says("memory allocation of ") && says(" bytes failed")
        || ["std::bad_alloc", "MemoryError", "Cannot allocate memory"].into_iter().any(says)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: i32, line: Option<&str>, limits: Limits, expected: Epitaph) {
        let lines = LastLines(line.map(str::to_owned).into_iter().collect());
        assert_eq!(epitaph(Ok(ExitStatus::from_raw(status)), &lines, &limits), expected);
    }

    #[test]
    fn a_reason_says_signal_or_code_and_the_last_line() {
        let (none, died) = (Limits::default(), |text: &str| Epitaph::Died(text.to_owned()));
        check(9, Some("working"), none, died("its process was killed by signal 9 (out of memory?)"));
        check(11, Some("oh no"), none, died("its process was killed by signal 11: oh no"));
        check(3 << 8, Some("no GPU"), none, died("its process ended with exit code 3: no GPU"));
        check(0, None, none, died("its process ended with exit code 0"));
        let said = "memory allocation of 5 bytes failed";
        check(6, Some(said), none, died(&format!("its process was killed by signal 6: {said}")));
    }

    #[test]
    fn a_limit_that_was_hit_is_named() {
        let limits = Limits { memory_mib: Some(512), cpu_seconds: Some(60), ..Limits::default() };
        let memory = Epitaph::Limit("it used up the 512 MiB of memory that it may".to_owned());
        check(6, Some("memory allocation of 1073741824 bytes failed"), limits, memory);
        let killed = Epitaph::Died("its process was killed by signal 9 (out of memory?)".to_owned());
        check(9, Some("MemoryError was handled"), limits, killed);
        let files = Limits { open_files: Some(20), ..Limits::default() };
        let said = "locule: Too many open files (os error 24)";
        let lacks = |text: &str| Epitaph::Limit(text.to_owned());
        check(70 << 8, Some(said), files, lacks("it ran out of the 20 open files that it may have"));
        let died = format!("its process ended with exit code 70: {said}");
        check(70 << 8, Some(said), limits, Epitaph::Died(died));
        let said = "failed to spawn thread: Resource temporarily unavailable (os error 11)";
        let few = Limits { processes: Some(50), ..limits };
        let threads = "it could start no other thread or process with the 50 processes and 512 MiB of memory that it may have";
        check(101 << 8, Some(said), few, lacks(threads));
        let time = Epitaph::Limit("it used up the 60 s of processor time that it may".to_owned());
        check(Signal::XCPU.as_raw(), Some("working"), limits, time);
    }
}
