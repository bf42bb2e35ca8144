//! Bytes to values.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::class::{Form, name};
use crate::error::{DecodeError, shown};
use crate::msgpack::{self, Reader, Token};
use crate::section::{DATA, MARKER_MAIN, Section, TYPE};
use crate::value::repeated_key;
use crate::{
    Array, ArrayRef, Class, Datum, DatumKind, DownloadSource, Dxo, Map, NpyError, Object, PeerContext, Prop,
    RefKind, Scalar, Shareable, Value,
};

/// What a payload may cost.
///
/// The number of values is tied to the bytes that came: `free_values + bytes / bytes_per_value`, where
/// bytes are those of the value's own section, without datums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Levels of nested containers; an object counts as one map and whatever it is made of. More than
    /// 128 counts as 128.
    pub depth: usize,
    /// Values that any payload may have.
    pub free_values: usize,
    /// Bytes that buy one value more.
    pub bytes_per_value: usize,
}

impl Limits {
    /// For payloads of peers that have not proved who they are: 160 KiB of them take at most four
    /// times as much memory.
    pub const STRANGER: Limits = Limits { depth: 32, free_values: 4096, bytes_per_value: 24 };

    /// What recursion on a small stack can bear.
    const MAX_DEPTH: usize = 128;

    fn values(&self, bytes: usize) -> usize {
        self.free_values.saturating_add(bytes / self.bytes_per_value.max(1))
    }
}

impl Default for Limits {
    /// For known peers. A list of floats of any length passes; of small integers, 262,144 or more.
    fn default() -> Self {
        Self { depth: 64, free_values: 1 << 18, bytes_per_value: 8 }
    }
}

/// Decodes a payload within the default [`Limits`].
///
/// Bytes and arrays in the value are slices of the input: they keep it alive and copy nothing.
///
/// # Errors
/// [`DecodeError`]; the payload is not to be used, and its sender is to be told so.
pub fn decode(payload: Bytes) -> Result<Value, DecodeError> {
    decode_with(payload, &Limits::default())
}

/// Decodes a payload within these limits.
///
/// # Errors
/// As [`decode`]; what exceeds the limits is refused before any memory is taken for it.
pub fn decode_with(payload: Bytes, limits: &Limits) -> Result<Value, DecodeError> {
    let mut sections = Section::all(payload.clone());
    let main = sections.next().ok_or(DecodeError::Truncated(0))??;
    if main.marker != MARKER_MAIN {
        return Err(DecodeError::Marker { marker: main.marker, at: 0 });
    }
    if main.dot != 0 {
        return Err(DecodeError::DatumType(main.dot));
    }
    msgpack::check(&main.body, limits.depth.min(Limits::MAX_DEPTH), limits.values(main.body.len()))?;
    let datums = Datums::read(sections, payload.len())?;
    let body = main.body;
    Decoder { reader: Reader::new(&body), body: &body, datums }.value()
}

/// The sections behind the first.
#[derive(Default)]
struct Datums {
    by_id: BTreeMap<Uuid, Datum>,
    numpy: Option<Arc<DownloadSource>>,
    tensor: Option<Arc<DownloadSource>>,
    /// How many bytes of text may still be copied out of datums.
    text_left: usize,
}

impl Datums {
    fn read(
        sections: impl Iterator<Item = Result<Section, DecodeError>>,
        payload_len: usize,
    ) -> Result<Self, DecodeError> {
        let mut datums = Self { text_left: payload_len, ..Self::default() };
        // Only values above a threshold become datums, and no sender may set it below 1,024 bytes.
        let most = 4096 + payload_len / 1024;
        for (count, section) in sections.enumerate() {
            let section = section?;
            if count == most {
                return Err(DecodeError::TooManyValues(most));
            }
            let (id, kind, value) = section.datum()?;
            let source = match section.dot {
                0 => None,
                3 => Some(&mut datums.numpy),
                6 => Some(&mut datums.tensor),
                other => return Err(DecodeError::DatumType(other)),
            };
            if kind == DatumKind::Text {
                std::str::from_utf8(&value).map_err(|error| DecodeError::Utf8(16 + error.valid_up_to()))?;
            }
            if let Some(source) = source {
                if kind != DatumKind::Text {
                    return Err(DecodeError::DatumType(section.dot));
                }
                if source.replace(Arc::new(download_source(&value)?)).is_some() {
                    return Err(DecodeError::RepeatedDatum(section.at));
                }
                continue;
            }
            match datums.by_id.entry(id) {
                Entry::Vacant(place) => drop(place.insert(Datum { kind, value })),
                Entry::Occupied(_) => return Err(DecodeError::RepeatedDatum(section.at)),
            }
        }
        Ok(datums)
    }

    fn resolve(&mut self, reference: &Map) -> Result<Value, DecodeError> {
        let id = reference.str("datum_id").ok_or(shape(name::DATUM_REF, "a datum_id and unwrap"))?;
        let datum = Uuid::try_parse(id).ok().and_then(|id| self.by_id.get(&id));
        let datum = datum.ok_or_else(|| DecodeError::MissingDatum(shown(id)))?;
        let unwrap = reference.bool("unwrap").unwrap_or(false);
        match datum.kind {
            DatumKind::Blob if unwrap => Ok(Value::Bytes(datum.value.clone())),
            DatumKind::Text if unwrap => {
                self.text_left =
                    self.text_left.checked_sub(datum.value.len()).ok_or(DecodeError::Multiplied)?;
                let text = std::str::from_utf8(&datum.value).map_err(|_| DecodeError::Utf8(16))?;
                Ok(Value::Str(text.to_owned()))
            }
            DatumKind::Text | DatumKind::Blob | DatumKind::File => Ok(Value::Datum(datum.clone())),
        }
    }

    fn source(&self, kind: RefKind) -> Result<Arc<DownloadSource>, DecodeError> {
        let source = match kind {
            RefKind::Numpy => &self.numpy,
            RefKind::Tensor => &self.tensor,
        };
        source.clone().ok_or(DecodeError::MissingSource)
    }
}

fn download_source(json: &[u8]) -> Result<DownloadSource, DecodeError> {
    if json.len() > 4096 {
        return Err(DecodeError::Source("longer than 4,096 bytes"));
    }
    let json: serde_json::Value =
        serde_json::from_slice(json).map_err(|_| DecodeError::Source("not JSON"))?;
    let text = |key| json.get(key).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty());
    match (text("fqcn"), text("ref_id")) {
        (Some(fqcn), Some(ref_id)) => Ok(DownloadSource { fqcn: fqcn.into(), ref_id: ref_id.into() }),
        _ => Err(DecodeError::Source("without fqcn or ref_id")),
    }
}

/// Builds values from a body that [`msgpack::check`] found to be in order and within the limits; so the
/// recursion is bounded, and so are the capacities.
struct Decoder<'a> {
    reader: Reader<'a>,
    body: &'a Bytes,
    datums: Datums,
}

impl<'a> Decoder<'a> {
    fn value(&mut self) -> Result<Value, DecodeError> {
        Ok(match self.reader.next()? {
            Token::Nil => Value::None,
            Token::Bool(flag) => Value::Bool(flag),
            Token::Int(number) => Value::Int(number),
            Token::UInt(number) => Value::UInt(number),
            Token::Float(number) => Value::Float(number),
            Token::Str(range) => Value::Str(self.reader.text(&range)?.to_owned()),
            Token::Bin(range) => Value::Bytes(self.body.slice(range)),
            Token::Array(len) => {
                let mut items = Vec::with_capacity(len);
                for _ in 0..len {
                    items.push(self.value()?);
                }
                Value::List(items)
            }
            Token::Map(0) => Value::Map(Map::new()),
            Token::Map(len) => self.map(len)?,
        })
    }

    /// A map, or the object that a map with a type is.
    fn map(&mut self, len: usize) -> Result<Value, DecodeError> {
        let start = self.reader.clone();
        if let Token::Str(range) = self.reader.next()?
            && self.reader.slice(&range) == TYPE.as_bytes()
        {
            return self.object(len);
        }
        self.reader = start;
        let mut entries = Vec::with_capacity(len);
        for _ in 0..len {
            let key = self.value()?;
            if !key.is_hashable() {
                return Err(DecodeError::Key(key.kind()));
            }
            entries.push((key, self.value()?));
        }
        if let Some(key) = repeated_key(&entries) {
            let text = key.as_str().map_or_else(|| format!("{key:?}"), shown);
            return Err(DecodeError::RepeatedKey(text));
        }
        let mut map = Map::from_unique(entries);
        match map.remove(TYPE) {
            None => Ok(Value::Map(map)),
            Some(Value::Str(class)) => self.recompose(&class, map.remove(DATA)),
            Some(other) => Err(DecodeError::UnknownClass(other.kind().to_owned())),
        }
    }

    /// An object whose type comes first, as all senders write it; the key of the type is read already.
    fn object(&mut self, len: usize) -> Result<Value, DecodeError> {
        let Token::Str(range) = self.reader.next()? else {
            return Err(DecodeError::UnknownClass("without a name".to_owned()));
        };
        let class = self.reader.text(&range)?;
        let mut data = None;
        for _ in 1..len {
            let key = self.key()?;
            let value = self.value()?;
            if key == Some(DATA.as_bytes()) {
                data = Some(value);
            }
        }
        self.recompose(class, data)
    }

    /// The bytes of a key where it is text; any other is skipped.
    fn key(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        let start = self.reader.clone();
        if let Token::Str(range) = self.reader.next()? {
            return Ok(Some(self.reader.slice(&range)));
        }
        self.reader = start;
        self.value().map(|_| None)
    }

    fn recompose(&mut self, class: &str, data: Option<Value>) -> Result<Value, DecodeError> {
        let data = data.ok_or_else(|| DecodeError::UnknownClass(format!("{} without data", shown(class))))?;
        match class {
            name::TUPLE => Ok(Value::Tuple(list(data, name::TUPLE)?)),
            name::SET => {
                let items = list(data, name::SET)?;
                match items.iter().find(|item| !item.is_hashable()) {
                    Some(item) => Err(DecodeError::Key(item.kind())),
                    None => Ok(Value::Set(items)),
                }
            }
            name::ORDERED_DICT => ordered_dict(list(data, name::ORDERED_DICT)?),
            name::DATETIME => {
                let Value::Str(text) = data else { return Err(shape(name::DATETIME, "text")) };
                Ok(Value::Datetime(text))
            }
            name::FLOAT32 | name::FLOAT64 | name::INT32 | name::INT64 => scalar(class, &data),
            name::DATUM_REF => match data.as_map().and_then(|data| data.map("data")) {
                Some(reference) => self.datums.resolve(reference),
                None => Err(shape(name::DATUM_REF, "a map with the entry data")),
            },
            name::NUMPY_ARRAY => self.array(data, RefKind::Numpy, name::NUMPY_ARRAY),
            name::LAZY_DOWNLOAD_REF => {
                let kind = match data.as_map().and_then(|data| data.int("lazy_dot")) {
                    Some(3) => RefKind::Numpy,
                    Some(6) => RefKind::Tensor,
                    _ => return Err(shape(name::LAZY_DOWNLOAD_REF, "a map with lazy_dot 3 or 6")),
                };
                self.array_ref(&data, kind, true)?.ok_or(shape(name::LAZY_DOWNLOAD_REF, "a reference"))
            }
            _ => match Class::named(class) {
                Some(Class::TENSOR) => self.tensor(data),
                Some(class) => known(class, data),
                None => Err(DecodeError::UnknownClass(shown(class))),
            },
        }
    }

    fn array(&self, data: Value, kind: RefKind, class: &'static str) -> Result<Value, DecodeError> {
        if let Some(reference) = self.array_ref(&data, kind, false)? {
            return Ok(reference);
        }
        let file = native(&data).ok_or(shape(class, "a map with type native or ref, and data"))?;
        match Array::from_npy(file.clone()) {
            Ok(array) => Ok(Value::Array(array)),
            Err(NpyError::NotNumeric(_)) => Ok(Value::OpaqueArray(file.clone())),
            Err(error) => Err(error.into()),
        }
    }

    fn tensor(&self, data: Value) -> Result<Value, DecodeError> {
        if let Some(reference) = self.array_ref(&data, RefKind::Tensor, false)? {
            return Ok(reference);
        }
        match native(&data) {
            Some(_) => Ok(Value::Object(Object::new(Class::TENSOR, data))),
            None => Err(shape(Class::TENSOR.name(), "a map with type native or ref, and data")),
        }
    }

    fn array_ref(&self, data: &Value, kind: RefKind, passed_on: bool) -> Result<Option<Value>, DecodeError> {
        let Some(data) = data.as_map().filter(|data| data.str("type") == Some("ref")) else {
            return Ok(None);
        };
        let Some(item) = data.str("data").filter(|item| !item.is_empty()) else {
            return Err(shape(name::NUMPY_ARRAY, "a reference by name"));
        };
        let source = self.datums.source(kind)?;
        Ok(Some(Value::ArrayRef(ArrayRef { kind, item: item.to_owned(), source, passed_on })))
    }
}

fn native(data: &Value) -> Option<&Bytes> {
    let data = data.as_map().filter(|data| data.str("type") == Some("native"))?;
    data.bytes("data")
}

/// An object of a class that is not a variant of [`Value`] in every case.
fn known(class: Class, data: Value) -> Result<Value, DecodeError> {
    match class {
        Class::SHAREABLE => shareable(data),
        Class::DXO => dxo(data),
        Class::FL_CONTEXT => context(data),
        _ if class.is_enum() => {
            let Value::Str(member) = data else { return plain_object(class, data) };
            Ok(Value::Enum { class, member })
        }
        _ => plain_object(class, data),
    }
}

fn plain_object(class: Class, data: Value) -> Result<Value, DecodeError> {
    match class.form().mistake(&data) {
        None => Ok(Value::Object(Object::new(class, data))),
        Some(expected) => Err(shape(class.name(), expected)),
    }
}

impl Form {
    /// What the data should be, where they are something else.
    pub(crate) fn mistake(self, data: &Value) -> Option<&'static str> {
        let (fits, expected) = match self {
            Form::Attributes => (
                data.as_map().is_some_and(|map| {
                    map.get("data").is_none_or(|data| data.as_map().is_some() || data.is_none())
                }),
                "a map with the attributes under data",
            ),
            Form::Items => (data.as_map().is_some(), "a map"),
            Form::Member => (data.as_str().is_some(), "the name of a member"),
            Form::Number => (data.as_i64().is_some(), "the number of a member"),
            Form::Parts(count) => {
                (data.as_list().is_some_and(|parts| parts.len() == count), "a list of its parts")
            }
        };
        (!fits).then_some(expected)
    }
}

fn shareable(data: Value) -> Result<Value, DecodeError> {
    let Value::Map(mut fields) = data else { return Err(shape(Class::SHAREABLE.name(), "a map")) };
    let headers = match fields.remove("__headers__") {
        Some(Value::Map(headers)) => headers,
        None | Some(Value::None) => Map::new(),
        Some(_) => return Err(shape(Class::SHAREABLE.name(), "a map with headers that are a map")),
    };
    Ok(Value::Shareable(Shareable { headers, fields }))
}

/// A DXO; what [`Dxo`] cannot say, such as data that are no map, stays an object.
fn dxo(data: Value) -> Result<Value, DecodeError> {
    let parts = list(data, Class::DXO.name())?;
    let [kind, mut meta, mut data]: [Value; 3] =
        parts.try_into().map_err(|_| shape(Class::DXO.name(), "kind, meta and data"))?;
    Ok(match Dxo::from_parts(&kind, &mut data, &mut meta) {
        Ok(dxo) => Value::Dxo(dxo),
        Err(_) => Value::Object(Object::new(Class::DXO, Value::Tuple(vec![kind, meta, data]))),
    })
}

/// A context; one with a model or with properties of another form stays an object.
fn context(data: Value) -> Result<Value, DecodeError> {
    fn prop(entry: (&Value, &Value)) -> Option<(String, Prop)> {
        let body = entry.1.as_map().filter(|body| body.len() == 2)?;
        let mask = body.int("mask").filter(|mask| (0..4).contains(mask))?;
        let value = body.get("value")?.clone();
        let Value::Str(name) = entry.0 else { return None };
        Some((name.clone(), Prop { value, sticky: mask & 1 != 0, private: mask & 2 != 0 }))
    }
    if let Some([Value::None, Value::Map(props)]) = data.as_list()
        && let Some(props) = props.iter().map(prop).collect()
    {
        return Ok(Value::Context(PeerContext { props }));
    }
    plain_object(Class::FL_CONTEXT, data)
}

fn ordered_dict(items: Vec<Value>) -> Result<Value, DecodeError> {
    let mut entries = Vec::with_capacity(items.len());
    for item in items {
        match <[Value; 2]>::try_from(list(item, name::ORDERED_DICT)?) {
            Ok([key, _]) if !key.is_hashable() => return Err(DecodeError::Key(key.kind())),
            Ok([key, value]) => entries.push((key, value)),
            Err(_) => return Err(shape(name::ORDERED_DICT, "a list of pairs")),
        }
    }
    Ok(Value::OrderedDict(entries))
}

fn scalar(class: &str, data: &Value) -> Result<Value, DecodeError> {
    let scalar = match class {
        name::FLOAT32 => data.as_f64().map(|number| Scalar::F32(number as f32)),
        name::FLOAT64 => data.as_f64().map(Scalar::F64),
        name::INT32 => data.as_i64().and_then(|number| i32::try_from(number).ok()).map(Scalar::I32),
        _ => data.as_i64().map(Scalar::I64),
    };
    scalar.map(Value::Scalar).ok_or(shape("a numpy scalar", "a number within its range"))
}

fn list(data: Value, class: &'static str) -> Result<Vec<Value>, DecodeError> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else is a list")]
    match data {
        Value::List(items) | Value::Tuple(items) => Ok(items),
        _ => Err(shape(class, "a list")),
    }
}

fn shape(class: &'static str, expected: &'static str) -> DecodeError {
    DecodeError::Shape { class, expected }
}
