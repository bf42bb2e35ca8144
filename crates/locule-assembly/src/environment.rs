//! What a job may see of the environment of the process that it runs in.

use locule_component::{code, glob_matches};
use locule_config::{Diagnostic, Diagnostics, Document, NodeKind};

/// Variables of the process whose names the site's configuration lists under `environment_allow_list`, by name or
/// pattern; none without that list. Where nvflare 2.9.0 shows a job everything, tokens and all, a site decides.
///
/// # Errors
/// A list that is none, and items of it that are no text.
pub(crate) fn visible(site: &Document) -> Result<Vec<(String, String)>, Diagnostics> {
    let Some(list) = site.root().get("environment_allow_list") else { return Ok(Vec::new()) };
    let mut mistakes = Diagnostics::new();
    if list.kind() != NodeKind::List {
        let message = format!("`environment_allow_list` must be a list of names and is {}", list.kind());
        mistakes.push(Diagnostic::at(list, code::WRONG_SORT, message));
    }
    let mut patterns = Vec::new();
    for item in list.items() {
        match item.as_str().filter(|pattern| !pattern.is_empty()) {
            Some(pattern) => patterns.push(pattern),
            None => {
                let message = "the name of a variable must be text and not empty";
                mistakes.push(Diagnostic::at(item, code::WRONG_SORT, message));
            }
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.into_string().ok()?)) // what is no text cannot be put into text
    });
    Ok(variables.filter(|(name, _)| patterns.iter().any(|pattern| glob_matches(pattern, name))).collect())
}
