//! The bytes of a gRPC message that carries one frame; no I/O.
//!
//! | bytes | meaning |
//! |---|---|
//! | 1 | 0: not compressed |
//! | 4 | length of what follows, big-endian |
//! | `08`, varint | `Frame.seq`, a positive int32 |
//! | `12`, varint, bytes | `Frame.data`: the frame; absent when it is empty |

use bytes::{Buf, BufMut, Bytes, BytesMut};
use locule_transport::LinkError;

/// The most that a message has around its frame, in bytes, without gRPC's own five: a negative
/// `seq` takes 11, tag and length of `data` 6, and what is left is for fields nobody knows yet.
const ENVELOPE: usize = 64;
/// gRPC's prefix of each message, in bytes.
const PREFIX: usize = 5;
/// What the first reservation for a frame may be, in bytes, whatever length is announced.
const FIRST_RESERVATION: usize = 64 << 10;

/// Writes what goes in front of a frame of `len` bytes.
///
/// `len` is below 2³¹, as the largest frame is.
pub(crate) fn put_envelope(out: &mut BytesMut, seq: u32, len: usize) {
    let len = len as u64;
    let data_field = if len == 0 { 0 } else { 1 + varint_len(len) as u64 + len };
    let message_len = 1 + varint_len(seq.into()) as u64 + data_field;
    out.put_u8(0);
    out.put_u32(u32::try_from(message_len).unwrap_or(u32::MAX));
    out.put_u8(0x08);
    put_varint(out, seq.into());
    if len > 0 {
        out.put_u8(0x12);
        put_varint(out, len);
    }
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Cuts arriving bytes into frames.
///
/// A frame that lies within one piece is a slice of it. One that spans pieces is gathered in a buffer
/// that grows with the bytes that arrived, never with the length that was announced.
#[derive(Debug, Default)]
pub(crate) struct Deframer {
    piece: Bytes,
    prefix: [u8; PREFIX],
    prefix_filled: usize,
    gathered: Vec<u8>,
    received: u64,
}

impl Deframer {
    /// Takes the next piece; call [`Self::next`] until it gives nothing, before another one.
    pub(crate) fn push(&mut self, piece: Bytes) {
        debug_assert!(self.piece.is_empty(), "the last piece was used up");
        self.received += piece.len() as u64;
        self.piece = piece;
    }

    /// Whether a message has begun and not ended.
    pub(crate) fn is_inside(&self) -> bool {
        self.prefix_filled > 0
    }

    /// All that was ever pushed, in bytes.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// The next whole frame, if it has arrived.
    pub(crate) fn next(&mut self, max: usize) -> Result<Option<Bytes>, LinkError> {
        if self.prefix_filled < PREFIX {
            let part = self.piece.len().min(PREFIX - self.prefix_filled);
            self.piece.copy_to_slice(&mut self.prefix[self.prefix_filled..][..part]);
            self.prefix_filled += part;
            if self.prefix_filled < PREFIX {
                return Ok(None);
            }
        }
        let [compressed, len @ ..] = self.prefix;
        if compressed != 0 {
            return Err(protocol("a compressed message, though no compression was agreed on"));
        }
        let len = u32::from_be_bytes(len) as usize;
        if len > max.saturating_add(ENVELOPE) {
            return Err(LinkError::FrameTooLarge { len, max });
        }
        let Some(message) = self.take(len) else { return Ok(None) };
        self.prefix_filled = 0;
        let frame = data_of(message)?;
        if frame.len() > max {
            Err(LinkError::FrameTooLarge { len: frame.len(), max })
        } else {
            Ok(Some(frame))
        }
    }

    fn take(&mut self, len: usize) -> Option<Bytes> {
        if self.gathered.is_empty() && self.piece.len() >= len {
            return Some(self.piece.split_to(len));
        }
        let part = self.piece.split_to(self.piece.len().min(len - self.gathered.len()));
        let needed = self.gathered.len() + part.len();
        if needed > self.gathered.capacity() {
            let room = (self.gathered.capacity() * 2).max(FIRST_RESERVATION).max(needed).min(len);
            self.gathered.reserve_exact(room - self.gathered.len());
        }
        self.gathered.extend_from_slice(&part);
        (self.gathered.len() == len).then(|| std::mem::take(&mut self.gathered).into())
    }
}

/// `Frame.data` of an encoded `Frame`; empty when it is absent, the last one when there are several.
fn data_of(message: Bytes) -> Result<Bytes, LinkError> {
    let mut rest = message;
    let mut data = Bytes::new();
    while !rest.is_empty() {
        let tag = take_varint(&mut rest)?;
        match (tag >> 3, tag & 7) {
            (0, _) => return Err(protocol("a field with number 0")),
            (1, kind) if kind != 0 => return Err(protocol("seq is not a number")),
            (2, kind) if kind != 2 => return Err(protocol("data is not bytes")),
            (_, 0) => drop(take_varint(&mut rest)?),
            (_, 1) => drop(take_bytes(&mut rest, 8)?),
            (number, 2) => {
                let len = take_varint(&mut rest)?;
                let value = take_bytes(&mut rest, len)?;
                if number == 2 {
                    data = value;
                }
            }
            (_, 5) => drop(take_bytes(&mut rest, 4)?),
            _ => return Err(protocol("a field of a kind that Frame cannot have")),
        }
    }
    Ok(data)
}

fn take_varint(from: &mut Bytes) -> Result<u64, LinkError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = from.try_get_u8().map_err(|_| protocol("a message that ends inside a field"))?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(protocol("a number of more than ten bytes"))
}

fn take_bytes(from: &mut Bytes, len: u64) -> Result<Bytes, LinkError> {
    match usize::try_from(len) {
        Ok(len) if len <= from.len() => Ok(from.split_to(len)),
        _ => Err(protocol("a message that ends inside a field")),
    }
}

pub(crate) fn protocol(reason: impl Into<String>) -> LinkError {
    LinkError::Protocol { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;

    /// `Frame` as another library reads and writes it.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Frame {
        #[prost(int32, tag = "1")]
        seq: i32,
        #[prost(bytes = "bytes", tag = "2")]
        data: Bytes,
    }

    fn written(seq: u32, data: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        put_envelope(&mut out, seq, data.len());
        out.extend_from_slice(data);
        out
    }

    fn grpc(message: &[u8]) -> Vec<u8> {
        let mut out = vec![0];
        out.extend_from_slice(&(message.len() as u32).to_be_bytes());
        out.extend_from_slice(message);
        out
    }

    fn read(bytes: &[u8], piece_len: usize, max: usize) -> Result<Vec<Bytes>, LinkError> {
        let mut deframer = Deframer::default();
        let mut frames = Vec::new();
        for piece in bytes.chunks(piece_len) {
            deframer.push(Bytes::copy_from_slice(piece));
            while let Some(frame) = deframer.next(max)? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn a_hello_looks_as_a_stock_peer_sends_it() {
        let message = written(1, &[7; 69]);
        assert_eq!(&message[..9], [0, 0, 0, 0, 0x49, 0x08, 0x01, 0x12, 0x45]);
    }

    #[test]
    fn an_announced_length_reserves_nothing() {
        let mut deframer = Deframer::default();
        deframer.push(Bytes::from_static(&[0, 0x7f, 0xff, 0, 0, 0x12]));
        assert!(matches!(deframer.next(usize::MAX), Ok(None)));
        assert!(deframer.gathered.capacity() <= FIRST_RESERVATION);
        assert!(deframer.is_inside());
    }

    #[test]
    fn a_frame_within_a_piece_is_not_copied() {
        let piece = written(1, b"abc").freeze();
        let mut deframer = Deframer::default();
        deframer.push(piece.clone());
        let frame = deframer.next(3).unwrap().unwrap();
        assert!(piece.as_ptr_range().contains(&frame.as_ptr()));
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_before_it_arrives() {
        let bytes = written(1, &[0; 1000]);
        assert!(matches!(read(&bytes[..5], 5, 900), Err(LinkError::FrameTooLarge { max: 900, .. })));
        assert!(matches!(read(&bytes, 2000, 999), Err(LinkError::FrameTooLarge { len: 1000, max: 999 })));
        assert_eq!(read(&bytes, 2000, 1000).unwrap(), [vec![0; 1000]]);
    }

    #[test]
    fn compressed_and_broken_messages_are_refused() {
        for bytes in [
            &[1, 0, 0, 0, 0][..],                                                   // compressed
            &[0, 0, 0, 0, 1, 0x12],                                                 // ends behind a tag
            &[0, 0, 0, 0, 2, 0x12, 5], // announces more than there is
            &[0, 0, 0, 0, 2, 0x13, 0], // a group
            &[0, 0, 0, 0, 2, 0x0a, 0], // seq as bytes
            &[0, 0, 0, 0, 2, 0x10, 0], // data as number
            &[0, 0, 0, 0, 2, 0x00, 0], // field 0
            &[0, 0, 0, 0, 11, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255], // endless varint
        ] {
            assert!(matches!(read(bytes, 100, 100), Err(LinkError::Protocol { .. })), "{bytes:?}");
        }
    }

    #[test]
    fn unknown_fields_are_skipped() {
        let message =
            [0x18, 0x80, 0x01, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 0x12, 1, 9, 0x2a, 1, 0, 0x35, 1, 2, 3, 4];
        assert_eq!(read(&grpc(&message), 100, 100).unwrap(), [&[9][..]]);
    }

    proptest! {
        #[test]
        fn other_libraries_read_what_is_written(seq in 1..=i32::MAX as u32, data: Vec<u8>) {
            let written = written(seq, &data);
            let message = Frame { seq: seq as i32, data: data.into() };
            prop_assert_eq!(&written[..], grpc(&message.encode_to_vec()));
        }

        #[test]
        fn what_other_libraries_write_is_read(
            frames: Vec<(i32, Vec<u8>)>,
            piece_len in 1..200usize,
        ) {
            let mut bytes = Vec::new();
            for (seq, data) in &frames {
                bytes.extend(grpc(&Frame { seq: *seq, data: data.clone().into() }.encode_to_vec()));
            }
            let read = read(&bytes, piece_len, 1 << 20).unwrap();
            prop_assert_eq!(read, frames.into_iter().map(|(_, data)| data).collect::<Vec<_>>());
        }

        #[test]
        fn reading_never_panics(bytes: Vec<u8>, piece_len in 1..20usize) {
            let _ = read(&bytes, piece_len, 100);
            let _ = read(&grpc(&bytes), piece_len, 100);
        }
    }
}
