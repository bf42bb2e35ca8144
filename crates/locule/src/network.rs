//! The carriers of a server or a site: what its kit asks for, and one for its own jobs.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::anyhow;
use locule_kit::{Address, AdminKit, ConnectionSecurity, RelayKit, ServerKit, SiteKit, Workspace};
use locule_message::Fqcn;
use locule_transport::{BoxFuture, DialError, Endpoint, Link, ListenError, Listener, Security, Transport};
use locule_transport::{Transports, UnknownScheme};
use locule_transport_mem::MemTransport;
use locule_transport_uds::UdsTransport;

use crate::exit::{Code, Failure, OrExit as _};
#[cfg(feature = "uds")]
use crate::launcher::private_folder;
use crate::launcher::{LauncherKind, socket};

/// What a server and its sites reach each other over: the outside world, or this process.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    shared: Option<MemTransport>,
}

impl Network {
    /// For a server or a site that has a process to itself.
    pub(crate) fn outside() -> Self {
        Self { shared: None }
    }

    /// For a whole federation in one process.
    #[cfg(feature = "simulate")]
    pub(crate) fn in_memory() -> Self {
        Self { shared: Some(MemTransport::new()) }
    }

    /// The carriers of a server.
    pub(crate) fn carriers_of_server(
        &self,
        kit: &ServerKit,
        jobs: LauncherKind,
    ) -> Result<Carriers, Failure> {
        check_uds(&kit.listen, kit.connection_security)?;
        self.carriers(&kit.listen, jobs, |transports| {
            let listen = Some((&kit.files, kit.connection_security));
            outside::insert(transports, &kit.workspace, None, listen, None)
        })
    }

    /// The carriers of a site.
    pub(crate) fn carriers_of_site(&self, kit: &SiteKit, jobs: LauncherKind) -> Result<Carriers, Failure> {
        let above = kit.relay.as_ref().map_or((&kit.server, kit.connection_security), |relay| {
            (&relay.address, relay.connection_security)
        });
        check_uds(above.0, above.1)?;
        self.carriers(above.0, jobs, |transports| {
            let dial = Some((&kit.files, above.1));
            outside::insert(transports, &kit.workspace, dial, None, kit.custom_ca.as_deref())
        })
    }

    /// The carriers of an administrator's console.
    pub(crate) fn carriers_of_admin(&self, kit: &AdminKit) -> Result<Carriers, Failure> {
        self.carriers(&kit.server, LauncherKind::Task, |transports| {
            let dial = Some((&kit.files, kit.connection_security));
            outside::insert(transports, &kit.workspace, dial, None, None)
        })
    }

    /// The carriers of a relay, which both dials and listens.
    pub(crate) fn carriers_of_relay(&self, kit: &RelayKit) -> Result<Carriers, Failure> {
        let (above, below) = (&kit.parent, &kit.listener);
        let is_clear = |security| security == ConnectionSecurity::Clear;
        let mixed = is_clear(above.connection_security) != is_clear(below.connection_security);
        if mixed {
            return Err(Failure::new(Code::Config, anyhow!(MIXED)));
        }
        let files = kit.listener_files.as_ref().unwrap_or(&kit.files);
        check_uds(&above.address, above.connection_security)?;
        self.carriers(&above.address, LauncherKind::Task, |transports| {
            let (dial, listen) =
                ((&kit.files, above.connection_security), (files, below.connection_security));
            outside::insert(transports, &kit.workspace, Some(dial), Some(listen), kit.custom_ca.as_deref())
        })
    }

    fn carriers(
        &self,
        address: &Address,
        jobs: LauncherKind,
        outside: impl FnOnce(&mut Transports) -> Result<(), Failure>,
    ) -> Result<Carriers, Failure> {
        let jobs: Arc<dyn Transport> = match self.jobs(jobs) {
            LauncherKind::Process => Arc::new(UdsTransport::new()),
            LauncherKind::Task => Arc::new(MemTransport::new()),
        };
        let mut inside = Transports::new();
        inside.insert(Arc::clone(&jobs));
        let mut all = Transports::new();
        #[cfg(feature = "uds")]
        all.insert(Arc::new(UdsTransport::new().within(private_folder()).pretending(Security::Clear)));
        match &self.shared {
            Some(shared) => all.insert(Arc::new(shared.clone().pretending(Security::Clear))),
            None if address.scheme == "mem" => return Err(Failure::new(Code::Config, anyhow!(MEM_ALONE))),
            None => {}
        }
        outside(&mut all)?;
        if !all.schemes().any(|scheme| scheme == address.scheme) {
            let unknown = UnknownScheme { scheme: address.scheme.clone(), known: all.schemes().collect() };
            return Err(Failure::new(Code::Config, unknown));
        }
        let federation = jobs.schemes().iter().find_map(|scheme| all.get(scheme));
        all.insert(match federation {
            Some(federation) => Arc::new(Parted { federation, jobs }),
            None => jobs,
        });
        Ok(Carriers { all, inside })
    }

    /// What jobs are: a federation in one process has them in that process, too.
    pub(crate) fn jobs(&self, wanted: LauncherKind) -> LauncherKind {
        if self.shared.is_some() { LauncherKind::Task } else { wanted }
    }

    /// Where a daemon listens for its own jobs: nobody else, or nobody of another user, gets there.
    pub(crate) fn jobs_endpoint(&self, jobs: LauncherKind, kit: &Workspace) -> Result<Endpoint, Failure> {
        match self.jobs(jobs) {
            LauncherKind::Process => socket(kit),
            LauncherKind::Task => Ok(memory()),
        }
    }
}

/// By what a server or a site reaches others, and by what its own jobs reach it.
#[derive(Debug)]
pub(crate) struct Carriers {
    pub(crate) all: Transports,
    pub(crate) inside: Transports,
}

/// Whether cells with such an address do not listen on their machine, but at a broker that lies there.
pub(crate) fn is_met_at_broker(address: &Address) -> bool {
    address.scheme == "nats"
}

/// Where a cell of a project is dialled, or listens. At a broker, it is the names that tell cells apart.
pub(crate) fn endpoint(address: &Address, project: &str, cell: &Fqcn) -> Result<Endpoint, Failure> {
    let mut text = address.to_string();
    if is_met_at_broker(address) {
        text.push('/');
        for byte in project.bytes() {
            if byte.is_ascii_alphanumeric() || b"_~-".contains(&byte) {
                text.push(char::from(byte));
            } else {
                write!(text, "%{byte:02X}").expect("a string takes all");
            }
        }
        write!(text, "/{cell}").expect("a string takes all");
    }
    Endpoint::parse(&text).or_exit(Code::Config)
}

/// Where a daemon listens for the jobs that are tasks of its own.
fn memory() -> Endpoint {
    Endpoint::parse(&format!("mem://{JOBS}")).expect("a constant that is an endpoint")
}

/// The host of endpoints at which jobs are listened for, as [`UdsTransport::endpoint`] has it.
const JOBS: &str = "jobs";

const MEM_ALONE: &str = "the kit's scheme is mem, which reaches nobody outside of one process: \
                         provision with another, such as grpc";

const UDS_IS_CLEAR: &str = "the kit's scheme is uds, which encrypts nothing and shows no certificates: \
                            its connection_security must be clear";

const MIXED: &str =
    "the relay protects one of its links and not the other: give both the same connection_security";

fn check_uds(address: &Address, security: ConnectionSecurity) -> Result<(), Failure> {
    if address.scheme == "uds" && security != ConnectionSecurity::Clear {
        return Err(Failure::new(Code::Config, anyhow!(UDS_IS_CLEAR)));
    }
    Ok(())
}

/// One carrier twice: for the federation, and for a daemon and its jobs only.
///
/// To the others of the federation a link says that it is not protected, as it would over a network
/// without TLS: it is by message that they prove who they are.
#[derive(Debug)]
struct Parted {
    federation: Arc<dyn Transport>,
    jobs: Arc<dyn Transport>,
}

impl Parted {
    fn of(&self, endpoint: &Endpoint) -> &dyn Transport {
        if endpoint.host() == JOBS { &*self.jobs } else { &*self.federation }
    }
}

impl Transport for Parted {
    fn schemes(&self) -> &[&'static str] {
        self.federation.schemes()
    }

    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, Result<Link, DialError>> {
        self.of(to).dial(to)
    }

    fn listen<'a>(&'a self, on: &'a Endpoint) -> BoxFuture<'a, Result<Box<dyn Listener>, ListenError>> {
        self.of(on).listen(on)
    }
}

#[cfg(feature = "network")]
mod outside {
    //! The carriers between machines, with the TLS of a kit.

    use std::path::Path;
    use std::sync::Arc;

    use locule_kit::{ConnectionSecurity, KitFiles, Workspace};
    use locule_tls::{
        ClientAuth, ClientConfig, HostCheck, ServerConfig, TlsFiles, client_config, server_config,
    };
    use locule_transport::{Transport, Transports};
    #[cfg(feature = "grpc")]
    use locule_transport_grpc::GrpcTransport;
    #[cfg(feature = "nats")]
    use locule_transport_nats::NatsTransport;
    #[cfg(feature = "tcp")]
    use locule_transport_tcp::TcpTransport;
    #[cfg(feature = "ws")]
    use locule_transport_ws::WsTransport;

    use crate::exit::{Code, Failure, OrExit as _};

    /// One for each that is compiled in.
    const CARRIERS: &[Carrier] = &[
        #[cfg(feature = "grpc")]
        Carrier {
            clear: || Arc::new(GrpcTransport::clear()),
            tls: |client, server| Arc::new(GrpcTransport::tls(client, server)),
            host_check: HostCheck::San,
        },
        #[cfg(feature = "tcp")]
        Carrier {
            clear: || Arc::new(TcpTransport::clear()),
            tls: |client, server| Arc::new(TcpTransport::tls(client, server)),
            host_check: HostCheck::None,
        },
        #[cfg(feature = "ws")]
        Carrier {
            clear: || Arc::new(WsTransport::clear()),
            tls: |client, server| Arc::new(WsTransport::tls(client, server)),
            host_check: HostCheck::None,
        },
    ];

    type WithTls = fn(Option<Arc<ClientConfig>>, Option<Arc<ServerConfig>>) -> Arc<dyn Transport>;

    /// How to make a carrier.
    struct Carrier {
        clear: fn() -> Arc<dyn Transport>,
        /// Takes the configuration to dial with and the one to listen with.
        tls: WithTls,
        /// What its stock peers check of a server's certificate. The cell checks the common name in any case.
        host_check: HostCheck,
    }

    /// Whose certificate to show, and how to protect links with it.
    type Means<'a> = (&'a KitFiles, ConnectionSecurity);

    /// Adds every carrier, for dialing, for listening, or for both.
    pub(super) fn insert(
        transports: &mut Transports,
        kit: &Workspace,
        dial: Option<Means<'_>>,
        listen: Option<Means<'_>>,
        custom_ca: Option<&Path>,
    ) -> Result<(), Failure> {
        let server = listen.map(|(kit, security)| of_server(kit, security)).transpose()?.flatten();
        for carrier in CARRIERS {
            let client = dial.map(|(kit, security)| of_client(kit, security, custom_ca, carrier.host_check));
            let client = client.transpose()?.flatten();
            transports.insert(if client.is_none() && server.is_none() {
                (carrier.clear)()
            } else {
                (carrier.tls)(client, server.clone())
            });
        }
        #[cfg(feature = "nats")]
        if let Some((own, _)) = dial.or(listen) {
            let client = dial.map(|(kit, security)| of_client(kit, security, custom_ca, HostCheck::None));
            let nats = match (client.transpose()?.flatten(), server) {
                (None, None) => NatsTransport::clear(),
                (client, server) => NatsTransport::tls(client, server),
            };
            transports.insert(Arc::new(nats.with_login(crate::broker::login(kit, &files(own))?)));
        }
        #[cfg(not(feature = "nats"))]
        let _ = kit;
        Ok(())
    }

    fn of_server(kit: &KitFiles, security: ConnectionSecurity) -> Result<Option<Arc<ServerConfig>>, Failure> {
        let clients = match security {
            ConnectionSecurity::Clear => return Ok(None),
            ConnectionSecurity::Mtls => ClientAuth::Required,
            ConnectionSecurity::Tls => ClientAuth::None,
        };
        Ok(Some(Arc::new(server_config(&files(kit), clients).or_exit(Code::Config)?)))
    }

    fn of_client(
        kit: &KitFiles,
        security: ConnectionSecurity,
        custom_ca: Option<&Path>,
        host_check: HostCheck,
    ) -> Result<Option<Arc<ClientConfig>>, Failure> {
        let mut files = files(kit);
        match (security, custom_ca) {
            (ConnectionSecurity::Clear, _) => return Ok(None),
            (ConnectionSecurity::Tls, Some(custom_ca)) => files.ca = custom_ca.to_owned(),
            (ConnectionSecurity::Tls | ConnectionSecurity::Mtls, _) => {}
        }
        Ok(Some(Arc::new(client_config(&files, host_check).or_exit(Code::Config)?)))
    }

    fn files(kit: &KitFiles) -> TlsFiles {
        TlsFiles { ca: kit.ca.clone(), cert: kit.cert.clone(), key: kit.key.clone() }
    }
}

#[cfg(not(feature = "network"))]
mod outside {
    //! This build reaches no other machine.

    use std::path::Path;

    use locule_kit::{ConnectionSecurity, KitFiles, Workspace};
    use locule_transport::Transports;

    use crate::exit::Failure;

    type Means<'a> = (&'a KitFiles, ConnectionSecurity);

    pub(super) fn insert(
        _: &mut Transports,
        _: &Workspace,
        _: Option<Means<'_>>,
        _: Option<Means<'_>>,
        _: Option<&Path>,
    ) -> Result<(), Failure> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_jobs_of_one_daemon_are_out_of_reach_for_the_others_of_its_process() {
        let federation: Arc<dyn Transport> = Arc::new(MemTransport::new());
        let daemon = || Parted { federation: Arc::clone(&federation), jobs: Arc::new(MemTransport::new()) };
        let (server, site) = (daemon(), daemon());
        let outside = Endpoint::parse("mem://localhost:8002").unwrap();
        let _jobs = server.listen(&memory()).await.unwrap();
        let _sites = server.listen(&outside).await.unwrap();
        assert!(site.dial(&outside).await.is_ok());
        assert!(site.dial(&memory()).await.is_err());
        assert!(server.dial(&memory()).await.is_ok());
    }

    #[cfg(feature = "uds")]
    #[tokio::test]
    async fn links_of_jobs_are_internal_and_those_of_a_federation_over_the_same_carrier_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("private");
        let federation = UdsTransport::new().within(&folder).pretending(Security::Clear);
        let daemon = Parted { federation: Arc::new(federation), jobs: Arc::new(UdsTransport::new()) };
        for (at, security) in [
            (UdsTransport::endpoint(&folder.join("parent.sock")).unwrap(), Security::Internal),
            (Endpoint::parse("uds://localhost:8002").unwrap(), Security::Clear),
        ] {
            let mut listener = daemon.listen(&at).await.unwrap();
            let near = daemon.dial(&at).await.unwrap();
            let far = listener.accept().await.unwrap();
            assert_eq!((near.peer.security, far.peer.security), (security, security), "{at}");
        }
    }
}
