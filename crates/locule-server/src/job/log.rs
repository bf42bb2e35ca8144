//! The log of a run: what has to be known to go on after it was broken off.
//!
//! Each record is a line of JSON, and behind it what it is about in the object format; a large body is a file beside
//! the journal. At a checkpoint all that came before it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use locule_fobs::{EncodeOptions, Encoded, Map, Shareable, Value};
use locule_journal::{AppendError, Journal, ReplayError};
use locule_store::{FileJournal, OpenError};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::hold::Held;
use super::report::RunEnd;

/// Version of the records. Those of this one and of the one before it are read.
const FORMAT: u32 = 1;

/// A body with more bytes than this is a file.
const SMALL: usize = 64 << 10;

/// How long the process that ran the job before may take to let go of the log.
const HANDOVER: Duration = Duration::from_secs(10);

/// From one look whether it has to the next.
const LOOK: Duration = Duration::from_millis(50);

/// The folder of the log in the folder of the run.
pub(crate) const FOLDER: &str = "resume";

/// What is written down of a task that was put up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TaskNote {
    /// The how-manieth since the checkpoint, from 0.
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) round: Option<u64>,
    /// Whom the workflow offers it to.
    pub(super) sites: Vec<String>,
    /// What each site knows it by.
    pub(super) ids: BTreeMap<String, String>,
}

impl TaskNote {
    /// Whether this is the same task, whatever ids its sites know it by.
    pub(super) fn is(&self, other: &TaskNote) -> bool {
        (self.number, &self.name, self.round, &self.sites)
            == (other.number, &other.name, other.round, &other.sites)
    }
}

/// What is written down of a result that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ResultNote {
    pub(super) site: String,
    /// The task's id.
    pub(super) id: String,
    /// The task's name.
    pub(super) task: String,
    /// Whether it came too late for its task and waits for another one.
    pub(super) late: bool,
    #[serde(with = "hexadecimal")]
    pub(super) digest: u128,
}

mod hexadecimal {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(number: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        u128::from_str_radix(&String::deserialize(deserializer)?, 16).map_err(D::Error::custom)
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
enum Entry {
    Format { version: u32 },
    Workflow { index: usize },
    Checkpoint,
    Task(TaskNote),
    Result(ResultNote),
    Ended(RunEnd),
}

/// A record: an entry, and where its body is.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    entry: Entry,
    /// The file of the body; without one it stands behind the line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

/// What a log says of the run so far.
#[derive(Debug, Default)]
pub(super) struct Restored {
    /// The workflow that ran last, by its place in the job.
    pub(super) workflow: usize,
    pub(super) state: Option<Body>,
    /// The tasks since the last checkpoint, with the results that were taken.
    pub(super) tasks: BTreeMap<u64, (TaskNote, Vec<(ResultNote, Held)>)>,
    /// Results that came too late for their task.
    pub(super) late: Vec<(ResultNote, Held)>,
    /// How the run ended, if it had.
    pub(super) ended: Option<RunEnd>,
    /// Whether there was anything.
    pub(super) is_resumed: bool,
}

/// The body of a record.
#[derive(Debug, Clone)]
pub(super) enum Body {
    Bytes(bytes::Bytes),
    File(PathBuf),
}

impl Body {
    /// Reads it. Blocking.
    pub(super) fn read(&self) -> io::Result<Value> {
        let bytes = match self {
            Body::Bytes(bytes) => bytes.clone(),
            Body::File(path) => fs::read(path)?.into(),
        };
        locule_fobs::decode(bytes).map_err(io::Error::other)
    }
}

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum LogError {
    #[error("folder {} cannot be used", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("log of the run cannot be read")]
    Replay(#[from] ReplayError),
    #[error("record {index} of the log of the run is not understood")]
    Record { index: usize, source: serde_json::Error },
    #[error(
        "log of the run has format {found}, and this version knows those up to {FORMAT}; use a newer one"
    )]
    Newer { found: u32 },
    #[error("log of the run does not take what happens")]
    Append(#[from] AppendError),
}

/// The log of one run. What its calls wrote is on disk when they return; they block.
#[derive(Debug)]
pub(super) struct RunLog {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    journal: FileJournal,
    workflow: usize,
    /// Records of results that came too late, by task id.
    late: BTreeMap<String, (Vec<u8>, Option<String>)>,
    files: BTreeSet<String>,
}

impl RunLog {
    /// Opens the log in this folder, or begins one. The process that wrote it before may be about to end: that is
    /// waited for.
    ///
    /// # Errors
    /// As [`open`](Self::open), and that it was not done.
    pub(super) async fn take_over(folder: PathBuf) -> Result<(RunLog, Restored), LogError> {
        let until = Instant::now() + HANDOVER;
        loop {
            let open = folder.clone();
            let opened = tokio::task::spawn_blocking(move || RunLog::open(open)).await;
            match opened.unwrap_or_else(|error| {
                Err(LogError::Folder { path: folder.clone(), source: io::Error::other(error) })
            }) {
                Err(LogError::Open(OpenError::InUse { .. })) if Instant::now() < until => {
                    tokio::time::sleep(LOOK).await;
                }
                opened => return opened,
            }
        }
    }

    /// Opens the log in this folder, or begins one. Blocking.
    ///
    /// # Errors
    /// [`LogError`]; a log that is damaged or newer is left as it is.
    pub(super) fn open(folder: PathBuf) -> Result<(RunLog, Restored), LogError> {
        fs::create_dir_all(&folder).map_err(|source| LogError::Folder { path: folder.clone(), source })?;
        let mut journal = FileJournal::open(folder.join("run.journal"))?;
        let records = journal.replay()?;
        let mut state = State { journal, workflow: 0, late: BTreeMap::new(), files: BTreeSet::new() };
        let mut restored = Restored { is_resumed: records.len() > 1, ..Restored::default() };
        for (index, record) in records.into_iter().enumerate() {
            let read = restored.apply(&folder, record, &mut state);
            read.map_err(|fault| match fault {
                Fault::Json(source) => LogError::Record { index, source },
                Fault::Newer(found) => LogError::Newer { found },
            })?;
        }
        state.workflow = restored.workflow;
        if !restored.is_resumed {
            state.journal.rewrite(&[line(Entry::Format { version: FORMAT })])?;
        }
        remove_strangers(&folder, &state.files);
        Ok((RunLog { folder, state: Mutex::new(state) }, restored))
    }

    /// A workflow begins.
    pub(super) fn begin(&self, workflow: usize) -> Result<(), AppendError> {
        let mut state = self.state();
        state.workflow = workflow;
        let late = state.late.keys().cloned().collect();
        self.rewrite(&mut state, None, &late)
    }

    /// A task is put up.
    pub(super) fn put_up(&self, task: &TaskNote) -> Result<(), AppendError> {
        self.state().journal.append(&line(Entry::Task(task.clone())))
    }

    /// Writes a result down and passes it on to `settle`, which says what becomes of it; one that `note` does not want
    /// is passed on without. No other result is written or settled meanwhile.
    pub(super) fn take<T>(
        &self,
        result: Shareable,
        keep_in_memory: bool,
        note: impl FnOnce() -> Option<ResultNote>,
        settle: impl FnOnce(Held) -> T,
    ) -> Result<T, AppendError> {
        let mut state = self.state();
        let Some(note) = note() else { return Ok(settle(Held::Memory(Box::new(result)))) };
        let (id, late, value) = (note.id.clone(), note.late, Value::Shareable(result));
        let (record, file) = self.record(&mut state, Entry::Result(note), &value)?;
        state.journal.append(&record)?;
        let Value::Shareable(result) = value else { unreachable!("it was made above") };
        let held = match file.as_ref().filter(|_| !keep_in_memory) {
            Some(file) => Held::File(self.folder.join(file)),
            None => Held::Memory(Box::new(result)),
        };
        if late {
            state.late.insert(id, (record, file));
        }
        Ok(settle(held))
    }

    /// Keeps a state in place of all that came before, but for the late results that still wait: those with these
    /// task ids.
    pub(super) fn checkpoint(
        &self,
        state: Map,
        late: impl FnOnce() -> BTreeSet<String>,
    ) -> Result<(), AppendError> {
        let body = Value::Map(state);
        let mut state = self.state();
        let record = self.record(&mut state, Entry::Checkpoint, &body)?;
        self.rewrite(&mut state, Some(record), &late())
    }

    /// The run has ended, and nothing but that has to be known of it.
    pub(super) fn end(&self, end: &RunEnd) -> Result<(), AppendError> {
        let mut state = self.state();
        let ended = (line(Entry::Ended(end.clone())), None);
        self.rewrite(&mut state, Some(ended), &BTreeSet::new())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic leaves the journal whole: each of its records is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record with this body, whose file is on disk when this returns.
    fn record(
        &self,
        state: &mut State,
        entry: Entry,
        body: &Value,
    ) -> Result<(Vec<u8>, Option<String>), AppendError> {
        let cannot = |error| AppendError::Write(io::Error::other(error));
        let body = locule_fobs::encode_parts(body, &EncodeOptions::default()).map_err(cannot)?;
        if body.len() <= SMALL {
            let mut record = line(entry);
            body.write_to(&mut record).map_err(AppendError::Write)?;
            return Ok((record, None));
        }
        let name = Uuid::from_u128(rand::random()).to_string();
        let written = write_synced(&self.folder, &name, &body);
        state.files.insert(name.clone());
        written.map_err(AppendError::Write)?;
        Ok((line_of(&Record { entry, file: Some(name.clone()) }), Some(name)))
    }

    fn rewrite(
        &self,
        state: &mut State,
        last: Option<(Vec<u8>, Option<String>)>,
        late: &BTreeSet<String>,
    ) -> Result<(), AppendError> {
        let gone = state.late.extract_if(.., |id, _| !late.contains(id)).collect::<Vec<_>>();
        let begin = line(Entry::Workflow { index: state.workflow });
        let mut records = vec![line(Entry::Format { version: FORMAT }), begin];
        records.extend(state.late.values().map(|(record, _)| record.clone()));
        let file = last.as_ref().and_then(|(_, file)| file.clone());
        records.extend(last.map(|(record, _)| record));
        if let Err(error) = state.journal.rewrite(&records) {
            state.late.extend(gone);
            return Err(error);
        }
        let needed = |name: &String| {
            file.as_ref() == Some(name) || state.late.values().any(|(_, file)| file.as_ref() == Some(name))
        };
        let (needed, rest) = state.files.iter().cloned().partition(needed);
        state.files = needed;
        for name in rest {
            fs::remove_file(self.folder.join(name)).ok();
        }
        Ok(())
    }
}

enum Fault {
    Json(serde_json::Error),
    Newer(u32),
}

impl Restored {
    /// What had been taken of a task that is put up again, whose sites know it by the same ids as before.
    pub(super) fn resume(&mut self, task: &mut TaskNote) -> Vec<(ResultNote, Held)> {
        match self.tasks.remove(&task.number) {
            Some((known, results)) if known.is(task) => {
                task.ids = known.ids;
                results
            }
            Some((known, _)) => {
                tracing::warn!(
                    known = known.name,
                    task = task.name,
                    "the run takes another course than before"
                );
                self.tasks.clear();
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn apply(&mut self, folder: &Path, record: Vec<u8>, state: &mut State) -> Result<(), Fault> {
        let end = record.iter().position(|byte| *byte == b'\n').unwrap_or(record.len());
        let head = record.get(..end).unwrap_or_default();
        let Record { entry, file } = serde_json::from_slice(head).map_err(Fault::Json)?;
        state.files.extend(file.clone());
        let body = match &file {
            Some(name) => Body::File(folder.join(name)),
            None => Body::Bytes(bytes::Bytes::from(record.get(end + 1..).unwrap_or_default().to_vec())),
        };
        match entry {
            Entry::Format { version } if version > FORMAT => return Err(Fault::Newer(version)),
            Entry::Format { .. } => {}
            Entry::Workflow { index } => {
                self.workflow = index;
                self.state = None;
                self.tasks.clear();
            }
            Entry::Checkpoint => {
                self.state = Some(body);
                self.tasks.clear();
            }
            Entry::Task(note) => {
                // What was put up after it, in another course of the run, does not count.
                drop(self.tasks.split_off(&(note.number + 1)));
                let before = self.tasks.remove(&note.number);
                let mut results = before.map(|(_, results)| results).unwrap_or_default();
                results.retain(|(result, _)| note.ids.get(&result.site) == Some(&result.id));
                self.tasks.insert(note.number, (note, results));
            }
            Entry::Result(note) if note.late => {
                state.late.insert(note.id.clone(), (record, file));
                self.late.retain(|(known, _)| known.site != note.site);
                self.late.push((note.clone(), Held::Logged(body, note.digest)));
            }
            Entry::Result(note) => {
                let task =
                    self.tasks.values_mut().find(|(task, _)| task.ids.get(&note.site) == Some(&note.id));
                if let Some((_, results)) = task {
                    // The last one counts: one before it could not be read again.
                    results.retain(|(known, _)| known.site != note.site);
                    results.push((note.clone(), Held::Logged(body, note.digest)));
                }
            }
            Entry::Ended(end) => self.ended = Some(end),
        }
        Ok(())
    }
}

fn line(entry: Entry) -> Vec<u8> {
    line_of(&Record { entry, file: None })
}

fn line_of(record: &Record) -> Vec<u8> {
    let mut line = serde_json::to_vec(record).expect("a record has only text keys");
    line.push(b'\n');
    line
}

fn write_synced(folder: &Path, name: &str, body: &Encoded<'_>) -> io::Result<()> {
    let mut file = File::create(folder.join(name))?;
    body.write_to(&mut file)?;
    file.sync_all()?;
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Removes files that no record names: what was being written when the run was broken off.
fn remove_strangers(folder: &Path, known: &BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if Uuid::try_parse(&name).is_ok() && !known.contains(&name) {
            fs::remove_file(entry.path()).ok();
        }
    }
}
