//! Two cells, what the one heard from the other, and who they are.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use locule_auth::SessionStamp;
use locule_cell::{
    Cell, CellConfig, HandlerError, Incoming, IncomingFilter, LinkFacts, MessageFilter, Now, Pass, Refusal,
    Reply,
};
use locule_communicator::{Communicator, Credentials, JobCommunicator, Settings};
use locule_component::{Event, EventBus, EventCx, ObserveError, Observer, RunContext};
use locule_identity::{Secret, Session, Token, Usage};
use locule_identity_openssl::{CertificateAuthority, OpensslSigner, OpensslVerifier, Subject};
use locule_message::{Message, MessageKind, Payload, ReturnCode};
use locule_protocol::{Parts, site_context};
use locule_transport::{Endpoint, Transports};
use locule_transport_mem::MemTransport;
use tokio_util::sync::CancellationToken;
use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;

pub(crate) const TOKEN: &str = "940d0ce0-f5ed-4170-8f4e-5613763b9df7";

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The server's cell and the site's, or those of one job.
pub(crate) struct Federation {
    pub(crate) network: MemTransport,
    pub(crate) server: Cell,
    pub(crate) site: Cell,
    pub(crate) stamp: Arc<SessionStamp>,
    pub(crate) cancel: CancellationToken,
    pub(crate) notes: Notes,
    heard: Arc<Mutex<Vec<Message>>>,
}

impl Federation {
    /// The server listens, the site dials.
    pub(crate) async fn of_parents() -> Self {
        let federation = Self::apart("server", "site-1");
        federation.open().await;
        federation
    }

    pub(crate) async fn of_job() -> Self {
        let federation = Self::apart("server.job-1", "site-1.job-1");
        federation.open().await;
        federation.stamp.set(session("NA"));
        federation
    }

    /// The site dials a server that does not listen yet.
    pub(crate) fn apart(server: &str, site: &str) -> Self {
        keep_everything_audible();
        let network = MemTransport::new();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let stamp = Arc::new(SessionStamp::new());
        let cell = |name: &str| {
            let transports = Transports::new().with(network.clone());
            Cell::builder(CellConfig::new(name.parse().unwrap())).transports(transports)
        };
        let ear = Arc::new(Ear(heard.clone()));
        let server = cell(server).gate(ear.clone()).filter(Pass::IncomingRequest, "*", "*", ear).start();
        let site = cell(site).stamp(stamp.clone()).start();
        site.connect(endpoint());
        let cancel = CancellationToken::new();
        Self { network, server, site, stamp, cancel, notes: Notes::default(), heard }
    }

    pub(crate) async fn open(&self) {
        self.server.listen(&endpoint()).await.unwrap();
        assert!(self.site.wait_linked(self.server.name(), seconds(60)).await);
    }

    pub(crate) fn communicator(&self, settings: Settings) -> Communicator {
        let events = Arc::new(EventBus::new(vec![("notes".into(), Box::new(self.notes.clone()))]));
        let (site, stamp) = (self.site.clone(), self.stamp.clone());
        Communicator::new(site, settings, stamp, RunContext::new("site-1", ""), events, self.cancel.clone())
    }

    pub(crate) fn job(&self) -> JobCommunicator {
        let peer = site_context("site-1", Some("job-1"));
        let cancel = self.cancel.clone();
        JobCommunicator::new(self.site.clone(), settings(), session("NA"), "job-1", peer, cancel).unwrap()
    }

    /// Lets the server answer; `answer` is told how many requests it answered before. Gives that number.
    pub(crate) fn answer(
        &self,
        channel: &str,
        topic: &str,
        answer: impl Fn(usize, Incoming) -> Result<Reply, HandlerError> + Send + Sync + 'static,
    ) -> Arc<AtomicUsize> {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        self.server.handle(channel, topic, move |incoming: Incoming| {
            std::future::ready(answer(count.fetch_add(1, Ordering::Relaxed), incoming))
        });
        asked
    }

    /// The messages that arrived at the server's cell, in order.
    pub(crate) fn heard(&self, channel: &str, topic: &str) -> Vec<Message> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|m| m.channel() == channel && m.topic() == topic).cloned().collect()
    }

    pub(crate) fn heard_requests(&self) -> Vec<Message> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|message| message.kind() == Some(MessageKind::Request)).cloned().collect()
    }
}

pub(crate) fn endpoint() -> Endpoint {
    Endpoint::parse("mem://server").unwrap()
}

pub(crate) fn settings() -> Settings {
    Settings::new("ward-7", "site-1", "server.ward-7.org")
}

pub(crate) fn session(ssid: &str) -> Session {
    let token = Token { token: Secret::from(TOKEN), signature: Secret::from("NA"), ssid: ssid.into() };
    Session::unproven("site-1", token).unwrap()
}

pub(crate) fn reply(parts: Parts) -> Result<Reply, HandlerError> {
    let mut reply = Reply::ok(parts.payload);
    reply.headers = parts.headers;
    Ok(reply)
}

pub(crate) fn refusal(code: ReturnCode, reason: &str) -> Result<Reply, HandlerError> {
    Err(HandlerError::new(code, reason))
}

pub(crate) fn nothing() -> Result<Reply, HandlerError> {
    Ok(Reply::ok(Payload::none()))
}

/// Keeps what passes; of streams the whole, not the chunks.
struct Ear(Arc<Mutex<Vec<Message>>>);

/// A header that only streams have.
const OF_STREAM: &str = "sm__id";

impl IncomingFilter for Ear {
    fn check(&self, _now: Now, _from: &LinkFacts, message: &Message) -> Result<(), Refusal> {
        if !message.headers.contains(OF_STREAM) {
            self.0.lock().unwrap().push(message.clone());
        }
        Ok(())
    }
}

impl MessageFilter for Ear {
    fn apply(&self, _now: Now, message: &mut Message) -> Result<(), Refusal> {
        if message.headers.contains(OF_STREAM) {
            self.0.lock().unwrap().push(message.clone());
        }
        Ok(())
    }
}

/// The names of the events that were heard.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Notes {
    fn observe(&self, event: &Event<'_>, _: &EventCx<'_>) -> Result<(), ObserveError> {
        self.0.lock().unwrap().push(event.name().to_owned());
        Ok(())
    }
}

/// Tracing asks only the present thread's subscriber whether a line is of interest, once and for all
/// threads, as long as there is but one subscriber. So there are two more, from before the first line.
fn keep_everything_audible() {
    static LISTENERS: OnceLock<[Dispatch; 2]> = OnceLock::new();
    let listener = || {
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
        Dispatch::new(subscriber.with_writer(io::sink).finish())
    };
    LISTENERS.get_or_init(|| [listener(), listener()]);
}

/// What this thread logs.
#[derive(Clone)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn start() -> (Self, DefaultGuard) {
        keep_everything_audible();
        let log = Self(Arc::default());
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn lines_with(&self, words: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A project's certificates; the keys take a second to make, so all tests share them.
pub(crate) struct Pki {
    pub(crate) root: Arc<OpensslVerifier>,
    pub(crate) server: Arc<OpensslSigner>,
    pub(crate) site: Arc<OpensslSigner>,
    /// A server of the same name under another root.
    pub(crate) impostor: Arc<OpensslSigner>,
}

impl Pki {
    pub(crate) fn get() -> &'static Self {
        static PKI: OnceLock<Pki> = OnceLock::new();
        PKI.get_or_init(|| {
            let (now, year) = (SystemTime::now(), Duration::from_secs(365 * 86_400));
            let root = |name| CertificateAuthority::create(&Subject::new(name), year, now).unwrap();
            let signer = |root: &CertificateAuthority, name, usage| {
                let issued = root.issue(&Subject::new(name), &[], usage, year, now).unwrap();
                Arc::new(OpensslSigner::from_pem(&issued.certificate_pem, &issued.key_pem).unwrap())
            };
            let (ours, other) = (root("ward-7"), root("ward-8"));
            Pki {
                root: Arc::new(OpensslVerifier::new(&ours.certificate_pem().unwrap()).unwrap()),
                server: signer(&ours, "server.ward-7.org", Usage::Server),
                site: signer(&ours, "site-1", Usage::Client),
                impostor: signer(&other, "server.ward-7.org", Usage::Server),
            }
        })
    }

    pub(crate) fn credentials(&self) -> Credentials {
        Credentials { signer: self.site.clone(), verifier: self.root.clone() }
    }
}
