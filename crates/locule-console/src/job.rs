//! What a server knows of a job.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::console::shown;

/// A job, as a server tells of it. What it does not tell is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Job {
    /// Its id, a UUID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its state, in the protocol's words: `SUBMITTED`, `RUNNING`, `FINISHED:COMPLETED`, …
    pub status: String,
    /// Why it is in this state.
    pub reason: String,
    /// Who handed it in.
    pub submitter: Person,
    /// When it was handed in, in seconds since the Unix epoch.
    pub submitted: Option<f64>,
    /// When it began to run, in seconds since the Unix epoch.
    pub started: Option<f64>,
    /// When it ended, in seconds since the Unix epoch.
    pub ended: Option<f64>,
    /// For how long it runs or ran, in the server's words.
    pub duration: String,
    /// Why it waits.
    pub waits: String,
    /// Since when it waits for that, in seconds since the Unix epoch.
    pub waits_since: Option<f64>,
    /// Jobs of a higher priority begin first.
    pub priority: i64,
    /// Every state that it was in, oldest first.
    pub history: Vec<Change>,
    /// The sites that take part.
    pub sites: Vec<String>,
    /// How the sites ended; under `server` the server's own half, if it was refused there.
    pub outcomes: Vec<Outcome>,
    /// What checkers refuse.
    pub refusals: Vec<Refused>,
    /// What became of deploying it, in words.
    pub deployed: Vec<String>,
    /// How far it is.
    pub progress: Option<Progress>,
}

/// Who handed a job in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Person {
    /// Common name of the certificate.
    pub name: String,
    /// Its organisation.
    pub org: String,
    /// Its role.
    pub role: String,
}

/// A state that a job was in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// The state.
    pub status: String,
    /// Since when, in seconds since the Unix epoch.
    pub time: f64,
    /// Why.
    pub reason: String,
}

/// How a site's half of a job ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// The site.
    pub site: String,
    /// 0 for done; see [`locule_protocol::outcome`].
    pub code: i64,
    /// Why, if it says so.
    pub reason: String,
    /// Tasks whose result the server took; 0 of a site that does not say, as those of nvflare.
    pub tasks_done: u64,
}

/// A component that a checker refuses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// Where.
    pub site: String,
    /// The component's name.
    pub component: String,
    /// The file that it stands in.
    pub file: String,
    /// Its place there.
    pub path: String,
    /// The checker's code.
    pub code: String,
    /// The checker's reason, if it is public.
    pub reason: String,
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// The round that is under way, from 0.
    pub round: Option<u64>,
    /// How many there will be.
    pub rounds: Option<u64>,
    /// How many are done.
    pub rounds_done: u64,
    /// Sites whose result of this round is in, if the server knows.
    pub sites_in: Option<u64>,
    /// The sites' metrics of the last round that is done.
    pub metrics: Vec<SiteMetrics>,
    /// The last numbers that its sites' scripts track.
    pub tracked: Vec<SiteMetrics>,
    /// Bytes between the job's half at the server and its sites, when its last round ended; without those of a time
    /// before a restart of the server.
    pub bytes_moved: Option<u64>,
}

/// What a site measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SiteMetrics {
    /// The site.
    pub site: String,
    /// By name.
    pub metrics: Vec<(String, f64)>,
}

impl Job {
    /// Reads a job's meta, as a server of ours or of nvflare gives it.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.apis.job_def` (`JobMetaKey`); `status_history`, `sites`, `outcomes`, `refusals`,
    /// `waits`, `waits_since`, `priority` and `progress` are ours.
    #[must_use]
    pub fn from_meta(meta: &Map<String, Value>) -> Self {
        let text = |key: &str| meta.get(key).and_then(Value::as_str).map(shown).unwrap_or_default();
        let list = |key: &str| meta.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let lines = |key: &str| list(key).iter().filter_map(Value::as_str).map(shown).collect::<Vec<_>>();
        let status = text("status");
        let mut history: Vec<Change> = all(list("status_history"));
        for change in &mut history {
            (change.status, change.reason) = (shown(&change.status), shown(&change.reason));
        }
        let is_waiting = status == "SUBMITTED";
        let waits = match text("waits") {
            waits if !waits.is_empty() => waits,
            // Where nvflare says why it could not be scheduled.
            _ if is_waiting => lines("schedule_history").pop().unwrap_or_default(),
            _ => String::new(),
        };
        let of =
            |wanted: &str| history.iter().find(|change| change.status == wanted).map(|change| change.time);
        let ended = history.last().filter(|change| is_final(&change.status)).map(|change| change.time);
        let mut outcomes: Vec<Outcome> = all(list("outcomes"));
        for outcome in &mut outcomes {
            (outcome.site, outcome.reason) = (shown(&outcome.site), shown(&outcome.reason));
        }
        let mut refusals: Vec<Refused> = all(list("refusals"));
        for refusal in &mut refusals {
            let Refused { site, component, file, path, code, reason } = refusal;
            for text in [site, component, file, path, code, reason] {
                *text = shown(text);
            }
        }
        Self {
            id: text("job_id"),
            name: text("name"),
            reason: text("status_reason"),
            submitter: Person {
                name: text("submitter_name"),
                org: text("submitter_org"),
                role: text("submitter_role"),
            },
            submitted: meta
                .get("submit_time")
                .and_then(Value::as_f64)
                .or_else(|| instant(&text("submit_time_iso"))),
            started: of("RUNNING").or_else(|| instant(&text("start_time"))),
            ended,
            duration: text("duration")
                .split('.')
                .next()
                .filter(|text| *text != "N/A")
                .unwrap_or_default()
                .to_owned(),
            waits,
            waits_since: meta.get("waits_since").and_then(Value::as_f64),
            priority: meta.get("priority").and_then(Value::as_i64).unwrap_or_default(),
            sites: lines("sites"),
            outcomes,
            refusals,
            deployed: lines("job_deploy_detail"),
            progress: meta.get("progress").and_then(|progress| Progress::deserialize(progress).ok()),
            history,
            status,
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        is_final(&self.status)
    }

    /// Whether it reached its end.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        matches!(self.status.as_str(), "FINISHED:COMPLETED" | "FINISHED_OK")
    }

    /// For how long it runs at `now`, or ran.
    #[must_use]
    pub fn elapsed(&self, now: SystemTime) -> Option<Duration> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64();
        let until = if self.is_over() { self.ended? } else { now };
        Duration::try_from_secs_f64((until - self.started?).max(0.0)).ok()
    }

    /// How long it will still run if the rounds to come take as long as those that are done.
    #[must_use]
    pub fn estimated_rest(&self, now: SystemTime) -> Option<Duration> {
        let Progress { rounds: Some(rounds), rounds_done: done @ 1.., .. } = *self.progress.as_ref()? else {
            return None;
        };
        let whole = self.elapsed(now)?.as_secs_f64() / done as f64 * rounds as f64;
        Duration::try_from_secs_f64((whole - self.elapsed(now)?.as_secs_f64()).max(0.0)).ok()
    }
}

fn is_final(status: &str) -> bool {
    status.starts_with("FINISHED")
}

/// Those of the list that are understood.
fn all<T: for<'de> Deserialize<'de>>(list: Vec<Value>) -> Vec<T> {
    list.into_iter().filter_map(|value| serde_json::from_value(value).ok()).collect()
}

/// `2026-01-31T10:00:00+00:00`, or as Python prints it, in UTC.
fn instant(text: &str) -> Option<f64> {
    let text = text.trim().replacen(' ', "T", 1);
    let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    let time = parse(&text).or_else(|| parse(&format!("{text}Z")))?;
    Some(time.unix_timestamp() as f64 + f64::from(time.millisecond()) / 1e3)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(meta: Value) -> Job {
        Job::from_meta(meta.as_object().unwrap())
    }

    #[test]
    fn a_job_of_our_server_is_read() {
        let job = job(json!({
            "job_id": "4f1c", "name": "sum", "status": "RUNNING", "submitter_name": "ann",
            "submit_time": 10.0, "duration": "0:00:30",
            "status_history": [{ "status": "SUBMITTED", "time": 10, "reason": "accepted" },
                               { "status": "RUNNING", "time": 20, "reason": "started" }],
            "sites": ["a", "b"],
            "progress": { "round": 2, "rounds": 5, "rounds_done": 2 },
        }));
        assert_eq!((job.submitted, job.started, job.ended), (Some(10.0), Some(20.0), None));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        assert_eq!(job.elapsed(now), Some(Duration::from_secs(40)));
        assert_eq!(job.estimated_rest(now), Some(Duration::from_secs(60)));
        assert!(!job.is_over() && !job.is_completed());
    }

    #[test]
    fn a_job_of_nvflares_server_is_read() {
        let job = job(json!({
            "job_id": "4f1c", "name": "sum", "status": "SUBMITTED", "duration": "N/A",
            "submit_time_iso": "2026-01-31T10:00:00.5+00:00", "start_time": "",
            "schedule_history": ["10:00: too early", "10:01: site-2 is not there"],
        }));
        assert_eq!(job.submitted, Some(1_769_853_600.5));
        assert_eq!(job.waits, "10:01: site-2 is not there");
        assert_eq!((job.duration.as_str(), job.started), ("", None));
    }

    #[test]
    fn what_a_server_says_wrongly_is_left_out() {
        let job = job(
            json!({ "status": 7, "status_history": [{ "time": "x" }], "sites": [1, "a"], "progress": 3 }),
        );
        assert_eq!((job.status.as_str(), job.history.len(), &job.sites[..]), ("", 0, &["a".to_owned()][..]));
        assert_eq!(job.progress, None);
    }
}
