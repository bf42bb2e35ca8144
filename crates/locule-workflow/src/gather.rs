//! A broadcast whose refusals are remembered, so that a failure can say which site lacked what.

use locule_component::{OutgoingTask, ResultSink, TaskBoard, WorkflowError};
use locule_fobs::{Dxo, Shareable, header};

use crate::mean::Shown;

/// Takes one good result after the other, in site order.
pub(crate) trait TakeResult: Send {
    /// The error says why the result is not usable; nothing has been taken then.
    fn take(&mut self, site: &str, result: &Shareable) -> Result<(), String>;
}

/// Puts up a task and hands every result that reports success to `sink`.
///
/// # Errors
/// As [`TaskBoard::broadcast`]; where too few results are usable, the text names the sites and the reasons.
pub(crate) async fn gather(
    board: &dyn TaskBoard,
    task: OutgoingTask,
    sink: &mut dyn TakeResult,
) -> Result<(), WorkflowError> {
    let (name, round) = (task.name.clone(), task.round);
    let asked = board.sites().iter().filter(|site| task.is_for(site)).count();
    let needed = if task.min_results == 0 { asked } else { task.min_results };
    let mut results = Results { sink, task: &name, round, accepted: 0, refused: Vec::new() };
    let outcome = board.broadcast(task, &mut results).await;
    let Results { accepted, refused, .. } = results;
    match outcome {
        Ok(gathered) if accepted >= needed => {
            tracing::debug!(
                task = name,
                round,
                accepted,
                missing = gathered.missing.len(),
                "results gathered"
            );
            Ok(())
        }
        Ok(gathered) => Err(too_few(name, round, accepted, needed, &refused, &gathered.missing)),
        Err(WorkflowError::TooFewResults { needed, .. }) => {
            Err(too_few(name, round, accepted, needed, &refused, &[]))
        }
        Err(error) => Err(error),
    }
}

/// Why the task failed: every refused site with its reason, then the sites that sent nothing.
fn too_few(
    task: String,
    round: Option<u64>,
    accepted: usize,
    needed: usize,
    refused: &[(String, String)],
    missing: &[String],
) -> WorkflowError {
    let silent = missing.iter().filter(|site| !refused.iter().any(|(refused, _)| refused == *site));
    let reasons: Vec<String> = refused
        .iter()
        .map(|(site, reason)| format!("{site}: {reason}"))
        .chain(silent.map(|site| format!("{site}: no result")))
        .collect();
    if reasons.is_empty() {
        return WorkflowError::TooFewResults { task, accepted, needed };
    }
    let round = round.map(|round| format!(" of round {round}")).unwrap_or_default();
    let reasons = reasons.join("; ");
    WorkflowError::Failed(format!(
        "task `{task}`{round} has {accepted} of {needed} usable results ({reasons})"
    ))
}

struct Results<'a> {
    sink: &'a mut dyn TakeResult,
    task: &'a str,
    round: Option<u64>,
    accepted: usize,
    /// Site and reason.
    refused: Vec<(String, String)>,
}

impl ResultSink for Results<'_> {
    fn accept(&mut self, site: &str, result: &Shareable) -> Result<(), String> {
        let taken = success(result).and_then(|()| self.sink.take(site, result));
        match &taken {
            Ok(()) => self.accepted += 1,
            Err(reason) => {
                tracing::warn!(
                    site,
                    task = self.task,
                    round = self.round,
                    error = reason,
                    "result not usable"
                );
                self.refused.push((site.to_owned(), reason.clone()));
            }
        }
        taken
    }
}

fn success(result: &Shareable) -> Result<(), String> {
    let code = result.return_code();
    if code == "OK" {
        return Ok(());
    }
    let code = Shown(code);
    Err(match result.headers.str(header::ERROR) {
        Some(error) => format!("the site answered {code}: {}", Shown(error)),
        None => format!("the site answered {code}"),
    })
}

/// The DXO that a result must hold.
pub(crate) fn dxo_of(result: &Shareable) -> Result<Dxo, String> {
    match result.dxo() {
        Ok(Some(dxo)) => Ok(dxo),
        Ok(None) => Err("it holds no DXO".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
