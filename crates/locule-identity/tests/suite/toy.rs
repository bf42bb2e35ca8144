//! A signature scheme for tests: the key stands in the certificate, and whoever reads it can sign. What
//! is tested with it is the conversation, not the cryptography.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime};

use locule_identity::{ChainError, Identity, SignError, SignatureError, Signer, Usage, Verifier};

/// The holder of a toy certificate: `name|role|key`.
#[derive(Debug, Clone)]
pub(crate) struct Toy {
    identity: Identity,
    certificate: Vec<u8>,
}

impl Toy {
    pub(crate) fn new(name: &str) -> Self {
        Self::from_text(&format!("{name}||key of {name}"))
    }

    pub(crate) fn admin(name: &str) -> Self {
        Self::from_text(&format!("{name}|lead|key of {name}"))
    }

    fn from_text(text: &str) -> Self {
        let identity = read(text.as_bytes()).expect("a toy certificate");
        Self { identity, certificate: text.as_bytes().to_vec() }
    }
}

impl Signer for Toy {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn certificate_pem(&self) -> &[u8] {
        &self.certificate
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(signature(&self.identity.public_key, message))
    }
}

#[derive(Debug)]
pub(crate) struct ToyVerifier;

impl Verifier for ToyVerifier {
    fn identify(&self, chain: &[u8], _usage: Usage, now: SystemTime) -> Result<Identity, ChainError> {
        let identity = read(chain).ok_or_else(|| ChainError::Malformed("not a toy".to_owned()))?;
        if now > identity.not_after { Err(ChainError::Expired) } else { Ok(identity) }
    }

    fn verify(&self, by: &Identity, message: &[u8], given: &[u8]) -> Result<(), SignatureError> {
        if signature(&by.public_key, message) == given { Ok(()) } else { Err(SignatureError) }
    }
}

/// 2026-11-22, 00:00 UTC; toy certificates end a day later.
pub(crate) fn wall() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_305_600)
}

fn read(certificate: &[u8]) -> Option<Identity> {
    let mut fields = std::str::from_utf8(certificate).ok()?.split('|');
    let (name, role, key) = (fields.next()?, fields.next()?, fields.next()?);
    let mut fingerprint = [0; 32];
    fingerprint[..8].copy_from_slice(&signature(key.as_bytes(), certificate));
    Some(Identity {
        common_name: name.to_owned(),
        organization: Some("org".to_owned()),
        role: (!role.is_empty()).then(|| role.to_owned()),
        fingerprint,
        public_key: key.as_bytes().to_vec(),
        not_after: wall() + Duration::from_secs(86_400),
    })
}

fn signature(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut hasher = DefaultHasher::new();
    (key, message).hash(&mut hasher);
    hasher.finish().to_be_bytes().to_vec()
}
