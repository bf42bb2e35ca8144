//! nvflare 2.9.
//!
//! # Source
//! nvflare 2.9.0: `nvflare.private.fed.authenticator`, `nvflare.private.fed.client.client_executor`.

use super::{Dialect, Outcomes};

pub(super) const DIALECT: Dialect = Dialect {
    name: "2.9",
    number: (2, 9),
    session: "NA",
    outcomes: Outcomes::Every,
    upload: "Streamer",
    is_spoken_by: |_| false,
};
