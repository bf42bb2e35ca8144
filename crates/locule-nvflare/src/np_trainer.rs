//! A trainer that adds.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use locule_component::{
    AbortFlag, BuildCx, BuildError, Built, Component, ExecuteError, Executor, Kind, Task, TaskCx,
};
use locule_fobs::{Array, DataKind, Dtype, Dxo, Map, Shareable, Value};
use serde::Deserialize;
use serde_json::Number;

use crate::NUMPY_KEY;
use crate::run_file::{self, RunFile};

/// Adds a number to the array `numpy_key` of the model, where others would train.
///
/// | task | gets | returns |
/// |---|---|---|
/// | `train` | `WEIGHTS` | the same with the number added, as one step |
/// | `submit_model` | – | `WEIGHTS`: what it trained last, or `EXECUTION_RESULT_ERROR` before that |
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.np.np_trainer`. There a float16 array could be added to; here it is refused.
#[derive(Debug)]
pub struct NPTrainer {
    args: NPTrainerArgs,
    run_dir: PathBuf,
    file: RunFile,
}

/// Arguments of [`NPTrainer`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NPTrainerArgs {
    /// What is added.
    pub delta: Number,
    /// Seconds that every task takes, rounded up to halves.
    pub sleep_time: f64,
    /// Name of the task that trains.
    pub train_task_name: String,
    /// Name of the task that returns the local model.
    pub submit_model_task_name: String,
    /// File of the local model.
    pub model_name: String,
    /// Its folder, in the run's.
    pub model_dir: String,
}

impl Default for NPTrainerArgs {
    fn default() -> NPTrainerArgs {
        NPTrainerArgs {
            delta: Number::from(1),
            sleep_time: 0.0,
            train_task_name: "train".to_owned(),
            submit_model_task_name: "submit_model".to_owned(),
            model_name: "best_numpy.npy".to_owned(),
            model_dir: "model".to_owned(),
        }
    }
}

impl Component for NPTrainer {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "nvflare.app_common.np.np_trainer.NPTrainer";
    type Args = NPTrainerArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: NPTrainerArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Executor(Box::new(NPTrainer::new(args, run_file::run_dir(cx))?)))
    }
}

impl NPTrainer {
    /// That keeps its model in the folder of a run.
    ///
    /// # Errors
    /// [`BuildError::Argument`] when the file would not lie there.
    pub fn new(args: NPTrainerArgs, run_dir: impl Into<PathBuf>) -> Result<NPTrainer, BuildError> {
        let mut name = args.model_name.clone();
        if !name.ends_with(".npy") {
            name.push_str(".npy");
        }
        let file = RunFile::new(&args.model_dir, &name, "model_name")?;
        Ok(NPTrainer { args, run_dir: run_dir.into(), file })
    }

    /// That adds this number, and otherwise is as the defaults say.
    pub fn adding(delta: impl Into<Number>, run_dir: impl Into<PathBuf>) -> NPTrainer {
        let args = NPTrainerArgs { delta: delta.into(), ..NPTrainerArgs::default() };
        NPTrainer::new(args, run_dir).expect("the default file lies in the folder of the run")
    }

    fn train(&self, task: &Task) -> Result<Shareable, ExecuteError> {
        let mut model = weights(task)?;
        let array = model.get(NUMPY_KEY).and_then(Value::as_array);
        let array =
            array.ok_or_else(|| ExecuteError::BadTask(format!("the model has no array `{NUMPY_KEY}`")))?;
        let trained = add(array, &self.args.delta).map_err(ExecuteError::Failed)?;
        // As at nvflare, a model that cannot be kept is no reason to lose the result.
        if let Err((path, error)) = self.file.write(&self.run_dir, &trained.to_npy()) {
            tracing::warn!(path = %path.display(), %error, "local model not saved");
        }
        model.insert(NUMPY_KEY, trained);
        let mut dxo = Dxo::new(DataKind::Weights, model);
        dxo.meta.insert("NUM_STEPS_CURRENT_ROUND", 1_i64);
        Ok(Shareable::with_dxo(dxo))
    }

    fn local_model(&self) -> Shareable {
        match read(&self.file.in_run(&self.run_dir)) {
            Ok(array) => {
                Shareable::with_dxo(Dxo::new(DataKind::Weights, Map::from_iter([(NUMPY_KEY, array)])))
            }
            Err(error) => {
                tracing::warn!(error, "no local model");
                Shareable::with_return_code("EXECUTION_RESULT_ERROR")
            }
        }
    }
}

impl Executor for NPTrainer {
    fn execute(&mut self, task: &Task, cx: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        pause(self.args.sleep_time, cx.abort)?;
        let result = if task.name == self.args.train_task_name {
            self.train(task)?
        } else if task.name == self.args.submit_model_task_name {
            self.local_model()
        } else {
            return Err(ExecuteError::UnknownTask(task.name.clone()));
        };
        if cx.abort.is_raised() { Err(ExecuteError::Aborted) } else { Ok(result) }
    }
}

fn read(path: &Path) -> Result<Array, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    Array::from_npy(bytes.into()).map_err(|error| error.to_string())
}

/// The model that a task must carry.
pub(crate) fn weights(task: &Task) -> Result<Map, ExecuteError> {
    let bad = |reason: &str| ExecuteError::BadTask(reason.to_owned());
    let dxo = task.data.dxo().map_err(|error| ExecuteError::BadTask(error.to_string()))?;
    let dxo = dxo.ok_or_else(|| bad("it holds no DXO"))?;
    if dxo.kind != DataKind::Weights {
        return Err(ExecuteError::BadTask(format!("expected WEIGHTS, found {}", dxo.kind)));
    }
    if dxo.data.is_empty() { Err(bad("it holds no weights")) } else { Ok(dxo.data) }
}

/// Half a second again and again until the time is over, or at once when the task is aborted.
pub(crate) fn pause(seconds: f64, abort: &AbortFlag) -> Result<(), ExecuteError> {
    const STEP: f64 = 0.5;
    let (_sender, nobody) = mpsc::channel::<()>();
    let mut passed = 0.0;
    while passed < seconds {
        if abort.is_raised() {
            return Err(ExecuteError::Aborted);
        }
        nobody.recv_timeout(Duration::from_secs_f64(STEP)).ok(); // nobody sends: it is a wait
        passed += STEP;
    }
    Ok(())
}

/// Adds a number to every element, in the array's type.
fn add(array: &Array, delta: &Number) -> Result<Array, String> {
    let bytes = array.bytes();
    let float = delta.as_f64().unwrap_or(f64::NAN);
    macro_rules! integers {
        ($type:ty) => {{
            let delta = delta.as_i64().map(i128::from).or_else(|| delta.as_u64().map(i128::from));
            let delta = delta
                .and_then(|delta| <$type>::try_from(delta).ok())
                .ok_or_else(|| format!("{float} cannot be added to an array of {}", stringify!($type)))?;
            let (chunks, _) = bytes.as_chunks();
            chunks
                .iter()
                .flat_map(|chunk| <$type>::from_le_bytes(*chunk).wrapping_add(delta).to_le_bytes())
                .collect()
        }};
    }
    macro_rules! floats {
        ($type:ty) => {{
            let (chunks, _) = bytes.as_chunks();
            chunks
                .iter()
                .flat_map(|chunk| (<$type>::from_le_bytes(*chunk) + float as $type).to_le_bytes())
                .collect()
        }};
    }
    let sum: Vec<u8> = match array.dtype() {
        Dtype::F32 => floats!(f32),
        Dtype::F64 => floats!(f64),
        Dtype::I8 => integers!(i8),
        Dtype::I16 => integers!(i16),
        Dtype::I32 => integers!(i32),
        Dtype::I64 => integers!(i64),
        Dtype::U8 => integers!(u8),
        Dtype::U16 => integers!(u16),
        Dtype::U32 => integers!(u32),
        Dtype::U64 => integers!(u64),
        Dtype::Bool | Dtype::F16 => {
            return Err("arrays of float16 and of booleans cannot be added to".to_owned());
        }
    };
    Array::new(array.dtype(), array.shape(), sum.into()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use locule_component::RunContext;

    use super::*;

    fn run(
        trainer: &mut NPTrainer,
        name: &str,
        data: Shareable,
        abort: &AbortFlag,
    ) -> Result<Shareable, ExecuteError> {
        let context = RunContext::new("site-1", "job-7").open();
        let cx = TaskCx { site: "site-1", job_id: "job-7", abort, context: &context };
        trainer.execute(&Task { name: name.to_owned(), id: "1".to_owned(), data }, &cx)
    }

    fn model(array: Array) -> Shareable {
        Shareable::with_dxo(Dxo::new(DataKind::Weights, Map::from_iter([(NUMPY_KEY, array)])))
    }

    fn array(result: &Shareable) -> Array {
        result.dxo().unwrap().unwrap().data.get(NUMPY_KEY).unwrap().as_array().unwrap().clone()
    }

    #[test]
    fn it_adds_counts_one_step_and_keeps_what_it_made() {
        let folder = tempfile::tempdir().unwrap();
        let mut trainer = NPTrainer::adding(Number::from_f64(0.1).unwrap(), folder.path());
        let idle = AbortFlag::new();
        let none = run(&mut trainer, "submit_model", Shareable::new(), &idle).unwrap();
        assert_eq!(none.return_code(), "EXECUTION_RESULT_ERROR");

        let result =
            run(&mut trainer, "train", model(Array::from(&[1.0_f32, 16777216.0][..])), &idle).unwrap();
        assert_eq!(
            array(&result),
            Array::from(&[1.0_f32 + 0.1, 16777216.0][..]),
            "it is computed in float32"
        );
        assert_eq!(result.dxo().unwrap().unwrap().meta.int("NUM_STEPS_CURRENT_ROUND"), Some(1));
        let kept = run(&mut trainer, "submit_model", Shareable::new(), &idle).unwrap();
        assert_eq!(array(&kept), array(&result));
        assert!(folder.path().join("model/best_numpy.npy").is_file());
    }

    #[test]
    fn integers_take_integers_only() {
        let folder = tempfile::tempdir().unwrap();
        let ints = || model(Array::from_i64(&[2], &[3, i64::MAX]).unwrap());
        let idle = AbortFlag::new();
        let result = run(&mut NPTrainer::adding(1, folder.path()), "train", ints(), &idle).unwrap();
        assert_eq!(array(&result), Array::from_i64(&[2], &[4, i64::MIN]).unwrap());
        let half = Number::from_f64(0.5).unwrap();
        let error = run(&mut NPTrainer::adding(half, folder.path()), "train", ints(), &idle).unwrap_err();
        assert_eq!(error, ExecuteError::Failed("0.5 cannot be added to an array of i64".to_owned()));
    }

    #[test]
    fn what_it_cannot_work_on_is_refused_with_the_code_of_the_peer() {
        let folder = tempfile::tempdir().unwrap();
        let mut trainer = NPTrainer::adding(1, folder.path());
        let idle = AbortFlag::new();
        let named = Map::from_iter([("w", Array::from(&[1.0][..]))]);
        for data in [
            Shareable::new(),
            Shareable::with_dxo(Dxo::new(DataKind::WeightDiff, named.clone())),
            Shareable::with_dxo(Dxo::new(DataKind::Weights, Map::new())),
            Shareable::with_dxo(Dxo::new(DataKind::Weights, named)),
        ] {
            assert_eq!(run(&mut trainer, "train", data, &idle).unwrap_err().return_code(), "BAD_TASK_DATA");
        }
        let unknown = run(&mut trainer, "validate", Shareable::new(), &idle).unwrap_err();
        assert_eq!(unknown.return_code(), "TASK_UNKNOWN");
    }

    #[test]
    fn an_aborted_task_does_not_wait() {
        let folder = tempfile::tempdir().unwrap();
        let args = NPTrainerArgs { sleep_time: 1e9, ..NPTrainerArgs::default() };
        let mut trainer = NPTrainer::new(args, folder.path()).unwrap();
        let abort = AbortFlag::new();
        abort.raise();
        assert_eq!(run(&mut trainer, "train", Shareable::new(), &abort).unwrap_err(), ExecuteError::Aborted);
    }
}
