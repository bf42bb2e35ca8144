//! Promises of room for jobs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Reservations that nobody used yet, by token. A job has at most one, and each expires.
#[derive(Debug)]
pub(crate) struct Reservations {
    lifetime: Duration,
    by_token: BTreeMap<String, Reservation>,
}

#[derive(Debug)]
struct Reservation {
    job_id: String,
    expires: Instant,
}

impl Reservations {
    /// None yet; each will hold for `lifetime`.
    pub(crate) fn new(lifetime: Duration) -> Self {
        Self { lifetime, by_token: BTreeMap::new() }
    }

    /// How many hold at `now` for other jobs than `job_id`.
    pub(crate) fn held_by_others(&mut self, job_id: &str, now: Instant) -> usize {
        self.expire(now);
        self.by_token.values().filter(|reservation| reservation.job_id != job_id).count()
    }

    /// Promises room to `job_id` under `token`, in place of an earlier promise to that job.
    pub(crate) fn promise(&mut self, token: String, job_id: &str, now: Instant) {
        self.by_token.retain(|_, reservation| reservation.job_id != job_id);
        let reservation = Reservation { job_id: job_id.to_owned(), expires: now + self.lifetime };
        self.by_token.insert(token, reservation);
    }

    /// Takes a promise back.
    pub(crate) fn cancel(&mut self, token: &str) {
        self.by_token.remove(token);
    }

    /// Uses a promise up; false when there was none for this job under this token.
    pub(crate) fn redeem(&mut self, token: &str, job_id: &str, now: Instant) -> bool {
        self.expire(now);
        let promised = self.by_token.get(token).is_some_and(|reservation| reservation.job_id == job_id);
        if promised {
            self.by_token.remove(token);
        }
        promised
    }

    fn expire(&mut self, now: Instant) {
        self.by_token.retain(|_, reservation| now < reservation.expires);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(300);

    #[test]
    fn a_promise_is_used_up_by_its_own_job_only() {
        let now = Instant::now();
        let mut reservations = Reservations::new(LIFETIME);
        reservations.promise("t".into(), "job-1", now);
        assert!(!reservations.redeem("t", "job-2", now));
        assert!(!reservations.redeem("u", "job-1", now));
        assert!(reservations.redeem("t", "job-1", now));
        assert!(!reservations.redeem("t", "job-1", now), "a promise holds once");
    }

    #[test]
    fn a_promise_expires() {
        let now = Instant::now();
        let mut reservations = Reservations::new(LIFETIME);
        reservations.promise("t".into(), "job-1", now);
        assert_eq!(reservations.held_by_others("job-2", now + LIFETIME - Duration::from_millis(1)), 1);
        assert_eq!(reservations.held_by_others("job-2", now + LIFETIME), 0);
        assert!(!reservations.redeem("t", "job-1", now + LIFETIME));
    }

    #[test]
    fn asking_again_replaces_the_promise_to_that_job() {
        let now = Instant::now();
        let mut reservations = Reservations::new(LIFETIME);
        reservations.promise("t".into(), "job-1", now);
        reservations.promise("u".into(), "job-1", now);
        assert_eq!(reservations.held_by_others("job-2", now), 1);
        assert_eq!(reservations.held_by_others("job-1", now), 0);
        assert!(!reservations.redeem("t", "job-1", now));
        assert!(reservations.redeem("u", "job-1", now));
    }

    #[test]
    fn a_cancelled_promise_is_gone() {
        let now = Instant::now();
        let mut reservations = Reservations::new(LIFETIME);
        reservations.promise("t".into(), "job-1", now);
        reservations.cancel("t");
        assert!(!reservations.redeem("t", "job-1", now));
    }
}
