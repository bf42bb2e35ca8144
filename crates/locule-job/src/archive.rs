//! Folders into zip archives and back, with limits on what comes from a peer.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use crate::shown;
use crate::tree::{self, MAX_DEPTH, TreeError};

/// What an archive may grow to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Most bytes of the archive, and of all its files together once unpacked; 1 GiB.
    pub max_bytes: u64,
    /// Most bytes unpacked for each byte of the archive; 100.
    pub max_ratio: u64,
    /// Most files and folders; 10,000.
    pub max_entries: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_bytes: 1 << 30, max_ratio: 100, max_entries: tree::MAX_ENTRIES }
    }
}

/// What came out of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unpacked {
    /// Files and folders.
    pub entries: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Whether what is packed is made smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// As small as is reasonable: configurations and code.
    Small,
    /// As fast as the disk: models, which do not shrink.
    Fast,
}

/// Why a folder was not packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The folder cannot be taken as it is.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A receiver would not unpack it.
    #[error("the folder holds more than {max_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_bytes: u64,
    },
    /// The archive could not be written.
    #[error("the archive could not be made")]
    Zip(#[from] ZipError),
    /// The disk did not take it.
    #[error("cannot write {}", path.display())]
    Write {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why an archive was not unpacked; nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// Not a zip archive, or one that contradicts itself.
    #[error("not a valid zip archive")]
    Malformed(#[source] ZipError),
    /// Too many bytes, unpacked or not.
    #[error("the archive holds more than {max_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_bytes: u64,
    },
    /// It grows too much: it was made to fill a disk.
    #[error("the archive unpacks to more than {max_ratio} times its size")]
    Bomb {
        /// The limit.
        max_ratio: u64,
    },
    /// Too many files and folders.
    #[error("the archive holds more than {max_entries} entries")]
    TooManyEntries {
        /// The limit.
        max_entries: usize,
    },
    /// An entry whose name leads out of the target, or is not a plain path.
    #[error("the archive has an entry with an unsafe name: `{name}`")]
    UnsafeName {
        /// The name, escaped and shortened.
        name: String,
    },
    /// A link, a device, or an encrypted file.
    #[error("the archive has an entry that is not a plain file or folder: `{name}`")]
    NotPlain {
        /// The name, escaped and shortened.
        name: String,
    },
    /// Two entries of one name, or a file where another entry needs a folder.
    #[error("the archive has two entries for one place")]
    Twice,
    /// The archive cannot be read from the disk.
    #[error("cannot read {}", path.display())]
    Read {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is something at the target already.
    #[error("{} exists already", path.display())]
    Occupied {
        /// The target.
        path: PathBuf,
    },
    /// The disk did not take it.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The contents of an app's folder, not wrapped in a folder, as a server deploys it.
///
/// The same folder gives the same bytes, whenever and wherever it is packed.
///
/// # Errors
/// [`PackError`]; links are not followed but refused.
pub fn pack_app(app: &Path) -> Result<Vec<u8>, PackError> {
    pack(app, "")
}

/// A job's folder wrapped in a folder of its name, as a job is submitted.
///
/// # Errors
/// [`PackError`]; links are not followed but refused.
pub fn pack_job(job: &Path) -> Result<Vec<u8>, PackError> {
    let name = job.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| TreeError::Name { name: shown(&job.to_string_lossy()) })?;
    pack(job, &format!("{name}/"))
}

/// The contents of a folder as the new file `archive`, flushed; wrapped in a folder called `wrapper` unless
/// that is empty. Blocking; nothing is left of an archive that could not be made.
///
/// # Errors
/// [`PackError`]; links are not followed but refused.
pub fn pack_file(
    folder: &Path,
    wrapper: &str,
    archive: &Path,
    packing: Packing,
    max_bytes: u64,
) -> Result<(), PackError> {
    let write = |source| PackError::Write { path: archive.to_owned(), source };
    let prefix = if wrapper.is_empty() { String::new() } else { format!("{wrapper}/") };
    let file = File::create_new(archive).map_err(write)?;
    let packed = pack_into(BufWriter::new(file), folder, &prefix, packing, max_bytes);
    let flushed = packed.and_then(|buffer| {
        let file = buffer.into_inner().map_err(|error| write(error.into_error()))?;
        file.sync_all().map_err(write)
    });
    flushed.inspect_err(|_| drop(fs::remove_file(archive)))
}

fn pack(folder: &Path, prefix: &str) -> Result<Vec<u8>, PackError> {
    let max_bytes = Limits::default().max_bytes;
    Ok(pack_into(Cursor::new(Vec::new()), folder, prefix, Packing::Small, max_bytes)?.into_inner())
}

fn pack_into<W: Write + Seek>(
    to: W,
    folder: &Path,
    prefix: &str,
    packing: Packing,
    max_bytes: u64,
) -> Result<W, PackError> {
    let method = match packing {
        Packing::Small => CompressionMethod::Deflated,
        Packing::Fast => CompressionMethod::Stored,
    };
    let plain =
        SimpleFileOptions::default().compression_method(method).last_modified_time(DateTime::default());
    let (file, dir) = (plain.unix_permissions(0o644), plain.unix_permissions(0o755));
    let mut zip = ZipWriter::new(to);
    let mut total = 0;
    if !prefix.is_empty() {
        zip.add_directory(prefix.trim_end_matches('/'), dir)?;
    }
    for entry in tree::walk(folder)? {
        let name = format!("{prefix}{}", entry.name);
        if entry.is_dir {
            zip.add_directory(name, dir)?;
            continue;
        }
        let from = File::open(&entry.path).map_err(|source| TreeError::read(&entry.path, source))?;
        let size = from.metadata().map_err(|source| TreeError::read(&entry.path, source))?.len();
        zip.start_file(name, file.large_file(size >= u64::from(u32::MAX)))?;
        let room = max_bytes - total;
        let copied = io::copy(&mut from.take(room + 1), &mut zip)
            .map_err(|source| TreeError::read(&entry.path, source))?;
        if copied > room {
            return Err(PackError::TooLarge { max_bytes });
        }
        total += copied;
    }
    Ok(zip.finish()?)
}

/// Unpacks an archive into the folder `into`, which must not exist yet; its parent must.
///
/// Everything is written to a hidden folder beside the target, flushed, and renamed when it is
/// complete, so `into` holds all of the archive or does not exist, also after a crash. What a crash
/// left behind is removed by the next attempt; two attempts for one target at once are not supported.
/// Permissions and times in the archive are ignored.
///
/// # Errors
/// [`UnpackError`]. Limits hold for what is really unpacked, whatever the archive declares.
pub fn unpack(archive: &[u8], into: &Path, limits: &Limits) -> Result<Unpacked, UnpackError> {
    unpack_from(Cursor::new(archive), archive.len() as u64, into, limits)
}

/// As [`unpack`], of an archive on disk, which is not read into memory.
///
/// # Errors
/// [`UnpackError`].
pub fn unpack_file(archive: &Path, into: &Path, limits: &Limits) -> Result<Unpacked, UnpackError> {
    let read = |source| UnpackError::Read { path: archive.to_owned(), source };
    let file = File::open(archive).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    unpack_from(BufReader::new(file), size, into, limits)
}

fn unpack_from(
    mut archive: impl Read + Seek,
    size: u64,
    into: &Path,
    limits: &Limits,
) -> Result<Unpacked, UnpackError> {
    let too_large = UnpackError::TooLarge { max_bytes: limits.max_bytes };
    if size > limits.max_bytes {
        return Err(too_large);
    }
    if into.symlink_metadata().is_ok() {
        return Err(UnpackError::Occupied { path: into.to_owned() });
    }
    let claimed = claimed_entries(&mut archive, size).map_err(UnpackError::Malformed)?;
    if claimed > limits.max_entries {
        return Err(UnpackError::TooManyEntries { max_entries: limits.max_entries });
    }
    let mut zip = ZipArchive::new(archive).map_err(UnpackError::Malformed)?;
    if zip.len() > limits.max_entries {
        return Err(UnpackError::TooManyEntries { max_entries: limits.max_entries });
    }
    if zip.has_duplicate_names() {
        return Err(UnpackError::Twice);
    }

    let partial = Partial::create(into)?;
    let growth = size.saturating_mul(limits.max_ratio);
    let mut room = growth.min(limits.max_bytes);
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).map_err(UnpackError::Malformed)?;
        let name = entry.name().map_err(UnpackError::Malformed)?.into_owned();
        let kind = entry.unix_mode().unwrap_or_default() & 0o170_000;
        let plain = [0, 0o100_000, 0o040_000].contains(&kind);
        if !plain || entry.is_symlink() || entry.encrypted() {
            return Err(UnpackError::NotPlain { name: shown(&name) });
        }
        let place = partial.path.join(safe_path(&name)?);
        if entry.is_dir() {
            make_folder(&place)?;
            continue;
        }
        if let Some(parent) = place.parent() {
            make_folder(parent)?;
        }
        let mut file = File::create_new(&place).map_err(|source| write_error(&place, source))?;
        let written = copy(&mut entry.by_ref().take(room + 1), &mut file, &place)?;
        if written > room {
            let bomb = growth <= limits.max_bytes;
            return Err(if bomb { UnpackError::Bomb { max_ratio: limits.max_ratio } } else { too_large });
        }
        room -= written;
    }
    let unpacked = Unpacked { entries: zip.len(), bytes: growth.min(limits.max_bytes) - room };
    partial.complete(into)?;
    Ok(unpacked)
}

/// How many entries an archive claims to have at its end. The library takes memory for as many before it
/// reads them, and looks for another end where this one is none, so only the plain form passes: no comment,
/// one disk, the directory right before the end.
fn claimed_entries(archive: &mut (impl Read + Seek), size: u64) -> Result<usize, ZipError> {
    let mut end = [0; 22];
    let from =
        size.checked_sub(end.len() as u64).ok_or(ZipError::InvalidArchive("it is too short".into()))?;
    archive.seek(SeekFrom::Start(from))?;
    archive.read_exact(&mut end)?;
    let number =
        |at: usize, len: usize| end[at..at + len].iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
    let (here, all, len, start) = (number(8, 2), number(10, 2), number(12, 4), number(16, 4));
    let is_plain = end.starts_with(b"PK\x05\x06\0\0\0\0") && end.ends_with(&[0, 0]) && here == all;
    if !is_plain || start + len != from || all == 0xffff {
        return Err(ZipError::InvalidArchive("it does not end as a plain archive does".into()));
    }
    if all > 0 {
        let mut head = [0; 4];
        archive.seek(SeekFrom::Start(start))?;
        archive.read_exact(&mut head)?;
        if head != *b"PK\x01\x02" {
            return Err(ZipError::InvalidArchive("it has no directory".into()));
        }
    }
    archive.rewind()?;
    usize::try_from(all).map_err(|_| ZipError::InvalidArchive("it has too many entries".into()))
}

/// A name of an archive as a path that stays where it is put.
fn safe_path(name: &str) -> Result<PathBuf, UnpackError> {
    let parts: Vec<&str> = name.strip_suffix('/').unwrap_or(name).split('/').collect();
    let safe = |part: &&str| {
        !part.is_empty()
            && part.len() <= 255
            && !matches!(*part, "." | "..")
            && !part.contains(|c: char| c.is_control() || matches!(c, '\\' | ':'))
    };
    if parts.len() > MAX_DEPTH || !parts.iter().all(safe) {
        return Err(UnpackError::UnsafeName { name: shown(name) });
    }
    Ok(parts.iter().collect())
}

fn make_folder(place: &Path) -> Result<(), UnpackError> {
    fs::create_dir_all(place).map_err(|source| write_error(place, source))
}

/// Tells a reader's error, which is the archive's fault, from a writer's.
fn copy(from: &mut impl Read, to: &mut File, place: &Path) -> Result<u64, UnpackError> {
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                to.write_all(&buffer[..read]).map_err(|source| write_error(place, source))?;
                total += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(UnpackError::Malformed(ZipError::Io(error))),
        }
    }
    to.sync_all().map_err(|source| write_error(place, source))?;
    Ok(total)
}

fn write_error(place: &Path, source: io::Error) -> UnpackError {
    if matches!(source.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory) {
        return UnpackError::Twice;
    }
    UnpackError::Write { path: place.to_owned(), source }
}

/// The hidden folder that an archive is unpacked to; removed unless completed.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn create(into: &Path) -> Result<Partial, UnpackError> {
        let name = into.file_name().unwrap_or_default().to_string_lossy();
        let path = into.with_file_name(format!(".{name}.partial"));
        let made = match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => fs::create_dir(&path),
        };
        match made {
            Ok(()) => Ok(Partial { path }),
            Err(source) => Err(UnpackError::Write { path, source }),
        }
    }

    fn complete(self, into: &Path) -> Result<(), UnpackError> {
        let flushed = flush_folders(&self.path)
            .and_then(|()| fs::rename(&self.path, into))
            .and_then(|()| into.parent().map_or(Ok(()), flush_folder));
        flushed.map_err(|source| UnpackError::Write { path: into.to_owned(), source })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After `complete` there is nothing here any more; after a failure, nobody to tell.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn flush_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            flush_folders(&entry.path())?;
        }
    }
    flush_folder(folder)
}

fn flush_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}
