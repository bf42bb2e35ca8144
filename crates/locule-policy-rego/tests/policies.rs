//! Policies as operators write them, right and wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use insta::assert_snapshot;
use locule_component::{Decision, Verdict};
use locule_policy_rego::{Policy, ReviewError, TEMPLATE, TEST_TEMPLATE, test};
use serde_json::json;

const REVIEW: &str = "package locule\nreview := {\"allow\": count(deny) == 0, \"deny\": deny}\n";

/// A policy with these rules behind its `review`.
fn policy(rules: &str) -> Policy {
    Policy::parse("p.rego", &format!("{REVIEW}{rules}")).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn mistakes(text: &str) -> String {
    Policy::parse("p.rego", text).unwrap_err().to_string()
}

fn document() -> String {
    let component =
        |name: &str, path: &str, args: serde_json::Value| json!({ "name": name, "path": path, "args": args });
    let components = [
        component("pet.Trick", "executors.#1.executor.args.trick", json!({})),
        component(
            "pet.Parrot",
            "executors.#1.executor",
            json!({ "says": "hello", "deep": [{ "url": "http://x" }] }),
        ),
    ];
    json!({ "schema": 1, "components": components, "args": { "limit": 3 }, "files": [] }).to_string()
}

fn review(value: &str) -> Result<Vec<Verdict>, ReviewError> {
    Policy::parse("p.rego", &format!("package locule\nreview := {value}")).unwrap().review(&document())
}

#[test]
fn denials_name_the_innermost_component_that_they_lie_in() {
    let mut policy = policy(
        r##"deny contains {"code": "url", "message": m, "path": concat(".", array.concat([c.path, "args"], [t | some s in path; t := step(s)])), "public": true} if {
             some c in input.components
             walk(c.args, [path, value])
             is_string(value)
             startswith(value, "http:")
             m := sprintf("%s at %d", [value, count(path)])
           }
           step(s) := s if is_string(s)
           step(s) := sprintf("#%d", [s + 1]) if is_number(s)"##,
    );
    let verdicts = policy.review(&document()).unwrap();
    assert_eq!(verdicts.len(), 2);
    assert_eq!(verdicts[0].decision, Decision::Deny);
    assert_eq!(verdicts[0].component.as_str(), "executors.#1.executor");
    assert_eq!(verdicts[0].findings[0].path.as_str(), "executors.#1.executor.args.deep.#1.url");
    assert_eq!(verdicts[0].findings[0].message, "http://x at 3");
    assert!(verdicts[0].findings[0].public);
    assert_eq!(verdicts[1], Verdict::allow("executors.#1.executor.args.trick"));
    assert_eq!(policy.review(&document()).unwrap(), verdicts);
}

#[test]
fn only_a_whole_answer_is_a_permission() {
    let allowed = review(r#"{"allow": true}"#).unwrap();
    assert!(allowed.iter().all(|verdict| verdict.decision == Decision::Allow));
    let refused = review(r#"{"allow": false}"#).unwrap();
    assert_eq!((refused[0].decision, refused[0].component.as_str()), (Decision::Deny, ""));
    // Both a permission and a denial is a denial.
    let both = review(r#"{"allow": true, "deny": [{"code": "c", "message": "m"}]}"#).unwrap();
    assert_eq!(both[0].decision, Decision::Deny);
    let remarked = review(r#"{"allow": true, "warn": {{"code": "c", "message": "m"}}}"#).unwrap();
    assert_eq!(remarked[0].decision, Decision::Warn);
    for value in [
        "true",
        "[]",
        "{}",
        r#"{"allow": 1}"#,
        r#"{"allow": true, "denny": []}"#,
        r#"{"allow": true, "deny": {"a": 1}}"#,
        r#"{"allow": true, "deny": ["no"]}"#,
        r#"{"allow": true, "deny": [{"code": "c"}]}"#,
        r#"{"allow": true, "deny": [{"code": "c", "message": "m", "pth": ""}]}"#,
        r#"{"allow": true, "deny": [{"code": "c", "message": "m", "public": "yes"}]}"#,
    ] {
        assert!(matches!(review(value), Err(ReviewError::Answer(_))), "{value}");
    }
    let undefined = Policy::parse("p.rego", "package locule\nreview := {\"allow\": true} if input.args.no")
        .unwrap()
        .review(&document());
    assert_eq!(undefined, Err(ReviewError::Undefined));
}

#[test]
fn what_goes_wrong_while_judging_is_no_permission() {
    let mut two = policy("deny contains 1 if x == 2\nx := 1 if input.args\nx := 2 if input.args");
    assert!(matches!(two.review(&document()), Err(ReviewError::Evaluate(_))));
    let mut builtin = policy("deny contains 1 if startswith(input.args.limit, \"x\")");
    assert_snapshot!(builtin.review(&document()).unwrap_err(), @"p.rego:3:41: `startswith` expects string argument. Got `3` instead");
    assert!(matches!(builtin.review("no json"), Err(ReviewError::Document(_))));
}

#[test]
fn nothing_that_a_policy_may_call_reaches_outside() {
    for call in [
        "http.send({\"method\": \"get\", \"url\": \"http://x\"})",
        "opa.runtime()",
        "time.now_ns()",
        "net.lookup_ip_addr(\"x\")",
        "uuid.rfc4122(\"x\")",
        "rand.intn(\"x\", 3)",
    ] {
        let text = format!("{REVIEW}deny contains {{\"code\": \"c\", \"message\": \"m\"}} if {call} != null");
        let answer = Policy::parse("p.rego", &text).map(|mut policy| policy.review(&document()));
        assert!(!matches!(answer, Ok(Ok(_))), "{call}: {answer:?}");
    }
}

#[test]
fn a_text_that_is_no_policy_is_refused_at_its_place() {
    assert_snapshot!(mistakes("package locule\nreview := {\"allow\": true"), @r###"
    error[E0801]: expecting `}` while parsing object
      ┌─ p.rego:2:25
      │  review := {"allow": true
      │                          ^
    "###);
    assert_snapshot!(mistakes("package site\nreviews := 1"), @r###"
    error[E0802]: the package of a policy is `locule`, and this is `site`
      ┌─ p.rego:1:9
      │  package site
      │          ^^^^

    error[E0802]: there is no rule `review`
      ┌─ p.rego:1:9
      │  package site
      │          ^^^^ is `reviews` meant to be `review`?
      = write `review := {"allow": count(deny) == 0, "deny": deny}`
    "###);
    assert_snapshot!(mistakes("package locule\nreview := {\"allow\": true} if x"), @r###"
    error[E0801]: use of undefined variable `x` is unsafe
      ┌─ p.rego:2:30
      │  review := {"allow": true} if x
      │                               ^
    "###);
}

#[test]
fn a_rule_that_can_never_count_is_a_mistake_at_its_place() {
    let rules = r#"
deny contains {"code": "a", "message": "a"} if input.component[_].name == "x"
deny contains {"code": "b", "message": "b"} if {
    some c in input.components
    c.kind == "exekutor"
    not c.nmae
}
deny contains {"code": "c", "message": c.path.x} if { c := input.components[_] }
deny contains {"code": "d", "message": "d"} if { input.components.name == "x" }
deny contains {"code": "e", "message": "e"} if { every f in input.files { f.sha == "x" } }
deny contains {"code": "f", "message": "f"} if { count([p | p := input.job.submitter]) > 0 }
deny contains {"code": "g", "message": "g"} if { input.job.byoc == "true" }
deny contains {"code": "h", "message": "h"} if { site.nam == "x" }
deny contains {"code": "i", "message": "i"} if false
denny contains {"code": "j", "message": "j"} if input.job.byoc
deny contains {"code": "k", "message": k}
deny contains {"code": "l", "message": "l"} if startwith(input.job.name, data.words)
site := input.site
"#;
    assert_snapshot!(mistakes(&format!("{REVIEW}{rules}")), @r###"
    error[E0803]: `input` has no `component`, ever
      ┌─ p.rego:4:54
      │  …contains {"code": "a", "message": "a"} if input.component[_].name == "x"
      │                                                   ^^^^^^^^^ did you mean `components`?
      = it has args, components, config, files, job, phase, plan, schema, site

    error[E0804]: "exekutor" never stands there, so this can never hold
      ┌─ p.rego:7:16
      │  c.kind == "exekutor"
      │             ^^^^^^^^ did you mean "executor"?
      = there stands "executor", "workflow", "filter", "checker", "observer", "service"

    error[E0803]: `c` has no `nmae`, ever
      ┌─ p.rego:8:11
      │  not c.nmae
      │        ^^^^ did you mean `name`?
      = it has aliases, ancestors, args, column, disabled, element, file, id, kind, label, line, name, path, requested, requested_by, steps

    error[E0803]: `c.path` is text, which has no `x`
      ┌─ p.rego:10:47
      │  deny contains {"code": "c", "message": c.path.x} if { c := input.components[_] }
      │                                                ^

    error[E0803]: `input.components` is a list, and its items have numbers, no `name`
      ┌─ p.rego:11:67
      │  …de": "d", "message": "d"} if { input.components.name == "x" }
      │                                                   ^^^^
      = write `some item in input.components`, or `input.components[_].name`

    error[E0803]: `f` has no `sha`, ever
      ┌─ p.rego:12:77
      │  …"message": "e"} if { every f in input.files { f.sha == "x" } }
      │                                                   ^^^
      = it has path, sha256, size

    error[E0803]: `input.job` has no `submitter`, ever
      ┌─ p.rego:13:76
      │  … "message": "f"} if { count([p | p := input.job.submitter]) > 0 }
      │                                                   ^^^^^^^^^
      = it has byoc, job_id, meta, name, submitter_name, submitter_org, submitter_role

    error[E0804]: "true" never stands there, so this can never hold
      ┌─ p.rego:14:69
      │  …": "g", "message": "g"} if { input.job.byoc == "true" }
      │                                                   ^^^^
      = there stands true or false

    error[E0803]: `site` has no `nam`, ever
      ┌─ p.rego:15:55
      │  …ontains {"code": "h", "message": "h"} if { site.nam == "x" }
      │                                                   ^^^ did you mean `name`?
      = it has name, org, side, workspace

    error[E0805]: with `false` in it, this can never hold
      ┌─ p.rego:16:48
      │  deny contains {"code": "i", "message": "i"} if false
      │                                                 ^^^^^

    error[E0805]: the rule `denny` never counts: `review` does not lead to it
      ┌─ p.rego:17:1
      │  denny contains {"code": "j", "message": "j"} if input.job.byoc
      │  ^^^^^
      = use it in `review`, or in a rule that `review` uses, or take it out

    error[E0806]: nothing gives `k` a value
      ┌─ p.rego:18:40
      │  deny contains {"code": "k", "message": k}
      │                                         ^

    error[E0806]: there is no function `startwith`
      ┌─ p.rego:19:48
      │  deny contains {"code": "l", "message": "l"} if startwith(input.job.name, data.words)
      │                                                 ^^^^^^^^^ did you mean `startswith`?

    error[E0803]: `data` has no `words`, ever
      ┌─ p.rego:19:79
      │  …essage": "l"} if startwith(input.job.name, data.words)
      │                                                   ^^^^^
      = it has locule
    "###);
}

#[test]
fn what_is_not_known_is_not_guessed_at() {
    policy(
        r#"deny contains {"code": "a", "message": name} if {
             some i, c in input.components
             c.args.anything.at.all[i] == 3
             input.config.executors[_].executor.path == "x"
             input.args.names[_] == c.requested
             input.job.meta.x.y == c.element.z
             key := ["name", "kind"][_]
             c[key] == "executor"
             name := first(c)
           }
           deny contains {"code": "b", "message": "b"} if { some x in ["a"]; x.y == 1 }
           first(component) := component.whatever if component.kind == "a word"
           first(component) := "none" if not component.whatever"#,
    );
}

const POLICY: &str = r#"package locule
review := {"allow": count(deny) == 0, "deny": deny}
deny contains finding if {
    some c in input.components
    c.name == "bad"
    finding := {"code": "bad", "message": "bad"}
}
deny contains finding if {
    input.job.byoc
    finding := {"code": "byoc", "message": "byoc"}
}
"#;

#[test]
fn tests_run_and_rules_that_none_reaches_are_told() {
    let tests = r#"package locule_test
import data.locule
test_bad_is_refused if count(locule.deny) == 1 with input as {"components": [{"name": "bad"}]}
test_good_is_allowed if locule.review.allow with input as {"components": [{"name": "good"}]}
test_that_fails if locule.review.allow with input as {"components": [{"name": "bad"}]}
test_three := 3
"#;
    let report = test(("p.rego", POLICY), ("p_test.rego", tests)).unwrap();
    let failed: Vec<_> = report.results.iter().map(|one| (one.line, one.failure.as_deref())).collect();
    assert_eq!(
        failed,
        [(3, None), (4, None), (5, Some("it does not hold")), (6, Some("its value is 3, not true"))]
    );
    let unreached: Vec<_> = report.unreached.iter().map(|one| (one.rule.as_str(), one.line)).collect();
    assert_eq!(unreached, [("deny", 8)]);
    assert!(!report.passed());
}

#[test]
fn tests_that_reach_everything_pass() {
    let tests = r#"package locule
test_bad if count(deny) == 1 with input as {"components": [{"name": "bad"}]}
test_byoc if { some d in deny with input as {"job": {"byoc": true}}; d.code == "byoc" }
"#;
    let report = test(("p.rego", POLICY), ("p_test.rego", tests)).unwrap();
    assert!(report.passed(), "{report:?}");
    assert!(report.unreached.is_empty(), "{report:?}");
    let none = test(("p.rego", POLICY), ("p_test.rego", "package locule_test\nx := 1")).unwrap();
    assert!(!none.passed());
    assert!(test(("p.rego", "package other"), ("p_test.rego", tests)).is_err());
}

#[test]
fn the_template_passes_its_own_tests_which_reach_every_rule() {
    let report = test(("p.rego", TEMPLATE), ("p_test.rego", TEST_TEMPLATE)).unwrap_or_else(|m| panic!("{m}"));
    assert!(report.passed(), "{report:?}");
    assert!(report.unreached.is_empty(), "{report:?}");
}
