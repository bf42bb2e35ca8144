//! A byte stream with frames in it, and how a carrier says where they lie.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use locule_transport::{LinkError, OutFrame, ReceiveLimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use crate::LEAVE_TIME;
use crate::connection::leave;

/// What is read at a time, in bytes; frames that lie within are copied out, longer ones have a buffer of
/// their own that is read into.
const CHUNK: usize = 16 << 10;
/// What the first reservation for a frame may be, in bytes, whatever length is announced.
const FIRST_RESERVATION: usize = 4 << 10;
/// Parts up to this are copied together, in bytes; longer ones are written from where they are.
const COPY_LEN: usize = 8 << 10;
/// Inside a frame, a peer sends at least this in each window, or it is given up.
const WINDOW: Duration = Duration::from_secs(15);
const WINDOW_BYTES: u64 = 15 << 10;

/// How frames lie in a stream of bytes.
///
/// The stream is pieces, each a header, which says how long the rest is, and a body. One piece or several
/// are a frame, or something between the carriers only.
pub trait Framing: Send + Unpin + 'static {
    /// Puts a frame into the stream; its length has been checked.
    ///
    /// # Errors
    /// If it cannot lie there. Then nothing may have been put.
    fn write(&mut self, frame: OutFrame, out: &mut Outgoing) -> Result<(), LinkError>;

    /// Puts what comes after the last frame, before the stream ends.
    fn write_end(&mut self, _out: &mut Outgoing) {}

    /// Reads the header at the beginning of `arrived`; `None` if it has not arrived yet.
    ///
    /// # Errors
    /// [`LinkError::FrameTooLarge`] for a frame of more than `max` bytes, before its body is read, and
    /// [`LinkError::Protocol`].
    fn header(&mut self, arrived: &[u8], max: usize) -> Result<Option<Header>, LinkError>;

    /// Takes the body that the last header announced.
    ///
    /// # Errors
    /// [`LinkError::Protocol`].
    fn body(&mut self, body: Vec<u8>) -> Result<Step, LinkError>;

    /// Whether a frame has begun whose other pieces are still to come.
    fn is_inside(&self) -> bool {
        false
    }

    /// What it means that the stream has ended, outside any frame: a proper end, unless the peer would
    /// have said so.
    ///
    /// # Errors
    /// The error that ends the link.
    fn end(&self) -> Result<(), LinkError> {
        Ok(())
    }
}

/// What a header says of its piece, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What belongs to the header only and is skipped.
    pub skip: usize,
    /// What follows then and is the body.
    pub len: usize,
}

/// What a body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A frame, or the last piece of one.
    Frame(Bytes),
    /// Nothing for the link's owner.
    Nothing,
    /// Something to be answered with these bytes, between two frames. While an answer waits to be
    /// written, no other takes a place in the queue.
    Answer(Bytes),
    /// The peer sends nothing more.
    End,
}

/// Bytes on their way out, in order. Long parts are not copied.
#[derive(Debug, Default)]
pub struct Outgoing {
    parts: VecDeque<Bytes>,
    /// Short parts that follow, to be one.
    small: BytesMut,
    len: usize,
}

impl Outgoing {
    /// Adds bytes.
    pub fn put(&mut self, part: Bytes) {
        if part.len() <= COPY_LEN {
            self.put_slice(&part);
        } else {
            self.seal();
            self.len += part.len();
            self.parts.push_back(part);
        }
    }

    /// Adds a copy of bytes, which should be few.
    pub fn put_slice(&mut self, bytes: &[u8]) {
        self.small.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    fn seal(&mut self) {
        if !self.small.is_empty() {
            self.parts.push_back(self.small.split().freeze());
        }
    }
}

/// What is sealed comes out.
impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.len - self.small.len()
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.parts);
        filled.map(|(slice, part)| *slice = IoSlice::new(part)).count()
    }

    fn advance(&mut self, mut count: usize) {
        self.len -= count;
        while let Some(front) = self.parts.front_mut() {
            let part = count.min(front.len());
            front.advance(part);
            count -= part;
            if !front.is_empty() {
                break;
            }
            self.parts.pop_front();
        }
        debug_assert_eq!(count, 0, "no more is written than there was");
    }
}

/// A byte stream and all that is known of its frames, in both directions.
pub(crate) struct Wire<I, F> {
    io: I,
    framing: F,
    out: Outgoing,
    /// Written and perhaps still in the stream's own buffer.
    is_unflushed: bool,
    has_answer: bool,
    /// Whoever sends waits for room, and will be woken.
    pub(crate) writer_waits: bool,
    is_ending: bool,
    is_shut: bool,
    /// Arrived and not looked at.
    chunk: BytesMut,
    body: Option<Body>,
    received: u64,
    has_peer_ended: bool,
    window: Option<Window>,
}

/// A body that did not lie within a chunk.
struct Body {
    bytes: Vec<u8>,
    len: usize,
}

/// The time in which the rest of a frame, or enough of it, has to arrive.
struct Window {
    ends: Pin<Box<Sleep>>,
    received_before: u64,
    is_open: bool,
}

impl<I, F> Wire<I, F>
where
    I: AsyncRead + AsyncWrite + Unpin,
    F: Framing,
{
    pub(crate) fn new(io: I, framing: F) -> Self {
        Self {
            io,
            framing,
            out: Outgoing::default(),
            is_unflushed: false,
            has_answer: false,
            writer_waits: false,
            is_ending: false,
            is_shut: false,
            chunk: BytesMut::new(),
            body: None,
            received: 0,
            has_peer_ended: false,
            window: None,
        }
    }

    /// What waits to be written, in bytes.
    pub(crate) fn queued(&self) -> usize {
        self.out.len
    }

    /// Whether no frame can be sent any more.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Whether both directions have come to their ends.
    pub(crate) fn is_over(&self) -> bool {
        self.is_shut && self.has_peer_ended
    }

    pub(crate) fn put(&mut self, frame: OutFrame) -> Result<(), LinkError> {
        self.framing.write(frame, &mut self.out)
    }

    /// Writes all that waits.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.out.seal();
        while self.out.has_remaining() {
            self.is_unflushed = true;
            if ready!(poll_write_buf(Pin::new(&mut self.io), cx, &mut self.out)).map_err(broken)? == 0 {
                return Poll::Ready(Err(LinkError::Closed));
            }
        }
        if self.is_unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx)).map_err(broken)?;
            self.is_unflushed = false;
        }
        self.has_answer = false;
        Poll::Ready(Ok(()))
    }

    /// Writes all that waits and says that nothing more comes.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if !self.is_ending {
            self.is_ending = true;
            self.framing.write_end(&mut self.out);
        }
        ready!(self.poll_drain(cx))?;
        if !self.is_shut {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx)).map_err(broken)?;
            self.is_shut = true;
        }
        Poll::Ready(Ok(()))
    }

    /// The next frame of the peer.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        limit: &ReceiveLimit,
    ) -> Poll<Option<Result<Bytes, LinkError>>> {
        loop {
            while let Some(step) = self.step(limit.get())? {
                if !self.framing.is_inside() {
                    self.close_window();
                }
                match step {
                    Step::Frame(frame) => return Poll::Ready(Some(Ok(frame))),
                    Step::Nothing => {}
                    Step::Answer(bytes) => self.answer(bytes),
                    Step::End => return Poll::Ready(None),
                }
            }
            if self.has_answer && !self.writer_waits {
                // Whether it has left or not, there may be something to read.
                let _: bool = self.poll_drain(cx)?.is_ready();
            }
            match self.poll_read(cx) {
                Poll::Ready(Ok(0)) => {
                    self.has_peer_ended = true;
                    let end = if self.is_inside() { Err(LinkError::Closed) } else { self.framing.end() };
                    return Poll::Ready(end.err().map(Err));
                }
                Poll::Ready(Ok(count)) => self.received += count as u64,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(broken(error)))),
                Poll::Pending if self.is_inside() => {
                    let received = ready!(self.poll_too_slow(cx));
                    return Poll::Ready(Some(Err(LinkError::TooSlow { received, window: WINDOW })));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The next piece, if it has arrived.
    fn step(&mut self, max: usize) -> Result<Option<Step>, LinkError> {
        let whole = match self.body.take() {
            Some(body) if body.bytes.len() < body.len => {
                self.body = Some(body);
                return Ok(None);
            }
            Some(body) => body.bytes,
            None if self.chunk.is_empty() => return Ok(None),
            None => {
                let Some(Header { skip, len }) = self.framing.header(&self.chunk, max)? else {
                    return Ok(None);
                };
                self.chunk.advance(skip);
                if self.chunk.len() < len {
                    let mut bytes = Vec::with_capacity(len.min(FIRST_RESERVATION));
                    bytes.extend_from_slice(&self.chunk);
                    self.chunk.clear();
                    self.body = Some(Body { bytes, len });
                    return Ok(None);
                }
                let whole = self.chunk[..len].to_vec();
                self.chunk.advance(len);
                whole
            }
        };
        self.framing.body(whole).map(Some)
    }

    /// Reads what there is, into the body that is under way or else into the chunk.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let io = Pin::new(&mut self.io);
        match &mut self.body {
            Some(Body { bytes, len }) => {
                if bytes.len() == bytes.capacity() {
                    let room = (bytes.len() * 2).max(FIRST_RESERVATION).min(*len);
                    bytes.reserve_exact(room - bytes.len());
                }
                let room = (bytes.capacity() - bytes.len()).min(*len - bytes.len());
                poll_read_buf(io, cx, &mut bytes.limit(room))
            }
            None => {
                // A framing that asks for more than a chunk before it knows a length gets it.
                let room = CHUNK.checked_sub(self.chunk.len()).filter(|room| *room > 0).unwrap_or(CHUNK);
                self.chunk.reserve(room);
                poll_read_buf(io, cx, &mut (&mut self.chunk).limit(room))
            }
        }
    }

    fn answer(&mut self, bytes: Bytes) {
        if !self.has_answer && !self.is_ending {
            self.has_answer = true;
            self.out.put(bytes);
        }
    }

    fn is_inside(&self) -> bool {
        self.body.is_some() || !self.chunk.is_empty() || self.framing.is_inside()
    }

    /// Ready with what arrived, when a window has ended without enough of it.
    fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let received = self.received;
        let window = self.window.get_or_insert_with(|| Window {
            ends: Box::pin(sleep(WINDOW)),
            received_before: received,
            is_open: true,
        });
        if !window.is_open {
            window.open(received);
        }
        while window.ends.as_mut().poll(cx).is_ready() {
            let arrived = received - window.received_before;
            if arrived < WINDOW_BYTES {
                return Poll::Ready(usize::try_from(arrived).unwrap_or(usize::MAX));
            }
            window.open(received);
        }
        Poll::Pending
    }

    fn close_window(&mut self) {
        if let Some(window) = &mut self.window {
            window.is_open = false;
        }
    }

    /// Takes leave of the peer: what was sent has some time to go.
    pub(crate) async fn linger(mut self) {
        if let Ok(Ok(())) = timeout(LEAVE_TIME, poll_fn(|cx| self.poll_end(cx))).await {
            leave(self.io).await;
        }
    }
}

impl Window {
    fn open(&mut self, received: u64) {
        self.ends.as_mut().reset(Instant::now() + WINDOW);
        self.received_before = received;
        self.is_open = true;
    }
}

fn broken(error: io::Error) -> LinkError {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    if [BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof].contains(&error.kind()) {
        LinkError::Closed
    } else {
        LinkError::Broken { source: error.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A length in four bytes, big-endian, that does not count itself.
    struct Counted;

    impl Framing for Counted {
        fn write(&mut self, frame: OutFrame, out: &mut Outgoing) -> Result<(), LinkError> {
            out.put_slice(&(frame.len() as u32).to_be_bytes());
            out.put(frame.head);
            out.put(frame.body);
            Ok(())
        }

        fn header(&mut self, arrived: &[u8], max: usize) -> Result<Option<Header>, LinkError> {
            let Some(length) = arrived.first_chunk() else { return Ok(None) };
            let len = u32::from_be_bytes(*length) as usize;
            if len > max {
                Err(LinkError::FrameTooLarge { len, max })
            } else {
                Ok(Some(Header { skip: 4, len }))
            }
        }

        fn body(&mut self, body: Vec<u8>) -> Result<Step, LinkError> {
            Ok(Step::Frame(body.into()))
        }
    }

    /// A stream that gives its bytes in reads of a few, and then nothing.
    struct Dripping {
        bytes: Bytes,
        at_once: usize,
    }

    impl AsyncRead for Dripping {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let part = self.at_once.min(self.bytes.len()).min(buf.remaining());
            if part == 0 {
                return Poll::Pending;
            }
            buf.put_slice(&self.bytes.split_to(part));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Dripping {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn arriving(bytes: impl Into<Bytes>, at_once: usize) -> Wire<Dripping, Counted> {
        Wire::new(Dripping { bytes: bytes.into(), at_once }, Counted)
    }

    fn next(wire: &mut Wire<Dripping, Counted>) -> Poll<Option<Result<Bytes, LinkError>>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        wire.poll_frame(&mut cx, &ReceiveLimit::new(1 << 30))
    }

    fn written(frame: OutFrame) -> Outgoing {
        let mut out = Outgoing::default();
        Counted.write(frame, &mut out).unwrap();
        out.seal();
        out
    }

    #[test]
    fn a_large_body_is_written_from_where_it_is() {
        let body = Bytes::from(vec![7; 100_000]);
        let out = written(OutFrame::new("head", body.clone()));
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(out.chunks_vectored(&mut slices), 2);
        assert_eq!(&slices[0][4..], b"head");
        assert_eq!((slices[1].as_ptr(), slices[1].len()), (body.as_ptr(), body.len()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_announced_length_reserves_nothing() {
        let mut wire = arriving((1_u32 << 30).to_be_bytes().to_vec(), 100);
        assert!(next(&mut wire).is_pending());
        assert!(wire.body.unwrap().bytes.capacity() <= FIRST_RESERVATION);
    }

    #[tokio::test(start_paused = true)]
    async fn a_buffer_grows_with_the_bytes_that_arrived() {
        let mut bytes = 10_000_000_u32.to_be_bytes().to_vec();
        bytes.resize(1_000_000, 7);
        let mut wire = arriving(bytes, usize::MAX);
        assert!(next(&mut wire).is_pending());
        let body = wire.body.unwrap();
        assert_eq!(body.bytes.len(), 1_000_000 - 4);
        assert!(body.bytes.capacity() <= 2_000_000, "{}", body.bytes.capacity());
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_frame_is_not_copied_to_be_handed_over() {
        let mut bytes = 100_000_u32.to_be_bytes().to_vec();
        bytes.resize(4 + 99_999, 7);
        let mut wire = arriving(bytes, usize::MAX);
        assert!(next(&mut wire).is_pending());
        let body = &wire.body.as_ref().unwrap().bytes;
        assert_eq!(body.capacity(), 100_000, "the last reservation is exact");
        let place = body.as_ptr();
        wire.io.bytes = Bytes::from_static(&[7]);
        let Poll::Ready(Some(Ok(frame))) = next(&mut wire) else { panic!("it has arrived") };
        assert_eq!((frame.as_ptr(), frame.len()), (place, 100_000));
    }

    proptest! {
        #[test]
        fn what_is_written_in_any_parts_is_read_in_any_parts(
            lens: Vec<(u16, u16)>,
            at_once in 1..40_000_usize,
            taken in 1..40_000_usize,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _inside = runtime.enter();
            let frames = lens.iter().map(|(head, body)| {
                OutFrame::new(vec![1; usize::from(*head)], vec![2; usize::from(*body)])
            });
            let mut bytes = Vec::new();
            for frame in frames.clone() {
                let mut out = written(frame);
                while out.has_remaining() {
                    let part = out.chunk().len().min(taken);
                    bytes.extend_from_slice(&out.chunk()[..part]);
                    out.advance(part);
                }
            }
            let mut wire = arriving(bytes, at_once);
            for frame in frames {
                let Poll::Ready(Some(Ok(read))) = next(&mut wire) else { panic!("it has arrived") };
                prop_assert_eq!(read, frame.into_bytes());
            }
            prop_assert!(next(&mut wire).is_pending());
        }
    }
}
