//! Which subjects an endpoint means.

use locule_transport::Endpoint;

/// Before all subjects of this carrier.
const ROOT: &str = "locule";
/// Longest path of an endpoint, in bytes: brokers take lines of 4 KiB.
const MAX_PATH: usize = 512;
/// What a link's subject ends with, in characters: 128 random bits.
const TOKEN: usize = 32;

/// The subjects of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subjects {
    base: String,
}

impl Subjects {
    /// Those of the path of an endpoint, or what is wrong with it.
    pub(crate) fn of(endpoint: &Endpoint) -> Result<Self, String> {
        let name = endpoint.path().trim_start_matches('/');
        if name.is_empty() {
            return Err(
                "it has no path that names the listener, as in nats://broker:4222/project/server".into()
            );
        }
        if name.len() > MAX_PATH {
            return Err(format!("its path has {} bytes, and at most {MAX_PATH} are taken", name.len()));
        }
        let is_token = |token: &str| {
            !token.is_empty()
                && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_~-%".contains(&byte))
        };
        if !name.split(['/', '.']).all(is_token) {
            let what = "its path is not names of letters, digits, _, ~, - and %, with / or . between them";
            return Err(what.into());
        }
        Ok(Self { base: format!("{ROOT}.{}", name.replace('/', ".")) })
    }

    /// Where the listener hears of those who dial.
    pub(crate) fn dial(&self) -> String {
        format!("{}.dial", self.base)
    }

    /// A subject for one end of one link, which nobody guesses.
    pub(crate) fn fresh(&self) -> String {
        format!("{}.link.{:0TOKEN$x}", self.base, rand::random::<u128>())
    }

    /// Whether a subject can be one of [`fresh`](Self::fresh): a stranger has no others published to.
    pub(crate) fn is_link(&self, subject: &str) -> bool {
        let token = subject.strip_prefix(&*self.base).and_then(|rest| rest.strip_prefix(".link."));
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        token.is_some_and(|token| token.len() == TOKEN && token.bytes().all(is_hex))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Subjects, String> {
        Subjects::of(&Endpoint::parse(text).unwrap())
    }

    #[test]
    fn a_cells_name_becomes_a_subject() {
        let subjects = of("nats://broker:4222/project/hospital.relay-1").unwrap();
        assert_eq!(subjects.dial(), "locule.project.hospital.relay-1.dial");
        let (one, other) = (subjects.fresh(), subjects.fresh());
        assert!(one != other && subjects.is_link(&one) && subjects.is_link(&other), "{one} {other}");
    }

    #[test]
    fn other_subjects_are_no_link() {
        let subjects = of("nats://broker/server").unwrap();
        let fresh = subjects.fresh();
        for other in [
            "locule.server.dial".to_owned(),
            fresh.replace("server", "other"),
            fresh.replace("link", "dial"),
            fresh[..fresh.len() - 1].to_owned(),
            format!("{fresh}.x"),
            format!("{}*", &fresh[..fresh.len() - 1]),
            "locule.server.link.>".to_owned(),
        ] {
            assert!(!subjects.is_link(&other), "{other}");
        }
    }

    #[test]
    fn what_cannot_be_a_subject_is_said() {
        for (text, reason) in [
            ("nats://broker:4222", "no path"),
            ("nats://broker:4222/", "no path"),
            ("nats://broker:4222/a..b", "letters"),
            ("nats://broker:4222/a/*", "letters"),
            ("nats://broker:4222/a.>", "letters"),
            ("nats://broker:4222/a/", "letters"),
        ] {
            assert!(of(text).unwrap_err().contains(reason), "{text}");
        }
        assert!(of(&format!("nats://broker/{}", "x".repeat(513))).unwrap_err().contains("513 bytes"));
    }
}
