//! The site's half of federated statistics.

use std::collections::BTreeMap;

use locule_component::{ExecuteError, Executor, Task, TaskCx};
use locule_fobs::{Class, DataKind, Dxo, Map, Shareable, Value};

use crate::figures::{Figures, Series, key, quantile};

/// Most centroids of a column's digest.
const CENTROIDS: usize = 1000;

/// Answers the tasks of [`Statistics`](crate::Statistics), and of nvflare's controller, for columns of numbers.
///
/// A cell that is not a finite number counts as a failure. With fewer rows than the minimum nothing of a column is told
/// but its counts. The centroids of its digest are means of as many neighbouring rows, so that none is a row as it is
/// unless the minimum is 1. Ranges are told as they are, with no noise.
#[derive(Debug, Clone)]
pub struct SiteStatistics {
    dataset: String,
    columns: BTreeMap<String, Vec<f64>>,
    min_count: usize,
}

impl SiteStatistics {
    /// Of one dataset, the columns by name.
    pub fn new(dataset: impl Into<String>, columns: BTreeMap<String, Vec<f64>>) -> SiteStatistics {
        SiteStatistics { dataset: dataset.into(), columns, min_count: 1 }
    }

    /// Tells nothing of columns with fewer rows.
    pub fn min_count(mut self, rows: usize) -> SiteStatistics {
        self.min_count = rows.max(1);
        self
    }

    fn answer(&self, data: &Map) -> Result<Shareable, ExecuteError> {
        let bad = |reason: &str| ExecuteError::BadTask(reason.to_owned());
        let phase = data.str(key::PHASE).ok_or_else(|| bad("no phase of the statistics"))?;
        let targets = targets(data).ok_or_else(|| bad("no list of statistics"))?;
        let mut figures = Figures::default();
        for (feature, column) in &self.columns {
            let series = (self.dataset.clone(), feature.clone());
            let mut rows: Vec<f64> = column.iter().copied().filter(|x| x.is_finite()).collect();
            rows.sort_unstable_by(f64::total_cmp);
            let failures = (column.len() - rows.len()) as f64;
            let mut put = |name, number| {
                figures.numbers.entry(name).or_default().insert(series.clone(), number);
            };
            put("count", column.len() as f64);
            put("failure_count", failures);
            if rows.len() >= self.min_count {
                for (name, config) in &targets {
                    self.figure(&mut figures, &series, &rows, name, config, data);
                }
            }
        }
        let bytes = locule_fobs::encode(&Value::Map(figures.to_map()));
        let bytes = bytes.map_err(|error| ExecuteError::Failed(error.to_string()))?;
        let answer = Map::from_iter([(key::PHASE, Value::from(phase)), (phase, Value::Bytes(bytes))]);
        Ok(Shareable::with_dxo(Dxo::new(DataKind::Statistics, answer)))
    }

    fn figure(
        &self,
        figures: &mut Figures,
        series: &Series,
        rows: &[f64],
        name: &str,
        config: &Map,
        data: &Map,
    ) {
        let global = |name: &str| data.map(name)?.map(&series.0)?.float(&series.1);
        let configured = || config.get(&series.1).or_else(|| config.get("*"));
        let range = || {
            let range = configured()?.as_map()?.list("range")?;
            Some((range.first()?.as_f64()?, range.get(1)?.as_f64()?))
        };
        let sum = || rows.iter().sum::<f64>();
        let number = match name {
            "sum" => Some(("sum", sum())),
            "mean" => Some(("mean", sum() / rows.len() as f64)),
            "min" => Some(("min", range().map_or(rows[0], |(low, _)| low))),
            "max" => Some(("max", range().map_or(rows[rows.len() - 1], |(_, high)| high))),
            "var" => global("global_mean").zip(global("global_count")).map(|(mean, count)| {
                let squares: f64 = rows.iter().map(|x| (x - mean) * (x - mean)).sum();
                ("var", squares / (count - 1.0).max(1.0))
            }),
            "stddev" => {
                let mean = sum() / rows.len() as f64;
                let squares: f64 = rows.iter().map(|x| (x - mean) * (x - mean)).sum();
                Some(("stddev", (squares / (rows.len() as f64 - 1.0).max(1.0)).sqrt()))
            }
            _ => None,
        };
        if let Some((name, number)) = number {
            figures.numbers.entry(name).or_default().insert(series.clone(), number);
        }
        if name == "histogram" {
            let bins = configured()
                .and_then(|config| config.as_map()?.int("bins"))
                .filter(|bins| (1..=100_000).contains(bins));
            let range = range().or_else(|| global("min").zip(global("max")));
            if let Some((bins, (low, high))) = bins.zip(range) {
                figures.histograms.insert(series.clone(), histogram(rows, bins as usize, low, high));
            }
        }
        if name == "quantile" {
            let centroids = digest(rows, self.min_count);
            let at = configured().and_then(Value::as_list).unwrap_or_default();
            let values =
                at.iter().filter_map(Value::as_f64).filter_map(|at| Some((at, quantile(&centroids, at)?)));
            figures.quantiles.insert(series.clone(), values.collect());
            figures.digests.insert(series.clone(), centroids);
        }
    }
}

impl Executor for SiteStatistics {
    fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        match task.name.as_str() {
            key::PRE_RUN => Ok(Shareable::with_dxo(Dxo::new(DataKind::Statistics, Map::new()))),
            key::TASK => self.answer(&task.data.fields),
            unknown => Err(ExecuteError::UnknownTask(unknown.to_owned())),
        }
    }
}

/// Names and configurations of what is asked for.
fn targets(data: &Map) -> Option<Vec<(String, Map)>> {
    let list = locule_fobs::decode(data.bytes(key::TARGETS)?.clone()).ok()?;
    let targets = list.as_list()?.iter().map(|target| {
        let Value::Object(object) = target else { return None };
        let [name, config] = object.data.as_list().filter(|_| object.class == Class::STATISTIC_CONFIG)?
        else {
            return None;
        };
        Some((name.as_str()?.to_owned(), config.as_map().cloned().unwrap_or_default()))
    });
    targets.collect()
}

/// As numpy's: the last bin has both its ends, and what lies outside is not counted.
fn histogram(rows: &[f64], bins: usize, low: f64, high: f64) -> Vec<(f64, f64, f64)> {
    let width = (high - low) / bins as f64;
    let edge = |index: usize| if index == bins { high } else { low + width * index as f64 };
    let mut counts = vec![0.0; bins];
    for x in rows.iter().filter(|x| (low..=high).contains(*x)) {
        let index = if width > 0.0 { ((x - low) / width) as usize } else { 0 };
        counts[index.min(bins - 1)] += 1.0;
    }
    counts.into_iter().enumerate().map(|(index, count)| (edge(index), edge(index + 1), count)).collect()
}

/// Means of neighbours, at least `least` each where there are so many.
fn digest(rows: &[f64], least: usize) -> Vec<(f64, f64)> {
    let size = least.max(rows.len().div_ceil(CENTROIDS)).max(1);
    let mut centroids: Vec<(f64, f64)> = Vec::new();
    for chunk in rows.chunks(size) {
        let weight = chunk.len() as f64;
        let mean = chunk.iter().sum::<f64>() / weight;
        match centroids.last_mut() {
            Some((last, before)) if chunk.len() < size => {
                *last = (*last * *before + mean * weight) / (*before + weight);
                *before += weight;
            }
            Some(_) | None => centroids.push((mean, weight)),
        }
    }
    centroids
}
