//! Models as files: NPZ, which is a zip of NPY files, one an array.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use locule_component::WorkflowError;
use locule_fobs::{Array, Map, NpyError};
use thiserror::Error;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use crate::mean::Shown;

/// Writes the arrays of `model` so that `numpy.load` reads them by name, and `path` at no moment holds half
/// of them: they go to a file beside it first, which is synced and renamed. The folder must exist.
///
/// The same model gives the same bytes.
///
/// # Errors
/// [`SaveError`]; a file that was at `path` is then as it was.
pub fn save_npz(path: &Path, model: &Map) -> Result<(), SaveError> {
    let mut arrays = Vec::with_capacity(model.len());
    for (name, value) in model.iter() {
        match (name.as_str(), value.as_array()) {
            (Some(name), Some(array)) => arrays.push((name, array)),
            (Some(name), None) => {
                return Err(SaveError::NotAnArray { name: name.to_owned(), kind: value.kind() });
            }
            (None, _) => return Err(SaveError::NameNotText { kind: name.kind() }),
        }
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    write(&temporary, &arrays).and_then(|()| replace(&temporary, path)).map_err(|source| {
        // What is left of it is of no use, and the first error says more than a second one.
        drop(fs::remove_file(&temporary));
        SaveError::File { path: path.to_owned(), source }
    })
}

fn write(path: &Path, arrays: &[(&str, &Array)]) -> io::Result<()> {
    let mut zip = ZipWriter::new(BufWriter::new(File::create(path)?));
    for (name, array) in arrays {
        let npy = array.to_npy();
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::DEFAULT)
            .large_file(npy.len() >= u32::MAX as usize);
        zip.start_file(format!("{name}.npy"), options)?;
        zip.write_all(&npy)?;
    }
    zip.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Renames, and syncs the folder so that the new name is there after a crash.
fn replace(temporary: &Path, path: &Path) -> io::Result<()> {
    fs::rename(temporary, path)?;
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Reads a file that [`save_npz`] or `numpy.savez` wrote.
///
/// # Errors
/// [`LoadError`] names the file, and the array where it is about one. Compressed files are refused, so that
/// what is read is never larger than the file.
pub fn load_npz(path: &Path) -> Result<Map, LoadError> {
    let file = |source: io::Error| LoadError::File { path: path.to_owned(), source };
    let open = File::open(path).map_err(file)?;
    let mut zip = ZipArchive::new(BufReader::new(open)).map_err(|error| file(error.into()))?;
    let mut model = Map::new();
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).map_err(|error| file(error.into()))?;
        let name = entry.name().map_err(|error| file(error.into()))?.into_owned();
        let name = name.strip_suffix(".npy").unwrap_or(&name).to_owned();
        if entry.compression() != CompressionMethod::Stored {
            return Err(LoadError::Compressed { path: path.to_owned(), name });
        }
        let mut npy = Vec::new();
        entry.read_to_end(&mut npy).map_err(file)?;
        let array = Array::from_npy(npy.into()).map_err(|source| LoadError::Npy {
            path: path.to_owned(),
            name: name.clone(),
            source,
        })?;
        model.insert(name, array);
    }
    Ok(model)
}

/// A model was not saved.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The file system or the size of the model does not allow it.
    #[error("cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// A value is not an array.
    #[error("{} is of type {kind}, not an array", Shown(name))]
    NotAnArray {
        /// Its name.
        name: String,
        /// What it is instead.
        kind: &'static str,
    },
    /// A name is not text.
    #[error("a name is of type {kind}, not text")]
    NameNotText {
        /// What it is instead.
        kind: &'static str,
    },
}

impl SaveError {
    pub(crate) fn into_workflow_error(self) -> WorkflowError {
        match self {
            SaveError::File { path, source } => WorkflowError::File { path, source },
            SaveError::NotAnArray { .. } | SaveError::NameNotText { .. } => {
                WorkflowError::Failed(self.to_string())
            }
        }
    }
}

/// A model was not read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file is missing, cannot be opened, or is no zip.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// An array is compressed.
    #[error("{}: {} is compressed; save it with numpy.savez", path.display(), Shown(name))]
    Compressed {
        /// The file.
        path: PathBuf,
        /// Name of the array.
        name: String,
    },
    /// An entry is not the NPY file of a numeric array.
    #[error("{}: {} is not a numeric array", path.display(), Shown(name))]
    Npy {
        /// The file.
        path: PathBuf,
        /// Name of the array.
        name: String,
        /// What is wrong with it.
        #[source]
        source: NpyError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Map {
        Map::from_iter([
            ("weights", Array::from_f64(&[2, 2], &[1.0, -0.0, 3.5, 4.0]).unwrap()),
            ("layer.0/bias", Array::from_f32(&[], &[0.25]).unwrap()),
            ("steps", Array::from_i64(&[0], &[]).unwrap()),
        ])
    }

    #[test]
    fn a_saved_model_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("global.npz");
        save_npz(&path, &model()).unwrap();
        assert_eq!(load_npz(&path).unwrap(), model());
    }

    #[test]
    fn the_same_model_gives_the_same_bytes_and_nothing_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("1.npz"), folder.path().join("2.npz"));
        save_npz(&one, &model()).unwrap();
        save_npz(&two, &model()).unwrap();
        assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_model_that_cannot_be_saved_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("global.npz");
        save_npz(&path, &model()).unwrap();
        let error = save_npz(&path, &Map::from_iter([("weights", "text")])).unwrap_err();
        assert_eq!(error.to_string(), "`weights` is of type str, not an array");
        let long = Map::from_iter([("n".repeat(70_000), Array::from(&[1.0][..]))]);
        assert!(matches!(save_npz(&path, &long), Err(SaveError::File { .. })));
        assert_eq!(load_npz(&path).unwrap(), model());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_npz_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.npz");
        assert!(matches!(load_npz(&path), Err(LoadError::File { .. })));
        fs::write(&path, "not a zip").unwrap();
        assert_eq!(load_npz(&path).unwrap_err().to_string(), format!("cannot read {}", path.display()));
        for (method, content, reason) in [
            (CompressionMethod::Deflated, "", "is compressed; save it with numpy.savez"),
            (CompressionMethod::Stored, "text", "is not a numeric array"),
        ] {
            let mut zip = ZipWriter::new(File::create(&path).unwrap());
            zip.start_file("w.npy", SimpleFileOptions::default().compression_method(method)).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
            zip.finish().unwrap();
            assert_eq!(load_npz(&path).unwrap_err().to_string(), format!("{}: `w` {reason}", path.display()));
        }
    }
}
