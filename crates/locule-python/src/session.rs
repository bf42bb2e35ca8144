//! The site's end of nvflare's Client API: a cell that one script links to, and the session with it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use locule_cell::{Cell, CellConfig, HandlerError, Incoming, Reply, Request};
use locule_fobs::{Map, Shareable, Value, decode, encode};
use locule_message::{Encoding, Fqcn, Payload, ReturnCode};
use locule_switch::{LinkFacts, LinkPolicy, Refusal};
use locule_transport::{Endpoint, Transports};
use locule_transport_tcp::TcpTransport;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use crate::metrics::Metrics;
use crate::native::{self, Exchange};

/// The channel of the Client API.
///
/// # Source
/// nvflare 2.9.0, `nvflare.client.cell.defs`, as are the topics and keys below.
const CHANNEL: &str = "client_api";
const PROTOCOL_VERSION: i64 = 1;

mod topic {
    pub(super) const HELLO: &str = "client_api.hello";
    pub(super) const HELLO_ACCEPTED: &str = "client_api.hello_accepted";
    pub(super) const HELLO_REJECTED: &str = "client_api.hello_rejected";
    pub(super) const SESSION_READY: &str = "client_api.session_ready";
    pub(super) const TASK_READY: &str = "client_api.task_ready";
    pub(super) const TASK_ACCEPTED: &str = "client_api.task_accepted";
    pub(super) const RESULT_READY: &str = "client_api.result_ready";
    pub(super) const RESULT_ACCEPTED: &str = "client_api.result_accepted";
    pub(super) const RESULT_REJECTED: &str = "client_api.result_rejected";
    pub(super) const RESULT_SOURCE_SETTLED: &str = "client_api.result_source_settled";
    pub(super) const LOG: &str = "client_api.log";
    pub(super) const HEARTBEAT: &str = "client_api.heartbeat";
    pub(super) const ABORT: &str = "client_api.abort";
    pub(super) const SHUTDOWN: &str = "client_api.shutdown";
    pub(super) const ERROR: &str = "client_api.error";
}

mod key {
    pub(super) const SESSION_ID: &str = "session_id";
    pub(super) const JOB_ID: &str = "job_id";
    pub(super) const SITE_NAME: &str = "site_name";
    pub(super) const TRAINER_FQCN: &str = "trainer_fqcn";
    pub(super) const RANK: &str = "rank";
    pub(super) const PROTOCOL_VERSION: &str = "protocol_version";
    pub(super) const PROOF: &str = "proof";
    pub(super) const REASON: &str = "reason";
    pub(super) const SECURE_MODE: &str = "secure_mode";
    pub(super) const TASK_ID: &str = "task_id";
    pub(super) const TASK_NAME: &str = "task_name";
    pub(super) const MODEL: &str = "model";
    pub(super) const RESULT: &str = "result";
    pub(super) const HEARTBEAT_INTERVAL: &str = "heartbeat_interval";
    pub(super) const HEARTBEAT_TIMEOUT: &str = "heartbeat_timeout";
    pub(super) const REPLY_TOPIC: &str = "reply_topic";
}

/// Largest frame that a script may send, in bytes; what is larger comes as a stream.
const MAX_FRAME: usize = 64 << 20;

/// A cell for one script after the other: linked to nobody else, and without any token.
pub(crate) struct Desk {
    pub(crate) cell: Cell,
    pub(crate) endpoint: Endpoint,
    /// Where scripts of our own package find it.
    pub(crate) port: u16,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// What a script has to prove, and what it is told of its session.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) job_id: String,
    pub(crate) site: String,
    pub(crate) heartbeat: Duration,
    pub(crate) lease: Duration,
    /// What a script of our own package is told.
    pub(crate) welcome: serde_json::Value,
}

pub(crate) struct Shared {
    pub(crate) terms: Terms,
    pub(crate) metrics: Metrics,
    pub(crate) exchange: Exchange,
    session: Mutex<Option<Session>>,
    pub(crate) changed: Notify,
}

/// One script's session.
pub(crate) struct Session {
    trainer: Fqcn,
    pub(crate) token: String,
    pub(crate) id: Option<String>,
    pub(crate) ready: bool,
    pub(crate) rejected: Option<String>,
    pub(crate) heard: Instant,
    pub(crate) task: Option<String>,
    /// Or why there is none.
    pub(crate) result: Option<Result<Shareable, String>>,
    settled: bool,
    /// What it is told by, if it speaks through our own package.
    pub(crate) talk: Option<mpsc::Sender<String>>,
}

/// What the owner of a session waits for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum News {
    Nothing,
    Ready,
    Rejected(String),
}

/// Why a task was not taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandOverError {
    #[error("the script has no session")]
    NoSession,
    #[error("the task cannot be encoded: {0}")]
    Encode(String),
    #[error("the script did not take the task over: {0}")]
    Request(String),
    #[error("the script refused the task: {0}")]
    Refused(String),
}

impl Desk {
    /// Listens on a free port of the loopback interface as the cell `name`.
    pub(crate) async fn open(
        name: Fqcn,
        terms: Terms,
        metrics: Metrics,
        exchange: Exchange,
    ) -> Result<Self, String> {
        let (session, changed) = (Mutex::new(None), Notify::new());
        let shared = Arc::new(Shared { terms, metrics, exchange, session, changed });
        let mut config = CellConfig::new(name);
        config.unproven_frame_len = MAX_FRAME;
        config.max_unestablished = 16;
        config.max_handlers = 16;
        config.max_waiting = 256;
        let cell = Cell::builder(config)
            .transports(Transports::new().with(TcpTransport::clear()))
            .link_policy(Arc::new(OnlyTheScript(Arc::clone(&shared))))
            .start();
        let on = Endpoint::parse("tcp://127.0.0.1:0").map_err(|error| error.to_string())?;
        let endpoint = cell.listen(&on).await.map_err(|error| error.to_string())?;
        for topic in [
            topic::HELLO,
            topic::SESSION_READY,
            topic::RESULT_READY,
            topic::RESULT_SOURCE_SETTLED,
            topic::HEARTBEAT,
            topic::LOG,
        ] {
            let shared = Arc::clone(&shared);
            cell.handle(CHANNEL, topic, move |incoming: Incoming| {
                let answer = shared.answer(topic, incoming);
                async move { answer }
            });
        }
        let listening = native::listen(Arc::clone(&shared)).await;
        let (port, listening) = listening.map_err(|error| error.to_string())?;
        Ok(Self { cell, endpoint, port, shared, listening: tokio::spawn(listening) })
    }

    /// Expects a script as the cell `trainer` with this token; whoever was expected before is not any more.
    pub(crate) fn expect(&self, trainer: Fqcn, token: String) {
        *self.shared.session() = Some(Session {
            trainer,
            token,
            id: None,
            ready: false,
            rejected: None,
            heard: Instant::now(),
            task: None,
            result: None,
            settled: true,
            talk: None,
        });
    }

    /// Where arrays lie for scripts of our own package.
    pub(crate) fn exchange(&self) -> &Exchange {
        &self.shared.exchange
    }

    /// How the session stands.
    pub(crate) fn news(&self) -> News {
        match &*self.shared.session() {
            Some(Session { rejected: Some(reason), .. }) => News::Rejected(reason.clone()),
            Some(Session { ready: true, .. }) => News::Ready,
            Some(_) | None => News::Nothing,
        }
    }

    /// Something came from the script since this future was made and enabled.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.shared.changed.notified()
    }

    /// How long nothing has come from the script.
    pub(crate) fn silent_for(&self) -> Duration {
        self.shared.session().as_ref().map_or(Duration::ZERO, |session| session.heard.elapsed())
    }

    /// Gives a task to the script; its identifier in this session.
    pub(crate) async fn hand_over(
        &self,
        name: &str,
        task: Shareable,
        timeout: Duration,
    ) -> Result<(), HandOverError> {
        let id = Uuid::new_v4().simple().to_string();
        let (trainer, session_id, talk, before) = {
            let mut session = self.shared.session();
            let session = session.as_mut().ok_or(HandOverError::NoSession)?;
            let before = session.task.replace(id.clone());
            session.result = None;
            let session_id = session.id.clone().ok_or(HandOverError::NoSession)?;
            (session.trainer.clone(), session_id, session.talk.clone(), before)
        };
        if let Some(before) = before {
            self.shared.forget_files(&before);
        }
        if let Some(talk) = talk {
            return self.shared.give(&talk, id, name, task).await;
        }
        let mut message = Map::new();
        message.insert(key::SESSION_ID, session_id);
        message.insert(key::TASK_ID, id);
        message.insert(key::TASK_NAME, name);
        message.insert(key::MODEL, Value::Shareable(task));
        let payload = payload(message).map_err(HandOverError::Encode)?;
        let request = Request::new(CHANNEL, topic::TASK_READY, payload).timeout(timeout);
        let reply = self.cell.request(&trainer, request).await.and_then(Reply::into_ok);
        let reply = reply.map_err(|error| HandOverError::Request(error.to_string()))?;
        self.shared.hear();
        let body = read(reply.payload).map_err(HandOverError::Refused)?;
        match body.str(key::REPLY_TOPIC) {
            Some(topic::TASK_ACCEPTED) => Ok(()),
            Some(_) | None => {
                Err(HandOverError::Refused(shown(body.str(key::REASON).unwrap_or("without a reason"))))
            }
        }
    }

    /// The result of the task that was handed over, once; its arrays may still be with the script.
    pub(crate) fn take_result(&self) -> Option<(Fqcn, Result<Shareable, String>)> {
        let mut session = self.shared.session();
        let session = session.as_mut()?;
        session.result.take().map(|result| (session.trainer.clone(), result))
    }

    /// Whether the script has nothing more to give of its last result.
    pub(crate) fn is_settled(&self) -> bool {
        self.shared.session().as_ref().is_none_or(|session| session.settled)
    }

    /// Asks the script to end when it is done; whether it heard.
    pub(crate) async fn shut_down(&self, timeout: Duration) -> bool {
        if let Some(talk) = self.talk() {
            return talk.send(native::end("the run is over")).await.is_ok();
        }
        let Some((trainer, payload)) = self.to_script("the run is over") else { return false };
        let request = Request::new(CHANNEL, topic::SHUTDOWN, payload).timeout(timeout);
        self.cell.request(&trainer, request).await.and_then(Reply::into_ok).is_ok()
    }

    /// Tells the script that its work is not wanted any more.
    pub(crate) async fn abort(&self, reason: &str) {
        if let Some(talk) = self.talk() {
            talk.try_send(native::end(reason)).ok(); // whoever does not read is killed
        } else if let Some((trainer, payload)) = self.to_script(reason) {
            let notice = Request::new(CHANNEL, topic::ABORT, payload);
            if let Err(error) = self.cell.notify(&trainer, notice).await {
                tracing::debug!(%error, "script not told of the abort");
            }
        }
    }

    fn talk(&self) -> Option<mpsc::Sender<String>> {
        self.shared.session().as_ref()?.talk.clone()
    }

    fn to_script(&self, reason: &str) -> Option<(Fqcn, Payload)> {
        let session = self.shared.session();
        let session = session.as_ref()?;
        let message = Map::from_iter([(key::SESSION_ID, session.id.as_deref()?), (key::REASON, reason)]);
        Some((session.trainer.clone(), payload(message).ok()?))
    }
}

impl Shared {
    pub(crate) fn session(&self) -> MutexGuard<'_, Option<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hear(&self) {
        if let Some(session) = &mut *self.session() {
            session.heard = Instant::now();
        }
    }

    /// Answers a script; everything that it says is checked against what it was started with.
    fn answer(&self, topic: &str, incoming: Incoming) -> Result<Reply, HandlerError> {
        let origin = incoming.origin.clone();
        let body = read(incoming.into_payload()).map_err(HandlerError::invalid_request)?;
        let answer = match topic {
            topic::HELLO => self.hello(&origin, &body),
            _ => self.in_session(topic, &origin, body),
        };
        self.changed.notify_waiters();
        payload(answer).map(Reply::ok).map_err(HandlerError::failed)
    }

    fn hello(&self, origin: &Fqcn, body: &Map) -> Map {
        let mut session = self.session();
        let Some(session) = session.as_mut() else { return rejection("no script is expected") };
        let says = |key, expected: &str| body.str(key) == Some(expected);
        if *origin != session.trainer || !says(key::TRAINER_FQCN, session.trainer.as_str()) {
            return rejection("another script is expected");
        }
        if !body.str(key::PROOF).is_some_and(|proof| is_same(proof, &session.token)) {
            return rejection("launch token mismatch");
        }
        // From here on it is the script that was started: what is wrong now stays wrong.
        let wrong = if body.int(key::PROTOCOL_VERSION) != Some(PROTOCOL_VERSION) {
            Some("unsupported protocol version")
        } else if !says(key::JOB_ID, &self.terms.job_id) {
            Some("job id mismatch")
        } else if !says(key::SITE_NAME, &self.terms.site) {
            Some("site name mismatch")
        } else {
            None
        };
        if let Some(reason) = wrong {
            session.rejected = Some(reason.to_owned());
            return rejection(reason);
        }
        if !says(key::RANK, "0") {
            return rejection("only rank 0 may connect");
        }
        session.heard = Instant::now();
        let id = session.id.get_or_insert_with(|| Uuid::new_v4().simple().to_string()).clone();
        let mut answer = answer(topic::HELLO_ACCEPTED);
        answer.insert(key::SESSION_ID, id);
        answer.insert(key::JOB_ID, self.terms.job_id.as_str());
        answer.insert(key::SITE_NAME, self.terms.site.as_str());
        answer.insert(key::HEARTBEAT_INTERVAL, self.terms.heartbeat.as_secs_f64());
        answer.insert(key::HEARTBEAT_TIMEOUT, self.terms.lease.as_secs_f64());
        answer.insert(key::SECURE_MODE, false);
        answer
    }

    fn in_session(&self, topic: &str, origin: &Fqcn, mut body: Map) -> Map {
        let (failure, success) = match topic {
            topic::RESULT_READY => (topic::RESULT_REJECTED, topic::RESULT_ACCEPTED),
            topic => (topic::ERROR, topic),
        };
        let refuse = |reason: &str| {
            tracing::debug!(topic, reason, "script refused");
            let mut refusal = answer(failure);
            refusal.insert(key::REASON, reason);
            refusal
        };
        let mut session = self.session();
        let Some(session) = session.as_mut() else { return refuse("no script is expected") };
        if *origin != session.trainer {
            return refuse("unexpected origin");
        }
        let Some(id) = session.id.clone().filter(|id| body.str(key::SESSION_ID) == Some(id)) else {
            return refuse("stale or unknown session id");
        };
        if topic != topic::SESSION_READY && !session.ready {
            return refuse("no active trainer session");
        }
        session.heard = Instant::now();
        let mut accepted = answer(success);
        match topic {
            topic::SESSION_READY => {
                session.ready = true;
                accepted.insert(key::SESSION_ID, id);
            }
            topic::HEARTBEAT => drop(accepted.insert(key::SESSION_ID, id)),
            topic::RESULT_READY => {
                if session.task.is_none() || body.str(key::TASK_ID) != session.task.as_deref() {
                    return refuse("it is not the result of the current task");
                }
                let Some(Value::Shareable(result)) = body.remove(key::RESULT) else {
                    return refuse("the result is no Shareable");
                };
                session.task = None;
                session.settled = false;
                session.result = Some(Ok(result));
            }
            topic::RESULT_SOURCE_SETTLED => {
                session.settled = true;
                accepted.insert(key::TASK_ID, body.get(key::TASK_ID).cloned().unwrap_or_default());
            }
            topic::LOG => self.metrics.take(&body),
            _ => {}
        }
        accepted
    }
}

/// Admits the script that is expected, under its name that nobody else knows, until it has a session.
struct OnlyTheScript(Arc<Shared>);

impl LinkPolicy for OnlyTheScript {
    fn admit(&self, link: &LinkFacts) -> Result<(), Refusal> {
        let session = self.0.session();
        let expected = session.as_ref().is_some_and(|session| link.accepted && link.peer == session.trainer);
        if expected { Ok(()) } else { Err(Refusal::new(ReturnCode::Unauthenticated, "no such script")) }
    }

    fn admit_certificate(&self, _: &Fqcn, _: &str) -> Result<(), Refusal> {
        Err(Refusal::new(ReturnCode::Unauthenticated, "scripts have no certificates"))
    }
}

fn answer(topic: &str) -> Map {
    Map::from_iter([(key::REPLY_TOPIC, topic)])
}

fn rejection(reason: &str) -> Map {
    tracing::warn!(reason, "a script's hello is rejected");
    Map::from_iter([(key::REPLY_TOPIC, topic::HELLO_REJECTED), (key::REASON, reason)])
}

fn payload(map: Map) -> Result<Payload, String> {
    encode(&Value::Map(map)).map(Payload::fobs).map_err(|error| error.to_string())
}

fn read(payload: Payload) -> Result<Map, String> {
    if payload.encoding != Encoding::Fobs {
        return Err("expected an object".to_owned());
    }
    match decode(payload.body.whole()) {
        Ok(Value::Map(map)) => Ok(map),
        Ok(_) => Err("expected a map".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Compares secrets in a time that does not tell how much of them is equal.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    let differences = one.bytes().zip(other.bytes()).fold(0, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && differences == 0
}

/// A peer's text, short and escaped.
fn shown(text: &str) -> String {
    crate::child::printable(text.chars().take(500))
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use locule_fobs::Array;

    use super::*;
    use crate::parcel::Folder;

    const TOKEN: &str = "correct";
    const PATIENCE: Duration = Duration::from_secs(30);

    struct Scene {
        desk: Desk,
        name: Fqcn,
    }

    impl Scene {
        async fn open() -> Self {
            let job: Fqcn = "site-1.job-7".parse().unwrap();
            let (heartbeat, lease) = (Duration::from_secs(5), Duration::from_secs(30));
            let (job_id, site) = ("job-7".to_owned(), "site-1".to_owned());
            let terms = Terms { job_id, site, heartbeat, lease, welcome: serde_json::Value::Null };
            let folder = tempfile::tempdir().unwrap();
            let metrics = Metrics::in_file(folder.path().join("m"));
            let open = Folder::open(folder.path()).unwrap();
            let exchange = Exchange { path: folder.path().to_owned(), folder: open, max_result: 1 << 20 };
            let desk = Desk::open(job.clone(), terms, metrics, exchange).await.unwrap();
            let name = job.child("client_api_trainer_5").unwrap();
            desk.expect(name.clone(), TOKEN.to_owned());
            Self { desk, name }
        }

        /// A cell that links, or tries to.
        async fn link(&self, name: &Fqcn, patience: Duration) -> (Cell, bool) {
            let cell = Cell::builder(CellConfig::new(name.clone()))
                .transports(Transports::new().with(TcpTransport::clear()))
                .start();
            cell.connect(self.desk.endpoint.clone());
            let linked = cell.wait_linked(self.desk.cell.name(), patience).await;
            (cell, linked)
        }

        async fn say(&self, cell: &Cell, topic: &str, body: &[(&str, &str)]) -> Map {
            let mut map: Map = body.iter().copied().collect();
            if topic == topic::HELLO {
                map.insert(key::PROTOCOL_VERSION, 1_i64);
            }
            let request = Request::new(CHANNEL, topic, payload(map).unwrap());
            let reply = cell.request(self.desk.cell.name(), request).await.unwrap().into_ok().unwrap();
            read(reply.payload).unwrap()
        }

        fn hello(&self) -> [(&'static str, String); 5] {
            [
                (key::TRAINER_FQCN, self.name.to_string()),
                (key::PROOF, TOKEN.to_owned()),
                (key::JOB_ID, "job-7".to_owned()),
                (key::SITE_NAME, "site-1".to_owned()),
                (key::RANK, "0".to_owned()),
            ]
        }

        async fn say_hello(&self, cell: &Cell, other: &[(&str, &str)]) -> Map {
            let hello = self.hello();
            let mut body: Vec<(&str, &str)> =
                hello.iter().map(|(key, value)| (*key, value.as_str())).collect();
            body.retain(|(key, _)| other.iter().all(|(changed, _)| changed != key));
            body.extend(other);
            self.say(cell, topic::HELLO, &body).await
        }
    }

    fn topic_of(body: &Map) -> &str {
        body.str(key::REPLY_TOPIC).unwrap()
    }

    #[tokio::test]
    async fn only_the_script_that_was_started_gets_a_session() {
        let scene = Scene::open().await;
        let (cell, linked) = scene.link(&scene.name, PATIENCE).await;
        assert!(linked);
        for other in [
            [(key::PROOF, "incorrect")],
            [(key::PROOF, "")],
            [(key::TRAINER_FQCN, "site-1.job-7.client_api_trainer_1")],
            [(key::RANK, "1")],
        ] {
            let answer = scene.say_hello(&cell, &other).await;
            assert_eq!(topic_of(&answer), topic::HELLO_REJECTED, "{other:?}");
            assert_eq!(scene.desk.news(), News::Nothing, "{other:?}: a stranger's word ends nothing");
        }
        let answer = scene.say(&cell, topic::SESSION_READY, &[(key::SESSION_ID, "")]).await;
        assert_eq!(topic_of(&answer), topic::ERROR);

        let answer = scene.say_hello(&cell, &[]).await;
        assert_eq!(topic_of(&answer), topic::HELLO_ACCEPTED);
        assert_eq!(answer.bool(key::SECURE_MODE), Some(false));
        assert!(answer.get("auth_token").is_none(), "no token of the site's leaves it");
        let id = answer.str(key::SESSION_ID).unwrap().to_owned();
        assert_eq!(scene.say_hello(&cell, &[]).await.str(key::SESSION_ID), Some(id.as_str()), "said again");
        assert_eq!(scene.desk.news(), News::Nothing);
        scene.say(&cell, topic::SESSION_READY, &[(key::SESSION_ID, &id)]).await;
        assert_eq!(scene.desk.news(), News::Ready);
    }

    #[tokio::test]
    async fn the_right_token_with_the_wrong_job_is_told_to_whoever_waits() {
        let scene = Scene::open().await;
        let (cell, _) = scene.link(&scene.name, PATIENCE).await;
        let answer = scene.say_hello(&cell, &[(key::JOB_ID, "job-8")]).await;
        assert_eq!(topic_of(&answer), topic::HELLO_REJECTED);
        assert_eq!(scene.desk.news(), News::Rejected("job id mismatch".to_owned()));
    }

    #[tokio::test]
    async fn nobody_links_under_another_name() {
        let scene = Scene::open().await;
        let stranger = "site-1.job-7.client_api_trainer_6".parse().unwrap();
        let (cell, _) = scene.link(&stranger, Duration::from_secs(2)).await; // its side may think so for a moment
        let request = Request::new(CHANNEL, topic::HELLO, Payload::none()).timeout(Duration::from_secs(2));
        assert!(cell.request(scene.desk.cell.name(), request).await.is_err());
        assert!(scene.desk.cell.links().borrow().is_empty());
    }

    #[tokio::test]
    async fn garbage_and_words_of_another_session_change_nothing() {
        let scene = Scene::open().await;
        let (cell, _) = scene.link(&scene.name, PATIENCE).await;
        let answer = scene.say_hello(&cell, &[]).await;
        let id = answer.str(key::SESSION_ID).unwrap().to_owned();
        scene.say(&cell, topic::SESSION_READY, &[(key::SESSION_ID, &id)]).await;

        for garbage in [Payload::none(), Payload::bytes("{}".into()), Payload::fobs("\u{c1}".into())] {
            let request = Request::new(CHANNEL, topic::RESULT_READY, garbage);
            let reply = cell.request(scene.desk.cell.name(), request).await.unwrap();
            assert_eq!(reply.code, ReturnCode::InvalidRequest);
        }
        for (topic, body) in [
            (topic::RESULT_READY, vec![(key::SESSION_ID, id.as_str()), (key::TASK_ID, "1")]),
            (topic::RESULT_READY, vec![(key::SESSION_ID, "0"), (key::TASK_ID, "1")]),
            (topic::HEARTBEAT, vec![(key::SESSION_ID, "0")]),
            (topic::LOG, vec![]),
        ] {
            let answer = scene.say(&cell, topic, &body).await;
            assert!([topic::ERROR, topic::RESULT_REJECTED].contains(&topic_of(&answer)), "{topic}");
        }
        assert!(scene.desk.take_result().is_none());
    }

    #[tokio::test]
    async fn a_task_goes_to_the_script_with_its_arrays_and_one_result_comes_back() {
        let scene = Scene::open().await;
        let (cell, _) = scene.link(&scene.name, PATIENCE).await;
        let answer = scene.say_hello(&cell, &[]).await;
        let id = answer.str(key::SESSION_ID).unwrap().to_owned();
        scene.say(&cell, topic::SESSION_READY, &[(key::SESSION_ID, &id)]).await;

        let (told, mut tasks) = tokio::sync::mpsc::unbounded_channel();
        cell.handle(CHANNEL, topic::TASK_READY, move |incoming: Incoming| {
            told.send(read(incoming.into_payload()).unwrap()).unwrap();
            async { Ok(Reply::ok(payload(super::answer(topic::TASK_ACCEPTED)).unwrap())) }
        });
        let mut task = Shareable::new();
        task.fields.insert("weights", Array::from_f64(&[2], &[0.5, -1.0]).unwrap());
        scene.desk.hand_over("train", task.clone(), Duration::from_secs(30)).await.unwrap();
        let taken = tasks.recv().await.unwrap();
        assert_eq!(taken.get(key::MODEL), Some(&Value::Shareable(task.clone())));
        assert_eq!(
            (taken.str(key::TASK_NAME), taken.str(key::SESSION_ID)),
            (Some("train"), Some(id.as_str()))
        );

        let mut result = Map::from_iter([(key::SESSION_ID, id.as_str())]);
        result.insert(key::TASK_ID, taken.str(key::TASK_ID).unwrap());
        result.insert(key::RESULT, Value::Shareable(task.clone()));
        let mut topics = Vec::new();
        for _ in 0..2 {
            let request = Request::new(CHANNEL, topic::RESULT_READY, payload(result.clone()).unwrap());
            let reply = cell.request(scene.desk.cell.name(), request).await.unwrap().into_ok().unwrap();
            topics.push(topic_of(&read(reply.payload).unwrap()).to_owned());
        }
        assert_eq!(topics, [topic::RESULT_ACCEPTED, topic::RESULT_REJECTED], "one result for one task");
        assert_eq!(scene.desk.take_result(), Some((scene.name.clone(), Ok(task))));
        assert!(!scene.desk.is_settled());
        scene.say(&cell, topic::RESULT_SOURCE_SETTLED, &[(key::SESSION_ID, &id)]).await;
        assert!(scene.desk.is_settled());
    }
}
