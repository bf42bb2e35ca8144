use std::{borrow::Cow, fmt};

use bytes::Bytes;
use rmp::encode::{self, ByteBuf};

use crate::{
    excerpt::Excerpt,
    value::{HeaderValue, Reader, ValueError},
};

/// The headers of a message: an ordered map whose values stay encoded.
///
/// Reading a value decodes it; setting one encodes it; the rest keeps the very bytes that were
/// received. Keys that are bytes rather than text are carried along but cannot be looked up.
///
/// `Debug` shows keys only, since values may be secret.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.sfm.sfm_conn` (`msgpack.packb`, `msgpack.unpackb`).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    entries: Vec<Entry>,
}

/// Key and value as encoded, back to back.
#[derive(Clone, PartialEq, Eq)]
struct Entry {
    raw: Bytes,
    /// Where the content of the key begins, behind its own msgpack head.
    key_at: usize,
    value_at: usize,
    key_is_text: bool,
}

impl Headers {
    /// Most bytes of encoded headers: a frame has 16 bits to say their length.
    pub const MAX_LEN: usize = 65_535;

    /// No headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads headers from the wire, sharing `bytes`.
    ///
    /// # Errors
    /// [`HeadersError`] when the bytes are no msgpack map as the peer would read it. Stricter than
    /// the peer in four points, all of which it never sends: no key may be there twice (a gate and
    /// the cell behind it must not see different values), no more than 64 levels, no extension types,
    /// no more than [`MAX_LEN`](Self::MAX_LEN) bytes.
    pub fn decode(bytes: Bytes) -> Result<Self, HeadersError> {
        if bytes.len() > Self::MAX_LEN {
            return Err(HeadersError::TooLong { len: bytes.len() });
        }
        let mut reader = Reader::new(&bytes);
        let position = |reader: &Reader<'_>| bytes.len() - reader.remaining();
        let count = reader.map_head()?.ok_or(HeadersError::NotAMap)?;
        // an entry takes at least two bytes
        let mut entries = Vec::with_capacity(count.min(reader.remaining() / 2));
        for _ in 0..count {
            let start = position(&reader);
            let key = reader.key()?;
            let value_at = position(&reader) - start;
            reader.skip(1)?;
            entries.push(Entry {
                raw: bytes.slice(start..position(&reader)),
                key_at: value_at - key.len(),
                value_at,
                key_is_text: key.is_text(),
            });
        }
        if reader.remaining() > 0 {
            return Err(HeadersError::TrailingBytes { len: reader.remaining() });
        }
        let headers = Self { entries };
        headers.refuse_repeated_keys()?;
        Ok(headers)
    }

    /// Writes the headers for the wire.
    ///
    /// # Errors
    /// [`HeadersTooLarge`] above [`MAX_LEN`](Self::MAX_LEN) bytes.
    pub fn encode(&self) -> Result<Bytes, HeadersTooLarge> {
        let len = 5 + self.entries.iter().map(|entry| entry.raw.len()).sum::<usize>();
        if len > Self::MAX_LEN + 4 {
            return Err(HeadersTooLarge { len });
        }
        let mut out = ByteBuf::with_capacity(len);
        let count = u32::try_from(self.entries.len()).map_err(|_| HeadersTooLarge { len })?;
        let Ok(_) = encode::write_map_len(&mut out, count);
        let mut out = out.into_vec();
        for entry in &self.entries {
            out.extend_from_slice(&entry.raw);
        }
        if out.len() > Self::MAX_LEN {
            return Err(HeadersTooLarge { len: out.len() });
        }
        Ok(out.into())
    }

    /// The value under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<HeaderValue<'_>> {
        self.find(key).and_then(|index| self.entries[index].value())
    }

    /// The value under `key`, if it is text.
    #[must_use]
    pub fn str(&self, key: &str) -> Option<&str> {
        if let HeaderValue::Str(Cow::Borrowed(text)) = self.get(key)? { Some(text) } else { None }
    }

    /// The value under `key`, if it is bytes.
    #[must_use]
    pub fn bytes(&self, key: &str) -> Option<&[u8]> {
        if let HeaderValue::Bin(Cow::Borrowed(bytes)) = self.get(key)? { Some(bytes) } else { None }
    }

    /// The value under `key`, if it is a bool.
    #[must_use]
    pub fn bool(&self, key: &str) -> Option<bool> {
        if let HeaderValue::Bool(value) = self.get(key)? { Some(value) } else { None }
    }

    /// The value under `key`, if it is an integer that is not negative.
    #[must_use]
    pub fn u64(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            HeaderValue::Int(number) => number.try_into().ok(),
            HeaderValue::UInt(number) => Some(number),
            HeaderValue::Nil
            | HeaderValue::Bool(_)
            | HeaderValue::Float(_)
            | HeaderValue::Str(_)
            | HeaderValue::Bin(_)
            | HeaderValue::Array(_)
            | HeaderValue::Map(_) => None,
        }
    }

    /// The value under `key`, if it is a number.
    #[must_use]
    pub fn f64(&self, key: &str) -> Option<f64> {
        self.get(key)?.as_f64()
    }

    /// The value under `key`, if it is one text or an array of nothing but texts.
    #[must_use]
    pub fn strings(&self, key: &str) -> Option<Vec<String>> {
        match self.get(key)? {
            HeaderValue::Str(text) => Some(vec![text.into_owned()]),
            HeaderValue::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
            HeaderValue::Nil
            | HeaderValue::Bool(_)
            | HeaderValue::Int(_)
            | HeaderValue::UInt(_)
            | HeaderValue::Float(_)
            | HeaderValue::Bin(_)
            | HeaderValue::Map(_) => None,
        }
    }

    /// Sets the value under `key`, in the place of an earlier one or else at the end.
    pub fn set<'v>(&mut self, key: &str, value: impl Into<HeaderValue<'v>>) {
        let mut raw = HeaderValue::from(key).encode();
        let value_at = raw.len();
        raw.extend_from_slice(&value.into().encode());
        let entry = Entry { raw: raw.into(), key_at: value_at - key.len(), value_at, key_is_text: true };
        match self.find(key) {
            Some(index) => self.entries[index] = entry,
            None => self.entries.push(entry),
        }
    }

    /// Removes `key`; says whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        self.find(key).map(|index| self.entries.remove(index)).is_some()
    }

    /// Whether `key` is there.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// The text keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter_map(Entry::key)
    }

    /// The number of headers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The same headers in memory of their own: those that were read share the bytes of their frame, and
    /// keep all of it alive.
    #[must_use]
    pub fn detached(&self) -> Self {
        let whole: Vec<u8> = self.entries.iter().flat_map(|entry| &entry.raw).copied().collect();
        let mut rest = Bytes::from(whole);
        let own = |entry: &Entry| Entry { raw: rest.split_to(entry.raw.len()), ..entry.clone() };
        Self { entries: self.entries.iter().map(own).collect() }
    }

    /// Length of all keys and values as encoded, in bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.entries.iter().map(|entry| entry.raw.len()).sum()
    }

    /// Appends those headers of `other` whose key is not here yet.
    pub fn extend_missing(&mut self, other: &Self) {
        for entry in &other.entries {
            if !self.entries.iter().any(|own| own.key_bytes() == entry.key_bytes()) {
                self.entries.push(entry.clone());
            }
        }
    }

    /// All headers as one value, as a `return` message carries those of its request.
    #[must_use]
    pub fn to_value(&self) -> HeaderValue<'_> {
        let entries = self.entries.iter().filter_map(|entry| Some((entry.key()?.into(), entry.value()?)));
        HeaderValue::Map(entries.collect())
    }

    fn find(&self, key: &str) -> Option<usize> {
        self.entries.iter().position(|entry| entry.key_bytes() == (true, key.as_bytes()))
    }

    fn refuse_repeated_keys(&self) -> Result<(), HeadersError> {
        let mut keys: Vec<(bool, &[u8])> = self.entries.iter().map(Entry::key_bytes).collect();
        keys.sort_unstable();
        match keys.array_windows().find(|[first, second]| first == second) {
            Some([(_, key), _]) => {
                Err(HeadersError::RepeatedKey { key: Excerpt::new(&String::from_utf8_lossy(key)).into() })
            }
            None => Ok(()),
        }
    }
}

impl Entry {
    /// The key's content; the same key may have been encoded in several ways.
    fn key_bytes(&self) -> (bool, &[u8]) {
        (self.key_is_text, &self.raw[self.key_at..self.value_at])
    }

    fn key(&self) -> Option<&str> {
        if self.key_is_text { str::from_utf8(self.key_bytes().1).ok() } else { None }
    }

    fn value(&self) -> Option<HeaderValue<'_>> {
        Reader::new(&self.raw[self.value_at..]).value(1).ok()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Headers")?;
        f.debug_set().entries(self.keys()).finish()
    }
}

/// Why bytes are no headers. The message they belong to is to be dropped; the link may stay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadersError {
    /// More than [`Headers::MAX_LEN`] bytes.
    #[error("headers have {len} bytes, at most {} are allowed", Headers::MAX_LEN)]
    TooLong {
        /// Length in bytes.
        len: usize,
    },
    /// The outermost value is not a map.
    #[error("headers are not a map")]
    NotAMap,
    /// Bytes follow the map.
    #[error("{len} bytes follow the headers")]
    TrailingBytes {
        /// How many.
        len: usize,
    },
    /// A key is there twice.
    #[error("header \"{key}\" is there twice")]
    RepeatedKey {
        /// The key, shortened and escaped.
        key: String,
    },
    /// A key or value is malformed.
    #[error("malformed headers")]
    Malformed(#[from] ValueError),
}

/// Headers that do not fit the 16 bits that a frame has for their length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("headers have {len} bytes, at most {} fit a frame", Headers::MAX_LEN)]
pub struct HeadersTooLarge {
    /// Length in bytes.
    pub len: usize,
}
