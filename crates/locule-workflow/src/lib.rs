//! Federated averaging and its kin, with aggregation in constant memory.
//!
//! A [`FedAvg`] is a workflow: it puts training tasks on a [`TaskBoard`](locule_component::TaskBoard), folds
//! every result into one [`WeightedMean`] as it comes, and saves the model of each round as an NPZ
//! file. In place of the mean a [`Rule`] may stand that lying sites cannot lead astray, and an [`Optimizer`] may take
//! the step to the next model. [`Scaffold`] adds control variates; [`Cyclic`] hands one model from site to site;
//! [`CrossSiteEvaluation`] lets every site judge every model; [`Statistics`] computes figures of data that nobody sees
//! together, and [`FeatureMoments`] standardises features by them. Nothing here knows a network: who carries the tasks
//! is the board's business, and [`LocalBoard`] carries them to executors in the same process.
//!
//! ```
//! use locule_component::{ExecuteError, Executor, Task, TaskCx};
//! use locule_fobs::{Array, Map, Shareable};
//! use locule_workflow::{FedAvg, LocalBoard, load_npz};
//!
//! /// Moves every weight halfway to a target of its own.
//! struct Halfway(f64);
//!
//! impl Executor for Halfway {
//!     fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
//!         let mut dxo = task.data.dxo().ok().flatten().ok_or(ExecuteError::BadTask("no model".into()))?;
//!         let w = dxo.data.get("w").and_then(|w| w.as_array()).map_or(0.0, |w| w.to_f64()[0]);
//!         dxo.data.insert("w", Array::from(&[(w + self.0) / 2.0][..]));
//!         Ok(Shareable::with_dxo(dxo))
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let run_dir = folder.path();
//! let args = serde_json::json!({ "num_rounds": 20, "model": { "w": { "shape": [1] } } });
//! let mut workflow = FedAvg::new(serde_json::from_value(args)?)?;
//! let mut board = LocalBoard::new(run_dir);
//! board.add_site("north", Box::new(Halfway(1.0)));
//! board.add_site("south", Box::new(Halfway(2.0)));
//! board.run(&mut workflow)?;
//!
//! let model: Map = load_npz(&run_dir.join("models/global.npz"))?;
//! let w = model.get("w").and_then(|w| w.as_array()).map(Array::to_f64);
//! assert!((w.expect("it was saved")[0] - 1.5).abs() < 1e-5);
//! # Ok(())
//! # }
//! ```
//!
//! Start with [`FedAvg`], [`WeightedMean`] and [`register`]; `docs/workflows.md` has all of it in one table.

mod cross_site;
mod cyclic;
mod feature_moments;
mod fed_avg;
mod figures;
mod gather;
mod local_board;
mod mean;
mod moments;
mod npz;
mod optimizer;
mod record;
mod robust;
mod scaffold;
mod site_statistics;
mod statistics;
mod watch;

pub use cross_site::{CrossSiteEvaluation, CrossSiteEvaluationArgs};
pub use cyclic::{Cyclic, CyclicArgs, Order};
pub use feature_moments::{FeatureMoments, FeatureMomentsArgs};
pub use fed_avg::{AfterRound, ArraySpec, FedAvg, FedAvgArgs, FloatType};
pub use local_board::LocalBoard;
pub use mean::{MeanError, UnusableUpdate, WeightedMean};
pub use moments::{Moments, MomentsError};
pub use npz::{LoadError, SaveError, load_npz, save_npz};
pub use optimizer::{
    FedAdagrad, FedAdagradArgs, FedAdam, FedAdamArgs, FedAvgM, FedAvgMArgs, FedYogi, Optimizer,
};
pub use robust::{Krum, KrumArgs, Median, MedianArgs, Rule, TrimmedMean, TrimmedMeanArgs, UpdateSpool};
pub use scaffold::{Scaffold, ScaffoldArgs};
pub use site_statistics::SiteStatistics;
pub use statistics::{Bins, Figure, Statistics, StatisticsArgs};
pub use watch::{BestModelArgs, Better, EarlyStopArgs};

/// Makes the workflows of this crate known to a registry.
pub fn register(registry: &mut locule_component::Registry) {
    registry
        .register::<FedAvg>()
        .register::<FedAvgM>()
        .register::<FedAdam>()
        .register::<FedYogi>()
        .register::<FedAdagrad>()
        .register::<Median>()
        .register::<TrimmedMean>()
        .register::<Krum>()
        .register::<Scaffold>()
        .register::<Cyclic>()
        .register::<CrossSiteEvaluation>()
        .register::<Statistics>()
        .register::<FeatureMoments>();
}
