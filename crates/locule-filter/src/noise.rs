//! Adds noise to a model.

use std::fmt;

use locule_component::{BuildCx, BuildError, Built, Component, FilterCx, FilterError, Kind, TaskFilter};
use locule_fobs::{DataKind, Dxo, Shareable};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use serde::Deserialize;

use crate::dxo::{ModelKind, each_dxo, model_kinds};
use crate::model::Model;
use crate::number::Positive;
use crate::percentile::percentile_of_sizes;

/// Adds noise from a normal distribution with mean 0 to every element of a model, single numbers included.
///
/// With `sigma` the standard deviation is what the arguments say; behind a [`ClipNorm`](crate::ClipNorm) that is the
/// Gaussian mechanism, whose guarantee is for the operator to account for. With `ratio` it follows the model, and
/// gives no such guarantee. Random numbers come from a generator that the operating system seeds; a job cannot
/// choose the seed.
pub struct GaussianNoise {
    scale: Scale,
    kinds: Vec<DataKind>,
    random: Box<dyn RngCore + Send>,
}

/// Arguments of [`GaussianNoise`]: one of `sigma` and `ratio`.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GaussianNoiseArgs {
    /// Standard deviation, in units of the model.
    #[serde(default)]
    pub sigma: Option<Positive>,
    /// Standard deviation as a part of the 95th percentile of the elements' sizes.
    #[serde(default)]
    pub ratio: Option<Positive>,
    /// Kinds of DXO to act on; all kinds of models if none is named.
    #[serde(default)]
    pub data_kinds: Option<Vec<ModelKind>>,
}

/// How much noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// This standard deviation.
    Sigma(Positive),
    /// This part of the 95th percentile of the elements' sizes.
    Ratio(Positive),
}

impl GaussianNoise {
    /// A filter with random numbers from `random`, for models of every kind.
    pub fn new(scale: Scale, random: impl RngCore + Send + 'static) -> Self {
        Self { scale, kinds: model_kinds(None), random: Box::new(random) }
    }
}

impl fmt::Debug for GaussianNoise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GaussianNoise")
            .field("scale", &self.scale)
            .field("kinds", &self.kinds)
            .finish_non_exhaustive()
    }
}

impl Component for GaussianNoise {
    const KIND: Kind = Kind::Filter;
    const NAME: &'static str = "locule.filter.GaussianNoise";
    type Args = GaussianNoiseArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: GaussianNoiseArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        let scale = match (args.sigma, args.ratio) {
            (Some(sigma), None) => Scale::Sigma(sigma),
            (None, Some(ratio)) => Scale::Ratio(ratio),
            (None, None) | (Some(_), Some(_)) => {
                let reason = "one of `sigma` and `ratio` must be given, and not both".to_owned();
                return Err(BuildError::Argument { argument: "sigma".to_owned(), reason });
            }
        };
        let kinds = model_kinds(args.data_kinds.as_deref());
        Ok(Built::Filter(Box::new(GaussianNoise { kinds, ..GaussianNoise::new(scale, random(cx)?) })))
    }
}

/// A generator that the operating system seeds, unless the program wants a run that can be repeated.
pub(crate) fn random(cx: &BuildCx<'_>) -> Result<StdRng, BuildError> {
    if let Some(seed) = cx.seed() {
        return Ok(StdRng::from_seed(seed));
    }
    StdRng::try_from_os_rng()
        .map_err(|error| BuildError::Unavailable(format!("the system gives no random numbers: {error}")))
}

impl TaskFilter for GaussianNoise {
    fn apply(&mut self, data: Shareable, cx: &FilterCx<'_>) -> Result<Shareable, FilterError> {
        let Self { scale, kinds, random } = self;
        each_dxo(
            data,
            "GaussianNoise",
            cx,
            |kind| kinds.contains(&kind),
            |dxo| add_noise(*scale, random, dxo),
        )
    }
}

fn add_noise(scale: Scale, random: &mut dyn RngCore, dxo: &mut Dxo) -> Result<bool, FilterError> {
    let mut model = Model::read(&dxo.data)?;
    let sigma = match scale {
        Scale::Sigma(sigma) => sigma.get(),
        Scale::Ratio(ratio) => ratio.get() * percentile_of_sizes(&model, 95.0).unwrap_or_default(),
    };
    for variable in &mut model.0 {
        variable.elements.map(|x| {
            let normal: f64 = StandardNormal.sample(random);
            x + sigma * normal
        });
    }
    dxo.data = model.write()?;
    Ok(true)
}
