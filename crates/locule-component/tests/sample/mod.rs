//! A registry of small components.

use std::collections::BTreeMap;

use locule_component::*;
use locule_fobs::{Shareable, Value};
use serde::Deserialize;

pub(crate) fn registry() -> Registry {
    let mut registry = Registry::new();
    registry
        .register::<Trainer>()
        .register::<Clip>()
        .register::<Average>()
        .register::<Recorder>()
        .register::<Guard>();
    registry
}

/// Answers with its label, and what its filters make of it.
pub(crate) struct Trainer {
    label: String,
    inner: Vec<Box<dyn TaskFilter>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainerArgs {
    #[serde(default)]
    label: String,
    #[serde(default)]
    #[expect(dead_code, reason = "only its type matters")]
    delta: f64,
    #[serde(default)]
    #[expect(dead_code, reason = "only its type matters")]
    layers: Vec<Layer>,
    #[serde(default)]
    #[expect(dead_code, reason = "only its type matters")]
    notes: BTreeMap<String, serde_json::Value>,
    clip: Option<Child>,
    #[serde(default)]
    clips: Vec<Child>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Layer {
    #[expect(dead_code, reason = "only its type matters")]
    size: u32,
}

impl Component for Trainer {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "sample.Trainer";
    const ALIASES: &'static [&'static str] = &["nvflare.app_common.np.np_trainer.NPTrainer"];
    type Args = TrainerArgs;

    fn build(args: TrainerArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        if args.label == "panic" {
            panic!("planted");
        }
        if args.label == "missing" {
            return Err(BuildError::Unavailable("there is no data here".to_owned()));
        }
        let mut inner = Vec::new();
        for child in args.clip.iter().chain(&args.clips) {
            let Built::Filter(filter) = cx.take(child)? else {
                return Err(BuildError::Unavailable("the argument is no filter".to_owned()));
            };
            inner.push(filter);
        }
        Ok(Built::Executor(Box::new(Trainer { label: args.label, inner })))
    }
}

impl Executor for Trainer {
    fn execute(&mut self, task: &Task, cx: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        let mut data = task.data.clone();
        data.set_header("by", Value::from(self.label.as_str()));
        let filter_cx = FilterCx {
            site: cx.site,
            job_id: cx.job_id,
            task: &task.name,
            chain: Chain::TaskData,
            direction: Direction::In,
            context: cx.context,
        };
        for filter in &mut self.inner {
            data = filter.apply(data, &filter_cx).map_err(|error| ExecuteError::Failed(error.to_string()))?;
        }
        Ok(data)
    }
}

/// Appends its mark to the header `marks`.
pub(crate) struct Clip {
    mark: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClipArgs {
    mark: String,
}

impl Component for Clip {
    const KIND: Kind = Kind::Filter;
    const NAME: &'static str = "sample.Clip";
    type Args = ClipArgs;

    fn build(args: ClipArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Filter(Box::new(Clip { mark: args.mark })))
    }
}

impl TaskFilter for Clip {
    fn apply(&mut self, mut data: Shareable, _: &FilterCx<'_>) -> Result<Shareable, FilterError> {
        if self.mark == "block" {
            return Err(FilterError::Blocked("planted".to_owned()));
        }
        let marks = data.header("marks").and_then(Value::as_str).unwrap_or_default();
        let marks = format!("{marks}{}", self.mark);
        data.set_header("marks", Value::from(marks));
        Ok(data)
    }
}

pub(crate) struct Average;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoArgs {}

impl Component for Average {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "sample.Average";
    type Args = NoArgs;

    fn build(_: NoArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Workflow(Box::new(Average)))
    }
}

impl Workflow for Average {
    fn run<'a>(&'a mut self, _: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

pub(crate) struct Recorder;

impl Component for Recorder {
    const KIND: Kind = Kind::Observer;
    const NAME: &'static str = "sample.Recorder";
    type Args = NoArgs;

    fn build(_: NoArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Observer(Box::new(Recorder)))
    }
}

impl Observer for Recorder {
    fn observe(&self, _: &Event<'_>, _: &EventCx<'_>) -> Result<(), ObserveError> {
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Guard;

impl Component for Guard {
    const KIND: Kind = Kind::Checker;
    const NAME: &'static str = "sample.Guard";
    type Args = NoArgs;

    fn build(_: NoArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Checker(std::sync::Arc::new(Guard)))
    }
}

impl Checker for Guard {
    fn id(&self) -> &str {
        "guard"
    }

    fn review_plan(&self, _: &PlanReview<'_>) -> Result<Vec<Verdict>, CheckerError> {
        Ok(Vec::new())
    }
}
