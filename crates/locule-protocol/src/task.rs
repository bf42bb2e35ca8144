use std::time::Duration;

use locule_fobs::{Map, PeerContext, Shareable, Value, header};
use locule_message::{Headers, Payload};

use crate::{
    channel,
    context::prop,
    parts::{self, DecodeError, EncodeError, Parts},
};

const PROJECT_NAME: &str = "project_name";
const LAST_TASK_ID: &str = "last_task_id";
/// The header with the name of the task or what else the site is to do.
const ANSWER: &str = "task_name";
const WAIT_TIME: &str = "__wait_time__";
const TRY_AGAIN: &str = "__try_again__";
const END_RUN: &str = "__end_run__";

/// A site's job asks the server's for something to do.
#[derive(Debug, Clone, PartialEq)]
pub struct GetTask {
    /// The project.
    pub project_name: String,
    /// What the site's job says of itself. It names the job; a server that runs another answers that
    /// the run is over.
    pub peer: PeerContext,
    /// The task done last.
    pub last_task_id: Option<String>,
}

impl GetTask {
    /// Its channel.
    pub const CHANNEL: &str = channel::SERVER_COMMAND;
    /// Its topic.
    pub const TOPIC: &str = "get_task";

    /// To the wire.
    ///
    /// # Errors
    /// [`EncodeError`] when the context cannot be encoded.
    pub fn to_parts(&self) -> Result<Parts, EncodeError> {
        let mut headers = Headers::new();
        headers.set(PROJECT_NAME, &self.project_name);
        let mut request = Shareable::new();
        request.set_peer_context(self.peer.clone());
        if let Some(task) = &self.last_task_id {
            request.set_header(LAST_TASK_ID, task);
        }
        Parts::new(headers, request)
    }

    /// From the wire. The project may be absent.
    ///
    /// # Errors
    /// [`DecodeError`] when the payload is no shareable whose context names a job.
    pub fn from_parts(headers: &Headers, payload: &Payload) -> Result<Self, DecodeError> {
        let mut request = parts::shareable(payload)?;
        let peer = parts::take_peer(&mut request);
        job_of(&peer)?;
        Ok(Self {
            project_name: headers.str(PROJECT_NAME).unwrap_or_default().to_owned(),
            peer,
            last_task_id: request.headers.str(LAST_TASK_ID).map(str::to_owned),
        })
    }

    /// The job that the context names; empty when it names none.
    #[must_use]
    pub fn job_id(&self) -> &str {
        job_of(&self.peer).unwrap_or_default()
    }
}

/// What a site's job is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskReply {
    /// This task.
    Task(Box<Assignment>),
    /// Nothing yet.
    TryAgain {
        /// How long to wait before asking again; at most [`TaskReply::MAX_WAIT`] is read.
        wait: Duration,
        /// What the server's job says of itself. A stock site fails without it.
        peer: PeerContext,
    },
    /// The run is over.
    EndRun {
        /// What the server's job says of itself. A stock site fails without it.
        peer: PeerContext,
    },
}

/// A task for one site.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The task's name; jobs configure an executor for it.
    pub name: String,
    /// Its identifier; each site has another for the same task.
    pub id: String,
    /// Data and the workflow's headers, such as `current_round`, and the context of the server's job
    /// ([`Shareable::peer_context`]). A stock site refuses a task whose context does not name its job.
    pub data: Shareable,
    /// What to send back with the result, unchanged.
    pub cookies: Map,
    /// How long to wait after the result before asking again; at most [`TaskReply::MAX_WAIT`] is read.
    pub wait: Duration,
}

impl Assignment {
    /// A task without cookies, after which to ask again at once.
    #[must_use]
    pub fn new(name: impl Into<String>, id: impl Into<String>, data: Shareable) -> Self {
        Self { name: name.into(), id: id.into(), data, cookies: Map::new(), wait: Duration::ZERO }
    }
}

impl TaskReply {
    /// Longest wait that is read from the wire; more counts as this.
    pub const MAX_WAIT: Duration = Duration::from_secs(3600);

    /// To the wire.
    ///
    /// # Errors
    /// [`EncodeError`] when data, cookies or context cannot be encoded.
    pub fn to_parts(&self) -> Result<Parts, EncodeError> {
        let reply = match self {
            Self::Task(task) => {
                let mut cookies = task.cookies.clone();
                // a server takes the task of a result from its cookie
                cookies.insert(header::TASK_ID, &task.id);
                let mut reply = task.data.clone();
                reply.set_cookies(cookies);
                reply.set_header(header::TASK_NAME, &task.name);
                reply.set_header(header::TASK_ID, &task.id);
                reply.set_header(WAIT_TIME, seconds(task.wait));
                reply.set_header(ANSWER, &task.name);
                reply
            }
            Self::TryAgain { wait, peer } => {
                let mut reply = nothing_to_do(TRY_AGAIN, peer);
                reply.set_header(WAIT_TIME, seconds(*wait));
                reply
            }
            Self::EndRun { peer } => nothing_to_do(END_RUN, peer),
        };
        Parts::new(Headers::new(), reply)
    }

    /// From the wire.
    ///
    /// # Errors
    /// [`DecodeError`] when the payload is no shareable that names a task, or a task has no identifier.
    pub fn from_parts(_headers: &Headers, payload: &Payload) -> Result<Self, DecodeError> {
        let mut data = parts::shareable(payload)?;
        let answer = parts::text(&data.headers, ANSWER)?;
        let wait = data.headers.float(WAIT_TIME).unwrap_or_default();
        // what is no length of time (negative, not a number) is no wait
        let wait =
            Duration::try_from_secs_f64(wait.clamp(0.0, Self::MAX_WAIT.as_secs_f64())).unwrap_or_default();
        match answer.as_str() {
            TRY_AGAIN => Ok(Self::TryAgain { wait, peer: parts::take_peer(&mut data) }),
            END_RUN => Ok(Self::EndRun { peer: parts::take_peer(&mut data) }),
            _ => {
                let id = parts::text(&data.headers, header::TASK_ID)?;
                let cookies = match data.headers.remove(header::COOKIE_JAR) {
                    Some(Value::Map(cookies)) => cookies,
                    Some(_) | None => Map::new(),
                };
                for key in [ANSWER, header::TASK_NAME, header::TASK_ID, WAIT_TIME] {
                    data.headers.remove(key);
                }
                Ok(Self::Task(Box::new(Assignment { name: answer, id, data, cookies, wait })))
            }
        }
    }
}

/// A site's job hands in a result.
#[derive(Debug, Clone, PartialEq)]
pub struct SubmitUpdate {
    /// The project.
    pub project_name: String,
    /// The task's name.
    pub task_name: String,
    /// The task's identifier. On the wire the cookie counts, the header only where there is none.
    pub task_id: String,
    /// The task's cookies, unchanged.
    pub cookies: Map,
    /// Result and return code, with the workflow's headers.
    pub result: Shareable,
    /// What the site's job says of itself. It names the job.
    pub peer: PeerContext,
}

impl SubmitUpdate {
    /// Its channel.
    pub const CHANNEL: &str = channel::SERVER_COMMAND;
    /// Its topic.
    pub const TOPIC: &str = "submit_update";

    /// To the wire.
    ///
    /// # Errors
    /// [`EncodeError`] when result, cookies or context cannot be encoded.
    pub fn to_parts(&self) -> Result<Parts, EncodeError> {
        let mut headers = Headers::new();
        headers.set(PROJECT_NAME, &self.project_name);
        let mut update = self.result.clone();
        update.set_cookies(self.cookies.clone());
        update.set_header(header::TASK_NAME, &self.task_name);
        update.set_header(header::TASK_ID, &self.task_id);
        update.set_peer_context(self.peer.clone());
        Parts::new(headers, update)
    }

    /// From the wire. Project and cookies may be absent.
    ///
    /// # Errors
    /// [`DecodeError`] when the payload is no shareable whose context names a job, or names no task.
    pub fn from_parts(headers: &Headers, payload: &Payload) -> Result<Self, DecodeError> {
        let mut result = parts::shareable(payload)?;
        let peer = parts::take_peer(&mut result);
        job_of(&peer)?;
        let cookies = match result.headers.remove(header::COOKIE_JAR) {
            Some(Value::Map(cookies)) => cookies,
            Some(_) | None => Map::new(),
        };
        let task_name = parts::text(&result.headers, header::TASK_NAME)?;
        let by_cookie = cookies.str(header::TASK_ID).or_else(|| result.headers.str(header::TASK_ID));
        let task_id = by_cookie.ok_or(DecodeError::Field(header::TASK_ID))?.to_owned();
        result.headers.remove(header::TASK_NAME);
        result.headers.remove(header::TASK_ID);
        Ok(Self {
            project_name: headers.str(PROJECT_NAME).unwrap_or_default().to_owned(),
            task_name,
            task_id,
            cookies,
            result,
            peer,
        })
    }

    /// The job that the context names; empty when it names none.
    #[must_use]
    pub fn job_id(&self) -> &str {
        job_of(&self.peer).unwrap_or_default()
    }
}

/// The server's job has the result. Whether it was of use is not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubmitReply;

impl SubmitReply {
    /// To the wire.
    ///
    /// # Errors
    /// [`EncodeError`] never in practice.
    pub fn to_parts(&self) -> Result<Parts, EncodeError> {
        Parts::new(Headers::new(), "")
    }

    /// From the wire. Any payload will do: the return code has said it all.
    ///
    /// # Errors
    /// [`DecodeError`] never, so far.
    pub fn from_parts(_headers: &Headers, _payload: &Payload) -> Result<Self, DecodeError> {
        Ok(Self)
    }
}

fn job_of(peer: &PeerContext) -> Result<&str, DecodeError> {
    peer.str(prop::RUN_NUM).ok_or(DecodeError::Field(prop::RUN_NUM))
}

fn nothing_to_do(answer: &str, peer: &PeerContext) -> Shareable {
    let mut reply = Shareable::new();
    reply.set_header(header::TASK_ID, "");
    reply.set_header(ANSWER, answer);
    reply.set_peer_context(peer.clone());
    reply
}

/// Whole seconds as an integer, as a stock server has them.
fn seconds(wait: Duration) -> Value {
    if wait.subsec_nanos() == 0 { wait.as_secs().into() } else { wait.as_secs_f64().into() }
}
