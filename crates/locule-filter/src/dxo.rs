//! The DXOs of a payload, one after another.

use locule_component::{FilterCx, FilterError};
use locule_fobs::{DataKind, Dxo, Map, Shareable, Value};
use serde::Deserialize;

/// Kinds of DXO that hold a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ModelKind {
    /// A model's weights.
    Weights,
    /// The difference to the weights that training began with.
    WeightDiff,
}

impl ModelKind {
    fn data_kind(self) -> DataKind {
        match self {
            ModelKind::Weights => DataKind::Weights,
            ModelKind::WeightDiff => DataKind::WeightDiff,
        }
    }
}

/// Any kind of DXO, by its name on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct KindName(pub DataKind);

impl TryFrom<String> for KindName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        DataKind::parse(&name).map(Self).ok_or_else(|| {
            format!(
                "no kind of DXO is called `{name}`; usual ones are `WEIGHTS`, `WEIGHT_DIFF` and `METRICS`"
            )
        })
    }
}

/// The kinds that a filter acts on: those that its arguments name, or every kind of model.
pub(crate) fn model_kinds(named: Option<&[ModelKind]>) -> Vec<DataKind> {
    let all = [ModelKind::Weights, ModelKind::WeightDiff];
    let kinds = named.filter(|kinds| !kinds.is_empty()).unwrap_or(&all);
    kinds.iter().map(|kind| kind.data_kind()).collect()
}

/// Key of a DXO's meta under which filters leave their names.
///
/// # Source
/// nvflare 2.9.0, `nvflare.apis.fl_constant.MetaKey`.
const HISTORY: &str = "filter_history";

/// Passes every DXO of a payload that `wanted` picks to `change`, which says whether it changed it; if so, `name`
/// goes into its history.
///
/// A reply that did not go well, and what does not claim to be a DXO, pass as they are, and so does a DXO without
/// data.
///
/// # Source
/// nvflare 2.9.0, `nvflare.apis.dxo_filter`.
pub(crate) fn each_dxo(
    mut payload: Shareable,
    name: &str,
    cx: &FilterCx<'_>,
    wanted: impl Fn(DataKind) -> bool,
    mut change: impl FnMut(&mut Dxo) -> Result<bool, FilterError>,
) -> Result<Shareable, FilterError> {
    if payload.return_code() != "OK" {
        return Ok(payload);
    }
    let taken = payload.take_dxo().map_err(|error| FilterError::Failed(error.to_string()))?;
    let Some(mut dxo) = taken else { return Ok(payload) };
    let mut changed = 0;
    visit(&mut dxo, &mut |dxo| {
        if dxo.data.is_empty() || !wanted(dxo.kind) || !change(dxo)? {
            return Ok(());
        }
        changed += 1;
        note(&mut dxo.meta, name);
        Ok(())
    })?;
    tracing::debug!(
        site = cx.site,
        job = cx.job_id,
        task = cx.task,
        filter = name,
        chain = cx.chain.key(),
        direction = cx.direction.as_str(),
        dxos = changed,
        "filter applied"
    );
    payload.set_dxo(dxo);
    Ok(payload)
}

fn visit(
    dxo: &mut Dxo,
    leaf: &mut impl FnMut(&mut Dxo) -> Result<(), FilterError>,
) -> Result<(), FilterError> {
    if dxo.kind != DataKind::Collection {
        return leaf(dxo);
    }
    let entries = std::mem::take(&mut dxo.data).into_iter().map(|(key, value)| {
        let Value::Dxo(mut inner) = value else {
            let reason = format!("a collection holds a {} beside its DXOs", value.kind());
            return Err(FilterError::Failed(reason));
        };
        visit(&mut inner, leaf)?;
        Ok((key, Value::Dxo(inner)))
    });
    dxo.data = entries.collect::<Result<Map, _>>()?;
    Ok(())
}

fn note(meta: &mut Map, name: &str) {
    match meta.get_mut(HISTORY) {
        Some(Value::List(history)) => history.push(name.into()),
        Some(_) | None => {
            meta.insert(HISTORY, Value::List(vec![name.into()]));
        }
    }
}
