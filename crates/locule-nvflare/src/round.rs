//! One round of federated averaging: results folded as they come.

use std::collections::BTreeMap;

use locule_component::{Fault, ResultSink, Unusable};
use locule_fobs::{DataKind, Dxo, Map, Shareable, Value, header};
use locule_workflow::WeightedMean;
use regex::Regex;

use crate::metrics::{MetricMeans, Metrics, number};
use crate::metrics_writer::RoundMetrics;
use crate::selector::Selection;

/// Takes the results of a round.
///
/// A result that is not usable is passed over with a warning, as nvflare does; more sites that answer with an error
/// than the rules bear fail the round.
pub(crate) struct Round<'a> {
    rules: Rules<'a>,
    mean: WeightedMean,
    means: MetricMeans,
    /// Whether the sites return weights or differences; the first usable result decides.
    kind: Option<DataKind>,
    sites: Vec<(String, Vec<(String, f64)>)>,
    selections: Vec<Selection>,
    records: Vec<RoundMetrics>,
    refused: Vec<String>,
    errors: usize,
    failed: Option<String>,
}

/// How results count.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules<'a> {
    /// A factor for the weight of a site's results; 1 for sites that are not named.
    pub(crate) weights: Option<&'a BTreeMap<String, f64>>,
    /// Names of arrays to leave out.
    pub(crate) exclude: Option<&'a Regex>,
    /// The kind that results must be of; otherwise the first decides.
    pub(crate) expected: Option<DataKind>,
    /// How many sites may answer with an error.
    pub(crate) bearable: usize,
}

/// What a round came to.
pub(crate) struct Folded {
    /// Mean of the weights, or of the differences.
    pub(crate) update: Map,
    pub(crate) is_difference: bool,
    pub(crate) metrics: Option<Metrics>,
    /// For every accepted site its metrics, by name.
    pub(crate) sites: Vec<(String, Vec<(String, f64)>)>,
    /// One for each selector.
    pub(crate) selections: Vec<Selection>,
    /// One for each writer.
    pub(crate) records: Vec<RoundMetrics>,
}

impl<'a> Round<'a> {
    pub(crate) fn new(rules: Rules<'a>, selections: Vec<Selection>, records: Vec<RoundMetrics>) -> Round<'a> {
        Round {
            rules,
            mean: WeightedMean::by_name(),
            means: MetricMeans::default(),
            kind: None,
            sites: Vec::new(),
            selections,
            records,
            refused: Vec::new(),
            errors: 0,
            failed: None,
        }
    }

    /// # Errors
    /// The text says which site failed the round, or why nothing can be made of the results.
    pub(crate) fn finish(self) -> Result<Folded, String> {
        if let Some(reason) = self.failure() {
            return Err(reason);
        }
        let Some(kind) = self.kind else { return Err("there are no results".to_owned()) };
        Ok(Folded {
            update: self.mean.finish().map_err(|error| error.to_string())?,
            is_difference: kind == DataKind::WeightDiff,
            metrics: self.means.finish(),
            sites: self.sites,
            selections: self.selections,
            records: self.records,
        })
    }

    /// Which site failed the round, or why no result of it is usable.
    pub(crate) fn failure(&self) -> Option<String> {
        let unusable = || format!("no result is usable ({})", self.refused.join("; "));
        self.failed.clone().or_else(|| (self.kind.is_none() && !self.refused.is_empty()).then(unusable))
    }

    fn take(&mut self, site: &str, result: &Shareable) -> Result<(), Unusable> {
        let dxo = match result.dxo() {
            Ok(Some(dxo)) => dxo,
            Ok(None) => return Err("it holds no DXO".to_owned().into()),
            Err(error) => return Err(error.to_string().into()),
        };
        for selection in &mut self.selections {
            selection.take(site, &dxo);
        }
        if !matches!(dxo.kind, DataKind::Weights | DataKind::WeightDiff) {
            return Err(format!("expected weights, found a DXO of kind {}", dxo.kind).into());
        }
        if let Some(kind) = self.rules.expected.filter(|kind| *kind != dxo.kind) {
            return Err(format!("it is of kind {}, and the aggregator expects {kind}", dxo.kind).into());
        }
        if let Some(kind) = self.kind.filter(|kind| *kind != dxo.kind) {
            return Err(format!(
                "it is of kind {}, but an earlier site of the round returned {kind}",
                dxo.kind
            )
            .into());
        }
        let factor = self.rules.weights.and_then(|weights| weights.get(site)).copied().unwrap_or(1.0);
        let weight = factor * steps(&dxo);
        let data = match self.rules.exclude {
            Some(exclude) => {
                let included = dxo.data.iter_str().filter(|(name, _)| !exclude.is_match(name));
                &included.map(|(name, value)| (name, value.clone())).collect()
            }
            None => &dxo.data,
        };
        self.mean.add(data, weight)?;
        let metrics = Metrics::of(&dxo);
        self.means.add(metrics.as_ref(), weight);
        self.records.iter_mut().for_each(|records| records.take(site, weight, &dxo));
        self.kind = Some(dxo.kind);
        self.sites.push((site.to_owned(), metrics.unwrap_or_default().0));
        Ok(())
    }
}

impl ResultSink for Round<'_> {
    fn accept(&mut self, site: &str, result: &Shareable) -> Result<(), Unusable> {
        let code = result.return_code();
        let taken = if code == "OK" {
            self.take(site, result)
        } else {
            let error = result.headers.str(header::ERROR).unwrap_or_default();
            let reason = format!("the site answered {}: {}", shown(code), shown(error));
            self.errors += 1;
            if self.errors > self.rules.bearable && self.failed.is_none() {
                self.failed = Some(format!("{site}: {reason}"));
            }
            Err(Unusable::new(Fault::Failed, reason))
        };
        if let Err(Unusable { fault, reason }) = &taken {
            tracing::warn!(site, code = fault.code(), error = reason, "result not usable");
            self.refused.push(format!("{site}: {reason}"));
        }
        taken
    }
}

/// How much a result counts: the number of its training steps, or 1 where that makes no sense.
fn steps(dxo: &Dxo) -> f64 {
    let steps = match dxo.meta.get("NUM_STEPS_CURRENT_ROUND") {
        None | Some(Value::Bool(_)) => None,
        Some(value) => number(value).or_else(|| value.as_str()?.trim().parse().ok()),
    };
    steps.filter(|steps| steps.is_finite() && *steps > 0.0).unwrap_or(1.0)
}

/// What a site wrote, as a message may show it.
fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let mut shown = String::new();
    for char in chars.by_ref().take(600) {
        // quotes and backslashes stay what they are: a site may have shortened and escaped the text already
        if char.is_control() { shown.extend(char.escape_debug()) } else { shown.push(char) }
    }
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use locule_fobs::Array;

    use super::*;

    fn result(kind: DataKind, w: f64, steps: impl Into<Value>) -> Shareable {
        let mut dxo = Dxo::new(kind, Map::from_iter([("w", Array::from(&[w][..]))]));
        dxo.meta.insert("NUM_STEPS_CURRENT_ROUND", steps);
        Shareable::with_dxo(dxo)
    }

    fn round(rules: Rules<'_>) -> Round<'_> {
        Round::new(rules, Vec::new(), Vec::new())
    }

    #[test]
    fn a_weight_that_makes_no_sense_is_one() {
        let of = |value: Value| {
            let mut dxo = Dxo::new(DataKind::Weights, Map::new());
            dxo.meta.insert("NUM_STEPS_CURRENT_ROUND", value);
            steps(&dxo)
        };
        assert_eq!((of(7_i64.into()), of(0.5.into()), of(" 3 ".into())), (7.0, 0.5, 3.0));
        for value in [Value::None, true.into(), 0_i64.into(), (-2_i64).into(), f64::NAN.into(), "many".into()]
        {
            assert_eq!(of(value.clone()), 1.0, "{value:?}");
        }
        assert_eq!(steps(&Dxo::new(DataKind::Weights, Map::new())), 1.0);
    }

    #[test]
    fn configured_weights_multiply_the_steps() {
        let weights = BTreeMap::from([("a".to_owned(), 3.0), ("c".to_owned(), 0.0)]);
        let mut round = round(Rules { weights: Some(&weights), ..Rules::default() });
        round.accept("a", &result(DataKind::Weights, 1.0, 1_i64)).unwrap();
        round.accept("b", &result(DataKind::Weights, 5.0, 1_i64)).unwrap();
        round.accept("c", &result(DataKind::Weights, 99.0, 1_i64)).unwrap();
        assert_eq!(round.finish().unwrap().update, Map::from_iter([("w", Array::from(&[2.0][..]))]));
    }

    #[test]
    fn an_unusable_result_is_passed_over_and_an_error_fails_the_round() {
        let strict = Rules::default();
        let mut results = round(strict);
        results.accept("a", &result(DataKind::WeightDiff, 1.0, 1_i64)).unwrap();
        results.accept("b", &result(DataKind::Weights, 1.0, 1_i64)).unwrap_err();
        results.accept("c", &Shareable::new()).unwrap_err();
        let folded = results.finish().unwrap();
        assert!(folded.is_difference);
        assert_eq!(folded.sites.len(), 1);

        let failure = Shareable::with_return_code("EXECUTION_EXCEPTION");
        let mut results = round(strict);
        results.accept("a", &result(DataKind::Weights, 1.0, 1_i64)).unwrap();
        results.accept("b", &failure).unwrap_err();
        assert_eq!(results.finish().err().unwrap(), "b: the site answered EXECUTION_EXCEPTION: ");

        let tolerant = Rules { bearable: 1, ..Rules::default() };
        let mut results = round(tolerant);
        results.accept("a", &failure).unwrap_err();
        let reason = results.finish().err().unwrap();
        assert_eq!(reason, "no result is usable (a: the site answered EXECUTION_EXCEPTION: )");
    }

    #[test]
    fn excluded_names_are_not_averaged() {
        let exclude = Regex::new("^b").unwrap();
        let data = Map::from_iter([("b1", Array::from(&[1.0][..])), ("ab", Array::from(&[2.0][..]))]);
        let mut round = round(Rules { exclude: Some(&exclude), ..Rules::default() });
        round.accept("a", &Shareable::with_dxo(Dxo::new(DataKind::Weights, data))).unwrap();
        assert_eq!(round.finish().unwrap().update, Map::from_iter([("ab", Array::from(&[2.0][..]))]));
    }
}
