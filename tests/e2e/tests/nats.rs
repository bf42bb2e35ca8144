//! A federation whose participants meet at a NATS broker.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use broker::Broker;
use e2e::{Running, run, said, text};
use serde_json::{Value, json};

const ADMIN: &str = "admin@locule.org";
const ROUNDS: u64 = 100;

/// Kits in which all know the broker by a name and a password: a site behind a relay, and a site at a leaf node.
fn provision(dir: &Path, broker: &Broker, leaf: &Broker) -> PathBuf {
    let participants = json!([
        { "name": "server", "type": "server", "org": "locule", "default_host": "localhost",
          "fed_learn_port": broker.port() },
        { "name": "relay-1", "type": "relay", "org": "locule", "listening_host":
          { "default_host": "localhost", "port": broker.port(), "scheme": "nats", "connection_security": "mtls" } },
        { "name": ADMIN, "type": "admin", "org": "locule", "role": "project_admin" },
        { "name": "site-1", "type": "client", "org": "locule", "connect_to": { "name": "relay-1" } },
        { "name": "site-2", "type": "client", "org": "locule",
          "connect_to": { "host": "localhost", "port": leaf.port() } },
    ]);
    let builders = json!([
        { "path": "nvflare.lighter.impl.workspace.WorkspaceBuilder" },
        { "path": "nvflare.lighter.impl.static_file.StaticFileBuilder", "args": { "scheme": "nats" } },
        { "path": "nvflare.lighter.impl.cert.CertBuilder" },
        { "path": "nvflare.lighter.impl.signature.SignatureBuilder" },
    ]);
    let project = json!({ "api_version": 3, "name": "two.hospitals", "participants": participants,
        "builders": builders });
    let file = dir.join("project.yml");
    fs::write(&file, project.to_string()).unwrap();
    let output = run(&["provision", text(&file), "--workspace", text(dir)]);
    assert!(output.status.success(), "{}", said(&output));
    let kits = dir.join("two.hospitals/prod_00");
    for name in ["server", "relay-1", ADMIN, "site-1", "site-2"] {
        let login = json!({ "user": "federation", "password": "secret" });
        let file = kits.join(name).join("local/nats.json");
        fs::write(&file, login.to_string()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    kits
}

/// The job and the rows of a demo.
fn job(dir: &Path, kits: &Path) -> PathBuf {
    let demo = dir.join("demo");
    let made = run(&["demo", "--dir", text(&demo), "--sites", "2", "--rounds", "1", "--transport", "mem"]);
    assert!(made.status.success(), "{}", said(&made));
    for site in ["site-1", "site-2"] {
        fs::copy(demo.join("project/prod_00").join(site).join("data.csv"), kits.join(site).join("data.csv"))
            .unwrap();
    }
    let job = demo.join("job");
    let file = job.join("app/config/config_fed_server.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    config["workflows"][1]["args"]["num_rounds"] = ROUNDS.into();
    fs::write(&file, serde_json::to_vec_pretty(&config).unwrap()).unwrap();
    let signed = run(&["sign", text(&job), "--kit", text(&kits.join(ADMIN))]);
    assert!(signed.status.success(), "{}", said(&signed));
    job
}

#[test]
fn a_job_goes_on_when_the_broker_has_gone_and_returned() {
    let dir = tempfile::tempdir().unwrap();
    let users = r#"authorization { users = [ { user: "federation", password: "secret" } ] }"#;
    let mut broker = Broker::with(users).unwrap();
    let leaf = Broker::leaf_of(&broker).unwrap();
    let kits = provision(dir.path(), &broker, &leaf);
    let job = job(dir.path(), &kits);

    let start = |command, name: &str, more: &[&str]| {
        let kit = kits.join(name);
        Running::start(&[&[command, text(&kit), "-v", "--stop-with-stdin"], more].concat())
    };
    let mut server = start("server", "server", &[]);
    let at = format!("listening at nats://localhost:{}/two%2Ehospitals/server", broker.port());
    server.wait_for(&at); // of a subject, a dot would be two parts
    let mut relay = start("relay", "relay-1", &[]);
    relay.wait_for("registered");
    let mut sites = ["site-1", "site-2"].map(|name| {
        let site = start("site", name, &["--heartbeat", "1"]);
        server.wait_for(&format!("{name} joined"));
        site
    });
    let admin = kits.join(ADMIN);
    let submitted = run(&["job", "submit", text(&job), "--kit", text(&admin)]);
    assert!(submitted.status.success(), "{}", said(&submitted));
    server.wait_for("round 3/");
    broker.restart().unwrap();
    server.wait_for("the broker is back");
    let round = format!("round {ROUNDS}/{ROUNDS}");
    server.wait_for(&round);
    server.wait_for("FINISHED:COMPLETED");

    // A password that is wrong is nothing that waiting helps against.
    let login = json!({ "user": "federation", "password": "wrong" }).to_string();
    fs::write(kits.join("site-1/local/nats.json"), login).unwrap();
    for site in &mut sites {
        site.close_stdin();
    }
    let [first, _] = sites;
    assert_eq!(first.finish().0, Some(0));
    let (code, _, said) = start("site", "site-1", &[]).finish();
    assert!(code == Some(77) && said.contains("uthorization"), "{code:?} {said}");
}
