//! A desk at a real server over links in memory, with real keys, and a small console of our own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod console;
mod course;
mod refusals;
mod scene;
