//! A log analyser: who wrote to whom, from the headers of a captured message.

use std::error::Error;

use locule_message::{Fqcn, Headers, Message, MessageKind, key};

fn main() -> Result<(), Box<dyn Error>> {
    let mut headers = Headers::new();
    headers.set(key::MSG_TYPE, "req");
    headers.set(key::ORIGIN, "relay-a.site-1.job-7");
    headers.set(key::DESTINATION, "server");
    headers.set("of a later version", 7_i64);
    let captured = headers.encode()?;

    let message = Message { headers: Headers::decode(captured.clone())?, body: Default::default() };
    let origin = message.origin().ok_or("no origin")?;
    assert_eq!(message.kind(), Some(MessageKind::Request));
    assert_eq!(origin.parent(), Some(Fqcn::parse("relay-a.site-1")?));
    assert!(message.destination().is_some_and(|to| to.is_on_server()));
    assert_eq!(message.headers.encode()?, captured); // what it does not know stays as it was
    Ok(())
}
