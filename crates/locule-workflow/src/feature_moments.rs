//! Standardisation that nobody computes alone.

use std::fs;
use std::time::Duration;

use locule_component::{
    BoxFuture, BuildCx, BuildError, Built, Component, Kind, OutgoingTask, Progress, TaskBoard, Unusable,
    Workflow, WorkflowError,
};
use locule_fobs::{Array, DataKind, Dxo, Map, Shareable};
use serde::Deserialize;

use crate::gather::{TakeResult, dxo_of, gather};
use crate::moments::Moments;
use crate::npz::{SaveError, save_npz};

/// Lets every site compute the moments of its own columns, combines them, and hands out the result.
///
/// 1. Task [`FeatureMomentsArgs::moments_task`]: an empty DXO of kind `STATISTICS` goes out; each site
///    returns its [`Moments`].
/// 2. `standardisation.npz` in the run's `models` folder: `mean`, `scale` (both float64, one value a column).
/// 3. Task [`FeatureMomentsArgs::standardise_task`]: the same two arrays go to every site, as a DXO of
///    kind `STATISTICS`; each answers that it has them.
///
/// Rows never leave a site; counts, means and variances do.
#[derive(Debug)]
pub struct FeatureMoments {
    args: FeatureMomentsArgs,
}

/// Arguments of [`FeatureMoments`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureMomentsArgs {
    /// Sites that must answer each of the two tasks; 0 means all sites of the job.
    #[serde(default)]
    pub min_clients: usize,
    /// Name of the task that asks for moments.
    #[serde(default = "moments")]
    pub moments_task: String,
    /// Name of the task that hands out mean and scale.
    #[serde(default = "standardise")]
    pub standardise_task: String,
    /// Seconds to wait for the other sites once enough have answered.
    #[serde(default = "thirty")]
    pub grace_seconds: f64,
}

fn moments() -> String {
    "moments".to_owned()
}

fn standardise() -> String {
    "standardise".to_owned()
}

fn thirty() -> f64 {
    30.0
}

impl Component for FeatureMoments {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "locule.workflow.FeatureMoments";
    type Args = FeatureMomentsArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: FeatureMomentsArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        FeatureMoments::new(args).map(|workflow| Built::Workflow(Box::new(workflow)))
    }
}

impl FeatureMoments {
    /// As the arguments say.
    ///
    /// # Errors
    /// [`BuildError::Argument`] names the argument that makes no sense.
    pub fn new(args: FeatureMomentsArgs) -> Result<FeatureMoments, BuildError> {
        let wrong = |argument: &str, reason: &str| {
            Err(BuildError::Argument { argument: argument.to_owned(), reason: reason.to_owned() })
        };
        if args.moments_task.is_empty() || args.standardise_task.is_empty() {
            return wrong("moments_task", "a task needs a name");
        }
        if args.moments_task == args.standardise_task {
            return wrong("standardise_task", "the two tasks need different names");
        }
        if Duration::try_from_secs_f64(args.grace_seconds).is_err() {
            return wrong("grace_seconds", "expected a number of seconds, 0 or more");
        }
        Ok(FeatureMoments { args })
    }

    async fn both_tasks(&self, board: &dyn TaskBoard) -> Result<(), WorkflowError> {
        let present = board.sites().len();
        if present < self.args.min_clients.max(1) {
            return Err(WorkflowError::TooFewSites { present, needed: self.args.min_clients.max(1) });
        }
        let mut combined = Combined(None);
        gather(board, self.task(&self.args.moments_task, Map::new()), &mut combined).await?;
        let standardisation = combined.standardisation()?;

        let folder = board.run_dir().join("models");
        fs::create_dir_all(&folder).map_err(|source| WorkflowError::File { path: folder.clone(), source })?;
        let path = folder.join("standardisation.npz");
        save_npz(&path, &standardisation).map_err(SaveError::into_workflow_error)?;
        board.report(Progress::ModelSaved { path });

        gather(board, self.task(&self.args.standardise_task, standardisation), &mut Acknowledged).await?;
        Ok(())
    }

    fn task(&self, name: &str, data: Map) -> OutgoingTask {
        OutgoingTask {
            name: name.to_owned(),
            data: Shareable::with_dxo(Dxo::new(DataKind::Statistics, data)),
            min_results: self.args.min_clients,
            grace: Duration::from_secs_f64(self.args.grace_seconds),
            ..OutgoingTask::default()
        }
    }
}

impl Workflow for FeatureMoments {
    fn run<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(self.both_tasks(board))
    }
}

/// The moments of all sites so far.
struct Combined(Option<Moments>);

impl Combined {
    fn standardisation(self) -> Result<Map, WorkflowError> {
        let moments = self.0.ok_or_else(|| WorkflowError::Failed("no site returned moments".to_owned()))?;
        let arrays = [("mean", moments.mean().to_vec()), ("scale", moments.scale())];
        Ok(arrays.into_iter().map(|(name, values)| (name, Array::from(&values[..]))).collect())
    }
}

impl TakeResult for Combined {
    fn take(&mut self, _: &str, result: &Shareable) -> Result<(), Unusable> {
        let theirs = Moments::from_dxo(&dxo_of(result)?).map_err(|error| error.to_string())?;
        let all = self.0.get_or_insert_with(|| Moments::new(theirs.width()));
        all.merge(&theirs).map_err(|error| Unusable::from(error.to_string()))
    }
}

/// That the task was done is all there is to take.
struct Acknowledged;

impl TakeResult for Acknowledged {
    fn take(&mut self, _: &str, _: &Shareable) -> Result<(), Unusable> {
        Ok(())
    }
}
