//! What is run, and what came of it.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::project::{Plan, Project};
use crate::python::Python;
use crate::venv;

/// Lines of each log that are shown for a case that failed.
const TAIL: usize = 20;
/// How long a set-up may take.
const SET_UP: Duration = Duration::from_secs(180);

/// What to run, and how to tell of it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only cases whose row contains this text.
    pub filter: Option<String>,
    /// Also cases that are too long for every day.
    pub slow: bool,
    /// One line of JSON for each case, instead of a table.
    pub json: bool,
}

/// Where environments are kept from one run to the next: beside what cargo builds.
pub(crate) fn kept() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("where is this program?")?;
    let target = program.ancestors().nth(2).context("this program lies in a target folder")?;
    Ok(target.join("interop"))
}

/// What tells a case from others.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What it belongs to: `cells`, `streams`, …
    pub group: &'static str,
    /// What must be so.
    pub case: String,
    /// The carrier; secure unless it says clear.
    pub carrier: String,
    /// Who plays which part.
    pub role: String,
    /// The version of nvflare.
    pub version: String,
}

/// What came of a case.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Its place among the suites.
    #[serde(skip)]
    suite: usize,
    #[serde(flatten)]
    row: Row,
    passed: bool,
    /// Seconds.
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The ends of the logs, for a case that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<String>,
}

/// A case within a suite of cases that share a set-up.
pub(crate) struct Check<B> {
    name: String,
    limit: Duration,
    slow: bool,
    run: CheckFn<B>,
}

type CheckFn<B> = Box<dyn for<'b> Fn(&'b mut B) -> Checking<'b>>;
pub(crate) type Checking<'b> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'b>>;

impl<B> Check<B> {
    /// A case that takes no longer than half a minute.
    pub(crate) fn new(
        name: impl Into<String>,
        run: impl for<'b> Fn(&'b mut B) -> Checking<'b> + 'static,
    ) -> Self {
        Self { name: name.into(), limit: Duration::from_secs(30), slow: false, run: Box::new(run) }
    }

    /// The same, which may take up to `seconds`.
    pub(crate) fn within(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// The same, which is too long for every day if `slow`.
    pub(crate) fn slow_if(mut self, slow: bool) -> Self {
        self.slow = slow;
        self
    }
}

/// What the rows of cases that share a set-up have in common.
#[derive(Clone, Debug)]
pub(crate) struct Suite {
    pub(crate) group: &'static str,
    pub(crate) carrier: String,
    pub(crate) role: String,
    pub(crate) version: String,
    /// Whether it is too long for every day.
    pub(crate) slow: bool,
}

/// A run of many cases.
#[derive(Debug)]
pub struct Run {
    options: Options,
    /// Where environments are kept from one run to the next.
    kept: PathBuf,
    /// Where this run writes.
    work: PathBuf,
    folders: Cell<usize>,
    outcomes: RefCell<Vec<Outcome>>,
}

impl Run {
    /// A run that has done nothing yet.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn new(options: Options) -> anyhow::Result<Self> {
        let kept = kept()?;
        let work = kept.join(format!("run-{}", std::process::id()));
        std::fs::create_dir_all(&work).with_context(|| format!("make {}", work.display()))?;
        Ok(Self { options, kept, work, folders: Cell::new(0), outcomes: RefCell::default() })
    }

    /// Python with this version of nvflare, made if it is not there yet while others go on.
    async fn python(&self, version: &str) -> anyhow::Result<Python> {
        let (folder, version) = (self.kept.join(format!("venv-{version}")), version.to_owned());
        tokio::task::spawn_blocking(move || venv::make(&folder, &version)).await?
    }

    /// A new folder of this run.
    pub(crate) fn folder(&self) -> anyhow::Result<PathBuf> {
        self.folders.update(|folders| folders + 1);
        let folder = self.work.join(self.folders.get().to_string());
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(folder)
    }

    /// Kits for clear and secure cells, which name no port that counts.
    pub(crate) async fn project(&self, python: &Python) -> anyhow::Result<Project> {
        let folder = self.folder()?;
        Project::provision(python, &folder, &Plan { port: 8002, ..Plan::default() }).await
    }

    /// Runs those checks that the options let through, all in one set-up; each becomes a row.
    ///
    /// Several suites can run at the same time.
    ///
    /// # Errors
    /// When there is no Python to run them with.
    pub(crate) async fn suite<B>(
        &self,
        suite: &Suite,
        checks: Vec<Check<B>>,
        set_up: impl AsyncFnOnce(&Path, &Python) -> anyhow::Result<B>,
    ) -> anyhow::Result<()> {
        let checks = self.wanted(suite, checks);
        if checks.is_empty() {
            return Ok(());
        }
        let folder = self.folder()?;
        let number = self.folders.get();
        let python = self.python(&suite.version).await?;
        let set_up = tokio::time::timeout(SET_UP, set_up(&folder, &python)).await;
        let mut bench = match set_up.unwrap_or_else(|_| bail!("not set up within {SET_UP:?}")) {
            Ok(bench) => bench,
            Err(error) => {
                let error = format!("cannot be set up: {error:#}");
                let failed = |(row, _)| (row, Duration::ZERO, Err(error.clone()));
                let failed: Vec<_> = checks.into_iter().map(failed).collect();
                failed
                    .into_iter()
                    .for_each(|(row, took, result)| self.note(number, row, took, result, &folder));
                return Ok(());
            }
        };
        for (row, check) in checks {
            let started = Instant::now();
            let result = tokio::time::timeout(check.limit, (check.run)(&mut bench)).await;
            let result = result.unwrap_or_else(|_| bail!("took longer than {:?}", check.limit));
            let result = result.map_err(|error| format!("{error:#}"));
            self.note(number, row, started.elapsed(), result, &folder);
        }
        Ok(())
    }

    fn wanted<B>(&self, suite: &Suite, checks: Vec<Check<B>>) -> Vec<(Row, Check<B>)> {
        let Suite { group, carrier, role, version, slow } = suite;
        let mut wanted = Vec::new();
        for check in checks {
            let row = Row {
                group,
                case: check.name.clone(),
                carrier: carrier.clone(),
                role: role.clone(),
                version: version.clone(),
            };
            let Row { group, case, carrier, role, version } = &row;
            let text = format!("{group} {case} {carrier} {role} {version}");
            let named = self.options.filter.as_ref().is_none_or(|filter| text.contains(filter));
            if !named || ((*slow || check.slow) && !self.options.slow) {
                continue;
            }
            wanted.push((row, check));
        }
        wanted
    }

    fn note(&self, suite: usize, row: Row, took: Duration, result: Result<(), String>, folder: &Path) {
        let passed = result.is_ok();
        let logs = (!passed).then(|| tails(folder));
        let seconds = took.as_secs_f64();
        let outcome = Outcome { suite, row, passed, seconds, error: result.err(), logs };
        if self.options.json {
            say(&serde_json::to_string(&outcome).unwrap_or_default());
        } else {
            let Row { group, case, carrier, role, version } = &outcome.row;
            let word = if passed { "passed" } else { "FAILED" };
            progress(&format!("{word}  {group}: {case}, {carrier}, {role}, {version} ({seconds:.1} s)"));
        }
        self.outcomes.borrow_mut().push(outcome);
    }

    /// Tells what came of the cases; whether all passed.
    ///
    /// What they wrote is kept only if not.
    #[must_use]
    pub fn finish(self) -> bool {
        let mut outcomes = self.outcomes.into_inner();
        // Those of a suite came in order; suites may have run side by side.
        outcomes.sort_by_key(|outcome| outcome.suite);
        let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed).collect();
        if !self.options.json {
            say(&table(&outcomes));
            for Outcome { row: Row { group, case, carrier, role, version }, error, logs, .. } in &failed {
                say(&format!("\n{group}: {case}, {carrier}, {role}, {version}"));
                say(error.as_deref().unwrap_or_default());
                say(logs.as_deref().unwrap_or_default());
            }
            if !failed.is_empty() {
                say(&format!("what they wrote is in {}", self.work.display()));
            }
            say(&format!("{} passed, {} failed", outcomes.len() - failed.len(), failed.len()));
        }
        if failed.is_empty() {
            // What is left behind costs space only.
            let _ = std::fs::remove_dir_all(&self.work);
        }
        failed.is_empty()
    }
}

fn table(outcomes: &[Outcome]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["group", "case", "carrier", "role", "nvflare", "", "seconds"]);
    for Outcome { row, passed, seconds, .. } in outcomes {
        let word = if *passed { "passed" } else { "FAILED" };
        let Row { group, case, carrier, role, version } = row;
        let seconds = format!("{seconds:.1}");
        table.add_row([group, case.as_str(), carrier, role, version, word, seconds.as_str()]);
    }
    table.trim_fmt()
}

/// The last lines of every log in a folder and below.
fn tails(folder: &Path) -> String {
    let mut text = String::new();
    for log in logs(folder) {
        let content = std::fs::read(&log).unwrap_or_default();
        let content = String::from_utf8_lossy(&content);
        let lines: Vec<_> = content.lines().collect();
        let name = log.strip_prefix(folder).unwrap_or(&log).display();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n  ");
        // writing to a string cannot fail
        let _ = writeln!(text, "--- {name}\n  {tail}");
    }
    text
}

fn logs(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(logs(&path));
        } else if path.extension().is_some_and(|extension| extension == "log") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[expect(clippy::print_stdout, reason = "the result of the program")]
fn say(text: &str) {
    println!("{text}");
}

/// Tells a person how far it is.
#[expect(clippy::print_stderr, reason = "what a person watches while it runs")]
pub(crate) fn progress(text: &str) {
    eprintln!("{text}");
}
