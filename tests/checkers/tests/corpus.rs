//! The same cases in every language, through the same processes, with the same outcome.
//!
//! Cases that a language cannot express are those without a text in it, below; each says why.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use locule_checker::{CheckerCommand, SiteCheckers};
use locule_component::{
    BuildCx, BuildError, Built, Component, ConstructionCount, Denial, ExecuteError, Executor, JobFacts, Kind,
    Phase, Plan, Registry, Side, SiteFacts, Task, TaskCx,
};
use locule_config::{Diagnostics, Document};
use locule_fobs::Shareable;
use locule_policy::{Occasion, gates_from_site_config, review};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

#[test]
fn a_plan_that_nothing_is_against_is_allowed() {
    for checker in same_rule() {
        assert_eq!(checker.asked_about(HARMLESS), Outcome::Allowed, "{checker:?}");
    }
}

#[test]
fn a_component_is_refused_with_code_text_and_place_wherever_it_stands() {
    let denial = |path: &str| Denial {
        checker: "comp_checker".into(),
        component: path.into(),
        file: "config_fed_client.json".into(),
        path: path.into(),
        code: "refused-here".into(),
        message: "example.Shell is not run here".into(),
        public: true,
    };
    for checker in same_rule() {
        let Outcome::Refused(mut found) = checker.asked_about(HARMFUL) else { panic!("{checker:?}") };
        found.sort_by(|a, b| a.path.cmp(&b.path));
        assert_eq!(found, [denial("executors.#1.executor.args.inner"), denial("executors.#2.executor")]);
    }
}

#[test]
fn the_documented_checker_refuses_every_component() {
    for checker in all([
        Some(Checker::python(DOCUMENTED, "ComponentChecker")),
        Some(Checker::rego(
            r#"package locule
            review := {"allow": false, "deny": deny}
            deny contains {"code": "unsafe-component", "message": "client encountered bad component", "path": path} if {
                path := input.components[_].path
            }"#,
        )),
        None, // in WebAssembly it would be the checker of the other cases, with another name in it
    ]) {
        let Outcome::Refused(found) = checker.asked_about(HARMFUL) else { panic!("{checker:?}") };
        assert_eq!(found.len(), 3);
        for denial in found {
            assert_eq!(denial.message, "client encountered bad component");
            assert_eq!((denial.code.as_str(), denial.public), ("unsafe-component", false));
            assert_eq!(denial.public_reason(), "the site's policy refuses it");
        }
    }
}

#[test]
fn a_crash_refuses() {
    for checker in all([
        None, // an error in Rego leaves a rule undefined, which is the case of the malformed answer
        Some(Checker::python("        {}['absent']", "")),
        Some(Checker::wasm("(unreachable)")),
    ]) {
        checker.gives_no_judgement(&["KeyError", "unreachable"]);
    }
    Checker::python("        import os; os._exit(0)", "").gives_no_judgement(&["ended"]);
    Checker::python("        raise SystemExit(0)", "").gives_no_judgement(&["SystemExit"]);
}

#[test]
fn a_checker_that_says_that_it_cannot_judge_refuses() {
    // In Rego and in Python that is an error like any other, as above.
    if let Some(checker) = rust(json!({})) {
        checker.gives_no_judgement(&["it cannot judge: missing field `refused`"]);
    }
}

#[test]
fn an_endless_loop_refuses() {
    for checker in all([
        // Rego has no loops, but nothing keeps a text from counting for a century.
        Some(Checker::rego(
            r#"package locule
            review := {"allow": count([1 | some i in r; some j in r; some k in r; i * j * k < 0]) == 0}
            r := numbers.range(1, 100000)"#,
        )),
        Some(Checker::python("        while True: pass", "")),
        Some(Checker::wasm("(loop $again (br $again)) (unreachable)")),
    ]) {
        checker.limited(json!({ "time_ms": 700 })).gives_no_judgement(&[
            "no answer within 700 ms",
            "used up its",
            "time",
        ]);
    }
}

#[test]
fn fuel_ends_a_loop_before_time_does() {
    for checker in all([None, None, Some(Checker::wasm("(loop $again (br $again)) (unreachable)"))]) {
        checker
            .limited(json!({ "fuel": 10_000, "time_ms": 60_000 }))
            .gives_no_judgement(&["used up its fuel"]);
    }
}

#[test]
fn a_memory_hog_refuses_and_harms_nobody() {
    for checker in all([
        Some(Checker::rego(
            r#"package locule
            review := {"allow": count(r) > 0}
            r := {[i, j, k] | some i in n; some j in n; some k in n}
            n := numbers.range(1, 1000)"#,
        )),
        Some(Checker::python("        kept = [bytearray(1 << 20) for _ in range(1 << 20)]", "")),
        Some(Checker::wasm("(loop $again (drop (memory.grow (i32.const 16))) (br $again)) (unreachable)")),
    ]) {
        checker.limited(json!({ "memory_mib": 64, "time_ms": 20_000 })).gives_no_judgement(&[
            "MemoryError",
            "ended",
            "memory",
        ]);
    }
}

#[test]
fn a_malformed_answer_refuses() {
    for checker in all([
        Some(Checker::rego("package locule\nreview := 7")),
        // What a method returns is not looked at; but one that would never run is not taken for a permission.
        Some(Checker::python_class("    async def handle_event(self, event_type, fl_ctx):\n        pass")),
        Some(Checker::wasm("(i32.store8 (i32.const 512) (i32.const 9)) (i32.const 512)")),
    ]) {
        checker.gives_no_judgement(&["review", "coroutine", "discriminant"]);
    }
}

#[test]
fn what_a_checker_prints_is_no_answer() {
    for checker in all([
        None, // Rego and WebAssembly have nothing to print with
        Some(Checker::python(
            "        import os, sys; print('{\"verdicts\": []}'); os.write(1, bytes(99)); sys.stdout.flush(); {}['x']",
            "",
        )),
        None,
    ]) {
        checker.gives_no_judgement(&["KeyError"]);
    }
}

#[test]
fn a_file_that_cannot_judge_keeps_the_site_from_going_on() {
    for checker in all([
        Some(Checker::rego("package locule\nreview :=")),
        Some(Checker::python_class("    def handle_event(self, event_type, fl_ctx:")),
        Some(Checker { source: b"no WebAssembly".to_vec(), ..Checker::wasm("(unreachable)") }),
    ]) {
        checker.is_not_opened(&["comp_auth.rego:2", "SyntaxError", "not a WebAssembly component"]);
    }
    for checker in all([
        None, // nothing can be imported in Rego but what the language has
        Some(Checker::python("        pass", "").beginning_with("from nvflare.app_opt.he import Anything\n")),
        Some(Checker {
            source: wat::parse_str(
                r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance (export "now" (func)))))"#,
            )
            .unwrap(),
            ..Checker::wasm("(unreachable)")
        }),
    ]) {
        checker
            .is_not_opened(&["cannot import `nvflare.app_opt`", "it imports `wasi:clocks/wall-clock@0.2.0`"]);
    }
}

#[test]
fn an_absent_file_keeps_the_site_from_going_on() {
    for checker in same_rule() {
        Checker { absent: true, ..checker }.is_not_opened(&["there is no `local/custom/comp_auth."]);
    }
}

#[test]
fn another_file_than_the_digest_names_keeps_the_site_from_going_on() {
    for checker in same_rule() {
        let digest: String =
            Sha256::digest(&checker.source).iter().map(|byte| format!("{byte:02x}")).collect();
        let named = Checker { digest: Some(format!("sha256:{digest}")), ..checker.clone() };
        assert_eq!(named.asked_about(HARMLESS), Outcome::Allowed, "{named:?}");
        let other = Checker { digest: Some(format!("sha256:{}", "0".repeat(64))), ..checker };
        other.is_not_opened(&["is not the file that `digest` names"]);
    }
}

/// One rule in every language: `example.Shell` is refused.
fn same_rule() -> Vec<Checker> {
    all([
        Some(Checker::rego(
            r#"package locule
            review := {"allow": count(deny) == 0, "deny": deny}
            deny contains {"code": "refused-here", "message": message, "path": component.path, "public": true} if {
                some component in input.components
                component.requested == "example.Shell"
                message := sprintf("%s is not run here", [component.requested])
            }"#,
        )),
        Some(Checker::python(
            "        requested = fl_ctx.get_prop(FLContextKey.COMPONENT_CONFIG)['path']
        if requested == 'example.Shell':
            error = UnsafeComponentError(f'{requested} is not run here')
            error.code, error.public = 'refused-here', True
            raise error",
            "",
        )),
        Some(Checker::wasm_text(COMP_AUTH)),
    ])
    .into_iter()
    .chain(rust(json!({ "refused": ["example.Shell"] })))
    .collect()
}

/// The checker in Rust, which is told what it refuses; as WebAssembly takes part.
fn rust(args: Json) -> Option<Checker> {
    cfg!(feature = "wasm").then(|| Checker { args, ..Checker::new("comp_auth.wasm", RUST_COMP_AUTH) })
}

/// Those of the three that there are; in WebAssembly only if it takes part.
fn all(checkers: [Option<Checker>; 3]) -> Vec<Checker> {
    let takes_part = |checker: &Checker| cfg!(feature = "wasm") || !checker.file().ends_with(".wasm");
    checkers.into_iter().flatten().filter(takes_part).collect()
}

/// The checker of nvflare's documentation, as it stands there.
const DOCUMENTED: &str = include_str!("comp_auth.py");
const COMP_AUTH: &str = include_str!("../../../crates/locule-policy-wasm/tests/guests/comp_auth.wat");
const RUST_COMP_AUTH: &[u8] = include_bytes!("../../../crates/locule-policy-wasm/guest/comp_auth.wasm");

const HARMLESS: &str = r#"{ "format_version": 2, "executors": [
    { "tasks": ["*"], "executor": { "path": "example.Echo", "args": {} } } ] }"#;
const HARMFUL: &str = r#"{ "format_version": 2, "executors": [
    { "tasks": ["a"], "executor": { "path": "example.Echo", "args": { "inner": { "path": "example.Shell" } } } },
    { "tasks": ["b"], "executor": { "path": "example.Shell" } } ] }"#;

/// What became of a plan.
#[derive(Debug, PartialEq)]
enum Outcome {
    NotOpened(String),
    Allowed,
    Refused(Vec<Denial>),
}

/// A file of a site, and the entry that names it.
#[derive(Clone)]
struct Checker {
    path: &'static str,
    source: Vec<u8>,
    args: Json,
    limits: Json,
    digest: Option<String>,
    absent: bool,
}

impl Checker {
    fn new(path: &'static str, source: impl Into<Vec<u8>>) -> Self {
        // A debug build on a busy machine needs more time than a site does.
        Self {
            path,
            source: source.into(),
            args: json!({}),
            limits: json!({ "time_ms": 20_000 }),
            digest: None,
            absent: false,
        }
    }

    fn rego(text: &str) -> Self {
        Self::new("comp_auth.rego", text)
    }

    /// A whole file, or with no class the body of its method.
    fn python(text: &str, class: &str) -> Self {
        if class.is_empty() {
            let body = text.trim_end();
            return Self::python_class(&format!("    def handle_event(self, event_type, fl_ctx):\n{body}"));
        }
        Self::new("comp_auth.ComponentChecker", text)
    }

    fn python_class(body: &str) -> Self {
        let imports = "from nvflare.apis.fl_component import FLComponent\n\
            from nvflare.apis.fl_constant import FLContextKey\n\
            from nvflare.apis.fl_exception import UnsafeComponentError\n";
        Self::new(
            "comp_auth.ComponentChecker",
            format!("{imports}class ComponentChecker(FLComponent):\n{body}\n"),
        )
    }

    /// The body of `review`.
    fn wasm(body: &str) -> Self {
        let (before, rest) = COMP_AUTH.split_once("(core module").unwrap();
        let (_, after) = rest.split_once("(core instance").unwrap();
        Self::wasm_text(&format!(
            r#"{before}(core module $code
                (memory (export "memory") 1)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8192))
                (func (export "review") (param i32 i32) (result i32) {body}))
            (core instance{after}"#
        ))
    }

    fn wasm_text(text: &str) -> Self {
        Self::new("comp_auth.wasm", wat::parse_str(text).unwrap())
    }

    fn beginning_with(mut self, text: &str) -> Self {
        self.source.splice(0..0, text.bytes());
        self
    }

    fn limited(self, limits: Json) -> Self {
        Self { limits, ..self }
    }

    fn file(&self) -> &'static str {
        if self.path.ends_with("ComponentChecker") { "comp_auth.py" } else { self.path }
    }

    fn asked_about(&self, config: &str) -> Outcome {
        let site = self.site();
        let gates = match site.gates(self) {
            Ok(gates) => gates,
            Err(mistakes) => return Outcome::NotOpened(mistakes.to_string()),
        };
        match review(site.plan(config), &occasion(site.kit.path()), &gates, Duration::from_secs(60)) {
            Ok(_) => Outcome::Allowed,
            Err(refused) => Outcome::Refused(refused.findings),
        }
    }

    fn site(&self) -> Site {
        let kit = tempfile::tempdir().unwrap();
        let custom = kit.path().join("local/custom");
        fs::create_dir_all(&custom).unwrap();
        if !self.absent {
            fs::write(custom.join(self.file()), &self.source).unwrap();
        }
        let mut registry = Registry::new();
        registry.register::<Echo>().register::<Shell>();
        Site { kit, registry }
    }

    /// The process is the binary's own, but for WebAssembly, which that is built without.
    fn processes(&self) -> SiteCheckers {
        static PROGRAMS: OnceLock<[SiteCheckers; 2]> = OnceLock::new();
        let [own, other] = PROGRAMS.get_or_init(|| {
            let command = |program: &Path, args: &[&str]| CheckerCommand {
                program: PathBuf::from(program),
                args: args.iter().map(Into::into).collect(),
                search_path: std::env::var_os("PATH").unwrap_or_default(),
            };
            let other = Path::new(env!("CARGO_BIN_EXE_checkers"));
            [command(e2e::binary(), &["checker"]), command(other, &[])].map(SiteCheckers::new)
        });
        if self.file().ends_with(".wasm") { other.clone() } else { own.clone() }
    }

    #[track_caller]
    fn gives_no_judgement(&self, why: &[&str]) {
        let Outcome::Refused(found) = self.asked_about(HARMLESS) else { panic!("{self:?}") };
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].code.as_str(), found[0].public), (Denial::CHECKER_FAILED, false));
        assert!(why.iter().any(|why| found[0].message.contains(why)), "{found:?}");
    }

    #[track_caller]
    fn is_not_opened(&self, why: &[&str]) {
        let Outcome::NotOpened(text) = self.asked_about(HARMLESS) else { panic!("{self:?}") };
        assert!(text.contains("job_resources.json:1:"), "{text}");
        assert!(why.iter().any(|why| text.contains(why)), "{text}");
    }
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = String::from_utf8(self.source.clone());
        let source = source.unwrap_or_else(|_| format!("{} bytes", self.source.len()));
        f.debug_struct("Checker").field("path", &self.path).field("source", &source).finish_non_exhaustive()
    }
}

/// A kit with one checker in it, and the components that are known there.
struct Site {
    kit: TempDir,
    registry: Registry,
}

impl Site {
    fn gates(&self, checker: &Checker) -> Result<Vec<Arc<dyn locule_component::Checker>>, Diagnostics> {
        let mut entry = json!({
            "id": "comp_checker", "path": checker.path, "args": checker.args, "limits": checker.limits
        });
        if let Some(digest) = &checker.digest {
            entry["digest"] = digest.as_str().into();
        }
        let site =
            json!({ "format_version": 2, "class_allow_list": ["*"], "components": [entry] }).to_string();
        let site = Document::parse_json("job_resources.json", &site).unwrap();
        let (kit, count) = (self.kit.path(), ConstructionCount::new());
        let cx = BuildCx::new(Side::Site, "site-1", "", kit, kit, &count);
        gates_from_site_config(&site, &self.registry, &checker.processes(), &cx)
    }

    fn plan(&self, config: &str) -> Plan {
        let config = Document::parse_json("config_fed_client.json", config).unwrap();
        Plan::from_document(&config, Side::Site, &self.registry).unwrap()
    }
}

fn occasion(kit: &Path) -> Occasion {
    Occasion {
        job: JobFacts { job_id: "job-7".into(), name: "training".into(), ..JobFacts::default() },
        site: SiteFacts {
            name: "site-1".into(),
            org: "hospital".into(),
            side: Side::Site,
            workspace: kit.to_owned(),
        },
        phase: Phase::Deploy,
    }
}

#[derive(serde::Deserialize)]
struct AnyArgs {
    #[serde(default, rename = "inner")]
    _inner: Json,
}

struct Echo;
struct Shell;

impl Component for Echo {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "example.Echo";
    type Args = AnyArgs;
    fn build(_: AnyArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Executor(Box::new(Echo)))
    }
}

impl Component for Shell {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "example.Shell";
    type Args = AnyArgs;
    fn build(_: AnyArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Executor(Box::new(Echo)))
    }
}

impl Executor for Echo {
    fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        Ok(task.data.clone())
    }
}
