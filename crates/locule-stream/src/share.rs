//! Who has how much of what all peers share.
//!
//! Cells count together that have the first segment of their names in common: a site cannot get more by
//! calling itself by many names below its own.

use std::collections::HashMap;

use locule_message::Fqcn;

#[derive(Debug, Default)]
pub(crate) struct Shares {
    of: HashMap<String, Share>,
    pub(crate) bytes: u64,
}

#[derive(Debug, Default)]
struct Share {
    streams: usize,
    bytes: u64,
}

/// Whose share a cell's streams belong to.
pub(crate) fn root(name: &Fqcn) -> &str {
    name.root()
}

impl Shares {
    /// A stream begins.
    pub(crate) fn add(&mut self, name: &Fqcn, bytes: u64) {
        let share = self.of.entry(root(name).to_owned()).or_default();
        share.streams += 1;
        share.bytes += bytes;
        self.bytes += bytes;
    }

    /// What a stream has is not what it was.
    pub(crate) fn change(&mut self, name: &Fqcn, before: u64, after: u64) {
        if let Some(share) = self.of.get_mut(root(name)) {
            share.bytes = share.bytes.saturating_sub(before) + after;
            self.bytes = self.bytes.saturating_sub(before) + after;
        }
    }

    /// A stream ends, and this is what it had.
    pub(crate) fn remove(&mut self, name: &Fqcn, bytes: u64) {
        let Some(share) = self.of.get_mut(root(name)) else { return };
        share.streams = share.streams.saturating_sub(1);
        share.bytes = share.bytes.saturating_sub(bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
        if share.streams == 0 {
            self.of.remove(root(name));
        }
    }

    /// What a cell has, with all that count together with it.
    pub(crate) fn bytes_of(&self, name: &Fqcn) -> u64 {
        self.of.get(root(name)).map_or(0, |share| share.bytes)
    }

    /// Who has most bytes, of those with so many streams at least.
    pub(crate) fn largest(&self, streams: usize) -> Option<&str> {
        let those = self.of.iter().filter(|(_, share)| share.streams >= streams);
        those.max_by_key(|(_, share)| (share.bytes, share.streams)).map(|(root, _)| root.as_str())
    }

    /// Who has most streams.
    pub(crate) fn most_streams(&self) -> Option<&str> {
        self.of.iter().max_by_key(|(_, share)| share.streams).map(|(root, _)| root.as_str())
    }

    pub(crate) fn streams_of(&self, name: &Fqcn) -> usize {
        self.streams_of_root(root(name))
    }

    pub(crate) fn streams_of_root(&self, root: &str) -> usize {
        self.of.get(root).map_or(0, |share| share.streams)
    }
}
