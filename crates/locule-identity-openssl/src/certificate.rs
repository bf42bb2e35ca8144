//! Certificates as bytes: strict PEM, subject, key and extensions of one certificate.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use locule_identity::{ChainError, Identity, Usage};
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Public};
use openssl::x509::{X509, X509Ref};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Longest certificate file that is read, in bytes.
const MAX_PEM_LEN: usize = 64 * 1024;

/// Most certificates in one file.
const MAX_CERTIFICATES: usize = 8;

/// Longest organisation or role, in characters: X.509's bound for names.
const MAX_ATTRIBUTE_LEN: usize = 64;

/// What stands for bytes that are no text.
const REPLACED: char = '\u{fffd}';

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// All certificates of a PEM file, in its order; at least one.
///
/// Not OpenSSL's own reader: that one asks the terminal for a pass phrase when a peer sends a block
/// marked as encrypted. Text between blocks is ignored, as `openssl x509 -text` writes some.
pub(crate) fn read_pem(pem: &[u8]) -> Result<Vec<X509>, ChainError> {
    let malformed = |what: &str| ChainError::Malformed(what.to_owned());
    if pem.len() > MAX_PEM_LEN {
        return Err(malformed("file is longer than 64 KiB"));
    }
    let text = std::str::from_utf8(pem).map_err(|_| malformed("file is not text"))?;
    let mut certificates = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines().map(str::trim) {
        match &mut block {
            None if line == BEGIN => block = Some(String::new()),
            None => {}
            Some(base64) if line == END => {
                if certificates.len() == MAX_CERTIFICATES {
                    return Err(malformed("file has more than 8 certificates"));
                }
                let der = STANDARD.decode(base64).map_err(|_| malformed("a block is not base64"))?;
                certificates.push(read_der(&der)?);
                block = None;
            }
            Some(base64) => base64.push_str(line),
        }
    }
    if block.is_some() {
        return Err(malformed("a block has no end"));
    }
    if certificates.is_empty() {
        return Err(malformed("file has no certificate"));
    }
    Ok(certificates)
}

fn read_der(der: &[u8]) -> Result<X509, ChainError> {
    let malformed = || ChainError::Malformed("a block is not a certificate".to_owned());
    let certificate = X509::from_der(der).map_err(|_| malformed())?;
    // Bytes behind the certificate would be outside of its signature and inside of its fingerprint.
    let whole = certificate.to_der().map_err(|_| malformed())?;
    if whole == der { Ok(certificate) } else { Err(malformed()) }
}

/// Who a certificate belongs to. Says nothing about whether it is to be believed.
pub(crate) fn identity_of(certificate: &X509Ref) -> Result<Identity, ChainError> {
    let common_name = one_attribute(certificate, Nid::COMMONNAME, "common name")?
        .ok_or(ChainError::UnusableSubject("no common name"))?;
    let key = rsa_key_of(certificate)?;
    let digest = certificate.digest(MessageDigest::sha256()).map_err(internal)?;
    let fingerprint =
        digest.as_ref().try_into().map_err(|_| ChainError::Malformed("no fingerprint".to_owned()))?;
    Ok(Identity {
        common_name,
        organization: one_attribute(certificate, Nid::ORGANIZATIONNAME, "organization")?,
        role: one_attribute(certificate, Nid::PKCS9_UNSTRUCTUREDNAME, "role")?,
        fingerprint,
        public_key: key.public_key_to_der().map_err(internal)?,
        not_after: system_time(certificate.not_after())?,
    })
}

/// The certificate's key, if it is RSA of a size that neither breaks nor costs too much.
fn rsa_key_of(certificate: &X509Ref) -> Result<PKey<Public>, ChainError> {
    let key = certificate.public_key().map_err(|_| ChainError::UnusableKey("not readable".to_owned()))?;
    if key.id() != Id::RSA {
        return Err(ChainError::UnusableKey("not RSA".to_owned()));
    }
    let exponent_bits = key.rsa().map_err(internal)?.e().num_bits();
    match key.bits() {
        2_048..=8_192 if (2..=64).contains(&exponent_bits) => Ok(key),
        2_048..=8_192 => Err(ChainError::UnusableKey(format!("exponent of {exponent_bits} bits"))),
        bits => Err(ChainError::UnusableKey(format!("{bits} bits"))),
    }
}

/// The one value of a subject attribute. Several would let two readers see two names.
fn one_attribute(certificate: &X509Ref, nid: Nid, what: &'static str) -> Result<Option<String>, ChainError> {
    let mut entries = certificate.subject_name().entries_by_nid(nid);
    let Some(entry) = entries.next() else { return Ok(None) };
    if entries.next().is_some() {
        return Err(ChainError::UnusableSubject("an attribute appears twice"));
    }
    let unusable = || match what {
        "common name" => ChainError::UnusableSubject("common name has a forbidden form"),
        _ => ChainError::UnusableSubject("organization or role has a forbidden form"),
    };
    let value = entry.data().to_string().map_err(|_| unusable())?;
    let fits = !value.is_empty() && value.chars().count() <= MAX_ATTRIBUTE_LEN;
    let clean = value.trim() == value && !value.contains(|c: char| c.is_control() || c == REPLACED);
    if fits && clean { Ok(Some(value)) } else { Err(unusable()) }
}

/// Checks the extensions of a leaf: not an authority, and allowed to do what it is used for.
pub(crate) fn check_leaf(certificate: &X509Ref, usage: Usage) -> Result<(), ChainError> {
    with_extensions(certificate, |parsed| {
        let is_authority = parsed.basic_constraints()?.is_some_and(|ext| ext.value.ca);
        let key_usage = parsed.key_usage()?;
        if is_authority || key_usage.as_ref().is_some_and(|ext| ext.value.key_cert_sign()) {
            return Ok(Err(ChainError::LeafIsAuthority));
        }
        let may_sign = key_usage.is_none_or(|ext| ext.value.digital_signature());
        let may_act = parsed.extended_key_usage()?.is_none_or(|ext| match usage {
            Usage::Server => ext.value.server_auth,
            Usage::Client => ext.value.client_auth,
        });
        Ok(if may_sign && may_act { Ok(()) } else { Err(ChainError::WrongUsage(usage)) })
    })
}

/// Checks that an issuing certificate of a chain says that it is an authority. OpenSSL alone would take
/// some old ones that do not.
pub(crate) fn check_authority(certificate: &X509Ref) -> Result<(), ChainError> {
    with_extensions(certificate, |parsed| {
        let is_authority = parsed.basic_constraints()?.is_some_and(|ext| ext.value.ca);
        let may_issue = parsed.key_usage()?.is_none_or(|ext| ext.value.key_cert_sign());
        Ok(if is_authority && may_issue {
            Ok(())
        } else {
            Err(ChainError::Untrusted("an issuer is not a certificate authority".to_owned()))
        })
    })
}

fn with_extensions(
    certificate: &X509Ref,
    check: impl FnOnce(&X509Certificate<'_>) -> Result<Result<(), ChainError>, x509_parser::error::X509Error>,
) -> Result<(), ChainError> {
    let unreadable = || ChainError::Malformed("extensions are not readable".to_owned());
    let der = certificate.to_der().map_err(internal)?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| unreadable())?;
    check(&parsed).map_err(|_| unreadable())?
}

fn system_time(time: &Asn1TimeRef) -> Result<SystemTime, ChainError> {
    let since = Asn1Time::from_unix(0).and_then(|epoch| epoch.diff(time)).map_err(internal)?;
    let seconds = i64::from(since.days) * 86_400 + i64::from(since.secs);
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.max(0).unsigned_abs()));
    at.ok_or_else(|| ChainError::Malformed("validity is out of range".to_owned()))
}

fn internal(error: ErrorStack) -> ChainError {
    ChainError::Malformed(error.errors().first().and_then(|e| e.reason()).unwrap_or("unreadable").to_owned())
}
