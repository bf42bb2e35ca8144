//! What is accepted and refused of a job's meta and its apps.
#![expect(clippy::unwrap_used, reason = "a test's helpers may panic like the tests")]

use std::fs;
use std::path::Path;

use locule_config::Document;
use locule_job::{DeployTo, JobError, JobFolder, JobMeta, has_custom_code};
use serde_json::json;

#[test]
fn deploy_maps_in_all_their_forms_are_read() {
    let listed = |names: &[&str]| DeployTo::Listed(names.iter().map(|name| (*name).to_owned()).collect());
    for (written, meant) in [
        (r#"["@ALL"]"#, DeployTo::All),
        (r#""@all""#, DeployTo::All),
        (r#"["server", "site-1"]"#, listed(&["server", "site-1"])),
        (r#"{"sites": ["server"]}"#, listed(&["server"])),
        (r#"{"targets": ["server", "site-1"]}"#, listed(&["server", "site-1"])),
        (
            r#"[{"sites": ["server"]}, "site-2", {"targets": ["site-1"]}]"#,
            listed(&["server", "site-2", "site-1"]),
        ),
    ] {
        let meta = meta(&format!(r#"{{"deploy_map": {{"app": {written}}}}}"#)).unwrap();
        assert_eq!(meta.deploy_map, [("app".to_owned(), meant)], "{written}");
    }
}

#[test]
fn each_participant_gets_its_app() {
    let meta =
        meta(r#"{"deploy_map": {"a": ["server"], "b": ["site-2", "site-1"]}, "min_clients": "2"}"#).unwrap();
    assert_eq!(
        (meta.app_of("server"), meta.app_of("site-1"), meta.app_of("site-3")),
        (Some("a"), Some("b"), None)
    );
    assert_eq!(meta.clients(), Some(vec!["site-1", "site-2"]));
    assert_eq!((meta.name.as_str(), meta.min_clients), ("hello", Some(2)));
}

#[test]
fn mistakes_are_told_in_the_words_of_the_stock_server() {
    check("{}", &["deploy_map is empty for job hello"]);
    check(r#"{"deploy_map": {}}"#, &["deploy_map is empty for job hello"]);
    check(r#"{"deploy_map": ["app"]}"#, &["deploy_map must be a dictionary for job hello"]);
    check(r#"{"deploy_map": {"app": []}}"#, &["No site is specified in deploy_map for job hello"]);
    check(
        r#"{"deploy_map": {"app": [{"site": ["server"]}, "server"]}}"#,
        &["Unknown keys {'site'} in deploy_map entry for job hello. Valid keys are: ['sites', 'targets']"],
    );
    check(
        r#"{"deploy_map": {"app": ["@ALL", "site-1"]}}"#,
        &["No other site can be specified if @ALL is used for job hello"],
    );
    check(r#"{"deploy_map": {"app": ["site-1"]}}"#, &["Missing server site in deploy_map for job hello"]);
    check(
        r#"{"deploy_map": {"a": ["server", "site-1"], "b": ["site-2", "site-1"]}}"#,
        &["Multiple apps to be deployed to following sites ['site-1'] for job hello"],
    );
    check(
        r#"{"deploy_map": {"../up": ["@ALL"]}}"#,
        &["invalid job app name '../up' in deploy_map for job hello"],
    );
    with_map(r#""min_clients": 0"#, "min_clients 0 must be positive for job hello");
    with_map(r#""min_clients": 3"#, "min 3 clients required for job hello, found 2.");
    with_map(r#""min_clients": "many""#, "min_clients must be a whole number for job hello");
    with_map(r#""min_clients": 1000001"#, "min_clients 1000001 must be less than 1000000 for job hello");
    with_map(
        r#""mandatory_clients": ["site-9", "site-1", "site-3"]"#,
        "Mandatory clients {'site-3', 'site-9'} are not in the deploy_map for job hello",
    );
    with_map(r#""resource_spec": []"#, "Invalid resource_spec for job hello");
    with_map(
        r#""resource_spec": {"site-1": 1}"#,
        "value for key site-1 in resource spec is expecting a dictionary",
    );
    with_map(
        r#""launcher_spec": {"site-1": {"dokcer": {}}}"#,
        "launcher_spec['site-1'] for job hello contains unknown launcher mode 'dokcer'; \
         valid modes: ['docker', 'k8s', 'process', 'slurm']",
    );
}

#[test]
fn all_mistakes_are_told_at_once_and_with_their_places() {
    let text =
        "{\n  \"deploy_map\": {\"app\": [\"site-1\"]},\n  \"min_clients\": -1,\n  \"resource_spec\": 5\n}";
    let mistakes = meta(text).unwrap_err();
    let mut places: Vec<_> = mistakes.iter().map(|one| (one.line, one.path.as_str())).collect();
    places.sort();
    assert_eq!(places, [(2, "deploy_map"), (3, "min_clients"), (4, "resource_spec")]);
}

#[test]
fn more_clients_than_listed_may_be_asked_for_if_the_job_goes_to_all() {
    assert_eq!(meta(r#"{"deploy_map": {"app": ["@ALL"]}, "min_clients": 9}"#).unwrap().min_clients, Some(9));
}

#[test]
fn custom_code_is_derived_from_the_content_and_never_believed() {
    let meta = meta(r#"{"deploy_map": {"app": ["@ALL"]}, "byoc": true, "study": "s"}"#).unwrap();
    assert_eq!(meta.to_json(false), json!({"deploy_map": {"app": ["@ALL"]}, "study": "s"}));
    assert_eq!(meta.to_json(true)["byoc"], json!(true));

    let job = job();
    assert!(!JobFolder::read(job.path().join("hello")).unwrap().byoc);
    fs::create_dir(job.path().join("hello/app/custom")).unwrap();
    assert!(JobFolder::read(job.path().join("hello")).unwrap().byoc);
    assert!(has_custom_code(&job.path().join("hello/app")));
}

#[test]
fn an_image_or_python_of_the_jobs_choice_counts_as_its_own_runtime() {
    let with = |spec: &str| meta(&format!(r#"{{"deploy_map": {{"app": ["@ALL"]}}, {spec}}}"#)).unwrap();
    for spec in [
        r#""launcher_spec": {"site-1": {"docker": {"image": "x"}}}"#,
        r#""launcher_spec": {"default": {"k8s": {"python_path": "/x"}}}"#,
        r#""launcher_spec": {"site-1": {"slurm": {"additional_node_command": "x"}}}"#,
        r#""resource_spec": {"site-1": {"docker": {"entrypoint": "x"}}}"#,
    ] {
        assert!(with(spec).brings_own_runtime("site-1"), "{spec}");
    }
    let elsewhere =
        with(r#""launcher_spec": {"site-2": {"docker": {"image": "x"}}, "site-1": {"process": {}}}"#);
    assert!(!elsewhere.brings_own_runtime("site-1"));
}

#[test]
fn a_priority_is_a_whole_number_within_bounds() {
    let of = |text: &str| meta(&format!(r#"{{"deploy_map": {{"app": ["@ALL"]}}, "priority": {text}}}"#));
    for (text, priority) in [("null", 0), ("5", 5), ("-100", -100), ("100", 100)] {
        assert_eq!(of(text).unwrap().priority, priority);
    }
    for text in ["101", "-101", "1.5", "\"high\"", "true"] {
        with_map(
            &format!(r#""priority": {text}"#),
            "priority must be a whole number from -100 to 100 for job hello",
        );
    }
}

#[test]
fn what_a_site_is_asked_for_is_what_the_stock_server_asks_for() {
    // What nvflare 2.9.0's `get_resource_manager_spec` says of site-1.
    for (spec, asked) in [
        (
            r#"{"site-1": {"num_of_gpus": 1, "mem_per_gpu_in_GiB": 4}}"#,
            r#"{"num_of_gpus": 1, "mem_per_gpu_in_GiB": 4}"#,
        ),
        (
            r#"{"@default": {"num_of_gpus": 1, "num_of_cpus": 2, "memory": "4Gi"}, "site-1": {"num_of_gpus": 2, "x": 3}}"#,
            r#"{"num_of_gpus": 2, "x": 3}"#,
        ),
        (
            r#"{"site-1": {"process": {"num_of_gpus": 1, "memory": "4Gi"}, "docker": {"num_of_gpus": 8}}}"#,
            r#"{"num_of_gpus": 1, "memory": "4Gi"}"#,
        ),
        (
            r#"{"@default": {"memory": "4Gi"}, "site-1": {"process": {"num_of_gpus": 1}, "docker": {}}}"#,
            r#"{"num_of_gpus": 1}"#,
        ),
        (r#"{"site-1": {"num_of_gpus": 0, "mem_per_gpu_in_GiB": 4, "y": 1}}"#, r#"{"y": 1}"#),
        (r#"{"site-1": {"docker": {"num_of_gpus": 8}}}"#, "{}"),
        (r#"{"site-2": {"num_of_gpus": 1}}"#, "{}"),
    ] {
        let meta =
            meta(&format!(r#"{{"deploy_map": {{"app": ["@ALL"]}}, "resource_spec": {spec}}}"#)).unwrap();
        let asked: serde_json::Map<String, serde_json::Value> = serde_json::from_str(asked).unwrap();
        assert_eq!(meta.resources_of("site-1"), asked, "{spec}");
    }
}

#[test]
fn a_job_with_its_apps_is_read() {
    let job = job();
    let read = JobFolder::read(job.path().join("hello")).unwrap();
    assert_eq!((read.folder_name.as_str(), read.meta.name.as_str()), ("hello", "Hello"));
    assert_eq!(read.app_dir("app"), job.path().join("hello/app"));
}

#[test]
fn an_app_that_is_not_complete_is_refused() {
    let job = job();
    let root = job.path().join("hello");
    let fails = |with: &str| {
        let JobError::Mistakes(mistakes) = JobFolder::read(&root).unwrap_err() else { panic!("no mistakes") };
        let found: Vec<_> = mistakes.iter().map(|one| one.message.clone()).collect();
        assert_eq!(found, [with]);
    };
    fs::remove_file(root.join("app/config/config_fed_client.json")).unwrap();
    fails("App 'app' will be deployed to client but client config is missing");
    fs::write(root.join("app/config/config_fed_client.conf"), "").unwrap();
    JobFolder::read(&root).unwrap();
    fs::remove_file(root.join("app/config/config_fed_server.json")).unwrap();
    fails("App 'app' will be deployed to server but server config is missing");
    fs::rename(root.join("app"), root.join("other")).unwrap();
    fails("App 'app' in deploy_map doesn't exist for job hello");
}

#[test]
fn a_meta_may_be_written_in_any_language() {
    let job = job();
    let root = job.path().join("hello");
    let expected = JobFolder::read(&root).unwrap().meta;
    let json = fs::read_to_string(root.join("meta.json")).unwrap();
    for (name, text) in [
        ("meta.yml", json.as_str()),
        ("meta.conf", json.trim().trim_start_matches('{').trim_end_matches('}')),
        ("meta.json.default", &json),
    ] {
        fs::remove_file(root.join("meta.json")).ok();
        fs::write(root.join(name), text).unwrap();
        assert_eq!(JobFolder::read(&root).unwrap().meta, expected, "{name}");
        fs::remove_file(root.join(name)).unwrap();
    }
}

#[test]
fn a_folder_without_a_meta_that_can_be_read_is_no_job() {
    let job = job();
    let root = job.path().join("hello");
    fs::remove_file(root.join("meta.json")).unwrap();
    assert!(matches!(JobFolder::read(&root), Err(JobError::NoMeta { .. })));
    assert!(matches!(JobFolder::read(root.join("nowhere")), Err(JobError::Read { .. })));
}

#[cfg(unix)]
#[test]
fn a_job_with_a_symbolic_link_is_refused() {
    let job = job();
    std::os::unix::fs::symlink("/etc", job.path().join("hello/app/custom")).unwrap();
    assert!(matches!(JobFolder::read(job.path().join("hello")), Err(JobError::Tree(_))));
}

fn job() -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = scratch.path().join("hello").join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        fs::write(path, text).unwrap();
    };
    write("meta.json", r#"{"name": "Hello", "deploy_map": {"app": ["@ALL"]}, "min_clients": 2}"#);
    write("app/config/config_fed_server.json", "{}");
    write("app/config/config_fed_client.json", "{}");
    scratch
}

fn meta(text: &str) -> Result<JobMeta, locule_config::Diagnostics> {
    JobMeta::from_document(&Document::parse_json("meta.json", text).unwrap(), "hello")
}

fn check(text: &str, expected: &[&str]) {
    let mistakes = meta(text).unwrap_err();
    let found: Vec<_> = mistakes.iter().map(|one| one.message.as_str()).collect();
    assert_eq!(found, expected, "{text}");
}

fn with_map(field: &str, expected: &str) {
    let map = r#""deploy_map": {"app": ["server", "site-1", "site-2"]}"#;
    check(&format!("{{{map}, {field}}}"), &[expected]);
}
