//! How a kit's jobs are run: `launcher` in its `resources.json`.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use locule_component::Side;
use locule_config::Document;
use locule_kit::Workspace;
use locule_launcher::{Brief, JobCommand, Launcher, Limits, ProcessLauncher};
use locule_python::PythonSettings;
use locule_transport::Endpoint;
use locule_transport_uds::UdsTransport;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::watch;
use tracing::level_filters::LevelFilter;

use crate::exit::{Code, Failure, OrExit as _};
use crate::setting;

/// How the jobs of a site or of the server are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LauncherSettings {
    /// Whether each job has a process of its own.
    pub(crate) kind: LauncherKind,
    /// What a job's process may use up; without one, what the daemon itself may.
    pub(crate) limits: JobLimits,
}

/// With less, the process of a job does not get as far as the job: on two processors the smallest one takes 10 MiB, of
/// which 2 are the stack of each of its threads, and 14 files.
const LEAST_MEMORY_MIB: u64 = 16;
const LEAST_OPEN_FILES: u64 = 16;

/// What a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LauncherKind {
    /// A process of its own: what becomes of it touches neither the daemon nor another job.
    #[default]
    Process,
    /// A task of the daemon, without limits.
    Task,
}

/// What a job's process may use up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct JobLimits {
    /// Memory that it may write to, in MiB, at least 16; the program itself takes some 20. Each process that the job
    /// starts may take as much.
    #[schemars(range(min = 16))]
    memory_mib: Option<NonZeroU64>,
    /// Processor time, in seconds.
    cpu_seconds: Option<NonZeroU64>,
    /// Time from its start, in seconds.
    wall_seconds: Option<NonZeroU64>,
    /// What its folder may take up on disk, in MiB.
    disk_mib: Option<NonZeroU64>,
    /// Open files, at least 16.
    #[schemars(range(min = 16))]
    open_files: Option<NonZeroU64>,
    /// Processes and threads of the daemon's user, those of the daemon included.
    processes: Option<NonZeroU64>,
}

impl LauncherSettings {
    /// The key of them.
    pub(crate) const KEY: &str = "launcher";

    /// Reads them from a kit's merged configuration. What they do not know is a mistake, with its place.
    pub(crate) fn read(resources: &Document) -> Result<Self, Failure> {
        let Some(node) = resources.root().get(Self::KEY) else { return Ok(Self::default()) };
        let settings: Self = setting::read(node, Self::KEY)?;
        if settings.kind == LauncherKind::Task && settings.limits != JobLimits::default() {
            return Err(setting::mistake(node, Self::KEY, "a job has limits only as a process of its own"));
        }
        let JobLimits { memory_mib, open_files, .. } = settings.limits;
        for (name, value, least) in
            [("memory_mib", memory_mib, LEAST_MEMORY_MIB), ("open_files", open_files, LEAST_OPEN_FILES)]
        {
            if let Some(value) = value.filter(|value| value.get() < least) {
                let at = node.get("limits").and_then(|limits| limits.get(name)).unwrap_or(node);
                let why = format!("`{name}` is {value}, and no job's process starts with less than {least}");
                return Err(setting::mistake(at, Self::KEY, &why));
            }
        }
        Ok(settings)
    }

    fn limits(&self) -> Limits {
        let JobLimits { memory_mib, cpu_seconds, wall_seconds, disk_mib, open_files, processes } =
            self.limits;
        let mut limits = Limits::default();
        limits.memory_mib = memory_mib.map(NonZeroU64::get);
        limits.cpu_seconds = cpu_seconds.map(NonZeroU64::get);
        limits.wall_seconds = wall_seconds.map(NonZeroU64::get);
        limits.disk_mib = disk_mib.map(NonZeroU64::get);
        limits.open_files = open_files.map(NonZeroU64::get);
        limits.processes = processes.map(NonZeroU64::get);
        limits
    }

    /// Starts jobs as this program again, in the hidden command `job-process`.
    pub(crate) fn processes(
        &self,
        side: Side,
        kit: &Workspace,
        brief: watch::Receiver<Brief>,
        scripts: &PythonSettings,
    ) -> Result<Arc<dyn Launcher>, Failure> {
        let program = std::env::current_exe().context("cannot find this program again");
        let half = if side == Side::Server { "server" } else { "site" };
        let mut args: Vec<OsString> = vec!["job-process".into(), half.into()];
        let verbose = match LevelFilter::current() {
            LevelFilter::TRACE => 3,
            LevelFilter::DEBUG => 2,
            _ => 0,
        };
        args.extend(std::iter::repeat_n(OsString::from("-v"), verbose));
        let command = JobCommand { program: program.or_exit(Code::Software)?, args };
        let kit = kit.clone();
        let scripts: Vec<String> = scripts.variables().map(str::to_owned).collect();
        let launcher = ProcessLauncher::new(command, brief).limits(self.limits());
        Ok(Arc::new(launcher.environment(move || environment(&kit, side, &scripts))))
    }
}

/// What programs need to run at all, and how this one logs.
const PASSED_ON: [&str; 10] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "LC_ALL",
    "TZ",
    "LD_LIBRARY_PATH",
    "SSL_CERT_DIR",
    "RUST_LOG",
    "RUST_BACKTRACE",
];

/// All that a job's process sees of the environment: that, the waits that nvflare reads there, and what the kit lets
/// its jobs and their scripts see.
fn environment(kit: &Workspace, side: Side, scripts: &[String]) -> Vec<(OsString, OsString)> {
    let waits = locule_component::Settings::names(side).iter();
    let waits = waits.map(|name| format!("NVFLARE_{}", name.to_uppercase()));
    let names = PASSED_ON.iter().map(|name| (*name).to_owned()).chain(waits).chain(scripts.iter().cloned());
    let mut passed: Vec<(OsString, OsString)> =
        names.filter_map(|name| Some((name.as_str().into(), std::env::var_os(&name)?))).collect();
    // A mistake in the list has been found before a job starts, and is found again by whoever reads it then.
    let visible = locule_assembly::visible_environment(kit, side).unwrap_or_default();
    passed.extend(visible.into_iter().map(|(name, value)| (name.into(), value.into())));
    passed
}

/// Where a daemon listens for the processes of its jobs: in a private folder of the kit's state, or of the system's
/// for temporary files if that path is longer than a socket's may be.
pub(crate) fn socket(kit: &Workspace) -> Result<Endpoint, Failure> {
    let root = std::path::absolute(kit.root()).or_exit(Code::NoInput)?;
    let own = Workspace::new(&root).state_dir().join("jobs/parent.sock");
    let path = if own.as_os_str().len() <= UdsTransport::MAX_PATH {
        own
    } else {
        private_folder().join(format!("{:016x}.sock", digest(&root)))
    };
    UdsTransport::endpoint(&path).or_exit(Code::Config)
}

/// A folder of this user for sockets. The carrier sees to it that nobody else can enter it.
pub(crate) fn private_folder() -> PathBuf {
    std::env::temp_dir().join(format!("locule-{}", rustix::process::geteuid().as_raw()))
}

fn digest(path: &std::path::Path) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<LauncherSettings, String> {
        let document = Document::parse_json("local/resources.json", text).unwrap();
        LauncherSettings::read(&document).map_err(|failure| failure.text())
    }

    #[test]
    fn without_the_key_every_job_has_a_process_without_limits() {
        assert_eq!(read("{}"), Ok(LauncherSettings::default()));
        assert_eq!(LauncherSettings::default().limits(), Limits::default());
        assert_eq!(read(r#"{"launcher": {"kind": "task"}}"#).unwrap().kind, LauncherKind::Task);
    }

    #[test]
    fn limits_are_read_as_numbers_above_zero() {
        let text = r#"{"launcher": {"kind": "process", "limits": {"memory_mib": 512, "wall_seconds": 60}}}"#;
        let limits = read(text).unwrap().limits();
        assert_eq!((limits.memory_mib, limits.wall_seconds, limits.cpu_seconds), (Some(512), Some(60), None));
        for bad in ["0", "-1", "\"1\"", "1.5"] {
            let text = format!("{{\"launcher\": {{\"limits\": {{\"open_files\": {bad}}}}}}}");
            assert!(read(&text).unwrap_err().contains("resources.json:1:"), "{bad}");
        }
    }

    #[test]
    fn limits_with_which_no_job_starts_are_mistakes_with_their_place() {
        for (name, least) in [("memory_mib", LEAST_MEMORY_MIB), ("open_files", LEAST_OPEN_FILES)] {
            let with =
                |value: u64| read(&format!("{{\"launcher\": {{\"limits\":\n  {{\"{name}\": {value}}}}}}}"));
            let error = with(least - 1).unwrap_err();
            let why =
                format!("`{name}` is {}, and no job's process starts with less than {least}", least - 1);
            assert!(error.contains(&why) && error.contains("resources.json:2:"), "{error}");
            assert!(with(least).is_ok());
        }
    }

    #[test]
    fn what_is_not_known_is_a_mistake_with_its_place() {
        let error = read("{\"launcher\": {\n  \"limits\": {\"memory\": 5}}}").unwrap_err();
        assert!(error.contains("`memory`") && error.contains("resources.json:2:"), "{error}");
        assert!(read(r#"{"launcher": {"sort": "process"}}"#).unwrap_err().contains("`sort`"));
        assert!(read(r#"{"launcher": {"kind": "thread"}}"#).unwrap_err().contains("`thread`"));
        let text = r#"{"launcher": {"kind": "task", "limits": {"memory_mib": 5}}}"#;
        assert!(read(text).unwrap_err().contains("only as a process"));
    }
}
