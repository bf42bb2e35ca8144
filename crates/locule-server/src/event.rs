//! What a server tells whoever watches it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::record::{JobRecord, JobStatus};

/// Something that a person who watches the server would want to see.
///
/// `locule server --output json` prints one object a line, told apart by `event`.
///
/// ```
/// use locule_server::ServerEvent;
///
/// let line = r#"{"event":"site_joined","site":"site-1"}"#;
/// let event: ServerEvent = serde_json::from_str(line)?;
/// assert_eq!(event, ServerEvent::SiteJoined { site: "site-1".into() });
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ServerEvent {
    /// The server accepts links here.
    Listening {
        /// URL with the real port.
        endpoint: String,
    },
    /// A site registered, or came back.
    SiteJoined {
        /// Name of the site.
        site: String,
    },
    /// A site said good-bye or fell silent.
    SiteLeft {
        /// Name of the site.
        site: String,
        /// Why.
        reason: String,
    },
    /// A job entered a state.
    JobStatus {
        /// Id of the job.
        job: String,
        /// The state that it entered.
        status: JobStatus,
        /// Why.
        reason: String,
    },
    /// A job cannot begin yet.
    JobWaits {
        /// Id of the job.
        job: String,
        /// What it waits for.
        reason: String,
    },
    /// The process of the server's half of a job died, and the half was started again.
    JobRestarted {
        /// Id of the job.
        job: String,
        /// How the process died.
        reason: String,
    },
    /// A round began.
    RoundStarted {
        /// Id of the job.
        job: String,
        /// Number of the round, from 0.
        round: u64,
        /// How many rounds there will be.
        rounds: u64,
    },
    /// A round's results are aggregated and its model is on disk.
    RoundFinished {
        /// Id of the job.
        job: String,
        /// Number of the round, from 0.
        round: u64,
        /// How many rounds there will be.
        rounds: u64,
        /// Each site's own metrics, by name, in site order.
        sites: Vec<(String, Vec<(String, f64)>)>,
        /// The model after this round, an NPZ file.
        model: PathBuf,
        /// Bytes between the job's half at the server and its sites so far, in and out; without those of a time before
        /// a restart of the server.
        bytes_moved: u64,
    },
    /// A site's result does not count. What a site says of a failure of its own comes as soon as it is there.
    ResultUnusable {
        /// Id of the job.
        job: String,
        /// Name of the site.
        site: String,
        /// Name of the task.
        task: String,
        /// Number of the round, from 0, if the task belongs to one.
        round: Option<u64>,
        /// The sort of mistake, as in `refused.jsonl` of the job's folder.
        code: String,
        /// Why, in words; much of it may be the site's.
        reason: String,
    },
    /// A workflow put a result on disk.
    ResultSaved {
        /// Id of the job.
        job: String,
        /// Where.
        path: PathBuf,
    },
    /// A job is over; its record says how.
    JobFinished {
        /// The whole record.
        record: JobRecord,
        /// Bytes between the job's half at the server and its sites, as for [`RoundFinished`](Self::RoundFinished).
        bytes_moved: u64,
    },
}
