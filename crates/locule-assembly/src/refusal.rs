//! A refused plan, as the submitter may know it.

use locule_component::{Denial, Plan, Refused, one_line};
use locule_protocol::OutcomeReport;

/// A refused plan: each denial with the full name of the component that it is about.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Every denial, with the component's dotted name, or nothing if it is about the plan as a whole.
    pub denials: Vec<(Option<String>, Denial)>,
}

impl Refusal {
    pub(crate) fn new(plan: &Plan, refused: Refused) -> Self {
        let name = |denial: &Denial| {
            let found = plan.components().iter().find(|spec| spec.label() == denial.component);
            found.map(|spec| spec.requested.clone())
        };
        let denials = refused.findings.into_iter();
        Self { denials: denials.map(|denial| (name(&denial), denial)).collect() }
    }

    /// What the server, and through it the submitter, may read; `site` is who refuses.
    pub fn for_submitter(&self, site: &str) -> Vec<locule_protocol::Refusal> {
        let denials = self.denials.iter().take(OutcomeReport::MAX_REFUSALS);
        denials
            .map(|(name, denial)| {
                let named = [name.as_deref(), Some(denial.component.as_str())];
                let named = named.into_iter().flatten().find(|name| !name.is_empty());
                locule_protocol::Refusal {
                    site: site.to_owned(),
                    component: named.unwrap_or(denial.path.as_str()).to_owned(),
                    file: denial.file.clone(),
                    path: denial.path.to_string(),
                    code: denial.code.clone(),
                    reason: one_line(denial.public_reason()),
                }
            })
            .collect()
    }

    pub(crate) fn first_reason(&self) -> String {
        let first = self.denials.first();
        first.map_or_else(|| "no reason given".to_owned(), |(_, denial)| one_line(denial.public_reason()))
    }
}
