//! What a site says of itself, as the sticky properties of a run.

use locule_component::{Flags, RunContext};
use locule_protocol::{prop, site_context};

/// The context of the site itself, or of one of its jobs.
pub(crate) fn run_context(site: &str, job_id: Option<&str>) -> RunContext {
    let run = RunContext::new(site, job_id.unwrap_or_default());
    let mut context = run.open();
    for (name, known) in site_context(site, job_id).props {
        if name != prop::IDENTITY && name != prop::RUN_NUM {
            let set = context.set(&name, known.value, Flags::PUBLIC_STICKY);
            set.expect("a new context has only identity and job");
        }
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_told_what_the_protocol_has_for_them() {
        for job_id in [None, Some("job-1")] {
            let told = run_context("site-1", job_id).open().peer_context();
            for (name, prop) in &site_context("site-1", job_id).props {
                assert_eq!(told.get(name), Some(&prop.value), "{name}");
            }
        }
    }
}
