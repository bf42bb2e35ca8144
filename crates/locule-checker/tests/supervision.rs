//! Checkers in processes of their own: whatever one does, only verdicts let a plan pass.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use locule_checker::{CheckerCommand, SiteCheckers};
use locule_component::*;
use locule_config::{Diagnostics, Document};
use locule_policy::{Occasion, ask_all, gates_from_site_config};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The kit of a site, with one checker.
struct Kit {
    dir: TempDir,
    checkers: SiteCheckers,
}

impl Kit {
    fn new(script: &str) -> Kit {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("local/custom")).unwrap();
        // Examples are built beside the tests.
        let mut program = std::env::current_exe().unwrap();
        program.pop();
        program.pop();
        program.push("examples/scripted");
        let command =
            CheckerCommand { program, args: Vec::new(), search_path: "/usr/local/bin:/usr/bin:/bin".into() };
        let kit = Kit { dir, checkers: SiteCheckers::new(command) };
        kit.write("p.rego", script);
        kit
    }

    fn custom(&self) -> PathBuf {
        self.dir.path().join("local/custom")
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.custom().join(file), text).unwrap();
    }

    fn open(&self, entry: Value) -> Result<Vec<Arc<dyn Checker>>, Diagnostics> {
        let site = json!({ "class_allow_list": ["*"], "components": [entry] }).to_string();
        let site = Document::parse_json("job_resources.json", &site)?;
        let (kit, count) = (self.dir.path(), ConstructionCount::new());
        let cx = BuildCx::new(Side::Site, "site-1", "", kit, kit, &count);
        gates_from_site_config(&site, &Registry::new(), &self.checkers, &cx)
    }

    fn mistake(&self, entry: Value) -> String {
        self.open(entry).unwrap_err().to_string()
    }

    /// What the checker says, or why it has not judged.
    fn ask(&self, entry: Value) -> Result<Vec<Verdict>, String> {
        let gates = self.open(entry).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        ask(&gates)
    }

    fn judge(&self) -> Result<Vec<Verdict>, String> {
        self.ask(json!({ "id": "c", "path": "p.rego", "limits": { "time_ms": 60_000 } }))
    }
}

fn ask(gates: &[Arc<dyn Checker>]) -> Result<Vec<Verdict>, String> {
    let site =
        SiteFacts { name: "site-1".into(), org: "zoo".into(), side: Side::Site, workspace: "kit".into() };
    let occasion = Occasion { job: JobFacts::default(), site, phase: Phase::Deploy };
    // The second `workflows.#1` is a key that means nothing.
    let job = json!({
        "format_version": 2, "workflows": [{ "path": "pet.Walk" }], "workflows.#1": { "path": "pet.Decoy" },
    });
    let job = job.to_string();
    let mut registry = Registry::new();
    registry.register::<Walk>().register::<Run>();
    let document = Document::parse_json("config_fed_server.json", &job).unwrap();
    let plan = Plan::from_document(&document, Side::Server, &registry).unwrap();
    let mut reports = ask_all(&plan, &occasion, gates, std::time::Duration::from_secs(60));
    reports.pop().unwrap().outcome.map_err(|failure| failure.to_string())
}

struct Walk;

impl Component for Walk {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "pet.Walk";
    type Args = serde_json::Map<String, Value>;
    fn build(_: Self::Args, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Err(BuildError::Unavailable("nobody walks".to_owned()))
    }
}

struct Run;

impl Component for Run {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "pet.Run";
    type Args = serde_json::Map<String, Value>;
    fn build(_: Self::Args, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Err(BuildError::Unavailable("nobody runs".to_owned()))
    }
}

fn message(verdicts: Result<Vec<Verdict>, String>) -> String {
    verdicts.unwrap()[0].findings[0].message.clone()
}

#[test]
fn verdicts_come_out_as_they_were_given() {
    let verdicts = Kit::new("allow deny").judge().unwrap();
    assert_eq!(
        verdicts.iter().map(|one| one.decision).collect::<Vec<_>>(),
        [Decision::Allow, Decision::Deny]
    );
}

#[test]
fn a_checker_sees_the_review_document() {
    let document: Value = serde_json::from_str(&message(Kit::new("show").judge())).unwrap();
    assert_eq!(document["schema"], 1);
    assert_eq!(document["phase"], "deploy");
    assert_eq!(document["components"][0]["name"], "pet.Walk");
    assert_eq!(document["components"][0]["path"], "workflows.#1");
    assert_eq!(document["config"]["workflows.#1"]["path"], "pet.Decoy");
    assert_eq!(document["components"][0]["element"], json!({ "path": "pet.Walk" }));
    assert_eq!(
        document["site"],
        json!({ "name": "site-1", "org": "zoo", "side": "site", "workspace": "kit" })
    );
    // Nothing that the schema does not speak of.
    let schema: Value = serde_json::from_str(locule_checker::REVIEW_SCHEMA).unwrap();
    let known = |part: &Value, schema: &Value| {
        let keys = part.as_object().unwrap().keys();
        keys.filter(|key| schema["properties"].get(key).is_none()).cloned().collect::<Vec<_>>()
    };
    assert_eq!(known(&document, &schema), Vec::<String>::new());
    let component = &schema["properties"]["components"]["items"];
    assert_eq!(known(&document["components"][0], component), Vec::<String>::new());
    assert_eq!(known(&document["job"], &schema["properties"]["job"]), Vec::<String>::new());
    assert_eq!(known(&document["plan"], &schema["properties"]["plan"]), Vec::<String>::new());
}

#[test]
fn whatever_is_no_verdict_is_a_failure_that_says_so() {
    for (script, said) in [
        ("fail", "it failed over two lines"),
        ("panic", "panicked: at the disco"),
        ("crash", "was ended by signal 6"),
        ("exit", "ended with code 3 before it answered"),
        ("hog", "was ended by signal 6"),
        ("huge", "more than 1048576"),
        ("garbage", "something that is no answer"),
        ("lie", "something that is no answer"),
        ("wrong", "something that is no answer"),
        ("ready", "answered as if it was not asked"),
        ("nonsense", "nonsense is not a thing to do"),
    ] {
        let failure = Kit::new(script).judge().unwrap_err();
        assert!(failure.contains(said), "{script}: {failure}");
    }
}

#[test]
fn an_endless_loop_is_ended_at_its_deadline() {
    let entry = json!({ "id": "c", "path": "p.rego", "limits": { "time_ms": 50 } });
    let kit = Kit::new("loop");
    assert!(kit.ask(entry).unwrap_err().contains("no answer within 50 ms"));
    kit.write("p.rego", "allow");
    assert!(kit.judge().is_ok());
}

#[test]
fn a_child_that_has_judged_judges_again_until_its_file_or_entry_changes() {
    let kit = Kit::new("count");
    let gates = kit.open(json!({ "id": "c", "path": "p.rego" })).unwrap();
    assert_eq!((message(ask(&gates)), message(ask(&gates))), ("1".to_owned(), "2".to_owned()));
    let again = json!({ "id": "c", "path": "p.rego" });
    assert_eq!(message(kit.ask(again.clone())), "3");
    assert_eq!(message(kit.ask(json!({ "id": "c", "path": "p.rego", "args": { "a": 1 } }))), "1");
    kit.write("p.rego", "count ");
    assert_eq!(message(kit.ask(again)), "1");
    // What was opened earlier goes on judging by the text that it was opened with.
    assert_eq!(message(ask(&gates)), "4");
}

#[test]
fn a_child_that_dies_between_reviews_is_started_again() {
    let kit = Kit::new("leave");
    let gates = kit.open(json!({ "id": "c", "path": "p.rego" })).unwrap();
    for _ in 0..3 {
        // It may be noticed before the next question or only by it; a permission comes from a living child only.
        match ask(&gates) {
            Ok(verdicts) => assert!(verdicts.is_empty()),
            Err(failure) => assert!(failure.contains("ended with code 0"), "{failure}"),
        }
    }
    let kit = Kit::new("die-next");
    let gates = kit.open(json!({ "id": "c", "path": "p.rego" })).unwrap();
    assert!(ask(&gates).is_ok());
    assert!(ask(&gates).unwrap_err().contains("ended with code 4"));
    assert!(ask(&gates).is_ok());
}

#[test]
fn a_child_writes_no_files_and_has_no_environment() {
    let signal_of_too_large_a_file = "was ended by signal 25";
    assert!(Kit::new("write").judge().unwrap_err().contains(signal_of_too_large_a_file));
    assert_eq!(message(Kit::new("environment").judge()), "");
}

#[test]
fn what_cannot_judge_stops_the_site_where_it_is_written() {
    for (script, entry, said) in [
        ("unreadable", json!({ "id": "c", "path": "p.rego" }), "p.rego:1:1: no script at all"),
        ("stillborn", json!({ "id": "c", "path": "p.rego" }), "ended with code 7"),
        ("allow", json!({ "id": "c", "path": "q.rego" }), "there is no `local/custom/q.rego`"),
        ("allow", json!({ "id": "c", "path": "../p.rego" }), "bare name of a file"),
        ("allow", json!({ "id": "c", "path": "q.Q" }), "there is no `local/custom/q.py`"),
        ("allow", json!({ "id": "c", "path": "p.wasm" }), "there is no `local/custom/p.wasm`"),
        ("allow", json!({ "id": "c", "path": "p.rego", "digest": "sha256:1" }), "64 hexadecimal digits"),
        (
            "allow",
            json!({ "id": "c", "path": "p.rego", "digest": format!("sha256:{:064}", 0) }),
            "is not the file that `digest` names",
        ),
        ("allow", json!({ "id": "c", "path": "p.rego", "mdoe": "warn" }), "did you mean `mode`?"),
        ("allow", json!({ "id": "c", "path": "p.rego", "mode": "wran" }), "did you mean `warn`?"),
        ("allow", json!({ "id": "c", "path": "p.rego", "limits": { "time_ms": 0 } }), "from 1 to 60000"),
        ("allow", json!({ "id": "c", "path": "p.rego", "limits": { "memory": 3 } }), "means nothing here"),
        ("allow", json!({ "id": "c", "path": "p.rego", "python": "/usr/bin/python3" }), "not in Python"),
        ("allow", json!({ "path": "p.rego" }), "needs an `id`"),
        ("allow", json!({ "id": "c", "path": "p.rego", "args": [] }), "`args` must be an object"),
    ] {
        let mistake = Kit::new(script).mistake(entry.clone());
        assert!(mistake.contains(said) && mistake.contains("job_resources.json:1:"), "{entry}: {mistake}");
    }
}

#[test]
fn a_checker_in_python_is_shown_the_element_that_is_planned_and_not_one_with_its_path() {
    let kit = Kit::new("allow");
    kit.write(
        "own.py",
        "from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_exception import UnsafeComponentError

class Own(FLComponent):
    def handle_event(self, event_type, fl_ctx):
        if event_type == EventType.BEFORE_BUILD_COMPONENT:
            config = fl_ctx.get_prop(FLContextKey.COMPONENT_CONFIG)
            node = fl_ctx.get_prop(FLContextKey.COMPONENT_NODE)
            raise UnsafeComponentError(f'{config[\"path\"]} {node.element[\"path\"]} {node.path()} {node.level}')
",
    );
    let limits = json!({ "time_ms": 60_000 });
    let verdicts = kit.ask(json!({ "id": "c", "path": "own.Own", "limits": limits }));
    assert_eq!(message(verdicts), "pet.Walk pet.Walk workflows.#1 2");
}

#[test]
fn an_answer_that_cannot_be_taken_is_a_failure_of_the_checker() {
    for (script, why) in [("allow stray", "no component at `workflows.#2`"), ("shout", "and not `NO`")] {
        let failure = Kit::new(script).judge().unwrap_err();
        assert!(failure.contains(why), "{failure}");
        let entry = json!({ "id": "c", "path": "p.rego", "mode": "audit", "limits": { "time_ms": 60_000 } });
        let remark = Kit::new(script).ask(entry).unwrap();
        assert_eq!(remark[0].findings[0].code, Denial::CHECKER_FAILED, "{remark:?}");
    }
}

#[test]
fn a_checker_in_python_answers_for_every_component() {
    let kit = Kit::new("allow");
    kit.write(
        "own.py",
        r#"import os
import struct
from nvflare.apis.fl_component import FLComponent

class Own(FLComponent):
    def handle_event(self, event_type, fl_ctx):
        answer = b'{"verdicts": []}'
        for fd in range(3, 10):
            try:
                os.write(fd, struct.pack(">I", len(answer)) + answer)
            except OSError:
                pass
        os._exit(0)
"#,
    );
    let failure =
        kit.ask(json!({ "id": "c", "path": "own.Own", "limits": { "time_ms": 60_000 } })).unwrap_err();
    assert!(failure.contains("did not answer for workflows.#1"), "{failure}");
}

/// Arguments in which components stand under keys that look like paths.
fn awkward_args() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec!["a", "a.b", "b", "#1", "a.#1", ".", "", "args", "workflows.#1"]);
    Just(json!({ "path": "pet.Walk" })).prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner.clone(), 1..4).prop_map(|map| json!(map)),
            prop::collection::btree_map(key.clone(), inner, 1..4)
                .prop_map(|map| json!({ "path": "pet.Run", "args": map })),
        ]
    })
}

proptest! {
    #[test]
    fn the_element_in_the_document_is_the_one_that_is_planned(args in awkward_args(), decoy in awkward_args()) {
        let job = json!({
            "format_version": 2, "workflows": [{ "path": "pet.Run", "args": { "x": args } }],
            "workflows.#1": decoy, "workflows.#1.args": decoy, "workflows.#1.args.x": decoy,
        });
        let mut registry = Registry::new();
        registry.register::<Walk>().register::<Run>();
        let document = Document::parse_json("config_fed_server.json", &job.to_string()).unwrap();
        // Two components at one path are a mistake.
        if let Ok(plan) = Plan::from_document(&document, Side::Server, &registry) {
            let site = SiteFacts {
                name: "site-1".into(), org: String::new(), side: Side::Server, workspace: "kit".into(),
            };
            let (job, phase, config) = (JobFacts::default(), Phase::Deploy, plan.config());
            let review = PlanReview { plan: &plan, config, job: &job, site: &site, phase };
            let shown = locule_checker::review_document(&review, &json!({})).unwrap();
            let shown: Value = serde_json::from_str(&shown).unwrap();
            for (part, spec) in shown["components"].as_array().unwrap().iter().zip(plan.components()) {
                prop_assert_eq!(&part["element"][spec.requested_by.as_str()], &json!(spec.requested));
                let args = part["element"].get("args").cloned().unwrap_or_else(|| json!({}));
                prop_assert_eq!(&args, &spec.args);
            }
        }
    }
}

#[test]
fn a_second_checker_with_one_id_is_a_mistake() {
    let kit = Kit::new("allow");
    let site = json!({ "components": [{ "id": "c", "path": "p.rego" }, { "id": "c", "path": "p.rego" }] })
        .to_string();
    let site = Document::parse_json("job_resources.json", &site).unwrap();
    let (dir, count) = (kit.dir.path(), ConstructionCount::new());
    let cx = BuildCx::new(Side::Site, "site-1", "", dir, dir, &count);
    let mistakes = gates_from_site_config(&site, &Registry::new(), &kit.checkers, &cx).unwrap_err();
    assert!(mistakes.to_string().contains("two components have the id `c`"), "{mistakes}");
}

#[test]
fn links_out_of_the_folder_are_refused_and_links_within_are_not() {
    let kit = Kit::new("allow");
    let entry = json!({ "id": "c", "path": "p.rego" });
    std::os::unix::fs::symlink(kit.custom().join("p.rego"), kit.custom().join("q.rego")).unwrap();
    assert!(kit.ask(json!({ "id": "c", "path": "q.rego" })).is_ok());
    let outside = kit.dir.path().join("outside.rego");
    fs::write(&outside, "allow").unwrap();
    std::os::unix::fs::symlink(&outside, kit.custom().join("r.rego")).unwrap();
    assert!(kit.mistake(entry).contains("`local/custom/r.rego` is a link out of that folder"));
}

#[test]
fn a_policy_can_be_rehearsed() {
    let said =
        |mode: &str, script: &str| Kit::new(script).ask(json!({ "id": "c", "path": "p.rego", "mode": mode }));
    for (mode, decision) in
        [("enforce", Decision::Deny), ("warn", Decision::Warn), ("audit", Decision::Allow)]
    {
        let verdicts = said(mode, "deny").unwrap();
        assert_eq!((verdicts[0].decision, verdicts[0].findings.len()), (decision, 1), "{mode}");
    }
    assert!(said("enforce", "fail").is_err());
    let remark = said("audit", "fail").unwrap();
    assert_eq!(
        (remark[0].decision, remark[0].findings[0].code.as_str()),
        (Decision::Warn, Denial::CHECKER_FAILED)
    );
    let strict = json!({ "id": "c", "path": "p.rego", "mode": "warn", "on_error": "deny" });
    assert!(Kit::new("fail").ask(strict).is_err());
    let lenient = json!({ "id": "c", "path": "p.rego", "on_error": "warn" });
    assert!(Kit::new("fail").ask(lenient).is_ok());
}

#[test]
fn a_disabled_checker_is_not_asked_and_need_not_work() {
    let kit = Kit::new("unreadable");
    let gates = kit.open(json!({ "id": "c", "path": "p.rego", "disabled": true })).unwrap();
    assert_eq!(gates.iter().map(|gate| gate.id()).collect::<Vec<_>>(), ["class-allow-list"]);
}

#[test]
fn its_file_is_told_to_the_record() {
    let kit = Kit::new("allow");
    let digest = locule_checker::digest(b"allow");
    let pinned = json!({ "id": "c", "path": "p.rego", "digest": format!("sha256:{digest}") });
    let origin = kit.open(pinned).unwrap().pop().unwrap().origin();
    assert_eq!(origin, CheckerOrigin { back_end: "rego", digest: Some(digest) });
}
