//! Every kit of a project with relays and a hierarchy of sites, as `nvflare provision` 2.9.0 made them; see
//! `tests/vectors/PROVENANCE.md`.
#![expect(clippy::unwrap_used, reason = "a test's helpers may panic like the tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use locule_kit::{AdminKit, ConnectionSecurity, KitError, RelayKit, ServerKit, SiteKit};
use serde_json::Value;
use tempfile::TempDir;

const KITS: &str = include_str!("../../../tests/vectors/kits/kits.json");

#[test]
fn a_relay_below_the_server_is_read() {
    let kit = kit("R1");
    let relay = RelayKit::open(kit.path()).unwrap();
    assert_eq!((relay.project.as_str(), relay.name.as_str()), ("example_project", "R1"));
    assert_eq!((relay.fqcn.as_str(), relay.server_identity.as_str()), ("R1", "server1"));
    let parent = &relay.parent;
    assert_eq!(
        (parent.address.to_string().as_str(), parent.fqcn.as_str()),
        ("grpc://localhost:28002", "server")
    );
    assert_eq!((parent.identity.as_str(), parent.connection_security), ("server1", ConnectionSecurity::Mtls));
    assert_eq!(relay.listener.listen().to_string(), "grpc://localhost:28012");
    assert_eq!(relay.listener.connection_security, ConnectionSecurity::Mtls);
    assert!(relay.files.cert.ends_with("startup/client.crt"));
    assert!(relay.listener_files.unwrap().key.ends_with("startup/server.key"));
    assert_eq!(relay.auth_identity_map["R1.R2.site-3"], "site-3");
    assert_eq!((relay.auth_identity, relay.custom_ca, relay.allow_adhoc_connections), (None, None, false));
}

#[test]
fn a_relay_below_a_relay_is_read() {
    let kit = kit("R2");
    let relay = RelayKit::open(kit.path()).unwrap();
    assert_eq!((relay.fqcn.as_str(), relay.parent.fqcn.as_str()), ("R1.R2", "R1"));
    assert_eq!(relay.parent.identity, "R1");
    // A host by name is what others call this machine, not an interface of it.
    assert_eq!(
        (relay.listener.host.as_str(), relay.listener.listen().to_string().as_str()),
        ("relay2.example.org", "tcp://0:28022")
    );
    assert_eq!(relay.listener.connection_security, ConnectionSecurity::Tls);
}

#[test]
fn what_a_relay_does_not_say_is_what_nvflare_takes() {
    let kit = kit("R1");
    let fed = r#"{"project_name": "p", "identity": "R1", "server_identity": "s1", "connect_to":
        {"scheme": "grpc", "address": "localhost:1", "fqcn": "server", "connection_security": "None"}}"#;
    write(&kit.path().join("startup/fed_relay.json"), fed);
    let parent = RelayKit::open(kit.path()).unwrap().parent;
    assert_eq!((parent.identity.as_str(), parent.connection_security), ("s1", ConnectionSecurity::Mtls));
    write(&kit.path().join("startup/fed_relay.json"), &fed.replace(r#""server", "c"#, r#""R8.R9", "c"#));
    let relay = RelayKit::open(kit.path()).unwrap();
    assert_eq!((relay.parent.identity.as_str(), relay.fqcn.as_str()), ("R9", "R8.R9.R1"));
}

#[test]
fn a_relay_that_nobody_could_reach_is_refused() {
    let kit = kit("R1");
    let comm = kit.path().join("local/comm_config.json");
    for (text, wanted) in [
        (r#"{"backbone_conn_gen": 1}"#, "`internal` is missing"),
        (r#"{"internal": {"scheme": "tcp"}}"#, "`port` is missing"),
        (r#"{"internal": {"scheme": "tcp", "resources": {"host": "a"}}}"#, "`port` is missing"),
        (r#"{"internal": {"scheme": "tcp", "resources": {"ports": ["1-9"]}}}"#, "`ports` is not supported"),
        (r#"{"internal": {"resources": {"port": 0}}}"#, "`port` must be a port"),
    ] {
        write(&comm, text);
        let error = RelayKit::open(kit.path()).unwrap_err().to_string();
        assert!(error.contains(wanted) && error.contains("local/comm_config.json:1:"), "{error}");
    }
    fs::remove_file(&comm).unwrap();
    assert!(matches!(RelayKit::open(kit.path()), Err(KitError::Missing { file }) if file == comm));

    let kit = self::kit("R1");
    fs::remove_file(kit.path().join("startup/server.crt")).unwrap();
    let error = RelayKit::open(kit.path()).unwrap_err();
    assert!(matches!(&error, KitError::Missing { file } if file.ends_with("server.crt")), "{error}");
}

#[test]
fn sites_behind_relays_are_read() {
    let kit_2 = kit("site-2");
    let site = SiteKit::open(kit_2.path()).unwrap();
    assert_eq!(site.fqcn("site-2"), "R1.site-2");
    assert_eq!((site.fqsn.as_deref(), site.is_leaf), (Some("site-1.site-2"), false));
    assert_eq!((site.backbone_generation, site.internal_listener.as_ref().unwrap().port), (1, None));
    assert!(!site.site_config.contains_key("relay_config"));
    let relay = site.relay.unwrap();
    assert_eq!(
        (relay.address.to_string().as_str(), relay.identity.as_str()),
        ("grpc://localhost:28012", "R1")
    );

    let kit_3 = kit("site-3");
    let site = SiteKit::open(kit_3.path()).unwrap();
    assert_eq!(site.fqcn("site-3"), "R1.R2.site-3");
    let relay = site.relay.unwrap();
    assert_eq!((relay.address.to_string().as_str(), relay.identity.as_str()), ("tcp://relay2:28023", "R2"));
    assert_eq!(relay.connection_security, ConnectionSecurity::Clear);
}

#[test]
fn sites_that_dial_the_server_are_read() {
    let kit_1 = kit("site-1");
    let site = SiteKit::open(kit_1.path()).unwrap();
    assert_eq!((site.fqcn("site-1").as_str(), site.relay, site.is_leaf), ("site-1", None, false));
    assert_eq!((site.internal_listener, site.listener_files), (None, None));

    let kit_4 = kit("site-4");
    let site = SiteKit::open(kit_4.path()).unwrap();
    assert_eq!((site.server.host.as_str(), site.connection_security), ("127.0.0.1", ConnectionSecurity::Tls));
    assert_eq!(site.internal_listener.unwrap().listen().to_string(), "tcp://localhost:28013");
    assert!(site.listener_files.unwrap().cert.ends_with("startup/server.crt"));

    let kit_5 = kit("site-5");
    let site = SiteKit::open(kit_5.path()).unwrap();
    assert_eq!((site.server.scheme.as_str(), site.auth_identity.as_deref()), ("agrpc", Some("bank-five")));
    assert!(site.custom_ca.unwrap().ends_with("startup/customRootCA.pem"));
    assert_eq!(site.internal_listener.unwrap().listen().to_string(), "tcp://0:0");
}

#[test]
fn the_server_is_read() {
    let kit = kit("server1");
    let server = ServerKit::open(kit.path()).unwrap();
    assert_eq!((server.listen.to_string().as_str(), server.admin_listen.port), ("grpc://0:28002", 28003));
    let of_map = |cell: &str| server.auth_identity_map.get(cell).map(String::as_str);
    assert_eq!((of_map("R1.R2"), of_map("R1.R2.site-3"), of_map("R1")), (Some("R2"), Some("site-3"), None));
    assert_eq!((server.require_signed_jobs, server.internal_listener), (true, None));
}

#[test]
fn administrators_are_read() {
    for (name, host, security) in [
        ("admin@nvidia.com", "localhost", ConnectionSecurity::Mtls),
        ("org@bank.com", "localhost", ConnectionSecurity::Tls),
        ("lead@hospital.com", "127.0.0.1", ConnectionSecurity::Mtls),
        ("member@bank.com", "localhost", ConnectionSecurity::Mtls),
    ] {
        let kit = kit(name);
        let admin = AdminKit::open(kit.path()).unwrap();
        assert_eq!((admin.username.as_str(), admin.server.host.as_str()), (name, host));
        assert_eq!((admin.connection_security, admin.server_identity.as_str()), (security, "server1"));
    }
}

#[test]
fn the_kit_of_a_relay_is_no_other() {
    let error = SiteKit::open(kit("R1").path()).unwrap_err().to_string();
    assert!(error.contains("is that of a relay (startup/fed_relay.json)"), "{error}");
    let error = RelayKit::open(kit("site-1").path()).unwrap_err().to_string();
    assert!(error.contains("is not the startup kit of a relay: it is that of a site"), "{error}");
}

/// A participant's kit, with its documents as they were, and other files that only are there.
fn kit(participant: &str) -> TempDir {
    let kit = tempfile::tempdir().unwrap();
    let table: Value = serde_json::from_str(KITS).unwrap();
    for name in table["folders"][participant].as_array().unwrap().iter().map(|name| name.as_str().unwrap()) {
        let path = kit.path().join(name);
        if name.ends_with('/') {
            fs::create_dir_all(path).unwrap();
            continue;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = match table["documents"].get(format!("{participant}/{name}")) {
            Some(document) => document.to_string(),
            None => "something".to_owned(),
        };
        write(&path, &text);
    }
    kit
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    let mode = if path.extension().is_some_and(|ending| ending == "key") { 0o600 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
