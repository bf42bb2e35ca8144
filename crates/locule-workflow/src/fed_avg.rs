//! Federated averaging.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use locule_component::{
    BoxFuture, BuildCx, BuildError, Built, Component, Event, Kind, OutgoingTask, Progress, TaskBoard,
    Workflow, WorkflowError,
};
use locule_fobs::{Array, DataKind, Dtype, Dxo, Map, Shareable, Value};
use serde::Deserialize;

use crate::gather::{TakeResult, dxo_of, gather};
use crate::mean::{Shown, WeightedMean, f32s, f64s};
use crate::npz::{SaveError, save_npz};

/// More elements than this in one array of a configured model are refused as a slip of the pen.
const MAX_ELEMENTS: usize = 1 << 30;

/// Metrics of one result that are passed on; a site may send more, but nobody reads them.
const MAX_METRICS: usize = 64;

/// Averages what the sites train, round after round (McMahan et al., 2017).
///
/// Every round sends the global model as a DXO of kind `WEIGHTS` with the task [`FedAvgArgs::task_name`], and
/// replaces it by the mean of the returned `WEIGHTS`, or adds the mean of the returned `WEIGHT_DIFF`.
/// Contributions are weighted by their meta `NUM_STEPS_CURRENT_ROUND` (1 where there is none), times
/// the site's [`FedAvgArgs::aggregation_weights`]; see [`WeightedMean`] for the arithmetic. A result that
/// is not usable counts as missing and leaves no trace.
///
/// After round `n`, counted from 1, the model lies in `models/round-<n>.npz` (four digits at least) and in
/// `models/global.npz` of the run's folder.
///
/// Jobs written for nvflare's own FedAvg, with its arguments, are run by the component of that name in
/// `locule-nvflare`.
#[derive(Debug)]
pub struct FedAvg {
    args: FedAvgArgs,
    model: Map,
}

/// Arguments of [`FedAvg`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FedAvgArgs {
    /// Usable results that a round needs; 0 means those of all sites of the job.
    #[serde(default, alias = "num_clients")]
    pub min_clients: usize,
    /// How many rounds to run.
    #[serde(default = "five")]
    pub num_rounds: u64,
    /// Number of the first round.
    #[serde(default)]
    pub start_round: u64,
    /// What the sites are asked to do.
    #[serde(default = "train")]
    pub task_name: String,
    /// The model to begin with. Without one the first round sends an empty model, and sites begin with their
    /// own.
    #[serde(default)]
    pub model: BTreeMap<String, ArraySpec>,
    /// Seconds to wait for the other sites once enough usable results are in.
    #[serde(default = "thirty")]
    pub grace_seconds: f64,
    /// A factor for the weight of a site's results; 1 for sites that are not named.
    #[serde(default)]
    pub aggregation_weights: BTreeMap<String, f64>,
}

/// An array with the same number everywhere.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArraySpec {
    /// The extent of each dimension.
    pub shape: Vec<usize>,
    /// The type of the elements.
    #[serde(default)]
    pub dtype: FloatType,
    /// The number.
    #[serde(default)]
    pub fill: f64,
}

/// The dtypes that can be averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FloatType {
    /// 32 bits.
    Float32,
    /// 64 bits.
    #[default]
    Float64,
}

fn five() -> u64 {
    5
}

fn thirty() -> f64 {
    30.0
}

fn train() -> String {
    "train".to_owned()
}

impl Component for FedAvg {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "locule.workflow.FedAvg";
    type Args = FedAvgArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: FedAvgArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        FedAvg::new(args).map(|workflow| Built::Workflow(Box::new(workflow)))
    }
}

impl FedAvg {
    /// With the model that the arguments describe.
    ///
    /// # Errors
    /// [`BuildError::Argument`] names the argument that makes no sense.
    pub fn new(args: FedAvgArgs) -> Result<FedAvg, BuildError> {
        let wrong = |argument: &str, reason: &str| {
            Err(BuildError::Argument { argument: argument.to_owned(), reason: reason.to_owned() })
        };
        if args.num_rounds == 0 {
            return wrong("num_rounds", "at least one round must run");
        }
        if args.start_round.checked_add(args.num_rounds).is_none_or(|end| i64::try_from(end).is_err()) {
            return wrong("start_round", "the rounds cannot be counted");
        }
        if args.task_name.is_empty() {
            return wrong("task_name", "a task needs a name");
        }
        if Duration::try_from_secs_f64(args.grace_seconds).is_err() {
            return wrong("grace_seconds", "expected a number of seconds, 0 or more");
        }
        if let Some((site, _)) = args.aggregation_weights.iter().find(|(_, w)| !(w.is_finite() && **w > 0.0))
        {
            return wrong(&format!("aggregation_weights.{site}"), "expected a finite number above 0");
        }
        let mut model = Map::new();
        for (name, spec) in &args.model {
            match spec.array() {
                Ok(array) => model.insert(name.as_str(), array),
                Err(reason) => return wrong(&format!("model.{name}"), reason),
            };
        }
        Ok(FedAvg { args, model })
    }

    /// Begins with this model instead of the one that the arguments describe.
    pub fn starting_from(mut self, model: Map) -> FedAvg {
        self.model = model;
        self
    }

    async fn rounds(&mut self, board: &dyn TaskBoard) -> Result<(), WorkflowError> {
        let present = board.sites().len();
        if present < self.args.min_clients.max(1) {
            return Err(WorkflowError::TooFewSites { present, needed: self.args.min_clients.max(1) });
        }
        let folder = board.run_dir().join("models");
        fs::create_dir_all(&folder).map_err(|source| WorkflowError::File { path: folder.clone(), source })?;

        board.announce(Event::TrainingStarted).await;
        let end = self.args.start_round + self.args.num_rounds;
        for round in self.args.start_round..end {
            if board.is_aborted() {
                return Err(WorkflowError::Aborted);
            }
            board.report(Progress::RoundStarted { round, rounds: end });
            board.announce(Event::RoundStarted { round }).await;
            let sites = self.round(board, round).await?;
            board.announce(Event::BeforeSaveModel).await;
            let model = self.save(&folder, round)?;
            board.announce(Event::AfterSaveModel).await;
            board.report(Progress::RoundFinished { round, rounds: end, sites, model });
            board.announce(Event::RoundDone { round }).await;
        }
        board.report(Progress::ModelSaved { path: folder.join("global.npz") });
        Ok(())
    }

    /// Trains once everywhere and replaces the model; returns the metrics of the sites.
    async fn round(&mut self, board: &dyn TaskBoard, round: u64) -> Result<SiteMetrics, WorkflowError> {
        let mut update = RoundUpdate::new(self, round)?;
        let task = OutgoingTask {
            name: self.args.task_name.clone(),
            data: self.task_data(round),
            sites: Vec::new(),
            min_results: self.args.min_clients,
            grace: Duration::from_secs_f64(self.args.grace_seconds),
            round: Some(round),
        };
        gather(board, task, &mut update).await?;

        let RoundUpdate { mean, kind, metrics, .. } = update;
        let failed = |reason: String| WorkflowError::Failed(format!("round {round}: {reason}"));
        board.announce(Event::BeforeAggregation).await;
        let mean = mean.finish().map_err(|error| failed(error.to_string()))?;
        board.announce(Event::AfterAggregation).await;
        let is_difference = kind == Some(DataKind::WeightDiff);
        board.announce(Event::BeforeModelUpdate).await;
        self.model = if is_difference { sum(&self.model, &mean).map_err(failed)? } else { mean };
        board.announce(Event::AfterModelUpdate).await;
        Ok(metrics)
    }

    /// What a site gets: the model, and which of how many rounds this is.
    fn task_data(&self, round: u64) -> Shareable {
        let mut data = Shareable::with_dxo(Dxo::new(DataKind::Weights, self.model.clone()));
        data.set_header(CURRENT_ROUND, round);
        data.set_header("num_rounds", self.args.num_rounds);
        data.set_header("start_round", self.args.start_round);
        data
    }

    fn save(&self, folder: &Path, round: u64) -> Result<PathBuf, WorkflowError> {
        let path = folder.join(format!("round-{:04}.npz", round + 1));
        for path in [&path, &folder.join("global.npz")] {
            save_npz(path, &self.model).map_err(SaveError::into_workflow_error)?;
        }
        Ok(path)
    }
}

impl Workflow for FedAvg {
    fn prepare<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(async {
            board.announce(Event::InitialModelLoaded).await;
            Ok(())
        })
    }

    fn run<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(self.rounds(board))
    }
}

/// For every accepted site its metrics, by name.
type SiteMetrics = Vec<(String, Vec<(String, f64)>)>;

const CURRENT_ROUND: &str = "current_round";

/// One round's results, folded as they come.
struct RoundUpdate<'a> {
    args: &'a FedAvgArgs,
    round: u64,
    has_model: bool,
    mean: WeightedMean,
    /// Whether the sites return weights or differences; the first usable result decides for the round.
    kind: Option<DataKind>,
    metrics: SiteMetrics,
}

impl<'a> RoundUpdate<'a> {
    fn new(workflow: &'a FedAvg, round: u64) -> Result<RoundUpdate<'a>, WorkflowError> {
        let has_model = !workflow.model.is_empty();
        let mean = if has_model { WeightedMean::like(&workflow.model) } else { Ok(WeightedMean::new()) };
        let mean =
            mean.map_err(|error| WorkflowError::Failed(format!("the model cannot be averaged: {error}")))?;
        Ok(RoundUpdate { args: &workflow.args, round, has_model, mean, kind: None, metrics: Vec::new() })
    }
}

impl TakeResult for RoundUpdate<'_> {
    fn take(&mut self, site: &str, result: &Shareable) -> Result<(), String> {
        let dxo = dxo_of(result)?;
        if !matches!(dxo.kind, DataKind::Weights | DataKind::WeightDiff) {
            return Err(format!("expected weights, found a DXO of kind {}", dxo.kind));
        }
        if let Some(kind) = self.kind.filter(|kind| *kind != dxo.kind) {
            return Err(format!(
                "it is of kind {}, but an earlier site of the round returned {kind}",
                dxo.kind
            ));
        }
        if dxo.kind == DataKind::WeightDiff && !self.has_model {
            return Err("it is a difference, and there is no model yet to add it to".to_owned());
        }
        if let Some(round) = result.headers.int(CURRENT_ROUND)
            && u64::try_from(round) != Ok(self.round)
        {
            return Err(format!("it belongs to round {round}, not {}", self.round));
        }
        let steps = match dxo.meta.get("NUM_STEPS_CURRENT_ROUND") {
            None | Some(Value::None) => 1.0,
            Some(value) => value.as_f64().ok_or_else(|| {
                format!("NUM_STEPS_CURRENT_ROUND is of type {}, not a number", value.kind())
            })?,
        };
        let factor = self.args.aggregation_weights.get(site).copied().unwrap_or(1.0);
        self.mean.add(&dxo.data, factor * steps).map_err(|error| error.to_string())?;
        self.kind = Some(dxo.kind);
        self.metrics.push((site.to_owned(), metrics(&dxo)));
        Ok(())
    }
}

/// The finite numbers among the metrics of a result.
fn metrics(dxo: &Dxo) -> Vec<(String, f64)> {
    let Some(metrics) = dxo.meta.map("initial_metrics") else { return Vec::new() };
    let numbers = metrics.iter_str().filter_map(|(name, value)| Some((name, value.as_f64()?)));
    numbers.filter(|(_, x)| x.is_finite()).take(MAX_METRICS).map(|(name, x)| (name.to_owned(), x)).collect()
}

/// Adds arrays of the same names, shapes and dtypes, element by element in their dtype.
fn sum(model: &Map, difference: &Map) -> Result<Map, String> {
    let mut sum = Map::new();
    for (name, value) in model.iter_str() {
        let (Some(a), Some(b)) = (value.as_array(), difference.get(name).and_then(Value::as_array)) else {
            return Err(format!("{} is missing from the update", Shown(name)));
        };
        sum.insert(name, add(a, b).ok_or_else(|| format!("{} leaves the range of its dtype", Shown(name)))?);
    }
    Ok(sum)
}

/// `None` when dtypes or shapes differ or an element of the sum is not finite.
fn add(a: &Array, b: &Array) -> Option<Array> {
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        return None;
    }
    if a.dtype() == Dtype::F32 {
        let sum: Vec<f32> = f32s(&a.bytes()).zip(f32s(&b.bytes())).map(|(a, b)| a + b).collect();
        sum.iter().all(|x| x.is_finite()).then(|| Array::from_f32(a.shape(), &sum).ok())?
    } else {
        let sum: Vec<f64> = f64s(&a.bytes()).zip(f64s(&b.bytes())).map(|(a, b)| a + b).collect();
        sum.iter().all(|x| x.is_finite()).then(|| Array::from_f64(a.shape(), &sum).ok())?
    }
}

impl ArraySpec {
    fn array(&self) -> Result<Array, &'static str> {
        let elements = self.shape.iter().try_fold(1_usize, |all, n| all.checked_mul(*n));
        let elements = elements.filter(|n| *n <= MAX_ELEMENTS).ok_or("the shape is too large")?;
        if !self.fill.is_finite() || (self.dtype == FloatType::Float32 && !(self.fill as f32).is_finite()) {
            return Err("`fill` must be a finite number of its dtype");
        }
        let array = match self.dtype {
            FloatType::Float32 => Array::from_f32(&self.shape, &vec![self.fill as f32; elements]),
            FloatType::Float64 => Array::from_f64(&self.shape, &vec![self.fill; elements]),
        };
        Ok(array.expect("as many elements as the shape calls for"))
    }
}
