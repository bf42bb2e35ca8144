//! Logging in, and asking.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use locule_auth::SessionStamp;
use locule_cell::{
    Cell, CellBuilder, Dialing, MessageFilter, Now, Pass, Refusal, Reply, Request, RequestError,
};
use locule_communicator::{Communicator, Credentials, RegisterError, Settings as Registering};
use locule_component::{EventBus, RunContext};
use locule_fobs::Value;
use locule_identity::{Secret, SignError, proof_text};
use locule_message::{Encoding, Fqcn, Message, Payload, ReturnCode};
use locule_protocol::{
    ClientType, CommandDocument, Dialect, Item, RegisterRequest, ReplyDocument, Status, command_line,
};
use locule_transport::Endpoint;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The only study that is spoken of.
const STUDY: &str = "default";

/// Longest text of a server that is shown, in characters.
const LONGEST_TEXT: usize = 2_000;

/// Whose console it is, and how long it waits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Name of the federation's project; the server refuses another.
    pub project: String,
    /// The administrator: the common name of the certificate.
    pub user: String,
    /// Common name that the server's certificate must carry.
    pub expected_server: String,
    /// How long reaching the server and logging in may take (10 s).
    pub log_in: Duration,
    /// How long an answer may take (15 s).
    pub answer: Duration,
    /// How long the answer to a job that was sent may take: the server, or a site, looks at all of it (300 s).
    pub verdict: Duration,
}

impl Settings {
    /// The defaults for an administrator of this project.
    #[must_use]
    pub fn new(
        project: impl Into<String>,
        user: impl Into<String>,
        expected_server: impl Into<String>,
    ) -> Self {
        Self {
            project: project.into(),
            user: user.into(),
            expected_server: expected_server.into(),
            log_in: Duration::from_secs(10),
            answer: Duration::from_secs(15),
            verdict: Duration::from_secs(300),
        }
    }
}

/// A fresh name for the cell of a console: the server lets administrators bear no other.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.cellnet.fqcn` (`new_admin_client_name`).
#[must_use]
pub fn cell_name() -> Fqcn {
    let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    Fqcn::parse(&format!("_admin_{id}")).expect("a UUID has no dots")
}

/// An administrator who is logged in at a server.
pub struct Console {
    pub(crate) cell: Cell,
    pub(crate) settings: Settings,
    /// What the server speaks.
    pub(crate) dialect: &'static Dialect,
    token: Secret,
    /// The commands of the server, and how they are written.
    commands: BTreeMap<String, String>,
    /// Why the session is over, once the server has said so.
    over: Arc<Mutex<Option<String>>>,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("user", &self.settings.user).finish_non_exhaustive()
    }
}

impl Console {
    /// Starts a cell that bears a [`cell_name`], links it to the server at `endpoint`, registers and logs in.
    ///
    /// `stamp` is the cell's, and gets the session's token.
    ///
    /// # Errors
    /// [`LogInError`], after [`Settings::log_in`] at the latest.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.fuel.hci.client.api`.
    pub async fn log_in(
        cell: CellBuilder,
        stamp: Arc<SessionStamp>,
        endpoint: Endpoint,
        credentials: &Credentials,
        settings: Settings,
    ) -> Result<Self, LogInError> {
        let refused = Arc::new(LastRefusal::default());
        let cell = cell.filter(Pass::IncomingReply, RegisterRequest::CHANNEL, "*", refused.clone()).start();
        let over = Arc::new(Mutex::new(None));
        let tell = Arc::clone(&over);
        cell.handle(
            CommandDocument::CHANNEL,
            CommandDocument::EXPIRED,
            move |incoming: locule_cell::Incoming| {
                let reason = text_of(&incoming.payload()).unwrap_or_else(|| "the server ended it".to_owned());
                *tell.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown(&reason));
                async { Ok(Reply::ok(Payload::none())) }
            },
        );
        let mut dialing = cell.connect(endpoint).state();
        let (token, commands) = (Secret::from(String::new()), BTreeMap::new());
        let mut console = Self { cell, settings, dialect: Dialect::NEWEST, token, commands, over };
        let patience = console.settings.log_in;
        let logging_in = async {
            linked(&mut dialing).await?;
            console.register(stamp, credentials).await?;
            console.prove(credentials).await?;
            console.learn().await
        };
        match tokio::time::timeout(patience, logging_in).await {
            Ok(done) => done?,
            Err(_) => {
                let linked = matches!(*dialing.borrow(), Dialing::Linked(_));
                if let Some(why) = refused.take().filter(|_| linked) {
                    return Err(LogInError::NotReady { waited: patience, why });
                }
                let why = match &*dialing.borrow() {
                    Dialing::Failed { error, .. } => error.clone(),
                    Dialing::Linked(_) => "it takes the link, and does not answer".to_owned(),
                    Dialing::Trying | _ => "no answer".to_owned(),
                };
                return Err(LogInError::Unreachable { waited: patience, why });
            }
        }
        Ok(console)
    }

    /// Proves by message who this is, so that the cell may speak.
    async fn register(
        &mut self,
        stamp: Arc<SessionStamp>,
        credentials: &Credentials,
    ) -> Result<(), LogInError> {
        let Settings { project, user, expected_server, log_in, .. } = &self.settings;
        let mut settings = Registering::new(project, user, expected_server);
        settings.client_type = ClientType::Admin;
        settings.cell_wait = *log_in;
        settings.register_interval = Duration::from_secs(1);
        settings.maintenance_timeout = Duration::from_secs(5);
        let (context, events) = (RunContext::new(user, ""), Arc::new(EventBus::default()));
        let cancel = CancellationToken::new();
        let communicator = Communicator::new(self.cell.clone(), settings, stamp, context, events, cancel);
        let session = communicator.register(Some(credentials)).await.map_err(LogInError::Register)?;
        self.dialect = spoken(communicator.dialect(), session.ssid());
        Ok(())
    }

    /// Logs in, and keeps the token.
    async fn prove(&mut self, credentials: &Credentials) -> Result<(), LogInError> {
        let user = self.settings.user.clone();
        let signer = Arc::clone(&credentials.signer);
        let signed = tokio::task::spawn_blocking(move || {
            let proof = proof_text(&signer.identity().common_name, "");
            Ok((signer.certificate_pem().to_vec(), signer.sign(&proof)?))
        });
        let signed: Result<_, SignError> =
            signed.await.map_err(|_| LogInError::Rejected("cancelled".into()))?;
        let (certificate, signature) = signed.map_err(LogInError::Sign)?;
        let command = CommandDocument::new(command_line(["_cert_login", &user]));
        let request = request_of(&command, self.settings.answer)
            .header("user_name", &*user)
            .header("cert", &certificate[..])
            .header("signature", &signature[..])
            .header("study", STUDY);
        let answer = self.send(request).await.map_err(LogInError::Ask)?;
        let token = answer.items.iter().find_map(|item| match item {
            Item::Token(token) => Some(token.clone()),
            Item::Text(_) | Item::Success(_) | Item::Error(_) | Item::Table(_) | Item::Dict(_) => None,
            Item::Shutdown(_) => None,
        });
        match token {
            Some(token) => self.token = Secret::from(token),
            None => return Err(LogInError::Rejected(words_of(&answer))),
        }
        Ok(())
    }

    /// Asks which commands the server has.
    async fn learn(&mut self) -> Result<(), LogInError> {
        let answer = self.ask(&["_commands"]).await.map_err(LogInError::Ask)?;
        for item in &answer.items {
            let Item::Table(rows) = item else { continue };
            // scope, command, description, usage, …
            let commands = rows.iter().skip(1).filter_map(|row| {
                let cell = |at: usize| row.get(at).and_then(serde_json::Value::as_str);
                Some((cell(1)?.to_owned(), cell(3).unwrap_or_default().to_owned()))
            });
            self.commands.extend(commands);
        }
        Ok(())
    }

    /// How the server says that one of its commands is written; none if it has no such command.
    #[must_use]
    pub fn usage(&self, command: &str) -> Option<&str> {
        self.commands.get(command).map(String::as_str)
    }

    /// Gives a command: its name and what follows it.
    ///
    /// # Errors
    /// [`AskError`]; also when the server says no.
    pub async fn ask(&self, words: &[&str]) -> Result<ReplyDocument, AskError> {
        let name = words.first().copied().unwrap_or_default();
        if !self.commands.is_empty() && !name.starts_with('_') && self.usage(name).is_none() {
            return Err(AskError::Unsupported { command: name.to_owned() });
        }
        let document = self.document(words.iter().copied());
        let answer = self.send(request_of(&document, self.settings.answer)).await?;
        self.judge(answer)
    }

    /// A command of this session.
    pub(crate) fn document<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> CommandDocument {
        let token = Some(self.token.expose().to_owned()).filter(|token| !token.is_empty());
        CommandDocument { token, ..CommandDocument::new(command_line(words)) }
    }

    async fn send(&self, request: Request) -> Result<ReplyDocument, AskError> {
        if let Some(reason) = self.over() {
            return Err(AskError::SessionOver { reason });
        }
        let reply = self.cell.request(&Fqcn::server(), request).await?.into_ok()?;
        let text = text_of(&reply.payload).ok_or(AskError::NotUnderstood)?;
        ReplyDocument::parse(&text).map_err(|_| AskError::NotUnderstood)
    }

    /// Why the session is over, if the server said so.
    #[must_use]
    pub fn over(&self) -> Option<String> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An answer, or the no in it.
    pub(crate) fn judge(&self, answer: ReplyDocument) -> Result<ReplyDocument, AskError> {
        let said = words_of(&answer);
        let is = |status: Status| answer.status_word() == Some(status.as_str());
        if is(Status::NotAuthenticated) || said.contains("session_inactive") {
            return Err(AskError::SessionOver { reason: said });
        }
        let failed = answer.items.iter().any(|item| matches!(item, Item::Error(_)));
        let status = match answer.status_word() {
            Some("ok") => return Ok(answer),
            None if !failed => return Ok(answer),
            Some(status) => shown(status),
            None => String::new(),
        };
        if is(Status::NotAuthorized) {
            return Err(AskError::NotAllowed { user: self.settings.user.clone(), reason: said });
        }
        if is(Status::InvalidJobId) {
            return Err(AskError::UnknownJob);
        }
        if is(Status::InvalidJobDefinition) {
            return Err(AskError::BadJob { reason: said });
        }
        Err(AskError::Refused { status, reason: said })
    }

    /// Logs out and stops the cell. What goes wrong on the way changes nothing: the session ends by itself.
    pub async fn log_out(&self) {
        let document = self.document(["_logout"]);
        if self.over().is_none()
            && let Err(error) = self.send(request_of(&document, Duration::from_secs(2))).await
        {
            tracing::debug!(%error, "not logged out");
        }
        self.cell.shutdown(Duration::from_secs(1)).await;
    }
}

/// Why the server does not register anybody now, as it last said: registering goes on until it does.
#[derive(Debug, Default)]
struct LastRefusal(Mutex<Option<String>>);

impl LastRefusal {
    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl MessageFilter for LastRefusal {
    fn apply(&self, _: Now, message: &mut Message) -> Result<(), Refusal> {
        let code = message.return_code().filter(|code| *code != ReturnCode::Ok);
        let why = code.map(|code| match message.error() {
            Some(reason) => format!("{} ({code})", shown(reason)),
            None => code.to_string(),
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
        Ok(())
    }
}

/// What the server speaks. Servers before nvflare 2.9 do not say their version, but are in sessions of another name.
fn spoken(said: &'static Dialect, session: &str) -> &'static Dialect {
    let of_session = Dialect::ALL.into_iter().find(|dialect| dialect.session == session);
    if said.session == session { said } else { of_session.unwrap_or(said) }
}

/// Waits until the link is up; fails if it cannot come up unless somebody changes something.
async fn linked(dialing: &mut tokio::sync::watch::Receiver<Dialing>) -> Result<(), LogInError> {
    let settled = dialing
        .wait_for(|state| matches!(state, Dialing::Linked(_) | Dialing::Failed { retryable: false, .. }))
        .await
        .map(|state| state.clone());
    match settled {
        Ok(Dialing::Failed { error, .. }) => Err(LogInError::NotLetIn { why: error }),
        Ok(_) => Ok(()),
        Err(_) => Err(LogInError::NotLetIn { why: "the cell has stopped".into() }),
    }
}

pub(crate) fn request_of(document: &CommandDocument, timeout: Duration) -> Request {
    let text = Value::from(document.to_text(&stamp()));
    // A text has neither depth nor integers that cannot be encoded.
    let payload = locule_fobs::encode(&text).map_or_else(|_| Payload::none(), Payload::fobs);
    Request::new(CommandDocument::CHANNEL, CommandDocument::TOPIC, payload).timeout(timeout)
}

pub(crate) fn stamp() -> String {
    OffsetDateTime::from(SystemTime::now()).format(&Rfc3339).unwrap_or_default()
}

fn text_of(payload: &Payload) -> Option<String> {
    match payload.encoding {
        Encoding::Fobs => locule_fobs::decode(payload.body.whole()).ok()?.as_str().map(str::to_owned),
        Encoding::Bytes | Encoding::None => None,
    }
}

/// What an answer says to people.
fn words_of(answer: &ReplyDocument) -> String {
    let said = answer.items.iter().filter_map(|item| match item {
        Item::Error(text) | Item::Text(text) | Item::Success(text) | Item::Shutdown(text) => {
            Some(text.trim())
        }
        Item::Table(_) | Item::Dict(_) | Item::Token(_) => None,
    });
    let said: Vec<&str> = said.filter(|text| !text.is_empty()).collect();
    let info = answer.meta.get("info").and_then(serde_json::Value::as_str).unwrap_or_default();
    shown(&if said.is_empty() { info.to_owned() } else { said.join("\n") })
}

/// A text of a server as it may be shown: escaped line by line, and cut.
pub(crate) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(LONGEST_TEXT).collect();
    let line = |line: &str| -> String {
        let visible = |c: char| {
            if c.is_control() { c.escape_debug().collect::<String>() } else { c.to_string() }
        };
        line.chars().map(visible).collect()
    };
    cut.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Whether this may be the id of a job.
pub(crate) fn is_id(text: &str) -> bool {
    Uuid::try_parse(text).is_ok_and(|id| id.hyphenated().to_string() == text.to_lowercase())
}

/// Why a console is not logged in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogInError {
    /// The server did not answer in time.
    #[error("not reached within {} s: {why}", waited.as_secs())]
    Unreachable {
        /// How long it was waited for.
        waited: Duration,
        /// The last obstacle.
        why: String,
    },
    /// The server answers, and did not register anybody in time.
    #[error("the server registers nobody, tried for {} s: {why}", waited.as_secs())]
    NotReady {
        /// How long it was asked again.
        waited: Duration,
        /// What it last said.
        why: String,
    },
    /// No link can come up unless somebody changes something.
    #[error("no link to the server: {why}")]
    NotLetIn {
        /// Why.
        why: String,
    },
    /// The server does not register the console, or is not the one that the kit names.
    #[error("not registered as an administrator")]
    Register(#[source] RegisterError),
    /// The key could not sign.
    #[error("proof could not be signed")]
    Sign(#[source] SignError),
    /// The server does not log the user in.
    #[error("login refused: {0}")]
    Rejected(String),
    /// The server could not be asked.
    #[error("login broke off")]
    Ask(#[source] AskError),
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The server was not reached, or did not answer.
    #[error("the server does not answer")]
    Request(#[from] RequestError),
    /// The server ended the session, or knows of none.
    #[error("the session is over: {reason}")]
    SessionOver {
        /// The server's reason.
        reason: String,
    },
    /// The server does not let the user do so.
    #[error("{user} may not do that: {reason}")]
    NotAllowed {
        /// Who asked.
        user: String,
        /// The server's reason.
        reason: String,
    },
    /// There is no such job.
    #[error("the server knows no such job")]
    UnknownJob,
    /// What was sent is no job.
    #[error("the server does not take the job: {reason}")]
    BadJob {
        /// The server's reason.
        reason: String,
    },
    /// The server says no for another reason.
    #[error("the server refuses: {reason}")]
    Refused {
        /// One word of the protocol; see [`Status`].
        status: String,
        /// The server's reason.
        reason: String,
    },
    /// The server has no such command.
    #[error("the server has no command `{command}`")]
    Unsupported {
        /// The command.
        command: String,
    },
    /// The server's answer makes no sense.
    #[error("the server's answer is not understood")]
    NotUnderstood,
}

impl AskError {
    /// Whether the server may simply not be there now. It may have carried the command out.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Request(error) => error.is_retryable(),
            Self::SessionOver { .. }
            | Self::NotAllowed { .. }
            | Self::UnknownJob
            | Self::BadJob { .. }
            | Self::Refused { .. }
            | Self::Unsupported { .. }
            | Self::NotUnderstood => false,
        }
    }

    /// Whether the cell that asks counts for nothing at the server any more: only logging in again helps.
    #[must_use]
    pub fn needs_log_in(&self) -> bool {
        let unauthenticated = |code: &ReturnCode| *code == ReturnCode::Unauthenticated;
        match self {
            Self::SessionOver { .. } => true,
            Self::Request(RequestError::Refused { code, .. } | RequestError::Returned { code, .. }) => {
                unauthenticated(code)
            }
            Self::Request(_)
            | Self::NotAllowed { .. }
            | Self::UnknownJob
            | Self::BadJob { .. }
            | Self::Refused { .. }
            | Self::Unsupported { .. }
            | Self::NotUnderstood => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use locule_cell::{CellConfig, HandlerError};
    use locule_identity::{ChainError, Identity, SignatureError, Signer, Usage, Verifier};
    use locule_transport::Transports;
    use locule_transport_mem::MemTransport;

    use super::*;

    #[test]
    fn what_a_server_says_cannot_steer_a_terminal() {
        assert_eq!(shown("a\u{1b}[2Jb\nc\r\n"), "a\\u{1b}[2Jb\nc");
        assert_eq!(shown(&"x".repeat(9_999)).len(), LONGEST_TEXT);
    }

    /// An administrator of a server that gets no further than to refuse.
    #[derive(Debug)]
    struct Ann(Identity);

    impl Signer for Ann {
        fn identity(&self) -> &Identity {
            &self.0
        }

        fn certificate_pem(&self) -> &[u8] {
            &[]
        }

        fn sign(&self, _: &[u8]) -> Result<Vec<u8>, SignError> {
            Err(SignError::Key("no key".into()))
        }
    }

    impl Verifier for Ann {
        fn identify(&self, _: &[u8], _: Usage, _: SystemTime) -> Result<Identity, ChainError> {
            Err(ChainError::NotYetValid)
        }

        fn verify(&self, _: &Identity, _: &[u8], _: &[u8]) -> Result<(), SignatureError> {
            Err(SignatureError)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_registers_nobody_for_now_is_asked_again_and_its_reason_is_told() {
        let transports = Transports::new().with(MemTransport::new());
        let server = Cell::builder(CellConfig::new(Fqcn::server())).transports(transports.clone()).start();
        let endpoint = server.listen(&Endpoint::parse("mem://server").unwrap()).await.unwrap();
        server.handle(RegisterRequest::CHANNEL, "*", |_: locule_cell::Incoming| async {
            let full = "tokens cannot be kept: no space left on device\u{1b}[2J";
            Err(HandlerError::new(ReturnCode::ServiceUnavailable, full))
        });
        let ann = Ann(Identity {
            common_name: "ann".into(),
            organization: None,
            role: None,
            fingerprint: [0; 32],
            public_key: Vec::new(),
            not_after: SystemTime::UNIX_EPOCH,
        });
        let ann = Arc::new(ann);
        let credentials = Credentials { signer: ann.clone(), verifier: ann };
        let stamp = Arc::new(SessionStamp::new());
        let cell = Cell::builder(CellConfig::new(cell_name())).transports(transports).stamp(stamp.clone());
        let settings = Settings::new("project", "ann", "server");
        let error = Console::log_in(cell, stamp, endpoint, &credentials, settings).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the server registers nobody, tried for 10 s: tokens cannot be kept: no space left on \
             device\\u{1b}[2J (service_unavailable)"
        );
    }

    #[test]
    fn ids_are_whole_uuids() {
        assert!(is_id("3e2d9f0e-1111-4222-8333-444455556666"));
        for other in
            ["3e2d", "", "3e2d9f0e111142228333444455556666", "{3e2d9f0e-1111-4222-8333-444455556666}"]
        {
            assert!(!is_id(other), "{other}");
        }
    }

    #[test]
    fn servers_that_do_not_say_their_version_are_told_apart_by_their_session() {
        let unsaid = Dialect::of_server(None).unwrap();
        let of = |session| spoken(unsaid, session).name;
        assert_eq!((of("NA"), of("another")), (unsaid.name, unsaid.name));
        assert_eq!(of("ebc6125d-0a56-4688-9b08-355fe9e4d61a"), "2.7");
        assert_eq!(spoken(Dialect::NEWEST, "NA").name, Dialect::NEWEST.name);
    }

    #[test]
    fn cells_of_consoles_have_names_of_their_own() {
        let (one, other) = (cell_name(), cell_name());
        assert!(one.as_str().starts_with("_admin_") && one != other);
    }
}
