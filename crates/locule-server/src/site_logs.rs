//! Logs that sites stream to the server, kept beside their jobs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use locule_fobs::{Map, Value};
use locule_protocol::{AuxRequest, log_stream};

use crate::oversight::JobFiles;

/// Below the folder of a run: a folder for each site.
const FOLDER: &str = "site_logs";

/// Most bytes of a log.
const MAX_LOG: u64 = 8 << 20;

/// Most logs of a site in a job.
const MAX_LOGS: usize = 4;

/// Most streams of a site at a time; of more, the one that was silent for longest ends.
const MAX_STREAMS: usize = 32;

/// Takes streams of logs in. What is larger than a log may be is left out, and the log says so.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.stream_runner` and `nvflare.app_common.logging.job_log_receiver`.
#[derive(Debug, Default)]
pub(crate) struct SiteLogs(Mutex<Streams>);

/// By site and the site's id for it.
#[derive(Debug, Default)]
struct Streams {
    open: BTreeMap<(String, String), Stream>,
    turn: u64,
}

/// A log that comes in. Its file is open only while something is written, so that sites hold no files open here.
#[derive(Debug)]
struct Stream {
    path: PathBuf,
    next: i64,
    left: u64,
    turn: u64,
}

impl SiteLogs {
    /// Takes a piece of a stream of this site in; the code of the answer. Blocking.
    pub(crate) fn take(
        &self,
        site: &str,
        run_dir: impl Fn() -> Option<PathBuf>,
        aux: &AuxRequest,
    ) -> &'static str {
        let header = |key| aux.headers.str(key).filter(|text| (1..=128).contains(&text.len()));
        let (Some(id), Some(channel), Some(topic), Some(number)) = (
            header(log_stream::ID),
            header(log_stream::CHANNEL),
            header(log_stream::TOPIC),
            aux.headers.int(log_stream::NUMBER),
        ) else {
            return "BAD_REQUEST_DATA";
        };
        if (channel, topic) != (log_stream::OF_LOGS, log_stream::LIVE) {
            return "EXECUTION_EXCEPTION"; // nobody takes other streams
        }
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (site.to_owned(), id.to_owned());
        if number == 0 && !streams.open.contains_key(&key) {
            let Some(context) = aux.headers.map(log_stream::CONTEXT) else { return "BAD_REQUEST_DATA" };
            let Some(run_dir) = run_dir() else { return "EXECUTION_EXCEPTION" };
            match begin(&run_dir, site, context) {
                Ok(path) => streams.open(key.clone(), path),
                Err(error) => {
                    tracing::warn!(site, %error, "a site's log is not kept");
                    return "EXECUTION_EXCEPTION";
                }
            }
        }
        streams.turn += 1;
        let turn = streams.turn;
        let Some(stream) = streams.open.get_mut(&key) else { return "BAD_REQUEST_DATA" };
        stream.turn = turn;
        if number == stream.next - 1 {
            return "OK"; // once more, since its answer was lost
        }
        if number != stream.next {
            streams.open.remove(&key);
            return "BAD_REQUEST_DATA";
        }
        stream.next += 1;
        if let Some(bytes) = aux.fields.bytes(log_stream::DATA)
            && let Err(error) = stream.write(bytes)
        {
            tracing::warn!(site, %error, "a site's log is not kept");
            streams.open.remove(&key);
            return "EXECUTION_EXCEPTION";
        }
        if aux.fields.bool(log_stream::END) == Some(true) {
            streams.open.remove(&key);
        }
        "OK"
    }

    /// A site gives a stream up.
    pub(crate) fn abort(&self, site: &str, aux: &AuxRequest) -> &'static str {
        let Some(id) = aux.headers.str(log_stream::ID) else { return "BAD_REQUEST_DATA" };
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        streams.open.remove(&(site.to_owned(), id.to_owned()));
        "OK"
    }
}

impl Streams {
    fn open(&mut self, key: (String, String), path: PathBuf) {
        // What is sent anew takes the place of what was there.
        self.open.retain(|(site, _), stream| *site != key.0 || stream.path != path);
        let of_site = || self.open.iter().filter(|((site, _), _)| *site == key.0);
        if of_site().count() >= MAX_STREAMS {
            let oldest = of_site().min_by_key(|(_, stream)| stream.turn).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| self.open.remove(&oldest));
        }
        self.open.insert(key, Stream { path, next: 0, left: MAX_LOG, turn: 0 });
    }
}

impl Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        let kept = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        // A job that was deleted meanwhile gets no file again.
        let mut file = File::options().append(true).open(&self.path)?;
        file.write_all(&bytes[..kept])?;
        self.left -= kept as u64;
        if kept < bytes.len() {
            self.left = 0;
            file.write_all(b"\n(the log is longer than is kept here)\n")?;
        }
        Ok(())
    }
}

/// A site begins to send a log, perhaps once more: the file that it goes into, empty.
fn begin(run_dir: &Path, site: &str, context: &Map) -> io::Result<PathBuf> {
    let folder = run_dir.join(FOLDER).join(site);
    let name = context.get(log_stream::FILE_NAME).and_then(Value::as_str).unwrap_or("log.txt");
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) || name.starts_with('.') {
        return Err(io::Error::other("it has an unusual name"));
    }
    if !run_dir.is_dir() {
        return Err(io::Error::other("the job has no folder"));
    }
    fs::create_dir_all(&folder)?;
    let path = folder.join(name);
    if !path.exists() && fs::read_dir(&folder)?.count() >= MAX_LOGS {
        return Err(io::Error::other("the site has sent too many"));
    }
    File::create(&path)?;
    Ok(path)
}

impl JobFiles {
    /// The ends of the logs that a site has sent, by name; those of the server's half if `site` is none. At most
    /// `most` bytes of each, in whole lines. Blocking.
    #[must_use]
    pub fn logs(&self, site: Option<&str>, most: u64) -> Vec<(String, String)> {
        let Some(site) = site else {
            let own = tail(&self.run_dir.join("log.txt"), most).ok();
            return own.map(|text| ("log.txt".to_owned(), text)).into_iter().collect();
        };
        let entries = fs::read_dir(self.run_dir.join(FOLDER).join(site)).into_iter().flatten().flatten();
        let mut logs: Vec<_> = entries
            .take(MAX_LOGS)
            .filter_map(|entry| {
                Some((entry.file_name().into_string().ok()?, tail(&entry.path(), most).ok()?))
            })
            .collect();
        logs.retain(|(_, text)| !text.is_empty());
        logs.sort();
        logs
    }
}

fn tail(path: &Path, most: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(most);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let whole = if start == 0 { &*text } else { text.split_once('\n').map_or(&*text, |(_, rest)| rest) };
    Ok(whole.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(id: &str, number: i64, data: &str, end: bool) -> AuxRequest {
        let mut aux = AuxRequest::new(log_stream::REQUEST, Map::new());
        aux.headers.insert(log_stream::ID, id);
        aux.headers.insert(log_stream::CHANNEL, log_stream::OF_LOGS);
        aux.headers.insert(log_stream::TOPIC, log_stream::LIVE);
        aux.headers.insert(log_stream::NUMBER, number);
        if number == 0 {
            aux.headers.insert(log_stream::CONTEXT, Map::from_iter([(log_stream::FILE_NAME, "log.txt")]));
        }
        aux.fields.insert(log_stream::DATA, bytes::Bytes::copy_from_slice(data.as_bytes()));
        aux.fields.insert(log_stream::END, end);
        aux
    }

    fn logs(dir: &Path, site: &str) -> Vec<(String, String)> {
        JobFiles { run_dir: dir.to_owned(), package: PathBuf::new() }.logs(Some(site), 1 << 20)
    }

    #[test]
    fn a_log_comes_in_pieces_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let (site_logs, there) = (SiteLogs::default(), || Some(dir.path().to_owned()));
        for (number, data, end) in
            [(0, "one\n", false), (0, "one\n", false), (1, "two\n", false), (2, "", true)]
        {
            assert_eq!(site_logs.take("site-1", there, &piece("1", number, data, end)), "OK");
        }
        assert_eq!(logs(dir.path(), "site-1"), [("log.txt".to_owned(), "one\ntwo\n".to_owned())]);
        assert_eq!(site_logs.take("site-1", there, &piece("1", 3, "three", false)), "BAD_REQUEST_DATA");
        assert_eq!(site_logs.take("site-1", there, &piece("2", 0, "again\n", false)), "OK");
        assert_eq!(logs(dir.path(), "site-1")[0].1, "again\n", "a job that was started again");
        assert_eq!(site_logs.take("site-1", there, &piece("2", 2, "gap", false)), "BAD_REQUEST_DATA");
        assert!(site_logs.0.lock().unwrap().open.is_empty());
    }

    #[test]
    fn a_site_fills_no_disk_and_leaves_its_folder_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (site_logs, there) = (SiteLogs::default(), || Some(dir.path().to_owned()));
        let line = "x".repeat(1 << 20);
        for number in 0..20 {
            assert_eq!(site_logs.take("site-1", there, &piece("1", number, &line, false)), "OK");
        }
        let kept = dir.path().join("site_logs/site-1/log.txt").metadata().unwrap().len();
        assert!(kept < MAX_LOG + 100, "{kept}");
        for (id, name) in ["../log.txt", "/etc/passwd", ".hidden", "", "a\nb"].into_iter().enumerate() {
            let mut first = piece(&format!("bad-{id}"), 0, "x", true);
            first.headers.insert(log_stream::CONTEXT, Map::from_iter([(log_stream::FILE_NAME, name)]));
            assert_eq!(site_logs.take("site-1", there, &first), "EXECUTION_EXCEPTION", "{name}");
        }
        for id in 0..10 {
            let mut first = piece(&format!("more-{id}"), 0, "x", true);
            let name = format!("log-{id}.txt");
            first.headers.insert(log_stream::CONTEXT, Map::from_iter([(log_stream::FILE_NAME, name)]));
            site_logs.take("site-1", there, &first);
        }
        assert_eq!(logs(dir.path(), "site-1").len(), MAX_LOGS);
        assert_eq!(site_logs.take("site-3", there, &piece("1", 0, "", true)), "OK");
        assert_eq!(logs(dir.path(), "site-3"), [], "of an empty one there is nothing to show");
        assert_eq!(site_logs.take("site-2", || None, &piece("1", 0, "x", true)), "EXECUTION_EXCEPTION");
    }

    #[test]
    fn whoever_opens_many_streams_ends_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let site_logs = SiteLogs::default();
        let in_job = |job: usize| move |run: &Path| Some(run.join(format!("job-{job}")));
        let take = |site: &str, job: usize, piece: &AuxRequest| {
            let run_dir = in_job(job)(dir.path()).unwrap();
            fs::create_dir_all(&run_dir).unwrap();
            site_logs.take(site, || Some(run_dir.clone()), piece)
        };
        assert_eq!(take("site-1", 0, &piece("mine", 0, "one\n", false)), "OK");
        for id in 0..2 * MAX_STREAMS {
            assert_eq!(take("site-2", id, &piece(&format!("{id}"), 0, "x", false)), "OK");
        }
        assert_eq!(site_logs.0.lock().unwrap().open.len(), 1 + MAX_STREAMS);
        assert_eq!(take("site-1", 0, &piece("mine", 1, "two\n", true)), "OK");
        // The same log once more ends the stream before it.
        for id in ["a", "b", "c"] {
            assert_eq!(take("site-3", 0, &piece(id, 0, "x", false)), "OK");
        }
        assert_eq!(site_logs.0.lock().unwrap().open.len(), 1 + MAX_STREAMS);
    }
}
