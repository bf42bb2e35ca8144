use std::fmt::Debug;
use std::time::SystemTime;

use thiserror::Error;

use crate::certificate::{ChainError, Identity};

/// Bytes by which an envelope is longer than what is in it.
///
/// | bytes | field |
/// |---|---|
/// | 0 | version, 1 |
/// | 1–12 | nonce |
/// | 13–268 | AES-256 key, wrapped for the receiver with RSA-OAEP (SHA-256, MGF1 with SHA-256) |
/// | 269–524 | the sender's RSA-PSS signature over all other fields, with the longest salt |
/// | 525– | AES-256-GCM ciphertext and its tag of 16 bytes; version and wrapped key are authenticated with it |
///
/// The lengths are those of RSA keys of 2,048 bits, the only ones that can be used.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.cellnet.cell_cipher`; vectors in `tests/vectors/cipher.json`.
pub const ENVELOPE_LEN: usize = 1 + 12 + 256 + 256 + 16;

/// Seals messages for the holders of certificates, and opens what they sealed for us.
///
/// An envelope says who sealed it and can be read by one receiver. It covers the body of a message and
/// none of its headers, and nothing in it keeps it from being delivered twice.
///
/// The calls block for some milliseconds: make them on a pool made for that, and bound how many run.
pub trait Cipher: Send + Sync + Debug {
    /// The certificate that others need to seal for us and to open what we sealed: PEM, leaf first.
    fn certificate_pem(&self) -> &[u8];

    /// The root that we judge certificates by, PEM.
    fn root_pem(&self) -> &[u8];

    /// Validates a chain as a peer sent it (PEM, leaf first) at the moment `now`, and says who the leaf
    /// belongs to: what the other two calls want of a peer.
    ///
    /// # Errors
    /// See [`ChainError`]; the certificate must not be used. So it is with one whose key has not 2,048 bits.
    fn identify(&self, chain_pem: &[u8], now: SystemTime) -> Result<Identity, ChainError>;

    /// Seals `clear` for `to`; the envelope is longer by [`ENVELOPE_LEN`].
    ///
    /// # Errors
    /// [`SealError`]; nothing may be sent instead.
    fn seal(&self, to: &Identity, clear: &[u8]) -> Result<Vec<u8>, SealError>;

    /// Opens an envelope that `from` sealed for us.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is known of what is in it.
    fn open(&self, from: &Identity, envelope: &[u8]) -> Result<Vec<u8>, OpenError>;
}

/// Why a message is not sealed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SealError {
    /// The receiver's key is not RSA of 2,048 bits.
    #[error("receiver's key is not RSA of 2048 bits")]
    UnusableKey,
    /// The library or the key refused; an operator must look at it.
    #[error("message is not sealed")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why an envelope is not opened.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// It is shorter than an envelope of nothing.
    #[error("envelope is cut short: {len} bytes")]
    Short {
        /// Its length in bytes.
        len: usize,
    },
    /// It has a version that we do not know.
    #[error("envelope has the unknown version {0}: its sender may be older than nvflare 2.9")]
    Version(u8),
    /// Whoever is said to have sealed it has not.
    #[error("envelope is not signed by its sender")]
    Signature,
    /// Its sender sealed it, but not for us, or not as it should be. Which of the two is not told: the
    /// difference would say something about our key.
    #[error("envelope cannot be opened")]
    Unreadable,
}
