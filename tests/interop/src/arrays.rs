//! Arrays that count up from 0, as the Python side makes them: described by JSON, `{name: [dtype, shape]}`.

use bytes::{BufMut as _, Bytes, BytesMut};
use locule_fobs::{Array, Dtype, Map, Value};
use serde_json::{Map as Object, Value as Json};
use sha2::{Digest as _, Sha256};

/// The described array.
pub(crate) fn counting(described: &Json) -> Result<Array, String> {
    let shape = described[1].as_array().into_iter().flatten().filter_map(Json::as_u64);
    let shape: Vec<_> = shape.map(|extent| extent as usize).collect();
    let len: usize = shape.iter().product();
    let (dtype, data) = match described[0].as_str() {
        Some("float32") => (Dtype::F32, elements(len, |out, at| out.put_f32_le(at as f32))),
        Some("float64") => (Dtype::F64, elements(len, |out, at| out.put_f64_le(at as f64))),
        Some("int64") => (Dtype::I64, elements(len, |out, at| out.put_i64_le(at as i64))),
        Some(_) | None => return Err(format!("no counting array is described by {described}")),
    };
    Array::new(dtype, shape, data).map_err(|error| error.to_string())
}

/// All arrays that an object describes, by their names.
pub(crate) fn all(described: &Json) -> Result<Vec<(String, Array)>, String> {
    let described = described.as_object().into_iter().flatten();
    described.map(|(name, array)| Ok((name.clone(), counting(array)?))).collect()
}

/// The SHA-256 of each array's data, as the Python side tells them.
pub(crate) fn sums(map: &Map) -> Json {
    let sum =
        |value: &Value| value.as_array().map_or_else(|| "no array".to_owned(), |array| hex(&array.bytes()));
    map.iter()
        .map(|(name, value)| (name.as_str().unwrap_or_default().to_owned(), Json::from(sum(value))))
        .collect::<Object<_, _>>()
        .into()
}

fn hex(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn elements(len: usize, put: impl Fn(&mut BytesMut, usize)) -> Bytes {
    let mut out = BytesMut::with_capacity(len * 8);
    (0..len).for_each(|at| put(&mut out, at));
    out.freeze()
}
