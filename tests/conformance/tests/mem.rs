//! The in-process carrier.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use conformance::{Fixture, MAX_FRAME_LEN};
use locule_transport::{Endpoint, Security};
use locule_transport_mem::MemTransport;

fn mem() -> Fixture {
    let network = Arc::new(MemTransport::new().with_max_frame_len(MAX_FRAME_LEN));
    Fixture {
        listening: network.clone(),
        dialling: network,
        at: Endpoint::parse("mem://hospital").unwrap(),
        nowhere: Endpoint::parse("mem://nobody").unwrap(),
        security: Security::Internal,
        names: None,
        min_frame_len: 0,
    }
}

conformance::all!(mem());
