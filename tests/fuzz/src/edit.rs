//! Damage that knows frames, headers and objects.

use bytes::Bytes;
use locule_fobs::{EncodeOptions, Map, Value, decode, encode, encode_with};
use locule_message::{HeaderValue, Headers};

use crate::seeds::header_len;
use crate::{Mutator, seeds};

/// Bytes of a prefix.
pub(crate) const PREFIX: usize = 16;

/// Keys whose values decide something.
const KEYS: [&str; 40] = [
    "cn__msg_type",
    "cn__req_id",
    "cn__reply_expected",
    "cn__topic",
    "cn__channel",
    "cn__origin",
    "cn__destination",
    "cn__from",
    "cn__to",
    "cn__conn_url",
    "cn__return_code",
    "cn__error",
    "cn__payload_encoding",
    "cn__route",
    "cn__original_headers",
    "cn__payload_len",
    "cn__secure",
    "cn__optional",
    "client_name",
    "ssid",
    "__token__",
    "__token_signature__",
    "sm__id",
    "sm__dt",
    "sm__ch",
    "sm__tp",
    "sm__sz",
    "sm__sq",
    "sm__os",
    "sm__ri",
    "sm__pe",
    "sm__rs",
    "sm__op",
    "sm__cs",
    "sm__ws",
    "sm__ai",
    "sm__rw",
    "sm__rt",
    "sm__et",
    "sm__fd",
];

/// Those of them that are numbers.
const NUMERIC: [&str; 11] = [
    "cn__payload_len",
    "sm__id",
    "sm__dt",
    "sm__sz",
    "sm__sq",
    "sm__os",
    "sm__cs",
    "sm__ws",
    "sm__ai",
    "sm__rw",
    "sm__rt",
];

/// Texts that they may have.
const TEXTS: [&str; 24] = [
    "server",
    "site-1",
    "site-1.job",
    "..",
    "",
    " server",
    "req",
    "reply",
    "return",
    "fobs",
    "bytes",
    "none",
    "ok",
    "comm_error",
    "StreamError",
    "BlobSizeError",
    "StreamTargetUnreachable",
    "return_only",
    "sm__STREAM",
    "sm__DATA",
    "sm__ACK",
    "sm__ERROR",
    "cellnet.channel",
    "bulk",
];

/// Cuts an input into frames, whatever their prefixes say: what is left over is the last.
pub(crate) fn frames(input: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = input;
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let len = rest.first_chunk().map_or(rest.len(), |len| u32::from_be_bytes(*len) as usize);
        let (frame, more) = rest.split_at(len.clamp(PREFIX.min(rest.len()), rest.len()).max(1));
        frames.push(frame.to_vec());
        rest = more;
    }
    frames
}

/// A frame of these parts, with a prefix like that of `like`.
pub(crate) fn frame(like: &[u8], headers: &[u8], body: &[u8]) -> Vec<u8> {
    let mut frame = like.get(..PREFIX).map_or_else(|| vec![0; PREFIX], <[u8]>::to_vec);
    let len = (PREFIX + headers.len() + body.len()) as u32;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    frame[4..6].copy_from_slice(&(headers.len() as u16).to_be_bytes());
    frame.extend_from_slice(headers);
    frame.extend_from_slice(body);
    frame
}

/// Damages a sequence of frames: their order, their headers, their bodies.
pub(crate) fn edit_frames(mutator: &mut Mutator, input: &[u8]) -> Option<Vec<u8>> {
    let mut frames = frames(input);
    for _ in 0..=mutator.below(3) {
        let at = mutator.below(frames.len());
        let to = mutator.below(frames.len());
        match mutator.below(12) {
            0 if frames.len() > 1 => drop(frames.remove(at)),
            1 | 2 if frames.len() < 200 => frames.insert(to, frames.get(at)?.clone()),
            3 if !frames.is_empty() => frames.swap(at, to),
            4 => {
                let sequence = mutator.one_of(seeds::frames())?;
                frames.insert(to, mutator.one_of(sequence)?.clone());
            }
            5 => {
                let frame = frames.get_mut(at)?;
                let place = 6 + mutator.below(PREFIX - 6);
                *frame.get_mut(place)? = mutator.number() as u8;
            }
            6 => {
                let frame = frames.get_mut(at)?;
                let begin = PREFIX + usize::from(header_len(frame));
                let mut body = frame.get(begin..)?.to_vec();
                body = match mutator.once_in(2).then(|| edit_object(mutator, &body)).flatten() {
                    Some(body) => body,
                    None => {
                        mutator.damage(&mut body, frame);
                        body
                    }
                };
                *frame = self::frame(frame, frame.get(PREFIX..begin)?, &body);
            }
            7 | 8 => {
                // what goes wrong often takes two numbers at a time, or one without the other
                let frame = frames.get_mut(at)?;
                let begin = PREFIX + usize::from(header_len(frame));
                let mut headers = Headers::decode(Bytes::copy_from_slice(frame.get(PREFIX..begin)?)).ok()?;
                for _ in 0..=mutator.below(3) {
                    let key = *mutator.one_of(&NUMERIC)?;
                    if mutator.once_in(3) {
                        headers.remove(key);
                    } else {
                        headers.set(key, mutator.extreme());
                    }
                }
                *frame = self::frame(frame, &headers.encode().ok()?, frame.get(begin..)?);
            }
            _ => {
                let frame = frames.get_mut(at)?;
                let begin = PREFIX + usize::from(header_len(frame));
                let mut headers = Headers::decode(Bytes::copy_from_slice(frame.get(PREFIX..begin)?)).ok()?;
                let own: Vec<String> = headers.keys().map(str::to_owned).collect();
                let key = match mutator.below(4) {
                    0 => (*mutator.one_of(&KEYS)?).to_owned(),
                    1 => mutator.text(),
                    _ => mutator.one_of(&own)?.clone(),
                };
                if mutator.once_in(4) {
                    headers.remove(&key);
                } else {
                    headers.set(&key, header_value(mutator, 0));
                }
                *frame = self::frame(frame, &headers.encode().ok()?, frame.get(begin..)?);
            }
        }
    }
    Some(frames.concat())
}

fn header_value(mutator: &mut Mutator, depth: usize) -> HeaderValue<'static> {
    match mutator.below(10) {
        0 => HeaderValue::Nil,
        1 => HeaderValue::Bool(mutator.once_in(2)),
        2 => HeaderValue::Int(mutator.below(5) as i64),
        3 => HeaderValue::UInt(mutator.number()),
        4 => HeaderValue::Int(mutator.number() as i64),
        5 => HeaderValue::Float(f64::from_bits(mutator.number())),
        6 => HeaderValue::Bin(mutator.bytes(40).into()),
        7 if depth < 70 => {
            let inner = header_value(mutator, depth + 1);
            let times = mutator.below(4);
            HeaderValue::Array(vec![inner; times])
        }
        8 => HeaderValue::Str(mutator.text().into()),
        _ => HeaderValue::Str(mutator.one_of(&TEXTS).copied().unwrap_or_default().into()),
    }
}

/// Damages an object and encodes it again.
pub(crate) fn edit_object(mutator: &mut Mutator, input: &[u8]) -> Option<Vec<u8>> {
    let mut value = decode(Bytes::copy_from_slice(input)).ok()?;
    for _ in 0..=mutator.below(3) {
        value = edit_value(mutator, value);
    }
    let small = EncodeOptions::default().datum_threshold(1024);
    let encoded = if mutator.once_in(4) { encode_with(&value, &small) } else { encode(&value) };
    encoded.ok().map(|bytes| bytes.to_vec())
}

fn edit_value(mutator: &mut Mutator, value: Value) -> Value {
    if mutator.once_in(6) {
        return leaf(mutator);
    }
    match value {
        Value::Map(map) => Value::Map(edit_map(mutator, map)),
        Value::List(items) => Value::List(edit_list(mutator, items)),
        Value::Tuple(items) => Value::Tuple(edit_list(mutator, items)),
        Value::Shareable(mut inner) => {
            if mutator.once_in(2) {
                inner.headers = edit_map(mutator, inner.headers);
            } else {
                inner.fields = edit_map(mutator, inner.fields);
            }
            Value::Shareable(inner)
        }
        Value::Dxo(mut inner) => {
            if mutator.once_in(2) {
                inner.data = edit_map(mutator, inner.data);
            } else {
                inner.meta = edit_map(mutator, inner.meta);
            }
            Value::Dxo(inner)
        }
        Value::Object(mut inner) => {
            *inner.data = edit_value(mutator, *inner.data);
            Value::Object(inner)
        }
        Value::Bytes(bytes) => {
            let mut bytes = bytes.to_vec();
            mutator.damage(&mut bytes, &[]);
            Value::Bytes(bytes.into())
        }
        Value::None
        | Value::Bool(_)
        | Value::Int(_)
        | Value::UInt(_)
        | Value::Float(_)
        | Value::Str(_)
        | Value::Set(_)
        | Value::OrderedDict(_)
        | Value::Datetime(_)
        | Value::Enum { .. }
        | Value::Array(_)
        | Value::OpaqueArray(_)
        | Value::ArrayRef(_)
        | Value::Scalar(_)
        | Value::Context(_)
        | Value::Datum(_) => leaf(mutator),
    }
}

fn edit_list(mutator: &mut Mutator, mut items: Vec<Value>) -> Vec<Value> {
    let at = mutator.below(items.len());
    match mutator.below(4) {
        0 if !items.is_empty() => drop(items.remove(at)),
        1 => items.push(leaf(mutator)),
        2 if !items.is_empty() => items.push(items[at].clone()),
        _ if !items.is_empty() => items[at] = edit_value(mutator, items[at].clone()),
        _ => {}
    }
    items
}

fn edit_map(mutator: &mut Mutator, map: Map) -> Map {
    let mut entries: Vec<(Value, Value)> =
        map.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let at = mutator.below(entries.len());
    match mutator.below(5) {
        0 if !entries.is_empty() => drop(entries.remove(at)),
        1 => entries.push((Value::Str(mutator.text()), leaf(mutator))),
        2 if !entries.is_empty() => entries[at].0 = Value::Int(mutator.number() as i64),
        _ if !entries.is_empty() => entries[at].1 = edit_value(mutator, entries[at].1.clone()),
        _ => {}
    }
    Map::from_iter(entries)
}

fn leaf(mutator: &mut Mutator) -> Value {
    match mutator.below(10) {
        0 => Value::None,
        1 => Value::Bool(mutator.once_in(2)),
        2 => Value::Int(mutator.below(5) as i64),
        3 => Value::from(mutator.number()),
        4 => Value::Int(mutator.number() as i64),
        5 => Value::Float(f64::from_bits(mutator.number())),
        6 => Value::Bytes(mutator.bytes(40).into()),
        7 => Value::Map(Map::new()),
        8 => Value::List(vec![Value::None; mutator.below(40)]),
        _ => Value::Str(mutator.text()),
    }
}
