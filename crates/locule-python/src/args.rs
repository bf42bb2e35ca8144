//! What a job says of its script.

use std::path::{Path, PathBuf};
use std::time::Duration;

use locule_component::BuildError;
use serde::Deserialize;

/// Arguments of [`ClientAPIExecutor`](crate::ClientAPIExecutor), under nvflare's names.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientAPIExecutorArgs {
    /// Where nvflare runs the script: `in_process` or `external_process`, which are the same here; `attach` is
    /// refused.
    pub execution_mode: ExecutionMode,
    /// The command that starts the script, as text or as a list of words; for `external_process`.
    #[serde(default)]
    pub command: Option<CommandWords>,
    /// The script, in the app's `custom` folder; for `in_process`.
    #[serde(default)]
    pub task_script_path: Option<String>,
    /// Its arguments, separated by spaces.
    #[serde(default)]
    pub task_script_args: String,
    /// Whether one process serves all tasks of the job.
    #[serde(default = "yes")]
    pub launch_once: bool,
    /// Seconds within which the script must have called `flare.init()`; null for no limit.
    #[serde(default = "launch_timeout")]
    pub launch_timeout: Option<f64>,
    /// Seconds that the script may take to end by itself once the run is over; 30 if null.
    #[serde(default)]
    pub shutdown_timeout: Option<f64>,
    /// Seconds between the request to end and the kill.
    #[serde(default = "stop_grace_period")]
    pub stop_grace_period: f64,
    /// Seconds between two heartbeats of the script's session.
    #[serde(default = "heartbeat_interval")]
    pub heartbeat_interval: f64,
    /// Seconds without a word after which the script counts as lost; 0 for never.
    #[serde(default = "heartbeat_timeout")]
    pub heartbeat_timeout: f64,
    /// Seconds within which the script must have taken a task over; null for no limit.
    #[serde(default)]
    pub task_wait_timeout: Option<f64>,
    /// Seconds within which a result must be there; null for no limit.
    #[serde(default)]
    pub result_wait_timeout: Option<f64>,
    /// Name of the task for which `flare.is_train()` is true.
    #[serde(default = "train")]
    pub train_task_name: String,
    /// Name of the task for which `flare.is_evaluate()` is true.
    #[serde(default = "validate")]
    pub evaluate_task_name: String,
    /// Name of the task for which `flare.is_submit_model()` is true.
    #[serde(default = "submit_model")]
    pub submit_model_task_name: String,
    /// Whether training results must hold metrics of the model before training.
    #[serde(default)]
    pub train_with_evaluation: bool,
    /// How the script sees parameters; the script's side converts.
    #[serde(default = "raw")]
    pub params_exchange_format: ExchangeFormat,
    /// How the server sees them.
    #[serde(default = "numpy")]
    pub server_expected_format: ExchangeFormat,
    /// Whether whole parameters are sent, or what they differ by.
    #[serde(default = "full")]
    pub params_transfer_type: TransferType,
    /// The script collects garbage every so many rounds; 0 for never.
    #[serde(default)]
    pub memory_gc_rounds: u32,
    /// Whether it empties CUDA's cache then, too.
    #[serde(default)]
    pub cuda_empty_cache: bool,
    /// Of `attach`.
    #[serde(default)]
    pub attach_id: Option<String>,
    /// Of `attach`.
    #[serde(default)]
    pub attach_timeout: Option<f64>,
    /// Of `attach`.
    #[serde(default)]
    pub allow_reconnect: bool,
    /// Of `attach`.
    #[serde(default)]
    pub allow_insecure_attach: bool,
}

/// Where nvflare runs a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionMode {
    /// In the job's interpreter; here in one of its own.
    InProcess,
    /// In a process that the site starts.
    ExternalProcess,
    /// In a process that somebody else starts.
    Attach,
}

/// A command: text that is split as a shell would, or its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandWords {
    /// To be split.
    Text(String),
    /// As they are.
    Words(Vec<String>),
}

impl<'de> Deserialize<'de> for CommandWords {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self::Text(text)),
            serde_json::Value::Array(words) => {
                let words = words.into_iter().map(|word| word.as_str().map(str::to_owned));
                let words = words.collect::<Option<_>>();
                words.map(Self::Words).ok_or_else(|| D::Error::custom("expected words"))
            }
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::Object(_) => Err(D::Error::custom("expected a command or a list of words")),
        }
    }
}

impl schemars::JsonSchema for CommandWords {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Command".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A command, as text or as a list of words.",
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
        })
    }
}

/// A way to hold parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeFormat {
    /// As they come.
    Raw,
    /// PyTorch tensors.
    Pytorch,
    /// NumPy arrays.
    Numpy,
    /// Weights of Keras layers.
    KerasLayerWeights,
}

/// What a training result holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum TransferType {
    /// The parameters.
    Full,
    /// What they differ by from those received.
    Diff,
}

fn yes() -> bool {
    true
}
#[expect(clippy::unnecessary_wraps, reason = "it is the default of an option")]
fn launch_timeout() -> Option<f64> {
    Some(300.0)
}
fn stop_grace_period() -> f64 {
    30.0
}
fn heartbeat_interval() -> f64 {
    HEARTBEAT_INTERVAL
}
fn heartbeat_timeout() -> f64 {
    HEARTBEAT_TIMEOUT
}
fn train() -> String {
    "train".to_owned()
}
fn validate() -> String {
    "validate".to_owned()
}
fn submit_model() -> String {
    "submit_model".to_owned()
}
fn raw() -> ExchangeFormat {
    ExchangeFormat::Raw
}
fn numpy() -> ExchangeFormat {
    ExchangeFormat::Numpy
}
fn full() -> TransferType {
    TransferType::Full
}

const HEARTBEAT_INTERVAL: f64 = 5.0;
const HEARTBEAT_TIMEOUT: f64 = 30.0;
/// Of a job that was made for `in_process`, where nobody beats: a call that holds the interpreter may take so long.
const PATIENT_TIMEOUT: f64 = 300.0;
/// Longest wait that an argument may ask for, in seconds.
const LONGEST: f64 = 1e9;

/// Waits of a script, checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Waits {
    pub(crate) launch: Option<Duration>,
    pub(crate) shutdown: Duration,
    pub(crate) stop_grace: Duration,
    pub(crate) heartbeat: Duration,
    /// Zero for never.
    pub(crate) lease: Duration,
    pub(crate) task: Option<Duration>,
    pub(crate) result: Option<Duration>,
}

impl ClientAPIExecutorArgs {
    /// Checks what goes together, as nvflare does.
    pub(crate) fn waits(&self) -> Result<Waits, BuildError> {
        let seconds = |argument: &str, seconds: f64| {
            let sound = (0.0..=LONGEST).contains(&seconds);
            let wrong = || wrong(argument, "expected seconds: a finite number, 0 or more");
            sound.then(|| Duration::from_secs_f64(seconds)).ok_or_else(wrong)
        };
        let perhaps = |argument, given: Option<f64>| given.map(|given| seconds(argument, given)).transpose();
        let interval = seconds("heartbeat_interval", self.heartbeat_interval)?;
        let lease = seconds("heartbeat_timeout", self.heartbeat_timeout)?;
        if interval.is_zero() {
            return Err(wrong("heartbeat_interval", "must be more than 0"));
        }
        if !lease.is_zero() && lease <= interval {
            return Err(wrong("heartbeat_timeout", "must be more than `heartbeat_interval`, or 0"));
        }
        let lease = match self.execution_mode {
            ExecutionMode::InProcess => Duration::from_secs_f64(PATIENT_TIMEOUT),
            ExecutionMode::ExternalProcess | ExecutionMode::Attach => lease,
        };
        Ok(Waits {
            launch: perhaps("launch_timeout", self.launch_timeout)?,
            shutdown: perhaps("shutdown_timeout", self.shutdown_timeout)?.unwrap_or(Duration::from_secs(30)),
            stop_grace: seconds("stop_grace_period", self.stop_grace_period)?,
            heartbeat: interval,
            lease,
            task: perhaps("task_wait_timeout", self.task_wait_timeout)?,
            result: perhaps("result_wait_timeout", self.result_wait_timeout)?,
        })
    }

    /// The words that start the script; the first of them is `python3` where the site's interpreter is meant.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.app_common.executors.client_api_executor` and
    /// `nvflare.app_common.executors.task_script_runner`.
    pub(crate) fn words(&self, custom: &Path) -> Result<Vec<String>, BuildError> {
        let only = |argument, mode| wrong(argument, format!("is only for execution_mode `{mode}`"));
        match self.execution_mode {
            ExecutionMode::Attach => Err(BuildError::Unavailable(
                "execution_mode `attach` is not supported: the site starts scripts itself; use `external_process`"
                    .to_owned(),
            )),
            ExecutionMode::ExternalProcess => {
                if self.script().is_some() {
                    return Err(only("task_script_path", "in_process"));
                }
                if !self.task_script_args.is_empty() {
                    return Err(only("task_script_args", "in_process"));
                }
                let words = match &self.command {
                    Some(CommandWords::Words(words)) => words.clone(),
                    Some(CommandWords::Text(text)) => shlex::split(text)
                        .ok_or_else(|| wrong("command", "its quotes do not match"))?,
                    None => Vec::new(),
                };
                match words.first() {
                    Some(first) if !first.trim().is_empty() => Ok(words),
                    Some(_) | None => Err(wrong("command", "execution_mode `external_process` needs one")),
                }
            }
            ExecutionMode::InProcess => {
                if self.command.is_some() {
                    return Err(only("command", "external_process"));
                }
                let script = self.script().filter(|script| script.ends_with(".py"));
                let script =
                    script.ok_or_else(|| wrong("task_script_path", "expected the path of a .py file"))?;
                let file = find_script(custom, script)?;
                let mut words = vec!["python3".to_owned(), "-u".to_owned(), file.display().to_string()];
                words.extend(self.task_script_args.split_whitespace().map(str::to_owned));
                Ok(words)
            }
        }
    }

    fn script(&self) -> Option<&str> {
        self.task_script_path.as_deref().filter(|script| !script.trim().is_empty())
    }
}

/// The script below the folder of the job's code. A path that leads out of it is refused.
fn find_script(custom: &Path, script: &str) -> Result<PathBuf, BuildError> {
    let path = Path::new(script);
    let plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if !plain {
        return Err(wrong("task_script_path", "expected a path below the app's folder `custom`"));
    }
    let mut folders = vec![custom.to_owned()];
    let mut seen = 0_usize;
    while let Some(folder) = folders.pop() {
        let file = folder.join(path);
        if file.is_file() {
            return Ok(file);
        }
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut below: Vec<PathBuf> = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        below.sort_by(|one, other| other.cmp(one));
        seen += below.len();
        if seen > MAX_FOLDERS {
            break;
        }
        folders.extend(below);
    }
    Err(wrong(
        "task_script_path",
        format!("there is no {} in the app's folder `custom`", script.escape_debug()),
    ))
}

/// Most folders that are looked through for a script.
const MAX_FOLDERS: usize = 10_000;

pub(crate) fn wrong(argument: &str, reason: impl Into<String>) -> BuildError {
    BuildError::Argument { argument: argument.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn args(value: serde_json::Value) -> ClientAPIExecutorArgs {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_script_of_a_recipe_becomes_the_words_that_start_it() {
        let custom = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(custom.path().join("src/deep")).unwrap();
        std::fs::write(custom.path().join("src/deep/train.py"), "").unwrap();
        let given = args(json!({ "execution_mode": "in_process", "task_script_path": "deep/train.py",
            "task_script_args": "--epochs  2" }));
        let words = given.words(custom.path()).unwrap();
        let file = custom.path().join("src/deep/train.py").display().to_string();
        assert_eq!(words, ["python3", "-u", &file, "--epochs", "2"]);
        assert_eq!(given.waits().unwrap().launch, Some(Duration::from_secs(300)));
    }

    #[test]
    fn a_command_is_split_as_a_shell_would_or_taken_as_it_is() {
        let custom = Path::new("/nowhere");
        let text =
            args(json!({ "execution_mode": "external_process", "command": "python3 -u 'my train.py' x" }));
        assert_eq!(text.words(custom).unwrap(), ["python3", "-u", "my train.py", "x"]);
        let words = args(json!({ "execution_mode": "external_process", "command": ["torchrun", "a b"] }));
        assert_eq!(words.words(custom).unwrap(), ["torchrun", "a b"]);
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_the_argument() {
        let custom = tempfile::tempdir().unwrap();
        let reason = |value| {
            let given = args(value);
            given.waits().map(drop).and_then(|()| given.words(custom.path())).unwrap_err().to_string()
        };
        for (value, part) in [
            (json!({ "execution_mode": "attach", "attach_id": "a" }), "`attach` is not supported"),
            (json!({ "execution_mode": "external_process" }), "`command`"),
            (json!({ "execution_mode": "external_process", "command": " " }), "`command`"),
            (json!({ "execution_mode": "external_process", "command": "a 'b" }), "quotes"),
            (
                json!({ "execution_mode": "external_process", "command": "a", "task_script_path": "b.py" }),
                "in_process",
            ),
            (json!({ "execution_mode": "in_process", "command": "a" }), "external_process"),
            (json!({ "execution_mode": "in_process", "task_script_path": "a.sh" }), ".py"),
            (json!({ "execution_mode": "in_process", "task_script_path": "a.py" }), "there is no a.py"),
            (json!({ "execution_mode": "in_process", "task_script_path": "../a.py" }), "below"),
            (json!({ "execution_mode": "in_process", "task_script_path": "/etc/a.py" }), "below"),
            (json!({ "execution_mode": "in_process", "heartbeat_timeout": 1.0 }), "`heartbeat_timeout`"),
            (json!({ "execution_mode": "in_process", "launch_timeout": -1.0 }), "`launch_timeout`"),
            (json!({ "execution_mode": "in_process", "stop_grace_period": 1e300 }), "`stop_grace_period`"),
        ] {
            let reason = reason(value);
            assert!(reason.contains(part), "{reason}");
        }
    }
}
