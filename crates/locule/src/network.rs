//! The carriers of a server or a site: what its kit asks for, and memory for its own jobs.

use std::sync::Arc;

use anyhow::anyhow;
use locule_kit::{Address, ServerKit, SiteKit};
use locule_transport::{BoxFuture, DialError, Endpoint, Link, ListenError, Listener, Security, Transport};
use locule_transport::{Transports, UnknownScheme};
use locule_transport_mem::MemTransport;

use crate::exit::{Code, Failure};

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
    #[cfg(all(feature = "demo", feature = "mem"))]
    pub(crate) fn in_memory() -> Self {
        Self { shared: Some(MemTransport::new()) }
    }

    /// The carriers of a server.
    pub(crate) fn carriers_of_server(&self, kit: &ServerKit) -> Result<Carriers, Failure> {
        self.carriers(&kit.listen, |transports| over_grpc::listening(transports, kit))
    }

    /// The carriers of a site.
    pub(crate) fn carriers_of_site(&self, kit: &SiteKit) -> Result<Carriers, Failure> {
        self.carriers(&kit.server, |transports| over_grpc::dialing(transports, kit))
    }

    fn carriers(
        &self,
        address: &Address,
        grpc: impl FnOnce(&mut Transports) -> Result<(), Failure>,
    ) -> Result<Carriers, Failure> {
        let jobs = MemTransport::new();
        let inside = Transports::new().with(jobs.clone());
        let mut all = Transports::new();
        match &self.shared {
            Some(shared) => {
                let federation = shared.clone().pretending(Security::Clear);
                all.insert(Arc::new(InProcess { federation, jobs }));
            }
            None if address.scheme == "mem" => return Err(Failure::new(Code::Config, anyhow!(MEM_ALONE))),
            None => all.insert(Arc::new(jobs)),
        }
        grpc(&mut all)?;
        if !all.schemes().any(|scheme| scheme == address.scheme) {
            let unknown = UnknownScheme { scheme: address.scheme.clone(), known: all.schemes().collect() };
            return Err(Failure::new(Code::Config, unknown));
        }
        Ok(Carriers { all, inside })
    }
}

/// By what a server or a site reaches others, and by what its own jobs reach it.
#[derive(Debug)]
pub(crate) struct Carriers {
    pub(crate) all: Transports,
    pub(crate) inside: Transports,
}

/// Where a daemon listens for its own jobs, in memory that nobody else reaches.
pub(crate) fn jobs_endpoint() -> Endpoint {
    Endpoint::parse(&format!("mem://{JOBS}")).expect("a constant that is an endpoint")
}

const JOBS: &str = "jobs";

const MEM_ALONE: &str = "the kit's scheme is mem, which reaches nobody outside of one process: \
                         provision with another, such as grpc";

/// Memory that the federation shares, and memory that a daemon shares with its jobs only.
///
/// To the others of the federation a link says that it is not protected, as it would over a network
/// without TLS: it is by message that they prove who they are.
#[derive(Debug)]
struct InProcess {
    federation: MemTransport,
    jobs: MemTransport,
}

impl InProcess {
    fn of(&self, endpoint: &Endpoint) -> &MemTransport {
        if endpoint.host() == JOBS { &self.jobs } else { &self.federation }
    }
}

impl Transport for InProcess {
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

#[cfg(feature = "grpc")]
mod over_grpc {
    //! gRPC with the TLS of a kit.

    use std::sync::Arc;

    use locule_kit::{ConnectionSecurity, KitFiles, ServerKit, SiteKit};
    use locule_tls::{ClientAuth, HostCheck, TlsFiles, client_config, server_config};
    use locule_transport::Transports;
    use locule_transport_grpc::GrpcTransport;

    use crate::exit::{Code, Failure, OrExit as _};

    pub(super) fn listening(transports: &mut Transports, kit: &ServerKit) -> Result<(), Failure> {
        let clients = match kit.connection_security {
            ConnectionSecurity::Clear => {
                transports.insert(Arc::new(GrpcTransport::clear()));
                return Ok(());
            }
            ConnectionSecurity::Mtls => ClientAuth::Required,
            ConnectionSecurity::Tls => ClientAuth::None,
        };
        let tls = server_config(&files(&kit.files), clients).or_exit(Code::Config)?;
        transports.insert(Arc::new(GrpcTransport::tls(None, Some(Arc::new(tls)))));
        Ok(())
    }

    pub(super) fn dialing(transports: &mut Transports, kit: &SiteKit) -> Result<(), Failure> {
        let mut files = files(&kit.files);
        match kit.connection_security {
            ConnectionSecurity::Clear => {
                transports.insert(Arc::new(GrpcTransport::clear()));
                return Ok(());
            }
            ConnectionSecurity::Tls => files.ca = kit.custom_ca.clone().unwrap_or(files.ca),
            ConnectionSecurity::Mtls => {}
        }
        let tls = client_config(&files, HostCheck::San).or_exit(Code::Config)?;
        transports.insert(Arc::new(GrpcTransport::tls(Some(Arc::new(tls)), None)));
        Ok(())
    }

    fn files(kit: &KitFiles) -> TlsFiles {
        TlsFiles { ca: kit.ca.clone(), cert: kit.cert.clone(), key: kit.key.clone() }
    }
}

#[cfg(not(feature = "grpc"))]
mod over_grpc {
    //! This build has no gRPC.

    use locule_kit::{ServerKit, SiteKit};
    use locule_transport::Transports;

    use crate::exit::Failure;

    pub(super) fn listening(_: &mut Transports, _: &ServerKit) -> Result<(), Failure> {
        Ok(())
    }

    pub(super) fn dialing(_: &mut Transports, _: &SiteKit) -> Result<(), Failure> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_jobs_of_one_daemon_are_out_of_reach_for_the_others_of_its_process() {
        let federation = MemTransport::new();
        let daemon = || InProcess { federation: federation.clone(), jobs: MemTransport::new() };
        let (server, site) = (daemon(), daemon());
        let outside = Endpoint::parse("mem://localhost:8002").unwrap();
        let _jobs = server.listen(&jobs_endpoint()).await.unwrap();
        let _sites = server.listen(&outside).await.unwrap();
        assert!(site.dial(&outside).await.is_ok());
        assert!(site.dial(&jobs_endpoint()).await.is_err());
        assert!(server.dial(&jobs_endpoint()).await.is_ok());
    }
}
