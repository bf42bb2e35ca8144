//! Policies as a language of checkers.

use locule_checker::{Backend, Opening, Reviewer};
use locule_component::Verdict;

use crate::Policy;

/// The language `rego`, for [`locule_checker::serve()`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegoBackend;

impl Backend for RegoBackend {
    fn name(&self) -> &'static str {
        "rego"
    }

    fn open(&self, opening: &Opening) -> Result<Box<dyn Reviewer>, String> {
        let name = opening.file.rsplit('/').next().unwrap_or(&opening.file);
        let text = std::str::from_utf8(&opening.source).map_err(|_| format!("{name} is not UTF-8 text"))?;
        let policy = Policy::parse(name, text).map_err(|mistakes| {
            let lines = mistakes.iter().map(|one| {
                let label = if one.snippet.label.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", one.snippet.label)
                };
                format!("{}:{}:{}: {}{label}", one.file, one.line, one.column, one.message)
            });
            lines.collect::<Vec<_>>().join("; ")
        })?;
        Ok(Box::new(policy))
    }
}

impl Reviewer for Policy {
    fn about(&self) -> String {
        let rules = self.rules();
        format!("Rego, {rules} rule{}", if rules == 1 { "" } else { "s" })
    }

    fn review(&mut self, document: &str) -> Result<Vec<Verdict>, String> {
        Policy::review(self, document).map_err(|error| error.to_string())
    }
}
