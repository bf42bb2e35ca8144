//! WebSocket where both ends show a certificate, and what happens when one of them is not accepted.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use conformance::{Fixture, MAX_FRAME_LEN, files};
use futures_util::StreamExt;
use locule_tls::{ClientAuth, HostCheck, TlsFiles, client_config, server_config};
use locule_transport::{DialError, Endpoint, LinkError, Security, Transport};
use locule_transport_ws::WsTransport;

fn listening(clients: ClientAuth) -> Arc<WsTransport> {
    let config = server_config(&files("server"), clients).unwrap();
    Arc::new(WsTransport::tls(None, Some(Arc::new(config))).with_max_frame_len(MAX_FRAME_LEN))
}

fn dialling(leaf: &str) -> Arc<WsTransport> {
    let config = client_config(&files(leaf), HostCheck::None).unwrap();
    Arc::new(WsTransport::tls(Some(Arc::new(config)), None).with_max_frame_len(MAX_FRAME_LEN))
}

fn at() -> Endpoint {
    Endpoint::parse("http://127.0.0.1:0").unwrap()
}

fn ws_mtls() -> Fixture {
    Fixture {
        listening: listening(ClientAuth::Required),
        dialling: dialling("client"),
        at: at(),
        nowhere: Endpoint::parse("http://127.0.0.1:1").unwrap(),
        security: Security::Mutual,
        names: Some(["server", "site-1"]),
        min_frame_len: 0,
    }
}

conformance::all!(ws_mtls());

#[tokio::test]
async fn a_certificate_of_another_root_opens_no_link() {
    let mut listener = listening(ClientAuth::Required).listen(&at()).await.unwrap();
    // TLS 1.3 lets a dialer finish before the listener has looked at its certificate.
    match dialling("stranger").dial(&listener.local()).await {
        Ok(mut link) => {
            let outcome = link.incoming.next().await;
            assert!(matches!(outcome, Some(Err(LinkError::Broken { .. }))), "{outcome:?}");
        }
        Err(error) => assert!(matches!(error, DialError::Untrusted { .. }), "{error:?}"),
    }
    let known = dialling("client").dial(&listener.local()).await.unwrap();
    let accepted = listener.accept().await.unwrap();
    assert_eq!(accepted.peer.certificates.len(), 1);
    drop(known);
}

#[tokio::test]
async fn a_server_under_another_name_is_trusted_and_its_own_name_is_seen() {
    let everywhere = Endpoint::parse("http://0:0").unwrap();
    let listener = listening(ClientAuth::Required).listen(&everywhere).await.unwrap();
    let elsewhere = Endpoint::parse("http://127.0.0.2:0").unwrap();
    let elsewhere = elsewhere.with_port(listener.local().port().unwrap());
    let link = dialling("client").dial(&elsewhere).await.unwrap();
    assert_eq!(link.peer.common_name.as_deref(), Some("server"));
}

#[tokio::test]
async fn a_server_of_another_root_is_not_trusted() {
    let listener = listening(ClientAuth::None).listen(&at()).await.unwrap();
    let other = TlsFiles { ca: files("client").ca.with_file_name("otherCA.pem"), ..files("client") };
    let config = client_config(&other, HostCheck::None).unwrap();
    let error = WsTransport::tls(Some(Arc::new(config)), None).dial(&listener.local()).await.unwrap_err();
    assert!(matches!(error, DialError::Untrusted { .. }) && !error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn a_listener_that_asks_for_no_certificate_says_so() {
    let mut listener = listening(ClientAuth::None).listen(&at()).await.unwrap();
    let _near = dialling("client").dial(&listener.local()).await.unwrap();
    let far = listener.accept().await.unwrap();
    assert_eq!((far.peer.security, far.peer.common_name), (Security::ServerOnly, None));
}

#[tokio::test]
async fn a_dialer_without_tls_gets_no_link() {
    let mut listener = listening(ClientAuth::Required).listen(&at()).await.unwrap();
    assert!(WsTransport::clear().dial(&listener.local()).await.is_err());
    let _known = dialling("client").dial(&listener.local()).await.unwrap();
    assert_eq!(listener.accept().await.unwrap().peer.security, Security::Mutual);
}

#[tokio::test]
async fn handshakes_that_never_end_keep_nobody_waiting() {
    let mut listener = listening(ClientAuth::Required).listen(&at()).await.unwrap();
    let address = listener.local().authority();
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    let start = tokio::time::Instant::now();
    let _near = dialling("client").dial(&listener.local()).await.unwrap();
    listener.accept().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}
