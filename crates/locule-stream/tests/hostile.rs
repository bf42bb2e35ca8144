//! What a peer may do to take what is there for all.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use locule_journal::MemorySpool;
use locule_message::{Fqcn, Headers, Message, Payload, key};
use locule_stream::{ACK, Blob, CHANNEL, DATA, Output, Spools, StreamConfig, Streams, Way};

fn name(text: &str) -> Fqcn {
    text.parse().unwrap()
}

fn small() -> StreamConfig {
    StreamConfig { chunk_size: 1000, max_streams: 10, max_held: 100_000, ..StreamConfig::default() }
}

/// A chunk of a stream, as it arrives.
fn chunk(id: u64, sequence: u64, is_final: bool, body: &[u8]) -> Message {
    let mut headers = Headers::new();
    headers.set(key::CHANNEL, CHANNEL);
    headers.set(key::TOPIC, DATA);
    headers.set("sm__id", id);
    headers.set("sm__dt", if is_final { 2 } else { 1 });
    headers.set("sm__sq", sequence);
    headers.set("sm__ch", "aux_communication");
    headers.set("sm__tp", "model");
    headers.set("sm__ri", "request");
    Message { headers, body: Bytes::copy_from_slice(body).into() }
}

fn reply(len: usize) -> Blob {
    Blob {
        channel: "return_only".into(),
        topic: "aux_communication:model".into(),
        headers: Headers::new(),
        payload: Payload::bytes(vec![7; len].into()),
        request_id: Some("request".into()),
        reliable: true,
        secure: false,
        optional: true,
    }
}

fn outputs(streams: &mut Streams) -> Vec<Output> {
    std::iter::from_fn(|| streams.poll_output()).collect()
}

fn arrived(streams: &mut Streams) -> usize {
    outputs(streams).iter().filter(|output| matches!(output, Output::Arrived(_))).count()
}

/// Whom it told that a stream is given up.
fn refused(streams: &mut Streams) -> Vec<String> {
    let outputs = outputs(streams).into_iter();
    let notices = outputs.filter_map(|output| match output {
        Output::Send(notice) => (notice.topic == "sm__ERROR").then(|| notice.target.to_string()),
        Output::Arrived(_)
        | Output::Broken { .. }
        | Output::Moved { .. }
        | Output::Sent(_)
        | Output::Failed(..) => None,
    });
    notices.collect()
}

#[test]
fn a_peer_with_many_half_open_streams_makes_room_for_others() {
    let (mut now, mut streams) = (Instant::now(), Streams::new(small(), 1));
    for number in 0..10 {
        now += Duration::from_millis(1);
        // other names below its own are no other peers
        streams.handle(now, &name(&format!("site-1.x{number}")), chunk(number, 0, false, b"a"));
    }
    assert!(refused(&mut streams).is_empty());
    streams.handle(now, &name("site-1"), chunk(10, 0, false, b"a"));
    assert_eq!(refused(&mut streams), ["site-1"], "it has most already");
    for number in 0..6 {
        streams.handle(now, &name("site-2"), chunk(number, 0, false, b"a"));
        let expected = if number < 5 { vec![format!("site-1.x{number}")] } else { vec!["site-2".to_owned()] };
        assert_eq!(refused(&mut streams), expected, "the one of which nothing came for longest");
    }
    streams.handle(now, &name("site-2"), chunk(0, 1, true, b"b"));
    assert_eq!(arrived(&mut streams), 1);
}

#[test]
fn a_peer_that_holds_most_makes_room_for_others() {
    let (now, mut streams) = (Instant::now(), Streams::new(small(), 1));
    for id in 0..3 {
        streams.handle(now, &name("site-1"), chunk(id, 0, false, &vec![1; 30_000]));
    }
    assert!(refused(&mut streams).is_empty());
    let body = vec![2; 10_000];
    streams.handle(now, &name("site-2"), chunk(0, 0, false, &body));
    assert_eq!(refused(&mut streams), ["site-1"]);
    streams.handle(now, &name("site-2"), chunk(0, 1, true, &body));
    assert_eq!(arrived(&mut streams), 1);
    assert!(streams.held() <= 100_000);
}

/// A place for bodies that only counts as one that is not in memory.
fn elsewhere() -> StreamConfig {
    let spools = Spools::new(|channel, topic, len| {
        assert_eq!((channel, topic, len), ("aux_communication", "model", 0));
        Some(Box::new(MemorySpool::new(len)))
    });
    StreamConfig { spools, max_elsewhere: 200_000, ..small() }
}

#[test]
fn what_is_put_elsewhere_arrives_there_and_is_not_held() {
    let (now, mut streams) = (Instant::now(), Streams::new(elsewhere(), 1));
    let body = vec![3; 90_000];
    for sequence in 0..2 {
        streams.handle(now, &name("site-1"), chunk(1, sequence, sequence == 1, &body));
        assert!(streams.held() < 10_000, "{}", streams.held());
    }
    let arrivals = outputs(&mut streams).into_iter().filter_map(|output| match output {
        Output::Arrived(arrival) => Some(arrival),
        Output::Send(_)
        | Output::Broken { .. }
        | Output::Moved { .. }
        | Output::Sent(_)
        | Output::Failed(..) => None,
    });
    let arrival = arrivals.last().unwrap();
    assert!(arrival.blob.payload.body.is_empty());
    assert_eq!(arrival.elsewhere.unwrap().read().unwrap(), vec![3; 180_000]);
}

#[test]
fn a_peer_may_put_so_much_elsewhere_and_no_more_whatever_others_do() {
    let (now, mut streams) = (Instant::now(), Streams::new(elsewhere(), 1));
    let body = vec![3; 90_000];
    for site in ["site-1", "site-2"] {
        for id in 0..2 {
            streams.handle(now, &name(site), chunk(id, 0, false, &body));
        }
        assert!(refused(&mut streams).is_empty());
        streams.handle(now, &name(&format!("{site}.below")), chunk(2, 0, false, &body));
        assert_eq!(refused(&mut streams), [format!("{site}.below")]);
    }
    streams.handle(now, &name("site-1"), chunk(0, 1, true, b"b"));
    assert_eq!(arrived(&mut streams), 1, "what had begun goes on");
}

#[test]
fn chunks_without_bytes_cost_something_too() {
    let (now, mut streams) = (Instant::now(), Streams::new(small(), 1));
    let mut first = chunk(1, 1, false, b"");
    first.headers.set("padding", "x".repeat(20_000));
    streams.handle(now, &name("site-1"), first);
    assert!(streams.held() > 20_000, "{}", streams.held());
    for sequence in 2..66 {
        streams.handle(now, &name("site-1"), chunk(1, sequence, false, b""));
    }
    assert!(streams.held() > 20_000 + 64 * 100, "{}", streams.held());
}

#[test]
fn a_stream_that_has_ended_leaves_no_timer_behind() {
    let (now, mut streams) = (Instant::now(), Streams::new(small(), 1));
    for id in 0..100 {
        streams.handle(now, &name("site-1"), chunk(id, 0, true, b"a"));
        streams.handle(now, &name("site-1"), chunk(1000 + id, 7, true, b"a"));
        let mut given_up = chunk(1000 + id, 0, false, b"");
        given_up.headers.set("sm__dt", 6);
        streams.handle(now, &name("site-1"), given_up);
    }
    assert_eq!(arrived(&mut streams), 100);
    // what is remembered is forgotten after that time
    streams.handle_timeout(now + Duration::from_secs(65));
    assert_eq!(streams.poll_timeout(), None);
    assert_eq!(streams.held(), 0);
}

#[test]
fn repetition_does_not_keep_a_stream_alive() {
    let (mut now, mut streams) = (Instant::now(), Streams::new(small(), 1));
    streams.handle(now, &name("site-1"), chunk(1, 0, false, b"a"));
    for _ in 0..3 {
        now += Duration::from_secs(100);
        streams.handle(now, &name("site-1"), chunk(1, 0, false, b"a"));
        streams.handle_timeout(now);
    }
    assert_eq!(streams.held(), 0);
}

#[test]
fn a_peer_that_acknowledges_nothing_loses_its_replies_and_no_other_does() {
    let (now, mut streams) = (Instant::now(), Streams::new(small(), 1));
    let honest = streams.send(now, name("site-2"), reply(60_000)).unwrap();
    for _ in 0..20 {
        streams.send(now, name("site-1.a"), reply(10_000)).unwrap();
        streams.send(now, name("site-1.b"), reply(10)).unwrap();
    }
    let failed: Vec<_> = outputs(&mut streams)
        .into_iter()
        .filter_map(|output| if let Output::Failed(id, _) = output { Some(id) } else { None })
        .collect();
    assert!(failed.len() >= 30 && !failed.contains(&honest), "{failed:?}");
    // of those that have but one, none is given up
    let mut streams = Streams::new(small(), 1);
    for number in 0..10 {
        streams.send(now, name(&format!("site-{number}")), reply(60_000)).unwrap();
    }
    assert!(streams.send(now, name("site-x"), reply(1)).is_none(), "there are too many");
    assert!(outputs(&mut streams).is_empty());
}

#[test]
fn streams_that_were_given_up_do_not_wait_for_room() {
    let (now, mut streams) = (Instant::now(), Streams::new(small(), 1));
    for _ in 0..1000 {
        let id = streams.send(now, name("site-1"), reply(10)).unwrap();
        assert!(streams.poll_chunk(now, |_, _| Way::Full { link: 1 }).is_none());
        streams.cancel(id);
    }
    streams.has_room(1);
    let mut asked = 0;
    let none = streams.poll_chunk(now, |_, _| {
        asked += 1;
        Way::Open { link: 1 }
    });
    assert!(none.is_none() && asked == 0);
    assert!(!streams.has_chunks());
}

#[test]
fn who_moves_a_request_is_told() {
    let (now, mut streams) = (Instant::now(), Streams::new(small(), 1));
    streams.handle(now, &name("site-2"), chunk(1, 0, false, b"a"));
    let moved = outputs(&mut streams).into_iter().find_map(|output| match output {
        Output::Moved { peer, request_id } => Some((peer, request_id)),
        Output::Send(_)
        | Output::Arrived(_)
        | Output::Broken { .. }
        | Output::Sent(_)
        | Output::Failed(..) => None,
    });
    assert_eq!(moved, Some((name("site-2"), "request".to_owned())));
    // what another says of this cell's own stream moves nothing
    let id = streams.send(now, name("site-1"), reply(5000)).unwrap();
    assert!(streams.poll_chunk(now, |_, _| Way::Open { link: 1 }).is_some());
    let mut ack = chunk(id.0, 0, false, b"");
    ack.headers.set(key::TOPIC, ACK);
    ack.headers.set("sm__dt", 3);
    ack.headers.set("sm__os", 1000);
    streams.handle(now, &name("site-2"), ack);
    assert!(outputs(&mut streams).is_empty());
}

/// What somebody writes into a number who looks for the end of it.
const EXTREMES: [u64; 9] = [0, 1, 15, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX - 1, u64::MAX];

#[test]
fn no_number_in_a_chunk_is_too_large_or_too_small() {
    let numbers = ["sm__id", "sm__sq", "sm__os", "sm__sz", "sm__cs", "sm__ws", "sm__ai", "sm__rw", "sm__rt"];
    for (one, first) in numbers.iter().enumerate() {
        for second in numbers.iter().skip(one) {
            for (a, b) in EXTREMES.iter().flat_map(|a| EXTREMES.iter().map(move |b| (*a, *b))) {
                let (mut now, mut streams) = (Instant::now(), Streams::new(small(), 1));
                for (sequence, is_final) in [(0, false), (1, false), (2, true)] {
                    let mut chunk = chunk(7, sequence, is_final, b"some bytes");
                    chunk.headers.set(first, a);
                    chunk.headers.set(second, b);
                    streams.handle(now, &name("site-1"), chunk);
                    now += Duration::from_millis(1);
                    assert!(streams.held() <= small().max_held);
                }
                streams.handle_timeout(now + Duration::from_secs(1000));
                outputs(&mut streams);
            }
        }
    }
}

#[test]
fn no_number_in_an_acknowledgement_is_too_large_or_too_small() {
    for kind in [3, 6] {
        for (offset, sequence) in EXTREMES.iter().flat_map(|a| EXTREMES.iter().map(move |b| (*a, *b))) {
            let (now, mut streams) = (Instant::now(), Streams::new(small(), 1));
            let id = streams.send(now, name("site-1"), reply(5_000)).unwrap();
            let way = |_: &Fqcn, _| Way::Open { link: 1 };
            assert!(streams.poll_chunk(now, way).is_some());
            let mut headers = Headers::new();
            headers.set(key::CHANNEL, CHANNEL);
            headers.set(key::TOPIC, ACK);
            headers.set("sm__id", id.0);
            headers.set("sm__dt", kind);
            headers.set("sm__os", offset);
            headers.set("sm__sq", sequence);
            streams.handle(now, &name("site-1"), Message { headers, body: Bytes::new().into() });
            streams.handle_timeout(now + Duration::from_secs(6));
            while streams.poll_chunk(now, way).is_some() {}
            outputs(&mut streams);
        }
    }
}
