//! A log of one's own decisions, in which a changed line is found.

use std::error::Error;
use std::time::SystemTime;

use locule_audit::{AuditLog, Entry, verify};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let log = AuditLog::new(folder.path());
    for text in ["the door was opened", "the door was closed"] {
        log.append(&Entry::note(text), SystemTime::now())?;
    }
    assert_eq!(verify(folder.path(), None)?.last.map(|head| head.seq), Some(2));

    let file = folder.path().join("audit.jsonl");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replace("was opened", "stayed shut"))?;
    assert_eq!(verify(folder.path(), None)?.fault.map(|fault| fault.line), Some(1));
    Ok(())
}
