//! The component that runs a script: one process for a job, or one for each task.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use locule_component::{
    AbortFlag, BuildCx, BuildError, Built, Component, ExecuteError, Executor, Kind, Metric, Side, Task,
    TaskCx,
};
use locule_download::{FetchLimits, fetch};
use locule_fobs::{Shareable, header};
use locule_kit::SiteKit;
use locule_message::Fqcn;
use serde_json::json;
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::args::{ClientAPIExecutorArgs, CommandWords, ExecutionMode, Waits, wrong};
use crate::child::Child;
use crate::interpreter::{Interpreter, resolve, system};
use crate::metrics::Metrics;
use crate::native::{self, Exchange};
use crate::parcel::Folder;
use crate::serve::{Entry, Limits, Reach};
use crate::session::{Desk, News, Terms};
use crate::settings::{PythonSettings, ScriptHost};

/// Runs a training script that was written for nvflare's Client API, in an interpreter of the site.
///
/// Each result's arrays are fetched from the script before it is returned, and each task's are given to it with the
/// task: the script's cell is linked to this executor and reaches nothing else.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.executors.client_api_executor`.
#[derive(Debug)]
pub struct ClientAPIExecutor {
    args: ClientAPIExecutorArgs,
    waits: Waits,
    setup: Setup,
    metrics: Metrics,
    desk: Option<Desk>,
    script: Option<Child>,
    /// Files that tell the script that runs where its site is; nobody needs them when it has ended.
    told: Vec<PathBuf>,
    launches: u32,
}

/// What stays the same from launch to launch.
#[derive(Debug)]
struct Setup {
    host: ScriptHost,
    settings: PythonSettings,
    interpreter: Interpreter,
    words: Vec<String>,
    site: String,
    job_id: String,
    app_dir: PathBuf,
    /// The only folder that a script may write to, unless the site says otherwise.
    own_dir: PathBuf,
    /// Where our own package lies, which it reads and cannot change.
    lib: PathBuf,
    log: PathBuf,
}

impl Component for ClientAPIExecutor {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "nvflare.app_common.executors.client_api_executor.ClientAPIExecutor";
    type Args = ClientAPIExecutorArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: ClientAPIExecutorArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        let waits = args.waits()?;
        let custom = cx.app_dir.canonicalize().unwrap_or_else(|_| cx.app_dir.to_owned()).join("custom");
        let words = args.words(&custom)?;
        if cx.side != Side::Site {
            return Err(BuildError::Unavailable("scripts run at sites".to_owned()));
        }
        // Of a folder of code the site has asked whether it may come (the right `byoc`); of a command nobody has.
        if custom.symlink_metadata().is_err() {
            let reason = "a job that starts a command must bring its code in the app's folder `custom`";
            return Err(wrong("command", reason));
        }
        let unavailable = |reason: String| BuildError::Unavailable(reason);
        let host = cx.services::<ScriptHost>().next().map(|(_, host)| (*host).clone());
        let host = host.ok_or_else(|| unavailable("this program cannot run scripts".to_owned()))?;
        let kit = SiteKit::open(cx.kit_dir).map_err(|error| unavailable(error.to_string()))?;
        let settings =
            PythonSettings::read(&kit.resources).map_err(|error| unavailable(error.to_string()))?;
        let program = settings.find_interpreter(&host.search_path).map_err(unavailable)?;
        let interpreter = Interpreter::ask(&program)?;
        let words = resolved(&args, words, &settings, &interpreter, &host)?;
        let app_dir = cx.app_dir.canonicalize();
        let app_dir =
            app_dir.map_err(|error| unavailable(format!("the app's folder is not there: {error}")))?;
        let run_dir = app_dir.parent().unwrap_or(&app_dir);
        let setup = Setup {
            host,
            settings,
            interpreter,
            words,
            site: cx.site.to_owned(),
            job_id: cx.job_id.to_owned(),
            own_dir: run_dir.join("script"),
            lib: run_dir.join("script-lib"),
            log: run_dir.join("log.txt"),
            app_dir: app_dir.clone(),
        };
        let metrics = Metrics::in_file(run_dir.join("metrics.jsonl"));
        let (desk, script, told) = (None, None, Vec::new());
        let launches = 0;
        Ok(Built::Executor(Box::new(Self { args, waits, setup, metrics, desk, script, told, launches })))
    }
}

/// The words with the program that they mean, and with the secrets that they refer to.
fn resolved(
    args: &ClientAPIExecutorArgs,
    mut words: Vec<String>,
    settings: &PythonSettings,
    interpreter: &Interpreter,
    host: &ScriptHost,
) -> Result<Vec<String>, BuildError> {
    let argument = match (&args.execution_mode, &args.command) {
        (ExecutionMode::ExternalProcess, Some(CommandWords::Text(_) | CommandWords::Words(_))) => "command",
        (ExecutionMode::InProcess | ExecutionMode::ExternalProcess | ExecutionMode::Attach, _) => {
            "task_script_args"
        }
    };
    if let Some(first) = words.first_mut() {
        *first = resolve(first, &interpreter.program, &host.search_path)
            .map_err(|reason| wrong(argument, reason))?;
    }
    for word in words.iter_mut().skip(1) {
        *word = with_secrets(word, settings, host).map_err(|reason| wrong(argument, reason))?;
    }
    Ok(words)
}

/// Puts values of the site's environment in the place of `${secret:NAME}`, where the site's operator lists `NAME`.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.utils.secret_utils`.
fn with_secrets(word: &str, settings: &PythonSettings, host: &ScriptHost) -> Result<String, String> {
    const MARK: &str = "${secret:";
    let mut text = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once(MARK) {
        let (name, after) = after.split_once('}').ok_or("a reference to a secret has no end")?;
        let shown: String = name.chars().take(60).flat_map(char::escape_debug).collect();
        if !settings.environment.iter().any(|known| known == name) {
            return Err(format!("the site does not give `{shown}` to scripts (`python.environment`)"));
        }
        let value = (host.variable)(name).and_then(|value| value.into_string().ok());
        text.push_str(before);
        text.push_str(&value.ok_or_else(|| format!("the site's environment has no `{shown}`"))?);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

impl Executor for ClientAPIExecutor {
    fn execute(&mut self, task: &Task, cx: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        let runtime = Handle::try_current();
        let runtime = runtime.map_err(|_| ExecuteError::Failed("no runtime for the script's cell".into()))?;
        runtime.block_on(async {
            let mut result = self.perform(task, cx.abort).await;
            if let Err(ExecuteError::Failed(reason)) = &mut result {
                self.setup.interpreter.explain(reason);
            }
            if result.is_err() || !self.args.launch_once {
                self.end_script(result.is_ok()).await;
            }
            result
        })
    }

    fn take_metrics(&mut self) -> Vec<Metric> {
        self.metrics.fetch()
    }

    fn close(&mut self, aborted: bool) {
        if let Ok(runtime) = Handle::try_current() {
            runtime.block_on(async {
                self.end_script(!aborted).await;
                if let Some(desk) = self.desk.take() {
                    desk.cell.shutdown(Duration::from_secs(1)).await;
                }
            });
        }
    }
}

/// How often the abort flag is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How long a script may take over a task for which the job sets no limit.
const HAND_OVER: Duration = Duration::from_secs(3600);
/// How long a script may take to answer the request to end.
const SHUT_DOWN: Duration = Duration::from_secs(5);
/// How long a script that is done has at least, whatever the job says, to hear of it and end by itself.
const SHORTEST: Duration = Duration::from_secs(3);
/// How long the end of a script may be behind the end of its link.
const LINK_LOST: Duration = Duration::from_secs(5);
/// How long an aborted script has between the request to end and the kill, whatever the job says: a site waits no
/// longer for its executors.
const ABORT_GRACE: Duration = Duration::from_secs(3);

impl ClientAPIExecutor {
    async fn perform(&mut self, task: &Task, abort: &AbortFlag) -> Result<Shareable, ExecuteError> {
        if abort.is_raised() {
            return Err(ExecuteError::Aborted);
        }
        if self.script.is_none() {
            if self.args.launch_once && self.launches > 0 {
                return Err(ExecuteError::Failed("the script has ended before".to_owned()));
            }
            self.launch().await.map_err(ExecuteError::Failed)?;
        }
        let Some((desk, script)) = self.desk.as_ref().zip(self.script.as_ref()) else {
            return Err(ExecuteError::Failed("there is no script".to_owned()));
        };
        let watch = Watch { desk, script, abort };
        let ready = async {
            loop {
                let changed = desk.changed();
                tokio::pin!(changed);
                changed.as_mut().enable();
                match desk.news() {
                    News::Ready => return Ok(()),
                    News::Rejected(reason) => {
                        return Err(format!("the script is not the one expected: {reason}"));
                    }
                    News::Nothing => changed.await,
                }
            }
        };
        let late = "the script has not called flare.init() in time";
        watch.during(ready, self.waits.launch, None, late).await?.map_err(ExecuteError::Failed)?;

        let given = given(task, &self.setup);
        let limit = self.waits.task;
        let taken = desk.hand_over(&task.name, given, limit.unwrap_or(HAND_OVER));
        let lease = Some(self.waits.lease).filter(|lease| !lease.is_zero());
        let late = "the script has not taken the task over in time";
        if let Err(error) = watch.during(taken, limit, lease, late).await? {
            return Err(watch.failure(error.to_string()).await);
        }

        let result = async {
            loop {
                let changed = desk.changed();
                tokio::pin!(changed);
                changed.as_mut().enable();
                match desk.take_result() {
                    Some(result) => return result,
                    None => changed.await,
                }
            }
        };
        let late = "the script has not sent a result in time";
        let (trainer, result) = watch.during(result, self.waits.result, lease, late).await?;
        let mut result = result.map_err(|reason| {
            ExecuteError::Failed(format!("the script's result cannot be taken: {reason}"))
        })?;
        let limits = FetchLimits { max_bytes: self.setup.settings.max_result, ..FetchLimits::default() };
        let fetched = fetch(&desk.cell, &mut result, &trainer, &limits);
        if let Err(error) = watch.during(fetched, None, lease, "").await? {
            let error = format!("the result cannot be fetched from the script: {error}");
            return Err(watch.failure(error).await);
        }
        if result.headers.str(header::RETURN_CODE).is_none() && result.dxo().is_err() {
            return Err(ExecuteError::Failed("the script's result is no DXO".to_owned()));
        }
        Ok(result)
    }

    /// Starts the script with a name and a token of its own.
    async fn launch(&mut self) -> Result<(), String> {
        self.launches += 1;
        let job = format!("{}.{}", self.setup.site, self.setup.job_id);
        let job = Fqcn::parse(&job).map_err(|error| error.to_string())?;
        self.setup.folders().map_err(|error| format!("no folder for the script: {error}"))?;
        if self.desk.is_none() {
            let terms = Terms {
                job_id: self.setup.job_id.clone(),
                site: self.setup.site.clone(),
                heartbeat: self.waits.heartbeat,
                lease: self.waits.lease,
                welcome: self.welcome(),
            };
            let path = self.setup.own_dir.join("arrays");
            let folder = Folder::open(&path).map_err(|error| format!("no folder for arrays: {error}"))?;
            let exchange = Exchange { path, folder, max_result: self.setup.settings.max_result };
            self.desk = Some(Desk::open(job.clone(), terms, self.metrics.clone(), exchange).await?);
        }
        let Some(desk) = &self.desk else { return Err("no cell for the script".to_owned()) };
        let secret = || Uuid::new_v4().simple().to_string();
        let trainer = job.child(&format!("client_api_trainer_{}", secret()));
        let trainer = trainer.map_err(|error| error.to_string())?;
        let token = format!("{}{}", secret(), secret());
        let bootstrap = self.bootstrap(desk, &job, &trainer, &token);
        let own = json!({ "port": desk.port, "token": token, "folder": desk.exchange().path });
        desk.expect(trainer, token);

        let setup = &self.setup;
        let write = |name: &str, text: &serde_json::Value| {
            let file = setup.own_dir.join(format!("{name}_{}.json", self.launches));
            let written = write_secret(&file, &text.to_string()).map(|()| file);
            written.map_err(|error| format!("a script cannot be told where its site is: {error}"))
        };
        let files = [write("client_api_bootstrap", &bootstrap)?, write("locule", &own)?];
        let ports = desk.endpoint.port().into_iter().chain([desk.port]).collect();
        let command = setup.command(&files, ports)?;
        tracing::info!(job = setup.job_id, launch = self.launches, "starting the job's script");
        let script = Child::start(command, &setup.log, setup.settings.max_log);
        self.told = files.into();
        self.script = Some(script.map_err(|error| format!("the script cannot be started: {error}"))?);
        Ok(())
    }

    /// What a script of our own package is told when it calls `flare.init()`.
    fn welcome(&self) -> serde_json::Value {
        let args = &self.args;
        json!({
            "job_id": self.setup.job_id,
            "site_name": self.setup.site,
            "heartbeat": self.waits.heartbeat.as_secs_f64(),
            "train_with_eval": args.train_with_evaluation,
            "transfer_type": args.params_transfer_type,
            "train_task_name": args.train_task_name,
            "evaluate_task_name": args.evaluate_task_name,
            "submit_model_task_name": args.submit_model_task_name,
        })
    }

    /// What a script of nvflare's package reads when it calls `flare.init()`.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.client.cell.bootstrap`.
    fn bootstrap(&self, desk: &Desk, job: &Fqcn, trainer: &Fqcn, token: &str) -> serde_json::Value {
        let args = &self.args;
        json!({
            "schema_version": 1,
            "execution_mode": "external_process",
            "connect_url": format!("tcp://127.0.0.1:{}", desk.endpoint.port().unwrap_or_default()),
            "cj_fqcn": job.as_str(),
            "cj_pid": std::process::id(),
            "trainer_fqcn": trainer.as_str(),
            "launch_token": token,
            "job_id": self.setup.job_id,
            "site_name": self.setup.site,
            "secure_mode": false, // nothing of the site's own is delegated to a script
            "task_exchange": {
                "train_with_eval": args.train_with_evaluation,
                "exchange_format": args.params_exchange_format,
                "server_expected_format": args.server_expected_format,
                "transfer_type": args.params_transfer_type,
                "train_task_name": args.train_task_name,
                "eval_task_name": args.evaluate_task_name,
                "submit_model_task_name": args.submit_model_task_name,
                "launch_once": args.launch_once,
            },
            "memory_gc_rounds": args.memory_gc_rounds,
            "cuda_empty_cache": args.cuda_empty_cache,
        })
    }

    /// Ends the script: in good order, or at once.
    async fn end_script(&mut self, orderly: bool) {
        let Some(script) = self.script.take() else { return };
        self.end(script, orderly).await;
        for file in self.told.drain(..) {
            if let Err(error) = std::fs::remove_file(file) {
                tracing::debug!(%error, "a file for a script stays");
            }
        }
    }

    async fn end(&self, mut script: Child, orderly: bool) {
        let Some(desk) = &self.desk else { return };
        if script.status().is_some() {
            return;
        }
        if orderly {
            let settled = async {
                loop {
                    let changed = desk.changed();
                    tokio::pin!(changed);
                    changed.as_mut().enable();
                    if desk.is_settled() {
                        return;
                    }
                    changed.await;
                }
            };
            let in_order = async {
                tokio::select! { () = settled => {}, _ = script.ended() => return }
                desk.shut_down(SHUT_DOWN).await;
                script.ended().await;
            };
            if tokio::time::timeout(self.waits.shutdown.max(SHORTEST), in_order).await.is_err() {
                tracing::warn!(job = self.setup.job_id, "the script does not end by itself");
            }
        } else {
            desk.abort("the run was aborted").await;
        }
        let grace = if orderly { self.waits.stop_grace } else { self.waits.stop_grace.min(ABORT_GRACE) };
        script.stop(grace).await;
    }
}

/// What a script is waited for with: its own end, the abort of the task, and its silence end the wait.
struct Watch<'a> {
    desk: &'a Desk,
    script: &'a Child,
    abort: &'a AbortFlag,
}

impl Watch<'_> {
    /// Why it does not go on with the script: mostly because that has ended, which shows in its link first.
    async fn failure(&self, error: String) -> ExecuteError {
        let ended = tokio::time::timeout(LINK_LOST, self.script.ended()).await;
        ExecuteError::Failed(match ended {
            Ok(_) => format!("the script {}", self.script.epitaph()),
            Err(_) => self.told(&error),
        })
    }

    /// The same, with what the script said last: its interpreter may live on when its script has failed.
    fn told(&self, what: &str) -> String {
        match self.script.last_words() {
            said if said.is_empty() => what.to_owned(),
            said => format!("{what}: {said}"),
        }
    }

    async fn during<T>(
        &self,
        work: impl Future<Output = T>,
        limit: Option<Duration>,
        lease: Option<Duration>,
        late: &str,
    ) -> Result<T, ExecuteError> {
        let failed = |reason: String| Err(ExecuteError::Failed(reason));
        let limited = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let mut look = tokio::time::interval(POLL);
        let watched = async {
            loop {
                look.tick().await;
                if self.abort.is_raised() {
                    return ExecuteError::Aborted;
                }
                if lease.is_some_and(|lease| self.desk.silent_for() > lease) {
                    return ExecuteError::Failed(self.told("the script gives no sign of life"));
                }
            }
        };
        tokio::select! {
            biased;
            done = work => Ok(done),
            _ = self.script.ended() => failed(format!("the script {}", self.script.epitaph())),
            error = watched => Err(error),
            () = limited => failed(self.told(late)),
        }
    }
}

/// The task as the script gets it: its data and what it needs to know of the round, and nothing of the site's
/// conversation with the server.
fn given(task: &Task, setup: &Setup) -> Shareable {
    let mut given = Shareable { fields: task.data.fields.clone(), ..Shareable::new() };
    for (name, value) in task.data.headers.iter_str() {
        let internal = name.starts_with("__") && name != header::CONTENT_TYPE || name == "receiver_ids";
        if !internal {
            given.set_header(name, value.clone());
        }
    }
    given.set_header("job_id", setup.job_id.as_str());
    given.set_header("site_name", setup.site.as_str());
    given
}

impl Setup {
    fn work_dir(&self) -> PathBuf {
        self.own_dir.join("work")
    }

    /// Makes the folders of scripts. Where a script begins to work it finds the app, as links: what it writes beside
    /// them leaves the app as it was reviewed.
    fn folders(&self) -> std::io::Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
        for folder in ["work", "home", "tmp", "arrays"] {
            builder.create(self.own_dir.join(folder))?;
        }
        native::install(&self.lib)?;
        for entry in std::fs::read_dir(&self.app_dir)? {
            let entry = entry?;
            let link = self.work_dir().join(entry.file_name());
            if link.symlink_metadata().is_err() {
                std::os::unix::fs::symlink(entry.path().canonicalize()?, link)?;
            }
        }
        Ok(())
    }

    /// What starts the keeper of a script, with nothing of the site's environment but what is harmless or listed.
    fn command(&self, [stock, own]: &[PathBuf; 2], ports: Vec<u16>) -> Result<Command, String> {
        let settings = &self.settings;
        let (mut read, mut write) = system();
        read.extend(self.interpreter.folders.iter().cloned());
        read.extend(settings.read.iter().cloned());
        read.push(self.app_dir.clone());
        read.push(self.lib.clone());
        read.push(self.host.program.clone());
        write.extend(settings.write.iter().cloned());
        write.push(self.own_dir.clone());
        let only_ports = (!settings.network).then_some(ports);
        let args = self.host.args.iter().map(|arg| arg.clone().into_string());
        let entry = Entry {
            program: self.host.program.clone(),
            args: args.collect::<Result<_, _>>().map_err(|_| "the program's arguments are no text")?,
            words: self.words.clone(),
            limits: Limits {
                memory: settings.max_memory,
                cpu: settings.max_cpu,
                files: settings.max_open_files,
                file_size: settings.max_file_size,
            },
            reach: settings.confine.then_some(Reach { read, write, only_ports }),
        };
        let mut command = Command::new(&self.host.program);
        command.args(&self.host.args).args(entry.arguments().map_err(|error| error.to_string())?);
        command.env_clear().current_dir(self.work_dir());
        for name in settings.variables() {
            if let Some(value) = (self.host.variable)(name) {
                command.env(name, value);
            }
        }
        command.envs(self.host.given.iter().map(|(name, value)| (name, value)));
        let beside = self.interpreter.program.parent().map(Path::to_owned);
        let modules = [self.app_dir.join("custom"), self.lib.clone()];
        let path = beside.into_iter().chain(std::env::split_paths(&self.host.search_path));
        command
            .env("PATH", std::env::join_paths(path).map_err(|error| error.to_string())?)
            .env("HOME", self.own_dir.join("home"))
            .env("TMPDIR", self.own_dir.join("tmp"))
            .env("PYTHONPATH", std::env::join_paths(modules).map_err(|error| error.to_string())?)
            .env("PYTHONUNBUFFERED", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONNOUSERSITE", "1")
            .env("LOCULE_SCRIPT", own)
            .env("NVFLARE_CLIENT_API_BOOTSTRAP", stock);
        Ok(command)
    }
}

/// Writes a file that only its owner may read.
fn write_secret(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all(text.as_bytes())
}
