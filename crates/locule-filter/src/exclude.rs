//! Takes variables out of a model.

use locule_component::{BuildCx, BuildError, Built, Component, FilterCx, FilterError, Kind, TaskFilter};
use locule_fobs::{DataKind, Dxo, Map, Shareable};
use regex::Regex;
use serde::Deserialize;

use crate::dxo::{ModelKind, each_dxo, model_kinds};

/// Takes variables out of models, by name or by regular expression.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.filters.exclude_vars`.
#[derive(Debug)]
pub struct ExcludeVars {
    variables: Variables,
    kinds: Vec<DataKind>,
}

/// Arguments of [`ExcludeVars`].
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExcludeVarsArgs {
    /// Names of variables in a list, or a regular expression that matches anywhere in a name.
    #[schemars(with = "Written")]
    pub exclude_vars: Variables,
    /// Kinds of DXO to act on; all kinds of models if none is named.
    #[serde(default)]
    pub data_kinds: Option<Vec<ModelKind>>,
}

/// How a configuration writes [`Variables`].
#[derive(schemars::JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is of use")]
enum Written {
    /// Names.
    Names(Vec<String>),
    /// A regular expression.
    Pattern(String),
}

/// Which variables are meant.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub enum Variables {
    /// Those with these names.
    Named(Vec<String>),
    /// Those with names in which this is found.
    Matching(Regex),
}

impl TryFrom<serde_json::Value> for Variables {
    type Error = String;

    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            let pattern = Regex::new(text).map(Self::Matching);
            return pattern.map_err(|error| format!("{text:?} is no regular expression here: {error}"));
        }
        if let Some(names) = value.as_array().filter(|names| !names.is_empty()) {
            let names: Option<Vec<String>> =
                names.iter().map(|name| name.as_str().map(str::to_owned)).collect();
            return names.map(Self::Named).ok_or_else(|| "a list of names must hold text only".to_owned());
        }
        Err("a list of names or a regular expression is expected, and not an empty one".to_owned())
    }
}

impl Component for ExcludeVars {
    const KIND: Kind = Kind::Filter;
    const NAME: &'static str = "locule.filter.ExcludeVars";
    const ALIASES: &'static [&'static str] =
        &["nvflare.app_common.filters.exclude_vars.ExcludeVars", "nvflare.app_common.filters.ExcludeVars"];
    type Args = ExcludeVarsArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: ExcludeVarsArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        let kinds = model_kinds(args.data_kinds.as_deref());
        Ok(Built::Filter(Box::new(ExcludeVars { variables: args.exclude_vars, kinds })))
    }
}

impl TaskFilter for ExcludeVars {
    fn apply(&mut self, data: Shareable, cx: &FilterCx<'_>) -> Result<Shareable, FilterError> {
        each_dxo(data, "ExcludeVars", cx, |kind| self.kinds.contains(&kind), |dxo| self.exclude(dxo, cx))
    }
}

impl ExcludeVars {
    fn exclude(&self, dxo: &mut Dxo, cx: &FilterCx<'_>) -> Result<bool, FilterError> {
        let before = dxo.data.len();
        let mut left = Vec::with_capacity(before);
        for (key, value) in std::mem::take(&mut dxo.data) {
            let name = key.as_str().ok_or_else(|| {
                FilterError::Failed(format!("a variable's name is a {} and no text", key.kind()))
            })?;
            let meant = match &self.variables {
                Variables::Named(names) => names.iter().any(|excluded| excluded == name),
                Variables::Matching(pattern) => pattern.is_match(name),
            };
            if !meant {
                left.push((key, value));
            }
        }
        if left.len() == before {
            tracing::warn!(
                site = cx.site,
                job = cx.job_id,
                task = cx.task,
                "ExcludeVars finds nothing to exclude"
            );
        }
        dxo.data = Map::from_iter(left);
        Ok(true)
    }
}
