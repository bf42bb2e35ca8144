//! Arrays from nested lists, and sums of arrays as numpy computes them.

use locule_fobs::{Array, Dtype};
use serde_json::Value as Json;

/// What `numpy.array(nested)` holds: its shape and elements.
pub(crate) fn nested(value: &Json) -> Result<(Vec<usize>, Vec<f64>), &'static str> {
    let mut shape = Vec::new();
    let mut first = value;
    while let Json::Array(items) = first {
        if shape.len() == MAX_DIMENSIONS {
            return Err("the lists are nested too deep");
        }
        shape.push(items.len());
        match items.first() {
            Some(item) => first = item,
            None => break,
        }
    }
    let mut elements = Vec::new();
    flatten(value, &shape, &mut elements)?;
    Ok((shape, elements))
}

/// Dimensions that a numpy array may have.
const MAX_DIMENSIONS: usize = 64;

fn flatten(value: &Json, shape: &[usize], elements: &mut Vec<f64>) -> Result<(), &'static str> {
    match (value, shape) {
        (Json::Array(items), [length, inner @ ..]) if items.len() == *length => {
            items.iter().try_for_each(|item| flatten(item, inner, elements))
        }
        (Json::Array(_), _) | (Json::Number(_) | Json::Bool(_), [_, ..]) => {
            Err("lists of one level differ in length")
        }
        (Json::Number(number), []) => {
            elements.push(number.as_f64().ok_or("a number is out of range")?);
            Ok(())
        }
        (Json::Bool(flag), []) => {
            elements.push(f64::from(u8::from(*flag)));
            Ok(())
        }
        (Json::Null | Json::String(_) | Json::Object(_), _) => Err("expected numbers in nested lists"),
    }
}

/// `a + b` with numpy's types, where `b` is float32 or float64. `None` when the shapes differ, or an element
/// of the sum is not finite.
pub(crate) fn plus(a: &Array, b: &Array) -> Option<Array> {
    if a.shape() != b.shape() {
        return None;
    }
    let (left, right) = (a.to_f64(), b.to_f64());
    let pairs = left.into_iter().zip(right);
    if b.dtype() == Dtype::F32 && fits_float32(a.dtype()) {
        let sum: Vec<f32> = pairs.map(|(a, b)| a as f32 + b as f32).collect();
        sum.iter().all(|x| x.is_finite()).then(|| Array::from_f32(a.shape(), &sum).ok())?
    } else {
        let sum: Vec<f64> = pairs.map(|(a, b)| a + b).collect();
        sum.iter().all(|x| x.is_finite()).then(|| Array::from_f64(a.shape(), &sum).ok())?
    }
}

/// Whether numpy keeps float32 when one operand is of this type and the other float32.
fn fits_float32(dtype: Dtype) -> bool {
    match dtype {
        Dtype::Bool | Dtype::I8 | Dtype::I16 | Dtype::U8 | Dtype::U16 | Dtype::F16 | Dtype::F32 => true,
        Dtype::I32 | Dtype::I64 | Dtype::U32 | Dtype::U64 | Dtype::F64 => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_lists_have_one_shape() {
        let json = |text: &str| serde_json::from_str::<Json>(text).unwrap();
        assert_eq!(
            nested(&json("[[1, 2.5, true], [4, 5, 6]]")),
            Ok((vec![2, 3], vec![1.0, 2.5, 1.0, 4.0, 5.0, 6.0]))
        );
        assert_eq!(nested(&json("7")), Ok((vec![], vec![7.0])));
        assert_eq!(nested(&json("[[], []]")), Ok((vec![2, 0], vec![])));
        for (text, reason) in [
            ("[[1, 2], [3]]", "lists of one level differ in length"),
            ("[[1], 2]", "lists of one level differ in length"),
            ("[1, [2]]", "lists of one level differ in length"),
            ("[\"a\"]", "expected numbers in nested lists"),
            ("null", "expected numbers in nested lists"),
        ] {
            assert_eq!(nested(&json(text)), Err(reason), "{text}");
        }
        let deep = format!("{}1{}", "[".repeat(65), "]".repeat(65));
        assert_eq!(nested(&json(&deep)), Err("the lists are nested too deep"));
    }

    #[test]
    fn a_sum_has_the_type_that_numpy_gives_it() {
        let f32s = Array::from(&[0.1_f32][..]);
        let f64s = Array::from(&[0.1_f64][..]);
        let ints = Array::from_i64(&[1], &[3]).unwrap();
        assert_eq!(plus(&f32s, &f32s), Some(Array::from(&[0.1_f32 + 0.1][..])));
        assert_eq!(plus(&f32s, &f64s), Some(Array::from(&[f64::from(0.1_f32) + 0.1][..])));
        assert_eq!(plus(&ints, &f32s), Some(Array::from(&[3.0 + f64::from(0.1_f32)][..])));
        assert_eq!(plus(&ints, &Array::from(&[1.0, 2.0][..])), None);
        assert_eq!(plus(&Array::from(&[f32::MAX][..]), &Array::from(&[f32::MAX][..])), None);
    }
}
