//! HOCON: what pyhocon makes of a file, where this crate deliberately makes something else of it, and what is refused.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::Path;

use locule_config::{Document, NodeKind, code};
use serde_json::{Value, json};

fn read(text: &str) -> Value {
    Document::parse_hocon("a.conf", text)
        .unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"))
        .root()
        .to_json()
}

fn codes(text: &str) -> Vec<&'static str> {
    let mistakes = Document::parse_hocon("a.conf", text).expect_err(text);
    mistakes.iter().map(|mistake| mistake.code).collect()
}

#[test]
fn files_mean_what_they_mean_to_pyhocon() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hocon");
    let mut cases = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|ending| ending != "conf") {
            continue;
        }
        let expected: Value =
            serde_json::from_str(&fs::read_to_string(file.with_extension("json")).unwrap()).unwrap();
        assert_eq!(read(&fs::read_to_string(&file).unwrap()), expected, "{}", file.display());
        cases += 1;
    }
    assert!(cases >= 20, "{cases} cases");
}

#[test]
fn where_pyhocon_departs_from_the_language_the_language_counts() {
    for (text, ours, pyhocon) in [
        ("a = 5 seconds", json!({"a": "5 seconds"}), "datetime.timedelta(seconds=5)"),
        ("a = 5m", json!({"a": "5m"}), "datetime.timedelta(seconds=300)"),
        ("a = true x", json!({"a": "true x"}), "Truex"),
        ("a = \"\\u00e9\"", json!({"a": "é"}), "\\u00e9"),
        ("a = [1]\na += 2", json!({"a": [1, 2]}), "2"),
        ("a += 2", json!({"a": [2]}), "2"),
        ("a += {x = 1}", json!({"a": [{"x": 1}]}), "{x: 1}"),
        ("a { l = [1] }\na { l += [2] }\na.l += [3]", json!({"a": {"l": [1, 2, 3]}}), "an exception"),
        ("a = [${?b}, 1]", json!({"a": [1]}), "[null, 1]"),
        ("a = x ${?b} y", json!({"a": "x  y"}), "x y"),
        ("a = ${b}\nb = null", json!({"a": null, "b": null}), "no `a`"),
        ("a = 2\na = {b = 1}", json!({"a": {"b": 1}}), "an exception"),
        ("\"a.b\".c = 1", json!({"a.b": {"c": 1}}), "an exception"),
        ("a = x\ty", json!({"a": "x\ty"}), "tabs become spaces"),
        ("a = ${ b }\nb = 1", json!({"a": 1, "b": 1}), "an exception"),
        ("\"\" = 1", json!({"": 1}), "an exception"),
    ] {
        assert_eq!(read(text), ours, "{text}; pyhocon: {pyhocon}");
    }
}

#[test]
fn what_is_no_hocon_is_refused() {
    for (text, expected, pyhocon) in [
        ("a =", code::SYNTAX, "empty text"),
        ("a = [1,,2]", code::SYNTAX, "[1, 2]"),
        ("a = [,1]", code::SYNTAX, "[1]"),
        ("a = {b=1,,c=2}", code::SYNTAX, "two fields"),
        ("a..b = 1", code::SYNTAX, "a.b"),
        (".a = 1", code::SYNTAX, "a"),
        ("a. = 1", code::SYNTAX, "a"),
        ("a = \"\\q\"", code::SYNTAX, "\\q"),
        ("a = x\\y", code::SYNTAX, "x\\y"),
        ("a = 1e999", code::SYNTAX, "infinity"),
        ("a = 123456789012345678901234567890", code::SYNTAX, "a large number"),
        ("include \"x.conf\"", code::NOT_PROVIDED, "the file, or nothing if there is none"),
        ("include file(\"x.conf\")", code::NOT_PROVIDED, "the same"),
        ("a { include required(file(\"x.conf\")) }", code::NOT_PROVIDED, "the same"),
        ("a = ${HOME}", code::UNKNOWN_VARIABLE, "the environment"),
        ("a = ${secret:TOKEN}", code::SYNTAX, "an exception"),
        ("a = x ${b}\nb = [1]", code::NOT_TEXT, "an exception"),
        ("a = {x=1} b", code::NOT_TEXT, "an exception"),
        ("a = [1] b", code::NOT_TEXT, "an exception"),
        ("a = 1\na += 2", code::NOT_TEXT, "2"),
        ("a = ${b}\nb = ${a}", code::CYCLIC_VARIABLE, "an exception"),
        ("a = ${a}", code::CYCLIC_VARIABLE, "an exception"),
        ("a { b = ${a} }", code::CYCLIC_VARIABLE, "an exception"),
        ("a = ${a.x}", code::CYCLIC_VARIABLE, "an exception"),
        ("[1]", code::NOT_AN_OBJECT, "a list"),
        ("a = a=b", code::SYNTAX, "an exception"),
        ("a = train*", code::SYNTAX, "an exception"),
        ("a = {b=1", code::SYNTAX, "an exception"),
        ("a = 1}", code::SYNTAX, "an exception"),
        ("a = \"x", code::SYNTAX, "an exception"),
        ("a = \"\"\"x", code::SYNTAX, "an exception"),
        ("a = {x}", code::SYNTAX, "an exception"),
        ("{a = 1} b", code::SYNTAX, "an exception"),
        ("a", code::SYNTAX, "an exception"),
    ] {
        let mut found = codes(text);
        found.dedup();
        assert_eq!(found, [expected], "{text}; pyhocon: {pyhocon}");
    }
}

#[test]
fn every_reference_to_nothing_is_reported_with_its_place() {
    let text = "model { rate = 1 }\na = ${model.rat}\nb = [${x}]\n";
    let mistakes = Document::parse_hocon("a.conf", text).unwrap_err();
    let shown = mistakes.to_string();
    assert_eq!(mistakes.len(), 2, "{shown}");
    assert!(shown.contains("a.conf:2:5   at a") && shown.contains("did you mean `rate`?"), "{shown}");
    assert!(shown.contains("a.conf:3:6   at b.#1"), "{shown}");
}

#[test]
fn values_know_where_they_were_written() {
    let document = Document::parse_hocon("a.conf", "a.b {\n  c = [1, x y]\n}\nd = ${a}\n").unwrap();
    let text = document.root().find(&["a", "b", "c", "#2"]).unwrap();
    assert_eq!((text.place().line, text.place().column, text.path().as_str()), (2, 11, "a.b.c.#2"));
    assert_eq!((text.span().start, text.span().end), (16, 19));
    let referred = document.root().find(&["d", "b", "c", "#2"]).unwrap();
    assert_eq!((referred.place().line, referred.path().as_str()), (2, "d.b.c.#2"));
    assert_eq!(referred.kind(), NodeKind::Text);
}

#[test]
fn small_files_do_not_become_large_documents() {
    let doubling: String = (0..40).map(|i| format!("a{i} = ${{a{}}}${{a{}}}\n", i + 1, i + 1)).collect();
    let laughs = format!("{doubling}a40 = x");
    let silent = doubling.replace("${", "${?");
    let growing = format!("a = x\n{}", "a = ${a}${a}\n".repeat(60));
    let nested = format!("a = 1\n{}", "a = [${a}]\n".repeat(300));
    let long_chain: String = (0..100).map(|i| format!("a{i} = ${{a{}}}\n", i + 1)).collect();
    for (text, expected) in [
        (laughs, code::CYCLIC_VARIABLE),
        (silent, code::CYCLIC_VARIABLE),
        (growing, code::TOO_LARGE),
        (nested, code::TOO_DEEP),
        (long_chain, code::CYCLIC_VARIABLE),
        ("a = ".to_owned() + &"[".repeat(5000), code::TOO_DEEP),
        (format!("{} = 1", vec!["a"; 5000].join(".")), code::TOO_DEEP),
        ("a".repeat(Document::MAX_LEN + 1), code::TOO_LARGE),
    ] {
        let found = codes(&text);
        assert!(found.contains(&expected), "{expected}: {found:?}");
    }
    let laughs: String = (0..25).map(|i| format!("a{i} = ${{a{}}}${{a{}}}\n", i + 1, i + 1)).collect();
    assert_eq!(codes(&format!("{laughs}a25 = x")), [code::TOO_LARGE]);
    let silent = laughs.replace("${", "${?");
    assert_eq!(codes(&silent), [code::TOO_LARGE]);
}

#[test]
fn deep_objects_in_bounds_are_read() {
    let text = format!("{}x = 1{}", "a {".repeat(120), "}".repeat(120));
    assert_eq!(Document::parse_hocon("a.conf", &text).unwrap().root().entries().count(), 1);
}
