//! Frames over gRPC: an echo on loopback, one call per link.

use std::error::Error;

use futures_util::{SinkExt as _, StreamExt as _};
use locule_transport::{Endpoint, OutFrame, Transport as _};
use locule_transport_grpc::GrpcTransport;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let grpc = GrpcTransport::clear();
    let mut listener = grpc.listen(&Endpoint::parse("grpc://127.0.0.1:0")?).await?;
    let mut near = grpc.dial(&listener.local()).await?;
    near.outgoing.send(OutFrame::new("hel", "lo")).await?;

    let mut far = listener.accept().await?;
    let heard = far.incoming.next().await.ok_or("closed")??;
    far.outgoing.send(heard.into()).await?;
    assert_eq!(near.incoming.next().await.ok_or("closed")??, "hello");
    Ok(())
}
