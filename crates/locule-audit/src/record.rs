//! One record of the chain: its line, and its hash.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use locule_component::canonical_json;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::Review;
use crate::review::shown;

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Entry {
    /// A plan was judged.
    Review(Box<Review>),
    /// A sentence.
    Note {
        /// The sentence, escaped and at most 1,024 characters long.
        text: String,
    },
    /// A new file was begun.
    Continued {
        /// The file that holds the records before.
        file: String,
    },
    /// The writer was interrupted within a record, which was cut off. It never counted: nothing goes on before its
    /// record is on disk.
    Repaired {
        /// How many bytes were cut off.
        cut_bytes: u64,
        /// SHA-256 of those bytes.
        cut_sha256: String,
    },
}

impl Entry {
    /// A sentence.
    pub fn note(text: impl AsRef<str>) -> Entry {
        Entry::Note { text: shown(text.as_ref(), 1024) }
    }
}

impl From<Review> for Entry {
    fn from(review: Review) -> Self {
        Entry::Review(Box::new(review))
    }
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Record {
    /// Its number, from 1.
    pub seq: u64,
    /// When it was written, in RFC 3339.
    pub time: String,
    /// Hash of the record before, as 64 hexadecimal digits.
    pub previous: String,
    /// Its own hash.
    pub sha256: String,
    /// What it says.
    #[serde(flatten)]
    pub entry: Entry,
}

impl Record {
    /// Its number and hash.
    pub fn head(&self) -> Head {
        Head { seq: self.seq, sha256: self.sha256.clone() }
    }
}

/// A record's number and hash. Written `12:9f3a…`; whoever keeps one elsewhere can tell later whether the log up to
/// there is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number of the record.
    pub seq: u64,
    /// Its hash, as 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl Head {
    /// What stands before the first record.
    pub(crate) fn none() -> Head {
        Head { seq: 0, sha256: "0".repeat(64) }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.sha256)
    }
}

/// The text is not a record's number, a colon and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a head is a record's number, a colon and the 64 hexadecimal digits of its hash")]
pub struct NotAHead;

impl FromStr for Head {
    type Err = NotAHead;

    fn from_str(text: &str) -> Result<Head, NotAHead> {
        let (seq, sha256) = text.split_once(':').ok_or(NotAHead)?;
        let hex = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        let seq = seq.parse().map_err(|_| NotAHead)?;
        if hex { Ok(Head { seq, sha256: sha256.to_ascii_lowercase() }) } else { Err(NotAHead) }
    }
}

/// The line of the record that follows `before`, with its line feed, and the head that it makes; nothing if no
/// number follows.
pub(crate) fn line(before: &Head, entry: &Entry, now: SystemTime) -> Option<(String, Head)> {
    let seq = before.seq.checked_add(1)?;
    let mut record = serde_json::to_value(entry).expect("an entry has only text keys");
    record["seq"] = seq.into();
    record["previous"] = before.sha256.as_str().into();
    record["time"] = rfc3339(now).into();
    let canonical = canonical_json(&record);
    let sha256 = hash(&canonical);
    let open = canonical.strip_suffix('}').expect("a record is an object");
    Some((format!("{open},\"sha256\":\"{sha256}\"}}\n"), Head { seq, sha256 }))
}

/// Reads a line without its line feed; nothing if it is not one of ours or its hash is another.
pub(crate) fn parse(line: &str) -> Result<Record, Wrong> {
    let mut value: Json = serde_json::from_str(line).map_err(|_| Wrong::NotARecord)?;
    let said = value.as_object_mut().and_then(|record| record.shift_remove("sha256"));
    let said = said.as_ref().and_then(Json::as_str).ok_or(Wrong::NotARecord)?;
    let canonical = canonical_json(&value);
    let open = canonical.strip_suffix('}').ok_or(Wrong::NotARecord)?;
    // Compared whole, so that no other way to write the same record passes.
    if hash(&canonical) != said || line != format!("{open},\"sha256\":\"{said}\"}}") {
        return Err(Wrong::Hash);
    }
    serde_json::from_str(line).map_err(|_| Wrong::NotARecord)
}

/// What is wrong with a line by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    NotARecord,
    Hash,
}

/// SHA-256 of bytes, as lower-case hexadecimal digits.
pub(crate) fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash(canonical: &str) -> String {
    hex_sha256(format!("locule-audit-1\n{canonical}").as_bytes())
}

fn rfc3339(now: SystemTime) -> String {
    // Years beyond 9999 have no form in RFC 3339.
    OffsetDateTime::from(now).format(&Rfc3339).unwrap_or_else(|_| "9999-12-31T23:59:59Z".to_owned())
}
