//! What a server job tells its parent, by message.

use std::path::PathBuf;

use locule_component::{Progress, Unusable};
use locule_protocol::Refusal;
use serde::{Deserialize, Serialize};

/// What is sent: a report, as JSON, with what the half has moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Told<Report = JobReport> {
    /// Bytes in and out since the half was started.
    pub(crate) bytes_moved: u64,
    pub(crate) report: Report,
}

/// One report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub(crate) enum JobReport {
    /// Assembled; its sites may come.
    Ready,
    /// The server's own checkers refuse it.
    Refused {
        reason: String,
        refusals: Vec<Refusal>,
    },
    RoundStarted {
        round: u64,
        rounds: u64,
    },
    RoundFinished {
        round: u64,
        rounds: u64,
        sites: Vec<(String, Vec<(String, f64)>)>,
        model: PathBuf,
    },
    Saved {
        path: PathBuf,
    },
    Unusable {
        site: String,
        task: String,
        round: Option<u64>,
        code: String,
        reason: String,
    },
    Ended(RunEnd),
}

/// How the workflows ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunEnd {
    /// Why they did not reach their end.
    pub(crate) failed: Option<String>,
}

impl JobReport {
    /// Between a job and its parent on the server; nvflare 2.9.0 has other topics on it.
    pub(crate) const CHANNEL: &'static str = "server_parent_listener";
    /// Ours.
    pub(crate) const TOPIC: &'static str = "locule.report";

    /// What is reported of a workflow's progress, if anything.
    pub(super) fn of(progress: Progress) -> Option<Self> {
        match progress {
            Progress::RoundStarted { round, rounds } => Some(Self::RoundStarted { round, rounds }),
            Progress::RoundFinished { round, rounds, mut sites, model } => {
                // JSON has no word for what is not a number.
                sites.iter_mut().for_each(|(_, metrics)| metrics.retain(|(_, value)| value.is_finite()));
                Some(Self::RoundFinished { round, rounds, sites, model })
            }
            Progress::ModelSaved { path } => Some(Self::Saved { path }),
            Progress::ResultUnusable { site, task, round, fault: Unusable { fault, reason } } => {
                Some(Self::Unusable { site, task, round, code: fault.code().to_owned(), reason })
            }
            other => {
                tracing::debug!(?other, "progress of an unknown sort");
                None
            }
        }
    }
}
