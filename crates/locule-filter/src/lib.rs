//! Built-in privacy filters: what may leave a site, and how much of it.
//!
//! Each filter is a [`Component`](locule_component::Component) that a job or, in a privacy scope, a site names.
//! They act on the models in task data and results: DXOs of kind `WEIGHTS` and `WEIGHT_DIFF`, at any depth of a
//! collection, of replies that went well; everything else passes as it is. What claims to be a DXO and is none,
//! and numbers that are not finite, are stopped: a filter that cannot do its work lets nothing through. The crate
//! decides nothing about when a filter runs; chains of them are `locule-component`'s.
//!
//! | name | does | arguments |
//! |---|---|---|
//! | [`ExcludeVars`] | takes variables out by name or regular expression | `exclude_vars` |
//! | [`PercentilePrivacy`] | shares the largest changes only, and bounds those | `percentile`, `gamma` |
//! | [`SvtPrivacy`] | shares a noisy sample of the large changes, and counts the budget | `fraction`, `epsilon`, … |
//! | [`ClipNorm`] | scales a model down to a largest L2 norm | `max_norm` |
//! | [`GaussianNoise`] | adds normal noise to every element | `sigma` or `ratio` |
//! | [`DxoBlocker`] | stops DXOs of some kinds, or of all others | `data_kinds`, `allow_data_kinds` |
//!
//! ```
//! use std::path::Path;
//! use locule_component::*;
//! use locule_fobs::{Array, DataKind, Dxo, Map, Shareable};
//!
//! let mut registry = Registry::new();
//! locule_filter::register(&mut registry);
//! let (kit, count) = (Path::new("kit"), ConstructionCount::new());
//! let cx = BuildCx::new(Side::Site, "hospital-1", "job-7", kit, kit, &count);
//! let name = "nvflare.app_common.filters.exclude_vars.ExcludeVars"; // or locule.filter.ExcludeVars
//! let built = registry.build(name, serde_json::json!({ "exclude_vars": "^head\\." }), &cx)?;
//! let Built::Filter(mut filter) = built else { unreachable!() };
//!
//! let weights = Map::from_iter([("body.w", Array::from(&[1.0][..])), ("head.w", Array::from(&[2.0][..]))]);
//! let result = Shareable::with_dxo(Dxo::new(DataKind::Weights, weights));
//! let context = RunContext::new("hospital-1", "job-7").open();
//! let cx = FilterCx {
//!     site: "hospital-1", job_id: "job-7", task: "train",
//!     chain: Chain::TaskResult, direction: Direction::Out, context: &context,
//! };
//! let left = filter.apply(result, &cx)?.dxo()?.expect("it carries one");
//! assert!(left.data.contains("body.w") && !left.data.contains("head.w"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Differences from nvflare 2.9.0, `nvflare.app_common.filters`: arguments that would make a filter do nothing, such
//! as a percentile of 120 or no `exclude_vars`, are mistakes in the configuration here, refused before
//! anything runs; a DXO that cannot be read and numbers that are not finite stop the payload instead of passing;
//! regular expressions know no look-around and no back references.

mod block;
mod clip;
mod dxo;
mod exclude;
mod model;
mod noise;
mod number;
mod percentile;
mod svt;

pub use block::{DxoBlocker, DxoBlockerArgs};
pub use clip::{ClipNorm, ClipNormArgs};
pub use dxo::{KindName, ModelKind};
pub use exclude::{ExcludeVars, ExcludeVarsArgs, Variables};
pub use noise::{GaussianNoise, GaussianNoiseArgs, Scale};
pub use number::{Percent, Positive};
pub use percentile::{PercentilePrivacy, PercentilePrivacyArgs};
pub use svt::{SvtPrivacy, SvtPrivacyArgs};

/// Makes the filters of this crate known to a registry.
pub fn register(registry: &mut locule_component::Registry) {
    registry.register::<ExcludeVars>();
    registry.register::<PercentilePrivacy>();
    registry.register::<SvtPrivacy>();
    registry.register::<ClipNorm>();
    registry.register::<GaussianNoise>();
    registry.register::<DxoBlocker>();
}
