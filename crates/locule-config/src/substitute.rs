//! Puts the values of variables in their places.

use std::collections::{BTreeMap, BTreeSet};

use crate::node::{Document, Node, NodeKind, Value};
use crate::{Diagnostic, Diagnostics, code, suggest};

/// What a document may refer to besides its own outermost entries.
#[derive(Debug, Clone, Default)]
pub struct Variables {
    named: BTreeMap<String, serde_json::Value>,
    environment: BTreeMap<String, String>,
}

impl Variables {
    /// How many variables may be needed one inside another.
    pub const MAX_DEPTH: usize = 20;

    /// No variables.
    pub fn new() -> Self {
        Variables::default()
    }

    /// Defines `{name}`, in precedence over an entry of the document.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.named.insert(name.into(), value.into());
        self
    }

    /// Defines `{$name}`. The environment of the process is never read; the caller chooses what a document may see.
    #[must_use]
    pub fn environment(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }
}

impl Document {
    /// Puts the values of variables in their places. Keys stay as they are, and so do the document's outermost
    /// entries, but for those whose key begins with `@`: they are only there to be referred to.
    ///
    /// | written | becomes |
    /// |---|---|
    /// | `"{name}"`, the whole text | the value with its type: a [`Variables`] entry, else the document's outermost entry |
    /// | `"a {name} b"` | text; numbers and truth values as JSON writes them |
    /// | `"{name?}"` | as above, or null (inside text: nothing) when nothing defines it |
    /// | `"{$NAME}"` | an environment variable |
    /// | `"{@name:k=v:k2=v2}"` | the entry `@name`, an object, in which `{k}` is `v`: a number or truth value if it looks like one, text, or itself a reference |
    /// | `"{{"`, `"}}"` | `{`, `}` |
    /// | `"${secret:…}"`, `"${x}"` when nothing defines `x`, braces around anything that is no name | as written |
    ///
    /// Where nvflare 2.9.0 makes an unknown name null or leaves it standing, it is a mistake here; and an attribute
    /// of a value (`{x.__class__}`) is a name like any other, which nothing defines. Formats (`{rate:.3f}`), which
    /// nvflare takes from Python, are a mistake.
    ///
    /// # Errors
    /// All unknown names, references in a circle or deeper than [`Variables::MAX_DEPTH`], and a document that
    /// grows out of bounds by it.
    pub fn substitute(&self, variables: &Variables) -> Result<Document, Diagnostics> {
        let mut pass = Pass {
            variables,
            document: self.root(),
            locals: Vec::new(),
            pending: Vec::new(),
            referred_to: BTreeSet::new(),
            mistakes: Diagnostics::new(),
            reported: BTreeSet::new(),
            room: MAX_GROWTH,
        };
        let entries = self.root().children().filter(|(key, _)| !key.starts_with('@'));
        let entries = entries.filter_map(|(key, node)| Some((key.clone(), pass.node(node, 1)?))).collect();
        if pass.mistakes.is_empty() {
            let root = self.root().replaced(Value::Object(entries));
            Ok(Document::from_root(self.name().to_owned(), root).with_references(pass.referred_to))
        } else {
            Err(pass.mistakes)
        }
    }
}

/// How large a document may be after substitution: bytes of text, and [`NODE_COST`] for each node.
const MAX_GROWTH: usize = 16 * Document::MAX_LEN;
const NODE_COST: usize = 16;

struct Pass<'a> {
    variables: &'a Variables,
    document: &'a Node,
    /// Parameters of the references being followed, innermost last.
    locals: Vec<BTreeMap<&'a str, Node>>,
    /// Names of the document's own entries being looked up, outermost first.
    pending: Vec<&'a str>,
    referred_to: BTreeSet<String>,
    mistakes: Diagnostics,
    /// Where mistakes were reported already: an entry may be looked up many times.
    reported: BTreeSet<(usize, usize, String)>,
    room: usize,
}

impl<'a> Pass<'a> {
    /// The node with everything below it substituted; `None` after a mistake that leaves no node.
    fn node(&mut self, node: &'a Node, depth: usize) -> Option<Node> {
        if depth > Document::MAX_DEPTH {
            self.too_deep(node);
            return None;
        }
        if !self.charge(node, NODE_COST + node.as_str().map_or(0, str::len)) {
            return None;
        }
        let value = match &node.value {
            Value::Null | Value::Bool(_) | Value::Number(_) => node.value.clone(),
            Value::Text(text) => return self.text(node, text, depth),
            Value::List(items) => {
                Value::List(items.iter().filter_map(|item| self.node(item, depth + 1)).collect())
            }
            Value::Object(entries) => {
                let entries = entries.iter();
                let entries =
                    entries.filter_map(|(key, node)| Some((key.clone(), self.node(node, depth + 1)?)));
                Value::Object(entries.collect())
            }
        };
        Some(node.replaced(value))
    }

    fn text(&mut self, node: &'a Node, text: &'a str, depth: usize) -> Option<Node> {
        if !text.contains(['{', '}']) {
            return Some(node.clone());
        }
        if let Some(whole) = whole_reference(text).filter(|name| self.is_known(name)) {
            return self.reference(node, Reference::to(whole), depth).map(|value| value.keyed_like(node));
        }
        let pieces = split(text);
        let blank = |piece: &&Piece<'_>| !matches!(piece, Piece::Literal(text) if text.trim().is_empty());
        let mut told: Vec<&Piece<'_>> = pieces.iter().filter(blank).collect();
        if let (Some(Piece::Reference(reference)), true) = (told.pop(), told.is_empty())
            && !self.is_foreign(reference)
        {
            return self.reference(node, *reference, depth).map(|value| value.keyed_like(node));
        }
        let mut out = String::new();
        for piece in pieces {
            match piece {
                Piece::Literal(literal) => out.push_str(literal),
                Piece::Reference(reference) if self.is_foreign(&reference) => {
                    out.extend(["{", reference.written, "}"]);
                }
                Piece::Reference(reference) => {
                    let value = self.reference(node, reference, depth)?;
                    match &value.value {
                        Value::Text(text) => out.push_str(text),
                        Value::Null if reference.optional => {}
                        Value::Null | Value::Bool(_) | Value::Number(_) => {
                            out.push_str(&value.to_json().to_string())
                        }
                        Value::List(_) | Value::Object(_) => {
                            let message = format!(
                                "`{}` is {} and cannot be put into text",
                                reference.name,
                                value.kind()
                            );
                            self.report(
                                Diagnostic::at(node, code::NOT_TEXT, message).related(&value, "defined here"),
                                node,
                            );
                            return None;
                        }
                    }
                }
            }
            if out.len() > MAX_GROWTH {
                self.report(
                    Diagnostic::at(node, code::TOO_LARGE, "the text becomes too large by its variables"),
                    node,
                );
                return None;
            }
        }
        Some(node.replaced(Value::Text(out)))
    }

    fn is_known(&self, name: &str) -> bool {
        self.locals.iter().any(|locals| locals.contains_key(name))
            || self.variables.named.contains_key(name)
            || self.document.get(name).is_some()
            || name.strip_prefix('$').is_some_and(|name| self.variables.environment.contains_key(name))
    }

    /// Whether it only looks like a reference: `${x}` or `{x: y}`, and there is no `x`.
    fn is_foreign(&self, reference: &Reference<'_>) -> bool {
        let may_be_foreign = reference.after_dollar || reference.parameters.is_some();
        may_be_foreign && !reference.name.starts_with('@') && !self.is_known(reference.name)
    }

    fn reference(&mut self, node: &'a Node, reference: Reference<'a>, depth: usize) -> Option<Node> {
        let Reference { name, optional, parameters, .. } = reference;
        if let Some(parameters) = parameters {
            return self.with_parameters(node, name, parameters, depth);
        }
        if let Some(value) = self.locals.iter().rev().find_map(|locals| locals.get(name)) {
            let value = value.clone();
            return self.charge_copy(node, &value, depth).then_some(value);
        }
        if let Some(value) = self.variables.named.get(name) {
            return Some(node.with_json(value));
        }
        if self.document.get(name).is_some() {
            return self.own_entry(node, name, depth);
        }
        let from_environment = name.strip_prefix('$').and_then(|name| self.variables.environment.get(name));
        if let Some(value) = from_environment {
            return Some(node.replaced(Value::Text(value.clone())));
        }
        if optional {
            return Some(node.replaced(Value::Null));
        }
        self.unknown(node, name);
        None
    }

    /// `{@name:k=v}`: the entry, with variables of its own.
    fn with_parameters(
        &mut self,
        node: &'a Node,
        name: &'a str,
        parameters: &'a str,
        depth: usize,
    ) -> Option<Node> {
        let Some(definition) = self.document.get(name) else {
            if self.is_known(name) {
                self.report(Diagnostic::at(node, code::BAD_REFERENCE, no_format(name, parameters)), node);
            } else {
                self.unknown(node, name);
            }
            return None;
        };
        if depth >= Document::MAX_DEPTH {
            self.too_deep(node);
            return None;
        }
        if definition.kind() != NodeKind::Object {
            let message = match name.starts_with('@') {
                true => format!("`{name}` must be an object to take parameters and is {}", definition.kind()),
                false => no_format(name, parameters),
            };
            let mistake = Diagnostic::at(node, code::BAD_REFERENCE, message);
            self.report(mistake.related(definition, "defined here"), node);
            return None;
        }
        let mut locals = BTreeMap::new();
        for parameter in parts(parameters) {
            let Some((key, value)) = parameter.split_once('=').filter(|(key, _)| !key.trim().is_empty())
            else {
                let message = format!("a parameter is written `name=value`, and this is `{parameter}`");
                self.report(Diagnostic::at(node, code::BAD_REFERENCE, message), node);
                return None;
            };
            locals.insert(key.trim(), self.parameter(node, value, depth + 1)?);
        }
        self.locals.push(locals);
        let value = self.own_entry(node, name, depth);
        self.locals.pop();
        value
    }

    /// As nvflare 2.9.0, `nvflare.fuel.utils.argument_utils` reads it: a number, a truth value, or text.
    fn parameter(&mut self, node: &'a Node, text: &'a str, depth: usize) -> Option<Node> {
        if text.contains('{') {
            return self.text(node, text, depth);
        }
        let trimmed = text.trim();
        let number = trimmed.parse::<i64>().ok().map(serde_json::Number::from);
        let number = number.or_else(|| trimmed.parse::<f64>().ok().and_then(serde_json::Number::from_f64));
        Some(node.replaced(match (number, text.to_ascii_lowercase().as_str()) {
            (Some(number), _) => Value::Number(number),
            (None, "yes" | "true" | "t" | "y") => Value::Bool(true),
            (None, "no" | "false" | "f" | "n") => Value::Bool(false),
            (None, _) => Value::Text(text.to_owned()),
        }))
    }

    fn own_entry(&mut self, node: &'a Node, name: &'a str, depth: usize) -> Option<Node> {
        let definition = self.document.get(name)?;
        let circle = self.pending.iter().position(|pending| *pending == name);
        if circle.is_some() || self.pending.len() >= Variables::MAX_DEPTH {
            let message = match circle {
                Some(from) => {
                    format!("variables need each other: {} -> {name}", self.pending[from..].join(" -> "))
                }
                None => format!("variables need more than {} others", Variables::MAX_DEPTH),
            };
            self.report(Diagnostic::at(node, code::CYCLIC_VARIABLE, message), node);
            return None;
        }
        if !self.referred_to.contains(name) {
            self.referred_to.insert(name.to_owned());
        }
        self.pending.push(name);
        let value = self.node(definition, depth);
        self.pending.pop();
        value
    }

    fn charge(&mut self, node: &Node, cost: usize) -> bool {
        let Some(room) = self.room.checked_sub(cost) else {
            let message = "the document becomes too large by its variables";
            self.report(Diagnostic::at(node, code::TOO_LARGE, message), node);
            return false;
        };
        self.room = room;
        true
    }

    fn charge_copy(&mut self, node: &Node, copied: &Node, depth: usize) -> bool {
        let (cost, height) = measure(copied);
        if depth + height > Document::MAX_DEPTH {
            self.too_deep(node);
            return false;
        }
        self.charge(node, cost)
    }

    fn too_deep(&mut self, node: &Node) {
        let message = "the document becomes too deep by its variables";
        self.report(Diagnostic::at(node, code::TOO_DEEP, message), node);
    }

    fn unknown(&mut self, node: &'a Node, name: &str) {
        let (what, known): (_, Vec<String>) = match name.strip_prefix('$') {
            Some(_) => (
                "environment variable",
                self.variables.environment.keys().map(|name| format!("${name}")).collect(),
            ),
            None => {
                let own = self.document.entries().map(|(key, _)| key.to_owned());
                let local = self.locals.iter().flat_map(BTreeMap::keys).map(|key| (*key).to_owned());
                ("variable", self.variables.named.keys().cloned().chain(own).chain(local).collect())
            }
        };
        let message = format!("unknown {what} `{name}`");
        let help = match name.starts_with('@') {
            true => format!("write an object under the key `{name}`"),
            false => format!("write `{{{name}?}}` if it may be missing, `{{{{` for a brace"),
        };
        let mut mistake = Diagnostic::at(node, code::UNKNOWN_VARIABLE, message).help(help);
        if let Some(near) = suggest(name, known.iter().map(String::as_str)) {
            mistake = mistake.label(format!("did you mean `{near}`?"));
        }
        self.report(mistake, node);
    }

    /// Reports a mistake once for each place and text.
    fn report(&mut self, mistake: Diagnostic, node: &Node) {
        let span = node.span();
        if self.reported.insert((span.start, span.end, mistake.message.clone())) {
            self.mistakes.push(mistake);
        }
    }
}

impl Node {
    /// The same value under the key of another.
    fn keyed_like(mut self, other: &Node) -> Node {
        self.key.clone_from(&other.key);
        self
    }

    /// Another value, all of it at this place.
    fn with_json(&self, json: &serde_json::Value) -> Node {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => Value::Number(number.clone()),
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(items) => {
                Value::List(items.iter().map(|item| self.with_json(item)).collect())
            }
            serde_json::Value::Object(entries) => Value::Object(
                entries.iter().map(|(key, value)| (key.clone(), self.with_json(value))).collect(),
            ),
        };
        self.replaced(value)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Piece<'a> {
    Literal(&'a str),
    Reference(Reference<'a>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Reference<'a> {
    name: &'a str,
    optional: bool,
    /// What stands behind the name's colon.
    parameters: Option<&'a str>,
    after_dollar: bool,
    /// All of it, without the braces.
    written: &'a str,
}

impl<'a> Reference<'a> {
    fn to(name: &'a str) -> Self {
        Reference { name, optional: false, parameters: None, after_dollar: false, written: name }
    }
}

/// What stands in braces that are all of the text, if there are no others in it.
fn whole_reference(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    (!inner.contains(['{', '}'])).then_some(inner)
}

/// The text's literal parts and references, `{{` and `}}` already made single.
fn split(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut literal_start, mut at) = (0, 0);
    while let Some(found) = text[at..].find(['{', '}']) {
        let brace = at + found;
        let rest = &text[brace..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            pieces.push(Piece::Literal(&text[literal_start..=brace]));
            (literal_start, at) = (brace + 2, brace + 2);
            continue;
        }
        let inner = rest.strip_prefix('{').and_then(inside);
        let after_dollar = text[..brace].ends_with('$');
        match inner.and_then(|inner| Some((inner, reference(inner)?))) {
            Some((inner, _)) if after_dollar && inner.starts_with("secret:") => at = brace + 1,
            Some((inner, reference)) => {
                if literal_start < brace {
                    pieces.push(Piece::Literal(&text[literal_start..brace]));
                }
                pieces.push(Piece::Reference(Reference { after_dollar, ..reference }));
                at = brace + inner.len() + 2;
                literal_start = at;
            }
            None => at = brace + 1,
        }
    }
    if literal_start < text.len() {
        pieces.push(Piece::Literal(&text[literal_start..]));
    }
    pieces
}

/// What stands in front of the brace that closes; braces may stand inside of a reference with parameters, which may
/// be so long.
fn inside(text: &str) -> Option<&str> {
    const LONGEST: usize = 1024;
    let mut open = 0_usize;
    for (at, c) in text.char_indices().take(LONGEST) {
        match c {
            '{' if !text.starts_with('@') => return None,
            '{' => open += 1,
            '}' if open == 0 => return Some(&text[..at]),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

/// Parameters, which colons separate where no brace is open.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut open = 0_usize;
    text.split(move |c| {
        match c {
            '{' => open += 1,
            '}' => open = open.saturating_sub(1),
            _ => {}
        }
        c == ':' && open == 0
    })
}

/// What stands between braces, if it is written like a name: a letter, `_`, `$` or `@` first.
fn reference(inner: &str) -> Option<Reference<'_>> {
    let (name, parameters) = match inner.split_once([':', '!']) {
        Some((name, parameters)) => (name, Some(parameters)),
        None => (inner, None),
    };
    let (name, optional) = match name.strip_suffix('?') {
        Some(name) => (name, true),
        None => (name, false),
    };
    let word = name.strip_prefix(['$', '@']).unwrap_or(name);
    let first = word.chars().next()?;
    let rest = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
    ((first.is_alphabetic() || first == '_') && word.chars().all(rest)).then_some(Reference {
        name,
        optional,
        parameters,
        after_dollar: false,
        written: inner,
    })
}

/// What a copy costs, and how many lists and objects lie inside one another.
fn measure(node: &Node) -> (usize, usize) {
    let below = node.items().iter().chain(node.entries().map(|(_, node)| node)).map(measure);
    let (cost, height) = below.fold((0, 0), |(cost, height), (c, h)| (cost + c, height.max(h)));
    let own = usize::from(matches!(node.kind(), NodeKind::List | NodeKind::Object));
    (NODE_COST + node.as_str().map_or(0, str::len) + cost, height + own)
}

fn no_format(name: &str, format: &str) -> String {
    format!("`{format}` is a format, which is not provided; `{{{name}}}` is the value as JSON writes it")
}
