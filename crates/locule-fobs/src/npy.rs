//! The header of NPY files.
//!
//! Magic, version, length of the header, and a Python dictionary as text: `{'descr': '<f4',
//! 'fortran_order': False, 'shape': (2, 3), }`, padded with spaces and a newline so that the data begin
//! at a multiple of 64.
//!
//! # Source
//! numpy, `numpy.lib.format`, versions 1.0 to 3.0 of the file format.

use bytes::Bytes;

use crate::array::{Array, Dtype, Layout, ShapeMismatch};
use crate::error::shown;

const MAGIC: &[u8] = b"\x93NUMPY";
const ALIGN: usize = 64;
/// numpy leaves room for the first extent to grow to this many digits.
const GROWTH_DIGITS: usize = 21;
/// numpy's own bound on the length of a header that it will read.
const MAX_HEADER: usize = 10_000;
const MAX_DIMENSIONS: usize = 64;

/// Why bytes are not the NPY file of a numeric array.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NpyError {
    /// It does not begin like one, or is cut off, or has an unknown version.
    #[error("not an NPY file")]
    NotNpy,
    /// The header is not what numpy writes.
    #[error("bad NPY header at byte {0}")]
    Header(usize),
    /// The elements are Python objects, which would have to be unpickled.
    #[error("array of Python objects")]
    Objects,
    /// The elements are not numbers but text, dates, records or the like.
    #[error("array of dtype {0} is not numeric")]
    NotNumeric(String),
    /// The data are shorter or longer than the header says.
    #[error(transparent)]
    Shape(#[from] ShapeMismatch),
}

/// Everything before the data.
pub(crate) fn header(dtype: Dtype, layout: Layout, shape: &[usize]) -> Vec<u8> {
    let order = match (dtype.size(), layout.big_endian) {
        (1, _) => '|',
        (_, false) => '<',
        (_, true) => '>',
    };
    let extents: Vec<String> = shape.iter().map(usize::to_string).collect();
    let tuple = match extents.as_slice() {
        [only] => format!("({only},)"),
        all => format!("({})", all.join(", ")),
    };
    let fortran = if layout.fortran { "True" } else { "False" };
    let mut text =
        format!("{{'descr': '{order}{}', 'fortran_order': {fortran}, 'shape': {tuple}, }}", dtype.code());
    let growing = if layout.fortran { extents.last() } else { extents.first() };
    if let Some(extent) = growing {
        text.extend(std::iter::repeat_n(' ', GROWTH_DIGITS.saturating_sub(extent.len())));
    }
    let unpadded = MAGIC.len() + 4 + text.len() + 1;
    text.extend(std::iter::repeat_n(' ', ALIGN - unpadded % ALIGN));
    text.push('\n');

    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    // 64 extents of 20 digits stay far below 65,536 bytes.
    bytes.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

/// Reads a whole file.
pub(crate) fn read(file: Bytes) -> Result<Array, NpyError> {
    let rest = file.strip_prefix(MAGIC).ok_or(NpyError::NotNpy)?;
    let (start, len) = match *rest {
        [1, 0, a, b, ..] => (10, usize::from(u16::from_le_bytes([a, b]))),
        [2 | 3, 0, a, b, c, d, ..] => (12, u32::from_le_bytes([a, b, c, d]) as usize),
        _ => return Err(NpyError::NotNpy),
    };
    if len > MAX_HEADER {
        return Err(NpyError::Header(start));
    }
    let text = file.get(start..start + len).ok_or(NpyError::NotNpy)?;
    let header = Scanner { text, at: 0 }.dictionary().map_err(|at| NpyError::Header(start + at))?;
    let (dtype, big_endian) = match header.descr {
        Descr::Text(descr) => match numeric(descr) {
            Some(found) => found,
            None if descr.contains('O') => return Err(NpyError::Objects),
            None => return Err(NpyError::NotNumeric(shown(descr))),
        },
        Descr::Record { objects: true } => return Err(NpyError::Objects),
        Descr::Record { objects: false } => return Err(NpyError::NotNumeric("record".to_owned())),
    };
    let layout = Layout { fortran: header.fortran, big_endian };
    Ok(Array::with_layout(dtype, header.shape, layout, file.slice(start + len..))?)
}

fn numeric(descr: &str) -> Option<(Dtype, bool)> {
    let (big_endian, code) = match descr.split_at_checked(1)? {
        ("<" | "|", code) => (false, code),
        (">", code) => (true, code),
        _ => return None,
    };
    let dtype = Dtype::ALL.into_iter().find(|dtype| dtype.code() == code)?;
    // A single byte has no order; numpy writes `|` for it.
    Some((dtype, big_endian && dtype.size() > 1))
}

struct Header<'a> {
    descr: Descr<'a>,
    fortran: bool,
    shape: Vec<usize>,
}

enum Descr<'a> {
    Text(&'a str),
    Record { objects: bool },
}

/// Reads the one dictionary; errors are the place in the text.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn dictionary(mut self) -> Result<Header<'a>, usize> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.expect(b'{')?;
        while !self.skip(b'}') {
            match self.string()? {
                "descr" => {
                    self.expect(b':')?;
                    descr = Some(self.descr()?);
                }
                "fortran_order" => {
                    self.expect(b':')?;
                    fortran = Some(self.boolean()?);
                }
                "shape" => {
                    self.expect(b':')?;
                    shape = Some(self.shape()?);
                }
                _ => return Err(self.at),
            }
            if !self.skip(b',') {
                self.expect(b'}')?;
                break;
            }
        }
        match (descr, fortran, shape, self.peek()) {
            (Some(descr), Some(fortran), Some(shape), None) => Ok(Header { descr, fortran, shape }),
            _ => Err(self.at),
        }
    }

    fn descr(&mut self) -> Result<Descr<'a>, usize> {
        if self.peek() != Some(b'[') {
            return self.string().map(Descr::Text);
        }
        // A record: skip to the matching bracket. Every string in it is a name or a type code.
        let (mut depth, mut objects) = (0usize, false);
        loop {
            match self.peek().ok_or(self.at)? {
                b'[' | b'(' => (depth, self.at) = (depth + 1, self.at + 1),
                b']' | b')' => (depth, self.at) = (depth - 1, self.at + 1),
                b'\'' | b'"' => objects |= matches!(self.string()?, "O" | "|O" | "O8" | "|O8"),
                _ => self.at += 1,
            }
            if depth == 0 {
                return Ok(Descr::Record { objects });
            }
        }
    }

    fn shape(&mut self) -> Result<Vec<usize>, usize> {
        let mut shape = Vec::new();
        self.expect(b'(')?;
        while !self.skip(b')') {
            shape.push(self.number()?);
            if shape.len() > MAX_DIMENSIONS {
                return Err(self.at);
            }
            if !self.skip(b',') {
                self.expect(b')')?;
                break;
            }
        }
        Ok(shape)
    }

    fn number(&mut self) -> Result<usize, usize> {
        self.peek();
        let digits = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let text = std::str::from_utf8(&self.text[self.at..self.at + digits]).map_err(|_| self.at)?;
        let number = text.parse().map_err(|_| self.at)?;
        self.at += digits;
        Ok(number)
    }

    fn boolean(&mut self) -> Result<bool, usize> {
        self.peek();
        for (word, value) in [("True", true), ("False", false)] {
            if self.text[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.at)
    }

    fn string(&mut self) -> Result<&'a str, usize> {
        let quote = self.peek().filter(|byte| matches!(byte, b'\'' | b'"')).ok_or(self.at)?;
        let start = self.at + 1;
        let len = self.text[start..].iter().position(|byte| *byte == quote).ok_or(self.at)?;
        self.at = start + len + 1;
        std::str::from_utf8(&self.text[start..start + len]).map_err(|_| start)
    }

    fn expect(&mut self, byte: u8) -> Result<(), usize> {
        if self.skip(byte) { Ok(()) } else { Err(self.at) }
    }

    fn skip(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// The next byte that is not white space; stops in front of it.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.text.get(self.at..)?;
        self.at += rest.iter().take_while(|byte| matches!(byte, b' ' | b'\n')).count();
        self.text.get(self.at).copied()
    }
}
