//! Journals in real files.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use locule_journal::record::MAGIC;
use locule_journal::{Damage, Journal, Torn};
use locule_store::{FileJournal, OpenError};
use tempfile::TempDir;

fn records() -> Vec<Vec<u8>> {
    vec![b"issued".to_vec(), Vec::new(), vec![7; 100]]
}

/// A closed journal with some records in a folder of its own.
fn written() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokens.journal");
    let mut journal = FileJournal::open(&path).expect("a new journal");
    records().iter().for_each(|record| journal.append(record).expect("room on disk"));
    (folder, path)
}

#[test]
fn records_are_there_after_opening_anew() {
    let (_folder, path) = written();
    let mut journal = FileJournal::open(&path).unwrap();
    assert_eq!((journal.replay().unwrap(), journal.torn()), (records(), None));
    journal.append(b"more").unwrap();
    assert_eq!(journal.replay().unwrap().last().unwrap(), b"more");
    drop(journal);
    assert_eq!(FileJournal::open(&path).unwrap().replay().unwrap().len(), 4);
}

#[test]
fn what_was_acknowledged_is_in_the_file_before_the_journal_is_closed() {
    let (_folder, path) = written();
    let mut journal = FileJournal::open(&path).unwrap();
    journal.append(b"acknowledged").unwrap();
    assert!(fs::read(&path).unwrap().ends_with(b"acknowledged"));
}

#[test]
fn a_file_cut_at_any_byte_opens_with_the_records_that_are_whole_and_goes_on() {
    let (folder, path) = written();
    let bytes = fs::read(&path).unwrap();
    let mut end = MAGIC.len();
    let ends: Vec<usize> = records().iter().map(|record| (end += 12 + record.len(), end).1).collect();
    for cut in 0..=bytes.len() {
        let path = folder.path().join("cut.journal");
        fs::write(&path, &bytes[..cut]).unwrap();
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let start =
            if cut < MAGIC.len() { 0 } else { whole.checked_sub(1).map_or(MAGIC.len(), |last| ends[last]) };
        let torn = (start < cut).then(|| Torn { offset: start as u64, bytes: (cut - start) as u64 });

        let mut journal = FileJournal::open(&path).unwrap();
        assert_eq!(journal.torn(), torn, "cut at {cut}");
        assert_eq!(journal.replay().unwrap(), records()[..whole], "cut at {cut}");
        journal.append(b"after").unwrap();
        drop(journal);

        let mut journal = FileJournal::open(&path).unwrap();
        assert_eq!(journal.torn(), None, "the tail was cut off for good");
        assert_eq!(journal.replay().unwrap().len(), whole + 1, "cut at {cut}");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn damage_in_the_middle_names_file_offset_and_remedy_and_changes_nothing() {
    let (_folder, path) = written();
    let mut bytes = fs::read(&path).unwrap();
    bytes[29] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = FileJournal::open(&path).unwrap_err();
    assert!(error.to_string().contains("tokens.journal"));
    let damage = error.source().unwrap().to_string();
    assert!(damage.contains("byte 16") && damage.contains("restore"), "{damage}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn another_file_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.json");
    fs::write(&path, "{}").unwrap();
    let error = FileJournal::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { damage: Damage::NotAJournal, .. }));
    assert_eq!(fs::read(&path).unwrap(), b"{}");
}

#[test]
fn a_missing_folder_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let error = FileJournal::open(folder.path().join("none").join("a.journal")).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }) && error.to_string().contains("a.journal"));
}

#[test]
fn two_owners_at_a_time_are_refused() {
    let (_folder, path) = written();
    let mut first = FileJournal::open(&path).unwrap();
    assert!(matches!(FileJournal::open(&path), Err(OpenError::InUse { .. })));
    first.rewrite(&records()).unwrap();
    assert!(matches!(FileJournal::open(&path), Err(OpenError::InUse { .. })));
    drop(first);
    assert!(FileJournal::open(&path).is_ok());
}

#[test]
fn a_rewrite_replaces_all_records_and_appends_follow() {
    let (folder, path) = written();
    // What an earlier attempt left behind does no harm.
    fs::write(folder.path().join("tokens.journal.new"), [1; 5000]).unwrap();
    let mut journal = FileJournal::open(&path).unwrap();
    journal.rewrite(&[b"only".to_vec()]).unwrap();
    journal.append(b"and then").unwrap();
    assert_eq!(journal.replay().unwrap(), [b"only".to_vec(), b"and then".to_vec()]);
    drop(journal);
    assert_eq!(FileJournal::open(&path).unwrap().replay().unwrap().len(), 2);
    let left = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "the journal, and the number of its writer");
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, path) = written();
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut journal = FileJournal::open(&path).unwrap();
    assert_eq!(mode(), 0o600);
    journal.rewrite(&records()).unwrap();
    assert_eq!(mode(), 0o600);
}
