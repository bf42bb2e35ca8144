use std::fmt;
use std::ops::Range;

use bytes::Bytes;

/// The bytes of a message: in one piece, as they arrive, or in several, which a sender shares with others.
///
/// ```
/// use bytes::Bytes;
/// use locule_message::Body;
///
/// let model = Bytes::from(vec![7; 1000]);
/// let body: Body = [Bytes::from_static(b"for site-1: "), model.clone()].into_iter().collect();
/// assert_eq!(body.len(), 1012);
/// assert_eq!(body.slice(12..100).as_ptr(), model.as_ptr(), "nothing was copied");
/// assert_eq!(&body.slice(9..14)[..], b"1: \x07\x07");
/// assert!(body.whole().starts_with(b"for site-1: \x07"));
/// ```
#[derive(Clone, Default)]
pub struct Body {
    first: Bytes,
    rest: Vec<Bytes>,
}

impl Body {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { first: Bytes::new(), rest: Vec::new() }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces().map(Bytes::len).sum()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces().all(Bytes::is_empty)
    }

    fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// All of it as one piece; copied only if it is in several.
    #[must_use]
    pub fn whole(&self) -> Bytes {
        if self.rest.is_empty() {
            return self.first.clone();
        }
        self.slice(0..self.len())
    }

    /// A part of it, as far as there is that much; copied only if it lies in several pieces.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Bytes {
        let mut start = 0;
        let mut found = Vec::new();
        for piece in self.pieces() {
            let end = start + piece.len();
            let (from, to) = (range.start.clamp(start, end), range.end.clamp(start, end));
            if from < to {
                found.push(piece.slice(from - start..to - start));
            }
            start = end;
            if range.end <= end {
                break;
            }
        }
        match found.len() {
            0 | 1 => found.pop().unwrap_or_default(),
            _ => found.concat().into(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(first: Bytes) -> Self {
        Self { first, rest: Vec::new() }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl FromIterator<Bytes> for Body {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let mut pieces = pieces.into_iter();
        Self { first: pieces.next().unwrap_or_default(), rest: pieces.collect() }
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.whole() == other.whole()
    }
}

impl Eq for Body {}

impl<T: ?Sized> PartialEq<T> for Body
where
    Bytes: PartialEq<T>,
{
    fn eq(&self, other: &T) -> bool {
        self.whole() == *other
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.whole().fmt(f)
    }
}
