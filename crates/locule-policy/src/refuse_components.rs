//! Refuses components by name.

use std::sync::Arc;

use locule_component::{
    BuildCx, BuildError, Built, Checker, CheckerError, Component, Finding, Kind, PlanReview, Verdict,
    glob_matches,
};
use serde::Deserialize;

/// Refuses every component whose name, one of its aliases, or the name that the job writes matches a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefuseComponents {
    id: String,
    args: RefuseComponentsArgs,
}

/// Arguments of [`RefuseComponents`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RefuseComponentsArgs {
    /// Shell-style patterns of full names: `locule.demo.*`, `*.Script?`.
    pub names: Vec<String>,
    /// What the operator, and if `public` the submitter, is told.
    #[serde(default = "default_reason")]
    pub reason: String,
    /// A stable word for programs.
    #[serde(default = "default_code")]
    pub code: String,
    /// Whether the submitter may read the reason.
    #[serde(default = "default_public")]
    pub public: bool,
}

impl Component for RefuseComponents {
    const KIND: Kind = Kind::Checker;
    const NAME: &'static str = "locule.policy.RefuseComponents";
    type Args = RefuseComponentsArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: RefuseComponentsArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        let mistake = |argument: &str, reason: &str| {
            Err(BuildError::Argument { argument: argument.to_owned(), reason: reason.to_owned() })
        };
        if args.names.is_empty() {
            return mistake("names", "a checker without names would refuse nothing");
        }
        if args.names.iter().any(String::is_empty) {
            return mistake("names", "an empty pattern matches nothing");
        }
        if let Some(open) = args.names.iter().find(|pattern| has_open_bracket(pattern)) {
            return mistake(
                "names",
                &format!("`{open}` opens a `[` that it does not close, and matches nothing"),
            );
        }
        if !Finding::is_code(&args.code) {
            return mistake("code", "a code is 1 to 64 lower-case letters, digits and `-`");
        }
        Ok(Built::Checker(Arc::new(RefuseComponents { id: cx.id.to_owned(), args })))
    }
}

impl Checker for RefuseComponents {
    fn id(&self) -> &str {
        &self.id
    }

    fn review_plan(&self, review: &PlanReview<'_>) -> Result<Vec<Verdict>, CheckerError> {
        let RefuseComponentsArgs { names: patterns, reason, code, public } = &self.args;
        let mut verdicts = Vec::new();
        for spec in review.plan.components() {
            let mut names = spec.aliases.iter().copied().chain([spec.name, spec.requested.as_str()]);
            if names.any(|name| patterns.iter().any(|pattern| glob_matches(pattern, name))) {
                let finding = Finding {
                    code: code.clone(),
                    message: reason.clone(),
                    path: spec.path.clone(),
                    public: *public,
                };
                verdicts.push(Verdict::deny(spec.path.clone(), finding));
            } else {
                verdicts.push(Verdict::allow(spec.path.clone()));
            }
        }
        Ok(verdicts)
    }
}

fn has_open_bracket(pattern: &str) -> bool {
    pattern.rsplit_once('[').is_some_and(|(_, set)| !set.contains(']'))
}

fn default_reason() -> String {
    "the site does not run this component".to_owned()
}

fn default_code() -> String {
    "component-refused".to_owned()
}

fn default_public() -> bool {
    true
}
