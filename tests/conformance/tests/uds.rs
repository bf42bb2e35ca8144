//! Unix domain sockets.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use conformance::{Fixture, MAX_FRAME_LEN};
use locule_transport::Security;
use locule_transport_uds::UdsTransport;

fn uds() -> Fixture {
    static DIR: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let dir = DIR.get_or_init(|| tempfile::tempdir().unwrap()).path().join("private");
    let name = format!("{}.sock", NEXT.fetch_add(1, Ordering::Relaxed));
    let carrier = Arc::new(UdsTransport::new().with_max_frame_len(MAX_FRAME_LEN));
    Fixture {
        listening: carrier.clone(),
        dialling: carrier,
        at: UdsTransport::endpoint(&dir.join(name)).unwrap(),
        nowhere: UdsTransport::endpoint(&dir.join("nobody.sock")).unwrap(),
        security: Security::Internal,
        names: None,
        min_frame_len: UdsTransport::MIN_FRAME_LEN,
    }
}

conformance::all!(uds());
