//! Signatures over folders, with a scheme that is a keyed checksum: what is tested is the folder, not
//! the cryptography. Real certificates and stock signatures are tested where kits are provisioned.
#![expect(clippy::unwrap_used, reason = "a test's helpers may panic like the tests")]

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use locule_identity::{ChainError, Identity, SignError, SignatureError, Signer, Usage, Verifier};
use locule_job::{
    CERTIFICATE_FILE, SIGNATURE_FILE, TreeError, VerifyError, is_signed, sign_folder, verify_folder,
};
use tempfile::TempDir;

#[test]
fn a_signed_folder_verifies_and_names_its_signer() {
    let app = App::signed();
    assert!(is_signed(&app.path("")));
    let signers = verify_folder(&app.path(""), &Checksum, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(signers.iter().map(|signer| signer.common_name.as_str()).collect::<Vec<_>>(), ["lead"]);
}

#[test]
fn every_folder_holds_signatures_of_what_is_in_it() {
    let app = App::signed();
    let listed = |folder: &str| {
        let text = fs::read_to_string(app.path(folder).join(SIGNATURE_FILE)).unwrap();
        let map: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
        map.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(listed(""), ["config", "custom", "readme"]);
    assert_eq!(listed("custom"), ["deep"]);
    assert_eq!(listed("custom/deep"), ["b.py"]);
}

#[test]
fn what_two_people_signed_names_both() {
    let app = App::signed();
    sign_folder(&app.path("custom"), &Key::of("other")).unwrap();
    let signers = verify_folder(&app.path(""), &Checksum, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(signers.len(), 2);
}

#[test]
fn signing_again_replaces_the_signatures() {
    let app = App::signed();
    fs::write(app.path("readme"), "changed").unwrap();
    sign_folder(&app.path(""), &Key::of("lead")).unwrap();
    verify_folder(&app.path(""), &Checksum, SystemTime::UNIX_EPOCH).unwrap();
}

#[test]
fn whatever_was_changed_added_or_removed_is_noticed() {
    let app = App::signed();
    fs::write(app.path("custom/deep/b.py"), "b = 2").unwrap();
    assert_eq!(app.refused(), "the signature of `custom/deep/b.py` does not verify");

    let app = App::signed();
    fs::write(app.path("config/more.json"), "{}").unwrap();
    assert_eq!(app.refused(), "`config/more.json` is not signed");

    let app = App::signed();
    fs::create_dir(app.path("custom/more")).unwrap();
    assert_eq!(app.refused(), "`custom/more` is not signed");

    let app = App::signed();
    fs::remove_file(app.path("config/a.json")).unwrap();
    assert_eq!(app.refused(), "`config/a.json` was signed and is missing");

    let app = App::signed();
    fs::remove_dir_all(app.path("custom/deep")).unwrap();
    assert_eq!(app.refused(), "`custom/deep` was signed and is missing");

    let app = App::signed();
    fs::rename(app.path("readme"), app.path("license")).unwrap();
    assert_eq!(app.refused(), "`license` is not signed");
}

#[test]
fn a_folder_without_signatures_or_certificate_is_not_signed() {
    let app = App::signed();
    fs::remove_file(app.path("custom/deep").join(SIGNATURE_FILE)).unwrap();
    assert_eq!(app.refused(), "the folder `custom/deep` is not signed: it has no .__nvfl_sig.json");

    let app = App::signed();
    fs::remove_file(app.path("").join(CERTIFICATE_FILE)).unwrap();
    assert_eq!(app.refused(), "the folder `.` is not signed: it has no .__nvfl_submitter.crt");

    assert!(!is_signed(&App::new().path("")));
}

#[test]
fn a_signer_of_another_root_is_refused() {
    let app = App::new();
    sign_folder(&app.path(""), &Key::of("stranger")).unwrap();
    let error = verify_folder(&app.path(""), &Checksum, SystemTime::UNIX_EPOCH).unwrap_err();
    assert!(matches!(error, VerifyError::Signer { source: ChainError::Untrusted(_), .. }), "{error}");
}

#[test]
fn someone_elses_certificate_does_not_make_their_signature() {
    let app = App::signed();
    fs::write(app.path("config").join(CERTIFICATE_FILE), "other").unwrap();
    assert_eq!(app.refused(), "the signature of `config/a.json` does not verify");
}

#[test]
fn signatures_that_are_no_text_are_refused() {
    let app = App::signed();
    for bad in ["", "[]", r#"{"readme": 1}"#, "{"] {
        fs::write(app.path("").join(SIGNATURE_FILE), bad).unwrap();
        let error = verify_folder(&app.path(""), &Checksum, SystemTime::UNIX_EPOCH).unwrap_err();
        assert!(matches!(error, VerifyError::Malformed { .. }), "{bad}: {error}");
    }
    fs::write(app.path("").join(SIGNATURE_FILE), r#"{"readme": "?", "config": "?", "custom": "?"}"#).unwrap();
    assert!(app.refused().contains("does not verify"));
}

#[cfg(unix)]
#[test]
fn symbolic_links_are_neither_signed_nor_accepted() {
    let app = App::signed();
    std::os::unix::fs::symlink("../readme", app.path("config/link")).unwrap();
    assert!(sign_folder(&app.path(""), &Key::of("lead")).is_err());
    let error = verify_folder(&app.path(""), &Checksum, SystemTime::UNIX_EPOCH).unwrap_err();
    assert!(matches!(error, VerifyError::Tree(TreeError::Link { name }) if name == "config/link"));

    let outside = App::signed();
    let link = app.path("elsewhere");
    std::os::unix::fs::symlink(outside.path(""), &link).unwrap();
    assert!(verify_folder(&link, &Checksum, SystemTime::UNIX_EPOCH).is_err(), "nor as the folder itself");
}

struct App(TempDir);

impl App {
    fn new() -> App {
        let app = App(tempfile::tempdir().unwrap());
        for (name, text) in [("readme", "hello"), ("config/a.json", "{}"), ("custom/deep/b.py", "b = 1")] {
            fs::create_dir_all(app.path(name).parent().unwrap_or(Path::new("/"))).unwrap();
            fs::write(app.path(name), text).unwrap();
        }
        app
    }

    fn signed() -> App {
        let app = App::new();
        sign_folder(&app.path(""), &Key::of("lead")).unwrap();
        app
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("app").join(name)
    }

    fn refused(&self) -> String {
        verify_folder(&self.path(""), &Checksum, SystemTime::UNIX_EPOCH).unwrap_err().to_string()
    }
}

#[derive(Debug)]
struct Key(Identity);

impl Key {
    fn of(name: &str) -> Key {
        Key(Identity {
            common_name: name.into(),
            organization: None,
            role: None,
            fingerprint: [name.len() as u8; 32],
            public_key: name.into(),
            not_after: SystemTime::UNIX_EPOCH,
        })
    }
}

impl Signer for Key {
    fn identity(&self) -> &Identity {
        &self.0
    }

    fn certificate_pem(&self) -> &[u8] {
        self.0.common_name.as_bytes()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(checksum(&self.0.common_name, message))
    }
}

#[derive(Debug)]
struct Checksum;

impl Verifier for Checksum {
    fn identify(&self, chain_pem: &[u8], usage: Usage, _now: SystemTime) -> Result<Identity, ChainError> {
        assert_eq!(usage, Usage::Client);
        match chain_pem {
            b"stranger" => Err(ChainError::Untrusted("another root".into())),
            name => Ok(Key::of(str::from_utf8(name).unwrap()).0),
        }
    }

    fn verify(&self, by: &Identity, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        (checksum(&by.common_name, message) == signature).then_some(()).ok_or(SignatureError)
    }
}

fn checksum(name: &str, message: &[u8]) -> Vec<u8> {
    let mut hasher = DefaultHasher::new();
    (name, message).hash(&mut hasher);
    hasher.finish().to_le_bytes().to_vec()
}
