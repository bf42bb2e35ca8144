//! Frames captured from real cells, read and written; see `tests/vectors/PROVENANCE.md`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use locule_frame::{Event, FrameKind, Hello, LinkConfig, LinkProtocol, Prefix, Side};
use proptest::prelude::*;
use serde_json::Value;

struct Golden {
    name: String,
    bytes: Bytes,
    prefix: Value,
    payload: Value,
}

fn golden() -> Vec<Golden> {
    let file: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/sfm_frames.json")).expect("json");
    let vectors = file["vectors"].as_array().expect("array");
    let golden: Vec<_> = vectors
        .iter()
        .map(|vector| Golden {
            name: vector["name"].as_str().expect("name").to_owned(),
            bytes: unhex(vector["hex"].as_str().expect("hex")),
            prefix: vector["prefix"].clone(),
            payload: vector["payload"].clone(),
        })
        .collect();
    assert_eq!(golden.len(), 33);
    golden
}

fn unhex(text: &str) -> Bytes {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

/// A listener and a dialer after their handshake.
fn linked(now: Instant) -> (LinkProtocol, LinkProtocol) {
    let wall = UNIX_EPOCH;
    let mut server = LinkProtocol::new(LinkConfig::new("server", Side::Listener), now, wall);
    let mut site = LinkProtocol::new(LinkConfig::new("site-9", Side::Dialer), now, wall);
    let hello = site.poll_transmit(now).expect("hello");
    server.handle_frame(now, wall, hello).expect("hello");
    let ready = server.poll_transmit(now).expect("ready");
    site.handle_frame(now, wall, ready).expect("ready");
    (server, site)
}

#[test]
fn every_prefix_is_read_and_written_back() {
    for Golden { name, bytes, prefix: expected, .. } in golden() {
        let prefix = Prefix::parse(&bytes).expect(&name);
        assert_eq!(prefix.length, expected["length"], "{name}");
        assert_eq!(prefix.header_len, expected["header_len"], "{name}");
        assert_eq!(prefix.kind.code(), expected["type_num"], "{name}");
        assert_eq!(prefix.flags, expected["flags"], "{name}");
        assert_eq!(prefix.app_id, expected["app_id"], "{name}");
        assert_eq!(prefix.stream_id, expected["stream_id"], "{name}");
        assert_eq!(prefix.sequence, expected["sequence"], "{name}");
        assert_eq!(prefix.encode(), bytes[..Prefix::LEN], "{name}");
    }
}

#[test]
fn every_handshake_is_read_and_written_back() {
    let handshakes = golden().into_iter().filter(|frame| [4, 5].contains(&frame.bytes[6]));
    let mut seen = 0;
    for Golden { name, bytes, payload: expected, .. } in handshakes {
        let payload = &bytes[Prefix::LEN..];
        let hello = Hello::decode(payload).expect(&name);
        assert_eq!(hello.endpoint_name, expected["endpoint_name"], "{name}");
        assert_eq!(hello.fqcn.as_deref(), expected["fqcn"].as_str(), "{name}");
        assert!((hello.timestamp - expected["timestamp"].as_f64().expect("time")).abs() < 1e-6, "{name}");
        assert_eq!(hello.encode(), payload, "{name}");
        seen += 1;
    }
    assert!(seen >= 2);
}

#[test]
fn a_dialer_says_hello_byte_for_byte_like_a_stock_cell() {
    let frame = golden().swap_remove(0).bytes;
    let seconds = Hello::decode(&frame[Prefix::LEN..]).expect("hello").timestamp;
    let wall: SystemTime = UNIX_EPOCH + Duration::from_secs_f64(seconds);
    let now = Instant::now();
    let mut site = LinkProtocol::new(LinkConfig::new("site-1", Side::Dialer), now, wall);
    assert_eq!(site.poll_transmit(now), Some(frame));
    assert_eq!(site.poll_transmit(now), None);
}

#[test]
fn a_pong_is_byte_for_byte_that_of_a_stock_cell() {
    let now = Instant::now();
    let (mut server, _) = linked(now);
    let ping = Bytes::from_static(b"\0\0\0\x11\0\0\x06\0\0\0\0\0\0\x11\0\x02\xc0");
    assert_eq!(server.handle_frame(now, UNIX_EPOCH, ping), Ok(None));
    let pong = golden().into_iter().find(|frame| frame.name.starts_with("PONG")).expect("pong");
    assert_eq!(server.poll_transmit(now), Some(pong.bytes));
}

#[test]
fn data_is_read_and_framed_again_byte_for_byte() {
    let now = Instant::now();
    let (mut server, mut site) = linked(now);
    let mut seen = 0;
    for Golden { name, bytes, .. } in golden() {
        if Prefix::parse(&bytes).expect(&name).kind != FrameKind::Data {
            continue;
        }
        let event = server.handle_frame(now, UNIX_EPOCH, bytes.clone()).expect(&name);
        let Some(Event::Data { headers, payload }) = event else { panic!("{name} is data") };
        let out = site.data(&headers, payload).expect(&name);
        let frame = [&out.head[..], &out.body[..]].concat();
        // stream id and sequence count the frames of one link, and these are from several
        assert_eq!(frame[..12], bytes[..12], "{name}");
        assert_eq!(frame[16..], bytes[16..], "{name}");
        seen += 1;
    }
    assert!(seen > 20);
}

#[test]
fn frames_are_counted_as_a_stock_cell_counts_them() {
    let (_, mut site) = linked(Instant::now());
    let counters = |site: &mut LinkProtocol| {
        let prefix = Prefix::parse(&site.data(b"", Bytes::new()).expect("linked").head).expect("own");
        (prefix.stream_id, prefix.sequence)
    };
    assert_eq!(counters(&mut site), (17, 2));
    for _ in 0..65_533 {
        counters(&mut site);
    }
    assert_eq!(counters(&mut site), (15, 0), "both wrap at 16 bits");
}

proptest! {
    #[test]
    fn no_mutation_of_a_frame_makes_a_link_panic_or_grow(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        cut in any::<Option<prop::sample::Index>>(),
        linked_before in any::<bool>(),
    ) {
        let now = Instant::now();
        let mut bytes = which.get(&golden()).bytes.to_vec();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let mut link = if linked_before {
            linked(now).0
        } else {
            LinkProtocol::new(LinkConfig::new("server", Side::Listener), now, UNIX_EPOCH)
        };
        let frame = Bytes::from(bytes);
        let event = link.handle_frame(now, UNIX_EPOCH, frame.clone());
        match event {
            Ok(Some(Event::Data { headers, payload })) => {
                prop_assert_eq!(16 + headers.len() + payload.len(), frame.len());
                prop_assert!(linked_before);
            }
            Ok(Some(Event::Established(peer))) => prop_assert_eq!(link.peer(), Some(&peer)),
            Ok(None) => {}
            Err(_) => {
                prop_assert_eq!(link.poll_transmit(now), None);
                prop_assert_eq!(link.poll_timeout(), None);
            }
        }
        let waiting = std::iter::from_fn(|| link.poll_transmit(now)).count();
        prop_assert!(waiting <= 2);
    }

    #[test]
    fn what_a_cell_says_of_itself_is_read_back(
        name in "[a-z.-]{1,40}",
        seconds in 0.0..4e9,
        software in prop::option::of(".{0,40}"),
        capabilities in prop::collection::vec(".{0,10}", 0..40),
    ) {
        let hello = Hello {
            endpoint_name: name.clone(), timestamp: seconds, fqcn: Some(name), software, capabilities,
        };
        prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }

    #[test]
    fn reading_a_handshake_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Hello::decode(&bytes);
    }
}
