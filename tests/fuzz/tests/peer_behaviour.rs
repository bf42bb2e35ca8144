//! What a listening cell does with frames and payloads that no honest peer sends, over memory, TCP and gRPC.
//!
//! `tests/vectors/peer_behaviour.json` has what nvflare's listener did; each of its cases is here, and
//! [`CASES`] says where this one differs. It ends a link at the first thing that can only be an attack or a
//! defect of the peer, and answers what can be answered:
//!
//! | what comes | nvflare's listener | this one |
//! |---|---|---|
//! | data before the handshake | dropped, the link goes on | link closed |
//! | a handshake without a name, with an empty one, with the listener's own | READY, and a link of no use | link closed, no READY |
//! | a handshake with an invalid name | READY, then the link is closed | link closed, no READY |
//! | a second handshake on a link | the link takes the new name | link closed |
//! | headers that are no msgpack map, or have keys that are no text | dropped, the link goes on | link closed |
//! | headers that reach beyond the frame | dropped, the link goes on | link closed |
//! | a payload that does not decode | dropped; who asked waits until it gives up | `invalid_request` at once |
//! | a streamed request shorter than announced | acknowledged; who asked waits until it gives up | `StreamError` at once |
//! | frames of kind 2, 3 and above 7, another application's data, a ping before the handshake | dropped | dropped and counted |
//!
//! In everything else that the vectors have, the two do the same.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use locule_cell::{Cell, CellConfig, HandlerError, Incoming, Reply};
use locule_frame::{FrameKind, Hello, Prefix};
use locule_message::{Encoding, Fqcn, Headers, ReturnCode, key};
use locule_transport::{Endpoint, Link, OutFrame, Transport, Transports};
use locule_transport_grpc::GrpcTransport;
use locule_transport_mem::MemTransport;
use locule_transport_tcp::TcpTransport;
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// What comes of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expect {
    Ready,
    Pong,
    /// A reply with this code and error.
    Says(&'static str, Option<&'static str>),
    /// Nothing, and the link goes on.
    Silence,
    Closed,
}

use Expect::{Closed, Pong, Ready, Says, Silence};

const OK: Expect = Says("ok", None);

/// Name of the case in the vectors, whether nvflare's listener does the same, and what to send.
type Case = (&'static str, bool, fn() -> Vec<(Vec<u8>, Expect)>);

const CASES: &[Case] = &[
    ("hello ok then ping (with nil payload)", true, || vec![hello("site-1"), (control(6, b"\xc0"), Pong)]),
    ("ping with empty payload (16-byte frame)", true, || vec![hello("site-1"), (control(6, b""), Pong)]),
    ("ping before hello, then hello", true, || vec![(control(6, b"\xc0"), Silence), hello("site-1")]),
    ("data before hello, then hello, then data", false, || vec![(request(&[]), Closed)]),
    ("hello without endpoint_name", false, || {
        vec![(control(4, b"\x82\xa9timestamp\xcb\0\0\0\0\0\0\0\0\xa4fqcn\xa6site-1"), Closed)]
    }),
    ("hello with invalid endpoint_name", false, || vec![(hello("no name!").0, Closed)]),
    ("hello with dup part a.a", false, || vec![(hello("a.a").0, Closed)]),
    ("hello claiming the listener's own name", false, || vec![(hello("server").0, Closed)]),
    ("hello with spaces is normalised", true, || vec![hello(" site-1 "), (request(&[]), OK)]),
    ("READY instead of HELLO from a connecting peer", true, || {
        vec![(control(5, &hello("site-1").0[16..]), Silence), (request(&[]), OK)]
    }),
    ("types 2,3,99 ignored, connection survives", true, || {
        let frames = [2, 3, 99, 8, 255].map(|kind| (control(kind, b"x"), Silence));
        [hello("site-1")].into_iter().chain(frames).chain([(request(&[]), OK)]).collect()
    }),
    ("undecodable header msgpack ignored", false, || vec![hello("site-1"), (data(1, b"\xc1", b""), Closed)]),
    ("int map key in header ignored", false, || {
        vec![hello("site-1"), (data(1, b"\x81\x01\x01", b""), Closed)]
    }),
    ("unknown app id 7 ignored", true, || {
        let mut other = request(&[]);
        other[11] = 7;
        vec![hello("site-1"), (other, Silence)]
    }),
    ("length < 16 closes", true, || {
        vec![hello("site-1"), (b"\0\0\0\x0f\0\0\x01\0\0\0\0\x01\0\0\0".to_vec(), Closed)]
    }),
    ("length > limit closes", true, || {
        let mut long = request(&[]);
        long[..4].copy_from_slice(&2_145_386_497_u32.to_be_bytes());
        vec![hello("site-1"), (long, Closed)]
    }),
    ("header_len beyond frame", false, || {
        let mut lie = request(&[]);
        lie[4..6].copy_from_slice(&u16::MAX.to_be_bytes());
        vec![hello("site-1"), (lie, Closed)]
    }),
    ("request missing header cn__msg_type", true, || without("cn__msg_type", Silence)),
    ("request missing header cn__origin", true, || without("cn__origin", Silence)),
    ("request missing header cn__destination", true, || without("cn__destination", Silence)),
    ("request missing header cn__req_id", true, || without("cn__req_id", OK)),
    ("request missing header cn__route", true, || without("cn__route", OK)),
    ("request missing header cn__payload_encoding", true, || without("cn__payload_encoding", OK)),
    ("request missing header cn__payload_len", true, || without("cn__payload_len", OK)),
    ("request missing header cn__send_time", true, || without("cn__send_time", OK)),
    ("request missing header cn__secure", true, || without("cn__secure", OK)),
    ("request missing header cn__optional", true, || without("cn__optional", OK)),
    ("request missing header cn__from", true, || without("cn__from", OK)),
    ("request missing header cn__to", true, || without("cn__to", OK)),
    ("request missing header cn__reply_expected", true, || without("cn__reply_expected", Silence)),
    ("request missing header cn__channel", true, || without("cn__channel", NO_CALLBACK)),
    ("request missing header cn__topic", true, || without("cn__topic", NO_CALLBACK)),
    ("origin differs from endpoint (clear mode)", true, || {
        vec![hello("site-1"), (with(&[(key::ORIGIN, "site-2")], b""), OK)]
    }),
    ("garbage fobs payload", false, || {
        vec![
            hello("site-1"),
            (with(&[(key::PAYLOAD_ENCODING, "fobs")], b"zz"), Says("invalid_request", Some(""))),
        ]
    }),
    ("unknown payload_encoding treated as bytes", true, || {
        vec![hello("site-1"), (with(&[(key::PAYLOAD_ENCODING, "brotli")], b"zz"), OK)]
    }),
    ("unroutable: no reply expected / reply expected", true, || {
        let one_way = frame_of(|headers| {
            headers.set(key::DESTINATION, "site-9");
            headers.set(key::REPLY_EXPECTED, false);
        });
        let asked = with(&[(key::DESTINATION, "site-9")], b"");
        vec![hello("site-1"), (one_way, Silence), (asked, Says("comm_error", Some("cannot forward")))]
    }),
    ("unsolicited reply / bogus msg_type", true, || {
        let kinds = ["reply", "bogus"].map(|kind| (with(&[(key::MSG_TYPE, kind)], b""), Silence));
        [hello("site-1")].into_iter().chain(kinds).collect()
    }),
    ("DATA with zero headers", true, || {
        vec![hello("site-1"), (data(1, b"", b""), Silence), (request(&[]), OK)]
    }),
    ("64KB-ish header accepted", true, || {
        let long = "x".repeat(64_000);
        vec![hello("site-1"), (with(&[("padding", &long)], b""), OK)]
    }),
];

/// What the vectors do not have, or only with two connections.
const MORE: &[Case] = &[
    ("empty endpoint", false, || vec![(hello("").0, Closed)]),
    ("two names", false, || {
        let two = Hello { fqcn: Some("site-2".into()), ..greeting("site-1") };
        vec![(control(4, &two.encode()), Closed)]
    }),
    ("a second hello", false, || vec![hello("site-1"), (hello("site-1").0, Closed)]),
    ("ready after hello", false, || {
        vec![hello("site-1"), (control(5, &greeting("site-1").encode()), Closed)]
    }),
    ("a handshake that is too long", false, || vec![(hello(&"x".repeat(9000)).0, Closed)]),
    ("a handshake that is no msgpack", false, || vec![(control(4, b"\xc1"), Closed)]),
    ("a handshake with bytes behind it", false, || {
        vec![(control(4, &[greeting("site-1").encode(), vec![0]].concat()), Closed)]
    }),
    ("a frame of a stranger that is too long", false, || vec![(control(4, &vec![0; 200 << 10]), Closed)]),
    ("pings without end before the handshake", false, || {
        let mut steps: Vec<_> = (0..100).map(|_| (control(6, b""), Silence)).collect();
        steps.push(hello("site-1"));
        steps
    }),
    ("a header twice", false, || vec![hello("site-1"), (data(1, b"\x82\xa1a\x01\xa1a\x02", b""), Closed)]),
    ("a request of the listener itself", false, || {
        vec![hello("site-1"), (with(&[(key::ORIGIN, "server")], b""), Silence)]
    }),
    ("unroutable, with headers that leave no room for a return", false, || {
        let long = "x".repeat(64_000);
        let asked = with(&[(key::DESTINATION, "site-9"), ("padding", &long)], b"");
        vec![hello("site-1"), (asked, Says("comm_error", Some("cannot forward")))]
    }),
    ("a name with a newline", false, || vec![(hello("site\n1").0, Closed)]),
    ("a streamed request shorter than announced", false, || {
        let chunk = frame_of(|headers| {
            for (name, value) in [(key::CHANNEL, "sm__STREAM"), (key::TOPIC, "sm__DATA")] {
                headers.set(name, value);
            }
            headers.set(key::REPLY_EXPECTED, false);
            for (name, value) in [("sm__id", 7), ("sm__dt", 2), ("sm__sq", 0), ("sm__sz", 100)] {
                headers.set(name, value);
            }
            for (name, value) in [("sm__ch", "aux_communication"), ("sm__tp", "echo"), ("sm__ri", "r")] {
                headers.set(name, value);
            }
        });
        vec![hello("site-1"), (chunk, Says("StreamError", None))]
    }),
];

const NO_CALLBACK: Expect = Says("process_exception", Some("no callback"));

#[test]
fn every_case_of_the_vectors_is_here_and_differs_where_it_says_so() {
    let file: Json = serde_json::from_str(include_str!("../../vectors/peer_behaviour.json")).unwrap();
    let vectors = file["cases"].as_array().unwrap();
    for vector in vectors {
        let name = vector["case"].as_str().unwrap();
        if name == "second connection same name evicts first" {
            continue;
        }
        let (_, same, steps) = CASES.iter().find(|(case, ..)| *case == name).expect(name);
        let theirs: Vec<Json> = vector["observed"].as_array().unwrap().clone();
        let steps = steps();
        let ours: Vec<_> =
            steps.iter().map(|(_, expect)| *expect).filter(|expect| *expect != Ready).collect();
        let theirs: Vec<_> = theirs.iter().filter(|seen| seen["type"] != 5).collect();
        let like = |ours: &Expect, theirs: &Json| match *ours {
            Silence => theirs == "NOTHING",
            Closed => theirs == "CLOSED",
            Pong => theirs["type"] == 7,
            Ready => theirs["type"] == 5,
            Says(code, error) => {
                theirs["cn__return_code"] == code && error.is_none_or(|error| theirs["cn__error"] == error)
            }
        };
        // silence before the last step is not in all of the vectors
        let agrees = match (ours.last(), theirs.last()) {
            (Some(ours), Some(theirs)) => like(ours, theirs),
            (Some(_), None) => false,
            (None, _) => true,
        };
        assert!(agrees || !same, "{name}: {ours:?} {theirs:?}");
    }
    assert_eq!(CASES.len() + 1, vectors.len());
}

#[tokio::test]
async fn a_listener_in_memory_does_as_it_says() {
    let network = MemTransport::new();
    let server = server(Transports::new().with(network.clone())).await;
    let at = server.listen(&Endpoint::parse("mem://server").unwrap()).await.unwrap();
    for case in CASES.iter().chain(MORE) {
        let link = network.dial(&at).await.unwrap();
        check(&server, case, Peer::Link(link)).await;
    }
}

#[tokio::test]
async fn a_listener_over_grpc_does_as_it_says() {
    let grpc = GrpcTransport::clear();
    let server = server(Transports::new().with(grpc.clone())).await;
    let at = server.listen(&Endpoint::parse("grpc://127.0.0.1:0").unwrap()).await.unwrap();
    for case in CASES.iter().chain(MORE) {
        let link = grpc.dial(&at).await.unwrap();
        check(&server, case, Peer::Link(link)).await;
    }
}

#[tokio::test]
async fn a_listener_over_tcp_does_as_it_says() {
    let server = server(Transports::new().with(TcpTransport::clear())).await;
    let at = server.listen(&Endpoint::parse("tcp://127.0.0.1:0").unwrap()).await.unwrap();
    for case in CASES.iter().chain(MORE) {
        let stream = TcpStream::connect((at.host(), at.port().unwrap())).await.unwrap();
        check(&server, case, Peer::Tcp(stream)).await;
    }
}

#[tokio::test]
async fn a_second_link_of_one_name_takes_the_place_of_the_first() {
    let network = MemTransport::new();
    let server = server(Transports::new().with(network.clone())).await;
    let at = server.listen(&Endpoint::parse("mem://server").unwrap()).await.unwrap();
    let mut first = Peer::Link(network.dial(&at).await.unwrap());
    let mut second = Peer::Link(network.dial(&at).await.unwrap());
    for peer in [&mut first, &mut second] {
        peer.send(&hello("site-1").0).await;
        assert_eq!(peer.next().await.unwrap()[6], 5);
    }
    assert!(first.next().await.is_none(), "the first link is closed");
    second.send(&request(&[])).await;
    assert_eq!(code_of(&second.next().await.unwrap()).0, "ok");
}

#[tokio::test]
async fn a_payload_that_does_not_decode_is_answered_at_once() {
    let network = MemTransport::new();
    let server = server(Transports::new().with(network.clone())).await;
    let at = server.listen(&Endpoint::parse("mem://server").unwrap()).await.unwrap();
    let mut peer = Peer::Link(network.dial(&at).await.unwrap());
    peer.send(&hello("site-1").0).await;
    assert_eq!(peer.next().await.unwrap()[6], 5);
    let (mut refused, mut taken) = (0, 0);
    for (name, payload) in payloads() {
        peer.send(&with(&[(key::PAYLOAD_ENCODING, "fobs")], &payload)).await;
        let (code, error) = code_of(&peer.next().await.unwrap());
        match locule_fobs::decode(payload.into()) {
            Ok(_) => {
                assert_eq!(code, "ok", "{name}");
                taken += 1;
            }
            Err(expected) => {
                assert_eq!(
                    (code, error),
                    (ReturnCode::InvalidRequest.to_string(), expected.to_string()),
                    "{name}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 300 && taken >= 105, "{refused} {taken}");
    assert_eq!(server.stats().links, 1);
}

/// Every value that nvflare encodes, the same cut short and with another marker, and forms of those that it
/// refuses to encode, as an encoder without scruples would make them.
fn payloads() -> Vec<(String, Vec<u8>)> {
    let file: Json = serde_json::from_str(include_str!("../../vectors/fobs.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    let mut payloads = Vec::new();
    for vector in vectors {
        let name = vector["name"].as_str().unwrap();
        let Some(hex) = vector["hex"].as_str() else {
            payloads.push((name.to_owned(), forged(name)));
            continue;
        };
        let whole: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let mut other = whole.clone();
        other[0] = 7;
        let cut = whole[..whole.len() - 1].to_vec();
        let longer = [&whole[..], &[0]].concat();
        for (what, payload) in [("", whole), (" cut", cut), (" marked", other), (" longer", longer)] {
            payloads.push((format!("{name}{what}"), payload));
        }
    }
    payloads
}

fn forged(name: &str) -> Vec<u8> {
    let object = |class: &str, data: &[u8]| {
        let class = [&[0xd9, class.len() as u8], class.as_bytes()].concat();
        [b"\x82\xad__fobs_type__", &class[..], b"\xad__fobs_data__", data].concat()
    };
    let body = match name {
        "int_overflow_pos" => b"\xc7\x09\x01\x01\0\0\0\0\0\0\0\0".to_vec(),
        "int_overflow_neg" => b"\xc7\x09\x01\xff\0\0\0\0\0\0\0\0".to_vec(),
        "frozenset" => object("frozenset", b"\x91\x01"),
        "date" => object("datetime.date", b"\x93\xcd\x07\xe8\x02\x1d"),
        "complex" => object("complex", b"\x92\x01\x02"),
        "ndarray_object" => object("numpy.ndarray", b"\xc4\x04\x80\x04N."),
        "npscalar_bool_" => object("numpy.bool", b"\x01"),
        "npscalar_int16" => object("numpy.int16", b"\x01"),
        other => panic!("no form of {other}"),
    };
    [&[100, 0][..], &(body.len() as u64).to_be_bytes(), &body].concat()
}

async fn server(transports: Transports) -> Cell {
    let server = Cell::builder(CellConfig::new(Fqcn::server())).transports(transports).start();
    server.handle("task", "echo", |incoming: Incoming| async move {
        let payload = incoming.into_payload();
        if payload.encoding == Encoding::Fobs {
            locule_fobs::decode(payload.body.whole())
                .map_err(|error| HandlerError::invalid_request(error.to_string()))?;
        }
        Ok(Reply::ok(payload))
    });
    server
}

/// Plays a case to a listener.
async fn check(server: &Cell, (name, _, steps): &Case, mut peer: Peer) {
    let before = server.stats();
    let (mut ignored, mut is_linked) = (0, false);
    for (frame, expect) in steps() {
        peer.send(&frame).await;
        match expect {
            Ready => {
                assert_eq!(peer.next().await.expect(name)[6], 5, "{name}");
                is_linked = true;
            }
            Pong => assert_eq!(peer.next().await.expect(name)[6], 7, "{name}"),
            Says("StreamError", _) => {
                // once more among the acknowledgements, for older senders
                for topic in ["sm__ERROR", "sm__ACK"] {
                    let headers = headers_of(&peer.next().await.expect(name));
                    assert_eq!(
                        (headers.str("sm__et"), headers.str(key::TOPIC)),
                        (Some("StreamError"), Some(topic))
                    );
                }
            }
            Says(code, error) => {
                let (said, why) = code_of(&peer.next().await.expect(name));
                assert_eq!(said, code, "{name}: {why}");
                assert!(error.is_none_or(|error| why.contains(error)), "{name}: {why}");
            }
            Silence if frame[6] == 5 => is_linked = true,
            Silence => {
                ignored += u64::from(!matches!(frame[6], 1) || frame[11] != 1);
                if is_linked {
                    // the next thing that is said is the answer to this
                    peer.send(&control(6, b"")).await;
                    assert_eq!(peer.next().await.expect(name)[6], 7, "{name}");
                }
            }
            Closed => {
                assert!(peer.next().await.is_none(), "{name}: the link goes on");
                return;
            }
        }
    }
    assert_eq!(server.stats().frames_ignored - before.frames_ignored, ignored, "{name}");
    assert_eq!(server.stats().links_broken, before.links_broken, "{name}");
    peer.send(&control(6, b"")).await;
    assert_eq!(peer.next().await.expect(name)[6], 7, "{name}");
}

/// A peer that sends any bytes.
enum Peer {
    Link(Link),
    Tcp(TcpStream),
}

impl Peer {
    async fn send(&mut self, frame: &[u8]) {
        // whether it arrives shows in what comes back
        match self {
            Self::Link(link) => {
                let frame = OutFrame::new(Bytes::copy_from_slice(frame), "");
                let _ = link.outgoing.send(frame).await;
            }
            Self::Tcp(stream) => {
                let _ = stream.write_all(frame).await;
            }
        }
    }

    /// The next frame that is no acknowledgement; `None` when the link is closed.
    async fn next(&mut self) -> Option<Bytes> {
        tokio::time::timeout(PATIENCE, async {
            match self {
                Self::Link(link) => link.incoming.next().await?.ok(),
                Self::Tcp(stream) => {
                    let mut frame = vec![0; 16];
                    stream.read_exact(&mut frame).await.ok()?;
                    let len = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
                    frame.resize(len, 0);
                    stream.read_exact(&mut frame[16..]).await.ok()?;
                    Some(frame.into())
                }
            }
        })
        .await
        .expect("something comes, or the link is closed")
    }
}

fn headers_of(frame: &Bytes) -> Headers {
    let end = 16 + usize::from(u16::from_be_bytes([frame[4], frame[5]]));
    Headers::decode(frame.slice(16..end)).unwrap()
}

fn code_of(frame: &Bytes) -> (String, String) {
    let headers = headers_of(frame);
    let text = |key| headers.str(key).unwrap_or_default().to_owned();
    (text(key::RETURN_CODE), text(key::ERROR))
}

fn raw(kind: u8, app_id: u16, headers: &[u8], body: &[u8]) -> Vec<u8> {
    let prefix = Prefix {
        length: (16 + headers.len() + body.len()) as u32,
        header_len: headers.len() as u16,
        kind: FrameKind::Data,
        flags: 0,
        app_id,
        stream_id: 17,
        sequence: 1,
    };
    let mut frame = [&prefix.encode()[..], headers, body].concat();
    frame[6] = kind;
    frame
}

fn control(kind: u8, payload: &[u8]) -> Vec<u8> {
    raw(kind, 0, b"", payload)
}

fn data(app_id: u16, headers: &[u8], body: &[u8]) -> Vec<u8> {
    raw(1, app_id, headers, body)
}

fn greeting(name: &str) -> Hello {
    Hello {
        endpoint_name: name.into(),
        timestamp: 0.0,
        fqcn: Some(name.into()),
        // a listener waits a moment before it sends to a stock peer
        software: Some("locule/0".into()),
        capabilities: Vec::new(),
    }
}

fn hello(name: &str) -> (Vec<u8>, Expect) {
    (control(4, &greeting(name).encode()), Ready)
}

/// The headers of a whole request.
fn whole() -> Headers {
    let mut headers = Headers::new();
    for (name, value) in [
        (key::MSG_TYPE, "req"),
        (key::REQ_ID, "5a5a5a5a-0000-4000-8000-000000000000"),
        (key::CHANNEL, "task"),
        (key::TOPIC, "echo"),
        (key::ORIGIN, "site-1"),
        (key::DESTINATION, "server"),
        (key::FROM_CELL, "site-1"),
        (key::TO_CELL, "server"),
        (key::PAYLOAD_ENCODING, "none"),
    ] {
        headers.set(name, value);
    }
    headers.set(key::REPLY_EXPECTED, true);
    headers.set(key::SECURE, false);
    headers.set(key::OPTIONAL, false);
    headers.set(key::PAYLOAD_LEN, 0);
    headers.set(key::SEND_TIME, 1.0);
    headers.set(key::ROUTE, vec!["site-1"]);
    headers
}

fn request(body: &[u8]) -> Vec<u8> {
    data(1, &whole().encode().unwrap(), body)
}

fn with(changes: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut headers = whole();
    for (name, value) in changes {
        headers.set(name, *value);
    }
    data(1, &headers.encode().unwrap(), body)
}

fn frame_of(change: impl FnOnce(&mut Headers)) -> Vec<u8> {
    let mut headers = whole();
    change(&mut headers);
    data(1, &headers.encode().unwrap(), b"")
}

fn without(name: &str, expect: Expect) -> Vec<(Vec<u8>, Expect)> {
    let frame = frame_of(|headers| assert!(headers.remove(name), "{name}"));
    vec![hello("site-1"), (frame, expect)]
}
