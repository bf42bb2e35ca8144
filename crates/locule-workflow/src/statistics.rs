//! Figures of data that nobody sees together.

use std::collections::BTreeMap;
use std::time::Duration;

use locule_component::{
    BoxFuture, BuildCx, BuildError, Built, Component, Kind, OutgoingTask, Progress, TaskBoard, Unusable,
    Workflow, WorkflowError,
};
use locule_fobs::{Class, Map, Object, Shareable, Value};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::fed_avg::wrong;
use crate::figures::{Figures, Series, key};
use crate::gather::{TakeResult, gather};
use crate::record::replace;

/// Lets every site compute figures of its own columns, and combines them: counts, sums, means, variances, standard
/// deviations, histograms and quantiles.
///
/// It speaks nvflare's layout, so that nvflare's `StatisticsExecutor` answers it, and here
/// [`SiteStatistics`](crate::SiteStatistics):
///
/// 1. Task `fed_stats_pre_run`, unless [`StatisticsArgs::pre_run`] is off: what will be asked for.
/// 2. Task `fed_stats` with `fed_stats_task_key` = `fed_stats_1st_statistics`: counts, sums, means, ranges, quantiles.
/// 3. Task `fed_stats` with `fed_stats_2nd_statistics`, for variances and histograms: what these need of all sites
///    together, that is counts, means and ranges, goes out. Sites that answered the first but not this one are left out of both, and it
///    is asked again.
///
/// # What is released
/// [`StatisticsArgs::file`] in the run's folder has a figure under the feature's name, the figure's, the site's or `Global`, and
/// the dataset's, as nvflare writes them. A feature with fewer rows than [`StatisticsArgs::min_count`] is left out, at a
/// site and of all together, and so is what fewer than [`StatisticsArgs::min_sites`] have.
///
/// # Figures
/// A mean is the sum of sums over the number of rows, less those without a number, of the sites that told their sum;
/// nvflare divides by all rows. A variance is the sum of what the sites compute with mean and count of all;
/// a site's own share of it is not released.
/// A range is that of a feature in all datasets. Quantiles come from the sites' digests: the value where as much
/// of the weight lies below as asked for, each centroid's weight half on either side of it, and linear between. In
/// memory are the figures of all sites.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.workflows.statistics_controller`,
/// `nvflare.app_common.statistics.numeric_stats`; its quantiles are those of the library `fastdigest`, and may differ.
///
/// ```
/// use std::collections::BTreeMap;
/// use locule_workflow::{LocalBoard, SiteStatistics, Statistics};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let ages = |rows: &[f64]| BTreeMap::from([("age".to_owned(), rows.to_vec())]);
/// let mut board = LocalBoard::new(folder.path());
/// board.add_site("north", Box::new(SiteStatistics::new("train", ages(&[30.0, 50.0]))));
/// board.add_site("south", Box::new(SiteStatistics::new("train", ages(&[70.0]))));
/// let args = serde_json::json!({ "figures": ["count", "mean", "stddev"] });
/// board.run(&mut Statistics::new(serde_json::from_value(args)?)?)?;
///
/// let found: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.path().join("statistics.json"))?)?;
/// assert_eq!(found["age"]["mean"]["Global"]["train"], 50.0);
/// assert_eq!(found["age"]["stddev"]["Global"]["train"], 20.0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Statistics {
    args: StatisticsArgs,
}

/// Arguments of [`Statistics`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatisticsArgs {
    /// Sites that must answer; 0 means all of the job.
    #[serde(default)]
    pub min_clients: usize,
    /// Seconds to wait for the other sites once enough have answered.
    #[serde(default = "thirty")]
    pub grace_seconds: f64,
    /// Which figures to compute, beside histograms and quantiles.
    #[serde(default)]
    pub figures: Vec<Figure>,
    /// Histograms, by feature; `*` stands for all that are not named.
    #[serde(default)]
    pub histogram: BTreeMap<String, Bins>,
    /// Which quantiles, from 0 to 1, by feature; `*` stands for all that are not named.
    #[serde(default)]
    pub quantile: BTreeMap<String, Vec<f64>>,
    /// Rows below which a feature is left out.
    #[serde(default = "one")]
    pub min_count: u64,
    /// Sites below which a figure of all together is left out.
    #[serde(default = "one_site")]
    pub min_sites: usize,
    /// Whether the sites' own figures are released too.
    #[serde(default = "yes")]
    pub per_site: bool,
    /// Digits after the point that are released; none means all.
    #[serde(default)]
    pub precision: Option<u8>,
    /// Whether sites are told beforehand what will be asked for.
    #[serde(default = "yes")]
    pub pre_run: bool,
    /// Where the figures are written, in the run's folder.
    #[serde(default = "file")]
    pub file: String,
}

/// A figure of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// How many rows there are.
    Count,
    /// How many of them have no number.
    FailureCount,
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// Their variance.
    Var,
    /// The root of it.
    Stddev,
}

impl Figure {
    /// nvflare's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Figure::Count => "count",
            Figure::FailureCount => "failure_count",
            Figure::Sum => "sum",
            Figure::Mean => "mean",
            Figure::Var => "var",
            Figure::Stddev => "stddev",
        }
    }
}

/// The bins of a histogram, all of the same width.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bins {
    /// How many.
    pub bins: u32,
    /// From where to where; without one, from the least value of all sites to the greatest, as they tell them.
    #[serde(default)]
    pub range: Option<[f64; 2]>,
}

fn thirty() -> f64 {
    30.0
}

fn one() -> u64 {
    1
}

fn one_site() -> usize {
    1
}

fn yes() -> bool {
    true
}

fn file() -> String {
    "statistics.json".to_owned()
}

impl Component for Statistics {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "locule.workflow.Statistics";
    type Args = StatisticsArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: StatisticsArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Statistics::new(args).map(|workflow| Built::Workflow(Box::new(workflow)))
    }
}

impl Statistics {
    /// As the arguments say.
    ///
    /// # Errors
    /// [`BuildError::Argument`] names the argument that makes no sense.
    pub fn new(args: StatisticsArgs) -> Result<Statistics, BuildError> {
        if args.figures.is_empty() && args.histogram.is_empty() && args.quantile.is_empty() {
            return Err(wrong("figures", "there is nothing to compute"));
        }
        if Duration::try_from_secs_f64(args.grace_seconds).is_err() {
            return Err(wrong("grace_seconds", "expected a number of seconds, 0 or more"));
        }
        for (feature, Bins { bins, range }) in &args.histogram {
            if !(1..=100_000).contains(bins) {
                return Err(wrong(
                    &format!("histogram.{feature}.bins"),
                    "expected a number from 1 to 100000",
                ));
            }
            if range.is_some_and(|[low, high]| !(low.is_finite() && high.is_finite() && low < high)) {
                return Err(wrong(
                    &format!("histogram.{feature}.range"),
                    "expected two numbers, the lower first",
                ));
            }
        }
        if let Some((feature, _)) =
            args.quantile.iter().find(|(_, at)| !at.iter().all(|p| (0.0..=1.0).contains(p)))
        {
            return Err(wrong(&format!("quantile.{feature}"), "expected numbers from 0 to 1"));
        }
        let parts = std::path::Path::new(&args.file).components();
        if args.file.is_empty()
            || !parts.into_iter().all(|part| matches!(part, std::path::Component::Normal(_)))
        {
            return Err(wrong("file", "expected a path within the run's folder"));
        }
        Ok(Statistics { args })
    }

    async fn compute(&mut self, board: &dyn TaskBoard) -> Result<(), WorkflowError> {
        let present = board.sites().len();
        if present < self.args.min_clients.max(1) {
            return Err(WorkflowError::TooFewSites { present, needed: self.args.min_clients.max(1) });
        }
        if self.args.pre_run {
            let mut data = Shareable::new();
            data.fields.insert(key::TARGETS, encoded(self.targets(&[Phase::First, Phase::Second])));
            gather(board, self.task(key::PRE_RUN, data, Vec::new()), &mut Acknowledged).await?;
        }
        let mut sites = Sites::default();
        let first = self.inputs(Phase::First, &Figures::default());
        gather(board, self.task(key::TASK, first, Vec::new()), &mut sites).await?;
        let global = loop {
            let global = self.combine(&sites);
            if self.targets(&[Phase::Second]).is_empty() {
                break global;
            }
            let names: Vec<String> = sites.0.keys().cloned().collect();
            let second = self.inputs(Phase::Second, &global);
            let mut answers = Sites::default();
            gather(board, self.task(key::TASK, second, names), &mut answers).await?;
            let everybody = answers.0.len() == sites.0.len();
            sites.0.retain(|site, _| answers.0.contains_key(site));
            if everybody {
                for (site, figures) in answers.0 {
                    sites.0.entry(site).or_default().extend(figures);
                }
                break self.combine(&sites);
            }
            // Means and counts of those who have left are in what the others computed.
            tracing::warn!(
                job = board.job_id(),
                left = sites.0.len(),
                "sites have left, figures are asked for again"
            );
        };
        let path = board.run_dir().join(&self.args.file);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|source| WorkflowError::File { path: folder.to_owned(), source })?;
        }
        let released =
            serde_json::to_vec_pretty(&self.released(&sites, &global)).expect("texts and numbers are JSON");
        replace(&path, &released)?;
        board.report(Progress::ModelSaved { path });
        Ok(())
    }

    fn task(&self, name: &str, data: Shareable, sites: Vec<String>) -> OutgoingTask {
        let (min_results, grace) = (self.args.min_clients, Duration::from_secs_f64(self.args.grace_seconds));
        OutgoingTask { name: name.to_owned(), data, sites, min_results, grace, ..OutgoingTask::default() }
    }

    /// What is asked for in these phases, as nvflare's list of configurations.
    fn targets(&self, phases: &[Phase]) -> Vec<Value> {
        let StatisticsArgs { figures, histogram, quantile, .. } = &self.args;
        let wants = |figure| figures.contains(&figure);
        let spread = wants(Figure::Var) || wants(Figure::Stddev);
        let mean = wants(Figure::Mean) || spread;
        let bins = || -> Map {
            let config = histogram.iter().map(|(feature, Bins { bins, range })| {
                let mut config = Map::from_iter([("bins", Value::from(i64::from(*bins)))]);
                if let Some([low, high]) = range {
                    config.insert("range", Value::List(vec![(*low).into(), (*high).into()]));
                }
                (feature.as_str(), config)
            });
            config.collect()
        };
        let at = || -> Map {
            let list = |at: &Vec<f64>| Value::List(at.iter().map(|p| Value::from(*p)).collect());
            quantile.iter().map(|(feature, at)| (feature.as_str(), list(at))).collect()
        };
        let has_bins = !histogram.is_empty();
        let all = [
            (Phase::First, "count", true, Map::new()),
            (Phase::First, "sum", wants(Figure::Sum) || mean, Map::new()),
            (Phase::First, "mean", mean, Map::new()),
            (Phase::First, "quantile", !quantile.is_empty(), at()),
            (Phase::First, "min", has_bins, bins()),
            (Phase::First, "max", has_bins, bins()),
            (Phase::Second, "var", spread, Map::new()),
            (Phase::Second, "stddev", wants(Figure::Stddev), Map::new()),
            (Phase::Second, "histogram", has_bins, bins()),
        ];
        let wanted = all.into_iter().filter(|(phase, _, wanted, _)| *wanted && phases.contains(phase));
        wanted
            .map(|(_, name, _, config)| {
                let parts = Value::List(vec![Value::from(name), config.into()]);
                Value::Object(Object::new(Class::STATISTIC_CONFIG, parts))
            })
            .collect()
    }

    fn inputs(&self, phase: Phase, global: &Figures) -> Shareable {
        let mut data = Shareable::new();
        if phase == Phase::Second {
            for (name, figure) in
                [("global_count", "rows"), ("global_mean", "mean"), ("min", "min"), ("max", "max")]
            {
                data.fields.insert(name, global.numbers_of(figure));
            }
        }
        data.fields.insert(key::PHASE, phase.as_str());
        data.fields.insert(key::TARGETS, encoded(self.targets(&[phase])));
        data
    }

    /// The figures of all sites together, of features that have rows enough.
    fn combine(&self, sites: &Sites) -> Figures {
        let enough = |series: &Series, has: &dyn Fn(&Figures) -> bool| {
            let counted = || sites.0.values().filter(|figures| has(figures) && figures.rows(series) > 0.0);
            let rows: f64 = counted().map(|figures| figures.rows(series)).sum();
            rows >= self.args.min_count as f64 && counted().count() >= self.args.min_sites.max(1)
        };
        let at =
            |feature: &str| self.args.quantile.get(feature).or_else(|| self.args.quantile.get("*")).cloned();
        Figures::combined(sites.0.values(), enough, at)
    }

    /// By feature, figure, site and dataset.
    fn released(&self, sites: &Sites, global: &Figures) -> Json {
        let mut names: Vec<&str> = self.args.figures.iter().map(|figure| figure.as_str()).collect();
        if !self.args.histogram.is_empty() {
            names.push("histogram");
        }
        if !self.args.quantile.is_empty() {
            names.push("quantile");
        }
        let mut all = json!({});
        let mut put = |who: &str, figures: &Figures, least: f64| {
            for (name, series, figure) in figures.iter(self.args.precision) {
                let is_share = name == "var" && who != "Global";
                if names.contains(&name) && !is_share && figures.rows(series) >= least {
                    let (dataset, feature) = series;
                    all[feature][name][who][dataset] = figure;
                }
            }
        };
        if self.args.per_site {
            for (site, figures) in &sites.0 {
                put(site, figures, self.args.min_count as f64);
            }
        }
        put("Global", global, 0.0);
        all
    }
}

impl Workflow for Statistics {
    fn run<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(self.compute(board))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    First,
    Second,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Phase::First => key::FIRST,
            Phase::Second => key::SECOND,
        }
    }
}

fn encoded(targets: Vec<Value>) -> Value {
    let bytes = locule_fobs::encode(&Value::List(targets)).expect("texts and numbers can be encoded");
    Value::Bytes(bytes)
}

/// The figures of every site that answered, in site order.
#[derive(Debug, Default)]
struct Sites(BTreeMap<String, Figures>);

impl TakeResult for Sites {
    fn take(&mut self, site: &str, result: &Shareable) -> Result<(), Unusable> {
        let figures = Figures::of_result(result)?;
        if let Some(first) = self.0.values().next() {
            figures.check_bins(first)?;
        }
        self.0.insert(site.to_owned(), figures);
        Ok(())
    }
}

/// That the task was done is all there is to take.
struct Acknowledged;

impl TakeResult for Acknowledged {
    fn take(&mut self, _: &str, _: &Shareable) -> Result<(), Unusable> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `fobs.dumps` of nvflare 2.9.0 gives for
    /// `[StatisticConfig("count", {}), StatisticConfig("min", {"*": {"bins": 20}}), StatisticConfig("max", {"*": {"bins": 20}})]`.
    #[test]
    fn targets_are_encoded_as_nvflare_does() {
        let args = serde_json::json!({ "histogram": { "*": { "bins": 20 } } });
        let statistics = Statistics::new(serde_json::from_value(args).unwrap()).unwrap();
        let Value::Bytes(bytes) = encoded(statistics.targets(&[Phase::First])) else { panic!("no bytes") };
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("../tests/golden/fed_stats_targets.hex").trim());
    }
}
