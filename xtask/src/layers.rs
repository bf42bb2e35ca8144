//! Who may depend on whom: lower layers only, and no runtime below the line where I/O begins.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::shell;

/// What a crate without I/O must not reach, at any depth.
const RUNTIME: [&str; 5] = ["tokio", "tonic", "prost", "rustls", "openssl"];

/// Libraries that only one crate may name.
const SOLE_USERS: [(&str, &str); 9] = [
    ("tonic", "locule-transport-grpc"),
    ("tonic-prost", "locule-transport-grpc"),
    ("tungstenite", "locule-transport-ws"),
    ("async-nats", "locule-transport-nats"),
    ("openssl", "locule-identity-openssl"),
    ("regorus", "locule-policy-rego"),
    ("wasmtime", "locule-policy-wasm"),
    ("tracing-subscriber", "locule"),
    ("anyhow", "locule"),
];

pub(crate) fn run() -> anyhow::Result<()> {
    let violations = check(&metadata()?)?;
    if violations.is_empty() {
        return Ok(());
    }
    bail!("{} violation(s) of the layers:\n  {}", violations.len(), violations.join("\n  "));
}

fn metadata() -> anyhow::Result<Value> {
    let text = shell::cargo_output(&["metadata", "--format-version", "1", "--locked"])?;
    serde_json::from_str(&text).context("cargo metadata is JSON")
}

struct Package {
    name: String,
    shipped: bool,
    layer: Option<u64>,
    pure: bool,
}

/// The violations in what `cargo metadata` says, one sentence each.
fn check(metadata: &Value) -> anyhow::Result<Vec<String>> {
    let packages = packages(metadata)?;
    let edges = edges(metadata)?;
    let mut violations = Vec::new();
    for (id, package) in &packages {
        if !package.shipped {
            continue;
        }
        let name = &package.name;
        let Some(layer) = package.layer else {
            violations.push(format!("{name}: no `layer` in [package.metadata.locule]"));
            continue;
        };
        for to in edges.get(id).into_iter().flatten() {
            let Some(target) = packages.get(to) else { continue };
            if target.shipped && target.layer.is_some_and(|other| other >= layer) {
                let other = target.layer.unwrap_or_default();
                violations.push(format!("{name} (layer {layer}) depends on {} (layer {other})", target.name));
            }
            if let Some((library, user)) = SOLE_USERS.iter().find(|(library, _)| *library == target.name)
                && user != name
            {
                violations.push(format!("{name} names {library}; only {user} may"));
            }
        }
        if layer <= 1 || package.pure {
            for reached in reach(id, &edges).iter().filter_map(|id| packages.get(id)) {
                if RUNTIME.contains(&reached.name.as_str()) {
                    violations.push(format!("{name} performs no I/O, yet reaches {}", reached.name));
                }
            }
        }
    }
    violations.sort();
    Ok(violations)
}

fn packages(metadata: &Value) -> anyhow::Result<BTreeMap<&str, Package>> {
    let members: BTreeSet<&str> = metadata["workspace_members"]
        .as_array()
        .context("members")?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let mut packages = BTreeMap::new();
    for package in metadata["packages"].as_array().context("packages")? {
        let id = package["id"].as_str().context("id")?;
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let own = &package["metadata"]["locule"];
        packages.insert(
            id,
            Package {
                name: package["name"].as_str().context("name")?.to_owned(),
                shipped: members.contains(id) && manifest.contains("/crates/"),
                layer: own["layer"].as_u64(),
                pure: own["pure"].as_bool().unwrap_or(false),
            },
        );
    }
    Ok(packages)
}

/// Resolved edges, without those for tests only.
fn edges(metadata: &Value) -> anyhow::Result<BTreeMap<&str, Vec<&str>>> {
    let mut edges = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().context("nodes")? {
        let to = node["deps"].as_array().into_iter().flatten().filter(|dependency| {
            dependency["dep_kinds"].as_array().into_iter().flatten().any(|kind| kind["kind"] != "dev")
        });
        edges.insert(
            node["id"].as_str().context("id")?,
            to.filter_map(|dependency| dependency["pkg"].as_str()).collect(),
        );
    }
    Ok(edges)
}

fn reach<'a>(from: &'a str, edges: &BTreeMap<&'a str, Vec<&'a str>>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(id) = open.pop() {
        for next in edges.get(id).into_iter().flatten() {
            if seen.insert(*next) {
                open.push(next);
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_keeps_its_layers() {
        let violations = check(&metadata().unwrap()).unwrap();
        assert!(violations.is_empty(), "{violations:#?}");
    }

    /// Adds an edge to what cargo says of the workspace.
    fn with_edge(from: &str, to: &str) -> Vec<String> {
        let mut metadata = metadata().unwrap();
        let id_of = |name: &str, metadata: &Value| {
            let found = metadata["packages"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap();
            found["id"].clone()
        };
        let (from, to) = (id_of(from, &metadata), id_of(to, &metadata));
        let nodes = metadata["resolve"]["nodes"].as_array_mut().unwrap();
        let node = nodes.iter_mut().find(|node| node["id"] == from).unwrap();
        let edge = serde_json::json!({ "pkg": to, "dep_kinds": [{ "kind": null }] });
        node["deps"].as_array_mut().unwrap().push(edge);
        check(&metadata).unwrap()
    }

    #[test]
    fn an_edge_upwards_is_a_violation() {
        let violations = with_edge("locule-message", "locule-switch");
        assert!(violations.iter().any(|v| v.starts_with("locule-message (layer 0)")), "{violations:#?}");
    }

    #[test]
    fn an_edge_to_a_sibling_is_a_violation() {
        let violations = with_edge("locule-frame", "locule-message");
        assert!(violations.iter().any(|v| v.contains("locule-frame (layer 0)")), "{violations:#?}");
    }

    #[test]
    fn a_runtime_below_a_pure_crate_is_a_violation() {
        let violations = with_edge("locule-auth", "tokio");
        assert!(violations.contains(&"locule-auth performs no I/O, yet reaches tokio".to_owned()));
    }

    #[test]
    fn a_second_user_of_tonic_is_a_violation() {
        let violations = with_edge("locule-server", "tonic");
        assert!(violations.contains(&"locule-server names tonic; only locule-transport-grpc may".to_owned()));
    }
}
