//! A simulator: a relay forwards what a site asks the server, in one thread and without a network.

use std::error::Error;
use std::time::{Instant, SystemTime};

use locule_message::{Fqcn, Headers, Message, Payload};
use locule_switch::{LinkFacts, LinkId, LinkSecurity, Now, Output, Request, Switch, SwitchConfig, Transmit};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

const UP: LinkId = LinkId(1);
const DOWN: LinkId = LinkId(2);

fn main() -> Result<(), Box<dyn Error>> {
    let now = Now { instant: Instant::now(), wall: SystemTime::now() };
    let mut site = cell(now, "relay.site-1", &[(UP, "relay")])?;
    let mut relay = cell(now, "relay", &[(UP, "server"), (DOWN, "relay.site-1")])?;
    let mut server = cell(now, "server", &[(DOWN, "relay")])?;

    site.request(now, &[Fqcn::server()], Request::new("task", "greet", Payload::bytes("hello".into())));
    let sent = site.poll_transmit(UP).ok_or("nothing leaves the site")?;
    relay.handle_message(now, DOWN, arrived(sent)?);
    let forwarded = relay.poll_transmit(UP).ok_or("nothing leaves the relay")?;
    server.handle_message(now, DOWN, arrived(forwarded)?);

    let Some(Output::Deliver(delivery)) = server.poll_output() else { return Err("not delivered".into()) };
    assert_eq!(delivery.origin.as_str(), "relay.site-1");
    let kept = std::iter::from_fn(|| relay.poll_output()).any(|output| matches!(output, Output::Deliver(_)));
    assert!(!kept, "a relay hands nothing to its own handlers");
    Ok(())
}

fn cell(now: Now, name: &str, neighbours: &[(LinkId, &str)]) -> Result<Switch, Box<dyn Error>> {
    let rng = Box::new(ChaCha20Rng::seed_from_u64(name.len() as u64));
    let mut switch = Switch::new(SwitchConfig::new(name.parse()?), rng);
    for &(link, peer) in neighbours {
        let facts = LinkFacts {
            link,
            peer: peer.parse()?,
            common_name: None,
            security: LinkSecurity::Internal,
            accepted: link == DOWN,
            ours: true,
        };
        switch.link_up(now, facts, 1 << 20)?;
    }
    Ok(switch)
}

fn arrived(sent: Transmit) -> Result<Message, Box<dyn Error>> {
    Ok(Message { headers: Headers::decode(sent.headers)?, body: sent.body.into() })
}
