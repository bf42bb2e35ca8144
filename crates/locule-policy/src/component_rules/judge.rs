//! Whether a plan keeps the rules.

use std::path::{Component as Part, Path, PathBuf};

use locule_component::{
    Checker, CheckerError, ComponentSpec, ConfigPath, Finding, JobFacts, PlanReview, Verdict, glob_matches,
};
use serde_json::Value as Json;

use super::{Argument, ComponentRules, Condition, Fact, Rule, Subject, Test, Verb};

impl Checker for ComponentRules {
    fn id(&self) -> &str {
        Self::ID
    }

    fn review_plan(&self, review: &PlanReview<'_>) -> Result<Vec<Verdict>, CheckerError> {
        let rules: Vec<&Rule> = self.rules.iter().filter(|rule| rule.counts(review.job)).collect();
        let allow_list = self.rules.iter().any(|rule| rule.verb == Verb::Allow);
        let base = &review.site.workspace;
        let mut verdicts = Vec::new();
        for spec in review.plan.components() {
            let mut findings: Vec<Finding> =
                rules.iter().flat_map(|rule| rule.findings(spec, base)).take(MOST_FINDINGS).collect();
            if allow_list && !rules.iter().any(|rule| rule.allows(spec, base)) {
                findings.push(not_allowed(spec));
            }
            verdicts.push(of_findings(spec.path.clone(), findings));
        }
        let of_files: Vec<Finding> =
            rules.iter().flat_map(|rule| rule.findings_in_files(review.job)).take(MOST_FINDINGS).collect();
        if !of_files.is_empty() {
            verdicts.push(of_findings(ConfigPath::from(""), of_files));
        }
        Ok(verdicts)
    }
}

/// Findings that one component, or all files together, can have.
const MOST_FINDINGS: usize = 100;

fn of_findings(path: ConfigPath, findings: Vec<Finding>) -> Verdict {
    let mut verdict = Verdict::allow(path);
    if !findings.is_empty() {
        verdict.decision = locule_component::Decision::Deny;
        verdict.findings = findings;
    }
    verdict
}

fn not_allowed(spec: &ComponentSpec) -> Finding {
    Finding {
        code: Verb::Allow.code().to_owned(),
        message: format!("`{}` is not what a rule of the site allows", spec.requested),
        path: spec.path.clone(),
        public: true,
    }
}

impl Rule {
    /// Whether the rule counts for this job. What is not known of the submitter counts against the job.
    fn counts(&self, job: &JobFacts) -> bool {
        let spares = self.verb == Verb::Allow;
        let holds = |conditions: &[Condition], unknown: bool| {
            conditions.iter().all(|condition| condition.holds(job).unwrap_or(unknown))
        };
        let when = holds(&self.when, !spares);
        let unless = !self.unless.is_empty() && holds(&self.unless, spares);
        when && !unless
    }

    fn allows(&self, spec: &ComponentSpec, base: &Path) -> bool {
        self.verb == Verb::Allow
            && self.is_about(spec)
            && match self.argument() {
                Some(argument) => {
                    let values = argument.values(&spec.args);
                    !values.is_empty() && values.iter().all(|(_, value)| argument.fits(value, base))
                }
                None => true,
            }
    }

    fn findings(&self, spec: &ComponentSpec, base: &Path) -> Vec<Finding> {
        if !self.is_about(spec) {
            return Vec::new();
        }
        let at = |steps: &[String]| match steps {
            [] => spec.path.clone(),
            steps => ConfigPath::from(format!("{}.args.{}", spec.path, steps.join("."))),
        };
        let name = &spec.requested;
        match (self.verb, self.argument()) {
            (Verb::Allow, _) => Vec::new(),
            (Verb::Deny, None) => {
                vec![self.finding(at(&[]), || format!("a rule of the site refuses `{name}`"))]
            }
            (Verb::Deny, Some(argument)) => {
                let values = argument.values(&spec.args).into_iter();
                let bad = values.filter(|(_, value)| argument.fits(value, base));
                let message = |steps: &[String]| {
                    format!("a rule of the site refuses `{}` of `{name}`", steps.join("."))
                };
                bad.map(|(steps, _)| self.finding(at(&steps), || message(&steps))).collect()
            }
            (Verb::Require { .. }, None) => Vec::new(),
            (Verb::Require { optional }, Some(argument)) => {
                let wanted = argument.steps.join(".");
                let values = argument.values(&spec.args);
                if values.is_empty() && !optional {
                    let message = || format!("a rule of the site requires `{wanted}` of `{name}`");
                    return vec![self.finding(at(&[]), message)];
                }
                let bad = values.into_iter().filter(|(_, value)| !argument.fits(value, base));
                let message = |steps: &[String]| {
                    format!("`{}` of `{name}` is not what a rule of the site requires", steps.join("."))
                };
                bad.map(|(steps, _)| self.finding(at(&steps), || message(&steps))).collect()
            }
        }
    }

    fn findings_in_files(&self, job: &JobFacts) -> Vec<Finding> {
        let Subject::Files { patterns, digests } = &self.subject else { return Vec::new() };
        let meant = job.files.iter().filter(|file| patterns.iter().any(|one| glob_matches(one, &file.path)));
        let bad = meant.filter(|file| self.verb == Verb::Deny || !digests.contains(&file.sha256));
        let message = |path: &str| match self.verb {
            Verb::Deny => format!("a rule of the site refuses the file `{path}`"),
            Verb::Allow | Verb::Require { .. } => {
                format!("the file `{path}` is not one that a rule of the site knows")
            }
        };
        bad.map(|file| self.finding(ConfigPath::from(""), || message(&file.path))).collect()
    }

    fn is_about(&self, spec: &ComponentSpec) -> bool {
        let Subject::Components { names, kinds, .. } = &self.subject else { return false };
        let mut all = spec.aliases.iter().copied().chain([spec.name, spec.requested.as_str()]);
        (kinds.is_empty() || kinds.contains(&spec.kind))
            && (names.is_empty() || all.any(|name| names.iter().any(|pattern| glob_matches(pattern, name))))
    }

    fn argument(&self) -> Option<&Argument> {
        if let Subject::Components { argument, .. } = &self.subject { argument.as_ref() } else { None }
    }

    fn finding(&self, path: ConfigPath, message: impl FnOnce() -> String) -> Finding {
        let message = self.message.clone().unwrap_or_else(message);
        Finding { code: self.code.clone(), message, path, public: self.public }
    }
}

impl Condition {
    /// Nothing if the fact is not known.
    fn holds(&self, job: &JobFacts) -> Option<bool> {
        let fact = match self.fact {
            Fact::Org => &job.submitter_org,
            Fact::Role => &job.submitter_role,
            Fact::Name => &job.submitter_name,
        };
        (!fact.is_empty()).then(|| self.patterns.iter().any(|pattern| glob_matches(pattern, fact)))
    }
}

impl Argument {
    /// The values at its path, with the steps to each.
    fn values<'a>(&self, args: &'a Json) -> Vec<(Vec<String>, &'a Json)> {
        let mut found = Vec::new();
        collect(args, &self.steps, &mut Vec::new(), &mut found);
        found
    }

    fn fits(&self, value: &Json, base: &Path) -> bool {
        self.tests.iter().all(|test| match test {
            Test::Matches(expression) => value.as_str().is_some_and(|text| expression.is_match(text)),
            Test::Under(folders) => value.as_str().is_some_and(|text| {
                let path = resolved(&base.join(text));
                folders.iter().any(|folder| path.starts_with(folder))
            }),
            Test::OneOf(values) => values.contains(value),
            Test::Min(least) => value.as_f64().is_some_and(|number| number >= *least),
            Test::Max(most) => value.as_f64().is_some_and(|number| number <= *most),
        })
    }
}

fn collect<'a>(
    value: &'a Json,
    steps: &[String],
    at: &mut Vec<String>,
    found: &mut Vec<(Vec<String>, &'a Json)>,
) {
    let Some((step, rest)) = steps.split_first() else {
        found.push((at.clone(), value));
        return;
    };
    let every_depth = step == "**";
    let is_leaf = !matches!(value, Json::Object(_) | Json::Array(_));
    if every_depth && rest.is_empty() && is_leaf {
        found.push((at.clone(), value));
    } else if every_depth && !rest.is_empty() {
        collect(value, rest, at, found);
    }
    let below = if every_depth { steps } else { rest };
    let mut descend = |key: String, value: &'a Json| {
        if every_depth || step == "*" || *step == key {
            at.push(key);
            collect(value, below, at, found);
            at.pop();
        }
    };
    match value {
        Json::Object(entries) => entries.iter().for_each(|(key, value)| descend(key.clone(), value)),
        Json::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| descend(format!("#{}", index + 1), item));
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

/// A path without `.` and `..`, as far as that can be told from the text.
pub(super) fn resolved(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Part::CurDir => {}
            Part::ParentDir => {
                out.pop();
            }
            Part::Prefix(_) | Part::RootDir | Part::Normal(_) => out.push(part),
        }
    }
    out
}
