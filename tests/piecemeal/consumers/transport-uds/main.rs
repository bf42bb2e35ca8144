//! Frames between processes of one user: an echo over a socket in a private folder.

use std::error::Error;

use futures_util::{SinkExt as _, StreamExt as _};
use locule_transport::{OutFrame, Transport as _};
use locule_transport_uds::UdsTransport;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let uds = UdsTransport::new();
    let mut listener = uds.listen(&UdsTransport::endpoint(&dir.path().join("private/echo.sock"))?).await?;
    let mut near = uds.dial(&listener.local()).await?;
    near.outgoing.send(OutFrame::new(&b"\0\0\0\x15 and twelve:"[..], "hello")).await?;

    let mut far = listener.accept().await?;
    let heard = far.incoming.next().await.ok_or("closed")??;
    far.outgoing.send(heard.into()).await?;
    assert!(near.incoming.next().await.ok_or("closed")??.ends_with(b"hello"));
    Ok(())
}
