//! What the server runs in these tests: sums of what its sites send.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use locule_component::{
    BuildCx, BuildError, Built, Component, Kind, Late, OutgoingTask, Progress, Registry, ResultSink,
    TaskBoard, Unusable, Workflow, WorkflowError,
};
use locule_fobs::Shareable;
use serde::Deserialize;

/// How many sums were ever constructed with this tag.
pub(crate) static BUILT_REFUSED: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<Sum>().register::<Panics>().register::<Refused>();
    registry.register::<locule_policy::RefuseComponents>();
    registry
}

/// Asks every site for a number, round after round, and keeps the sum of each.
struct Sum {
    args: SumArgs,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SumArgs {
    #[serde(default = "one")]
    rounds: u64,
    #[serde(default)]
    min_results: usize,
    #[serde(default)]
    grace: u64,
    #[serde(default)]
    late: Late,
}

fn one() -> u64 {
    1
}

impl Component for Sum {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "test.Sum";
    type Args = SumArgs;

    fn build(args: SumArgs, _cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Workflow(Box::new(Sum { args })))
    }
}

impl Workflow for Sum {
    fn run<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(async move {
            let rounds = self.args.rounds;
            for round in 0..rounds {
                board.report(Progress::RoundStarted { round, rounds });
                let mut data = Shareable::new();
                data.fields.insert("round", round);
                let task = OutgoingTask {
                    name: "number".into(),
                    data,
                    sites: Vec::new(),
                    min_results: self.args.min_results,
                    grace: Duration::from_secs(self.args.grace),
                    round: Some(round),
                    late: self.args.late,
                    ..OutgoingTask::default()
                };
                let mut numbers = Numbers::default();
                board.broadcast(task, &mut numbers).await?;
                let model = board.run_dir().join(format!("sum-{round}.txt"));
                let total: i64 = numbers.0.iter().map(|(_, number)| number).sum();
                let written = std::fs::write(&model, total.to_string());
                written.map_err(|source| WorkflowError::File { path: model.clone(), source })?;
                let metrics =
                    |number| vec![("number".to_owned(), number as f64), ("loss".to_owned(), f64::NAN)];
                let sites = numbers.0.into_iter().map(|(site, number)| (site, metrics(number))).collect();
                board.report(Progress::RoundFinished { round, rounds, sites, model });
            }
            Ok(())
        })
    }
}

#[derive(Default)]
struct Numbers(Vec<(String, i64)>);

impl ResultSink for Numbers {
    fn accept(&mut self, site: &str, result: &Shareable) -> Result<(), Unusable> {
        let number = result.fields.int("number").ok_or_else(|| "it has no number".to_owned())?;
        self.0.push((site.to_owned(), number));
        Ok(())
    }

    fn accept_late(&mut self, site: &str, result: &Shareable) -> Result<(), Unusable> {
        self.accept(site, result)
    }
}

/// Panics when it is run.
struct Panics;

#[derive(Deserialize)]
struct NoArgs {}

impl Component for Panics {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "test.Panics";
    type Args = NoArgs;

    fn build(_: NoArgs, _cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Workflow(Box::new(Panics)))
    }
}

impl Workflow for Panics {
    fn run<'a>(&'a mut self, _: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(async { panic!("seven is not a prime here") })
    }
}

/// Counts how often it is constructed, which should be never.
struct Refused;

impl Component for Refused {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "test.Refused";
    type Args = NoArgs;

    fn build(_: NoArgs, _cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        BUILT_REFUSED.fetch_add(1, Ordering::SeqCst);
        Ok(Built::Workflow(Box::new(Panics)))
    }
}
