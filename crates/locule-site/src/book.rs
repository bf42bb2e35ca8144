//! The jobs that a site holds, and the room and resources that it has promised.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use locule_fobs::Map;
use locule_launcher::JobHandle;
use locule_protocol::{JobStatus, OutcomeReport, Refusal, Shortage};
use uuid::Uuid;

use crate::reservation::Reservations;
use crate::resources::{Grant, Lack, SiteResources};

/// Most jobs that have ended and whose outcome the server has not taken yet.
const MAX_UNREPORTED: usize = 256;

/// One entry a job, from its start until the server has taken its outcome. Its lock is never held across an
/// await.
#[derive(Debug)]
pub(crate) struct JobBook {
    room: usize,
    resources: SiteResources,
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
    /// What it has of the site's resources until it has ended.
    grant: Grant,
    status: JobStatus,
    handle: Option<JobHandle>,
    abort_wanted: bool,
    ended: bool,
    refusals: Vec<Refusal>,
    /// By the processes of the job before this one.
    tasks_before: u64,
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
    #[error("{0}")]
    Lack(Lack),
    #[error("too many outcomes of earlier jobs are still to be reported")]
    Unreported,
    #[error("the job runs here already")]
    Running,
    #[error("the job is being deployed")]
    Deploying,
    #[error("the reservation is not known, or has expired")]
    NoReservation,
}

impl NotTaken {
    /// Whether there may be room later, if that is known.
    pub(crate) fn shortage(&self) -> Option<Shortage> {
        match self {
            Self::Lack(lack) if lack.never => Some(Shortage::Never),
            Self::Lack(_) | Self::Full => Some(Shortage::Taken),
            Self::Closed | Self::Unreported | Self::Running | Self::Deploying | Self::NoReservation => None,
        }
    }
}

impl JobBook {
    /// An empty book with room for `room` jobs at a time, and what there is for them.
    pub(crate) fn new(room: usize, resources: SiteResources, reservations_hold: Duration) -> Self {
        let state = State {
            closed: false,
            reservations: Reservations::new(reservations_hold),
            deploying: BTreeSet::new(),
            jobs: BTreeMap::new(),
        };
        Self { room, resources, state: Mutex::new(state) }
    }

    /// Promises room and what is wanted of the resources to a job; the token that stands for it.
    pub(crate) fn reserve(&self, job_id: &str, wanted: &Map, now: Instant) -> Result<String, NotTaken> {
        let mut state = self.state();
        state.check_open()?;
        state.reservations.expire(now);
        let others = state.in_use(job_id);
        let grant = self.resources.find(wanted, &others);
        // What can never be is told first.
        if let Err(lack) = &grant
            && lack.never
        {
            return Err(NotTaken::Lack(lack.clone()));
        }
        if others.len() >= self.room {
            return Err(NotTaken::Full);
        }
        let (grant, token) = (grant.map_err(NotTaken::Lack)?, Uuid::new_v4().to_string());
        state.reservations.promise(token.clone(), job_id, grant, now);
        Ok(token)
    }

    /// What the site has, and who has what of it.
    pub(crate) fn report_resources(&self, now: Instant) -> serde_json::Value {
        let mut state = self.state();
        state.reservations.expire(now);
        self.resources.report(&state.in_use(""))
    }

    /// What a job's process is told of its resources.
    pub(crate) fn environment(&self, job_id: &str) -> BTreeMap<String, String> {
        self.state().jobs.get(job_id).map(|job| job.grant.environment()).unwrap_or_default()
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

    /// The same for a folder that is to go; nothing if the job is here, or may be about to start.
    pub(crate) fn begin_removal(&self, job_id: &str) -> Option<Deploying<'_>> {
        // From here on the job cannot start, whatever was promised to it.
        let guard = self.begin_deploy(job_id).ok()?;
        let is_promised = self.state().reservations.has(job_id);
        (!is_promised).then_some(guard)
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
        let grant = state.reservations.redeem(token, job_id, now).ok_or(NotTaken::NoReservation)?;
        let held = Held {
            app: String::new(),
            grant,
            status: JobStatus::Starting,
            handle: None,
            abort_wanted: false,
            ended: false,
            refusals: Vec::new(),
            tasks_before: 0,
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

    /// The job's process died; whether it had got something done.
    pub(crate) fn died(&self, job_id: &str) -> bool {
        self.state().jobs.get_mut(job_id).is_some_and(|job| {
            let done = std::mem::take(&mut job.tasks_done);
            job.tasks_before += done;
            done > 0
        })
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
            report.tasks_done = job.tasks_before + job.tasks_done;
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
    /// What other jobs than `job_id` have or are promised.
    fn in_use<'a>(&'a self, job_id: &'a str) -> Vec<(&'a str, &'a Grant)> {
        let running = self.jobs.iter().filter(|(_, job)| !job.ended);
        let running = running.map(|(job, held)| (job.as_str(), &held.grant));
        running.chain(self.reservations.held_by_others(job_id)).collect()
    }

    fn check_open(&self) -> Result<(), NotTaken> {
        let unreported = self.jobs.values().filter(|job| job.ended).count();
        match self.closed {
            true => Err(NotTaken::Closed),
            false if unreported >= MAX_UNREPORTED => Err(NotTaken::Unreported),
            false => Ok(()),
        }
    }
}

/// A deployment that is under way, or a removal.
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
        JobBook::new(room, SiteResources::default(), Duration::from_secs(300))
    }

    /// A book of a site with two of these.
    fn with_two(thing: &str) -> JobBook {
        let mut resources = SiteResources::default();
        resources.amounts.insert(thing.to_owned(), 2.0);
        JobBook::new(8, resources, Duration::from_secs(300))
    }

    #[test]
    fn resources_are_a_jobs_from_its_reservation_until_its_end() {
        let (book, now) = (with_two("cpus"), Instant::now());
        let both = Map::from_iter([("cpus", 2_i64)]);
        let taken = |book: &JobBook, at| match book.reserve("other", &both, at) {
            Err(NotTaken::Lack(lack)) => !lack.never,
            Err(error) => panic!("{error}"),
            Ok(token) => {
                book.cancel(&token);
                false
            }
        };
        let token = book.reserve("job-1", &both, now).unwrap();
        assert!(taken(&book, now));
        assert!(!taken(&book, now + Duration::from_secs(300)), "a reservation expires");
        let again = book.reserve("job-1", &both, now).unwrap();
        assert_eq!(book.enter("job-1", &token, now), Err(NotTaken::NoReservation), "it is replaced");
        book.enter("job-1", &again, now).unwrap();
        assert!(taken(&book, now + Duration::from_secs(3_000)), "a job that runs keeps what it has");
        book.end("job-1", 9, None);
        assert!(!taken(&book, now), "be it aborted or done");
        let token = book.reserve("job-2", &both, now).unwrap();
        book.enter("job-2", &token, now).unwrap();
        book.withdraw("job-2");
        assert!(!taken(&book, now), "it did not start");
        let three = Map::from_iter([("cpus", 3_i64)]);
        let Err(NotTaken::Lack(lack)) = book.reserve("job-3", &three, now) else { panic!("there are two") };
        assert!(lack.never);
    }

    #[test]
    fn reservations_and_jobs_share_the_room() {
        let (book, now) = (book(2), Instant::now());
        let first = book.reserve("job-1", &Map::new(), now).unwrap();
        book.enter("job-1", &first, now).unwrap();
        let second = book.reserve("job-2", &Map::new(), now).unwrap();
        assert_eq!(book.reserve("job-3", &Map::new(), now), Err(NotTaken::Full));
        book.reserve("job-2", &Map::new(), now).expect("asking again for the same job needs no more room");
        book.cancel(&second);
        assert_eq!(
            book.reserve("job-3", &Map::new(), now),
            Err(NotTaken::Full),
            "the token was replaced meanwhile"
        );
        assert!(book.reserve("job-3", &Map::new(), now + Duration::from_secs(300)).is_ok());
    }

    #[test]
    fn a_running_job_is_neither_deployed_nor_started_again() {
        let (book, now) = (book(2), Instant::now());
        let token = book.reserve("job-1", &Map::new(), now).unwrap();
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
        let token = book.reserve("job-1", &Map::new(), now).unwrap();
        book.enter("job-1", &token, now).unwrap();
        assert!(book.note_tasks("job-1", 3));
        let report = book.end("job-1", 0, None);
        assert_eq!((report.code, report.tasks_done), (0, 3));
        assert_eq!(book.job_ids(), ["job-1"]);
        assert!(book.standings().is_empty());
        assert!(book.reserve("job-2", &Map::new(), now).is_ok());
        book.forget("job-1");
        assert!(book.job_ids().is_empty());
    }

    #[test]
    fn an_abort_before_the_start_is_remembered() {
        let (book, now) = (book(1), Instant::now());
        let token = book.reserve("job-1", &Map::new(), now).unwrap();
        book.enter("job-1", &token, now).unwrap();
        assert!(book.to_abort("job-1").expect("it is here").is_none());
        let (handle, _report) = JobHandle::new("job-1");
        assert!(book.started("job-1", "app".into(), handle));
    }

    #[test]
    fn a_job_that_lost_its_process_starts_again_unless_it_is_to_end() {
        let (book, now) = (book(1), Instant::now());
        let token = book.reserve("job-1", &Map::new(), now).unwrap();
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
        assert_eq!(book.reserve("job-1", &Map::new(), now), Err(NotTaken::Closed));
    }
}
