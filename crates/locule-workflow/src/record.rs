//! What happened in the rounds of a run, for people and programs: a JSON and a CSV file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use locule_component::WorkflowError;
use locule_fobs::Map;
use serde_json::{Map as Object, Value as Json, json};

use crate::gather::Attendance;

/// Metrics of one site, by name.
pub(crate) type Metrics = Vec<(String, f64)>;

/// The rounds of a run so far, in `rounds.json` and `metrics.csv` of its folder.
#[derive(Debug, Default)]
pub(crate) struct Record {
    rounds: Vec<Json>,
    csv: String,
}

/// One round, as the record has it.
#[derive(Debug)]
pub(crate) struct RoundRecord<'a> {
    pub(crate) round: u64,
    pub(crate) attendance: &'a Attendance,
    /// Every accepted site, its weight in the mean, and its metrics.
    pub(crate) sites: &'a [(String, f64, Metrics)],
    /// Weighted means of the metrics.
    pub(crate) means: &'a [(String, f64)],
    /// Whether the model that the sites judged was the best so far; none where nothing says.
    pub(crate) best: Option<bool>,
    /// Why this round is the last, before its time.
    pub(crate) stopped: Option<&'a str>,
}

impl Record {
    /// The rounds so far.
    pub(crate) fn state(&self) -> Map {
        let rounds = serde_json::to_string(&self.rounds).expect("texts and numbers are JSON");
        Map::from_iter([("rounds", rounds), ("csv", self.csv.clone())])
    }

    /// These are the rounds so far; `None` where it is no such state.
    pub(crate) fn restore(&mut self, state: &Map) -> Option<()> {
        self.rounds = serde_json::from_str(state.str("rounds")?).ok()?;
        self.csv = state.str("csv")?.to_owned();
        Some(())
    }

    /// Adds a round and writes both files anew.
    pub(crate) fn add(&mut self, run_dir: &Path, round: &RoundRecord<'_>) -> Result<(), WorkflowError> {
        let object = |metrics: &[(String, f64)]| -> Json {
            metrics.iter().map(|(name, value)| (name.clone(), json!(value))).collect::<Object<_, _>>().into()
        };
        let mut entry = json!({
            "round": round.round,
            "sites": round.sites.iter().map(|(site, weight, metrics)| json!({
                "site": site, "weight": weight, "metrics": object(metrics),
            })).collect::<Vec<_>>(),
            "missing": round.attendance.missing.iter().map(|(site, unusable)| json!({
                "site": site, "code": unusable.fault.code(), "reason": unusable.reason,
            })).collect::<Vec<_>>(),
            "late": round.attendance.late,
            "metrics": object(round.means),
        });
        if let Some(best) = round.best {
            entry["best"] = best.into();
        }
        if let Some(reason) = round.stopped {
            entry["stopped"] = reason.into();
        }
        self.rounds.push(entry);
        if self.csv.is_empty() {
            self.csv.push_str("round,site,metric,value\n");
        }
        let number = round.round;
        for (site, _, metrics) in round.sites {
            for (name, value) in metrics {
                self.csv.push_str(&format!("{number},{},{},{value}\n", quoted(site), quoted(name)));
            }
        }
        for (name, value) in round.means {
            self.csv.push_str(&format!("{number},,{},{value}\n", quoted(name)));
        }
        let text = serde_json::to_vec_pretty(&self.rounds).expect("texts and numbers are JSON");
        replace(&run_dir.join("rounds.json"), &text)?;
        replace(&run_dir.join("metrics.csv"), self.csv.as_bytes())
    }
}

/// Writes a file so that it is at no moment half there.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), WorkflowError> {
    let temporary = PathBuf::from(format!("{}.tmp", path.display()));
    let written = || -> io::Result<()> {
        fs::write(&temporary, bytes)?;
        fs::rename(&temporary, path)
    };
    written().map_err(|source| WorkflowError::File { path: path.to_owned(), source })
}

/// A field of a CSV file. A site chose it: it may begin no formula in a table calculation.
pub(crate) fn quoted(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    let risky = text.starts_with(['=', '+', '-', '@']);
    let text = if risky { format!("'{text}") } else { text };
    if text.contains([',', '"', ';']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_quoted_and_begins_no_formula() {
        assert_eq!(quoted("loss"), "loss");
        assert_eq!(quoted("a,\"b\"\n"), "\"a,\"\"b\"\"\"");
        for formula in ["=1+1", "\t=1+1", "\r=1+1", "\u{1}\n=1+1"] {
            assert_eq!(quoted(formula), "'=1+1");
        }
    }
}
