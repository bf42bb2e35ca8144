//! A log that survives: records are on disk when `append` returns, and come back in order.

use std::error::Error;

use locule_journal::Journal as _;
use locule_store::FileJournal;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join(format!("piecemeal-store-{}.journal", std::process::id()));
    FileJournal::open(&path)?.append(b"round 1 accepted")?;
    FileJournal::open(&path)?.append(b"round 2 accepted")?;
    std::fs::OpenOptions::new().append(true).open(&path)?.set_len(std::fs::metadata(&path)?.len() - 1)?;

    let mut journal = FileJournal::open(&path)?; // after a crash
    assert_eq!(journal.replay()?, [b"round 1 accepted"]);
    assert!(journal.torn().is_some());
    std::fs::remove_file(&path)?;
    Ok(())
}
