//! Frames of a link, its handshake, and the headers of messages.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use locule_frame::{Event, Hello, LinkConfig, LinkProtocol, Prefix, Side};
use locule_message::{Headers, Message};

use crate::edit::{edit_frames, frames};
use crate::seeds::{self, header_len};
use crate::{Allowance, Mutator, Target, some};

pub(crate) const FRAMES: Target = Target {
    name: "frames",
    about: "frames as they come over a link, to a listener and to a dialer",
    seeds: || seeds::frames().iter().map(|sequence| sequence.concat()).collect(),
    edit: edit_frames,
    run: |input| {
        let frames = frames(input);
        let listener = run(Side::Listener, &frames);
        let dialer = run(Side::Dialer, &frames);
        format!("listener {listener}; dialer {dialer}")
    },
    allowance: Allowance { memory: (16 << 10, 80), work: (400, 8) },
};

fn run(side: Side, frames: &[Vec<u8>]) -> String {
    let (mut now, wall) = (Instant::now(), SystemTime::UNIX_EPOCH);
    let mut link = LinkProtocol::new(LinkConfig::new("server", side), now, wall);
    let (mut data, mut silent) = (0, 0);
    for frame in frames {
        let frame = Bytes::copy_from_slice(frame);
        now += Duration::from_millis(300);
        if let Ok(prefix) = Prefix::parse(&frame) {
            assert!(usize::from(prefix.header_len) + Prefix::LEN <= prefix.length as usize);
        }
        match link.handle_frame(now, wall, frame.clone()) {
            Ok(Some(Event::Data { headers, payload })) => {
                assert_eq!(frame.len(), Prefix::LEN + headers.len() + payload.len());
                data += 1;
            }
            Ok(Some(Event::Established(peer))) => assert!(!peer.endpoint_name.is_empty()),
            Ok(None) => silent += 1,
            Err(error) => {
                assert!(link.poll_transmit(now).is_none(), "a link that is closed says nothing");
                assert!(link.handle_frame(now, wall, frame).is_err(), "a link that is closed stays so");
                return format!("{} {} then {error:?}", some(data), some(silent));
            }
        }
        let mut waiting = 0;
        while link.poll_transmit(now).is_some() {
            waiting += 1;
        }
        assert!(waiting <= 3, "{waiting} frames wait");
        if let Err(dead) = link.handle_timeout(now) {
            return format!("{} {} then {dead:?}", some(data), some(silent));
        }
    }
    format!("{} {} {}", some(data), some(silent), some(link.ignored() as usize))
}

pub(crate) const HELLO: Target = Target {
    name: "hello",
    about: "the payload of a handshake",
    seeds: || {
        let ours = Hello {
            endpoint_name: "site-1".into(),
            timestamp: 1.5,
            fqcn: Some("site-1".into()),
            software: Some("locule/1".into()),
            capabilities: vec!["a".into(), "b".into()],
        };
        let theirs = seeds::single().filter(|frame| matches!(frame.get(6), Some(4 | 5)));
        theirs.map(|frame| frame[16..].to_vec()).take(4).chain([ours.encode()]).collect()
    },
    edit: |_, _| None,
    run: |input| match Hello::decode(input) {
        Ok(hello) => {
            let again = Hello::decode(&hello.encode()).expect("what is written is read");
            assert_eq!(format!("{again:?}"), format!("{hello:?}"));
            format!("{} {}", some(hello.capabilities.len()), hello.software.is_some())
        }
        Err(error) => format!("{error:?}"),
    },
    allowance: Allowance { memory: (4 << 10, 80), work: (60, 2) },
};

pub(crate) const HEADERS: Target = Target {
    name: "headers",
    about: "the headers of a message",
    seeds: || {
        let headers = |frame: &Vec<u8>| Some(frame.get(16..16 + usize::from(header_len(frame)))?.to_vec());
        seeds::single().filter_map(headers).collect()
    },
    edit: |mutator: &mut Mutator, input| {
        let edited = edit_frames(mutator, &crate::edit::frame(&[0; 16], input, &[]))?;
        let frame = frames(&edited).into_iter().next()?;
        Some(frame.get(16..16 + usize::from(header_len(&frame)))?.to_vec())
    },
    run: |input| {
        let headers = match Headers::decode(Bytes::copy_from_slice(input)) {
            Ok(headers) => headers,
            Err(error) => return format!("{error:?}"),
        };
        let encoded = headers.encode().expect("what was short enough still is");
        let again = Headers::decode(encoded.clone()).expect("what is written is read");
        assert_eq!(again, headers);
        assert_eq!(again.encode().expect("once more"), encoded);
        let readable = headers.keys().filter(|key| headers.get(key).is_some()).count();
        let message = Message { headers, body: Bytes::new().into() };
        let readable = some(readable);
        format!(
            "{readable} {:?} {:?} {} {} {}",
            message.kind(),
            message.return_code(),
            some(message.req_ids().len()),
            message.origin().is_some(),
            message.destination().is_some()
        )
    },
    allowance: Allowance { memory: (8 << 10, 200), work: (100, 12) },
};
