//! The kit of a server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use locule_config::Document;

use crate::fields::Fields;
use crate::links::{CommConfig, interface};
use crate::{Address, ConnectionSecurity, InternalListener, KitError, KitFiles, Workspace, document};

/// What a server's kit says: where to listen, as whom, and for how many.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerKit {
    /// The folder of the kit.
    pub workspace: Workspace,
    /// The project's name; sites name it when they register.
    pub project: String,
    /// The server's name and port as sites are told; not where it listens.
    pub target: Address,
    /// Where sites are listened for: all interfaces, unless the target is this machine only.
    pub listen: Address,
    /// Where administrators are listened for; the same as [`ServerKit::listen`] where the kit makes no
    /// difference.
    pub admin_listen: Address,
    /// Certificates and key.
    pub files: KitFiles,
    /// How links to sites are protected.
    pub connection_security: ConnectionSecurity,
    /// The common name that the server proves, if it is not its name.
    pub auth_identity: Option<String>,
    /// Which common name a cell must prove, by prefix of its name, where it is not the first segment.
    pub auth_identity_map: BTreeMap<String, String>,
    /// Whether an app must be signed to be deployed here.
    pub require_signed_jobs: bool,
    /// How many sites may be registered at once; 100.
    pub max_sites: usize,
    /// A site that is silent for so long is given up; 600 s.
    pub heartbeat_timeout: Duration,
    /// How long a challenge may wait for its registration; 60 s.
    pub max_registration: Duration,
    /// How long an admin command may take at a site; 10 s.
    pub admin_timeout: Duration,
    /// The folder of files that come and go by admin commands.
    pub admin_storage: PathBuf,
    /// Where the server listens for its job processes, if the kit says so.
    pub internal_listener: Option<InternalListener>,
    /// Another root that peers' TLS certificates may come from.
    pub custom_ca: Option<PathBuf>,
    /// All configuration files of the server, merged.
    pub resources: Document,
}

impl ServerKit {
    /// Reads and checks the kit in `folder`, which contains `startup` and `local`.
    ///
    /// # Errors
    /// [`KitError`]; of mistakes in configuration files all are reported at once.
    pub fn open(folder: impl AsRef<Path>) -> Result<ServerKit, KitError> {
        let workspace = Workspace::new(folder.as_ref());
        document::check_is_kit(&workspace, "a server", "fed_server.json")?;
        let resources = document::merged(&workspace, "fed_server.json")?;
        let comm = CommConfig::document(&workspace)?;

        let mut fields = Fields::default();
        let root = resources.root();
        let server = fields.server(&resources);
        let ca = fields.text_or(server, "ssl_root_cert", "rootCA.pem");
        let cert = fields.text_or(server, "ssl_cert", "server.crt");
        let key = fields.text_or(server, "ssl_private_key", "server.key");
        let target = fields.target(server);
        let listen = Address { host: interface(&target.host), ..target.clone() };
        let admin_port = fields.port_if_any(server, "admin_port").unwrap_or(target.port);
        let admin_host = fields.text_or(server, "admin_host", &listen.host);
        let admin_listen = Address { host: admin_host, port: admin_port, ..listen.clone() };
        let project = fields.text(server, "name");
        let connection_security = fields.security(server);
        let auth_identity = fields.text_if_any(server, "auth_identity");
        let auth_identity_map = fields.identity_map(server);
        let require_signed_jobs = fields.flag(root, "require_signed_jobs", true);
        let max_sites = fields.count(server, "max_num_clients", 100);
        let heartbeat_timeout = fields.seconds(server, "heart_beat_timeout", 600);
        let max_registration = fields.seconds(root, "max_reg_duration", 60);
        let admin_timeout = fields.seconds(server, "admin_timeout", 10);
        let admin_storage = workspace.root().join(fields.text_or(server, "admin_storage", "transfer"));
        let comm = CommConfig::read(&mut fields, comm.as_ref());
        fields.finish(&workspace, ())?;

        let files = KitFiles::check(&workspace, &ca, &cert, &key)?;
        Ok(ServerKit {
            project,
            target,
            listen,
            admin_listen,
            files,
            connection_security,
            auth_identity,
            auth_identity_map,
            require_signed_jobs,
            max_sites,
            heartbeat_timeout,
            max_registration,
            admin_timeout,
            admin_storage,
            internal_listener: comm.internal,
            custom_ca: workspace.custom_ca(),
            workspace,
            resources,
        })
    }

    /// What must outlive the process lies here: `<kit>/state`.
    pub fn state_dir(&self) -> PathBuf {
        self.workspace.state_dir()
    }
}
