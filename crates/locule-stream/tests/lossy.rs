//! Two ends and a way between them that loses, repeats and reorders.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use locule_message::{Fqcn, Headers, Message, Payload, key};
use locule_stream::{Blob, CHANNEL, DATA, Notice, Output, StreamConfig, StreamError, Streams, Way};
use proptest::prelude::*;

/// What the way does with the next message.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Pass,
    Lose,
    Repeat,
    Delay,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![6 => Just(Fate::Pass), 1 => Just(Fate::Lose), 1 => Just(Fate::Repeat), 1 => Just(Fate::Delay)]
}

fn small() -> StreamConfig {
    StreamConfig { chunk_size: 100, window: 1000, ack_interval: 300, ..StreamConfig::default() }
}

fn blob(len: usize, reliable: bool) -> Blob {
    Blob {
        channel: "aux_communication".into(),
        topic: "model".into(),
        headers: Headers::new(),
        payload: Payload::bytes((0..len).map(|at| at as u8).collect::<Vec<_>>().into()),
        request_id: Some("request".into()),
        reliable,
        optional: true,
        secure: false,
    }
}

fn message(notice: Notice) -> Message {
    let mut message = Message::new(notice.headers, notice.payload);
    message.headers.set(key::CHANNEL, CHANNEL);
    message.headers.set(key::TOPIC, notice.topic);
    message
}

/// A sender and a receiver under one clock, and what is under way to each.
struct Pair {
    now: Instant,
    ends: [(Fqcn, Streams); 2],
    under_way: [VecDeque<Message>; 2],
    fates: Vec<Fate>,
    next_fate: usize,
    arrived: Vec<Bytes>,
    sent: usize,
    failed: Vec<StreamError>,
}

impl Pair {
    fn new(config: StreamConfig, fates: Vec<Fate>) -> Self {
        let ends = [
            ("site-1".parse().unwrap(), Streams::new(config.clone(), 7)),
            (Fqcn::server(), Streams::new(config, 7)),
        ];
        Self {
            now: Instant::now(),
            ends,
            under_way: Default::default(),
            fates,
            next_fate: 0,
            arrived: Vec::new(),
            sent: 0,
            failed: Vec::new(),
        }
    }

    fn carry(&mut self, to: usize, message: Message) {
        let fate = self.fates.get(self.next_fate).copied().unwrap_or(Fate::Pass);
        self.next_fate += 1;
        let line = &mut self.under_way[to];
        match fate {
            Fate::Pass => line.push_back(message),
            Fate::Lose => {}
            Fate::Repeat => line.extend([message.clone(), message]),
            Fate::Delay => line.insert(line.len().saturating_sub(3), message),
        }
    }

    /// Runs until nothing moves any more at this instant.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for from in 0..2 {
                let to = 1 - from;
                while let Some((_, chunk)) =
                    self.ends[from].1.poll_chunk(self.now, |_, _| Way::Open { link: 1 })
                {
                    self.carry(to, message(chunk));
                    moved = true;
                }
                while let Some(output) = self.ends[from].1.poll_output() {
                    moved = true;
                    match output {
                        Output::Send(notice) => self.carry(to, message(notice)),
                        Output::Arrived(arrival) => self.arrived.push(arrival.blob.payload.body.whole()),
                        Output::Sent(_) => self.sent += 1,
                        Output::Failed(_, error) => self.failed.push(error),
                        Output::Broken { .. } | Output::Moved { .. } => {}
                    }
                }
                if let Some(next) = self.under_way[to].pop_front() {
                    let origin = self.ends[from].0.clone();
                    self.ends[to].1.handle(self.now, &origin, next);
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let next = self.ends.iter().filter_map(|(_, streams)| streams.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            for (_, streams) in &mut self.ends {
                streams.handle_timeout(self.now);
            }
        }
        self.now = end;
    }
}

proptest! {
    #[test]
    fn a_reliable_blob_arrives_once_and_whole_whatever_the_way_does(
        len in 0usize..3000,
        fates in proptest::collection::vec(fate(), 0..120),
    ) {
        let mut pair = Pair::new(small(), fates);
        let blob = blob(len, true);
        let expected = blob.payload.body.clone();
        let target = pair.ends[1].0.clone();
        pair.ends[0].1.send(pair.now, target, blob).unwrap();
        pair.run_for(Duration::from_secs(600));
        prop_assert_eq!(&pair.arrived, &[expected.whole()]);
        prop_assert_eq!(pair.sent, 1);
        prop_assert_eq!(pair.ends[1].1.held(), 0);
        prop_assert!(pair.failed.is_empty());
    }

    #[test]
    fn any_headers_are_read_without_panic_and_without_growth(
        id in 0u64..3, kind in 0u64..9, sequence in any::<u64>(), offset in any::<u64>(), size in any::<u64>(),
        window in any::<u64>(), chunk in any::<u64>(), len in 0usize..50, times in 1usize..4,
    ) {
        let (now, site) = (Instant::now(), "site-1".parse::<Fqcn>().unwrap());
        let mut streams = Streams::new(small(), 0);
        streams.send(now, site.clone(), blob(500, true)).unwrap();
        while streams.poll_chunk(now, |_, _| Way::Open { link: 1 }).is_some() {}
        for topic in [DATA, locule_stream::ACK, locule_stream::ERROR] {
            for _ in 0..times {
                let mut headers = Headers::new();
                headers.set("sm__id", id);
                headers.set("sm__dt", kind);
                headers.set("sm__sq", sequence);
                headers.set("sm__os", offset);
                headers.set("sm__sz", size);
                headers.set("sm__ws", window);
                headers.set("sm__cs", chunk);
                headers.set(key::CHANNEL, CHANNEL);
                headers.set(key::TOPIC, topic);
                streams.handle(now, &site, Message { headers, body: vec![1; len].into() });
            }
        }
        prop_assert!(streams.held() <= (len * times) as u64);
    }
}

#[test]
fn a_lost_link_repeats_what_is_reliable_and_fails_the_rest() {
    let (now, target) = (Instant::now(), Fqcn::server());
    let mut streams = Streams::new(small(), 0);
    let reliable = streams.send(now, target.clone(), blob(250, true)).unwrap();
    let other = streams.send(now, target, blob(250, false)).unwrap();
    let chunks = |streams: &mut Streams, link| {
        std::iter::from_fn(|| streams.poll_chunk(now, |_, _| Way::Open { link }))
            .map(|(id, _)| id)
            .collect::<Vec<_>>()
    };
    assert_eq!(chunks(&mut streams, 1).len(), 6);
    streams.link_lost(2);
    assert_eq!(chunks(&mut streams, 1), []);
    streams.link_lost(1);
    assert_eq!(chunks(&mut streams, 2), [reliable; 3]);
    let failed: Vec<_> = std::iter::from_fn(|| streams.poll_output())
        .filter_map(|output| match output {
            Output::Failed(id, error) => Some((id, error)),
            Output::Send(_)
            | Output::Arrived(_)
            | Output::Broken { .. }
            | Output::Moved { .. }
            | Output::Sent(_) => None,
        })
        .collect();
    assert_eq!(failed, [(other, StreamError::LinkLost)]);
}

#[test]
fn a_stream_waits_for_room_and_for_its_window() {
    let (now, site, target) = (Instant::now(), "site-1".parse::<Fqcn>().unwrap(), Fqcn::server());
    let mut sender = Streams::new(small(), 0);
    sender.send(now, target.clone(), blob(5000, false)).unwrap();
    assert!(sender.poll_chunk(now, |_, _| Way::Full { link: 1 }).is_none());
    assert!(sender.poll_chunk(now, |_, _| Way::Open { link: 1 }).is_none(), "held up until told otherwise");
    sender.has_room(2);
    assert!(sender.poll_chunk(now, |_, _| Way::Open { link: 1 }).is_none(), "that is another link");
    sender.has_room(1);
    let sent: Vec<_> = std::iter::from_fn(|| sender.poll_chunk(now, |_, _| Way::Open { link: 1 })).collect();
    assert_eq!(sent.len(), 11, "a window of ten chunks, and the one that closes it");
    let mut receiver = Streams::new(small(), 0);
    for (_, chunk) in sent {
        receiver.handle(now, &site, message(chunk));
    }
    while let Some(output) = receiver.poll_output() {
        if let Output::Send(notice) = output {
            sender.handle(now, &target, message(notice));
        }
    }
    assert!(sender.poll_chunk(now, |_, _| Way::Open { link: 1 }).is_some());
}

#[test]
fn a_blob_that_is_too_big_is_refused_before_it_is_held() {
    let (now, site, target) = (Instant::now(), "site-1".parse::<Fqcn>().unwrap(), Fqcn::server());
    let mut sender = Streams::new(small(), 0);
    let mut receiver = Streams::new(StreamConfig { max_blob: 1000, ..small() }, 0);
    let id = sender.send(now, target.clone(), blob(1001, false)).unwrap();
    let (_, chunk) = sender.poll_chunk(now, |_, _| Way::Open { link: 1 }).unwrap();
    receiver.handle(now, &site, message(chunk));
    assert_eq!(receiver.held(), 0);
    while let Some(output) = receiver.poll_output() {
        if let Output::Send(notice) = output {
            sender.handle(now, &target, message(notice));
        }
    }
    let failed: Vec<_> = std::iter::from_fn(|| sender.poll_output())
        .filter(|output| !matches!(output, Output::Moved { .. }))
        .collect();
    assert!(
        matches!(&failed[..], [Output::Failed(failed, StreamError::TooBig { .. })] if *failed == id),
        "{failed:?}"
    );
}

#[test]
fn of_a_secure_stream_no_chunk_is_taken_that_came_in_clear() {
    let (now, site, target) = (Instant::now(), "site-1".parse::<Fqcn>().unwrap(), Fqcn::server());
    let mut sender = Streams::new(small(), 0);
    let mut receiver = Streams::new(small(), 0);
    sender.send(now, target, Blob { secure: true, ..blob(150, false) }).unwrap();
    for (at, secure) in [(0, true), (1, false), (1, true)] {
        let (_, notice) = if at == 0 || !secure {
            sender
                .poll_chunk(now, |_, secure| if secure { Way::Open { link: 1 } } else { Way::None })
                .unwrap()
        } else {
            // the last chunk again, as it should have come
            let mut again = Streams::new(small(), 0);
            again.send(now, Fqcn::server(), Blob { secure: true, ..blob(150, false) }).unwrap();
            again.poll_chunk(now, |_, _| Way::Open { link: 1 }).unwrap();
            again.poll_chunk(now, |_, _| Way::Open { link: 1 }).unwrap()
        };
        assert!(notice.secure);
        let mut chunk = message(notice);
        chunk.headers.set(key::SECURE, secure);
        receiver.handle(now, &site, chunk);
        assert_eq!(receiver.stats().malformed, u64::from(at == 1), "chunk {at}, secure: {secure}");
    }
    let arrived = std::iter::from_fn(|| receiver.poll_output());
    let secure: Vec<_> = arrived
        .filter_map(|output| match output {
            Output::Arrived(arrival) => Some(arrival.blob.secure),
            Output::Send(_)
            | Output::Broken { .. }
            | Output::Moved { .. }
            | Output::Sent(_)
            | Output::Failed(..) => None,
        })
        .collect();
    assert_eq!(secure, [true]);
}

#[test]
fn a_stream_without_progress_is_given_up() {
    for reliable in [true, false] {
        let mut pair = Pair::new(small(), vec![Fate::Lose; 10_000]);
        let target = pair.ends[1].0.clone();
        pair.ends[0].1.send(pair.now, target, blob(5000, reliable)).unwrap();
        pair.run_for(Duration::from_secs(300));
        assert_eq!(pair.failed, [StreamError::Stalled]);
    }
}

#[test]
fn a_stream_that_its_sender_gives_up_is_let_go() {
    let (now, site, target) = (Instant::now(), "site-1".parse::<Fqcn>().unwrap(), Fqcn::server());
    let mut sender = Streams::new(small(), 0);
    let mut receiver = Streams::new(small(), 0);
    let id = sender.send(now, target, blob(250, false)).unwrap();
    let (_, chunk) = sender.poll_chunk(now, |_, _| Way::Open { link: 1 }).unwrap();
    receiver.handle(now, &site, message(chunk));
    assert!((100..4096).contains(&receiver.held()), "{}", receiver.held());
    sender.cancel(id);
    while let Some(output) = sender.poll_output() {
        if let Output::Send(notice) = output {
            receiver.handle(now, &site, message(notice));
        }
    }
    assert_eq!(receiver.held(), 0);
    assert!(
        std::iter::from_fn(|| receiver.poll_output()).any(|output| matches!(output, Output::Broken { .. }))
    );
}

#[test]
fn each_chunk_of_a_request_that_leaves_is_progress() {
    let (now, target) = (Instant::now(), Fqcn::server());
    let mut streams = Streams::new(small(), 0);
    streams.send(now, target, blob(250, false)).unwrap();
    while streams.poll_chunk(now, |_, _| Way::Open { link: 1 }).is_some() {}
    let moved = std::iter::from_fn(|| streams.poll_output())
        .filter(|output| matches!(output, Output::Moved { request_id, .. } if request_id == "request"));
    assert_eq!(moved.count(), 3);
}
