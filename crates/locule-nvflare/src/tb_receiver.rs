//! What sites track, as TensorBoard reads it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use locule_component::{BuildCx, BuildError, Built, Component, Event, EventCx, Kind, ObserveError, Observer};
use prost::Message;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::run_file::{self, RunFile};

/// Writes the numbers that sites track into files for TensorBoard, a folder for each site: `tb_events/<site>` in the
/// run's folder at the server, while the job runs. Several numbers of one key are shown as `key/name`; texts and
/// pictures are left out.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_opt.tracking.tb.tb_receiver`; the files, TensorBoard's `event.proto` and TensorFlow's
/// records.
#[derive(Debug)]
pub struct TBAnalyticsReceiver {
    folder: String,
    run_dir: PathBuf,
    files: Mutex<BTreeMap<String, File>>,
}

/// Arguments of [`TBAnalyticsReceiver`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TBAnalyticsReceiverArgs {
    /// Folder of the files, in the run's.
    pub tb_folder: String,
    /// Has no effect: everything that sites track is written.
    pub events: Option<Vec<String>>,
}

impl Default for TBAnalyticsReceiverArgs {
    fn default() -> TBAnalyticsReceiverArgs {
        TBAnalyticsReceiverArgs { tb_folder: "tb_events".to_owned(), events: None }
    }
}

impl Component for TBAnalyticsReceiver {
    const KIND: Kind = Kind::Observer;
    const NAME: &'static str = "nvflare.app_opt.tracking.tb.tb_receiver.TBAnalyticsReceiver";
    type Args = TBAnalyticsReceiverArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: TBAnalyticsReceiverArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        RunFile::new(&args.tb_folder, "site", "tb_folder")?;
        let (folder, run_dir) = (args.tb_folder, run_file::run_dir(cx));
        Ok(Built::Observer(Box::new(TBAnalyticsReceiver { folder, run_dir, files: Mutex::default() })))
    }
}

impl Observer for TBAnalyticsReceiver {
    fn observe(&self, event: &Event<'_>, _: &EventCx<'_>) -> Result<(), ObserveError> {
        let Event::MetricTracked { site, key, step, value } = *event else { return Ok(()) };
        let values = values(key, value);
        if values.is_empty() {
            return Ok(());
        }
        let record = Record {
            wall_time: now(),
            step: step.parse().ok(),
            summary: Some(Summary { value: values }),
            ..Record::default()
        };
        self.write(site, &record).map_err(|error| {
            ObserveError::Failed(format!("cannot write what {site} tracks for TensorBoard: {error}"))
        })
    }
}

impl TBAnalyticsReceiver {
    /// Appends a record to the site's file, which is a new one for each start of the job's half: TensorBoard reads all
    /// that lie in a folder.
    fn write(&self, site: &str, record: &Record) -> io::Result<()> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get_mut(site) {
            return append(file, record);
        }
        let name = format!("events.out.tfevents.{:010}.locule.{}", now() as u64, std::process::id());
        let folder = Path::new(&self.folder).join(site);
        let place = RunFile::new(&folder.to_string_lossy(), &name, "site").map_err(io::Error::other)?;
        let path = place.in_run(&self.run_dir);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mut file = File::options().create(true).append(true).open(path)?;
        append(
            &mut file,
            &Record { wall_time: now(), file_version: Some(VERSION.to_owned()), ..Record::default() },
        )?;
        append(&mut file, record)?;
        files.insert(site.to_owned(), file);
        Ok(())
    }
}

/// The numbers of a tracked value, which is JSON, under their tags.
fn values(key: &str, value: &str) -> Vec<Tagged> {
    let tagged = |tag: String, number: f64| Tagged { tag, simple_value: Some(number as f32) };
    match serde_json::from_str(value) {
        Ok(Json::Number(number)) => {
            number.as_f64().map(|number| tagged(key.to_owned(), number)).into_iter().collect()
        }
        Ok(Json::Object(parts)) => {
            let part = |(name, part): (&String, &Json)| Some(tagged(format!("{key}/{name}"), part.as_f64()?));
            parts.iter().filter_map(part).collect()
        }
        Ok(Json::Null | Json::Bool(_) | Json::String(_) | Json::Array(_)) | Err(_) => Vec::new(),
    }
}

/// Seconds since the Unix epoch.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// What the first record of a file says.
const VERSION: &str = "brain.Event:2";

/// The part of TensorBoard's `Event` that is written here.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, optional, tag = "2")]
    step: Option<i64>,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Tagged>,
}

#[derive(Clone, PartialEq, Message)]
struct Tagged {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// Appends a record: its length, a checksum of that, the record, a checksum of it.
fn append(file: &mut File, record: &Record) -> io::Result<()> {
    let body = record.encode_to_vec();
    let length = (body.len() as u64).to_le_bytes();
    let parts = [&length[..], &masked(&length).to_le_bytes(), &body, &masked(&body).to_le_bytes()];
    file.write_all(&parts.concat())
}

/// A CRC-32C as TensorFlow's records have it, so that the checksum of what holds checksums is another.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use locule_component::{EventBus, RunContext};

    fn records(path: &Path) -> Vec<Record> {
        let bytes = fs::read(path).unwrap();
        let (mut left, mut records) = (&bytes[..], Vec::new());
        while let Some((length, rest)) = left.split_first_chunk::<8>() {
            let (sum, rest) = rest.split_first_chunk::<4>().unwrap();
            assert_eq!(u32::from_le_bytes(*sum), masked(length));
            let (body, rest) = rest.split_at(u64::from_le_bytes(*length) as usize);
            let (sum, rest) = rest.split_first_chunk::<4>().unwrap();
            assert_eq!(u32::from_le_bytes(*sum), masked(body));
            records.push(Record::decode(body).unwrap());
            left = rest;
        }
        records
    }

    #[test]
    fn numbers_go_into_a_file_of_their_site_and_the_rest_nowhere() {
        let run = tempfile::tempdir().unwrap();
        let receiver = TBAnalyticsReceiver {
            folder: "tb_events".into(),
            run_dir: run.path().to_owned(),
            files: Mutex::default(),
        };
        let bus = EventBus::new(vec![("tb".to_owned(), Box::new(receiver))]);
        let context = RunContext::new("server", "job-1").open();
        for (site, key, step, value) in [
            ("site-1", "loss", "3", "0.5"),
            ("site-1", "eval", "", r#"{ "auc": 0.75, "note": "good" }"#),
            ("site-1", "note", "4", "\"fine\""),
            ("site-2", "note", "4", "\"fine\""),
            ("..", "loss", "1", "1"),
        ] {
            bus.fire(&Event::MetricTracked { site, key, step, value }, &context);
        }
        let folder = run.path().join("tb_events");
        let sites: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(sites, [folder.join("site-1")]);
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 1, "no name leads out of the folder");
        let files: Vec<_> = fs::read_dir(&sites[0]).unwrap().map(|entry| entry.unwrap().path()).collect();
        let records = records(&files[0]);
        assert_eq!(records[0].file_version.as_deref(), Some("brain.Event:2"));
        let shown = |record: &Record| {
            let value = &record.summary.as_ref().unwrap().value[0];
            (record.step, value.tag.clone(), value.simple_value)
        };
        assert_eq!(shown(&records[1]), (Some(3), "loss".into(), Some(0.5)));
        assert_eq!(shown(&records[2]), (None, "eval/auc".into(), Some(0.75)));
        assert_eq!(records.len(), 3);
    }
}
