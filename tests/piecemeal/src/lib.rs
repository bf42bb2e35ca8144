//! What cargo knows of the consumers in `consumers/`, each of which takes one crate of the workspace alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// One package of `consumers/`.
#[derive(Debug)]
pub struct Consumer {
    /// Name of the package: `piecemeal-message` for a consumer of `locule-message`.
    pub package: String,
    /// What one would take the crate for.
    pub description: String,
    /// How many crates it may link at most, the taken one included.
    pub at_most: u64,
    /// The libraries that its manifest names.
    pub names: BTreeSet<String>,
}

impl Consumer {
    /// Name of the crate that it takes.
    #[must_use]
    pub fn takes(&self) -> String {
        self.package.replacen("piecemeal", "locule", 1)
    }

    /// What its manifest names beside the crate that it takes.
    pub fn beside(&self) -> impl Iterator<Item = &str> {
        let takes = self.takes();
        self.names.iter().map(String::as_str).filter(move |name| *name != takes)
    }

    /// The crates that end up in it, itself left out; procedural macros only work at build time.
    #[must_use]
    pub fn links(&self) -> BTreeSet<String> {
        self.tree("normal,no-proc-macro")
    }

    /// All crates that are compiled for it, itself left out.
    #[must_use]
    pub fn builds(&self) -> BTreeSet<String> {
        self.tree("normal,build")
    }

    /// Builds it with the features that it asks for and no others, and runs it.
    #[must_use]
    pub fn run(&self) -> Output {
        cargo(&["run", "--quiet", "--locked", "--package", &self.package])
    }

    fn tree(&self, edges: &str) -> BTreeSet<String> {
        let format = ["--prefix", "none", "--format", "{p}"];
        let output = cargo(
            &[&["tree", "--locked", "--package", &self.package, "--edges", edges], &format[..]].concat(),
        );
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let listed = String::from_utf8(output.stdout).expect("cargo speaks UTF-8");
        let crates = listed.lines().map(|line| line.split(" (").next().unwrap_or(line).trim().to_owned());
        crates.filter(|name| !name.starts_with(&format!("{} ", self.package))).collect()
    }
}

/// A crate of `crates/`.
#[derive(Debug)]
pub struct Shipped {
    /// Its name.
    pub name: String,
    /// Whether it promises to perform no I/O.
    pub pure: bool,
    /// Its layer; a crate uses lower ones only.
    pub layer: u64,
}

/// The libraries of `crates/` and the consumers, as the manifests have them.
#[must_use]
pub fn members() -> (Vec<Shipped>, Vec<Consumer>) {
    let output = cargo(&["metadata", "--no-deps", "--locked", "--format-version", "1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let (mut shipped, mut consumers) = (Vec::new(), Vec::new());
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        let (own, role) = (&package["metadata"]["locule"], &package["metadata"]["piecemeal"]);
        let is_library = package["targets"].as_array().into_iter().flatten().any(|t| t["kind"][0] == "lib");
        if let Some(at_most) = role["at-most"].as_u64() {
            let dependencies = package["dependencies"].as_array().into_iter().flatten();
            let used = dependencies.filter(|one| one["kind"].is_null());
            let names = used.filter_map(|one| one["name"].as_str()).map(str::to_owned).collect();
            consumers.push(Consumer {
                package: text("name"),
                description: text("description"),
                at_most,
                names,
            });
        } else if let (Some(layer), true) = (own["layer"].as_u64(), is_library) {
            let pure = layer <= 1 || own["pure"].as_bool().unwrap_or(false);
            shipped.push(Shipped { name: text("name"), pure, layer });
        }
    }
    shipped.sort_by(|a, b| (a.layer, &a.name).cmp(&(b.layer, &b.name)));
    (shipped, consumers)
}

fn cargo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().expect("cargo runs")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
