//! `locule server`: runs a server, and a job if one is given.

use std::fmt::Write as _;

use anyhow::{Context as _, anyhow};
use locule_kit::ServerKit;
use locule_server::{JobRecord, JobStatus, ServerEvent};
use tokio::sync::broadcast::error::RecvError;

use super::say;
use crate::arguments::{Output, Server};
use crate::exit::{self, Code, Failure, OrExit as _};
use crate::mistakes::{Sites, check_job};
use crate::network::Network;
use crate::wire::{self, RunningServer};
use crate::{logs, stop};

/// Runs a server until it is stopped, or until the job that it was given is over.
pub(crate) async fn server(arguments: Server, verbose: u8) -> Result<(), Failure> {
    logs::to_stderr(logs::Default::Info, verbose);
    let kit = ServerKit::open(&arguments.kit)?;
    if let Some(job) = &arguments.job {
        check_job(job, Sites::Elsewhere)?;
    }
    let mut running = wire::server(&kit, None, &Network::outside()).await?;
    show(&running.listening(), arguments.output)?;
    let (stop, cell) = (running.stop.clone(), running.cell.clone());
    let course = tokio::select! {
        course = follow(&mut running, &arguments) => course,
        () = stop::asked(arguments.stop_with_stdin) => stopped(&arguments),
        () = stop.cancelled() => stopped(&arguments),
        failure = exit::lost(&cell) => Err(failure),
    };
    running.server.shutdown().await;
    course
}

/// Shows what happens; ends with the job that was given, if there is one.
async fn follow(running: &mut RunningServer, arguments: &Server) -> Result<(), Failure> {
    let job = match &arguments.job {
        Some(folder) => {
            let submitted = running.server.submit(folder).await.map_err(Failure::from);
            Some(submitted.map_err(|failure| failure.about(folder))?)
        }
        None => None,
    };
    loop {
        match running.events.recv().await {
            Ok(event) => {
                show(&event, arguments.output)?;
                if let ServerEvent::JobFinished { record, .. } = event
                    && job.as_ref() == Some(&record.job_id)
                {
                    return why_not_done(&record).map_or(Ok(()), Err);
                }
            }
            Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "events were not shown"),
            Err(RecvError::Closed) => {
                return Err(Failure::new(Code::Software, anyhow!("the server has ended")));
            }
        }
    }
}

/// To be stopped is how a server ends, unless it was given a job.
fn stopped(arguments: &Server) -> Result<(), Failure> {
    if arguments.job.is_some() { Err(Failure::interrupted()) } else { Ok(()) }
}

/// Why a job did not complete, with every site's refusals and reasons; nothing if it did.
pub(crate) fn why_not_done(record: &JobRecord) -> Option<Failure> {
    let status = record.status();
    if status == JobStatus::Completed {
        return None;
    }
    let reason = record.history.last().map_or("", |change| change.reason.as_str());
    let mut text = format!("job {} ended as {}: {reason}", record.name, status.as_str());
    for refusal in record.refusals() {
        let locule_protocol::Refusal { site, component, file, path, code, reason } = refusal;
        write!(text, "\n  {site} refuses {component} at {path} of {file}: {reason} ({code})").ok();
    }
    for (site, outcome) in &record.outcomes {
        // Those that were only told to stop, and those whose refusals stand above, have nothing to add.
        let says = outcome.code != locule_protocol::outcome::ABORTED && outcome.refusals.is_empty();
        if let Some(reason) = outcome.reason.as_ref().filter(|_| says) {
            write!(text, "\n  {site} ended with code {}: {reason}", outcome.code).ok();
        }
    }
    Some(Failure::new(Code::JobFailed, anyhow!(text)))
}

fn show(event: &ServerEvent, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => {
            say(&serde_json::to_string(event).context("event cannot be shown").or_exit(Code::Software)?)
        }
        Output::Text => say(&text(event)),
    }
    Ok(())
}

fn text(event: &ServerEvent) -> String {
    match event {
        ServerEvent::Listening { endpoint } => format!("listening at {endpoint}"),
        ServerEvent::SiteJoined { site } => format!("{site} joined"),
        ServerEvent::SiteLeft { site, reason } => format!("{site} left: {reason}"),
        ServerEvent::JobStatus { job, status, reason } => {
            format!("job {job} is {}: {reason}", status.as_str())
        }
        ServerEvent::JobRestarted { job, reason } => format!("job {job} started again: {reason}"),
        ServerEvent::JobWaits { job, reason } => format!("job {job} waits: {reason}"),
        ServerEvent::RoundStarted { round, rounds, .. } => format!("round {}/{rounds} began", round + 1),
        ServerEvent::RoundFinished { round, rounds, sites, .. } => {
            format!("round {}/{rounds} aggregated from {} sites", round + 1, sites.len())
        }
        ServerEvent::ResultSaved { path, .. } => format!("saved {}", path.display()),
        ServerEvent::JobFinished { record, bytes_moved } => {
            let (name, status) = (&record.name, record.status());
            format!(
                "job {name} is over: {}, {} rounds, {bytes_moved} bytes",
                status.as_str(),
                record.rounds_done
            )
        }
        ServerEvent::ResultUnusable { site, task, round, reason, .. } => {
            let round = round.map_or_else(String::new, |round| format!(" of round {}", round + 1));
            format!("{site} has no usable result for task {task}{round}: {reason}")
        }
        other => format!("{other:?}"),
    }
}
