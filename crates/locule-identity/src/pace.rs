use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// At most so many events a second for each key, with a burst of one second's worth.
///
/// Holds one instant per key that acted lately: the moment at which its allowance is whole again. A key
/// whose moment has passed is as good as unknown and is forgotten.
#[derive(Debug)]
pub(crate) struct Pace<K> {
    interval: Duration,
    burst: Duration,
    whole_again: HashMap<K, Instant>,
}

impl<K: Eq + Hash> Pace<K> {
    pub(crate) fn per_second(rate: u32) -> Self {
        let interval = Duration::from_secs(1) / rate.max(1);
        Self { interval, burst: Duration::from_secs(1).saturating_sub(interval), whole_again: HashMap::new() }
    }

    /// How long `key` must wait before its next event; zero if it may act now.
    pub(crate) fn wait(&self, key: &K, now: Instant) -> Duration {
        let ahead = self.whole_again.get(key).map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        ahead.saturating_sub(self.burst)
    }

    /// Counts one event of `key`.
    pub(crate) fn count(&mut self, key: K, now: Instant) {
        let at = self.whole_again.entry(key).or_insert(now);
        *at = (*at).max(now) + self.interval;
    }

    /// Forgets all keys whose allowance is whole again.
    pub(crate) fn forget_idle(&mut self, now: Instant) {
        self.whole_again.retain(|_, at| *at > now);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.whole_again.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let start = Instant::now();
        let mut pace = Pace::per_second(10);
        let mut passed = 0;
        for millis in 0..10_000 {
            let now = start + Duration::from_millis(millis);
            if pace.wait(&"k", now).is_zero() {
                pace.count("k", now);
                passed += 1;
            }
        }
        assert!((105..=110).contains(&passed), "{passed}");
        pace.forget_idle(start + Duration::from_secs(60));
        assert_eq!(pace.len(), 0);
    }
}
