//! What a switch does with messages, between a few switches on one clock.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use locule_message::{Fqcn, Headers, Message, MessageKind, Payload, ReturnCode, key};
use locule_switch::{
    CloseReason, DropReason, IncomingFilter, LinkFacts, LinkId, LinkPolicy, LinkRefused, LinkSecurity,
    MessageFilter, Now, OutgoingFilter, Output, Pass, Refusal, Reply, ReplyTo, Request, RequestError,
    Settled, Switch, SwitchConfig,
};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::Value;

use net::*;

fn vector(called: &str) -> (Value, Message) {
    let all: Value = serde_json::from_str(include_str!("../../../tests/vectors/sfm_frames.json")).unwrap();
    let found = all["vectors"].as_array().unwrap().iter().find(|vector| vector["name"] == called).unwrap();
    let hex = found["hex"].as_str().unwrap();
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let frame = Bytes::from(bytes);
    let header_len = found["prefix"]["header_len"].as_u64().unwrap() as usize;
    let headers = Headers::decode(frame.slice(16..16 + header_len)).unwrap();
    (found["headers"].clone(), Message { headers, body: frame.slice(16 + header_len..).into() })
}

/// The headers that a message leaves with are those that the peer's own has, no more and no fewer.
#[track_caller]
fn same_keys(ours: &Headers, vector_name: &str) {
    let mut ours: Vec<&str> = ours.keys().collect();
    let (peers, _) = vector(vector_name);
    let mut peers: Vec<&str> = peers.as_object().unwrap().keys().map(String::as_str).collect();
    ours.sort_unstable();
    peers.sort_unstable();
    assert_eq!(ours, peers, "{vector_name}");
}

fn sent(net: &mut Net, from: &'static str) -> Headers {
    Headers::decode(net.at(from).poll_transmit(LinkId(1)).unwrap().headers).unwrap()
}

#[test]
fn our_messages_have_the_headers_of_the_peers() {
    let mut net = Net::new(&["site-1", "server"], &[("site-1", "server")]);
    let now = net.now;
    net.at("site-1").request(now, &[name("server")], request());
    let asked = sent(&mut net, "site-1");
    same_keys(&asked, "DATA request, raw bytes payload");
    assert_eq!(asked.str(key::FROM_CELL), Some("site-1"));
    assert_eq!(asked.str(key::TO_CELL), Some("server"));
    assert_eq!(asked.u64(key::PAYLOAD_LEN), Some(3));
    assert_eq!(asked.f64(key::SEND_TIME), Some(1_795_299_691.581));

    net.at("server").handle_message(
        now,
        LinkId(1),
        Message { headers: asked.clone(), body: Bytes::new().into() },
    );
    net.collect();
    let (_, _, to) = net.delivered.pop().unwrap();
    net.at("server").reply(now, to.unwrap(), Reply::ok(Payload::none()));
    let replied = sent(&mut net, "server");
    same_keys(&replied, "DATA reply, no payload");
    assert_eq!(replied.str(key::REQ_ID), asked.str(key::REQ_ID));
    assert_eq!(replied.str(key::RETURN_CODE), Some("ok"));

    net.at("site-1").notify(now, &name("server"), &request()).unwrap();
    same_keys(&sent(&mut net, "site-1"), "fire-and-forget request");

    net.at("site-1").request(now, &[name("site-99")], request());
    let asked = sent(&mut net, "site-1");
    net.at("server").handle_message(now, LinkId(1), Message { headers: asked, body: Bytes::new().into() });
    let returned = sent(&mut net, "server");
    same_keys(&returned, "RETURN cant_forward");
    assert_eq!(returned.str(key::ERROR), Some("cannot forward"));

    net.at("site-1").leave(now);
    let goodbye = sent(&mut net, "site-1");
    same_keys(&goodbye, "bye request");
    assert_eq!((goodbye.str(key::CHANNEL), goodbye.str(key::TOPIC)), (Some("cellnet.channel"), Some("bye")));
}

#[test]
fn the_peers_messages_are_understood() {
    let mut net = Net::new(&["server"], &[]);
    let now = net.now;
    let server = net.at("server");
    server.link_up(now, facts(1, "site-1"), MAX_FRAME).unwrap();
    server.handle_message(now, LinkId(1), vector("DATA request, FOBS dict payload").1);
    server.handle_message(now, LinkId(1), vector("fire-and-forget request").1);
    server.handle_message(now, LinkId(1), vector("request to unknown cell").1);
    server.handle_message(now, LinkId(1), vector("bye request").1);
    assert_eq!(server.neighbours().count(), 0);
    let mut kinds = Vec::new();
    while let Some(sent) = server.poll_transmit(LinkId(1)) {
        let message = Message { headers: Headers::decode(sent.headers).unwrap(), body: sent.body.into() };
        kinds.push((message.kind().unwrap(), message.topic().to_owned()));
    }
    assert_eq!(kinds, [(MessageKind::Return, String::new()), (MessageKind::Reply, "bye".to_owned())]);
    net.collect();
    assert_eq!(net.delivered.len(), 2);
    assert!(net.delivered[0].2.is_some() && net.delivered[1].2.is_none());
}

#[test]
fn what_is_forwarded_looks_as_when_the_peer_forwards_it() {
    let mut net = Net::new(&["site-1", "server", "site-2"], &[("site-1", "server"), ("server", "site-2")]);
    let now = net.now;
    net.at("site-1").request(now, &[name("site-2")], request());
    let first = net.at("site-1").poll_transmit(LinkId(1)).unwrap();
    let message = Message { headers: Headers::decode(first.headers).unwrap(), body: first.body.into() };
    net.at("server").handle_message(now, LinkId(1), message);
    let second = Headers::decode(net.at("server").poll_transmit(LinkId(2)).unwrap().headers).unwrap();
    same_keys(&second, "forwarded through server: req site-1->site-2");
    let message = Message { headers: second, body: Bytes::new().into() };
    let hops: Vec<String> = message.route().into_iter().map(|(hop, _)| hop).collect();
    assert_eq!(hops, ["site-1", "server"]);
    assert_eq!((message.from(), message.to()), (Some(name("server")), Some(name("site-2"))));
}

// --- requests and replies

#[test]
fn a_reply_finds_its_way_through_a_relay() {
    let mut net = Net::new(&["relay.a", "relay", "server"], &[("relay.a", "relay"), ("relay", "server")]);
    net.ask("relay.a", "server", request());
    net.answer(Reply::ok(Payload::bytes(Bytes::from_static(b"done"))));
    let reply = net.outcome().unwrap();
    assert_eq!((reply.code, &reply.payload.body.whole()[..]), (ReturnCode::Ok, &b"done"[..]));
    assert_eq!(net.at("relay").stats().forwarded, 2);
}

#[test]
fn one_request_to_many_settles_once_at_each() {
    let mut net = Net::new(&["server", "site-1", "site-2"], &[("server", "site-1"), ("server", "site-2")]);
    let now = net.now;
    let targets = ["site-1", "site-2", "site-3", "site-1"].map(name);
    let id = net.at("server").request(now, &targets, request());
    net.run();
    let req_ids: Vec<_> = net.delivered.iter().map(|(_, message, _)| message.req_ids()).collect();
    assert_eq!(req_ids, [vec![id.to_string()], vec![id.to_string()]], "the targets share the id");
    assert!(matches!(net.outcome(), Err(RequestError::Unreachable)));
    net.answer(Reply::ok(Payload::none()));
    assert!(!net.settled[0].last && net.outcome().is_ok());
    net.pass(30 * SECOND);
    assert!(net.settled[0].last && matches!(net.outcome(), Err(RequestError::Timeout)));
    net.answer(Reply::ok(Payload::none()));
    assert!(net.settled.is_empty());
    assert_eq!(net.at("server").stats().unmatched_replies, 1);
}

#[test]
fn a_reply_after_the_deadline_is_dropped_and_counted() {
    let mut net = Net::new(&["site-1", "server"], &[("site-1", "server")]);
    net.ask("site-1", "server", request().timeout(SECOND));
    assert_eq!(net.switches["site-1"].poll_timeout(), Some(net.now.instant + SECOND));
    net.pass(SECOND);
    assert!(matches!(net.outcome(), Err(RequestError::Timeout)));
    net.answer(Reply::ok(Payload::none()));
    assert!(net.settled.is_empty());
    assert_eq!(net.dropped, [("site-1", DropReason::UnmatchedReply)]);
    assert_eq!(net.switches["site-1"].poll_timeout(), None);
}

#[test]
fn a_reply_by_somebody_else_is_not_taken() {
    let mut net = Net::new(&["site-1", "server", "mallory"], &[("site-1", "server"), ("mallory", "server")]);
    net.ask("site-1", "server", request());
    let (_, asked, _) = &net.delivered[0];
    let mut forged = message(MessageKind::Reply, "mallory", "site-1");
    forged.headers.set(key::REQ_ID, asked.headers.get(key::REQ_ID).unwrap().into_owned());
    let now = net.now;
    net.at("server").handle_message(now, LinkId(2), forged);
    net.run();
    assert!(net.settled.is_empty());
    assert_eq!(net.dropped, [("site-1", DropReason::UnexpectedReply)]);
    net.answer(Reply::ok(Payload::none()));
    assert!(net.outcome().is_ok());
}

#[test]
fn one_reply_may_answer_several_requests() {
    let mut net = Net::new(&["site-1", "server"], &[("site-1", "server")]);
    net.ask("site-1", "server", request());
    net.ask("site-1", "server", request());
    let ids: Vec<String> = net.delivered.iter().flat_map(|(_, message, _)| message.req_ids()).collect();
    let mut reply = message(MessageKind::Reply, "server", "site-1");
    reply.headers.set(key::REQ_ID, ids);
    let now = net.now;
    net.at("site-1").handle_message(now, LinkId(1), reply);
    net.collect();
    assert_eq!(net.settled.len(), 2);
    assert!(net.settled.iter().all(|settled| settled.outcome.is_ok()));
}

#[test]
fn a_reply_goes_to_the_neighbour_that_delivered_the_request() {
    let mut net = Net::new(&["site-1", "server", "mallory"], &[("site-1", "server"), ("mallory", "server")]);
    // mallory asks in the name of site-1
    let mut forged = message(MessageKind::Request, "site-1", "server");
    forged.headers.set(key::REPLY_EXPECTED, true);
    let now = net.now;
    net.at("server").handle_message(now, LinkId(2), forged);
    net.collect();
    let (_, _, to) = net.delivered.pop().unwrap();
    net.at("server").reply(now, to.unwrap(), Reply::ok(Payload::none()));
    assert!(net.at("server").poll_transmit(LinkId(1)).is_none(), "site-1 hears nothing of it");
    assert!(net.at("server").poll_transmit(LinkId(2)).is_some());
}

#[test]
fn a_reply_follows_a_neighbour_that_came_back() {
    let mut net = Net::new(&["site-1", "server"], &[("site-1", "server")]);
    net.ask("site-1", "server", request());
    let now = net.now;
    net.at("server").link_down(now, LinkId(1));
    net.at("server").link_up(now, facts(7, "site-1"), MAX_FRAME).unwrap();
    let (_, _, to) = net.delivered.pop().unwrap();
    net.at("server").reply(now, to.unwrap(), Reply::ok(Payload::none()));
    assert!(net.at("server").poll_transmit(LinkId(7)).is_some());
}

#[test]
fn what_left_by_a_lost_link_fails_and_what_was_cancelled_is_silent() {
    let mut net = Net::new(&["site-1", "server"], &[("site-1", "server")]);
    net.ask("site-1", "server", request());
    let now = net.now;
    let cancelled = net.at("site-1").request(now, &[name("server")], request());
    net.at("site-1").cancel(cancelled);
    assert!(net.at("site-1").poll_transmit(LinkId(1)).is_none(), "nobody waits for it any more");
    net.at("site-1").link_down(now, LinkId(1));
    net.collect();
    assert!(matches!(net.outcome(), Err(RequestError::LinkLost)));
    assert_eq!(net.switches["site-1"].pending(), 0);
}

#[test]
fn a_cell_can_ask_itself() {
    let mut net = Net::new(&["server"], &[]);
    net.ask("server", "server", request());
    net.answer(Reply::ok(Payload::none()));
    assert!(net.outcome().is_ok());
}

#[test]
fn pending_requests_are_bounded() {
    let mut config = SwitchConfig::new(name("site-1"));
    config.max_pending = 2;
    let mut site = Switch::new(config, Box::new(ChaCha20Rng::seed_from_u64(1)));
    let now = start();
    site.link_up(now, facts(1, "server"), MAX_FRAME).unwrap();
    site.request(now, &["server", "site-2"].map(name), request());
    site.request(now, &[name("server")], request());
    let mut overloaded = 0;
    while let Some(output) = site.poll_output() {
        overloaded += usize::from(matches!(
            output,
            Output::Settle(Settled { outcome: Err(RequestError::Overloaded), .. })
        ));
    }
    assert_eq!((overloaded, site.pending(), site.stats().overloaded), (1, 2, 1));
}

#[test]
fn a_message_too_big_for_cell_or_link_is_refused() {
    let mut config = SwitchConfig::new(name("site-1"));
    config.max_message_size = 1000;
    let mut site = Switch::new(config, Box::new(ChaCha20Rng::seed_from_u64(1)));
    let now = start();
    site.link_up(now, facts(1, "server"), 800).unwrap();
    let of = |len: usize| Request::new("task", "echo", Payload::bytes(Bytes::from(vec![0; len])));
    for (len, expected) in
        [(1001, Err(RequestError::TooBig)), (900, Err(RequestError::TooBig)), (100, Ok(()))]
    {
        assert_eq!(site.notify(now, &name("server"), &of(len)), expected);
    }
    let headers = of(1).header("long", "x".repeat(70_000));
    assert_eq!(site.notify(now, &name("server"), &headers), Err(RequestError::TooBig));
}

// --- the gate, filters and stamps

struct Gate;

impl IncomingFilter for Gate {
    fn check(&self, _: Now, _: &LinkFacts, message: &Message) -> Result<(), Refusal> {
        if message.headers.contains(key::TOKEN) || self.is_exempt(message) {
            return Ok(());
        }
        Err(Refusal::new(ReturnCode::Unauthenticated, "no token"))
    }

    fn knows(&self, now: Now, link: &LinkFacts) -> bool {
        match link.common_name.as_deref() {
            Some("known") => true,
            Some("late") => now.wall >= start().wall + Duration::from_secs(100),
            _ => false,
        }
    }
}

struct Stamp;

impl OutgoingFilter for Stamp {
    fn stamp(&self, _: Now, message: &mut Message, _: &Fqcn) -> Result<(), Refusal> {
        message.headers.set(key::TOKEN, "t");
        Ok(())
    }
}

#[test]
fn nothing_is_delivered_or_forwarded_before_the_gate() {
    let mut net = Net::new(&["site-1", "server", "site-2"], &[("site-1", "server"), ("server", "site-2")]);
    net.at("server").set_gate(Arc::new(Gate));
    net.ask("site-1", "server", request());
    assert_eq!(net.outcome().unwrap().code, ReturnCode::Unauthenticated);
    net.ask("site-1", "site-2", request());
    let returned = net.outcome().unwrap_err();
    assert!(
        matches!(&returned, RequestError::Returned { code: ReturnCode::Unauthenticated, .. }),
        "{returned}"
    );
    let now = net.now;
    net.at("site-1").notify(now, &name("site-2"), &request()).unwrap();
    net.run();
    assert_eq!(net.dropped, [("server", DropReason::Gated)]);
    assert!(net.delivered.is_empty());
    assert_eq!(net.at("server").stats().gated, 3);

    net.at("site-1").add_stamp(Arc::new(Stamp));
    net.ask("site-1", "server", request());
    assert_eq!(net.delivered.len(), 1);
}

#[test]
fn a_reply_does_not_settle_before_the_gate() {
    let mut net = Net::new(&["site-1", "server"], &[("site-1", "server")]);
    net.at("site-1").set_gate(Arc::new(Gate));
    net.ask("site-1", "server", request());
    net.answer(Reply::ok(Payload::none()));
    assert!(net.settled.is_empty());
    assert_eq!(net.dropped, [("site-1", DropReason::Gated)]);
}

#[test]
fn a_link_is_proven_by_what_the_gate_lets_through_but_not_by_what_is_exempt() {
    let now = start();
    let mut server = switch("server");
    server.set_gate(Arc::new(Gate));
    server.link_up(now, facts(1, "site-1"), MAX_FRAME).unwrap();
    let mut mutual = facts(2, "site-2");
    (mutual.security, mutual.common_name) = (LinkSecurity::Mutual, Some("site-2".to_owned()));
    server.link_up(now, mutual, MAX_FRAME).unwrap();
    let mut known = facts(3, "site-3");
    (known.security, known.common_name) = (LinkSecurity::Mutual, Some("known".to_owned()));
    server.link_up(now, known, MAX_FRAME).unwrap();
    assert_eq!([1, 2, 3].map(|id| server.is_proven(LinkId(id))), [false, false, true]);

    let mut challenge = message(MessageKind::Request, "site-1", "server");
    challenge.headers.set(key::CHANNEL, "task");
    challenge.headers.set(key::TOPIC, "challenge");
    challenge.headers.set(key::TOKEN, "invented");
    server.handle_message(now, LinkId(1), challenge.clone());
    assert!(!server.is_proven(LinkId(1)));
    challenge.headers.set(key::TOPIC, "heart_beat");
    server.handle_message(now, LinkId(1), challenge);
    assert!(server.is_proven(LinkId(1)));
}

#[test]
fn a_link_that_the_gate_hears_nothing_from_is_closed_in_time() {
    let now = start();
    let after = |seconds| later(now, Duration::from_secs(seconds));
    let mut server = switch("server");
    server.set_gate(Arc::new(Gate));
    for (id, name) in [(1, "site-1"), (2, "site-2"), (3, "site-3")] {
        server.link_up(now, facts(id, name), MAX_FRAME).unwrap();
    }
    let say = |server: &mut Switch, now, id, name, topic| {
        let mut message = message(MessageKind::Request, name, "server");
        message.headers.set(key::CHANNEL, "task");
        message.headers.set(key::TOPIC, topic);
        if topic == "heart_beat" {
            message.headers.set(key::TOKEN, "t");
        }
        server.handle_message(now, LinkId(id), message);
    };
    // the fourth is known by the time that it is asked
    let mut late = facts(4, "site-4");
    (late.security, late.common_name) = (LinkSecurity::Mutual, Some("late".to_owned()));
    server.link_up(now, late, MAX_FRAME).unwrap();
    // the first talks without a token, the second asks to be let in, the third is in
    say(&mut server, now, 1, "site-1", "other");
    say(&mut server, after(50), 2, "site-2", "challenge");
    say(&mut server, after(50), 3, "site-3", "heart_beat");
    let mut closed = |at| {
        server.handle_timeout(after(at));
        let outputs = std::iter::from_fn(|| server.poll_output());
        let closed = outputs.filter_map(|output| {
            let Output::Close(LinkId(id), CloseReason::Unheard) = output else { return None };
            Some(id)
        });
        closed.collect::<Vec<_>>()
    };
    assert!(closed(119).is_empty());
    assert_eq!(closed(120), [1]);
    assert!(closed(169).is_empty());
    assert_eq!(closed(170), [2], "it asked once and no more");
    assert!(closed(100_000).is_empty());
    assert!(
        server.link(LinkId(3)).is_some() && server.is_proven(LinkId(4)) && server.poll_timeout().is_none()
    );
}

struct Recorder(Arc<Mutex<Vec<&'static str>>>, &'static str, Option<Refusal>);

impl MessageFilter for Recorder {
    fn apply(&self, _: Now, message: &mut Message) -> Result<(), Refusal> {
        self.0.lock().unwrap().push(self.1);
        message.headers.set("seen-by", self.1);
        self.2.clone().map_or(Ok(()), Err)
    }
}

#[test]
fn filters_see_requests_and_replies_at_four_points_and_the_most_specific_wins() {
    let mut net = Net::new(&["site-1", "server"], &[("site-1", "server")]);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let filter = |called| Arc::new(Recorder(seen.clone(), called, None));
    net.at("site-1").add_filter(Pass::OutgoingRequest, "*", "*", filter("any"));
    net.at("site-1").add_filter(Pass::OutgoingRequest, "task", "*", filter("out request"));
    net.at("server").add_filter(Pass::IncomingRequest, "task", "*", filter("channel"));
    net.at("server").add_filter(Pass::IncomingRequest, "task", "echo", filter("in request"));
    net.at("server").add_filter(Pass::OutgoingReply, "*", "*", filter("out reply"));
    net.at("site-1").add_filter(Pass::IncomingReply, "*", "*", filter("in reply"));
    net.ask("site-1", "server", request());
    net.answer(Reply::ok(Payload::none()));
    assert_eq!(*seen.lock().unwrap(), ["out request", "in request", "out reply", "in reply"]);
    assert_eq!(net.outcome().unwrap().headers.str("seen-by"), Some("in reply"));
}

#[test]
fn what_a_filter_refuses_does_not_pass() {
    let points = [
        (Pass::OutgoingRequest, "site-1"),
        (Pass::IncomingRequest, "server"),
        (Pass::OutgoingReply, "server"),
        (Pass::IncomingReply, "site-1"),
    ];
    for (pass, at) in points {
        let mut net = Net::new(&["site-1", "server"], &[("site-1", "server")]);
        let refusal = Refusal::new(ReturnCode::FilterError, "no");
        let filter = Recorder(Arc::default(), "", Some(refusal));
        net.at(at).add_filter(pass, "*", "*", Arc::new(filter));
        net.ask("site-1", "server", request());
        if !net.delivered.is_empty() {
            net.answer(Reply::ok(Payload::bytes(Bytes::from_static(b"secret"))));
        }
        let outcome = net.outcome().and_then(Reply::into_ok);
        let refused = RequestError::Refused { code: ReturnCode::FilterError, reason: "no".to_owned() };
        assert_eq!(outcome.unwrap_err(), refused, "{pass:?}");
        assert_eq!(net.at(at).stats().filtered, 1);
    }
}

struct Transit;

impl OutgoingFilter for Transit {
    fn stamp(&self, _: Now, message: &mut Message, _: &Fqcn) -> Result<(), Refusal> {
        message.headers.set(key::SERVER_TRANSIT_REQUIRED, true);
        message.headers.set(key::TOKEN, "secret");
        Ok(())
    }
}

#[test]
fn between_families_messages_cross_the_server_which_strips_the_senders_proofs() {
    let links = [("site-1", "server"), ("server", "site-2"), ("site-1", "site-2")];
    let mut net = Net::new(&["site-1", "server", "site-2"], &links);
    net.at("site-1").add_stamp(Arc::new(Transit));
    net.at("site-2").add_stamp(Arc::new(Transit));
    net.ask("site-1", "site-2", request());
    let (_, arrived, _) = &net.delivered[0];
    assert_eq!(arrived.from(), Some(name("server")), "not by the direct link");
    assert!(!arrived.headers.contains(key::TOKEN));
    net.answer(Reply::ok(Payload::none()));
    let reply = net.outcome().unwrap();
    assert_eq!(reply.headers.str(key::FROM_CELL), Some("server"));
    assert!(!reply.headers.contains(key::TOKEN));
    assert_eq!(net.at("server").stats().forwarded, 2);
}

// --- links

struct OnlyCertified;

impl LinkPolicy for OnlyCertified {
    fn admit(&self, link: &LinkFacts) -> Result<(), Refusal> {
        let fits = link.common_name.as_deref() == Some(link.peer.root());
        if fits { Ok(()) } else { Err(Refusal::new(ReturnCode::AuthenticationError, "not yours")) }
    }

    fn admit_certificate(&self, _: &Fqcn, _: &str) -> Result<(), Refusal> {
        Ok(())
    }
}

#[test]
fn a_newcomer_evicts_a_live_link_only_when_it_is_rightful() {
    let now = start();
    let mut server = switch("server");
    server.set_link_policy(Arc::new(OnlyCertified));
    let mut rightful = facts(1, "site-1");
    (rightful.common_name, rightful.security) = (Some("site-1".to_owned()), LinkSecurity::Mutual);
    server.link_up(now, rightful.clone(), MAX_FRAME).unwrap();

    let forged = server.link_up(now, facts(2, "site-1"), MAX_FRAME);
    assert!(matches!(forged, Err(LinkRefused::Policy { .. })));
    let mut weaker = rightful.clone();
    (weaker.link, weaker.security) = (LinkId(3), LinkSecurity::ServerOnly);
    assert!(matches!(server.link_up(now, weaker, MAX_FRAME), Err(LinkRefused::WeakerThanLive { .. })));
    let mut own = facts(4, "server");
    own.common_name = Some("server".to_owned());
    assert_eq!(server.link_up(now, own, MAX_FRAME), Err(LinkRefused::OwnName));
    assert_eq!(server.link_up(now, rightful.clone(), MAX_FRAME), Err(LinkRefused::DuplicateId));
    assert!(server.poll_output().is_none() && server.link(LinkId(1)).is_some());

    rightful.link = LinkId(5);
    server.link_up(now, rightful, MAX_FRAME).unwrap();
    assert!(matches!(server.poll_output(), Some(Output::Close(LinkId(1), CloseReason::Evicted))));
    assert!(server.link(LinkId(1)).is_none());
    assert_eq!((server.stats().links_refused, server.stats().links_evicted), (4, 1));
}

#[test]
fn only_the_neighbour_itself_can_say_its_goodbye() {
    let mut net = Net::new(&["relay.a", "relay", "server"], &[("relay.a", "relay"), ("relay", "server")]);
    net.ask("relay.a", "server", Request::new("cellnet.channel", "bye", Payload::none()));
    assert!(net.outcome().unwrap().code.is_ok());
    assert_eq!(net.at("server").neighbours().count(), 1);
    let now = net.now;
    net.at("relay").leave(now);
    net.run();
    assert_eq!(net.at("server").neighbours().count(), 0);
    assert_eq!(net.at("relay.a").neighbours().count(), 0);
    assert!(net.settled.iter().all(|settled| settled.outcome.is_ok()));
    net.settled.clear();
    net.ask("relay", "server", request());
    assert!(matches!(net.outcome(), Err(RequestError::Closed)));
}

#[test]
fn garbage_is_counted_and_leads_nowhere() {
    let mut net = Net::new(&["site-1", "server"], &[("site-1", "server")]);
    let now = net.now;
    let server = net.at("server");
    server.handle_message(now, LinkId(1), Message::default());
    server.handle_message(now, LinkId(9), message(MessageKind::Request, "site-1", "server"));
    server.handle_message(now, LinkId(1), message(MessageKind::Request, "server", "site-1"));
    server.handle_message(now, LinkId(1), message(MessageKind::Request, "not a name", "server"));
    server.handle_message(now, LinkId(1), message(MessageKind::Return, "site-1", "server"));
    assert_eq!(server.stats().malformed, 5);
    server.handle_message(now, LinkId(1), message(MessageKind::Request, "site-1", "no name"));
    assert_eq!(server.stats().unroutable, 1);
    net.run();
    assert!(net.delivered.is_empty());
}

// --- queues

#[test]
fn a_small_request_fails_when_its_lane_is_full_and_answers_still_leave() {
    let mut config = SwitchConfig::new(name("server"));
    config.control_queue = 4000;
    let mut server = Switch::new(config, Box::new(ChaCha20Rng::seed_from_u64(1)));
    let now = start();
    server.link_up(now, facts(1, "site-1"), MAX_FRAME).unwrap();
    let mut accepted = 0;
    let refused = loop {
        match server.notify(now, &name("site-1"), &request()) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, RequestError::Congested);
    assert!(accepted > 5 && server.queued_bytes(LinkId(1)).0 <= 3000);

    let mut asked = message(MessageKind::Request, "site-1", "server");
    asked.headers.set(key::REPLY_EXPECTED, true);
    server.handle_message(now, LinkId(1), asked);
    let to = loop {
        if let Some(Output::Deliver(delivery)) = server.poll_output() {
            break delivery.reply_to.unwrap();
        }
    };
    server.reply(now, to, Reply::ok(Payload::none()));
    let first = Headers::decode(server.poll_transmit(LinkId(1)).unwrap().headers).unwrap();
    assert_eq!(first.str(key::MSG_TYPE), Some("reply"));
}

#[test]
fn bulk_waits_for_control_but_not_for_ever() {
    let now = start();
    let mut server = switch("server");
    server.link_up(now, facts(1, "site-1"), MAX_FRAME).unwrap();
    let of = |topic: &str, len: usize| Request::new("t", topic, Payload::bytes(Bytes::from(vec![0; len])));
    server.notify(now, &name("site-1"), &of("bulk", 1 << 20)).unwrap();
    for _ in 0..12 {
        server.notify(now, &name("site-1"), &of("control", 32 << 10)).unwrap();
    }
    let topics: Vec<String> = std::iter::from_fn(|| server.poll_transmit(LinkId(1)))
        .map(|sent| Headers::decode(sent.headers).unwrap().str(key::TOPIC).unwrap().to_owned())
        .collect();
    assert_eq!(topics.iter().position(|topic| topic == "bulk"), Some(8), "after 256 KiB of control");
}

/// A relay between `site` (link 1) and a `server` (link 2) that takes nothing.
fn stuck_relay() -> (Switch, Now) {
    let mut config = SwitchConfig::new(name("relay"));
    (config.control_queue, config.bulk_queue, config.max_line) = (4000, 100_000, 2);
    let mut relay = Switch::new(config, Box::new(ChaCha20Rng::seed_from_u64(1)));
    let now = start();
    relay.link_up(now, facts(1, "relay.site"), MAX_FRAME).unwrap();
    relay.link_up(now, facts(2, "server"), MAX_FRAME).unwrap();
    (relay, now)
}

fn bulk_request() -> Message {
    let mut message = message(MessageKind::Request, "relay.site", "server");
    message.headers.set(key::REPLY_EXPECTED, true);
    message.headers.set(key::REQ_ID, "some-id");
    message.body = Bytes::from(vec![0; 80_000]).into();
    message
}

#[test]
fn a_forwarder_whose_queue_is_full_signals_the_link_the_traffic_came_from() {
    let (mut relay, now) = stuck_relay();
    relay.handle_message(now, LinkId(1), bulk_request());
    assert!(!relay.is_congested(LinkId(1)));
    relay.handle_message(now, LinkId(1), bulk_request());
    assert!(relay.is_congested(LinkId(1)));
    assert!(matches!(relay.poll_output(), Some(Output::Transmit(LinkId(2)))));
    assert!(matches!(relay.poll_output(), Some(Output::Congested(LinkId(1)))));
    assert!(relay.queued_bytes(LinkId(2)).1 <= 100_000);

    assert!(relay.poll_transmit(LinkId(2)).is_some());
    assert!(!relay.is_congested(LinkId(1)));
    assert!(matches!(relay.poll_output(), Some(Output::Relieved(LinkId(1)))));
    assert!(relay.poll_transmit(LinkId(2)).is_some());
    assert!(relay.poll_transmit(LinkId(2)).is_none());
}

#[test]
fn a_source_that_does_not_heed_the_signal_gets_its_requests_back() {
    let (mut relay, now) = stuck_relay();
    for _ in 0..4 {
        relay.handle_message(now, LinkId(1), bulk_request());
    }
    assert_eq!((relay.stats().congested, relay.stats().overflowed), (3, 1));
    let returned = Headers::decode(relay.poll_transmit(LinkId(1)).unwrap().headers).unwrap();
    assert_eq!(returned.str(key::MSG_TYPE), Some("return"));
}

#[test]
fn patience_ends_the_waiting_and_relieves_the_source() {
    let (mut relay, now) = stuck_relay();
    relay.handle_message(now, LinkId(1), bulk_request());
    relay.handle_message(now, LinkId(1), bulk_request());
    for second in 1..=30 {
        assert!(relay.poll_timeout().is_some());
        relay.handle_timeout(later(now, second * SECOND));
    }
    assert!(!relay.is_congested(LinkId(1)));
    assert!(relay.poll_transmit(LinkId(1)).is_some(), "the request came back");
    assert_eq!(relay.poll_timeout(), None);
}

#[test]
fn what_waits_for_a_lost_link_comes_back() {
    let (mut relay, now) = stuck_relay();
    relay.handle_message(now, LinkId(1), bulk_request());
    relay.handle_message(now, LinkId(1), bulk_request());
    relay.link_down(now, LinkId(2));
    assert!(!relay.is_congested(LinkId(1)));
    for _ in 0..2 {
        let returned = Headers::decode(relay.poll_transmit(LinkId(1)).unwrap().headers).unwrap();
        let message = Message { headers: returned, body: Bytes::new().into() };
        assert_eq!(
            (message.kind(), message.req_ids()),
            (Some(MessageKind::Return), vec!["some-id".to_owned()])
        );
    }
    assert_eq!(relay.stats().lost_with_link, 2);
}

// --- errors

#[test]
fn every_error_has_a_code_and_every_code_an_error() {
    let refused = |code| RequestError::Refused { code, reason: String::new() };
    let returned = |code| RequestError::Returned { by: name("server"), code, reason: String::new() };
    let errors = [
        (RequestError::Timeout, ReturnCode::Timeout, true),
        (RequestError::Unreachable, ReturnCode::TargetUnreachable, true),
        (RequestError::InvalidTarget, ReturnCode::InvalidTarget, false),
        (RequestError::TooBig, ReturnCode::MsgTooBig, false),
        (refused(ReturnCode::Unauthenticated), ReturnCode::Unauthenticated, false),
        (refused(ReturnCode::ServiceUnavailable), ReturnCode::ServiceUnavailable, true),
        (returned(ReturnCode::CommError), ReturnCode::CommError, true),
        (RequestError::LinkLost, ReturnCode::CommError, true),
        (RequestError::Congested, ReturnCode::CommError, true),
        (RequestError::Overloaded, ReturnCode::ServiceUnavailable, true),
        (RequestError::Closed, ReturnCode::ServiceUnavailable, false),
    ];
    for (error, code, retryable) in errors {
        assert_eq!((error.code(), error.is_retryable()), (code, retryable), "{error}");
    }
    for code in ReturnCode::ALL {
        let outcome = Reply::error(code, "reason").into_ok();
        assert_eq!(outcome.map_or_else(|error| error.code(), |reply| reply.code), code);
    }
}

#[test]
fn what_a_peer_says_is_escaped_and_short_in_errors() {
    let error = RequestError::Refused { code: ReturnCode::CommError, reason: "a\nb".repeat(1000) };
    let shown = error.to_string();
    assert!(shown.len() < 500 && !shown.contains('\n'));
}

proptest! {
    /// Payload and headers that a relay does not own arrive as the bytes that left, however encoded.
    #[test]
    fn a_relay_changes_nothing_that_is_not_its_own(
        body in proptest::collection::vec(any::<u8>(), 0..2000),
        number in any::<u64>(),
        text in ".{0,40}",
        wide in any::<bool>(),
    ) {
        let mut net = Net::new(&["relay.a", "relay", "server"], &[("relay.a", "relay"), ("relay", "server")]);
        // a map of one entry whose number is encoded in more bytes than it needs
        let mut foreign = vec![0x81, 0xa3, b'w', b'e', b'i', 0xcf];
        foreign.extend(if wide { number } else { number % 100 }.to_be_bytes());
        let mut message = message(MessageKind::Request, "relay.a", "server");
        message.headers.extend_missing(&Headers::decode(foreign.clone().into()).unwrap());
        message.headers.set("x-text", text.as_str());
        message.set_payload(Payload::bytes(body.clone().into()));
        let now = net.now;
        net.at("relay").handle_message(now, LinkId(1), message);
        let sent = net.at("relay").poll_transmit(LinkId(2)).unwrap();
        prop_assert_eq!(&sent.body[..], &body[..]);
        prop_assert!(sent.headers.windows(foreign.len() - 1).any(|window| window == &foreign[1..]));
        let headers = Headers::decode(sent.headers).unwrap();
        prop_assert_eq!(headers.str("x-text"), Some(text.as_str()));
    }

    /// Whatever arrives, nothing panics and the bounds hold.
    #[test]
    fn no_headers_make_a_switch_panic(entries in proptest::collection::vec((0..12usize, 0..8usize), 0..14)) {
        let keys = [
            key::MSG_TYPE, key::ORIGIN, key::DESTINATION, key::REQ_ID, key::ROUTE, key::REPLY_EXPECTED,
            key::CHANNEL, key::TOPIC, key::ORIGINAL_HEADERS, key::SERVER_TRANSIT_REQUIRED, key::RETURN_CODE, key::ERROR,
        ];
        let mut net = Net::new(&["a", "server", "b"], &[("a", "server"), ("server", "b")]);
        let mut headers = Headers::new();
        for (key, value) in entries {
            match value {
                0 => headers.set(keys[key], "a"),
                1 => headers.set(keys[key], "server"),
                2 => headers.set(keys[key], "b.c"),
                3 => headers.set(keys[key], "req"),
                4 => headers.set(keys[key], true),
                5 => headers.set(keys[key], vec!["a", "return"]),
                6 => headers.set(keys[key], -1i64),
                _ => headers.set(keys[key], "return"),
            }
        }
        let now = net.now;
        net.at("server").handle_message(now, LinkId(1), Message { headers, body: Bytes::new().into() });
        net.run();
        prop_assert!(net.settled.is_empty());
    }
}
