use std::fmt;

use locule_fobs::{Map, Value};
use locule_message::{Headers, Payload};
use serde::{Deserialize, Serialize};

use crate::{
    channel,
    parts::{self, DecodeError, EncodeError, Parts},
};

/// Codes of a job's outcome at a site.
///
/// # Source
/// nvflare 2.9.0, `nvflare.apis.fl_constant` (`ProcessExitCode`), `nvflare.apis.job_launcher_spec`
/// (`JobReturnCode`).
pub mod outcome {
    /// Done.
    pub const DONE: i64 = 0;
    /// Ended with an error that means nothing to the server.
    pub const ERROR: i64 = 1;
    /// Aborted: the server fails the job.
    pub const ABORTED: i64 = 9;
    /// An exception: the server fails the job.
    pub const EXCEPTION: i64 = 101;
    /// The site refused a component: the server stops the job.
    pub const UNSAFE_COMPONENT: i64 = 102;
    /// A mistake in the job's configuration: the server fails the job.
    pub const CONFIG_ERROR: i64 = 103;
    /// The site could not run the job: the server fails the job.
    pub const INFRASTRUCTURE_ERROR: i64 = 104;
    /// Nobody knows.
    pub const UNKNOWN: i64 = 127;
}

/// How a job ended at a site; sent for success too. The reply is empty.
///
/// Refusals and the count of tasks are an extension, which a stock server passes over and a stock
/// site leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeReport {
    /// The job.
    pub job_id: String,
    /// One of [`outcome`].
    pub code: i64,
    /// Why, for people.
    pub reason: Option<String>,
    /// Components that the site refused; at most [`MAX_REFUSALS`](Self::MAX_REFUSALS) are read.
    pub refusals: Vec<Refusal>,
    /// Tasks whose results the server has accepted.
    pub tasks_done: u64,
}

impl OutcomeReport {
    /// Its channel.
    pub const CHANNEL: &str = channel::TASK;
    /// Its topic, whatever the outcome.
    pub const TOPIC: &str = "report_job_failure";
    /// Most refusals that are read from one report.
    pub const MAX_REFUSALS: usize = 256;

    /// A report without refusals.
    #[must_use]
    pub fn new(job_id: impl Into<String>, code: i64, reason: Option<String>) -> Self {
        Self { job_id: job_id.into(), code, reason, refusals: Vec::new(), tasks_done: 0 }
    }

    /// To the wire.
    ///
    /// # Errors
    /// [`EncodeError`] never in practice.
    pub fn to_parts(&self) -> Result<Parts, EncodeError> {
        let mut report = Map::new();
        report.insert("job_id", &self.job_id);
        report.insert("code", self.code);
        report.insert("reason", self.reason.clone());
        if !self.refusals.is_empty() {
            let refusals: Vec<Map> = self.refusals.iter().map(Refusal::to_map).collect();
            report.insert("refusals", refusals);
        }
        if self.tasks_done > 0 {
            report.insert("tasks_done", self.tasks_done);
        }
        Parts::new(Headers::new(), report)
    }

    /// From the wire.
    ///
    /// # Errors
    /// [`DecodeError`] when the payload is no map or names no job. A code that is missing or no
    /// integer is [`outcome::UNKNOWN`].
    pub fn from_parts(_headers: &Headers, payload: &Payload) -> Result<Self, DecodeError> {
        let value = parts::value(payload)?;
        let report = value.as_map().ok_or(DecodeError::Kind { expected: "map", found: value.kind() })?;
        let refusals = report.list("refusals").unwrap_or_default();
        Ok(Self {
            job_id: parts::text(report, "job_id")?,
            code: report.int("code").unwrap_or(outcome::UNKNOWN),
            reason: report.str("reason").map(str::to_owned),
            refusals: refusals
                .iter()
                .filter_map(Value::as_map)
                .take(Self::MAX_REFUSALS)
                .map(Refusal::from_map)
                .collect(),
            tasks_done: report.int("tasks_done").and_then(|count| count.try_into().ok()).unwrap_or(0),
        })
    }
}

/// A component that a site refused to run, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Refusal {
    /// The site that refused.
    pub site: String,
    /// The component: its id, or its name.
    pub component: String,
    /// The file that configures it.
    pub file: String,
    /// Where in the file, such as `executors.#1.executor`.
    pub path: String,
    /// What kind of refusal, for machines.
    pub code: String,
    /// Why, for people.
    pub reason: String,
}

impl fmt::Display for Refusal {
    /// All but the site: `vendor.Trainer at executors.#1.executor of config_fed_client.json: not here (house-rule)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { component, file, path, code, reason, .. } = self;
        f.write_str(component)?;
        let mut between = if component.is_empty() { "" } else { " " };
        for (word, text) in [("at", path), ("of", file)] {
            if !text.is_empty() && text != component {
                write!(f, "{between}{word} {text}")?;
                between = " ";
            }
        }
        let colon = if between.is_empty() { "" } else { ": " };
        write!(f, "{colon}{reason} ({code})")
    }
}

impl Refusal {
    /// Refusals in one sentence for people, as servers show it that know no other form. Says how many more there
    /// are beyond the first eight.
    #[must_use]
    pub fn sentence(refusals: &[Refusal]) -> String {
        const SHOWN: usize = 8;
        let shown: Vec<String> = refusals.iter().take(SHOWN).map(Refusal::to_string).collect();
        let more = match refusals.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        format!("refused: {}{more}", shown.join("; "))
    }

    pub(crate) fn to_map(&self) -> Map {
        Map::from_iter([
            ("site", &self.site),
            ("component", &self.component),
            ("file", &self.file),
            ("path", &self.path),
            ("code", &self.code),
            ("reason", &self.reason),
        ])
    }

    pub(crate) fn from_map(map: &Map) -> Self {
        let text = |key| map.str(key).unwrap_or_default().to_owned();
        Self {
            site: text("site"),
            component: text("component"),
            file: text("file"),
            path: text("path"),
            code: text("code"),
            reason: text("reason"),
        }
    }
}
