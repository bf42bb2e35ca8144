//! Whole jobs as nvflare's recipes write them: read, judged by a default kit's policy, built, run.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::{Path, PathBuf};

use locule_assembly::{AssemblyError, Deployed, assemble};
use locule_component::{
    Assembled, Event, EventBus, ExecuteError, Executor, Registry, RunContext, Side, Task, TaskCx,
};
use locule_fobs::{Array, DataKind, Dxo, Map, Shareable, Value};
use locule_job::JobFolder;
use locule_kit::Workspace;
use locule_workflow::{LocalBoard, load_npz};
use tempfile::TempDir;

fn job(name: &str) -> JobFolder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jobs").join(name);
    JobFolder::read(folder).unwrap_or_else(|error| panic!("{error}"))
}

/// Kits with the policy that nvflare's provisioning gives them.
struct Kits {
    dir: TempDir,
    allowed: &'static str,
}

impl Kits {
    fn new() -> Kits {
        Kits::allowing(include_str!("jobs/class_allow_list.json"))
    }

    fn allowing(allowed: &'static str) -> Kits {
        Kits { dir: tempfile::tempdir().unwrap(), allowed }
    }

    fn run_dir(&self, participant: &str) -> PathBuf {
        self.dir.path().join(participant).join("job-7")
    }

    /// Deploys a participant's app and assembles it.
    fn assemble(&self, job: &JobFolder, participant: &str) -> Result<Assembled, AssemblyError> {
        let kit = self.dir.path().join(participant);
        let allowed = self.allowed;
        let file = if participant == "server" { "fed_server.json" } else { "fed_client.json" };
        for (path, text) in [
            (format!("startup/{file}"), r#"{"format_version": 2}"#.to_owned()),
            (
                "local/resources.json".to_owned(),
                format!(r#"{{"format_version": 2, "class_allow_list": {allowed}}}"#),
            ),
        ] {
            fs::create_dir_all(kit.join(&path).parent().unwrap()).unwrap();
            fs::write(kit.join(path), text).unwrap();
        }
        fs::create_dir_all(self.run_dir(participant)).unwrap();
        let app_dir = self.run_dir(participant).join(format!("app_{participant}"));
        let archive = locule_job::pack_app(&job.app_dir(job.meta.app_of(participant).unwrap())).unwrap();
        locule_job::unpack(&archive, &app_dir, &locule_job::Limits::default()).unwrap();
        let mut registry = Registry::new();
        locule_nvflare::register(&mut registry);
        locule_python::register(&mut registry);
        let deployed = Deployed {
            side: if participant == "server" { Side::Server } else { Side::Site },
            participant: participant.to_owned(),
            org: "org".to_owned(),
            job_id: "job-7".to_owned(),
            kit: Workspace::new(&kit),
            app_dir,
            meta: serde_json::Value::Object(job.meta.document.clone()),
        };
        assemble(&deployed, &registry)
    }
}

#[test]
fn the_servers_half_of_an_exported_recipe_is_built_under_a_default_policy() {
    let kits = Kits::new();
    let assembled = kits.assemble(&job("recipe"), "server").unwrap_or_else(|error| panic!("{error}"));
    let ids: Vec<&str> = assembled.workflows.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["controller"]);

    let run = RunContext::new("project", "job-7");
    EventBus::new(assembled.observers).fire(&Event::EndRun, &run.open());
    let found = fs::read_to_string(kits.run_dir("server").join("cross_site_val/cross_val_results.json"));
    assert_eq!(found.unwrap(), "{}", "nvflare writes it too");
}

#[test]
fn a_script_is_refused_at_its_place_in_the_file_where_none_can_be_run() {
    // Not on a default kit's list, which a stock site does not ask about a job with code of its own.
    let Err(AssemblyError::Refused(refusal)) = Kits::new().assemble(&job("recipe"), "site-1") else {
        panic!("the policy comes first");
    };
    assert_eq!(refusal.denials[0].1.code, "not-on-allow-list");

    let error = Kits::allowing(r#"["nvflare."]"#).assemble(&job("recipe"), "site-1").unwrap_err().to_string();
    assert!(error.starts_with("cannot build executors.#1.executor (config_fed_client.json:"), "{error}");
    assert!(error.ends_with("this program cannot run scripts"), "{error}");
}

/// Runs a job of trainers to its end.
fn run_trainers(name: &str) -> Kits {
    let (kits, job) = (Kits::new(), job(name));
    let mut server = kits.assemble(&job, "server").unwrap_or_else(|error| panic!("{error}"));
    let mut board = LocalBoard::new(kits.run_dir("server"));
    for site in ["site-1", "site-2"] {
        let site_half = kits.assemble(&job, site).unwrap_or_else(|error| panic!("{error}"));
        board.add_site_with(site, site_half.executors);
    }
    board.run(&mut *server.workflows[0].1).unwrap();
    kits
}

fn check_bits(kits: &Kits, participant: &str, file: &str, shape: [usize; 2], bits: &[u32]) {
    let npy = fs::read(kits.run_dir(participant).join(file)).unwrap();
    let elements: Vec<f32> = bits.iter().copied().map(f32::from_bits).collect();
    let expected = Array::from_f32(&shape, &elements).unwrap();
    assert_eq!(Array::from_npy(npy.into()).unwrap(), expected, "{participant}");
    if participant == "server" {
        for file in ["models/global.npz", "models/round-0003.npz"] {
            let ours = load_npz(&kits.run_dir("server").join(file)).unwrap();
            assert_eq!(ours.get("numpy_key").unwrap().as_array(), Some(&expected));
        }
    }
}

/// The bits are those of nvflare 2.9.0; see `jobs/PROVENANCE.md`.
#[test]
fn the_models_of_a_job_are_those_of_the_peer_bit_for_bit() {
    let kits = run_trainers("trainers");
    let server = [0x3e9a4d27, 0xc0131cc3, 0x40601671, 0x3e4f3a0b, 0x4640e783, 0x3e4e33e7];
    check_bits(&kits, "server", "models/server.npy", [2, 3], &server);
    let first = [0x3eab225e, 0xc011021c, 0x40623118, 0x3e70e47a, 0x4640e7a5, 0x3e6fde56];
    check_bits(&kits, "site-1", "model/best_numpy.npy", [2, 3], &first);
    let second = [0xbeee773b, 0xc044354f, 0x402efde5, 0xbf1093ae, 0x4640e472, 0xbf10d537];
    check_bits(&kits, "site-2", "model/best_numpy.npy", [2, 3], &second);
}

/// The bits are those of nvflare 2.9.0; see `jobs/PROVENANCE.md`.
#[test]
fn scatter_and_gather_gives_the_peers_bits_too() {
    let kits = run_trainers("scatter");
    let server = [
        0x409c3c3d, 0x40bc3c3d, 0x40dc3c3e, 0x40fc3c3e, 0x410e1e1f, 0x411e1e1f, 0x412e1e21, 0x413e1e1f,
        0x414e1e20,
    ];
    check_bits(&kits, "server", "models/server.npy", [3, 3], &server);
    let second = [
        0x40d2d2d4, 0x40f2d2d3, 0x4109696a, 0x4119696a, 0x4129696a, 0x4139696a, 0x4149696b, 0x4159696a,
        0x4169696a,
    ];
    check_bits(&kits, "site-2", "model/best_numpy.npy", [3, 3], &second);
}

/// What `client.py` of the jobs `early` and `diff` does, in the arithmetic of numpy.
struct Script {
    factor: f32,
    offset: f32,
    steps: i64,
    is_first: bool,
    is_difference: bool,
}

impl Script {
    fn at(site: &str, is_difference: bool) -> Box<Script> {
        let is_first = site == "site-1";
        let (factor, offset, steps) = if is_first { (0.9, 0.1, 7) } else { (1.1, -0.2, 3) };
        Box::new(Script { factor, offset, steps, is_first, is_difference })
    }
}

impl Executor for Script {
    fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        let dxo = task.data.dxo().unwrap().unwrap();
        let w = dxo.data.get("numpy_key").unwrap().as_array().unwrap();
        let old: Vec<f32> = w.to_f64().into_iter().map(|x| x as f32).collect();
        let new = old.iter().map(|x| x * self.factor + self.offset);
        let (kind, data): (_, Vec<f32>) = if self.is_difference {
            (DataKind::WeightDiff, new.zip(&old).map(|(new, old)| new - old).collect())
        } else {
            (DataKind::Weights, new.collect())
        };
        let round = usize::try_from(task.data.headers.int("current_round").unwrap()).unwrap();
        let accuracy = [0.5, 0.6, 0.55, 0.9, 0.95][round] + if self.is_first { 0.0 } else { 0.05 };
        let metrics = Map::from_iter([
            ("accuracy", Value::from(accuracy)),
            ("epochs", 2_i64.into()),
            ("converged", (!self.is_first).into()),
            ("note", "good".into()),
        ]);
        let array = Array::from_f32(w.shape(), &data).unwrap();
        let mut dxo = Dxo::new(kind, Map::from_iter([("numpy_key", array)]));
        dxo.meta.insert("initial_metrics", metrics);
        dxo.meta.insert("NUM_STEPS_CURRENT_ROUND", self.steps);
        Ok(Shareable::with_dxo(dxo))
    }
}

fn json_lines(text: &str) -> Vec<serde_json::Value> {
    let by_name = |mut record: serde_json::Value| {
        // The peer lists sites in the order in which their results came.
        let sites = record["sites"].as_array_mut().unwrap();
        sites.sort_by_key(|site| site["name"].as_str().unwrap().to_owned());
        record
    };
    text.lines().map(|line| by_name(serde_json::from_str(line).unwrap())).collect()
}

/// Runs an exported recipe with the script's stand-ins and compares what lies in the folder of the run.
fn check_recipe(name: &str, is_difference: bool, best_after: &str) {
    let (kits, job) = (Kits::new(), job(name));
    let mut server = kits.assemble(&job, "server").unwrap_or_else(|error| panic!("{error}"));
    let run_dir = kits.run_dir("server");
    fs::write(run_dir.join("meta.json"), format!(r#"{{"name": "{name}"}}"#)).unwrap();
    let mut board = LocalBoard::new(&run_dir);
    for site in ["site-1", "site-2"] {
        board.add_site(site, Script::at(site, is_difference));
    }
    board.run(&mut *server.workflows[0].1).unwrap();

    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/jobs/{name}.golden"));
    let model = fs::read(run_dir.join("models/server.npy")).unwrap();
    assert_eq!(model, fs::read(golden.join("server.npy")).unwrap(), "{name}: bits of the model");
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    assert_eq!(
        json_lines(&read(run_dir.join("metrics/round_metrics.jsonl"))),
        json_lines(&read(golden.join("round_metrics.jsonl"))),
        "{name}"
    );
    assert_eq!(
        read(run_dir.join("metrics/metrics_summary.json")),
        read(golden.join("metrics_summary.json")),
        "{name}"
    );
    let best = load_npz(&run_dir.join("models/best.npz")).unwrap();
    assert_eq!(best, load_npz(&run_dir.join(best_after)).unwrap(), "{name}: the best model");
}

/// The golden files are those of nvflare 2.9.0; see `jobs/PROVENANCE.md`.
#[test]
fn a_recipe_that_stops_early_leaves_the_peers_files() {
    // The metrics of the fourth round are the best, and judge the model that it began with.
    check_recipe("early", false, "models/round-0003.npz");
}

#[test]
fn a_recipe_of_differences_leaves_the_peers_files() {
    check_recipe("diff", true, "models/round-0004.npz");
}
