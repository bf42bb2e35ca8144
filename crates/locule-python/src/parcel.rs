//! Models as a script of our own package gets and sends them: JSON, and a file of arrays beside it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use bytes::Bytes;
use locule_fobs::{Array, DataKind, Dxo, Map, Scalar, Shareable, Value};
use rustix::fs::{AtFlags, Mode, OFlags};
use serde_json::{Value as Json, json};

/// The folder that site and script exchange arrays in. It is held open from before the first script on: a script may
/// write to it and put something else in its place, and could lead the site astray if that found it by its name.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

impl Folder {
    /// Opens a folder that is there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    pub(crate) fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, name, flags, Mode::from_raw_mode(0o600))?.into())
    }

    /// Reads a file whole, at most `most` bytes.
    fn read(&self, name: &str, most: u64) -> io::Result<Bytes> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::RDONLY | OFlags::CLOEXEC;
        let file: File = rustix::fs::openat(&self.0, name, flags, Mode::empty())?.into();
        let meta = file.metadata()?;
        if !meta.is_file() || meta.len() > most {
            return Err(io::Error::other("it is no file, or larger than a result may be"));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default());
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, name: &str) {
        rustix::fs::unlinkat(&self.0, name, AtFlags::empty()).ok();
    }
}

/// Why something cannot be handed to a script, or taken from it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParcelError {
    #[error("a {0} cannot be handed to a script of this package")]
    Kind(&'static str),
    #[error("the file of arrays: {0}")]
    File(#[from] io::Error),
    #[error("what the script sent is not understood: {0}")]
    Wrong(&'static str),
}

/// Where arrays begin in their file, in bytes: numpy likes them there.
const ALIGNMENT: u64 = 64;

/// Writes arrays into a file that is made when the first one comes.
struct Arrays<'a> {
    folder: &'a Folder,
    name: &'a str,
    file: Option<File>,
    at: u64,
}

impl Arrays<'_> {
    fn add(&mut self, bytes: &[u8]) -> io::Result<Json> {
        if self.file.is_none() {
            self.file = Some(self.folder.create(self.name)?);
        }
        let Some(file) = &mut self.file else { return Err(io::Error::other("no file")) };
        let gap = self.at.next_multiple_of(ALIGNMENT) - self.at;
        file.write_all(&[0; ALIGNMENT as usize][..usize::try_from(gap).unwrap_or_default()])?;
        file.write_all(bytes)?;
        let start = self.at + gap;
        self.at = start + bytes.len() as u64;
        Ok(json!([start, bytes.len()]))
    }
}

/// A task's model for a script, and the file that its arrays are in, if there are any.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.utils.fl_model_utils`, as is [`taken`].
pub(crate) fn given(
    mut task: Shareable,
    folder: &Folder,
    name: &str,
) -> Result<(Json, Option<String>), ParcelError> {
    let mut arrays = Arrays { folder, name, file: None, at: 0 };
    let mut header = |key: &str| task.headers.remove(key);
    let (start, current, total) = (header("start_round"), header("current_round"), header("num_rounds"));
    let facts = [
        ("submit_model_name", header("submit_model_name")),
        ("validate_type", header("_validate_type")),
        ("job_id", header("job_id")),
        ("site_name", header("site_name")),
    ];
    let dxo = task.take_dxo().map_err(|_| ParcelError::Wrong("the task is no model"))?;
    let (mut params, mut kind, mut metrics, mut meta) = (Value::None, Value::None, Value::None, Map::new());
    if let Some(dxo) = dxo {
        meta = dxo.meta;
        if dxo.kind == DataKind::Metrics {
            metrics = dxo.data.into();
        } else {
            kind = if dxo.kind == DataKind::WeightDiff { "DIFF" } else { "FULL" }.into();
            params = dxo.data.into();
            metrics = meta.get("initial_metrics").cloned().unwrap_or_default();
        }
    }
    for (key, value) in facts {
        if let Some(value) = value {
            meta.insert(key, value);
        }
    }
    let model = Map::from_iter([
        ("params", params),
        ("params_type", kind),
        ("metrics", metrics),
        ("meta", meta.into()),
        ("start_round", start.unwrap_or_default()),
        ("current_round", current.unwrap_or_default()),
        ("total_rounds", total.unwrap_or_default()),
    ]);
    let said = pack(&model.into(), &mut arrays)?;
    Ok((said, arrays.file.map(|_| name.to_owned())))
}

/// A script's result, from what it said and the file that it left; the file is gone then.
pub(crate) fn taken(
    said: &Json,
    folder: &Folder,
    file: Option<&str>,
    most: u64,
) -> Result<Shareable, ParcelError> {
    let bytes = match file {
        Some(name) => {
            let bytes = folder.read(name, most);
            folder.remove(name);
            bytes?
        }
        None => Bytes::new(),
    };
    let Value::Map(mut model) = unpack(said, &bytes)? else {
        return Err(ParcelError::Wrong("the model is no object"));
    };
    let mut field = |key: &str| model.remove(key).unwrap_or_default();
    let map = |value: Value, what: &'static str| {
        if value.is_none() {
            return Ok(None);
        }
        let Value::Map(map) = value else { return Err(ParcelError::Wrong(what)) };
        Ok(Some(map))
    };
    let params = map(field("params"), "params are no dictionary")?;
    let metrics = map(field("metrics"), "metrics are no dictionary")?;
    let meta = map(field("meta"), "meta is no dictionary")?.unwrap_or_default();
    let kind = match field("params_type").as_str() {
        Some("DIFF") => DataKind::WeightDiff,
        Some("FULL") | None => DataKind::Weights,
        Some(_) => return Err(ParcelError::Wrong("params_type is neither FULL nor DIFF")),
    };
    let mut dxo = match (params, metrics) {
        (Some(params), metrics) => {
            let mut dxo = Dxo::new(kind, params);
            if let Some(metrics) = metrics {
                dxo.meta.insert("initial_metrics", metrics);
            }
            dxo
        }
        (None, Some(metrics)) => Dxo::new(DataKind::Metrics, metrics),
        (None, None) => return Err(ParcelError::Wrong("a result needs params or metrics")),
    };
    let validate_type = meta.get("validate_type").cloned();
    for (key, value) in meta.iter() {
        dxo.meta.insert_value(key.clone(), value.clone());
    }
    let rounds = [
        ("start_round", field("start_round")),
        ("current_round", field("current_round")),
        ("num_rounds", field("total_rounds")),
        ("_validate_type", validate_type.unwrap_or_default()),
    ];
    let mut result = Shareable::with_dxo(dxo);
    for (key, value) in rounds {
        if !value.is_none() {
            result.set_header(key, value);
        }
    }
    Ok(result)
}

/// A value as JSON: what JSON has no word for is an object with one key that begins with `$`.
fn pack(value: &Value, arrays: &mut Arrays<'_>) -> Result<Json, ParcelError> {
    let float = |number: f64| match number.is_finite() {
        true => json!(number),
        false => json!({ "$float": number.to_string() }),
    };
    let list = |items: &[Value], arrays: &mut Arrays<'_>| {
        items.iter().map(|item| pack(item, arrays)).collect::<Result<Json, _>>()
    };
    Ok(match value {
        Value::None => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(value) | Value::Scalar(Scalar::I64(value)) => json!(value),
        Value::Scalar(Scalar::I32(value)) => json!(value),
        Value::UInt(value) => json!(value),
        Value::Float(value) | Value::Scalar(Scalar::F64(value)) => float(*value),
        Value::Scalar(Scalar::F32(value)) => float(f64::from(*value)),
        Value::Str(text) | Value::Datetime(text) => json!(text),
        Value::Enum { member, .. } => json!(value.as_str().unwrap_or(member)),
        Value::Bytes(bytes) => json!({ "$bytes": arrays.add(bytes)? }),
        Value::Array(array) => json!({ "$array": arrays.add(&array.to_npy())? }),
        Value::OpaqueArray(npy) => json!({ "$array": arrays.add(npy)? }),
        Value::List(items) | Value::Set(items) => list(items, arrays)?,
        Value::Tuple(items) => json!({ "$tuple": list(items, arrays)? }),
        Value::Map(map) => {
            let plain = |(key, _): (&Value, &Value)| matches!(key, Value::Str(key) if !key.starts_with('$'));
            if map.iter().all(plain) {
                let pairs = map.iter_str().map(|(key, value)| Ok((key.to_owned(), pack(value, arrays)?)));
                pairs.collect::<Result<Json, ParcelError>>()?
            } else {
                pairs(map.iter(), arrays)?
            }
        }
        Value::OrderedDict(items) => pairs(items.iter().map(|(key, value)| (key, value)), arrays)?,
        Value::ArrayRef(_)
        | Value::Shareable(_)
        | Value::Dxo(_)
        | Value::Context(_)
        | Value::Datum(_)
        | Value::Object(_) => return Err(ParcelError::Kind(value.kind())),
    })
}

fn pairs<'a>(
    pairs: impl Iterator<Item = (&'a Value, &'a Value)>,
    arrays: &mut Arrays<'_>,
) -> Result<Json, ParcelError> {
    let pair = |(key, value): (&Value, &Value)| Ok(json!([pack(key, arrays)?, pack(value, arrays)?]));
    Ok(json!({ "$map": pairs.map(pair).collect::<Result<Json, ParcelError>>()? }))
}

/// What [`pack`] has made, and what the package makes: `serde_json` bounds how deep it is.
pub(crate) fn unpack(said: &Json, arrays: &Bytes) -> Result<Value, ParcelError> {
    Ok(match said {
        Json::Null => Value::None,
        Json::Bool(value) => (*value).into(),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => Value::UInt(number),
            (None, None) => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => {
            Value::List(items.iter().map(|item| unpack(item, arrays)).collect::<Result<_, _>>()?)
        }
        Json::Object(object) => {
            let only = object.iter().next().filter(|(key, _)| object.len() == 1 && key.starts_with('$'));
            match only {
                Some((kind, item)) => special(kind, item, arrays)?,
                None => {
                    let pair = |(key, item): (&String, &Json)| Ok((key.clone(), unpack(item, arrays)?));
                    object.iter().map(pair).collect::<Result<Map, ParcelError>>()?.into()
                }
            }
        }
    })
}

fn special(kind: &str, item: &Json, arrays: &Bytes) -> Result<Value, ParcelError> {
    let part = |item: &Json| {
        let place = |index: usize| item.get(index).and_then(Json::as_u64).map(usize::try_from)?.ok();
        let (start, length) = place(0).zip(place(1)).ok_or(ParcelError::Wrong("a place in the file"))?;
        let end = start.checked_add(length).filter(|end| *end <= arrays.len());
        end.map(|end| arrays.slice(start..end)).ok_or(ParcelError::Wrong("it ends before an array does"))
    };
    let items = || item.as_array().ok_or(ParcelError::Wrong("a list of items"));
    match kind {
        "$float" => {
            let number = item.as_str().and_then(|text| text.parse::<f64>().ok());
            number.map(Value::from).ok_or(ParcelError::Wrong("a number"))
        }
        "$tuple" => {
            let items = items()?.iter().map(|item| unpack(item, arrays));
            Ok(Value::Tuple(items.collect::<Result<_, _>>()?))
        }
        "$map" => {
            let mut map = Map::new();
            for pair in items()? {
                let (Some(key), Some(value)) = (pair.get(0), pair.get(1)) else {
                    return Err(ParcelError::Wrong("a pair"));
                };
                map.insert_value(unpack(key, arrays)?, unpack(value, arrays)?);
            }
            Ok(map.into())
        }
        "$bytes" => part(item).map(Value::Bytes),
        "$array" => Array::from_npy(part(item)?)
            .map(Value::Array)
            .map_err(|_| ParcelError::Wrong("an array is no NPY of numbers")),
        _ => Err(ParcelError::Wrong("an object of an unknown kind")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        (dir, folder)
    }

    #[test]
    fn a_model_goes_to_a_script_and_back() {
        let (dir, folder) = folder();
        let weights = Array::from_f64(&[2, 2], &[0.5, -1.0, f64::NAN, 1e300]).unwrap();
        let mut dxo = Dxo::new(DataKind::WeightDiff, Map::from_iter([("w", weights.clone())]));
        dxo.meta.insert("initial_metrics", Map::from_iter([("loss", 0.1)]));
        dxo.meta.insert("NUM_STEPS_CURRENT_ROUND", 7_i64);
        dxo.meta.insert("odd", Map::from_iter([("$float", Value::Float(f64::NEG_INFINITY))]));
        let mut task = Shareable::with_dxo(dxo);
        task.set_header("current_round", 3_i64);
        task.set_header("num_rounds", 5_i64);
        let (said, file) = given(task.clone(), &folder, "task-1").unwrap();
        assert_eq!((&said["params_type"], &said["total_rounds"]), (&json!("DIFF"), &json!(5)));
        let said = serde_json::from_str(&said.to_string()).unwrap();
        let back = taken(&said, &folder, file.as_deref(), 1 << 20).unwrap();
        let (back_dxo, dxo) = (back.dxo().unwrap().unwrap(), task.dxo().unwrap().unwrap());
        assert_eq!((back_dxo.kind, back_dxo.meta), (dxo.kind, dxo.meta));
        let array = back_dxo.data.get("w").and_then(Value::as_array).unwrap();
        assert_eq!((array.shape(), array.bytes()), (weights.shape(), weights.bytes()));
        assert_eq!(back.headers.int("num_rounds"), Some(5));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the file is gone");
    }

    #[test]
    fn a_site_reads_no_file_that_a_script_points_to() {
        let (dir, folder) = folder();
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&secret, "a key").unwrap();
        std::os::unix::fs::symlink(&secret, dir.path().join("result")).unwrap();
        assert!(folder.read("result", 100).is_err());
        assert!(folder.create("result").is_err(), "nor does it write there");
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        assert!(folder.read("folder", 100).is_err());
        std::fs::write(dir.path().join("large"), "12345").unwrap();
        assert!(folder.read("large", 4).is_err());
        assert_eq!(folder.read("large", 5).unwrap(), "12345");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let (dir, folder) = folder();
        std::fs::write(dir.path().join("arrays"), "no npy at all").unwrap();
        for said in [
            json!([]),
            json!({}),
            json!({ "params": 3 }),
            json!({ "params": {}, "params_type": "HALF" }),
            json!({ "params": { "w": { "$array": [0, 5] } } }),
            json!({ "params": { "w": { "$array": [0, 500] } } }),
            json!({ "params": { "w": { "$array": [u64::MAX, 1] } } }),
            json!({ "params": { "w": { "$array": -1 } } }),
            json!({ "metrics": { "$map": [1] } }),
            json!({ "metrics": { "$float": "x" } }),
            json!({ "metrics": { "loss": { "$pickle": "x" } } }),
        ] {
            std::fs::write(dir.path().join("arrays"), "no npy at all").unwrap();
            assert!(taken(&said, &folder, Some("arrays"), 100).is_err(), "{said}");
        }
    }
}
