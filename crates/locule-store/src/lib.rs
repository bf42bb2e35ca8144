//! Journals and spools in plain files.
//!
//! A [`FileJournal`] is the durable [`Journal`]: what it acknowledged is on disk, and what a crash tore
//! is cut off and reported. It reads and writes while its caller waits, so on an asynchronous runtime it
//! belongs on a thread that may block. It knows nothing of what the records mean. A [`FileSpool`] holds a
//! body that arrives piece by piece and is too large for memory; it promises nothing about a crash.
//!
//! ```
//! use locule_journal::Journal;
//! use locule_store::FileJournal;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let path = folder.path().join("tokens.journal");
//! FileJournal::open(&path)?.append(b"issued")?;
//!
//! // after a restart
//! let mut journal = FileJournal::open(&path)?;
//! assert_eq!(journal.replay()?, [b"issued"]);
//! assert_eq!(journal.torn(), None);
//! # Ok(())
//! # }
//! ```
//!
//! Start with [`FileJournal`].

mod file;
mod spool;

pub use file::{FileJournal, OpenError};
pub use spool::FileSpool;

#[cfg(doc)]
use locule_journal::Journal;
