//! The container: one section with the value, and one for each datum.
//!
//! `marker u8 | dot u8 | size u64 big-endian | body[size]`, until the data end.
//!
//! # Source
//! nvflare 2.9.0, `nvflare.fuel.utils.fobs.lobs`.

use bytes::{Buf, Bytes};
use uuid::Uuid;

use crate::DatumKind;
use crate::error::DecodeError;

/// Length of what comes before the body of a section.
pub(crate) const HEADER_LEN: usize = 10;
pub(crate) const DATUM_ID_LEN: usize = 16;

pub(crate) const MARKER_MAIN: u8 = 100;
const MARKER_TEXT: u8 = 101;
const MARKER_BLOB: u8 = 102;
const MARKER_FILE: u8 = 103;

/// Keys of the map that an object travels as, in the order of all senders.
pub(crate) const TYPE: &str = "__fobs_type__";
pub(crate) const DATA: &str = "__fobs_data__";
pub(crate) const DECOMPOSER: &str = "__fobs_dc__";

/// One section of a payload.
#[derive(Debug)]
pub(crate) struct Section {
    /// Where it begins in the payload.
    pub(crate) at: usize,
    pub(crate) marker: u8,
    pub(crate) dot: u8,
    pub(crate) body: Bytes,
}

impl Section {
    /// Cuts a payload into its sections; ends after the first mistake.
    pub(crate) fn all(payload: Bytes) -> impl Iterator<Item = Result<Section, DecodeError>> {
        let total = payload.len();
        let mut rest = payload;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let at = total - rest.len();
            let section = Self::cut(&mut rest, at);
            if section.is_err() {
                rest.clear();
            }
            Some(section)
        })
    }

    fn cut(rest: &mut Bytes, at: usize) -> Result<Section, DecodeError> {
        let end = at + rest.len();
        if rest.len() < HEADER_LEN {
            return Err(DecodeError::Truncated(end));
        }
        let (marker, dot, size) = (rest.get_u8(), rest.get_u8(), rest.get_u64());
        match usize::try_from(size) {
            Ok(0) => Err(DecodeError::EmptySection(at)),
            Ok(size) if size <= rest.len() => Ok(Section { at, marker, dot, body: rest.split_to(size) }),
            _ => Err(DecodeError::Truncated(end)),
        }
    }

    /// Takes the section for a datum: its identifier, kind and value.
    pub(crate) fn datum(&self) -> Result<(Uuid, DatumKind, Bytes), DecodeError> {
        let kind = match self.marker {
            MARKER_TEXT => DatumKind::Text,
            MARKER_BLOB => DatumKind::Blob,
            MARKER_FILE => DatumKind::File,
            marker => return Err(DecodeError::Marker { marker, at: self.at }),
        };
        match self.body.split_first_chunk::<DATUM_ID_LEN>() {
            Some((id, value)) if !value.is_empty() => {
                Ok((Uuid::from_bytes(*id), kind, self.body.slice(DATUM_ID_LEN..)))
            }
            _ => Err(DecodeError::EmptySection(self.at)),
        }
    }
}

/// Writes what comes before the body of a section.
pub(crate) fn header(marker: u8, dot: u8, size: usize) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[0] = marker;
    header[1] = dot;
    header[2..].copy_from_slice(&(size as u64).to_be_bytes());
    header
}

impl DatumKind {
    pub(crate) fn marker(self) -> u8 {
        match self {
            DatumKind::Text => MARKER_TEXT,
            DatumKind::Blob => MARKER_BLOB,
            DatumKind::File => MARKER_FILE,
        }
    }
}
