//! Takes jobs in that come chunk by chunk, and spools them to files.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use locule_message::Fqcn;
use locule_protocol::UploadChunk;

/// Bounds of uploads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UploadLimits {
    /// At one time.
    pub(crate) uploads: usize,
    /// Of one cell.
    pub(crate) per_cell: usize,
    /// Bytes of one.
    pub(crate) bytes: u64,
    /// From one chunk to the next.
    pub(crate) idle: Duration,
    /// From the first chunk to the last.
    pub(crate) whole: Duration,
}

/// An upload on its way.
#[derive(Debug)]
pub(crate) struct Upload {
    /// What is to be done with the file when it is whole, as a document.
    pub(crate) command: String,
    /// Where it is spooled; nowhere if the command will be refused anyway.
    spool: Option<Spool>,
    next: i64,
    received: u64,
    size: u64,
    began: Instant,
    used: Instant,
}

/// A file that is removed unless it is taken.
#[derive(Debug)]
pub(crate) struct Spool {
    path: PathBuf,
    file: File,
}

impl Spool {
    pub(crate) fn create(folder: &Path, name: &str) -> io::Result<Self> {
        let path = folder.join(name);
        Ok(Self { file: File::create_new(&path)?, path })
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // Moved away by whoever made a job of it.
        std::fs::remove_file(&self.path).ok();
    }
}

impl Upload {
    pub(crate) fn new(command: String, size: u64, spool: Option<Spool>, now: Instant) -> Self {
        Self { command, spool, next: 0, received: 0, size, began: now, used: now }
    }

    /// Takes the next chunk. Blocking.
    pub(crate) fn write(&mut self, chunk: &UploadChunk, now: Instant) -> Result<(), UploadError> {
        if chunk.seq != self.next {
            return Err(UploadError::Order);
        }
        self.next += 1;
        self.used = now;
        self.received = self.received.saturating_add(chunk.data.len() as u64);
        if self.received > self.size || (chunk.last && self.received != self.size) {
            return Err(UploadError::Size);
        }
        match &mut self.spool {
            Some(spool) => spool.file.write_all(&chunk.data).map_err(UploadError::Write),
            None => Ok(()),
        }
    }

    /// Where the file lies, if it was kept.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.spool.as_ref().map(|spool| spool.path.as_path())
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    #[error("chunk is not the one that comes next")]
    Order,
    #[error("file has another size than was announced")]
    Size,
    #[error("file cannot be spooled")]
    Write(#[source] io::Error),
}

/// The uploads of now. One whose chunk is being written is taken out, so that chunks cannot overtake each other.
#[derive(Debug)]
pub(crate) struct Uploads {
    pub(crate) limits: UploadLimits,
    open: HashMap<(Fqcn, String), Option<Upload>>,
}

impl Uploads {
    pub(crate) fn new(limits: UploadLimits) -> Self {
        Self { limits, open: HashMap::new() }
    }

    /// Makes a place for a new upload; false if there is none, or one of that name.
    pub(crate) fn reserve(&mut self, cell: &Fqcn, id: &str) -> bool {
        let theirs = self.open.keys().filter(|(other, _)| other == cell).count();
        let key = (cell.clone(), id.to_owned());
        if self.open.len() >= self.limits.uploads
            || theirs >= self.limits.per_cell
            || self.open.contains_key(&key)
        {
            return false;
        }
        self.open.insert(key, None);
        true
    }

    /// Takes an upload out, to write a chunk; its place stays.
    pub(crate) fn take(&mut self, cell: &Fqcn, id: &str) -> Option<Upload> {
        self.open.get_mut(&(cell.clone(), id.to_owned()))?.take()
    }

    /// Puts it back, unless it was given up meanwhile.
    pub(crate) fn put(&mut self, cell: &Fqcn, id: &str, upload: Upload) {
        if let Some(place) = self.open.get_mut(&(cell.clone(), id.to_owned())) {
            *place = Some(upload);
        }
    }

    /// Gives up an upload and its place.
    pub(crate) fn end(&mut self, cell: &Fqcn, id: &str) -> Option<Upload> {
        self.open.remove(&(cell.clone(), id.to_owned())).flatten()
    }

    /// Gives up what takes too long.
    pub(crate) fn sweep(&mut self, now: Instant) -> Vec<Upload> {
        let UploadLimits { idle, whole, .. } = self.limits;
        let late = |upload: &Upload| {
            now.saturating_duration_since(upload.used) > idle
                || now.saturating_duration_since(upload.began) > whole
        };
        let late: Vec<_> = self
            .open
            .iter()
            .filter(|(_, upload)| upload.as_ref().is_some_and(late))
            .map(|(key, _)| key.clone())
            .collect();
        late.into_iter().filter_map(|key| self.open.remove(&key).flatten()).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const LIMITS: UploadLimits = UploadLimits {
        uploads: 3,
        per_cell: 2,
        bytes: 1 << 20,
        idle: Duration::from_secs(60),
        whole: Duration::from_secs(3_600),
    };

    fn chunk(seq: i64, data: &'static [u8], last: bool) -> UploadChunk {
        UploadChunk { id: "t".into(), seq, opening: None, data: Bytes::from_static(data), last }
    }

    #[test]
    fn a_file_is_spooled_in_order_and_its_size_must_be_true() {
        let folder = tempfile::tempdir().unwrap();
        let now = Instant::now();
        let start = || {
            let spool = Spool::create(folder.path(), "f").unwrap();
            Upload::new("submit".into(), 4, Some(spool), now)
        };
        let mut upload = start();
        upload.write(&chunk(0, b"ab", false), now).unwrap();
        upload.write(&chunk(1, b"cd", true), now).unwrap();
        assert_eq!(std::fs::read(upload.path().unwrap()).unwrap(), b"abcd");
        drop(upload);
        assert!(!folder.path().join("f").exists(), "nothing is left behind");

        assert!(matches!(start().write(&chunk(1, b"ab", false), now), Err(UploadError::Order)));
        assert!(matches!(start().write(&chunk(0, b"abcde", false), now), Err(UploadError::Size)));
        assert!(matches!(start().write(&chunk(0, b"abc", true), now), Err(UploadError::Size)));
    }

    #[test]
    fn uploads_are_bounded_and_given_up_when_nothing_comes() {
        let (mut uploads, now) = (Uploads::new(LIMITS), Instant::now());
        let (a, b): (Fqcn, Fqcn) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert!(uploads.reserve(&a, "1") && uploads.reserve(&a, "2"));
        assert!(!uploads.reserve(&a, "3"), "two of one cell");
        assert!(uploads.reserve(&b, "1"), "another's may bear the same name");
        assert!(!uploads.reserve(&b, "2"), "three in all");
        uploads.put(&a, "1", Upload::new(String::new(), 1, None, now));
        let taken = uploads.take(&a, "1").unwrap();
        assert!(uploads.take(&a, "1").is_none(), "its chunk is being written");
        uploads.put(&a, "1", taken);
        assert!(uploads.sweep(now + LIMITS.idle).is_empty());
        assert_eq!(uploads.sweep(now + 2 * LIMITS.idle).len(), 1);
        assert!(uploads.take(&a, "1").is_none());
        uploads.put(&a, "1", Upload::new(String::new(), 1, None, now));
        assert!(uploads.take(&a, "1").is_none(), "it was given up");
    }
}
