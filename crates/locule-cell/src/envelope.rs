//! Messages that are sealed for one cell, and what it takes to seal and open them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use locule_fobs::{Map, Value, decode, encode};
use locule_identity::{ChainError, Cipher, Identity, OpenError, SealError};
use locule_message::{Body, Fqcn, Headers, Message, Payload, ReturnCode, key};
use locule_stream::{Notice, StreamId};
use locule_switch::{
    Delivery, LinkPolicy, Now, Refusal, Reply, ReplyTo, Request, RequestError, RequestId, Settled, Switch,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::{JoinError, JoinSet};

use crate::driver::Outcomes;
use crate::link::LinkContext;
use crate::stats::Counters;

/// Channel and topic by which cells give each other their certificates, always as plain messages in clear.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.cellnet.core_cell`, `nvflare.fuel.f3.cellnet.credential_manager`.
const EXCHANGE: (&str, &str) = ("credential_manager", "key_exchange");
const CERTIFICATE: &str = "cert_content";
const ROOT: &str = "cert_ca_content";
const REFUSED: &str = "cert_error";

/// How long a peer has for its certificate.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest message of an exchange, in bytes.
const MAX_EXCHANGE_LEN: usize = 160 << 10;
/// Peers whose certificates are remembered.
const MAX_KNOWN: usize = 4096;

/// What is to be sealed before it goes on, or opened.
pub(crate) enum Letter {
    Request { token: u64, target: Fqcn, request: Request, outcomes: Outcomes, deadline: Instant },
    Notice { target: Fqcn, notice: Request, outcome: oneshot::Sender<Result<(), RequestError>> },
    Reply { to: ReplyTo, reply: Reply },
    Chunk { stream: StreamId, notice: Notice },
    Delivery(Delivery),
    Settled(Settled),
}

/// What came of letters, for the driver to act upon.
pub(crate) enum Treated {
    Letter(Letter, Result<Bytes, Failure>),
    Answer(ReplyTo, Reply),
}

/// Why a letter is not sealed or opened.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("this cell has no cipher")]
    NoCipher,
    #[error("too many messages are being sealed and opened")]
    Overloaded,
    #[error("no certificate of the peer: {0}")]
    NoCertificate(String),
    #[error("no certificate of the peer: {0}")]
    Unanswered(#[from] RequestError),
    #[error("not in time")]
    Late,
    #[error("{0}")]
    Seal(Arc<SealError>),
    #[error("{0}")]
    Open(#[from] OpenError),
    #[error("envelope holds {found} bytes instead of those announced")]
    Length { found: usize },
}

/// Seals and opens, a bounded number of messages at a time and none of them in the driver's task.
///
/// A letter whose peer's certificate is not known waits for it, others go on meanwhile; so the order of
/// letters is not kept.
pub(crate) struct Envelopes {
    cipher: Option<Arc<dyn Cipher>>,
    policy: Option<Arc<dyn LinkPolicy>>,
    context: Arc<LinkContext>,
    known: HashMap<Fqcn, Arc<Identity>>,
    known_in_order: VecDeque<Fqcn>,
    /// Exchanges under way, and what waits for them.
    asked: HashMap<RequestId, Fqcn>,
    wanting: HashMap<Fqcn, Vec<Letter>>,
    ready: VecDeque<Job>,
    at_work: JoinSet<Done>,
    /// How much is in any of these, and its bytes.
    letters: usize,
    bytes: usize,
    pub(crate) panics: u64,
}

/// Something for the blocking pool.
enum Job {
    /// With the credit for a letter that came by a link: no more is read from it than can be opened.
    Treat(Letter, Arc<Identity>, Option<OwnedSemaphorePermit>),
    Identify {
        peer: Fqcn,
        chain: Bytes,
        asker: Option<ReplyTo>,
    },
}

pub(crate) enum Done {
    Treated(Letter, Result<Bytes, Failure>),
    Identified { peer: Fqcn, bytes: usize, identity: Result<Identity, ChainError>, asker: Option<ReplyTo> },
}

impl Envelopes {
    pub(crate) fn new(
        cipher: Option<Arc<dyn Cipher>>,
        policy: Option<Arc<dyn LinkPolicy>>,
        context: Arc<LinkContext>,
    ) -> Self {
        Self {
            cipher,
            policy,
            context,
            known: HashMap::new(),
            known_in_order: VecDeque::new(),
            asked: HashMap::new(),
            wanting: HashMap::new(),
            ready: VecDeque::new(),
            at_work: JoinSet::new(),
            letters: 0,
            bytes: 0,
            panics: 0,
        }
    }

    /// Takes a letter up. It comes back by [`finish`](Self::finish), [`settle`](Self::settle) or
    /// [`expire`](Self::expire), or at once when it cannot be taken.
    pub(crate) fn submit(
        &mut self,
        now: Now,
        switch: &mut Switch,
        letter: Letter,
        credit: Option<OwnedSemaphorePermit>,
    ) -> Option<Treated> {
        let Some(cipher) = &self.cipher else { return Some(self.fail(letter, Failure::NoCipher)) };
        let (cipher, bytes) = (cipher.clone(), letter.body().len());
        if !self.has_place(bytes) {
            return Some(self.fail(letter, Failure::Overloaded));
        }
        self.letters += 1;
        self.bytes += bytes;
        let peer = letter.peer().clone();
        if let Some(identity) = self.identity(&peer, now.wall) {
            self.ready.push_back(Job::Treat(letter, identity, credit));
            self.work();
            return None;
        }
        if !self.wanting.contains_key(&peer) {
            let request = Request::new(EXCHANGE.0, EXCHANGE.1, ours(&*cipher)).timeout(EXCHANGE_TIMEOUT);
            let asked = switch.request(now, std::slice::from_ref(&peer), request);
            self.asked.insert(asked, peer.clone());
        }
        // its link's credit goes: the certificate may come by that very link
        self.wanting.entry(peer).or_default().push(letter);
        None
    }

    /// Whether another chunk for `target` may be taken up; no more of a stream waits here than it takes to
    /// keep busy.
    pub(crate) fn has_room(&self, target: &Fqcn) -> bool {
        !self.wanting.contains_key(target) && self.ready.len() + self.at_work.len() < 2 * self.max_at_work()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.letters == 0 && self.ready.is_empty() && self.at_work.is_empty()
    }

    /// Waits until a job is done; `None` while there is none.
    pub(crate) async fn done(&mut self) -> Option<Result<Done, JoinError>> {
        self.at_work.join_next().await
    }

    pub(crate) fn finish(&mut self, done: Result<Done, JoinError>) -> Vec<Treated> {
        let treated = match done {
            Ok(Done::Treated(letter, result)) => vec![self.treated(letter, result)],
            Ok(Done::Identified { peer, bytes, identity, asker }) => {
                self.release(bytes);
                let judged = identity.map_err(|error| error.to_string());
                let judged = judged.and_then(|identity| match &self.policy {
                    Some(policy) => {
                        let admitted = policy.admit_certificate(&peer, &identity.common_name);
                        admitted.map(|()| identity).map_err(|refusal| refusal.reason)
                    }
                    None => Ok(identity),
                });
                self.identified(&peer, judged, asker)
            }
            Err(error) => {
                // what it had in hand is lost with it: whoever waits for it hears of its deadline
                self.panics += u64::from(error.is_panic());
                tracing::error!(%error, "cipher panicked");
                Vec::new()
            }
        };
        self.work();
        treated
    }

    /// Whether a request is one of our own for a certificate.
    pub(crate) fn has_asked(&self, request: RequestId) -> bool {
        self.asked.contains_key(&request)
    }

    /// Such a request has ended.
    pub(crate) fn settle(&mut self, settled: Settled) -> Vec<Treated> {
        let Some(peer) = self.asked.remove(&settled.request) else { return Vec::new() };
        let failure = match settled.outcome {
            Ok(reply) => match certificate_of(&reply.payload) {
                Ok(chain) => {
                    self.identify(peer, chain, None);
                    return Vec::new();
                }
                Err(reason) => {
                    let said = reply.error.map_or(reason, |error| excerpt(&error));
                    Failure::NoCertificate(format!("{}: {said}", reply.code))
                }
            },
            Err(error) => Failure::Unanswered(error),
        };
        self.give_up(&peer, &failure)
    }

    /// A peer asks for our certificate, and gives its own.
    pub(crate) fn asked(&mut self, switch: &Switch, delivery: Delivery) -> Option<Treated> {
        let Delivery { origin, message, reply_to, .. } = delivery;
        let to = reply_to?;
        if self.cipher.is_none() {
            let mut said = Map::new();
            said.insert(REFUSED, format!("{} has no certificate for messages", switch.name()));
            return Some(Treated::Answer(to, Reply::ok(fobs(said))));
        }
        if !self.has_place(message.body.len()) {
            let busy = Reply::error(ReturnCode::ServiceUnavailable, "too many requests");
            return Some(Treated::Answer(to, busy));
        }
        match certificate_of(&message.payload()) {
            Ok(chain) => {
                self.identify(origin, chain, Some(to));
                None
            }
            Err(reason) => Some(Treated::Answer(to, Reply::error(ReturnCode::InvalidRequest, reason))),
        }
    }

    /// When to call [`expire`](Self::expire) at the latest.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.wanting.values().flatten().filter_map(Letter::deadline).min()
    }

    /// Gives up requests that wait for a certificate and have no time left.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Treated> {
        let mut late = Vec::new();
        for letters in self.wanting.values_mut() {
            let is_late = |letter: &mut Letter| letter.deadline().is_some_and(|at| at <= now);
            late.extend(letters.extract_if(.., is_late));
        }
        late.into_iter().map(|letter| self.treated(letter, Err(Failure::Late))).collect()
    }

    /// Drops everything.
    pub(crate) fn close(&mut self) {
        self.asked.clear();
        self.wanting.clear();
        self.ready.clear();
        self.at_work.detach_all();
        (self.letters, self.bytes) = (0, 0);
    }

    fn identified(
        &mut self,
        peer: &Fqcn,
        judged: Result<Identity, String>,
        asker: Option<ReplyTo>,
    ) -> Vec<Treated> {
        let reason = match judged {
            Ok(identity) => {
                let identity = self.remember(peer, identity);
                for letter in self.wanting.remove(peer).unwrap_or_default() {
                    self.ready.push_back(Job::Treat(letter, identity.clone(), None));
                }
                let given = self.cipher.as_deref().map_or_else(Payload::none, ours);
                return asker.map(|to| Treated::Answer(to, Reply::ok(given))).into_iter().collect();
            }
            Err(reason) => reason,
        };
        tracing::debug!(%peer, reason, "certificate refused");
        match asker {
            Some(to) => vec![Treated::Answer(to, Reply::error(ReturnCode::Unauthenticated, reason))],
            None => self.give_up(peer, &Failure::NoCertificate(reason)),
        }
    }

    fn give_up(&mut self, peer: &Fqcn, failure: &Failure) -> Vec<Treated> {
        let letters = self.wanting.remove(peer).unwrap_or_default();
        letters.into_iter().map(|letter| self.treated(letter, Err(failure.clone()))).collect()
    }

    /// A letter that was taken up is done with.
    fn treated(&mut self, letter: Letter, result: Result<Bytes, Failure>) -> Treated {
        self.release(letter.body().len());
        if matches!(result, Err(Failure::Open(OpenError::Signature))) {
            // the peer may have another certificate by now
            self.known.remove(letter.peer());
        }
        match result {
            Ok(body) => {
                let Counters { sealed, opened, .. } = &self.context.counters;
                Counters::add(if letter.is_incoming() { opened } else { sealed }, 1);
                Treated::Letter(letter, Ok(body))
            }
            Err(failure) => self.fail(letter, failure),
        }
    }

    fn fail(&mut self, letter: Letter, failure: Failure) -> Treated {
        if letter.is_incoming() {
            Counters::add(&self.context.counters.unopened, 1);
        }
        Treated::Letter(letter, Err(failure))
    }

    fn identity(&self, peer: &Fqcn, now: SystemTime) -> Option<Arc<Identity>> {
        self.known.get(peer).filter(|identity| identity.not_after >= now).cloned()
    }

    fn remember(&mut self, peer: &Fqcn, identity: Identity) -> Arc<Identity> {
        let identity = Arc::new(identity);
        self.known.insert(peer.clone(), identity.clone());
        self.known_in_order.retain(|known| known != peer);
        self.known_in_order.push_back(peer.clone());
        if self.known_in_order.len() > MAX_KNOWN
            && let Some(oldest) = self.known_in_order.pop_front()
        {
            self.known.remove(&oldest);
        }
        identity
    }

    fn identify(&mut self, peer: Fqcn, chain: Bytes, asker: Option<ReplyTo>) {
        self.letters += 1;
        self.bytes += chain.len();
        self.ready.push_back(Job::Identify { peer, chain, asker });
        self.work();
    }

    /// Whether something more may be held. One message is always taken, however large.
    fn has_place(&self, bytes: usize) -> bool {
        let config = &self.context.config;
        self.letters < config.max_waiting
            && (self.letters == 0 || self.bytes + bytes <= config.max_waiting_bytes)
    }

    fn max_at_work(&self) -> usize {
        self.context.config.max_sealing.max(1)
    }

    fn release(&mut self, bytes: usize) {
        self.letters = self.letters.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Puts jobs to work as far as there is room.
    fn work(&mut self) {
        let Some(cipher) = &self.cipher else { return };
        while self.at_work.len() < self.max_at_work()
            && let Some(job) = self.ready.pop_front()
        {
            let cipher = cipher.clone();
            self.at_work.spawn_blocking(move || job.run(&*cipher));
        }
    }
}

impl Job {
    fn run(self, cipher: &dyn Cipher) -> Done {
        match self {
            Self::Treat(letter, identity, _credit) => {
                let body = &letter.body().whole();
                let result = match letter.announced() {
                    Some(announced) => {
                        cipher.open(&identity, body).map_err(Failure::Open).and_then(|clear| {
                            let whole = announced == Some(clear.len() as u64);
                            if whole { Ok(clear) } else { Err(Failure::Length { found: clear.len() }) }
                        })
                    }
                    None => cipher.seal(&identity, body).map_err(|error| Failure::Seal(Arc::new(error))),
                };
                Done::Treated(letter, result.map(Bytes::from))
            }
            Self::Identify { peer, chain, asker } => {
                let identity = cipher.identify(&chain, SystemTime::now());
                Done::Identified { peer, bytes: chain.len(), identity, asker }
            }
        }
    }
}

impl Letter {
    /// Whose certificate it takes.
    fn peer(&self) -> &Fqcn {
        match self {
            Self::Request { target, .. } | Self::Notice { target, .. } => target,
            Self::Reply { to, .. } => to.origin(),
            Self::Chunk { notice, .. } => &notice.target,
            Self::Delivery(delivery) => &delivery.origin,
            Self::Settled(settled) => &settled.target,
        }
    }

    fn body(&self) -> &Body {
        static NOTHING: Body = Body::new();
        match self {
            Self::Request { request, .. } | Self::Notice { notice: request, .. } => &request.payload.body,
            Self::Reply { reply, .. } => &reply.payload.body,
            Self::Chunk { notice, .. } => &notice.payload.body,
            Self::Delivery(delivery) => &delivery.message.body,
            Self::Settled(settled) => settled.outcome.as_ref().map_or(&NOTHING, |reply| &reply.payload.body),
        }
    }

    /// The length that an envelope says that its content has; `None` for what is not in one yet.
    fn announced(&self) -> Option<Option<u64>> {
        let headers = match self {
            Self::Request { .. } | Self::Notice { .. } | Self::Reply { .. } | Self::Chunk { .. } => {
                return None;
            }
            Self::Delivery(delivery) => &delivery.message.headers,
            Self::Settled(settled) => match &settled.outcome {
                Ok(reply) => &reply.headers,
                Err(_) => return Some(None),
            },
        };
        Some(headers.u64(key::CLEAR_PAYLOAD_LEN))
    }

    fn is_incoming(&self) -> bool {
        self.announced().is_some()
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Request { deadline, .. } => Some(*deadline),
            Self::Notice { .. }
            | Self::Reply { .. }
            | Self::Chunk { .. }
            | Self::Delivery(_)
            | Self::Settled(_) => None,
        }
    }
}

impl From<Failure> for RequestError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Overloaded => Self::Overloaded,
            Failure::Late => Self::Timeout,
            Failure::Unanswered(error) => error,
            Failure::NoCipher
            | Failure::NoCertificate(_)
            | Failure::Seal(_)
            | Failure::Open(_)
            | Failure::Length { .. } => Self::Insecure { reason: failure.to_string() },
        }
    }
}

impl From<Failure> for Refusal {
    /// What the sender of a message that was not opened hears.
    fn from(failure: Failure) -> Self {
        let code = match failure {
            Failure::Overloaded | Failure::Late | Failure::Unanswered(_) => ReturnCode::ServiceUnavailable,
            Failure::NoCipher
            | Failure::NoCertificate(_)
            | Failure::Seal(_)
            | Failure::Open(_)
            | Failure::Length { .. } => ReturnCode::InvalidRequest,
        };
        Self::new(code, failure.to_string())
    }
}

pub(crate) fn is_exchange(message: &Message) -> bool {
    (message.channel(), message.topic()) == EXCHANGE
}

/// Puts the envelope in place of what is in it. That it is to be one, the switch writes down itself.
pub(crate) fn enclose(headers: &mut Headers, payload: &mut Payload, envelope: Bytes) {
    headers.set(key::ENCRYPTED, true);
    headers.set(key::CLEAR_PAYLOAD_LEN, payload.body.len() as u64);
    payload.body = envelope.into();
}

/// Puts what is in an envelope in its place. That it came in one, `cn__secure` still says.
pub(crate) fn disclose(headers: &mut Headers, clear: &Bytes) {
    headers.remove(key::ENCRYPTED);
    headers.remove(key::CLEAR_PAYLOAD_LEN);
    headers.set(key::PAYLOAD_LEN, clear.len() as u64);
}

/// What a cell gives of itself.
fn ours(cipher: &dyn Cipher) -> Payload {
    let mut said = Map::new();
    said.insert(CERTIFICATE, Bytes::copy_from_slice(cipher.certificate_pem()));
    said.insert(ROOT, Bytes::copy_from_slice(cipher.root_pem()));
    fobs(said)
}

fn fobs(said: Map) -> Payload {
    encode(&Value::from(said)).map_or_else(|_| Payload::none(), Payload::fobs)
}

/// The chain that a message of an exchange gives, or what is wrong with it.
fn certificate_of(payload: &Payload) -> Result<Bytes, String> {
    if payload.body.len() > MAX_EXCHANGE_LEN {
        return Err("it is too long".to_owned());
    }
    let said = decode(payload.body.whole()).map_err(|_| "it says nothing".to_owned())?;
    let said = said.as_map().ok_or("it says nothing")?;
    if let Some(error) = said.str(REFUSED) {
        return Err(excerpt(error));
    }
    match said.get(CERTIFICATE) {
        Some(Value::Bytes(chain)) => Ok(chain.clone()),
        Some(_) | None => Err("it holds no certificate".to_owned()),
    }
}

/// A peer's text as it may stand in an error: short and escaped.
fn excerpt(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}
