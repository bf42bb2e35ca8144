//! Signatures over a folder: who wrote each file of it.
//!
//! Every folder holds a map of its files and sub-folders to signatures, and the signer's certificate.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use locule_identity::{
    ChainError, Identity, SignError, Signer, Usage, Verifier, decode_signature, encode_signature,
};

use crate::shown;
use crate::tree::{self, Entry, TreeError};

/// Name of the file with the signatures of a folder.
pub const SIGNATURE_FILE: &str = ".__nvfl_sig.json";

/// Name of the file with the signer's certificate, PEM, leaf first.
pub const CERTIFICATE_FILE: &str = ".__nvfl_submitter.crt";

/// Largest signature or certificate file, in bytes.
const MAX_SIDE_FILE: u64 = 8 << 20;

/// Largest file that is signed or verified, in bytes.
const MAX_FILE: u64 = 1 << 30;

/// Why a folder was not signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderSignError {
    /// The folder cannot be taken as it is.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The key refused.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The disk did not take a signature file.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why a folder's signatures are not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The folder cannot be taken as it is; a symbolic link is such a reason.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A folder has no signature or no certificate file.
    #[error("the folder `{folder}` is not signed: it has no {file}")]
    Unsigned {
        /// From the root; `.` for the root itself.
        folder: String,
        /// The file it lacks.
        file: &'static str,
    },
    /// A signature file is not a map of names to text, or is too large.
    #[error("{SIGNATURE_FILE} of the folder `{folder}` is not a map of names and signatures")]
    Malformed {
        /// From the root; `.` for the root itself.
        folder: String,
    },
    /// The signer's certificate is not accepted.
    #[error("the signer of the folder `{folder}` is not accepted")]
    Signer {
        /// From the root; `.` for the root itself.
        folder: String,
        /// Why.
        source: ChainError,
    },
    /// A file or folder was added after signing.
    #[error("`{name}` is not signed")]
    NotListed {
        /// From the root.
        name: String,
    },
    /// A file or folder was removed after signing.
    #[error("`{name}` was signed and is missing")]
    Removed {
        /// From the root.
        name: String,
    },
    /// A file or folder was changed after signing.
    #[error("the signature of `{name}` does not verify")]
    Changed {
        /// From the root.
        name: String,
    },
}

/// Whether the folder claims to be signed. Whether that is true says [`verify_folder`].
pub fn is_signed(folder: &Path) -> bool {
    folder.join(SIGNATURE_FILE).symlink_metadata().is_ok()
}

/// Signs all files of a folder and below, in place. Signatures that are there already are replaced.
///
/// Blocking: one signature per file and folder, some 1 ms each.
///
/// # Errors
/// [`FolderSignError`]; symbolic links are refused.
///
/// # Source
/// nvflare 2.9.0, `nvflare.lighter.utils` (`sign_folders`): a file's bytes are signed, of a folder its
/// bare name.
pub fn sign_folder(folder: &Path, signer: &dyn Signer) -> Result<(), FolderSignError> {
    let entries = tree::walk(folder)?;
    for (name, contents) in folders(&entries) {
        let mut signatures = BTreeMap::new();
        for entry in contents.iter().filter(|entry| !is_side_file(entry)) {
            let signature = match entry.is_dir {
                true => signer.sign(leaf(entry).as_bytes())?,
                false => signer.sign(&read_bounded(&entry.path, MAX_FILE)?)?,
            };
            signatures.insert(leaf(entry), encode_signature(&signature));
        }
        let json: serde_json::Map<_, _> =
            signatures.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
        let here = folder.join(name);
        write(&here.join(SIGNATURE_FILE), serde_json::Value::Object(json).to_string().as_bytes())?;
        write(&here.join(CERTIFICATE_FILE), signer.certificate_pem())?;
    }
    Ok(())
}

/// Checks that every file and folder, all the way down, is what its signer signed, and gives the
/// signers, each once.
///
/// Accepted is a folder of which every part has a certificate that chains to the root and may be used
/// by a client, and of which nothing was added, changed or removed. Whether those signers may run a
/// job here is for a policy to say. Blocking.
///
/// # Errors
/// [`VerifyError`] with the first thing that is wrong; the folder must not be used.
///
/// # Source
/// nvflare 2.9.0, `nvflare.lighter.utils` (`verify_folder_signature_and_get_signers`); that removed
/// files are noticed is ours.
pub fn verify_folder(
    folder: &Path,
    verifier: &dyn Verifier,
    now: SystemTime,
) -> Result<Vec<Identity>, VerifyError> {
    let entries = tree::walk(folder)?;
    let mut known: HashMap<Vec<u8>, Identity> = HashMap::new();
    let mut signers: Vec<Identity> = Vec::new();
    for (name, contents) in folders(&entries) {
        let here = folder.join(name);
        let certificate = side_file(&here, name, CERTIFICATE_FILE)?;
        let mut signatures = signatures(&here, name)?;
        let signer = match known.get(&certificate) {
            Some(signer) => signer.clone(),
            None => verifier
                .identify(&certificate, Usage::Client, now)
                .map_err(|source| VerifyError::Signer { folder: shown(name), source })?,
        };
        for entry in contents.iter().filter(|entry| !is_side_file(entry)) {
            let text = signatures.remove(leaf(entry));
            let text = text.ok_or_else(|| VerifyError::NotListed { name: shown(&entry.name) })?;
            let content = match entry.is_dir {
                true => leaf(entry).as_bytes().to_vec(),
                false => read_bounded(&entry.path, MAX_FILE)?,
            };
            decode_signature(&text)
                .filter(|signature| verifier.verify(&signer, &content, signature).is_ok())
                .ok_or_else(|| VerifyError::Changed { name: shown(&entry.name) })?;
        }
        if let Some(missing) = signatures.into_keys().next() {
            let path = if name.is_empty() { missing } else { format!("{name}/{missing}") };
            return Err(VerifyError::Removed { name: shown(&path) });
        }
        if !signers.contains(&signer) {
            signers.push(signer.clone());
        }
        known.insert(certificate, signer);
    }
    Ok(signers)
}

/// Each folder, the root (named "") first, with what lies in it directly.
fn folders(entries: &[Entry]) -> BTreeMap<&str, Vec<&Entry>> {
    let mut folders = BTreeMap::from([("", Vec::new())]);
    for entry in entries {
        if entry.is_dir {
            folders.insert(entry.name.as_str(), Vec::new());
        }
        let parent = entry.name.rsplit_once('/').map_or("", |(parent, _)| parent);
        folders.entry(parent).or_default().push(entry);
    }
    folders
}

fn leaf(entry: &Entry) -> &str {
    entry.name.rsplit_once('/').map_or(&entry.name, |(_, leaf)| leaf)
}

/// The two files that are about signatures and are not signed. A folder of such a name is no such file.
fn is_side_file(entry: &Entry) -> bool {
    !entry.is_dir && [SIGNATURE_FILE, CERTIFICATE_FILE].contains(&leaf(entry))
}

fn signatures(here: &Path, folder: &str) -> Result<BTreeMap<String, String>, VerifyError> {
    let malformed = || VerifyError::Malformed { folder: shown(folder) };
    let text = side_file(here, folder, SIGNATURE_FILE)?;
    serde_json::from_slice(&text).map_err(|_| malformed())
}

fn side_file(here: &Path, folder: &str, file: &'static str) -> Result<Vec<u8>, VerifyError> {
    match read_bounded(&here.join(file), MAX_SIDE_FILE) {
        Err(TreeError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Err(VerifyError::Unsigned { folder: shown(folder), file })
        }
        other => Ok(other?),
    }
}

fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, TreeError> {
    let size = fs::metadata(path).map_err(|source| TreeError::read(path, source))?.len();
    if size > max {
        return Err(TreeError::FileTooLarge { name: shown(&path.to_string_lossy()), max });
    }
    fs::read(path).map_err(|source| TreeError::read(path, source))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), FolderSignError> {
    fs::write(path, bytes).map_err(|source| FolderSignError::Write { path: path.to_owned(), source })
}
