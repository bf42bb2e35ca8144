//! The framing of stock cells on streams.

use bytes::Buf as _;
use locule_transport::{LinkError, OutFrame};

use crate::{Framing, Header, Outgoing, Step};

/// Frames that begin with their own length, 4 bytes, big-endian, with nothing between them.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.drivers.socket_conn`.
#[derive(Clone, Copy, Debug)]
pub struct LengthFirst;

/// What a length takes, in bytes.
const LENGTH: usize = 4;

impl LengthFirst {
    /// Largest frame, in bytes: a stock peer's limit of 2 GiB − 2 MiB.
    pub const MAX_FRAME_LEN: usize = 2_145_386_496;
    /// Smallest frame, in bytes: a stock peer reads as much before it looks at the length.
    pub const MIN_FRAME_LEN: usize = 16;
}

impl Framing for LengthFirst {
    fn write(&mut self, frame: OutFrame, out: &mut Outgoing) -> Result<(), LinkError> {
        let len = frame.len();
        let says = (len >= LengthFirst::MIN_FRAME_LEN)
            .then(|| (&frame.head[..]).chain(&frame.body[..]).get_u32() as usize);
        if says != Some(len) {
            return Err(LinkError::LengthMismatch { len });
        }
        out.put(frame.head);
        out.put(frame.body);
        Ok(())
    }

    fn header(&mut self, arrived: &[u8], max: usize) -> Result<Option<Header>, LinkError> {
        let Some(length) = arrived.first_chunk::<LENGTH>() else { return Ok(None) };
        let len = u32::from_be_bytes(*length) as usize;
        if len < LengthFirst::MIN_FRAME_LEN {
            return Err(LinkError::Protocol { reason: format!("a frame that says it has {len} bytes") });
        }
        if len > max {
            return Err(LinkError::FrameTooLarge { len, max });
        }
        Ok(Some(Header { skip: 0, len }))
    }

    fn body(&mut self, body: Vec<u8>) -> Result<Step, LinkError> {
        Ok(Step::Frame(body.into()))
    }
}
