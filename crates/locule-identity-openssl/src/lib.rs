//! Implements the signer, verifier and cipher of `locule-identity` with OpenSSL, and issues certificates.
//!
//! Federations sign with RSA-PSS and the longest possible salt, which `ring` and `aws-lc-rs` do not
//! verify; OpenSSL does. This crate does no TLS and knows no messages: it turns PEM into
//! [`Identity`](locule_identity::Identity)s and bytes into signatures. It never reads the clock.
//!
//! Make a project's authority, issue a certificate, sign and verify with it:
//!
//! ```
//! use locule_identity::{Signer, Usage, Verifier};
//! use locule_identity_openssl::{CertificateAuthority, OpensslSigner, OpensslVerifier, Subject, SubjectName, subject_names};
//! use std::time::{Duration, SystemTime};
//!
//! let now = SystemTime::now();
//! let root = CertificateAuthority::create(&Subject::new("my-project"), Duration::from_secs(86_400), now)?;
//!
//! let subject = Subject::new("site-1").organization("example hospital");
//! let names = [SubjectName::Dns("site-1".into())];
//! let issued = root.issue(&subject, &names, Usage::Client, Duration::from_secs(3_600), now)?;
//!
//! let signer = OpensslSigner::from_pem(&issued.certificate_pem, &issued.key_pem)?;
//! let verifier = OpensslVerifier::new(&root.certificate_pem()?)?;
//!
//! let identity = verifier.identify(signer.certificate_pem(), Usage::Client, now)?;
//! assert_eq!(identity.common_name, "site-1");
//! verifier.verify(&identity, b"message", &signer.sign(b"message")?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start with [`OpensslSigner`] and [`OpensslVerifier`]; [`OpensslCipher`] is for messages that only two cells
//! may read, [`CertificateAuthority`] for provisioning.
//!
//! # Source
//! nvflare 2.9.0, `nvflare.lighter.utils`, `nvflare.private.fed.utils.identity_utils`,
//! `nvflare.lighter.impl.cert`, `nvflare.fuel.f3.cellnet.cell_cipher`; vectors in
//! `tests/vectors/registration.json` and `tests/vectors/cipher.json`.

mod authority;
mod certificate;
mod cipher;
mod pss;
mod signer;
mod verifier;

pub use authority::{CertificateAuthority, IssueError, Issued, Subject, SubjectName, subject_names};
pub use cipher::OpensslCipher;
pub use signer::{LoadError, OpensslSigner};
pub use verifier::OpensslVerifier;
