//! What no compiler checks: how a crate opens, what generated code shows, what must not be written.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::shell;

/// A file longer than this has more than one subject.
const LONGEST: usize = 900;

/// Prefixes of absolute paths; one of them in a tracked file names somebody's machine.
const MACHINE_PATHS: [&str; 2] = ["/home/", "/Users/"];

pub(crate) fn run() -> anyhow::Result<()> {
    let violations = check(&shell::root())?;
    if violations.is_empty() {
        return Ok(());
    }
    bail!("{} thing(s) to tidy:\n  {}", violations.len(), violations.join("\n  "));
}

fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut violations = Vec::new();
    for file in tracked(root)? {
        let Ok(text) = std::fs::read_to_string(root.join(&file)) else { continue };
        let name = file.display().to_string();
        violations.extend(judge(&name, &text));
    }
    Ok(violations)
}

fn tracked(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output =
        Command::new("git").args(["ls-files", "-z"]).current_dir(root).output().context("run git")?;
    let names = String::from_utf8(output.stdout)?;
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect())
}

/// What is untidy in one file.
fn judge(name: &str, text: &str) -> Vec<String> {
    let mut violations = Vec::new();
    let vectors = name.starts_with("tests/vectors/") || name == "Cargo.lock";
    if !vectors && !name.starts_with("xtask/src/tidy.rs") {
        for (number, line) in text.lines().enumerate() {
            if let Some(path) = MACHINE_PATHS.iter().find(|path| names_a_machine(line, path)) {
                violations.push(format!("{name}:{}: `{path}` is a path of a machine", number + 1));
            }
        }
    }
    let generated = text.contains("@generated") && !name.starts_with("xtask/");
    if name.ends_with(".rs") && !generated && text.lines().count() > LONGEST {
        violations.push(format!("{name}: more than {LONGEST} lines; does it still have one subject?"));
    }
    if name.ends_with("src/lib.rs") && name.starts_with("crates/") {
        if !text.starts_with("//! ") {
            violations.push(format!("{name}: a crate opens with one sentence of what it does"));
        }
        if !text.contains("//! ```") {
            violations.push(format!("{name}: a crate shows its smallest complete example"));
        }
        for line in text.lines().filter(|line| line.starts_with("pub mod") || line.starts_with("pub use")) {
            if line.contains("streamer") || line.contains("generated") {
                violations.push(format!("{name}: generated code is private, yet `{line}`"));
            }
        }
    }
    violations
}

/// Whether `line` holds `prefix` at the beginning of a path, followed by a name.
fn names_a_machine(line: &str, prefix: &str) -> bool {
    line.match_indices(prefix).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + prefix.len()..].chars().next();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-/}>".contains(c))
            && after.is_some_and(char::is_alphanumeric)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        let violations = check(&shell::root()).unwrap();
        assert!(violations.is_empty(), "{violations:#?}");
    }

    #[test]
    fn planted_violations_are_found() {
        assert_eq!(judge("crates/x/src/lib.rs", "fn main() {}\n").len(), 2);
        assert_eq!(judge("README.md", "see /home/jane/locule\n").len(), 1);
        assert_eq!(judge("README.md", "mounted at $KIT/home/x\n").len(), 0);
        let long = "//! A.\n//! ```\n".to_owned() + &"\n".repeat(LONGEST + 1);
        assert_eq!(judge("crates/x/src/y.rs", &long).len(), 1);
        let open = "//! A.\n//! ```\npub mod generated;\n";
        assert_eq!(judge("crates/x/src/lib.rs", open).len(), 1);
    }
}
