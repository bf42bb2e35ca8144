use locule_fobs::{Map, PeerContext, Shareable, Value, header};
use locule_message::{Headers, Payload};

use crate::{
    channel,
    parts::{self, DecodeError, EncodeError, Parts},
};

/// Topics of auxiliary messages that every job has.
///
/// # Source
/// nvflare 2.9.0, `nvflare.apis.fl_constant` (`ReservedTopic`).
pub mod aux_topic {
    /// A site's job asks whether the server's is ready.
    pub const SYNC_RUNNER: &str = "__sync_runner__";
    /// A site's job is there; expects no reply.
    pub const JOB_HEARTBEAT: &str = "__job_heartbeat__";
    /// A site's job asks whether a task still wants its result.
    pub const TASK_CHECK: &str = "__task_check__";
    /// From a site: answer when there is a task for it, or the run has ended, with `OK`; with
    /// [`NO_TASK_YET`] after a while. Ours; another server says that it does not know the topic.
    pub const AWAIT_TASK: &str = "locule.await_task";
    /// The code of an answer to [`AWAIT_TASK`].
    pub const NO_TASK_YET: &str = "NO_TASK_YET";
    /// An event of one side is told to the other; expects no reply.
    pub const FED_EVENT: &str = "fed.event";
    /// The run is over; expects no reply.
    pub const END_RUN: &str = "__end_run__";
}

/// Words of streams of objects in auxiliary messages, of which those of logs are spoken here.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.stream_runner`, `nvflare.app_common.streamers` and
/// `nvflare.app_common.logging.constants`.
pub mod log_stream {
    /// Topic of a piece of a stream; answered.
    pub const REQUEST: &str = "ObjectStreamer.Request";
    /// Topic of the word that no more pieces come; expects no reply.
    pub const ABORT: &str = "ObjectStreamer.Abort";
    /// Header: the stream, by a name that its sender made.
    pub const ID: &str = "ObjectStreamer.TX_ID";
    /// Header: the number of the piece, from 0.
    pub const NUMBER: &str = "ObjectStreamer.SEQ";
    /// Header: what the stream is of; [`OF_LOGS`].
    pub const CHANNEL: &str = "ObjectStreamer.CHANNEL";
    /// Header: the same in more detail; [`LIVE`].
    pub const TOPIC: &str = "ObjectStreamer.TOPIC";
    /// Header of the first piece: facts about the stream.
    pub const CONTEXT: &str = "ObjectStreamer.CTX";
    /// Of the context: the name of the file.
    pub const FILE_NAME: &str = "Streamer.file_name";
    /// Field: the bytes, or none.
    pub const DATA: &str = "Streamer.data";
    /// Field: how many they are.
    pub const SIZE: &str = "Streamer.size";
    /// Field: whether this is the last piece.
    pub const END: &str = "Streamer.eof";
    /// A stream of a log.
    pub const OF_LOGS: &str = "log_streaming";
    /// It comes while it is written.
    pub const LIVE: &str = "live_log";
}

/// An auxiliary message within a job. The cell topic is that of the message.
#[derive(Debug, Clone, PartialEq)]
pub struct AuxRequest {
    /// The topic.
    pub topic: String,
    /// What the sender says of itself; see [`to_props`](crate::to_props).
    pub peer_props: Map,
    /// Other headers.
    pub headers: Map,
    /// The body.
    pub fields: Map,
}

impl AuxRequest {
    /// Its channel.
    pub const CHANNEL: &str = channel::AUX;

    /// A message with nothing but its topic.
    #[must_use]
    pub fn new(topic: impl Into<String>, peer_props: Map) -> Self {
        Self { topic: topic.into(), peer_props, headers: Map::new(), fields: Map::new() }
    }

    /// Asks whether the task still wants its result.
    #[must_use]
    pub fn task_check(task_id: &str, peer_props: Map) -> Self {
        let headers = Map::from_iter([(header::TASK_ID, task_id)]);
        Self { headers, ..Self::new(aux_topic::TASK_CHECK, peer_props) }
    }

    /// The task that a [`task check`](aux_topic::TASK_CHECK) asks about.
    #[must_use]
    pub fn task_id(&self) -> Option<&str> {
        self.headers.str(header::TASK_ID)
    }

    /// To the wire.
    ///
    /// # Errors
    /// [`EncodeError`] when a map holds what the object format cannot carry.
    pub fn to_parts(&self) -> Result<Parts, EncodeError> {
        let mut message = Shareable { headers: self.headers.clone(), fields: self.fields.clone() };
        message.set_header(header::TOPIC, &self.topic);
        message.set_header(header::PEER_PROPS, self.peer_props.clone());
        Parts::new(Headers::new(), message)
    }

    /// From the wire.
    ///
    /// # Errors
    /// [`DecodeError`] when the payload is no shareable with topic and properties of the peer.
    pub fn from_parts(_headers: &Headers, payload: &Payload) -> Result<Self, DecodeError> {
        let Shareable { mut headers, fields } = parts::shareable(payload)?;
        let topic = parts::text(&headers, header::TOPIC)?;
        headers.remove(header::TOPIC);
        let Some(Value::Map(peer_props)) = headers.remove(header::PEER_PROPS) else {
            return Err(DecodeError::Field(header::PEER_PROPS));
        };
        Ok(Self { topic, peer_props, headers, fields })
    }
}

/// The answer to an auxiliary message.
#[derive(Debug, Clone, PartialEq)]
pub struct AuxReply {
    /// How it went: `OK`, `TASK_UNKNOWN`, `TOPIC_UNKNOWN`, `MISSING_PEER_CONTEXT`, `SERVER_NOT_READY`, …
    pub code: String,
    /// What the replier says of itself.
    pub peer: PeerContext,
    /// Other headers.
    pub headers: Map,
    /// The body.
    pub fields: Map,
}

impl AuxReply {
    /// An answer with nothing but its code.
    #[must_use]
    pub fn new(code: impl Into<String>, peer: PeerContext) -> Self {
        Self { code: code.into(), peer, headers: Map::new(), fields: Map::new() }
    }

    /// Whether the code is `OK`.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.code == "OK"
    }

    /// To the wire.
    ///
    /// # Errors
    /// [`EncodeError`] when a map holds what the object format cannot carry.
    pub fn to_parts(&self) -> Result<Parts, EncodeError> {
        let mut reply = Shareable { headers: self.headers.clone(), fields: self.fields.clone() };
        reply.set_return_code(&self.code);
        reply.set_peer_context(self.peer.clone());
        Parts::new(Headers::new(), reply)
    }

    /// From the wire. Without a code it is `OK`.
    ///
    /// # Errors
    /// [`DecodeError`] when the payload is no shareable.
    pub fn from_parts(_headers: &Headers, payload: &Payload) -> Result<Self, DecodeError> {
        let mut reply = parts::shareable(payload)?;
        let peer = parts::take_peer(&mut reply);
        let code = reply.return_code().to_owned();
        reply.headers.remove(header::RETURN_CODE);
        Ok(Self { code, peer, headers: reply.headers, fields: reply.fields })
    }
}
