//! The journal in a file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use locule_journal::record::MAGIC;
use locule_journal::{AppendError, Damage, Journal, RecordReader, ReplayError, Torn, encode_record};

/// A journal in one file, which only its owner can read.
///
/// The file is locked while it is open, so no two processes can append to it. Where locks do nothing, as on some
/// network file systems, the number of the writer keeps the older one from appending; it is in a file beside the
/// journal, with the ending `.writer`.
#[derive(Debug)]
pub struct FileJournal {
    path: PathBuf,
    file: File,
    /// Length of the good part: what has been flushed.
    len: u64,
    torn: Option<Torn>,
    writer: u64,
    /// Set when it is no longer known what reached the disk.
    broken: bool,
}

impl FileJournal {
    /// Opens a journal, or creates it in a folder that is there.
    ///
    /// The remains of an append that was cut short are cut off; [`FileJournal::torn`] tells of them. A
    /// file that others could read is closed to them.
    ///
    /// # Errors
    /// [`OpenError`], which names the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref().to_path_buf();
        let failed = |source| OpenError::Io { path: path.clone(), source };
        let file = open_or_create(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut journal = Self { path: path.clone(), file, len: 0, torn: None, writer: 0, broken: false };
        // Before it is read, so that no earlier writer adds to what has been.
        journal.take_over().map_err(failed)?;
        let bytes = journal.read().map_err(failed)?;
        let mut reader = RecordReader::new(&bytes);
        let checked = reader.by_ref().try_for_each(|record| record.map(drop));
        checked.map_err(|damage| OpenError::Damaged { path: path.clone(), damage })?;
        (journal.len, journal.torn) = (reader.offset(), reader.torn());
        journal.settle().map_err(failed)?;
        Ok(journal)
    }

    /// Becomes the next writer.
    fn take_over(&mut self) -> io::Result<()> {
        self.writer = self.last_writer()? + 1;
        let (path, new) = (self.beside(".writer"), self.beside(".writer.new"));
        write_anew(&new, format!("{}\n", self.writer).as_bytes())?;
        fs::rename(new, &path)?;
        sync_folder_of(&path)
    }

    /// The number of who opened the journal last; 0 before anybody did.
    fn last_writer(&self) -> io::Result<u64> {
        match fs::read_to_string(self.beside(".writer")) {
            Ok(text) => text.trim().parse().map_err(|error| {
                let path = self.beside(".writer");
                io::Error::other(format!("{} holds no number of a writer: {error}", path.display()))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Refuses what would be written after somebody else has taken over.
    fn check_writer(&self) -> Result<(), AppendError> {
        match self.last_writer() {
            Ok(by) if by > self.writer => Err(AppendError::Superseded { own: self.writer, by }),
            Ok(_) => Ok(()),
            Err(error) => Err(AppendError::Write(error)),
        }
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        self.path.with_file_name(name)
    }

    /// Where the journal is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was cut off when the journal was opened: an append that a crash interrupted. Worth a line in
    /// the log; nothing that was acknowledged is lost.
    pub fn torn(&self) -> Option<Torn> {
        self.torn
    }

    /// Brings the file in the state that appends begin from, on disk.
    fn settle(&mut self) -> io::Result<()> {
        close_to_others(&self.file)?;
        self.file.set_len(self.len)?;
        self.file.seek(SeekFrom::Start(self.len))?;
        if self.len == 0 {
            self.file.write_all(&MAGIC)?;
            self.len = MAGIC.len() as u64;
        }
        self.file.sync_all()?;
        sync_folder_of(&self.path)
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Takes back what a failed write left behind; a journal that cannot is broken.
    fn take_back(&mut self, source: io::Error) -> AppendError {
        let taken_back = self
            .file
            .set_len(self.len)
            .and_then(|()| self.file.seek(SeekFrom::Start(self.len)))
            .and_then(|_| self.file.sync_data());
        self.broken = taken_back.is_err();
        if self.broken { AppendError::Broken(Some(source)) } else { AppendError::Write(source) }
    }

    /// The new file of a rewrite, flushed, but not yet in the place of the old one.
    fn successor(&self, bytes: &[u8]) -> io::Result<(File, PathBuf)> {
        let path = self.beside(".new");
        let file = write_anew(&path, bytes)?;
        file.try_lock()?;
        Ok((file, path))
    }
}

impl Journal for FileJournal {
    fn writer(&self) -> u64 {
        self.writer
    }

    fn append(&mut self, record: &[u8]) -> Result<(), AppendError> {
        if self.broken {
            return Err(AppendError::Broken(None));
        }
        self.check_writer()?;
        let mut bytes = Vec::new();
        encode_record(&mut bytes, self.len, record)?;
        if let Err(source) = self.file.write_all(&bytes) {
            return Err(self.take_back(source));
        }
        // After a failed flush the kernel may have dropped the pages and report success next time.
        if let Err(source) = self.file.sync_data() {
            self.broken = true;
            return Err(AppendError::Broken(Some(source)));
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn replay(&mut self) -> Result<Vec<Vec<u8>>, ReplayError> {
        let bytes = self.read().map_err(ReplayError::Read)?;
        let good = bytes.get(..self.len as usize).unwrap_or(&bytes);
        self.file.seek(SeekFrom::Start(self.len)).map_err(ReplayError::Read)?;
        RecordReader::new(good).map(|record| Ok(record?.to_vec())).collect()
    }

    fn rewrite(&mut self, records: &[Vec<u8>]) -> Result<(), AppendError> {
        if self.broken {
            return Err(AppendError::Broken(None));
        }
        self.check_writer()?;
        let mut bytes = MAGIC.to_vec();
        records.iter().try_for_each(|record| encode_record(&mut bytes, 0, record))?;
        let (file, path) = self.successor(&bytes).map_err(AppendError::Write)?;
        fs::rename(&path, &self.path).map_err(AppendError::Write)?;
        (self.file, self.len) = (file, bytes.len() as u64);
        if let Err(source) = sync_folder_of(&self.path) {
            self.broken = true;
            return Err(AppendError::Broken(Some(source)));
        }
        Ok(())
    }
}

/// Opens a file, or creates one that only its owner can read and write.
fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A file that only its owner can read and write, with these bytes and no others, flushed.
fn write_anew(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = open_or_create(path)?;
    close_to_others(&file)?;
    file.set_len(0)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(file)
}

/// Closes a file to all but its owner, in case that it was there already.
fn close_to_others(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}

/// Makes the file's entry in its folder durable, where folders can be flushed.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file cannot be created, read or flushed.
    #[error("cannot open journal {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("journal {} is in use by another process; stop that one first", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// What is in it is not what was written; the damage says where, and what to do.
    #[error("journal {} cannot be used", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        damage: Damage,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_opens_a_journal_later_keeps_the_earlier_writer_from_appending() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.journal");
        let mut first = FileJournal::open(&path).unwrap();
        first.append(b"one").unwrap();
        assert!(matches!(FileJournal::open(&path), Err(OpenError::InUse { .. })));
        // a file system on which locks do nothing
        first.file.unlock().unwrap();
        let mut second = FileJournal::open(&path).unwrap();
        assert_eq!((first.writer(), second.writer()), (1, 2));
        for refused in [first.append(b"two"), first.rewrite(&[])] {
            let error = refused.unwrap_err();
            assert!(matches!(error, AppendError::Superseded { own: 1, by: 2 }) && !error.is_retryable());
        }
        second.append(b"two").unwrap();
        drop(second);
        let mut third = FileJournal::open(&path).unwrap();
        assert_eq!((third.writer(), third.replay().unwrap()), (3, vec![b"one".to_vec(), b"two".to_vec()]));
    }

    #[test]
    fn a_number_that_is_none_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.journal");
        drop(FileJournal::open(&path).unwrap());
        fs::write(folder.path().join("a.journal.writer"), "many").unwrap();
        let OpenError::Io { source, .. } = FileJournal::open(&path).unwrap_err() else { panic!() };
        assert!(source.to_string().contains("a.journal.writer holds no number"), "{source}");
    }

    /// A file that cannot be written stands for a disk that fails.
    #[test]
    fn a_journal_that_cannot_take_back_a_failed_write_takes_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.journal");
        let mut journal = FileJournal::open(&path).unwrap();
        journal.append(b"first").unwrap();
        let writable = std::mem::replace(&mut journal.file, File::open(&path).unwrap());
        assert!(matches!(journal.append(b"lost"), Err(AppendError::Broken(Some(_)))));
        journal.file = writable;
        assert!(matches!(journal.append(b"lost"), Err(AppendError::Broken(None))));
        assert!(matches!(journal.rewrite(&[]), Err(AppendError::Broken(None))));
        assert_eq!(journal.replay().unwrap(), [b"first"]);
    }
}
