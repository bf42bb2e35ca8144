//! A site of ours, put together from the crates, with nvflare's trainer in Rust.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use locule_auth::{CertificateLinkPolicy, SessionStamp};
use locule_cell::{Cell, CellConfig};
use locule_communicator::{Credentials, Settings};
use locule_component::{
    BuildCx, BuildError, Built, Component, EventBus, ExecuteError, Executor, Kind, Registry, Task, TaskCx,
};
use locule_fobs::{Array, DataKind, Dxo, Map, Shareable};
use locule_identity_openssl::{OpensslSigner, OpensslVerifier};
use locule_kit::SiteKit;
use locule_launcher::{JobStart, TaskLauncher};
use locule_message::Fqcn;
use locule_site::{Site, SiteEvent, SiteJobHost, SiteParts, SiteSettings};
use locule_tls::{HostCheck, TlsFiles, client_config};
use locule_transport::{Endpoint, Transports};
use locule_transport_grpc::GrpcTransport;
use locule_transport_mem::MemTransport;
use serde::Deserialize;
use tokio::sync::{broadcast, watch};

use super::job;

/// A site in this process.
#[derive(Debug)]
pub(super) struct RustSite {
    site: Site,
    events: broadcast::Receiver<SiteEvent>,
}

impl RustSite {
    /// Starts the site whose kit is `folder`.
    pub(super) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let kit = SiteKit::open(folder).with_context(|| folder.display().to_string())?;
        let signer = Arc::new(OpensslSigner::from_files(&kit.files.cert, &kit.files.key)?);
        let verifier = Arc::new(OpensslVerifier::new(&kit.files.read_ca()?)?);
        let name = locule_identity::Signer::identity(&*signer).common_name.clone();
        let own = Fqcn::parse(&name)?;

        let files = &kit.files;
        let files = TlsFiles { ca: files.ca.clone(), cert: files.cert.clone(), key: files.key.clone() };
        let tls = Arc::new(client_config(&files, HostCheck::San)?);
        let jobs = MemTransport::new();
        let inside = Transports::new().with(jobs.clone());
        let all = inside.clone().with(GrpcTransport::tls(Some(tls), None));

        let stamp = Arc::new(SessionStamp::new());
        let policy = CertificateLinkPolicy::new(own.clone()).expect(Fqcn::server(), &kit.server_identity);
        let cell = Cell::builder(CellConfig::new(own))
            .transports(all)
            .stamp(stamp.clone())
            .link_policy(Arc::new(policy))
            .start();

        let mut settings = Settings::new(&kit.project, &name, &kit.server_identity);
        settings.heartbeat_interval = kit.timeouts.heartbeat_interval;
        let mut registry = Registry::new();
        registry.register::<NpTrainer>();
        let (session, of_now) = watch::channel(None);
        let workspace = kit.workspace.clone();
        let host = SiteJobHost::new(settings.clone(), workspace.clone(), Arc::new(registry), inside, of_now);
        let host = Arc::new(host);
        let run = move |start: JobStart, abort| locule_site::run_job(Arc::clone(&host), start, abort);
        let parts = SiteParts {
            cell: cell.clone(),
            stamp,
            session,
            credentials: Some(Credentials { signer, verifier }),
            launcher: Arc::new(TaskLauncher::new(run)),
            internal: Endpoint::parse("mem://jobs")?,
            kit: workspace,
            events: Arc::new(EventBus::default()),
        };
        let site = Site::start(SiteSettings::new(settings), parts).await?;
        let events = site.events();
        cell.connect(Endpoint::parse(&kit.server.to_string())?);
        Ok(Self { site, events })
    }

    /// Leaves the federation.
    pub(super) async fn quit(self) -> anyhow::Result<()> {
        Ok(self.site.shutdown().await?)
    }

    /// What happened so far, for a person to read.
    pub(super) fn story(&mut self) -> String {
        let events = std::iter::from_fn(|| self.events.try_recv().ok());
        events.map(|event| format!("{event:?}\n")).collect()
    }
}

/// Adds a number to every element, as nvflare's trainer of this name does.
#[derive(Debug, Deserialize)]
struct NpTrainer {
    delta: f32,
}

impl Component for NpTrainer {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = job::TRAINER;
    type Args = NpTrainer;

    fn build(args: NpTrainer, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Executor(Box::new(args)))
    }
}

impl Executor for NpTrainer {
    fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        let bad = |reason: &str| ExecuteError::BadTask(reason.to_owned());
        let dxo = task.data.dxo().map_err(|error| bad(&error.to_string()))?.ok_or_else(|| bad("no DXO"))?;
        let model =
            dxo.data.get(job::KEY).and_then(|value| value.as_array()).ok_or_else(|| bad("no array"))?;
        let trained: Vec<f32> = model.to_f64().iter().map(|element| *element as f32 + self.delta).collect();
        let trained = Array::from_f32(model.shape(), &trained).map_err(|error| bad(&error.to_string()))?;
        let mut dxo = Dxo::new(DataKind::Weights, Map::from_iter([(job::KEY, trained)]));
        dxo.meta.insert("NUM_STEPS_CURRENT_ROUND", 1_u64);
        Ok(Shareable::with_dxo(dxo))
    }
}
