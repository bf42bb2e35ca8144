//! Which global model is the best.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use locule_component::{BuildCx, BuildError, Built, Component, Kind};
use locule_fobs::{DataKind, Dxo, Map};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::check_weights;
use crate::metrics::number;

/// Finds the best global model by a metric that the sites report with their results.
///
/// The metric is one of the model that a site was given, so that after round `n` the model that the round began with
/// is judged; the first round is passed over. [`FedAvg`](crate::FedAvg) keeps the best model in `models/best.npz`.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.widgets.intime_model_selector`. There the choice is only announced, and it is
/// for the persistor to keep the model, which the one for numpy does not do.
#[derive(Debug)]
pub struct IntimeModelSelector {
    args: IntimeModelSelectorArgs,
    best: Mutex<Option<Best>>,
}

#[derive(Debug, Clone, Copy)]
struct Best {
    round: u64,
    metric: f64,
}

/// Arguments of [`IntimeModelSelector`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IntimeModelSelectorArgs {
    /// Whether a site's metric counts with its number of training steps.
    pub weigh_by_local_iter: bool,
    /// A factor for the weight of a site's metric; 1 for sites that are not named.
    pub aggregation_weights: Option<BTreeMap<String, f64>>,
    /// The meta property that holds the metrics, or the metric itself.
    pub validation_metric_name: String,
    /// Which metric counts.
    pub key_metric: String,
    /// Whether less is better.
    pub negate_key_metric: bool,
}

impl Default for IntimeModelSelectorArgs {
    fn default() -> IntimeModelSelectorArgs {
        IntimeModelSelectorArgs {
            weigh_by_local_iter: false,
            aggregation_weights: None,
            validation_metric_name: "initial_metrics".to_owned(),
            key_metric: "val_accuracy".to_owned(),
            negate_key_metric: false,
        }
    }
}

impl Component for IntimeModelSelector {
    const KIND: Kind = Kind::Service;
    const NAME: &'static str = "nvflare.app_common.widgets.intime_model_selector.IntimeModelSelector";
    const ALIASES: &'static [&'static str] =
        &["nvflare.app_common.widgets.intime_model_selector.IntimeModelSelectionHandler"];
    type Args = IntimeModelSelectorArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: IntimeModelSelectorArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Service(Arc::new(IntimeModelSelector::new(args)?)))
    }
}

impl IntimeModelSelector {
    /// That has seen no model yet.
    ///
    /// # Errors
    /// [`BuildError::Argument`] for a weight that makes no sense.
    pub fn new(args: IntimeModelSelectorArgs) -> Result<IntimeModelSelector, BuildError> {
        args.aggregation_weights.as_ref().map_or(Ok(()), check_weights)?;
        if !args.negate_key_metric && looks_lower_is_better(&args.key_metric) {
            tracing::warn!(
                key_metric = args.key_metric,
                "less of this metric seems to be better, and the model with most of it will be the best; \
                 set `negate_key_metric`"
            );
        }
        Ok(IntimeModelSelector { args, best: Mutex::default() })
    }

    /// The best metric so far, as the sites reported it.
    pub fn best(&self) -> Option<f64> {
        self.lock().map(|best| best.metric)
    }

    /// The choice, as [`MetricsArtifactWriter`](crate::MetricsArtifactWriter) puts it into its summary.
    pub(crate) fn choice(&self) -> Option<Json> {
        let Best { round, metric } = (*self.lock())?;
        let name = &self.args.key_metric;
        Some(json!({
            "key_metric": {
                "name": name,
                "mode": if self.args.negate_key_metric { "min" } else { "max" },
                "mode_source": "IntimeModelSelector.negate_key_metric",
            },
            "best_round": round,
            "best_metrics": [{ "name": name, "value": metric }],
            "best_metric_source": "IntimeModelSelector",
            "best_metric_detail_source": self.args.validation_metric_name,
        }))
    }

    /// What it chose.
    pub(crate) fn state(&self) -> Map {
        let mut state = Map::new();
        if let Some(Best { round, metric }) = *self.lock() {
            state.insert("round", round);
            state.insert("metric", metric);
        }
        state
    }

    /// It chose this.
    pub(crate) fn restore(&self, state: &Map) {
        let round = state.int("round").and_then(|round| u64::try_from(round).ok());
        let best = round.zip(state.float("metric")).map(|(round, metric)| Best { round, metric });
        *self.lock() = best;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Best>> {
        self.best.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A round begins.
    pub(crate) fn selection(&self, round: u64) -> Selection {
        Selection { args: self.args.clone(), round, sum: 0.0, weight: 0.0 }
    }

    /// Whether the model that the round began with is better than all before it; if so, it is the best from now on.
    pub(crate) fn judge(&self, selection: &Selection) -> bool {
        if selection.weight == 0.0 {
            return false;
        }
        let metric = selection.sum / selection.weight;
        let mut best = self.lock();
        let is_better = match *best {
            None => metric.is_finite(),
            Some(best) if self.args.negate_key_metric => metric < best.metric,
            Some(best) => metric > best.metric,
        };
        if is_better {
            *best = Some(Best { round: selection.round, metric });
            let (round, key_metric) = (selection.round, &self.args.key_metric);
            tracing::info!(round, key_metric, metric, "best global model so far");
        }
        is_better
    }
}

/// What the sites report in one round.
#[derive(Debug)]
pub(crate) struct Selection {
    args: IntimeModelSelectorArgs,
    round: u64,
    sum: f64,
    weight: f64,
}

impl Selection {
    pub(crate) fn take(&mut self, site: &str, dxo: &Dxo) {
        let has_model = matches!(dxo.kind, DataKind::Weights | DataKind::WeightDiff | DataKind::Collection);
        if self.round == 0 || !has_model {
            return;
        }
        let metric = dxo.meta.get(&self.args.validation_metric_name);
        let metric = metric.and_then(|metric| match metric.as_map() {
            Some(metrics) => metrics.get(&self.args.key_metric),
            None => Some(metric),
        });
        let Some(metric) = metric.and_then(number).filter(|metric| metric.is_finite()) else {
            tracing::warn!(site, key_metric = self.args.key_metric, "no metric to judge the model by");
            return;
        };
        let steps = dxo.meta.get("NUM_STEPS_CURRENT_ROUND").filter(|_| self.args.weigh_by_local_iter);
        let steps = steps.and_then(number).unwrap_or(1.0);
        let factor = self.args.aggregation_weights.as_ref().and_then(|weights| weights.get(site)).copied();
        let weight = steps * factor.unwrap_or(1.0);
        if weight.is_finite() && weight >= 0.0 {
            self.sum += metric * weight;
            self.weight += weight;
        }
    }
}

/// Whether the name is one of a loss or an error; those that say `neg` are turned round already.
fn looks_lower_is_better(name: &str) -> bool {
    const WORDS: [&str; 10] = ["bce", "ce", "cer", "mae", "mse", "nll", "perplexity", "ppl", "rmse", "wer"];
    let name = name.to_ascii_lowercase();
    let words = || name.split(|c: char| !c.is_ascii_alphanumeric());
    let is_negated = words().any(|word| word == "neg");
    !is_negated
        && (name.contains("loss") || name.contains("err") || words().any(|word| WORDS.contains(&word)))
}

#[cfg(test)]
mod tests {
    use locule_fobs::{Map, Value};

    use super::*;

    fn result(metrics: impl Into<Value>, steps: i64) -> Dxo {
        let mut dxo = Dxo::new(DataKind::Weights, Map::new());
        dxo.meta.insert("initial_metrics", metrics);
        dxo.meta.insert("NUM_STEPS_CURRENT_ROUND", steps);
        dxo
    }

    fn selector(json: serde_json::Value) -> IntimeModelSelector {
        IntimeModelSelector::new(serde_json::from_value(json).unwrap()).unwrap()
    }

    fn judge(selector: &IntimeModelSelector, round: u64, results: &[(&str, Dxo)]) -> bool {
        let mut selection = selector.selection(round);
        results.iter().for_each(|(site, dxo)| selection.take(site, dxo));
        selector.judge(&selection)
    }

    #[test]
    fn the_best_is_the_highest_mean_after_the_first_round() {
        let selector = selector(serde_json::json!({"key_metric": "accuracy"}));
        let at = |value: f64| result(Map::from_iter([("accuracy", value)]), 7);
        assert!(!judge(&selector, 0, &[("a", at(0.9))]), "there is no averaged model yet");
        assert!(judge(&selector, 1, &[("a", at(0.5)), ("b", at(0.7))]));
        assert_eq!(selector.best(), Some(0.6));
        assert!(!judge(&selector, 2, &[("a", at(0.6)), ("b", at(0.6))]), "as good is not better");
        assert!(
            judge(&selector, 3, &[("a", at(0.8)), ("b", result(Map::new(), 1))]),
            "one site says nothing"
        );
        assert!(!judge(&selector, 4, &[("a", at(f64::INFINITY))]));
        assert_eq!(selector.best(), Some(0.8));
    }

    #[test]
    fn less_is_better_when_the_metric_is_negated_and_weights_count() {
        let selector = selector(serde_json::json!({"key_metric": "loss", "negate_key_metric": true,
            "weigh_by_local_iter": true, "aggregation_weights": {"b": 3}}));
        assert!(judge(&selector, 1, &[("a", result(1.0, 3)), ("b", result(3.0, 1))]));
        assert_eq!(selector.best(), Some(2.0));
        assert!(judge(&selector, 2, &[("a", result(1.5, 1))]));
        assert!(!judge(&selector, 3, &[("a", result(1.6, 1))]));
    }

    #[test]
    fn names_of_losses_are_recognised() {
        for name in ["val_loss", "error_rate", "mse", "val-ce"] {
            assert!(looks_lower_is_better(name), "{name}");
        }
        for name in ["accuracy", "dice", "neg_loss", "auc"] {
            assert!(!looks_lower_is_better(name), "{name}");
        }
    }
}
