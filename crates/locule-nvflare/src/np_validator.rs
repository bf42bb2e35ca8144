//! A validator that guesses.

use locule_component::{BuildCx, BuildError, Built, Component, ExecuteError, Executor, Kind, Task, TaskCx};
use locule_fobs::{DataKind, Dxo, Map, Shareable, Value};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::Deserialize;

use crate::NUMPY_KEY;
use crate::np_trainer::{pause, weights};

/// Answers the task `validate` with an `accuracy` that is made up: the sum of the array's elements over their maximum,
/// plus a random number from 0 to 1. To `submit_model` it answers that it has none, which is no error.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.np.np_validator`.
#[derive(Debug)]
pub struct NPValidator {
    args: NPValidatorArgs,
    random: StdRng,
}

/// Arguments of [`NPValidator`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NPValidatorArgs {
    /// Has no effect, at nvflare neither.
    pub epsilon: f64,
    /// Seconds that every task takes, rounded up to halves.
    pub sleep_time: f64,
}

impl Default for NPValidatorArgs {
    fn default() -> NPValidatorArgs {
        NPValidatorArgs { epsilon: 1.0, sleep_time: 0.0 }
    }
}

impl Component for NPValidator {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "nvflare.app_common.np.np_validator.NPValidator";
    type Args = NPValidatorArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: NPValidatorArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        let random = cx.seed().map_or_else(StdRng::from_os_rng, StdRng::from_seed);
        Ok(Built::Executor(Box::new(NPValidator { random, ..NPValidator::new(args) })))
    }
}

impl NPValidator {
    /// With these arguments.
    pub fn new(args: NPValidatorArgs) -> NPValidator {
        NPValidator { args, random: StdRng::from_os_rng() }
    }
}

impl Executor for NPValidator {
    fn execute(&mut self, task: &Task, cx: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        pause(self.args.sleep_time, cx.abort)?;
        match task.name.as_str() {
            "validate" => {
                let accuracy = accuracy(task)? + self.random.random::<f64>();
                let metrics = Map::from_iter([("accuracy", accuracy)]);
                Ok(Shareable::with_dxo(Dxo::new(DataKind::Metrics, metrics)))
            }
            "submit_model" => Ok(Shareable::new()),
            unknown => Err(ExecuteError::UnknownTask(unknown.to_owned())),
        }
    }
}

fn accuracy(task: &Task) -> Result<f64, ExecuteError> {
    let model = weights(task)?;
    let array = model.get(NUMPY_KEY).and_then(Value::as_array);
    let array =
        array.ok_or_else(|| ExecuteError::BadTask(format!("the model has no array `{NUMPY_KEY}`")))?;
    let elements = array.to_f64();
    let most = elements.iter().copied().reduce(f64::max);
    let most = most.ok_or_else(|| ExecuteError::Failed(format!("`{NUMPY_KEY}` is empty")))?;
    Ok(elements.into_iter().map(|x| x / most).sum())
}

#[cfg(test)]
mod tests {
    use locule_component::{AbortFlag, RunContext};
    use locule_fobs::Array;

    use super::*;

    fn run(name: &str, data: Shareable) -> Result<Shareable, ExecuteError> {
        let (context, abort) = (RunContext::new("site-1", "job-7").open(), AbortFlag::new());
        let cx = TaskCx { site: "site-1", job_id: "job-7", abort: &abort, context: &context };
        let task = Task { name: name.to_owned(), id: "1".to_owned(), data };
        NPValidator::new(NPValidatorArgs::default()).execute(&task, &cx)
    }

    #[test]
    fn the_accuracy_is_at_most_one_above_the_sum_over_the_maximum() {
        let model = Map::from_iter([(NUMPY_KEY, Array::from(&[1.0_f32, 2.0, 4.0][..]))]);
        let result = run("validate", Shareable::with_dxo(Dxo::new(DataKind::Weights, model))).unwrap();
        let dxo = result.dxo().unwrap().unwrap();
        assert_eq!(dxo.kind, DataKind::Metrics);
        assert!((1.75..2.75).contains(&dxo.data.float("accuracy").unwrap()));
    }

    #[test]
    fn it_has_no_model_and_knows_no_other_task() {
        assert_eq!(run("submit_model", Shareable::new()).unwrap().return_code(), "OK");
        assert_eq!(run("train", Shareable::new()).unwrap_err().return_code(), "TASK_UNKNOWN");
        assert_eq!(run("validate", Shareable::new()).unwrap_err().return_code(), "BAD_TASK_DATA");
    }
}
