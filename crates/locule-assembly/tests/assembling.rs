//! Apps in a folder, in the workspace of a site or of a server.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use locule_assembly::{
    Approval, AssemblyError, Deployed, Refusal, assemble, assemble_counted, gates, plan, rehearse, review_app,
};
use locule_audit::{Basis, Entry, Review, records, verify};
use locule_component::{
    Assembled, BuildCx, BuildError, Built, Checker, CheckerError, Component, ConstructionCount, Decision,
    ExecuteError, Executor, Kind, Phase, PlanReview, Registry, Side, Task, TaskCx, Verdict,
};
use locule_fobs::Shareable;
use locule_kit::Workspace;
use locule_policy::RefuseComponents;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Says what it was configured with.
struct Parrot;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ParrotArgs {
    #[serde(default)]
    says: String,
    #[serde(default)]
    dies: bool,
}

impl Component for Parrot {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "pet.Parrot";
    type Args = ParrotArgs;

    fn build(args: ParrotArgs, _cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        if args.dies {
            return Err(BuildError::Argument {
                argument: "dies".into(),
                reason: "it is an ex-parrot".into(),
            });
        }
        Ok(Built::Executor(Box::new(Says(args.says))))
    }
}

struct Says(String);

impl Executor for Says {
    fn execute(&mut self, _: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        let mut result = Shareable::new();
        result.fields.insert("says", self.0.as_str());
        Ok(result)
    }
}

/// Is there to be named by rules.
struct FedAvg;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FedAvgArgs {
    #[expect(dead_code, reason = "only rules look at it")]
    num_rounds: u32,
}

impl Component for FedAvg {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "pet.FedAvg";
    type Args = FedAvgArgs;

    fn build(_: FedAvgArgs, _cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        Err(BuildError::Unavailable("pets have no rounds".to_owned()))
    }
}

/// Sees what checkers are told.
#[derive(Debug, Clone)]
struct Witness;

static SEEN: Mutex<Vec<(String, String, bool)>> = Mutex::new(Vec::new());

#[derive(Deserialize)]
struct NoArgs {}

impl Component for Witness {
    const KIND: Kind = Kind::Checker;
    const NAME: &'static str = "pet.Witness";
    type Args = NoArgs;

    fn build(_: NoArgs, _cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Checker(Arc::new(Witness)))
    }
}

impl Checker for Witness {
    fn id(&self) -> &str {
        "witness"
    }

    fn review_plan(&self, review: &PlanReview<'_>) -> Result<Vec<Verdict>, CheckerError> {
        let (job, site) = (review.job, review.site);
        SEEN.lock().unwrap().push((job.submitter_name.clone(), site.name.clone(), job.byoc));
        Ok(Vec::new())
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<Parrot>().register::<FedAvg>().register::<Witness>().register::<RefuseComponents>();
    registry
}

/// A workspace in which an app of a site lies.
struct Site {
    dir: TempDir,
}

impl Site {
    fn new(executors: Value) -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        for folder in ["startup", "local", "job-7/app_site-1/config"] {
            fs::create_dir_all(site.dir.path().join(folder)).unwrap();
        }
        site.write("startup/fed_client.json", &json!({ "format_version": 2 }).to_string());
        site.write("local/resources.json", r#"{ "class_allow_list": ["*"] }"#);
        let config = json!({ "format_version": 2, "greeting": "hello", "executors": executors });
        site.write("job-7/app_site-1/config/config_fed_client.json", &config.to_string());
        site
    }

    fn of(parrot: Value) -> Self {
        Self::new(json!([{ "tasks": ["talk"], "executor": { "path": "pet.Parrot", "args": parrot } }]))
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.dir.path().join(file), text).unwrap();
    }

    fn checkers(&self, checkers: Value) {
        let config = json!({ "format_version": 2, "components": checkers });
        self.write("local/job_resources.json", &config.to_string());
    }

    fn deployed(&self) -> Deployed {
        Deployed {
            side: Side::Site,
            participant: "site-1".into(),
            org: "zoo".into(),
            job_id: "job-7".into(),
            kit: Workspace::new(self.dir.path()),
            app_dir: self.dir.path().join("job-7/app_site-1"),
            meta: json!({ "name": "talk", "submitter_name": "lead" }),
        }
    }

    /// Reviews the app as when it arrives, and keeps what was approved.
    fn deploy(&self) {
        let deployed = self.deployed();
        let approval = review_app(&deployed, &deployed.app_dir, Phase::Deploy, &registry()).unwrap();
        approval.write(&self.dir.path().join("job-7")).unwrap();
    }

    /// What the log says of reviews.
    fn reviews(&self) -> Vec<Review> {
        let log = self.dir.path().join("state");
        assert!(verify(&log, None).unwrap().is_good());
        let entries = records(&log).unwrap().map(|line| line.unwrap().record.unwrap().entry);
        let reviews = entries.map(|entry| {
            let Entry::Review(review) = entry else { panic!("{entry:?}") };
            *review
        });
        reviews.collect()
    }

    /// Phase, basis and decision of every review in the log.
    fn decisions(&self) -> Vec<(Phase, Basis, Decision)> {
        self.reviews().iter().map(|review| (review.phase, review.basis, review.decision)).collect()
    }

    /// What came of it, and how many constructors ran.
    fn assemble(&self) -> (Result<Assembled, AssemblyError>, usize) {
        let count = ConstructionCount::new();
        let outcome = assemble_counted(&self.deployed(), &registry(), &count);
        (outcome, count.get())
    }
}

fn refusal(outcome: Result<Assembled, AssemblyError>) -> Refusal {
    match outcome {
        Err(AssemblyError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn an_app_becomes_components_that_work_and_variables_are_substituted() {
    let site = Site::of(json!({ "says": "{greeting} from {SITE_NAME} in {JOB_ID}" }));
    let (assembled, built) = site.assemble();
    let mut assembled = assembled.unwrap();
    assert_eq!(built, 1);
    let context = locule_component::RunContext::new("site-1", "job-7").open();
    let abort = locule_component::AbortFlag::new();
    let cx = TaskCx { site: "site-1", job_id: "job-7", abort: &abort, context: &context };
    let task = Task { name: "talk".into(), id: "1".into(), data: Shareable::new() };
    let result = assembled.executors.find("talk").unwrap().execute(&task, &cx).unwrap();
    assert_eq!(result.fields.str("says"), Some("hello from site-1 in job-7"));
}

#[test]
fn a_refused_plan_constructs_nothing() {
    let site = Site::new(json!([
        { "tasks": ["a"], "executor": { "path": "pet.Parrot", "args": {} } },
        { "tasks": ["b"], "executor": { "path": "pet.Parrot", "args": { "dies": true } } }
    ]));
    site.checkers(json!([{ "id": "no-pets", "path": "locule.policy.RefuseComponents",
        "args": { "names": ["pet.*"], "reason": "no pets in the house", "code": "house-rule" } }]));
    let (outcome, built) = site.assemble();
    let text = outcome.as_ref().unwrap_err().to_string();
    assert_eq!((text.as_str(), built), ("refused: no pets in the house", 0));

    let refusal = refusal(outcome);
    assert_eq!(refusal.denials.len(), 2, "each component is judged");
    let (name, denial) = &refusal.denials[1];
    assert_eq!(name.as_deref(), Some("pet.Parrot"));
    assert_eq!((denial.file.as_str(), denial.code.as_str()), ("config_fed_client.json", "house-rule"));
    assert_eq!(denial.path.as_str(), "executors.#2.executor");
}

#[test]
fn the_built_in_allow_list_refuses_too_and_counts_from_the_next_job_on() {
    let site = Site::of(json!({}));
    assert!(site.assemble().0.is_ok());
    site.write("local/resources.json", r#"{ "class_allow_list": ["vendor."] }"#);
    let (outcome, built) = site.assemble();
    assert_eq!((refusal(outcome).denials[0].1.code.as_str(), built), ("not-on-allow-list", 0));
}

#[test]
fn checkers_are_told_whose_job_it_is_and_where_it_is_to_run() {
    let site = Site::of(json!({}));
    site.checkers(json!([{ "id": "w", "path": "pet.Witness", "args": {} }]));
    site.assemble().0.unwrap();
    fs::create_dir(site.dir.path().join("job-7/app_site-1/custom")).unwrap();
    site.assemble().0.unwrap();
    let told = |byoc| ("lead".to_owned(), "site-1".to_owned(), byoc);
    assert_eq!(*SEEN.lock().unwrap(), [told(false), told(true)]);
}

#[test]
fn mistakes_in_the_configuration_are_listed_all_at_once() {
    let site = Site::new(json!([
        { "tasks": ["a"], "executor": { "path": "pet.Parot", "args": {} } },
        { "tasks": ["b"], "executor": { "path": "pet.Parrot", "args": { "sais": "hello" } } },
        { "tasks": [], "executor": { "path": "pet.Parrot", "args": { "dies": 1 } } }
    ]));
    let (outcome, built) = site.assemble();
    let Err(AssemblyError::Config(mistakes)) = outcome else { panic!("no mistakes") };
    assert!(mistakes.len() >= 4, "{mistakes}");
    let text = mistakes.to_string();
    for word in ["pet.Parot", "sais", "dies", "tasks", "config_fed_client.json"] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
    assert_eq!(built, 0);
    assert!(matches!(plan(&site.deployed(), &registry()), Err(AssemblyError::Config(_))));
}

#[test]
fn an_unknown_variable_is_a_mistake_of_the_configuration() {
    let site = Site::of(json!({ "says": "{SITE_NAM}" }));
    let text = site.assemble().0.unwrap_err().to_string();
    assert!(text.contains("SITE_NAM") && text.contains("SITE_NAME"), "{text}");
}

#[test]
fn a_kit_opens_with_the_rules_of_the_readme() {
    let readme = include_str!("../../../README.md");
    let rules = readme.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let rules = rules.filter(|text| text.contains("component_rules")).collect::<Vec<_>>();
    let [rules] = rules[..] else { panic!("the README has one example of rules") };
    for file in ["local/resources.json", "local/job_resources.json"] {
        let site = Site::of(json!({}));
        site.write("local/resources.json", r#"{ "format_version": 2 }"#);
        site.write(file, rules);
        let opened = gates(&Workspace::new(site.dir.path()), Side::Site, "site-1", &registry());
        let opened = opened.unwrap_or_else(|error| panic!("{file}: {error}"));
        let ids: Vec<&str> = opened.iter().map(|gate| gate.id()).collect();
        assert_eq!(ids, ["class-allow-list", "component-rules"], "{file}");
    }
}

#[test]
fn a_misspelt_key_of_the_policy_is_a_mistake_and_no_other_key_is() {
    let open = |key: &str| {
        let site = Site::of(json!({}));
        site.write("local/resources.json", &json!({ "class_allow_list": ["*"], key: [] }).to_string());
        gates(&Workspace::new(site.dir.path()), Side::Site, "site-1", &registry())
    };
    for (key, meant) in [
        ("component_rule", "component_rules"),
        ("compnent_rules", "component_rules"),
        ("component_rulez", "component_rules"),
        ("Component_Rules", "component_rules"),
        ("rules", "component_rules"),
        ("component", "components"),
        ("allow_list", "class_allow_list"),
        ("class_alow_list", "class_allow_list"),
        ("environment_allowlist", "environment_allow_list"),
        ("allow_job_check", "allow_job_checks"),
    ] {
        let shown = open(key).unwrap_err().to_string();
        assert!(shown.contains(&format!("unknown key `{key}`")), "{key}: {shown}");
        assert!(shown.contains(&format!("did you mean `{meant}`?")), "{key}: {shown}");
        assert!(shown.contains("resources.json:1:"), "{key}: {shown}");
    }
    // Keys of nvflare's kits.
    for key in
        ["client", "servers", "handlers", "retry_timeout", "admin", "snapshot_persistor", "app_validator"]
    {
        open(key).unwrap_or_else(|error| panic!("{key}: {error}"));
    }
}

#[test]
fn a_mistake_in_the_sites_policy_stops_every_job() {
    for checkers in [
        json!([{ "id": "typo", "path": "locule.policy.RefuseComponent", "args": { "names": ["x"] } }]),
        json!([{ "id": "typo", "path": "locule.policy.RefuseComponents", "args": { "name": ["x"] } }]),
        json!([{ "id": "empty", "path": "locule.policy.RefuseComponents", "args": { "names": [] } }]),
    ] {
        let site = Site::of(json!({}));
        site.checkers(checkers);
        let (outcome, built) = site.assemble();
        assert!(matches!(outcome, Err(AssemblyError::Policy(_))), "{outcome:?}");
        assert_eq!(built, 0);
    }
    let site = Site::of(json!({}));
    site.write("local/job_resources.json", "{ \"components\": [");
    let (outcome, built) = site.assemble();
    assert!(matches!(outcome, Err(AssemblyError::Kit(_))), "{outcome:?}");
    assert_eq!(built, 0);
}

#[test]
fn what_a_constructor_says_is_told_with_its_place() {
    let text = Site::of(json!({ "dies": true })).assemble().0.unwrap_err().to_string();
    assert!(text.contains("ex-parrot") && text.contains("executors.#1.executor"), "{text}");
}

#[test]
fn a_file_that_is_missing_or_no_text_or_too_long_is_an_error() {
    let site = Site::of(json!({}));
    let file = "job-7/app_site-1/config/config_fed_client.json";
    let path: &Path = &site.dir.path().join(file);
    fs::remove_file(path).unwrap();
    let error = site.assemble().0.unwrap_err();
    assert!(matches!(&error, AssemblyError::Read { file, .. } if file == path), "{error}");
    fs::write(path, [0xff, 0xfe]).unwrap();
    assert!(matches!(site.assemble().0, Err(AssemblyError::Read { .. })));
    fs::write(path, " ".repeat(2 << 20)).unwrap();
    assert!(matches!(site.assemble().0, Err(AssemblyError::Config(_))));
}

#[test]
fn an_app_may_be_written_in_hocon_or_yaml_and_lie_deeper() {
    let hocon = "format_version = 2 # of the file\nvoice = loud\nexecutors = [{\n  tasks = [talk, \"sing*\"]\n  \
                 executor { path = pet.Parrot, args { says = \"{voice} at {SITE_NAME}\" } }\n}]\n";
    let yaml = "format_version: 2\nvoice: loud\nexecutors:\n- tasks: [talk, 'sing*']\n  executor:\n    \
                path: pet.Parrot\n    args: {says: '{voice} at {SITE_NAME}'}\n";
    let json = r#"{"format_version": 2, "voice": "loud", "executors": [{"tasks": ["talk", "sing*"],
        "executor": {"path": "pet.Parrot", "args": {"says": "{voice} at {SITE_NAME}"}}}]}"#;
    let mut digests = Vec::new();
    for (name, text) in [
        ("config_fed_client.conf", hocon),
        ("config_fed_client.yml", yaml),
        ("config_fed_client.yaml", yaml),
        ("config_fed_client.json", json),
        ("config_fed_client.conf.default", hocon),
        ("sub/config_fed_client.json.default", json),
    ] {
        let site = Site::of(json!({}));
        let folder = "job-7/app_site-1/config";
        fs::remove_file(site.dir.path().join(folder).join("config_fed_client.json")).unwrap();
        fs::create_dir(site.dir.path().join(folder).join("sub")).unwrap();
        site.write(&format!("{folder}/{name}"), text);
        let plan = plan(&site.deployed(), &registry()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let said = &plan.components()[0].args["says"];
        assert_eq!(said, "loud at site-1", "{name}");
        assert_eq!(plan.components()[0].file, name.rsplit('/').next().unwrap());
        digests.push(plan.digest().clone());
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "a plan is the same in any language");
}

#[test]
fn of_the_environment_a_job_sees_what_the_site_lists() {
    let site = Site::of(json!({ "says": "{$CARGO_PKG_NAME} {$CARGO_PKG_VERSION}" }));
    let outcome = plan(&site.deployed(), &registry());
    let Err(AssemblyError::Config(mistakes)) = outcome else { panic!("nothing is listed") };
    assert_eq!(mistakes.iter().next().unwrap().code, locule_config::code::UNKNOWN_VARIABLE);
    site.write(
        "local/resources.json",
        r#"{"class_allow_list": ["*"], "environment_allow_list": ["CARGO_PKG_V*", "CARGO_PKG_NAME"]}"#,
    );
    let plan_seen = plan(&site.deployed(), &registry()).unwrap();
    let said = plan_seen.components()[0].args["says"].as_str().unwrap();
    assert_eq!(said, concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")));
    site.write("local/resources.json", r#"{"environment_allow_list": "HOME"}"#);
    assert!(matches!(plan(&site.deployed(), &registry()), Err(AssemblyError::Policy(_))));
}

#[test]
fn what_a_job_sets_besides_its_components_comes_along() {
    let site = Site::of(json!({}));
    let config = json!({ "format_version": 2, "task_check_interval": 0.5, "job_heartbeat_interval": "{beat}",
        "beat": 7, "executors": [{ "tasks": ["talk"], "executor": { "path": "pet.Parrot" } }] });
    site.write("job-7/app_site-1/config/config_fed_client.json", &config.to_string());
    let settings = site.assemble().0.unwrap().settings;
    assert_eq!(settings.wait("task_check_interval"), Some(Duration::from_millis(500)));
    assert_eq!(settings.wait("job_heartbeat_interval"), Some(Duration::from_secs(7)));
    assert_eq!(settings.wait("max_runner_sync_timeout"), None);
}

#[test]
fn the_servers_half_is_read_from_the_servers_files() {
    let site = Site::of(json!({}));
    let server = Deployed { side: Side::Server, ..site.deployed() };
    let error = assemble(&server, &registry()).unwrap_err();
    assert!(matches!(error, AssemblyError::Kit(_)), "there is no fed_server.json here: {error}");
    site.write("startup/fed_server.json", r#"{ "format_version": 2 }"#);
    let error = assemble(&server, &registry()).unwrap_err();
    assert!(error.to_string().contains("config_fed_server.json"), "{error}");
}

#[test]
fn a_start_of_what_was_approved_is_compared_and_not_reviewed_again() {
    let site = Site::of(json!({ "says": "hello" }));
    site.deploy();
    assert_eq!(site.assemble().1, 1);
    let mut started = site.deployed();
    started.meta["job_clients"] = json!([{ "name": "site-1" }]);
    started.meta["status"] = "DISPATCHED".into();
    assemble(&started, &registry()).unwrap();
    let compared = (Phase::Launch, Basis::Comparison, Decision::Allow);
    let reviewed = (Phase::Deploy, Basis::Review, Decision::Allow);
    assert_eq!(site.decisions(), [reviewed, compared, compared]);
}

#[test]
fn a_policy_that_changed_meanwhile_is_asked_anew() {
    let site = Site::of(json!({}));
    site.deploy();
    site.checkers(json!([{ "id": "no-pets", "path": "locule.policy.RefuseComponents", "args": { "names": ["pet.*"] } }]));
    let (outcome, built) = site.assemble();
    assert_eq!((refusal(outcome).denials[0].1.code.as_str(), built), ("component-refused", 0));
    let last = (Phase::Launch, Basis::Review, Decision::Deny);
    assert_eq!(site.decisions().last(), Some(&last));

    let site = Site::of(json!({}));
    fs::create_dir(site.dir.path().join("local/custom")).unwrap();
    site.deploy();
    site.write("local/custom/rules.py", "# imported by a checker");
    assert_eq!(site.assemble().1, 1);
    let last = (Phase::Launch, Basis::Review, Decision::Allow);
    assert_eq!(site.decisions().last(), Some(&last), "what a checker imports is part of the policy");
}

#[test]
fn what_only_the_start_brings_is_reviewed_then() {
    let site = Site::of(json!({ "says": "{SITE_NAME}" }));
    site.deploy();
    let mut started = site.deployed();
    started.meta["submitter_name"] = "somebody else".into();
    assemble(&started, &registry()).unwrap();
    let mut renamed = site.deployed();
    renamed.participant = "site-9".into();
    assemble(&renamed, &registry()).unwrap();
    let reviewed = (Phase::Launch, Basis::Review, Decision::Allow);
    assert_eq!(site.decisions()[1..], [reviewed, reviewed]);
}

#[test]
fn an_app_that_was_changed_after_its_approval_is_refused_and_what_differs_is_told() {
    const CONFIG: &str = "job-7/app_site-1/config/config_fed_client.json";
    type Edit = fn(&Site);
    let edits: [(&str, Edit); 4] = [
        ("`config/config_fed_client.json` was edited", |site| {
            let file = site.dir.path().join(CONFIG);
            let text = fs::read_to_string(&file).unwrap().replace("hello", "other");
            fs::write(file, text).unwrap();
        }),
        ("`config/note.txt` is new", |site| site.write("job-7/app_site-1/config/note.txt", "")),
        ("`custom/net.py` is gone", |site| {
            fs::remove_file(site.dir.path().join("job-7/app_site-1/custom/net.py")).unwrap();
        }),
        ("`custom/net.py` was edited", |site| site.write("job-7/app_site-1/custom/net.py", "import os")),
    ];
    for (told, edit) in edits {
        let site = Site::of(json!({ "says": "hello" }));
        fs::create_dir(site.dir.path().join("job-7/app_site-1/custom")).unwrap();
        site.write("job-7/app_site-1/custom/net.py", "");
        site.deploy();
        edit(&site);
        let (outcome, built) = site.assemble();
        let refusals = refusal(outcome).for_submitter("site-1");
        assert_eq!((refusals.len(), refusals[0].code.as_str(), built), (1, "plan-changed", 0));
        let told = format!("the app was changed after it was approved: {told}");
        assert_eq!(refusals[0].reason, told);
        let last = (Phase::Launch, Basis::Comparison, Decision::Deny);
        assert_eq!(site.decisions().last(), Some(&last));
    }
    let site = Site::of(json!({}));
    site.deploy();
    site.write("job-7/approval.json", "{}");
    assert!(
        matches!(site.assemble().0, Err(AssemblyError::Read { file, .. }) if file.ends_with(Approval::FILE))
    );
}

#[test]
fn an_app_is_reviewed_where_it_lies_as_if_it_lay_at_its_place() {
    let site = Site::of(json!({ "says": "{JOB_CONFIG_DIR}" }));
    let (place, elsewhere) = (site.deployed().app_dir, site.dir.path().join(".making"));
    fs::rename(&place, &elsewhere).unwrap();
    let approval = review_app(&site.deployed(), &elsewhere, Phase::Deploy, &registry()).unwrap();
    fs::rename(&elsewhere, &place).unwrap();
    assert_eq!(plan(&site.deployed(), &registry()).unwrap().digest(), &approval.plan);
}

#[test]
fn every_verdict_is_in_the_log_with_its_checkers_components_and_findings() {
    let site = Site::of(json!({ "says": "hello" }));
    let checker = json!([{ "id": "no-pets", "path": "locule.policy.RefuseComponents",
        "args": { "names": ["pet.*"], "reason": "no pets", "public": false } }]);
    site.checkers(checker);
    refusal(site.assemble().0);
    let [review] = &site.reviews()[..] else { panic!("one review") };
    assert_eq!((review.job.as_str(), review.submitter.name.as_str()), ("job-7", "lead"));
    assert_eq!((review.participant.as_str(), review.phase), ("site-1", Phase::Launch));
    assert_eq!(review.plan, plan(&site.deployed(), &registry()).unwrap().digest().as_str());
    let ids: Vec<_> = review.checkers.iter().map(|one| (one.id.as_str(), one.back_end.as_str())).collect();
    assert_eq!(ids, [("class-allow-list", "built-in"), ("no-pets", "built-in")]);
    let component = &review.components[0];
    assert_eq!((component.path.as_str(), component.verdict), ("executors.#1.executor", Decision::Deny));
    assert_eq!((component.codes.len(), component.digest.len()), (1, 64));
    assert_eq!((review.findings[0].message.as_str(), review.findings[0].public), ("no pets", false));
    assert_eq!(review.decision, Decision::Deny);
}

#[test]
fn a_verdict_that_cannot_be_recorded_refuses() {
    let site = Site::of(json!({}));
    site.write("state", "a file where the folder of the log should be");
    let (outcome, built) = site.assemble();
    assert!(matches!(outcome, Err(AssemblyError::Audit(_))));
    assert_eq!(built, 0);

    let site = Site::of(json!({}));
    site.assemble().0.unwrap();
    site.write("state/audit.jsonl", "{\"seq\":1}\n");
    assert!(
        matches!(site.assemble().0, Err(AssemblyError::Audit(_))),
        "nobody writes behind a forged record"
    );
}

#[test]
fn a_rehearsal_judges_and_leaves_no_trace() {
    let site = Site::of(json!({}));
    let passed = rehearse(&site.deployed(), &registry()).unwrap();
    assert_eq!(passed.plan.digest(), plan(&site.deployed(), &registry()).unwrap().digest());
    site.write("local/resources.json", r#"{ "class_allow_list": ["vendor."] }"#);
    assert!(matches!(rehearse(&site.deployed(), &registry()), Err(AssemblyError::Refused(_))));
    assert!(!site.dir.path().join("state").exists());
}
