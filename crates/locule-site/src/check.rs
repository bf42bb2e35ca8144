//! What the site says of a job that nobody has submitted yet: its real checkers, in phase *submit*, and nothing kept.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use locule_assembly::{AssemblyError, review_app};
use locule_component::{Phase, with_causes};
use locule_job::{Limits, has_custom_code, unpack};
use locule_protocol::{Person, Refusal};
use serde_json::{Value as Json, json};
use uuid::Uuid;

use crate::job::{CANNOT_JUDGE, SiteJobHost};

/// Longest text of mistakes that an answer holds, in bytes.
const LONGEST_TEXT: usize = 8 << 10;

/// Questions that are answered within [`PERIOD`].
const MOST: usize = 10;
const PERIOD: Duration = Duration::from_secs(60);

/// How often the site answers: every answer costs a review, and tells something of its policy.
#[derive(Debug, Default)]
pub(crate) struct CheckLimit(Mutex<VecDeque<Instant>>);

impl CheckLimit {
    /// Whether one more question may be answered now.
    pub(crate) fn admit(&self, now: Instant) -> bool {
        let mut answered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while answered.front().is_some_and(|then| now.saturating_duration_since(*then) >= PERIOD) {
            answered.pop_front();
        }
        let admitted = answered.len() < MOST;
        if admitted {
            answered.push_back(now);
        }
        admitted
    }
}

/// A question: an app, and who would submit it.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) job_id: String,
    pub(crate) meta: Json,
    pub(crate) archive: Bytes,
    pub(crate) asker: Person,
}

/// What is answered: codes and what the site's policy marks public.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) document: Json,
    pub(crate) refusals: Vec<Refusal>,
}

/// Removes what an earlier run of the site left of questions.
pub(crate) fn clear(host: &SiteJobHost) {
    // What cannot be removed is in nobody's way.
    fs::remove_dir_all(folder(host)).ok();
}

/// Judges the app, and keeps nothing of it but the record in the audit log. Blocking.
pub(crate) fn answer(host: &SiteJobHost, question: Question) -> Result<Answer, String> {
    let Question { job_id, mut meta, archive, asker } = question;
    let run_dir = host.kit.run_dir(&job_id).map_err(|error| error.to_string())?;
    let scratch =
        Scratch::create(host).map_err(|error| format!("the site cannot look at the app: {error}"))?;
    let app_dir = scratch.0.join("app");
    unpack(&archive, &app_dir, &Limits::default())
        .map_err(|error| format!("the app cannot be unpacked: {error}"))?;
    meta["job_id"] = job_id.as_str().into();
    meta["byoc"] = has_custom_code(&app_dir).into();
    for (key, value) in
        [("submitter_name", asker.name), ("submitter_org", asker.org), ("submitter_role", asker.role)]
    {
        meta[key] = value.into();
    }
    let deployed = host.deployed(&job_id, run_dir.path(), meta);
    let of = |verdict: &str, text: &str, refusals| Answer {
        document: json!({ "verdict": verdict, "text": text }),
        refusals,
    };
    match review_app(&deployed, &app_dir, Phase::Submit, host.program()) {
        Ok(_) => Ok(of("allowed", "", Vec::new())),
        Err(AssemblyError::Refused(refusal)) => {
            let refusals = refusal.for_submitter(&deployed.participant);
            Ok(of("refused", &Refusal::sentence(&refusals), refusals))
        }
        Err(AssemblyError::Read { source, .. }) => {
            Ok(of("mistakes", short(&format!("a file of the app cannot be read: {source}")), Vec::new()))
        }
        Err(error @ AssemblyError::Config(_)) => Ok(of("mistakes", short(&error.to_string()), Vec::new())),
        Err(error) => {
            tracing::error!(job = job_id, error = with_causes(&error), "site cannot judge jobs");
            Ok(of("cannot-judge", CANNOT_JUDGE, Vec::new()))
        }
    }
}

fn folder(host: &SiteJobHost) -> PathBuf {
    host.kit.state_dir().join("checks")
}

/// A folder that is gone when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn create(host: &SiteJobHost) -> io::Result<Self> {
        host.kit.make_state_dir()?;
        let path = folder(host).join(Uuid::new_v4().to_string());
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let path: &Path = &self.0;
        // What is left is removed at the next start.
        fs::remove_dir_all(path).ok();
    }
}

fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_TEXT)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_answered_ten_times_a_minute() {
        let (limit, now) = (CheckLimit::default(), Instant::now());
        assert!((0..MOST).all(|_| limit.admit(now)));
        assert!(!limit.admit(now + PERIOD / 2));
        assert!(limit.admit(now + PERIOD));
    }
}
