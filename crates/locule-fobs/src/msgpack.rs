//! msgpack, token by token; extension types are not part of the format.

use std::ops::Range;

use crate::error::{DecodeError, EncodeError};

/// One token: a leaf, or the head of a container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Nil,
    Bool(bool),
    Int(i64),
    /// Above `i64::MAX`.
    UInt(u64),
    Float(f64),
    /// Where the text lies; not yet known to be UTF-8.
    Str(Range<usize>),
    Bin(Range<usize>),
    /// So many items follow.
    Array(usize),
    /// So many pairs follow.
    Map(usize),
}

#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// Bytes not yet read.
    pub(crate) fn remaining(&self) -> usize {
        self.data.len() - self.at
    }

    pub(crate) fn next(&mut self) -> Result<Token, DecodeError> {
        let at = self.at;
        let [marker] = self.take()?;
        Ok(match marker {
            0x00..=0x7f => Token::Int(marker.into()),
            0x80..=0x8f => Token::Map((marker & 0x0f).into()),
            0x90..=0x9f => Token::Array((marker & 0x0f).into()),
            0xa0..=0xbf => Token::Str(self.range((marker & 0x1f).into())?),
            0xc0 => Token::Nil,
            0xc2 => Token::Bool(false),
            0xc3 => Token::Bool(true),
            0xc4 | 0xd9 => self.long(marker, 1)?,
            0xc5 | 0xda | 0xdc | 0xde => self.long(marker, 2)?,
            0xc6 | 0xdb | 0xdd | 0xdf => self.long(marker, 4)?,
            0xca => Token::Float(f32::from_be_bytes(self.take()?).into()),
            0xcb => Token::Float(f64::from_be_bytes(self.take()?)),
            0xcc => Token::Int(u8::from_be_bytes(self.take()?).into()),
            0xcd => Token::Int(u16::from_be_bytes(self.take()?).into()),
            0xce => Token::Int(u32::from_be_bytes(self.take()?).into()),
            0xcf => {
                let number = u64::from_be_bytes(self.take()?);
                i64::try_from(number).map_or(Token::UInt(number), Token::Int)
            }
            0xd0 => Token::Int(i8::from_be_bytes(self.take()?).into()),
            0xd1 => Token::Int(i16::from_be_bytes(self.take()?).into()),
            0xd2 => Token::Int(i32::from_be_bytes(self.take()?).into()),
            0xd3 => Token::Int(i64::from_be_bytes(self.take()?)),
            0xe0..=0xff => Token::Int((marker as i8).into()),
            0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => return Err(DecodeError::Msgpack { marker, at }),
        })
    }

    /// The rest of a token whose length takes `width` bytes.
    fn long(&mut self, marker: u8, width: usize) -> Result<Token, DecodeError> {
        let digits = self.range(width)?;
        let len = self.data[digits].iter().fold(0, |len, digit| len << 8 | usize::from(*digit));
        Ok(match marker {
            0xc4..=0xc6 => Token::Bin(self.range(len)?),
            0xd9..=0xdb => Token::Str(self.range(len)?),
            0xdc | 0xdd => Token::Array(len),
            _ => Token::Map(len),
        })
    }

    fn range(&mut self, len: usize) -> Result<Range<usize>, DecodeError> {
        if len > self.remaining() {
            return Err(DecodeError::Truncated(self.data.len()));
        }
        self.at += len;
        Ok(self.at - len..self.at)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (bytes, _) =
            self.data[self.at..].split_first_chunk().ok_or(DecodeError::Truncated(self.data.len()))?;
        self.at += N;
        Ok(*bytes)
    }

    /// The bytes of a text or bin token.
    pub(crate) fn slice(&self, range: &Range<usize>) -> &'a [u8] {
        &self.data[range.clone()]
    }

    /// The text of a token.
    pub(crate) fn text(&self, range: &Range<usize>) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.slice(range))
            .map_err(|error| DecodeError::Utf8(range.start + error.valid_up_to()))
    }
}

/// Walks one value without building anything: well formed, not too deep, not too many values.
///
/// Containers are charged when their head is seen, so a lie about a length costs nothing, and a payload
/// that is refused has not taken any memory.
pub(crate) fn check(data: &[u8], depth: usize, values: usize) -> Result<(), DecodeError> {
    let mut reader = Reader::new(data);
    let mut left = values;
    // What is still to come in this container, and in those around it.
    let (mut here, mut around) = (1, Vec::with_capacity(depth));
    loop {
        while here == 0 {
            match around.pop() {
                Some(outer) => here = outer,
                None if reader.remaining() == 0 => return Ok(()),
                None => return Err(DecodeError::TrailingBytes(reader.remaining())),
            }
        }
        here -= 1;
        let inside = match reader.next()? {
            Token::Array(len) => len,
            Token::Map(len) => len.saturating_mul(2),
            Token::Nil
            | Token::Bool(_)
            | Token::Int(_)
            | Token::UInt(_)
            | Token::Float(_)
            | Token::Str(_)
            | Token::Bin(_) => continue,
        };
        if around.len() == depth {
            return Err(DecodeError::TooDeep(depth));
        }
        left = left.checked_sub(inside).ok_or(DecodeError::TooManyValues(values))?;
        if inside > reader.remaining() {
            return Err(DecodeError::Truncated(data.len()));
        }
        around.push(here);
        here = inside;
    }
}

/// Writes tokens in their shortest form, as Python's msgpack does; floats always take 64 bits.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) out: Vec<u8>,
}

impl Writer {
    pub(crate) fn nil(&mut self) {
        self.out.push(0xc0);
    }

    pub(crate) fn bool(&mut self, flag: bool) {
        self.out.push(0xc2 + u8::from(flag));
    }

    pub(crate) fn float(&mut self, number: f64) {
        self.marked(0xcb, number.to_be_bytes());
    }

    pub(crate) fn int(&mut self, number: i64) {
        match number {
            0.. => self.uint(number.unsigned_abs()),
            -0x20.. => self.out.push(number as u8),
            -0x80.. => self.marked(0xd0, (number as i8).to_be_bytes()),
            -0x8000.. => self.marked(0xd1, (number as i16).to_be_bytes()),
            -0x8000_0000.. => self.marked(0xd2, (number as i32).to_be_bytes()),
            _ => self.marked(0xd3, number.to_be_bytes()),
        }
    }

    pub(crate) fn uint(&mut self, number: u64) {
        match number {
            0..0x80 => self.out.push(number as u8),
            0x80..0x100 => self.marked(0xcc, (number as u8).to_be_bytes()),
            0x100..0x1_0000 => self.marked(0xcd, (number as u16).to_be_bytes()),
            0x1_0000..0x1_0000_0000 => self.marked(0xce, (number as u32).to_be_bytes()),
            0x1_0000_0000.. => self.marked(0xcf, number.to_be_bytes()),
        }
    }

    pub(crate) fn str(&mut self, text: &str) -> Result<(), EncodeError> {
        match text.len() {
            len @ 0..0x20 => self.out.push(0xa0 | len as u8),
            len @ 0x20..0x100 => self.marked(0xd9, [len as u8]),
            len => self.long(len, 0xda, 0xdb)?,
        }
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// The head of a bin value; its bytes follow.
    pub(crate) fn bin(&mut self, len: usize) -> Result<(), EncodeError> {
        match len {
            0..0x100 => self.marked(0xc4, [len as u8]),
            _ => self.long(len, 0xc5, 0xc6)?,
        }
        Ok(())
    }

    pub(crate) fn array(&mut self, len: usize) -> Result<(), EncodeError> {
        match len {
            0..0x10 => self.out.push(0x90 | len as u8),
            _ => self.long(len, 0xdc, 0xdd)?,
        }
        Ok(())
    }

    pub(crate) fn map(&mut self, len: usize) -> Result<(), EncodeError> {
        match len {
            0..0x10 => self.out.push(0x80 | len as u8),
            _ => self.long(len, 0xde, 0xdf)?,
        }
        Ok(())
    }

    /// A length of 16 or 32 bits.
    fn long(&mut self, len: usize, short: u8, long: u8) -> Result<(), EncodeError> {
        match (u16::try_from(len), u32::try_from(len)) {
            (Ok(len), _) => self.marked(short, len.to_be_bytes()),
            (_, Ok(len)) => self.marked(long, len.to_be_bytes()),
            _ => return Err(EncodeError::TooLong),
        }
        Ok(())
    }

    fn marked<const N: usize>(&mut self, marker: u8, bytes: [u8; N]) {
        self.out.push(marker);
        self.out.extend_from_slice(&bytes);
    }
}
