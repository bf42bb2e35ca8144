//! The binary has the transports that it was built with, and says so.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::Path;
use std::process::Command;

use e2e::root;

fn transports(binary: &Path) -> String {
    let output = Command::new(binary).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("transports: ")).unwrap().to_owned()
}

/// One test, since both builds put their binary into the same target folder.
#[test]
fn a_distribution_has_the_transports_that_were_chosen_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    for chosen in ["mem", "grpc,mem", "tcp,ws"] {
        let output = Command::new(env!("CARGO"))
            .args(["xtask", "dist", "--profile", "dev", "--transports", chosen, "--out"])
            .arg(dir.path())
            .current_dir(root())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !said.contains("warning:"), "{said}");
        let binary = dir.path().join("locule");
        assert_eq!(transports(&binary), chosen.replace(',', ", "));
        if chosen == "mem" {
            let output = Command::new(&binary).args(["demo", "--transport", "grpc"]).output().unwrap();
            assert!(!output.status.success());
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("grpc") && said.contains("mem"), "{said}");
        }
    }
}
