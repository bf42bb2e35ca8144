//! Frames through a NATS broker: an echo between two that both connect outwards.

use std::error::Error;

use broker::Broker;
use futures_util::{SinkExt as _, StreamExt as _};
use locule_transport::{Endpoint, OutFrame, Transport as _};
use locule_transport_nats::NatsTransport;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = Broker::start()?;
    let at = Endpoint::parse(&format!("nats://{}/echo", broker.authority()))?;
    let nats = NatsTransport::clear();
    let mut listener = nats.listen(&at).await?;
    let mut near = nats.dial(&at).await?;
    near.outgoing.send(OutFrame::new(&b"\0\0\0\x15 and twelve:"[..], "hello")).await?;

    let mut far = listener.accept().await?;
    let heard = far.incoming.next().await.ok_or("closed")??;
    far.outgoing.send(heard.into()).await?;
    assert!(near.incoming.next().await.ok_or("closed")??.ends_with(b"hello"));
    Ok(())
}
