//! rustls configurations from a startup kit.
