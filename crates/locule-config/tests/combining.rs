//! Merging and substitution: what they make, and what they refuse.

use insta::assert_snapshot;
use locule_config::{Diagnostics, Document, Variables, code, merge};
use serde_json::{Value, json};

fn read(name: &str, value: &Value) -> Document {
    Document::parse_json(name, &value.to_string()).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn merged(first: Value, second: Value) -> Result<Value, Diagnostics> {
    merge(&[read("first.json", &first), read("second.json", &second)])
        .map(|document| document.root().to_json())
}

fn substituted(value: Value) -> Result<Value, Diagnostics> {
    let variables = Variables::new()
        .set("SITE_NAME", "hospital-1")
        .set("ROUNDS", 3)
        .set("LITERAL", "{SITE_NAME}")
        .environment("HOME", "/srv/fl");
    read("app.json", &value).substitute(&variables).map(|document| document.root().to_json())
}

fn codes(result: Result<Value, Diagnostics>) -> Vec<&'static str> {
    result.expect_err("there are mistakes").iter().map(|diagnostic| diagnostic.code).collect()
}

#[test]
fn documents_merge_by_the_rules() {
    for (first, second, expected) in [
        (json!({"a": 1}), json!({"b": 2}), json!({"a": 1, "b": 2})),
        (json!({"a": 1}), json!({"a": 2}), json!({"a": 1})),
        (json!({"o": {"a": 1}}), json!({"o": {"a": 7, "b": 2}}), json!({"o": {"a": 1, "b": 2}})),
        (
            json!({"components": [{"id": "x"}]}),
            json!({"components": [1]}),
            json!({"components": [{"id": "x"}, 1]}),
        ),
        (
            json!({"servers": [{"name": "s"}]}),
            json!({"servers": [{"max": 5}]}),
            json!({"servers": [{"name": "s", "max": 5}]}),
        ),
        (json!({"l": ["x"]}), json!({"l": ["x"]}), json!({"l": ["x"]})),
        (json!({"components": {"a": 1}}), json!({}), json!({"components": {"a": 1}})),
    ] {
        assert_eq!(merged(first.clone(), second.clone()).as_ref(), Ok(&expected), "{first} with {second}");
    }
}

#[test]
fn every_conflict_is_reported_and_nothing_is_dropped_silently() {
    let first = "{\n  \"format_version\": 2,\n  \"list\": [1, 2]\n}";
    let second = "{ \"format_version\": \"2\", \"list\": [3], \"components\": [] }";
    let documents = [("resources.json", first), ("job_resources.json", second)]
        .map(|(name, text)| Document::parse_json(name, text).unwrap_or_else(|mistakes| panic!("{mistakes}")));
    assert_snapshot!(merge(&documents).expect_err("the files disagree"), @r#"
    error[E0201]: two files disagree: text here, a number there
      ┌─ job_resources.json:1:21   at format_version
      │  { "format_version": "2", "list": [3], "components": [] }
      │                      ^^^ text
      ├─ resources.json:2:21
      │  "format_version": 2,
      │                    ^ a number
      = make the two agree, or take the value out of one of the files

    error[E0201]: two files have different lists, and only `components` may grow
      ┌─ job_resources.json:1:34   at list
      │  { "format_version": "2", "list": [3], "components": [] }
      │                                   ^^^ a list of 1
      ├─ resources.json:3:11
      │  "list": [1, 2]
      │          ^^^^^^ a list of 2
      = make the two agree, or take the value out of one of the files
    "#);
}

#[test]
fn components_that_are_no_list_on_one_side_conflict() {
    assert_eq!(codes(merged(json!({"components": []}), json!({"components": {}}))), [code::MERGE_CONFLICT]);
    assert_eq!(
        codes(merged(json!({"o": {"components": [1]}}), json!({"o": {"components": [2]}}))),
        [code::MERGE_CONFLICT]
    );
}

#[test]
fn nodes_of_a_merged_document_remember_their_file() {
    let document =
        merge(&[read("a.json", &json!({"components": [1]})), read("b.json", &json!({"components": [2]}))])
            .expect("they do not disagree");
    let second = document.root().find(&["components", "#2"]).expect("both lists have an item");
    assert_eq!((second.file(), second.path().as_str()), ("b.json", "components.#2"));
    assert_eq!(document.name(), "a.json, b.json");
}

#[test]
fn variables_are_put_in_their_places() {
    for (written, expected) in [
        (json!("{SITE_NAME}"), json!("hospital-1")),
        (json!("{ROUNDS}"), json!(3)),
        (json!("{own}"), json!({"lr": 0.1, "site": "hospital-1"})),
        (json!("{own?}"), json!({"lr": 0.1, "site": "hospital-1"})),
        (json!("data/{SITE_NAME}/{ROUNDS}.csv"), json!("data/hospital-1/3.csv")),
        (json!("{$HOME}/x"), json!("/srv/fl/x")),
        (json!("{missing?}"), json!(null)),
        (json!("a{missing?}b"), json!("ab")),
        (json!("{{SITE_NAME}}"), json!("{SITE_NAME}")),
        (json!("{{{SITE_NAME}}}"), json!("{hospital-1}")),
        (json!("${secret:TOKEN}"), json!("${secret:TOKEN}")),
        (json!("${secret}"), json!("${secret}")),
        (json!("[a-z]{2,3}"), json!("[a-z]{2,3}")),
        (json!("{ \"a\": 1 }"), json!("{ \"a\": 1 }")),
        (json!("{"), json!("{")),
        (json!("}{"), json!("}{")),
        (json!(["{ROUNDS}", {"{SITE_NAME}": "{ROUNDS}"}]), json!([3, {"{SITE_NAME}": 3}])),
        (json!("{LITERAL}"), json!("{SITE_NAME}")),
        (json!("{yes} {nothing}"), json!("true null")),
        (json!(" {ROUNDS}\n"), json!(3)),
        (json!("{two words}"), json!(2)),
        (json!("{LITERAL} {two words}"), json!("{SITE_NAME} {two words}")),
        (json!("${ROUNDS} and ${HOME}"), json!("$3 and ${HOME}")),
        (json!("${secret:file:/run/{ROUNDS}}"), json!("${secret:file:/run/3}")),
        (json!("${secret:SITE_NAME}"), json!("${secret:SITE_NAME}")),
        (json!("{unknown: text}"), json!("{unknown: text}")),
        (json!("a {unknown: text} b"), json!("a {unknown: text} b")),
    ] {
        let document = json!({
            "own": {"lr": 0.1, "site": "{SITE_NAME}"}, "yes": true, "nothing": null, "SITE_NAME": "hidden", "two words": 2,
            "x": written
        });
        let result = substituted(document).unwrap_or_else(|mistakes| panic!("{written}: {mistakes}"));
        assert_eq!(result["x"], expected, "{written}");
    }
}

#[test]
fn references_with_parameters_copy_an_object() {
    for (written, expected) in [
        (json!("{@net:in=3:out=4}"), json!({"in": 3, "out": 4, "site": "hospital-1"})),
        (json!("{@net:in=0.5:out=a=b}"), json!({"in": 0.5, "out": "a=b", "site": "hospital-1"})),
        (json!("{@net:in=yes:out=No}"), json!({"in": true, "out": false, "site": "hospital-1"})),
        (json!("{@net: in =: out= x }"), json!({"in": "", "out": " x ", "site": "hospital-1"})),
        (json!("{@net:in={ROUNDS}:out={own}}"), json!({"in": 3, "out": {"lr": 1}, "site": "hospital-1"})),
        (
            json!("{@net:in=1:out={@net:in=2:out=3}}"),
            json!({"in": 1, "out": {"in": 2, "out": 3, "site": "hospital-1"}, "site": "hospital-1"}),
        ),
        (json!("{@outer:n=7}"), json!({"net": {"in": 7, "out": 8, "site": "hospital-1"}})),
        (json!("{@net:in=1:out=2:SITE_NAME=here}"), json!({"in": 1, "out": 2, "site": "here"})),
        (json!("{own:x=1}"), json!({"lr": 1})),
        (json!("{@plain}"), json!({"a": 1})),
    ] {
        let document = json!({
            "@net": {"in": "{in}", "out": "{out}", "site": "{SITE_NAME}"},
            "@outer": {"net": "{@net:in={n}:out=8}"},
            "@plain": {"a": 1},
            "own": {"lr": 1},
            "x": written,
        });
        let result = substituted(document).unwrap_or_else(|mistakes| panic!("{written}: {mistakes}"));
        assert_eq!(result, json!({"own": {"lr": 1}, "x": expected}), "{written}");
    }
}

#[test]
fn references_with_parameters_that_make_no_sense_are_mistakes() {
    for (written, expected) in [
        ("{@nte:in=1}", code::UNKNOWN_VARIABLE),
        ("{@net}", code::UNKNOWN_VARIABLE),
        ("{@number:in=1}", code::BAD_REFERENCE),
        ("{@net:in}", code::BAD_REFERENCE),
        ("{@net:=1}", code::BAD_REFERENCE),
        ("{@self:x=1}", code::CYCLIC_VARIABLE),
        ("a {@plain} b", code::NOT_TEXT),
        ("{rate:.3f}", code::BAD_REFERENCE),
        ("rate {rate:.3f}", code::BAD_REFERENCE),
        ("rate {rate!r}", code::BAD_REFERENCE),
        ("{SITE_NAME:>10}", code::BAD_REFERENCE),
    ] {
        let document = json!({
            "@net": {"in": "{in}"}, "@number": 1, "@self": {"x": "{@self:x={x}}"}, "@plain": {}, "rate": 0.1,
            "x": written,
        });
        assert_eq!(codes(substituted(document)), [expected], "{written}");
    }
    let deep = format!("{}1{}", "{@w:x=".repeat(150), "}".repeat(150));
    let document = json!({"@w": {"y": "{x}"}, "a": deep});
    assert!(codes(substituted(document)).contains(&code::TOO_DEEP));
    let mut bomb = json!({"a": "{@v0:x={big}}", "big": vec!["xxxxxxxxxx"; 10]});
    for i in 0..12 {
        bomb[format!("@v{i}")] =
            json!({"n": if i == 11 { "{x}".into() } else { format!("{{@v{}:x={{@ten}}}}", i + 1) }});
    }
    bomb["@ten"] = json!(vec!["{x}"; 10]);
    bomb["@ten"] = json!({"l": bomb["@ten"].clone()});
    assert!(codes(substituted(bomb)).contains(&code::TOO_LARGE));
}

#[test]
fn names_that_nothing_defines_are_mistakes_with_suggestions() {
    let text = "{\n  \"data_root\": \"/data\",\n  \"a\": \"{data_rot}/{SITE_NAM}\",\n  \"b\": [\"{$HOMES}\", \"{data_root.__class__}\"],\n  \"c\": \"{@item:k=v}\"\n}";
    let document = Document::parse_json("app.json", text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let variables = Variables::new().set("SITE_NAME", "hospital-1").environment("HOME", "/srv/fl");
    assert_snapshot!(document.substitute(&variables).expect_err("names are unknown"), @r#"
    error[E0301]: unknown variable `data_rot`
      ┌─ app.json:3:8   at a
      │  "a": "{data_rot}/{SITE_NAM}",
      │       ^^^^^^^^^^^^^^^^^^^^^^^ did you mean `data_root`?
      = write `{data_rot?}` if it may be missing, `{{` for a brace

    error[E0301]: unknown environment variable `$HOMES`
      ┌─ app.json:4:9   at b.#1
      │  "b": ["{$HOMES}", "{data_root.__class__}"],
      │        ^^^^^^^^^^ did you mean `$HOME`?
      = write `{$HOMES?}` if it may be missing, `{{` for a brace

    error[E0301]: unknown variable `data_root.__class__`
      ┌─ app.json:4:21   at b.#2
      │  "b": ["{$HOMES}", "{data_root.__class__}"],
      │                    ^^^^^^^^^^^^^^^^^^^^^^^
      = write `{data_root.__class__?}` if it may be missing, `{{` for a brace

    error[E0301]: unknown variable `@item`
      ┌─ app.json:5:8   at c
      │  "c": "{@item:k=v}"
      │       ^^^^^^^^^^^^^
      = write an object under the key `@item`
    "#);
}

#[test]
fn circles_and_deep_chains_are_mistakes() {
    assert_eq!(codes(substituted(json!({"a": "{b}", "b": "{a}"})))[0], code::CYCLIC_VARIABLE);
    assert_eq!(codes(substituted(json!({"a": {"x": "{a}"}}))), [code::CYCLIC_VARIABLE]);
    let chain = |length: usize| {
        let entries = (0..length).map(|i| (format!("v{i}"), json!(format!("{{v{}}}", i + 1))));
        Value::Object(entries.chain([(format!("v{length}"), json!(1))]).collect())
    };
    assert_eq!(substituted(chain(20)).map(|value| value["v0"].clone()), Ok(json!(1)));
    assert!(codes(substituted(chain(21))).contains(&code::CYCLIC_VARIABLE));
}

#[test]
fn lists_and_objects_do_not_go_into_text() {
    assert_eq!(codes(substituted(json!({"l": [1], "x": "a {l}"}))), [code::NOT_TEXT]);
}

#[test]
fn a_document_cannot_explode() {
    let mut bomb = serde_json::Map::new();
    bomb.insert("v0".into(), json!(["x", "x", "x", "x", "x", "x", "x", "x", "x", "x"]));
    let mut text = serde_json::Map::new();
    text.insert("v0".into(), json!("xxxxxxxxxx"));
    for i in 1..15 {
        let reference = format!("{{v{}}}", i - 1);
        bomb.insert(format!("v{i}"), json!(vec![reference.clone(); 10]));
        text.insert(format!("v{i}"), json!(reference.repeat(10)));
    }
    assert!(codes(substituted(Value::Object(bomb))).contains(&code::TOO_LARGE));
    assert!(codes(substituted(Value::Object(text))).contains(&code::TOO_LARGE));
}

#[test]
fn what_a_variable_brings_in_keeps_the_place_of_its_definition() {
    let text = "{\n  \"trainer\": {\"lr\": 1},\n  \"x\": \"{trainer}\"\n}";
    let document = Document::parse_json("app.json", text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let document = document.substitute(&Variables::new()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let lr = document.root().find(&["x", "lr"]).expect("the variable has it");
    assert_eq!((lr.path().as_str(), lr.place().line), ("x.lr", 2));
}
