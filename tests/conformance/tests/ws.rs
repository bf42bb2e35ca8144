//! WebSocket without encryption.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use conformance::{Fixture, MAX_FRAME_LEN};
use locule_transport::{Endpoint, Security};
use locule_transport_ws::WsTransport;

fn ws() -> Fixture {
    let carrier = Arc::new(WsTransport::clear().with_max_frame_len(MAX_FRAME_LEN));
    Fixture {
        listening: carrier.clone(),
        dialling: carrier,
        at: Endpoint::parse("http://127.0.0.1:0").unwrap(),
        nowhere: Endpoint::parse("http://127.0.0.1:1").unwrap(),
        security: Security::Clear,
        names: None,
        min_frame_len: 0,
    }
}

conformance::all!(ws());
