//! Results that wait for their turn: in memory while they are small, otherwise as files.

use std::fs;
use std::hash::{BuildHasher as _, Hash as _, Hasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use locule_fobs::{Map, Shareable, Value};
use uuid::Uuid;

/// A result with more bytes than this in its arrays waits as a file.
const SMALL: usize = 1 << 20;

/// Where a job's results wait. The files are gone when the run is over.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    /// A secret of this run, so that nobody can choose two results of the same digest.
    hasher: RandomState,
    /// Held while a file is written: only one result is there twice at a time.
    writing: Mutex<()>,
}

/// A result that waits.
#[derive(Debug)]
pub(super) enum Held {
    Memory(Box<Shareable>),
    File(Spooled),
}

/// A file that goes when nobody needs it any more.
#[derive(Debug)]
pub(super) struct Spooled(PathBuf);

impl Spool {
    /// In this folder, which is made when the first result comes.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, hasher: RandomState::new(), writing: Mutex::new(()) }
    }

    /// Puts a result where it can wait. One that cannot be written stays in memory. Blocking for large ones.
    pub(super) fn hold(&self, result: Shareable) -> Held {
        if size(&result) <= SMALL {
            return Held::Memory(Box::new(result));
        }
        let value = Value::Shareable(result);
        match self.write(&value) {
            Ok(spooled) => Held::File(spooled),
            Err(error) => {
                tracing::warn!(folder = %self.folder.display(), %error, "a result waits in memory");
                let Value::Shareable(result) = value else { return Held::Memory(Box::default()) };
                Held::Memory(Box::new(result))
            }
        }
    }

    fn write(&self, value: &Value) -> io::Result<Spooled> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = locule_fobs::encode(value).map_err(io::Error::other)?;
        fs::create_dir_all(&self.folder)?;
        let spooled = Spooled(self.folder.join(Uuid::from_u128(rand::random()).to_string()));
        fs::write(&spooled.0, &bytes)?;
        Ok(spooled)
    }

    /// What a result says, in a number: two with the same digest in one run say the same. None where it refers to
    /// arrays that nobody has fetched.
    pub(super) fn digest(&self, result: &Shareable) -> Option<u64> {
        let mut hasher = self.hasher.build_hasher();
        result.return_code().hash(&mut hasher);
        feed_map(&result.fields, &mut hasher)?;
        Some(hasher.finish())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}

impl Held {
    /// The result. Blocking for files.
    ///
    /// # Errors
    /// Why the file cannot be read.
    pub(super) fn open(self) -> io::Result<Box<Shareable>> {
        let spooled = match self {
            Held::Memory(result) => return Ok(result),
            Held::File(spooled) => spooled,
        };
        let value = locule_fobs::decode(fs::read(&spooled.0)?.into()).map_err(io::Error::other)?;
        let Value::Shareable(result) = value else { return Err(io::Error::other("it holds no result")) };
        Ok(Box::new(result))
    }

    /// Whether [`open`](Self::open) reads a file.
    pub(super) fn is_file(&self) -> bool {
        matches!(self, Held::File(_))
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// Bytes of the arrays of a result, about.
pub(super) fn size(result: &Shareable) -> usize {
    fn of_map(map: &Map) -> usize {
        map.iter().map(|(_, value)| of(value)).sum()
    }
    fn of(value: &Value) -> usize {
        match value {
            Value::Array(array) => array.len() * array.dtype().size(),
            Value::OpaqueArray(bytes) | Value::Bytes(bytes) => bytes.len(),
            Value::Str(text) => text.len(),
            Value::List(items) | Value::Tuple(items) | Value::Set(items) => items.iter().map(of).sum(),
            Value::OrderedDict(entries) => entries.iter().map(|(_, value)| of(value)).sum(),
            Value::Map(map) => of_map(map),
            Value::Shareable(inner) => of_map(&inner.fields),
            Value::Dxo(dxo) => of_map(&dxo.data) + of_map(&dxo.meta),
            Value::Datum(_)
            | Value::Object(_)
            | Value::Context(_)
            | Value::None
            | Value::Bool(_)
            | Value::Int(_)
            | Value::UInt(_)
            | Value::Float(_)
            | Value::Datetime(_)
            | Value::Enum { .. }
            | Value::ArrayRef(_)
            | Value::Scalar(_) => 0,
        }
    }
    of_map(&result.fields)
}

fn feed_map(map: &Map, hasher: &mut impl Hasher) -> Option<()> {
    map.len().hash(hasher);
    for (name, value) in map.iter() {
        feed(name, hasher)?;
        feed(value, hasher)?;
    }
    Some(())
}

fn feed(value: &Value, hasher: &mut impl Hasher) -> Option<()> {
    value.kind().hash(hasher);
    match value {
        Value::Array(array) => {
            array.dtype().hash(hasher);
            array.shape().hash(hasher);
            hasher.write(&array.bytes());
        }
        Value::Map(map) => feed_map(map, hasher)?,
        Value::List(items) | Value::Tuple(items) | Value::Set(items) => {
            items.len().hash(hasher);
            items.iter().try_for_each(|item| feed(item, hasher))?;
        }
        Value::Dxo(dxo) => {
            dxo.kind.hash(hasher);
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
        | Value::Object(_) => match locule_fobs::encode(value) {
            Ok(bytes) => hasher.write(&bytes),
            Err(_) => hasher.write_u8(0),
        },
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use locule_fobs::{Array, DataKind, Dxo};

    use super::*;

    fn result(x: f64, len: usize) -> Shareable {
        let data = Map::from_iter([("w", Array::from(&vec![x; len][..]))]);
        Shareable::with_dxo(Dxo::new(DataKind::Weights, data))
    }

    #[test]
    fn a_large_result_waits_in_a_file_that_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("spool");
        let spool = Spool::new(folder.clone());
        assert!(!spool.hold(result(1.0, 10)).is_file());
        let held = spool.hold(result(2.0, 1 << 18));
        assert!(held.is_file());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert_eq!(*held.open().unwrap(), result(2.0, 1 << 18));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        drop(spool);
        assert!(!folder.exists());
    }

    #[test]
    fn a_digest_tells_results_apart_and_not_their_headers() {
        let spool = Spool::new(PathBuf::from("nowhere"));
        let digest = |result: &Shareable| spool.digest(result);
        let mut renamed = result(1.0, 3);
        renamed.set_header("audit", "17");
        assert_eq!(digest(&result(1.0, 3)), digest(&renamed));
        assert_ne!(digest(&result(1.0, 3)), digest(&result(1.0, 4)));
        assert_ne!(digest(&result(1.0, 3)), digest(&result(1.5, 3)));
        assert_ne!(digest(&Shareable::new()), digest(&Shareable::with_return_code("FAILED")));
    }
}
