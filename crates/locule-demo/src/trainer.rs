//! The executor that trains at a site.

use std::fs;
use std::path::{Component as Part, Path, PathBuf};

use locule_component::{BuildCx, BuildError, Built, Component, ExecuteError, Executor, Kind, Task, TaskCx};
use locule_fobs::{Array, DataKind, Dtype, Dxo, Map, Shareable, Value};
use serde::Deserialize;

use crate::data::{ReadRowsError, Rows};
use crate::logistic::{Parameters, Standardised, Training};
use crate::metrics::Judgement;
use crate::model::moments;

/// Trains a logistic regression on the rows of a site.
///
/// | task | gets | returns |
/// |---|---|---|
/// | `moments` | – | `STATISTICS`: [moments](locule_workflow::Moments) of the site's columns |
/// | `standardise` | `mean`, `scale`: float64, one value a column | – |
/// | `train` | `WEIGHTS`: `weights`, one float64 a column, and `bias`, one float64 | the same, trained |
///
/// The result of `train` carries as meta the number of rows (`NUM_STEPS_CURRENT_ROUND`) and, as `initial_metrics`, the
/// `loss` and `accuracy` that the model had on them when it came. `train` needs `standardise` before it, in this
/// process or in an earlier one of the same run: what came then is kept in the run's folder.
/// The header `current_round` is part of the seed, and is returned with the result.
#[derive(Debug)]
pub struct LogisticRegression {
    training: Training,
    rows: Rows,
    standardised: Option<Standardised>,
    /// Where the standardisation is kept, if anywhere.
    kept: Option<PathBuf>,
}

/// Arguments of [`LogisticRegression`]; all have defaults, which are those of [`Training`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainerArgs {
    /// The site's rows: a file as [`Rows::read_csv`] reads it, in the site's kit; a path relative to the kit.
    pub data: String,
    /// Passes over the rows in one round.
    pub epochs: u32,
    /// Step along the negative gradient.
    pub learning_rate: f64,
    /// Weight of the penalty `l2 / 2 · |w|²` on the mean loss.
    pub l2: f64,
    /// Rows a step.
    pub batch_size: usize,
    /// Decides the order of the rows, together with site and round.
    pub seed: u64,
}

impl Default for TrainerArgs {
    fn default() -> TrainerArgs {
        let Training { epochs, learning_rate, l2, batch_size, seed } = Training::default();
        TrainerArgs { data: "data.csv".to_owned(), epochs, learning_rate, l2, batch_size, seed }
    }
}

impl Component for LogisticRegression {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "locule.demo.LogisticRegression";
    type Args = TrainerArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: TrainerArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        let training = args.training()?;
        let rows = read_rows(cx.kit_dir, &args.data)?;
        let run_dir = cx.app_dir.parent().unwrap_or(cx.app_dir);
        Ok(Built::Executor(Box::new(LogisticRegression::new(rows, training).kept_in(run_dir))))
    }
}

impl LogisticRegression {
    /// For these rows.
    pub fn new(rows: Rows, training: Training) -> LogisticRegression {
        LogisticRegression { training, rows, standardised: None, kept: None }
    }

    /// The same that keeps its standardisation in this folder, and begins with the one that it finds there.
    #[must_use]
    pub fn kept_in(mut self, run_dir: &Path) -> LogisticRegression {
        let kept = run_dir.join("standardisation.json");
        let read = fs::read(&kept).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
        if let Some([mean, scale]) =
            read.map(|bits| bits.map(|column| column.into_iter().map(f64::from_bits)))
        {
            let (mean, scale): (Vec<f64>, Vec<f64>) = (mean.collect(), scale.collect());
            let fits =
                |column: &[f64]| column.len() == self.rows.width() && column.iter().all(|x| x.is_finite());
            if fits(&mean) && fits(&scale) && scale.iter().all(|scale| *scale > 0.0) {
                self.standardised = Some(Standardised::new(&self.rows, &mean, &scale));
            }
        }
        self.kept = Some(kept);
        self
    }

    fn standardise(&mut self, task: &Task) -> Result<Shareable, ExecuteError> {
        let dxo = input(task, DataKind::Statistics)?;
        let mean = column(&dxo, "mean", self.rows.width())?;
        let scale = column(&dxo, "scale", self.rows.width())?;
        if scale.iter().any(|&scale| scale <= 0.0) {
            return Err(ExecuteError::BadTask("`scale` must be above 0".to_owned()));
        }
        if let Some(kept) = &self.kept {
            let bits: Kept = [&mean, &scale].map(|column| column.iter().map(|x| x.to_bits()).collect());
            let keep = || {
                let new = kept.with_extension("new");
                fs::write(&new, serde_json::to_vec(&bits)?)?;
                fs::rename(new, kept)
            };
            keep()
                .map_err(|error| ExecuteError::Failed(format!("cannot keep the standardisation: {error}")))?;
        }
        self.standardised = Some(Standardised::new(&self.rows, &mean, &scale));
        Ok(Shareable::new())
    }

    fn train(&self, task: &Task, cx: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        let rows = self
            .standardised
            .as_ref()
            .ok_or_else(|| ExecuteError::Failed("task `standardise` must come before `train`".to_owned()))?;
        let round = match task.data.header(CURRENT_ROUND).map(|round| round.as_i64().map(u64::try_from)) {
            None => 0,
            Some(Some(Ok(round))) => round,
            Some(_) => return Err(ExecuteError::BadTask(format!("`{CURRENT_ROUND}` is not a round"))),
        };
        let dxo = input(task, DataKind::Weights)?;
        let weights = column(&dxo, "weights", self.rows.width())?;
        let bias = column(&dxo, "bias", 1)?[0];
        let mut parameters = Parameters { weights, bias };

        let before = judge(&parameters, rows);
        self.training
            .run(&mut parameters, rows, cx.site, round, || cx.abort.is_raised())
            .map_err(|_| ExecuteError::Aborted)?;
        if !parameters.is_finite() {
            return Err(ExecuteError::Failed("training diverged; lower `learning_rate`".to_owned()));
        }

        let mut dxo = Dxo::new(
            DataKind::Weights,
            Map::from_iter([
                ("weights", Array::from(&parameters.weights[..])),
                ("bias", Array::from(&[parameters.bias][..])),
            ]),
        );
        dxo.meta.insert("NUM_STEPS_CURRENT_ROUND", rows.len() as u64);
        dxo.meta.insert(
            "initial_metrics",
            Map::from_iter([("loss", before.loss), ("accuracy", before.accuracy)]),
        );
        let mut result = Shareable::with_dxo(dxo);
        result.set_header(CURRENT_ROUND, round);
        Ok(result)
    }
}

impl Executor for LogisticRegression {
    fn execute(&mut self, task: &Task, cx: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        match task.name.as_str() {
            "moments" => Ok(Shareable::with_dxo(moments(&self.rows).to_dxo())),
            "standardise" => self.standardise(task),
            "train" => self.train(task, cx),
            unknown => Err(ExecuteError::UnknownTask(unknown.to_owned())),
        }
    }
}

/// Mean and scale of each column, as the bits of float64: text would round them.
type Kept = [Vec<u64>; 2];

const CURRENT_ROUND: &str = "current_round";

impl TrainerArgs {
    fn training(&self) -> Result<Training, BuildError> {
        let wrong = |argument: &str, reason: &str| {
            Err(BuildError::Argument { argument: argument.to_owned(), reason: reason.to_owned() })
        };
        if self.epochs == 0 {
            return wrong("epochs", "at least one pass is needed");
        }
        if self.batch_size == 0 {
            return wrong("batch_size", "a batch has at least one row");
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return wrong("learning_rate", "expected a finite number above 0");
        }
        if !(self.l2.is_finite() && self.l2 >= 0.0) {
            return wrong("l2", "expected a finite number, 0 or more");
        }
        let &TrainerArgs { data: _, epochs, learning_rate, l2, batch_size, seed } = self;
        Ok(Training { epochs, learning_rate, l2, batch_size, seed })
    }
}

/// Reads the site's rows, from inside its kit only: a job must not choose any file of the machine.
fn read_rows(kit: &Path, data: &str) -> Result<Rows, BuildError> {
    let outside = || {
        let reason = format!("`{}` is not a path inside the site's kit", data.escape_debug());
        BuildError::Argument { argument: "data".to_owned(), reason }
    };
    let relative = Path::new(data);
    if data.is_empty() || !relative.components().all(|part| matches!(part, Part::Normal(_) | Part::CurDir)) {
        return Err(outside());
    }
    // The server and the submitter hear of this: the path below the kit is the job's own word, the rest is the
    // site's.
    let named = data.escape_debug();
    let resolved = |path: PathBuf| {
        path.canonicalize().map_err(|error| {
            BuildError::Unavailable(format!("cannot read `{named}` in the site's kit: {error}"))
        })
    };
    let path = resolved(kit.join(relative))?;
    if !path.starts_with(resolved(kit.to_owned())?) {
        return Err(outside());
    }
    Rows::read_csv(&path).map_err(|error| {
        let what = match error {
            ReadRowsError::Unreadable { source, .. } => source.to_string(),
            ReadRowsError::TooLarge { len, max, .. } => format!("{len} bytes; at most {max} are read"),
            ReadRowsError::Malformed { line, reason, .. } => format!("line {line}: {reason}"),
        };
        BuildError::Unavailable(format!("cannot use `{named}` in the site's kit: {what}"))
    })
}

fn judge(parameters: &Parameters, rows: &Standardised) -> Judgement {
    let (scores, labels): (Vec<f64>, Vec<bool>) =
        rows.iter().map(|(features, label)| (parameters.score(features), label)).unzip();
    Judgement::of(&scores, &labels)
}

/// The DXO that a task must carry.
fn input(task: &Task, kind: DataKind) -> Result<Dxo, ExecuteError> {
    match task.data.dxo() {
        Ok(Some(dxo)) if dxo.kind == kind => Ok(dxo),
        Ok(Some(dxo)) => {
            Err(ExecuteError::BadTask(format!("expected a DXO of kind {kind}, found {}", dxo.kind)))
        }
        Ok(None) => Err(ExecuteError::BadTask(format!("expected a DXO of kind {kind}"))),
        Err(error) => Err(ExecuteError::BadTask(error.to_string())),
    }
}

/// A vector of `len` finite float64.
fn column(dxo: &Dxo, name: &str, len: usize) -> Result<Vec<f64>, ExecuteError> {
    let array = dxo.data.get(name).and_then(Value::as_array);
    match array.filter(|array| array.dtype() == Dtype::F64 && array.shape() == [len]).map(Array::to_f64) {
        Some(values) if values.iter().all(|x| x.is_finite()) => Ok(values),
        Some(_) => Err(ExecuteError::BadTask(format!("`{name}` is not finite"))),
        None => Err(ExecuteError::BadTask(format!("`{name}` must be an array of {len} float64"))),
    }
}

#[cfg(test)]
mod tests {
    use locule_component::{AbortFlag, ConstructionCount, RunContext, Side};

    use super::*;

    fn rows() -> Rows {
        let mut rows = Rows::new(["a", "b"]);
        for (features, label) in
            [([1.0, 2.0], true), ([-1.0, 0.5], false), ([0.25, -2.0], true), ([3.0, 1.0], false)]
        {
            rows.push(&features, label).unwrap();
        }
        rows
    }

    fn trainer() -> LogisticRegression {
        LogisticRegression::new(rows(), Training::default())
    }

    fn statistics(mean: &[f64], scale: &[f64]) -> Shareable {
        let data = Map::from_iter([("mean", Array::from(mean)), ("scale", Array::from(scale))]);
        Shareable::with_dxo(Dxo::new(DataKind::Statistics, data))
    }

    fn weights(weights: &[f64], bias: f64) -> Shareable {
        let data = Map::from_iter([("weights", Array::from(weights)), ("bias", Array::from(&[bias][..]))]);
        Shareable::with_dxo(Dxo::new(DataKind::Weights, data))
    }

    fn run(trainer: &mut LogisticRegression, name: &str, data: Shareable) -> Result<Shareable, ExecuteError> {
        run_unless(&AbortFlag::new(), trainer, name, data)
    }

    fn run_unless(
        abort: &AbortFlag,
        trainer: &mut LogisticRegression,
        name: &str,
        data: Shareable,
    ) -> Result<Shareable, ExecuteError> {
        let context = RunContext::new("north", "job").open();
        let cx = TaskCx { site: "north", job_id: "job", abort, context: &context };
        trainer.execute(&Task { name: name.to_owned(), id: "1".to_owned(), data }, &cx)
    }

    #[test]
    fn moments_describe_the_rows() {
        let result = run(&mut trainer(), "moments", Shareable::new()).unwrap();
        let moments = locule_workflow::Moments::from_dxo(&result.dxo().unwrap().unwrap()).unwrap();
        assert_eq!(moments.count(), 4);
        assert!((moments.mean()[0] - 0.8125).abs() < 1e-15 && (moments.mean()[1] - 0.375).abs() < 1e-15);
    }

    #[test]
    fn training_returns_weights_with_their_number_of_rows_and_the_metrics_before() {
        let mut trainer = trainer();
        run(&mut trainer, "standardise", statistics(&[0.0, 0.0], &[1.0, 1.0])).unwrap();
        let mut data = weights(&[0.0, 0.0], 0.0);
        data.set_header("current_round", 3_i64);
        let result = run(&mut trainer, "train", data).unwrap();
        let dxo = result.dxo().unwrap().unwrap();
        assert_eq!(dxo.kind, DataKind::Weights);
        assert_eq!(dxo.meta.int("NUM_STEPS_CURRENT_ROUND"), Some(4));
        let metrics = dxo.meta.map("initial_metrics").unwrap();
        assert!((metrics.float("loss").unwrap() - std::f64::consts::LN_2).abs() < 1e-15);
        assert_eq!(metrics.float("accuracy"), Some(0.5));
        assert_eq!(result.headers.int("current_round"), Some(3));

        let mut expected = Parameters::zeros(2);
        let rows = Standardised::new(&rows(), &[0.0, 0.0], &[1.0, 1.0]);
        Training::default().run(&mut expected, &rows, "north", 3, || false).unwrap();
        assert_eq!(dxo.data.get("weights").unwrap().as_array().unwrap().to_f64(), expected.weights);
        assert_eq!(dxo.data.get("bias").unwrap().as_array().unwrap().to_f64(), [expected.bias]);
    }

    #[track_caller]
    fn check_error(name: &str, data: Shareable, code: &str, text: &str) {
        let mut trainer = trainer();
        run(&mut trainer, "standardise", statistics(&[0.0, 0.0], &[1.0, 1.0])).unwrap();
        let error = run(&mut trainer, name, data).unwrap_err();
        assert_eq!((error.return_code(), error.to_string().as_str()), (code, text));
    }

    #[test]
    fn unusable_tasks_are_refused_with_their_reason() {
        check_error("validate", Shareable::new(), "TASK_UNKNOWN", "unknown task `validate`");
        let bad = "BAD_TASK_DATA";
        check_error("train", Shareable::new(), bad, "unusable task data: expected a DXO of kind WEIGHTS");
        let statistics_text = "unusable task data: expected a DXO of kind WEIGHTS, found STATISTICS";
        check_error("train", statistics(&[], &[]), bad, statistics_text);
        let short = "unusable task data: `weights` must be an array of 2 float64";
        check_error("train", weights(&[0.0], 0.0), bad, short);
        check_error("train", weights(&[0.0, 0.0], f64::NAN), bad, "unusable task data: `bias` is not finite");
        let mut round = weights(&[0.0, 0.0], 0.0);
        round.set_header("current_round", -1_i64);
        check_error("train", round, bad, "unusable task data: `current_round` is not a round");
        let flat = statistics(&[0.0, 0.0], &[1.0, 0.0]);
        check_error("standardise", flat, bad, "unusable task data: `scale` must be above 0");
    }

    #[test]
    fn weights_that_are_no_numbers_do_not_leave_the_site() {
        let training = Training { learning_rate: 1e308, l2: 1e3, ..Training::default() };
        let mut trainer = LogisticRegression::new(rows(), training);
        run(&mut trainer, "standardise", statistics(&[0.0, 0.0], &[1.0, 1.0])).unwrap();
        let error = run(&mut trainer, "train", weights(&[1.0, 1.0], 0.0)).unwrap_err();
        assert_eq!(error.to_string(), "training diverged; lower `learning_rate`");
    }

    #[test]
    fn rows_without_columns_train_only_the_bias() {
        let mut rows = Rows::new([""; 0]);
        rows.push(&[], true).unwrap();
        let mut trainer = LogisticRegression::new(rows, Training::default());
        run(&mut trainer, "moments", Shareable::new()).unwrap();
        run(&mut trainer, "standardise", statistics(&[], &[])).unwrap();
        let result = run(&mut trainer, "train", weights(&[], 0.0)).unwrap();
        let bias = result.dxo().unwrap().unwrap().data.get("bias").unwrap().as_array().unwrap().to_f64();
        assert!(bias[0] > 0.0);
    }

    #[test]
    fn training_needs_the_standardisation_first() {
        let error = run(&mut trainer(), "train", weights(&[0.0, 0.0], 0.0)).unwrap_err();
        assert_eq!(error.to_string(), "task `standardise` must come before `train`");
    }

    #[test]
    fn another_process_of_the_run_trains_on_as_the_first_would() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = trainer().kept_in(folder.path());
        run(&mut first, "standardise", statistics(&[0.1, 0.2], &[1.0 / 3.0, 0.7])).unwrap();
        let mut second = trainer().kept_in(folder.path());
        let [of_first, of_second] = [&mut first, &mut second].map(|trainer| {
            let trained = run(trainer, "train", weights(&[0.0, 0.0], 0.0)).unwrap();
            trained.dxo().unwrap().unwrap().data.get("weights").unwrap().as_array().unwrap().to_f64()
        });
        assert_eq!(of_first, of_second);
        fs::write(folder.path().join("standardisation.json"), "[[1], [2, 3]]").unwrap();
        assert!(trainer().kept_in(folder.path()).standardised.is_none());
    }

    #[test]
    fn a_raised_flag_aborts_training() {
        let mut trainer = trainer();
        run(&mut trainer, "standardise", statistics(&[0.0, 0.0], &[1.0, 1.0])).unwrap();
        let abort = AbortFlag::new();
        abort.raise();
        let error = run_unless(&abort, &mut trainer, "train", weights(&[0.0, 0.0], 0.0)).unwrap_err();
        assert_eq!(error, ExecuteError::Aborted);
    }

    fn build(kit: &Path, args: serde_json::Value) -> Result<Built, BuildError> {
        let constructed = ConstructionCount::new();
        let cx = BuildCx::new(Side::Site, "north", "job", kit, kit, &constructed);
        LogisticRegression::build(serde_json::from_value(args).unwrap(), &cx)
    }

    #[test]
    fn the_data_lie_in_the_kit_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let kit = folder.path().join("kit");
        fs::create_dir_all(kit.join("local")).unwrap();
        rows().write_csv(&kit.join("data.csv")).unwrap();
        rows().write_csv(&kit.join("local/rows.csv")).unwrap();
        rows().write_csv(&folder.path().join("secret.csv")).unwrap();
        build(&kit, serde_json::json!({})).unwrap();
        build(&kit, serde_json::json!({ "data": "./local/rows.csv" })).unwrap();

        let absolute = folder.path().join("secret.csv").display().to_string();
        for path in ["../secret.csv", "local/../../secret.csv", absolute.as_str(), ""] {
            let error = build(&kit, serde_json::json!({ "data": path })).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("argument `data`: `{path}` is not a path inside the site's kit")
            );
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(folder.path().join("secret.csv"), kit.join("link.csv")).unwrap();
            let error = build(&kit, serde_json::json!({ "data": "link.csv" })).unwrap_err();
            assert_eq!(error.to_string(), "argument `data`: `link.csv` is not a path inside the site's kit");
        }
        let error = build(&kit, serde_json::json!({ "data": "absent.csv" })).unwrap_err();
        assert!(error.to_string().contains("`absent.csv` in the site's kit: No such file"), "{error}");
        let own = folder.path().display().to_string();
        assert!(!error.to_string().contains(&own), "a site's paths are its own: {error}");
    }

    #[test]
    fn senseless_arguments_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        rows().write_csv(&folder.path().join("data.csv")).unwrap();
        for (args, text) in [
            (serde_json::json!({ "epochs": 0 }), "argument `epochs`: at least one pass is needed"),
            (serde_json::json!({ "batch_size": 0 }), "argument `batch_size`: a batch has at least one row"),
            (
                serde_json::json!({ "learning_rate": 0 }),
                "argument `learning_rate`: expected a finite number above 0",
            ),
            (serde_json::json!({ "l2": -1 }), "argument `l2`: expected a finite number, 0 or more"),
        ] {
            assert_eq!(build(folder.path(), args).unwrap_err().to_string(), text);
        }
        assert!(serde_json::from_value::<TrainerArgs>(serde_json::json!({ "epoch": 1 })).is_err());
    }
}
