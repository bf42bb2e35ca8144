//! The format of a journal.
//!
//! A journal begins with [`MAGIC`]. Each record is
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0–3 | `len` | length of the payload in bytes, little-endian as all numbers here |
//! | 4–5 | `format` | version of the payload's layout, 1; never 0 |
//! | 6–7 | `check` | low 16 bits of the CRC-32 of the record's offset (8 bytes), `len` and `format` |
//! | 8–11 | `crc` | CRC-32 of the record's offset (8 bytes), `len`, `format` and the payload |
//! | 12… | payload | |
//!
//! The first 12 bytes are the same in every format. The header has a checksum of its own so that a damaged length is not followed. Both cover the offset,
//! so that a record inside a record's payload, or one from elsewhere, is never taken for one that stands
//! here.
//!
//! # Torn or damaged
//! Each append is flushed before the next one begins; so a crash can only leave the *last* record in
//! pieces: cut off, or full of zeros, or with only some of its blocks. That is a [`Torn`] tail, is cut
//! off and reported. Anything else that does not fit, with a good record behind it, was good once: that
//! is [`Damage`], and nobody should go on as if those records had never been there.

/// What a journal begins with: a name and the version of the file.
pub const MAGIC: [u8; 16] = *b"locule journal 1";

/// Longest payload of a record, in bytes: 16 MiB.
pub const MAX_RECORD_LEN: usize = 16 * 1024 * 1024;

const FORMAT: u16 = 1;
const HEADER_LEN: usize = 12;

/// Appends a record to the bytes of a journal. The bytes have to be those of the whole journal, or
/// begin at the offset `base` of it.
///
/// # Errors
/// [`RecordTooLong`] above [`MAX_RECORD_LEN`].
pub fn encode_record(journal: &mut Vec<u8>, base: u64, payload: &[u8]) -> Result<(), RecordTooLong> {
    let len = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= MAX_RECORD_LEN);
    let len = len.ok_or(RecordTooLong { len: payload.len() })?;
    let header = Header { at: base + journal.len() as u64, len, format: FORMAT };
    journal.reserve(HEADER_LEN + payload.len());
    journal.extend_from_slice(&len.to_le_bytes());
    journal.extend_from_slice(&FORMAT.to_le_bytes());
    journal.extend_from_slice(&header.check().to_le_bytes());
    journal.extend_from_slice(&header.crc(payload).to_le_bytes());
    journal.extend_from_slice(payload);
    Ok(())
}

/// Reads the records of a whole journal, in order.
///
/// Ends at the end, at a torn tail, which [`RecordReader::torn`] then tells, or after the first damage.
#[derive(Debug, Clone)]
pub struct RecordReader<'a> {
    journal: &'a [u8],
    at: usize,
    torn: Option<Torn>,
    done: bool,
}

impl<'a> RecordReader<'a> {
    /// Begins to read. An empty journal, or the beginning of [`MAGIC`], is a journal whose creation was
    /// cut short.
    pub fn new(journal: &'a [u8]) -> Self {
        Self { journal, at: 0, torn: None, done: false }
    }

    /// Where the next record begins; once all are read, how long the good part of the journal is.
    pub fn offset(&self) -> u64 {
        self.at as u64
    }

    /// What had to be cut off; known once all records are read.
    pub fn torn(&self) -> Option<Torn> {
        self.torn
    }

    fn magic(&mut self) -> Result<bool, Damage> {
        let head = &self.journal[..self.journal.len().min(MAGIC.len())];
        if head == MAGIC {
            self.at = MAGIC.len();
            return Ok(true);
        }
        let unfinished = MAGIC.starts_with(head) || head.iter().all(|byte| *byte == 0);
        if unfinished && self.journal.len() <= MAGIC.len() {
            return Ok(self.tear());
        }
        Err(Damage::NotAJournal)
    }

    fn record(&mut self) -> Result<Option<&'a [u8]>, Damage> {
        let at = self.at;
        let rest = &self.journal[at..];
        let Some(header) = Header::read(self.journal, at) else {
            // A header that is cut off, or not good. Without it nothing tells where the next one is.
            if rest.len() > HEADER_LEN + MAX_RECORD_LEN || self.good_record_behind(at) {
                return Err(Damage::Header { offset: at as u64 });
            }
            self.tear();
            return Ok(None);
        };
        let end = HEADER_LEN + header.len as usize;
        match rest.get(HEADER_LEN..end) {
            Some(payload) if header.crc(payload).to_le_bytes() == rest[8..HEADER_LEN] => {
                if header.format != FORMAT {
                    return Err(Damage::Format { offset: at as u64, format: header.format });
                }
                self.at += end;
                Ok(Some(payload))
            }
            Some(_) if rest.len() > end => Err(Damage::Payload { offset: at as u64 }),
            _ => {
                self.tear();
                Ok(None)
            }
        }
    }

    fn good_record_behind(&self, at: usize) -> bool {
        (at + 1..self.journal.len()).any(|at| {
            Header::read(self.journal, at).is_some_and(|header| {
                let payload = self.journal.get(at + HEADER_LEN..at + HEADER_LEN + header.len as usize);
                payload.is_some_and(|payload| {
                    header.crc(payload).to_le_bytes() == self.journal[at + 8..at + HEADER_LEN]
                })
            })
        })
    }

    fn tear(&mut self) -> bool {
        let bytes = self.journal.len() - self.at;
        if bytes > 0 {
            self.torn = Some(Torn { offset: self.at as u64, bytes: bytes as u64 });
        }
        self.done = true;
        false
    }
}

impl<'a> Iterator for RecordReader<'a> {
    type Item = Result<&'a [u8], Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let read = match self.at {
            0 => self.magic(),
            _ => Ok(true),
        };
        let next = match read {
            Ok(true) if self.at == self.journal.len() => Ok(None),
            Ok(true) => self.record(),
            Ok(false) => Ok(None),
            Err(damage) => Err(damage),
        };
        self.done = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

struct Header {
    at: u64,
    len: u32,
    format: u16,
}

impl Header {
    /// The header at this offset, if it is one.
    fn read(journal: &[u8], at: usize) -> Option<Header> {
        let [a, b, c, d, e, f, check @ ..] = *journal.get(at..)?.first_chunk::<8>()?;
        journal.get(at..at + HEADER_LEN)?;
        let header = Header {
            at: at as u64,
            len: u32::from_le_bytes([a, b, c, d]),
            format: u16::from_le_bytes([e, f]),
        };
        // Zeros are what a crash may leave; no format has the number 0.
        let good = header.format != 0
            && header.len as usize <= MAX_RECORD_LEN
            && header.check().to_le_bytes() == check;
        good.then_some(header)
    }

    fn check(&self) -> u16 {
        self.hasher().finalize() as u16
    }

    fn crc(&self, payload: &[u8]) -> u32 {
        let mut hasher = self.hasher();
        hasher.update(payload);
        hasher.finalize()
    }

    fn hasher(&self) -> crc32fast::Hasher {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.at.to_le_bytes());
        hasher.update(&self.len.to_le_bytes());
        hasher.update(&self.format.to_le_bytes());
        hasher
    }
}

/// The remains of an append that was cut short by a crash; it was never acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torn {
    /// Where they begin, in bytes from the start of the journal.
    pub offset: u64,
    /// How many bytes they take.
    pub bytes: u64,
}

/// A payload is longer than [`MAX_RECORD_LEN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record of {len} bytes is longer than 16 MiB")]
pub struct RecordTooLong {
    /// Length of the payload in bytes.
    pub len: usize,
}

/// What is in the journal is not what was written. No crash does that; a disk, a copy or a hand did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// It does not begin as a journal does.
    #[error("not a journal of this version; check the path")]
    NotAJournal,
    /// The header of a record is damaged, and good records follow.
    #[error(
        "journal damaged at byte {offset}: bad record header; restore the file from a backup, or cut it to {offset} bytes and lose what follows"
    )]
    Header {
        /// Where the record begins, in bytes from the start of the journal.
        offset: u64,
    },
    /// The payload of a record is damaged, and more follows.
    #[error(
        "journal damaged at byte {offset}: checksum does not match; restore the file from a backup, or cut it to {offset} bytes and lose what follows"
    )]
    Payload {
        /// Where the record begins, in bytes from the start of the journal.
        offset: u64,
    },
    /// A record in a layout that this version does not know.
    #[error("journal record at byte {offset} has format {format}; a newer version wrote it and can read it")]
    Format {
        /// Where the record begins, in bytes from the start of the journal.
        offset: u64,
        /// The format.
        format: u16,
    },
}

impl Damage {
    /// Where the damage is, in bytes from the start of the journal.
    pub fn offset(&self) -> u64 {
        match self {
            Damage::NotAJournal => 0,
            Damage::Header { offset } | Damage::Payload { offset } | Damage::Format { offset, .. } => *offset,
        }
    }
}
