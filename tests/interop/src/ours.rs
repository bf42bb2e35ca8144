//! Cells of ours that answer as the Python side's do.

use bytes::Bytes;
use locule_cell::{Cell, HandlerError, Incoming, Reply};
use locule_message::{Encoding, Fqcn, Payload, ReturnCode};
use tokio::sync::mpsc::UnboundedSender;

use crate::payload::pattern;

/// A message to which no reply was expected.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) origin: Fqcn,
    pub(crate) payload: Payload,
}

/// Has `cell` answer the topics of `cell_peer.py` on `channel`, and note the blobs of another.
pub(crate) fn answer(cell: &Cell, channel: &str, blobs: [&str; 2], notes: &UnboundedSender<Note>) {
    cell.handle(channel, "echo", |incoming: Incoming| async move {
        let reply = Reply::ok(incoming.payload());
        let mark = incoming.headers.str("mark");
        Ok(match mark {
            Some(mark) => reply.header("mark", mark),
            None => reply,
        })
    });
    cell.handle(channel, "dumps", |incoming: Incoming| async move {
        let again = again(incoming.into_payload()).map_err(HandlerError::invalid_request)?;
        Ok(Reply::ok(Payload::bytes(again)))
    });
    cell.handle(channel, "size", |incoming: Incoming| async move {
        let size = incoming.headers.u64("size").and_then(|size| usize::try_from(size).ok());
        let size = size.ok_or_else(|| HandlerError::invalid_request("no header `size`"))?;
        Ok(Reply::ok(Payload::bytes(pattern(size))))
    });
    cell.handle(channel, "refuse", |_: Incoming| async {
        Err(HandlerError::new(ReturnCode::InvalidRequest, "not today"))
    });
    cell.handle(channel, "fail", |_: Incoming| async { Err(HandlerError::failed("boom")) });
    cell.handle(channel, "silent", |_: Incoming| std::future::pending());
    for [channel, topic] in [[channel, "note"], blobs] {
        let notes = notes.clone();
        cell.handle(channel, topic, move |incoming: Incoming| {
            let note = Note { origin: incoming.origin.clone(), payload: incoming.into_payload() };
            let _ = notes.send(note); // the case is over
            async { Ok(Reply::ok(Payload::none())) }
        });
    }
}

/// What our own FOBS makes of a payload, there and back.
fn again(payload: Payload) -> Result<Bytes, String> {
    if payload.encoding != Encoding::Fobs {
        return Err(format!("the payload is {:?}", payload.encoding));
    }
    let value = locule_fobs::decode(payload.bytes).map_err(|error| error.to_string())?;
    locule_fobs::encode(&value).map_err(|error| error.to_string())
}
