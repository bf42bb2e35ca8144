use locule_message::{ReturnCode, key};
use locule_switch::{IncomingFilter as _, LinkSecurity};

use crate::scene::{Scene, link, message, request, stamped};
use crate::toy::Toy;

const ADMIN: &str = "_admin_4171c61e-1c4f-4ce8-b3b4-70aa2a5a4533";

#[test]
fn a_registered_site_its_jobs_and_its_trainers_pass() {
    let mut scene = Scene::new();
    let session = scene.site("site-1");
    for origin in ["site-1", "site-1.job", "site-1.job.-client_api_trainer_1"] {
        assert!(scene.passes(&session, origin), "{origin}");
    }
    let forwarded = stamped(&session, message("req", "site-1", "server.job", "server_command", "get_task"));
    assert_eq!(scene.check(&link("site-1", "site-1"), &forwarded), Ok(()));
    let reply = stamped(&session, message("reply", "site-1", "server", "admin", "admin"));
    assert_eq!(scene.check(&link("site-1", "site-1"), &reply), Ok(()));
}

#[test]
fn a_site_below_a_provisioned_relay_passes_over_the_relays_link_only() {
    let mut scene = Scene::new();
    let session = scene.register(&Toy::new("site-1"), "relay.site-1");
    let message = stamped(&session, request("relay.site-1", "task", "heart_beat"));
    assert_eq!(scene.check(&link("relay", "relay"), &message), Ok(()));
    for (peer, common_name) in [("site-2", "site-2"), ("site-1", "site-1"), ("relay.site-2", "relay")] {
        assert!(scene.check(&link(peer, common_name), &message).is_err(), "{peer}");
    }
    let direct = stamped(&session, request("site-1", "task", "heart_beat"));
    assert!(scene.check(&link("site-1", "site-1"), &direct).is_err());
}

#[test]
fn an_unregistered_site_may_only_challenge_register_and_say_bye() {
    let scene = Scene::new();
    let own = link("site-1", "site-1");
    let named = |topic: &str, header: &str| {
        let mut message = request("site-1", "task", topic);
        message.headers.set(header, "site-1");
        message
    };
    for message in [
        named("challenge", "cn"),
        named("register", key::CLIENT_NAME),
        request("site-1", "cellnet.channel", "bye"),
    ] {
        assert_eq!(scene.check(&own, &message), Ok(()), "{}", message.topic());
    }
    for (channel, topic) in [
        ("task", "heart_beat"),
        ("task", "quit"),
        ("task", ""),
        ("admin", "challenge"),
        ("", "register"),
        ("cellnet.channel", "register"),
        ("server_command", "get_task"),
        ("hci_channel", "command"),
    ] {
        let refused = scene.check(&own, &request("site-1", channel, topic)).unwrap_err();
        assert_eq!(refused.code, ReturnCode::Unauthenticated, "{channel}/{topic}");
    }
}

#[test]
fn what_needs_no_token_needs_the_right_address() {
    let scene = Scene::new();
    let own = link("site-1", "site-1");
    for (channel, topic) in [("task", "challenge"), ("task", "register"), ("cellnet.channel", "bye")] {
        for to in ["site-2", "server.job"] {
            assert!(
                scene.check(&own, &message("req", "site-1", to, channel, topic)).is_err(),
                "{topic} {to}"
            );
        }
        for kind in ["reply", "return", ""] {
            let odd = message(kind, "site-1", "server", channel, topic);
            assert!(scene.check(&own, &odd).is_err(), "{topic} {kind}");
        }
        // Under the origin of somebody else.
        for origin in ["site-2", "server", "server.job"] {
            assert!(scene.check(&own, &request(origin, channel, topic)).is_err(), "{topic} {origin}");
        }
    }
    assert!(
        scene.check(&own, &request("site-1.job", "cellnet.channel", "bye")).is_err(),
        "of a neighbour only"
    );
}

#[test]
fn a_registration_comes_directly_or_through_provisioned_relays() {
    let scene = Scene::new();
    for (peer, origin, expected) in [
        ("site-1", "site-1", true),
        ("relay", "relay.site-1", true),
        ("site-2", "site-2.site-1", false),
        ("relay", "relay.other.site-1", false),
    ] {
        let mut message = request(origin, "task", "challenge");
        message.headers.set("cn", "site-1");
        assert_eq!(scene.check(&link(peer, peer), &message).is_ok(), expected, "{origin}");
    }
}

#[test]
fn an_administrators_link_registers_its_own_name_only() {
    let mut scene = Scene::new();
    for (topic, header) in [("challenge", "cn"), ("register", key::CLIENT_NAME)] {
        for (name, expected) in [("bob@test.org", true), ("eve@test.org", false)] {
            let mut message = request(ADMIN, "task", topic);
            message.headers.set(header, name);
            assert_eq!(scene.check(&link(ADMIN, "bob@test.org"), &message).is_ok(), expected);
        }
        assert!(scene.check(&link(ADMIN, "bob@test.org"), &request(ADMIN, "task", topic)).is_err());
    }
    let session = scene.register(&Toy::admin("bob@test.org"), ADMIN);
    let known = |name, cell: &str| scene.ledger.admin(name, &cell.parse().unwrap()).is_some();
    assert!(known("bob@test.org", ADMIN));
    assert!(!known("eve@test.org", ADMIN) && !known("bob@test.org", "bob"));
    let command = stamped(&session, request(ADMIN, "hci_channel", "command"));
    assert_eq!(scene.check(&link(ADMIN, "bob@test.org"), &command), Ok(()));
    assert!(scene.check(&link(ADMIN, "eve@test.org"), &command).is_err());
    let heartbeat = stamped(&session, request(ADMIN, "task", "heart_beat"));
    assert!(scene.check(&link(ADMIN, "bob@test.org"), &heartbeat).is_err(), "is no site");
}

#[test]
fn own_jobs_pass_over_inner_links_only_and_speak_for_themselves() {
    let scene = Scene::new();
    let mut inner = link("server.job", "");
    inner.common_name = None;
    inner.security = LinkSecurity::Internal;
    assert_eq!(scene.check(&inner, &request("server.job", "aux", "x")), Ok(()));
    for origin in ["server", "server.other", "site-1"] {
        assert!(scene.check(&inner, &request(origin, "aux", "x")).is_err(), "{origin}");
    }
    for security in [LinkSecurity::Mutual, LinkSecurity::ServerOnly, LinkSecurity::Clear] {
        let outer = locule_switch::LinkFacts { security, ..inner.clone() };
        assert!(scene.check(&outer, &request("server.job", "aux", "x")).is_err());
        assert!(scene.check(&outer, &request("server.job", "task", "challenge")).is_err());
    }
    let mut site = inner.clone();
    site.peer = "site-1".parse().unwrap();
    assert!(scene.check(&site, &request("site-1", "aux", "x")).is_err(), "inner, but not ours");
}

#[test]
fn the_servers_own_stamp_opens_nothing_from_outside() {
    let scene = Scene::new();
    let signer = Toy::new("hub.example");
    let stamp = locule_auth::ServerStamp::parent(&signer).unwrap();
    let mut message = request("site-1", "admin", "admin");
    locule_switch::OutgoingFilter::stamp(&stamp, scene.now, &mut message, &"x".parse().unwrap()).unwrap();
    assert_eq!(message.headers.str(key::TOKEN), Some("server"));
    assert!(scene.check(&link("site-1", "site-1"), &message).is_err());
}

#[test]
fn who_has_a_token_is_known_by_its_certificate_when_it_comes_back() {
    let mut scene = Scene::new();
    let known = |scene: &Scene, peer: &str, name: &str| scene.gate.knows(scene.now, &link(peer, name));
    assert!(!known(&scene, "site-1", "site-1"), "a certificate is no token");
    scene.site("site-1");
    let admin = Toy::admin("admin@example");
    scene.register(&admin, ADMIN);
    scene.restart();
    assert!(known(&scene, "site-1", "site-1") && known(&scene, "site-1.job", "site-1"));
    assert!(known(&scene, ADMIN, "admin@example"));
    let other = "_admin_00000000-1c4f-4ce8-b3b4-70aa2a5a4533";
    for (peer, name) in [("site-2", "site-1"), ("site-1", "site-2"), (other, "admin@example"), (ADMIN, "x")] {
        assert!(!known(&scene, peer, name), "{peer} {name}");
    }
    let mut clear = link("site-1", "site-1");
    clear.security = LinkSecurity::Clear;
    assert!(!scene.gate.knows(scene.now, &clear));
    scene.ledger.remove("site-1").unwrap();
    assert!(!known(&scene, "site-1", "site-1"));
}
