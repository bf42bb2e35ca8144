use std::fmt::{self, Debug, Write};
use std::time::SystemTime;

use thiserror::Error;

/// What a verified certificate says about its holder.
///
/// Only a [`Verifier`] should make one from bytes that a peer sent: the fields of an `Identity` are
/// believed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Subject CN: the name of a site, an administrator or a server.
    pub common_name: String,
    /// Subject O: the organisation, if the certificate names one.
    pub organization: Option<String>,
    /// Subject `unstructuredName`: an administrator's role. Sites and servers have none.
    pub role: Option<String>,
    /// SHA-256 of the leaf certificate's DER.
    pub fingerprint: [u8; 32],
    /// The public key, as DER of `SubjectPublicKeyInfo`.
    pub public_key: Vec<u8>,
    /// The last moment at which the certificate is valid.
    pub not_after: SystemTime,
}

impl Identity {
    /// Whether both are held by the owner of one private key: the same certificate, or another
    /// certificate over the same key.
    pub fn same_holder(&self, other: &Identity) -> bool {
        self.fingerprint == other.fingerprint || self.public_key == other.public_key
    }

    /// Whether the certificate was issued to an administrator: it carries a role.
    pub fn is_admin(&self) -> bool {
        self.role.is_some()
    }

    /// The fingerprint as 64 lower-case hexadecimal digits, as people compare them.
    pub fn fingerprint_hex(&self) -> String {
        self.fingerprint.iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a `String` cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

impl Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("common_name", &self.common_name)
            .field("organization", &self.organization)
            .field("role", &self.role)
            .field("fingerprint", &self.fingerprint_hex())
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// In which part a peer presents its certificate; a certificate with an extended key usage must allow it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Usage {
    /// The server proves itself to a site: `serverAuth`.
    Server,
    /// A site, relay or administrator proves itself to the server: `clientAuth`.
    Client,
}

/// Holds a private key and the certificate over it.
///
/// The signature scheme of the wire is RSASSA-PSS with SHA-256, MGF1 with SHA-256 and the longest salt
/// that fits (222 bytes for a key of 2,048 bits).
pub trait Signer: Send + Sync + Debug {
    /// Who signs.
    fn identity(&self) -> &Identity;

    /// The certificate file as it is sent to peers: PEM, leaf first, intermediates after it.
    fn certificate_pem(&self) -> &[u8];

    /// Signs `message`. Blocking: some 1 ms with a key of 2,048 bits in memory, more with a hardware
    /// module, so call it on a pool made for that.
    ///
    /// # Errors
    /// [`SignError::Key`] when the key refuses.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// Judges certificate chains against one root, and signatures against an identity.
pub trait Verifier: Send + Sync + Debug {
    /// Validates a chain as a peer sent it (PEM, leaf first) for `usage` at the moment `now`, and says
    /// who the leaf belongs to. The clock is never read.
    ///
    /// # Errors
    /// See [`ChainError`]; the certificate must not be used.
    fn identify(&self, chain_pem: &[u8], usage: Usage, now: SystemTime) -> Result<Identity, ChainError>;

    /// Checks a signature over `message` with the public key of `by`; any salt length is accepted.
    ///
    /// # Errors
    /// [`SignatureError`] when it does not verify.
    fn verify(&self, by: &Identity, message: &[u8], signature: &[u8]) -> Result<(), SignatureError>;
}

/// Why a certificate chain is not accepted.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChainError {
    /// The bytes are not a usable chain: not PEM, no certificate, too many or too large.
    #[error("not a usable certificate chain: {0}")]
    Malformed(String),
    /// No path from the leaf to our root: another root, self-signed, a broken signature, or an issuer
    /// that is not a certificate authority.
    #[error("certificate does not lead to the project's root: {0}")]
    Untrusted(String),
    /// A certificate of the chain is not valid yet.
    #[error("certificate is not yet valid")]
    NotYetValid,
    /// A certificate of the chain has expired.
    #[error("certificate has expired")]
    Expired,
    /// The leaf is itself a certificate authority.
    #[error("certificate belongs to a certificate authority, not to a participant")]
    LeafIsAuthority,
    /// Key usage or extended key usage is present and does not allow this use.
    #[error("certificate may not be used for {0:?} authentication")]
    WrongUsage(Usage),
    /// The key is not RSA of 2,048 to 8,192 bits.
    #[error("certificate key is not usable: {0}")]
    UnusableKey(String),
    /// The subject has no common name, several, or one with forbidden characters.
    #[error("certificate subject is not usable: {0}")]
    UnusableSubject(&'static str),
}

/// Why nothing was signed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SignError {
    /// The key or its module refused; an operator must look at it.
    #[error("private key did not sign")]
    Key(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The signer holds another certificate than the one the conversation began with.
    #[error("signer is not the one this conversation began with")]
    OtherSigner,
}

/// A signature does not verify. There is no more to say, on purpose.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("signature does not verify")]
pub struct SignatureError;
