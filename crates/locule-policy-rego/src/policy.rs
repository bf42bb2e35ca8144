//! One policy: parsed, checked against its contract, asked.

use std::fmt;
use std::io::Write as _;

use locule_component::Verdict;
use locule_config::{Diagnostic, Diagnostics, suggest};
use regorus::unstable::{Module, Ref};
use regorus::{Engine, Value};

use crate::reach::{undefined, unreached};
use crate::scope::never_there;
use crate::{code, verdicts};

/// Where the host asks.
const ENTRY: &str = "data.locule.review";
pub(crate) const PACKAGE: &str = "locule";

/// A policy that can judge.
pub struct Policy {
    engine: Engine,
    rules: usize,
}

impl Policy {
    /// Reads a policy; `name` is how the file is called in messages.
    ///
    /// # Errors
    /// Every mistake: of its grammar the first, else all that keep a rule from ever counting.
    pub fn parse(name: &str, text: &str) -> Result<Self, Diagnostics> {
        let mut engine = load(&[(name, text)])?;
        let modules = engine.get_modules().clone();
        let Some(module) = modules.first() else {
            return Err(Diagnostic::in_text(code::SYNTAX, "there is nothing in it", name, text, 0..0).into());
        };
        let mut mistakes = broken_contract(module, name, text);
        if mistakes.is_empty() {
            mistakes.append(unreached(module, name, text));
            mistakes.append(undefined(module, name, text));
            mistakes.append(never_there(module, name, text));
        }
        if mistakes.has_errors() {
            mistakes.sort();
            return Err(mistakes);
        }
        engine
            .compile_with_entrypoint(&ENTRY.into())
            .map_err(|error| syntax(&error.to_string(), &[(name, text)]))?;
        Ok(Self { engine, rules: module.policy.len() })
    }

    /// Judges a plan: `document` is JSON, the review document. What the policy prints goes to standard error.
    ///
    /// # Errors
    /// [`ReviewError`], which is never a permission.
    pub fn review(&mut self, document: &str) -> Result<Vec<Verdict>, ReviewError> {
        let input = Value::from_json_str(document)
            .map_err(|error| ReviewError::Document(one_line(&error.to_string())))?;
        let places = verdicts::Places::of(&input);
        self.engine.set_input(input);
        let value = self.engine.eval_rule(ENTRY.to_owned());
        for line in self.engine.take_prints().unwrap_or_default() {
            writeln!(std::io::stderr().lock(), "{line}").ok();
        }
        let value = value.map_err(|error| ReviewError::Evaluate(one_line(&error.to_string())))?;
        if value == Value::Undefined {
            return Err(ReviewError::Undefined);
        }
        let value = serde_json::to_value(&value).map_err(|error| ReviewError::Answer(error.to_string()))?;
        verdicts::read(value, &places).map_err(ReviewError::Answer)
    }

    pub(crate) fn rules(&self) -> usize {
        self.rules
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// Why a policy did not judge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReviewError {
    /// The review document is not JSON.
    #[error("the review document cannot be read: {0}")]
    Document(String),
    /// An expression went wrong: two values for one rule, a built-in function that cannot take its argument.
    #[error("{0}")]
    Evaluate(String),
    /// No rule gave `review` a value.
    #[error("`review` has no value: none of its rules applies")]
    Undefined,
    /// The value of `review` is not an answer.
    #[error("the value of `review` is no answer: {0}")]
    Answer(String),
}

/// An engine with these texts, which have been read but not yet been looked at.
pub(crate) fn load(texts: &[(&str, &str)]) -> Result<Engine, Diagnostics> {
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(true);
    engine.set_gather_prints(true);
    for (name, text) in texts {
        let added = engine.add_policy((*name).to_owned(), (*text).to_owned());
        added.map_err(|error| syntax(&error.to_string(), texts))?;
    }
    Ok(engine)
}

/// What the library says, at its place: `--> FILE:LINE:COLUMN`, the line, and `error: MESSAGE`.
pub(crate) fn syntax(error: &str, texts: &[(&str, &str)]) -> Diagnostics {
    let place = error.split("--> ").nth(1).and_then(|rest| rest.lines().next());
    let mut parts = place.unwrap_or_default().rsplitn(3, ':');
    let column: usize = parts.next().and_then(|column| column.parse().ok()).unwrap_or(1);
    let line: usize = parts.next().and_then(|line| line.parse().ok()).unwrap_or(1);
    let file = parts.next().unwrap_or_default();
    let found = texts.iter().find(|(name, _)| *name == file).or(texts.first());
    let (name, text) = found.copied().unwrap_or_default();
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let at = before + column.saturating_sub(1);
    Diagnostic::in_text(code::SYNTAX, message(error), name, text, at..at + 1).into()
}

/// The sentence in what the library says, without the picture.
fn message(error: &str) -> &str {
    match error.rsplit_once("error: ") {
        Some((_, message)) => message.trim(),
        None => error.trim(),
    }
}

/// What the library says, with its place, in one line.
fn one_line(error: &str) -> String {
    let place = error.split("--> ").nth(1).and_then(|rest| rest.lines().next());
    match place {
        Some(place) => format!("{place}: {}", message(error)),
        None => error.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

fn broken_contract(module: &Ref<Module>, name: &str, text: &str) -> Diagnostics {
    let mut mistakes = Diagnostics::new();
    let package = module.package.refr.span();
    if package.text() != PACKAGE {
        let message = format!("the package of a policy is `{PACKAGE}`, and this is `{}`", package.text());
        let bytes = package.start as usize..package.end as usize;
        mistakes.push(Diagnostic::in_text(code::CONTRACT, message, name, text, bytes));
    }
    let rules = crate::reach::names(module);
    if !rules.contains("review") {
        let bytes = package.start as usize..package.end as usize;
        let mut mistake = Diagnostic::in_text(code::CONTRACT, "there is no rule `review`", name, text, bytes)
            .help(r#"write `review := {"allow": count(deny) == 0, "deny": deny}`"#);
        if let Some(near) = suggest("review", rules.iter().map(String::as_str)) {
            mistake = mistake.label(format!("is `{near}` meant to be `review`?"));
        }
        mistakes.push(mistake);
    }
    mistakes
}
