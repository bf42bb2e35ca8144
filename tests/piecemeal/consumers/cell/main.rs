//! A service by name: one cell answers, another asks, whatever carries the message.

use std::error::Error;
use std::time::Duration;

use locule_cell::{Cell, CellConfig, Incoming, Reply, Request};
use locule_message::{Fqcn, Payload};
use locule_transport::{Endpoint, Transports};
use locule_transport_mem::MemTransport;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let transports = Transports::new().with(MemTransport::new());
    let endpoint = Endpoint::parse("mem://server")?;
    let server = Cell::builder(CellConfig::new(Fqcn::server())).transports(transports.clone()).start();
    server.handle("clinic", "greet", async |incoming: Incoming| {
        Ok(Reply::ok(Payload::bytes(format!("hello, {}", incoming.origin).into())))
    });
    server.listen(&endpoint).await?;

    let site = Cell::builder(CellConfig::new("site-1".parse()?)).transports(transports).start();
    site.connect(endpoint);
    assert!(site.wait_linked(&Fqcn::server(), Duration::from_secs(10)).await);
    let reply = site.request(&Fqcn::server(), Request::new("clinic", "greet", Payload::none())).await?;
    assert_eq!(reply.into_ok()?.payload.body, "hello, site-1");
    site.shutdown(Duration::from_secs(1)).await;
    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
