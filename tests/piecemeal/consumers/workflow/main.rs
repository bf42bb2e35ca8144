//! An aggregator: models are averaged one by one, weighted by their samples, in constant memory.

use std::error::Error;

use locule_fobs::{Array, Map, Value};
use locule_workflow::WeightedMean;

fn main() -> Result<(), Box<dyn Error>> {
    let model = |w: [f64; 2]| Map::from_iter([("w", Array::from(&w[..]))]);
    let mut mean = WeightedMean::new();
    mean.add(&model([1.0, 0.0]), 100.0)?;
    mean.add(&model([4.0, 3.0]), 50.0)?;
    assert!(mean.add(&Map::from_iter([("other", Array::from(&[1.0_f64][..]))]), 1.0).is_err());

    let global = mean.finish()?;
    assert_eq!(global.get("w").and_then(Value::as_array).map(Array::to_f64), Some(vec![2.0, 1.0]));
    Ok(())
}
