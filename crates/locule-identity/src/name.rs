use thiserror::Error;

/// Longest name of a participant, in bytes: the bound that X.509 sets to a common name.
pub const MAX_NAME_LEN: usize = 64;

/// Names that the wire gives to the server side; no participant may carry one.
const RESERVED: [&str; 2] = ["server", "server_job"];

/// Prefixes of cell names that are not sites: admin sessions and launched trainers.
const RESERVED_PREFIXES: [&str; 2] = ["_admin_", "-client_api_"];

/// Checks the name of a site, relay or administrator: 1 to [`MAX_NAME_LEN`] bytes of ASCII letters,
/// digits and `_ - . ~ @ +`, beginning with a letter, a digit or `_`, no empty part between dots, and
/// not a name of the server side (in any letter case).
///
/// # Errors
/// [`NameError`] says which rule is broken.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_LEN {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.~@+".contains(c);
    let lower = name.to_ascii_lowercase();
    let reserved =
        RESERVED.contains(&lower.as_str()) || RESERVED_PREFIXES.iter().any(|p| lower.starts_with(p));
    if reserved {
        return Err(NameError::Reserved { name: shown(name) });
    }
    if !starts_well || !name.chars().all(allowed) || name.split('.').any(str::is_empty) {
        return Err(NameError::Forbidden { name: shown(name) });
    }
    Ok(())
}

/// Checks that a participant's name and the server's common name do not begin with one another.
///
/// The server signs `<server CN><nonce>` and `<name><token>` with one key and no separator. As long as
/// neither name is a prefix of the other, no statement of the one kind can be read as one of the other.
///
/// # Errors
/// [`NameError::LikeServer`]; rename the participant or the server.
pub fn check_name_against_server(name: &str, server_cn: &str) -> Result<(), NameError> {
    if name.starts_with(server_cn) || server_cn.starts_with(name) {
        return Err(NameError::LikeServer { name: shown(name), server: shown(server_cn) });
    }
    Ok(())
}

/// Why a name cannot belong to a participant.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// No name at all.
    #[error("name is empty")]
    Empty,
    /// More than [`MAX_NAME_LEN`] bytes.
    #[error("name has {bytes} bytes, more than {MAX_NAME_LEN}")]
    TooLong {
        /// Length of the name.
        bytes: usize,
    },
    /// A character, or a place for one, that is not allowed.
    #[error("name {name} has a forbidden form")]
    Forbidden {
        /// The name, escaped and shortened.
        name: String,
    },
    /// A name of the server side.
    #[error("name {name} is reserved")]
    Reserved {
        /// The name, escaped and shortened.
        name: String,
    },
    /// The name and the server's begin with one another.
    #[error("name {name} and the server's name {server} begin with one another")]
    LikeServer {
        /// The name, escaped and shortened.
        name: String,
        /// The server's common name.
        server: String,
    },
}

/// What a peer said, fit for an error or a log: quoted, escaped, at most 48 characters of it.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 48;
    let mut out = String::from("\"");
    for c in text.chars().take(MOST) {
        out.extend(c.escape_default());
    }
    out.push_str(if text.chars().nth(MOST).is_some() { "…\"" } else { "\"" });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        for name in ["site-1", "hospital_a", "admin@test.org", "a", "R1", "_x", "lab.example.org", "servers"]
        {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_that_forge_logs_paths_or_the_server_are_refused() {
        let long = "x".repeat(10 * 1024);
        let bad = [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a.",
            "../x",
            "a/b",
            "a\nb",
            "a\0b",
            "a b",
            "\u{1b}[31m",
            "sité",
            "-x",
            "server",
            "SERVER",
            "server_job",
            "_admin_x",
            "_Admin_x",
            "-client_api_trainer_1",
            "site-1\n",
            &long,
        ];
        for name in bad {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn prefix_related_names_are_refused_in_both_directions() {
        for (name, server) in [("site", "site-1"), ("site-1", "site"), ("a", "a")] {
            assert!(check_name_against_server(name, server).is_err());
        }
        assert_eq!(check_name_against_server("site-1", "server.example"), Ok(()));
    }

    #[test]
    fn what_a_peer_says_is_shown_escaped_and_short() {
        assert_eq!(shown("a\nb\u{1b}"), r#""a\nb\u{1b}""#);
        assert!(shown(&"é".repeat(10_000)).len() < 500);
    }
}
