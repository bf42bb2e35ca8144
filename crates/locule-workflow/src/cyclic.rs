//! One model that goes from site to site.

use std::collections::BTreeMap;
use std::fs;

use locule_component::{
    BoxFuture, BuildCx, BuildError, Built, Component, Event, Fault, Kind, OutgoingTask, Progress, TaskBoard,
    Unusable, Workflow, WorkflowError,
};
use locule_fobs::{DataKind, Dxo, Map, Shareable};
use serde::Deserialize;

use crate::fed_avg::{
    AfterRound, ArraySpec, CURRENT_ROUND, check_rounds, combine, initial, metrics, not_a_state, wrong,
};
use crate::gather::{Attendance, TakeResult, dxo_of, gather};
use crate::mean::WeightedMean;
use crate::npz::{SaveError, save_npz};
use crate::record::{Metrics, Record, RoundRecord};

/// Hands the model from site to site: each trains what the one before it made (cyclic weight transfer, Chang et al.,
/// 2018).
///
/// A round takes it to every site once, in [`CyclicArgs::order`]. A site gets the model as a DXO of kind `WEIGHTS` with the task
/// [`CyclicArgs::task_name`]; its `WEIGHTS` replace the model, its `WEIGHT_DIFF` is added. A site that is away, fails or
/// returns what is not usable is passed over, and the model goes on from the site before it.
///
/// Models and records lie where [`FedAvg`](crate::FedAvg) keeps them. Two models are in memory, three while one takes
/// the place of another.
///
/// ```
/// # use locule_component::{ExecuteError, Executor, Task, TaskCx};
/// # use locule_fobs::{Array, Shareable};
/// use locule_workflow::{Cyclic, LocalBoard, load_npz};
///
/// /// Doubles the weight and adds a number of its own.
/// struct Doubles(f64);
/// # impl Executor for Doubles {
/// #     fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
/// #         let mut dxo = task.data.dxo().ok().flatten().ok_or(ExecuteError::BadTask("no model".into()))?;
/// #         let w = dxo.data.get("w").and_then(|w| w.as_array()).map_or(0.0, |w| w.to_f64()[0]);
/// #         dxo.data.insert("w", Array::from(&[2.0 * w + self.0][..]));
/// #         Ok(Shareable::with_dxo(dxo))
/// #     }
/// # }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let mut board = LocalBoard::new(folder.path());
/// board.add_site("north", Box::new(Doubles(1.0)));
/// board.add_site("south", Box::new(Doubles(10.0)));
/// let args = serde_json::json!({ "num_rounds": 1, "model": { "w": { "shape": [1] } } });
/// board.run(&mut Cyclic::new(serde_json::from_value(args)?)?)?;
/// let model = load_npz(&folder.path().join("models/global.npz"))?;
/// assert_eq!(model.get("w").and_then(|w| w.as_array()).map(|w| w.to_f64()[0]), Some(12.0)); // 2 * (2 * 0 + 1) + 10
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Cyclic {
    args: CyclicArgs,
    model: Map,
    record: Record,
    after_round: Option<AfterRound>,
}

/// Arguments of [`Cyclic`].
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CyclicArgs {
    /// Sites that a round needs; 0 means all of the job.
    #[serde(default)]
    pub min_clients: usize,
    /// How many rounds to run.
    #[serde(default = "five")]
    pub num_rounds: u64,
    /// Number of the first round.
    #[serde(default)]
    pub start_round: u64,
    /// What the sites are asked to do.
    #[serde(default = "train")]
    pub task_name: String,
    /// The model to begin with. Without one the first site gets an empty model, and begins with its own.
    #[serde(default)]
    pub model: BTreeMap<String, ArraySpec>,
    /// In which order the sites get it.
    #[serde(default)]
    pub order: Order,
    /// The sites, in this order; sites that are not named take no part. It goes before [`CyclicArgs::order`].
    #[serde(default)]
    pub sites: Vec<String>,
    /// For random orders: the same seed gives the same orders.
    #[serde(default)]
    pub seed: u64,
}

/// In which order the sites of a round get the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// That of their names.
    #[default]
    Fixed,
    /// Another one in every round.
    Random,
    /// Another one in every round, in which the last of one round is not the first of the next.
    RandomWithoutSameInARow,
}

fn five() -> u64 {
    5
}

fn train() -> String {
    "train".to_owned()
}

impl Component for Cyclic {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "locule.workflow.Cyclic";
    type Args = CyclicArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: CyclicArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Cyclic::new(args).map(|workflow| Built::Workflow(Box::new(workflow)))
    }
}

impl Cyclic {
    /// With the model that the arguments describe.
    ///
    /// # Errors
    /// [`BuildError::Argument`] names the argument that makes no sense.
    pub fn new(args: CyclicArgs) -> Result<Cyclic, BuildError> {
        check_rounds(args.num_rounds, args.start_round)?;
        if args.task_name.is_empty() {
            return Err(wrong("task_name", "a task needs a name"));
        }
        let model = initial(&args.model)?;
        Ok(Cyclic { args, model, record: Record::default(), after_round: None })
    }

    /// Begins with this model instead of the one that the arguments describe.
    pub fn starting_from(mut self, model: Map) -> Cyclic {
        self.model = model;
        self
    }

    /// Calls this with the model of every round, before it is said to be over.
    pub fn after_round(mut self, call: AfterRound) -> Cyclic {
        self.after_round = Some(call);
        self
    }

    async fn rounds(&mut self, board: &dyn TaskBoard) -> Result<(), WorkflowError> {
        let folder = board.run_dir().join("models");
        fs::create_dir_all(&folder).map_err(|source| WorkflowError::File { path: folder.clone(), source })?;
        board.announce(Event::TrainingStarted).await;
        let mut relay = Relay::new(&self.args);
        let next = match board.restore().await? {
            Some(state) => self.take_up(&state, &mut relay).ok_or_else(not_a_state)?,
            None => {
                board.checkpoint(self.state(self.args.start_round, &relay)).await?;
                self.args.start_round
            }
        };
        let end = self.args.start_round + self.args.num_rounds;
        for round in next..end {
            board.report(Progress::RoundStarted { round, rounds: end });
            board.announce(Event::RoundStarted { round }).await;
            let sites = self.round(board, round, relay.next(board.sites())).await?;
            board.announce(Event::BeforeSaveModel).await;
            let saved = folder.join(format!("round-{:04}.npz", round + 1));
            for path in [&saved, &folder.join("global.npz")] {
                save_npz(path, &self.model).map_err(SaveError::into_workflow_error)?;
            }
            if let Some(after_round) = &mut self.after_round {
                after_round.call(round + 1 - self.args.start_round, &self.model, board.run_dir())?;
            }
            board.announce(Event::AfterSaveModel).await;
            board.report(Progress::RoundFinished { round, rounds: end, sites, model: saved });
            board.announce(Event::RoundDone { round }).await;
            board.checkpoint(self.state(round + 1, &relay)).await?;
        }
        board.report(Progress::ModelSaved { path: folder.join("global.npz") });
        Ok(())
    }

    /// All from which the run can go on with this round.
    fn state(&self, next: u64, relay: &Relay) -> Map {
        let mut state = Map::from_iter([("next", next)]);
        state.insert("random", relay.random.0.to_string());
        if let Some(last) = &relay.last {
            state.insert("last", last.as_str());
        }
        state.insert("model", self.model.clone());
        state.insert("record", self.record.state());
        state
    }

    /// Goes on from such a state, with the round that it names; `None` where it is none.
    fn take_up(&mut self, state: &Map, relay: &mut Relay) -> Option<u64> {
        self.model = state.map("model")?.clone();
        self.record.restore(state.map("record")?)?;
        relay.random = Random(state.str("random")?.parse().ok()?);
        relay.last = state.str("last").map(str::to_owned);
        u64::try_from(state.int("next")?).ok()
    }

    /// Hands the model to one site after the other.
    async fn round(
        &mut self,
        board: &dyn TaskBoard,
        round: u64,
        order: Vec<String>,
    ) -> Result<Vec<(String, Metrics)>, WorkflowError> {
        let needed = if self.args.min_clients == 0 { order.len().max(1) } else { self.args.min_clients };
        let mut attendance = Attendance::default();
        let mut sites = Vec::new();
        for site in order {
            if board.is_aborted() {
                return Err(WorkflowError::Aborted);
            }
            let mut hop = Hop { model: &self.model, next: None };
            let task = OutgoingTask {
                name: self.args.task_name.clone(),
                data: self.task_data(round),
                sites: vec![site.clone()],
                round: Some(round),
                ..OutgoingTask::default()
            };
            match gather(board, task, &mut hop).await {
                Ok(_) => {}
                Err(WorkflowError::TooFewResults { missing, .. }) => attendance.missing.extend(missing),
                Err(error) => return Err(error),
            }
            if let Some((model, metrics)) = hop.next {
                board.announce(Event::BeforeModelUpdate).await;
                self.model = model;
                board.announce(Event::AfterModelUpdate).await;
                attendance.accepted.push(site.clone());
                sites.push((site, 1.0, metrics));
            }
        }
        let (best, stopped) = (None, None);
        let record = RoundRecord { round, attendance: &attendance, sites: &sites, means: &[], best, stopped };
        self.record.add(board.run_dir(), &record)?;
        let accepted = attendance.accepted.len();
        if accepted < needed {
            let (task, missing) = (self.args.task_name.clone(), attendance.missing);
            return Err(WorkflowError::TooFewResults { task, round: Some(round), accepted, needed, missing });
        }
        Ok(sites.into_iter().map(|(site, _, metrics)| (site, metrics)).collect())
    }

    fn task_data(&self, round: u64) -> Shareable {
        let mut data = Shareable::with_dxo(Dxo::new(DataKind::Weights, self.model.clone()));
        data.set_header(CURRENT_ROUND, round);
        data.set_header("num_rounds", self.args.num_rounds);
        data.set_header("start_round", self.args.start_round);
        data
    }
}

impl Workflow for Cyclic {
    fn prepare<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(async {
            board.announce(Event::InitialModelLoaded).await;
            Ok(())
        })
    }

    fn run<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(self.rounds(board))
    }
}

/// Who follows whom.
struct Relay {
    order: Order,
    named: Vec<String>,
    random: Random,
    last: Option<String>,
}

impl Relay {
    fn new(args: &CyclicArgs) -> Relay {
        let random = Random(args.seed);
        Relay { order: args.order, named: args.sites.clone(), random, last: None }
    }

    fn next(&mut self, mut present: Vec<String>) -> Vec<String> {
        if !self.named.is_empty() {
            return self.named.clone();
        }
        if self.order != Order::Fixed {
            self.random.shuffle(&mut present);
        }
        if self.order == Order::RandomWithoutSameInARow
            && present.len() > 1
            && present.first() == self.last.as_ref()
        {
            present.rotate_left(1);
        }
        self.last = present.last().cloned();
        present
    }
}

/// SplitMix64 (Steele et al., 2014): a seed gives the same orders in every version.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn shuffle(&mut self, sites: &mut [String]) {
        for last in (1..sites.len()).rev() {
            let other = self.next() % (last as u64 + 1);
            sites.swap(last, other as usize);
        }
    }
}

/// What one site makes of the model.
struct Hop<'a> {
    model: &'a Map,
    next: Option<(Map, Metrics)>,
}

impl TakeResult for Hop<'_> {
    fn take(&mut self, _: &str, result: &Shareable) -> Result<(), Unusable> {
        let dxo = dxo_of(result)?;
        let mut like =
            if self.model.is_empty() { WeightedMean::new() } else { WeightedMean::like(self.model)? };
        like.check(&dxo.data, 1.0)?;
        let model = if dxo.kind == DataKind::Weights {
            dxo.data.clone()
        } else if dxo.kind == DataKind::WeightDiff {
            let sum = combine(self.model, &dxo.data, |a, b| a + b);
            sum.map_err(|reason| Unusable::new(Fault::NotFinite, reason))?
        } else {
            return Err(format!("expected weights, found a DXO of kind {}", dxo.kind).into());
        };
        self.next = Some((model, metrics(&dxo)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(order: Order, sites: &[&str]) -> Relay {
        let sites = sites.iter().map(|site| (*site).to_owned()).collect();
        Relay { order, named: sites, random: Random(7), last: None }
    }

    fn sites() -> Vec<String> {
        ["a", "b", "c", "d"].map(str::to_owned).to_vec()
    }

    #[test]
    fn nobody_is_first_after_having_been_last() {
        let mut relay = relay(Order::RandomWithoutSameInARow, &[]);
        let mut seen = std::collections::BTreeSet::new();
        let mut last = String::new();
        for _ in 0..200 {
            let round = relay.next(sites());
            assert_ne!(round[0], last);
            last = round[3].clone();
            let mut all = round.clone();
            all.sort();
            assert_eq!(all, sites(), "everyone once");
            seen.insert(round);
        }
        assert!(seen.len() > 20, "of 24 orders");
    }

    /// The numbers are those of the authors' C for the seed 1234567.
    #[test]
    fn random_numbers_are_splitmix64() {
        let mut random = Random(1_234_567);
        let numbers = [(); 3].map(|()| random.next());
        assert_eq!(numbers, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn a_fixed_order_is_that_of_names_and_a_list_its_own() {
        assert_eq!(relay(Order::Fixed, &[]).next(sites()), sites());
        assert_eq!(relay(Order::Random, &["c", "a"]).next(sites()), ["c", "a"]);
    }
}
