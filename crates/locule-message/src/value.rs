use std::borrow::Cow;

use rmp::{
    Marker,
    encode::{self, ByteBuf},
};

use crate::Fqcn;

/// One header value: what msgpack can say without extensions.
///
/// Strings and byte strings read from [`Headers`](crate::Headers) borrow from them.
///
/// # Source
/// nvflare 2.9.0 packs headers with `msgpack.packb` and its defaults: smallest integer form, floats
/// of 64 bits, `str` and `bin` families apart, tuples as arrays.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderValue<'a> {
    /// Python's `None`.
    Nil,
    /// A truth value.
    Bool(bool),
    /// An integer in the range of `i64`.
    Int(i64),
    /// An integer above `i64::MAX`.
    UInt(u64),
    /// A float; 32-bit floats are widened on reading.
    Float(f64),
    /// Text.
    Str(Cow<'a, str>),
    /// Bytes.
    Bin(Cow<'a, [u8]>),
    /// A list or tuple.
    Array(Vec<HeaderValue<'a>>),
    /// A map in the order of the wire; keys are text or bytes.
    Map(Vec<(HeaderValue<'a>, HeaderValue<'a>)>),
}

impl HeaderValue<'_> {
    /// The text, if this is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    /// The number as a float, if this is a float or an integer.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "the float is what was asked for")]
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Float(number) => Some(number),
            Self::Int(number) => Some(number as f64),
            Self::UInt(number) => Some(number as f64),
            Self::Nil | Self::Bool(_) | Self::Str(_) | Self::Bin(_) | Self::Array(_) | Self::Map(_) => None,
        }
    }

    /// The value under a text key, if this is a map.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(k, _)| k.as_str() == Some(key)).map(|(_, value)| value)
    }

    /// The same value, owning its text and bytes.
    #[must_use]
    pub fn into_owned(self) -> HeaderValue<'static> {
        match self {
            Self::Nil => HeaderValue::Nil,
            Self::Bool(value) => HeaderValue::Bool(value),
            Self::Int(value) => HeaderValue::Int(value),
            Self::UInt(value) => HeaderValue::UInt(value),
            Self::Float(value) => HeaderValue::Float(value),
            Self::Str(text) => HeaderValue::Str(Cow::Owned(text.into_owned())),
            Self::Bin(bytes) => HeaderValue::Bin(Cow::Owned(bytes.into_owned())),
            Self::Array(items) => {
                HeaderValue::Array(items.into_iter().map(HeaderValue::into_owned).collect())
            }
            Self::Map(entries) => HeaderValue::Map(
                entries.into_iter().map(|(key, value)| (key.into_owned(), value.into_owned())).collect(),
            ),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = ByteBuf::new();
        self.write(&mut out);
        out.into_vec()
    }

    fn write(&self, out: &mut ByteBuf) {
        match self {
            Self::Nil => {
                let Ok(()) = encode::write_nil(out);
            }
            Self::Bool(value) => {
                let Ok(()) = encode::write_bool(out, *value);
            }
            Self::Int(value) => {
                let Ok(_) = encode::write_sint(out, *value);
            }
            Self::UInt(value) => {
                let Ok(_) = encode::write_uint(out, *value);
            }
            Self::Float(value) => {
                let Ok(()) = encode::write_f64(out, *value);
            }
            Self::Str(text) => {
                let Ok(()) = encode::write_str(out, text);
            }
            Self::Bin(bytes) => {
                let Ok(()) = encode::write_bin(out, bytes);
            }
            Self::Array(items) => {
                let Ok(_) = encode::write_array_len(out, count(items.len()));
                items.iter().for_each(|item| item.write(out));
            }
            Self::Map(entries) => {
                let Ok(_) = encode::write_map_len(out, count(entries.len()));
                for (key, value) in entries {
                    key.write(out);
                    value.write(out);
                }
            }
        }
    }
}

/// A length that msgpack cannot say (2^32 items) is far above what headers may have; saturating makes
/// it fail the size check of [`Headers::encode`](crate::Headers::encode).
fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Why bytes are no header value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The bytes end inside a value.
    #[error("ends inside a value")]
    Truncated,
    /// Arrays and maps lie deeper in each other than is allowed.
    #[error("nests deeper than {} levels", Reader::MAX_DEPTH)]
    TooDeep,
    /// A text is not UTF-8.
    #[error("text is not utf-8")]
    NotUtf8,
    /// A map has a key that is neither text nor bytes.
    #[error("map key is neither text nor bytes")]
    InvalidKey,
    /// A msgpack extension, or the byte that msgpack reserves.
    #[error("type byte 0x{0:02x} is not allowed in headers")]
    Unsupported(u8),
}

/// Reads msgpack from a slice, front to back. Lengths are believed only as far as there are bytes.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Levels of arrays and maps in each other, the headers' own map included.
    pub(crate) const MAX_DEPTH: usize = 64;

    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Reads one value, `depth` levels of containers around it.
    pub(crate) fn value(&mut self, depth: usize) -> Result<HeaderValue<'a>, ValueError> {
        let byte = self.byte()?;
        Ok(match Marker::from_u8(byte) {
            Marker::Null => HeaderValue::Nil,
            Marker::False => HeaderValue::Bool(false),
            Marker::True => HeaderValue::Bool(true),
            Marker::FixPos(number) => HeaderValue::Int(number.into()),
            Marker::FixNeg(number) => HeaderValue::Int(number.into()),
            Marker::U8 => HeaderValue::Int(u8::from_be_bytes(self.fixed()?).into()),
            Marker::U16 => HeaderValue::Int(u16::from_be_bytes(self.fixed()?).into()),
            Marker::U32 => HeaderValue::Int(u32::from_be_bytes(self.fixed()?).into()),
            Marker::U64 => u64::from_be_bytes(self.fixed()?).into(),
            Marker::I8 => HeaderValue::Int(i8::from_be_bytes(self.fixed()?).into()),
            Marker::I16 => HeaderValue::Int(i16::from_be_bytes(self.fixed()?).into()),
            Marker::I32 => HeaderValue::Int(i32::from_be_bytes(self.fixed()?).into()),
            Marker::I64 => HeaderValue::Int(i64::from_be_bytes(self.fixed()?)),
            Marker::F32 => HeaderValue::Float(f32::from_be_bytes(self.fixed()?).into()),
            Marker::F64 => HeaderValue::Float(f64::from_be_bytes(self.fixed()?)),
            Marker::FixStr(len) => self.text(len.into())?.into(),
            Marker::Str8 => self.len8().and_then(|len| self.text(len))?.into(),
            Marker::Str16 => self.len16().and_then(|len| self.text(len))?.into(),
            Marker::Str32 => self.len32().and_then(|len| self.text(len))?.into(),
            Marker::Bin8 => self.len8().and_then(|len| self.take(len))?.into(),
            Marker::Bin16 => self.len16().and_then(|len| self.take(len))?.into(),
            Marker::Bin32 => self.len32().and_then(|len| self.take(len))?.into(),
            Marker::FixArray(len) => self.array(len.into(), depth)?,
            Marker::Array16 => self.len16().and_then(|len| self.array(len, depth))?,
            Marker::Array32 => self.len32().and_then(|len| self.array(len, depth))?,
            Marker::FixMap(len) => self.map(len.into(), depth)?,
            Marker::Map16 => self.len16().and_then(|len| self.map(len, depth))?,
            Marker::Map32 => self.len32().and_then(|len| self.map(len, depth))?,
            Marker::Reserved
            | Marker::Ext8
            | Marker::Ext16
            | Marker::Ext32
            | Marker::FixExt1
            | Marker::FixExt2
            | Marker::FixExt4
            | Marker::FixExt8
            | Marker::FixExt16 => return Err(ValueError::Unsupported(byte)),
        })
    }

    /// Reads past one value and checks it like [`value`](Self::value), without building it.
    pub(crate) fn skip(&mut self, depth: usize) -> Result<(), ValueError> {
        let byte = self.byte()?;
        let (items, is_map) = match Marker::from_u8(byte) {
            Marker::FixArray(len) => (usize::from(len), false),
            Marker::Array16 => (self.len16()?, false),
            Marker::Array32 => (self.len32()?, false),
            Marker::FixMap(len) => (usize::from(len), true),
            Marker::Map16 => (self.len16()?, true),
            Marker::Map32 => (self.len32()?, true),
            Marker::Null | Marker::False | Marker::True | Marker::FixPos(_) | Marker::FixNeg(_) => {
                return Ok(());
            }
            Marker::U8 | Marker::I8 => return self.take(1).map(drop),
            Marker::U16 | Marker::I16 => return self.take(2).map(drop),
            Marker::U32 | Marker::I32 | Marker::F32 => return self.take(4).map(drop),
            Marker::U64 | Marker::I64 | Marker::F64 => return self.take(8).map(drop),
            Marker::FixStr(len) => return self.text(len.into()).map(drop),
            Marker::Str8 => return self.len8().and_then(|len| self.text(len)).map(drop),
            Marker::Str16 => return self.len16().and_then(|len| self.text(len)).map(drop),
            Marker::Str32 => return self.len32().and_then(|len| self.text(len)).map(drop),
            Marker::Bin8 => return self.len8().and_then(|len| self.take(len)).map(drop),
            Marker::Bin16 => return self.len16().and_then(|len| self.take(len)).map(drop),
            Marker::Bin32 => return self.len32().and_then(|len| self.take(len)).map(drop),
            Marker::Reserved
            | Marker::Ext8
            | Marker::Ext16
            | Marker::Ext32
            | Marker::FixExt1
            | Marker::FixExt2
            | Marker::FixExt4
            | Marker::FixExt8
            | Marker::FixExt16 => return Err(ValueError::Unsupported(byte)),
        };
        let depth = deeper(depth)?;
        for _ in 0..items {
            if is_map {
                self.key()?;
            }
            self.skip(depth)?;
        }
        Ok(())
    }

    /// Reads the head of a map: the number of entries.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other type of msgpack is no map")]
    pub(crate) fn map_head(&mut self) -> Result<Option<usize>, ValueError> {
        Ok(match Marker::from_u8(self.byte()?) {
            Marker::FixMap(len) => Some(len.into()),
            Marker::Map16 => Some(self.len16()?),
            Marker::Map32 => Some(self.len32()?),
            _ => None,
        })
    }

    /// Reads a key of a map: text or bytes.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other type of msgpack is no key")]
    pub(crate) fn key(&mut self) -> Result<Key<'a>, ValueError> {
        Ok(match Marker::from_u8(self.byte()?) {
            Marker::FixStr(len) => Key::Text(self.text(len.into())?),
            Marker::Str8 => Key::Text(self.len8().and_then(|len| self.text(len))?),
            Marker::Str16 => Key::Text(self.len16().and_then(|len| self.text(len))?),
            Marker::Str32 => Key::Text(self.len32().and_then(|len| self.text(len))?),
            Marker::Bin8 => Key::Bytes(self.len8().and_then(|len| self.take(len))?),
            Marker::Bin16 => Key::Bytes(self.len16().and_then(|len| self.take(len))?),
            Marker::Bin32 => Key::Bytes(self.len32().and_then(|len| self.take(len))?),
            _ => return Err(ValueError::InvalidKey),
        })
    }

    fn array(&mut self, len: usize, depth: usize) -> Result<HeaderValue<'a>, ValueError> {
        let depth = deeper(depth)?;
        (0..len).map(|_| self.value(depth)).collect::<Result<_, _>>().map(HeaderValue::Array)
    }

    fn map(&mut self, len: usize, depth: usize) -> Result<HeaderValue<'a>, ValueError> {
        let depth = deeper(depth)?;
        (0..len)
            .map(|_| Ok((self.key()?.into(), self.value(depth)?)))
            .collect::<Result<_, _>>()
            .map(HeaderValue::Map)
    }

    fn text(&mut self, len: usize) -> Result<&'a str, ValueError> {
        str::from_utf8(self.take(len)?).map_err(|_| ValueError::NotUtf8)
    }

    fn len8(&mut self) -> Result<usize, ValueError> {
        self.byte().map(usize::from)
    }

    fn len16(&mut self) -> Result<usize, ValueError> {
        Ok(u16::from_be_bytes(self.fixed()?).into())
    }

    fn len32(&mut self) -> Result<usize, ValueError> {
        usize::try_from(u32::from_be_bytes(self.fixed()?)).map_err(|_| ValueError::Truncated)
    }

    fn byte(&mut self) -> Result<u8, ValueError> {
        self.fixed::<1>().map(|[byte]| byte)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], ValueError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(ValueError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ValueError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(ValueError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }
}

/// A key of a map.
pub(crate) enum Key<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl Key<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }
}

impl<'a> From<Key<'a>> for HeaderValue<'a> {
    fn from(key: Key<'a>) -> Self {
        match key {
            Key::Text(text) => text.into(),
            Key::Bytes(bytes) => bytes.into(),
        }
    }
}

fn deeper(depth: usize) -> Result<usize, ValueError> {
    if depth < Reader::MAX_DEPTH { Ok(depth + 1) } else { Err(ValueError::TooDeep) }
}

impl From<bool> for HeaderValue<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i32> for HeaderValue<'_> {
    fn from(value: i32) -> Self {
        Self::Int(value.into())
    }
}

impl From<u32> for HeaderValue<'_> {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}

impl From<i64> for HeaderValue<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u64> for HeaderValue<'_> {
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or(Self::UInt(value), Self::Int)
    }
}

impl From<f64> for HeaderValue<'_> {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl<'a> From<&'a str> for HeaderValue<'a> {
    fn from(text: &'a str) -> Self {
        Self::Str(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a String> for HeaderValue<'a> {
    fn from(text: &'a String) -> Self {
        Self::Str(Cow::Borrowed(text))
    }
}

impl From<String> for HeaderValue<'_> {
    fn from(text: String) -> Self {
        Self::Str(Cow::Owned(text))
    }
}

impl<'a> From<&'a Fqcn> for HeaderValue<'a> {
    fn from(name: &'a Fqcn) -> Self {
        name.as_str().into()
    }
}

impl<'a> From<&'a [u8]> for HeaderValue<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bin(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for HeaderValue<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bin(Cow::Owned(bytes))
    }
}

impl<'a> From<Vec<HeaderValue<'a>>> for HeaderValue<'a> {
    fn from(items: Vec<HeaderValue<'a>>) -> Self {
        Self::Array(items)
    }
}

impl<'a> From<Vec<&'a str>> for HeaderValue<'a> {
    fn from(items: Vec<&'a str>) -> Self {
        Self::Array(items.into_iter().map(Self::from).collect())
    }
}

impl From<Vec<String>> for HeaderValue<'_> {
    fn from(items: Vec<String>) -> Self {
        Self::Array(items.into_iter().map(Self::from).collect())
    }
}

impl<'a> From<&'a [String]> for HeaderValue<'a> {
    fn from(items: &'a [String]) -> Self {
        Self::Array(items.iter().map(Self::from).collect())
    }
}
