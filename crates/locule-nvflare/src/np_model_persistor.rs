//! Keeps a model of one numpy array.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use locule_component::{BuildCx, BuildError, Built, Component, Kind, WorkflowError};
use locule_fobs::{Array, Map, Value};
use serde::Deserialize;
use serde_json::Value as Json;

use crate::run_file::RunFile;
use crate::{NUMPY_KEY, arrays, wrong};

/// Keeps a model that is one array, `numpy_key`, as an NPY file in the run's folder.
///
/// It begins with [`NPModelPersistorArgs::source_ckpt_file_full_name`], else with what was saved in this run, else
/// with [`NPModelPersistorArgs::model`], else with `[[1, 2, 3], [4, 5, 6], [7, 8, 9]]`; the last two as float32.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.np.np_model_persistor`.
#[derive(Debug)]
pub struct NPModelPersistor {
    file: RunFile,
    model: Array,
    source: Option<PathBuf>,
}

/// Arguments of [`NPModelPersistor`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NPModelPersistorArgs {
    /// Folder of the model, in the run's.
    pub model_dir: String,
    /// Name of the file; without the ending `.npy` it gets one.
    pub model_name: String,
    /// Numbers in nested lists.
    pub model: Option<Json>,
    /// An NPY file of the server to begin with: an absolute path, or one in the app's folder `custom`.
    pub source_ckpt_file_full_name: Option<String>,
}

impl Default for NPModelPersistorArgs {
    fn default() -> NPModelPersistorArgs {
        let (model_dir, model_name) = ("models".to_owned(), "server.npy".to_owned());
        NPModelPersistorArgs { model_dir, model_name, model: None, source_ckpt_file_full_name: None }
    }
}

impl Component for NPModelPersistor {
    const KIND: Kind = Kind::Service;
    const NAME: &'static str = "nvflare.app_common.np.np_model_persistor.NPModelPersistor";
    type Args = NPModelPersistorArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: NPModelPersistorArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Service(Arc::new(NPModelPersistor::new(args, cx.app_dir)?)))
    }
}

impl NPModelPersistor {
    /// For an app that lies in `app_dir`.
    ///
    /// # Errors
    /// [`BuildError::Argument`] names the argument that makes no sense.
    pub fn new(args: NPModelPersistorArgs, app_dir: &Path) -> Result<NPModelPersistor, BuildError> {
        let NPModelPersistorArgs { model_dir, mut model_name, model, source_ckpt_file_full_name } = args;
        let (shape, elements) = match &model {
            Some(nested) => arrays::nested(nested).map_err(|reason| wrong("model", reason))?,
            None => (vec![3, 3], (1..=9).map(f64::from).collect()),
        };
        let elements: Vec<f32> = elements.into_iter().map(|x| x as f32).collect();
        let model = Array::from_f32(&shape, &elements).map_err(|error| wrong("model", error.to_string()))?;
        if !model_name.ends_with(".npy") {
            model_name.push_str(".npy");
        }
        let file = RunFile::new(&model_dir, &model_name, "model_name")?;
        let source = source_ckpt_file_full_name.filter(|name| !name.is_empty());
        Ok(NPModelPersistor { file, model, source: source.map(|name| app_dir.join("custom").join(name)) })
    }

    /// The model to begin with.
    ///
    /// # Errors
    /// [`WorkflowError`] when the source that the arguments name is not there or holds no array.
    pub fn load(&self, run_dir: &Path) -> Result<Map, WorkflowError> {
        let saved = self.file.in_run(run_dir);
        let array = match &self.source {
            Some(path) => read(path)?,
            None if saved.exists() => read(&saved)?,
            None => self.model.clone(),
        };
        Ok(Map::from_iter([(NUMPY_KEY, array)]))
    }

    /// Saves the model; answers where.
    ///
    /// # Errors
    /// [`WorkflowError::File`], and [`WorkflowError::Failed`] for a model without `numpy_key`.
    pub fn save(&self, run_dir: &Path, model: &Map) -> Result<PathBuf, WorkflowError> {
        let array = model.get(NUMPY_KEY).and_then(Value::as_array).ok_or_else(|| {
            WorkflowError::Failed(format!("the model has no array `{NUMPY_KEY}`, which its persistor saves"))
        })?;
        let saved = self.file.write(run_dir, &array.to_npy());
        saved.map_err(|(path, source)| WorkflowError::File { path, source })
    }
}

/// Reads an NPY file. Anything else than a file would not end.
fn read(path: &Path) -> Result<Array, WorkflowError> {
    let file = |source| WorkflowError::File { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(file)?.is_file() {
        return Err(WorkflowError::Failed(format!("{} is no file", path.display())));
    }
    let bytes = fs::read(path).map_err(file)?;
    Array::from_npy(bytes.into())
        .map_err(|error| WorkflowError::Failed(format!("{} holds no array: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn persistor(json: Json, app_dir: &Path) -> NPModelPersistor {
        NPModelPersistor::new(serde_json::from_value(json).unwrap(), app_dir).unwrap()
    }

    fn array(model: &Map) -> &Array {
        model.get(NUMPY_KEY).unwrap().as_array().unwrap()
    }

    #[test]
    fn it_begins_with_the_arguments_and_goes_on_with_what_was_saved() {
        let run = tempfile::tempdir().unwrap();
        let ours = persistor(serde_json::json!({"model": [[0.1, 2], [3, 4]]}), run.path());
        let model = ours.load(run.path()).unwrap();
        assert_eq!(array(&model), &Array::from_f32(&[2, 2], &[0.1, 2.0, 3.0, 4.0]).unwrap());

        let trained = Map::from_iter([(NUMPY_KEY, Array::from(&[7.0_f64][..]))]);
        let path = ours.save(run.path(), &trained).unwrap();
        assert_eq!(path, run.path().join("models/server.npy"));
        assert_eq!(ours.load(run.path()).unwrap(), trained);
        let error = ours.save(run.path(), &Map::new()).unwrap_err();
        assert_eq!(error.to_string(), "the model has no array `numpy_key`, which its persistor saves");
    }

    #[test]
    fn without_arguments_the_model_is_one_to_nine() {
        let run = tempfile::tempdir().unwrap();
        let model = persistor(serde_json::json!({}), run.path()).load(run.path()).unwrap();
        let expected: Vec<f32> = (1..=9_u8).map(f32::from).collect();
        assert_eq!(array(&model), &Array::from_f32(&[3, 3], &expected).unwrap());
    }

    #[test]
    fn a_named_source_comes_first_and_must_be_there() {
        let run = tempfile::tempdir().unwrap();
        let app = run.path().join("app_server");
        let json = serde_json::json!({"source_ckpt_file_full_name": "start.npy", "model_name": "m"});
        let ours = persistor(json, &app);
        assert!(matches!(ours.load(run.path()), Err(WorkflowError::File { .. })));
        let start = Array::from_i64(&[2], &[5, 6]).unwrap();
        fs::create_dir_all(app.join("custom")).unwrap();
        fs::write(app.join("custom/start.npy"), start.to_npy()).unwrap();
        assert_eq!(array(&ours.load(run.path()).unwrap()), &start);
        assert!(ours.save(run.path(), &ours.load(run.path()).unwrap()).unwrap().ends_with("models/m.npy"));
    }
}
