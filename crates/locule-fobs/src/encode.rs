//! Values to bytes.

use std::io::{self, Write};

use bytes::Bytes;
use uuid::Uuid;

use crate::class::{Form, decomposer, name};
use crate::error::EncodeError;
use crate::msgpack::Writer;
use crate::section::{self, DATA, DATUM_ID_LEN, DECOMPOSER, HEADER_LEN, MARKER_MAIN, TYPE};
use crate::{
    ArrayRef, Class, DatumKind, DownloadSource, Dxo, Map, PeerContext, RefKind, Scalar, Shareable, Value,
};

/// Levels of nested containers that this crate writes, and by default reads.
const DEPTH: usize = 64;

/// Arrays and bytes of at least this length stay where they are when a payload is made in pieces.
const SHARED_FROM: usize = 16 << 10;

/// How to encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncodeOptions {
    /// Texts of at least so many characters, and bytes and arrays of at least so many bytes, travel in
    /// a section of their own. 10 MiB by default; less than 1,024 counts as 1,024.
    pub datum_threshold: usize,
    /// The identifier of the first such section; each further one counts up. They have to differ
    /// within one payload only, so the default is the same for all.
    pub first_datum_id: Uuid,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            datum_threshold: 10 * 1024 * 1024,
            first_datum_id: Uuid::from_u128(0x10c0_1e00_0000_4000_8000_0000_0000_0001),
        }
    }
}

impl EncodeOptions {
    /// Sets [`EncodeOptions::datum_threshold`].
    pub fn datum_threshold(mut self, threshold: usize) -> Self {
        self.datum_threshold = threshold;
        self
    }

    /// Sets [`EncodeOptions::first_datum_id`].
    pub fn first_datum_id(mut self, id: Uuid) -> Self {
        self.first_datum_id = id;
        self
    }
}

/// Encodes a value. Arrays go inline, and their data are copied once, into the payload.
///
/// # Errors
/// [`EncodeError`] when no receiver would accept the value.
pub fn encode(value: &Value) -> Result<Bytes, EncodeError> {
    encode_with(value, &EncodeOptions::default())
}

/// Encodes a value with these options.
///
/// # Errors
/// As [`encode`].
pub fn encode_with(value: &Value, options: &EncodeOptions) -> Result<Bytes, EncodeError> {
    let payload = encode_sharing(value, options, room(value, 0)?, usize::MAX)?;
    let mut out = payload.main;
    let datums = payload.datums.iter().flat_map(OutDatum::parts);
    datums.for_each(|part| out.extend_from_slice(part));
    Ok(out.into())
}

/// Encodes a value, but for large arrays and bytes, which stay where they are: to be sent to many, or written out,
/// without a copy of them in memory. The bytes are those of [`encode_with`].
///
/// ```
/// use locule_fobs::{Array, EncodeOptions, Map, Value, encode_parts, encode_with};
///
/// let value = Value::Map(Map::from_iter([("w", Array::from(&vec![0.5; 1000][..]))]));
/// let options = EncodeOptions::default().datum_threshold(1024);
/// let parts = encode_parts(&value, &options)?;
/// let mut file = Vec::new();
/// parts.write_to(&mut file).expect("memory takes all");
/// assert_eq!((file.len(), file), (parts.len(), encode_with(&value, &options)?.to_vec()));
/// # Ok::<(), locule_fobs::EncodeError>(())
/// ```
///
/// # Errors
/// As [`encode`].
pub fn encode_parts<'a>(value: &'a Value, options: &EncodeOptions) -> Result<Encoded<'a>, EncodeError> {
    encode_sharing(value, options, 1024, SHARED_FROM)
}

fn encode_sharing<'a>(
    value: &'a Value,
    options: &EncodeOptions,
    room: usize,
    shared_from: usize,
) -> Result<Encoded<'a>, EncodeError> {
    let mut out = Vec::with_capacity(HEADER_LEN + room);
    out.extend_from_slice(&[0; HEADER_LEN]);
    let mut encoder = Encoder {
        writer: Writer { out },
        shared_from,
        shared: Vec::new(),
        threshold: options.datum_threshold.max(1024),
        next_id: options.first_datum_id.as_u128(),
        datums: Vec::new(),
        sources: [None; 2],
        depth: 0,
    };
    encoder.value(value)?;
    Ok(encoder.finish())
}

/// A payload whose large parts are still in the value that it was made of.
#[derive(Debug)]
pub struct Encoded<'a> {
    main: Vec<u8>,
    /// What goes between the bytes of `main`, and before which of them.
    shared: Vec<(usize, &'a Bytes)>,
    datums: Vec<OutDatum<'a>>,
}

impl Encoded<'_> {
    /// How long the payload is, in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no payload is empty")]
    pub fn len(&self) -> usize {
        self.parts().map(<[u8]>::len).sum()
    }

    /// Writes the payload.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn write_to(&self, sink: &mut impl Write) -> io::Result<()> {
        self.parts().try_for_each(|part| sink.write_all(part))
    }

    /// The payload in pieces, the large ones shared with the value that it was made of.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use locule_fobs::{EncodeOptions, Value, encode, encode_parts};
    ///
    /// let model = Bytes::from(vec![7; 1 << 20]);
    /// let value = Value::Bytes(model.clone());
    /// let pieces = encode_parts(&value, &EncodeOptions::default())?.into_pieces();
    /// assert!(pieces.iter().any(|piece| piece.as_ptr() == model.as_ptr()));
    /// assert_eq!(pieces.concat(), encode(&value)?);
    /// # Ok::<(), locule_fobs::EncodeError>(())
    /// ```
    pub fn into_pieces(self) -> Vec<Bytes> {
        let Self { main, shared, datums } = self;
        let main = Bytes::from(main);
        let mut pieces = Vec::with_capacity(2 * (shared.len() + datums.len()) + 1);
        let mut from = 0;
        for (at, body) in shared {
            pieces.extend([main.slice(from..at), body.clone()]);
            from = at;
        }
        pieces.push(main.slice(from..));
        for datum in datums {
            let [header, id, head, _] = datum.parts();
            pieces.extend([[header, id, head].concat().into(), datum.body.cloned().unwrap_or_default()]);
        }
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }

    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.shared.iter().map(|(at, _)| *at));
        let ends = self.shared.iter().map(|(at, _)| *at).chain([self.main.len()]);
        let bodies = self.shared.iter().map(|(_, body)| &body[..]).chain([&[][..]]);
        let main = starts.zip(ends).zip(bodies);
        let main = main.flat_map(|((from, to), body)| [&self.main[from..to], body]);
        main.chain(self.datums.iter().flat_map(OutDatum::parts))
    }
}

struct Encoder<'a> {
    writer: Writer,
    /// From which length on bodies are left where they are; and those that were, with what they stand before.
    shared_from: usize,
    shared: Vec<(usize, &'a Bytes)>,
    threshold: usize,
    next_id: u128,
    datums: Vec<OutDatum<'a>>,
    /// Where the references of each kind lead: numpy, tensor.
    sources: [Option<&'a DownloadSource>; 2],
    depth: usize,
}

/// A section to be written: `head` and `body` one after the other are its value.
#[derive(Debug)]
struct OutDatum<'a> {
    id: Uuid,
    /// Of the section.
    header: [u8; HEADER_LEN],
    head: Vec<u8>,
    body: Option<&'a Bytes>,
}

impl OutDatum<'_> {
    fn parts(&self) -> [&[u8]; 4] {
        [&self.header, self.id.as_bytes(), &self.head, self.body.map_or(&[], |body| body)]
    }
}

impl<'a> Encoder<'a> {
    fn finish(mut self) -> Encoded<'a> {
        for (kind, source) in [RefKind::Numpy, RefKind::Tensor].into_iter().zip(self.sources) {
            if let Some(source) = source {
                let json = format!(
                    "{{\"fqcn\": {}, \"ref_id\": {}}}",
                    serde_json::Value::from(source.fqcn.as_str()),
                    serde_json::Value::from(source.ref_id.as_str())
                );
                self.datum(DatumKind::Text, kind.dot(), json.into_bytes(), None);
            }
        }
        let mut main = self.writer.out;
        let shared = self.shared.iter().map(|(_, body)| body.len()).sum::<usize>();
        let size = main.len() - HEADER_LEN + shared;
        main[..HEADER_LEN].copy_from_slice(&section::header(MARKER_MAIN, 0, size));
        Encoded { main, shared: self.shared, datums: self.datums }
    }

    fn value(&mut self, value: &'a Value) -> Result<(), EncodeError> {
        match value {
            Value::None => self.writer.nil(),
            Value::Bool(flag) => self.writer.bool(*flag),
            Value::Int(number) => self.writer.int(*number),
            Value::UInt(number) => self.writer.uint(*number),
            Value::Float(number) => self.writer.float(*number),
            Value::Str(text) => return self.text(text),
            Value::Bytes(bytes) => return self.bytes(Vec::new(), bytes),
            Value::List(items) => return self.list(items),
            Value::Map(map) => return self.map(map),
            Value::Tuple(items) => {
                return self.object(name::TUPLE, decomposer::TUPLE, |own| own.list(items));
            }
            Value::Set(items) => {
                if let Some(item) = items.iter().find(|item| !item.is_hashable()) {
                    return Err(EncodeError::Key(item.kind()));
                }
                return self.object(name::SET, decomposer::SET, |own| own.list(items));
            }
            Value::OrderedDict(entries) => return self.ordered_dict(entries),
            Value::Datetime(text) => {
                return self.object(name::DATETIME, decomposer::DATETIME, |own| own.writer.str(text));
            }
            Value::Enum { class, member } => return self.member(*class, member),
            Value::Array(array) => {
                return self.array(name::NUMPY_ARRAY, array.npy_header(), array.raw().0);
            }
            Value::OpaqueArray(file) => return self.array(name::NUMPY_ARRAY, Vec::new(), file),
            Value::ArrayRef(reference) => return self.array_ref(reference),
            Value::Scalar(scalar) => return self.scalar(*scalar),
            Value::Shareable(shareable) => return self.shareable(shareable),
            Value::Dxo(dxo) => return self.dxo(dxo),
            Value::Context(context) => return self.context(context),
            Value::Datum(datum) => {
                if datum.value.is_empty() {
                    return Err(EncodeError::EmptyDatum);
                }
                if datum.kind == DatumKind::Text && std::str::from_utf8(&datum.value).is_err() {
                    return Err(EncodeError::Utf8);
                }
                let id = self.datum(datum.kind, 0, Vec::new(), Some(&datum.value));
                return self.datum_ref(id, false);
            }
            Value::Object(object) => {
                let class = object.class;
                if class.form() == Form::Member {
                    return Err(EncodeError::Class(class.name()));
                }
                if let Some(expected) = class.form().mistake(&object.data) {
                    return Err(EncodeError::Shape { class: class.name(), expected });
                }
                return self.object(class.name(), class.decomposer(), |own| own.value(&object.data));
            }
        }
        Ok(())
    }

    fn list(&mut self, items: &'a [Value]) -> Result<(), EncodeError> {
        self.nested(|own| {
            own.writer.array(items.len())?;
            items.iter().try_for_each(|item| own.value(item))
        })
    }

    fn map(&mut self, map: &'a Map) -> Result<(), EncodeError> {
        self.nested(|own| {
            own.writer.map(map.len())?;
            own.entries(map)
        })
    }

    fn entries(&mut self, map: &'a Map) -> Result<(), EncodeError> {
        for (key, value) in map.iter() {
            if !key.is_hashable() {
                return Err(EncodeError::Key(key.kind()));
            }
            if key.as_str() == Some(TYPE) {
                return Err(EncodeError::ReservedKey);
            }
            if let Value::Str(text) = key {
                self.writer.str(text)?;
            } else {
                self.value(key)?;
            }
            self.value(value)?;
        }
        Ok(())
    }

    fn ordered_dict(&mut self, entries: &'a [(Value, Value)]) -> Result<(), EncodeError> {
        self.object(name::ORDERED_DICT, decomposer::ORDERED_DICT, |own| {
            own.nested(|own| {
                own.writer.array(entries.len())?;
                for (key, value) in entries {
                    if !key.is_hashable() {
                        return Err(EncodeError::Key(key.kind()));
                    }
                    own.object(name::TUPLE, decomposer::TUPLE, |own| {
                        own.nested(|own| {
                            own.writer.array(2)?;
                            own.value(key)?;
                            own.value(value)
                        })
                    })?;
                }
                Ok(())
            })
        })
    }

    fn shareable(&mut self, shareable: &'a Shareable) -> Result<(), EncodeError> {
        const HEADERS: &str = "__headers__";
        if shareable.fields.contains(HEADERS) {
            let expected = "headers in their own place";
            return Err(EncodeError::Shape { class: Class::SHAREABLE.name(), expected });
        }
        self.object(Class::SHAREABLE.name(), decomposer::DICT, |own| {
            own.nested(|own| {
                own.writer.map(shareable.fields.len() + 1)?;
                own.writer.str(HEADERS)?;
                own.map(&shareable.headers)?;
                own.entries(&shareable.fields)
            })
        })
    }

    fn dxo(&mut self, dxo: &'a Dxo) -> Result<(), EncodeError> {
        self.object(Class::DXO.name(), Class::DXO.decomposer(), |own| {
            own.object(name::TUPLE, decomposer::TUPLE, |own| {
                own.nested(|own| {
                    own.writer.array(3)?;
                    own.writer.str(dxo.kind.as_str())?;
                    own.map(&dxo.meta)?;
                    own.map(&dxo.data)
                })
            })
        })
    }

    fn context(&mut self, context: &'a PeerContext) -> Result<(), EncodeError> {
        self.object(Class::FL_CONTEXT.name(), Class::FL_CONTEXT.decomposer(), |own| {
            own.nested(|own| {
                own.writer.array(2)?;
                own.writer.nil();
                own.nested(|own| {
                    own.writer.map(context.props.len())?;
                    for (name, prop) in &context.props {
                        if name == TYPE {
                            return Err(EncodeError::ReservedKey);
                        }
                        own.writer.str(name)?;
                        own.nested(|own| {
                            own.writer.map(2)?;
                            own.writer.str("value")?;
                            own.value(&prop.value)?;
                            own.writer.str("mask")?;
                            own.writer.int(i64::from(prop.sticky) | i64::from(prop.private) << 1);
                            Ok(())
                        })?;
                    }
                    Ok(())
                })
            })
        })
    }

    fn member(&mut self, class: Class, member: &str) -> Result<(), EncodeError> {
        if !class.is_enum() {
            return Err(EncodeError::Class(class.name()));
        }
        self.object(class.name(), decomposer::ENUM, |own| own.writer.str(member))
    }

    fn scalar(&mut self, scalar: Scalar) -> Result<(), EncodeError> {
        let (class, decomposer) = match scalar {
            Scalar::F32(_) => (name::FLOAT32, decomposer::FLOAT32),
            Scalar::F64(_) => (name::FLOAT64, decomposer::FLOAT64),
            Scalar::I32(_) => (name::INT32, decomposer::INT32),
            Scalar::I64(_) => (name::INT64, decomposer::INT64),
        };
        self.object(class, decomposer, |own| {
            match scalar {
                Scalar::F32(number) => own.writer.float(number.into()),
                Scalar::F64(number) => own.writer.float(number),
                Scalar::I32(number) => own.writer.int(number.into()),
                Scalar::I64(number) => own.writer.int(number),
            }
            Ok(())
        })
    }

    fn array(&mut self, class: &str, header: Vec<u8>, data: &'a Bytes) -> Result<(), EncodeError> {
        self.object(class, decomposer::NUMPY_ARRAY, |own| {
            own.nested(|own| {
                own.writer.map(2)?;
                own.writer.str("type")?;
                own.writer.str("native")?;
                own.writer.str("data")?;
                own.bytes(header, data)
            })
        })
    }

    fn array_ref(&mut self, reference: &'a ArrayRef) -> Result<(), EncodeError> {
        let ArrayRef { kind, item, source, passed_on } = reference;
        let known = &mut self.sources[usize::from(*kind == RefKind::Tensor)];
        if known.get_or_insert(source) != &&**source {
            return Err(EncodeError::MixedSources);
        }
        let (class, decomposer) = match (kind, passed_on) {
            (_, true) => (name::LAZY_DOWNLOAD_REF, decomposer::LAZY_DOWNLOAD_REF),
            (RefKind::Numpy, false) => (name::NUMPY_ARRAY, decomposer::NUMPY_ARRAY),
            (RefKind::Tensor, false) => (Class::TENSOR.name(), decomposer::TENSOR),
        };
        self.object(class, decomposer, |own| {
            own.nested(|own| {
                own.writer.map(2 + usize::from(*passed_on))?;
                own.writer.str("type")?;
                own.writer.str("ref")?;
                own.writer.str("data")?;
                own.writer.str(item)?;
                if *passed_on {
                    own.writer.str("lazy_dot")?;
                    own.writer.uint(kind.dot().into());
                }
                Ok(())
            })
        })
    }

    fn text(&mut self, text: &'a str) -> Result<(), EncodeError> {
        if text.len() >= self.threshold && text.chars().count() >= self.threshold {
            let id = self.datum(DatumKind::Text, 0, text.as_bytes().to_vec(), None);
            return self.datum_ref(id, true);
        }
        self.writer.str(text)
    }

    fn bytes(&mut self, head: Vec<u8>, body: &'a Bytes) -> Result<(), EncodeError> {
        let len = head.len() + body.len();
        if len >= self.threshold {
            let id = self.datum(DatumKind::Blob, 0, head, Some(body));
            return self.datum_ref(id, true);
        }
        self.writer.bin(len)?;
        self.writer.out.extend_from_slice(&head);
        if body.len() >= self.shared_from {
            self.shared.push((self.writer.out.len(), body));
        } else {
            self.writer.out.extend_from_slice(body);
        }
        Ok(())
    }

    fn datum(&mut self, kind: DatumKind, dot: u8, head: Vec<u8>, body: Option<&'a Bytes>) -> Uuid {
        let id = Uuid::from_u128(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        let size = DATUM_ID_LEN + head.len() + body.map_or(0, Bytes::len);
        let header = section::header(kind.marker(), dot, size);
        self.datums.push(OutDatum { id, header, head, body });
        id
    }

    fn datum_ref(&mut self, id: Uuid, unwrap: bool) -> Result<(), EncodeError> {
        self.object(name::DATUM_REF, decomposer::DATA_CLASS, |own| {
            own.nested(|own| {
                own.writer.map(1)?;
                own.writer.str("data")?;
                own.nested(|own| {
                    own.writer.map(2)?;
                    own.writer.str("datum_id")?;
                    own.writer.str(&id.hyphenated().to_string())?;
                    own.writer.str("unwrap")?;
                    own.writer.bool(unwrap);
                    Ok(())
                })
            })
        })
    }

    fn object(
        &mut self,
        class: &str,
        decomposer: &str,
        data: impl FnOnce(&mut Self) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.nested(|own| {
            own.writer.map(3)?;
            own.writer.str(TYPE)?;
            own.writer.str(class)?;
            own.writer.str(DATA)?;
            data(own)?;
            own.writer.str(DECOMPOSER)?;
            own.writer.str(decomposer)
        })
    }

    fn nested(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        if self.depth == DEPTH {
            return Err(EncodeError::TooDeep(DEPTH));
        }
        self.depth += 1;
        let written = write(self);
        self.depth -= 1;
        written
    }
}

/// About how many bytes a value takes, so that the payload is allocated once.
fn room(value: &Value, depth: usize) -> Result<usize, EncodeError> {
    /// What the type, data and decomposer of an object take.
    const OBJECT: usize = 200;
    if depth > DEPTH {
        return Err(EncodeError::TooDeep(DEPTH));
    }
    let all = |items: &[Value]| items.iter().try_fold(5, |sum, item| Ok(sum + room(item, depth + 1)?));
    let pairs = |map: &Map| {
        map.iter().try_fold(5, |sum, (key, value)| Ok(sum + room(key, depth + 1)? + room(value, depth + 1)?))
    };
    Ok(match value {
        Value::None | Value::Bool(_) => 1,
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => 9,
        Value::Str(text) => 5 + text.len() + if text.len() < 1024 { 0 } else { OBJECT + 200 },
        Value::Bytes(bytes) => 5 + bytes.len() + if bytes.len() < 1024 { 0 } else { OBJECT + 200 },
        Value::List(items) => all(items)?,
        Value::Tuple(items) | Value::Set(items) => OBJECT + all(items)?,
        Value::Map(map) => pairs(map)?,
        Value::OrderedDict(entries) => entries.iter().try_fold(OBJECT, |sum, (key, value)| {
            Ok(sum + OBJECT + room(key, depth + 1)? + room(value, depth + 1)?)
        })?,
        Value::Datetime(text) => OBJECT + text.len(),
        Value::Enum { member, .. } => OBJECT + member.len(),
        Value::Array(array) => 2 * OBJECT + 256 + 20 * array.shape().len() + array.raw().0.len(),
        Value::OpaqueArray(file) => 2 * OBJECT + file.len(),
        Value::ArrayRef(reference) => {
            OBJECT + reference.item.len() + reference.source.fqcn.len() + reference.source.ref_id.len() + 64
        }
        Value::Scalar(_) => OBJECT,
        Value::Shareable(shareable) => OBJECT + pairs(&shareable.headers)? + pairs(&shareable.fields)?,
        Value::Dxo(dxo) => 2 * OBJECT + pairs(&dxo.meta)? + pairs(&dxo.data)?,
        Value::Context(context) => context.props.iter().try_fold(OBJECT, |sum, (name, prop)| {
            Ok(sum + 24 + name.len() + room(&prop.value, depth + 1)?)
        })?,
        Value::Datum(datum) => OBJECT + 200 + datum.value.len(),
        Value::Object(object) => OBJECT + room(&object.data, depth + 1)?,
    })
}
