//! Payloads as the Python side writes them in its JSON lines.

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use locule_message::{Encoding, Payload};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Length of the pattern's period: a prime, so that a shifted chunk shows.
const PERIOD: u8 = 251;

/// `size` bytes of the pattern.
pub(crate) fn pattern(size: usize) -> Bytes {
    let period: Vec<u8> = (0..PERIOD).collect();
    let mut bytes = period.repeat(size / period.len() + 1);
    bytes.truncate(size);
    bytes.into()
}

/// The command's form of bytes in FOBS.
pub(crate) fn fobs(bytes: &[u8]) -> Value {
    json!({ "fobs": STANDARD.encode(bytes) })
}

/// Whether the Python side has exactly this payload.
pub(crate) fn expect(told: &Value, expected: &Payload) -> anyhow::Result<()> {
    let kind = match expected.encoding {
        Encoding::None => {
            ensure!(told.is_null(), "the payload is {told} and not none");
            return Ok(());
        }
        Encoding::Bytes => "bytes",
        Encoding::Fobs => "fobs",
    };
    let digest = &told[kind];
    let size = expected.body.len();
    ensure!(digest.is_object(), "the payload is not {kind} but {told}");
    ensure!(digest["size"] == size, "the payload has {} bytes and not {size}", digest["size"]);
    if digest["pattern"] == true {
        ensure!(expected.body == pattern(size), "the payload is the pattern");
        return Ok(());
    }
    let sum: String =
        Sha256::digest(expected.body.whole()).iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(digest["sha256"] == sum.as_str(), "the payload has other bytes: {}", digest["base64"]);
    Ok(())
}

/// The bytes that the Python side shows; it shows small payloads only.
pub(crate) fn shown(told: &Value, kind: &str) -> anyhow::Result<Bytes> {
    let text = told[kind]["base64"].as_str().with_context(|| format!("no small {kind} in {told}"))?;
    Ok(STANDARD.decode(text).context("base64")?.into())
}
