//! Shares a noisy sample of the large changes.

use std::fmt;

use locule_component::{BuildCx, BuildError, Built, Component, FilterCx, FilterError, Kind, TaskFilter};
use locule_fobs::{DataKind, Dxo, Map, Shareable, Value};
use rand::{Rng, RngCore};
use rand_distr::{Distribution, Exp1};
use serde::Deserialize;

use crate::dxo::{ModelKind, each_dxo, model_kinds};
use crate::model::Model;
use crate::noise::random;
use crate::number::Positive;
use crate::percentile::steps;

/// Shares a noisy sample of the changes that a noisy threshold lets through, and sets all others to zero: the sparse
/// vector technique of differential privacy.
///
/// Single numbers pass as they are and without noise. What a call spent, and all calls so far, goes into the DXO's
/// meta under `svt_privacy_budget` and `svt_privacy_accountant`.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.filters.svt_privacy`: the same distribution, drawn from other random numbers.
/// Integers become float64. Where the threshold is so high that the passes over the model do not end there, the
/// payload is stopped here.
pub struct SvtPrivacy {
    args: SvtPrivacyArgs,
    kinds: Vec<DataKind>,
    random: Box<dyn RngCore + Send>,
    spent: f64,
    calls: u64,
}

/// Arguments of [`SvtPrivacy`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SvtPrivacyArgs {
    /// Which part of all elements is shared, up to 1 (0.1).
    pub fraction: Positive,
    /// Budget of the choice of elements (0.1).
    pub epsilon: Positive,
    /// Budget of the noise of one element, if `epsilon_release` says nothing (0.1).
    pub noise_var: Positive,
    /// Largest size of a change per step (0.00001).
    pub gamma: Positive,
    /// Threshold before noise (0.000001).
    pub tau: f64,
    /// Kinds of DXO to act on; all kinds of models if none is named.
    pub data_kinds: Option<Vec<ModelKind>>,
    /// Whether an element may be drawn several times (true).
    pub replace: bool,
    /// The part of `epsilon` for the threshold; by default as the standard technique splits it.
    pub epsilon_threshold: Option<Positive>,
    /// The part of `epsilon` for the questions.
    pub epsilon_query: Option<Positive>,
    /// Budget of the noise of all that is shared.
    pub epsilon_release: Option<Positive>,
}

impl Default for SvtPrivacyArgs {
    fn default() -> Self {
        let positive = |number: f64| Positive::try_from(number).expect("a literal above 0");
        Self {
            fraction: positive(0.1),
            epsilon: positive(0.1),
            noise_var: positive(0.1),
            gamma: positive(1e-5),
            tau: 1e-6,
            data_kinds: None,
            replace: true,
            epsilon_threshold: None,
            epsilon_query: None,
            epsilon_release: None,
        }
    }
}

/// Passes over a model until enough elements are above the threshold; then something is wrong with the arguments.
const MOST_PASSES: u64 = 1000;

impl SvtPrivacy {
    /// A filter with random numbers from `random`.
    ///
    /// # Errors
    /// [`BuildError::Argument`] when the parts of the budget are not its sum, or a fraction is above 1.
    pub fn new(args: SvtPrivacyArgs, random: impl RngCore + Send + 'static) -> Result<Self, BuildError> {
        let mistake = |argument: &str, reason: &str| {
            Err(BuildError::Argument { argument: argument.to_owned(), reason: reason.to_owned() })
        };
        if args.fraction.get() > 1.0 {
            return mistake("fraction", "it must not be above 1");
        }
        let parts = [args.epsilon_threshold, args.epsilon_query].map(|part| part.map(Positive::get));
        let epsilon = args.epsilon.get();
        match parts {
            [Some(threshold), Some(query)] if (threshold + query - epsilon).abs() > 1e-8 + 1e-5 * epsilon => {
                return mistake("epsilon_query", "it and `epsilon_threshold` must add up to `epsilon`");
            }
            [Some(part), None] | [None, Some(part)] if part >= epsilon => {
                return mistake("epsilon", "a part of it must be smaller than the whole");
            }
            [_, _] => {}
        }
        let kinds = model_kinds(args.data_kinds.as_deref());
        Ok(Self { args, kinds, random: Box::new(random), spent: 0.0, calls: 0 })
    }
}

impl fmt::Debug for SvtPrivacy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SvtPrivacy").field("args", &self.args).finish_non_exhaustive()
    }
}

impl Component for SvtPrivacy {
    const KIND: Kind = Kind::Filter;
    const NAME: &'static str = "locule.filter.SvtPrivacy";
    const ALIASES: &'static [&'static str] =
        &["nvflare.app_common.filters.svt_privacy.SVTPrivacy", "nvflare.app_common.filters.SVTPrivacy"];
    type Args = SvtPrivacyArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: SvtPrivacyArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Filter(Box::new(SvtPrivacy::new(args, random(cx)?)?)))
    }
}

impl TaskFilter for SvtPrivacy {
    fn apply(&mut self, data: Shareable, cx: &FilterCx<'_>) -> Result<Shareable, FilterError> {
        let round = data.header("current_round").cloned();
        let kinds = self.kinds.clone();
        each_dxo(data, "SVTPrivacy", cx, |kind| kinds.contains(&kind), |dxo| self.share(dxo, round.clone()))
    }
}

/// What one call spends.
struct Budget {
    threshold: f64,
    query: f64,
    release: f64,
}

impl SvtPrivacy {
    fn share(&mut self, dxo: &mut Dxo, round: Option<Value>) -> Result<bool, FilterError> {
        let steps = steps(&dxo.meta)?;
        let mut model = Model::read(&dxo.data)?;
        model.0.sort_by(|a, b| a.name().cmp(b.name()));
        let changes: Vec<f64> =
            model.0.iter().flat_map(|variable| variable.elements.iter()).map(|x| x / steps).collect();
        let total = changes.len();
        if total == 0 {
            return Ok(true);
        }
        let share = ((total as f64 * self.args.fraction.get()).ceil() as usize).clamp(1, total);
        let budget = self.budget(share as f64);
        let (above, passes) = self.above_threshold(&changes, share, &budget)?;
        let chosen = self.choose(&above, share);
        let (gamma, scale) = (self.args.gamma.get(), self.noise_scale(share, budget.release));
        let mut shared: Vec<Option<f64>> = vec![None; total];
        for at in chosen {
            let noise = self.laplace(scale);
            shared[at] = Some((changes[at].clamp(-gamma, gamma) + noise) * steps);
        }
        let mut singles = false;
        let mut shared = shared.into_iter();
        for variable in &mut model.0 {
            let single = variable.is_single();
            singles |= single;
            variable.elements.map(|x| {
                let new = shared.next().flatten();
                if single { x } else { new.unwrap_or(0.0) }
            });
        }
        dxo.data = model.write()?;
        let round = round.or_else(|| dxo.meta.get("current_round").cloned());
        self.account(&mut dxo.meta, &budget, share, passes, singles, round);
        Ok(true)
    }

    /// By default in the proportion 1 : (2c)^(2/3) for c elements.
    fn budget(&self, share: f64) -> Budget {
        let epsilon = self.args.epsilon.get();
        let standard = epsilon / (1.0 + (2.0 * share).powf(2.0 / 3.0));
        let part = |part: Option<Positive>| part.map(Positive::get);
        let (threshold, query) = match (part(self.args.epsilon_threshold), part(self.args.epsilon_query)) {
            (None, None) => (standard, epsilon - standard),
            (Some(threshold), None) => (threshold, epsilon - threshold),
            (None, Some(query)) => (epsilon - query, query),
            (Some(threshold), Some(query)) => (threshold, query),
        };
        let release = part(self.args.epsilon_release).unwrap_or(share * self.args.noise_var.get());
        Budget { threshold, query, release }
    }

    /// The elements whose noisy sizes are above the noisy threshold, after as many passes as it takes until there
    /// are enough of them; and how many passes that were.
    fn above_threshold(
        &mut self,
        changes: &[f64],
        share: usize,
        budget: &Budget,
    ) -> Result<(Vec<usize>, u64), FilterError> {
        let gamma = self.args.gamma.get();
        let threshold = self.args.tau + self.laplace(gamma / budget.threshold);
        let scale = self.noise_scale(share, budget.query);
        let sizes = changes.iter().map(|x| x.clamp(-gamma, gamma).abs());
        let mut below: Vec<(usize, f64)> = sizes.enumerate().collect();
        let mut above = Vec::new();
        for pass in 1..=MOST_PASSES {
            below.retain(|(at, size)| {
                let passes = size + self.laplace(scale) >= threshold;
                if passes {
                    above.push(*at);
                }
                !passes
            });
            if above.len() >= share {
                return Ok((above, pass));
            }
        }
        Err(FilterError::Failed("the threshold `tau` lets too few elements through".to_owned()))
    }

    fn choose(&mut self, above: &[usize], share: usize) -> Vec<usize> {
        if self.args.replace {
            (0..share).map(|_| above[self.random.random_range(0..above.len())]).collect()
        } else {
            let chosen = rand::seq::index::sample(&mut self.random, above.len(), share.min(above.len()));
            chosen.into_iter().map(|at| above[at]).collect()
        }
    }

    fn noise_scale(&self, share: usize, epsilon: f64) -> f64 {
        self.args.gamma.get() * 2.0 * share as f64 / epsilon
    }

    /// A number from the Laplace distribution around 0.
    fn laplace(&mut self, scale: f64) -> f64 {
        let size: f64 = Exp1.sample(&mut self.random);
        if self.random.random() { scale * size } else { -scale * size }
    }

    fn account(
        &mut self,
        meta: &mut Map,
        budget: &Budget,
        share: usize,
        passes: u64,
        singles: bool,
        round: Option<Value>,
    ) {
        let total = budget.threshold + budget.query + budget.release;
        self.spent += total;
        self.calls += 1;
        let of = |epsilon: f64| {
            Map::from_iter([
                ("accountant", Value::from("pure_dp_sum")),
                ("scope", "filter-level".into()),
                ("delta", Value::Float(0.0)),
                ("epsilon_total", Value::Float(epsilon)),
            ])
        };
        let mut call = of(total);
        call.insert("round", round.clone().unwrap_or_default());
        call.insert("epsilon_threshold", Value::Float(budget.threshold));
        call.insert("epsilon_query", Value::Float(budget.query));
        call.insert("epsilon_release", Value::Float(budget.release));
        call.insert("n_upload", Value::Int(i64::try_from(share).unwrap_or(i64::MAX)));
        call.insert("acceptance_passes", Value::Int(i64::try_from(passes).unwrap_or(i64::MAX)));
        call.insert("has_scalar_passthrough", Value::Bool(singles));
        let mut so_far = of(self.spent);
        so_far.insert("calls", Value::Int(i64::try_from(self.calls).unwrap_or(i64::MAX)));
        if let Some(round) = round {
            so_far.insert("latest_round", round);
        }
        if singles {
            let note = "single numbers pass without noise and are not accounted for";
            call.insert("note", note);
            so_far.insert("note", note);
        }
        meta.insert("svt_privacy_budget", call);
        meta.insert("svt_privacy_accountant", so_far);
    }
}
