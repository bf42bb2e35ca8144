//! Streams captured between real cells; see `tests/vectors/PROVENANCE.md`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Instant;

use bytes::Bytes;
use locule_message::{Fqcn, HeaderValue, Headers, Message, Payload, key};
use locule_stream::{ACK, Blob, CHANNEL, DATA, ERROR, Notice, Output, StreamConfig, Streams, Way};
use serde_json::Value;

/// What site-1 sent and received, in order, without frames that the vectors have in part only.
fn sequence(number: usize) -> Vec<(bool, Message)> {
    let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/streaming.json")).unwrap();
    let frames = file["sequences"][number]["frames"].as_array().unwrap();
    let whole = frames.iter().filter(|frame| frame.get("hex").is_some());
    whole
        .map(|frame| {
            let bytes = unhex(frame["hex"].as_str().unwrap());
            let headers_end = 16 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
            let headers = Headers::decode(bytes.slice(16..headers_end)).unwrap();
            let message = Message { headers, body: bytes.slice(headers_end..).into() };
            (frame["direction"] == "site-1 sends", message)
        })
        .filter(|(_, message)| message.channel() == CHANNEL)
        .collect()
}

fn unhex(text: &str) -> Bytes {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn arrive(notice: Notice) -> Message {
    let mut message = Message::new(notice.headers, notice.payload);
    message.headers.set(key::CHANNEL, CHANNEL);
    message.headers.set(key::TOPIC, notice.topic);
    message
}

/// The headers that belong to the stream, with their values.
fn of_stream(message: &Message) -> Vec<(String, HeaderValue<'static>)> {
    let mut found: Vec<_> = message
        .headers
        .keys()
        .filter(|key| key.starts_with("sm__"))
        .map(|key| (key.to_owned(), message.headers.get(key).unwrap().into_owned()))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[test]
fn what_a_real_cell_sends_arrives_and_is_acknowledged_as_its_peer_did() {
    let (site, now) = ("site-1".parse::<Fqcn>().unwrap(), Instant::now());
    let mut server = Streams::new(StreamConfig::default(), 1);
    let mut arrived = 0;
    let mut acks = Vec::new();
    for (_, message) in sequence(0).into_iter().filter(|(sent, message)| *sent && message.topic() == DATA) {
        let announced = message.headers.u64("sm__sz").unwrap();
        let encoding = message.headers.str("sm__pe").unwrap().to_owned();
        server.handle(now, &site, message);
        while let Some(output) = server.poll_output() {
            match output {
                Output::Arrived(arrival) => {
                    arrived += 1;
                    assert_eq!(arrival.blob.channel, "aux_communication");
                    assert_eq!(arrival.blob.payload.encoding.as_str(), encoding);
                    assert_eq!(arrival.blob.payload.body.len() as u64, announced);
                }
                Output::Send(notice) => acks.push(arrive(notice)),
                other @ (Output::Broken { .. }
                | Output::Moved { .. }
                | Output::Sent(_)
                | Output::Failed(..)) => {
                    panic!("{other:?}")
                }
            }
        }
    }
    assert_eq!(arrived, 8);
    // the peer acknowledged all but those that had no handler, or no target
    let theirs: Vec<_> = sequence(0)
        .into_iter()
        .filter(|(sent, message)| !sent && message.headers.u64("sm__dt") == Some(3))
        .collect();
    assert_eq!(theirs.len(), 6);
    for (_, their) in theirs {
        let id = their.headers.u64("sm__id");
        let our = acks.iter().find(|our| our.headers.u64("sm__id") == id).unwrap();
        assert_eq!(of_stream(our), of_stream(&their));
        assert_eq!(our.topic(), ACK);
    }
}

#[test]
fn a_chunk_says_what_a_real_one_says() {
    let now = Instant::now();
    let (_, real) = sequence(0).into_iter().next().unwrap();
    let ack_interval = real.headers.u64("sm__ai").unwrap();
    let config = StreamConfig { ack_interval, ..StreamConfig::default() };
    let mut site = Streams::new(config, real.headers.u64("sm__id").unwrap());
    let blob = Blob {
        channel: "aux_communication".into(),
        topic: "echo".into(),
        headers: Headers::new(),
        payload: Payload::fobs(real.body.whole()),
        request_id: real.headers.str("sm__ri").map(str::to_owned),
        reliable: false,
        optional: false,
        secure: false,
    };
    site.send(now, Fqcn::server(), blob).unwrap();
    let (_, chunk) = site.poll_chunk(now, |_, _| Way::Open { link: 1 }).unwrap();
    assert_eq!(of_stream(&arrive(chunk)), of_stream(&real));
}

#[test]
fn the_errors_of_a_real_receiver_end_the_stream() {
    let now = Instant::now();
    let errors: Vec<_> = (0..4)
        .flat_map(sequence)
        .filter(|(sent, message)| !sent && message.topic() == ERROR)
        .map(|(_, message)| message)
        .collect();
    assert!(errors.len() >= 3, "{}", errors.len());
    for error in errors {
        let mut site = Streams::new(StreamConfig::default(), error.headers.u64("sm__id").unwrap());
        let target =
            error.headers.str("sm__fd").map_or_else(|| error.origin().unwrap(), |name| name.parse().unwrap());
        let blob = Blob {
            channel: error.headers.str("sm__ch").unwrap().into(),
            topic: error.headers.str("sm__tp").unwrap().into(),
            headers: Headers::new(),
            payload: Payload::none(),
            request_id: error.headers.str("sm__ri").map(str::to_owned),
            reliable: false,
            optional: true,
            secure: false,
        };
        let id = site.send(now, target, blob).unwrap();
        while site.poll_chunk(now, |_, _| Way::Open { link: 1 }).is_some() {}
        let origin = error.origin().unwrap();
        site.handle(now, &origin, error);
        let failed = std::iter::from_fn(|| site.poll_output())
            .any(|output| matches!(output, Output::Failed(failed, _) if failed == id));
        assert!(failed);
    }
}
