//! `locule policy replay`: another policy over the jobs of the past.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use locule_assembly::{AssemblyError, KeptPlan, Program};
use locule_audit::{AuditLog, Basis, CheckerOutcome, Entry, Review, records};
use locule_component::{Decision, Side, one_line};
use locule_kit::Workspace;
use serde::Serialize;

use super::super::{say, table::table};
use super::side_of;
use crate::arguments::{Output, ReplayPolicy};
use crate::exit::{Code, Failure, OrExit as _};
use crate::wire;

/// Asks the policy about every plan that is still there.
pub(super) fn replay(arguments: &ReplayPolicy) -> Result<(), Failure> {
    let ReplayPolicy { kit, policy, since, output } = arguments;
    let side = side_of(kit)?;
    let since = since.as_deref().unwrap_or_default();
    if !is_time(since) {
        let error = anyhow!("{since:?} is no day or moment: 2026-11-01, or 2026-11-01T08:00:00Z");
        return Err(Failure::new(Code::Usage, error));
    }
    let workspace = Workspace::new(kit);
    let past = past(&workspace, since)?;
    let kept = KeptPlan::all(&workspace)
        .with_context(|| format!("cannot read the plans of {}", kit.display()))
        .or_exit(Code::NoInput)?;
    let kept: BTreeMap<(&str, &str), &KeptPlan> =
        kept.iter().map(|one| ((one.job.job_id.as_str(), one.plan.as_str()), one)).collect();
    let other = policy.as_deref().map(|folder| laid_out(folder, kit, side)).transpose()?;
    let asked = other.as_ref().map_or(workspace, |folder| Workspace::new(folder.path()));
    let (registry, checkers) = (wire::registry(), wire::checkers()?);
    let program = Program { registry: &registry, checkers: &*checkers };
    let mut replayed = Replayed::default();
    for ((job, plan), (time, then)) in past {
        match kept.get(&(job.as_str(), plan.as_str())) {
            None => replayed.lost.push(Lost { job, plan, why: NOT_KEPT.to_owned() }),
            Some(kept) => match kept.replay(&asked, program) {
                Ok(now) => replayed.plans.push(Judged::of(job, plan, time, &then, &now)),
                Err(error @ (AssemblyError::Config(_) | AssemblyError::OtherPlan { .. })) => {
                    replayed.lost.push(Lost { job, plan, why: one_line(&error.to_string()) });
                }
                Err(error) => return Err(Failure::new(Code::Config, error)),
            },
        }
    }
    replayed.plans.sort_by(|one, other| one.time.cmp(&other.time));
    replayed.changed = replayed.plans.iter().filter(|plan| plan.changed).count();
    match output {
        Output::Json => say(&serde_json::to_string(&replayed).or_exit(Code::Software)?),
        Output::Text => say(&replayed.text()),
    }
    match replayed.changed {
        0 => Ok(()),
        changed => Err(Failure::new(Code::JobFailed, anyhow!("the verdicts of {changed} plan(s) change"))),
    }
}

const NOT_KEPT: &str = "its plan was not kept";

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Replayed {
    /// Plans of which some verdict changes.
    changed: usize,
    /// Every plan that was judged again, oldest first.
    plans: Vec<Judged>,
    /// Those that cannot be.
    lost: Vec<Lost>,
}

/// A plan, then and now.
#[derive(Debug, Serialize)]
struct Judged {
    job: String,
    plan: String,
    /// When it was judged then.
    time: String,
    then: Decision,
    now: Decision,
    changed: bool,
    components: Vec<Component>,
    /// Checkers that could not judge now, and why.
    failed: Vec<String>,
}

/// A component, then and now.
#[derive(Debug, Serialize)]
struct Component {
    path: String,
    name: String,
    then: Verdict,
    now: Verdict,
    changed: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Verdict {
    verdict: Decision,
    codes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Lost {
    job: String,
    plan: String,
    why: String,
}

impl Judged {
    fn of(job: String, plan: String, time: String, then: &Review, now: &Review) -> Self {
        let said = |review: &Review, path: &str| {
            let entry = review.components.iter().find(|entry| entry.path == path);
            let verdict = entry.map_or(Decision::Allow, |entry| entry.verdict);
            let mut codes = entry.map(|entry| entry.codes.clone()).unwrap_or_default();
            codes.sort();
            Verdict { verdict, codes }
        };
        let components = now.components.iter().map(|entry| {
            let (then, now) = (said(then, &entry.path), said(now, &entry.path));
            let changed = then != now;
            Component { path: entry.path.clone(), name: entry.name.clone(), then, now, changed }
        });
        let components: Vec<Component> = components.collect();
        let failed = now.checkers.iter().filter_map(|checker| match &checker.outcome {
            CheckerOutcome::Failed(why) => Some(format!("{}: {why}", checker.id)),
            CheckerOutcome::Allowed | CheckerOutcome::Warned | CheckerOutcome::Denied => None,
        });
        let (then, failed) = (then.decision, failed.collect());
        let changed = then != now.decision || components.iter().any(|one| one.changed);
        Self { job, plan, time, then, now: now.decision, changed, components, failed }
    }
}

impl Replayed {
    fn text(&self) -> String {
        let mark = |changed: bool| if changed { "changed" } else { "" }.to_owned();
        let mut rows = Vec::new();
        for Judged { job, then, now, components, failed, .. } in &self.plans {
            for one in components {
                let component = format!("{}  {}", one.path, one.name);
                rows.push([job.clone(), component, one.then.text(), one.now.text(), mark(one.changed)]);
            }
            let whole = then != now || components.is_empty();
            let why = if failed.is_empty() { String::new() } else { format!(" ({})", failed.join("; ")) };
            let now_text = format!("{}{why}", word(*now));
            let subject = "the plan as a whole".to_owned();
            rows.push([job.clone(), subject, word(*then).to_owned(), now_text, mark(whole && then != now)]);
        }
        let rows: Vec<_> = rows.into_iter().map(|row| row.map(|cell| one_line(&cell))).collect();
        let mut text = table(["job", "component", "then", "now", ""], &rows);
        for Lost { job, why, .. } in &self.lost {
            text.push_str(&format!("\n{} cannot be judged again: {why}", one_line(job)));
        }
        text
    }
}

impl Verdict {
    fn text(&self) -> String {
        if self.codes.is_empty() {
            return word(self.verdict).to_owned();
        }
        format!("{} ({})", word(self.verdict), self.codes.join(", "))
    }
}

fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Allow => "allow",
        Decision::Warn => "warn",
        Decision::Deny => "deny",
    }
}

/// The last review of each plan of each job, and when it was.
type Past = BTreeMap<(String, String), (String, Review)>;

fn past(kit: &Workspace, since: &str) -> Result<Past, Failure> {
    let folder = kit.state_dir();
    if !folder.join(AuditLog::FILE).exists() {
        let error =
            anyhow!("{} has no log of verdicts: nothing was reviewed there yet", kit.root().display());
        return Err(Failure::new(Code::NoInput, error));
    }
    let mut past = Past::new();
    for line in records(&folder).or_exit(Code::NoInput)? {
        let Some(record) = line.or_exit(Code::NoInput)?.record else { continue }; // `audit verify` says so
        match record.entry {
            Entry::Review(review) if review.basis == Basis::Review && record.time.as_str() >= since => {
                past.insert((review.job.clone(), review.plan.clone()), (record.time, *review));
            }
            Entry::Review(_) | Entry::Note { .. } | Entry::Repaired { .. } | Entry::Continued { .. } | _ => {}
        }
    }
    Ok(past)
}

/// A day or a moment in UTC as the log has them, which can be compared as texts; or nothing.
fn is_time(text: &str) -> bool {
    let shape = "0000-00-00T00:00:00";
    let text = text.strip_suffix('Z').unwrap_or(text);
    let fits = |(given, wanted): (char, char)| given == wanted || (wanted == '0' && given.is_ascii_digit());
    matches!(text.len(), 0 | 10 | 19) && text.chars().zip(shape.chars()).all(fits)
}

/// A kit with the policy of another folder. It is copied, for a checker's file must lie in the kit.
fn laid_out(policy: &Path, kit: &Path, side: Side) -> Result<tempfile::TempDir, Failure> {
    if !policy.is_dir() {
        return Err(Failure::new(Code::NoInput, anyhow!("there is no folder {}", policy.display())));
    }
    let folder = tempfile::tempdir().context("cannot make a temporary folder").or_exit(Code::CannotCreate)?;
    let main = if side == Side::Server { "fed_server.json" } else { "fed_client.json" };
    let copy = |from: &Path, to: &Path| {
        let copied = fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()));
        copied.map(drop).or_exit(Code::NoInput)
    };
    let (startup, local) = (folder.path().join("startup"), folder.path().join("local"));
    fs::create_dir_all(&startup).or_exit(Code::CannotCreate)?;
    copy(&kit.join("startup").join(main), &startup.join(main))?;
    for below in ["", "custom"] {
        let from = policy.join(below);
        if !from.is_dir() {
            continue;
        }
        fs::create_dir_all(local.join(below)).or_exit(Code::CannotCreate)?;
        for entry in fs::read_dir(&from).or_exit(Code::NoInput)?.flatten() {
            if entry.path().is_file() {
                copy(&entry.path(), &local.join(below).join(entry.file_name()))?;
            }
        }
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_and_a_moment_are_times_and_nothing_else_is() {
        for good in ["", "2026-11-01", "2026-11-01T08:00:00", "2026-11-01T08:00:00Z"] {
            assert!(is_time(good), "{good}");
        }
        for bad in ["yesterday", "2026-11", "2026-11-01 08:00:00", "01.11.2026"] {
            assert!(!is_time(bad), "{bad}");
        }
    }
}
