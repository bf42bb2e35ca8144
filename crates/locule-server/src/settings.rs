//! What a server is made of, and how it waits.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use locule_auth::TokenLedger;
use locule_cell::Cell;
use locule_event::Attendants;
use locule_identity::{Signer, Verifier};
use locule_job::Retention;
use locule_journal::Journal;
use locule_kit::Workspace;
use locule_launcher::Launcher;

use crate::job::JobHost;
use crate::queue::Bounds;

/// Names and waits of a server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerSettings {
    /// Name of the federation's project; registrations for another are refused.
    pub project: String,
    /// Names that provisioning gave to relays: no site may register by them, and nobody else as a relay.
    pub relays: BTreeSet<String>,
    /// Whether a job must carry signatures that chain to the project's root.
    pub require_signed_jobs: bool,
    /// A site that was silent for this long has left (600 s).
    pub heartbeat_timeout: Duration,
    /// How long jobs wait for a site that said good-bye to come back, before they go on without it (60 s).
    pub return_wait: Duration,
    /// How long a site may take to report how its part of a finished run ended (900 s).
    pub outcome_wait: Duration,
    /// How long a site may take to answer an order (20 s).
    pub order_timeout: Duration,
    /// How long sites may take to stop a job that is aborted (10 s).
    pub abort_grace: Duration,
    /// Pause before the sites of a job that has too few are asked again (10 s). It doubles each time.
    pub schedule_pause: Duration,
    /// The longest such pause (600 s).
    pub longest_schedule_pause: Duration,
    /// How often the sites of a job are asked before it is given up (10). It does not count when they only have in use
    /// what it needs, nor when they are asked because another job has ended or a site has come.
    pub schedule_tries: u32,
    /// Jobs that may run at once (4).
    pub max_jobs: usize,
    /// What is kept of jobs that are over (all of it).
    pub retention: Retention,
}

impl ServerSettings {
    /// The defaults of nvflare 2.9.0 for a server of this project.
    #[must_use]
    pub fn new(project: impl Into<String>) -> Self {
        Self {
            project: project.into(),
            relays: BTreeSet::new(),
            require_signed_jobs: true,
            heartbeat_timeout: Duration::from_secs(600),
            return_wait: Duration::from_secs(60),
            outcome_wait: Duration::from_secs(900),
            order_timeout: Duration::from_secs(20),
            abort_grace: Duration::from_secs(10),
            schedule_pause: Duration::from_secs(10),
            longest_schedule_pause: Duration::from_secs(600),
            schedule_tries: 10,
            max_jobs: 4,
            retention: Retention::default(),
        }
    }
}

impl ServerSettings {
    pub(crate) fn queue(&self) -> Bounds {
        Bounds {
            most: self.max_jobs.max(1),
            tries: self.schedule_tries,
            pause: self.schedule_pause,
            longest_pause: self.longest_schedule_pause,
        }
    }
}

/// What a server is made of.
pub struct ServerParts {
    /// The cell `server`, listening, with its gate and stamp.
    pub cell: Cell,
    /// Signs with the server's key.
    pub signer: Arc<dyn Signer>,
    /// Judges certificates and signatures under the project's root.
    pub verifier: Arc<dyn Verifier>,
    /// The tokens that are good; the cell's gate asks the same ledger.
    pub ledger: Arc<TokenLedger>,
    /// Where jobs are remembered.
    pub jobs: Box<dyn Journal>,
    /// What the server's half of jobs is reviewed with before it is deployed; it is started with the same.
    pub host: Arc<JobHost>,
    /// Starts the server's half of jobs.
    pub launcher: Arc<dyn Launcher>,
    /// Endpoint at which the server's own job cells reach it.
    pub internal: String,
    /// The server's kit, in which jobs run.
    pub kit: Workspace,
    /// Who hears of what happens at the server, and may say no to it.
    pub attendants: Attendants,
}

impl fmt::Debug for ServerParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerParts").field("kit", &self.kit.root()).finish_non_exhaustive()
    }
}
