//! Means and variances of columns that nobody sees together.

use locule_fobs::{Array, DataKind, Dtype, Dxo, Map, Value};
use thiserror::Error;

/// More columns than this are refused, so that a site cannot make the server allocate at will.
const MAX_WIDTH: usize = 1 << 20;

/// Count, mean and sum of squared deviations of every column, of rows seen one by one or in parts.
///
/// Parts combine by the pairwise formula of Chan, Golub and LeVeque (1979), which keeps its precision
/// where the difference of two large sums of squares does not.
///
/// ```
/// use locule_workflow::Moments;
///
/// let mut north = Moments::new(1);
/// let mut south = Moments::new(1);
/// [1.0, 2.0].iter().for_each(|&x| north.push(&[x]));
/// [6.0].iter().for_each(|&x| south.push(&[x]));
/// north.merge(&south).expect("both have one column");
/// assert_eq!((north.count(), north.mean()), (3, &[3.0][..]));
/// assert!((north.variance()[0] - 14.0 / 3.0).abs() < 1e-12);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    count: u64,
    mean: Vec<f64>,
    /// Sum of squared deviations from the mean.
    m2: Vec<f64>,
}

impl Moments {
    /// Of no row yet, with `width` columns.
    pub fn new(width: usize) -> Moments {
        Moments { count: 0, mean: vec![0.0; width], m2: vec![0.0; width] }
    }

    /// Adds one row by Welford's update; values beyond the number of columns are ignored.
    pub fn push(&mut self, row: &[f64]) {
        self.count += 1;
        let count = self.count as f64;
        for ((mean, m2), &value) in self.mean.iter_mut().zip(&mut self.m2).zip(row) {
            let before = value - *mean;
            *mean += before / count;
            *m2 += before * (value - *mean);
        }
    }

    /// Adds the rows that `other` has seen.
    ///
    /// # Errors
    /// [`MomentsError::Width`] when the columns differ in number, [`MomentsError::Range`] when the result is not
    /// finite; nothing is added then.
    pub fn merge(&mut self, other: &Moments) -> Result<(), MomentsError> {
        if self.width() != other.width() {
            return Err(MomentsError::Width { expected: self.width(), found: other.width() });
        }
        if other.count == 0 {
            return Ok(());
        }
        let count = self.count.checked_add(other.count).ok_or(MomentsError::Range)?;
        let (ours, share) = (self.count as f64, other.count as f64 / count as f64);
        let mut mean = Vec::with_capacity(self.width());
        let mut m2 = Vec::with_capacity(self.width());
        for index in 0..self.width() {
            let delta = other.mean[index] - self.mean[index];
            mean.push(self.mean[index] + delta * share);
            m2.push(self.m2[index] + other.m2[index] + delta * delta * (ours * share));
        }
        if !mean.iter().chain(&m2).all(|x| x.is_finite()) {
            return Err(MomentsError::Range);
        }
        *self = Moments { count, mean, m2 };
        Ok(())
    }

    /// Rows seen.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// Mean of every column; zeros when there is no row.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Population variance of every column (divided by the count); zeros when there is no row.
    pub fn variance(&self) -> Vec<f64> {
        let count = self.count.max(1) as f64;
        self.m2.iter().map(|m2| m2 / count).collect()
    }

    /// What to divide a centred column by: its standard deviation, or 1 for a column that does not vary.
    pub fn scale(&self) -> Vec<f64> {
        self.variance().into_iter().map(|v| if v > 0.0 { v.sqrt() } else { 1.0 }).collect()
    }

    /// As the data of a DXO: kind `STATISTICS` with `count`, `mean` and `m2` (both float64, one value a column).
    pub fn to_dxo(&self) -> Dxo {
        let data = Map::from_iter([
            ("count", Value::from(self.count)),
            ("mean", Array::from(&self.mean[..]).into()),
            ("m2", Array::from(&self.m2[..]).into()),
        ]);
        Dxo::new(DataKind::Statistics, data)
    }

    /// From the data of a DXO, as a site sent them.
    ///
    /// # Errors
    /// [`MomentsError`] when a part is missing, not finite, or cannot be: a count below 1, a negative sum of
    /// squares.
    pub fn from_dxo(dxo: &Dxo) -> Result<Moments, MomentsError> {
        if dxo.kind != DataKind::Statistics {
            return Err(MomentsError::Kind(dxo.kind));
        }
        let count = dxo.data.int("count").ok_or(MomentsError::Part("count"))?;
        let column = |name| -> Result<Vec<f64>, MomentsError> {
            let array = dxo.data.get(name).and_then(Value::as_array).ok_or(MomentsError::Part(name))?;
            if array.dtype() != Dtype::F64 || array.shape().len() != 1 || array.shape()[0] > MAX_WIDTH {
                return Err(MomentsError::Part(name));
            }
            let values = array.to_f64();
            if values.iter().all(|x| x.is_finite()) { Ok(values) } else { Err(MomentsError::Part(name)) }
        };
        let (mean, m2) = (column("mean")?, column("m2")?);
        if mean.len() != m2.len() {
            return Err(MomentsError::Width { expected: mean.len(), found: m2.len() });
        }
        if m2.iter().any(|&x| x < 0.0) {
            return Err(MomentsError::Part("m2"));
        }
        match u64::try_from(count) {
            Ok(count @ 1..) => Ok(Moments { count, mean, m2 }),
            Ok(0) | Err(_) => Err(MomentsError::Part("count")),
        }
    }
}

/// Why moments cannot be combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MomentsError {
    /// Not statistics at all.
    #[error("expected a DXO of kind STATISTICS, found {0}")]
    Kind(DataKind),
    /// A part is missing or no possible value of a moment.
    #[error("`{0}` is missing or not usable")]
    Part(&'static str),
    /// The number of columns differs.
    #[error("expected {expected} columns, found {found}")]
    Width {
        /// Columns so far.
        expected: usize,
        /// Columns found.
        found: usize,
    },
    /// Too many rows, or too large values in them.
    #[error("the combined moments leave the range of numbers")]
    Range,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &[[f64; 2]]) -> Moments {
        let mut moments = Moments::new(2);
        rows.iter().for_each(|row| moments.push(row));
        moments
    }

    fn close(a: &[f64], b: &[f64]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-8 * b.abs().max(1.0))
    }

    /// Far from zero, where the difference of two sums of squares would have no digit left and these have eight.
    const ROWS: [[f64; 2]; 5] =
        [[1e9, 4.0], [1e9 + 1.0, 4.0], [1e9 + 4.0, 4.0], [1e9 + 9.0, 4.0], [1e9 + 16.0, 4.0]];

    #[test]
    fn moments_are_those_of_the_definition() {
        let moments = of(&ROWS);
        assert_eq!(moments.count(), 5);
        assert!(close(moments.mean(), &[1e9 + 6.0, 4.0]), "{moments:?}");
        assert!(close(&moments.variance(), &[34.8, 0.0]), "{moments:?}");
        assert!(close(&moments.scale(), &[34.8_f64.sqrt(), 1.0]), "a constant column is left as it is");
    }

    #[test]
    fn parts_combine_to_the_whole() {
        for cut in 0..=ROWS.len() {
            let (left, right) = ROWS.split_at(cut);
            let mut together = of(left);
            together.merge(&of(right)).unwrap();
            assert_eq!(together.count(), 5);
            assert!(
                close(together.mean(), of(&ROWS).mean())
                    && close(&together.variance(), &of(&ROWS).variance())
            );
        }
    }

    #[test]
    fn moments_survive_the_dxo() {
        let moments = of(&ROWS);
        assert_eq!(Moments::from_dxo(&moments.to_dxo()), Ok(moments));
    }

    #[track_caller]
    fn check_refused(key: &str, value: impl Into<Value>, reason: &str) {
        let mut dxo = of(&ROWS).to_dxo();
        dxo.data.insert(key, value);
        assert_eq!(Moments::from_dxo(&dxo).unwrap_err().to_string(), reason);
    }

    #[test]
    fn impossible_moments_are_refused() {
        check_refused("count", 0, "`count` is missing or not usable");
        check_refused("count", -1, "`count` is missing or not usable");
        check_refused("count", "many", "`count` is missing or not usable");
        check_refused(
            "mean",
            Array::from_f64(&[2], &[0.0, f64::NAN]).unwrap(),
            "`mean` is missing or not usable",
        );
        check_refused("mean", Array::from_f32(&[2], &[0.0, 1.0]).unwrap(), "`mean` is missing or not usable");
        check_refused("m2", Array::from_f64(&[2], &[0.0, -1.0]).unwrap(), "`m2` is missing or not usable");
        check_refused("m2", Array::from_f64(&[1], &[0.0]).unwrap(), "expected 2 columns, found 1");
        check_refused("m2", Array::from_f64(&[1, 2], &[0.0, 0.0]).unwrap(), "`m2` is missing or not usable");
        let weights = Dxo::new(DataKind::Weights, Map::new());
        assert_eq!(Moments::from_dxo(&weights), Err(MomentsError::Kind(DataKind::Weights)));
        let mut huge = of(&[[1e200, 0.0]]);
        assert_eq!(huge.merge(&of(&[[-1e200, 0.0]])), Err(MomentsError::Range));
        assert_eq!(huge, of(&[[1e200, 0.0]]));
        assert_eq!(of(&ROWS).merge(&Moments::new(3)), Err(MomentsError::Width { expected: 2, found: 3 }));
    }
}
