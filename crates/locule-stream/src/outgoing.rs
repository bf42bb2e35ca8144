//! One stream on its way out.

use std::ops::Range;
use std::time::{Duration, Instant};

use locule_message::{Body, Encoding, Fqcn, Headers, Payload, key as cell_key};

use crate::wire::{DATA, Notice, key, kind};
use crate::{Blob, StreamConfig, StreamError, StreamId};

/// Chunks that are sent again at a time when nothing was acknowledged for a while.
const REPEATED: u64 = 4;

#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) target: Fqcn,
    pub(crate) channel: String,
    pub(crate) topic: String,
    pub(crate) request_id: Option<String>,
    pub(crate) reliable: bool,
    optional: bool,
    pub(crate) secure: bool,
    /// What every chunk says.
    headers: Headers,
    body: Body,
    /// Length of the body and of all chunks but the last, in bytes; how many chunks that makes.
    pub(crate) len: u64,
    chunk_size: u64,
    chunks: u64,
    /// Bytes that may be under way.
    window: u64,
    ack_interval: u64,
    retry_wait: Duration,
    retry_timeout: Duration,
    /// The first chunk that was never sent.
    next: u64,
    /// Chunks to send again before that.
    repeat: Range<u64>,
    /// Chunks before this one have been acknowledged, and so many bytes.
    acked: u64,
    acked_bytes: u64,
    /// When a chunk last left or was acknowledged.
    moved: Instant,
    /// When chunks were first repeated since the last acknowledgement.
    repeated: Option<Instant>,
    /// The link that the last chunk left by, and since when there is none to leave by.
    via: Option<u64>,
    no_way: Option<Instant>,
    released: bool,
    /// Whether it stands in the line of those that have chunks to send.
    pub(crate) in_line: bool,
    /// When its timer rings.
    pub(crate) timer: Option<Instant>,
}

/// What to do about a stream when its time has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing before then.
    Later(Instant),
    /// It has chunks to send again; ask once more then.
    Again(Instant),
    Fail(StreamError),
}

impl Outgoing {
    pub(crate) fn new(
        config: &StreamConfig,
        window: u64,
        now: Instant,
        id: StreamId,
        target: Fqcn,
        blob: Blob,
    ) -> Self {
        let Blob { channel, topic, mut headers, payload, request_id, reliable, optional, secure } = blob;
        let len = payload.body.len() as u64;
        let chunk_size = config.chunk_size.max(1) as u64;
        headers.set(key::ENCODING, payload.encoding.as_str());
        if let Some(request_id) = &request_id {
            headers.set(key::REQUEST, request_id);
        }
        headers.set(key::CHANNEL, &channel);
        headers.set(key::TOPIC, &topic);
        headers.set(key::SIZE, len);
        headers.set(key::ID, id.0);
        Self {
            target,
            channel,
            topic,
            request_id,
            reliable,
            optional,
            secure,
            headers,
            body: payload.body,
            len,
            chunk_size,
            // an empty blob has one chunk as well
            chunks: len.div_ceil(chunk_size).max(1),
            window,
            ack_interval: config.ack_interval.min(window),
            retry_wait: config.retry_wait,
            retry_timeout: config.retry_timeout,
            next: 0,
            repeat: 0..0,
            acked: 0,
            acked_bytes: 0,
            moved: now,
            repeated: None,
            via: None,
            no_way: None,
            released: false,
            in_line: false,
            timer: None,
        }
    }

    fn offset(&self, chunk: u64) -> u64 {
        chunk.saturating_mul(self.chunk_size).min(self.len)
    }

    /// The chunk that could leave now.
    fn upcoming(&self) -> Option<u64> {
        if !self.repeat.is_empty() {
            return Some(self.repeat.start);
        }
        let under_way = self.offset(self.next).saturating_sub(self.acked_bytes);
        (self.next < self.chunks && under_way <= self.window).then_some(self.next)
    }

    pub(crate) fn has_chunk(&self) -> bool {
        self.upcoming().is_some()
    }

    pub(crate) fn poll_chunk(&mut self, now: Instant) -> Option<Notice> {
        let sequence = self.upcoming()?;
        if self.repeat.is_empty() {
            self.next += 1;
        } else {
            self.repeat.start += 1;
        }
        self.moved = now;
        let (offset, end) = (self.offset(sequence), self.offset(sequence + 1));
        let bytes = self.body.slice(offset as usize..end as usize);
        let mut headers = self.headers.clone();
        headers.set(key::KIND, if sequence + 1 == self.chunks { kind::FINAL } else { kind::CHUNK });
        headers.set(key::SEQUENCE, sequence);
        headers.set(key::OFFSET, offset);
        headers.set(key::RELIABLE, self.reliable);
        headers.set(key::OPTIONAL, self.optional);
        headers.set(key::CHUNK_SIZE, self.chunk_size);
        headers.set(key::WINDOW_SIZE, self.window);
        if sequence == 0 {
            headers.set(key::ACK_INTERVAL, self.ack_interval);
            if self.reliable {
                headers.set(key::RETRY_WAIT, self.retry_wait.as_secs_f64());
                headers.set(key::RETRY_TIMEOUT, self.retry_timeout.as_secs_f64());
            }
        }
        headers.set(cell_key::PAYLOAD_LEN, bytes.len() as u64);
        let payload = Payload { encoding: Encoding::Bytes, body: bytes.into() };
        let (target, optional, secure) = (self.target.clone(), self.optional, self.secure);
        Some(Notice { target, topic: DATA, headers, payload, optional, secure })
    }

    /// Whether nothing is left to do: all has left, and has arrived if that is asked for.
    pub(crate) fn is_settled(&self) -> bool {
        self.next == self.chunks && (!self.reliable || self.acked == self.chunks)
    }

    /// Its next chunk leaves by this link.
    pub(crate) fn via(&mut self, link: u64) {
        self.via = Some(link);
        self.no_way = None;
    }

    pub(crate) fn is_via(&self, link: u64) -> bool {
        self.via == Some(link)
    }

    /// No link leads to the target, for now.
    pub(crate) fn no_way(&mut self, now: Instant) {
        self.no_way.get_or_insert(now);
    }

    pub(crate) fn is_released(&self) -> bool {
        self.released
    }

    /// Lets go of the body of a stream that is settled; chunks in queues hold what they need of it.
    pub(crate) fn release(&mut self) {
        self.released = true;
        self.body = Body::new();
        self.repeat = 0..0;
        self.next = self.chunks;
        self.acked = self.chunks;
    }

    /// Whether some of it was sent and not all of it.
    pub(crate) fn is_half_sent(&self) -> bool {
        0 < self.next && self.next < self.chunks
    }

    /// The receiver has all up to chunk `sequence`, `offset` bytes. Says whether that is news.
    pub(crate) fn acknowledge(&mut self, now: Instant, offset: u64, sequence: Option<u64>) -> bool {
        // what was never sent cannot have arrived
        let acked = sequence.map_or(0, |sequence| sequence.saturating_add(1)).min(self.next);
        let bytes = offset.min(self.offset(self.next));
        let news = acked > self.acked || bytes > self.acked_bytes;
        self.acked = self.acked.max(acked);
        self.acked_bytes = self.acked_bytes.max(bytes);
        self.repeat.start = self.repeat.start.max(self.acked);
        if news {
            self.moved = now;
            self.repeated = None;
        }
        news
    }

    /// What was not acknowledged is lost, with a link: send it again.
    pub(crate) fn rewind(&mut self) {
        if self.reliable {
            self.repeat = self.acked..self.next;
        }
    }

    /// What to do at `now`; to be asked at the start and whenever the time that it gave has come.
    pub(crate) fn due(&mut self, now: Instant) -> Due {
        if let Some(since) = self.no_way
            && now.saturating_duration_since(since) >= self.retry_timeout
        {
            return Due::Fail(StreamError::Unreachable);
        }
        let silent = now.saturating_duration_since(self.moved);
        // while chunks can leave, what stops them is this end's own links, which see to themselves
        if self.is_settled() || self.has_chunk() || silent < self.retry_wait {
            return Due::Later(now.max(self.moved) + self.retry_wait);
        }
        if self.reliable {
            let since = *self.repeated.get_or_insert(now);
            if now.saturating_duration_since(since) >= self.retry_timeout {
                return Due::Fail(StreamError::Stalled);
            }
            self.repeat = self.acked..self.next.min(self.acked + REPEATED);
            return Due::Again(now + self.retry_wait);
        }
        if silent >= self.retry_timeout {
            Due::Fail(StreamError::Stalled)
        } else {
            Due::Later(now + self.retry_wait)
        }
    }
}
