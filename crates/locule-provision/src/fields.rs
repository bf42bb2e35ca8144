//! Typed fields of a project file, and every mistake in them with its place.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use locule_config::{Diagnostic, Diagnostics, Node, NodeKind, suggest};

use crate::file::code;
use crate::{ConnectionSecurity, Part, Project, ProjectMistake, Server};

/// Longest name of a project that nvflare takes, and longest common name.
const MAX_PROJECT_NAME: usize = 63;
const MAX_COMMON_NAME: usize = 64;

/// A pass over a project file. A mistake is noted and nothing returned, so that the pass goes on;
/// [`Fields::finish`] lets nothing through that has a mistake.
///
/// It remembers where every field of every part stands, so that rules which know of no file have their
/// mistakes shown in it. A field is called by its path in the part; its key is the last step.
pub(crate) struct Fields<'n> {
    root: &'n Node,
    part: Part,
    parts: HashMap<Part, &'n Node>,
    places: HashMap<(Part, &'static str), &'n Node>,
    /// What has a mistake already.
    bad: HashSet<(Part, &'static str)>,
    bad_parts: HashSet<Part>,
    found: Diagnostics,
}

impl<'n> Fields<'n> {
    pub(crate) fn new(root: &'n Node) -> Fields<'n> {
        Fields {
            root,
            part: Part::Project,
            parts: HashMap::new(),
            places: HashMap::new(),
            bad: HashSet::new(),
            bad_parts: HashSet::new(),
            found: Diagnostics::new(),
        }
    }

    /// What follows is about this part.
    pub(crate) fn begin(&mut self, part: Part, node: &'n Node) {
        self.part = part;
        self.parts.insert(part, node);
        // A study's name is its key.
        if matches!(part, Part::Study(_)) {
            self.places.insert((part, "name"), node);
        }
    }

    /// A part that is not there; what rules find in its stand-in is left out.
    pub(crate) fn forget(&mut self, part: Part) {
        self.bad_parts.insert(part);
    }

    /// Adds what the rules of a project find; gives the warnings if nothing else was found.
    pub(crate) fn finish(mut self, project: &Project) -> Result<Diagnostics, Diagnostics> {
        let mut shown = HashSet::new();
        for mistake in project.mistakes() {
            let field = (mistake.part, mistake.field);
            let is_stand_in = self.bad_parts.contains(&mistake.part) || self.bad.contains(&field);
            if !is_stand_in && shown.insert((field, mistake.value.clone())) {
                let shown = self.shown(project, &mistake, "must", code::BAD_FIELD);
                self.found.push(shown);
            }
        }
        if !self.found.has_errors() {
            for doubt in project.doubts() {
                let shown = self.shown(project, &doubt, "should", code::DOUBTFUL).warning();
                self.found.push(shown);
            }
        }
        self.found.sort();
        if self.found.has_errors() { Err(self.found) } else { Ok(self.found) }
    }

    fn shown(
        &self,
        project: &Project,
        mistake: &ProjectMistake,
        must: &str,
        code: &'static str,
    ) -> Diagnostic {
        let ProjectMistake { part, field, value, must_be } = mistake;
        // A host alone stands for its object.
        let whole = ["listening_host", "connect_to"].into_iter().find(|whole| field.starts_with(whole));
        let place = self.places.get(&(*part, *field));
        let place = place.or_else(|| self.places.get(&(*part, whole?)));
        let place = place.or_else(|| self.parts.get(part)).copied().unwrap_or(self.root);
        // Of a list, or an object of lists, the item is meant.
        let mut lists = std::iter::once(place).chain(place.entries().map(|(_, list)| list));
        let item = lists.find_map(|list| list.items().iter().find(|item| item.as_str() == Some(value)));
        let place = item.unwrap_or(place);
        let message = match value.as_str() {
            "" => format!("`{field}` {must} be {must_be}"),
            value => format!("`{field}` {value:?} {must} be {must_be}"),
        };
        let mistake = match (part, *field) {
            (Part::Study(_), "name") => Diagnostic::at_key(place, code, message),
            _ => Diagnostic::at(place, code, message),
        };
        let relays = project.relays.iter().map(|one| &one.name);
        let sites = project.sites.iter().map(|one| &one.name);
        let admins = project.admins.iter().map(|one| &one.name);
        let among: Vec<&str> = match *field {
            "connect_to.name" => relays.chain([&project.server.name]).map(String::as_str).collect(),
            "parent" | "site_orgs" => sites.map(String::as_str).collect(),
            "admins" => admins.map(String::as_str).collect(),
            "role" => crate::Admin::ROLES.to_vec(),
            _ => Vec::new(),
        };
        match suggest(value, among.into_iter()) {
            Some(meant) => mistake.label(format!("did you mean `{meant}`?")),
            None => mistake,
        }
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    /// A mistake in a field, or in what should have it.
    pub(crate) fn mistake_in(&mut self, node: &'n Node, field: &'static str, message: &str) {
        self.bad.insert((self.part, field));
        if field == "listening_host" {
            self.bad.insert((self.part, "listening_host.port"));
        }
        let (place, code) = match node.get(key(field)) {
            Some(value) => (value, code::BAD_FIELD),
            None => (node, code::MISSING_FIELD),
        };
        self.found.push(Diagnostic::at(place, code, message));
    }

    /// Warns of keys that mean nothing here.
    pub(crate) fn check_keys(&mut self, node: &Node, known: &[&str], what: &str) {
        for (key, value) in node.entries().filter(|(key, _)| !known.contains(key)) {
            let message = format!("`{key}` is no key of {what}, and has no effect");
            let warning = Diagnostic::at_key(value, code::UNKNOWN_KEY, message).warning();
            self.found.push(match suggest(key, known.iter().copied()) {
                Some(meant) => warning.label(format!("did you mean `{meant}`?")),
                None => warning.help(format!("keys are: {}", known.join(", "))),
            });
        }
    }

    /// Warns of a key that is known and not used.
    pub(crate) fn no_effect(&mut self, node: &Node, key: &str, why: &str) {
        if let Some(value) = node.get(key) {
            let message = format!("`{key}` has no effect: {why}");
            self.found.push(Diagnostic::at_key(value, code::NO_EFFECT, message).warning());
        }
    }

    /// Refuses a key whose meaning is not provided.
    pub(crate) fn refuse(&mut self, node: &Node, key: &str, help: &str) {
        if let Some(value) = node.get(key).filter(|value| !value.is_null()) {
            let message = format!("`{key}` is not supported");
            self.found.push(Diagnostic::at_key(value, code::UNSUPPORTED, message).help(help));
        }
    }

    /// Refuses confidential computing.
    pub(crate) fn refuse_confidential(&mut self, node: &Node) {
        if node.get("cc_enabled").and_then(Node::as_bool) != Some(false) {
            self.refuse(node, "cc_enabled", "provision with `nvflare provision`");
        }
        self.refuse(node, "cc_config", "provision with `nvflare provision`");
    }

    pub(crate) fn unknown_builder(&mut self, node: &Node, known: &[&'static str]) {
        let path = node.get("path").unwrap_or(node);
        let text = path.as_str().unwrap_or_default();
        let message = "this builder is not supported: kits would lack what it makes";
        let mistake = Diagnostic::at(path, code::UNSUPPORTED, message);
        let class = text.rsplit('.').next().unwrap_or(text);
        let others = ["HEBuilder", "DockerBuilder", "EdgeBuilder", "AWSBuilder", "AzureBuilder", "CCBuilder"];
        let meant = suggest(class, known.iter().copied()).filter(|_| !others.contains(&class));
        self.found.push(match meant {
            Some(meant) => mistake.label(format!("did you mean `{meant}`?")),
            None => mistake.help("remove it, or provision with `nvflare provision`"),
        });
    }

    pub(crate) fn unknown_type(&mut self, node: &Node) {
        const TYPES: [&str; 4] = ["server", "relay", "client", "admin"];
        let message = format!("the `type` of a participant must be one of {}", TYPES.join(", "));
        let Some(value) = node.get("type") else {
            return self.found.push(Diagnostic::at(node, code::MISSING_FIELD, message));
        };
        let mistake = Diagnostic::at(value, code::BAD_FIELD, message);
        let word = value.as_str().unwrap_or_default();
        let meant = if word == "site" { Some("client") } else { suggest(word, TYPES.into_iter()) };
        self.found.push(match meant {
            Some(meant) => mistake.label(format!("did you mean `{meant}`?")),
            None => mistake,
        });
    }

    /// The version, if it is one that is known.
    pub(crate) fn api_version(&mut self, root: &'n Node) -> Option<u64> {
        let version = self.present(root, "api_version").and_then(Node::as_u64);
        let known = version.filter(|version| [3, 4].contains(version));
        if known.is_none() {
            self.mistake_in(root, "api_version", "`api_version` must be 3, or 4 with studies");
        }
        known
    }

    /// The project's name, cut as nvflare cuts it.
    pub(crate) fn project_name(&mut self, root: &'n Node) -> String {
        let name = self.required(root, "name");
        let Some((end, _)) = name.char_indices().nth(MAX_PROJECT_NAME) else { return name };
        let message = format!("a project's name is cut to {MAX_PROJECT_NAME} characters");
        if let Some(node) = root.get("name") {
            self.found.push(Diagnostic::at(node, code::DOUBTFUL, message).warning());
        }
        name[..end].to_owned()
    }

    /// A server's name that is too long for a certificate is cut, as nvflare cuts it; sites then dial the
    /// whole one.
    pub(crate) fn shorten_server(&mut self, node: &Node, server: &mut Server) {
        let Some((end, _)) = server.name.char_indices().nth(MAX_COMMON_NAME) else { return };
        let whole = server.name.clone();
        server.name.truncate(end);
        server.host.get_or_insert(whole);
        let message =
            format!("a server's name is cut to {MAX_COMMON_NAME} characters; the whole is its host");
        if let Some(node) = node.get("name") {
            self.found.push(Diagnostic::at(node, code::DOUBTFUL, message).warning());
        }
    }

    pub(crate) fn required(&mut self, node: &'n Node, field: &'static str) -> String {
        if node.get(key(field)).is_none_or(Node::is_null) {
            self.bad.insert((self.part, field));
            let message = format!("`{field}` is missing");
            self.found.push(Diagnostic::at(node, code::MISSING_FIELD, message));
        }
        self.text(node, field).unwrap_or_default()
    }

    pub(crate) fn text(&mut self, node: &'n Node, field: &'static str) -> Option<String> {
        let value = self.present(node, field)?;
        let text = value.as_str().map(str::to_owned);
        match text {
            Some(text) if text.is_empty() => None,
            Some(text) => Some(text),
            None => self.bad(value, field, "text; put it in quotes"),
        }
    }

    pub(crate) fn flag(&mut self, node: &'n Node, field: &'static str) -> Option<bool> {
        let value = self.present(node, field)?;
        value.as_bool().or_else(|| self.bad(value, field, "true or false"))
    }

    pub(crate) fn count(&mut self, node: &'n Node, field: &'static str) -> Option<u32> {
        let value = self.present(node, field)?;
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        count.or_else(|| self.bad(value, field, "a whole number, not negative"))
    }

    pub(crate) fn port(&mut self, node: &'n Node, field: &'static str) -> Option<u16> {
        let value = self.present(node, field)?;
        let port = value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        port.or_else(|| self.bad(value, field, "a port between 1 and 65535"))
    }

    pub(crate) fn security(&mut self, node: &'n Node, field: &'static str) -> Option<ConnectionSecurity> {
        let value = self.present(node, field)?;
        let word = value.as_str().unwrap_or_default().to_lowercase();
        let known = ConnectionSecurity::ALL.into_iter().find(|one| one.as_str() == word);
        if known.is_none() {
            self.bad.insert((self.part, field));
            let words = ConnectionSecurity::ALL.map(ConnectionSecurity::as_str);
            let message = format!("`{field}` must be one of {}", words.join(", "));
            let mistake = Diagnostic::at(value, code::BAD_FIELD, message);
            self.found.push(match suggest(&word, words.into_iter()) {
                Some(meant) => mistake.label(format!("did you mean `{meant}`?")),
                None => mistake,
            });
        }
        known
    }

    /// A text, or a list of texts.
    pub(crate) fn texts(&mut self, node: &'n Node, field: &'static str) -> Vec<String> {
        self.present(node, field).map(|value| self.texts_of(value)).unwrap_or_default()
    }

    pub(crate) fn texts_of(&mut self, value: &Node) -> Vec<String> {
        let items = if value.kind() == NodeKind::List { value.items() } else { std::slice::from_ref(value) };
        let mut texts = Vec::new();
        for item in items {
            match item.as_str() {
                Some(text) => texts.push(text.to_owned()),
                None => {
                    let message = "this must be text, or a list of texts; put it in quotes";
                    self.found.push(Diagnostic::at(item, code::BAD_FIELD, message));
                }
            }
        }
        texts
    }

    pub(crate) fn object(&mut self, node: &'n Node, field: &'static str) -> Option<&'n Node> {
        let value = self.present(node, field)?;
        if value.kind() == NodeKind::Object { Some(value) } else { self.bad(value, field, "an object") }
    }

    /// A file that is there; a relative name is taken from the project file's folder.
    pub(crate) fn file(&mut self, node: &'n Node, field: &'static str, folder: &Path) -> Option<PathBuf> {
        let text = self.text(node, field)?;
        let path = folder.join(text);
        if !path.is_file() {
            let value = node.get(key(field)).unwrap_or(node);
            let message = format!("`{field}` is not there: there is no file {}", path.display());
            self.found.push(Diagnostic::at(value, code::BAD_FIELD, message));
        }
        Some(path)
    }

    /// A field that is there and not null, and where.
    fn present(&mut self, node: &'n Node, field: &'static str) -> Option<&'n Node> {
        let value = node.get(key(field)).filter(|value| !value.is_null())?;
        self.places.insert((self.part, field), value);
        Some(value)
    }

    fn bad<T>(&mut self, value: &Node, field: &'static str, must_be: &str) -> Option<T> {
        self.bad.insert((self.part, field));
        let message = format!("`{field}` must be {must_be}");
        self.found.push(Diagnostic::at(value, code::BAD_FIELD, message));
        None
    }
}

/// The last step of a field's path.
fn key(field: &str) -> &str {
    field.rsplit('.').next().unwrap_or(field)
}
