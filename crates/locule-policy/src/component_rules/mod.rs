//! The site's typed rules: which components may run here, with which arguments, for whom.

mod judge;
mod read;

use std::collections::BTreeSet;
use std::path::PathBuf;

use locule_component::Kind;
use regex::Regex;
use serde_json::Value as Json;

/// Judges components by the site's `component_rules`, in `local/resources.json` or `local/job_resources.json`.
///
/// Each rule is an object with one of three verbs:
///
/// | verb | meaning |
/// |---|---|
/// | `allow` | with one such rule or more, a component that none of them matches is refused |
/// | `deny` | a component that it matches is refused |
/// | `require` | a component of that name or kind must have this argument, and its value must pass; or files must |
///
/// What the verb holds is a match. All that it names must be so:
///
/// | key | matches |
/// |---|---|
/// | `name` | a pattern, or a list of them, of full names: `vendor.*`, `*.Script?`. The name, an alias, or what the job wrote |
/// | `kind` | `executor`, `workflow`, `filter`, `observer` or `service`, or a list of them |
/// | `arg` | an argument by its path: `model.layers.#1`, `*` for any one step, `**` for every value at any depth |
/// | `matches` | the argument is a text in which this regular expression is found |
/// | `under` | the argument is a path in this folder, or a list of such folders; `..` is resolved, links are not |
/// | `one_of` | the argument is one of these values |
/// | `min`, `max` | the argument is a number of at least, of at most so much; not in `deny`, where it would say the opposite |
/// | `file` | instead of all these: a pattern of files of the app, `custom/*.py` |
/// | `digest` | with `file` in `require`: what they must be, `sha256:` and 64 digits, or a list |
///
/// Beside the verb:
///
/// | key | meaning |
/// |---|---|
/// | `when`, `unless` | for whose jobs it counts: `submitter_org`, `submitter_role`, `submitter_name`, each a pattern or a list |
/// | `optional` | `true`: a component without the argument passes a `require` |
/// | `code` | a stable word for programs: `denied-by-rule`, `not-allowed-by-rule`, `rule-not-met` |
/// | `message` | what the operator is told |
/// | `public` | whether the submitter may read the message: `true` |
///
/// What nobody knows of a submitter counts against the job: without a name an `unless` does not help, and a `when`
/// does not spare. A rule that can never fire is a mistake, with its place: a name that no component of this program
/// has, bounds that exclude each other, an expression that does not parse, a condition that is always there.
///
/// ```json
/// { "component_rules": [
///   { "deny": { "name": "*.PythonExecutor", "arg": "command", "matches": "curl|wget" }, "code": "net-tool" },
///   { "deny": { "arg": "**", "under": "/mnt/phi" }, "unless": { "submitter_org": "hospital" } },
///   { "require": { "name": "*.FederatedAveraging", "arg": "rounds", "max": 200 } },
///   { "require": { "file": "custom/*", "digest": ["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"] } } ] }
/// ```
#[derive(Debug, Clone)]
pub struct ComponentRules {
    rules: Vec<Rule>,
}

impl ComponentRules {
    /// The id of this checker; no other may have it.
    pub const ID: &'static str = "component-rules";

    /// Most rules that a site may have.
    pub const MAX_RULES: usize = 1000;

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

#[derive(Debug, Clone)]
struct Rule {
    verb: Verb,
    subject: Subject,
    when: Vec<Condition>,
    unless: Vec<Condition>,
    code: String,
    message: Option<String>,
    public: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Allow,
    Deny,
    Require { optional: bool },
}

impl Verb {
    const WORDS: [&'static str; 3] = ["allow", "deny", "require"];

    fn code(self) -> &'static str {
        match self {
            Verb::Allow => "not-allowed-by-rule",
            Verb::Deny => "denied-by-rule",
            Verb::Require { .. } => "rule-not-met",
        }
    }
}

#[derive(Debug, Clone)]
enum Subject {
    Components { names: Vec<String>, kinds: Vec<Kind>, argument: Option<Argument> },
    Files { patterns: Vec<String>, digests: BTreeSet<String> },
}

/// An argument, and what its values must be to match. No test matches every value.
#[derive(Debug, Clone)]
struct Argument {
    steps: Vec<String>,
    tests: Vec<Test>,
}

#[derive(Debug, Clone)]
enum Test {
    Matches(Regex),
    Under(Vec<PathBuf>),
    OneOf(Vec<Json>),
    Min(f64),
    Max(f64),
}

#[derive(Debug, Clone)]
struct Condition {
    fact: Fact,
    patterns: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fact {
    Org,
    Role,
    Name,
}

impl Fact {
    const WORDS: [(&'static str, Fact); 3] =
        [("submitter_org", Fact::Org), ("submitter_role", Fact::Role), ("submitter_name", Fact::Name)];
}
