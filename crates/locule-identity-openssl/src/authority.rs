use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use locule_identity::{ChainError, Usage};
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{HasPrivate, PKey, PKeyRef, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name, X509Ref};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::certificate::{check_authority, read_pem};
use crate::signer::{LoadError, read_private_key};

/// Size of the keys it makes, in bits.
const KEY_BITS: u32 = 2_048;

/// How long before its making a certificate begins to be valid, so that a peer whose clock is behind
/// accepts it.
const BACKDATED: Duration = Duration::from_secs(3_600);

/// Longest attribute of a subject, in characters.
const MAX_ATTRIBUTE_LEN: usize = 64;

/// A project's certificate authority: its root certificate and key.
pub struct CertificateAuthority {
    certificate: X509,
    key: PKey<Private>,
    /// That of every client, if they share one.
    of_clients: Option<PKey<Private>>,
}

impl CertificateAuthority {
    /// Makes a new root with a new key, valid for `validity` in all, which began an hour before `now`.
    ///
    /// nvflare 2.9.0 goes on with a root only if it is valid for as long as its project says, to the second.
    ///
    /// # Errors
    /// [`IssueError`] if the subject cannot stand in a certificate, or OpenSSL refuses.
    pub fn create(subject: &Subject, validity: Duration, now: SystemTime) -> Result<Self, IssueError> {
        let key = new_key()?;
        let name = subject.to_name()?;
        let begin_root = || -> Result<X509Builder, ErrorStack> {
            let seconds = i64::try_from(validity.as_secs()).unwrap_or(i64::MAX);
            let mut builder = begin(&name, &key, before(now), before(now).saturating_add(seconds))?;
            builder.set_issuer_name(&name)?;
            let key_id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
            builder.append_extension(key_id)?;
            Ok(builder)
        };
        // OpenSSL copies the issuer's key identifier from a certificate; the first one lends its own.
        let own_key_id = begin_root()?.build();
        let mut builder = begin_root()?;
        let key_id = AuthorityKeyIdentifier::new()
            .keyid(true)
            .build(&builder.x509v3_context(Some(&own_key_id), None))?;
        builder.append_extension(key_id)?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(
            KeyUsage::new().critical().digital_signature().key_cert_sign().crl_sign().build()?,
        )?;
        let names = [SubjectName::Dns(subject.common_name.clone())];
        append_names(&mut builder, &names, None)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Self { certificate: builder.build(), key, of_clients: None })
    }

    /// Takes up an authority that was made before.
    ///
    /// # Errors
    /// [`LoadError`] if the certificate is not an authority's or the key is not its key.
    pub fn from_pem(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self, LoadError> {
        let certificate = read_pem(certificate_pem)?.swap_remove(0);
        check_authority(&certificate)?;
        let key = read_private_key(key_pem)?;
        if !certificate.public_key().map_err(LoadError::Key)?.public_eq(&key) {
            return Err(LoadError::OtherKey);
        }
        Ok(Self { certificate, key, of_clients: None })
    }

    /// The same, which makes one key for all clients and issues their certificates over it. Making keys is what costs,
    /// and where all clients live in one process none could keep its own from the others.
    ///
    /// # Errors
    /// [`IssueError::OpenSsl`] when OpenSSL makes no key.
    pub fn with_one_client_key(self) -> Result<Self, IssueError> {
        Ok(Self { of_clients: Some(new_key()?), ..self })
    }

    /// Makes a key, unless [clients share one](Self::with_one_client_key), and a certificate over it.
    ///
    /// `names` are what TLS peers may call the holder. The certificate says what it is for, by critical
    /// key usage and by extended key usage, is no authority, and ends with the root at the latest.
    ///
    /// # Errors
    /// [`IssueError`] if subject or names cannot stand in a certificate, or OpenSSL refuses.
    pub fn issue(
        &self,
        subject: &Subject,
        names: &[SubjectName],
        usage: Usage,
        validity: Duration,
        now: SystemTime,
    ) -> Result<Issued, IssueError> {
        let shared = self.of_clients.clone().filter(|_| usage == Usage::Client);
        let key = shared.map_or_else(new_key, Ok)?;
        let root: &X509Ref = &self.certificate;
        let mut builder = begin(&subject.to_name()?, &key, before(now), unix(now + validity))?;
        if Asn1Time::from_unix(unix(now + validity))?.as_ref() > root.not_after() {
            builder.set_not_after(root.not_after())?;
        }
        builder.set_issuer_name(root.subject_name())?;
        builder.append_extension(
            SubjectKeyIdentifier::new().build(&builder.x509v3_context(Some(root), None))?,
        )?;
        builder.append_extension(
            AuthorityKeyIdentifier::new().keyid(true).build(&builder.x509v3_context(Some(root), None))?,
        )?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder
            .append_extension(KeyUsage::new().critical().digital_signature().key_encipherment().build()?)?;
        let mut extended = ExtendedKeyUsage::new();
        match usage {
            Usage::Server => extended.server_auth(),
            Usage::Client => extended.client_auth(),
        };
        builder.append_extension(extended.build()?)?;
        append_names(&mut builder, names, Some(root))?;
        builder.sign(&self.key, MessageDigest::sha256())?;
        let certificate_pem = builder.build().to_pem()?;
        Ok(Issued { certificate_pem, key_pem: to_pkcs1(&key)? })
    }

    /// The root certificate, PEM: `rootCA.pem` of every startup kit.
    ///
    /// # Errors
    /// [`IssueError::OpenSsl`] when memory is short.
    pub fn certificate_pem(&self) -> Result<Vec<u8>, IssueError> {
        Ok(self.certificate.to_pem()?)
    }

    /// The root's private key, PEM (PKCS#1), unencrypted. Whoever holds it is the project.
    ///
    /// # Errors
    /// [`IssueError::OpenSsl`] when memory is short.
    pub fn key_pem(&self) -> Result<Zeroizing<Vec<u8>>, IssueError> {
        to_pkcs1(&self.key)
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("subject", &self.certificate.subject_name())
            .finish_non_exhaustive()
    }
}

/// A certificate and its key, as files hold them.
pub struct Issued {
    /// The certificate, PEM.
    pub certificate_pem: Vec<u8>,
    /// The private key, PEM (PKCS#1, `BEGIN RSA PRIVATE KEY`), unencrypted; wiped when dropped.
    pub key_pem: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

/// The subject of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// CN: the participant's name, or the project's on a root. At most 64 characters.
    pub common_name: String,
    /// O: its organisation.
    pub organization: Option<String>,
    /// `unstructuredName`: an administrator's role; nobody else has one.
    pub role: Option<String>,
}

impl Subject {
    /// A subject with a common name only.
    pub fn new(common_name: impl Into<String>) -> Self {
        Self { common_name: common_name.into(), organization: None, role: None }
    }

    /// With an organisation.
    #[must_use]
    pub fn organization(mut self, organization: impl Into<String>) -> Self {
        self.organization = Some(organization.into());
        self
    }

    /// With a role, for an administrator.
    #[must_use]
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.role = Some(role.into());
        self
    }

    fn to_name(&self) -> Result<X509Name, IssueError> {
        let mut name = X509Name::builder()?;
        let attributes = [
            (Nid::COMMONNAME, Some(&self.common_name)),
            (Nid::ORGANIZATIONNAME, self.organization.as_ref()),
            (Nid::PKCS9_UNSTRUCTUREDNAME, self.role.as_ref()),
        ];
        for (nid, value) in attributes {
            let Some(value) = value else { continue };
            let usable = !value.is_empty()
                && value.chars().count() <= MAX_ATTRIBUTE_LEN
                && value.trim() == value
                && !value.chars().any(char::is_control);
            if !usable {
                return Err(IssueError::Subject(value.clone()));
            }
            name.append_entry_by_nid(nid, value)?;
        }
        Ok(name.build())
    }
}

/// A name that TLS peers may call the holder of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SubjectName {
    /// A host name; sites and administrators have their own name here too.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl SubjectName {
    /// An address if `host` is one, a host name otherwise.
    pub fn of_host(host: &str) -> Self {
        host.parse().map_or_else(|_| Self::Dns(host.to_owned()), Self::Ip)
    }
}

/// The host names and addresses that TLS peers may call the holder of a certificate, in its order. Says
/// nothing about whether the certificate is to be believed.
///
/// # Errors
/// [`ChainError::Malformed`] if it is not PEM with a certificate in front.
pub fn subject_names(certificate_pem: &[u8]) -> Result<Vec<SubjectName>, ChainError> {
    let certificate = read_pem(certificate_pem)?.swap_remove(0);
    let address = |bytes: &[u8]| match *bytes {
        [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    };
    let names = certificate.subject_alt_names();
    let names = names.iter().flatten().filter_map(|name| match (name.dnsname(), name.ipaddress()) {
        (Some(host), _) => Some(SubjectName::Dns(host.to_owned())),
        (None, Some(bytes)) => address(bytes).map(SubjectName::Ip),
        (None, None) => None,
    });
    Ok(names.collect())
}

/// Why a certificate was not issued.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IssueError {
    /// A subject attribute is empty, longer than 64 characters, or has control characters or outer blanks.
    #[error("{0:?} cannot stand in a certificate's subject")]
    Subject(String),
    /// A name for TLS peers is empty, longer than 255 bytes or not visible ASCII.
    #[error("{0:?} cannot be a subject alternative name")]
    Name(String),
    /// OpenSSL refused.
    #[error("openssl could not make the certificate")]
    OpenSsl(#[from] ErrorStack),
}

/// A builder with everything that a root and a leaf have in common.
fn begin(
    subject: &X509Name,
    key: &PKeyRef<impl HasPrivate>,
    not_before: i64,
    not_after: i64,
) -> Result<X509Builder, ErrorStack> {
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    let mut serial = BigNum::new()?;
    serial.rand(159, MsbOption::ONE, false)?;
    let serial = serial.to_asn1_integer()?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(subject)?;
    builder.set_pubkey(key)?;
    let (from, until) = (Asn1Time::from_unix(not_before)?, Asn1Time::from_unix(not_after)?);
    builder.set_not_before(&from)?;
    builder.set_not_after(&until)?;
    Ok(builder)
}

fn append_names(
    builder: &mut X509Builder,
    names: &[SubjectName],
    issuer: Option<&X509Ref>,
) -> Result<(), IssueError> {
    if names.is_empty() {
        return Ok(());
    }
    let mut extension = SubjectAlternativeName::new();
    for name in names {
        match name {
            SubjectName::Dns(host) => {
                let usable = (1..=255).contains(&host.len()) && host.bytes().all(|b| b.is_ascii_graphic());
                if !usable {
                    return Err(IssueError::Name(host.clone()));
                }
                extension.dns(host)
            }
            SubjectName::Ip(address) => extension.ip(&address.to_string()),
        };
    }
    let extension = extension.build(&builder.x509v3_context(issuer, None))?;
    Ok(builder.append_extension(extension)?)
}

fn new_key() -> Result<PKey<Private>, ErrorStack> {
    PKey::from_rsa(Rsa::generate(KEY_BITS)?)
}

fn to_pkcs1(key: &PKey<Private>) -> Result<Zeroizing<Vec<u8>>, IssueError> {
    Ok(Zeroizing::new(key.rsa()?.private_key_to_pem()?))
}

fn before(now: SystemTime) -> i64 {
    unix(now.checked_sub(BACKDATED).unwrap_or(SystemTime::UNIX_EPOCH))
}

fn unix(time: SystemTime) -> i64 {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
