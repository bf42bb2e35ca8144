//! What a crash may leave is repaired; what no crash does is an error.

use locule_journal::record::MAGIC;
use locule_journal::{
    AppendError, Damage, Journal, MAX_RECORD_LEN, MemoryJournal, RecordReader, Torn, encode_record,
};
use proptest::prelude::*;

const HEADER_LEN: usize = 12;

fn journal(records: &[Vec<u8>]) -> Vec<u8> {
    let mut journal = MemoryJournal::new();
    records.iter().for_each(|record| journal.append(record).expect("short enough"));
    journal.bytes().to_vec()
}

fn sample() -> Vec<Vec<u8>> {
    vec![b"first".to_vec(), Vec::new(), vec![0; 40], b"last of them".to_vec()]
}

/// Where each record of a journal ends.
fn ends(records: &[Vec<u8>]) -> Vec<usize> {
    let mut end = MAGIC.len();
    records.iter().map(|record| (end += HEADER_LEN + record.len(), end).1).collect()
}

/// Reads all there is: records, what was torn, and the damage.
fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, Option<Torn>, Option<Damage>) {
    let (mut records, mut damage) = (Vec::new(), None);
    let mut reader = RecordReader::new(bytes);
    for record in reader.by_ref() {
        match record {
            Ok(record) => records.push(record.to_vec()),
            Err(found) => damage = Some(found),
        }
    }
    (records, reader.torn(), damage)
}

#[test]
fn the_bytes_of_a_journal_are_what_the_format_says() {
    let bytes = journal(&[b"abc".to_vec()]);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[16, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0]);
    let check = (crc.clone().finalize() as u16).to_le_bytes();
    crc.update(b"abc");
    let expected =
        [b"locule journal 1".as_slice(), &[3, 0, 0, 0, 1, 0], &check, &crc.finalize().to_le_bytes(), b"abc"];
    assert_eq!(bytes, expected.concat());
}

#[test]
fn a_journal_cut_at_any_byte_gives_the_records_that_are_whole() {
    let records = sample();
    let bytes = journal(&records);
    let ends = ends(&records);
    for cut in 0..=bytes.len() {
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let start =
            if cut < MAGIC.len() { 0 } else { whole.checked_sub(1).map_or(MAGIC.len(), |last| ends[last]) };
        let torn = (start < cut).then(|| Torn { offset: start as u64, bytes: (cut - start) as u64 });
        assert_eq!(read(&bytes[..cut]), (records[..whole].to_vec(), torn, None), "cut at {cut}");

        let mut recovered = MemoryJournal::from_bytes(bytes[..cut].to_vec()).unwrap();
        recovered.append(b"after the crash").unwrap();
        let mut expected = records[..whole].to_vec();
        expected.push(b"after the crash".to_vec());
        assert_eq!(recovered.replay().unwrap(), expected, "cut at {cut}");
    }
}

#[test]
fn a_damaged_byte_loses_no_record_but_the_last_without_an_error() {
    let records = sample();
    let bytes = journal(&records);
    let last = ends(&records)[records.len() - 2];
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let (found, torn, damage) = read(&damaged);
            if at < last {
                let damage = damage.unwrap_or_else(|| panic!("bit {bit} of byte {at}"));
                assert!(damage.offset() as usize <= at);
                assert_eq!(found, records[..found.len()]);
            } else {
                // Nothing tells it from an append that a crash interrupted.
                assert_eq!(found, records[..records.len() - 1]);
                assert!(torn.is_some_and(|torn| torn.offset as usize == last) || damage.is_some());
            }
        }
    }
}

#[test]
fn blocks_of_zeros_or_rubbish_at_the_end_are_torn() {
    let records = sample();
    let bytes = journal(&records);
    for tail in [vec![0; 4096], vec![0xff; 700], vec![0; 5], b"rubbish and more of it".to_vec()] {
        let torn = Torn { offset: bytes.len() as u64, bytes: tail.len() as u64 };
        let crashed = [bytes.as_slice(), &tail].concat();
        assert_eq!(read(&crashed), (records.clone(), Some(torn), None));
    }
}

#[test]
fn a_record_written_without_its_first_block_is_torn() {
    let records = sample();
    let mut bytes = journal(&[records.as_slice(), &[vec![7; 9000]]].concat());
    let start = ends(&records)[records.len() - 1];
    bytes[start..4096].fill(0);
    let torn = Torn { offset: start as u64, bytes: (bytes.len() - start) as u64 };
    assert_eq!(read(&bytes), (records, Some(torn), None));
}

#[test]
fn more_rubbish_than_one_record_can_be_is_damage() {
    let mut bytes = journal(&sample());
    let offset = bytes.len() as u64;
    bytes.resize(bytes.len() + MAX_RECORD_LEN + HEADER_LEN + 1, 0);
    assert_eq!(read(&bytes).2, Some(Damage::Header { offset }));
}

#[test]
fn a_record_inside_a_record_is_not_taken_for_one() {
    // A peer's text that looks like a record, in an append that is then cut short.
    let mut inner = Vec::new();
    encode_record(&mut inner, 0, b"granted").unwrap();
    let mut outer = [b"padding".as_slice(), &inner].concat();
    outer.extend([0; 50]);
    let mut bytes = journal(&[outer]);
    bytes.truncate(bytes.len() - 10);
    bytes[MAGIC.len()] ^= 1;
    let torn = Torn { offset: 16, bytes: bytes.len() as u64 - 16 };
    assert_eq!(read(&bytes), (vec![], Some(torn), None));
}

#[test]
fn a_record_of_a_newer_format_is_not_skipped() {
    let mut bytes = journal(&[b"old".to_vec()]);
    let at = bytes.len();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(at as u64).to_le_bytes());
    hasher.update(&[3, 0, 0, 0, 2, 0]);
    let check = hasher.clone().finalize() as u16;
    hasher.update(b"new");
    bytes.extend([3, 0, 0, 0, 2, 0]);
    bytes.extend(check.to_le_bytes());
    bytes.extend(hasher.finalize().to_le_bytes());
    bytes.extend(b"new");
    assert_eq!(
        read(&bytes),
        (vec![b"old".to_vec()], None, Some(Damage::Format { offset: at as u64, format: 2 }))
    );
}

#[test]
fn another_file_is_no_journal_and_is_not_emptied() {
    for other in [b"{\"a\": 1}".as_slice(), b"locule journal 2 and more", b"l\0"] {
        assert_eq!(MemoryJournal::from_bytes(other.to_vec()).unwrap_err(), Damage::NotAJournal);
    }
}

#[test]
fn a_record_that_is_too_long_is_refused_and_the_journal_goes_on() {
    let mut journal = MemoryJournal::new();
    journal.append(&vec![1; MAX_RECORD_LEN]).unwrap();
    let error = journal.append(&vec![1; MAX_RECORD_LEN + 1]).unwrap_err();
    assert!(matches!(error, AppendError::TooLong(_)) && !error.is_retryable());
    journal.append(b"next").unwrap();
    assert_eq!(journal.replay().unwrap().len(), 2);
}

#[test]
fn a_rewrite_puts_new_records_in_the_place_of_the_old() {
    let mut journal = MemoryJournal::new();
    journal.append(b"old").unwrap();
    journal.rewrite(&sample()).unwrap();
    journal.append(b"more").unwrap();
    assert_eq!(journal.replay().unwrap(), [sample(), vec![b"more".to_vec()]].concat());
}

#[test]
fn damage_says_where_and_what_to_do() {
    let mut bytes = journal(&sample());
    bytes[30] ^= 1;
    let said = MemoryJournal::from_bytes(bytes).unwrap_err().to_string();
    assert!(said.contains("byte 16") && said.contains("backup"), "{said}");
}

proptest! {
    #[test]
    fn what_was_appended_comes_back(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)) {
        let mut journal = MemoryJournal::from_bytes(journal(&records)).unwrap();
        prop_assert_eq!(journal.torn(), None);
        prop_assert_eq!(journal.replay().unwrap(), records);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read(&bytes);
        let (_, torn, damage) = read(&[MAGIC.as_slice(), &bytes].concat());
        prop_assert!(torn.is_some() || damage.is_some() || bytes.is_empty());
    }
}
