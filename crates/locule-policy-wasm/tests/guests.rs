//! Components assembled from text, each of which does one thing well or badly.
#![cfg(feature = "runtime")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use locule_component::Decision;
use locule_policy_wasm::{Guest, GuestLimits, OpenError, ReviewError};

const PLAN: &str = r#"{"schema":1,"components":[
{"id":null,"requested":"example.Echo","args":{"requested":"example.Shell","path":"x"},"path":"executors.#1.executor"},
{"id":null,"requested":"example.Shell","requested_by":"path","path":"executors.#2.executor","file":"a \"b\""},
{"id":null,"requested":"example.Shell","path":"components.#1"}],
"config":{"executors":[{"executor":{"requested":"example.Shell","path":"example.Shell"}}]}}"#;

#[test]
fn a_component_is_refused_by_its_name() {
    let mut guest = open(COMP_AUTH);
    let verdicts = guest.review(PLAN).unwrap();
    let paths: Vec<&str> = verdicts.iter().map(|verdict| verdict.component.as_str()).collect();
    assert_eq!(paths, ["executors.#2.executor", "components.#1"]);
    let finding = &verdicts[0].findings[0];
    assert_eq!(verdicts[0].decision, Decision::Deny);
    assert_eq!((finding.code.as_str(), finding.public), ("refused-here", true));
    assert_eq!(finding.message, "example.Shell is not run here");
    assert_eq!(finding.path, verdicts[0].component);
}

#[test]
fn no_state_reaches_the_next_review() {
    let mut guest = open(COMP_AUTH);
    let first = guest.review(PLAN).unwrap();
    assert_eq!(guest.review(PLAN).unwrap(), first);
    assert_eq!(guest.review("{}").unwrap(), []);
}

#[test]
fn a_loop_ends_with_its_fuel_or_with_its_time() {
    let text = with_review("(loop $again (br $again)) (unreachable)");
    let mut frugal = open_with(&text, GuestLimits { fuel: 100_000, ..GuestLimits::default() });
    assert_eq!(frugal.review("{}"), Err(ReviewError::UsedUp("fuel")));
    let time = Duration::from_millis(20);
    let mut hasty = open_with(&text, GuestLimits { time, fuel: u64::MAX / 2, ..GuestLimits::default() });
    assert_eq!(hasty.review("{}"), Err(ReviewError::UsedUp("time")));
    assert_eq!(hasty.review("{}"), Err(ReviewError::UsedUp("time")), "and again");
}

#[test]
fn memory_is_bounded() {
    let text = with_review("(loop $again (drop (memory.grow (i32.const 16))) (br $again)) (unreachable)");
    let failed = open(&text).review("{}").unwrap_err();
    assert!(matches!(&failed, ReviewError::Failed(text) if text.contains("memory")), "{failed}");
    let first = with_review("(unreachable)")
        .replace("(memory (export \"memory\") 1)", "(memory (export \"memory\") 2000)");
    assert!(matches!(
        Guest::open(&wat::parse_str(first).unwrap(), GuestLimits::default()),
        Err(OpenError::Unfit(_))
    ));
}

#[test]
fn a_trap_is_no_permission() {
    let failed = open(&with_review("(unreachable)")).review("{}").unwrap_err();
    assert!(matches!(&failed, ReviewError::Failed(text) if text.contains("unreachable")), "{failed}");
    let deep = with_review("(call $deeper) (unreachable)")
        .replace("(memory (export", "(func $deeper (call $deeper)) (memory (export");
    let failed = open(&deep).review("{}").unwrap_err();
    assert!(matches!(&failed, ReviewError::Failed(text) if text.contains("stack")), "{failed}");
}

#[test]
fn an_answer_that_cannot_be_read_is_no_permission() {
    for (what, answer) in [
        ("a list that lies outside of memory", "(i32.store offset=4 (i32.const 512) (i32.const -8))"),
        ("an answer that is neither", "(i32.store8 (i32.const 512) (i32.const 2))"),
        (
            "a text that is not UTF-8",
            "(i32.store8 (i32.const 600) (i32.const 255)) (i32.store (i32.const 640) (i32.const 600)) (i32.store offset=4 (i32.const 640) (i32.const 1)) (i32.store offset=4 (i32.const 512) (i32.const 640))",
        ),
        (
            "a decision that there is not",
            "(i32.store8 offset=8 (i32.const 640) (i32.const 3)) (i32.store offset=4 (i32.const 512) (i32.const 640))",
        ),
    ] {
        let text = with_review(&format!(
            "(i32.store offset=8 (i32.const 512) (i32.const 1)) {answer} (i32.const 512)"
        ));
        let failed = open(&text).review("{}").unwrap_err();
        assert!(matches!(failed, ReviewError::Failed(_)), "{what}: {failed}");
    }
    let many = with_review(
        "(i32.store offset=4 (i32.const 512) (i32.const 16384)) (i32.store offset=8 (i32.const 512) (i32.const 20000)) (drop (memory.grow (i32.const 10))) (i32.const 512)",
    );
    assert_eq!(open(&many).review("{}"), Err(ReviewError::TooMany));
}

#[test]
fn a_checker_may_say_that_it_cannot_judge() {
    let text = with_review(
        "(i32.store8 (i32.const 512) (i32.const 1)) (i32.store offset=4 (i32.const 512) (i32.const 96))
         (i32.store offset=8 (i32.const 512) (i32.const 8)) (i32.const 512)",
    );
    let text = text.replace("(memory (export", r#"(data (i32.const 96) "no rules") (memory (export"#);
    assert_eq!(open(&text).review("{}"), Err(ReviewError::Refused("no rules".to_owned())));
}

#[test]
fn a_checker_imports_nothing() {
    let text = r#"(component (import "wasi:random/random@0.2.0" (instance (export "get-random-u64" (func (result u64))))))"#;
    let refused = Guest::open(&wat::parse_str(text).unwrap(), GuestLimits::default()).unwrap_err();
    assert!(matches!(&refused, OpenError::Imports(name) if name == "wasi:random/random@0.2.0"), "{refused}");
}

#[test]
fn what_does_not_export_the_world_is_no_checker() {
    for text in [
        r#"(component)"#,
        r#"(component (core module $m (func (export "review"))) (core instance $i (instantiate $m))
            (func (export "review") (canon lift (core func $i "review"))))"#,
    ] {
        let refused = Guest::open(&wat::parse_str(text).unwrap(), GuestLimits::default()).unwrap_err();
        assert!(matches!(refused, OpenError::Unfit(_)), "{refused}");
    }
    for bytes in [&b"(component)"[..], b"\0asm\x01\0\0\0", b"", &[0x7f, b'E', b'L', b'F']] {
        let refused = Guest::open(bytes, GuestLimits::default()).unwrap_err();
        assert!(matches!(refused, OpenError::NotAComponent(_)), "{refused}");
    }
    let long = vec![0; Guest::MAX_LEN + 1];
    assert!(matches!(Guest::open(&long, GuestLimits::default()), Err(OpenError::TooLong(_))));
}

const COMP_AUTH: &str = include_str!("guests/comp_auth.wat");

/// The same component with another core module.
fn with_core(core: &str) -> String {
    let (before, rest) = COMP_AUTH.split_once("(core module").unwrap();
    let (_, after) = rest.split_once("(core instance").unwrap();
    format!("{before}{core}(core instance{after}")
}

/// The same component with another body of `review`.
fn with_review(body: &str) -> String {
    with_core(&format!(
        r#"(core module $code
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8192))
            (func (export "review") (param i32 i32) (result i32) {body}))"#
    ))
}

fn open(text: &str) -> Guest {
    open_with(text, GuestLimits::default())
}

fn open_with(text: &str, limits: GuestLimits) -> Guest {
    Guest::open(&wat::parse_str(text).unwrap(), limits).unwrap()
}
