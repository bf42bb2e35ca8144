//! What a launcher and a job's process say to each other: a JSON document a line, orders on the process's standard
//! input and its last word on its standard output.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{FailureKind, JobStart, Limits};

/// Longest line in either direction, in bytes.
pub(crate) const MAX_LINE: usize = 1 << 20;

/// What a job's process has to be told in confidence, as text that only the two ends understand: a session, say.
///
/// It reaches the process through a pipe, and stands neither in its environment nor on its command line. It has no
/// `Display`, and its `Debug` shows nothing.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Brief(String);

impl Brief {
    /// What the process is told.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Brief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Brief(…)")
    }
}

/// What a launcher tells a job's process. The first is [`Order::Begin`]; the end of them all is the launcher's.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Order {
    Begin {
        start: Box<JobStart>,
        limits: Limits,
        brief: Brief,
    },
    /// What it was told in confidence is this from now on.
    Brief(Brief),
    /// It is to stop.
    Abort,
}

/// A process's last word.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Word {
    Completed,
    Failed { kind: FailureKind, reason: String },
    Panicked { message: String },
}

/// As a line; nothing if it is too long or cannot be text.
pub(crate) fn line<T: Serialize>(said: &T) -> Option<Vec<u8>> {
    let mut line = serde_json::to_vec(said).ok()?;
    line.push(b'\n');
    (line.len() <= MAX_LINE).then_some(line)
}
