use std::fmt;
use std::time::{Instant, SystemTime};

use locule_message::Fqcn;

/// One moment on both clocks: deadlines are kept on the monotonic one, the wire carries wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic clock: all deadlines and intervals.
    pub instant: Instant,
    /// Wall clock: what is written into headers; never compared with a peer's.
    pub wall: SystemTime,
}

impl Now {
    /// Wall time as the wire carries it: seconds since the Unix epoch, 0.0 before it.
    #[must_use]
    pub fn unix_seconds(&self) -> f64 {
        self.wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
    }
}

/// Names one link for its whole life; never used again for another link of the same switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

impl LinkId {
    /// The way from a cell to itself. No real link may carry this number.
    pub const LOOPBACK: LinkId = LinkId(0);
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What is known of a link once its handshake is over.
///
/// `peer` is what the neighbour *claims*; a [`LinkPolicy`](crate::LinkPolicy) compares it with the
/// rest, which the carrier established.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    /// The link.
    pub link: LinkId,
    /// Name the neighbour gave in its handshake.
    pub peer: Fqcn,
    /// Common name of the neighbour's certificate, when the carrier verified one.
    pub common_name: Option<String>,
    /// How the carrier protects the link.
    pub security: LinkSecurity,
    /// True when the neighbour dialed us, false when we dialed it.
    pub accepted: bool,
    /// True when the neighbour's handshake says that it runs this software.
    pub ours: bool,
}

/// How a carrier protects a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkSecurity {
    /// TLS, and both ends showed certificates.
    Mutual,
    /// TLS, and only the listener showed a certificate.
    ServerOnly,
    /// Nothing: anybody on the path reads and writes.
    Clear,
    /// The same process or the same host; no network is crossed.
    Internal,
}
