//! Checkers judge a whole plan before any component of it is made: plain data in, plain data out.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Plan, PlanDigest, Side, one_line};

/// A gate that a plan must pass before anything of it is built.
///
/// It sees the whole plan once, read-only. Whoever runs it gives it a deadline and a thread of its own; an error,
/// a panic and an overrun are denials.
pub trait Checker: Send + Sync + fmt::Debug {
    /// Its id in the site's configuration.
    fn id(&self) -> &str;

    /// How long a review by it may take, if that is not for whoever runs it to say: of one that supervises a
    /// process, the time within which it answers in any case.
    fn time_limit(&self) -> Option<Duration> {
        None
    }

    /// What runs it and which text it follows, for the record of reviews.
    fn origin(&self) -> CheckerOrigin {
        CheckerOrigin::default()
    }

    /// Judges a plan. A component without a verdict is one that this checker has nothing to say about.
    ///
    /// # Errors
    /// An error means that no judgement was possible, and refuses the plan.
    fn review_plan(&self, review: &PlanReview<'_>) -> Result<Vec<Verdict>, CheckerError>;
}

/// What runs a checker, and which text it follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckerOrigin {
    /// `built-in`, `rego`, `wasm`, `python`.
    pub back_end: &'static str,
    /// SHA-256 of the file that it is, as 64 lower-case hexadecimal digits, if it is one.
    pub digest: Option<String>,
}

impl Default for CheckerOrigin {
    /// A checker of the program itself.
    fn default() -> Self {
        CheckerOrigin { back_end: "built-in", digest: None }
    }
}

/// What a checker sees. Nothing in it is secret, and nothing can be changed.
#[derive(Debug, Clone, Copy)]
pub struct PlanReview<'a> {
    /// The resolved plan.
    pub plan: &'a Plan,
    /// The whole configuration after substitution.
    pub config: &'a serde_json::Value,
    /// Whose job it is.
    pub job: &'a JobFacts,
    /// Where it is to run.
    pub site: &'a SiteFacts,
    /// At which point of its life.
    pub phase: Phase,
}

/// What is known of a job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JobFacts {
    /// The server's identifier.
    pub job_id: String,
    /// The name that the submitter gave it.
    pub name: String,
    /// Who submitted it.
    pub submitter_name: String,
    /// The submitter's organisation.
    pub submitter_org: String,
    /// The submitter's role.
    pub submitter_role: String,
    /// Whether it brings code of its own.
    pub byoc: bool,
    /// The job's whole meta.
    pub meta: serde_json::Value,
    /// Every file of the app that came with it, sorted by path.
    #[serde(default)]
    pub files: Vec<AppFile>,
}

/// A file of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppFile {
    /// As seen from the app's folder, with `/` between its parts: `custom/net.py`.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// SHA-256 of its content, as 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// What is known of the place where a plan is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteFacts {
    /// Name of the site, or `server`.
    pub name: String,
    /// Its organisation.
    pub org: String,
    /// Which half of the job runs here.
    pub side: Side,
    /// Where the site keeps its jobs.
    pub workspace: PathBuf,
}

/// When a plan is reviewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// On submission, as a dry run.
    Submit,
    /// When the app arrives.
    Deploy,
    /// Just before the components are built.
    Launch,
    /// For a component made while the job runs.
    Runtime,
}

/// A place in a configuration: `executors.#1.executor.args.model`, items of lists counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConfigPath(String);

impl ConfigPath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConfigPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for ConfigPath {
    fn from(path: String) -> Self {
        ConfigPath(path)
    }
}

impl From<&str> for ConfigPath {
    fn from(path: &str) -> Self {
        ConfigPath(path.to_owned())
    }
}

/// What one checker says of one component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The component judged; the empty path is the plan as a whole.
    pub component: ConfigPath,
    /// What is to happen.
    pub decision: Decision,
    /// Why.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// Lets a component pass.
    pub fn allow(component: impl Into<ConfigPath>) -> Self {
        Verdict { component: component.into(), decision: Decision::Allow, findings: Vec::new() }
    }

    /// Lets a component pass, with a remark.
    pub fn warn(component: impl Into<ConfigPath>, finding: Finding) -> Self {
        Verdict { component: component.into(), decision: Decision::Warn, findings: vec![finding] }
    }

    /// Refuses a component, and with it the plan.
    pub fn deny(component: impl Into<ConfigPath>, finding: Finding) -> Self {
        Verdict { component: component.into(), decision: Decision::Deny, findings: vec![finding] }
    }
}

/// What is to happen to a component. A denial by one checker outweighs all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It may be built.
    Allow,
    /// It may be built, and somebody should read the findings.
    Warn,
    /// Nothing of the plan may be built.
    Deny,
}

/// One reason for a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A stable word for programs, for example `not-on-allow-list`: [at most 64 lower-case letters, digits and
    /// `-`](Finding::is_code).
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// What exactly it is about: the component, or something inside it.
    pub path: ConfigPath,
    /// Whether the submitter of the job may read the message.
    pub public: bool,
}

impl Finding {
    /// Whether a text can be the code of a finding: 1 to 64 of `a` to `z`, `0` to `9` and `-`.
    pub fn is_code(text: &str) -> bool {
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        (1..=64).contains(&text.len()) && text.bytes().all(plain)
    }
}

/// Why a checker could not judge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckerError {
    /// Its policy cannot be read or does not make sense.
    #[error("unusable policy: {0}")]
    Policy(String),
    /// The judgement itself went wrong.
    #[error("{0}")]
    Failed(String),
}

/// Everything that one checker said of one plan, or that it could not say anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckerReport {
    /// The checker's id.
    pub checker: String,
    /// The plan that was judged.
    pub plan: PlanDigest,
    /// Its verdicts, or why there are none.
    pub outcome: Result<Vec<Verdict>, CheckerFailure>,
}

/// How a checker failed. Each of these refuses the plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckerFailure {
    /// It returned an error.
    #[error("failed: {0}")]
    Error(CheckerError),
    /// It panicked.
    #[error("panicked: {0}")]
    Panic(String),
    /// It took too long.
    #[error("had no answer within {0:?}")]
    Deadline(Duration),
    /// It could not be started.
    #[error("could not be started: {0}")]
    NotStarted(String),
}

/// A plan that may not be built, and every reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The refused plan.
    pub plan: PlanDigest,
    /// Every denial by every checker, in the order of the checkers.
    pub findings: Vec<Denial>,
}

/// One denial, with all that somebody needs to find its cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// The checker that said it.
    pub checker: String,
    /// The refused component's id, or its path when it has none; empty for the plan as a whole.
    pub component: String,
    /// The file that names the component.
    pub file: String,
    /// What exactly it is about.
    pub path: ConfigPath,
    /// A stable word for programs; [`Denial::CHECKER_FAILED`] when the checker itself failed.
    pub code: String,
    /// A sentence for the operator.
    pub message: String,
    /// Whether the submitter may read the message.
    pub public: bool,
}

impl Denial {
    /// Code of a denial that stems from a failing checker.
    pub const CHECKER_FAILED: &'static str = "checker-failed";

    /// Code of a denial of a plan that is not the one that was approved.
    pub const PLAN_CHANGED: &'static str = "plan-changed";

    /// Of a plan that is not the one that was approved; `message` says what differs, and the submitter may read it.
    pub fn plan_changed(message: String) -> Denial {
        Denial {
            checker: "comparison".to_owned(),
            component: String::new(),
            file: String::new(),
            path: ConfigPath::from(""),
            code: Denial::PLAN_CHANGED.to_owned(),
            message,
            public: true,
        }
    }

    /// What the submitter may read: the message, or that the site keeps it to itself.
    pub fn public_reason(&self) -> &str {
        if self.public { &self.message } else { "the site's policy refuses it" }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [checker, path, code, message] =
            [&self.checker, &self.path.0, &self.code, &self.message].map(|text| one_line(text));
        if path.is_empty() {
            write!(f, "{message} [{code}, {checker}]")
        } else {
            write!(f, "{path}: {message} [{code}, {checker}]")
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plan refused: ")?;
        for (i, denial) in self.findings.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{denial}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}
