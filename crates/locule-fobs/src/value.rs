//! Values: what a payload holds.

use bytes::Bytes;

use crate::{Array, ArrayRef, Class, Datum, Dxo, Object, PeerContext, Scalar, Shareable};

/// One value of the object format.
///
/// The plain variants map one to one to msgpack; the others travel as tagged maps. What a peer may
/// send is this closed set: there is no loader behind it that a type name could reach.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// Python's `None`.
    #[default]
    None,
    /// A boolean.
    Bool(bool),
    /// An integer within `i64`.
    Int(i64),
    /// An integer above `i64::MAX`; smaller ones are [`Value::Int`].
    UInt(u64),
    /// A float, always 64 bits on the wire.
    Float(f64),
    /// Text.
    Str(String),
    /// Bytes; after decoding a slice of the input, not a copy.
    Bytes(Bytes),
    /// A list.
    List(Vec<Value>),
    /// A dictionary.
    Map(Map),
    /// A tuple.
    Tuple(Vec<Value>),
    /// A set, in the order in which its sender happened to write it.
    Set(Vec<Value>),
    /// A `collections.OrderedDict`.
    OrderedDict(Vec<(Value, Value)>),
    /// A `datetime.datetime` in ISO 8601, as it came; whether it names a real date is not checked.
    Datetime(String),
    /// A member of one of the known enumerations, by its name.
    Enum {
        /// The enumeration.
        class: Class,
        /// The member's name, not its value.
        member: String,
    },
    /// A numpy array of a numeric dtype, with its data.
    Array(Array),
    /// A numpy array of any other dtype (text, complex, dates, records): its NPY file, unread.
    OpaqueArray(Bytes),
    /// An array or tensor that stayed with its sender and is to be downloaded from there.
    ArrayRef(ArrayRef),
    /// A numpy scalar.
    Scalar(Scalar),
    /// What tasks and results travel in.
    Shareable(Shareable),
    /// A DXO that travels as an object of its own; in a [`Shareable`] see [`Shareable::dxo`].
    Dxo(Dxo),
    /// The context a peer attaches to its messages.
    Context(PeerContext),
    /// A datum that an application placed on purpose, kept as it is.
    Datum(Datum),
    /// An object of any other known class.
    Object(Object),
}

impl Value {
    /// What this is, in a word, for error messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::None => "none",
            Value::Bool(_) => "bool",
            Value::Int(_) | Value::UInt(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Tuple(_) => "tuple",
            Value::Set(_) => "set",
            Value::OrderedDict(_) => "ordered dict",
            Value::Datetime(_) => "datetime",
            Value::Enum { .. } => "enum",
            Value::Array(_) | Value::OpaqueArray(_) => "array",
            Value::ArrayRef(_) => "array reference",
            Value::Scalar(_) => "numpy scalar",
            Value::Shareable(_) => "shareable",
            Value::Dxo(_) => "dxo",
            Value::Context(_) => "context",
            Value::Datum(_) => "datum",
            Value::Object(_) => "object",
        }
    }

    /// Whether this is [`Value::None`].
    pub fn is_none(&self) -> bool {
        matches!(self, Value::None)
    }

    /// The text of a string, or of an enumeration whose members are texts to Python too.
    ///
    /// So the member `JOB_CLIENTS` of [`Class::JOB_META_KEY`] is found as `job_clients`.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::Enum { class, member } = self {
            return class.text_of(member);
        }
        if let Value::Str(text) = self { Some(text) } else { None }
    }

    /// The boolean.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(flag) = self { Some(*flag) } else { None }
    }

    /// The integer, plain or numpy, where `i64` holds it.
    pub fn as_i64(&self) -> Option<i64> {
        if let Value::Int(number) | Value::Scalar(Scalar::I64(number)) = self {
            Some(*number)
        } else if let Value::Scalar(Scalar::I32(number)) = self {
            Some((*number).into())
        } else {
            None
        }
    }

    /// The number, integer or float, plain or numpy; large integers lose their last digits.
    pub fn as_f64(&self) -> Option<f64> {
        if let Value::Float(number) | Value::Scalar(Scalar::F64(number)) = self {
            Some(*number)
        } else if let Value::Scalar(Scalar::F32(number)) = self {
            Some((*number).into())
        } else if let Value::UInt(number) = self {
            Some(*number as f64)
        } else {
            self.as_i64().map(|number| number as f64)
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        if let Value::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// The dictionary.
    pub fn as_map(&self) -> Option<&Map> {
        if let Value::Map(map) = self { Some(map) } else { None }
    }

    /// The items of a list or tuple.
    pub fn as_list(&self) -> Option<&[Value]> {
        if let Value::List(items) | Value::Tuple(items) = self { Some(items) } else { None }
    }

    /// The array.
    pub fn as_array(&self) -> Option<&Array> {
        if let Value::Array(array) = self { Some(array) } else { None }
    }

    /// Whether Python could use this as a key of a dictionary or an element of a set.
    pub(crate) fn is_hashable(&self) -> bool {
        match self {
            Value::None
            | Value::Bool(_)
            | Value::Int(_)
            | Value::UInt(_)
            | Value::Float(_)
            | Value::Str(_)
            | Value::Bytes(_)
            | Value::Datetime(_)
            | Value::Enum { .. }
            | Value::Scalar(_) => true,
            Value::Tuple(items) => items.iter().all(Value::is_hashable),
            Value::List(_)
            | Value::Map(_)
            | Value::Set(_)
            | Value::OrderedDict(_)
            | Value::Array(_)
            | Value::OpaqueArray(_)
            | Value::ArrayRef(_)
            | Value::Shareable(_)
            | Value::Dxo(_)
            | Value::Context(_)
            | Value::Datum(_)
            | Value::Object(_) => false,
        }
    }
}

/// A dictionary: keys of any hashable kind, in the order of insertion.
///
/// A look-up walks the entries. That is quickest for the dozens of keys that messages have, and for
/// the thousands of a model it is still small beside its weights.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Map {
    entries: Vec<(Value, Value)>,
}

impl Map {
    /// An empty dictionary.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes entries that are known to have no two equal keys.
    pub(crate) fn from_unique(entries: Vec<(Value, Value)>) -> Self {
        Self { entries }
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value under a text key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.position(key).map(|at| &self.entries[at].1)
    }

    /// The value under a text key, to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.position(key).map(|at| &mut self.entries[at].1)
    }

    /// The value under a key of any kind.
    pub fn get_value(&self, key: &Value) -> Option<&Value> {
        self.entries.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// Whether there is such a text key.
    pub fn contains(&self, key: &str) -> bool {
        self.position(key).is_some()
    }

    /// The text under a key; `None` also when it is something else.
    pub fn str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// The integer under a key; `None` also when it is something else.
    pub fn int(&self, key: &str) -> Option<i64> {
        self.get(key)?.as_i64()
    }

    /// The number under a key, integer or float; `None` also when it is something else.
    pub fn float(&self, key: &str) -> Option<f64> {
        self.get(key)?.as_f64()
    }

    /// The boolean under a key; `None` also when it is something else.
    pub fn bool(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// The bytes under a key; `None` also when it is something else.
    pub fn bytes(&self, key: &str) -> Option<&Bytes> {
        self.get(key)?.as_bytes()
    }

    /// The dictionary under a key; `None` also when it is something else.
    pub fn map(&self, key: &str) -> Option<&Map> {
        self.get(key)?.as_map()
    }

    /// The items of the list or tuple under a key; `None` also when it is something else.
    pub fn list(&self, key: &str) -> Option<&[Value]> {
        self.get(key)?.as_list()
    }

    /// Sets the value of a text key and answers the one it replaced. A new key goes last.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let key = key.into();
        match self.position(&key) {
            Some(at) => Some(std::mem::replace(&mut self.entries[at].1, value.into())),
            None => {
                self.entries.push((Value::Str(key), value.into()));
                None
            }
        }
    }

    /// Sets the value of a key of any kind and answers the one it replaced. A new key goes last.
    ///
    /// Keys that Python cannot hash, such as lists, are refused when the value is encoded.
    pub fn insert_value(&mut self, key: impl Into<Value>, value: impl Into<Value>) -> Option<Value> {
        let key = key.into();
        if let Some(text) = key.as_str() {
            if let Some(old) = self.get_mut(text) {
                return Some(std::mem::replace(old, value.into()));
            }
            self.entries.push((key, value.into()));
            return None;
        }
        match self.entries.iter_mut().find(|(own, _)| *own == key) {
            Some((_, old)) => Some(std::mem::replace(old, value.into())),
            None => {
                self.entries.push((key, value.into()));
                None
            }
        }
    }

    /// Takes out the value of a text key; the order of the others stays.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.position(key).map(|at| self.entries.remove(at).1)
    }

    /// All entries in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Value, &Value)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    /// The entries whose keys are text, in order.
    pub fn iter_str(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().filter_map(|(key, value)| Some((key.as_str()?, value)))
    }

    fn position(&self, key: &str) -> Option<usize> {
        self.entries.iter().position(|(own, _)| own.as_str() == Some(key))
    }
}

/// Whether two entries have the same text or integer key: what a reader could look up by name.
pub(crate) fn repeated_key(entries: &[(Value, Value)]) -> Option<&Value> {
    fn text(key: &Value) -> Option<(&str, &Value)> {
        key.as_str().map(|text| (text, key))
    }
    fn int(key: &Value) -> Option<(i64, &Value)> {
        if let Value::Int(number) = key { Some((*number, key)) } else { None }
    }
    fn first_repeated<K: Ord>(mut keys: Vec<(K, &Value)>) -> Option<&Value> {
        keys.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        keys.windows(2).find(|pair| pair[0].0 == pair[1].0).map(|pair| pair[0].1)
    }
    if entries.len() < 2 {
        return None;
    }
    first_repeated(entries.iter().filter_map(|(key, _)| text(key)).collect())
        .or_else(|| first_repeated(entries.iter().filter_map(|(key, _)| int(key)).collect()))
}

/// Of entries with equal keys the last one counts, in the place of the first.
impl<K: Into<Value>, V: Into<Value>> FromIterator<(K, V)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(iter: I) -> Self {
        let entries: Vec<(Value, Value)> = iter.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        if repeated_key(&entries).is_none() {
            return Map { entries };
        }
        let mut map = Map::new();
        for (key, value) in entries {
            map.insert_value(key, value);
        }
        map
    }
}

impl IntoIterator for Map {
    type Item = (Value, Value);
    type IntoIter = std::vec::IntoIter<(Value, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

macro_rules! value_from {
    ($($from:ty, $name:ident => $value:expr;)+) => {$(
        impl From<$from> for Value {
            fn from($name: $from) -> Self { $value }
        }
    )+};
}

value_from! {
    bool, flag => Value::Bool(flag);
    i32, number => Value::Int(number.into());
    u32, number => Value::Int(number.into());
    i64, number => Value::Int(number);
    u64, number => i64::try_from(number).map_or(Value::UInt(number), Value::Int);
    f32, number => Value::Float(number.into());
    f64, number => Value::Float(number);
    &str, text => Value::Str(text.to_owned());
    String, text => Value::Str(text);
    &String, text => Value::Str(text.clone());
    Bytes, bytes => Value::Bytes(bytes);
    &[u8], bytes => Value::Bytes(Bytes::copy_from_slice(bytes));
    Map, map => Value::Map(map);
    Array, array => Value::Array(array);
    ArrayRef, reference => Value::ArrayRef(reference);
    Scalar, scalar => Value::Scalar(scalar);
    Shareable, shareable => Value::Shareable(shareable);
    Dxo, dxo => Value::Dxo(dxo);
    PeerContext, context => Value::Context(context);
    Datum, datum => Value::Datum(datum);
    Object, object => Value::Object(object);
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Self {
        Value::List(items.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::None, Into::into)
    }
}

/// The integer lies outside −2⁶³ … 2⁶⁴−1, which the format cannot carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("integer {0} is outside of -2^63 to 2^64-1")]
pub struct IntOutOfRange(pub i128);

/// JSON as the object format has it; integers stay integers.
impl From<&serde_json::Value> for Value {
    fn from(json: &serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => Value::None,
            serde_json::Value::Bool(flag) => Value::Bool(*flag),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(int), _) => Value::Int(int),
                (None, Some(large)) => Value::UInt(large),
                (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Value::Str(text.clone()),
            serde_json::Value::Array(items) => Value::List(items.iter().map(Value::from).collect()),
            serde_json::Value::Object(fields) => {
                let entries = fields.iter().map(|(key, value)| (key.as_str(), Value::from(value)));
                Value::Map(entries.collect())
            }
        }
    }
}

impl TryFrom<i128> for Value {
    type Error = IntOutOfRange;

    fn try_from(number: i128) -> Result<Self, IntOutOfRange> {
        match (i64::try_from(number), u64::try_from(number)) {
            (Ok(small), _) => Ok(Value::Int(small)),
            (_, Ok(large)) => Ok(Value::UInt(large)),
            _ => Err(IntOutOfRange(number)),
        }
    }
}
