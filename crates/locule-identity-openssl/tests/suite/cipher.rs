//! Envelopes recorded from stock cells, and ours.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use locule_identity::{ChainError, Cipher, ENVELOPE_LEN, Identity, OpenError, Signer, Usage};
use locule_identity_openssl::{OpensslCipher, OpensslSigner, Subject};
use proptest::prelude::*;
use serde_json::Value;

use crate::support::{Forged, Pair, authority, now, rsa_key, signer};

const VECTORS: &str = include_str!("../../../../tests/vectors/cipher.json");

struct Recorded {
    json: Value,
    server: OpensslCipher,
    site: OpensslCipher,
}

static RECORDED: LazyLock<Recorded> = LazyLock::new(|| {
    let json: Value = serde_json::from_str(VECTORS).unwrap();
    let pem = |name: &str| json[name].as_str().unwrap().as_bytes().to_vec();
    let cipher = |name: &str| {
        let signer =
            OpensslSigner::from_pem(&pem(&format!("{name}_cert_pem")), &pem(&format!("{name}_key_pem")));
        OpensslCipher::new(signer.unwrap(), &pem("root_ca_pem")).unwrap()
    };
    let (server, site) = (cipher("server"), cipher("client"));
    Recorded { json, server, site }
});

impl Recorded {
    /// Who sealed a vector, as the other sees it, and the other.
    fn ends(&self, vector: &Value) -> (Identity, &OpensslCipher) {
        match vector["direction"].as_str().unwrap() {
            "site-1 -> server" => (self.identity(&self.site), &self.server),
            "server -> site-1" => (self.identity(&self.server), &self.site),
            other => panic!("direction {other}"),
        }
    }

    /// Who holds a cipher, as both see it.
    fn identity(&self, of: &OpensslCipher) -> Identity {
        // a day after they were made
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_386_400);
        self.server.identify(of.certificate_pem(), then).unwrap()
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The part of a recorded frame behind its prefix and headers.
fn body(frame: &[u8]) -> &[u8] {
    let headers = usize::from(u16::from_be_bytes([frame[4], frame[5]]));
    &frame[16 + headers..]
}

#[test]
fn what_a_stock_cell_sealed_opens_and_what_it_refuses_is_refused() {
    let vectors = RECORDED.json["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 7);
    for vector in vectors {
        let (from, receiver) = RECORDED.ends(vector);
        let opened = receiver.open(&from, &unhex(vector["envelope"].as_str().unwrap()));
        match vector["name"].as_str().unwrap() {
            "bad_version" => assert_eq!(opened, Err(OpenError::Version(2))),
            "flipped_body_bit" => assert_eq!(opened, Err(OpenError::Signature)),
            "truncated_540" => assert_eq!(opened, Err(OpenError::Short { len: 540 })),
            name => assert_eq!(opened, Ok(unhex(vector["plaintext"].as_str().unwrap())), "{name}"),
        }
    }
}

#[test]
fn recorded_frames_open_too() {
    let frames = RECORDED.json["captured_frames"].as_array().unwrap();
    let sealed = frames.iter().filter(|frame| frame["headers"]["cn__encrypted"] == true);
    let mut opened = 0;
    for frame in sealed {
        let (from, receiver) = match frame["headers"]["cn__origin"].as_str().unwrap() {
            "site-1" => (RECORDED.identity(&RECORDED.site), &RECORDED.server),
            _ => (RECORDED.identity(&RECORDED.server), &RECORDED.site),
        };
        let clear = receiver.open(&from, body(&unhex(frame["frame"].as_str().unwrap()))).unwrap();
        assert_eq!(clear, unhex(frame["plaintext"].as_str().unwrap()), "{}", frame["what"]);
        assert_eq!(Some(clear.len() as u64), frame["headers"]["cn__clear_payload_len"].as_u64());
        opened += 1;
    }
    assert_eq!(opened, 6);
}

#[test]
fn an_envelope_opens_for_its_receiver_alone_and_from_its_sender_alone() {
    let (server, site) = (&RECORDED.server, &RECORDED.site);
    let (server_is, site_is) = (RECORDED.identity(server), RECORDED.identity(site));
    let envelope = site.seal(&server_is, b"for the server").unwrap();
    assert_eq!(envelope.len(), ENVELOPE_LEN + 14);
    assert_eq!(server.open(&site_is, &envelope).unwrap(), b"for the server");
    assert_eq!(server.open(&server_is, &envelope), Err(OpenError::Signature));
    assert_eq!(site.open(&site_is, &envelope), Err(OpenError::Unreadable));
    assert_eq!(server.open(&site_is, &site.seal(&server_is, b"").unwrap()).unwrap(), b"");
}

#[test]
fn a_key_is_wrapped_once_for_a_receiver_and_a_nonce_is_never_used_again() {
    let to = RECORDED.identity(&RECORDED.server);
    let (one, other) = (RECORDED.site.seal(&to, b"same").unwrap(), RECORDED.site.seal(&to, b"same").unwrap());
    assert_eq!(one[13..269], other[13..269], "the wrapped key");
    assert_ne!(one[1..13], other[1..13], "the nonce");
    assert_ne!(one[525..], other[525..], "the ciphertext");
}

#[test]
fn only_certificates_under_the_root_with_keys_of_2048_bits_are_taken() {
    let root = authority("project");
    let root_pem = root.certificate_pem().unwrap();
    let own = OpensslCipher::new(signer(&root, &Subject::new("site-1"), Usage::Client), &root_pem).unwrap();
    for usage in [Usage::Client, Usage::Server] {
        let peer = signer(&root, &Subject::new("peer"), usage);
        assert_eq!(own.identify(peer.certificate_pem(), now()).unwrap().common_name, "peer");
    }
    let stranger = signer(&authority("project"), &Subject::new("peer"), Usage::Client);
    assert!(matches!(own.identify(stranger.certificate_pem(), now()), Err(ChainError::Untrusted(_))));
    let known = signer(&root, &Subject::new("peer"), Usage::Client);
    let later = own.identify(known.certificate_pem(), now() + 2 * crate::support::YEAR);
    assert!(matches!(later, Err(ChainError::Expired)));

    let issuer = Pair::of(&root);
    let large = Forged { key: rsa_key(3_072), ..Forged::under(&issuer, "site-1") }.sign();
    assert!(matches!(own.identify(&large.pem(), now()), Err(ChainError::UnusableKey(_))));
    let large =
        OpensslSigner::from_pem(&large.pem(), &large.key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    assert!(own.seal(large.identity(), b"text").is_err());
    assert!(matches!(OpensslCipher::new(large, &root_pem), Err(ChainError::UnusableKey(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_sealed_opens(clear in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let (server, site) = (&RECORDED.server, &RECORDED.site);
        let envelope = server.seal(&RECORDED.identity(site), &clear).unwrap();
        prop_assert_eq!(site.open(&RECORDED.identity(server), &envelope).unwrap(), clear);
    }

    #[test]
    fn no_altered_envelope_opens(
        at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<prop::sample::Index>(),
        more in proptest::collection::vec(any::<u8>(), 1..40),
    ) {
        let (server, site) = (&RECORDED.server, &RECORDED.site);
        let from = RECORDED.identity(server);
        let envelope = server.seal(&RECORDED.identity(site), b"some clear text").unwrap();
        let mut altered = envelope.clone();
        altered[at.index(envelope.len())] ^= 1 << bit;
        prop_assert!(site.open(&from, &altered).is_err());
        prop_assert!(site.open(&from, &envelope[..cut.index(envelope.len())]).is_err());
        prop_assert!(site.open(&from, &[&envelope[..], &more].concat()).is_err());
    }

    #[test]
    fn no_bytes_make_opening_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
        prop_assert!(RECORDED.site.open(&RECORDED.identity(&RECORDED.server), &bytes).is_err());
    }
}
