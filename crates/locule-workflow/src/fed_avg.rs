//! Federated averaging.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use locule_component::{
    BoxFuture, BuildCx, BuildError, Built, Child, Component, Event, Fault, Kind, Late, OutgoingTask,
    Progress, TaskBoard, Unusable, Workflow, WorkflowError,
};
use locule_fobs::{Array, DataKind, Dtype, Dxo, Map, Shareable, Value};
use serde::Deserialize;

use crate::gather::{Attendance, TakeResult, dxo_of, gather};
use crate::mean::{Shown, WeightedMean, f32s, f64s};
use crate::npz::{SaveError, save_npz};
use crate::optimizer::{Optimizer, optimizer_of};
use crate::record::{Metrics, Record, RoundRecord};
use crate::robust::{Rule, UpdateSpool, rule_of};
use crate::watch::{Best, BestModelArgs, EarlyStop, EarlyStopArgs};

/// More elements than this in one array of a configured model are refused as a slip of the pen.
const MAX_ELEMENTS: usize = 1 << 30;

/// Metrics of one result that are passed on; a site may send more, but nobody reads them.
const MAX_METRICS: usize = 64;

/// Averages what the sites train, round after round (McMahan et al., 2017).
///
/// Every round sends the global model as a DXO of kind `WEIGHTS` with the task [`FedAvgArgs::task_name`], and
/// replaces it by the mean of the returned `WEIGHTS`, or adds the mean of the returned `WEIGHT_DIFF`.
/// Contributions are weighted by their meta `NUM_STEPS_CURRENT_ROUND` (1 where there is none), times
/// the site's [`FedAvgArgs::aggregation_weights`]; see [`WeightedMean`] for the arithmetic. Another [`Rule`] may
/// stand in for the mean, and an [`Optimizer`] may take the step.
///
/// # Who counts
/// A round is over when every site has answered, or left; or, with [`FedAvgArgs::min_clients`], when so many have and
/// [`FedAvgArgs::grace_seconds`] have passed since. A result that is on its way then is waited for. A result that is not usable
/// counts as missing and leaves no trace: one of another round, with other names, shapes or dtypes than the model,
/// or with numbers that are not finite. The round goes on while enough others are usable.
/// What comes after its round is dropped, or, with [`FedAvgArgs::late`], folded into the round that then stands.
///
/// # What is kept
/// After round `n`, counted from 1, the model lies in `models/round-<n>.npz` (four digits at least) and in
/// `models/global.npz` of the run's folder; with [`FedAvgArgs::best`] the best one in `models/best.npz`. Who
/// took part in which round, who did not and why, and all metrics are in `rounds.json` and `metrics.csv`.
///
/// # Memory
/// The model, the sums of the round and the result at hand: three models, and a fourth while one takes the place of
/// another. Other rules than the mean keep a file instead of sums.
///
/// Jobs written for nvflare's own FedAvg, with its arguments, are run by the component of that name in
/// `locule-nvflare`.
///
/// ```
/// use locule_workflow::{FedAvg, FedAvgArgs, Optimizer, Rule};
///
/// let args: FedAvgArgs = serde_json::from_value(serde_json::json!({
///     "num_rounds": 100, "min_clients": 7, "grace_seconds": 60, "late": "fold",
///     "model": { "w": { "shape": [30], "dtype": "float32" } },
///     "best": { "metric": "val_accuracy" },
///     "stop": { "metric": "val_loss", "mode": "min", "patience": 5 }
/// }))?;
/// let krum = Rule::Krum { byzantine: 2, select: 3 };
/// let workflow = FedAvg::new(args)?.with_rule(krum).with_optimizer(Optimizer::momentum(1.0, 0.9));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FedAvg {
    args: FedAvgArgs,
    model: Map,
    rule: Rule,
    optimizer: Option<Optimizer>,
    /// The server's control variates, with SCAFFOLD.
    controls: Option<Map>,
    best: Option<Best>,
    stop: Option<EarlyStop>,
    record: Record,
    after_round: Option<AfterRound>,
}

/// Called after every round, with how many are done, the new model and the folder of the run.
pub struct AfterRound(Box<Call>);

type Call = dyn FnMut(u64, &Map, &Path) -> Result<(), WorkflowError> + Send;

impl AfterRound {
    /// That calls this.
    pub fn new(
        call: impl FnMut(u64, &Map, &Path) -> Result<(), WorkflowError> + Send + 'static,
    ) -> AfterRound {
        AfterRound(Box::new(call))
    }

    pub(crate) fn call(&mut self, done: u64, model: &Map, run_dir: &Path) -> Result<(), WorkflowError> {
        (self.0)(done, model, run_dir)
    }
}

impl std::fmt::Debug for AfterRound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AfterRound")
    }
}

/// Arguments of [`FedAvg`].
#[derive(Debug, PartialEq, Deserialize, schemars::JsonSchema)]
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
    /// What becomes of a result that comes after its round. With `fold` it counts in full in the round that then
    /// stands, after the results of that round.
    #[serde(default)]
    pub late: Late,
    /// FedProx's coefficient (Li et al., 2020), which sites find as meta `fedprox_mu` of the model. What they do with it
    /// is for their trainers.
    #[serde(default)]
    pub fedprox_mu: Option<f64>,
    /// What makes one update of the results, in place of the weighted mean: `locule.workflow.Median`, `TrimmedMean`
    /// or `Krum`.
    #[serde(default)]
    pub rule: Option<Child>,
    /// What takes the step from model to model: `locule.workflow.FedAvgM`, `FedAdam`, `FedYogi` or `FedAdagrad`.
    #[serde(default)]
    pub optimizer: Option<Child>,
    /// The metric by which the best model is kept: the weighted mean of what the sites report of the model that a
    /// round begins with.
    #[serde(default)]
    pub best: Option<BestModelArgs>,
    /// When to stop before [`FedAvgArgs::num_rounds`].
    #[serde(default)]
    pub stop: Option<EarlyStopArgs>,
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

    fn build(args: FedAvgArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        let mut workflow = FedAvg::new(args)?;
        if let Some(child) = &workflow.args.rule {
            workflow.rule = rule_of(child, cx)?;
        }
        if let Some(child) = &workflow.args.optimizer {
            workflow.optimizer = Some(optimizer_of(child, cx)?);
        }
        Ok(Built::Workflow(Box::new(workflow)))
    }
}

impl FedAvg {
    /// With the model that the arguments describe.
    ///
    /// # Errors
    /// [`BuildError::Argument`] names the argument that makes no sense.
    pub fn new(args: FedAvgArgs) -> Result<FedAvg, BuildError> {
        check_rounds(args.num_rounds, args.start_round)?;
        if args.task_name.is_empty() {
            return Err(wrong("task_name", "a task needs a name"));
        }
        if Duration::try_from_secs_f64(args.grace_seconds).is_err() {
            return Err(wrong("grace_seconds", "expected a number of seconds, 0 or more"));
        }
        if let Some((site, _)) = args.aggregation_weights.iter().find(|(_, w)| !(w.is_finite() && **w > 0.0))
        {
            return Err(wrong(&format!("aggregation_weights.{site}"), "expected a finite number above 0"));
        }
        if args.fedprox_mu.is_some_and(|mu| !(mu.is_finite() && mu >= 0.0)) {
            return Err(wrong("fedprox_mu", "expected a finite number, 0 or more"));
        }
        let model = initial(&args.model)?;
        let best = args.best.as_ref().map(|best| Best::new(best.mode));
        let stop = args.stop.clone().map(EarlyStop::new).transpose()?;
        let (rule, record) = (Rule::Mean, Record::default());
        let (optimizer, controls, after_round) = (None, None, None);
        Ok(FedAvg { args, model, rule, optimizer, controls, best, stop, record, after_round })
    }

    /// Begins with this model instead of the one that the arguments describe.
    ///
    /// With control variates, these are 0 for it.
    pub fn starting_from(mut self, model: Map) -> FedAvg {
        if self.controls.is_some() {
            self.controls = combine(&model, &model, |_, _| 0.0).ok();
        }
        self.model = model;
        self
    }

    /// Calls this with every new model, before the round is said to be over.
    pub fn after_round(mut self, call: AfterRound) -> FedAvg {
        self.after_round = Some(call);
        self
    }

    /// Makes one update of the results by this rule.
    pub fn with_rule(mut self, rule: Rule) -> FedAvg {
        self.rule = rule;
        self
    }

    /// Goes from model to model by this optimiser's steps.
    pub fn with_optimizer(mut self, optimizer: Optimizer) -> FedAvg {
        self.optimizer = Some(optimizer);
        self
    }

    /// Corrects the drift of sites by control variates; see [`Scaffold`](crate::Scaffold). There must be a model.
    pub(crate) fn with_controls(mut self) -> Result<FedAvg, String> {
        self.controls = Some(combine(&self.model, &self.model, |_, _| 0.0)?);
        Ok(self)
    }

    async fn rounds(&mut self, board: &dyn TaskBoard) -> Result<(), WorkflowError> {
        let present = board.sites().len();
        if present < self.args.min_clients.max(1) {
            return Err(WorkflowError::TooFewSites { present, needed: self.args.min_clients.max(1) });
        }
        let folder = board.run_dir().join("models");
        fs::create_dir_all(&folder).map_err(|source| WorkflowError::File { path: folder.clone(), source })?;

        let next = match board.restore().await? {
            Some(state) => self.take_up(&state).ok_or_else(not_a_state)?,
            None => {
                board.checkpoint(self.state(Some(self.args.start_round))).await?;
                Some(self.args.start_round)
            }
        };
        board.announce(Event::TrainingStarted).await;
        let end = self.args.start_round + self.args.num_rounds;
        for round in next.unwrap_or(end)..end {
            if board.is_aborted() {
                return Err(WorkflowError::Aborted);
            }
            board.report(Progress::RoundStarted { round, rounds: end });
            board.announce(Event::RoundStarted { round }).await;
            let Done { sites, stopped } = self.round(board, &folder, round).await?;
            board.announce(Event::BeforeSaveModel).await;
            let model = self.save(&folder, round)?;
            if let Some(after_round) = &mut self.after_round {
                after_round.call(round + 1 - self.args.start_round, &self.model, board.run_dir())?;
            }
            board.announce(Event::AfterSaveModel).await;
            board.report(Progress::RoundFinished { round, rounds: end, sites, model });
            board.announce(Event::RoundDone { round }).await;
            let next = stopped.is_none().then_some(round + 1);
            board.checkpoint(self.state(next)).await?;
            if let Some(reason) = stopped {
                tracing::info!(job = board.job_id(), round, reason, "stopping early");
                break;
            }
        }
        board.report(Progress::ModelSaved { path: folder.join("global.npz") });
        Ok(())
    }

    /// All from which the run can go on with this round; none where it has stopped early.
    fn state(&self, next: Option<u64>) -> Map {
        let mut state = Map::new();
        if let Some(next) = next {
            state.insert("next", next);
        }
        state.insert("model", self.model.clone());
        if let Some(controls) = &self.controls {
            state.insert("controls", controls.clone());
        }
        if let Some(optimizer) = &self.optimizer {
            state.insert("optimizer", optimizer.state());
        }
        if let Some(best) = self.best.as_ref().and_then(Best::value) {
            state.insert("best", best);
        }
        if let Some(stop) = &self.stop {
            state.insert("stop", stop.state());
        }
        state.insert("record", self.record.state());
        state
    }

    /// Goes on from such a state, with the round that it names; `None` where it is none.
    fn take_up(&mut self, state: &Map) -> Option<Option<u64>> {
        self.model = state.map("model")?.clone();
        if let Some(controls) = &mut self.controls {
            *controls = state.map("controls")?.clone();
        }
        if let Some(optimizer) = &mut self.optimizer {
            optimizer.restore(state.map("optimizer")?)?;
        }
        if let Some(best) = &mut self.best {
            best.restore(state.float("best"));
        }
        if let Some(stop) = &mut self.stop {
            stop.restore(state.map("stop")?)?;
        }
        self.record.restore(state.map("record")?)?;
        state.int("next").map_or(Some(None), |next| u64::try_from(next).ok().map(Some))
    }

    /// Trains once everywhere and replaces the model.
    async fn round(
        &mut self,
        board: &dyn TaskBoard,
        folder: &Path,
        round: u64,
    ) -> Result<Done, WorkflowError> {
        let mut update = RoundUpdate::new(self, board.run_dir(), round)?;
        let task = OutgoingTask {
            name: self.args.task_name.clone(),
            data: self.task_data(round),
            sites: Vec::new(),
            min_results: self.args.min_clients,
            grace: Duration::from_secs_f64(self.args.grace_seconds),
            round: Some(round),
            late: self.args.late,
            limit: None,
        };
        let attendance = gather(board, task, &mut update).await?;

        let RoundUpdate { fold, kind, sites, controls, .. } = update;
        let failed = |reason: String| WorkflowError::Failed(format!("round {round}: {reason}"));
        let stopped = self.judge(board, folder, round, &attendance, &sites).await?;
        board.announce(Event::BeforeAggregation).await;
        let update = fold.finish(self.rule).map_err(failed)?;
        board.announce(Event::AfterAggregation).await;
        board.announce(Event::BeforeModelUpdate).await;
        let is_difference = kind == Some(DataKind::WeightDiff);
        self.model = self.next(update, is_difference).map_err(failed)?;
        if let (Some(ours), Some(mean)) = (&self.controls, controls) {
            let difference = mean.finish().map_err(|error| failed(error.to_string()))?;
            self.controls = Some(combine(ours, &difference, |a, b| a + b).map_err(failed)?);
        }
        board.announce(Event::AfterModelUpdate).await;
        let sites = sites.into_iter().map(|(site, _, metrics)| (site, metrics)).collect();
        Ok(Done { sites, stopped })
    }

    /// Keeps the model that the sites judged if it is the best so far, and writes the record; why to stop, if so.
    async fn judge(
        &mut self,
        board: &dyn TaskBoard,
        folder: &Path,
        round: u64,
        attendance: &Attendance,
        sites: &[(String, f64, Metrics)],
    ) -> Result<Option<String>, WorkflowError> {
        let means = means(sites);
        let mean_of = |metric: &str| means.iter().find(|(name, _)| name == metric).map(|(_, mean)| *mean);
        let value = self.args.best.as_ref().and_then(|best| mean_of(&best.metric));
        let best = match (&mut self.best, value) {
            (Some(best), Some(value)) if !self.model.is_empty() => Some(best.take(value)),
            (Some(_), _) => Some(false),
            (None, _) => None,
        };
        if best == Some(true) {
            save_npz(&folder.join("best.npz"), &self.model).map_err(SaveError::into_workflow_error)?;
            let metric = self.best.as_ref().and_then(Best::value);
            tracing::info!(job = board.job_id(), round, metric, "best model so far");
            board.announce(Event::GlobalBestModelAvailable).await;
        }
        let stopped = self.stop.as_mut().and_then(|stop| stop.take(mean_of(stop.metric())));
        let record =
            RoundRecord { round, attendance, sites, means: &means, best, stopped: stopped.as_deref() };
        self.record.add(board.run_dir(), &record)?;
        Ok(stopped)
    }

    fn next(&mut self, update: Map, is_difference: bool) -> Result<Map, String> {
        match &mut self.optimizer {
            Some(optimizer) if !self.model.is_empty() => {
                let change =
                    if is_difference { update } else { combine(&update, &self.model, |a, b| a - b)? };
                optimizer.step(&self.model, &change)
            }
            Some(_) | None if is_difference => combine(&self.model, &update, |a, b| a + b),
            Some(_) | None => Ok(update),
        }
    }

    /// What a site gets: the model, and which of how many rounds this is.
    fn task_data(&self, round: u64) -> Shareable {
        let mut model = Dxo::new(DataKind::Weights, self.model.clone());
        if let Some(mu) = self.args.fedprox_mu.filter(|mu| *mu > 0.0) {
            model.meta.insert("fedprox_mu", mu);
        }
        if let Some(controls) = &self.controls {
            model.meta.insert(CONTROLS, controls.clone());
        }
        let mut data = Shareable::with_dxo(model);
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
        if let Some(controls) = &self.controls {
            save_npz(&folder.join("controls.npz"), controls).map_err(SaveError::into_workflow_error)?;
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

/// What was kept is not what this workflow keeps.
pub(crate) fn not_a_state() -> WorkflowError {
    WorkflowError::Failed("the state that was kept of the run is not one of this workflow".to_owned())
}

/// An argument that parses and makes no sense.
pub(crate) fn wrong(argument: &str, reason: impl Into<String>) -> BuildError {
    BuildError::Argument { argument: argument.to_owned(), reason: reason.into() }
}

/// There must be rounds, and numbers for them.
pub(crate) fn check_rounds(num_rounds: u64, start_round: u64) -> Result<(), BuildError> {
    if num_rounds == 0 {
        return Err(wrong("num_rounds", "at least one round must run"));
    }
    if start_round.checked_add(num_rounds).is_none_or(|end| i64::try_from(end).is_err()) {
        return Err(wrong("start_round", "the rounds cannot be counted"));
    }
    Ok(())
}

/// The model that arguments describe.
pub(crate) fn initial(specs: &BTreeMap<String, ArraySpec>) -> Result<Map, BuildError> {
    let arrays = specs.iter().map(|(name, spec)| {
        let array = spec.array().map_err(|reason| wrong(&format!("model.{name}"), reason))?;
        Ok((name.as_str(), array))
    });
    arrays.collect()
}

/// A round that is over.
struct Done {
    /// For every accepted site its metrics, by name.
    sites: Vec<(String, Metrics)>,
    /// Why to stop now.
    stopped: Option<String>,
}

pub(crate) const CURRENT_ROUND: &str = "current_round";

/// Where nvflare's SCAFFOLD has the server's control variates in the meta of the model.
const CONTROLS: &str = "scaffold_c_global";

/// Where it has a site's change of its control variates in the meta of the result.
const CONTROL_CHANGE: &str = "scaffold_c_diff";

/// One round's results, folded as they come.
struct RoundUpdate<'a> {
    args: &'a FedAvgArgs,
    round: u64,
    has_model: bool,
    fold: Fold,
    /// Of the changes of the sites' control variates, with SCAFFOLD.
    controls: Option<WeightedMean>,
    /// Whether the sites return weights or differences; the first usable result decides for the round.
    kind: Option<DataKind>,
    /// With their weights and metrics.
    sites: Vec<(String, f64, Metrics)>,
}

enum Fold {
    Mean(WeightedMean),
    Spool(UpdateSpool),
}

impl Fold {
    fn add(&mut self, update: &Map, weight: f64) -> Result<(), Unusable> {
        match self {
            Fold::Mean(mean) => Ok(mean.add(update, weight)?),
            Fold::Spool(spool) => spool.add(update),
        }
    }

    fn finish(self, rule: Rule) -> Result<Map, String> {
        match self {
            Fold::Mean(mean) => mean.finish().map_err(|error| error.to_string()),
            Fold::Spool(spool) => spool.finish(rule),
        }
    }
}

impl<'a> RoundUpdate<'a> {
    fn new(workflow: &'a FedAvg, run_dir: &Path, round: u64) -> Result<RoundUpdate<'a>, WorkflowError> {
        let has_model = !workflow.model.is_empty();
        let mean = if has_model { WeightedMean::like(&workflow.model) } else { Ok(WeightedMean::new()) };
        let mean =
            mean.map_err(|error| WorkflowError::Failed(format!("the model cannot be averaged: {error}")))?;
        let fold = if workflow.rule == Rule::Mean {
            Fold::Mean(mean)
        } else {
            let path = run_dir.join("updates.tmp");
            let spool = UpdateSpool::create(&path);
            Fold::Spool(spool.map_err(|source| WorkflowError::File { path, source })?.like(mean))
        };
        let controls = workflow.controls.as_ref().map(WeightedMean::like).transpose();
        let controls = controls.map_err(|error| WorkflowError::Failed(error.to_string()))?;
        let (args, kind, sites) = (&workflow.args, None, Vec::new());
        Ok(RoundUpdate { args, round, has_model, fold, controls, kind, sites })
    }

    fn fold(&mut self, site: &str, result: &Shareable, is_late: bool) -> Result<(), Unusable> {
        let dxo = dxo_of(result)?;
        if !matches!(dxo.kind, DataKind::Weights | DataKind::WeightDiff) {
            return Err(format!("expected weights, found a DXO of kind {}", dxo.kind).into());
        }
        if let Some(kind) = self.kind.filter(|kind| *kind != dxo.kind) {
            let reason =
                format!("it is of kind {}, but an earlier site of the round returned {kind}", dxo.kind);
            return Err(reason.into());
        }
        if dxo.kind == DataKind::WeightDiff && !self.has_model {
            return Err("it is a difference, and there is no model yet to add it to".to_owned().into());
        }
        if let Some(round) = result.headers.int(CURRENT_ROUND)
            && !(is_late && (0..self.round as i64).contains(&round))
            && u64::try_from(round) != Ok(self.round)
        {
            let reason = format!("it belongs to round {round}, not {}", self.round);
            return Err(Unusable::new(Fault::Round, reason));
        }
        let factor = self.args.aggregation_weights.get(site).copied().unwrap_or(1.0);
        let weight = factor * steps(&dxo)?;
        let change = dxo.meta.map(CONTROL_CHANGE);
        if let Some(controls) = &mut self.controls {
            let change = change.ok_or_else(|| {
                let reason = format!("its meta has no `{CONTROL_CHANGE}`");
                Unusable::new(Fault::Missing, reason)
            })?;
            controls.check(change, weight)?;
        }
        self.fold.add(&dxo.data, weight)?;
        if let (Some(controls), Some(change)) = (&mut self.controls, change) {
            controls.add(change, weight)?;
        }
        self.kind = Some(dxo.kind);
        self.sites.push((site.to_owned(), weight, if is_late { Vec::new() } else { metrics(&dxo) }));
        Ok(())
    }
}

impl TakeResult for RoundUpdate<'_> {
    fn take(&mut self, site: &str, result: &Shareable) -> Result<(), Unusable> {
        self.fold(site, result, false)
    }

    fn take_late(&mut self, site: &str, result: &Shareable) -> Result<(), Unusable> {
        self.fold(site, result, true)
    }
}

/// How many steps a result was trained for; 1 where it does not say.
pub(crate) fn steps(dxo: &Dxo) -> Result<f64, Unusable> {
    match dxo.meta.get("NUM_STEPS_CURRENT_ROUND") {
        None | Some(Value::None) => Ok(1.0),
        Some(value) => value.as_f64().ok_or_else(|| {
            let reason = format!("NUM_STEPS_CURRENT_ROUND is of type {}, not a number", value.kind());
            Unusable::new(Fault::Weight, reason)
        }),
    }
}

/// Weighted means of the sites' metrics, each over those who report it, in the order in which they first come.
pub(crate) fn means(sites: &[(String, f64, Metrics)]) -> Metrics {
    let mut sums: Vec<(&str, f64, f64)> = Vec::new();
    for (_, weight, metrics) in sites {
        for (name, value) in metrics {
            match sums.iter_mut().find(|(known, ..)| known == name) {
                Some((_, sum, all)) => (*sum, *all) = (*sum + weight * value, *all + weight),
                None => sums.push((name, weight * value, *weight)),
            }
        }
    }
    let means = sums.into_iter().map(|(name, sum, weight)| (name.to_owned(), sum / weight));
    means.filter(|(_, mean)| mean.is_finite()).collect()
}

/// The finite numbers among the metrics of a result.
pub(crate) fn metrics(dxo: &Dxo) -> Metrics {
    let Some(metrics) = dxo.meta.map("initial_metrics") else { return Vec::new() };
    let numbers = metrics.iter_str().filter_map(|(name, value)| Some((name, value.as_f64()?)));
    numbers.filter(|(_, x)| x.is_finite()).take(MAX_METRICS).map(|(name, x)| (name.to_owned(), x)).collect()
}

/// Combines arrays of the same names, shapes and dtypes, element by element in their dtype.
pub(crate) fn combine(a: &Map, b: &Map, f: impl Fn(f64, f64) -> f64 + Copy) -> Result<Map, String> {
    let mut all = Map::new();
    for (name, value) in a.iter_str() {
        let (Some(a), Some(b)) = (value.as_array(), b.get(name).and_then(Value::as_array)) else {
            return Err(format!("{} is missing from the update", Shown(name)));
        };
        let one = elementwise(a, b, f);
        all.insert(name, one.ok_or_else(|| format!("{} leaves the range of its dtype", Shown(name)))?);
    }
    Ok(all)
}

/// `None` when dtypes or shapes differ or an element is not finite. A sum or difference of float32 in float64, rounded,
/// is that of float32.
fn elementwise(a: &Array, b: &Array, f: impl Fn(f64, f64) -> f64) -> Option<Array> {
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        return None;
    }
    if a.dtype() == Dtype::F32 {
        let pairs = f32s(&a.bytes())
            .zip(f32s(&b.bytes()))
            .map(|(a, b)| f(a.into(), b.into()) as f32)
            .collect::<Vec<_>>();
        pairs.iter().all(|x| x.is_finite()).then(|| Array::from_f32(a.shape(), &pairs).ok())?
    } else {
        let pairs: Vec<f64> = f64s(&a.bytes()).zip(f64s(&b.bytes())).map(|(a, b)| f(a, b)).collect();
        pairs.iter().all(|x| x.is_finite()).then(|| Array::from_f64(a.shape(), &pairs).ok())?
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
