//! A link sniffer: what kinds of frames crossed a link, and who shook hands on it.

use std::error::Error;
use std::time::{Instant, SystemTime};

use locule_frame::{FrameKind, Hello, LinkConfig, LinkProtocol, Prefix, Side};

fn main() -> Result<(), Box<dyn Error>> {
    let log = capture()?;
    let (mut kinds, mut greeted, mut rest) = (Vec::new(), None, log.as_slice());
    while !rest.is_empty() {
        let prefix = Prefix::parse(rest)?;
        let (frame, next) = rest.split_at(prefix.length as usize);
        if prefix.kind == FrameKind::Hello {
            greeted = Some(Hello::decode(&frame[Prefix::LEN + usize::from(prefix.header_len)..])?);
        }
        kinds.push(prefix.kind);
        rest = next;
    }
    assert_eq!(kinds, [FrameKind::Hello, FrameKind::Ready, FrameKind::Data]);
    assert_eq!(greeted.map(|hello| hello.endpoint_name), Some("site-1".into()));
    Ok(())
}

/// What a site and a server say to each other until the first message is over.
fn capture() -> Result<Vec<u8>, Box<dyn Error>> {
    let (now, wall) = (Instant::now(), SystemTime::now());
    let mut server = LinkProtocol::new(LinkConfig::new("server", Side::Listener), now, wall);
    let mut site = LinkProtocol::new(LinkConfig::new("site-1", Side::Dialer), now, wall);
    let hello = site.poll_transmit(now).ok_or("a dialer speaks first")?;
    server.handle_frame(now, wall, hello.clone())?;
    let ready = server.poll_transmit(now).ok_or("a listener answers")?;
    site.handle_frame(now, wall, ready.clone())?;
    let data = site.data(b"\x80", "payload".into())?;
    Ok([hello, ready, data.head, data.body].concat())
}
