//! Whole jobs as nvflare's recipes write them: read, judged by a default kit's policy, built, run.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::{Path, PathBuf};

use locule_assembly::{AssemblyError, Deployed, assemble};
use locule_component::{Assembled, Event, EventBus, Registry, RunContext, Side};
use locule_fobs::Array;
use locule_job::JobFolder;
use locule_kit::Workspace;
use locule_workflow::{LocalBoard, load_npz};
use tempfile::TempDir;

fn job(name: &str) -> JobFolder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jobs").join(name);
    JobFolder::read(folder).unwrap_or_else(|error| panic!("{error}"))
}

/// Kits with the policy that nvflare's provisioning gives them.
struct Kits(TempDir);

impl Kits {
    fn new() -> Kits {
        Kits(tempfile::tempdir().unwrap())
    }

    fn run_dir(&self, participant: &str) -> PathBuf {
        self.0.path().join(participant).join("job-7")
    }

    /// Deploys a participant's app and assembles it.
    fn assemble(&self, job: &JobFolder, participant: &str) -> Result<Assembled, AssemblyError> {
        let kit = self.0.path().join(participant);
        let allowed = include_str!("jobs/class_allow_list.json");
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
fn a_python_script_is_refused_at_its_place_in_the_file() {
    let Err(AssemblyError::Config(mistakes)) = Kits::new().assemble(&job("recipe"), "site-1") else {
        panic!("no site of ours runs Python");
    };
    let text = mistakes.to_string();
    assert!(text.contains("this site cannot run Python scripts yet"), "{text}");
    assert!(text.contains("executors.#1.executor"), "{text}");
}

/// The bits are those of nvflare 2.9.0; see `jobs/PROVENANCE.md`.
#[test]
fn the_models_of_a_job_are_those_of_the_peer_bit_for_bit() {
    let (kits, job) = (Kits::new(), job("trainers"));
    let mut server = kits.assemble(&job, "server").unwrap_or_else(|error| panic!("{error}"));
    let mut board = LocalBoard::new(kits.run_dir("server"));
    for site in ["site-1", "site-2"] {
        let site_half = kits.assemble(&job, site).unwrap_or_else(|error| panic!("{error}"));
        board.add_site_with(site, site_half.executors);
    }
    board.run(&mut *server.workflows[0].1).unwrap();

    let check = |participant: &str, file: &str, bits: [u32; 6]| {
        let npy = fs::read(kits.run_dir(participant).join(file)).unwrap();
        let expected = Array::from_f32(&[2, 3], &bits.map(f32::from_bits)).unwrap();
        assert_eq!(Array::from_npy(npy.into()).unwrap(), expected, "{participant}");
        expected
    };
    let model = check(
        "server",
        "models/server.npy",
        [0x3e9a4d27, 0xc0131cc3, 0x40601671, 0x3e4f3a0b, 0x4640e783, 0x3e4e33e7],
    );
    check(
        "site-1",
        "model/best_numpy.npy",
        [0x3eab225e, 0xc011021c, 0x40623118, 0x3e70e47a, 0x4640e7a5, 0x3e6fde56],
    );
    check(
        "site-2",
        "model/best_numpy.npy",
        [0xbeee773b, 0xc044354f, 0x402efde5, 0xbf1093ae, 0x4640e472, 0xbf10d537],
    );
    for file in ["models/global.npz", "models/round-0003.npz"] {
        let ours = load_npz(&kits.run_dir("server").join(file)).unwrap();
        assert_eq!(ours.get("numpy_key").unwrap().as_array(), Some(&model));
    }
}
