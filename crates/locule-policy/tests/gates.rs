//! What a site's gates refuse, and that whatever a checker does, a plan passes only when all of them let it.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use insta::assert_snapshot;
use locule_component::*;
use locule_config::{Diagnostics, Document};
use locule_fobs::Shareable;
use locule_policy::{DEADLINE, NoCheckerFiles, Occasion, RefuseComponents, gates_from_site_config, review};
use serde::Deserialize;
use serde_json::{Value, json};

struct Trainer;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrainerArgs {
    inner: Option<Child>,
}

impl Component for Trainer {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "vendor.nn.Trainer";
    const ALIASES: &'static [&'static str] = &["nvflare.np.NPTrainer"];
    type Args = TrainerArgs;
    fn build(args: TrainerArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        args.inner.map(|child| cx.take(&child)).transpose()?;
        Ok(Built::Executor(Box::new(Trainer)))
    }
}

impl Executor for Trainer {
    fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        Ok(task.data.clone())
    }
}

struct Script;

#[derive(Deserialize)]
struct NoArgs {}

impl Component for Script {
    const KIND: Kind = Kind::Filter;
    const NAME: &'static str = "vendor.Script";
    type Args = NoArgs;
    fn build(_: NoArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Filter(Box::new(Script)))
    }
}

impl TaskFilter for Script {
    fn apply(&mut self, data: Shareable, _: &FilterCx<'_>) -> Result<Shareable, FilterError> {
        Ok(data)
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<Trainer>().register::<Script>().register::<RefuseComponents>();
    registry
}

fn plan(executor: Value) -> Plan {
    let job = json!({"format_version": 2, "executors": [{"tasks": ["train"], "executor": executor}]});
    let document = Document::parse_json("config_fed_client.json", &job.to_string()).expect("it is JSON");
    Plan::from_document(&document, Side::Site, &registry()).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn trainer() -> Plan {
    plan(json!({"path": "vendor.nn.Trainer"}))
}

fn gates(site: &str) -> Result<Vec<Arc<dyn Checker>>, Diagnostics> {
    let (kit, count) = (Path::new("kit"), ConstructionCount::new());
    let cx = BuildCx::new(Side::Site, "hospital-1", "", kit, kit, &count);
    gates_from_site_config(
        &Document::parse_json("job_resources.json", site)?,
        &registry(),
        &NoCheckerFiles,
        &cx,
    )
}

fn occasion(byoc: bool) -> Occasion {
    let site = SiteFacts {
        name: "hospital-1".to_owned(),
        org: "hospital".to_owned(),
        side: Side::Site,
        workspace: "workspace".into(),
    };
    Occasion { job: JobFacts { byoc, ..JobFacts::default() }, site, phase: Phase::Launch }
}

/// The codes of all denials; none when the plan passes.
fn denials(plan: Plan, site: Value, byoc: bool) -> Vec<String> {
    let gates = gates(&site.to_string()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    match review(plan, &occasion(byoc), &gates, DEADLINE) {
        Ok(_) => Vec::new(),
        Err(refused) => refused.findings.into_iter().map(|denial| denial.code).collect(),
    }
}

#[test]
fn the_allow_list_follows_its_rules() {
    let allowed: &[&str] = &[];
    let refused = &["not-on-allow-list"];
    for (list, expected) in [
        (json!(["vendor.nn.Trainer"]), allowed),
        (json!(["vendor.nn."]), allowed),
        (json!(["vendor.nn"]), allowed),
        (json!(["vendor."]), allowed),
        (json!(["nvflare.np.NPTrainer"]), allowed),
        (json!(["x.Y", "*"]), allowed),
        (json!([]), refused),
        (json!(["vendor.n"]), refused),
        (json!(["vendor.nn.Train"]), refused),
        (json!(["vendor.nn.Trainer.Sub"]), refused),
        (json!(["vendor.nn.Trainer."]), refused),
    ] {
        assert_eq!(denials(trainer(), json!({"class_allow_list": list}), false), expected, "{list}");
    }
    assert_eq!(
        denials(trainer(), json!({}), false),
        allowed,
        "without a list, what is registered may be used"
    );
}

#[test]
fn a_job_with_code_of_its_own_is_held_to_the_list_too() {
    assert_eq!(denials(trainer(), json!({"class_allow_list": ["a.B"]}), true), ["not-on-allow-list"]);
}

#[test]
fn components_among_arguments_are_judged_like_others() {
    let nested =
        plan(json!({"path": "vendor.nn.Trainer", "args": {"inner": {"path": "vendor.Script", "args": {}}}}));
    assert_eq!(denials(nested, json!({"class_allow_list": ["vendor.nn."]}), false), ["not-on-allow-list"]);
}

#[test]
fn with_a_list_short_names_are_refused() {
    let short = || plan(json!({"name": "Trainer"}));
    assert_eq!(denials(short(), json!({"class_allow_list": ["vendor."]}), false), ["short-name"]);
    assert!(denials(short(), json!({}), false).is_empty());
}

#[test]
fn in_warn_mode_the_list_only_remarks() {
    let site = r#"{"class_allow_list": [], "class_list_enforcement_mode": "warn"}"#;
    let gates = gates(site).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let approved = review(trainer(), &occasion(false), &gates, DEADLINE).expect("it only warns");
    let remarks: Vec<&str> = approved.remarks().iter().map(|(_, finding)| finding.message.as_str()).collect();
    assert_eq!(remarks, ["`vendor.nn.Trainer` is not on the site's class_allow_list"]);
}

#[test]
fn a_named_checker_refuses_and_every_reason_is_told() {
    let site = json!({"class_allow_list": [], "components": [
        {"id": "no-nn", "path": "locule.policy.RefuseComponents",
         "args": {"names": ["*.nn.*"], "reason": "no networks", "code": "nn", "public": false}},
        {"id": "off", "path": "locule.policy.RefuseComponents", "disabled": true, "args": {"names": ["*"]}},
        {"id": "alias", "path": "locule.policy.RefuseComponents", "args": {"names": ["nvflare.*"]}},
        {"id": "resource_manager", "args": {"num_of_gpus": 0},
         "path": "nvflare.app_common.resource_managers.gpu_resource_manager.GPUResourceManager"}]});
    assert_eq!(denials(trainer(), site, false), ["not-on-allow-list", "nn", "component-refused"]);
}

#[test]
fn nothing_of_a_refused_job_is_constructed() {
    let site = r#"{"components": [{"id": "g", "path": "locule.policy.RefuseComponents", "args": {"names": ["*Script"]}}]}"#;
    let gates = gates(site).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let (here, count) = (Path::new("."), ConstructionCount::new());
    let cx = BuildCx::new(Side::Site, "hospital-1", "job", here, here, &count);
    let job =
        plan(json!({"path": "vendor.nn.Trainer", "args": {"inner": {"path": "vendor.Script", "args": {}}}}));

    let outcome =
        review(job, &occasion(false), &gates, DEADLINE).map(|approved| approved.build(&registry(), &cx));
    let refused = outcome.expect_err("the script is refused");
    assert_eq!(count.get(), 0);
    assert_eq!(refused.findings[0].path.as_str(), "executors.#1.executor.args.inner");
    assert_eq!(refused.findings[0].public_reason(), "the site does not run this component");

    let approved = review(trainer(), &occasion(false), &gates, DEADLINE).expect("the rest is allowed");
    assert_eq!(count.get(), 0);
    approved.build(&registry(), &cx).expect("it builds");
    assert_eq!(count.get(), 1, "the count counts");
}

#[test]
fn a_site_with_an_unusable_policy_does_not_run_jobs() {
    assert_snapshot!(gates(r#"{
  "class_allow_list": ["vendor.", "Trainer", " a.b", "a..b", 7],
  "class_list_enforcement_mode": "warm",
  "components": [
    {"id": "g", "path": "locule.policy.RefuseComponent", "args": {"names": ["*"]}},
    {"id": "g", "path": "locule.policy.RefuseComponents", "args": {"name": ["*"]}},
    {"id": "t", "path": "vendor.nn.Trainer"},
    {"path": "nvflare.app_common.resource_managers.gpu_resource_manager.GPUResourceManager"},
    {"id": "h", "path": "comp_auth.ComponentChecker"}
  ]
}"#).expect_err("the policy is unusable"), @r#"
    error[E0401]: an entry of `class_allow_list` is a dotted name, the beginning of one up to a dot, or `*`
      ┌─ job_resources.json:2:35   at class_allow_list.#2
      │  "class_allow_list": ["vendor.", "Trainer", " a.b", "a..b", 7],
      │                                  ^^^^^^^^^

    error[E0401]: an entry of `class_allow_list` is a dotted name, the beginning of one up to a dot, or `*`
      ┌─ job_resources.json:2:46   at class_allow_list.#3
      │  "class_allow_list": ["vendor.", "Trainer", " a.b", "a..b", 7],
      │                                             ^^^^^^

    error[E0401]: an entry of `class_allow_list` is a dotted name, the beginning of one up to a dot, or `*`
      ┌─ job_resources.json:2:54   at class_allow_list.#4
      │  …ass_allow_list": ["vendor.", "Trainer", " a.b", "a..b", 7],
      │                                                   ^^^^^^

    error[E0401]: an entry of `class_allow_list` is a dotted name, the beginning of one up to a dot, or `*`
      ┌─ job_resources.json:2:62   at class_allow_list.#5
      │  …w_list": ["vendor.", "Trainer", " a.b", "a..b", 7],
      │                                                   ^

    error[E0401]: `class_list_enforcement_mode` is `enforce` or `warn`
      ┌─ job_resources.json:3:34   at class_list_enforcement_mode
      │  "class_list_enforcement_mode": "warm",
      │                                 ^^^^^^ did you mean `warn`?

    error[E0103]: unknown component `locule.policy.RefuseComponent`
      ┌─ job_resources.json:5:25   at components.#1.path
      │  {"id": "g", "path": "locule.policy.RefuseComponent", "args": {"names": ["*"]}},
      │                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ did you mean `locule.policy.RefuseComponents`?
      = checkers: locule.policy.RefuseComponents

    error[E0107]: two components have the id `g`
      ┌─ job_resources.json:6:12   at components.#2.id
      │  {"id": "g", "path": "locule.policy.RefuseComponents", "args": {"name": ["*"]}},
      │         ^^^
      ├─ job_resources.json:5:12
      │  {"id": "g", "path": "locule.policy.RefuseComponent", "args": {"names": ["*"]}},
      │         ^^^ the first

    error[E0105]: missing argument `names`, in the arguments of `locule.policy.RefuseComponents`
      ┌─ job_resources.json:6:67   at components.#2.args
      │  …ath": "locule.policy.RefuseComponents", "args": {"name": ["*"]}},
      │                                                   ^^^^^^^^^^^^^^^

    error[E0104]: unknown argument `name`
      ┌─ job_resources.json:6:68   at components.#2.args.name
      │  …th": "locule.policy.RefuseComponents", "args": {"name": ["*"]}},
      │                                                   ^^^^^^ did you mean `names`?
      = arguments: names, reason, code, public

    error[E0108]: `vendor.nn.Trainer` is an executor and cannot stand here
      ┌─ job_resources.json:7:25   at components.#3.path
      │  {"id": "t", "path": "vendor.nn.Trainer"},
      │                      ^^^^^^^^^^^^^^^^^^^ expected: checker
      = executors stand under `executors` of the site's half

    error[E0106]: a component needs an `id`
      ┌─ job_resources.json:8:5   at components.#4
      │  {"path": "nvflare.app_common.resource_managers.gpu_resource_manager.GPUResourceManager"},
      │  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    error[E0402]: checker `h` cannot be used: nothing is registered under that name, and this program opens no files
      ┌─ job_resources.json:9:25   at components.#5.path
      │  {"id": "h", "path": "comp_auth.ComponentChecker"}
      │                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#);
    assert_snapshot!(gates(r#"{
  "components": [
    {"id": "g", "path": "locule.policy.RefuseComponents", "args": {"names": []}},
    {"id": "class-allow-list", "path": "locule.policy.RefuseComponents", "args": {"names": ["x"]}}
  ]
}"#).expect_err("the policy is unusable"), @r#"
    error[E0402]: checker `g` cannot be built: argument `names`: a checker without names would refuse nothing
      ┌─ job_resources.json:3:5   at components.#1
      │  {"id": "g", "path": "locule.policy.RefuseComponents", "args": {"names": []}},
      │  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    error[E0402]: the id `class-allow-list` belongs to the site's class_allow_list
      ┌─ job_resources.json:4:12   at components.#2.id
      │  {"id": "class-allow-list", "path": "locule.policy.RefuseComponents", "args": {"names": ["x"]}}
      │         ^^^^^^^^^^^^^^^^^^
    "#);
}

/// A checker that misbehaves as told.
#[derive(Debug)]
enum Planted {
    Allows,
    Panics,
    Fails,
    Waits(Mutex<Receiver<()>>),
}

impl Checker for Planted {
    fn id(&self) -> &str {
        match self {
            Planted::Allows => "allows",
            Planted::Panics => "panics",
            Planted::Fails => "fails",
            Planted::Waits(_) => "waits",
        }
    }

    fn review_plan(&self, review: &PlanReview<'_>) -> Result<Vec<Verdict>, CheckerError> {
        match self {
            Planted::Allows => {}
            Planted::Panics => panic!("planted in {}", review.site.name),
            Planted::Fails => return Err(CheckerError::Policy("planted".to_owned())),
            Planted::Waits(until) => {
                let _ = until.lock().map(|until| until.recv());
            }
        }
        Ok(review.plan.components().iter().map(|spec| Verdict::allow(spec.path.clone())).collect())
    }
}

fn waiting() -> (Arc<dyn Checker>, Sender<()>) {
    let (sender, receiver) = channel();
    (Arc::new(Planted::Waits(Mutex::new(receiver))), sender)
}

/// Who denied, and why, when these checkers are asked.
fn told(checkers: Vec<Arc<dyn Checker>>, deadline: Duration) -> Vec<(String, String)> {
    let refused = review(trainer(), &occasion(false), &checkers, deadline).expect_err("not all let it pass");
    assert!(refused.findings.iter().all(|denial| denial.code == Denial::CHECKER_FAILED && !denial.public));
    refused.findings.into_iter().map(|denial| (denial.checker, denial.message)).collect()
}

#[test]
fn a_checker_that_panics_or_fails_refuses() {
    let checkers: Vec<Arc<dyn Checker>> =
        vec![Arc::new(Planted::Allows), Arc::new(Planted::Panics), Arc::new(Planted::Fails)];
    assert_eq!(
        told(checkers, Duration::from_secs(60)),
        [
            ("panics".to_owned(), "the checker panicked: planted in hospital-1".to_owned()),
            ("fails".to_owned(), "the checker failed: unusable policy: planted".to_owned()),
        ]
    );
}

#[test]
fn a_checker_that_does_not_answer_in_time_refuses() {
    let (waits, release) = waiting();
    let message = "the checker had no answer within 50ms".to_owned();
    assert_eq!(told(vec![waits], Duration::from_millis(50)), [("waits".to_owned(), message)]);
    drop(release);
}

#[test]
fn checkers_are_asked_at_the_same_time() {
    // Each waits for a word that only the other gives: one after the other, neither would answer.
    #[derive(Debug)]
    struct Meets(Sender<()>, Mutex<Receiver<()>>);
    impl Checker for Meets {
        fn id(&self) -> &str {
            "meets"
        }
        fn review_plan(&self, _: &PlanReview<'_>) -> Result<Vec<Verdict>, CheckerError> {
            let lost = |_| CheckerError::Failed("the other is gone".to_owned());
            self.0.send(()).map_err(|_| CheckerError::Failed("the other is gone".to_owned()))?;
            self.1.lock().map_err(|_| CheckerError::Failed("poisoned".to_owned()))?.recv().map_err(lost)?;
            Ok(Vec::new())
        }
    }
    let ((to_second, from_first), (to_first, from_second)) = (channel(), channel());
    let checkers: Vec<Arc<dyn Checker>> = vec![
        Arc::new(Meets(to_second, Mutex::new(from_second))),
        Arc::new(Meets(to_first, Mutex::new(from_first))),
    ];
    assert!(review(trainer(), &occasion(false), &checkers, Duration::from_secs(60)).is_ok());
}

#[test]
fn a_review_without_checkers_passes() {
    assert!(review(trainer(), &occasion(false), &[], Duration::ZERO).is_ok());
}

#[test]
fn a_file_in_python_is_named_by_a_class_in_it() {
    for (path, class) in [("own_rule.py", "own_rule.ClassName"), ("rules/own.py", "rules.own.ClassName")] {
        let site = format!(
            "{{\"class_allow_list\": [\"*\"], \"components\": [{{\"id\": \"a\", \"path\": \"{path}\"}}]}}"
        );
        let shown = gates(&site).expect_err("it names no class").to_string();
        assert!(shown.contains(&format!("write `{class}`")) && shown.contains(":1:"), "{shown}");
    }
}
