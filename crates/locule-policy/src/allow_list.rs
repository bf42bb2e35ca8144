//! The site's list of components that jobs may use.

use locule_component::{Checker, CheckerError, ComponentSpec, Finding, NameKey, PlanReview, Verdict};
use locule_config::{Diagnostic, Diagnostics, Document, Node, NodeKind, suggest};

use crate::code;

/// Refuses components that are not on the site's `class_allow_list`.
///
/// | entry | allows |
/// |---|---|
/// | `a.b.C` | the component `a.b.C`, and any whose name goes on behind a dot: `a.b.C.D` |
/// | `a.b.` | any whose name begins so |
/// | `*` | all |
///
/// A component is on the list when its name, one of its aliases, or the name that the job writes is. With a list,
/// a job writes full names: the short form under `name` is refused. Without a list every registered component is
/// allowed, because nothing else can be built: it is part of the program that the site installed.
///
/// # Source
/// nvflare 2.9.0, keys `class_allow_list` and `class_list_enforcement_mode`. Three things differ: a job that brings
/// code of its own (BYOC) is held to the list like any other; the list is not replaced by a shipped one when it is
/// absent; and an entry that makes no sense stops the site with its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassAllowList {
    entries: Option<Vec<String>>,
    mode: Enforcement,
}

/// What happens to a component that is not on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Enforcement {
    /// It is refused.
    Enforce,
    /// It is allowed with a remark.
    Warn,
}

impl ClassAllowList {
    /// The id of this checker; no other may have it.
    pub const ID: &'static str = "class-allow-list";

    /// Reads the list from a site's configuration.
    ///
    /// # Errors
    /// Every entry that makes no sense, and an unknown mode.
    pub fn from_site_config(config: &Document) -> Result<Self, Diagnostics> {
        let mut mistakes = Diagnostics::new();
        let entries = config.root().get("class_allow_list").map(|list| read_entries(list, &mut mistakes));
        let mode = config.root().get("class_list_enforcement_mode");
        let mode = mode.map_or(Enforcement::Enforce, |mode| read_mode(mode, &mut mistakes));
        if mistakes.is_empty() { Ok(ClassAllowList { entries, mode }) } else { Err(mistakes) }
    }

    fn judge(&self, entries: &[String], spec: &ComponentSpec) -> Verdict {
        let path = spec.path.clone();
        let finding = |code: &str, message: String| Finding {
            code: code.to_owned(),
            message,
            path: path.clone(),
            public: true,
        };
        if entries.iter().any(|entry| entry == "*") {
            return Verdict::allow(path);
        }
        if spec.requested_by == NameKey::Name {
            let message = format!("`{}` must be written under `path`, with its full name", spec.requested);
            return Verdict::deny(path.clone(), finding("short-name", message));
        }
        let mut names = spec.aliases.iter().copied().chain([spec.name, spec.requested.as_str()]);
        if names.any(|name| entries.iter().any(|entry| covers(entry, name))) {
            return Verdict::allow(path);
        }
        let message = format!("`{}` is not on the site's class_allow_list", spec.requested);
        let finding = finding("not-on-allow-list", message);
        match self.mode {
            Enforcement::Enforce => Verdict::deny(path, finding),
            Enforcement::Warn => Verdict::warn(path, finding),
        }
    }
}

impl Checker for ClassAllowList {
    fn id(&self) -> &str {
        Self::ID
    }

    fn review_plan(&self, review: &PlanReview<'_>) -> Result<Vec<Verdict>, CheckerError> {
        let components = review.plan.components().iter();
        Ok(match &self.entries {
            None => components.map(|spec| Verdict::allow(spec.path.clone())).collect(),
            Some(entries) => components.map(|spec| self.judge(entries, spec)).collect(),
        })
    }
}

fn covers(entry: &str, name: &str) -> bool {
    match name.strip_prefix(entry) {
        Some(rest) => entry.ends_with('.') || rest.is_empty() || rest.starts_with('.'),
        None => false,
    }
}

fn read_entries(list: &Node, mistakes: &mut Diagnostics) -> Vec<String> {
    if list.kind() != NodeKind::List {
        let message = format!("`class_allow_list` must be a list and is {}", list.kind());
        mistakes.push(Diagnostic::at(list, code::ALLOW_LIST, message));
    }
    let mut entries = Vec::new();
    for item in list.items() {
        match item.as_str() {
            Some(entry) if entry == "*" || is_dotted(entry) => entries.push(entry.to_owned()),
            Some(_) | None => {
                let message = "an entry of `class_allow_list` is a dotted name, the beginning of one up to a dot, or `*`";
                mistakes.push(Diagnostic::at(item, code::ALLOW_LIST, message));
            }
        }
    }
    entries
}

/// At least one dot, and nothing empty or spaced between dots; the last part may be missing.
fn is_dotted(entry: &str) -> bool {
    let parts = entry.strip_suffix('.').unwrap_or(entry);
    let part = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_');
    entry.contains('.') && parts.split('.').all(part)
}

fn read_mode(node: &Node, mistakes: &mut Diagnostics) -> Enforcement {
    match node.as_str() {
        Some("enforce") => Enforcement::Enforce,
        Some("warn") => Enforcement::Warn,
        other => {
            let message = "`class_list_enforcement_mode` is `enforce` or `warn`";
            let mut mistake = Diagnostic::at(node, code::ALLOW_LIST, message);
            if let Some(near) = other.and_then(|word| suggest(word, ["enforce", "warn"].into_iter())) {
                mistake = mistake.label(format!("did you mean `{near}`?"));
            }
            mistakes.push(mistake);
            Enforcement::Enforce
        }
    }
}
