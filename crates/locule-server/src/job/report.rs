//! What a server job tells its parent, by message.

use std::path::PathBuf;

use locule_component::Progress;
use serde::{Deserialize, Serialize};

/// One report, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub(crate) enum JobReport {
    RoundStarted { round: u64, rounds: u64 },
    RoundFinished { round: u64, rounds: u64, sites: Vec<(String, Vec<(String, f64)>)>, model: PathBuf },
    Saved { path: PathBuf },
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
}

impl From<Progress> for JobReport {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::RoundStarted { round, rounds } => Self::RoundStarted { round, rounds },
            Progress::RoundFinished { round, rounds, sites, model } => {
                Self::RoundFinished { round, rounds, sites, model }
            }
            Progress::ModelSaved { path } => Self::Saved { path },
            other => {
                tracing::debug!(?other, "progress of an unknown sort");
                Self::Saved { path: PathBuf::new() }
            }
        }
    }
}
