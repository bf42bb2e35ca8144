//! How long five policies take over a plan of 200 components: in this process, and in processes of their own.
//!
//! `cargo run --release -p locule-policy-rego --example speed`; the example `checker` must be built likewise.

#![allow(clippy::print_stdout, reason = "it has nothing else to do")]

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use locule_checker::{CheckerCommand, SiteCheckers, review_document};
use locule_component::*;
use locule_config::Document;
use locule_policy::{Occasion, ask_all, gates_from_site_config};
use locule_policy_rego::Policy;
use serde_json::json;

const COMPONENTS: usize = 200;
const ROUNDS: usize = 50;

/// Five things that sites ask for: names, links anywhere in arguments, a list of filters, sizes, own code.
const POLICIES: [&str; 5] = [
    r#"some c in input.components; some p in ["evil.", "pickle.", "os."]; startswith(c.name, p); at := c.path"#,
    r#"some c in input.components; walk(c.args, [_, v]); is_string(v); startswith(v, "ftp://"); at := c.path"#,
    r#"some c in input.components; c.kind == "filter"; not regex.match(`^speed\.`, c.name); at := c.path"#,
    r#"some c in input.components; c.args.rate > 10; at := c.path"#,
    r#"input.job.byoc; some f in input.files; not endswith(f.path, ".json"); at := f.path"#,
];

fn text(body: &str) -> String {
    format!(
        "package locule\nreview := {{\"allow\": count(deny) == 0, \"deny\": deny}}\n\
         deny contains {{\"code\": \"no\", \"message\": \"no\", \"path\": at}} if {{ {body} }}\n"
    )
}

struct Part;

impl Component for Part {
    const KIND: Kind = Kind::Observer;
    const NAME: &'static str = "speed.Part";
    type Args = serde_json::Map<String, serde_json::Value>;
    fn build(_: Self::Args, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Err(BuildError::Unavailable("nothing is built here".to_owned()))
    }
}

struct Work;

impl Component for Work {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "speed.Work";
    type Args = serde_json::Map<String, serde_json::Value>;
    fn build(_: Self::Args, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Err(BuildError::Unavailable("nothing is built here".to_owned()))
    }
}

fn plan() -> Result<Plan, Box<dyn Error>> {
    let mut registry = Registry::new();
    registry.register::<Part>().register::<Work>();
    let part = |n: usize| {
        let args = json!({ "rate": 0.1, "source": "https://data.example/set", "layers": [64, 32, { "act": "relu" }] });
        json!({ "id": format!("part-{n}"), "path": "speed.Part", "args": args })
    };
    let job = json!({
        "format_version": 2,
        "executors": [{ "tasks": ["train"], "executor": { "path": "speed.Work" } }],
        "components": (1..COMPONENTS).map(part).collect::<Vec<_>>(),
    });
    let document = Document::parse_json("config_fed_client.json", &job.to_string())?;
    Ok(Plan::from_document(&document, Side::Site, &registry)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let plan = plan()?;
    assert_eq!(plan.components().len(), COMPONENTS);
    let site = SiteFacts { name: "s".into(), org: "o".into(), side: Side::Site, workspace: "kit".into() };
    let occasion = Occasion { job: JobFacts::default(), site, phase: Phase::Launch };
    let review = PlanReview {
        plan: &plan,
        config: plan.config(),
        job: &occasion.job,
        site: &occasion.site,
        phase: occasion.phase,
    };

    let mut policies = Vec::new();
    for body in POLICIES {
        policies.push(Policy::parse("p.rego", &text(body))?);
    }
    let here = median(|| {
        for policy in &mut policies {
            let document = review_document(&review, &json!({}))?;
            let verdicts = policy.review(&document)?;
            assert!(verdicts.iter().all(|verdict| verdict.decision == Decision::Allow));
        }
        Ok(())
    })?;
    println!("{COMPONENTS} components, {} policies, in this process: {here:?}", POLICIES.len());

    let dir = tempfile::tempdir()?;
    fs::create_dir_all(dir.path().join("local/custom"))?;
    let mut entries = Vec::new();
    for (number, body) in POLICIES.iter().enumerate() {
        let file = format!("p{number}.rego");
        fs::write(dir.path().join("local/custom").join(&file), text(body))?;
        entries.push(json!({ "id": file, "path": file }));
    }
    let program = std::env::current_exe()?.with_file_name("checker");
    let checkers = SiteCheckers::new(CheckerCommand { program, args: Vec::new(), search_path: "".into() });
    let site = json!({ "class_allow_list": ["*"], "components": entries }).to_string();
    let site = Document::parse_json("job_resources.json", &site)?;
    let count = ConstructionCount::new();
    let cx = BuildCx::new(Side::Site, "s", "", dir.path(), dir.path(), &count);
    let begin = Instant::now();
    let gates = gates_from_site_config(&site, &Registry::new(), &checkers, &cx)?;
    println!("starting {} processes: {:?}", POLICIES.len(), begin.elapsed());
    let supervised = median(|| {
        let gates_again = gates_from_site_config(&site, &Registry::new(), &checkers, &cx)?;
        assert_eq!(gates.len(), gates_again.len());
        let reports = ask_all(&plan, &occasion, &gates_again, Duration::from_secs(10));
        assert!(reports.iter().all(|report| report.outcome.is_ok()));
        Ok(())
    })?;
    println!("in warm processes, reading the site's policy again each time: {supervised:?}");
    Ok(())
}

/// The median duration of many.
fn median(mut work: impl FnMut() -> Result<(), Box<dyn Error>>) -> Result<Duration, Box<dyn Error>> {
    let mut took = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        work()?;
        took.push(begin.elapsed());
    }
    took.sort();
    Ok(took[ROUNDS / 2])
}
