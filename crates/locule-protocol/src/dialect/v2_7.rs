//! nvflare 2.7.
//!
//! A site takes its session from its own overseer agent and not from the server; it aborts its jobs when the two
//! differ.
//!
//! # Source
//! nvflare 2.7.3: `nvflare.ha.dummy_overseer_agent`, `nvflare.private.fed.client.fed_client_base`,
//! `nvflare.private.fed.client.client_executor`.

use super::{Dialect, Outcomes};

pub(super) const DIALECT: Dialect = Dialect {
    name: "2.7",
    number: (2, 7),
    session: "ebc6125d-0a56-4688-9b08-355fe9e4d61a",
    outcomes: Outcomes::Failures,
    upload: "FileStreamer",
    is_spoken_by: |registration| registration.site_config.is_none(),
};
