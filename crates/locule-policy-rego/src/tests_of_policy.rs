//! The tests that a policy's author wrote beside it.

use std::collections::BTreeSet;

use locule_config::{Diagnostic, Diagnostics};
use regorus::Value;
use regorus::unstable::{Expr, Module, Ref, Rule, RuleHead};

use crate::policy::{load, syntax};
use crate::{Policy, code, reach};

/// What came of the tests of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestReport {
    /// Each rule `test_…`, in file order.
    pub results: Vec<TestResult>,
    /// Rules of the policy with a denial or a remark that no test led to.
    pub unreached: Vec<Unreached>,
}

impl TestReport {
    /// Whether every test holds, and there is one.
    pub fn passed(&self) -> bool {
        !self.results.is_empty() && self.results.iter().all(|result| result.failure.is_none())
    }
}

/// What came of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestResult {
    /// Name of the rule.
    pub name: String,
    /// Line in the file of tests, counted from 1.
    pub line: u32,
    /// Why it does not hold, if it does not.
    pub failure: Option<String>,
}

/// A rule that no test led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// Name of the rule.
    pub rule: String,
    /// Line in the policy's file, counted from 1.
    pub line: u32,
}

/// Runs the rules `test_…` of a file of tests against its policy: a test holds if its value is true. Both files
/// are given by name and text.
///
/// A rule of the policy that adds to a set (`deny contains …`) counts as reached when the line of its head was:
/// write its body on lines of its own.
///
/// # Errors
/// The mistakes of the policy, as [`Policy::parse`] finds them; a file of tests that does not parse, or holds two
/// tests of one name.
pub fn test(policy: (&str, &str), tests: (&str, &str)) -> Result<TestReport, Diagnostics> {
    Policy::parse(policy.0, policy.1)?;
    let texts = [policy, tests];
    let mut engine = load(&texts)?;
    let modules = engine.get_modules().clone();
    let [of_policy, of_tests] = modules.as_slice() else {
        let message = "a file of tests is Rego, with a package of its own or `locule`";
        return Err(Diagnostic::in_text(code::SYNTAX, message, tests.0, tests.1, 0..0).into());
    };
    let package = of_tests.package.refr.span().text().to_owned();
    engine.set_enable_coverage(true);
    let mut results = Vec::new();
    let mut names = BTreeSet::new();
    for rule in of_tests.policy.iter().filter(|rule| reach::name(rule).starts_with("test_")) {
        let name = reach::name(rule);
        let span = reach::head(rule).span();
        if !names.insert(name.clone()) {
            let message = format!("two tests are called `{name}`");
            let bytes = span.start as usize..span.end as usize;
            return Err(Diagnostic::in_text(code::CONTRACT, message, tests.0, tests.1, bytes).into());
        }
        let failure = match engine.eval_rule(format!("data.{package}.{name}")) {
            Ok(Value::Bool(true)) => None,
            Ok(Value::Undefined) => Some("it does not hold".to_owned()),
            Ok(value) => Some(format!("its value is {value}, not true")),
            Err(error) => {
                let mistakes = syntax(&error.to_string(), &texts);
                let told = mistakes.iter().map(|one| format!("{}:{}: {}", one.file, one.line, one.message));
                Some(told.collect::<Vec<_>>().join("; "))
            }
        };
        results.push(TestResult { name, line: span.line, failure });
    }
    let report = engine.get_coverage_report().map_err(|error| syntax(&error.to_string(), &texts))?;
    let covered = report.files.into_iter().find(|file| file.path == policy.0).map(|file| file.covered);
    Ok(TestReport { results, unreached: unreached(of_policy, &covered.unwrap_or_default()) })
}

fn unreached(module: &Ref<Module>, covered: &BTreeSet<u32>) -> Vec<Unreached> {
    let sets = module.policy.iter().filter_map(|rule| match &**rule {
        Rule::Spec { head: RuleHead::Set { key: Some(key), .. }, .. } => Some((rule, line(key))),
        Rule::Spec { .. } | Rule::Default { .. } => None,
    });
    let missed = sets.filter(|(_, line)| !covered.contains(line));
    missed.map(|(rule, line)| Unreached { rule: reach::name(rule), line }).collect()
}

fn line(key: &Ref<Expr>) -> u32 {
    key.span().line
}
