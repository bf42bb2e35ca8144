//! Reads typed fields out of documents and collects every mistake.

use std::collections::BTreeMap;
use std::time::Duration;

use locule_config::{Diagnostic, Diagnostics, Document, Node};

use crate::{Address, ConnectionSecurity, KitError, Workspace, code, document};

/// Longest duration a kit may ask for.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

/// A pass over a kit's fields. A mistake is noted and a stand-in returned, so that the pass goes on;
/// [`Fields::finish`] lets nothing through that has a mistake.
#[derive(Default)]
pub(crate) struct Fields {
    mistakes: Diagnostics,
}

impl Fields {
    pub(crate) fn finish<T>(self, workspace: &Workspace, kit: T) -> Result<T, KitError> {
        match self.mistakes.is_empty() {
            true => Ok(kit),
            false => Err(document::configuration(workspace, self.mistakes)),
        }
    }

    /// `servers[0]`, the only server there is.
    pub(crate) fn server<'n>(&mut self, document: &'n Document) -> &'n Node {
        let root = document.root();
        match root.find(&["servers", "#1"]) {
            Some(server) => server,
            None => {
                let message = "`servers` must be a list with the server";
                self.bad(root.get("servers").unwrap_or(root), message);
                root
            }
        }
    }

    /// The object under `key`; the parent as a stand-in.
    pub(crate) fn object<'n>(&mut self, parent: &'n Node, key: &str) -> &'n Node {
        match parent.get(key) {
            Some(node) if node.entries().next().is_some() => node,
            Some(node) => {
                self.bad(node, format!("`{key}` must be an object"));
                parent
            }
            None => {
                self.missing(parent, key);
                parent
            }
        }
    }

    pub(crate) fn text(&mut self, parent: &Node, key: &str) -> String {
        if parent.get(key).is_none() {
            self.missing(parent, key);
        }
        self.text_if_any(parent, key).unwrap_or_default()
    }

    pub(crate) fn text_or(&mut self, parent: &Node, key: &str, default: &str) -> String {
        self.text_if_any(parent, key).unwrap_or_else(|| default.to_owned())
    }

    pub(crate) fn text_if_any(&mut self, parent: &Node, key: &str) -> Option<String> {
        let node = present(parent, key)?;
        let text = node.as_str().map(str::trim).filter(|text| !text.is_empty());
        if text.is_none() {
            self.bad(node, format!("`{key}` must be a text that is not empty"));
        }
        text.map(str::to_owned)
    }

    pub(crate) fn flag(&mut self, parent: &Node, key: &str, default: bool) -> bool {
        let Some(node) = present(parent, key) else { return default };
        node.as_bool().unwrap_or_else(|| {
            self.bad(node, format!("`{key}` must be true or false"));
            default
        })
    }

    pub(crate) fn count(&mut self, parent: &Node, key: &str, default: usize) -> usize {
        let Some(node) = present(parent, key) else { return default };
        node.as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or_else(|| {
            self.bad(node, format!("`{key}` must be a whole number, not negative"));
            default
        })
    }

    pub(crate) fn seconds(&mut self, parent: &Node, key: &str, default: u64) -> Duration {
        let default = Duration::from_secs(default);
        let Some(node) = present(parent, key) else { return default };
        let seconds = node.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        match seconds.filter(|seconds| !seconds.is_zero() && *seconds <= MAX_DURATION) {
            Some(seconds) => seconds,
            None => {
                self.bad(node, format!("`{key}` must be a number of seconds above 0 and at most a year"));
                default
            }
        }
    }

    pub(crate) fn port_if_any(&mut self, parent: &Node, key: &str) -> Option<u16> {
        let node = present(parent, key)?;
        let port = node.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        if port.is_none() {
            self.bad(node, format!("`{key}` must be a port between 1 and 65535"));
        }
        port
    }

    pub(crate) fn port(&mut self, parent: &Node, key: &str) -> u16 {
        if parent.get(key).is_none() {
            self.missing(parent, key);
        }
        self.port_if_any(parent, key).unwrap_or_default()
    }

    pub(crate) fn security(&mut self, parent: &Node) -> ConnectionSecurity {
        let Some(node) = present(parent, "connection_security") else { return ConnectionSecurity::default() };
        let known = |word: &str| ConnectionSecurity::ALL.into_iter().find(|one| one.as_str() == word);
        node.as_str().and_then(known).unwrap_or_else(|| {
            let words = ConnectionSecurity::ALL.map(ConnectionSecurity::as_str);
            let message = format!("`connection_security` must be one of {}", words.join(", "));
            let mistake = Diagnostic::at(node, code::BAD_FIELD, message);
            let meant = node.as_str().and_then(|word| locule_config::suggest(word, words.into_iter()));
            self.mistakes.push(match meant {
                Some(meant) => mistake.label(format!("did you mean `{meant}`?")),
                None => mistake,
            });
            ConnectionSecurity::default()
        })
    }

    /// `{"service": {"target": "host:port", "scheme": …}}`.
    pub(crate) fn target(&mut self, server: &Node) -> Address {
        let service = self.object(server, "service");
        self.address(service, "target")
    }

    /// `scheme` beside a text `host:port` under `key`.
    pub(crate) fn address(&mut self, parent: &Node, key: &str) -> Address {
        let scheme = self.scheme(parent);
        let text = self.text(parent, key);
        match Self::host_and_port(&text) {
            Some((host, port)) => Address { scheme, host, port },
            None => {
                if let Some(node) = parent.get(key).filter(|_| !text.is_empty()) {
                    self.bad(node, format!("`{key}` must be `host:port` with a port between 1 and 65535"));
                }
                Address { scheme, host: text, port: 0 }
            }
        }
    }

    /// What `host:port` says, if it is that.
    pub(crate) fn host_and_port(text: &str) -> Option<(String, u16)> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
        is_host(host).then(|| (host.to_owned(), port))
    }

    pub(crate) fn host(&mut self, parent: &Node, key: &str) -> String {
        let host = self.text(parent, key);
        if let Some(node) = parent.get(key).filter(|_| !host.is_empty() && !is_host(&host)) {
            self.bad(node, format!("`{key}` must be a host name or an address"));
        }
        host
    }

    pub(crate) fn scheme(&mut self, parent: &Node) -> String {
        let scheme = self.text(parent, "scheme");
        let plain = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if let Some(node) = parent.get("scheme").filter(|_| !plain) {
            self.bad(node, "`scheme` must be the name of a carrier, such as grpc");
        }
        scheme
    }

    /// `auth_identity_map`: which common name a cell must prove, by prefix of its name.
    pub(crate) fn identity_map(&mut self, parent: &Node) -> BTreeMap<String, String> {
        let Some(map) = present(parent, "auth_identity_map") else { return BTreeMap::new() };
        if map.kind() != locule_config::NodeKind::Object {
            self.bad(map, "`auth_identity_map` must be an object of cell names and common names");
        }
        let keys: Vec<&str> = map.entries().map(|(cell, _)| cell).collect();
        keys.into_iter().map(|cell| (cell.to_owned(), self.text(map, cell))).collect()
    }

    pub(crate) fn bad(&mut self, node: &Node, message: impl Into<String>) {
        self.mistakes.push(Diagnostic::at(node, code::BAD_FIELD, message));
    }

    fn missing(&mut self, parent: &Node, key: &str) {
        let mistake = Diagnostic::at(parent, code::MISSING_FIELD, format!("`{key}` is missing"));
        let keys: Vec<&str> = parent.entries().map(|(key, _)| key).collect();
        self.mistakes.push(match locule_config::suggest(key, keys.into_iter()) {
            Some(meant) => mistake.help(format!("there is `{meant}`: was `{key}` meant?")),
            None => mistake.help("compare with the kit as it was provisioned"),
        });
    }
}

/// `null` is as good as absent.
fn present<'n>(parent: &'n Node, key: &str) -> Option<&'n Node> {
    parent.get(key).filter(|node| !node.is_null())
}

/// A name, an IPv4 address, or an IPv6 address in brackets; not more than tells it from a URL's rest.
fn is_host(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        }
    }
}
