//! An embedded site: a hospital's own program takes part in a federation, and leaves it again.

use std::error::Error;
use std::sync::Arc;

use locule_auth::SessionStamp;
use locule_cell::{Cell, CellConfig};
use locule_communicator::Settings;
use locule_component::Registry;
use locule_kit::Workspace;
use locule_launcher::TaskLauncher;
use locule_site::{Attendants, Site, SiteEvent, SiteJobHost, SiteParts, SiteSettings, run_job};
use locule_transport::{Endpoint, Transports};
use locule_transport_mem::MemTransport;
use tokio::sync::watch;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (kit, mut settings) = (Workspace::new("kit"), Settings::new("study", "hospital-a", "server"));
    settings.secure = false; // in earnest it is, and `credentials` are the site's
    let (transports, stamp) = (Transports::new().with(MemTransport::new()), Arc::new(SessionStamp::new()));
    let config = CellConfig::new("hospital-a".parse()?);
    let cell = Cell::builder(config).transports(transports.clone()).stamp(stamp.clone()).start();

    let (session, of_now) = watch::channel(None);
    let host = SiteJobHost::new(settings.clone(), kit.clone(), Arc::new(Registry::new()), transports, of_now);
    let host = Arc::new(host);
    let parts = SiteParts {
        cell,
        stamp,
        session,
        credentials: None,
        host: host.clone(),
        launcher: Arc::new(TaskLauncher::new(move |start, abort| run_job(host.clone(), start, abort))),
        internal: Endpoint::parse("mem://hospital-a")?,
        kit,
        attendants: Attendants::default(),
    };
    let site = Site::start(SiteSettings::new(settings), parts).await?;
    let mut events = site.events();
    site.shutdown().await?; // there is no server, and that holds nobody up
    assert_eq!(events.recv().await?, SiteEvent::Stopped);
    Ok(())
}
