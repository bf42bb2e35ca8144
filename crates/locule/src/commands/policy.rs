//! `locule policy`: what a site refuses, written, checked, tested and explained before it counts.

mod replay;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use locule_admin::{Rights, RightsError};
use locule_assembly::{AssemblyError, Deployed, Program};
use locule_component::{CheckerOrigin, CheckerReport, Decision, Plan, Registry, Side, Verdict, one_line};
use locule_config::{Diagnostic, Diagnostics};
use locule_job::JobFolder;
use locule_kit::Workspace;
use locule_policy_rego::{TEMPLATE, TEST_TEMPLATE, TestReport};
use serde_json::json;

use super::say;
use crate::arguments::{CheckPolicy, ExplainPolicy, NewPolicy, Output, Policy, TestPolicy};
use crate::exit::{Code, Failure, OrExit as _};
use crate::{logs, wire};

/// Does what the command line says.
pub(crate) fn policy(arguments: &Policy, verbose: u8) -> Result<(), Failure> {
    logs::to_stderr(logs::Default::Warn, verbose);
    match arguments {
        Policy::New(arguments) => new(arguments),
        Policy::Check(arguments) => check(arguments),
        Policy::Test(arguments) => test(arguments),
        Policy::Explain(arguments) => explain(arguments),
        Policy::Replay(arguments) => replay::replay(arguments),
    }
}

fn new(arguments: &NewPolicy) -> Result<(), Failure> {
    let NewPolicy { name, kit } = arguments;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(plain) || name.ends_with("_test") {
        let error =
            anyhow!("{name:?} cannot be the name of a policy: letters, digits, _ and -, without `_test`");
        return Err(Failure::new(Code::Usage, error));
    }
    let folder = match kit {
        Some(kit) => {
            side_of(kit)?;
            custom(kit)
        }
        None => PathBuf::new(),
    };
    let files = [(format!("{name}.rego"), TEMPLATE), (format!("{name}_test.rego"), TEST_TEMPLATE)];
    if let Some((taken, _)) = files.iter().find(|(file, _)| folder.join(file).exists()) {
        let error = anyhow!("{} exists, and is left as it is", folder.join(taken).display());
        return Err(Failure::new(Code::CannotCreate, error));
    }
    if kit.is_some() {
        fs::create_dir_all(&folder).with_context(|| cannot_write(&folder)).or_exit(Code::CannotCreate)?;
    }
    for (file, text) in &files {
        let path = folder.join(file);
        let written = File::create_new(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| cannot_write(&path)).or_exit(Code::CannotCreate)?;
        say(&format!("wrote {}", path.display()));
    }
    let entry = json!({ "id": name, "path": format!("{name}.rego") });
    let place = kit.as_ref().map_or(Path::new("KIT").to_owned(), Clone::clone);
    let policy = folder.join(&files[0].0);
    say(&format!(
        "\nmake it yours, and see that it does what you mean:\n  locule policy test {}",
        policy.display()
    ));
    if kit.is_none() {
        say("then copy it into local/custom of the kit");
    }
    say(&format!(
        "put it in force by an entry under `components` in {}:\n  {{ \"format_version\": 2, \"components\": [ {entry} ] }}",
        place.join("local/job_resources.json").display(),
    ));
    say(
        "with \"mode\": \"audit\" in the entry it refuses nothing yet, and its verdicts are in the audit log",
    );
    Ok(())
}

fn check(arguments: &CheckPolicy) -> Result<(), Failure> {
    let kit = &arguments.kit;
    let side = side_of(kit)?;
    let (registry, checkers) = (wire::registry(), wire::checkers()?);
    let program = Program { registry: &registry, checkers: &*checkers };
    let opened = locule_assembly::gates(&Workspace::new(kit), side, participant(side, kit, None), program);
    let (gates, mut mistakes) = match opened {
        Ok(gates) => (gates, Vec::new()),
        Err(AssemblyError::Policy(mistakes)) => (Vec::new(), in_full(&mistakes, &custom(kit))),
        Err(error) => return Err(Failure::new(Code::Config, error)),
    };
    mistakes.extend(mistakes_beside_gates(kit, side, &registry)?);
    let gates: Vec<(String, CheckerOrigin)> =
        gates.iter().map(|gate| (gate.id().to_owned(), gate.origin())).collect();
    let unused = if mistakes.is_empty() { unused(kit, &gates) } else { Vec::new() };
    match arguments.output {
        Output::Text => {
            gates.iter().for_each(|(id, origin)| say(&format!("{id}  {}", about(origin))));
            unused.iter().for_each(|file| say(&format!("local/custom/{file} is there, but no gate uses it")));
        }
        Output::Json => {
            let gates = gates.iter().map(
                |(id, origin)| json!({ "id": id, "back_end": origin.back_end, "sha256": origin.digest }),
            );
            let mistakes = mistakes.iter().map(mistake_json);
            let shown = json!({
                "gates": gates.collect::<Vec<_>>(),
                "unused": unused,
                "mistakes": mistakes.collect::<Vec<_>>(),
            });
            say(&shown.to_string());
        }
    }
    if mistakes.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = mistakes.iter().map(Diagnostic::to_string).collect();
    let count = shown.len();
    let error = anyhow!(
        "the policy cannot be used, and nothing runs until it is mended\n\n{}\n\n{count} mistake{}",
        shown.join("\n\n"),
        if count == 1 { "" } else { "s" },
    );
    Err(Failure::new(Code::Config, error))
}

/// Those in what else a participant reads at its start: `privacy.json` and `authorization.json`.
fn mistakes_beside_gates(kit: &Path, side: Side, registry: &Registry) -> Result<Vec<Diagnostic>, Failure> {
    let mut mistakes = Vec::new();
    match locule_assembly::privacy_scopes(&Workspace::new(kit), side, registry) {
        Ok(_) => {}
        Err(AssemblyError::Policy(found)) => mistakes.extend(found.iter().cloned()),
        Err(error) => return Err(Failure::new(Code::Config, error)),
    }
    match Rights::find(&kit.join("local")) {
        Ok(_) => {}
        Err(RightsError::Policy { mistakes: found, .. }) => mistakes.extend(found.iter().cloned()),
        Err(error) => return Err(Failure::new(Code::Config, error)),
    }
    Ok(mistakes)
}

/// The mistakes, where a policy in Rego cannot be read with all of its own in its place.
fn in_full(mistakes: &Diagnostics, custom: &Path) -> Vec<Diagnostic> {
    let mut told = Vec::new();
    for mistake in mistakes {
        let policy =
            policies(custom).into_iter().find(|name| mistake.message.contains(&format!(": {name}:")));
        let own = policy.and_then(|name| {
            let text = fs::read_to_string(custom.join(&name)).ok()?;
            locule_policy_rego::Policy::parse(&format!("local/custom/{name}"), &text).err()
        });
        match own {
            Some(own) => told.extend(own.iter().cloned()),
            None => told.push(mistake.clone()),
        }
    }
    told
}

/// Memory for all tests, in bytes.
const TEST_MEMORY: u64 = 1 << 30;
/// Processor time for all tests, in seconds; the system ends a process that takes more.
const TEST_CPU: u64 = 60;

fn test(arguments: &TestPolicy) -> Result<(), Failure> {
    let what = &arguments.what;
    let files: Vec<PathBuf> = if what.is_dir() {
        side_of(what)?;
        policies(&custom(what)).iter().map(|name| custom(what).join(name)).collect()
    } else {
        vec![what.clone()]
    };
    if files.is_empty() {
        let error = anyhow!("there is no policy in Rego in {}", custom(what).display());
        return Err(Failure::new(Code::NoInput, error));
    }
    locule_checker::limit_this_process(TEST_MEMORY, TEST_CPU)
        .context("cannot limit this process")
        .or_exit(Code::Software)?;
    let mut all_passed = true;
    let mut shown = Vec::new();
    for file in &files {
        let (policy, tests) = (read(file)?, tests_of(file));
        let name = file.display().to_string();
        if !tests.exists() && what.is_dir() {
            all_passed = false;
            shown.push((name, None));
            continue;
        }
        let (tests_name, tests_text) = (tests.display().to_string(), read(&tests)?);
        let report = locule_policy_rego::test((&name, &policy), (&tests_name, &tests_text));
        let report = report.map_err(|mistakes| Failure::new(Code::Data, anyhow!("{mistakes}")))?;
        all_passed &= report.passed();
        shown.push((name, Some(report)));
    }
    match arguments.output {
        Output::Text => shown.iter().for_each(|(name, report)| show_tests(name, report.as_ref())),
        Output::Json => {
            let shown = shown.iter().map(|(name, report)| tests_json(name, report.as_ref()));
            say(&json!({ "passed": all_passed, "policies": shown.collect::<Vec<_>>() }).to_string());
        }
    }
    let ran = |report: &Option<TestReport>| report.as_ref().is_some_and(|report| !report.results.is_empty());
    match all_passed {
        true => Ok(()),
        false if shown.iter().any(|(_, report)| ran(report)) => {
            Err(Failure::new(Code::JobFailed, anyhow!("not every test holds, or a policy has none")))
        }
        false => Err(Failure::new(Code::JobFailed, anyhow!("there are no tests"))),
    }
}

fn show_tests(name: &str, report: Option<&TestReport>) {
    let Some(report) = report else {
        say(&format!("{name}: no tests; they belong into {}", tests_of(Path::new(name)).display()));
        return;
    };
    say(&format!("{name}:{}", if report.results.is_empty() { " no test" } else { "" }));
    for result in &report.results {
        match &result.failure {
            None => say(&format!("  ok    {}", result.name)),
            Some(why) => say(&format!("  fails {} (line {}): {why}", result.name, result.line)),
        }
    }
    for unreached in &report.unreached {
        say(&format!("  no test reaches `{}` in line {}", unreached.rule, unreached.line));
    }
}

fn tests_json(name: &str, report: Option<&TestReport>) -> serde_json::Value {
    let results = report.iter().flat_map(|report| &report.results);
    let results = results.map(|one| json!({ "name": one.name, "line": one.line, "failure": one.failure }));
    let unreached = report.iter().flat_map(|report| &report.unreached);
    let unreached = unreached.map(|one| json!({ "rule": one.rule, "line": one.line }));
    json!({
        "policy": name,
        "tests": results.collect::<Vec<_>>(),
        "unreached": unreached.collect::<Vec<_>>(),
    })
}

fn explain(arguments: &ExplainPolicy) -> Result<(), Failure> {
    let ExplainPolicy { kit, job: folder, path, site, output } = arguments;
    let side = side_of(kit)?;
    let participant = participant(side, kit, site.as_deref());
    let job = JobFolder::read(folder).map_err(|error| Failure::from(error).about(folder))?;
    let Some(app) = job.meta.app_of(participant) else {
        let error = anyhow!("no app of the job goes to {participant}; `--site` names another site");
        return Err(Failure::new(Code::Data, error).about(folder));
    };
    let deployed = Deployed {
        side,
        participant: participant.to_owned(),
        org: String::new(),
        job_id: "job".to_owned(),
        kit: Workspace::new(kit),
        app_dir: job.app_dir(app),
        meta: job.meta.to_json(job.byoc),
    };
    let (registry, checkers) = (wire::registry(), wire::checkers()?);
    let program = Program { registry: &registry, checkers: &*checkers };
    let (plan, reports) = locule_assembly::explain(&deployed, program).map_err(|error| {
        let code = match &error {
            AssemblyError::Config(_) | AssemblyError::Read { .. } => Code::Data,
            AssemblyError::Kit(_) | AssemblyError::Policy(_) | _ => Code::Config,
        };
        Failure::new(code, error)
    })?;
    let place = path.as_deref().unwrap_or_default();
    if !place.is_empty() && !plan.components().iter().any(|spec| lies_in(spec.path.as_str(), place)) {
        let known: Vec<&str> = plan.components().iter().map(|spec| spec.path.as_str()).collect();
        let error = anyhow!("there is no component at {place}; there are {}", known.join(", "));
        return Err(Failure::new(Code::Usage, error));
    }
    match output {
        Output::Text => show_reports(&plan, &reports, place),
        Output::Json => {
            let gates: Vec<_> = reports.iter().map(|report| report_json(report, place)).collect();
            say(&json!({ "plan": plan.digest(), "app": app, "participant": participant, "gates": gates })
                .to_string());
        }
    }
    let reports = reports.into_iter().map(|(_, report)| report).collect();
    match plan.approve(reports) {
        Ok(_) => Ok(()),
        Err(refused) => Err(Failure::new(Code::JobFailed, refused)),
    }
}

fn show_reports(plan: &Plan, reports: &[(CheckerOrigin, CheckerReport)], place: &str) {
    say(&format!("plan {}", plan.digest()));
    for (origin, report) in reports {
        say(&format!("{}  {}", report.checker, about(origin)));
        let verdicts = match &report.outcome {
            Ok(verdicts) => verdicts,
            Err(failure) => {
                say(&format!("  gave no judgement, which refuses: it {failure}"));
                continue;
            }
        };
        for spec in plan.components().iter().filter(|spec| lies_in(spec.path.as_str(), place)) {
            let of_it: Vec<&Verdict> = verdicts.iter().filter(|one| one.component == spec.path).collect();
            if of_it.is_empty() {
                say(&format!("  silent  {}  {}", spec.path, spec.name));
            }
            of_it
                .into_iter()
                .for_each(|verdict| show_verdict(verdict, &format!("{}  {}", spec.path, spec.name)));
        }
        for verdict in verdicts.iter().filter(|one| plan.component(&one.component).is_none()) {
            show_verdict(verdict, "the plan as a whole");
        }
    }
}

fn show_verdict(verdict: &Verdict, subject: &str) {
    let word = match verdict.decision {
        // With findings beside it: `"mode": "audit"` made a permission of a denial.
        Decision::Allow if !verdict.findings.is_empty() => "would deny (audit)",
        Decision::Allow => "allow ",
        Decision::Warn => "warn  ",
        Decision::Deny => "deny  ",
    };
    say(&format!("  {word}  {subject}"));
    for finding in &verdict.findings {
        let public = if finding.public { ", public" } else { "" };
        let message = one_line(&finding.message);
        let place = match finding.path.as_str() {
            "" => String::new(),
            path => format!("{}: ", one_line(path)),
        };
        say(&format!("          {place}{message} [{}{public}]", finding.code));
    }
}

fn report_json((origin, report): &(CheckerOrigin, CheckerReport), place: &str) -> serde_json::Value {
    let (verdicts, failure) = match &report.outcome {
        Ok(verdicts) => (verdicts.as_slice(), None),
        Err(failure) => (&[][..], Some(failure.to_string())),
    };
    let verdicts = verdicts.iter().filter(|verdict| lies_in(verdict.component.as_str(), place));
    json!({
        "id": report.checker,
        "back_end": origin.back_end,
        "sha256": origin.digest,
        "verdicts": verdicts.collect::<Vec<_>>(),
        "failure": failure,
    })
}

fn mistake_json(mistake: &Diagnostic) -> serde_json::Value {
    json!({
        "code": mistake.code, "message": mistake.message, "file": mistake.file, "line": mistake.line,
        "column": mistake.column, "path": mistake.path, "help": mistake.help,
    })
}

/// Whether a component stands at a place or in it; the empty place is everywhere.
fn lies_in(component: &str, place: &str) -> bool {
    let rest = component.strip_prefix(place);
    place.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn about(origin: &CheckerOrigin) -> String {
    match &origin.digest {
        Some(digest) => format!("({}, sha256:{digest})", origin.back_end),
        None => format!("({})", origin.back_end),
    }
}

/// Which sort of kit it is.
fn side_of(kit: &Path) -> Result<Side, Failure> {
    let has = |file: &str| kit.join("startup").join(file).is_file();
    match (has("fed_client.json"), has("fed_server.json")) {
        (true, _) => Ok(Side::Site),
        (false, true) => Ok(Side::Server),
        (false, false) => {
            let code = if kit.is_dir() { Code::Config } else { Code::NoInput };
            Err(Failure::new(code, anyhow!("{} is no startup kit of a site or server", kit.display())))
        }
    }
}

fn participant<'a>(side: Side, kit: &'a Path, named: Option<&'a str>) -> &'a str {
    let folder = kit.file_name().and_then(|name| name.to_str()).unwrap_or("site");
    match side {
        Side::Server => "server",
        Side::Site => named.unwrap_or(folder),
    }
}

fn custom(kit: &Path) -> PathBuf {
    kit.join("local").join("custom")
}

/// Names of the policies in Rego in a folder, sorted.
fn policies(custom: &Path) -> Vec<String> {
    let names = names_in(custom).into_iter();
    names.filter(|name| name.ends_with(".rego") && !name.ends_with("_test.rego")).collect()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Policies and modules that lie in `local/custom` and are the file of no gate.
fn unused(kit: &Path, gates: &[(String, CheckerOrigin)]) -> Vec<String> {
    let is_used = |name: &String| {
        let digest = fs::read(custom(kit).join(name)).map(|text| locule_checker::digest(&text)).ok();
        gates.iter().any(|(_, origin)| origin.digest.is_some() && origin.digest == digest)
    };
    let judges =
        |name: &String| (name.ends_with(".rego") && !name.ends_with("_test.rego")) || name.ends_with(".wasm");
    names_in(&custom(kit)).into_iter().filter(|name| judges(name) && !is_used(name)).collect()
}

fn tests_of(policy: &Path) -> PathBuf {
    let stem = policy.file_stem().unwrap_or_default().display();
    policy.with_file_name(format!("{stem}_test.rego"))
}

fn read(file: &Path) -> Result<String, Failure> {
    fs::read_to_string(file).map_err(|error| {
        let code = if error.kind() == io::ErrorKind::InvalidData { Code::Data } else { Code::NoInput };
        Failure::new(code, anyhow::Error::new(error).context(format!("cannot read {}", file.display())))
    })
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn privacy_and_rights_are_read_as_at_a_start() {
        let kit = tempfile::tempdir().unwrap();
        fs::create_dir_all(kit.path().join("local")).unwrap();
        let registry = wire::registry();
        let mistakes = |file: &str, text: &str| {
            fs::write(kit.path().join("local").join(file), text).unwrap();
            let found = mistakes_beside_gates(kit.path(), Side::Site, &registry);
            fs::remove_file(kit.path().join("local").join(file)).unwrap();
            found
                .unwrap_or_else(|failure| panic!("{}", failure.text()))
                .iter()
                .map(Diagnostic::to_string)
                .collect()
        };
        let privacy = |scope: &str, rest: &str| {
            let text = format!(r#"{{ "scopes": [ {{ "name": "public"{scope} }} ]{rest} }}"#);
            let found: Vec<String> = mistakes("privacy.json", &text);
            found.join("\n")
        };
        assert_eq!(privacy("", r#", "default_scope": "public""#), "");
        for (shown, what) in [
            (privacy("", r#", "default_scop": "public""#), "did you mean `default_scope`?"),
            (privacy("", r#", "default_scope": "secret""#), "`secret` does not exist"),
            (
                privacy(r#", "task_result_filters": [{ "path": "no.Filter" }]"#, ""),
                "unknown component `no.Filter`",
            ),
            (
                privacy(
                    r#", "task_result_filters": [{ "path": "locule.filter.ExcludeVars", "args": { "fly": 1 } }]"#,
                    "",
                ),
                "E0104",
            ),
        ] {
            assert!(shown.contains(what) && shown.contains("privacy.json:1:"), "{what}: {shown}");
        }
        let rights: Vec<String> = mistakes("authorization.json", r#"{ "format_version": "1.0" "#);
        assert!(rights[0].contains("local/authorization.json:1:"), "{rights:?}");
    }
}
