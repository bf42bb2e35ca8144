use rmp::{
    Marker,
    encode::{self, ByteBuf},
};

/// What both ends say of themselves in a handshake: the payload of HELLO and READY, a msgpack map.
///
/// A stock peer sends the first three; it stores and ignores keys that it does not know, and so does
/// this crate. A key whose value has an unexpected type counts as unknown, except for the name.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.sfm.conn_manager`, `nvflare.fuel.f3.sfm.constants`
/// (`HandshakeKeys`).
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// `endpoint_name`: the cell's name as claimed, without white space around it; else unchecked.
    pub endpoint_name: String,
    /// `timestamp`: unix time in seconds by the sender's clock; 0 when absent.
    pub timestamp: f64,
    /// `fqcn`: the name once more.
    pub fqcn: Option<String>,
    /// `software`: `locule/<version>` when the peer is one of ours.
    pub software: Option<String>,
    /// `capabilities`: extensions that the sender understands on this link.
    pub capabilities: Vec<String>,
}

impl Hello {
    /// Most bytes of a handshake's payload. A stock peer sends about 50 and twice its name.
    pub const MAX_LEN: usize = 8 * 1024;

    /// Writes the payload. Software and capabilities are left out when there are none.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let keys = 2 + [self.fqcn.is_some(), self.software.is_some(), !self.capabilities.is_empty()]
            .map(u32::from)
            .iter()
            .sum::<u32>();
        let mut out = ByteBuf::new();
        let Ok(_) = encode::write_map_len(&mut out, keys);
        text(&mut out, "endpoint_name");
        text(&mut out, &self.endpoint_name);
        text(&mut out, "timestamp");
        let Ok(()) = encode::write_f64(&mut out, self.timestamp);
        for (key, value) in [("fqcn", &self.fqcn), ("software", &self.software)] {
            if let Some(value) = value {
                text(&mut out, key);
                text(&mut out, value);
            }
        }
        if !self.capabilities.is_empty() {
            text(&mut out, "capabilities");
            let count = u32::try_from(self.capabilities.len()).unwrap_or(u32::MAX);
            let Ok(_) = encode::write_array_len(&mut out, count);
            self.capabilities.iter().take(count as usize).for_each(|name| text(&mut out, name));
        }
        out.into_vec()
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// [`HelloError`]: the peer cannot be identified, and the link is of no use.
    pub fn decode(payload: &[u8]) -> Result<Self, HelloError> {
        if payload.len() > Self::MAX_LEN {
            return Err(HelloError::TooLong { len: payload.len() });
        }
        let mut hello = Self {
            endpoint_name: String::new(),
            timestamp: 0.0,
            fqcn: None,
            software: None,
            capabilities: Vec::new(),
        };
        let mut reader = Reader { rest: payload };
        let Item::Map(entries) = reader.item()? else { return Err(HelloError::NotAMap) };
        for _ in 0..entries {
            let key = match reader.item()? {
                Item::Text(key) => key,
                Item::Bytes => "",
                Item::Float(_) | Item::Other | Item::Array(_) | Item::Map(_) => {
                    return Err(HelloError::Malformed);
                }
            };
            let value = reader.item()?;
            match (key, &value) {
                ("endpoint_name", Item::Text(name)) => hello.endpoint_name = name.trim().to_owned(),
                ("timestamp", Item::Float(seconds)) => hello.timestamp = *seconds,
                ("fqcn", Item::Text(name)) => hello.fqcn = Some(name.trim().to_owned()),
                ("software", Item::Text(software)) => hello.software = Some((*software).to_owned()),
                ("capabilities", Item::Array(count)) => {
                    for _ in 0..*count {
                        let name = reader.item()?;
                        if let Item::Text(name) = name {
                            hello.capabilities.push(name.to_owned());
                        }
                        reader.skip_inside(&name)?;
                    }
                    continue;
                }
                _ => {}
            }
            reader.skip_inside(&value)?;
        }
        if !reader.rest.is_empty() {
            return Err(HelloError::Malformed);
        }
        if hello.endpoint_name.is_empty() {
            return Err(HelloError::NoName);
        }
        if hello.fqcn.as_ref().is_some_and(|name| *name != hello.endpoint_name) {
            return Err(HelloError::TwoNames);
        }
        Ok(hello)
    }
}

fn text(out: &mut ByteBuf, text: &str) {
    let Ok(()) = encode::write_str(out, text);
}

/// Why a handshake's payload does not identify the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// More than [`Hello::MAX_LEN`] bytes.
    #[error("handshake has {len} bytes, at most {} are allowed", Hello::MAX_LEN)]
    TooLong {
        /// Length in bytes.
        len: usize,
    },
    /// The payload is not msgpack, ends early, or has bytes behind its end.
    #[error("malformed handshake")]
    Malformed,
    /// The payload is no map.
    #[error("handshake is not a map")]
    NotAMap,
    /// There is no endpoint name, or an empty one.
    #[error("handshake names no endpoint")]
    NoName,
    /// Endpoint name and FQCN differ, so that two checks could see two peers.
    #[error("handshake gives two different names")]
    TwoNames,
}

struct Reader<'a> {
    rest: &'a [u8],
}

/// The head of a value: all of it, unless it is a container.
enum Item<'a> {
    Text(&'a str),
    Bytes,
    Float(f64),
    Other,
    Array(u32),
    Map(u32),
}

impl<'a> Reader<'a> {
    fn item(&mut self) -> Result<Item<'a>, HelloError> {
        let [byte] = self.fixed()?;
        Ok(match Marker::from_u8(byte) {
            Marker::FixStr(len) => self.text(len.into())?,
            Marker::Str8 => self.len8().and_then(|len| self.text(len))?,
            Marker::Str16 => self.len16().and_then(|len| self.text(len))?,
            Marker::Str32 => self.len32().and_then(|len| self.text(len))?,
            Marker::Bin8 => self.len8().and_then(|len| self.skip(len, Item::Bytes))?,
            Marker::Bin16 => self.len16().and_then(|len| self.skip(len, Item::Bytes))?,
            Marker::Bin32 => self.len32().and_then(|len| self.skip(len, Item::Bytes))?,
            Marker::F64 => Item::Float(f64::from_be_bytes(self.fixed()?)),
            Marker::F32 => Item::Float(f32::from_be_bytes(self.fixed()?).into()),
            Marker::FixArray(len) => Item::Array(len.into()),
            Marker::Array16 => Item::Array(self.len16()?),
            Marker::Array32 => Item::Array(self.len32()?),
            Marker::FixMap(len) => Item::Map(len.into()),
            Marker::Map16 => Item::Map(self.len16()?),
            Marker::Map32 => Item::Map(self.len32()?),
            Marker::Null | Marker::False | Marker::True | Marker::FixPos(_) | Marker::FixNeg(_) => {
                Item::Other
            }
            Marker::U8 | Marker::I8 => self.skip(1, Item::Other)?,
            Marker::U16 | Marker::I16 | Marker::FixExt1 => self.skip(2, Item::Other)?,
            Marker::FixExt2 => self.skip(3, Item::Other)?,
            Marker::U32 | Marker::I32 => self.skip(4, Item::Other)?,
            Marker::FixExt4 => self.skip(5, Item::Other)?,
            Marker::U64 | Marker::I64 => self.skip(8, Item::Other)?,
            Marker::FixExt8 => self.skip(9, Item::Other)?,
            Marker::FixExt16 => self.skip(17, Item::Other)?,
            Marker::Ext8 => self.len8().and_then(|len| self.skip(len + 1, Item::Other))?,
            Marker::Ext16 => self.len16().and_then(|len| self.skip(len + 1, Item::Other))?,
            Marker::Ext32 => self.len32().and_then(|len| self.skip(len.saturating_add(1), Item::Other))?,
            Marker::Reserved => return Err(HelloError::Malformed),
        })
    }

    /// Reads past what a container holds. Each item takes at least a byte, so the bytes bound the work.
    fn skip_inside(&mut self, outer: &Item<'_>) -> Result<(), HelloError> {
        let inside = |item: &Item<'_>| match *item {
            Item::Array(len) => u64::from(len),
            Item::Map(len) => 2 * u64::from(len),
            Item::Text(_) | Item::Bytes | Item::Float(_) | Item::Other => 0,
        };
        let mut pending = inside(outer);
        while pending > 0 {
            pending = pending - 1 + inside(&self.item()?);
        }
        Ok(())
    }

    fn text(&mut self, len: u32) -> Result<Item<'a>, HelloError> {
        str::from_utf8(self.take(len)?).map(Item::Text).map_err(|_| HelloError::Malformed)
    }

    fn skip(&mut self, len: u32, item: Item<'a>) -> Result<Item<'a>, HelloError> {
        self.take(len).map(|_| item)
    }

    fn len8(&mut self) -> Result<u32, HelloError> {
        self.fixed().map(u8::from_be_bytes).map(u32::from)
    }

    fn len16(&mut self) -> Result<u32, HelloError> {
        self.fixed().map(u16::from_be_bytes).map(u32::from)
    }

    fn len32(&mut self) -> Result<u32, HelloError> {
        self.fixed().map(u32::from_be_bytes)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], HelloError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(HelloError::Malformed)?;
        self.rest = rest;
        Ok(*head)
    }

    fn take(&mut self, len: u32) -> Result<&'a [u8], HelloError> {
        let (head, rest) = self.rest.split_at_checked(len as usize).ok_or(HelloError::Malformed)?;
        self.rest = rest;
        Ok(head)
    }
}
