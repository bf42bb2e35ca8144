//! What a cell's log says of neighbours and messages that it did not let in.

use std::time::{Duration, Instant};

use locule_message::Fqcn;
use locule_switch::{LinkId, LinkRefused};

use crate::now;

/// Tells an operator of what was refused, but not so often that a peer can fill a disk.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    neighbours: Seldom,
    messages: Seldom,
}

impl Refusals {
    pub(crate) fn neighbour(&mut self, peer: &Fqcn, link: LinkId, error: &LinkRefused) {
        match self.neighbours.untold() {
            Some(untold) => tracing::warn!(%peer, %link, %error, untold, "neighbour refused"),
            None => tracing::debug!(%peer, %link, %error, "neighbour refused"),
        }
    }

    pub(crate) fn message(&mut self, origin: &Fqcn, link: LinkId, reason: &str) {
        match self.messages.untold() {
            Some(untold) => tracing::warn!(%origin, %link, reason, untold, "message refused"),
            None => tracing::debug!(%origin, %link, reason, "message refused"),
        }
    }
}

/// What is told at most once in a while.
#[derive(Debug, Default)]
struct Seldom {
    told: Option<Instant>,
    untold: u64,
}

impl Seldom {
    const PAUSE: Duration = Duration::from_secs(10);

    /// Whether it is time to tell again, and then of how many it was not told.
    fn untold(&mut self) -> Option<u64> {
        let now = now().instant;
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < Self::PAUSE) {
            self.untold += 1;
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}
