//! Streams to and from cells of nvflare before 2.9, whose chunks say neither window nor reliability.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use locule_message::{Fqcn, Headers, Message, Payload, key};
use locule_stream::{Blob, CHANNEL, DATA, Notice, Output, StreamConfig, Streams, Way};

fn site() -> Fqcn {
    "site-1".parse().unwrap()
}

/// A request of one chunk, as it arrives; `reliable` is what it says of that.
fn request(reliable: Option<bool>) -> Message {
    let mut headers = Headers::new();
    headers.set(key::CHANNEL, CHANNEL);
    headers.set(key::TOPIC, DATA);
    headers.set("sm__id", 7);
    headers.set("sm__dt", 2);
    headers.set("sm__sq", 0);
    headers.set("sm__ch", "aux_communication");
    headers.set("sm__tp", "model");
    headers.set("sm__ri", "request");
    if let Some(reliable) = reliable {
        headers.set("sm__rs", reliable);
    }
    Message { headers, body: Bytes::from_static(b"?").into() }
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

fn chunks(streams: &mut Streams, now: Instant) -> Vec<Notice> {
    let chunk = || streams.poll_chunk(now, |_, _| Way::Open { link: 1 }).map(|(_, chunk)| chunk);
    std::iter::from_fn(chunk).collect()
}

fn sent(streams: &mut Streams) -> usize {
    let outputs = std::iter::from_fn(|| streams.poll_output());
    outputs.filter(|output| matches!(output, Output::Sent(_))).count()
}

#[test]
fn a_reply_to_an_older_cell_is_sent_once_and_forgotten() {
    let (now, mut streams) = (Instant::now(), Streams::new(StreamConfig::default(), 1));
    streams.handle(now, &site(), request(None));
    streams.send(now, site(), reply(10)).unwrap();
    let chunks_of_it = chunks(&mut streams, now);
    assert_eq!(chunks_of_it.len(), 1);
    assert_eq!(chunks_of_it[0].headers.bool("sm__rs"), Some(false));
    assert_eq!(sent(&mut streams), 1, "nobody says that it has arrived");
    let later = now + Duration::from_secs(3600);
    streams.handle_timeout(later);
    assert!(chunks(&mut streams, later).is_empty());
    assert_eq!(streams.poll_timeout(), None, "nothing is left of it");
}

#[test]
fn a_newer_cell_acknowledges_and_is_sent_again_what_it_does_not_acknowledge() {
    let (now, mut streams) = (Instant::now(), Streams::new(StreamConfig::default(), 1));
    streams.handle(now, &site(), request(None));
    let mut again = request(Some(false));
    again.headers.set("sm__id", 8); // the cell was updated meanwhile
    streams.handle(now, &site(), again);
    streams.send(now, site(), reply(10)).unwrap();
    assert_eq!((chunks(&mut streams, now).len(), sent(&mut streams)), (1, 0));
    let later = now + Duration::from_secs(5);
    streams.handle_timeout(later);
    assert_eq!(chunks(&mut streams, later).len(), 1);
}

#[test]
fn no_more_chunks_are_under_way_to_an_older_cell_than_it_can_put_in_order() {
    for (reliable, under_way) in [(None, 17), (Some(false), 65)] {
        let (now, mut streams) = (Instant::now(), Streams::new(StreamConfig::default(), 1));
        streams.handle(now, &site(), request(reliable));
        streams.send(now, site(), reply(100 << 20)).unwrap();
        assert_eq!(chunks(&mut streams, now).len(), under_way);
    }
}
