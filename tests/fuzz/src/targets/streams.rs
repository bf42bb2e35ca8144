//! Chunks, acknowledgements and errors, in any order and from anybody.

use std::time::{Duration, Instant};

use bytes::Bytes;
use locule_message::{Fqcn, Headers, Message, Payload, ReturnCode};
use locule_stream::{Blob, Output, StreamConfig, StreamId, Streams, Way};

use crate::edit::{PREFIX, edit_frames, frames};
use crate::seeds::{self, header_len};
use crate::{Allowance, Target, some};

/// Each frame is a message; what a receiver does not read of its prefix says more: the flags how much
/// time passes before, the stream's number who sends it, and the kind what else is done.
pub(crate) const STREAMS: Target = Target {
    name: "streams",
    about: "stream messages of several peers, and our own streams to them",
    seeds: || {
        let mut seeds: Vec<Vec<u8>> = Vec::new();
        for sequence in seeds::frames() {
            let mut sequence = sequence.clone();
            sequence.retain(|frame| frame.windows(10).any(|part| part == b"sm__STREAM"));
            if sequence.is_empty() {
                continue;
            }
            let mut own = sequence.clone();
            for (number, frame) in own.iter_mut().enumerate() {
                frame[6] = [1, 8, 1, 9, 1, 10, 1, 11, 1, 12, 1, 13, 9][number % 13];
                frame[14..16].copy_from_slice(&(number as u16 * 1000).to_be_bytes());
            }
            seeds.extend([sequence.concat(), own.concat()]);
        }
        seeds
    },
    edit: edit_frames,
    run: |input| run(&frames(input)),
    allowance: Allowance { memory: (256 << 10, 120), work: (20_000, 80) },
};

const PEERS: [&str; 4] = ["server", "site-1", "site-1.job", "site-2"];

fn config() -> StreamConfig {
    StreamConfig {
        chunk_size: 1000,
        window: 4000,
        max_blob: 32 << 10,
        max_held: 48 << 10,
        max_streams: 12,
        max_remembered: 8,
        ..StreamConfig::default()
    }
}

fn run(frames: &[Vec<u8>]) -> String {
    let peers = PEERS.map(|name| name.parse::<Fqcn>().expect("a name"));
    let config = config();
    let mut now = Instant::now();
    let mut streams = Streams::new(config.clone(), 1);
    let mut begun = Vec::new();
    let mut done = [0_usize; 6];
    for frame in frames {
        let word = |at: usize| frame.get(at..at + 2).map_or(0, |two| u16::from_be_bytes([two[0], two[1]]));
        now += Duration::from_millis(u64::from(word(8)) * 10);
        streams.handle_timeout(now);
        let peer = &peers[usize::from(word(12)) % peers.len()];
        match frame.get(6).copied().unwrap_or(1) % 16 {
            8 => {
                let blob = Blob {
                    channel: "aux_communication".into(),
                    topic: "echo".into(),
                    headers: Headers::new(),
                    payload: Payload::bytes(vec![7; usize::from(word(14)) % 20_000].into()),
                    request_id: (word(14) % 2 == 0).then(|| "r".to_owned()),
                    reliable: word(14) % 3 == 0,
                    secure: false,
                    optional: true,
                };
                begun.extend(streams.send(now, peer.clone(), blob));
            }
            9 => {
                let way =
                    [Way::Open { link: 1 }, Way::Full { link: 2 }, Way::None][usize::from(word(14)) % 3];
                for _ in 0..8 {
                    streams.poll_chunk(now, |_, _| way);
                }
            }
            10 => streams.link_lost(1),
            11 if word(14) % 2 == 0 => streams.has_room(2),
            11 => streams.resume(),
            12 => streams.cancel(StreamId(u64::from(word(14)) % 8)),
            kind => {
                let begin = PREFIX + usize::from(header_len(frame));
                let headers = Bytes::copy_from_slice(frame.get(PREFIX..begin).unwrap_or_default());
                let body = Bytes::copy_from_slice(frame.get(begin..).unwrap_or_default());
                let Ok(headers) = Headers::decode(headers) else { continue };
                let message = Message { headers, body: body.into() };
                if kind == 13 {
                    streams.undelivered(&message, ReturnCode::CommError, "no way");
                } else {
                    streams.handle(now, peer, message);
                }
            }
        }
        assert!(streams.held() <= config.max_held, "{} bytes are held", streams.held());
        take(&mut streams, &mut done);
    }
    let stats = *streams.stats();
    // whatever was begun ends, and is forgotten
    begun.into_iter().for_each(|id| streams.cancel(id));
    let mut steps = 0;
    while let Some(at) = streams.poll_timeout() {
        streams.handle_timeout(at);
        take(&mut streams, &mut done);
        steps += 1;
        assert!(steps <= 4000 + 8 * frames.len(), "there is no end of it");
    }
    assert_eq!(streams.held(), 0);
    let told = [stats.malformed, stats.failed, stats.repeated].map(|count| count as usize);
    done.into_iter().chain(told).map(some).collect()
}

fn take(streams: &mut Streams, done: &mut [usize; 6]) {
    while let Some(output) = streams.poll_output() {
        let kind = match output {
            Output::Send(_) => 0,
            Output::Arrived(_) => 1,
            Output::Broken { .. } => 2,
            Output::Moved { .. } => 3,
            Output::Sent(_) => 4,
            Output::Failed(..) => 5,
        };
        done[kind] += 1;
    }
}
