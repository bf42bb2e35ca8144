//! Checkers written in Rego: reads a policy, finds what can never count in it, judges plans, runs its tests.
//!
//! A [`Policy`] is a text of package `locule` with a rule `review`. Its input is the review document
//! ([`locule_checker::REVIEW_SCHEMA`]), evaluated once for a whole plan. A policy that does not parse, or in which
//! a rule can never fire, is refused before any plan comes: a reference to what no review document has, a word
//! that never stands there, a rule that `review` does not lead to. The crate opens no files, and nothing that a
//! policy may call does: no network, no clock, no environment. It limits neither time nor memory; a site runs it
//! in a process that does, through [`RegoBackend`].
//!
//! ```
//! use locule_policy_rego::Policy;
//!
//! let mut policy = Policy::parse("comp_auth.rego", r#"
//!     package locule
//!
//!     review := {"allow": count(deny) == 0, "deny": deny}
//!
//!     deny contains finding if {
//!         some component in input.components
//!         startswith(component.name, "locule.demo.")
//!         finding := {"code": "not-agreed", "message": "training is not agreed yet", "path": component.path}
//!     }
//! "#)?;
//! let document = r#"{"components": [{"name": "locule.demo.Trainer", "path": "executors.#1.executor"}]}"#;
//! let verdicts = policy.review(document)?;
//! assert_eq!(verdicts[0].findings[0].code, "not-agreed");
//!
//! let typo = Policy::parse("comp_auth.rego", r#"
//!     package locule
//!     review := {"allow": count(deny) == 0, "deny": deny}
//!     deny contains {"code": "no", "message": "no"} if input.component[_].name == "locule.demo.Trainer"
//! "#);
//! assert!(typo.unwrap_err().to_string().contains("did you mean `components`?"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | value of `data.locule.review` | what it means |
//! |---|---|
//! | `{"allow": true}` | nothing against the plan |
//! | `"deny": [{"code", "message", "path"?, "component"?, "public"?}, …]` | refused, one denial each |
//! | `"warn": [the same]` | remarks |
//! | `{"allow": false}` without denials | refused, without a reason |
//! | anything else, or nothing | no judgement, and so refused |
//!
//! `path` is a place in the configuration, `component` the path of a component; without it, it is the one that
//! `path` lies in. Only with `"public": true` does the submitter read the message.
//!
//! Start with [`Policy`], [`test`] and [`RegoBackend`].

mod backend;
mod policy;
mod reach;
mod scope;
mod shape;
mod tests_of_policy;
mod verdicts;

pub use backend::RegoBackend;
pub use policy::{Policy, ReviewError};
pub use tests_of_policy::{TestReport, TestResult, Unreached, test};

/// A policy to begin with, which explains itself.
pub const TEMPLATE: &str = include_str!("../templates/policy.rego");
/// Tests of [`TEMPLATE`].
pub const TEST_TEMPLATE: &str = include_str!("../templates/policy_test.rego");

/// Mistakes in policies, by code. Codes stay what they are once published.
pub mod code {
    /// The text is not Rego, or not whole.
    pub const SYNTAX: &str = "E0801";
    /// It has no package `locule`, or no rule `review`.
    pub const CONTRACT: &str = "E0802";
    /// It looks at what no review document has.
    pub const NEVER_THERE: &str = "E0803";
    /// It compares with what can never stand there.
    pub const NEVER_EQUAL: &str = "E0804";
    /// A rule that never counts.
    pub const NEVER_COUNTS: &str = "E0805";
    /// A function that there is not, or a variable that nothing binds.
    pub const UNDEFINED: &str = "E0806";
}
