//! What a job's process may use up.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// The limits of a job's process; without one, what the daemon itself may use.
///
/// The process sets them on itself before anything of the job runs, and never lifts them again. They hold for each
/// process that the job starts by itself as well, each on its own; `wall_seconds` and `disk_mib` hold for all of them
/// together, and it is the launcher that ends them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// Memory that it may write to (its data, not the files that it maps), in MiB; the program itself takes some 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Processor time, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<u64>,
    /// Time from its start, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_seconds: Option<u64>,
    /// What its folder may take up on disk, in MiB. It is looked at every ten seconds, so that a job may be over it for
    /// as long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_mib: Option<u64>,
    /// Open files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Processes and threads of the daemon's user, those of the daemon included. A superuser is not held to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
}

impl Limits {
    /// Confines this process.
    pub(crate) fn take_effect(&self) -> io::Result<()> {
        lower(Resource::Core, 0)?; // a core would hold the job's data, and the site's
        for (resource, most) in [
            (Resource::Data, self.memory_mib.map(|mib| mib.saturating_mul(1 << 20))),
            (Resource::Nofile, self.open_files),
            (Resource::Nproc, self.processes),
        ] {
            most.map_or(Ok(()), |most| lower(resource, most))?;
        }
        let Some(cpu) = self.cpu_seconds else { return Ok(()) };
        // The signal at the soft limit says why; what ignores it is killed two seconds later.
        let most = |wanted: u64| getrlimit(Resource::Cpu).maximum.map_or(wanted, |hard| hard.min(wanted));
        let (soft, hard) = (most(cpu), most(cpu.saturating_add(2)));
        Ok(setrlimit(Resource::Cpu, Rlimit { current: Some(soft), maximum: Some(hard) })?)
    }
}

fn lower(resource: Resource, most: u64) -> io::Result<()> {
    let most = getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}
