//! YAML: what plain words mean, where values stand, and what is refused.
#![cfg(feature = "yaml")]

use locule_config::{Document, NodeKind, code};
use serde_json::{Value, json};

fn read(text: &str) -> Value {
    Document::parse_yaml("a.yml", text)
        .unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"))
        .root()
        .to_json()
}

fn codes(text: &str) -> Vec<&'static str> {
    let mistakes = Document::parse_yaml("a.yml", text).expect_err("there is a mistake");
    mistakes.iter().map(|mistake| mistake.code).collect()
}

#[test]
fn plain_words_mean_what_they_mean_to_pyyaml() {
    for (word, expected) in [
        ("yes", json!(true)),
        ("Off", json!(false)),
        ("y", json!("y")),
        ("~", json!(null)),
        ("", json!(null)),
        ("8002", json!(8002)),
        ("-7", json!(-7)),
        ("1_000", json!(1000)),
        ("0x1F", json!(31)),
        ("010", json!(8)),
        ("0b11", json!(3)),
        ("0", json!(0)),
        ("08", json!("08")),
        ("18446744073709551615", json!(u64::MAX)),
        ("1.5", json!(1.5)),
        (".5", json!(0.5)),
        ("1.", json!(1.0)),
        ("1e3", json!("1e3")),
        ("1.0e+3", json!(1000.0)),
        ("127.0.0.1", json!("127.0.0.1")),
        ("1:30", json!("1:30")),
        ("2026-01-01", json!("2026-01-01")),
        ("'8002'", json!("8002")),
        ("\"\\u00e9\"", json!("é")),
        ("!!str 8002", json!("8002")),
        ("site-1", json!("site-1")),
        ("_", json!("_")),
        (".", json!(".")),
        ("-", json!([null])),
    ] {
        let text = if word == "-" { "a:\n  -".to_owned() } else { format!("a: {word}") };
        assert_eq!(read(&text), json!({"a": expected}), "{word}");
    }
}

#[test]
fn lists_objects_aliases_and_merge_keys_are_read() {
    let text = "base: &base {org: nvidia, type: client}\n\
                names: &names [a, b]\n\
                again: *names\n\
                site:\n  <<: *base\n  type: relay\n\
                text: >\n  one\n  two\n";
    let expected = json!({
        "base": {"org": "nvidia", "type": "client"}, "names": ["a", "b"], "again": ["a", "b"],
        "site": {"type": "relay", "org": "nvidia"}, "text": "one two\n",
    });
    assert_eq!(read(text), expected);
    assert_eq!(read("{\"a\": [1, true]}"), json!({"a": [1, true]}), "JSON is YAML");
}

#[test]
fn every_value_knows_its_place() {
    for text in [
        "# é\r\nparticipants:\r\n  - name: sërver\r\n    port: 8002\r\n",
        "# é\nparticipants:\n  - name: sërver\n    port: 8002\n",
    ] {
        let document = Document::parse_yaml("a.yml", text).unwrap();
        let port = document.root().find(&["participants", "#1", "port"]).unwrap();
        assert_eq!((port.path().as_str(), port.kind()), ("participants.#1.port", NodeKind::Number));
        assert_eq!((port.place().line, port.place().column), (4, 11));
        assert_eq!(&text[port.span().start..port.span().end], "8002");
        let first = document.root().find(&["participants", "#1"]).unwrap();
        assert_eq!((first.place().line, first.place().column), (3, 5));
    }
}

#[test]
fn mistakes_are_shown_with_their_place() {
    let text =
        Document::parse_yaml("project.yml", "name: a\nname: b\nx: !secret y\n").unwrap_err().to_string();
    assert!(text.contains("the key `name` is written twice\n  ┌─ project.yml:2:1   at name"), "{text}");
    assert!(text.contains("the tag `!secret` is not known here\n  ┌─ project.yml:3:"), "{text}");
    let text = Document::parse_yaml("project.yml", "a: 1\n b: 2\n").unwrap_err().to_string();
    assert!(text.contains("this is not YAML") && text.contains("project.yml:2:"), "{text}");
}

#[test]
fn what_cannot_be_meant_or_would_cost_too_much_is_refused() {
    let bomb = (0..9).fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
        let many = vec![format!("*a{level}"); 9].join(", ");
        format!("{text}a{}: &a{} [{many}]\n", level + 1, level + 1)
    });
    let deep = format!("a: {}{}", "[".repeat(200), "]".repeat(200));
    let deep_blocks: String = (0..200).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    for (text, expected) in [
        ("", code::NOT_AN_OBJECT),
        ("- a", code::NOT_AN_OBJECT),
        ("a: 1\n---\nb: 2", code::SYNTAX),
        ("a: *unknown", code::SYNTAX),
        ("a: &a [*a]", code::SYNTAX),
        ("[a]: 1", code::SYNTAX),
        ("a: 99999999999999999999", code::SYNTAX),
        ("a: 9999999999999999999999999999999999999999999999", code::SYNTAX),
        ("<<: 3", code::SYNTAX),
        ("a: [1", code::SYNTAX),
        (&bomb, code::TOO_LARGE),
        (&deep, code::TOO_DEEP),
        (&deep_blocks, code::TOO_DEEP),
        (&" ".repeat(Document::MAX_LEN + 1), code::TOO_LARGE),
    ] {
        assert_eq!(codes(text), [expected], "{}", &text[..text.len().min(60)]);
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[-a:\\[\\]{}&*!|>'\"#%@,?<~ é\n\r\t0-9\u{feff}]{0,60}") {
        if let Ok(document) = Document::parse_yaml("a.yml", &text) {
            let _ = format!("{document:?}");
        }
    }
}
