//! Gates: what may be said no to in the life of a site or server.

use std::time::{Duration, SystemTime};

use crate::{JobFacts, Side};

/// Says yes or no at moments of a site's or server's life. It is named by the kit's operator, never by a job.
///
/// An [`Observer`](crate::Observer) hears of the same moments and can stop none of them; a gate is asked, and
/// whatever it does, the answer is yes or no: an error, a panic or silence beyond its time is a no.
///
/// ```
/// use locule_component::{Answer, Gate, GateCx, GateError, Question};
///
/// struct NoJobsToday;
///
/// impl Gate for NoJobsToday {
///     fn judge(&self, question: &Question, _: &GateCx) -> Result<Answer, GateError> {
///         Ok(match question {
///             Question::CheckResources { .. } => Answer::no("the cluster is being moved"),
///             _ => Answer::Yes,
///         })
///     }
/// }
/// ```
pub trait Gate: Send + Sync {
    /// Answers a question; one that does not concern it with [`Answer::Yes`].
    ///
    /// # Errors
    /// An error is a no. Its text is for the operator; whoever asked is told that the gate failed.
    fn judge(&self, question: &Question, cx: &GateCx) -> Result<Answer, GateError>;

    /// How long it may take, if it needs other than the default.
    fn time_limit(&self) -> Option<Duration> {
        None
    }
}

/// What a gate is asked.
///
/// # Source
/// The moments at which a handler of nvflare 2.9.0 can stop what is about to happen, by raising an error or by
/// setting `__job_block_reason`: `nvflare.apis.event_type`. Their other two are the review of a plan, which is
/// what [`Checker`](crate::Checker)s do, and the choice of a launcher, which is made when a site is built.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Question {
    /// May this site or server start? No: it does not, and says why.
    SystemBootstrap,
    /// May this participant register? Asked at the server, after its identity was proven and before it has a
    /// token. No: it is refused as not authenticated.
    ClientRegister {
        /// Its name.
        name: String,
        /// `site`, `admin` or `relay`.
        party: &'static str,
    },
    /// May this job be taken in? Asked at the server before anything of it is stored. No: its submitter is told
    /// the reason.
    SubmitJob {
        /// The job; its files are not listed.
        job: Box<JobFacts>,
    },
    /// May these sites be asked to run this job? Asked at the server. No: the job waits and is tried again.
    CheckClientResources {
        /// The job; its files are not listed.
        job: Box<JobFacts>,
        /// The sites.
        sites: Vec<String>,
    },
    /// Does this site run this job now? No: the server is told the reason in the answer about resources, and keeps
    /// it in the job's history.
    CheckResources {
        /// The job as far as the server tells of it; its files are not known yet.
        job: Box<JobFacts>,
    },
    /// May this order be obeyed, which a console's command stands behind? Asked at a site. No: the server is told
    /// the reason.
    AuthorizeCommand {
        /// The console's command: `check_resources`, `submit_job`.
        command: String,
        /// Who gave it; empty where the server does not say.
        user: Requester,
        /// Who submitted the job that it is about; empty where the server does not say.
        submitter: Requester,
    },
}

impl Question {
    /// The name of the event at whose moment it is asked.
    pub fn name(&self) -> &'static str {
        match self {
            Question::SystemBootstrap => "_system_bootstrap",
            Question::ClientRegister { .. } => "_client_register_received",
            Question::SubmitJob { .. } => "_submit_job",
            Question::CheckClientResources { .. } => "_before_check_client_resources",
            Question::CheckResources { .. } => "_before_check_resource_manager",
            Question::AuthorizeCommand { .. } => "_authorize_command_check",
        }
    }

    /// The job that it is about.
    pub fn job(&self) -> Option<&JobFacts> {
        match self {
            Question::SubmitJob { job }
            | Question::CheckClientResources { job, .. }
            | Question::CheckResources { job } => Some(job),
            Question::SystemBootstrap
            | Question::ClientRegister { .. }
            | Question::AuthorizeCommand { .. } => None,
        }
    }
}

/// Who wants something. What is not known is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Requester {
    /// Name.
    pub name: String,
    /// Organization.
    pub org: String,
    /// Role.
    pub role: String,
}

/// Where and when a gate is asked.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GateCx {
    /// Name of the site, or `server`.
    pub own_name: String,
    /// Which it is.
    pub side: Side,
    /// The time of day.
    pub now: SystemTime,
}

impl GateCx {
    /// Asked of this participant at this time.
    pub fn new(own_name: impl Into<String>, side: Side, now: SystemTime) -> Self {
        GateCx { own_name: own_name.into(), side, now }
    }
}

/// What a gate answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// As far as this gate is concerned, go on.
    Yes,
    /// It must not happen.
    No {
        /// Why, for whoever wanted it: it leaves the site.
        reason: String,
    },
}

impl Answer {
    /// A no, and why.
    pub fn no(reason: impl Into<String>) -> Self {
        Answer::No { reason: reason.into() }
    }
}

/// Why a gate could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GateError(pub String);
