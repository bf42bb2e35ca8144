//! What happened in the rounds of a run, for people and programs: a JSON and a CSV file.

use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use locule_component::WorkflowError;
use locule_fobs::Map;
use serde_json::{Map as Object, Value as Json, json};

use crate::gather::Attendance;

/// Metrics of one site, by name.
pub(crate) type Metrics = Vec<(String, f64)>;

/// The rounds of a run so far, in `rounds.json` and `metrics.csv` of its folder, which grow by what each round adds.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Bytes that the rounds so far take up in the one, without the end of its list, and in the other. What lies beyond
    /// belongs to a round that was not done when the run was broken off.
    rounds: u64,
    csv: u64,
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
    /// How far the files are.
    pub(crate) fn state(&self) -> Map {
        Map::from_iter([("rounds_bytes", self.rounds), ("csv_bytes", self.csv)])
    }

    /// Goes on from there; `None` where it is no such state.
    pub(crate) fn restore(&mut self, state: &Map) -> Option<()> {
        let bytes = |name: &str| u64::try_from(state.int(name)?).ok();
        (self.rounds, self.csv) = (bytes("rounds_bytes")?, bytes("csv_bytes")?);
        Some(())
    }

    /// Adds a round to both files. It is on disk before the state that counts on it.
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
        let mut csv = if self.csv == 0 { "round,site,metric,value\n".to_owned() } else { String::new() };
        let number = round.round;
        for (site, _, metrics) in round.sites {
            for (name, value) in metrics {
                csv.push_str(&format!("{number},{},{},{value}\n", quoted(site), quoted(name)));
            }
        }
        for (name, value) in round.means {
            csv.push_str(&format!("{number},,{},{value}\n", quoted(name)));
        }
        let before = if self.rounds == 0 { "[" } else { "," };
        let text = format!("{before}\n{entry:#}").replace('\n', "\n  "); // as an element of the list
        extend(&run_dir.join("rounds.json"), &mut self.rounds, &text, "\n]")?;
        extend(&run_dir.join("metrics.csv"), &mut self.csv, &csv, "")
    }
}

/// Writes `more` and then `end` behind the first bytes of a file that are said for good; what `more` says is, too.
fn extend(path: &Path, said: &mut u64, more: &str, end: &str) -> Result<(), WorkflowError> {
    let written = || -> io::Result<()> {
        let mut file = File::options().create(true).truncate(false).write(true).open(path)?;
        let length = file.metadata()?.len();
        if length < *said {
            return Err(io::Error::other("it is shorter than it was when the run was broken off"));
        }
        if length > *said + end.len() as u64 {
            file.set_len(*said)?;
        }
        file.seek(SeekFrom::Start(*said))?;
        file.write_all(format!("{more}{end}").as_bytes())?;
        file.sync_data()
    };
    written().map_err(|source| WorkflowError::File { path: path.to_owned(), source })?;
    *said += more.len() as u64;
    Ok(())
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

    fn add(record: &mut Record, run_dir: &Path, round: u64, loss: f64) {
        let sites = [("site-1".to_owned(), 1.0, vec![("loss".to_owned(), loss)])];
        let attendance = Attendance::default();
        let (best, stopped) = (None, Some("two\nlines"));
        let round = RoundRecord { round, attendance: &attendance, sites: &sites, means: &[], best, stopped };
        record.add(run_dir, &round).unwrap();
    }

    #[test]
    fn files_grow_by_a_round_and_are_whole_after_each() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        fs::write(dir.path().join("rounds.json"), "of an earlier workflow").unwrap();
        let mut record = Record::default();
        let mut state = Map::new();
        for round in 0..4 {
            add(&mut record, dir.path(), round, 0.5);
            let rounds: Vec<Json> = serde_json::from_str(&read("rounds.json")).unwrap();
            assert_eq!(rounds.len() as u64, round + 1);
            assert_eq!(read("rounds.json"), serde_json::to_string_pretty(&rounds).unwrap());
            if round == 1 {
                state = record.state();
            }
        }
        // Two rounds of it were done when it was broken off, and the third comes to less now.
        let mut record = Record::default();
        record.restore(&state).unwrap();
        add(&mut record, dir.path(), 2, 1.0);
        let rounds: Json = serde_json::from_str(&read("rounds.json")).unwrap();
        assert_eq!(
            (rounds.as_array().unwrap().len(), &rounds[2]["sites"][0]["metrics"]["loss"]),
            (3, &json!(1.0))
        );
        let csv = "round,site,metric,value\n0,site-1,loss,0.5\n1,site-1,loss,0.5\n2,site-1,loss,1\n";
        assert_eq!(read("metrics.csv"), csv);

        fs::write(dir.path().join("rounds.json"), "[").unwrap();
        let attendance = Attendance::default();
        let round = RoundRecord {
            round: 3,
            attendance: &attendance,
            sites: &[],
            means: &[],
            best: None,
            stopped: None,
        };
        let error = record.add(dir.path(), &round).unwrap_err();
        assert!(
            matches!(&error, WorkflowError::File { source, .. } if source.to_string().contains("shorter"))
        );
    }

    #[test]
    fn a_field_is_quoted_and_begins_no_formula() {
        assert_eq!(quoted("loss"), "loss");
        assert_eq!(quoted("a,\"b\"\n"), "\"a,\"\"b\"\"\"");
        for formula in ["=1+1", "\t=1+1", "\r=1+1", "\u{1}\n=1+1"] {
            assert_eq!(quoted(formula), "'=1+1");
        }
    }
}
