//! The form in which numpy arrays are downloaded: each a zip with one file in it.

use std::io::{Cursor, Write as _};

use bytes::Bytes;
use locule_fobs::{Array, NpyError};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// What ends an archive, in bytes, if it has no comment.
const END: usize = 22;

/// Why a downloaded item is no array.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NpzError {
    /// It is no zip, or a damaged one.
    #[error("no zip")]
    Zip(#[from] zip::result::ZipError),
    /// It holds something else than one uncompressed file with the ending `.npy`.
    #[error("not one stored .npy file")]
    Content,
    /// The file in it is no array.
    #[error("no array")]
    Npy(#[from] NpyError),
}

/// Reads an item; gives its name and the array, which shares the bytes.
///
/// # Errors
/// [`NpzError`].
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.np.np_downloader`.
pub fn read_npz(item: &Bytes) -> Result<(String, Array), NpzError> {
    if !ends_with_one_entry(item) {
        return Err(NpzError::Content);
    }
    let mut archive = ZipArchive::new(Cursor::new(&item[..]))?;
    if archive.len() != 1 {
        return Err(NpzError::Content);
    }
    let file = archive.by_index_raw(0)?;
    let name = file.name()?.strip_suffix(".npy").ok_or(NpzError::Content)?.to_owned();
    let start = file.data_start().ok_or(NpzError::Content)?;
    let range = usize::try_from(start).ok().zip(usize::try_from(file.size()).ok());
    let range = range.and_then(|(start, len)| Some(start..start.checked_add(len)?));
    let stored = file.compression() == CompressionMethod::Stored;
    let range = range.filter(|range| stored && range.end <= item.len()).ok_or(NpzError::Content)?;
    Ok((name, Array::from_npy(item.slice(range))?))
}

/// Whether an archive ends as one of a single entry does, without comment. The library takes memory for as
/// many entries as an archive claims; of one that ends like this it looks for no other end.
fn ends_with_one_entry(item: &[u8]) -> bool {
    let Some((rest, end)) = item.split_last_chunk::<END>() else { return false };
    let number =
        |at: usize| end[at..at + 4].iter().rev().fold(0, |high, byte| high << 8 | usize::from(*byte));
    let (len, start) = (number(12), number(16));
    end.starts_with(b"PK\x05\x06\0\0\0\0\x01\0\x01\0")
        && end.ends_with(&[0, 0])
        && start.checked_add(len) == Some(rest.len())
        && rest.get(start..).is_some_and(|directory| directory.starts_with(b"PK\x01\x02"))
}

/// Writes an array as an item of this name.
///
/// # Errors
/// When it is larger than a zip can be.
pub fn write_npz(name: &str, array: &Array) -> Result<Bytes, NpzError> {
    let npy = array.to_npy();
    let mut archive = ZipWriter::new(Cursor::new(Vec::with_capacity(npy.len() + 512)));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    archive.start_file(format!("{name}.npy"), options)?;
    archive.write_all(&npy).map_err(zip::result::ZipError::from)?;
    Ok(archive.finish()?.into_inner().into())
}
