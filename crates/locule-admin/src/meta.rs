//! What administrators are told of a job.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use locule_protocol::Refusal;
use locule_server::{JobFiles, JobRecord, LastTracked, SiteOutcome, Submitter, Waiting};
use serde_json::{Map, Value, json};

use crate::dates;
use crate::desk::{Desk, lock};
use crate::jobs::blocking;
use crate::news::JobNews;

/// A job in few words.
pub(crate) fn summary(record: &JobRecord) -> Value {
    json!({
        "job_id": record.job_id,
        "job_name": record.name,
        "status": record.status().as_str(),
        "submit_time": dates::iso(record.submitted()),
        "duration": duration(record),
        "study": "default",
    })
}

fn duration(record: &JobRecord) -> String {
    let now = dates::seconds(SystemTime::now()) as u64;
    match (record.started(), record.ended()) {
        (Some(started), ended) => {
            dates::span(Duration::from_secs(ended.unwrap_or(now).saturating_sub(started)))
        }
        (None, _) => "N/A".into(),
    }
}

/// The meta of jobs as of now: what was stored, and how they are.
pub(crate) async fn metas(desk: &Desk, records: Vec<JobRecord>) -> Vec<Value> {
    let with_files = records.into_iter().map(|record| {
        let news = lock(&desk.news).of(&record.job_id);
        (desk.server.files(&record.job_id), record, news)
    });
    let with_files: Vec<_> = with_files.collect();
    let is_one = with_files.len() == 1; // of many, nobody asks for the numbers
    let read = blocking(move || {
        let meta = |(files, record, news): &(Option<JobFiles>, JobRecord, JobNews)| {
            let stored = files.as_ref().and_then(|files| files.read_meta().ok());
            let tracked = files.as_ref().filter(|_| is_one).map(JobFiles::last_tracked).unwrap_or_default();
            meta_of(record, news, &tracked, stored.unwrap_or_default())
        };
        Ok(with_files.iter().map(meta).collect())
    });
    read.await.unwrap_or_default()
}

fn outcome((site, outcome): (&String, &SiteOutcome)) -> Value {
    let SiteOutcome { code, reason, tasks_done, .. } = outcome;
    json!({ "site": site, "code": code, "reason": reason.as_deref().unwrap_or_default(), "tasks_done": tasks_done })
}

/// A job's meta: what was stored, and how it is.
///
/// Beyond nvflare's keys: `status_history`, `sites`, `outcomes`, `refusals`, `waits`, `waits_since` and `progress`.
pub(crate) fn meta_of(record: &JobRecord, news: &JobNews, tracked: &LastTracked, stored: Value) -> Value {
    let mut meta = match stored {
        Value::Object(meta) => meta,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    };
    let Submitter { name, org, role } = &record.submitter;
    let reason = record.history.last().map_or("", |change| change.reason.as_str());
    let of_now = BTreeMap::from([
        ("job_id", json!(record.job_id)),
        ("name", json!(record.name)),
        ("study", json!("default")),
        ("submitter_name", json!(name)),
        ("submitter_org", json!(org)),
        ("submitter_role", json!(role)),
        ("status", json!(record.status().as_str())),
        ("status_reason", json!(reason)),
        ("submit_time", json!(record.submitted() as f64)),
        ("submit_time_iso", json!(dates::iso(record.submitted()))),
        ("start_time", json!(record.started().map(dates::iso).unwrap_or_default())),
        ("duration", json!(duration(record))),
        ("data_storage_format", json!(2)),
        ("status_history", json!(record.history)),
        ("sites", json!(record.sites)),
        ("outcomes", Value::Array(record.outcomes.iter().map(outcome).collect())),
        ("progress", news.progress(record.rounds_done, tracked)),
    ]);
    meta.extend(of_now.into_iter().map(|(key, value)| (key.to_owned(), value)));
    if let Some(Waiting { since, reason }) = record.waiting.as_deref() {
        meta.insert("waits".into(), json!(reason));
        meta.insert("waits_since".into(), json!(since));
    }
    let refusals: Vec<&Refusal> = record.refusals().collect();
    if !refusals.is_empty() {
        meta.insert("refusals".into(), json!(refusals));
        let refused = record.outcomes.iter().filter(|(_, outcome)| !outcome.refusals.is_empty());
        let detail =
            refused.map(|(site, outcome)| format!("{site}: {}", Refusal::sentence(&outcome.refusals)));
        meta.insert("job_deploy_detail".into(), json!(detail.collect::<Vec<_>>()));
    }
    Value::Object(meta)
}
