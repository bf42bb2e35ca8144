//! The jobs that a site holds, and the room it has promised.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use locule_launcher::JobHandle;
use locule_protocol::{JobStatus, OutcomeReport, Refusal};
use uuid::Uuid;

use crate::reservation::Reservations;

/// Most jobs that have ended and whose outcome the server has not taken yet.
const MAX_UNREPORTED: usize = 256;

/// One entry a job, from its start until the server has taken its outcome. Its lock is never held across an
/// await.
#[derive(Debug)]
pub(crate) struct JobBook {
    room: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    closed: bool,
    reservations: Reservations,
    deploying: BTreeSet<String>,
    jobs: BTreeMap<String, Held>,
}

#[derive(Debug)]
struct Held {
    app: String,
    status: JobStatus,
    handle: Option<JobHandle>,
    abort_wanted: bool,
    ended: bool,
    refusals: Vec<Refusal>,
    tasks_done: u64,
}

/// What is told of a job to an administrator.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) job_id: String,
    pub(crate) app: String,
    pub(crate) status: JobStatus,
}

/// Why the book does not take a job.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error("the site is shutting down")]
    Closed,
    #[error("the site runs as many jobs as it may")]
    Full,
    #[error("too many outcomes of earlier jobs are still to be reported")]
    Unreported,
    #[error("the job runs here already")]
    Running,
    #[error("the job is being deployed")]
    Deploying,
    #[error("the reservation is not known, or has expired")]
    NoReservation,
}

impl JobBook {
    /// An empty book with room for `room` jobs at a time.
    pub(crate) fn new(room: usize, reservations_hold: Duration) -> Self {
        let state = State {
            closed: false,
            reservations: Reservations::new(reservations_hold),
            deploying: BTreeSet::new(),
            jobs: BTreeMap::new(),
        };
        Self { room, state: Mutex::new(state) }
    }

    /// Promises room to a job; the token that stands for it.
    pub(crate) fn reserve(&self, job_id: &str, now: Instant) -> Result<String, NotTaken> {
        let mut state = self.state();
        state.check_open()?;
        let running = state.jobs.values().filter(|job| !job.ended).count();
        if running + state.reservations.held_by_others(job_id, now) >= self.room {
            return Err(NotTaken::Full);
        }
        let token = Uuid::new_v4().to_string();
        state.reservations.promise(token.clone(), job_id, now);
        Ok(token)
    }

    pub(crate) fn cancel(&self, token: &str) {
        self.state().reservations.cancel(token);
    }

    /// Keeps everything else away from a job's folder until the guard is dropped.
    pub(crate) fn begin_deploy(&self, job_id: &str) -> Result<Deploying<'_>, NotTaken> {
        let mut state = self.state();
        state.check_open()?;
        if state.jobs.contains_key(job_id) {
            return Err(NotTaken::Running);
        }
        if !state.deploying.insert(job_id.to_owned()) {
            return Err(NotTaken::Deploying);
        }
        Ok(Deploying { book: self, job_id: job_id.to_owned() })
    }

    /// Redeems a reservation and enters the job. [`started`](Self::started) or [`withdraw`](Self::withdraw)
    /// must follow.
    pub(crate) fn enter(&self, job_id: &str, token: &str, now: Instant) -> Result<(), NotTaken> {
        let mut state = self.state();
        state.check_open()?;
        if state.jobs.contains_key(job_id) {
            return Err(NotTaken::Running);
        }
        if state.deploying.contains(job_id) {
            return Err(NotTaken::Deploying);
        }
        if !state.reservations.redeem(token, job_id, now) {
            return Err(NotTaken::NoReservation);
        }
        let held = Held {
            app: String::new(),
            status: JobStatus::Starting,
            handle: None,
            abort_wanted: false,
            ended: false,
            refusals: Vec::new(),
            tasks_done: 0,
        };
        state.jobs.insert(job_id.to_owned(), held);
        Ok(())
    }

    /// The job runs as `handle`. True when it was meanwhile to be aborted.
    pub(crate) fn started(&self, job_id: &str, app: String, handle: JobHandle) -> bool {
        let mut state = self.state();
        let closed = state.closed;
        state.jobs.get_mut(job_id).is_some_and(|job| {
            job.app = app;
            job.handle = Some(handle);
            job.abort_wanted || closed
        })
    }

    /// Whether a job that has lost its process is to be started no more.
    pub(crate) fn is_to_end(&self, job_id: &str) -> bool {
        let state = self.state();
        state.closed || state.jobs.get(job_id).is_none_or(|job| job.abort_wanted)
    }

    /// The job runs as `handle` now, from its beginning. True when it was meanwhile to be aborted.
    pub(crate) fn restarted(&self, job_id: &str, handle: JobHandle) -> bool {
        let mut state = self.state();
        let closed = state.closed;
        state.jobs.get_mut(job_id).is_none_or(|job| {
            job.status = JobStatus::Starting;
            job.handle = Some(handle);
            job.abort_wanted || closed
        })
    }

    /// The job did not start; it was never here.
    pub(crate) fn withdraw(&self, job_id: &str) {
        self.state().jobs.remove(job_id);
    }

    /// Whether the job is here and has not ended; its handle, if it has one yet. Without one it will be
    /// aborted when it gets it.
    pub(crate) fn to_abort(&self, job_id: &str) -> Option<Option<JobHandle>> {
        let mut state = self.state();
        let job = state.jobs.get_mut(job_id).filter(|job| !job.ended)?;
        job.abort_wanted = true;
        Some(job.handle.clone())
    }

    /// The job says how it stands. False when there is no such job.
    pub(crate) fn note_status(&self, job_id: &str, status: JobStatus) -> bool {
        self.note(job_id, |job| job.status = status)
    }

    /// The job says what was refused.
    pub(crate) fn note_refusals(&self, job_id: &str, refusals: Vec<Refusal>) -> bool {
        self.note(job_id, |job| job.refusals = refusals)
    }

    /// The job says how many results the server took.
    pub(crate) fn note_tasks(&self, job_id: &str, tasks_done: u64) -> bool {
        self.note(job_id, |job| job.tasks_done = tasks_done)
    }

    /// The job has ended; the report to the server, with what the job itself had to say.
    pub(crate) fn end(&self, job_id: &str, code: i64, reason: Option<String>) -> OutcomeReport {
        let mut report = OutcomeReport::new(job_id, code, reason);
        if let Some(job) = self.state().jobs.get_mut(job_id) {
            job.ended = true;
            job.status = JobStatus::Stopped;
            job.handle = None;
            report.refusals = job.refusals.clone();
            report.tasks_done = job.tasks_done;
        }
        report
    }

    /// The server has taken the outcome.
    pub(crate) fn forget(&self, job_id: &str) {
        self.state().jobs.remove(job_id);
    }

    /// Every job, those included whose outcome the server has not taken yet.
    pub(crate) fn job_ids(&self) -> Vec<String> {
        self.state().jobs.keys().cloned().collect()
    }

    /// The jobs that run.
    pub(crate) fn standings(&self) -> Vec<Standing> {
        let state = self.state();
        let running = state.jobs.iter().filter(|(_, job)| !job.ended);
        running
            .map(|(job_id, job)| Standing {
                job_id: job_id.clone(),
                app: job.app.clone(),
                status: job.status,
            })
            .collect()
    }

    /// Takes nothing more; the jobs that run.
    pub(crate) fn close(&self) -> Vec<JobHandle> {
        let mut state = self.state();
        state.closed = true;
        state.jobs.values().filter_map(|job| job.handle.clone()).collect()
    }

    fn note(&self, job_id: &str, note: impl FnOnce(&mut Held)) -> bool {
        let mut state = self.state();
        let job = state.jobs.get_mut(job_id).filter(|job| !job.ended);
        job.map(note).is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check_open(&self) -> Result<(), NotTaken> {
        let unreported = self.jobs.values().filter(|job| job.ended).count();
        match self.closed {
            true => Err(NotTaken::Closed),
            false if unreported >= MAX_UNREPORTED => Err(NotTaken::Unreported),
            false => Ok(()),
        }
    }
}

/// A deployment that is under way.
#[derive(Debug)]
pub(crate) struct Deploying<'a> {
    book: &'a JobBook,
    job_id: String,
}

impl Drop for Deploying<'_> {
    fn drop(&mut self) {
        self.book.state().deploying.remove(&self.job_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(room: usize) -> JobBook {
        JobBook::new(room, Duration::from_secs(300))
    }

    #[test]
    fn reservations_and_jobs_share_the_room() {
        let (book, now) = (book(2), Instant::now());
        let first = book.reserve("job-1", now).unwrap();
        book.enter("job-1", &first, now).unwrap();
        let second = book.reserve("job-2", now).unwrap();
        assert_eq!(book.reserve("job-3", now), Err(NotTaken::Full));
        book.reserve("job-2", now).expect("asking again for the same job needs no more room");
        book.cancel(&second);
        assert_eq!(book.reserve("job-3", now), Err(NotTaken::Full), "the token was replaced meanwhile");
        assert!(book.reserve("job-3", now + Duration::from_secs(300)).is_ok());
    }

    #[test]
    fn a_running_job_is_neither_deployed_nor_started_again() {
        let (book, now) = (book(2), Instant::now());
        let token = book.reserve("job-1", now).unwrap();
        let deploying = book.begin_deploy("job-1").unwrap();
        assert_eq!(book.begin_deploy("job-1").unwrap_err(), NotTaken::Deploying);
        assert_eq!(book.enter("job-1", &token, now), Err(NotTaken::Deploying));
        drop(deploying);
        book.enter("job-1", &token, now).unwrap();
        assert_eq!(book.begin_deploy("job-1").unwrap_err(), NotTaken::Running);
        assert_eq!(book.enter("job-1", &token, now), Err(NotTaken::Running));
    }

    #[test]
    fn an_ended_job_is_kept_until_its_outcome_is_taken_but_takes_no_room() {
        let (book, now) = (book(1), Instant::now());
        let token = book.reserve("job-1", now).unwrap();
        book.enter("job-1", &token, now).unwrap();
        assert!(book.note_tasks("job-1", 3));
        let report = book.end("job-1", 0, None);
        assert_eq!((report.code, report.tasks_done), (0, 3));
        assert_eq!(book.job_ids(), ["job-1"]);
        assert!(book.standings().is_empty());
        assert!(book.reserve("job-2", now).is_ok());
        book.forget("job-1");
        assert!(book.job_ids().is_empty());
    }

    #[test]
    fn an_abort_before_the_start_is_remembered() {
        let (book, now) = (book(1), Instant::now());
        let token = book.reserve("job-1", now).unwrap();
        book.enter("job-1", &token, now).unwrap();
        assert!(book.to_abort("job-1").expect("it is here").is_none());
        let (handle, _report) = JobHandle::new("job-1");
        assert!(book.started("job-1", "app".into(), handle));
    }

    #[test]
    fn a_job_that_lost_its_process_starts_again_unless_it_is_to_end() {
        let (book, now) = (book(1), Instant::now());
        let token = book.reserve("job-1", now).unwrap();
        book.enter("job-1", &token, now).unwrap();
        let handle = || JobHandle::new("job-1").0;
        assert!(!book.started("job-1", "app".into(), handle()));
        book.note_status("job-1", JobStatus::Started);
        assert!(!book.is_to_end("job-1"));
        assert!(!book.restarted("job-1", handle()));
        assert_eq!(book.standings()[0].status, JobStatus::Starting);
        book.to_abort("job-1").expect("it is here").expect("it runs");
        assert!(book.is_to_end("job-1"));
        assert!(book.restarted("job-1", handle()), "it was to be aborted meanwhile");
    }

    #[test]
    fn a_closed_book_takes_nothing() {
        let (book, now) = (book(1), Instant::now());
        assert!(book.close().is_empty());
        assert_eq!(book.reserve("job-1", now), Err(NotTaken::Closed));
    }
}
