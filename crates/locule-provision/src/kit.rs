//! The files of a kit.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::ledger::{Credential, Credentials};
use crate::script::Script;
use crate::topology::Uplink;
use crate::{
    Admin, ListeningHost, Project, ProvisionError, Relay, Runtime, Server, Site, make_folder, write_file,
};

/// Classes that a site lets jobs without code of their own use: those of nvflare 2.9.0 and ours.
const CLASS_ALLOW_LIST: &str = include_str!("../templates/class_allow_list.json");
const AUTHORIZATION: &str = include_str!("../templates/authorization.json");
const PRIVACY: &str = include_str!("../templates/privacy.json");
/// For stock processes, which do not start without one.
const LOG_CONFIG: &str = include_str!("../templates/log_config.json");
/// For stock processes, which run no job without these parts.
const SERVER_RESOURCES: &str = include_str!("../templates/server_resources.json");
const SITE_RESOURCES: &str = include_str!("../templates/site_resources.json");

/// Writes kits of one project, in the layout of nvflare 2.9.0.
pub(crate) struct KitWriter<'a> {
    pub(crate) project: &'a Project,
    pub(crate) root_pem: &'a str,
    pub(crate) credentials: &'a Credentials,
}

impl KitWriter<'_> {
    pub(crate) fn server(&self, folder: &Path) -> Result<(), ProvisionError> {
        let (project, server) = (self.project, &self.project.server);
        let security = server.connection_security.unwrap_or(project.connection_security);
        let mut own = json!({
            "name": project.name,
            "service": {
                "target": format!("{}:{}", self.own_host(), server.port),
                "scheme": project.scheme_for(server.use_aio, &project.scheme),
            },
            "admin_server": server.name,
            "admin_port": server.admin_port.unwrap_or(server.port),
            "ssl_private_key": "server.key",
            "ssl_cert": "server.crt",
            "ssl_root_cert": "rootCA.pem",
            "connection_security": security,
        });
        put_identities(&mut own, server.auth_identity.as_ref(), &server.name, project.identity_map(None));
        let mut fed = self.fed();
        put(&mut fed, "servers", json!([own]));
        self.startup(folder, &server.name, "server", "fed_server.json", &fed)?;
        self.custom_ca(folder, server.custom_ca_cert.as_deref())?;
        self.script(folder, Script::server(project))?;

        let local = folder.join("local");
        write_json(&local.join("resources.json.default"), &with_allow_list(&template(SERVER_RESOURCES)))?;
        self.policies(folder)?;
        if let Some(listening) = &server.listening_host {
            write_json(&local.join("comm_config.json"), &comm_config(2, listening, &listening.scheme))?;
        }
        if project.studies.is_empty() {
            return Ok(());
        }
        let studies: Map<String, Value> = project.studies.iter().map(study).collect();
        let registry = json!({ "format_version": "1.0", "studies": studies });
        write_json(&local.join("study_registry.json"), &registry)
    }

    pub(crate) fn relay(&self, relay: &Relay, folder: &Path) -> Result<(), ProvisionError> {
        let project = self.project;
        let own_cell = project.cell_of_relay(relay);
        let mut fed = json!({
            "format_version": 2,
            "project_name": project.name,
            "identity": relay.name,
            "server_identity": project.server_identity(),
            "connect_to": uplink(&project.uplink(relay.connect_to.as_ref())),
        });
        let identities = project.identity_map(Some(&own_cell));
        put_identities(&mut fed, relay.auth_identity.as_ref(), &relay.name, identities);
        self.startup(folder, &relay.name, "client", "fed_relay.json", &fed)?;
        self.listener(folder, &relay.name)?;
        self.script(folder, Script::relay(project, relay))?;

        let local = folder.join("local");
        write_file(&local.join("log_config.json.default"), LOG_CONFIG.as_bytes(), 0o644)?;
        let listening = &relay.listening_host;
        let scheme = project.scheme_for(relay.use_aio, &listening.scheme);
        write_json(&local.join("comm_config.json"), &comm_config(1, listening, &scheme))
    }

    pub(crate) fn site(&self, site: &Site, folder: &Path) -> Result<(), ProvisionError> {
        let project = self.project;
        let (host, port) = project.server_target(site.connect_to.as_ref(), project.server.port);
        let mut client = json!({
            "ssl_private_key": "client.key",
            "ssl_cert": "client.crt",
            "ssl_root_cert": "rootCA.pem",
            "fqsn": project.path_of_site(site),
            "is_leaf": project.is_leaf(site),
            "connection_security": site.connection_security.unwrap_or(project.connection_security),
        });
        put_identities(&mut client, site.auth_identity.as_ref(), &site.name, project.identity_map(None));
        let mut fed = self.fed();
        let scheme = project.scheme_for(site.use_aio, &project.scheme);
        let server = json!({
            "name": project.name,
            "service": { "target": format!("{}:{port}", url_host(host)), "scheme": scheme },
            "identity": project.server_identity(),
        });
        put(&mut fed, "servers", json!([server]));
        put(&mut fed, "client", client);
        self.startup(folder, &site.name, "client", "fed_client.json", &fed)?;
        if site.listening_host.is_some() {
            self.listener(folder, &site.name)?;
        }
        self.custom_ca(folder, site.custom_ca_cert.as_deref())?;
        self.script(folder, Script::site(project, site))?;

        let local = folder.join("local");
        write_json(&local.join("resources.json.default"), &self.site_resources(site))?;
        self.policies(folder)?;
        let is_behind_relay = project.relay_of(site.connect_to.as_ref()).is_some();
        if is_behind_relay {
            let link = uplink(&project.uplink(site.connect_to.as_ref()));
            let relay = json!({ "format_version": 2, "relay_config": link });
            write_json(&local.join("relay__resources.json"), &relay)?;
        }
        if is_behind_relay || site.listening_host.is_some() {
            let any = ListeningHost::new("localhost");
            let listening = site.listening_host.as_ref().unwrap_or(&any);
            // Job processes of a site behind a relay reach the server through the site only.
            let generation = if is_behind_relay { 1 } else { 2 };
            let comm = comm_config(generation, listening, &listening.scheme);
            write_json(&local.join("comm_config.json"), &comm)?;
        }
        Ok(())
    }

    pub(crate) fn admin(&self, admin: &Admin, folder: &Path) -> Result<(), ProvisionError> {
        let (project, server) = (self.project, &self.project.server);
        let admin_port = server.admin_port.unwrap_or(server.port);
        let (host, port) = project.server_target(admin.connect_to.as_ref(), admin_port);
        let fed = json!({
            "format_version": 1,
            "admin": {
                "project_name": project.name,
                "username": admin.name,
                "server_identity": project.server_identity(),
                "scheme": project.scheme,
                "host": url_host(host),
                "port": port,
                "connection_security": admin.connection_security.unwrap_or(project.connection_security),
                "uid_source": "user_input",
                "with_file_transfer": true,
                "upload_dir": "transfer",
                "download_dir": "transfer",
                "client_key": "client.key",
                "client_cert": "client.crt",
                "ca_cert": "rootCA.pem",
            },
        });
        let resources = json!({
            "format_version": 1,
            "admin": {
                "idle_timeout": 900.0,
                "login_timeout": 10.0,
                "with_debug": false,
                "authenticate_msg_timeout": 2.0,
                "prompt": "> ",
            },
        });
        self.startup(folder, &admin.name, "client", "fed_admin.json", &fed)?;
        if project.runtime == Runtime::Nvflare {
            self.script(folder, Script::admin(project))?;
        }
        write_json(&folder.join("local/resources.json.default"), &resources)
    }

    /// What files of server and sites begin with.
    fn fed(&self) -> Value {
        let mut fed = json!({ "format_version": 2 });
        if let Some(required) = self.project.require_signed_jobs {
            put(&mut fed, "require_signed_jobs", required.into());
        }
        fed
    }

    /// The folders, the certificates and the key of a participant, and its main file.
    fn startup(
        &self,
        folder: &Path,
        name: &str,
        stem: &str,
        fed_name: &str,
        fed: &Value,
    ) -> Result<(), ProvisionError> {
        for sub in ["startup", "local", "transfer"] {
            make_folder(&folder.join(sub))?;
        }
        let startup = folder.join("startup");
        write_file(&startup.join("rootCA.pem"), self.root_pem.as_bytes(), 0o644)?;
        let credential = self.credentials.of.get(name).expect("every participant was given a credential");
        write_credential(&startup, stem, credential)?;
        write_json(&startup.join(fed_name), fed)
    }

    fn listener(&self, folder: &Path, name: &str) -> Result<(), ProvisionError> {
        let credential = self.credentials.of_listeners.get(name);
        let credential = credential.expect("everybody who listens was given a credential for it");
        write_credential(&folder.join("startup"), "server", credential)
    }

    fn custom_ca(&self, folder: &Path, own: Option<&Path>) -> Result<(), ProvisionError> {
        let Some(file) = own.or(self.project.custom_ca_cert.as_deref()) else { return Ok(()) };
        let bytes =
            fs::read(file).map_err(|source| ProvisionError::CustomCa { file: file.to_owned(), source })?;
        write_file(&folder.join("startup/customRootCA.pem"), &bytes, 0o644)
    }

    fn script(&self, folder: &Path, script: Script) -> Result<(), ProvisionError> {
        for (name, text) in script.files() {
            write_file(&folder.join("startup").join(name), text.as_bytes(), 0o755)?;
        }
        write_file(&folder.join("readme.txt"), script.readme().as_bytes(), 0o644)
    }

    fn site_resources(&self, site: &Site) -> Value {
        let mut resources = with_allow_list(&template(SITE_RESOURCES));
        let streaming = site.allow_log_streaming.unwrap_or(self.project.allow_log_streaming);
        put(&mut resources, "allow_log_streaming", streaming.into());
        let first = &mut resources["components"][0]["args"];
        put(first, "num_of_gpus", site.capacity.num_of_gpus.into());
        put(first, "mem_per_gpu_in_GiB", site.capacity.mem_per_gpu_in_gib.into());
        resources
    }

    /// What server and sites allow, by default.
    fn policies(&self, folder: &Path) -> Result<(), ProvisionError> {
        let local = folder.join("local");
        write_file(&local.join("authorization.json.default"), AUTHORIZATION.as_bytes(), 0o644)?;
        write_file(&local.join("privacy.json.sample"), PRIVACY.as_bytes(), 0o644)?;
        write_file(&local.join("log_config.json.default"), LOG_CONFIG.as_bytes(), 0o644)
    }

    /// What the server's own kit calls its host: its name; and where everybody dials loopback, that, so that
    /// it listens for nobody else.
    fn own_host(&self) -> String {
        let Server { name, host_names, .. } = &self.project.server;
        let host = self.project.server.default_host();
        let is_own = |host: &String| is_loopback(host) || host == name;
        if is_loopback(host) && host_names.iter().all(is_own) { url_host(host) } else { name.clone() }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn uplink(link: &Uplink) -> Value {
    let mut value = json!({
        "scheme": link.scheme,
        "identity": link.identity,
        "address": format!("{}:{}", url_host(&link.host), link.port),
        "fqcn": link.fqcn,
        "connection_security": link.connection_security,
    });
    put_identities(&mut value, Some(&link.auth_identity), &link.identity, Map::new());
    value
}

/// `auth_identity` if it is not the name, `auth_identity_map` if there is something in it.
fn put_identities(value: &mut Value, identity: Option<&String>, name: &str, map: Map<String, Value>) {
    if let Some(identity) = identity.filter(|identity| *identity != name) {
        put(value, "auth_identity", identity.as_str().into());
    }
    if !map.is_empty() {
        put(value, "auth_identity_map", map.into());
    }
}

fn comm_config(generation: u8, listening: &ListeningHost, scheme: &str) -> Value {
    let mut resources = json!({ "host": url_host(&listening.default_host) });
    if let Some(port) = listening.port {
        put(&mut resources, "port", port.into());
    }
    put(&mut resources, "connection_security", json!(listening.connection_security));
    json!({
        "allow_adhoc_conns": false,
        "backbone_conn_gen": generation,
        "internal": { "scheme": scheme, "resources": resources },
    })
}

fn study(study: &crate::Study) -> (String, Value) {
    let members = study.members.as_ref().map_or(json!({}), |members| {
        let orgs: Map<String, Value> =
            members.site_orgs.iter().map(|(org, sites)| (org.clone(), json!(sites))).collect();
        json!({ "site_orgs": orgs, "admins": members.admins })
    });
    (study.name.clone(), members)
}

fn template(text: &str) -> Value {
    serde_json::from_str(text).expect("the template is JSON")
}

/// The resources of a parent process, with the classes that it lets jobs use.
fn with_allow_list(own: &Value) -> Value {
    let mut resources = json!({
        "format_version": 2,
        "class_list_enforcement_mode": "enforce",
        "class_allow_list": template(CLASS_ALLOW_LIST),
    });
    for (key, value) in own.as_object().into_iter().flatten() {
        put(&mut resources, key, value.clone());
    }
    resources
}

fn put(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

/// A literal IPv6 address goes in brackets.
fn url_host(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn write_credential(startup: &Path, stem: &str, credential: &Credential) -> Result<(), ProvisionError> {
    write_file(&startup.join(format!("{stem}.crt")), credential.cert.as_bytes(), 0o644)?;
    write_file(&startup.join(format!("{stem}.key")), credential.pri_key.as_bytes(), 0o600)
}

fn write_json(file: &Path, value: &Value) -> Result<(), ProvisionError> {
    write_file(file, format!("{value:#}\n").as_bytes(), 0o644)
}
