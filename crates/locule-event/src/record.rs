//! Events as lines of a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use locule_component::{
    BuildCx, BuildError, Built, Component, Event, EventCx, Kind, ObserveError, Observer, glob_matches,
};
use serde::Deserialize;
use serde_json::json;

/// Writes events into a file, one JSON object a line: `{"event": "_start_run", "time": 1764000000.123,
/// "identity": "site-1", "job_id": "…"}` and what the event says besides.
///
/// Named by a site's or server's kit, it writes into the kit's `state` folder; named by a job, into the folder of the
/// run. An existing file is appended to.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    events: Option<Vec<String>>,
    max_bytes: u64,
    file: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    file: File,
    bytes: u64,
}

/// Arguments of [`Record`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RecordArgs {
    /// Name of the file, without a folder.
    pub file: String,
    /// Shell-style patterns of the events that are written, by their names on the wire: `*_heartbeat*`. All if absent.
    pub events: Option<Vec<String>>,
    /// When the file is so long, nothing more is written (64 MiB).
    pub max_bytes: u64,
}

impl Default for RecordArgs {
    fn default() -> Self {
        RecordArgs { file: "events.jsonl".to_owned(), events: None, max_bytes: 64 << 20 }
    }
}

impl Component for Record {
    const KIND: Kind = Kind::Observer;
    const NAME: &'static str = "locule.event.Record";
    type Args = RecordArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: RecordArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        let wrong =
            |argument: &str, reason: String| BuildError::Argument { argument: argument.to_owned(), reason };
        let RecordArgs { file, events, max_bytes } = args;
        if Path::new(&file).file_name().is_none_or(|name| name != file.as_str()) {
            return Err(wrong("file", "expected the name of a file, without a folder".to_owned()));
        }
        let of_job = cx.app_dir.parent().filter(|_| !cx.job_id.is_empty());
        let path = of_job.map_or_else(|| cx.kit_dir.join("state"), Path::to_owned).join(file);
        let written = open(&path)
            .map_err(|error| wrong("file", format!("cannot write {}: {error}", path.display())))?;
        Ok(Built::Observer(Box::new(Record { path, events, max_bytes, file: Mutex::new(written) })))
    }
}

fn open(path: &Path) -> io::Result<Written> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let bytes = file.metadata()?.len();
    Ok(Written { file, bytes })
}

impl Observer for Record {
    fn observe(&self, event: &Event<'_>, cx: &EventCx<'_>) -> Result<(), ObserveError> {
        let name = event.name();
        if self.events.as_ref().is_some_and(|events| !events.iter().any(|wanted| glob_matches(wanted, name)))
        {
            return Ok(());
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = event.details();
        let job_id = cx.context.job_id();
        if !job_id.is_empty() {
            line.insert("job_id".to_owned(), json!(job_id));
        }
        line.insert("event".to_owned(), json!(name));
        line.insert("identity".to_owned(), json!(cx.context.identity()));
        line.insert("time".to_owned(), json!(since.as_secs_f64()));
        let mut line = serde_json::Value::Object(line).to_string();
        line.push('\n');
        self.write(&line)
    }
}

impl Record {
    fn write(&self, line: &str) -> Result<(), ObserveError> {
        let failed = |reason: &str| ObserveError::Failed(format!("{}: {reason}", self.path.display()));
        let mut written = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = written.bytes.saturating_add(line.len() as u64);
        if bytes > self.max_bytes {
            return Err(failed("the file is as long as `max_bytes` lets it be"));
        }
        written.file.write_all(line.as_bytes()).map_err(|error| failed(&error.to_string()))?;
        written.bytes = bytes;
        Ok(())
    }
}
