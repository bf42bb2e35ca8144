//! What a site tells whoever watches it.

use locule_protocol::Refusal;
use serde::{Deserialize, Serialize};

/// Something that a person who watches the site would want to see.
///
/// ```
/// use locule_site::SiteEvent;
///
/// let line = r#"{"event":"job_started","job":"9fd1"}"#;
/// let event: SiteEvent = serde_json::from_str(line)?;
/// assert_eq!(event, SiteEvent::JobStarted { job: "9fd1".into() });
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum SiteEvent {
    /// The server granted a session, for the first time or anew.
    Registered {
        /// Name of the site.
        site: String,
    },
    /// An app was accepted and stored.
    JobDeployed {
        /// Id of the job.
        job: String,
        /// Name of the app.
        app: String,
    },
    /// An app was refused, and nothing of it kept.
    JobRefused {
        /// Id of the job.
        job: String,
        /// What the site's checkers refused.
        refusals: Vec<Refusal>,
    },
    /// A job was started.
    JobStarted {
        /// Id of the job.
        job: String,
    },
    /// A job's process died, and the job was started again.
    JobRestarted {
        /// Id of the job.
        job: String,
        /// How the process died.
        reason: String,
    },
    /// A job ended.
    JobEnded {
        /// Id of the job.
        job: String,
        /// One of [`locule_protocol::outcome`].
        code: i64,
        /// Why, unless it is done.
        reason: Option<String>,
        /// What the site's checkers refused.
        refusals: Vec<Refusal>,
    },
    /// The server has taken the outcome of a job.
    OutcomeTaken {
        /// Id of the job.
        job: String,
    },
    /// The site has left.
    Stopped,
}
