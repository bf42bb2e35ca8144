//! Makes one document of several.

use std::collections::HashMap;

use crate::node::{Document, Node, NodeKind, Value};
use crate::{Diagnostic, Diagnostics, code};

/// Makes one document of several, the earlier ones having precedence.
///
/// New keys are added; objects are merged key by key; the outermost list `components` grows; of two other values
/// of one kind the earlier stays. Other lists must be equal, or hold as many objects, which are merged pairwise.
///
/// Anything else is a conflict. Where nvflare 2.9.0 then silently drops the rest of the later file, checkers
/// included, every conflict is reported here, with both places, and there is no document.
///
/// # Errors
/// All conflicts.
pub fn merge(documents: &[Document]) -> Result<Document, Diagnostics> {
    let mut conflicts = Diagnostics::new();
    let mut documents = documents.iter();
    let Some(first) = documents.next() else { return Document::parse_json("", "{}") };
    let mut root = first.root().clone();
    let mut name = first.name().to_owned();
    for later in documents {
        name = format!("{name}, {}", later.name());
        merge_node(&mut root, later.root(), true, &mut conflicts);
    }
    if conflicts.is_empty() { Ok(Document::from_root(name, root)) } else { Err(conflicts) }
}

fn merge_node(into: &mut Node, from: &Node, at_root: bool, conflicts: &mut Diagnostics) {
    let (into_kind, from_kind) = (into.kind(), from.kind());
    if into_kind != from_kind {
        let message = format!("two files disagree: {from_kind} here, {into_kind} there");
        conflicts.push(conflict(into, from, message));
        return;
    }
    let lists_agree = from_kind != NodeKind::List || list_can_merge(into, from);
    if !lists_agree {
        let message = "two files have different lists, and only `components` may grow";
        conflicts.push(conflict(into, from, message.to_owned()));
        return;
    }
    match (&mut into.value, &from.value) {
        (Value::Object(into), Value::Object(from)) => {
            let known: HashMap<String, usize> =
                into.iter().enumerate().map(|(i, (key, _))| (key.clone(), i)).collect();
            for (key, node) in from {
                match known.get(key) {
                    None => into.push((key.clone(), node.clone())),
                    Some(i) if at_root && key == "components" => append(&mut into[*i].1, node, conflicts),
                    Some(i) => merge_node(&mut into[*i].1, node, false, conflicts),
                }
            }
        }
        (Value::List(into), Value::List(from)) => {
            for (into, from) in into.iter_mut().zip(from) {
                merge_node(into, from, false, conflicts);
            }
        }
        (
            _,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Text(_)
            | Value::List(_)
            | Value::Object(_),
        ) => {}
    }
}

fn append(into: &mut Node, from: &Node, conflicts: &mut Diagnostics) {
    match (&mut into.value, &from.value) {
        (Value::List(into), Value::List(from)) => into.extend(from.iter().cloned()),
        _ => conflicts.push(conflict(into, from, "`components` must be a list in both files".to_owned())),
    }
}

fn list_can_merge(into: &Node, from: &Node) -> bool {
    let objects = |node: &Node| node.items().iter().all(|item| item.kind() == NodeKind::Object);
    let pairwise = into.items().len() == from.items().len() && objects(into) && objects(from);
    pairwise || into.to_json() == from.to_json()
}

fn conflict(into: &Node, from: &Node, message: String) -> Diagnostic {
    Diagnostic::at(from, code::MERGE_CONFLICT, message)
        .label(describe(from))
        .related(into, describe(into))
        .help("make the two agree, or take the value out of one of the files")
}

fn describe(node: &Node) -> String {
    if node.kind() == NodeKind::List {
        format!("a list of {}", node.items().len())
    } else {
        node.kind().to_string()
    }
}
