//! What a project consists of, as plain data.

use std::path::PathBuf;

use serde::Serialize;

/// A project: one server, relays, sites and administrators.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Project {
    /// The project's name: letters, digits, `_`, `-` and `.`; also the common name of its root.
    pub name: String,
    /// The carrier of all links to the server.
    pub scheme: String,
    /// How links are protected whose participant says nothing else.
    pub connection_security: ConnectionSecurity,
    /// For participants that have none of their own: another root that peers' TLS certificates may come from.
    pub custom_ca_cert: Option<PathBuf>,
    /// Whether sites that say nothing else let their jobs' logs be streamed to the server.
    pub allow_log_streaming: bool,
    /// How long a new root is valid, in days; no certificate outlives it, or 360 days.
    pub valid_days: u32,
    /// Whether apps must be signed; where it is not said, they must.
    pub require_signed_jobs: Option<bool>,
    /// What the scripts of the kits start.
    pub runtime: Runtime,
    /// Whether all but the server get the same key, if they get a new one: for a federation that begins and ends in one
    /// process, where none could keep its key from the others.
    pub one_client_key: bool,
    /// The image that `docker.sh` runs; without one, there is no such script.
    pub docker_image: Option<String>,
    /// The folder of an app that holds its configuration.
    pub config_folder: String,
    /// The server.
    pub server: Server,
    /// The relays.
    pub relays: Vec<Relay>,
    /// The sites.
    pub sites: Vec<Site>,
    /// The administrators.
    pub admins: Vec<Admin>,
    /// The studies that jobs may belong to.
    pub studies: Vec<Study>,
}

/// What the scripts of a kit start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Runtime {
    /// The binary `locule`.
    #[default]
    Locule,
    /// The processes of nvflare 2.9.
    Nvflare,
}

/// How links are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionSecurity {
    /// Both ends present certificates.
    #[default]
    Mtls,
    /// Only the end that listens presents one.
    Tls,
    /// No TLS; peers prove who they are by message only.
    Clear,
}

impl ConnectionSecurity {
    /// All of them.
    pub const ALL: [ConnectionSecurity; 3] =
        [ConnectionSecurity::Mtls, ConnectionSecurity::Tls, ConnectionSecurity::Clear];

    /// The word for it in project files and kits.
    pub fn as_str(self) -> &'static str {
        match self {
            ConnectionSecurity::Mtls => "mtls",
            ConnectionSecurity::Tls => "tls",
            ConnectionSecurity::Clear => "clear",
        }
    }
}

/// The server of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Server {
    /// Its name, which it proves to sites: a host name by its form, at most 64 characters.
    pub name: String,
    /// Its organisation.
    pub org: String,
    /// The host that sites dial; its name if absent. `default_host` of a project file.
    pub host: Option<String>,
    /// Other host names and addresses it may be dialed at.
    pub host_names: Vec<String>,
    /// The port for sites. `fed_learn_port` of a project file.
    pub port: u16,
    /// The port for administrators; the same if absent.
    pub admin_port: Option<u16>,
    /// How its links are protected, if not as the project says.
    pub connection_security: Option<ConnectionSecurity>,
    /// The common name that it proves, if its certificate comes from elsewhere and bears another.
    pub auth_identity: Option<String>,
    /// Where it listens for its own job processes.
    pub listening_host: Option<ListeningHost>,
    /// Another root that peers' TLS certificates may come from.
    pub custom_ca_cert: Option<PathBuf>,
    /// Whether stock processes use the asynchronous driver of the carrier.
    pub use_aio: bool,
}

impl Server {
    /// The host that sites dial.
    pub fn default_host(&self) -> &str {
        self.host.as_deref().unwrap_or(&self.name)
    }
}

/// A relay: it connects to the server or to another relay, and is connected to by others.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Relay {
    /// Its name: letters, digits, `_` and `-`, at most 64 characters.
    pub name: String,
    /// Its organisation.
    pub org: String,
    /// Where it listens for sites and other relays; needs a port.
    pub listening_host: ListeningHost,
    /// What it connects to; the server if absent.
    pub connect_to: Option<ConnectTo>,
    /// The common name that it proves, if its certificate comes from elsewhere and bears another.
    pub auth_identity: Option<String>,
    /// Whether stock processes use the asynchronous driver of the carrier.
    pub use_aio: bool,
}

impl Relay {
    /// A relay that connects to the server.
    pub fn new(name: impl Into<String>, org: impl Into<String>, listening_host: ListeningHost) -> Relay {
        Relay {
            name: name.into(),
            org: org.into(),
            listening_host,
            connect_to: None,
            auth_identity: None,
            use_aio: false,
        }
    }
}

/// A site of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Site {
    /// Its name: letters, digits, `_` and `-`, at most 64 characters.
    pub name: String,
    /// Its organisation.
    pub org: String,
    /// What it connects to; the server if absent.
    pub connect_to: Option<ConnectTo>,
    /// Where it listens for its own job processes, or for others that run beside it.
    pub listening_host: Option<ListeningHost>,
    /// The site above it in a hierarchy of sites; the server if absent.
    pub parent: Option<String>,
    /// What it can offer to jobs.
    pub capacity: Capacity,
    /// Whether its jobs' logs may be streamed to the server, if not as the project says.
    pub allow_log_streaming: Option<bool>,
    /// How its links are protected, if not as the project says.
    pub connection_security: Option<ConnectionSecurity>,
    /// The common name that it proves, if its certificate comes from elsewhere and bears another.
    pub auth_identity: Option<String>,
    /// Another root that the server's TLS certificate may come from.
    pub custom_ca_cert: Option<PathBuf>,
    /// Whether stock processes use the asynchronous driver of the carrier.
    pub use_aio: bool,
}

impl Site {
    /// A site that connects to the server.
    pub fn new(name: impl Into<String>, org: impl Into<String>) -> Site {
        Site {
            name: name.into(),
            org: org.into(),
            connect_to: None,
            listening_host: None,
            parent: None,
            capacity: Capacity::default(),
            allow_log_streaming: None,
            connection_security: None,
            auth_identity: None,
            custom_ca_cert: None,
            use_aio: false,
        }
    }
}

/// What a site can offer to jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Capacity {
    /// How many GPUs.
    pub num_of_gpus: u32,
    /// Memory of each, in GiB.
    pub mem_per_gpu_in_gib: u32,
}

/// An administrator of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Admin {
    /// An e-mail address, at most 64 characters.
    pub name: String,
    /// The organisation.
    pub org: String,
    /// One of [`Admin::ROLES`], or one that the sites' policies know.
    pub role: String,
    /// At which host and port to connect to the server.
    pub connect_to: Option<ConnectTo>,
    /// How the link is protected, if not as the project says.
    pub connection_security: Option<ConnectionSecurity>,
}

impl Admin {
    /// The roles that default policies know.
    pub const ROLES: [&'static str; 4] = ["project_admin", "org_admin", "lead", "member"];

    /// An administrator who connects to the server.
    pub fn new(name: impl Into<String>, org: impl Into<String>, role: impl Into<String>) -> Admin {
        Admin {
            name: name.into(),
            org: org.into(),
            role: role.into(),
            connect_to: None,
            connection_security: None,
        }
    }
}

/// What a participant connects to, as far as it differs from what the other end says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ConnectTo {
    /// Name of a relay, or of the server; the server if absent.
    pub name: Option<String>,
    /// The host to dial.
    pub host: Option<String>,
    /// The port to dial.
    pub port: Option<u16>,
    /// How the link to a relay, or of a relay, is protected.
    pub connection_security: Option<ConnectionSecurity>,
    /// The common name that the other end of a relay's link proves.
    pub auth_identity: Option<String>,
}

/// Where a participant listens beside, or instead of, the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListeningHost {
    /// The host that others dial.
    pub default_host: String,
    /// Other host names and addresses it may be dialed at.
    pub host_names: Vec<String>,
    /// The carrier.
    pub scheme: String,
    /// The port; any free one if absent.
    pub port: Option<u16>,
    /// How the links are protected.
    pub connection_security: ConnectionSecurity,
}

impl ListeningHost {
    /// TCP without TLS at any free port, which is what a project file means that names a host only.
    pub fn new(default_host: impl Into<String>) -> ListeningHost {
        ListeningHost {
            default_host: default_host.into(),
            host_names: Vec::new(),
            scheme: "tcp".into(),
            port: None,
            connection_security: ConnectionSecurity::Clear,
        }
    }
}

/// A study: who takes part, and who may run jobs in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Study {
    /// Lower-case letters, digits, `_` and `-`; not `default`.
    pub name: String,
    /// The members; nothing is said about them if absent.
    pub members: Option<StudyMembers>,
}

/// The members of a study.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StudyMembers {
    /// Names of sites by their organisation.
    pub site_orgs: Vec<(String, Vec<String>)>,
    /// Names of administrators.
    pub admins: Vec<String>,
}

impl Project {
    /// A project with a server, dialed by its name at port 8002 over gRPC with mutual TLS, and nobody
    /// else yet.
    pub fn new(name: impl Into<String>, server: impl Into<String>, org: impl Into<String>) -> Project {
        Project {
            name: name.into(),
            scheme: "grpc".into(),
            connection_security: ConnectionSecurity::default(),
            custom_ca_cert: None,
            allow_log_streaming: true,
            valid_days: 360,
            require_signed_jobs: None,
            runtime: Runtime::default(),
            one_client_key: false,
            docker_image: None,
            config_folder: "config".into(),
            server: Server {
                name: server.into(),
                org: org.into(),
                host: None,
                host_names: Vec::new(),
                port: 8002,
                admin_port: None,
                connection_security: None,
                auth_identity: None,
                listening_host: None,
                custom_ca_cert: None,
                use_aio: false,
            },
            relays: Vec::new(),
            sites: Vec::new(),
            admins: Vec::new(),
            studies: Vec::new(),
        }
    }

    /// With one more site.
    #[must_use]
    pub fn site(mut self, name: impl Into<String>, org: impl Into<String>) -> Project {
        self.sites.push(Site::new(name, org));
        self
    }

    /// With one more administrator.
    #[must_use]
    pub fn admin(
        mut self,
        name: impl Into<String>,
        org: impl Into<String>,
        role: impl Into<String>,
    ) -> Project {
        self.admins.push(Admin::new(name, org, role));
        self
    }
}
