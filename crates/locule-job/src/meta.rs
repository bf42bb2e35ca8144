//! What a job says about itself in its `meta.json`.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use locule_config::{Diagnostic, Diagnostics, Document, Node, NodeKind};
use serde_json::{Map, Value};

use crate::code;

/// The word in a deploy map for the server and every site.
const ALL_SITES: &str = "@ALL";

/// The name of the server in a deploy map.
const SERVER: &str = "server";

/// Where a resource spec says what holds for every site.
const DEFAULT_RESOURCES: &str = "@default";

/// The ways to launch a job, by which a resource spec may be divided.
const LAUNCHERS: [&str; 4] = ["docker", "k8s", "process", "slurm"];

/// Most clients a job may ask for.
const MAX_CLIENTS: i64 = 1_000_000;

/// What a job's priority may be.
const PRIORITIES: RangeInclusive<i64> = -100..=100;

/// A job's meta that makes sense in itself.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.fed.server.job_meta_validator`, messages included.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct JobMeta {
    /// The job's name; that of its folder if the meta has none.
    pub name: String,
    /// Each app, in the order written, and where it goes.
    pub deploy_map: Vec<(String, DeployTo)>,
    /// With fewer clients the job does not run; at least 1.
    pub min_clients: Option<usize>,
    /// Without these clients the job does not run.
    pub mandatory_clients: Vec<String>,
    /// Jobs of a higher priority begin first: from -100 to 100, 0 unless the meta says otherwise. Ours; nvflare knows
    /// none.
    pub priority: i64,
    /// By site: what the job wants to be reserved there.
    pub resource_spec: Map<String, Value>,
    /// By site, or `default`: how the job wants to be launched.
    pub launcher_spec: Map<String, Value>,
    /// All that was written, whether this crate knows it or not; but not `byoc`, which is derived from
    /// the content and never believed.
    pub document: Map<String, Value>,
}

/// Where an app goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeployTo {
    /// To the server and every site.
    All,
    /// To these; the server is called `server`.
    Listed(Vec<String>),
}

impl DeployTo {
    /// Whether the app goes to the server.
    pub fn has_server(&self) -> bool {
        self.has(SERVER)
    }

    /// Whether the app goes to any site.
    pub fn has_sites(&self) -> bool {
        match self {
            DeployTo::All => true,
            DeployTo::Listed(names) => names.iter().any(|name| name != SERVER),
        }
    }

    fn has(&self, participant: &str) -> bool {
        match self {
            DeployTo::All => true,
            DeployTo::Listed(names) => names.iter().any(|name| name == participant),
        }
    }
}

impl JobMeta {
    /// Reads the meta of the job in the folder `job`.
    ///
    /// # Errors
    /// All mistakes, each with its place. The texts are those of the stock server.
    pub fn from_document(document: &Document, job: &str) -> Result<JobMeta, Diagnostics> {
        let mut mistakes = Diagnostics::new();
        let root = document.root();
        let deploy_map = deploy_map(root, job, &mut mistakes);
        let clients = listed_clients(&deploy_map);
        let mut written = object(root);
        written.remove("byoc");
        let meta = JobMeta {
            name: name(root, job, &mut mistakes),
            min_clients: min_clients(root, job, clients.as_deref(), &mut mistakes),
            mandatory_clients: mandatory_clients(root, job, clients.as_deref(), &mut mistakes),
            priority: priority(root, job, &mut mistakes),
            resource_spec: resource_spec(root, job, &mut mistakes),
            launcher_spec: launcher_spec(root, job, &mut mistakes),
            deploy_map,
            document: written,
        };
        if mistakes.is_empty() { Ok(meta) } else { Err(mistakes) }
    }

    /// The app that goes to a participant; the server is called `server`.
    pub fn app_of(&self, participant: &str) -> Option<&str> {
        self.deploy_map.iter().find(|(_, to)| to.has(participant)).map(|(app, _)| app.as_str())
    }

    /// The sites of the deploy map, or `None` if the job goes to every site there is.
    pub fn clients(&self) -> Option<Vec<&str>> {
        let clients = listed_clients(&self.deploy_map)?;
        Some(clients.into_iter().map(|name| name.as_str()).collect())
    }

    /// What the job wants to be reserved at `site`: what it says for `@default` and then for that site, without what
    /// only launchers look at.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.utils.job_launcher_utils` (`get_resource_manager_spec`).
    pub fn resources_of(&self, site: &str) -> Map<String, Value> {
        let object = |name: &str| self.resource_spec.get(name).and_then(Value::as_object);
        let default = object(DEFAULT_RESOURCES);
        let own = object(site).cloned().unwrap_or_default();
        let by_mode = LAUNCHERS.iter().any(|mode| own.contains_key(*mode));
        let own = if by_mode {
            own.get("process").and_then(Value::as_object).cloned().unwrap_or_default()
        } else {
            own
        };
        let mut wanted = default.cloned().unwrap_or_default();
        wanted.extend(own);
        if default.is_some() || !by_mode {
            wanted.retain(|name, _| name != "num_of_cpus" && name != "memory");
        }
        if wanted.get("num_of_gpus").and_then(Value::as_f64) == Some(0.0) {
            wanted.retain(|name, _| name != "num_of_gpus" && name != "mem_per_gpu_in_GiB");
        }
        wanted
    }

    /// Whether the job would have `site` run an image, Python or command of the job's choice, which is
    /// as good as custom code.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.private.fed.utils.app_authz` (`derive_local_app_info`).
    pub fn brings_own_runtime(&self, site: &str) -> bool {
        const CHOICES: [(&str, &[&str]); 3] = [
            ("docker", &["image", "python_path", "entrypoint"]),
            ("k8s", &["image", "python_path"]),
            ("slurm", &["image", "python_path", "additional_node_command"]),
        ];
        CHOICES.iter().any(|(mode, keys)| {
            let of = |spec: &Map<String, Value>, who: &str| {
                let spec = spec.get(who).and_then(|of_site| of_site.get(mode)).and_then(Value::as_object);
                spec.is_some_and(|spec| keys.iter().any(|key| spec.get(*key).is_some_and(|v| !v.is_null())))
            };
            of(&self.launcher_spec, "default")
                || of(&self.launcher_spec, site)
                || of(&self.resource_spec, site)
        })
    }

    /// The meta as it is stored and sent, with `byoc` as derived from the content.
    pub fn to_json(&self, byoc: bool) -> Value {
        let mut document = self.document.clone();
        if byoc {
            document.insert("byoc".into(), true.into());
        }
        Value::Object(document)
    }
}

/// The sites named in a deploy map, each once, sorted; `None` if it is for all.
fn listed_clients(deploy_map: &[(String, DeployTo)]) -> Option<Vec<&String>> {
    let mut clients = Vec::new();
    for (_, to) in deploy_map {
        match to {
            DeployTo::All => return None,
            DeployTo::Listed(names) => clients.extend(names.iter().filter(|name| *name != SERVER)),
        }
    }
    clients.sort();
    clients.dedup();
    Some(clients)
}

/// Longest name of a job, in characters.
const LONGEST_NAME: usize = 255;

fn name(root: &Node, job: &str, mistakes: &mut Diagnostics) -> String {
    let Some(node) = root.get("name") else { return job.to_owned() };
    let mistake = match node.as_str() {
        None | Some("") => "must be a text",
        Some(name) if name.chars().count() > LONGEST_NAME => "must have at most 255 characters",
        Some(name) if name.chars().any(is_invisible) => "must not hold control characters",
        Some(name) => return name.to_owned(),
    };
    mistakes.push(Diagnostic::at(node, code::FIELD, format!("name {mistake} for job {job}")));
    job.to_owned()
}

/// What would move the cursor of whoever looks at it, or turn the text around.
fn is_invisible(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn deploy_map(root: &Node, job: &str, mistakes: &mut Diagnostics) -> Vec<(String, DeployTo)> {
    let mut wrong = |node: &Node, message: String| {
        mistakes.push(Diagnostic::at(node, code::DEPLOY_MAP, message));
    };
    let Some(map) = root.get("deploy_map").filter(|map| !is_falsy(map)) else {
        wrong(root.get("deploy_map").unwrap_or(root), format!("deploy_map is empty for job {job}"));
        return Vec::new();
    };
    if map.kind() != NodeKind::Object {
        wrong(map, format!("deploy_map must be a dictionary for job {job}"));
        return Vec::new();
    }
    let mut apps = Vec::new();
    let mut all = Vec::new();
    for (app, node) in map.entries() {
        if !is_plain_name(app) {
            wrong(node, format!("invalid job app name '{app}' in deploy_map for job {job}"));
        }
        let sites = participants(node, job, &mut wrong);
        all.extend(sites.clone());
        let everybody = sites.iter().any(|site| is_all_sites(site));
        apps.push((app.to_owned(), if everybody { DeployTo::All } else { DeployTo::Listed(sites) }));
    }
    if all.is_empty() {
        wrong(map, format!("No site is specified in deploy_map for job {job}"));
    } else if all.iter().any(|site| is_all_sites(site)) {
        if all.len() > 1 {
            wrong(map, format!("No other site can be specified if {ALL_SITES} is used for job {job}"));
        }
    } else if !all.iter().any(|site| site == SERVER) {
        wrong(map, format!("Missing server site in deploy_map for job {job}"));
    } else {
        let twice = repeated(&all);
        if !twice.is_empty() {
            let names = quoted(&twice);
            wrong(map, format!("Multiple apps to be deployed to following sites [{names}] for job {job}"));
        }
    }
    apps
}

/// The sites of one entry: a name, a list of names and objects, or an object `{sites|targets: [...]}`.
fn participants(entry: &Node, job: &str, wrong: &mut impl FnMut(&Node, String)) -> Vec<String> {
    let items: &[Node] = match entry.kind() {
        NodeKind::List => entry.items(),
        NodeKind::Text | NodeKind::Object => std::slice::from_ref(entry),
        NodeKind::Null | NodeKind::Bool | NodeKind::Number => {
            wrong(entry, format!("participants must be list/str/dict in deploy_map for job {job}"));
            &[]
        }
    };
    let mut sites = Vec::new();
    for item in items {
        if let Some(site) = item.as_str() {
            sites.push(site.to_owned());
            continue;
        }
        let unknown: Vec<String> = item
            .entries()
            .filter(|(key, _)| !["sites", "targets"].contains(key))
            .map(|(key, _)| key.to_owned())
            .collect();
        if !unknown.is_empty() {
            let keys = quoted(&unknown);
            let valid = "Valid keys are: ['sites', 'targets']";
            wrong(item, format!("Unknown keys {{{keys}}} in deploy_map entry for job {job}. {valid}"));
            continue;
        }
        match item.get("sites").or_else(|| item.get("targets")).filter(|list| list.kind() == NodeKind::List) {
            Some(list) => {
                for site in list.items() {
                    match site.as_str() {
                        Some(site) => sites.push(site.to_owned()),
                        None => wrong(site, format!("a site must be a text in deploy_map for job {job}")),
                    }
                }
            }
            None => wrong(
                item,
                format!(
                    "site list must be list in deploy_map entry for job {job}: expected 'targets' or 'sites'"
                ),
            ),
        }
    }
    sites
}

fn min_clients(
    root: &Node,
    job: &str,
    clients: Option<&[&String]>,
    mistakes: &mut Diagnostics,
) -> Option<usize> {
    let node = root.get("min_clients").filter(|node| !node.is_null())?;
    let number = node.as_i64().or_else(|| node.as_str()?.trim().parse().ok());
    let message = match (number, clients) {
        (None, _) => format!("min_clients must be a whole number for job {job}"),
        (Some(number), _) if number <= 0 => format!("min_clients {number} must be positive for job {job}"),
        (Some(number), _) if number > MAX_CLIENTS => {
            format!("min_clients {number} must be less than {MAX_CLIENTS} for job {job}")
        }
        (Some(number), Some(clients)) if usize::try_from(number).is_ok_and(|min| clients.len() < min) => {
            format!("min {number} clients required for job {job}, found {}.", clients.len())
        }
        (Some(number), _) => return usize::try_from(number).ok(),
    };
    mistakes.push(Diagnostic::at(node, code::CLIENTS, message));
    None
}

fn mandatory_clients(
    root: &Node,
    job: &str,
    clients: Option<&[&String]>,
    mistakes: &mut Diagnostics,
) -> Vec<String> {
    let Some(node) = root.get("mandatory_clients").filter(|node| !is_falsy(node)) else { return Vec::new() };
    let names: Option<Vec<String>> = (node.kind() == NodeKind::List)
        .then(|| node.items().iter().map(|name| name.as_str().map(str::to_owned)).collect())
        .flatten();
    let Some(names) = names else {
        let message = format!("mandatory_clients must be a list of names for job {job}");
        mistakes.push(Diagnostic::at(node, code::CLIENTS, message));
        return Vec::new();
    };
    let mut missing: Vec<String> = match clients {
        Some(clients) => names.iter().filter(|name| clients.binary_search(name).is_err()).cloned().collect(),
        None => Vec::new(),
    };
    missing.sort();
    missing.dedup();
    if !missing.is_empty() {
        let missing = quoted(&missing);
        let message = format!("Mandatory clients {{{missing}}} are not in the deploy_map for job {job}");
        mistakes.push(Diagnostic::at(node, code::CLIENTS, message));
    }
    names
}

fn priority(root: &Node, job: &str, mistakes: &mut Diagnostics) -> i64 {
    let Some(node) = root.get("priority").filter(|node| !node.is_null()) else { return 0 };
    if let Some(priority) = node.as_i64().filter(|priority| PRIORITIES.contains(priority)) {
        return priority;
    }
    let (least, most) = (PRIORITIES.start(), PRIORITIES.end());
    let message = format!("priority must be a whole number from {least} to {most} for job {job}");
    mistakes.push(Diagnostic::at(node, code::FIELD, message));
    0
}

fn resource_spec(root: &Node, job: &str, mistakes: &mut Diagnostics) -> Map<String, Value> {
    let Some(node) = root.get("resource_spec").filter(|node| !node.is_null()) else { return Map::new() };
    if node.kind() != NodeKind::Object {
        let message = format!("Invalid resource_spec for job {job}");
        mistakes.push(Diagnostic::at(node, code::RESOURCES, message));
    }
    for (site, spec) in node.entries().filter(|(_, spec)| spec.kind() != NodeKind::Object) {
        let message = format!("value for key {site} in resource spec is expecting a dictionary");
        mistakes.push(Diagnostic::at(spec, code::RESOURCES, message));
    }
    object(node)
}

fn launcher_spec(root: &Node, job: &str, mistakes: &mut Diagnostics) -> Map<String, Value> {
    let Some(node) = root.get("launcher_spec").filter(|node| !node.is_null()) else { return Map::new() };
    let mut wrong = |node: &Node, message: String| {
        mistakes.push(Diagnostic::at(node, code::RESOURCES, message));
    };
    if node.kind() != NodeKind::Object {
        wrong(node, format!("launcher_spec for job {job} must be a dict"));
    }
    for (site, of_site) in node.entries() {
        if of_site.kind() != NodeKind::Object {
            wrong(of_site, format!("launcher_spec['{site}'] for job {job} must be a dict"));
        }
        for (mode, spec) in of_site.entries() {
            if !LAUNCHERS.contains(&mode) {
                let valid = quoted(&LAUNCHERS.map(str::to_owned));
                let message = format!(
                    "launcher_spec['{site}'] for job {job} contains unknown launcher mode '{mode}'; \
                     valid modes: [{valid}]"
                );
                wrong(spec, message);
            } else if spec.kind() != NodeKind::Object {
                wrong(spec, format!("launcher_spec['{site}']['{mode}'] for job {job} must be a dict"));
            }
        }
    }
    object(node)
}

/// Letters, digits, `.`, `_` and `-`, the first a letter or digit: safe as the name of a folder.
fn is_plain_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn is_all_sites(site: &str) -> bool {
    site.eq_ignore_ascii_case(ALL_SITES)
}

/// What Python takes for nothing.
fn is_falsy(node: &Node) -> bool {
    match node.kind() {
        NodeKind::Null => true,
        NodeKind::Bool => node.as_bool() == Some(false),
        NodeKind::Number => node.as_f64() == Some(0.0),
        NodeKind::Text => node.as_str() == Some(""),
        NodeKind::List => node.items().is_empty(),
        NodeKind::Object => node.entries().next().is_none(),
    }
}

fn object(node: &Node) -> Map<String, Value> {
    node.entries().map(|(key, value)| (key.to_owned(), value.to_json())).collect()
}

/// The names that occur more than once, each once.
fn repeated(names: &[String]) -> Vec<String> {
    let mut count: HashMap<&str, usize> = HashMap::new();
    let mut twice = Vec::new();
    for name in names {
        let seen = count.entry(name).or_default();
        *seen += 1;
        if *seen == 2 {
            twice.push(name.clone());
        }
    }
    twice
}

/// `'a', 'b'`, as Python shows the items of a list or set.
fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}
