//! NATS without encryption.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use broker::Broker;
use conformance::{Fixture, MAX_FRAME_LEN};
use locule_transport::{Endpoint, Security};
use locule_transport_nats::NatsTransport;

fn nats() -> Fixture {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let broker = BROKER.get_or_init(|| Broker::start().unwrap()).authority();
    let name = NEXT.fetch_add(1, Ordering::Relaxed);
    let carrier = Arc::new(NatsTransport::clear().with_max_frame_len(MAX_FRAME_LEN));
    Fixture {
        listening: carrier.clone(),
        dialling: carrier,
        at: Endpoint::parse(&format!("nats://{broker}/test-{name}/server")).unwrap(),
        nowhere: Endpoint::parse(&format!("nats://{broker}/nobody")).unwrap(),
        security: Security::Clear,
        names: None,
        min_frame_len: NatsTransport::MIN_FRAME_LEN,
    }
}

conformance::all!(nats());
