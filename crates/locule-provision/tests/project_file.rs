//! Project files: what they say, and how their mistakes are shown.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use insta::assert_snapshot;
use locule_provision::{
    ConnectTo, ConnectionSecurity, ListeningHost, Project, ProjectFile, ReadError, Runtime, provision,
};

const SMALL: &str = "\
api_version: 3
name: example_project
participants:
  - {name: server1, type: server, org: nvidia}
  - {name: site-1, type: client, org: nvidia}
  - {name: admin@nvidia.com, type: admin, org: nvidia, role: lead}
";

#[test]
fn what_a_file_leaves_out_is_what_nvflare_takes() {
    let mut expected = Project::new("example_project", "server1", "nvidia").site("site-1", "nvidia").admin(
        "admin@nvidia.com",
        "nvidia",
        "lead",
    );
    assert_eq!(project(SMALL), expected);
    let builder = "builders: [{path: nvflare.lighter.impl.static_file.StaticFileBuilder}]\n";
    expected.scheme = "http".into();
    assert_eq!(project(&format!("{SMALL}{builder}")), expected);
}

#[test]
fn old_forms_are_read() {
    let text = "\
api_version: 3
name: p
connection_security: TLS
allow_log_streaming: false
participants:
  - {name: server1, type: server, org: o, fed_learn_port: 9, host_names: other, listening_host: lh}
  - {name: site-1, type: client, org: o, connect_to: other, parent: server1, listening_host: {port: 0}}
";
    let project = project(text);
    assert_eq!((project.connection_security, project.allow_log_streaming), (ConnectionSecurity::Tls, false));
    assert_eq!((project.server.port, project.server.host_names), (9, vec!["other".to_owned()]));
    assert_eq!(project.server.listening_host, Some(ListeningHost::new("lh")));
    let site = &project.sites[0];
    let host = Some("other".to_owned());
    assert_eq!(site.connect_to, Some(ConnectTo { host, ..ConnectTo::default() }));
    assert_eq!((site.parent.as_ref(), &site.listening_host), (None, &Some(ListeningHost::new("localhost"))));
}

#[test]
fn names_too_long_for_a_certificate_are_cut() {
    let server = format!("{}.example.org", "s".repeat(60));
    let text = SMALL.replace("server1", &server).replace("example_project", &"p".repeat(70));
    let file = ProjectFile::parse("project.yml", &text, Path::new("")).unwrap();
    assert_eq!(file.project.name.len(), 63);
    assert_eq!(file.project.server.name, format!("{}.exa", "s".repeat(60)));
    assert_eq!(file.project.server.host, Some(server));
    assert_eq!(file.warnings.len(), 2, "{}", file.warnings);
}

#[test]
fn all_mistakes_are_shown_with_their_places() {
    let text = "\
api_version: 2
name: example project
participants:
  - name: server1
    type: server
    org: nvidia
    fed_learn_prot: 8002
    admin_port: 80030
    connection_security: mtsl
    host_names: [good, b@d]
  - name: R1
    type: relay
    org: nvidia
  - name: site 1
    type: client
    org: 2024
    connect_to: {name: R3}
    parent: site-9
    capacity: {num_of_gpus: -1}
  - name: site-2
    type: cleint
  - {name: overseer, type: overseer, org: nvidia}
  - {name: admin@nvidia.com, type: admin, org: nvidia, cc_config: x}
  - {name: second, type: server, org: nvidia, custom_ca_cert: nowhere.pem}
studies:
  Heart:
    site_orgs: {nvidia: [site-1, site-7]}
    admins: [admin@nvidia.org]
builders:
  - path: nvflare.lighter.impl.static_file.StaticFileBuilder
    args: {overseer_agent: {path: x}, require_signed_jobs: maybe}
  - path: nvflare.lighter.impl.he.HEBuilder
  - path: nvflare.lighter.impl.cert.CretBuilder
include: more.yml
";
    let mistakes = ProjectFile::parse("project.yml", text, Path::new("")).unwrap_err();
    assert_snapshot!(mistakes.to_string());
}

#[test]
fn what_is_doubtful_is_said_and_done() {
    let text = "\
api_version: 4
name: p
packager: {path: x}
participants:
  - {name: server1, type: server, org: o, enable_byoc: true}
  - {name: R1, type: relay, org: o, listening_host: {port: 1}, connection_security: mtls}
  - {name: site-1, type: client, org: o, connect_to: {name: R1, host: elsewhere}}
  - {name: a@b.org, type: admin, org: o, role: leed}
studies:
  heart: {site_orgs: {o: [site-1]}, admins: [a@b.org, a@b.org]}
  lung:
";
    let file = ProjectFile::parse("project.yml", text, Path::new("")).unwrap();
    assert_snapshot!(file.warnings.to_string());
    assert_eq!(file.project.studies[0].members.as_ref().unwrap().admins, ["a@b.org"]);
    assert_eq!((file.project.studies.len(), &file.project.studies[1].members), (2, &None));
}

#[test]
fn a_project_without_a_server_is_told_so_and_nothing_else() {
    let text = SMALL.replace("  - {name: server1, type: server, org: nvidia}\n", "");
    let mistakes = ProjectFile::parse("project.yml", &text, Path::new("")).unwrap_err();
    assert_eq!(mistakes.len(), 1, "{mistakes}");
    assert!(mistakes.to_string().contains("needs a participant of type server"), "{mistakes}");
}

#[test]
fn files_that_are_no_project_files_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("project.yml");
    assert!(matches!(ProjectFile::read(&path), Err(ReadError::Read { .. })));
    fs::write(&path, b"\xff").unwrap();
    assert!(matches!(ProjectFile::read(&path), Err(ReadError::NotText { .. })));
    fs::write(&path, "name: [").unwrap();
    let error = ProjectFile::read(&path).unwrap_err();
    assert!(matches!(error, ReadError::Mistakes { .. }), "{error}");
    fs::write(&path, SMALL).unwrap();
    ProjectFile::read(&path).unwrap();
}

#[test]
fn kits_for_nvflare_start_its_processes_again_until_they_are_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut project = project(SMALL);
    project.runtime = Runtime::Nvflare;
    project.docker_image = Some("nvflare/nvflare:2.9.0".into());
    let kits = provision(&project, folder.path(), SystemTime::now()).unwrap();
    let startup = kits.site_dirs[0].join("startup");
    for script in ["start.sh", "sub_start.sh", "stop_fl.sh", "docker.sh"] {
        assert!(
            Command::new("bash").arg("-n").arg(startup.join(script)).status().unwrap().success(),
            "{script}"
        );
    }
    let docker = fs::read_to_string(startup.join("docker.sh")).unwrap();
    assert!(
        docker.contains(
            "nvflare/nvflare:2.9.0 python3 -u -m nvflare.private.fed.app.client.client_train -m /workspace -s"
        ),
        "{docker}"
    );
    assert!(kits.admin_dirs[0].join("startup/fl_admin.sh").exists());

    // A python3 that notes how it was called, and the second time does what an ordered shutdown does.
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let python = "#!/bin/sh\necho \"$*\" >> \"$5/calls\"\n[ $(wc -l < \"$5/calls\") -lt 2 ] || touch \"$5/shutdown.fl\"\n";
    fs::write(bin.join("python3"), python).unwrap();
    fs::set_permissions(bin.join("python3"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let run = |script: &str, workspace: &Path| {
        let mut command = Command::new("bash");
        command.arg(startup.join(script)).env("PATH", &path).env("NVFL_WORKSPACE", workspace);
        command.output().unwrap().status.code()
    };
    let kit = kits.site_dirs[0].canonicalize().unwrap();
    assert_eq!(run("sub_start.sh", &kit), Some(0));
    let call = format!(
        "-u -m nvflare.private.fed.app.client.client_train -m {} -s fed_client.json --set secure_train=true \
         uid=site-1 org=nvidia config_folder=config\n",
        kit.display()
    );
    assert_eq!(fs::read_to_string(kit.join("calls")).unwrap(), call.repeat(2));
    assert!(!kit.join("shutdown.fl").exists() && !kit.join("daemon_pid.fl").exists());

    // In another folder, a copy of the kit runs.
    let elsewhere = folder.path().join("elsewhere");
    assert_eq!(run("sub_start.sh", &elsewhere), Some(0));
    assert!(elsewhere.join("startup/fed_client.json").exists() && elsewhere.join("calls").exists());
}

fn project(text: &str) -> Project {
    let file = ProjectFile::parse("project.yml", text, Path::new(""));
    let file = file.unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert!(file.warnings.is_empty(), "{}", file.warnings);
    file.project
}
