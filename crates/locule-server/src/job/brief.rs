//! What a server tells the processes of its jobs in confidence.

use std::path::PathBuf;
use std::sync::Arc;

use locule_auth::ServerStamp;
use locule_launcher::Brief;
use serde::{Deserialize, Serialize};

use super::run::JobHost;

/// What a job's process has to know of its server beside what lies in the kit: names, and the signature that the
/// server puts on its messages, without the key that it was made with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerBrief {
    /// The folder of the kit.
    pub kit: PathBuf,
    /// Name of the project.
    pub project: String,
    /// The server's organisation.
    pub org: String,
    signature: String,
}

impl ServerBrief {
    /// What the jobs of `host` are told.
    #[must_use]
    pub fn of(host: &JobHost) -> Brief {
        let said = ServerBrief {
            kit: host.kit.root().to_owned(),
            project: host.project.clone(),
            org: host.org.clone(),
            signature: host.stamp.signature().expose().to_owned(),
        };
        Brief::new(serde_json::to_string(&said).unwrap_or_default())
    }

    /// Reads what a process was told.
    ///
    /// # Errors
    /// What is wrong with it, without its words.
    pub fn read(brief: &Brief) -> Result<ServerBrief, String> {
        serde_json::from_str(brief.expose()).map_err(|error| {
            format!("what the server told its job makes no sense (column {})", error.column())
        })
    }

    /// What stamps the job's messages.
    #[must_use]
    pub fn stamp(&self) -> Arc<ServerStamp> {
        Arc::new(ServerStamp::handed_on(self.signature.as_str().into()))
    }
}

impl std::fmt::Debug for ServerBrief {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerBrief").field("kit", &self.kit).finish_non_exhaustive()
    }
}
