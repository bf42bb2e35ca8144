//! A federation started by hand, process by process, as the README has it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use e2e::{Running, provision};

/// Waits until the server has heard so many heartbeats of a site from now on.
fn wait_for_heartbeats(server: &mut Running, site: &str, count: usize) {
    let mut seen = 0;
    while seen < count {
        let line = server.wait_for(" heartbeat ");
        seen += usize::from(line.contains(&format!("site=\"{site}\"")));
    }
}

#[test]
fn a_heartbeat_a_second_is_heard_from_each_site() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(dir.path(), 2);
    let mut server = kits.start_server();
    let _sites = [kits.start_site(1), kits.start_site(2)];
    wait_for_heartbeats(&mut server, "site-1", 3);
    wait_for_heartbeats(&mut server, "site-2", 3);
}

#[test]
fn a_site_whose_input_ends_says_good_bye() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(dir.path(), 1);
    let mut server = kits.start_server();
    let mut site = kits.start_site(1);
    site.wait_for("site-1 registered");
    server.wait_for("site-1 joined");
    site.close_stdin();
    server.wait_for("site-1 left: quit");
    let (code, _, said) = site.finish();
    assert_eq!(code, Some(0), "{said}");
    server.close_stdin();
    let (code, _, said) = server.finish();
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_site_that_was_killed_registers_again() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(dir.path(), 1);
    let mut server = kits.start_server();
    let mut site = kits.start_site(1);
    site.wait_for("site-1 registered");
    site.signal("KILL");
    assert_eq!(site.finish().0, None);

    let mut site = kits.start_site(1);
    site.wait_for("site-1 registered");
    wait_for_heartbeats(&mut server, "site-1", 1);
}

#[test]
fn a_restarted_server_takes_its_sites_back_without_another_registration() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(dir.path(), 2);
    let mut server = kits.start_server();
    let mut sites = [kits.start_site(1), kits.start_site(2)];
    for site in &mut sites {
        site.wait_for("registered");
    }
    wait_for_heartbeats(&mut server, "site-1", 1);
    wait_for_heartbeats(&mut server, "site-2", 1);
    server.signal("KILL");
    assert_eq!(server.finish().0, None);

    let mut server = kits.start_server();
    wait_for_heartbeats(&mut server, "site-1", 2);
    wait_for_heartbeats(&mut server, "site-2", 2);
    for mut site in sites {
        site.close_stdin();
        let (code, out, said) = site.finish();
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(out.matches("registered").count(), 1, "{out}");
    }
    server.close_stdin();
    let (_, out, said) = server.finish();
    assert!(!said.contains("INFO locule_server::admit: registered"), "{said}");
    assert!(out.contains("site-2 left: quit"), "{out}");
}

#[test]
fn a_site_that_was_started_first_waits_for_its_server() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(dir.path(), 1);
    let mut site = kits.start_site(1);
    let complaint = site.wait_for("server not reached");
    assert!(complaint.contains(&format!("localhost:{}", kits.port)), "{complaint}");
    let mut server = kits.start_server();
    server.wait_for("site-1 joined");
    site.wait_for("site-1 registered");
}
