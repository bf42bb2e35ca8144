//! Bulk that arrives piece by piece.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

/// A place for one body that arrives in pieces, which knows what it has.
pub trait Spool: fmt::Debug + Send + Sync {
    /// Puts `piece` at `offset`, in bytes. What was received before stays as it is.
    ///
    /// # Errors
    /// [`SpoolError`]; nothing of the piece counts as received then.
    fn write_at(&mut self, offset: u64, piece: &[u8]) -> Result<(), SpoolError>;

    /// What has been received.
    fn received(&self) -> &Ranges;

    /// What has been received from the beginning on, in memory of its own. It may block.
    ///
    /// # Errors
    /// [`SpoolError`].
    fn read(&self) -> Result<Bytes, SpoolError>;
}

/// Why a spool does not take or give a body.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// There is no memory, or no disk, left for it.
    #[error("no room for {len} bytes")]
    NoRoom {
        /// Length of the body up to here.
        len: u64,
    },
    /// The piece would leave a gap, which this spool does not hold.
    #[error("piece at {offset} leaves a gap after {end}")]
    Gap {
        /// Where the piece begins.
        offset: u64,
        /// Where the next one should.
        end: u64,
    },
    /// The file system said no.
    #[error("cannot write or read")]
    Io(#[from] std::io::Error),
}

/// Sorted ranges of bytes that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// Adds `range`; what touches becomes one.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|held| held.end < range.start);
        let after = self.0.partition_point(|held| held.start <= range.end);
        let start = self.0.get(first).map_or(range.start, |held| held.start.min(range.start));
        let end = after
            .checked_sub(1)
            .and_then(|last| self.0.get(last))
            .map_or(range.end, |held| held.end.max(range.end));
        self.0.splice(first..after, std::iter::once(start..end));
    }

    /// Bytes from the beginning without a gap.
    #[must_use]
    pub fn contiguous(&self) -> u64 {
        self.0.first().filter(|first| first.start == 0).map_or(0, |first| first.end)
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().cloned()
    }
}

/// A body in memory, received from its beginning on.
///
/// It grows with what arrives, in steps that double up to `expected`, so that an announced length alone
/// costs nothing and a true one costs no more than the body.
#[derive(Debug)]
pub struct MemorySpool {
    body: Vec<u8>,
    expected: u64,
    received: Ranges,
}

impl MemorySpool {
    /// First step, in bytes.
    const STEP: usize = 4 << 10;

    /// A spool for a body of `expected` bytes; 0 when nobody knows.
    #[must_use]
    pub fn new(expected: u64) -> Self {
        Self { body: Vec::new(), expected, received: Ranges::default() }
    }

    /// The body.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.body.into()
    }

    fn reserve(&mut self, more: usize) -> Result<(), SpoolError> {
        let needed = self.body.len().saturating_add(more);
        if needed <= self.body.capacity() {
            return Ok(());
        }
        let expected = usize::try_from(self.expected).unwrap_or(usize::MAX);
        let doubled = self.body.capacity().saturating_mul(2).max(Self::STEP);
        let target = if expected >= needed {
            doubled.clamp(needed, expected.max(needed))
        } else {
            doubled.max(needed)
        };
        let no_room = |_| SpoolError::NoRoom { len: needed as u64 };
        self.body.try_reserve_exact(target - self.body.len()).map_err(no_room)
    }
}

impl Spool for MemorySpool {
    fn write_at(&mut self, offset: u64, piece: &[u8]) -> Result<(), SpoolError> {
        let end = self.body.len() as u64;
        if offset > end {
            return Err(SpoolError::Gap { offset, end });
        }
        let known = usize::try_from(end - offset).unwrap_or(usize::MAX).min(piece.len());
        let new = &piece[known..];
        self.reserve(new.len())?;
        self.body.extend_from_slice(new);
        self.received.insert(0..self.body.len() as u64);
        Ok(())
    }

    fn received(&self) -> &Ranges {
        &self.received
    }

    fn read(&self) -> Result<Bytes, SpoolError> {
        Ok(Bytes::copy_from_slice(&self.body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_touches_becomes_one_range() {
        let mut ranges = Ranges::default();
        for range in [10..20, 30..40, 20..25, 0..5, 5..10, 24..31, 50..50] {
            ranges.insert(range);
        }
        assert_eq!(ranges.iter().collect::<Vec<_>>(), std::slice::from_ref(&(0..40)));
        assert_eq!(ranges.contiguous(), 40);
    }

    #[test]
    fn a_gap_at_the_beginning_leaves_nothing_contiguous() {
        let mut ranges = Ranges::default();
        ranges.insert(5..9);
        assert_eq!(ranges.contiguous(), 0);
    }

    #[test]
    fn an_announced_length_costs_nothing_and_a_true_one_no_more_than_the_body() {
        let len = 5 * MemorySpool::STEP + 7;
        let mut spool = MemorySpool::new(len as u64);
        assert_eq!(spool.body.capacity(), 0);
        let piece = vec![7; MemorySpool::STEP];
        for at in (0..len).step_by(piece.len()) {
            spool.write_at(at as u64, &piece[..piece.len().min(len - at)]).unwrap();
        }
        assert_eq!(spool.body.capacity(), len);
        assert_eq!(spool.into_bytes().len(), len);
    }

    #[test]
    fn a_piece_that_comes_twice_counts_once() {
        let mut spool = MemorySpool::new(0);
        spool.write_at(0, b"abc").unwrap();
        spool.write_at(1, b"bcd").unwrap();
        spool.write_at(0, b"a").unwrap();
        assert!(matches!(spool.write_at(9, b"x"), Err(SpoolError::Gap { offset: 9, end: 4 })));
        assert_eq!(spool.into_bytes(), "abcd");
    }
}
