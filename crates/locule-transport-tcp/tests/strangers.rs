//! Listeners and dialers against raw sockets: what stock peers send, and what nobody should.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::{FutureExt, SinkExt, StreamExt};
use locule_transport::{Endpoint, Link, LinkError, Listener, OutFrame, Transport};
use locule_transport_tcp::TcpTransport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A stock peer's HELLO as `site-1`, 69 bytes (nvflare 2.9.0).
const HELLO: &[u8] = b"\0\0\0\x45\0\0\x04\0\0\0\0\0\0\x01\0\x01\
    \x83\xadendpoint_name\xa6site-1\xa9timestamp\xcb\x41\xda\xc0\x86\x5a\xe5\x31\x62\xa4fqcn\xa6site-1";
/// A stock peer's PING.
const PING: &[u8] = b"\0\0\0\x11\0\0\x06\0\0\0\0\0\0\x11\0\x02\xc0";

fn at(text: &str) -> Endpoint {
    Endpoint::parse(text).unwrap()
}

async fn listener(max_frame_len: usize) -> Box<dyn Listener> {
    let tcp = TcpTransport::clear().with_max_frame_len(max_frame_len);
    tcp.listen(&at("tcp://127.0.0.1:0")).await.unwrap()
}

/// A raw socket, and the link that a listener made of it.
async fn stranger(max_frame_len: usize) -> (TcpStream, Link) {
    let mut listener = listener(max_frame_len).await;
    let raw = TcpStream::connect(listener.local().authority()).await.unwrap();
    raw.set_nodelay(true).unwrap();
    (raw, listener.accept().await.unwrap())
}

async fn assert_ends_with(bytes: &[u8], max_frame_len: usize, expected: impl Fn(&LinkError) -> bool) {
    let (mut raw, mut link) = stranger(max_frame_len).await;
    raw.write_all(bytes).await.unwrap();
    let outcome = link.incoming.next().await;
    assert!(matches!(&outcome, Some(Err(error)) if expected(error)), "{outcome:?}");
    assert!(link.incoming.next().await.is_none());
    assert!(matches!(link.outgoing.send(OutFrame::new(PING, "")).await, Err(LinkError::Closed)));
    assert!(matches!(raw.read(&mut [0; 10]).await, Ok(0) | Err(_)), "the connection is gone");
}

#[tokio::test]
async fn stock_frames_are_carried_as_they_are() {
    let (mut raw, mut link) = stranger(1 << 20).await;
    raw.write_all(&[HELLO, PING, PING].concat()).await.unwrap();
    for frame in [HELLO, PING, PING] {
        assert_eq!(link.incoming.next().await.unwrap().unwrap(), frame);
    }
    link.outgoing.send(OutFrame::new(&HELLO[..20], &HELLO[20..])).await.unwrap();
    let mut heard = vec![0; HELLO.len()];
    raw.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, HELLO);
}

#[tokio::test]
async fn one_byte_at_a_time_is_a_frame_in_the_end() {
    let (mut raw, mut link) = stranger(1 << 20).await;
    for (place, byte) in HELLO.iter().enumerate() {
        assert!(link.incoming.next().now_or_never().is_none(), "after {place} bytes");
        raw.write_all(&[*byte]).await.unwrap();
    }
    assert_eq!(link.incoming.next().await.unwrap().unwrap(), HELLO);
}

#[tokio::test]
async fn a_length_below_a_prefix_ends_the_link() {
    for len in [0_u32, 1, 15] {
        let bytes = [&len.to_be_bytes()[..], &[0; 12]].concat();
        assert_ends_with(&bytes, 1 << 20, |error| matches!(error, LinkError::Protocol { .. })).await;
    }
}

#[tokio::test]
async fn a_length_above_the_limit_ends_the_link_before_anything_follows() {
    let huge = |error: &LinkError| matches!(error, LinkError::FrameTooLarge { len: 0xffff_ffff, .. });
    assert_ends_with(&[0xff; 4], usize::MAX, huge).await;
    let too_large = |error: &LinkError| matches!(error, LinkError::FrameTooLarge { len: 1001, max: 1000 });
    assert_ends_with(&1001_u32.to_be_bytes(), 1000, too_large).await;
}

#[tokio::test]
async fn other_protocols_end_the_link() {
    for greeting in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\0\x01\0\x01\xfc", b"SSH-2.0-x\r\n"] {
        let too_large = |error: &LinkError| matches!(error, LinkError::FrameTooLarge { .. });
        assert_ends_with(greeting, 64 << 10, too_large).await;
    }
}

#[tokio::test]
async fn a_connection_that_ends_inside_a_frame_is_no_proper_end() {
    let (mut raw, mut link) = stranger(1 << 20).await;
    raw.write_all(&[PING, &PING[..16]].concat()).await.unwrap();
    drop(raw);
    assert_eq!(link.incoming.next().await.unwrap().unwrap(), PING);
    assert!(matches!(link.incoming.next().await, Some(Err(LinkError::Closed))));
}

#[tokio::test]
async fn a_frame_that_does_not_say_its_length_is_refused_and_the_link_goes_on() {
    let (mut raw, mut link) = stranger(1 << 20).await;
    for wrong in [&b""[..], b"\0\0\0\x04", b"\0\0\0\x0f12345678901", b"\0\0\0\x111234567890ab"] {
        let outcome = link.outgoing.send(OutFrame::new(wrong, "")).await;
        assert!(matches!(outcome, Err(LinkError::LengthMismatch { .. })), "{outcome:?}");
    }
    link.outgoing.send(OutFrame::new(PING, "")).await.unwrap();
    let mut heard = vec![0; PING.len()];
    raw.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, PING);
}

#[tokio::test]
async fn no_more_connections_are_served_than_there_are_places() {
    let tcp = TcpTransport::clear().with_max_connections(1);
    let mut listener = tcp.listen(&at("tcp://127.0.0.1:0")).await.unwrap();
    let mut first = tcp.dial(&listener.local()).await.unwrap();
    let mut second = tcp.dial(&listener.local()).await.unwrap();
    let far = listener.accept().await.unwrap();
    first.outgoing.send(OutFrame::new(PING, "")).await.unwrap();
    second.outgoing.send(OutFrame::new(HELLO, "")).await.unwrap();
    assert!(listener.accept().now_or_never().is_none());
    drop((first, far));
    let mut next = listener.accept().await.unwrap();
    assert_eq!(next.incoming.next().await.unwrap().unwrap(), HELLO);
}

#[tokio::test]
async fn host_zero_is_every_interface_of_both_kinds() {
    let tcp = TcpTransport::clear();
    let mut listener = tcp.listen(&at("tcp://0:0")).await.unwrap();
    assert!(listener.local().is_all_interfaces());
    let port = listener.local().port().unwrap();
    let has_ipv6 = TcpListener::bind("[::1]:0").await.is_ok();
    for host in ["127.0.0.1", "localhost", "[::1]"].iter().take(if has_ipv6 { 3 } else { 2 }) {
        let _near = tcp.dial(&at(&format!("tcp://{host}:{port}"))).await.unwrap();
        let far = listener.accept().await.unwrap();
        assert!(!far.peer.address.contains("ffff"), "{}", far.peer.address);
    }
    assert!(tcp.dial(&listener.local()).await.is_err(), "host 0 is nobody's address");
}

#[tokio::test]
async fn schemes_that_ask_for_tls_are_refused_without_it() {
    let tcp = TcpTransport::clear();
    for endpoint in ["stcp://127.0.0.1:0", "satcp://127.0.0.1:0"] {
        let refused = tcp.listen(&at(endpoint)).await.unwrap_err();
        assert!(refused.to_string().contains("TLS"), "{refused}");
        let refused = tcp.dial(&at(endpoint).with_port(1)).await.unwrap_err();
        assert!(refused.to_string().contains("TLS") && !refused.is_retryable(), "{refused}");
    }
    assert!(tcp.listen(&at("atcp://127.0.0.1:0")).await.is_ok());
}

#[tokio::test]
async fn a_listener_that_resets_is_seen() {
    let raw = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = raw.local_addr().unwrap();
    let mut link = TcpTransport::clear().dial(&at(&format!("tcp://{address}"))).await.unwrap();
    let (accepted, _) = raw.accept().await.unwrap();
    link.outgoing.send(OutFrame::new(PING, "")).await.unwrap();
    accepted.readable().await.unwrap();
    drop(accepted); // with something unread, which resets the connection
    assert!(matches!(link.incoming.next().await, Some(Err(LinkError::Closed))));
}
