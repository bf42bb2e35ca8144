//! What the ledger writes down: one JSON object per change.

use std::time::{Duration, SystemTime};

use locule_message::{Fqcn, FqcnError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Version of the format; a ledger refuses to read others.
pub(crate) const VERSION: u32 = 1;

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) v: u32,
    #[serde(flatten)]
    pub(crate) change: Change,
}

impl Record {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data with text keys has a JSON form")
    }
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Change {
    /// A token was issued; a site's earlier one is no longer in force.
    Issued(IssuedToken),
    /// A token is no longer in force.
    Ended { token: TokenKey, why: End },
    /// A name may not register until it is enabled; its tokens are no longer in force.
    Disabled { name: String },
    /// A name may register again.
    Enabled { name: String },
    /// A certificate counts no more, nor do the tokens of its holder.
    Revoked { fingerprint: Fingerprint },
    /// A holder has another certificate beside the ones it had.
    Enrolled { token: TokenKey, fingerprint: Fingerprint, not_after: u64 },
}

/// A token as it was issued. The token itself is not written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssuedToken {
    pub(crate) token: TokenKey,
    pub(crate) name: String,
    pub(crate) origin: CellName,
    pub(crate) admin: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) relay: bool,
    pub(crate) organization: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) fingerprints: Vec<Fingerprint>,
    /// Unix seconds; absent in a federation without certificates.
    pub(crate) not_after: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dialect: Option<String>,
}

/// Why a token is no longer in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// The site quit.
    Quit,
    /// An operator removed its holder.
    Removed,
    /// Another one needed its place.
    Displaced,
    /// Its holder's certificate ended.
    Expired,
}

/// What stands for a token in tables and records: a hash of everything that a message must show. Whoever
/// reads the journal cannot make a token from it, and looking one up takes no time that depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct TokenKey([u8; 32]);

impl TokenKey {
    pub(crate) fn new(name: &str, token: &str, signature: &str) -> Self {
        let mut hash = Sha256::new();
        for field in [name, token, signature] {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        Self(hash.finalize().into())
    }
}

/// The name of a cell, checked when read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct CellName(pub(crate) Fqcn);

impl TryFrom<String> for CellName {
    type Error = FqcnError;

    fn try_from(text: String) -> Result<Self, FqcnError> {
        Fqcn::parse(&text).map(Self)
    }
}

impl From<CellName> for String {
    fn from(name: CellName) -> Self {
        name.0.as_str().to_owned()
    }
}

/// SHA-256 of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Fingerprint(pub(crate) [u8; 32]);

/// 64 lower-case hexadecimal digits in JSON.
macro_rules! hexadecimal {
    ($type:ident) => {
        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.0.iter().map(|byte| format!("{byte:02x}")).collect()
            }
        }

        impl TryFrom<String> for $type {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                let mut bytes = [0; 32];
                let digits = text.as_bytes();
                if digits.len() != 64 {
                    return Err("not 64 hexadecimal digits");
                }
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                    let digit = |at: usize| char::from(pair[at]).to_digit(16);
                    let (Some(high), Some(low)) = (digit(0), digit(1)) else {
                        return Err("not 64 hexadecimal digits");
                    };
                    *byte = u8::try_from(high << 4 | low).map_err(|_| "not 64 hexadecimal digits")?;
                }
                Ok(Self(bytes))
            }
        }
    };
}

hexadecimal!(TokenKey);
hexadecimal!(Fingerprint);

pub(crate) fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

pub(crate) fn from_unix(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_written_down() {
        let key = TokenKey([0xab; 32]);
        let record = Record { v: VERSION, change: Change::Ended { token: key, why: End::Quit } };
        let json = format!(r#"{{"v":1,"change":"ended","token":"{}","why":"quit"}}"#, "ab".repeat(32));
        assert_eq!(serde_json::to_string(&record).unwrap(), json);
        assert_eq!(serde_json::from_str::<Record>(&json).unwrap(), record);
    }

    #[test]
    fn fields_cannot_run_into_each_other() {
        assert_ne!(TokenKey::new("site-1", "1", ""), TokenKey::new("site-", "11", ""));
        assert_ne!(TokenKey::new("a", "b", "c"), TokenKey::new("a", "bc", ""));
    }

    #[test]
    fn a_malformed_hash_is_refused() {
        for text in [String::new(), "ab".repeat(31), "xy".repeat(32), "é".repeat(32), "+1".repeat(32)] {
            assert!(TokenKey::try_from(text).is_err());
        }
    }
}
