//! What an administrator does with jobs.

use std::collections::BTreeMap;
use std::time::Duration;

use locule_cell::RequestError;
use locule_message::Fqcn;
use locule_protocol::{Item, ReplyDocument, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::console::{AskError, Console, is_id, shown};
use crate::job::{Job, Refused};
use crate::parcel::Parcel;
use crate::transfer::{Passed, SendError};

/// How often a job is sent again whose answer was lost.
const TRIES: usize = 3;

/// How long the link is waited for before that.
const LINK: Duration = Duration::from_secs(30);

/// Most that is fetched of what sites measure; a server of ours has no more.
const MOST_TRACKED: usize = 2_000_000;

/// Jobs that an ambiguous id is shown to mean.
const SHOWN: usize = 8;

/// What one participant says of a job that nobody has submitted yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Check {
    /// The site, or `server`.
    pub site: String,
    /// `allowed`, `refused`, `mistakes`, `cannot-judge`; `no-answer` if it gave none.
    pub verdict: String,
    /// A sentence, or the mistakes.
    pub text: String,
    /// What its checkers refuse, as far as the submitter may know it.
    pub refusals: Vec<Refused>,
}

/// Logs of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Logs {
    /// By site; that of the server's half under `server`.
    pub logs: BTreeMap<String, String>,
    /// Why there is none, by site.
    pub unavailable: BTreeMap<String, String>,
}

/// Something that a site measures in a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tracked {
    /// Whose it is.
    pub site: String,
    /// Under which key; empty for an event of the site that tracks nothing.
    pub key: String,
    /// The step that it belongs to.
    pub step: Option<i64>,
    /// A number; a text, or either by name.
    pub value: Value,
    /// When the site sent it, by its clock, or when the round was over, by the server's, in seconds since the Unix epoch.
    pub time: f64,
    /// `ROUND` for a number that the site's result of a round says, the round being the step; otherwise what its script
    /// says, in nvflare's words: `SCALAR`, `METRICS`, ….
    #[serde(rename = "type")]
    pub kind: String,
}

/// Which job is meant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// The server cannot be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// No job's id begins like that.
    #[error("the server knows no job whose id begins with `{0}`")]
    None(String),
    /// Several do.
    #[error("`{prefix}` may mean {}", ids.join(", "))]
    Several {
        /// What was given.
        prefix: String,
        /// Ids of some of them.
        ids: Vec<String>,
    },
}

/// Why a job was not submitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// It could not be sent, or the server does not take it.
    #[error(transparent)]
    Send(#[from] SendError),
    /// It was sent, its answer is lost, and this server does not tell whether it has it: look at the list of jobs
    /// before it is submitted again.
    #[error("the server may have taken the job, and its answer is lost")]
    Unknown(#[source] RequestError),
    /// The token was used for another job.
    #[error("the token was used for another job before")]
    OtherJob,
    /// The job that the token was used for has been deleted.
    #[error("the token's job was deleted")]
    Deleted,
    /// This server does not remember tokens.
    #[error("this server knows no tokens of submissions")]
    NoTokens,
}

impl Console {
    /// Submits a job; its id.
    ///
    /// A `token` stands for one submission of one job by this administrator, however often it is sent. Without one
    /// this makes its own, so that an answer that is lost does not make two jobs, at servers that know tokens
    /// (ours, nvflare 2.9).
    ///
    /// # Errors
    /// [`SubmitError`].
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.apis.utils.job_submit_token`.
    pub async fn submit(
        &self,
        parcel: &Parcel,
        token: Option<&str>,
        passed: Passed<'_>,
    ) -> Result<String, SubmitError> {
        let remembers = self.usage("submit_job").is_some_and(|usage| usage.contains("--submit-token"));
        if token.is_some() && !remembers {
            return Err(SubmitError::NoTokens);
        }
        let token = token.map_or_else(|| Uuid::from_u128(rand::random()).to_string(), str::to_owned);
        let mut words = vec!["submit_job", &*parcel.folder];
        if remembers {
            words.extend(["--submit-token", &token]);
        }
        let mut tries = 0;
        let answer = loop {
            tries += 1;
            let answer = self.send_job(&words, parcel, &mut *passed).await;
            let lost = match &answer {
                Err(SendError::AnswerLost(_)) => true,
                Err(SendError::Ask(error)) => error.may_pass(),
                Ok(_) | Err(SendError::BrokenOff { .. } | SendError::Read(_)) => false,
            };
            if lost && remembers && tries < TRIES {
                tracing::warn!("the server did not answer; the job is sent again, and makes no second one");
                self.cell.wait_linked(&Fqcn::server(), LINK).await;
                continue;
            }
            let is = |status: &str, wanted: Status| status == wanted.as_str();
            match answer {
                Err(SendError::AnswerLost(error)) => return Err(SubmitError::Unknown(error)),
                Err(SendError::Ask(AskError::Refused { status, .. }))
                    if is(&status, Status::SubmitTokenConflict) =>
                {
                    return Err(SubmitError::OtherJob);
                }
                Err(SendError::Ask(AskError::Refused { status, .. }))
                    if is(&status, Status::SubmitTokenJobDeleted) =>
                {
                    return Err(SubmitError::Deleted);
                }
                answer => break answer?,
            }
        };
        let id = text(&answer, "job_id").filter(|id| is_id(id));
        Ok(id.ok_or(SendError::Ask(AskError::NotUnderstood))?.to_lowercase())
    }

    /// Asks the server and its sites what they would say of a job. Only servers of ours can be asked.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn check(&self, parcel: &Parcel, passed: Passed<'_>) -> Result<Vec<Check>, SendError> {
        let answer = self.send_job(&["check_job", &parcel.folder], parcel, passed).await?;
        let checks = answer.meta.get("checks").and_then(|checks| Vec::<Check>::deserialize(checks).ok());
        let mut checks = checks.ok_or(AskError::NotUnderstood)?;
        for Check { site, verdict, text, refusals } in &mut checks {
            let refused = refusals.iter_mut().flat_map(|refusal| {
                let Refused { site, component, file, path, code, reason } = refusal;
                [site, component, file, path, code, reason]
            });
            for text in [site, verdict, text].into_iter().chain(refused) {
                *text = shown(text);
            }
        }
        Ok(checks)
    }

    /// The server's jobs, the oldest first; only those whose id begins with `prefix`.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn jobs(&self, prefix: &str) -> Result<Vec<Job>, AskError> {
        let mut words = vec!["list_jobs", "-d"];
        words.extend(Some(prefix).filter(|prefix| !prefix.is_empty()));
        let answer = self.ask(&words).await?;
        let jobs = answer.meta.get("jobs").and_then(Value::as_array);
        let jobs = jobs.ok_or(AskError::NotUnderstood)?;
        Ok(jobs.iter().filter_map(Value::as_object).map(Job::from_meta).collect())
    }

    /// The id of the one job that begins with `prefix`.
    ///
    /// # Errors
    /// [`FindError`] if there is none, or more than one.
    pub async fn find(&self, prefix: &str) -> Result<String, FindError> {
        if is_id(prefix) {
            return Ok(prefix.to_lowercase());
        }
        let none = || FindError::None(prefix.chars().take(64).flat_map(char::escape_debug).collect());
        if prefix.is_empty()
            || !prefix.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
            || prefix.starts_with('-')
        {
            return Err(none());
        }
        let mut ids: Vec<String> = self.jobs(prefix).await?.into_iter().map(|job| job.id).collect();
        ids.retain(|id| id.starts_with(&prefix.to_lowercase()));
        match ids.len() {
            0 => Err(none()),
            1 => Ok(ids.remove(0)),
            _ => {
                ids.truncate(SHOWN);
                Err(FindError::Several { prefix: prefix.to_owned(), ids })
            }
        }
    }

    /// All that the server knows of a job.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn job(&self, id: &str) -> Result<Job, AskError> {
        Ok(Job::from_meta(&self.meta(id).await?))
    }

    /// A job's meta as the server gives it.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn meta(&self, id: &str) -> Result<Map<String, Value>, AskError> {
        let mut answer = self.ask(&["get_job_meta", id]).await?;
        match answer.meta.remove("job_meta") {
            Some(Value::Object(meta)) => Ok(meta),
            Some(_) | None => Err(AskError::NotUnderstood),
        }
    }

    /// Aborts a job, or makes sure that it does not begin; what the server says to it.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn abort(&self, id: &str) -> Result<String, AskError> {
        let answer = self.ask(&["abort_job", id]).await?;
        Ok(text(&answer, "info").map(shown).unwrap_or_default())
    }

    /// Deletes a job that is over, with its results.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn delete(&self, id: &str) -> Result<(), AskError> {
        self.ask(&["delete_job", id]).await.map(drop)
    }

    /// What the sites measure in a job, site after site, each in the order of its own clock. Only servers of ours can
    /// be asked.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn tracked(&self, id: &str) -> Result<Vec<Tracked>, AskError> {
        let (mut all, mut from) = (Vec::new(), 0_u64);
        loop {
            let answer = self.ask(&["get_job_metrics", id, &from.to_string()]).await?;
            let page = answer.items.into_iter().find_map(|item| match item {
                Item::Dict(page) => Some(page),
                Item::Text(_) | Item::Success(_) | Item::Error(_) | Item::Table(_) | Item::Token(_) => None,
                Item::Shutdown(_) => None,
            });
            let page = page.ok_or(AskError::NotUnderstood)?;
            let lines = page.get("lines").and_then(|lines| Vec::<Tracked>::deserialize(lines).ok());
            let lines = lines.ok_or(AskError::NotUnderstood)?;
            let next = page.get("next").and_then(Value::as_u64).filter(|next| *next > from);
            all.extend(lines.into_iter().filter(|tracked| !tracked.key.is_empty()));
            match next {
                Some(next) if all.len() < MOST_TRACKED => from = next,
                Some(_) | None => break,
            }
        }
        all.sort_by(|a, b| a.site.cmp(&b.site).then(a.time.total_cmp(&b.time)));
        for tracked in &mut all {
            for text in [&mut tracked.site, &mut tracked.key, &mut tracked.kind] {
                *text = shown(text);
            }
        }
        Ok(all)
    }

    /// Logs of a job: of `server`, of `all`, or of one site.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn logs(&self, id: &str, of: &str) -> Result<Logs, AskError> {
        let answer = self.ask(&["get_job_log", id, of]).await?;
        let told = answer.items.iter().find_map(|item| match item {
            Item::Dict(told) => Logs::deserialize(told).ok(),
            Item::Text(_) | Item::Success(_) | Item::Error(_) | Item::Table(_) | Item::Token(_) => None,
            Item::Shutdown(_) => None,
        });
        told.ok_or(AskError::NotUnderstood)
    }
}

fn text<'a>(answer: &'a ReplyDocument, key: &str) -> Option<&'a str> {
    answer.meta.get(key).and_then(Value::as_str)
}
