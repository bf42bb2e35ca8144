//! What large messages cost in memory, in processes of their own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use locule_cell::{Cell, CellConfig, Incoming, Reply, Request};
use locule_message::{Fqcn, Payload};
use locule_transport::{Endpoint, Transports};
use locule_transport_tcp::TcpTransport;

const GIB: usize = 1 << 30;
const MIB: usize = 1 << 20;

/// Where the other process finds its parent.
const PARENT: &str = "LOCULE_E2E_PARENT";
/// What the sending process is to send, in bytes.
const SIZE: &str = "LOCULE_E2E_SIZE";

fn start(name: &str) -> Cell {
    let transports = Transports::new().with(TcpTransport::clear());
    Cell::builder(CellConfig::new(name.parse().unwrap())).transports(transports).start()
}

/// Peak of the memory of a process, in bytes.
fn peak(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Runs another test of this file as a process of its own, which ends with its input.
fn other_process(test: &str, parent: &Endpoint, size: usize) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(PARENT, parent.to_string())
        .env(SIZE, size.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap());
    (child, said)
}

/// The rest of the line that begins with `word`.
fn line_with(said: &mut BufReader<ChildStdout>, word: &str) -> String {
    let lines = said.lines().map(Result::unwrap);
    lines.into_iter().find_map(|line| Some(line.split_once(word)?.1.trim().to_owned())).unwrap()
}

/// Ends with its input.
fn wait_for_the_end() {
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
#[ignore = "moves a gibibyte"]
fn a_gibibyte_passes_a_relay_in_16_mib_and_is_received_into_one_copy() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (server, endpoint) = runtime.block_on(async {
        let server = start("server");
        let endpoint = server.listen(&Endpoint::parse("tcp://localhost:0").unwrap()).await.unwrap();
        (server, endpoint)
    });
    let (heard, mut hear) = tokio::sync::mpsc::unbounded_channel();
    server.handle("models", "global", move |incoming: Incoming| {
        let _ = heard.send(incoming.body.len());
        async { Ok(Reply::ok(Payload::none())) }
    });
    let (mut relay, mut relay_said) = other_process("relay_process", &endpoint, 0);
    let below = Endpoint::parse(&line_with(&mut relay_said, "listens at")).unwrap();
    assert!(runtime.block_on(server.wait_linked(&"relay".parse().unwrap(), Duration::from_secs(20))));

    let mut peaks = Vec::new();
    for size in [MIB, GIB] {
        let (mut site, mut site_said) = other_process("site_process", &below, size);
        assert_eq!(runtime.block_on(hear.recv()), Some(size));
        assert_eq!(line_with(&mut site_said, "sent"), size.to_string());
        peaks.push([relay.id(), std::process::id(), site.id()].map(peak));
        drop(site.stdin.take());
        site.wait().unwrap();
    }
    drop(relay.stdin.take());
    relay.wait().unwrap();
    let mib = |process: usize| (peaks[1][process] - peaks[0][process]) as f64 / MIB as f64;
    let (relay, receiver, sender) = (mib(0), mib(1), mib(2));
    println!(
        "a gibibyte cost the relay {relay:.1} MiB, its receiver {receiver:.1} MiB, its sender {sender:.1} MiB"
    );
    assert!(relay <= 16.0, "{relay} MiB in the relay");
    assert!(receiver <= 1024.0 + 32.0, "{receiver} MiB in the receiver");
    assert!(sender <= 1024.0 + 32.0, "{sender} MiB in the sender");
}

#[test]
#[ignore = "the relay of another test"]
fn relay_process() {
    let Ok(parent) = std::env::var(PARENT) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let relay = start("relay");
        relay.connect(Endpoint::parse(&parent).unwrap());
        let endpoint = relay.listen(&Endpoint::parse("tcp://localhost:0").unwrap()).await.unwrap();
        println!("listens at {endpoint}");
        tokio::task::spawn_blocking(wait_for_the_end).await.unwrap();
    });
}

#[test]
#[ignore = "the sender of another test"]
fn site_process() {
    let Ok(parent) = std::env::var(PARENT) else { return };
    let size: usize = std::env::var(SIZE).unwrap().parse().unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let site = start("relay.site-1");
        site.connect(Endpoint::parse(&parent).unwrap());
        assert!(site.wait_linked(&"relay".parse().unwrap(), Duration::from_secs(20)).await);
        let model = Request::new("models", "global", Payload::bytes(Bytes::from(vec![7; size])));
        let reply = site.request(&Fqcn::server(), model.timeout(Duration::from_secs(60))).await.unwrap();
        assert!(reply.code.is_ok());
        println!("sent {size}");
        tokio::task::spawn_blocking(wait_for_the_end).await.unwrap();
    });
}
