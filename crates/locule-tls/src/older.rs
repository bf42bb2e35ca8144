//! Certificates of nvflare 2.7, which name an address as if it were a host.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::chain_only::ChainOnly;

/// Verifies chain and name; a dialed address may also stand among the host names.
///
/// # Source
/// nvflare 2.7.3, `nvflare.lighter.impl.cert`; gRPC accepts such certificates.
#[derive(Debug)]
pub(crate) struct AddressAsName {
    strict: Arc<WebPkiServerVerifier>,
    chain: ChainOnly,
}

impl AddressAsName {
    pub(crate) fn new(strict: Arc<WebPkiServerVerifier>, chain: ChainOnly) -> Self {
        Self { strict, chain }
    }
}

impl ServerCertVerifier for AddressAsName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        dialed: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.strict.verify_server_cert(end_entity, intermediates, dialed, ocsp_response, now);
        let other_name = matches!(
            verified,
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
            ))
        );
        if other_name && names_as_host(end_entity, dialed) {
            return self.chain.verify_server_cert(end_entity, intermediates, dialed, ocsp_response, now);
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}

/// Whether the dialed address is among the certificate's host names.
fn names_as_host(certificate: &CertificateDer<'_>, dialed: &ServerName<'_>) -> bool {
    let ServerName::IpAddress(dialed) = dialed else { return false };
    let dialed = IpAddr::from(*dialed).to_string();
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(|name| matches!(name, GeneralName::DNSName(name) if *name == dialed))
}
