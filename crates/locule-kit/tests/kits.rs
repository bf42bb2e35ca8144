//! Kits as nvflare 2.9.0 makes them, and what is refused of kits that somebody has touched.
#![expect(clippy::unwrap_used, reason = "a test's helpers may panic like the tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use locule_kit::{
    AdminKit, ConnectionSecurity, KitError, ServerKit, SiteKit, UidSource, Workspace, job_resources,
};
use tempfile::TempDir;

const FED_CLIENT: &str = r#"{
  "format_version": 2,
  "servers": [
    {
      "name": "example_project",
      "service": {
        "target": "localhost:18002",
        "scheme": "grpc"
      },
      "identity": "server1"
    }
  ],
  "client": {
    "ssl_private_key": "client.key",
    "ssl_cert": "client.crt",
    "ssl_root_cert": "rootCA.pem",
    "fqsn": "site-1",
    "is_leaf": true,
    "connection_security": "mtls"
  }
}"#;

const SITE_RESOURCES: &str = r#"{
  "format_version": 2,
  "class_list_enforcement_mode": "enforce",
  "class_allow_list": ["nvflare.app_common.np.np_trainer.NPTrainer"],
  "allow_log_streaming": true,
  "client": { "retry_timeout": 30, "compression": "Gzip" },
  "components": [{ "id": "process_launcher", "path": "a.B", "args": {} }]
}"#;

const FED_SERVER: &str = r#"{
  "format_version": 2,
  "servers": [
      {
          "name": "example_project",
          "service": { "target": "server1:18002", "scheme": "grpc" },
          "admin_server": "server1",
          "admin_port": 18003,
          "ssl_private_key": "server.key",
          "ssl_cert": "server.crt",
          "ssl_root_cert": "rootCA.pem",
          "connection_security": "mtls",
          "auth_identity_map": { "R1.site-1": "site-1" }
      }
  ]
}"#;

const SERVER_RESOURCES: &str = r#"{
  "format_version": 2,
  "servers": [{
    "admin_storage": "transfer", "max_num_clients": 7, "heart_beat_timeout": 600,
    "download_job_url": "http://download.server.com/", "admin_timeout": 10.0
  }]
}"#;

const FED_ADMIN: &str = r#"{
  "format_version": 1,
  "admin": {
    "project_name": "example_project", "username": "admin@nvidia.com", "server_identity": "server1",
    "scheme": "grpc", "host": "localhost", "port": 18003, "connection_security": "mtls",
    "uid_source": "user_input", "with_file_transfer": true,
    "upload_dir": "transfer", "download_dir": "transfer",
    "client_key": "client.key", "client_cert": "client.crt", "ca_cert": "rootCA.pem"
  }
}"#;

const ADMIN_RESOURCES: &str =
    r#"{ "format_version": 1, "admin": { "idle_timeout": 450.0, "prompt": "> " } }"#;

#[test]
fn a_stock_site_kit_is_read() {
    let kit = Kit::site();
    let site = SiteKit::open(kit.path()).unwrap();
    assert_eq!(site.project, "example_project");
    assert_eq!(site.server.to_string(), "grpc://localhost:18002");
    assert_eq!(site.server_identity, "server1");
    assert_eq!(site.connection_security, ConnectionSecurity::Mtls);
    assert_eq!(site.files.key, kit.path().join("startup/client.key"));
    assert_eq!((site.fqsn.as_deref(), site.is_leaf), (Some("site-1"), true));
    assert_eq!(site.timeouts.communication, Duration::from_secs(300));
    assert_eq!(site.state_dir(), kit.path().join("state"));
    assert!(site.require_signed_jobs, "signatures are required unless the kit says otherwise");
    assert!(site.relay.is_none() && site.custom_ca.is_none() && site.internal_listener.is_none());
    assert_eq!(site.backbone_generation, 2);
    assert_eq!(serde_json::Value::Object(site.site_config), serde_json::json!({"allow_log_streaming": true}));
    let component = site.resources.root().find(&["components", "#1", "id"]).unwrap();
    assert_eq!(
        (component.as_str(), component.file()),
        (Some("process_launcher"), "local/resources.json.default")
    );
}

/// What a site's kit of nvflare 2.7 says after its client.
const AGENT: &str = r#""overseer_agent": {
    "path": "nvflare.ha.dummy_overseer_agent.DummyOverseerAgent",
    "args": { "sp_end_point": "localhost:18002:18003" }
  },
  "client""#;

#[test]
fn the_server_of_an_older_kit_is_the_one_that_its_agent_names() {
    let kit = Kit::site();
    kit.replace("startup/fed_client.json", "\"client\"", AGENT);
    kit.replace("startup/fed_client.json", "localhost:18002\",", "elsewhere:1\",");
    assert_eq!(SiteKit::open(kit.path()).unwrap().server.to_string(), "grpc://elsewhere:1", "it is named");
    kit.replace("startup/fed_client.json", "\"target\": \"elsewhere:1\",", "");
    assert_eq!(SiteKit::open(kit.path()).unwrap().server.to_string(), "grpc://localhost:18002");

    let mistake = |what: &str, with: &str| {
        kit.replace("startup/fed_client.json", what, with);
        let KitError::Configuration { mistakes, .. } = SiteKit::open(kit.path()).unwrap_err() else {
            panic!("not a mistake in the configuration")
        };
        mistakes.to_string()
    };
    let said = mistake("localhost:18002:18003", "localhost:18002");
    assert!(said.contains("`sp_end_point` must be `host:port:port`"), "{said}");
    let said = mistake("sp_end_point", "overseer_end_point");
    assert!(said.contains("an overseer of nvflare 2.7 is not supported"), "{said}");
}

#[test]
fn a_stock_server_kit_is_read() {
    let kit = Kit::server();
    let server = ServerKit::open(kit.path()).unwrap();
    assert_eq!(server.target.to_string(), "grpc://server1:18002");
    assert_eq!(server.listen.to_string(), "grpc://0:18002");
    assert_eq!(server.admin_listen.to_string(), "grpc://0:18003");
    assert_eq!(server.max_sites, 7);
    assert_eq!(server.auth_identity_map["R1.site-1"], "site-1");
    assert_eq!(server.admin_storage, kit.path().join("transfer"));

    kit.replace("startup/fed_server.json", "server1:18002", "localhost:18002");
    assert_eq!(ServerKit::open(kit.path()).unwrap().listen.host, "localhost");
}

#[test]
fn a_stock_admin_kit_is_read() {
    let kit = Kit::admin();
    let admin = AdminKit::open(kit.path()).unwrap();
    assert_eq!(admin.server.to_string(), "grpc://localhost:18003");
    assert_eq!((admin.username.as_str(), admin.uid_source), ("admin@nvidia.com", UidSource::UserInput));
    assert_eq!(admin.idle_timeout, Duration::from_secs(450));
    assert_eq!(admin.download_dir, kit.path().join("transfer"));
}

#[test]
fn a_kit_behind_a_relay_is_read() {
    let kit = Kit::site();
    let relay = r#"{"format_version": 2, "relay_config": {"scheme": "tcp", "identity": "R1",
        "address": "relay1:18012", "fqcn": "R1", "connection_security": "tls"}}"#;
    kit.write("local/relay__resources.json", relay);
    let comm = r#"{"allow_adhoc_conns": false, "backbone_conn_gen": 1, "internal": {"scheme": "tcp",
        "resources": {"host": "localhost", "port": 18013, "connection_security": "clear"}}}"#;
    kit.write("local/comm_config.json", comm);
    let site = SiteKit::open(kit.path()).unwrap();
    let relay = site.relay.unwrap();
    assert_eq!((relay.address.to_string().as_str(), relay.identity.as_str()), ("tcp://relay1:18012", "R1"));
    assert_eq!(relay.connection_security, ConnectionSecurity::Tls);
    let internal = site.internal_listener.unwrap();
    assert_eq!((internal.port, internal.connection_security), (Some(18013), ConnectionSecurity::Clear));
    assert_eq!(site.backbone_generation, 1);
}

#[test]
fn what_the_operator_wrote_replaces_the_default_resources() {
    let kit = Kit::site();
    kit.write(
        "local/resources.json",
        r#"{ "heart_beat_interval": 0.5, "client": { "site_config": {"gpu": 1} } }"#,
    );
    kit.write("local/more__resources.json", r#"{ "components": [{ "id": "b" }] }"#);
    kit.write("local/more__p_resources.json", r#"{ "components": [{ "id": "c" }] }"#);
    kit.write("local/more__j_resources.json", r#"{ "components": [{ "id": "of jobs only" }] }"#);
    let site = SiteKit::open(kit.path()).unwrap();
    assert_eq!(site.timeouts.heartbeat_interval, Duration::from_millis(500));
    assert_eq!(serde_json::Value::Object(site.site_config), serde_json::json!({"gpu": 1}));
    let components = site.resources.root().get("components").unwrap().to_json();
    assert_eq!(components, serde_json::json!([{"id": "b"}, {"id": "c"}]));
}

#[test]
fn jobs_see_their_own_resources_and_not_those_of_the_parent() {
    let kit = Kit::site();
    kit.write("local/resources.json", r#"{ "components": [{ "id": "a" }] }"#);
    kit.write("local/job_resources.json", r#"{ "components": [{ "id": "b" }] }"#);
    kit.write("local/more__p_resources.json", r#"{ "components": [{ "id": "of the parent" }] }"#);
    kit.write("local/more__j_resources.json", r#"{ "components": [{ "id": "c" }] }"#);
    let merged = job_resources(&Workspace::new(kit.path()), "fed_client.json").unwrap();
    let components = merged.root().get("components").unwrap().to_json();
    assert_eq!(components, serde_json::json!([{"id": "a"}, {"id": "b"}, {"id": "c"}]));
}

#[test]
fn a_private_key_that_others_can_read_is_refused() {
    let kit = Kit::site();
    for mode in [0o640, 0o604, 0o660] {
        kit.mode("startup/client.key", mode);
        let error = SiteKit::open(kit.path()).unwrap_err();
        assert!(matches!(error, KitError::OpenKey { mode: found, .. } if found == mode), "{error}");
        assert!(
            error
                .to_string()
                .contains(&format!("chmod 600 {}", kit.path().join("startup/client.key").display()))
        );
    }
    kit.mode("startup/client.key", 0o400);
    SiteKit::open(kit.path()).unwrap();
}

#[test]
fn a_file_that_anybody_can_change_is_refused() {
    for file in [
        "startup/rootCA.pem",
        "startup/client.crt",
        "startup/fed_client.json",
        "local/resources.json.default",
    ] {
        let kit = Kit::site();
        kit.mode(file, 0o666);
        let error = SiteKit::open(kit.path()).unwrap_err();
        assert!(
            matches!(&error, KitError::WritableByAnybody { file: found, .. } if found.ends_with(file)),
            "{error}"
        );
    }
}

#[test]
fn a_missing_file_is_named() {
    for file in
        ["startup/rootCA.pem", "startup/client.crt", "startup/client.key", "local/resources.json.default"]
    {
        let kit = Kit::site();
        fs::remove_file(kit.path().join(file)).unwrap();
        let error = SiteKit::open(kit.path()).unwrap_err();
        assert!(matches!(&error, KitError::Missing { file: found } if found.ends_with(file)), "{error}");
    }
}

#[test]
fn a_folder_in_place_of_the_key_is_not_taken_for_one() {
    let kit = Kit::site();
    fs::remove_file(kit.path().join("startup/client.key")).unwrap();
    fs::create_dir(kit.path().join("startup/client.key")).unwrap();
    assert!(matches!(SiteKit::open(kit.path()), Err(KitError::Read { .. })));
}

#[test]
fn the_kit_of_somebody_else_is_recognised() {
    let text = SiteKit::open(Kit::server().path()).unwrap_err().to_string();
    assert!(text.contains("is not the startup kit of a site: it is that of a server"), "{text}");
    let text = ServerKit::open(Kit::site().path()).unwrap_err().to_string();
    assert!(text.contains("it is that of a site (startup/fed_client.json)"), "{text}");
    let nothing = tempfile::tempdir().unwrap();
    let text = AdminKit::open(nothing.path()).unwrap_err().to_string();
    assert!(text.contains("it has no startup/fed_admin.json"), "{text}");
}

#[test]
fn all_mistakes_are_reported_with_their_places() {
    let kit = Kit::site();
    kit.replace("startup/fed_client.json", "localhost:18002", "localhost");
    kit.replace("startup/fed_client.json", "\"mtls\"", "\"mtsl\"");
    kit.replace("startup/fed_client.json", "\"is_leaf\": true", "\"is_leaf\": \"yes\"");
    kit.replace("startup/fed_client.json", "\"name\"", "\"nmae\"");
    kit.write("local/resources.json", r#"{ "heart_beat_interval": 1e300 }"#);
    let KitError::Configuration { mistakes, .. } = SiteKit::open(kit.path()).unwrap_err() else {
        panic!("not a mistake in the configuration")
    };
    let mut found: Vec<_> =
        mistakes.iter().map(|one| (one.path.as_str(), one.file.as_str(), one.line)).collect();
    found.sort();
    let fed = "startup/fed_client.json";
    assert_eq!(
        found,
        [
            ("client.connection_security", fed, 19),
            ("client.is_leaf", fed, 18),
            ("heart_beat_interval", "local/resources.json", 1),
            ("servers.#1", fed, 4),
            ("servers.#1.service.target", fed, 7),
        ]
    );
    let text = mistakes.to_string();
    assert!(text.contains("did you mean `mtls`?") && text.contains("there is `nmae`"), "{text}");
}

#[test]
fn text_that_is_no_json_is_reported_with_its_place() {
    let kit = Kit::site();
    kit.write("startup/fed_client.json", "{\n  \"servers\": [,\n}");
    let text = SiteKit::open(kit.path()).unwrap_err().to_string();
    assert!(text.contains("startup/fed_client.json:2:"), "{text}");
    fs::write(kit.path().join("startup/fed_client.json"), b"{\"servers\": \"\xff\"}").unwrap();
    assert!(matches!(SiteKit::open(kit.path()), Err(KitError::NotText { .. })));
}

#[test]
fn files_that_disagree_are_not_merged() {
    let kit = Kit::site();
    kit.write("local/odd__resources.json", r#"{ "client": ["no", "object"] }"#);
    let text = SiteKit::open(kit.path()).unwrap_err().to_string();
    assert!(text.contains("local/odd__resources.json") && text.contains("startup/fed_client.json"), "{text}");
}

#[test]
fn a_job_identifier_becomes_a_path_only_if_it_is_a_plain_name() {
    let workspace = Workspace::new("site-1");
    let run = workspace.run_dir("0c8b4f4e-6f0e-4f8d-9a39-3d6c1f8a2b11").unwrap();
    assert_eq!(run.app("site-1"), Path::new("site-1/0c8b4f4e-6f0e-4f8d-9a39-3d6c1f8a2b11/app_site-1"));
    assert_eq!(run.meta_file().file_name().unwrap(), "meta.json");
    let too_long = "x".repeat(129);
    for bad in [
        "", ".", "..", "../x", "a/b", "a\\b", "/etc", "startup", "Local", "state", "transfer", "-x", "a b",
        "a\0", &too_long,
    ] {
        assert!(workspace.run_dir(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn the_state_folder_is_open_to_its_owner_only() {
    let kit = Kit::site();
    let site = SiteKit::open(kit.path()).unwrap();
    for _ in 0..2 {
        let folder = site.workspace.make_state_dir().unwrap();
        assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
    }
}

/// A kit in a folder of its own.
struct Kit(TempDir);

impl Kit {
    fn site() -> Kit {
        Kit::new("client", ("fed_client.json", FED_CLIENT), SITE_RESOURCES)
    }

    fn server() -> Kit {
        Kit::new("server", ("fed_server.json", FED_SERVER), SERVER_RESOURCES)
    }

    fn admin() -> Kit {
        Kit::new("client", ("fed_admin.json", FED_ADMIN), ADMIN_RESOURCES)
    }

    fn new(stem: &str, fed: (&str, &str), resources: &str) -> Kit {
        let kit = Kit(tempfile::tempdir().unwrap());
        for folder in ["startup", "local", "transfer"] {
            fs::create_dir(kit.path().join(folder)).unwrap();
        }
        kit.write("startup/rootCA.pem", "a root");
        kit.write(&format!("startup/{stem}.crt"), "a certificate");
        kit.write(&format!("startup/{stem}.key"), "a key");
        kit.mode(&format!("startup/{stem}.key"), 0o600);
        kit.write(&format!("startup/{}", fed.0), fed.1);
        kit.write("local/resources.json.default", resources);
        kit
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
        self.mode(name, 0o644);
    }

    fn replace(&self, name: &str, what: &str, with: &str) {
        let text = fs::read_to_string(self.path().join(name)).unwrap();
        assert!(text.contains(what), "{name} has no {what}");
        self.write(name, &text.replace(what, with));
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}
