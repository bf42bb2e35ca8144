//! A baseline: what one hospital reaches alone on the demo's data, and all of them with pooled rows.

use std::error::Error;

use locule_demo::{DataSet, Training, auc, train_alone, train_pooled};

fn main() -> Result<(), Box<dyn Error>> {
    let split = DataSet::wisconsin().split(7, 3)?;
    let training = Training::default();
    let pooled = train_pooled(&split, &training, 5).judge(&split.held_out);
    let alone = train_alone("site-3", &split.sites[2], &training, 5).judge(&split.held_out);
    assert!(pooled.auc > alone.auc, "{pooled:?} {alone:?}");
    assert_eq!(auc(&[0.9, 0.1], &[true, false]), Some(1.0));
    Ok(())
}
