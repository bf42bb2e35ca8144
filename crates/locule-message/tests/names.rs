//! The grammar of cell names.

use locule_message::{Fqcn, FqcnError};
use proptest::prelude::*;

fn name(text: &str) -> Fqcn {
    Fqcn::parse(text).expect(text)
}

#[test]
fn names_of_a_running_system_are_valid() {
    for text in [
        "server",
        "server.1b7c0f0c-2c0e-4d3c-9d1c-0f4f5a1de001",
        "site-1",
        "relay-a.site-1",
        "_admin_0b29a1de-98f5-4e44-a1c3-5a4c4b21e0aa",
        "site-1.job._client_api_",
        "a~b",
        "-",
    ] {
        assert_eq!(name(text).as_str(), text);
    }
}

#[test]
fn white_space_around_a_name_is_dropped() {
    assert_eq!(name("  site-1\t\n"), "site-1");
    assert!(matches!(Fqcn::parse("site 1"), Err(FqcnError::InvalidCharacter { character: ' ', .. })));
}

#[test]
fn malformed_names_are_refused() {
    assert_eq!(Fqcn::parse(""), Err(FqcnError::Empty));
    assert_eq!(Fqcn::parse(" \n"), Err(FqcnError::Empty));
    for text in [".", ".a", "a.", "a..b"] {
        assert!(matches!(Fqcn::parse(text), Err(FqcnError::EmptySegment { .. })), "{text}");
    }
    for text in ["a.a", "a.b.a", "server.server"] {
        assert!(matches!(Fqcn::parse(text), Err(FqcnError::RepeatedSegment { .. })), "{text}");
    }
    for text in ["a/b", "ä", "a\0", "a:b", "a.b*"] {
        assert!(matches!(Fqcn::parse(text), Err(FqcnError::InvalidCharacter { .. })), "{text}");
    }
}

#[test]
fn names_are_bounded() {
    assert!(Fqcn::parse(&"a".repeat(Fqcn::MAX_LEN)).is_ok());
    assert_eq!(Fqcn::parse(&"a".repeat(256)), Err(FqcnError::TooLong { len: 256 }));
    let segments: Vec<_> = (0..17).map(|n| n.to_string()).collect();
    assert!(Fqcn::parse(&segments[..16].join(".")).is_ok());
    assert_eq!(Fqcn::parse(&segments.join(".")), Err(FqcnError::TooManySegments));
}

#[test]
fn an_error_shows_a_hostile_name_shortened_and_escaped() {
    let error = Fqcn::parse(&format!("\x1b[2J{}", "x".repeat(200))).expect_err("escape is not allowed");
    let shown = error.to_string();
    assert!(!shown.contains('\x1b') && shown.len() < 150, "{shown}");
}

#[test]
fn family_relations_follow_the_segments() {
    let site = name("relay.site-1");
    let job = site.child("job").expect("valid");
    assert_eq!(job, "relay.site-1.job");
    assert_eq!((job.root(), job.leaf(), job.generation()), ("relay", "job", 3));
    assert_eq!(job.parent(), Some(site.clone()));
    assert_eq!(name("site-1").parent(), None);
    assert!(site.is_ancestor_of(&job) && site.contains(&job) && site.contains(&site));
    assert!(!site.is_ancestor_of(&site) && !job.contains(&site));
    assert!(!name("site").is_ancestor_of(&name("site-1.job")), "a shared prefix of text is no relation");
    assert!(site.same_family(&name("relay")) && !site.same_family(&name("site-1")));
    assert!(name("server.job").is_on_server() && !name("server-2").is_on_server());
}

#[test]
fn a_child_may_not_smuggle_in_levels() {
    let site = name("site-1");
    for segment in ["a.b", "", "site-1", "a b", "."] {
        assert!(site.child(segment).is_err(), "{segment:?}");
    }
}

proptest! {
    #[test]
    fn parsing_never_panics_and_keeps_what_it_accepts(text in ".{0,300}") {
        if let Ok(name) = Fqcn::parse(&text) {
            prop_assert_eq!(name.as_str(), text.trim());
            prop_assert_eq!(name.segments().count(), name.generation());
        }
    }

    #[test]
    fn a_child_names_its_parent(segments in prop::collection::hash_set("[a-z0-9_~-]{1,8}", 2..16)) {
        let segments: Vec<_> = segments.into_iter().collect();
        let parent = name(&segments[1..].join("."));
        let child = parent.child(&segments[0]).expect("distinct segments");
        prop_assert!(parent.is_ancestor_of(&child));
        prop_assert_eq!(child.parent(), Some(parent));
        prop_assert_eq!(child.leaf(), segments[0].as_str());
    }
}
