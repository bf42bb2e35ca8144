//! How links come about: accepted or dialed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use locule_frame::Side;
use locule_message::Fqcn;
use locule_switch::LinkId;
use locule_transport::{Endpoint, Listener, Transports};
use rand::Rng as _;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::link::{self, LinkContext};
use crate::stats::Counters;

/// Waits between attempts to dial; the last repeats.
const BACK_OFF: [u64; 5] = [1, 2, 4, 8, 10];
/// A link that lived so long starts the waits over.
const LONG_LIFE: Duration = Duration::from_secs(10);
/// Wait after a listener could not accept, for want of file descriptors and the like.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What listeners and dialers share.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) context: Arc<LinkContext>,
    pub(crate) transports: Transports,
    pub(crate) neighbours: watch::Receiver<Vec<Fqcn>>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) next_link: AtomicU64,
    /// Room for accepted links in their handshake.
    pub(crate) handshakes: Arc<Semaphore>,
}

/// What became of the attempts to reach an endpoint; see [`Cell::connect`](crate::Cell::connect).
#[derive(Clone, Debug)]
pub struct Connection {
    pub(crate) give_up: CancellationToken,
    pub(crate) state: watch::Receiver<Dialing>,
}

/// How dialing goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialing {
    /// On the way, or waiting for the next attempt.
    #[default]
    Trying,
    /// The last attempt failed; the next follows by itself.
    Failed {
        /// Why, for a person to read.
        error: String,
        /// False when somebody has to change something first.
        retryable: bool,
    },
    /// The link to this neighbour is up.
    Linked(Fqcn),
}

impl Connection {
    /// How dialing goes, now and later.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<Dialing> {
        self.state.clone()
    }

    /// Gives the endpoint up and closes the link to it. Dropping a `Connection` does not.
    pub fn stop(&self) {
        self.give_up.cancel();
    }
}

impl Connections {
    fn next_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes links from `listener` until the cell stops. Handshakes run beside it.
    pub(crate) async fn accept(self: Arc<Self>, mut listener: Box<dyn Listener>) {
        let stop = self.stop.clone();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(link) => {
                    let Ok(handshake) = self.handshakes.clone().try_acquire_owned() else {
                        Counters::add(&self.context.counters.links_turned_away, 1);
                        continue;
                    };
                    let connections = self.clone();
                    // a link outlives the call to stop, in order to say what is still to be said
                    self.tasks.spawn(async move {
                        let id = connections.next_link();
                        let stop = CancellationToken::new();
                        let established = |_: &Fqcn| drop(handshake);
                        link::run(&connections.context, id, link, Side::Listener, stop, established).await;
                    });
                }
                Err(error) if error.is_retryable() => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    }
                }
                Err(error) => {
                    tracing::error!(%error, endpoint = %listener.local(), "listener ended");
                    return;
                }
            }
        }
    }

    /// Keeps a link to `endpoint` up until told to stop.
    pub(crate) async fn dial(
        self: Arc<Self>,
        endpoint: Endpoint,
        give_up: CancellationToken,
        state: watch::Sender<Dialing>,
    ) {
        let mut failures = 0;
        let mut last_peer = None;
        let attempts = async {
            loop {
                if let Some(peer) = last_peer.take() {
                    // two that dial each other must not evict each other's links for ever
                    let mut neighbours = self.neighbours.clone();
                    let gone = neighbours.wait_for(|names| !names.contains(&peer));
                    let _ = give_up.run_until_cancelled(gone).await;
                }
                match self.dial_once(&endpoint, &give_up, &state).await {
                    Ok((peer, lived)) => {
                        failures = if lived > LONG_LIFE { 0 } else { failures + 1 };
                        last_peer = Some(peer);
                        state.send_replace(Dialing::Trying);
                    }
                    Err(failed) => {
                        failures += 1;
                        state.send_replace(failed);
                    }
                }
                if give_up.run_until_cancelled(tokio::time::sleep(back_off(failures))).await.is_none() {
                    return;
                }
            }
        };
        // A link that is up when the cell stops is ended by the driver, after all has been said; one that is
        // given up ends itself and tells the driver, so it must not be dropped under way.
        tokio::select! {
            () = self.stopped(&state) => {}
            () = attempts => {}
        }
    }

    /// Resolves once the cell has stopped and no link is up.
    async fn stopped(&self, state: &watch::Sender<Dialing>) {
        self.stop.cancelled().await;
        let mut state = state.subscribe();
        let _ = state.wait_for(|state| !matches!(state, Dialing::Linked(_))).await;
    }

    /// Dials once and runs the link to its end; tells whose it was and how long it lived.
    async fn dial_once(
        &self,
        endpoint: &Endpoint,
        give_up: &CancellationToken,
        state: &watch::Sender<Dialing>,
    ) -> Result<(Fqcn, Duration), Dialing> {
        let dialing = tokio::time::timeout(self.context.config.dial_timeout, self.transports.dial(endpoint));
        let failed = |error: String| Dialing::Failed { error, retryable: true };
        let Some(dialled) = give_up.run_until_cancelled(dialing).await else {
            return Err(failed("given up".to_owned()));
        };
        let link = match dialled {
            Ok(Ok(link)) => link,
            Ok(Err(error)) if error.is_retryable() => {
                tracing::debug!(%endpoint, %error, "cannot dial");
                return Err(failed(with_causes(&error)));
            }
            Ok(Err(error)) => {
                let error = with_causes(&error);
                tracing::error!(%endpoint, error, "cannot dial");
                return Err(Dialing::Failed { error, retryable: false });
            }
            Err(_) => return Err(failed("no answer in time".to_owned())),
        };
        let begun = tokio::time::Instant::now();
        let mut linked_to = None;
        let established = |peer: &Fqcn| {
            linked_to = Some(peer.clone());
            state.send_replace(Dialing::Linked(peer.clone()));
        };
        let id = self.next_link();
        let end = link::run(&self.context, id, link, Side::Dialer, give_up.child_token(), established).await;
        let retryable = end.is_retryable();
        let failed = || Dialing::Failed { error: with_causes(&end), retryable };
        linked_to.map(|peer| (peer, begun.elapsed())).ok_or_else(failed)
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The wait after so many failures in a row, shortened at random so that a thousand sites do not come
/// back at the same moment.
fn back_off(failures: usize) -> Duration {
    let step = failures.saturating_sub(1).min(BACK_OFF.len() - 1);
    Duration::from_secs(BACK_OFF[step]).mul_f64(rand::rng().random_range(0.5..=1.0))
}
