use locule_auth::{ServerStamp, SessionStamp};
use locule_message::{Fqcn, Message, key};
use locule_switch::OutgoingFilter;

use crate::scene::{Scene, fqcn, message, request};
use crate::toy::Toy;

const KEYS: [&str; 4] = [key::CLIENT_NAME, key::TOKEN, key::TOKEN_SIGNATURE, key::SSID];

fn stamp(by: &dyn OutgoingFilter, mut message: Message, next_hop: &str) -> Message {
    by.stamp(Scene::new().now, &mut message, &fqcn(next_hop)).unwrap();
    message
}

fn is_stamped(message: &Message) -> bool {
    let present = KEYS.map(|key| message.headers.str(key).is_some());
    assert!(present.iter().all(|is| *is == present[0]), "all or nothing");
    present[0]
}

fn of_site(scene: &mut Scene) -> SessionStamp {
    let stamp = SessionStamp::new();
    stamp.set(scene.site("site-1"));
    stamp
}

#[test]
fn before_a_session_nothing_is_stamped() {
    let by = SessionStamp::new();
    assert!(!by.is_set());
    assert!(!is_stamped(&stamp(&by, request("site-1", "task", "heart_beat"), "server")));
}

#[test]
fn challenge_and_registration_carry_no_old_token() {
    let mut scene = Scene::new();
    let by = of_site(&mut scene);
    for topic in ["challenge", "register"] {
        let mut message = request("site-1", "task", topic);
        message.headers.set(key::CLIENT_NAME, "site-1");
        let stamped = stamp(&by, message, "server");
        assert!(!stamped.headers.contains(key::TOKEN));
        assert_eq!(stamped.headers.str(key::CLIENT_NAME), Some("site-1"));
    }
}

#[test]
fn requests_are_stamped_and_replies_where_they_touch_the_server_or_another_family() {
    let mut scene = Scene::new();
    let by = of_site(&mut scene);
    let cases = [
        ("req", "site-1", "server", "server", true),
        ("req", "site-1", "site-1.job", "site-1.job", true),
        ("reply", "site-1", "server", "server", true),
        ("reply", "site-1", "server.job", "server", true),
        ("reply", "site-1", "site-1.job", "site-1.job", false),
        ("reply", "site-1", "site-2", "relay", true),
        ("reply", "site-1.job", "site-1", "site-1", false),
        ("req", "site-1", "site-1", "site-1", false),
    ];
    for (kind, from, to, hop, expected) in cases {
        let stamped = stamp(&by, message(kind, from, to, "c", "t"), hop);
        assert_eq!(is_stamped(&stamped), expected, "{kind} {from} → {to} by {hop}");
    }
}

#[test]
fn what_goes_from_site_to_site_must_pass_the_server() {
    let mut scene = Scene::new();
    let by = of_site(&mut scene);
    let transit = |to: &str| {
        stamp(&by, request_to(to), "server").headers.bool(key::SERVER_TRANSIT_REQUIRED).unwrap_or(false)
    };
    assert!(transit("site-2") && transit("site-2.job"));
    assert!(!transit("server") && !transit("server.job") && !transit("site-1.job"));
}

fn request_to(to: &str) -> Message {
    message("req", "site-1", to, "c", "t")
}

#[test]
fn a_newer_session_takes_the_place_of_the_older() {
    let mut scene = Scene::new();
    let by = of_site(&mut scene);
    let old = stamp(&by, request_to("server"), "server");
    let newer = scene.site("site-1");
    by.set(newer.clone());
    let new = stamp(&by, old.clone(), "server");
    assert_ne!(old.headers.str(key::TOKEN), new.headers.str(key::TOKEN));
    assert_eq!(new.headers.str(key::TOKEN), Some(newer.token().expose()));
    by.clear();
    assert!(!is_stamped(&stamp(&by, request_to("server"), "server")));
}

#[test]
fn the_server_and_its_jobs_have_stamps_of_their_own() {
    let signer = Toy::new("hub.example");
    let parent =
        stamp(&ServerStamp::parent(&signer).unwrap(), message("req", "server", "site-1", "a", "b"), "site-1");
    assert_eq!(parent.headers.str(key::CLIENT_NAME), Some("server"));
    assert_eq!(parent.headers.str(key::TOKEN), Some("server"));
    assert!(parent.headers.contains(key::TOKEN_SIGNATURE) && !parent.headers.contains(key::SSID));

    let from_job = message("req", "server.job-7", "site-1.job-7", "a", "b");
    let job = stamp(&ServerStamp::job("job-7", &signer).unwrap(), from_job, "server");
    assert_eq!(job.headers.str(key::CLIENT_NAME), Some("server_job"));
    assert_eq!(job.headers.str(key::TOKEN), Some("job-7"));
    assert_eq!(job.headers.str(key::SSID), Some("NA"));

    let open = stamp(&ServerStamp::unsigned(), message("req", "server", "site-1", "a", "b"), "site-1");
    assert_eq!(open.headers.str(key::TOKEN_SIGNATURE), Some("NA"));
}

#[test]
fn a_stamp_shows_no_secret() {
    let mut scene = Scene::new();
    let session = scene.site("site-1");
    let by = SessionStamp::new();
    by.set(session.clone());
    let server = ServerStamp::job("job-7", &Toy::new("hub.example")).unwrap();
    let shown = format!("{by:?} {server:?} {:?} {:?}", scene.ledger, scene.gate);
    for secret in [session.token().expose(), session.token_signature().expose(), "job-7"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(Fqcn::server().is_on_server());
}
