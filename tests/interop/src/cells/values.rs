//! Every value of the FOBS vectors, and values too large for them, there and back.

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use locule_cell::{Request, RequestError};
use locule_fobs::{Array, Map, Value, decode, encode};
use locule_message::Payload;
use serde_json::json;

use super::{Bench, Setting, expect_code};
use crate::payload::{self, fobs, pattern};
use crate::run::Check;

/// Above the size from which bytes travel beside the object.
const LARGE: usize = 11 << 20;

pub(super) fn checks(setting: &Setting) -> Vec<Check<Bench>> {
    let mut checks = vec![
        Check::new(format!("they echo {} values", VECTORS.len()), |bench| Box::pin(they_echo(bench))),
        Check::new(format!("we echo {} values", VECTORS.len()), |bench| Box::pin(we_echo(bench))),
        Check::new("a class that they do not know", |bench| Box::pin(they_cannot_decode(bench))),
        Check::new("they echo our arrays", |bench| Box::pin(they_echo_arrays(bench))),
        Check::new("we echo their arrays", |bench| Box::pin(we_echo_arrays(bench))),
    ];
    if setting.takes(LARGE) {
        checks.extend([
            Check::new("they echo 11 MiB in a map", |bench| Box::pin(they_echo_large(bench))),
            Check::new("we echo 11 MiB in a map", |bench| Box::pin(we_echo_large(bench))),
        ]);
    }
    checks
}

/// A value, as nvflare encodes it.
struct Vector {
    name: String,
    bytes: Bytes,
}

/// The vectors that both sides encode in one way only: left out are values with a section beside the
/// object, whose identifiers are random, and sets, which have no order.
static VECTORS: LazyLock<Vec<Vector>> = LazyLock::new(|| {
    let one_way = |vector: &serde_json::Value| {
        let name = &vector["name"];
        vector.get("max_value_size").is_none() && name != "set_strs" && name != UNKNOWN_CLASS
    };
    vectors(one_way)
});

const UNKNOWN_CLASS: &str = "unregistered_class";

/// An object of a class that its receivers do not know.
static UNKNOWN: LazyLock<Vector> =
    LazyLock::new(|| vectors(|vector| vector["name"] == UNKNOWN_CLASS).remove(0));

fn vectors(wanted: impl Fn(&serde_json::Value) -> bool) -> Vec<Vector> {
    let text = include_str!("../../../vectors/fobs.json");
    let file: serde_json::Value = serde_json::from_str(text).expect("the vectors are JSON");
    let vectors = file["vectors"].as_array().expect("the vectors are a list");
    vectors.iter().filter(|vector| wanted(vector)).filter_map(vector).collect()
}

fn vector(vector: &serde_json::Value) -> Option<Vector> {
    let name = vector["name"].as_str()?.to_owned();
    let digits = vector["hex"].as_str()?.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    Some(Vector { name, bytes: digits.chunks(2).map(byte).collect::<Option<Vec<u8>>>()?.into() })
}

/// They decode what we send and encode it again.
async fn they_echo(bench: &mut Bench) -> anyhow::Result<()> {
    let bench = &*bench;
    Bench::all(VECTORS.iter().map(|Vector { name, bytes }| async move {
        let reply = bench.we_ask("dumps", Payload::fobs(bytes.clone())).await;
        let reply = reply.and_then(locule_cell::Reply::into_ok).with_context(|| name.clone())?;
        ensure!(reply.payload.body == *bytes, "{name}: other bytes came back");
        Ok(())
    }))
    .await
}

/// We decode what they send and encode it again. Bytes and nothing at all need no FOBS on the wire.
async fn we_echo(bench: &mut Bench) -> anyhow::Result<()> {
    let in_fobs =
        |Vector { bytes, .. }: &&Vector| !matches!(decode(bytes.clone()), Ok(Value::None | Value::Bytes(_)));
    let bench = &*bench;
    Bench::all(VECTORS.iter().filter(in_fobs).map(|Vector { name, bytes }| async move {
        let reply = bench.they_ask("dumps", fobs(bytes)).await.with_context(|| name.clone())?;
        expect_code(&reply, "ok").with_context(|| name.clone())?;
        let again = payload::shown(&reply["payload"], "bytes").with_context(|| name.clone())?;
        ensure!(again == *bytes, "{name}: other bytes came back");
        Ok(())
    }))
    .await
}

/// They drop what they cannot decode, without a reply.
async fn they_cannot_decode(bench: &mut Bench) -> anyhow::Result<()> {
    let payload = Payload::fobs(UNKNOWN.bytes.clone());
    let request = Request::new(bench.setting.channel, "echo", payload).timeout(Duration::from_secs(1));
    let outcome = bench.we_send(request).await;
    ensure!(matches!(outcome, Err(RequestError::Timeout)), "the request ended with {outcome:?}");
    Ok(())
}

fn large() -> anyhow::Result<Bytes> {
    let map = Map::from_iter([("small", Value::from("text")), ("large", Value::Bytes(pattern(LARGE)))]);
    Ok(encode(&Value::from(map))?)
}

async fn they_echo_large(bench: &mut Bench) -> anyhow::Result<()> {
    let reply = bench.we_ask("echo", Payload::fobs(large()?)).await?.into_ok()?;
    ensure!(decode(reply.payload.body.whole())? == decode(large()?)?, "another value came back");
    Ok(())
}

async fn we_echo_large(bench: &mut Bench) -> anyhow::Result<()> {
    let reply = bench.they_ask("echo", fobs(&large()?)).await?;
    expect_code(&reply, "ok")?;
    // The identifier of the section beside the object is random, so only the size can be compared.
    ensure!(reply["payload"]["fobs"]["size"] == large()?.len(), "another value came back");
    Ok(())
}

fn arrays(elements: usize) -> anyhow::Result<Bytes> {
    let counting: Vec<f32> = (0..elements).map(|element| element as f32).collect();
    let map = Map::from_iter([("w", Array::from_f32(&[elements / 4, 4], &counting)?)]);
    Ok(encode(&Value::from(map))?)
}

async fn they_echo_arrays(bench: &mut Bench) -> anyhow::Result<()> {
    let sent = arrays(100_000)?;
    let reply = bench.we_ask("echo", Payload::fobs(sent.clone())).await?.into_ok()?;
    ensure!(reply.payload.body == sent, "other arrays came back");
    Ok(())
}

async fn we_echo_arrays(bench: &mut Bench) -> anyhow::Result<()> {
    let reply = bench.they_ask("echo", json!({ "arrays": { "w": ["float32", [25_000, 4]] } })).await?;
    expect_code(&reply, "ok")?;
    payload::expect(&reply["payload"], &Payload::fobs(arrays(100_000)?))
}
