use std::collections::VecDeque;
use std::time::Duration;

use locule_message::{Fqcn, Message};
use locule_switch::LinkId;

/// The end of a link that dialed.
pub(crate) const DIALER: usize = 0;

/// Bytes that one direction holds before its sender must wait.
const WINDOW: usize = 128 << 10;
/// Bytes per second in each direction.
const RATE: f64 = 4e6;

/// A link between two cells: ordered, with latency, bandwidth and a window.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) wire: usize,
    /// False once cut, whether noticed or not.
    pub(crate) alive: bool,
    latency: Duration,
    /// Who still holds on to the two ends.
    ends: [Option<Fqcn>; 2],
    /// What is on the way from each end.
    ways: [Way; 2],
}

#[derive(Debug, Default)]
struct Way {
    messages: VecDeque<(Duration, Message)>,
    bytes: usize,
    busy_until: Duration,
}

impl Link {
    pub(crate) fn new(wire: usize, ends: [Fqcn; 2], latency: Duration) -> Self {
        Self { wire, alive: true, latency, ends: ends.map(Some), ways: Default::default() }
    }

    pub(crate) fn holder(&self, end: usize) -> Option<&Fqcn> {
        self.ends[end].as_ref()
    }

    pub(crate) fn end_of(&self, name: &Fqcn) -> Option<usize> {
        self.ends.iter().position(|end| end.as_ref() == Some(name))
    }

    pub(crate) fn held_by(&self, name: &Fqcn, id: LinkId) -> Option<(LinkId, usize)> {
        self.end_of(name).map(|end| (id, end))
    }

    pub(crate) fn let_go(&mut self, end: usize) -> Option<Fqcn> {
        self.ends[end].take()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.ends.iter().all(Option::is_none)
    }

    /// Whether `end` may send; over a broken link it may, and does not know better.
    pub(crate) fn has_window(&self, end: usize) -> bool {
        self.ways[end].bytes < WINDOW
    }

    /// Sends from `end`; tells when the message arrives.
    pub(crate) fn put(&mut self, end: usize, elapsed: Duration, message: Message) -> Duration {
        let way = &mut self.ways[end];
        let len = message.body.len() + 500;
        way.busy_until = way.busy_until.max(elapsed) + Duration::from_secs_f64(len as f64 / RATE);
        way.bytes += len;
        let arrival = way.busy_until + self.latency;
        way.messages.push_back((arrival, message));
        arrival
    }

    /// The next message that has arrived at `end`.
    pub(crate) fn take(&mut self, end: usize, elapsed: Duration) -> Option<Message> {
        let way = &mut self.ways[1 - end];
        way.messages.front().filter(|(arrival, _)| *arrival <= elapsed)?;
        let (_, message) = way.messages.pop_front()?;
        way.bytes -= message.body.len() + 500;
        Some(message)
    }
}
