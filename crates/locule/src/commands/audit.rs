//! `locule audit`: reads a kit's log of verdicts.

use std::path::Path;

use anyhow::anyhow;
use locule_audit::{AuditLog, CheckerOutcome, Entry, Record, Review, Verified, records, verify};
use locule_component::{Decision, one_line};
use locule_kit::Workspace;
use serde_json::json;

use super::{say, table::table};
use crate::arguments::{Audit, AuditShow, AuditVerify, Output};
use crate::exit::{Code, Failure, OrExit as _};

/// Verifies or shows a kit's log.
pub(crate) fn audit(arguments: &Audit) -> Result<(), Failure> {
    match arguments {
        Audit::Verify(arguments) => check(arguments),
        Audit::Show(arguments) => show(arguments),
    }
}

fn check(AuditVerify { kit, head, output }: &AuditVerify) -> Result<(), Failure> {
    let folder = folder(kit)?;
    let seen = verify(&folder, head.as_ref()).or_exit(Code::NoInput)?;
    match output {
        Output::Json => {
            let mut shown = serde_json::to_value(&seen).or_exit(Code::Software)?;
            shown["good"] = json!(seen.is_good());
            say(&shown.to_string());
        }
        Output::Text => say(&told(&seen)),
    }
    match (&seen.fault, seen.holds_head) {
        (Some(fault), _) => {
            let which = fault.seq.map_or_else(String::new, |seq| format!(" (record {seq})"));
            let (file, line) = (fault.file.display(), fault.line);
            let why = fault.kind.as_str();
            Err(Failure::new(Code::JobFailed, anyhow!("the chain breaks at {file}:{line}{which}: {why}")))
        }
        (None, Some(false)) => {
            Err(Failure::new(Code::JobFailed, anyhow!("the log does not hold the record of --head")))
        }
        (None, _) => Ok(()),
    }
}

fn told(seen: &Verified) -> String {
    let Verified { records, files, first, last, repairs, torn, .. } = seen;
    let mut text = match last {
        Some(last) => format!("{records} records in {files} file(s) follow each other; the last is {last}"),
        None => "there are no records".to_owned(),
    };
    if let Some(first) = first.as_ref().filter(|first| first.seq > 1) {
        text.push_str(&format!("\nthe log begins with record {}: older files were moved away", first.seq));
    }
    if *repairs > 0 {
        text.push_str(&format!("\n{repairs} interrupted record(s) were cut off"));
    }
    if *torn {
        text.push_str("\nthe last record was interrupted; the next writer cuts it off and says so");
    }
    text
}

fn show(AuditShow { kit, job, output }: &AuditShow) -> Result<(), Failure> {
    let folder = folder(kit)?;
    let mut rows = Vec::new();
    for line in records(&folder).or_exit(Code::NoInput)? {
        let line = line.or_exit(Code::NoInput)?;
        let Some(record) = line.record else {
            rows.push(
                ["?", "", "", "", "", "", "a broken record: see `locule audit verify`"].map(str::to_owned),
            );
            continue;
        };
        let of_job = |review: &Review| job.as_ref().is_none_or(|job| review.job == *job);
        match &record.entry {
            Entry::Review(review) if of_job(review) => match output {
                Output::Json => say(&as_json(&record, review)),
                Output::Text => rows.push(row(&record, review)),
            },
            Entry::Note { text } if job.is_none() => rows.push(other(&record, text)),
            Entry::Repaired { cut_bytes, .. } if job.is_none() => {
                rows.push(other(
                    &record,
                    &format!("{cut_bytes} bytes of an interrupted record were cut off"),
                ));
            }
            Entry::Review(_) | Entry::Note { .. } | Entry::Repaired { .. } | Entry::Continued { .. } | _ => {}
        }
    }
    if *output == Output::Text {
        let head = ["#", "time", "job", "phase", "submitter", "decision", "why"];
        // Records of earlier programs may hold what steers a terminal.
        let rows: Vec<_> = rows.into_iter().map(|row| row.map(|cell| one_line(&cell))).collect();
        say(&table(head, &rows));
    }
    Ok(())
}

fn as_json(record: &Record, review: &Review) -> String {
    json!({ "seq": record.seq, "time": record.time, "sha256": record.sha256, "review": review }).to_string()
}

fn row(record: &Record, review: &Review) -> [String; 7] {
    let decision = if review.decision == Decision::Deny { "refused" } else { "allowed" };
    let found = review.findings.iter().map(|finding| {
        let place = if finding.path.is_empty() { String::new() } else { format!(" at {}", finding.path) };
        format!("{}: {}{place} ({})", finding.checker, finding.message, finding.code)
    });
    let failed = review.checkers.iter().filter_map(|checker| match &checker.outcome {
        CheckerOutcome::Failed(why) => Some(format!("{}: {why} (checker-failed)", checker.id)),
        CheckerOutcome::Allowed | CheckerOutcome::Warned | CheckerOutcome::Denied => None,
    });
    let why: Vec<String> = found.chain(failed).collect();
    let basis = match review.basis {
        locule_audit::Basis::Review => "",
        locule_audit::Basis::Comparison => " (compared)",
    };
    let phase = serde_json::to_value(review.phase).ok();
    let phase = phase.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
    [
        record.seq.to_string(),
        record.time.clone(),
        review.job.clone(),
        format!("{phase}{basis}"),
        review.submitter.name.clone(),
        decision.to_owned(),
        why.join("; "),
    ]
}

fn other(record: &Record, text: &str) -> [String; 7] {
    let empty = String::new;
    [record.seq.to_string(), record.time.clone(), empty(), empty(), empty(), empty(), text.to_owned()]
}

fn folder(kit: &Path) -> Result<std::path::PathBuf, Failure> {
    let folder = Workspace::new(kit).state_dir();
    if folder.join(AuditLog::FILE).exists() {
        return Ok(folder);
    }
    let error =
        anyhow!("{} has no log of verdicts: nothing was reviewed there yet, or it is no kit", kit.display());
    Err(Failure::new(Code::NoInput, error))
}
