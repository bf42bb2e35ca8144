use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What a cell has done so far, and what it is doing now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CellStats {
    /// Counters of the switch.
    pub switch: locule_switch::Stats,
    /// Counters of the streams.
    pub streams: locule_stream::StreamStats,
    /// Bytes of frames received, prefixes included.
    pub bytes_in: u64,
    /// Bytes of frames sent, prefixes included.
    pub bytes_out: u64,
    /// Those of both that crossed no network: links within the process or the host.
    pub internal_bytes: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Frames received that mean nothing: of an unknown kind or application, or a ping too early.
    pub frames_ignored: u64,
    /// Frames sent.
    pub frames_out: u64,
    /// Links that are up.
    pub links: u64,
    /// Requests to others that wait for replies, one per target.
    pub pending: u64,
    /// Messages in the hands of handlers, or waiting for their turn.
    pub handling: u64,
    /// Messages refused because too many were being handled.
    pub turned_away: u64,
    /// Handlers that panicked.
    pub panics: u64,
    /// Messages encrypted end to end here.
    pub sealed: u64,
    /// Messages decrypted here.
    pub opened: u64,
    /// Messages that came encrypted and could not be decrypted.
    pub unopened: u64,
    /// Links that came while too many were still in their handshake.
    pub links_turned_away: u64,
    /// Links ended because the neighbour broke the protocol or went silent.
    pub links_broken: u64,
}

/// Where the tasks of a cell count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) internal_bytes: AtomicU64,
    pub(crate) frames_in: AtomicU64,
    pub(crate) frames_ignored: AtomicU64,
    pub(crate) frames_out: AtomicU64,
    pub(crate) sealed: AtomicU64,
    pub(crate) opened: AtomicU64,
    pub(crate) unopened: AtomicU64,
    pub(crate) links_turned_away: AtomicU64,
    pub(crate) links_broken: AtomicU64,
    /// The driver's part.
    driver: Mutex<CellStats>,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, amount: usize) {
        counter.fetch_add(amount as u64, Ordering::Relaxed);
    }

    pub(crate) fn publish(&self, driver: CellStats) {
        *self.driver.lock().unwrap_or_else(PoisonError::into_inner) = driver;
    }

    pub(crate) fn snapshot(&self) -> CellStats {
        let driver = *self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CellStats {
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
            internal_bytes: read(&self.internal_bytes),
            frames_in: read(&self.frames_in),
            frames_ignored: read(&self.frames_ignored),
            frames_out: read(&self.frames_out),
            sealed: read(&self.sealed),
            opened: read(&self.opened),
            unopened: read(&self.unopened),
            links_turned_away: read(&self.links_turned_away),
            links_broken: read(&self.links_broken),
            ..driver
        }
    }
}
