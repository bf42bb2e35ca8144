//! The host's side: from an entry of a site's configuration to a checker, and the children that wait.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use locule_component::{Checker, CheckerError, CheckerOrigin, PlanReview, Verdict};
use locule_config::{Diagnostics, is_unprintable};
use locule_policy::{CheckerFiles, FileChecker, Language};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::confine::{Confinement, find_python, is_program};
use crate::document::review_document;
use crate::process::{AskError, CheckerCommand, Process};
use crate::wire::{Answer, Opening, Request, backend};

/// Largest file of a checker, in bytes.
pub const MAX_FILE: u64 = 16 << 20;
/// Most children that wait for their next plan.
pub const MAX_IDLE: usize = 16;
/// Most children at once, of one program.
pub const MAX_CHILDREN: usize = 64;
/// How long a child may take to begin, whatever its limits: the machine may be busy.
pub const START: Duration = Duration::from_secs(20);

/// Opens the checkers in a kit's `local/custom`, and keeps their processes.
///
/// A file is read when an entry is opened, and that text is what judges. It must be a plain file: neither it nor
/// anything beside it may be a link that leads out of the folder. A child that has judged waits for the next plan,
/// as long as its file, and in Python everything in the folder, stays what it is.
#[derive(Debug, Clone)]
pub struct SiteCheckers {
    command: Arc<CheckerCommand>,
    pool: Arc<Pool>,
}

impl SiteCheckers {
    /// Checkers whose children are started so.
    pub fn new(command: CheckerCommand) -> Self {
        Self { command: Arc::new(command), pool: Arc::default() }
    }

    fn prepare(&self, entry: &FileChecker) -> Result<FileProcess, Diagnostics> {
        let file = entry.file.strip_prefix(&entry.folder).unwrap_or(&entry.file).display();
        let unreadable = |error: io::Error| {
            if error.kind() == io::ErrorKind::NotFound {
                let name = entry.file.file_name().unwrap_or_default().display();
                let help = match entry.language {
                    Language::Rego | Language::Wasm => format!("put `{name}` there, or correct `path`"),
                    Language::Python { .. } => {
                        format!("put `{file}` there, or write the name of a checker that this program has")
                    }
                };
                entry.mistake(format!("there is no `local/custom/{file}`")).help(help)
            } else {
                entry.mistake(format!("`local/custom/{file}` cannot be read: {error}"))
            }
        };
        let folder = fs::canonicalize(&entry.folder).map_err(unreadable)?;
        let contents = Contents::of(&folder, &entry.language).map_err(|why| entry.mistake(why))?;
        let path = fs::canonicalize(&entry.file).map_err(unreadable)?;
        if !path.starts_with(&folder) {
            return Err(entry.mistake(format!("`local/custom/{file}` leads out of that folder")).into());
        }
        let source = read(&path).map_err(unreadable)?;
        let digest = digest(&source);
        if let Some(expected) = entry.digest.as_ref().filter(|expected| **expected != digest) {
            let message = format!("`local/custom/{file}` is not the file that `digest` names");
            let help = format!("it has sha256:{digest}, and should have sha256:{expected}");
            return Err(entry.mistake_in("digest", message).help(help).into());
        }
        let python = match &entry.language {
            Language::Python { .. } => Some(self.python(entry)?),
            Language::Rego | Language::Wasm => None,
        };
        let limits = entry.limits;
        let confinement = Confinement { memory: limits.memory, cpu: limits.time.as_secs() + 1, python };
        let mut opening = Opening::new(entry, source);
        opening.file = path.display().to_string();
        Ok(FileProcess {
            key: Key { opening, contents, confinement: confinement.clone() },
            back_end: backend(&entry.language),
            digest,
            folder,
            time: limits.time,
            checkers: self.clone(),
        })
    }

    fn python(&self, entry: &FileChecker) -> Result<PathBuf, Diagnostics> {
        match &entry.python {
            Some(python) if is_program(python) => Ok(python.clone()),
            Some(python) => {
                let message = format!("there is no program `{}`", python.display());
                Err(entry.mistake_in("python", message).into())
            }
            None => find_python(&self.command.search_path).ok_or_else(|| {
                let help =
                    "install Python 3.8 or later, or give the absolute path of an interpreter under `python`";
                entry.mistake("there is no `python3` on the search path").help(help).into()
            }),
        }
    }
}

impl CheckerFiles for SiteCheckers {
    fn open(&self, entry: &FileChecker) -> Result<Arc<dyn Checker>, Diagnostics> {
        let checker = self.prepare(entry)?;
        // A child that is ready proves that the checker can judge, and waits for the first plan.
        let child = checker.child().map_err(|error| entry.mistake(error))?;
        self.pool.put_back(&checker.key, child);
        Ok(Arc::new(checker))
    }
}

/// A checker that judges in a process of its own.
#[derive(Debug)]
struct FileProcess {
    key: Key,
    back_end: &'static str,
    digest: String,
    folder: PathBuf,
    time: Duration,
    checkers: SiteCheckers,
}

impl FileProcess {
    /// A child that is ready: one that waited, or a new one.
    fn child(&self) -> Result<Counted, String> {
        if let Some(child) = self.checkers.pool.take(&self.key) {
            return Ok(child);
        }
        let mut child = Counted::start(self)?;
        let question = Request::Open(Box::new(self.key.opening.clone()));
        match child.process.ask(&question, START) {
            Ok(Answer::Ready { about }) => {
                let (id, digest) = (&self.key.opening.id, &self.digest);
                tracing::info!(checker = id, about = shown(&about), sha256 = digest, "checker ready");
                Ok(child)
            }
            Ok(Answer::Failed(why)) => Err(shown(&why)),
            Ok(Answer::Verdicts(_)) => {
                Err("its process answered with verdicts before it was asked".to_owned())
            }
            Err(error) => Err(format!("its process {error}")),
        }
    }
}

impl Checker for FileProcess {
    fn id(&self) -> &str {
        &self.key.opening.id
    }

    fn time_limit(&self) -> Option<Duration> {
        // Once for the start, and a little for what this side does.
        Some(self.time + START + Duration::from_secs(5))
    }

    fn origin(&self) -> CheckerOrigin {
        CheckerOrigin { back_end: self.back_end, digest: Some(self.digest.clone()) }
    }

    fn review_plan(&self, review: &PlanReview<'_>) -> Result<Vec<Verdict>, CheckerError> {
        let failed = |error: &dyn std::error::Error| CheckerError::Failed(error.to_string());
        let document = review_document(review, &self.key.opening.args).map_err(|error| failed(&error))?;
        let document = RawValue::from_string(document).map_err(|error| failed(&error))?;
        let mut child = self.child().map_err(CheckerError::Failed)?;
        match child.process.ask(&Request::Review(document), self.time) {
            Ok(Answer::Verdicts(verdicts)) => {
                self.checkers.pool.put_back(&self.key, child);
                if self.key.confinement.python.is_some() {
                    all_judged(review, &verdicts)?;
                }
                Ok(verdicts)
            }
            Ok(Answer::Failed(why)) => {
                self.checkers.pool.put_back(&self.key, child);
                Err(CheckerError::Failed(shown(&why)))
            }
            Ok(Answer::Ready { .. }) => {
                Err(CheckerError::Failed("its process answered as if it was not asked".to_owned()))
            }
            Err(AskError::Deadline(_)) => {
                let limit = self.time.as_millis();
                let why = format!("its process had no answer within {limit} ms (`time_ms`), and was ended");
                Err(CheckerError::Failed(why))
            }
            Err(error) => Err(CheckerError::Failed(format!("its process {error}"))),
        }
    }
}

/// Makes sure that there is a word on every component, as there always is from the host of checkers in Python.
fn all_judged(review: &PlanReview<'_>, verdicts: &[Verdict]) -> Result<(), CheckerError> {
    let judged: BTreeSet<&str> = verdicts.iter().map(|verdict| verdict.component.as_str()).collect();
    let missing = review.plan.components().iter().find(|spec| !judged.contains(spec.path.as_str()));
    missing.map_or(Ok(()), |spec| {
        Err(CheckerError::Failed(format!("its process did not answer for {}", shown(spec.path.as_str()))))
    })
}

/// Children that wait, the one that has waited longest in front.
#[derive(Debug, Default)]
struct Pool {
    idle: Mutex<VecDeque<(Key, Counted)>>,
    children: Arc<AtomicUsize>,
}

impl Pool {
    fn take(&self, key: &Key) -> Option<Counted> {
        loop {
            let mut child = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                let place = idle.iter().rposition(|(known, _)| known == key)?;
                idle.remove(place)?.1
            };
            if child.process.is_alive() {
                return Some(child);
            }
        }
    }

    fn put_back(&self, key: &Key, child: Counted) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push_back((key.clone(), child));
        let surplus = if idle.len() > MAX_IDLE { idle.pop_front() } else { None };
        drop(idle);
        drop(surplus); // which ends a process, and takes a moment
    }

    /// Ends a child that waits, to make room for another.
    fn make_room(&self) {
        let oldest = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        drop(oldest);
    }
}

/// What two reviews must have in common to be asked of one child.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    opening: Opening,
    contents: Contents,
    confinement: Confinement,
}

/// A child, counted among those that there are.
#[derive(Debug)]
struct Counted {
    process: Process,
    _place: Place,
}

/// Gives its place free when it is dropped.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(children: &Arc<AtomicUsize>) -> Option<Self> {
        let taken = children.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
            (count < MAX_CHILDREN).then_some(count + 1)
        });
        taken.ok().map(|_| Self(Arc::clone(children)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Counted {
    fn start(checker: &FileProcess) -> Result<Self, String> {
        let SiteCheckers { command, pool } = &checker.checkers;
        let place = Place::take(&pool.children).or_else(|| {
            pool.make_room();
            Place::take(&pool.children)
        });
        let place = place.ok_or_else(|| format!("{MAX_CHILDREN} checkers are at work already"))?;
        let Key { opening, confinement, .. } = &checker.key;
        let process = Process::start(command, confinement, &opening.id, &checker.folder);
        let process = process.map_err(|error| format!("its process {error}"))?;
        Ok(Self { process, _place: place })
    }
}

/// What a checker may find beside itself: a digest of it, of a checker in Python; nothing for the other languages,
/// which see their own file only.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Contents(Option<String>);

/// Most files that a kit's `local/custom` may have.
const MAX_FILES: usize = 10_000;

impl Contents {
    /// Looks at everything in the folder.
    fn of(folder: &Path, language: &Language) -> Result<Self, String> {
        let is_python = matches!(language, Language::Python { .. });
        let mut hash = Sha256::new();
        let mut folders = vec![folder.to_owned()];
        let mut seen = 0;
        while let Some(inner) = folders.pop() {
            let shown = |path: &Path| {
                format!("`local/custom/{}`", path.strip_prefix(folder).unwrap_or(path).display())
            };
            let unreadable = |error: io::Error| format!("{} cannot be read: {error}", shown(&inner));
            let mut entries = fs::read_dir(&inner)
                .and_then(|entries| entries.take(MAX_FILES + 1).collect::<io::Result<Vec<_>>>())
                .map_err(unreadable)?;
            entries.sort_by_key(fs::DirEntry::file_name);
            seen += entries.len();
            if seen > MAX_FILES {
                return Err(format!("`local/custom` holds more than {MAX_FILES} files"));
            }
            for entry in entries {
                let path = entry.path();
                let unreadable = |error: io::Error| format!("{} cannot be read: {error}", shown(&path));
                let sort = entry.file_type().map_err(unreadable)?;
                if sort.is_symlink() {
                    let target = fs::canonicalize(&path).map_err(unreadable)?;
                    if !target.starts_with(folder) {
                        return Err(format!("{} is a link out of that folder", shown(&path)));
                    }
                } else if sort.is_dir() {
                    folders.push(path);
                } else if is_python && path.extension().is_some_and(|ending| ending == "py") {
                    hash.update(path.as_os_str().as_encoded_bytes());
                    hash.update([0]);
                    hash.update(Sha256::digest(read(&path).map_err(unreadable)?));
                }
            }
        }
        Ok(Self(is_python.then(|| hex(&hash.finalize()))))
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut content = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it has more than {} MiB", MAX_FILE >> 20)));
    }
    Ok(content)
}

/// SHA-256 of a file's content, as verdicts are recorded with it.
pub fn digest(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a child says, in one line of bounded length.
fn shown(text: &str) -> String {
    const LONGEST: usize = 2000;
    let mut line: String =
        text.chars().take(LONGEST).map(|c| if is_unprintable(c) { ' ' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}
