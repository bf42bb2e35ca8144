//! Every case of how nvflare 2.9.0 reads configurations, one row each: what it makes of it, what is made of it here.
//!
//! A row that differs names the heading in `docs/differences.md` that says why. Sections: 3.1 finding files, 3.2 files
//! of a site, 3.3 apps, 3.4 component elements, 3.5 variables, 3.6 metas, 4.3 the list of allowed classes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod apps;
mod files;
#[path = "../../../locule-component/tests/sample/mod.rs"]
mod sample;
mod words;

use std::fs;
use std::path::Path;

use locule_assembly::{AssemblyError, Deployed, assemble, plan};
use locule_component::{Registry, Side};
use locule_config::{Diagnostics, Document, Variables};
use locule_config_file::{ConfigFile, ReadConfigError};
use locule_job::JobMeta;
use locule_kit::{KitError, Workspace, job_resources};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Row {
    section: &'static str,
    what: &'static str,
    nvflare: &'static str,
    ours: String,
    expected: &'static str,
    /// The heading of the page; none where both do the same.
    difference: Option<&'static str>,
}

fn same(section: &'static str, what: &'static str, ours: impl Into<String>, expected: &'static str) -> Row {
    Row { section, what, nvflare: expected, ours: ours.into(), expected, difference: None }
}

fn differs(
    section: &'static str,
    what: &'static str,
    nvflare: &'static str,
    ours: impl Into<String>,
    expected: &'static str,
    heading: &'static str,
) -> Row {
    Row { section, what, nvflare, ours: ours.into(), expected, difference: Some(heading) }
}

#[test]
fn every_case_does_what_the_table_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/differences.md");
    let page = fs::read_to_string(page).unwrap();
    let rows: Vec<Row> = [
        files::files(),
        files::site_files(),
        files::metas(),
        apps::apps(),
        apps::elements(),
        words::variables(),
        words::allow_list(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut wrong = Vec::new();
    for Row { section, what, nvflare, ours, expected, difference } in &rows {
        if ours != expected {
            wrong.push(format!(
                "{section} {what}\n  nvflare:  {nvflare}\n  expected: {expected}\n  ours:     {ours}"
            ));
        }
        match difference {
            Some(heading) if !page.contains(&format!("### {heading}\n")) => {
                wrong.push(format!("{section} {what}: the page has no heading `{heading}`"));
            }
            Some(_) if nvflare == expected => wrong.push(format!("{section} {what}: that is no difference")),
            Some(_) | None => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for section in ["3.1", "3.2", "3.3", "3.4", "3.5", "3.6", "4.3"] {
        assert!(rows.iter().filter(|row| row.section == section).count() >= 5, "{section}");
    }
}

fn site_app(executor: Value) -> Value {
    json!({"format_version": 2, "executors": [{"tasks": ["train"], "executor": executor}]})
}

/// The paths of the components that would be built, warnings behind a plus; or the codes of the mistakes.
fn app(side: Side, config: &Value) -> String {
    app_in(&[("local/resources.json", r#"{"class_allow_list": ["*"]}"#)], side, config)
}

fn app_in(files: &[(&str, &str)], side: Side, config: &Value) -> String {
    let (_kit, deployed) = deployed(files, side, config);
    outcome(&deployed)
}

fn deployed(files: &[(&str, &str)], side: Side, config: &Value) -> (TempDir, Deployed) {
    let kit = kit(files);
    let app_dir = kit.path().join("j/app");
    fs::create_dir_all(app_dir.join("config")).unwrap();
    let half = if side == Side::Site { "client" } else { "server" };
    fs::write(app_dir.join(format!("config/config_fed_{half}.json")), config.to_string()).unwrap();
    let (participant, org, job_id) = ("site-1".into(), "o".into(), "j".into());
    let workspace = Workspace::new(kit.path());
    let meta = json!({});
    (kit, Deployed { side, participant, org, job_id, kit: workspace, app_dir, meta })
}

fn outcome(deployed: &Deployed) -> String {
    let registry: Registry = sample::registry();
    let plan = match plan(deployed, &registry) {
        Ok(plan) => plan,
        Err(AssemblyError::Config(mistakes)) => return codes(&mistakes),
        Err(error) => return error.to_string(),
    };
    match assemble(deployed, &registry) {
        Err(AssemblyError::Policy(mistakes)) => return format!("policy {}", codes(&mistakes)),
        Err(AssemblyError::Refused(refusal)) => return format!("refused {}", refusal.denials[0].1.code),
        Ok(_) | Err(_) => {} // what only a constructor can say is not of this table
    }
    let mut told: Vec<String> = plan.components().iter().map(|spec| spec.path.to_string()).collect();
    told.extend(plan.warnings().iter().map(|warning| format!("+{}", warning.code)));
    told.join(" ")
}

fn codes(mistakes: &Diagnostics) -> String {
    mistakes.iter().map(|mistake| mistake.code).collect::<Vec<_>>().join(" ")
}

fn kit(files: &[(&str, &str)]) -> TempDir {
    let defaults = ["startup/fed_client.json", "startup/fed_server.json", "local/resources.json.default"];
    tree(defaults.map(|file| (file, "{}")).into_iter().chain(files.iter().copied()))
}

fn tree<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in files {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
