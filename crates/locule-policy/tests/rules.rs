//! What the site's typed rules refuse, and which rules they refuse to be.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use locule_component::*;
use locule_config::{Diagnostics, Document};
use locule_fobs::Shareable;
use locule_policy::ComponentRules;
use serde_json::{Value, json};

struct Trainer;

impl Component for Trainer {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "vendor.nn.Trainer";
    const ALIASES: &'static [&'static str] = &["nvflare.np.NPTrainer"];
    type Args = Value;
    fn build(_: Value, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Executor(Box::new(Trainer)))
    }
}

impl Executor for Trainer {
    fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        Ok(task.data.clone())
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<Trainer>();
    registry
}

fn rules(list: &str) -> Result<ComponentRules, Diagnostics> {
    let document = Document::parse_json("resources.json", &format!(r#"{{"component_rules": {list}}}"#))?;
    ComponentRules::from_site_config(&document, &registry())
}

/// The codes and paths of what the rules refuse of a job whose executor has these arguments.
fn refused(list: &str, args: &Value) -> Vec<(String, String)> {
    refused_of(list, args, &JobFacts { submitter_org: "nvidia".into(), ..JobFacts::default() })
}

fn refused_of(list: &str, args: &Value, job: &JobFacts) -> Vec<(String, String)> {
    let rules = rules(list).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let executor = json!({ "path": "nvflare.np.NPTrainer", "args": args });
    let config = json!({ "format_version": 2, "executors": [{ "tasks": ["train"], "executor": executor }] });
    let document = Document::parse_json("config_fed_client.json", &config.to_string()).unwrap();
    let plan = Plan::from_document(&document, Side::Site, &registry()).unwrap();
    let site = SiteFacts {
        name: "site-1".into(),
        org: "hospital".into(),
        side: Side::Site,
        workspace: PathBuf::from("/kits/site-1"),
    };
    let review = PlanReview { plan: &plan, config: plan.config(), job, site: &site, phase: Phase::Deploy };
    let verdicts = rules.review_plan(&review).unwrap();
    let findings = verdicts.into_iter().flat_map(|verdict| verdict.findings);
    findings.map(|finding| (finding.code, finding.path.to_string())).collect()
}

const AT: &str = "executors.#1.executor";

fn one(code: &str, below: &str) -> Vec<(String, String)> {
    vec![(code.to_owned(), format!("{AT}{below}"))]
}

#[test]
fn a_component_is_denied_by_its_name_alias_kind_or_argument() {
    let nothing = json!({});
    for (rule, args, expected) in [
        (r#"{"deny": {"name": "vendor.*"}}"#, &nothing, one("denied-by-rule", "")),
        (r#"{"deny": {"name": ["nvflare.np.*"]}, "code": "np"}"#, &nothing, one("np", "")),
        (r#"{"deny": {"kind": "executor"}}"#, &nothing, one("denied-by-rule", "")),
        (r#"{"deny": {"kind": "workflow"}}"#, &nothing, vec![]),
        (
            r#"{"deny": {"arg": "command", "matches": "curl|wget"}}"#,
            &json!({"command": "x; curl y"}),
            one("denied-by-rule", ".args.command"),
        ),
        (r#"{"deny": {"arg": "command", "matches": "curl|wget"}}"#, &json!({"command": "python3"}), vec![]),
        (r#"{"deny": {"arg": "command"}}"#, &json!({"command": 1}), one("denied-by-rule", ".args.command")),
        (
            r#"{"deny": {"arg": "a.*.b", "one_of": [7]}}"#,
            &json!({"a": [{"b": 1}, {"b": 7}]}),
            one("denied-by-rule", ".args.a.#2.b"),
        ),
        (
            r#"{"deny": {"arg": "**", "one_of": ["x"]}}"#,
            &json!({"a": [{"b": "x"}]}),
            one("denied-by-rule", ".args.a.#1.b"),
        ),
        (r#"{"deny": {"arg": "**.b"}}"#, &json!({"a": [{"b": "x"}]}), one("denied-by-rule", ".args.a.#1.b")),
    ] {
        assert_eq!(refused(&format!("[{rule}]"), args), expected, "{rule} against {args}");
    }
}

#[test]
fn a_path_is_resolved_before_it_is_compared() {
    let rule = r#"[{"deny": {"arg": "data", "under": "/mnt/phi"}}]"#;
    for (path, is_refused) in [
        ("/mnt/phi", true),
        ("/mnt/phi/a.csv", true),
        ("/mnt/./x/../phi//a.csv", true),
        ("../../mnt/phi/a.csv", true),
        ("/mnt/philosophy", false),
        ("/mnt/phi/../open/a.csv", false),
        ("phi/a.csv", false),
    ] {
        assert_eq!(!refused(rule, &json!({ "data": path })).is_empty(), is_refused, "{path}");
    }
}

#[test]
fn what_is_required_must_be_there_and_pass() {
    let rule = r#"[{"require": {"name": "vendor.nn.Trainer", "arg": "rounds", "min": 1, "max": 200}}]"#;
    assert_eq!(refused(rule, &json!({ "rounds": 200 })), vec![]);
    assert_eq!(refused(rule, &json!({ "rounds": 201 })), one("rule-not-met", ".args.rounds"));
    assert_eq!(refused(rule, &json!({ "rounds": "5" })), one("rule-not-met", ".args.rounds"));
    assert_eq!(refused(rule, &json!({})), one("rule-not-met", ""));
    let optional = r#"[{"require": {"arg": "rounds", "max": 200}, "optional": true}]"#;
    assert_eq!(refused(optional, &json!({})), vec![]);
    assert_eq!(refused(optional, &json!({ "rounds": 201 })), one("rule-not-met", ".args.rounds"));
}

#[test]
fn with_an_allow_rule_what_no_rule_allows_is_refused() {
    let rule = r#"[{"allow": {"name": "vendor.*", "arg": "data", "under": ["/data", "/scratch"]}}]"#;
    assert_eq!(refused(rule, &json!({ "data": "/data/a.csv" })), vec![]);
    for args in [json!({ "data": "/elsewhere/a.csv" }), json!({})] {
        assert_eq!(refused(rule, &args), one("not-allowed-by-rule", ""), "{args}");
    }
    let for_one = r#"[{"allow": {"kind": "executor"}, "when": {"submitter_org": "hospital"}}]"#;
    assert_eq!(refused(for_one, &json!({})), one("not-allowed-by-rule", ""));
}

#[test]
fn what_is_not_known_of_a_submitter_counts_against_the_job() {
    let of = |org: &str| JobFacts { submitter_org: org.into(), ..JobFacts::default() };
    let unless = r#"[{"deny": {"kind": "executor"}, "unless": {"submitter_org": "hosp*"}}]"#;
    let when = r#"[{"deny": {"kind": "executor"}, "when": {"submitter_org": ["nvidia"]}}]"#;
    let allow = r#"[{"allow": {"kind": "executor"}, "unless": {"submitter_org": "nvidia"}}]"#;
    for (rule, org, is_refused) in [
        (unless, "hospital", false),
        (unless, "nvidia", true),
        (unless, "", true),
        (when, "hospital", false),
        (when, "nvidia", true),
        (when, "", true),
        (allow, "hospital", false),
        (allow, "nvidia", true),
        (allow, "", true),
    ] {
        assert_eq!(!refused_of(rule, &json!({}), &of(org)).is_empty(), is_refused, "{rule} for {org:?}");
    }
}

#[test]
fn files_are_held_to_their_digests() {
    let file = |path: &str, digit: &str| AppFile { path: path.into(), size: 1, sha256: digit.repeat(64) };
    let files = vec![file("config/config_fed_client.json", "0"), file("custom/net.py", "a")];
    let job = JobFacts { files, ..JobFacts::default() };
    let require = |digit: &str| {
        format!(r#"[{{"require": {{"file": "custom/*", "digest": "sha256:{}"}}}}]"#, digit.repeat(64))
    };
    assert_eq!(refused_of(&require("A"), &json!({}), &job), vec![]);
    let plan_as_a_whole = vec![("rule-not-met".to_owned(), String::new())];
    assert_eq!(refused_of(&require("b"), &json!({}), &job), plan_as_a_whole);
    let deny = r#"[{"deny": {"file": "*.py"}, "code": "no-python"}]"#;
    assert_eq!(refused_of(deny, &json!({}), &job), vec![("no-python".to_owned(), String::new())]);
}

#[test]
fn every_mistake_is_told_with_its_place() {
    for (rule, told) in [
        (r#"{}"#, "one of `allow`, `deny` and `require`"),
        (r#"{"deny": {}, "allow": {}}"#, "one of `allow`, `deny` and `require`"),
        (r#"{"deny": {}}"#, "refuses everything"),
        (r#"{"deny": {"nam": "vendor.*"}}"#, "did you mean `name`?"),
        (r#"{"deny": {"name": "vendor.nn.Trainr"}}"#, "did you mean `vendor.nn.Trainer`?"),
        (r#"{"deny": {"name": "acme.*"}}"#, "can never fire"),
        (r#"{"deny": {"name": "vendor.*", "kind": "workflow"}}"#, "can never fire"),
        (r#"{"deny": {"name": []}}"#, "can never fire: the list is empty"),
        (r#"{"deny": {"kind": "executr"}}"#, "did you mean `executor`?"),
        (r#"{"deny": {"name": "vendor.["}}"#, "does not close"),
        (r#"{"deny": {"arg": "a", "matches": "("}}"#, "no regular expression"),
        (r#"{"deny": {"matches": "x"}}"#, "of which argument?"),
        (r#"{"deny": {"arg": "a", "max": 3}}"#, "write a `require`"),
        (r#"{"deny": {"arg": "a..b"}}"#, "path of an argument"),
        (r#"{"deny": {"arg": "a", "under": "phi"}}"#, "absolute path"),
        (r#"{"deny": {"arg": "a", "one_of": []}}"#, "not empty"),
        (r#"{"require": {"name": "vendor.*"}}"#, "of which `arg`"),
        (r#"{"require": {"arg": "a", "min": 3, "max": 2}}"#, "no number"),
        (r#"{"require": {"file": "custom/*"}}"#, "which `digest`"),
        (r#"{"require": {"file": "custom/*", "digest": "9f86"}}"#, "64 hexadecimal digits"),
        (
            r#"{"deny": {"kind": "executor"}, "unless": {"submitter_org": "*"}}"#,
            "can never fire: this is so of everybody",
        ),
        (r#"{"deny": {"kind": "executor"}, "unless": {}}"#, "is an object with submitter_org"),
        (r#"{"deny": {"kind": "executor"}, "optional": true}"#, "belongs to a `require`"),
        (r#"{"deny": {"kind": "executor"}, "code": "No Tools"}"#, "lower-case letters"),
        (r#"{"allow": {"kind": "executor"}, "code": "x"}"#, "has no `code`"),
    ] {
        let mistakes = rules(&format!("[\n{rule}]")).expect_err(rule);
        let text = mistakes.to_string();
        assert!(text.contains(told), "{rule}: {text}");
        assert!(mistakes.iter().all(|one| one.line == 2 && one.code == "E0403"), "{text}");
    }
}
