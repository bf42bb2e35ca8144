//! Federated statistics with nvflare's arguments.

use std::collections::BTreeMap;
use std::sync::Arc;

use locule_component::{BuildCx, BuildError, Built, Component, Kind};
use locule_workflow::{Bins, Figure, Statistics, StatisticsArgs};
use serde::Deserialize;

use crate::run_file::RunFile;
use crate::wrong;

/// Lets every site compute figures of its columns, and combines them; see [`Statistics`], which does the work.
///
/// # What differs
/// - Figures are rounded when they are written, and not at each step on the way.
/// - `mean` and `stddev` need no `sum` and `count` beside them.
/// - Means are over rows with numbers, and quantiles are our own; see [`Statistics`].
/// - All answers are in when the phase is over, so that `result_wait_timeout` is a mistake.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.workflows.statistics_controller`.
#[derive(Debug)]
pub struct StatisticsController;

/// Arguments of [`StatisticsController`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatisticsControllerArgs {
    /// Which figures to compute.
    pub statistic_configs: StatisticConfigs,
    /// Id of the component that writes them.
    pub writer_id: String,
    /// Seconds to wait for the other sites once enough have answered.
    #[serde(default = "one")]
    pub wait_time_after_min_received: f64,
    /// Must be null.
    #[serde(default)]
    pub result_wait_timeout: Option<f64>,
    /// Digits after the point.
    #[serde(default = "four")]
    pub precision: u8,
    /// Sites that must answer; null or 0 means all.
    #[serde(default)]
    pub min_clients: Option<usize>,
    /// Whether sites are told beforehand what will be asked for.
    #[serde(default = "yes")]
    pub enable_pre_run_task: bool,
}

/// Which figures to compute; those without arguments are empty objects.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StatisticConfigs {
    /// How many rows there are.
    pub count: Option<Nothing>,
    /// How many of them have no number.
    pub failure_count: Option<Nothing>,
    /// Their sum.
    pub sum: Option<Nothing>,
    /// Their mean.
    pub mean: Option<Nothing>,
    /// Their variance.
    pub var: Option<Nothing>,
    /// The root of it.
    pub stddev: Option<Nothing>,
    /// Histograms, by feature or `*`.
    pub histogram: BTreeMap<String, Bins>,
    /// Quantiles from 0 to 1, by feature or `*`.
    pub quantile: BTreeMap<String, Vec<f64>>,
}

/// `{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

fn one() -> f64 {
    1.0
}

fn four() -> u8 {
    4
}

fn yes() -> bool {
    true
}

impl Component for StatisticsController {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "nvflare.app_common.workflows.statistics_controller.StatisticsController";
    type Args = StatisticsControllerArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: StatisticsControllerArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        if args.result_wait_timeout.is_some() {
            return Err(wrong("result_wait_timeout", "all answers are in here when the phase is over"));
        }
        let writer = cx.service::<JsonStatsFileWriter>(&args.writer_id).ok_or_else(|| {
            let name = JsonStatsFileWriter::NAME;
            wrong("writer_id", format!("no component of this id is a `{name}`"))
        })?;
        let StatisticConfigs { count, failure_count, sum, mean, var, stddev, histogram, quantile } =
            args.statistic_configs;
        let figures = [
            (count, Figure::Count),
            (failure_count, Figure::FailureCount),
            (sum, Figure::Sum),
            (mean, Figure::Mean),
            (var, Figure::Var),
            (stddev, Figure::Stddev),
        ];
        let figures = figures.into_iter().filter_map(|(wanted, figure)| wanted.map(|_| figure)).collect();
        let workflow = Statistics::new(StatisticsArgs {
            min_clients: args.min_clients.unwrap_or(0),
            grace_seconds: args.wait_time_after_min_received,
            figures,
            histogram,
            quantile,
            min_count: 0,
            min_sites: 1,
            per_site: true,
            precision: Some(args.precision),
            pre_run: args.enable_pre_run_task,
            file: writer.output_path.clone(),
        })?;
        Ok(Built::Workflow(Box::new(workflow)))
    }
}

/// Says where [`StatisticsController`] writes its figures.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.statistics.json_stats_file_persistor`.
#[derive(Debug)]
pub struct JsonStatsFileWriter {
    output_path: String,
}

/// Arguments of [`JsonStatsFileWriter`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonStatsFileWriterArgs {
    /// The file, in the run's folder.
    pub output_path: String,
    /// Empty, or nvflare's own encoder.
    #[serde(default)]
    pub json_encoder_path: String,
}

impl Component for JsonStatsFileWriter {
    const KIND: Kind = Kind::Service;
    const NAME: &'static str = "nvflare.app_common.statistics.json_stats_file_persistor.JsonStatsFileWriter";
    type Args = JsonStatsFileWriterArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: JsonStatsFileWriterArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        if !["", "nvflare.app_common.utils.json_utils.ObjectEncoder"].contains(&&*args.json_encoder_path) {
            return Err(wrong("json_encoder_path", "no other encoder than nvflare's own can be had here"));
        }
        RunFile::new("", &args.output_path, "output_path")?;
        Ok(Built::Service(Arc::new(JsonStatsFileWriter { output_path: args.output_path })))
    }
}
