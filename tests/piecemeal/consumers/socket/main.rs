//! A carrier of one-byte frames, without anything to mark them.

use std::error::Error;

use futures_util::{SinkExt as _, StreamExt as _};
use locule_socket::{Connection, Framing, Header, Outgoing, Sockets, Step};
use locule_transport::{Endpoint, Link, LinkError, OutFrame, ReceiveLimit};

struct Bytewise;

impl Framing for Bytewise {
    fn write(&mut self, frame: OutFrame, out: &mut Outgoing) -> Result<(), LinkError> {
        frame.check_len(1)?;
        out.put(frame.into_bytes());
        Ok(())
    }

    fn header(&mut self, _: &[u8], _: usize) -> Result<Option<Header>, LinkError> {
        Ok(Some(Header { skip: 0, len: 1 }))
    }

    fn body(&mut self, body: Vec<u8>) -> Result<Step, LinkError> {
        Ok(Step::Frame(body.into()))
    }
}

fn link(connection: Connection) -> Link {
    let peer = connection.peer().clone();
    locule_socket::link(connection, Bytewise, peer, 1, ReceiveLimit::new(1))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let sockets = Sockets::clear();
    let at = Endpoint::parse("bytes://127.0.0.1:0")?;
    let mut listener = sockets.listen(&at, |connection| async { Ok(link(connection)) }).await?;
    let mut near = link(sockets.connect(&listener.local()).await?);
    near.outgoing.send(OutFrame::new("!", "")).await?;

    let mut far = listener.accept().await?;
    assert_eq!(far.incoming.next().await.ok_or("closed")??, "!");
    Ok(())
}
