//! A result inspector: opens a submitted update, looks at its arrays and metrics, closes it again.

use std::error::Error;

use locule_fobs::{Array, DataKind, Dxo, Map, Shareable, Value, decode, encode};

fn main() -> Result<(), Box<dyn Error>> {
    let weights = Map::from_iter([("w", Array::from_f32(&[2, 2], &[1.0, 2.0, 3.0, f32::NAN])?)]);
    let mut update = Shareable::with_dxo(Dxo::new(DataKind::WeightDiff, weights));
    update.set_header("site", "site-1");
    let captured = encode(&Value::from(update))?;

    let Value::Shareable(update) = decode(captured.clone())? else { return Err("not a result".into()) };
    let dxo = update.dxo()?.ok_or("no data in it")?;
    assert_eq!(dxo.kind, DataKind::WeightDiff);
    let array = dxo.data.get("w").and_then(Value::as_array).ok_or("no array")?;
    assert_eq!(array.to_f64().iter().filter(|element| element.is_nan()).count(), 1);
    assert_eq!(&array.to_npy()[..6], b"\x93NUMPY"); // numpy.load reads it
    assert!(decode(captured.slice(..captured.len() - 1)).is_err());
    Ok(())
}
