//! How downloads look on the wire.
//!
//! # Source
//! nvflare 2.9.0, `nvflare.fuel.f3.streaming.download_service`; vectors in `tests/vectors/download.json`.

/// Channel of downloads.
pub const DOWNLOADS: &str = "download_service__";
/// Topic of requests to a source, and of what is said of them.
pub const DOWNLOAD: &str = "download_service__download";

/// Names in requests and replies.
#[expect(missing_docs, reason = "the names are the wire's own")]
pub mod key {
    pub const REF_ID: &str = "ref_id";
    pub const STATE: &str = "state";
    pub const STATUS: &str = "status";
    pub const DATA: &str = "data";
    pub const CONFIRM: &str = "confirm";
    pub const CONFIRM_NONCE: &str = "confirm_nonce";
    pub const CONFIRM_CAPABLE: &str = "confirm_capable";
    pub const CONFIRM_EXPECTED: &str = "confirm_expected";
    pub const CANCEL: &str = "cancel";
    pub const CANCEL_CAPABLE: &str = "cancel_capable";
    pub const START: &str = "start";
    pub const COUNT: &str = "count";
}

/// How a download stands, and how it ended.
#[expect(missing_docs, reason = "the texts are the wire's own")]
pub mod status {
    pub const OK: &str = "ok";
    pub const EOF: &str = "eof";
    pub const ERROR: &str = "error";
    pub const SUCCESS: &str = "success";
    pub const FAILED: &str = "failed";
}
