//! A whole federation in this process, for the demo and for simulations.

use std::path::Path;
use std::time::Duration;

use locule_component::Seed;
use locule_kit::{ServerKit, SiteKit};
use locule_server::{Server, ServerEvent};
use locule_site::Site;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::commands;
use crate::exit::Failure;
use crate::network::Network;
use crate::wire::{self, RunningServer, RunningSite, SiteChoices};

/// How long everything may take to stop; what is left then ends with this process.
const GRACE: Duration = Duration::from_secs(10);

/// Something that happens in a federation on this machine.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The server says something.
    Server(Box<ServerEvent>),
    /// The server or a site ended.
    Ended { how: String },
}

/// The server and the sites of a federation as tasks of this process, with a network of their own in its memory.
#[derive(Debug)]
pub(crate) struct Federation {
    network: Network,
    server: Option<Server>,
    sites: JoinSet<()>,
    stop: CancellationToken,
    happenings: mpsc::Sender<Happening>,
}

impl Federation {
    /// Nothing runs yet; what happens is told to `happenings`.
    pub(crate) fn new(happenings: mpsc::Sender<Happening>) -> Self {
        let stop = CancellationToken::new();
        Self { network: Network::in_memory(), server: None, sites: JoinSet::new(), stop, happenings }
    }

    /// Starts the server of a kit, and gives it a job, which waits for its sites.
    pub(crate) async fn start_server(
        &mut self,
        kit: &Path,
        job: &Path,
        seed: Option<Seed>,
    ) -> Result<(), Failure> {
        let kit = ServerKit::open(kit)?;
        let running = Box::pin(wire::server(&kit, seed, &self.network)).await?;
        let listening = running.listening();
        let RunningServer { server, events, .. } = running;
        self.server = Some(server.clone());
        self.happenings.send(Happening::Server(Box::new(listening))).await.ok();
        tokio::spawn(tell(events, self.happenings.clone()));
        server.submit(job).await?;
        Ok(())
    }

    /// Starts the site of a kit.
    pub(crate) async fn start_site(
        &mut self,
        name: &str,
        kit: &Path,
        choices: SiteChoices,
    ) -> Result<(), Failure> {
        let kit = SiteKit::open(kit)?;
        let RunningSite { site, .. } = Box::pin(wire::site(&kit, choices, &self.network)).await?;
        let (stop, happenings) = (self.stop.clone(), self.happenings.clone());
        self.sites.spawn(watch_over(name.to_owned(), kit, site, stop, happenings));
        Ok(())
    }

    /// Stops the sites, then the server.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        let stopping = async {
            while self.sites.join_next().await.is_some() {}
            if let Some(server) = &self.server {
                server.shutdown().await;
            }
        };
        if tokio::time::timeout(GRACE, stopping).await.is_err() {
            tracing::warn!("the federation did not stop in time");
        }
    }
}

/// Tells how a site ends, unless it was told to.
async fn watch_over(
    name: String,
    kit: SiteKit,
    site: Site,
    stop: CancellationToken,
    happenings: mpsc::Sender<Happening>,
) {
    let ended = tokio::select! {
        ended = site.wait() => ended,
        () = stop.cancelled() => {
            site.shutdown().await.ok();
            return;
        }
    };
    let how = match ended {
        Ok(()) => format!("{name} ended"),
        Err(error) => format!("{name} ended: {}", commands::why_site_ended(error, &kit).text()),
    };
    happenings.send(Happening::Ended { how }).await.ok();
}

async fn tell(mut events: Receiver<ServerEvent>, happenings: mpsc::Sender<Happening>) {
    loop {
        let happening = match events.recv().await {
            Ok(event) => Happening::Server(Box::new(event)),
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "events were not seen");
                continue;
            }
            Err(RecvError::Closed) => Happening::Ended { how: "server ended".to_owned() },
        };
        let is_last = matches!(happening, Happening::Ended { .. });
        if happenings.send(happening).await.is_err() || is_last {
            return;
        }
    }
}
