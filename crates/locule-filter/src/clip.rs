//! Bounds the norm of a model.

use locule_component::{BuildCx, BuildError, Built, Component, FilterCx, FilterError, Kind, TaskFilter};
use locule_fobs::{DataKind, Dxo, Shareable};
use serde::Deserialize;

use crate::dxo::{ModelKind, each_dxo, model_kinds};
use crate::model::Model;
use crate::number::Positive;

/// Scales a model whose L2 norm, over all elements of all variables, is larger than allowed down to that norm.
///
/// Directions stay. The norm that comes out exceeds the bound by no more than the rounding of its elements. A model
/// within the bound passes unchanged; its history names the filter all the same.
#[derive(Debug, Clone)]
pub struct ClipNorm {
    max_norm: f64,
    kinds: Vec<DataKind>,
}

/// Arguments of [`ClipNorm`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClipNormArgs {
    /// Largest norm.
    pub max_norm: Positive,
    /// Kinds of DXO to act on; all kinds of models if none is named.
    #[serde(default)]
    pub data_kinds: Option<Vec<ModelKind>>,
}

impl Component for ClipNorm {
    const KIND: Kind = Kind::Filter;
    const NAME: &'static str = "locule.filter.ClipNorm";
    type Args = ClipNormArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: ClipNormArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        let kinds = model_kinds(args.data_kinds.as_deref());
        Ok(Built::Filter(Box::new(ClipNorm { max_norm: args.max_norm.get(), kinds })))
    }
}

impl TaskFilter for ClipNorm {
    fn apply(&mut self, data: Shareable, cx: &FilterCx<'_>) -> Result<Shareable, FilterError> {
        each_dxo(data, "ClipNorm", cx, |kind| self.kinds.contains(&kind), |dxo| self.clip(dxo))
    }
}

impl ClipNorm {
    fn clip(&self, dxo: &mut Dxo) -> Result<bool, FilterError> {
        let mut model = Model::read(&dxo.data)?;
        // By the largest element first: squares of huge ones would overflow, of tiny ones vanish.
        let elements = || model.0.iter().flat_map(|variable| variable.elements.iter());
        let largest = elements().map(f64::abs).fold(0.0, f64::max);
        if largest == 0.0 {
            return Ok(true);
        }
        let norm_by_largest = elements().map(|x| (x / largest).powi(2)).sum::<f64>().sqrt();
        let bound_by_largest = self.max_norm / largest;
        if norm_by_largest <= bound_by_largest {
            return Ok(true);
        }
        // Elements are divided first, so that neither factor is out of range.
        let scale = self.max_norm / norm_by_largest;
        model.0.iter_mut().for_each(|variable| variable.elements.map(|x| x / largest * scale));
        dxo.data = model.write()?;
        Ok(true)
    }
}
