//! Appends records, each on disk before anybody goes on.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::MAX_RECORD;
use crate::record::{self, Entry, Head, hex_sha256};

/// How long a record waits before the log of the process says so, and how often it looks meanwhile.
const TELL_AFTER: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// The log of one participant, in a folder.
///
/// It holds nothing open and remembers nothing: several of them, also in several processes, may write to the same
/// folder, one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLog {
    folder: PathBuf,
    max_file: u64,
    patience: Duration,
}

/// Why a record was not written. Whatever it was to bear witness of must not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The record is longer than [`MAX_RECORD`].
    #[error("the record has {0} bytes, more than a log of audits takes")]
    TooLong(usize),
    /// The last record that is there is not one of ours, or was changed.
    #[error(
        "{} ends with a record that was changed or is not ours; find out why, then move the file away", file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
    },
    /// Another process has not let go of the log in time.
    #[error("{} is held by another process, for more than {} s", file.display(), after.as_secs_f64())]
    InUse {
        /// What it holds.
        file: PathBuf,
        /// How long this one has waited.
        after: Duration,
    },
    /// The disk does not take it.
    #[error("cannot write {}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl AuditLog {
    /// A file that has grown past so many bytes is followed by a new one (16 MiB).
    pub const MAX_FILE: u64 = 16 << 20;

    /// How long a record waits while another process writes (10 s).
    pub const PATIENCE: Duration = Duration::from_secs(10);

    /// The name of the file that is written to.
    pub const FILE: &'static str = "audit.jsonl";

    /// The log in this folder, which must exist by the time something is written.
    pub fn new(folder: impl Into<PathBuf>) -> AuditLog {
        AuditLog { folder: folder.into(), max_file: AuditLog::MAX_FILE, patience: AuditLog::PATIENCE }
    }

    /// The same log, whose files grow to `bytes` before a new one is begun.
    #[must_use]
    pub fn max_file(self, bytes: u64) -> AuditLog {
        AuditLog { max_file: bytes, ..self }
    }

    /// The same log, which waits so long while another process writes.
    #[must_use]
    pub fn patience(self, patience: Duration) -> AuditLog {
        AuditLog { patience, ..self }
    }

    /// Writes one record and flushes it to the disk. Blocks, also while another process writes, for as long as its
    /// [patience](Self::patience) lasts.
    ///
    /// A record that an earlier writer could not finish is cut off first, and a record says so.
    ///
    /// # Errors
    /// [`AppendError`]; the record then does not count.
    pub fn append(&self, entry: &Entry, now: SystemTime) -> Result<Head, AppendError> {
        let file = self.folder.join(AuditLog::FILE);
        let failed = |source| AppendError::Write { file: file.clone(), source };
        let lock = self.folder.join("audit.lock");
        let mut options = OpenOptions::new();
        let locked = open_regular(&lock, options.create(true).truncate(false).write(true)).map_err(failed)?;
        self.take(&locked, &lock)?;
        self.append_alone(&file, entry, now)
        // The lock ends with its file.
    }

    /// Waits for other writers, but not for ever: who waits for a verdict is to hear that there is none.
    #[expect(
        clippy::disallowed_methods,
        reason = "the operating system tells nobody that a lock is free again"
    )]
    fn take(&self, locked: &File, path: &Path) -> Result<(), AppendError> {
        let failed = |source| AppendError::Write { file: path.to_owned(), source };
        let since = Instant::now();
        let mut told = false;
        loop {
            match locked.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) => {}
            }
            let waited = since.elapsed();
            if waited >= self.patience {
                return Err(AppendError::InUse { file: path.to_owned(), after: self.patience });
            }
            if waited >= TELL_AFTER && !told {
                tracing::warn!(file = %path.display(), "waiting for another process that holds the log of audits");
                told = true;
            }
            std::thread::sleep(PAUSE.min(self.patience - waited));
        }
    }

    fn append_alone(&self, path: &Path, entry: &Entry, now: SystemTime) -> Result<Head, AppendError> {
        let failed = |source| AppendError::Write { file: path.to_owned(), source };
        let mut file = open(path).map_err(failed)?;
        let End { mut head, mut len, torn } = end(&mut file, path)?;
        if let Some(torn) = torn {
            let cut = Entry::Repaired { cut_bytes: torn.len() as u64, cut_sha256: hex_sha256(&torn) };
            file.set_len(len).map_err(failed)?;
            (head, len) = write(&mut file, path, &self.before(head)?, len, &cut, now)?;
        }
        if len > self.max_file {
            let first = first_seq(&mut file, path)?;
            let full = format!("audit.{first:012}.jsonl");
            std::fs::rename(path, self.folder.join(&full)).map_err(failed)?;
            file = open(path).map_err(failed)?;
            (head, len) =
                write(&mut file, path, &self.before(head)?, 0, &Entry::Continued { file: full }, now)?;
            sync_folder(&self.folder).map_err(failed)?;
        } else if len == 0 {
            sync_folder(&self.folder).map_err(failed)?;
        }
        let (head, _) = write(&mut file, path, &self.before(head)?, len, entry, now)?;
        Ok(head.unwrap_or_else(Head::none))
    }

    /// What the next record follows: the last of this file, or of the newest full one, or nothing.
    fn before(&self, head: Option<Head>) -> Result<Head, AppendError> {
        if let Some(head) = head {
            return Ok(head);
        }
        let failed = |source| AppendError::Write { file: self.folder.clone(), source };
        let Some(newest) = full_files(&self.folder).map_err(failed)?.pop() else { return Ok(Head::none()) };
        let mut file = open_regular(&newest, OpenOptions::new().read(true)).map_err(failed)?;
        match end(&mut file, &newest)? {
            End { head: Some(head), torn: None, .. } => Ok(head),
            End { .. } => Err(AppendError::Damaged { file: newest }),
        }
    }
}

/// The full files of a folder, in the order of their records.
pub(crate) fn full_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let digits = name.strip_prefix("audit.").and_then(|name| name.strip_suffix(".jsonl"));
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        if let Some(first) = digits.and_then(|digits| digits.parse::<u64>().ok()) {
            files.push((first, path));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    open_regular(path, &mut options)
}

/// Opens a file, and nothing that only looks like one: of a pipe, whoever opens it waits for the other end.
pub(crate) fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // Looked at before as well: to open a device may do something.
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => return Err(no_file()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(_) | Err(_) => {}
    }
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, rustix::fs::OFlags::NONBLOCK.bits() as i32);
    let file = options.open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(no_file()) }
}

fn no_file() -> io::Error {
    io::Error::other("it is no regular file")
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes a record at `len` and flushes it; its head, and the new length.
fn write(
    file: &mut File,
    path: &Path,
    before: &Head,
    len: u64,
    entry: &Entry,
    now: SystemTime,
) -> Result<(Option<Head>, u64), AppendError> {
    let damaged = || AppendError::Damaged { file: path.to_owned() };
    let (line, head) = record::line(before, entry, now).ok_or_else(damaged)?;
    if line.len() > MAX_RECORD {
        return Err(AppendError::TooLong(line.len()));
    }
    let written = file
        .seek(SeekFrom::Start(len))
        .and_then(|_| file.write_all(line.as_bytes()))
        .and_then(|()| file.sync_data());
    written.map_err(|source| AppendError::Write { file: path.to_owned(), source })?;
    Ok((Some(head), len + line.len() as u64))
}

/// How a file ends.
struct End {
    /// Its last whole record.
    head: Option<Head>,
    /// Bytes up to and with that record.
    len: u64,
    /// What follows it: a record that was not finished.
    torn: Option<Vec<u8>>,
}

fn end(file: &mut File, path: &Path) -> Result<End, AppendError> {
    let failed = |source| AppendError::Write { file: path.to_owned(), source };
    let damaged = || AppendError::Damaged { file: path.to_owned() };
    let size = file.metadata().map_err(failed)?.len();
    let mut window: u64 = 64 << 10;
    loop {
        let from = size.saturating_sub(window);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(from)).map_err(failed)?;
        file.take(size - from).read_to_end(&mut bytes).map_err(failed)?;
        let last = bytes.iter().rposition(|byte| *byte == b'\n');
        let begin = last.and_then(|last| bytes[..last].iter().rposition(|byte| *byte == b'\n'));
        let whole = from == 0;
        match last {
            Some(last) if begin.is_some() || whole => {
                let line = &bytes[begin.map_or(0, |at| at + 1)..last];
                let line = std::str::from_utf8(line).map_err(|_| damaged())?;
                let head = record::parse(line).map_err(|_| damaged())?.head();
                let torn = bytes.split_off(last + 1);
                let len = size - torn.len() as u64;
                return Ok(End { head: Some(head), len, torn: Some(torn).filter(|torn| !torn.is_empty()) });
            }
            None if whole => {
                return Ok(End { head: None, len: 0, torn: Some(bytes).filter(|torn| !torn.is_empty()) });
            }
            Some(_) | None if window > 4 * MAX_RECORD as u64 => return Err(damaged()),
            Some(_) | None => window *= 4,
        }
    }
}

/// Number of the first record of a file that has one.
fn first_seq(file: &mut File, path: &Path) -> Result<u64, AppendError> {
    let failed = |source| AppendError::Write { file: path.to_owned(), source };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    file.take(MAX_RECORD as u64).read_to_end(&mut bytes).map_err(failed)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let record = std::str::from_utf8(line).ok().and_then(|line| record::parse(line).ok());
    Ok(record.ok_or_else(|| AppendError::Damaged { file: path.to_owned() })?.seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FaultKind, Line, records, verify};
    use std::fs;
    use std::time::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    fn log_of(folder: &Path, count: u64) -> AuditLog {
        let log = AuditLog::new(folder);
        for number in 0..count {
            log.append(&Entry::note(format!("number {number}")), at(number)).unwrap();
        }
        log
    }

    #[test]
    fn a_record_is_one_line_that_anybody_can_check() {
        let dir = tempfile::tempdir().unwrap();
        log_of(dir.path(), 1);
        let text = fs::read_to_string(dir.path().join("audit.jsonl")).unwrap();
        let zeros = "0".repeat(64);
        let body = format!(
            "{{\"previous\":\"{zeros}\",\"record\":\"note\",\"seq\":1,\"text\":\"number 0\",\
             \"time\":\"2023-11-14T22:13:20Z\"}}"
        );
        let hash = hex_sha256(format!("locule-audit-1\n{body}").as_bytes());
        let open = body.strip_suffix('}').unwrap();
        assert_eq!(text, format!("{open},\"sha256\":\"{hash}\"}}\n"));
    }

    #[test]
    fn a_changed_removed_or_swapped_record_is_found() {
        let dir = tempfile::tempdir().unwrap();
        log_of(dir.path(), 5);
        let file = dir.path().join("audit.jsonl");
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let broken = |lines: &[&str]| {
            fs::write(&file, format!("{}\n", lines.join("\n"))).unwrap();
            let fault = verify(dir.path(), None).unwrap().fault.expect("it was found");
            (fault.line, fault.kind)
        };
        let changed = lines[2].replace("number 2", "number 7");
        assert_eq!(broken(&[lines[0], lines[1], &changed, lines[3], lines[4]]), (3, FaultKind::Hash));
        assert_eq!(broken(&[lines[0], lines[1], lines[3], lines[4]]), (3, FaultKind::Sequence));
        assert_eq!(broken(&[lines[0], lines[2], lines[1], lines[3], lines[4]]), (2, FaultKind::Sequence));
        assert_eq!(broken(&[lines[0], "{}", lines[2]]), (2, FaultKind::NotARecord));
        let spaced = lines[1].replace("\"seq\":2", "\"seq\": 2");
        assert_eq!(broken(&[lines[0], &spaced]), (2, FaultKind::Hash));
        let before = Head { seq: 1, sha256: "0".repeat(64) };
        let (forged, _) = record::line(&before, &Entry::note("x"), at(9)).unwrap();
        assert_eq!(broken(&[lines[0], forged.trim_end()]), (2, FaultKind::Previous));
    }

    #[test]
    fn a_record_cut_off_anywhere_is_repaired_and_the_repair_is_recorded() {
        let dir = tempfile::tempdir().unwrap();
        log_of(dir.path(), 2);
        let file = dir.path().join("audit.jsonl");
        let whole = fs::read(&file).unwrap();
        let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for cut in [1, second - 1, second + 1, whole.len() - 1] {
            fs::write(&file, &whole[..cut]).unwrap();
            let seen = verify(dir.path(), None).unwrap();
            assert!(seen.torn && seen.fault.is_none(), "{seen:?}");
            AuditLog::new(dir.path()).append(&Entry::note("goes on"), at(9)).unwrap();
            let seen = verify(dir.path(), None).unwrap();
            assert!(!seen.torn && seen.fault.is_none(), "{cut}: {seen:?}");
            assert_eq!(seen.repairs, 1);
        }
        fs::write(&file, &whole[..second]).unwrap();
        AuditLog::new(dir.path()).append(&Entry::note("goes on"), at(9)).unwrap();
        assert_eq!(
            verify(dir.path(), None).unwrap().repairs,
            0,
            "a file that ends with a whole record is whole"
        );
    }

    #[test]
    fn nothing_is_appended_behind_a_record_that_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        let log = log_of(dir.path(), 2);
        let file = dir.path().join("audit.jsonl");
        let text = fs::read_to_string(&file).unwrap().replace("number 1", "number 8");
        fs::write(&file, &text).unwrap();
        assert!(matches!(log.append(&Entry::note("x"), at(3)), Err(AppendError::Damaged { .. })));
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }

    #[test]
    fn full_files_are_followed_by_new_ones_in_one_chain() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::new(dir.path()).max_file(1000);
        for number in 0..40 {
            log.append(&Entry::note(format!("number {number}")), at(number)).unwrap();
        }
        let seen = verify(dir.path(), None).unwrap();
        assert!(seen.fault.is_none() && seen.files > 3, "{seen:?}");
        let notes = records(dir.path()).unwrap().filter(|line| {
            matches!(line, Ok(Line { record: Some(record), .. }) if matches!(record.entry, Entry::Note { .. }))
        });
        assert_eq!(notes.count(), 40);

        let full = full_files(dir.path()).unwrap();
        let newest = dir.path().join("audit.jsonl");
        fs::remove_file(&newest).unwrap();
        log.append(&Entry::note("after a crash between two files"), at(99)).unwrap();
        assert!(verify(dir.path(), None).unwrap().fault.is_none());

        fs::remove_file(&full[0]).unwrap();
        let seen = verify(dir.path(), None).unwrap();
        assert!(seen.fault.is_none() && seen.first.unwrap().seq > 1, "old files may be moved away");
        fs::remove_file(&full[2]).unwrap();
        assert_eq!(verify(dir.path(), None).unwrap().fault.unwrap().kind, FaultKind::Sequence);
    }

    #[test]
    fn a_head_that_was_noted_tells_whether_the_log_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let log = log_of(dir.path(), 3);
        let head = log.append(&Entry::note("noted"), at(3)).unwrap();
        let head: Head = head.to_string().parse().unwrap();
        log.append(&Entry::note("later"), at(4)).unwrap();
        assert_eq!(verify(dir.path(), Some(&head)).unwrap().holds_head, Some(true));
        fs::remove_file(dir.path().join("audit.jsonl")).unwrap();
        log_of(dir.path(), 9);
        assert_eq!(verify(dir.path(), Some(&head)).unwrap().holds_head, Some(false));
    }

    #[test]
    fn nothing_follows_the_last_number_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let before = Head { seq: u64::MAX - 1, sha256: "0".repeat(64) };
        let (last, head) = record::line(&before, &Entry::note("the last"), at(0)).unwrap();
        assert!(record::line(&head, &Entry::note("beyond"), at(0)).is_none());
        fs::write(dir.path().join("audit.jsonl"), &last).unwrap();
        let appended = AuditLog::new(dir.path()).append(&Entry::note("beyond"), at(1));
        assert!(matches!(appended, Err(AppendError::Damaged { .. })), "{appended:?}");
        fs::write(dir.path().join("audit.jsonl"), last.repeat(2)).unwrap();
        assert_eq!(verify(dir.path(), None).unwrap().fault.unwrap().kind, FaultKind::Sequence);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_not_waited_for() {
        for name in ["audit.jsonl", "audit.lock", "audit.000000000001.jsonl"] {
            let dir = tempfile::tempdir().unwrap();
            let made = std::process::Command::new("mkfifo").arg(dir.path().join(name)).status();
            assert!(made.unwrap().success());
            let appended = AuditLog::new(dir.path()).append(&Entry::note("x"), at(0));
            assert!(matches!(appended, Err(AppendError::Write { .. })), "{name}: {appended:?}");
            if name != "audit.lock" {
                assert!(verify(dir.path(), None).is_err(), "{name}");
            }
        }
    }

    #[test]
    fn a_log_that_somebody_else_holds_is_given_up_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let log = log_of(dir.path(), 1).patience(Duration::from_millis(30));
        let other = File::open(dir.path().join("audit.lock")).unwrap();
        other.lock().unwrap();
        assert!(matches!(log.append(&Entry::note("x"), at(3)), Err(AppendError::InUse { .. })));
        drop(other);
        log.append(&Entry::note("x"), at(3)).unwrap();
    }

    #[test]
    fn writers_of_several_threads_make_one_chain() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| log_of(dir.path(), 8));
            }
        });
        let seen = verify(dir.path(), None).unwrap();
        assert_eq!((seen.records, seen.fault), (32, None));
    }
}
