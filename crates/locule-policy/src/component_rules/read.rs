//! Reads the rules, and refuses those that can never fire.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use locule_component::{Finding, Kind, Registry, glob_matches};
use locule_config::{Diagnostic, Diagnostics, Document, Node, NodeKind, suggest};
use regex::RegexBuilder;

use super::judge::resolved;
use super::{Argument, ComponentRules, Condition, Fact, Rule, Subject, Test, Verb};
use crate::code;

/// Bytes that a compiled expression may take.
const EXPRESSION: usize = 1 << 20;

impl ComponentRules {
    /// Reads the rules from a site's configuration; none are there if it has no `component_rules`.
    ///
    /// # Errors
    /// Every mistake, each with its place: keys that mean nothing, and rules that can never fire.
    pub fn from_site_config(config: &Document, registry: &Registry) -> Result<Self, Diagnostics> {
        let mut mistakes = Diagnostics::new();
        let mut rules = Vec::new();
        if let Some(list) = config.root().get("component_rules") {
            if list.kind() != NodeKind::List {
                wrong(
                    list,
                    format!("`component_rules` must be a list and is {}", list.kind()),
                    &mut mistakes,
                );
            }
            if list.items().len() > Self::MAX_RULES {
                wrong(list, format!("a site has at most {} rules", Self::MAX_RULES), &mut mistakes);
            }
            let nodes = list.items().iter().take(Self::MAX_RULES);
            rules =
                nodes.filter_map(|node| Reader { registry, mistakes: &mut mistakes }.rule(node)).collect();
        }
        if mistakes.is_empty() { Ok(ComponentRules { rules }) } else { Err(mistakes) }
    }
}

struct Reader<'a> {
    registry: &'a Registry,
    mistakes: &'a mut Diagnostics,
}

impl Reader<'_> {
    fn rule(&mut self, node: &Node) -> Option<Rule> {
        const KEYS: [&str; 9] =
            ["allow", "deny", "require", "when", "unless", "optional", "code", "message", "public"];
        if node.kind() != NodeKind::Object {
            self.wrong(node, format!("a rule must be an object and is {}", node.kind()));
            return None;
        }
        self.known_keys(node, &KEYS);
        let verbs: Vec<&str> = Verb::WORDS.into_iter().filter(|word| node.get(word).is_some()).collect();
        let [word] = verbs[..] else {
            self.wrong(node, "a rule has one of `allow`, `deny` and `require`");
            return None;
        };
        let optional = self.flag(node, "optional");
        let verb = match word {
            "allow" => Verb::Allow,
            "deny" => Verb::Deny,
            _ => Verb::Require { optional: optional.unwrap_or(false) },
        };
        if let Some(flag) = node.get("optional").filter(|_| !matches!(verb, Verb::Require { .. })) {
            self.wrong(flag, "`optional` belongs to a `require`");
        }
        let subject = node.get(word).and_then(|subject| self.subject(subject, verb));
        let (when, unless) = (self.conditions(node, "when"), self.conditions(node, "unless"));
        if verb == Verb::Allow {
            for key in ["code", "message", "public"] {
                if let Some(value) = node.get(key) {
                    self.wrong(value, format!("an `allow` refuses nothing by itself, and has no `{key}`"));
                }
            }
        }
        let code = self.text(node, "code");
        if let Some(bad) = node.get("code").filter(|_| !code.as_deref().is_none_or(Finding::is_code)) {
            self.wrong(bad, "a code is at most 64 lower-case letters, digits and `-`");
        }
        Some(Rule {
            verb,
            subject: subject?,
            when,
            unless,
            code: code.unwrap_or_else(|| verb.code().to_owned()),
            message: self.text(node, "message"),
            public: self.flag(node, "public").unwrap_or(true),
        })
    }

    fn subject(&mut self, node: &Node, verb: Verb) -> Option<Subject> {
        const KEYS: [&str; 10] =
            ["name", "kind", "arg", "matches", "under", "one_of", "min", "max", "file", "digest"];
        if node.kind() != NodeKind::Object {
            self.wrong(node, format!("what a rule is about must be an object and is {}", node.kind()));
            return None;
        }
        self.known_keys(node, &KEYS);
        if node.get("file").is_some() || node.get("digest").is_some() {
            return self.files(node, verb);
        }
        let names = node.get("name").map(|names| self.patterns(names));
        let kinds = node.get("kind").map(|kinds| self.kinds(kinds));
        let argument = self.argument(node, verb);
        if matches!(verb, Verb::Require { .. }) && node.get("arg").is_none() {
            self.wrong(node, "a `require` says of which `arg`, or of which `file`");
        }
        if node.entries().next().is_none() {
            let what = if verb == Verb::Allow { "allows everything" } else { "refuses everything" };
            self.wrong(
                node,
                format!("a rule about nothing in particular {what}: say of which `name` or `kind`"),
            );
        }
        let (names, kinds) = (names.unwrap_or_default(), kinds.unwrap_or_default());
        if let Some(place) = node.get("name").or(node.get("kind")) {
            self.can_fire(place, &names, &kinds);
        }
        Some(Subject::Components { names, kinds, argument })
    }

    /// A rule about names or kinds that no component of this program has would never fire.
    fn can_fire(&mut self, place: &Node, names: &[String], kinds: &[Kind]) {
        let kinds: Vec<Kind> = if kinds.is_empty() { Kind::ALL.to_vec() } else { kinds.to_vec() };
        let known: Vec<&str> = kinds.iter().flat_map(|kind| self.registry.names(*kind)).collect();
        for pattern in names {
            let meant = |name: &&str| {
                let aliases = self.registry.describe(name).map_or(&[][..], |about| about.aliases);
                aliases.iter().chain([name]).any(|name| glob_matches(pattern, name))
            };
            if !known.iter().any(meant) {
                let node = place.items().iter().find(|item| item.as_str() == Some(pattern)).unwrap_or(place);
                let message =
                    format!("the rule can never fire: no component here has a name like `{pattern}`");
                let mut mistake = Diagnostic::at(node, code::COMPONENT_RULES, message);
                if let Some(near) = self.registry.suggest(pattern, &kinds) {
                    mistake = mistake.label(format!("did you mean `{near}`?"));
                }
                self.mistakes.push(mistake);
            }
        }
    }

    fn argument(&mut self, node: &Node, verb: Verb) -> Option<Argument> {
        let mut tests = Vec::new();
        if let Some(value) = node.get("matches") {
            tests.extend(self.expression(value).map(Test::Matches));
        }
        if let Some(value) = node.get("under") {
            tests.push(Test::Under(self.folders(value)));
        }
        if let Some(value) = node.get("one_of") {
            if value.items().is_empty() {
                self.wrong(value, "`one_of` is a list of values, and not empty");
            }
            tests.push(Test::OneOf(value.items().iter().map(Node::to_json).collect()));
        }
        let (least, most) = (self.number(node, "min"), self.number(node, "max"));
        if let (Some(least), Some(most)) = (least, most)
            && least > most
            && let Some(place) = node.get("max")
        {
            self.wrong(place, "no number is at least `min` and at most `max`");
        }
        for key in ["min", "max"] {
            if let Some(place) = node.get(key).filter(|_| verb == Verb::Deny) {
                let message =
                    format!("`{key}` in a `deny` would refuse what is within it: write a `require`");
                self.wrong(place, message);
            }
        }
        tests.extend(least.map(Test::Min).into_iter().chain(most.map(Test::Max)));
        let Some(path) = node.get("arg") else {
            let stray =
                ["matches", "under", "one_of", "min", "max"].into_iter().find_map(|key| node.get(key));
            if let Some(stray) = stray {
                self.wrong(stray, "of which argument? Say so under `arg`; `**` is every one of them");
            }
            return None;
        };
        let steps: Vec<String> = path.as_str().unwrap_or_default().split('.').map(str::to_owned).collect();
        if steps.iter().any(String::is_empty) || steps.len() > 64 {
            self.wrong(path, "`arg` is the path of an argument: `model.layers.#1`, `model.*`, `**`");
        }
        if steps.iter().filter(|step| *step == "**").count() > 1 {
            self.wrong(path, "`**` may stand once");
        }
        Some(Argument { steps, tests })
    }

    fn files(&mut self, node: &Node, verb: Verb) -> Option<Subject> {
        for (key, value) in node.entries() {
            if key != "file" && key != "digest" {
                self.wrong(value, format!("a rule about files says nothing of `{key}`"));
            }
        }
        let Some(file) = node.get("file") else {
            self.wrong(node, "of which files? Say so under `file`");
            return None;
        };
        let patterns = self.patterns(file);
        let digests = node.get("digest").map(|digests| self.digests(digests));
        match (verb, &digests) {
            (Verb::Allow, _) => self.wrong(file, "files are not allowed one by one: write a `require`"),
            (Verb::Deny, Some(_)) => {
                self.wrong(
                    node,
                    "a file that is refused by its digest comes again with another one: write a `require`",
                );
            }
            (Verb::Require { .. }, None) => self.wrong(node, "a `require` about files says which `digest`"),
            (Verb::Deny, None) | (Verb::Require { .. }, Some(_)) => {}
        }
        Some(Subject::Files { patterns, digests: digests.unwrap_or_default() })
    }

    fn conditions(&mut self, rule: &Node, key: &str) -> Vec<Condition> {
        let Some(node) = rule.get(key) else { return Vec::new() };
        let words: Vec<&'static str> = Fact::WORDS.iter().map(|(word, _)| *word).collect();
        if node.kind() != NodeKind::Object || node.entries().next().is_none() {
            self.wrong(node, format!("`{key}` is an object with {}", words.join(", ")));
            return Vec::new();
        }
        self.known_keys(node, &words);
        let mut conditions = Vec::new();
        for (word, fact) in Fact::WORDS {
            if let Some(value) = node.get(word) {
                let patterns = self.patterns(value);
                if key == "unless" && patterns.iter().any(|pattern| pattern.chars().all(|c| c == '*')) {
                    self.wrong(value, "the rule can never fire: this is so of everybody");
                }
                conditions.push(Condition { fact, patterns });
            }
        }
        conditions
    }

    /// A text, or a list of texts; each a pattern that can match.
    fn patterns(&mut self, node: &Node) -> Vec<String> {
        let texts = self.texts(node);
        for (place, text) in &texts {
            if text.rsplit_once('[').is_some_and(|(_, set)| !set.contains(']')) {
                self.wrong(place, "the pattern opens a `[` that it does not close, and matches nothing");
            }
        }
        texts.into_iter().map(|(_, text)| text.to_owned()).collect()
    }

    fn texts<'n>(&mut self, node: &'n Node) -> Vec<(&'n Node, &'n str)> {
        let nodes = if node.kind() == NodeKind::List { node.items() } else { std::slice::from_ref(node) };
        if nodes.is_empty() {
            self.wrong(node, "the rule can never fire: the list is empty");
        }
        let mut texts = Vec::new();
        for node in nodes {
            match node.as_str().filter(|text| !text.is_empty()) {
                Some(text) => texts.push((node, text)),
                None => self.wrong(node, "a text, or a list of texts, is expected, and none of them empty"),
            }
        }
        texts
    }

    fn kinds(&mut self, node: &Node) -> Vec<Kind> {
        let known = || Kind::ALL.into_iter().filter(|kind| *kind != Kind::Checker);
        let mut kinds = Vec::new();
        for (place, word) in self.texts(node) {
            match known().find(|kind| kind.as_str() == word) {
                Some(kind) => kinds.push(kind),
                None => {
                    let words: Vec<&str> = known().map(Kind::as_str).collect();
                    let message = format!("`{word}` is no kind of component that a job has");
                    let mut mistake = Diagnostic::at(place, code::COMPONENT_RULES, message);
                    if let Some(near) = suggest(word, words.iter().copied()) {
                        mistake = mistake.label(format!("did you mean `{near}`?"));
                    }
                    self.mistakes.push(mistake.help(format!("known: {}", words.join(", "))));
                }
            }
        }
        kinds
    }

    fn folders(&mut self, node: &Node) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        for (place, text) in self.texts(node) {
            if !Path::new(text).is_absolute() {
                self.wrong(place, "a folder is named by its absolute path");
            }
            folders.push(resolved(Path::new(text)));
        }
        folders
    }

    fn digests(&mut self, node: &Node) -> BTreeSet<String> {
        let mut digests = BTreeSet::new();
        for (place, text) in self.texts(node) {
            match text.strip_prefix("sha256:") {
                Some(hex) if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                    digests.insert(hex.to_ascii_lowercase());
                }
                Some(_) | None => self.wrong(place, "a digest is `sha256:` and 64 hexadecimal digits"),
            }
        }
        digests
    }

    fn expression(&mut self, node: &Node) -> Option<regex::Regex> {
        let Some(text) = node.as_str().filter(|text| !text.is_empty()) else {
            self.wrong(node, "`matches` is a regular expression");
            return None;
        };
        match RegexBuilder::new(text).size_limit(EXPRESSION).build() {
            Ok(expression) => Some(expression),
            Err(error) => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                self.wrong(node, format!("`matches` is no regular expression: {last}"));
                None
            }
        }
    }

    fn number(&mut self, node: &Node, key: &str) -> Option<f64> {
        let value = node.get(key)?;
        let number = value.as_f64();
        if number.is_none() {
            self.wrong(value, format!("`{key}` is a number"));
        }
        number
    }

    fn flag(&mut self, node: &Node, key: &str) -> Option<bool> {
        let value = node.get(key)?;
        let flag = value.as_bool();
        if flag.is_none() {
            self.wrong(value, format!("`{key}` must be `true` or `false` and is {}", value.kind()));
        }
        flag
    }

    fn text(&mut self, node: &Node, key: &str) -> Option<String> {
        let value = node.get(key)?;
        let text = value.as_str().filter(|text| !text.is_empty() && text.len() <= 1024);
        if text.is_none() {
            self.wrong(value, format!("`{key}` is a text of at most 1024 bytes"));
        }
        text.map(str::to_owned)
    }

    fn known_keys(&mut self, node: &Node, known: &[&'static str]) {
        for (key, value) in node.entries().filter(|(key, _)| !known.contains(key)) {
            let message = format!("`{key}` means nothing here");
            let mut mistake = Diagnostic::at_key(value, code::COMPONENT_RULES, message);
            if let Some(near) = suggest(key, known.iter().copied()) {
                mistake = mistake.label(format!("did you mean `{near}`?"));
            }
            self.mistakes.push(mistake.help(format!("known: {}", known.join(", "))));
        }
    }

    fn wrong(&mut self, node: &Node, message: impl Into<String>) {
        wrong(node, message, self.mistakes);
    }
}

fn wrong(node: &Node, message: impl Into<String>, mistakes: &mut Diagnostics) {
    mistakes.push(Diagnostic::at(node, code::COMPONENT_RULES, message));
}
