//! Federated averaging with nvflare's arguments.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use locule_component::{
    BoxFuture, BuildCx, BuildError, Built, Child, Component, Event, Kind, OutgoingTask, Progress, TaskBoard,
    Workflow, WorkflowError,
};
use locule_fobs::{Array, DataKind, Dxo, Map, Shareable};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use regex::Regex;
use serde::Deserialize;
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use crate::metrics::Metrics;
use crate::metrics_writer::Weighing;
use crate::round::Rules;
use crate::rounds::{Attendants, Settled, models};
use crate::stop::{EarlyStop, StopCondition};
use crate::{arrays, check_weights, wrong};

/// Averages what the sites train, round after round.
///
/// Each round sends the model as a DXO of kind `WEIGHTS` with the task [`FedAvgArgs::task_name`] and replaces it by
/// the mean of the returned `WEIGHTS`, or adds the mean of the returned `WEIGHT_DIFF`. Results count with their meta
/// `NUM_STEPS_CURRENT_ROUND`, times the site's [`FedAvgArgs::aggregation_weights`]; arrays of integers become
/// float64, and an array that only some sites return is averaged over those. From the second round on the DXO's
/// meta hold `nr_aggregated` and `current_round`, and the means of the sites' metrics as `initial_metrics`.
///
/// The model lies where [`NPModelPersistor`] keeps it, and in `models/global.npz` and `models/round-<n>.npz` (`n`
/// counted from 1, four digits at least) of the run's folder; with an [`IntimeModelSelector`] the best model lies in
/// `models/best.npz`.
///
/// [`NPModelPersistor`]: crate::NPModelPersistor
/// [`IntimeModelSelector`]: crate::IntimeModelSelector
///
/// # What differs
/// - Results are folded in the order of the sites' names; see the [crate's](crate) page.
/// - A result with a number that is not finite, with another kind, or with another dtype or shape than an earlier
///   result of the round, is passed over with a warning; nvflare folds what numpy can make of it.
/// - An error of a site fails the round when all other sites are settled, and not at once.
/// - Without a persistor the model is not written to [`FedAvgArgs::save_filename`], which nvflare would write in a
///   format of its own.
/// - Sites are not told the names and weights of other sites (nvflare's meta `metrics_aggregation_info`).
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.workflows.fedavg`, `base_fedavg` and `base_model_controller`.
#[derive(Debug)]
pub struct FedAvg {
    args: FedAvgArgs,
    model: Option<Map>,
    exclude: Option<Regex>,
    early: Option<EarlyStop>,
    attendants: Attendants,
    seed: Option<[u8; 32]>,
}

/// Arguments of [`FedAvg`].
#[derive(Debug, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FedAvgArgs {
    /// Sites that get a task in each round, chosen at random when there are more; 0 or null means all.
    pub num_clients: Option<usize>,
    /// How many rounds to run.
    pub num_rounds: u64,
    /// Number of the first round.
    pub start_round: u64,
    /// Has no effect: there is no garbage to collect.
    pub memory_gc_rounds: u64,
    /// Id of the component that keeps the model; may be empty.
    pub persistor_id: String,
    /// Whether the answers of sites that failed are passed over. Otherwise they end the job.
    pub ignore_result_error: Option<bool>,
    /// Has no effect: a persistor always has a model.
    pub allow_empty_global_weights: bool,
    /// Seconds between two looks at a task; has no effect, since results are waited for.
    pub task_check_period: f64,
    /// The model to begin with: numbers in nested lists by name, each a float64 array. It comes before the
    /// persistor's.
    pub model: Option<BTreeMap<String, Json>>,
    /// Where nvflare writes the model when there is no persistor.
    pub save_filename: Option<String>,
    /// An aggregator of the job's own. None can be built here.
    pub aggregator: Option<Child>,
    /// `<metric> <comparison> <number>`: a round whose averaged metric fulfils this is the last one.
    pub stop_cond: Option<String>,
    /// Rounds without a better metric after which to stop; counts only with [`FedAvgArgs::stop_cond`].
    pub patience: Option<u64>,
    /// What the sites are asked to do.
    pub task_name: String,
    /// A regular expression; arrays in whose name it is found are left out of the mean.
    pub exclude_vars: Option<String>,
    /// A factor for the weight of a site's results; 1 for sites that are not named.
    pub aggregation_weights: Option<BTreeMap<String, f64>>,
    /// Has no effect: a result is folded array by array as it is.
    pub enable_tensor_disk_offload: bool,
    /// FedProx's coefficient, which the sites get as meta `fedprox_mu`; 0 is the same as none.
    pub fedprox_mu: Option<f64>,
}

impl Default for FedAvgArgs {
    fn default() -> FedAvgArgs {
        FedAvgArgs {
            num_clients: Some(3),
            num_rounds: 5,
            start_round: 0,
            memory_gc_rounds: 0,
            persistor_id: "persistor".to_owned(),
            ignore_result_error: None,
            allow_empty_global_weights: false,
            task_check_period: 0.5,
            model: None,
            save_filename: Some("FL_global_model.pt".to_owned()),
            aggregator: None,
            stop_cond: None,
            patience: None,
            task_name: "train".to_owned(),
            exclude_vars: None,
            aggregation_weights: None,
            enable_tensor_disk_offload: false,
            fedprox_mu: None,
        }
    }
}

impl Component for FedAvg {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "nvflare.app_common.workflows.fedavg.FedAvg";
    type Args = FedAvgArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: FedAvgArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        let mut workflow = FedAvg::new(args)?;
        let id = &workflow.args.persistor_id;
        workflow.attendants = Attendants::find(cx, id);
        workflow.seed = cx.seed();
        if workflow.attendants.persistor.is_none() && !id.is_empty() {
            tracing::warn!(id, "no component of this id keeps models");
        }
        Ok(Built::Workflow(Box::new(workflow)))
    }
}

impl FedAvg {
    /// Without a persistor.
    ///
    /// # Errors
    /// [`BuildError::Argument`] names the argument that makes no sense.
    pub fn new(args: FedAvgArgs) -> Result<FedAvg, BuildError> {
        if args.start_round.checked_add(args.num_rounds).is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(wrong("start_round", "the rounds cannot be counted"));
        }
        if args.task_name.is_empty() {
            return Err(wrong("task_name", "a task needs a name"));
        }
        if args.task_check_period <= 0.0 {
            return Err(wrong("task_check_period", "expected a number above 0"));
        }
        if args.aggregator.is_some() {
            return Err(wrong(
                "aggregator",
                "aggregators of other kinds than the weighted mean do not exist here",
            ));
        }
        args.aggregation_weights.as_ref().map_or(Ok(()), check_weights)?;
        if args.fedprox_mu.is_some_and(|mu| !(mu.is_finite() && mu >= 0.0)) {
            return Err(wrong("fedprox_mu", "expected a finite number, 0 or more"));
        }
        let condition = args.stop_cond.as_deref().filter(|text| !text.is_empty()).map(StopCondition::parse);
        let condition = condition.transpose().map_err(|reason| wrong("stop_cond", reason))?;
        let exclude = args.exclude_vars.as_deref().filter(|text| !text.is_empty()).map(Regex::new);
        let exclude = exclude.transpose().map_err(|error| wrong("exclude_vars", error.to_string()))?;
        Ok(FedAvg {
            model: args.model.as_ref().map(model).transpose()?,
            early: condition.map(|condition| EarlyStop::new(condition, args.patience.unwrap_or(0))),
            exclude,
            args,
            attendants: Attendants::default(),
            seed: None,
        })
    }

    async fn rounds(&mut self, board: &dyn TaskBoard) -> Result<(), WorkflowError> {
        let sites = board.sites().len();
        if sites == 0 {
            return Err(WorkflowError::TooFewSites { present: 0, needed: 1 });
        }
        if self.args.num_clients.is_some_and(|wanted| wanted > sites) {
            tracing::warn!(sites, wanted = self.args.num_clients, "fewer sites than `num_clients` take part");
        }
        let key_metric = self.early.as_ref().and_then(EarlyStop::key_metric);
        board.announce(Event::TrainingStarted).await;
        let (attendants, early) = (&self.attendants, &mut self.early);
        let take_up = |state: &Map| {
            if let Some(early) = early {
                early.restore(state.map("early")?)?;
            }
            Some(Global { model: state.map("model")?.clone(), meta: state.map("meta")?.clone() })
        };
        let (next, mut global) = match attendants.restore(board, take_up).await? {
            Some(kept) => kept,
            None => {
                let global = Global { model: self.initial_model(board.run_dir())?, meta: Map::new() };
                self.checkpoint(board, Some(self.args.start_round), &global).await?;
                (Some(self.args.start_round), global)
            }
        };
        board.announce(Event::InitialModelLoaded).await;
        let end = self.args.start_round + self.args.num_rounds;
        for round in next.unwrap_or(end)..end {
            if board.is_aborted() {
                return Err(WorkflowError::Aborted);
            }
            board.report(Progress::RoundStarted { round, rounds: end });
            board.announce(Event::RoundStarted { round }).await;
            let (task, rules) = (self.task(board, round, &global), self.rules());
            let (weighing, key_metric) = (Weighing::Effective, key_metric.as_ref());
            let settled = self.attendants.round(board, task, rules, weighing, key_metric, global.model);
            let Settled { model, metrics, sites, saved } = settled.await?;
            global = Global { model, meta: meta(round, sites.len(), metrics.as_ref()) };

            let is_better = self.early.as_mut().is_none_or(|early| early.is_better(metrics.as_ref()));
            if let Some(persistor) = self.attendants.persistor.as_ref().filter(|_| is_better) {
                persistor.save(board.run_dir(), &global.model)?;
            }
            board.announce(Event::AfterSaveModel).await;
            board.announce(Event::RoundDone { round }).await;
            board.report(Progress::RoundFinished { round, rounds: end, sites, model: saved });
            let reason = self.early.as_ref().and_then(|early| early.reason(metrics.as_ref()));
            let next = reason.is_none().then_some(round + 1);
            self.checkpoint(board, next, &global).await?;
            if let Some(reason) = reason {
                tracing::info!(job = board.job_id(), round, reason, "stopping early");
                break;
            }
        }
        board.report(Progress::ModelSaved { path: models(board.run_dir())?.join("global.npz") });
        self.attendants.finish(board);
        Ok(())
    }

    async fn checkpoint(
        &self,
        board: &dyn TaskBoard,
        next: Option<u64>,
        global: &Global,
    ) -> Result<(), WorkflowError> {
        let mut state = Map::from_iter([("model", global.model.clone()), ("meta", global.meta.clone())]);
        if let Some(early) = &self.early {
            state.insert("early", early.state());
        }
        self.attendants.checkpoint(board, next, state).await
    }

    fn initial_model(&self, run_dir: &Path) -> Result<Map, WorkflowError> {
        match (&self.model, &self.attendants.persistor) {
            (Some(model), _) => Ok(model.clone()),
            (None, Some(persistor)) => persistor.load(run_dir),
            (None, None) => {
                tracing::info!("no model to begin with: the sites begin with their own");
                Ok(Map::new())
            }
        }
    }

    fn task(&self, board: &dyn TaskBoard, round: u64, global: &Global) -> OutgoingTask {
        OutgoingTask {
            name: self.args.task_name.clone(),
            data: self.task_data(round, global),
            sites: self.sample(board, round),
            // Every site is waited for; what the results of a round must be is for the round to say.
            min_results: 1,
            grace: Duration::MAX,
            round: Some(round),
            ..OutgoingTask::default()
        }
    }

    fn rules(&self) -> Rules<'_> {
        let is_ignored = self.args.ignore_result_error == Some(true);
        Rules {
            weights: self.args.aggregation_weights.as_ref(),
            exclude: self.exclude.as_ref(),
            expected: None,
            bearable: if is_ignored { usize::MAX } else { 0 },
        }
    }

    /// As many sites as the arguments say, chosen at random, but the same ones if the round is begun again; empty for
    /// all.
    fn sample(&self, board: &dyn TaskBoard, round: u64) -> Vec<String> {
        let mut sites = board.sites();
        match self.args.num_clients {
            Some(wanted) if wanted > 0 && wanted < sites.len() => {
                let mut chance = Sha256::new_with_prefix(round.to_le_bytes());
                match &self.seed {
                    Some(seed) => chance.update(seed),
                    None => chance.update(board.job_id()),
                }
                let mut random = StdRng::from_seed(chance.finalize().into());
                let (chosen, _) = sites.partial_shuffle(&mut random, wanted);
                chosen.sort_unstable();
                tracing::info!(job = board.job_id(), sites = ?chosen, "sites of this round");
                chosen.to_vec()
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// What a site gets: the model, and which of how many rounds this is.
    fn task_data(&self, round: u64, global: &Global) -> Shareable {
        let mut dxo = Dxo::new(DataKind::Weights, global.model.clone());
        dxo.meta = global.meta.clone();
        if let Some(mu) = self.args.fedprox_mu.filter(|mu| *mu > 0.0) {
            dxo.meta.insert("fedprox_mu", mu);
        }
        let mut data = Shareable::with_dxo(dxo);
        data.set_header("start_round", self.args.start_round);
        data.set_header("current_round", round);
        data.set_header("num_rounds", self.args.num_rounds);
        data
    }
}

impl Workflow for FedAvg {
    fn run<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(self.rounds(board))
    }
}

/// The model, and what the sites are told with it.
struct Global {
    model: Map,
    meta: Map,
}

fn meta(round: u64, aggregated: usize, metrics: Option<&Metrics>) -> Map {
    let mut meta = Map::new();
    if let Some(metrics) = metrics {
        meta.insert(
            "initial_metrics",
            metrics.0.iter().map(|(name, x)| (name.as_str(), *x)).collect::<Map>(),
        );
    }
    meta.insert("nr_aggregated", aggregated as u64);
    meta.insert("current_round", round);
    meta
}

/// A model from the arguments.
fn model(arrays: &BTreeMap<String, Json>) -> Result<Map, BuildError> {
    let mut model = Map::new();
    for (name, nested) in arrays {
        let argument = format!("model.{name}");
        let (shape, elements) = arrays::nested(nested).map_err(|reason| wrong(&argument, reason))?;
        let array =
            Array::from_f64(&shape, &elements).map_err(|error| wrong(&argument, error.to_string()))?;
        model.insert(name.as_str(), array);
    }
    Ok(model)
}
