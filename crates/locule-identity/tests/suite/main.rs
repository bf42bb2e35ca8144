//! The conversation and its table, with a toy scheme; `locule-identity-openssl` tests it with real keys.

mod toy;

use std::time::{Duration, Instant};

use locule_identity::{
    Admission, AdmissionLimits, Challenge, ChallengeRefused, Grant, RegistrationRefused, ServerProof,
    Session, Signer, random_uuid,
};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use toy::{Toy, ToyVerifier, wall};

const SERVER: &str = "hub.example";

/// A server's table and a clock to step.
struct Server {
    key: Toy,
    admission: Admission,
    now: Instant,
    rng: ChaCha20Rng,
}

impl Server {
    fn new(limits: AdmissionLimits) -> Self {
        let key = Toy::new(SERVER);
        let admission = Admission::new(key.identity().clone(), limits);
        Self { key, admission, now: Instant::now(), rng: ChaCha20Rng::seed_from_u64(7) }
    }

    fn open(&mut self, link: u64, origin: &str) -> Result<ServerProof, ChallengeRefused> {
        let leaf = origin.rsplit('.').next().expect("a leaf").to_owned();
        let nonce = random_uuid(&mut self.rng);
        let opening = self.admission.open(link, origin, &leaf, &nonce, &mut self.rng, self.now)?;
        Ok(opening.prove(&self.key).expect("the toy signs"))
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

fn converse(server: &mut Server, site: &Toy, link: u64) -> Result<(Session, Grant), RegistrationRefused> {
    let name = site.identity().common_name.clone();
    let challenge = Challenge::new(site.identity(), &mut server.rng).expect("a usable name");
    let nonce = challenge.nonce().to_owned();
    let opening =
        server.admission.open(link, &name, &name, &nonce, &mut server.rng, server.now).expect("room");
    let answer = opening.prove(&server.key).expect("the toy signs");
    let proven = challenge.prove_server(&answer, SERVER, &ToyVerifier, wall()).expect("our server");
    let registration = proven.register(site).expect("the toy signs");
    let open = server.admission.take(link, &name, server.now).expect("an open challenge");
    let grant = open
        .verify(registration.proof(), &name, &ToyVerifier, wall())?
        .grant(&server.key, &mut server.rng)
        .expect("the toy signs");
    Ok((registration.accept(grant.to_token(), &ToyVerifier).expect("our server's token"), grant))
}

#[test]
fn a_conversation_ends_in_a_session() {
    let mut server = Server::new(AdmissionLimits::default());
    let (session, grant) = converse(&mut server, &Toy::new("site-1"), 1).unwrap();
    assert_eq!(session.token().expose(), grant.token().expose());
    assert_eq!(session.token_signature().expose(), grant.signature().expose());
    assert!(server.admission.is_empty());
}

#[test]
fn an_administrators_certificate_does_not_register_a_site() {
    let mut server = Server::new(AdmissionLimits::default());
    let refused = converse(&mut server, &Toy::admin("site-1"), 1);
    assert!(matches!(refused, Err(RegistrationRefused::WrongParty(_))));
}

#[test]
fn a_nonce_is_good_once() {
    let mut server = Server::new(AdmissionLimits::default());
    server.open(1, "site-1").unwrap();
    assert!(server.admission.take(1, "site-1", server.now).is_some());
    assert!(server.admission.take(1, "site-1", server.now).is_none());
}

#[test]
fn a_nonce_is_good_for_a_minute() {
    let minute = Duration::from_secs(60);
    for (late, taken) in [(Duration::ZERO, true), (Duration::from_millis(1), false)] {
        let mut server = Server::new(AdmissionLimits::default());
        server.open(1, "site-1").unwrap();
        server.pass(minute + late);
        assert_eq!(server.admission.take(1, "site-1", server.now).is_some(), taken);
    }
}

#[test]
fn a_newer_challenge_replaces_the_older_one_of_its_link_and_origin_only() {
    let mut server = Server::new(AdmissionLimits::default());
    let first = server.open(1, "site-1").unwrap();
    let second = server.open(1, "site-1").unwrap();
    assert_ne!(first.nonce, second.nonce);
    // Somebody else, over another link, under the same name.
    server.open(2, "site-1").unwrap();
    assert_eq!(server.admission.len(), 2);
    assert!(server.admission.take(1, "site-1", server.now).is_some());
    assert!(server.admission.take(3, "site-1", server.now).is_none());
}

#[test]
fn only_the_claimants_own_cell_may_open_a_challenge() {
    let mut server = Server::new(AdmissionLimits::default());
    let session = "_admin_4171c61e-1c4f-4ce8-b3b4-70aa2a5a4533";
    let long = format!("{}.site-1", "r".repeat(260));
    let cases = [
        ("site-1", true),
        ("relay.site-1", true),
        ("site-2", false),
        ("site-1.job", false),
        ("server.site-1", false),
        ("server", false),
        (session, true),
        ("_admin_x", false),
        ("_admin_4171c61e-1c4f-4ce8-b3b4-70aa2a5a4533.site-1", false),
        ("", false),
        (&long, false),
    ];
    for (origin, expected) in cases {
        let nonce = random_uuid(&mut server.rng);
        let opened = server.admission.open(1, origin, "site-1", &nonce, &mut server.rng, server.now);
        assert_eq!(opened.is_ok(), expected, "{origin}");
        assert!(!opened.is_err_and(|error| error.is_retryable()));
        server.pass(Duration::from_secs(1));
    }
}

#[test]
fn one_origin_gets_ten_challenges_a_second() {
    let mut server = Server::new(AdmissionLimits::default());
    let opened = (0..100).filter(|_| server.open(1, "site-1").is_ok()).count();
    assert_eq!(opened, 10);
    assert!(server.open(1, "site-2").is_ok(), "others are not held up");
    let refused = server.open(1, "site-1").unwrap_err();
    assert_eq!(refused, ChallengeRefused::Busy { retry_after: Duration::from_millis(100) });
    assert!(refused.is_retryable());
    server.pass(Duration::from_millis(100));
    assert!(server.open(1, "site-1").is_ok());
}

#[test]
fn a_flood_is_signed_at_two_hundred_a_second_and_one_link_gets_half() {
    let mut server = Server::new(AdmissionLimits::default());
    let mut opened = [0, 0];
    for step in 0..10_000 {
        let link = step % 2;
        if server.open(link, &format!("site-{step}")).is_ok() {
            opened[usize::try_from(link).unwrap()] += 1;
        }
        server.pass(Duration::from_millis(1));
    }
    let total: i32 = opened.iter().sum();
    assert!((2_000..=2_200).contains(&total), "{total} in ten seconds");
    let mut alone = Server::new(AdmissionLimits::default());
    let opened = (0..1_000).filter(|step| alone.open(1, &format!("site-{step}")).is_ok()).count();
    assert_eq!(opened, 100);
    assert!(alone.open(2, "site-x").is_ok(), "another link still gets in");
}

#[test]
fn the_table_is_bounded_in_all_and_for_each_link_and_empties_itself() {
    let limits = AdmissionLimits {
        open: 40,
        open_per_link: 30,
        rate: 1_000_000,
        rate_per_link: 1_000_000,
        ..AdmissionLimits::default()
    };
    let mut server = Server::new(limits);
    let opened = |server: &mut Server, link: u64| {
        (0..100).filter(|step| server.open(link, &format!("site-{step}")).is_ok()).count()
    };
    assert_eq!(opened(&mut server, 1), 30);
    assert_eq!(opened(&mut server, 2), 10);
    assert_eq!(server.admission.len(), 40);
    server.pass(Duration::from_secs(2));
    assert!(server.open(1, "site-0").is_ok(), "an entry may be replaced even then");
    server.admission.link_down(1);
    assert_eq!(server.admission.len(), 10);
    server.pass(Duration::from_secs(61));
    server.open(3, "site-1").unwrap();
    assert_eq!(server.admission.len(), 1);
    assert_eq!(opened(&mut server, 2), 30);
}

#[test]
fn nothing_a_peer_says_forges_a_log_line() {
    let mut server = Server::new(AdmissionLimits::default());
    let evil = "x\n2026-11-22 ERROR \u{1b}[31m".repeat(500);
    let nonce = random_uuid(&mut server.rng);
    let by_name = server.admission.open(1, "site-1", &evil, &nonce, &mut server.rng, server.now).unwrap_err();
    let by_origin =
        server.admission.open(1, &evil, "site-1", &nonce, &mut server.rng, server.now).unwrap_err();
    for error in [format!("{by_name} {by_name:?}"), format!("{by_origin} {by_origin:?}")] {
        assert!(error.len() < 600 && !error.contains(['\n', '\u{1b}']), "{error}");
    }
}

#[test]
fn a_whole_conversation_shows_no_secret() {
    let mut server = Server::new(AdmissionLimits::default());
    let (session, grant) = converse(&mut server, &Toy::new("site-1"), 1).unwrap();
    let shown = format!("{session:?} {grant:?} {:#?}", session);
    for secret in [grant.token().expose(), grant.signature().expose()] {
        assert!(!shown.contains(secret));
    }
}

proptest! {
    #[test]
    fn opening_a_challenge_never_panics(origin in ".*", cn in ".*", nonce in ".*", link: u64) {
        let mut server = Server::new(AdmissionLimits::default());
        let opened = server.admission.open(link, &origin, &cn, &nonce, &mut server.rng, server.now);
        prop_assert!(opened.is_err());
    }

    #[test]
    fn a_taken_nonce_was_opened_over_that_link_by_that_origin(
        steps in prop::collection::vec((any::<bool>(), 0_u64..3, 0_u8..3, 1_u64..40), 1..60)
    ) {
        let mut server = Server::new(AdmissionLimits::default());
        let mut model = std::collections::HashMap::new();
        for (opens, link, site, seconds) in steps {
            server.pass(Duration::from_secs(seconds));
            let origin = format!("site-{site}");
            if opens {
                prop_assert!(server.open(link, &origin).is_ok());
                model.insert((link, origin), server.now);
            } else {
                let fresh = model
                    .remove(&(link, origin.clone()))
                    .is_some_and(|at: Instant| server.now - at <= Duration::from_secs(60));
                prop_assert_eq!(server.admission.take(link, &origin, server.now).is_some(), fresh);
            }
        }
    }
}
