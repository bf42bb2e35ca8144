//! What a project consists of, as plain data.

use std::collections::HashSet;
use std::fmt;

use locule_identity::{check_name, check_name_against_server};
use serde::{Deserialize, Serialize};

/// A project: one server, its sites and its administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Project {
    /// The project's name: letters, digits, `_`, `-` and `.`; also the common name of its root.
    pub name: String,
    /// The carrier of all links.
    #[serde(default = "default_scheme")]
    pub scheme: String,
    /// How all links are protected.
    #[serde(default)]
    pub connection_security: ConnectionSecurity,
    /// How long a new root is valid, in days; no certificate outlives it.
    #[serde(default = "default_valid_days")]
    pub valid_days: u32,
    /// The server.
    pub server: Server,
    /// The sites.
    #[serde(default)]
    pub sites: Vec<Site>,
    /// The administrators.
    #[serde(default)]
    pub admins: Vec<Admin>,
}

/// How links are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionSecurity {
    /// Both ends present certificates.
    #[default]
    Mtls,
    /// Only the server presents one.
    Tls,
    /// No TLS; peers prove who they are by message only.
    Clear,
}

/// The server of a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Server {
    /// Its name, which it proves to sites: a host name by its form, at most 64 characters.
    pub name: String,
    /// Its organisation.
    pub org: String,
    /// The host that sites dial; its name if absent.
    #[serde(default)]
    pub host: Option<String>,
    /// Other host names and addresses it may be dialed at.
    #[serde(default)]
    pub host_names: Vec<String>,
    /// The port for sites.
    #[serde(default = "default_port")]
    pub port: u16,
    /// The port for administrators; the same if absent.
    #[serde(default)]
    pub admin_port: Option<u16>,
}

impl Server {
    /// The host that sites dial.
    pub fn default_host(&self) -> &str {
        self.host.as_deref().unwrap_or(&self.name)
    }
}

/// A site of a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Its name: letters, digits, `_` and `-`, at most 64 characters.
    pub name: String,
    /// Its organisation.
    pub org: String,
}

/// An administrator of a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// An e-mail address, at most 64 characters.
    pub name: String,
    /// The organisation.
    pub org: String,
    /// `project_admin`, `org_admin`, `lead`, `member`, or one that the sites' policies know.
    pub role: String,
}

fn default_scheme() -> String {
    "grpc".into()
}

fn default_valid_days() -> u32 {
    360
}

fn default_port() -> u16 {
    8002
}

impl Project {
    /// A project with a server, dialed by its name at port 8002 over gRPC with mutual TLS, and nobody
    /// else yet.
    pub fn new(name: impl Into<String>, server: impl Into<String>, org: impl Into<String>) -> Project {
        Project {
            name: name.into(),
            scheme: default_scheme(),
            connection_security: ConnectionSecurity::default(),
            valid_days: default_valid_days(),
            server: Server {
                name: server.into(),
                org: org.into(),
                host: None,
                host_names: Vec::new(),
                port: default_port(),
                admin_port: None,
            },
            sites: Vec::new(),
            admins: Vec::new(),
        }
    }

    /// With one more site.
    #[must_use]
    pub fn site(mut self, name: impl Into<String>, org: impl Into<String>) -> Project {
        self.sites.push(Site { name: name.into(), org: org.into() });
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
        self.admins.push(Admin { name: name.into(), org: org.into(), role: role.into() });
        self
    }

    /// Everything that forbids provisioning.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.apis.utils.format_check`; names are bounded by what a certificate holds.
    pub fn mistakes(&self) -> Vec<ProjectMistake> {
        let mut found = Found(Vec::new());
        let server = &self.server;
        found.check("project", &self.name, is_folder_name(&self.name), "letters, digits, `_`, `-` and `.`");
        found.check("scheme", &self.scheme, is_scheme(&self.scheme), "the name of a carrier, such as grpc");
        found.check("server", &server.name, is_host_name(&server.name), "a host name by its form");
        for host in std::iter::once(server.default_host()).chain(server.host_names.iter().map(String::as_str))
        {
            let good = is_host_name(host) || host.parse::<std::net::IpAddr>().is_ok();
            found.check("host", host, good, "a host name or an address");
        }
        let ports = [Some(server.port), server.admin_port];
        found.check("port", "0", !ports.contains(&Some(0)), "between 1 and 65535");
        let days = self.valid_days.to_string();
        found.check("valid_days", &days, (1..=36_500).contains(&self.valid_days), "between 1 and 36500");

        let sites = self.sites.iter().map(|site| (&site.name, &site.org));
        let admins = self.admins.iter().map(|admin| (&admin.name, &admin.org));
        let names_of_peers: Vec<&String> =
            sites.clone().chain(admins.clone()).map(|(name, _)| name).collect();
        let mut names = HashSet::new();
        for (name, org) in std::iter::once((&server.name, &server.org)).chain(sites).chain(admins) {
            found.check("name", name, name.len() <= 64, "at most 64 characters long");
            found.check("name", name, names.insert(name.to_lowercase()), "used once only");
            found.check("org", org, is_word(org, b"_"), "letters, digits and `_`");
        }
        for name in names_of_peers {
            let accepted = check_name(name).is_ok();
            found.check(
                "name",
                name,
                accepted,
                "another name: this one is reserved or no peer accepts its form",
            );
            let apart = check_name_against_server(name, &server.name).is_ok();
            found.check(
                "name",
                name,
                apart,
                "another name: it and the server's must not begin with one another",
            );
        }
        for site in &self.sites {
            found.check("site", &site.name, is_word(&site.name, b"_-"), "letters, digits, `_` and `-`");
        }
        for admin in &self.admins {
            found.check("admin", &admin.name, is_email(&admin.name), "an e-mail address");
            found.check("role", &admin.role, is_word(&admin.role, b"_-"), "letters, digits, `_` and `-`");
        }
        found.0
    }
}

/// Something that a project cannot have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProjectMistake {
    /// What is wrong, such as `site` or `port`.
    pub field: &'static str,
    /// What it says.
    pub value: String,
    /// What it must be.
    pub must_be: &'static str,
}

impl fmt::Display for ProjectMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} must be {}", self.field, self.value, self.must_be)
    }
}

struct Found(Vec<ProjectMistake>);

impl Found {
    fn check(&mut self, field: &'static str, value: &str, good: bool, must_be: &'static str) {
        if !good {
            self.0.push(ProjectMistake { field, value: value.to_owned(), must_be });
        }
    }
}

fn is_word(text: &str, more: &[u8]) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
}

fn is_folder_name(text: &str) -> bool {
    text.len() <= 64 && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && is_word(text, b"._-")
}

fn is_scheme(text: &str) -> bool {
    text.len() <= 32 && is_word(text, b"+-.")
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
