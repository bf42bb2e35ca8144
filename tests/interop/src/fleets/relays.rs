//! Sites behind a relay, of which each may be nvflare's or ours.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::{
    Crew, Fleet, Locule, Running, SITES, Stock, complete_and_check, job, job_completes, sites_leave,
    sites_register,
};
use crate::run::{Check, Run};

/// How long sites may take to come back after their relay: nvflare's wait longer after each try.
const RETURN: Duration = Duration::from_secs(90);

pub(super) fn suites(run: &Run) -> Vec<Running<'_>> {
    let begin = |(crew, slow): (Crew, bool)| {
        let returns =
            Check::new("the relay is killed and comes back; a job with a model of 4 MB completes", |fleet| {
                Box::pin(relay_returns(fleet))
            });
        let checks = vec![sites_register(), job_completes(), returns.within(240), sites_leave()];
        crew.run(run, crew.suite("relays", slow), checks)
    };
    let crews = [
        (Crew::new(Stock, [Locule, Stock]).behind(Locule), false),
        (Crew::new(Locule, [Locule, Stock]).behind(Locule), false),
        (Crew::new(Locule, [Locule, Locule]).behind(Stock), false),
        (Crew::new(Stock, [Locule, Locule]).behind(Stock), true),
        (Crew::new(Stock, [Locule, Stock]).behind(Locule).over("tcp"), true),
        (Crew::new(Locule, [Locule, Stock]).behind(Locule).over("http"), true),
    ];
    crews.into_iter().map(begin).collect()
}

async fn relay_returns(fleet: &mut Fleet) -> anyhow::Result<()> {
    fleet.relay.as_mut().context("there is a relay")?.kill_and_start_again().await?;
    let answer = json!({ "names": SITES, "timeout": RETURN.as_secs() });
    fleet.api.ask("wait_answers", answer).await?;
    complete_and_check(fleet, job::LARGE).await
}
