use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use locule_identity::{ChainError, Identity, SignError, Signer};
use openssl::error::ErrorStack;
use openssl::pkey::{Id, PKey, Private};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::certificate::{identity_of, read_pem};
use crate::pss;

/// A private key in memory and the certificate over it.
pub struct OpensslSigner {
    identity: Identity,
    certificate_pem: Vec<u8>,
    key: PKey<Private>,
}

impl OpensslSigner {
    /// Reads a certificate file (PEM, leaf first) and an unencrypted private key (PEM, PKCS#1 or
    /// PKCS#8). Whether the certificate is valid and under our root is not asked here: peers ask it.
    ///
    /// # Errors
    /// [`LoadError`] names what is wrong; the key is shown to nobody.
    pub fn from_pem(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self, LoadError> {
        let leaf = read_pem(certificate_pem)?.swap_remove(0);
        let identity = identity_of(&leaf)?;
        let key = read_private_key(key_pem)?;
        if !leaf.public_key().map_err(LoadError::Key)?.public_eq(&key) {
            return Err(LoadError::OtherKey);
        }
        Ok(Self { identity, certificate_pem: certificate_pem.to_vec(), key })
    }

    /// Reads certificate and key from files, as [`OpensslSigner::from_pem`] does.
    ///
    /// # Errors
    /// [`LoadError::Read`] names the file that could not be read.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, LoadError> {
        let read =
            |path: &Path| fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source });
        let key_pem = Zeroizing::new(read(key)?);
        Self::from_pem(&read(certificate)?, &key_pem)
    }

    pub(crate) fn key(&self) -> &PKey<Private> {
        &self.key
    }
}

impl Signer for OpensslSigner {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn certificate_pem(&self) -> &[u8] {
        &self.certificate_pem
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        pss::sign(&self.key, &[message]).map_err(|error| SignError::Key(Box::new(error)))
    }
}

impl fmt::Debug for OpensslSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpensslSigner").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Why a certificate and its key cannot be used to sign.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate file has no usable certificate.
    #[error("certificate is not usable")]
    Certificate(#[from] ChainError),
    /// The key file has no private key that can be read without a pass phrase.
    #[error("private key is not readable; it must be unencrypted PEM, PKCS#1 or PKCS#8")]
    Key(#[source] ErrorStack),
    /// The key is not an RSA key.
    #[error("private key is not RSA")]
    KeyKind,
    /// The key belongs to another certificate.
    #[error("private key does not belong to the certificate")]
    OtherKey,
}

pub(crate) fn read_private_key(pem: &[u8]) -> Result<PKey<Private>, LoadError> {
    // The callback gives an empty pass phrase; without it OpenSSL would ask the terminal.
    let key = PKey::private_key_from_pem_callback(pem, |_| Ok(0)).map_err(LoadError::Key)?;
    if key.id() == Id::RSA { Ok(key) } else { Err(LoadError::KeyKind) }
}
