//! What travels as a stream of chunks: blobs, and arrays that are sent by reference and fetched.

use anyhow::ensure;
use bytes::Bytes;
use locule_cell::Request;
use locule_fobs::{Map, Value, encode};
use locule_message::{Fqcn, Payload};
use serde_json::json;

use super::{Bench, Setting, Side, expect_code};
use crate::arrays;
use crate::ours;
use crate::payload::{self, pattern};
use crate::run::Check;

/// The channel and topic of blobs that are no requests.
pub(crate) const BLOBS: [&str; 2] = ["interop_blobs", "note"];

/// Arrays with no element, one, few, as many as one reply of a download carries, and more; but none so large that
/// it would lie beside the object, under a random identifier.
const ARRAYS: [(&str, &[usize]); 11] = [
    ("float32", &[0, 4]),
    ("float32", &[]),
    ("float32", &[1, 3]),
    ("float32", &[16, 16]),
    ("float32", &[512, 1024]),
    ("float32", &[2600, 1000]),
    ("float32", &[2601, 1000]),
    ("float64", &[]),
    ("float64", &[2, 3, 4]),
    ("int64", &[1000]),
    ("int64", &[7, 11, 13]),
];

/// 256 MiB, compared by sums.
const LARGE: [(&str, &[usize]); 1] = [("float64", &[8192, 4096])];

pub(super) fn checks(setting: &Setting) -> Vec<Check<Bench>> {
    let mut checks = vec![
        Check::new("their blob arrives", |bench| Box::pin(their_blob(bench))),
        Check::new("we fetch the arrays of their request", |bench| Box::pin(their_arrays(bench))),
        Check::new("they fetch the arrays of our reply", |bench| Box::pin(arrays_for_them(bench))),
    ];
    if setting.subject == Side::Locule {
        let slow = setting.carrier.scheme != "grpc" || setting.is_older();
        checks.extend([
            Check::new("our blob arrives", |bench| Box::pin(our_blob(bench))),
            Check::new("they take our arrays", |bench| Box::pin(our_arrays(bench))),
            Check::new("we fetch the arrays of their reply", |bench| Box::pin(arrays_for_us(bench))),
            Check::new("we fetch 256 MiB", |bench| Box::pin(large_for_us(bench))).within(120).slow_if(slow),
            Check::new("they fetch 256 MiB", |bench| Box::pin(large_for_them(bench)))
                .within(120)
                .slow_if(slow),
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
    ensure!(bench.noted().await?.payload.body == pattern(size), "other bytes came");
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

/// The command's form of arrays.
fn described(arrays: &[(&str, &[usize])]) -> serde_json::Value {
    arrays.iter().map(|(dtype, shape)| (format!("{dtype} {shape:?}"), json!([dtype, shape]))).collect()
}

/// The same arrays.
fn map(arrays: &[(&str, &[usize])]) -> anyhow::Result<Map> {
    let all = arrays::all(&described(arrays)).map_err(anyhow::Error::msg)?;
    Ok(all.into_iter().collect())
}

/// The same in FOBS, inline.
fn inline() -> anyhow::Result<Bytes> {
    Ok(encode(&Value::from(map(&ARRAYS)?))?)
}

async fn their_arrays(bench: &mut Bench) -> anyhow::Result<()> {
    let reply = bench.they_ask("dumps", json!({ "arrays": described(&ARRAYS) })).await?;
    expect_code(&reply, "ok")?;
    payload::expect(&reply["payload"], &Payload::bytes(inline()?))
}

async fn arrays_for_them(bench: &mut Bench) -> anyhow::Result<()> {
    let request = json!({ "topic": "arrays", "headers": { "arrays": described(&ARRAYS).to_string() } });
    let reply = bench.they_send(request).await?;
    expect_code(&reply, "ok")?;
    payload::expect(&reply["payload"], &Payload::fobs(inline()?))
}

async fn our_arrays(bench: &mut Bench) -> anyhow::Result<()> {
    let reply = bench.we_ask("dumps", Payload::fobs(inline()?)).await?.into_ok()?;
    ensure!(reply.payload.body == inline()?, "other arrays arrived");
    Ok(())
}

async fn arrays_for_us(bench: &mut Bench) -> anyhow::Result<()> {
    let request = Request::new(bench.setting.channel, "arrays", Payload::none());
    let reply =
        bench.we_send(request.header("arrays", described(&ARRAYS).to_string().as_str())).await?.into_ok()?;
    let cell = bench.our(bench.name(Side::Locule))?;
    let fetched = ours::again(cell, &Fqcn::parse(bench.name(Side::Python))?, reply.payload).await;
    ensure!(fetched.map_err(anyhow::Error::msg)? == inline()?, "other arrays arrived");
    Ok(())
}

async fn large_for_us(bench: &mut Bench) -> anyhow::Result<()> {
    let request = json!({ "topic": "sums", "payload": { "arrays": described(&LARGE) }, "timeout": 100 });
    let reply = bench.they_send(request).await?;
    expect_code(&reply, "ok")?;
    payload::expect(&reply["payload"], &Payload::bytes(arrays::sums(&map(&LARGE)?).to_string().into()))
}

async fn large_for_them(bench: &mut Bench) -> anyhow::Result<()> {
    let request =
        json!({ "topic": "arrays", "headers": { "arrays": described(&LARGE).to_string() }, "timeout": 100 });
    let reply = bench.they_send(request).await?;
    expect_code(&reply, "ok")?;
    let (told, sums) = (&reply["payload"]["fobs"]["sums"], arrays::sums(&map(&LARGE)?));
    ensure!(*told == sums, "the arrays have the sums {told} and not {sums}");
    Ok(())
}
