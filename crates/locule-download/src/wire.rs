//! How downloads look on the wire.
//!
//! # Source
//! nvflare 2.9.0, `nvflare.fuel.f3.streaming.download_service`; vectors in `tests/vectors/download.json`.

/// Channel of downloads.
pub const DOWNLOADS: &str = "download_service__";
/// Topic of requests to a source, and of what is said of them.
pub const DOWNLOAD: &str = "download_service__download";

pub(crate) mod key {
    pub(crate) const REF_ID: &str = "ref_id";
    pub(crate) const STATE: &str = "state";
    pub(crate) const STATUS: &str = "status";
    pub(crate) const DATA: &str = "data";
    pub(crate) const CONFIRM: &str = "confirm";
    pub(crate) const CONFIRM_NONCE: &str = "confirm_nonce";
    pub(crate) const CONFIRM_CAPABLE: &str = "confirm_capable";
    pub(crate) const CONFIRM_EXPECTED: &str = "confirm_expected";
    pub(crate) const CANCEL: &str = "cancel";
    pub(crate) const CANCEL_CAPABLE: &str = "cancel_capable";
    pub(crate) const START: &str = "start";
    pub(crate) const COUNT: &str = "count";
}

pub(crate) mod status {
    pub(crate) const OK: &str = "ok";
    pub(crate) const EOF: &str = "eof";
    pub(crate) const ERROR: &str = "error";
    pub(crate) const SUCCESS: &str = "success";
    pub(crate) const FAILED: &str = "failed";
}
