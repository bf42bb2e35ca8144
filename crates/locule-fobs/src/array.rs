//! Numeric arrays, and their NPY files.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::npy::{self, NpyError};

/// A numeric array: dtype, shape, data. Cloning it shares the data.
///
/// Arrays made here are in C order, little-endian. One that was decoded keeps the layout of its sender,
/// and its data are a slice of the payload; [`Array::bytes`] converts where it has to.
#[derive(Clone, PartialEq)]
pub struct Array(Arc<Parts>);

#[derive(Clone, PartialEq)]
struct Parts {
    dtype: Dtype,
    shape: Vec<usize>,
    layout: Layout,
    data: Bytes,
}

/// How the elements lie in the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layout {
    /// The first index runs fastest (Fortran), not the last (C).
    pub fortran: bool,
    /// Elements are big-endian.
    pub big_endian: bool,
}

impl Layout {
    fn is_plain(self, dtype: Dtype, shape: &[usize]) -> bool {
        (!self.fortran || is_one_dimensional(shape)) && (!self.big_endian || dtype.size() == 1)
    }
}

impl Array {
    /// An array of these data, in C order and little-endian.
    ///
    /// # Errors
    /// [`ShapeMismatch`] when dtype and shape call for another number of bytes.
    pub fn new(dtype: Dtype, shape: impl Into<Vec<usize>>, data: Bytes) -> Result<Array, ShapeMismatch> {
        Self::with_layout(dtype, shape.into(), Layout::default(), data)
    }

    pub(crate) fn with_layout(
        dtype: Dtype,
        shape: Vec<usize>,
        layout: Layout,
        data: Bytes,
    ) -> Result<Array, ShapeMismatch> {
        let expected = shape.iter().try_fold(dtype.size(), |size, n| size.checked_mul(*n));
        if expected == Some(data.len()) {
            Ok(Array(Arc::new(Parts { dtype, shape, layout, data })))
        } else {
            Err(ShapeMismatch { dtype, dimensions: shape.len(), found: data.len() })
        }
    }

    /// An array of `float32`.
    ///
    /// # Errors
    /// [`ShapeMismatch`] when the shape calls for another number of elements.
    pub fn from_f32(shape: &[usize], elements: &[f32]) -> Result<Array, ShapeMismatch> {
        Self::new(Dtype::F32, shape, collect(elements, |out, x| out.put_f32_le(x)))
    }

    /// An array of `float64`.
    ///
    /// # Errors
    /// [`ShapeMismatch`] when the shape calls for another number of elements.
    pub fn from_f64(shape: &[usize], elements: &[f64]) -> Result<Array, ShapeMismatch> {
        Self::new(Dtype::F64, shape, collect(elements, |out, x| out.put_f64_le(x)))
    }

    /// An array of `int64`.
    ///
    /// # Errors
    /// [`ShapeMismatch`] when the shape calls for another number of elements.
    pub fn from_i64(shape: &[usize], elements: &[i64]) -> Result<Array, ShapeMismatch> {
        Self::new(Dtype::I64, shape, collect(elements, |out, x| out.put_i64_le(x)))
    }

    /// The type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.0.dtype
    }

    /// The extent of each dimension; empty for a single number.
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.0.data.len() / self.0.dtype.size()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.0.data.is_empty()
    }

    /// The data in C order, little-endian. No copy is made of arrays that lie so already.
    pub fn bytes(&self) -> Bytes {
        let Parts { dtype, shape, layout, data } = &*self.0;
        if layout.is_plain(*dtype, shape) {
            return data.clone();
        }
        let mut plain = BytesMut::with_capacity(data.len());
        self.for_each(|element| {
            if layout.big_endian {
                plain.extend(element.iter().rev());
            } else {
                plain.extend_from_slice(element);
            }
        });
        plain.freeze()
    }

    /// The data as they came, and how the elements lie in them.
    pub fn raw(&self) -> (&Bytes, Layout) {
        (&self.0.data, self.0.layout)
    }

    /// The elements in C order as `f64`; 64-bit integers lose their last digits, a true counts as 1.
    pub fn to_f64(&self) -> Vec<f64> {
        let bytes = self.bytes();
        macro_rules! elements {
            ($type:ty) => {
                bytes.as_chunks().0.iter().map(|chunk| <$type>::from_le_bytes(*chunk) as f64).collect()
            };
        }
        match self.0.dtype {
            Dtype::Bool => bytes.iter().map(|byte| f64::from(u8::from(*byte != 0))).collect(),
            Dtype::I8 => elements!(i8),
            Dtype::I16 => elements!(i16),
            Dtype::I32 => elements!(i32),
            Dtype::I64 => elements!(i64),
            Dtype::U8 => elements!(u8),
            Dtype::U16 => elements!(u16),
            Dtype::U32 => elements!(u32),
            Dtype::U64 => elements!(u64),
            Dtype::F16 => {
                bytes.as_chunks().0.iter().map(|chunk| half_to_f64(u16::from_le_bytes(*chunk))).collect()
            }
            Dtype::F32 => elements!(f32),
            Dtype::F64 => elements!(f64),
        }
    }

    /// The NPY file of this array, as `numpy.save` writes it. Copies the data once.
    pub fn to_npy(&self) -> Bytes {
        let header = self.npy_header();
        let mut file = BytesMut::with_capacity(header.len() + self.0.data.len());
        file.extend_from_slice(&header);
        file.extend_from_slice(&self.0.data);
        file.freeze()
    }

    /// Reads an NPY file; the array's data are a slice of it.
    ///
    /// # Errors
    /// [`NpyError`]; [`NpyError::NotNumeric`] says that the file is in order and holds something else
    /// than numbers.
    pub fn from_npy(file: Bytes) -> Result<Array, NpyError> {
        npy::read(file)
    }

    /// What comes before the data in an NPY file.
    pub(crate) fn npy_header(&self) -> Vec<u8> {
        npy::header(self.0.dtype, self.0.layout, &self.0.shape)
    }

    /// Hands out the elements in C order, each as it lies in the data.
    fn for_each(&self, mut element: impl FnMut(&[u8])) {
        let Parts { dtype, shape, layout, data } = &*self.0;
        let size = dtype.size();
        if !layout.fortran || data.is_empty() {
            data.chunks_exact(size).for_each(element);
            return;
        }
        let strides: Vec<usize> = (0..shape.len()).map(|axis| shape[..axis].iter().product()).collect();
        let mut index = vec![0; shape.len()];
        let mut at = 0;
        for _ in 0..self.len() {
            element(&data[at * size..(at + 1) * size]);
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                at += strides[axis];
                if index[axis] < shape[axis] {
                    break;
                }
                at -= strides[axis] * shape[axis];
                index[axis] = 0;
            }
        }
    }
}

/// A vector of `float64`.
impl From<&[f64]> for Array {
    fn from(elements: &[f64]) -> Self {
        Self::vector(Dtype::F64, elements.len(), collect(elements, |out, x| out.put_f64_le(x)))
    }
}

/// A vector of `float32`.
impl From<&[f32]> for Array {
    fn from(elements: &[f32]) -> Self {
        Self::vector(Dtype::F32, elements.len(), collect(elements, |out, x| out.put_f32_le(x)))
    }
}

impl Array {
    fn vector(dtype: Dtype, len: usize, data: Bytes) -> Self {
        Array(Arc::new(Parts { dtype, shape: vec![len], layout: Layout::default(), data }))
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array({:?} {:?})", self.0.dtype, self.0.shape)
    }
}

/// The type of an array's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// One byte, 0 or 1.
    Bool,
    /// `int8`
    I8,
    /// `int16`
    I16,
    /// `int32`
    I32,
    /// `int64`
    I64,
    /// `uint8`
    U8,
    /// `uint16`
    U16,
    /// `uint32`
    U32,
    /// `uint64`
    U64,
    /// `float16`
    F16,
    /// `float32`
    F32,
    /// `float64`
    F64,
}

impl Dtype {
    pub(crate) const ALL: [Dtype; 12] = [
        Dtype::Bool,
        Dtype::I8,
        Dtype::I16,
        Dtype::I32,
        Dtype::I64,
        Dtype::U8,
        Dtype::U16,
        Dtype::U32,
        Dtype::U64,
        Dtype::F16,
        Dtype::F32,
        Dtype::F64,
    ];

    /// Size of one element in bytes.
    pub fn size(self) -> usize {
        match self {
            Dtype::Bool | Dtype::I8 | Dtype::U8 => 1,
            Dtype::I16 | Dtype::U16 | Dtype::F16 => 2,
            Dtype::I32 | Dtype::U32 | Dtype::F32 => 4,
            Dtype::I64 | Dtype::U64 | Dtype::F64 => 8,
        }
    }

    /// Whether the elements are floats.
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::F16 | Dtype::F32 | Dtype::F64)
    }

    /// numpy's code without the byte order: kind and size.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Dtype::Bool => "b1",
            Dtype::I8 => "i1",
            Dtype::I16 => "i2",
            Dtype::I32 => "i4",
            Dtype::I64 => "i8",
            Dtype::U8 => "u1",
            Dtype::U16 => "u2",
            Dtype::U32 => "u4",
            Dtype::U64 => "u8",
            Dtype::F16 => "f2",
            Dtype::F32 => "f4",
            Dtype::F64 => "f8",
        }
    }
}

/// The data are not as long as dtype and shape say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found} bytes do not make an array of {dtype:?} with this shape of {dimensions} dimensions")]
pub struct ShapeMismatch {
    /// The type of the elements.
    pub dtype: Dtype,
    /// How many dimensions the shape has.
    pub dimensions: usize,
    /// Length of the data in bytes.
    pub found: usize,
}

fn collect<T: Copy>(elements: &[T], put: impl Fn(&mut BytesMut, T)) -> Bytes {
    let mut out = BytesMut::with_capacity(size_of_val(elements));
    elements.iter().for_each(|element| put(&mut out, *element));
    out.freeze()
}

fn is_one_dimensional(shape: &[usize]) -> bool {
    shape.iter().filter(|n| **n != 1).count() <= 1
}

/// IEEE 754 binary16: 1 bit sign, 5 bits exponent with bias 15, 10 bits fraction.
fn half_to_f64(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let fraction = f64::from(bits & 0x3ff) / 1024.0;
    match i32::from(bits >> 10 & 0x1f) {
        0 => sign * fraction * 2f64.powi(-14),
        31 if bits & 0x3ff == 0 => sign * f64::INFINITY,
        31 => f64::NAN,
        exponent => sign * (1.0 + fraction) * 2f64.powi(exponent - 15),
    }
}
