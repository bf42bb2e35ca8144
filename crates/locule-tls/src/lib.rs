//! Builds rustls configurations from the PEM files of a startup kit.
//!
//! [`server_config`] and [`client_config`] read a root, a certificate chain and a private key, and
//! give what a carrier hands to its TLS library: mutual TLS, or a server that asks for no
//! certificate. The crate opens no connection and decides nothing about who may speak: a chain that
//! ends at the root is accepted here, whose name it bears ([`common_name`]) is judged by the gate
//! behind the link.
//!
//! The cryptography is aws-lc-rs, handed to each configuration as a value; no process-wide default
//! is installed or read. TLS 1.2 and 1.3 are spoken, nothing older.
//!
//! ```no_run
//! use locule_tls::{ClientAuth, HostCheck, TlsFiles, client_config, server_config};
//!
//! let server = TlsFiles::in_folder("server/startup", "server");
//! let mut accepting = server_config(&server, ClientAuth::Required)?;
//! accepting.alpn_protocols = vec![b"h2".to_vec()];
//!
//! let site = TlsFiles::in_folder("site-1/startup", "client");
//! let dialing = client_config(&site, HostCheck::San)?;
//! # let _ = dialing;
//! # Ok::<(), locule_tls::TlsError>(())
//! ```
//!
//! Start with [`TlsFiles`], [`server_config`] and [`TlsError`].

mod chain_only;
mod older;
mod pem;

pub use pem::TlsError;
pub use rustls::{ClientConfig, ServerConfig};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use x509_parser::prelude::FromDer;

/// The three PEM files one end of a TLS connection needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates that a peer's chain must end at; one or more.
    pub ca: PathBuf,
    /// Our own chain, leaf first.
    pub cert: PathBuf,
    /// The leaf's private key, unencrypted: PKCS#1, PKCS#8 or SEC1.
    pub key: PathBuf,
}

impl TlsFiles {
    /// The files under the names a startup kit gives them: `rootCA.pem`, `<stem>.crt` and
    /// `<stem>.key`, where the stem is `server` or `client`.
    pub fn in_folder(folder: impl AsRef<Path>, stem: &str) -> TlsFiles {
        let folder = folder.as_ref();
        TlsFiles {
            ca: folder.join("rootCA.pem"),
            cert: folder.join(format!("{stem}.crt")),
            key: folder.join(format!("{stem}.key")),
        }
    }
}

/// What a server asks of those who dial it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// A certificate that chains to the root (`connection_security` "mtls").
    Required,
    /// Nothing: peers prove who they are by message only (`connection_security` "tls").
    None,
}

/// What a dialer checks of the server's certificate beyond its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostCheck {
    /// The dialed host name or address must be among its subject alternative names; an address may stand there as
    /// if it were a host name, as nvflare 2.7 writes it.
    San,
    /// No name: any leaf of the root will do. For carriers whose stock peers check no name either;
    /// the gate behind the link still compares the common name.
    None,
}

/// The configuration of a listener that presents `files.cert`.
///
/// The caller sets `alpn_protocols` where its carrier needs it.
///
/// # Errors
/// [`TlsError`] names the file at fault and what to do about it.
pub fn server_config(files: &TlsFiles, clients: ClientAuth) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Rejected { file: files.cert.clone(), source })?;
    let builder = match clients {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Required => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots(&files.ca)?, provider)
                .build()
                .map_err(|source| TlsError::Root { file: files.ca.clone(), source })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let (chain, key) = (pem::certificates(&files.cert)?, pem::private_key(&files.key)?);
    builder.with_single_cert(chain, key).map_err(|source| own_chain_error(files, source))
}

/// The configuration of a dialer that presents `files.cert`.
///
/// A server that asks for no certificate is given none, so this serves `connection_security`
/// "mtls" and "tls" alike.
///
/// # Errors
/// [`TlsError`] names the file at fault and what to do about it.
pub fn client_config(files: &TlsFiles, host: HostCheck) -> Result<ClientConfig, TlsError> {
    let (chain, key) = (pem::certificates(&files.cert)?, pem::private_key(&files.key)?);
    verifying_client(&files.ca, host)?
        .with_client_auth_cert(chain, key)
        .map_err(|source| own_chain_error(files, source))
}

/// The configuration of a dialer that has a root but no certificate of its own.
///
/// # Errors
/// [`TlsError`] names the file at fault and what to do about it.
pub fn anonymous_client_config(ca: &Path, host: HostCheck) -> Result<ClientConfig, TlsError> {
    Ok(verifying_client(ca, host)?.with_no_client_auth())
}

/// The subject's common name of a DER certificate.
///
/// `None` if the bytes are no certificate, or if the subject has no common name or more than one:
/// who has two names has none.
pub fn common_name(der: &[u8]) -> Option<String> {
    let (rest, certificate) = x509_parser::certificate::X509Certificate::from_der(der).ok()?;
    let mut names = certificate.subject().iter_common_name();
    match (names.next(), names.next(), rest.is_empty()) {
        (Some(only), None, true) => only.as_str().ok().map(str::to_owned),
        _ => None,
    }
}

type VerifyingClient = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn verifying_client(ca: &Path, host: HostCheck) -> Result<VerifyingClient, TlsError> {
    let (provider, roots) = (provider(), roots(ca)?);
    let chain = chain_only::ChainOnly::new(roots.clone(), provider.signature_verification_algorithms);
    let verifier: Arc<dyn ServerCertVerifier> = match host {
        HostCheck::San => {
            let strict = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
                .build()
                .map_err(|source| TlsError::Root { file: ca.to_owned(), source })?;
            Arc::new(older::AddressAsName::new(strict, chain))
        }
        HostCheck::None => Arc::new(chain),
    };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Rejected { file: ca.to_owned(), source })?
        .dangerous()
        .with_custom_certificate_verifier(verifier))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(ca: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in pem::certificates(ca)? {
        store.add(certificate).map_err(|source| TlsError::Rejected { file: ca.to_owned(), source })?;
    }
    Ok(Arc::new(store))
}

fn own_chain_error(files: &TlsFiles, source: rustls::Error) -> TlsError {
    if matches!(source, rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) {
        return TlsError::KeyOfAnotherCertificate { key: files.key.clone(), cert: files.cert.clone() };
    }
    let about_the_chain = matches!(source, rustls::Error::InvalidCertificate(_));
    let file = if about_the_chain { &files.cert } else { &files.key };
    TlsError::Rejected { file: file.clone(), source }
}
