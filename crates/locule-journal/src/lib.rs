//! Durable records: what must outlive a process, one record after the other.
//!
//! A [`Journal`] appends records and gives them back after a restart, in order. This crate has the
//! trait, the [format](record) with its checksums, and a [`MemoryJournal`] that keeps the same bytes in
//! memory; it opens no files. Journals in files are in `locule-store`. What the records mean is for
//! their owner to know. Bulk that arrives piece by piece goes into a [`Spool`].
//!
//! ```
//! use locule_journal::{Journal, MemoryJournal};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut journal = MemoryJournal::new();
//! journal.append(b"round 1 accepted")?;
//! journal.append(b"round 2 accepted")?;
//!
//! // After a crash in the middle of the second append:
//! let left = &journal.bytes()[..journal.bytes().len() - 3];
//! let mut recovered = MemoryJournal::from_bytes(left.to_vec())?;
//! assert_eq!(recovered.replay()?, [b"round 1 accepted"]);
//! assert_eq!(recovered.torn().map(|torn| torn.bytes), Some(25));
//! # Ok(())
//! # }
//! ```
//!
//! Start with [`Journal`], [`MemoryJournal`] and [`RecordReader`].

mod memory;
pub mod record;
mod spool;

use std::fmt;
use std::io;

pub use memory::MemoryJournal;
pub use record::{Damage, MAX_RECORD_LEN, RecordReader, RecordTooLong, Torn, encode_record};
pub use spool::{MemorySpool, Ranges, Spool, SpoolError};

/// An append-only list of records that outlives the process.
///
/// It has one writer at a time. Each that opens it has a higher number than all before it, and where a higher one has
/// opened it, a lower one appends nothing more ([`AppendError::Superseded`]): so a process that was taken for dead and
/// was only slow does no harm, also where the journal is in a store that several machines reach.
pub trait Journal: fmt::Debug + Send {
    /// Number of this writer, from 1.
    fn writer(&self) -> u64;

    /// Appends one record. It is durable when this returns; before that it may be lost in a crash, as a
    /// whole, and nothing else with it.
    ///
    /// # Errors
    /// [`AppendError`]; the record is not in the journal then.
    fn append(&mut self, record: &[u8]) -> Result<(), AppendError>;

    /// All records, oldest first.
    ///
    /// # Errors
    /// [`ReplayError`] when they cannot be read, or not be trusted. What is left of a record whose append
    /// was cut short is no error: it is dropped.
    fn replay(&mut self) -> Result<Vec<Vec<u8>>, ReplayError>;

    /// Puts these records in the place of all others, as one step: after a crash either the old ones are
    /// there or the new ones. Owners call it when most of what a journal says is out of date.
    ///
    /// # Errors
    /// [`AppendError`]; the journal is as it was then.
    fn rewrite(&mut self, records: &[Vec<u8>]) -> Result<(), AppendError>;
}

/// Why a record was not appended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// It is longer than a record may be.
    #[error(transparent)]
    TooLong(#[from] RecordTooLong),
    /// It could not be written, for example because the disk is full. What was written of it has been
    /// taken back, and a later append may succeed.
    #[error("cannot write to the journal")]
    Write(#[source] io::Error),
    /// It is not known what reached the disk. This journal takes no more records; opening it anew shows
    /// what is there.
    #[error("the journal no longer knows what is on disk, and has to be opened anew")]
    Broken(#[source] Option<io::Error>),
    /// Another writer has opened the journal since.
    #[error("writer {by} of the journal has taken over from this one, which is {own}; stop one of them")]
    Superseded {
        /// Number of this writer.
        own: u64,
        /// Number of the other one.
        by: u64,
    },
}

impl AppendError {
    /// Whether the same record may be taken later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, AppendError::Write(_))
    }
}

/// Why the records could not be read back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// Reading failed.
    #[error("cannot read the journal")]
    Read(#[source] io::Error),
    /// What is there is not what was written.
    #[error(transparent)]
    Damaged(#[from] Damage),
}
