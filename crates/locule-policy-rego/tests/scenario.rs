//! A site whose operator puts `comp_auth.rego` into `local/custom` and names it in `job_resources.json`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use locule_assembly::{AssemblyError, Deployed, Program, assemble_counted};
use locule_checker::{CheckerCommand, SiteCheckers};
use locule_component::*;
use locule_kit::Workspace;
use locule_policy_rego::TEMPLATE;
use serde_json::{Value, json};
use tempfile::TempDir;

struct Trainer;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TrainerArgs {
    #[serde(default)]
    reads: String,
}

impl Component for Trainer {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "locule.demo.Trainer";
    const ALIASES: &'static [&'static str] = &["pet.Trainer"];
    type Args = TrainerArgs;
    fn build(args: TrainerArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Err(BuildError::Unavailable(args.reads))
    }
}

/// A site to which a job is deployed.
struct Site {
    dir: TempDir,
    checkers: SiteCheckers,
    registry: Registry,
}

impl Site {
    fn new(policy: &str, args: Value) -> Site {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["startup", "local/custom", "job-7/app_site-1/config"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let mut program = std::env::current_exe().unwrap(); // examples are built beside the tests
        program.pop();
        program.pop();
        program.push("examples/checker");
        let command = CheckerCommand { program, args: Vec::new(), search_path: "".into() };
        let mut registry = Registry::new();
        registry.register::<Trainer>();
        let site = Site { dir, checkers: SiteCheckers::new(command), registry };
        site.write("startup/fed_client.json", r#"{ "format_version": 2 }"#);
        site.write("local/resources.json", r#"{ "class_allow_list": ["*"] }"#);
        site.write("local/custom/comp_auth.rego", policy);
        let entry = json!({ "id": "comp_checker", "path": "comp_auth.rego", "args": args });
        let named = json!({ "format_version": 2, "components": [entry] });
        site.write("local/job_resources.json", &named.to_string());
        let executor = json!({ "path": "pet.Trainer", "args": { "reads": "/data" } });
        let app = json!({ "format_version": 2, "executors": [{ "tasks": ["train"], "executor": executor }] });
        site.write("job-7/app_site-1/config/config_fed_client.json", &app.to_string());
        site
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.dir.path().join(file), text).unwrap();
    }

    /// How the start of the job ends, and how many constructors ran.
    fn start(&self) -> (AssemblyError, usize) {
        let deployed = Deployed {
            side: Side::Site,
            participant: "site-1".into(),
            org: "zoo".into(),
            job_id: "job-7".into(),
            kit: Workspace::new(self.dir.path()),
            app_dir: self.dir.path().join("job-7/app_site-1"),
            meta: json!({ "name": "talk", "submitter_name": "lead", "submitter_role": "lead" }),
        };
        let constructed = ConstructionCount::new();
        let program = Program { registry: &self.registry, checkers: &self.checkers };
        let error = assemble_counted(&deployed, program, &constructed).unwrap_err();
        (error, constructed.get())
    }

    fn denials(&self) -> Vec<(String, String, String, bool)> {
        let (error, constructed) = self.start();
        assert_eq!(constructed, 0);
        let AssemblyError::Refused(refusal) = error else { panic!("not refused: {error}") };
        let denials = refusal.denials.into_iter().map(|(_, denial)| denial);
        denials.map(|one| (one.checker, one.path.to_string(), one.code, one.public)).collect()
    }
}

#[test]
fn a_policy_in_the_sites_folder_refuses_a_job_and_nothing_of_it_is_built() {
    let refused = Site::new(TEMPLATE, json!({})).denials();
    let place = "executors.#1.executor".to_owned();
    assert_eq!(refused, [("comp_checker".to_owned(), place, "not-agreed".to_owned(), true)]);
}

#[test]
fn a_policy_that_allows_lets_the_job_be_built() {
    let allowing = TEMPLATE.replace("locule.demo.", "locule.nothing.");
    let (error, constructed) = Site::new(&allowing, json!({})).start();
    assert!(matches!(error, AssemblyError::Build(_)), "{error}");
    assert_eq!(constructed, 1);
}

#[test]
fn an_edit_counts_from_the_next_job_on() {
    let site = Site::new(TEMPLATE, json!({}));
    site.denials();
    site.write("local/custom/comp_auth.rego", "package locule\nreview := {\"allow\": true}");
    assert!(matches!(site.start().0, AssemblyError::Build(_)));
    site.write("local/custom/comp_auth.rego", "package locule\nreview := {\"allow\": tru}");
    assert!(matches!(site.start().0, AssemblyError::Policy(_)));
}

#[test]
fn a_policy_sees_the_job_its_files_and_what_the_operator_wrote() {
    let policy = r#"package locule
review := {"allow": count(deny) == 0, "deny": deny}
deny contains {"code": "seen", "message": "seen", "path": file.path} if {
    input.phase == "launch"
    input.job.submitter_role == input.args.role
    input.site.name == "site-1"
    some file in input.files
    file.size > 10
    count(file.sha256) == 64
    some c in input.components
    c.requested == "pet.Trainer"
    c.args.reads == "/data"
    c.element.path == c.aliases[_]
}"#;
    let seen = Site::new(policy, json!({ "role": "lead" })).denials();
    assert_eq!(
        (seen[0].1.as_str(), seen[0].2.as_str(), seen[0].3),
        ("config/config_fed_client.json", "seen", false)
    );
}

#[test]
fn a_policy_that_cannot_count_stops_the_job_and_says_where() {
    let typo = TEMPLATE.replace("input.components", "input.component");
    let (error, constructed) = Site::new(&typo, json!({})).start();
    let AssemblyError::Policy(mistakes) = error else { panic!("{error}") };
    let text = mistakes.to_string();
    assert!(
        text.contains("comp_auth.rego:13:26: `input` has no `component`, ever (did you mean `components`?)"),
        "{text}"
    );
    assert!(text.contains("job_resources.json:1:"), "{text}");
    assert_eq!(constructed, 0);
}

#[test]
fn a_policy_that_goes_wrong_refuses_with_its_reason() {
    let slow = r#"package locule
review := {"allow": count(hits) == 0}
hits := {[x, y] | some x in numbers.range(1, 3000); some y in numbers.range(1, 3000); x * y == 7}"#;
    let hog = r#"package locule
review := {"allow": count(numbers.range(1, 1000000000)) > 0}"#;
    let wrong = "package locule\nreview := {\"allow\": startswith(input.args.x, \"y\")}";
    for (policy, said) in
        [(slow, "(`time_ms`)"), (hog, "ended by signal"), (wrong, "comp_auth.rego:2:42: `startswith`")]
    {
        let site = Site::new(policy, json!({ "x": 1 }));
        let (error, constructed) = site.start();
        let AssemblyError::Refused(refusal) = error else { panic!("not refused: {error}") };
        let denial = &refusal.denials[0].1;
        assert_eq!((denial.code.as_str(), constructed), (Denial::CHECKER_FAILED, 0));
        assert!(denial.message.contains(said), "{}", denial.message);
    }
}
