//! Reads a job's app configuration into a plan and finds every mistake in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::element::last_part;
use crate::pattern::glob_matches;
use crate::plan::{ComponentSpec, ExecutorEntry, FilterEntry, NameKey, Plan, PlanDigest, WorkflowEntry};
use crate::settings::positive;
use crate::{Chain, Direction, Kind, Registry, Settings, Side};
use locule_config::{Diagnostic, Diagnostics, Document, Node, NodeKind, suggest};

/// Mistakes in job configurations, by code. Codes stay what they are once published.
pub mod code {
    /// `format_version` is missing or unknown.
    pub const FORMAT_VERSION: &str = "E0101";
    /// A value of the wrong sort.
    pub const WRONG_SORT: &str = "E0102";
    /// A component that is not registered.
    pub const UNKNOWN_COMPONENT: &str = "E0103";
    /// An argument that the component does not have.
    pub const UNKNOWN_ARGUMENT: &str = "E0104";
    /// An argument that is missing or of the wrong sort.
    pub const BAD_ARGUMENT: &str = "E0105";
    /// Something required is missing or empty.
    pub const MISSING: &str = "E0106";
    /// An id or a task is taken.
    pub const DUPLICATE: &str = "E0107";
    /// A component that may not stand here.
    pub const WRONG_KIND: &str = "E0108";
    /// A direction or another word out of a list that is not on it.
    pub const WRONG_WORD: &str = "E0109";
    /// A key that means nothing.
    pub const UNKNOWN_KEY: &str = "E0110";
    /// A task that nothing answers for.
    pub const UNKNOWN_TASK: &str = "E0112";
    /// More than a plan may have.
    pub const TOO_MUCH: &str = "E0111";
}

pub(crate) fn plan(document: &Document, side: Side, registry: &Registry) -> Result<Plan, Diagnostics> {
    let root = document.root();
    let mut mistakes = Diagnostics::new();
    if let Some(mistake) = version_mistake(root) {
        let unreadable = root.get("format_version").is_some_and(|node| node.as_i64().is_some());
        mistakes.push(mistake);
        if unreadable {
            return Err(mistakes);
        }
    }
    let mut reader = Reader::new(side, registry);
    reader.mistakes = mistakes;
    let mut executors = Vec::new();
    let mut workflows = Vec::new();
    let mut filters = FilterSection::default();
    let mut others = Vec::new();
    for (key, node) in root.entries() {
        match (key, side) {
            ("executors", Side::Site) => executors = reader.executors(node),
            ("workflows", Side::Server) => workflows = reader.workflows(node),
            ("task_data_filters", _) => reader.filters(node, Chain::TaskData, &mut filters),
            ("task_result_filters", _) => reader.filters(node, Chain::TaskResult, &mut filters),
            ("components", _) => others = reader.others(node, &[Kind::Observer, Kind::Service]),
            ("server", Side::Server) if node.kind() == NodeKind::Object => {
                reader.known_keys(node, &SERVER_KEYS);
                for interval in SERVER_KEYS {
                    node.get(interval).map(|node| reader.seconds(node));
                }
            }
            ("server", Side::Server) => {
                let message = format!("`server` must be an object and is {}", node.kind());
                reader.mistakes.push(Diagnostic::at(node, code::WRONG_SORT, message));
            }
            ("format_version", _) | ("server", Side::Site) => {}
            ("executors" | "workflows", _) => {
                let message = format!("`{key}` means nothing to the {}'s half of a job", side.as_str());
                reader.warnings.push(Diagnostic::at_key(node, code::UNKNOWN_KEY, message).warning());
            }
            _ => reader.setting(document, key, node, side),
        }
    }
    reader.filters_without_task(&executors, &filters);
    match side {
        Side::Site => reader.require(root, "executors", executors.is_empty()),
        Side::Server => reader.require(root, "workflows", workflows.is_empty()),
    }
    let Reader { mut mistakes, warnings, components, settings, .. } = reader;
    if mistakes.has_errors() {
        mistakes.sort();
        return Err(mistakes);
    }
    let config = root.to_json();
    let digest = PlanDigest::of(side, &config, &components);
    let filters = filters.entries;
    Ok(Plan { side, config, digest, components, executors, workflows, filters, others, settings, warnings })
}

/// Reads the checkers that a site's configuration names under `components`: each with an id of its own, none
/// unknown, arguments checked, nothing built. Components whose full name is on the list `services` are passed
/// over; any other that is not a checker is a mistake, so that a misspelt checker is never silently absent.
///
/// # Errors
/// Every mistake of that list.
pub fn site_checkers(
    document: &Document,
    side: Side,
    registry: &Registry,
    services: &[&str],
) -> Result<Vec<ComponentSpec>, Diagnostics> {
    site_components(document, side, registry, &[Kind::Checker], services)
}

/// As [`site_checkers`], for components of other kinds that a site's configuration names: its observers, its gates.
///
/// # Errors
/// Every mistake of that list.
pub fn site_components(
    document: &Document,
    side: Side,
    registry: &Registry,
    kinds: &[Kind],
    services: &[&str],
) -> Result<Vec<ComponentSpec>, Diagnostics> {
    let mut reader = Reader::new(side, registry);
    reader.services = services;
    reader.of_site = true;
    if let Some(node) = document.root().get("components") {
        reader.others(node, kinds);
    }
    reader.mistakes.append(misspelt_policy_keys(document));
    let Reader { mut mistakes, components, .. } = reader;
    mistakes.sort();
    if mistakes.has_errors() { Err(mistakes) } else { Ok(components) }
}

/// A site's configuration may hold any key, but one that looks like a misspelt policy or limit would let everything pass.
fn misspelt_policy_keys(document: &Document) -> Diagnostics {
    const POLICY: [&str; 12] = [
        "components",
        "component_rules",
        "class_allow_list",
        "class_list_enforcement_mode",
        "environment_allow_list",
        "allow_job_checks",
        "allow_log_streaming",
        "python",
        "launcher",
        "resources",
        "retention",
        "scheduler",
    ];
    /// Shorter words are too common to be the end of a key that somebody meant.
    const SHORTEST_PART: usize = 5;
    let mut mistakes = Diagnostics::new();
    for (key, node) in document.root().entries().filter(|(key, _)| !POLICY.contains(key)) {
        let part_of = |known: &&str| {
            key.len() >= SHORTEST_PART
                && known.strip_suffix(&key.to_lowercase()).is_some_and(|rest| rest.ends_with('_'))
        };
        let meant = suggest(key, POLICY.into_iter()).or_else(|| POLICY.into_iter().find(part_of));
        if let Some(meant) = meant {
            let message = format!("unknown key `{key}`");
            let help = format!("did you mean `{meant}`? As it stands, this part of the kit has no effect");
            mistakes.push(Diagnostic::at_key(node, code::UNKNOWN_KEY, message).help(help));
        }
    }
    mistakes
}

/// Keys of the outermost object that are sections.
pub(crate) const SECTIONS: [&str; 7] = [
    "format_version",
    "executors",
    "workflows",
    "task_data_filters",
    "task_result_filters",
    "components",
    "server",
];

const SERVER_KEYS: [&str; 2] = ["heart_beat_timeout", "task_request_interval"];

/// The version that this crate reads.
const FORMAT_VERSION: i64 = 2;

fn version_mistake(root: &Node) -> Option<Diagnostic> {
    let help = format!("write `\"format_version\": {FORMAT_VERSION}`");
    let Some(node) = root.get("format_version") else {
        return Some(Diagnostic::at(root, code::FORMAT_VERSION, "missing `format_version`").help(help));
    };
    match node.as_i64() {
        Some(FORMAT_VERSION) => None,
        Some(other) => {
            let message = format!("`format_version` {other} is not one that can be read");
            Some(Diagnostic::at(node, code::FORMAT_VERSION, message).help(help))
        }
        None => {
            let message = format!("`format_version` must be a whole number and is {}", node.kind());
            Some(Diagnostic::at(node, code::FORMAT_VERSION, message).help(help))
        }
    }
}

pub(crate) struct Reader<'a> {
    side: Side,
    pub(crate) registry: &'a Registry,
    pub(crate) mistakes: Diagnostics,
    warnings: Diagnostics,
    pub(crate) settings: Settings,
    pub(crate) components: Vec<ComponentSpec>,
    /// Ids of `components`, and the node that took each.
    ids: BTreeMap<String, Node>,
    /// Names of components that are passed over.
    services: &'a [&'a str],
    /// Whether it is a site's own configuration: no component is built from its arguments, and no key is passed
    /// over, for it may be one that was meant to restrict something.
    pub(crate) of_site: bool,
    /// Keys that a component element may have besides its own.
    pub(crate) more_keys: &'static [&'static str],
}

#[derive(Default)]
struct FilterSection {
    entries: Vec<FilterEntry>,
    taken: BTreeMap<(Chain, Direction, String), Node>,
}

impl<'a> Reader<'a> {
    fn new(side: Side, registry: &'a Registry) -> Self {
        Reader {
            side,
            registry,
            mistakes: Diagnostics::new(),
            warnings: Diagnostics::new(),
            settings: Settings::default(),
            components: Vec::new(),
            ids: BTreeMap::new(),
            services: &[],
            of_site: false,
            more_keys: &[],
        }
    }

    /// For a privacy policy, where each filter says its own direction.
    pub(crate) fn of_scopes(side: Side, registry: &'a Registry) -> Self {
        Reader { of_site: true, more_keys: &["direction"], ..Reader::new(side, registry) }
    }

    /// Reads a component that stands by itself.
    pub(crate) fn take(&mut self, node: &Node, kinds: &[Kind]) -> Option<ComponentSpec> {
        self.element(node, kinds, &[]).map(|index| self.components[index].clone())
    }

    fn executors(&mut self, node: &Node) -> Vec<ExecutorEntry> {
        let mut entries = Vec::new();
        let mut taken: BTreeMap<String, Node> = BTreeMap::new();
        for item in self.objects(node) {
            self.known_keys(item, &["tasks", "executor"]);
            let tasks = self.tasks(item);
            for task in tasks.iter() {
                if let Some(first) = taken.get(task) {
                    let message = format!("task `{task}` has an executor already");
                    self.mistakes
                        .push(Diagnostic::at(item, code::DUPLICATE, message).related(first, "the first"));
                } else {
                    taken.insert(task.clone(), item.clone());
                }
            }
            let Some(executor) = item.get("executor") else {
                self.mistakes.push(Diagnostic::at(item, code::MISSING, "`executor` is missing"));
                continue;
            };
            if let Some(component) = self.element(executor, &[Kind::Executor], &[]) {
                entries.push(ExecutorEntry { tasks, component });
            }
        }
        entries
    }

    fn workflows(&mut self, node: &Node) -> Vec<WorkflowEntry> {
        let mut entries: Vec<WorkflowEntry> = Vec::new();
        for item in self.objects(node) {
            if let Some(id) = item.get("id").filter(|id| id.as_str().is_none_or(str::is_empty)) {
                self.mistakes.push(Diagnostic::at(id, code::WRONG_SORT, "`id` must be text and not empty"));
            }
            let Some(component) = self.element(item, &[Kind::Workflow], &[]) else { continue };
            let spec = &self.components[component];
            let id = spec.id.clone().unwrap_or_else(|| last_part(spec.name).to_owned());
            if entries.iter().any(|entry| entry.id == id) {
                let place = item.get("id").unwrap_or(item);
                let message = format!("two workflows have the id `{id}`");
                self.mistakes.push(Diagnostic::at(place, code::DUPLICATE, message));
            }
            entries.push(WorkflowEntry { id, component });
        }
        entries
    }

    fn filters(&mut self, node: &Node, chain: Chain, section: &mut FilterSection) {
        for item in self.objects(node) {
            self.known_keys(item, &["tasks", "direction", "filters"]);
            let tasks = self.tasks(item);
            if let Some(pattern) = tasks.iter().find(|task| task.contains(['*', '?'])) {
                let message = format!("filters are for exact names of tasks, and `{pattern}` is a pattern");
                let mistake = Diagnostic::at(task_node(item, pattern), code::WRONG_WORD, message);
                self.mistakes.push(mistake.help("name every task that the filters are for"));
            }
            let directions = self.directions(item, chain);
            for direction in &directions {
                for task in &tasks {
                    let key = (chain, *direction, task.clone());
                    if let Some(first) = section.taken.get(&key) {
                        let direction = direction.as_str();
                        let message =
                            format!("task `{task}` has filters for {} {direction} already", chain.key());
                        let mistake = Diagnostic::at(item, code::DUPLICATE, message);
                        self.mistakes.push(mistake.related(first, "the first"));
                    } else {
                        section.taken.insert(key, task_node(item, task).clone());
                    }
                }
            }
            let Some(list) = item.get("filters") else {
                self.mistakes.push(Diagnostic::at(item, code::MISSING, "`filters` is missing"));
                continue;
            };
            let mut components = Vec::new();
            let elements = self.objects(list);
            if elements.is_empty() && list.kind() == NodeKind::List {
                self.mistakes.push(Diagnostic::at(list, code::MISSING, "`filters` must not be empty"));
            }
            for element in elements {
                components.extend(self.element(element, &[Kind::Filter], &[]));
            }
            section.entries.push(FilterEntry { chain, directions, tasks, components });
        }
    }

    pub(crate) fn directions(&mut self, item: &Node, chain: Chain) -> Vec<Direction> {
        let leaving = match (self.side, chain) {
            (Side::Server, Chain::TaskData) | (Side::Site, Chain::TaskResult) => Direction::Out,
            (Side::Server, Chain::TaskResult) | (Side::Site, Chain::TaskData) => Direction::In,
        };
        let Some(node) = item.get("direction") else { return vec![leaving] };
        match node.as_str().map(str::to_ascii_lowercase).as_deref() {
            Some("in") => vec![Direction::In],
            Some("out") => vec![Direction::Out],
            Some("inout") => vec![Direction::In, Direction::Out],
            Some(_) | None => {
                let message = "a direction is one of `in`, `out`, `inout`";
                let mut mistake = Diagnostic::at(node, code::WRONG_WORD, message);
                if let Some(near) =
                    suggest(node.as_str().unwrap_or_default(), ["in", "out", "inout"].into_iter())
                {
                    mistake = mistake.label(format!("did you mean `{near}`?"));
                }
                self.mistakes.push(mistake);
                vec![leaving]
            }
        }
    }

    pub(crate) fn others(&mut self, node: &Node, kinds: &[Kind]) -> Vec<usize> {
        let mut indexes = Vec::new();
        for item in self.objects(node) {
            match item.get("id").map(|node| (node, node.as_str())) {
                None => self.mistakes.push(Diagnostic::at(item, code::MISSING, "a component needs an `id`")),
                Some((_, Some(id))) if !id.is_empty() => self.take_id(item, id),
                Some((node, _)) => {
                    self.mistakes.push(Diagnostic::at(
                        node,
                        code::WRONG_SORT,
                        "`id` must be text and not empty",
                    ));
                }
            }
            if !self.is_service(item) {
                indexes.extend(self.element(item, kinds, &[]));
            }
        }
        indexes
    }

    fn is_service(&self, item: &Node) -> bool {
        let name = NameKey::ALL.iter().find_map(|key| item.get(key.as_str())?.as_str());
        name.is_some_and(|name| self.services.contains(&name))
    }

    fn take_id(&mut self, item: &Node, id: &str) {
        match self.ids.get(id) {
            Some(first) => {
                let place = item.get("id").unwrap_or(item);
                let mistake =
                    Diagnostic::at(place, code::DUPLICATE, format!("two components have the id `{id}`"));
                self.mistakes.push(mistake.related(first, "the first"));
            }
            None => {
                self.ids.insert(id.to_owned(), item.get("id").unwrap_or(item).clone());
            }
        }
    }

    fn tasks(&mut self, item: &Node) -> Vec<String> {
        let Some(node) = item.get("tasks") else {
            self.mistakes.push(Diagnostic::at(item, code::MISSING, "`tasks` is missing"));
            return Vec::new();
        };
        if node.kind() != NodeKind::List {
            let message = format!("`tasks` must be a list of names and is {}", node.kind());
            self.mistakes.push(Diagnostic::at(node, code::WRONG_SORT, message));
            return Vec::new();
        }
        if node.items().is_empty() {
            self.mistakes.push(Diagnostic::at(node, code::MISSING, "`tasks` must not be empty"));
        }
        let mut tasks = BTreeSet::new();
        let mut ordered = Vec::new();
        for task in node.items() {
            match task.as_str().filter(|name| !name.is_empty()) {
                Some(name) if tasks.insert(name) => ordered.push(name.to_owned()),
                Some(_) => {}
                None => {
                    let message = "the name of a task must be text and not empty";
                    self.mistakes.push(Diagnostic::at(task, code::WRONG_SORT, message));
                }
            }
        }
        ordered
    }

    /// The objects of a list; what is none is reported.
    pub(crate) fn objects<'n>(&mut self, node: &'n Node) -> Vec<&'n Node> {
        if node.kind() != NodeKind::List {
            let message = format!("this must be a list and is {}", node.kind());
            self.mistakes.push(Diagnostic::at(node, code::WRONG_SORT, message));
            return Vec::new();
        }
        let (objects, others): (Vec<_>, Vec<_>) =
            node.items().iter().partition(|item| item.kind() == NodeKind::Object);
        for other in others {
            let message = format!("this must be an object and is {}", other.kind());
            self.mistakes.push(Diagnostic::at(other, code::WRONG_SORT, message));
        }
        objects
    }

    pub(crate) fn flag(&mut self, node: &Node, key: &str) -> bool {
        let Some(flag) = node.get(key) else { return false };
        flag.as_bool().unwrap_or_else(|| {
            let message = format!("`{key}` must be `true` or `false` and is {}", flag.kind());
            self.mistakes.push(Diagnostic::at(flag, code::WRONG_SORT, message));
            false
        })
    }

    pub(crate) fn seconds(&mut self, node: &Node) -> Option<Duration> {
        let duration = node.as_f64().and_then(positive);
        if duration.is_none() {
            let message = "this must be a positive number of seconds";
            self.mistakes.push(Diagnostic::at(node, code::WRONG_SORT, message));
        }
        duration
    }

    pub(crate) fn warn(&mut self, warning: Diagnostic) {
        self.warnings.push(warning);
    }

    /// Warns of filters for tasks that no executor of this site answers for.
    fn filters_without_task(&mut self, executors: &[ExecutorEntry], filters: &FilterSection) {
        if self.side != Side::Site || executors.is_empty() {
            return;
        }
        const MOST: usize = 100_000;
        let known: BTreeSet<&str> =
            executors.iter().flat_map(|entry| &entry.tasks).map(String::as_str).collect();
        let patterns: Vec<&str> =
            known.iter().copied().filter(|task| task.contains(['*', '?', '['])).collect();
        if patterns.len() * filters.taken.len() > MOST {
            return;
        }
        let mut told = BTreeSet::new();
        for ((_, _, task), node) in &filters.taken {
            let answered =
                known.contains(task.as_str()) || patterns.iter().any(|pattern| glob_matches(pattern, task));
            if answered || !told.insert(task) {
                continue;
            }
            let message = format!("no executor answers for task `{task}`, so these filters have no effect");
            let mut found = Diagnostic::at(node, code::UNKNOWN_TASK, message).warning();
            if let Some(near) = suggest(task, known.iter().copied()) {
                found = found.label(format!("did you mean `{near}`?"));
            }
            self.warnings.push(found);
        }
    }

    /// Reports keys that mean nothing: as mistakes when they are nearly one that does, else as warnings.
    pub(crate) fn known_keys(&mut self, node: &Node, known: &[&'static str]) {
        for (key, value) in node.entries().filter(|(key, _)| !known.contains(key)) {
            let found = Diagnostic::at_key(value, code::UNKNOWN_KEY, format!("`{key}` means nothing here"));
            match suggest(key, known.iter().copied()) {
                Some(near) => self.mistakes.push(found.label(format!("did you mean `{near}`?"))),
                None => {
                    let found = found.help(format!("known: {}", known.join(", ")));
                    if self.of_site { self.mistakes.push(found) } else { self.warnings.push(found.warning()) }
                }
            }
        }
    }

    /// Reports that a section which the job cannot do without is missing or has nothing that could be used.
    fn require(&mut self, root: &Node, section: &'static str, empty: bool) {
        if !empty {
            return;
        }
        match root.get(section) {
            Some(node) if node.kind() == NodeKind::List && node.items().is_empty() => {
                let message = format!("`{section}` must not be empty");
                self.mistakes.push(Diagnostic::at(node, code::MISSING, message));
            }
            Some(_) => {}
            None => {
                let mut mistake = Diagnostic::at(root, code::MISSING, format!("`{section}` is missing"));
                if let Some(near) = suggest(section, root.entries().map(|(key, _)| key)) {
                    mistake = mistake.help(format!("is `{near}` meant to be `{section}`?"));
                }
                self.mistakes.push(mistake);
            }
        }
    }
}

/// Where an entry of `executors` or filters names a task.
fn task_node<'n>(item: &'n Node, task: &str) -> &'n Node {
    let tasks = item.get("tasks").map(Node::items).unwrap_or_default();
    tasks.iter().find(|node| node.as_str() == Some(task)).unwrap_or(item)
}
