//! Sites' results arrive together, and what the server needs for them does not grow with the sites.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::print_stdout, reason = "figures for those who ask for them")]

use std::fs;
use std::path::{Path, PathBuf};

use e2e::{Kits, Running, is_gone, provision, run, said, text};
use serde_json::json;

const MB: usize = 1_000_000;

/// Models that the server's half of a job may have in memory, whatever the number of sites.
const MODELS: usize = 5;

/// Federated averaging of one array of float32, so many bytes long, to which every site adds 1.
fn write_job(folder: &Path, sites: usize, bytes: usize) -> PathBuf {
    let job = folder.join("job");
    let config = job.join("app/config");
    fs::create_dir_all(&config).unwrap();
    let model = json!({ "numpy_key": { "shape": [bytes / 4], "dtype": "float32" } });
    let rounds = json!({ "num_rounds": 3, "min_clients": sites, "model": model });
    let server = json!({ "format_version": 2,
        "workflows": [{ "id": "rounds", "path": "locule.workflow.FedAvg", "args": rounds }] });
    let trainer = "nvflare.app_common.np.np_trainer.NPTrainer";
    let site = json!({ "format_version": 2,
        "executors": [{ "tasks": ["train"], "executor": { "path": trainer, "args": {} } }] });
    let meta = json!({ "name": "large", "resource_spec": {}, "min_clients": sites, "deploy_map": { "app": ["@ALL"] } });
    fs::write(job.join("meta.json"), meta.to_string()).unwrap();
    fs::write(config.join("config_fed_server.json"), server.to_string()).unwrap();
    fs::write(config.join("config_fed_client.json"), site.to_string()).unwrap();
    job
}

/// Peak of the memory of a process, in bytes.
fn peak(process: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// A limit of the kernel's on the memory of processes, with all that is written for them to files.
struct Cgroup(PathBuf);

impl Cgroup {
    /// None where this user may not make one.
    fn new(limit: usize) -> Option<Self> {
        let own = format!("locule-e2e-{}", std::process::id());
        let versions = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        versions.iter().find_map(|(root, key)| {
            let group = Path::new(root).join(&own);
            fs::create_dir(&group).ok()?;
            let group = Self(group);
            fs::write(group.0.join(key), limit.to_string()).ok().map(|()| group)
        })
    }

    fn take(&self, process: u32) {
        fs::write(self.0.join("cgroup.procs"), process.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).ok();
    }
}

/// Peaks of the server's half of a job and of the server, when two rounds were done with a model of this size; within
/// a limit for the former, where one can be set.
fn peaks(sites: usize, bytes: usize, limit: Option<usize>) -> (usize, usize) {
    let cgroup = limit.and_then(Cgroup::new);
    let dir = tempfile::tempdir().unwrap();
    let kits: Kits = provision(dir.path(), u32::try_from(sites).unwrap());
    let job = write_job(dir.path(), sites, bytes);
    let signed = run(&["sign", text(&job), "--kit", text(&kits.admin)]);
    assert!(signed.status.success(), "{}", said(&signed));
    let mut server =
        Running::start(&["server", text(&kits.server), "-v", "--job", text(&job), "--stop-with-stdin"]);
    server.wait_for("listening at");
    let start = |kit: &PathBuf| {
        // its half of the job in the site's own process: there are many of them
        let resources = kit.join("local/resources.json");
        let mut document: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(resources.with_extension("json.default")).unwrap())
                .unwrap();
        document["launcher"] = json!({ "kind": "task" });
        fs::write(resources, document.to_string()).unwrap();
        Running::start(&["site", text(kit), "--heartbeat", "1", "--stop-with-stdin"])
    };
    let _sites: Vec<Running> = kits.sites.iter().map(start).collect();
    server.wait_for("round 1/3 began");
    let [half] = server.children()[..] else { panic!("the job has one process") };
    match &cgroup {
        Some(cgroup) => cgroup.take(half),
        None => println!("without a limit of the kernel's"),
    }
    server.wait_for("round 1/3 aggregated");
    server.wait_for("round 2/3 aggregated");
    assert_eq!(server.children(), [half], "it was not started again");
    let peaks = (peak(half), peak(server.id()));
    drop(server);
    assert!(is_gone(half));
    peaks
}

fn memory_does_not_grow_with_sites(sites: usize, model: usize) {
    let (small, _) = peaks(sites, 1000, None);
    let (large, daemon) = peaks(sites, model, Some(small + MODELS * model));
    let models = large.saturating_sub(small) as f64 / model as f64;
    println!(
        "{sites} sites with {} MB: the server's half of the job needs {models:.2} models more than with none ({} MB, and {} MB); the server {} MB",
        model / MB,
        small / MB,
        large / MB,
        daemon / MB,
    );
    assert!(large - small <= MODELS * model, "{models:.2} models");
}

#[test]
fn sixteen_sites_with_8_mb_are_aggregated_in_the_memory_of_five_models() {
    memory_does_not_grow_with_sites(16, 8 * MB);
}

#[test]
#[ignore = "64 sites with large models: has run with 24 GB of memory, and takes 13 GB of disk; with --release"]
fn sixty_four_sites_with_100_mb_are_aggregated_in_the_memory_of_five_models() {
    memory_does_not_grow_with_sites(64, 100 * MB);
}
