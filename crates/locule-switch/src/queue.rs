use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use crate::{LinkId, RequestId};

/// What waits to leave over one link, in lanes that are each bounded in bytes.
///
/// Answers and control alternate; bulk follows when both are empty, or after [`CONTROL_RUN`] bytes of
/// them. A lane refuses what does not fit, except that an empty one takes any one message. Answers
/// have a lane of their own so that requests cannot keep them from leaving, nor they the requests.
#[derive(Debug)]
pub(crate) struct LinkQueue {
    answers: Lane,
    control: Lane,
    bulk: Lane,
    /// Bytes of answers and control sent since bulk had its last turn.
    control_run: usize,
    answers_turn: bool,
}

/// Bytes of answers and control that may leave while bulk waits.
const CONTROL_RUN: usize = 256 << 10;

/// Bytes that count as room for more bulk: a chunk with its headers.
const ROOM: usize = (1 << 20) + (64 << 10);

/// Which lane a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneKind {
    /// Small replies and returns.
    Answers,
    /// Other small messages.
    Control,
    /// Large messages.
    Bulk,
}

/// A message ready for a link.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) headers: Bytes,
    pub(crate) body: Bytes,
    pub(crate) lane: LaneKind,
    pub(crate) source: Source,
}

/// Whose message it is, which says who is told when it is lost or finds room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A request of this cell.
    Request(RequestId),
    /// Anything else that this cell made.
    Own,
    /// A message of others, which came by `from`.
    Forwarded { from: LinkId, reply_expected: bool },
}

impl Outgoing {
    /// Bytes that it takes in a queue.
    pub(crate) fn len(&self) -> usize {
        self.headers.len() + self.body.len()
    }

    fn is_own(&self) -> bool {
        !matches!(self.source, Source::Forwarded { .. })
    }
}

/// What became of an offered message.
#[derive(Debug)]
pub(crate) enum Offer {
    Queued,
    /// Not in the lane yet; it will be as soon as there is room.
    InLine,
    /// Not taken.
    Full,
}

#[derive(Debug)]
struct Lane {
    queue: VecDeque<Outgoing>,
    bytes: usize,
    capacity: usize,
    /// What found no room, each with the moment at which it is given up.
    line: VecDeque<(Instant, Outgoing)>,
    /// Those in line that this cell made, and how many these may be. The others are counted per link
    /// that they came by.
    own_in_line: usize,
    line_limit: usize,
}

impl LinkQueue {
    /// A queue for `control_bytes` of small messages, a quarter of them answers, and `bulk_bytes` of
    /// large ones; `line_limit` messages of this cell per lane may stand in line for room.
    pub(crate) fn new(control_bytes: usize, bulk_bytes: usize, line_limit: usize) -> Self {
        let answer_bytes = control_bytes / 4;
        Self {
            answers: Lane::new(answer_bytes, line_limit),
            control: Lane::new(control_bytes - answer_bytes, line_limit),
            bulk: Lane::new(bulk_bytes, line_limit),
            control_run: 0,
            answers_turn: true,
        }
    }

    /// Takes the message if there is room. Otherwise it stands in line until `patience`, or is refused
    /// at once without one.
    pub(crate) fn offer(&mut self, message: Outgoing, patience: Option<Instant>) -> Offer {
        let lane = match message.lane {
            LaneKind::Answers => &mut self.answers,
            LaneKind::Control => &mut self.control,
            LaneKind::Bulk => &mut self.bulk,
        };
        lane.offer(message, patience)
    }

    /// The next message to send.
    pub(crate) fn pop(&mut self) -> Option<Outgoing> {
        if self.control_run >= CONTROL_RUN
            && let Some(message) = self.bulk.pop()
        {
            self.control_run = 0;
            return Some(message);
        }
        let small = if self.answers_turn {
            self.answers.pop().or_else(|| self.control.pop())
        } else {
            self.control.pop().or_else(|| self.answers.pop())
        };
        let Some(message) = small else {
            self.control_run = 0;
            return self.bulk.pop();
        };
        self.answers_turn = !self.answers_turn;
        self.control_run += message.len();
        Some(message)
    }

    /// Moves those for which there is room now from the lines into the queues; names their sources.
    pub(crate) fn admit(&mut self) -> Vec<Source> {
        if !self.has_line() {
            return Vec::new();
        }
        self.lanes_mut().into_iter().flat_map(Lane::admit).collect()
    }

    /// Takes those out of the lines whose patience is over.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Outgoing> {
        self.lanes_mut().into_iter().flat_map(|lane| lane.expire(now)).collect()
    }

    /// Empties the queues. The flag says whether a message was still standing in line.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (Outgoing, bool)> {
        self.lanes_mut().into_iter().flat_map(|lane| {
            (lane.bytes, lane.own_in_line) = (0, 0);
            let queued = lane.queue.drain(..).map(|message| (message, false));
            queued.chain(lane.line.drain(..).map(|(_, message)| (message, true)))
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lanes().into_iter().all(|lane| lane.queue.is_empty())
    }

    pub(crate) fn has_line(&self) -> bool {
        self.lanes().into_iter().any(|lane| !lane.line.is_empty())
    }

    /// Whether bulk would be queued at once.
    pub(crate) fn has_bulk_room(&self) -> bool {
        self.bulk.line.is_empty() && self.bulk.bytes + ROOM <= self.bulk.capacity
    }

    /// Bytes of small and of large messages, without those in line.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        (self.answers.bytes + self.control.bytes, self.bulk.bytes)
    }

    fn lanes(&self) -> [&Lane; 3] {
        [&self.answers, &self.control, &self.bulk]
    }

    fn lanes_mut(&mut self) -> [&mut Lane; 3] {
        [&mut self.answers, &mut self.control, &mut self.bulk]
    }
}

impl Lane {
    fn new(capacity: usize, line_limit: usize) -> Self {
        Self { queue: VecDeque::new(), bytes: 0, capacity, line: VecDeque::new(), own_in_line: 0, line_limit }
    }

    fn has_room(&self, message: &Outgoing) -> bool {
        self.queue.is_empty() || self.bytes + message.len() <= self.capacity
    }

    fn offer(&mut self, message: Outgoing, patience: Option<Instant>) -> Offer {
        // nobody overtakes the line
        if self.line.is_empty() && self.has_room(&message) {
            self.push(message);
            return Offer::Queued;
        }
        match patience {
            Some(until) if !message.is_own() || self.own_in_line < self.line_limit => {
                self.own_in_line += usize::from(message.is_own());
                self.line.push_back((until, message));
                Offer::InLine
            }
            Some(_) | None => Offer::Full,
        }
    }

    fn push(&mut self, message: Outgoing) {
        self.bytes += message.len();
        self.queue.push_back(message);
    }

    fn pop(&mut self) -> Option<Outgoing> {
        let message = self.queue.pop_front()?;
        self.bytes -= message.len();
        Some(message)
    }

    fn admit(&mut self) -> Vec<Source> {
        let mut admitted = Vec::new();
        while let Some((_, message)) = self.line.front()
            && self.has_room(message)
            && let Some((_, message)) = self.line.pop_front()
        {
            self.own_in_line -= usize::from(message.is_own());
            admitted.push(message.source);
            self.push(message);
        }
        admitted
    }

    fn expire(&mut self, now: Instant) -> Vec<Outgoing> {
        let mut expired = Vec::new();
        let mut kept = VecDeque::with_capacity(self.line.len());
        for (until, message) in self.line.drain(..) {
            if until <= now { expired.push(message) } else { kept.push_back((until, message)) }
        }
        self.line = kept;
        self.own_in_line -= expired.iter().filter(|message| message.is_own()).count();
        expired
    }
}
