//! Reads the chain, and says where it breaks.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::log::{full_files, open_regular};
use crate::record::{self, Head, Record, Wrong};
use crate::{AuditLog, MAX_RECORD};

/// Every line of a folder's log, oldest first.
///
/// # Errors
/// When the folder cannot be read; an item is an error when a file of it cannot.
pub fn records(
    folder: &Path,
) -> Result<impl Iterator<Item = Result<Line, VerifyError>> + use<>, VerifyError> {
    let failed = |source| VerifyError { file: folder.to_owned(), source };
    let mut files = full_files(folder).map_err(failed)?;
    files.extend(Some(folder.join(AuditLog::FILE)).filter(|file| file.exists()));
    Ok(files.into_iter().flat_map(lines))
}

/// Follows the whole chain; stops at the first record that breaks it.
///
/// With `head`, says too whether the log holds that record.
///
/// # Errors
/// [`VerifyError`] when a file cannot be read. A broken chain is no error but the answer.
pub fn verify(folder: &Path, head: Option<&Head>) -> Result<Verified, VerifyError> {
    let mut seen = Verified { holds_head: head.map(|_| false), ..Verified::default() };
    let mut file = None;
    for line in records(folder)? {
        let line = line?;
        if file.as_ref() != Some(&line.file) {
            seen.files += 1;
            file = Some(line.file.clone());
        }
        let kind = match (&line.record, line.state, &seen.last) {
            // Only the very last line may have no end.
            _ if seen.torn => FaultKind::NotARecord,
            (None, LineState::Torn, _) => {
                seen.torn = true;
                continue;
            }
            (None, LineState::Wrong(kind), _) => kind,
            (None, LineState::Whole, _) => FaultKind::NotARecord,
            (Some(record), _, Some(last)) if last.seq.checked_add(1) != Some(record.seq) => {
                FaultKind::Sequence
            }
            (Some(record), _, Some(last)) if record.previous != last.sha256 => FaultKind::Previous,
            (Some(record), _, None) if record.seq == 1 && record.previous != Head::none().sha256 => {
                FaultKind::Previous
            }
            (Some(record), _, _) => {
                seen.count(record, head);
                continue;
            }
        };
        let seq = line.record.as_ref().map(|record| record.seq);
        seen.fault = Some(Fault { file: line.file, line: line.number, seq, kind });
        break;
    }
    Ok(seen)
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The file.
    pub file: PathBuf,
    /// Counted from 1.
    pub number: usize,
    /// What it says, unless it is broken by itself.
    pub record: Option<Record>,
    state: LineState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineState {
    Whole,
    /// It has no end.
    Torn,
    Wrong(FaultKind),
}

/// What a log is like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Whole records up to the end or the fault.
    pub records: u64,
    /// Files that were read.
    pub files: usize,
    /// The oldest record. Beyond number 1, older files were moved away.
    pub first: Option<Head>,
    /// The newest record, or the last before the fault.
    pub last: Option<Head>,
    /// How often an interrupted record was cut off.
    pub repairs: u64,
    /// The last record was interrupted; the next writer cuts it off and says so.
    pub torn: bool,
    /// Whether the head that was asked for is there.
    pub holds_head: Option<bool>,
    /// Where the chain breaks.
    pub fault: Option<Fault>,
}

impl Verified {
    /// Whether nothing breaks the chain, and the head that was asked for is there.
    pub fn is_good(&self) -> bool {
        self.fault.is_none() && self.holds_head != Some(false)
    }

    fn count(&mut self, record: &Record, head: Option<&Head>) {
        let own = record.head();
        self.records += 1;
        self.repairs += u64::from(matches!(record.entry, crate::Entry::Repaired { .. }));
        if head == Some(&own) {
            self.holds_head = Some(true);
        }
        self.first.get_or_insert_with(|| own.clone());
        self.last = Some(own);
    }
}

/// The first record that breaks the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The number that the record says of itself, if that can be read.
    pub seq: Option<u64>,
    /// What is wrong.
    pub kind: FaultKind,
}

/// How a record breaks the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The line is no record.
    NotARecord,
    /// The record is not what its hash was taken of: somebody changed it.
    Hash,
    /// Its number does not follow: a record was removed, added or moved.
    Sequence,
    /// It does not follow the record before it: that one was replaced.
    Previous,
}

impl FaultKind {
    /// The same as a sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            FaultKind::NotARecord => "the line is no record",
            FaultKind::Hash => "the record was changed: its hash does not fit",
            FaultKind::Sequence => "its number does not follow: a record was removed, added or moved",
            FaultKind::Previous => "it does not follow the record before it, which was replaced",
        }
    }
}

/// A file of the log cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", file.display())]
pub struct VerifyError {
    /// The file or folder.
    pub file: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

fn lines(path: PathBuf) -> impl Iterator<Item = Result<Line, VerifyError>> {
    let (mut reader, mut number, mut over) = (None, 0, false);
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        let next = next_line(&path, &mut reader, number + 1);
        number += 1;
        over = !matches!(next, Ok(Some(_)));
        next.map_err(|source| VerifyError { file: path.clone(), source }).transpose()
    })
}

fn next_line(path: &Path, reader: &mut Option<BufReader<File>>, number: usize) -> io::Result<Option<Line>> {
    let reader = match reader {
        Some(reader) => reader,
        None => reader.insert(BufReader::new(open_regular(path, OpenOptions::new().read(true))?)),
    };
    let mut bytes = Vec::new();
    reader.by_ref().take(MAX_RECORD as u64 + 1).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let whole = bytes.pop_if(|byte| *byte == b'\n').is_some();
    let parsed = std::str::from_utf8(&bytes).map_err(|_| Wrong::NotARecord).and_then(record::parse);
    let (record, state) = match parsed {
        _ if !whole && bytes.len() <= MAX_RECORD => (None, LineState::Torn),
        Ok(record) if whole => (Some(record), LineState::Whole),
        Ok(_) | Err(Wrong::NotARecord) => (None, LineState::Wrong(FaultKind::NotARecord)),
        Err(Wrong::Hash) => (None, LineState::Wrong(FaultKind::Hash)),
    };
    Ok(Some(Line { file: path.to_owned(), number, record, state }))
}
