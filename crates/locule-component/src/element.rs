//! Reads component elements: names, arguments, and the components among those.

use locule_config::{Diagnostic, Node, NodeKind, Place, suggest};
use serde_json::{Map, Value as Json};

use crate::component::Child;
use crate::plan::{ComponentSpec, NameKey, Plan};
use crate::read::{Reader, code};
use crate::registry::ArgumentMistake;
use crate::{ConfigPath, Description, Kind};

impl Reader<'_> {
    /// Reads a component element, those among its arguments first, and answers with its index.
    pub(crate) fn element(&mut self, node: &Node, kinds: &[Kind], ancestors: &[ConfigPath]) -> Option<usize> {
        if node.kind() != NodeKind::Object {
            let message = format!("a component must be an object and is {}", node.kind());
            self.mistakes.push(Diagnostic::at(node, code::WRONG_SORT, message));
            return None;
        }
        let path = node.path();
        if self.components.len() >= Plan::MAX_COMPONENTS || path.len() > MAX_PATH {
            let message = format!(
                "a plan has at most {} components, at paths of at most {MAX_PATH} bytes",
                Plan::MAX_COMPONENTS
            );
            if !self.mistakes.iter().any(|mistake| mistake.code == code::TOO_MUCH) {
                self.mistakes.push(Diagnostic::at(node, code::TOO_MUCH, message));
            }
            return None;
        }
        self.known_keys(node, &[&ELEMENT_KEYS[..], self.more_keys].concat());
        let path = ConfigPath::from(path);
        let disabled = self.flag(node, "disabled");
        self.config_type(node);
        let args = self.args(node);
        let below: Vec<ConfigPath> = ancestors.iter().cloned().chain([path.clone()]).collect();
        let mut children = Vec::new();
        let build_args = match args {
            Some(args) => self.arguments(args, &below, &mut children),
            None => Json::Object(Map::new()),
        };
        let (name_key, name_node, about) = self.resolve(node, kinds)?;
        if !kinds.contains(&about.kind) {
            self.wrong_kind(name_node, about, kinds);
            return None;
        }
        for mistake in self.registry.check_args(about.name, build_args.clone()) {
            self.bad_argument(args.unwrap_or(node), about, mistake);
        }
        if self.components.iter().any(|spec| spec.path == path) {
            let message = format!("another component has the path `{path}` too");
            let help = "use a key without a `.`, and none like `#1`: nobody could tell the two apart";
            self.mistakes.push(Diagnostic::at_key(node, code::DUPLICATE, message).help(help));
            return None;
        }
        let Place { line, column } = node.place();
        self.components.push(ComponentSpec {
            id: node.get("id").and_then(Node::as_str).map(str::to_owned),
            kind: about.kind,
            name: about.name,
            aliases: about.aliases,
            requested: name_node.as_str().unwrap_or_default().to_owned(),
            requested_by: name_key,
            args: args.map_or_else(|| Json::Object(Map::new()), Node::to_json),
            path,
            steps: node.steps(),
            file: node.file().to_owned(),
            line,
            column,
            ancestors: ancestors.to_vec(),
            disabled,
            build_args,
            children,
        });
        Some(self.components.len() - 1)
    }

    /// What the element's name stands for; the first of the keys counts, even when it is empty.
    fn resolve<'n>(&mut self, node: &'n Node, kinds: &[Kind]) -> Option<(NameKey, &'n Node, Description)> {
        let Some((key, name)) = NameKey::ALL.iter().find_map(|key| Some((*key, node.get(key.as_str())?)))
        else {
            let mistake = Diagnostic::at(node, code::MISSING, "a component needs a `path`, its full name");
            self.mistakes.push(mistake);
            return None;
        };
        let Some(text) = name.as_str().filter(|text| !text.is_empty()) else {
            let message = format!("`{}` must be text and not empty", key.as_str());
            self.mistakes.push(Diagnostic::at(name, code::WRONG_SORT, message));
            return None;
        };
        if let Some(about) = self.registry.describe(text) {
            return Some((key, name, about));
        }
        let short = if key == NameKey::Name { self.registry.describe_short(text) } else { Vec::new() };
        if let [about] = short.as_slice() {
            return Some((key, name, *about));
        }
        let message = match short.as_slice() {
            [] => format!("unknown component `{text}`"),
            _ => format!("`{text}` may be several components"),
        };
        let mut mistake = Diagnostic::at(name, code::UNKNOWN_COMPONENT, message);
        if let Some(near) = self.registry.suggest(text, kinds) {
            mistake = mistake.label(format!("did you mean `{near}`?"));
        }
        let known: Vec<&str> = match short.as_slice() {
            [] => kinds.iter().flat_map(|kind| self.registry.names(*kind)).collect(),
            several => several.iter().map(|about| about.name).collect(),
        };
        mistake = match (known.as_slice(), kinds) {
            ([], _) => mistake.help(format!("this program has no {}", kind_names(kinds, "s or "))),
            (known, [kind]) => mistake.help(format!("{kind}s: {}", known.join(", "))),
            (known, _) => mistake.help(format!("components: {}", known.join(", "))),
        };
        self.mistakes.push(mistake);
        None
    }

    fn wrong_kind(&mut self, name: &Node, about: Description, kinds: &[Kind]) {
        let wanted = kind_names(kinds, " or ");
        let message = format!("`{}` is {} and cannot stand here", about.name, with_article(about.kind));
        let place = match about.kind {
            Kind::Executor => "executors stand under `executors` of the site's half",
            Kind::Workflow => "workflows stand under `workflows` of the server's half",
            Kind::Filter => "filters stand under `task_data_filters` and `task_result_filters`",
            Kind::Observer | Kind::Service => "observers and services stand under `components` of a job",
            Kind::Checker => "checkers are named by a site, never by a job",
            Kind::Gate => "gates are named by a site or the server, never by a job",
        };
        let mut mistake = Diagnostic::at(name, code::WRONG_KIND, message).help(place);
        if kinds.len() <= 2 {
            mistake = mistake.label(format!("expected: {wanted}"));
        }
        self.mistakes.push(mistake);
    }

    fn bad_argument(&mut self, args: &Node, about: Description, mistake: ArgumentMistake) {
        let ArgumentMistake { path, message, unknown, known } = mistake;
        let steps: Vec<&str> = path.iter().map(String::as_str).collect();
        // The longest beginning of the path that exists: what is missing has no place of its own.
        let place = (0..=steps.len()).rev().find_map(|length| args.find(&steps[..length])).unwrap_or(args);
        if !unknown {
            let message = format!("{message}, in the arguments of `{}`", about.name);
            self.mistakes.push(Diagnostic::at(place, code::BAD_ARGUMENT, message));
            return;
        }
        let field = steps.last().copied().unwrap_or_default();
        let owner = if steps.len() > 1 { "here" } else { last_part(about.name) };
        let label = match suggest(field, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if owner == "here" => format!("there is no `{field}` here"),
            None => format!("{owner} has no argument `{field}`"),
        };
        let help = if known.is_empty() {
            "it takes none".to_owned()
        } else {
            format!("arguments: {}", known.join(", "))
        };
        self.mistakes
            .push(Diagnostic::at_key(place, code::UNKNOWN_ARGUMENT, message).label(label).help(help));
    }

    /// The arguments of an element, which may be wrapped in `class_attributes`.
    fn args<'n>(&mut self, node: &'n Node) -> Option<&'n Node> {
        let args = node.get("args")?;
        let args = args.get("class_attributes").unwrap_or(args);
        if args.kind() == NodeKind::Object {
            return Some(args);
        }
        let message = format!("`args` must be an object and is {}", args.kind());
        self.mistakes.push(Diagnostic::at(args, code::WRONG_SORT, message));
        None
    }

    /// A value among arguments as the component's type will see it: every component in it is read, and a
    /// placeholder takes its place.
    fn arguments(&mut self, node: &Node, ancestors: &[ConfigPath], children: &mut Vec<usize>) -> Json {
        match node.kind() {
            NodeKind::Null | NodeKind::Bool | NodeKind::Number | NodeKind::Text => node.to_json(),
            NodeKind::List => {
                node.items().iter().map(|item| self.argument(item, ancestors, children)).collect()
            }
            NodeKind::Object => {
                let entries = node.entries();
                let entries =
                    entries.map(|(key, node)| (key.to_owned(), self.argument(node, ancestors, children)));
                Json::Object(entries.collect())
            }
        }
    }

    fn argument(&mut self, node: &Node, ancestors: &[ConfigPath], children: &mut Vec<usize>) -> Json {
        if !self.is_component(node) {
            return self.arguments(node, ancestors, children);
        }
        let kinds = [Kind::Executor, Kind::Workflow, Kind::Filter, Kind::Observer, Kind::Service];
        match self.element(node, &kinds, ancestors) {
            Some(index) if self.components[index].disabled => Json::Null,
            Some(index) => {
                children.push(index);
                Child::placeholder(children.len() - 1)
            }
            None => Json::Null,
        }
    }

    /// Whether an object among arguments is a component: it names one that is registered, or writes a name the
    /// way components are named. `"config_type"` says that it is one or is not.
    fn is_component(&mut self, node: &Node) -> bool {
        if self.of_site || node.kind() != NodeKind::Object {
            return false;
        }
        match node.get("config_type").and_then(Node::as_str) {
            Some("dict") => return false,
            Some("component") => return true,
            Some(_) | None => {}
        }
        let Some((key, name)) =
            NameKey::ALL.iter().find_map(|key| Some((*key, node.get(key.as_str())?.as_str()?)))
        else {
            return false;
        };
        self.registry.describe(name).is_some()
            || match key {
                NameKey::Name => !self.registry.describe_short(name).is_empty(),
                NameKey::Path | NameKey::ClassPath => looks_like_class(name),
            }
    }
}

impl Reader<'_> {
    /// Reports a `config_type` that is none, where an object is read as a component.
    fn config_type(&mut self, node: &Node) {
        const WORDS: [&str; 2] = ["component", "dict"];
        let Some(word) = node.get("config_type") else { return };
        if word.as_str().is_some_and(|word| WORDS.contains(&word)) {
            return;
        }
        let message = "a `config_type` is one of `component`, `dict`";
        let mut mistake = Diagnostic::at(word, code::WRONG_WORD, message);
        if let Some(near) = suggest(word.as_str().unwrap_or_default(), WORDS.into_iter()) {
            mistake = mistake.label(format!("did you mean `{near}`?"));
        }
        self.mistakes.push(mistake);
    }
}

const ELEMENT_KEYS: [&str; 7] = ["id", "path", "class_path", "name", "args", "disabled", "config_type"];

/// Longest path at which a component may stand, in bytes.
const MAX_PATH: usize = 1024;

/// Dotted identifiers, the last with a capital: `locule.filter.ExcludeVars`.
fn looks_like_class(name: &str) -> bool {
    let identifier = |part: &str| {
        part.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    name.contains('.') && name.split('.').all(identifier) && last_part(name).starts_with(char::is_uppercase)
}

pub(crate) fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn kind_names(kinds: &[Kind], between: &str) -> String {
    kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(between)
}

fn with_article(kind: Kind) -> &'static str {
    match kind {
        Kind::Executor => "an executor",
        Kind::Workflow => "a workflow",
        Kind::Filter => "a filter",
        Kind::Checker => "a checker",
        Kind::Observer => "an observer",
        Kind::Gate => "a gate",
        Kind::Service => "a service",
    }
}
