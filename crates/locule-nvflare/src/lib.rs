//! Jobs as nvflare's recipes and examples write them: components under nvflare's names, made of Locule's own.
//!
//! [`register`] makes them known to a registry, so that a server or site of Locule runs such a job without a
//! change to it. It runs no Python: scripts of the Client API are run by `locule-python`, and what is not here at all
//! stays the unknown component that it is.
//!
//! | name, below `nvflare.app_common.` | here |
//! |---|---|
//! | `workflows.fedavg.FedAvg` | [`FedAvg`] |
//! | `workflows.scatter_and_gather.ScatterAndGather` | [`ScatterAndGather`] |
//! | `aggregators.intime_accumulate_model_aggregator.InTimeAccumulateWeightedAggregator` | [`InTimeAccumulateWeightedAggregator`] |
//! | `shareablegenerators.full_model_shareable_generator.FullModelShareableGenerator` | [`FullModelShareableGenerator`] |
//! | `workflows.cyclic_ctl.CyclicController` | [`CyclicController`] |
//! | `workflows.scaffold.Scaffold` | [`Scaffold`] |
//! | `workflows.cross_site_model_eval.CrossSiteModelEval` | [`CrossSiteModelEval`] |
//! | `np.np_model_locator.NPModelLocator` | [`NPModelLocator`] |
//! | `workflows.statistics_controller.StatisticsController` | [`StatisticsController`] |
//! | `statistics.json_stats_file_persistor.JsonStatsFileWriter` | [`JsonStatsFileWriter`] |
//! | `np.np_model_persistor.NPModelPersistor` | [`NPModelPersistor`] |
//! | `app_opt.sklearn.joblib_model_param_persistor.JoblibModelParamPersistor`, below `nvflare.` | [`JoblibModelParamPersistor`] |
//! | `app_opt.tracking.tb.tb_receiver.TBAnalyticsReceiver`, below `nvflare.` | [`TBAnalyticsReceiver`] |
//! | `widgets.intime_model_selector.IntimeModelSelector` | [`IntimeModelSelector`] |
//! | `widgets.metrics_artifact_writer.MetricsArtifactWriter` | [`MetricsArtifactWriter`] |
//! | `widgets.validation_json_generator.ValidationJsonGenerator` | [`ValidationJsonGenerator`] |
//! | `widgets.convert_to_fed_event.ConvertToFedEvent` | [`ConvertToFedEvent`], which has nothing to do |
//! | `np.np_trainer.NPTrainer` | [`NPTrainer`] |
//! | `np.np_validator.NPValidator` | [`NPValidator`] |
//!
//! # Where the bits may differ
//! A mean is computed as nvflare computes it, operation by operation (see
//! [`WeightedMean`](locule_workflow::WeightedMean)), with one difference: results are folded in the order of
//! the sites' names, and at nvflare in the order in which they arrive. With one or two results the bits are
//! the same; with three or more, nvflare's own differ from run to run in the last place, and ours do not.
//!
//! ```
//! use std::path::Path;
//! use locule_component::{BuildCx, ConstructionCount, Plan, Registry, Side};
//! use locule_config::Document;
//! use locule_fobs::Array;
//! use locule_nvflare::NPTrainer;
//! use locule_workflow::LocalBoard;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let text = r#"{ "format_version": 2,
//!     "workflows": [{ "id": "controller", "path": "nvflare.app_common.workflows.fedavg.FedAvg",
//!         "args": { "num_clients": 2, "num_rounds": 3 } }],
//!     "components": [{ "id": "persistor", "path": "nvflare.app_common.np.np_model_persistor.NPModelPersistor",
//!         "args": { "model": [1, 2] } }] }"#;
//! # let folder = tempfile::tempdir()?;
//! # let run_dir = folder.path();
//! let mut registry = Registry::new();
//! locule_nvflare::register(&mut registry);
//! let document = Document::parse_json("config_fed_server.json", text)?;
//! let plan = Plan::from_document(&document, Side::Server, &registry)?;
//! let (count, app) = (ConstructionCount::new(), run_dir.join("app_server"));
//! let cx = BuildCx::new(Side::Server, "server", "job-7", Path::new("kit"), &app, &count);
//! let mut job = plan.approve(Vec::new())?.build(&registry, &cx)?;
//!
//! let mut board = LocalBoard::new(run_dir);
//! board.add_site("site-1", Box::new(NPTrainer::adding(1, run_dir.join("site-1"))));
//! board.add_site("site-2", Box::new(NPTrainer::adding(2, run_dir.join("site-2"))));
//! board.run(&mut *job.workflows[0].1)?;
//!
//! let saved = Array::from_npy(std::fs::read(run_dir.join("models/server.npy"))?.into())?;
//! assert_eq!(saved.to_f64(), [5.5, 6.5]); // three rounds of one and a half
//! # Ok(())
//! # }
//! ```
//!
//! Start with [`register`] and [`FedAvg`].

mod arrays;
mod cross_site;
mod cyclic;
mod fed_avg;
mod idle;
mod joblib_model_param_persistor;
mod metrics;
mod metrics_writer;
mod np_model_persistor;
mod np_trainer;
mod np_validator;
mod persistor;
mod round;
mod rounds;
mod run_file;
mod scaffold;
mod scatter_and_gather;
mod selector;
mod statistics;
mod stop;
mod tb_receiver;

pub use cross_site::{CrossSiteModelEval, CrossSiteModelEvalArgs};
pub use cross_site::{ModelNames, NPModelLocator, NPModelLocatorArgs};
pub use cyclic::{CyclicController, CyclicControllerArgs, RelayOrder};
pub use fed_avg::{FedAvg, FedAvgArgs};
pub use idle::{ConvertToFedEvent, ConvertToFedEventArgs};
pub use idle::{ValidationJsonGenerator, ValidationJsonGeneratorArgs};
pub use joblib_model_param_persistor::{JoblibModelParamPersistor, JoblibModelParamPersistorArgs};
pub use metrics_writer::{MetricsArtifactWriter, MetricsArtifactWriterArgs, MetricsLimits};
pub use np_model_persistor::{NPModelPersistor, NPModelPersistorArgs};
pub use np_trainer::{NPTrainer, NPTrainerArgs};
pub use np_validator::{NPValidator, NPValidatorArgs};
pub use scaffold::{Scaffold, ScaffoldArgs};
pub use scatter_and_gather::{FullModelShareableGenerator, FullModelShareableGeneratorArgs};
pub use scatter_and_gather::{InTimeAccumulateWeightedAggregator, InTimeAccumulateWeightedAggregatorArgs};
pub use scatter_and_gather::{ScatterAndGather, ScatterAndGatherArgs};
pub use selector::{IntimeModelSelector, IntimeModelSelectorArgs};
pub use statistics::{JsonStatsFileWriter, JsonStatsFileWriterArgs, Nothing, StatisticConfigs};
pub use statistics::{StatisticsController, StatisticsControllerArgs};
pub use tb_receiver::{TBAnalyticsReceiver, TBAnalyticsReceiverArgs};

/// Makes the components of this crate known to a registry.
pub fn register(registry: &mut locule_component::Registry) {
    registry
        .register::<FedAvg>()
        .register::<ScatterAndGather>()
        .register::<InTimeAccumulateWeightedAggregator>()
        .register::<FullModelShareableGenerator>()
        .register::<CyclicController>()
        .register::<Scaffold>()
        .register::<CrossSiteModelEval>()
        .register::<NPModelLocator>()
        .register::<StatisticsController>()
        .register::<JsonStatsFileWriter>()
        .register::<NPModelPersistor>()
        .register::<JoblibModelParamPersistor>()
        .register::<IntimeModelSelector>()
        .register::<MetricsArtifactWriter>()
        .register::<ValidationJsonGenerator>()
        .register::<ConvertToFedEvent>()
        .register::<TBAnalyticsReceiver>()
        .register::<NPTrainer>()
        .register::<NPValidator>();
}

/// The name under which nvflare's components for numpy keep their one array.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.np.constants`.
const NUMPY_KEY: &str = "numpy_key";

/// An argument that parses and makes no sense.
fn wrong(argument: &str, reason: impl Into<String>) -> locule_component::BuildError {
    locule_component::BuildError::Argument { argument: argument.to_owned(), reason: reason.into() }
}

/// The factors of sites must be finite and not negative.
fn check_weights(
    weights: &std::collections::BTreeMap<String, f64>,
) -> Result<(), locule_component::BuildError> {
    match weights.iter().find(|(_, weight)| !(weight.is_finite() && **weight >= 0.0)) {
        Some((site, _)) => {
            Err(wrong(&format!("aggregation_weights.{site}"), "expected a finite number, 0 or more"))
        }
        None => Ok(()),
    }
}
