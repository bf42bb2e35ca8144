//! Links against raw clients of a real broker: what a peer does that nobody should, and what a broker does to links.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::poll_fn;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::{Client, Message, StatusCode, Subscriber};
use broker::Broker;
use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use locule_transport::{DialError, Endpoint, Link, LinkError, ListenError, Listener, OutFrame, Transport};
use locule_transport_nats::{Login, NatsTransport};
use tokio::time::timeout;

const WINDOW: u64 = 2 << 20;
const PIECE_COST: u64 = 512;
/// How long a writer must make no progress to count as stalled.
const STALLED: Duration = Duration::from_millis(500);
/// Longer than anything here takes on a busy machine, and shorter than any patience with the silent.
const SOON: Duration = Duration::from_secs(15);

fn shared() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| Broker::start().unwrap())
}

/// A listener's name that nobody else uses.
fn name() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn at(broker: &Broker, name: &str) -> Endpoint {
    Endpoint::parse(&format!("nats://{}/{name}", broker.authority())).unwrap()
}

fn frame(len: usize) -> OutFrame {
    OutFrame::new(u32::try_from(len).unwrap().to_be_bytes().to_vec(), vec![7; len - 4])
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(SOON, what).await.expect("it happens soon")
}

/// Waits for the error that ends a link.
async fn error_of(link: &mut Link) -> LinkError {
    soon(async {
        loop {
            match link.incoming.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => panic!("an end in order"),
            }
        }
    })
    .await
}

fn message(kind: u8, number: u64, allowance: u64, bytes: &[u8]) -> Bytes {
    [&[kind][..], &number.to_be_bytes(), &allowance.to_be_bytes(), bytes].concat().into()
}

fn number_of(message: &Message) -> (u8, u64, u64) {
    let number = |at: usize| u64::from_be_bytes(*message.payload[at..].first_chunk().unwrap());
    (message.payload[0], number(1), number(9))
}

/// A raw client of the broker that has dialled, and the link that the listener made of it.
struct Raw {
    client: Client,
    incoming: Subscriber,
    peer: String,
    listener: Box<dyn Listener>,
    link: Link,
}

impl Raw {
    async fn dial(allowance: u64) -> Self {
        let name = name();
        let mut listener = NatsTransport::clear().listen(&at(shared(), &name)).await.unwrap();
        let client = async_nats::connect(shared().authority()).await.unwrap();
        let own = format!("locule.{name}.link.{:032x}", 1);
        let mut incoming = client.subscribe(own.clone()).await.unwrap();
        client.publish_with_reply(format!("locule.{name}.dial"), own, "locule/1 dial".into()).await.unwrap();
        let answer = soon(incoming.next()).await.unwrap();
        assert_eq!(answer.payload, "locule/1 here");
        let peer = answer.reply.unwrap().to_string();
        client.publish(peer.clone(), message(1, 0, allowance, &[])).await.unwrap();
        let link = soon(listener.accept()).await.unwrap();
        let first = soon(incoming.next()).await.unwrap();
        assert_eq!(number_of(&first), (1, 0, WINDOW), "what it may send");
        Self { client, incoming, peer, listener, link }
    }

    async fn say(&self, message: Bytes) {
        self.client.publish(self.peer.clone(), message).await.unwrap();
    }

    /// The next message with bytes.
    async fn piece(&mut self) -> Message {
        loop {
            let message = self.incoming.next().await.unwrap();
            if message.payload[0] == 0 {
                return message;
            }
        }
    }
}

#[tokio::test]
async fn a_raw_dialer_that_keeps_to_the_protocol_gets_a_link() {
    let mut raw = Raw::dial(WINDOW).await;
    let sent = frame(100).into_bytes();
    raw.say(message(0, 0, WINDOW, &sent[..50])).await;
    raw.say(message(0, 1, WINDOW, &sent[50..])).await;
    assert_eq!(raw.link.incoming.next().await.unwrap().unwrap(), sent);
    raw.link.outgoing.send(frame(20)).await.unwrap();
    let heard = raw.piece().await;
    assert_eq!(number_of(&heard).0, 0);
    assert_eq!(heard.payload[17..], frame(20).into_bytes());
    raw.say(message(2, 2, WINDOW, &[])).await;
    assert!(raw.link.incoming.next().await.is_none(), "an end in order");
    raw.link.outgoing.close().await.unwrap();
}

#[tokio::test]
async fn a_message_that_is_lost_ends_the_link() {
    let mut raw = Raw::dial(WINDOW).await;
    raw.say(message(0, 0, WINDOW, &frame(20).into_bytes())).await;
    raw.say(message(0, 2, WINDOW, &frame(20).into_bytes())).await;
    let error = error_of(&mut raw.link).await;
    let LinkError::Broken { source } = error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "messages were lost at the broker: number 1 was due, and 2 came");
    assert!(raw.link.outgoing.send(frame(20)).await.is_err());
    // The last one is missed when its sender says that it is still there.
    let mut raw = Raw::dial(WINDOW).await;
    raw.say(message(1, 1, WINDOW, &[])).await;
    assert!(matches!(error_of(&mut raw.link).await, LinkError::Broken { .. }));
}

#[tokio::test]
async fn a_peer_that_never_reads_is_sent_what_it_allowed_and_holds_up_nobody_else() {
    let mut raw = Raw::dial(WINDOW).await;
    let mut taken = 0;
    while let Ok(ready) = timeout(STALLED, poll_fn(|cx| raw.link.outgoing.poll_ready_unpin(cx))).await {
        ready.unwrap();
        raw.link.outgoing.start_send_unpin(frame(65_536)).unwrap();
        taken += 1;
        assert!(taken < 100, "6 MiB were taken that nobody reads");
    }
    let (mut cost, mut bytes) = (0, 0);
    while let Some(Some(heard)) = raw.incoming.next().now_or_never() {
        if number_of(&heard).0 == 0 {
            bytes += heard.payload.len() as u64 - 17;
            cost += heard.payload.len() as u64 - 17 + PIECE_COST;
        }
    }
    assert!(cost <= WINDOW && bytes > WINDOW / 2, "{cost} {bytes}");

    let local = raw.listener.local();
    let mut other = soon(NatsTransport::clear().dial(&local)).await.unwrap();
    let mut far = soon(raw.listener.accept()).await.unwrap();
    other.outgoing.send(frame(1 << 20)).await.unwrap();
    assert_eq!(soon(far.incoming.next()).await.unwrap().unwrap().len(), 1 << 20);
}

#[tokio::test]
async fn a_peer_that_reads_a_little_gets_a_little() {
    let mut raw = Raw::dial(0).await;
    raw.link.outgoing.send(frame(1000)).await.unwrap();
    let mut heard = Vec::new();
    for bytes in 1..=10 {
        raw.say(message(1, 0, (PIECE_COST + 1) * bytes, &[])).await;
        let piece = soon(raw.piece()).await;
        assert_eq!((number_of(&piece).1, piece.payload.len()), (bytes - 1, 18), "one byte at a time");
        heard.push(piece.payload[17]);
    }
    assert_eq!(heard, frame(1000).into_bytes()[..10]);
}

#[tokio::test]
async fn who_sends_more_than_it_may_is_given_up_at_the_window() {
    let mut raw = Raw::dial(WINDOW).await;
    let piece = vec![0; 1000];
    let fits = WINDOW / (1000 + PIECE_COST);
    // What lies on the way to the owner has been passed on already.
    for number in 0..fits + 200 {
        raw.say(message(0, number, WINDOW, &piece)).await;
    }
    raw.client.flush().await.unwrap();
    // The owner has not read so far.
    let gone = async { while number_of(&raw.incoming.next().await.unwrap()).0 != 3 {} };
    soon(gone).await;
    assert!(matches!(error_of(&mut raw.link).await, LinkError::Broken { .. } | LinkError::Protocol { .. }));
}

#[tokio::test]
async fn garbage_ends_the_link() {
    let too_long = message(0, 0, WINDOW, &vec![0; (64 << 10) + 1]);
    let garbage =
        [&b"?"[..], b"", &message(4, 0, 0, b""), &message(0, 0, 0, b""), &message(1, 0, 0, b"x"), &too_long];
    for garbage in garbage {
        let mut raw = Raw::dial(WINDOW).await;
        raw.say(Bytes::copy_from_slice(garbage)).await;
        let error = error_of(&mut raw.link).await;
        assert!(matches!(error, LinkError::Broken { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn much_is_announced_and_nothing_sent() {
    let mut raw = Raw::dial(WINDOW).await;
    raw.say(message(0, 0, u64::MAX, &(1_u32 << 30).to_be_bytes())).await;
    assert!(raw.link.incoming.next().now_or_never().is_none());
    raw.link.receive_limit.set(1000);
    let mut other = Raw::dial(WINDOW).await;
    other.link.receive_limit.set(1000);
    other.say(message(0, 0, u64::MAX, &(1_u32 << 30).to_be_bytes())).await;
    let error = error_of(&mut other.link).await;
    assert!(matches!(error, LinkError::FrameTooLarge { max: 1000, .. }), "{error:?}");
}

#[tokio::test]
async fn who_vanishes_is_missed() {
    let mut raw = Raw::dial(WINDOW).await;
    drop((raw.incoming, raw.client));
    // No word of it: the broker answers the next sign of life.
    assert!(matches!(error_of(&mut raw.link).await, LinkError::Closed));
}

#[tokio::test]
async fn who_is_there_and_says_nothing_is_given_up() {
    let mut raw = Raw::dial(WINDOW).await;
    tokio::time::pause(); // it goes on by itself when all wait
    let error = raw.link.incoming.next().await.unwrap().unwrap_err();
    let LinkError::Broken { source } = error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "nothing was heard of the peer for 20 s");
}

#[tokio::test]
async fn strangers_who_only_publish_get_nothing_and_hold_up_nobody() {
    let name = name();
    let mut listener = NatsTransport::clear().listen(&at(shared(), &name)).await.unwrap();
    let client = async_nats::connect(shared().authority()).await.unwrap();
    let own = "stranger.inbox";
    let mut reflected = client.subscribe(own).await.unwrap();
    let dial = format!("locule.{name}.dial");
    let link = |number: usize| format!("locule.{name}.link.{number:032x}");
    for number in 0..2000 {
        client.publish_with_reply(dial.clone(), link(number), "locule/1 dial".into()).await.unwrap();
    }
    client.publish(dial.clone(), "locule/1 dial".into()).await.unwrap();
    client.publish_with_reply(dial.clone(), own, "locule/1 dial".into()).await.unwrap();
    client.publish_with_reply(dial.clone(), own, "locule/1 anybody".into()).await.unwrap();
    client.publish_with_reply(dial.clone(), link(0), vec![0; 1 << 20].into()).await.unwrap();
    client.flush().await.unwrap();

    // Some may find it crowded.
    let (mut near, mut far) = soon(async {
        loop {
            let dialling = NatsTransport::clear();
            let at = listener.local();
            let (near, far) = tokio::join!(
                timeout(Duration::from_secs(2), dialling.dial(&at)),
                timeout(Duration::from_secs(2), listener.accept()),
            );
            if let (Ok(near), Ok(far)) = (near, far) {
                return (near.unwrap(), far.unwrap());
            }
        }
    })
    .await;
    near.outgoing.send(frame(20)).await.unwrap();
    assert_eq!(soon(far.incoming.next()).await.unwrap().unwrap().len(), 20);
    assert!(
        reflected.next().now_or_never().is_none(),
        "nothing is published to a subject of a stranger's choice"
    );
}

#[tokio::test]
async fn a_broker_that_is_killed_ends_links_and_they_are_dialled_again_when_it_is_back() {
    let mut broker = Broker::start().unwrap();
    let nats = NatsTransport::clear();
    let at = at(&broker, "server");
    let mut listener = nats.listen(&at).await.unwrap();
    for _ in 0..2 {
        let mut near = soon(nats.dial(&at)).await.unwrap();
        let mut far = soon(listener.accept()).await.unwrap();
        near.outgoing.send(frame(20)).await.unwrap();
        assert_eq!(soon(far.incoming.next()).await.unwrap().unwrap().len(), 20);

        broker.kill();
        for link in [&mut near, &mut far] {
            let error = error_of(link).await;
            let LinkError::Broken { source } = error else { panic!("{error:?}") };
            assert_eq!(source.to_string(), "the connection to the broker has ended");
            assert!(link.outgoing.send(frame(20)).await.is_err());
        }
        let error = nats.dial(&at).await.unwrap_err();
        assert!(matches!(error, DialError::Unreachable { .. }) && error.is_retryable(), "{error:?}");

        broker.restart().unwrap();
        // The listener is there as soon as it has found its broker again.
        let again = soon(async {
            loop {
                match nats.dial(&at).await {
                    Ok(link) => return link,
                    Err(error) => assert!(error.is_retryable(), "{error:?}"),
                }
            }
        });
        drop(again.await);
        drop(soon(listener.accept()).await.unwrap());
    }
}

#[tokio::test]
async fn leaf_nodes_are_relays() {
    let hub = Broker::start().unwrap();
    let leaf = Broker::leaf_of(&hub).unwrap();
    let nats = NatsTransport::clear();
    for (listens, dials) in [(&hub, &leaf), (&leaf, &hub)] {
        let name = name();
        let mut listener = nats.listen(&at(listens, &name)).await.unwrap();
        // A leaf node learns of a subscription a moment later.
        let mut near = soon(async {
            loop {
                match nats.dial(&at(dials, &name)).await {
                    Ok(link) => return link,
                    Err(error) => assert!(matches!(error, DialError::Refused { .. }), "{error:?}"),
                }
            }
        })
        .await;
        let mut far = soon(listener.accept()).await.unwrap();
        for _ in 0..2 {
            let (sent, heard) = tokio::join!(near.outgoing.send(frame(5 << 20)), far.incoming.next());
            sent.unwrap();
            assert_eq!(heard.unwrap().unwrap().len(), 5 << 20);
            std::mem::swap(&mut near, &mut far);
        }
        assert!(matches!(nats.listen(&at(dials, &name)).await, Err(ListenError::AddressInUse { .. })));
        drop(near);
        assert!(matches!(soon(far.incoming.next()).await, None | Some(Err(LinkError::Closed))));
    }
}

#[tokio::test]
async fn a_broker_with_small_messages_carries_large_frames() {
    let broker = Broker::with("max_payload: 1024").unwrap();
    let nats = NatsTransport::clear();
    let mut listener = nats.listen(&at(&broker, "server")).await.unwrap();
    let mut near = nats.dial(&listener.local()).await.unwrap();
    let mut far = listener.accept().await.unwrap();
    let (sent, heard) = tokio::join!(near.outgoing.send(frame(300_000)), far.incoming.next());
    sent.unwrap();
    assert_eq!(heard.unwrap().unwrap().len(), 300_000);
}

#[tokio::test]
async fn a_broker_lets_in_whom_it_knows_and_says_what_is_not_allowed() {
    let broker = Broker::with(
        r#"authorization { users = [
            { user: "all", password: "secret" }
            { user: "few", password: "secret", permissions: { publish: "other.>", subscribe: "locule.>" } }
        ] }"#,
    )
    .unwrap();
    let at = at(&broker, "server");
    let of = |name: &str, password: &str| NatsTransport::clear().with_login(Login::user(name, password));
    assert!(!format!("{:?}", of("all", "secret")).contains("secret"));
    let mut listener = of("all", "secret").listen(&at).await.unwrap();
    for stranger in [NatsTransport::clear(), of("all", "wrong")] {
        let error = stranger.dial(&at).await.unwrap_err();
        assert!(matches!(error, DialError::Untrusted { .. }) && !error.is_retryable(), "{error:?}");
        let error = stranger.listen(&at).await.unwrap_err();
        assert!(error.to_string().contains("no trust between us and the broker"), "{error}");
    }
    let error = soon(of("few", "secret").dial(&at)).await.unwrap_err();
    let DialError::Untrusted { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("Permissions Violation for Publish to"), "{source}");

    let near = of("all", "secret").dial(&at).await.unwrap();
    drop((near, soon(listener.accept()).await.unwrap()));
}

#[tokio::test]
async fn who_answers_otherwise_does_not_speak_the_protocol() {
    let name = name();
    let client = async_nats::connect(shared().authority()).await.unwrap();
    let mut dials = client.subscribe(format!("locule.{name}.dial")).await.unwrap();
    client.flush().await.unwrap();
    let (at, nats) = (at(shared(), &name), NatsTransport::clear());
    let answering = async {
        let dial = dials.next().await.unwrap();
        client
            .publish_with_reply(dial.reply.unwrap(), "somewhere.else", "locule/1 here".into())
            .await
            .unwrap();
    };
    let (error, ()) = tokio::join!(nats.dial(&at), answering);
    assert!(matches!(error, Err(DialError::NotOurProtocol { .. })), "{error:?}");
}

#[tokio::test]
async fn an_unanswered_subject_is_free() {
    let name = name();
    // Somebody subscribes to all and says nothing: a monitor, or a machine that was switched off.
    let client = async_nats::connect(shared().authority()).await.unwrap();
    let mut all = client.subscribe(format!("locule.{name}.>")).await.unwrap();
    client.flush().await.unwrap();
    let listener = soon(NatsTransport::clear().listen(&at(shared(), &name))).await.unwrap();
    assert_eq!(all.next().await.unwrap().payload, "locule/1 anybody");
    drop(listener);
    let fresh = client.request("locule.nobody.dial", "".into()).await.unwrap_err();
    assert!(fresh.to_string().contains("no responders"), "{fresh} {}", StatusCode::NO_RESPONDERS);
}
