//! Metrics that sites report with their results, and their means.

use locule_fobs::{Dxo, Value};

/// Metrics of one result that are looked at; a site may send more, but nobody reads them.
const MAX_METRICS: usize = 512;

/// Finite numbers by name, in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Metrics(pub(crate) Vec<(String, f64)>);

impl Metrics {
    /// What a result says of the model that the site was given; `None` when it says nothing at all.
    pub(crate) fn of(dxo: &Dxo) -> Option<Metrics> {
        let metrics = dxo.meta.map("initial_metrics")?;
        let numbers = metrics.iter_str().filter_map(|(name, value)| Some((name.to_owned(), number(value)?)));
        Some(Metrics(numbers.filter(|(_, x)| x.is_finite()).take(MAX_METRICS).collect()))
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
}

/// A number, or a boolean as 0 or 1.
pub(crate) fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_bool().map(|flag| f64::from(u8::from(flag))))
}

/// Weighted means of metrics, each over the sites that report it. There are none once a site reported nothing.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.workflows.fedavg`. There a metric of type `numpy.float32` is averaged as
/// such, here all are float64; and a metric that is not finite is passed over, where nvflare's mean would be lost.
#[derive(Debug, Default)]
pub(crate) struct MetricMeans {
    sums: Vec<(String, f64, f64)>,
    some_missing: bool,
}

impl MetricMeans {
    pub(crate) fn add(&mut self, metrics: Option<&Metrics>, weight: f64) {
        let Some(metrics) = metrics else {
            self.some_missing = true;
            return;
        };
        if self.some_missing {
            return;
        }
        for (name, value) in &metrics.0 {
            match self.sums.iter_mut().find(|(known, ..)| known == name) {
                Some((_, sum, total)) => {
                    *sum += value * weight;
                    *total += weight;
                }
                None => self.sums.push((name.clone(), value * weight, weight)),
            }
        }
    }

    pub(crate) fn finish(self) -> Option<Metrics> {
        let means = self.sums.into_iter().map(|(name, sum, weight)| (name, sum * (1.0 / weight)));
        let means: Vec<_> = means.filter(|(_, mean)| mean.is_finite()).collect();
        (!self.some_missing && !means.is_empty()).then_some(Metrics(means))
    }
}

#[cfg(test)]
mod tests {
    use locule_fobs::{DataKind, Map};

    use super::*;

    fn dxo(metrics: Map) -> Dxo {
        let mut dxo = Dxo::new(DataKind::Weights, Map::new());
        dxo.meta.insert("initial_metrics", metrics);
        dxo
    }

    #[test]
    fn only_finite_numbers_count_and_booleans_are_numbers() {
        let all = Map::from_iter([
            ("loss", Value::from(0.5)),
            ("epochs", Value::from(2_i64)),
            ("converged", Value::from(true)),
            ("note", Value::from("good")),
            ("broken", Value::from(f64::NAN)),
        ]);
        let metrics = Metrics::of(&dxo(all)).unwrap();
        assert_eq!(metrics.0, [("loss".to_owned(), 0.5), ("epochs".into(), 2.0), ("converged".into(), 1.0)]);
        assert_eq!(Metrics::of(&Dxo::new(DataKind::Weights, Map::new())), None);
    }

    #[test]
    fn a_mean_is_over_those_who_report_and_gone_when_one_reports_nothing() {
        let metrics = |values: &[(&str, f64)]| {
            Metrics(values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect())
        };
        let mut means = MetricMeans::default();
        means.add(Some(&metrics(&[("a", 1.0)])), 7.0);
        means.add(Some(&metrics(&[("a", 2.0), ("b", 4.0)])), 3.0);
        // (1 · 7 + 2 · 3) · (1 / 10), as Python computes it
        assert_eq!(means.finish().unwrap(), metrics(&[("a", 1.3), ("b", 4.0)]));

        let mut means = MetricMeans::default();
        means.add(Some(&metrics(&[("a", 1.0)])), 7.0);
        means.add(None, 3.0);
        assert_eq!(means.finish(), None);
    }
}
