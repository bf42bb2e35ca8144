use locule_fobs::{PeerContext, Shareable};
use locule_message::{Headers, Payload};

use crate::{
    channel,
    parts::{self, DecodeError, EncodeError, Parts},
};

const PROJECT_NAME: &str = "project_name";
const JOB_IDS: &str = "job_ids";
const ABORT_JOBS: &str = "abort_jobs";
const MESSAGE: &str = "message";

/// A site is there, and these jobs run at it.
#[derive(Debug, Clone, PartialEq)]
pub struct Heartbeat {
    /// The project; not checked by a stock server.
    pub project_name: String,
    /// The jobs that the site still holds. A job missing here before its outcome was reported is a
    /// failed job to a stock server.
    pub job_ids: Vec<String>,
    /// What the site says of itself.
    pub peer: PeerContext,
}

impl Heartbeat {
    /// Its channel.
    pub const CHANNEL: &str = channel::TASK;
    /// Its topic.
    pub const TOPIC: &str = "heart_beat";

    /// To the wire.
    ///
    /// # Errors
    /// [`EncodeError`] when the context cannot be encoded.
    pub fn to_parts(&self) -> Result<Parts, EncodeError> {
        let mut headers = Headers::new();
        headers.set(PROJECT_NAME, &self.project_name);
        headers.set(JOB_IDS, &self.job_ids[..]);
        Parts::new(headers, with_peer(&self.peer))
    }

    /// From the wire. Project, jobs and context may be absent.
    ///
    /// # Errors
    /// [`DecodeError`] when the jobs are no list of texts, or the payload is something else.
    pub fn from_parts(headers: &Headers, payload: &Payload) -> Result<Self, DecodeError> {
        Ok(Self {
            project_name: headers.str(PROJECT_NAME).unwrap_or_default().to_owned(),
            job_ids: parts::header_list(headers, JOB_IDS)?,
            peer: parts::peer(payload)?,
        })
    }
}

/// The server has heard it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// Text for people.
    pub message: String,
    /// Jobs that the server does not know: the site is to abort them.
    pub abort_jobs: Vec<String>,
}

impl HeartbeatReply {
    /// A reply as a stock server words it.
    #[must_use]
    pub fn new(abort_jobs: Vec<String>) -> Self {
        Self { message: "Heartbeat response".into(), abort_jobs }
    }

    /// To the wire.
    ///
    /// # Errors
    /// [`EncodeError`] never, so far.
    pub fn to_parts(&self) -> Result<Parts, EncodeError> {
        let mut headers = Headers::new();
        headers.set(MESSAGE, &self.message);
        if !self.abort_jobs.is_empty() {
            headers.set(ABORT_JOBS, &self.abort_jobs[..]);
        }
        Ok(Parts::only_headers(headers))
    }

    /// From the wire. Both may be absent.
    ///
    /// # Errors
    /// [`DecodeError::Field`] when the jobs are no list of texts.
    pub fn from_parts(headers: &Headers, _payload: &Payload) -> Result<Self, DecodeError> {
        Ok(Self {
            message: headers.str(MESSAGE).unwrap_or_default().to_owned(),
            abort_jobs: parts::header_list(headers, ABORT_JOBS)?,
        })
    }
}

/// A site leaves.
#[derive(Debug, Clone, PartialEq)]
pub struct Quit {
    /// The project.
    pub project_name: String,
    /// What the site says of itself.
    pub peer: PeerContext,
}

impl Quit {
    /// Its channel.
    pub const CHANNEL: &str = channel::TASK;
    /// Its topic.
    pub const TOPIC: &str = "quit";

    /// To the wire.
    ///
    /// # Errors
    /// [`EncodeError`] when the context cannot be encoded.
    pub fn to_parts(&self) -> Result<Parts, EncodeError> {
        let mut headers = Headers::new();
        headers.set(PROJECT_NAME, &self.project_name);
        Parts::new(headers, with_peer(&self.peer))
    }

    /// From the wire.
    ///
    /// # Errors
    /// [`DecodeError`] when the project is missing, or the payload is something else.
    pub fn from_parts(headers: &Headers, payload: &Payload) -> Result<Self, DecodeError> {
        Ok(Self { project_name: parts::header(headers, PROJECT_NAME)?, peer: parts::peer(payload)? })
    }
}

/// The server has let the site go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuitReply {
    /// Text for people.
    pub message: String,
}

impl QuitReply {
    /// A reply as a stock server words it.
    #[must_use]
    pub fn new() -> Self {
        Self { message: "Removed client".into() }
    }

    /// To the wire.
    ///
    /// # Errors
    /// [`EncodeError`] never, so far.
    pub fn to_parts(&self) -> Result<Parts, EncodeError> {
        let mut headers = Headers::new();
        headers.set(MESSAGE, &self.message);
        Ok(Parts::only_headers(headers))
    }

    /// From the wire. The text may be absent.
    ///
    /// # Errors
    /// [`DecodeError`] never, so far.
    pub fn from_parts(headers: &Headers, _payload: &Payload) -> Result<Self, DecodeError> {
        Ok(Self { message: headers.str(MESSAGE).unwrap_or_default().to_owned() })
    }
}

impl Default for QuitReply {
    fn default() -> Self {
        Self::new()
    }
}

fn with_peer(peer: &PeerContext) -> Shareable {
    let mut shareable = Shareable::new();
    shareable.set_peer_context(peer.clone());
    shareable
}
