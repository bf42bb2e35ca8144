//! What is shown of jobs.

use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use locule_console::{Check, Job, Progress, SiteMetrics, Tracked};
use time::OffsetDateTime;

use crate::exit::{Code, Failure};

/// A row of the list.
pub(super) fn row(job: &Job, now: SystemTime) -> [String; 7] {
    [
        cell(&job.id),
        cell(&job.name),
        cell(&job.status),
        cell(&job.submitter.name),
        job.submitted.map(day_and_time).unwrap_or_default(),
        job.elapsed(now).map_or_else(|| job.duration.clone(), span),
        if job.is_over() { String::new() } else { shortened(&cell(&job.waits)) },
    ]
}

/// A text in a table that would be too wide.
fn shortened(text: &str) -> String {
    const WIDEST: usize = 100;
    match text.char_indices().nth(WIDEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Why a job waits, and since when.
pub(super) fn waits(job: &Job) -> Option<String> {
    if job.waits.is_empty() || job.is_over() {
        return None;
    }
    let since = job.waits_since.map(|time| format!(" (since {} UTC)", day_and_time(time)));
    Some(format!("{}{}", job.waits, since.unwrap_or_default()))
}

/// A text in a table, in one line.
fn cell(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join(" ")
}

/// All that is known of a job.
pub(super) fn whole(job: &Job, now: SystemTime) -> String {
    let mut lines = vec![headed("job", &job.id), headed("name", &job.name), headed("status", &job.status)];
    if !job.reason.is_empty() && job.is_over() {
        lines.push(headed("because", &job.reason));
    }
    lines.extend(waits(job).map(|waits| headed("waits", &waits)));
    if job.priority != 0 {
        lines.push(headed("priority", &job.priority.to_string()));
    }
    let person = &job.submitter;
    let who: Vec<&str> = [&person.name, &person.role, &person.org].map(String::as_str).into();
    let who: Vec<&str> = who.into_iter().filter(|word| !word.is_empty()).collect();
    lines.push(headed("submitter", &who.join(", ")));
    lines.extend(job.submitted.map(|time| headed("submitted", &format!("{} UTC", day_and_time(time)))));
    lines.extend(job.started.map(|time| headed("started", &format!("{} UTC", day_and_time(time)))));
    if let Some(elapsed) = job.elapsed(now) {
        lines.push(headed("ran for", &span(elapsed)));
    } else if !job.duration.is_empty() {
        lines.push(headed("ran for", &job.duration));
    }
    if !job.sites.is_empty() {
        lines.push(headed("sites", &job.sites.join(", ")));
    }
    if let Some(progress) = &job.progress {
        lines.extend(
            Some(rounds(progress)).filter(|rounds| !rounds.is_empty()).map(|text| headed("rounds", &text)),
        );
        lines.extend(progress.bytes_moved.map(|moved| headed("moved", &bytes(moved))));
        for site in progress.metrics.iter().filter(|site| !site.metrics.is_empty()) {
            lines.push(headed("metrics", &metrics(site)));
        }
        for site in &progress.tracked {
            lines.push(headed("tracked", &metrics(site)));
        }
    }
    if !job.history.is_empty() {
        lines.push(String::new());
        for change in &job.history {
            lines.push(format!("{}  {:<28} {}", day_and_time(change.time), change.status, change.reason));
        }
    }
    for outcome in &job.outcomes {
        let reason = if outcome.reason.is_empty() { String::new() } else { format!(": {}", outcome.reason) };
        let how =
            if outcome.code == 0 { "done".to_owned() } else { format!("ended with code {}", outcome.code) };
        lines.push(format!("{}  {how}{}{reason}", outcome.site, tasks(outcome.tasks_done)));
    }
    for refusal in &job.refusals {
        lines.push(format!(
            "{} refuses {} at {} of {}: {} ({})",
            refusal.site, refusal.component, refusal.path, refusal.file, refusal.reason, refusal.code
        ));
    }
    if job.refusals.is_empty() {
        lines.extend(job.deployed.iter().cloned());
    }
    lines.join("\n")
}

/// How many tasks a site has done; sites of nvflare do not say.
fn tasks(done: u64) -> String {
    if done == 0 { String::new() } else { format!(", {done} task(s)") }
}

fn headed(head: &str, text: &str) -> String {
    format!("{head:<10} {text}")
}

/// How far the rounds are.
pub(super) fn rounds(progress: &Progress) -> String {
    let Progress { round, rounds, rounds_done, sites_in, .. } = progress;
    let of = rounds.map(|rounds| format!("/{rounds}")).unwrap_or_default();
    let now = round.filter(|round| round >= rounds_done).map(|round| {
        let sites = sites_in.map(|sites| format!(", {sites} site(s) in")).unwrap_or_default();
        format!("round {}{of} under way{sites}", round.saturating_add(1))
    });
    let done = (*rounds_done > 0).then(|| format!("{rounds_done}{of} done"));
    done.into_iter().chain(now).collect::<Vec<_>>().join(", ")
}

/// The metrics of a site.
pub(super) fn metrics(SiteMetrics { site, metrics, .. }: &SiteMetrics) -> String {
    let shown = metrics.iter().map(|(name, value)| format!("{}={}", visible(name), number(*value)));
    format!("{} {}", visible(site), shown.collect::<Vec<_>>().join(" ")).trim_end().to_owned()
}

/// What a site tracks, as a line of comma-separated values.
pub(super) fn csv(tracked: &Tracked) -> String {
    let Tracked { site, key, step, value, time, kind, .. } = tracked;
    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let step = step.map(|step| step.to_string()).unwrap_or_default();
    [site, key, &step, &value, &time.to_string(), kind].map(|cell| quoted(cell)).join(",")
}

/// A cell that begins no formula in a table calculation: a site chose it.
fn quoted(cell: &str) -> String {
    let cell = visible(cell);
    let is_formula = cell.starts_with(['=', '+', '-', '@', '\t']) && cell.parse::<f64>().is_err();
    let cell = if is_formula { format!("'{cell}") } else { cell };
    let splits = cell.contains([',', ';', '"', '\t', '\n']);
    if splits { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

fn number(value: f64) -> String {
    if value.abs() >= 1e6 || (value != 0.0 && value.abs() < 1e-3) {
        format!("{value:.3e}")
    } else {
        format!("{value:.4}")
    }
}

/// Rows of a table of checks.
pub(super) fn checks(checks: &[Check]) -> Vec<[String; 6]> {
    let rows = checks.iter().flat_map(|check| {
        let Check { site, verdict, text, refusals, .. } = check;
        let text = text.lines().collect::<Vec<_>>().join("; ");
        let alone = [site.clone(), verdict.clone(), String::new(), String::new(), String::new(), text];
        let refused = refusals.iter().map(|refusal| {
            [site, verdict, &refusal.component, &refusal.path, &refusal.code, &refusal.reason]
                .map(String::clone)
        });
        if refusals.is_empty() { vec![alone] } else { refused.collect() }
    });
    rows.collect()
}

/// The gravest of what participants say is how the command ends.
pub(super) fn verdict(checks: &[Check]) -> Result<(), Failure> {
    let who = |verdict: &str| {
        let who = checks.iter().filter(|check| check.verdict == verdict).map(|check| check.site.as_str());
        Some(who.collect::<Vec<_>>().join(", ")).filter(|who| !who.is_empty())
    };
    let fail = |code, text: String| Err(Failure::new(code, anyhow!(text)));
    if let Some(who) = who("mistakes") {
        return fail(Code::Data, format!("the job has mistakes, say {who}"));
    }
    if let Some(who) = who("refused") {
        return fail(Code::JobFailed, format!("the job would be refused by {who}"));
    }
    let silent: Vec<&str> =
        checks.iter().filter(|check| check.verdict != "allowed").map(|check| check.site.as_str()).collect();
    if silent.is_empty() {
        Ok(())
    } else {
        fail(Code::Unavailable, format!("nothing is known of {}", silent.join(", ")))
    }
}

/// `2026-01-31 10:00:00`.
pub(super) fn day_and_time(seconds: f64) -> String {
    let Ok(time) = OffsetDateTime::from_unix_timestamp(seconds as i64) else { return String::new() };
    let (day, clock) = (time.date(), time.time());
    format!("{day} {:02}:{:02}:{:02}", clock.hour(), clock.minute(), clock.second())
}

/// `1:02:03`.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// `1.5 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} bytes") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A text of a server that cannot steer a terminal: everything but tabs and ends of lines is escaped.
pub(super) fn visible(text: &str) -> String {
    let shown = |c: char| {
        let plain = !locule_config::is_unprintable(c) || c == '\n' || c == '\t';
        if plain { c.to_string() } else { c.escape_default().collect() }
    };
    text.trim_end().chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_at_a_glance() {
        assert_eq!(day_and_time(1_769_853_600.5), "2026-01-31 10:00:00");
        assert_eq!(span(Duration::from_secs(3_723)), "1:02:03");
        assert_eq!(
            (bytes(7), bytes(1_536), bytes(3 << 30)),
            ("7 bytes".into(), "1.5 KiB".into(), "3.0 GiB".into())
        );
        assert_eq!((number(0.25), number(1e-5)), ("0.2500".into(), "1.000e-5".into()));
    }

    #[test]
    fn tasks_are_counted_of_sites_that_say_how_many() {
        let meta = serde_json::json!({ "job_id": "4f1c", "outcomes": [
            { "site": "ours", "code": 0, "tasks_done": 3 },
            { "site": "stock", "code": 0, "tasks_done": 0 },
            { "site": "lost", "code": 104, "reason": "no GPU", "tasks_done": 0 } ] });
        let shown = whole(&Job::from_meta(meta.as_object().unwrap()), SystemTime::UNIX_EPOCH);
        let (_, outcomes) = shown.split_once("submitter").unwrap();
        let outcomes: Vec<&str> = outcomes.lines().skip(1).collect();
        assert_eq!(outcomes, ["ours  done, 3 task(s)", "stock  done", "lost  ended with code 104: no GPU"]);
    }

    #[test]
    fn rounds_are_told_whatever_a_server_says() {
        let told = |round, done| {
            rounds(&Progress { round, rounds: Some(5), rounds_done: done, ..Progress::default() })
        };
        assert_eq!(told(Some(2), 2), "2/5 done, round 3/5 under way");
        assert_eq!((told(None, 0), told(Some(4), 5)), (String::new(), "5/5 done".to_owned()));
        assert!(told(Some(u64::MAX), u64::MAX).contains("under way"));
    }

    #[test]
    fn what_sites_track_is_one_line_each_for_a_spreadsheet() {
        let mut tracked = Tracked::default();
        (tracked.site, tracked.key, tracked.step) = ("site-1".into(), "loss, \"best\"".into(), Some(3));
        (tracked.value, tracked.time, tracked.kind) = (serde_json::json!(0.5), 1.25, "ROUND".into());
        assert_eq!(csv(&tracked), "site-1,\"loss, \"\"best\"\"\",3,0.5,1.25,ROUND");
    }

    #[test]
    fn a_cell_begins_no_formula_and_a_number_stays_one() {
        for (cell, shown) in [
            ("=1+1", "'=1+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-2+3", "'-2+3"),
            ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
            ("\t=1", "\"'\t=1\""),
            ("\r=1", "\\r=1"),
            ("a;=1", "\"a;=1\""),
        ] {
            assert_eq!(quoted(cell), shown);
        }
        for number in ["-0.5", "+3", "-1e-7", "-inf"] {
            assert_eq!(quoted(number), number);
        }
    }

    #[test]
    fn a_log_cannot_steer_a_terminal() {
        assert_eq!(visible("a\x1b[31m\tb\r\nc\n"), "a\\u{1b}[31m\tb\\r\nc");
    }

    #[test]
    fn the_gravest_verdict_is_the_exit_code() {
        let of = |verdicts: &[&str]| {
            let check = |verdict: &&str| {
                let mut check = Check::default();
                (check.site, check.verdict) = ("a".into(), (*verdict).to_owned());
                check
            };
            verdict(&verdicts.iter().map(check).collect::<Vec<_>>()).err().map(|failure| failure.code)
        };
        assert_eq!(of(&["allowed", "allowed"]), None);
        assert_eq!(of(&["allowed", "refused", "no-answer"]), Some(Code::JobFailed));
        assert_eq!(of(&["mistakes", "refused"]), Some(Code::Data));
        assert_eq!(of(&["allowed", "no-answer"]), Some(Code::Unavailable));
    }
}
