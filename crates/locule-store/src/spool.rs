use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use locule_journal::{Ranges, Spool, SpoolError};

/// A body in a file without a name, which is gone with its process, however that ends.
///
/// ```
/// use locule_journal::Spool;
/// use locule_store::FileSpool;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let mut spool = FileSpool::in_folder(folder.path())?;
/// spool.write_at(0, b"hello, ")?;
/// spool.write_at(7, b"server")?;
/// assert_eq!(spool.read()?, "hello, server");
/// assert_eq!(std::fs::read_dir(folder.path())?.count(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FileSpool {
    /// Locked for its position.
    file: Mutex<File>,
    received: Ranges,
}

impl FileSpool {
    /// An empty one on the file system of this folder.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn in_folder(folder: &Path) -> Result<Self, SpoolError> {
        Ok(Self { file: Mutex::new(tempfile::tempfile_in(folder)?), received: Ranges::default() })
    }

    fn file_at(&self, offset: u64) -> std::io::Result<MutexGuard<'_, File>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        Ok(file)
    }
}

impl Spool for FileSpool {
    fn write_at(&mut self, offset: u64, piece: &[u8]) -> Result<(), SpoolError> {
        self.file_at(offset)?.write_all(piece)?;
        self.received.insert(offset..offset + piece.len() as u64);
        Ok(())
    }

    fn received(&self) -> &Ranges {
        &self.received
    }

    fn read(&self) -> Result<Bytes, SpoolError> {
        let len = self.received.contiguous();
        let no_room = SpoolError::NoRoom { len };
        let Ok(size) = usize::try_from(len) else { return Err(no_room) };
        let mut body = Vec::new();
        if body.try_reserve_exact(size).is_err() {
            return Err(no_room);
        }
        let file = &*self.file_at(0)?;
        let read = file.take(len).read_to_end(&mut body)?;
        if read < size {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        Ok(body.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_a_gap_is_what_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = FileSpool::in_folder(folder.path()).unwrap();
        assert_eq!(spool.read().unwrap(), "");
        spool.write_at(6, b"g").unwrap();
        spool.write_at(0, b"abc").unwrap();
        assert_eq!(spool.read().unwrap(), "abc");
        spool.write_at(3, b"def").unwrap();
        assert_eq!(spool.read().unwrap(), "abcdefg");
        assert_eq!(spool.read().unwrap(), "abcdefg", "it can be read again");
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        assert!(matches!(FileSpool::in_folder(Path::new("/nowhere/at/all")), Err(SpoolError::Io(_))));
    }
}
