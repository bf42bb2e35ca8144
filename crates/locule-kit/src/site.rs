//! The kit of a site.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use locule_config::{Document, Node};

use crate::fields::Fields;
use crate::links::CommConfig;
use crate::older;
use crate::{
    Address, ConnectionSecurity, InternalListener, KitError, KitFiles, RelayLink, Workspace, document,
};

/// What a site's kit says: whom to dial, as whom, and what runs here.
///
/// The site's name is not in it; it is the common name of its certificate.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SiteKit {
    /// The folder of the kit.
    pub workspace: Workspace,
    /// The project's name.
    pub project: String,
    /// Where the server listens. Of no meaning behind a [`SiteKit::relay`].
    pub server: Address,
    /// The common name that the server must prove, whatever host it was dialed at.
    pub server_identity: String,
    /// Certificates and key.
    pub files: KitFiles,
    /// Certificate and key that the site shows to those who dial it, if it listens for others.
    pub listener_files: Option<KitFiles>,
    /// Another root that the server's TLS certificate may come from, used with
    /// [`ConnectionSecurity::Tls`] only.
    pub custom_ca: Option<PathBuf>,
    /// How the link to the server is protected.
    pub connection_security: ConnectionSecurity,
    /// The dotted path of parent sites down to this one, if the kit has it.
    pub fqsn: Option<String>,
    /// Whether no other site has this one as its parent.
    pub is_leaf: bool,
    /// The common name that this site proves, if it is not its name.
    pub auth_identity: Option<String>,
    /// Which common name a cell must prove, by prefix of its name, where it is not the first segment.
    pub auth_identity_map: BTreeMap<String, String>,
    /// Whether an app must be signed to be deployed here.
    pub require_signed_jobs: bool,
    /// How long to wait for what.
    pub timeouts: SiteTimeouts,
    /// The relay that this site reaches its server through.
    pub relay: Option<RelayLink>,
    /// Whether job processes may link to other cells than their parent.
    pub allow_adhoc_connections: bool,
    /// Whether job processes link to the server themselves (generation 2) or only to their parent
    /// (generation 1, behind a relay).
    pub backbone_generation: usize,
    /// Where this site listens for its job processes, if the kit says so.
    pub internal_listener: Option<InternalListener>,
    /// What the site tells the server about itself when it registers.
    pub site_config: serde_json::Map<String, serde_json::Value>,
    /// All configuration files of the site, merged.
    pub resources: Document,
}

/// Durations of a site's conversation with its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SiteTimeouts {
    /// For a task to be fetched or a result to be taken; 300 s.
    pub communication: Duration,
    /// For small messages, such as a heartbeat; 30 s.
    pub message: Duration,
    /// Between attempts to register; 2 s.
    pub register_interval: Duration,
    /// Between heartbeats; 10 s.
    pub heartbeat_interval: Duration,
}

impl SiteKit {
    /// Reads and checks the kit in `folder`, which contains `startup` and `local`.
    ///
    /// # Errors
    /// [`KitError`]; of mistakes in configuration files all are reported at once.
    pub fn open(folder: impl AsRef<Path>) -> Result<SiteKit, KitError> {
        let workspace = Workspace::new(folder.as_ref());
        document::check_is_kit(&workspace, "a site", "fed_client.json")?;
        let resources = document::merged(&workspace, "fed_client.json")?;
        let comm = CommConfig::document(&workspace)?;

        let mut fields = Fields::default();
        let root = resources.root();
        let server = fields.server(&resources);
        let client = fields.object(root, "client");
        let names = [
            fields.text_or(client, "ssl_root_cert", "rootCA.pem"),
            fields.text_or(client, "ssl_cert", "client.crt"),
            fields.text_or(client, "ssl_private_key", "client.key"),
        ];
        let address = older::server(&mut fields, root, server).unwrap_or_else(|| fields.target(server));
        let timeouts = SiteTimeouts {
            communication: fields.seconds(client, "communication_timeout", 300),
            message: fields.seconds(client, "maint_msg_timeout", 30),
            register_interval: fields.seconds(client, "client_register_interval", 2),
            heartbeat_interval: fields.seconds(root, "heart_beat_interval", 10),
        };
        let comm = CommConfig::read(&mut fields, comm.as_ref());
        let project = fields.text(server, "name");
        let server_identity = fields.text_or(server, "identity", &address.host);
        let connection_security = fields.security(client);
        let fqsn = fields.text_if_any(client, "fqsn");
        let is_leaf = fields.flag(client, "is_leaf", true);
        let auth_identity = fields.text_if_any(client, "auth_identity");
        let auth_identity_map = fields.identity_map(client);
        let require_signed_jobs = fields.flag(root, "require_signed_jobs", true);
        let relay = root.get("relay_config").filter(|relay| !relay.is_null());
        let relay = relay.map(|relay| RelayLink::read(&mut fields, relay, &server_identity));
        let site_config = site_config(&mut fields, root, client);
        fields.finish(&workspace, ())?;

        let [ca, cert, key] = names;
        let files = KitFiles::check(&workspace, &ca, &cert, &key)?;
        let security =
            comm.internal.as_ref().map_or(ConnectionSecurity::Clear, |one| one.connection_security);
        let listener_files = KitFiles::of_listener(&workspace, security)?;
        Ok(SiteKit {
            custom_ca: workspace.custom_ca(),
            workspace,
            project,
            server: address,
            server_identity,
            files,
            listener_files,
            connection_security,
            fqsn,
            is_leaf,
            auth_identity,
            auth_identity_map,
            require_signed_jobs,
            timeouts,
            relay,
            allow_adhoc_connections: comm.allow_adhoc_connections,
            backbone_generation: comm.backbone_generation,
            internal_listener: comm.internal,
            site_config,
            resources,
        })
    }

    /// What the cell of this site is called; `name` is the site's.
    pub fn fqcn(&self, name: &str) -> String {
        self.relay.as_ref().map_or_else(|| name.to_owned(), |relay| relay.cell_below(name))
    }

    /// What must outlive the process lies here: `<kit>/state`.
    pub fn state_dir(&self) -> PathBuf {
        self.workspace.state_dir()
    }
}

/// What goes to the server: `client.site_config`, or else whatever is not for this site's own eyes.
///
/// # Source
/// nvflare 2.9.0, registrations of sites with default kits.
fn site_config(
    fields: &mut Fields,
    root: &Node,
    client: &Node,
) -> serde_json::Map<String, serde_json::Value> {
    const PRIVATE: [&str; 13] = [
        "format_version",
        "client",
        "servers",
        "components",
        "handlers",
        "class_allow_list",
        "environment_allow_list",
        "class_list_enforcement_mode",
        "launcher",
        "snapshot_persistor",
        "admin",
        "relay_config",
        "overseer_agent",
    ];
    let public = |node: &Node, private: &[&str]| {
        let entries = node.entries().filter(|(key, _)| !private.contains(key));
        entries.map(|(key, value)| (key.to_owned(), value.to_json())).collect()
    };
    match client.get("site_config") {
        None => public(root, &PRIVATE),
        Some(own) => {
            if own.kind() != locule_config::NodeKind::Object {
                fields.bad(own, "`site_config` must be an object");
            }
            public(own, &[])
        }
    }
}
