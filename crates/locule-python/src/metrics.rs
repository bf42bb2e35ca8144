//! The metrics that a script logs.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use locule_component::Metric;
use locule_fobs::{Map, Scalar, Value};
use serde_json::{Number, json};

/// Keeps the metrics of a job at its site: each a line of `metrics.jsonl` in the run's folder, and those that were
/// not fetched yet.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    file: PathBuf,
    /// Bytes that may still be written.
    left: usize,
    waiting: Vec<Metric>,
    lost: u64,
}

/// Most bytes of the file.
const MAX_FILE: usize = 64 << 20;
/// Most metrics that wait for being fetched.
const MAX_WAITING: usize = 10_000;
/// Longest text of a metric, in bytes.
const MAX_TEXT: usize = 4096;

impl Metrics {
    pub(crate) fn in_file(file: PathBuf) -> Self {
        let written =
            std::fs::metadata(&file).map_or(0, |meta| usize::try_from(meta.len()).unwrap_or(usize::MAX));
        let left = MAX_FILE.saturating_sub(written);
        Self(Arc::new(Mutex::new(Kept { file, left, waiting: Vec::new(), lost: 0 })))
    }

    /// Takes what `flare.log` and the writers of nvflare's tracking send.
    pub(crate) fn take(&self, body: &Map) {
        let Some(tag) = body.str("key").filter(|tag| tag.len() <= MAX_TEXT) else { return };
        let member = |key| match body.get(key) {
            Some(Value::Enum { member, .. }) if member.len() <= MAX_TEXT => Some(member.clone()),
            _ => None,
        };
        let Some(kind) = member("data_type") else { return };
        let writer = member("writer");
        let value = body.get("value").cloned().unwrap_or_default();
        let readable = to_json(&value, 0);
        let step = body.int("global_step");
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = json!({ "key": tag, "type": kind, "step": step, "value": readable });
        kept.write(&format!("{line}\n"));
        if kept.waiting.len() < MAX_WAITING {
            kept.waiting.push(Metric { key: tag.to_owned(), kind, value, step, writer });
        } else {
            kept.lost += 1;
        }
    }

    /// Those that came since this was asked last.
    pub(crate) fn fetch(&self) -> Vec<Metric> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.lost > 0 {
            tracing::warn!(lost = kept.lost, "a script logs more metrics than can be sent");
            kept.lost = 0;
        }
        std::mem::take(&mut kept.waiting)
    }
}

impl Kept {
    fn write(&mut self, line: &str) {
        if line.len() > self.left {
            return;
        }
        self.left -= line.len();
        let file = File::options().create(true).append(true).open(&self.file);
        if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
            tracing::debug!(%error, "metric not kept");
        }
    }
}

fn to_json(value: &Value, depth: usize) -> serde_json::Value {
    let float = |number: f64| Number::from_f64(number).map_or(json!(number.to_string()), Into::into);
    match value {
        Value::None => serde_json::Value::Null,
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::UInt(value) => json!(value),
        Value::Float(value) => float(*value),
        Value::Scalar(Scalar::F32(value)) => float(f64::from(*value)),
        Value::Scalar(Scalar::F64(value)) => float(*value),
        Value::Scalar(Scalar::I32(value)) => json!(value),
        Value::Scalar(Scalar::I64(value)) => json!(value),
        Value::Str(text) => json!(text.chars().take(MAX_TEXT).collect::<String>()),
        Value::Map(map) if depth < 4 => {
            map.iter_str().map(|(key, value)| (key.to_owned(), to_json(value, depth + 1))).collect()
        }
        Value::List(items) | Value::Tuple(items) if depth < 4 && items.len() <= 1000 => {
            items.iter().map(|item| to_json(item, depth + 1)).collect()
        }
        Value::Bytes(_)
        | Value::List(_)
        | Value::Map(_)
        | Value::Tuple(_)
        | Value::Set(_)
        | Value::OrderedDict(_)
        | Value::Datetime(_)
        | Value::Enum { .. }
        | Value::Array(_)
        | Value::OpaqueArray(_)
        | Value::ArrayRef(_)
        | Value::Shareable(_)
        | Value::Dxo(_)
        | Value::Context(_)
        | Value::Datum(_)
        | Value::Object(_) => json!(format!("({})", value.kind())),
    }
}
