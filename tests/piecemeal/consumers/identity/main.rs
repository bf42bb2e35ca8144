//! A server whose key lies in a hardware module: the conversation is the crate's, the signature is not.

use std::error::Error;
use std::time::{Duration, Instant, SystemTime};

use locule_identity::{Admission, AdmissionLimits, Challenge, Identity, SignError, Signer, proof_text};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

fn main() -> Result<(), Box<dyn Error>> {
    let (module, site) = (Module(identity("server")), identity("site-1"));
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let now = Instant::now();

    let challenge = Challenge::new(&site, &mut rng)?;
    let mut admission = Admission::new(module.identity().clone(), AdmissionLimits::default());
    let opening = admission.open(1, "site-1", challenge.cn(), challenge.nonce(), &mut rng, now)?;
    let proof = opening.prove(&module)?;

    assert_eq!(proof.signature, sign(&proof_text("server", challenge.nonce())));
    assert!(admission.take(1, "site-1", now).is_some());
    assert!(admission.take(1, "site-1", now).is_none()); // a nonce serves once
    Ok(())
}

#[derive(Debug)]
struct Module(Identity);

impl Signer for Module {
    fn identity(&self) -> &Identity {
        &self.0
    }
    fn certificate_pem(&self) -> &[u8] {
        b"-----BEGIN CERTIFICATE-----"
    }
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(sign(message))
    }
}

/// What a module does inside; no cryptography, for the sake of the example.
fn sign(message: &[u8]) -> Vec<u8> {
    message.iter().rev().copied().collect()
}

fn identity(common_name: &str) -> Identity {
    Identity {
        common_name: common_name.into(),
        organization: None,
        role: None,
        fingerprint: [7; 32],
        public_key: common_name.into(),
        not_after: SystemTime::now() + Duration::from_secs(3_600),
    }
}
