use std::fmt;
use std::time::SystemTime;

use locule_identity::{ChainError, Identity, SignatureError, Usage, Verifier};
use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::stack::Stack;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::X509VerifyParam;
use openssl::x509::{X509, X509PurposeId, X509StoreContext};

use crate::certificate::{check_authority, check_leaf, identity_of, read_pem};
use crate::pss;

/// Most certificates between a leaf and the root.
const MAX_DEPTH: i32 = 4;

/// OpenSSL's security level 2: keys worth 112 bits and more, so RSA of 2,048, and no SHA-1.
const SECURITY_LEVEL: i32 = 2;

/// `X509_V_ERR_*` numbers that callers tell apart; the rest is [`ChainError::Untrusted`].
mod verdict {
    pub(super) const NOT_YET_VALID: i32 = 9;
    pub(super) const EXPIRED: i32 = 10;
    pub(super) const INVALID_PURPOSE: i32 = 26;
}

/// Judges certificate chains against a project's root, at a time that the caller gives.
///
/// A chain must lead from its leaf over authorities to the root, every certificate valid at that time;
/// the leaf must be a participant's and, where it has key usage or extended key usage, be allowed to
/// sign and to act as what it is used for. Leaves without either extension are accepted: nvflare's
/// provisioning makes such.
pub struct OpensslVerifier {
    roots: Vec<X509>,
}

impl OpensslVerifier {
    /// Trusts the root certificate of a project (`rootCA.pem`), and no other. Several in one file are
    /// each a root, as during a change of roots.
    ///
    /// # Errors
    /// [`ChainError`] if the file has no certificate or one that is not a self-signed authority.
    pub fn new(root_pem: &[u8]) -> Result<Self, ChainError> {
        let roots = read_pem(root_pem)?;
        for root in &roots {
            check_authority(root)?;
            let self_signed = root.public_key().and_then(|key| root.verify(&key)).unwrap_or(false);
            if !self_signed {
                return Err(ChainError::Untrusted("root is not self-signed".to_owned()));
            }
        }
        Ok(Self { roots })
    }

    fn store(&self, usage: Usage, now: SystemTime) -> Result<X509Store, ErrorStack> {
        let mut builder = X509StoreBuilder::new()?;
        for root in &self.roots {
            builder.add_cert(root.clone())?;
        }
        let mut param = X509VerifyParam::new()?;
        param.set_time(unix_seconds(now));
        param.set_depth(MAX_DEPTH);
        param.set_auth_level(SECURITY_LEVEL);
        param.set_purpose(match usage {
            Usage::Server => X509PurposeId::SSL_SERVER,
            Usage::Client => X509PurposeId::SSL_CLIENT,
        })?;
        builder.set_param(&param)?;
        Ok(builder.build())
    }

    /// Builds and validates the path; gives it leaf first, root last.
    fn path(&self, chain: &[X509], usage: Usage, now: SystemTime) -> Result<Vec<X509>, ChainError> {
        let unusable = |error: ErrorStack| ChainError::Malformed(error.to_string());
        let Some((leaf, others)) = chain.split_first() else {
            return Err(ChainError::Malformed("file has no certificate".to_owned()));
        };
        let store = self.store(usage, now).map_err(unusable)?;
        let mut intermediates = Stack::new().map_err(unusable)?;
        for certificate in others {
            intermediates.push(certificate.clone()).map_err(unusable)?;
        }
        let mut context = X509StoreContext::new().map_err(unusable)?;
        let judged = context.init(&store, leaf, &intermediates, |context| {
            if context.verify_cert()? {
                let path = context.chain().map(|chain| chain.iter().map(ToOwned::to_owned).collect());
                return Ok(Ok(path.unwrap_or_default()));
            }
            Ok(Err((context.error(), context.error_depth())))
        });
        judged.map_err(unusable)?.map_err(|(error, depth)| match error.as_raw() {
            verdict::NOT_YET_VALID => ChainError::NotYetValid,
            verdict::EXPIRED => ChainError::Expired,
            verdict::INVALID_PURPOSE if depth == 0 => ChainError::WrongUsage(usage),
            _ => ChainError::Untrusted(error.error_string().to_owned()),
        })
    }
}

impl Verifier for OpensslVerifier {
    fn identify(&self, chain_pem: &[u8], usage: Usage, now: SystemTime) -> Result<Identity, ChainError> {
        let chain = read_pem(chain_pem)?;
        let path = self.path(&chain, usage, now)?;
        let (leaf, issuers) = path
            .split_first()
            .filter(|(_, issuers)| !issuers.is_empty())
            .ok_or(ChainError::LeafIsAuthority)?;
        check_leaf(leaf, usage)?;
        issuers.iter().try_for_each(|issuer| check_authority(issuer))?;
        identity_of(leaf)
    }

    fn verify(&self, by: &Identity, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let key = PKey::public_key_from_der(&by.public_key).map_err(|_| SignatureError)?;
        pss::verify(&key, &[message], signature)
    }
}

impl fmt::Debug for OpensslVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpensslVerifier").field("roots", &self.roots.len()).finish_non_exhaustive()
    }
}

/// Seconds since the Unix epoch; a time before it counts as the epoch, when nothing was valid.
fn unix_seconds(now: SystemTime) -> i64 {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
