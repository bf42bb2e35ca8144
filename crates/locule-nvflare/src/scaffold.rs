//! SCAFFOLD with nvflare's arguments.

use std::sync::Arc;

use locule_component::{
    BoxFuture, BuildCx, BuildError, Built, Component, Kind, TaskBoard, Workflow, WorkflowError,
};
use locule_workflow::{FedAvg, ScaffoldArgs as OurArgs};
use serde::Deserialize;

use crate::cyclic::keeper;
use crate::{NPModelPersistor, wrong};

/// Averages with control variates; see [`locule_workflow::Scaffold`], which does the work.
///
/// # What differs
/// - All sites take part in every round: with more sites than [`ScaffoldArgs::num_clients`] the job fails, where nvflare
///   chooses some at random.
/// - A result must have the names, shapes and dtypes of the model, and control variates; one that has not fails the job,
///   or, with `ignore_result_error`, is passed over.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.workflows.scaffold`.
#[derive(Debug)]
pub struct Scaffold {
    args: ScaffoldArgs,
    persistor: Arc<NPModelPersistor>,
    workflow: Option<FedAvg>,
}

/// Arguments of [`Scaffold`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScaffoldArgs {
    /// At least as many as there are sites; 0 or null means all.
    pub num_clients: Option<usize>,
    /// How many rounds to run.
    pub num_rounds: u64,
    /// Number of the first round.
    pub start_round: u64,
    /// Has no effect: there is no garbage to collect.
    pub memory_gc_rounds: u64,
    /// Id of the component that keeps the model.
    pub persistor_id: String,
    /// Whether results that are not usable are passed over. Otherwise they end the job.
    pub ignore_result_error: Option<bool>,
    /// Has no effect: a persistor always has a model.
    pub allow_empty_global_weights: bool,
    /// Has no effect, since results are waited for.
    pub task_check_period: f64,
    /// Has no effect: a result is folded as it is.
    pub enable_tensor_disk_offload: bool,
}

impl Default for ScaffoldArgs {
    fn default() -> ScaffoldArgs {
        ScaffoldArgs {
            num_clients: Some(3),
            num_rounds: 5,
            start_round: 0,
            memory_gc_rounds: 0,
            persistor_id: "persistor".to_owned(),
            ignore_result_error: None,
            allow_empty_global_weights: false,
            task_check_period: 0.5,
            enable_tensor_disk_offload: false,
        }
    }
}

impl Component for Scaffold {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "nvflare.app_common.workflows.scaffold.Scaffold";
    type Args = ScaffoldArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: ScaffoldArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        let persistor = cx.service::<NPModelPersistor>(&args.persistor_id);
        let persistor =
            persistor.ok_or_else(|| wrong("persistor_id", "no component of this id keeps models"))?;
        // Whoever is passed over, somebody must be left.
        let is_tolerant = args.ignore_result_error == Some(true);
        let workflow = locule_workflow::Scaffold::from_any_model(OurArgs {
            min_clients: usize::from(is_tolerant),
            num_rounds: args.num_rounds,
            start_round: args.start_round,
            task_name: "train".to_owned(),
            model: Default::default(),
            // A year: all are waited for.
            grace_seconds: 31_536_000.0,
            aggregation_weights: Default::default(),
            best: None,
            stop: None,
        })?;
        Ok(Built::Workflow(Box::new(Scaffold { args, persistor, workflow: Some(workflow) })))
    }
}

impl Scaffold {
    async fn rounds(&mut self, board: &dyn TaskBoard) -> Result<(), WorkflowError> {
        let present = board.sites().len();
        if let Some(chosen) = self.args.num_clients.filter(|chosen| *chosen > 0 && *chosen < present) {
            let reason =
                format!("{present} sites take part, and of them `num_clients` would choose {chosen}");
            return Err(WorkflowError::Failed(format!("{reason}, which is not possible here")));
        }
        match &mut self.workflow {
            Some(workflow) => workflow.run(board).await,
            None => Err(WorkflowError::Failed("the workflow was not made ready".to_owned())),
        }
    }
}

impl Workflow for Scaffold {
    fn prepare<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(async {
            let model = self.persistor.load(board.run_dir())?;
            let keep = keeper(&self.persistor, 1, self.args.num_rounds);
            if let Some(workflow) = self.workflow.take() {
                let workflow = self.workflow.insert(workflow.starting_from(model).after_round(keep));
                workflow.prepare(board).await?;
            }
            Ok(())
        })
    }

    fn run<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(self.rounds(board))
    }
}
