//! The certificates and the key of a kit, and who may touch its files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use locule_identity::{Identity, Usage, Verifier};

use crate::{ConnectionSecurity, KitError, Workspace};

/// Paths of a participant's root, certificate chain and private key; they exist, are files and have
/// safe permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KitFiles {
    /// The project's root, PEM.
    pub ca: PathBuf,
    /// The participant's chain, PEM, leaf first.
    pub cert: PathBuf,
    /// Its private key, PEM, readable by its owner only.
    pub key: PathBuf,
}

impl KitFiles {
    /// Checks files that a kit names; relative names are looked for in its `startup` folder.
    pub(crate) fn check(
        workspace: &Workspace,
        ca: &str,
        cert: &str,
        key: &str,
    ) -> Result<KitFiles, KitError> {
        let startup = workspace.startup();
        let files = KitFiles { ca: startup.join(ca), cert: startup.join(cert), key: startup.join(key) };
        check_not_open_to_change(&files.ca)?;
        check_not_open_to_change(&files.cert)?;
        let mode = mode(&files.key)?;
        if mode & 0o077 != 0 {
            return Err(KitError::OpenKey { file: files.key, mode });
        }
        Ok(files)
    }

    /// What those are shown who dial a participant that is no server: the pair that provisioning makes for
    /// its `listening_host`. There need not be one where links are clear.
    pub(crate) fn of_listener(
        workspace: &Workspace,
        security: ConnectionSecurity,
    ) -> Result<Option<KitFiles>, KitError> {
        let is_there = workspace.startup().join("server.crt").exists();
        if !is_there && security == ConnectionSecurity::Clear {
            return Ok(None);
        }
        KitFiles::check(workspace, "rootCA.pem", "server.crt", "server.key").map(Some)
    }

    /// The certificate, as it is sent to peers.
    ///
    /// # Errors
    /// [`KitError::Read`].
    pub fn read_cert(&self) -> Result<Vec<u8>, KitError> {
        read(&self.cert)
    }

    /// The root, to make a [`Verifier`] of.
    ///
    /// # Errors
    /// [`KitError::Read`].
    pub fn read_ca(&self) -> Result<Vec<u8>, KitError> {
        read(&self.ca)
    }

    /// The private key, to make a signer of.
    ///
    /// # Errors
    /// [`KitError::Read`].
    pub fn read_key(&self) -> Result<Vec<u8>, KitError> {
        read(&self.key)
    }

    /// Whose kit it is, by its certificate. `verifier` judges chains by the root of this kit.
    ///
    /// # Errors
    /// [`KitError::Certificate`] names both files if the certificate is not one of that root, or is
    /// not valid at `now`; [`KitError::Read`].
    pub fn identify(
        &self,
        verifier: &dyn Verifier,
        usage: Usage,
        now: SystemTime,
    ) -> Result<Identity, KitError> {
        verifier.identify(&self.read_cert()?, usage, now).map_err(|source| KitError::Certificate {
            cert: self.cert.clone(),
            ca: self.ca.clone(),
            source,
        })
    }
}

/// Refuses a file that anybody on the machine may write. A group may: many systems give each user a
/// group of their own.
pub(crate) fn check_not_open_to_change(file: &Path) -> Result<(), KitError> {
    let mode = mode(file)?;
    if mode & 0o002 != 0 {
        return Err(KitError::WritableByAnybody { file: file.to_owned(), mode });
    }
    Ok(())
}

pub(crate) fn read(file: &Path) -> Result<Vec<u8>, KitError> {
    fs::read(file).map_err(|source| unreadable(file, source))
}

/// The permission bits of a regular file; zero where the system has none.
fn mode(file: &Path) -> Result<u32, KitError> {
    let meta = fs::metadata(file).map_err(|source| unreadable(file, source))?;
    if !meta.is_file() {
        return Err(unreadable(file, io::Error::other("it is not a regular file")));
    }
    #[cfg(unix)]
    return Ok(std::os::unix::fs::MetadataExt::mode(&meta) & 0o7777);
    #[cfg(not(unix))]
    Ok(0)
}

fn unreadable(file: &Path, source: io::Error) -> KitError {
    let file = file.to_owned();
    if source.kind() == io::ErrorKind::NotFound {
        KitError::Missing { file }
    } else {
        KitError::Read { file, source }
    }
}
