//! Every model judged by every site, with nvflare's arguments.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use locule_component::{
    BoxFuture, BuildCx, BuildError, Built, Component, Kind, TaskBoard, Workflow, WorkflowError,
};
use locule_fobs::{Array, Map};
use locule_workflow::{CrossSiteEvaluation, CrossSiteEvaluationArgs};
use serde::Deserialize;

use crate::run_file::RunFile;
use crate::{NUMPY_KEY, wrong};

/// Lets every site judge the models of all sites, and the server's; see [`CrossSiteEvaluation`], which does the work.
///
/// The judgements lie in `<cross_val_dir>/cross_val_results.json`, also where no
/// [`ValidationJsonGenerator`](crate::ValidationJsonGenerator) is named.
///
/// # What differs
/// - Models are judged one after the other, and when all have been submitted; they are kept as NPZ files, and judgements only as
///   JSON and CSV.
/// - A server's model that cannot be read is passed over with a warning; nvflare ends the job.
/// - Formatters only print at nvflare: `formatter_id` is a mistake. Sites are there when a job begins, so that
///   `wait_for_clients_timeout` is one too.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.workflows.cross_site_model_eval`.
#[derive(Debug)]
pub struct CrossSiteModelEval {
    args: CrossSiteEvaluationArgs,
    locator: Option<Arc<NPModelLocator>>,
}

/// Arguments of [`CrossSiteModelEval`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CrossSiteModelEvalArgs {
    /// Has no effect, since results are waited for.
    pub task_check_period: f64,
    /// Folder of the results, in the run's.
    pub cross_val_dir: String,
    /// Seconds that sites have to submit their models; 0 means as long as they are there.
    pub submit_model_timeout: u32,
    /// Seconds that sites have to judge a model; 0 means as long as they are there.
    pub validation_timeout: u32,
    /// Id of the component that finds the server's models; may be empty.
    pub model_locator_id: String,
    /// Must be empty.
    pub formatter_id: String,
    /// The task that asks for a model; with none, no site is asked.
    pub submit_model_task_name: String,
    /// The task that asks for a judgement.
    pub validation_task_name: String,
    /// Whether the files of the sites' models go when all are judged.
    pub cleanup_models: bool,
    /// Sites that take part; none means all.
    pub participating_clients: Option<Vec<String>>,
    /// Must be null.
    pub wait_for_clients_timeout: Option<u32>,
}

impl Default for CrossSiteModelEvalArgs {
    fn default() -> CrossSiteModelEvalArgs {
        CrossSiteModelEvalArgs {
            task_check_period: 0.5,
            cross_val_dir: "cross_site_val".to_owned(),
            submit_model_timeout: 600,
            validation_timeout: 6000,
            model_locator_id: String::new(),
            formatter_id: String::new(),
            submit_model_task_name: "submit_model".to_owned(),
            validation_task_name: "validate".to_owned(),
            cleanup_models: false,
            participating_clients: None,
            wait_for_clients_timeout: None,
        }
    }
}

impl Component for CrossSiteModelEval {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "nvflare.app_common.workflows.cross_site_model_eval.CrossSiteModelEval";
    type Args = CrossSiteModelEvalArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: CrossSiteModelEvalArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        if !args.formatter_id.is_empty() {
            return Err(wrong("formatter_id", "judgements are not printed here, they are written"));
        }
        if args.wait_for_clients_timeout.is_some() {
            return Err(wrong("wait_for_clients_timeout", "sites are there here when a job begins"));
        }
        let locator = cx.service::<NPModelLocator>(&args.model_locator_id);
        if locator.is_none() && !args.model_locator_id.is_empty() {
            let name = NPModelLocator::NAME;
            return Err(wrong("model_locator_id", format!("no component of this id is a `{name}`")));
        }
        if locator.is_none() && args.submit_model_task_name.is_empty() {
            return Err(wrong(
                "model_locator_id",
                "without models of sites there must be some of the server",
            ));
        }
        let seconds = |timeout: u32| Some(f64::from(timeout)).filter(|seconds| *seconds > 0.0);
        let args = CrossSiteEvaluationArgs {
            submit_task: args.submit_model_task_name,
            validate_task: args.validation_task_name,
            server_models: Vec::new(),
            min_clients: 0,
            sites: args.participating_clients.unwrap_or_default(),
            folder: args.cross_val_dir,
            submit_seconds: seconds(args.submit_model_timeout),
            validate_seconds: seconds(args.validation_timeout),
            remove_models: args.cleanup_models,
        };
        CrossSiteEvaluation::new(args.clone())?;
        Ok(Built::Workflow(Box::new(CrossSiteModelEval { args, locator })))
    }
}

impl CrossSiteModelEval {
    async fn evaluate(&mut self, board: &dyn TaskBoard) -> Result<(), WorkflowError> {
        let evaluation = CrossSiteEvaluation::new(self.args.clone());
        let mut evaluation = evaluation.map_err(|error| WorkflowError::Failed(error.to_string()))?;
        if let Some(locator) = &self.locator {
            for name in locator.names() {
                match locator.load(board.run_dir(), name) {
                    Ok(model) => evaluation = evaluation.judging(name, model),
                    Err(error) => tracing::warn!(job = board.job_id(), model = name, error, "no such model"),
                }
            }
        }
        evaluation.run(board).await
    }
}

impl Workflow for CrossSiteModelEval {
    fn run<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(self.evaluate(board))
    }
}

/// Finds the server's models: NPY files of one array each.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.np.np_model_locator`.
#[derive(Debug)]
pub struct NPModelLocator {
    models: BTreeMap<String, ModelFile>,
}

#[derive(Debug)]
enum ModelFile {
    InRun(RunFile),
    At(PathBuf),
}

/// Arguments of [`NPModelLocator`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NPModelLocatorArgs {
    /// Folder of the models, in the run's.
    pub model_dir: String,
    /// The file of the model `server`, or files by the names of their models: in the folder, or absolute paths.
    pub model_name: Option<ModelNames>,
}

/// One model, or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum ModelNames {
    /// The file of the model `server`.
    One(String),
    /// Files by the names of their models.
    Several(BTreeMap<String, String>),
}

impl Default for NPModelLocatorArgs {
    fn default() -> NPModelLocatorArgs {
        NPModelLocatorArgs { model_dir: "models".to_owned(), model_name: None }
    }
}

impl Component for NPModelLocator {
    const KIND: Kind = Kind::Service;
    const NAME: &'static str = "nvflare.app_common.np.np_model_locator.NPModelLocator";
    type Args = NPModelLocatorArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: NPModelLocatorArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        let names = match args.model_name {
            None => BTreeMap::from([("server".to_owned(), "server.npy".to_owned())]),
            Some(ModelNames::One(file)) => BTreeMap::from([("server".to_owned(), file)]),
            Some(ModelNames::Several(names)) => names,
        };
        let files = names.into_iter().map(|(name, file)| {
            let path = Path::new(&file);
            let file = if path.is_absolute() {
                ModelFile::At(path.to_owned())
            } else {
                ModelFile::InRun(RunFile::new(&args.model_dir, &file, "model_name")?)
            };
            Ok((name, file))
        });
        Ok(Built::Service(Arc::new(NPModelLocator { models: files.collect::<Result<_, BuildError>>()? })))
    }
}

impl NPModelLocator {
    /// Names of the models.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    fn load(&self, run_dir: &Path, name: &str) -> Result<Map, String> {
        let path = match self.models.get(name) {
            Some(ModelFile::InRun(file)) => file.in_run(run_dir),
            Some(ModelFile::At(path)) => path.clone(),
            None => return Err(format!("no model has the name `{}`", name.escape_debug())),
        };
        let file = fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let array = Array::from_npy(file.into()).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Map::from_iter([(NUMPY_KEY, array)]))
    }
}
