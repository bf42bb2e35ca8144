//! NATS where both ends show each other a certificate through the broker, which sees neither, and what happens when one
//! of them is not accepted.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use broker::Broker;
use conformance::{Fixture, MAX_FRAME_LEN, files};
use futures_util::{SinkExt, StreamExt};
use locule_tls::{ClientAuth, HostCheck, TlsFiles, client_config, server_config};
use locule_transport::{DialError, Endpoint, LinkError, OutFrame, Security, Transport};
use locule_transport_nats::{Login, NatsTransport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

fn listening(clients: ClientAuth) -> Arc<NatsTransport> {
    let config = server_config(&files("server"), clients).unwrap();
    Arc::new(NatsTransport::tls(None, Some(Arc::new(config))).with_max_frame_len(MAX_FRAME_LEN))
}

fn dialling(leaf: &str) -> Arc<NatsTransport> {
    let config = client_config(&files(leaf), HostCheck::None).unwrap();
    Arc::new(NatsTransport::tls(Some(Arc::new(config)), None).with_max_frame_len(MAX_FRAME_LEN))
}

/// An endpoint that nobody else uses.
fn at() -> Endpoint {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let broker = BROKER.get_or_init(|| Broker::start().unwrap()).authority();
    Endpoint::parse(&format!("nats://{broker}/test-{}/server", NEXT.fetch_add(1, Ordering::Relaxed))).unwrap()
}

fn nats_mtls() -> Fixture {
    Fixture {
        listening: listening(ClientAuth::Required),
        dialling: dialling("client"),
        at: at(),
        nowhere: at(),
        security: Security::Mutual,
        names: Some(["server", "site-1"]),
        min_frame_len: NatsTransport::MIN_FRAME_LEN,
    }
}

conformance::all!(nats_mtls());

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
async fn a_server_of_another_root_is_not_trusted() {
    let listener = listening(ClientAuth::None).listen(&at()).await.unwrap();
    let other = TlsFiles { ca: files("client").ca.with_file_name("otherCA.pem"), ..files("client") };
    let config = client_config(&other, HostCheck::None).unwrap();
    let error = NatsTransport::tls(Some(Arc::new(config)), None).dial(&listener.local()).await.unwrap_err();
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
    let mut clear = NatsTransport::clear().dial(&listener.local()).await.unwrap();
    let hello = OutFrame::new(16_u32.to_be_bytes().to_vec(), vec![0; 12]);
    clear.outgoing.send(hello).await.unwrap();
    let outcome = clear.incoming.next().await;
    assert!(matches!(outcome, Some(Err(_))), "{outcome:?}");
    let _known = dialling("client").dial(&listener.local()).await.unwrap();
    assert_eq!(listener.accept().await.unwrap().peer.security, Security::Mutual);
}

#[tokio::test]
async fn a_broker_may_ask_for_tls_itself() {
    let TlsFiles { ca, cert, key } = files("server");
    let broker = Broker::with(&format!(
        "tls {{ cert_file: {cert:?}, key_file: {key:?}, ca_file: {ca:?}, verify: true }}"
    ));
    let broker = broker.unwrap();
    let at = Endpoint::parse(&format!("nats://localhost:{}/server", broker.port())).unwrap();
    let config = client_config(&files("client"), HostCheck::San).unwrap();
    let login = Login::anonymous().with_tls(Arc::new(config));
    let through = |carrier: Arc<NatsTransport>| Arc::unwrap_or_clone(carrier).with_login(login.clone());
    let mut listener = through(listening(ClientAuth::Required)).listen(&at).await.unwrap();
    let near = through(dialling("client")).dial(&at).await.unwrap();
    let far = listener.accept().await.unwrap();
    let names = [near.peer.common_name.as_deref(), far.peer.common_name.as_deref()];
    assert_eq!(names, [Some("server"), Some("site-1")]);
    // The platform does not know the broker's root.
    let error = dialling("client").dial(&at).await.unwrap_err();
    assert!(matches!(error, DialError::Untrusted { .. }), "{error:?}");
}

#[tokio::test]
async fn older_tls_would_show_certificates_and_opens_no_link() {
    let TlsFiles { cert, key, .. } = files("server");
    let chain = CertificateDer::pem_file_iter(cert).unwrap().map(Result::unwrap).collect();
    let config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS12])
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap());
    let old = NatsTransport::tls(None, Some(Arc::new(config.unwrap())));
    let listener = old.listen(&at()).await.unwrap();
    let error = dialling("client").dial(&listener.local()).await.unwrap_err();
    let DialError::Untrusted { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "the peer speaks no TLS 1.3");
}

/// All that a broker tells one that may hear everything, from now until `what` is done.
async fn overheard(broker: &str, what: impl Future<Output = ()>) -> Vec<u8> {
    let mut tap = TcpStream::connect(broker).await.unwrap();
    let mut heard = Vec::new();
    tap.write_all(b"CONNECT {\"verbose\":false}\r\nSUB > 1\r\nPING\r\n").await.unwrap();
    read_to(&mut tap, &mut heard, b"PONG\r\n").await;
    heard.clear();
    what.await;
    // What the broker has passed on before comes before its answer.
    tap.write_all(b"PING\r\n").await.unwrap();
    read_to(&mut tap, &mut heard, b"PONG\r\n").await;
    heard
}

async fn read_to(tap: &mut TcpStream, heard: &mut Vec<u8>, end: &[u8]) {
    while !heard.windows(end.len()).any(|window| window == end) {
        assert!(tap.read_buf(heard).await.unwrap() > 0, "the broker has not gone");
    }
}

#[tokio::test]
async fn a_broker_sees_ciphertext_and_not_even_who_talks() {
    const PLAIN: &[u8] = b"the mean of all patients of this hospital";
    let clear = Arc::new(NatsTransport::clear());
    let pairs = [(listening(ClientAuth::Required), dialling("client")), (clear.clone(), clear)];
    for (number, (listening, dialling)) in pairs.into_iter().enumerate() {
        let broker = Broker::start().unwrap();
        let at = Endpoint::parse(&format!("nats://{}/project/server", broker.authority())).unwrap();
        let heard = overheard(&at.authority(), async {
            let mut listener = listening.listen(&at).await.unwrap();
            let mut near = dialling.dial(&at).await.unwrap();
            let mut far = listener.accept().await.unwrap();
            let head = (4 + 100 * PLAIN.len() as u32).to_be_bytes();
            near.outgoing.send(OutFrame::new(head.to_vec(), PLAIN.repeat(100))).await.unwrap();
            assert!(far.incoming.next().await.unwrap().unwrap().ends_with(PLAIN));
        })
        .await;
        let sees = |bytes: &[u8]| heard.windows(bytes.len()).any(|window| window == bytes);
        assert!(heard.len() > 100 * PLAIN.len() && sees(b"locule/1 dial"));
        let is_clear = number == 1;
        assert_eq!((sees(PLAIN), sees(&PLAIN[..12])), (is_clear, is_clear));
        // Names in certificates: TLS 1.3 has them encrypted, too.
        assert!(!sees(b"site-1"));
    }
}
