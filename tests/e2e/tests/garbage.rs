//! A peer that speaks garbage disturbs nobody.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use e2e::{PATIENCE, provision};
use futures_util::{SinkExt as _, StreamExt as _};
use locule_tls::{HostCheck, TlsFiles, client_config};
use locule_transport::{Endpoint, OutFrame, Transport as _};
use locule_transport_grpc::GrpcTransport;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

/// What is said in place of a conversation.
const GARBAGE: [&[u8]; 6] = [
    b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on, not a hello",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x00\x00\x00\x10\x00\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00",
    &[0; 4096],
    &[0xff; 70_000],
];

#[test]
fn a_site_joins_and_stays_while_others_speak_garbage() {
    let dir = tempfile::tempdir().unwrap();
    let kits = provision(dir.path(), 2);
    let mut server = kits.start_server();
    let tls = |alpn: &[&[u8]]| {
        let files = TlsFiles::in_folder(kits.sites[1].join("startup"), "client");
        let mut config = client_config(&files, HostCheck::San).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    };
    let (h2, none) = (tls(&[b"h2"]), tls(&[]));
    let connect = || {
        let stream = TcpStream::connect(("localhost", kits.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let protected = |config: &Arc<rustls::ClientConfig>| {
        let name = ServerName::try_from("localhost").unwrap();
        StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), connect())
    };

    let silent: Vec<TcpStream> = (0..20).map(|_| connect()).collect();
    let mut site = kits.start_site(1);
    for garbage in GARBAGE {
        let mut clear = connect();
        clear.write_all(garbage).ok(); // it may have hung up already
        read_to_end(&mut clear);
        for config in [&h2, &none] {
            let mut stream = protected(config);
            stream.conn.complete_io(&mut stream.sock).expect("the certificate is good");
            stream.write_all(garbage).ok();
            stream.conn.send_close_notify();
            stream.flush().ok();
            read_to_end(&mut stream);
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for garbage in GARBAGE {
        runtime.block_on(speak_in_frames(kits.port, &h2, garbage));
    }
    server.wait_for("site-1 joined");
    site.wait_for("site-1 registered");
    for _ in 0..3 {
        server.wait_for(" heartbeat site=\"site-1\"");
    }
    drop(silent);

    site.close_stdin();
    let (code, _, said) = site.finish();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("registered").count(), 1, "{said}");
    server.close_stdin();
    let (code, out, said) = server.finish();
    assert_eq!(code, Some(0), "{said}");
    assert!(!out.contains("site-2"), "{out}");
    assert!(!said.contains("panicked") && !said.contains("ERROR"), "{said}");
    let at_info = said.lines().filter(|line| !line.contains(" DEBUG ") && line.contains("127.0.0.1")).count();
    assert_eq!(at_info, 0, "nobody can fill a disk: {said}");
}

/// Speaks the carrier well, and garbage in its frames.
async fn speak_in_frames(port: u16, tls: &Arc<rustls::ClientConfig>, garbage: &'static [u8]) {
    let grpc = GrpcTransport::tls(Some(Arc::clone(tls)), None);
    let endpoint = Endpoint::parse(&format!("grpc://localhost:{port}")).unwrap();
    let mut link = grpc.dial(&endpoint).await.unwrap();
    link.outgoing.send(OutFrame::new(garbage, "")).await.ok();
    let hung_up =
        tokio::time::timeout(PATIENCE, async { while let Some(Ok(_)) = link.incoming.next().await {} });
    hung_up.await.expect("the server keeps the link");
}

/// Reads until the other side hangs up, which it does.
fn read_to_end(stream: &mut impl std::io::Read) {
    let mut rest = Vec::new();
    if let Err(error) = stream.take(1 << 20).read_to_end(&mut rest) {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "the server keeps the line open");
    }
}
