//! RSASSA-PSS with SHA-256 and MGF1 with SHA-256.

use locule_identity::SignatureError;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private, Public};
use openssl::rsa::Padding;
use openssl::sign::{RsaPssSaltlen, Signer, Verifier};

/// −2: the longest salt that fits when signing, whatever salt there is when verifying.
const SALT: RsaPssSaltlen = RsaPssSaltlen::MAXIMUM_LENGTH;

/// Signs a message, given in parts.
pub(crate) fn sign(key: &PKey<Private>, message: &[&[u8]]) -> Result<Vec<u8>, ErrorStack> {
    let mut signer = Signer::new(MessageDigest::sha256(), key)?;
    signer.set_rsa_padding(Padding::PKCS1_PSS)?;
    signer.set_rsa_mgf1_md(MessageDigest::sha256())?;
    signer.set_rsa_pss_saltlen(SALT)?;
    message.iter().try_for_each(|part| signer.update(part))?;
    signer.sign_to_vec()
}

/// Checks the signature over a message, given in parts.
pub(crate) fn verify(key: &PKey<Public>, message: &[&[u8]], signature: &[u8]) -> Result<(), SignatureError> {
    let holds = || -> Result<bool, ErrorStack> {
        let mut verifier = Verifier::new(MessageDigest::sha256(), key)?;
        verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
        verifier.set_rsa_mgf1_md(MessageDigest::sha256())?;
        verifier.set_rsa_pss_saltlen(SALT)?;
        message.iter().try_for_each(|part| verifier.update(part))?;
        verifier.verify(signature)
    };
    // A signature of another length than the key's is an error to OpenSSL and a bad signature to us.
    if signature.len() == key.size() && holds().unwrap_or(false) { Ok(()) } else { Err(SignatureError) }
}
