//! Listeners and dialers against raw sockets: what stock peers send, and what nobody should.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use locule_transport::{DialError, Endpoint, Link, LinkError, Listener, OutFrame, Transport};
use locule_transport_ws::WsTransport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A stock dialer's upgrade and the answer to its key (nvflare 2.9.0 with aiohttp 3.14.5).
const UPGRADE: &str = "GET /f3 HTTP/1.1\r\nHost: 127.0.0.1:20013\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x9dVEmlOhUZDm3N7O4HAQw==\r\n\
    Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nUser-Agent: Python/3.11 aiohttp/3.14.5\r\n\r\n";
const ACCEPT: &str = "sec-websocket-accept: J+n88LRZ6tohlEoRjV1NrBLD6V0=\r\n";
/// A stock dialer's HELLO as `site-1` in a masked message, and the frame in it.
const MASKED_HELLO: &[u8] =
    b"\x82\xc5\xce\xed\x66\x70\xce\xed\x66\x35\xce\xed\x62\x70\xce\xed\x66\x70\xce\xec\
    \x66\x71\x4d\x40\x03\x1e\xaa\x9d\x09\x19\xa0\x99\x39\x1e\xaf\x80\x03\xd6\xbd\x84\x12\x15\xe3\xdc\xcf\x04\
    \xa7\x80\x03\x03\xba\x8c\x0b\x00\x05\xac\xbc\xb0\x48\x29\x3c\xdf\xde\x49\x00\x01\xad\x83\xc0\x03\xa7\x99\
    \x03\x5d\xff";
const HELLO: &[u8] = b"\0\0\0\x45\0\0\x04\0\0\0\0\0\0\x01\0\x01\
    \x83\xadendpoint_name\xa6site-1\xa9timestamp\xcb\x41\xda\xc0\x86\xc4\x5a\xaf\x10\xa4fqcn\xa6site-1";
/// A stock dialer's close with code 1000.
const MASKED_CLOSE: &[u8] = b"\x88\x82\x4e\xc0\x2b\xa5\x4d\x28";

fn at(text: &str) -> Endpoint {
    Endpoint::parse(text).unwrap()
}

async fn listener() -> Box<dyn Listener> {
    WsTransport::clear().listen(&at("http://127.0.0.1:0")).await.unwrap()
}

/// A masked piece; with a mask of nothing its body can be read here.
fn piece(first: u8, body: &[u8]) -> Vec<u8> {
    let len = u8::try_from(body.len()).ok().filter(|len| *len < 126).unwrap();
    [&[first, 0x80 | len, 0, 0, 0, 0], body].concat()
}

/// A raw socket that upgraded as a stock dialer does, and the link that the listener made of it.
async fn stranger() -> (TcpStream, Link) {
    let mut listener = listener().await;
    let mut raw = TcpStream::connect(listener.local().authority()).await.unwrap();
    raw.set_nodelay(true).unwrap();
    raw.write_all(UPGRADE.as_bytes()).await.unwrap();
    let answer = head(&mut raw).await;
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    assert!(answer.contains(ACCEPT), "{answer}");
    (raw, listener.accept().await.unwrap())
}

/// Reads up to the empty line.
async fn head(raw: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(raw.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn assert_ends_with(bytes: &[u8], expected: impl Fn(&LinkError) -> bool) {
    let (mut raw, mut link) = stranger().await;
    link.receive_limit.set(1000);
    raw.write_all(bytes).await.unwrap();
    let outcome = link.incoming.next().await;
    assert!(matches!(&outcome, Some(Err(error)) if expected(error)), "{bytes:?}: {outcome:?}");
    assert!(link.incoming.next().await.is_none());
    assert!(matches!(link.outgoing.send(OutFrame::new("x", "")).await, Err(LinkError::Closed)));
    assert!(matches!(raw.read(&mut [0; 10]).await, Ok(0) | Err(_)), "the connection is gone");
}

#[tokio::test]
async fn a_stock_dialer_gets_a_link_whose_frames_it_can_take() {
    let (mut raw, mut link) = stranger().await;
    raw.write_all(MASKED_HELLO).await.unwrap();
    assert_eq!(link.incoming.next().await.unwrap().unwrap(), HELLO);
    let mut heard = vec![0; 2 + HELLO.len()];
    link.outgoing.send(OutFrame::new(&HELLO[..20], &HELLO[20..])).await.unwrap();
    raw.read_exact(&mut heard).await.unwrap();
    assert_eq!((&heard[..2], &heard[2..]), (&b"\x82\x45"[..], HELLO));

    let too_large = OutFrame::from(Bytes::from(vec![0; 4 << 20]));
    let refused = link.outgoing.send(too_large).await;
    assert!(matches!(refused, Err(LinkError::FrameTooLarge { .. })), "{refused:?}");
    assert_eq!(link.max_frame_len, (4 << 20) - 1);
    assert_eq!(link.receive_limit.get(), WsTransport::MAX_FRAME_LEN);
}

#[tokio::test]
async fn a_dialer_of_ours_gets_a_link_without_a_stock_dialers_limit() {
    let mut listener = listener().await;
    let near = WsTransport::clear().dial(&listener.local()).await.unwrap();
    let far = listener.accept().await.unwrap();
    assert_eq!([near.max_frame_len, far.max_frame_len], [WsTransport::MAX_FRAME_LEN; 2]);
}

#[tokio::test]
async fn what_comes_right_behind_an_upgrade_is_not_lost() {
    let mut listener = listener().await;
    let mut raw = TcpStream::connect(listener.local().authority()).await.unwrap();
    raw.write_all(&[UPGRADE.as_bytes(), MASKED_HELLO, MASKED_HELLO, MASKED_CLOSE].concat()).await.unwrap();
    let mut link = listener.accept().await.unwrap();
    assert_eq!(link.incoming.next().await.unwrap().unwrap(), HELLO);
    assert_eq!(link.incoming.next().await.unwrap().unwrap(), HELLO);
    assert!(link.incoming.next().await.is_none());
}

#[tokio::test]
async fn one_byte_at_a_time_is_an_upgrade_and_a_frame_in_the_end() {
    let mut listener = listener().await;
    let mut raw = TcpStream::connect(listener.local().authority()).await.unwrap();
    raw.set_nodelay(true).unwrap();
    for byte in UPGRADE.bytes() {
        assert!(listener.accept().now_or_never().is_none());
        raw.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut link = listener.accept().await.unwrap();
    for byte in MASKED_HELLO {
        assert!(link.incoming.next().now_or_never().is_none());
        raw.write_all(&[*byte]).await.unwrap();
    }
    assert_eq!(link.incoming.next().await.unwrap().unwrap(), HELLO);
}

#[tokio::test]
async fn what_is_no_upgrade_to_a_link_is_answered_and_gets_none() {
    let mut listener = listener().await;
    let long = format!("GET /f3 HTTP/1.1\r\nX: {}", "x".repeat(9000));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 404),
        (&UPGRADE.replace("/f3", "/f3/more"), 404),
        ("GET /f3 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (&UPGRADE.replace("GET", "POST"), 400),
        (&UPGRADE.replace("HTTP/1.1", "HTTP/1.0"), 400),
        (&UPGRADE.replace("Version: 13", "Version: 8"), 400),
        (&UPGRADE.replace("x9dV", "x9d"), 400),
        ("\x16\x03\x01\x02 and other garbage\r\n\r\n", 400),
        (&long, 400),
    ] {
        let mut raw = TcpStream::connect(listener.local().authority()).await.unwrap();
        raw.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        raw.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
    assert!(listener.accept().now_or_never().is_none());
}

#[tokio::test]
async fn half_an_upgrade_keeps_nobody_waiting() {
    let mut listener = listener().await;
    let mut silent = Vec::new();
    for part in (0..50).map(|half| half * 2) {
        let mut raw = TcpStream::connect(listener.local().authority()).await.unwrap();
        raw.write_all(&UPGRADE.as_bytes()[..part]).await.unwrap();
        silent.push(raw);
    }
    let mut near = WsTransport::clear().dial(&listener.local()).await.unwrap();
    near.outgoing.send(OutFrame::new("hello", "")).await.unwrap();
    let mut far = listener.accept().await.unwrap();
    assert_eq!(far.incoming.next().await.unwrap().unwrap(), "hello");
}

#[tokio::test]
async fn text_is_ignored_and_pings_are_answered() {
    let (mut raw, mut link) = stranger().await;
    let pong = piece(0x8a, b"unasked");
    raw.write_all(&[piece(0x81, b"text"), piece(0x01, b"te"), piece(0x80, b"xt"), pong].concat())
        .await
        .unwrap();
    raw.write_all(&[piece(0x89, b"there?"), MASKED_HELLO.to_vec()].concat()).await.unwrap();
    assert_eq!(link.incoming.next().await.unwrap().unwrap(), HELLO);
    assert!(link.incoming.next().now_or_never().is_none());
    let mut heard = [0; 8];
    raw.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"\x8a\x06there?");
}

#[tokio::test]
async fn a_message_in_parts_is_one_frame() {
    let (mut raw, mut link) = stranger().await;
    let parts = [piece(0x02, b"abc"), piece(0x89, b""), piece(0x00, b""), piece(0x80, b"def")];
    raw.write_all(&parts.concat()).await.unwrap();
    assert_eq!(link.incoming.next().await.unwrap().unwrap(), "abcdef");
}

#[tokio::test]
async fn what_is_no_websocket_ends_the_link() {
    let long_control = [&[0x89, 0xfe, 0, 126, 0, 0, 0, 0][..], &[0; 126]].concat();
    for bytes in [
        &b"\x82\x03abc"[..],                                  // not masked
        &piece(0xc2, b"abc"),                                 // compressed
        &piece(0x83, b"abc"),                                 // an unknown kind
        &piece(0x8b, b""),                                    // an unknown kind of control
        &piece(0x80, b"abc"),                                 // the rest of nothing
        &piece(0x09, b"abc"),                                 // a ping in parts
        &long_control,                                        // a ping that is too long
        &[piece(0x02, b"abc"), piece(0x82, b"def")].concat(), // a message inside another
        b"GET /f3 HTTP/1.1\r\n\r\n",                          // still HTTP
    ] {
        assert_ends_with(bytes, |error| matches!(error, LinkError::Protocol { .. })).await;
    }
}

#[tokio::test]
async fn a_length_above_the_limit_ends_the_link_before_anything_follows() {
    let too_large = |error: &LinkError| matches!(error, LinkError::FrameTooLarge { max: 1000, .. });
    assert_ends_with(b"\x82\xfe\x03\xe9\0\0\0\0", too_large).await;
    assert_ends_with(b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", too_large).await;
    assert_ends_with(b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", too_large).await;
    assert_ends_with(b"\x81\xfe\x03\xe9\0\0\0\0", too_large).await;
    let parts = [piece(0x02, &[0; 100]), b"\x00\xfe\x03\x85\0\0\0\0".to_vec()];
    assert_ends_with(&parts.concat(), |error| {
        matches!(error, LinkError::FrameTooLarge { len: 1001, max: 1000 })
    })
    .await;
}

#[tokio::test]
async fn a_close_is_a_proper_end_and_a_lost_connection_is_not() {
    let (mut raw, mut link) = stranger().await;
    raw.write_all(MASKED_CLOSE).await.unwrap();
    assert!(link.incoming.next().await.is_none());
    link.outgoing.close().await.unwrap();
    let mut heard = Vec::new();
    raw.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"\x88\x02\x03\xe8");

    for bytes in [&b""[..], &MASKED_HELLO[..20], &piece(0x02, b"abc")] {
        let (mut raw, mut link) = stranger().await;
        raw.write_all(bytes).await.unwrap();
        drop(raw);
        assert!(matches!(link.incoming.next().await, Some(Err(LinkError::Closed))));
    }

    let (mut raw, link) = stranger().await;
    drop(link);
    let mut heard = Vec::new();
    raw.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"\x88\x02\x03\xe8", "who leaves says so");
}

/// What our dialer makes of an answer.
async fn dialled(answer: &'static str) -> (String, Result<Link, DialError>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = at(&format!("http://{}/ignored", socket.local_addr().unwrap()));
    let serving = async {
        let (mut raw, _) = socket.accept().await.unwrap();
        let request = head(&mut raw).await;
        raw.write_all(answer.as_bytes()).await.unwrap();
        raw.shutdown().await.unwrap();
        request
    };
    let ws = WsTransport::clear();
    tokio::join!(serving, ws.dial(&at))
}

#[tokio::test]
async fn a_dialer_asks_as_stock_dialers_do_and_says_who_it_is() {
    let (request, _) = dialled("").await;
    assert!(request.starts_with("GET /f3 HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
    for line in
        ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "User-Agent: locule/"]
    {
        assert!(request.contains(line), "{request}");
    }
    assert!(!request.contains("Extensions"), "{request}");
}

#[tokio::test]
async fn a_dialer_tells_a_stranger_from_a_server_that_is_away() {
    for (answer, is_retryable) in [
        ("", true),
        ("HTTP/1.1 101 Swi", true),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", true),
        ("HTTP/1.1 429 Too Many Requests\r\n\r\n", true),
        ("HTTP/1.1 404 Not Found\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\n\r\n", false),
        ("SSH-2.0-OpenSSH\r\n\r\n", false),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", false),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: J+n88LRZ6tohlEoRjV1NrBLD6V0=\r\n\r\n",
            false,
        ),
    ] {
        let (_, outcome) = dialled(answer).await;
        let error = outcome.unwrap_err();
        assert_eq!(error.is_retryable(), is_retryable, "{answer}: {error:?}");
        let is_strange = matches!(error, DialError::NotOurProtocol { .. });
        assert_eq!(is_strange, !is_retryable, "{answer}: {error:?}");
    }
}

#[tokio::test]
async fn schemes_that_ask_for_tls_are_refused_without_it() {
    let ws = Arc::new(WsTransport::clear());
    for endpoint in ["https://127.0.0.1:0", "wss://127.0.0.1:0"] {
        let refused = ws.listen(&at(endpoint)).await.unwrap_err();
        assert!(refused.to_string().contains("TLS"), "{refused}");
        let refused = ws.dial(&at(endpoint).with_port(1)).await.unwrap_err();
        assert!(refused.to_string().contains("TLS") && !refused.is_retryable(), "{refused}");
    }
    assert!(ws.listen(&at("ws://127.0.0.1:0")).await.is_ok());
}
