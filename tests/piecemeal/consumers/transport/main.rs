//! A carrier of one's own: what an outsider writes to put another scheme into the table.

use std::error::Error;

use locule_transport::{BoxFuture, DialError, Endpoint, Link, ListenError, Listener, Transport, Transports};

/// Carries nothing yet.
#[derive(Debug)]
struct Pigeons;

impl Transport for Pigeons {
    fn schemes(&self) -> &[&'static str] {
        &["pigeon"]
    }
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, Result<Link, DialError>> {
        Box::pin(async move { Err(DialError::invalid(to, "no pigeon is free")) })
    }
    fn listen<'a>(&'a self, on: &'a Endpoint) -> BoxFuture<'a, Result<Box<dyn Listener>, ListenError>> {
        Box::pin(async move { Err(ListenError::invalid(on, "no roof")) })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let transports = Transports::new().with(Pigeons);
    let roof = Endpoint::parse("pigeon://roof:7/left?corn=1")?;
    assert_eq!((roof.host(), roof.port(), roof.parameter("corn")), ("roof", Some(7), Some("1")));
    assert_eq!(transports.find(&roof)?.schemes(), ["pigeon"]);
    let unknown =
        transports.find(&Endpoint::parse("grpc://server:8002")?).err().ok_or("nobody carries it")?;
    assert!(unknown.to_string().ends_with("compiled in: pigeon"), "{unknown}");
    Ok(())
}
