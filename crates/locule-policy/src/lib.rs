//! A site's gates: which components of a job it refuses, and the supervised review that asks them all.
//!
//! [`gates_from_site_config`] reads the checkers that a site's configuration names, [`review`] asks every one of
//! them about a plan, each on a thread of its own under a deadline, and only a plan that none denies comes out as
//! an [`ApprovedPlan`](locule_component::ApprovedPlan). Everything fails closed: an error, a panic, an overrun, an
//! unreadable policy refuse. The crate opens no files and builds nothing of a job: what opens a checker that is a
//! file of the site comes in as [`CheckerFiles`].
//!
//! ```
//! use std::path::Path;
//! use locule_component::{BuildCx, ConstructionCount, Registry, Side};
//! use locule_config::Document;
//! use locule_policy::{NoCheckerFiles, RefuseComponents, gates_from_site_config};
//!
//! let mut registry = Registry::new();
//! registry.register::<RefuseComponents>();
//!
//! let site = Document::parse_json("job_resources.json", r#"{
//!     "class_allow_list": ["locule.demo."],
//!     "components": [{ "id": "no-scripts", "path": "locule.policy.RefuseComponents",
//!                      "args": { "names": ["*.Script*"], "reason": "scripts are not run here" } }] }"#)?;
//!
//! let (kit, count) = (Path::new("kit"), ConstructionCount::new());
//! let cx = BuildCx::new(Side::Site, "hospital-1", "", kit, kit, &count);
//! let gates = gates_from_site_config(&site, &registry, &NoCheckerFiles, &cx)?;
//! let ids: Vec<&str> = gates.iter().map(|gate| gate.id()).collect();
//! assert_eq!(ids, ["class-allow-list", "no-scripts"]);
//!
//! // A name that nothing is registered under stops the site; it is never a checker silently missing.
//! let typo = Document::parse_json("job_resources.json", r#"{
//!     "components": [{ "id": "no-scripts", "path": "locule.policy.RefuseComponent" }] }"#)?;
//! assert!(gates_from_site_config(&typo, &registry, &NoCheckerFiles, &cx).is_err());
//! # Ok::<(), locule_config::Diagnostics>(())
//! ```

mod admit_jobs;
mod allow_list;
mod component_rules;
mod file_checker;
mod gates;
mod moderation;
mod refuse_components;
mod review;
pub mod supervised;

pub use admit_jobs::{AdmitJobs, AdmitJobsArgs, Hours};
pub use allow_list::{ClassAllowList, Enforcement};
pub use component_rules::ComponentRules;
pub use file_checker::{CheckerFiles, CheckerLimits, FileChecker, Language, NoCheckerFiles};
pub use gates::gates_from_site_config;
pub use refuse_components::{RefuseComponents, RefuseComponentsArgs};
pub use review::{DEADLINE, Occasion, ask_all, review};
pub use supervised::MAX_OVERDUE;

/// Mistakes in a site's policy, by code. Codes stay what they are once published.
pub mod code {
    /// `class_allow_list` or its mode does not make sense.
    pub const ALLOW_LIST: &str = "E0401";
    /// A checker cannot be built.
    pub const CHECKER: &str = "E0402";
    /// A rule of `component_rules` does not make sense, or can never fire.
    pub const COMPONENT_RULES: &str = "E0403";
}
