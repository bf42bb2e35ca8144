//! Promises of room and resources for jobs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::resources::Grant;

/// Reservations that nobody used yet, by token. A job has at most one, and each expires.
#[derive(Debug)]
pub(crate) struct Reservations {
    lifetime: Duration,
    by_token: BTreeMap<String, Reservation>,
}

#[derive(Debug)]
struct Reservation {
    job_id: String,
    grant: Grant,
    expires: Instant,
}

impl Reservations {
    /// None yet; each will hold for `lifetime`.
    pub(crate) fn new(lifetime: Duration) -> Self {
        Self { lifetime, by_token: BTreeMap::new() }
    }

    /// What is promised to other jobs than `job_id`.
    pub(crate) fn held_by_others<'a>(
        &'a self,
        job_id: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Grant)> {
        let others = self.by_token.values().filter(move |reservation| reservation.job_id != job_id);
        others.map(|reservation| (reservation.job_id.as_str(), &reservation.grant))
    }

    /// Whether there is a promise to this job.
    pub(crate) fn has(&self, job_id: &str) -> bool {
        self.by_token.values().any(|reservation| reservation.job_id == job_id)
    }

    /// Promises room and these resources to `job_id` under `token`, in place of an earlier promise to that job.
    pub(crate) fn promise(&mut self, token: String, job_id: &str, grant: Grant, now: Instant) {
        self.by_token.retain(|_, reservation| reservation.job_id != job_id);
        let reservation = Reservation { job_id: job_id.to_owned(), grant, expires: now + self.lifetime };
        self.by_token.insert(token, reservation);
    }

    /// Takes a promise back.
    pub(crate) fn cancel(&mut self, token: &str) {
        self.by_token.remove(token);
    }

    /// Uses a promise up; nothing when there was none for this job under this token.
    pub(crate) fn redeem(&mut self, token: &str, job_id: &str, now: Instant) -> Option<Grant> {
        self.expire(now);
        self.by_token.get(token).filter(|reservation| reservation.job_id == job_id)?;
        self.by_token.remove(token).map(|reservation| reservation.grant)
    }

    /// Forgets what has expired.
    pub(crate) fn expire(&mut self, now: Instant) {
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
        reservations.promise("t".into(), "job-1", Grant::default(), now);
        assert_eq!(reservations.redeem("t", "job-2", now), None);
        assert_eq!(reservations.redeem("u", "job-1", now), None);
        assert_eq!(reservations.redeem("t", "job-1", now), Some(Grant::default()));
        assert_eq!(reservations.redeem("t", "job-1", now), None, "a promise holds once");
    }

    #[test]
    fn a_promise_expires() {
        let now = Instant::now();
        let mut reservations = Reservations::new(LIFETIME);
        reservations.promise("t".into(), "job-1", Grant::default(), now);
        reservations.expire(now + LIFETIME - Duration::from_millis(1));
        assert_eq!(reservations.held_by_others("job-2").count(), 1);
        reservations.expire(now + LIFETIME);
        assert_eq!(reservations.held_by_others("job-2").count(), 0);
        assert_eq!(reservations.redeem("t", "job-1", now + LIFETIME), None);
    }

    #[test]
    fn asking_again_replaces_the_promise_to_that_job() {
        let now = Instant::now();
        let mut reservations = Reservations::new(LIFETIME);
        reservations.promise("t".into(), "job-1", Grant::default(), now);
        reservations.promise("u".into(), "job-1", Grant::default(), now);
        assert_eq!(reservations.held_by_others("job-2").count(), 1);
        assert_eq!(reservations.held_by_others("job-1").count(), 0);
        assert_eq!(reservations.redeem("t", "job-1", now), None);
        assert_eq!(reservations.redeem("u", "job-1", now), Some(Grant::default()));
    }

    #[test]
    fn a_cancelled_promise_is_gone() {
        let now = Instant::now();
        let mut reservations = Reservations::new(LIFETIME);
        reservations.promise("t".into(), "job-1", Grant::default(), now);
        reservations.cancel("t");
        assert_eq!(reservations.redeem("t", "job-1", now), None);
    }
}
