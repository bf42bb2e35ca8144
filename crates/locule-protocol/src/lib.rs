//! Typed requests and replies between sites and server.
