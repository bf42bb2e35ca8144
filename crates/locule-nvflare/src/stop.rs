//! When to stop early, and which model is the better one.

use locule_fobs::Map;
use serde_json::{Value as Json, json};

use crate::metrics::Metrics;

/// `accuracy >= 80`: a metric, a comparison, a target.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.utils.math_utils` and `nvflare.app_common.workflows.fedavg`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StopCondition {
    key: String,
    compare: Compare,
    target: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Compare {
    AtLeast,
    AtMost,
    Above,
    Below,
    Equal,
}

impl StopCondition {
    pub(crate) fn parse(text: &str) -> Result<StopCondition, &'static str> {
        let [key, compare, target] = text.split(' ').collect::<Vec<_>>()[..] else {
            return Err("expected `<metric> <comparison> <number>`, for example `accuracy >= 80`");
        };
        let compare = match compare {
            ">=" => Compare::AtLeast,
            "<=" => Compare::AtMost,
            ">" => Compare::Above,
            "<" => Compare::Below,
            "=" => Compare::Equal,
            _ => return Err("the comparison is one of `>=`, `<=`, `>`, `<`, `=`"),
        };
        let target = target.parse().map_err(|_| "what the metric is compared with must be a number")?;
        Ok(StopCondition { key: key.to_owned(), compare, target })
    }

    /// The metric and whether more or less of it is better, as it is written with a round's metrics.
    fn key_metric(&self) -> Option<Json> {
        let mode = match self.compare {
            Compare::AtLeast | Compare::Above => "max",
            Compare::AtMost | Compare::Below => "min",
            Compare::Equal => return None,
        };
        Some(json!({ "name": self.key, "mode": mode, "mode_source": "derived_from_stop_condition" }))
    }

    fn holds(&self, value: f64, other: f64) -> bool {
        match self.compare {
            Compare::AtLeast => value >= other,
            Compare::AtMost => value <= other,
            Compare::Above => value > other,
            Compare::Below => value < other,
            Compare::Equal => value == other,
        }
    }
}

/// How a run stands towards its condition.
#[derive(Debug, Clone)]
pub(crate) struct EarlyStop {
    condition: StopCondition,
    /// Rounds without a better model after which to stop; 0 means never.
    patience: u64,
    best: Option<f64>,
    rounds_without_better: u64,
}

impl EarlyStop {
    pub(crate) fn new(condition: StopCondition, patience: u64) -> EarlyStop {
        EarlyStop { condition, patience, best: None, rounds_without_better: 0 }
    }

    /// How the run stands.
    pub(crate) fn state(&self) -> Map {
        let mut state = Map::from_iter([("rounds_without_better", self.rounds_without_better)]);
        if let Some(best) = self.best {
            state.insert("best", best);
        }
        state
    }

    /// The run stands like this; `None` where it is no such state.
    pub(crate) fn restore(&mut self, state: &Map) -> Option<()> {
        self.best = state.float("best");
        self.rounds_without_better = u64::try_from(state.int("rounds_without_better")?).ok()?;
        Some(())
    }

    /// See [`StopCondition::key_metric`].
    pub(crate) fn key_metric(&self) -> Option<Json> {
        self.condition.key_metric()
    }

    /// Whether the model with these metrics is better than all before it. Without metrics it is not, and the round
    /// does not count.
    pub(crate) fn is_better(&mut self, metrics: Option<&Metrics>) -> bool {
        let Some(value) = metrics.and_then(|metrics| metrics.get(&self.condition.key)) else { return false };
        let better = self
            .best
            .is_none_or(|best| self.condition.holds(value, best) && !(self.patience > 0 && best == value));
        if better {
            self.best = Some(value);
            self.rounds_without_better = 0;
        } else {
            self.rounds_without_better += 1;
        }
        better
    }

    /// Why to stop now, if there is a reason.
    pub(crate) fn reason(&self, metrics: Option<&Metrics>) -> Option<String> {
        let metrics = metrics?;
        if self.patience > 0 && self.patience <= self.rounds_without_better {
            return Some(format!("{} rounds without a better model", self.rounds_without_better));
        }
        let value = metrics.get(&self.condition.key)?;
        let StopCondition { key, target, .. } = &self.condition;
        self.condition.holds(value, *target).then(|| format!("`{key}` is {value}, and the target {target}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(value: f64) -> Metrics {
        Metrics(vec![("accuracy".to_owned(), value)])
    }

    fn stop(text: &str, patience: u64) -> EarlyStop {
        EarlyStop::new(StopCondition::parse(text).unwrap(), patience)
    }

    #[test]
    fn a_condition_is_three_words() {
        for text in ["accuracy", "accuracy >= 80 %", "accuracy  >= 80"] {
            let reason = StopCondition::parse(text).unwrap_err();
            assert!(reason.starts_with("expected `<metric> <comparison> <number>`"), "{text}");
        }
        assert!(StopCondition::parse("accuracy == 1").is_err());
        assert!(StopCondition::parse("accuracy > much").is_err());
    }

    #[test]
    fn the_target_stops_and_so_does_patience() {
        let mut early = stop("accuracy >= 0.8", 2);
        let rounds = [
            (0.5, true, false),
            (0.5, false, false),
            (0.7, true, false),
            (0.6, false, false),
            (0.7, false, true),
        ];
        for (value, better, stops) in rounds {
            assert_eq!(early.is_better(Some(&metrics(value))), better, "{value}");
            assert_eq!(early.reason(Some(&metrics(value))).is_some(), stops, "{value}");
        }
        let mut early = stop("accuracy >= 0.8", 0);
        assert!(early.is_better(Some(&metrics(0.9))));
        assert_eq!(early.reason(Some(&metrics(0.9))).unwrap(), "`accuracy` is 0.9, and the target 0.8");
    }

    #[test]
    fn without_metrics_nothing_counts() {
        let mut early = stop("loss < 0.1", 1);
        assert!(!early.is_better(None));
        assert!(!early.is_better(Some(&metrics(0.0))), "it is another metric");
        assert_eq!((early.reason(None), early.reason(Some(&metrics(0.0)))), (None, None));
        let mut loss = stop("loss < 0.1", 0);
        assert!(loss.is_better(Some(&Metrics(vec![("loss".into(), 0.5)]))));
        assert!(!loss.is_better(Some(&Metrics(vec![("loss".into(), 0.5)]))));
    }
}
