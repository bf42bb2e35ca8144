//! A registration recorded between a stock site and a stock server.

use std::time::{Duration, SystemTime};

use locule_identity::{Challenge, Signer, Usage, Verifier, decode_signature, proof_text, token_text};
use locule_identity_openssl::{OpensslSigner, OpensslVerifier};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Padding;
use openssl::sign::RsaPssSaltlen;
use serde_json::Value;

const VECTORS: &str = include_str!("../../../../tests/vectors/registration.json");

struct Recorded {
    json: Value,
    verifier: OpensslVerifier,
    server: OpensslSigner,
    site: OpensslSigner,
}

impl Recorded {
    fn read() -> Self {
        let json: Value = serde_json::from_str(VECTORS).unwrap();
        let pem = |name: &str| json[name].as_str().unwrap().as_bytes().to_vec();
        Self {
            verifier: OpensslVerifier::new(&pem("root_ca_pem")).unwrap(),
            server: OpensslSigner::from_pem(&pem("server_cert_pem"), &pem("server_key_pem")).unwrap(),
            site: OpensslSigner::from_pem(&pem("client_cert_pem"), &pem("client_key_pem")).unwrap(),
            json,
        }
    }

    fn decoded(&self, message: &str, key: &str) -> Vec<u8> {
        let value = &self.json["decoded"][message][key];
        value["$bytes_hex"].as_str().map_or_else(|| value.as_str().unwrap().as_bytes().to_vec(), unhex)
    }
}

/// The moment of the recording, and a minute.
fn then() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_299_940)
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn every_recorded_signature_verifies_and_no_altered_one_does() {
    let recorded = Recorded::read();
    let checks = recorded.json["signature_checks"].as_array().unwrap();
    assert_eq!(checks.len(), 4);
    for check in checks {
        let by = match check["signer"].as_str().unwrap() {
            "server key" => recorded.server.identity(),
            "client key" => recorded.site.identity(),
            other => panic!("signer {other}"),
        };
        let text = check["signed_text"].as_str().unwrap().as_bytes();
        let signature = match check["signature_hex"].as_str() {
            Some(hex) => unhex(hex),
            None => decode_signature(check["signature_b64"].as_str().unwrap()).unwrap(),
        };
        recorded.verifier.verify(by, text, &signature).unwrap();

        for at in 0..signature.len() {
            let mut altered = signature.clone();
            altered[at] ^= 1 << (at % 8);
            assert!(recorded.verifier.verify(by, text, &altered).is_err());
        }
        for at in 0..text.len() {
            let mut altered = text.to_vec();
            altered[at] ^= 1;
            assert!(recorded.verifier.verify(by, &altered, &signature).is_err());
        }
        let other = if by == recorded.server.identity() { &recorded.site } else { &recorded.server };
        assert!(recorded.verifier.verify(other.identity(), text, &signature).is_err());
        assert!(recorded.verifier.verify(by, text, &signature[1..]).is_err());
        assert!(recorded.verifier.verify(by, text, &[&signature[..], &[0]].concat()).is_err());
        assert!(recorded.verifier.verify(by, text, &[]).is_err());
    }
}

#[test]
fn recorded_signatures_have_the_longest_salt_and_so_do_ours() {
    let recorded = Recorded::read();
    let key = PKey::public_key_from_der(&recorded.server.identity().public_key).unwrap();
    let verifies_with = |salt: RsaPssSaltlen, text: &[u8], signature: &[u8]| {
        let mut verifier = openssl::sign::Verifier::new(MessageDigest::sha256(), &key).unwrap();
        verifier.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
        verifier.set_rsa_mgf1_md(MessageDigest::sha256()).unwrap();
        verifier.set_rsa_pss_saltlen(salt).unwrap();
        verifier.verify_oneshot(signature, text).unwrap_or(false)
    };
    let theirs = recorded.decoded("challenge_reply", "signature");
    let their_text = proof_text("localhost", "1f9257b4-7111-42d0-84a4-5beac975f581");
    let ours = recorded.server.sign(b"text").unwrap();
    assert!(verifies_with(RsaPssSaltlen::custom(222), &their_text, &theirs));
    assert!(verifies_with(RsaPssSaltlen::custom(222), b"text", &ours));
    assert!(!verifies_with(RsaPssSaltlen::custom(32), b"text", &ours));
}

#[test]
fn any_salt_length_is_accepted() {
    let recorded = Recorded::read();
    let key =
        PKey::private_key_from_pem(recorded.json["client_key_pem"].as_str().unwrap().as_bytes()).unwrap();
    for salt in [0, 32, 221, 222] {
        let mut signer = openssl::sign::Signer::new(MessageDigest::sha256(), &key).unwrap();
        signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
        signer.set_rsa_mgf1_md(MessageDigest::sha256()).unwrap();
        signer.set_rsa_pss_saltlen(RsaPssSaltlen::custom(salt)).unwrap();
        let signature = signer.sign_oneshot_to_vec(b"text").unwrap();
        recorded.verifier.verify(recorded.site.identity(), b"text", &signature).unwrap();
    }
}

#[test]
fn signatures_in_another_scheme_are_refused() {
    let recorded = Recorded::read();
    let key =
        PKey::private_key_from_pem(recorded.json["client_key_pem"].as_str().unwrap().as_bytes()).unwrap();
    let mut pkcs1 = openssl::sign::Signer::new(MessageDigest::sha256(), &key).unwrap();
    let mut sha1 = openssl::sign::Signer::new(MessageDigest::sha1(), &key).unwrap();
    sha1.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
    for signature in [pkcs1.sign_oneshot_to_vec(b"text").unwrap(), sha1.sign_oneshot_to_vec(b"text").unwrap()]
    {
        assert!(recorded.verifier.verify(recorded.site.identity(), b"text", &signature).is_err());
    }
}

#[test]
fn recorded_certificates_name_their_holders() {
    let recorded = Recorded::read();
    for (message, usage, name) in [
        ("challenge_reply", Usage::Server, "localhost"),
        ("register_request_payload", Usage::Client, "site-1"),
    ] {
        let chain = recorded.decoded(message, "cert");
        let identity = recorded.verifier.identify(&chain, usage, then()).unwrap();
        assert_eq!(identity.common_name, name);
        assert_eq!(identity.organization.as_deref(), Some("testorg"));
        assert_eq!(identity.role, None);
        // 2027-11-16, 22:23:36 UTC
        assert_eq!(identity.not_after, SystemTime::UNIX_EPOCH + Duration::from_secs(1_826_403_816));
        assert!(
            recorded.verifier.identify(&chain, usage, identity.not_after + Duration::from_secs(1)).is_err()
        );
    }
}

#[test]
fn the_recorded_registration_is_one_that_we_would_have_made() {
    let recorded = Recorded::read();
    let decoded = |message: &str, key: &str| String::from_utf8(recorded.decoded(message, key)).unwrap();
    let client_nonce = decoded("challenge_request_headers", "nonce");
    let server_nonce = decoded("challenge_reply", "nonce");
    let token = decoded("register_reply", "__token__");
    let token_signature = decoded("register_reply", "__token_signature__");
    let (server, site) = (recorded.server.identity(), recorded.site.identity());
    let verify = |by, text: Vec<u8>, signature: Vec<u8>| recorded.verifier.verify(by, &text, &signature);

    verify(server, proof_text("localhost", &client_nonce), recorded.decoded("challenge_reply", "signature"))
        .unwrap();
    let proof = recorded.decoded("register_request_payload", "signature");
    verify(site, proof_text("site-1", &server_nonce), proof).unwrap();
    verify(server, token_text("site-1", &token), decode_signature(&token_signature).unwrap()).unwrap();
    assert!([client_nonce, server_nonce, token].iter().all(|text| locule_identity::is_canonical_uuid(text)));
    assert!(Challenge::new(site, &mut crate::support::rng(1)).is_ok());
}
