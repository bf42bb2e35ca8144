//! nvflare 2.8.
//!
//! # Source
//! nvflare 2.8.3: `nvflare.private.fed.authenticator`, `nvflare.private.fed.client.client_executor`.

use super::{Dialect, Outcomes};

pub(super) const DIALECT: Dialect = Dialect {
    name: "2.8",
    number: (2, 8),
    session: "NA",
    outcomes: Outcomes::Failures,
    upload: "Streamer",
    is_spoken_by: |registration| registration.site_config.is_some(),
};
