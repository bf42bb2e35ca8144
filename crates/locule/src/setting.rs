//! Settings of a kit that the binary itself reads, from its merged `resources.json`.

use anyhow::anyhow;
use locule_config::{Diagnostic, Node};
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use crate::exit::{Code, Failure};

/// Reads the setting `key`. What it does not know is a mistake, with its place.
pub(crate) fn read<T: DeserializeOwned>(node: &Node, key: &'static str) -> Result<T, Failure> {
    let json = node.to_json();
    if !json.is_object() {
        return Err(mistake(node, key, "expected an object"));
    }
    serde_path_to_error::deserialize(json).map_err(|error| {
        let at = find(node, error.path());
        mistake(at, key, &error.inner().to_string())
    })
}

/// A mistake in the setting `key`.
pub(crate) fn mistake(at: &Node, key: &'static str, why: &str) -> Failure {
    let mistake = Diagnostic::at(at, key, why);
    Failure::new(Code::Config, anyhow!("`{key}` of the kit cannot be used\n\n{mistake}"))
}

/// The deepest part of a document on this path.
fn find<'a>(root: &'a Node, path: &serde_path_to_error::Path) -> &'a Node {
    let mut at = root;
    for segment in path {
        match segment {
            Segment::Map { key } => match at.get(key) {
                Some(inner) => at = inner,
                None => return at,
            },
            Segment::Seq { .. } | Segment::Enum { .. } | Segment::Unknown => return at,
        }
    }
    at
}
