//! Cells over links in memory, by a clock that moves only when nothing else does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use locule_cell::{
    Cell, CellConfig, Dialing, HandlerError, Incoming, IncomingFilter, LinkFacts, LinkPolicy, Now,
    OutgoingFilter, Refusal, Reply, Request, RequestError,
};
use locule_frame::{Event, LinkConfig, LinkProtocol, Side};
use locule_message::{Fqcn, Message, Payload, ReturnCode, key};
use locule_transport::{
    BoxFuture, DialError, Endpoint, Link, ListenError, Listener, OutFrame, Transport, Transports,
};
use locule_transport_mem::MemTransport;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn name(text: &str) -> Fqcn {
    text.parse().unwrap()
}

fn at(text: &str) -> Endpoint {
    Endpoint::parse(text).unwrap()
}

fn cell(network: &MemTransport, called: &str) -> Cell {
    Cell::builder(CellConfig::new(name(called))).transports(Transports::new().with(network.clone())).start()
}

/// A server that listens, and a site linked to it.
async fn pair(network: &MemTransport) -> (Cell, Cell) {
    let server = cell(network, "server");
    server.listen(&at("mem://server")).await.unwrap();
    let site = cell(network, "site-1");
    site.connect(at("mem://server"));
    assert!(site.wait_linked(&name("server"), 5 * SECOND).await);
    (server, site)
}

fn ask(topic: &str) -> Request {
    Request::new("test", topic, Payload::none())
}

async fn echo(incoming: Incoming) -> Result<Reply, HandlerError> {
    Ok(Reply::ok(incoming.into_payload()))
}

/// Lets the tasks run until `condition` holds; the clock stands still meanwhile.
async fn until(condition: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never came true");
}

#[tokio::test(start_paused = true)]
async fn a_request_gets_its_reply() {
    let (server, site) = pair(&MemTransport::new()).await;
    server.handle("test", "echo", echo);
    let request = Request::new("test", "echo", Payload::bytes(Bytes::from_static(b"hello")));
    let reply = site.request(&name("server"), request).await.unwrap().into_ok().unwrap();
    assert_eq!(reply.payload, Payload::bytes(Bytes::from_static(b"hello")));
    let stats = site.stats();
    assert_eq!((stats.streams.sent, stats.streams.received), (1, 1));
    assert!(stats.bytes_in > 0 && stats.bytes_out > 0);
    assert_eq!(stats.internal_bytes, stats.bytes_in + stats.bytes_out, "memory is no network");
}

#[tokio::test(start_paused = true)]
async fn either_side_may_ask_and_a_cell_may_ask_itself() {
    let (server, site) = pair(&MemTransport::new()).await;
    site.handle("test", "echo", echo);
    server.wait_linked(&name("site-1"), SECOND).await;
    assert!(server.request(&name("site-1"), ask("echo")).await.unwrap().into_ok().is_ok());
    assert!(site.request(&name("site-1"), ask("echo")).await.unwrap().into_ok().is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_most_specific_handler_gets_the_message() {
    let (server, site) = pair(&MemTransport::new()).await;
    let says = |text: &'static str| {
        move |_: Incoming| async move { Ok(Reply::ok(Payload::bytes(Bytes::from_static(text.as_bytes())))) }
    };
    server.handle("*", "*", says("any"));
    server.handle("test", "*", says("channel"));
    server.handle("test", "exact", says("exact"));
    for (channel, topic, expected) in
        [("test", "exact", "exact"), ("test", "x", "channel"), ("y", "x", "any")]
    {
        let reply =
            site.request(&name("server"), Request::new(channel, topic, Payload::none())).await.unwrap();
        assert_eq!(reply.payload.body, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_gathers_every_outcome_in_order() {
    let network = MemTransport::new();
    let (server, site) = pair(&network).await;
    let other = cell(&network, "site-2");
    other.connect(at("mem://server"));
    site.handle("test", "echo", echo);
    other.handle("test", "echo", |_: Incoming| async { Err(HandlerError::invalid_request("not today")) });
    assert!(
        server.wait_linked(&name("site-1"), SECOND).await
            && server.wait_linked(&name("site-2"), SECOND).await
    );

    let targets = [name("site-2"), name("site-3"), name("site-1"), name("site-2")];
    let outcomes = server.broadcast(&targets, ask("echo")).await;
    assert_eq!(
        outcomes.iter().map(|(target, _)| target.as_str()).collect::<Vec<_>>(),
        ["site-2", "site-3", "site-1"]
    );
    assert_eq!(outcomes[0].1.as_ref().unwrap().code, ReturnCode::InvalidRequest);
    assert_eq!(outcomes[0].1.as_ref().unwrap().error.as_deref(), Some("not today"));
    assert_eq!(outcomes[1].1.as_ref().unwrap_err(), &RequestError::Unreachable);
    assert!(outcomes[2].1.as_ref().unwrap().code.is_ok());
    assert!(server.broadcast(&[], ask("echo")).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_request_without_reply_times_out_and_the_late_reply_is_dropped_and_counted() {
    let (server, site) = pair(&MemTransport::new()).await;
    let go = Arc::new(Notify::new());
    let released = go.clone();
    server.handle("test", "slow", move |incoming: Incoming| {
        let released = released.clone();
        async move {
            released.notified().await;
            echo(incoming).await
        }
    });
    let begun = Instant::now();
    let outcome = site.request(&name("server"), ask("slow").timeout(3 * SECOND)).await;
    assert_eq!(outcome.unwrap_err(), RequestError::Timeout);
    assert_eq!(begun.elapsed().as_secs(), 3);
    assert_eq!(site.stats().switch.timed_out, 1);

    go.notify_one();
    until(|| site.stats().switch.unmatched_replies == 1).await;
    assert_eq!(site.stats().pending, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_nobody_waits_for_is_given_up() {
    let (server, site) = pair(&MemTransport::new()).await;
    server.handle("test", "never", |_: Incoming| std::future::pending());
    let waiting = tokio::spawn({
        let site = site.clone();
        async move { site.request(&name("server"), ask("never")).await }
    });
    until(|| site.stats().pending == 1).await;
    waiting.abort();
    until(|| site.stats().pending == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_without_handler_says_so() {
    let (_server, site) = pair(&MemTransport::new()).await;
    let reply = site.request(&name("server"), ask("nothing")).await.unwrap();
    assert_eq!((reply.code, reply.error.as_deref()), (ReturnCode::ProcessException, Some("no callback")));
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_one_request_only() {
    let (server, site) = pair(&MemTransport::new()).await;
    server.handle("test", "panic", |incoming: Incoming| async move {
        assert!(!incoming.reply_expected, "boom");
        echo(incoming).await
    });
    server.handle("test", "echo", echo);
    let reply = site.request(&name("server"), ask("panic")).await.unwrap();
    assert_eq!(
        (reply.code, reply.error.as_deref()),
        (ReturnCode::ProcessException, Some("handler panicked"))
    );
    assert_eq!(server.stats().panics, 1);
    assert!(site.request(&name("server"), ask("echo")).await.unwrap().code.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_notice_arrives_and_is_not_answered() {
    let (server, site) = pair(&MemTransport::new()).await;
    let heard = Arc::new(AtomicUsize::new(0));
    let counted = heard.clone();
    server.handle("test", "notice", move |incoming: Incoming| {
        assert!(!incoming.reply_expected);
        counted.fetch_add(1, Ordering::Relaxed);
        echo(incoming)
    });
    site.notify(&name("server"), ask("notice")).await.unwrap();
    until(|| heard.load(Ordering::Relaxed) == 1 && server.stats().handling == 0).await;
    assert_eq!(server.stats().switch.replies, 0);
    assert_eq!(site.notify(&name("site-9.job"), ask("notice")).await, Ok(()), "the server may know the way");
    until(|| server.stats().switch.unroutable == 1).await;
}

/// A relay that listens above a server, and a site below the relay.
async fn relayed(network: &MemTransport) -> (Cell, Cell, Cell) {
    let server = cell(network, "server");
    server.listen(&at("mem://server")).await.unwrap();
    let relay = cell(network, "relay");
    relay.listen(&at("mem://relay")).await.unwrap();
    relay.connect(at("mem://server"));
    let site = cell(network, "relay.site-1");
    site.connect(at("mem://relay"));
    assert!(server.wait_linked(&name("relay"), 5 * SECOND).await);
    assert!(relay.wait_linked(&name("relay.site-1"), 5 * SECOND).await);
    assert!(site.wait_linked(&name("relay"), 5 * SECOND).await);
    (server, relay, site)
}

#[tokio::test(start_paused = true)]
async fn requests_cross_a_relay_both_ways() {
    let (server, relay, site) = relayed(&MemTransport::new()).await;
    server.handle("test", "echo", echo);
    site.handle("test", "echo", echo);
    let big = Bytes::from(vec![7; 3 << 20]);
    for (from, to) in [(&site, "server"), (&server, "relay.site-1")] {
        let request = Request::new("test", "echo", Payload::bytes(big.clone()));
        let reply = from.request(&name(to), request).await.unwrap().into_ok().unwrap();
        assert!(reply.payload.body == big);
    }
    assert!(relay.stats().switch.forwarded >= 4 * 3, "three chunks each");
    assert_eq!(relay.stats().switch.delivered, 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_relay_cannot_pass_on_comes_back() {
    let (_server, _relay, site) = relayed(&MemTransport::new()).await;
    let returned = site.request(&name("site-9"), ask("echo")).await.unwrap_err();
    assert!(matches!(&returned, RequestError::Returned { by, .. } if by.as_str() == "server"), "{returned}");
    assert_eq!(returned.code(), ReturnCode::CommError);
}

#[tokio::test(start_paused = true)]
async fn two_that_send_much_to_each_other_through_a_relay_do_not_lock() {
    let network = MemTransport::new().with_queue_len(64 << 10);
    let (server, relay, site) = relayed(&network).await;
    server.handle("test", "echo", echo);
    site.handle("test", "echo", echo);
    let body = Bytes::from(vec![1; 1 << 20]);
    network.faults().at("server").hold();
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..60 {
        for (from, to) in [(site.clone(), "server"), (server.clone(), "relay.site-1")] {
            let request = Request::new("test", "echo", Payload::bytes(body.clone()));
            asked.spawn(async move { from.request(&name(to), request).await });
        }
    }
    until(|| relay.stats().switch.congested > 0).await;
    tokio::time::sleep(SECOND).await;
    let held = relay.stats().bytes_in;
    assert!(held < 40 << 20, "a congested relay stops reading");
    network.faults().at("server").release();
    while let Some(outcome) = asked.join_next().await {
        assert!(outcome.unwrap().unwrap().code.is_ok());
    }
    assert_eq!(relay.stats().switch.overflowed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_fails_what_left_by_it_and_comes_back() {
    let network = MemTransport::new();
    let (server, site) = pair(&network).await;
    server.handle("test", "never", |_: Incoming| std::future::pending());
    server.handle("test", "echo", echo);
    let to_server = name("server");
    let lost = site.request(&to_server, ask("never").timeout(1000 * SECOND));
    let (lost, ()) = tokio::join!(lost, async {
        until(|| server.stats().handling == 1).await;
        network.faults().cut();
    });
    assert_eq!(lost.unwrap_err(), RequestError::LinkLost);

    let begun = Instant::now();
    assert!(site.links().wait_for(Vec::is_empty).await.is_ok());
    assert!(site.wait_linked(&name("server"), 5 * SECOND).await);
    assert!(begun.elapsed() <= SECOND, "the first attempt comes within a second");
    assert!(site.request(&name("server"), ask("echo")).await.unwrap().code.is_ok());
}

#[tokio::test(start_paused = true)]
async fn dialing_goes_on_with_longer_pauses_until_somebody_listens() {
    let network = MemTransport::new();
    let site = cell(&network, "site-1");
    let connection = site.connect(at("mem://server"));
    let mut state = connection.state();
    let failed = |state: &Dialing| matches!(state, Dialing::Failed { retryable: true, .. });
    assert!(state.wait_for(failed).await.is_ok());
    tokio::time::advance(100 * SECOND).await;

    let server = cell(&network, "server");
    server.listen(&at("mem://server")).await.unwrap();
    assert!(site.wait_linked(&name("server"), 10 * SECOND).await);
    let linked = |state: &Dialing| *state == Dialing::Linked(name("server"));
    assert!(state.wait_for(linked).await.is_ok());

    connection.stop();
    assert!(site.links().wait_for(Vec::is_empty).await.is_ok());
    tokio::time::advance(100 * SECOND).await;
    assert!(!site.wait_linked(&name("server"), 100 * SECOND).await, "it was given up");
}

#[tokio::test(start_paused = true)]
async fn two_that_dial_each_other_settle_on_one_link() {
    let network = MemTransport::new();
    let (server, site) = pair(&network).await;
    site.listen(&at("mem://site-1")).await.unwrap();
    server.handle("test", "echo", echo);
    server.connect(at("mem://site-1"));
    assert!(server.wait_linked(&name("site-1"), SECOND).await);
    tokio::time::sleep(60 * SECOND).await;
    let evicted = |cell: &Cell| cell.stats().switch.links_evicted;
    assert!(evicted(&server) <= 1 && evicted(&site) <= 1);
    assert!(site.request(&name("server"), ask("echo")).await.unwrap().code.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_slow_handler_does_not_stop_routing() {
    let network = MemTransport::new();
    let (server, site) = pair(&network).await;
    server.handle("test", "never", |_: Incoming| std::future::pending());
    let other = cell(&network, "site-2");
    other.handle("test", "echo", echo);
    other.connect(at("mem://server"));
    assert!(server.wait_linked(&name("site-2"), SECOND).await);
    for _ in 0..300 {
        site.notify(&name("server"), ask("never")).await.unwrap();
    }
    assert!(site.request(&name("site-2"), ask("echo")).await.unwrap().code.is_ok());
    assert_eq!(server.stats().handling, 300);
}

#[tokio::test(start_paused = true)]
async fn too_many_requests_are_turned_away() {
    let network = MemTransport::new();
    let mut config = CellConfig::new(name("server"));
    (config.max_handlers, config.max_waiting) = (1, 2);
    let server = Cell::builder(config).transports(Transports::new().with(network.clone())).start();
    server.listen(&at("mem://server")).await.unwrap();
    let (turns, most) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (handler_turns, handler_most) = (turns.clone(), most.clone());
    server.handle("test", "wait", move |incoming: Incoming| {
        let (turns, most) = (handler_turns.clone(), handler_most.clone());
        async move {
            most.fetch_add(1, Ordering::Relaxed);
            turns.acquire().await.unwrap().forget();
            echo(incoming).await
        }
    });
    let site = cell(&network, "site-1");
    site.connect(at("mem://server"));
    assert!(site.wait_linked(&name("server"), SECOND).await);

    let to_server = name("server");
    let asked: Vec<_> = (0..3).map(|_| site.request(&to_server, ask("wait"))).collect();
    let (outcomes, ()) = tokio::join!(futures_util::future::join_all(asked), async {
        until(|| server.stats().turned_away == 1).await;
        assert_eq!(most.load(Ordering::Relaxed), 1, "one handler at a time");
        turns.add_permits(2);
    });
    let mut codes: Vec<_> = outcomes.into_iter().map(|outcome| outcome.unwrap().code).collect();
    codes.sort();
    assert_eq!(codes, [ReturnCode::Ok, ReturnCode::Ok, ReturnCode::ServiceUnavailable]);
}

#[tokio::test(start_paused = true)]
async fn one_site_cannot_take_every_handler() {
    let network = MemTransport::new();
    let mut config = CellConfig::new(name("server"));
    (config.max_handlers, config.max_waiting) = (4, 8);
    let server = Cell::builder(config).transports(Transports::new().with(network.clone())).start();
    server.listen(&at("mem://server")).await.unwrap();
    let turns = Arc::new(Semaphore::new(0));
    let handler_turns = turns.clone();
    server.handle("test", "wait", move |incoming: Incoming| {
        let turns = handler_turns.clone();
        async move {
            turns.acquire().await.unwrap().forget();
            echo(incoming).await
        }
    });
    server.handle("test", "echo", echo);
    let (greedy, other) = (cell(&network, "site-1"), cell(&network, "site-2"));
    for site in [&greedy, &other] {
        site.connect(at("mem://server"));
        assert!(site.wait_linked(&name("server"), SECOND).await);
    }
    let to_server = name("server");
    let asked: Vec<_> = (0..10).map(|_| greedy.request(&to_server, ask("wait"))).collect();
    let (outcomes, ()) = tokio::join!(futures_util::future::join_all(asked), async {
        until(|| server.stats().turned_away == 4).await;
        assert!(other.request(&to_server, ask("echo")).await.unwrap().code.is_ok());
        turns.add_permits(6);
    });
    let handled = outcomes.into_iter().filter(|outcome| outcome.as_ref().unwrap().code.is_ok()).count();
    assert_eq!(handled, 6);
    assert_eq!(server.stats().handling, 0);
}

struct Doorkeeper;

impl IncomingFilter for Doorkeeper {
    fn check(&self, _: Now, _: &LinkFacts, message: &Message) -> Result<(), Refusal> {
        match message.headers.str(key::TOKEN) {
            Some("open sesame") => Ok(()),
            Some(_) | None => Err(Refusal::new(ReturnCode::Unauthenticated, "no valid token")),
        }
    }
}

struct Token;

impl OutgoingFilter for Token {
    fn stamp(&self, _: Now, message: &mut Message, _: &Fqcn) -> Result<(), Refusal> {
        message.headers.set(key::TOKEN, "open sesame");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_gate_answers_whom_it_keeps_out_and_a_stamp_added_later_opens_it() {
    let network = MemTransport::new();
    let server = Cell::builder(CellConfig::new(name("server")))
        .transports(Transports::new().with(network.clone()))
        .gate(Arc::new(Doorkeeper))
        .start();
    server.listen(&at("mem://server")).await.unwrap();
    server.handle("test", "echo", echo);
    let site = cell(&network, "site-1");
    site.connect(at("mem://server"));
    assert!(site.wait_linked(&name("server"), SECOND).await);

    let reply = site.request(&name("server"), ask("echo")).await.unwrap();
    assert_eq!(reply.into_ok().unwrap_err().code(), ReturnCode::Unauthenticated);
    assert_eq!(server.stats().switch.delivered, 0);
    site.add_stamp(Arc::new(Token));
    assert!(site.request(&name("server"), ask("echo")).await.unwrap().code.is_ok());
}

struct CertifiedNames;

impl LinkPolicy for CertifiedNames {
    fn admit(&self, link: &LinkFacts) -> Result<(), Refusal> {
        if link.common_name.as_deref() == Some(link.peer.root()) {
            return Ok(());
        }
        Err(Refusal::new(ReturnCode::AuthenticationError, "name is not the certificate's"))
    }

    fn admit_certificate(&self, _: &Fqcn, _: &str) -> Result<(), Refusal> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_impostor_is_refused_and_the_rightful_link_stays() {
    let network = MemTransport::new();
    let server = Cell::builder(CellConfig::new(name("server")))
        .transports(Transports::new().with(network.clone()))
        .link_policy(Arc::new(CertifiedNames))
        .start();
    server.listen(&at("mem://server")).await.unwrap();
    let rightful = cell(&network.clone().claiming("site-1"), "site-1");
    rightful.handle("test", "echo", echo);
    rightful.connect(at("mem://server"));
    assert!(server.wait_linked(&name("site-1"), SECOND).await);

    let impostor = cell(&network.clone().claiming("mallory"), "site-1");
    impostor.connect(at("mem://server"));
    until(|| server.stats().switch.links_refused == 1).await;
    assert_eq!(server.stats().switch.links_evicted, 0);
    assert!(server.request(&name("site-1"), ask("echo")).await.unwrap().code.is_ok());
    assert!(impostor.links().borrow().is_empty(), "no READY for whom is refused");
}

/// The other end of a link, spoken by hand.
struct Peer {
    link: Link,
    protocol: LinkProtocol,
}

impl Peer {
    async fn dial(network: &MemTransport, called: &str) -> Self {
        let link = network.dial(&at("mem://server")).await.unwrap();
        let config = LinkConfig::new(called, Side::Dialer);
        let now = Instant::now().into_std();
        let mut peer = Self { link, protocol: LinkProtocol::new(config, now, std::time::SystemTime::now()) };
        peer.send_control().await;
        assert!(matches!(peer.receive().await, Some(Event::Established(_))));
        peer
    }

    async fn send_control(&mut self) {
        while let Some(frame) = self.protocol.poll_transmit(Instant::now().into_std()) {
            self.link.outgoing.send(frame.into()).await.unwrap();
        }
    }

    /// The next event; `None` when the link has ended.
    async fn receive(&mut self) -> Option<Event> {
        loop {
            let frame = self.link.incoming.next().await?.ok()?;
            let wall = std::time::SystemTime::now();
            if let Some(event) = self.protocol.handle_frame(Instant::now().into_std(), wall, frame).unwrap() {
                return Some(event);
            }
            self.send_control().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stock_peer_gets_a_moment_before_the_first_message() {
    let network = MemTransport::new();
    let server = cell(&network, "server");
    server.listen(&at("mem://server")).await.unwrap();
    let mut peer = Peer::dial(&network, "site-1").await;
    let begun = Instant::now();
    server.notify(&name("site-1"), ask("hello")).await.unwrap();
    assert!(matches!(peer.receive().await, Some(Event::Data { .. })));
    assert!(begun.elapsed() >= Duration::from_millis(100));

    let begun = Instant::now();
    server.notify(&name("site-1"), ask("hello")).await.unwrap();
    assert!(matches!(peer.receive().await, Some(Event::Data { .. })));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn garbage_ends_its_link_and_no_other() {
    let network = MemTransport::new();
    let (server, site) = pair(&network).await;
    server.handle("test", "echo", echo);
    for garbage in [&b"\0\0\0\x05nonsense"[..], &b""[..], &[0xff; 64][..]] {
        let mut link = network.dial(&at("mem://server")).await.unwrap();
        link.outgoing.send(OutFrame::from(Bytes::copy_from_slice(garbage))).await.unwrap();
        assert!(link.incoming.next().await.is_none_or(|frame| frame.is_err()));
    }
    let mut peer = Peer::dial(&network, "site-2").await;
    let frame = peer.protocol.data(b"\xc1", Bytes::new()).unwrap();
    peer.link.outgoing.send(OutFrame::new(frame.head, frame.body)).await.unwrap();
    assert!(peer.receive().await.is_none());
    assert_eq!(server.stats().links_broken, 4);
    assert!(site.request(&name("server"), ask("echo")).await.unwrap().code.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_link_without_handshake_is_closed_in_time_and_hinders_nobody() {
    let network = MemTransport::new();
    let server = cell(&network, "server");
    server.listen(&at("mem://server")).await.unwrap();
    let mut silent = network.dial(&at("mem://server")).await.unwrap();
    let begun = Instant::now();
    let _quick = Peer::dial(&network, "site-1").await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(silent.incoming.next().await.is_none_or(|frame| frame.is_err()));
    assert_eq!(begun.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_neighbour_that_is_silent_is_pinged_and_then_given_up() {
    let network = MemTransport::new();
    let (server, site) = pair(&network).await;
    tokio::time::sleep(600 * SECOND).await;
    assert_eq!(site.stats().links, 1, "pings keep an idle link up");
    network.faults().hold();
    let begun = Instant::now();
    assert!(server.links().wait_for(Vec::is_empty).await.is_ok());
    assert!(begun.elapsed() <= 71 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn frames_of_a_neighbour_that_has_proved_nothing_are_short() {
    let network = MemTransport::new().pretending(locule_transport::Security::Clear);
    let server = Cell::builder(CellConfig::new(name("server")))
        .transports(Transports::new().with(network.clone()))
        .gate(Arc::new(Doorkeeper))
        .start();
    server.listen(&at("mem://server")).await.unwrap();
    server.handle("test", "echo", echo);
    let site = cell(&network, "site-1");
    site.connect(at("mem://server"));
    assert!(site.wait_linked(&name("server"), SECOND).await);
    let big = || Request::new("test", "echo", Payload::bytes(Bytes::from(vec![1; 1 << 20])));

    assert_eq!(site.request(&name("server"), big()).await.unwrap_err(), RequestError::LinkLost);
    site.links().wait_for(Vec::is_empty).await.unwrap();
    site.add_stamp(Arc::new(Token));
    assert!(site.wait_linked(&name("server"), 5 * SECOND).await);
    assert!(site.request(&name("server"), ask("echo")).await.unwrap().code.is_ok());
    assert!(site.request(&name("server"), big()).await.unwrap().code.is_ok());
}

#[tokio::test(start_paused = true)]
async fn shutdown_lets_handlers_finish_says_goodbye_and_fails_what_waits() {
    let network = MemTransport::new();
    let (server, site) = pair(&network).await;
    server.handle("test", "brief", |incoming: Incoming| async move {
        tokio::time::sleep(SECOND).await;
        echo(incoming).await
    });
    site.handle("test", "never", |_: Incoming| std::future::pending());
    let (to_server, to_site) = (name("server"), name("site-1"));
    let brief = site.request(&to_server, ask("brief"));
    let waits = server.request(&to_site, ask("never").timeout(1000 * SECOND));
    let begun = Instant::now();
    let (brief, waits, ()) = tokio::join!(brief, waits, async {
        until(|| server.stats().handling == 1 && site.stats().handling == 1).await;
        server.shutdown(5 * SECOND).await;
    });
    assert!(brief.unwrap().code.is_ok(), "the handler had time to finish");
    assert!(matches!(waits.unwrap_err(), RequestError::Closed | RequestError::LinkLost));
    assert!(begun.elapsed() < 5 * SECOND);
    assert!(site.links().wait_for(Vec::is_empty).await.is_ok());
    assert_eq!(server.request(&name("site-1"), ask("echo")).await.unwrap_err(), RequestError::Closed);
    assert_eq!(server.notify(&name("site-1"), ask("echo")).await.unwrap_err(), RequestError::Closed);
    server.shutdown(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_gives_up_on_a_handler_that_does_not_finish() {
    let (server, site) = pair(&MemTransport::new()).await;
    server.handle("test", "never", |_: Incoming| std::future::pending());
    site.notify(&name("server"), ask("never")).await.unwrap();
    until(|| server.stats().handling == 1).await;
    let begun = Instant::now();
    server.shutdown(2 * SECOND).await;
    assert_eq!(begun.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cell_ends_with_its_last_handle() {
    let (server, site) = pair(&MemTransport::new()).await;
    server.wait_linked(&name("site-1"), SECOND).await;
    drop(site);
    assert!(server.links().wait_for(Vec::is_empty).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_bulk_message_of_a_real_cell_is_handled_as_the_messages_in_it() {
    let file: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/vectors/sfm_frames.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    let bulk = vectors.iter().find(|vector| vector["name"].as_str().unwrap().contains("bulk")).unwrap();
    let frame = bulk["hex"].as_str().unwrap();
    let frame: Vec<u8> =
        (0..frame.len()).step_by(2).map(|at| u8::from_str_radix(&frame[at..at + 2], 16).unwrap()).collect();
    let body_at = 16 + usize::from(u16::from_be_bytes([frame[4], frame[5]]));
    let (headers, body) = (&frame[16..body_at], Bytes::copy_from_slice(&frame[body_at..]));

    let network = MemTransport::new();
    let server = cell(&network, "server");
    server.listen(&at("mem://server")).await.unwrap();
    let (heard, mut hear) = tokio::sync::mpsc::unbounded_channel();
    server.handle("task", "echo", move |incoming: Incoming| {
        let _ = heard.send((incoming.headers.u64("k"), incoming.origin.to_string(), incoming.into_payload()));
        async { Ok(Reply::ok(Payload::none())) }
    });
    let mut peer = Peer::dial(&network, "site-1").await;
    let frame = peer.protocol.data(headers, body).unwrap();
    peer.link.outgoing.send(OutFrame::new(frame.head, frame.body)).await.unwrap();
    for k in 0..3 {
        let next = tokio::time::timeout(5 * SECOND, hear.recv()).await;
        let (number, origin, payload) = next.unwrap().unwrap();
        assert_eq!((number, origin.as_str()), (Some(k), "site-1"));
        assert_eq!(payload.body.len(), 14);
        assert_eq!(payload.body.whole().last(), Some(&(k as u8)));
    }
}

/// Memory whose dialled links send no frame of more than 4,096 bytes, but take longer ones.
#[derive(Debug)]
struct Narrow(MemTransport);

impl Transport for Narrow {
    fn schemes(&self) -> &[&'static str] {
        self.0.schemes()
    }

    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, Result<Link, DialError>> {
        Box::pin(async move { Ok(Link { max_frame_len: 4096, ..self.0.dial(to).await? }) })
    }

    fn listen<'a>(&'a self, on: &'a Endpoint) -> BoxFuture<'a, Result<Box<dyn Listener>, ListenError>> {
        self.0.listen(on)
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_may_take_longer_frames_than_it_sends() {
    let network = MemTransport::new();
    let server = cell(&network, "server");
    server.listen(&at("mem://server")).await.unwrap();
    let narrow = Transports::new().with(Narrow(network));
    let site = Cell::builder(CellConfig::new(name("site-1"))).transports(narrow).start();
    site.handle("test", "len", async |incoming: Incoming| {
        Ok(Reply::ok(Payload::bytes(incoming.body.len().to_string().into())))
    });
    site.connect(at("mem://server"));
    assert!(server.wait_linked(&name("site-1"), 5 * SECOND).await);

    let long = || Request::new("test", "len", Payload::bytes(vec![0; 1 << 20].into()));
    let reply = server.request(&name("site-1"), long()).await.unwrap().into_ok().unwrap();
    assert_eq!(reply.payload.body, "1048576");
    let refused = site.request(&name("server"), long()).await.unwrap_err();
    assert!(matches!(refused, RequestError::TooBig), "{refused:?}");
    let reply = server.request(&name("site-1"), ask("len")).await.unwrap().into_ok().unwrap();
    assert_eq!(reply.payload.body, "0", "the link lives on");
}

#[tokio::test(start_paused = true)]
async fn a_streamed_request_without_a_path_fails_at_once() {
    let (server, _site) = pair(&MemTransport::new()).await;
    let begun = Instant::now();
    assert_eq!(server.request(&name("site-7"), ask("echo")).await.unwrap_err(), RequestError::Unreachable);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

/// A gate with a mistake in it.
struct Tripping;

impl IncomingFilter for Tripping {
    fn check(&self, _: Now, _: &LinkFacts, message: &Message) -> Result<(), Refusal> {
        assert_ne!(message.topic(), "trip", "the mistake");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_panics_is_seen_to_be_gone() {
    let network = MemTransport::new();
    let config = CellConfig::new(name("server"));
    let transports = Transports::new().with(network.clone());
    let server = Cell::builder(config).transports(transports).gate(Arc::new(Tripping)).start();
    server.listen(&at("mem://server")).await.unwrap();
    let site = cell(&network, "site-1");
    site.connect(at("mem://server"));
    assert!(site.wait_linked(&name("server"), 5 * SECOND).await);
    let watching = tokio::spawn({
        let server = server.clone();
        async move { server.closed().await }
    });
    let trip = Request::new("task", "trip", Payload::none()).timeout(SECOND);
    site.notify(&name("server"), trip).await.unwrap();
    assert!(watching.await.unwrap().is_err());
    assert!(matches!(server.request(&name("site-1"), ask("x")).await, Err(RequestError::Closed)));
    // it listens no more, and holds nobody up who wants to stop
    until(|| site.links().borrow().is_empty()).await;
    server.shutdown(SECOND).await;
    site.shutdown(SECOND).await;
    assert_eq!(site.closed().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_request_may_wait_for_as_long_as_there_is_time() {
    let (server, site) = pair(&MemTransport::new()).await;
    server.handle("*", "echo", echo);
    for channel in ["test", "task"] {
        let request = Request::new(channel, "echo", Payload::none()).timeout(Duration::MAX);
        assert!(site.request(&name("server"), request).await.is_ok());
    }
    site.shutdown(Duration::MAX).await;
    assert_eq!(site.closed().await, Ok(()));
}
