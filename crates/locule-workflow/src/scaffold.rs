//! Averaging with control variates.

use std::collections::BTreeMap;

use locule_component::{BuildCx, BuildError, Built, Component, Kind, Late};
use serde::Deserialize;

use crate::fed_avg::{ArraySpec, FedAvg, FedAvgArgs, wrong};
use crate::watch::{BestModelArgs, EarlyStopArgs};

/// Averages what the sites train, and lets each correct the drift of its own data (SCAFFOLD, Karimireddy et al., 2020).
///
/// A [`FedAvg`] whose task carries the server's control variates `c` as meta `scaffold_c_global` of the model's DXO: a map
/// of arrays with the names and shapes of the model, 0 at first. Each result must have, as meta
/// `scaffold_c_diff`, how the site's own changed; the weighted mean of these is added to `c`, however many of the sites
/// took part. A result without them is not usable.
///
/// Besides what FedAvg keeps, `models/controls.npz` has `c`. Sums and model are there twice in memory.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.workflows.scaffold`.
///
/// ```
/// use locule_component::{ExecuteError, Executor, Task, TaskCx};
/// use locule_fobs::{Array, Map, Shareable};
/// use locule_workflow::{LocalBoard, Scaffold, load_npz};
///
/// /// One step of the rate 0.5 on (x - target)² / 2, corrected by the control variates.
/// struct Site {
///     target: f64,
///     own: f64,
/// }
///
/// impl Executor for Site {
///     fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
///         let mut dxo = task.data.dxo().ok().flatten().ok_or(ExecuteError::BadTask("no model".into()))?;
///         let number = |map: &Map| map.get("x").and_then(|x| x.as_array()).map_or(0.0, |x| x.to_f64()[0]);
///         let (x, all) = (number(&dxo.data), dxo.meta.map("scaffold_c_global").map_or(0.0, number));
///         let y = x - 0.5 * ((x - self.target) - self.own + all);
///         let new = self.own - all + (x - y) / 0.5;
///         dxo.data.insert("x", Array::from(&[y][..]));
///         dxo.meta.insert("scaffold_c_diff", Map::from_iter([("x", Array::from(&[new - self.own][..]))]));
///         self.own = new;
///         Ok(Shareable::with_dxo(dxo))
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let mut board = LocalBoard::new(folder.path());
/// board.add_site("north", Box::new(Site { target: 1.0, own: 0.0 }));
/// board.add_site("south", Box::new(Site { target: 5.0, own: 0.0 }));
/// let args = serde_json::json!({ "num_rounds": 30, "model": { "x": { "shape": [1] } } });
/// board.run(&mut Scaffold::workflow(serde_json::from_value(args)?)?)?;
/// let x = load_npz(&folder.path().join("models/global.npz"))?;
/// let x = x.get("x").and_then(|x| x.as_array()).map_or(0.0, |x| x.to_f64()[0]);
/// assert!((x - 3.0).abs() < 1e-3, "{x}");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Scaffold;

/// Arguments of [`Scaffold`]; they mean what those of [`FedAvgArgs`] mean.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaffoldArgs {
    /// Usable results that a round needs; 0 means those of all sites of the job.
    #[serde(default)]
    pub min_clients: usize,
    /// How many rounds to run.
    #[serde(default = "five")]
    pub num_rounds: u64,
    /// Number of the first round.
    #[serde(default)]
    pub start_round: u64,
    /// What the sites are asked to do.
    #[serde(default = "train")]
    pub task_name: String,
    /// The model to begin with; there must be one.
    pub model: BTreeMap<String, ArraySpec>,
    /// Seconds to wait for the other sites once enough usable results are in.
    #[serde(default = "thirty")]
    pub grace_seconds: f64,
    /// A factor for the weight of a site's results; 1 for sites that are not named.
    #[serde(default)]
    pub aggregation_weights: BTreeMap<String, f64>,
    /// The metric by which the best model is kept.
    #[serde(default)]
    pub best: Option<BestModelArgs>,
    /// When to stop before the last round.
    #[serde(default)]
    pub stop: Option<EarlyStopArgs>,
}

fn five() -> u64 {
    5
}

fn thirty() -> f64 {
    30.0
}

fn train() -> String {
    "train".to_owned()
}

impl Scaffold {
    /// The workflow that the arguments describe.
    ///
    /// # Errors
    /// [`BuildError::Argument`] names the argument that makes no sense.
    pub fn workflow(args: ScaffoldArgs) -> Result<FedAvg, BuildError> {
        if args.model.is_empty() {
            return Err(wrong("model", "there must be one to begin with"));
        }
        Scaffold::from_any_model(args)
    }

    /// The same for arguments without a model, which [`FedAvg::starting_from`] must give it.
    ///
    /// # Errors
    /// As [`Scaffold::workflow`].
    pub fn from_any_model(args: ScaffoldArgs) -> Result<FedAvg, BuildError> {
        let ScaffoldArgs { min_clients, num_rounds, start_round, task_name, model, .. } = args;
        let ScaffoldArgs { grace_seconds, aggregation_weights, best, stop, .. } = args;
        let args = FedAvgArgs {
            min_clients,
            num_rounds,
            start_round,
            task_name,
            model,
            grace_seconds,
            aggregation_weights,
            late: Late::Drop,
            fedprox_mu: None,
            rule: None,
            optimizer: None,
            best,
            stop,
        };
        FedAvg::new(args)?.with_controls().map_err(|reason| wrong("model", reason))
    }
}

impl Component for Scaffold {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "locule.workflow.Scaffold";
    type Args = ScaffoldArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: ScaffoldArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Scaffold::workflow(args).map(|workflow| Built::Workflow(Box::new(workflow)))
    }
}
