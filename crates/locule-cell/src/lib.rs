//! The running cell on tokio: links, switch and handlers.
