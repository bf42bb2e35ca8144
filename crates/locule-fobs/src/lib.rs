//! The object format of payloads: values to bytes and back.
//!
//! What a cell sends as payload is one [`Value`]: plain data, or a [`Shareable`] with weights and
//! metrics, in the format that nvflare calls FOBS. This crate knows the format, the closed set of
//! classes in it, and numeric arrays; it does not download the arrays that a peer keeps for download
//! ([`ArrayRef`]), nor does it know what the messages mean.
//!
//! Decoding is safe against the sender: depth and number of values are bounded before memory is taken,
//! a class name is looked up in a table and nowhere else, and large bytes stay slices of the input.
//!
//! ```
//! use locule_fobs::{Array, DataKind, Dxo, Map, Shareable, Value, decode, encode};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let weights = Map::from_iter([("w", Array::from_f32(&[2, 2], &[1.0, 2.0, 3.0, 4.0])?)]);
//! let result = Shareable::with_dxo(Dxo::new(DataKind::Weights, weights));
//!
//! let payload = encode(&Value::from(result))?;
//! let Value::Shareable(received) = decode(payload)? else { unreachable!() };
//! let dxo = received.dxo()?.expect("it carries one");
//! let array = dxo.data.get("w").and_then(Value::as_array).expect("it is there");
//! assert_eq!(array.to_f64(), [1.0, 2.0, 3.0, 4.0]);
//! # Ok(())
//! # }
//! ```
//!
//! Start with [`Value`], [`Map`] and [`Shareable`].
//!
//! # Source
//! nvflare 2.9.0, `nvflare.fuel.utils.fobs`; vectors in `tests/vectors/fobs.json`.

mod array;
mod class;
mod decode;
mod encode;
mod error;
mod msgpack;
mod npy;
mod object;
mod reference;
mod section;
mod shareable;
mod value;

pub use array::{Array, Dtype, Layout, ShapeMismatch};
pub use class::Class;
pub use decode::{Limits, decode, decode_with};
pub use encode::{EncodeOptions, Encoded, encode, encode_parts, encode_with};
pub use error::{DecodeError, EncodeError};
pub use npy::NpyError;
pub use object::{ArrayRef, Datum, DatumKind, DownloadSource, Object, RefKind, Scalar};
pub use shareable::{DataKind, Dxo, DxoError, PeerContext, Prop, Shareable, header};
pub use value::{IntOutOfRange, Map, Value};
