//! Kits are what nvflare 2.9.0 makes of the same project file; see `tests/vectors/PROVENANCE.md`.
#![expect(clippy::unwrap_used, reason = "a test's helpers may panic like the tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use locule_identity::{Usage, Verifier};
use locule_identity_openssl::{OpensslVerifier, SubjectName, subject_names};
use locule_kit::{RelayKit, ServerKit, SiteKit};
use locule_provision::{Project, ProjectFile, Provisioned, Runtime, provision};
use serde_json::{Value, json};
use tempfile::TempDir;

const KITS: &str = include_str!("../../../tests/vectors/kits/kits.json");
const LEDGER: &str = include_str!("../../../tests/vectors/kits/cert.json");

#[test]
fn documents_are_those_of_nvflare() {
    let (_out, kits) = provisioned(|_| {});
    let expected = table();
    let mut compared = 0;
    for (name, theirs) in expected["documents"].as_object().unwrap() {
        // A sample for a person to change, and no two are alike.
        if name.ends_with("privacy.json.sample") {
            continue;
        }
        let mut ours: Value = serde_json::from_str(&read(&kits.root.join(name))).unwrap();
        let mut theirs = theirs.clone();
        // Of the list only the length was kept, and ours has one entry more, for components of ours.
        if let Some(list) = ours.get_mut("class_allow_list") {
            *list = (list.as_array().unwrap().len() - 1).into();
        }
        // Where everybody dials loopback, ours listens to nobody else.
        if name == "server1/startup/fed_server.json" {
            assert_eq!(theirs["servers"][0]["service"]["target"], "server1:28002");
            theirs["servers"][0]["service"]["target"] = "localhost:28002".into();
        }
        // A site that says no to streaming is not heard by nvflare, which asks the project then.
        if name == "site-2/local/resources.json.default" {
            assert_eq!(theirs["allow_log_streaming"], true);
            theirs["allow_log_streaming"] = false.into();
        }
        assert_eq!(ours, theirs, "{name}");
        compared += 1;
    }
    assert!(compared > 30, "{compared}");
}

#[test]
fn folders_hold_what_those_of_nvflare_hold() {
    let (_out, kits) = provisioned(|project| project.runtime = Runtime::Nvflare);
    for (participant, theirs) in table()["folders"].as_object().unwrap() {
        let ours = listing(&kits.root.join(participant));
        let theirs: BTreeSet<String> =
            theirs.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        // A notebook, and a readme that lies elsewhere.
        let left_out: Vec<&String> = theirs.difference(&ours).collect();
        let more: Vec<&String> = ours.difference(&theirs).collect();
        match participant.split_once('@') {
            Some(_) => {
                assert_eq!(left_out, ["startup/readme.txt", "startup/system_info.ipynb"], "{participant}");
                assert_eq!(more, ["readme.txt"], "{participant}");
            }
            None if participant.starts_with('R') => {
                assert_eq!((left_out, more), (vec![], vec![&"readme.txt".to_owned()]))
            }
            None => assert_eq!((left_out, more), (vec![], vec![]), "{participant}"),
        }
    }
}

#[test]
fn certificates_say_what_those_of_nvflare_say() {
    let (_out, kits) = provisioned(|_| {});
    let root = OpensslVerifier::new(&fs::read(kits.server_dir.join("startup/rootCA.pem")).unwrap()).unwrap();
    for (name, theirs) in table()["certificates"].as_object().unwrap() {
        let pem = fs::read(kits.root.join(name)).unwrap();
        let names: Vec<String> = subject_names(&pem)
            .unwrap()
            .into_iter()
            .map(|name| match name {
                SubjectName::Dns(host) => host,
                SubjectName::Ip(address) => address.to_string(),
            })
            .collect();
        assert_eq!(json!(names), theirs["names"], "{name}");
        if name.ends_with("rootCA.pem") {
            continue;
        }
        let usage = if name.ends_with("server.crt") { Usage::Server } else { Usage::Client };
        let holder = root.identify(&pem, usage, SystemTime::now()).unwrap();
        let mut subject = vec![json!(["commonName", holder.common_name])];
        subject.extend(holder.organization.map(|org| json!(["organizationName", org])));
        subject.extend(holder.role.map(|role| json!(["unstructuredName", role])));
        assert_eq!(json!(subject), theirs["subject"], "{name}");
    }
}

#[test]
fn every_kit_of_the_project_opens() {
    let (_out, kits) = provisioned(|_| {});
    ServerKit::open(&kits.server_dir).unwrap();
    let relay = RelayKit::open(&kits.relay_dirs[1]).unwrap();
    assert_eq!(
        (relay.fqcn.as_str(), relay.parent.address.to_string().as_str()),
        ("R1.R2", "grpc://localhost:28012")
    );
    let site = SiteKit::open(&kits.site_dirs[2]).unwrap();
    assert_eq!(site.relay.unwrap().fqcn, "R1.R2");
    for kit in &kits.site_dirs {
        SiteKit::open(kit).unwrap();
    }
}

#[test]
fn a_workspace_of_nvflare_is_gone_on_with() {
    let out = tempfile::tempdir().unwrap();
    let state = out.path().join("example_project/state");
    fs::create_dir_all(&state).unwrap();
    fs::create_dir(out.path().join("example_project/prod_00")).unwrap();
    fs::write(state.join("cert.json"), LEDGER).unwrap();
    // When the certificates in it were valid.
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_000_000);
    let mut project = project();
    let kits = provision(&project, out.path(), now).unwrap();
    assert!(kits.root.ends_with("prod_01"));
    let theirs: Value = serde_json::from_str(LEDGER).unwrap();
    for (name, stem) in
        [("server1", "server"), ("R1", "client"), ("site-1", "client"), ("admin@nvidia.com", "client")]
    {
        let startup = kits.root.join(name).join("startup");
        for (ending, key) in [("crt", "cert"), ("key", "pri_key")] {
            assert_eq!(read(&startup.join(format!("{stem}.{ending}"))), theirs[name][key], "{name} {key}");
        }
    }
    let root = read(&kits.root.join("site-2/startup/rootCA.pem"));
    assert_eq!(theirs["root_cert"], root, "new participants stand under the same root");

    // A host that the kept certificate does not have needs a new one.
    project.server.host_names.push("server1.example.org".into());
    let again = provision(&project, out.path(), now).unwrap();
    let server = |kits: &Provisioned| read(&kits.server_dir.join("startup/server.crt"));
    assert_ne!(server(&kits), server(&again));
    let listener = |kits: &Provisioned| read(&kits.relay_dirs[0].join("startup/server.key"));
    assert_eq!(listener(&kits), listener(&again), "a relay keeps the key that it listens with");

    // nvflare reads these members and no others.
    let ours: Value = serde_json::from_str(&read(&state.join("cert.json"))).unwrap();
    for (name, entry) in ours.as_object().unwrap().iter().filter(|(name, _)| !name.starts_with("root_")) {
        assert!(entry["cert"].is_string() && entry["pri_key"].is_string(), "{name}");
    }
}

fn table() -> Value {
    serde_json::from_str(KITS).unwrap()
}

fn project() -> Project {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/kits");
    let file = ProjectFile::read(&folder.join("project.yml")).unwrap();
    file.project
}

fn provisioned(change: impl FnOnce(&mut Project)) -> (TempDir, Provisioned) {
    let out = tempfile::tempdir().unwrap();
    let mut project = project();
    change(&mut project);
    let kits = provision(&project, out.path(), SystemTime::now()).unwrap();
    (out, kits)
}

fn listing(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            found.insert(if path.is_dir() { format!("{name}/") } else { name });
            open.extend(path.is_dir().then_some(path));
        }
    }
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
