//! Stops whole kinds of DXOs.

use locule_component::{BuildCx, BuildError, Built, Component, FilterCx, FilterError, Kind, TaskFilter};
use locule_fobs::{DataKind, Shareable};
use serde::Deserialize;

use crate::dxo::{KindName, each_dxo};

/// Stops a payload that holds a DXO of a kind that may not pass.
///
/// Other filters act on models and let everything else by; this one says what else there may be.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.filters.dxo_blocker`.
#[derive(Debug, Clone)]
pub struct DxoBlocker {
    kinds: Vec<DataKind>,
    allow: bool,
}

/// Arguments of [`DxoBlocker`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DxoBlockerArgs {
    /// Kinds of DXO; at least one.
    #[schemars(with = "Vec<String>")]
    pub data_kinds: Vec<KindName>,
    /// Whether those, and only those, may pass (false: those may not).
    #[serde(default)]
    pub allow_data_kinds: bool,
}

impl Component for DxoBlocker {
    const KIND: Kind = Kind::Filter;
    const NAME: &'static str = "locule.filter.DxoBlocker";
    const ALIASES: &'static [&'static str] = &["nvflare.app_common.filters.dxo_blocker.DXOBlocker"];
    type Args = DxoBlockerArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: DxoBlockerArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        if args.data_kinds.is_empty() {
            let (argument, reason) = ("data_kinds".to_owned(), "at least one kind must be named".to_owned());
            return Err(BuildError::Argument { argument, reason });
        }
        let kinds = args.data_kinds.into_iter().map(|KindName(kind)| kind).collect();
        Ok(Built::Filter(Box::new(DxoBlocker { kinds, allow: args.allow_data_kinds })))
    }
}

impl TaskFilter for DxoBlocker {
    fn apply(&mut self, data: Shareable, cx: &FilterCx<'_>) -> Result<Shareable, FilterError> {
        let passes = |kind| self.kinds.contains(&kind) == self.allow;
        each_dxo(
            data,
            "DXOBlocker",
            cx,
            |kind| !passes(kind),
            |dxo| Err(FilterError::Blocked(format!("DXO kind {} is blocked", dxo.kind))),
        )
    }
}
