//! `locule site`: runs a site.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::anyhow;
use locule_cell::Dialing;
use locule_communicator::RegisterError;
use locule_kit::SiteKit;
use locule_protocol::Refusal;
use locule_site::{SiteError, SiteEvent};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;

use super::say;
use crate::arguments::Site;
use crate::exit::{self, Code, Failure};
use crate::network::Network;
use crate::wire::{self, RunningSite, SiteChoices};
use crate::{logs, stop};

/// Runs a site until it is stopped, or until its server does not take it.
pub(crate) async fn site(arguments: Site, verbose: u8) -> Result<(), Failure> {
    logs::to_stderr(logs::Default::Info, verbose);
    let kit = SiteKit::open(&arguments.kit)?;
    let heartbeat = arguments.heartbeat.map(Duration::from_secs);
    let choices = SiteChoices { name: arguments.name, heartbeat, ..SiteChoices::default() };
    let RunningSite { site, cell, mut events, dialing, lock: _lock } =
        wire::site(&kit, choices, &Network::outside()).await?;
    let until_stopped = async {
        tokio::select! {
            ended = site.wait() => ended.map_err(|error| why(error, &kit)),
            reason = hopeless(dialing) => {
                site.shutdown().await.ok();
                Err(out_of_reach(&reason, &kit))
            }
            failure = exit::lost(&cell) => {
                site.shutdown().await.ok();
                Err(failure)
            }
            () = stop::asked(arguments.stop_with_stdin) => site.shutdown().await.map_err(|error| why(error, &kit)),
        }
    };
    let ended = tokio::select! {
        ended = until_stopped => ended,
        never = show(&mut events) => match never {},
    };
    while let Ok(event) = events.try_recv() {
        say(&text(&event));
    }
    ended
}

/// Why a site ended by itself.
pub(crate) fn why(error: SiteError, kit: &SiteKit) -> Failure {
    let code = match &error {
        SiteError::Register(cause) => register_code(cause),
        SiteError::Lost | _ => Code::Software,
    };
    let server = format!("server {} at {}", kit.server_identity, kit.server);
    Failure::new(code, anyhow::Error::new(error).context(server))
}

/// The exit code for a registration that failed.
pub(super) fn register_code(error: &RegisterError) -> Code {
    match error {
        RegisterError::Refused { .. } | RegisterError::Server(_) | RegisterError::Grant(_) => {
            Code::NoPermission
        }
        RegisterError::Name(_) | RegisterError::NoCredentials | RegisterError::Sign(_) => Code::Config,
        RegisterError::Answer(_) | RegisterError::Encode(_) | RegisterError::Cancelled | _ => {
            Code::Unavailable
        }
    }
}

/// Shows what happens, for as long as anybody lets it.
async fn show(events: &mut broadcast::Receiver<SiteEvent>) -> Infallible {
    loop {
        match events.recv().await {
            Ok(event) => say(&text(&event)),
            Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "events were not shown"),
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn text(event: &SiteEvent) -> String {
    match event {
        SiteEvent::Registered { site } => format!("{site} registered"),
        SiteEvent::JobDeployed { job, app } => format!("job {job}: app {app} deployed"),
        SiteEvent::JobRefused { job, refusals } => format!("job {job}: {}", Refusal::sentence(refusals)),
        SiteEvent::JobStarted { job } => format!("job {job} started"),
        SiteEvent::JobRestarted { job, reason } => format!("job {job} started again: {reason}"),
        SiteEvent::JobEnded { job, code, reason, .. } => match reason {
            Some(reason) => format!("job {job} ended with code {code}: {reason}"),
            None => format!("job {job} ended with code {code}"),
        },
        SiteEvent::OutcomeTaken { job } => format!("job {job}: the server has taken the outcome"),
        SiteEvent::Stopped => "stopped".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Resolves when the server cannot be reached unless somebody changes something, with the reason.
///
/// A site that was linked once goes on trying whatever happens: what changed there may change back.
pub(super) async fn hopeless(mut dialing: watch::Receiver<Dialing>) -> String {
    let (mut was_linked, mut said) = (false, String::new());
    loop {
        let state = dialing.borrow_and_update().clone();
        match state {
            Dialing::Linked(_) => (was_linked, said) = (true, String::new()),
            Dialing::Failed { error, retryable: false } if !was_linked => return error,
            Dialing::Failed { error, .. } if error != said => {
                tracing::warn!(error, "server not reached; trying on");
                said = error;
            }
            Dialing::Trying | Dialing::Failed { .. } | _ => {}
        }
        if dialing.changed().await.is_err() {
            return std::future::pending().await; // the site has stopped and says so itself
        }
    }
}

fn out_of_reach(reason: &str, kit: &SiteKit) -> Failure {
    let error = anyhow!(
        "cannot link to server {} at {}: {reason}; check that the kit is of the same project as the server's, that \
         no certificate has expired, and that nothing else answers there",
        kit.server_identity,
        kit.server
    );
    Failure::new(Code::NoPermission, error)
}
