//! The files of a kit.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::ledger::Credential;
use crate::{Admin, Project, ProvisionError, Server, Site, make_folder, write_file};

/// Classes that a site lets jobs without code of their own use: those of nvflare 2.9.0 and ours.
const CLASS_ALLOW_LIST: &str = include_str!("../templates/class_allow_list.json");
const AUTHORIZATION: &str = include_str!("../templates/authorization.json");
/// For stock processes, which do not start without one.
const LOG_CONFIG: &str = include_str!("../templates/log_config.json");
const START: &str = include_str!("../templates/start.sh");
const SUB_START: &str = include_str!("../templates/sub_start.sh");
const STOP: &str = include_str!("../templates/stop_fl.sh");

/// Writes kits of one project.
pub(crate) struct KitWriter<'a> {
    pub(crate) project: &'a Project,
    pub(crate) root_pem: &'a str,
    pub(crate) credentials: &'a BTreeMap<String, Credential>,
}

impl KitWriter<'_> {
    pub(crate) fn server(&self, folder: &Path) -> Result<(), ProvisionError> {
        let server = &self.project.server;
        let fed = json!({
            "format_version": 2,
            "servers": [{
                "name": self.project.name,
                "service": { "target": format!("{}:{}", own_host(server), server.port), "scheme": self.project.scheme },
                "admin_server": server.name,
                "admin_port": server.admin_port.unwrap_or(server.port),
                "ssl_private_key": "server.key",
                "ssl_cert": "server.crt",
                "ssl_root_cert": "rootCA.pem",
                "connection_security": self.project.connection_security,
            }],
        });
        let resources = json!({
            "servers": [{
                "admin_storage": "transfer",
                "max_num_clients": 100,
                "heart_beat_timeout": 600,
                "download_job_url": "http://download.server.com/",
                "admin_timeout": 10.0,
            }],
        });
        self.startup(folder, &server.name, "server", "fed_server.json", &fed)?;
        self.scripts(folder, "server")?;
        self.daemon_local(folder, resources)
    }

    pub(crate) fn site(&self, site: &Site, folder: &Path) -> Result<(), ProvisionError> {
        let server = &self.project.server;
        let fed = json!({
            "format_version": 2,
            "servers": [{
                "name": self.project.name,
                "service": {
                    "target": format!("{}:{}", url_host(server.default_host()), server.port),
                    "scheme": self.project.scheme,
                },
                "identity": server.name,
            }],
            "client": {
                "ssl_private_key": "client.key",
                "ssl_cert": "client.crt",
                "ssl_root_cert": "rootCA.pem",
                "fqsn": site.name,
                "is_leaf": true,
                "connection_security": self.project.connection_security,
            },
        });
        // The components are for stock processes, which do not run a job without them.
        let resources = json!({
            "allow_log_streaming": true,
            "client": { "retry_timeout": 30, "compression": "Gzip" },
            "components": [
                {
                    "id": "resource_manager",
                    "path": "nvflare.app_common.resource_managers.gpu_resource_manager.GPUResourceManager",
                    "args": { "num_of_gpus": 0, "mem_per_gpu_in_GiB": 0, "expiration_period": 300 },
                },
                {
                    "id": "resource_consumer",
                    "path": "nvflare.app_common.resource_consumers.gpu_resource_consumer.GPUResourceConsumer",
                    "args": {},
                },
                {
                    "id": "process_launcher",
                    "path": "nvflare.app_common.job_launcher.client_process_launcher.ClientProcessJobLauncher",
                    "args": {},
                },
            ],
        });
        self.startup(folder, &site.name, "client", "fed_client.json", &fed)?;
        self.scripts(folder, "site")?;
        self.daemon_local(folder, resources)
    }

    pub(crate) fn admin(&self, admin: &Admin, folder: &Path) -> Result<(), ProvisionError> {
        let server = &self.project.server;
        let fed = json!({
            "format_version": 1,
            "admin": {
                "project_name": self.project.name,
                "username": admin.name,
                "server_identity": server.name,
                "scheme": self.project.scheme,
                "host": url_host(server.default_host()),
                "port": server.admin_port.unwrap_or(server.port),
                "connection_security": self.project.connection_security,
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
        write_json(&folder.join("local/resources.json.default"), &resources)
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
        let credential = self.credentials.get(name).expect("every participant was given a credential");
        write_file(&startup.join("rootCA.pem"), self.root_pem.as_bytes(), 0o644)?;
        write_file(&startup.join(format!("{stem}.crt")), credential.cert.as_bytes(), 0o644)?;
        write_file(&startup.join(format!("{stem}.key")), credential.pri_key.as_bytes(), 0o600)?;
        write_json(&startup.join(fed_name), fed)
    }

    fn scripts(&self, folder: &Path, role: &str) -> Result<(), ProvisionError> {
        let startup = folder.join("startup");
        write_file(&startup.join("start.sh"), START.as_bytes(), 0o755)?;
        write_file(&startup.join("sub_start.sh"), SUB_START.replace("@ROLE@", role).as_bytes(), 0o755)?;
        write_file(&startup.join("stop_fl.sh"), STOP.as_bytes(), 0o755)?;
        let readme = format!(
            "Startup kit of a {role} in the project {}.\n\n\
             Run startup/start.sh to start it, startup/stop_fl.sh to end it. The program is called `locule`;\n\
             the variable LOCULE names it if it is not on the PATH.\n\n\
             Keep the private key in startup to yourself: whoever has it is this {role}. To change a setting,\n\
             copy local/resources.json.default to local/resources.json and edit the copy.\n",
            self.project.name
        );
        write_file(&folder.join("readme.txt"), readme.as_bytes(), 0o644)
    }

    /// What a parent process reads beside its own settings, which are `own`.
    fn daemon_local(&self, folder: &Path, own: Value) -> Result<(), ProvisionError> {
        let allowed: Value = serde_json::from_str(CLASS_ALLOW_LIST).expect("the template is JSON");
        let mut resources = Map::new();
        resources.insert("format_version".into(), 2.into());
        resources.insert("class_list_enforcement_mode".into(), "enforce".into());
        resources.insert("class_allow_list".into(), allowed);
        resources.extend(own.as_object().cloned().unwrap_or_default());
        let local = folder.join("local");
        write_json(&local.join("resources.json.default"), &Value::Object(resources))?;
        write_file(&local.join("authorization.json.default"), AUTHORIZATION.as_bytes(), 0o644)?;
        write_file(&local.join("log_config.json.default"), LOG_CONFIG.as_bytes(), 0o644)
    }
}

/// What the server's own kit calls its host: its name, and where sites dial loopback, that, so that it
/// listens for nobody else.
fn own_host(server: &Server) -> String {
    let host = server.default_host();
    let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if is_loopback { url_host(host) } else { server.name.clone() }
}

/// A literal IPv6 address goes in brackets.
fn url_host(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn write_json(file: &Path, value: &Value) -> Result<(), ProvisionError> {
    write_file(file, format!("{value:#}\n").as_bytes(), 0o644)
}
