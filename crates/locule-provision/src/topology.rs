//! Who is connected to whom, and what cells are called for that.

use serde_json::{Map, Value};

use crate::{ConnectTo, ConnectionSecurity, Project, Relay, Site};

/// More relays in a row, or sites above one another, than anybody has.
pub(crate) const MAX_DEPTH: usize = 16;

/// What somebody dials.
pub(crate) struct Uplink {
    pub(crate) scheme: String,
    /// Name of the other end.
    pub(crate) identity: String,
    /// The common name that it proves.
    pub(crate) auth_identity: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Name of its cell.
    pub(crate) fqcn: String,
    pub(crate) connection_security: ConnectionSecurity,
}

impl Project {
    /// The relay that somebody connects to; `None` for the server.
    pub(crate) fn relay_of(&self, connect_to: Option<&ConnectTo>) -> Option<&Relay> {
        let name = connect_to?.name.as_deref()?;
        self.relays.iter().find(|relay| relay.name == name)
    }

    /// Name of a relay's cell: the names of the relays on the way from the server, and its own.
    pub(crate) fn cell_of_relay(&self, relay: &Relay) -> String {
        let mut path = vec![relay.name.as_str()];
        let mut above = self.relay_of(relay.connect_to.as_ref());
        while let Some(next) = above.filter(|_| path.len() < MAX_DEPTH) {
            path.push(&next.name);
            above = self.relay_of(next.connect_to.as_ref());
        }
        path.reverse();
        path.join(".")
    }

    /// Name of a site's cell.
    pub(crate) fn cell_of_site(&self, site: &Site) -> String {
        match self.relay_of(site.connect_to.as_ref()) {
            Some(relay) => format!("{}.{}", self.cell_of_relay(relay), site.name),
            None => site.name.clone(),
        }
    }

    /// Names of the sites above a site, and its own.
    pub(crate) fn path_of_site(&self, site: &Site) -> String {
        let mut path = vec![site.name.as_str()];
        let mut above = self.parent_of(site);
        while let Some(next) = above.filter(|_| path.len() < MAX_DEPTH) {
            path.push(&next.name);
            above = self.parent_of(next);
        }
        path.reverse();
        path.join(".")
    }

    /// The site above a site; `None` for the server.
    pub(crate) fn parent_of(&self, site: &Site) -> Option<&Site> {
        let name = site.parent.as_deref()?;
        self.sites.iter().find(|other| other.name == name)
    }

    pub(crate) fn is_leaf(&self, site: &Site) -> bool {
        !self.sites.iter().any(|other| other.parent.as_ref() == Some(&site.name))
    }

    /// Cells whose common name is not the segment of their name that peers would expect, with that common
    /// name. Peers at `below` see only cells below them, and expect the first segment below themselves.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.lighter.impl.static_file`.
    pub(crate) fn identity_map(&self, below: Option<&str>) -> Map<String, Value> {
        let relays =
            self.relays.iter().map(|one| (self.cell_of_relay(one), one.auth_identity.as_ref(), &one.name));
        let sites =
            self.sites.iter().map(|one| (self.cell_of_site(one), one.auth_identity.as_ref(), &one.name));
        let mut map = Map::new();
        for (cell, identity, name) in relays.chain(sites) {
            let identity = identity.unwrap_or(name);
            let seen = match below {
                None => Some(cell.as_str()),
                Some(above) => cell.strip_prefix(above).and_then(|rest| rest.strip_prefix('.')),
            };
            let expected = seen.and_then(|seen| seen.split('.').next());
            if expected.is_some_and(|expected| expected != identity) {
                map.insert(cell, identity.as_str().into());
            }
        }
        map
    }

    /// What the server proves to be.
    pub(crate) fn server_identity(&self) -> &str {
        self.server.auth_identity.as_deref().unwrap_or(&self.server.name)
    }

    /// How a relay reaches the server or another relay, or a site its relay. A site that dials the server
    /// itself has this in another form.
    pub(crate) fn uplink(&self, connect_to: Option<&ConnectTo>) -> Uplink {
        let server = &self.server;
        let mut link = match self.relay_of(connect_to) {
            None => Uplink {
                scheme: self.scheme.clone(),
                identity: server.name.clone(),
                auth_identity: self.server_identity().to_owned(),
                host: server.default_host().to_owned(),
                port: server.port,
                fqcn: "server".to_owned(),
                connection_security: server.connection_security.unwrap_or(self.connection_security),
            },
            Some(relay) => Uplink {
                scheme: relay.listening_host.scheme.clone(),
                identity: relay.name.clone(),
                auth_identity: relay.auth_identity.as_ref().unwrap_or(&relay.name).clone(),
                host: relay.listening_host.default_host.clone(),
                port: relay.listening_host.port.unwrap_or_default(),
                fqcn: self.cell_of_relay(relay),
                connection_security: relay.listening_host.connection_security,
            },
        };
        if let Some(own) = connect_to {
            let ConnectTo { name: _, host, port, connection_security, auth_identity } = own;
            link.host = host.clone().unwrap_or(link.host);
            link.port = port.unwrap_or(link.port);
            link.connection_security = connection_security.unwrap_or(link.connection_security);
            link.auth_identity = auth_identity.clone().unwrap_or(link.auth_identity);
        }
        link
    }

    /// The host and port of the server that a site or an administrator dials; `port` is what it is
    /// otherwise.
    pub(crate) fn server_target<'a>(
        &'a self,
        connect_to: Option<&'a ConnectTo>,
        port: u16,
    ) -> (&'a str, u16) {
        let host =
            connect_to.filter(|_| self.relay_of(connect_to).is_none()).and_then(|to| to.host.as_deref());
        (host.unwrap_or(self.server.default_host()), connect_to.and_then(|to| to.port).unwrap_or(port))
    }

    /// What stock processes call the carrier if they are to use its asynchronous driver.
    pub(crate) fn scheme_for(&self, use_aio: bool, scheme: &str) -> String {
        match (use_aio, scheme) {
            (false, scheme) => scheme.to_owned(),
            (true, "tcp") => "atcp".to_owned(),
            (true, "grpc") => "agrpc".to_owned(),
            (true, "http") => "http".to_owned(),
            (true, _) => self.scheme.clone(),
        }
    }
}
