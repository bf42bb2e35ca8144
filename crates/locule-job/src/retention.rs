//! What is left of jobs that are over, and which of them go.

use std::time::{Duration, SystemTime};

/// How much is kept of jobs that are over; without a bound, all of it.
///
/// The job that ended last stays, whatever it takes up, until its age is over.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use locule_job::{Remains, Retention};
///
/// let of = |job: &str, days: u64, bytes| Remains {
///     job_id: job.into(),
///     ended: SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400),
///     bytes,
/// };
/// let retention = Retention { bytes: Some(1000), ..Retention::default() };
/// let surplus = retention.surplus(vec![of("old", 1, 600), of("new", 3, 500), of("other", 2, 300)], SystemTime::now());
/// assert_eq!(surplus, ["old"]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// So many jobs.
    pub jobs: Option<usize>,
    /// So long after a job's end.
    pub age: Option<Duration>,
    /// So many bytes on disk, of all of them together.
    pub bytes: Option<u64>,
    /// For so long after its end every job stays, so that whoever waits for it can fetch its result.
    pub at_least: Duration,
}

/// What is left of a job that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// Its id.
    pub job_id: String,
    /// When it ended.
    pub ended: SystemTime,
    /// What it takes up on disk; it counts only where [`Retention::bytes`] is a bound.
    pub bytes: u64,
}

impl Retention {
    /// Whether nothing ever goes.
    pub fn keeps_all(&self) -> bool {
        self.jobs.is_none() && self.age.is_none() && self.bytes.is_none()
    }

    /// The jobs whose remains go, by id, the one that ended last at the head.
    pub fn surplus(&self, mut remains: Vec<Remains>, now: SystemTime) -> Vec<String> {
        remains.sort_by(|a, b| (b.ended, &b.job_id).cmp(&(a.ended, &a.job_id)));
        let mut total = 0_u64;
        let goes = |(index, remains): (usize, Remains)| {
            total = total.saturating_add(remains.bytes);
            let age = now.duration_since(remains.ended).unwrap_or_default();
            let is_surplus = age >= self.at_least
                && (self.jobs.is_some_and(|most| index >= most)
                    || self.age.is_some_and(|most| age > most)
                    || self.bytes.is_some_and(|most| index > 0 && total > most));
            is_surplus.then_some(remains.job_id)
        };
        remains.into_iter().enumerate().filter_map(goes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    /// Jobs that ended so many days after the beginning, with so many bytes.
    fn remains(of: &[(u32, u64)]) -> Vec<Remains> {
        let of = of.iter().map(|&(days, bytes)| Remains {
            job_id: days.to_string(),
            ended: SystemTime::UNIX_EPOCH + DAY * days,
            bytes,
        });
        of.collect()
    }

    #[test]
    fn each_bound_counts_by_itself_from_the_newest_job() {
        let (all, now) = (remains(&[(1, 5), (4, 5), (2, 5), (3, 5)]), SystemTime::UNIX_EPOCH + DAY * 5);
        let surplus = |retention: Retention| retention.surplus(all.clone(), now);
        assert!(surplus(Retention::default()).is_empty());
        assert_eq!(surplus(Retention { jobs: Some(3), ..Retention::default() }), ["1"]);
        assert_eq!(surplus(Retention { age: Some(DAY * 2), ..Retention::default() }), ["2", "1"]);
        assert_eq!(surplus(Retention { bytes: Some(14), ..Retention::default() }), ["2", "1"]);
        let both = Retention { jobs: Some(3), bytes: Some(9), ..Retention::default() };
        assert_eq!(surplus(both), ["3", "2", "1"]);
    }

    #[test]
    fn what_has_just_ended_stays() {
        let ended = SystemTime::UNIX_EPOCH + DAY * 2;
        let at_least = Duration::from_secs(600);
        let retention = Retention { jobs: Some(0), age: Some(Duration::ZERO), bytes: Some(0), at_least };
        let surplus = |after| retention.surplus(remains(&[(2, 9)]), ended + Duration::from_secs(after));
        assert!(surplus(599).is_empty());
        assert_eq!(surplus(600), ["2"]);
    }

    #[test]
    fn the_last_job_stays_whatever_it_takes_up() {
        let retention = Retention { bytes: Some(1), age: Some(DAY), ..Retention::default() };
        assert_eq!(retention.surplus(remains(&[(1, 9), (2, 9)]), SystemTime::UNIX_EPOCH + DAY * 2), ["1"]);
        assert_eq!(retention.surplus(remains(&[(2, 9)]), SystemTime::UNIX_EPOCH + DAY * 4), ["2"]);
        // A clock that was set back makes nothing old.
        assert!(retention.surplus(remains(&[(2, 9)]), SystemTime::UNIX_EPOCH).is_empty());
    }
}
