//! Figures of columns: as sites return them, and of all together.

use std::collections::BTreeMap;

use bytes::Bytes;
use locule_component::{Fault, Unusable};
use locule_fobs::{Class, Map, Object, Shareable, Value};
use serde_json::{Value as Json, json};

use crate::mean::Shown;

/// Names on the wire.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.app_constant` (`StatisticsConstants`).
pub(crate) mod key {
    pub(crate) const TASK: &str = "fed_stats";
    pub(crate) const PRE_RUN: &str = "fed_stats_pre_run";
    pub(crate) const PHASE: &str = "fed_stats_task_key";
    pub(crate) const FIRST: &str = "fed_stats_1st_statistics";
    pub(crate) const SECOND: &str = "fed_stats_2nd_statistics";
    pub(crate) const TARGETS: &str = "statistics";
}

/// Columns of one site that are read.
const MAX_SERIES: usize = 1 << 16;

/// Bins and centroids of one column that are read.
const MAX_BINS: usize = 100_000;

/// A dataset's name and a feature's.
pub(crate) type Series = (String, String);

/// Low value, high value, how many.
pub(crate) type Bin = (f64, f64, f64);

/// The names of figures that are one number.
const NUMBERS: [&str; 8] = ["count", "failure_count", "sum", "mean", "min", "max", "var", "stddev"];

/// Of the columns of one site, or of all sites.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) numbers: BTreeMap<&'static str, BTreeMap<Series, f64>>,
    pub(crate) histograms: BTreeMap<Series, Vec<Bin>>,
    /// Quantile and value.
    pub(crate) quantiles: BTreeMap<Series, Vec<(f64, f64)>>,
    /// Mean and weight of centroids.
    pub(crate) digests: BTreeMap<Series, Vec<(f64, f64)>>,
}

impl Figures {
    /// What a site returns to the task.
    pub(crate) fn of_result(result: &Shareable) -> Result<Figures, Unusable> {
        let content = |reason: &str| Unusable::new(Fault::Content, reason);
        // A stock site's DXO has a Shareable for its data, which is a dictionary to it.
        let data = result
            .fields
            .map("DXO")
            .and_then(|dxo| dxo.get("data"))
            .ok_or_else(|| content("it holds no DXO"))?;
        let data = if let Value::Shareable(data) = data { Some(&data.fields) } else { data.as_map() };
        let data = data.ok_or_else(|| content("its data are no dictionary"))?;
        let phase = data.str(key::PHASE).ok_or_else(|| content("it does not say which figures it has"))?;
        let bytes = data.bytes(phase).ok_or_else(|| content("the figures are missing"))?;
        let figures =
            locule_fobs::decode(Bytes::clone(bytes)).map_err(|error| content(&error.to_string()))?;
        Figures::parse(figures.as_map().ok_or_else(|| content("the figures are no dictionary"))?)
    }

    fn parse(map: &Map) -> Result<Figures, Unusable> {
        let mut figures = Figures::default();
        let mut read = 0;
        for (name, datasets) in map.iter_str() {
            for (dataset, features) in datasets.as_map().into_iter().flat_map(Map::iter_str) {
                for (feature, value) in features.as_map().into_iter().flat_map(Map::iter_str) {
                    read += 1;
                    if read > MAX_SERIES {
                        return Err(Unusable::new(Fault::Content, "it has too many figures"));
                    }
                    if !value.is_none() {
                        figures.put(name, (dataset.to_owned(), feature.to_owned()), value)?;
                    }
                }
            }
        }
        Ok(figures)
    }

    fn put(&mut self, name: &str, series: Series, value: &Value) -> Result<(), Unusable> {
        let shown = || format!("`{}` of {}", name.escape_debug(), Shown(&series.1));
        let number = |value: &Value| match value.as_f64() {
            Some(number) if number.is_finite() => Ok(number),
            Some(_) => Err(Unusable::new(Fault::NotFinite, format!("{} is not finite", shown()))),
            None => Err(Unusable::new(
                Fault::Content,
                format!("{} is of type {}, not a number", shown(), value.kind()),
            )),
        };
        if let Some(name) = NUMBERS.into_iter().find(|known| *known == name) {
            let number = number(value)?;
            let is_count = matches!(name, "count" | "failure_count");
            if number < 0.0 && (is_count || matches!(name, "var" | "stddev")) {
                return Err(Unusable::new(Fault::Content, format!("{} is below 0", shown())));
            }
            self.numbers.entry(name).or_default().insert(series, number);
        } else if name == "histogram" {
            let bins = bins_of(value)
                .ok_or_else(|| Unusable::new(Fault::Content, format!("{} is none", shown())))?;
            let read = bins.iter().map(|bin| match bin_of(bin) {
                Some([low, high, count]) => Ok((number(low)?, number(high)?, number(count)?)),
                None => Err(Unusable::new(Fault::Content, format!("{} has a bin that is none", shown()))),
            });
            let bins = read.take(MAX_BINS).collect::<Result<Vec<Bin>, _>>()?;
            if !bins.is_empty() {
                self.histograms.insert(series, bins);
            }
        } else if name == "quantile" {
            let Some(both) = value.as_map() else { return Ok(()) };
            let values = both.map("quantile").into_iter().flat_map(Map::iter);
            let values = values.filter_map(|(at, value)| Some((number_of(at)?, value.as_f64()?)));
            self.quantiles.insert(series.clone(), values.take(MAX_BINS).collect());
            let centroids =
                both.map("digest_coord").and_then(|digest| digest.list("centroids")).unwrap_or_default();
            let centroids = centroids.iter().filter_map(|centroid| {
                let centroid = centroid.as_map()?;
                Some((centroid.float("m")?, centroid.float("c")?))
            });
            let usable =
                centroids.filter(|(mean, weight)| mean.is_finite() && weight.is_finite() && *weight > 0.0);
            self.digests.insert(series, usable.take(MAX_BINS).collect());
        }
        Ok(())
    }

    /// As a site returns them.
    pub(crate) fn to_map(&self) -> Map {
        let mut map = Map::new();
        for name in self.numbers.keys() {
            map.insert(*name, self.numbers_of(name));
        }
        if !self.histograms.is_empty() {
            map.insert(
                "histogram",
                nested(self.histograms.iter().map(|(series, bins)| {
                    let bin = |(low, high, count): &Bin| {
                        let parts = vec![Value::from(*low), (*high).into(), (*count).into()];
                        Value::Object(Object::new(Class::BIN, Value::List(parts)))
                    };
                    let kind = Value::Object(Object::new(Class::HISTOGRAM_TYPE, 0_i64));
                    let parts = vec![kind, Value::List(bins.iter().map(bin).collect()), Value::None];
                    (series, Value::Object(Object::new(Class::HISTOGRAM, Value::List(parts))))
                })),
            );
        }
        if !self.digests.is_empty() {
            map.insert(
                "quantile",
                nested(self.digests.iter().map(|(series, centroids)| {
                    let mut quantiles = Map::new();
                    for (at, value) in self.quantiles.get(series).into_iter().flatten() {
                        quantiles.insert_value(*at, *value);
                    }
                    let centroid = |(mean, weight): &(f64, f64)| {
                        Value::Map(Map::from_iter([("m", *mean), ("c", *weight)]))
                    };
                    let centroids = Value::List(centroids.iter().map(centroid).collect());
                    let digest = Map::from_iter([("centroids", centroids)]);
                    (series, Value::Map(Map::from_iter([("quantile", quantiles), ("digest_coord", digest)])))
                })),
            );
        }
        map
    }

    /// One figure by dataset and feature.
    pub(crate) fn numbers_of(&self, name: &str) -> Map {
        nested(
            self.numbers
                .get(name)
                .into_iter()
                .flatten()
                .map(|(series, number)| (series, Value::from(*number))),
        )
    }

    /// One figure of one column.
    pub(crate) fn number(&self, name: &str, series: &Series) -> Option<f64> {
        self.numbers.get(name).and_then(|figures| figures.get(series)).copied()
    }

    /// Rows of a column that have numbers.
    pub(crate) fn rows(&self, series: &Series) -> f64 {
        let count = |name| self.number(name, series).unwrap_or_default();
        (count("count") - count("failure_count")).max(0.0)
    }

    pub(crate) fn extend(&mut self, more: Figures) {
        for (name, figures) in more.numbers {
            self.numbers.entry(name).or_default().extend(figures);
        }
        self.histograms.extend(more.histograms);
        self.quantiles.extend(more.quantiles);
        self.digests.extend(more.digests);
    }

    /// Whether histograms have the bins that another site's have.
    pub(crate) fn check_bins(&self, other: &Figures) -> Result<(), Unusable> {
        for (series, bins) in &self.histograms {
            let Some(others) = other.histograms.get(series) else { continue };
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs().max(b.abs()).max(1.0);
            let same = |(a, b): (&Bin, &Bin)| near(a.0, b.0) && near(a.1, b.1);
            if bins.len() != others.len() || !bins.iter().zip(others).all(same) {
                let reason =
                    format!("the histogram of {} has other bins than an earlier site's", Shown(&series.1));
                return Err(Unusable::new(Fault::Content, reason));
            }
        }
        Ok(())
    }

    /// Of all sites together, as far as the sites' figures go.
    pub(crate) fn combined<'a>(
        sites: impl Iterator<Item = &'a Figures> + Clone,
        enough: impl Fn(&Series, &dyn Fn(&Figures) -> bool) -> bool,
        quantiles: impl Fn(&str) -> Option<Vec<f64>>,
    ) -> Figures {
        let mut all = Figures::default();
        let numbers = |name| sites.clone().filter_map(move |figures| figures.numbers.get(name)).flatten();
        for name in ["count", "failure_count", "sum", "var"] {
            let figures = all.numbers.entry(name).or_default();
            for (series, number) in numbers(name) {
                *figures.entry(series.clone()).or_default() += number;
            }
            figures.retain(|series, _| enough(series, &|figures| figures.number(name, series).is_some()));
        }
        let sums = all.numbers["sum"].clone();
        let rows = |series: &Series| -> f64 {
            let told = sites.clone().filter(|figures| figures.number("sum", series).is_some());
            told.map(|figures| figures.rows(series)).sum()
        };
        let rows: BTreeMap<Series, f64> = sums.keys().map(|series| (series.clone(), rows(series))).collect();
        let means = sums.iter().map(|(series, sum)| (series.clone(), sum / rows[series]));
        let means = means.filter(|(_, mean)| mean.is_finite()).collect();
        let roots = all.numbers["var"].iter().map(|(series, var)| (series.clone(), var.sqrt())).collect();
        all.numbers.extend([("rows", rows), ("mean", means), ("stddev", roots)]);
        for (name, pick) in [("min", f64::min as fn(f64, f64) -> f64), ("max", f64::max)] {
            let mut of_features: BTreeMap<&str, f64> = BTreeMap::new();
            for (series, number) in numbers(name) {
                let so_far = of_features.entry(&series.1).or_insert(*number);
                *so_far = pick(*so_far, *number);
            }
            let range = numbers(name).map(|(series, _)| (series.clone(), of_features[series.1.as_str()]));
            all.numbers.insert(name, range.collect());
        }
        for (series, bins) in sites.clone().flat_map(|figures| &figures.histograms) {
            match all.histograms.get_mut(series) {
                Some(sums) => sums.iter_mut().zip(bins).for_each(|(sum, bin)| sum.2 += bin.2),
                None => drop(all.histograms.insert(series.clone(), bins.clone())),
            }
        }
        all.histograms.retain(|series, _| enough(series, &|figures| figures.histograms.contains_key(series)));
        for (series, centroids) in sites.clone().flat_map(|figures| &figures.digests) {
            all.digests.entry(series.clone()).or_default().extend(centroids);
        }
        all.digests.retain(|series, _| enough(series, &|figures| figures.digests.contains_key(series)));
        for (series, centroids) in &mut all.digests {
            centroids.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            let at = quantiles(&series.1).unwrap_or_default();
            let values = at.into_iter().filter_map(|at| Some((at, quantile(centroids, at)?)));
            all.quantiles.insert(series.clone(), values.collect());
        }
        all
    }

    /// Every figure as JSON, with so many digits after the point.
    pub(crate) fn iter(&self, precision: Option<u8>) -> impl Iterator<Item = (&'static str, &Series, Json)> {
        let rounded = move |number: f64| match precision {
            Some(digits) => {
                let scale = 10_f64.powi(i32::from(digits));
                (number * scale).round() / scale
            }
            None => number,
        };
        let whole = |name: &str, number: f64| match name {
            "count" | "failure_count" => json!(number as u64),
            _ => json!(number),
        };
        let numbers = self.numbers.iter().flat_map(move |(name, figures)| {
            figures.iter().map(move |(series, number)| (*name, series, whole(name, rounded(*number))))
        });
        let histograms = self.histograms.iter().map(move |(series, bins)| {
            let bins = bins.iter().map(|(low, high, count)| json!([rounded(*low), rounded(*high), count]));
            ("histogram", series, bins.collect())
        });
        let quantiles = self.quantiles.iter().map(move |(series, values)| {
            let values = values.iter().map(|(at, value)| (at.to_string(), json!(rounded(*value))));
            ("quantile", series, Json::Object(values.collect()))
        });
        numbers.chain(histograms).chain(quantiles)
    }
}

/// The value below which this part of the weight lies; centroids come in order.
pub(crate) fn quantile(centroids: &[(f64, f64)], at: f64) -> Option<f64> {
    let target = at * centroids.iter().map(|(_, weight)| weight).sum::<f64>();
    let mut below = 0.0;
    let mut before: Option<(f64, f64)> = None;
    for (mean, weight) in centroids {
        let middle = below + weight / 2.0;
        if target <= middle {
            return Some(match before {
                Some((mean_before, middle_before)) => {
                    mean_before + (mean - mean_before) * (target - middle_before) / (middle - middle_before)
                }
                None => *mean,
            });
        }
        before = Some((*mean, middle));
        below += weight;
    }
    before.map(|(mean, _)| mean)
}

fn nested<'a>(figures: impl Iterator<Item = (&'a Series, Value)>) -> Map {
    let mut datasets: BTreeMap<&str, Map> = BTreeMap::new();
    for ((dataset, feature), value) in figures {
        datasets.entry(dataset).or_default().insert(feature.as_str(), value);
    }
    datasets.into_iter().collect()
}

/// The bins of a histogram object.
fn bins_of(value: &Value) -> Option<&[Value]> {
    let Value::Object(object) = value else { return None };
    let parts = object.data.as_list().filter(|_| object.class == Class::HISTOGRAM)?;
    parts.get(1)?.as_list()
}

fn bin_of(value: &Value) -> Option<[&Value; 3]> {
    let Value::Object(object) = value else { return None };
    let [low, high, count] = object.data.as_list().filter(|_| object.class == Class::BIN)? else {
        return None;
    };
    Some([low, high, count])
}

/// A number, also where it is written as text.
fn number_of(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `fobs.dumps` of nvflare 2.9.0 gives for a result of its `StatisticsExecutor`: a DXO whose data are a
    /// `Shareable` with three rows of `Age` in dataset `train`, and a histogram of one bin.
    #[test]
    fn a_stock_sites_result_is_read() {
        let hex = include_str!("../tests/golden/fed_stats.hex");
        let bytes: Vec<u8> = (0..hex.trim().len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        let Value::Shareable(result) = locule_fobs::decode(bytes.into()).unwrap() else {
            panic!("no shareable")
        };
        let figures = Figures::of_result(&result).unwrap();
        let series = ("train".to_owned(), "Age".to_owned());
        assert_eq!(figures.number("count", &series), Some(3.0));
        assert_eq!(figures.histograms[&series], [(0.0, 1.5, 2.0)]);
    }

    #[test]
    fn what_a_site_returns_is_read_as_it_was() {
        let series = ("train".to_owned(), "age".to_owned());
        let mut figures = Figures::default();
        for name in NUMBERS {
            figures.numbers.entry(name).or_default().insert(series.clone(), 2.5);
        }
        figures.histograms.insert(series.clone(), vec![(0.0, 1.0, 4.0), (1.0, 2.0, 5.0)]);
        figures.quantiles.insert(series.clone(), vec![(0.5, 3.0)]);
        figures.digests.insert(series, vec![(1.0, 2.0), (3.0, 4.0)]);
        assert_eq!(Figures::parse(&figures.to_map()).unwrap(), figures);
    }

    #[track_caller]
    fn check_refused(name: &str, value: impl Into<Value>, fault: &str, reason: &str) {
        let features = Map::from_iter([("age", value.into())]);
        let map = Map::from_iter([(name, Map::from_iter([("train", features)]))]);
        let unusable = Figures::parse(&map).unwrap_err();
        assert_eq!((unusable.fault.code(), &*unusable.reason), (fault, reason));
    }

    #[test]
    fn figures_that_make_no_sense_are_refused() {
        check_refused("sum", f64::NAN, "NOT_FINITE", "`sum` of `age` is not finite");
        check_refused("count", -1_i64, "WRONG_CONTENT", "`count` of `age` is below 0");
        check_refused("mean", "much", "WRONG_CONTENT", "`mean` of `age` is of type str, not a number");
        check_refused("histogram", 1_i64, "WRONG_CONTENT", "`histogram` of `age` is none");
    }
}
