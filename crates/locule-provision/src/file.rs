//! nvflare's project file, read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use locule_config::{Diagnostic, Diagnostics, Document, Node, NodeKind};

use crate::fields::Fields;
use crate::{
    Admin, Capacity, ConnectTo, ConnectionSecurity, ListeningHost, Part, Project, Relay, Site, Study,
    StudyMembers,
};

/// A project file, read and checked.
///
/// # Source
/// nvflare 2.9.0, `nvflare.lighter.provision` and `nvflare.lighter.entity`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProjectFile {
    /// What it says.
    pub project: Project,
    /// What is probably not meant, and what has no effect.
    pub warnings: Diagnostics,
}

/// Why a project file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// It is not text.
    #[error("{} is not UTF-8 text", file.display())]
    NotText {
        /// The file.
        file: PathBuf,
    },
    /// Mistakes in it, all of them, and warnings.
    #[error("mistakes in {}\n\n{mistakes}", file.display())]
    Mistakes {
        /// The file.
        file: PathBuf,
        /// The mistakes, with their places.
        mistakes: Diagnostics,
    },
}

/// Codes of mistakes in project files, and of warnings.
pub mod code {
    /// A field that has to be there is not.
    pub const MISSING_FIELD: &str = "E0701";
    /// A field has a value that it cannot have.
    pub const BAD_FIELD: &str = "E0702";
    /// Something of nvflare that is not done here.
    pub const UNSUPPORTED: &str = "E0703";
    /// A key that means nothing.
    pub const UNKNOWN_KEY: &str = "W0701";
    /// Something that has no effect.
    pub const NO_EFFECT: &str = "W0702";
    /// A value that is probably not meant.
    pub const DOUBTFUL: &str = "W0703";
}

impl ProjectFile {
    /// Reads and checks the project file `path`.
    ///
    /// # Errors
    /// [`ReadError`]; all mistakes are reported at once.
    pub fn read(path: &Path) -> Result<ProjectFile, ReadError> {
        let file = path.to_owned();
        let bytes = fs::read(path).map_err(|source| ReadError::Read { file: file.clone(), source })?;
        let text = String::from_utf8(bytes).map_err(|_| ReadError::NotText { file: file.clone() })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        ProjectFile::parse(&path.display().to_string(), &text, folder)
            .map_err(|mistakes| ReadError::Mistakes { file, mistakes })
    }

    /// Reads and checks the text of a project file; `name` is how it is called in messages. Names of files
    /// in it are taken from `folder`. A project without builders has its links carried by gRPC.
    ///
    /// # Errors
    /// All mistakes, and the warnings among them.
    pub fn parse(name: &str, text: &str, folder: &Path) -> Result<ProjectFile, Diagnostics> {
        let document = Document::parse_yaml(name, text)?;
        let mut fields = Fields::new(document.root());
        let project = project(&mut fields, document.root(), folder);
        let warnings = fields.finish(&project)?;
        Ok(ProjectFile { project, warnings })
    }
}

fn project<'n>(fields: &mut Fields<'n>, root: &'n Node, folder: &Path) -> Project {
    fields.begin(Part::Project, root);
    fields.refuse(root, "include", "write everything into this file");
    fields.refuse(root, "edge", "provision with `nvflare provision`");
    fields.no_effect(root, "packager", "kits are folders");
    let known = [
        "api_version",
        "name",
        "description",
        "participants",
        "builders",
        "studies",
        "connection_security",
        "custom_ca_cert",
        "allow_log_streaming",
        "packager",
        "include",
        "edge",
    ];
    fields.check_keys(root, &known, "a project");
    let version = fields.api_version(root);
    let mut project = Project::new(fields.project_name(root), "", "");
    project.connection_security = fields.security(root, "connection_security").unwrap_or_default();
    project.custom_ca_cert = fields.file(root, "custom_ca_cert", folder);
    project.allow_log_streaming = fields.flag(root, "allow_log_streaming").unwrap_or(true);
    builders(fields, root, &mut project);
    participants(fields, root, folder, &mut project);
    fields.begin(Part::Project, root);
    studies(fields, root, version, &mut project);
    project
}

fn participants<'n>(fields: &mut Fields<'n>, root: &'n Node, folder: &Path, project: &mut Project) {
    let Some(list) = root.get("participants").filter(|list| list.kind() == NodeKind::List) else {
        fields.mistake_in(root, "participants", "a project needs `participants`, a list");
        return fields.forget(Part::Server);
    };
    let mut server: Option<&Node> = None;
    for node in list.items() {
        if node.kind() != NodeKind::Object {
            fields.push(Diagnostic::at(node, code::BAD_FIELD, "a participant must be an object"));
            continue;
        }
        match node.get("type").and_then(Node::as_str) {
            Some("server") if server.is_some() => {
                let mistake =
                    Diagnostic::at(node, code::BAD_FIELD, "a project has one server, and this is a second");
                fields.push(match server {
                    Some(first) => mistake.related(first, "the first"),
                    None => mistake,
                });
            }
            Some("server") => {
                server = Some(node);
                fields.begin(Part::Server, node);
                read_server(fields, node, folder, project);
            }
            Some("relay") => {
                fields.begin(Part::Relay(project.relays.len()), node);
                let relay = read_relay(fields, node);
                project.relays.push(relay);
            }
            Some("client") => {
                fields.begin(Part::Site(project.sites.len()), node);
                let site = read_site(fields, node, folder);
                project.sites.push(site);
            }
            Some("admin") => {
                fields.begin(Part::Admin(project.admins.len()), node);
                let admin = read_admin(fields, node);
                project.admins.push(admin);
            }
            Some("overseer") => {
                let message = "overseers are no more: this participant is left out";
                fields.push(Diagnostic::at(node, code::NO_EFFECT, message).warning());
            }
            Some(_) | None => fields.unknown_type(node),
        }
    }
    if server.is_none() {
        fields.mistake_in(root, "participants", "a project needs a participant of type server");
        fields.forget(Part::Server);
    }
    // A site may name the server as its parent, which is to have none.
    for site in &mut project.sites {
        site.parent = site.parent.take().filter(|parent| *parent != project.server.name);
    }
}

fn read_server<'n>(fields: &mut Fields<'n>, node: &'n Node, folder: &Path, project: &mut Project) {
    const KNOWN: [&str; 15] = [
        "name",
        "type",
        "org",
        "description",
        "fed_learn_port",
        "admin_port",
        "default_host",
        "host_names",
        "connection_security",
        "auth_identity",
        "listening_host",
        "custom_ca_cert",
        "use_aio",
        "cc_config",
        "cc_enabled",
    ];
    fields.check_keys(node, &KNOWN, "a server");
    fields.refuse_confidential(node);
    let server = &mut project.server;
    server.name = fields.required(node, "name");
    server.org = fields.required(node, "org");
    server.host = fields.text(node, "default_host");
    server.host_names = fields.texts(node, "host_names");
    server.port = fields.port(node, "fed_learn_port").unwrap_or(server.port);
    server.admin_port = fields.port(node, "admin_port");
    server.connection_security = fields.security(node, "connection_security");
    server.auth_identity = fields.text(node, "auth_identity");
    let own = server.host.clone().unwrap_or_else(|| server.name.clone());
    server.listening_host = listening_host(fields, node, &own);
    server.custom_ca_cert = fields.file(node, "custom_ca_cert", folder);
    server.use_aio = fields.flag(node, "use_aio").unwrap_or(false);
    fields.shorten_server(node, server);
}

fn read_relay<'n>(fields: &mut Fields<'n>, node: &'n Node) -> Relay {
    const KNOWN: [&str; 10] = [
        "name",
        "type",
        "org",
        "description",
        "listening_host",
        "connect_to",
        "auth_identity",
        "use_aio",
        "connection_security",
        "custom_ca_cert",
    ];
    fields.check_keys(node, &KNOWN, "a relay");
    let own = "`listening_host` and `connect_to` say it for a relay's links";
    fields.no_effect(node, "connection_security", own);
    fields.no_effect(node, "custom_ca_cert", "a relay knows the root of its project only");
    let listening = listening_host(fields, node, "localhost");
    if node.get("listening_host").is_none() {
        fields.mistake_in(node, "listening_host", "a relay needs a `listening_host`, with a port");
    }
    let listening = listening.unwrap_or_else(|| ListeningHost::new("localhost"));
    let mut relay = Relay::new(fields.required(node, "name"), fields.required(node, "org"), listening);
    relay.connect_to = connect_to(fields, node);
    relay.auth_identity = fields.text(node, "auth_identity");
    relay.use_aio = fields.flag(node, "use_aio").unwrap_or(false);
    relay
}

fn read_site<'n>(fields: &mut Fields<'n>, node: &'n Node, folder: &Path) -> Site {
    const KNOWN: [&str; 15] = [
        "name",
        "type",
        "org",
        "description",
        "connect_to",
        "listening_host",
        "parent",
        "capacity",
        "allow_log_streaming",
        "connection_security",
        "auth_identity",
        "custom_ca_cert",
        "use_aio",
        "cc_config",
        "cc_enabled",
    ];
    fields.check_keys(node, &KNOWN, "a client");
    fields.refuse_confidential(node);
    let mut site = Site::new(fields.required(node, "name"), fields.required(node, "org"));
    site.connect_to = connect_to(fields, node);
    site.listening_host = listening_host(fields, node, "localhost");
    site.parent = fields.text(node, "parent");
    if let Some(capacity) = fields.object(node, "capacity") {
        fields.check_keys(capacity, &["num_of_gpus", "mem_per_gpu_in_GiB"], "a capacity");
        site.capacity = Capacity {
            num_of_gpus: fields.count(capacity, "capacity.num_of_gpus").unwrap_or(0),
            mem_per_gpu_in_gib: fields.count(capacity, "capacity.mem_per_gpu_in_GiB").unwrap_or(0),
        };
    }
    site.allow_log_streaming = fields.flag(node, "allow_log_streaming");
    site.connection_security = fields.security(node, "connection_security");
    site.auth_identity = fields.text(node, "auth_identity");
    site.custom_ca_cert = fields.file(node, "custom_ca_cert", folder);
    site.use_aio = fields.flag(node, "use_aio").unwrap_or(false);
    site
}

fn read_admin<'n>(fields: &mut Fields<'n>, node: &'n Node) -> Admin {
    const KNOWN: [&str; 7] =
        ["name", "type", "org", "description", "role", "connect_to", "connection_security"];
    fields.check_keys(node, &KNOWN, "an administrator");
    let (name, org) = (fields.required(node, "name"), fields.required(node, "org"));
    let mut admin = Admin::new(name, org, fields.required(node, "role"));
    admin.connect_to = connect_to(fields, node);
    admin.connection_security = fields.security(node, "connection_security");
    admin
}

fn connect_to<'n>(fields: &mut Fields<'n>, node: &'n Node) -> Option<ConnectTo> {
    // A host alone is the old form.
    if node.get("connect_to").is_some_and(|to| to.kind() == NodeKind::Text) {
        return Some(ConnectTo { host: fields.text(node, "connect_to"), ..ConnectTo::default() });
    }
    let to = fields.object(node, "connect_to")?;
    fields.check_keys(
        to,
        &["name", "host", "port", "connection_security", "auth_identity"],
        "a `connect_to`",
    );
    Some(ConnectTo {
        name: fields.text(to, "connect_to.name"),
        host: fields.text(to, "connect_to.host"),
        port: fields.port(to, "connect_to.port"),
        connection_security: fields.security(to, "connect_to.connection_security"),
        auth_identity: fields.text(to, "connect_to.auth_identity"),
    })
}

fn listening_host<'n>(fields: &mut Fields<'n>, node: &'n Node, default_host: &str) -> Option<ListeningHost> {
    // A host alone is the old form.
    if node.get("listening_host").is_some_and(|host| host.kind() == NodeKind::Text) {
        return fields.text(node, "listening_host").map(ListeningHost::new);
    }
    let host = fields.object(node, "listening_host")?;
    let known = ["default_host", "host_names", "scheme", "port", "connection_security"];
    fields.check_keys(host, &known, "a `listening_host`");
    let own = fields.text(host, "listening_host.default_host");
    let mut listening = ListeningHost::new(own.unwrap_or_else(|| default_host.to_owned()));
    listening.host_names = fields.texts(host, "listening_host.host_names");
    listening.scheme = fields.text(host, "listening_host.scheme").unwrap_or(listening.scheme);
    // 0 is any port, as if it were not there.
    let any = host.get("port").and_then(Node::as_u64) == Some(0);
    listening.port = if any { None } else { fields.port(host, "listening_host.port") };
    let security = fields.security(host, "listening_host.connection_security");
    listening.connection_security = security.unwrap_or(ConnectionSecurity::Clear);
    Some(listening)
}

fn builders<'n>(fields: &mut Fields<'n>, root: &'n Node, project: &mut Project) {
    let Some(list) = root.get("builders").filter(|list| !list.is_null()) else { return };
    if list.kind() != NodeKind::List {
        return fields.mistake_in(root, "builders", "`builders` must be a list");
    }
    const OURS: [&str; 5] =
        ["WorkspaceBuilder", "TemplateBuilder", "StaticFileBuilder", "CertBuilder", "SignatureBuilder"];
    for node in list.items() {
        fields.check_keys(node, &["path", "args"], "a builder");
        let path = fields.required(node, "path");
        let Some((module, class)) = path.rsplit_once('.') else {
            fields.unknown_builder(node, &OURS);
            continue;
        };
        let args = fields.object(node, "args");
        match class {
            _ if !module.starts_with("nvflare.lighter.") => fields.unknown_builder(node, &OURS),
            "WorkspaceBuilder" | "TemplateBuilder" | "SignatureBuilder" => {}
            "CertBuilder" => {
                let Some(args) = args else { continue };
                fields.check_keys(args, &["root_valid_days"], "this builder");
                project.valid_days = fields.count(args, "root_valid_days").unwrap_or(project.valid_days);
            }
            "StaticFileBuilder" => {
                // What nvflare takes where none is named.
                project.scheme = "http".to_owned();
                if let Some(args) = args {
                    static_files(fields, args, project);
                }
            }
            _ => fields.unknown_builder(node, &OURS),
        }
    }
}

fn static_files<'n>(fields: &mut Fields<'n>, args: &'n Node, project: &mut Project) {
    const KNOWN: [&str; 7] = [
        "config_folder",
        "scheme",
        "app_validator",
        "download_job_url",
        "docker_image",
        "overseer_agent",
        "require_signed_jobs",
    ];
    fields.check_keys(args, &KNOWN, "this builder");
    fields.no_effect(args, "overseer_agent", "overseers are no more");
    fields.no_effect(args, "app_validator", "nvflare 2.9 writes it into no kit either");
    fields.no_effect(args, "download_job_url", "nvflare 2.9 writes it into no kit either");
    if let Some(scheme) = fields.text(args, "scheme") {
        project.scheme = scheme.trim().to_lowercase();
    }
    if let Some(folder) = fields.text(args, "config_folder") {
        project.config_folder = folder;
    }
    project.docker_image = fields.text(args, "docker_image");
    project.require_signed_jobs = fields.flag(args, "require_signed_jobs");
}

fn studies<'n>(fields: &mut Fields<'n>, root: &'n Node, version: Option<u64>, project: &mut Project) {
    let Some(studies) = fields.object(root, "studies") else { return };
    if version == Some(3) {
        fields.mistake_in(root, "studies", "`studies` need `api_version: 4`");
    }
    for (name, node) in studies.entries() {
        fields.begin(Part::Study(project.studies.len()), node);
        let mut members = None;
        if !node.is_null() {
            fields.check_keys(node, &["site_orgs", "admins"], "a study");
            let mut of = StudyMembers { site_orgs: Vec::new(), admins: Vec::new() };
            if let Some(orgs) = fields.object(node, "site_orgs") {
                for (org, sites) in orgs.entries() {
                    of.site_orgs.push((org.to_owned(), fields.texts_of(sites)));
                }
            }
            for admin in fields.texts(node, "admins") {
                if !of.admins.contains(&admin) {
                    of.admins.push(admin);
                }
            }
            members = Some(of);
        }
        project.studies.push(Study { name: name.to_owned(), members });
    }
}
