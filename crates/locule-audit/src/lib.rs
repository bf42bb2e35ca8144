//! A log of every verdict on a job, in which each record holds the hash of the one before.
//!
//! [`AuditLog::append`] writes one line of JSON and flushes it before it returns; [`verify`] reads all of them and
//! says which record breaks the chain, [`records`] reads what they say. The crate judges nothing and reads no clock.
//!
//! ```
//! use std::time::SystemTime;
//! use locule_audit::{AuditLog, Entry, verify};
//!
//! # let dir = tempfile::tempdir()?;
//! let log = AuditLog::new(dir.path());
//! let first = log.append(&Entry::note("the policy was changed"), SystemTime::now())?;
//! let second = log.append(&Entry::note("and changed back"), SystemTime::now())?;
//! assert_eq!((first.seq, second.seq), (1, 2));
//! assert_eq!(verify(dir.path(), None)?.last, Some(second));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start with [`AuditLog`], [`Review`] and [`verify`].
//!
//! # The files
//!
//! `audit.jsonl` is the log. When it has grown past [`AuditLog::MAX_FILE`] it becomes `audit.<seq>.jsonl`, named by
//! the first record that it holds, and the chain goes on in a new file. Nothing is ever removed here: whoever keeps
//! the machine may move the oldest files away, and then the chain begins later.
//!
//! | member | what it is |
//! |---|---|
//! | `seq` | number of the record, from 1, without a gap |
//! | `time` | RFC 3339, UTC |
//! | `previous` | `sha256` of the record before; 64 zeros in the first |
//! | `record` | `review`, `note`, `continued` (a new file was begun), `repaired` (an interrupted record was cut off) |
//! | `sha256` | over `locule-audit-1`, a line feed, and the line without this last member; keys are sorted |
//!
//! # What it cannot show
//!
//! Who can write the files can write a new chain, or cut off its end. Against that, note the last number and hash
//! somewhere else from time to time: [`verify`] takes such a [`Head`] and says whether the log still holds it.

mod log;
mod read;
mod record;
mod review;

pub use log::{AppendError, AuditLog};
pub use read::{Fault, FaultKind, Line, Verified, VerifyError, records, verify};
pub use record::{Entry, Head, Record};
pub use review::{
    Basis, CheckerEntry, CheckerOutcome, ComponentEntry, FindingEntry, Judged, Review, Submitter,
};

/// Longest record, in bytes, its line feed included. A [`Review`] of a whole plan fits.
pub const MAX_RECORD: usize = 8 << 20;
