//! One stream on its way in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use locule_journal::{MemorySpool, Spool};
use locule_message::{Body, Encoding, Headers, Message, Payload};

use crate::wire::key;
use crate::{Blob, StreamConfig};

/// What a stream costs besides its bytes, and what a chunk does that came before its turn.
const STREAM_COST: u64 = 2 << 10;
const CHUNK_COST: u64 = 128;
/// Chunks up to this are copied out of their frames, which are longer by as much at most.
const COPY_LEN: usize = 64 << 10;
/// Chunks that may arrive before their turn, whatever the sender's window says.
const MIN_AHEAD: u64 = 16;
const MAX_AHEAD: u64 = 1024;

#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) channel: String,
    pub(crate) topic: String,
    pub(crate) request_id: Option<String>,
    pub(crate) reliable: bool,
    encoding: Encoding,
    optional: bool,
    pub(crate) secure: bool,
    /// Those of the chunk that came first.
    headers: Headers,
    headers_are_own: bool,
    /// Announced length in bytes; 0 when unknown.
    size: u64,
    body: Assembly,
    /// Chunks that came before their turn, with whether each is the last.
    ahead: BTreeMap<u64, (Bytes, bool)>,
    ahead_cost: u64,
    max_ahead: u64,
    next: u64,
    received: u64,
    acked: u64,
    ack_interval: u64,
    /// Given up when nothing new comes until then.
    pub(crate) deadline: Instant,
    /// When its timer rings.
    pub(crate) timer: Instant,
}

/// What has come in order. A blob of one chunk is that chunk.
#[derive(Debug)]
enum Assembly {
    Chunk(Bytes),
    Memory(MemorySpool),
    /// Where the receiver wants it.
    Elsewhere(Box<dyn Spool>),
}

/// A chunk as its frame has it.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) sequence: u64,
    pub(crate) offset: Option<u64>,
    pub(crate) is_final: bool,
    pub(crate) bytes: Bytes,
}

/// What a chunk did to its stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// More is to come. The sender waits for an acknowledgement if `ack`.
    More { ack: bool },
    /// It had come before.
    Again,
    /// That was all.
    Complete,
}

/// Why a stream cannot be received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error("blob is larger than {limit} bytes")]
    TooBig { limit: u64 },
    #[error("no room for more blobs")]
    NoRoom,
    #[error("blob has {received} bytes, {announced} were announced")]
    WrongSize { received: u64, announced: u64 },
    #[error("chunk {sequence} is not where it belongs")]
    Misplaced { sequence: u64 },
    #[error("too many out-of-sequence chunks")]
    TooFarAhead,
    #[error("nothing came for too long")]
    Stalled,
}

impl Incoming {
    pub(crate) fn new(config: &StreamConfig, now: Instant, message: &Message) -> Result<Self, ReceiveError> {
        let headers = &message.headers;
        let text = |key| headers.str(key).unwrap_or_default();
        let size = headers.u64(key::SIZE).unwrap_or_default();
        if size > config.max_blob {
            return Err(ReceiveError::TooBig { limit: config.max_blob });
        }
        let window = headers.u64(key::WINDOW_SIZE).unwrap_or(config.window);
        let chunk_size = headers.u64(key::CHUNK_SIZE).unwrap_or_default().max(1);
        Ok(Self {
            channel: text(key::CHANNEL).to_owned(),
            topic: text(key::TOPIC).to_owned(),
            request_id: headers.str(key::REQUEST).map(str::to_owned),
            reliable: headers.bool(key::RELIABLE).unwrap_or_default(),
            // a payload of which nothing is said is handed over as it is
            encoding: headers.str(key::ENCODING).map_or(Encoding::Bytes, Encoding::from_wire),
            optional: headers.bool(key::OPTIONAL).unwrap_or_default(),
            secure: message.secure(),
            headers: headers.clone(),
            headers_are_own: false,
            size,
            body: Assembly::Chunk(Bytes::new()),
            ahead: BTreeMap::new(),
            ahead_cost: 0,
            max_ahead: window.div_ceil(chunk_size).saturating_add(1).clamp(MIN_AHEAD, MAX_AHEAD),
            next: 0,
            received: 0,
            acked: 0,
            ack_interval: headers.u64(key::ACK_INTERVAL).unwrap_or(config.default_ack_interval),
            deadline: now + config.read_timeout,
            timer: now + config.read_timeout,
        })
    }

    /// Takes a chunk in; what the stream costs grows by no more than its length and a bit.
    pub(crate) fn take(&mut self, config: &StreamConfig, chunk: Chunk) -> Result<Taken, ReceiveError> {
        let taken = self.take_chunk(config, chunk)?;
        if matches!(taken, Taken::More { .. }) && !self.headers_are_own {
            self.headers = self.headers.detached();
            self.headers_are_own = true;
        }
        Ok(taken)
    }

    fn take_chunk(&mut self, config: &StreamConfig, chunk: Chunk) -> Result<Taken, ReceiveError> {
        let Chunk { sequence, offset, is_final, bytes } = chunk;
        if sequence < self.next || self.ahead.contains_key(&sequence) {
            return Ok(Taken::Again);
        }
        if sequence > self.next {
            if self.ahead.len() as u64 >= self.max_ahead || sequence - self.next > self.max_ahead {
                return Err(ReceiveError::TooFarAhead);
            }
            let own = if bytes.len() < COPY_LEN { Bytes::copy_from_slice(&bytes) } else { bytes };
            self.ahead_cost += own.len() as u64 + CHUNK_COST;
            self.ahead.insert(sequence, (own, is_final));
            return Ok(Taken::More { ack: false });
        }
        if offset.is_some_and(|offset| offset != self.received) {
            return Err(ReceiveError::Misplaced { sequence });
        }
        let mut complete = self.append(config, bytes, is_final)?;
        while !complete && let Some((bytes, is_final)) = self.ahead.remove(&self.next) {
            self.ahead_cost -= bytes.len() as u64 + CHUNK_COST;
            complete = self.append(config, bytes, is_final)?;
        }
        if complete {
            return Ok(Taken::Complete);
        }
        let ack = self.received - self.acked >= self.ack_interval;
        if ack {
            self.acked = self.received;
        }
        Ok(Taken::More { ack })
    }

    fn append(&mut self, config: &StreamConfig, bytes: Bytes, is_final: bool) -> Result<bool, ReceiveError> {
        let received = self.received.saturating_add(bytes.len() as u64);
        if received > config.max_blob {
            return Err(ReceiveError::TooBig { limit: config.max_blob });
        }
        let wrong = self.size != 0 && (received > self.size || is_final && received < self.size);
        if wrong {
            return Err(ReceiveError::WrongSize { received, announced: self.size });
        }
        if self.next == 0 && is_final {
            self.body = Assembly::Chunk(bytes);
        } else {
            if let Assembly::Chunk(_) = &self.body {
                self.body = match config.spools.open(&self.channel, &self.topic, self.size) {
                    Some(spool) => Assembly::Elsewhere(spool),
                    None => Assembly::Memory(MemorySpool::new(self.size)),
                };
            }
            let written = match &mut self.body {
                Assembly::Chunk(_) => Ok(()),
                Assembly::Memory(spool) => spool.write_at(self.received, &bytes),
                Assembly::Elsewhere(spool) => spool.write_at(self.received, &bytes),
            };
            written.map_err(|_| ReceiveError::NoRoom)?;
        }
        self.received = received;
        self.next += 1;
        Ok(is_final)
    }

    /// Bytes that have come in order, and the last chunk of them.
    pub(crate) fn progress(&self) -> (u64, Option<u64>) {
        (self.received, self.next.checked_sub(1))
    }

    /// What is held for it in memory, in bytes.
    pub(crate) fn cost(&self) -> u64 {
        let body = self.received - self.elsewhere();
        STREAM_COST + self.headers.byte_len() as u64 + body + self.ahead_cost
    }

    /// What of it is not in memory, in bytes.
    pub(crate) fn elsewhere(&self) -> u64 {
        if matches!(self.body, Assembly::Elsewhere(_)) { self.received } else { 0 }
    }

    /// The blob; its body may be elsewhere.
    pub(crate) fn into_blob(self) -> (Blob, Option<Arc<dyn Spool>>) {
        let (body, elsewhere) = match self.body {
            Assembly::Chunk(bytes) => (bytes.into(), None),
            Assembly::Memory(spool) => (spool.into_bytes().into(), None),
            Assembly::Elsewhere(spool) => (Body::new(), Some(Arc::from(spool))),
        };
        let blob = Blob {
            channel: self.channel,
            topic: self.topic,
            headers: self.headers,
            payload: Payload { encoding: self.encoding, body },
            request_id: self.request_id,
            reliable: self.reliable,
            optional: self.optional,
            secure: self.secure,
        };
        (blob, elsewhere)
    }
}
