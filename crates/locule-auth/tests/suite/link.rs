use locule_auth::CertificateLinkPolicy;
use locule_message::Fqcn;
use locule_switch::{LinkFacts, LinkPolicy, LinkSecurity};

use crate::scene::{fqcn, link};

const ADMIN: &str = "_admin_4171c61e-1c4f-4ce8-b3b4-70aa2a5a4533";

fn server() -> CertificateLinkPolicy {
    CertificateLinkPolicy::new(Fqcn::server()).expect(Fqcn::server(), "hub.example")
}

fn site() -> CertificateLinkPolicy {
    CertificateLinkPolicy::new(fqcn("site-1")).expect(Fqcn::server(), "hub.example")
}

fn admits(policy: &CertificateLinkPolicy, peer: &str, common_name: &str) -> bool {
    policy.admit(&link(peer, common_name)).is_ok()
}

#[test]
fn a_neighbour_bears_the_name_of_its_certificate() {
    for (peer, common_name, expected) in [
        ("site-1", "site-1", true),
        ("site-1.job", "site-1", true),
        ("site-1.job.-client_api_trainer_1", "site-1", true),
        ("site-9", "site-2", false),
        ("site-1.site-2", "site-2", false),
        ("site-1", "site-11", false),
        ("site-11", "site-1", false),
        ("site-1", "", false),
        ("site-1", "N/A", false),
        ("site-1", "SITE-1", false),
    ] {
        assert_eq!(admits(&server(), peer, common_name), expected, "{peer} by {common_name}");
    }
}

#[test]
fn nobody_bears_a_name_of_the_server_over_a_network() {
    for peer in ["server", "server.site-1", "server.job"] {
        for common_name in ["server", "site-1", "job", "hub.example"] {
            assert!(!admits(&server(), peer, common_name), "{peer} by {common_name}");
        }
    }
}

#[test]
fn a_site_takes_only_the_server_that_its_kit_names() {
    let dialed = |common_name: Option<&str>| LinkFacts {
        accepted: false,
        common_name: common_name.map(str::to_owned),
        ..link("server", "")
    };
    assert!(site().admit(&dialed(Some("hub.example"))).is_ok());
    assert!(site().admit(&dialed(Some("localhost"))).is_err());
    assert!(site().admit(&dialed(Some("server"))).is_err());
    assert!(site().admit(&dialed(None)).is_ok(), "the carrier has checked the host's name");
    assert!(site().admit(&LinkFacts { accepted: true, ..dialed(None) }).is_err());
}

#[test]
fn below_a_relay_the_segment_after_its_own_name_counts() {
    let relay = CertificateLinkPolicy::new(fqcn("relay")).expect(Fqcn::server(), "hub.example");
    for (peer, common_name, expected) in [
        ("relay.site-1", "site-1", true),
        ("relay.site-1.job", "site-1", true),
        ("relay.site-1", "relay", false),
        ("relay", "relay", false),
        ("site-1", "site-1", true),
    ] {
        assert_eq!(admits(&relay, peer, common_name), expected, "{peer} by {common_name}");
    }
    // What is expected of names above this cell says nothing of those below it.
    let mapped = relay.expect(fqcn("relay"), "relay-host").expect(fqcn("relay.site-2"), "lab");
    assert!(admits(&mapped, "relay.site-1", "site-1"));
    assert!(admits(&mapped, "relay.site-2", "lab") && !admits(&mapped, "relay.site-2", "site-2"));
}

#[test]
fn the_longest_expected_prefix_counts() {
    let policy = server().expect(fqcn("site-1"), "lab").expect(fqcn("site-1.job"), "lab-job");
    assert!(admits(&policy, "site-1", "lab") && !admits(&policy, "site-1", "site-1"));
    assert!(admits(&policy, "site-1.job", "lab-job") && !admits(&policy, "site-1.job", "lab"));
    assert!(admits(&policy, "site-1.other", "lab"));
}

#[test]
fn administrators_come_to_their_own_listeners_only() {
    assert!(!admits(&server(), ADMIN, "bob"));
    let policy = server().admit_admins();
    assert!(admits(&policy, ADMIN, "bob"));
    assert!(policy.admit(&LinkFacts { accepted: false, ..link(ADMIN, "bob") }).is_err());
    assert!(policy.admit(&LinkFacts { common_name: None, ..link(ADMIN, "bob") }).is_err());
    assert!(!admits(&policy, &format!("{ADMIN}.x"), "bob"));
}

#[test]
fn a_cell_that_is_no_neighbour_has_the_certificate_of_its_name_as_well() {
    let takes = |policy: &CertificateLinkPolicy, name: &str, common_name: &str| {
        policy.admit_certificate(&fqcn(name), common_name).is_ok()
    };
    let site = site().admit_without_certificate();
    for (name, common_name, expected) in [
        ("site-2", "site-2", true),
        ("site-2.job", "site-2", true),
        ("site-2", "site-3", false),
        ("server", "hub.example", true),
        ("server.job", "hub.example", true),
        ("server", "server", false),
        ("server", "site-2", false),
        (ADMIN, "bob", false),
    ] {
        assert_eq!(takes(&site, name, common_name), expected, "{name} by {common_name}");
    }
    assert!(takes(&server().admit_admins(), ADMIN, "bob"));
}

#[test]
fn a_link_without_certificate_is_admitted_only_where_the_kit_says_so() {
    for security in [LinkSecurity::Clear, LinkSecurity::ServerOnly] {
        let facts = LinkFacts { security, common_name: None, ..link("site-1", "") };
        assert!(server().admit(&facts).is_err());
        let open = server().admit_without_certificate();
        assert!(open.admit(&facts).is_ok());
        assert!(open.admit(&LinkFacts { peer: fqcn("server.job"), ..facts }).is_err());
        assert!(open.admit(&link("site-9", "site-2")).is_err(), "a certificate is still compared");
    }
}

#[test]
fn inner_links_lead_up_or_down() {
    let inner =
        |peer: &str| LinkFacts { security: LinkSecurity::Internal, common_name: None, ..link(peer, "") };
    let job = CertificateLinkPolicy::new(fqcn("site-1.job"));
    for (policy, peer, expected) in [
        (&server(), "server.job", true),
        (&server(), "server", false),
        (&server(), "site-1", false),
        (&site(), "site-1.job", true),
        (&site(), "site-2.job", false),
        (&job, "site-1", true),
        (&job, "site-1.job.-client_api_trainer_1", true),
        (&job, "site-1.other", false),
    ] {
        assert_eq!(policy.admit(&inner(peer)).is_ok(), expected, "{peer}");
    }
}

#[test]
fn a_refusal_shows_a_certificate_escaped_and_short() {
    let evil = "x\n2026 ERROR \u{1b}[31m".repeat(1_000);
    let refusal = server().admit(&link("site-1", &evil)).unwrap_err();
    assert!(refusal.reason.len() < 600 && !refusal.reason.contains(['\n', '\u{1b}']));
}
