//! What people see of a running server and may change: its sites, its jobs, their files.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use locule_auth::TokenLedger;
use locule_cell::{HandlerError, Incoming, Reply};
use locule_journal::AppendError;
use locule_message::Fqcn;

use crate::admit;
use crate::book::Entry;
use crate::intake::{package_file, read_meta};
use crate::record::JobRecord;
use crate::server::{Server, Shared, now_instant};

impl Server {
    /// Forgets a job that is over, with all that is on disk of it.
    ///
    /// # Errors
    /// [`DeleteError`]; a job whose files could not be removed is forgotten nevertheless.
    pub async fn delete(&self, job_id: &str) -> Result<(), DeleteError> {
        self.shared.delete(job_id).await
    }

    /// Where a job's files lie; none if the id cannot be that of a job.
    #[must_use]
    pub fn files(&self, job_id: &str) -> Option<JobFiles> {
        self.shared.files(job_id)
    }

    /// Takes a piece of a log that a site sends, for whoever else hears streams of auxiliary messages on the server's
    /// cell: what is none of theirs.
    ///
    /// # Errors
    /// [`HandlerError`] if nobody is known to have sent it.
    pub async fn take_log(&self, incoming: Incoming) -> Result<Reply, HandlerError> {
        admit::aux(Arc::clone(&self.shared), incoming).await
    }

    /// The sites that are there, by name.
    #[must_use]
    pub fn sites(&self) -> Vec<SiteThere> {
        let (now, wall) = (now_instant(), SystemTime::now());
        let ledger = &self.shared.ledger;
        let there = |(name, cell): (String, Fqcn)| {
            let silent = ledger.last_seen(&name).map(|at| now.saturating_duration_since(at));
            let organization = ledger.site(&name).and_then(|holder| holder.organization.clone());
            let last_seen = wall.checked_sub(silent.unwrap_or_default()).unwrap_or(wall);
            SiteThere { name, cell, organization: organization.unwrap_or_default(), last_seen }
        };
        self.shared.sites().into_iter().map(there).collect()
    }

    /// When the server started.
    #[must_use]
    pub fn started(&self) -> SystemTime {
        self.shared.started
    }

    /// All jobs, the one that was handed in first at the head.
    #[must_use]
    pub fn records(&self) -> Vec<JobRecord> {
        self.shared.book.records()
    }

    /// A site is to leave: its token is no longer good, and its jobs hear of it. It may register again.
    /// Whether it was there.
    ///
    /// # Errors
    /// [`AppendError`] when the journal of tokens does not take it; nothing changed then.
    pub async fn remove_site(&self, site: &str) -> Result<bool, AppendError> {
        let name = site.to_owned();
        let removed = self.ledger(move |ledger| ledger.remove(&name)).await?;
        if removed {
            self.shared.left(site, "removed by an administrator").await;
        }
        Ok(removed)
    }

    /// A site is to leave and to stay out until it is enabled.
    ///
    /// # Errors
    /// [`AppendError`] when the journal of tokens does not take it; nothing changed then.
    pub async fn disable_site(&self, site: &str) -> Result<(), AppendError> {
        let name = site.to_owned();
        self.ledger(move |ledger| ledger.disable(&name)).await?;
        self.shared.left(site, "disabled by an administrator").await;
        Ok(())
    }

    /// Lets a disabled site register again.
    ///
    /// # Errors
    /// [`AppendError`] when the journal of tokens does not take it; nothing changed then.
    pub async fn enable_site(&self, site: &str) -> Result<(), AppendError> {
        let name = site.to_owned();
        self.ledger(move |ledger| ledger.enable(&name)).await
    }

    async fn ledger<T: Send + 'static>(
        &self,
        change: impl FnOnce(&TokenLedger) -> Result<T, AppendError> + Send + 'static,
    ) -> Result<T, AppendError> {
        let ledger = Arc::clone(&self.shared.ledger);
        let changed = tokio::task::spawn_blocking(move || change(&ledger)).await;
        changed.unwrap_or_else(|error| Err(AppendError::Write(io::Error::other(error))))
    }
}

impl Shared {
    pub(crate) async fn delete(self: &Arc<Self>, job_id: &str) -> Result<(), DeleteError> {
        let record = self.book.record(job_id).ok_or(DeleteError::Unknown)?;
        if !record.status().is_final() || self.is_open(job_id) {
            return Err(DeleteError::NotOver);
        }
        self.write(Entry::Deleted { job: job_id.to_owned() }).await.map_err(DeleteError::Journal)?;
        let files = self.files(job_id).ok_or(DeleteError::Unknown)?;
        let removing = tokio::task::spawn_blocking(move || remove(&files));
        let removed = removing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        removed.map_err(DeleteError::Files)
    }

    pub(crate) fn files(&self, job_id: &str) -> Option<JobFiles> {
        let run_dir = self.kit.run_dir(job_id).ok()?.path().to_owned();
        Some(JobFiles { run_dir, package: package_file(&self.kit, job_id) })
    }
}

/// Where a job's files lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFiles {
    /// The folder that it runs in, with its results.
    pub run_dir: PathBuf,
    /// The job as it was handed in, a zip.
    pub package: PathBuf,
}

impl JobFiles {
    /// The job's meta as it was stored. Blocking.
    ///
    /// # Errors
    /// If it cannot be read, or is not JSON.
    pub fn read_meta(&self) -> io::Result<serde_json::Value> {
        read_meta(&self.run_dir)
    }
}

/// A site that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteThere {
    /// Its name.
    pub name: String,
    /// The cell that it registered from.
    pub cell: Fqcn,
    /// The organisation in its certificate; may be empty.
    pub organization: String,
    /// When it was heard of last.
    pub last_seen: SystemTime,
}

/// Why a job was not deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteError {
    /// There is no such job.
    #[error("there is no such job")]
    Unknown,
    /// It waits or runs.
    #[error("the job is not over")]
    NotOver,
    /// The journal of jobs does not take it.
    #[error("the journal of jobs does not take it")]
    Journal(#[source] AppendError),
    /// It is forgotten, but some of its files are still there.
    #[error("the job's files cannot be removed")]
    Files(#[source] io::Error),
}

fn remove(files: &JobFiles) -> io::Result<()> {
    let missing_is_fine = |removed: io::Result<()>| match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    missing_is_fine(std::fs::remove_file(&files.package))?;
    missing_is_fine(std::fs::remove_dir_all(&files.run_dir))
}
