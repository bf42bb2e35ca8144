use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use locule_message::Fqcn;

use crate::{LinkId, RequestId};

/// The requests that wait for replies. Bounded, and nothing stays in it beyond its deadline.
#[derive(Debug)]
pub(crate) struct Pending {
    requests: BTreeMap<RequestId, Waiting>,
    deadlines: BTreeSet<(Instant, RequestId)>,
    /// Targets that have not settled, over all requests.
    open: usize,
    limit: usize,
}

#[derive(Debug)]
struct Waiting {
    deadline: Instant,
    targets: BTreeMap<Fqcn, State>,
    open: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not sent over a link: still being sent, or handled here.
    Unsent,
    Sent(LinkId),
    Settled,
}

/// Whether a reply has somebody who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// Yes; it does not wait any longer.
    Settled,
    /// The request waits, but not for this cell.
    NotAsked,
    /// No such request waits.
    Unknown,
}

impl Pending {
    pub(crate) fn new(limit: usize) -> Self {
        Self { requests: BTreeMap::new(), deadlines: BTreeSet::new(), open: 0, limit }
    }

    /// Takes a request up; false when there is no room for all its targets.
    pub(crate) fn open(&mut self, id: RequestId, targets: &[Fqcn], deadline: Instant) -> bool {
        if targets.is_empty() {
            return true;
        }
        if self.open + targets.len() > self.limit {
            return false;
        }
        let targets: BTreeMap<_, _> = targets.iter().map(|target| (target.clone(), State::Unsent)).collect();
        self.open += targets.len();
        self.deadlines.insert((deadline, id));
        self.requests.insert(id, Waiting { deadline, open: targets.len(), targets });
        true
    }

    /// Notes by which link the request left for `target`.
    pub(crate) fn sent(&mut self, id: RequestId, target: &Fqcn, link: LinkId) {
        if let Some(waiting) = self.requests.get_mut(&id)
            && let Some(state) = waiting.targets.get_mut(target)
            && *state != State::Settled
        {
            *state = State::Sent(link);
        }
    }

    pub(crate) fn settle(&mut self, id: RequestId, target: &Fqcn) -> Match {
        let Some(waiting) = self.requests.get_mut(&id) else { return Match::Unknown };
        match waiting.targets.get_mut(target) {
            None => Match::NotAsked,
            Some(State::Settled) => Match::Unknown,
            Some(state @ (State::Unsent | State::Sent(_))) => {
                *state = State::Settled;
                waiting.open -= 1;
                self.open -= 1;
                if waiting.open == 0 {
                    self.deadlines.remove(&(waiting.deadline, id));
                    self.requests.remove(&id);
                }
                Match::Settled
            }
        }
    }

    /// Gives a request up; names the targets that had not settled.
    pub(crate) fn close(&mut self, id: RequestId) -> Vec<Fqcn> {
        let Some(waiting) = self.requests.remove(&id) else { return Vec::new() };
        self.deadlines.remove(&(waiting.deadline, id));
        self.open -= waiting.open;
        let open = waiting.targets.into_iter().filter(|(_, state)| *state != State::Settled);
        open.map(|(target, _)| target).collect()
    }

    /// The request whose deadline came first, if it has passed.
    pub(crate) fn expired(&self, now: Instant) -> Option<RequestId> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// What left over `link` and is not settled.
    pub(crate) fn sent_over(&self, link: LinkId) -> Vec<(RequestId, Fqcn)> {
        let of = |(id, waiting): (&RequestId, &Waiting)| {
            let sent = waiting.targets.iter().filter(|(_, state)| **state == State::Sent(link));
            sent.map(|(target, _)| (*id, target.clone())).collect::<Vec<_>>()
        };
        self.requests.iter().flat_map(of).collect()
    }

    pub(crate) fn contains(&self, id: RequestId) -> bool {
        self.requests.contains_key(&id)
    }

    pub(crate) fn ids(&self) -> Vec<RequestId> {
        self.requests.keys().copied().collect()
    }

    /// Targets that have not settled.
    pub(crate) fn len(&self) -> usize {
        self.open
    }
}
