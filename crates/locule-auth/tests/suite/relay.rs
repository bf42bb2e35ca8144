use std::sync::Arc;

use locule_auth::RelayGate;
use locule_identity::Session;
use locule_message::{Message, ReturnCode, key};
use locule_switch::{IncomingFilter, LinkFacts, Refusal};

use crate::scene::{Scene, fqcn, link, message, request, stamped};
use crate::toy::{Toy, ToyVerifier};

fn relay() -> RelayGate {
    RelayGate::new(fqcn("relay"), fqcn("server"), Arc::new(ToyVerifier))
}

/// A relay that has heard the server's proof, and a site that registered through it.
fn trusted(scene: &mut Scene) -> (RelayGate, Session) {
    let session = scene.register(&Toy::new("site-1"), "relay.site-1");
    let gate = relay();
    gate.trust(session.server().unwrap().clone());
    (gate, session)
}

fn below() -> LinkFacts {
    link("relay.site-1", "site-1")
}

fn check(scene: &Scene, gate: &RelayGate, from: &LinkFacts, message: &Message) -> Result<(), Refusal> {
    gate.check(scene.now, from, message)
}

#[test]
fn what_a_registered_site_and_its_jobs_send_passes_a_relay() {
    let mut scene = Scene::new();
    let (gate, session) = trusted(&mut scene);
    for origin in ["relay.site-1", "relay.site-1.job", "relay.site-1.job.trainer"] {
        let message = stamped(&session, request(origin, "server_command", "get_task"));
        for _ in 0..2 {
            assert_eq!(check(&scene, &gate, &below(), &message), Ok(()), "{origin}");
        }
    }
    let reply = stamped(&session, message("reply", "relay.site-1", "server", "admin", "admin"));
    assert_eq!(check(&scene, &gate, &below(), &reply), Ok(()));
}

#[test]
fn a_relay_that_knows_no_server_lets_only_registrations_through() {
    let mut scene = Scene::new();
    let session = scene.register(&Toy::new("site-1"), "relay.site-1");
    let gate = relay();
    let heartbeat = stamped(&session, request("relay.site-1", "task", "heart_beat"));
    assert_eq!(check(&scene, &gate, &below(), &heartbeat).unwrap_err().code, ReturnCode::Unauthenticated);
    for topic in ["challenge", "register"] {
        let message = request("relay.site-1", "task", topic);
        assert_eq!(check(&scene, &gate, &below(), &message), Ok(()));
    }
    gate.trust(session.server().unwrap().clone());
    assert_eq!(check(&scene, &gate, &below(), &heartbeat), Ok(()));
}

#[test]
fn a_relay_takes_no_token_that_is_forged_or_of_another_site() {
    let mut scene = Scene::new();
    let (gate, session) = trusted(&mut scene);
    let other = scene.register(&Toy::new("site-2"), "relay.site-2");
    let from_site_1 = || request("relay.site-1", "server_command", "get_task");
    let with = |key: &str, value: &str| {
        let mut message = stamped(&session, from_site_1());
        message.headers.set(key, value);
        message
    };
    for (what, message) in [
        ("none", from_site_1()),
        ("another site's", stamped(&other, from_site_1())),
        ("another name", with(key::CLIENT_NAME, "job")),
        ("another token", with(key::TOKEN, "4171c61e-1c4f-4ce8-b3b4-70aa2a5a4533")),
        ("another signature", with(key::TOKEN_SIGNATURE, other.token_signature().expose())),
        ("no signature", with(key::TOKEN_SIGNATURE, "NA")),
        ("a long one", with(key::TOKEN, &"x".repeat(5000))),
    ] {
        for _ in 0..2 {
            assert!(check(&scene, &gate, &below(), &message).is_err(), "{what}");
        }
    }
    let elsewhere = stamped(&session, from_site_1());
    for peer in ["relay.site-2", "site-1", "relay"] {
        assert!(check(&scene, &gate, &link(peer, "site-1"), &elsewhere).is_err(), "{peer}");
    }
}

#[test]
fn what_comes_from_above_passes_a_relay_and_a_neighbour_may_say_goodbye() {
    let scene = Scene::new();
    let gate = relay();
    let order = message("req", "server", "relay.site-1", "admin", "admin");
    assert_eq!(check(&scene, &gate, &link("server", "hub.example"), &order), Ok(()));
    let goodbye = message("req", "relay.site-1", "relay", "cellnet.channel", "bye");
    assert_eq!(check(&scene, &gate, &below(), &goodbye), Ok(()));
    let for_another = message("req", "relay.site-1", "server", "cellnet.channel", "bye");
    assert!(check(&scene, &gate, &below(), &for_another).is_err());
}

#[test]
fn a_relay_knows_whose_token_was_good_when_the_site_comes_back() {
    let mut scene = Scene::new();
    let (gate, session) = trusted(&mut scene);
    assert!(!gate.knows(scene.now, &below()), "a certificate is no token");
    let message = stamped(&session, request("relay.site-1", "task", "heart_beat"));
    check(&scene, &gate, &below(), &message).unwrap();
    assert!(gate.knows(scene.now, &below()));
    for (peer, name) in [("relay.site-2", "site-1"), ("relay.site-2", "site-2"), ("site-1", "site-1")] {
        assert!(!gate.knows(scene.now, &link(peer, name)), "{peer} {name}");
    }
}
