//! Which certificate chains are accepted, and why the others are not.

use std::time::Duration;

use crate::support::{
    self, Forged, Pair, YEAR, authority, ca, extended, may_encipher_only, may_issue, may_sign, now, verifier,
};
use locule_identity::{ChainError, Signer, Usage, Verifier};
use locule_identity_openssl::{
    CertificateAuthority, LoadError, OpensslSigner, OpensslVerifier, Subject, SubjectName, subject_names,
};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use proptest::prelude::*;

/// A leaf made by `shape` under a fresh root, as the verifier of that root judges it.
fn judge(usage: Usage, shape: impl FnOnce(Forged<'_>) -> Forged<'_>) -> Result<String, ChainError> {
    let root = authority("project");
    let pair = Pair::of(&root);
    let leaf = shape(Forged::under(&pair, "site-1")).sign();
    verifier(&root).identify(&leaf.pem(), usage, now()).map(|identity| identity.common_name)
}

#[test]
fn a_leaf_without_usage_extensions_serves_both_ways() {
    for usage in [Usage::Server, Usage::Client] {
        assert_eq!(judge(usage, |leaf| leaf), Ok("site-1".to_owned()));
    }
}

#[test]
fn key_usage_and_extended_key_usage_are_honoured_if_present() {
    for usage in [Usage::Server, Usage::Client] {
        let other = if usage == Usage::Server { Usage::Client } else { Usage::Server };
        assert!(judge(usage, |leaf| leaf.extension(extended(usage)).extension(may_sign())).is_ok());
        let wrong = Err(ChainError::WrongUsage(usage));
        assert_eq!(judge(usage, |leaf| leaf.extension(extended(other))), wrong);
        assert_eq!(judge(usage, |leaf| leaf.extension(may_encipher_only())), wrong);
    }
}

#[test]
fn a_certificate_is_good_from_its_first_moment_to_its_last() {
    let root = authority("project");
    let pair = Pair::of(&root);
    let leaf = Forged::under(&pair, "site-1").sign().pem();
    let hour = Duration::from_secs(3_600);
    let second = Duration::from_secs(1);
    let judge = |at| verifier(&root).identify(&leaf, Usage::Client, at).map(|_| ());
    assert_eq!(judge(now() - hour - second), Err(ChainError::NotYetValid));
    assert_eq!(judge(now() - hour), Ok(()));
    assert_eq!(judge(now() + hour - second), Ok(()));
    assert_eq!(judge(now() + hour + second), Err(ChainError::Expired));
}

#[test]
fn an_expired_root_ends_its_leaves() {
    let root =
        CertificateAuthority::create(&Subject::new("project"), Duration::from_secs(60), now()).unwrap();
    let pair = Pair::of(&root);
    let leaf = Forged::under(&pair, "site-1").sign().pem();
    let later = now() + Duration::from_secs(120);
    assert_eq!(verifier(&root).identify(&leaf, Usage::Client, later).map(|_| ()), Err(ChainError::Expired));
}

#[test]
fn another_root_of_the_same_name_is_refused() {
    let (ours, theirs) = (authority("project"), authority("project"));
    let pair = Pair::of(&theirs);
    let leaf = Forged::under(&pair, "site-1").sign();
    for chain in [leaf.pem(), [leaf.pem(), pair.pem()].concat()] {
        let judged = verifier(&ours).identify(&chain, Usage::Client, now());
        assert!(matches!(judged, Err(ChainError::Untrusted(_))), "{judged:?}");
    }
}

#[test]
fn self_signed_leaves_and_the_root_itself_are_refused() {
    let root = authority("project");
    let own = authority("site-1");
    let judged = verifier(&root).identify(&own.certificate_pem().unwrap(), Usage::Client, now());
    assert!(matches!(judged, Err(ChainError::Untrusted(_))), "{judged:?}");
    let judged = verifier(&root).identify(&root.certificate_pem().unwrap(), Usage::Client, now());
    assert_eq!(judged.map(|_| ()), Err(ChainError::LeafIsAuthority));
}

#[test]
fn a_leaf_that_is_an_authority_is_refused() {
    let judged = judge(Usage::Client, |leaf| leaf.extension(ca()));
    assert_eq!(judged, Err(ChainError::LeafIsAuthority));
}

#[test]
fn a_leaf_cannot_issue_for_others() {
    let root = authority("project");
    let pair = Pair::of(&root);
    let honest = Forged::under(&pair, "site-1").sign();
    let old_style = Forged::under(&pair, "site-1").extension(may_issue()).sign();
    for issuer in [honest, old_style] {
        let forged = Forged::under(&issuer, "site-2").sign();
        let chain = [forged.pem(), issuer.pem()].concat();
        let judged = verifier(&root).identify(&chain, Usage::Client, now());
        assert!(matches!(judged, Err(ChainError::Untrusted(_))), "{judged:?}");
    }
}

#[test]
fn intermediate_authorities_lead_to_the_root() {
    let root = authority("project");
    let pair = Pair::of(&root);
    let middle = Forged::under(&pair, "middle").extension(ca()).extension(may_issue()).sign();
    let leaf = Forged::under(&middle, "site-1").sign();
    let identify = |chain: &[u8]| verifier(&root).identify(chain, Usage::Client, now());
    assert_eq!(identify(&[leaf.pem(), middle.pem()].concat()).unwrap().common_name, "site-1");
    assert!(identify(&leaf.pem()).is_err(), "the intermediate is missing");
    assert!(identify(&[middle.pem(), leaf.pem()].concat()).is_err(), "the leaf comes first");
}

#[test]
fn weak_keys_and_digests_are_refused() {
    let weak = support::rsa_key(1_024);
    let judged = judge(Usage::Client, |leaf| Forged { key: weak, ..leaf });
    assert!(judged.is_err(), "{judged:?}");
    let judged = judge(Usage::Client, |leaf| Forged { digest: MessageDigest::sha1(), ..leaf });
    assert!(matches!(judged, Err(ChainError::Untrusted(_))), "{judged:?}");
}

#[test]
fn a_key_that_is_not_rsa_is_refused() {
    let group = openssl::ec::EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = openssl::pkey::PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap();
    let judged = judge(Usage::Client, |leaf| Forged { key, ..leaf });
    assert!(matches!(judged, Err(ChainError::UnusableKey(_))), "{judged:?}");
}

#[test]
fn ambiguous_and_forged_subjects_are_refused() {
    let subjects: [&[(Nid, &str)]; 7] = [
        &[(Nid::ORGANIZATIONNAME, "no common name")],
        &[(Nid::COMMONNAME, "site-1"), (Nid::COMMONNAME, "site-2")],
        &[(Nid::COMMONNAME, "site-1\0.evil")],
        &[(Nid::COMMONNAME, "site-1\n")],
        &[(Nid::COMMONNAME, " site-1")],
        &[
            (Nid::COMMONNAME, "site-1"),
            (Nid::PKCS9_UNSTRUCTUREDNAME, "a"),
            (Nid::PKCS9_UNSTRUCTUREDNAME, "b"),
        ],
        &[(Nid::COMMONNAME, "site-1"), (Nid::ORGANIZATIONNAME, "x\u{1b}[2J")],
    ];
    for subject in subjects {
        let judged = judge(Usage::Client, |leaf| Forged { names: subject.to_vec(), ..leaf });
        assert!(matches!(judged, Err(ChainError::UnusableSubject(_))), "{subject:?}: {judged:?}");
    }
}

#[test]
fn an_altered_certificate_is_refused() {
    let root = authority("project");
    let pair = Pair::of(&root);
    let der = Forged::under(&pair, "site-1").sign().certificate.to_der().unwrap();
    let verifier = verifier(&root);
    for at in 0..der.len() {
        let mut altered = der.clone();
        altered[at] ^= 1;
        assert!(verifier.identify(&pem(&altered), Usage::Client, now()).is_err(), "byte {at}");
    }
    assert!(verifier.identify(&pem(&der), Usage::Client, now()).is_ok());
}

#[test]
fn only_plain_bounded_certificate_files_are_read() {
    let root = authority("project");
    let pair = Pair::of(&root);
    let leaf = Forged::under(&pair, "site-1").sign();
    let good = String::from_utf8(leaf.pem()).unwrap();
    let identify = |file: &str| verifier(&root).identify(file.as_bytes(), Usage::Client, now());
    let behind = pem(&[leaf.certificate.to_der().unwrap(), vec![0]].concat());
    let encrypted = good.replacen('\n', "\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n", 1);
    let bad = [
        String::new(),
        "no certificate".to_owned(),
        "-----BEGIN CERTIFICATE-----\n".to_owned(),
        good.replace("END CERTIFICATE", "END SOMETHING"),
        good.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
        encrypted,
        String::from_utf8(behind).unwrap(),
        good.repeat(9),
        good.clone() + &" ".repeat(65 * 1024),
    ];
    for file in &bad {
        let judged = identify(file);
        assert!(matches!(judged, Err(ChainError::Malformed(_))), "{judged:?} for {file:.40}");
    }
    assert!(verifier(&root).identify(&[0xff; 9], Usage::Client, now()).is_err());
    assert!(identify(&format!("Certificate:\n    Data:\n{good}")).is_ok());
    assert!(identify(&good.replace('\n', "\r\n")).is_ok());
}

#[test]
fn only_a_self_signed_authority_is_a_root() {
    let root = authority("project");
    let pair = Pair::of(&root);
    let leaf = Forged::under(&pair, "site-1").sign();
    let middle = Forged::under(&pair, "middle").extension(ca()).extension(may_issue()).sign();
    for no_root in [leaf.pem(), middle.pem(), Vec::new(), [pair.pem(), leaf.pem()].concat()] {
        assert!(OpensslVerifier::new(&no_root).is_err());
    }
}

#[test]
fn during_a_change_of_roots_both_are_trusted() {
    let (old, new, other) = (authority("project"), authority("project"), authority("project"));
    let both = [old.certificate_pem().unwrap(), new.certificate_pem().unwrap()].concat();
    let verifier = OpensslVerifier::new(&both).unwrap();
    let accepted = [&old, &new, &other].map(|root| {
        let signer = support::signer(root, &Subject::new("site-1"), Usage::Client);
        verifier.identify(signer.certificate_pem(), Usage::Client, now()).is_ok()
    });
    assert_eq!(accepted, [true, true, false]);
}

#[test]
fn a_signer_needs_the_key_of_its_certificate_unencrypted() {
    let root = authority("project");
    let pair = Pair::of(&root);
    let leaf = Forged::under(&pair, "site-1").sign();
    let pkcs1 = leaf.key.rsa().unwrap().private_key_to_pem().unwrap();
    let pkcs8 = leaf.key.private_key_to_pem_pkcs8().unwrap();
    for key in [&pkcs1, &pkcs8] {
        OpensslSigner::from_pem(&leaf.pem(), key).unwrap();
    }
    let cipher = openssl::symm::Cipher::aes_256_cbc();
    let encrypted = leaf.key.private_key_to_pem_pkcs8_passphrase(cipher, b"secret").unwrap();
    let load = |key: &[u8]| OpensslSigner::from_pem(&leaf.pem(), key).unwrap_err();
    assert!(matches!(load(&encrypted), LoadError::Key(_)));
    assert!(matches!(load(b""), LoadError::Key(_)));
    assert!(matches!(load(&pair.key.private_key_to_pem_pkcs8().unwrap()), LoadError::OtherKey));
    let missing = OpensslSigner::from_files("no/such.crt".as_ref(), "no/such.key".as_ref()).unwrap_err();
    assert_eq!(missing.to_string(), "cannot read no/such.key");
}

/// nvflare 2.9.0 compares this with `root_valid_days` before it goes on with a root.
#[test]
fn a_root_is_valid_for_as_long_as_was_asked_for_to_the_second() {
    let validity = Duration::from_secs(720 * 24 * 3600);
    let root = CertificateAuthority::create(&Subject::new("project"), validity, now()).unwrap();
    let root = Pair::of(&root).certificate;
    let lasts = root.not_before().diff(root.not_after()).unwrap();
    assert_eq!((lasts.days, lasts.secs), (720, 0));
}

#[test]
fn subject_names_are_read_back() {
    let root = authority("project");
    let names = ["server.example", "10.0.0.7", "::1"].map(SubjectName::of_host);
    let issued = root.issue(&Subject::new("server"), &names, Usage::Server, YEAR, now()).unwrap();
    assert_eq!(subject_names(&issued.certificate_pem).unwrap(), names);
    assert!(matches!(subject_names(b"no PEM"), Err(ChainError::Malformed(_))));
}

#[test]
fn what_is_issued_has_the_form_of_a_startup_kit() {
    let root = authority("project");
    let names = ["server.example", "localhost", "10.0.0.7", "::1"].map(SubjectName::of_host);
    let subject = Subject::new("server.example").organization("nvidia");
    let issued = root.issue(&subject, &names, Usage::Server, YEAR * 2, now()).unwrap();
    assert!(issued.key_pem.starts_with(b"-----BEGIN RSA PRIVATE KEY-----\n"));
    assert!(root.key_pem().unwrap().starts_with(b"-----BEGIN RSA PRIVATE KEY-----\n"));

    let leaf = openssl::x509::X509::from_pem(&issued.certificate_pem).unwrap();
    let root_certificate = Pair::of(&root).certificate;
    assert_eq!(leaf.not_after().to_string(), root_certificate.not_after().to_string(), "ends with the root");
    let root_key_id = root_certificate.subject_key_id().unwrap().as_slice();
    assert_eq!(
        root_certificate.authority_key_id().unwrap().as_slice(),
        root_key_id,
        "some verifiers ask for it"
    );
    assert!(leaf.subject_key_id().is_some());
    assert_eq!(
        leaf.authority_key_id().unwrap().as_slice(),
        root_certificate.subject_key_id().unwrap().as_slice()
    );
    let names: Vec<_> = leaf
        .subject_alt_names()
        .unwrap()
        .iter()
        .map(|name| name.dnsname().map_or_else(|| format!("{:?}", name.ipaddress().unwrap()), str::to_owned))
        .collect();
    assert_eq!(names[..3], ["server.example", "localhost", "[10, 0, 0, 7]"]);
    assert_eq!(names.len(), 4);
    assert_eq!(leaf.public_key().unwrap().bits(), 2_048);

    let identify = |usage| verifier(&root).identify(&issued.certificate_pem, usage, now());
    assert_eq!(identify(Usage::Server).unwrap().organization.as_deref(), Some("nvidia"));
    assert_eq!(identify(Usage::Client).unwrap_err(), ChainError::WrongUsage(Usage::Client));
}

#[test]
fn an_administrators_role_comes_back_out_of_the_certificate() {
    let root = authority("project");
    let subject = Subject::new("admin@test.org").organization("org").role("project_admin");
    let signer = support::signer(&root, &subject, Usage::Client);
    let identity = verifier(&root).identify(signer.certificate_pem(), Usage::Client, now()).unwrap();
    assert_eq!(identity.role.as_deref(), Some("project_admin"));
    assert!(identity.is_admin());
    assert_eq!(&identity, signer.identity());
}

#[test]
fn an_authority_taken_up_again_issues_under_the_same_root() {
    let root = authority("project");
    let again =
        CertificateAuthority::from_pem(&root.certificate_pem().unwrap(), &root.key_pem().unwrap()).unwrap();
    let signer = support::signer(&again, &Subject::new("site-1"), Usage::Client);
    assert!(verifier(&root).identify(signer.certificate_pem(), Usage::Client, now()).is_ok());

    let other = authority("project");
    let mixed = CertificateAuthority::from_pem(&root.certificate_pem().unwrap(), &other.key_pem().unwrap());
    assert!(matches!(mixed, Err(LoadError::OtherKey)));
    let leaf = root.issue(&Subject::new("a"), &[], Usage::Client, YEAR, now()).unwrap();
    assert!(CertificateAuthority::from_pem(&leaf.certificate_pem, &leaf.key_pem).is_err());
}

#[test]
fn subjects_and_names_that_cannot_stand_in_a_certificate_are_refused() {
    let root = authority("project");
    let long = "x".repeat(65);
    for name in ["", "a\nb", " a", "a\0", &long] {
        assert!(root.issue(&Subject::new(name), &[], Usage::Client, YEAR, now()).is_err(), "{name:?}");
    }
    for name in ["", "a b", "a\0b", "é"] {
        let names = [SubjectName::Dns(name.to_owned())];
        assert!(root.issue(&Subject::new("a"), &names, Usage::Client, YEAR, now()).is_err(), "{name:?}");
    }
}

#[test]
fn nothing_secret_is_shown() {
    let root = authority("project");
    let issued = root.issue(&Subject::new("site-1"), &[], Usage::Client, YEAR, now()).unwrap();
    let signer = OpensslSigner::from_pem(&issued.certificate_pem, &issued.key_pem).unwrap();
    let shown = format!("{root:?} {issued:?} {signer:?} {:?}", verifier(&root));
    assert!(!shown.contains("PRIVATE") && !shown.contains("key"), "{shown}");
}

proptest! {
    #[test]
    fn reading_a_chain_never_panics(file in prop::collection::vec(any::<u8>(), 0..300)) {
        let root = authority_once();
        let mut framed = b"-----BEGIN CERTIFICATE-----\n".to_vec();
        framed.extend(openssl::base64::encode_block(&file).into_bytes());
        framed.extend(b"\n-----END CERTIFICATE-----\n");
        for chain in [&file, &framed] {
            prop_assert!(root.identify(chain, Usage::Client, now()).is_err());
        }
    }
}

fn authority_once() -> &'static OpensslVerifier {
    static ONCE: std::sync::LazyLock<OpensslVerifier> =
        std::sync::LazyLock::new(|| verifier(&authority("project")));
    &ONCE
}

fn pem(der: &[u8]) -> Vec<u8> {
    let base64 = openssl::base64::encode_block(der);
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n").into_bytes()
}
