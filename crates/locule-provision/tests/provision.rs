//! Kits that were provisioned are complete, private, readable and accepted under their root.
#![expect(clippy::unwrap_used, reason = "a test's helpers may panic like the tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use locule_identity::Usage;
use locule_identity_openssl::{OpensslSigner, OpensslVerifier};
use locule_job::{VerifyError, sign_folder, verify_folder};
use locule_kit::{AdminKit, KitError, ServerKit, SiteKit};
use locule_provision::{ConnectTo, ListeningHost, Project, ProvisionError, Provisioned, Relay, provision};
use tempfile::TempDir;

#[test]
fn kits_open_and_say_what_the_project_says() {
    let (_out, kits) = provisioned();
    assert!(kits.root.ends_with("example_project/prod_00"));

    let site = SiteKit::open(&kits.site_dirs[1]).unwrap();
    assert_eq!(site.project, "example_project");
    assert_eq!(site.server.to_string(), "grpc://localhost:18002");
    assert_eq!((site.server_identity.as_str(), site.fqsn.as_deref()), ("server1", Some("site-2")));
    assert_eq!(serde_json::Value::Object(site.site_config), serde_json::json!({"allow_log_streaming": true}));

    let server = ServerKit::open(&kits.server_dir).unwrap();
    // sites that dial a loopback name have a server that listens to nobody else
    assert_eq!(
        (server.listen.to_string(), server.admin_listen.port),
        ("grpc://localhost:18002".into(), 18003)
    );

    let admin = AdminKit::open(&kits.admin_dirs[0]).unwrap();
    assert_eq!((admin.username.as_str(), admin.server.port), ("lead@hospital.org", 18003));
}

#[test]
fn certificates_are_accepted_under_the_root_of_their_kit_and_no_other() {
    let (_out, kits) = provisioned();
    let site = SiteKit::open(&kits.site_dirs[0]).unwrap();
    let root = verifier(&site.files.read_ca().unwrap());
    let identity = site.files.identify(&root, Usage::Client, SystemTime::now()).unwrap();
    assert_eq!(
        (identity.common_name.as_str(), identity.organization.as_deref()),
        ("site-1", Some("hospital"))
    );
    assert_eq!(identity.role, None);

    let server = ServerKit::open(&kits.server_dir).unwrap();
    let identity = server.files.identify(&root, Usage::Server, SystemTime::now()).unwrap();
    assert_eq!(identity.common_name, "server1");
    assert!(server.files.identify(&root, Usage::Client, SystemTime::now()).is_err(), "a server is no client");

    let admin = AdminKit::open(&kits.admin_dirs[0]).unwrap();
    let identity = admin.files.identify(&root, Usage::Client, SystemTime::now()).unwrap();
    assert_eq!(identity.role.as_deref(), Some("lead"));

    let (_elsewhere, others) = provisioned();
    let stranger = SiteKit::open(&others.site_dirs[0]).unwrap();
    let error = stranger.files.identify(&root, Usage::Client, SystemTime::now()).unwrap_err();
    let KitError::Certificate { cert, ca, .. } = &error else { panic!("{error}") };
    assert_eq!((cert, ca), (&stranger.files.cert, &stranger.files.ca));
}

#[test]
fn private_things_are_private_and_scripts_can_be_run() {
    let (out, kits) = provisioned();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&kits.site_dirs[0].join("startup/client.key")), 0o600);
    assert_eq!(mode(&kits.server_dir.join("startup/server.key")), 0o600);
    assert_eq!(mode(&kits.server_dir.join("startup/start.sh")), 0o755);
    let state = out.path().join("example_project/state");
    assert_eq!((mode(&state), mode(&state.join("cert.json"))), (0o700, 0o600));
    for script in ["start.sh", "sub_start.sh", "stop_fl.sh"] {
        let path = kits.site_dirs[0].join("startup").join(script);
        assert!(
            std::process::Command::new("bash").arg("-n").arg(path).status().unwrap().success(),
            "{script}"
        );
    }
    let text = fs::read_to_string(kits.site_dirs[0].join("startup/sub_start.sh")).unwrap();
    assert!(text.contains(r#""$LOCULE" site "$KIT""#) && !text.contains('@'), "{text}");
}

#[test]
fn a_kit_is_started_again_until_it_ends_in_order() {
    let (out, kits) = provisioned();
    // A program that dies twice, then ends in order; it notes how it was called.
    let program = out.path().join("program");
    let script = "#!/bin/sh\necho \"$1 $2\" >> \"$2/calls\"\n[ $(wc -l < \"$2/calls\") -ge 3 ]\n";
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let kit = &kits.site_dirs[0];
    let start = kit.join("startup/sub_start.sh");
    let run = |program: &str| {
        std::process::Command::new("bash").arg(&start).env("LOCULE", program).output().unwrap().status.code()
    };
    assert_eq!(run(program.to_str().unwrap()), Some(0));
    let calls = fs::read_to_string(kit.join("calls")).unwrap();
    let call = format!("site {}\n", kit.canonicalize().unwrap().display());
    assert_eq!(calls, call.repeat(3));
    assert!(!kit.join("pid.fl").exists() && !kit.join("daemon_pid.fl").exists());

    assert_eq!(run("false"), Some(1), "a program that always dies is given up");
}

#[test]
fn participants_keep_their_keys_and_new_ones_get_theirs() {
    let out = tempfile::tempdir().unwrap();
    let first = provision(&project(), out.path(), SystemTime::now()).unwrap();
    let mut project = project().site("site-3", "clinic");
    project.server.host_names.push("server1.example.org".into());
    let second = provision(&project, out.path(), SystemTime::now()).unwrap();

    assert!(second.root.ends_with("prod_01"));
    let same = |a: &Path, b: &Path, file: &str| read(&a.join(file)) == read(&b.join(file));
    for file in ["startup/client.key", "startup/client.crt", "startup/rootCA.pem"] {
        assert!(same(&first.site_dirs[0], &second.site_dirs[0], file), "{file}");
    }
    assert!(second.site_dirs[2].join("startup/client.key").exists());
    assert!(!same(&first.server_dir, &second.server_dir, "startup/server.crt"), "it has a new host name");
}

#[test]
fn a_participant_that_changed_gets_a_new_certificate() {
    let out = tempfile::tempdir().unwrap();
    let first = provision(&project(), out.path(), SystemTime::now()).unwrap();
    let mut project = project();
    project.admins[0].role = "member".into();
    let second = provision(&project, out.path(), SystemTime::now()).unwrap();
    let role = |dir: &Path| {
        let kit = AdminKit::open(dir).unwrap();
        let root = verifier(&kit.files.read_ca().unwrap());
        kit.files.identify(&root, Usage::Client, SystemTime::now()).unwrap().role
    };
    assert_eq!(role(&first.admin_dirs[0]).as_deref(), Some("lead"));
    assert_eq!(role(&second.admin_dirs[0]).as_deref(), Some("member"));
}

#[test]
fn an_expired_root_is_not_used_any_more() {
    let out = tempfile::tempdir().unwrap();
    provision(&project(), out.path(), SystemTime::now()).unwrap();
    let later = SystemTime::now() + Duration::from_secs(361 * 24 * 3600);
    let error = provision(&project(), out.path(), later).unwrap_err();
    assert!(
        matches!(&error, ProvisionError::RootExpired { file } if file.ends_with("state/cert.json")),
        "{error}"
    );
    assert!(!out.path().join("example_project/prod_01").exists());
}

#[test]
fn a_damaged_ledger_is_reported_and_left_alone() {
    let out = tempfile::tempdir().unwrap();
    provision(&project(), out.path(), SystemTime::now()).unwrap();
    let file = out.path().join("example_project/state/cert.json");
    for damaged in ["{", r#"{"root_cert": "x"}"#, r#"{"root_cert": "x", "root_pri_key": "y"}"#, "[]"] {
        fs::write(&file, damaged).unwrap();
        let error = provision(&project(), out.path(), SystemTime::now()).unwrap_err();
        assert!(matches!(&error, ProvisionError::Ledger { .. }), "{damaged}: {error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), damaged);
    }
}

#[test]
fn all_mistakes_of_a_project_are_reported() {
    let check = |change: fn(&mut Project), expected: &str| {
        let mut project = project();
        change(&mut project);
        let out = tempfile::tempdir().unwrap();
        let text = provision(&project, out.path(), SystemTime::now()).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0, "nothing was written");
    };
    check(|p| p.name = "../up".into(), r#"name "../up" of the project must be letters"#);
    check(|p| p.sites[0].name = "site 1".into(), r#"name "site 1" of site 1 must be letters"#);
    check(|p| p.sites[0].name = "Server".into(), "this one is reserved");
    check(|p| p.sites[0].name = "root_cert".into(), "this one is reserved");
    check(|p| p.sites[0].name = "-x".into(), "no peer accepts its form");
    check(|p| p.sites[0].name = "server1-x".into(), "must not begin with one another");
    check(|p| p.sites[0].name = "site-2".into(), r#"name "site-2" of site 2 must be used once only"#);
    check(|p| p.sites[0].name = "s".repeat(65), "at most 64 characters");
    check(|p| p.sites[0].org = String::new(), r#"org "" of site 1 must be"#);
    check(|p| p.sites[0].parent = Some("site-9".into()), "another site of this project");
    check(|p| p.sites[0].parent = Some("site-1".into()), "nothing leads to the server");
    check(
        |p| p.admins[0].name = "lead".into(),
        r#"name "lead" of administrator 1 must be an e-mail address"#,
    );
    check(|p| p.server.name = "server_1".into(), "a host name by its form");
    check(|p| p.server.host_names.push("a b".into()), r#"host_names "a b" of the server must be"#);
    check(|p| p.server.port = 0, "fed_learn_port");
    check(|p| p.valid_days = 0, "root_valid_days");
    check(|p| p.config_folder = "$(x)".into(), "the name of a folder");
    check(|p| p.docker_image = Some("a; b".into()), "the name of an image");
    check(|p| p.relays.push(relay("R1", None, None)), "listening_host.port");
    check(|p| p.relays.push(relay("R1", Some(1), Some("R2"))), "the server or a relay of this project");
    let circle = |p: &mut Project| {
        p.relays = vec![relay("R1", Some(1), Some("R2")), relay("R2", Some(2), Some("R1"))];
    };
    check(circle, "nothing leads to the server");

    let mut twice = project();
    twice.name = "..".into();
    twice.server.org = "?".into();
    assert_eq!(twice.mistakes().len(), 2);
}

#[test]
fn an_app_signed_with_a_kit_is_verified_with_another() {
    let (out, kits) = provisioned();
    let app = out.path().join("app");
    fs::create_dir_all(app.join("config")).unwrap();
    fs::write(app.join("config/config_fed_client.json"), "{}").unwrap();
    let admin = AdminKit::open(&kits.admin_dirs[0]).unwrap();
    let signer = OpensslSigner::from_files(&admin.files.cert, &admin.files.key).unwrap();
    sign_folder(&app, &signer).unwrap();

    let site = SiteKit::open(&kits.site_dirs[0]).unwrap();
    let root = verifier(&site.files.read_ca().unwrap());
    let signers = verify_folder(&app, &root, SystemTime::now()).unwrap();
    assert_eq!(signers.len(), 1);
    assert_eq!(signers[0].common_name, "lead@hospital.org");

    let (_elsewhere, others) = provisioned();
    let other = SiteKit::open(&others.site_dirs[0]).unwrap();
    let other = verifier(&other.files.read_ca().unwrap());
    assert!(matches!(verify_folder(&app, &other, SystemTime::now()), Err(VerifyError::Signer { .. })));

    fs::write(app.join("config/config_fed_client.json"), "{ }").unwrap();
    assert!(matches!(verify_folder(&app, &root, SystemTime::now()), Err(VerifyError::Changed { .. })));
}

fn project() -> Project {
    let mut project = Project::new("example_project", "server1", "nvidia")
        .site("site-1", "hospital")
        .site("site-2", "bank")
        .admin("lead@hospital.org", "hospital", "lead");
    project.server.host = Some("localhost".into());
    project.server.host_names = vec!["server1".into(), "127.0.0.1".into()];
    project.server.port = 18002;
    project.server.admin_port = Some(18003);
    project
}

fn relay(name: &str, port: Option<u16>, above: Option<&str>) -> Relay {
    let listening = ListeningHost { port, ..ListeningHost::new("localhost") };
    let mut relay = Relay::new(name, "hospital", listening);
    let name = above.map(str::to_owned);
    relay.connect_to = Some(ConnectTo { name, ..ConnectTo::default() });
    relay
}

fn provisioned() -> (TempDir, Provisioned) {
    let out = tempfile::tempdir().unwrap();
    let kits = provision(&project(), out.path(), SystemTime::now()).unwrap();
    (out, kits)
}

fn verifier(root_pem: &[u8]) -> OpensslVerifier {
    OpensslVerifier::new(root_pem).unwrap()
}

fn read(path: &PathBuf) -> Vec<u8> {
    fs::read(path).unwrap()
}
