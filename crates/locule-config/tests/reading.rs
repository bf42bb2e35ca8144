//! Documents are read with every place, and every mistake is shown where it is.

use insta::assert_snapshot;
use locule_config::{Document, NodeKind, code};
use proptest::prelude::*;
use serde_json::json;

fn read(text: &str) -> Document {
    Document::parse_json("app.json", text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn mistakes(text: &str) -> String {
    Document::parse_json("app.json", text).expect_err("the text is not valid").to_string()
}

fn codes(text: &str) -> Vec<&'static str> {
    Document::parse_json("app.json", text)
        .expect_err("the text is not valid")
        .iter()
        .map(|d| d.code)
        .collect()
}

#[test]
fn every_value_keeps_its_place_and_path() {
    let document = read("{\n  \"a\": [1, {\"ü\": \"x\"}],\n  \"b\": null\n}");
    let root = document.root();
    let x = root.find(&["a", "#2", "ü"]).expect("is written above");
    assert_eq!((x.as_str(), x.path().as_str()), (Some("x"), "a.#2.ü"));
    assert_eq!((x.place().line, x.place().column), (2, 18));
    assert_eq!(root.path(), "");
    assert_eq!(root.get("b").map(|node| (node.kind(), node.is_null())), Some((NodeKind::Null, true)));
    assert_eq!(root.to_json(), json!({"a": [1, {"ü": "x"}], "b": null}));
}

#[test]
fn comments_and_a_byte_order_mark_are_passed_over() {
    let document = read("\u{feff}// first\n{ /* inside { \" */ \"a\": \"// text\" } // last");
    assert_eq!(document.root().to_json(), json!({"a": "// text"}));
}

#[test]
fn escapes_and_surrogate_pairs_become_characters() {
    let document = read(r#"{"a": "\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00"}"#);
    assert_eq!(document.root().get("a").and_then(|a| a.as_str()), Some("\"\\/\u{8}\u{c}\n\r\tä😀"));
}

#[test]
fn numbers_keep_their_sort() {
    let document = read(r#"{"i": -3, "u": 18446744073709551615, "f": 2.5e-3}"#);
    let get = |key| document.root().get(key).expect("is written above");
    assert_eq!((get("i").as_i64(), get("i").as_u64()), (Some(-3), None));
    assert_eq!((get("u").as_u64(), get("u").as_i64()), (Some(u64::MAX), None));
    assert_eq!((get("f").as_f64(), get("f").as_i64()), (Some(0.0025), None));
}

#[test]
fn small_slips_are_all_reported_at_once() {
    assert_snapshot!(mistakes(
        "{\n  \"rounds\": 5\n  \"sites\": [\"a\", \"b\",],\n\t\"secure\": True,\n  \"rounds\": 01\n}"
    ), @r#"
    error[E0001]: a comma is missing here
      ┌─ app.json:2:14
      │  "rounds": 5
      │             ^

    error[E0001]: no comma may stand in front of `]`
      ┌─ app.json:3:21   at sites
      │  "sites": ["a", "b",],
      │                    ^

    error[E0001]: this word means nothing here
      ┌─ app.json:4:12   at secure
      │  "secure": True,
      │            ^^^^
      = JSON writes `true`

    error[E0001]: this is not a number, or too large a one
      ┌─ app.json:5:13   at rounds
      │  "rounds": 01
      │            ^^

    error[E0002]: the key `rounds` is written twice
      ┌─ app.json:5:3   at rounds
      │  "rounds": 01
      │  ^^^^^^^^
      ├─ app.json:2:13
      │  "rounds": 5
      │            ^ first value
    "#);
}

#[test]
fn what_ends_the_reading_is_shown_where_it_is() {
    assert_snapshot!(mistakes("{\"a\": 'x'}"), @r#"
    error[E0001]: text stands in double quotes
      ┌─ app.json:1:7   at a
      │  {"a": 'x'}
      │        ^
    "#);
    assert_snapshot!(mistakes("{\"a\": [1, 2\n}"), @r#"
    error[E0001]: `,` or `]` is expected here
      ┌─ app.json:2:1   at a
      │  }
      │  ^
    "#);
    assert_snapshot!(mistakes("{\"a\": {\"b\": 1,"), @r#"
    error[E0001]: the file ends without the `}` for this
      ┌─ app.json:1:7   at a
      │  {"a": {"b": 1,
      │        ^
    "#);
    assert_snapshot!(mistakes("[1]"), @r#"
    error[E0005]: the file holds a list where an object is expected
      ┌─ app.json:1:1
      │  [1]
      │  ^^^
    "#);
    assert_snapshot!(mistakes(""), @r#"
    error[E0001]: the file ends where a value is expected
      ┌─ app.json:1:1
    "#);
}

#[test]
fn odd_texts_are_mistakes_of_the_right_code() {
    for (text, expected) in [
        ("{} {}", vec![code::SYNTAX]),
        ("{\"a\": \"\\x\"}", vec![code::SYNTAX]),
        ("{\"a\": \"\\ud800\"}", vec![code::SYNTAX]),
        ("{\"a\": \"\\ude00\\ud83d\"}", vec![code::SYNTAX, code::SYNTAX]),
        ("{\"a\": \"unclosed\n\"}", vec![code::SYNTAX]),
        ("{\"a\": \"tab\there\"}", vec![code::SYNTAX]),
        ("{\"a\": 1e999}", vec![code::SYNTAX]),
        ("{\"a\": NaN}", vec![code::SYNTAX]),
        ("{\"a\": 18446744073709551616}", vec![code::SYNTAX]),
        ("{a: 1}", vec![code::SYNTAX]),
        ("{\"a\" 1}", vec![code::SYNTAX]),
        ("/* open", vec![code::SYNTAX]),
        ("{\"a\": 1, \"a\": 2, \"a\": 3}", vec![code::DUPLICATE_KEY, code::DUPLICATE_KEY]),
        ("7", vec![code::NOT_AN_OBJECT]),
    ] {
        assert_eq!(codes(text), expected, "{text}");
    }
}

#[test]
fn depth_and_size_are_bounded() {
    let nested = |depth: usize| format!("{{\"a\": {}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    assert!(Document::parse_json("deep", &nested(Document::MAX_DEPTH)).is_ok());
    assert_eq!(codes(&nested(Document::MAX_DEPTH + 1)), [code::TOO_DEEP]);
    assert_eq!(codes(&nested(Document::MAX_LEN / 3)), [code::TOO_DEEP]);
    let long = format!("{{\"a\": \"{}\"}}", "x".repeat(Document::MAX_LEN));
    assert_eq!(codes(&long), [code::TOO_LARGE]);
}

#[test]
fn a_flood_of_mistakes_is_counted_and_not_kept() {
    let text = format!("{{{}}}", "\"a\":1,".repeat(1000).trim_end_matches(','));
    let mistakes = Document::parse_json("app.json", &text).expect_err("keys are written twice");
    assert_eq!((mistakes.iter().count(), mistakes.len()), (100, 999));
    assert!(mistakes.to_string().ends_with("and 899 more"));
}

#[test]
fn a_long_line_is_cut_around_the_mistake_and_control_characters_are_not_printed() {
    let text = format!("{{\"{}\": 1, \"\u{1b}[31mred\": nope, \"{}\": 2}}", "x".repeat(300), "y".repeat(300));
    let shown = mistakes(&text);
    assert!(!shown.contains('\u{1b}'), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() < 320), "{shown}");
    assert!(shown.contains("nope"), "{shown}");
}

proptest! {
    #[test]
    fn reading_never_panics(text in "\\PC{0,60}") {
        let _ = Document::parse_json("any", &text).map_err(|mistakes| mistakes.to_string());
    }

    #[test]
    fn reading_text_close_to_json_never_panics(text in "[\\[\\]{}\":,\\\\/*u0-9aeltrufn \n'ä\u{1}.+-]{0,80}") {
        let _ = Document::parse_json("any", &text).map_err(|mistakes| mistakes.to_string());
    }

    #[test]
    fn what_serde_json_writes_is_read_back(text in any::<String>(), whole in any::<i64>(), float in -1e300..1e300f64) {
        let value = json!({"text": text, text.clone(): [whole, float, {"inner": text}, true, null]});
        for written in [value.to_string(), format!("{value:#}")] {
            prop_assert_eq!(read(&written).root().to_json(), value.clone());
        }
    }
}
