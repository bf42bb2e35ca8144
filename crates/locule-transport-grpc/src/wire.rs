//! A frame in a gRPC message: prost knows the message, and what is here keeps its bytes from being copied.
//!
//! A message is one byte that says whether it is compressed, four with the length of the rest, big-endian,
//! and a [`Frame`]. No I/O.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use locule_transport::LinkError;
use prost::Message as _;

use crate::streamer::Frame;

/// The most that a message has around its frame, in bytes, without gRPC's own five: a negative
/// `seq` takes 11, tag and length of `data` 6, and what is left is for fields nobody knows yet.
const ENVELOPE: usize = 64;
/// gRPC's prefix of each message, in bytes.
const PREFIX: usize = 5;
/// Tag of `Frame.data`: field 2, bytes.
const DATA: u8 = 2 << 3 | 2;
/// What the first reservation for a frame may be, in bytes, whatever length is announced.
const FIRST_RESERVATION: usize = 4 << 10;

/// Writes what goes in front of a frame of `len` bytes: the message up to the bytes of `data`, its last field.
///
/// `len` is below 2³¹, as the largest frame is.
pub(crate) fn put_envelope(out: &mut BytesMut, seq: i32, len: usize) {
    const INFALLIBLE: &str = "a BytesMut grows as needed";
    let without_data = Frame { seq, data: Bytes::new() };
    let data_field = if len == 0 { 0 } else { 1 + prost::length_delimiter_len(len) + len };
    out.put_u8(0);
    out.put_u32(u32::try_from(without_data.encoded_len() + data_field).unwrap_or(u32::MAX));
    without_data.encode(out).expect(INFALLIBLE);
    if len > 0 {
        out.put_u8(DATA);
        prost::encode_length_delimiter(len, out).expect(INFALLIBLE);
    }
}

/// Cuts the bytes of a call into frames, for those who have them from elsewhere than a link.
///
/// A frame that lies within one piece is a slice of it. One that spans pieces is gathered in a buffer
/// that grows with the bytes that arrived, never with the length that was announced.
#[derive(Debug, Default)]
pub struct Deframer {
    piece: Bytes,
    prefix: [u8; PREFIX],
    prefix_filled: usize,
    gathered: Vec<u8>,
    received: u64,
}

impl Deframer {
    /// Takes the next piece; call [`Self::next`] until it gives nothing, before another one.
    pub fn push(&mut self, piece: Bytes) {
        debug_assert!(self.piece.is_empty(), "the last piece was used up");
        self.received += piece.len() as u64;
        self.piece = piece;
    }

    /// Whether a message has begun and not ended.
    pub fn is_inside(&self) -> bool {
        self.prefix_filled > 0
    }

    /// All that was ever pushed, in bytes.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The next whole frame, if it has arrived.
    ///
    /// # Errors
    /// [`LinkError::FrameTooLarge`] for one of more than `max` bytes, before it has arrived, and
    /// [`LinkError::Protocol`] for what is no message; nothing can be cut from then on.
    pub fn next(&mut self, max: usize) -> Result<Option<Bytes>, LinkError> {
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
        let Frame { data: frame, .. } = Frame::decode(message)
            .map_err(|error| protocol(format!("a message that is no Frame: {error}")))?;
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

pub(crate) fn protocol(reason: impl Into<String>) -> LinkError {
    LinkError::Protocol { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(seq: i32, data: &[u8]) -> BytesMut {
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
        fn other_libraries_read_what_is_written(seq in 1..=i32::MAX, data: Vec<u8>) {
            let written = written(seq, &data);
            let message = Frame { seq, data: data.into() };
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
