//! The decoders.

mod carriers;
mod documents;
mod downloads;
mod links;
mod names;
mod objects;
mod streams;

use crate::Target;

const TARGETS: [Target; 18] = [
    links::FRAMES,
    links::HELLO,
    links::HEADERS,
    objects::FOBS,
    objects::STRANGER,
    objects::PROTOCOL,
    streams::STREAMS,
    downloads::DOWNLOAD,
    downloads::OFFERS,
    downloads::NPZ,
    documents::CONFIG,
    documents::HOCON,
    documents::PROJECT,
    documents::ADMIN,
    names::NAMES,
    documents::ARCHIVE,
    carriers::STREAMED,
    carriers::GRPC,
];

/// All targets.
#[must_use]
pub fn targets() -> &'static [Target] {
    &TARGETS
}

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
