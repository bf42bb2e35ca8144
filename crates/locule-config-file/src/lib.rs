//! Finds a configuration file by its name without ending, and reads it in any language.
//!
//! A job's half may be written as `config_fed_client.json`, `.conf`, `.yml`, …, in any subfolder, and the same file
//! must be found as nvflare finds: [`ConfigFile::find_below`]. [`ConfigFile::read`] then makes a [`Document`] of it.
//! What is in it is not known here; see `locule-component`.
//!
//! ```
//! use locule_config_file::ConfigFile;
//!
//! # let scratch = tempfile::tempdir()?; let app = scratch.path();
//! # std::fs::create_dir_all(app.join("config"))?;
//! std::fs::write(app.join("config/config_fed_client.conf"), "format_version = 2 # in HOCON")?;
//! let file = ConfigFile::find_below(&[&app.join("config")], "config_fed_client")?.expect("it was written");
//! assert_eq!(file.name(), "config_fed_client.conf");
//! assert_eq!(file.read()?.root().get("format_version").and_then(|node| node.as_i64()), Some(2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start with [`ConfigFile`].

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use locule_config::{Diagnostic, Diagnostics, Document, Format, Node, code};

/// A configuration file that was found by its name without ending.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigFile {
    /// The file.
    pub path: PathBuf,
    /// Its language.
    pub format: Format,
}

/// Why a configuration file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadConfigError {
    /// The file itself.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is in it.
    #[error("{0}")]
    Mistakes(Diagnostics),
}

impl ConfigFile {
    /// Most files and folders below one folder that are looked at.
    pub const MAX_ENTRIES: usize = 10_000;
    /// Deepest folder that is looked into.
    pub const MAX_DEPTH: usize = 32;

    /// The first file with this name and one of [`Format::ENDINGS`] in or below these folders. An ending that the
    /// name has is not looked at.
    ///
    /// For each folder in turn, for each ending in turn, the folder is walked from the top, subfolders by name;
    /// links are not followed. nvflare walks them in the order in which the file system has them.
    ///
    /// # Errors
    /// A folder that cannot be read, or has too much in it.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.fuel.utils.config_factory`.
    pub fn find_below(folders: &[&Path], name: &str) -> io::Result<Option<ConfigFile>> {
        find(folders, name, Self::MAX_DEPTH)
    }

    /// The same, without looking into subfolders.
    ///
    /// # Errors
    /// As [`ConfigFile::find_below`].
    pub fn find_in(folder: &Path, name: &str) -> io::Result<Option<ConfigFile>> {
        find(&[folder], name, 0)
    }

    /// The names that are looked for, for messages: `meta.json`, `meta.conf`, ….
    pub fn candidates(name: &str) -> impl Iterator<Item = String> {
        let stem = stem(name);
        Format::ENDINGS.iter().map(move |(ending, _)| format!("{stem}{ending}"))
    }

    /// The name by which messages call it.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Reads it, and never more of it than a document may have.
    ///
    /// # Errors
    /// [`ReadConfigError`]; in YAML also the interpolations of OmegaConf (`${x}`), which are not provided.
    pub fn read(&self) -> Result<Document, ReadConfigError> {
        let unreadable = |source| ReadConfigError::Read { file: self.path.clone(), source };
        let mut text = String::new();
        let file = fs::File::open(&self.path).map_err(unreadable)?;
        file.take(Document::MAX_LEN as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
        let document =
            Document::parse_as(self.format, &self.name(), &text).map_err(ReadConfigError::Mistakes)?;
        let mut mistakes = Diagnostics::new();
        if self.format == Format::Yaml {
            interpolations(document.root(), &mut mistakes);
        }
        if mistakes.is_empty() { Ok(document) } else { Err(ReadConfigError::Mistakes(mistakes)) }
    }
}

fn find(folders: &[&Path], name: &str, depth: usize) -> io::Result<Option<ConfigFile>> {
    let stem = stem(name);
    for folder in folders {
        let mut found: Vec<(PathBuf, String)> = Vec::new();
        let mut left = ConfigFile::MAX_ENTRIES;
        walk(folder, depth, &mut left, &mut |folder, name| {
            if name.strip_prefix(stem).is_some_and(|ending| ending.starts_with('.')) {
                found.push((folder.to_owned(), name.to_owned()));
            }
        })?;
        for (ending, format) in Format::ENDINGS {
            let wanted = format!("{stem}{ending}");
            if let Some((folder, name)) = found.iter().find(|(_, name)| *name == wanted) {
                return Ok(Some(ConfigFile { path: folder.join(name), format: *format }));
            }
        }
    }
    Ok(None)
}

/// Shows every file below a folder, those of a folder before those of its subfolders.
fn walk(folder: &Path, depth: usize, left: &mut usize, see: &mut impl FnMut(&Path, &str)) -> io::Result<()> {
    let mut below = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        *left = left.checked_sub(1).ok_or_else(|| {
            let most = ConfigFile::MAX_ENTRIES;
            io::Error::other(format!("more than {most} files and folders to look for a configuration in"))
        })?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            below.push(entry.path());
        } else if let (true, Some(name)) = (kind.is_file(), entry.file_name().to_str()) {
            see(folder, name);
        }
    }
    below.sort();
    if depth > 0 {
        for folder in below {
            walk(&folder, depth - 1, left, see)?;
        }
    }
    Ok(())
}

/// The name up to its first dot.
fn stem(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Reports what OmegaConf, with which nvflare reads YAML, would replace.
fn interpolations(node: &Node, mistakes: &mut Diagnostics) {
    let mut rest = node.as_str().unwrap_or_default();
    while let Some((_, behind)) = rest.split_once("${") {
        if !behind.starts_with("secret:") {
            let message = "`${…}` of OmegaConf is not provided";
            let help = "write `{name}` for an entry of this file, `{$NAME}` for the environment";
            mistakes.push(Diagnostic::at(node, code::NOT_PROVIDED, message).help(help));
            break;
        }
        rest = behind;
    }
    node.items().iter().for_each(|item| interpolations(item, mistakes));
    node.entries().for_each(|(_, node)| interpolations(node, mistakes));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        dir
    }

    /// nvflare 2.9.0 finds the same, but where it is at the mercy of the file system's order.
    #[test]
    fn a_name_is_looked_for_by_ending_then_by_depth() {
        for (files, expected) in [
            (&["c.json", "c.conf", "c.yml"][..], Some("c.json")),
            (&["c.conf", "c.yml", "c.json.default"], Some("c.conf")),
            (&["c.yaml", "c.yml"], Some("c.yml")),
            (&["c.yaml", "c.json.default"], Some("c.yaml")),
            (&["c.yaml.default", "c.conf.default"], Some("c.conf.default")),
            (&["c.conf", "below/c.json"], Some("below/c.json")),
            (&["below/c.json", "c.json"], Some("c.json")),
            (&["b/c.json", "a/c.json"], Some("a/c.json")),
            (&["a/z/c.json", "b/c.json"], Some("a/z/c.json")),
            (&["c.json.bak", "c.txt", "cc.json", "c"], None),
            (&["c.json/x"], None),
        ] {
            let dir = tree(files);
            let found = ConfigFile::find_below(&[dir.path()], "c.json").unwrap();
            let found = found.map(|file| file.path.strip_prefix(dir.path()).unwrap().to_owned());
            assert_eq!(found.as_deref(), expected.map(Path::new), "{files:?}");
        }
    }

    #[test]
    fn folders_come_in_turn_whatever_their_endings() {
        let (first, second) = (tree(&["c.yml.default"]), tree(&["c.json"]));
        let found = ConfigFile::find_below(&[first.path(), second.path()], "c").unwrap().unwrap();
        assert_eq!(found.path, first.path().join("c.yml.default"));
        assert_eq!(found.format, Format::Yaml);
    }

    #[test]
    fn a_file_that_is_wanted_in_a_folder_is_not_looked_for_below() {
        let dir = tree(&["below/meta.json", "meta.conf"]);
        assert_eq!(ConfigFile::find_in(dir.path(), "meta").unwrap().unwrap().name(), "meta.conf");
        assert_eq!(ConfigFile::find_in(&dir.path().join("below"), "other").unwrap(), None);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        let (dir, other) = (tree(&["x"]), tree(&["c.json"]));
        std::os::unix::fs::symlink(other.path(), dir.path().join("folder")).unwrap();
        std::os::unix::fs::symlink(other.path().join("c.json"), dir.path().join("c.json")).unwrap();
        assert_eq!(ConfigFile::find_below(&[dir.path()], "c").unwrap(), None);
    }

    #[test]
    fn interpolations_of_omegaconf_are_refused_and_secrets_are_not() {
        let dir = tree(&[]);
        let path = dir.path().join("c.yml");
        fs::write(&path, "a: ${b}\nb: 1\nc: [\"x ${oc.env:HOME}\", \"${secret:TOKEN}\"]\n").unwrap();
        let file = ConfigFile::find_in(dir.path(), "c").unwrap().unwrap();
        let Err(ReadConfigError::Mistakes(mistakes)) = file.read() else { panic!("they are mistakes") };
        let places: Vec<_> = mistakes.iter().map(|mistake| (mistake.code, mistake.path.as_str())).collect();
        assert_eq!(places, [(code::NOT_PROVIDED, "a"), (code::NOT_PROVIDED, "c.#1")]);
    }
}
