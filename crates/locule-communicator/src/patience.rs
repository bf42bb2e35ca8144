//! How long a job waits for an answer that may have been lost with whoever was to give it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A server's half that is asked for a task answers within five seconds; this is for the way as well.
const SHORTEST: Duration = Duration::from_secs(10);

/// What a slow way carries, in bytes a second.
const SLOW: usize = 256 << 10;

/// Knows how often asking again was for nothing.
///
/// A request that was passed on and whose answer will never come, because the half that had it was killed, looks like
/// one whose answer takes long. So the wait is short at first and doubles with each time that it is over.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    lost: AtomicU32,
}

impl Patience {
    /// How long to wait for the answer to a request of so many bytes: at most `limit`, and no less where asking again
    /// does harm.
    pub(crate) fn wait(&self, bytes: usize, limit: Duration, may_ask_again: bool) -> Duration {
        if !may_ask_again {
            return limit;
        }
        let way = Duration::from_secs((bytes / SLOW) as u64);
        let doubled = 1_u32.checked_shl(self.lost.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        (SHORTEST + way).saturating_mul(doubled).min(limit)
    }

    /// An answer came after so long, of the `wait` that it had.
    pub(crate) fn answered(&self, elapsed: Duration, wait: Duration) {
        // One that was nearly too late would be too late next time.
        if elapsed < wait / 4 {
            self.change(|lost| lost.saturating_sub(1));
        }
    }

    /// No answer came in time.
    pub(crate) fn lost(&self) {
        self.change(|lost| lost.saturating_add(1).min(16));
    }

    fn change(&self, to: impl Fn(u32) -> u32) {
        self.lost.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lost| Some(to(lost))).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_is_over_doubles_the_next_and_a_quick_answer_halves_it_again() {
        let (patience, limit) = (Patience::default(), Duration::from_secs(300));
        let seconds = |patience: &Patience| patience.wait(0, limit, true).as_secs();
        assert_eq!(patience.wait(0, limit, false), limit, "who does not say so may count a result twice");
        assert_eq!((seconds(&patience), patience.wait(64 << 20, limit, true).as_secs()), (10, 266));
        let waits: Vec<u64> = (0..6).map(|_| (patience.lost(), seconds(&patience)).1).collect();
        assert_eq!(waits, [20, 40, 80, 160, 300, 300]);
        patience.answered(Duration::from_secs(200), limit);
        assert_eq!(seconds(&patience), 300);
        (0..6).for_each(|_| patience.answered(Duration::from_secs(1), limit));
        assert_eq!(seconds(&patience), 10);
    }
}
