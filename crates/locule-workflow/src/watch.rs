//! Metrics of rounds: which model is the best, and when to stop.

use locule_component::BuildError;
use locule_fobs::Map;
use serde::Deserialize;

/// A metric, and which way is better.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BestModelArgs {
    /// The name under which sites report it, among the `initial_metrics` of their results.
    pub metric: String,
    /// Which way is better.
    #[serde(default)]
    pub mode: Better,
}

/// Which way a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// The higher, as of an accuracy.
    #[default]
    Max,
    /// The lower, as of a loss.
    Min,
}

/// When to stop before the last round. With both a target and patience, what comes first stops.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopArgs {
    /// The name under which sites report it, among the `initial_metrics` of their results.
    pub metric: String,
    /// Which way is better.
    #[serde(default)]
    pub mode: Better,
    /// Stop when it is this good.
    #[serde(default)]
    pub target: Option<f64>,
    /// Stop after so many rounds without a better value; 0 means never.
    #[serde(default)]
    pub patience: u64,
}

impl Better {
    fn is_better(self, value: f64, than: f64) -> bool {
        match self {
            Better::Max => value > than,
            Better::Min => value < than,
        }
    }
}

/// The best value of a metric so far.
#[derive(Debug, Clone)]
pub(crate) struct Best {
    mode: Better,
    value: Option<f64>,
}

impl Best {
    pub(crate) fn new(mode: Better) -> Best {
        Best { mode, value: None }
    }

    /// Whether this is better than all before it; equal is not.
    pub(crate) fn take(&mut self, value: f64) -> bool {
        let is_better = self.value.is_none_or(|best| self.mode.is_better(value, best));
        if is_better {
            self.value = Some(value);
        }
        is_better
    }

    pub(crate) fn value(&self) -> Option<f64> {
        self.value
    }

    pub(crate) fn restore(&mut self, value: Option<f64>) {
        self.value = value;
    }
}

/// How a run stands towards its early stop.
#[derive(Debug, Clone)]
pub(crate) struct EarlyStop {
    args: EarlyStopArgs,
    best: Best,
    rounds_without_better: u64,
}

impl EarlyStop {
    pub(crate) fn new(args: EarlyStopArgs) -> Result<EarlyStop, BuildError> {
        let wrong = |argument: &str, reason: &str| BuildError::Argument {
            argument: argument.to_owned(),
            reason: reason.to_owned(),
        };
        if args.target.is_some_and(|target| !target.is_finite()) {
            return Err(wrong("stop.target", "expected a finite number"));
        }
        if args.target.is_none() && args.patience == 0 {
            return Err(wrong("stop", "it needs a `target`, `patience` or both"));
        }
        Ok(EarlyStop { best: Best::new(args.mode), args, rounds_without_better: 0 })
    }

    pub(crate) fn metric(&self) -> &str {
        &self.args.metric
    }

    /// How the run stands.
    pub(crate) fn state(&self) -> Map {
        let mut state = Map::from_iter([("rounds_without_better", self.rounds_without_better)]);
        if let Some(best) = self.best.value() {
            state.insert("best", best);
        }
        state
    }

    /// The run stands like this; `None` where it is no such state.
    pub(crate) fn restore(&mut self, state: &Map) -> Option<()> {
        self.best.restore(state.float("best"));
        self.rounds_without_better = u64::try_from(state.int("rounds_without_better")?).ok()?;
        Some(())
    }

    /// Why to stop after a round with this value. A round in which no site reports the metric does not count.
    pub(crate) fn take(&mut self, value: Option<f64>) -> Option<String> {
        let value = value?;
        if self.best.take(value) {
            self.rounds_without_better = 0;
        } else {
            self.rounds_without_better += 1;
        }
        let EarlyStopArgs { metric, mode, target, patience } = &self.args;
        if let Some(target) = target.filter(|target| value == *target || mode.is_better(value, *target)) {
            return Some(format!("`{metric}` is {value}, and the target {target}"));
        }
        let rounds = self.rounds_without_better;
        (*patience > 0 && rounds >= *patience).then(|| format!("{rounds} rounds without a better `{metric}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_counts_rounds_without_a_better_value() {
        let args = EarlyStopArgs { metric: "loss".into(), mode: Better::Min, target: Some(0.1), patience: 2 };
        let mut stop = EarlyStop::new(args).unwrap();
        let values = [Some(3.0), Some(2.0), Some(2.0), None, Some(1.5), Some(1.6)];
        assert!(values.iter().all(|value| stop.take(*value).is_none()));
        assert_eq!(stop.clone().take(Some(0.1)).unwrap(), "`loss` is 0.1, and the target 0.1");
        assert_eq!(stop.take(Some(1.7)).unwrap(), "2 rounds without a better `loss`");
    }
}
