//! A file that is sent to a server, chunk by chunk.

use bytes::Bytes;
use locule_fobs::{Map, Value};

use crate::{AuxRequest, Dialect};

const TX_ID: &str = "ObjectStreamer.TX_ID";
const SEQ: &str = "ObjectStreamer.SEQ";
const CTX: &str = "ObjectStreamer.CTX";
const STREAM_CHANNEL: &str = "ObjectStreamer.CHANNEL";
const STREAM_TOPIC: &str = "ObjectStreamer.TOPIC";
const UPLOAD: &str = "hci.upload";
const FOLDER: &str = "folder";
const COMMAND: &str = "conn_data";
const FILE_SIZE: &str = "FileStreamer.file_size";
const LONGEST_ID: usize = 128;

/// A chunk of a file that an administrator sends to a server with a command.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.stream_runner`, `nvflare.app_common.streamers.file_streamer`.
#[derive(Clone, Debug, PartialEq)]
pub struct UploadChunk {
    /// The stream that it belongs to.
    pub id: String,
    /// Its number, from 0.
    pub seq: i64,
    /// With the first chunk: the command document, and the size of the file in bytes.
    pub opening: Option<(String, u64)>,
    /// What it holds.
    pub data: Bytes,
    /// Whether it is the last.
    pub last: bool,
}

impl UploadChunk {
    /// Topic of a chunk; its channel is that of [`AuxRequest`].
    pub const TOPIC: &str = "ObjectStreamer.Request";
    /// Topic of the word that a stream is over; it comes after those that went well, too.
    pub const OVER: &str = "ObjectStreamer.Abort";
    /// Header of the last answer: what became of the command.
    pub const END_RESULT: &str = "ObjectStreamer.END_RESULT";

    /// As a message to a server of this version, with these properties of the sender.
    #[must_use]
    pub fn to_request(&self, peer_props: Map, to: &Dialect) -> AuxRequest {
        let mut request = AuxRequest::new(Self::TOPIC, peer_props);
        request.headers.insert(STREAM_CHANNEL, UPLOAD);
        request.headers.insert(STREAM_TOPIC, FOLDER);
        request.headers.insert(TX_ID, &*self.id);
        request.headers.insert(SEQ, self.seq);
        if let Some((command, size)) = &self.opening {
            let context = Map::from_iter([
                (COMMAND, Value::from(&**command)),
                (FILE_SIZE, i64::try_from(*size).unwrap_or(i64::MAX).into()),
                (&*format!("{}.file_name", to.upload), "job.zip".into()),
                ("__channel__", UPLOAD.into()),
                ("__topic__", FOLDER.into()),
            ]);
            request.headers.insert(CTX, context);
        }
        let field = |name: &str| format!("{}.{name}", to.upload);
        request.fields.insert(field("data"), self.data.clone());
        request.fields.insert(field("size"), i64::try_from(self.data.len()).unwrap_or(i64::MAX));
        request.fields.insert(field("eof"), self.last);
        request
    }

    /// Whether the stream that a message belongs to is an upload, rather than a site's log or something else.
    #[must_use]
    pub fn is_upload(headers: &Map) -> bool {
        headers.str(STREAM_CHANNEL) == Some(UPLOAD)
    }

    /// The stream that a message is about.
    #[must_use]
    pub fn id(headers: &Map) -> Option<&str> {
        headers.str(TX_ID).filter(|id| !id.is_empty() && id.len() <= LONGEST_ID)
    }

    /// Reads the headers and fields of a message; none if it is no chunk.
    #[must_use]
    pub fn read(headers: &Map, fields: &Map) -> Option<Self> {
        let opening = headers.map(CTX).and_then(|context| {
            let size = context.int(FILE_SIZE).and_then(|size| u64::try_from(size).ok())?;
            Some((context.str(COMMAND)?.to_owned(), size))
        });
        let field = |of: &Dialect, name: &str| format!("{}.{name}", of.upload);
        let sized = |of: &&Dialect| fields.int(&field(of, "size")).is_some();
        let dialect = Dialect::ALL.into_iter().find(sized)?;
        let data = fields.bytes(&field(dialect, "data")).cloned().unwrap_or_default();
        let size = fields.int(&field(dialect, "size")).and_then(|size| usize::try_from(size).ok());
        if size != Some(data.len()) {
            return None;
        }
        let last = fields.bool(&field(dialect, "eof")).unwrap_or_default();
        Some(Self { id: Self::id(headers)?.to_owned(), seq: headers.int(SEQ)?, opening, data, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_comes_back_as_it_was_sent() {
        let first = UploadChunk {
            id: "t".into(),
            seq: 0,
            opening: Some(("submit".into(), 3)),
            data: Bytes::from_static(b"abc"),
            last: false,
        };
        let last = UploadChunk { seq: 1, opening: None, data: Bytes::new(), last: true, ..first.clone() };
        for (chunk, to) in [first, last].iter().flat_map(|chunk| Dialect::ALL.map(|to| (chunk, to))) {
            let sent = chunk.to_request(Map::new(), to);
            assert!(UploadChunk::is_upload(&sent.headers));
            assert_eq!(UploadChunk::read(&sent.headers, &sent.fields).as_ref(), Some(chunk), "{}", to.name);
        }
    }

    #[test]
    fn chunks_of_every_version_are_read() {
        let mut headers = Map::from_iter([(TX_ID, "t")]);
        headers.insert(SEQ, 1_i64);
        for name in ["Streamer", "FileStreamer"] {
            let mut fields = Map::new();
            fields.insert(format!("{name}.data"), Bytes::from_static(b"ab"));
            fields.insert(format!("{name}.size"), 2_i64);
            fields.insert(format!("{name}.eof"), true);
            let read = UploadChunk::read(&headers, &fields).unwrap();
            assert_eq!((&read.data[..], read.seq, read.last), (&b"ab"[..], 1, true), "{name}");
            fields.insert(format!("{name}.size"), 3_i64);
            assert!(UploadChunk::read(&headers, &fields).is_none());
        }
        assert!(UploadChunk::read(&headers, &Map::new()).is_none());
    }
}
