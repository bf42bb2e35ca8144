//! What administrators and a server say to each other: JSON texts, both ways.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// Longest text of a command document that is read, in bytes.
pub const MAX_DOCUMENT: usize = 1 << 20;

/// Longest text of an answer that is read, in bytes: a log of each site may be in it.
pub const MAX_ANSWER: usize = 64 << 20;

/// Longest time that a command may ask for.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);

/// Words as a command line that a server cuts into the same words again.
#[must_use]
pub fn command_line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let plain =
        |word: &&str| !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || "\"'\\#".contains(c));
    let words = words.into_iter().map(|word| match Some(word).filter(plain) {
        Some(word) => word.to_owned(),
        None => format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"")),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A command as an administrator sends it.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.hci.proto`, `nvflare.fuel.hci.conn`.
#[derive(Clone, PartialEq)]
pub struct CommandDocument {
    /// The command line.
    pub command: String,
    /// The token of the session, once there is one; a secret.
    pub token: Option<String>,
    /// How long the administrator waits for sites.
    pub timeout: Option<Duration>,
}

impl CommandDocument {
    /// Its channel.
    pub const CHANNEL: &str = "hci_channel";
    /// Its topic.
    pub const TOPIC: &str = "command";
    /// The topic of the server's word that a session is over.
    pub const EXPIRED: &str = "SESSION_EXPIRED";

    /// A command without session.
    #[must_use]
    pub fn new(command: impl Into<String>) -> Self {
        Self { command: command.into(), token: None, timeout: None }
    }

    /// As text. `time` is for people.
    #[must_use]
    pub fn to_text(&self, time: &str) -> String {
        let mut data = vec![json!({ "type": "command", "data": self.command })];
        data.extend(self.token.as_ref().map(|token| json!({ "type": "token", "data": token })));
        let mut meta = Map::new();
        meta.extend(self.timeout.map(|timeout| ("cmd_timeout".to_owned(), json!(timeout.as_secs_f64()))));
        json!({ "time": time, "data": data, "meta": meta }).to_string()
    }

    /// From text. The first command and the first token count.
    ///
    /// # Errors
    /// [`DocumentError`]; the sender does not speak this protocol.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        let (items, meta) = parse(text, MAX_DOCUMENT)?;
        let first =
            |kind| items.iter().find(|item| item["type"] == kind).and_then(|item| item["data"].as_str());
        let command = first("command").ok_or(DocumentError::NoCommand)?.to_owned();
        let timeout = meta.get("cmd_timeout").and_then(Value::as_f64).filter(|seconds| *seconds > 0.0);
        let timeout = timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Ok(Self {
            command,
            token: first("token").map(str::to_owned),
            timeout: timeout.map(|timeout| timeout.min(MAX_TIMEOUT)),
        })
    }
}

impl std::fmt::Debug for CommandDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandDocument").field("command", &self.command).finish_non_exhaustive()
    }
}

/// One part of an answer.
#[derive(Clone, PartialEq)]
pub enum Item {
    /// Text for people.
    Text(String),
    /// It went well; what there is to say of it.
    Success(String),
    /// It did not.
    Error(String),
    /// Rows of cells; the first row is the head.
    Table(Vec<Vec<Value>>),
    /// A document.
    Dict(Value),
    /// The token of a new session; a secret.
    Token(String),
    /// The server stops; its last words.
    Shutdown(String),
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.debug_tuple("Text").field(text).finish(),
            Self::Success(text) => f.debug_tuple("Success").field(text).finish(),
            Self::Error(text) => f.debug_tuple("Error").field(text).finish(),
            Self::Table(rows) => f.debug_tuple("Table").field(rows).finish(),
            Self::Dict(document) => f.debug_tuple("Dict").field(document).finish(),
            Self::Token(_) => f.write_str("Token"),
            Self::Shutdown(text) => f.debug_tuple("Shutdown").field(text).finish(),
        }
    }
}

/// What became of a command, as programs see it.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.hci.proto` (`MetaStatusValue`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It went well.
    Ok,
    /// The command line is not understood.
    SyntaxError,
    /// The user has no right to it.
    NotAuthorized,
    /// There is no session.
    NotAuthenticated,
    /// It did not go well.
    Error,
    /// The server is at fault.
    InternalError,
    /// There is no such site.
    InvalidTarget,
    /// The job that was sent is not one.
    InvalidJobDefinition,
    /// There is no such job.
    InvalidJobId,
    /// The job is not over.
    JobRunning,
    /// The job does not run.
    JobNotRunning,
    /// Sites are still there.
    ClientsRunning,
    /// The site has no jobs.
    NoJobs,
    /// The job has no such parts.
    NoJobComponents,
    /// The token of the submission was used for another job.
    SubmitTokenConflict,
    /// The job of the submission's token was deleted.
    SubmitTokenJobDeleted,
    /// A site did not answer.
    NoReply,
    /// No site is there.
    NoClients,
}

impl Status {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::SyntaxError => "syntax_error",
            Self::NotAuthorized => "not_authorized",
            Self::NotAuthenticated => "not_authenticated",
            Self::Error => "error",
            Self::InternalError => "internal_error",
            Self::InvalidTarget => "invalid_target",
            Self::InvalidJobDefinition => "invalid_job_def",
            Self::InvalidJobId => "invalid_job_id",
            Self::JobRunning => "job_running",
            Self::JobNotRunning => "job_not_running",
            Self::ClientsRunning => "clients_running",
            Self::NoJobs => "no_jobs",
            Self::NoJobComponents => "no_job_components",
            Self::SubmitTokenConflict => "submit_token_conflict",
            Self::SubmitTokenJobDeleted => "submit_token_job_deleted",
            Self::NoReply => "no_reply",
            Self::NoClients => "no_clients",
        }
    }
}

/// The answer to a command: parts for people, and `meta` for programs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplyDocument {
    /// The parts, in order.
    pub items: Vec<Item>,
    /// What programs read: `status`, `info`, and what the command is about.
    pub meta: Map<String, Value>,
}

impl ReplyDocument {
    /// An answer without parts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// It did not go well: `info` for programs, `text` for people.
    #[must_use]
    pub fn error(status: Status, info: impl Into<String>, text: impl Into<String>) -> Self {
        let mut reply = Self::new().status(status, info);
        reply.items.push(Item::Error(text.into()));
        reply
    }

    /// Adds a part.
    #[must_use]
    pub fn item(mut self, item: Item) -> Self {
        self.items.push(item);
        self
    }

    /// Adds a line for people.
    #[must_use]
    pub fn text(self, text: impl Into<String>) -> Self {
        self.item(Item::Text(text.into()))
    }

    /// Adds a table. Heads are in capital letters on the wire.
    #[must_use]
    pub fn table(self, head: &[&str], rows: Vec<Vec<Value>>) -> Self {
        let head = head.iter().map(|cell| json!(cell.to_uppercase())).collect();
        self.item(Item::Table(std::iter::once(head).chain(rows).collect()))
    }

    /// Ends with success.
    #[must_use]
    pub fn success(self, info: &str) -> Self {
        self.item(Item::Success(String::new())).status(Status::Ok, info)
    }

    /// Sets status and info.
    #[must_use]
    pub fn status(self, status: Status, info: impl Into<String>) -> Self {
        self.meta("status", status.as_str()).meta("info", info.into())
    }

    /// Sets another key of `meta`.
    #[must_use]
    pub fn meta(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.meta.insert(key.to_owned(), value.into());
        self
    }

    /// The status, as the wire has it.
    #[must_use]
    pub fn status_word(&self) -> Option<&str> {
        self.meta.get("status").and_then(Value::as_str)
    }

    /// As text. `time` is for people.
    #[must_use]
    pub fn to_text(&self, time: &str) -> String {
        let data: Vec<Value> = self.items.iter().map(Item::to_json).collect();
        json!({ "time": time, "data": data, "meta": self.meta }).to_string()
    }

    /// From text.
    ///
    /// # Errors
    /// [`DocumentError`]; the sender does not speak this protocol.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        let (items, meta) = parse(text, MAX_ANSWER)?;
        let items = items.iter().map(Item::from_json).collect::<Option<_>>();
        Ok(Self { items: items.ok_or(DocumentError::Item)?, meta })
    }
}

impl Item {
    fn to_json(&self) -> Value {
        let (kind, data) = match self {
            Self::Table(rows) => return json!({ "type": "table", "rows": rows }),
            Self::Dict(document) => ("dict", document.clone()),
            Self::Text(text) => ("string", json!(text)),
            Self::Success(text) => ("success", json!(text)),
            Self::Error(text) => ("error", json!(text)),
            Self::Token(text) => ("token", json!(text)),
            Self::Shutdown(text) => ("shutdown", json!(text)),
        };
        json!({ "type": kind, "data": data })
    }

    fn from_json(item: &Value) -> Option<Self> {
        let text = || item["data"].as_str().map(str::to_owned);
        Some(match item["type"].as_str()? {
            "string" => Self::Text(text()?),
            "success" => Self::Success(text()?),
            "error" => Self::Error(text()?),
            "token" => Self::Token(text()?),
            "shutdown" => Self::Shutdown(text()?),
            "dict" => Self::Dict(item["data"].is_object().then(|| item["data"].clone())?),
            "table" => {
                let rows = item["rows"].as_array()?.iter().map(|row| row.as_array().cloned());
                Self::Table(rows.collect::<Option<_>>()?)
            }
            _ => return None,
        })
    }
}

fn parse(text: &str, most: usize) -> Result<(Vec<Value>, Map<String, Value>), DocumentError> {
    if text.len() > most {
        return Err(DocumentError::TooLong);
    }
    let mut document: Map<String, Value> = serde_json::from_str(text.trim()).map_err(DocumentError::Json)?;
    let Some(Value::Array(items)) = document.remove("data") else { return Err(DocumentError::Item) };
    let meta = match document.remove("meta") {
        Some(Value::Object(meta)) => meta,
        Some(_) | None => Map::new(),
    };
    Ok((items, meta))
}

/// Why a text is no document of this protocol.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// More than [`MAX_DOCUMENT`] or [`MAX_ANSWER`] bytes.
    #[error("document is too long")]
    TooLong,
    /// It is not JSON, or no object of it.
    #[error("document is not a JSON object")]
    Json(#[source] serde_json::Error),
    /// It has no list of parts, or a part of no known kind.
    #[error("document has a part that is not understood")]
    Item,
    /// It has no command.
    #[error("document has no command")]
    NoCommand,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_comes_back_as_it_was_sent() {
        let sent = CommandDocument {
            command: "list_jobs -d".into(),
            token: Some("a:b".into()),
            timeout: Some(Duration::from_secs_f64(2.5)),
        };
        assert_eq!(CommandDocument::parse(&sent.to_text("now")).unwrap(), sent);
    }

    #[test]
    fn a_stock_command_is_read() {
        let text = r#"{"time": "2026-01-01 10:00:00", "data": [{"type": "command", "data": "check_status server"},
            {"type": "token", "data": "e30=:c2ln"}], "meta": {"cmd_timeout": 1e9, "custom_props": {"a": 1}}}"#;
        let read = CommandDocument::parse(text).unwrap();
        assert_eq!(
            (read.command.as_str(), read.token.as_deref()),
            ("check_status server", Some("e30=:c2ln"))
        );
        assert_eq!(read.timeout, Some(MAX_TIMEOUT), "nobody waits for ever");
    }

    #[test]
    fn an_answer_comes_back_as_it_was_sent() {
        let sent = ReplyDocument::new()
            .text("line")
            .table(&["Job ID", "Name"], vec![vec![json!("4f1c"), Value::Null]])
            .item(Item::Dict(json!({ "a": 1 })))
            .item(Item::Token("t".into()))
            .item(Item::Shutdown("bye".into()))
            .meta("jobs", json!([]))
            .success("");
        let text = sent.to_text("now");
        assert!(text.contains(r#"["JOB ID","NAME"]"#), "{text}");
        assert_eq!(ReplyDocument::parse(&text).unwrap(), sent);
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for bad in ["", "[]", "{}", r#"{"data": 1}"#, r#"{"data": [{"type": "token", "data": "x"}]}"#] {
            assert!(CommandDocument::parse(bad).is_err(), "{bad}");
        }
        assert!(matches!(CommandDocument::parse(&" ".repeat(MAX_DOCUMENT + 1)), Err(DocumentError::TooLong)));
        assert!(ReplyDocument::parse(r#"{"data": [{"type": "picture"}]}"#).is_err());
    }

    #[test]
    fn tokens_are_not_shown() {
        let command = CommandDocument { token: Some("secret".into()), ..CommandDocument::new("x") };
        assert!(!format!("{command:?} {:?}", Item::Token("secret".into())).contains("secret"));
    }
}
