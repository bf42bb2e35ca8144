//! Kits of either provisioner, started as a person starts them.

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::{
    Crew, Fleet, Locule, Running, START, Stock, Who, find, job, job_completes, log_in, registered,
    sites_leave,
};
use crate::project::{LEAD, Provisioner};
use crate::run::{Check, Run, Suite};

/// The site that is behind the relay; the other reaches the server by its other host name, and so does the lead.
const BEHIND: &[&str] = &["site-1"];

pub(super) fn suites(run: &Run) -> Vec<Running<'_>> {
    let begin = |(role, who, provisioner): (&str, Who, Provisioner)| {
        let by_script = provisioner != Provisioner::Nvflare;
        let crew = Crew { relay: Some((who, BEHIND)), provisioner, by_script, ..Crew::new(who, [who, who]) };
        let start = if by_script {
            "start.sh starts server, relay and sites: one behind the relay, one at another host name"
        } else {
            "server, relay and sites start: one behind the relay, one at another host name"
        };
        let mut checks = vec![
            Check::new(start, |fleet| Box::pin(registered(fleet))).within(90),
            job_completes(),
            Check::new("a lead at another host name submits a job, and may not delete another's", |fleet| {
                Box::pin(lead_submits(fleet))
            })
            .within(120),
        ];
        checks.push(if by_script {
            Check::new("stop_fl.sh ends them", |fleet| Box::pin(stop(fleet))).within(90)
        } else {
            sites_leave()
        });
        let suite = Suite { role: role.to_owned(), ..crew.suite("kits", false) };
        crew.run(run, suite, checks)
    };
    let crews = [
        ("locule provision", Locule, Provisioner::Locule { runtime: "locule" }),
        ("locule provision --runtime nvflare", Stock, Provisioner::Locule { runtime: "nvflare" }),
        ("nvflare provision, Locule runs", Locule, Provisioner::Nvflare),
    ];
    crews.into_iter().map(begin).collect()
}

async fn lead_submits(fleet: &mut Fleet) -> anyhow::Result<()> {
    let lead = log_in(&fleet.python, &fleet.project, LEAD, &fleet.folder).await?;
    let others = json!({ "job": fleet.job });
    let refused =
        lead.ask("delete", others).await.err().context("a lead may delete another's job")?.to_string();
    ensure!(refused.contains("AuthorizationError"), "a lead is refused with {refused}");
    let folder = fleet.folder.join("long-job");
    job::write_long(&folder)?;
    let job = lead.ask("submit", json!({ "folder": folder })).await?;
    let meta = lead.ask("meta", json!({ "job": job })).await?;
    ensure!(meta["submitter_name"] == LEAD, "the job is another's: {meta}");
    lead.ask("abort", json!({ "job": job })).await?;
    lead.ask("wait_job", json!({ "job": job, "timeout": START.as_secs() })).await?;
    lead.ask("close", json!({})).await.map(drop)
}

async fn stop(fleet: &mut Fleet) -> anyhow::Result<()> {
    let programs = fleet.sites.iter_mut().chain(&mut fleet.relay).chain([&mut fleet.server]);
    for program in programs {
        program.stop(START).await?;
    }
    let running = find(&fleet.project.kit(""), "daemon_pid.fl");
    ensure!(running.is_empty(), "still there: {running:?}");
    Ok(())
}
