//! A repair tool: what a journal still holds after its last record was torn by a crash.

use std::error::Error;

use locule_journal::{Journal as _, MemoryJournal, RecordReader};

fn main() -> Result<(), Box<dyn Error>> {
    let mut journal = MemoryJournal::new();
    journal.append(b"round 1 accepted")?;
    let whole = journal.bytes().len();
    journal.append(b"round 2 accepted")?;
    let torn = &journal.bytes()[..journal.bytes().len() - 1];

    let mut reader = RecordReader::new(torn);
    let records = reader.by_ref().collect::<Result<Vec<&[u8]>, _>>()?;
    assert_eq!(records, [b"round 1 accepted"]);
    assert_eq!(reader.torn().map(|torn| torn.offset), Some(whole as u64));

    let mut flipped = torn.to_vec();
    flipped[whole - 1] ^= 1; // damage in the middle is an error and never cut off
    flipped.extend_from_slice(&journal.bytes()[torn.len()..]);
    assert!(RecordReader::new(&flipped).any(|record| record.is_err()));
    Ok(())
}
