//! Links over memory: slow peers, answers between frames, and how links end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use locule_socket::{Framing, Header, Outgoing, Step, link};
use locule_transport::{Link, LinkError, OutFrame, PeerInfo, ReceiveLimit, Security};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, sleep};

const WINDOW: Duration = Duration::from_secs(15);
const MAX_FRAME_LEN: usize = 1 << 20;

/// A kind and a length: `f` for a frame, `p` for a part of one, `?` for a question, `.` for the end.
#[derive(Default)]
struct Kinds {
    kind: u8,
    parts: Vec<u8>,
}

impl Framing for Kinds {
    fn write(&mut self, frame: OutFrame, out: &mut Outgoing) -> Result<(), LinkError> {
        out.put_slice(&piece(b'f', frame.len(), &[]));
        out.put(frame.head);
        out.put(frame.body);
        Ok(())
    }

    fn write_end(&mut self, out: &mut Outgoing) {
        out.put_slice(&piece(b'.', 0, &[]));
    }

    fn header(&mut self, arrived: &[u8], max: usize) -> Result<Option<Header>, LinkError> {
        let Some([kind, len @ ..]) = arrived.first_chunk::<5>() else { return Ok(None) };
        self.kind = *kind;
        let len = u32::from_be_bytes(*len) as usize;
        if self.parts.len() + len > max {
            return Err(LinkError::FrameTooLarge { len: self.parts.len() + len, max });
        }
        Ok(Some(Header { skip: 5, len }))
    }

    fn body(&mut self, body: Vec<u8>) -> Result<Step, LinkError> {
        match self.kind {
            b'.' => return Ok(Step::End),
            b'?' => return Ok(Step::Answer(piece(b'!', body.len(), &body).into())),
            _ => self.parts.extend(body),
        }
        Ok(if self.kind == b'f' {
            Step::Frame(std::mem::take(&mut self.parts).into())
        } else {
            Step::Nothing
        })
    }

    fn is_inside(&self) -> bool {
        !self.parts.is_empty()
    }

    fn end(&self) -> Result<(), LinkError> {
        Err(LinkError::Closed)
    }
}

fn piece(kind: u8, len: usize, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(len as u32).to_be_bytes(), body].concat()
}

fn frame(body: &[u8]) -> Vec<u8> {
    piece(b'f', body.len(), body)
}

/// The raw end of a stream, and the link that its other end is.
fn over_memory(capacity: usize) -> (DuplexStream, Link) {
    let (raw, io) = duplex(capacity);
    let limit = ReceiveLimit::new(MAX_FRAME_LEN);
    (raw, link(io, Kinds::default(), PeerInfo::new("memory", Security::Internal), MAX_FRAME_LEN, limit))
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_inside_a_frame_is_given_up() {
    for begun in [&frame(&[7; 100_000])[..50], &frame(b"")[..1], &piece(b'p', 3, b"abc")] {
        let (mut raw, mut link) = over_memory(1 << 20);
        let start = Instant::now();
        raw.write_all(begun).await.unwrap();
        let outcome = link.incoming.next().await;
        assert!(matches!(outcome, Some(Err(LinkError::TooSlow { received: 0, .. }))), "{outcome:?}");
        assert_eq!(start.elapsed(), WINDOW);
        assert!(matches!(link.outgoing.send(Bytes::new().into()).await, Err(LinkError::Closed)));
        assert_eq!(raw.read(&mut [0; 10]).await.unwrap(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_too_little_of_a_frame_is_given_up() {
    let (mut raw, mut link) = over_memory(1 << 20);
    let dripping = tokio::spawn(async move {
        let bytes = frame(&[7; 100_000]);
        for byte in bytes.chunks(100) {
            raw.write_all(byte).await?;
            sleep(Duration::from_millis(200)).await;
        }
        std::io::Result::Ok(())
    });
    let outcome = link.incoming.next().await;
    assert!(matches!(outcome, Some(Err(LinkError::TooSlow { .. }))), "{outcome:?}");
    assert!(dripping.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_slow_peer_that_goes_on_is_waited_for() {
    let (mut raw, mut link) = over_memory(1 << 20);
    let sending = tokio::spawn(async move {
        for part in frame(&[7; 100_000]).chunks(10_000) {
            raw.write_all(part).await.unwrap();
            sleep(WINDOW / 4).await;
        }
        raw
    });
    assert_eq!(link.incoming.next().await.unwrap().unwrap().len(), 100_000);
    sending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_peer_is_not_a_slow_one() {
    let (mut raw, mut link) = over_memory(1 << 20);
    for begun in [piece(b'?', 0, &[]), frame(b"abc"), frame(b"abc")] {
        raw.write_all(&begun[..3]).await.unwrap();
        assert!(link.incoming.next().now_or_never().is_none());
        raw.write_all(&begun[3..]).await.unwrap();
        if begun[0] == b'f' {
            assert_eq!(link.incoming.next().await.unwrap().unwrap(), "abc");
        }
        assert!(link.incoming.next().now_or_never().is_none());
        sleep(WINDOW * 100).await;
        raw.write_all(&frame(b"abc")[..3]).await.unwrap();
        assert!(link.incoming.next().now_or_never().is_none());
        raw.write_all(&frame(b"abc")[3..]).await.unwrap();
        assert_eq!(link.incoming.next().await.unwrap().unwrap(), "abc");
    }
}

#[tokio::test]
async fn frames_in_pieces_count_together() {
    let (mut raw, mut link) = over_memory(1 << 20);
    raw.write_all(&[piece(b'p', 3, b"abc"), frame(b"def")].concat()).await.unwrap();
    assert_eq!(link.incoming.next().await.unwrap().unwrap(), "abcdef");
    link.receive_limit.set(5);
    raw.write_all(&[piece(b'p', 3, b"abc"), piece(b'f', 3, b"")].concat()).await.unwrap();
    let outcome = link.incoming.next().await;
    assert!(matches!(outcome, Some(Err(LinkError::FrameTooLarge { len: 6, max: 5 }))), "{outcome:?}");
}

#[tokio::test]
async fn questions_are_answered_between_frames_though_nobody_sends() {
    let (mut raw, mut link) = over_memory(1 << 20);
    raw.write_all(&[piece(b'?', 3, b"abc"), frame(b"def")].concat()).await.unwrap();
    assert_eq!(link.incoming.next().await.unwrap().unwrap(), "def");
    assert!(link.incoming.next().now_or_never().is_none());
    let mut answer = [0; 8];
    raw.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"!\0\0\0\x03abc");
    link.outgoing.send(Bytes::from_static(b"ghi").into()).await.unwrap();
    raw.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[..], frame(b"ghi"));
}

#[tokio::test]
async fn questions_without_end_take_no_room() {
    let (mut raw, mut link) = over_memory(64);
    let asking = tokio::spawn(async move {
        for _ in 0..100_000 {
            raw.write_all(&piece(b'?', 10, &[7; 10])).await.unwrap();
        }
        raw.write_all(&frame(b"done")).await.unwrap();
        raw
    });
    assert_eq!(link.incoming.next().await.unwrap().unwrap(), "done");
    let mut raw = asking.await.unwrap();
    drop(link);
    let mut answers = Vec::new();
    raw.read_to_end(&mut answers).await.unwrap();
    assert!(answers.len() < 1000, "{} bytes", answers.len());
}

#[tokio::test]
async fn a_stream_that_ends_inside_a_frame_or_without_the_last_word_is_an_error() {
    for bytes in [&frame(b"abc")[..6], b""] {
        let (mut raw, mut link) = over_memory(1 << 20);
        raw.write_all(bytes).await.unwrap();
        drop(raw);
        assert!(matches!(link.incoming.next().await, Some(Err(LinkError::Closed))));
        assert!(link.incoming.next().await.is_none());
    }
    let (mut raw, mut link) = over_memory(1 << 20);
    raw.write_all(&piece(b'.', 0, &[])).await.unwrap();
    assert!(link.incoming.next().await.is_none());
    link.outgoing.send(Bytes::from_static(b"abc").into()).await.unwrap();
    link.outgoing.close().await.unwrap();
    let mut heard = Vec::new();
    raw.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, [frame(b"abc"), piece(b'.', 0, &[])].concat());
}

#[tokio::test]
async fn what_was_sent_before_a_link_is_dropped_leaves_whole() {
    let (mut raw, mut link) = over_memory(64);
    link.outgoing.feed(Bytes::from(vec![7; 100_000]).into()).await.unwrap();
    assert!(link.outgoing.flush().now_or_never().is_none());
    drop(link);
    let mut heard = Vec::new();
    raw.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, [frame(&[7; 100_000]), piece(b'.', 0, &[])].concat());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_ends_is_left_in_time() {
    let (mut raw, mut link) = over_memory(64);
    link.outgoing.feed(Bytes::from(vec![7; 100_000]).into()).await.unwrap();
    drop(link);
    let start = Instant::now();
    while raw.write_all(&[7; 10]).await.is_ok() {}
    assert_eq!(start.elapsed(), Duration::from_secs(5), "it never read");
    let (mut raw, link) = over_memory(64);
    drop(link);
    let start = Instant::now();
    while raw.write_all(&[7; 10]).await.is_ok() {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(start.elapsed().as_secs(), 1, "it went on to write");
}
