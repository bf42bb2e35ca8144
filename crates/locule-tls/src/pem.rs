//! Certificates and keys out of PEM files, and what can be wrong with them.

use std::io;
use std::path::{Path, PathBuf};

use rustls::server::VerifierBuilderError;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why no TLS configuration could be made. Each text names the file and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file is missing or may not be read.
    #[error(
        "cannot read {}: check that the kit is complete and that this user may read it", file.display()
    )]
    Read {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The file holds something between PEM markers that is not base64, or a marker is missing.
    #[error("{} is not valid PEM: copy it again from the kit it came with", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What the reader says.
        #[source]
        source: pem::Error,
    },
    /// The file has no `CERTIFICATE` section.
    #[error(
        "{} holds no certificate: it needs a section `BEGIN CERTIFICATE`; copy it again from the kit it came with",
        file.display()
    )]
    NoCertificate {
        /// The file.
        file: PathBuf,
    },
    /// The file has no private key section.
    #[error(
        "{} holds no private key: it needs a section `BEGIN PRIVATE KEY` or `BEGIN RSA PRIVATE KEY`; \
         copy it again from the kit it came with",
        file.display()
    )]
    NoKey {
        /// The file.
        file: PathBuf,
    },
    /// The private key is protected by a pass phrase.
    #[error(
        "the private key {} is encrypted: store it without a pass phrase (openssl pkey -in … -out …) \
         and readable by its owner only",
        file.display()
    )]
    EncryptedKey {
        /// The file.
        file: PathBuf,
    },
    /// The private key is not the one of the certificate.
    #[error(
        "the private key {} does not belong to the certificate {}: take both from the same kit",
        key.display(), cert.display()
    )]
    KeyOfAnotherCertificate {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
    },
    /// The root cannot be used to verify peers.
    #[error("{} cannot serve as a root: copy rootCA.pem again from the kit it came with", file.display())]
    Root {
        /// The root's file.
        file: PathBuf,
        /// What rustls says.
        #[source]
        source: VerifierBuilderError,
    },
    /// The file's contents are not acceptable: not X.509, or a key of a kind that is not supported.
    #[error("{} is not acceptable: provision the kit again", file.display())]
    Rejected {
        /// The file.
        file: PathBuf,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
}

/// All certificates of a file, in its order; at least one.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(file)?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Malformed { file: file.to_owned(), source })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { file: file.to_owned() });
    }
    Ok(chain)
}

/// The first private key of a file.
pub(crate) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(file)?;
    // Either `BEGIN ENCRYPTED PRIVATE KEY` or, in a PKCS#1 section, `Proc-Type: 4,ENCRYPTED`.
    if text.split(|byte| *byte == b'\n').any(is_mark_of_encryption) {
        return Err(TlsError::EncryptedKey { file: file.to_owned() });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|source| {
        let file = file.to_owned();
        if matches!(source, pem::Error::NoItemsFound) {
            TlsError::NoKey { file }
        } else {
            TlsError::Malformed { file, source }
        }
    })
}

fn is_mark_of_encryption(line: &[u8]) -> bool {
    line.starts_with(b"-----BEGIN ENCRYPTED") || line.starts_with(b"Proc-Type: 4,ENCRYPTED")
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|source| TlsError::Read { file: file.to_owned(), source })
}
