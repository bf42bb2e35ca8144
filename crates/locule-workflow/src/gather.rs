//! A broadcast of which it is remembered who took part.

use locule_component::{Fault, OutgoingTask, ResultSink, TaskBoard, Unusable, WorkflowError};
use locule_fobs::{Dxo, Shareable, header};

use crate::mean::Shown;

/// Takes one good result after the other, in site order.
pub(crate) trait TakeResult: Send {
    /// The error says why the result is not usable; nothing has been taken then.
    fn take(&mut self, site: &str, result: &Shareable) -> Result<(), Unusable>;

    /// Takes the late result of an earlier task.
    fn take_late(&mut self, site: &str, result: &Shareable) -> Result<(), Unusable> {
        let _ = (site, result);
        Err(Unusable::new(Fault::Late, "it is late"))
    }
}

/// Who took part in a task.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Attendance {
    /// Sites whose results were taken, in the order taken.
    pub(crate) accepted: Vec<String>,
    /// Sites whose results of an earlier task were taken too.
    pub(crate) late: Vec<String>,
    /// Sites without a usable result, and why.
    pub(crate) missing: Vec<(String, Unusable)>,
}

/// Puts up a task and hands every result that reports success to `sink`.
///
/// # Errors
/// As [`TaskBoard::broadcast`].
pub(crate) async fn gather(
    board: &dyn TaskBoard,
    task: OutgoingTask,
    sink: &mut dyn TakeResult,
) -> Result<Attendance, WorkflowError> {
    let (name, round) = (task.name.clone(), task.round);
    let mut results = Results { sink, task: &name, round, attendance: Attendance::default() };
    let gathered = board.broadcast(task, &mut results).await?;
    let mut attendance = results.attendance;
    attendance.missing = gathered.missing;
    let Attendance { accepted, late, missing } = &attendance;
    let (accepted, late, missing) = (accepted.len(), late.len(), missing.len());
    tracing::debug!(task = name, round, accepted, late, missing, "results gathered");
    Ok(attendance)
}

struct Results<'a> {
    sink: &'a mut dyn TakeResult,
    task: &'a str,
    round: Option<u64>,
    attendance: Attendance,
}

impl ResultSink for Results<'_> {
    fn accept(&mut self, site: &str, result: &Shareable) -> Result<(), Unusable> {
        let taken = success(result).and_then(|()| self.sink.take(site, result));
        match &taken {
            Ok(()) => self.attendance.accepted.push(site.to_owned()),
            Err(unusable) => {
                let (task, round, code) = (self.task, self.round, unusable.fault.code());
                tracing::warn!(site, task, round, code, error = unusable.reason, "result not usable");
            }
        }
        taken
    }

    fn accept_late(&mut self, site: &str, result: &Shareable) -> Result<(), Unusable> {
        success(result).and_then(|()| self.sink.take_late(site, result))?;
        self.attendance.late.push(site.to_owned());
        Ok(())
    }
}

fn success(result: &Shareable) -> Result<(), Unusable> {
    let code = result.return_code();
    if code == "OK" {
        return Ok(());
    }
    let code = Shown(code);
    let reason = match result.headers.str(header::ERROR) {
        Some(error) => format!("the site answered {code}: {}", Shown(error)),
        None => format!("the site answered {code}"),
    };
    Err(Unusable::new(Fault::Failed, reason))
}

/// The DXO that a result must hold.
pub(crate) fn dxo_of(result: &Shareable) -> Result<Dxo, Unusable> {
    match result.dxo() {
        Ok(Some(dxo)) => Ok(dxo),
        Ok(None) => Err(Unusable::new(Fault::Content, "it holds no DXO")),
        Err(error) => Err(Unusable::new(Fault::Content, error.to_string())),
    }
}
