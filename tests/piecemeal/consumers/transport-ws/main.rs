//! Frames over WebSocket: an echo on loopback, through whatever lets HTTP pass.

use std::error::Error;

use futures_util::{SinkExt as _, StreamExt as _};
use locule_transport::{Endpoint, OutFrame, Transport as _};
use locule_transport_ws::WsTransport;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let ws = WsTransport::clear();
    let mut listener = ws.listen(&Endpoint::parse("ws://127.0.0.1:0")?).await?;
    let mut near = ws.dial(&listener.local()).await?;
    near.outgoing.send(OutFrame::new("hel", "lo")).await?;

    let mut far = listener.accept().await?;
    let heard = far.incoming.next().await.ok_or("closed")??;
    far.outgoing.send(heard.into()).await?;
    assert_eq!(near.incoming.next().await.ok_or("closed")??, "hello");
    Ok(())
}
