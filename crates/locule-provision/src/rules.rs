//! What forbids provisioning a project, and what looks wrong in it.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use locule_identity::{check_name, check_name_against_server};

use crate::topology::MAX_DEPTH;
use crate::{Admin, ConnectTo, ConnectionSecurity, ListeningHost, Project, Study};

/// Something that a project cannot have, or probably should not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProjectMistake {
    /// Where it is.
    pub part: Part,
    /// What is wrong, as a project file calls it, such as `org` or `connect_to.name`.
    pub field: &'static str,
    /// What it says.
    pub value: String,
    /// What it must be.
    pub must_be: String,
}

/// A part of a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// What is said of the project as a whole.
    Project,
    /// Its server.
    Server,
    /// A relay, by its index.
    Relay(usize),
    /// A site, by its index.
    Site(usize),
    /// An administrator, by index.
    Admin(usize),
    /// A study, by its index.
    Study(usize),
}

/// Counted from 1: `site 2`.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Project => f.write_str("the project"),
            Part::Server => f.write_str("the server"),
            Part::Relay(index) => write!(f, "relay {}", index + 1),
            Part::Site(index) => write!(f, "site {}", index + 1),
            Part::Admin(index) => write!(f, "administrator {}", index + 1),
            Part::Study(index) => write!(f, "study {}", index + 1),
        }
    }
}

impl fmt::Display for ProjectMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} of {} must be {}", self.field, self.value, self.part, self.must_be)
    }
}

impl Project {
    /// Everything that forbids provisioning.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.apis.utils.format_check` and `nvflare.lighter.impl.static_file`; names are
    /// bounded by what a certificate holds.
    pub fn mistakes(&self) -> Vec<ProjectMistake> {
        let mut found = Found::default();
        self.check_project(&mut found);
        self.check_server(&mut found);
        for (index, site) in self.sites.iter().enumerate() {
            found.part = Part::Site(index);
            found.check("name", &site.name, is_word(&site.name, b"_-"), "letters, digits, `_` and `-`");
            if let Some(listening) = &site.listening_host {
                found.check_listening(listening);
            }
        }
        for (index, relay) in self.relays.iter().enumerate() {
            found.part = Part::Relay(index);
            found.check("name", &relay.name, is_word(&relay.name, b"_-"), "letters, digits, `_` and `-`");
            found.check_listening(&relay.listening_host);
            let port = relay.listening_host.port;
            found.check("listening_host.port", "", port.is_some(), "there: others dial it");
        }
        for (index, admin) in self.admins.iter().enumerate() {
            found.part = Part::Admin(index);
            found.check("name", &admin.name, is_email(&admin.name), "an e-mail address");
            found.check("role", &admin.role, is_word(&admin.role, b"_-"), "letters, digits, `_` and `-`");
        }
        self.check_names(&mut found);
        self.check_links(&mut found);
        self.check_studies(&mut found);
        found.list
    }

    /// What is allowed and probably not meant: hosts that nobody answers for, links without TLS, roles that
    /// no policy knows.
    pub fn doubts(&self) -> Vec<ProjectMistake> {
        let mut found = Found::default();
        for (index, relay) in self.relays.iter().enumerate() {
            found.part = Part::Relay(index);
            self.doubt_host(&mut found, relay.connect_to.as_ref());
            let clear = relay.listening_host.connection_security == ConnectionSecurity::Clear;
            let field = "listening_host.connection_security";
            found.check(field, "clear", !clear, "mtls or tls, or nothing that passes the relay is encrypted");
        }
        for (index, site) in self.sites.iter().enumerate() {
            found.part = Part::Site(index);
            self.doubt_host(&mut found, site.connect_to.as_ref());
        }
        for (index, admin) in self.admins.iter().enumerate() {
            found.part = Part::Admin(index);
            self.doubt_host(&mut found, admin.connect_to.as_ref());
            let known = Admin::ROLES.contains(&admin.role.as_str());
            let roles = format!("one of {}, or policies must know it", Admin::ROLES.join(", "));
            found.check("role", &admin.role, known, &roles);
        }
        found.list
    }

    fn check_project(&self, found: &mut Found) {
        found.part = Part::Project;
        let good = is_folder_name(&self.name) && self.name.len() <= 64;
        found.check("name", &self.name, good, "letters, digits, `_`, `-` and `.`, at most 64");
        found.check("scheme", &self.scheme, is_scheme(&self.scheme), "the name of a carrier, such as grpc");
        let days = self.valid_days.to_string();
        found.check("root_valid_days", &days, (1..=36_500).contains(&self.valid_days), "1 to 36500");
        let folder = &self.config_folder;
        found.check("config_folder", folder, is_folder_name(folder), "the name of a folder");
        if let Some(image) = &self.docker_image {
            let good = is_word(image, b"._-/:@") && !image.starts_with('-');
            found.check("docker_image", image, good, "the name of an image");
        }
    }

    fn check_server(&self, found: &mut Found) {
        found.part = Part::Server;
        let server = &self.server;
        found.check("name", &server.name, is_host_name(&server.name), "a host name by its form");
        found.check("default_host", server.default_host(), is_host(server.default_host()), A_HOST);
        for host in &server.host_names {
            found.check("host_names", host, is_host(host), A_HOST);
        }
        found.check("fed_learn_port", "0", server.port != 0, A_PORT);
        found.check("admin_port", "0", server.admin_port != Some(0), A_PORT);
        if let Some(listening) = &server.listening_host {
            found.check_listening(listening);
        }
    }

    /// Rules that names of all participants have in common.
    fn check_names(&self, found: &mut Found) {
        let server = (Part::Server, &self.server.name, &self.server.org, self.server.auth_identity.as_ref());
        let relays = self.relays.iter().enumerate();
        let relays = relays.map(|(i, one)| (Part::Relay(i), &one.name, &one.org, one.auth_identity.as_ref()));
        let sites = self.sites.iter().enumerate();
        let sites = sites.map(|(i, one)| (Part::Site(i), &one.name, &one.org, one.auth_identity.as_ref()));
        let admins = self.admins.iter().enumerate();
        let admins = admins.map(|(i, one)| (Part::Admin(i), &one.name, &one.org, None));
        let mut names = HashSet::new();
        for (part, name, org, identity) in std::iter::once(server).chain(relays).chain(sites).chain(admins) {
            found.part = part;
            found.check("name", name, name.len() <= 64, "at most 64 characters long");
            found.check("name", name, names.insert(name.to_lowercase()), "used once only");
            found.check("org", org, is_word(org, b"_"), "letters, digits and `_`");
            if let Some(identity) = identity {
                let good =
                    !identity.is_empty() && identity.len() <= 64 && !identity.contains(char::is_control);
                found.check("auth_identity", identity, good, "a common name of at most 64 characters");
            }
            if part == Part::Server {
                continue;
            }
            // The last two are keys of the file that keeps certificates.
            let accepted =
                check_name(name).is_ok() && !["root_cert", "root_pri_key"].contains(&name.as_str());
            let must_be = "another name: this one is reserved or no peer accepts its form";
            found.check("name", name, accepted, must_be);
            // A server without a name has a mistake of its own.
            let server = &self.server.name;
            let apart = server.is_empty() || check_name_against_server(name, server).is_ok();
            let must_be = "another name: it and the server's must not begin with one another";
            found.check("name", name, apart, must_be);
        }
    }

    fn check_links(&self, found: &mut Found) {
        for (index, relay) in self.relays.iter().enumerate() {
            found.part = Part::Relay(index);
            self.check_connect_to(found, relay.connect_to.as_ref(), true);
            let above = |name: &str| {
                let relay = self.relays.iter().find(|one| one.name == name)?;
                relay.connect_to.as_ref()?.name.as_deref()
            };
            let name = relay.connect_to.as_ref().and_then(|to| to.name.as_deref());
            let good = name.is_none_or(|first| ends(first, above));
            found.check("connect_to.name", name.unwrap_or_default(), good, WAY_UP);
        }
        for (index, site) in self.sites.iter().enumerate() {
            found.part = Part::Site(index);
            self.check_connect_to(found, site.connect_to.as_ref(), true);
            let Some(parent) = site.parent.as_deref() else { continue };
            let known = self.sites.iter().any(|other| other.name == parent);
            found.check("parent", parent, known, "another site of this project");
            let above = |name: &str| {
                let site = self.sites.iter().find(|one| one.name == name)?;
                site.parent.as_deref()
            };
            found.check("parent", parent, ends(parent, above), WAY_UP);
        }
        for (index, admin) in self.admins.iter().enumerate() {
            found.part = Part::Admin(index);
            self.check_connect_to(found, admin.connect_to.as_ref(), false);
        }
    }

    fn check_connect_to(&self, found: &mut Found, connect_to: Option<&ConnectTo>, may_be_relay: bool) {
        let Some(ConnectTo { name, host, port, .. }) = connect_to else { return };
        if let Some(name) = name {
            let is_relay = may_be_relay && self.relays.iter().any(|relay| relay.name == *name);
            let must_be = if may_be_relay { "the server or a relay of this project" } else { "the server" };
            found.check("connect_to.name", name, is_relay || *name == self.server.name, must_be);
        }
        if let Some(host) = host {
            found.check("connect_to.host", host, is_host(host), A_HOST);
        }
        found.check("connect_to.port", "0", *port != Some(0), A_PORT);
    }

    fn doubt_host(&self, found: &mut Found, connect_to: Option<&ConnectTo>) {
        let Some(host) = connect_to.and_then(|to| to.host.as_ref()) else { return };
        let (whose, default_host, more) = match self.relay_of(connect_to) {
            None => (&self.server.name, self.server.default_host(), &self.server.host_names),
            Some(relay) => {
                let listening = &relay.listening_host;
                (&relay.name, listening.default_host.as_str(), &listening.host_names)
            }
        };
        let known = host == default_host || more.contains(host);
        found.check("connect_to.host", host, known, &format!("one of the hosts of {whose}, or TLS may fail"));
    }

    fn check_studies(&self, found: &mut Found) {
        let mut names = HashSet::new();
        for (index, Study { name, members }) in self.studies.iter().enumerate() {
            found.part = Part::Study(index);
            let ends_well = |c: Option<char>| c.is_some_and(|c| c != '_' && c != '-');
            let good = is_word(name, b"_-")
                && !name.contains(|c: char| c.is_ascii_uppercase())
                && name.len() <= 63
                && ends_well(name.chars().next())
                && ends_well(name.chars().last());
            found.check("name", name, good, "lower-case letters, digits, `_` and `-`, at most 63");
            found.check("name", name, name != "default", "another name: this one is reserved");
            found.check("name", name, names.insert(name), "used once only");
            let Some(members) = members else { continue };
            let mut seen = HashSet::new();
            for (org, sites) in &members.site_orgs {
                for name in sites {
                    let site = self.sites.iter().find(|site| site.name == *name);
                    found.check("site_orgs", name, site.is_some(), "a site of this project");
                    let right = site.is_none_or(|site| site.org == *org);
                    found.check("site_orgs", name, right, &format!("a site of {org}"));
                    found.check("site_orgs", name, seen.insert(name), "named once only");
                }
            }
            for name in &members.admins {
                let known = self.admins.iter().any(|admin| admin.name == *name);
                found.check("admins", name, known, "an administrator of this project");
            }
        }
    }
}

const A_HOST: &str = "a host name or an address";
const A_PORT: &str = "between 1 and 65535";
const WAY_UP: &str = "another: from here on, nothing leads to the server in a few steps";

/// Whether the way up from a name comes to an end.
fn ends<'a>(first: &'a str, above: impl Fn(&str) -> Option<&'a str>) -> bool {
    let mut steps = 0;
    let mut next = Some(first);
    while let Some(name) = next.filter(|_| steps < MAX_DEPTH) {
        steps += 1;
        next = above(name);
    }
    next.is_none()
}

#[derive(Debug)]
struct Found {
    part: Part,
    list: Vec<ProjectMistake>,
}

impl Default for Found {
    fn default() -> Found {
        Found { part: Part::Project, list: Vec::new() }
    }
}

impl Found {
    fn check(&mut self, field: &'static str, value: &str, good: bool, must_be: &str) {
        if !good {
            let (part, value, must_be) = (self.part, value.to_owned(), must_be.to_owned());
            self.list.push(ProjectMistake { part, field, value, must_be });
        }
    }

    fn check_listening(&mut self, listening: &ListeningHost) {
        let ListeningHost { default_host, host_names, scheme, port, connection_security: _ } = listening;
        self.check("listening_host.default_host", default_host, is_host(default_host), A_HOST);
        for host in host_names {
            self.check("listening_host.host_names", host, is_host(host), A_HOST);
        }
        self.check("listening_host.scheme", scheme, is_scheme(scheme), "the name of a carrier, such as tcp");
        self.check("listening_host.port", "0", *port != Some(0), A_PORT);
    }
}

fn is_word(text: &str, more: &[u8]) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
}

fn is_folder_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && is_word(text, b"._-")
}

fn is_scheme(text: &str) -> bool {
    text.len() <= 32 && is_word(text, b"+-.")
}

fn is_host(text: &str) -> bool {
    is_host_name(text) || text.parse::<IpAddr>().is_ok()
}

fn is_host_name(text: &str) -> bool {
    let label = |part: &str| is_word(part, b"-") && !part.starts_with('-') && !part.ends_with('-');
    text.len() <= 253 && text.split('.').all(label)
}

fn is_email(text: &str) -> bool {
    text.split_once('@').is_some_and(|(local, domain)| {
        is_word(local, b"._%+-") && !local.starts_with('.') && is_host_name(domain) && domain.contains('.')
    })
}
