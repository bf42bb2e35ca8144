//! What the server remembers of a job, as records of a journal and as their sum.

use std::collections::BTreeMap;

use locule_identity::Identity;
use locule_protocol::Refusal;
use serde::{Deserialize, Serialize};

/// The server's own half of a job, where it stands beside those of sites.
pub(crate) const SERVER: &str = "server";

/// State of a job; the texts are those of nvflare 2.9.0, `nvflare.apis.job_def.RunStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobStatus {
    /// Accepted and stored.
    #[serde(rename = "SUBMITTED")]
    Submitted,
    /// Deployed to its sites.
    #[serde(rename = "DISPATCHED")]
    Dispatched,
    /// Its processes were started.
    #[serde(rename = "RUNNING")]
    Running,
    /// All workflows ended and every site reported.
    #[serde(rename = "FINISHED:COMPLETED")]
    Completed,
    /// Stopped by a person or refused by a site.
    #[serde(rename = "FINISHED:ABORTED")]
    Aborted,
    /// A component or the configuration failed.
    #[serde(rename = "FINISHED:EXECUTION_EXCEPTION")]
    ExecutionException,
    /// A site ended without saying how, or its infrastructure failed.
    #[serde(rename = "FINISHED:ABNORMAL")]
    Abnormal,
    /// Too few sites were ready for it in time.
    #[serde(rename = "FINISHED:CAN_NOT_SCHEDULE")]
    CannotSchedule,
    /// It could not be deployed or started on enough sites.
    #[serde(rename = "FINISHED:FAILED_TO_RUN")]
    FailedToRun,
}

impl JobStatus {
    /// Whether the job is over.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Submitted | Self::Dispatched | Self::Running)
    }

    /// The text on the wire and in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "SUBMITTED",
            Self::Dispatched => "DISPATCHED",
            Self::Running => "RUNNING",
            Self::Completed => "FINISHED:COMPLETED",
            Self::Aborted => "FINISHED:ABORTED",
            Self::ExecutionException => "FINISHED:EXECUTION_EXCEPTION",
            Self::Abnormal => "FINISHED:ABNORMAL",
            Self::CannotSchedule => "FINISHED:CAN_NOT_SCHEDULE",
            Self::FailedToRun => "FINISHED:FAILED_TO_RUN",
        }
    }
}

/// One line of a job's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusChange {
    /// The state entered.
    pub status: JobStatus,
    /// Seconds since the Unix epoch.
    pub time: u64,
    /// Why.
    pub reason: String,
}

/// What a job waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Since when it waits for that, in seconds since the Unix epoch.
    pub since: u64,
    /// Why it does not begin.
    pub reason: String,
}

/// How a site's part of a job ended, as the site reported it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteOutcome {
    /// 0 done, 9 aborted, 101 exception, 102 refused, 103 configuration, 104 infrastructure.
    pub code: i64,
    /// The site's reason, if it gave one.
    pub reason: Option<String>,
    /// Components that the site's checkers refused.
    pub refusals: Vec<Refusal>,
    /// Tasks whose result the server took; 0 if the site does not say.
    pub tasks_done: u64,
}

/// Who handed a job in. What is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitter {
    /// Common name of the certificate.
    pub name: String,
    /// Its organisation.
    pub org: String,
    /// Its role.
    pub role: String,
}

impl From<Identity> for Submitter {
    fn from(identity: Identity) -> Self {
        let Identity { common_name, organization, role, .. } = identity;
        Self { name: common_name, org: organization.unwrap_or_default(), role: role.unwrap_or_default() }
    }
}

/// One submission of one job by one submitter, however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// What the submitter calls it.
    pub token: String,
    /// SHA-256 over the names and contents of the job's files, in hexadecimal digits; signatures do not count, since
    /// each is another.
    pub digest: String,
}

/// Everything that the server remembers of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Id of the job, a UUID.
    pub job_id: String,
    /// Name from its `meta.json`.
    pub name: String,
    /// Who handed it in.
    #[serde(default)]
    pub submitter: Submitter,
    /// Whether an administrator sent it, packed; else it was a folder at the server.
    #[serde(default)]
    pub packed: bool,
    /// What it waits for, if it has not begun. A server that was started again says it anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Box<Waiting>>,
    /// The submission that made it, if its submitter gave it a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submission: Option<Box<Submission>>,
    /// Sites that take part, in site order.
    pub sites: Vec<String>,
    /// Every state it was in, oldest first; never empty.
    pub history: Vec<StatusChange>,
    /// Outcomes by site; under `server` that of the server's own half, if its checkers refused the job.
    pub outcomes: BTreeMap<String, SiteOutcome>,
    /// Rounds that were aggregated.
    pub rounds_done: u64,
    /// How it is to end, from the moment that this is decided until its sites have stopped: a restart of the server
    /// in between does not change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Box<StatusChange>>,
}

impl JobRecord {
    /// The state it is in.
    #[must_use]
    pub fn status(&self) -> JobStatus {
        self.history.last().map_or(JobStatus::Submitted, |change| change.status)
    }

    /// Whether sites may hold it, and a server that takes it up goes on with them.
    pub(crate) fn has_begun(&self) -> bool {
        matches!(self.status(), JobStatus::Dispatched | JobStatus::Running)
    }

    /// When it was handed in, in seconds since the Unix epoch.
    #[must_use]
    pub fn submitted(&self) -> u64 {
        self.history.first().map_or(0, |change| change.time)
    }

    /// When it began to run, in seconds since the Unix epoch, if it did.
    #[must_use]
    pub fn started(&self) -> Option<u64> {
        self.history.iter().find(|change| change.status == JobStatus::Running).map(|change| change.time)
    }

    /// When it ended, in seconds since the Unix epoch, if it did.
    #[must_use]
    pub fn ended(&self) -> Option<u64> {
        self.history.last().filter(|change| change.status.is_final()).map(|change| change.time)
    }

    /// Every refusal, of the server and of every site, by their names.
    pub fn refusals(&self) -> impl Iterator<Item = &Refusal> {
        self.outcomes.values().flat_map(|outcome| &outcome.refusals)
    }
}
