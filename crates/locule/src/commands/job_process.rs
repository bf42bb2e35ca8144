//! `locule job-process`: this process is one half of a job.

use std::time::Duration;

use locule_launcher::JobProcess;

use crate::arguments::{Half, JobProcess as Arguments};
use crate::exit::{Code, Failure, OrExit as _};
use crate::{logs, wire};

/// Most threads that the cell of a job runs on; what its components compute has threads of its own.
const WORKERS: usize = 4;

/// Works on the job that the daemon which started this process tells of.
pub(crate) fn job_process(arguments: &Arguments, verbose: u8) -> Result<(), Failure> {
    let job = JobProcess::begin().or_exit(Code::Usage)?;
    logs::to_stderr(logs::Default::Info, verbose);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let runtime = runtime.or_exit(Code::Software)?;
    let brief = job.brief.clone();
    let told = match arguments.half {
        Half::Server => runtime.block_on(job.run(|start, abort| async move {
            locule_server::run_job(wire::host_of_server_job(&brief)?, start, abort).await
        })),
        Half::Site => runtime.block_on(job.run(|start, abort| async move {
            locule_site::run_job(wire::host_of_site_job(&brief)?, start, abort).await
        })),
    };
    // An executor that does not stop does not keep the process.
    runtime.shutdown_timeout(Duration::ZERO);
    told.or_exit(Code::Software)
}
