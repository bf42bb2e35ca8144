//! Values that know where they were written.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde_json::Number;

use crate::{Diagnostic, Diagnostics, code, json};

/// A configuration: one file, or several merged into one.
#[derive(Clone)]
pub struct Document {
    name: String,
    root: Node,
    referred_to: BTreeSet<String>,
}

impl Document {
    /// Longest text that is read, in bytes.
    pub const MAX_LEN: usize = 1 << 20;
    /// How many lists and objects may lie inside one another.
    pub const MAX_DEPTH: usize = 128;

    /// Reads JSON; comments (`//` and `/* */`) are allowed. `name` is how the file is called in messages.
    ///
    /// # Errors
    /// Every mistake that can be told apart from its neighbours, among them keys that occur twice.
    pub fn parse_json(name: &str, text: &str) -> Result<Document, Diagnostics> {
        Document::parse(name, text, json::parse)
    }

    /// Reads YAML: one document, whose plain words mean what they mean to PyYAML (`yes`, `0x10`, `~`; dates and
    /// `1:30` stay text). Aliases and `<<` are followed, within bounds; tags are refused, but for those of the
    /// core schema. `name` is how the file is called in messages.
    ///
    /// # Errors
    /// The first mistake of the grammar, and every other one in front of it, among them keys that occur twice.
    #[cfg(feature = "yaml")]
    pub fn parse_yaml(name: &str, text: &str) -> Result<Document, Diagnostics> {
        Document::parse(name, text, crate::yaml::parse)
    }

    /// Reads HOCON, as far as a configuration needs it: comments, keys and text without quotes, dotted keys, fields
    /// written several times, `+=`, values side by side, `${x}` and `${?x}`, text in three quotes. References see
    /// the file only, never the environment; `include` is refused; `5 seconds` and `10 MB` stay text. `name` is how
    /// the file is called in messages.
    ///
    /// # Errors
    /// The first mistake of the grammar, and every other one in front of it; else every reference to nothing.
    pub fn parse_hocon(name: &str, text: &str) -> Result<Document, Diagnostics> {
        Document::parse(name, text, crate::hocon::parse)
    }

    fn parse(
        name: &str,
        text: &str,
        parse: impl FnOnce(&Arc<Source>) -> Result<Node, Diagnostics>,
    ) -> Result<Document, Diagnostics> {
        let source = Arc::new(Source::new(name, text));
        if text.len() > Self::MAX_LEN {
            let place = Origin { source, span: Span { start: 0, end: 0 } };
            let message = format!("the file has {} bytes, more than {}", text.len(), Self::MAX_LEN);
            return Err(Diagnostic::new(code::TOO_LARGE, message, &place, String::new()).into());
        }
        let root = parse(&source)?;
        if root.kind() != NodeKind::Object {
            let message = format!("the file holds {} where an object is expected", root.kind());
            return Err(Diagnostic::at(&root, code::NOT_AN_OBJECT, message).into());
        }
        Ok(Document::from_root(name.to_owned(), root))
    }

    /// Names of the files, joined with commas.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a variable somewhere in the document stood for this outermost entry before it was
    /// [substituted](Document::substitute).
    pub fn is_referred_to(&self, key: &str) -> bool {
        self.referred_to.contains(key)
    }

    pub(crate) fn with_references(self, referred_to: BTreeSet<String>) -> Document {
        Document { referred_to, ..self }
    }

    /// The outermost object.
    pub fn root(&self) -> &Node {
        &self.root
    }

    pub(crate) fn from_root(name: String, mut root: Node) -> Document {
        root.relabel(None);
        Document { name, root, referred_to: BTreeSet::new() }
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("name", &self.name).field("root", &self.root).finish()
    }
}

/// A value and where it was written.
#[derive(Clone)]
pub struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
    pub(crate) key: Option<Origin>,
    step: Option<Arc<Step>>,
}

impl Node {
    pub(crate) fn new(value: Value, source: &Arc<Source>, span: Span) -> Node {
        Node { value, origin: Origin { source: Arc::clone(source), span }, key: None, step: None }
    }

    /// Another value at the same place.
    pub(crate) fn replaced(&self, value: Value) -> Node {
        Node { value, origin: self.origin.clone(), key: self.key.clone(), step: self.step.clone() }
    }

    /// What sort of value it is.
    pub fn kind(&self) -> NodeKind {
        match &self.value {
            Value::Null => NodeKind::Null,
            Value::Bool(_) => NodeKind::Bool,
            Value::Number(_) => NodeKind::Number,
            Value::Text(_) => NodeKind::Text,
            Value::List(_) => NodeKind::List,
            Value::Object(_) => NodeKind::Object,
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(value) = &self.value { Some(*value) } else { None }
    }

    /// The number, if it is whole and fits.
    pub fn as_i64(&self) -> Option<i64> {
        if let Value::Number(number) = &self.value { number.as_i64() } else { None }
    }

    /// The number, if it is whole, not negative, and fits.
    pub fn as_u64(&self) -> Option<u64> {
        if let Value::Number(number) = &self.value { number.as_u64() } else { None }
    }

    /// The number, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        if let Value::Number(number) = &self.value { number.as_f64() } else { None }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The entry of an object, if this is one and has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().find(|(known, _)| *known == key).map(|(_, node)| node)
    }

    /// Entries in the order written; none if this is not an object.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Node)> {
        let entries: &[(String, Node)] = if let Value::Object(entries) = &self.value { entries } else { &[] };
        entries.iter().map(|(key, node)| (key.as_str(), node))
    }

    /// [`Node::entries`] with their keys as they are kept.
    pub(crate) fn children(&self) -> std::slice::Iter<'_, (String, Node)> {
        if let Value::Object(entries) = &self.value { entries.iter() } else { [].iter() }
    }

    /// Items in order; none if this is not a list.
    pub fn items(&self) -> &[Node] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    /// The node below this one that the steps lead to: keys, and `#1`, `#2`, … for items of lists.
    pub fn find(&self, steps: &[&str]) -> Option<&Node> {
        steps.iter().try_fold(self, |node, step| match (&node.value, step.strip_prefix('#')) {
            (Value::List(items), Some(number)) => items.get(number.parse::<usize>().ok()?.checked_sub(1)?),
            _ => node.get(step),
        })
    }

    /// The path from the root: `executors.#1.executor`, items of lists counted from 1. Empty for the root.
    pub fn path(&self) -> String {
        self.steps().join(".")
    }

    /// The steps from the root, as [`Node::find`] takes them: unlike [`Node::path`] they lead to this node alone,
    /// whatever the keys hold.
    pub fn steps(&self) -> Vec<String> {
        let mut parts = Vec::new();
        let mut next = self.step.as_deref();
        while let Some(step) = next {
            parts.push(match &step.part {
                Part::Key(key) => key.to_string(),
                Part::Item(number) => format!("#{number}"),
            });
            next = step.parent.as_deref();
        }
        parts.reverse();
        parts
    }

    /// Name of the file that it was written in.
    pub fn file(&self) -> &str {
        &self.origin.source.name
    }

    /// Bytes of its text in the file.
    pub fn span(&self) -> Span {
        self.origin.span
    }

    /// Line and column where it begins.
    pub fn place(&self) -> Place {
        self.origin.place()
    }

    /// The value alone, without places.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(number) => serde_json::Value::Number(number.clone()),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Object(entries) => {
                let entries = entries.iter().map(|(key, node)| (key.clone(), node.to_json()));
                serde_json::Value::Object(entries.collect())
            }
        }
    }

    /// Where its key was written; where it was written itself if it has none.
    pub(crate) fn key_origin(&self) -> &Origin {
        self.key.as_ref().unwrap_or(&self.origin)
    }

    /// Tells this node and all below it their path.
    fn relabel(&mut self, step: Option<Arc<Step>>) {
        let below = |part| Some(Arc::new(Step { parent: step.clone(), part }));
        match &mut self.value {
            Value::Object(entries) => {
                for (key, node) in entries {
                    node.relabel(below(Part::Key(key.as_str().into())));
                }
            }
            Value::List(items) => {
                for (index, node) in items.iter_mut().enumerate() {
                    node.relabel(below(Part::Item(index + 1)));
                    node.key = None;
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => {}
        }
        self.step = step;
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column } = self.place();
        write!(f, "{} at {}:{line}:{column}", self.to_json(), self.file())
    }
}

/// What sort of value a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// Whole or not.
    Number,
    /// In quotes.
    Text,
    /// In brackets.
    List,
    /// In braces.
    Object,
}

/// With its article: "a number".
impl fmt::Display for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeKind::Null => "null",
            NodeKind::Bool => "a truth value",
            NodeKind::Number => "a number",
            NodeKind::Text => "text",
            NodeKind::List => "a list",
            NodeKind::Object => "an object",
        })
    }
}

/// Bytes of a file, from `start` up to and without `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Byte behind the last.
    pub end: usize,
}

/// Line and column, both counted from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Lines end with a line feed.
    pub line: usize,
    /// A tab is one character.
    pub column: usize,
}

/// One file's text under its name.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
    /// Where each line begins, in bytes.
    line_starts: Vec<usize>,
}

impl Source {
    pub(crate) fn new(name: &str, text: &str) -> Source {
        let after_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(after_breaks).collect();
        Source { name: name.to_owned(), text: text.to_owned(), line_starts }
    }

    /// Where the line of a byte begins, and where it ends before its break.
    pub(crate) fn line_around(&self, at: usize) -> (usize, usize) {
        let next = self.line_starts.partition_point(|start| *start <= at);
        let end = self.line_starts.get(next).map_or(self.text.len(), |start| start - 1);
        (self.line_starts[next - 1], end)
    }

    fn line_number(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at)
    }
}

/// A span of a file.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) source: Arc<Source>,
    pub(crate) span: Span,
}

impl Origin {
    pub(crate) fn place(&self) -> Place {
        let at = self.span.start;
        let (line_start, _) = self.source.line_around(at);
        Place {
            line: self.source.line_number(at),
            column: self.source.text[line_start..at].chars().count() + 1,
        }
    }
}

#[derive(Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// One step of a path; paths share their beginnings, so that deep documents stay small.
struct Step {
    parent: Option<Arc<Step>>,
    part: Part,
}

enum Part {
    Key(Arc<str>),
    Item(usize),
}
