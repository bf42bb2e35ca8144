//! An edge device: it speaks to a server as a site does, and runs no jobs.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use locule_cell::{Cell, CellConfig, HandlerError, Incoming, Reply};
use locule_communicator::{Communicator, Settings};
use locule_component::RunContext;
use locule_message::Fqcn;
use locule_protocol::{Quit, QuitReply};
use locule_transport::{Endpoint, Transports};
use locule_transport_mem::MemTransport;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let transports = Transports::new().with(MemTransport::new());
    let endpoint = Endpoint::parse("mem://server")?;
    let server = Cell::builder(CellConfig::new(Fqcn::server())).transports(transports.clone()).start();
    server.handle(Quit::CHANNEL, Quit::TOPIC, async |incoming: Incoming| {
        let answer = QuitReply { message: format!("good-bye, {}", incoming.origin) }.to_parts();
        let answer = answer.map_err(|error| HandlerError::invalid_request(error.to_string()))?;
        Ok(Reply { headers: answer.headers, ..Reply::ok(answer.payload) })
    });
    server.listen(&endpoint).await?;

    let cell = Cell::builder(CellConfig::new("site-1".parse()?)).transports(transports).start();
    cell.connect(endpoint);
    assert!(cell.wait_linked(&Fqcn::server(), Duration::from_secs(10)).await);
    let settings = Settings::new("study", "site-1", "server");
    let run = RunContext::new("site-1", "");
    let site = Communicator::new(cell, settings, Arc::default(), run, Arc::default(), Default::default());
    assert_eq!(site.quit().await?, "good-bye, site-1");
    Ok(())
}
