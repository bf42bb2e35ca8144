//! What two ends of a link say to each other: bytes, numbered, and how many more may come.

use std::collections::VecDeque;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::Fault;

/// Asks a listener for a link; the reply goes to the dialling end's subject.
pub(crate) const DIAL: &[u8] = b"locule/1 dial";
/// Answers it; the reply goes to the listening end's subject.
pub(crate) const HERE: &[u8] = b"locule/1 here";
/// Asks whether there is a listener already.
pub(crate) const ANYBODY: &[u8] = b"locule/1 anybody";
/// Answers that.
pub(crate) const TAKEN: &[u8] = b"locule/1 taken";

/// Bytes that are under way to one end or wait there, at most.
pub(crate) const WINDOW: u64 = 2 << 20;
/// What a piece counts beside its bytes: what it costs who keeps it.
pub(crate) const PIECE_COST: u64 = 512;
/// Most bytes of a piece.
pub(crate) const MAX_PIECE: usize = 64 << 10;
/// A header: kind, number, allowance.
pub(crate) const HEADER_LEN: usize = 1 + 8 + 8;

/// What a message between two ends is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes.
    Piece,
    /// Nothing but that its sender is there.
    Alive,
    /// No piece follows.
    End,
    /// Its sender has given the link up.
    Gone,
}

/// What stands before each piece, and is all of every other message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Pieces that its sender has sent before: a message that was lost is missed at the next one.
    pub(crate) number: u64,
    /// What its sender takes in all, from the link's beginning, in bytes and [`PIECE_COST`]s.
    pub(crate) allowance: u64,
}

impl Header {
    pub(crate) fn before(self, bytes: &[u8]) -> Bytes {
        let mut message = BytesMut::with_capacity(HEADER_LEN + bytes.len());
        message.put_u8(match self.kind {
            Kind::Piece => 0,
            Kind::Alive => 1,
            Kind::End => 2,
            Kind::Gone => 3,
        });
        message.put_u64(self.number);
        message.put_u64(self.allowance);
        message.put_slice(bytes);
        message.freeze()
    }

    /// The header of a message and the bytes behind it.
    pub(crate) fn read(mut message: Bytes) -> Result<(Self, Bytes), Fault> {
        if message.len() < HEADER_LEN {
            return Err(Fault::Protocol("a message without a header"));
        }
        let kind = match message.get_u8() {
            0 => Kind::Piece,
            1 => Kind::Alive,
            2 => Kind::End,
            3 => Kind::Gone,
            _ => return Err(Fault::Protocol("a message of no known kind")),
        };
        let header = Self { kind, number: message.get_u64(), allowance: message.get_u64() };
        match (kind, message.len()) {
            (Kind::Piece, 1..=MAX_PIECE) | (Kind::Alive | Kind::End | Kind::Gone, 0) => Ok((header, message)),
            (Kind::Piece, 0) => Err(Fault::Protocol("an empty piece")),
            (Kind::Piece, _) => Err(Fault::Protocol("a piece of more than 64 KiB")),
            (Kind::Alive | Kind::End | Kind::Gone, _) => Err(Fault::Protocol("bytes where there are none")),
        }
    }
}

/// What arrives at one end.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    pieces: VecDeque<Bytes>,
    /// Pieces that have come.
    number: u64,
    /// What they cost, and what those cost that were passed on.
    arrived: u64,
    passed: u64,
    has_ended: bool,
}

impl Incoming {
    /// Takes in what a message says; `allowed` is the largest allowance that its sender was told.
    pub(crate) fn take(&mut self, header: Header, bytes: Bytes, allowed: u64) -> Result<(), Fault> {
        if header.number != self.number {
            return Err(Fault::Lost { due: self.number, came: header.number });
        }
        match header.kind {
            Kind::Piece if self.has_ended => return Err(Fault::Protocol("a piece after the end")),
            Kind::Piece => {
                self.number += 1;
                self.arrived += bytes.len() as u64 + PIECE_COST;
                if self.arrived > allowed {
                    return Err(Fault::Protocol("more than it was allowed to send"));
                }
                self.pieces.push_back(bytes);
            }
            Kind::End => self.has_ended = true,
            Kind::Gone => return Err(Fault::Gone),
            Kind::Alive => {}
        }
        Ok(())
    }

    /// What is to be passed on next.
    pub(crate) fn front(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// So many bytes of the front were passed on.
    pub(crate) fn pass(&mut self, count: usize) {
        if let Some(piece) = self.pieces.front_mut() {
            piece.advance(count);
            self.passed += count as u64;
            if piece.is_empty() {
                self.pieces.pop_front();
                self.passed += PIECE_COST;
            }
        }
    }

    /// Forgets what is there, and what comes.
    pub(crate) fn pass_all(&mut self) {
        self.pieces.clear();
        self.passed = self.arrived;
    }

    /// What the peer may send in all, if its window is open as far as it goes.
    pub(crate) fn allowance(&self) -> u64 {
        self.passed + WINDOW
    }

    /// Whether the peer has ended its direction; what came before may still be here.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }
}

/// What leaves one end.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Pieces that have left.
    pub(crate) number: u64,
    /// What they cost.
    spent: u64,
    /// What the peer takes in all.
    allowance: u64,
}

impl Outgoing {
    /// How many bytes the next piece may have.
    pub(crate) fn room(&self) -> usize {
        let room = self.allowance.saturating_sub(self.spent).saturating_sub(PIECE_COST);
        usize::try_from(room).unwrap_or(usize::MAX).min(MAX_PIECE)
    }

    pub(crate) fn allow(&mut self, allowance: u64) {
        self.allowance = self.allowance.max(allowance);
    }

    /// A piece of so many bytes leaves.
    pub(crate) fn send(&mut self, len: usize) {
        self.number += 1;
        self.spent += len as u64 + PIECE_COST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn piece(number: u64) -> Header {
        Header { kind: Kind::Piece, number, allowance: 0 }
    }

    #[test]
    fn a_window_is_what_may_wait_and_opens_as_it_is_passed_on() {
        let (mut near, mut far) = (Outgoing::default(), Incoming::default());
        assert_eq!(near.room(), 0, "nothing leaves before the peer has said what it takes");
        near.allow(far.allowance());
        let mut sent = 0;
        while near.room() > 0 {
            let bytes = Bytes::from(vec![7; near.room()]);
            sent += bytes.len();
            far.take(piece(near.number), bytes.clone(), far.allowance()).unwrap();
            near.send(bytes.len());
        }
        assert!(sent as u64 <= WINDOW && sent as u64 > WINDOW - (WINDOW >> 5), "{sent}");
        far.pass(MAX_PIECE);
        near.allow(far.allowance());
        assert_eq!(near.room(), MAX_PIECE);
    }

    #[test]
    fn the_smallest_pieces_cost_what_they_take() {
        let mut far = Incoming::default();
        let allowed = far.allowance();
        let most = WINDOW / (PIECE_COST + 1);
        for number in 0..most {
            far.take(piece(number), Bytes::from_static(b"x"), allowed).unwrap();
        }
        let outcome = far.take(piece(most), Bytes::from_static(b"x"), allowed);
        assert!(matches!(outcome, Err(Fault::Protocol(_))), "{outcome:?}");
    }

    #[test]
    fn a_lost_piece_is_missed_at_whatever_comes_next() {
        for kind in [Kind::Piece, Kind::Alive, Kind::End] {
            let mut far = Incoming::default();
            let header = Header { kind, number: 1, allowance: 0 };
            let outcome = far.take(header, Bytes::from_static(b"x"), WINDOW);
            assert_eq!(outcome, Err(Fault::Lost { due: 0, came: 1 }), "{kind:?}");
        }
    }

    #[test]
    fn an_end_is_the_end() {
        let mut far = Incoming::default();
        far.take(Header { kind: Kind::End, ..piece(0) }, Bytes::new(), WINDOW).unwrap();
        assert!(far.has_ended() && far.is_empty());
        far.take(Header { kind: Kind::Alive, ..piece(0) }, Bytes::new(), WINDOW).unwrap();
        assert!(far.take(piece(0), Bytes::from_static(b"x"), WINDOW).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(kind in 0..4_u8, number: u64, allowance: u64, bytes: Vec<u8>) {
            let kind = [Kind::Piece, Kind::Alive, Kind::End, Kind::Gone][usize::from(kind)];
            let header = Header { kind, number, allowance };
            let fits = bytes.is_empty() != (kind == Kind::Piece);
            let read = Header::read(header.before(&bytes));
            prop_assert_eq!(read.ok(), fits.then(|| (header, bytes.into())));
        }

        #[test]
        fn reading_never_panics(bytes: Vec<u8>) {
            Header::read(bytes.into()).ok();
        }
    }
}
