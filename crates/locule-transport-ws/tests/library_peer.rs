//! The carrier against a peer that it was not written with: tungstenite's own sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{TcpListener, TcpStream};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use locule_transport::{Endpoint, OutFrame, Transport};
use locule_transport_ws::WsTransport;
use tokio::task::spawn_blocking;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

const LENS: [usize; 9] = [0, 1, 7, 125, 126, 65_535, 65_536, 100_003, 3 << 20];

fn body(len: usize) -> Bytes {
    (0..len).map(|place| (place * 31) as u8).collect()
}

/// Sends back what comes, until the other end closes; gives the code that it closed with.
fn echo(mut socket: WebSocket<TcpStream>) -> CloseCode {
    loop {
        match socket.read().unwrap() {
            message @ Message::Binary(_) => socket.send(message).unwrap(),
            Message::Close(close) => return close.unwrap().code,
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

#[tokio::test]
async fn our_dialer_exchanges_frames_with_a_library_listener() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = Endpoint::parse(&format!("ws://{}", socket.local_addr().unwrap())).unwrap();
    let echoing = spawn_blocking(move || echo(tungstenite::accept(socket.accept().unwrap().0).unwrap()));
    let mut link = WsTransport::clear().dial(&at).await.unwrap();
    for len in LENS {
        let frame = OutFrame { head: body(len).slice(..len / 3), body: body(len).slice(len / 3..) };
        link.outgoing.send(frame).await.unwrap();
        assert_eq!(link.incoming.next().await.unwrap().unwrap(), body(len), "{len} bytes");
    }
    link.outgoing.close().await.unwrap();
    assert_eq!(echoing.await.unwrap(), CloseCode::Normal);
}

#[tokio::test]
async fn our_listener_exchanges_frames_with_a_library_dialer() {
    let at = Endpoint::parse("ws://127.0.0.1:0").unwrap();
    let mut listener = WsTransport::clear().listen(&at).await.unwrap();
    let authority = listener.local().authority();
    let echoing = spawn_blocking(move || {
        let tcp = TcpStream::connect(&authority).unwrap();
        echo(tungstenite::client(format!("ws://{authority}/f3"), tcp).unwrap().0)
    });
    let mut link = listener.accept().await.unwrap();
    for len in LENS {
        let frame = OutFrame { head: body(len).slice(..len / 3), body: body(len).slice(len / 3..) };
        link.outgoing.send(frame).await.unwrap();
        assert_eq!(link.incoming.next().await.unwrap().unwrap(), body(len), "{len} bytes");
    }
    link.outgoing.close().await.unwrap();
    assert_eq!(echoing.await.unwrap(), CloseCode::Normal);
}
