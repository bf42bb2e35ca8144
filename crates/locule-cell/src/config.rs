use std::time::Duration;

use locule_message::Fqcn;
use locule_stream::StreamConfig;
use locule_switch::SwitchConfig;

/// Name and bounds of a cell.
#[derive(Clone, Debug)]
pub struct CellConfig {
    /// Name and bounds of its switch.
    pub switch: SwitchConfig,
    /// Sizes, waits and bounds of its streams.
    pub streams: StreamConfig,
    /// Extensions announced to neighbours.
    pub capabilities: Vec<String>,
    /// Most handlers that run at a time.
    pub max_handlers: usize,
    /// Most messages that are handled or wait for it; more are refused with `service_unavailable`.
    pub max_waiting: usize,
    /// Most bytes of bodies in these messages. One message is always taken, however large.
    pub max_waiting_bytes: usize,
    /// Most messages that are sealed or opened at a time, each on a thread for blocking work. Those that wait
    /// for it are bounded as those that wait for handlers are.
    pub max_sealing: usize,
    /// Most accepted links that are still in their handshake.
    pub max_unestablished: usize,
    /// How long a handshake may take.
    pub handshake_deadline: Duration,
    /// How long dialing may take.
    pub dial_timeout: Duration,
    /// Largest frame taken from a neighbour that has proved nothing yet, in bytes.
    pub unproven_frame_len: usize,
    /// A neighbour is pinged when nothing came from it for so long.
    pub idle_ping: Duration,
    /// A link ends when nothing comes for so long after a ping. Must exceed the time that the longest
    /// single frame takes.
    pub dead_after: Duration,
    /// A link ends when a frame cannot be written for so long.
    pub write_stall: Duration,
}

impl CellConfig {
    /// A cell called `name` with the default bounds.
    #[must_use]
    pub fn new(name: Fqcn) -> Self {
        Self {
            switch: SwitchConfig::new(name),
            streams: StreamConfig::default(),
            capabilities: Vec::new(),
            max_handlers: 256,
            max_waiting: 4096,
            max_waiting_bytes: 1 << 30,
            max_sealing: 4,
            max_unestablished: 1024,
            handshake_deadline: Duration::from_secs(10),
            dial_timeout: Duration::from_secs(10),
            unproven_frame_len: 160 << 10,
            idle_ping: Duration::from_secs(10),
            dead_after: Duration::from_secs(60),
            write_stall: Duration::from_secs(300),
        }
    }
}
