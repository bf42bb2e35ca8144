use std::time::Duration;

use locule_auth::{IssueRefused, LedgerError, LedgerLimits, Pulse, TokenLedger};
use locule_identity::{Grant, Party, Signer};
use locule_journal::{Journal, MemoryJournal};
use proptest::prelude::*;

use crate::scene::{Scene, fqcn};
use crate::toy::Toy;

const SILENCE: Duration = Duration::from_secs(600);

#[test]
fn a_token_is_good_once_the_ledger_issued_it() {
    let mut scene = Scene::new();
    let (grant, session) = scene.prove(&Toy::new("site-1"), "site-1");
    assert!(!scene.passes(&session, "site-1"), "signed by the server, but not issued");
    scene.ledger.issue(&grant, scene.now).unwrap();
    assert!(scene.passes(&session, "site-1"));
    let holder = scene.ledger.site("site-1").unwrap();
    assert_eq!(
        (holder.party, holder.alive, holder.organization.as_deref()),
        (Party::Site, true, Some("org"))
    );
}

#[test]
fn a_newer_registration_voids_the_older_token() {
    let mut scene = Scene::new();
    let old = scene.site("site-1");
    scene.pass(Duration::from_secs(1));
    let (grant, new) = scene.prove(&Toy::new("site-1"), "site-1");
    let issued = scene.ledger.issue(&grant, scene.now).unwrap();
    assert!(issued.replaced && issued.replaced_alive);
    assert!(!scene.passes(&old, "site-1") && !scene.heartbeat(&old, "site-1"));
    assert!(scene.passes(&new, "site-1"));
    scene.restart();
    assert!(!scene.passes(&old, "site-1"));
    assert!(scene.passes(&new, "site-1"));
}

#[test]
fn first_wins_keeps_a_living_site_against_a_newcomer() {
    let mut scene = Scene::with(LedgerLimits { first_wins: true, ..LedgerLimits::default() });
    let first = scene.site("site-1");
    assert!(matches!(scene.try_site("site-1"), Err(IssueRefused::InUse)));
    assert!(scene.passes(&first, "site-1"));
    scene.pass(SILENCE * 2);
    assert_eq!(scene.ledger.drop_silent(SILENCE, scene.now.instant), ["site-1"]);
    assert!(scene.try_site("site-1").unwrap().replaced, "a silent one makes room");
}

#[test]
fn what_quit_or_was_removed_stays_out() {
    for end in ["quit", "remove"] {
        let mut scene = Scene::new();
        let session = scene.site("site-1");
        let ended = match end {
            "quit" => scene.ledger.quit("site-1"),
            _ => scene.ledger.remove("site-1"),
        };
        assert!(ended.unwrap());
        for _ in 0..2 {
            assert!(!scene.passes(&session, "site-1"), "{end}");
            assert!(!scene.heartbeat(&session, "site-1"), "{end}");
            assert!(scene.ledger.site("site-1").is_none());
            scene.restart();
        }
        assert!(!scene.ledger.quit("site-1").unwrap(), "it had none any more");
        assert!(!scene.try_site("site-1").unwrap().replaced, "it may register again");
    }
}

#[test]
fn a_disabled_name_stays_out_until_it_is_enabled() {
    let mut scene = Scene::new();
    let session = scene.site("site-1");
    scene.ledger.disable("site-1").unwrap();
    scene.restart();
    assert!(scene.ledger.is_disabled("site-1"));
    assert!(!scene.passes(&session, "site-1"));
    assert!(matches!(scene.try_site("site-1"), Err(IssueRefused::Disabled)));
    scene.ledger.enable("site-1").unwrap();
    scene.restart();
    assert!(!scene.passes(&session, "site-1"), "enabling brings no token back");
    scene.try_site("site-1").unwrap();
}

#[test]
fn a_revoked_certificate_ends_its_tokens_and_registers_nobody() {
    let mut scene = Scene::new();
    let session = scene.site("site-1");
    let other = scene.site("site-2");
    scene.ledger.revoke(Toy::new("site-1").identity().fingerprint).unwrap();
    for _ in 0..2 {
        assert!(!scene.passes(&session, "site-1"));
        assert!(scene.passes(&other, "site-2"));
        assert!(matches!(scene.try_site("site-1"), Err(IssueRefused::Revoked)));
        scene.restart();
    }
}

#[test]
fn a_renewed_certificate_belongs_to_its_holder_and_can_be_revoked() {
    let mut scene = Scene::new();
    let session = scene.site("site-1");
    let mut renewed = Toy::new("site-1").identity().clone();
    renewed.fingerprint = [9; 32];
    renewed.not_after += Duration::from_secs(86_400);
    assert!(scene.ledger.enrol(&renewed).unwrap());
    scene.restart();
    scene.pass(Duration::from_secs(100_000));
    assert!(scene.passes(&session, "site-1"), "the first certificate alone would have ended");
    scene.ledger.revoke([9; 32]).unwrap();
    assert!(!scene.passes(&session, "site-1"));
    assert!(!scene.ledger.enrol(&renewed).unwrap());
}

#[test]
fn a_certificate_that_ends_ends_its_token() {
    let mut scene = Scene::new();
    let session = scene.site("site-1");
    scene.pass(Duration::from_secs(86_400));
    assert!(scene.heartbeat(&session, "site-1"), "its last second");
    scene.pass(Duration::from_secs(1));
    assert!(!scene.passes(&session, "site-1") && !scene.heartbeat(&session, "site-1"));
    assert_eq!(scene.ledger.drop_expired(scene.now.wall).unwrap(), ["site-1"]);
    assert!(scene.ledger.holders().is_empty());
    let (grant, _) = scene.prove(&Toy::new("site-1"), "site-1");
    assert!(matches!(scene.ledger.issue(&grant, scene.now), Err(IssueRefused::Expired)));
}

#[test]
fn a_silent_site_is_dropped_and_comes_back_with_its_own_heartbeat_only() {
    let mut scene = Scene::new();
    let session = scene.site("site-1");
    scene.pass(SILENCE);
    assert!(scene.ledger.drop_silent(SILENCE, scene.now.instant).is_empty());
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.ledger.drop_silent(SILENCE, scene.now.instant), ["site-1"]);
    assert!(scene.ledger.drop_silent(SILENCE, scene.now.instant).is_empty(), "named once");
    assert!(!scene.ledger.site("site-1").unwrap().alive);
    assert!(scene.passes(&session, "site-1.job"), "its job goes on");
    for thief in ["site-2", "site-1.job", "relay.site-1", "site-11"] {
        assert!(!scene.heartbeat(&session, thief), "{thief}");
        assert!(scene.ledger.heartbeat("site-1", &fqcn(thief), scene.now).is_err(), "{thief}");
    }
    assert!(!scene.ledger.site("site-1").unwrap().alive);
    assert_eq!(scene.ledger.heartbeat("site-1", &fqcn("site-1"), scene.now), Ok(Pulse::Back));
    assert_eq!(scene.ledger.heartbeat("site-1", &fqcn("site-1"), scene.now), Ok(Pulse::Alive));
}

#[test]
fn tokens_outlive_the_process() {
    let mut scene = Scene::new();
    let session = scene.site("site-1");
    let admin_cell = "_admin_4171c61e-1c4f-4ce8-b3b4-70aa2a5a4533";
    let admin = scene.register(&Toy::admin("bob@test.org"), admin_cell);
    let before = scene.ledger.holders();
    scene.restart();
    assert!(!scene.ledger.site("site-1").unwrap().alive, "not heard of yet");
    assert!(scene.passes(&session, "site-1") && scene.passes(&admin, admin_cell));
    assert_eq!(scene.ledger.heartbeat("site-1", &fqcn("site-1"), scene.now), Ok(Pulse::Back));
    assert_eq!(scene.ledger.holders(), before);
}

#[test]
fn what_a_holder_speaks_outlives_the_process() {
    let mut scene = Scene::new();
    let (grant, _) = scene.prove(&Toy::new("site-1"), "site-1");
    scene.ledger.issue(&grant.in_dialect("2.8"), scene.now).unwrap();
    scene.site("site-2");
    let records = scene.disk.0.lock().unwrap().replay().unwrap();
    assert!(!String::from_utf8_lossy(&records[1]).contains("dialect"), "the newest needs no word");
    scene.restart();
    assert_eq!(scene.ledger.site("site-1").unwrap().dialect.as_deref(), Some("2.8"));
    assert_eq!(scene.ledger.site("site-2").unwrap().dialect, None);
}

#[test]
fn the_journal_holds_no_token() {
    let mut scene = Scene::new();
    let session = scene.site("site-1");
    let bytes = scene.disk.0.lock().unwrap().bytes().to_vec();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("site-1"));
    for secret in [session.token().expose(), session.token_signature().expose()] {
        assert!(!text.contains(secret));
    }
}

#[test]
fn only_so_many_sites_are_alive_and_known() {
    let limits = LedgerLimits { sites: 3, known_sites: 5, ..LedgerLimits::default() };
    let mut scene = Scene::with(limits);
    let sessions: Vec<_> = (0..3).map(|index| scene.site(&format!("site-{index}"))).collect();
    assert!(matches!(scene.try_site("site-3"), Err(IssueRefused::Full)));
    scene.try_site("site-2").unwrap();
    scene.pass(SILENCE * 2);
    assert_eq!(scene.ledger.drop_silent(SILENCE, scene.now.instant).len(), 3);
    for name in ["site-3", "site-4", "site-5"] {
        scene.try_site(name).unwrap();
    }
    assert_eq!(scene.ledger.holders().len(), 5, "the one dropped first made room");
    assert!(scene.ledger.site("site-0").is_none());
    assert!(!scene.heartbeat(&sessions[0], "site-0"));
    assert!(!scene.heartbeat(&sessions[1], "site-1"), "three are alive");
    scene.ledger.quit("site-3").unwrap();
    assert!(scene.heartbeat(&sessions[1], "site-1"));
    scene.restart();
    assert_eq!(scene.ledger.holders().len(), 4);
}

#[test]
fn an_administrators_sessions_are_bounded_and_the_oldest_goes() {
    let limits = LedgerLimits { sessions_per_admin: 2, admin_sessions: 3, ..LedgerLimits::default() };
    let mut scene = Scene::with(limits);
    let open = |scene: &mut Scene, who: &str, cell: usize| {
        let cell = format!("_admin_4171c61e-1c4f-4ce8-b3b4-70aa2a5a453{cell}");
        (scene.register(&Toy::admin(who), &cell), cell)
    };
    let sessions: Vec<_> = [("bob", 0), ("bob", 1), ("bob", 2), ("eve", 3), ("eve", 4)]
        .map(|(who, cell)| open(&mut scene, who, cell))
        .into();
    let good = |scene: &Scene| sessions.iter().map(|(s, cell)| scene.passes(s, cell)).collect::<Vec<_>>();
    assert_eq!(good(&scene), [false, false, true, true, true]);
    scene.restart();
    assert_eq!(good(&scene), [false, false, true, true, true]);
    assert!(scene.ledger.remove("bob").unwrap());
    assert_eq!(good(&scene), [false, false, false, true, true]);
    let cell = sessions[3].1.parse().unwrap();
    assert!(!scene.ledger.leave("bob", &cell).unwrap(), "it is not his");
    assert!(scene.ledger.leave("eve", &cell).unwrap());
    assert_eq!(good(&scene), [false, false, false, false, true]);
    scene.restart();
    assert_eq!(good(&scene), [false, false, false, false, true]);
}

#[test]
fn one_name_registers_at_a_pace() {
    let limits = LedgerLimits {
        registrations_per_name: 5,
        registration_interval: Duration::from_secs(10),
        ..LedgerLimits::default()
    };
    let mut scene = Scene::with(limits);
    let registered = (0..20).filter(|_| scene.try_site("site-1").is_ok()).count();
    assert_eq!(registered, 5);
    assert!(scene.try_site("site-1").unwrap_err().is_retryable());
    scene.try_site("site-2").unwrap();
    scene.pass(Duration::from_secs(10));
    scene.try_site("site-1").unwrap();
    assert!(scene.try_site("site-1").is_err());
}

#[test]
fn the_journal_stays_short_under_endless_registrations() {
    let limits = LedgerLimits { registrations_per_name: u32::MAX, ..LedgerLimits::default() };
    let mut scene = Scene::with(limits);
    scene.ledger.disable("site-9").unwrap();
    scene.ledger.revoke([1; 32]).unwrap();
    let mut session = scene.site("site-1");
    for _ in 0..3_000 {
        session = scene.site("site-1");
    }
    let records = scene.disk.0.lock().unwrap().replay().unwrap().len();
    assert!(records <= 1_100, "{records}");
    scene.restart();
    assert!(scene.passes(&session, "site-1"));
    assert!(scene.ledger.is_disabled("site-9"));
    assert_eq!(scene.ledger.holders().len(), 1);
}

#[test]
fn nothing_is_in_force_that_the_journal_did_not_take() {
    #[derive(Debug)]
    struct Full;
    impl Journal for Full {
        fn writer(&self) -> u64 {
            1
        }
        fn append(&mut self, _: &[u8]) -> Result<(), locule_journal::AppendError> {
            Err(locule_journal::AppendError::Write(std::io::Error::other("disk full")))
        }
        fn replay(&mut self) -> Result<Vec<Vec<u8>>, locule_journal::ReplayError> {
            Ok(Vec::new())
        }
        fn rewrite(&mut self, _: &[Vec<u8>]) -> Result<(), locule_journal::AppendError> {
            Err(locule_journal::AppendError::Write(std::io::Error::other("disk full")))
        }
    }
    let mut scene = Scene::new();
    let (grant, session) = scene.prove(&Toy::new("site-1"), "site-1");
    scene.ledger = std::sync::Arc::new(TokenLedger::open(Box::new(Full), LedgerLimits::default()).unwrap());
    let refused = scene.ledger.issue(&grant, scene.now).unwrap_err();
    assert!(matches!(refused, IssueRefused::Journal(_)) && refused.is_retryable());
    assert!(scene.ledger.holders().is_empty() && !scene.passes(&session, "site-1"));
}

#[test]
fn a_journal_of_another_kind_is_not_taken_up() {
    let open = |records: &[&[u8]]| {
        let mut journal = MemoryJournal::new();
        for record in records {
            journal.append(record).unwrap();
        }
        TokenLedger::open(Box::new(journal), LedgerLimits::default())
    };
    let good = br#"{"v":1,"change":"enabled","name":"x"}"#;
    assert!(open(&[good]).is_ok());
    let newer = br#"{"v":2,"change":"enabled","name":"x"}"#;
    assert!(matches!(open(&[good, newer]), Err(LedgerError::Version { index: 1, version: 2 })));
    let others: [&[u8]; 5] = [
        b"",
        b"{}",
        br#"{"v":1,"change":"granted","name":"x"}"#,
        br#"{"v":1,"change":"ended","token":"12","why":"quit"}"#,
        br#"{"v":1,"change":"enabled"}"#,
    ];
    for record in others {
        assert!(matches!(open(&[record]), Err(LedgerError::Record { index: 0, .. })));
    }
}

#[test]
fn a_federation_without_proofs_is_bounded_too() {
    let mut scene = Scene::new();
    let grant = Grant::unproven("site-1", "site-1", &mut scene.rng).unwrap();
    scene.ledger.issue(&grant, scene.now).unwrap();
    let session = locule_identity::Session::unproven("site-1", grant.to_token()).unwrap();
    assert!(scene.passes(&session, "site-1"));
    let elsewhere = Grant::unproven("site-1", "not a cell", &mut scene.rng).unwrap();
    assert!(matches!(scene.ledger.issue(&elsewhere, scene.now), Err(IssueRefused::Origin)));
}

/// What may happen to a ledger.
#[derive(Debug, Clone)]
enum Step {
    Register(u8),
    Quit(u8),
    Disable(u8),
    Enable(u8),
    Revoke(u8),
    Restart,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_restart_changes_nothing_but_who_is_alive(steps in prop::collection::vec(
        (0_u8..6, 0_u8..3).prop_map(|(kind, site)| match kind {
            0 => Step::Register(site),
            1 => Step::Quit(site),
            2 => Step::Disable(site),
            3 => Step::Enable(site),
            4 => Step::Revoke(site),
            _ => Step::Restart,
        }), 0..40))
    {
        let mut scene = Scene::new();
        let name = |site: u8| format!("site-{site}");
        for step in steps {
            match step {
                Step::Register(site) => drop(scene.try_site(&name(site))),
                Step::Quit(site) => drop(scene.ledger.quit(&name(site)).unwrap()),
                Step::Disable(site) => scene.ledger.disable(&name(site)).unwrap(),
                Step::Enable(site) => scene.ledger.enable(&name(site)).unwrap(),
                Step::Revoke(site) => {
                    scene.ledger.revoke(Toy::new(&name(site)).identity().fingerprint).unwrap();
                }
                Step::Restart => {}
            }
            let known = |scene: &Scene| scene.ledger.holders().iter().map(|h| h.name.clone()).collect::<Vec<_>>();
            let before = known(&scene);
            scene.restart();
            prop_assert_eq!(known(&scene), before);
        }
    }
}
