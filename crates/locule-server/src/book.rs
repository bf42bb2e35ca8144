//! The book of jobs: every change is in the journal before anybody hears of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use locule_journal::{AppendError, Journal, ReplayError};
use serde::{Deserialize, Serialize};

use crate::record::{JobRecord, JobStatus, SiteOutcome, StatusChange, Submission, Submitter, Waiting};

/// Version of the records. Those of this one and of the one before it are read.
const FORMAT: u32 = 1;

/// A change of a job, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(crate) enum Entry {
    /// The first record: what those after it are.
    Format {
        version: u32,
    },
    Submitted {
        job: String,
        name: String,
        time: u64,
        #[serde(default)]
        submitter: Submitter,
        #[serde(default)]
        packed: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        submission: Option<Submission>,
    },
    Sites {
        job: String,
        sites: Vec<String>,
    },
    Status {
        job: String,
        status: JobStatus,
        time: u64,
        reason: String,
    },
    /// What the job waits for; noted and not written, since whoever runs it finds it out again.
    Waits {
        job: String,
        time: u64,
        reason: String,
    },
    Outcome {
        job: String,
        site: String,
        outcome: SiteOutcome,
    },
    Round {
        job: String,
        done: u64,
    },
    /// How a job is to end was decided, and its sites are told to stop.
    Ending {
        job: String,
        status: JobStatus,
        time: u64,
        reason: String,
    },
    Deleted {
        job: String,
    },
}

/// Records of all jobs, with the journal that they are the sum of. A look waits for no disk.
pub(crate) struct Book {
    records: RwLock<BTreeMap<String, JobRecord>>,
    /// Jobs that were submitted with a token and are deleted: the token makes no other.
    deleted: RwLock<Vec<JobRecord>>,
    journal: Mutex<Box<dyn Journal>>,
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Book").finish_non_exhaustive()
    }
}

/// Why the book cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BookError {
    /// The journal cannot be read.
    #[error("journal of jobs cannot be read")]
    Replay(#[from] ReplayError),
    /// It was written by a newer version.
    #[error(
        "journal of jobs has format {found}, and this version knows those up to {FORMAT}; use a newer one"
    )]
    Newer {
        /// The format that it has.
        found: u32,
    },
    /// A new journal does not take its first record.
    #[error("journal of jobs cannot be written")]
    Begin(#[from] AppendError),
    /// A record is not one of ours.
    #[error("record {index} of the journal of jobs is not understood")]
    Entry {
        /// Which record, from 0.
        index: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl Book {
    /// Opens the book as the journal left it.
    pub(crate) fn open(mut journal: Box<dyn Journal>) -> Result<Self, BookError> {
        let (mut records, mut deleted) = (BTreeMap::new(), Vec::new());
        let written = journal.replay()?;
        if written.is_empty() {
            journal.append(&bytes_of(&Entry::Format { version: FORMAT }))?;
        }
        for (index, bytes) in written.iter().enumerate() {
            let entry = serde_json::from_slice(bytes).map_err(|source| BookError::Entry { index, source })?;
            if let Entry::Format { version } = entry
                && version > FORMAT
            {
                return Err(BookError::Newer { found: version });
            }
            deleted.extend(apply(&mut records, entry));
        }
        let (records, deleted) = (RwLock::new(records), RwLock::new(deleted));
        Ok(Self { records, deleted, journal: Mutex::new(journal) })
    }

    /// The jobs that are not over: those of an earlier run of the server, when it starts.
    pub(crate) fn open_jobs(&self) -> Vec<JobRecord> {
        self.records().into_iter().filter(|record| !record.status().is_final()).collect()
    }

    /// Writes an entry. Blocks until it is durable; nobody sees it before.
    pub(crate) fn write(&self, entry: Entry) -> Result<(), AppendError> {
        let bytes = bytes_of(&entry);
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.append(&bytes)?;
        // The journal stays locked, so that the records change in the order in which they were written.
        self.note(entry);
        Ok(())
    }

    /// Notes an entry that the journal does not take, so that it is true as long as the server runs.
    pub(crate) fn note(&self, entry: Entry) {
        let gone = apply(&mut self.records.write().unwrap_or_else(PoisonError::into_inner), entry);
        self.deleted.write().unwrap_or_else(PoisonError::into_inner).extend(gone);
    }

    /// The job that a submitter made with a token, and whether it is deleted.
    pub(crate) fn submitted(&self, by: &Submitter, token: &str) -> Option<(JobRecord, bool)> {
        let is_it = |record: &&JobRecord| {
            let of = record.submission.as_ref().map(|submission| &*submission.token);
            record.submitter == *by && of == Some(token)
        };
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = records.values().find(is_it) {
            return Some((record.clone(), false));
        }
        let deleted = self.deleted.read().unwrap_or_else(PoisonError::into_inner);
        deleted.iter().find(is_it).map(|record| (record.clone(), true))
    }

    /// All records, the job that was handed in first at the head.
    pub(crate) fn records(&self) -> Vec<JobRecord> {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        let mut records: Vec<JobRecord> = records.values().cloned().collect();
        records.sort_by_key(JobRecord::submitted);
        records
    }

    /// The record of a job.
    pub(crate) fn record(&self, job: &str) -> Option<JobRecord> {
        self.records.read().unwrap_or_else(PoisonError::into_inner).get(job).cloned()
    }
}

/// The records that a journal of jobs holds, by job id.
///
/// # Errors
/// [`BookError`] says which record is at fault.
pub fn read_records(journal: Box<dyn Journal>) -> Result<BTreeMap<String, JobRecord>, BookError> {
    let book = Book::open(journal)?;
    Ok(book.records.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Applies an entry; the record that it deletes, if that was made with a token.
fn apply(records: &mut BTreeMap<String, JobRecord>, entry: Entry) -> Option<JobRecord> {
    match entry {
        Entry::Format { .. } => {}
        Entry::Submitted { job, name, time, submitter, packed, submission } => {
            let first = StatusChange { status: JobStatus::Submitted, time, reason: "accepted".into() };
            let record = JobRecord {
                job_id: job.clone(),
                name,
                submitter,
                packed,
                waiting: None,
                submission: submission.map(Box::new),
                sites: Vec::new(),
                history: vec![first],
                outcomes: BTreeMap::new(),
                rounds_done: 0,
                ending: None,
            };
            records.insert(job, record);
        }
        Entry::Sites { job, sites } => {
            if let Some(record) = records.get_mut(&job) {
                record.sites = sites;
            }
        }
        Entry::Status { job, status, time, reason } => {
            // A job that is over stays over, whatever was still on its way to the disk.
            if let Some(record) = records.get_mut(&job).filter(|record| !record.status().is_final()) {
                if status.is_final() {
                    record.ending = None;
                }
                record.history.push(StatusChange { status, time, reason });
                record.waiting = None;
            }
        }
        Entry::Waits { job, time, reason } => {
            if let Some(record) =
                records.get_mut(&job).filter(|record| record.status() == JobStatus::Submitted)
            {
                record.waiting = Some(Box::new(Waiting { since: time, reason }));
            }
        }
        Entry::Ending { job, status, time, reason } => {
            // The first counts.
            if let Some(record) = records.get_mut(&job).filter(|record| !record.status().is_final()) {
                record.ending.get_or_insert_with(|| Box::new(StatusChange { status, time, reason }));
            }
        }
        Entry::Outcome { job, site, outcome } => {
            // A site has one outcome, and of two the first counts.
            if let Some(record) = records.get_mut(&job) {
                record.outcomes.entry(site).or_insert(outcome);
            }
        }
        Entry::Round { job, done } => {
            // One that is told again, by a half that was started again, is no other.
            if let Some(record) = records.get_mut(&job) {
                record.rounds_done = record.rounds_done.max(done);
            }
        }
        Entry::Deleted { job } => {
            return records.remove(&job).filter(|record| record.submission.is_some());
        }
    }
    None
}

fn bytes_of(entry: &Entry) -> Vec<u8> {
    serde_json::to_vec(entry).expect("an entry has only text keys")
}

/// Seconds since the Unix epoch.
pub(crate) fn seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
