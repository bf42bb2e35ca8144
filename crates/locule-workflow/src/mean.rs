//! The weighted mean of models, one contribution at a time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use locule_component::{Fault, Unusable};
use locule_fobs::{Array, Dtype, Map, Value};
use thiserror::Error;

/// Averages named arrays, each contribution with its weight, in the memory of one contribution.
///
/// Contributions must agree in names, shapes and dtypes, and hold finite numbers; one that does not is
/// refused whole and leaves the mean as it was. Arrays are float32 or float64 and stay so. With
/// [`WeightedMean::by_name`] names may differ, and integers are averaged too.
///
/// # Arithmetic
/// Every element is computed in the dtype of its array, with separate multiplications and additions, in
/// the order in which the contributions were added:
/// `(w₁·x₁ + w₂·x₂ + …) · (1 / (w₁ + w₂ + …))`.
/// The sum of the weights and its reciprocal are float64; a weight, and the reciprocal, are rounded to
/// the array's dtype before they multiply. The same contributions in the same order therefore give the same bits
/// everywhere, and the bits that nvflare gives for numpy arrays in that order.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.aggregators.weighted_aggregation_helper`.
///
/// ```
/// use locule_fobs::{Array, Map};
/// use locule_workflow::WeightedMean;
///
/// let model = |x: f64| Map::from_iter([("w", Array::from(&[x][..]))]);
/// let mut mean = WeightedMean::new();
/// mean.add(&model(1.0), 7.0)?;
/// mean.add(&model(11.0), 3.0)?;
/// assert_eq!(mean.finish()?, model(4.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct WeightedMean {
    /// In the order of the names in the first contribution, or of the model given to [`WeightedMean::like`].
    sums: Vec<(String, Sum)>,
    by_name: bool,
    weight: f64,
    count: usize,
}

#[derive(Debug)]
struct Sum {
    shape: Vec<usize>,
    values: Values,
    weight: f64,
}

#[derive(Debug)]
enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl WeightedMean {
    /// Of nothing yet; the first contribution decides names, shapes and dtypes.
    pub fn new() -> WeightedMean {
        WeightedMean::default()
    }

    /// Of nothing yet, each array averaged over those contributions that hold it, as nvflare does.
    ///
    /// A name may be new or missing in any contribution. Arrays of integers and booleans count as float64 and
    /// so does their mean; float16 is refused. A weight may be 0, as long as others are not.
    pub fn by_name() -> WeightedMean {
        WeightedMean { by_name: true, ..WeightedMean::default() }
    }

    /// Of nothing yet, for contributions with the names, shapes and dtypes of `model`.
    ///
    /// # Errors
    /// [`UnusableUpdate`] when the model itself could not be averaged.
    pub fn like(model: &Map) -> Result<WeightedMean, UnusableUpdate> {
        let mut sums = Vec::with_capacity(model.len());
        for (name, value) in model.iter() {
            let name = text_of(name)?;
            let array = array_of(name, value)?;
            sums.push((name.to_owned(), Sum::like(name, array)?));
        }
        if sums.is_empty() {
            return Err(UnusableUpdate::Empty);
        }
        Ok(WeightedMean { sums, ..WeightedMean::default() })
    }

    /// Adds one contribution; `weight` is usually the number of samples it was trained on.
    ///
    /// # Errors
    /// [`UnusableUpdate`] says what does not fit; nothing has been added then.
    pub fn add(&mut self, data: &Map, weight: f64) -> Result<(), UnusableUpdate> {
        let counts = weight > 0.0 || self.by_name && weight == 0.0;
        if !(counts && weight.is_finite() && (self.weight + weight).is_finite()) {
            return Err(UnusableUpdate::Weight { weight });
        }
        if self.by_name {
            self.add_by_name(data, weight)?;
        } else {
            self.add_whole(data, weight)?;
        }
        self.weight += weight;
        self.count += 1;
        Ok(())
    }

    /// The arrays of a contribution in the order of the first one's names, if it fits; nothing is added.
    pub(crate) fn check<'a>(&mut self, data: &'a Map, weight: f64) -> Result<Vec<&'a Array>, UnusableUpdate> {
        let fresh = if self.sums.is_empty() { Some(WeightedMean::like(data)?.sums) } else { None };
        let sums = fresh.as_ref().unwrap_or(&self.sums);
        let arrays = matching(sums, data)?;
        for ((name, sum), array) in sums.iter().zip(&arrays) {
            sum.check(name, array, weight)?;
        }
        if let Some(fresh) = fresh {
            self.sums = fresh;
        }
        Ok(arrays)
    }

    fn add_whole(&mut self, data: &Map, weight: f64) -> Result<(), UnusableUpdate> {
        let arrays = self.check(data, weight)?;
        for ((_, sum), array) in self.sums.iter_mut().zip(arrays) {
            sum.fold(array, weight);
        }
        Ok(())
    }

    fn add_by_name(&mut self, data: &Map, weight: f64) -> Result<(), UnusableUpdate> {
        let names = self.sums.iter().enumerate().map(|(index, (name, _))| (name.as_str(), index));
        let known: BTreeMap<&str, usize> = names.collect();
        let mut fresh = Vec::new();
        let mut arrays = Vec::with_capacity(data.len());
        for (name, value) in data.iter() {
            let name = text_of(name)?;
            let array = floats(array_of(name, value)?);
            if let Some(&index) = known.get(name) {
                self.sums[index].1.check(name, &array, weight)?;
                arrays.push((index, array));
            } else {
                let sum = Sum::like(name, &array)?;
                sum.check(name, &array, weight)?;
                arrays.push((self.sums.len() + fresh.len(), array));
                fresh.push((name.to_owned(), sum));
            }
        }
        if arrays.is_empty() {
            return Err(UnusableUpdate::Empty);
        }
        self.sums.extend(fresh);
        for (index, array) in arrays {
            self.sums[index].1.fold(&array, weight);
        }
        Ok(())
    }

    /// Name, shape and dtype of every array.
    pub(crate) fn layout(&self) -> impl Iterator<Item = (&str, &[usize], Dtype)> {
        self.sums.iter().map(|(name, sum)| {
            let dtype = match sum.values {
                Values::F32(_) => Dtype::F32,
                Values::F64(_) => Dtype::F64,
            };
            (name.as_str(), &sum.shape[..], dtype)
        })
    }

    /// How many contributions were added.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The sum of their weights.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// The mean.
    ///
    /// # Errors
    /// [`MeanError::Nothing`] when nothing was added, [`MeanError::NoWeight`] when all that was added weighs 0,
    /// [`MeanError::Overflow`] when a weighted sum left the range of its dtype.
    pub fn finish(self) -> Result<Map, MeanError> {
        if self.count == 0 {
            return Err(MeanError::Nothing);
        }
        let arrays = self.sums.into_iter().map(|(name, sum)| {
            if sum.weight == 0.0 {
                return Err(MeanError::NoWeight { name });
            }
            let reciprocal = 1.0 / sum.weight;
            match sum.scaled(reciprocal) {
                Some(array) => Ok((name, array)),
                None => Err(MeanError::Overflow { name }),
            }
        });
        arrays.collect::<Result<Map, MeanError>>()
    }
}

/// The arrays of a contribution, in the order of `sums`.
fn matching<'a>(sums: &[(String, Sum)], data: &'a Map) -> Result<Vec<&'a Array>, UnusableUpdate> {
    let mut by_name = BTreeMap::new();
    for (name, value) in data.iter() {
        by_name.insert(text_of(name)?, value);
    }
    let mut arrays = Vec::with_capacity(sums.len());
    for (name, _) in sums {
        let value =
            by_name.remove(name.as_str()).ok_or_else(|| UnusableUpdate::Missing { name: name.clone() })?;
        arrays.push(array_of(name, value)?);
    }
    match by_name.keys().next() {
        Some(name) => Err(UnusableUpdate::Unexpected { name: (*name).to_owned() }),
        None => Ok(arrays),
    }
}

/// Integers and booleans as float64, which is what numpy makes of them when a float multiplies them.
fn floats(array: &Array) -> Cow<'_, Array> {
    if array.dtype().is_float() {
        return Cow::Borrowed(array);
    }
    let floats = Array::from_f64(array.shape(), &array.to_f64());
    Cow::Owned(floats.expect("as many elements as the array has"))
}

impl Sum {
    /// Of nothing yet, for arrays like this one.
    fn like(name: &str, array: &Array) -> Result<Sum, UnusableUpdate> {
        let values = Values::empty(name, array.dtype())?;
        Ok(Sum { shape: array.shape().to_vec(), values, weight: 0.0 })
    }

    fn check(&self, name: &str, array: &Array, weight: f64) -> Result<(), UnusableUpdate> {
        let expected = match self.values {
            Values::F32(_) => Dtype::F32,
            Values::F64(_) => Dtype::F64,
        };
        if array.dtype() != expected {
            return Err(UnusableUpdate::Dtype { name: name.to_owned(), expected, found: array.dtype() });
        }
        if array.shape() != self.shape {
            let (expected, found) = (self.shape.clone(), array.shape().to_vec());
            return Err(UnusableUpdate::Shape { name: name.to_owned(), expected, found });
        }
        let first_bad = match self.values {
            Values::F32(_) if !(weight as f32).is_finite() => return Err(UnusableUpdate::Weight { weight }),
            Values::F32(_) => f32s(&array.bytes()).position(|x| !x.is_finite()),
            Values::F64(_) => f64s(&array.bytes()).position(|x| !x.is_finite()),
        };
        match first_bad {
            Some(index) => Err(UnusableUpdate::NotFinite { name: name.to_owned(), index }),
            None => Ok(()),
        }
    }

    fn fold(&mut self, array: &Array, weight: f64) {
        self.weight += weight;
        match &mut self.values {
            Values::F32(sums) => {
                let weight = weight as f32;
                // The first product starts the sum: 0 + -0 would be 0 and lose the sign.
                if sums.is_empty() {
                    sums.extend(f32s(&array.bytes()).map(|x| x * weight));
                } else {
                    sums.iter_mut().zip(f32s(&array.bytes())).for_each(|(sum, x)| *sum += x * weight);
                }
            }
            Values::F64(sums) => {
                if sums.is_empty() {
                    sums.extend(f64s(&array.bytes()).map(|x| x * weight));
                } else {
                    sums.iter_mut().zip(f64s(&array.bytes())).for_each(|(sum, x)| *sum += x * weight);
                }
            }
        }
    }

    /// `None` when an element is not finite.
    fn scaled(self, by: f64) -> Option<Array> {
        match self.values {
            Values::F32(mut sums) => {
                sums.iter_mut().for_each(|sum| *sum *= by as f32);
                sums.iter().all(|x| x.is_finite()).then(|| Array::from_f32(&self.shape, &sums).ok())?
            }
            Values::F64(mut sums) => {
                sums.iter_mut().for_each(|sum| *sum *= by);
                sums.iter().all(|x| x.is_finite()).then(|| Array::from_f64(&self.shape, &sums).ok())?
            }
        }
    }
}

impl Values {
    fn empty(name: &str, dtype: Dtype) -> Result<Values, UnusableUpdate> {
        if dtype == Dtype::F32 {
            Ok(Values::F32(Vec::new()))
        } else if dtype == Dtype::F64 {
            Ok(Values::F64(Vec::new()))
        } else {
            Err(UnusableUpdate::NotFloat { name: name.to_owned(), found: dtype })
        }
    }
}

fn text_of(name: &Value) -> Result<&str, UnusableUpdate> {
    name.as_str().ok_or(UnusableUpdate::NameNotText { kind: name.kind() })
}

fn array_of<'a>(name: &str, value: &'a Value) -> Result<&'a Array, UnusableUpdate> {
    value.as_array().ok_or_else(|| UnusableUpdate::NotAnArray { name: name.to_owned(), kind: value.kind() })
}

pub(crate) fn f32s(bytes: &Bytes) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk))
}

pub(crate) fn f64s(bytes: &Bytes) -> impl Iterator<Item = f64> {
    bytes.as_chunks().0.iter().map(|chunk| f64::from_le_bytes(*chunk))
}

/// Why a contribution cannot be averaged with the others.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum UnusableUpdate {
    /// The weight is not a finite number above zero, or too large for the dtype of an array.
    #[error("weight {weight} is not usable")]
    Weight {
        /// The weight.
        weight: f64,
    },
    /// There is no array at all.
    #[error("it holds no arrays")]
    Empty,
    /// A name is not text.
    #[error("a name is of type {kind}, not text")]
    NameNotText {
        /// What it is instead.
        kind: &'static str,
    },
    /// An array that the others have is not there.
    #[error("{} is missing", Shown(name))]
    Missing {
        /// Its name.
        name: String,
    },
    /// An array that the others do not have is there.
    #[error("{} is not part of the model", Shown(name))]
    Unexpected {
        /// Its name.
        name: String,
    },
    /// A value is not an array.
    #[error("{} is of type {kind}, not an array", Shown(name))]
    NotAnArray {
        /// Its name.
        name: String,
        /// What it is instead.
        kind: &'static str,
    },
    /// An array has neither dtype float32 nor float64.
    #[error("{} has dtype {}; only float32 and float64 are averaged", Shown(name), numpy_name(*found))]
    NotFloat {
        /// Its name.
        name: String,
        /// Its dtype.
        found: Dtype,
    },
    /// The dtype is not that of the other contributions.
    #[error("{} has dtype {} instead of {}", Shown(name), numpy_name(*found), numpy_name(*expected))]
    Dtype {
        /// Name of the array.
        name: String,
        /// The dtype of the others.
        expected: Dtype,
        /// Its own.
        found: Dtype,
    },
    /// The shape is not that of the other contributions.
    #[error("{} has shape {found:?} instead of {expected:?}", Shown(name))]
    Shape {
        /// Name of the array.
        name: String,
        /// The shape of the others.
        expected: Vec<usize>,
        /// Its own.
        found: Vec<usize>,
    },
    /// An element is infinite or not a number.
    #[error("{} is not finite at index {index}", Shown(name))]
    NotFinite {
        /// Name of the array.
        name: String,
        /// The element, counted from 0 in C order.
        index: usize,
    },
}

impl UnusableUpdate {
    /// What sort of mistake it is.
    pub fn fault(&self) -> Fault {
        match self {
            UnusableUpdate::Weight { .. } => Fault::Weight,
            UnusableUpdate::Empty
            | UnusableUpdate::NameNotText { .. }
            | UnusableUpdate::NotAnArray { .. } => Fault::Content,
            UnusableUpdate::Missing { .. } => Fault::Missing,
            UnusableUpdate::Unexpected { .. } => Fault::Unexpected,
            UnusableUpdate::NotFloat { .. } | UnusableUpdate::Dtype { .. } => Fault::Dtype,
            UnusableUpdate::Shape { .. } => Fault::Shape,
            UnusableUpdate::NotFinite { .. } => Fault::NotFinite,
        }
    }
}

impl From<UnusableUpdate> for Unusable {
    fn from(update: UnusableUpdate) -> Unusable {
        Unusable::new(update.fault(), update.to_string())
    }
}

/// Why there is no mean.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MeanError {
    /// No contribution was added.
    #[error("there is nothing to average")]
    Nothing,
    /// All contributions to an array weigh 0.
    #[error("the contributions to {} weigh nothing", Shown(name))]
    NoWeight {
        /// Name of the array.
        name: String,
    },
    /// The weighted sum of finite numbers is not finite.
    #[error("the weighted sum of {} exceeds the range of its dtype", Shown(name))]
    Overflow {
        /// Name of the array.
        name: String,
    },
}

fn numpy_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Bool => "bool",
        Dtype::I8 => "int8",
        Dtype::I16 => "int16",
        Dtype::I32 => "int32",
        Dtype::I64 => "int64",
        Dtype::U8 => "uint8",
        Dtype::U16 => "uint16",
        Dtype::U32 => "uint32",
        Dtype::U64 => "uint64",
        Dtype::F16 => "float16",
        Dtype::F32 => "float32",
        Dtype::F64 => "float64",
    }
}

/// A name that a peer chose, as a message may show it: one line, in quotes, at most 60 characters.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.0.chars();
        write!(f, "`{}", chars.by_ref().take(60).flat_map(char::escape_debug).collect::<String>())?;
        f.write_str(if chars.next().is_some() { "…`" } else { "`" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f64s(shape: &[usize], elements: &[f64]) -> Array {
        Array::from_f64(shape, elements).unwrap()
    }

    fn f32s(shape: &[usize], elements: &[f32]) -> Array {
        Array::from_f32(shape, elements).unwrap()
    }

    fn map(arrays: impl IntoIterator<Item = (&'static str, Array)>) -> Map {
        arrays.into_iter().collect()
    }

    fn f32_bits(bits: [u32; 3]) -> Array {
        f32s(&[3], &bits.map(f32::from_bits))
    }

    fn f64_bits(bits: [u64; 3]) -> Array {
        f64s(&[3], &bits.map(f64::from_bits))
    }

    /// From `WeightedAggregationHelper` of nvflare 2.9.0 with numpy 2.4.6; averaging in float64 or dividing
    /// by the weight gives other last bits.
    #[test]
    fn the_bits_are_those_of_the_peers_helper() {
        let contributions = [
            (
                301.0,
                [0x3e419736, 0xba09090e, 0xbd2930da],
                [0x4026e221177ffc00, 0xbfd4d3ba4e6e019e, 0x3f7fb1f33d591351],
            ),
            (
                118.0,
                [0xc25d8775, 0x3f7a41dc, 0xc046c196],
                [0x401232c549493a7f, 0xc058ccace11c4644, 0x4015cfc1a5763f8e],
            ),
            (
                37.0,
                [0x3fa256f3, 0xbf646c12, 0x4106a268],
                [0x4079a810070bf4f2, 0xbf84b347c0966e75, 0x3fe90fd197a93351],
            ),
        ];
        let mut mean = WeightedMean::new();
        for (weight, a, b) in contributions {
            mean.add(&map([("a", f32_bits(a)), ("b", f64_bits(b))]), weight).unwrap();
        }
        assert_eq!((mean.count(), mean.weight()), (3, 456.0));
        let expected = map([
            ("a", f32_bits([0xc161a8ac, 0x3e388c41, 0xbe17afc1])),
            ("b", f64_bits([0x404504e4d7bc29a2, 0xc039e2a2f504f7f1, 0x3ff7ace3e16b290d])),
        ]);
        assert_eq!(mean.finish().unwrap(), expected);
    }

    #[test]
    fn names_may_come_in_any_order_and_keep_the_first() {
        let scalar = |x| f64s(&[], &[x]);
        let mut mean = WeightedMean::new();
        mean.add(&map([("a", scalar(1.0)), ("b", scalar(2.0))]), 1.0).unwrap();
        mean.add(&map([("b", scalar(4.0)), ("a", scalar(3.0))]), 1.0).unwrap();
        assert_eq!(mean.finish().unwrap(), map([("a", scalar(2.0)), ("b", scalar(3.0))]));
    }

    #[test]
    fn a_negative_zero_keeps_its_sign() {
        let mut mean = WeightedMean::new();
        mean.add(&map([("a", f64s(&[1], &[-0.0]))]), 2.0).unwrap();
        let result = mean.finish().unwrap();
        assert_eq!(result.get("a").unwrap().as_array().unwrap().bytes()[..], (-0.0_f64).to_le_bytes());
    }

    #[track_caller]
    fn check_refused(update: Map, weight: f64, reason: &str) {
        let model = map([("w", f64s(&[2], &[1.0, 2.0])), ("b", f32s(&[1], &[0.5]))]);
        let mut mean = WeightedMean::new();
        mean.add(&model, 1.0).unwrap();
        assert_eq!(mean.add(&update, weight).unwrap_err().to_string(), reason);
        assert_eq!((mean.count(), mean.weight()), (1, 1.0));
        assert_eq!(mean.finish().unwrap(), model, "a refused update leaves no trace");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_reason() {
        let w = || f64s(&[2], &[3.0, 4.0]);
        let b = || f32s(&[1], &[9.0]);
        let fits = || map([("w", w()), ("b", b())]);
        check_refused(fits(), 0.0, "weight 0 is not usable");
        check_refused(fits(), -3.0, "weight -3 is not usable");
        check_refused(fits(), f64::NAN, "weight NaN is not usable");
        check_refused(fits(), f64::INFINITY, "weight inf is not usable");
        check_refused(fits(), 1e300, &format!("weight {} is not usable", 1e300));
        check_refused(Map::new(), 1.0, "`w` is missing");
        check_refused(map([("w", w())]), 1.0, "`b` is missing");
        check_refused(map([("w", w()), ("b", b()), ("c", b())]), 1.0, "`c` is not part of the model");
        check_refused(map([("w", b()), ("b", b())]), 1.0, "`w` has dtype float32 instead of float64");
        let wide = f64s(&[1, 2], &[3.0, 4.0]);
        check_refused(map([("w", wide), ("b", b())]), 1.0, "`w` has shape [1, 2] instead of [2]");
        let infinite = f64s(&[2], &[3.0, f64::INFINITY]);
        check_refused(map([("w", infinite), ("b", b())]), 1.0, "`w` is not finite at index 1");
        let not_a_number = f32s(&[1], &[f32::NAN]);
        check_refused(map([("w", w()), ("b", not_a_number)]), 1.0, "`b` is not finite at index 0");
        let text = Map::from_iter([("w", Value::from("weights")), ("b", b().into())]);
        check_refused(text, 1.0, "`w` is of type str, not an array");
        let numbered = Map::from_iter([(Value::from(1), Value::from(w()))]);
        check_refused(numbered, 1.0, "a name is of type int, not text");
    }

    #[test]
    fn a_refused_first_update_does_not_decide_the_shapes() {
        let mut mean = WeightedMean::new();
        assert!(mean.add(&map([("w", f64s(&[1], &[f64::NAN]))]), 1.0).is_err());
        mean.add(&map([("w", f64s(&[2], &[1.0, 2.0]))]), 1.0).unwrap();
        assert_eq!(mean.count(), 1);
    }

    /// The bits are those of `WeightedAggregationHelper` of nvflare 2.9.0 with numpy 2.4.6 for the same three
    /// contributions, of which one holds only `steps` and one only `w`.
    #[test]
    fn by_name_each_array_is_averaged_over_those_who_have_it() {
        let steps = |elements: &[i64]| Array::from_i64(&[2], elements).unwrap();
        let w = |elements: [f32; 2]| f32s(&[2], &elements);
        let mut mean = WeightedMean::by_name();
        mean.add(&map([("w", w([0.1, 0.2])), ("steps", steps(&[3, 10]))]), 7.0).unwrap();
        mean.add(&map([("steps", steps(&[4, -1]))]), 3.0).unwrap();
        mean.add(&map([("w", w([0.7, -0.3]))]), 0.1).unwrap();
        assert_eq!((mean.count(), mean.weight()), (3, 10.1));
        let bits = |bits: [u32; 2]| f32s(&[2], &bits.map(f32::from_bits));
        let means = [3.3000000000000003, 6.7];
        let expected = map([("w", bits([0x3dde1b67, 0x3e4596b8])), ("steps", f64s(&[2], &means))]);
        assert_eq!(mean.finish().unwrap(), expected);
    }

    #[test]
    fn by_name_a_weight_may_be_zero_but_not_all_of_them() {
        let w = |x| map([("w", f64s(&[1], &[x]))]);
        let mut mean = WeightedMean::by_name();
        mean.add(&w(5.0), 0.0).unwrap();
        mean.add(&w(2.0), 4.0).unwrap();
        assert_eq!(mean.finish().unwrap(), w(2.0));
        let mut mean = WeightedMean::by_name();
        mean.add(&w(5.0), 0.0).unwrap();
        assert_eq!(mean.finish().unwrap_err().to_string(), "the contributions to `w` weigh nothing");
        let half = Array::new(Dtype::F16, [1], Bytes::from_static(&[0, 0])).unwrap();
        let error = WeightedMean::by_name().add(&map([("w", half)]), 1.0).unwrap_err();
        assert_eq!(error.to_string(), "`w` has dtype float16; only float32 and float64 are averaged");
    }

    #[test]
    fn integers_are_not_averaged() {
        let error = WeightedMean::like(&map([("steps", Array::from_i64(&[1], &[3]).unwrap())])).unwrap_err();
        assert_eq!(error.to_string(), "`steps` has dtype int64; only float32 and float64 are averaged");
    }

    #[test]
    fn a_sum_out_of_range_is_an_error_and_not_an_infinity() {
        let mut mean = WeightedMean::new();
        mean.add(&map([("w", f32s(&[1], &[f32::MAX]))]), 2.0).unwrap();
        let error = mean.finish().unwrap_err();
        assert_eq!(error.to_string(), "the weighted sum of `w` exceeds the range of its dtype");
        assert_eq!(WeightedMean::new().finish().unwrap_err(), MeanError::Nothing);
    }

    #[test]
    fn names_of_a_peer_are_shown_on_one_short_line() {
        let name = format!("a\n{}", "x".repeat(100));
        assert_eq!(Shown(&name).to_string(), format!("`a\\n{}…`", "x".repeat(58)));
    }
}
