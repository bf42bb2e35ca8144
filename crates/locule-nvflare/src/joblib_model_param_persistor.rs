//! Keeps the parameters of a scikit-learn model.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use locule_component::{BuildCx, BuildError, Built, Component, Kind, WorkflowError};
use locule_fobs::{Map, Value};
use locule_workflow::load_npz;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::rounds::save;
use crate::run_file::RunFile;
use crate::wrong;

/// Keeps the parameters of a model, arrays by their names, as an NPZ file in the run's folder.
///
/// It begins with [`JoblibModelParamPersistorArgs::model_path`], else with what was saved in this run, else with
/// [`JoblibModelParamPersistorArgs::initial_params`]: settings, of which the sites make their first model.
///
/// # Differences
/// A joblib file is a pickle, which can run code when it is read. None is read or written here: the file is an NPZ,
/// named as [`JoblibModelParamPersistorArgs::save_name`] with the ending `.npz`; `numpy.load` reads it.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_opt.sklearn.joblib_model_param_persistor`.
#[derive(Debug)]
pub struct JoblibModelParamPersistor {
    file: RunFile,
    settings: Map,
    source: Option<PathBuf>,
}

/// Arguments of [`JoblibModelParamPersistor`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JoblibModelParamPersistorArgs {
    /// Settings by name: texts, numbers, lists and maps of them.
    pub initial_params: Option<serde_json::Map<String, Json>>,
    /// Name of the file in the run's folder. Its ending becomes `.npz`.
    pub save_name: String,
    /// An NPZ file of the server to begin with: an absolute path.
    pub model_path: Option<String>,
}

impl Default for JoblibModelParamPersistorArgs {
    fn default() -> JoblibModelParamPersistorArgs {
        let save_name = "model_param.joblib".to_owned();
        JoblibModelParamPersistorArgs { initial_params: None, save_name, model_path: None }
    }
}

/// Among the settings, what older jobs call [`JoblibModelParamPersistorArgs::model_path`].
const MODEL_PATH: &str = "model_path";

impl Component for JoblibModelParamPersistor {
    const KIND: Kind = Kind::Service;
    const NAME: &'static str =
        "nvflare.app_opt.sklearn.joblib_model_param_persistor.JoblibModelParamPersistor";
    type Args = JoblibModelParamPersistorArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: JoblibModelParamPersistorArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Service(Arc::new(JoblibModelParamPersistor::new(args)?)))
    }
}

impl JoblibModelParamPersistor {
    /// As the arguments say.
    ///
    /// # Errors
    /// [`BuildError::Argument`] names the argument that makes no sense.
    pub fn new(args: JoblibModelParamPersistorArgs) -> Result<JoblibModelParamPersistor, BuildError> {
        let JoblibModelParamPersistorArgs { initial_params, save_name, model_path } = args;
        let mut params = initial_params.unwrap_or_default();
        let older = params.remove(MODEL_PATH).and_then(|path| path.as_str().map(str::to_owned));
        let source = model_path.or(older).filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(path) = &source {
            let is_npz = path.extension().is_some_and(|ending| ending == "npz");
            if !is_npz || !path.is_absolute() {
                return Err(wrong(
                    MODEL_PATH,
                    "expected the absolute path of an NPZ file; joblib files are pickles, and are not read",
                ));
            }
        }
        if source.is_none() && params.is_empty() {
            return Err(wrong("initial_params", "there is nothing for sites to begin with"));
        }
        let name = Path::new(&save_name).with_extension("npz");
        let file = RunFile::new("", &name.to_string_lossy(), "save_name")?;
        let settings = params.iter().map(|(name, value)| (name.as_str(), value_of(value))).collect();
        Ok(JoblibModelParamPersistor { file, settings, source })
    }

    /// The parameters to begin with: arrays, or settings.
    ///
    /// # Errors
    /// [`WorkflowError::Failed`] when the source that the arguments name cannot be read.
    pub fn load(&self, run_dir: &Path) -> Result<Map, WorkflowError> {
        let saved = self.file.in_run(run_dir);
        let path = match &self.source {
            Some(path) => path,
            None if saved.exists() => &saved,
            None => return Ok(self.settings.clone()),
        };
        load_npz(path).map_err(|error| WorkflowError::Failed(locule_component::with_causes(&error)))
    }

    /// Saves the parameters; answers where.
    ///
    /// # Errors
    /// [`WorkflowError::File`], and [`WorkflowError::Failed`] for what is no array.
    pub fn save(&self, run_dir: &Path, model: &Map) -> Result<PathBuf, WorkflowError> {
        let path = self.file.in_run(run_dir);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .map_err(|source| WorkflowError::File { path: folder.to_owned(), source })?;
        }
        save(&path, model)?;
        Ok(path)
    }
}

/// What Python reads the same JSON as.
fn value_of(json: &Json) -> Value {
    match json {
        Json::Null => Value::None,
        Json::Bool(flag) => (*flag).into(),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => whole.into(),
            (None, Some(whole)) => whole.into(),
            (None, None) => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => Value::List(items.iter().map(value_of).collect()),
        Json::Object(entries) => {
            Value::Map(entries.iter().map(|(name, value)| (name.as_str(), value_of(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use locule_fobs::Array;
    use serde_json::json;

    fn persistor(args: Json) -> Result<JoblibModelParamPersistor, BuildError> {
        JoblibModelParamPersistor::new(serde_json::from_value(args).unwrap())
    }

    #[test]
    fn it_begins_with_settings_and_goes_on_with_what_was_saved() {
        let run = tempfile::tempdir().unwrap();
        let settings =
            json!({ "n_classes": 2, "eta0": 1e-4, "loss": "log_loss", "shuffle": true, "sizes": [3, 4] });
        let ours = persistor(json!({ "initial_params": settings })).unwrap();
        let begin = ours.load(run.path()).unwrap();
        assert_eq!((begin.int("n_classes"), begin.float("eta0")), (Some(2), Some(1e-4)));
        assert_eq!((begin.str("loss"), begin.bool("shuffle")), (Some("log_loss"), Some(true)));
        assert_eq!(begin.list("sizes").map(<[Value]>::len), Some(2));

        let trained = Map::from_iter([("coef", Array::from(&[0.5_f64, 1.5][..]))]);
        assert_eq!(ours.save(run.path(), &trained).unwrap(), run.path().join("model_param.npz"));
        assert_eq!(ours.load(run.path()).unwrap(), trained);

        let path = run.path().join("model_param.npz");
        let from_file = persistor(json!({ "initial_params": { "model_path": path } })).unwrap();
        assert_eq!(from_file.load(Path::new("elsewhere")).unwrap(), trained);
    }

    #[test]
    fn pickles_and_ways_out_are_refused() {
        for (args, why) in [
            (
                json!({ "model_path": "/srv/start.joblib" }),
                "`model_path`: expected the absolute path of an NPZ",
            ),
            (json!({ "model_path": "start.npz" }), "`model_path`"),
            (json!({}), "`initial_params`: there is nothing"),
            (json!({ "initial_params": { "a": 1 }, "save_name": "../m" }), "`save_name`"),
        ] {
            let error = persistor(args).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
