//! Certificates that no honest authority issues, made with OpenSSL directly.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use locule_identity::Usage;
use locule_identity_openssl::{CertificateAuthority, OpensslSigner, OpensslVerifier, Subject, SubjectName};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage};
use openssl::x509::{X509, X509Builder, X509Name};

pub(crate) const YEAR: Duration = Duration::from_secs(360 * 86_400);

/// The moment at which all tests live: 2026-11-22, 00:00 UTC.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_305_600)
}

pub(crate) fn authority(name: &str) -> CertificateAuthority {
    CertificateAuthority::create(&Subject::new(name), YEAR, now()).unwrap()
}

pub(crate) fn signer(root: &CertificateAuthority, subject: &Subject, usage: Usage) -> OpensslSigner {
    let names = [SubjectName::of_host(&subject.common_name)];
    let issued = root.issue(subject, &names, usage, YEAR, now()).unwrap();
    OpensslSigner::from_pem(&issued.certificate_pem, &issued.key_pem).unwrap()
}

pub(crate) fn verifier(root: &CertificateAuthority) -> OpensslVerifier {
    OpensslVerifier::new(&root.certificate_pem().unwrap()).unwrap()
}

/// A seeded generator: what the conversation needs of randomness is repeatable.
pub(crate) fn rng(seed: u64) -> rand_chacha::ChaCha20Rng {
    <rand_chacha::ChaCha20Rng as rand_chacha::rand_core::SeedableRng>::seed_from_u64(seed)
}

/// A key to be used where making another one would only cost time.
pub(crate) static KEY: LazyLock<PKey<Private>> = LazyLock::new(|| rsa_key(2_048));

pub(crate) fn rsa_key(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
}

/// A certificate and the key over it.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: X509,
    pub(crate) key: PKey<Private>,
}

impl Pair {
    pub(crate) fn of(root: &CertificateAuthority) -> Self {
        Self {
            certificate: X509::from_pem(&root.certificate_pem().unwrap()).unwrap(),
            key: PKey::private_key_from_pem(&root.key_pem().unwrap()).unwrap(),
        }
    }

    pub(crate) fn pem(&self) -> Vec<u8> {
        self.certificate.to_pem().unwrap()
    }
}

/// A certificate to be forged; what is not said is as in a plain leaf of a stock startup kit.
pub(crate) struct Forged<'a> {
    pub(crate) issuer: &'a Pair,
    pub(crate) names: Vec<(Nid, &'a str)>,
    pub(crate) key: PKey<Private>,
    pub(crate) digest: MessageDigest,
    pub(crate) from: SystemTime,
    pub(crate) until: SystemTime,
    pub(crate) extensions: Vec<openssl::x509::X509Extension>,
}

impl<'a> Forged<'a> {
    pub(crate) fn under(issuer: &'a Pair, common_name: &'a str) -> Self {
        Self {
            issuer,
            names: vec![(Nid::COMMONNAME, common_name)],
            key: KEY.clone(),
            digest: MessageDigest::sha256(),
            from: now() - Duration::from_secs(3_600),
            until: now() + Duration::from_secs(3_600),
            extensions: Vec::new(),
        }
    }

    pub(crate) fn extension(mut self, extension: openssl::x509::X509Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    pub(crate) fn sign(self) -> Pair {
        let mut builder = X509Builder::new().unwrap();
        builder.set_version(2).unwrap();
        builder.set_serial_number(&BigNum::from_u32(77).unwrap().to_asn1_integer().unwrap()).unwrap();
        let mut name = X509Name::builder().unwrap();
        for (nid, value) in &self.names {
            name.append_entry_by_nid(*nid, value).unwrap();
        }
        builder.set_subject_name(&name.build()).unwrap();
        builder.set_issuer_name(self.issuer.certificate.subject_name()).unwrap();
        builder.set_pubkey(&self.key).unwrap();
        builder.set_not_before(&asn1(self.from)).unwrap();
        builder.set_not_after(&asn1(self.until)).unwrap();
        for extension in self.extensions {
            builder.append_extension(extension).unwrap();
        }
        builder.sign(&self.issuer.key, self.digest).unwrap();
        Pair { certificate: builder.build(), key: self.key }
    }
}

pub(crate) fn ca() -> openssl::x509::X509Extension {
    BasicConstraints::new().critical().ca().build().unwrap()
}

pub(crate) fn may_issue() -> openssl::x509::X509Extension {
    KeyUsage::new().critical().key_cert_sign().build().unwrap()
}

pub(crate) fn may_sign() -> openssl::x509::X509Extension {
    KeyUsage::new().digital_signature().build().unwrap()
}

pub(crate) fn may_encipher_only() -> openssl::x509::X509Extension {
    KeyUsage::new().key_encipherment().build().unwrap()
}

pub(crate) fn extended(usage: Usage) -> openssl::x509::X509Extension {
    let mut extended = ExtendedKeyUsage::new();
    match usage {
        Usage::Server => extended.server_auth(),
        Usage::Client => extended.client_auth(),
    };
    extended.build().unwrap()
}

fn asn1(time: SystemTime) -> Asn1Time {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    Asn1Time::from_unix(i64::try_from(seconds).unwrap()).unwrap()
}
