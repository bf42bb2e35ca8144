//! Optimisers at the server: the mean of the sites' changes is a gradient, and the model takes a step along it.

use std::collections::BTreeMap;

use locule_component::{BuildCx, BuildError, Built, Child, Component, Kind};
use locule_fobs::{Array, Dtype, Map, Value};
use serde::Deserialize;

use crate::mean::Shown;

/// What makes a new model of the old one and the change that a round came to.
///
/// With Δ the change, that is the mean of the differences or the mean of the weights less the model, `η` the learning
/// rate and `x` the model, every element by itself and in float64, rounded to the dtype of its array at the end:
///
/// | component | what it remembers | the step |
/// |---|---|---|
/// | [`FedAvgM`] | `v ← β·v + Δ` | `x ← x + η·v` |
/// | [`FedAdagrad`] | `m ← β₁·m + (1-β₁)·Δ`, `v ← v + Δ²` | `x ← x + η·m/(√v + τ)` |
/// | [`FedYogi`] | `m` alike, `v ← v - (1-β₂)·Δ²·sign(v - Δ²)` | alike |
/// | [`FedAdam`] | `m` alike, `v ← β₂·v + (1-β₂)·Δ²` | alike |
///
/// At first `v` is 0 with momentum, otherwise `τ²`, and `m` is 0. It remembers one or two numbers of 64 bits for each
/// of the model.
///
/// # Source
/// Hsu et al., 2019 (FedAvgM), and Reddi et al., 2021 (the others, as of their algorithm 2).
///
/// ```
/// use locule_fobs::{Array, Map};
/// use locule_workflow::Optimizer;
///
/// let model = |x: f64| Map::from_iter([("w", Array::from(&[x][..]))]);
/// let mut momentum = Optimizer::momentum(1.0, 0.5);
/// let first = momentum.step(&model(0.0), &model(1.0))?;
/// assert_eq!(first, model(1.0));
/// assert_eq!(momentum.step(&first, &model(1.0))?, model(2.5)); // one and a half more
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Optimizer {
    method: Method,
    learning_rate: f64,
    state: BTreeMap<String, State>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Method {
    Momentum { beta: f64 },
    Adaptive { kind: Adaptive, beta1: f64, beta2: f64, tau: f64 },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Adaptive {
    Adagrad,
    Yogi,
    Adam,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct State {
    first: Vec<f64>,
    /// Empty with momentum.
    second: Vec<f64>,
}

impl Optimizer {
    /// FedAvgM.
    pub fn momentum(learning_rate: f64, beta: f64) -> Optimizer {
        Optimizer { method: Method::Momentum { beta }, learning_rate, state: BTreeMap::new() }
    }

    /// FedAdam.
    pub fn adam(args: FedAdamArgs) -> Optimizer {
        Optimizer::adaptive(Adaptive::Adam, args)
    }

    /// FedYogi.
    pub fn yogi(args: FedAdamArgs) -> Optimizer {
        Optimizer::adaptive(Adaptive::Yogi, args)
    }

    /// FedAdagrad.
    pub fn adagrad(args: FedAdagradArgs) -> Optimizer {
        let FedAdagradArgs { learning_rate, beta1, tau } = args;
        Optimizer::adaptive(Adaptive::Adagrad, FedAdamArgs { learning_rate, beta1, beta2: 0.0, tau })
    }

    fn adaptive(kind: Adaptive, args: FedAdamArgs) -> Optimizer {
        let FedAdamArgs { learning_rate, beta1, beta2, tau } = args;
        let method = Method::Adaptive { kind, beta1, beta2, tau };
        Optimizer { method, learning_rate, state: BTreeMap::new() }
    }

    /// The next model, of the same names, shapes and dtypes.
    ///
    /// # Errors
    /// Which array is missing, has another shape, or leaves the range of its dtype.
    pub fn step(&mut self, model: &Map, change: &Map) -> Result<Map, String> {
        let mut next = Map::new();
        for (name, value) in model.iter_str() {
            let array = value.as_array().ok_or_else(|| format!("{} is no array", Shown(name)))?;
            let change = change.get(name).and_then(Value::as_array);
            let change = change.filter(|change| change.shape() == array.shape());
            let change = change.ok_or_else(|| format!("{} is missing from the update", Shown(name)))?;
            let state = self.state.entry(name.to_owned()).or_default();
            let stepped = self.method.step(self.learning_rate, array.to_f64(), &change.to_f64(), state);
            let stepped = floats(array.shape(), array.dtype(), &stepped);
            next.insert(
                name,
                stepped.ok_or_else(|| format!("{} leaves the range of its dtype", Shown(name)))?,
            );
        }
        Ok(next)
    }

    /// What it remembers.
    pub(crate) fn state(&self) -> Map {
        let of = |numbers: &[f64]| Array::from(numbers);
        let one =
            |state: &State| Map::from_iter([("first", of(&state.first)), ("second", of(&state.second))]);
        self.state.iter().map(|(name, state)| (name.as_str(), one(state))).collect()
    }

    /// Remembers this instead; `None` where it is no such state.
    pub(crate) fn restore(&mut self, state: &Map) -> Option<()> {
        let of = |map: &Map, name: &str| Some(map.get(name)?.as_array()?.to_f64());
        let one = |value: &Value| {
            let map = value.as_map()?;
            Some(State { first: of(map, "first")?, second: of(map, "second")? })
        };
        let all = state.iter_str().map(|(name, value)| Some((name.to_owned(), one(value)?)));
        self.state = all.collect::<Option<_>>()?;
        Some(())
    }
}

impl Method {
    fn step(self, rate: f64, mut x: Vec<f64>, change: &[f64], state: &mut State) -> Vec<f64> {
        state.first.resize(x.len(), 0.0);
        match self {
            Method::Momentum { beta } => {
                for ((x, v), d) in x.iter_mut().zip(&mut state.first).zip(change) {
                    *v = beta * *v + d;
                    *x += rate * *v;
                }
            }
            Method::Adaptive { kind, beta1, beta2, tau } => {
                state.second.resize(x.len(), tau * tau);
                let moments = state.first.iter_mut().zip(&mut state.second);
                for ((x, (m, v)), d) in x.iter_mut().zip(moments).zip(change) {
                    let square = d * d;
                    *m = beta1 * *m + (1.0 - beta1) * d;
                    *v = match kind {
                        Adaptive::Adagrad => *v + square,
                        Adaptive::Yogi if *v == square => *v,
                        Adaptive::Yogi => *v - (1.0 - beta2) * square * (*v - square).signum(),
                        Adaptive::Adam => beta2 * *v + (1.0 - beta2) * square,
                    };
                    *x += rate * *m / (v.sqrt() + tau);
                }
            }
        }
        x
    }
}

/// `None` when an element is not finite in the dtype.
pub(crate) fn floats(shape: &[usize], dtype: Dtype, elements: &[f64]) -> Option<Array> {
    if dtype == Dtype::F32 {
        let elements: Vec<f32> = elements.iter().map(|&x| x as f32).collect();
        elements.iter().all(|x| x.is_finite()).then(|| Array::from_f32(shape, &elements).ok())?
    } else {
        elements.iter().all(|x| x.is_finite()).then(|| Array::from_f64(shape, elements).ok())?
    }
}

/// The optimiser that an argument names.
pub(crate) fn optimizer_of(child: &Child, cx: &BuildCx<'_>) -> Result<Optimizer, BuildError> {
    let optimizer = cx.take(child)?.into_service::<Optimizer>();
    let wrong = || BuildError::Argument {
        argument: "optimizer".to_owned(),
        reason: "expected one of `locule.workflow.FedAvgM`, `FedAdam`, `FedYogi`, `FedAdagrad`".to_owned(),
    };
    optimizer.map(|optimizer| Optimizer::clone(&optimizer)).ok_or_else(wrong)
}

/// Momentum at the server; see [`Optimizer`].
#[derive(Debug)]
pub struct FedAvgM;

/// Arguments of [`FedAvgM`].
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FedAvgMArgs {
    /// `η`, above 0.
    #[serde(default = "one")]
    pub learning_rate: f64,
    /// `β`, from 0 to below 1.
    #[serde(default = "nine_tenths")]
    pub momentum: f64,
}

/// Adam at the server; see [`Optimizer`].
#[derive(Debug)]
pub struct FedAdam;

/// Yogi at the server; see [`Optimizer`].
#[derive(Debug)]
pub struct FedYogi;

/// Arguments of [`FedAdam`] and [`FedYogi`].
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FedAdamArgs {
    /// `η`, above 0.
    #[serde(default = "tenth")]
    pub learning_rate: f64,
    /// `β₁`, from 0 to below 1.
    #[serde(default = "nine_tenths")]
    pub beta1: f64,
    /// `β₂`, from 0 to below 1.
    #[serde(default = "ninety_nine")]
    pub beta2: f64,
    /// `τ`, above 0: how far the step adapts.
    #[serde(default = "thousandth")]
    pub tau: f64,
}

/// Adagrad at the server; see [`Optimizer`].
#[derive(Debug)]
pub struct FedAdagrad;

/// Arguments of [`FedAdagrad`].
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FedAdagradArgs {
    /// `η`, above 0.
    #[serde(default = "tenth")]
    pub learning_rate: f64,
    /// `β₁`, from 0 to below 1.
    #[serde(default)]
    pub beta1: f64,
    /// `τ`, above 0: how far the step adapts.
    #[serde(default = "thousandth")]
    pub tau: f64,
}

fn one() -> f64 {
    1.0
}

fn tenth() -> f64 {
    0.1
}

fn nine_tenths() -> f64 {
    0.9
}

fn ninety_nine() -> f64 {
    0.99
}

fn thousandth() -> f64 {
    1e-3
}

fn above_zero(argument: &str, value: f64) -> Result<(), BuildError> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    let reason = "expected a finite number above 0".to_owned();
    Err(BuildError::Argument { argument: argument.to_owned(), reason })
}

fn decay(argument: &str, value: f64) -> Result<(), BuildError> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    let reason = "expected a number from 0 to below 1".to_owned();
    Err(BuildError::Argument { argument: argument.to_owned(), reason })
}

fn service(optimizer: Optimizer) -> Built {
    Built::Service(std::sync::Arc::new(optimizer))
}

impl Component for FedAvgM {
    const KIND: Kind = Kind::Service;
    const NAME: &'static str = "locule.workflow.FedAvgM";
    type Args = FedAvgMArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: FedAvgMArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        above_zero("learning_rate", args.learning_rate)?;
        decay("momentum", args.momentum)?;
        Ok(service(Optimizer::momentum(args.learning_rate, args.momentum)))
    }
}

fn checked(args: FedAdamArgs) -> Result<FedAdamArgs, BuildError> {
    above_zero("learning_rate", args.learning_rate)?;
    decay("beta1", args.beta1)?;
    decay("beta2", args.beta2)?;
    above_zero("tau", args.tau)?;
    Ok(args)
}

impl Component for FedAdam {
    const KIND: Kind = Kind::Service;
    const NAME: &'static str = "locule.workflow.FedAdam";
    type Args = FedAdamArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: FedAdamArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(service(Optimizer::adam(checked(args)?)))
    }
}

impl Component for FedYogi {
    const KIND: Kind = Kind::Service;
    const NAME: &'static str = "locule.workflow.FedYogi";
    type Args = FedAdamArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: FedAdamArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(service(Optimizer::yogi(checked(args)?)))
    }
}

impl Component for FedAdagrad {
    const KIND: Kind = Kind::Service;
    const NAME: &'static str = "locule.workflow.FedAdagrad";
    type Args = FedAdagradArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: FedAdagradArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        above_zero("learning_rate", args.learning_rate)?;
        decay("beta1", args.beta1)?;
        above_zero("tau", args.tau)?;
        Ok(service(Optimizer::adagrad(args)))
    }
}
