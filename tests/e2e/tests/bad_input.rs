//! What goes wrong outside of the program ends in one clear message, a fitting exit code, and nothing half-written.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use e2e::{Kits, provision, run, said, text};
use locule_identity::Usage;
use locule_identity_openssl::{CertificateAuthority, OpensslSigner, Subject};

/// Runs a command that must end with this code, having said all of these words, and leave these folders alone.
fn assert_refused(arguments: &[&str], code: i32, words: &[&str], untouched: &[&Path]) {
    let before: Vec<_> = untouched.iter().map(|dir| listing(dir)).collect();
    let output = run(arguments);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?} does not say {word:?}: {said}");
    }
    assert_eq!(said.matches("locule: ").count(), 1, "one message: {said}");
    let after: Vec<_> = untouched.iter().map(|dir| listing(dir)).collect();
    assert_eq!(after, before, "{arguments:?}");
}

/// The files below a folder and how long each is; the folders, too. But not who opened a journal last: whoever looks
/// into one does.
fn listing(dir: &Path) -> BTreeMap<PathBuf, Option<u64>> {
    let mut listed = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            listed.extend(listing(&path));
            listed.insert(path, None);
        } else if path.extension().is_none_or(|ending| ending != "writer") {
            listed.insert(path.clone(), Some(path.metadata().unwrap().len()));
        }
    }
    listed
}

/// The two daemons, each with its kit and the stem of its certificate's file.
fn daemons(kits: &Kits) -> [(&'static str, &Path, &'static str); 2] {
    [("server", &kits.server, "server"), ("site", &kits.sites[0], "client")]
}

#[test]
fn a_kit_without_its_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(dir.path(), 1);
    for (command, kit, stem) in daemons(&kits) {
        let key = kit.join(format!("startup/{stem}.key"));
        fs::remove_file(&key).unwrap();
        assert_refused(
            &[command, text(kit)],
            78,
            &[text(&key), "is missing", "copy the whole kit again"],
            &[kit],
        );
    }
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(dir.path(), 1);
    for (command, kit, stem) in daemons(&kits) {
        let key = kit.join(format!("startup/{stem}.key"));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let remedy = format!("chmod 600 {}", key.display());
        assert_refused(&[command, text(kit)], 77, &["0640", &remedy], &[kit]);
    }
}

#[test]
fn a_certificate_of_another_root_is_refused() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (kits, others) = (provision(dir.path(), 1), provision(other.path(), 1));
    for ((command, kit, stem), (_, other, _)) in daemons(&kits).into_iter().zip(daemons(&others)) {
        for ending in ["crt", "key"] {
            let file = format!("startup/{stem}.{ending}");
            fs::copy(other.join(&file), kit.join(&file)).unwrap();
        }
        let certificate = kit.join(format!("startup/{stem}.crt"));
        let root = kit.join("startup/rootCA.pem");
        let words = [text(&certificate), text(&root), "take both from the same kit"];
        assert_refused(&[command, text(kit)], 78, &words, &[kit]);
    }
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(dir.path(), 2);
    let key = kits.sites[0].join("startup/client.key");
    fs::copy(kits.sites[1].join("startup/client.key"), &key).unwrap();
    let words = [text(&key), "client.crt", "take both from the same kit"];
    assert_refused(&["site", text(&kits.sites[0])], 78, &words, &[&kits.sites[0]]);
}

#[test]
fn an_expired_certificate_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(dir.path(), 1);
    let day = Duration::from_secs(86_400);
    let long_ago = SystemTime::now() - 30 * day;
    let root = CertificateAuthority::create(&Subject::new("project"), 3650 * day, long_ago).unwrap();
    for (command, kit, stem) in daemons(&kits) {
        let (name, usage) = match command {
            "server" => ("server", Usage::Server),
            _ => ("site-1", Usage::Client),
        };
        let expired = root.issue(&Subject::new(name), &[], usage, day, long_ago).unwrap();
        let startup = kit.join("startup");
        let certificate = startup.join(format!("{stem}.crt"));
        fs::write(startup.join("rootCA.pem"), root.certificate_pem().unwrap()).unwrap();
        fs::write(&certificate, &expired.certificate_pem).unwrap();
        fs::write(startup.join(format!("{stem}.key")), &expired.key_pem).unwrap();
        let words = [text(&certificate), "expired", "provision again"];
        assert_refused(&[command, text(kit)], 78, &words, &[kit]);
    }
}

#[test]
fn a_folder_that_is_no_kit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(dir.path(), 1);
    let nowhere = dir.path().join("nowhere");
    for command in ["server", "site"] {
        assert_refused(&[command, text(&nowhere)], 66, &[text(&nowhere)], &[dir.path()]);
        assert_refused(&[command, text(dir.path())], 78, &[text(dir.path()), "startup"], &[dir.path()]);
    }
    let (server, site) = (text(&kits.server), text(&kits.sites[0]));
    assert_refused(&["site", server], 78, &[server, "server"], &[dir.path()]);
    assert_refused(&["server", site], 78, &[site, "site"], &[dir.path()]);
}

#[test]
fn mistakes_in_a_kit_are_all_shown_with_their_places() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(dir.path(), 1);
    let kit = &kits.sites[0];
    let file = kit.join("startup/fed_client.json");
    let mistaken =
        fs::read_to_string(&file).unwrap().replace("\"grpc\"", "7").replace("\"mtls\"", "\"mtsl\"");
    fs::write(&file, mistaken).unwrap();
    let words = ["2 mistakes", "fed_client.json:8:", "servers.#1.service.scheme", "mtsl", "mtls"];
    assert_refused(&["site", text(kit)], 78, &words, &[kit]);
}

#[test]
fn a_privacy_policy_with_mistakes_keeps_its_kit_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(dir.path(), 1);
    let policy = r#"{ "scopes": [{ "name": "patients",
    "task_result_filters": [{ "name": "ExcludeVar", "args": { "exclude_vars": "^head" } }] }],
  "default_scope": "patient" }"#;
    for (command, kit, _) in daemons(&kits) {
        fs::write(kit.join("local/privacy.json"), policy).unwrap();
        let words = ["privacy.json:2:", "did you mean", "ExcludeVars", "privacy.json:3:", "`patients`"];
        assert_refused(&[command, text(kit)], 78, &words, &[kit]);
    }
}

#[test]
fn an_authorization_policy_with_a_mistake_keeps_a_site_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(dir.path(), 1);
    let kit = &kits.sites[0];
    fs::write(kit.join("local/authorization.json"), r#"{ "format_version": "1.0" }"#).unwrap();
    assert_refused(&["site", text(kit)], 78, &["authorization.json", "`permissions`"], &[kit]);
}

#[test]
fn a_port_in_use_is_named_and_can_be_used_once_it_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(&dir.path().join("one"), 1);
    let mut first = kits.start_server();
    let (other, port) = (dir.path().join("other"), kits.port.to_string());
    assert!(run(&["provision", "--dir", text(&other), "--port", &port]).status.success());
    let second = Kits { server: other.join("project/prod_00/server"), ..kits };

    let startup = second.server.join("startup");
    let address = format!("localhost:{port}");
    assert_refused(&["server", text(&second.server)], 69, &[&address, "in use"], &[&startup]);

    first.close_stdin();
    assert_eq!(first.finish().0, Some(0));
    second.start_server();
}

#[test]
fn a_kit_whose_server_runs_already_is_not_started_twice() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(dir.path(), 1);
    let _running = kits.start_server();
    let kit = text(&kits.server);
    assert_refused(&["server", kit], 69, &["ledger.journal"], &[&kits.server]);
}

/// A job that a server with one site could run.
#[test]
fn a_kit_that_a_process_of_nvflare_runs_from_is_not_started() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(dir.path(), 1);
    // It ends with its input, which ends with this test.
    let mut theirs = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    for (command, kit, _) in daemons(&kits) {
        fs::write(kit.join("daemon_pid.fl"), theirs.id().to_string()).unwrap();
        let process = format!("is in use by process {}", theirs.id());
        assert_refused(&[command, text(kit)], 69, &[&process, "stop_fl.sh"], &[kit]);
    }
    drop(theirs.stdin.take());
    theirs.wait().unwrap();
}

#[test]
fn a_site_whose_limits_are_misspelt_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(dir.path(), 1);
    let resources = kits.sites[0].join("local/resources.json");
    for (key, meant) in [("pyhton", "python"), ("luancher", "launcher"), ("retentoin", "retention")] {
        fs::write(&resources, format!(r#"{{ "format_version": 2, "{key}": {{}} }}"#)).unwrap();
        let help = format!("did you mean `{meant}`");
        assert_refused(&["site", text(&kits.sites[0])], 78, &[key, &help], &[&kits.sites[0]]);
    }
    fs::write(&resources, r#"{ "format_version": 2, "launcher": [] }"#).unwrap();
    assert_refused(
        &["site", text(&kits.sites[0])],
        78,
        &["launcher", "expected an object"],
        &[&kits.sites[0]],
    );
}

fn write_job(dir: &Path) {
    let config = dir.join("app/config");
    fs::create_dir_all(&config).unwrap();
    fs::write(dir.join("meta.json"), META).unwrap();
    fs::write(config.join("config_fed_server.json"), SERVER).unwrap();
    fs::write(config.join("config_fed_client.json"), CLIENT).unwrap();
}

const META: &str = r#"{
  "name": "hello",
  "min_clients": 1,
  "deploy_map": { "app": ["@ALL"] }
}"#;

const SERVER: &str = r#"{
  "format_version": 2,
  "workflows": [
    { "id": "average", "path": "locule.workflow.FedAvg",
      "args": { "min_clients": 1, "num_rounds": 1, "model": { "weights": { "shape": [30] } } } }
  ]
}"#;

const CLIENT: &str = r#"{
  "format_version": 2,
  "executors": [
    { "tasks": ["train"],
      "executor": { "path": "locule.demo.LogisticRegression", "args": { "data": "data.csv" } } }
  ]
}"#;

/// Gives a server a job in which `old` of a file was replaced by `new`.
#[track_caller]
fn assert_job_refused(file: &str, old: &str, new: &str, words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(&dir.path().join("fed"), 1);
    let job = dir.path().join("job");
    write_job(&job);
    let file = job.join(file);
    let good = fs::read_to_string(&file).unwrap();
    assert!(good.contains(old), "{good}");
    fs::write(&file, good.replace(old, new)).unwrap();
    let words: Vec<&str> = words.iter().copied().chain([text(&job)]).collect();
    assert_refused(&["server", text(&kits.server), "--job", text(&job)], 65, &words, &[dir.path()]);
}

#[test]
fn a_job_whose_meta_is_wrong_is_refused_with_the_place() {
    let words = ["meta.json:3:", "min_clients"];
    assert_job_refused("meta.json", "\"min_clients\": 1", "\"min_clients\": \"one\"", &words);
}

#[test]
fn a_job_whose_configuration_is_no_json_is_refused_with_the_place() {
    let words = ["config_fed_server.json:3:"];
    assert_job_refused("app/config/config_fed_server.json", "\"workflows\":", "\"workflows\"", &words);
}

#[test]
fn a_job_with_an_unknown_argument_is_refused_with_a_suggestion() {
    let words = ["config_fed_server.json:5:", "num_round", "workflows.#1.args", "num_rounds"];
    assert_job_refused("app/config/config_fed_server.json", "num_rounds", "num_round", &words);
    let words = ["config_fed_client.json:5:", "dta", "executors.#1.executor.args"];
    assert_job_refused("app/config/config_fed_client.json", "\"data\"", "\"dta\"", &words);
}

#[test]
fn a_job_with_an_unknown_component_is_refused_with_a_suggestion() {
    let words =
        ["config_fed_server.json:4:", "locule.workflow.FedAvgg", "did you mean", "locule.workflow.FedAvg`"];
    assert_job_refused("app/config/config_fed_server.json", "FedAvg", "FedAvgg", &words);
    let words = ["config_fed_client.json:5:", "did you mean", "locule.demo.LogisticRegression`"];
    assert_job_refused(
        "app/config/config_fed_client.json",
        "LogisticRegression",
        "LogisticRegresion",
        &words,
    );
}

#[test]
fn a_job_with_an_unknown_app_is_refused() {
    assert_job_refused("meta.json", "\"app\"", "\"ap\"", &["meta.json:4:", "ap"]);
}

#[test]
fn a_job_with_a_missing_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(&dir.path().join("fed"), 1);
    let job = dir.path().join("job");
    let arguments = ["server", text(&kits.server), "--job", text(&job)];
    assert_refused(&arguments, 66, &[text(&job)], &[dir.path()]);
    write_job(&job);
    fs::remove_file(job.join("app/config/config_fed_client.json")).unwrap();
    assert_refused(&arguments, 65, &[text(&job), "client config is missing"], &[dir.path()]);
    fs::remove_file(job.join("meta.json")).unwrap();
    assert_refused(&arguments, 65, &[text(&job), "meta.json"], &[dir.path()]);
}

/// The signer of a kit.
fn signer(kit: &Path) -> OpensslSigner {
    let startup = kit.join("startup");
    OpensslSigner::from_files(&startup.join("client.crt"), &startup.join("client.key")).unwrap()
}

#[test]
fn a_job_that_no_administrator_vouches_for_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(&dir.path().join("fed"), 1);
    let others = provision(&dir.path().join("other"), 1);
    let job = dir.path().join("job");
    let state = kits.server.join("state");
    let refuse = |words: &[&str]| {
        let words: Vec<&str> = words.iter().copied().chain([text(&job), "administrator"]).collect();
        let arguments = ["server", text(&kits.server), "--job", text(&job)];
        // The second time the server has its state folder already, and what is there stays as it was.
        assert_refused(&arguments, 65, &words, &[&job]);
        assert_refused(&arguments, 65, &words, &[&job, &kits.server]);
        let run_folders = listing(&kits.server).into_keys().filter(|path| !path.starts_with(&state));
        assert!(run_folders.filter_map(|path| path.strip_prefix(&kits.server).map(Path::to_owned).ok()).all(
            |path| ["startup", "local", "transfer", "readme.txt"].iter().any(|known| path.starts_with(known))
        ));
    };
    let sign = |kit: &Path| {
        fs::remove_dir_all(&job).ok();
        write_job(&job);
        locule_job::sign_folder(&job, &signer(kit)).unwrap();
    };
    write_job(&job);
    refuse(&["is not signed"]);

    sign(&kits.admin);
    let meta = job.join("meta.json");
    fs::write(&meta, META.replace("hello", "hallo")).unwrap();
    refuse(&["`meta.json`", "does not verify"]);

    sign(&kits.admin);
    fs::write(job.join("app/config/more.json"), "{}").unwrap();
    refuse(&["`app/config/more.json` is not signed"]);

    sign(&kits.sites[0]);
    refuse(&["site-1"]);

    sign(&others.admin);
    refuse(&["is not accepted"]);
}

#[test]
fn a_site_that_expects_another_server_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(dir.path(), 1);
    let kit = &kits.sites[0];
    let file = kit.join("startup/fed_client.json");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("\"identity\": \"server\"", "\"identity\": \"another\"")).unwrap();
    let mut server = kits.start_server();
    let address = format!("localhost:{}", kits.port);
    let words = [&address, "server another at", "\"server\"", "\"another\"", "check that the kit"];
    assert_refused(&["site", text(kit)], 77, &words, &[kit]);
    server.close_stdin();
    assert!(!server.finish().1.contains("joined"));
}

#[test]
fn a_site_of_another_federation_is_not_let_in_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(&dir.path().join("one"), 1);
    let (other, port) = (dir.path().join("other"), kits.port.to_string());
    assert!(run(&["provision", "--dir", text(&other), "--port", &port]).status.success());
    let kit = other.join("project/prod_00/site-1");
    let mut server = kits.start_server();
    let address = format!("localhost:{port}");
    let words = [&address, "certificate", "check that the kit is of the same project"];
    assert_refused(&["site", text(&kit)], 77, &words, &[&kit]);
    server.close_stdin();
    assert!(!server.finish().1.contains("joined"));
}
