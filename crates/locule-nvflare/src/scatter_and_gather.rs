//! The older workflow of federated averaging, whose parts are components of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use locule_component::{
    BoxFuture, BuildCx, BuildError, Built, Component, Event, Kind, OutgoingTask, Progress, TaskBoard,
    Workflow, WorkflowError,
};
use locule_fobs::{DataKind, Dxo, Map, Shareable};
use regex::Regex;
use serde::Deserialize;

use crate::metrics_writer::Weighing;
use crate::round::Rules;
use crate::rounds::{Attendants, Settled, models};
use crate::{check_weights, wrong};

/// Averages what the sites train, round after round, with parts that the job names by id: what keeps the model, what
/// folds results ([`InTimeAccumulateWeightedAggregator`]) and what makes a model of them
/// ([`FullModelShareableGenerator`]).
///
/// It differs from [`FedAvg`](crate::FedAvg) in that sites may be late: once
/// [`ScatterAndGatherArgs::min_clients`] have answered, the others have
/// [`ScatterAndGatherArgs::wait_time_after_min_received`]. Models lie where FedAvg keeps them.
///
/// # What differs
/// As for FedAvg; and where fewer than `min_clients` sites answer within `train_timeout`, the job fails, while nvflare
/// goes on with what is there. An answer that is known to be unusable does not begin the wait for the others, as it does
/// in nvflare.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.workflows.scatter_and_gather`.
#[derive(Debug)]
pub struct ScatterAndGather {
    args: ScatterAndGatherArgs,
    aggregator: Arc<InTimeAccumulateWeightedAggregator>,
    attendants: Attendants,
    /// Loaded before the workflow starts.
    model: Option<Map>,
}

/// Arguments of [`ScatterAndGather`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScatterAndGatherArgs {
    /// Answers after which the other sites are waited for no longer than
    /// [`ScatterAndGatherArgs::wait_time_after_min_received`]. With more than there are sites, all are waited for. As in
    /// nvflare it is answers that count: where some of them are not usable, the round goes on with those that are.
    pub min_clients: usize,
    /// How many rounds to run.
    pub num_rounds: u64,
    /// Number of the first round.
    pub start_round: u64,
    /// Seconds.
    pub wait_time_after_min_received: u64,
    /// Id of the component that folds results.
    pub aggregator_id: String,
    /// Id of the component that keeps the model; may be empty.
    pub persistor_id: String,
    /// Id of the component that makes a model of results.
    pub shareable_generator_id: String,
    /// What the sites are asked to do.
    pub train_task_name: String,
    /// Seconds that a round may take, 0 for any. A result that is on its way then is waited for.
    pub train_timeout: u64,
    /// Whether the answers of sites that failed are passed over; null as long as `min_clients` are left.
    pub ignore_result_error: Option<bool>,
    /// Has no effect: a persistor always has a model.
    pub allow_empty_global_weights: bool,
    /// Has no effect, since results are waited for.
    pub task_check_period: f64,
    /// The persistor saves the model of every so many rounds, and the last one; with 0 only the last.
    pub persist_every_n_rounds: u64,
    /// Has no effect: models are kept, and nothing else is worth it.
    pub snapshot_every_n_rounds: u64,
    /// Has no effect: there is no garbage to collect.
    pub memory_gc_rounds: u64,
    /// Has no effect: a result is folded as it is.
    pub enable_tensor_disk_offload: bool,
}

impl Default for ScatterAndGatherArgs {
    fn default() -> ScatterAndGatherArgs {
        ScatterAndGatherArgs {
            min_clients: 1000,
            num_rounds: 5,
            start_round: 0,
            wait_time_after_min_received: 10,
            aggregator_id: "aggregator".to_owned(),
            persistor_id: String::new(),
            shareable_generator_id: "shareable_generator".to_owned(),
            train_task_name: "train".to_owned(),
            train_timeout: 0,
            ignore_result_error: None,
            allow_empty_global_weights: false,
            task_check_period: 0.5,
            persist_every_n_rounds: 1,
            snapshot_every_n_rounds: 1,
            memory_gc_rounds: 1,
            enable_tensor_disk_offload: false,
        }
    }
}

impl Component for ScatterAndGather {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "nvflare.app_common.workflows.scatter_and_gather.ScatterAndGather";
    type Args = ScatterAndGatherArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: ScatterAndGatherArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        if args.min_clients == 0 {
            return Err(wrong("min_clients", "expected a number above 0"));
        }
        if args.start_round.checked_add(args.num_rounds).is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(wrong("start_round", "the rounds cannot be counted"));
        }
        if args.train_task_name.is_empty() {
            return Err(wrong("train_task_name", "a task needs a name"));
        }
        let aggregator = cx.service::<InTimeAccumulateWeightedAggregator>(&args.aggregator_id);
        let aggregator = aggregator.ok_or_else(|| {
            let name = InTimeAccumulateWeightedAggregator::NAME;
            wrong("aggregator_id", format!("no component of this id is a `{name}`"))
        })?;
        if cx.service::<FullModelShareableGenerator>(&args.shareable_generator_id).is_none() {
            let name = FullModelShareableGenerator::NAME;
            return Err(wrong("shareable_generator_id", format!("no component of this id is a `{name}`")));
        }
        let attendants = Attendants::find(cx, &args.persistor_id);
        if attendants.persistor.is_none() && !args.persistor_id.is_empty() {
            return Err(wrong("persistor_id", "no component of this id keeps models"));
        }
        Ok(Built::Workflow(Box::new(ScatterAndGather { args, aggregator, attendants, model: None })))
    }
}

impl ScatterAndGather {
    async fn rounds(&mut self, board: &dyn TaskBoard) -> Result<(), WorkflowError> {
        if board.sites().is_empty() {
            return Err(WorkflowError::TooFewSites { present: 0, needed: 1 });
        }
        let initial = self.model.take();
        let kept = self.attendants.restore(board, |state| state.map("model").cloned()).await?;
        let (next, mut model) = match kept {
            Some(kept) => kept,
            None => {
                let model = initial.map_or_else(|| self.initial_model(board), Ok)?;
                let next = Some(self.args.start_round);
                self.attendants.checkpoint(board, next, Map::from_iter([("model", model.clone())])).await?;
                (next, model)
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
            let sites = board.sites().len();
            let (task, rules) = (self.task(round, &model, sites), self.rules(sites));
            let settled = self.attendants.round(board, task, rules, Weighing::AsReported, None, model);
            let Settled { model: next, sites, saved, .. } = settled.await?;
            model = next;
            let every = self.args.persist_every_n_rounds;
            let is_due = round + 1 == end || (every > 0 && (round + 1) % every == 0);
            if let Some(persistor) = self.attendants.persistor.as_ref().filter(|_| is_due) {
                persistor.save(board.run_dir(), &model)?;
            }
            board.announce(Event::AfterSaveModel).await;
            board.announce(Event::RoundDone { round }).await;
            board.report(Progress::RoundFinished { round, rounds: end, sites, model: saved });
            let state = Map::from_iter([("model", model.clone())]);
            self.attendants.checkpoint(board, Some(round + 1), state).await?;
        }
        board.report(Progress::ModelSaved { path: models(board.run_dir())?.join("global.npz") });
        self.attendants.finish(board);
        Ok(())
    }

    fn initial_model(&self, board: &dyn TaskBoard) -> Result<Map, WorkflowError> {
        let persistor = self.attendants.persistor.as_ref();
        persistor.map_or_else(|| Ok(Map::new()), |persistor| persistor.load(board.run_dir()))
    }

    fn task(&self, round: u64, model: &Map, sites: usize) -> OutgoingTask {
        let mut data = Shareable::with_dxo(Dxo::new(DataKind::Weights, model.clone()));
        data.set_header("current_round", round);
        data.set_header("num_rounds", self.args.num_rounds);
        let wait = Duration::from_secs(self.args.wait_time_after_min_received);
        let (min_results, grace) =
            if self.args.min_clients < sites { (self.args.min_clients, wait) } else { (1, Duration::MAX) };
        let name = self.args.train_task_name.clone();
        let limit = Some(self.args.train_timeout).filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let round = Some(round);
        OutgoingTask { name, data, min_results, grace, round, limit, ..OutgoingTask::default() }
    }

    fn rules(&self, sites: usize) -> Rules<'_> {
        let bearable = match self.args.ignore_result_error {
            Some(true) => usize::MAX,
            Some(false) => 0,
            None => sites.saturating_sub(self.args.min_clients),
        };
        Rules { bearable, ..self.aggregator.rules() }
    }
}

impl Workflow for ScatterAndGather {
    fn prepare<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(async {
            self.model = Some(self.initial_model(board)?);
            board.announce(Event::InitialModelLoaded).await;
            Ok(())
        })
    }

    fn run<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(self.rounds(board))
    }
}

/// Says how [`ScatterAndGather`] folds results.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.aggregators.intime_accumulate_model_aggregator`. Collections of several DXOs, with
/// arguments that are objects by their names, and sums without weights (`weigh_by_local_iter: false`) do not exist here.
#[derive(Debug)]
pub struct InTimeAccumulateWeightedAggregator {
    exclude: Option<Regex>,
    weights: BTreeMap<String, f64>,
    expected: DataKind,
}

/// Arguments of [`InTimeAccumulateWeightedAggregator`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InTimeAccumulateWeightedAggregatorArgs {
    /// A regular expression; arrays in whose name it is found are left out of the mean.
    pub exclude_vars: Option<String>,
    /// A factor for the weight of a site's results; 1 for sites that are not named.
    pub aggregation_weights: Option<BTreeMap<String, f64>>,
    /// `WEIGHT_DIFF` or `WEIGHTS`; results of another kind are passed over.
    pub expected_data_kind: String,
    /// Whether results are multiplied by their weights; must be true.
    pub weigh_by_local_iter: bool,
}

impl Default for InTimeAccumulateWeightedAggregatorArgs {
    fn default() -> InTimeAccumulateWeightedAggregatorArgs {
        InTimeAccumulateWeightedAggregatorArgs {
            exclude_vars: None,
            aggregation_weights: None,
            expected_data_kind: "WEIGHT_DIFF".to_owned(),
            weigh_by_local_iter: true,
        }
    }
}

impl Component for InTimeAccumulateWeightedAggregator {
    const KIND: Kind = Kind::Service;
    const NAME: &'static str = "nvflare.app_common.aggregators.intime_accumulate_model_aggregator.InTimeAccumulateWeightedAggregator";
    type Args = InTimeAccumulateWeightedAggregatorArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: InTimeAccumulateWeightedAggregatorArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        let expected = match DataKind::parse(&args.expected_data_kind) {
            Some(kind @ (DataKind::Weights | DataKind::WeightDiff)) => kind,
            Some(_) | None => return Err(wrong("expected_data_kind", "expected `WEIGHT_DIFF` or `WEIGHTS`")),
        };
        if !args.weigh_by_local_iter {
            return Err(wrong("weigh_by_local_iter", "sums without weights do not exist here"));
        }
        let weights = args.aggregation_weights.unwrap_or_default();
        check_weights(&weights)?;
        let exclude = args.exclude_vars.as_deref().filter(|text| !text.is_empty()).map(Regex::new);
        let exclude = exclude.transpose().map_err(|error| wrong("exclude_vars", error.to_string()))?;
        Ok(Built::Service(Arc::new(InTimeAccumulateWeightedAggregator { exclude, weights, expected })))
    }
}

impl InTimeAccumulateWeightedAggregator {
    fn rules(&self) -> Rules<'_> {
        Rules {
            weights: Some(&self.weights),
            exclude: self.exclude.as_ref(),
            expected: Some(self.expected),
            bearable: 0,
        }
    }
}

/// Makes a model of folded results: the mean of weights replaces it, the mean of differences is added to it. There is
/// nothing to configure; [`ScatterAndGather`] wants to see it named.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.shareablegenerators.full_model_shareable_generator`.
#[derive(Debug)]
pub struct FullModelShareableGenerator;

/// Arguments of [`FullModelShareableGenerator`]: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FullModelShareableGeneratorArgs {}

impl Component for FullModelShareableGenerator {
    const KIND: Kind = Kind::Service;
    const NAME: &'static str =
        "nvflare.app_common.shareablegenerators.full_model_shareable_generator.FullModelShareableGenerator";
    type Args = FullModelShareableGeneratorArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(_: Self::Args, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Service(Arc::new(FullModelShareableGenerator)))
    }
}
