//! Components: what a job's configuration may name, how it is judged, and how it is made.
//!
//! A configuration becomes a [`Plan`]: every name resolved, every argument checked, nothing built. [`Checker`]s
//! judge the plan as a whole. Only when none of them denies it there is an [`ApprovedPlan`], and only that can be
//! built, into an [`Assembled`] of executors, workflows, filters and observers. The crate runs none of them: it
//! starts no threads, reads no clock and opens no files. To run checkers with deadlines, use `locule-policy`.
//!
//! ```
//! use std::path::Path;
//! use locule_component::*;
//! use locule_config::Document;
//! use locule_fobs::Shareable;
//!
//! struct Echo { times: u32 }
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct EchoArgs { times: u32 }
//!
//! impl Component for Echo {
//!     const KIND: Kind = Kind::Executor;
//!     const NAME: &'static str = "example.Echo";
//!     type Args = EchoArgs;
//!     fn build(args: EchoArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
//!         Ok(Built::Executor(Box::new(Echo { times: args.times })))
//!     }
//! }
//!
//! impl Executor for Echo {
//!     fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
//!         Ok(task.data.clone())
//!     }
//! }
//!
//! let mut registry = Registry::new();
//! registry.register::<Echo>();
//!
//! let text = r#"{ "format_version": 2,
//!     "executors": [{ "tasks": ["train*"], "executor": { "path": "example.Echo", "args": { "times": 1 } } }] }"#;
//! let plan = Plan::from_document(&Document::parse_json("config_fed_client.json", text)?, Side::Site, &registry)?;
//!
//! let count = ConstructionCount::new();
//! let approved = plan.approve(Vec::new())?; // one report of every checker; here there are none
//! assert_eq!(count.get(), 0);
//!
//! let app = Path::new("app");
//! let cx = BuildCx::new(Side::Site, "hospital-1", "job-7", Path::new("kit"), app, &count);
//! let mut job = approved.build(&registry, &cx)?;
//! assert!(job.executors.find("train_more").is_some());
//! assert_eq!(count.get(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod approval;
mod checker;
mod component;
mod context;
mod element;
mod error_text;
mod event;
mod executor;
mod filter;
mod gate;
mod pattern;
mod plan;
mod read;
mod registry;
mod scope;
mod settings;
mod workflow;

pub use approval::{ApprovedPlan, Assembled};
pub use checker::{
    AppFile, Checker, CheckerError, CheckerFailure, CheckerOrigin, CheckerReport, ConfigPath, Decision,
    Denial, Finding, JobFacts, Phase, PlanReview, Refused, SiteFacts, Verdict,
};
pub use component::{
    BuildCx, BuildError, Built, Child, Component, ConstructionCount, Kind, Seed, Side, args_schema,
};
pub use context::{Context, FlagConflict, Flags, RunContext, key};
pub use error_text::{one_line, panic_text, with_causes};
pub use event::{Event, EventBus, EventCx, KeptEvent, ObserveError, Observer, TooDeep};
pub use executor::{AbortFlag, ExecuteError, Executor, ExecutorTable, Metric, Task, TaskCx};
pub use filter::{Chain, Direction, FilterChains, FilterCx, FilterError, TaskFilter};
pub use futures_core::future::BoxFuture;
pub use gate::{Answer, Gate, GateCx, GateError, Question, Requester};
pub use pattern::glob_matches;
pub use plan::{ComponentSpec, FilterEntry, NameKey, Plan, PlanDigest, canonical_json};
pub use read::{code, site_checkers, site_components};
pub use registry::{ArgumentMistake, Description, Registry};
pub use schemars::{JsonSchema, Schema};
pub use scope::{PrivacyScopes, Scope, ScopeNames, ScopeNotAllowed, ScopeParts};
pub use settings::{BadSetting, Settings};
pub use workflow::{
    Fault, Gathered, Late, OutgoingTask, Progress, ResultSink, TaskBoard, Unusable, Workflow, WorkflowError,
};
