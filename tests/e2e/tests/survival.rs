//! Whatever is killed while a job runs, the job goes on and completes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::PathBuf;

use e2e::{Running, run, said, signal, text};

const ROUNDS: u32 = 30;

/// A server and two sites with kits and a job, which a demo has made and run once.
struct Federation {
    dir: tempfile::TempDir,
}

impl Federation {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rounds = ROUNDS.to_string();
        let made = run(&["demo", "--dir", text(dir.path()), "--sites", "2", "--rounds", &rounds]);
        assert!(made.status.success(), "{}", said(&made));
        Self { dir }
    }

    fn path(&self, of: &str) -> PathBuf {
        self.dir.path().join(of)
    }

    fn kit(&self, of: &str) -> PathBuf {
        self.path("project/prod_00").join(of)
    }

    /// A server that ends with the job.
    fn start_server(&self) -> Running {
        let mut server =
            Running::start(&["server", text(&self.kit("server")), "-v", "--job", text(&self.path("job"))]);
        server.wait_for("listening at");
        server
    }

    fn start_site(&self, name: &str) -> Running {
        Running::start(&["site", text(&self.kit(name)), "--heartbeat", "1", "--stop-with-stdin"])
    }

    fn start_sites(&self) -> [Running; 2] {
        [self.start_site("site-1"), self.start_site("site-2")]
    }

    /// The server ends with a job that has run all its rounds, and so do its sites.
    fn completes(&self, server: Running, sites: impl IntoIterator<Item = Running>) {
        let (code, out, said) = server.finish();
        assert_eq!(code, Some(0), "{out}{said}");
        assert!(out.contains(&format!("FINISHED:COMPLETED, {ROUNDS} rounds")), "{out}");
        for mut site in sites {
            site.close_stdin();
            let (code, out, said) = site.finish();
            assert_eq!(code, Some(0), "{out}{said}");
            assert!(out.contains("ended with code 0"), "{out}");
        }
        assert_eq!(self.folders_of_runs("server").len(), 2, "that of the demo, and one more");
    }

    /// Run folders in a kit.
    fn folders_of_runs(&self, kit: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.kit(kit)).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.join("meta.json").is_file()).collect()
    }
}

/// The one process that a daemon has started for its job.
fn job_of(daemon: &Running) -> u32 {
    let children = daemon.children();
    assert_eq!(children.len(), 1, "{children:?}");
    children[0]
}

fn kill(daemon: Running) {
    daemon.signal("KILL");
    assert_eq!(daemon.finish().0, None);
}

#[test]
fn the_servers_half_is_started_again() {
    let federation = Federation::new();
    let mut server = federation.start_server();
    let sites = federation.start_sites();
    server.wait_for("round 3/30 began");
    signal(job_of(&server), "KILL");
    let line = server.wait_for("started again");
    assert!(line.contains("killed by signal 9 (out of memory?)"), "{line}");
    federation.completes(server, sites);
}

#[test]
fn a_server_that_is_started_again_goes_on_with_its_job() {
    let federation = Federation::new();
    let mut server = federation.start_server();
    let sites = federation.start_sites();
    server.wait_for("round 3/30 began");
    kill(server);
    let mut server = federation.start_server();
    server.wait_for("is RUNNING: resumed after a restart of the server");
    federation.completes(server, sites);
}

#[test]
fn a_server_that_was_stopped_goes_on_with_its_job() {
    let federation = Federation::new();
    let mut server = federation.start_server();
    let sites = federation.start_sites();
    server.wait_for("round 3/30 began");
    server.signal("TERM");
    let (code, _, said) = server.finish();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("job stays open"), "{said}");
    let mut server = federation.start_server();
    server.wait_for("is RUNNING: resumed after a restart of the server");
    federation.completes(server, sites);
}

#[test]
fn a_site_that_is_started_again_is_given_the_job_again() {
    let federation = Federation::new();
    let mut server = federation.start_server();
    let [first, second] = federation.start_sites();
    server.wait_for("round 3/30 began");
    kill(first);
    let mut first = federation.start_site("site-1");
    first.wait_for("started");
    federation.completes(server, [first, second]);
}

#[test]
fn a_site_that_was_stopped_goes_on_with_its_job() {
    let federation = Federation::new();
    let mut server = federation.start_server();
    let [first, second] = federation.start_sites();
    server.wait_for("round 3/30 began");
    first.signal("TERM");
    let (code, _, said) = first.finish();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("job is left"), "{said}");
    server.wait_for("site-1 left");
    let mut first = federation.start_site("site-1");
    first.wait_for("started");
    federation.completes(server, [first, second]);
}

#[test]
fn a_sites_half_is_started_again() {
    let federation = Federation::new();
    let mut server = federation.start_server();
    let [mut first, second] = federation.start_sites();
    server.wait_for("round 3/30 began");
    signal(job_of(&first), "KILL");
    first.wait_for("started again");
    federation.completes(server, [first, second]);
}

#[test]
fn everything_at_once_is_started_again() {
    let federation = Federation::new();
    let mut server = federation.start_server();
    let [first, second] = federation.start_sites();
    server.wait_for("round 3/30 began");
    kill(first);
    kill(server);
    kill(second);
    let sites = federation.start_sites();
    federation.completes(federation.start_server(), sites);
}
