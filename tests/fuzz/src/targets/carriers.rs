//! How carriers cut what arrives into frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use locule_socket::{Framing, link};
use locule_transport::{Link, PeerInfo, ReceiveLimit, Security};
use locule_transport_grpc::Deframer;
use locule_transport_tcp::TcpTransport;
use locule_transport_ws::{Side, WsTransport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Allowance, Mutator, Target, seeds, some};

/// Longest frame that is taken here, in bytes.
const MAX: usize = 32 << 10;

pub(crate) const STREAMED: Target = Target {
    name: "sockets",
    about: "bytes of a TCP connection, and of a WebSocket's two ends",
    seeds: || {
        let mut seeds: Vec<Vec<u8>> = seeds::frames().iter().take(3).map(|frames| frames.concat()).collect();
        let messages: [&[u8]; 7] = [
            b"\x82\x05hello",
            b"\x82\x85\x01\x02\x03\x04iglhn",
            b"\x02\x03hel\x80\x02lo",
            b"\x89\x02hi\x8a\x00\x88\x02\x03\xe8",
            b"\x81\x02hi\x01\x01a\x80\x01b",
            b"\x82\x7e\x00\x80",
            b"\x82\xff\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00",
        ];
        seeds.extend(messages.map(<[u8]>::to_vec));
        seeds
    },
    edit: |_: &mut Mutator, _| None,
    run: |input| {
        let pieces = [1, 7, 100, 5000, usize::MAX];
        let at_once = pieces[input.len() % pieces.len()];
        format!(
            "tcp {}; listener {}; dialer {}",
            read(TcpTransport::framing(), input, at_once),
            read(WsTransport::framing(Side::Listener), input, at_once),
            read(WsTransport::framing(Side::Dialer), input, at_once)
        )
    },
    // what is read at a time, and what is reserved for a frame of which nothing has come, three times
    allowance: Allowance { memory: (3 * ((16 + 16 + 4) << 10), 8), work: (300, 8) },
};

thread_local! {
    static RUNTIME: std::sync::Arc<tokio::runtime::Runtime> = std::sync::Arc::new(
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"),
    );
}

fn read(framing: impl Framing, input: &[u8], at_once: usize) -> String {
    let io = Dripping { bytes: Bytes::copy_from_slice(input), at_once };
    let peer = PeerInfo::new("peer", Security::Clear);
    let Link { mut incoming, outgoing, .. } = link(io, framing, peer, MAX, ReceiveLimit::new(MAX));
    let mut cx = Context::from_waker(Waker::noop());
    let runtime = RUNTIME.with(Clone::clone);
    let inside = runtime.enter();
    let (mut frames, mut bytes) = (0, 0);
    let end = loop {
        match incoming.as_mut().poll_next(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => {
                assert!(frame.len() <= MAX, "{} bytes", frame.len());
                frames += 1;
                bytes += frame.len();
            }
            Poll::Ready(Some(Err(error))) => break format!("{error:?}"),
            Poll::Ready(None) => break "end".to_owned(),
            Poll::Pending => panic!("all has arrived, and the end of it"),
        }
    };
    assert!(bytes <= input.len(), "{bytes} bytes out of {}", input.len());
    // outside of a runtime nothing takes leave in the background
    drop(inside);
    drop((incoming, outgoing));
    format!("{} {end}", some(frames))
}

/// A stream that gives its bytes in reads of a few, and then ends.
struct Dripping {
    bytes: Bytes,
    at_once: usize,
}

impl AsyncRead for Dripping {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let part = self.at_once.min(self.bytes.len()).min(buf.remaining());
        buf.put_slice(&self.bytes.split_to(part));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Dripping {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

pub(crate) const GRPC: Target = Target {
    name: "grpc",
    about: "bytes of a gRPC call",
    seeds: || {
        let frames = seeds::single().take(40);
        frames
            .map(|frame| {
                let mut message =
                    vec![8, 1, 0x12, 0x80 | (frame.len() % 128) as u8, (frame.len() / 128) as u8];
                message.extend_from_slice(frame);
                [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat()
            })
            .filter(|message| message.len() < 1 << 14)
            .collect()
    },
    edit: |_: &mut Mutator, _| None,
    run: |input| {
        let pieces = [1, 7, 100, 5000, usize::MAX];
        let at_once = pieces[input.len() % pieces.len()];
        let mut deframer = Deframer::default();
        let (mut frames, mut bytes) = (0, 0);
        for piece in input.chunks(at_once.min(input.len().max(1))) {
            deframer.push(Bytes::copy_from_slice(piece));
            loop {
                match deframer.next(MAX) {
                    Ok(Some(frame)) => {
                        assert!(frame.len() <= MAX, "{} bytes", frame.len());
                        frames += 1;
                        bytes += frame.len();
                    }
                    Ok(None) => break,
                    Err(error) => return format!("{} {error:?}", some(frames)),
                }
            }
        }
        assert!(bytes <= input.len(), "{bytes} bytes out of {}", input.len());
        format!("{} {}", some(frames), deframer.is_inside())
    },
    allowance: Allowance { memory: (12 << 10, 8), work: (100, 8) },
};
