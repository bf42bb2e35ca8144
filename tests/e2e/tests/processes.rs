//! Each job has processes of its own: what becomes of one touches no other, and nothing of it stays.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::{Path, PathBuf};

use e2e::{Running, is_gone, run, said, signal, text};
use serde_json::{Value, json};

/// A server and two sites with kits and a job, which a demo has made and run once.
struct Federation {
    dir: tempfile::TempDir,
}

impl Federation {
    fn new(rounds: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rounds = rounds.to_string();
        let made = run(&["demo", "--dir", text(dir.path()), "--sites", "2", "--rounds", &rounds]);
        assert!(made.status.success(), "{}", said(&made));
        Self { dir }
    }

    /// The same, with a job that takes much longer than a test.
    fn of_a_long_job() -> Self {
        let federation = Self::new(1);
        edit(&federation.path("job/app/config/config_fed_server.json"), |config| {
            config["workflows"][1]["args"]["num_rounds"] = json!(1000);
        });
        federation.sign();
        federation
    }

    fn path(&self, of: &str) -> PathBuf {
        self.dir.path().join(of)
    }

    fn kit(&self, of: &str) -> PathBuf {
        self.path("project/prod_00").join(of)
    }

    fn start_server(&self) -> Running {
        let mut server =
            Running::start(&["server", text(&self.kit("server")), "-v", "--job", text(&self.path("job"))]);
        server.wait_for("listening at");
        server
    }

    fn start_site(&self, name: &str) -> Running {
        Running::start(&["site", text(&self.kit(name)), "--heartbeat", "1", "--stop-with-stdin"])
    }

    /// Changes the configuration of a kit, which is a default before somebody edits it.
    fn configure(&self, kit: &str, key: &str, value: Value) {
        let file = self.kit(kit).join("local/resources.json");
        if !file.exists() {
            fs::copy(self.kit(kit).join("local/resources.json.default"), &file).unwrap();
        }
        edit(&file, |config| config[key] = value);
    }

    fn sign(&self) {
        let signed =
            run(&["sign", text(&self.path("job")), "--kit", text(&self.kit("scientist@university.org"))]);
        assert!(signed.status.success(), "{}", said(&signed));
    }
}

fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut document = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    change(&mut document);
    fs::write(file, serde_json::to_vec_pretty(&document).unwrap()).unwrap();
}

/// The one process that a daemon has started for its job.
fn job_of(daemon: &Running) -> u32 {
    let children = daemon.children();
    assert_eq!(children.len(), 1, "{children:?}");
    children[0]
}

/// The last file that a server has saved, by what it said: the model.
fn saved(out: &str) -> Vec<u8> {
    let mut saved = out.lines().filter_map(|line| line.strip_prefix("saved "));
    let path = saved.next_back().unwrap_or_else(|| panic!("{out}"));
    fs::read(path).unwrap()
}

#[test]
fn a_sites_job_whose_process_is_killed_goes_on_in_another_and_makes_the_same_model() {
    let federation = Federation::new(30);
    let mut server = federation.start_server();
    let (mut first, second) = (federation.start_site("site-1"), federation.start_site("site-2"));
    server.wait_for("round 3/30 began");
    signal(job_of(&first), "KILL");
    let line = first.wait_for("started again");
    assert!(line.contains("killed by signal 9 (out of memory?)"), "{line}");
    let (code, out, said) = server.finish();
    assert_eq!(code, Some(0), "{out}{said}");
    assert!(saved(&out) == fs::read(federation.path("model.npz")).unwrap(), "the models differ");
    for mut site in [first, second] {
        site.close_stdin();
        let (code, out, said) = site.finish();
        assert_eq!(code, Some(0), "{out}{said}");
        assert!(out.contains("ended with code 0"), "{out}");
    }
}

#[test]
fn a_job_whose_processes_keep_dying_fails_with_the_reason() {
    let federation = Federation::of_a_long_job();
    let mut server = federation.start_server();
    let (mut first, _second) = (federation.start_site("site-1"), federation.start_site("site-2"));
    server.wait_for("round 1/1000 began");
    signal(server.id(), "STOP"); // so that nobody gets a task done
    for _ in 0..4 {
        signal(job_of(&first), "KILL");
        first.wait_for("started again");
    }
    signal(job_of(&first), "KILL");
    first.wait_for("time in ten minutes without a task done");
    signal(server.id(), "CONT");
    let (code, _, said) = server.finish();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("site-1: its process was killed by signal 9"), "{said}");
}

#[test]
fn a_killed_site_leaves_no_process_and_its_job_knew_no_secret() {
    let federation = Federation::of_a_long_job();
    let mut server = federation.start_server();
    let (first, second) = (federation.start_site("site-1"), federation.start_site("site-2"));
    server.wait_for("round 1/1000 began");
    let job = job_of(&first);

    let read = |file: &str| String::from_utf8(fs::read(format!("/proc/{job}/{file}")).unwrap()).unwrap();
    let (environment, arguments) = (read("environ"), read("cmdline"));
    assert!(arguments.ends_with("\0job-process\0site\0"), "{arguments:?}");
    let allowed = [
        "PATH",
        "MALLOC_MMAP_THRESHOLD_",
        "HOME",
        "TMPDIR",
        "LANG",
        "LC_ALL",
        "TZ",
        "LD_LIBRARY_PATH",
        "SSL_CERT_DIR",
        "RUST_LOG",
        "RUST_BACKTRACE",
    ];
    // What a training script may see is in it too: locales, GPUs, numbers of threads.
    let of_scripts = ["LC_CTYPE", "CUDA_", "NVIDIA_", "ROCR_", "OMP_", "MKL_", "OPENBLAS_", "SSL_CERT_FILE"];
    for variable in environment.split_terminator('\0') {
        let name = variable.split('=').next().unwrap();
        let is_of_scripts = of_scripts.iter().any(|known| name.starts_with(known));
        assert!(allowed.contains(&name) || is_of_scripts, "{variable:?}");
    }
    // A token is a UUID, and there is none: not even that of the job, which it is told like all the rest.
    assert!(uuids(environment.as_bytes()).is_empty() && uuids(arguments.as_bytes()).is_empty());
    for fd in fs::read_dir(format!("/proc/{job}/fd")).unwrap() {
        let open = fs::read_link(fd.unwrap().path()).unwrap_or_default();
        assert!(!open.starts_with(federation.dir.path().canonicalize().unwrap()), "{}", open.display());
    }

    first.signal("KILL");
    assert!(is_gone(job));
    let second_job = job_of(&second);
    drop(second); // killed
    assert!(is_gone(second_job));
}

/// Every UUID in a text.
fn uuids(bytes: &[u8]) -> Vec<&[u8]> {
    let is_uuid = |window: &&[u8]| {
        window.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    };
    bytes.windows(36).filter(is_uuid).collect()
}

#[test]
fn a_job_that_takes_more_memory_than_it_may_fails_and_the_site_goes_on() {
    let federation = Federation::new(2);
    federation.configure("site-1", "launcher", json!({ "limits": { "memory_mib": 200 } }));
    let config = federation.path("job/app/config");
    let modest = ["config_fed_server.json", "config_fed_client.json"]
        .map(|name| (config.join(name), fs::read_to_string(config.join(name)).unwrap()));
    let numpy = federation.path("large.npy");
    fs::write(&numpy, npy(96 << 20)).unwrap();
    edit(&config.join("config_fed_server.json"), |document| {
        *document = json!({
            "format_version": 2,
            "workflows": [{ "id": "rounds",
                "path": "nvflare.app_common.workflows.scatter_and_gather.ScatterAndGather",
                "args": { "min_clients": 2, "num_rounds": 1, "persistor_id": "persistor",
                    "aggregator_id": "aggregator", "shareable_generator_id": "shareable" } }],
            "components": [
                { "id": "persistor", "path": "nvflare.app_common.np.np_model_persistor.NPModelPersistor",
                    "args": { "source_ckpt_file_full_name": text(&numpy) } },
                { "id": "shareable", "path":
                    "nvflare.app_common.shareablegenerators.full_model_shareable_generator.FullModelShareableGenerator" },
                { "id": "aggregator", "path":
                    "nvflare.app_common.aggregators.intime_accumulate_model_aggregator.InTimeAccumulateWeightedAggregator",
                    "args": { "expected_data_kind": "WEIGHTS" } },
            ],
        });
    });
    edit(&config.join("config_fed_client.json"), |document| {
        *document = json!({
            "format_version": 2,
            "executors": [{ "tasks": ["train"], "executor": {
                "path": "nvflare.app_common.np.np_trainer.NPTrainer" } }],
        });
    });
    federation.sign();
    let server = federation.start_server();
    let (mut first, mut second) = (federation.start_site("site-1"), federation.start_site("site-2"));
    let (code, _, said) = server.finish();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("it used up the 200 MiB of memory that it may"), "{said}");

    for (file, text) in modest {
        fs::write(file, text).unwrap();
    }
    federation.sign();
    let (code, out, said) = federation.start_server().finish();
    assert_eq!(code, Some(0), "{out}{said}");
    for site in [&mut first, &mut second] {
        site.close_stdin();
    }
    assert_eq!((first.finish().0, second.finish().0), (Some(0), Some(0)));
}

/// An array of float32 zeros with so many bytes.
fn npy(bytes: usize) -> Vec<u8> {
    let shape = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}", bytes / 4);
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    let header = format!("{shape:<117}\n");
    file.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    file.extend(header.as_bytes());
    file.resize(file.len() + bytes, 0);
    file
}

#[test]
fn a_job_whose_processes_at_the_server_keep_dying_ends_with_the_reason() {
    let federation = Federation::of_a_long_job();
    let mut server = federation.start_server();
    let (first, mut second) = (federation.start_site("site-1"), federation.start_site("site-2"));
    server.wait_for("round 1/1000 began");
    signal(first.id(), "STOP"); // so that no round is done
    for _ in 0..4 {
        signal(job_of(&server), "KILL");
        server.wait_for("started again");
    }
    signal(job_of(&server), "KILL");
    let (code, _, said) = server.finish();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("server: its process was killed by signal 9 (out of memory?)"), "{said}");
    assert!(said.contains("time in ten minutes without a round done"), "{said}");
    second.wait_for("ended with code 9"); // it was told to stop
}

#[test]
fn a_kit_may_have_its_jobs_as_tasks_and_may_not_have_mistakes() {
    let federation = Federation::of_a_long_job();
    federation.configure("site-1", "launcher", json!({ "kind": "task" }));
    let mut server = federation.start_server();
    let (first, second) = (federation.start_site("site-1"), federation.start_site("site-2"));
    server.wait_for("round 1/1000 began");
    assert!(first.children().is_empty());
    job_of(&second);

    federation.configure("server", "launcher", json!({ "kind": "proces" }));
    let refused = run(&["server", text(&federation.kit("server"))]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(said(&refused).contains("`proces`"), "{}", said(&refused));
}
