//! What is written down of a review.

use locule_component::{
    CheckerReport, Decision, Denial, Finding, JobFacts, Phase, Plan, Side, SiteFacts, Verdict, one_line,
};
use serde::{Deserialize, Serialize};

/// Findings that one record names; how many more there were is in [`Review::findings_left_out`].
const MAX_FINDINGS: usize = 500;

/// A plan that was judged, by whom, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// At which point of the job's life.
    pub phase: Phase,
    /// By a review, or by comparison with one.
    pub basis: Basis,
    /// The site, or `server`.
    pub participant: String,
    /// Which half of the job.
    pub side: Side,
    /// Id of the job.
    pub job: String,
    /// Who handed the job in.
    pub submitter: Submitter,
    /// Digest of the plan.
    pub plan: String,
    /// Digest of everything that the site's policy consists of.
    pub policy: String,
    /// Every checker, in the order of the site's configuration.
    pub checkers: Vec<CheckerEntry>,
    /// Every component, in the order in which it would be built.
    pub components: Vec<ComponentEntry>,
    /// Every finding, of remarks and denials.
    pub findings: Vec<FindingEntry>,
    /// Findings beyond the 500 that a record names.
    pub findings_left_out: u64,
    /// What was decided: [`Decision::Allow`] or [`Decision::Deny`].
    pub decision: Decision,
}

/// On what a decision rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// The checkers were asked.
    Review,
    /// Plan, files and policy were compared with what was reviewed before.
    Comparison,
}

/// Who handed a job in. What is not known is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitter {
    /// Common name of the certificate.
    pub name: String,
    /// Its organisation.
    pub org: String,
    /// Its role.
    pub role: String,
}

/// A checker that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckerEntry {
    /// Its id.
    pub id: String,
    /// What runs it: `built-in`, `rego`, `wasm`, `python`.
    pub back_end: String,
    /// Digest of its policy file, if it has one.
    pub policy: Option<String>,
    /// What became of it.
    pub outcome: CheckerOutcome,
}

/// What became of a checker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckerOutcome {
    /// It had no objection.
    Allowed,
    /// It had something to remark.
    Warned,
    /// It refused.
    Denied,
    /// It could not judge, and why.
    Failed(String),
}

/// A component, and what all checkers together said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentEntry {
    /// Where it stands.
    pub path: String,
    /// The name that it is registered under.
    pub name: String,
    /// Digest of its name and arguments.
    pub digest: String,
    /// The gravest verdict.
    pub verdict: Decision,
    /// The codes of what was found, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<String>,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingEntry {
    /// Whose it is.
    pub checker: String,
    /// The component's place.
    pub component: String,
    /// What exactly it is about.
    pub path: String,
    /// A stable word.
    pub code: String,
    /// A sentence, at most 512 characters.
    pub message: String,
    /// Whether the submitter may read it.
    pub public: bool,
}

/// What was judged.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Whose job it is.
    pub job: &'a JobFacts,
    /// Where it is to run.
    pub site: &'a SiteFacts,
    /// At which point of its life.
    pub phase: Phase,
    /// Digest of the site's policy.
    pub policy: &'a str,
}

impl Review {
    /// Of a review by checkers: their reports, and for each what runs it and the digest of its policy file.
    pub fn by_checkers(
        judged: Judged<'_>,
        reports: &[CheckerReport],
        about: &[(&str, Option<&str>)],
    ) -> Review {
        let mut review = Review::new(judged, Basis::Review);
        for (index, report) in reports.iter().enumerate() {
            let (back_end, policy) = about.get(index).copied().unwrap_or(("unknown", None));
            let outcome = match &report.outcome {
                Ok(verdicts) => {
                    verdicts.iter().for_each(|verdict| review.add(&report.checker, verdict));
                    match verdicts.iter().map(|verdict| verdict.decision).max() {
                        None | Some(Decision::Allow) => CheckerOutcome::Allowed,
                        Some(Decision::Warn) => CheckerOutcome::Warned,
                        Some(Decision::Deny) => CheckerOutcome::Denied,
                    }
                }
                Err(failure) => CheckerOutcome::Failed(shown(&failure.to_string(), 512)),
            };
            if matches!(outcome, CheckerOutcome::Denied | CheckerOutcome::Failed(_)) {
                review.decision = Decision::Deny;
            }
            review.checkers.push(CheckerEntry {
                id: shown(&report.checker, 128),
                back_end: back_end.to_owned(),
                policy: policy.map(str::to_owned),
                outcome,
            });
        }
        review
    }

    /// Of a comparison with an earlier review: with denials, the plan is refused.
    pub fn by_comparison(judged: Judged<'_>, denials: &[Denial]) -> Review {
        let mut review = Review::new(judged, Basis::Comparison);
        for denial in denials {
            let Denial { checker, component, path, code, message, public, .. } = denial;
            review.decision = Decision::Deny;
            review.find(FindingEntry::new(checker, component, path.as_str(), code, message, *public));
        }
        review
    }

    fn new(Judged { plan, job, site, phase, policy }: Judged<'_>, basis: Basis) -> Review {
        let components = plan.components().iter().map(|spec| ComponentEntry {
            path: shown(spec.path.as_str(), 1024),
            name: spec.name.to_owned(),
            digest: spec.digest(),
            verdict: Decision::Allow,
            codes: Vec::new(),
        });
        Review {
            phase,
            basis,
            participant: shown(&site.name, 128),
            side: site.side,
            job: shown(&job.job_id, 128),
            submitter: Submitter {
                name: shown(&job.submitter_name, 128),
                org: shown(&job.submitter_org, 128),
                role: shown(&job.submitter_role, 128),
            },
            plan: plan.digest().to_string(),
            policy: policy.to_owned(),
            checkers: Vec::new(),
            components: components.collect(),
            findings: Vec::new(),
            findings_left_out: 0,
            decision: Decision::Allow,
        }
    }

    fn add(&mut self, checker: &str, verdict: &Verdict) {
        let component = shown(verdict.component.as_str(), 1024);
        let judged = self.components.iter_mut().find(|entry| entry.path == component);
        if let Some(entry) = judged {
            entry.verdict = entry.verdict.max(verdict.decision);
            for finding in &verdict.findings {
                let code = shown(&finding.code, 64);
                if !entry.codes.contains(&code) && entry.codes.len() < 8 {
                    entry.codes.push(code);
                }
            }
        }
        for Finding { code, message, path, public } in &verdict.findings {
            self.find(FindingEntry::new(checker, &component, path.as_str(), code, message, *public));
        }
    }

    fn find(&mut self, finding: FindingEntry) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        } else {
            self.findings_left_out += 1;
        }
    }
}

impl FindingEntry {
    fn new(checker: &str, component: &str, path: &str, code: &str, message: &str, public: bool) -> Self {
        FindingEntry {
            checker: shown(checker, 128),
            component: shown(component, 1024),
            path: shown(path, 512),
            code: shown(code, 64),
            message: shown(message, 512),
            public,
        }
    }
}

/// Text that a peer may have chosen, in one line, and cut at `most` characters.
pub(crate) fn shown(text: &str, most: usize) -> String {
    let cut: String = text.chars().take(most).collect();
    let rest = if cut.len() < text.len() { "…" } else { "" };
    one_line(&cut) + rest
}
