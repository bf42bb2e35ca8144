//! A program that runs a checker in a process of its own, which is the same program again.

use std::error::Error;
use std::path::Path;
use std::{env, fs, io};

use locule_checker::{Backend, CheckerCommand, Opening, Reviewer, SiteCheckers, serve};
use locule_component::{BuildCx, ConstructionCount, Registry, Side, Verdict};
use locule_config::Document;
use locule_policy::gates_from_site_config;

/// A language whose one policy is to allow.
struct Allow;

impl Backend for Allow {
    fn name(&self) -> &'static str {
        "rego"
    }
    fn open(&self, _: &Opening) -> Result<Box<dyn Reviewer>, String> {
        Ok(Box::new(Allow))
    }
}

impl Reviewer for Allow {
    fn about(&self) -> String {
        "allows".to_owned()
    }
    fn review(&mut self, _: &str) -> Result<Vec<Verdict>, String> {
        Ok(Vec::new())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "checker") {
        return Ok(serve(arguments, io::stdin(), io::stdout(), &[&Allow])?);
    }
    let kit = tempfile::tempdir()?;
    fs::create_dir_all(kit.path().join("local/custom"))?;
    fs::write(kit.path().join("local/custom/site.rego"), "whatever stands here")?;
    let program = env::current_exe()?;
    let command = CheckerCommand { program, args: vec!["checker".into()], search_path: "".into() };
    let opened = open(kit.path(), "site.rego", &SiteCheckers::new(command.clone()))?;
    assert_eq!(opened, ["class-allow-list", "site"]);
    assert!(open(kit.path(), "another.rego", &SiteCheckers::new(command)).is_err());
    Ok(())
}

fn open(kit: &Path, file: &str, checkers: &SiteCheckers) -> Result<Vec<String>, Box<dyn Error>> {
    let site = serde_json::json!({ "components": [{ "id": "site", "path": file }] }).to_string();
    let site = Document::parse_json("job_resources.json", &site)?;
    let count = ConstructionCount::new();
    let cx = BuildCx::new(Side::Site, "site-1", "", kit, kit, &count);
    let gates = gates_from_site_config(&site, &Registry::new(), checkers, &cx)?;
    Ok(gates.iter().map(|gate| gate.id().to_owned()).collect())
}
