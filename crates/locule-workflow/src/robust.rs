//! Rules that a few lying sites cannot lead astray, over updates that wait in a file.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use locule_component::{BuildCx, BuildError, Built, Child, Component, Kind, Unusable};
use locule_fobs::{Dtype, Map};
use serde::Deserialize;

use crate::mean::{Shown, WeightedMean};
use crate::optimizer::floats;

/// Numbers of 64 bits that are in memory at a time, of all updates together: 8 MiB.
const WINDOW: usize = 1 << 20;

/// How a round's results become one.
///
/// The weighted mean is what [`FedAvg`](crate::FedAvg) does without a rule. The others take every site for one,
/// whatever number of steps it claims, and need all updates at once: these wait in a file of the run's folder and are
/// read by blocks of coordinates, so that memory holds some 8 MiB of them however many sites there are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// The weighted mean; see [`WeightedMean`].
    Mean,
    /// The median of every coordinate (Yin et al., 2018); of an even number of sites the mean of the two in the middle.
    Median,
    /// The mean of every coordinate without its lowest and highest values (Yin et al., 2018).
    TrimmedMean {
        /// Which part of the values goes at each end, from 0 to below 0.5; of `n` sites `⌊fraction·n⌋`.
        fraction: f64,
    },
    /// The mean of the updates that lie closest to others (Blanchard et al., 2017): an update's score is the sum of
    /// the squared Euclidean distances to its `n - byzantine - 2` nearest, and the lowest scores count. Of equal
    /// scores the earlier site's wins.
    Krum {
        /// How many sites may lie; with `n` results it takes `n ≥ 2·byzantine + 3`.
        byzantine: usize,
        /// How many updates to average; 1 is Krum, more are multi-Krum.
        select: usize,
    },
}

/// Updates of the same names, shapes and dtypes in a file, one after the other.
///
/// ```
/// use locule_fobs::{Array, Map};
/// use locule_workflow::{Rule, UpdateSpool};
///
/// # let folder = tempfile::tempdir()?;
/// let update = |x: f64| Map::from_iter([("w", Array::from(&[x][..]))]);
/// let mut updates = UpdateSpool::create(folder.path().join("updates"))?;
/// for x in [1.0, 2.0, 900.0] {
///     updates.add(&update(x))?;
/// }
/// assert_eq!(updates.finish(Rule::Median)?, update(2.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct UpdateSpool {
    path: PathBuf,
    file: File,
    /// Of what the updates are; it holds no numbers.
    like: WeightedMean,
    count: usize,
    /// Bytes of one update.
    len: u64,
    /// Why an update was not written; there is no result then.
    failed: Option<io::Error>,
}

impl UpdateSpool {
    /// Of nothing yet; the first update decides names, shapes and dtypes. The file goes with the spool.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<UpdateSpool> {
        let path = path.into();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        Ok(UpdateSpool { path, file, like: WeightedMean::new(), count: 0, len: 0, failed: None })
    }

    /// The same, for updates with the names, shapes and dtypes of `model`.
    pub(crate) fn like(mut self, model: WeightedMean) -> UpdateSpool {
        self.like = model;
        self
    }

    /// Adds one update.
    ///
    /// # Errors
    /// [`Unusable`] says what does not fit; nothing has been added then. A disk that is full shows at the end.
    pub fn add(&mut self, update: &Map) -> Result<(), Unusable> {
        let arrays = self.like.check(update, 1.0)?;
        let write = |file: &mut File, start: u64| -> io::Result<u64> {
            file.seek(SeekFrom::Start(start))?;
            let mut out = BufWriter::new(file);
            let mut len = 0;
            for array in arrays {
                let bytes = array.bytes();
                out.write_all(&bytes)?;
                len += bytes.len() as u64;
            }
            out.flush()?;
            Ok(len)
        };
        match write(&mut self.file, self.len * self.count as u64) {
            Ok(len) => (self.len, self.count) = (len, self.count + 1),
            Err(error) => self.failed = Some(error),
        }
        Ok(())
    }

    /// How many updates there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What the rule makes of the updates.
    ///
    /// # Errors
    /// There are too few updates for the rule, the file cannot be read, or a number leaves the range of its dtype.
    pub fn finish(mut self, rule: Rule) -> Result<Map, String> {
        if let Some(error) = &self.failed {
            return Err(format!("cannot write {}: {error}", self.path.display()));
        }
        let n = self.count;
        if n == 0 {
            return Err("there are no results".to_owned());
        }
        let everyone: Vec<usize> = (0..n).collect();
        match rule {
            Rule::Mean => self.coordinates(&everyone, mean),
            Rule::Median => self.coordinates(&everyone, median),
            Rule::TrimmedMean { fraction } => {
                let cut = (fraction * n as f64).floor() as usize;
                self.coordinates(&everyone, |values| {
                    values.sort_unstable_by(f64::total_cmp);
                    mean(&mut values[cut..n - cut])
                })
            }
            Rule::Krum { byzantine, select } => {
                if n < 2 * byzantine + 3 {
                    let needed = 2 * byzantine + 3;
                    return Err(format!("Krum against {byzantine} needs {needed} results and has {n}"));
                }
                if select > n - byzantine {
                    return Err(format!(
                        "Krum cannot select {select} of {n} results, {byzantine} of them lies"
                    ));
                }
                let chosen = closest(&self.distances()?, byzantine, select);
                tracing::info!(?chosen, of = n, "updates chosen, in site order");
                self.coordinates(&chosen, mean)
            }
        }
    }

    /// One number for every coordinate, of the values that these updates have there.
    fn coordinates(&mut self, of: &[usize], rule: impl Fn(&mut [f64]) -> f64) -> Result<Map, String> {
        let layout: Vec<_> =
            self.like.layout().map(|(name, shape, dtype)| (name.to_owned(), shape.to_vec(), dtype)).collect();
        let mut column = vec![0.0; of.len()];
        let mut model = Map::new();
        let mut start = 0;
        for (name, shape, dtype) in layout {
            let elements: usize = shape.iter().product();
            let mut out = Vec::with_capacity(elements);
            self.blocks(of, start, elements, dtype, |block, rows| {
                for index in 0..block {
                    column.iter_mut().zip(rows).for_each(|(value, row)| *value = row[index]);
                    out.push(rule(&mut column));
                }
            })?;
            start += (elements * dtype.size()) as u64;
            let array = floats(&shape, dtype, &out);
            model.insert(
                &*name,
                array.ok_or_else(|| format!("{} leaves the range of its dtype", Shown(&name)))?,
            );
        }
        Ok(model)
    }

    /// Squared Euclidean distances between updates; of two, the row of the earlier one has it.
    fn distances(&mut self) -> Result<Vec<Vec<f64>>, String> {
        let n = self.count;
        let everyone: Vec<usize> = (0..n).collect();
        let layout: Vec<_> =
            self.like.layout().map(|(_, shape, dtype)| (shape.iter().product::<usize>(), dtype)).collect();
        let mut distances = vec![vec![0.0; n]; n];
        let mut start = 0;
        for (elements, dtype) in layout {
            self.blocks(&everyone, start, elements, dtype, |_, rows| {
                for a in 0..n {
                    for b in a + 1..n {
                        let sum: f64 = rows[a].iter().zip(&rows[b]).map(|(x, y)| (x - y) * (x - y)).sum();
                        distances[a][b] += sum;
                    }
                }
            })?;
            start += (elements * dtype.size()) as u64;
        }
        Ok(distances)
    }

    /// Reads an array of these updates by blocks; `each` gets how many elements, and a row of them for each update.
    fn blocks(
        &mut self,
        of: &[usize],
        start: u64,
        elements: usize,
        dtype: Dtype,
        mut each: impl FnMut(usize, &[Vec<f64>]),
    ) -> Result<(), String> {
        let size = dtype.size();
        let block = (WINDOW / of.len().max(1)).clamp(1, elements.max(1));
        let mut bytes = vec![0; block * size];
        let mut rows = vec![Vec::with_capacity(block); of.len()];
        let mut done = 0;
        while done < elements {
            let now = block.min(elements - done);
            for (row, update) in rows.iter_mut().zip(of) {
                let at = self.len * *update as u64 + start + (done * size) as u64;
                let read = self
                    .file
                    .seek(SeekFrom::Start(at))
                    .and_then(|_| self.file.read_exact(&mut bytes[..now * size]));
                read.map_err(|error| format!("cannot read {}: {error}", self.path.display()))?;
                row.clear();
                if dtype == Dtype::F32 {
                    row.extend(
                        bytes[..now * size].as_chunks().0.iter().map(|x| f64::from(f32::from_le_bytes(*x))),
                    );
                } else {
                    row.extend(bytes[..now * size].as_chunks().0.iter().map(|x| f64::from_le_bytes(*x)));
                }
            }
            each(now, &rows);
            done += now;
        }
        Ok(())
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for UpdateSpool {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}

fn mean(values: &mut [f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { (values[half - 1] + values[half]) / 2.0 }
}

/// The updates with the lowest Krum scores, in order of their numbers.
fn closest(distances: &[Vec<f64>], byzantine: usize, select: usize) -> Vec<usize> {
    let n = distances.len();
    let score = |one: usize| {
        let mut others: Vec<f64> = (0..n)
            .filter(|other| *other != one)
            .map(|other| distances[one.min(other)][one.max(other)])
            .collect();
        others.sort_unstable_by(f64::total_cmp);
        others[..n - byzantine - 2].iter().sum::<f64>()
    };
    let mut scores: Vec<(f64, usize)> = (0..n).map(|one| (score(one), one)).collect();
    scores.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let mut chosen: Vec<usize> = scores.into_iter().take(select).map(|(_, one)| one).collect();
    chosen.sort_unstable();
    chosen
}

/// The rule that an argument names.
pub(crate) fn rule_of(child: &Child, cx: &BuildCx<'_>) -> Result<Rule, BuildError> {
    let rule = cx.take(child)?.into_service::<Rule>();
    let wrong = || BuildError::Argument {
        argument: "rule".to_owned(),
        reason: "expected one of `locule.workflow.Median`, `TrimmedMean`, `Krum`".to_owned(),
    };
    rule.map(|rule| *rule).ok_or_else(wrong)
}

/// See [`Rule::Median`].
#[derive(Debug)]
pub struct Median;

/// Arguments of [`Median`]: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MedianArgs {}

/// See [`Rule::TrimmedMean`].
#[derive(Debug)]
pub struct TrimmedMean;

/// Arguments of [`TrimmedMean`].
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrimmedMeanArgs {
    /// Which part of the values goes at each end, from 0 to below 0.5.
    #[serde(default = "fifth")]
    pub fraction: f64,
}

/// See [`Rule::Krum`].
#[derive(Debug)]
pub struct Krum;

/// Arguments of [`Krum`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KrumArgs {
    /// How many sites may lie. A round of `n` usable results needs `n ≥ 2·byzantine + 3`, or it fails.
    pub byzantine: usize,
    /// How many updates to average; 1 is Krum, more are multi-Krum.
    #[serde(default = "one")]
    pub select: usize,
}

fn fifth() -> f64 {
    0.2
}

fn one() -> usize {
    1
}

impl Component for Median {
    const KIND: Kind = Kind::Service;
    const NAME: &'static str = "locule.workflow.Median";
    type Args = MedianArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(_: MedianArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Service(Arc::new(Rule::Median)))
    }
}

impl Component for TrimmedMean {
    const KIND: Kind = Kind::Service;
    const NAME: &'static str = "locule.workflow.TrimmedMean";
    type Args = TrimmedMeanArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: TrimmedMeanArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        if !(0.0..0.5).contains(&args.fraction) {
            let reason = "expected a number from 0 to below 0.5".to_owned();
            return Err(BuildError::Argument { argument: "fraction".to_owned(), reason });
        }
        Ok(Built::Service(Arc::new(Rule::TrimmedMean { fraction: args.fraction })))
    }
}

impl Component for Krum {
    const KIND: Kind = Kind::Service;
    const NAME: &'static str = "locule.workflow.Krum";
    type Args = KrumArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(KrumArgs { byzantine, select }: KrumArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        let wrong = |argument: &str, reason: &str| {
            Err(BuildError::Argument { argument: argument.to_owned(), reason: reason.to_owned() })
        };
        if select == 0 {
            return wrong("select", "at least one update must count");
        }
        if byzantine > 1 << 20 {
            return wrong("byzantine", "more than there can be sites");
        }
        Ok(Built::Service(Arc::new(Rule::Krum { byzantine, select })))
    }
}
