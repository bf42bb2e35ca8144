//! The files of an app and their hashes, for checkers to judge.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use locule_component::AppFile;
use sha2::{Digest, Sha256};

use crate::AssemblyError;

/// Most files that an app may have.
pub const MAX_APP_FILES: usize = 10_000;
/// Most bytes that the files of an app may have together.
pub const MAX_APP_BYTES: u64 = 1 << 30;

/// Every file below an app's folder, sorted by path.
///
/// # Errors
/// [`AssemblyError::Read`] for what cannot be read, for a link or anything else that is neither a file nor a
/// folder, and for more than [`MAX_APP_FILES`] or [`MAX_APP_BYTES`]: what a checker does not see, it cannot judge.
pub fn app_files(app_dir: &Path) -> Result<Vec<AppFile>, AssemblyError> {
    let mut files = Vec::new();
    let mut left = MAX_APP_BYTES;
    let mut folders = vec![(app_dir.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let failed = |source| AssemblyError::Read { file: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let file = entry.path();
            let failed = |source| AssemblyError::Read { file: file.clone(), source };
            let refused = |why: &str| failed(io::Error::other(why.to_owned()));
            let name = entry.file_name().into_string();
            let name = name.map_err(|_| refused("its name is not valid Unicode"))?;
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            let sort = entry.file_type().map_err(failed)?;
            if files.len() + folders.len() >= MAX_APP_FILES {
                return Err(refused("an app has at most 10000 files"));
            }
            if sort.is_dir() {
                folders.push((file, path));
            } else if sort.is_file() {
                let (size, sha256) = hash(&file, left).map_err(failed)?;
                left = left.saturating_sub(size);
                files.push(AppFile { path, size, sha256 });
            } else {
                return Err(refused("an app consists of files and folders, and of no links"));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Size and hash of a file that has at most `most` bytes.
fn hash(file: &Path, most: u64) -> io::Result<(u64, String)> {
    let mut reader = File::open(file)?.take(most.saturating_add(1));
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let mut size = 0;
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        size += read as u64;
        hash.update(&buffer[..read]);
    }
    if size > most {
        return Err(io::Error::other("the app has more than 1 GiB"));
    }
    Ok((size, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}
