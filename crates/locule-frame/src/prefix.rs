/// The first 16 bytes of every frame, big-endian.
///
/// | bytes | field | meaning |
/// |---|---|---|
/// | 0–3 | `length` | the whole frame, this prefix included, in bytes |
/// | 4–5 | `header_len` | encoded headers behind the prefix, in bytes; 0 for none |
/// | 6 | `kind` | what the frame is |
/// | 7 | | reserved, sent as 0, not read |
/// | 8–9 | `flags` | sent as 0, not read |
/// | 10–11 | `app_id` | 1 for data, else 0 |
/// | 12–13 | `stream_id` | 1 in a handshake, else a counter; not read |
/// | 14–15 | `sequence` | counts the frames of a sender from 1, wraps; not read |
///
/// The rest of the frame is its payload.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.sfm.prefix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The whole frame, in bytes.
    pub length: u32,
    /// The encoded headers, in bytes.
    pub header_len: u16,
    /// What the frame is.
    pub kind: FrameKind,
    /// Unused by the peer; 0.
    pub flags: u16,
    /// [`Prefix::DATA_APP`] in data frames, else 0.
    pub app_id: u16,
    /// See the table.
    pub stream_id: u16,
    /// See the table.
    pub sequence: u16,
}

impl Prefix {
    /// Length of a prefix, in bytes.
    pub const LEN: usize = 16;
    /// The only application whose data frames are read: cells.
    pub const DATA_APP: u16 = 1;
    /// Longest frame the peer accepts, in bytes: 2 GiB − 2 MiB.
    pub const MAX_FRAME_LEN: usize = 2_145_386_496;

    /// Writes the prefix.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[0..4].copy_from_slice(&self.length.to_be_bytes());
        out[4..6].copy_from_slice(&self.header_len.to_be_bytes());
        out[6] = self.kind.code();
        out[8..10].copy_from_slice(&self.flags.to_be_bytes());
        out[10..12].copy_from_slice(&self.app_id.to_be_bytes());
        out[12..14].copy_from_slice(&self.stream_id.to_be_bytes());
        out[14..16].copy_from_slice(&self.sequence.to_be_bytes());
        out
    }

    /// Reads the prefix at the front of `bytes`.
    ///
    /// # Errors
    /// [`PrefixError::Short`] needs more input and is not fatal. The others mean that the peer does
    /// not speak this protocol: close the link.
    pub fn parse(bytes: &[u8]) -> Result<Self, PrefixError> {
        let Some((&[l0, l1, l2, l3, h0, h1, kind, _, f0, f1, a0, a1, i0, i1, s0, s1], _)) =
            bytes.split_first_chunk::<{ Self::LEN }>()
        else {
            return Err(PrefixError::Short { len: bytes.len() });
        };
        let prefix = Self {
            length: u32::from_be_bytes([l0, l1, l2, l3]),
            header_len: u16::from_be_bytes([h0, h1]),
            kind: FrameKind::from_code(kind),
            flags: u16::from_be_bytes([f0, f1]),
            app_id: u16::from_be_bytes([a0, a1]),
            stream_id: u16::from_be_bytes([i0, i1]),
            sequence: u16::from_be_bytes([s0, s1]),
        };
        let Prefix { length, header_len, .. } = prefix;
        match (length as usize).checked_sub(Self::LEN) {
            None => Err(PrefixError::LengthBelowPrefix { length }),
            Some(rest) if rest < header_len.into() => {
                Err(PrefixError::HeadersBeyondFrame { length, header_len })
            }
            Some(_) => Ok(prefix),
        }
    }
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// Headers and payload of a message.
    Data,
    /// A fragment. The peer never sends one and ignores it.
    Frag,
    /// An acknowledgement. The peer never sends one and ignores it.
    Ack,
    /// The dialer says who it is.
    Hello,
    /// The listener says who it is.
    Ready,
    /// Are you there?
    Ping,
    /// The answer to a ping.
    Pong,
    /// Anything else; ignored.
    Other(u8),
}

impl FrameKind {
    /// The kind as it stands in the prefix.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Frag => 2,
            Self::Ack => 3,
            Self::Hello => 4,
            Self::Ready => 5,
            Self::Ping => 6,
            Self::Pong => 7,
            Self::Other(code) => code,
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Data,
            2 => Self::Frag,
            3 => Self::Ack,
            4 => Self::Hello,
            5 => Self::Ready,
            6 => Self::Ping,
            7 => Self::Pong,
            other => Self::Other(other),
        }
    }
}

/// Why bytes are no prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrefixError {
    /// Fewer than [`Prefix::LEN`] bytes so far.
    #[error("{len} bytes are no whole prefix")]
    Short {
        /// How many there are.
        len: usize,
    },
    /// The frame claims to be shorter than its own prefix.
    #[error("frame claims {length} bytes, fewer than its prefix has")]
    LengthBelowPrefix {
        /// The claimed length in bytes.
        length: u32,
    },
    /// The headers claim to reach beyond the frame.
    #[error("headers of {header_len} bytes do not fit a frame of {length}")]
    HeadersBeyondFrame {
        /// The claimed length of the frame in bytes.
        length: u32,
        /// The claimed length of the headers in bytes.
        header_len: u16,
    },
}
