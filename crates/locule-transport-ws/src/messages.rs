//! Frames as WebSocket messages. No I/O.

use std::io::Cursor;

use bytes::Bytes;
use locule_socket::{Framing, Header, Outgoing, Step};
use locule_transport::{LinkError, OutFrame};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// The longest body of a control piece, in bytes.
const MAX_CONTROL_LEN: usize = 125;

/// Which end we are: what a dialer sends is masked, what a listener sends is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Made the connection.
    Dialer,
    /// Accepted it.
    Listener,
}

/// A WebSocket's two directions: pieces (RFC 6455 calls them frames), of which one or several are a message.
pub(crate) struct Messages {
    side: Side,
    /// The piece whose body is awaited.
    piece: FrameHeader,
    /// The message that has begun.
    message: Option<Message>,
}

enum Message {
    /// A frame, and what has arrived of it.
    Binary(Vec<u8>),
    /// Text, which is nothing to us.
    Ignored,
}

impl Messages {
    pub(crate) fn new(side: Side) -> Self {
        Self { side, piece: FrameHeader::default(), message: None }
    }

    /// The header of a whole message of ours, and the mask for what follows.
    fn head(&self, opcode: OpCode, len: usize) -> (Vec<u8>, Option<[u8; 4]>) {
        let mask = (self.side == Side::Dialer).then(rand::random::<[u8; 4]>);
        let header = FrameHeader { opcode, mask, ..FrameHeader::default() };
        let mut head = Vec::with_capacity(header.len(len as u64));
        header.format(len as u64, &mut head).expect("a Vec takes all");
        (head, mask)
    }

    /// A short message of ours to the other carrier.
    fn control(&self, control: Control, mut body: Vec<u8>) -> Bytes {
        let (mut message, mask) = self.head(OpCode::Control(control), body.len());
        apply_mask(&mut body, mask.unwrap_or_default());
        message.append(&mut body);
        message.into()
    }

    /// What has arrived of the frame that has begun, in bytes.
    fn begun(&self) -> usize {
        match &self.message {
            Some(Message::Binary(begun)) => begun.len(),
            Some(Message::Ignored) | None => 0,
        }
    }
}

impl Framing for Messages {
    fn write(&mut self, frame: OutFrame, out: &mut Outgoing) -> Result<(), LinkError> {
        let (head, mask) = self.head(OpCode::Data(Data::Binary), frame.len());
        out.put_slice(&head);
        match mask {
            None => {
                out.put(frame.head);
                out.put(frame.body);
            }
            Some(mut mask) => {
                out.put(masked(&frame.head, mask));
                mask.rotate_left(frame.head.len() % 4);
                out.put(masked(&frame.body, mask));
            }
        }
        Ok(())
    }

    fn write_end(&mut self, out: &mut Outgoing) {
        let normal = u16::from(CloseCode::Normal).to_be_bytes().to_vec();
        out.put(self.control(Control::Close, normal));
    }

    fn header(&mut self, arrived: &[u8], max: usize) -> Result<Option<Header>, LinkError> {
        let mut cursor = Cursor::new(arrived);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|error| protocol(error.to_string()))?;
        let Some((piece, len)) = parsed else { return Ok(None) };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if piece.rsv1 || piece.rsv2 || piece.rsv3 {
            return Err(protocol("an extension that was not agreed on"));
        }
        if piece.mask.is_some() != (self.side == Side::Listener) {
            return Err(protocol("a mask where there is none, or none where there is one"));
        }
        match piece.opcode {
            OpCode::Control(_) if len > MAX_CONTROL_LEN || !piece.is_final => {
                return Err(protocol("a control frame that is too long or in parts"));
            }
            OpCode::Control(_) => {}
            OpCode::Data(Data::Continue) if self.message.is_none() => {
                return Err(protocol("the rest of a message that has not begun"));
            }
            OpCode::Data(Data::Text | Data::Binary | Data::Reserved(_)) if self.message.is_some() => {
                return Err(protocol("a message inside another"));
            }
            OpCode::Data(_) => {
                let len = self.begun().saturating_add(len);
                if len > max {
                    return Err(LinkError::FrameTooLarge { len, max });
                }
            }
        }
        self.piece = piece;
        Ok(Some(Header { skip: cursor.position() as usize, len }))
    }

    fn body(&mut self, mut body: Vec<u8>) -> Result<Step, LinkError> {
        if let Some(mask) = self.piece.mask {
            apply_mask(&mut body, mask);
        }
        let message = match self.piece.opcode {
            OpCode::Control(Control::Close) => return Ok(Step::End),
            OpCode::Control(Control::Ping) => return Ok(Step::Answer(self.control(Control::Pong, body))),
            OpCode::Control(Control::Pong | Control::Reserved(_)) => return Ok(Step::Nothing),
            OpCode::Data(Data::Text) => Message::Ignored,
            OpCode::Data(Data::Binary) => Message::Binary(body),
            OpCode::Data(Data::Continue | Data::Reserved(_)) => match self.message.take() {
                Some(Message::Binary(mut begun)) => {
                    begun.append(&mut body);
                    Message::Binary(begun)
                }
                Some(Message::Ignored) | None => Message::Ignored,
            },
        };
        match message {
            message if !self.piece.is_final => {
                self.message = Some(message);
                Ok(Step::Nothing)
            }
            Message::Binary(frame) => Ok(Step::Frame(frame.into())),
            Message::Ignored => Ok(Step::Nothing),
        }
    }

    fn is_inside(&self) -> bool {
        self.message.is_some()
    }

    /// A peer that has enough says so; a connection that just ends was lost.
    fn end(&self) -> Result<(), LinkError> {
        Err(LinkError::Closed)
    }
}

fn masked(bytes: &[u8], mask: [u8; 4]) -> Bytes {
    let mut masked = bytes.to_vec();
    apply_mask(&mut masked, mask);
    masked.into()
}

fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let twice = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (blocks, rest) = bytes.as_chunks_mut::<8>();
    for block in blocks {
        *block = (u64::from_ne_bytes(*block) ^ twice).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

fn protocol(reason: impl Into<String>) -> LinkError {
    LinkError::Protocol { reason: reason.into() }
}
