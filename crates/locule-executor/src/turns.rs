//! How many sites of one process work at one time.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bound on the task loops of one process that work on a task at one time; clones share it.
///
/// A turn lasts from before a task is fetched until its result is out. Who waits for one holds nothing that another
/// needs to end its own, and turns are given in the order in which they were asked for: so all get one, however many
/// they are.
#[derive(Clone, Debug)]
pub struct Turns {
    free: Arc<Semaphore>,
    at_once: usize,
    done: Arc<AtomicU64>,
}

impl Turns {
    /// So many at one time, at most some 10¹⁸.
    #[must_use]
    pub fn new(at_once: NonZeroUsize) -> Self {
        let at_once = at_once.get().min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(at_once)), at_once, done: Arc::default() }
    }

    /// How many work now.
    #[must_use]
    pub fn working(&self) -> usize {
        self.at_once.saturating_sub(self.free.available_permits())
    }

    /// How many tasks were done in turns, by all sites together.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits for a turn.
    pub(crate) async fn take(&self) -> Turn {
        let permit = Arc::clone(&self.free).acquire_owned().await.ok(); // never closed
        Turn { done: Arc::clone(&self.done), _permit: permit }
    }
}

/// The right to work; over when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    done: Arc<AtomicU64>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// A task was done in it.
    pub(crate) fn count(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_work_at_one_time_than_may() {
        let turns = Turns::new(NonZeroUsize::new(2).unwrap());
        let (first, second) = (turns.take().await, turns.take().await);
        assert_eq!((turns.working(), turns.done()), (2, 0));
        let third = turns.take();
        tokio::pin!(third);
        tokio::select! {
            biased;
            _ = &mut third => panic!("a third works beside two"),
            () = std::future::ready(()) => {}
        }
        first.count();
        drop(first);
        let third = third.await;
        assert_eq!((turns.working(), turns.done()), (2, 1));
        drop((second, third));
        assert_eq!((turns.working(), turns.done()), (0, 1));
    }
}
