//! What host and child say to each other: a length in four bytes, big-endian, and JSON, in both directions.

use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use locule_component::Verdict;
use locule_policy::{CheckerLimits, FileChecker, Language};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Longest message from the host, in bytes.
pub const MAX_REQUEST: usize = 64 << 20;
/// Longest message from a child, in bytes.
pub const MAX_ANSWER: usize = 1 << 20;

/// What the host says; a child hears one `Open`, then any number of `Review`s.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Request {
    Open(Box<Opening>),
    Review(Box<RawValue>),
}

/// What a child says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    Ready { about: String },
    Verdicts(Vec<Verdict>),
    Failed(String),
}

/// Which checker a child is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Opening {
    /// Name of the back end: `rego`, `wasm` or `python`.
    pub backend: String,
    /// Absolute path of the file, for messages.
    pub file: String,
    /// The class in it, of a checker in Python.
    pub class: Option<String>,
    /// The file's content, as it was when its digest was taken.
    #[serde(rename = "source_base64", serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub source: Vec<u8>,
    /// The operator's arguments.
    pub args: serde_json::Value,
    /// What it may use up.
    pub limits: Limits,
    /// The checker's id.
    pub id: String,
}

/// What a checker may use up, as the child is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Limits {
    /// Milliseconds for one review.
    pub time_ms: u64,
    /// Mebibytes.
    pub memory_mib: u64,
    /// Units of fuel for one review.
    pub fuel: Option<u64>,
}

impl Opening {
    pub(crate) fn new(entry: &FileChecker, source: Vec<u8>) -> Self {
        let class = match &entry.language {
            Language::Python { class } => Some(class.clone()),
            Language::Rego | Language::Wasm => None,
        };
        let CheckerLimits { time, memory, fuel } = entry.limits;
        let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            backend: backend(&entry.language).to_owned(),
            file: entry.file.display().to_string(),
            class,
            source,
            args: entry.args.clone(),
            limits: Limits { time_ms, memory_mib: memory >> 20, fuel },
            id: entry.id.clone(),
        }
    }
}

pub(crate) fn backend(language: &Language) -> &'static str {
    match language {
        Language::Rego => "rego",
        Language::Wasm => "wasm",
        Language::Python { .. } => "python",
    }
}

/// Reads a message of at most `most` bytes; nothing at the end of the stream.
pub(crate) fn read_frame(stream: &mut impl Read, most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 4];
    let mut filled = 0;
    while filled < head.len() {
        match stream.read(&mut head[filled..])? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    let length = u32::from_be_bytes(head) as usize;
    if length > most {
        let message = format!("a message of {length} bytes, more than {most}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut body = Vec::new();
    if stream.take(length as u64).read_to_end(&mut body)? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(body))
}

/// Writes a message.
pub(crate) fn write_frame(stream: &mut impl Write, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(body)?;
    stream.flush()
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_out_as_it_went_in_and_longer_ones_do_not() {
        let mut wire = Vec::new();
        write_frame(&mut wire, b"{}").unwrap();
        assert_eq!(wire, b"\0\0\0\x02{}");
        assert_eq!(read_frame(&mut wire.as_slice(), 2).unwrap().as_deref(), Some(&b"{}"[..]));
        assert_eq!(read_frame(&mut wire.as_slice(), 1).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(read_frame(&mut &wire[..0], 2).unwrap().is_none());
        for cut in 1..wire.len() {
            assert!(read_frame(&mut &wire[..cut], 2).is_err(), "{cut}");
        }
    }
}
