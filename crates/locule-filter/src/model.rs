//! The numbers of a model, each variable in the precision that it came in.

use locule_component::FilterError;
use locule_fobs::{Array, Dtype, Map, Scalar, Value};

/// A model's variables, in order.
#[derive(Debug)]
pub(crate) struct Model(pub(crate) Vec<Variable>);

/// One variable.
#[derive(Debug)]
pub(crate) struct Variable {
    key: Value,
    shape: Shape,
    pub(crate) elements: Elements,
}

#[derive(Debug)]
enum Shape {
    Array(Vec<usize>),
    /// A numpy scalar, which is no array.
    Scalar,
}

/// The elements in C order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Elements {
    Single(Vec<f32>),
    Double(Vec<f64>),
}

impl Model {
    /// Reads a model. float32 stays what it is; integers become float64, as in any numpy division.
    ///
    /// # Errors
    /// What is not an array of such numbers, or not finite, cannot be protected and stops the payload.
    pub(crate) fn read(data: &Map) -> Result<Model, FilterError> {
        let variable = |(key, value): (&Value, &Value)| {
            let failed = |what: &str| {
                let name: String = key.as_str().unwrap_or("?").chars().take(96).collect();
                FilterError::Failed(format!("variable {name:?} {what}"))
            };
            let (shape, elements) = if let Value::Array(array) = value {
                (Shape::Array(array.shape().to_vec()), elements(array))
            } else if let Value::Scalar(Scalar::F32(number)) = value {
                (Shape::Scalar, Some(Elements::Single(vec![*number])))
            } else if let Value::Scalar(_) = value {
                (Shape::Scalar, value.as_f64().map(|number| Elements::Double(vec![number])))
            } else {
                return Err(failed(&format!("is a {} and no array of numbers", value.kind())));
            };
            let elements =
                elements.ok_or_else(|| failed("is of float16, which this filter cannot handle"))?;
            if !elements.are_finite() {
                return Err(failed("holds numbers that are not finite"));
            }
            Ok(Variable { key: key.clone(), shape, elements })
        };
        data.iter().map(variable).collect::<Result<_, _>>().map(Model)
    }

    /// The model as it travels.
    ///
    /// # Errors
    /// Numbers that overflowed on the way.
    pub(crate) fn write(self) -> Result<Map, FilterError> {
        let entry = |Variable { key, shape, elements }: Variable| {
            if !elements.are_finite() {
                return Err(FilterError::Failed("numbers overflow".to_owned()));
            }
            let value = match (shape, elements) {
                (Shape::Array(shape), Elements::Single(all)) => {
                    Array::from_f32(&shape, &all).map(Value::Array)
                }
                (Shape::Array(shape), Elements::Double(all)) => {
                    Array::from_f64(&shape, &all).map(Value::Array)
                }
                (Shape::Scalar, Elements::Single(all)) => Ok(Value::Scalar(Scalar::F32(first(&all)))),
                (Shape::Scalar, Elements::Double(all)) => Ok(Value::Scalar(Scalar::F64(first(&all)))),
            };
            Ok((key, value.map_err(|error| FilterError::Failed(error.to_string()))?))
        };
        self.0.into_iter().map(entry).collect()
    }
}

impl Variable {
    /// Whether it is a single number rather than an array, or an array without dimensions.
    pub(crate) fn is_single(&self) -> bool {
        match &self.shape {
            Shape::Array(shape) => shape.is_empty(),
            Shape::Scalar => true,
        }
    }

    /// Its name, for sorting.
    pub(crate) fn name(&self) -> &str {
        self.key.as_str().unwrap_or_default()
    }
}

impl Elements {
    pub(crate) fn len(&self) -> usize {
        match self {
            Elements::Single(all) => all.len(),
            Elements::Double(all) => all.len(),
        }
    }

    /// An element.
    pub(crate) fn get(&self, at: usize) -> f64 {
        match self {
            Elements::Single(all) => f64::from(all[at]),
            Elements::Double(all) => all[at],
        }
    }

    /// All elements.
    pub(crate) fn iter(&self) -> impl Iterator<Item = f64> {
        (0..self.len()).map(|at| self.get(at))
    }

    /// Replaces each element, computing in double precision.
    pub(crate) fn map(&mut self, mut to: impl FnMut(f64) -> f64) {
        match self {
            Elements::Single(all) => all.iter_mut().for_each(|x| *x = to(f64::from(*x)) as f32),
            Elements::Double(all) => all.iter_mut().for_each(|x| *x = to(*x)),
        }
    }

    fn are_finite(&self) -> bool {
        match self {
            Elements::Single(all) => all.iter().all(|x| x.is_finite()),
            Elements::Double(all) => all.iter().all(|x| x.is_finite()),
        }
    }
}

fn elements(array: &Array) -> Option<Elements> {
    match array.dtype() {
        // Exact: each came from a float32.
        Dtype::F32 => Some(Elements::Single(array.to_f64().into_iter().map(|x| x as f32).collect())),
        Dtype::F16 => None,
        Dtype::F64
        | Dtype::Bool
        | Dtype::I8
        | Dtype::I16
        | Dtype::I32
        | Dtype::I64
        | Dtype::U8
        | Dtype::U16
        | Dtype::U32
        | Dtype::U64 => Some(Elements::Double(array.to_f64())),
    }
}

fn first<T: Copy + Default>(all: &[T]) -> T {
    all.first().copied().unwrap_or_default()
}
