//! What the program does when a site starts it again for a script: `keep` stays as the script's keeper, `enter`
//! confines itself and becomes the interpreter.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getrlimit, kill_process_group, setrlimit, waitid,
};
use serde::{Deserialize, Serialize};

/// The word for the keeper.
const KEEP: &str = "keep";
/// The word for the child that becomes the interpreter.
const ENTER: &str = "enter";
/// What the site writes to a keeper that shall ask its script to end; it kills the script when the site hangs up.
pub(crate) const ASK_TO_END: u8 = b't';
/// Exit code of a child that could not be confined, or whose interpreter could not be started.
pub const NOT_STARTED: u8 = 125;

/// What a script is started with, and what it may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// This program, and what stands before [`ENTER`].
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    /// The interpreter and its arguments.
    pub(crate) words: Vec<String>,
    pub(crate) limits: Limits,
    /// Files and folders that it may touch; everything, if nobody confines it.
    pub(crate) reach: Option<Reach>,
}

/// Limits of resources, as [`PythonSettings`](crate::PythonSettings) has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    pub(crate) memory: Option<u64>,
    pub(crate) cpu: Option<u64>,
    pub(crate) files: u64,
    pub(crate) file_size: u64,
}

/// What of the machine is in a script's reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reach {
    pub(crate) read: Vec<PathBuf>,
    pub(crate) write: Vec<PathBuf>,
    /// The only ports that it may connect to, if it may not use the network.
    pub(crate) only_ports: Option<Vec<u16>>,
}

impl Entry {
    /// The arguments that start its keeper.
    pub(crate) fn arguments(&self) -> Result<Vec<OsString>, serde_json::Error> {
        Ok(vec![KEEP.into(), serde_json::to_string(self)?.into()])
    }
}

/// Why a script was not started, or not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The arguments are not what a site writes.
    #[error("only a site starts this, with arguments of its own")]
    Arguments,
    /// The script could not be confined.
    #[error("the script cannot be confined: {0}")]
    Confine(String),
    /// A program could not be started.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The script could not be waited for.
    #[error("cannot wait for the script")]
    Wait(#[source] io::Error),
}

/// Keeps a script, or becomes one, as `arguments` say; its exit code, 128 and the signal's number for a script
/// that a signal ended.
///
/// Call it first thing in a process of its own: it changes the limits of the process, reads its standard input,
/// and may replace the process.
///
/// # Errors
/// [`ServeError`]; the process should end then with code 125.
pub fn serve(arguments: &[OsString]) -> Result<u8, ServeError> {
    let [word, entry] = arguments else { return Err(ServeError::Arguments) };
    let entry = entry.to_str().and_then(|entry| serde_json::from_str::<Entry>(entry).ok());
    let entry = entry.ok_or(ServeError::Arguments)?;
    match word.to_str() {
        Some(KEEP) => keep(&entry),
        Some(ENTER) => Err(enter(&entry)),
        Some(_) | None => Err(ServeError::Arguments),
    }
}

/// Starts the script in a process group of its own and ends it when the site says so, or is gone.
fn keep(entry: &Entry) -> Result<u8, ServeError> {
    let text = serde_json::to_string(entry).map_err(|_| ServeError::Arguments)?;
    let mut command = Command::new(&entry.program);
    command.args(&entry.args).args([ENTER, &text]).process_group(0).stdin(Stdio::null());
    let failed = |source| ServeError::Start { program: entry.program.display().to_string(), source };
    let mut child = command.spawn().map_err(failed)?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let group = group.ok_or_else(|| ServeError::Wait(io::Error::other("no process id")))?;
    let watch = move || {
        let mut site = io::stdin().lock();
        let mut word = [0];
        while let Ok(1) = site.read(&mut word) {
            if word == [ASK_TO_END] {
                kill_process_group(group, Signal::TERM).ok();
            }
        }
        kill_process_group(group, Signal::KILL).ok();
    };
    thread::Builder::new().spawn(watch).map_err(ServeError::Wait)?;
    // Not reaped yet, so that the group is still its own when what it left behind is killed.
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(error) = waitid(WaitId::Pid(group), ended) {
        if error != rustix::io::Errno::INTR {
            return Err(ServeError::Wait(error.into()));
        }
    }
    kill_process_group(group, Signal::KILL).ok();
    child.wait().map(exit_code).map_err(ServeError::Wait)
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255);
    u8::try_from(code).unwrap_or(255)
}

/// Becomes the interpreter, confined; returns only when that failed.
fn enter(entry: &Entry) -> ServeError {
    if let Err(error) = limit(&entry.limits) {
        return ServeError::Confine(error.to_string());
    }
    let Some((program, words)) = entry.words.split_first() else { return ServeError::Arguments };
    if let Some(reach) = &entry.reach
        && let Err(reason) = confine(reach)
    {
        return ServeError::Confine(reason);
    }
    close_fds::set_fds_cloexec(3, &[]);
    let source = Command::new(program).args(words).exec();
    ServeError::Start { program: program.clone(), source }
}

fn limit(limits: &Limits) -> io::Result<()> {
    lower(Resource::Core, 0)?;
    lower(Resource::Nofile, limits.files)?;
    lower(Resource::Fsize, limits.file_size)?;
    limits.memory.map_or(Ok(()), |most| lower(Resource::As, most))?;
    limits.cpu.map_or(Ok(()), |most| lower(Resource::Cpu, most))
}

fn lower(resource: Resource, most: u64) -> io::Result<()> {
    let most = getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}

/// Gives up everything that is out of reach, for good.
#[cfg(target_os = "linux")]
fn confine(reach: &Reach) -> Result<(), String> {
    use landlock::{
        ABI, Access as _, AccessFs, AccessNet, NetPort, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
        RulesetError, RulesetStatus, Scope, path_beneath_rules,
    };

    let confined = || -> Result<RulesetStatus, RulesetError> {
        let all = AccessFs::from_all(ABI::V4);
        let mut rules = Ruleset::default().handle_access(all)?.scope(Scope::from_all(ABI::V6))?;
        if reach.only_ports.is_some() {
            rules = rules.handle_access(AccessNet::from_all(ABI::V4))?;
        }
        let mut rules = rules
            .create()?
            .add_rules(path_beneath_rules(&reach.read, AccessFs::from_read(ABI::V4)))?
            .add_rules(path_beneath_rules(&reach.write, all))?;
        for port in reach.only_ports.iter().flatten() {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
        Ok(rules.restrict_self()?.ruleset)
    };
    match confined() {
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => Ok(()),
        Ok(RulesetStatus::NotEnforced) => Err("this kernel has no Landlock".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(not(target_os = "linux"))]
fn confine(_: &Reach) -> Result<(), String> {
    Err("there is no Landlock on this system".to_owned())
}
