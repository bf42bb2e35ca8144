use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};

use crate::{FrameKind, Hello, HelloError, Prefix, PrefixError};

/// One end of a link: handshake, data, keep-alive.
///
/// The owner calls [`handle_frame`](Self::handle_frame) for each frame received,
/// [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) is due, and
/// sends what [`poll_transmit`](Self::poll_transmit) and [`data`](Self::data) return, in that order.
/// After any [`FrameError`] or [`LinkDead`] it closes the carrier; the link says nothing more.
///
/// Stricter than the peer: what the peer would drop and go on (headers that reach beyond the frame,
/// data before the handshake, a second handshake) closes the link, since no honest peer sends it.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.sfm.conn_manager`, `nvflare.fuel.f3.sfm.sfm_conn`,
/// `nvflare.fuel.f3.sfm.heartbeat_monitor`.
#[derive(Debug)]
pub struct LinkProtocol {
    config: LinkConfig,
    state: State,
    /// Our HELLO or READY while it waits to be sent.
    greeting: Option<Vec<u8>>,
    ping: Ping,
    pong_due: bool,
    /// When the last frame arrived.
    heard: Instant,
    next_stream: u16,
    next_sequence: u16,
    max_incoming: usize,
    ignored: u64,
}

#[derive(Debug)]
enum State {
    Opening { deadline: Instant },
    Open { peer: Hello, settled: Instant },
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ping {
    No,
    Due,
    Sent(Instant),
}

/// Which end of a link this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Made the connection; says HELLO at once.
    Dialer,
    /// Accepted the connection; answers READY.
    Listener,
}

/// What a link is told at its birth. [`LinkConfig::new`] gives the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkConfig {
    /// Our own name.
    pub name: String,
    /// Which end we are.
    pub side: Side,
    /// What we say we are, `locule/<version>`; `None` says nothing, as a stock peer does.
    pub software: Option<String>,
    /// Extensions that we understand on a link.
    pub capabilities: Vec<String>,
    /// Longest frame in either direction, in bytes; the peer's limit by default.
    pub max_frame_len: usize,
    /// Longest incoming frame in bytes as long as the peer has proved nothing: for a listener until
    /// [`LinkProtocol::admit`], for a dialer until the handshake is over. 160 KiB by default, which a
    /// registration with certificates and site configuration fits.
    pub unproven_frame_len: usize,
    /// Send a PING when nothing was received for so long; 60 s by default.
    pub idle_ping: Duration,
    /// How long the handshake may take; 10 s by default.
    pub handshake_deadline: Duration,
    /// How long after a PING the peer may stay silent; 60 s by default. A frame counts when it is
    /// whole, so this must exceed the time that the longest single frame takes.
    pub dead_after: Duration,
    /// How long after the handshake a peer that is not ours may still lose data; 100 ms by default.
    pub settle: Duration,
}

impl LinkConfig {
    /// The defaults.
    #[must_use]
    pub fn new(name: impl Into<String>, side: Side) -> Self {
        Self {
            name: name.into(),
            side,
            software: None,
            capabilities: Vec::new(),
            max_frame_len: Prefix::MAX_FRAME_LEN,
            unproven_frame_len: 160 * 1024,
            idle_ping: Duration::from_secs(60),
            handshake_deadline: Duration::from_secs(10),
            dead_after: Duration::from_secs(60),
            settle: Duration::from_millis(100),
        }
    }
}

/// What a frame meant.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The handshake is over and the peer claims to be this. Nothing of it is proved.
    ///
    /// A listener's READY then waits in [`LinkProtocol::poll_transmit`]: whoever refuses the peer
    /// closes the link without sending it.
    Established(Hello),
    /// A message. Both slices share the frame's memory.
    Data {
        /// Encoded headers; empty when the frame has none.
        headers: Bytes,
        /// The body.
        payload: Bytes,
    },
}

/// A frame to send, in two pieces so that the body need not be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutFrame {
    /// Prefix and headers.
    pub head: Bytes,
    /// The body.
    pub body: Bytes,
}

impl LinkProtocol {
    const SOFTWARE: &str = "locule/";
    const GREETING_STREAM: u16 = 1;
    const FIRST_STREAM: u16 = 17;

    /// A link whose carrier has just come up. `wall` goes into a dialer's HELLO.
    #[must_use]
    pub fn new(config: LinkConfig, now: Instant, wall: SystemTime) -> Self {
        let mut link = Self {
            state: State::Opening { deadline: now + config.handshake_deadline },
            greeting: None,
            ping: Ping::No,
            pong_due: false,
            heard: now,
            next_stream: Self::FIRST_STREAM,
            next_sequence: 1,
            max_incoming: config.unproven_frame_len.min(config.max_frame_len),
            ignored: 0,
            config,
        };
        if link.config.side == Side::Dialer {
            link.greet(wall);
        }
        link
    }

    /// Takes one whole frame from the peer.
    ///
    /// Frames that the peer ignores are ignored and counted in [`ignored`](Self::ignored): unknown
    /// kinds, data of other applications, a PING before the handshake.
    ///
    /// # Errors
    /// [`FrameError`]: the peer broke the protocol; the link is closed.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        wall: SystemTime,
        frame: Bytes,
    ) -> Result<Option<Event>, FrameError> {
        let event = self.read(now, wall, frame);
        if event.is_err() {
            self.state = State::Closed;
        }
        event
    }

    /// The next HELLO, READY, PONG or PING to send, a whole frame. At most three ever wait, however
    /// much the peer asks for.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        if matches!(self.state, State::Closed) {
            return None;
        }
        if let Some(greeting) = self.greeting.take() {
            let kind = match self.config.side {
                Side::Dialer => FrameKind::Hello,
                Side::Listener => FrameKind::Ready,
            };
            return Some(self.control(kind, &greeting));
        }
        if std::mem::take(&mut self.pong_due) {
            return Some(self.control(FrameKind::Pong, &[0xc0]));
        }
        if self.ping == Ping::Due {
            self.ping = Ping::Sent(now);
            return Some(self.control(FrameKind::Ping, &[0xc0]));
        }
        None
    }

    /// Frames a message.
    ///
    /// # Errors
    /// [`SendError`]; the link stays as it is.
    pub fn data(&mut self, headers: &[u8], payload: Bytes) -> Result<OutFrame, SendError> {
        if !matches!(self.state, State::Open { .. }) {
            return Err(SendError::NotEstablished);
        }
        let header_len =
            u16::try_from(headers.len()).map_err(|_| SendError::HeadersTooLong { len: headers.len() })?;
        let len = Prefix::LEN + headers.len() + payload.len();
        let length = u32::try_from(len).ok().filter(|_| len <= self.config.max_frame_len);
        let length = length.ok_or(SendError::TooLong { len, max: self.config.max_frame_len })?;
        let prefix = self.prefix(FrameKind::Data, length, header_len);
        let mut head = BytesMut::with_capacity(Prefix::LEN + headers.len());
        head.put_slice(&prefix.encode());
        head.put_slice(headers);
        Ok(OutFrame { head: head.freeze(), body: payload })
    }

    /// Tells the link that time has passed. Harmless when nothing is due.
    ///
    /// # Errors
    /// [`LinkDead`]: the peer is not there, or never was; the link is closed.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), LinkDead> {
        let dead = match (&self.state, self.ping) {
            (State::Opening { deadline }, _) if now >= *deadline => {
                LinkDead::HandshakeTimedOut { after: self.config.handshake_deadline }
            }
            (State::Open { .. }, Ping::Sent(at)) if now >= at + self.config.dead_after => {
                LinkDead::Silent { since: now.saturating_duration_since(self.heard) }
            }
            (State::Open { .. }, Ping::No) if now >= self.heard + self.config.idle_ping => {
                self.ping = Ping::Due;
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.state = State::Closed;
        Err(dead)
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    ///
    /// A PING that cannot be sent sets no deadline: whether the carrier still takes bytes is for the
    /// one who sends to notice.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (&self.state, self.ping) {
            (State::Opening { deadline }, _) => Some(*deadline),
            (State::Open { .. }, Ping::No) => Some(self.heard + self.config.idle_ping),
            (State::Open { .. }, Ping::Sent(at)) => Some(at + self.config.dead_after),
            (State::Open { .. }, Ping::Due) | (State::Closed, _) => None,
        }
    }

    /// Lifts the limit on incoming frames from `unproven_frame_len` to `max_frame_len`: the peer has
    /// proved who it is.
    pub fn admit(&mut self) {
        self.max_incoming = self.config.max_frame_len;
    }

    /// Longest frame in bytes that is taken from the peer now.
    #[must_use]
    pub fn max_incoming(&self) -> usize {
        self.max_incoming
    }

    /// What the peer said of itself, once the handshake is over.
    #[must_use]
    pub fn peer(&self) -> Option<&Hello> {
        if let State::Open { peer, .. } = &self.state { Some(peer) } else { None }
    }

    /// Whether the peer says that it is one of ours.
    #[must_use]
    pub fn peer_is_ours(&self) -> bool {
        self.peer().is_some_and(is_ours)
    }

    /// From when on data can be sent without being lost, once the handshake is over: at once to a
    /// peer of ours; `settle` later to others. A stock peer handles frames concurrently and drops
    /// data that it looks at before it has stored the end of the handshake, on either side.
    #[must_use]
    pub fn settled_at(&self) -> Option<Instant> {
        if let State::Open { settled, .. } = &self.state { Some(*settled) } else { None }
    }

    /// How many frames were read past because they mean nothing.
    #[must_use]
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    fn read(&mut self, now: Instant, wall: SystemTime, frame: Bytes) -> Result<Option<Event>, FrameError> {
        if matches!(self.state, State::Closed) {
            return Err(FrameError::Closed);
        }
        if frame.len() > self.max_incoming {
            return Err(FrameError::TooLong { len: frame.len(), max: self.max_incoming });
        }
        let prefix = Prefix::parse(&frame)?;
        if prefix.length as usize != frame.len() {
            return Err(FrameError::WrongLength { claimed: prefix.length, len: frame.len() });
        }
        self.heard = now;
        self.ping = Ping::No;
        let payload = frame.slice(Prefix::LEN + usize::from(prefix.header_len)..);
        let open = matches!(self.state, State::Open { .. });
        match prefix.kind {
            FrameKind::Hello | FrameKind::Ready if open => Err(FrameError::SecondHandshake),
            FrameKind::Hello if self.config.side == Side::Dialer => Err(FrameError::HelloToDialer),
            FrameKind::Hello => {
                let event = self.establish(now, &payload)?;
                self.greet(wall);
                Ok(Some(event))
            }
            // a listener takes READY for an introduction too, and does not answer it
            FrameKind::Ready => self.establish(now, &payload).map(Some),
            FrameKind::Data if !open => Err(FrameError::DataBeforeHandshake),
            FrameKind::Data if prefix.app_id == Prefix::DATA_APP => {
                let headers = frame.slice(Prefix::LEN..frame.len() - payload.len());
                Ok(Some(Event::Data { headers, payload }))
            }
            FrameKind::Ping if open => {
                self.pong_due = true;
                Ok(None)
            }
            FrameKind::Pong if open => Ok(None),
            FrameKind::Data
            | FrameKind::Ping
            | FrameKind::Pong
            | FrameKind::Frag
            | FrameKind::Ack
            | FrameKind::Other(_) => {
                self.ignored += 1;
                Ok(None)
            }
        }
    }

    fn establish(&mut self, now: Instant, payload: &[u8]) -> Result<Event, FrameError> {
        let peer = Hello::decode(payload)?;
        if peer.endpoint_name == self.config.name {
            return Err(FrameError::OwnName);
        }
        let settled = if is_ours(&peer) { now } else { now + self.config.settle };
        self.state = State::Open { peer: peer.clone(), settled };
        if self.config.side == Side::Dialer {
            self.admit();
        }
        Ok(Event::Established(peer))
    }

    fn greet(&mut self, wall: SystemTime) {
        let hello = Hello {
            endpoint_name: self.config.name.clone(),
            timestamp: wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            fqcn: Some(self.config.name.clone()),
            software: self.config.software.clone(),
            capabilities: self.config.capabilities.clone(),
        };
        self.greeting = Some(hello.encode());
    }

    fn control(&mut self, kind: FrameKind, payload: &[u8]) -> Bytes {
        let len = Prefix::LEN + payload.len();
        let length = u32::try_from(len).expect("our own handshake is far below 4 GiB");
        let mut frame = BytesMut::with_capacity(len);
        frame.put_slice(&self.prefix(kind, length, 0).encode());
        frame.put_slice(payload);
        frame.freeze()
    }

    fn prefix(&mut self, kind: FrameKind, length: u32, header_len: u16) -> Prefix {
        let stream_id = match kind {
            FrameKind::Hello | FrameKind::Ready => Self::GREETING_STREAM,
            FrameKind::Data
            | FrameKind::Frag
            | FrameKind::Ack
            | FrameKind::Ping
            | FrameKind::Pong
            | FrameKind::Other(_) => {
                let next = self.next_stream.wrapping_add(1);
                std::mem::replace(&mut self.next_stream, next)
            }
        };
        let next = self.next_sequence.wrapping_add(1);
        let sequence = std::mem::replace(&mut self.next_sequence, next);
        let app_id = if kind == FrameKind::Data { Prefix::DATA_APP } else { 0 };
        Prefix { length, header_len, kind, flags: 0, app_id, stream_id, sequence }
    }
}

fn is_ours(peer: &Hello) -> bool {
    peer.software.as_ref().is_some_and(|software| software.starts_with(LinkProtocol::SOFTWARE))
}

/// How the peer broke the protocol; the link is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The prefix is none.
    #[error("malformed prefix")]
    Prefix(#[from] PrefixError),
    /// The prefix claims another length than the frame has.
    #[error("frame claims {claimed} bytes and has {len}")]
    WrongLength {
        /// Claimed length in bytes.
        claimed: u32,
        /// Real length in bytes.
        len: usize,
    },
    /// The frame is longer than the peer may send now.
    #[error("frame has {len} bytes, at most {max} are allowed now")]
    TooLong {
        /// Length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// HELLO or READY does not identify the peer.
    #[error("handshake refused")]
    Hello(#[from] HelloError),
    /// The peer claims our own name.
    #[error("peer claims our own name")]
    OwnName,
    /// HELLO or READY on a link that has had its handshake.
    #[error("second handshake on a link")]
    SecondHandshake,
    /// The listener said HELLO, which is for the dialer to say.
    #[error("hello from the listening side")]
    HelloToDialer,
    /// Data before the handshake.
    #[error("data before the handshake")]
    DataBeforeHandshake,
    /// The link was closed before.
    #[error("link is closed")]
    Closed,
}

/// Why a message cannot be framed. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The handshake is not over, or the link is closed.
    #[error("link is not established")]
    NotEstablished,
    /// The headers exceed the 16 bits that a frame has for their length.
    #[error("headers have {len} bytes, at most {} fit a frame", u16::MAX)]
    HeadersTooLong {
        /// Length in bytes.
        len: usize,
    },
    /// The whole frame is longer than the link takes.
    #[error("frame of {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
}

/// Why a link is dead; it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkDead {
    /// The peer did not introduce itself in time.
    #[error("no handshake within {after:?}")]
    HandshakeTimedOut {
        /// The time it had.
        after: Duration,
    },
    /// The peer did not answer a PING.
    #[error("nothing received for {since:?}")]
    Silent {
        /// Time since the last frame.
        since: Duration,
    },
}
