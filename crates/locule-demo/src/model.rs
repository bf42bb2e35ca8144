//! A trained model as it judges patients, and models trained without a federation.

use std::path::{Path, PathBuf};

use locule_fobs::{Array, Map, Value};
use locule_workflow::{LoadError, Moments, load_npz};
use thiserror::Error;

use crate::data::Rows;
use crate::logistic::{Parameters, Standardised, Training, sigmoid, standardise};
use crate::metrics::Judgement;
use crate::split::Split;

/// A logistic regression with the standardisation it was trained under.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// One weight a column, for standardised values.
    pub weights: Vec<f64>,
    /// Log odds of class 1 for a row of mean values.
    pub bias: f64,
    /// What is subtracted from every column.
    pub mean: Vec<f64>,
    /// What every column is then divided by; nowhere zero.
    pub scale: Vec<f64>,
}

impl Model {
    /// Probability that a row is of class 1, here that a tumour is benign.
    pub fn predict(&self, features: &[f64]) -> f64 {
        sigmoid(self.score(features))
    }

    /// How this model does on rows that it has not seen.
    pub fn judge(&self, rows: &Rows) -> Judgement {
        let scores: Vec<f64> = rows.iter().map(|(features, _)| self.score(features)).collect();
        Judgement::of(&scores, rows.labels())
    }

    fn score(&self, features: &[f64]) -> f64 {
        let standardised = standardise(features, &self.mean, &self.scale);
        self.weights.iter().zip(standardised).map(|(w, x)| w * x).sum::<f64>() + self.bias
    }
}

/// What a site reaches by itself: same trainer, its own standardisation, `rounds` times as long as a round.
pub fn train_alone(site: &str, rows: &Rows, training: &Training, rounds: u64) -> Model {
    let moments = moments(rows);
    let (mean, scale) = (moments.mean().to_vec(), moments.scale());
    let standardised = Standardised::new(rows, &mean, &scale);
    let mut parameters = Parameters::zeros(rows.width());
    for round in 0..rounds {
        let ended = training.run(&mut parameters, &standardised, site, round, || false);
        debug_assert_eq!(ended, Ok(()), "nobody tells it to stop");
    }
    Model { weights: parameters.weights, bias: parameters.bias, mean, scale }
}

/// What one site with everybody's rows would reach: the bar that a federation is measured against.
pub fn train_pooled(split: &Split, training: &Training, rounds: u64) -> Model {
    train_alone("pooled", &split.pooled, training, rounds)
}

pub(crate) fn moments(rows: &Rows) -> Moments {
    let mut moments = Moments::new(rows.width());
    rows.iter().for_each(|(features, _)| moments.push(features));
    moments
}

impl Model {
    /// Reads what a federation saved: the weights of a round, and the standardisation they belong to.
    ///
    /// # Errors
    /// [`ReadModelError`] names the file, and the array that is missing or does not fit.
    pub fn read(model: &Path, standardisation: &Path) -> Result<Model, ReadModelError> {
        let (parameters, standards) = (load_npz(model)?, load_npz(standardisation)?);
        let weights = vector(&parameters, model, "weights", None)?;
        let width = Some(weights.len());
        let read = Model {
            bias: vector(&parameters, model, "bias", Some(1))?[0],
            mean: vector(&standards, standardisation, "mean", width)?,
            scale: vector(&standards, standardisation, "scale", width)?,
            weights,
        };
        if read.scale.iter().any(|&scale| scale <= 0.0) {
            return Err(ReadModelError::Array { path: standardisation.to_owned(), name: "scale" });
        }
        Ok(read)
    }
}

fn vector(
    arrays: &Map,
    path: &Path,
    name: &'static str,
    len: Option<usize>,
) -> Result<Vec<f64>, ReadModelError> {
    let array = arrays.get(name).and_then(Value::as_array).filter(|array| array.shape().len() == 1);
    let values = array.map(Array::to_f64).filter(|values| values.iter().all(|x| x.is_finite()));
    values
        .filter(|values| len.is_none_or(|len| values.len() == len))
        .ok_or_else(|| ReadModelError::Array { path: path.to_owned(), name })
}

/// A model was not read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadModelError {
    /// A file is missing or no NPZ.
    #[error(transparent)]
    File(#[from] LoadError),
    /// An array is missing, has another length than the others, or holds no usable numbers.
    #[error("{}: `{name}` is missing or does not fit", path.display())]
    Array {
        /// The file.
        path: PathBuf,
        /// Name of the array.
        name: &'static str,
    },
}
