//! Shares the largest changes only.

use locule_component::{BuildCx, BuildError, Built, Component, FilterCx, FilterError, Kind, TaskFilter};
use locule_fobs::{DataKind, Dxo, Map, Shareable};
use serde::Deserialize;

use crate::dxo::{ModelKind, each_dxo, model_kinds};
use crate::model::{Elements, Model};
use crate::number::{Percent, Positive};

/// Sets changes to zero whose size lies below a percentile of all sizes, and bounds the others.
///
/// Everything is seen per step: elements are divided by the number of steps that the DXO's meta tells, and
/// multiplied by it again in the end. Single numbers (arrays without dimensions) count for the percentile and pass
/// as they are. The percentile is interpolated linearly, in float32 where all of the model is, as numpy does.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.filters.percentile_privacy`, after Shokri and Shmatikov, "Privacy-preserving
/// deep learning", CCS 2015. Integers become float64, as there.
#[derive(Debug, Clone)]
pub struct PercentilePrivacy {
    percentile: f64,
    gamma: f64,
    kinds: Vec<DataKind>,
}

/// Arguments of [`PercentilePrivacy`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PercentilePrivacyArgs {
    /// Changes below this percentile of all sizes become zero (10).
    #[serde(default = "default_percentile")]
    pub percentile: Percent,
    /// Largest size of a change per step that is shared (0.01).
    #[serde(default = "default_gamma")]
    pub gamma: Positive,
    /// Kinds of DXO to act on; all kinds of models if none is named.
    #[serde(default)]
    pub data_kinds: Option<Vec<ModelKind>>,
}

impl Component for PercentilePrivacy {
    const KIND: Kind = Kind::Filter;
    const NAME: &'static str = "locule.filter.PercentilePrivacy";
    const ALIASES: &'static [&'static str] = &[
        "nvflare.app_common.filters.percentile_privacy.PercentilePrivacy",
        "nvflare.app_common.filters.PercentilePrivacy",
    ];
    type Args = PercentilePrivacyArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: PercentilePrivacyArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Filter(Box::new(PercentilePrivacy {
            percentile: args.percentile.get(),
            gamma: args.gamma.get(),
            kinds: model_kinds(args.data_kinds.as_deref()),
        })))
    }
}

impl TaskFilter for PercentilePrivacy {
    fn apply(&mut self, data: Shareable, cx: &FilterCx<'_>) -> Result<Shareable, FilterError> {
        each_dxo(data, "PercentilePrivacy", cx, |kind| self.kinds.contains(&kind), |dxo| self.share(dxo))
    }
}

impl PercentilePrivacy {
    fn share(&self, dxo: &mut Dxo) -> Result<bool, FilterError> {
        let steps = steps(&dxo.meta)?;
        let mut model = Model::read(&dxo.data)?;
        for variable in &mut model.0 {
            match &mut variable.elements {
                Elements::Single(all) => all.iter_mut().for_each(|x| *x /= steps as f32),
                Elements::Double(all) => all.iter_mut().for_each(|x| *x /= steps),
            }
        }
        let Some(cutoff) = percentile_of_sizes(&model, self.percentile) else { return Ok(false) };
        for variable in &mut model.0 {
            let clip = !variable.is_single();
            match &mut variable.elements {
                Elements::Single(all) => {
                    let gamma = self.gamma as f32;
                    for x in all {
                        let shared = if f64::from(x.abs()) < cutoff { 0.0 } else { x.clamp(-gamma, gamma) };
                        *x = if clip { shared } else { *x } * steps as f32;
                    }
                }
                Elements::Double(all) => {
                    for x in all {
                        let shared = if x.abs() < cutoff { 0.0 } else { x.clamp(-self.gamma, self.gamma) };
                        *x = if clip { shared } else { *x } * steps;
                    }
                }
            }
        }
        dxo.data = model.write()?;
        Ok(true)
    }
}

/// The number of steps that a result stands for: what its meta says, else one.
pub(crate) fn steps(meta: &Map) -> Result<f64, FilterError> {
    const STEPS: &str = "NUM_STEPS_CURRENT_ROUND";
    match meta.get(STEPS).filter(|value| !value.is_none()) {
        None => Ok(1.0),
        Some(value) => value
            .as_f64()
            .filter(|steps| steps.is_finite() && *steps > 0.0)
            .ok_or_else(|| FilterError::Failed(format!("{STEPS} is no number above 0"))),
    }
}

/// The percentile of the absolute values of all elements, interpolated; nothing if there are none.
///
/// # Source
/// numpy 2.4, `numpy.percentile` with its default method.
pub(crate) fn percentile_of_sizes(model: &Model, percentile: f64) -> Option<f64> {
    let single = model.0.iter().all(|variable| matches!(variable.elements, Elements::Single(_)));
    let mut sizes: Vec<f64> =
        model.0.iter().flat_map(|variable| variable.elements.iter().map(f64::abs)).collect();
    let last = sizes.len().checked_sub(1)?;
    let place = last as f64 * (percentile / 100.0);
    let below = (place.floor() as usize).min(last);
    let (_, &mut a, above) = sizes.select_nth_unstable_by(below, f64::total_cmp);
    let b = above.iter().copied().min_by(f64::total_cmp).unwrap_or(a);
    let t = place - below as f64;
    // Every size came from a float32 where all did.
    Some(if single { f64::from(between_f32(a as f32, b as f32, t)) } else { between(a, b, t) })
}

fn between(a: f64, b: f64, t: f64) -> f64 {
    if t >= 0.5 { b - (b - a) * (1.0 - t) } else { a + (b - a) * t }
}

fn between_f32(a: f32, b: f32, t: f64) -> f32 {
    if t >= 0.5 { b - (b - a) * (1.0 - t) as f32 } else { a + (b - a) * t as f32 }
}

fn default_percentile() -> Percent {
    Percent::try_from(10.0).expect("10 is a percentage")
}

fn default_gamma() -> Positive {
    Positive::try_from(0.01).expect("0.01 is above 0")
}
