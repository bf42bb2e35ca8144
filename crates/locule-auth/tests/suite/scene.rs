//! A server with its ledger, and participants that register with it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use locule_auth::{IssueRefused, Issued, LedgerLimits, ServerGate, SessionStamp, TokenLedger};
use locule_identity::{Admission, AdmissionLimits, Challenge, Grant, Session, Signer};
use locule_journal::{AppendError, Journal, MemoryJournal, ReplayError};
use locule_message::{Fqcn, Headers, Message, Payload, key};
use locule_switch::{IncomingFilter, LinkFacts, LinkId, LinkSecurity, Now, OutgoingFilter, Refusal};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::toy::{Toy, ToyVerifier, wall};

/// A journal whose bytes outlive the ledger that writes it.
#[derive(Debug, Clone)]
pub(crate) struct Disk(pub(crate) Arc<std::sync::Mutex<MemoryJournal>>);

impl Disk {
    pub(crate) fn new() -> Self {
        Self(Arc::new(std::sync::Mutex::new(MemoryJournal::new())))
    }
}

impl Journal for Disk {
    fn writer(&self) -> u64 {
        self.0.lock().unwrap().writer()
    }

    fn append(&mut self, record: &[u8]) -> Result<(), AppendError> {
        self.0.lock().unwrap().append(record)
    }

    fn replay(&mut self) -> Result<Vec<Vec<u8>>, ReplayError> {
        self.0.lock().unwrap().replay()
    }

    fn rewrite(&mut self, records: &[Vec<u8>]) -> Result<(), AppendError> {
        self.0.lock().unwrap().rewrite(records)
    }
}

pub(crate) struct Scene {
    pub(crate) ledger: Arc<TokenLedger>,
    pub(crate) gate: ServerGate,
    pub(crate) disk: Disk,
    pub(crate) now: Now,
    pub(crate) rng: ChaCha20Rng,
    limits: LedgerLimits,
    server: Toy,
    admission: Admission,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(LedgerLimits::default())
    }

    pub(crate) fn with(limits: LedgerLimits) -> Self {
        let disk = Disk::new();
        let ledger = Arc::new(TokenLedger::open(Box::new(disk.clone()), limits).unwrap());
        let server = Toy::new("hub.example");
        let plenty = AdmissionLimits {
            rate: 1_000_000,
            rate_per_link: 1_000_000,
            rate_per_origin: 1_000_000,
            ..AdmissionLimits::default()
        };
        Self {
            gate: ServerGate::new(Fqcn::server(), Arc::clone(&ledger)).relays(["relay".to_owned()]),
            ledger,
            disk,
            now: Now { instant: Instant::now(), wall: wall() },
            rng: ChaCha20Rng::seed_from_u64(11),
            limits,
            admission: Admission::new(server.identity().clone(), plenty),
            server,
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.wall += time;
    }

    /// The server stops and starts again over the same disk.
    pub(crate) fn restart(&mut self) {
        self.ledger = Arc::new(TokenLedger::open(Box::new(self.disk.clone()), self.limits).unwrap());
        self.gate = ServerGate::new(Fqcn::server(), Arc::clone(&self.ledger)).relays(["relay".to_owned()]);
    }

    /// Proves `who` at `origin`; the ledger does not know of it yet.
    pub(crate) fn prove(&mut self, who: &Toy, origin: &str) -> (Grant, Session) {
        let name = who.identity().common_name.clone();
        let (rng, now) = (&mut self.rng, self.now.instant);
        let challenge = Challenge::new(who.identity(), rng).unwrap();
        let opening = self.admission.open(1, origin, &name, challenge.nonce(), rng, now).unwrap();
        let answer = opening.prove(&self.server).unwrap();
        let proven = challenge.prove_server(&answer, "hub.example", &ToyVerifier, wall()).unwrap();
        let registration = proven.register(who).unwrap();
        let open = self.admission.take(1, origin, now).unwrap();
        let proven = open.verify(registration.proof(), &name, &ToyVerifier, wall()).unwrap();
        let grant = proven.grant(&self.server, rng).unwrap();
        let session = registration.accept(grant.to_token(), &ToyVerifier).unwrap();
        (grant, session)
    }

    pub(crate) fn register(&mut self, who: &Toy, origin: &str) -> Session {
        let (grant, session) = self.prove(who, origin);
        self.ledger.issue(&grant, self.now).unwrap();
        session
    }

    pub(crate) fn site(&mut self, name: &str) -> Session {
        self.register(&Toy::new(name), name)
    }

    pub(crate) fn try_site(&mut self, name: &str) -> Result<Issued, IssueRefused> {
        let (grant, _) = self.prove(&Toy::new(name), name);
        self.ledger.issue(&grant, self.now)
    }

    pub(crate) fn check(&self, link: &LinkFacts, message: &Message) -> Result<(), Refusal> {
        self.gate.check(self.now, link, message)
    }

    /// Whether a site's heartbeat passes the gate and the ledger.
    pub(crate) fn heartbeat(&self, session: &Session, origin: &str) -> bool {
        let message = stamped(session, request(origin, "task", "heart_beat"));
        let name = session.site_name();
        self.check(&link(origin, name), &message).is_ok()
            && self.ledger.heartbeat(name, &fqcn(origin), self.now).is_ok()
    }

    /// Whether a site's request passes the gate.
    pub(crate) fn passes(&self, session: &Session, origin: &str) -> bool {
        let message = stamped(session, request(origin, "server_command", "get_task"));
        self.check(&link(origin, session.site_name()), &message).is_ok()
    }
}

pub(crate) fn fqcn(name: &str) -> Fqcn {
    name.parse().unwrap()
}

/// A request to the server, without any token.
pub(crate) fn request(origin: &str, channel: &str, topic: &str) -> Message {
    message("req", origin, "server", channel, topic)
}

pub(crate) fn message(kind: &str, origin: &str, to: &str, channel: &str, topic: &str) -> Message {
    let mut headers = Headers::new();
    headers.set(key::MSG_TYPE, kind);
    headers.set(key::ORIGIN, origin);
    headers.set(key::DESTINATION, to);
    headers.set(key::CHANNEL, channel);
    headers.set(key::TOPIC, topic);
    Message::new(headers, Payload::none())
}

pub(crate) fn stamped(session: &Session, mut message: Message) -> Message {
    let stamp = SessionStamp::new();
    stamp.set(session.clone());
    let now = Now { instant: Instant::now(), wall: SystemTime::UNIX_EPOCH };
    stamp.stamp(now, &mut message, &Fqcn::server()).unwrap();
    message
}

/// A link on which both ends showed certificates, dialed by `peer`.
pub(crate) fn link(peer: &str, common_name: &str) -> LinkFacts {
    LinkFacts {
        link: LinkId(5),
        peer: fqcn(peer),
        common_name: Some(common_name.to_owned()),
        security: LinkSecurity::Mutual,
        accepted: true,
        ours: false,
    }
}
