//! Requests, replies, and what becomes of those that nobody answers.

use std::time::Duration;

use anyhow::ensure;
use locule_cell::{Reply, Request, RequestError};
use locule_message::{Fqcn, Payload, ReturnCode};
use serde_json::json;

use super::{Bench, PATIENCE, Setting, Side, expect_code};
use crate::payload::{self, pattern};
use crate::run::Check;

/// Payloads in bytes: none, few, around the chunk of a stream and above what gRPC takes by default.
const SIZES: [usize; 7] = [0, 1, 1000, (1 << 20) - 1, 1 << 20, (4 << 20) + 1, 64 << 20];
/// Requests at the same time.
const MANY: usize = 200;

pub(super) fn checks(setting: &Setting) -> Vec<Check<Bench>> {
    let mut checks = vec![
        Check::new("we answer, headers come back", |bench| Box::pin(we_answer(bench))),
        Check::new("their fire-and-forget arrives", |bench| Box::pin(their_note(bench))),
        Check::new("we have no handler", |bench| Box::pin(we_have_no_handler(bench))),
        Check::new("our handler fails", |bench| Box::pin(our_handler_fails(bench))),
        Check::new("they ask nobody", |bench| Box::pin(they_ask_nobody(bench))),
        Check::new(format!("we answer {MANY} at a time"), |bench| Box::pin(we_answer_many(bench))),
    ];
    let of_ours = setting.subject == Side::Locule;
    if of_ours {
        checks.extend([
            Check::new("they answer, headers come back", |bench| Box::pin(they_answer(bench))),
            Check::new("our fire-and-forget arrives", |bench| Box::pin(our_note(bench))),
            Check::new("server broadcasts to both sites", |bench| Box::pin(broadcast(bench))),
            Check::new("server forwards between sites", |bench| Box::pin(forwarded(bench))),
            Check::new("their handler gives nothing", |bench| Box::pin(they_are_silent(bench))),
            Check::new("we never reply: they time out", |bench| Box::pin(we_are_silent(bench))),
            Check::new("they have no handler", |bench| Box::pin(they_have_no_handler(bench))),
            Check::new("their handler fails", |bench| Box::pin(their_handler_fails(bench))),
            Check::new("we ask nobody", |bench| Box::pin(we_ask_nobody(bench))),
            Check::new(format!("they answer {MANY} at a time"), |bench| Box::pin(they_answer_many(bench))),
        ]);
    }
    for size in SIZES.into_iter().filter(|size| setting.takes(*size)) {
        let name = format!("{} echoed by us", text(size));
        checks.push(Check::new(name, move |bench| Box::pin(echoed_by_us(bench, size))).within(60));
        if of_ours {
            let name = format!("{} echoed by them", text(size));
            checks.push(Check::new(name, move |bench| Box::pin(echoed_by_them(bench, size))).within(60));
        }
    }
    checks
}

async fn they_answer(bench: &mut Bench) -> anyhow::Result<()> {
    let request = Request::new(bench.setting.channel, "echo", Payload::bytes("ping".into()));
    let reply = bench.we_send(request.header("mark", "für uns").timeout(PATIENCE)).await?.into_ok()?;
    ensure!(reply.headers.str("mark") == Some("für uns"), "the header is {:?}", reply.headers.str("mark"));
    ensure!(reply.payload == Payload::bytes("ping".into()), "the payload is {:?}", reply.payload);
    Ok(())
}

async fn we_answer(bench: &mut Bench) -> anyhow::Result<()> {
    let request = json!({ "topic": "echo", "payload": { "size": 4 }, "headers": { "mark": "für sie" } });
    let reply = bench.they_send(request).await?;
    expect_code(&reply, "ok")?;
    ensure!(reply["mark"] == "für sie", "the header is {}", reply["mark"]);
    payload::expect(&reply["payload"], &Payload::bytes(pattern(4)))
}

async fn our_note(bench: &mut Bench) -> anyhow::Result<()> {
    let cell = bench.our(bench.name(Side::Locule))?;
    let notice = Request::new(bench.setting.channel, "note", Payload::bytes(pattern(7)));
    cell.notify(&Fqcn::parse(bench.name(Side::Python))?, notice).await?;
    let notes = bench.they_noted(1).await?;
    ensure!(notes[0]["origin"] == bench.name(Side::Locule), "it came from {}", notes[0]["origin"]);
    payload::expect(&notes[0]["payload"], &Payload::bytes(pattern(7)))
}

async fn their_note(bench: &mut Bench) -> anyhow::Result<()> {
    let (from, to) = (bench.name(Side::Python), bench.name(Side::Locule));
    let channel = bench.setting.channel;
    let notice = json!({ "name": from, "channel": channel, "topic": "note", "targets": [to], "payload": { "size": 7 } });
    bench.peer.ask("notify", notice).await?;
    let note = bench.noted().await?;
    ensure!(note.origin.as_str() == from, "it came from {}", note.origin);
    ensure!(note.payload == Payload::bytes(pattern(7)), "the payload is {:?}", note.payload);
    Ok(())
}

async fn broadcast(bench: &mut Bench) -> anyhow::Result<()> {
    let sites = ["site-1", "site-2"];
    let channel = bench.setting.channel;
    if bench.setting.listener == Side::Python {
        let command = json!({ "name": "server", "channel": channel, "topic": "echo", "targets": sites,
                              "payload": { "size": 9 } });
        let replies = bench.peer.ask("broadcast", command).await?;
        for site in sites {
            payload::expect(&replies[site]["payload"], &Payload::bytes(pattern(9)))?;
        }
        return Ok(());
    }
    let targets = [Fqcn::parse(sites[0])?, Fqcn::parse(sites[1])?];
    let request = Request::new(channel, "echo", Payload::bytes(pattern(9))).timeout(PATIENCE);
    for (site, reply) in bench.our("server")?.broadcast(&targets, request).await {
        let reply = reply?.into_ok()?;
        ensure!(reply.payload.body == pattern(9), "{site} answered with {:?}", reply.payload);
    }
    Ok(())
}

/// The side that listens passes on what the other side's two sites say to each other.
async fn forwarded(bench: &mut Bench) -> anyhow::Result<()> {
    if bench.setting.listener == Side::Locule {
        let request =
            json!({ "name": "site-1", "target": "site-2", "topic": "echo", "payload": { "size": 3000 } });
        let reply = bench.they_send(request).await?;
        return payload::expect(&reply["payload"], &Payload::bytes(pattern(3000)));
    }
    let request = Request::new(bench.setting.channel, "echo", Payload::bytes(pattern(3000)));
    let reply = bench.our("site-1")?.request(&Fqcn::parse("site-2")?, request.timeout(PATIENCE)).await?;
    ensure!(reply.into_ok()?.payload.body == pattern(3000), "other bytes came back");
    Ok(())
}

/// A plain request is not answered then, a stream is; an older peer breaks it off.
async fn they_are_silent(bench: &mut Bench) -> anyhow::Result<()> {
    let request = Request::new(bench.setting.channel, "silent", Payload::none());
    let outcome = bench.we_send(request.timeout(Duration::from_secs(1))).await;
    let code = match (bench.setting.streamed(), bench.setting.is_older()) {
        (false, _) => ReturnCode::Timeout,
        (true, false) => ReturnCode::ProcessException,
        (true, true) => ReturnCode::CommError,
    };
    expect_end(outcome, code)
}

async fn we_are_silent(bench: &mut Bench) -> anyhow::Result<()> {
    let reply = bench.they_send(json!({ "topic": "silent", "timeout": 1 })).await?;
    expect_code(&reply, "timeout")
}

/// The code of a request that no handler took, or whose handler failed. A stock cell breaks a stream off
/// instead; ours answers it like any request.
fn failed(bench: &Bench, answers: Side) -> ReturnCode {
    let stock = answers == Side::Python || bench.setting.subject == Side::Python;
    if bench.setting.streamed() && stock { ReturnCode::CommError } else { ReturnCode::ProcessException }
}

async fn they_have_no_handler(bench: &mut Bench) -> anyhow::Result<()> {
    expect_end(bench.we_ask("nothing", Payload::none()).await, failed(bench, Side::Python))
}

async fn we_have_no_handler(bench: &mut Bench) -> anyhow::Result<()> {
    let reply = bench.they_ask("nothing", json!(null)).await?;
    expect_code(&reply, failed(bench, Side::Locule).as_str())
}

async fn their_handler_fails(bench: &mut Bench) -> anyhow::Result<()> {
    expect_end(bench.we_ask("fail", Payload::none()).await, failed(bench, Side::Python))?;
    let reply = bench.we_ask("refuse", Payload::none()).await?;
    ensure!(reply.code == ReturnCode::InvalidRequest, "the code is {}", reply.code);
    ensure!(reply.error.as_deref() == Some("not today"), "the error is {:?}", reply.error);
    Ok(())
}

async fn our_handler_fails(bench: &mut Bench) -> anyhow::Result<()> {
    expect_code(&bench.they_ask("fail", json!(null)).await?, failed(bench, Side::Locule).as_str())?;
    let reply = bench.they_ask("refuse", json!(null)).await?;
    expect_code(&reply, "invalid_request")?;
    ensure!(reply["error"] == "not today", "the error is {}", reply["error"]);
    Ok(())
}

/// A server knows at once that there is no such site. A site learns it from the server; but not of a stream
/// from a stock server, which drops it. An older peer hears nothing of a stream at all.
fn nobody(bench: &Bench, asks: Side) -> ReturnCode {
    let streamed = bench.setting.streamed();
    if streamed && asks == Side::Python && bench.setting.is_older() {
        return ReturnCode::Timeout;
    }
    let stock = |side| side == Side::Python || bench.setting.subject == Side::Python;
    let server = bench.setting.listener;
    match (server == asks, streamed) {
        (true, true) if stock(asks) => ReturnCode::CommError,
        (true, _) => ReturnCode::TargetUnreachable,
        (false, true) if stock(server) => ReturnCode::Timeout,
        (false, _) => ReturnCode::CommError,
    }
}

async fn we_ask_nobody(bench: &mut Bench) -> anyhow::Result<()> {
    let cell = bench.our(bench.name(Side::Locule))?;
    let request = Request::new(bench.setting.channel, "echo", Payload::none()).timeout(PATIENCE / 10);
    let outcome = cell.request(&Fqcn::parse("site-7")?, request).await;
    expect_end(outcome, nobody(bench, Side::Locule))
}

async fn they_ask_nobody(bench: &mut Bench) -> anyhow::Result<()> {
    let reply = bench.they_send(json!({ "topic": "echo", "target": "site-7", "timeout": 2 })).await?;
    expect_code(&reply, nobody(bench, Side::Python).as_str())
}

async fn they_answer_many(bench: &mut Bench) -> anyhow::Result<()> {
    let bench = &*bench;
    Bench::all((0..MANY).map(|size| async move {
        let reply = bench.we_ask("echo", Payload::bytes(pattern(size))).await?.into_ok()?;
        ensure!(reply.payload.body == pattern(size), "the reply to another request came");
        Ok(())
    }))
    .await
}

async fn we_answer_many(bench: &mut Bench) -> anyhow::Result<()> {
    let request = json!({ "topic": "echo", "payload": { "size": 50 }, "times": MANY });
    let replies = bench.they_send_all(request).await?;
    for index in 0..MANY {
        payload::expect(&replies[index]["payload"], &Payload::bytes(pattern(50)))?;
    }
    Ok(())
}

async fn echoed_by_them(bench: &mut Bench, size: usize) -> anyhow::Result<()> {
    let reply = bench.we_ask("echo", Payload::bytes(pattern(size))).await?.into_ok()?;
    ensure!(reply.payload.body == pattern(size), "{} other bytes came back", reply.payload.body.len());
    Ok(())
}

async fn echoed_by_us(bench: &mut Bench, size: usize) -> anyhow::Result<()> {
    let reply = bench.they_ask("echo", json!({ "size": size })).await?;
    // The empty body of a plain message is none to them, whatever the encoding says.
    let none = size == 0 && !bench.setting.streamed();
    let expected = if none { Payload::none() } else { Payload::bytes(pattern(size)) };
    payload::expect(&reply["payload"], &expected)
}

/// Whether a request of ours ended with this code, by a reply or without one.
fn expect_end(outcome: Result<Reply, RequestError>, code: ReturnCode) -> anyhow::Result<()> {
    let ended = outcome.as_ref().map_or_else(RequestError::code, |reply| reply.code);
    ensure!(ended == code, "the request ended with {ended}: {outcome:?}");
    Ok(())
}

fn text(size: usize) -> String {
    match size {
        0..1024 => format!("{size} B"),
        _ if size.is_multiple_of(1 << 20) => format!("{} MiB", size >> 20),
        _ => format!("{size} B"),
    }
}
