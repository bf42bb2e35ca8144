//! A site's configuration of 200 components, from its text to the word of the site's checkers.
//!
//! What is timed on our side is what a site does when a job is deployed: the text is read, becomes a plan, the site's
//! own policy is read again, and every checker is asked in its process, which has run before. nvflare's own
//! processing reads, asks and builds in one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use locule_checker::{CheckerCommand, SiteCheckers};
use locule_component::{
    BuildCx, BuildError, Built, Component, ConstructionCount, JobFacts, Kind, Phase, Plan, Registry, Side,
    SiteFacts,
};
use locule_config::Document;
use locule_policy::{Occasion, ask_all, gates_from_site_config};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::compare::Bench;
use crate::peer::Peer;

const COMPONENTS: usize = 200;
/// How long a review may take, whatever another does.
const LIMITS: [(Language, Duration); 3] = [
    (Language::Rego, Duration::from_millis(20)),
    (Language::Wasm, Duration::from_millis(20)),
    (Language::Python, Duration::from_millis(200)),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Language {
    Rego,
    Wasm,
    Python,
}

pub(crate) fn rows(bench: &mut Bench) -> anyhow::Result<()> {
    for (language, limit) in LIMITS {
        let Some(files) = files(language) else { continue };
        let what = if files.len() == 1 { "checker" } else { "policies" };
        let name = format!("review of {COMPONENTS} components, {} {language:?} {what}", files.len());
        if !bench.wants(&name) {
            continue;
        }
        let site = Site::new(&files)?;
        let config = site.folder.path().join("config_fed_client.json");
        fs::write(&config, configuration().to_string())?;
        let mut peer = Peer::start("review_peer.py", &[&config.to_string_lossy(), &files.len().to_string()])?;
        let [ours, theirs] = bench.take_turns(|| site.review(&config), || peer.turn())?;
        bench.durations(&name, &ours, "nvflare 2.9.0, as many Python checkers", theirs.median(), 1.0);
        bench.durations(&name, &ours, "the limit", limit, 1.0);
    }
    Ok(())
}

/// A job whose components have arguments of each kind.
fn configuration() -> Value {
    let args =
        json!({ "rate": 0.1, "source": "https://data.example/set", "layers": [64, 32, { "act": "relu" }] });
    let part = |n: usize| json!({ "id": format!("part-{n}"), "path": "speed.Part", "args": args });
    json!({
        "format_version": 2,
        "executors": [{ "tasks": ["train"], "executor": { "path": "speed.Work" } }],
        "components": (1..COMPONENTS).map(part).collect::<Vec<_>>(),
    })
}

/// What an operator writes: an entry, and the file that it names.
struct File {
    name: String,
    path: String,
    content: Vec<u8>,
    args: Value,
}

/// What sites ask for: names, links anywhere in arguments, a list of filters, sizes, own code.
const RULES: [&str; 5] = [
    r#"some c in input.components; some p in ["evil.", "pickle.", "os."]; startswith(c.name, p); at := c.path"#,
    r#"some c in input.components; walk(c.args, [_, v]); is_string(v); startswith(v, "ftp://"); at := c.path"#,
    r#"some c in input.components; c.kind == "filter"; not regex.match(`^speed\.`, c.name); at := c.path"#,
    r#"some c in input.components; c.args.rate > 10; at := c.path"#,
    r#"input.job.byoc; some f in input.files; not endswith(f.path, ".json"); at := f.path"#,
];

const PYTHON: &str = "
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_exception import UnsafeComponentError

class Rule(FLComponent):
    def handle_event(self, event_type, fl_ctx):
        if event_type == EventType.BEFORE_BUILD_COMPONENT:
            config = fl_ctx.get_prop(FLContextKey.COMPONENT_CONFIG)
            if config['path'].startswith(('evil.', 'pickle.', 'os.')):
                raise UnsafeComponentError('no')
";

/// The checkers in a language, if this program has it.
fn files(language: Language) -> Option<Vec<File>> {
    let file = |name: &str, content: Vec<u8>| {
        let args = json!({});
        File { name: name.into(), path: name.into(), content, args }
    };
    Some(match language {
        Language::Rego => {
            let text = |rule: &&str| {
                format!(
                    "package locule\nreview := {{\"allow\": count(deny) == 0, \"deny\": deny}}\n\
                     deny contains {{\"code\": \"no\", \"message\": \"no\", \"path\": at}} if {{ {rule} }}\n"
                )
            };
            let numbered = RULES.iter().map(text).zip(1..);
            numbered.map(|(text, number)| file(&format!("rule_{number}.rego"), text.into())).collect()
        }
        Language::Wasm if cfg!(feature = "wasm") => {
            let guest = include_bytes!("../../../crates/locule-policy-wasm/guest/comp_auth.wasm");
            vec![File { args: json!({ "refused": ["evil.Part"] }), ..file("rule.wasm", guest.into()) }]
        }
        Language::Wasm => return None,
        Language::Python => {
            vec![File { path: "rule.Rule".into(), ..file("rule.py", PYTHON.into()) }]
        }
    })
}

/// A site with its checkers.
struct Site {
    folder: TempDir,
    registry: Registry,
    policy: PathBuf,
    checkers: SiteCheckers,
}

impl Site {
    fn new(files: &[File]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let custom = folder.path().join("local/custom");
        fs::create_dir_all(&custom)?;
        let mut entries = Vec::new();
        for File { name, path, content, args } in files {
            fs::write(custom.join(name), content)?;
            let mut entry = json!({ "id": name, "path": path, "args": args });
            if name.ends_with(".wasm") {
                entry["digest"] = format!("sha256:{}", hex(content)).into();
            }
            entries.push(entry);
        }
        let policy = folder.path().join("local/job_resources.json");
        fs::write(&policy, json!({ "class_allow_list": ["*"], "components": entries }).to_string())?;
        let mut registry = Registry::new();
        registry.register::<Part>().register::<Work>();
        let search_path = std::env::var_os("PATH").unwrap_or_default();
        let command =
            CheckerCommand { program: std::env::current_exe()?, args: vec!["checker".into()], search_path };
        Ok(Self { folder, registry, policy, checkers: SiteCheckers::new(command) })
    }

    /// Reviews the job once; how long it took.
    fn review(&self, config: &Path) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        let text = fs::read_to_string(config)?;
        let plan = Plan::from_document(
            &Document::parse_json("config_fed_client.json", &text)?,
            Side::Site,
            &self.registry,
        )?;
        let policy = Document::parse_json("job_resources.json", &fs::read_to_string(&self.policy)?)?;
        let (kit, count) = (self.folder.path(), ConstructionCount::new());
        let cx = BuildCx::new(Side::Site, "site-1", "", kit, kit, &count);
        let gates = gates_from_site_config(&policy, &Registry::new(), &self.checkers, &cx)?;
        let site =
            SiteFacts { name: "site-1".into(), org: "o".into(), side: Side::Site, workspace: kit.into() };
        let occasion = Occasion { job: JobFacts::default(), site, phase: Phase::Deploy };
        let reports = ask_all(&plan, &occasion, &gates, Duration::from_secs(10));
        let took = begin.elapsed();
        ensure!(plan.components().len() == COMPONENTS, "{} components", plan.components().len());
        for report in reports {
            if let Err(error) = report.outcome {
                bail!("{} did not judge: {error:?}", report.checker);
            }
        }
        Ok(took)
    }
}

struct Part;

impl Component for Part {
    const KIND: Kind = Kind::Observer;
    const NAME: &'static str = "speed.Part";
    type Args = serde_json::Map<String, Value>;
    fn build(_: Self::Args, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Err(BuildError::Unavailable("nothing is built here".to_owned()))
    }
}

struct Work;

impl Component for Work {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "speed.Work";
    type Args = serde_json::Map<String, Value>;
    fn build(_: Self::Args, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Err(BuildError::Unavailable("nothing is built here".to_owned()))
    }
}

fn hex(content: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
