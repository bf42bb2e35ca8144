//! Puts the values of variables in their places.

use std::collections::{BTreeMap, BTreeSet};

use crate::node::{Document, Node, Value};
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
    /// Puts the values of variables in their places. Keys stay as they are.
    ///
    /// | written | becomes |
    /// |---|---|
    /// | `"{name}"`, the whole text | the value with its type: a [`Variables`] entry, else the document's outermost entry |
    /// | `"a {name} b"` | text; numbers and truth values as JSON writes them |
    /// | `"{name?}"` | as above, or null (inside text: nothing) when nothing defines it |
    /// | `"{$NAME}"` | an environment variable |
    /// | `"{{"`, `"}}"` | `{`, `}` |
    /// | `"${secret:…}"`, braces around anything that is no name | as written |
    ///
    /// Where nvflare 2.9.0 makes an unknown name null or leaves it standing, it is a mistake here; and an attribute
    /// of a value (`{x.__class__}`) is a name like any other, which nothing defines.
    ///
    /// # Errors
    /// All unknown names, references in a circle or deeper than [`Variables::MAX_DEPTH`], and a document that
    /// grows out of bounds by it.
    pub fn substitute(&self, variables: &Variables) -> Result<Document, Diagnostics> {
        let mut pass = Pass {
            variables,
            document: self.root(),
            pending: Vec::new(),
            mistakes: Diagnostics::new(),
            reported: BTreeSet::new(),
            room: MAX_GROWTH,
        };
        let root = pass.node(self.root(), 0);
        match root {
            Some(root) if pass.mistakes.is_empty() => Ok(Document::from_root(self.name().to_owned(), root)),
            Some(_) | None => Err(pass.mistakes),
        }
    }
}

/// How large a document may be after substitution: bytes of text, and [`NODE_COST`] for each node.
const MAX_GROWTH: usize = 16 * Document::MAX_LEN;
const NODE_COST: usize = 16;

struct Pass<'a> {
    variables: &'a Variables,
    document: &'a Node,
    /// Names of the document's own entries being looked up, outermost first.
    pending: Vec<&'a str>,
    mistakes: Diagnostics,
    /// Where mistakes were reported already: an entry may be looked up many times.
    reported: BTreeSet<(usize, usize, String)>,
    room: usize,
}

impl<'a> Pass<'a> {
    /// The node with everything below it substituted; `None` after a mistake that leaves no node.
    fn node(&mut self, node: &'a Node, depth: usize) -> Option<Node> {
        if depth > Document::MAX_DEPTH {
            self.report(
                Diagnostic::at(node, code::TOO_DEEP, "the document becomes too deep by its variables"),
                node,
            );
            return None;
        }
        let cost = NODE_COST + node.as_str().map_or(0, str::len);
        let Some(room) = self.room.checked_sub(cost) else {
            self.report(
                Diagnostic::at(node, code::TOO_LARGE, "the document becomes too large by its variables"),
                node,
            );
            return None;
        };
        self.room = room;
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
        let pieces = split(text);
        if let [Piece::Reference(reference)] = pieces.as_slice() {
            let mut value = self.reference(node, *reference, depth)?;
            value.key.clone_from(&node.key);
            return Some(value);
        }
        let mut out = String::new();
        for piece in pieces {
            match piece {
                Piece::Literal(literal) => out.push_str(literal),
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

    fn reference(&mut self, node: &'a Node, reference: Reference<'a>, depth: usize) -> Option<Node> {
        let Reference { name, optional, .. } = reference;
        if name.starts_with('@') {
            let message = format!("`{{{name}}}` is a reference with parameters, which is not provided");
            self.report(Diagnostic::at(node, code::UNSUPPORTED_REFERENCE, message), node);
            return None;
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
        self.pending.push(name);
        let value = self.node(definition, depth);
        self.pending.pop();
        value
    }

    fn unknown(&mut self, node: &'a Node, name: &str) {
        let (what, known): (_, Vec<String>) = match name.strip_prefix('$') {
            Some(_) => (
                "environment variable",
                self.variables.environment.keys().map(|name| format!("${name}")).collect(),
            ),
            None => {
                let own = self.document.entries().map(|(key, _)| key.to_owned());
                ("variable", self.variables.named.keys().cloned().chain(own).collect())
            }
        };
        let message = format!("unknown {what} `{name}`");
        let mut mistake = Diagnostic::at(node, code::UNKNOWN_VARIABLE, message)
            .help(format!("write `{{{name}?}}` if it may be missing, `{{{{` for a brace"));
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
        let inner = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(inner, _)| inner);
        let after_dollar = text[..brace].ends_with('$');
        match inner.and_then(reference).filter(|_| !after_dollar) {
            Some(reference) => {
                if literal_start < brace {
                    pieces.push(Piece::Literal(&text[literal_start..brace]));
                }
                pieces.push(Piece::Reference(reference));
                at = brace + inner.map_or(0, str::len) + 2;
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

/// What stands between braces, if it is written like a name: a letter, `_`, `$` or `@` first.
fn reference(inner: &str) -> Option<Reference<'_>> {
    let (name, optional) = match inner.strip_suffix('?') {
        Some(name) => (name, true),
        None => (inner, false),
    };
    if name.starts_with('@') {
        return Some(Reference { name, optional });
    }
    let word = name.strip_prefix('$').unwrap_or(name);
    let first = word.chars().next()?;
    let rest = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
    ((first.is_alphabetic() || first == '_') && word.chars().all(rest))
        .then_some(Reference { name, optional })
}
