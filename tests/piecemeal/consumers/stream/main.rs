//! A log analyser or simulator: a blob leaves in chunks, without a cell and without a network.

use std::error::Error;
use std::time::Instant;

use locule_message::{Fqcn, Headers, Payload};
use locule_stream::{Blob, StreamConfig, Streams, Way};

fn main() -> Result<(), Box<dyn Error>> {
    let now = Instant::now();
    let mut streams = Streams::new(StreamConfig::default(), 1);
    let blob = Blob {
        channel: "models".into(),
        topic: "global".into(),
        headers: Headers::new(),
        payload: Payload::bytes(vec![7; 5 << 20].into()),
        request_id: None,
        reliable: true,
        optional: false,
        secure: false,
    };
    streams.send(now, Fqcn::server(), blob).ok_or("no room for one stream")?;
    let chunks = std::iter::from_fn(|| streams.poll_chunk(now, |_, _| Way::Open { link: 1 })).count();
    assert_eq!(chunks, 5);
    Ok(())
}
