//! Frames over TCP: an echo on loopback, where each frame begins with its length.

use std::error::Error;

use futures_util::{SinkExt as _, StreamExt as _};
use locule_transport::{Endpoint, OutFrame, Transport as _};
use locule_transport_tcp::TcpTransport;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let tcp = TcpTransport::clear();
    let mut listener = tcp.listen(&Endpoint::parse("tcp://127.0.0.1:0")?).await?;
    let mut near = tcp.dial(&listener.local()).await?;
    near.outgoing.send(OutFrame::new(&b"\0\0\0\x15 and twelve:"[..], "hello")).await?;

    let mut far = listener.accept().await?;
    let heard = far.incoming.next().await.ok_or("closed")??;
    far.outgoing.send(heard.into()).await?;
    assert!(near.incoming.next().await.ok_or("closed")??.ends_with(b"hello"));
    Ok(())
}
