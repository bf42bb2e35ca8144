//! The example in Rust, as the binary that is kept of it.
#![cfg(feature = "runtime")]
#![allow(clippy::unwrap_used, reason = "tests")]

use locule_policy_wasm::{Guest, GuestLimits, ReviewError};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

const BINARY: &[u8] = include_bytes!("../guest/comp_auth.wasm");
const DIGEST: &str = include_str!("../guest/comp_auth.wasm.sha256");
const GUIDE: &str = include_str!("../../../docs/writing-a-checker.md");
const IN_TEXT_FORM: &str = include_str!("guests/comp_auth.wat");

#[test]
fn its_digest_file_and_the_guide_name_the_binary_that_is_kept() {
    let digest: String = Sha256::digest(BINARY).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(DIGEST, format!("{digest}  comp_auth.wasm\n"));
    assert!(
        GUIDE.contains(&format!("\"digest\": \"sha256:{digest}\"")),
        "docs/writing-a-checker.md names another"
    );
}

#[test]
fn it_judges_as_the_one_in_text_form() {
    let component = |requested: &str, path: &str| json!({ "id": null, "requested": requested, "path": path });
    let args = json!({ "requested": "example.Shell", "path": "x" });
    let nested = json!({ "requested": "example.Echo", "args": args, "path": "a" });
    let quoted =
        json!({ "requested": "example.Shell", "requested_by": "path", "path": "b", "file": "a \"b\" \\" });
    let many = (0..300).map(|i| component("example.Shell", &format!("components.#{i}"))).collect();
    let (mut in_rust, mut in_text_form) = (open(BINARY), open(&wat::parse_str(IN_TEXT_FORM).unwrap()));
    for (components, refused) in [
        (vec![], 0),
        (vec![component("example.Echo", "a")], 0),
        (vec![component("example.Shell", "executors.#1.executor")], 1),
        (vec![component("example.Shell2", "a"), component("Shell", "b"), component("example.Shel", "c")], 0),
        (vec![nested, quoted, component("example.Shell", "c")], 2),
        (many, 300),
    ] {
        let plan = plan(&components, json!({ "refused": ["example.Shell"] }));
        let verdicts = in_rust.review(&plan).unwrap();
        assert_eq!(verdicts.len(), refused, "{plan}");
        assert_eq!(verdicts, in_text_form.review(&plan).unwrap(), "{plan}");
    }
}

#[test]
fn it_refuses_what_its_arguments_name_and_cannot_judge_without_them() {
    let mut guest = open(BINARY);
    let components =
        [json!({ "requested": "example.Echo", "path": "a" }), json!({ "requested": "b.Ü", "path": "ß" })];
    let verdicts = guest.review(&plan(&components, json!({ "refused": ["b.Ü", "other"] }))).unwrap();
    assert_eq!(verdicts.len(), 1);
    assert_eq!(verdicts[0].component.as_str(), "ß");
    assert_eq!(verdicts[0].findings[0].message, "b.Ü is not run here");
    for plan in [&plan(&components, json!({})), r#"{"components":[]}"#, "{", ""] {
        let failed = guest.review(plan).unwrap_err();
        assert!(matches!(failed, ReviewError::Refused(_)), "{plan}: {failed}");
    }
}

fn plan(components: &[Json], args: Json) -> String {
    json!({ "schema": 1, "components": components, "args": args }).to_string()
}

fn open(wasm: &[u8]) -> Guest {
    Guest::open(wasm, GuestLimits::default()).unwrap()
}
