//! Who asks, and whether they may: logins, sessions, and the way of a command, a chunk or a request for one.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use locule_auth::{Holder, TokenLedger};
use locule_cell::{Cell, HandlerError, Incoming, Reply, Request};
use locule_fobs::{Map, Value};
use locule_identity::{Signer, Usage, Verifier, proof_text};
use locule_message::{Encoding, Fqcn, Payload, ReturnCode, key};
use locule_protocol::{
    AuxReply, AuxRequest, CommandDocument, Item, ReplyDocument, Status, UploadChunk, server_context,
};
use locule_server::Server;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::admin::AdminSettings;
use crate::command::{COMMANDS, Command, HEAD, words};
use crate::download::{self, Answer, FileSource};
use crate::news::News;
use crate::session::{Claim, STUDY, Session, Sessions};
use crate::upload::{Spool, Upload, Uploads};
use crate::{CHANNEL, COMMAND_TOPIC, EXPIRED_TOPIC, dates, jobs, sites};
use locule_rights::{Rights, Who};

/// What is said to who was idle for too long.
const INACTIVE: &str = "session_inactive";

pub(crate) struct Desk {
    pub(crate) settings: AdminSettings,
    /// The server's own organisation.
    pub(crate) org: String,
    pub(crate) server: Server,
    pub(crate) cell: Cell,
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) verifier: Arc<dyn Verifier>,
    pub(crate) ledger: Arc<TokenLedger>,
    pub(crate) rights: Rights,
    /// What is sent is spooled here.
    pub(crate) inbox: PathBuf,
    /// What waits to be fetched lies here.
    pub(crate) outbox: PathBuf,
    pub(crate) stop: CancellationToken,
    pub(crate) signing: Arc<Semaphore>,
    pub(crate) sessions: Mutex<Sessions>,
    pub(crate) uploads: Mutex<Uploads>,
    pub(crate) downloads: Mutex<FileSource>,
    pub(crate) news: Mutex<News>,
    /// Names and cells of those who have logged out and are still linked.
    pub(crate) leaving: Mutex<VecDeque<(String, Fqcn)>>,
}

/// Of those who have logged out, so many are waited for.
const LEAVING: usize = 256;

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("org", &self.org).finish_non_exhaustive()
    }
}

/// A command of somebody who is logged in.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) desk: Arc<Desk>,
    pub(crate) session: Session,
    pub(crate) command: &'static Command,
    /// What follows its name.
    pub(crate) arguments: Vec<String>,
    /// How long sites may take.
    pub(crate) timeout: Duration,
    /// What was sent with it.
    pub(crate) file: Option<PathBuf>,
}

/// An answer; early ones are refusals.
pub(crate) type Answered = Result<ReplyDocument, ReplyDocument>;

/// Registers the handlers on the server's cell.
pub(crate) fn open(desk: &Arc<Desk>) {
    on(desk, CHANNEL, COMMAND_TOPIC, command);
    on(desk, AuxRequest::CHANNEL, UploadChunk::TOPIC, chunk);
    on(desk, AuxRequest::CHANNEL, UploadChunk::OVER, abort);
    on(desk, locule_download::DOWNLOADS, locule_download::DOWNLOAD, fetch);
}

fn on<F, R>(desk: &Arc<Desk>, channel: &str, topic: &str, handler: F)
where
    F: Fn(Arc<Desk>, Incoming) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Reply, HandlerError>> + Send + 'static,
{
    // Weak, since the cell holds its handlers and the desk holds the cell.
    let weak = Arc::downgrade(desk);
    let handler = Arc::new(handler);
    desk.cell.handle(channel, topic, move |incoming| {
        let (desk, handler) = (weak.upgrade(), Arc::clone(&handler));
        async move {
            match desk {
                Some(desk) => handler(desk, incoming).await,
                None => Err(HandlerError::new(ReturnCode::ServiceUnavailable, "no desk for administrators")),
            }
        }
    });
}

async fn command(desk: Arc<Desk>, incoming: Incoming) -> Result<Reply, HandlerError> {
    let holder = desk.administrator(&incoming)?;
    let text = text_of(&incoming)?;
    let answer = desk.answer(&incoming, &holder, &text).await.unwrap_or_else(|refusal| refusal);
    reply(Value::from(answer.to_text(&dates::stamp())))
}

impl Desk {
    /// Who asks. The gate has checked the token; here it must be that of an administrator's own cell.
    fn administrator(&self, incoming: &Incoming) -> Result<Arc<Holder>, HandlerError> {
        let name = incoming.headers.str(key::CLIENT_NAME).unwrap_or_default();
        self.ledger.admin(name, &incoming.origin).ok_or_else(|| {
            let reason = "only cells that registered as an administrator's are served here";
            HandlerError::new(ReturnCode::Unauthenticated, reason)
        })
    }

    async fn answer(self: &Arc<Self>, incoming: &Incoming, holder: &Arc<Holder>, text: &str) -> Answered {
        let document = read(text)?;
        let words = words(&document.command);
        match words.first().map(String::as_str) {
            Some("_cert_login") => return Ok(self.log_in(incoming, holder, &words).await),
            Some("_check_session") => {
                return self.session(&document, holder, &incoming.origin).await.map(|_| ok("OK"));
            }
            Some("_logout") => {
                let session = self.session(&document, holder, &incoming.origin).await?;
                lock(&self.sessions).end(&session.claim.session);
                lock(&self.downloads).end_session(&session.claim.session);
                tracing::info!(user = session.claim.name, "administrator logged out");
                self.leaves(session);
                return Ok(ok("OK"));
            }
            Some("_commands") => {
                self.session(&document, holder, &incoming.origin).await?;
                return Ok(commands(&words[1..]));
            }
            Some(_) | None => {}
        }
        let call = self.call(&document, words, holder, &incoming.origin).await?;
        call.carry_out().await
    }

    /// Reads a command of somebody who is logged in.
    async fn call(
        self: &Arc<Self>,
        document: &CommandDocument,
        mut words: Vec<String>,
        holder: &Arc<Holder>,
        cell: &Fqcn,
    ) -> Result<Call, ReplyDocument> {
        let session = self.session(document, holder, cell).await?;
        let name = words.first().cloned().unwrap_or_default();
        let Some(command) = Command::find(&name) else {
            let shown: String = name.chars().take(64).flat_map(char::escape_debug).collect();
            let text = format!("command \"{shown}\" is not supported by this server");
            return Err(ReplyDocument::error(Status::Error, text.clone(), text));
        };
        words.remove(0);
        let timeout = document.timeout.unwrap_or(self.settings.order_timeout);
        Ok(Call { desk: Arc::clone(self), session, command, arguments: words, timeout, file: None })
    }

    /// The session of a command that came from `cell`, where `holder` registered.
    async fn session(
        &self,
        document: &CommandDocument,
        holder: &Arc<Holder>,
        cell: &Fqcn,
    ) -> Result<Session, ReplyDocument> {
        let Some(token) = document.token.clone() else {
            let text = "not authenticated - no token";
            return Err(ReplyDocument::error(Status::NotAuthenticated, text, text));
        };
        let (signer, verifier) = (Arc::clone(&self.signer), Arc::clone(&self.verifier));
        let claim = self.work(move || Claim::verify(&token, &*signer, &*verifier)).await.flatten();
        let session =
            claim.and_then(|claim| lock(&self.sessions).check(claim, holder, cell, now(), SystemTime::now()));
        session.ok_or_else(|| {
            let text = "user not authenticated or session timed out - logged out";
            ReplyDocument::error(Status::Error, INACTIVE, INACTIVE).text(text)
        })
    }

    async fn log_in(&self, incoming: &Incoming, holder: &Arc<Holder>, words: &[String]) -> ReplyDocument {
        let study = incoming.headers.str("study").unwrap_or(STUDY);
        if study != STUDY {
            let text = "REJECT: AUTH_STUDY_NOT_CONFIGURED: studies are not configured on the server";
            return ReplyDocument::new().text(text);
        }
        let user = words.get(1).cloned().unwrap_or_default();
        let certificate = incoming.headers.bytes("cert").unwrap_or_default().to_vec();
        let signature = incoming.headers.bytes("signature").unwrap_or_default().to_vec();
        let (signer, verifier, known) =
            (Arc::clone(&self.signer), Arc::clone(&self.verifier), Arc::clone(holder));
        let id = Uuid::from_u128(rand::random()).to_string();
        let login = self.work(move || {
            let now = SystemTime::now();
            let identity = verifier.identify(&certificate, Usage::Client, now).ok()?;
            verifier.verify(&identity, &proof_text(&identity.common_name, ""), &signature).ok()?;
            // The proof can be replayed; that the cell registered as the same user cannot.
            let same = user == known.name
                && identity.common_name == known.name
                && identity.role == known.role
                && identity.organization == known.organization;
            let claim = Claim::new(&known, id, now);
            same.then(|| claim.sign(&*signer).ok().map(|token| (claim, token))).flatten()
        });
        let Some((claim, token)) = login.await.flatten() else {
            tracing::warn!(peer = %incoming.origin, user = holder.name, "login refused");
            return ReplyDocument::new().text("REJECT");
        };
        tracing::info!(user = claim.name, role = claim.role, "administrator logged in");
        lock(&self.leaving).retain(|(_, cell)| *cell != incoming.origin);
        let displaced = lock(&self.sessions).begin(claim, incoming.origin.clone(), now());
        for session in displaced {
            self.dismiss(session).await;
        }
        ReplyDocument::new().text("OK").item(Item::Token(token)).status(Status::Ok, "")
    }

    /// Notes that somebody has logged out. Its token is good until its link is gone, so that it gets its answer.
    fn leaves(&self, session: Session) {
        let mut leaving = lock(&self.leaving);
        if leaving.len() >= LEAVING {
            leaving.pop_front();
        }
        leaving.push_back((session.claim.name, session.cell));
    }

    /// Ends the tokens of those who have logged out and are not among these neighbours, so that short visits do not
    /// push out who stays.
    pub(crate) async fn see_off(self: &Arc<Self>, neighbours: &[Fqcn]) {
        let gone: Vec<(String, Fqcn)> = {
            let mut leaving = lock(&self.leaving);
            let (stay, gone): (VecDeque<_>, VecDeque<_>) =
                leaving.drain(..).partition(|(_, cell)| neighbours.contains(cell));
            *leaving = stay;
            gone.into()
        };
        if gone.is_empty() {
            return;
        }
        let ledger = Arc::clone(&self.ledger);
        let ending = tokio::task::spawn_blocking(move || {
            gone.iter().filter_map(|(name, cell)| ledger.leave(name, cell).err()).next()
        });
        if let Ok(Some(error)) = ending.await {
            tracing::warn!(%error, "journal of tokens does not take that an administrator left");
        }
    }

    /// Tells a console that its session is over, and gives up what it was fetching.
    pub(crate) async fn dismiss(&self, session: Session) {
        tracing::info!(user = session.claim.name, "session of an administrator is over");
        lock(&self.downloads).end_session(&session.claim.session);
        let reason = "Your session is closed due to inactivity or cert expiry.";
        if let Ok(bytes) = locule_fobs::encode(&Value::from(reason)) {
            let word = Request::new(CHANNEL, EXPIRED_TOPIC, Payload::fobs(bytes)).optional();
            // It may be gone.
            self.cell.notify(&session.cell, word).await.ok();
        }
    }

    /// Removes what is given up, and the folders that were fetched.
    pub(crate) async fn clear(&self, uploads: Vec<Upload>) {
        let folders = lock(&self.downloads).done();
        if uploads.is_empty() && folders.is_empty() {
            return;
        }
        let removing = tokio::task::spawn_blocking(move || {
            drop(uploads);
            folders.iter().filter_map(|folder| std::fs::remove_dir_all(folder).err()).next()
        });
        if let Ok(Some(error)) = removing.await {
            tracing::warn!(%error, "a folder that was fetched cannot be removed");
        }
    }

    /// Runs work with keys on a blocking thread, a few at a time.
    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let permit = Arc::clone(&self.signing).acquire_owned().await.ok()?;
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        work.await.ok()
    }

    /// Whether a user may do what concerns a job of `submitter`.
    pub(crate) fn allow(&self, right: &str, user: Who<'_>, submitter: Who<'_>) -> Result<(), ReplyDocument> {
        if self.rights.allow(right, user, submitter, &self.org) { Ok(()) } else { Err(not_authorized()) }
    }
}

impl Call {
    pub(crate) async fn carry_out(self) -> Answered {
        let Self { session, command, .. } = &self;
        // Consoles look again and again.
        if matches!(command.name, "get_job_meta" | "list_jobs" | "check_status") {
            tracing::debug!(
                user = session.claim.name,
                command = command.name,
                "question of an administrator"
            );
        } else {
            tracing::info!(user = session.claim.name, command = command.name, "command of an administrator");
        }
        match command.name {
            "abort_job" => jobs::abort(&self).await,
            "check_job" => jobs::check(&self).await,
            "clone_job" => jobs::clone(&self).await,
            "delete_job" => jobs::delete(&self).await,
            "download_job" => jobs::download(&self).await,
            "download_job_components" => jobs::download_components(&self),
            "get_job_log" => jobs::log(&self).await,
            "get_job_meta" => jobs::meta(&self).await,
            "get_job_metrics" => jobs::metrics(&self).await,
            "list_job" => jobs::components(&self),
            "list_jobs" => jobs::list(&self).await,
            "submit_job" => jobs::submit(&self).await,
            "reset_errors" | "show_errors" | "show_stats" => jobs::collect(&self).await,
            "admin_check_status" | "check_status" => sites::status(&self).await,
            "disable_client" | "enable_client" | "remove_client" => sites::change(&self).await,
            "report_env" => sites::environment(&self).await,
            "report_resources" => sites::resources(&self).await,
            "report_version" => sites::version(&self).await,
            "shutdown" => sites::shut_down(&self).await,
            "list_sessions" => sessions(&self),
            _ => Err(self.usage()),
        }
    }

    pub(crate) fn who(&self) -> Who<'_> {
        self.session.who()
    }

    /// The command was not written as it must be.
    pub(crate) fn usage(&self) -> ReplyDocument {
        let text = format!("usage: {}", self.command.usage);
        ReplyDocument::error(Status::SyntaxError, text.clone(), text)
    }
}

fn sessions(call: &Call) -> Answered {
    if call.session.claim.role != "project_admin" {
        return Err(not_authorized());
    }
    let sessions = lock(&call.desk.sessions);
    let row = |session: &&Session| {
        let Claim { name, org, role, session: id, began, .. } = &session.claim;
        let idle = now().saturating_duration_since(session.last_active).as_secs();
        vec![
            json!(name),
            json!(org),
            json!(role),
            json!(id),
            json!(dates::iso(*began as u64)),
            json!(idle.to_string()),
        ]
    };
    let rows = sessions.all().iter().map(row).collect();
    Ok(ReplyDocument::new().table(&["User", "Org", "Role", "Session ID", "Start", "Idle"], rows).success(""))
}

fn commands(names: &[String]) -> ReplyDocument {
    if names.is_empty() {
        let rows = COMMANDS.iter().map(Command::row).collect();
        return ReplyDocument::new().table(&HEAD, rows).status(Status::Ok, "");
    }
    let mut reply = ReplyDocument::new();
    for name in names {
        reply = match Command::find(name) {
            Some(Command { scope, name, description, usage, .. }) => {
                reply.text(format!("Command: {scope}.{name}\nDescription: {description}\nUsage: {usage}\n"))
            }
            None => reply.text("undefined command"),
        };
    }
    reply.status(Status::Ok, "")
}

/// A chunk of a job that is sent, or of a site's log, which is the server's.
async fn chunk(desk: Arc<Desk>, incoming: Incoming) -> Result<Reply, HandlerError> {
    let Ok(request) = AuxRequest::from_parts(&incoming.headers, &incoming.payload()) else {
        return aux("MISSING_PEER_CONTEXT", None);
    };
    if !UploadChunk::is_upload(&request.headers) {
        return desk.server.take_log(incoming).await;
    }
    let holder = desk.administrator(&incoming)?;
    let cell = incoming.origin.clone();
    let Some(chunk) = UploadChunk::read(&request.headers, &request.fields) else {
        if let Some(id) = UploadChunk::id(&request.headers) {
            let given_up = lock(&desk.uploads).end(&cell, id);
            desk.clear(Vec::from_iter(given_up)).await;
        }
        return aux("BAD_REQUEST_DATA", None);
    };
    let id = chunk.id.clone();
    let upload = match &chunk.opening {
        Some((command, size)) if chunk.seq == 0 => {
            desk.begin_upload(&cell, &id, command, *size, &holder).await
        }
        Some(_) | None => lock(&desk.uploads).take(&cell, &id).ok_or("BAD_REQUEST_DATA"),
    };
    let mut upload = match upload {
        Ok(upload) => upload,
        Err(code) => return aux(code, None),
    };
    let last = chunk.last;
    let written = tokio::task::spawn_blocking(move || {
        let written = upload.write(&chunk, now());
        (upload, written)
    });
    let (upload, written) = written.await.map_err(|error| HandlerError::failed(error.to_string()))?;
    if let Err(error) = written {
        tracing::debug!(peer = %cell, %error, "upload given up");
        lock(&desk.uploads).end(&cell, &id);
        desk.clear(vec![upload]).await;
        return aux("EXECUTION_EXCEPTION", None);
    }
    if !last {
        lock(&desk.uploads).put(&cell, &id, upload);
        return aux("OK", None);
    }
    let result = desk.use_upload(&upload, &holder, &cell).await.unwrap_or_else(|refusal| refusal);
    lock(&desk.uploads).end(&cell, &id);
    desk.clear(vec![upload]).await;
    aux("OK", Some(result.to_text(&dates::stamp())))
}

impl Desk {
    /// Opens an upload. One whose command will be refused is spooled nowhere: the console learns why only with
    /// the answer to its last chunk.
    async fn begin_upload(
        self: &Arc<Self>,
        cell: &Fqcn,
        id: &str,
        command: &str,
        size: u64,
        holder: &Arc<Holder>,
    ) -> Result<Upload, &'static str> {
        let limit = lock(&self.uploads).limits.bytes;
        if size > limit || !lock(&self.uploads).reserve(cell, id) {
            tracing::warn!(peer = %cell, bytes = size, "upload refused: it is too large, or too many are on their way");
            return Err("EXECUTION_EXCEPTION");
        }
        let welcome = match self.upload_call(command, holder, cell).await {
            Ok(call) => self.allow("submit_job", call.who(), Who::default()).is_ok(),
            Err(_) => false,
        };
        let folder = self.inbox.clone();
        let name = format!("{}.zip", Uuid::from_u128(rand::random()));
        let spool =
            tokio::task::spawn_blocking(move || welcome.then(|| Spool::create(&folder, &name)).transpose());
        match spool.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(spool) => Ok(Upload::new(command.to_owned(), size, spool, now())),
            Err(error) => {
                tracing::error!(%error, "upload cannot be spooled");
                lock(&self.uploads).end(cell, id);
                Err("EXECUTION_EXCEPTION")
            }
        }
    }

    async fn use_upload(self: &Arc<Self>, upload: &Upload, holder: &Arc<Holder>, cell: &Fqcn) -> Answered {
        let mut call = self.upload_call(&upload.command, holder, cell).await?;
        call.file = upload.path().map(Path::to_owned);
        call.carry_out().await
    }

    async fn upload_call(
        self: &Arc<Self>,
        command: &str,
        holder: &Arc<Holder>,
        cell: &Fqcn,
    ) -> Result<Call, ReplyDocument> {
        let document = read(command)?;
        let words = words(&document.command);
        self.call(&document, words, holder, cell).await
    }
}

/// The word that a stream is over. After one that went well it means nothing.
async fn abort(desk: Arc<Desk>, incoming: Incoming) -> Result<Reply, HandlerError> {
    let Ok(request) = AuxRequest::from_parts(&incoming.headers, &incoming.payload()) else {
        return aux("MISSING_PEER_CONTEXT", None);
    };
    if let Some(id) = UploadChunk::id(&request.headers) {
        let given_up = lock(&desk.uploads).end(&incoming.origin, id);
        desk.clear(Vec::from_iter(given_up)).await;
        drop(desk.server.take_log(incoming).await); // if it is of a log
    }
    aux("OK", None)
}

/// A request for a chunk of a file.
async fn fetch(desk: Arc<Desk>, incoming: Incoming) -> Result<Reply, HandlerError> {
    let request = value_of(&incoming)?;
    let request = request.as_map().ok_or_else(|| HandlerError::invalid_request("request is no map"))?;
    let nonce = Uuid::from_u128(rand::random()).simple().to_string();
    let answer = lock(&desk.downloads).ask(&incoming.origin, request, &nonce, now());
    desk.clear(Vec::new()).await;
    match answer {
        Answer::Reply(map) => reply(map.into()),
        Answer::Noted => Ok(Reply::ok(Payload::none())),
        Answer::Unknown => Err(HandlerError::invalid_request("no such reference")),
        Answer::Read { file, offset, len, session } => {
            lock(&desk.sessions).touch(&session, now());
            let read = tokio::task::spawn_blocking(move || read_chunk(&file, offset, len)).await;
            let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
            let bytes = read.map_err(|error| {
                tracing::warn!(%error, "a file that is fetched cannot be read");
                HandlerError::failed("file cannot be read")
            })?;
            reply(download::chunk(offset, bytes).into())
        }
    }
}

fn read_chunk(file: &Path, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut file = std::fs::File::open(file)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![0; len];
    file.read_exact(&mut bytes)?;
    Ok(bytes.into())
}

fn read(text: &str) -> Result<CommandDocument, ReplyDocument> {
    CommandDocument::parse(text).map_err(|error| {
        tracing::debug!(%error, "command is not understood");
        ReplyDocument::error(Status::InternalError, "protocol violation", "protocol violation")
    })
}

fn value_of(incoming: &Incoming) -> Result<Value, HandlerError> {
    let payload = incoming.payload();
    match payload.encoding {
        Encoding::Fobs => locule_fobs::decode(payload.body.whole())
            .map_err(|_| HandlerError::invalid_request("payload cannot be decoded")),
        Encoding::Bytes => Ok(Value::Bytes(payload.body.whole())),
        Encoding::None => Ok(Value::None),
    }
}

fn text_of(incoming: &Incoming) -> Result<String, HandlerError> {
    let text = value_of(incoming)?.as_str().map(str::to_owned);
    text.ok_or_else(|| HandlerError::invalid_request("payload is no text"))
}

fn reply(value: Value) -> Result<Reply, HandlerError> {
    let bytes = locule_fobs::encode(&value).map_err(|error| HandlerError::failed(error.to_string()))?;
    Ok(Reply::ok(Payload::fobs(bytes)))
}

fn aux(code: &str, result: Option<String>) -> Result<Reply, HandlerError> {
    let mut answer = AuxReply::new(code, server_context("server", None));
    answer.headers =
        result.map(|result| (UploadChunk::END_RESULT, Value::from(result))).into_iter().collect::<Map>();
    let parts = answer.to_parts().map_err(|error| HandlerError::failed(error.to_string()))?;
    Ok(Reply::ok(parts.payload))
}

pub(crate) fn not_authorized() -> ReplyDocument {
    ReplyDocument::error(Status::NotAuthorized, "not authorized", "This action is not authorized")
}

fn ok(text: &str) -> ReplyDocument {
    ReplyDocument::new().text(text).status(Status::Ok, "")
}

/// The present, by tokio's clock, which tests can stop.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A panic under one of these locks leaves the state whole: each is changed in one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
