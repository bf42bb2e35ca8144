//! Metrics of each round as JSON, for programs to read.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use locule_component::{BuildCx, BuildError, Built, Component, Kind};
use locule_fobs::{Dxo, Map, Value};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::metrics::Metrics;
use crate::run_file::RunFile;

/// Writes the sites' metrics and their means: a line of JSON for each round, and a summary at the end.
///
/// [`FedAvg`](crate::FedAvg) tells it of every round. A round in which no site reports a metric leaves no line, and a
/// run without one leaves no summary.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.widgets.metrics_artifact_writer`. Sites stand in the order of their names, there
/// in that of arrival; and a round whose line would be too long is cut to its means at once.
#[derive(Debug)]
pub struct MetricsArtifactWriter {
    args: MetricsArtifactWriterArgs,
    rounds: RunFile,
    summary: RunFile,
    last: Mutex<Option<Last>>,
}

/// The last round that had metrics.
#[derive(Debug, Serialize, Deserialize)]
struct Last {
    round: u64,
    weighing: Weighing,
    means: Vec<Json>,
    key_metric: Option<Json>,
}

/// Arguments of [`MetricsArtifactWriter`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsArtifactWriterArgs {
    /// Folder of both files, in the run's.
    pub results_dir: String,
    /// The file written at the end.
    pub summary_file_name: String,
    /// The file that each round adds a line to.
    pub round_file_name: String,
    /// How much is written at most.
    pub limits: Option<MetricsLimits>,
}

impl Default for MetricsArtifactWriterArgs {
    fn default() -> MetricsArtifactWriterArgs {
        MetricsArtifactWriterArgs {
            results_dir: "metrics".to_owned(),
            summary_file_name: "metrics_summary.json".to_owned(),
            round_file_name: "round_metrics.jsonl".to_owned(),
            limits: None,
        }
    }
}

/// How much a [`MetricsArtifactWriter`] writes at most.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsLimits {
    /// Characters of a name.
    pub max_metric_name_length: usize,
    /// Characters of a metric that is text.
    pub max_string_value_length: usize,
    /// Metrics of one site in a round.
    pub max_metrics_per_site_per_round: usize,
    /// Sites of a round.
    pub max_sites_per_round: usize,
    /// Metrics of all sites in a round.
    pub max_site_metric_records_per_round: usize,
    /// Metrics that are named as passed over, in a round.
    pub max_skipped_metrics_per_round: usize,
    /// Bytes of a round's line.
    pub max_round_record_bytes: usize,
    /// Bytes of the summary.
    pub max_summary_bytes: usize,
    /// Bits of a whole number; here none has more than 64.
    pub max_int_bit_length: u32,
}

impl Default for MetricsLimits {
    fn default() -> MetricsLimits {
        MetricsLimits {
            max_metric_name_length: 256,
            max_string_value_length: 1024,
            max_metrics_per_site_per_round: 512,
            max_sites_per_round: 10_000,
            max_site_metric_records_per_round: 10_000,
            max_skipped_metrics_per_round: 1024,
            max_round_record_bytes: 1 << 20,
            max_summary_bytes: 1 << 20,
            max_int_bit_length: 1023,
        }
    }
}

impl Component for MetricsArtifactWriter {
    const KIND: Kind = Kind::Service;
    const NAME: &'static str = "nvflare.app_common.widgets.metrics_artifact_writer.MetricsArtifactWriter";
    type Args = MetricsArtifactWriterArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: MetricsArtifactWriterArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Service(Arc::new(MetricsArtifactWriter::new(args)?)))
    }
}

impl MetricsArtifactWriter {
    /// That has written nothing yet.
    ///
    /// # Errors
    /// [`BuildError::Argument`] when a file would lie outside of the run's folder.
    pub fn new(args: MetricsArtifactWriterArgs) -> Result<MetricsArtifactWriter, BuildError> {
        let rounds = RunFile::new(&args.results_dir, &args.round_file_name, "round_file_name")?;
        let summary = RunFile::new(&args.results_dir, &args.summary_file_name, "summary_file_name")?;
        Ok(MetricsArtifactWriter { args, rounds, summary, last: Mutex::default() })
    }

    /// A round begins.
    pub(crate) fn round(&self, weighing: Weighing) -> RoundMetrics {
        let limits = self.args.limits.clone().unwrap_or_default();
        RoundMetrics { limits, weighing, sites: Vec::new(), records: 0, skipped: Vec::new() }
    }

    /// Adds the line of a round, if it has metrics.
    pub(crate) fn write_round(
        &self,
        run_dir: &Path,
        round: u64,
        metrics: &RoundMetrics,
        means: Option<&Metrics>,
        key_metric: Option<&Json>,
    ) -> io::Result<()> {
        let RoundMetrics { limits, weighing, sites, skipped, .. } = metrics;
        let means: Vec<Json> =
            means.iter().flat_map(|means| &means.0).map(|(name, x)| metric(limits, name, *x)).collect();
        if means.is_empty() && sites.is_empty() && skipped.is_empty() {
            return Ok(());
        }
        let mut record = json!({ "round": round, "aggregated_metrics": means, "sites": sites,
            "skipped_metrics": skipped });
        if *weighing == Weighing::Effective {
            record["aggregation"] = aggregation();
        }
        if let Some(key_metric) = key_metric {
            record["key_metric"] = key_metric.clone();
        }
        let mut line = record.to_string();
        if line.len() > limits.max_round_record_bytes {
            let skipped = [json!({ "name": "", "reason": "round_record_too_large" })];
            line = json!({ "round": round, "aggregated_metrics": means, "sites": [], "skipped_metrics": skipped }).to_string();
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(Last { round, weighing: *weighing, means, key_metric: key_metric.cloned() });
        if line.len() > limits.max_round_record_bytes {
            return Ok(());
        }
        let path = self.rounds.in_run(run_dir);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        line.push('\n');
        File::options().create(true).append(true).open(path)?.write_all(line.as_bytes())
    }

    /// How far its file of rounds is, and what the last round with metrics said.
    pub(crate) fn state(&self, run_dir: &Path) -> Map {
        let length = fs::metadata(self.rounds.in_run(run_dir)).map_or(0, |file| file.len());
        let mut state = Map::from_iter([("length", length)]);
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.as_ref().and_then(|last| serde_json::to_string(last).ok()) {
            state.insert("last", last);
        }
        state
    }

    /// Goes on from there: what its file says of later rounds is said again.
    pub(crate) fn restore(&self, run_dir: &Path, state: &Map) -> Option<()> {
        let length = u64::try_from(state.int("length")?).ok()?;
        if let Ok(file) = File::options().write(true).open(self.rounds.in_run(run_dir))
            && file.metadata().is_ok_and(|file| file.len() > length)
        {
            file.set_len(length).ok()?;
        }
        let last = state.str("last").map(serde_json::from_str).transpose().ok()?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
        Some(())
    }

    /// Writes the summary, if any round had metrics. `best` is what the selector of the best model has to say.
    pub(crate) fn write_summary(&self, run_dir: &Path, job_id: &str, best: Option<Json>) -> io::Result<()> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = &*last else { return Ok(()) };
        let mut summary = json!({
            "schema_version": "1",
            "status": "metrics_reported",
            "final_round": last.round,
            "final_aggregated_metrics": last.means,
            "round_metrics_file": self.args.round_file_name,
            "notes": [
                "Aggregated metrics are weighted averages of client-reported metric values.",
                "Nonlinear metrics are not recomputed from pooled predictions.",
            ],
            "job_name": job_name(run_dir).unwrap_or_else(|| job_id.to_owned()),
        });
        if last.weighing == Weighing::Effective {
            summary["metric_source"] = "client_reported_flmodel_metrics".into();
        }
        match best {
            Some(Json::Object(best)) => best.into_iter().for_each(|(key, value)| summary[key] = value),
            Some(_) | None => {
                if let Some(key_metric) = &last.key_metric {
                    summary["key_metric"] = key_metric.clone();
                }
            }
        }
        if last.weighing == Weighing::Effective {
            summary["aggregation"] = aggregation();
        }
        let text = serde_json::to_string_pretty(&summary)?;
        let limits = self.args.limits.clone().unwrap_or_default();
        if text.len() > limits.max_summary_bytes {
            return Err(io::Error::other("the summary is longer than `max_summary_bytes`"));
        }
        self.summary.write(run_dir, text.as_bytes()).map(drop).map_err(|(_, error)| error)
    }
}

/// The name in the job's meta, which lies in the folder of the run.
fn job_name(run_dir: &Path) -> Option<String> {
    let meta: Json = serde_json::from_slice(&fs::read(run_dir.join("meta.json")).ok()?).ok()?;
    meta.get("name")?.as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

fn aggregation() -> Json {
    json!({
        "method": "weighted_average",
        "weight_key": Weighing::Effective.key(),
        "metric_policy": "finite_numeric_metrics_only_per_key_denominator",
        "weight_formula": "aggregation_weight * NUM_STEPS_CURRENT_ROUND",
    })
}

/// What the records say of the weights of sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Weighing {
    /// They are those of the means.
    Effective,
    /// They are what the sites said of themselves, if they did.
    AsReported,
}

impl Weighing {
    fn key(self) -> &'static str {
        match self {
            Weighing::Effective => "effective_fedavg_metric_weight",
            Weighing::AsReported => "NUM_STEPS_CURRENT_ROUND",
        }
    }
}

/// What sites report in one round.
#[derive(Debug)]
pub(crate) struct RoundMetrics {
    limits: MetricsLimits,
    weighing: Weighing,
    sites: Vec<Json>,
    records: usize,
    skipped: Vec<Json>,
}

impl RoundMetrics {
    /// Takes the metrics of a result that was accepted with this weight.
    pub(crate) fn take(&mut self, site: &str, weight: f64, dxo: &Dxo) {
        let Some(reported) = dxo.meta.map("initial_metrics") else { return };
        let mut metrics = Vec::new();
        for (name, value) in reported.iter_str() {
            if metrics.len() == self.limits.max_metrics_per_site_per_round {
                self.skip(site, name, "too_many_metrics");
                break;
            }
            match self.value(value) {
                Ok(value) => metrics.push(metric(&self.limits, name, value)),
                Err(reason) => self.skip(site, name, reason),
            }
        }
        if metrics.is_empty() {
            return;
        }
        if self.sites.len() == self.limits.max_sites_per_round {
            return self.skip(site, "", "too_many_sites");
        }
        let room = self.limits.max_site_metric_records_per_round - self.records;
        if metrics.len() > room {
            self.skip(site, "", "too_many_metrics");
            metrics.truncate(room);
        }
        if metrics.is_empty() {
            return;
        }
        self.records += metrics.len();
        let mut record = json!({ "name": cut(&self.limits, site), "metrics": metrics });
        let weight = match self.weighing {
            Weighing::Effective => Some(Json::from(weight)),
            Weighing::AsReported => {
                dxo.meta.get("NUM_STEPS_CURRENT_ROUND").and_then(|steps| self.value(steps).ok())
            }
        };
        if let Some(weight) = weight.filter(|weight| weight.as_f64().is_some_and(|weight| weight > 0.0)) {
            record["weight"] = weight;
            record["weight_key"] = self.weighing.key().into();
        }
        self.sites.push(record);
    }

    fn value(&self, value: &Value) -> Result<Json, &'static str> {
        if let Some(flag) = value.as_bool() {
            Ok(flag.into())
        } else if let Some(whole) = value.as_i64() {
            Ok(whole.into())
        } else if let Some(number) = value.as_f64() {
            if number.is_finite() { Ok(number.into()) } else { Err("non_finite_number") }
        } else if let Value::Str(text) = value {
            let fits = text.chars().count() <= self.limits.max_string_value_length;
            if fits { Ok(visible(text.chars()).into()) } else { Err("string_too_long") }
        } else {
            Err("unsupported_type")
        }
    }

    fn skip(&mut self, site: &str, name: &str, reason: &str) {
        if self.skipped.len() < self.limits.max_skipped_metrics_per_round {
            let (name, site) = (cut(&self.limits, name), cut(&self.limits, site));
            self.skipped.push(json!({ "name": name, "reason": reason, "site": site }));
        }
    }
}

fn metric(limits: &MetricsLimits, name: &str, value: impl Into<Json>) -> Json {
    json!({ "name": cut(limits, name), "value": value.into() })
}

fn cut(limits: &MetricsLimits, name: &str) -> String {
    visible(name.chars().take(limits.max_metric_name_length))
}

fn visible(chars: impl Iterator<Item = char>) -> String {
    chars.filter(|c| *c >= ' ' && *c != '\u{7f}').collect()
}

#[cfg(test)]
mod tests {
    use locule_fobs::{DataKind, Map};

    use super::*;

    fn writer(limits: Json) -> MetricsArtifactWriter {
        MetricsArtifactWriter::new(serde_json::from_value(json!({ "limits": limits })).unwrap()).unwrap()
    }

    fn dxo(metrics: Map) -> Dxo {
        let mut dxo = Dxo::new(DataKind::Weights, Map::new());
        dxo.meta.insert("initial_metrics", metrics);
        dxo
    }

    #[test]
    fn what_is_no_metric_is_named_with_its_reason() {
        let mut round = writer(json!({ "max_metric_name_length": 4, "max_string_value_length": 3 }))
            .round(Weighing::Effective);
        let metrics = Map::from_iter([
            ("loss\nes", Value::from(0.5)),
            ("nan", f64::NAN.into()),
            ("note", "goods".into()),
            ("list", Value::List(Vec::new())),
        ]);
        round.take("a", 2.0, &dxo(metrics));
        let metrics = json!([{ "name": "loss", "value": 0.5 }]);
        assert_eq!(
            round.sites,
            [
                json!({ "name": "a", "metrics": metrics, "weight": 2.0, "weight_key": Weighing::Effective.key() })
            ]
        );
        let reasons: Vec<&str> = round.skipped.iter().map(|one| one["reason"].as_str().unwrap()).collect();
        assert_eq!(reasons, ["non_finite_number", "string_too_long", "unsupported_type"]);
    }

    #[test]
    fn bounds_hold() {
        let run = tempfile::tempdir().unwrap();
        let limits = json!({ "max_sites_per_round": 2, "max_site_metric_records_per_round": 3,
            "max_metrics_per_site_per_round": 2, "max_skipped_metrics_per_round": 3, "max_round_record_bytes": 120 });
        let writer = writer(limits);
        let mut round = writer.round(Weighing::Effective);
        let three = || dxo(Map::from_iter([("a", 1_i64), ("b", 2), ("c", 3)]));
        for site in ["s1", "s2", "s3", "s4"] {
            round.take(site, 1.0, &three());
        }
        let counts: Vec<usize> =
            round.sites.iter().map(|site| site["metrics"].as_array().unwrap().len()).collect();
        assert_eq!(counts, [2, 1]);
        assert_eq!(round.skipped.len(), 3);
        writer.write_round(run.path(), 7, &round, None, None).unwrap();
        let line = fs::read_to_string(run.path().join("metrics/round_metrics.jsonl")).unwrap();
        assert!(line.len() <= 121 && line.contains("round_record_too_large"), "{line}");
    }

    #[test]
    fn without_metrics_nothing_is_written() {
        let run = tempfile::tempdir().unwrap();
        let writer = writer(Json::Null);
        let mut round = writer.round(Weighing::Effective);
        round.take("a", 1.0, &Dxo::new(DataKind::Weights, Map::new()));
        writer.write_round(run.path(), 0, &round, None, None).unwrap();
        writer.write_summary(run.path(), "job-7", None).unwrap();
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 0);
    }
}
