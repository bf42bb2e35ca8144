//! Fetching what a message only refers to, piece by piece.

use bytes::Bytes;
use locule_fobs::{DecodeError, Map, Value, decode, encode};
use locule_message::{Encoding, Payload};

use crate::wire::{key, status};

/// What holding a piece costs besides its bytes, in bytes.
const PIECE_COST: u64 = 64;

/// One download, from its first request to its confirmation.
///
/// The owner sends [`request`](Self::request) to the source and gives what comes back to
/// [`accept`](Self::accept), until that says [`Piece::End`]. A request whose reply was lost may be sent
/// again: the source gives the same piece.
#[derive(Clone, Debug)]
pub struct Download {
    ref_id: String,
    state: Option<Value>,
    received: u64,
    limit: u64,
}

/// What a reply of the source brought.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Some of the data; ask again.
    Data(Vec<Bytes>),
    /// That was all. Tell the source so with [`Download::confirmation`], if it waits for that.
    End {
        /// What the confirmation has to repeat.
        nonce: Option<String>,
    },
}

/// Why a download ends before its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The reply is none.
    #[error("reply cannot be read")]
    Decode(#[from] DecodeError),
    /// The reply lacks what it must have.
    #[error("reply has no valid {0}")]
    Malformed(&'static str),
    /// The source gave up.
    #[error("source cannot provide the data")]
    Failed,
    /// There is more than the receiver takes.
    #[error("more than {limit} bytes")]
    TooBig {
        /// The most that is taken, in bytes.
        limit: u64,
    },
}

impl Download {
    /// A download of what `ref_id` names, of at most `limit` bytes; each piece counts for 64 more.
    #[must_use]
    pub fn new(ref_id: impl Into<String>, limit: u64) -> Self {
        Self { ref_id: ref_id.into(), state: None, received: 0, limit }
    }

    /// The next request, for channel [`DOWNLOADS`](crate::DOWNLOADS) and topic
    /// [`DOWNLOAD`](crate::DOWNLOAD).
    #[must_use]
    pub fn request(&self) -> Payload {
        let mut request = self.about();
        request.insert(key::CONFIRM_CAPABLE, true);
        if let Some(state) = &self.state {
            request.insert(key::STATE, state.clone());
        }
        payload(request)
    }

    /// Takes the source's reply to the last request.
    ///
    /// # Errors
    /// [`DownloadError`]; the download is over then.
    pub fn accept(&mut self, reply: Payload) -> Result<Piece, DownloadError> {
        let reply = read(reply).ok_or(DownloadError::Malformed("encoding"))??;
        let reply = reply.as_map().ok_or(DownloadError::Malformed("map"))?;
        match reply.str(key::STATUS) {
            Some(status::OK) => {}
            Some(status::EOF) => {
                let nonce = reply.str(key::CONFIRM_NONCE).map(str::to_owned);
                return Ok(Piece::End {
                    nonce: nonce.filter(|_| reply.bool(key::CONFIRM_EXPECTED) == Some(true)),
                });
            }
            Some(status::ERROR) => return Err(DownloadError::Failed),
            Some(_) | None => return Err(DownloadError::Malformed("status")),
        }
        self.state = Some(reply.get(key::STATE).ok_or(DownloadError::Malformed("state"))?.clone());
        let pieces = match reply.get(key::DATA) {
            Some(Value::Bytes(bytes)) => vec![bytes.clone()],
            Some(Value::List(items)) => {
                let bytes = items.iter().map(|item| item.as_bytes().cloned());
                bytes.collect::<Option<Vec<_>>>().ok_or(DownloadError::Malformed("data"))?
            }
            _ => return Err(DownloadError::Malformed("data")),
        };
        // a source that gives nothing, or next to nothing, would never come to an end
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        if bytes == 0 {
            return Err(DownloadError::Malformed("data"));
        }
        self.received += bytes + PIECE_COST * pieces.len() as u64;
        if self.received > self.limit {
            return Err(DownloadError::TooBig { limit: self.limit });
        }
        Ok(Piece::Data(pieces))
    }

    /// Tells the source how it went, as a one-way message.
    #[must_use]
    pub fn confirmation(&self, nonce: &str, success: bool) -> Payload {
        let mut confirmation = self.about();
        confirmation.insert(key::CONFIRM, if success { status::SUCCESS } else { status::FAILED });
        confirmation.insert(key::CONFIRM_NONCE, nonce);
        payload(confirmation)
    }

    fn about(&self) -> Map {
        Map::from_iter([(key::REF_ID, self.ref_id.as_str())])
    }
}

/// The object in a payload; `None` when the payload has none.
pub(crate) fn read(payload: Payload) -> Option<Result<Value, DecodeError>> {
    match payload.encoding {
        Encoding::Fobs => Some(decode(payload.body.whole())),
        Encoding::Bytes | Encoding::None => None,
    }
}

pub(crate) fn payload(map: Map) -> Payload {
    // what is put together here has neither depth nor integers that cannot be encoded
    encode(&Value::Map(map)).map_or_else(|_| Payload::none(), Payload::fobs)
}
