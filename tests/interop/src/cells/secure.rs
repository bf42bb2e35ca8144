//! Messages that are encrypted end to end, where both have certificates.

use anyhow::ensure;
use locule_cell::Request;
use locule_message::{Fqcn, Payload};
use serde_json::json;

use super::{Bench, PATIENCE, Setting, Side, expect_code};
use crate::payload::{self, pattern};
use crate::run::Check;

/// Payloads in bytes: none, few, and some chunks of a stream.
const SIZES: [usize; 4] = [0, 5, (1 << 20) + 1, (9 << 20) + 1];
/// Requests at the same time.
const MANY: usize = 40;

pub(super) fn checks(setting: &Setting) -> Vec<Check<Bench>> {
    let mut checks = vec![
        Check::new("secure: their fire-and-forget arrives", |bench| Box::pin(their_note(bench))),
        Check::new("secure: our fire-and-forget arrives", |bench| Box::pin(our_note(bench))),
        Check::new("secure: their reply without a body", |bench| Box::pin(they_refuse(bench))),
        Check::new("secure: our reply without a body", |bench| Box::pin(we_refuse(bench))),
        Check::new("secure: server forwards between sites", |bench| Box::pin(forwarded(bench))),
        Check::new(format!("secure: we answer {MANY} at a time"), |bench| Box::pin(we_answer_many(bench))),
        Check::new(format!("secure: they answer {MANY} at a time"), |bench| {
            Box::pin(they_answer_many(bench))
        }),
    ];
    // an envelope is longer than what is in it
    for size in SIZES.into_iter().filter(|size| setting.takes(size + 1024)) {
        checks.extend([
            Check::new(format!("secure: {size} B echoed by us"), move |bench| Box::pin(by_us(bench, size))),
            Check::new(format!("secure: {size} B echoed by them"), move |bench| {
                Box::pin(by_them(bench, size))
            }),
        ]);
    }
    checks
}

/// Before 2.9 an envelope protects nothing from being changed, so ours opens none.
pub(super) fn older_checks() -> Vec<Check<Bench>> {
    vec![Check::new("secure: their envelope is refused, as of an older version", |bench| {
        Box::pin(refuse_older(bench))
    })]
}

async fn refuse_older(bench: &mut Bench) -> anyhow::Result<()> {
    let request = json!({ "topic": "echo", "payload": { "size": 5 }, "secure": true, "timeout": 5 });
    let reply = bench.they_send(request).await?;
    ensure!(reply["code"] != "ok", "it was opened");
    // A plain reply says why. Of a stream they are told as much, but keep it to themselves.
    let why = reply["error"].as_str().unwrap_or_default();
    ensure!(bench.setting.streamed() || why.contains("envelope"), "it was refused with {reply}");
    Ok(())
}

/// How many messages our cell has sealed and opened.
fn treated(bench: &Bench) -> anyhow::Result<(u64, u64)> {
    let stats = bench.our(bench.name(Side::Locule))?.stats();
    ensure!(stats.unopened == 0, "{} messages could not be opened", stats.unopened);
    Ok((stats.sealed, stats.opened))
}

async fn by_us(bench: &mut Bench, size: usize) -> anyhow::Result<()> {
    let before = treated(bench)?;
    let reply =
        bench.they_send(json!({ "topic": "echo", "payload": { "size": size }, "secure": true })).await?;
    expect_code(&reply, "ok")?;
    payload::expect(&reply["payload"], &Payload::bytes(pattern(size)))?;
    let after = treated(bench)?;
    ensure!(before.0 < after.0 && before.1 < after.1, "it went in clear: {before:?}, {after:?}");
    Ok(())
}

async fn by_them(bench: &mut Bench, size: usize) -> anyhow::Result<()> {
    let before = treated(bench)?;
    let request = Request::new(bench.setting.channel, "echo", Payload::bytes(pattern(size))).secure();
    let reply = bench.we_send(request.timeout(PATIENCE)).await?.into_ok()?;
    ensure!(reply.payload.body == pattern(size), "{} other bytes came back", reply.payload.body.len());
    let after = treated(bench)?;
    ensure!(before.0 < after.0 && before.1 < after.1, "it went in clear: {before:?}, {after:?}");
    Ok(())
}

async fn their_note(bench: &mut Bench) -> anyhow::Result<()> {
    let (from, to) = (bench.name(Side::Python), bench.name(Side::Locule));
    let notice = json!({ "name": from, "channel": bench.setting.channel, "topic": "note", "targets": [to],
                         "payload": { "size": 7 }, "secure": true });
    let before = treated(bench)?;
    bench.peer.ask("notify", notice).await?;
    let note = bench.noted().await?;
    ensure!(note.payload == Payload::bytes(pattern(7)), "the payload is {:?}", note.payload);
    ensure!(treated(bench)?.1 == before.1 + 1, "it went in clear");
    Ok(())
}

async fn our_note(bench: &mut Bench) -> anyhow::Result<()> {
    let cell = bench.our(bench.name(Side::Locule))?;
    let notice = Request::new(bench.setting.channel, "note", Payload::bytes(pattern(7))).secure();
    cell.notify(&Fqcn::parse(bench.name(Side::Python))?, notice).await?;
    payload::expect(&bench.they_noted(1).await?[0]["payload"], &Payload::bytes(pattern(7)))
}

async fn they_refuse(bench: &mut Bench) -> anyhow::Result<()> {
    let request = Request::new(bench.setting.channel, "refuse", Payload::none()).secure();
    let reply = bench.we_send(request.timeout(PATIENCE)).await?;
    ensure!(reply.code.as_str() == "invalid_request", "the code is {}", reply.code);
    ensure!(reply.error.as_deref() == Some("not today"), "the error is {:?}", reply.error);
    Ok(())
}

async fn we_refuse(bench: &mut Bench) -> anyhow::Result<()> {
    let reply =
        bench.they_send(json!({ "topic": "refuse", "payload": { "size": 3 }, "secure": true })).await?;
    expect_code(&reply, "invalid_request")?;
    ensure!(reply["error"] == "not today", "the error is {}", reply["error"]);
    Ok(())
}

/// The side that listens passes on what it cannot read.
async fn forwarded(bench: &mut Bench) -> anyhow::Result<()> {
    if bench.setting.listener == Side::Locule {
        let before = treated(bench)?;
        let request = json!({ "name": "site-1", "target": "site-2", "topic": "echo", "payload": { "size": 3000 },
                              "secure": true });
        let reply = bench.they_send(request).await?;
        payload::expect(&reply["payload"], &Payload::bytes(pattern(3000)))?;
        ensure!(treated(bench)? == before, "the server opened it");
        return Ok(());
    }
    let request = Request::new(bench.setting.channel, "echo", Payload::bytes(pattern(3000))).secure();
    let reply = bench.our("site-1")?.request(&Fqcn::parse("site-2")?, request.timeout(PATIENCE)).await?;
    ensure!(reply.into_ok()?.payload.body == pattern(3000), "other bytes came back");
    Ok(())
}

async fn we_answer_many(bench: &mut Bench) -> anyhow::Result<()> {
    let request = json!({ "topic": "echo", "payload": { "size": 50 }, "times": MANY, "secure": true });
    let replies = bench.they_send_all(request).await?;
    for index in 0..MANY {
        payload::expect(&replies[index]["payload"], &Payload::bytes(pattern(50)))?;
    }
    Ok(())
}

async fn they_answer_many(bench: &mut Bench) -> anyhow::Result<()> {
    let bench = &*bench;
    Bench::all((0..MANY).map(|size| async move {
        let request = Request::new(bench.setting.channel, "echo", Payload::bytes(pattern(size))).secure();
        let reply = bench.we_send(request.timeout(PATIENCE)).await?.into_ok()?;
        ensure!(reply.payload.body == pattern(size), "the reply to another request came");
        Ok(())
    }))
    .await
}
