//! Logistic regression by mini-batch gradient descent; mathematics only.

use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

/// How a site trains for one round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Training {
    /// Passes over the site's rows.
    pub epochs: u32,
    /// Step along the negative gradient.
    pub learning_rate: f64,
    /// Weight of the penalty `l2 / 2 · |w|²` on the mean loss; the bias is not penalised.
    pub l2: f64,
    /// Rows a step; the last batch of an epoch may be smaller.
    pub batch_size: usize,
    /// Decides the order of the rows, together with the site's name and the round.
    pub seed: u64,
}

impl Default for Training {
    fn default() -> Training {
        Training { epochs: 2, learning_rate: 0.05, l2: 1e-3, batch_size: 16, seed: 1 }
    }
}

/// The parameters that training changes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parameters {
    pub(crate) weights: Vec<f64>,
    pub(crate) bias: f64,
}

impl Parameters {
    pub(crate) fn zeros(width: usize) -> Parameters {
        Parameters { weights: vec![0.0; width], bias: 0.0 }
    }

    pub(crate) fn is_finite(&self) -> bool {
        self.bias.is_finite() && self.weights.iter().all(|w| w.is_finite())
    }

    /// Log odds of class 1.
    pub(crate) fn score(&self, features: &[f64]) -> f64 {
        self.weights.iter().zip(features).map(|(w, x)| w * x).sum::<f64>() + self.bias
    }
}

/// Rows made comparable: every value centred and divided by its column's scale.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standardised {
    width: usize,
    values: Vec<f64>,
    labels: Vec<bool>,
}

impl Standardised {
    pub(crate) fn new(rows: &crate::Rows, mean: &[f64], scale: &[f64]) -> Standardised {
        let values = rows.iter().flat_map(|(features, _)| standardise(features, mean, scale)).collect();
        Standardised { width: rows.width(), values, labels: rows.labels().to_vec() }
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[f64], bool)> {
        self.values.chunks_exact(self.width.max(1)).zip(self.labels.iter().copied())
    }

    fn row(&self, index: usize) -> (&[f64], bool) {
        (&self.values[index * self.width..][..self.width], self.labels[index])
    }
}

pub(crate) fn standardise(features: &[f64], mean: &[f64], scale: &[f64]) -> impl Iterator<Item = f64> {
    features.iter().zip(mean).zip(scale).map(|((x, mean), scale)| (x - mean) / scale)
}

/// Training was told to stop; the parameters are somewhere on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

impl Training {
    /// Trains for one round, and asks before every batch whether to stop.
    ///
    /// The same rows, parameters, seed, site and round give the same bits on the same machine.
    pub(crate) fn run(
        &self,
        parameters: &mut Parameters,
        rows: &Standardised,
        site: &str,
        round: u64,
        stop: impl Fn() -> bool,
    ) -> Result<(), Stopped> {
        let mut rng = self.rng(site, round);
        let mut order: Vec<usize> = (0..rows.len()).collect();
        let mut gradient = vec![0.0; rows.width];
        for _ in 0..self.epochs {
            order.shuffle(&mut rng);
            for batch in order.chunks(self.batch_size.max(1)) {
                if stop() {
                    return Err(Stopped);
                }
                self.step(parameters, rows, batch, &mut gradient);
            }
        }
        Ok(())
    }

    /// One step along the negative gradient of the batch's mean loss.
    fn step(&self, parameters: &mut Parameters, rows: &Standardised, batch: &[usize], gradient: &mut [f64]) {
        gradient.fill(0.0);
        let mut bias_gradient = 0.0;
        for &index in batch {
            let (features, label) = rows.row(index);
            let error = sigmoid(parameters.score(features)) - f64::from(u8::from(label));
            gradient.iter_mut().zip(features).for_each(|(g, x)| *g += error * x);
            bias_gradient += error;
        }
        let rows = batch.len() as f64;
        for (weight, gradient) in parameters.weights.iter_mut().zip(gradient) {
            *weight -= self.learning_rate * (*gradient / rows + self.l2 * *weight);
        }
        parameters.bias -= self.learning_rate * bias_gradient / rows;
    }

    /// A generator of its own for every seed, site and round.
    fn rng(&self, site: &str, round: u64) -> ChaCha8Rng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&round.to_le_bytes());
        seed[16..24].copy_from_slice(&fnv1a(site.as_bytes()).to_le_bytes());
        ChaCha8Rng::from_seed(seed)
    }
}

/// The logistic function; exact at both ends, where a plain `1 / (1 + e⁻ˣ)` would overflow on the way.
pub(crate) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// `-ln(sigmoid(x))` without losing a large loss to rounding.
pub(crate) fn log_loss_of(score: f64, label: bool) -> f64 {
    let x = if label { score } else { -score };
    (-x).max(0.0) + (-x.abs()).exp().ln_1p()
}

/// FNV-1a, 64 bits: stable over versions and platforms, which the standard hasher does not promise.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;

    fn rows() -> Standardised {
        let mut rows = Rows::new(["a", "b"]);
        for (features, label) in
            [([1.0, 2.0], true), ([-1.0, 0.5], false), ([0.25, -2.0], true), ([3.0, 1.0], false)]
        {
            rows.push(&features, label).unwrap();
        }
        Standardised::new(&rows, &[0.0, 0.0], &[1.0, 1.0])
    }

    fn mean_loss(parameters: &Parameters, rows: &Standardised, l2: f64) -> f64 {
        let loss: f64 = rows.iter().map(|(x, label)| log_loss_of(parameters.score(x), label)).sum();
        loss / rows.len() as f64 + l2 / 2.0 * parameters.weights.iter().map(|w| w * w).sum::<f64>()
    }

    #[test]
    fn a_step_follows_the_numerical_gradient() {
        let rows = rows();
        let start = Parameters { weights: vec![0.3, -0.7], bias: 0.2 };
        let training = Training { learning_rate: 1.0, l2: 0.5, ..Training::default() };
        let mut after = start.clone();
        training.step(&mut after, &rows, &[0, 1, 2, 3], &mut [0.0; 2]);

        let h = 1e-6;
        let slope = |nudge: &dyn Fn(&mut Parameters, f64)| {
            let at = |by| {
                let mut p = start.clone();
                nudge(&mut p, by);
                mean_loss(&p, &rows, training.l2)
            };
            (at(h) - at(-h)) / (2.0 * h)
        };
        for index in 0..2 {
            let step = start.weights[index] - after.weights[index];
            assert!((step - slope(&|p, by| p.weights[index] += by)).abs() < 1e-8, "weight {index}");
        }
        assert!((start.bias - after.bias - slope(&|p, by| p.bias += by)).abs() < 1e-8);
    }

    #[test]
    fn seed_site_and_round_decide_the_result_and_nothing_else_does() {
        let rows = rows();
        let train = |seed, site, round| {
            let mut parameters = Parameters::zeros(2);
            let training = Training { seed, epochs: 3, batch_size: 1, ..Training::default() };
            training.run(&mut parameters, &rows, site, round, || false).unwrap();
            parameters
        };
        assert_eq!(train(1, "north", 0), train(1, "north", 0));
        assert_ne!(train(1, "north", 0), train(2, "north", 0));
        assert_ne!(train(1, "north", 0), train(1, "south", 0));
        assert_ne!(train(1, "north", 0), train(1, "north", 1));
    }

    #[test]
    fn training_stops_when_told() {
        let mut parameters = Parameters::zeros(2);
        assert_eq!(Training::default().run(&mut parameters, &rows(), "north", 0, || true), Err(Stopped));
        assert_eq!(parameters, Parameters::zeros(2));
    }

    #[test]
    fn loss_and_probability_are_finite_at_the_ends() {
        assert_eq!((sigmoid(1e6), sigmoid(-1e6), sigmoid(0.0)), (1.0, 0.0, 0.5));
        assert_eq!((log_loss_of(1e6, true), log_loss_of(1e6, false)), (0.0, 1e6));
        assert!((log_loss_of(0.0, true) - std::f64::consts::LN_2).abs() < 1e-15);
    }
}
