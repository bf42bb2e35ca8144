//! The one place that names every crate: from a startup kit to a running server or site.
//!
//! Each function builds in order, and nothing exists before what it needs: kit, identity, carriers,
//! ledger, cell, server or site.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, anyhow};
use locule_assembly::{AssemblyError, Deployed};
use locule_auth::{CertificateLinkPolicy, LedgerLimits, ServerGate, ServerStamp, SessionStamp, TokenLedger};
use locule_cell::{Cell, CellConfig};
use locule_communicator::Credentials;
use locule_component::{Registry, Side};
use locule_identity::{Identity, Signer, Usage, Verifier};
use locule_identity_openssl::{OpensslSigner, OpensslVerifier};
use locule_job::JobFolder;
use locule_kit::{Address, ConnectionSecurity, KitFiles, ServerKit, SiteKit, Workspace};
use locule_launcher::{JobStart, TaskLauncher};
use locule_message::Fqcn;
use locule_server::{JobHost, Server, ServerEvent, ServerParts, ServerSettings};
use locule_site::{Site, SiteJobHost, SiteParts, SiteSettings};
use locule_store::FileJournal;
use locule_transport::{Endpoint, Security, Transports};
use locule_transport_mem::MemTransport;
use tokio::sync::broadcast;

use crate::exit::{Code, Failure, OrExit as _};

/// Components that jobs and sites may name, one line each.
pub(crate) fn registry() -> Arc<Registry> {
    let mut registry = Registry::new();
    locule_workflow::register(&mut registry);
    registry.register::<locule_policy::RefuseComponents>();
    #[cfg(feature = "demo")]
    locule_demo::register(&mut registry);
    Arc::new(registry)
}

/// A server that listens.
#[derive(Debug)]
pub(crate) struct RunningServer {
    pub(crate) server: Server,
    /// What happens from the start on.
    pub(crate) events: broadcast::Receiver<ServerEvent>,
    endpoint: Endpoint,
}

impl RunningServer {
    /// The first thing to tell: where it listens.
    pub(crate) fn listening(&self) -> ServerEvent {
        ServerEvent::Listening { endpoint: self.endpoint.to_string() }
    }
}

/// From a server's kit to a server that admits sites.
pub(crate) async fn server(kit: &ServerKit, network: &Network) -> Result<RunningServer, Failure> {
    let (signer, verifier) = credentials(&kit.files, Usage::Server)?;
    let (external, internal) = (endpoint(&kit.listen)?, internal("server")?);
    let transports = network.transports(&kit.listen, || server_carrier(kit))?;
    let state = kit.workspace.make_state_dir();
    let state = state.with_context(|| format!("cannot write {}", kit.state_dir().display()));
    let state = state.or_exit(Code::CannotCreate)?;
    let limits = LedgerLimits { sites: kit.max_sites, ..LedgerLimits::default() };
    let ledger = TokenLedger::open(journal(&state.join("ledger.journal"))?, limits);
    let ledger = Arc::new(ledger.with_context(|| state.display().to_string()).or_exit(Code::Data)?);
    let jobs = journal(&state.join("jobs.journal"))?;
    let stamp = Arc::new(ServerStamp::parent(&*signer).or_exit(Code::Config)?);

    let cell = Cell::builder(CellConfig::new(Fqcn::server()))
        .transports(transports)
        .gate(Arc::new(ServerGate::new(Fqcn::server(), Arc::clone(&ledger))))
        .stamp(stamp.clone())
        .link_policy(Arc::new(link_policy(Fqcn::server(), kit.connection_security, &kit.auth_identity_map)?))
        .start();

    let host = Arc::new(JobHost {
        registry: registry(),
        transports: network.inside(),
        kit: kit.workspace.clone(),
        project: kit.project.clone(),
        org: signer.identity().organization.clone().unwrap_or_default(),
        stamp,
    });
    let run = move |start: JobStart, abort| locule_server::run_job(Arc::clone(&host), start, abort);
    let mut settings = ServerSettings::new(&kit.project);
    settings.require_signed_jobs = kit.require_signed_jobs;
    settings.heartbeat_timeout = kit.heartbeat_timeout;
    let parts = ServerParts {
        cell: cell.clone(),
        signer,
        verifier,
        ledger,
        jobs,
        launcher: Arc::new(TaskLauncher::new(run)),
        internal: internal.to_string(),
        kit: kit.workspace.clone(),
    };
    let server = Server::start(settings, parts);
    let server = server.with_context(|| state.display().to_string()).or_exit(Code::Data)?;
    let events = server.events();

    cell.listen(&internal).await?;
    let endpoint = cell.listen(&external).await?;
    tracing::info!(%endpoint, project = kit.project, "listening");
    Ok(RunningServer { server, events, endpoint })
}

/// What a person may choose for a site beside its kit.
#[derive(Clone, Debug, Default)]
pub(crate) struct SiteChoices {
    /// Another name than the certificate's common name.
    pub(crate) name: Option<String>,
    /// Another interval between heartbeats.
    pub(crate) heartbeat: Option<std::time::Duration>,
}

/// Stops a server or a site that was not wired to its end.
fn journal(path: &Path) -> Result<Box<FileJournal>, Failure> {
    let journal = FileJournal::open(path).map_err(|error| match &error {
        locule_store::OpenError::InUse { .. } => Failure::new(Code::Unavailable, error),
        locule_store::OpenError::Damaged { .. } => Failure::new(Code::Data, error),
        _ => Failure::new(Code::CannotCreate, error),
    })?;
    if let Some(torn) = journal.torn() {
        tracing::info!(file = %path.display(), ?torn, "an interrupted record was cut off");
    }
    Ok(Box::new(journal))
}

/// The signer and the verifier of a kit whose certificate stands under its root, now and for this use.
pub(crate) fn credentials(
    files: &KitFiles,
    usage: Usage,
) -> Result<(Arc<dyn Signer>, Arc<dyn Verifier>), Failure> {
    let verifier = OpensslVerifier::new(&files.read_ca()?);
    let verifier = verifier.with_context(|| format!("the root {} is not usable", files.ca.display()));
    let verifier = verifier.or_exit(Code::Config)?;
    files.identify(&verifier, usage, SystemTime::now())?;
    let signer = OpensslSigner::from_files(&files.cert, &files.key).with_context(|| {
        let (key, cert) = (files.key.display(), files.cert.display());
        format!("the key {key} cannot be used with {cert}; take both from the same kit")
    });
    Ok((Arc::new(signer.or_exit(Code::Config)?), Arc::new(verifier)))
}

fn endpoint(address: &Address) -> Result<Endpoint, Failure> {
    Endpoint::parse(&address.to_string()).or_exit(Code::Config)
}

/// Where the cells of a daemon's own jobs reach it, in memory.
fn internal(name: &str) -> Result<Endpoint, Failure> {
    Endpoint::parse(&format!("mem://jobs.{name}")).or_exit(Code::Config)
}

/// Lets a neighbour bear the name that its certificate allows; without mutual TLS, only tokens tell.
fn link_policy(
    own: Fqcn,
    security: ConnectionSecurity,
    identities: &std::collections::BTreeMap<String, String>,
) -> Result<CertificateLinkPolicy, Failure> {
    let mut policy = CertificateLinkPolicy::new(own);
    for (prefix, common_name) in identities {
        let prefix = Fqcn::parse(prefix).with_context(|| format!("auth_identity_map names {prefix:?}"));
        policy = policy.expect(prefix.or_exit(Code::Config)?, common_name);
    }
    Ok(match security {
        ConnectionSecurity::Mtls => policy,
        ConnectionSecurity::Tls | ConnectionSecurity::Clear => policy.admit_without_certificate(),
    })
}

/// Checks a job folder as far as that is possible without its sites: its meta, and both halves of every app.
///
/// A site may know components that this program does not, so an unknown name in a site's half is a mistake
/// only in our own namespace.
pub(crate) fn check_job(folder: &Path) -> Result<(), Failure> {
    todo!()
}

/// What carries messages in memory: for one process alone, or for a whole federation in it.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    mem: MemTransport,
    is_shared: bool,
}
