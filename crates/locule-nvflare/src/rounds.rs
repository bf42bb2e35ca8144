//! What the workflows of rounds have in common.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use locule_component::{BuildCx, Event, Fault, OutgoingTask, TaskBoard, WorkflowError};
use locule_fobs::{Map, Value};
use locule_workflow::{SaveError, save_npz};
use serde_json::Value as Json;

use crate::metrics::Metrics;
use crate::metrics_writer::Weighing;
use crate::persistor::{self, Persistor};
use crate::round::{Folded, Round, Rules};
use crate::{IntimeModelSelector, MetricsArtifactWriter, arrays};

/// The services of a job that attend its rounds.
#[derive(Debug, Default)]
pub(crate) struct Attendants {
    pub(crate) persistor: Option<Arc<dyn Persistor>>,
    selectors: Vec<Arc<IntimeModelSelector>>,
    writers: Vec<Arc<MetricsArtifactWriter>>,
}

/// A round that is over.
pub(crate) struct Settled {
    pub(crate) model: Map,
    /// Means of the sites' metrics.
    pub(crate) metrics: Option<Metrics>,
    /// For every accepted site its metrics, by name.
    pub(crate) sites: Vec<(String, Vec<(String, f64)>)>,
    /// Where the model lies.
    pub(crate) saved: PathBuf,
}

impl Attendants {
    pub(crate) fn find(cx: &BuildCx<'_>, persistor_id: &str) -> Attendants {
        Attendants {
            persistor: persistor::find(cx, persistor_id),
            selectors: cx.services::<IntimeModelSelector>().map(|(_, selector)| selector).collect(),
            writers: cx.services::<MetricsArtifactWriter>().map(|(_, writer)| writer).collect(),
        }
    }

    /// Puts up the task of a round and makes a new model of the results and the model that the sites were given. The
    /// caller says when the model is saved everywhere.
    pub(crate) async fn round(
        &self,
        board: &dyn TaskBoard,
        task: OutgoingTask,
        rules: Rules<'_>,
        weighing: Weighing,
        key_metric: Option<&Json>,
        model: Map,
    ) -> Result<Settled, WorkflowError> {
        let round = task.round.unwrap_or_default();
        let selections = self.selectors.iter().map(|selector| selector.selection(round)).collect();
        let records = self.writers.iter().map(|writer| writer.round(weighing)).collect();
        let mut results = Round::new(rules, selections, records);
        let failed = |reason: &str| WorkflowError::Failed(format!("round {round}: {reason}"));
        match board.broadcast(task, &mut results).await {
            Ok(_) => {}
            Err(WorkflowError::Aborted) => return Err(WorkflowError::Aborted),
            Err(error) => match results.failure() {
                Some(reason) => return Err(failed(&reason)),
                None if have_answered(&error) => {
                    tracing::warn!(job = board.job_id(), round, %error, "the round goes on with what is usable");
                }
                None => return Err(error),
            },
        }
        board.announce(Event::BeforeAggregation).await;
        let folded = results.finish().map_err(|reason| failed(&reason))?;
        let Folded { update, is_difference, metrics, sites, selections, records } = folded;

        let folder = models(board.run_dir())?;
        let judged = self.selectors.iter().zip(selections);
        if judged.filter(|(selector, selection)| selector.judge(selection)).count() > 0 {
            // What sites make their first model of need not be arrays.
            if model.iter().all(|(_, value)| value.as_array().is_some()) {
                save(&folder.join("best.npz"), &model)?;
            }
            board.announce(Event::GlobalBestModelAvailable).await;
        }
        board.announce(Event::AfterAggregation).await;
        // Metrics that cannot be written are no reason to end a job.
        for (writer, records) in self.writers.iter().zip(records) {
            if let Err(error) =
                writer.write_round(board.run_dir(), round, &records, metrics.as_ref(), key_metric)
            {
                tracing::warn!(job = board.job_id(), round, %error, "metrics not written");
            }
        }
        board.announce(Event::BeforeModelUpdate).await;
        let model = if is_difference { sum(model, &update)? } else { update };
        board.announce(Event::AfterModelUpdate).await;
        board.announce(Event::BeforeSaveModel).await;
        let saved = folder.join(format!("round-{:04}.npz", round + 1));
        save(&saved, &model)?;
        save(&folder.join("global.npz"), &model)?;
        Ok(Settled { model, metrics, sites, saved })
    }

    /// Keeps all from which the run can go on with this round; none where it has stopped early.
    pub(crate) async fn checkpoint(
        &self,
        board: &dyn TaskBoard,
        next: Option<u64>,
        mut state: Map,
    ) -> Result<(), WorkflowError> {
        if let Some(next) = next {
            state.insert("next", next);
        }
        let selectors = self.selectors.iter().map(|selector| Value::Map(selector.state()));
        state.insert("selectors", selectors.collect::<Vec<_>>());
        let writers = self.writers.iter().map(|writer| Value::Map(writer.state(board.run_dir())));
        state.insert("writers", writers.collect::<Vec<_>>());
        board.checkpoint(state).await
    }

    /// Goes on from what was kept, if the run had been broken off: the round to go on with, unless it has stopped early,
    /// and what the workflow kept of its own, which `take_up` reads.
    pub(crate) async fn restore<T>(
        &self,
        board: &dyn TaskBoard,
        take_up: impl FnOnce(&Map) -> Option<T>,
    ) -> Result<Option<(Option<u64>, T)>, WorkflowError> {
        let Some(state) = board.restore().await? else { return Ok(None) };
        let read = || {
            for (selector, state) in self.selectors.iter().zip(state.list("selectors")?) {
                selector.restore(state.as_map()?);
            }
            for (writer, state) in self.writers.iter().zip(state.list("writers")?) {
                writer.restore(board.run_dir(), state.as_map()?)?;
            }
            let next = state.int("next").map(u64::try_from).transpose().ok()?;
            Some((next, take_up(&state)?))
        };
        let wrong = "the state that was kept of the run is not one of this workflow";
        read().map(Some).ok_or_else(|| WorkflowError::Failed(wrong.to_owned()))
    }

    /// The rounds are over.
    pub(crate) fn finish(&self, board: &dyn TaskBoard) {
        for writer in &self.writers {
            let choice = self.selectors.iter().find_map(|selector| selector.choice());
            if let Err(error) = writer.write_summary(board.run_dir(), board.job_id(), choice) {
                tracing::warn!(job = board.job_id(), %error, "summary of metrics not written");
            }
        }
    }
}

/// Whether as many sites answered as were to, though not all with something usable, and some did: nvflare counts
/// answers.
fn have_answered(error: &WorkflowError) -> bool {
    let WorkflowError::TooFewResults { accepted, needed, missing, .. } = error else { return false };
    let unusable = missing.iter().filter(|(_, unusable)| unusable.fault != Fault::Absent).count();
    *accepted > 0 && accepted + unusable >= *needed
}

/// Our models' folder, made if it is not there.
pub(crate) fn models(run_dir: &Path) -> Result<PathBuf, WorkflowError> {
    let folder = run_dir.join("models");
    fs::create_dir_all(&folder).map_err(|source| WorkflowError::File { path: folder.clone(), source })?;
    Ok(folder)
}

/// Adds differences to the arrays of the same names; the others stay.
fn sum(mut model: Map, differences: &Map) -> Result<Map, WorkflowError> {
    for (name, difference) in differences.iter_str() {
        let failed =
            |what: &str| WorkflowError::Failed(format!("the difference of `{}` {what}", name.escape_debug()));
        let (Some(array), Some(difference)) =
            (model.get(name).and_then(Value::as_array), difference.as_array())
        else {
            return Err(failed("belongs to no array of the model"));
        };
        let sum = arrays::plus(array, difference).ok_or_else(|| {
            failed("has another shape than the array, or leads out of the range of its dtype")
        })?;
        model.insert(name, sum);
    }
    Ok(model)
}

/// Writes a model as an NPZ file.
pub(crate) fn save(path: &Path, model: &Map) -> Result<(), WorkflowError> {
    save_npz(path, model).map_err(|error| {
        if let SaveError::File { path, source } = error {
            WorkflowError::File { path, source }
        } else {
            WorkflowError::Failed(error.to_string())
        }
    })
}
