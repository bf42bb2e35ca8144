//! A link's life: handshake, keep-alive, limits, and what it thinks of misbehaviour.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use locule_frame::{
    Event, FrameError, FrameKind, Hello, HelloError, LinkConfig, LinkDead, LinkProtocol, Prefix, PrefixError,
    SendError, Side,
};

const WALL: SystemTime = UNIX_EPOCH;

fn listener(now: Instant) -> LinkProtocol {
    LinkProtocol::new(LinkConfig::new("server", Side::Listener), now, WALL)
}

fn dialer(now: Instant) -> LinkProtocol {
    LinkProtocol::new(LinkConfig::new("site-1", Side::Dialer), now, WALL)
}

/// A listener that has been introduced to `site-1` and has sent its READY.
fn established(now: Instant) -> LinkProtocol {
    let mut link = listener(now);
    link.handle_frame(now, WALL, hello_from("site-1")).expect("hello");
    link.poll_transmit(now).expect("ready");
    link
}

fn frame(kind: FrameKind, app_id: u16, headers: &[u8], payload: &[u8]) -> Bytes {
    let prefix = Prefix {
        length: u32::try_from(Prefix::LEN + headers.len() + payload.len()).expect("small"),
        header_len: u16::try_from(headers.len()).expect("small"),
        kind,
        flags: 0,
        app_id,
        stream_id: 0,
        sequence: 0,
    };
    [&prefix.encode(), headers, payload].concat().into()
}

fn hello_from(name: &str) -> Bytes {
    let hello = Hello {
        endpoint_name: name.into(),
        timestamp: 1.0,
        fqcn: Some(name.into()),
        software: None,
        capabilities: Vec::new(),
    };
    frame(FrameKind::Hello, 0, b"", &hello.encode())
}

fn data(payload: &[u8]) -> Bytes {
    frame(FrameKind::Data, 1, b"\x80", payload)
}

fn kind(frame: Option<Bytes>) -> Option<FrameKind> {
    frame.map(|frame| Prefix::parse(&frame).expect("own frame").kind)
}

#[test]
fn a_listener_waits_for_hello_and_answers_ready() {
    let now = Instant::now();
    let mut link = listener(now);
    assert_eq!(link.poll_transmit(now), None);
    let event = link.handle_frame(now, WALL, hello_from("site-1")).expect("hello");
    assert!(matches!(event, Some(Event::Established(peer)) if peer.endpoint_name == "site-1"));
    assert_eq!(kind(link.poll_transmit(now)), Some(FrameKind::Ready));
    assert_eq!(link.poll_transmit(now), None);
}

#[test]
fn a_listener_takes_ready_for_an_introduction_and_stays_silent() {
    let now = Instant::now();
    let mut link = listener(now);
    let ready = Bytes::from([&hello_from("site-1")[..6], &[5], &hello_from("site-1")[7..]].concat());
    assert!(matches!(link.handle_frame(now, WALL, ready), Ok(Some(Event::Established(_)))));
    assert_eq!(link.poll_transmit(now), None);
    assert!(matches!(link.handle_frame(now, WALL, data(b"")), Ok(Some(Event::Data { .. }))));
}

#[test]
fn white_space_around_a_name_is_dropped() {
    let now = Instant::now();
    let mut link = listener(now);
    link.handle_frame(now, WALL, hello_from("  site-1 \n")).expect("hello");
    assert_eq!(link.peer().map(|peer| &*peer.endpoint_name), Some("site-1"));
}

#[test]
fn extensions_are_offered_only_to_those_who_know_them() {
    let now = Instant::now();
    let ours = LinkConfig {
        software: Some("locule/0.1.0".into()),
        capabilities: vec!["credit".into()],
        ..LinkConfig::new("site-1", Side::Dialer)
    };
    let mut ours = LinkProtocol::new(ours, now, WALL);
    let mut server = listener(now);
    server.handle_frame(now, WALL, ours.poll_transmit(now).expect("hello")).expect("hello");
    assert!(server.peer_is_ours());
    assert_eq!(server.settled_at(), Some(now));
    assert_eq!(server.peer().expect("open").capabilities, ["credit"]);

    let stock = established(now);
    assert!(!stock.peer_is_ours());
    assert_eq!(stock.settled_at(), Some(now + Duration::from_millis(100)));
}

#[test]
fn keys_that_are_not_known_are_read_past() {
    let mut payload =
        b"\x85\xadendpoint_name\xa1a\xa1x\x82\xc4\x01z\x93\xc0\xc3\x05\xa1y\xd4\x01\x01".to_vec();
    payload.extend_from_slice(b"\xa8software\x07\xaccapabilities\x93\x01\x91\xa1q\xa1c\xc4\x01k\xc0");
    let hello = Hello::decode(&payload).expect("valid");
    assert_eq!((hello.endpoint_name.as_str(), hello.software), ("a", None));
    assert_eq!(hello.capabilities, ["c"]);
}

#[test]
fn a_peer_that_does_not_say_who_it_is_is_refused() {
    let check = |payload: &[u8], expected: HelloError| {
        let now = Instant::now();
        let mut link = listener(now);
        let refused = link.handle_frame(now, WALL, frame(FrameKind::Hello, 0, b"", payload));
        assert_eq!(refused, Err(FrameError::Hello(expected)), "{payload:02x?}");
        assert_eq!(link.poll_transmit(now), None, "no READY to a peer that was refused");
    };
    check(b"", HelloError::Malformed);
    check(b"\xc0", HelloError::NotAMap);
    check(b"\x80", HelloError::NoName);
    check(b"\x81\xadendpoint_name\xc0", HelloError::NoName);
    check(b"\x81\xadendpoint_name\xa2 \n", HelloError::NoName);
    check(b"\x82\xadendpoint_name\xa1a\xa4fqcn\xa1b", HelloError::TwoNames);
    check(b"\x80\x80", HelloError::Malformed);
    check(b"\x81\x01\x01", HelloError::Malformed);
    check(b"\xdf\xff\xff\xff\xff", HelloError::Malformed);
    check(b"\x81\xa1a\xdd\xff\xff\xff\xff", HelloError::Malformed);
    check(b"\x81\xa1a\xc9\xff\xff\xff\xff\x01", HelloError::Malformed);
    check(&[0x91; 8000], HelloError::NotAMap);
    check(&[0x80; 8193], HelloError::TooLong { len: 8193 });
}

#[test]
fn nesting_in_a_handshake_costs_no_stack() {
    let mut payload = b"\x82\xadendpoint_name\xa1a\xa1x".to_vec();
    payload.resize(8000, 0x91);
    payload.push(0xc0);
    assert_eq!(Hello::decode(&payload).expect("deep but whole").endpoint_name, "a");
}

#[test]
fn a_peer_may_not_bear_our_own_name() {
    let now = Instant::now();
    assert_eq!(listener(now).handle_frame(now, WALL, hello_from(" server")), Err(FrameError::OwnName));
}

#[test]
fn a_link_has_one_handshake() {
    let now = Instant::now();
    let mut link = established(now);
    assert_eq!(link.handle_frame(now, WALL, hello_from("site-2")), Err(FrameError::SecondHandshake));
    assert_eq!(dialer(now).handle_frame(now, WALL, hello_from("server")), Err(FrameError::HelloToDialer));
}

#[test]
fn nothing_but_a_greeting_counts_before_the_handshake() {
    let now = Instant::now();
    let mut link = listener(now);
    assert_eq!(link.handle_frame(now, WALL, frame(FrameKind::Ping, 0, b"", b"\xc0")), Ok(None));
    assert_eq!(link.poll_transmit(now), None, "no PONG to a stranger");
    assert_eq!(link.data(b"", Bytes::new()), Err(SendError::NotEstablished));
    assert_eq!(link.handle_frame(now, WALL, data(b"")), Err(FrameError::DataBeforeHandshake));
    assert_eq!(link.handle_frame(now, WALL, hello_from("site-1")), Err(FrameError::Closed));
}

#[test]
fn frames_without_meaning_are_ignored_and_counted() {
    let now = Instant::now();
    let mut link = established(now);
    for meaningless in [
        frame(FrameKind::Frag, 0, b"", b""),
        frame(FrameKind::Ack, 0, b"", b""),
        frame(FrameKind::Other(99), 0, b"", b""),
        frame(FrameKind::Data, 7, b"\x80", b""),
    ] {
        assert_eq!(link.handle_frame(now, WALL, meaningless), Ok(None));
    }
    assert_eq!(link.ignored(), 4);
    assert!(matches!(link.handle_frame(now, WALL, data(b"x")), Ok(Some(Event::Data { .. }))));
}

#[test]
fn data_without_headers_or_payload_is_data() {
    let now = Instant::now();
    let mut link = established(now);
    let event = link.handle_frame(now, WALL, frame(FrameKind::Data, 1, b"", b"")).expect("legal");
    assert_eq!(event, Some(Event::Data { headers: Bytes::new(), payload: Bytes::new() }));
}

#[test]
fn a_frame_that_lies_about_its_size_closes_the_link() {
    let check = |bytes: &[u8], expected: FrameError| {
        let now = Instant::now();
        let mut link = established(now);
        assert_eq!(link.handle_frame(now, WALL, Bytes::copy_from_slice(bytes)), Err(expected));
        assert_eq!(link.handle_frame(now, WALL, data(b"")), Err(FrameError::Closed));
        assert!(link.peer().is_none());
    };
    let mut lie = data(b"").to_vec();
    lie[5] = 200;
    check(&lie, PrefixError::HeadersBeyondFrame { length: 17, header_len: 200 }.into());
    lie[3] = 15;
    check(&lie, PrefixError::LengthBelowPrefix { length: 15 }.into());
    let mut short = data(b"abc").to_vec();
    short.pop();
    check(&short, FrameError::WrongLength { claimed: 20, len: 19 });
    check(b"GET / HTTP/1.1\r\n", FrameError::WrongLength { claimed: 0x4745_5420, len: 16 });
    check(b"short", PrefixError::Short { len: 5 }.into());
}

#[test]
fn a_stranger_may_not_send_much_until_it_is_admitted() {
    let now = Instant::now();
    let mut link = established(now);
    let largest = data(&vec![0; 160 * 1024 - 17]);
    assert!(link.handle_frame(now, WALL, largest).is_ok());
    link.admit();
    let larger = data(&vec![0; 160 * 1024 - 16]);
    assert!(link.handle_frame(now, WALL, larger.clone()).is_ok());

    let mut link = established(now);
    let refused = link.handle_frame(now, WALL, larger);
    assert_eq!(refused, Err(FrameError::TooLong { len: 160 * 1024 + 1, max: 160 * 1024 }));
}

#[test]
fn a_dialer_trusts_whom_it_dialed_after_the_handshake() {
    let now = Instant::now();
    let mut link = dialer(now);
    assert_eq!(link.max_incoming(), 160 * 1024);
    let ready = Bytes::from([&hello_from("server")[..6], &[5], &hello_from("server")[7..]].concat());
    link.handle_frame(now, WALL, ready).expect("ready");
    assert_eq!(link.max_incoming(), Prefix::MAX_FRAME_LEN);
}

#[test]
fn what_does_not_fit_a_frame_is_refused_and_leaves_the_link_as_it_is() {
    let now = Instant::now();
    let small = LinkConfig { max_frame_len: 100, ..LinkConfig::new("server", Side::Listener) };
    let mut link = LinkProtocol::new(small, now, WALL);
    link.handle_frame(now, WALL, hello_from("site-1")).expect("hello");
    let headers = vec![0; 65_536];
    assert_eq!(link.data(&headers, Bytes::new()), Err(SendError::HeadersTooLong { len: 65_536 }));
    let body = Bytes::from(vec![0; 85]);
    assert_eq!(link.data(b"", body.clone()), Err(SendError::TooLong { len: 101, max: 100 }));
    assert!(link.data(b"", body.slice(1..)).is_ok());
}

#[test]
fn a_body_is_not_copied() {
    let now = Instant::now();
    let mut link = established(now);
    let body = Bytes::from(vec![7; 1000]);
    let out = link.data(b"\x80", body.clone()).expect("established");
    assert_eq!(out.body.as_ptr(), body.as_ptr());
    let arriving = data(&body);
    let Ok(Some(Event::Data { payload, .. })) = link.handle_frame(now, WALL, arriving.clone()) else {
        panic!("data")
    };
    assert_eq!(payload.as_ptr(), arriving[17..].as_ptr());
}

#[test]
fn a_handshake_has_ten_seconds() {
    let now = Instant::now();
    let mut link = listener(now);
    let deadline = now + Duration::from_secs(10);
    assert_eq!(link.poll_timeout(), Some(deadline));
    // chatter does not buy time
    link.handle_frame(now + Duration::from_secs(9), WALL, frame(FrameKind::Ping, 0, b"", b""))
        .expect("ignored");
    assert_eq!(link.handle_timeout(deadline - Duration::from_nanos(1)), Ok(()));
    let dead = LinkDead::HandshakeTimedOut { after: Duration::from_secs(10) };
    assert_eq!(link.handle_timeout(deadline), Err(dead));
    assert_eq!(link.poll_timeout(), None);
    assert_eq!(link.handle_frame(deadline, WALL, hello_from("site-1")), Err(FrameError::Closed));
}

#[test]
fn an_idle_link_is_pinged_and_an_answer_keeps_it() {
    let now = Instant::now();
    let mut link = established(now);
    let idle = now + Duration::from_secs(60);
    assert_eq!(link.poll_timeout(), Some(idle));
    assert_eq!(link.poll_transmit(now), None);
    link.handle_timeout(idle).expect("alive");
    assert_eq!(kind(link.poll_transmit(idle)), Some(FrameKind::Ping));
    let answered = idle + Duration::from_secs(1);
    link.handle_frame(answered, WALL, frame(FrameKind::Pong, 0, b"", b"\xc0")).expect("pong");
    assert_eq!(link.poll_timeout(), Some(answered + Duration::from_secs(60)));
}

#[test]
fn a_peer_that_answers_no_ping_is_dead() {
    let now = Instant::now();
    let mut link = established(now);
    let idle = now + Duration::from_secs(60);
    link.handle_timeout(idle).expect("alive");
    // the carrier was busy, and took the PING only later
    let sent = idle + Duration::from_secs(100);
    assert_eq!(link.poll_timeout(), None);
    link.handle_timeout(sent).expect("nothing was asked yet");
    assert_eq!(kind(link.poll_transmit(sent)), Some(FrameKind::Ping));
    let dead_at = sent + Duration::from_secs(60);
    assert_eq!(link.poll_timeout(), Some(dead_at));
    assert_eq!(link.handle_timeout(dead_at), Err(LinkDead::Silent { since: Duration::from_secs(220) }));
    assert_eq!(link.data(b"", Bytes::new()), Err(SendError::NotEstablished));
}

#[test]
fn data_counts_as_an_answer() {
    let now = Instant::now();
    let mut link = established(now);
    let idle = now + Duration::from_secs(60);
    link.handle_timeout(idle).expect("alive");
    link.handle_frame(idle, WALL, data(b"x")).expect("data");
    assert_eq!(link.poll_transmit(idle), None, "the ping is no longer needed");
    assert_eq!(link.poll_timeout(), Some(idle + Duration::from_secs(60)));
}

#[test]
fn a_flood_of_pings_leaves_one_pong_waiting() {
    let now = Instant::now();
    let mut link = established(now);
    for _ in 0..10_000 {
        link.handle_frame(now, WALL, frame(FrameKind::Ping, 0, b"", b"")).expect("ping");
    }
    assert_eq!(kind(link.poll_transmit(now)), Some(FrameKind::Pong));
    assert_eq!(link.poll_transmit(now), None);
}
