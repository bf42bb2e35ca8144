//! Walks a folder that somebody else filled.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::shown;

/// Most files and folders of one job or app.
pub(crate) const MAX_ENTRIES: usize = 10_000;

/// Deepest nesting of folders.
pub(crate) const MAX_DEPTH: usize = 32;

/// A file or folder below the root of a walk.
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    /// The path from the root, with `/`.
    pub(crate) name: String,
    pub(crate) is_dir: bool,
}

/// Why a folder is not taken as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The operating system does not let it be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What it says.
        #[source]
        source: io::Error,
    },
    /// Links could lead anywhere.
    #[error("`{name}` is a symbolic link; put a copy of what it points to in its place")]
    Link {
        /// The path from the root of the walk.
        name: String,
    },
    /// Neither a file nor a folder.
    #[error("`{name}` is neither a file nor a folder")]
    Special {
        /// The path from the root of the walk.
        name: String,
    },
    /// A name that is not UTF-8.
    #[error("a name in `{name}` is not UTF-8 text")]
    Name {
        /// The folder that it is in, from the root of the walk.
        name: String,
    },
    /// More than 10,000 files and folders, or nested deeper than 32 folders.
    #[error("the folder holds more than {MAX_ENTRIES} entries or is nested deeper than {MAX_DEPTH} folders")]
    TooLarge,
    /// A file that is too large to be looked at.
    #[error("`{name}` has more than {max} bytes")]
    FileTooLarge {
        /// The file.
        name: String,
        /// The limit in bytes.
        max: u64,
    },
}

impl TreeError {
    pub(crate) fn read(path: &Path, source: io::Error) -> TreeError {
        TreeError::Read { path: path.to_owned(), source }
    }
}

/// Everything below `root`, a folder before its contents, sorted by name.
pub(crate) fn walk(root: &Path) -> Result<Vec<Entry>, TreeError> {
    let kind = fs::symlink_metadata(root).map_err(|source| TreeError::read(root, source))?.file_type();
    if kind.is_symlink() {
        return Err(TreeError::Link { name: shown(&root.to_string_lossy()) });
    }
    let mut found = Vec::new();
    walk_into(root, "", 0, &mut found)?;
    Ok(found)
}

fn walk_into(folder: &Path, prefix: &str, depth: usize, found: &mut Vec<Entry>) -> Result<(), TreeError> {
    if depth > MAX_DEPTH {
        return Err(TreeError::TooLarge);
    }
    let mut here = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| TreeError::read(folder, source))? {
        let entry = entry.map_err(|source| TreeError::read(folder, source))?;
        if found.len() + here.len() >= MAX_ENTRIES {
            return Err(TreeError::TooLarge);
        }
        let kind = entry.file_type().map_err(|source| TreeError::read(&entry.path(), source))?;
        let Ok(name) = entry.file_name().into_string() else {
            return Err(TreeError::Name { name: shown(prefix) });
        };
        let name = format!("{prefix}{name}");
        if kind.is_symlink() {
            return Err(TreeError::Link { name: shown(&name) });
        } else if !kind.is_dir() && !kind.is_file() {
            return Err(TreeError::Special { name: shown(&name) });
        }
        here.push(Entry { path: entry.path(), name, is_dir: kind.is_dir() });
    }
    here.sort_by(|a, b| a.name.cmp(&b.name));
    for entry in here {
        let below = entry.is_dir.then(|| (entry.path.clone(), format!("{}/", entry.name)));
        found.push(entry);
        if let Some((path, prefix)) = below {
            walk_into(&path, &prefix, depth + 1, found)?;
        }
    }
    Ok(())
}
