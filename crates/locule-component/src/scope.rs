//! Privacy scopes: what a participant does to the payloads of every job, whatever the jobs say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use locule_config::{Diagnostic, Diagnostics, Document, Node, NodeKind, suggest};
use serde_json::Value as Json;

use crate::read::{Reader, code};
use crate::{
    Assembled, BuildCx, BuildError, Built, Chain, ComponentSpec, Direction, Kind, Observer, Registry, Side,
    TaskFilter,
};

/// The scopes that a participant's `privacy.json` defines, by name only: enough to say which jobs may run.
///
/// ```
/// use locule_component::ScopeNames;
/// use locule_config::Document;
///
/// let text = r#"{ "scopes": [{ "name": "public" }, { "name": "patients" }], "default_scope": "patients" }"#;
/// let scopes = ScopeNames::from_document(&Document::parse_json("privacy.json", text)?)?;
/// assert_eq!(scopes.effective("")?, "patients");
/// assert_eq!(scopes.effective("secret").unwrap_err().to_string(), "privacy scope 'secret' is not allowed");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.privacy_manager`. A file without scopes is no policy there; here it is a mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeNames {
    names: Vec<String>,
    default: Option<usize>,
}

impl ScopeNames {
    /// Reads the names, and checks everything but the filters.
    ///
    /// # Errors
    /// Every mistake: a key that means nothing, a scope without a name or with that of another, a default that is
    /// no scope, no scope at all.
    pub fn from_document(document: &Document) -> Result<Self, Diagnostics> {
        let mut mistakes = Diagnostics::new();
        let root = document.root();
        known_keys(root, &["format_version", "scopes", "default_scope", "components"], &mut mistakes);
        let mut names: Vec<String> = Vec::new();
        let mut taken: BTreeMap<&str, &Node> = BTreeMap::new();
        match root.get("scopes") {
            None => mistakes.push(Diagnostic::at(root, code::MISSING, "`scopes` is missing")),
            Some(list) if list.kind() != NodeKind::List => {
                let message = format!("`scopes` must be a list and is {}", list.kind());
                mistakes.push(Diagnostic::at(list, code::WRONG_SORT, message));
            }
            Some(list) if list.items().is_empty() => {
                let mistake = Diagnostic::at(list, code::MISSING, "`scopes` must not be empty");
                mistakes.push(mistake.help("without a privacy policy there is no file `privacy.json`"));
            }
            Some(list) => {
                for scope in list.items() {
                    let name = name_of(scope, &mut mistakes);
                    if let Some((name, node)) = name {
                        match taken.get(name) {
                            Some(first) => {
                                let message = format!("two scopes have the name `{name}`");
                                let mistake = Diagnostic::at(node, code::DUPLICATE, message);
                                mistakes.push(mistake.related(first, "the first"));
                            }
                            None => {
                                taken.insert(name, node);
                            }
                        }
                    }
                    names.push(name.map_or_else(String::new, |(name, _)| name.to_owned()));
                }
            }
        }
        let default = default_of(root, &names, &mut mistakes);
        if mistakes.is_empty() { Ok(Self { names, default }) } else { Err(mistakes) }
    }

    /// The names, in file order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The scope of jobs that name none.
    pub fn default_scope(&self) -> Option<&str> {
        self.default.map(|at| self.names[at].as_str())
    }

    /// The scope that holds for a job that asks for this one; one that asks for none has an empty name here.
    ///
    /// # Errors
    /// [`ScopeNotAllowed`] if there is no such scope, or no default for a job that names none.
    pub fn effective(&self, requested: &str) -> Result<&str, ScopeNotAllowed> {
        self.position(requested).map(|at| self.names[at].as_str())
    }

    fn position(&self, requested: &str) -> Result<usize, ScopeNotAllowed> {
        let found = match requested {
            "" => self.default,
            name => self.names.iter().position(|known| known == name),
        };
        found.ok_or_else(|| ScopeNotAllowed { scope: requested.escape_debug().take(96).collect() })
    }
}

/// A participant has no such privacy scope.
///
/// # Source
/// The sentence is that of nvflare 2.9.0, `nvflare.private.fed.utils.app_deployer`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("privacy scope '{scope}' is not allowed")]
pub struct ScopeNotAllowed {
    /// The scope that the job names, shortened and escaped; empty if it names none.
    pub scope: String,
}

/// A participant's whole `privacy.json`: scopes with their filters, and observers of its own.
///
/// What stands there is the operator's: no checker judges it.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.fed.app.fl_conf` (`PrivacyConfiger`).
#[derive(Debug, Clone, PartialEq)]
pub struct PrivacyScopes {
    names: ScopeNames,
    scopes: Vec<Scope>,
    components: Vec<ComponentSpec>,
}

/// What holds for the jobs of one scope.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Scope {
    /// Its name.
    pub name: String,
    /// Facts for the components of jobs, such as where data lie.
    pub properties: Json,
    filters: Vec<ScopeFilter>,
}

#[derive(Debug, Clone, PartialEq)]
struct ScopeFilter {
    chain: Chain,
    directions: Vec<Direction>,
    spec: ComponentSpec,
}

impl PrivacyScopes {
    /// Reads and checks all of it: every filter must be one, with arguments that fit. Builds nothing.
    ///
    /// `side` says what a filter without a direction is for: results leave a site and arrive at a server, task data
    /// the other way round.
    ///
    /// # Errors
    /// Every mistake.
    pub fn from_document(document: &Document, side: Side, registry: &Registry) -> Result<Self, Diagnostics> {
        let root = document.root();
        let mut reader = Reader::of_scopes(side, registry);
        let names = ScopeNames::from_document(document).unwrap_or_else(|mistakes| {
            reader.mistakes.append(mistakes);
            ScopeNames { names: Vec::new(), default: None }
        });
        let mut scopes = Vec::new();
        for node in root.get("scopes").map(Node::items).unwrap_or_default() {
            let mut scope = Scope {
                name: node.get("name").and_then(Node::as_str).unwrap_or_default().to_owned(),
                properties: node
                    .get("properties")
                    .map_or_else(|| Json::Object(Default::default()), Node::to_json),
                filters: Vec::new(),
            };
            for chain in [Chain::TaskData, Chain::TaskResult] {
                let Some(list) = node.get(chain.key()) else { continue };
                for element in reader.objects(list) {
                    let directions = reader.directions(element, chain);
                    if let Some(spec) = reader.take(element, &[Kind::Filter]) {
                        scope.filters.push(ScopeFilter { chain, directions, spec });
                    }
                }
            }
            scopes.push(scope);
        }
        let mut components = Vec::new();
        if let Some(list) = root.get("components") {
            for index in reader.others(list, &[Kind::Observer]) {
                components.push(reader.components[index].clone());
            }
        }
        let mut mistakes = reader.mistakes;
        mistakes.sort();
        if mistakes.has_errors() { Err(mistakes) } else { Ok(Self { names, scopes, components }) }
    }

    /// The scopes' names.
    pub fn names(&self) -> &ScopeNames {
        &self.names
    }

    /// The scope that holds for a job that asks for this one.
    ///
    /// # Errors
    /// As [`ScopeNames::effective`].
    pub fn effective(&self, requested: &str) -> Result<&Scope, ScopeNotAllowed> {
        self.names.position(requested).map(|at| &self.scopes[at])
    }

    /// Makes what comes before a job of this scope: the scope's filters, and the observers of the policy.
    ///
    /// # Errors
    /// The first constructor's.
    pub fn build(
        &self,
        scope: &Scope,
        registry: &Registry,
        cx: &BuildCx<'_>,
    ) -> Result<ScopeParts, BuildError> {
        let mut parts = ScopeParts { filters: Vec::new(), observers: Vec::new() };
        for (chain, directions, spec) in scope.filters() {
            if let Built::Filter(filter) = build(spec, registry, cx)? {
                parts.filters.push((chain, directions.to_vec(), filter));
            }
        }
        for spec in self.components.iter().filter(|spec| !spec.disabled) {
            if let Built::Observer(observer) = build(spec, registry, cx)? {
                parts.observers.push((spec.label().to_owned(), observer));
            }
        }
        Ok(parts)
    }
}

impl Scope {
    /// Its filters in file order, those that are disabled left out: what each is for, and its name.
    pub fn filters(&self) -> impl Iterator<Item = (Chain, &[Direction], &ComponentSpec)> {
        let enabled = self.filters.iter().filter(|filter| !filter.spec.disabled);
        enabled.map(|filter| (filter.chain, filter.directions.as_slice(), &filter.spec))
    }
}

/// What a participant puts before a job, made.
pub struct ScopeParts {
    filters: Vec<(Chain, Vec<Direction>, Box<dyn TaskFilter>)>,
    observers: Vec<(String, Box<dyn Observer>)>,
}

impl ScopeParts {
    /// Puts it before what was built of the job: the filters for every task.
    pub fn precede(self, job: &mut Assembled) {
        for (chain, directions, filter) in self.filters {
            job.filters.append_for_every_task(chain, &directions, filter);
        }
        job.observers.splice(0..0, self.observers);
    }
}

impl fmt::Debug for ScopeParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeParts")
            .field("filters", &self.filters.len())
            .field("observers", &self.observers.len())
            .finish()
    }
}

fn build(spec: &ComponentSpec, registry: &Registry, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
    let built = registry.build(spec.name, spec.args.clone(), &cx.for_component(spec.label()));
    built.map_err(|source| {
        let (path, file, line) = (spec.path.clone(), spec.file.clone(), spec.line);
        BuildError::Component { path, file, line, source: Box::new(source) }
    })
}

const SCOPE_KEYS: [&str; 4] = ["name", "properties", "task_data_filters", "task_result_filters"];

/// The name of a scope and where it stands.
fn name_of<'n>(scope: &'n Node, mistakes: &mut Diagnostics) -> Option<(&'n str, &'n Node)> {
    if scope.kind() != NodeKind::Object {
        let message = format!("a scope must be an object and is {}", scope.kind());
        mistakes.push(Diagnostic::at(scope, code::WRONG_SORT, message));
        return None;
    }
    known_keys(scope, &SCOPE_KEYS, mistakes);
    if let Some(properties) = scope.get("properties").filter(|node| node.kind() != NodeKind::Object) {
        let message = format!("`properties` must be an object and is {}", properties.kind());
        mistakes.push(Diagnostic::at(properties, code::WRONG_SORT, message));
    }
    let Some(node) = scope.get("name") else {
        mistakes.push(Diagnostic::at(scope, code::MISSING, "a scope needs a `name`"));
        return None;
    };
    let name = node.as_str().filter(|name| !name.is_empty());
    if name.is_none() {
        mistakes.push(Diagnostic::at(node, code::WRONG_SORT, "`name` must be text and not empty"));
    }
    name.map(|name| (name, node))
}

fn default_of(root: &Node, names: &[String], mistakes: &mut Diagnostics) -> Option<usize> {
    let node = root.get("default_scope").filter(|node| !node.is_null())?;
    let Some(name) = node.as_str().filter(|name| !name.is_empty()) else {
        mistakes.push(Diagnostic::at(node, code::WRONG_SORT, "`default_scope` must be the name of a scope"));
        return None;
    };
    let found = names.iter().position(|known| known == name);
    if found.is_none() {
        let mut mistake =
            Diagnostic::at(node, code::WRONG_WORD, format!("the default scope `{name}` does not exist"));
        if let Some(near) = suggest(name, names.iter().map(String::as_str)) {
            mistake = mistake.label(format!("did you mean `{near}`?"));
        }
        let known: BTreeSet<&str> =
            names.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        mistakes.push(mistake.help(format!("scopes: {}", Vec::from_iter(known).join(", "))));
    }
    found
}

/// A key that means nothing may be one that was meant to protect something.
fn known_keys(node: &Node, known: &[&'static str], mistakes: &mut Diagnostics) {
    for (key, value) in node.entries().filter(|(key, _)| !known.contains(key)) {
        let mut mistake = Diagnostic::at_key(value, code::UNKNOWN_KEY, format!("`{key}` means nothing here"));
        if let Some(near) = suggest(key, known.iter().copied()) {
            mistake = mistake.label(format!("did you mean `{near}`?"));
        }
        mistakes.push(mistake.help(format!("known: {}", known.join(", "))));
    }
}
