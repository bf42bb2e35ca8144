//! Kits from a project file.

use std::path::Path;

use e2e::{run, said, text};
use serde_json::Value;

#[test]
fn a_project_file_of_nvflare_becomes_kits_for_everybody_in_it() {
    let dir = tempfile::tempdir().expect("folder");
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/kits/project.yml");
    let output = run(&["provision", text(&project), "--workspace", text(dir.path()), "--output", "json"]);
    assert!(output.status.success(), "{}", said(&output));
    let made: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(made["project"], "example_project");
    for (kind, count) in [("relays", 2), ("sites", 5), ("admins", 4), ("warnings", 0)] {
        assert_eq!(made[kind].as_array().map(Vec::len), Some(count), "{kind} of {made}");
    }
    let relay = Path::new(made["relays"][0]["kit"].as_str().expect("a folder"));
    assert!(relay.join("startup/fed_relay.json").exists(), "{made}");
}

#[test]
fn mistakes_in_a_project_file_are_all_shown_and_nothing_is_written() {
    let dir = tempfile::tempdir().expect("folder");
    let (project, workspace) = (dir.path().join("project.yml"), dir.path().join("workspace"));
    let yaml = "api_version: 3\nname: p\nparticipants:\n  - {name: server1, type: sever, org: o}\n";
    std::fs::write(&project, yaml).expect("written");
    let output = run(&["provision", text(&project), "--workspace", text(&workspace)]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(65), "{said}");
    for words in ["project.yml:4:27", "did you mean `server`?", "needs a participant of type server"] {
        assert!(said.contains(words), "{words:?} in {said}");
    }
    assert!(!workspace.exists());

    let output = run(&["provision", text(&dir.path().join("nowhere.yml"))]);
    assert_eq!(output.status.code(), Some(66));
    let output = run(&["provision", text(&project), "--sites", "3"]);
    assert_eq!(output.status.code(), Some(64), "a file and options say the same things");
}
