//! What travels as a stream of chunks: blobs, and arrays that are sent by reference and fetched.

use anyhow::ensure;
use bytes::Bytes;
use locule_cell::Request;
use locule_fobs::{Array, Map, Value, encode};
use locule_message::{Fqcn, Payload};
use serde_json::json;

use super::{Bench, Setting, Side, expect_code};
use crate::ours;
use crate::payload::{self, pattern};
use crate::run::Check;

/// The channel and topic of blobs that are no requests.
pub(crate) const BLOBS: [&str; 2] = ["interop_blobs", "note"];

/// Shapes of `float32` arrays: no element, few, as many as one reply of a download carries, and more; but not
/// so many that the array would lie beside the object, under a random identifier.
const SHAPES: [[usize; 2]; 5] = [[0, 4], [1, 3], [512, 1024], [2600, 1000], [2601, 1000]];

pub(super) fn checks(setting: &Setting) -> Vec<Check<Bench>> {
    let mut checks = vec![
        Check::new("their blob arrives", |bench| Box::pin(their_blob(bench))),
        Check::new("we fetch the arrays of their request", |bench| Box::pin(their_arrays(bench))),
        Check::new("they fetch the arrays of our reply", |bench| Box::pin(arrays_for_them(bench))),
    ];
    if setting.subject == Side::Locule {
        checks.extend([
            Check::new("our blob arrives", |bench| Box::pin(our_blob(bench))),
            Check::new("they take our arrays", |bench| Box::pin(our_arrays(bench))),
            Check::new("we fetch the arrays of their reply", |bench| Box::pin(arrays_for_us(bench))),
        ]);
    }
    checks
}

/// A blob larger than a chunk, which is no request and says nothing of its encoding.
async fn their_blob(bench: &mut Bench) -> anyhow::Result<()> {
    let size = (1 << 20) - 1;
    let command = json!({ "name": bench.name(Side::Python), "target": bench.name(Side::Locule),
                          "payload": { "size": size } });
    let sent = bench.peer.ask("send_blob", command).await?;
    ensure!(sent == size, "{sent} bytes of {size} went");
    ensure!(bench.noted().await?.payload.bytes == pattern(size), "other bytes came");
    Ok(())
}

async fn our_blob(bench: &mut Bench) -> anyhow::Result<()> {
    let size = (3 << 20) + 1;
    let [channel, topic] = BLOBS;
    let blob = Request::new(channel, topic, Payload::bytes(pattern(size)));
    let cell = bench.our(bench.name(Side::Locule))?;
    cell.notify(&Fqcn::parse(bench.name(Side::Python))?, blob).await?;
    payload::expect(&bench.they_noted(1).await?[0]["payload"], &Payload::bytes(pattern(size)))
}

/// The command's form of the arrays.
fn described() -> serde_json::Value {
    SHAPES.iter().map(|shape| (format!("{shape:?}"), json!(["float32", shape]))).collect()
}

/// The same arrays in FOBS, inline.
fn inline() -> anyhow::Result<Bytes> {
    let mut map = Map::new();
    for shape in SHAPES {
        let elements = shape[0] * shape[1];
        let counting: Vec<f32> = (0..elements).map(|element| element as f32).collect();
        map.insert(format!("{shape:?}"), Array::from_f32(&shape, &counting)?);
    }
    Ok(encode(&Value::from(map))?)
}

async fn their_arrays(bench: &mut Bench) -> anyhow::Result<()> {
    let reply = bench.they_ask("dumps", json!({ "arrays": described() })).await?;
    expect_code(&reply, "ok")?;
    payload::expect(&reply["payload"], &Payload::bytes(inline()?))
}

async fn arrays_for_them(bench: &mut Bench) -> anyhow::Result<()> {
    let request = json!({ "topic": "arrays", "headers": { "arrays": described().to_string() } });
    let reply = bench.they_send(request).await?;
    expect_code(&reply, "ok")?;
    payload::expect(&reply["payload"], &Payload::fobs(inline()?))
}

async fn our_arrays(bench: &mut Bench) -> anyhow::Result<()> {
    let reply = bench.we_ask("dumps", Payload::fobs(inline()?)).await?.into_ok()?;
    ensure!(reply.payload.bytes == inline()?, "other arrays arrived");
    Ok(())
}

async fn arrays_for_us(bench: &mut Bench) -> anyhow::Result<()> {
    let request = Request::new(bench.setting.channel, "arrays", Payload::none());
    let reply = bench.we_send(request.header("arrays", described().to_string().as_str())).await?.into_ok()?;
    let cell = bench.our(bench.name(Side::Locule))?;
    let fetched = ours::again(cell, &Fqcn::parse(bench.name(Side::Python))?, reply.payload).await;
    ensure!(fetched.map_err(anyhow::Error::msg)? == inline()?, "other arrays arrived");
    Ok(())
}
