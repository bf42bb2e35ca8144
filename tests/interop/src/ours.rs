//! Cells of ours that answer as the Python side's do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use locule_cell::{Cell, HandlerError, Incoming, Reply};
use locule_download::{FetchLimits, Source, fetch};
use locule_fobs::{Map, Shareable, Value};
use locule_message::{Encoding, Fqcn, Payload, ReturnCode};
use tokio::sync::mpsc::UnboundedSender;

use crate::arrays;
use crate::payload::pattern;

/// How long arrays are held for a receiver that does not ask.
const HELD: Duration = Duration::from_secs(60);

/// A message to which no reply was expected.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) origin: Fqcn,
    pub(crate) payload: Payload,
}

/// Has `cell` answer the topics of `cell_peer.py` on `channel`, and note the blobs of another.
///
/// No handler keeps the cell alive.
pub(crate) fn answer(cell: &Arc<Cell>, channel: &str, blobs: [&str; 2], notes: &UnboundedSender<Note>) {
    cell.handle(channel, "echo", |incoming: Incoming| async move {
        let reply = Reply::ok(incoming.payload());
        let mark = incoming.headers.str("mark");
        Ok(match mark {
            Some(mark) => reply.header("mark", mark),
            None => reply,
        })
    });
    let own = Arc::downgrade(cell);
    cell.handle(channel, "dumps", move |incoming: Incoming| {
        let own = own.clone();
        async move {
            let own = own.upgrade().ok_or_else(|| HandlerError::failed("the cell is gone"))?;
            let holder = incoming.origin.clone();
            let again = again(&own, &holder, incoming.into_payload()).await;
            Ok(Reply::ok(Payload::bytes(again.map_err(HandlerError::invalid_request)?)))
        }
    });
    let own = Arc::downgrade(cell);
    cell.handle(channel, "sums", move |incoming: Incoming| {
        let own = own.clone();
        async move {
            let own = own.upgrade().ok_or_else(|| HandlerError::failed("the cell is gone"))?;
            let holder = incoming.origin.clone();
            let whole = whole(&own, &holder, incoming.into_payload()).await;
            let Value::Map(map) = whole.map_err(HandlerError::invalid_request)? else {
                return Err(HandlerError::invalid_request("no arrays"));
            };
            Ok(Reply::ok(Payload::bytes(arrays::sums(&map).to_string().into())))
        }
    });
    let source = Source::serve(cell);
    cell.handle(channel, "arrays", move |incoming: Incoming| {
        let offered = offered(&source, incoming.headers.str("arrays").unwrap_or_default());
        async move { Ok(Reply::ok(Payload::fobs(offered.map_err(HandlerError::invalid_request)?))) }
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

/// What our own FOBS makes of a payload, there and back, with the arrays that `holder` keeps.
pub(crate) async fn again(cell: &Cell, holder: &Fqcn, payload: Payload) -> Result<Bytes, String> {
    let value = whole(cell, holder, payload).await?;
    locule_fobs::encode(&value).map_err(|error| error.to_string())
}

/// What a payload holds, with the arrays that `holder` keeps.
pub(crate) async fn whole(cell: &Cell, holder: &Fqcn, payload: Payload) -> Result<Value, String> {
    if payload.encoding != Encoding::Fobs {
        return Err(format!("the payload is {:?}", payload.encoding));
    }
    let value = locule_fobs::decode(payload.body.whole()).map_err(|error| error.to_string())?;
    let mut whole = Shareable::new();
    whole.fields.insert("value", value);
    fetch(cell, &mut whole, holder, &FetchLimits::default()).await.map_err(|error| error.to_string())?;
    Ok(whole.fields.remove("value").unwrap_or_default())
}

/// References to the described arrays.
fn offered(source: &Source, described: &str) -> Result<Bytes, String> {
    let described = serde_json::from_str(described).map_err(|error| error.to_string())?;
    let (names, arrays): (Vec<_>, Vec<_>) = arrays::all(&described)?.into_iter().unzip();
    let references = source.offer(arrays, 1, HELD).map_err(|error| error.to_string())?;
    let map: Map = names.into_iter().zip(references).collect();
    locule_fobs::encode(&Value::from(map)).map_err(|error| error.to_string())
}
