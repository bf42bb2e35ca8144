//! What streams of older versions do otherwise.

use std::collections::HashSet;

use locule_message::{Fqcn, Headers};

use crate::outgoing::Outgoing;
use crate::wire::{REPLIES, key};
use crate::{Blob, StreamConfig};

/// Bytes that may be under way to a cell of nvflare before 2.9: it holds 16 chunks that came before their turn, and
/// ends a stream of which more did.
const WINDOW: u64 = 16 << 20;
/// Most such cells that are remembered.
const CELLS: usize = 4096;

/// Cells of nvflare before 2.9, known by what their chunks leave out.
///
/// Such a cell acknowledges neither the last chunks of a stream nor the number of any, so nothing that it is sent
/// can be told to have arrived. One that was not heard yet is taken for a newer one.
///
/// # Source
/// nvflare 2.7.3 and 2.8.3, `nvflare.fuel.f3.streaming`.
#[derive(Debug, Default)]
pub(crate) struct Older(HashSet<Fqcn>);

impl Older {
    /// Takes note of a chunk that `cell` sent.
    pub(crate) fn note(&mut self, cell: &Fqcn, chunk: &Headers) {
        if chunk.contains(key::RELIABLE) {
            self.0.remove(cell);
        } else if !self.0.contains(cell) {
            if self.0.len() >= CELLS {
                self.0.clear(); // they will be heard again
            }
            self.0.insert(cell.clone());
        }
    }

    /// How to send to `target`.
    pub(crate) fn adapt(&self, target: &Fqcn, config: &StreamConfig, blob: &mut Blob) -> u64 {
        if !self.0.contains(target) {
            return config.window;
        }
        blob.reliable = false;
        config.window.min(WINDOW)
    }
}

/// Whether a stream that has left is to be remembered, since its receiver may object: replies are not, whether or
/// not their receiver acknowledges them.
pub(crate) fn is_remembered(stream: &Outgoing) -> bool {
    !stream.reliable && stream.request_id.is_some() && stream.channel != REPLIES
}
