//! A job's resolved configuration: what would be built, before anything is.

use std::fmt;

use locule_config::{Diagnostics, Document};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::approval::ApprovedPlan;
use crate::read;
use crate::{
    Chain, CheckerError, CheckerReport, ConfigPath, Direction, Finding, Kind, Refused, Registry, Settings,
    Side, Verdict, one_line,
};

/// What one half of a job would build. It cannot be changed, and its [digest](Plan::digest) names all of it.
///
/// The only way on is [`Plan::approve`], and only an [`ApprovedPlan`] can be built.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) side: Side,
    pub(crate) config: Json,
    pub(crate) digest: PlanDigest,
    pub(crate) components: Vec<ComponentSpec>,
    pub(crate) executors: Vec<ExecutorEntry>,
    pub(crate) workflows: Vec<WorkflowEntry>,
    pub(crate) filters: Vec<FilterEntry>,
    pub(crate) others: Vec<usize>,
    pub(crate) settings: Settings,
    pub(crate) warnings: Diagnostics,
}

impl Plan {
    /// Most components that one plan may have.
    pub const MAX_COMPONENTS: usize = 1000;

    /// Reads a job's app configuration, its variables already substituted.
    ///
    /// The version is looked at first. Names are resolved, arguments are checked against the types of their
    /// components, and nothing is built.
    ///
    /// # Errors
    /// Every mistake of the document.
    pub fn from_document(document: &Document, side: Side, registry: &Registry) -> Result<Plan, Diagnostics> {
        read::plan(document, side, registry)
    }

    /// Makes sure that a checker's answer can be taken: every verdict is about a component of this plan or about the
    /// plan as a whole, and the codes of its findings are [words](Finding::is_code).
    ///
    /// # Errors
    /// [`CheckerError::Failed`], for there is no judgement.
    pub fn check_verdicts(&self, verdicts: &[Verdict]) -> Result<(), CheckerError> {
        let cannot = |why: String| Err(CheckerError::Failed(format!("its answer cannot be taken: {why}")));
        let shortened = |text: &str| one_line(&text.chars().take(96).collect::<String>());
        for Verdict { component, findings, .. } in verdicts {
            if !component.as_str().is_empty() && self.component(component).is_none() {
                return cannot(format!("the plan has no component at `{}`", shortened(component.as_str())));
            }
            if let Some(Finding { code, .. }) = findings.iter().find(|one| !Finding::is_code(&one.code)) {
                let rule = "a code is 1 to 64 lower-case letters, digits and `-`";
                return cannot(format!("{rule}, and not `{}`", shortened(code)));
            }
        }
        Ok(())
    }

    /// Lets the plan pass if no report denies it.
    ///
    /// There must be one report of every checker; whoever runs them sees to that. A report about another plan,
    /// an [answer that cannot be taken](Plan::check_verdicts) and a checker that failed count as denials.
    ///
    /// # Errors
    /// [`Refused`] with every denial.
    pub fn approve(self, reports: Vec<CheckerReport>) -> Result<ApprovedPlan, Refused> {
        ApprovedPlan::from_reports(self, reports)
    }

    /// Lets the plan pass because `earlier` passed, if it is the same: whoever says so has seen to it that the
    /// checkers are the same too.
    ///
    /// # Errors
    /// [`Refused`] with code [`Denial::PLAN_CHANGED`](crate::Denial::PLAN_CHANGED).
    pub fn approve_like(self, earlier: &PlanDigest) -> Result<ApprovedPlan, Refused> {
        ApprovedPlan::like(self, earlier)
    }

    /// The hash that names this plan.
    pub fn digest(&self) -> &PlanDigest {
        &self.digest
    }

    /// Which half of a job it is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The whole configuration, substituted.
    pub fn config(&self) -> &Json {
        &self.config
    }

    /// Every component in the order in which they would be built, those among arguments before their owners.
    pub fn components(&self) -> &[ComponentSpec] {
        &self.components
    }

    /// The component at a place in the configuration.
    pub fn component(&self, path: &ConfigPath) -> Option<&ComponentSpec> {
        self.components.iter().find(|spec| spec.path == *path)
    }

    /// Executors and the tasks that they answer for, in file order.
    pub fn executors(&self) -> impl Iterator<Item = (&[String], &ComponentSpec)> {
        self.executors.iter().map(|entry| (entry.tasks.as_slice(), &self.components[entry.component]))
    }

    /// Workflows under their ids, in the order in which they would run.
    pub fn workflows(&self) -> impl Iterator<Item = (&str, &ComponentSpec)> {
        self.workflows.iter().map(|entry| (entry.id.as_str(), &self.components[entry.component]))
    }

    /// Filters with the tasks, chain and directions that they are for, in file order.
    pub fn filters(&self) -> impl Iterator<Item = (&FilterEntry, impl Iterator<Item = &ComponentSpec>)> {
        self.filters
            .iter()
            .map(|entry| (entry, entry.components.iter().map(|index| &self.components[*index])))
    }

    /// What the job sets besides its components.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is probably not meant as it is written.
    pub fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }
}

/// One component of a plan.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ComponentSpec {
    /// Its id, if it has one.
    pub id: Option<String>,
    /// What it is good for.
    pub kind: Kind,
    /// The name that it is registered under.
    pub name: &'static str,
    /// Other names that mean the same.
    pub aliases: &'static [&'static str],
    /// The name as the configuration writes it.
    pub requested: String,
    /// The key under which the configuration writes it.
    pub requested_by: NameKey,
    /// Its arguments as the configuration writes them, components among them included.
    pub args: Json,
    /// Where it stands; no other component of its plan has the same.
    pub path: ConfigPath,
    /// The steps of its path. Where keys hold dots, several things have the same path, and only the component has
    /// these steps.
    pub steps: Vec<String>,
    /// The file that names it.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// The components that it is an argument of, outermost first.
    pub ancestors: Vec<ConfigPath>,
    /// Judged like the others, but not built.
    pub disabled: bool,
    /// The arguments with placeholders for the components among them.
    pub(crate) build_args: Json,
    /// Indexes of the components among its arguments, by the number of their placeholder.
    pub(crate) children: Vec<usize>,
}

impl ComponentSpec {
    /// Its id, or its path when it has none.
    pub fn label(&self) -> &str {
        self.id.as_deref().unwrap_or(self.path.as_str())
    }

    /// SHA-256 over what it resolved to and its arguments, as 64 lower-case hexadecimal digits. Where it stands
    /// plays no part.
    pub fn digest(&self) -> String {
        let about = serde_json::json!([self.name, self.args, self.disabled]);
        let text = format!("locule-component-1\n{}", canonical_json(&about));
        Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The key under which a configuration names a component; when there are several, the first of these counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameKey {
    /// `path`, with the full name.
    Path,
    /// `class_path`, with the full name.
    ClassPath,
    /// `name`, with the full name or its last part.
    Name,
}

impl NameKey {
    /// In the order in which they count.
    pub const ALL: [NameKey; 3] = [NameKey::Path, NameKey::ClassPath, NameKey::Name];

    /// The key.
    pub fn as_str(self) -> &'static str {
        match self {
            NameKey::Path => "path",
            NameKey::ClassPath => "class_path",
            NameKey::Name => "name",
        }
    }
}

/// Filters for some tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilterEntry {
    /// Task data or results.
    pub chain: Chain,
    /// One direction, or both.
    pub directions: Vec<Direction>,
    /// Exact names of tasks.
    pub tasks: Vec<String>,
    pub(crate) components: Vec<usize>,
}

#[derive(Debug, Clone)]
pub(crate) struct ExecutorEntry {
    pub(crate) tasks: Vec<String>,
    pub(crate) component: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct WorkflowEntry {
    pub(crate) id: String,
    pub(crate) component: usize,
}

/// SHA-256 over the canonical form of a plan, shown as 64 lower-case hexadecimal digits.
///
/// The canonical form holds the side, the configuration with the keys of its objects sorted, and, in the order of
/// building, where each component stands and what it resolved to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanDigest(String);

impl PlanDigest {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn of(side: Side, config: &Json, components: &[ComponentSpec]) -> PlanDigest {
        let components: Vec<_> =
            components.iter().map(|spec| (spec.path.as_str(), spec.name, spec.disabled)).collect();
        let mut text = String::from("locule-plan-1\n");
        write_canonical(&serde_json::json!([side, config, components]), &mut text);
        let hash = Sha256::digest(text.as_bytes());
        PlanDigest(hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Display for PlanDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// JSON without white space, the keys of objects sorted by their bytes: what digests are taken of.
pub fn canonical_json(value: &Json) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Json, out: &mut String) {
    match value {
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => out.push_str(&value.to_string()),
        Json::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Json::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(b.0));
            out.push('{');
            for (i, (key, value)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Json::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(value, out);
            }
            out.push('}');
        }
    }
}
