//! A network for tests: an echo over a link in memory, and the day that the cable is cut.

use std::error::Error;

use futures_util::{SinkExt as _, StreamExt as _};
use locule_transport::{Endpoint, OutFrame, Transport as _};
use locule_transport_mem::MemTransport;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let network = MemTransport::new();
    let hospital = Endpoint::parse("mem://hospital")?;
    let mut listener = network.listen(&hospital).await?;
    let mut near = network.dial(&hospital).await?;
    let mut far = listener.accept().await?;

    near.outgoing.send(OutFrame::new("hel", "lo")).await?;
    let heard = far.incoming.next().await.ok_or("closed")??;
    far.outgoing.send(heard.into()).await?;
    assert_eq!(near.incoming.next().await.ok_or("closed")??, "hello");

    network.faults().at("hospital").cut();
    assert!(near.outgoing.send(OutFrame::new("", "anyone?")).await.is_err());
    Ok(())
}
