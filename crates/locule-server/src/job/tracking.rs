//! What sites measure in a job: federation events, taken once each, kept beside the job and told to its observers; and
//! what their results say in each round.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use locule_component::{Event, KeptEvent};
use locule_event::Herald;
use locule_fobs::{DataKind, Scalar, Shareable, Value};
use locule_protocol::AuxRequest;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tokio::sync::{mpsc, oneshot};

use crate::oversight::JobFiles;

/// In the folder of a run.
const FILE: &str = "metrics.jsonl";

/// Most bytes of the file; each site has an equal share.
const MAX_FILE: u64 = 64 << 20;

/// Most bytes of a line.
const MAX_LINE: usize = 16 << 10;

/// Most bytes of a key, a name or an id.
const MAX_NAME: usize = 256;

/// How many ids of events are remembered, of each site and of all.
///
/// # Source
/// nvflare 2.9.0, `nvflare.widgets.fed_event`, which knows the first.
const REMEMBERED: (usize, usize) = (10_000, 400_000);

/// Events that may wait for the job's observers.
const WAITING: usize = 1_024;

/// How long the end of a run waits for observers to hear what sites told.
const SETTLE: Duration = Duration::from_secs(30);

/// The kind of a line that a site's result says; no event is of it.
const ROUND: &str = "ROUND";

/// A line of `metrics.jsonl` in a job's folder at the server: a federation event of a site, or a number of its result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Tracked {
    /// Whose it is.
    pub site: String,
    /// Under which key it is tracked; empty for an event that tracks nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Of which kind it is, in nvflare's words: `SCALAR`, `METRICS`, …; `ROUND` for a number that the site's result of
    /// a round says, with the round as its step.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The step that it belongs to.
    pub step: Option<i64>,
    /// A number; a text, or either by name. What is not finite is a text.
    pub value: Json,
    /// When the site sent it, by its clock, or when the round was over, by the server's, in seconds since the Unix epoch.
    pub time: f64,
    /// The event's name, if it tracks nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The event's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub event: String,
}

impl Tracked {
    /// Its numbers, by key: those of several are `key/name`.
    pub fn numbers(&self) -> Vec<(String, f64)> {
        let Json::Object(parts) = &self.value else {
            return self.value.as_f64().map(|number| (self.key.clone(), number)).into_iter().collect();
        };
        let part = |(name, value): (&String, &Json)| Some((format!("{}/{name}", self.key), value.as_f64()?));
        parts.iter().filter_map(part).collect()
    }

    /// What a site's event tells; else the code that it is answered with.
    fn read(site: &str, aux: AuxRequest) -> Result<Self, Unfit> {
        let AuxRequest { headers, fields, .. } = aux;
        let name = headers.str("_event_type").filter(|name| !name.is_empty()).ok_or(Unfit::Wrong)?.to_owned();
        let time = headers.get("_timestamp").and_then(Value::as_f64).ok_or(Unfit::Wrong)?;
        let event = match headers.get("_event_id") {
            None | Some(Value::None) => String::new(), // a site of nvflare 2.8 or earlier
            Some(Value::Str(id)) if !id.is_empty() => id.clone(),
            Some(_) => return Err(Unfit::Wrong),
        };
        if Event::NAMES.contains(&&*name) && !is_tracking(&name) {
            return Err(Unfit::Wrong); // it would be taken for an event of the server's own
        }
        if name.len() > MAX_NAME || event.len() > MAX_NAME {
            return Err(Unfit::TooLarge);
        }
        let mut tracked = Self { site: site.to_owned(), time, event, ..Self::default() };
        let dxo = Shareable { headers, fields }.take_dxo().map_err(|_| Unfit::Wrong)?;
        let Some(dxo) = dxo.filter(|dxo| is_tracking(&name) && dxo.kind == DataKind::Analytic) else {
            return Ok(Self { name, ..tracked });
        };
        tracked.key = dxo.data.str("track_key").ok_or(Unfit::Wrong)?.to_owned();
        tracked.step = dxo.data.int("global_step");
        if let Some(Value::Enum { member, .. }) = dxo.meta.get("analytics_data_type") {
            tracked.kind.clone_from(member);
        }
        let value = dxo.data.get("track_value").and_then(json).ok_or(Unfit::TooLarge)?;
        if tracked.key.len() > MAX_NAME || tracked.kind.len() > MAX_NAME {
            return Err(Unfit::TooLarge);
        }
        if tracked.kind == ROUND {
            return Err(Unfit::Wrong); // the server alone says what counted in a round
        }
        tracked.value = value;
        Ok(tracked)
    }
}

/// Why an event is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unfit {
    /// It is no such event.
    Wrong,
    /// It is larger than what is kept, or no number, text or names of these.
    TooLarge,
}

fn is_tracking(name: &str) -> bool {
    name.strip_prefix("fed.").unwrap_or(name) == "analytix_log_stats"
}

/// What sites track in one job.
///
/// Every event counts once, also if it is sent again after the server's half was killed and started again: its id is
/// in the file. Observers hear of it at most once, in the order in which the events came, and not before the run has
/// begun.
#[derive(Debug)]
pub(super) struct Tracking {
    job_id: String,
    kept: Mutex<Kept>,
    /// Taken when the run begins.
    waiting: Mutex<Option<mpsc::Receiver<Notice>>>,
}

#[derive(Debug)]
enum Notice {
    Event(KeptEvent),
    /// Everything before has been told.
    Settled(oneshot::Sender<()>),
}

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// Whether the file may end within a line.
    torn: bool,
    sites: BTreeMap<String, OfSite>,
    left_out: u64,
    notices: mpsc::Sender<Notice>,
    untold: u64,
}

/// What one site has told.
#[derive(Debug, Default)]
struct OfSite {
    bytes: u64,
    ids: HashSet<String>,
    in_order: VecDeque<String>,
}

impl OfSite {
    fn remember(&mut self, id: &str, most: usize) {
        if id.is_empty() || !self.ids.insert(id.to_owned()) {
            return;
        }
        self.in_order.push_back(id.to_owned());
        while self.in_order.len() > most {
            if let Some(oldest) = self.in_order.pop_front() {
                self.ids.remove(&oldest);
            }
        }
    }
}

impl Tracking {
    /// A site takes part from now on.
    pub(super) fn add_site(&self, site: &str) {
        lock(&self.kept).sites.entry(site.to_owned()).or_default();
    }

    /// For these sites, with what an earlier process has kept of them. Blocking.
    pub(super) fn open(job_id: &str, run_dir: &Path, sites: &[String]) -> Self {
        let (notices, waiting) = mpsc::channel(WAITING);
        let sites = sites.iter().map(|site| (site.clone(), OfSite::default())).collect();
        let mut kept = Kept { path: run_dir.join(FILE), torn: false, sites, left_out: 0, notices, untold: 0 };
        if let Err(error) = kept.read_back()
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(job = job_id, path = %kept.path.display(), %error, "metrics cannot be read back");
        }
        Self { job_id: job_id.to_owned(), kept: Mutex::new(kept), waiting: Mutex::new(Some(waiting)) }
    }

    /// Takes an event of a site in; the code of the answer.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.widgets.fed_event`.
    pub(super) fn take(&self, site: &str, aux: AuxRequest) -> &'static str {
        let tracked = Tracked::read(site, aux);
        let mut kept = lock(&self.kept);
        let tracked = match tracked {
            Ok(tracked) => tracked,
            Err(Unfit::Wrong) => return "BAD_REQUEST_DATA",
            Err(Unfit::TooLarge) => {
                self.leave_out(&mut kept, site);
                return "OK";
            }
        };
        match kept.append(&tracked) {
            Ok(Appended::Before) => {}
            Ok(Appended::Now) => kept.tell(&tracked),
            Ok(Appended::NoRoom) => self.leave_out(&mut kept, site),
            Err(error) => {
                tracing::warn!(job = self.job_id, site, path = %kept.path.display(), %error, "metric not kept");
                return "EXECUTION_EXCEPTION"; // a site that asks may send it again
            }
        }
        "OK"
    }

    /// Keeps what the results of a round say. A round that is repeated after a restart comes to the same numbers, which
    /// count once.
    pub(super) fn take_round(&self, workflow: &str, round: u64, sites: &[(String, Vec<(String, f64)>)]) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut kept = lock(&self.kept);
        for (site, metrics) in sites {
            for (key, value) in metrics.iter().filter(|(_, value)| value.is_finite()) {
                let tracked = Tracked {
                    site: site.clone(),
                    key: key.clone(),
                    kind: ROUND.to_owned(),
                    step: i64::try_from(round).ok(),
                    value: (*value).into(),
                    time: now.as_secs_f64(),
                    event: format!("{workflow} {round} {key} {value}"),
                    ..Tracked::default()
                };
                match kept.append(&tracked) {
                    Ok(Appended::Now | Appended::Before) => {}
                    Ok(Appended::NoRoom) => self.leave_out(&mut kept, site),
                    Err(error) => {
                        let (job, path) = (&self.job_id, kept.path.display());
                        return tracing::warn!(job, round, %path, %error, "metrics of a round not kept");
                    }
                }
            }
        }
    }

    fn leave_out(&self, kept: &mut Kept, site: &str) {
        kept.left_out += 1;
        if kept.left_out == 1 {
            tracing::warn!(job = self.job_id, site, path = %kept.path.display(),
                "sites track more than is kept; what goes over is left out and counted");
        }
    }

    /// The run has begun: observers hear of what came, and of what comes.
    pub(super) fn begin(&self, herald: Herald) {
        let Some(mut waiting) = lock(&self.waiting).take() else { return };
        tokio::spawn(async move {
            while let Some(notice) = waiting.recv().await {
                match notice {
                    Notice::Event(event) => herald.tell(&event.event()).await,
                    Notice::Settled(settled) => drop(settled.send(())),
                }
            }
        });
    }

    /// Waits until observers have heard of everything that came.
    pub(super) async fn settle(&self) {
        let (notices, left_out, untold) = {
            let kept = lock(&self.kept);
            (kept.notices.clone(), kept.left_out, kept.untold)
        };
        if left_out + untold > 0 {
            let job = &self.job_id;
            tracing::warn!(
                job,
                left_out,
                untold,
                "federation events were left out, or not told to observers"
            );
        }
        let (settled, told) = oneshot::channel();
        let telling = async {
            notices.send(Notice::Settled(settled)).await.ok();
            told.await.ok();
        };
        if lock(&self.waiting).is_none() && tokio::time::timeout(SETTLE, telling).await.is_err() {
            tracing::warn!(job = self.job_id, "observers were not told of all federation events");
        }
    }
}

enum Appended {
    Now,
    Before,
    NoRoom,
}

impl Kept {
    fn append(&mut self, tracked: &Tracked) -> io::Result<Appended> {
        let (number, path) = (self.sites.len().max(1), &self.path);
        let Some(of) = self.sites.get_mut(&tracked.site) else { return Ok(Appended::NoRoom) };
        if of.ids.contains(&tracked.event) {
            return Ok(Appended::Before);
        }
        let mut line = serde_json::to_vec(tracked)?;
        line.push(b'\n');
        let bytes = of.bytes.saturating_add(line.len() as u64);
        if line.len() > MAX_LINE || bytes > MAX_FILE / number as u64 {
            return Ok(Appended::NoRoom);
        }
        if self.torn {
            line.insert(0, b'\n');
        }
        self.torn = true;
        File::options().create(true).append(true).open(path)?.write_all(&line)?;
        self.torn = false;
        of.bytes = bytes;
        of.remember(&tracked.event, remembered(number));
        Ok(Appended::Now)
    }

    fn tell(&mut self, tracked: &Tracked) {
        let value = tracked.value.to_string();
        let event = if tracked.name.is_empty() {
            let (site, key, step) = (&tracked.site, &tracked.key, tracked.step.map(|step| step.to_string()));
            Event::MetricTracked { site, key, step: step.as_deref().unwrap_or_default(), value: &value }
                .keep()
        } else {
            Event::Named(&tracked.name).keep()
        };
        if self.notices.try_send(Notice::Event(event)).is_err() {
            self.untold += 1;
        }
    }

    fn read_back(&mut self) -> io::Result<()> {
        let number = self.sites.len().max(1);
        let mut file = BufReader::new(File::open(&self.path)?);
        let mut line = Vec::new();
        loop {
            line.clear();
            if file.by_ref().take(2 * MAX_LINE as u64).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            self.torn = !line.ends_with(b"\n");
            let Ok(tracked) = serde_json::from_slice::<Tracked>(&line) else { continue };
            if let Some(of) = self.sites.get_mut(&tracked.site) {
                of.bytes = of.bytes.saturating_add(line.len() as u64);
                of.remember(&tracked.event, remembered(number));
            }
        }
    }
}

fn remembered(sites: usize) -> usize {
    REMEMBERED.0.min(REMEMBERED.1 / sites)
}

impl JobFiles {
    /// What sites track, from byte `from` of what is kept on: some of it, in the order in which it came, and where to
    /// go on; nothing at its end. Blocking.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn tracked(&self, from: u64) -> io::Result<(Vec<Tracked>, u64)> {
        const PAGE: u64 = 1 << 20;
        let mut file = match File::open(self.run_dir.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), from)),
            opened => opened?,
        };
        file.seek(SeekFrom::Start(from))?;
        let mut page = Vec::new();
        file.take(PAGE).read_to_end(&mut page)?;
        let whole = page.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = page[..whole].split(|byte| *byte == b'\n');
        Ok((lines.filter_map(|line| serde_json::from_slice(line).ok()).collect(), from + whole as u64))
    }

    /// The last numbers of each site, as far as the last MiB of what is kept goes. Blocking.
    #[must_use]
    pub fn last_tracked(&self) -> LastTracked {
        const TAIL: u64 = 1 << 20;
        let size = self.run_dir.join(FILE).metadata().map_or(0, |meta| meta.len());
        // The first line may be half of one, which is not read.
        let (lines, _) = self.tracked(size.saturating_sub(TAIL)).unwrap_or_default();
        let of_round = |tracked: &&Tracked| tracked.kind == ROUND;
        let round = lines.iter().rfind(of_round).and_then(|tracked| tracked.step);
        let mut last = LastTracked::default();
        for tracked in &lines {
            let of = match of_round(&tracked) {
                true if tracked.step != round => continue,
                true => &mut last.round,
                false => &mut last.tracked,
            };
            of.entry(tracked.site.clone()).or_default().extend(tracked.numbers());
        }
        last
    }
}

/// The last numbers of sites, by site and key.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct LastTracked {
    /// What their results of the last round say.
    pub round: BTreeMap<String, BTreeMap<String, f64>>,
    /// What their scripts track.
    pub tracked: BTreeMap<String, BTreeMap<String, f64>>,
}

/// A number, a text, or either by name.
fn json(value: &Value) -> Option<Json> {
    if let Some(map) = value.as_map() {
        let pairs = map.iter_str().map(|(name, value)| Some((name.to_owned(), plain(value)?)));
        return pairs.collect();
    }
    plain(value)
}

fn plain(value: &Value) -> Option<Json> {
    match value {
        Value::Bool(value) => Some((*value).into()),
        Value::UInt(value) => Some((*value).into()),
        Value::Str(text) => (text.len() <= MAX_LINE).then(|| text.as_str().into()),
        Value::Int(_) | Value::Scalar(Scalar::I32(_) | Scalar::I64(_)) => value.as_i64().map(Into::into),
        Value::Float(_) | Value::Scalar(Scalar::F32(_) | Scalar::F64(_)) => {
            let number = value.as_f64()?;
            // JSON has no word for what is not finite.
            Some(if number.is_finite() { number.into() } else { number.to_string().into() })
        }
        Value::None
        | Value::Bytes(_)
        | Value::List(_)
        | Value::Map(_)
        | Value::Tuple(_)
        | Value::Set(_)
        | Value::OrderedDict(_)
        | Value::Datetime(_)
        | Value::Enum { .. }
        | Value::Array(_)
        | Value::OpaqueArray(_)
        | Value::ArrayRef(_)
        | Value::Shareable(_)
        | Value::Dxo(_)
        | Value::Context(_)
        | Value::Datum(_)
        | Value::Object(_) => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use locule_component::{EventCx, ObserveError, Observer, RunContext};
    use locule_fobs::{Class, Dxo, Map};
    use serde_json::json;

    use super::*;

    const SITE: &str = "site-1";

    fn event(id: &str, key: &str, value: impl Into<Value>) -> AuxRequest {
        let data = Map::from_iter([("track_key", Value::from(key)), ("track_value", value.into())]);
        let mut dxo = Dxo::new(DataKind::Analytic, data);
        let class = Class::named("nvflare.apis.analytix.AnalyticsDataType").unwrap();
        dxo.meta.insert("analytics_data_type", Value::Enum { class, member: "SCALAR".into() });
        let Shareable { headers, fields } = Shareable::with_dxo(dxo);
        let mut aux = AuxRequest { headers, fields, ..AuxRequest::new("fed.event", Map::new()) };
        aux.headers.insert("_event_type", "fed.analytix_log_stats");
        aux.headers.insert("_timestamp", 1.5);
        aux.headers.insert("_event_id", id);
        aux
    }

    fn open(dir: &Path) -> Tracking {
        Tracking::open("job", dir, &[SITE.to_owned(), "site-2".to_owned()])
    }

    fn keys(dir: &Path) -> Vec<(String, String)> {
        let files = JobFiles { run_dir: dir.to_owned(), package: PathBuf::new() };
        let (tracked, end) = files.tracked(0).unwrap();
        assert_eq!(files.tracked(end).unwrap().0, [], "that is all");
        tracked.into_iter().map(|tracked| (tracked.site, tracked.key)).collect()
    }

    fn of_site(keys: &[&str]) -> Vec<(String, String)> {
        keys.iter().map(|key| (SITE.to_owned(), (*key).to_owned())).collect()
    }

    #[test]
    fn an_event_counts_once_also_for_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path());
        for (id, key) in [("1", "a"), ("2", "b"), ("1", "a"), ("2", "b")] {
            assert_eq!(first.take(SITE, event(id, key, 0.5)), "OK");
        }
        drop(first);
        let second = open(dir.path());
        for (id, key) in [("2", "b"), ("3", "c"), ("1", "a")] {
            assert_eq!(second.take(SITE, event(id, key, 0.5)), "OK");
        }
        assert_eq!(keys(dir.path()), of_site(&["a", "b", "c"]));
        assert_eq!(second.take("site-2", event("1", "a", 0.5)), "OK", "another site's event");
        assert_eq!(keys(dir.path()).len(), 4);
    }

    #[test]
    fn a_line_that_was_torn_costs_no_other() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).take(SITE, event("1", "a", 0.5));
        let file = dir.path().join(FILE);
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, [&whole[..], &whole[..whole.len() / 2]].concat()).unwrap();
        let next = open(dir.path());
        next.take(SITE, event("2", "b", 0.5));
        next.take(SITE, event("1", "a", 0.5));
        assert_eq!(keys(dir.path()), of_site(&["a", "b"]));
    }

    #[test]
    fn numbers_and_texts_are_kept_and_what_is_large_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let tracking = open(dir.path());
        let both = Map::from_iter([("train", Value::from(0.5)), ("valid", Value::Scalar(Scalar::F32(0.25)))]);
        for (id, value) in [
            ("1", Value::from(f64::NAN)),
            ("2", both.into()),
            ("3", "x".repeat(MAX_LINE).into()),
            ("4", Value::Bytes(bytes::Bytes::from_static(b"image"))),
        ] {
            assert_eq!(tracking.take(SITE, event(id, "loss", value)), "OK");
        }
        assert_eq!(lock(&tracking.kept).left_out, 2);
        let files = JobFiles { run_dir: dir.path().to_owned(), package: PathBuf::new() };
        let values: Vec<Json> = files.tracked(0).unwrap().0.into_iter().map(|line| line.value).collect();
        assert_eq!(values, [json!("NaN"), json!({ "train": 0.5, "valid": 0.25 })]);
        let last = BTreeMap::from([("loss/train".to_owned(), 0.5), ("loss/valid".to_owned(), 0.25)]);
        assert_eq!(files.last_tracked().tracked, BTreeMap::from([(SITE.to_owned(), last)]));
    }

    #[test]
    fn what_the_results_of_a_round_say_is_kept_once() {
        let dir = tempfile::tempdir().unwrap();
        let of =
            |loss: f64| [(SITE.to_owned(), vec![("loss".to_owned(), loss), ("nan".to_owned(), f64::NAN)])];
        let first = open(dir.path());
        first.take_round("train", 0, &of(0.5));
        first.take(SITE, event("1", "lr", 0.1));
        first.take_round("train", 1, &of(0.25));
        // The half was started again before it could keep that this round is done.
        open(dir.path()).take_round("train", 1, &of(0.25));
        open(dir.path()).take_round("fine-tune", 1, &of(0.25));
        assert_eq!(keys(dir.path()), of_site(&["loss", "lr", "loss", "loss"]));
        let mut pretence = Dxo::new(DataKind::Analytic, Map::from_iter([("track_key", Value::from("a"))]));
        let class = Class::named("nvflare.apis.analytix.AnalyticsDataType").unwrap();
        pretence.meta.insert("analytics_data_type", Value::Enum { class, member: ROUND.into() });
        pretence.data.insert("track_value", 0.5);
        let aux = AuxRequest { fields: Shareable::with_dxo(pretence).fields, ..event("2", "a", 0.5) };
        assert_eq!(first.take(SITE, aux), "BAD_REQUEST_DATA");

        let files = JobFiles { run_dir: dir.path().to_owned(), package: PathBuf::new() };
        let one = |key: &str, number| {
            BTreeMap::from([(SITE.to_owned(), BTreeMap::from([(key.to_owned(), number)]))])
        };
        assert_eq!(files.last_tracked(), LastTracked { round: one("loss", 0.25), tracked: one("lr", 0.1) });
    }

    #[test]
    fn a_site_has_its_share_of_the_file_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let tracking = open(dir.path());
        lock(&tracking.kept).sites.get_mut(SITE).unwrap().bytes = MAX_FILE / 2 - 10;
        tracking.take(SITE, event("1", "a", 0.5));
        tracking.take("site-2", event("1", "a", 0.5));
        tracking.take("stranger", event("1", "a", 0.5));
        assert_eq!(keys(dir.path()), [("site-2".to_owned(), "a".to_owned())]);
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tracking = open(dir.path());
        let without = |header: &str| {
            let mut aux = event("1", "a", 0.5);
            aux.headers.remove(header);
            tracking.take(SITE, aux)
        };
        assert_eq!(without("_event_type"), "BAD_REQUEST_DATA");
        assert_eq!(without("_timestamp"), "BAD_REQUEST_DATA");
        let named = |name: &str| {
            let mut aux = event("1", "a", 0.5);
            aux.headers.insert("_event_type", name);
            tracking.take(SITE, aux)
        };
        assert_eq!(named("_end_run"), "BAD_REQUEST_DATA", "that is the server's own");
        assert_eq!(tracking.take(SITE, event("", "a", 0.5)), "BAD_REQUEST_DATA");
        assert_eq!(without("_event_id"), "OK", "as nvflare 2.8 sends it");
        assert_eq!(without("_event_id"), "OK");
        assert_eq!(keys(dir.path()), of_site(&["a", "a"]));
    }

    #[derive(Clone, Default)]
    struct Diary(Arc<Mutex<Vec<String>>>);

    impl Observer for Diary {
        fn observe(&self, event: &Event<'_>, _: &EventCx<'_>) -> Result<(), ObserveError> {
            self.0.lock().unwrap().push(format!("{} {}", event.name(), json!(event.details())));
            Ok(())
        }
    }

    #[tokio::test]
    async fn observers_hear_of_what_came_once_the_run_has_begun_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let tracking = open(dir.path());
        let diary = Diary::default();
        let run = RunContext::new("project", "job");
        let herald = Herald::new(vec![("diary".to_owned(), Box::new(diary.clone()))], run);
        tracking.take(SITE, event("1", "a", 1_i64));
        let mut own = event("2", "", 0.5);
        own.headers.insert("_event_type", "our_checkpoint");
        tracking.take(SITE, own);
        herald.tell(&Event::StartRun).await;
        tracking.begin(herald);
        tracking.take(SITE, event("3", "b", 2_i64));
        tracking.take(SITE, event("1", "a", 1_i64));
        tracking.settle().await;
        let heard = [
            "_start_run {}".to_owned(),
            format!(
                "fed.analytix_log_stats {}",
                json!({ "site": SITE, "key": "a", "step": "", "value": "1" })
            ),
            "our_checkpoint {}".to_owned(),
            format!(
                "fed.analytix_log_stats {}",
                json!({ "site": SITE, "key": "b", "step": "", "value": "2" })
            ),
        ];
        assert_eq!(*diary.0.lock().unwrap(), heard);
    }
}
