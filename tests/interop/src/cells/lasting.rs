//! Links that begin, end and come back; secure ones, since encryption changes nothing else here.

use std::time::Duration;

use anyhow::ensure;
use locule_cell::{Cell, Request};
use locule_message::{Fqcn, Payload};
use serde_json::json;

use super::{Bench, CAPABILITY, PATIENCE, Setting, Side, start_peer};
use crate::payload::pattern;
use crate::run::Check;

/// How long a cell of ours waits for its handlers when it leaves; one of them never ends.
const GRACE: Duration = Duration::from_secs(1);
/// Bulk messages, which need more than one of the peer's parcels of 100.
const BULK: usize = 250;

/// Seconds that a link may take to go and come back, several times over, on a busy machine: older versions of
/// nvflare are slow to notice.
const LASTING: u64 = 120;

pub(super) fn checks(setting: &Setting) -> Vec<Check<Bench>> {
    if !setting.secure {
        let bulk = Check::new("their messages in bulk arrive", |bench| Box::pin(bulk(bench)));
        return vec![bulk];
    }
    let mut checks = vec![Check::new("our handshake's marks arrive", |bench| Box::pin(marks(bench)))];
    if setting.listener == Side::Locule || !setting.is_older() {
        checks.push(Check::new("a cell with another's certificate is kept out", |bench| {
            Box::pin(foreign_certificate(bench))
        }));
    }
    if setting.listener == Side::Python {
        let at_once =
            Check::new("what follows the handshake at once arrives", |bench| Box::pin(at_once(bench)));
        checks.push(at_once.within(LASTING));
    }
    checks.extend([
        Check::new("we leave with a bye, and come back", |bench| Box::pin(we_leave(bench))).within(LASTING),
        Check::new("they leave with a bye, and come back", |bench| Box::pin(they_leave(bench)))
            .within(LASTING),
        Check::new("our cell is gone, and comes back", |bench| Box::pin(we_vanish(bench))).within(LASTING),
        Check::new("their process is killed, and comes back", |bench| Box::pin(they_vanish(bench)))
            .within(LASTING),
    ]);
    checks
}

/// Marks that nvflare's own cells do not make; all other cases show that they change nothing.
async fn marks(bench: &mut Bench) -> anyhow::Result<()> {
    let (ours, theirs) = (bench.name(Side::Locule), bench.name(Side::Python));
    let told = bench.peer.ask("handshake", json!({ "name": theirs, "peer": ours })).await?;
    let software = told["software"].as_str().unwrap_or_default();
    ensure!(software.starts_with("locule/") && told["capabilities"] == json!([CAPABILITY]), "{told}");
    Ok(())
}

/// A link may not bear a name for which another's certificate speaks.
async fn foreign_certificate(bench: &mut Bench) -> anyhow::Result<()> {
    if bench.setting.listener == Side::Locule {
        bench.start_their(&bench.peer, "site-9", "site-2").await?;
        let command = json!({ "name": "site-9", "peer": "server", "timeout": 2 });
        ensure!(bench.peer.ask("wait_linked", command).await.is_err(), "site-9 was let in");
        ensure!(
            !bench.our("server")?.links().borrow().contains(&Fqcn::parse("site-9")?),
            "site-9 is a neighbour"
        );
        bench.peer.ask("stop", json!({ "name": "site-9" })).await?;
        return Ok(());
    }
    let cell = bench.our_cell("site-9", "site-2")?;
    cell.connect(bench.endpoint.clone());
    // The peer says that it is ready before it looks at the certificate, and closes then.
    cell.wait_linked(&Fqcn::server(), PATIENCE / 10).await;
    let request = Request::new(bench.setting.channel, "echo", Payload::none()).timeout(PATIENCE / 10);
    let outcome = cell.request(&Fqcn::server(), request).await;
    ensure!(outcome.is_err(), "site-9 asked and was answered");
    let request = json!({ "topic": "echo", "target": "site-9", "timeout": 1 });
    let reply = bench.they_send(request).await?;
    ensure!(reply["code"] != "ok", "site-9 was asked and answered");
    cell.shutdown(GRACE).await;
    Ok(())
}

async fn bulk(bench: &mut Bench) -> anyhow::Result<()> {
    let (from, to) = (bench.name(Side::Python), bench.name(Side::Locule));
    let payloads: Vec<_> = (0..BULK).map(|size| json!({ "size": size })).collect();
    let command = json!({ "name": from, "channel": bench.setting.channel, "topic": "note", "target": to,
                          "payloads": payloads });
    bench.peer.ask("queue", command).await?;
    let mut seen = vec![false; BULK];
    for _ in 0..BULK {
        let payload = bench.noted().await?.payload;
        ensure!(payload.body == pattern(payload.body.len()), "a message holds other bytes");
        seen[payload.body.len()] = true;
    }
    ensure!(seen.iter().all(|seen| *seen), "a message came twice");
    Ok(())
}

/// The peer says that it is ready before it is; what is sent at once would be lost there.
async fn at_once(bench: &mut Bench) -> anyhow::Result<()> {
    for attempt in 0..10 {
        let cell = bench.our_cell("site-1.job", "site-1")?;
        cell.connect(bench.endpoint.clone());
        ensure!(cell.wait_linked(&Fqcn::server(), PATIENCE).await, "no link");
        let request = Request::new(bench.setting.channel, "echo", Payload::none()).timeout(PATIENCE);
        let reply = cell.request(&Fqcn::server(), request).await;
        cell.shutdown(GRACE).await;
        ensure!(reply.is_ok(), "attempt {attempt}: {reply:?}");
    }
    Ok(())
}

async fn we_leave(bench: &mut Bench) -> anyhow::Result<()> {
    for cell in std::mem::take(&mut bench.ours).into_values() {
        cell.shutdown(GRACE).await;
    }
    they_see_us_gone(bench).await?;
    bench.start_ours().await?;
    bench.linked().await?;
    bench.both_ask().await
}

async fn they_leave(bench: &mut Bench) -> anyhow::Result<()> {
    for name in bench.setting.names(Side::Python) {
        bench.peer.ask("stop", json!({ "name": name })).await?;
    }
    we_see_them_gone(bench).await?;
    // The Python side frees its port some time after it stopped listening.
    restart(bench).await
}

/// As if our process had been killed: no goodbye.
async fn we_vanish(bench: &mut Bench) -> anyhow::Result<()> {
    bench.ours.clear();
    they_see_us_gone(bench).await?;
    bench.start_ours().await?;
    bench.linked().await?;
    bench.both_ask().await
}

async fn they_vanish(bench: &mut Bench) -> anyhow::Result<()> {
    restart(bench).await
}

/// Kills the Python process and starts another; the cells of ours are the same.
async fn restart(bench: &mut Bench) -> anyhow::Result<()> {
    bench.peer.kill().await?;
    we_see_them_gone(bench).await?;
    bench.peer = start_peer(&bench.python, bench.setting, &bench.log)?;
    bench.start_theirs().await?;
    bench.linked().await?;
    bench.both_ask().await
}

async fn they_see_us_gone(bench: &Bench) -> anyhow::Result<()> {
    for theirs in bench.setting.names(Side::Python) {
        for ours in bench.setting.names(Side::Locule) {
            let command = json!({ "name": theirs, "peer": ours, "linked": false });
            bench.peer.ask("wait_linked", command).await?;
        }
    }
    Ok(())
}

async fn we_see_them_gone(bench: &Bench) -> anyhow::Result<()> {
    for cell in bench.ours.values() {
        wait_alone(cell).await?;
    }
    Ok(())
}

async fn wait_alone(cell: &Cell) -> anyhow::Result<()> {
    let mut links = cell.links();
    let alone = links.wait_for(Vec::is_empty);
    ensure!(tokio::time::timeout(PATIENCE, alone).await.is_ok(), "{} still has neighbours", cell.name());
    Ok(())
}
