//! Every model judged by every site.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use locule_component::{
    BoxFuture, BuildCx, BuildError, Built, Component, Kind, OutgoingTask, Progress, TaskBoard, Unusable,
    Workflow, WorkflowError,
};
use locule_fobs::{Class, DataKind, Dxo, Map, Shareable, Value};
use serde::Deserialize;
use serde_json::json;

use crate::fed_avg::wrong;
use crate::gather::{Attendance, TakeResult, dxo_of, gather};
use crate::mean::WeightedMean;
use crate::npz::{SaveError, load_npz, save_npz};
use crate::record::{Metrics, quoted, replace};

/// Metrics of one result that are kept.
const MAX_METRICS: usize = 256;

/// Lets every site judge its own model, those of the others, and the server's.
///
/// 1. Task [`CrossSiteEvaluationArgs::submit_task`], with the header `submit_model_name` set to `best_model`: a
///    site returns a model as a DXO of kind `WEIGHTS`. One that has none takes part as a judge all the same.
/// 2. Task [`CrossSiteEvaluationArgs::validate_task`], once for each model, with the header `_model_owner_`: the site that it comes
///    from, or `SRV_` and the name of the server's model. A site returns a DXO of kind `METRICS`.
///
/// In the run's folder, `cross_site_val/cross_val_results.json` has the metrics by judge, owner and name, as
/// nvflare writes them, and `cross_site_val/metrics.csv` the same as rows. Models wait in files of
/// `cross_site_val/models`; one is in memory at a time, and the result at hand.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.workflows.cross_site_model_eval`.
///
/// ```
/// # use locule_component::{ExecuteError, Executor, Task, TaskCx};
/// # use locule_fobs::{Array, DataKind, Dxo, Map, Shareable};
/// use locule_workflow::{CrossSiteEvaluation, LocalBoard};
///
/// /// Its model is one number, and it judges another by the distance to it.
/// struct Site(f64);
/// # impl Executor for Site {
/// #     fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
/// #         if task.name == "submit_model" {
/// #             let model = Map::from_iter([("w", Array::from(&[self.0][..]))]);
/// #             return Ok(Shareable::with_dxo(Dxo::new(DataKind::Weights, model)));
/// #         }
/// #         let dxo = task.data.dxo().ok().flatten().ok_or(ExecuteError::BadTask("no model".into()))?;
/// #         let w = dxo.data.get("w").and_then(|w| w.as_array()).map_or(0.0, |w| w.to_f64()[0]);
/// #         let metrics = Map::from_iter([("distance", (w - self.0).abs())]);
/// #         Ok(Shareable::with_dxo(Dxo::new(DataKind::Metrics, metrics)))
/// #     }
/// # }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let mut board = LocalBoard::new(folder.path());
/// board.add_site("north", Box::new(Site(1.0)));
/// board.add_site("south", Box::new(Site(4.0)));
/// board.run(&mut CrossSiteEvaluation::new(serde_json::from_str("{}")?)?)?;
/// let results = std::fs::read(folder.path().join("cross_site_val/cross_val_results.json"))?;
/// let results: serde_json::Value = serde_json::from_slice(&results)?;
/// assert_eq!(results["north"]["south"]["distance"], 3.0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct CrossSiteEvaluation {
    args: CrossSiteEvaluationArgs,
    /// The server's, by name.
    models: Vec<(String, Map)>,
}

/// Arguments of [`CrossSiteEvaluation`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CrossSiteEvaluationArgs {
    /// The task that asks for a site's model; with none, no site is asked.
    #[serde(default = "submit_model")]
    pub submit_task: String,
    /// The task that asks for a judgement.
    #[serde(default = "validate")]
    pub validate_task: String,
    /// Models of the run's `models` folder that are judged too, by their files' names without `.npz`: `global` and
    /// `best`, say. One that is not there is passed over.
    #[serde(default)]
    pub server_models: Vec<String>,
    /// Sites that must judge every model; 0 means that nobody must.
    #[serde(default)]
    pub min_clients: usize,
    /// Sites that take part; none means all.
    #[serde(default)]
    pub sites: Vec<String>,
    /// Folder of the results, in the run's.
    #[serde(default = "cross_site_val")]
    pub folder: String,
    /// Seconds that sites have to submit their models; none means as long as they are there.
    #[serde(default)]
    pub submit_seconds: Option<f64>,
    /// Seconds that sites have to judge one model; none means as long as they are there.
    #[serde(default)]
    pub validate_seconds: Option<f64>,
    /// Whether the files of the sites' models go when all are judged.
    #[serde(default)]
    pub remove_models: bool,
}

fn submit_model() -> String {
    "submit_model".to_owned()
}

fn validate() -> String {
    "validate".to_owned()
}

fn cross_site_val() -> String {
    "cross_site_val".to_owned()
}

impl Component for CrossSiteEvaluation {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "locule.workflow.CrossSiteEvaluation";
    type Args = CrossSiteEvaluationArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: CrossSiteEvaluationArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        CrossSiteEvaluation::new(args).map(|workflow| Built::Workflow(Box::new(workflow)))
    }
}

/// By judge, then owner.
type Judgements = BTreeMap<String, BTreeMap<String, Metrics>>;

impl CrossSiteEvaluation {
    /// As the arguments say.
    ///
    /// # Errors
    /// [`BuildError::Argument`] names the argument that makes no sense.
    pub fn new(args: CrossSiteEvaluationArgs) -> Result<CrossSiteEvaluation, BuildError> {
        let is_name =
            |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0']);
        if args.validate_task.is_empty() || args.validate_task == args.submit_task {
            return Err(wrong("validate_task", "a task needs a name of its own"));
        }
        if !is_name(&args.folder) {
            return Err(wrong("folder", "expected the name of one folder"));
        }
        if args.server_models.iter().any(|name| !is_name(name)) {
            return Err(wrong("server_models", "expected names of files without `.npz`"));
        }
        for (name, seconds) in
            [("submit_seconds", args.submit_seconds), ("validate_seconds", args.validate_seconds)]
        {
            if seconds.is_some_and(|seconds| Duration::try_from_secs_f64(seconds).is_err()) {
                return Err(wrong(name, "expected a number of seconds, 0 or more"));
            }
        }
        Ok(CrossSiteEvaluation { args, models: Vec::new() })
    }

    /// Lets the sites judge this model of the server too, under the name `SRV_` and this one.
    pub fn judging(mut self, name: impl Into<String>, model: Map) -> CrossSiteEvaluation {
        self.models.push((name.into(), model));
        self
    }

    async fn evaluate(&mut self, board: &dyn TaskBoard) -> Result<(), WorkflowError> {
        let folder = board.run_dir().join(&self.args.folder);
        let kept = folder.join("models");
        fs::create_dir_all(&kept).map_err(|source| WorkflowError::File { path: kept.clone(), source })?;
        let mut models = self.sites_models(board, &kept).await?;
        let theirs = models.len();
        for name in &self.args.server_models {
            let path = board.run_dir().join("models").join(format!("{name}.npz"));
            if path.is_file() {
                models.push((format!("SRV_{name}"), path));
            } else {
                tracing::warn!(job = board.job_id(), model = name, "the server has no such model");
            }
        }
        for (name, model) in self.models.drain(..) {
            let path = kept.join(format!("{:04}.npz", models.len()));
            save_npz(&path, &model).map_err(SaveError::into_workflow_error)?;
            models.push((format!("SRV_{name}"), path));
        }
        if models.is_empty() {
            return Err(WorkflowError::Failed(
                "no site submitted a model, and the server has none".to_owned(),
            ));
        }
        let mut judgements = Judgements::new();
        for (owner, path) in &models {
            if board.is_aborted() {
                return Err(WorkflowError::Aborted);
            }
            self.judge(board, owner, path, &mut judgements).await?;
            write(&folder, &judgements)?;
        }
        if self.args.remove_models {
            models[..theirs].iter().for_each(|(_, path)| drop(fs::remove_file(path)));
        }
        board.report(Progress::ModelSaved { path: folder.join("cross_val_results.json") });
        Ok(())
    }

    /// Asks the sites for their models; their names, and where the models lie.
    async fn sites_models(
        &self,
        board: &dyn TaskBoard,
        folder: &Path,
    ) -> Result<Vec<(String, PathBuf)>, WorkflowError> {
        let mut models = Models { folder, models: Vec::new(), failed: None };
        if !self.args.submit_task.is_empty() {
            let mut data = Shareable::new();
            data.set_header("submit_model_name", "best_model");
            let (name, sites) = (self.args.submit_task.clone(), self.args.sites.clone());
            let limit = self.args.submit_seconds.map(Duration::from_secs_f64);
            let task = OutgoingTask { name, data, sites, limit, ..everyone() };
            tolerate(gather(board, task, &mut models).await)?;
        }
        match models.failed {
            Some(error) => Err(error.into_workflow_error()),
            None => Ok(models.models),
        }
    }

    async fn judge(
        &self,
        board: &dyn TaskBoard,
        owner: &str,
        path: &Path,
        judgements: &mut Judgements,
    ) -> Result<(), WorkflowError> {
        let model = load_npz(path).map_err(|error| WorkflowError::Failed(error.to_string()))?;
        let mut data = Shareable::with_dxo(Dxo::new(DataKind::Weights, model));
        data.set_header("_model_owner_", owner);
        let (name, sites) = (self.args.validate_task.clone(), self.args.sites.clone());
        let limit = self.args.validate_seconds.map(Duration::from_secs_f64);
        let task = OutgoingTask { name: name.clone(), data, sites, limit, ..everyone() };
        let mut judged = Judged { owner, judgements, count: 0 };
        let missing = tolerate(gather(board, task, &mut judged).await)?;
        let (accepted, needed) = (judged.count, self.args.min_clients);
        if accepted < needed {
            return Err(WorkflowError::TooFewResults { task: name, round: None, accepted, needed, missing });
        }
        Ok(())
    }
}

/// A task that waits for all its sites and needs none in particular.
fn everyone() -> OutgoingTask {
    OutgoingTask { min_results: 1, grace: Duration::MAX, ..OutgoingTask::default() }
}

/// Who gave no usable result. That nobody did is no error here.
fn tolerate(outcome: Result<Attendance, WorkflowError>) -> Result<Vec<(String, Unusable)>, WorkflowError> {
    match outcome {
        Ok(attendance) => Ok(attendance.missing),
        Err(WorkflowError::TooFewResults { missing, .. }) => Ok(missing),
        Err(error) => Err(error),
    }
}

impl Workflow for CrossSiteEvaluation {
    fn run<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(self.evaluate(board))
    }
}

/// Keeps models as files.
struct Models<'a> {
    folder: &'a Path,
    models: Vec<(String, PathBuf)>,
    failed: Option<SaveError>,
}

impl TakeResult for Models<'_> {
    fn take(&mut self, site: &str, result: &Shareable) -> Result<(), Unusable> {
        let dxo = match learnable(result) {
            Some(weights) => Dxo::new(DataKind::Weights, weights),
            None => dxo_of(result)?,
        };
        if dxo.kind != DataKind::Weights {
            return Err(format!("expected weights, found a DXO of kind {}", dxo.kind).into());
        }
        WeightedMean::by_name().add(&dxo.data, 1.0)?;
        let path = self.folder.join(format!("{:04}.npz", self.models.len()));
        match save_npz(&path, &dxo.data) {
            Ok(()) => self.models.push((site.to_owned(), path)),
            Err(error) => self.failed = Some(error),
        }
        Ok(())
    }
}

/// The arrays of a model that is an object of its own, which is how nvflare's `NPTrainer` submits one: they are entries
/// beside `weights` and `meta`, or those of `weights`.
fn learnable(result: &Shareable) -> Option<Map> {
    let body =
        result.fields.map("DXO").filter(|body| body.str("kind") == Some(DataKind::Weights.as_str()))?;
    let Value::Object(object) = body.get("data")? else { return None };
    let entries = object.attributes().filter(|_| object.class == Class::MODEL_LEARNABLE)?;
    let weights = entries.map("weights").filter(|weights| !weights.is_empty()).unwrap_or(entries);
    let arrays = weights.iter_str().filter(|(_, value)| value.as_array().is_some());
    Some(arrays.map(|(name, value)| (name, value.clone())).collect())
}

/// Takes what the sites find of one model.
struct Judged<'a> {
    owner: &'a str,
    judgements: &'a mut Judgements,
    count: usize,
}

impl TakeResult for Judged<'_> {
    fn take(&mut self, site: &str, result: &Shareable) -> Result<(), Unusable> {
        let dxo = dxo_of(result)?;
        if dxo.kind != DataKind::Metrics {
            return Err(format!("expected metrics, found a DXO of kind {}", dxo.kind).into());
        }
        let numbers =
            dxo.data.iter_str().filter_map(|(name, value)| Some((name.to_owned(), value.as_f64()?)));
        let metrics: Metrics = numbers.filter(|(_, value)| value.is_finite()).take(MAX_METRICS).collect();
        self.judgements.entry(site.to_owned()).or_default().insert(self.owner.to_owned(), metrics);
        self.count += 1;
        Ok(())
    }
}

fn write(folder: &Path, judgements: &Judgements) -> Result<(), WorkflowError> {
    let mut json = serde_json::Map::new();
    let mut csv = "site,model,metric,value\n".to_owned();
    for (site, owners) in judgements {
        let mut all = serde_json::Map::new();
        for (owner, metrics) in owners {
            let values = metrics.iter().map(|(name, value)| (name.clone(), json!(value)));
            all.insert(owner.clone(), serde_json::Value::Object(values.collect()));
            for (name, value) in metrics {
                csv.push_str(&format!("{},{},{},{value}\n", quoted(site), quoted(owner), quoted(name)));
            }
        }
        json.insert(site.clone(), all.into());
    }
    let json = serde_json::to_vec_pretty(&json).expect("texts and numbers are JSON");
    replace(&folder.join("cross_val_results.json"), &json)?;
    replace(&folder.join("metrics.csv"), csv.as_bytes())
}

#[cfg(test)]
mod tests {
    use locule_fobs::{Array, Object};

    use super::*;

    #[test]
    fn a_stock_trainers_model_is_an_object() {
        let array = || Array::from(&[1.0_f32, 2.0][..]);
        let data = Map::from_iter([
            ("weights", Value::Map(Map::new())),
            ("meta", Value::Map(Map::new())),
            ("numpy_key", array().into()),
        ]);
        let mut result = Shareable::with_dxo(Dxo::new(DataKind::Weights, Map::new()));
        let body = Map::from_iter([
            ("kind", Value::from("WEIGHTS")),
            ("data", Value::Object(Object::new(Class::MODEL_LEARNABLE, data))),
            ("meta", Value::Map(Map::new())),
        ]);
        result.fields.insert("DXO", body);
        assert_eq!(learnable(&result), Some(Map::from_iter([("numpy_key", array())])));
        assert_eq!(learnable(&Shareable::with_dxo(Dxo::new(DataKind::Weights, Map::new()))), None);
    }
}
