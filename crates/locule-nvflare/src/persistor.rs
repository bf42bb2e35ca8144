//! What keeps the model of a job.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use locule_component::{BuildCx, WorkflowError};
use locule_fobs::Map;

use crate::{JoblibModelParamPersistor, NPModelPersistor};

/// A service that keeps the model of a job, and knows the one to begin with.
pub(crate) trait Persistor: fmt::Debug + Send + Sync {
    /// The model to begin with.
    fn load(&self, run_dir: &Path) -> Result<Map, WorkflowError>;

    /// Saves the model; answers where.
    fn save(&self, run_dir: &Path, model: &Map) -> Result<PathBuf, WorkflowError>;
}

/// The component of this id, if it keeps models.
pub(crate) fn find(cx: &BuildCx<'_>, id: &str) -> Option<Arc<dyn Persistor>> {
    let numpy = cx.service::<NPModelPersistor>(id).map(|found| found as Arc<dyn Persistor>);
    numpy.or_else(|| Some(cx.service::<JoblibModelParamPersistor>(id)?))
}

impl Persistor for NPModelPersistor {
    fn load(&self, run_dir: &Path) -> Result<Map, WorkflowError> {
        NPModelPersistor::load(self, run_dir)
    }

    fn save(&self, run_dir: &Path, model: &Map) -> Result<PathBuf, WorkflowError> {
        NPModelPersistor::save(self, run_dir, model)
    }
}

impl Persistor for JoblibModelParamPersistor {
    fn load(&self, run_dir: &Path) -> Result<Map, WorkflowError> {
        JoblibModelParamPersistor::load(self, run_dir)
    }

    fn save(&self, run_dir: &Path, model: &Map) -> Result<PathBuf, WorkflowError> {
        JoblibModelParamPersistor::save(self, run_dir, model)
    }
}
