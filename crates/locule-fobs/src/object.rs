//! Objects that are neither plain values nor arrays: known classes, datums, references, scalars.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Class, Map, Value};

/// An object of a known class, with its decomposed data as it travels.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its class.
    pub class: Class,
    /// What its decomposer made of it; a data class has a map with the entry `data`.
    pub data: Box<Value>,
}

impl Object {
    /// An object with this decomposed data.
    pub fn new(class: Class, data: impl Into<Value>) -> Self {
        Self { class, data: Box::new(data.into()) }
    }

    /// An object of a data class, such as [`Class::ADMIN_MESSAGE`], with these attributes.
    pub fn with_attributes(class: Class, attributes: Map) -> Self {
        Self::new(class, Map::from_iter([("data", attributes)]))
    }

    /// The attributes of a data class, or the entries of a dictionary class.
    pub fn attributes(&self) -> Option<&Map> {
        let data = self.data.as_map()?;
        if self.class.form() == crate::class::Form::Attributes { data.map("data") } else { Some(data) }
    }

    /// One attribute or entry.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.attributes()?.get(name)
    }
}

/// A numpy scalar; numpy's other scalar types do not travel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar {
    /// `numpy.float32`
    F32(f32),
    /// `numpy.float64`
    F64(f64),
    /// `numpy.int32`
    I32(i32),
    /// `numpy.int64`
    I64(i64),
}

/// A large value that an application placed in a section of its own on purpose.
///
/// Values above the threshold also travel in such sections, but come back as the text or bytes that
/// they are. A file section is kept in memory, as a slice of the input; nothing is written to disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Datum {
    /// What the section says it is.
    pub kind: DatumKind,
    /// Its content; UTF-8 where the kind is [`DatumKind::Text`].
    pub value: Bytes,
}

/// The kind of a datum section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatumKind {
    /// UTF-8 text, marker 101.
    Text,
    /// Bytes, marker 102.
    Blob,
    /// The content of a file, marker 103.
    File,
}

/// An array or tensor that stayed with its sender.
///
/// Python peers send *every* array so, however small. All references of one kind in a payload share
/// one source.
#[derive(Debug, Clone, PartialEq)]
pub struct ArrayRef {
    /// What is referred to.
    pub kind: RefKind,
    /// Its name within the source: `T0`, `T1`, …
    pub item: String,
    /// Where to download it.
    pub source: Arc<DownloadSource>,
    /// Whether a cell on the way passed the reference on without downloading; then the source need not
    /// be the sender.
    pub passed_on: bool,
}

/// What an [`ArrayRef`] refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefKind {
    /// A numpy array; datum object type 3.
    Numpy,
    /// A torch tensor; datum object type 6.
    Tensor,
}

impl RefKind {
    pub(crate) fn dot(self) -> u8 {
        match self {
            RefKind::Numpy => 3,
            RefKind::Tensor => 6,
        }
    }
}

/// Where referenced arrays can be downloaded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DownloadSource {
    /// The cell that holds them, as the peer wrote it: unchecked.
    pub fqcn: String,
    /// The download that they belong to.
    pub ref_id: String,
}
