//! What a job's files are, in one number.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use locule_job::{CERTIFICATE_FILE, SIGNATURE_FILE};
use sha2::{Digest as _, Sha256};

/// SHA-256 over names and contents of the files in a folder, in hexadecimal digits, without signatures: who signs the
/// same files again gets others. Blocking; for a folder that was unpacked within limits.
pub(crate) fn digest(folder: &Path) -> io::Result<String> {
    let mut files = BTreeMap::new();
    list(folder, "", &mut files)?;
    let mut digest = Sha256::new();
    for (name, path) in &files {
        let mut file = File::open(path)?;
        for length in [name.len() as u64, file.metadata()?.len()] {
            digest.update(length.to_be_bytes());
        }
        digest.update(name);
        io::copy(&mut file, &mut digest)?;
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn list(folder: &Path, prefix: &str, files: &mut BTreeMap<String, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == SIGNATURE_FILE || name == CERTIFICATE_FILE {
            continue;
        }
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{prefix}{name}/"), files)?;
        } else {
            files.insert(format!("{prefix}{name}"), entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_every_byte_counts_but_signatures_do_not() {
        let of = |files: &[(&str, &str)]| {
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = folder.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            digest(folder.path()).unwrap()
        };
        let job = of(&[("a/b", "x"), ("c", "y")]);
        let signed = of(&[("a/b", "x"), ("c", "y"), (SIGNATURE_FILE, "s"), ("a/.__nvfl_sig.json", "t")]);
        assert_eq!(job, signed);
        for other in [&[("a/b", "x"), ("c", "z")], &[("a/b", "x"), ("d", "y")], &[("a", "bx"), ("c", "y")]] {
            assert_ne!(job, of(other));
        }
    }
}
