//! Runs checkers that are files of a site, each in a process of its own.
//!
//! [`SiteCheckers`] opens what a site's configuration names in `local/custom`: a policy in Rego, a component in
//! WebAssembly, a class in Python. Each judges in a child process with limits on memory, processor time, files and
//! children, under a deadline; one that crashes, hangs, or answers with anything but verdicts has not judged, and
//! the plan is refused. The process that runs jobs evaluates nothing itself. In the child, [`serve()`] answers with
//! the [`Backend`]s that the program has; this crate has the one for Python, which needs an interpreter and nothing
//! else. Those for Rego and WebAssembly are `locule-policy-rego` and `locule-policy-wasm`.
//!
//! The program that a child runs, as small as it can be:
//!
//! ```
//! use locule_checker::{Backend, Opening, Reviewer, ServeError, serve};
//! use locule_component::Verdict;
//!
//! /// A language of one sentence: no.
//! struct No;
//!
//! impl Backend for No {
//!     fn name(&self) -> &'static str {
//!         "rego"
//!     }
//!     fn open(&self, _: &Opening) -> Result<Box<dyn Reviewer>, String> {
//!         Ok(Box::new(No))
//!     }
//! }
//!
//! impl Reviewer for No {
//!     fn about(&self) -> String {
//!         "always no".into()
//!     }
//!     fn review(&mut self, _document: &str) -> Result<Vec<Verdict>, String> {
//!         Err("no".into())
//!     }
//! }
//!
//! // Whoever starts it by hand is told so.
//! let by_hand = serve(std::iter::empty(), std::io::empty(), std::io::sink(), &[&No]);
//! assert!(matches!(by_hand, Err(ServeError::Arguments)));
//! ```
//!
//! Start with [`SiteCheckers`], [`serve()`] and [`review_document`].

mod confine;
mod document;
mod files;
mod process;
mod serve;
mod wire;

pub use confine::limit_this_process;
pub use document::{REVIEW_SCHEMA, TooLong, review_document};
pub use files::{MAX_CHILDREN, MAX_FILE, MAX_IDLE, START, SiteCheckers, digest};
pub use process::CheckerCommand;
pub use serve::{Backend, Reviewer, ServeError, serve};
pub use wire::{Limits, MAX_ANSWER, MAX_REQUEST, Opening};
