//! Errors of encoding and decoding.

use crate::npy::NpyError;

/// Why a payload was refused. It is the peer's fault in all cases, and sending it again will not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// There is less than the payload says about itself.
    #[error("payload ends at byte {0}, in the middle of something")]
    Truncated(usize),
    /// The value ends before its section does.
    #[error("{0} bytes behind the value")]
    TrailingBytes(usize),
    /// A section begins with a marker that does not belong there.
    #[error("section marker {marker} at byte {at}")]
    Marker {
        /// What was found.
        marker: u8,
        /// Where, in the payload.
        at: usize,
    },
    /// A section is empty, or too short for what it must hold.
    #[error("section at byte {0} is empty")]
    EmptySection(usize),
    /// A datum has a type that nobody handles, or one that its section may not have.
    #[error("datum object type {0} is not supported")]
    DatumType(u8),
    /// Two datums with one identifier, or two download sources of one kind.
    #[error("datum section at byte {0} repeats another")]
    RepeatedDatum(usize),
    /// A reference to a datum that is not there.
    #[error("no datum {0}")]
    MissingDatum(String),
    /// A reference to an array, without the place to download it from.
    #[error("array reference without a download source")]
    MissingSource,
    /// The place to download from is not the JSON that it should be.
    #[error("bad download source: {0}")]
    Source(&'static str),
    /// Nested deeper than [`crate::Limits::depth`].
    #[error("nested deeper than {0} levels")]
    TooDeep(usize),
    /// More values than [`crate::Limits`] allow for this number of bytes.
    #[error("more than {0} values in a payload of this size")]
    TooManyValues(usize),
    /// Large texts, referred to again and again, would take more room than the payload itself.
    #[error("references to datums multiply its size")]
    Multiplied,
    /// Text that is not UTF-8.
    #[error("text at byte {0} of its section is not UTF-8")]
    Utf8(usize),
    /// A msgpack extension or the byte that msgpack never uses.
    #[error("msgpack type {marker:#04x} at byte {at} of the value is not used in this format")]
    Msgpack {
        /// The first byte of the value.
        marker: u8,
        /// Where, in its section.
        at: usize,
    },
    /// A key, or an element of a set, that Python could not hash.
    #[error("a {0} cannot be a key")]
    Key(&'static str),
    /// The same key twice in one map.
    #[error("key {0} is there twice")]
    RepeatedKey(String),
    /// The class is not one of [`crate::Class`].
    #[error("class {0} is not known")]
    UnknownClass(String),
    /// The data of an object are not what its class calls for.
    #[error("data of {class} should be {expected}")]
    Shape {
        /// The class.
        class: &'static str,
        /// What its data should be.
        expected: &'static str,
    },
    /// The file of an array.
    #[error(transparent)]
    Array(#[from] NpyError),
}

/// Why a value could not be encoded: it is one that no receiver would accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Nested deeper than receivers of this crate allow.
    #[error("nested deeper than {0} levels")]
    TooDeep(usize),
    /// A map with the key that marks objects: a receiver would take it for one.
    #[error("a map may not have the key __fobs_type__")]
    ReservedKey,
    /// A key, or an element of a set, that Python cannot hash.
    #[error("a {0} cannot be a key")]
    Key(&'static str),
    /// An enumeration was expected and the class is none, or the other way round.
    #[error("{0} is not a class for this value")]
    Class(&'static str),
    /// The data of an object are not what its class calls for.
    #[error("data of {class} should be {expected}")]
    Shape {
        /// The class.
        class: &'static str,
        /// What its data should be.
        expected: &'static str,
    },
    /// References to arrays of one kind in more than one download.
    #[error("array references of one kind have different download sources")]
    MixedSources,
    /// A datum without content, which the format cannot carry.
    #[error("an application's datum is empty")]
    EmptyDatum,
    /// A text datum that is not UTF-8.
    #[error("a text datum is not utf-8")]
    Utf8,
    /// More entries, or a longer value, than msgpack can count.
    #[error("longer than 4,294,967,295 entries or bytes")]
    TooLong,
}

/// What a peer wrote, fit for a message: escaped, and cut after 100 characters.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(100).flat_map(char::escape_debug).collect();
    if text.chars().nth(100).is_some() {
        shown.push('…');
    }
    shown
}
