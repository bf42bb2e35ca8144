//! Whom a participant dials instead of the server, and where it listens for others.

use locule_config::{Document, Node};

use crate::fields::Fields;
use crate::{Address, ConnectionSecurity, KitError, Workspace, document};

/// The link of a site to its relay, or of a relay to the server or to another relay.
///
/// # Source
/// nvflare 2.9.0, `relay_config` of `local/relay__resources.json` and `connect_to` of
/// `startup/fed_relay.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayLink {
    /// Where the other end listens.
    pub address: Address,
    /// The common name that the other end must prove.
    pub identity: String,
    /// The name of its cell: `server`, or a relay's. The own cell is a child of a relay's.
    pub fqcn: String,
    /// How the link is protected.
    pub connection_security: ConnectionSecurity,
}

impl RelayLink {
    /// What the cell of a participant is called that is connected by this link.
    pub fn cell_below(&self, name: &str) -> String {
        if self.fqcn == SERVER { name.to_owned() } else { format!("{}.{name}", self.fqcn) }
    }

    /// Reads a link; mistakes are noted in `fields`. `server` is what the server must prove, if it is the
    /// other end and the link says nothing.
    pub(crate) fn read(fields: &mut Fields, node: &Node, server: &str) -> RelayLink {
        let fqcn = fields.text(node, "fqcn");
        let last = if fqcn == SERVER { server } else { fqcn.rsplit('.').next().unwrap_or_default() };
        let name = fields.text_or(node, "identity", last);
        RelayLink {
            address: fields.address(node, "address"),
            identity: fields.text_or(node, "auth_identity", &name),
            // Provisioning writes a Python value where the server says nothing.
            connection_security: match node.get("connection_security").and_then(Node::as_str) {
                Some("None") => ConnectionSecurity::Mtls,
                Some(_) | None => fields.security(node),
            },
            fqcn,
        }
    }
}

/// The cell of the server.
const SERVER: &str = "server";

/// Where a participant listens for cells below it: a parent for its job processes, a relay for sites and
/// other relays.
///
/// # Source
/// nvflare 2.9.0, `internal` of `local/comm_config.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InternalListener {
    /// The carrier.
    pub scheme: String,
    /// The host that others dial.
    pub host: String,
    /// The host to listen on, if the kit says so.
    pub listen_host: Option<String>,
    /// The port; any free one if absent.
    pub port: Option<u16>,
    /// How the links are protected.
    pub connection_security: ConnectionSecurity,
}

impl InternalListener {
    /// Where to listen: what the kit says, else loopback if that is what others dial, else all interfaces.
    /// Port 0 is any free one.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.fuel.f3.drivers.net_utils`.
    pub fn listen(&self) -> Address {
        let host = self.listen_host.clone().unwrap_or_else(|| interface(&self.host));
        Address { scheme: self.scheme.clone(), host, port: self.port.unwrap_or(0) }
    }

    fn read(fields: &mut Fields, internal: &Node) -> InternalListener {
        let scheme = fields.scheme(internal);
        let none = InternalListener {
            scheme,
            host: "localhost".to_owned(),
            listen_host: None,
            port: None,
            connection_security: ConnectionSecurity::Clear,
        };
        let Some(resources) = internal.get("resources").filter(|node| !node.is_null()) else { return none };
        if let Some(ports) = resources.get("ports").filter(|_| resources.get("port").is_none()) {
            fields.bad(ports, "`ports` is not supported: give one `port`, or none for any");
        }
        InternalListener {
            host: fields.text_or(resources, "host", &none.host),
            listen_host: fields.text_if_any(resources, "listen_host"),
            port: fields.port_if_any(resources, "port"),
            connection_security: match resources.get("connection_security") {
                Some(_) => fields.security(resources),
                None => none.connection_security,
            },
            ..none
        }
    }
}

/// What `local/comm_config.json` says; what it says by default if there is none.
#[derive(Clone, Debug)]
pub(crate) struct CommConfig {
    pub(crate) allow_adhoc_connections: bool,
    pub(crate) backbone_generation: usize,
    pub(crate) internal: Option<InternalListener>,
}

impl CommConfig {
    pub(crate) fn document(workspace: &Workspace) -> Result<Option<Document>, KitError> {
        document::parse_if_any(workspace, COMM_CONFIG)
    }

    /// Reads what is there; mistakes are noted in `fields`.
    pub(crate) fn read(fields: &mut Fields, document: Option<&Document>) -> CommConfig {
        let Some(root) = document.map(Document::root) else {
            return CommConfig { allow_adhoc_connections: false, backbone_generation: 2, internal: None };
        };
        let internal = root.get("internal").filter(|node| !node.is_null());
        CommConfig {
            allow_adhoc_connections: fields.flag(root, "allow_adhoc_conns", false),
            backbone_generation: fields.count(root, "backbone_conn_gen", 2),
            internal: internal.map(|internal| InternalListener::read(fields, internal)),
        }
    }
}

/// Where it lies in a kit.
pub(crate) const COMM_CONFIG: &str = "local/comm_config.json";

/// The interface to listen on for a host that others dial: loopback if that is one, else all, since a host
/// is what others call this machine.
pub(crate) fn interface(host: &str) -> String {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    let is_localhost = host.trim_end_matches('.').eq_ignore_ascii_case("localhost");
    let is_loopback = is_localhost || address.is_ok_and(|ip| ip.is_loopback());
    if is_loopback { host.to_owned() } else { "0".to_owned() }
}
