//! A journal in memory.

use crate::record::{Damage, MAGIC, RecordReader, Torn, encode_record};
use crate::{AppendError, Journal, ReplayError};

/// A journal in memory, with the same bytes that a file would have.
///
/// It outlives its owner only as far as somebody keeps its bytes: for tests, simulations, and processes
/// that are told to forget.
#[derive(Debug, Clone)]
pub struct MemoryJournal {
    bytes: Vec<u8>,
    torn: Option<Torn>,
}

impl MemoryJournal {
    /// An empty journal.
    pub fn new() -> Self {
        Self { bytes: MAGIC.to_vec(), torn: None }
    }

    /// A journal with these bytes; a torn tail is cut off and told by [`MemoryJournal::torn`].
    ///
    /// # Errors
    /// [`Damage`] when what is there is not what was written.
    pub fn from_bytes(mut bytes: Vec<u8>) -> Result<Self, Damage> {
        let mut reader = RecordReader::new(&bytes);
        reader.by_ref().try_for_each(|record| record.map(drop))?;
        let (len, torn) = (reader.offset() as usize, reader.torn());
        if len == 0 {
            bytes = MAGIC.to_vec();
        } else {
            bytes.truncate(len);
        }
        Ok(Self { bytes, torn })
    }

    /// All bytes of the journal.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What was cut off when the journal was made from bytes.
    pub fn torn(&self) -> Option<Torn> {
        self.torn
    }
}

impl Default for MemoryJournal {
    fn default() -> Self {
        Self::new()
    }
}

impl Journal for MemoryJournal {
    /// Always 1: nobody else can open it.
    fn writer(&self) -> u64 {
        1
    }

    fn append(&mut self, record: &[u8]) -> Result<(), AppendError> {
        Ok(encode_record(&mut self.bytes, 0, record)?)
    }

    fn replay(&mut self) -> Result<Vec<Vec<u8>>, ReplayError> {
        RecordReader::new(&self.bytes).map(|record| Ok(record?.to_vec())).collect()
    }

    fn rewrite(&mut self, records: &[Vec<u8>]) -> Result<(), AppendError> {
        let mut bytes = MAGIC.to_vec();
        records.iter().try_for_each(|record| encode_record(&mut bytes, 0, record))?;
        self.bytes = bytes;
        Ok(())
    }
}
