//! What `locule --version` says.

/// Version and the transports that are compiled in.
pub(crate) const LONG: &str = if cfg!(all(feature = "grpc", feature = "mem")) {
    concat!(env!("CARGO_PKG_VERSION"), "\ntransports: grpc, mem")
} else if cfg!(feature = "grpc") {
    concat!(env!("CARGO_PKG_VERSION"), "\ntransports: grpc")
} else if cfg!(feature = "mem") {
    concat!(env!("CARGO_PKG_VERSION"), "\ntransports: mem")
} else {
    concat!(env!("CARGO_PKG_VERSION"), "\ntransports: none")
};
