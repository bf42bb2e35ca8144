//! The model that goes from site to site, with nvflare's arguments.

use std::sync::Arc;

use locule_component::{
    BoxFuture, BuildCx, BuildError, Built, Component, Kind, TaskBoard, Workflow, WorkflowError,
};
use locule_workflow::{AfterRound, Cyclic, CyclicArgs, Order};
use serde::Deserialize;

use crate::scatter_and_gather::FullModelShareableGenerator;
use crate::{NPModelPersistor, wrong};

/// Hands the model from site to site; see [`Cyclic`], which does the work.
///
/// # What differs
/// - A site that fails, or returns what is not usable, fails the job at the end of the round, whose other sites still
///   train; nvflare ends the run there, and as if it were complete.
/// - Sites are waited for as long as they are there, so that `task_assignment_timeout` is a mistake; and so is to
///   allow that a site ends the run.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.workflows.cyclic_ctl`.
#[derive(Debug)]
pub struct CyclicController {
    args: CyclicControllerArgs,
    persistor: Arc<NPModelPersistor>,
    workflow: Option<Cyclic>,
}

/// Arguments of [`CyclicController`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CyclicControllerArgs {
    /// How many rounds to run.
    pub num_rounds: u64,
    /// Must be null.
    pub task_assignment_timeout: Option<u64>,
    /// Id of the component that keeps the model.
    pub persistor_id: String,
    /// Id of the component that makes a model of results.
    pub shareable_generator_id: String,
    /// What the sites are asked to do.
    pub task_name: String,
    /// Has no effect, since results are waited for.
    pub task_check_period: f64,
    /// The persistor saves the model of every so many rounds, and the last one; with 0 only the last.
    pub persist_every_n_rounds: u64,
    /// Has no effect: models are kept, and nothing else is worth it.
    pub snapshot_every_n_rounds: u64,
    /// `FIXED`, `RANDOM`, `RANDOM_WITHOUT_SAME_IN_A_ROW`, or the names of the sites in their order.
    pub order: RelayOrder,
    /// Must be false.
    pub allow_early_termination: bool,
    /// Has no effect: there is no garbage to collect.
    pub memory_gc_rounds: u64,
}

/// In which order sites get the model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum RelayOrder {
    /// One of nvflare's three.
    Named(String),
    /// That of these sites.
    Sites(Vec<String>),
}

impl Default for CyclicControllerArgs {
    fn default() -> CyclicControllerArgs {
        CyclicControllerArgs {
            num_rounds: 5,
            task_assignment_timeout: None,
            persistor_id: "persistor".to_owned(),
            shareable_generator_id: "shareable_generator".to_owned(),
            task_name: "train".to_owned(),
            task_check_period: 0.5,
            persist_every_n_rounds: 1,
            snapshot_every_n_rounds: 1,
            order: RelayOrder::Named("FIXED".to_owned()),
            allow_early_termination: false,
            memory_gc_rounds: 1,
        }
    }
}

impl Component for CyclicController {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "nvflare.app_common.workflows.cyclic_ctl.CyclicController";
    type Args = CyclicControllerArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: CyclicControllerArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        if args.task_assignment_timeout.is_some() {
            return Err(wrong(
                "task_assignment_timeout",
                "sites are waited for here as long as they are there",
            ));
        }
        if args.allow_early_termination {
            return Err(wrong("allow_early_termination", "a site cannot end a run here"));
        }
        if cx.service::<FullModelShareableGenerator>(&args.shareable_generator_id).is_none() {
            let name = FullModelShareableGenerator::NAME;
            return Err(wrong("shareable_generator_id", format!("no component of this id is a `{name}`")));
        }
        let persistor = cx.service::<NPModelPersistor>(&args.persistor_id);
        let persistor =
            persistor.ok_or_else(|| wrong("persistor_id", "no component of this id keeps models"))?;
        let (order, sites) = match &args.order {
            RelayOrder::Named(name) if name == "FIXED" => (Order::Fixed, Vec::new()),
            RelayOrder::Named(name) if name == "RANDOM" => (Order::Random, Vec::new()),
            RelayOrder::Named(name) if name == "RANDOM_WITHOUT_SAME_IN_A_ROW" => {
                (Order::RandomWithoutSameInARow, Vec::new())
            }
            RelayOrder::Sites(sites) if !sites.is_empty() => (Order::Fixed, sites.clone()),
            RelayOrder::Named(_) | RelayOrder::Sites(_) => {
                let reason = "expected `FIXED`, `RANDOM`, `RANDOM_WITHOUT_SAME_IN_A_ROW` or names of sites";
                return Err(wrong("order", reason));
            }
        };
        let cyclic = Cyclic::new(CyclicArgs {
            min_clients: 0,
            num_rounds: args.num_rounds,
            start_round: 0,
            task_name: args.task_name.clone(),
            model: Default::default(),
            order,
            sites,
            seed: cx.seed().map_or_else(rand::random, first_eight), // what it began with is kept over a restart
        })?;
        Ok(Built::Workflow(Box::new(CyclicController { args, persistor, workflow: Some(cyclic) })))
    }
}

/// A seed of fewer bits.
fn first_eight(seed: [u8; 32]) -> u64 {
    seed.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

impl CyclicController {
    async fn relay(&mut self, board: &dyn TaskBoard) -> Result<(), WorkflowError> {
        let present = board.sites().len();
        if present < 2 {
            return Err(WorkflowError::TooFewSites { present, needed: 2 });
        }
        match &mut self.workflow {
            Some(workflow) => workflow.run(board).await,
            None => Err(WorkflowError::Failed("the workflow was not made ready".to_owned())),
        }
    }
}

impl Workflow for CyclicController {
    fn prepare<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(async {
            let model = self.persistor.load(board.run_dir())?;
            let keep = keeper(&self.persistor, self.args.persist_every_n_rounds, self.args.num_rounds);
            if let Some(workflow) = self.workflow.take() {
                let workflow = self.workflow.insert(workflow.starting_from(model).after_round(keep));
                workflow.prepare(board).await?;
            }
            Ok(())
        })
    }

    fn run<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(self.relay(board))
    }
}

/// Lets a persistor keep the model of every so many rounds, and the last one.
pub(crate) fn keeper(persistor: &Arc<NPModelPersistor>, every: u64, rounds: u64) -> AfterRound {
    let persistor = Arc::clone(persistor);
    AfterRound::new(move |done, model, run_dir| {
        if done == rounds || every > 0 && done % every == 0 {
            persistor.save(run_dir, model)?;
        }
        Ok(())
    })
}
