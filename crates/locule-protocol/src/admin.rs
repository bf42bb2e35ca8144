use bytes::Bytes;
use locule_fobs::{Class, Map, Object, PeerContext, Shareable, Value, header};
use locule_message::{Headers, Payload};

use crate::{
    OutcomeReport, Refusal, channel,
    parts::{self, DecodeError, EncodeError, Parts},
};

const CHECK_RESOURCE: &str = "scheduler.check_resource";
const CANCEL_RESOURCE: &str = "scheduler.cancel_resource";
const DEPLOY: &str = "train.deploy";
const START_JOB: &str = "train.start_job";
/// Ours.
const CHECK_JOB: &str = "locule.check_job";
const ABORT: &str = "train.abort";
const NOTIFY_JOB_STATUS: &str = "train.notify_job_status";
const CHECK_STATUS: &str = "train.check_status";
const SHUTDOWN: &str = "train.shutdown";
const SHOW_STATS: &str = "info.show_stats";
const SHOW_ERRORS: &str = "info.show_errors";

const JOB_ID: &str = "job_id";
const JOB_META: &str = "job_meta";
const JOB_STATUS: &str = "job_status";
const APP_NAME: &str = "app_name";
const RESERVATION: &str = "_resource_reserve_token";
const ENOUGH: &str = "_is_resource_enough";
const ADMIN_COMMAND: &str = "admin_command";
const REQUIRE_AUTHZ: &str = "require_authz";
const EVENT_ID: &str = "_eventId";
const USER: [&str; 3] = ["_userName", "_userOrg", "_userRole"];
const SUBMITTER: [&str; 3] = ["_submitterName", "_submitterOrg", "_submitterRole"];
/// Ours; a stock server passes over them.
const SHORTAGE: &str = "locule.shortage";
const REFUSALS: &str = "locule.refusals";
const RETURN_CODE: &str = "_rtnCode";
const OK: &str = "_ok";
const ERROR: &str = "_error";
/// A text that begins so is an error, whatever the return code.
const ERROR_PREFIX: &str = "NVFLARE_ERROR";

/// An order to a site's parent, from the server or from one of the site's own jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminRequest {
    /// Identifier of the order, a UUID.
    pub id: String,
    /// On whose behalf it comes.
    pub context: AdminContext,
    /// The order itself.
    pub command: AdminCommand,
}

/// On whose behalf an order comes. All of it may be absent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AdminContext {
    /// What the server says of itself.
    pub peer: Option<PeerContext>,
    /// The console command behind it.
    pub admin_command: Option<String>,
    /// Whether the site is asked to apply its own authorization policy.
    pub require_authz: bool,
    /// The user behind it.
    pub user: Person,
    /// The submitter of the job that it is about.
    pub submitter: Person,
    /// Its event in the server's audit log.
    pub event_id: Option<String>,
}

/// Somebody with a certificate. What is not known is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Person {
    /// Name.
    pub name: String,
    /// Organization.
    pub org: String,
    /// Role.
    pub role: String,
}

/// What a site's parent is told to do.
#[derive(Debug, Clone, PartialEq)]
pub enum AdminCommand {
    /// Say whether there is room for a job, and reserve it.
    CheckResource {
        /// The job.
        job_id: String,
        /// Its meta data.
        meta: Map,
        /// What it needs.
        spec: Map,
    },
    /// Give a reservation back.
    CancelResource {
        /// The job.
        job_id: String,
        /// The reservation.
        token: String,
        /// What it was for.
        spec: Map,
    },
    /// Store a job's application.
    Deploy {
        /// The job.
        job_id: String,
        /// The application's name.
        app_name: String,
        /// The job's meta data.
        meta: Map,
        /// The contents of the application's folder.
        zip: Bytes,
    },
    /// Say what the site's checkers would say of an app, and keep nothing of it. An extension: a stock site does
    /// not know it. The answer is a document with a `verdict` and a `text`, beside [`AdminReply::refusals`].
    CheckJob {
        /// An identifier that no job has.
        job_id: String,
        /// The application's name.
        app_name: String,
        /// The job's meta data.
        meta: Map,
        /// The contents of the application's folder.
        zip: Bytes,
    },
    /// Start a job that was deployed.
    StartJob {
        /// The job.
        job_id: String,
        /// Its meta data, with the participants under `job_clients`.
        meta: Map,
        /// What it needs.
        spec: Map,
        /// The reservation.
        token: String,
    },
    /// Stop a job.
    Abort {
        /// The job.
        job_id: String,
    },
    /// A job tells its parent how it stands.
    NotifyJobStatus {
        /// The job.
        job_id: String,
        /// How it stands.
        status: JobStatus,
    },
    /// Say which jobs run.
    CheckStatus,
    /// Leave and stop.
    Shutdown,
    /// Tell the statistics of a job that runs.
    ShowStats {
        /// The job.
        job_id: String,
    },
    /// Tell the latest errors of a job that runs.
    ShowErrors {
        /// The job.
        job_id: String,
    },
    /// An order that is not known here. A site answers it with an error.
    Other {
        /// Its topic.
        topic: String,
    },
}

/// How a job's process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobStatus {
    /// Not started.
    NotStarted,
    /// Starting.
    Starting,
    /// Running.
    Started,
    /// Ended.
    Stopped,
    /// Ended by an exception.
    Exception,
}

impl JobStatus {
    const ALL: [Self; 5] = [Self::NotStarted, Self::Starting, Self::Started, Self::Stopped, Self::Exception];

    /// The status as it stands on the wire.
    #[must_use]
    pub const fn code(self) -> i64 {
        match self {
            Self::NotStarted => 0,
            Self::Starting => 1,
            Self::Started => 2,
            Self::Stopped => 3,
            Self::Exception => 4,
        }
    }
}

impl AdminCommand {
    /// The topic inside the payload.
    #[must_use]
    pub fn topic(&self) -> &str {
        match self {
            Self::CheckResource { .. } => CHECK_RESOURCE,
            Self::CancelResource { .. } => CANCEL_RESOURCE,
            Self::Deploy { .. } => DEPLOY,
            Self::CheckJob { .. } => CHECK_JOB,
            Self::StartJob { .. } => START_JOB,
            Self::Abort { .. } => ABORT,
            Self::NotifyJobStatus { .. } => NOTIFY_JOB_STATUS,
            Self::CheckStatus => CHECK_STATUS,
            Self::Shutdown => SHUTDOWN,
            Self::ShowStats { .. } => SHOW_STATS,
            Self::ShowErrors { .. } => SHOW_ERRORS,
            Self::Other { topic } => topic,
        }
    }
}

impl AdminRequest {
    /// Its channel.
    pub const CHANNEL: &str = channel::ADMIN;
    /// The cell topic of the server's orders, whatever they are.
    pub const TOPIC: &str = "admin";
    /// The cell topic of a job's [`NotifyJobStatus`](AdminCommand::NotifyJobStatus) to its parent.
    pub const NOTIFY_TOPIC: &str = NOTIFY_JOB_STATUS;

    /// An order on nobody's behalf. `id` is a fresh UUID.
    #[must_use]
    pub fn new(id: impl Into<String>, command: AdminCommand) -> Self {
        Self { id: id.into(), context: AdminContext::default(), command }
    }

    /// To the wire.
    ///
    /// # Errors
    /// [`EncodeError`] when meta data or resources cannot be encoded.
    pub fn to_parts(&self) -> Result<Parts, EncodeError> {
        let mut headers = self.context.to_headers();
        let body = match &self.command {
            AdminCommand::CheckResource { job_id, meta, spec } => {
                headers.insert(JOB_ID, job_id);
                headers.insert(JOB_META, meta.clone());
                spec.clone().into()
            }
            AdminCommand::CancelResource { job_id, token, spec } => {
                headers.insert(JOB_ID, job_id);
                headers.insert(RESERVATION, token);
                spec.clone().into()
            }
            AdminCommand::Deploy { job_id, app_name, meta, zip }
            | AdminCommand::CheckJob { job_id, app_name, meta, zip } => {
                headers.insert(JOB_ID, job_id);
                headers.insert(APP_NAME, app_name);
                headers.insert(JOB_META, meta.clone());
                Value::Bytes(zip.clone())
            }
            AdminCommand::StartJob { job_id, meta, spec, token } => {
                headers.insert(JOB_ID, job_id);
                headers.insert(JOB_META, meta.clone());
                headers.insert(RESERVATION, token);
                spec.clone().into()
            }
            AdminCommand::Abort { job_id }
            | AdminCommand::ShowStats { job_id }
            | AdminCommand::ShowErrors { job_id } => {
                headers.insert(JOB_ID, job_id);
                "".into()
            }
            AdminCommand::NotifyJobStatus { job_id, status } => {
                headers.insert(JOB_ID, job_id);
                headers.insert(JOB_STATUS, status.code());
                "".into()
            }
            AdminCommand::CheckStatus | AdminCommand::Shutdown | AdminCommand::Other { .. } => "".into(),
        };
        let topic = self.command.topic();
        Parts::new(Headers::new(), Envelope { id: self.id.clone(), topic: topic.to_owned(), body, headers })
    }

    /// From the wire.
    ///
    /// # Errors
    /// [`DecodeError`] when the payload is no admin message, or lacks what its topic calls for.
    pub fn from_parts(_headers: &Headers, payload: &Payload) -> Result<Self, DecodeError> {
        let Envelope { id, topic, body, mut headers } = Envelope::from_payload(payload)?;
        let job_id = || parts::text(&headers, JOB_ID);
        let token = || parts::text(&headers, RESERVATION);
        let meta = || headers.map(JOB_META).map(plain_keys).ok_or(DecodeError::Field(JOB_META));
        let spec = |body: Value| {
            if body.is_none() || body.as_str() == Some("") {
                return Ok(Map::new()); // a job without needs
            }
            let wrong = DecodeError::Kind { expected: "resource spec", found: body.kind() };
            body.as_map().cloned().ok_or(wrong)
        };
        let command = match topic.as_str() {
            CHECK_RESOURCE => AdminCommand::CheckResource {
                job_id: job_id()?,
                meta: headers.map(JOB_META).map(plain_keys).unwrap_or_default(),
                spec: spec(body)?,
            },
            CANCEL_RESOURCE => AdminCommand::CancelResource {
                job_id: headers.str(JOB_ID).unwrap_or_default().to_owned(),
                token: token()?,
                spec: spec(body)?,
            },
            DEPLOY => AdminCommand::Deploy {
                job_id: job_id()?,
                app_name: parts::text(&headers, APP_NAME)?,
                meta: meta()?,
                zip: body.as_bytes().cloned().ok_or(DecodeError::Field("zip"))?,
            },
            CHECK_JOB => AdminCommand::CheckJob {
                job_id: job_id()?,
                app_name: parts::text(&headers, APP_NAME)?,
                meta: meta()?,
                zip: body.as_bytes().cloned().ok_or(DecodeError::Field("zip"))?,
            },
            START_JOB => AdminCommand::StartJob {
                job_id: job_id()?,
                meta: meta()?,
                spec: spec(body)?,
                token: token()?,
            },
            ABORT => AdminCommand::Abort { job_id: job_id()? },
            NOTIFY_JOB_STATUS => {
                let code = headers.int(JOB_STATUS).ok_or(DecodeError::Field(JOB_STATUS))?;
                let status = JobStatus::ALL.into_iter().find(|status| status.code() == code);
                let status = status.ok_or_else(|| DecodeError::value(JOB_STATUS, &code.to_string()))?;
                AdminCommand::NotifyJobStatus { job_id: job_id()?, status }
            }
            CHECK_STATUS => AdminCommand::CheckStatus,
            SHUTDOWN => AdminCommand::Shutdown,
            SHOW_STATS => AdminCommand::ShowStats { job_id: job_id()? },
            SHOW_ERRORS => AdminCommand::ShowErrors { job_id: job_id()? },
            _ => AdminCommand::Other { topic },
        };
        Ok(Self { id, context: AdminContext::from_headers(&mut headers), command })
    }

    /// The answer to this order.
    #[must_use]
    pub fn reply(&self, ok: bool, body: AdminBody) -> AdminReply {
        let topic = format!("reply_{}", self.command.topic());
        AdminReply { id: self.id.clone(), topic, ok, body, refusals: Vec::new() }
    }
}

impl AdminContext {
    fn to_headers(&self) -> Map {
        let mut headers = Map::new();
        if let Some(peer) = &self.peer {
            headers.insert(header::PEER_CONTEXT, peer.clone());
        }
        if let Some(command) = &self.admin_command {
            headers.insert(ADMIN_COMMAND, command);
            headers.insert(REQUIRE_AUTHZ, if self.require_authz { "true" } else { "false" });
        }
        for (keys, person) in [(USER, &self.user), (SUBMITTER, &self.submitter)] {
            for (key, text) in keys.into_iter().zip([&person.name, &person.org, &person.role]) {
                if !text.is_empty() {
                    headers.insert(key, text);
                }
            }
        }
        if let Some(event) = &self.event_id {
            headers.insert(EVENT_ID, event);
        }
        headers
    }

    fn from_headers(headers: &mut Map) -> Self {
        let peer = match headers.remove(header::PEER_CONTEXT) {
            Some(Value::Context(peer)) => Some(peer),
            Some(_) | None => None,
        };
        let text = |key: &str| headers.str(key).map(str::to_owned);
        let person = |[name, org, role]: [&str; 3]| Person {
            name: text(name).unwrap_or_default(),
            org: text(org).unwrap_or_default(),
            role: text(role).unwrap_or_default(),
        };
        Self {
            peer,
            admin_command: text(ADMIN_COMMAND),
            require_authz: headers.str(REQUIRE_AUTHZ) == Some("true"),
            user: person(USER),
            submitter: person(SUBMITTER),
            event_id: text(EVENT_ID),
        }
    }
}

/// A site's answer to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminReply {
    /// Identifier of the answer; ours repeats that of the order. Not looked at.
    pub id: String,
    /// `reply_` and the order's topic. Not looked at.
    pub topic: String,
    /// Whether it went well.
    pub ok: bool,
    /// What there is to say.
    pub body: AdminBody,
    /// Components that the site refuses, in answer to a deployment; at most
    /// [`OutcomeReport::MAX_REFUSALS`](crate::OutcomeReport::MAX_REFUSALS) are read. An extension, which a stock
    /// server passes over and a stock site leaves out.
    pub refusals: Vec<Refusal>,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminBody {
    /// Text for people, or JSON; see [`AdminReply::json`].
    Text(String),
    /// Whether there is room for a job.
    Resource {
        /// Whether there is.
        enough: bool,
        /// The reservation, or why there is no room.
        token: String,
        /// If there is none: whether there may be some later. An extension, which a stock server passes over and a
        /// stock site leaves out.
        shortage: Option<Shortage>,
    },
    /// Nothing but the return code of a shareable.
    Code(String),
}

/// What it means that a site has no room for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// Other jobs have what it needs; there is enough when they have ended.
    Taken,
    /// The site has less than it needs, whoever else runs there.
    Never,
}

impl Shortage {
    fn word(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Never => "never",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::Taken, Self::Never].into_iter().find(|shortage| shortage.word() == word)
    }
}

impl AdminBody {
    /// There is room, under this reservation.
    #[must_use]
    pub fn room(reservation: impl Into<String>) -> Self {
        Self::Resource { enough: true, token: reservation.into(), shortage: None }
    }

    /// There is no room, for this reason.
    #[must_use]
    pub fn no_room(reason: impl Into<String>, shortage: Option<Shortage>) -> Self {
        Self::Resource { enough: false, token: reason.into(), shortage }
    }

    /// A document as text.
    #[must_use]
    pub fn json(document: &serde_json::Value) -> Self {
        Self::Text(document.to_string())
    }
}

impl AdminReply {
    /// To the wire.
    ///
    /// # Errors
    /// [`EncodeError`] never in practice.
    pub fn to_parts(&self) -> Result<Parts, EncodeError> {
        let body = match &self.body {
            AdminBody::Text(text) => Value::from(text),
            AdminBody::Resource { enough, token, shortage } => {
                let mut body = Shareable::new();
                body.set_header(ENOUGH, *enough);
                body.set_header(RESERVATION, token);
                if let Some(shortage) = shortage {
                    body.set_header(SHORTAGE, shortage.word());
                }
                body.into()
            }
            AdminBody::Code(code) => Shareable::with_return_code(code).into(),
        };
        // A stock server reads a reservation only from an answer that says nothing of how it went.
        let mut headers = match (&self.body, self.ok) {
            (AdminBody::Resource { .. }, true) => Map::new(),
            (_, true) => Map::from_iter([(RETURN_CODE, OK)]),
            (_, false) => Map::from_iter([(RETURN_CODE, ERROR)]),
        };
        if !self.refusals.is_empty() {
            let refusals: Vec<Map> = self.refusals.iter().map(Refusal::to_map).collect();
            headers.insert(REFUSALS, refusals);
        }
        Parts::new(Headers::new(), Envelope { id: self.id.clone(), topic: self.topic.clone(), body, headers })
    }

    /// From the wire. Without a return code it went well, unless the text says otherwise.
    ///
    /// # Errors
    /// [`DecodeError`] when the payload is no admin message, or its body is something else.
    pub fn from_parts(_headers: &Headers, payload: &Payload) -> Result<Self, DecodeError> {
        let Envelope { id, topic, body, headers } = Envelope::from_payload(payload)?;
        let body = if let Value::Shareable(body) = &body {
            match body.headers.bool(ENOUGH) {
                Some(enough) => {
                    let token = body.headers.str(RESERVATION).unwrap_or_default().to_owned();
                    let shortage = body.headers.str(SHORTAGE).and_then(Shortage::of);
                    AdminBody::Resource { enough, token, shortage }
                }
                None => AdminBody::Code(body.return_code().to_owned()),
            }
        } else if body.is_none() {
            AdminBody::Text(String::new())
        } else {
            let wrong = DecodeError::Kind { expected: "text or shareable", found: body.kind() };
            AdminBody::Text(body.as_str().ok_or(wrong)?.to_owned())
        };
        let said_error = matches!(&body, AdminBody::Text(text) if text.starts_with(ERROR_PREFIX));
        let ok = headers.str(RETURN_CODE).is_none_or(|code| code == OK) && !said_error;
        let refusals = headers.list(REFUSALS).unwrap_or_default().iter().filter_map(Value::as_map);
        let refusals = refusals.take(OutcomeReport::MAX_REFUSALS).map(Refusal::from_map).collect();
        Ok(Self { id, topic, ok, body, refusals })
    }

    /// The body as a document, if it is one.
    #[must_use]
    pub fn json(&self) -> Option<serde_json::Value> {
        let AdminBody::Text(text) = &self.body else { return None };
        serde_json::from_str(text).ok()
    }
}

/// The object that orders and answers travel in.
struct Envelope {
    id: String,
    topic: String,
    body: Value,
    headers: Map,
}

impl Envelope {
    fn from_payload(payload: &Payload) -> Result<Self, DecodeError> {
        let wrong = |found| DecodeError::Kind { expected: "admin message", found };
        let value = parts::value(payload)?;
        let Value::Object(object) = &value else { return Err(wrong(value.kind())) };
        if object.class != Class::ADMIN_MESSAGE {
            return Err(wrong(object.class.name()));
        }
        let message = object.attributes().ok_or(wrong("object without attributes"))?;
        Ok(Self {
            id: message.str("id").unwrap_or_default().to_owned(),
            topic: parts::text(message, "topic")?,
            body: message.get("body").cloned().unwrap_or_default(),
            headers: message.map("headers").cloned().unwrap_or_default(),
        })
    }
}

impl From<Envelope> for Value {
    fn from(message: Envelope) -> Self {
        let attributes = Map::from_iter([
            ("id", Value::from(message.id)),
            ("topic", message.topic.into()),
            ("body", message.body),
            ("headers", message.headers.into()),
        ]);
        Object::with_attributes(Class::ADMIN_MESSAGE, attributes).into()
    }
}

/// Meta data with text keys only: a stock server writes some keys as members of an enumeration.
///
/// # Source
/// nvflare 2.9.0, `nvflare.apis.job_def` (`JobMetaKey`): a member's value is its name in lower case,
/// but for two.
fn plain_keys(meta: &Map) -> Map {
    let plain = |key: &Value| {
        if let Value::Enum { class, member } = key
            && *class == Class::JOB_META_KEY
        {
            return Value::from(match member.as_str() {
                "JOB_NAME" => "name".to_owned(),
                "JOB_LAUNCHER_SPEC" => "launcher_spec".to_owned(),
                other => other.to_lowercase(),
            });
        }
        key.clone()
    };
    meta.iter().map(|(key, value)| (plain(key), value.clone())).collect()
}
