//! Mistakes in a job folder, found before anything of it runs.

use std::path::Path;

use locule_assembly::{AssemblyError, Deployed};
use locule_component::Side;
use locule_config::Diagnostic;
use locule_job::JobFolder;
use locule_kit::Workspace;

use crate::exit::{Code, Failure};
use crate::wire;

/// What the sites of a job run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sites {
    /// Programs that may know other components than this one: an unknown name in a site's half is a mistake only in
    /// our own namespace.
    Elsewhere,
    /// This program.
    #[cfg(feature = "simulate")]
    Here,
}

/// Reads a job folder, and checks it as far as that is possible without its sites: its meta, and both halves of its
/// apps.
pub(crate) fn check_job(folder: &Path, sites: Sites) -> Result<JobFolder, Failure> {
    let job = JobFolder::read(folder).map_err(|error| Failure::from(error).about(folder))?;
    for (app, to) in &job.meta.deploy_map {
        let halves = [(Side::Server, to.has_server()), (Side::Site, to.has_sites())];
        for (side, _) in halves.into_iter().filter(|(_, deployed)| *deployed) {
            let checked = check_half(&job, app, side, sites);
            checked.map_err(|error| Failure::new(Code::Data, error).about(&job.app_dir(app)))?;
        }
    }
    Ok(job)
}

/// Looks for mistakes in one half of an app, as [`check_job`] does.
pub(crate) fn check_half(job: &JobFolder, app: &str, side: Side, sites: Sites) -> Result<(), AssemblyError> {
    let deployed = Deployed {
        side,
        participant: if side == Side::Server { "server" } else { "site" }.to_owned(),
        org: String::new(),
        job_id: "job".to_owned(),
        kit: Workspace::new(&job.path),
        app_dir: job.app_dir(app),
        meta: job.meta.to_json(job.byoc),
    };
    let is_foreign_half = side == Side::Site && sites == Sites::Elsewhere;
    match locule_assembly::plan_anywhere(&deployed, &wire::registry()) {
        Err(AssemblyError::Config(mistakes)) if is_foreign_half && mistakes.iter().all(is_foreign) => Ok(()),
        // Written in a language that other sites read.
        Err(AssemblyError::Read { .. }) if is_foreign_half => Ok(()),
        checked => checked.map(drop),
    }
}

fn is_foreign(mistake: &Diagnostic) -> bool {
    mistake.code == locule_component::code::UNKNOWN_COMPONENT && !mistake.snippet.text.contains("\"locule.")
}
