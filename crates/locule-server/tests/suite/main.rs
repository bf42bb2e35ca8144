//! A server on real cells over links in memory, with real keys; the sites are made by hand, so that they can
//! do what a site should not. The clock moves only when nothing else does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admission;
mod jobs;
mod packages;
mod presence;
mod restart;
mod scene;
mod site;
mod trouble;
mod turns;
mod work;
