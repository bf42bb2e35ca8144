//! Messages encrypted end to end, between cells over links in memory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use locule_auth::CertificateLinkPolicy;
use locule_cell::{
    Cell, CellBuilder, CellConfig, HandlerError, Incoming, IncomingFilter, LinkFacts, MessageFilter, Now,
    Pass, Refusal, Reply, Request, RequestError,
};
use locule_identity::{ChainError, Cipher, Identity, OpenError, SealError, Usage};
use locule_identity_openssl::{CertificateAuthority, OpensslCipher, OpensslSigner, Subject};
use locule_message::{Fqcn, Message, Payload, ReturnCode, key};
use locule_transport::{Endpoint, Security, Transports};
use locule_transport_mem::MemTransport;

const SECOND: Duration = Duration::from_secs(1);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const PLAIN: &str = "task";
const STREAMED: &str = "test";
const BODY: &[u8] = b"what only two may read";

/// Authorities and keys that are made once.
static PROJECT: LazyLock<CertificateAuthority> = LazyLock::new(authority);
static SERVER: LazyLock<Arc<OpensslCipher>> = LazyLock::new(|| cipher(&PROJECT, "server"));
static SITE: LazyLock<Arc<OpensslCipher>> = LazyLock::new(|| cipher(&PROJECT, "site-1"));

fn authority() -> CertificateAuthority {
    CertificateAuthority::create(&Subject::new("project"), YEAR, SystemTime::now()).unwrap()
}

fn cipher(under: &CertificateAuthority, name: &str) -> Arc<OpensslCipher> {
    let now = SystemTime::now();
    let issued = under.issue(&Subject::new(name), &[], Usage::Client, YEAR, now).unwrap();
    let signer = OpensslSigner::from_pem(&issued.certificate_pem, &issued.key_pem).unwrap();
    Arc::new(OpensslCipher::new(signer, &under.certificate_pem().unwrap()).unwrap())
}

/// Links that cross a network, without certificates of their own.
fn network() -> MemTransport {
    MemTransport::new().pretending(Security::Clear)
}

fn name(text: &str) -> Fqcn {
    text.parse().unwrap()
}

fn builder(network: &MemTransport, called: &str) -> CellBuilder {
    let mut config = CellConfig::new(name(called));
    config.streams.chunk_size = 10_000;
    Cell::builder(config)
        .transports(Transports::new().with(network.clone()))
        .link_policy(Arc::new(CertificateLinkPolicy::new(name(called)).admit_without_certificate()))
}

fn secure(network: &MemTransport, called: &str, cipher: &Arc<OpensslCipher>) -> CellBuilder {
    builder(network, called).cipher(cipher.clone())
}

async fn start(server: CellBuilder, site: CellBuilder) -> (Cell, Cell) {
    let (server, site) = (server.start(), site.start());
    let at = Endpoint::parse("mem://server").unwrap();
    server.listen(&at).await.unwrap();
    site.connect(at);
    assert!(site.wait_linked(&name("server"), 5 * SECOND).await);
    (server, site)
}

async fn pair() -> (Cell, Cell) {
    let network = self::network();
    let (server, site) = start(secure(&network, "server", &SERVER), secure(&network, "site-1", &SITE)).await;
    for channel in [PLAIN, STREAMED] {
        server.handle(channel, "echo", echo);
        site.handle(channel, "echo", echo);
    }
    (server, site)
}

async fn echo(incoming: Incoming) -> Result<Reply, HandlerError> {
    let secure = incoming.secure;
    Ok(Reply::ok(incoming.into_payload()).header("was_secure", secure))
}

fn ask(channel: &str, body: impl Into<Bytes>) -> Request {
    Request::new(channel, "echo", Payload::bytes(body.into())).secure().timeout(5 * SECOND)
}

/// Sees what arrives at a cell over its links, before anything is opened.
#[derive(Default)]
struct Wire(Mutex<Vec<Message>>);

impl Wire {
    fn take(&self) -> Vec<Message> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl IncomingFilter for Wire {
    fn check(&self, _: Now, _: &LinkFacts, message: &Message) -> Result<(), Refusal> {
        self.0.lock().unwrap().push(message.clone());
        Ok(())
    }
}

fn holds(message: &Message, text: &[u8]) -> bool {
    message.body.whole().windows(text.len()).any(|window| window == text)
}

#[tokio::test(start_paused = true)]
async fn a_secure_request_and_its_reply_are_read_by_nobody_else() {
    for channel in [PLAIN, STREAMED] {
        let (network, wire) = (self::network(), Arc::new(Wire::default()));
        let (server, site) = start(
            secure(&network, "server", &SERVER).gate(wire.clone()),
            secure(&network, "site-1", &SITE).gate(wire.clone()),
        )
        .await;
        server.handle(channel, "echo", echo);
        let reply = site.request(&name("server"), ask(channel, BODY)).await.unwrap().into_ok().unwrap();
        assert_eq!(reply.payload, Payload::bytes(Bytes::from_static(BODY)));
        assert_eq!(reply.headers.bool("was_secure"), Some(true));
        assert!(!reply.headers.contains(key::ENCRYPTED));

        let seen = wire.take();
        assert!(seen.iter().all(|message| !holds(message, BODY)), "it was on the wire");
        let sealed = seen.iter().filter(|message| message.is_sealed()).count();
        assert_eq!(sealed, 2, "the request and the reply on {channel}");
        assert_eq!(seen.iter().filter(|message| message.channel() == "credential_manager").count(), 2);
        for stats in [server.stats(), site.stats()] {
            assert_eq!((stats.sealed, stats.opened, stats.unopened), (1, 1, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn either_side_may_ask_and_certificates_are_exchanged_once() {
    let (server, site) = pair().await;
    for channel in [PLAIN, STREAMED] {
        for len in [0, 1, 10_000, 123_456] {
            let body = Bytes::from(vec![7; len]);
            let reply = site.request(&name("server"), ask(channel, body.clone())).await.unwrap();
            assert_eq!(reply.into_ok().unwrap().payload.body, body);
            let reply = server.request(&name("site-1"), ask(channel, body.clone())).await.unwrap();
            assert_eq!(reply.into_ok().unwrap().payload.body, body);
        }
    }
    let exchanges = 1;
    let plain = 2 * 4 + exchanges;
    assert_eq!(site.stats().switch.requests + server.stats().switch.requests, plain);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_secure_stays_in_clear() {
    let (_server, site) = pair().await;
    for channel in [PLAIN, STREAMED] {
        let request = Request::new(channel, "echo", Payload::bytes(BODY.into()));
        let reply = site.request(&name("server"), request).await.unwrap();
        assert_eq!(reply.headers.bool("was_secure"), Some(false));
    }
    assert_eq!(site.stats().sealed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_cell_between_passes_envelopes_that_it_cannot_open() {
    let network = self::network();
    let wire = Arc::new(Wire::default());
    let (server, site) =
        start(builder(&network, "server").gate(wire.clone()), secure(&network, "site-1", &SITE)).await;
    let other = secure(&network, "site-2", &cipher(&PROJECT, "site-2")).start();
    other.connect(Endpoint::parse("mem://server").unwrap());
    assert!(other.wait_linked(&name("server"), SECOND).await);
    for channel in [PLAIN, STREAMED] {
        other.handle(channel, "echo", echo);
        let reply = site.request(&name("site-2"), ask(channel, BODY)).await.unwrap();
        assert_eq!(reply.into_ok().unwrap().payload.body, BODY);
    }
    let seen = wire.take();
    assert!(seen.iter().any(Message::is_sealed) && !seen.iter().any(|message| holds(message, BODY)));
    // it has no certificate itself
    let refused = site.request(&name("server"), ask(PLAIN, BODY)).await.unwrap_err();
    assert!(matches!(refused, RequestError::Insecure { .. }), "{refused}");
    assert_eq!(server.stats().opened, 0);
}

#[tokio::test(start_paused = true)]
async fn a_one_way_message_and_a_broadcast_are_sealed_too() {
    let (server, site) = pair().await;
    let (noted, mut notes) = tokio::sync::mpsc::unbounded_channel();
    for channel in [PLAIN, STREAMED] {
        let noted = noted.clone();
        server.handle(channel, "note", move |incoming: Incoming| {
            noted.send((incoming.secure, incoming.into_payload().body.whole())).unwrap();
            async { Ok(Reply::ok(Payload::none())) }
        });
        let notice = Request::new(channel, "note", Payload::bytes(BODY.into())).secure();
        site.notify(&name("server"), notice).await.unwrap();
        assert_eq!(notes.recv().await.unwrap(), (true, Bytes::from_static(BODY)));
        let outcomes = server.broadcast(&[name("site-1"), name("site-9")], ask(channel, BODY)).await;
        assert_eq!(outcomes[0].1.as_ref().unwrap().payload.body, BODY);
        assert_eq!(outcomes[1].1.as_ref().unwrap_err(), &RequestError::Unreachable);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_cipher_nothing_secure_is_sent_and_none_is_taken() {
    let network = self::network();
    let (_server, site) = start(secure(&network, "server", &SERVER), builder(&network, "site-1")).await;
    for channel in [PLAIN, STREAMED] {
        let refused = site.request(&name("server"), ask(channel, BODY)).await.unwrap_err();
        assert!(matches!(refused, RequestError::Insecure { .. }), "{refused}");
        let notice = Request::new(channel, "note", Payload::none()).secure();
        assert!(matches!(site.notify(&name("server"), notice).await, Err(RequestError::Insecure { .. })));
    }
    // one that says it is sealed
    let forged = Request { headers: sealed_headers(5), ..ask(PLAIN, vec![1; 600]) };
    let network = self::network();
    let (server, plain) = start(builder(&network, "server"), builder(&network, "site-2")).await;
    let reply = raw(&plain, forged).await.unwrap();
    assert_eq!(reply.code, ReturnCode::InvalidRequest);
    assert_eq!(server.stats().unopened, 1);
}

/// Sends what says that it is an envelope as it is, which no cell of ours does: a stamp says so last.
async fn raw(cell: &Cell, request: Request) -> Result<Reply, RequestError> {
    let (headers, mut request) = (request.headers.clone(), request);
    request.secure = false;
    cell.add_stamp(Arc::new(Says(headers)));
    cell.request(&name("server"), request).await
}

struct Says(locule_message::Headers);

impl locule_cell::OutgoingFilter for Says {
    fn stamp(&self, _: Now, message: &mut Message, _: &Fqcn) -> Result<(), Refusal> {
        if message.channel() != "credential_manager" {
            for header in self.0.keys() {
                message.headers.set(header, self.0.get(header).unwrap());
            }
        }
        Ok(())
    }
}

fn sealed_headers(clear_len: u64) -> locule_message::Headers {
    let mut headers = locule_message::Headers::new();
    headers.set(key::SECURE, true);
    headers.set(key::ENCRYPTED, true);
    headers.set(key::CLEAR_PAYLOAD_LEN, clear_len);
    headers
}

/// An envelope of the site's for the server.
fn envelope() -> Bytes {
    let to = SITE.identify(SERVER.certificate_pem(), SystemTime::now()).unwrap();
    SITE.seal(&to, BODY).unwrap().into()
}

#[tokio::test(start_paused = true)]
async fn envelopes_that_are_cut_altered_or_of_another_length_are_refused_and_counted() {
    let whole = envelope();
    let mut altered = whole.to_vec();
    altered[540] ^= 1;
    let announced = BODY.len() as u64;
    let cases = [
        (whole.slice(..540), announced, "cut short"),
        (whole.slice(..whole.len() - 1), announced, "not signed"),
        (altered.into(), announced, "not signed"),
        (whole.clone(), announced + 1, "announced"),
    ];
    for (body, announced, said) in cases {
        let (server, site) = pair().await;
        let request = Request { headers: sealed_headers(announced), ..ask(PLAIN, body) };
        let reply = raw(&site, request).await.unwrap();
        assert_eq!(reply.code, ReturnCode::InvalidRequest);
        assert!(reply.error.as_deref().unwrap().contains(said), "{:?}", reply.error);
        assert_eq!(server.stats().unopened, 1);
    }
    let (server, site) = pair().await;
    let request = Request { headers: sealed_headers(announced), ..ask(PLAIN, whole) };
    // the reply is sealed, though this cell does not know that it asked for that
    assert!(matches!(raw(&site, request).await, Err(RequestError::Insecure { .. })));
    assert_eq!(server.stats().opened, 1);
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_cannot_be_opened_ends_its_stream_with_the_reason() {
    let (server, site) = pair().await;
    let request = Request { headers: sealed_headers(3), ..ask(STREAMED, vec![0; 700]) };
    let reply = raw(&site, request).await.unwrap();
    assert_eq!(reply.code, ReturnCode::InvalidRequest);
    assert_eq!(server.stats().unopened, 1);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_another_name_or_project_is_not_taken() {
    for stranger in [cipher(&PROJECT, "site-2"), cipher(&authority(), "site-1")] {
        let network = self::network();
        let (server, site) =
            start(secure(&network, "server", &SERVER), secure(&network, "site-1", &stranger)).await;
        server.handle(PLAIN, "echo", echo);
        site.handle(PLAIN, "echo", echo);
        for channel in [PLAIN, STREAMED] {
            // it may have been given the server's certificate by then; the server opens nothing of it
            let refused = site.request(&name("server"), ask(channel, BODY)).await;
            assert!(refused.and_then(Reply::into_ok).is_err());
            let refused = server.request(&name("site-1"), ask(channel, BODY)).await.unwrap_err();
            assert!(matches!(refused, RequestError::Insecure { .. }), "{refused}");
        }
        assert_eq!((server.stats().sealed, server.stats().opened, site.stats().opened), (0, 0, 0));
    }
}

/// Says in clear what its cell would have sealed, as somebody on the way may.
struct Unseals;

impl locule_cell::OutgoingFilter for Unseals {
    fn stamp(&self, _: Now, message: &mut Message, _: &Fqcn) -> Result<(), Refusal> {
        if message.headers.remove(key::ENCRYPTED) {
            let len = message.headers.u64(key::CLEAR_PAYLOAD_LEN).unwrap();
            message.body = vec![b'x'; usize::try_from(len).unwrap()].into();
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_in_clear_to_a_secure_request_is_not_taken() {
    let (server, site) = pair().await;
    server.add_stamp(Arc::new(Unseals));
    for channel in [PLAIN, STREAMED] {
        let refused = site.request(&name("server"), ask(channel, BODY)).await.unwrap_err();
        assert!(matches!(refused, RequestError::Insecure { .. }), "{refused}");
        // that it has no handler any cell may say, without a body
        let request = Request { topic: "nothing".to_owned(), ..ask(channel, BODY) };
        let said = site.request(&name("server"), request).await;
        assert!(said.and_then(Reply::into_ok).is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_certificate_ends_in_time() {
    let network = self::network();
    let (_server, site) = start(secure(&network, "server", &SERVER), secure(&network, "site-1", &SITE)).await;
    network.faults().hold();
    for channel in [PLAIN, STREAMED] {
        let begun = tokio::time::Instant::now();
        let late = site.request(&name("server"), ask(channel, BODY).timeout(2 * SECOND)).await;
        assert_eq!(late.unwrap_err(), RequestError::Timeout);
        assert!(begun.elapsed() < 3 * SECOND, "{:?}", begun.elapsed());
    }
}

/// Marks what it can read.
struct Mark(&'static str);

impl MessageFilter for Mark {
    fn apply(&self, _: Now, message: &mut Message) -> Result<(), Refusal> {
        if message.channel() == "credential_manager" {
            return Ok(());
        }
        let body = [&message.body.whole()[..], self.0.as_bytes()].concat();
        message.set_payload(Payload::bytes(body.into()));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn filters_see_secure_messages_in_clear() {
    let network = self::network();
    let marked = |cell: CellBuilder, passes: [(Pass, &'static str); 2]| {
        passes.into_iter().fold(cell, |cell, (pass, mark)| cell.filter(pass, "*", "*", Arc::new(Mark(mark))))
    };
    let (server, site) = start(
        marked(
            secure(&network, "server", &SERVER),
            [(Pass::IncomingRequest, "b"), (Pass::OutgoingReply, "c")],
        ),
        marked(secure(&network, "site-1", &SITE), [(Pass::OutgoingRequest, "a"), (Pass::IncomingReply, "d")]),
    )
    .await;
    server.handle(PLAIN, "echo", echo);
    let reply = site.request(&name("server"), ask(PLAIN, "-")).await.unwrap();
    assert_eq!(reply.payload.body, "-abcd");
}

/// Counts how many work at a time, and waits until as many do as may.
#[derive(Debug)]
struct Counted {
    inner: Arc<OpensslCipher>,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Counted {
    fn count<T>(&self, work: impl FnOnce() -> T) -> T {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let done = work();
        self.now.fetch_sub(1, Ordering::SeqCst);
        done
    }
}

impl Cipher for Counted {
    fn certificate_pem(&self) -> &[u8] {
        self.inner.certificate_pem()
    }

    fn root_pem(&self) -> &[u8] {
        self.inner.root_pem()
    }

    fn identify(&self, chain: &[u8], now: SystemTime) -> Result<Identity, ChainError> {
        self.count(|| self.inner.identify(chain, now))
    }

    fn seal(&self, to: &Identity, clear: &[u8]) -> Result<Vec<u8>, SealError> {
        self.count(|| self.inner.seal(to, clear))
    }

    fn open(&self, from: &Identity, envelope: &[u8]) -> Result<Vec<u8>, OpenError> {
        self.count(|| self.inner.open(from, envelope))
    }
}

#[tokio::test(start_paused = true)]
async fn many_at_a_time_make_no_more_work_than_allowed() {
    let network = self::network();
    let counted =
        Arc::new(Counted { inner: SERVER.clone(), now: AtomicUsize::new(0), most: AtomicUsize::new(0) });
    let mut config = CellConfig::new(name("server"));
    config.max_sealing = 2;
    let server =
        Cell::builder(config).transports(Transports::new().with(network.clone())).cipher(counted.clone());
    let (server, site) = start(server, secure(&network, "site-1", &SITE)).await;
    for channel in [PLAIN, STREAMED] {
        server.handle(channel, "echo", echo);
        let asked = (0..100).map(|at| {
            let site = site.clone();
            async move {
                let body = Bytes::from(vec![at; 25_000]);
                let reply = site.request(&name("server"), ask(channel, body.clone())).await.unwrap();
                assert_eq!(reply.into_ok().unwrap().payload.body, body);
            }
        });
        futures_util::future::join_all(asked).await;
    }
    assert!(counted.most.load(Ordering::SeqCst) <= 2);
    site.shutdown(SECOND).await;
    server.shutdown(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_stops_seals_the_replies_of_its_handlers_first() {
    let (server, site) = pair().await;
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let go = Arc::new(tokio::sync::Notify::new());
    let waits = go.clone();
    server.handle(PLAIN, "slow", move |incoming: Incoming| {
        let (begun, go) = (begun.clone(), waits.clone());
        async move {
            begun.send(()).unwrap();
            go.notified().await;
            Ok(Reply::ok(incoming.into_payload()))
        }
    });
    let asking = site.clone();
    let asked = tokio::spawn(async move {
        let request = Request { topic: "slow".to_owned(), ..ask(PLAIN, BODY) };
        asking.request(&name("server"), request).await
    });
    tokio::time::timeout(SECOND, begins.recv()).await.unwrap().unwrap();
    let stopping = tokio::spawn(async move { server.shutdown(10 * SECOND).await });
    tokio::task::yield_now().await;
    go.notify_one();
    assert_eq!(asked.await.unwrap().unwrap().payload.body, BODY);
    stopping.await.unwrap();
}
