//! From a startup kit to a running server, site or relay: the one place where the crates meet. The carriers stand in
//! `network`, beside it.
//!
//! Each function builds in order, and nothing exists before what it needs: kit, identity, carriers,
//! ledger, cell, server, site or relay.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use locule_admin::{Admin, AdminParts, AdminSettings, Rights};
use locule_assembly::{CheckerFiles, Program};
use locule_auth::{
    CertificateLinkPolicy, LedgerLimits, RelayGate, ServerGate, ServerStamp, SessionStamp, TokenLedger,
};
use locule_cell::{Cell, CellBuilder, CellConfig, Dialing};
use locule_checker::{Backend, CheckerCommand, SiteCheckers};
use locule_communicator::{Communicator, Credentials, RegisterError, Settings};
use locule_component::{
    BuildCx, ConstructionCount, Event, EventBus, Question, Registry, RunContext, Seed, Side,
};
use locule_config::Node;
use locule_console::Console;
use locule_event::{Attendants, Record};
use locule_fobs::{Map, Value};
use locule_identity::{Identity, Signer, Usage, Verifier};
use locule_identity_openssl::{OpensslCipher, OpensslSigner, OpensslVerifier};
use locule_kit::{Address, AdminKit, ConnectionSecurity, KitFiles, RelayKit, ServerKit, SiteKit, Workspace};
use locule_launcher::{Brief, FailureKind, JobFailure, JobStart, TaskLauncher};
use locule_message::Fqcn;
use locule_protocol::ClientType;
use locule_python::{PythonSettings, ScriptHost};
use locule_server::{JobHost, Server, ServerBrief, ServerEvent, ServerParts, ServerSettings};
use locule_site::{Site, SiteBrief, SiteEvent, SiteJobHost, SiteParts, SiteSettings, Turns};
use locule_store::FileJournal;
use locule_transport::{Endpoint, Transports};
use locule_transport_uds::UdsTransport;
use rustix::process::{Pid, getppid, test_kill_process};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::exit::{Code, Failure, OrExit as _};
use crate::launcher::{LauncherKind, LauncherSettings};
use crate::network::{Carriers, Network, endpoint, is_met_at_broker};
use crate::retention::RetentionSettings;
use crate::scheduler::{SchedulerSettings, site_resources};

/// Components that jobs and sites may name, one line each.
pub(crate) fn registry() -> Arc<Registry> {
    registry_with(None)
}

/// The same, for runs that can be repeated if there is a seed.
fn registry_with(seed: Option<Seed>) -> Arc<Registry> {
    let mut registry = Registry::new();
    locule_workflow::register(&mut registry);
    locule_nvflare::register(&mut registry);
    locule_filter::register(&mut registry);
    locule_python::register(&mut registry);
    if let Ok(program) = std::env::current_exe() {
        registry.provide("locule.scripts", script_host(program, seed));
    }
    if let Some(seed) = seed {
        registry.provide("locule.seed", seed);
    }
    registry.register::<locule_policy::RefuseComponents>();
    registry.register::<locule_policy::AdmitJobs>();
    registry.register::<Record>();
    #[cfg(feature = "demo")]
    locule_demo::register(&mut registry);
    Arc::new(registry)
}

/// How a site starts training scripts: under this program again, as `locule script`.
fn script_host(program: PathBuf, seed: Option<Seed>) -> ScriptHost {
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    // Python takes 32 bits
    let given = seed.map(|Seed(seed)| {
        [("LOCULE_SEED", seed.to_string()), ("PYTHONHASHSEED", (seed & 0xffff_ffff).to_string())]
            .map(|(name, value)| (name.to_owned(), value))
    });
    let given = given.into_iter().flatten().collect();
    ScriptHost {
        program,
        args: vec!["script".into()],
        search_path,
        variable: |name| std::env::var_os(name),
        given,
    }
}

/// Languages that checkers may be written in, beside Python.
pub(crate) const CHECKER_BACKENDS: &[&dyn Backend] = &[
    &locule_policy_rego::RegoBackend,
    #[cfg(feature = "wasm")]
    &locule_policy_wasm::WasmBackend,
];

/// What opens checkers that are files of a kit: each runs in this program again, as `locule checker`.
pub(crate) fn checkers() -> Result<Arc<dyn CheckerFiles>, Failure> {
    let program =
        std::env::current_exe().context("cannot find this program again").or_exit(Code::Software)?;
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    Ok(Arc::new(SiteCheckers::new(CheckerCommand { program, args: vec!["checker".into()], search_path })))
}

/// Opens the gates of a kit once, so that whoever has an unusable policy does not start.
async fn open_gates(
    kit: &Workspace,
    side: Side,
    name: &str,
    checkers: &Arc<dyn CheckerFiles>,
) -> Result<(), Failure> {
    let (kit, name, checkers) = (kit.clone(), name.to_owned(), Arc::clone(checkers));
    let open = move || {
        let registry = registry();
        let program = Program { registry: &registry, checkers: &*checkers };
        locule_assembly::gates(&kit, side, &name, program).map(|gates| gates.len())
    };
    let gates = tokio::task::spawn_blocking(open).await.or_exit(Code::Software)?.or_exit(Code::Config)?;
    tracing::info!(gates, "policy is in force");
    Ok(())
}

/// The observers and gates that a kit's configuration names. They hear of the start, and may say no to it.
async fn attendants(
    kit: &Workspace,
    fed: &str,
    side: Side,
    name: &str,
    registry: &Registry,
) -> Result<Attendants, Failure> {
    let constructed = ConstructionCount::new();
    let cx = BuildCx::new(side, name, "", kit.root(), kit.root(), &constructed);
    let config = locule_kit::job_resources(kit, fed)?;
    let attendants = Attendants::from_site_config(&config, registry, &cx);
    let attendants = attendants.map_err(|mistakes| {
        let error = anyhow!("{mistakes}").context("the kit's observers and gates cannot be used");
        Failure::new(Code::Config, error)
    })?;
    attendants.events.fire(&Event::SystemBootstrap, &RunContext::new(name, "").open());
    let asked = attendants.gates.ask(Question::SystemBootstrap).await;
    asked
        .with_context(|| format!("a gate of {} lets nothing start", kit.root().display()))
        .or_exit(Code::Config)?;
    Ok(attendants)
}

/// A server that listens.
#[derive(Debug)]
pub(crate) struct RunningServer {
    pub(crate) server: Server,
    /// What happens from the start on.
    pub(crate) events: broadcast::Receiver<ServerEvent>,
    /// Cancelled when an administrator shuts the server down.
    pub(crate) stop: CancellationToken,
    /// What all of it hangs on.
    pub(crate) cell: Cell,
    endpoint: Endpoint,
    _admin: Admin,
}

impl RunningServer {
    /// The first thing to tell: where it listens.
    pub(crate) fn listening(&self) -> ServerEvent {
        ServerEvent::Listening { endpoint: self.endpoint.to_string() }
    }
}

/// From a server's kit to a server that admits sites; with a seed, runs of its jobs can be repeated.
pub(crate) async fn server(
    kit: &ServerKit,
    seed: Option<Seed>,
    network: &Network,
) -> Result<RunningServer, Failure> {
    check_daemon(&kit.workspace)?;
    let (signer, verifier) = credentials(&kit.files, Usage::Server)?;
    check_privacy(&kit.workspace, Side::Server)?;
    let launching = LauncherSettings::read(&kit.resources)?;
    let listens_at = |address: &Address| {
        let host = if is_met_at_broker(address) { &kit.target.host } else { &address.host };
        endpoint(&Address { host: host.clone(), ..address.clone() }, &kit.project, &Fqcn::server())
    };
    let external = listens_at(&kit.listen)?;
    let for_admins =
        if kit.admin_listen.port == kit.listen.port { None } else { Some(listens_at(&kit.admin_listen)?) };
    let checkers = checkers()?;
    open_gates(&kit.workspace, Side::Server, "server", &checkers).await?;
    let Carriers { all, inside } = network.carriers_of_server(kit, launching.kind)?;
    let state = kit.workspace.make_state_dir();
    let state = state.with_context(|| format!("cannot write {}", kit.state_dir().display()));
    let state = state.or_exit(Code::CannotCreate)?;
    let limits = LedgerLimits { sites: kit.max_sites, ..LedgerLimits::default() };
    let ledger = TokenLedger::open(journal(&state.join("ledger.journal"))?, limits);
    let ledger = Arc::new(ledger.with_context(|| state.display().to_string()).or_exit(Code::Data)?);
    let jobs = journal(&state.join("jobs.journal"))?;
    let registry = registry_with(seed);
    let attendants = attendants(&kit.workspace, "fed_server.json", Side::Server, "server", &registry).await?;
    let stamp = Arc::new(ServerStamp::parent(&*signer).or_exit(Code::Config)?);
    // provisioning lists each cell that is below a relay
    let below = kit.auth_identity_map.keys().filter_map(|cell| Some(cell.rsplit_once('.')?.0));
    let relays: BTreeSet<String> = below.flat_map(|above| above.split('.')).map(str::to_owned).collect();

    let cell = cell_with_cipher(Fqcn::server(), &kit.files)?
        .transports(all)
        .gate(Arc::new(ServerGate::new(Fqcn::server(), Arc::clone(&ledger)).relays(relays.clone())))
        .stamp(stamp.clone())
        .link_policy(Arc::new(
            link_policy(Fqcn::server(), kit.connection_security, &kit.auth_identity_map)?.admit_admins(),
        ))
        .start();

    let host = Arc::new(JobHost {
        patient: seed.is_some(),
        registry,
        checkers,
        transports: inside,
        kit: kit.workspace.clone(),
        project: kit.project.clone(),
        org: signer.identity().organization.clone().unwrap_or_default(),
        stamp,
    });
    let internal = network.jobs_endpoint(launching.kind, &kit.workspace)?;
    let launcher = match network.jobs(launching.kind) {
        LauncherKind::Process => {
            let (_, brief) = watch::channel(ServerBrief::of(&host));
            launching.processes(Side::Server, &kit.workspace, brief, &PythonSettings::default())?
        }
        LauncherKind::Task => {
            let of_jobs = Arc::clone(&host);
            let run =
                move |start: JobStart, abort| locule_server::run_job(Arc::clone(&of_jobs), start, abort);
            Arc::new(TaskLauncher::new(run))
        }
    };
    let mut settings = ServerSettings::new(&kit.project);
    settings.require_signed_jobs = kit.require_signed_jobs;
    settings.heartbeat_timeout = kit.heartbeat_timeout;
    settings.relays = relays;
    SchedulerSettings::read(&kit.resources)?.apply(&mut settings);
    settings.retention = RetentionSettings::read(&kit.resources, settings.retention)?;
    let parts = ServerParts {
        cell: cell.clone(),
        signer: Arc::clone(&signer),
        verifier: Arc::clone(&verifier),
        ledger: Arc::clone(&ledger),
        jobs,
        host,
        launcher,
        internal: internal.to_string(),
        kit: kit.workspace.clone(),
        attendants,
    };
    let server = Server::start(settings, parts);
    let server = server.with_context(|| state.display().to_string()).or_exit(Code::Data)?;
    let events = server.events();
    let (rights, stop) =
        (Rights::read(&kit.workspace.local()).or_exit(Code::Config)?, CancellationToken::new());
    let desk = AdminParts {
        server: server.clone(),
        cell: cell.clone(),
        signer,
        verifier,
        ledger,
        rights,
        state: state.clone(),
        stop: stop.clone(),
    };
    let admin = Admin::open(AdminSettings::default(), desk);
    let admin =
        admin.with_context(|| format!("cannot write {}", state.display())).or_exit(Code::CannotCreate)?;

    cell.listen(&internal).await?;
    let endpoint = cell.listen(&external).await?;
    if let Some(for_admins) = for_admins {
        cell.listen(&for_admins).await?;
    }
    if external.is_all_interfaces() {
        tracing::warn!(%endpoint, target = kit.target.host, "listening on all interfaces of this machine");
    }
    if kit.connection_security == ConnectionSecurity::Clear {
        tracing::warn!(
            "the kit says connection_security `clear`: nothing that passes the network is encrypted"
        );
    }
    tracing::info!(%endpoint, project = kit.project, "listening");
    Ok(RunningServer { server, events, stop, cell, endpoint, _admin: admin })
}

/// What a person may choose for a site beside its kit.
#[derive(Clone, Debug, Default)]
pub(crate) struct SiteChoices {
    /// Another name than the certificate's common name.
    pub(crate) name: Option<String>,
    /// Another interval between heartbeats.
    pub(crate) heartbeat: Option<Duration>,
    /// Bounds how many sites of this process work at one time.
    pub(crate) turns: Option<Turns>,
    /// With one, runs of the site's jobs can be repeated.
    pub(crate) seed: Option<Seed>,
}

/// A site on its way into its federation.
#[derive(Debug)]
pub(crate) struct RunningSite {
    pub(crate) site: Site,
    /// What all of it hangs on.
    pub(crate) cell: Cell,
    /// What happens from the start on.
    pub(crate) events: broadcast::Receiver<SiteEvent>,
    /// How dialing the server goes.
    pub(crate) dialing: watch::Receiver<Dialing>,
    /// Keeps a second process from running this site.
    pub(crate) lock: File,
}

/// From a site's kit to a site that registers.
pub(crate) async fn site(
    kit: &SiteKit,
    choices: SiteChoices,
    network: &Network,
) -> Result<RunningSite, Failure> {
    let (signer, verifier) = credentials(&kit.files, Usage::Client)?;
    let Identity { common_name, organization, .. } = signer.identity().clone();
    check_privacy(&kit.workspace, Side::Site)?;
    Rights::find(&kit.workspace.local()).or_exit(Code::Config)?;
    let scripts = PythonSettings::read(&kit.resources).or_exit(Code::Config)?;
    let name = choices.name.unwrap_or_else(|| common_name.clone());
    if name != common_name {
        tracing::warn!(
            site = name,
            common_name,
            "name is not the certificate's; the server must be told to take it"
        );
    }
    let own = Fqcn::parse(&kit.fqcn(&name)).with_context(|| format!("{name:?} cannot be the name of a site"));
    let own = own.or_exit(Code::Config)?;
    let lock = lock(&kit.workspace, "fed_client.json")?;
    let checkers = checkers()?;
    open_gates(&kit.workspace, Side::Site, &name, &checkers).await?;
    let above = match &kit.relay {
        Some(relay) => endpoint(&relay.address, &kit.project, &self::cell(&relay.fqcn)?)?,
        None => endpoint(&kit.server, &kit.project, &Fqcn::server())?,
    };
    let security = kit.relay.as_ref().map_or(kit.connection_security, |relay| relay.connection_security);
    let launching = LauncherSettings::read(&kit.resources)?;
    let Carriers { all, inside } = network.carriers_of_site(kit, launching.kind)?;
    let policy = link_policy(own.clone(), security, &kit.auth_identity_map)?;
    let policy = policy.expect(Fqcn::server(), &kit.server_identity);
    let policy = match &kit.relay {
        Some(relay) => policy.expect(cell(&relay.fqcn)?, &relay.identity),
        None => policy,
    };
    let registry = registry_with(choices.seed);
    let attendants = attendants(&kit.workspace, "fed_client.json", Side::Site, &name, &registry).await?;
    let stamp = Arc::new(SessionStamp::new());

    let cell = cell_with_cipher(own, &kit.files)?
        .transports(all)
        .stamp(stamp.clone())
        .link_policy(Arc::new(policy))
        .start();

    let settings = communicator_settings(kit, &name, choices.heartbeat);
    let (session, of_now) = watch::channel(None);
    let mut host = SiteJobHost::new(settings.clone(), kit.workspace.clone(), registry, inside, of_now);
    host.org = organization.unwrap_or_default();
    host.checkers = checkers;
    host.turns = choices.turns;
    let host = Arc::new(host);
    let internal = network.jobs_endpoint(launching.kind, &kit.workspace)?;
    let launcher = match network.jobs(launching.kind) {
        LauncherKind::Process => {
            launching.processes(Side::Site, &kit.workspace, SiteBrief::follow(&host), &scripts)?
        }
        LauncherKind::Task => {
            let of_jobs = Arc::clone(&host);
            let run = move |start: JobStart, abort| locule_site::run_job(Arc::clone(&of_jobs), start, abort);
            Arc::new(TaskLauncher::new(run))
        }
    };
    let parts = SiteParts {
        cell: cell.clone(),
        stamp,
        session,
        credentials: Some(Credentials { signer, verifier }),
        host,
        launcher,
        internal,
        kit: kit.workspace.clone(),
        attendants,
    };
    let mut settings = SiteSettings::new(settings);
    settings.require_signed_jobs = kit.require_signed_jobs;
    settings.answer_checks = allows(kit, "allow_job_checks")?;
    settings.send_logs = allows(kit, "allow_log_streaming")?;
    settings.resources = site_resources(&kit.resources)?;
    settings.retention = RetentionSettings::read(&kit.resources, settings.retention)?;
    let site = Site::start(settings, parts).await?;
    let events = site.events();
    let dialing = cell.connect(above).state();
    Ok(RunningSite { site, cell, events, dialing, lock })
}

/// What the server's half of a job has from its daemon, in a process of its own.
pub(crate) fn host_of_server_job(brief: &watch::Receiver<Brief>) -> Result<Arc<JobHost>, JobFailure> {
    let brief = ServerBrief::read(&brief.borrow()).map_err(no_host)?;
    Ok(Arc::new(JobHost {
        patient: false,
        registry: registry(),
        checkers: checkers().map_err(|failure| no_host(failure.text()))?,
        transports: Transports::new().with(UdsTransport::new()),
        kit: Workspace::new(&brief.kit),
        stamp: brief.stamp(),
        project: brief.project,
        org: brief.org,
    }))
}

/// What a site's half of a job has from its daemon, in a process of its own. Of the kit it reads the configuration,
/// and no key.
pub(crate) fn host_of_site_job(briefs: &watch::Receiver<Brief>) -> Result<Arc<SiteJobHost>, JobFailure> {
    let brief = SiteBrief::read(&briefs.borrow()).map_err(no_host)?;
    let kit = SiteKit::open(&brief.kit).map_err(|error| no_host(Failure::from(error).text()))?;
    let settings = communicator_settings(&kit, &brief.site_name, None);
    let transports = Transports::new().with(UdsTransport::new());
    let sessions = SiteBrief::sessions(briefs.clone());
    let mut host = SiteJobHost::new(settings, kit.workspace, registry(), transports, sessions);
    host.org = brief.org;
    host.checkers = checkers().map_err(|failure| no_host(failure.text()))?;
    Ok(Arc::new(host))
}

fn no_host(reason: String) -> JobFailure {
    JobFailure::new(FailureKind::Infrastructure, reason)
}

/// Whether the operator allows something: a setting of `resources.json` that is not there does.
///
/// `allow_job_checks`: the site says beforehand what it would refuse; `allow_log_streaming`: it sends logs of jobs.
fn allows(kit: &SiteKit, setting: &str) -> Result<bool, Failure> {
    let Some(node) = kit.resources.root().get(setting) else { return Ok(true) };
    let said = node.as_bool().ok_or_else(|| {
        let line = node.place().line;
        anyhow!("`{setting}` must be `true` or `false` in {}, line {line}", node.file())
    });
    said.or_exit(Code::Config)
}

/// A participant whose privacy policy has mistakes does not start: they would only show when a job comes.
fn check_privacy(kit: &Workspace, side: Side) -> Result<(), Failure> {
    let scopes = locule_assembly::privacy_scopes(kit, side, &registry()).or_exit(Code::Config)?;
    if let Some(scopes) = scopes {
        let names = scopes.names();
        let all: Vec<&str> = names.names().collect();
        tracing::info!(
            scopes = all.join(", "),
            default = names.default_scope(),
            "privacy scopes are in force"
        );
    }
    Ok(())
}

/// From an administrator's kit to a console that is logged in.
pub(crate) async fn console(
    kit: &AdminKit,
    log_in: Option<Duration>,
    network: &Network,
) -> Result<Console, Failure> {
    let (signer, verifier) = credentials(&kit.files, Usage::Client)?;
    let own = locule_console::cell_name();
    let server = endpoint(&kit.server, &kit.project, &Fqcn::server())?;
    let Carriers { all, .. } = network.carriers_of_admin(kit)?;
    let policy = link_policy(own.clone(), kit.connection_security, &BTreeMap::new())?;
    let policy = policy.expect(Fqcn::server(), &kit.server_identity);
    let stamp = Arc::new(SessionStamp::new());
    let cell = Cell::builder(CellConfig::new(own)).transports(all).stamp(stamp.clone());
    let cell = cell.link_policy(Arc::new(policy));

    let user = &signer.identity().common_name;
    let mut settings = locule_console::Settings::new(&kit.project, user, &kit.server_identity);
    settings.log_in = log_in.unwrap_or(kit.login_timeout);
    let credentials = Credentials { signer, verifier };
    Ok(Console::log_in(cell, stamp, server, &credentials, settings).await?)
}

/// A relay between cells below and cells above.
#[derive(Debug)]
pub(crate) struct RunningRelay {
    pub(crate) cell: Cell,
    /// Where it listens.
    pub(crate) endpoint: Endpoint,
    /// How dialing upwards goes.
    pub(crate) dialing: watch::Receiver<Dialing>,
    /// Resolves when the relay has registered, or cannot.
    pub(crate) registered: JoinHandle<Result<(), RegisterError>>,
    /// Keeps a second process from running this relay.
    pub(crate) lock: File,
}

/// From a relay's kit to a relay that listens and registers.
///
/// It passes on what its gate lets through and handles nothing itself.
pub(crate) async fn relay(kit: &RelayKit, network: &Network) -> Result<RunningRelay, Failure> {
    let (signer, verifier) = credentials(&kit.files, Usage::Client)?;
    let lock = lock(&kit.workspace, "fed_relay.json")?;
    let (own, parent) = (cell(&kit.fqcn)?, cell(&kit.parent.fqcn)?);
    let above = endpoint(&kit.parent.address, &kit.project, &parent)?;
    let mut below = kit.listener.listen();
    if is_met_at_broker(&below) {
        below.host.clone_from(&kit.listener.host);
    }
    let below = endpoint(&below, &kit.project, &own)?;
    let Carriers { all, .. } = network.carriers_of_relay(kit)?;
    let weakest = match (kit.parent.connection_security, kit.listener.connection_security) {
        (ConnectionSecurity::Mtls, ConnectionSecurity::Mtls) => ConnectionSecurity::Mtls,
        (ConnectionSecurity::Mtls, weaker) | (weaker, _) => weaker,
    };
    let policy = link_policy(own.clone(), weakest, &kit.auth_identity_map)?;
    let policy = policy.expect(Fqcn::server(), &kit.server_identity);
    let policy =
        if parent == Fqcn::server() { policy } else { policy.expect(parent.clone(), &kit.parent.identity) };
    let gate = Arc::new(RelayGate::new(own.clone(), parent, Arc::clone(&verifier)));
    let stamp = Arc::new(SessionStamp::new());

    let cell = cell_with_cipher(own, &kit.files)?
        .transports(all)
        .gate(gate.clone())
        .stamp(stamp.clone())
        .link_policy(Arc::new(policy))
        .start();
    let mut settings = Settings::new(&kit.project, &kit.name, &kit.server_identity);
    settings.client_type = ClientType::Relay;
    let (context, events) = (RunContext::new(&kit.name, ""), Arc::new(EventBus::default()));
    let stop = CancellationToken::new();
    let communicator = Communicator::new(cell.clone(), settings, stamp, context, events, stop);
    let credentials = Credentials { signer, verifier };
    let registered = tokio::spawn(async move {
        let session = communicator.register(Some(&credentials)).await?;
        if let Some(server) = session.server() {
            gate.trust(server.clone());
        }
        tracing::info!("registered as a relay");
        Ok(())
    });
    let dialing = cell.connect(above).state();
    let endpoint = cell.listen(&below).await?;
    tracing::info!(%endpoint, "listening");
    Ok(RunningRelay { cell, endpoint, dialing, registered, lock })
}

fn cell(name: &str) -> Result<Fqcn, Failure> {
    Fqcn::parse(name).with_context(|| format!("{name:?} cannot be the name of a cell")).or_exit(Code::Config)
}

fn communicator_settings(kit: &SiteKit, name: &str, heartbeat: Option<Duration>) -> Settings {
    let mut settings = Settings::new(&kit.project, name, &kit.server_identity);
    settings.maintenance_timeout = kit.timeouts.message;
    settings.communication_timeout = kit.timeouts.communication;
    settings.register_interval = kit.timeouts.register_interval;
    settings.heartbeat_interval = heartbeat.unwrap_or(kit.timeouts.heartbeat_interval);
    let config = kit.site_config.iter().map(|(key, value)| (key.as_str(), Value::from(value)));
    settings.site_config = Some(config.collect()).filter(|config: &Map| !config.is_empty());
    let compression = kit.resources.root().find(&["client", "compression"]).and_then(Node::as_str);
    settings.compression = compression.map(str::to_owned);
    settings
}

/// Takes a kit for this process alone, until the file is dropped. What is locked is a file that every kit has,
/// so that a site which is not let in leaves nothing behind.
fn lock(kit: &Workspace, file: &str) -> Result<File, Failure> {
    check_daemon(kit)?;
    let path = kit.startup().join(file);
    let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()));
    let file = file.or_exit(Code::NoInput)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let error = anyhow!(
                "{} is in use by another process: it runs already; stop that one first",
                kit.root().display()
            );
            Err(Failure::new(Code::Unavailable, error))
        }
        Err(TryLockError::Error(error)) => {
            let error = anyhow::Error::new(error).context(format!("cannot lock {}", path.display()));
            Err(Failure::new(Code::NoInput, error))
        }
    }
}

/// Whether a process of nvflare runs from the kit, which locks nothing: two of one name would throw each other out.
fn check_daemon(kit: &Workspace) -> Result<(), Failure> {
    let path = kit.root().join("daemon_pid.fl");
    let said = std::fs::read_to_string(&path).ok().and_then(|pid| pid.trim().parse().ok());
    let Some(pid) = said.and_then(Pid::from_raw) else { return Ok(()) };
    // The script that starts this process writes the file, too.
    if getppid() == Some(pid) || test_kill_process(pid).is_err() {
        return Ok(());
    }
    let error = anyhow!(
        "{} is in use by process {} (daemon_pid.fl): stop that one first, with startup/stop_fl.sh; if it is another \
         program's, remove {}",
        kit.root().display(),
        pid.as_raw_pid(),
        path.display()
    );
    Err(Failure::new(Code::Unavailable, error))
}

/// A journal of this process alone.
fn journal(path: &Path) -> Result<Box<FileJournal>, Failure> {
    let journal = FileJournal::open(path).map_err(|error| match &error {
        locule_store::OpenError::InUse { .. } => Failure::new(Code::Unavailable, error),
        locule_store::OpenError::Damaged { .. } => Failure::new(Code::Data, error),
        locule_store::OpenError::Io { .. } | _ => Failure::new(Code::CannotCreate, error),
    })?;
    if let Some(torn) = journal.torn() {
        tracing::info!(file = %path.display(), ?torn, "an interrupted record was cut off");
    }
    Ok(Box::new(journal))
}

/// What a participant proves itself with, and judges others by.
pub(crate) type Means = (Arc<dyn Signer>, Arc<dyn Verifier>);

/// The signer and the verifier of a kit whose certificate stands under its root, now and for this use.
pub(crate) fn credentials(files: &KitFiles, usage: Usage) -> Result<Means, Failure> {
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

/// Begins a cell that understands messages encrypted end to end, if the kit's key is one for them.
fn cell_with_cipher(own: Fqcn, files: &KitFiles) -> Result<CellBuilder, Failure> {
    let cell = Cell::builder(CellConfig::new(own));
    let signer = OpensslSigner::from_files(&files.cert, &files.key);
    let signer = signer.with_context(|| format!("the key {} cannot be used", files.key.display()));
    match OpensslCipher::new(signer.or_exit(Code::Config)?, &files.read_ca()?) {
        Ok(cipher) => Ok(cell.cipher(Arc::new(cipher))),
        Err(error) => {
            tracing::info!(%error, "messages encrypted end to end are not understood");
            Ok(cell)
        }
    }
}

/// Lets a neighbour bear the name that its certificate allows; without mutual TLS, only tokens tell.
fn link_policy(
    own: Fqcn,
    security: ConnectionSecurity,
    identities: &BTreeMap<String, String>,
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
