//! What versions of nvflare's protocol do otherwise, one file for each version.

mod v2_7;
mod v2_8;
mod v2_9;

use std::fmt;

use crate::{RegisterRequest, parts::shown};

/// What one version of nvflare says otherwise than the others, or leaves out.
///
/// A version is a file here that holds one such value; a newer one is another file, and a line in
/// [`Dialect::ALL`]. What differs below this conversation is with whatever it belongs to: streams in
/// `locule-stream` (`dialect.rs`), kits in `locule-kit` (`older.rs`).
#[non_exhaustive]
pub struct Dialect {
    /// The version, without its last number.
    pub name: &'static str,
    /// The same as numbers.
    number: (u32, u32),
    /// The id of the session that a site claims to be in, whatever it was granted.
    pub session: &'static str,
    /// What sites tell, and servers expect, of how a job ended at a site.
    pub outcomes: Outcomes,
    /// What begins the names of the fields of a file's chunk that is uploaded.
    pub upload: &'static str,
    /// Whether a registration that names no version is one of this version.
    is_spoken_by: fn(&RegisterRequest) -> bool,
}

/// What sites tell of how a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcomes {
    /// Every outcome, and the server answers.
    Every,
    /// Failures, without waiting for an answer. Of a job that ended well is heard only that it is no longer
    /// among those that the site holds.
    Failures,
}

impl Dialect {
    /// Those that are spoken, the newest first.
    pub const ALL: [&Self; 3] = [&v2_9::DIALECT, &v2_8::DIALECT, &v2_7::DIALECT];
    /// The newest; also what anybody speaks of whom nothing else is known.
    pub const NEWEST: &Self = Self::ALL[0];

    /// What the participant speaks that registers so.
    ///
    /// # Errors
    /// [`UnspokenVersion`]: it says that it is older than all of them.
    pub fn of_participant(registration: &RegisterRequest) -> Result<&'static Self, UnspokenVersion> {
        match &registration.version {
            Some(said) => Self::said(said),
            None => {
                let silent = Self::ALL.into_iter().find(|dialect| (dialect.is_spoken_by)(registration));
                Ok(silent.unwrap_or(&v2_7::DIALECT))
            }
        }
    }

    /// What the server speaks that grants a token with this version.
    ///
    /// # Errors
    /// [`UnspokenVersion`]: it says that it is older than all of them.
    pub fn of_server(version: Option<&str>) -> Result<&'static Self, UnspokenVersion> {
        // Servers of both older versions are told the same.
        version.map_or(Ok(&v2_8::DIALECT), Self::said)
    }

    /// The dialect of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.into_iter().find(|dialect| dialect.name == name)
    }

    /// Whether a site that holds a token may claim to be in this session. It tells two runs of a server apart for
    /// the site; to the server it proves nothing.
    #[must_use]
    pub fn knows_session(session: &str) -> bool {
        Self::ALL.iter().any(|dialect| dialect.session == session)
    }

    /// The newest that is no newer than what a peer says; of what has no numbers the newest of all.
    fn said(said: &str) -> Result<&'static Self, UnspokenVersion> {
        let mut numbers = said.split('.').map(|number| number.parse::<u32>().ok());
        let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else {
            return Ok(Self::NEWEST);
        };
        let known = Self::ALL.into_iter().find(|dialect| dialect.number <= (major, minor));
        known.ok_or_else(|| UnspokenVersion(shown(said)))
    }
}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dialect({})", self.name)
    }
}

impl PartialEq for Dialect {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Dialect {}

/// A peer is of a version that nobody here speaks; what it said, shortened and escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nvflare {0} is too old: 2.7 and later are spoken here")]
pub struct UnspokenVersion(String);

#[cfg(test)]
mod tests {
    use locule_fobs::{Map, PeerContext};

    use super::*;
    use crate::ClientType;

    fn registration(version: Option<&str>, site_config: Option<Map>) -> RegisterRequest {
        RegisterRequest {
            client_name: "site-1".into(),
            client_type: ClientType::Regular,
            client_ip: String::new(),
            project_name: "ward-7".into(),
            peer: PeerContext::new(),
            proof: None,
            site_config,
            version: version.map(str::to_owned),
        }
    }

    #[test]
    fn a_registration_tells_its_version_or_what_it_must_be() {
        for (said, config, name) in [
            (Some("2.9.0"), None, "2.9"),
            (Some("2.9.1+17.gabc"), Some(Map::new()), "2.9"),
            (Some("2.10.0"), None, "2.9"),
            (Some("3.0"), None, "2.9"),
            (Some("2.8.0rc1"), None, "2.8"),
            (Some("main"), None, "2.9"),
            (None, Some(Map::new()), "2.8"),
            (None, None, "2.7"),
        ] {
            let dialect = Dialect::of_participant(&registration(said, config)).unwrap();
            assert_eq!(dialect.name, name, "{said:?}");
        }
    }

    #[test]
    fn a_version_that_is_too_old_is_named() {
        let refused = Dialect::of_participant(&registration(Some("2.6.2"), None)).unwrap_err();
        assert_eq!(refused.to_string(), "nvflare 2.6.2 is too old: 2.7 and later are spoken here");
        assert_eq!(Dialect::of_server(Some("2.6.2")), Err(refused));
    }

    #[test]
    fn a_server_that_names_no_version_expects_failures_only() {
        assert_eq!(Dialect::of_server(None).unwrap().outcomes, Outcomes::Failures);
        assert_eq!(Dialect::of_server(Some("2.9.0")).unwrap().outcomes, Outcomes::Every);
    }

    #[test]
    fn only_sessions_of_some_version_are_known() {
        assert!(Dialect::knows_session("NA") && Dialect::knows_session(v2_7::DIALECT.session));
        assert!(!Dialect::knows_session("940d0ce0-f5ed-4170-8f4e-5613763b9df7"));
    }

    #[test]
    fn they_stand_in_order_and_can_be_found_by_name() {
        assert!(Dialect::ALL.is_sorted_by(|a, b| a.number > b.number));
        for dialect in Dialect::ALL {
            let (major, minor) = dialect.number;
            assert_eq!(dialect.name, format!("{major}.{minor}"));
            assert_eq!(Dialect::named(dialect.name), Some(dialect));
        }
        assert_eq!(Dialect::named("2.6"), None);
    }
}
