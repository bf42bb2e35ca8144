//! Several one-way messages in one.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use locule_fobs::{Map, Value, decode};
use locule_message::{Fqcn, HeaderValue, Headers, Message, MessageKind, key};
use locule_switch::Delivery;

/// Channel and topic of such messages.
const BULK: (&str, &str) = ("cellnet.channel", "bulk");
/// Most messages in one; a stock cell sends up to 100.
const MAX_MESSAGES: usize = 1000;
/// Most headers of the whole, and of each message in it; a stock cell sends some 20.
const MAX_HEADERS: usize = 128;
/// Most bytes of the whole: it is taken apart where everything else waits meanwhile.
const MAX_LEN: usize = 16 << 20;

pub(crate) fn is_bulk(message: &Message) -> bool {
    (message.channel(), message.topic()) == BULK
}

/// What is wrong with a bulk message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BulkError {
    #[error("not a list of messages")]
    Decode(#[from] locule_fobs::DecodeError),
    #[error("not a list of at most {MAX_MESSAGES} messages")]
    Shape,
    #[error("more than {MAX_LEN} bytes or {MAX_HEADERS} headers")]
    TooBig,
    #[error("message {0} is malformed")]
    Message(usize),
}

/// The messages in a bulk message, for the cell `me`; each has the headers of the whole unless it has its
/// own. The gate has let the whole through, and with it each of them.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.cellnet.core_cell`.
pub(crate) fn unpack(me: &Fqcn, bulk: Delivery) -> Result<Vec<Delivery>, BulkError> {
    let Delivery { link, origin, message, .. } = bulk;
    if message.body.len() > MAX_LEN || message.headers.len() > MAX_HEADERS {
        return Err(BulkError::TooBig);
    }
    let list = decode(message.body.whole())?;
    let list = list.as_list().filter(|list| list.len() <= MAX_MESSAGES).ok_or(BulkError::Shape)?;
    let unpacked = list.iter().enumerate().map(|(at, item)| {
        let inner = item.as_map().and_then(|item| unpack_one(&message.headers, item));
        let message = inner.ok_or(BulkError::Message(at))?;
        Ok(Delivery { link: link.clone(), origin: origin.clone(), message, reply_to: None })
    });
    let mut unpacked = unpacked.collect::<Result<Vec<_>, BulkError>>()?;
    unpacked.retain(|delivery| delivery.message.destination().as_ref() == Some(me));
    Ok(unpacked)
}

fn unpack_one(outer: &Headers, item: &Map) -> Option<Message> {
    let inner = item.map("message")?;
    let mut headers = Headers::new();
    let own = inner.map("headers").filter(|own| own.len() <= MAX_HEADERS)?;
    for (name, value) in own.iter_str() {
        headers.set(name, header(value)?);
    }
    // what says who sends it is said by the whole, which the gate has seen
    for name in outer.keys() {
        if let Some(value) = outer.get(name) {
            headers.set(name, value);
        }
    }
    headers.set(key::MSG_TYPE, MessageKind::Request.as_str());
    headers.set(key::REPLY_EXPECTED, false);
    headers.set(key::DESTINATION, item.str("target")?);
    headers.set(key::CHANNEL, item.str("channel")?);
    headers.set(key::TOPIC, item.str("topic")?);
    let encoding = own.str(key::PAYLOAD_ENCODING).unwrap_or_default();
    headers.set(key::PAYLOAD_ENCODING, encoding);
    let body = body(inner.get("payload"))?;
    headers.set(key::PAYLOAD_LEN, body.len() as u64);
    Some(Message { headers, body: body.into() })
}

/// A payload, in one piece or in several.
fn body(payload: Option<&Value>) -> Option<Bytes> {
    match payload {
        None | Some(Value::None) => Some(Bytes::new()),
        Some(Value::Bytes(bytes)) => Some(bytes.clone()),
        Some(Value::List(pieces)) => {
            let mut whole = BytesMut::new();
            for piece in pieces {
                whole.extend_from_slice(piece.as_bytes()?);
            }
            Some(whole.freeze())
        }
        Some(_) => None,
    }
}

fn header(value: &Value) -> Option<HeaderValue<'static>> {
    Some(match value {
        Value::None => HeaderValue::Nil,
        Value::Bool(value) => HeaderValue::Bool(*value),
        Value::Int(value) => HeaderValue::Int(*value),
        Value::UInt(value) => HeaderValue::UInt(*value),
        Value::Float(value) => HeaderValue::Float(*value),
        Value::Str(text) => HeaderValue::Str(Cow::Owned(text.clone())),
        Value::Bytes(bytes) => HeaderValue::Bin(Cow::Owned(bytes.to_vec())),
        Value::List(items) => HeaderValue::Array(items.iter().map(header).collect::<Option<_>>()?),
        Value::Map(map) => {
            let entries = map.iter().map(|(key, value)| Some((header(key)?, header(value)?)));
            HeaderValue::Map(entries.collect::<Option<_>>()?)
        }
        Value::Tuple(_)
        | Value::Set(_)
        | Value::OrderedDict(_)
        | Value::Datetime(_)
        | Value::Enum { .. }
        | Value::Array(_)
        | Value::OpaqueArray(_)
        | Value::ArrayRef(_)
        | Value::Scalar(_)
        | Value::Shareable(_)
        | Value::Dxo(_)
        | Value::Context(_)
        | Value::Datum(_)
        | Value::Object(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use locule_switch::{LinkFacts, LinkId, LinkSecurity};

    use super::*;

    fn site() -> Fqcn {
        "site-1".parse().expect("a name")
    }

    /// A bulk message of `count` messages with `inner` headers each, which itself has `outer` headers.
    fn unpacked(count: usize, inner: usize, outer: usize) -> Result<Vec<Delivery>, BulkError> {
        let headers = Map::from_iter((0..inner).map(|number| (format!("i{number}"), number as i64)));
        let message = Map::from_iter([("headers", headers)]);
        let item = Map::from_iter([
            ("target", Value::from("server")),
            ("channel", "task".into()),
            ("topic", "echo".into()),
            ("message", message.into()),
        ]);
        let list = Value::List(vec![Value::Map(item); count]);
        let mut message =
            Message { headers: Headers::new(), body: locule_fobs::encode(&list).expect("plain").into() };
        (0..outer).for_each(|number| message.headers.set(&format!("o{number}"), 1));
        let facts = LinkFacts {
            link: LinkId(1),
            peer: site(),
            common_name: None,
            security: LinkSecurity::Clear,
            accepted: true,
            ours: false,
        };
        unpack(&Fqcn::server(), Delivery { link: Arc::new(facts), origin: site(), message, reply_to: None })
    }

    #[test]
    fn headers_that_would_multiply_are_refused() {
        assert_eq!(unpacked(100, 20, 25).expect("as a stock cell sends it").len(), 100);
        assert!(matches!(unpacked(1000, 1, 500), Err(BulkError::TooBig)));
        assert!(matches!(unpacked(2, 500, 1), Err(BulkError::Message(0))));
        assert!(matches!(unpacked(1001, 1, 1), Err(BulkError::Shape)));
    }
}
