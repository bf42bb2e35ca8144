//! The demo's job, as a folder to submit.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use thiserror::Error;

use crate::logistic::Training;

/// What the demo asks of a federation.
#[derive(Debug, Clone, PartialEq)]
pub struct DemoJob {
    /// Name of the job.
    pub name: String,
    /// How many sites take part; every round needs all of them.
    pub sites: usize,
    /// Rounds of averaging.
    pub rounds: u64,
    /// Feature columns of the data.
    pub features: usize,
    /// How each site trains in a round.
    pub training: Training,
}

impl Default for DemoJob {
    fn default() -> DemoJob {
        DemoJob { name: "demo".to_owned(), sites: 3, rounds: 20, features: 30, training: Training::default() }
    }
}

impl DemoJob {
    /// `meta.json`.
    pub fn meta(&self) -> Json {
        json!({
            "name": self.name,
            "resource_spec": {},
            "min_clients": self.sites,
            "deploy_map": { "app": ["@ALL"] },
        })
    }

    /// `app/config/config_fed_server.json`.
    pub fn server_config(&self) -> Json {
        json!({
            "format_version": 2,
            "workflows": [
                {
                    "id": "feature_moments",
                    "path": "locule.workflow.FeatureMoments",
                    "args": { "min_clients": self.sites },
                },
                {
                    "id": "fed_avg",
                    "path": "locule.workflow.FedAvg",
                    "args": {
                        "min_clients": self.sites,
                        "num_rounds": self.rounds,
                        "model": {
                            "weights": { "shape": [self.features] },
                            "bias": { "shape": [1] },
                        },
                    },
                },
            ],
        })
    }

    /// `app/config/config_fed_client.json`.
    pub fn client_config(&self) -> Json {
        let Training { epochs, learning_rate, l2, batch_size, seed } = self.training;
        json!({
            "format_version": 2,
            "executors": [
                {
                    "tasks": ["moments", "standardise", "train"],
                    "executor": {
                        "path": "locule.demo.LogisticRegression",
                        "args": {
                            "data": "data.csv",
                            "epochs": epochs,
                            "learning_rate": learning_rate,
                            "l2": l2,
                            "batch_size": batch_size,
                            "seed": seed,
                        },
                    },
                },
            ],
        })
    }
}

/// Writes the job folder, in the layout and grammar that nvflare's jobs have, and makes the folders it needs.
///
/// # Errors
/// [`WriteJobError`] names the file.
pub fn write_job(dir: &Path, job: &DemoJob) -> Result<(), WriteJobError> {
    let config = dir.join("app/config");
    fs::create_dir_all(&config).map_err(|source| WriteJobError { path: config.clone(), source })?;
    for (path, content) in [
        (dir.join("meta.json"), job.meta()),
        (config.join("config_fed_server.json"), job.server_config()),
        (config.join("config_fed_client.json"), job.client_config()),
    ] {
        fs::write(&path, format!("{content:#}\n")).map_err(|source| WriteJobError { path, source })?;
    }
    Ok(())
}

/// The job folder was not written.
#[derive(Debug, Error)]
#[error("cannot write {}", path.display())]
pub struct WriteJobError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the file system said.
    #[source]
    pub source: std::io::Error,
}
