//! Checkers that are files of the site: what an entry says of one, and the seam through which it is opened.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use locule_component::{Checker, Kind, Registry};
use locule_config::{Diagnostic, Diagnostics, Node, NodeKind, suggest};
use serde_json::{Map, Value as Json};

use crate::code;
use crate::moderation::{Mode, OnError};

/// Opens checkers that are files of the site.
///
/// It reads the file, holds it to the entry's digest, and makes sure that it is one that can judge, before any
/// plan comes.
pub trait CheckerFiles: Send + Sync + fmt::Debug {
    /// Makes the checker that the entry means.
    ///
    /// # Errors
    /// Every mistake that keeps it from judging, each of which stops the job or the site: see
    /// [`FileChecker::mistake`].
    fn open(&self, entry: &FileChecker) -> Result<Arc<dyn Checker>, Diagnostics>;
}

/// Opens none: for programs in which every checker is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoCheckerFiles;

impl CheckerFiles for NoCheckerFiles {
    fn open(&self, entry: &FileChecker) -> Result<Arc<dyn Checker>, Diagnostics> {
        Err(entry.mistake("nothing is registered under that name, and this program opens no files").into())
    }
}

/// An entry under `components` of a site's configuration that names a file in `local/custom`.
///
/// | key | meaning |
/// |---|---|
/// | `id` | its name in verdicts |
/// | `path` | `NAME.rego`, `NAME.wasm`, or `module.Class` for a class in `module.py` |
/// | `args` | an object that the checker gets to see; `{}` |
/// | `mode` | `enforce`, `warn`, `audit`: what becomes of its denials; `enforce` |
/// | `on_error` | `deny`, `warn`: what becomes of a plan that it could not judge; `deny`, but `warn` beside a `mode` that refuses nothing |
/// | `digest` | `sha256:` and 64 digits, what the file must be |
/// | `limits` | `time_ms` for one review (2000), `memory_mib` (512), `fuel` for WebAssembly |
/// | `python` | absolute path of the interpreter |
/// | `disabled` | `true` leaves it out |
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FileChecker {
    /// Its name in verdicts.
    pub id: String,
    /// In which language it is written.
    pub language: Language,
    /// The file, below [`FileChecker::folder`].
    pub file: PathBuf,
    /// The folder that it must not lead out of: the kit's `local/custom`.
    pub folder: PathBuf,
    /// What the operator wants it to know: an object.
    pub args: Json,
    /// SHA-256 that the file must have, as 64 lower-case hexadecimal digits.
    pub digest: Option<String>,
    /// What it may use up.
    pub limits: CheckerLimits,
    /// The interpreter of a checker in Python; without it, the `python3` of the search path.
    pub python: Option<PathBuf>,
    pub(crate) mode: Mode,
    pub(crate) on_error: OnError,
    node: Node,
}

/// In which language a checker is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Language {
    /// A policy text.
    Rego,
    /// A component in WebAssembly.
    Wasm,
    /// A class in Python.
    Python {
        /// Its name in the module.
        class: String,
    },
}

/// What a checker may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CheckerLimits {
    /// For one review.
    pub time: Duration,
    /// In bytes, beside what the program itself needs.
    pub memory: u64,
    /// Units of fuel for one review, of a checker in WebAssembly.
    pub fuel: Option<u64>,
}

impl Default for CheckerLimits {
    fn default() -> Self {
        Self { time: Duration::from_secs(2), memory: 512 << 20, fuel: None }
    }
}

impl FileChecker {
    /// A mistake in this entry, at its place in the site's configuration.
    pub fn mistake(&self, message: impl fmt::Display) -> Diagnostic {
        let place = ["path", "class_path", "name"].iter().find_map(|key| self.node.get(key));
        let message = format!("checker `{}` cannot be used: {message}", self.id);
        Diagnostic::at(place.unwrap_or(&self.node), code::CHECKER, message)
    }

    /// A mistake in the value under one of its keys.
    pub fn mistake_in(&self, key: &str, message: impl fmt::Display) -> Diagnostic {
        let message = format!("checker `{}` cannot be used: {message}", self.id);
        Diagnostic::at(self.node.get(key).unwrap_or(&self.node), code::CHECKER, message)
    }
}

/// Whether an entry names a file, so that it is not for the registry.
///
/// A dotted name that nothing is registered under is a class in Python, unless it is nearly that of a registered
/// checker: then the registry says so.
pub(crate) fn names_a_file(node: &Node, registry: &Registry, services: &[&str]) -> bool {
    let Some(path) = node.get("path").and_then(Node::as_str) else { return false };
    if [".rego", ".wasm", ".py"].iter().any(|ending| path.ends_with(ending)) {
        return true;
    }
    python_class(path).is_some()
        && registry.describe(path).is_none()
        && suggest(path, registry.names(Kind::Checker)).is_none()
        && !services.contains(&path)
}

/// Reads an entry; `kit` is the folder of the site's kit. Nothing for one without a usable `id`, which is reported
/// with those of registered checkers.
pub(crate) fn read(node: &Node, kit: &Path, mistakes: &mut Diagnostics) -> Option<FileChecker> {
    const KEYS: [&str; 10] =
        ["id", "path", "args", "mode", "on_error", "digest", "limits", "python", "disabled", "config_type"];
    known_keys(node, &KEYS, mistakes);
    if let Some(flag) = node.get("disabled").filter(|flag| flag.as_bool().is_none()) {
        wrong(flag, format!("`disabled` must be `true` or `false` and is {}", flag.kind()), mistakes);
    }
    let id = node.get("id").and_then(Node::as_str).filter(|id| !id.is_empty())?.to_owned();
    let path = node.get("path")?;
    let (language, file) = match locate(path.as_str()?) {
        Ok(found) => found,
        Err(message) => {
            wrong(path, message, mistakes);
            return None;
        }
    };
    let folder = kit.join("local").join("custom");
    let mode = word(node, "mode", &Mode::WORDS, mistakes).unwrap_or(Mode::Enforce);
    let on_error = word(node, "on_error", &OnError::WORDS, mistakes).unwrap_or(mode.on_error());
    Some(FileChecker {
        id,
        file: folder.join(file),
        folder,
        args: args(node, mistakes),
        digest: node.get("digest").and_then(|digest| read_digest(digest, mistakes)),
        limits: node
            .get("limits")
            .map_or_else(CheckerLimits::default, |limits| read_limits(limits, mistakes)),
        python: node.get("python").and_then(|python| read_python(python, &language, mistakes)),
        language,
        mode,
        on_error,
        node: node.clone(),
    })
}

/// The language, and the file as seen from `local/custom`.
fn locate(path: &str) -> Result<(Language, PathBuf), String> {
    let language = match path.rsplit_once('.') {
        Some((_, "rego")) => Language::Rego,
        Some((_, "wasm")) => Language::Wasm,
        Some((file, "py")) => {
            let module = file.replace('/', ".");
            return Err(format!("`path` names a class and not its file: write `{module}.ClassName`"));
        }
        Some(_) | None => {
            let (module, class) = python_class(path).ok_or("`path` names no class in Python")?;
            let file = format!("{}.py", module.replace('.', "/"));
            return Ok((Language::Python { class: class.to_owned() }, PathBuf::from(file)));
        }
    };
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    if !path.starts_with('.') && path.chars().all(plain) {
        Ok((language, PathBuf::from(path)))
    } else {
        Err("`path` must be the bare name of a file in `local/custom`".to_owned())
    }
}

/// `module.Class`, or `package.module.Class`.
fn python_class(path: &str) -> Option<(&str, &str)> {
    let identifier = |part: &str| {
        part.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    path.rsplit_once('.').filter(|_| path.split('.').all(identifier))
}

fn args(node: &Node, mistakes: &mut Diagnostics) -> Json {
    match node.get("args") {
        Some(args) if args.kind() == NodeKind::Object => args.to_json(),
        Some(args) => {
            wrong(args, format!("`args` must be an object and is {}", args.kind()), mistakes);
            Json::Object(Map::new())
        }
        None => Json::Object(Map::new()),
    }
}

fn read_digest(node: &Node, mistakes: &mut Diagnostics) -> Option<String> {
    let digits = node.as_str().and_then(|text| text.strip_prefix("sha256:"));
    let is_hex = |digits: &&str| digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digest = digits.filter(is_hex).map(str::to_ascii_lowercase);
    if digest.is_none() {
        wrong(node, "`digest` is `sha256:` and 64 hexadecimal digits", mistakes);
    }
    digest
}

fn read_limits(node: &Node, mistakes: &mut Diagnostics) -> CheckerLimits {
    let mut limits = CheckerLimits::default();
    if node.kind() != NodeKind::Object {
        wrong(node, format!("`limits` must be an object and is {}", node.kind()), mistakes);
        return limits;
    }
    known_keys(node, &["time_ms", "memory_mib", "fuel"], mistakes);
    let mut number = |key: &str, least: u64, most: u64| {
        let limit = node.get(key)?;
        let number = limit.as_u64().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            wrong(limit, format!("`{key}` is a whole number from {least} to {most}"), mistakes);
        }
        number
    };
    if let Some(time) = number("time_ms", 1, 60_000) {
        limits.time = Duration::from_millis(time);
    }
    if let Some(memory) = number("memory_mib", 1, 16_384) {
        limits.memory = memory << 20;
    }
    limits.fuel = number("fuel", 1, u64::MAX / 2);
    limits
}

fn read_python(node: &Node, language: &Language, mistakes: &mut Diagnostics) -> Option<PathBuf> {
    let python = node.as_str().map(Path::new).filter(|path| path.is_absolute());
    match (python, language) {
        (Some(python), Language::Python { .. }) => return Some(python.to_owned()),
        (None, Language::Python { .. }) => {
            wrong(node, "`python` is the absolute path of an interpreter", mistakes);
        }
        (_, Language::Rego | Language::Wasm) => {
            wrong(node, "`python` means nothing for a checker that is not in Python", mistakes);
        }
    }
    None
}

fn word<T: Copy>(
    node: &Node,
    key: &str,
    words: &[(&'static str, T)],
    mistakes: &mut Diagnostics,
) -> Option<T> {
    let value = node.get(key)?;
    let found = words.iter().find(|(word, _)| value.as_str() == Some(word));
    if found.is_none() {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let mut mistake =
            Diagnostic::at(value, code::CHECKER, format!("`{key}` is one of {}", known.join(", ")));
        if let Some(near) = value.as_str().and_then(|word| suggest(word, known.iter().copied())) {
            mistake = mistake.label(format!("did you mean `{near}`?"));
        }
        mistakes.push(mistake);
    }
    found.map(|(_, meaning)| *meaning)
}

fn known_keys(node: &Node, known: &[&'static str], mistakes: &mut Diagnostics) {
    for (key, value) in node.entries().filter(|(key, _)| !known.contains(key)) {
        let mut mistake = Diagnostic::at_key(value, code::CHECKER, format!("`{key}` means nothing here"));
        if let Some(near) = suggest(key, known.iter().copied()) {
            mistake = mistake.label(format!("did you mean `{near}`?"));
        }
        mistakes.push(mistake.help(format!("known: {}", known.join(", "))));
    }
}

fn wrong(node: &Node, message: impl Into<String>, mistakes: &mut Diagnostics) {
    mistakes.push(Diagnostic::at(node, code::CHECKER, message));
}
