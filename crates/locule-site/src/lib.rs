//! A site of a federation: registers, takes its server's orders, runs jobs and reports how they ended.
//!
//! A [`Site`] checks, reviews and stores the apps that its server deploys, starts each job through a
//! [`Launcher`](locule_launcher::Launcher), keeps itself known by heartbeats, and reports every outcome until
//! the server has taken it. What such a launcher starts is [`run_job`]: a job in a cell of its own, which links
//! to its parent only, puts its whole plan to the site's checkers before anything is built, and then works on
//! tasks. The crate opens no sockets, knows no carrier and holds no key: cell, carriers and credentials come in.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use locule_auth::{CertificateLinkPolicy, SessionStamp};
//! use locule_cell::{Cell, CellConfig};
//! use locule_communicator::{Credentials, Settings};
//! use locule_component::Registry;
//! use locule_kit::Workspace;
//! use locule_launcher::TaskLauncher;
//! use locule_message::Fqcn;
//! use locule_site::{Attendants, Site, SiteJobHost, SiteParts, SiteSettings, run_job};
//! use locule_transport::{Endpoint, Transports};
//! use tokio::sync::watch;
//!
//! # async fn run(transports: Transports, registry: Registry, credentials: Credentials)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let (name, kit) = (Fqcn::parse("hospital-a")?, Workspace::new("kits/hospital-a"));
//! let settings = Settings::new("ward-7", "hospital-a", "server.ward-7.org");
//!
//! let stamp = Arc::new(SessionStamp::new());
//! let policy = CertificateLinkPolicy::new(name.clone()).expect(Fqcn::server(), "server.ward-7.org");
//! let cell = Cell::builder(CellConfig::new(name))
//!     .transports(transports.clone())
//!     .stamp(stamp.clone())
//!     .link_policy(Arc::new(policy))
//!     .start();
//! cell.connect(Endpoint::parse("grpc://server.ward-7.org:8002")?);
//!
//! let (session, of_now) = watch::channel(None);
//! let host = SiteJobHost::new(settings.clone(), kit.clone(), Arc::new(registry), transports, of_now);
//! let host = Arc::new(host);
//! let parts = SiteParts {
//!     cell,
//!     stamp,
//!     session,
//!     credentials: Some(credentials),
//!     host: host.clone(),
//!     launcher: Arc::new(TaskLauncher::new(move |start, abort| run_job(host.clone(), start, abort))),
//!     internal: Endpoint::parse("mem://hospital-a")?,
//!     kit,
//!     attendants: Attendants::default(),
//! };
//! let site = Site::start(SiteSettings::new(settings), parts).await?;
//! site.wait().await?;
//! # Ok(()) }
//! ```
//!
//! Start with [`Site`], [`SiteParts`] and [`run_job`].
//!
//! # What counts as an order
//!
//! Only a message whose origin is exactly the cell `server`, and which did not come over a link of one of the
//! site's own jobs. A job is believed only about itself, over its own link, and only if that link crosses no
//! network. An app must be signed, all of it, by administrators of the project, unless the site says otherwise.
//!
//! # Source
//! nvflare 2.9.0: `nvflare.private.fed.client.training_cmds`, `nvflare.private.fed.client.scheduler_cmds`,
//! `nvflare.private.fed.client.client_executor`, `nvflare.private.fed.app.deployer.base_client_deployer`.

mod admit;
mod book;
mod brief;
mod check;
mod context;
mod end_of_run;
mod event;
mod folder;
mod job;
mod meta;
mod news;
mod parent;
mod reservation;
mod resources;
mod retention;
mod site;

pub use brief::SiteBrief;
pub use event::SiteEvent;
pub use job::{SiteJobHost, run_job};
pub use locule_event::Attendants;
pub use locule_executor::{Pace, Turns};
pub use resources::SiteResources;
pub use site::{Site, SiteError, SiteParts, SiteSettings};
