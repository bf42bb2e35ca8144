//! What `locule --version` says.

use std::sync::LazyLock;

/// The transports that are compiled in, as `cargo xtask dist --transports` calls them.
const TRANSPORTS: &[&str] = &[
    #[cfg(feature = "grpc")]
    "grpc",
    #[cfg(feature = "mem")]
    "mem",
    #[cfg(feature = "nats")]
    "nats",
    #[cfg(feature = "tcp")]
    "tcp",
    #[cfg(feature = "uds")]
    "uds",
    #[cfg(feature = "ws")]
    "ws",
];

/// Version and the transports that are compiled in.
pub(crate) fn long() -> &'static str {
    static LONG: LazyLock<String> = LazyLock::new(|| {
        let transports = if TRANSPORTS.is_empty() { "none".to_owned() } else { TRANSPORTS.join(", ") };
        format!("{}\ntransports: {transports}", env!("CARGO_PKG_VERSION"))
    });
    &LONG
}
