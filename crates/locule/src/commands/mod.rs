//! What the binary does, apart from the demo.

mod audit;
mod checker;
mod job;
mod job_process;
mod policy;
mod provision;
mod relay;
mod schema;
mod script;
mod server;
mod sign;
mod site;
mod table;

pub(crate) use audit::audit;
pub(crate) use checker::checker;
pub(crate) use job::job;
pub(crate) use job_process::job_process;
pub(crate) use policy::policy;
pub(crate) use provision::provision;
pub(crate) use relay::relay;
pub(crate) use schema::schema;
pub(crate) use script::script;
pub(crate) use server::server;
#[cfg(feature = "simulate")]
pub(crate) use server::why_not_done;
pub(crate) use sign::sign;
pub(crate) use site::site;
#[cfg(feature = "simulate")]
pub(crate) use site::why as why_site_ended;

use std::io::Write as _;

/// Writes a line to standard output; who watches may have gone, and the command goes on.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}
