//! Results that wait for their turn: in memory while they are small, otherwise as files.

use std::io;
use std::path::PathBuf;

use locule_fobs::{Map, Shareable, Value};
use sha2::{Digest as _, Sha256};

use super::log::Body;

/// A result that waits.
#[derive(Debug)]
pub(super) enum Held {
    Memory(Box<Shareable>),
    /// In a file of the run's log, written by this process.
    File(PathBuf),
    /// In the run's log as an earlier process left it, with its digest.
    Logged(Body, u128),
}

impl Held {
    /// The result. Blocking for all but those in memory.
    ///
    /// # Errors
    /// Why it cannot be read, or that it is not what was written.
    pub(super) fn open(self) -> io::Result<Box<Shareable>> {
        let (body, expected) = match self {
            Held::Memory(result) => return Ok(result),
            Held::File(path) => (Body::File(path), None),
            Held::Logged(body, digest) => (body, Some(digest)),
        };
        let Value::Shareable(result) = body.read()? else {
            return Err(io::Error::other("it holds no result"));
        };
        if expected.is_some() && digest(&result) != expected {
            return Err(io::Error::other("it is not what was written"));
        }
        Ok(Box::new(result))
    }

    /// Whether [`open`](Self::open) blocks.
    pub(super) fn blocks(&self) -> bool {
        !matches!(self, Held::Memory(_))
    }
}

/// What a result says, in a number: the first half of a SHA-256 over its return code and fields, but not its other
/// headers. None where it refers to arrays that nobody has fetched.
pub(super) fn digest(result: &Shareable) -> Option<u128> {
    let mut hasher = Sha256::new();
    feed_text(result.return_code(), &mut hasher);
    feed_map(&result.fields, &mut hasher)?;
    let whole = hasher.finalize();
    Some(whole.iter().take(16).fold(0, |half, byte| half << 8 | u128::from(*byte)))
}

fn feed_length(length: usize, hasher: &mut Sha256) {
    hasher.update((length as u64).to_be_bytes());
}

fn feed_text(text: &str, hasher: &mut Sha256) {
    feed_length(text.len(), hasher);
    hasher.update(text);
}

fn feed_map(map: &Map, hasher: &mut Sha256) -> Option<()> {
    feed_length(map.len(), hasher);
    for (name, value) in map.iter() {
        feed(name, hasher)?;
        feed(value, hasher)?;
    }
    Some(())
}

fn feed(value: &Value, hasher: &mut Sha256) -> Option<()> {
    feed_text(value.kind(), hasher);
    match value {
        Value::Array(array) => {
            feed_text(&format!("{:?}", array.dtype()), hasher);
            feed_length(array.shape().len(), hasher);
            array.shape().iter().for_each(|extent| feed_length(*extent, hasher));
            hasher.update(array.bytes());
        }
        Value::Map(map) => feed_map(map, hasher)?,
        Value::List(items) | Value::Tuple(items) | Value::Set(items) => {
            feed_length(items.len(), hasher);
            items.iter().try_for_each(|item| feed(item, hasher))?;
        }
        Value::Dxo(dxo) => {
            feed_text(&dxo.kind.to_string(), hasher);
            feed_map(&dxo.data, hasher)?;
            feed_map(&dxo.meta, hasher)?;
        }
        Value::ArrayRef(_) => return None,
        Value::None
        | Value::Bool(_)
        | Value::Int(_)
        | Value::UInt(_)
        | Value::Float(_)
        | Value::Str(_)
        | Value::Bytes(_)
        | Value::OrderedDict(_)
        | Value::Datetime(_)
        | Value::Enum { .. }
        | Value::OpaqueArray(_)
        | Value::Scalar(_)
        | Value::Shareable(_)
        | Value::Context(_)
        | Value::Datum(_)
        | Value::Object(_) => {
            let bytes = locule_fobs::encode(value).unwrap_or_default();
            feed_length(bytes.len(), hasher);
            hasher.update(&bytes);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use locule_fobs::{Array, DataKind, Dxo};

    use super::*;

    #[test]
    fn a_digest_tells_results_apart_and_not_their_headers() {
        let result = |x: f64, len: usize| {
            let data = Map::from_iter([("w", Array::from(&vec![x; len][..]))]);
            Shareable::with_dxo(Dxo::new(DataKind::Weights, data))
        };
        let mut renamed = result(1.0, 3);
        renamed.set_header("audit", "17");
        assert_eq!(digest(&result(1.0, 3)), digest(&renamed));
        assert_ne!(digest(&result(1.0, 3)), digest(&result(1.0, 4)));
        assert_ne!(digest(&result(1.0, 3)), digest(&result(1.5, 3)));
        assert_ne!(digest(&Shareable::new()), digest(&Shareable::with_return_code("FAILED")));
    }
}
