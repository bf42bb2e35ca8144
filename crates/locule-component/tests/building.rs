//! From a plan to components: nothing is made before every checker has let the plan pass.

mod sample;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use locule_component::*;
use locule_config::Document;
use locule_fobs::{Shareable, Value};
use serde_json::json;

fn site_plan(value: serde_json::Value) -> Plan {
    let document = Document::parse_json("config_fed_client.json", &value.to_string())
        .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    Plan::from_document(&document, Side::Site, &sample::registry())
        .unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn job() -> serde_json::Value {
    json!({
        "format_version": 2,
        "executors": [
            {"tasks": ["train*"], "executor": {"path": "sample.Trainer", "args": {"label": "pattern",
                "clip": {"path": "sample.Clip", "args": {"mark": "1"}},
                "clips": [{"path": "sample.Clip", "args": {"mark": "2"}}]}}},
            {"tasks": ["train"], "executor": {"path": "sample.Trainer", "args": {"label": "exact"}}}],
        "task_result_filters": [
            {"tasks": ["train"], "direction": "inout", "filters": [
                {"path": "sample.Clip", "args": {"mark": "a"}},
                {"path": "sample.Clip", "args": {"mark": "off"}, "disabled": true},
                {"path": "sample.Clip", "args": {"mark": "b"}}]}],
        "components": [{"id": "rec", "path": "sample.Recorder"}],
    })
}

fn build(plan: Plan, count: &ConstructionCount) -> Result<Assembled, BuildError> {
    let here = Path::new(".");
    let cx = BuildCx::new(Side::Site, "hospital-1", "job-7", here, here, count);
    plan.approve(Vec::new()).expect("nobody denies it").build(&sample::registry(), &cx)
}

fn report(plan: &Plan, outcome: Result<Vec<Verdict>, CheckerFailure>) -> CheckerReport {
    CheckerReport { checker: "guard".to_owned(), plan: plan.digest().clone(), outcome }
}

fn run(assembled: &mut Assembled, task: &str) -> Shareable {
    let context = RunContext::new("hospital-1", "job-7").open();
    let cx = TaskCx { site: "hospital-1", job_id: "job-7", abort: &AbortFlag::new(), context: &context };
    let task = Task { name: task.to_owned(), id: "1".to_owned(), data: Shareable::new() };
    assembled.executors.find(&task.name).expect("it is in the table").execute(&task, &cx).expect("it works")
}

#[test]
fn an_approved_plan_becomes_components_that_work() {
    let count = ConstructionCount::new();
    let mut assembled = build(site_plan(job()), &count).expect("it builds");
    assert_eq!(count.get(), 7, "the disabled filter is not made");

    let result = run(&mut assembled, "train_more");
    assert_eq!(result.header("by"), Some(&Value::from("pattern")));
    assert_eq!(result.header("marks"), Some(&Value::from("12")), "arguments are components, in order");
    assert_eq!(
        run(&mut assembled, "train").header("by"),
        Some(&Value::from("exact")),
        "exact names come first"
    );
    assert!(assembled.executors.find("other").is_none());
    assert_eq!(assembled.observers.len(), 1);

    let context = RunContext::new("hospital-1", "job-7").open();
    for direction in [Direction::In, Direction::Out] {
        let cx = FilterCx {
            site: "hospital-1",
            job_id: "job-7",
            task: "train",
            chain: Chain::TaskResult,
            direction,
            context: &context,
        };
        let through = assembled.filters.apply(Shareable::new(), &cx).expect("nothing blocks it");
        assert_eq!(through.header("marks"), Some(&Value::from("ab")));
        let other = FilterCx { chain: Chain::TaskData, ..cx };
        assert_eq!(
            assembled.filters.apply(Shareable::new(), &other).map(|data| data.header("marks").cloned()),
            Ok(None)
        );
    }
}

#[test]
fn one_denial_refuses_the_whole_plan_and_nothing_is_made() {
    let plan = site_plan(job());
    let finding = Finding {
        code: "no-recorders".to_owned(),
        message: "recorders see patients".to_owned(),
        path: ConfigPath::from("components.#1"),
        public: false,
    };
    let verdicts = vec![Verdict::allow("executors.#1.executor"), Verdict::deny("components.#1", finding)];
    let reports = vec![report(&plan, Ok(vec![])), report(&plan, Ok(verdicts))];
    let digest = plan.digest().clone();
    let refused = plan.approve(reports).expect_err("it is denied");
    assert_eq!(refused.plan, digest);
    assert_eq!(
        refused.to_string(),
        "plan refused: components.#1: recorders see patients [no-recorders, guard]"
    );
    let denial = &refused.findings[0];
    assert_eq!((denial.component.as_str(), denial.file.as_str()), ("rec", "config_fed_client.json"));
    assert_eq!(denial.public_reason(), "the site's policy refuses it");
}

#[test]
fn failing_checkers_bare_denials_and_reports_about_other_plans_refuse() {
    let plan = site_plan(job());
    let mut value = job();
    value["components"] = json!([]);
    let other = site_plan(value);
    let bare = Verdict { component: "components.#1".into(), decision: Decision::Deny, findings: Vec::new() };
    for (report, code) in [
        (report(&plan, Err(CheckerFailure::Panic("planted".to_owned()))), Denial::CHECKER_FAILED),
        (
            report(&plan, Err(CheckerFailure::Error(CheckerError::Failed("planted".to_owned())))),
            Denial::CHECKER_FAILED,
        ),
        (report(&plan, Err(CheckerFailure::Deadline(std::time::Duration::ZERO))), Denial::CHECKER_FAILED),
        (report(&other, Ok(Vec::new())), Denial::CHECKER_FAILED),
        (report(&plan, Ok(vec![bare])), "denied"),
    ] {
        let refused = plan.clone().approve(vec![report]).expect_err("it must not pass");
        assert_eq!(refused.findings.iter().map(|denial| denial.code.as_str()).collect::<Vec<_>>(), [code]);
    }
}

#[test]
fn warnings_are_kept_and_do_not_refuse() {
    let plan = site_plan(job());
    let finding =
        Finding { code: "odd".into(), message: "odd".into(), path: "components.#1".into(), public: true };
    let reports = vec![report(&plan, Ok(vec![Verdict::warn("components.#1", finding.clone())]))];
    let approved = plan.approve(reports).expect("a warning is no denial");
    assert_eq!(approved.remarks(), [("guard".to_owned(), finding)]);
}

#[test]
fn a_constructor_that_fails_or_panics_is_an_error_with_its_place() {
    for (label, cause) in
        [("missing", "there is no data here"), ("panic", "the constructor panicked: planted")]
    {
        let count = ConstructionCount::new();
        let mut value = job();
        value["executors"][1]["executor"]["args"]["label"] = json!(label);
        let error = build(site_plan(value), &count).expect_err("the constructor fails");
        assert_eq!(error.to_string(), "cannot build executors.#2.executor (config_fed_client.json:1)");
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some(cause));
        assert_eq!(count.get(), 4, "nothing behind it is made");
    }
}

#[test]
fn an_argument_of_a_disabled_component_is_not_made() {
    let count = ConstructionCount::new();
    let mut value = job();
    value["executors"][0]["executor"]["disabled"] = json!(true);
    let mut assembled = build(site_plan(value), &count).expect("it builds");
    assert_eq!(count.get(), 4);
    assert!(assembled.executors.find("train_more").is_none());
}

#[test]
fn a_disabled_argument_is_null() {
    let mut value = job();
    value["executors"][0]["executor"]["args"]["clip"]["disabled"] = json!(true);
    let mut assembled = build(site_plan(value), &ConstructionCount::new()).expect("it builds");
    assert_eq!(run(&mut assembled, "train_more").header("marks"), Some(&Value::from("2")));
}

#[test]
fn a_placeholder_that_a_job_writes_itself_gives_it_nothing() {
    let mut value = job();
    value["executors"][0]["executor"]["args"]["clip"] = json!({"$component": 0});
    value["executors"][0]["executor"]["args"]["clips"] = json!([{"$component": 0}, {"$component": 7}]);
    let error = build(site_plan(value), &ConstructionCount::new()).expect_err("there is no such component");
    assert!(matches!(error, BuildError::Component { source, .. } if matches!(*source, BuildError::NoChild)));
}

#[test]
fn a_filter_that_blocks_stops_the_chain() {
    let mut value = job();
    value["task_result_filters"][0]["filters"][0]["args"]["mark"] = json!("block");
    let mut assembled = build(site_plan(value), &ConstructionCount::new()).expect("it builds");
    let context = RunContext::new("hospital-1", "job-7").open();
    let cx = FilterCx {
        site: "hospital-1",
        job_id: "job-7",
        task: "train",
        chain: Chain::TaskResult,
        direction: Direction::Out,
        context: &context,
    };
    let error = assembled.filters.apply(Shareable::new(), &cx).expect_err("it is blocked");
    assert_eq!(
        (error.to_string().as_str(), error.return_code(cx.chain)),
        ("blocked: planted", "TASK_RESULT_FILTER_ERROR")
    );
}

#[test]
fn a_site_never_silently_lacks_a_checker() {
    let read = |value: serde_json::Value| {
        let document = Document::parse_json("job_resources.json", &value.to_string()).expect("it is JSON");
        site_checkers(&document, Side::Site, &sample::registry(), &["vendor.Service"])
            .map(|specs| specs.into_iter().map(|spec| spec.label().to_owned()).collect::<Vec<_>>())
            .map_err(|mistakes| mistakes.iter().map(|mistake| mistake.code).collect::<Vec<_>>())
    };
    let guard = |id: &str| json!({"id": id, "path": "sample.Guard"});
    let service = json!({"id": "s", "path": "vendor.Service", "args": {"anything": 1}});
    for (components, expected) in [
        (json!([guard("a"), service, guard("b")]), Ok(vec!["a".to_owned(), "b".to_owned()])),
        (json!([guard("a"), guard("a")]), Err(vec![code::DUPLICATE])),
        (json!([guard("s"), service]), Err(vec![code::DUPLICATE])),
        (json!([{"path": "sample.Guard"}]), Err(vec![code::MISSING])),
        (json!([{"id": "a", "path": "sample.Gaurd"}]), Err(vec![code::UNKNOWN_COMPONENT])),
        (json!([{"id": "a", "path": "sample.Trainer"}]), Err(vec![code::WRONG_KIND])),
        (json!([{"id": "a", "path": "sample.Guard", "digest": "sha256:00"}]), Err(vec![code::UNKNOWN_KEY])),
        (
            json!([{"id": "a", "path": "sample.Guard", "args": {"mode": 1}}]),
            Err(vec![code::UNKNOWN_ARGUMENT]),
        ),
        (json!({"id": "a", "path": "sample.Guard"}), Err(vec![code::WRONG_SORT])),
        (json!(["sample.Guard"]), Err(vec![code::WRONG_SORT])),
    ] {
        assert_eq!(read(json!({"components": components})), expected, "{components}");
    }
    assert_eq!(read(json!({})), Ok(vec![]));
}

/// A service: a word.
struct Keeper;

impl Component for Keeper {
    const KIND: Kind = Kind::Service;
    const NAME: &'static str = "test.Keeper";
    type Args = BTreeMap<String, String>;

    fn build(args: Self::Args, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Service(Arc::new(args.get("word").cloned().unwrap_or_default())))
    }
}

/// Cannot be made unless the service `keeper` keeps the word `here`, and two services keep words.
struct Needy;

impl Component for Needy {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "test.Needy";
    type Args = BTreeMap<String, String>;

    fn build(_: Self::Args, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        let word = cx.service::<String>("keeper");
        let ids: Vec<&str> = cx.services::<String>().map(|(id, _)| id).collect();
        if word.as_deref().map(String::as_str) == Some("here") && ids == ["keeper", "second"] {
            assert!(cx.service::<u32>("keeper").is_none(), "it is of another type");
            return Ok(Built::Executor(Box::new(Needy)));
        }
        Err(BuildError::Unavailable(format!("found {word:?} among {ids:?}")))
    }
}

impl Executor for Needy {
    fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        Ok(task.data.clone())
    }
}

#[test]
fn services_are_made_first_and_found_by_id_and_type() {
    let text = r#"{"format_version": 2,
        "executors": [{"tasks": ["a"], "executor": {"path": "test.Needy"}}],
        "components": [{"id": "keeper", "path": "test.Keeper", "args": {"word": "here"}},
            {"id": "second", "path": "test.Keeper"},
            {"id": "third", "path": "test.Keeper", "disabled": true}]}"#;
    let mut registry = Registry::new();
    registry.register::<Needy>().register::<Keeper>();
    let document = Document::parse_json("config_fed_client.json", text).expect("it is JSON");
    let plan = Plan::from_document(&document, Side::Site, &registry).expect("it is a plan");
    let count = ConstructionCount::new();
    let cx = BuildCx::new(Side::Site, "hospital-1", "job-7", Path::new("kit"), Path::new("app"), &count);
    let assembled = plan.approve(Vec::new()).expect("nobody denies it").build(&registry, &cx);
    assert_eq!(assembled.expect("each service is there").executors.len(), 1);
    assert_eq!(count.get(), 3);
}
