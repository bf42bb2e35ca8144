//! What stands for what in a HOCON document: fields written several times, references, joined values.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{Expr, Fields, Part, Piece, Reference};
use crate::node::{Document, Node, NodeKind, Origin, Source, Span, Value};
use crate::{Diagnostic, Diagnostics, code, suggest};

/// How many references may be needed one inside another.
const MAX_LOOKUPS: usize = 32;
/// How much work a document may cause: bytes of text, [`STEP`] for each value that is made, [`COPY`] for each that is
/// copied, [`LOOKUP`] for each reference that is followed.
const MAX_WORK: usize = 16 * Document::MAX_LEN;
const STEP: usize = 16;
const COPY: usize = 64;
const LOOKUP: usize = 256;

pub(super) fn resolve(source: &Arc<Source>, root: &Expr) -> Result<Node, Diagnostics> {
    let no_fields = Fields::default();
    let fields = match root.pieces.as_slice() {
        [Piece { part: Part::Object(fields), .. }] => fields,
        _ => &no_fields,
    };
    let mut resolver = Resolver {
        source,
        root: fields,
        pending: Vec::new(),
        path: Vec::new(),
        depth: 0,
        lookups: 0,
        room: Some(MAX_WORK),
        mistakes: Diagnostics::new(),
        reported: BTreeSet::new(),
    };
    let node = resolver.expr(root);
    match node {
        Some(node) if resolver.mistakes.is_empty() => Ok(node),
        Some(_) | None => Err(resolver.mistakes),
    }
}

struct Resolver<'a> {
    source: &'a Arc<Source>,
    root: &'a Fields,
    /// Fields being made, and what the text above the value being made says of each.
    pending: Vec<(Vec<String>, Option<Node>)>,
    path: Vec<String>,
    depth: usize,
    lookups: usize,
    /// `None` when the document has caused too much work.
    room: Option<usize>,
    mistakes: Diagnostics,
    /// Where mistakes were reported already: a field may be looked up many times.
    reported: BTreeSet<(usize, usize, String)>,
}

/// Something that the text says of a field.
enum Saying<'a> {
    Here(&'a Expr),
    /// The field of an object that another object refers to.
    There(Reference, Span),
}

impl<'a> Resolver<'a> {
    /// The value of a field that the text says these things of; `None` if it has none.
    fn field(&mut self, sayings: Vec<Saying<'a>>, above: Option<Node>) -> Option<Node> {
        let mut value = above;
        for saying in sayings {
            self.pending.push((self.path.clone(), value));
            let new = match &saying {
                Saying::Here(expr) => self.expr(expr),
                Saying::There(reference, span) => self.lookup(reference, *span),
            };
            let old = self.pending.pop().and_then(|(_, old)| old);
            value = match (old, new, saying) {
                (Some(mut old), Some(new), Saying::There(..)) => {
                    overlay(&mut old, new);
                    Some(old)
                }
                (old, new, _) => new.or(old),
            };
        }
        value
    }

    /// A joined value. `None` when it is nothing: an optional reference to what does not exist.
    fn expr(&mut self, expr: &'a Expr) -> Option<Node> {
        let above = self.above(expr);
        if let Some(above) = &above {
            self.charge_copy(above, expr.span)?;
        }
        let is_object = |node: &Node| node.kind() == NodeKind::Object;
        let mut under = above.as_ref().filter(|above| is_object(above) && !expr.appends).cloned();
        let (mut has_object, mut parts, mut gap) = (false, Vec::new(), String::new());
        for piece in &expr.pieces {
            if !self.charge(STEP, piece.span) {
                return None;
            }
            let node = match &piece.part {
                Part::Scalar(value) => Some(Node::new(value.clone(), self.source, piece.span)),
                Part::List(items) => self.list(items, piece.span),
                Part::Object(fields) => self.object(fields, under.as_ref(), piece.span),
                Part::Reference(reference) => self.lookup(reference, piece.span),
            };
            gap.push_str(&self.source.text[piece.span.start - piece.space..piece.span.start]);
            let Some(node) = node else { continue };
            if is_object(&node) && parts.is_empty() {
                has_object = true;
                match &mut under {
                    Some(under) => overlay(under, node),
                    None => under = Some(node),
                }
            } else {
                parts.push((std::mem::take(&mut gap), node));
            }
        }
        let object = under.filter(|_| has_object);
        let value = match (object, parts.len()) {
            (object, 0) => object?,
            (None, 1) => parts.pop()?.1,
            (object, _) => self.joined(object, parts, expr.span)?,
        };
        if expr.appends { self.appended(above, value, expr.span) } else { Some(value) }
    }

    /// What the text above says of the field being made, if the value goes on from there.
    fn above(&self, expr: &Expr) -> Option<Node> {
        let (path, above) = self.pending.last()?;
        let above = above.as_ref().filter(|_| *path == self.path)?;
        let first = expr.pieces.first().map(|piece| &piece.part);
        let goes_on = match above.kind() {
            NodeKind::Object => matches!(first, Some(Part::Object(_) | Part::Reference(_))),
            NodeKind::Null | NodeKind::Bool | NodeKind::Number | NodeKind::Text | NodeKind::List => false,
        };
        (goes_on || expr.appends).then(|| above.clone())
    }

    fn object(&mut self, fields: &'a Fields, under: Option<&Node>, span: Span) -> Option<Node> {
        self.deeper(span)?;
        let mut entries = Vec::new();
        for field in &fields.list {
            let above = under.and_then(|under| under.get(&field.key)).cloned();
            if above.as_ref().is_some_and(|above| self.charge_copy(above, field.key_span).is_none()) {
                continue;
            }
            self.path.push(field.key.clone());
            let value = self.field(field.values.iter().map(Saying::Here).collect(), above);
            self.path.pop();
            if let Some(mut value) = value {
                value.key = Some(self.origin(field.key_span));
                entries.push((field.key.clone(), value));
            }
        }
        self.depth -= 1;
        Some(Node::new(Value::Object(entries), self.source, span))
    }

    fn list(&mut self, items: &'a [Expr], span: Span) -> Option<Node> {
        self.deeper(span)?;
        let mut nodes = Vec::new();
        for (index, item) in items.iter().enumerate() {
            self.path.push(format!("#{}", index + 1));
            nodes.extend(self.expr(item));
            self.path.pop();
        }
        self.depth -= 1;
        Some(Node::new(Value::List(nodes), self.source, span))
    }

    /// Several values, one behind the other: lists become one list, everything else but objects text.
    fn joined(&mut self, objects: Option<Node>, parts: Vec<(String, Node)>, span: Span) -> Option<Node> {
        let is_list = |node: &Node| node.kind() == NodeKind::List;
        if objects.is_none() && parts.iter().all(|(_, node)| is_list(node)) {
            let items = parts.into_iter().flat_map(|(_, node)| node.items().to_vec()).collect();
            return Some(Node::new(Value::List(items), self.source, span));
        }
        let mut text = String::new();
        let odd = objects.as_ref().or_else(|| {
            let odd = |node: &&Node| matches!(node.kind(), NodeKind::List | NodeKind::Object);
            parts.iter().map(|(_, node)| node).find(odd)
        });
        if let Some(odd) = odd {
            let message = format!("{} cannot be joined with other values", odd.kind());
            let mistake = self.mistake(code::NOT_TEXT, message, span);
            self.report(mistake.help("put a comma or a line break between two values"), span);
            return None;
        }
        for (index, (gap, node)) in parts.iter().enumerate() {
            if index > 0 {
                text.push_str(gap);
            }
            let Span { start, end } = node.span();
            text.push_str(node.as_str().unwrap_or(&self.source.text[start..end]));
        }
        self.charge(text.len(), span).then(|| Node::new(Value::Text(text), self.source, span))
    }

    /// `+=`: the items of a list, or any other value as an item, behind those that are there.
    fn appended(&mut self, above: Option<Node>, value: Node, span: Span) -> Option<Node> {
        let mut items = match above {
            None => Vec::new(),
            Some(above) if above.kind() == NodeKind::List => above.items().to_vec(),
            Some(above) => {
                let message = format!("`+=` adds to a list, and there is {}", above.kind());
                let mistake = self.mistake(code::NOT_TEXT, message, span).related(&above, "this");
                self.report(mistake, span);
                return None;
            }
        };
        if value.kind() == NodeKind::List {
            items.extend(value.items().iter().cloned())
        } else {
            items.push(value)
        }
        Some(Node::new(Value::List(items), self.source, span))
    }

    /// What a reference stands for. A field that is being made stands for what the text above says of it.
    fn lookup(&mut self, reference: &Reference, span: Span) -> Option<Node> {
        if !self.charge(LOOKUP, span) {
            return None;
        }
        let name = reference.path.join(".");
        if let Some((_, above)) = self.pending.iter().rev().find(|(path, _)| *path == reference.path) {
            let above = above.clone();
            match &above {
                Some(above) => self.charge_copy(above, span)?,
                None if !reference.optional => {
                    let message = format!("`${{{name}}}` needs itself");
                    self.report(self.mistake(code::CYCLIC_VARIABLE, message, span), span);
                }
                None => {}
            }
            return above;
        }
        if self.lookups >= MAX_LOOKUPS {
            let message = format!("references need more than {MAX_LOOKUPS} others");
            self.report(self.mistake(code::CYCLIC_VARIABLE, message, span), span);
            return None;
        }
        let sayings = self.sayings(&reference.path, span)?;
        let is_known = !sayings.is_empty();
        let path = std::mem::replace(&mut self.path, reference.path.clone());
        let so_far = self.mistakes.len();
        self.lookups += 1;
        let value = self.field(sayings, None);
        self.lookups -= 1;
        self.path = path;
        if value.is_none() && !reference.optional && (!is_known || so_far == self.mistakes.len()) {
            self.unknown(&reference.path, &name, span);
        }
        value
    }

    /// Everything that the text says of a field, without making anything of it.
    fn sayings(&mut self, path: &[String], span: Span) -> Option<Vec<Saying<'a>>> {
        let (first, rest) = path.split_first()?;
        let values = self.root.get(first).map(|field| field.values.as_slice()).unwrap_or_default();
        let mut sayings: Vec<Saying<'a>> = values.iter().map(Saying::Here).collect();
        for key in rest {
            let mut below = Vec::new();
            for saying in sayings {
                if !self.charge(STEP, span) {
                    return None;
                }
                match saying {
                    Saying::There(reference, span) => below.push(Saying::There(reference.below(key), span)),
                    Saying::Here(expr) if expr.appends || !may_be_object(expr) => below.clear(),
                    Saying::Here(expr) => {
                        below.extend(expr.pieces.iter().flat_map(|piece| match &piece.part {
                            Part::Object(fields) => {
                                let values = fields.get(key).map(|field| field.values.as_slice());
                                values.unwrap_or_default().iter().map(Saying::Here).collect()
                            }
                            Part::Reference(reference) => {
                                vec![Saying::There(reference.below(key), piece.span)]
                            }
                            Part::Scalar(_) | Part::List(_) => Vec::new(),
                        }))
                    }
                }
            }
            sayings = below;
        }
        Some(sayings)
    }

    fn unknown(&mut self, path: &[String], name: &str, span: Span) {
        let mut siblings = self.root;
        for key in &path[..path.len() - 1] {
            let value = siblings.get(key).and_then(|field| field.values.last());
            match value.map(|value| value.pieces.as_slice()) {
                Some([Piece { part: Part::Object(fields), .. }]) => siblings = fields,
                _ => break,
            }
        }
        let last = path.last().map(String::as_str).unwrap_or_default();
        let near = suggest(last, siblings.list.iter().map(|field| field.key.as_str()));
        let mut mistake = self.mistake(code::UNKNOWN_VARIABLE, format!("nothing defines `{name}`"), span);
        if let Some(near) = near {
            mistake = mistake.label(format!("did you mean `{near}`?"));
        }
        let help = format!(
            "`${{…}}` sees this file only, and no environment; write `${{?{name}}}` if it may be missing, \
             and `\"{{{name}}}\"` in quotes for a variable of the job"
        );
        self.report(mistake.help(help), span);
    }

    fn deeper(&mut self, span: Span) -> Option<()> {
        self.deep_enough(1, span)?;
        self.depth += 1;
        Some(())
    }

    fn deep_enough(&mut self, more: usize, span: Span) -> Option<()> {
        if self.depth + more <= Document::MAX_DEPTH {
            return Some(());
        }
        let message = format!("more than {} lists and objects inside one another", Document::MAX_DEPTH);
        self.report(self.mistake(code::TOO_DEEP, message, span), span);
        None
    }

    /// Counts a value that is copied, all of it.
    fn charge_copy(&mut self, node: &Node, span: Span) -> Option<()> {
        let (work, height) = measure(node);
        self.deep_enough(height, span)?;
        self.charge(work, span).then_some(())
    }

    fn charge(&mut self, work: usize, span: Span) -> bool {
        let Some(room) = self.room else { return false };
        self.room = room.checked_sub(work);
        if self.room.is_none() {
            let message = "the document becomes too large by its references";
            self.report(self.mistake(code::TOO_LARGE, message, span), span);
        }
        self.room.is_some()
    }

    fn origin(&self, span: Span) -> Origin {
        Origin { source: Arc::clone(self.source), span }
    }

    fn mistake(&self, code: &'static str, message: impl Into<String>, span: Span) -> Diagnostic {
        Diagnostic::new(code, message, &self.origin(span), self.path.join("."))
    }

    /// Reports a mistake once for each place and text.
    fn report(&mut self, mistake: Diagnostic, span: Span) {
        if self.reported.insert((span.start, span.end, mistake.message.clone())) {
            self.mistakes.push(mistake);
        }
    }
}

impl Reference {
    /// The same field of what this refers to, if there is one.
    fn below(&self, key: &str) -> Reference {
        let path = self.path.iter().cloned().chain([key.to_owned()]).collect();
        Reference { path, optional: true }
    }
}

fn may_be_object(expr: &Expr) -> bool {
    expr.pieces.iter().all(|piece| matches!(piece.part, Part::Object(_) | Part::Reference(_)))
}

/// Puts the later value over the earlier one; of two objects, entry by entry.
fn overlay(under: &mut Node, over: Node) {
    let Value::Object(into) = &mut under.value else {
        *under = over;
        return;
    };
    if over.kind() != NodeKind::Object {
        *under = over;
        return;
    }
    let known: HashMap<String, usize> =
        into.iter().enumerate().map(|(index, (key, _))| (key.clone(), index)).collect();
    let Value::Object(from) = over.value else { return };
    for (key, node) in from {
        match known.get(&key) {
            Some(index) => overlay(&mut into[*index].1, node),
            None => into.push((key, node)),
        }
    }
}

/// How much work a copy is, and how many lists and objects lie inside one another.
fn measure(node: &Node) -> (usize, usize) {
    let below = node.items().iter().chain(node.entries().map(|(_, node)| node)).map(measure);
    let (work, height) = below.fold((0, 0), |(work, height), (w, h)| (work + w, height.max(h)));
    let own = usize::from(matches!(node.kind(), NodeKind::List | NodeKind::Object));
    (COPY + node.as_str().map_or(0, str::len) + work, height + own)
}
