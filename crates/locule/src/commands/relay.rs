//! `locule relay`: runs a relay.

use std::time::Duration;

use anyhow::anyhow;
use locule_kit::RelayKit;

use super::say;
use super::site::{hopeless, register_code};
use crate::arguments::Relay;
use crate::exit::{self, Code, Failure};
use crate::network::Network;
use crate::wire::{self, RunningRelay};
use crate::{logs, stop};

/// How long what is on its way may take when the relay is asked to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Runs a relay until it is stopped, or until its server does not take it.
pub(crate) async fn relay(arguments: Relay, verbose: u8) -> Result<(), Failure> {
    logs::to_stderr(logs::Default::Info, verbose);
    let kit = RelayKit::open(&arguments.kit)?;
    let RunningRelay { cell, endpoint, dialing, registered, lock: _lock } =
        wire::relay(&kit, &Network::outside()).await?;
    say(&format!("{} listens at {endpoint}", kit.name));
    let refused = async {
        match registered.await {
            Ok(Ok(())) => std::future::pending().await,
            Ok(Err(error)) => {
                let code = register_code(&error);
                let server = format!("server {} above {}", kit.server_identity, kit.parent.address);
                Failure::new(code, anyhow::Error::new(error).context(server))
            }
            Err(error) => Failure::new(Code::Software, error),
        }
    };
    let ended = tokio::select! {
        failure = refused => Err(failure),
        reason = hopeless(dialing) => Err(out_of_reach(&reason, &kit)),
        failure = exit::lost(&cell) => Err(failure),
        () = stop::asked(arguments.stop_with_stdin) => Ok(()),
    };
    cell.shutdown(GRACE).await;
    say("stopped");
    ended
}

fn out_of_reach(reason: &str, kit: &RelayKit) -> Failure {
    let error = anyhow!(
        "cannot link to {} at {}: {reason}; check that the kits are of the same project, that no certificate has \
         expired, and that nothing else answers there",
        kit.parent.fqcn,
        kit.parent.address
    );
    Failure::new(Code::NoPermission, error)
}
